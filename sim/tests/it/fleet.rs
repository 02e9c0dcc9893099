//! Several GPUs behind a router: a fleet of one is one GPU, routing follows closed forms, and an
//! outage loses what it must and nothing else.

use std::sync::Arc;

use crate::common::{
    Exponential, World, build, closed, device, model, poisson, program, run, tenant, waves,
};
use cotenant_profiles::Nanos;
use cotenant_sim::fleet::{self, Fleet, FleetReport, GPU_DOWN, Gpu, NO_GPU, Outage, Parts, Route};
use cotenant_sim::observe::{Happening, Observer};
use cotenant_sim::scenario::{Jitter, Load, Scenario};
use cotenant_sim::{Policy, Report};
use cotenant_traces::{Arrivals, Rng};

/// Mean service time, ns.
const S: u64 = 100_000;

/// Tenants of one-kernel requests on one CU.
fn world(tenants: usize) -> World {
    let mut world = World::new(device(&[1]), vec![waves(1, 1, S)]);
    for i in 0..tenants {
        let of_one = model(vec![program(&world.code, &[0], 0)]);
        world.tenants.push(tenant(&format!("t{i}"), of_one));
    }
    world.duration = Nanos::from_secs(2);
    world
}

struct Mps {
    clients: u32,
    exponential: Option<u64>,
}

impl Parts for Mps {
    fn policy(&self, _: u32) -> Box<dyn Policy> {
        build("mps", &[])
    }

    fn clients(&self, _: u32, _: u32) -> Load {
        closed(self.clients)
    }

    fn jitter(&self, gpu: u32) -> Option<Box<dyn Jitter>> {
        let seed = self.exponential?;
        Some(Box::new(Exponential(Rng::for_names(seed, &["service", &gpu.to_string()]))))
    }
}

const CONSTANT: Mps = Mps { clients: 0, exponential: None };

fn arrivals(gap: f64, seed: u64) -> Option<Box<dyn Arrivals>> {
    match poisson(gap, seed) {
        Load::Open(arrivals) => Some(arrivals),
        Load::Closed { .. } => unreachable!("Poisson arrivals are open"),
    }
}

/// `gpus` equal GPUs that serve every tenant of the world.
fn fleet(world: &World, gpus: usize, arrivals: Vec<Option<Box<dyn Arrivals>>>) -> Fleet {
    let Scenario { setup, contention, .. } = world.scenario(vec![]);
    let tenants = (0..world.tenants.len() as u32).collect();
    let gpu = Gpu { setup: Arc::clone(&setup), tenants, contention };
    Fleet {
        gpus: vec![gpu; gpus],
        arrivals,
        route: Route::default(),
        outages: vec![],
        warmup: world.warmup,
        duration: world.duration,
    }
}

fn played(fleet: Fleet, parts: &Mps) -> FleetReport {
    let report = fleet::run(fleet, parts, None).unwrap();
    for t in &report.tenants {
        let c = &t.counts;
        assert_eq!(c.offered, c.completed + c.dropped_total() + t.in_flight);
    }
    report
}

fn dropped(report: &FleetReport, tenant: usize, why: &str) -> u64 {
    let reasons = &report.tenants[tenant].counts.dropped;
    reasons.iter().find(|(reason, _)| *reason == why).map_or(0, |(_, n)| *n)
}

#[test]
fn a_fleet_of_one_is_one_gpu() {
    let mut world = world(2);
    world.warmup = Nanos::from_millis(100);
    let gap = 2.5 * S as f64;
    let alone = run(world.scenario(vec![poisson(gap, 1), poisson(gap, 2)]), "mps", &[]);
    let both = vec![arrivals(gap, 1), arrivals(gap, 2)];
    let routed = played(fleet(&world, 1, both), &CONSTANT);
    let numbers = |t: &cotenant_sim::report::TenantReport| {
        (t.counts.offered, t.counts.completed, t.counts.latency_sum, t.counts.queue_sum)
    };
    let of_gpu = |r: &Report| r.tenants.iter().map(numbers).collect::<Vec<_>>();
    assert_eq!(of_gpu(&alone), of_gpu(&routed.gpus[0].report));
    assert_eq!(of_gpu(&alone), routed.tenants.iter().map(numbers).collect::<Vec<_>>());
    assert_eq!(alone.gpu.cu_utilization, routed.gpus[0].report.gpu.cu_utilization);
}

/// Requests in turn on two GPUs: each sees every second arrival of a Poisson process, so it is an
/// E2/M/1 queue. With sigma = (l / (l + m (1 - sigma)))^2, the mean latency is 1 / (m (1 - sigma)).
#[test]
fn requests_in_turn_make_erlang_arrivals() {
    const REPLICAS: u64 = 20;
    /// Student's t with 19 degrees of freedom, two-sided 99.9 %.
    const T: f64 = 3.883;
    let (m, l) = (1.0 / S as f64, 2.0 * 0.8 / S as f64);
    let sigma = (0..200).fold(0.5, |sigma: f64, _| (l / (l + m * (1.0 - sigma))).powi(2));
    let exact = 1.0 / (m * (1.0 - sigma));
    let mut world = world(1);
    (world.warmup, world.duration) = (Nanos::from_millis(200), Nanos::from_secs(3));
    let replica = |seed: u64| {
        let fleet =
            Fleet { route: Route::RoundRobin, ..fleet(&world, 2, vec![arrivals(1.0 / l, seed)]) };
        let parts = Mps { clients: 0, exponential: Some(seed) };
        let counts = &played(fleet, &parts).tenants[0].counts;
        counts.latency_sum as f64 / counts.completed as f64
    };
    let means: Vec<f64> = (0..REPLICAS).map(replica).collect();
    let n = REPLICAS as f64;
    let mean = means.iter().sum::<f64>() / n;
    let variance = means.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / (n - 1.0);
    let half = T * (variance / n).sqrt();
    eprintln!("E2/M/1: exact {exact:.0}, simulated {mean:.0} +- {half:.0}");
    assert!((mean - exact).abs() <= half && half < 0.1 * exact);
}

#[test]
fn the_least_outstanding_beats_turns() {
    let world = world(1);
    let mean = |route: Route| {
        let fleet = Fleet { route, ..fleet(&world, 2, vec![arrivals(0.6 * S as f64, 7)]) };
        let report = played(fleet, &Mps { clients: 0, exponential: Some(7) });
        let served: Vec<_> =
            report.gpus.iter().map(|g| g.report.tenants[0].counts.completed).collect();
        assert!(served.iter().all(|&n| n > 10_000), "{served:?}");
        let counts = &report.tenants[0].counts;
        counts.latency_sum as f64 / counts.completed as f64
    };
    let (turns, least) = (mean(Route::RoundRobin), mean(Route::LeastOutstanding));
    assert!(least < 0.8 * turns, "{least} {turns}");
}

#[test]
fn an_outage_loses_what_the_gpu_holds_and_the_other_one_serves() {
    let world = world(1);
    let outage = Outage { gpu: 1, at: Nanos::from_millis(500), lasts: Nanos::from_millis(500) };
    let gap = 0.7 * S as f64;
    let fleet = |outages| Fleet { outages, ..fleet(&world, 2, vec![arrivals(gap, 3)]) };
    let whole = played(fleet(vec![]), &CONSTANT);
    let with = played(fleet(vec![outage]), &CONSTANT);
    assert_eq!((dropped(&whole, 0, GPU_DOWN), dropped(&whole, 0, NO_GPU)), (0, 0));
    let lost = dropped(&with, 0, GPU_DOWN);
    assert!((1..200).contains(&lost), "{lost}");
    assert_eq!(dropped(&with, 0, NO_GPU), 0, "the other one serves");
    assert_eq!(with.tenants[0].counts.offered, whole.tenants[0].counts.offered);
    // Half of its time away, half of its share of the load, which is 0.71 of two GPUs'.
    let by = |r: &FleetReport, g: usize| r.gpus[g].report.gpu.cu_utilization;
    assert!(by(&with, 0) > by(&whole, 0) + 0.05, "{} {}", by(&with, 0), by(&whole, 0));
    assert!(by(&with, 1) < 0.8, "{}", by(&with, 1));
    assert!(with.gpus.iter().all(|g| g.report.gpu.cu_utilization <= 1.0));
    assert!(
        with.tenants[0].counts.latencies.quantile(0.99)
            > whole.tenants[0].counts.latencies.quantile(0.99)
    );
}

#[test]
fn without_any_gpu_requests_are_given_up_and_clients_wait() {
    let mut world = world(2);
    world.warmup = Nanos::from_millis(200);
    let down = |at: u64, lasts: u64| Outage {
        gpu: 0,
        at: Nanos::from_millis(at),
        lasts: Nanos::from_millis(lasts),
    };
    // One before the window, one across its beginning, one within.
    let outages = vec![down(600, 100), down(50, 20), down(150, 100)];
    let sources = vec![arrivals(10.0 * S as f64, 5), None];
    let fleet = Fleet { outages, ..fleet(&world, 1, sources) };
    let report = played(fleet, &Mps { clients: 2, exponential: None });
    // 50 ms and 100 ms of the window's 2 s without a GPU, at 1000 requests/s.
    let lost = dropped(&report, 0, NO_GPU);
    assert!((110..190).contains(&lost), "{lost}");
    assert!(dropped(&report, 1, GPU_DOWN) <= 2);
    assert_eq!(dropped(&report, 1, NO_GPU), 0);
    let busy = report.gpus[0].report.gpu.cu_utilization;
    assert!((busy - 1.85 / 2.0).abs() < 0.01, "{busy}");
}

#[derive(Default)]
struct InOrder {
    last: u64,
    answered: Vec<u64>,
}

impl Observer for InOrder {
    fn happened(&mut self, now: Nanos, what: Happening) {
        assert!(now.0 >= self.last, "told in order of time");
        self.last = now.0;
        if let Happening::RequestDone { tenant, .. } = what {
            self.answered.resize(self.answered.len().max(tenant as usize + 1), 0);
            self.answered[tenant as usize] += 1;
        }
    }
}

#[test]
fn an_observer_changes_nothing_and_sees_the_fleets_numbers() {
    let world = world(2);
    let sources = || vec![arrivals(2.0 * S as f64, 1), arrivals(3.0 * S as f64, 2)];
    let outage = Outage { gpu: 0, at: Nanos::from_millis(700), lasts: Nanos::from_millis(100) };
    let make = || {
        let mut fleet = fleet(&world, 3, sources());
        // The last GPU serves the second tenant alone, as its first.
        let only = Arc::make_mut(&mut fleet.gpus[2].setup);
        only.tenants.remove(0);
        fleet.gpus[2].tenants = vec![1];
        Fleet { outages: vec![outage], ..fleet }
    };
    let plain = played(make(), &CONSTANT);
    let mut log = InOrder::default();
    let seen = fleet::run(make(), &CONSTANT, Some(&mut log)).unwrap();
    let digests = |r: &FleetReport| r.gpus.iter().map(|g| g.report.digest).collect::<Vec<_>>();
    assert_eq!(digests(&plain), digests(&seen));
    let completed: Vec<_> = plain.tenants.iter().map(|t| t.counts.completed).collect();
    assert_eq!(log.answered, completed);
}
