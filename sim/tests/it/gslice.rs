//! GSLICE end to end: what a resize costs, and both loops followed window by window.

use crate::common::{
    World, at, build, closed, completions, device, kernel, model, program, tenant, watch,
};
use cotenant_profiles::{Bytes, Nanos};
use cotenant_sim::observe::Happening;
use cotenant_sim::policy::{Options, Value};
use cotenant_sim::program::Code;
use cotenant_sim::scenario::Tenant;
use cotenant_sim::{Refusal, Report};

const MS: u64 = 1_000_000;
const SECOND: u64 = 1_000_000_000;

fn word(text: &str) -> Value {
    Value::Text(text.to_owned())
}

fn schedule(entries: &[&str]) -> Value {
    Value::Texts(entries.iter().map(|e| (*e).to_owned()).collect())
}

/// One saturated tenant on 80 CUs whose only kernel takes `800 ms / CUs`.
fn saturated() -> World {
    let mut world = World::new(device(&[80]), vec![kernel(80, |c| 800 * MS / u64::from(c))]);
    let model = model(vec![program(&world.code, &[0], 0)]);
    world.tenants = vec![tenant("t", model)];
    world.duration = Nanos::from_secs(30);
    world
}

fn resized(world: &World, how: &str, options: &[(&str, Value)]) -> (Report, Vec<u64>) {
    let mut given = vec![("schedule", schedule(&["0s:30", "10s:60", "20s:80"]))];
    given.push(("resize", word(how)));
    given.extend(options.iter().cloned());
    let mut policy = build("gslice", &given);
    let (report, log) = watch(world.scenario(vec![closed(4)]), policy.as_mut());
    (report, completions(&log).into_iter().map(|(when, _, _)| when).collect())
}

fn per_second(done: &[u64], from_s: u64, to_s: u64) -> f64 {
    let n = done.iter().filter(|&&t| (from_s * SECOND..to_s * SECOND).contains(&t)).count();
    n as f64 / (to_s - from_s) as f64
}

/// The longest time without a completion after the first one.
fn longest_gap(done: &[u64]) -> u64 {
    done.windows(2).map(|w| w[1] - w[0]).max().expect("several completions")
}

#[test]
fn a_restart_leaves_a_hole_of_start_and_load() {
    let mut world = saturated();
    world.tenants[0].model.load = Nanos::from_secs(1);
    let (report, done) = resized(&world, "restart", &[]);
    // 24, 48 and 64 CUs: 33.3, 16.7 and 12.5 ms.
    assert!((per_second(&done, 0, 10) - 30.0).abs() < 1.0);
    assert!((per_second(&done, 15, 20) - 60.0).abs() < 1.0);
    assert!((per_second(&done, 25, 30) - 80.0).abs() < 1.0);
    // Twice 3 s of process start and 1 s of load.
    let counts = &report.tenants[0].counts;
    assert_eq!((counts.reconfigurations, counts.downtime_ns), (2, 8 * SECOND));
    let gap = longest_gap(&done);
    assert!((4 * SECOND..4 * SECOND + 40 * MS).contains(&gap), "{gap}");
}

#[test]
fn a_shadow_hides_all_but_the_switch() {
    let mut world = saturated();
    world.tenants[0].model.load = Nanos::from_secs(1);
    let (report, done) = resized(&world, "shadow", &[]);
    let counts = &report.tenants[0].counts;
    assert_eq!((counts.reconfigurations, counts.downtime_ns), (2, 2 * 100_000));
    // The new share takes effect when the shadow has loaded, 4 s after the decision.
    assert!((per_second(&done, 10, 14) - 30.0).abs() < 1.0);
    assert!((per_second(&done, 15, 24) - 60.0).abs() < 1.0);
    assert!((per_second(&done, 25, 30) - 80.0).abs() < 1.0);
    assert!(longest_gap(&done) <= 34 * MS, "one service time at 24 CUs");
}

#[test]
fn an_ideal_resize_is_immediate_and_free() {
    let mut world = saturated();
    world.costs = world.costs.ideal();
    for how in ["restart", "shadow"] {
        let (report, done) = resized(&world, how, &[]);
        assert_eq!(report.tenants[0].counts.downtime_ns, 0);
        assert!((per_second(&done, 10, 20) - 60.0).abs() < 1.0, "{how}");
    }
}

#[test]
fn only_downtime_within_the_window_counts() {
    let mut world = saturated();
    // The first restart takes 10 to 13 s, the second 20 to 23 s, give or take the last batch.
    world.warmup = Nanos::from_secs(12);
    world.duration = Nanos::from_secs(9);
    let (report, _) = resized(&world, "restart", &[]);
    let counts = &report.tenants[0].counts;
    let about = |ns: u64, s: u64| ns.abs_diff(s * SECOND) <= 34 * MS;
    assert!(about(counts.downtime_ns, 2), "{} ns", counts.downtime_ns);
    assert_eq!(counts.reconfigurations, 1, "the second one is not over");
    // Down when the window opens and still down when it closes.
    world.duration = Nanos(SECOND / 2);
    let (report, _) = resized(&world, "restart", &[]);
    let counts = &report.tenants[0].counts;
    assert_eq!((counts.downtime_ns, counts.reconfigurations), (SECOND / 2, 0));
}

#[test]
fn a_shadow_needs_room_for_the_model_twice_or_its_weights_shared() {
    let mut world = saturated();
    world.tenants[0].model.weights = Bytes(600);
    world.tenants[0].model.activations_per_item = Bytes(10);
    world.device.memory.capacity = Bytes(700);
    let (report, done) = resized(&world, "shadow", &[]);
    assert_eq!(report.tenants[0].counts.reconfigurations, 0);
    assert_eq!(report.counter("resizes refused"), Some(2.0));
    assert!((per_second(&done, 25, 30) - 30.0).abs() < 1.0, "it stays as it is");
    let (report, done) = resized(&world, "shadow", &[("shared_weights", Value::Bool(true))]);
    assert_eq!(report.counter("resizes refused"), Some(0.0));
    assert!((per_second(&done, 25, 30) - 80.0).abs() < 1.0);
    // The shadow's memory is given back: 620 of 700 twice in a row.
    assert_eq!(report.tenants[0].counts.reconfigurations, 2);
}

/// One tenant at 100 requests/s whose execution time is given by the CUs it has; SLO 20 ms, half of
/// which is for execution.
fn loops(code: Code, tenants: Vec<Tenant>) -> World {
    let mut world = World::new(device(&[80]), code.kernels);
    world.costs = world.costs.ideal();
    world.tenants = tenants;
    world.duration = Nanos::from_secs(8);
    for tenant in &mut world.tenants {
        tenant.slo = Some(Nanos::from_millis(20));
    }
    world
}

/// Off the windows' edges, so that each window holds the same number.
fn every(gap_ns: u64, until_s: u64) -> cotenant_sim::Load {
    at((0..until_s * SECOND / gap_ns).map(|i| i * gap_ns + 123_456).collect())
}

/// CU grants of a worker, each once in a row.
fn shares(log: &[(u64, Happening)], of: u32) -> Vec<u32> {
    let mut grants: Vec<u32> = log
        .iter()
        .filter_map(|&(_, what)| match what {
            Happening::Granted { worker, cus, .. } if worker == of => Some(cus),
            _ => None,
        })
        .collect();
    grants.dedup();
    grants
}

/// One tenant, at most 500 ms on few CUs and 8 ms on many.
fn steps() -> World {
    let us = |c: u32| match c {
        0..24 => 500_000,
        24..40 => 25_000,
        40..45 => 9_500,
        45..60 => 9_000,
        _ => 8_000,
    };
    let code = Code::of(vec![kernel(80, |c| 1_000 * us(c))]);
    let tenants = vec![tenant("t", model(vec![program(&code, &[0], 0)]))];
    loops(code, tenants)
}

#[test]
fn the_igniter_loop_by_hand() {
    let world = steps();
    let options =
        [("window", Value::Duration(Nanos::from_secs(1))), ("batch_rounds", Value::Integer(0))];
    let mut policy = build("gslice", &options);
    let (report, log) = watch(world.scenario(vec![every(10 * MS, 8)]), policy.as_mut());
    // 30 % (24 CUs): L 25 ms, X 40/s against 10 ms and 100/s. 15/25 and 60/40: 30·2.5 = 75 %.
    // 75 % (60): L 8, X 125. 2/8 and 25/125: 75·0.75 = 56.25 %.
    // 56.25 % (45): L 9, X 111.1. 1/9 and 0.1: 56.25·8/9 = 50 %.
    // 50 % (40): L 9.5, X 105.3: 5 % and 5.3 %, inside the band: it stays.
    assert_eq!(shares(&log, 0), [24, 60, 45, 40]);
    assert_eq!(report.counter("resizes asked for"), Some(3.0));
}

#[test]
fn the_glet_loop_by_hand() {
    let world = steps();
    let options = [
        ("variant", word("glet")),
        ("window", Value::Duration(Nanos::from_secs(1))),
        ("batch_rounds", Value::Integer(0)),
    ];
    let mut policy = build("gslice", &options);
    let (report, log) = watch(world.scenario(vec![every(10 * MS, 8)]), policy.as_mut());
    // 30 % (24 CUs): L 25 ms, X 40/s against 10 ms and 100/s. 15/10 and 60/100: 30 + 45 = 75 %, and
    // the divider rounds up to 80.
    // 80 % (64): L 8, X 125. 2/10 and 25/100: 80 - 20 = 60 %.
    // 60 % (48): L 9, X 111.1. 0.1 and 0.111: 60 - int(6.7) = 54 %, rounded up to 60: it stays.
    assert_eq!(shares(&log, 0), [24, 64, 48]);
    assert_eq!(report.counter("resizes asked for"), Some(2.0));
}

#[test]
fn light_load_takes_the_share_away_at_once() {
    // 5 ms on 24 CUs, 61 ms on fewer: half the target, and 100/s against 50/s.
    let code = Code::of(vec![kernel(80, |c| if c < 24 { 61 * MS } else { 5 * MS })]);
    let tenants = vec![tenant("t", model(vec![program(&code, &[0], 0)]))];
    let world = loops(code, tenants);
    let bounded = |max_step: f64| {
        let options = [
            ("window", Value::Duration(Nanos::from_secs(1))),
            ("batch_rounds", Value::Integer(0)),
            ("max_step", Value::Float(max_step)),
        ];
        let mut policy = build("gslice", &options);
        shares(&watch(world.scenario(vec![every(20 * MS, 8)]), policy.as_mut()).1, 0)
    };
    // (X - λ)/X = 0.75 and (10 - 5)/5 = 1: 30 - 30 = 0, clamped to 1 %, one CU. There L 61 ms and
    // X 16.4/s: (50 - X)/X = 2.05 triples it: 3.05 %, 2 CUs; 9.3 %, 7; 28.4 %, 22.
    assert_eq!(bounded(f64::INFINITY)[..5], [24, 1, 2, 7, 22]);
    // A step of at most a quarter: 22.5 %, 18 CUs, too few; 28.1 %, 22 CUs; 35 %, 28 CUs.
    assert_eq!(bounded(0.25)[..4], [24, 18, 22, 28]);
}

#[test]
fn batches_settle_before_the_share_moves() {
    // 1 ms + 1.1 ms per item on 24 CUs; faster on more.
    let at = |items: u64| kernel(80, move |c| (1_000_000 + 1_100_000 * items) * 24 / u64::from(c));
    let code = Code::of((1..=16).map(at).collect());
    let programs = (0..16).map(|k| program(&code, &[k], 0)).collect();
    let world = loops(code.clone(), vec![tenant("t", model(programs))]);
    let options = [("window", Value::Duration(Nanos::from_secs(1)))];
    let mut policy = build("gslice", &options);
    // Overloaded, so that batches are full.
    let (_, log) = watch(world.scenario(vec![every(MS / 2, 8)]), policy.as_mut());
    let mut batches: Vec<(u64, u32)> = log
        .iter()
        .filter_map(|&(now, what)| match what {
            Happening::BatchBegan { items, .. } => Some((now, items)),
            _ => None,
        })
        .collect();
    batches.dedup_by_key(|b| b.1);
    // Target 10 ms. 1: L 2.1, 1·10/2.1 = 4.8, up to 5. 5: L 6.5, 5·10/6.5 = 7.7, up to 8.
    // 8: L 9.8, inside the band.
    assert_eq!(batches.iter().take(3).map(|b| b.1).collect::<Vec<_>>(), [1, 5, 8]);
    let seconds: Vec<u64> = batches.iter().take(3).map(|b| b.0 / SECOND).collect();
    assert_eq!(seconds, [0, 1, 2]);
    // Third window: nothing changes. Fourth: the resize is decided from it. X 8/9.8 ms = 816/s
    // against 2000/s: 30·2.45 = 73.5 %, 58 CUs.
    let first_grant_of = |cus: u32| {
        let is = |what: &Happening| matches!(*what, Happening::Granted { cus: c, .. } if c == cus);
        log.iter().find(|(_, what)| is(what)).map(|(now, _)| now / MS)
    };
    assert_eq!(shares(&log, 0)[..2], [24, 58]);
    let moved = first_grant_of(58).unwrap();
    assert!((4_000..4_011).contains(&moved), "{moved} ms: at the first batch boundary after 4 s");
}

#[test]
fn glet_divides_the_gpu_max_min() {
    // Both far too slow whatever they get.
    let code = Code::of(vec![kernel(80, |c| 8_000 * MS / u64::from(c))]);
    let both = || model(vec![program(&code, &[0], 0)]);
    let world = loops(code.clone(), vec![tenant("a", both()), tenant("b", both())]);
    let options = [
        ("variant", word("glet")),
        ("window", Value::Duration(Nanos::from_secs(1))),
        ("batch_rounds", Value::Integer(0)),
        ("sum", word("max-min")),
    ];
    let loads = || vec![every(10 * MS, 8), every(20 * MS, 8)];
    let mut policy = build("gslice", &options);
    let (_, log) = watch(world.scenario(loads()), policy.as_mut());
    // L 333 ms against 10: a step of 32 times the share; 990 % each, 50 % each granted.
    assert_eq!(shares(&log, 0), [24, 40]);
    assert_eq!(shares(&log, 1), [24, 40]);
    // Without the divider both go to 100 % and compete for the leftovers.
    let mut options = options;
    options[3].1 = word("none");
    let mut policy = build("gslice", &options);
    let (_, log) = watch(world.scenario(loads()), policy.as_mut());
    assert!(shares(&log, 0).contains(&80) && shares(&log, 1).contains(&80));
}

#[test]
fn a_tenant_without_an_slo_keeps_its_share() {
    let mut world = saturated();
    world.costs = world.costs.ideal();
    let options = [("window", Value::Duration(Nanos::from_secs(1)))];
    let mut policy = build("gslice", &options);
    let (report, log) = watch(world.scenario(vec![closed(4)]), policy.as_mut());
    assert_eq!(shares(&log, 0), [24]);
    assert_eq!(report.counter("resizes asked for"), Some(0.0));
}

#[test]
fn bad_options_are_refused() {
    let info = cotenant_sim::policy::find("gslice").unwrap();
    let options = Options(vec![("window".to_owned(), Value::Duration(Nanos::ZERO))]);
    let error = (info.build)(&options).err().unwrap();
    assert_eq!(error.to_string(), "option `window`: `0ns` is not a duration of at least \"1us\"");
    let mut policy = build("gslice", &[("schedule", schedule(&["vison@20s:60"]))]);
    let refusal = cotenant_sim::run(saturated().scenario(vec![closed(1)]), policy.as_mut(), None);
    let Err(Refusal::Layout(why)) = refusal else { panic!("a schedule for nobody runs") };
    assert_eq!(why.to_string(), "`schedule` names `vison`, which is not a tenant");
}
