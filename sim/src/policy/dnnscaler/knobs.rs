//! The options, in the form in which they are used, and what follows from them alone.

use std::collections::VecDeque;

use cotenant_profiles::{Bytes, Nanos};

use super::band::Statistic;
use super::completion;
use super::instances::Waits;
use super::known::{self, Known};
use crate::layout::WorkerSpec;
use crate::policy::options::option;
use crate::policy::{Kind, OptionError, OptionSpec, Options, Value};
use crate::scenario::Setup;

#[rustfmt::skip] // one option, two lines
pub(super) const OPTIONS: &[OptionSpec] = &[
    option("approach", Kind::Choice(&["probe", "batching", "multi-tenancy"]), "", "probe",
        "which knob: the one that the probes favour, or this one"),
    option("probe", Kind::Duration, "", "3s",
        "how long each of the three probes lasts"),
    option("probe_batch", Kind::Integer(2, 1024), "items", "32",
        "batch size of the batching probe, where the tenant's own limit is not smaller"),
    option("probe_instances", Kind::Integer(2, 64), "instances", "8",
        "instances of the multi-tenancy probe"),
    option("max_batch", Kind::Integer(1, 1024), "items", "127",
        "largest batch, where the tenant's own limit is not smaller"),
    option("max_instances", Kind::Integer(1, 64), "instances", "10",
        "most instances of a tenant"),
    option("dead_band", Kind::Float(0.0, 1.0), "", "0.85",
        "part of the SLO from which on the knob stays as it is"),
    option("statistic", Kind::Choice(&["mean", "p95"]), "", "mean",
        "which latency is held against the SLO"),
    option("latency", Kind::Choice(&["execution", "request"]), "", "execution",
        "from the start of a batch, or from a request's arrival"),
    option("period", Kind::Duration, "", "3s",
        "batching: least time between two decisions; they fall on the end of a batch"),
    option("tick", Kind::Duration, "", "1s",
        "multi-tenancy: time between two looks at the latency"),
    option("samples", Kind::Integer(2, 100_000), "", "100",
        "multi-tenancy: latencies of the first instance that the statistic is taken of"),
    option("zero_sample", Kind::Bool, "", "true",
        "multi-tenancy: one of the samples is zero for ever, as in the released code"),
    option("settle_add", Kind::Duration, "", "5s",
        "multi-tenancy: wait after an instance was added, before the growing part"),
    option("settle_remove", Kind::Duration, "", "5s",
        "multi-tenancy: wait after an instance was removed"),
    option("bias", Kind::Duration, "", "3s",
        "multi-tenancy: wait per instance deployed, and growth of the wait per instance added"),
    option("estimate", Kind::Choice(&["completion", "line", "one"]), "", "",
        "first number of instances: from matrix completion, from the line through the probes, \
         or 1; not given: completion where there are known rows"),
    option("known", Kind::Texts, "", "",
        "latencies of other models in ms with 1, 2, … max_instances instances, such as \
         [\"inception_v1: 10.0 10.7 …\"]"),
    option("memory_share", Kind::Float(0.0, 100.0), "%", "7.5",
        "device memory that an instance reserves at least"),
    option("sharing", Kind::Choice(&["time-slicing", "mps"]), "", "time-slicing",
        "how instances share the GPU: contexts that take turns, or side by side"),
];

/// Options, in the form in which they are used.
pub(super) struct Knobs {
    /// `None`: the probes decide.
    pub(super) approach: Option<Approach>,
    pub(super) probe: Nanos,
    pub(super) probe_batch: u32,
    pub(super) probe_instances: u32,
    pub(super) max_batch: u32,
    pub(super) max_instances: u32,
    pub(super) dead_band: f64,
    pub(super) statistic: Statistic,
    pub(super) request_latency: bool,
    pub(super) period: Nanos,
    pub(super) waits: Waits,
    pub(super) samples: usize,
    pub(super) zero_sample: bool,
    pub(super) estimate: Estimate,
    pub(super) known: Vec<Known>,
    pub(super) memory_share: f64,
    pub(super) mps: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Approach {
    Batching,
    MultiTenancy,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Estimate {
    Completion,
    Line,
    One,
}

/// What the probes found.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Probed {
    /// Items per second.
    pub(super) single: f64,
    pub(super) batch: Option<f64>,
    pub(super) instances: Option<f64>,
    /// Mean latency of one instance alone, and of one of so many, ms.
    pub(super) alone_ms: f64,
    pub(super) beside: Option<(u32, f64)>,
}

impl Knobs {
    pub(super) fn new(options: &Options) -> Result<Self, OptionError> {
        let seconds = |name: &str, default: u64| -> Result<Nanos, OptionError> {
            match options.duration(name).unwrap_or(Nanos::from_secs(default)) {
                Nanos::ZERO => Err(OptionError::new(name, "nothing is seen in no time")),
                some => Ok(some),
            }
        };
        let count = |name: &str, default: u32| options.integer(name).map_or(default, |i| i as u32);
        let max_instances = count("max_instances", 10);
        let known = match options.get("known") {
            Some(Value::Texts(texts)) => known::parse(texts, max_instances)?,
            _ => vec![],
        };
        let estimate = match options.text("estimate") {
            Some("completion") if known.is_empty() => {
                let why = "completes rows of other models: give them as `known`";
                return Err(OptionError::new("estimate", why));
            }
            Some("line") => Estimate::Line,
            Some("one") => Estimate::One,
            _ if known.is_empty() => Estimate::Line,
            _ => Estimate::Completion,
        };
        Ok(Self {
            approach: match options.text("approach") {
                Some("batching") => Some(Approach::Batching),
                Some("multi-tenancy") => Some(Approach::MultiTenancy),
                _ => None,
            },
            probe: seconds("probe", 3)?,
            probe_batch: count("probe_batch", 32),
            probe_instances: count("probe_instances", 8).min(max_instances),
            max_batch: count("max_batch", 127),
            max_instances,
            dead_band: options.float("dead_band").unwrap_or(0.85),
            statistic: match options.text("statistic") {
                Some("p95") => Statistic::P95,
                _ => Statistic::Mean,
            },
            request_latency: options.text("latency") == Some("request"),
            period: seconds("period", 3)?,
            waits: Waits {
                tick: seconds("tick", 1)?,
                after_add: options.duration("settle_add").unwrap_or(Nanos::from_secs(5)),
                after_remove: options.duration("settle_remove").unwrap_or(Nanos::from_secs(5)),
                bias: options.duration("bias").unwrap_or(Nanos::from_secs(3)),
            },
            samples: count("samples", 100) as usize,
            zero_sample: options.flag("zero_sample").unwrap_or(true),
            estimate,
            known,
            memory_share: options.float("memory_share").unwrap_or(7.5),
            mps: options.text("sharing") == Some("mps"),
        })
    }

    /// A new instance of a tenant. Under MPS all are in one lane.
    pub(super) fn worker(&self, tenant: u32, lane: u32, setup: &Setup) -> WorkerSpec {
        let context = if self.mps { setup.client_memory() } else { setup.costs.context_memory };
        let capacity = setup.device.memory.capacity.0 as f64;
        let reserved = (capacity * self.memory_share / 100.0) as u64;
        let model = setup.tenants[tenant as usize].model.memory();
        let overhead = Bytes(context.0.max(reserved.saturating_sub(model.0)));
        let lane = if self.mps { 0 } else { lane };
        WorkerSpec { tenant, pool: 0, lane, cap: setup.device.cus(), priority: 0, overhead }
    }

    /// Instances to begin with: the largest number whose estimate is below the SLO.
    pub(super) fn start(&self, model: &str, slo: f64, probed: &Probed) -> u32 {
        let n = self.max_instances as usize;
        let (count, beside) = probed.beside.unwrap_or((1, probed.alone_ms));
        let line = |i: usize| {
            let steps = f64::from(count.max(2) - 1);
            probed.alone_ms + (beside - probed.alone_ms) * i as f64 / steps
        };
        let rows: Vec<Vec<f64>> =
            self.known.iter().filter(|k| k.model != model).map(|k| k.ms.clone()).collect();
        let estimates: Vec<f64> = match self.estimate {
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

    /// Latencies of the first instance that are kept.
    pub(super) fn kept(&self) -> usize {
        self.samples - usize::from(self.zero_sample)
    }
}

impl Probed {
    /// Gains over one instance and batch 1, percent.
    pub(super) fn gains(&self) -> (f64, f64) {
        let gain = |rate: Option<f64>| rate.map_or(0.0, |r| 100.0 * (r / self.single - 1.0));
        (gain(self.batch), gain(self.instances))
    }
}
