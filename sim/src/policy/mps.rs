//! `mps`: all tenants share every CU.
//!
//! Models NVIDIA's multi-process service without limits (or streams of one process): kernels of all
//! workers run side by side; blocks of the earlier kernel go first, the later one takes what is left
//! over. With `priorities`, pending blocks of latency-critical tenants go before those of
//! best-effort ones; blocks already on a CU stay there.
//!
//! Source: NVIDIA's MPS documentation ("leftover" capacity); priorities as in
//! `CUDA_MPS_CLIENT_PRIORITY` and stream priorities, a hint that never evicts.

use super::{Depth, LayoutError, Policy, PolicyInfo, Properties};
use crate::layout::Layout;
use crate::options;
use crate::scenario::{Class, Setup};

/// The registry entry.
pub(super) const INFO: PolicyInfo = PolicyInfo {
    name: "mps",
    summary: "all tenants share every CU; later kernels use what earlier ones leave free",
    source: "NVIDIA MPS documentation",
    properties: Properties {
        work_conserving: true,
        alone_is_isolated: true,
        starvation_free: false,
    },
    options: Mps::SPECS,
    counters: &[],
    build: |options| Ok(Box::new(Mps::read(options)?)),
};

options! {
    /// Options of `mps`.
    struct Mps {
        /// latency-critical tenants go before best-effort ones
        priorities: bool = false;
    }
}

impl Policy for Mps {
    fn depth(&self) -> Depth {
        Depth::Layout
    }

    fn layout(&mut self, setup: &Setup) -> Result<Layout, LayoutError> {
        let mut layout = setup.clients(|_| setup.device.cus())?;
        for worker in &mut layout.workers {
            let class = setup.tenants[worker.tenant as usize].class;
            worker.priority = i8::from(self.priorities && class == Class::Latency);
        }
        Ok(layout)
    }
}
