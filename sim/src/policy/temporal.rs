//! `temporal`: one context at a time.
//!
//! Models what the driver does with processes that share a GPU without MPS: contexts take turns,
//! each with all CUs for a time slice, and pay a switch in between. A context without work makes way
//! at once, more cheaply since there is no state to save; preempted kernels keep their progress. With `run_to_completion` a turn ends with the batch
//! instead, as in servers that run one inference at a time.
//!
//! Source: NVIDIA's MPS documentation (without MPS, work of different contexts never runs
//! concurrently) and open-gpu-kernel-modules (per-channel time slices). The slice that compute
//! contexts get is not published: `quantum` is a knob.

use cotenant_profiles::{Bytes, Nanos};

use super::{Depth, LayoutError, Policy, PolicyInfo, Properties};
use crate::layout::{Discipline, Layout};
use crate::options;
use crate::scenario::Setup;

/// The registry entry.
pub(super) const INFO: PolicyInfo = PolicyInfo {
    name: "temporal",
    summary: "contexts take turns on the whole GPU",
    source: "NVIDIA MPS documentation; open-gpu-kernel-modules time slices",
    properties: Properties {
        work_conserving: false,
        alone_is_isolated: true,
        starvation_free: true,
    },
    options: Temporal::SPECS,
    build: |options| Ok(Box::new(Temporal::read(options)?)),
};

options! {
    /// Options of `temporal`.
    struct Temporal {
        /// longest turn while others wait
        quantum: Option<Nanos> = None, period(), unset("the device's");
        /// time to preempt one context for another
        switch: Option<Nanos> = None, unset("the device's, nothing under ideal costs");
        /// time until the next context runs when one goes idle
        make_way: Option<Nanos> = None, unset("the device's");
        /// a turn ends with the batch, not with the quantum
        run_to_completion: bool = false;
        /// device memory of one context
        context_memory: Option<u32> = None, whole(0, 1 << 20), unit("MiB"), unset("the device's");
    }
}

impl Policy for Temporal {
    fn depth(&self) -> Depth {
        Depth::Layout
    }

    fn layout(&mut self, setup: &Setup) -> Result<Layout, LayoutError> {
        let given = self.context_memory.map(|mib| Bytes(u64::from(mib) << 20));
        let overhead = given.unwrap_or(setup.costs.context_memory);
        let turns = Discipline::TimeSliced {
            quantum: self.quantum.unwrap_or(setup.costs.quantum),
            switch: self.switch.unwrap_or(setup.costs.context_switch.cost),
            make_way: self.make_way.unwrap_or(setup.costs.context_yield.cost),
            run_to_completion: self.run_to_completion,
        };
        Ok(setup.contexts(turns, overhead))
    }
}
