//! Closed forms of queueing theory, and what is known of GPU sharing without any theory.
//!
//! Stochastic tests replicate with independent seeds: `REPLICAS` means, each of some ten thousand
//! requests after a warm-up, and a 99.9 % Student interval of their mean (two-sided, alpha = 0.001).
//! The exact value must lie inside, and the interval must be narrow enough to mean something.

use crate::common::{
    Exponential, World, at, build, closed, completions, device, kernel, model, poisson, program,
    run, tenant, watch, waves,
};
use cotenant_profiles::device::Mechanism;
use cotenant_profiles::{Device, Nanos};
use cotenant_sim::policy::Value;
use cotenant_sim::program::KernelCode;
use cotenant_sim::scenario::{Jitter, Load, Scenario, Think};
use cotenant_traces::Rng;

const REPLICAS: u64 = 20;
/// Student's t with 19 degrees of freedom, two-sided 99.9 %.
const T: f64 = 3.883;
/// Mean service time, ns.
const S: u64 = 100_000;

/// The mean over replicas contains `exact` in its interval, which is at most `width` of it wide.
fn check(what: &str, exact: f64, width: f64, mut replica: impl FnMut(u64) -> f64) {
    let means: Vec<f64> =
        (0..REPLICAS).map(|i| replica(Rng::for_names(i, &[what]).next_u64())).collect();
    let n = REPLICAS as f64;
    let mean = means.iter().sum::<f64>() / n;
    let variance = means.iter().map(|m| (m - mean) * (m - mean)).sum::<f64>() / (n - 1.0);
    let half = T * (variance / n).sqrt();
    eprintln!("{what}: exact {exact:.1}, simulated {mean:.1} +- {half:.1}");
    assert!((mean - exact).abs() <= half, "{what}: {mean:.1} +- {half:.1}, exact {exact:.1}");
    assert!(half < width * exact, "{what}: an interval of +- {half:.1} shows nothing");
}

/// One tenant of one-kernel requests.
fn station(cus: u32, kernel: KernelCode, workers: u32) -> World {
    let mut world = World::new(device(&[cus]), vec![kernel]);
    let mut tenant = tenant("t", model(vec![program(&world.code, &[0], 0)]));
    tenant.workers = workers;
    world.tenants.push(tenant);
    world.warmup = Nanos::from_millis(500);
    world.duration = Nanos::from_secs(6);
    world
}

fn mean_latency(world: &World, load: Load, jitter: Option<Box<dyn Jitter>>) -> f64 {
    let scenario = Scenario { jitter, ..world.scenario(vec![load]) };
    let report = run(scenario, "mps", &[]);
    let counts = &report.tenants[0].counts;
    counts.latency_sum as f64 / counts.completed as f64
}

fn exponential(seed: u64) -> Option<Box<dyn Jitter>> {
    Some(Box::new(Exponential(Rng::for_names(seed, &["service"]))))
}

/// Mean gap that loads `servers` servers of mean service time [`S`] to `rho`.
fn gap(rho: f64, servers: u32) -> f64 {
    S as f64 / (rho * f64::from(servers))
}

#[test]
fn m_m_1() {
    let rho = 0.7;
    let world = station(1, waves(1, 1, S), 1);
    check("M/M/1", S as f64 / (1.0 - rho), 0.05, |seed| {
        mean_latency(&world, poisson(gap(rho, 1), seed), exponential(seed))
    });
}

#[test]
fn m_d_1() {
    let rho = 0.7;
    let world = station(1, waves(1, 1, S), 1);
    let exact = S as f64 * (1.0 + rho / (2.0 * (1.0 - rho)));
    check("M/D/1", exact, 0.05, |seed| mean_latency(&world, poisson(gap(rho, 1), seed), None));
}

/// Erlang's C: the probability that an arrival waits.
fn erlang_c(k: u32, rho: f64) -> f64 {
    let a = rho * f64::from(k);
    let mut term = 1.0;
    let mut sum = 1.0;
    for i in 1..k {
        term *= a / f64::from(i);
        sum += term;
    }
    let last = term * a / f64::from(k) / (1.0 - rho);
    last / (sum + last)
}

/// One-CU kernels on k CUs, first come first served by the leftover rule.
#[test]
fn m_m_k() {
    let (rho, k) = (0.8, 4);
    let one = KernelCode { want: 1, blocks: 1, ..kernel(k, |_| S) };
    let world = station(k, one, 400);
    let exact = S as f64 * (1.0 + erlang_c(k, rho) / (f64::from(k) * (1.0 - rho)));
    check("M/M/4", exact, 0.05, |seed| {
        mean_latency(&world, poisson(gap(rho, k), seed), exponential(seed))
    });
}

/// Mean number in M/D/k: whatever is in service now has left after one service time, so the number
/// then is Poisson arrivals on top of what waits now. Its fixed point is found by iteration.
fn m_d_k_number(k: usize, rho: f64) -> f64 {
    let (n, a) = (400, rho * k as f64);
    let mut arrivals = vec![libm::exp(-a)];
    (1..n).for_each(|i| arrivals.push(arrivals[i - 1] * a / i as f64));
    let mut p = vec![0.0; n];
    p[0] = 1.0;
    for _ in 0..4000 {
        let mut next = vec![0.0; n];
        for (i, mass) in p.iter().enumerate().filter(|(_, m)| **m > 1e-18) {
            let waiting = i.saturating_sub(k);
            for (j, q) in arrivals.iter().enumerate().take((n - waiting).min(60)) {
                next[waiting + j] += mass * q;
            }
        }
        let moved: f64 = p.iter().zip(&next).map(|(a, b)| (a - b).abs()).sum();
        p = next;
        if moved < 1e-13 {
            break;
        }
    }
    p.iter().enumerate().map(|(i, m)| i as f64 * m).sum()
}

#[test]
fn m_d_k() {
    let (rho, k) = (0.85, 3);
    let one = KernelCode { want: 1, blocks: 1, ..kernel(k, |_| S) };
    let world = station(k, one, 400);
    // Little's law.
    let exact = m_d_k_number(k as usize, rho) * gap(rho, k);
    check("M/D/3", exact, 0.05, |seed| mean_latency(&world, poisson(gap(rho, k), seed), None));
}

/// Mostly short, sometimes long; mean 1, squared coefficient of variation about 4.4.
struct ShortOrLong(Rng);

impl Jitter for ShortOrLong {
    fn factor(&mut self, _: u32, _: u64, _: u32) -> f64 {
        if self.0.below(10) == 0 { 5.5 * self.0.exp1() } else { 0.5 * self.0.exp1() }
    }
}

/// Kernels that share all CUs fairly and whose time is inverse to them are a processor-sharing
/// queue: its mean response does not depend on the distribution of service.
#[test]
fn processor_sharing_is_insensitive() {
    // Divisible by 1 to 10: equal shares are whole CUs.
    let (rho, cus) = (0.6, 2520);
    let fair = KernelCode { fair: true, ..kernel(cus, |c| S * 2520 / u64::from(c)) };
    let world = station(cus, fair, 100);
    let exact = S as f64 / (1.0 - rho);
    let load = |seed| poisson(gap(rho, 1), seed);
    check("M/D/1-PS", exact, 0.05, |seed| mean_latency(&world, load(seed), None));
    check("M/M/1-PS", exact, 0.05, |seed| mean_latency(&world, load(seed), exponential(seed)));
    check("M/H/1-PS", exact, 0.08, |seed| {
        mean_latency(&world, load(seed), Some(Box::new(ShortOrLong(Rng::new(seed)))))
    });
}

/// Machine repair: N clients that think, one server; mean value analysis is exact.
#[test]
fn closed_loop_with_think_time() {
    let (clients, think) = (6, 3 * S);
    let (mut queue, mut response) = (0.0, 0.0);
    for n in 1..=clients {
        response = S as f64 * (1.0 + queue);
        queue = f64::from(n) / (think as f64 + response) * response;
    }
    let world = station(1, waves(1, 1, S), 1);
    check("machine repair", response, 0.05, |seed| {
        let rng = Rng::for_names(seed, &["think"]);
        let load = Load::Closed {
            concurrency: clients,
            think: Think::Exponential(Nanos(think), rng),
            items: 1,
            limit: None,
            tokens: None,
        };
        mean_latency(&world, load, exponential(seed))
    });
}

/// `n` tenants of ten kernels of 300 us that want the whole GPU.
fn saturated(n: usize) -> World {
    let mut world = World::new(Device::builtin("v100-sxm2-16").unwrap(), vec![]);
    world.code.kernels.push(waves(80, 80, 300_000));
    let model = model(vec![program(&world.code, &[0; 10], 5_000)]);
    for t in 0..n {
        world.tenants.push(tenant(&format!("t{t}"), model.clone()));
    }
    world.warmup = Nanos::from_millis(100);
    world.duration = Nanos::from_secs(2);
    world
}

/// With the device's own quantum and switch cost.
#[test]
fn time_slicing_n_saturating_clients_costs_n_times_solo() {
    let solo = mean_latency(&saturated(1), closed(1), None);
    for n in [2, 4, 8] {
        let world = saturated(n);
        let report = run(world.scenario((0..n).map(|_| closed(1)).collect()), "temporal", &[]);
        for t in &report.tenants {
            let mean = t.counts.latency_sum as f64 / t.counts.completed as f64;
            let ratio = mean / solo / n as f64;
            eprintln!("time slicing, {n} clients: {ratio:.4} of {n} x solo");
            // Each turn also costs a switch between busy contexts.
            let costs = &world.device.costs;
            let switches = costs.context_switch.cost.0 as f64 / costs.quantum.0 as f64;
            assert!((1.0..1.05 + switches).contains(&ratio), "{n} clients: {ratio}");
        }
    }
}

/// Whatever the neighbour does, an instance's tenant sees the same nanoseconds.
#[test]
fn hardware_instances_do_not_disturb_one_another() {
    let device = Device::builtin("a100-sxm-40").unwrap();
    let cus = device.cus();
    let heavy = KernelCode { dram_bytes: 400_000_000, ..waves(cus, 4 * cus, 200_000) };
    let mut world = World::new(device, vec![heavy]);
    let model = model(vec![program(&world.code, &[0; 5], 5_000)]);
    world.tenants = vec![tenant("quiet", model.clone()), tenant("noisy", model)];
    world.duration = Nanos::from_secs(2);
    let model = cotenant_sim::contention::ContentionModel::from_name("bandwidth", &world.device);
    world.contention = model.unwrap();
    let instances = Value::Texts(vec!["3g".to_owned(), "3g".to_owned()]);
    let quiet = |noisy: Load| {
        let scenario = world.scenario(vec![poisson(15e6, 7), noisy]);
        let (_, log) = watch(scenario, build("mig", &[("instances", instances.clone())]).as_mut());
        let done = completions(&log).into_iter().filter(|c| c.1 == 0).collect::<Vec<_>>();
        assert!(done.len() > 50);
        done
    };
    let alone = quiet(at(vec![]));
    for noisy in [closed(1), closed(8), poisson(1e6, 3)] {
        assert_eq!(quiet(noisy), alone);
    }
}

/// A model whose host issues kernels more slowly than the GPU runs them takes the host's time.
#[test]
fn a_launch_bound_models_latency_is_flat_over_small_batches() {
    let kernels = (1..=8).map(|b| waves(80, 80, 2_000 * b)).collect();
    let mut world = World::new(Device::builtin("v100-sxm2-16").unwrap(), kernels);
    let programs = (0..8).map(|b| program(&world.code, &[b; 50], 10_000)).collect();
    world.tenants = vec![tenant("t", model(programs))];
    world.duration = Nanos::from_secs(1);
    let latency = |items| {
        let load = Load::Closed {
            concurrency: 1,
            think: Think::Constant(Nanos(0)),
            items,
            limit: None,
            tokens: None,
        };
        mean_latency(&world, load, None)
    };
    let floor = 50.0 * 10_000.0;
    for b in 1..=5 {
        // The last kernel ends after the last launch.
        assert_eq!(latency(b), floor + 2_000.0 * f64::from(b), "batch {b}");
    }
    // Beyond, the GPU is slower than the host: the first launch, then kernel after kernel.
    assert_eq!(latency(8), 10_000.0 + 50.0 * 16_000.0);
}

/// Two streams side by side: as long as one after the other where each kernel fills the GPU, as long
/// as one alone where both fit.
#[test]
fn two_streams_under_mps_are_serial_or_parallel() {
    for (want, expected) in [(80, 2.0), (40, 1.0)] {
        let mut world = World::new(device(&[80]), vec![]);
        world.code.kernels.push(waves(80, want, 100_000));
        world.costs.launch = Nanos::ZERO;
        let model = model(vec![program(&world.code, &[0; 20], 0)]);
        world.duration = Nanos::from_secs(1);
        world.tenants = vec![tenant("a", model.clone())];
        let solo = mean_latency(&world, closed(1), None);
        world.tenants.push(tenant("b", model));
        let report = run(world.scenario(vec![closed(1), closed(1)]), "mps", &[]);
        for t in &report.tenants {
            let ratio = t.counts.latency_sum as f64 / t.counts.completed as f64 / solo;
            assert!((ratio - expected).abs() < 0.02, "want {want}: {ratio}");
        }
    }
}

/// The mechanism's cost is what separates `real` from `ideal` time slicing.
#[test]
fn ideal_costs_leave_time_slicing_without_a_switch() {
    let mut world = saturated(2);
    world.costs = world.costs.ideal();
    assert_eq!(world.costs.context_switch, Mechanism::FREE);
    let solo = mean_latency(&saturated(1), closed(1), None);
    let report = run(world.scenario(vec![closed(1), closed(1)]), "temporal", &[]);
    let c = &report.tenants[0].counts;
    let ratio = c.latency_sum as f64 / c.completed as f64 / solo;
    assert!((1.98..2.001).contains(&ratio), "{ratio}");
}
