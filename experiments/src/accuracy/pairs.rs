//! Pairs of models side by side: what each contention model makes of other people's measurements.
//!
//! No constant was fitted on them: the constants of `cache` and `igniter` are those that iGniter
//! publishes for a V100, and the clock follows from watts by the third power.

use std::sync::Arc;

use cotenant_profiles::import::{Input, LaunchFloor, TableOptions, table};
use cotenant_profiles::lower::Precision;
use cotenant_profiles::{Device, Executor, Nanos, Profile, analytic, zoo};
use cotenant_sim::Load;
use cotenant_sim::Scenario;
use cotenant_sim::contention::ContentionModel;
use cotenant_sim::policy::{self, Options, Value};
use cotenant_sim::program::Code;
use cotenant_sim::scenario::{Class, Setup, Tenant, Think};

use rayon::prelude::*;

use super::numbers::Errors;
use super::processes::{self, Cell, Source};
use super::products::device;
use super::{Data, Set};
use crate::fail::{Done, Failure};

/// The contention models compared, as experiment files call them. `measured` needs pairs of kernels,
/// which none of these sources has.
pub(super) const MODELS: [&str; 5] = ["none", "bandwidth", "linear", "igniter", "cache"];

/// What each of [`MODELS`] makes of one source's pairs.
pub(super) struct Pairs {
    pub(super) source: &'static str,
    pub(super) what: String,
    pub(super) set: Set,
    pub(super) n: usize,
    /// Mean measured slow-down, or time over that of one after the other.
    pub(super) measured: f64,
    pub(super) errors: Vec<Errors>,
}

/// iGniter (TPDS 2023), repository data `i-Gniter/Algorithm/config`: two copies of a model at batch 16
/// on half of a V100 each under MPS. Kernels; at 10, 50 and 100 % alone: ms, W, L2 utilisation in
/// percent; ms of one copy at 50 %, alone and beside the other.
struct Copies {
    model: &'static str,
    kernels: u32,
    alone: [[f64; 3]; 3],
    pair: [f64; 2],
}

const COPIES: [Copies; 4] = [
    Copies {
        model: "alexnet",
        kernels: 20,
        alone: [[16.708, 84.0, 2.68], [3.622, 184.57, 16.21], [2.065, 288.43, 29.59]],
        pair: [3.683, 3.865],
    },
    Copies {
        model: "resnet50",
        kernels: 80,
        alone: [[91.7, 85.13, 2.86], [20.081, 186.75, 17.05], [11.537, 288.25, 33.01]],
        pair: [20.27, 21.296],
    },
    Copies {
        model: "vgg19",
        kernels: 29,
        alone: [[253.683, 89.11, 3.74], [51.862, 206.38, 18.98], [28.588, 295.11, 27.28]],
        pair: [52.025, 58.585],
    },
    Copies {
        model: "ssd",
        kernels: 93,
        alone: [[370.259, 86.63, 3.22], [77.402, 195.29, 18.59], [43.616, 290.75, 33.19]],
        pair: [81.399, 89.005],
    },
];

/// Abacus (SC 2021), repository data `data/profile/A100/2in7`: two models begin together on an A100, in
/// eager PyTorch. Model and batch of each; ms of each (beside one operator of the other), and of both.
struct Together {
    models: [(&'static str, u32); 2],
    alone: [f64; 2],
    both: f64,
}

const TOGETHER: [Together; 4] = [
    Together { models: [("resnet50", 32), ("vgg16", 32)], alone: [12.606, 23.833], both: 37.022 },
    Together { models: [("vgg16", 32), ("vgg19", 32)], alone: [24.249, 27.314], both: 53.25 },
    Together { models: [("resnet50", 4), ("vgg16", 4)], alone: [8.552, 2.833], both: 8.721 },
    Together { models: [("resnet50", 4), ("vgg16", 8)], alone: [8.542, 5.235], both: 8.834 },
];

pub(super) fn compare(data: &Data<'_>) -> Done<Vec<Pairs>> {
    let mut all = vec![copies()?, together()?];
    let gpu = device("a100-sxm-80")?;
    for (theirs, ours, set) in processes::MODELS {
        let cells = processes::read(data, theirs)?;
        let own = processes::own_latencies(&gpu, &cells, ours)?;
        let two: Vec<&Cell> = cells.iter().filter(|c| c.processes == 2).collect();
        let mut pairs =
            Pairs::new("ParvaGPU", format!("{theirs}, two processes in a MIG instance"), set);
        for name in MODELS {
            let mut errors = vec![];
            let mut slow = 0.0;
            let all_predicted: Vec<Done<Option<f64>>> = two
                .par_iter()
                .map(|cell| processes::predict(&gpu, &cells, ours, Source::Own(&own), cell, name))
                .collect();
            for (cell, ours) in two.iter().zip(all_predicted) {
                if let (Some(ours), Some(one)) = (ours?, processes::one(&cells, cell)) {
                    errors.push(ours / cell.rps - 1.0);
                    slow += 2.0 * one / cell.rps;
                }
            }
            pairs.push(slow, errors);
        }
        all.push(pairs);
    }
    Ok(all)
}

impl Pairs {
    fn new(source: &'static str, what: String, set: Set) -> Self {
        Self { source, what, set, n: 0, measured: 0.0, errors: vec![] }
    }

    /// The next contention model's errors; `measured` is summed over the pairs.
    fn push(&mut self, measured: f64, errors: Vec<f64>) {
        (self.n, self.measured) = (errors.len(), measured / errors.len().max(1) as f64);
        self.errors.push(Errors::of(errors.into_iter()));
    }
}

fn copies() -> Done<Pairs> {
    let gpu = device("v100-sxm2-16")?;
    let what = "two copies on half of the SMs each, slow-down";
    let mut pairs = Pairs::new("iGniter", what.to_owned(), Set::Test);
    for name in MODELS {
        let (mut errors, mut measured) = (vec![], 0.0);
        for copy in &COPIES {
            let mut text =
                "model,batch,share_pct,latency_ms,kernels,power_w,l2_util_pct\n".to_owned();
            for (share, [ms, watts, l2]) in [10, 50, 100].iter().zip(copy.alone) {
                text += &format!("{},16,{share},{ms},{},{watts},{l2}\n", copy.model, copy.kernels);
            }
            let options = TableOptions { launch_floor: LaunchFloor::None };
            let input = Input { file: "iGniter", text: &text };
            let profile = table(&input, &gpu, &options).map_err(Failure::failed)?.profile;
            let half = ("mps-percent", vec![50.0]);
            let halves = ("mps-percent", vec![50.0, 50.0]);
            let one = [(copy.model, 16)];
            let two = [(copy.model, 16), (copy.model, 16)];
            let alone = latencies(&gpu, &profile, &one, &half, name, true)?[0];
            let beside = latencies(&gpu, &profile, &two, &halves, name, true)?[0];
            let slow = copy.pair[1] / copy.pair[0];
            errors.push(beside / alone / slow - 1.0);
            measured += slow;
        }
        pairs.push(measured, errors);
    }
    Ok(pairs)
}

fn together() -> Done<Pairs> {
    let gpu = device("a100-sxm-40")?;
    let what = "two models begin together, from layer shapes, time over one after the other";
    let mut pairs = Pairs::new("Abacus", what.to_owned(), Set::Test);
    for name in MODELS {
        let (mut errors, mut measured) = (vec![], 0.0);
        for pair in &TOGETHER {
            let options = analytic::Options {
                precision: Precision::Tf32,
                executor: Some(Executor::Eager),
                ..analytic::Options::default()
            };
            let mut profiles = vec![];
            for (model, batch) in pair.models {
                let spec = zoo::find(model).map_err(Failure::failed)?;
                profiles.push(
                    analytic::profile(&gpu, &[&spec], &[batch], &options)
                        .map_err(Failure::failed)?,
                );
            }
            let mut both = profiles[0].clone();
            let shift = both.kernels.len();
            let other = &profiles[1];
            both.kernels.extend(other.kernels.iter().cloned());
            for (name, model) in &other.models {
                let mut model = model.clone();
                for launch in model.batches.values_mut().flatten() {
                    launch.kernel += shift;
                }
                both.models.insert(name.clone(), model);
            }
            let mps = ("mps", vec![]);
            let one = |i: usize| latencies(&gpu, &both, &pair.models[i..=i], &mps, name, false);
            let serial = one(0)?[0] + one(1)?[0];
            let ours = latencies(&gpu, &both, &pair.models, &mps, name, false)?;
            let ours = ours.iter().copied().fold(0.0, f64::max) / serial;
            let theirs = pair.both / (pair.alone[0] + pair.alone[1]);
            errors.push(ours / theirs - 1.0);
            measured += theirs;
        }
        pairs.push(measured, errors);
    }
    Ok(pairs)
}

/// Mean latency of each model, ms: one client each, over and over, or one batch each that begin
/// together.
fn latencies(
    gpu: &Device,
    profile: &Profile,
    models: &[(&str, u32)],
    (policy, shares): &(&str, Vec<f64>),
    contention: &str,
    over_and_over: bool,
) -> Done<Vec<f64>> {
    let mut code = Code::default();
    let mut tenants = vec![];
    for (i, (model, batch)) in models.iter().enumerate() {
        let mut compiled =
            code.compile(profile, model, *batch, gpu.cus()).map_err(Failure::failed)?;
        compiled.host_per_request = Nanos::ZERO;
        tenants.push(Tenant {
            name: format!("{model}-{i}"),
            model: compiled,
            class: Class::Latency,
            slo: None,
            workers: 1,
            batch_max: *batch,
            batch_timeout: Nanos::ZERO,
            drop_after: None,
            per_request_batches: false,
            generates: None,
        });
    }
    let contention = ContentionModel::from_name(contention, gpu)
        .ok_or_else(|| Failure::failed("no such contention model"))?;
    let loads = models.iter().map(|(_, batch)| Load::Closed {
        concurrency: 1,
        think: Think::Constant(Nanos::ZERO),
        items: *batch,
        limit: (!over_and_over).then_some(1),
        tokens: None,
    });
    let costs = gpu.costs.clone();
    let setup = Setup { device: gpu.clone(), costs, code: code.into(), tenants };
    let scenario = Scenario {
        loads: loads.collect(),
        setup: Arc::new(setup),
        warmup: Nanos::ZERO,
        duration: Nanos::from_secs(10),
        contention,
        jitter: None,
    };
    let mut options = Options::default();
    if !shares.is_empty() {
        options.0.push(("shares".to_owned(), Value::Numbers(shares.clone())));
    }
    let info = policy::find(policy).expect("the registry has it");
    let mut built = (info.build)(&options).map_err(|e| Failure::failed(e.to_string()))?;
    let report = cotenant_sim::run(scenario, &mut *built, None)
        .map_err(|refusal| Failure::failed(refusal.to_string()))?;
    let mean = |t: &cotenant_sim::report::TenantReport| t.latency_mean().map(Nanos::as_millis_f64);
    let means: Option<Vec<f64>> = report.tenants.iter().map(mean).collect();
    means.ok_or_else(|| Failure::failed("a model did not finish within ten seconds"))
}
