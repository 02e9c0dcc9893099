//! Physics that holds whatever the device and the policy: alone a kernel takes its profile's time,
//! bytes take at least as long as the bandwidth of their place allows, and nothing is used beyond
//! what there is. `BOUNDS_CASES` multiplies the random cases.

use crate::common::{self, World, closed, model, program, run, tenant};
use cotenant_profiles::curve::Point;
use cotenant_profiles::{Bytes, Curve, Device, Drawn, Kernel, Nanos, Op};
use cotenant_sim::contention::{ContentionModel, DEFAULT, NAMES};
use cotenant_sim::policy::{ALL, PolicyInfo, Value};
use cotenant_sim::program::KernelCode;
use cotenant_sim::{Refusal, Report};
use cotenant_traces::Rng;

fn devices() -> Vec<Device> {
    Device::builtin_names().map(|name| Device::builtin(name).unwrap()).collect()
}

/// Random cases per device.
fn cases() -> u64 {
    std::env::var("BOUNDS_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(1)
}

/// A kernel of a profile: blocks, so many to a CU, and points of its curve.
fn profiled(device: &Device, blocks: u32, per_cu: u32, points: &[(u32, u64)]) -> KernelCode {
    let points = points.iter().map(|&(c, ns)| Point::exact(c, ns)).collect();
    let kernel = Kernel {
        id: "k".to_owned(),
        name: "k".to_owned(),
        op: Op::Other,
        grid: [blocks, 1, 1],
        block: 128,
        regs: 32,
        smem_bytes: 0,
        blocks_per_cu: per_cu,
        flops: 0,
        dram_bytes: 0,
        curve: Curve::new(points).unwrap(),
    };
    KernelCode::new(&kernel, device.cus())
}

/// `n` tenants who each run `kernels` one after the other, in a closed loop, at no cost of sharing.
fn world(device: &Device, kernels: Vec<KernelCode>, n: usize) -> World {
    let sequence: Vec<u32> = (0..kernels.len() as u32).collect();
    let mut world = World::new(device.clone(), kernels);
    world.costs = world.costs.ideal();
    world.tenants = (0..n)
        .map(|t| tenant(&format!("t{t}"), model(vec![program(&world.code, &sequence, 0)])))
        .collect();
    let once: u64 = world.code.kernels.iter().map(|k| k.at(device.cus())).sum();
    world.warmup = Nanos(2 * once);
    world.duration = Nanos(60 * once);
    world
}

/// `None` where the policy has no place for these tenants on this device.
fn try_run(world: &World, info: &PolicyInfo, options: &[(&str, Value)]) -> Option<Report> {
    let loads = world.tenants.iter().map(|_| closed(1)).collect();
    let mut policy = common::build(info.name, options);
    match cotenant_sim::run(world.scenario(loads), policy.as_mut(), None) {
        Ok(report) => Some(report),
        Err(Refusal::Layout(_)) => None,
        Err(other) => panic!("{other}"),
    }
}

fn mean_ns(report: &Report) -> f64 {
    let done: u64 = report.tenants.iter().map(|t| t.counts.completed).sum();
    let sum: u128 = report.tenants.iter().map(|t| t.counts.latency_sum).sum();
    sum as f64 / done as f64
}

/// A curve's shape: its name, blocks, how many fit on a CU, points.
type Shape = (&'static str, u32, u32, Vec<(u32, u64)>);

fn shapes(cus: u32) -> Vec<Shape> {
    let full = 1_000_000;
    vec![
        ("eight blocks", 8, 8, vec![(cus / 2, full), (cus, full)]),
        ("one block from two CUs on", 1, 4, vec![(2, full), (8, full), (cus, full)]),
        ("one point", 10_000, 4, vec![(cus, full)]),
        ("one point, few blocks", cus / 3, 1, vec![(cus, full)]),
        ("slower on more CUs", 4 * cus, 2, vec![(cus / 2, full - 100_000), (cus, full)]),
        ("noise beyond the blocks", 4, 1, vec![(4, 990_000), (cus / 2, 1_010_000), (cus, full)]),
        ("halves", 2 * cus, 2, vec![(1, full * u64::from(cus)), (cus / 2, 2 * full), (cus, full)]),
        ("known to half", 6 * cus, 6, vec![(cus / 4, 2 * full), (cus / 2, full)]),
    ]
}

#[test]
fn alone_a_kernel_takes_its_profiles_time() {
    for device in devices() {
        for (name, blocks, per_cu, points) in shapes(device.cus()) {
            let world = world(&device, vec![profiled(&device, blocks, per_cu, &points)], 1);
            for info in ALL.iter().copied().filter(|p| p.properties.alone_is_isolated) {
                let Some(report) = try_run(&world, info, &[]) else { continue };
                let ns = mean_ns(&report);
                let what = format!("{name} on {} under {}", device.name, info.name);
                assert!((ns - 1e6).abs() < 1.0, "{what}: {ns} ns");
            }
        }
    }
}

#[test]
fn in_an_instance_bytes_take_as_long_as_its_bandwidth_allows() {
    for device in devices() {
        let Some(table) = &device.mig else { continue };
        let cus = device.cus();
        // Four fifths of the bandwidth for a millisecond, from a few CUs on.
        let bytes = (device.memory.dram_gbps * 0.8e6) as u64;
        let points = [((cus / 8).max(1), 1_000_000), (cus, 1_000_000)];
        let stream = || KernelCode { dram_bytes: bytes, ..profiled(&device, 10_000, 8, &points) };
        for profile in &table.profiles {
            let one = Value::Texts(vec![profile.name.clone()]);
            let report = run(
                world(&device, vec![stream()], 1).scenario(vec![closed(1)]),
                "mig",
                &[("instances", one)],
            );
            let share = device.mig_instance(profile).dram_gbps;
            let least = bytes as f64 / share;
            let ns = mean_ns(&report);
            let what = format!("{} on {}", profile.name, device.name);
            assert!(ns >= least * 0.999, "{what}: {ns} ns, at least {least}");
        }
        let most = table.profiles[0].max as usize;
        let all = Value::Texts(vec![table.profiles[0].name.clone(); most]);
        let world = world(&device, vec![stream()], most);
        let loads = || world.tenants.iter().map(|_| closed(1)).collect();
        let report = run(world.scenario(loads()), "mig", &[("instances", all)]);
        assert!(report.gpu.dram_utilization <= 1.0, "{}", report.gpu.dram_utilization);
        let ideal = run(world.scenario(loads()), "ideal", &[]);
        let rate = most as f64 / mean_ns(&report);
        assert!(rate <= 1.005 * most as f64 / mean_ns(&ideal), "{}", device.name);
    }
}

/// Random kernels: of few blocks or many, bound by arithmetic, latency or bytes.
fn random_kernel(device: &Device, rng: &mut Rng) -> KernelCode {
    let cus = u64::from(device.cus());
    let most = [4, cus, 20 * cus][rng.below(3) as usize];
    let blocks = 1 + rng.below(most);
    let per_cu = 1 + rng.below(8) as u32;
    let wave = 5_000 + rng.below(200_000);
    let stacked = blocks.min(u64::from(per_cu));
    // A block takes as long beside others, or longer: bound by latency, or by arithmetic.
    let slower = rng.below(2) * (stacked - 1) * wave / 3;
    let at = |c: u32| {
        let waves = blocks.div_ceil(u64::from(c) * u64::from(per_cu));
        waves * wave + if blocks > u64::from(c) { slower } else { 0 }
    };
    let points: Vec<_> = (1..=device.cus()).map(|c| (c, at(c))).collect();
    let share = [0.0, 0.1, 0.9, 1.5][rng.below(4) as usize];
    let bytes = share * device.memory.dram_gbps * at(device.cus()) as f64;
    KernelCode { dram_bytes: bytes as u64, ..profiled(device, blocks as u32, per_cu, &points) }
}

#[test]
fn nothing_is_used_beyond_what_there_is() {
    for device in devices() {
        for case in 0..cases() {
            let mut rng = Rng::for_names(case, &[&device.name]);
            let kernels: Vec<_> = (0..4).map(|_| random_kernel(&device, &mut rng)).collect();
            let mut world = world(&device, kernels, 3);
            let name = NAMES[rng.below(NAMES.len() as u64) as usize];
            world.contention = ContentionModel::from_name(name, &device).unwrap();
            // A window that a kernel may reach across.
            world.duration = Nanos([100, 20_000_000][rng.below(2) as usize]);
            for info in ALL.iter().copied() {
                let Some(report) = try_run(&world, info, &[]) else { continue };
                let what = format!("case {case} on {} under {}", device.name, info.name);
                let used = [report.gpu.cu_utilization, report.gpu.dram_utilization];
                // A byte per microsecond and kernel is rounding.
                assert!(used.iter().all(|&u| (0.0..=1.0 + 1e-5).contains(&u)), "{what}: {used:?}");
            }
        }
    }
}

/// Policies that change batches, merge or tune: what a request waits for is theirs to choose.
const BATCHING: [&str; 7] =
    ["clipper", "dnnscaler", "gslice", "dstack", "coalesce", "autotune", "ideal"];

/// Mean latency of the first tenant, ns.
fn first_ns(report: &Report) -> Option<f64> {
    let counts = &report.tenants[0].counts;
    (counts.completed > 0).then(|| counts.latency_sum as f64 / counts.completed as f64)
}

fn some_kernels(device: &Device, case: u64) -> Vec<KernelCode> {
    let mut rng = Rng::for_names(case, &[&device.name, "side by side"]);
    (0..3).map(|_| random_kernel(device, &mut rng)).collect()
}

#[test]
fn nobody_is_faster_beside_others_than_alone() {
    for device in devices() {
        for case in 0..cases() {
            for info in ALL.iter().copied().filter(|p| !BATCHING.contains(&p.name)) {
                let run = |n: usize| {
                    let mut world = world(&device, some_kernels(&device, case), n);
                    world.contention = ContentionModel::from_name(DEFAULT, &device).unwrap();
                    first_ns(&try_run(&world, info, &[])?)
                };
                let (Some(alone), Some(beside)) = (run(1), run(2)) else { continue };
                let what = format!("case {case} on {} under {}", device.name, info.name);
                assert!(
                    beside >= alone * (1.0 - 1e-3),
                    "{what}: {alone} ns alone, {beside} beside"
                );
            }
        }
    }
}

#[test]
fn more_processes_are_at_most_as_many_times_one() {
    for device in devices() {
        for case in 0..cases() {
            let rate = |n: u32| {
                let mut world = world(&device, some_kernels(&device, case), 1);
                world.contention = ContentionModel::from_name(DEFAULT, &device).unwrap();
                world.tenants[0].workers = n;
                let mps = ALL.iter().copied().find(|p| p.name == "mps").unwrap();
                let mut policy = common::build(mps.name, &[]);
                let scenario = world.scenario(vec![closed(n)]);
                let report = cotenant_sim::run(scenario, policy.as_mut(), None).unwrap();
                report.tenants[0].counts.completed as f64
            };
            let one = rate(1);
            for n in 2..6 {
                // A request each may be under way when the window opens.
                let most = f64::from(n) * (one + 1.0);
                let what = format!("case {case} on {}, {n} processes", device.name);
                assert!(rate(n) <= most, "{what}: {} of {most}", rate(n));
            }
        }
    }
}

#[test]
fn latency_does_not_rise_with_the_cap() {
    for device in devices() {
        for case in 0..cases() {
            let mut last = f64::MAX;
            for percent in [10.0, 25.0, 50.0, 75.0, 100.0] {
                let world = world(&device, some_kernels(&device, case), 1);
                let shares = Value::Numbers(vec![percent]);
                let info = ALL.iter().copied().find(|p| p.name == "mps-percent").unwrap();
                let report = try_run(&world, info, &[("shares", shares)]);
                let Some(ns) = report.as_ref().and_then(first_ns) else { continue };
                let what = format!("case {case} on {} at {percent} %", device.name);
                assert!(ns <= last * (1.0 + 1e-3), "{what}: {ns} ns, {last} at less");
                last = ns;
            }
        }
    }
}

#[test]
fn copies_that_draw_too_much_run_at_the_limit() {
    for device in devices() {
        let full = device.cus();
        let mut kernel =
            profiled(&device, 4 * full, 4, &[(1, u64::from(full) * 100_000), (full, 100_000)]);
        // Half of the GPU draws nine tenths of the limit.
        kernel.drawn =
            vec![Drawn::new(full / 2, Some(0.1), Some(0.1), Some(device.power.cap_w * 0.9))];
        let world = world(&device, vec![kernel], 2);
        let info = ALL.iter().copied().find(|p| p.name == "mps-percent").unwrap();
        let Some(report) = try_run(&world, info, &[]) else { continue };
        let (mhz, watts) = (report.gpu.clock_mhz, report.gpu.power_w);
        assert!(mhz < device.clock.boost_mhz, "{}: {mhz} MHz", device.name);
        assert!((watts / device.power.cap_w - 1.0).abs() < 0.05, "{}: {watts} W", device.name);
    }
}

#[test]
fn an_idle_gpu_uses_nothing() {
    let device = Device::builtin("a30").unwrap();
    let mut world = world(&device, vec![profiled(&device, 8, 1, &[(8, 1_000)])], 1);
    world.tenants[0].model.weights = Bytes(0);
    let report = run(world.scenario(vec![common::at(vec![])]), "mps", &[]);
    assert_eq!((report.gpu.cu_utilization, report.gpu.dram_utilization), (0.0, 0.0));
}
