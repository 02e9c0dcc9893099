//! Policies that schedule requests, by hand: `serve`, `overlap`, `hami`; and requests that gather, are
//! dropped, or pile up, whoever schedules them.

use crate::common::{
    World, at, build, closed, completions, device, model, poisson, program, run, tenant, watch,
    waves,
};
use cotenant_profiles::{Device, Nanos};
use cotenant_sim::observe::Happening;
use cotenant_sim::policy::{ALL, Value};
use cotenant_sim::scenario::{DropAfter, Load, Think};
use cotenant_sim::{Class, Report, Scenario};

/// Four CUs; kernels of 1 µs and of 3 µs on all of them, and one of 1 µs on one.
fn world(sequences: &[(&str, &[u32])]) -> World {
    let kernels = vec![waves(4, 4, 1_000), waves(4, 4, 3_000), waves(4, 1, 1_000)];
    let mut world = World::new(device(&[4]), kernels);
    for (name, sequence) in sequences {
        let programs = (0..4).map(|_| program(&world.code, sequence, 0)).collect();
        let mut one = tenant(name, model(programs));
        one.batch_max = 1;
        world.tenants.push(one);
    }
    world
}

fn word(name: &'static str, word: &str) -> (&'static str, Value) {
    (name, Value::Text(word.to_owned()))
}

/// When batches began, and whose they were: workers are numbered as tenants.
fn began(scenario: Scenario, name: &str, options: &[(&str, Value)]) -> Vec<(u64, u32)> {
    let log = watch(scenario, build(name, options).as_mut()).1;
    let began = |(at, what)| match what {
        Happening::BatchBegan { worker, .. } => Some((at, worker)),
        _ => None,
    };
    log.into_iter().filter_map(began).collect()
}

#[test]
fn one_executor_takes_batches_in_order() {
    let mut world = world(&[("a", &[1]), ("b", &[0]), ("c", &[1])]);
    for (t, slo) in world.tenants.iter_mut().zip([5_000, 100_000, 50_000]) {
        t.slo = Some(Nanos(slo));
    }
    world.tenants[2].class = Class::BestEffort;
    let loads = || vec![at(vec![0, 102]), at(vec![101]), at(vec![100])];
    let order = |order: &str| {
        began(world.scenario(loads()), "serve", &[word("order", order)])
            .into_iter()
            .map(|(_, worker)| worker)
            .collect::<Vec<_>>()
    };
    assert_eq!(order("fcfs"), [0, 2, 1, 0]);
    assert_eq!(order("sjf"), [0, 1, 2, 0], "of equal ones the first to come");
    assert_eq!(order("edf"), [0, 0, 2, 1]);
    assert_eq!(order("priority"), [0, 1, 0, 2], "best effort last");
    let done = began(world.scenario(loads()), "serve", &[]);
    assert_eq!(done, [(0, 0), (3_000, 2), (6_000, 1), (7_000, 0)], "one at a time");
    let decision = ("decision", Value::Duration(Nanos(500)));
    let done = began(world.scenario(loads()), "serve", &[decision]);
    assert_eq!(done, [(500, 0), (4_000, 2), (7_500, 1), (9_000, 0)]);
}

#[test]
fn ties_go_by_name() {
    let world = world(&[("z", &[0]), ("m", &[0]), ("a", &[0])]);
    let loads = || vec![at(vec![5]), at(vec![5]), at(vec![5])];
    for order in ["fcfs", "sjf", "edf", "priority"] {
        let workers = began(world.scenario(loads()), "serve", &[word("order", order)]);
        assert_eq!(workers, [(5, 2), (1_005, 1), (2_005, 0)], "{order}");
    }
    let groups = began(world.scenario(loads()), "overlap", &[("queries", Value::Integer(1))]);
    assert_eq!(groups.len(), 3);
}

#[test]
fn an_executor_waits_for_a_batch_to_fill_while_it_has_nothing_else() {
    let mut world = world(&[("a", &[1]), ("b", &[0])]);
    (world.tenants[0].batch_max, world.tenants[0].batch_timeout) = (4, Nanos(2_000));
    let loads = vec![at(vec![0, 1_500]), at(vec![100])];
    assert_eq!(began(world.scenario(loads), "serve", &[]), [(100, 1), (2_000, 0)]);
    // Full before its time is over.
    let loads = vec![at(vec![0, 10, 20, 30]), at(vec![])];
    assert_eq!(began(world.scenario(loads), "serve", &[]), [(30, 0)]);
}

#[test]
fn tickets_decide_how_often_a_tenant_wins() {
    let world = world(&[("a", &[0]), ("b", &[0])]);
    let share = |options: &[(&'static str, Value)]| {
        let mut given = vec![word("order", "lottery")];
        given.extend_from_slice(options);
        let report = run(world.scenario(vec![closed(3), closed(1)]), "serve", &given);
        let [a, b] = [0, 1].map(|t| report.tenants[t].counts.completed as f64);
        a / (a + b)
    };
    // 10,000 draws: three standard deviations are 1.5 %.
    assert!((share(&[]) - 0.5).abs() < 0.015);
    assert!((share(&[word("tickets", "requests")]) - 0.75).abs() < 0.015);
    let given = ("tickets", Value::Numbers(vec![10.0, 90.0]));
    assert!((share(&[given]) - 0.1).abs() < 0.015);
}

#[test]
fn operators_run_beside_the_urgent_query_up_to_its_deadline() {
    let narrow: &[u32] = &[2; 10];
    let mut world = world(&[("a", &narrow[..4]), ("b", narrow), ("c", &narrow[..1])]);
    world.tenants[0].slo = Some(Nanos(5_000));
    // The first ends at 4 µs, its deadline is at 5: five operators of the second fit. The third comes
    // meanwhile and waits; then it is beside what is left of the second.
    let loads = || vec![at(vec![0]), at(vec![0]), at(vec![4_500])];
    let one = ("instances", Value::Integer(1));
    let mut policy = build("overlap", &[one.clone(), ("margin", Value::Float(0.0))]);
    let (report, log) = watch(world.scenario(loads()), policy.as_mut());
    let done = |t: u32| completions(&log).into_iter().find(|c| c.1 == t).unwrap().0;
    assert_eq!((done(0), done(1), done(2)), (4_000, 10_000, 6_000));
    let ended = |at: u64| {
        let by = |(when, what): &(u64, Happening)| {
            matches!(what, Happening::KernelEnded { worker: 1, .. }) && *when <= at
        };
        log.iter().filter(|e| by(e)).count()
    };
    assert_eq!((ended(5_000), ended(5_999)), (5, 5));
    let counter = |name: &str| report.counter(name).unwrap();
    assert_eq!(counter("groups"), 2.0);
    assert_eq!(counter("groups of several queries"), 2.0);
    // A fifth added to what is predicted: four fit.
    let margin = ("margin", Value::Float(0.2));
    let (report, _) =
        watch(world.scenario(loads()), build("overlap", &[one.clone(), margin]).as_mut());
    assert_eq!(report.counter("operators beside the most urgent query"), Some(4.0));
    // One query in a group: one after the other.
    let single = ("queries", Value::Integer(1));
    let (_, log) = watch(world.scenario(loads()), build("overlap", &[one, single]).as_mut());
    let ends: Vec<_> = completions(&log).into_iter().map(|c| (c.0, c.1)).collect();
    assert_eq!(ends, [(4_000, 0), (14_000, 1), (15_000, 2)]);
}

/// Saturated containers with kernels of so many µs, whose blocks fill every CU eight times: shares of
/// the time, and the first one's longest time without an answer, ms.
fn limited(cores: Vec<f64>, sharing: &str, kernel_us: u64) -> (Vec<f64>, f64) {
    let device = Device::builtin("a100-sxm-40").unwrap();
    let cus = device.cus();
    let mut world = World::new(device, vec![waves(cus, 8 * cus, 125 * kernel_us)]);
    let n = cores.len();
    for i in 0..n {
        let programs = vec![program(&world.code, &[0], 0)];
        world.tenants.push(tenant(&format!("t{i}"), model(programs)));
    }
    world.costs = world.costs.ideal();
    (world.warmup, world.duration) = (Nanos::from_secs(5), Nanos::from_secs(20));
    let options = [("cores", Value::Numbers(cores)), word("sharing", sharing)];
    let mut policy = build("hami", &options);
    let loads = (0..n).map(|_| closed(1)).collect();
    let (report, log) = watch(world.scenario(loads), policy.as_mut());
    let used = |t: &cotenant_sim::report::TenantReport| {
        (t.counts.completed * kernel_us) as f64 * 1e3 / 20e9
    };
    let mut last = 5_000_000_000;
    let mut gap = 0;
    for (at, ..) in completions(&log).into_iter().filter(|c| c.0 > 5_000_000_000 && c.1 == 0) {
        gap = gap.max(at - last);
        last = at;
    }
    (report.tenants.iter().map(used).collect(), gap as f64 / 1e6)
}

#[test]
fn a_bucket_keeps_the_mean_and_stands_still_in_between() {
    for us in [25, 100, 1_000] {
        let (alone, gap) = limited(vec![25.0], "turns", us);
        eprintln!("25 % alone, kernels of {us} µs: {alone:?}, {gap} ms");
    }
    let (alone, gap) = limited(vec![25.0], "turns", 100);
    assert!((0.15..0.35).contains(&alone[0]), "{alone:?}");
    assert!(gap > 50.0, "{gap}");
    let (unlimited, gap) = limited(vec![100.0], "turns", 100);
    assert!(unlimited[0] > 0.99 && gap < 2.0, "{unlimited:?} {gap}");
    for sharing in ["turns", "mps"] {
        let (both, gap) = limited(vec![20.0, 60.0], sharing, 100);
        eprintln!("20 % and 60 % by {sharing}: {both:?}, {gap} ms");
        assert!(both[0] < both[1], "{both:?}");
    }
}

/// A batch fills with the clients who have been answered together.
#[test]
fn a_closed_loop_fills_its_batches() {
    let mut world = world(&[("a", &[0])]);
    let programs = (0..16).map(|_| program(&world.code, &[0], 0)).collect();
    world.tenants[0] = tenant("a", model(programs));
    let think = || Load::Closed {
        concurrency: 16,
        think: Think::Constant(Nanos(300)),
        items: 1,
        limit: None,
        tokens: None,
    };
    let mean = |report: &Report| report.tenants[0].batch_mean().unwrap();
    for name in ["mps", "temporal", "serve", "krisp"] {
        assert_eq!(mean(&run(world.scenario(vec![closed(16)]), name, &[])), 16.0, "{name}");
        assert_eq!(mean(&run(world.scenario(vec![think()]), name, &[])), 16.0, "{name}");
    }
}

/// Twice what the GPU can serve, for a second.
fn overload(drop_after: Option<DropAfter>, name: &str) -> Report {
    let mut world = world(&[("a", &[0, 0, 0]), ("b", &[1])]);
    for t in &mut world.tenants {
        (t.slo, t.drop_after) = (Some(Nanos(60_000)), drop_after);
    }
    world.duration = Nanos::from_millis(20);
    run(world.scenario(vec![poisson(3_000.0, 1), poisson(3_000.0, 2)]), name, &[])
}

#[test]
fn dropping_what_is_late_saves_goodput_under_overload() {
    let good = |r: &Report| r.tenants.iter().map(|t| t.counts.good).sum::<u64>() as f64;
    for name in ["serve", "mps", "temporal", "overlap"] {
        let kept = overload(None, name);
        let dropped = overload(Some(DropAfter { limit: None, predict: false }), name);
        let predicted = overload(Some(DropAfter { limit: None, predict: true }), name);
        let [k, d, p] = [&kept, &dropped, &predicted].map(good);
        eprintln!("{name}: {k} in time, {d} with dropping, {p} with prediction");
        assert!(d > 5.0 * k && p >= d, "{name}: {k}, {d}, {p}");
        let over = |r: &Report| r.tenants.iter().any(|t| t.overload(r.window).is_some());
        assert!(over(&kept) && !over(&dropped) && !over(&predicted), "{name}");
    }
}

#[test]
fn a_queue_that_grows_without_end_is_cut() {
    let mut world =
        World::new(Device::builtin("a100-sxm-40").unwrap(), vec![waves(108, 108, 1_000)]);
    world.tenants = vec![tenant("a", model(vec![program(&world.code, &[0], 0)]))];
    for info in ALL.iter().filter(|info| !info.is_bound()) {
        let scenario = world.scenario(vec![poisson(100.0, 1)]);
        let mut policy = build(info.name, &[]);
        let report = cotenant_sim::run_within(scenario, policy.as_mut(), None, 5_000).unwrap();
        let at = report.cut.unwrap();
        assert_eq!((report.window, report.tenants[0].in_flight), (at, 5_001), "{}", info.name);
        assert!(at < Nanos::from_micros(700), "{}: {at}", info.name);
    }
}

#[test]
fn a_queue_that_outgrows_the_warm_up_is_cut_with_an_empty_window() {
    let mut world =
        World::new(Device::builtin("a100-sxm-40").unwrap(), vec![waves(108, 108, 1_000)]);
    world.tenants = vec![tenant("a", model(vec![program(&world.code, &[0], 0)]))];
    world.warmup = Nanos::from_micros(700);
    for info in ALL.iter().filter(|info| !info.is_bound()) {
        let scenario = world.scenario(vec![poisson(100.0, 1)]);
        let mut policy = build(info.name, &[]);
        let report = cotenant_sim::run_within(scenario, policy.as_mut(), None, 5_000).unwrap();
        assert!(report.cut.unwrap() < world.warmup, "{}", info.name);
        assert_eq!(report.window, Nanos::ZERO, "{}", info.name);
        assert!(report.gpu.cu_utilization.is_nan(), "{}", info.name);
        let part = report.tenants[0].gpu(&world.device, report.window);
        assert!(part.is_none_or(|part| part.cu_utilization.is_nan()), "{}", info.name);
    }
}
