//! `temporal`: one context at a time.
//!
//! Models what the driver does with processes that share a GPU without MPS: contexts take turns,
//! each with all CUs for a time slice, and pay a switch in between. A context without work makes way
//! at once, more cheaply since there is no state to save; preempted kernels keep their progress. With `run_to_completion` a turn ends with the batch
//! instead, as in servers that run one inference at a time.
//!
//! Source: NVIDIA's MPS documentation (without MPS, work of different contexts never runs
//! concurrently) and open-gpu-kernel-modules (per-channel time slices). The slice that compute
//! contexts get is not published: `quantum` is a knob. `interval` has the driver's names for slices
//! (`nvidia-smi compute-policy --set-timeslice`, `interval` of a DRA claim); what they mean is not
//! published either. The lengths here are those of a Red Hat training page, which is unverified.

use cotenant_profiles::{Bytes, Nanos};

use super::{Depth, LayoutError, OptionError, Policy, PolicyInfo, Properties};
use crate::layout::{Discipline, Layout};
use crate::scenario::Setup;
use crate::{options, words};

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
    counters: &[],
    build: |options| {
        let policy = Temporal::read(options)?;
        if policy.quantum.is_some() && policy.interval != Interval::Default {
            let why = "is set beside `quantum`, which says the same: give one of them";
            return Err(OptionError::new("interval", why));
        }
        Ok(Box::new(policy))
    },
};

options! {
    /// Options of `temporal`.
    struct Temporal {
        /// longest turn while others wait
        quantum: Option<Nanos> = None, period(), unset("the device's");
        /// the quantum by the driver's name
        interval: Interval = Interval::Default;
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

/// The driver's names for time slices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Interval {
    Default,
    Short,
    Medium,
    Long,
}

words!(Interval {
    "default" => Interval::Default,
    "short" => Interval::Short,
    "medium" => Interval::Medium,
    "long" => Interval::Long,
});

impl Interval {
    fn quantum(self) -> Option<Nanos> {
        match self {
            Self::Default => None,
            Self::Short => Some(Nanos::from_millis(2)),
            Self::Medium => Some(Nanos::from_millis(10)),
            Self::Long => Some(Nanos::from_millis(30)),
        }
    }
}

impl Policy for Temporal {
    fn depth(&self) -> Depth {
        Depth::Layout
    }

    fn layout(&mut self, setup: &Setup) -> Result<Layout, LayoutError> {
        let named = self.interval.quantum();
        let given = self.context_memory.map(|mib| Bytes(u64::from(mib) << 20));
        let overhead = given.unwrap_or(setup.costs.context_memory);
        let turns = Discipline::TimeSliced {
            quantum: self.quantum.or(named).unwrap_or(setup.costs.quantum),
            switch: self.switch.unwrap_or(setup.costs.context_switch.cost),
            make_way: self.make_way.unwrap_or(setup.costs.context_yield.cost),
            run_to_completion: self.run_to_completion,
        };
        Ok(setup.contexts(turns, overhead))
    }
}
