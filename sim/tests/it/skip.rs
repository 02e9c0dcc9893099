//! Events that cannot matter are skipped: what comes out has the same bits as when each is gone through,
//! under every registered policy, on random scenarios.

use std::sync::Arc;

use crate::common::{
    self, World, at, build, closed, device, model, poisson, program, tenant, waves,
};
use crate::oracle::config;
use crate::oracle_cases::policies::{self, registered};
use crate::oracle_cases::{Shape, scenario, shapes};
use cotenant_profiles::{Bytes, Nanos};
use cotenant_sim::host::Host;
use cotenant_sim::observe::{Happening, Observer};
use cotenant_sim::policy::{Depth, Value};
use cotenant_sim::program::Program;
use cotenant_sim::scenario::{Scenario, Setup};
use cotenant_sim::{Policy, Refusal, Report, VirtualWorld};
use cotenant_traces::Rng;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

/// What happened, and when, ns.
type Told = Vec<(u64, Happening)>;

/// What an observer is told who does not ask for what happens on the GPU.
#[derive(Default)]
struct Requests(Told);

impl Observer for Requests {
    fn happened(&mut self, now: Nanos, what: Happening) {
        self.0.push((now.0, what));
    }

    fn watches_gpu(&self) -> bool {
        false
    }
}

/// Runs a scenario, and says how many events were skipped, if any may be.
pub(crate) fn run(
    scenario: Scenario,
    policy: &mut dyn Policy,
    skip: bool,
) -> Result<(Report, u64), Refusal> {
    told(scenario, policy, skip).map(|(report, skipped, _)| (report, skipped))
}

/// The same with what an observer was told.
fn told(
    scenario: Scenario,
    policy: &mut dyn Policy,
    skip: bool,
) -> Result<(Report, u64, Told), Refusal> {
    let mut told = Requests::default();
    let layout = policy.layout(&scenario.setup)?;
    let Scenario { setup, loads, warmup, duration, contention, jitter } = scenario;
    let (depth, end): (Depth, _) = (policy.depth(), Nanos(warmup.0 + duration.0));
    let world =
        VirtualWorld::new(&setup, &layout, depth, &contention, jitter, Some(&mut told), end);
    let world = if skip { world } else { world.event_by_event() };
    let mut host = Host::new(world, &setup, loads, &layout, policy, (warmup, duration))?;
    host.go();
    let (report, world) = host.finish();
    let skipped = world.skipped();
    drop(world);
    Ok((report, skipped, told.0))
}

/// The scenario of a shape with longer programs, some of which the host holds up, and a warm-up.
fn longer(shape: &Shape) -> Scenario {
    let mut scenario = scenario(shape);
    scenario.jitter = None;
    let mut rng = Rng::for_names(shape.seed, &["longer"]);
    let setup: &mut Setup = Arc::make_mut(&mut scenario.setup);
    for tenant in &mut setup.tenants {
        for program in Arc::make_mut(&mut tenant.model.programs) {
            *program = repeated(program, &setup.code, &mut rng);
        }
    }
    scenario.warmup = Nanos(rng.below(3_000_000));
    scenario
}

fn repeated(program: &Program, code: &cotenant_sim::program::Code, rng: &mut Rng) -> Program {
    let times = 1 + rng.below(8) as usize;
    let kernels = program.kernels.repeat(times);
    let mut longer = common::program(code, &kernels, 0);
    let mut issued = 0;
    // Some launches take the host long, most follow at once.
    let slow = [0, 50, 1_500][rng.below(3) as usize];
    for at in &mut longer.issued_ns {
        issued += if rng.below(4) == 0 { rng.below(1 + 2 * slow) } else { rng.below(1 + slow / 4) };
        *at = issued;
    }
    longer
}

/// Runs both; how many events were skipped of how many.
fn same(
    scenario: impl Fn() -> Scenario,
    policy: impl Fn() -> Box<dyn Policy>,
) -> Result<(u64, u64), String> {
    let fast = told(scenario(), policy().as_mut(), true);
    let slow = told(scenario(), policy().as_mut(), false);
    match (fast, slow) {
        (Ok((fast, skipped, told)), Ok((slow, none, all))) => {
            let events = slow.events;
            if told != all {
                return Err(format!("{skipped} skipped: an observer was told something else"));
            }
            let (fast, slow) = (format!("{fast:?}"), format!("{slow:?}"));
            if none == 0 && fast == slow {
                return Ok((skipped, events));
            }
            let differ = fast.bytes().zip(slow.bytes()).take_while(|(a, b)| a == b).count();
            let near =
                |s: &str| s[differ.saturating_sub(80)..(differ + 80).min(s.len())].to_owned();
            Err(format!("{skipped} skipped:\n{}\nnot\n{}", near(&fast), near(&slow)))
        }
        (Err(a), Err(b)) if a == b => Ok((0, 0)),
        (a, b) => Err(format!("one of them refused: {:?} {:?}", a.err(), b.err())),
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn skipping_changes_no_bit(shape in shapes(), which in 0..registered().len()) {
        let info = registered()[which];
        let policy = || policies::of(info, &shape);
        if let Err(why) = same(|| longer(&shape), policy) {
            prop_assert!(false, "{}: {}", info.name, why);
        }
    }
}

/// Random scenarios must not be ones in which nothing is skipped.
#[test]
fn random_scenarios_skip() {
    let mut runner = TestRunner::deterministic();
    let mut skipping = 0;
    for _ in 0..200 {
        let shape = shapes().new_tree(&mut runner).unwrap().current();
        let (skipped, _) = same(|| longer(&shape), || build("mps", &[])).unwrap();
        skipping += u32::from(skipped > 50);
    }
    assert!(skipping > 20, "{skipping} of 200 scenarios skip");
}

/// Two tenants, of which one comes when the other is in the middle of a pass.
fn mix(host: u64) -> World {
    let mut world = World::new(device(&[10]), vec![waves(10, 25, 1_000), waves(10, 4, 700)]);
    world.device.mps = cotenant_profiles::Device::builtin("v100-sxm2-16").unwrap().mps;
    for (name, kernels) in [("a", [0, 1, 1, 0].repeat(10)), ("b", [1, 0].repeat(6))] {
        let mut m = model(vec![program(&world.code, &kernels, host)]);
        m.input_per_item = Bytes(10_000);
        m.output_per_item = Bytes(1_000);
        world.tenants.push(tenant(name, m));
    }
    world.warmup = Nanos::from_micros(777);
    world.duration = Nanos::from_millis(20);
    world
}

/// The whole is worth nothing if nothing is skipped: of a tenant alone, almost everything is.
#[test]
fn almost_everything_is_skipped_where_nobody_interferes() {
    for host in [0, 500, 1_500] {
        let mut world = mix(host);
        world.tenants.truncate(1);
        let chunk: &[(&str, Value)] = &[("chunk", Value::Integer(5))];
        let all: [(&str, &[_]); 4] =
            [("temporal", &[]), ("mps", &[]), ("mps-static", chunk), ("serve", &[])];
        for (name, options) in all {
            let scenario = || world.scenario(vec![closed(2)]);
            let policy = || build(name, options);
            let (skipped, events) = same(scenario, policy).unwrap();
            let share = skipped as f64 / events as f64;
            assert!(share > 0.8, "{name}, {host} ns: {share:.2} of {events} events");
        }
    }
}

/// Instants that coincide to the nanosecond, over and over.
#[test]
fn ties_are_as_they_were() {
    let mut sum = 0;
    for host in [0, 700, 1_000] {
        for late in 0..12 {
            let mut world = mix(host);
            world.tenants.push(tenant("c", world.tenants[0].model.clone()));
            for info in registered() {
                let grid = |k: u64, n: u64| (0..n).map(|i| i * k + late * 300).collect();
                let loads = || vec![at(grid(50_000, 300)), at(grid(100_000, 150)), closed(1)];
                let policy = || (info.build)(&Default::default()).unwrap();
                let what = format!("{}, {host} ns, {late}", info.name);
                match same(|| world.scenario(loads()), policy) {
                    Ok((skipped, _)) => sum += skipped,
                    Err(why) => panic!("{what}: {why}"),
                }
            }
        }
    }
    assert!(sum > 30_000, "only {sum} events were skipped");
}

/// A light load: passes that meet, and part again.
#[test]
fn a_light_load_is_skipped_in_part() {
    for host in [0, 900] {
        let world = mix(host);
        let scenario = || world.scenario(vec![poisson(200_000.0, 1), poisson(70_000.0, 2)]);
        for name in ["temporal", "mps", "serve"] {
            let (skipped, events) = same(scenario, || build(name, &[])).unwrap();
            let share = skipped as f64 / events as f64;
            assert!(share > 0.3, "{name}, {host} ns: {share:.2} of {events} events");
        }
    }
}
