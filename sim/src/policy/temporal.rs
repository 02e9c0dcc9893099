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

use super::options::option;
use super::{
    Depth, Kind, LayoutError, OptionError, OptionSpec, Options, Policy, PolicyInfo, Properties,
};
use crate::layout::{Discipline, Layout};
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
    options: OPTIONS,
    build: |options| Ok(Box::new(Temporal::new(options)?)),
};

#[rustfmt::skip] // one option, two lines
const OPTIONS: &[OptionSpec] = &[
    option("quantum", Kind::Duration, "", "",
        "longest turn while others wait; default: the device's"),
    option("switch", Kind::Duration, "", "",
        "time to preempt one context for another; default: the device's, nothing under ideal costs"),
    option("make_way", Kind::Duration, "", "",
        "time until the next context runs when one goes idle; default: the device's"),
    option("run_to_completion", Kind::Bool, "", "false",
        "a turn ends with the batch, not with the quantum"),
    option("context_memory", Kind::Integer(0, 1 << 20), "MiB", "",
        "device memory of one context; default: the device's"),
];

struct Temporal {
    quantum: Option<Nanos>,
    switch: Option<Nanos>,
    make_way: Option<Nanos>,
    run_to_completion: bool,
    context_memory: Option<Bytes>,
}

impl Temporal {
    fn new(options: &Options) -> Result<Self, OptionError> {
        let quantum = options.duration("quantum");
        if quantum == Some(Nanos::ZERO) {
            return Err(OptionError::new("quantum", "a turn takes time: give more than 0"));
        }
        Ok(Self {
            quantum,
            switch: options.duration("switch"),
            make_way: options.duration("make_way"),
            run_to_completion: options.flag("run_to_completion").unwrap_or(false),
            context_memory: options.integer("context_memory").map(|mib| Bytes((mib as u64) << 20)),
        })
    }
}

impl Policy for Temporal {
    fn depth(&self) -> Depth {
        Depth::Layout
    }

    fn layout(&mut self, setup: &Setup) -> Result<Layout, LayoutError> {
        let overhead = self.context_memory.unwrap_or(setup.costs.context_memory);
        let turns = Discipline::TimeSliced {
            quantum: self.quantum.unwrap_or(setup.costs.quantum),
            switch: self.switch.unwrap_or(setup.costs.context_switch.cost),
            make_way: self.make_way.unwrap_or(setup.costs.context_yield.cost),
            run_to_completion: self.run_to_completion,
        };
        Ok(setup.contexts(turns, overhead))
    }
}
