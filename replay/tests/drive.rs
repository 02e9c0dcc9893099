//! The driver on the emulated device: every policy of the registry, beside the simulator. A program of
//! its own: it compares wall-clock times, and cargo runs one program of tests after the other.
#![allow(clippy::print_stderr, clippy::unwrap_used)] // tests print their numbers

use std::sync::Arc;

use cotenant_profiles::{Bytes, Device, Nanos, analytic, zoo};
use cotenant_replay::clock::Clock;
use cotenant_replay::drive::{self, Kernels, Lateness, ReplayError, Stop, Streams};
use cotenant_replay::emulated::EmulatedDevice;
use cotenant_sim::contention::ContentionModel;
use cotenant_sim::metrics::Latencies;
use cotenant_sim::policy::{ALL, Depth, Options, PolicyInfo, find};
use cotenant_sim::program::Code;
use cotenant_sim::scenario::{Load, Scenario, Setup, Tenant};
use cotenant_sim::{Class, Report};
use cotenant_traces::{Arrivals, Request, Rng};

/// Requests with exponential gaps.
struct Poisson {
    rng: Rng,
    at: f64,
    gap: f64,
}

impl Arrivals for Poisson {
    fn next_request(&mut self) -> Option<Request> {
        self.at += self.rng.exp1() * self.gap;
        Some(Request::at(Nanos(self.at as u64)))
    }
}

/// Models with requests/s.
const TENANTS: [(&str, f64); 2] = [("alexnet", 600.0), ("vgg16", 100.0)];

fn scenario() -> Scenario {
    let device = Device::builtin("a100-sxm-40").unwrap();
    let specs: Vec<_> = TENANTS.iter().map(|(m, _)| zoo::find(m).unwrap()).collect();
    let specs: Vec<_> = specs.iter().collect();
    let options = analytic::Options::default();
    let profile = analytic::profile(&device, &specs, &[1, 2, 4], &options).unwrap();
    let mut code = Code::default();
    let tenant = |(name, _): &(&str, f64)| Tenant {
        name: (*name).to_owned(),
        model: code.compile(&profile, name, 4, device.cus()).unwrap(),
        class: Class::Latency,
        slo: Some(Nanos::from_millis(50)),
        workers: 1,
        batch_max: 4,
        batch_timeout: Nanos::from_millis(1),
        generates: None,
        per_request_batches: false,
        drop_after: None,
    };
    let tenants = TENANTS.iter().map(tenant).collect();
    let load = |(i, (_, rate)): (u64, &(&str, f64))| -> Load {
        let rng = Rng::for_names(i, &["arrivals"]);
        Load::Open(Box::new(Poisson { rng, at: 0.0, gap: 1e9 / rate }))
    };
    Scenario {
        loads: (0..).zip(&TENANTS).map(load).collect(),
        contention: ContentionModel::from_name("bandwidth", &device).unwrap(),
        setup: Arc::new(Setup { costs: device.costs.clone(), device, code: code.into(), tenants }),
        warmup: Nanos::from_millis(20),
        duration: Nanos::from_millis(80),
        jitter: None,
    }
}

fn replayed(info: &PolicyInfo, scenario: Scenario, slowdown: f64) -> (Report, Lateness) {
    let setup = Arc::clone(&scenario.setup);
    let mut policy = (info.build)(&Options::default()).unwrap();
    let layout = policy.layout(&setup).unwrap();
    let (pools, clock) = (&layout.pools, Clock::start(slowdown));
    let mut device = EmulatedDevice::for_scenario(&setup, pools, scenario.contention, clock);
    let mut streams = Streams::new(&mut device, Kernels::Numbered, setup.code.kernels.len());
    let stop = Stop::new();
    let done = drive::run(scenario, &mut *policy, &layout, &mut streams, None, &stop).unwrap();
    (done.report, done.lateness)
}

fn p50(latencies: &Latencies) -> f64 {
    latencies.quantile(0.5).unwrap().as_millis_f64()
}

/// What the driver's own delays may have added to a median request that needs `steps` ends to be
/// seen. One long delay lets everybody behind it queue, and batches form otherwise: the longest
/// counts, besides the usual ones of every step.
fn excused_ms(lateness: &Lateness, steps: f64) -> f64 {
    let late = |l: &Latencies, q| lateness.in_run(l, q).map_or(0.0, |l| l.as_millis_f64());
    let Lateness { arrivals, completions, .. } = lateness;
    let usual = late(arrivals, 0.9) + steps * late(completions, 0.9);
    2.0 * usual + late(arrivals, 1.0) + late(completions, 1.0)
}

/// Throughput within 5 %, median within 10 %. A busy machine makes the driver late, and a policy that
/// goes by what it measures then decides otherwise: what deviates is tried again twice as slowly, twice.
/// The driver says how late it was, which has to explain what remains then.
fn compare(info: &'static PolicyInfo) {
    let mut policy = (info.build)(&Options::default()).unwrap();
    let deep = policy.depth() == Depth::Kernel;
    let simulated = cotenant_sim::run(scenario(), &mut *policy, None).unwrap();
    let mut slowdown = if deep { 200.0 } else { 100.0 };
    for last in [false, false, true] {
        let (report, lateness) = replayed(info, scenario(), slowdown);
        let mut excused = true;
        let mut good = true;
        for (t, (s, m)) in simulated.tenants.iter().zip(&report.tenants).enumerate() {
            let (name, setup) = (TENANTS[t].0, &scenario().setup);
            let (s, m) = (&s.counts, &m.counts);
            let rate = m.completed as f64 / s.completed as f64 - 1.0;
            let (simulated, measured) = (p50(&s.latencies), p50(&m.latencies));
            let error = measured / simulated - 1.0;
            let kernels = setup.tenants[t].model.programs[0].kernels.len() as f64;
            let explained = excused_ms(&lateness, if deep { kernels } else { 1.0 });
            eprintln!(
                "{:12} {name:8} completed {} {} p50 {simulated:.3} {measured:.3} ms, {:+.1} % \
                 (lateness explains {explained:.3} ms), slowdown {slowdown}",
                info.name,
                s.completed,
                m.completed,
                error * 100.0
            );
            // One request more or less in the window is not a deviation.
            let counted = m.completed.abs_diff(s.completed) <= 1 || rate.abs() <= 0.05;
            good &= counted && error.abs() <= 0.10;
            excused &= (measured - simulated).abs() <= explained.max(simulated * 0.10);
        }
        if good {
            return;
        }
        if last {
            assert!(excused, "{}: more than the driver's lateness explains", info.name);
            eprintln!("{}: the machine is too busy to tell", info.name);
        }
        slowdown *= 2.0;
    }
}

/// Not `hami`: its bucket is smaller than these loads, so that their latency is the sum of what many
/// samples of a counter said, and a sample that is late by a little says something else. The transcript
/// test compares it event by event.
#[test]
fn every_policy_delivers_on_a_device_what_it_does_in_virtual_time() {
    // Replays sleep most of the time: side by side they take no longer than one.
    std::thread::scope(|scope| {
        for info in ALL.iter().filter(|i| !i.is_bound() && i.name != "hami") {
            scope.spawn(|| compare(info));
        }
    });
}

#[test]
fn a_bound_and_what_does_not_fit_are_refused() {
    let replay = |name: &str, memory: Option<Bytes>| {
        let scenario = scenario();
        let mut policy = (find(name).unwrap().build)(&Options::default()).unwrap();
        let mut layout = policy.layout(&scenario.setup).unwrap();
        let whole = [scenario.setup.whole_gpu()];
        let clock = Clock::start(1.0);
        let setup = Arc::clone(&scenario.setup);
        let mut device = EmulatedDevice::for_scenario(&setup, &whole, scenario.contention, clock);
        if let Some(memory) = memory {
            layout.pools[0].memory = memory;
        }
        let mut streams = Streams::new(&mut device, Kernels::Numbered, setup.code.kernels.len());
        let (streams, stop) = (&mut streams, &Stop::new());
        drive::run(scenario, &mut *policy, &layout, streams, None, stop).unwrap_err()
    };
    assert!(matches!(replay("ideal", None), ReplayError::Bound));
    let why = replay("mps", Some(Bytes(800 << 20))).to_string();
    assert!(why.starts_with("out-of-memory: a worker of tenant `vgg16` brings"), "{why}");
}

#[test]
fn a_run_ends_at_once_when_somebody_wants_to_stop() {
    let scenario = Scenario { duration: Nanos::from_secs(3600), ..scenario() };
    let setup = Arc::clone(&scenario.setup);
    let mut policy = (find("mps").unwrap().build)(&Options::default()).unwrap();
    let layout = policy.layout(&setup).unwrap();
    let (pools, clock) = (&layout.pools, Clock::start(1.0));
    let mut device = EmulatedDevice::for_scenario(&setup, pools, scenario.contention, clock);
    let mut streams = Streams::new(&mut device, Kernels::Numbered, setup.code.kernels.len());
    let stop = Stop::new();
    let ended = std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(std::time::Duration::from_millis(20));
            stop.now();
        });
        drive::run(scenario, &mut *policy, &layout, &mut streams, None, &stop)
    });
    assert!(matches!(ended, Err(ReplayError::Stopped)));
}
