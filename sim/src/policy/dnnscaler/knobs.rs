//! The options, in the form in which they are used, and what follows from them alone.

use std::collections::VecDeque;

use cotenant_profiles::{Bytes, Nanos};

use super::band::Statistic;
use super::completion;
use super::instances::Waits;
use super::known::Rows;
use crate::layout::{Role, WorkerSpec};
use crate::policy::OptionError;
use crate::policy::options::Latency;
use crate::scenario::Setup;
use crate::{options, words};

options! {
    /// Options of `dnnscaler`.
    pub(super) struct Knobs {
        /// which knob: the one that the probes favour, or this one
        pub(super) approach: Approach = Approach::Probe;
        /// how long each of the three probes lasts
        pub(super) probe: Nanos = Nanos::from_secs(3), period();
        /// batch size of the batching probe, where the tenant's own limit is not smaller
        pub(super) probe_batch: u32 = 32, whole(2, 1024), unit("items");
        /// instances of the multi-tenancy probe, where `max_instances` is not smaller
        probe_instances: u32 = 8, whole(2, 64), unit("instances");
        /// largest batch, where the tenant's own limit is not smaller
        pub(super) max_batch: u32 = 127, whole(1, 1024), unit("items");
        /// most instances of a tenant
        pub(super) max_instances: u32 = 10, whole(1, 64), unit("instances");
        /// part of the SLO from which on the knob stays as it is
        pub(super) dead_band: f64 = 0.85, within(0.0, 1.0);
        /// which latency is held against the SLO
        pub(super) statistic: Statistic = Statistic::Mean;
        /// from the start of a batch, or from a request's arrival
        pub(super) latency: Latency = Latency::Execution;
        /// batching: least time between two decisions; they fall on the end of a batch
        pub(super) period: Nanos = Nanos::from_secs(3), period();
        /// multi-tenancy: time between two looks at the latency
        tick: Nanos = Nanos::from_secs(1), period();
        /// multi-tenancy: latencies of the first instance that the statistic is taken of
        pub(super) samples: u32 = 100, whole(2, 100_000);
        /// multi-tenancy: one of the samples is zero for ever, as in the released code
        zero_sample: bool = true;
        /// multi-tenancy: wait after an instance was added, before the growing part
        settle_add: Nanos = Nanos::from_secs(5);
        /// multi-tenancy: wait after an instance was removed
        settle_remove: Nanos = Nanos::from_secs(5);
        /// multi-tenancy: wait per instance deployed, and growth of the wait per instance added
        bias: Nanos = Nanos::from_secs(3);
        /// first number of instances: from matrix completion, from the line through the probes,
        /// or 1
        estimate: Option<Estimate> = None, unset("completion where there are known rows, else line");
        /// latencies of other models in ms with 1, 2, … max_instances instances, such as
        /// ["inception_v1: 10.0 10.7 …"]
        known: Rows = Rows::default(), unset("none");
        /// device memory that an instance reserves at least
        memory_share: f64 = 7.5, within(0.0, 100.0), unit("%");
        /// how instances share the GPU: contexts that take turns, or side by side
        pub(super) sharing: Sharing = Sharing::TimeSlicing;
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Approach {
    /// The probes decide.
    Probe,
    Batching,
    MultiTenancy,
}

words!(Approach {
    "probe" => Approach::Probe,
    "batching" => Approach::Batching,
    "multi-tenancy" => Approach::MultiTenancy,
});

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Estimate {
    Completion,
    Line,
    One,
}

words!(Estimate {
    "completion" => Estimate::Completion,
    "line" => Estimate::Line,
    "one" => Estimate::One,
});

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sharing {
    TimeSlicing,
    Mps,
}

words!(Sharing { "time-slicing" => Sharing::TimeSlicing, "mps" => Sharing::Mps });

/// What the probes found.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Probed {
    /// Items per second.
    pub(super) single: f64,
    pub(super) batch: Option<f64>,
    pub(super) instances: Option<f64>,
    /// Mean latency, ms, of one instance alone, and of one of several; with how many there were.
    pub(super) alone_ms: f64,
    pub(super) beside: Option<(u32, f64)>,
}

impl Knobs {
    /// What no option shows alone.
    pub(super) fn checked(self) -> Result<Self, OptionError> {
        let rows = self.known.check(self.max_instances);
        rows.map_err(|why| OptionError::new("known", why))?;
        if self.estimate == Some(Estimate::Completion) && self.known.0.is_empty() {
            let why = "completes rows of other models: give them as `known`";
            return Err(OptionError::new("estimate", why));
        }
        Ok(self)
    }

    fn estimate(&self) -> Estimate {
        let found = if self.known.0.is_empty() { Estimate::Line } else { Estimate::Completion };
        self.estimate.unwrap_or(found)
    }

    pub(super) fn probe_instances(&self) -> u32 {
        self.probe_instances.min(self.max_instances)
    }

    pub(super) fn waits(&self) -> Waits {
        Waits {
            tick: self.tick,
            after_add: self.settle_add,
            after_remove: self.settle_remove,
            bias: self.bias,
        }
    }

    /// A new instance of a tenant. Under MPS all are in one lane.
    pub(super) fn worker(&self, tenant: u32, lane: u32, setup: &Setup) -> WorkerSpec {
        let context = if self.sharing == Sharing::Mps {
            setup.client_memory()
        } else {
            setup.costs.context_memory
        };
        let capacity = setup.device.memory.capacity.0 as f64;
        let reserved = (capacity * self.memory_share / 100.0) as u64;
        let model = setup.tenants[tenant as usize].model.memory();
        let overhead = Bytes(context.0.max(reserved.saturating_sub(model.0)));
        let lane = if self.sharing == Sharing::Mps { 0 } else { lane };
        WorkerSpec {
            tenant,
            pool: 0,
            lane,
            cap: setup.device.cus(),
            priority: 0,
            overhead,
            role: Role::Whole,
        }
    }

    /// The initial number of instances: the largest number whose estimate is below the SLO.
    pub(super) fn start(&self, model: &str, slo: f64, probed: &Probed) -> u32 {
        let n = self.max_instances as usize;
        let (count, beside) = probed.beside.unwrap_or((1, probed.alone_ms));
        let line = |i: usize| {
            let steps = f64::from(count.max(2) - 1);
            probed.alone_ms + (beside - probed.alone_ms) * i as f64 / steps
        };
        let rows: Vec<Vec<f64>> =
            self.known.0.iter().filter(|k| k.model != model).map(|k| k.ms.clone()).collect();
        let estimates: Vec<f64> = match self.estimate() {
            Estimate::One => return 1,
            Estimate::Completion if !rows.is_empty() && count > 1 => {
                let mut target = vec![None; n];
                target[0] = Some(probed.alone_ms);
                target[count as usize - 1] = Some(beside);
                completion::complete(&rows, &target)
            }
            _ => (0..n).map(line).collect(),
        };
        estimates.iter().rposition(|&ms| ms < slo).map_or(1, |i| i as u32 + 1)
    }

    pub(super) fn statistic_of(&self, latencies: &VecDeque<f64>) -> Option<f64> {
        let mut samples: Vec<f64> = latencies.iter().copied().collect();
        if self.zero_sample {
            samples.push(0.0);
        }
        self.statistic.of(&samples)
    }

    /// How many latencies of the first instance are kept.
    pub(super) fn kept(&self) -> usize {
        self.samples as usize - usize::from(self.zero_sample)
    }
}

impl Probed {
    /// Gains over one instance and batch 1, percent.
    pub(super) fn gains(&self) -> (f64, f64) {
        let gain = |rate: Option<f64>| rate.map_or(0.0, |r| 100.0 * (r / self.single - 1.0));
        (gain(self.batch), gain(self.instances))
    }
}
