//! Coalescing through the simulator: the published curves, waiting, and order.

use crate::common::{
    World, at, build, closed, completions, kernel, model, program, tenant, watch, waves,
};
use cotenant_profiles::{Device, Nanos, Op};
use cotenant_sim::observe::Happening;
use cotenant_sim::policy::Value;
use cotenant_sim::program::KernelCode;
use cotenant_sim::scenario::{Load, Think};
use cotenant_sim::{Report, Scenario};

fn text(word: &str) -> Value {
    Value::Text(word.to_owned())
}

fn counter(report: &Report, name: &str) -> f64 {
    report.counter(name).expect("a counter of coalesce")
}

/// A matrix product of `blocks` blocks, one per CU, on a V100.
fn gemm(blocks: u32, ns: u64) -> KernelCode {
    KernelCode { op: Op::Gemm, ..waves(80, blocks, ns) }
}

/// The GEMM of Jain et al. 2018, figure 7: constants from its time-only curve at 1 and 20 GEMMs and
/// its space-only curve at 20.
fn figure(problems: u32) -> (World, Load) {
    let mut device = Device::builtin("v100-sxm2-16").unwrap();
    device.costs.context_memory = cotenant_profiles::Bytes(0);
    let mut world = World::new(device, vec![gemm(4, 146_400)]);
    let mut m = model(vec![program(&world.code, &[0], 56_260)]);
    m.host_per_request = Nanos(54_300);
    let mut one = tenant("gemm", m);
    one.workers = problems;
    world.tenants.push(one);
    world.duration = Nanos::from_millis(50);
    let load = Load::Closed {
        concurrency: problems,
        think: Think::Constant(Nanos::ZERO),
        items: 1,
        limit: Some(u64::from(problems)),
        tokens: None,
    };
    (world, load)
}

/// Time until all of `problems` simultaneous GEMMs are done, us.
fn batch_us(problems: u32, policy: &str, options: &[(&str, Value)]) -> f64 {
    let (world, load) = figure(problems);
    let (_, log) = watch(world.scenario(vec![load]), build(policy, options).as_mut());
    let done = completions(&log);
    assert_eq!(done.len() as u32, problems);
    done.last().unwrap().0 as f64 / 1e3
}

/// Problems, and published time of space-time, space-only and time-only, us, read off the figure.
const PUBLISHED: [(u32, f64, f64, f64); 15] = [
    (1, 386.0, 273.0, 257.0),
    (2, 371.0, 339.0, 382.0),
    (4, 388.0, 472.0, 702.0),
    (8, 410.0, 689.0, 1326.0),
    (10, 412.0, 803.0, 1633.0),
    (20, 424.0, 1326.0, 3134.0),
    (22, 610.0, 1425.0, 3432.0),
    (40, 620.0, 2368.0, 6119.0),
    (42, 840.0, 2473.0, 6424.0),
    (60, 856.0, 3564.0, 9119.0),
    (62, 1073.0, 3730.0, 9410.0),
    (80, 1081.0, 4805.0, 12110.0),
    (82, 1324.0, 4876.0, 12397.0),
    (100, 1464.0, 5922.0, 15105.0),
    (118, 1643.0, 6955.0, 17800.0),
];

fn error(ours: f64, published: f64) -> f64 {
    (ours / published - 1.0).abs()
}

#[test]
fn the_published_curves_come_out_where_they_were_not_fitted() {
    let whole = [("gate", text("always")), ("wave_cap", Value::Bool(false))];
    for (n, st, space, time) in PUBLISHED {
        // A batch of one is not a batch here.
        if (2..=80).contains(&n) {
            let ours = batch_us(n, "coalesce", &whole);
            assert!(error(ours, st) < 0.10, "{n} coalesced: {ours} us, published {st} us");
        }
        let ours = batch_us(n, "streams", &[]);
        assert!(error(ours, space) < 0.15, "{n} streams: {ours} us, published {space} us");
        let ours = batch_us(n, "temporal", &[]);
        assert!(error(ours, time) < 0.15, "{n} in turns: {ours} us, published {time} us");
    }
}

#[test]
fn the_staircase_has_the_period_of_the_cus_over_the_blocks() {
    let whole = [("gate", text("always")), ("wave_cap", Value::Bool(false))];
    let times: Vec<f64> = (2..=82).map(|n| batch_us(n, "coalesce", &whole)).collect();
    let jumps: Vec<usize> = (3..=82).filter(|n| times[n - 2] > times[n - 3] + 50.0).collect();
    assert_eq!(jumps, [21, 41, 61, 81]);
}

#[test]
fn gate_and_cap_never_lose_to_both_extremes() {
    let whole = [("gate", text("always")), ("wave_cap", Value::Bool(false))];
    for n in [2, 3, 4, 8, 20, 22, 25, 40, 42, 61] {
        let chosen = batch_us(n, "coalesce", &[]);
        let best = batch_us(n, "coalesce", &whole).min(batch_us(n, "streams", &[]));
        assert!(chosen <= best * 1.01, "{n}: {chosen} us, could have {best} us");
    }
}

/// `early` runs one GEMM and has this deadline; `late` runs another kernel of 300 us before its GEMM.
fn pair(slo: u64) -> Scenario {
    let mut device = Device::builtin("v100-sxm2-16").unwrap();
    device.costs.context_memory = cotenant_profiles::Bytes(0);
    (device.costs.merge_fixed, device.costs.merge_each) = (Nanos(10_000), Nanos(1_000));
    let other = KernelCode { name: "other".to_owned(), ..waves(80, 8, 300_000) };
    let mut world = World::new(device, vec![gemm(4, 100_000), other]);
    let early = tenant("early", model(vec![program(&world.code, &[0], 0)]));
    let late = tenant("late", model(vec![program(&world.code, &[1, 0], 0)]));
    world.tenants = vec![early, late];
    world.tenants[0].slo = Some(Nanos(slo));
    world.duration = Nanos::from_millis(5);
    world.scenario(vec![at(vec![1_000]), at(vec![1_000])])
}

#[test]
fn a_head_waits_for_a_partner_that_its_slack_admits() {
    let options = [("gate", text("always")), ("guard", Value::Float(0.0))];
    let (report, log) = watch(pair(2_000_000), build("coalesce", &options).as_mut());
    assert_eq!(counter(&report, "merged_kernels"), 2.0);
    assert_eq!(counter(&report, "waiting_kernels"), 1.0);
    assert_eq!(counter(&report, "wait_mean_us"), 300.0);
    // 300 us until the partner is there, 12 us of host, 1.24 × 100 us for the wave.
    let ends: Vec<u64> = completions(&log).iter().map(|d| d.0).collect();
    assert_eq!(ends, [437_000, 437_000]);
    // It may not wait so long: it goes at once, alone.
    let short = [("max_wait", Value::Duration(Nanos(200_000)))];
    let options = [&options[..], &short].concat();
    let (report, log) = watch(pair(2_000_000), build("coalesce", &options).as_mut());
    assert_eq!(counter(&report, "merged_kernels"), 0.0);
    assert_eq!(completions(&log)[0].0, 101_000);
}

#[test]
fn a_wait_is_no_longer_than_what_it_saves() {
    // Free merging saves the two nothing here: both would run side by side, launched for free.
    let guard = ("guard", Value::Float(0.0));
    let (report, log) = watch(pair(2_000_000), build("coalesce", &[guard]).as_mut());
    assert_eq!(counter(&report, "waiting_kernels"), 0.0);
    assert_eq!(completions(&log)[0].0, 101_000);
}

#[test]
fn nobody_waits_beyond_its_slack() {
    // Whatever the deadline, what is in time without waiting is in time.
    for slo in (100_000..1_000_000).step_by(7_001) {
        let options = [("gate", text("always")), ("guard", Value::Float(0.0))];
        let (report, _) = watch(pair(slo), build("coalesce", &options).as_mut());
        assert_eq!(report.tenants[0].counts.good, 1, "deadline {slo} ns after the arrival");
        assert_eq!(counter(&report, "late_by_waiting"), 0.0);
        // 300 us for the partner, 136 us for the merged launch.
        let merged = counter(&report, "merged_kernels") > 0.0;
        assert_eq!(merged, slo >= 436_000, "deadline {slo} ns after the arrival");
    }
}

#[test]
fn the_least_slack_goes_first_once_the_host_is_free() {
    // Kernels that never merge, launched one after the other by a host that takes 10 us each.
    let mut device = Device::builtin("v100-sxm2-16").unwrap();
    device.costs.context_memory = cotenant_profiles::Bytes(0);
    let mut world = World::new(device, vec![kernel(80, |_| 5_000)]);
    for (name, slo) in [("a", 900_000), ("b", 300_000), ("c", 600_000), ("d", 100_000)] {
        let mut t = tenant(name, model(vec![program(&world.code, &[0], 10_000)]));
        t.slo = Some(Nanos(slo));
        world.tenants.push(t);
    }
    // The first comes before the others and has the host.
    let loads = vec![at(vec![0]), at(vec![1]), at(vec![2]), at(vec![3])];
    let (_, log) = watch(world.scenario(loads), build("coalesce", &[]).as_mut());
    let order: Vec<u32> = completions(&log).iter().map(|d| d.1).collect();
    assert_eq!(order, [0, 3, 1, 2]);
    let ends: Vec<u64> = completions(&log).iter().map(|d| d.0).collect();
    assert_eq!(ends, [15_000, 25_000, 35_000, 45_000]);
}

#[test]
fn streams_take_turns_at_the_host_and_issue_ahead() {
    let mut device = Device::builtin("v100-sxm2-16").unwrap();
    device.costs.context_memory = cotenant_profiles::Bytes(0);
    let mut world = World::new(device, vec![kernel(80, |_| 1_000)]);
    world.code.kernels[0].want = 8;
    for name in ["a", "b"] {
        world.tenants.push(tenant(name, model(vec![program(&world.code, &[0, 0], 10_000)])));
    }
    let loads = vec![at(vec![0]), at(vec![0])];
    let (_, log) = watch(world.scenario(loads), build("streams", &[]).as_mut());
    let ended: Vec<(u64, u32)> = log
        .iter()
        .filter_map(|&(now, what)| match what {
            Happening::KernelEnded { worker, .. } => Some((now, worker)),
            _ => None,
        })
        .collect();
    assert_eq!(ended, [(11_000, 0), (21_000, 1), (31_000, 0), (41_000, 1)]);
    // Alone, launches go ahead of the GPU: kernels of 30 us hide them.
    world.code.kernels[0] = kernel(80, |_| 30_000);
    world.tenants.truncate(1);
    let scenario = world.scenario(vec![at(vec![0])]);
    let (_, log) = watch(scenario, build("streams", &[]).as_mut());
    assert_eq!(completions(&log)[0].0, 70_000);
}

#[test]
fn merged_kernels_do_the_work_of_their_parts() {
    // A closed loop of equal tenants merges all the time; nothing is lost.
    let mut device = Device::builtin("v100-sxm2-16").unwrap();
    device.costs.context_memory = cotenant_profiles::Bytes(0);
    let mut world = World::new(device, vec![gemm(4, 146_400), gemm(20, 60_000)]);
    for i in 0..12 {
        let t = tenant(&format!("t{i}"), model(vec![program(&world.code, &[0, 1, 0], 56_260)]));
        world.tenants.push(t);
    }
    world.duration = Nanos::from_millis(40);
    let loads = (0..12).map(|_| closed(1)).collect();
    let (report, _) = watch(world.scenario(loads), build("coalesce", &[]).as_mut());
    assert!(counter(&report, "merged_kernels") > 0.9 * counter(&report, "kernels"));
    let done: Vec<u64> = report.tenants.iter().map(|t| t.counts.completed).collect();
    assert!(done.iter().all(|d| *d >= 20 && d.abs_diff(done[0]) <= 1), "{done:?}");
}
