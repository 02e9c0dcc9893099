//! `streams`: one process, a thread and a stream per worker.
//!
//! Models the explicit way of spatial sharing: all models live in one process, each with a thread and
//! a CUDA stream of its own. Kernels run side by side as under `mps`, without its limit on clients
//! and with one context's memory for all; but the threads take turns at the process's lock (the
//! interpreter's, the framework's or the driver's) for every launch, for as long as the profile says
//! that the host needs for it. So the launches of all workers together never come faster than one
//! after the other: what looks like a limit on how many kernels overlap is one of the host.
//!
//! Source: Jain et al. 2018 (Dynamic Space-Time Scheduling), "explicit spatial multiplexing". That
//! the host's lock is what bounds it is our reading of its figure 7, where the time grows by the same
//! 55 µs with every GEMM from the second on; the paper names no cause.

use cotenant_profiles::Bytes;

use super::{Depth, LayoutError, Policy, PolicyInfo, Properties};
use crate::layout::{Host, Layout, PoolSpec, WorkerSpec};
use crate::scenario::Setup;

/// The registry entry.
pub(super) const INFO: PolicyInfo = PolicyInfo {
    name: "streams",
    summary: "one process: kernels side by side, launches one after the other",
    source: "Dynamic Space-Time Scheduling (Jain et al. 2018), explicit streams",
    properties: Properties {
        work_conserving: false,
        alone_is_isolated: true,
        starvation_free: false,
    },
    options: &[],
    counters: &[],
    build: |_| Ok(Box::new(Streams)),
};

struct Streams;

impl Policy for Streams {
    fn depth(&self) -> Depth {
        Depth::Layout
    }

    fn layout(&mut self, setup: &Setup) -> Result<Layout, LayoutError> {
        Ok(one_process(setup))
    }
}

/// Every worker is a stream of one process on the whole GPU.
pub(super) fn one_process(setup: &Setup) -> Layout {
    let cus = setup.device.cus();
    let mut workers =
        setup.workers(|tenant, _| WorkerSpec { overhead: Bytes(0), ..setup.client(tenant, cus) });
    if let Some(first) = workers.first_mut() {
        first.overhead = setup.costs.context_memory;
    }
    Layout { pools: vec![PoolSpec { host: Host::Shared, ..setup.whole_gpu() }], workers }
}
