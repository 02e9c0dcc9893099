//! The driver with a process for each worker, on an emulated GPU: policies as in the simulator, and
//! what happens when workers are killed, stand still or fail.

use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use cotenant_profiles::{Bytes, Device, Nanos, analytic, zoo};
use cotenant_replay::Clock;
use cotenant_replay::drive::{self, Replayed, Stop};
use cotenant_replay::emulated::{EmulatedDevice, Fault};
use cotenant_replay::process::{Ground, Launcher, Patience, Processes, needs_processes};
use cotenant_sim::contention::ContentionModel;
use cotenant_sim::metrics::{Counts, Latencies};
use cotenant_sim::observe::{Happening, Observer};
use cotenant_sim::policy::{ALL, Options, Value, find};
use cotenant_sim::program::Code;
use cotenant_sim::scenario::{Load, Scenario, Setup, Tenant};
use cotenant_sim::{Class, Layout, Policy, Report};
use cotenant_traces::{Arrivals, Request};

/// Requests at equal gaps.
struct Even(u64, u64);

impl Arrivals for Even {
    fn next_request(&mut self) -> Option<Request> {
        self.0 += self.1;
        Some(Request::at(Nanos(self.0)))
    }
}

/// Models with requests/s.
const TENANTS: [(&str, f64); 2] = [("alexnet", 400.0), ("vgg16", 100.0)];

fn scenario(length: Nanos) -> Scenario {
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
    let load = |(_, rate): &(&str, f64)| Load::Open(Box::new(Even(0, (1e9 / rate) as u64)));
    Scenario {
        loads: TENANTS.iter().map(load).collect(),
        contention: ContentionModel::from_name("bandwidth", &device).unwrap(),
        setup: Arc::new(Setup { costs: device.costs.clone(), device, code: code.into(), tenants }),
        warmup: Nanos::from_millis(10),
        duration: length,
        jitter: None,
    }
}

struct Play<'a> {
    policy: &'a str,
    options: Options,
    length: Nanos,
    slowdown: f64,
    fault: Option<Fault>,
    /// Changes made to the scenario.
    edit: fn(&mut Setup),
}

impl Play<'_> {
    fn new(policy: &str) -> Play<'_> {
        Play {
            policy,
            options: Options::default(),
            length: Nanos::from_millis(60),
            slowdown: 40.0,
            fault: None,
            edit: |_| {},
        }
    }

    fn scenario(&self) -> Scenario {
        let mut scenario = scenario(self.length);
        let mut setup = Setup::clone(&scenario.setup);
        (self.edit)(&mut setup);
        scenario.setup = Arc::new(setup);
        scenario
    }

    fn simulated(&self) -> Report {
        let mut policy = (find(self.policy).unwrap().build)(&self.options).unwrap();
        cotenant_sim::run(self.scenario(), &mut *policy, None).unwrap()
    }

    /// Everything that a replay takes.
    fn cast(&self) -> (Box<dyn Policy>, Layout, Processes, Scenario) {
        let scenario = self.scenario();
        let setup = Arc::clone(&scenario.setup);
        let mut policy = (find(self.policy).unwrap().build)(&self.options).unwrap();
        let layout = policy.layout(&setup).unwrap();
        assert!(needs_processes(policy.depth(), &layout), "{}", self.policy);
        let (pools, clock) = (&layout.pools, Clock::start(self.slowdown));
        let mut device = EmulatedDevice::for_scenario(&setup, pools, scenario.contention, clock);
        device.inject(self.fault);
        let ground = Ground::emulated(device).unwrap();
        let program = PathBuf::from(env!("CARGO_BIN_EXE_cotenant"));
        let launcher = Launcher { program, arguments: vec!["worker".into()] };
        let patience = Patience { silence: Duration::from_secs(3), ..Patience::default() };
        (policy, layout, Processes::new(setup, ground, launcher, patience), scenario)
    }

    /// Replays; `meanwhile` hears of every process that starts: its worker and its id.
    fn replayed(&self, meanwhile: impl FnOnce(Receiver<(u32, u32)>) + Send) -> Replayed {
        let (mut policy, layout, mut workers, scenario) = self.cast();
        let (told, ids) = channel();
        let (also, all) = channel();
        workers.announce(told);
        let replayed = std::thread::scope(|scope| {
            let (first, second) = channel();
            scope.spawn(move || {
                for id in ids {
                    also.send(id).unwrap();
                    // A test that has seen enough listens no more.
                    let _ = first.send(id);
                }
            });
            scope.spawn(move || meanwhile(second));
            let stop = Stop::new();
            let done = drive::run(scenario, &mut *policy, &layout, &mut workers, None, &stop);
            drop(workers);
            done.unwrap()
        });
        for (worker, id) in all {
            let left = PathBuf::from(format!("/proc/{id}")).exists();
            assert!(!left, "{}: worker {worker} is left behind as process {id}", self.policy);
        }
        replayed
    }

    /// Replays, and sends `signal` to the first process of `worker` in the midst of it.
    fn signalled(&self, worker: u32, signal: &str) -> Replayed {
        self.replayed(|started| {
            let id = started.iter().find(|(w, _)| *w == worker).unwrap().1;
            std::thread::sleep(Duration::from_millis(400));
            let told = Command::new("kill").arg(format!("-{signal}")).arg(id.to_string()).status();
            assert!(told.unwrap().success());
        })
    }
}

fn accounted(report: &Report) {
    for t in &report.tenants {
        let (c, flying) = (&t.counts, t.in_flight);
        assert_eq!(c.offered, c.completed + c.dropped_total() + flying);
    }
}

/// A worker of tenant 0 was lost for that reason, and tenant 1 did not notice.
fn only_the_first_lost(play: &Play<'_>, replayed: &Replayed, cause: &str) {
    let [loss] = &replayed.losses[..] else { panic!("{:?}", replayed.losses) };
    assert_eq!((loss.tenant, loss.worker, loss.cause), (0, 0, cause), "{loss:?}");
    accounted(&replayed.report);
    let simulated = play.simulated();
    let [mine, other] = [0, 1].map(|t| &replayed.report.tenants[t].counts);
    assert!(mine.dropped_total() > 0);
    assert!(mine.completed < simulated.tenants[0].counts.completed);
    // On a busy machine some may still be in flight at the end.
    let expected = simulated.tenants[1].counts.completed;
    assert!(other.completed > expected / 2 && other.dropped_total() == 0, "{other:?}");
}

#[test]
fn policies_deliver_with_processes_what_they_do_in_virtual_time() {
    std::thread::scope(|scope| {
        for info in ALL {
            let mut policy = (info.build)(&Options::default()).unwrap();
            let setup = scenario(Nanos(1)).setup;
            // A bound is not a layout for processes, and one process needs none.
            let layout = policy.layout(&setup).unwrap();
            if !info.is_bound() && needs_processes(policy.depth(), &layout) {
                scope.spawn(|| as_simulated(Play::new(info.name)));
            }
        }
    });
}

/// What the driver and the way to the device add to a request: nine in ten see less.
fn late_ms(replayed: &Replayed) -> f64 {
    let p90 = |l: &Latencies| l.quantile(0.9).map_or(0.0, |l| l.as_millis_f64());
    let on_the_way = replayed.report.counter("late_at_device_p90_ms").unwrap();
    p90(&replayed.lateness.arrivals) + on_the_way + p90(&replayed.lateness.completions)
}

/// Throughput within 5 %, median within 10 %, unless the driver says that it was late itself.
fn as_simulated(mut play: Play<'_>) {
    let simulated = play.simulated();
    for last in [false, false, true] {
        let replayed = play.replayed(drop);
        assert_eq!(replayed.losses, []);
        accounted(&replayed.report);
        let late = late_ms(&replayed);
        let (mut good, mut excused) = (true, true);
        for (t, (s, m)) in simulated.tenants.iter().zip(&replayed.report.tenants).enumerate() {
            let (s, m) = (&s.counts, &m.counts);
            let median = |c: &Counts| c.latencies.quantile(0.5).map_or(0.0, |l| l.as_millis_f64());
            let (simulated, measured) = (median(s), median(m));
            eprintln!(
                "{:12} {:8} completed {} {}, p50 {simulated:.3} {measured:.3} ms, {late:.3} ms late, \
                 slowdown {}",
                play.policy, TENANTS[t].0, s.completed, m.completed, play.slowdown
            );
            let few = m.completed.abs_diff(s.completed);
            good &= few <= 1 || few as f64 <= 0.05 * s.completed as f64;
            good &= (measured - simulated).abs() <= 0.10 * simulated;
            // Who is told late starts the next batch late, and the one behind it waits for both.
            excused &= (measured - simulated).abs() <= (0.10 * simulated).max(4.0 * late);
        }
        if good {
            return;
        }
        assert!(excused, "{}: more than the driver's lateness explains", play.policy);
        if last {
            eprintln!("{}: the machine is too busy to tell", play.policy);
        }
        play.slowdown *= 2.0;
    }
}

#[test]
fn a_killed_worker_fails_its_tenant_alone() {
    let play = Play { length: Nanos::from_millis(200), ..Play::new("mps-percent") };
    let replayed = play.signalled(0, "KILL");
    only_the_first_lost(&play, &replayed, "worker-killed");
    assert!(replayed.losses[0].why.contains("signal: 9"), "{:?}", replayed.losses);
}

#[test]
fn a_worker_that_stands_still_is_noticed_and_ended() {
    let play = Play { length: Nanos::from_millis(200), ..Play::new("mps-percent") };
    let replayed = play.signalled(0, "STOP");
    only_the_first_lost(&play, &replayed, "worker-hung");
    assert!(replayed.losses[0].why.contains("no sign of life"), "{:?}", replayed.losses);
}

#[test]
fn a_failed_kernel_fails_its_worker_and_what_it_takes_along() {
    let fault = Fault { launch: 200, spreads: false };
    let play = Play { fault: Some(fault), ..Play::new("mps-percent") };
    let replayed = play.replayed(drop);
    accounted(&replayed.report);
    let causes = |r: &Replayed| r.losses.iter().map(|l| l.cause).collect::<Vec<_>>();
    assert_eq!(causes(&replayed), ["kernel-failed"]);
    let fault = Fault { spreads: true, ..fault };
    let play = Play { fault: Some(fault), ..play };
    let replayed = play.replayed(drop);
    accounted(&replayed.report);
    let mut both = causes(&replayed);
    both.sort_unstable();
    assert_eq!(both, ["kernel-failed", "neighbour-failed"]);
    let dropped: u64 = replayed.report.tenants.iter().map(|t| t.counts.dropped_total()).sum();
    assert!(dropped > 0);
}

/// Starting a process costs what it does, and no more than a run has time for.
fn quick_starts(setup: &mut Setup) {
    setup.costs.process_start.cost = Nanos::from_millis(5);
    setup.costs.process_start.delay = Nanos(0);
    setup.tenants.iter_mut().for_each(|t| t.model.load = Nanos::from_millis(10));
}

#[test]
fn gslice_switches_to_a_shadow_process_under_another_share() {
    let options = [("window", Value::Duration(Nanos::from_millis(40)))];
    let options = Options(options.map(|(n, v)| (n.to_owned(), v)).to_vec());
    let play = Play {
        options,
        length: Nanos::from_millis(250),
        edit: quick_starts,
        ..Play::new("gslice")
    };
    let simulated = play.simulated();
    let resized = |r: &Report| r.tenants.iter().map(|t| t.counts.reconfigurations).sum::<u64>();
    assert!(resized(&simulated) > 0, "the scenario makes it resize");
    let (told, started) = channel();
    let replayed = play.replayed(move |ids| ids.into_iter().for_each(|id| told.send(id).unwrap()));
    assert_eq!(replayed.losses, []);
    accounted(&replayed.report);
    assert!(resized(&replayed.report) > 0);
    // The first two, and one for every resize at least.
    assert!(started.iter().count() as u64 >= 2 + resized(&replayed.report));
}

#[test]
fn dnnscaler_starts_instances_as_processes() {
    let options = [
        ("approach", Value::Text("multi-tenancy".to_owned())),
        ("max_instances", Value::Integer(3)),
        ("probe", Value::Duration(Nanos::from_millis(15))),
        ("tick", Value::Duration(Nanos::from_millis(15))),
    ];
    let options = Options(options.map(|(n, v)| (n.to_owned(), v)).to_vec());
    let play = Play { options, edit: quick_starts, ..Play::new("dnnscaler") };
    let play = Play { length: Nanos::from_millis(150), ..play };
    let count = |r: &Report, name: &str| r.counter(name).unwrap_or(0.0);
    let replayed = play.replayed(drop);
    assert_eq!(replayed.losses, []);
    accounted(&replayed.report);
    let started = count(&replayed.report, "instances started");
    assert!(started >= 2.0, "{:?}", replayed.report.counters);
    assert_eq!(count(&replayed.report, "processes_started"), 2.0 + started);
}

#[test]
fn what_does_not_fit_is_refused_before_a_process_starts() {
    let scenario = scenario(Nanos::from_millis(1));
    let setup = Arc::clone(&scenario.setup);
    let mut policy = (find("temporal").unwrap().build)(&Options::default()).unwrap();
    let mut layout = policy.layout(&setup).unwrap();
    layout.pools[0].memory = Bytes(1 << 20);
    let pools = &layout.pools;
    let device =
        EmulatedDevice::for_scenario(&setup, pools, scenario.contention, Clock::start(1.0));
    let ground = Ground::emulated(device).unwrap();
    let launcher = Launcher { program: "/nonexistent".into(), arguments: vec![] };
    let mut workers = Processes::new(setup, ground, launcher, Patience::default());
    let stop = Stop::new();
    let refused = drive::run(scenario, &mut *policy, &layout, &mut workers, None, &stop);
    assert!(refused.unwrap_err().to_string().contains("memory"));
}

/// Panics when a batch ends.
struct Panics;

impl Observer for Panics {
    fn happened(&mut self, _: Nanos, what: Happening) {
        assert!(!matches!(what, Happening::BatchEnded { .. }), "a panic in the midst of a run");
    }
}

#[test]
fn a_panic_leaves_no_process_behind() {
    let play = Play::new("temporal");
    let (mut policy, layout, mut workers, scenario) = play.cast();
    let (told, ids) = channel();
    workers.announce(told);
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || {
        let mut observer = Panics;
        let stop = Stop::new();
        let observer: Option<&mut dyn Observer> = Some(&mut observer);
        drive::run(scenario, &mut *policy, &layout, &mut workers, observer, &stop).is_ok()
    }));
    assert!(panicked.is_err());
    let ids: Vec<_> = ids.into_iter().collect();
    assert_eq!(ids.len(), 2);
    for (_, id) in ids {
        assert!(!PathBuf::from(format!("/proc/{id}")).exists());
    }
}
