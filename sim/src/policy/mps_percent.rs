//! `mps-percent`: a cap per worker.
//!
//! Models MPS active-thread percentages: an upper bound on how many CUs a client's kernels may use
//! at once, any CUs, no reservation. Bounds may overlap and their sum may exceed the GPU. A
//! percentage becomes CUs by the device's rounding. `shares` is `equal` (100 % over all workers),
//! `right-sized` (each model's knee: the fewest CUs within `tolerance` of its isolated time, what
//! KRISP's evaluation calls Model Right-Size), or percentages given per tenant and worker.
//!
//! Source: NVIDIA's MPS documentation; rounding as observed (see the device files).

use super::{Depth, LayoutError, PerTenant, Policy, PolicyInfo, Properties};
use crate::layout::Layout;
use crate::scenario::Setup;
use crate::{options, words};

/// The registry entry.
pub(super) const INFO: PolicyInfo = PolicyInfo {
    name: "mps-percent",
    summary: "a CU cap per worker, overlap allowed",
    source: "NVIDIA MPS documentation; KRISP (HPCA 2023) for Model Right-Size",
    properties: Properties {
        work_conserving: false,
        alone_is_isolated: false,
        starvation_free: true,
    },
    options: MpsPercent::SPECS,
    counters: &[],
    build: |options| Ok(Box::new(MpsPercent::read(options)?)),
};

options! {
    /// Options of `mps-percent`.
    struct MpsPercent {
        /// percentage of the CUs that one worker of each tenant may use
        shares: PerTenant<Rule> = PerTenant::Word(Rule::Equal), unit("%");
        /// right-sized: slow-down accepted for fewer CUs
        tolerance: f64 = 0.05, within(0.0, 1.0);
    }
}

/// How a share is determined.
#[derive(Clone, Copy, Debug)]
enum Rule {
    Equal,
    RightSized,
}

words!(Rule { "equal" => Rule::Equal, "right-sized" => Rule::RightSized });

impl Policy for MpsPercent {
    fn depth(&self) -> Depth {
        Depth::Layout
    }

    fn layout(&mut self, setup: &Setup) -> Result<Layout, LayoutError> {
        let device = &setup.device;
        let total: u32 = setup.tenants.iter().map(|t| t.workers).sum();
        let caps = match &self.shares {
            PerTenant::Word(Rule::Equal) => {
                vec![device.mps_cus(100.0 / f64::from(total.max(1))); setup.tenants.len()]
            }
            PerTenant::Word(Rule::RightSized) => {
                let step = device.mps.map_or(1, |m| m.round_cus);
                let size = |t| setup.right_size(t, self.tolerance).next_multiple_of(step);
                (0..setup.tenants.len()).map(|t| size(t).min(device.cus())).collect()
            }
            PerTenant::Given(value) => setup
                .per_tenant("shares", value)?
                .into_iter()
                .map(|percent| device.mps_cus(percent))
                .collect(),
        };
        setup.check_percentages()?;
        setup.clients(|tenant| caps[tenant as usize])
    }
}
