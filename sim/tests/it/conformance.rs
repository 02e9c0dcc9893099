//! Every registered policy, with its defaults and some variants, on several mixes of tenants: nothing
//! is lost or run twice, capacity holds, and what the policy declares of itself is true.

use std::collections::BTreeMap;

use crate::audit::Auditor;
use crate::common::{
    World, build, closed, completions, kernel, model, poisson, program, tenant, waves,
};
use cotenant_profiles::{Bytes, Device, Nanos};
use cotenant_sim::bound::need;
use cotenant_sim::contention::ContentionModel;
use cotenant_sim::observe::Happening;
use cotenant_sim::policy::{ALL, PolicyInfo, Value, find};
use cotenant_sim::program::KernelCode;
use cotenant_sim::scenario::{DropAfter, Load, Scenario, Setup};
use cotenant_sim::{Class, Report};

type Given = Vec<(&'static str, Value)>;

/// Every policy with its defaults, then variants of some.
fn variants() -> Vec<(&'static PolicyInfo, Given)> {
    let text = |t: &str| Value::Text(t.to_owned());
    let more: Vec<(&str, Given)> = vec![
        ("temporal", vec![("run_to_completion", Value::Bool(true))]),
        ("temporal", vec![("quantum", Value::Duration(Nanos::from_micros(300)))]),
        ("mps", vec![("priorities", Value::Bool(true))]),
        ("mps-percent", vec![("shares", text("right-sized"))]),
        ("mps-static", vec![("per_worker", Value::Bool(true))]),
        ("krisp", vec![("oversubscription", Value::Integer(0))]),
        ("coalesce", vec![("ops", text("all")), ("gate", text("always"))]),
        ("serve", vec![("order", text("edf"))]),
        ("serve", vec![("order", text("lottery")), ("tickets", text("requests"))]),
        ("serve", vec![("decision", Value::Duration(Nanos::from_micros(20)))]),
        ("overlap", vec![("queries", Value::Integer(3)), ("margin", Value::Float(0.0))]),
        ("hami", vec![("cores", text("even")), ("sharing", text("mps"))]),
        ("orion", vec![("against", text("free")), ("by_class", Value::Bool(false))]),
        ("reef", vec![("variant", text("n"))]),
        ("tally", vec![("yields", text("kernel")), ("form", text("persistent"))]),
        ("lithos", vec![("quotas", text("equal")), ("steal", text("idle-tenants"))]),
        ("xsched", vec![("level", Value::Integer(3)), ("hint", Value::Bool(false))]),
    ];
    let defaults = ALL.iter().map(|&info| (info, vec![]));
    let more = more.into_iter().map(|(name, given)| (find(name).unwrap(), given));
    defaults.chain(more).collect()
}

fn label(info: &PolicyInfo, given: &Given) -> String {
    let options = given.iter().map(|(n, v)| format!(" {n}={v:?}"));
    options.fold(info.name.to_owned(), |all, o| all + &o)
}

struct Mix {
    name: &'static str,
    world: World,
    loads: fn() -> Vec<Load>,
}

/// Wide compute kernels, narrow ones, and streaming ones that fill the memory system.
fn world(tenants: usize) -> World {
    let device = Device::builtin("a100-sxm-40").unwrap();
    let cus = device.cus();
    let streaming = |c: u32| 60_000 * u64::from(40u32.div_ceil(c.min(40)));
    let mut world = World::new(
        device,
        vec![
            waves(cus, 2 * cus, 90_000),
            waves(cus, cus / 4, 40_000),
            KernelCode { dram_bytes: 80_000_000, ..kernel(cus, streaming) },
            KernelCode { dram_bytes: 4_000_000, ..waves(cus, cus, 25_000) },
        ],
    );
    let sequences: [&[u32]; 3] = [&[0, 1, 3, 0, 1], &[1, 1, 1, 1], &[3, 2, 1, 2]];
    for t in 0..tenants {
        let programs = (0..4).map(|_| program(&world.code, sequences[t % 3], 0)).collect();
        let mut tenant = tenant(&format!("t{t}"), model(programs));
        tenant.model.weights = Bytes(100 << 20);
        tenant.batch_max = 1;
        tenant.slo = Some(Nanos::from_millis(5));
        world.tenants.push(tenant);
    }
    world.duration = Nanos::from_millis(200);
    world.contention = ContentionModel::from_name("bandwidth", &world.device).unwrap();
    world
}

fn mixes() -> Vec<Mix> {
    let mut batching = world(3);
    for t in &mut batching.tenants {
        t.batch_max = 4;
        t.batch_timeout = Nanos::from_millis(1);
        t.workers = 2;
    }
    let mut effort = world(3);
    effort.tenants[2].class = Class::BestEffort;
    effort.tenants[2].slo = None;
    let mut host = world(2);
    for t in &mut host.tenants {
        t.model.host_per_request = Nanos::from_micros(100);
        t.model.input_per_item = Bytes(600_000);
        t.model.output_per_item = Bytes(4_000);
        for p in std::sync::Arc::make_mut(&mut t.model.programs) {
            p.issued_ns = (1..=p.kernels.len() as u64).map(|i| 30_000 * i).collect();
        }
    }
    // Hardly more time than a request takes alone.
    let mut tight = world(3);
    for (t, us) in tight.tenants.iter_mut().zip([930, 320, 370]) {
        t.slo = Some(Nanos::from_micros(us));
    }
    // What is late is dropped; a request is a batch.
    let mut dropping = world(3);
    for (t, predict) in dropping.tenants.iter_mut().zip([false, true, true]) {
        t.batch_max = 4;
        t.drop_after = Some(DropAfter { limit: None, predict });
    }
    dropping.tenants[1].drop_after =
        Some(DropAfter { limit: Some(Nanos::from_millis(6)), predict: true });
    dropping.tenants[2].per_request_batches = true;
    let light = || vec![poisson(5e6, 1), poisson(4e6, 2), poisson(6e6, 3)];
    let overload = || vec![poisson(3e5, 1), poisson(1e5, 2), poisson(2e5, 3)];
    vec![
        Mix { name: "closed", world: world(3), loads: || vec![closed(1), closed(2), closed(1)] },
        Mix { name: "light", world: world(3), loads: light },
        Mix { name: "overload", world: world(3), loads: overload },
        Mix {
            name: "tight",
            world: tight,
            loads: || vec![poisson(15e5, 1), poisson(5e5, 2), poisson(8e5, 3)],
        },
        Mix { name: "batching", world: batching, loads: overload },
        Mix {
            name: "dropping",
            world: dropping,
            loads: || vec![poisson(3e5, 1), closed(9), poisson(2e5, 3)],
        },
        Mix {
            name: "best-effort",
            world: effort,
            loads: || vec![poisson(2e6, 1), poisson(1e6, 2), closed(4)],
        },
        Mix { name: "host", world: host, loads: || vec![closed(2), poisson(1e6, 5)] },
        Mix { name: "alone", world: world(1), loads: || vec![poisson(5e5, 4)] },
    ]
}

fn options(given: &Given) -> Vec<(&str, Value)> {
    given.iter().map(|(n, v)| (*n, v.clone())).collect()
}

fn scenario(mix: &Mix) -> Scenario {
    mix.world.scenario((mix.loads)())
}

/// Runs a policy on a mix under audit.
fn audited(info: &PolicyInfo, given: &Given, mix: &Mix) -> (Report, Vec<(u64, Happening)>) {
    let scenario = scenario(mix);
    let setup = scenario.setup.clone();
    let mut twin = build(info.name, &options(given));
    let mut auditor = Auditor::new(&setup, twin.as_mut(), info.properties.work_conserving);
    let mut policy = build(info.name, &options(given));
    let report = cotenant_sim::run(scenario, policy.as_mut(), Some(&mut auditor)).unwrap();
    for (t, tenant) in report.tenants.iter().enumerate() {
        let c = &tenant.counts;
        assert_eq!(c.offered, c.completed + c.dropped_total() + tenant.in_flight, "tenant {t}");
        let seen = (auditor.arrived[t], auditor.done[t], auditor.dropped[t]);
        assert_eq!((c.offered, c.completed, c.dropped_total()), seen, "tenant {t}");
        assert_eq!(c.latencies.len(), c.completed, "tenant {t}");
    }
    (report, auditor.log)
}

/// Everything that was completed fits into the device at its best point.
fn within_the_bound(report: &Report, setup: &Setup, what: &str) {
    let memory = &setup.device.memory;
    let (mut cu_ns, mut bytes) = (0.0, 0.0);
    for (tenant, done) in setup.tenants.iter().zip(&report.tenants) {
        let least = need(tenant, &setup.code, (memory.dram_gbps * 1000.0) as u64);
        cu_ns += least.cu_ns * done.counts.batch_items as f64;
        bytes += least.dram_bytes * done.counts.batch_items as f64;
    }
    // Nothing was under way when the window opened, so there is no slack but the rounding of
    // durations to whole nanoseconds.
    let ns = report.window.0 as f64 * (1.0 + 1e-6);
    let capacity = f64::from(setup.device.cus()) * ns;
    assert!(cu_ns <= capacity, "{what}: {:.4} of the CUs' time", cu_ns / capacity);
    let moved = memory.dram_gbps * ns;
    assert!(bytes <= moved, "{what}: {:.4} of the DRAM traffic", bytes / moved);
}

fn total(report: &Report) -> u64 {
    report.tenants.iter().map(|t| t.counts.completed).sum()
}

/// Of the latency-critical tenants: completed, and of those in time. The bound serves them first, so
/// it bounds these, and of a best-effort tenant only what they leave.
fn delivered(report: &Report, setup: &Setup) -> (u64, u64) {
    let both = report.tenants.iter().zip(&setup.tenants);
    let matter = both.filter(|(_, t)| t.class == Class::Latency);
    matter.fold((0, 0), |(all, good), (r, _)| (all + r.counts.completed, good + r.counts.good))
}

#[test]
fn nothing_is_lost_run_twice_or_beyond_capacity() {
    for mix in mixes() {
        let ideal = audited(find("ideal").unwrap(), &vec![], &mix).0;
        let setup = scenario(&mix).setup;
        for (info, given) in variants() {
            let what = format!("{} on {}", label(info, &given), mix.name);
            eprintln!("{what}");
            let (report, _) = audited(info, &given, &mix);
            within_the_bound(&report, &setup, &what);
            let busy = report.gpu.cu_utilization;
            assert!((0.0..=1.0 + 1e-9).contains(&busy), "{what}: {busy} of the CUs");
            let (ours, best) = (delivered(&report, &setup), delivered(&ideal, &setup));
            assert!(ours.0 <= best.0, "{what}: {} requests, ideal {}", ours.0, best.0);
            assert!(ours.1 <= best.1, "{what}: {} in time, ideal {}", ours.1, best.1);
        }
    }
}

/// Under ideal costs, and without neighbours, where a policy says so.
#[test]
fn one_tenant_alone_is_isolated() {
    for mut mix in mixes() {
        if mix.world.tenants.len() > 1 {
            mix.world.tenants.truncate(1);
            mix.loads = || vec![poisson(5e5, 4)];
        }
        mix.world.costs = mix.world.costs.ideal();
        let mps = completions(&audited(find("mps").unwrap(), &vec![], &mix).1);
        assert!(mps.len() > 100, "{} requests", mps.len());
        for (info, given) in variants().into_iter().filter(|v| v.0.properties.alone_is_isolated) {
            if mix.world.tenants[0].workers > 1 && info.name == "temporal" {
                // Two workers are two contexts: alone in the GPU, but not at the same time.
                let loads = std::mem::replace(&mut mix.loads, || vec![closed(8)]);
                one_at_a_time(&audited(info, &given, &mix).1);
                mix.loads = loads;
                mix.world.tenants[0].workers = 1;
                let mps = completions(&audited(find("mps").unwrap(), &vec![], &mix).1);
                assert_eq!(completions(&audited(info, &given, &mix).1), mps);
                mix.world.tenants[0].workers = 2;
                continue;
            }
            let log = audited(info, &given, &mix).1;
            assert_eq!(completions(&log), mps, "{} on {}", label(info, &given), mix.name);
        }
    }
}

/// Never do two workers hold CUs, and at times both want to.
fn one_at_a_time(log: &[(u64, Happening)]) {
    let (mut on, mut open, mut both) = (None, BTreeMap::new(), 0);
    for &(now, what) in log {
        match what {
            Happening::BatchBegan { worker, .. } => {
                open.insert(worker, ());
                both += u64::from(open.len() > 1);
            }
            Happening::BatchEnded { worker, .. } => {
                open.remove(&worker);
            }
            Happening::Granted { worker, cus: 0, .. } | Happening::KernelEnded { worker, .. }
                if on == Some(worker) =>
            {
                on = None;
            }
            Happening::Granted { worker, cus, .. } if cus > 0 => {
                assert!(on.is_none_or(|w| w == worker), "at {now}: worker {worker} beside {on:?}");
                on = Some(worker);
            }
            _ => {}
        }
    }
    assert!(both > 10, "two batches at once {both} times");
}

#[test]
fn nobody_starves_where_a_policy_says_so() {
    for mix in mixes() {
        let half = mix.world.duration.0 / 2;
        for (info, given) in variants().into_iter().filter(|v| v.0.properties.starvation_free) {
            let done = completions(&audited(info, &given, &mix).1);
            for t in 0..mix.world.tenants.len() as u32 {
                let late = done.iter().filter(|c| c.1 == t && c.0 > half).count();
                assert!(late > 0, "{} on {}: tenant {t} starves", label(info, &given), mix.name);
            }
        }
    }
}

/// Three tenants of the same model and load: with kernels wider than their share and narrower ones,
/// of one phase and of three.
fn equals() -> Vec<Mix> {
    let narrow: &[u32] = &[1, 1, 1, 1];
    let wide: &[u32] = &[0, 1, 3, 0, 1];
    let streaming: &[u32] = &[3, 2, 1, 2];
    let of = |sequence: &[u32]| {
        let mut world = world(3);
        for t in &mut world.tenants {
            t.model.programs =
                (0..4).map(|_| program(&world.code, sequence, 0)).collect::<Vec<_>>().into();
            t.slo = Some(Nanos::from_millis(50));
        }
        world
    };
    let even = || vec![closed(2), closed(2), closed(2)];
    let apart = || vec![poisson(1e5, 1), poisson(1e5, 2), poisson(1e5, 3)];
    vec![
        Mix { name: "equal narrow", world: of(narrow), loads: even },
        Mix { name: "equal wide", world: of(wide), loads: even },
        Mix { name: "equal streaming", world: of(streaming), loads: even },
        Mix { name: "equal wide, overload", world: of(wide), loads: apart },
    ]
}

#[test]
fn equal_tenants_get_equal_service_where_a_policy_says_so() {
    let mut unequal = vec![];
    for mix in equals() {
        for (info, given) in variants() {
            let done = completions(&audited(info, &given, &mix).1);
            let by_tenant = [0, 1, 2].map(|t| done.iter().filter(|c| c.1 == t).count());
            let mean = done.len() as f64 / 3.0;
            let least = *by_tenant.iter().min().unwrap() as f64 / mean;
            eprintln!("{:36} {:22} {by_tenant:?} {least:.2}", label(info, &given), mix.name);
            if info.properties.starvation_free && least < 0.8 {
                unequal.push(format!("{} on {}: {by_tenant:?}", label(info, &given), mix.name));
            }
        }
    }
    assert!(unequal.is_empty(), "{unequal:#?}");
}

/// Four tenants of unlike kernels, batches and goals, each of which asks for more than it could have
/// alone: what D-STACK's experiment is under overload.
fn unlike() -> Mix {
    let mut world = world(4);
    let sequences: [&[u32]; 4] = [&[1, 1], &[3, 2, 1, 2], &[0, 1, 3, 0, 1], &[0, 0, 0, 0, 0, 0]];
    let goals = [2, 4, 8, 16];
    for ((t, sequence), ms) in world.tenants.iter_mut().zip(sequences).zip(goals) {
        t.model.programs =
            (0..4).map(|_| program(&world.code, sequence, 0)).collect::<Vec<_>>().into();
        t.batch_max = 4;
        t.slo = Some(Nanos::from_millis(ms));
    }
    let loads = || vec![poisson(3e4, 1), poisson(8e4, 2), poisson(8e4, 3), poisson(15e4, 4)];
    Mix { name: "unlike, overload", world, loads }
}

/// Of four that always have something waiting, each gets at least a quarter of its even part, which is a
/// fourth of what it would complete alone; or, where all of them get little, half of what they get in the
/// mean.
#[test]
fn nobody_is_crowded_out_where_a_policy_says_so() {
    let mix = unlike();
    let alone: Vec<u64> = (0..4)
        .map(|t| {
            let mut mix = unlike();
            mix.world.tenants = vec![mix.world.tenants.swap_remove(t)];
            let scenario = mix.world.scenario(vec![(mix.loads)().swap_remove(t)]);
            total(&cotenant_sim::run(scenario, build("mps", &[]).as_mut(), None).unwrap())
        })
        .collect();
    let mut crowded_out = vec![];
    for (info, given) in variants() {
        let report = audited(info, &given, &mix).0;
        let parts = report.tenants.iter().zip(&alone);
        let parts: Vec<f64> =
            parts.map(|(r, alone)| r.counts.completed as f64 / *alone as f64 * 4.0).collect();
        let least = parts.iter().copied().fold(f64::MAX, f64::min);
        eprintln!("{:48} {parts:.2?}", label(info, &given));
        let mean = parts.iter().sum::<f64>() / 4.0;
        if info.properties.starvation_free && least < 0.25_f64.min(mean / 2.0) {
            crowded_out.push(format!("{}: {parts:.2?}", label(info, &given)));
        }
    }
    assert!(crowded_out.is_empty(), "{crowded_out:#?}");
}

#[test]
fn the_same_run_twice_and_on_four_threads() {
    let digest = |info: &PolicyInfo, given: &Given, mix: &Mix| {
        let mut policy = build(info.name, &options(given));
        let report = cotenant_sim::run(scenario(mix), policy.as_mut(), None).unwrap();
        (report.digest, report.events, total(&report))
    };
    let all = || {
        let mut digests = vec![];
        for mix in mixes() {
            for (info, given) in variants() {
                digests.push(digest(info, &given, &mix));
            }
        }
        digests
    };
    let once = all();
    let distinct: std::collections::BTreeSet<_> = once.iter().map(|d| d.0).collect();
    assert!(distinct.len() > once.len() / 2, "digests tell runs apart");
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(all)).collect();
        for thread in threads {
            assert_eq!(thread.join().unwrap(), once);
        }
    });
}
