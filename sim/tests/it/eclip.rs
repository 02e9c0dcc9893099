//! ECLIP on an MI50's four engines, through the simulator.

use crate::common::{
    self, World, build, closed, completions, model, program, tenant, watch, waves,
};
use cotenant_profiles::{Bytes, Device, Nanos};
use cotenant_sim::Report;
use cotenant_sim::observe::Happening;
use cotenant_sim::policy::Value;
use cotenant_sim::program::{Code, KernelCode};

fn counter(report: &Report, name: &str) -> f64 {
    report.counter(name).expect("a counter of eclip")
}

/// `workers` tenants that run the same kernels in this order.
fn world(kernels: Vec<KernelCode>, order: &[u32], workers: usize) -> World {
    let mut device = Device::builtin("mi50").unwrap();
    device.costs.context_memory = Bytes(0);
    let mut world = World::new(device, kernels);
    let code = Code::of(world.code.kernels.clone());
    world.tenants = (0..workers)
        .map(|w| tenant(&format!("t{w}"), model(vec![program(&code, order, 0)])))
        .collect();
    world
}

type Log = Vec<(u64, Happening)>;

fn go(w: &World, options: &[(&str, Value)]) -> (Report, Log) {
    let loads = w.tenants.iter().map(|_| closed(1)).collect();
    watch(w.scenario(loads), build("eclip", options).as_mut())
}

/// A kernel of 15 blocks and one that scales to 60.
fn small_and_large() -> Vec<KernelCode> {
    vec![waves(60, 15, 10_000), waves(60, 60, 100_000)]
}

#[test]
fn a_switch_of_streams_pays_a_barrier_and_a_request_starts_without_one() {
    // Beside a worker that has nothing to do: one alone has no streams to switch between.
    let w = world(small_and_large(), &[0, 0, 1, 1, 0], 2);
    let barrier = w.device.costs.barrier.cost.0;
    let loads = vec![closed(1), common::at(vec![])];
    let (report, log) = watch(w.scenario(loads), build("eclip", &[]).as_mut());
    // One engine for the small kernels, all CUs for the large ones: two switches per request.
    assert_eq!(completions(&log)[0].0, 3 * 10_000 + 2 * 100_000 + 2 * barrier);
    assert_eq!(counter(&report, "planned_switches"), 4.0);
    assert!((counter(&report, "switches_per_request") - 2.0).abs() < 0.1);
    // The next request starts on one engine although the last kernel ran there too or not.
    let two = completions(&log)[1].0 - completions(&log)[0].0;
    assert_eq!(two, completions(&log)[0].0);
}

#[test]
fn a_worker_alone_has_all_of_the_gpu() {
    let w = world(small_and_large(), &[0, 0, 1, 1, 0], 1);
    let (report, log) = go(&w, &[]);
    assert_eq!(completions(&log)[0].0, 3 * 10_000 + 2 * 100_000);
    assert_eq!(counter(&report, "planned_switches"), 0.0);
}

#[test]
fn no_request_switches_more_often_than_its_budget() {
    let w = world(small_and_large(), &[0, 1, 0, 1, 0, 1, 0, 1], 2);
    for budget in [0, 1, 3, 7] {
        let (report, _) = go(&w, &[("switches", Value::Integer(budget))]);
        assert!(counter(&report, "planned_switches") <= 2.0 * budget as f64);
        assert!(counter(&report, "switches_per_request") <= budget as f64);
    }
}

#[test]
fn two_workers_with_small_kernels_do_not_meet() {
    let w = world(small_and_large(), &[0, 0, 0], 2);
    let (report, log) = go(&w, &[]);
    let first: Vec<u64> = completions(&log).iter().take(2).map(|c| c.0).collect();
    assert_eq!(first, [30_000, 30_000]);
    assert_eq!(counter(&report, "default_stream_share"), 0.0);
}

#[test]
fn the_default_stream_is_one_queue() {
    // Without masked streams every kernel is in the default stream. 28 blocks leave half of the CUs
    // idle, but the next kernel waits in the queue all the same.
    let w = world(vec![waves(60, 28, 10_000)], &[0], 2);
    let none = ("streams", Value::Integer(0));
    let first = |log: &Log| completions(log)[1].0;
    let (report, log) = go(&w, std::slice::from_ref(&none));
    assert_eq!(first(&log), 20_000);
    assert!(counter(&report, "default_queue_waits") > 0.0);
    let own = ("shared_queue", Value::Text("concurrent".to_owned()));
    assert_eq!(first(&go(&w, &[none, own]).1), 10_000);
}

#[test]
fn streams_fit_the_hardware_queues() {
    let w = world(vec![waves(60, 30, 10_000)], &[0], 2);
    let mut policy = build("eclip", &[("streams", Value::Integer(8))]);
    let refused = cotenant_sim::run(w.scenario(vec![closed(1), closed(1)]), policy.as_mut(), None);
    let error = refused.unwrap_err().to_string();
    assert!(error.contains("8 hardware queues") && error.contains("at most 7"), "{error}");
}

#[test]
fn any_number_of_workers_gets_a_plan() {
    for workers in 1..=8 {
        let mut w = world(small_and_large(), &[0, 1], workers);
        w.duration = Nanos::from_millis(20);
        let (report, _) = go(&w, &[]);
        assert!(report.tenants.iter().all(|t| t.counts.completed > 0), "{workers} workers");
    }
}
