//! What coalescing costs: CPU time of the policy per kernel with 64 tenants, inside a simulation.
//!
//! `cargo bench -p cotenant-sim --bench coalesce`; with `--test` a short run that only checks.

#[path = "../tests/it/common/mod.rs"]
mod common;

use std::sync::Arc;
use std::time::{Duration, Instant};

use common::{build, closed};
use cotenant_profiles::{Bytes, Device, Nanos, analytic, zoo};
use cotenant_sim::action::{Action, Event};
use cotenant_sim::contention::ContentionModel;
use cotenant_sim::layout::Layout;
use cotenant_sim::policy::{Depth, LayoutError, Value};
use cotenant_sim::program::Code;
use cotenant_sim::scenario::{Scenario, Setup, Tenant};
use cotenant_sim::view::View;
use cotenant_sim::{Class, Policy};

/// Kernels of one sample.
const SAMPLE: u32 = 200;

/// Adds up the time that the policy takes, by so many kernels: the median of these sums is not
/// disturbed by the few during which the machine did something else.
struct Timed {
    inner: Box<dyn Policy>,
    kernels: u32,
    calls: u32,
    spent: Duration,
    clock_ns: f64,
    samples: Vec<f64>,
}

impl Policy for Timed {
    fn depth(&self) -> Depth {
        self.inner.depth()
    }

    fn forms_batches(&self) -> bool {
        self.inner.forms_batches()
    }

    fn layout(&mut self, setup: &Setup) -> Result<Layout, LayoutError> {
        self.inner.layout(setup)
    }

    fn event(&mut self, event: Event, view: &View<'_>, act: &mut Vec<Action>) {
        self.kernels += u32::from(matches!(event, Event::KernelDone { .. }));
        self.calls += 1;
        let start = Instant::now();
        self.inner.event(event, view, act);
        self.spent += start.elapsed();
        if self.kernels == SAMPLE {
            let ns = self.spent.as_nanos() as f64 - self.clock_ns * f64::from(self.calls);
            self.samples.push(ns / f64::from(SAMPLE));
            (self.kernels, self.calls, self.spent) = (0, 0, Duration::ZERO);
        }
    }

    fn counters(&self) -> Vec<(&'static str, f64)> {
        self.inner.counters()
    }
}

/// 64 tenants of these models in turn, with deadlines, on a device with memory for all.
fn setup(names: &[&str], slo: Option<Nanos>) -> Arc<Setup> {
    let mut device = Device::builtin("h200-sxm").expect("a built-in device");
    device.memory.capacity = Bytes(1 << 42);
    let specs: Vec<_> = names.iter().map(|n| zoo::find(n).expect("a model of the zoo")).collect();
    let specs: Vec<_> = specs.iter().collect();
    let options = analytic::Options::default();
    let profile = analytic::profile(&device, &specs, &[1], &options).expect("batch 1");
    let mut code = Code::default();
    let tenants = (0..64).map(|i| {
        let name = &specs[i % specs.len()].name;
        Tenant {
            name: format!("{name}-{i}"),
            model: code.compile(&profile, name, 1, device.cus()).expect("it is in the profile"),
            class: Class::Latency,
            slo,
            workers: 1,
            batch_max: 1,
            batch_timeout: Nanos::ZERO,
            generates: None,
            per_request_batches: false,
            drop_after: None,
        }
    });
    let tenants = tenants.collect();
    Arc::new(Setup { costs: device.costs.clone(), device, code, tenants })
}

/// ns of CPU time per kernel and the counters, in words.
fn per_kernel(setup: &Arc<Setup>, options: &[(&str, Value)], duration: Nanos) -> (f64, String) {
    let scenario = Scenario {
        setup: setup.clone(),
        loads: setup.tenants.iter().map(|_| closed(1)).collect(),
        warmup: Nanos::ZERO,
        duration,
        contention: ContentionModel::from_name("bandwidth", &setup.device).expect("a known model"),
        jitter: None,
    };
    let inner = build("coalesce", options);
    let mut timed = Timed {
        inner,
        kernels: 0,
        calls: 0,
        spent: Duration::ZERO,
        clock_ns: clock_ns(),
        samples: vec![],
    };
    let report = cotenant_sim::run(scenario, &mut timed, None).expect("it fits");
    timed.samples.sort_by(f64::total_cmp);
    let get = |name| report.counters.iter().find(|(n, _)| *n == name).map_or(0.0, |c| c.1);
    let merged = 100.0 * get("merged_kernels") / get("kernels");
    let words = format!("{merged:>3.0} % merged, up to {} at once", get("largest_group"));
    (timed.samples[timed.samples.len() / 2], words)
}

/// What reading the clock adds to a measured call.
fn clock_ns() -> f64 {
    let mut reads: Vec<u128> = (0..1001).map(|_| Instant::now().elapsed().as_nanos()).collect();
    reads.sort_unstable();
    reads[500] as f64
}

#[allow(clippy::print_stdout)] // a benchmark talks to people
fn main() {
    let check = std::env::args().any(|a| a == "--test");
    let duration = Nanos::from_millis(if check { 20 } else { 1_000 });
    let gate = |word: &str| ("gate", Value::Text(word.to_owned()));
    let rows: [Row; 4] = [
        ("ResNet-50, defaults", &["resnet50"], None, vec![]),
        ("ResNet-50, whatever merges", &["resnet50"], None, vec![gate("always")]),
        ("four models, SLO 200 ms", MIX, Some(Nanos::from_millis(200)), vec![]),
        ("four models, whatever merges", MIX, Some(Nanos::from_millis(200)), vec![gate("always")]),
    ];
    println!("coalesce with 64 tenants, CPU time of the policy per kernel");
    for (label, models, slo, options) in rows {
        let setup = setup(models, slo);
        let (ns, words) = per_kernel(&setup, &options, duration);
        println!("{label:<32} {ns:>7.0} ns   {words}");
    }
}

/// Label, models in turn, deadline, options.
type Row = (&'static str, &'static [&'static str], Option<Nanos>, Vec<(&'static str, Value)>);

const MIX: &[&str] = &["resnet50", "bert_base", "vgg19", "densenet201"];
