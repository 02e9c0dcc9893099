//! Speed of the event engine against the loop that one writes by hand for the same workload.
//!
//! Both run in this process in ABBA blocks (base, engine, engine, base), timed by the CPU time of
//! the thread, so the ratio holds on a busy machine; absolute rates do not. `cargo bench -p
//! cotenant-sim --bench engine [-- ROWS]` prints one row per workload; ROWS is a part of a row's
//! name.

#![allow(clippy::print_stdout, missing_docs)] // a bench prints its rows

use std::time::Instant;

use cotenant_profiles::{Device, Nanos};
use cotenant_sim::action::{Action, Event, Via};
use cotenant_sim::contention::ContentionModel;
use cotenant_sim::policy::{Depth, LayoutError};
use cotenant_sim::scenario::{Scenario, Setup};
use cotenant_sim::view::View;
use cotenant_sim::{Layout, Policy};
use cotenant_traces::Rng;

use common::anchor::{Counter, Draws, MEAN_NS, Params, by_hand, scenario, simulate};

#[path = "../tests/it/common/mod.rs"]
mod common;

const BLOCKS: usize = 7;

/// CPU time of this thread, s: what others do on the machine is not in it.
fn clock() -> f64 {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").ok();
    let ns = stat.and_then(|s| s.split_whitespace().next()?.parse::<u64>().ok());
    ns.map_or_else(wall, |ns| ns as f64 / 1e9)
}

fn wall() -> f64 {
    static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    START.get_or_init(Instant::now).elapsed().as_secs_f64()
}

/// Seconds per event.
fn timed(f: &mut dyn FnMut() -> u64) -> f64 {
    let start = clock();
    let events = f();
    (clock() - start) / events as f64
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// ABBA blocks of both; the median of the blocks' ratios.
fn compare(name: &str, base: &mut dyn FnMut() -> u64, ours: &mut dyn FnMut() -> u64) {
    let only = std::env::args().skip(1).find(|a| !a.starts_with('-'));
    if only.is_some_and(|part| !name.contains(&part)) {
        return;
    }
    let (mut ratios, mut base_ns, mut ours_ns) = (vec![], vec![], vec![]);
    base();
    ours();
    for _ in 0..BLOCKS {
        let block = [timed(base), timed(ours), timed(ours), timed(base)];
        ratios.push((block[1] + block[2]) / (block[0] + block[3]));
        base_ns.push(1e9 * (block[0] + block[3]) / 2.0);
        ours_ns.push(1e9 * (block[1] + block[2]) / 2.0);
    }
    let (low, high) = ratios.iter().fold((f64::MAX, 0f64), |(l, h), &r| (l.min(r), h.max(r)));
    let best = ours_ns.iter().copied().fold(f64::MAX, f64::min);
    println!(
        "{name:<34} {:5.2} ({low:.2}..{high:.2}) {:8.1} {:8.1} {:8.1} {:8.1}",
        median(ratios),
        median(base_ns),
        median(ours_ns.clone()),
        1e3 / median(ours_ns),
        1e3 / best
    );
}

/// Draws made beforehand: what is left is the loop itself.
#[derive(Clone, Copy)]
struct Table {
    gaps: &'static [u32],
    factors: &'static [f64],
}

const TABLE: usize = 1 << 16;

impl Table {
    fn new(p: &Params) -> Self {
        let draws = Counter(libm::log);
        let index = 0..TABLE as u32;
        let gaps: Vec<_> = index.clone().map(|i| draws.gap(p, 1, i) as u32).collect();
        let factors: Vec<_> = index.map(|i| draws.factor(1, i, 3)).collect();
        Self { gaps: gaps.leak(), factors: factors.leak() }
    }
}

impl Draws for Table {
    #[inline(always)]
    fn gap(&self, _: &Params, tenant: u32, request: u32) -> u64 {
        u64::from(self.gaps[(request + tenant * 4099) as usize % TABLE])
    }
    #[inline(always)]
    fn factor(&self, tenant: u32, request: u32, kernel: u32) -> f64 {
        self.factors[(request * 10 + kernel + tenant * 4099) as usize % TABLE]
    }
}

/// Launches every kernel as soon as it can start: the price of being asked.
struct LaunchAll(Box<dyn Policy>);

impl Policy for LaunchAll {
    fn depth(&self) -> Depth {
        Depth::Kernel
    }
    fn layout(&mut self, setup: &Setup) -> Result<Layout, LayoutError> {
        self.0.layout(setup)
    }
    fn event(&mut self, event: Event, view: &View<'_>, act: &mut Vec<Action>) {
        match event {
            Event::KernelReady { worker } => {
                act.push(Action::Launch { worker, mask: None, priority: 0, via: Via::Stream });
            }
            Event::RequestArrived { tenant } | Event::RequestDone { tenant, .. } => {
                // A kernel-level policy also forms the batches.
                if let (true, Some(worker)) =
                    (view.tenants[tenant as usize].queued > 0, view.idle(tenant).next())
                {
                    act.push(Action::Dispatch { worker, items: 1 });
                }
            }
            _ => {}
        }
    }
}

fn bandwidth() -> ContentionModel {
    let device = Device::builtin("v100-sxm2-16").expect("it ships");
    ContentionModel::from_name("bandwidth", &device).expect("a model of that name")
}

/// One row: FIFO by hand on `base` against the engine on `draws`.
fn fifo<B: Draws, D: Draws>(name: &str, p: &Params, base: B, draws: D, workers: u32, bytes: u64) {
    let end = by_hand::<true, _>(p, draws).end;
    compare(name, &mut || by_hand::<false, _>(p, base).events, &mut || {
        simulate(scenario(p, draws, workers, bytes, bandwidth(), end), None).events
    });
}

/// The same workload drawn as experiments draw: one generator per tenant, ziggurat exponentials.
fn own_draws(p: &Params, end: u64) -> Scenario {
    let mut scenario = scenario(p, Counter(libm::log), 64, 100_000, bandwidth(), end);
    for (t, load) in scenario.loads.iter_mut().enumerate() {
        *load = common::poisson(p.mean_gap_ns, t as u64);
    }
    scenario.jitter = Some(Box::new(common::Exponential(Rng::new(99))));
    scenario
}

fn rates() {
    println!(
        "{:<34} {:^18} {:>8} {:>8} {:>8} {:>8}",
        "row", "ratio (min..max)", "hand ns", "ours ns", "M ev/s", "best"
    );
    let p = Params::new(16, 8, 2_000_000);
    let (std, libm) = (Counter(f64::ln), Counter(libm::log));
    fifo("fifo 16/8", &p, std, libm, 64, 100_000);
    fifo("fifo 16/8, hand on libm too", &p, libm, libm, 64, 100_000);
    fifo("fifo 16/8, ours on std ln", &p, std, std, 64, 100_000);
    let end = by_hand::<true, _>(&p, libm).end;
    compare(
        "fifo 16/8, each its own draws",
        &mut || by_hand::<false, _>(&p, std).events,
        &mut || simulate(own_draws(&p, end), None).events,
    );
    let table = Table::new(&p);
    fifo("trace-driven 16/8", &p, table, table, 64, 100_000);
    // Eight kernels of 22.5 MB in 100 us ask for twice the bandwidth: rates change at every event.
    fifo("contended 16/8 (not the same work)", &p, std, libm, 64, 22_500_000);
    let big = Params::new(4096, 1024, 2_000_000);
    fifo("fifo 4096/1024", &big, std, libm, 8, 1_000);
    let end = by_hand::<true, _>(&p, libm).end;
    compare("kernel-level policy 16/8", &mut || by_hand::<false, _>(&p, std).events, &mut || {
        let scenario = scenario(&p, libm, 64, 100_000, bandwidth(), end);
        let mut policy = LaunchAll(common::build("mps", &[]));
        cotenant_sim::run(scenario, &mut policy, None).expect("it fits").events
    });
}

fn peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|l| l.starts_with("VmHWM")).unwrap_or("VmHWM: 0 kB");
    line.split_whitespace().nth(1).and_then(|n| n.parse().ok()).unwrap_or(0)
}

/// Child process: about so many events of a queue such as `16/8`. Prints events, the growth of the peak
/// above the start in KiB, CPU time in seconds, and the mean latency in microseconds.
fn grow(events: u64, queue: &str) {
    let (tenants, servers) = queue.split_once('/').expect("TENANTS/SERVERS");
    let servers: u32 = servers.parse().expect("a number of servers");
    let p = Params::new(tenants.parse().expect("a number of tenants"), servers, 0);
    // 1.1 events per kernel, and so many kernels while one of the servers runs one.
    let end = events as f64 / 1.1 / (0.8 * f64::from(servers)) * MEAN_NS as f64;
    let start = peak_kib();
    let workers = if servers > 64 { 8 } else { 64 };
    let scenario = scenario(&p, Counter(libm::log), workers, 1_000, bandwidth(), end as u64);
    assert!(scenario.duration > Nanos::ZERO);
    let before = clock();
    let report = simulate(scenario, None);
    let seconds = clock() - before;
    let latencies = report.tenants.iter().flat_map(|t| t.counts.latencies.recorded());
    let (sum, n) = latencies
        .fold((0.0, 0), |(sum, n), (ns, count)| (sum + ns.0 as f64 * count as f64, n + count));
    let mean_us = sum / n as f64 / 1e3;
    println!("{} {} {seconds:.6} {mean_us:.3}", report.events, peak_kib() - start);
}

fn memory() {
    println!("\n{:<34} {:>12} {:>18}", "peak memory", "events", "KiB above start");
    for millions in [1, 10, 100] {
        let me = std::env::current_exe().expect("this binary has a path");
        let child = std::process::Command::new(me)
            .env("ENGINE_BENCH_EVENTS", (millions * 1_000_000).to_string())
            .output()
            .expect("a child of this binary runs");
        let text = String::from_utf8_lossy(&child.stdout).into_owned();
        let mut said = text.split_whitespace();
        let (events, kib) = (said.next().unwrap_or("?"), said.next().unwrap_or("?"));
        println!("{:<34} {events:>12} {kib:>18}", format!("fifo 16/8, {millions} M events"));
    }
}

fn main() {
    if let Some(events) = std::env::var("ENGINE_BENCH_EVENTS").ok().and_then(|e| e.parse().ok()) {
        let queue = std::env::var("ENGINE_BENCH_QUEUE");
        return grow(events, queue.as_deref().unwrap_or("16/8"));
    }
    rates();
    if !std::env::args().skip(1).any(|a| !a.starts_with('-')) {
        memory();
    }
}
