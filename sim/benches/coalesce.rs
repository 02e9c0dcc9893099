//! What coalescing costs: CPU time of the policy per kernel with 64 tenants, inside a simulation.
//!
//! `cargo bench -p cotenant-sim --bench coalesce`; with `--test` a short run that only checks.

#[path = "../tests/it/common/mod.rs"]
mod common;

use std::sync::Arc;
use std::time::{Duration, Instant};

use common::{build, closed};
use cotenant_profiles::{Bytes, Device, Nanos, analytic, zoo};
use cotenant_sim::Class;
use cotenant_sim::action::Event;
use cotenant_sim::contention::ContentionModel;
use cotenant_sim::policy::{Around, Value};
use cotenant_sim::program::Code;
use cotenant_sim::scenario::{Scenario, Setup, Tenant};

/// Kernels of one sample.
const SAMPLE: u32 = 200;

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
    Arc::new(Setup { costs: device.costs.clone(), device, code: code.into(), tenants })
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
    // Sums of the time that the policy takes, by so many kernels: their median is not disturbed by the
    // few during which the machine did something else.
    let (mut samples, clock_ns) = (vec![], clock_ns());
    let (mut kernels, mut calls, mut spent) = (0, 0, Duration::ZERO);
    let mut policy = build("coalesce", options);
    let mut timed = Around::new(policy.as_mut(), |policy, event, view, act| {
        kernels += u32::from(matches!(event, Event::KernelDone { .. }));
        calls += 1;
        let start = Instant::now();
        policy.event(event, view, act);
        spent += start.elapsed();
        if kernels == SAMPLE {
            let ns = spent.as_nanos() as f64 - clock_ns * f64::from(calls);
            samples.push(ns / f64::from(SAMPLE));
            (kernels, calls, spent) = (0, 0, Duration::ZERO);
        }
    });
    let report = cotenant_sim::run(scenario, &mut timed, None).expect("it fits");
    samples.sort_by(f64::total_cmp);
    let get = |name| report.counter(name).unwrap_or(0.0);
    let merged = 100.0 * get("merged_kernels") / get("kernels");
    let words = format!("{merged:>3.0} % merged, up to {} at once", get("largest_group"));
    (samples[samples.len() / 2], words)
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
