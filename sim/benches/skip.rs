//! What skipping events that cannot matter is worth: CPU time per simulated second event by event, over
//! that with skipping, in ABBA blocks in this process. `cargo bench -p cotenant-sim --bench skip [-- ROWS]`;
//! ROWS is a part of a row's name.
//!
//! *quickstart* is the mix of `experiments/quickstart.toml` on an A100, of which one tenant always runs;
//! *light* are its two open-loop tenants at rates that keep the GPU busy for about 30 % of the time.

#![allow(clippy::print_stdout, missing_docs)] // a bench prints its rows

use std::sync::Arc;

use common::{build, closed, poisson};
use cotenant_profiles::{Device, Nanos, analytic, zoo};
use cotenant_sim::contention::{ContentionModel, DEFAULT};
use cotenant_sim::host::Host;
use cotenant_sim::policy::Depth;
use cotenant_sim::program::Code;
use cotenant_sim::scenario::{Load, Scenario, Setup, Tenant};
use cotenant_sim::{Class, VirtualWorld};

#[path = "../tests/it/common/mod.rs"]
mod common;

const BLOCKS: usize = 5;

/// CPU time of this thread, s.
fn clock() -> f64 {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let ns = stat.split_whitespace().next().and_then(|ns| ns.parse::<u64>().ok());
    ns.map_or(0.0, |ns| ns as f64 / 1e9)
}

/// Model, largest batch, batch timeout in ms.
type Row = (&'static str, u32, u64);

fn setup(rows: &[Row]) -> Setup {
    let device = Device::builtin("a100-sxm-80").expect("a built-in device");
    let mut code = Code::default();
    let tenants = rows.iter().map(|&(name, batch, ms)| {
        let spec = zoo::find(name).expect("a model of the zoo");
        let batches: Vec<u32> = (1..=batch).collect();
        let options = analytic::Options::default();
        let profile = analytic::profile(&device, &[&spec], &batches, &options).expect("batches");
        Tenant {
            name: name.to_owned(),
            model: code.compile(&profile, &spec.name, batch, device.cus()).expect("its profile"),
            class: Class::Latency,
            slo: None,
            workers: 1,
            batch_max: batch,
            batch_timeout: Nanos::from_millis(ms),
            generates: None,
            per_request_batches: false,
            drop_after: None,
        }
    });
    let tenants = tenants.collect();
    Setup { costs: device.costs.clone(), device, code: code.into(), tenants }
}

const MIX: [Row; 3] = [("resnet50", 8, 2), ("bert_base", 4, 1), ("mobilenet_v2", 4, 0)];

fn quickstart() -> Vec<Load> {
    vec![poisson(10e6, 1), poisson(40e6, 2), closed(4)]
}

fn light() -> Vec<Load> {
    vec![poisson(10e6, 1), poisson(40e6, 2)]
}

struct Case<'a> {
    setup: &'a Arc<Setup>,
    loads: fn() -> Vec<Load>,
    contention: ContentionModel,
    policy: &'static str,
    seconds: u64,
}

impl Case<'_> {
    /// CPU time, events, how many of them were skipped, and the share of time with a kernel on the GPU.
    fn timed(&self, skip: bool) -> (f64, u64, u64, f64) {
        let mut policy = build(self.policy, &[]);
        let duration = Nanos::from_millis(1000 * self.seconds);
        let (setup, loads, contention) = (Arc::clone(self.setup), (self.loads)(), self.contention);
        let warmup = Nanos::ZERO;
        let s = Scenario { setup, loads, warmup, duration, contention, jitter: None };
        let start = clock();
        let layout = policy.layout(&s.setup).expect("it fits");
        let depth: Depth = policy.depth();
        let world =
            VirtualWorld::new(&s.setup, &layout, depth, &s.contention, None, None, duration);
        let world = if skip { world } else { world.event_by_event() };
        let window = (warmup, duration);
        let mut host =
            Host::new(world, &s.setup, s.loads, &layout, policy.as_mut(), window).expect("it fits");
        host.go();
        let (report, world) = host.finish();
        (clock() - start, report.events, world.skipped(), report.gpu.gpu_util)
    }

    fn compare(&self, name: &str) {
        let only = std::env::args().skip(1).find(|a| !a.starts_with('-'));
        if only.is_some_and(|part| !name.contains(&part)) {
            return;
        }
        if std::env::var_os("SKIP_BENCH_PROFILE").is_some() {
            // For `perf`: nothing but what is to be looked at.
            for _ in 0..BLOCKS {
                self.timed(true);
            }
            return;
        }
        let (_, events, skipped, busy) = self.timed(true);
        let (mut ratios, mut ns) = (vec![], vec![]);
        for _ in 0..BLOCKS {
            let [a, b, c, d] = [false, true, true, false].map(|skip| self.timed(skip).0);
            ratios.push((a + d) / (b + c));
            ns.push([(a + d) / 2.0, (b + c) / 2.0].map(|s| 1e9 * s / events as f64));
        }
        ratios.sort_by(f64::total_cmp);
        ns.sort_by(|a, b| a[0].total_cmp(&b[0]));
        let [each, with] = ns[BLOCKS / 2];
        println!(
            "{name:<28} {:6.1} ({:.1}..{:.1}) {:9.1} {:9.2} {:8.2} % {events:>10} {:5.0} %",
            ratios[BLOCKS / 2],
            ratios[0],
            ratios[BLOCKS - 1],
            each,
            with,
            100.0 * skipped as f64 / events as f64,
            100.0 * busy,
        );
    }
}

fn main() {
    let all = Arc::new(setup(&MIX));
    let two = Arc::new(setup(&MIX[..2]));
    println!(
        "{:<28} {:^18} {:>9} {:>9} {:>10} {:>10} {:>7}",
        "row", "ratio (min..max)", "ns/event", "skipping", "skipped", "events", "busy"
    );
    let contention = |name| ContentionModel::from_name(name, &all.device).expect("a model");
    for policy in ["mig", "temporal", "serve", "mps-static", "mps"] {
        let (setup, loads, seconds) = (&all, quickstart as fn() -> Vec<Load>, 50);
        let case = Case { setup, loads, contention: contention(DEFAULT), policy, seconds };
        case.compare(&format!("{policy} quickstart"));
    }
    for policy in ["mig", "temporal", "serve", "mps-static", "mps"] {
        let (setup, loads, seconds) = (&two, light as fn() -> Vec<Load>, 60);
        let case = Case { setup, loads, contention: contention(DEFAULT), policy, seconds };
        case.compare(&format!("{policy} light"));
    }
}
