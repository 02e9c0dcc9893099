//! What a decision costs: CPU time of the kernel policies per kernel, their allocations (none), the
//! time that every policy which launches kernels takes per kernel on the simulator's own events, and
//! the simulator's rate under them beside its rate with `mps`.
//!
//! `cargo bench -p cotenant-sim --bench decide [-- ROWS]`; ROWS is a part of a row's name, and with
//! `--test` it is a short run that only checks.

#[path = "../tests/it/common/mod.rs"]
mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use common::{build, closed};
use cotenant_profiles::{Device, Nanos, analytic, zoo};
use cotenant_sim::action::{Action, Event};
use cotenant_sim::contention::ContentionModel;
use cotenant_sim::policy::{Around, Depth, Value};
use cotenant_sim::program::Code;
use cotenant_sim::scenario::{Scenario, Setup, Tenant};
use cotenant_sim::view::{Status, View, Worker};
use cotenant_sim::{Class, Policy};
use cotenant_traces::Rng;

/// Counts allocations on their way to the system's allocator.
struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

// SAFETY: every call is handed to the system's allocator as it came.
#[allow(unsafe_code)]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promises are handed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: the caller's promises are handed on.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// `workers` workers, each of the next model in turn, batches of up to four.
fn setup(device: &str, workers: usize) -> Setup {
    let device = Device::builtin(device).expect("a built-in device");
    let names = ["resnet50", "densenet201", "bert_base", "vgg19"];
    let specs = names.map(|n| zoo::find(n).expect("a model of the zoo"));
    let options = analytic::Options::default();
    let profile = analytic::profile(&device, &specs.each_ref(), &[4], &options).expect("batch 4");
    let mut code = Code::default();
    let tenants = (0..workers).map(|w| {
        let name = &specs[w % specs.len()].name;
        Tenant {
            name: format!("{name}-{w}"),
            model: code.compile(&profile, name, 4, device.cus()).expect("it is in the profile"),
            // Every other one takes what is left, for those who look at that.
            class: if w % 2 == 0 { Class::Latency } else { Class::BestEffort },
            slo: None,
            workers: 1,
            batch_max: 4,
            batch_timeout: Nanos::ZERO,
            generates: None,
            per_request_batches: false,
            drop_after: None,
        }
    });
    let tenants = tenants.collect();
    Setup { costs: device.costs.clone(), device, code: code.into(), tenants }
}

/// Every worker's kernels come and go in random order, `kernels` in all; ns and allocations per
/// kernel (one decision and one completion).
fn decide(setup: &Setup, policy: &mut dyn Policy, kernels: u64) -> (f64, f64) {
    let layout = policy.layout(setup).expect("it fits");
    let worker = |spec: &_| Worker { items: 4, ..Worker::new(*spec, Status::Idle) };
    let mut workers: Vec<Worker> = layout.workers.iter().map(worker).collect();
    let mut actions: Vec<Action> = Vec::with_capacity(64);
    let mut rng = Rng::new(1);
    let mut run = |kernels: u64| {
        let mut launched = 0u64;
        while launched < kernels {
            let i = rng.below(workers.len() as u64) as usize;
            let w = &mut workers[i];
            let event = if w.status == Status::Launched {
                (w.status, w.cus) = (Status::Idle, 0);
                Event::KernelDone { worker: i as u32 }
            } else if w.status == Status::Idle {
                let program = setup.tenants[w.spec.tenant as usize].model.program(4);
                w.position = (w.position + 1) % program.kernels.len() as u32;
                w.kernel = program.kernels[w.position as usize];
                w.status = Status::Held;
                Event::KernelReady { worker: i as u32 }
            } else {
                continue;
            };
            let mut next = Some(event);
            while let Some(event) = next.take() {
                let view = View {
                    now: Nanos::ZERO,
                    setup,
                    tenants: &[],
                    queues: &(),
                    workers: &workers,
                    pools: &[],
                    gpu: &(),
                };
                policy.event(event, &view, &mut actions);
                for action in actions.drain(..) {
                    match black_box(action) {
                        Action::Launch { worker, .. } | Action::Slice { worker, .. } => {
                            let w = &mut workers[worker as usize];
                            (w.status, w.cus) = (Status::Launched, 1);
                            launched += 1;
                        }
                        Action::Timer { token, .. } => next = Some(Event::Timer { token }),
                        _ => {}
                    }
                }
            }
        }
    };
    run(kernels / 10);
    let allocated = ALLOCATIONS.load(Ordering::Relaxed);
    let start = clock();
    run(kernels);
    let ns = (clock() - start) * 1e9;
    let allocated = ALLOCATIONS.load(Ordering::Relaxed) - allocated;
    (ns / kernels as f64, allocated as f64 / kernels as f64)
}

/// Events per second of simulated closed loops under a policy.
fn rate(setup: &Arc<Setup>, name: &str, options: &[(&str, Value)], duration: Nanos) -> f64 {
    let device = &setup.device;
    let scenario = Scenario {
        setup: setup.clone(),
        loads: setup.tenants.iter().map(|_| closed(1)).collect(),
        warmup: Nanos::ZERO,
        duration,
        contention: ContentionModel::from_name("bandwidth", device).expect("a known model"),
        jitter: None,
    };
    let mut policy = build(name, options);
    let start = clock();
    let report = cotenant_sim::run(scenario, policy.as_mut(), None).expect("it fits");
    report.events as f64 / (clock() - start)
}

/// ns per kernel in a policy's events on a simulated run, at most: reading the clock twice an event is in
/// it. And events per kernel; nothing, where it launches none.
fn told(setup: &Arc<Setup>, name: &str, duration: Nanos) -> Option<(f64, f64)> {
    let contention = ContentionModel::from_name("bandwidth", &setup.device).expect("a known model");
    let loads = setup.tenants.iter().map(|_| closed(1)).collect();
    let duration = Nanos(duration.0 / 20);
    let (setup, warmup, jitter) = (setup.clone(), Nanos::ZERO, None);
    let scenario = Scenario { setup, loads, warmup, duration, contention, jitter };
    let mut policy = build(name, &[]);
    let (mut ns, mut events, mut kernels) = (0, 0_u64, 0_u64);
    let mut timed = Around::new(policy.as_mut(), |policy, event, view, act| {
        let before = act.len();
        let start = Instant::now();
        policy.event(event, view, act);
        ns += start.elapsed().as_nanos() as u64;
        events += 1;
        let launches = |a: &Action| match a {
            Action::Launch { .. } | Action::Slice { .. } | Action::Follow { .. } => 1,
            Action::Merge { workers, .. } => workers.len() as u64,
            _ => 0,
        };
        kernels += act[before..].iter().map(launches).sum::<u64>();
    });
    cotenant_sim::run(scenario, &mut timed, None).ok()?;
    let per = kernels as f64;
    (kernels > 0).then(|| (ns as f64 / per, events as f64 / per))
}

/// CPU time of this thread, s: what others do on the machine is not in it.
fn clock() -> f64 {
    static START: OnceLock<Instant> = OnceLock::new();
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").ok();
    let ns = stat.and_then(|s| s.split_whitespace().next()?.parse::<u64>().ok());
    let wall = || START.get_or_init(Instant::now).elapsed().as_secs_f64();
    ns.map_or_else(wall, |ns| ns as f64 / 1e9)
}

fn median(mut list: Vec<f64>) -> f64 {
    list.sort_by(f64::total_cmp);
    list[list.len() / 2]
}

#[allow(clippy::print_stdout)] // a benchmark talks to people
fn main() {
    let check = std::env::args().any(|a| a == "--test");
    let (kernels, repeats, duration) = if check {
        (20_000, 1, Nanos::from_millis(50))
    } else {
        // Long enough for the clock, which some kernels advance by ticks of 4 ms.
        (2_000_000, 5, Nanos(20_000_000_000))
    };
    let all = |n: i64| ("oversubscription", Value::Integer(n));
    let stop = ("shrink", Value::Text("stop".to_owned()));
    let rows = [
        ("krisp, limit 0", "krisp", vec![all(0)]),
        ("krisp, limit 0, shrink stop", "krisp", vec![all(0), stop]),
        ("krisp, all", "krisp", vec![all(320)]),
        ("eclip", "eclip", vec![]),
        ("orion", "orion", vec![]),
        ("reef", "reef", vec![]),
        ("tally", "tally", vec![]),
        ("lithos", "lithos", vec![]),
        ("xsched", "xsched", vec![]),
        ("hami", "hami", vec![]),
    ];
    // What a library between program and driver may take for each kernel, ns.
    const BUDGET: f64 = 1_000.0;
    let only = std::env::args().skip(1).find(|a| !a.starts_with('-'));
    let wanted = |row: &str| only.as_ref().is_none_or(|part| row.contains(part));
    println!("decision and completion of one kernel, CPU time");
    for (device, workers) in [("h200-sxm", 4), ("h200-sxm", 16), ("mi50", 4)] {
        let setup = setup(device, workers);
        for (label, name, options) in &rows {
            let row = format!("decision {device} {workers} {label}");
            if !wanted(&row) {
                continue;
            }
            let runs = (0..repeats).map(|_| decide(&setup, build(name, options).as_mut(), kernels));
            let runs: Vec<_> = runs.collect();
            let allocations = runs.iter().map(|r| r.1).fold(0.0, f64::max);
            assert!(allocations < 1e-3, "a decision allocates: {allocations} per kernel");
            let ns = median(runs.iter().map(|r| r.0).collect());
            println!("{row:<52} {ns:>7.0} ns");
        }
    }
    println!("all events of a policy, closed loops, ns per kernel (all of {BUDGET})");
    for (device, workers) in [("h200-sxm", 4), ("h200-sxm", 16)] {
        let setup = Arc::new(setup(device, workers));
        for info in cotenant_sim::policy::ALL {
            let row = format!("events {device} {workers} {}", info.name);
            let deep = build(info.name, &[]).depth() == Depth::Kernel;
            if !deep || !wanted(&row) {
                continue;
            }
            // The best: what else the machine does only adds.
            let runs = (0..repeats).filter_map(|_| told(&setup, info.name, duration));
            let best = runs.reduce(|a, b| if b.0 < a.0 { b } else { a });
            let Some((ns, events)) = best else {
                println!("{row:<52} launches no kernel here: it is for tenants that generate");
                continue;
            };
            let over = if ns > BUDGET { "  over" } else { "" };
            println!("{row:<52} {ns:>7.0} ns {events:>6.2} events{over}");
        }
    }
    println!("simulator, closed loops of four workers, events/s, those of mps, and the ratio");
    for device in ["h200-sxm", "mi50"] {
        let setup = Arc::new(setup(device, 4));
        for (label, name, options) in &rows {
            let row = format!("simulator {device} {label}");
            if !wanted(&row) {
                continue;
            }
            // Side by side, so that what else the machine does meets both.
            let pair = |_| {
                let mps = rate(&setup, "mps", &[], duration);
                (rate(&setup, name, options, duration), mps)
            };
            let runs: Vec<_> = (0..repeats).map(pair).collect();
            let of = |f: fn(&(f64, f64)) -> f64| median(runs.iter().map(f).collect());
            let (rate, mps, ratio) = (of(|r| r.0), of(|r| r.1), of(|r| r.0 / r.1));
            println!("{row:<52} {rate:>12.0} {mps:>12.0} {ratio:>5.2}");
        }
    }
}
