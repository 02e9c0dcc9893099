//! `ideal`: the bound that no policy can beat.
//!
//! A fluid packing of every request at its best point under CU and bandwidth capacity: no launch, no
//! copy, no switch, no quantisation, preemption at any instant for free; latency-critical tenants
//! first, among them as many deadlines met as can be, then the least work. No mechanism delivers it;
//! every other policy is shown as a share of it. The model is described in `sim/src/bound.rs`.
//!
//! What is proved is that no policy completes a mix of requests that needs more of the device than
//! there is. Which mix the bound completes is its order's choice: no policy is known to serve more
//! requests of latency-critical tenants, or more of them in time (the conformance tests hold every
//! policy against both), but orders that know the future could, by a few percent.
//!
//! Source: D-STACK (Dhakal et al. 2023) compares itself with an ideal that re-allocates the GPU per
//! kernel; this one is looser still, so that it bounds every policy here.

use super::{Bound, Depth, LayoutError, Policy, PolicyInfo, Properties};
use crate::layout::Layout;
use crate::scenario::Setup;

/// The registry entry.
pub(super) const INFO: PolicyInfo = PolicyInfo {
    name: "ideal",
    summary: "the bound: fluid packing at every kernel's best point",
    source: "after D-STACK's ideal (arXiv 2304.13541)",
    properties: Properties {
        work_conserving: true,
        alone_is_isolated: false,
        starvation_free: false,
    },
    options: &[],
    counters: &[],
    build: |_| Ok(Box::new(Ideal)),
};

struct Ideal;

impl Policy for Ideal {
    fn depth(&self) -> Depth {
        Depth::Layout
    }

    /// The whole GPU with no worker on it: a bound has no workers.
    fn layout(&mut self, setup: &Setup) -> Result<Layout, LayoutError> {
        Ok(Layout { pools: vec![setup.whole_gpu()], workers: vec![] })
    }

    fn bound(&self) -> Option<Bound> {
        Some(crate::bound::bound)
    }
}
