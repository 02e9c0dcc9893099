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

use super::{
    Depth, Kind, LayoutError, OptionError, OptionSpec, Options, Policy, PolicyInfo, Properties,
};
use crate::layout::{Discipline, Layout, PoolSpec, WorkerSpec};
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
    options: &[
        OptionSpec {
            name: "quantum",
            kind: Kind::Duration,
            unit: "",
            default: "",
            help: "longest turn while others wait; default: the device's",
        },
        OptionSpec {
            name: "switch",
            kind: Kind::Duration,
            unit: "",
            default: "",
            help: "time to preempt one context for another; default: the device's, nothing under \
                   ideal costs",
        },
        OptionSpec {
            name: "make_way",
            kind: Kind::Duration,
            unit: "",
            default: "",
            help: "time until the next context runs when one goes idle; default: the device's",
        },
        OptionSpec {
            name: "run_to_completion",
            kind: Kind::Bool,
            unit: "",
            default: "false",
            help: "a turn ends with the batch, not with the quantum",
        },
        OptionSpec {
            name: "context_memory",
            kind: Kind::Integer(0, 1 << 20),
            unit: "MiB",
            default: "",
            help: "device memory of one context; default: the device's",
        },
    ],
    build: |options| Ok(Box::new(Temporal::new(options)?)),
};

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
        let cus = setup.device.cus();
        let overhead = self.context_memory.unwrap_or(setup.costs.context_memory);
        let mut workers = setup.workers(|tenant, _| WorkerSpec {
            tenant,
            pool: 0,
            lane: 0,
            cap: cus,
            priority: 0,
            overhead,
        });
        // Every process has a context of its own.
        for (lane, worker) in workers.iter_mut().enumerate() {
            worker.lane = lane as u32;
        }
        let discipline = Discipline::TimeSliced {
            quantum: self.quantum.unwrap_or(setup.costs.quantum),
            switch: self.switch.unwrap_or(setup.costs.context_switch.cost),
            make_way: self.make_way.unwrap_or(setup.costs.context_yield.cost),
            run_to_completion: self.run_to_completion,
        };
        let pool = PoolSpec { discipline, lanes: vec![cus; workers.len()], ..setup.whole_gpu() };
        Ok(Layout { pools: vec![pool], workers })
    }
}
