//! D-STACK end to end: knees, batches, and a session followed by hand.

use crate::common::{World, at, build, closed, device, kernel, model, program, tenant, watch};
use cotenant_profiles::{Bytes, Nanos};
use cotenant_sim::Refusal;
use cotenant_sim::observe::Happening;
use cotenant_sim::policy::{Options, Value};
use cotenant_sim::program::Code;

const MS: u64 = 1_000_000;

/// Three models of one kernel each that stop gaining at 40, 50 and 60 of 100 CUs, where they take
/// 10, 20 and 40 ms; SLOs of 25, 50 and 100 ms. (E² S is smallest where they stop gaining.)
fn three() -> World {
    let knees = [(40, 10), (50, 20), (60, 40)];
    let kernels = knees
        .map(|(knee, ms)| kernel(100, move |c| ms * MS * u64::from(knee) / u64::from(c.min(knee))));
    let mut world = World::new(device(&[100]), kernels.to_vec());
    for (i, slo) in [25, 50, 100].into_iter().enumerate() {
        let model = model(vec![program(&world.code, &[i as u32], 0)]);
        let mut tenant = tenant(&format!("t{i}"), model);
        tenant.slo = Some(Nanos::from_millis(slo));
        world.tenants.push(tenant);
    }
    world.duration = Nanos::from_millis(100);
    world
}

/// `(ms, tenant, CUs)` of every kernel's start.
fn starts(world: &World, clients: u32, options: &[(&str, Value)]) -> Vec<(u64, u32, u32)> {
    let mut policy = build("dstack", options);
    let loads = world.tenants.iter().map(|_| closed(clients)).collect();
    let layout = policy.layout(&world.scenario(vec![]).setup).unwrap();
    let mut policy = build("dstack", options);
    let (_, log) = watch(world.scenario(loads), policy.as_mut());
    log.iter()
        .filter_map(|&(now, what)| match what {
            Happening::Granted { worker, cus, .. } => {
                Some((now / MS, layout.workers[worker as usize].tenant, cus))
            }
            _ => None,
        })
        .collect()
}

#[test]
fn the_plan_of_a_session_by_hand() {
    // See `plan.rs` for how it comes about.
    let expected =
        [(0, 0, 40), (0, 1, 50), (20, 2, 60), (25, 0, 40), (50, 0, 40), (60, 1, 50), (75, 0, 40)];
    assert_eq!(starts(&three(), 2, &[("gaps", Value::Bool(false))]), expected);
}

#[test]
fn the_gaps_of_a_session_by_hand() {
    // At 10, half of the GPU idles until 20: only model 0 fits. At 20 nothing fits between model 2
    // and the run planned for 25. At 35 model 0 again, beside model 2. At 60 models 0 and 2 are
    // done: model 1 is due, and model 0 fits beside it until 75. At 70 model 0 would fit at a
    // quarter of its knee only, and be late. At 80 models 1 and 2 have both had 40 ms of the GPU,
    // model 0 60: model 1 goes first. At 85, while that runs, models 1 and 2 still come before
    // model 0: the other request of model 1, of 80, is over by 125 at half of its knee, before
    // 130; that of model 2, of 0, is late whatever it gets, and takes what is left.
    let expected = [
        (0, 0, 40),
        (0, 1, 50),
        (10, 0, 40),
        (20, 2, 60),
        (25, 0, 40),
        (35, 0, 40),
        (50, 0, 40),
        (60, 1, 50),
        (60, 0, 40),
        (75, 0, 40),
        (80, 1, 50),
        (85, 1, 25),
        (85, 2, 15),
    ];
    assert_eq!(starts(&three(), 2, &[]), expected);
}

#[test]
fn the_batch_of_the_best_efficacy() {
    // 6 ms + 1 ms per item, on any CUs: b / (6 + b)² is largest at 6.
    let at = |items: u64| kernel(80, move |_| (6 + items) * MS);
    let code = Code::of((1..=16).map(at).collect());
    let programs: Vec<_> = (0..16).map(|k| program(&code, &[k], 0)).collect();
    // `burst` requests at once every `gap`.
    let largest = |slo: u64, options: &[(&str, Value)], burst: u64, gap: u64| {
        let mut world = World::new(device(&[80]), code.kernels.clone());
        world.tenants = vec![tenant("t", model(programs.clone()))];
        world.tenants[0].slo = Some(Nanos::from_millis(slo));
        world.duration = Nanos::from_secs(5);
        let arrivals = (0..5_000 * MS / gap * burst).map(|i| i / burst * gap).collect();
        let mut policy = build("dstack", options);
        let (_, log) = watch(world.scenario(vec![self::at(arrivals)]), policy.as_mut());
        log.iter()
            .filter(|(now, _)| *now > 3_000 * MS)
            .filter_map(|&(_, what)| match what {
                Happening::BatchBegan { items, .. } => Some(items),
                _ => None,
            })
            .max()
            .unwrap()
    };
    let word = |w: &str| [("batch", Value::Text(w.to_owned()))];
    // Far more requests than it can serve.
    assert_eq!(largest(100, &[], 1, MS / 10), 6);
    assert_eq!(largest(100, &word("largest"), 1, MS / 10), 16);
    // Done within half of the SLO: 6 + b ≤ 10.
    assert_eq!(largest(20, &[], 1, MS / 10), 4);
    // 10 every 140 ms, of 35 sessions of 80 ms: at that rate it takes 70 ms to assemble 6, and
    // their 12 ms make that 82; 5 are ready after 56 + 11.
    let sessions = [("scoreboard", Value::Integer(35))];
    assert_eq!(largest(80, &sessions, 10, 140 * MS), 5);
}

#[test]
fn whoever_cannot_meet_its_slo_is_served_all_the_same() {
    let mut world = three();
    for tenant in &mut world.tenants {
        tenant.slo = Some(Nanos::from_millis(3));
    }
    world.tenants[2].slo = None;
    world.duration = Nanos::from_secs(2);
    let mut policy = build("dstack", &[]);
    let (report, _) = watch(world.scenario(vec![closed(3), closed(3), closed(3)]), policy.as_mut());
    for t in &report.tenants {
        assert!(t.counts.completed > 5, "{:?}", t.counts.completed);
    }
}

#[test]
fn contexts_need_their_memory() {
    let mut world = three();
    world.tenants[0].model.weights = Bytes(400);
    world.device.memory.capacity = Bytes(1000);
    let mut policy = build("dstack", &[]);
    let loads = || vec![closed(1), closed(1), closed(1)];
    let refusal = cotenant_sim::run(world.scenario(loads()), policy.as_mut(), None);
    assert!(matches!(refusal, Err(Refusal::OutOfMemory { .. })), "three contexts of 400 in 1000");
    let mut policy = build("dstack", &[("contexts", Value::Integer(2))]);
    assert!(cotenant_sim::run(world.scenario(loads()), policy.as_mut(), None).is_ok());
}

#[test]
fn bad_options_are_refused() {
    let info = cotenant_sim::policy::find("dstack").unwrap();
    let message = |name: &str, value| {
        let options = Options(vec![(name.to_owned(), value)]);
        (info.build)(&options).err().unwrap().to_string()
    };
    let why = "option `session`: `0ns` is not a duration of at least \"1us\"";
    assert_eq!(message("session", Value::Duration(Nanos::ZERO)), why);
    let why = "option `knee`: a percentage is above 0 and at most 100";
    assert_eq!(message("knee", Value::Numbers(vec![50.0, 0.0])), why);
}
