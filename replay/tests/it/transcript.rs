//! One script, two worlds: everything that a policy is told and sees, and the report, is the same in
//! virtual time and on a device. The device is the emulated one on a virtual clock, so that nothing
//! depends on the machine.
//!
//! Random scenarios are the simulator's: small devices, odd kernels, every kind of load, tight
//! memory, costly mechanisms. `COTENANT_CASES` sets how many of them.
use std::sync::Arc;

use crate::common::{self, Log};
use crate::model;
use crate::oracle_cases::policies::{self, Told, registered, witnessed};
use crate::oracle_cases::script::{DEPTHS, Script};
use crate::oracle_cases::{Shape, scenario, shapes};
use cotenant_profiles::device::Mechanism;
use cotenant_profiles::{Device, Nanos};
use cotenant_replay::clock::Clock;
use cotenant_replay::drive::{self, Kernels, ReplayError, Stop, Streams};
use cotenant_replay::emulated::EmulatedDevice;
use cotenant_sim::action::{Action, Event, Resize};
use cotenant_sim::layout::Layout;
use cotenant_sim::observe::Happening;
use cotenant_sim::policy::{Depth, LayoutError, PolicyInfo};
use cotenant_sim::scenario::Setup;
use cotenant_sim::view::View;
use cotenant_sim::{Policy, Refusal, Report, Scenario};
use cotenant_traces::{Request, Rng};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

/// What a run leaves behind.
struct Transcript {
    /// Everything that the policy was told, with what it could see then.
    told: Vec<Told>,
    /// What happened to requests, batches and workers.
    log: Vec<(u64, Happening)>,
    report: Report,
}

/// What both worlds see alike: not what happens inside the GPU.
fn seen(log: Log) -> Vec<(u64, Happening)> {
    let inside = |what: &Happening| {
        matches!(
            what,
            Happening::Granted { .. }
                | Happening::Switching { .. }
                | Happening::Busy { .. }
                | Happening::KernelEnded { .. }
        )
    };
    log.0.into_iter().filter(|(_, what)| !inside(what)).collect()
}

fn simulated(scenario: Scenario, policy: &mut dyn Policy) -> Result<Transcript, Refusal> {
    let (mut told, mut log) = (vec![], Log::default());
    let report = cotenant_sim::run(scenario, &mut witnessed(policy, &mut told), Some(&mut log))?;
    Ok(Transcript { told, log: seen(log), report })
}

fn replayed(scenario: Scenario, policy: &mut dyn Policy) -> Result<Transcript, Refusal> {
    let setup = Arc::clone(&scenario.setup);
    let (mut told, mut log) = (vec![], Log::default());
    let mut witness = witnessed(policy, &mut told);
    let layout = witness.layout(&setup)?;
    let (pools, clock) = (&layout.pools, Clock::virtual_time());
    let mut device = EmulatedDevice::for_scenario(&setup, pools, scenario.contention, clock);
    let hardware = setup.device.queues.hardware;
    for pool in layout.shared_queues(witness.depth(), hardware) {
        device.limit_hardware_queues(pool, hardware);
    }
    let mut streams = Streams::new(&mut device, Kernels::Numbered, setup.code.kernels.len());
    let stop = Stop::new();
    let done = drive::run(scenario, &mut witness, &layout, &mut streams, Some(&mut log), &stop);
    drop(witness);
    match done {
        Ok(done) => Ok(Transcript { told, log: seen(log), report: done.report }),
        Err(ReplayError::Refused(refusal)) => Err(refusal),
        Err(other) => panic!("the device fails: {other}"),
    }
}

/// Everything of a report that both worlds count.
fn account(report: &Report, device: &Device) -> (Vec<String>, [u64; 4]) {
    let tenants = report.tenants.iter().map(|t| {
        let quantiles = [0.0, 0.5, 0.9, 0.99, 1.0].map(|q| t.counts.latencies.quantile(q));
        let c = &t.counts;
        let requests = [c.offered, c.completed, c.good, c.with_deadline, c.batches, c.batch_items];
        let workers = [c.reconfigurations, c.downtime_ns, t.in_flight, t.in_flight_late];
        let sums = [c.latency_sum, c.queue_sum];
        let tokens = t.tokens.as_ref().map(|t| {
            let counts = [t.generated, t.prefilled, t.recomputed, t.cached, t.preemptions, t.steps];
            let sums = [t.ttft_sum, t.tpot_sum, t.block_ns, t.capacity_ns];
            format!("{counts:?} {sums:?} {:?}", t.itl.quantile(0.99))
        });
        format!("{requests:?} {:?} {workers:?} {sums:?} {quantiles:?} {tokens:?}", c.dropped)
    });
    let g = &report.gpu;
    let cu_ns = g.cu_utilization * f64::from(device.cus()) * report.window.0 as f64;
    let bytes = g.dram_utilization * device.memory.dram_gbps * report.window.0 as f64;
    let gpu = [cu_ns.round() as u64, bytes.round() as u64, g.context_switches, report.window.0];
    (tenants.collect(), gpu)
}

/// How many things happened, if the policy could lay the tenants out.
type Agreed = Result<Option<usize>, TestCaseError>;

fn alike(
    simulated: Result<Transcript, Refusal>,
    replayed: Result<Transcript, Refusal>,
    device: &Device,
) -> Agreed {
    let (ours, theirs) = match (simulated, replayed) {
        (Ok(ours), Ok(theirs)) => (ours, theirs),
        (Err(a), Err(b)) => {
            prop_assert_eq!(a, b);
            return Ok(None);
        }
        (a, b) => {
            let refused = (a.err(), b.err());
            return Err(TestCaseError::fail(format!("one of them refused: {refused:?}")));
        }
    };
    for (i, (a, b)) in ours.log.iter().zip(&theirs.log).enumerate() {
        prop_assert_eq!(a, b, "happening {}", i);
    }
    for (i, (a, b)) in ours.told.iter().zip(&theirs.told).enumerate() {
        prop_assert_eq!(a, b, "told {}", i);
    }
    prop_assert_eq!(ours.told.len(), theirs.told.len());
    prop_assert_eq!(ours.log.len(), theirs.log.len());
    let ((tenants, gpu), (theirs_tenants, theirs_gpu)) =
        (account(&ours.report, device), account(&theirs.report, device));
    prop_assert_eq!(tenants, theirs_tenants);
    // Bytes and the time of CUs are summed in floating point, and the worlds bring kernels up to date at
    // other instants: one more is rounding.
    let [busy, bytes, switches, window] = gpu;
    let [theirs_busy, theirs_bytes, theirs_switches, theirs_window] = theirs_gpu;
    prop_assert_eq!((switches, window), (theirs_switches, theirs_window));
    prop_assert!(busy.abs_diff(theirs_busy) <= 1, "{} CU ns, not {}", theirs_busy, busy);
    prop_assert!(bytes.abs_diff(theirs_bytes) <= 1, "{} bytes, not {}", theirs_bytes, bytes);
    // What the policy counted comes first; the device's own numbers follow.
    let counted = &theirs.report.counters[..ours.report.counters.len()];
    prop_assert_eq!(format!("{:?}", ours.report.counters), format!("{counted:?}"));
    Ok(Some(ours.log.len()))
}

/// Runs two of the same policy, one in each world.
fn agree(shape: &Shape, ours: &mut dyn Policy, theirs: &mut dyn Policy) -> Agreed {
    let device = scenario(shape).setup.device.clone();
    alike(simulated(scenario(shape), ours), replayed(scenario(shape), theirs), &device)
}

fn scripted(shape: &Shape, (depth, forms): (Depth, bool)) -> Agreed {
    let script = || Script::new(shape, depth, forms);
    agree(shape, &mut script(), &mut script())
}

/// Looks at every other tenant's kernels, and at the others less or not at all.
struct Mixed(Script);

impl Policy for Mixed {
    fn depth(&self) -> Depth {
        Depth::Kernel
    }

    fn tenant_depth(&self, tenant: u32) -> Depth {
        [Depth::Kernel, Depth::Request, Depth::Kernel, Depth::Layout][tenant as usize % 4]
    }

    fn outstanding(&self, tenant: u32) -> u32 {
        self.0.outstanding(tenant)
    }

    fn forms_batches(&self) -> bool {
        self.0.forms_batches()
    }

    fn layout(&mut self, setup: &Setup) -> Result<Layout, LayoutError> {
        self.0.layout(setup)
    }

    fn event(&mut self, event: Event, view: &View<'_>, act: &mut Vec<Action>) {
        self.0.event(event, view, act);
    }
}

#[test]
fn so_does_one_that_looks_at_some_tenants_kernels() {
    for forms in [false, true] {
        let mixed = |shape: &Shape| Mixed(Script::new(shape, Depth::Kernel, forms));
        check("mixed", |shape| agree(shape, &mut mixed(shape), &mut mixed(shape)));
    }
}

fn registry(shape: &Shape, info: &PolicyInfo) -> Agreed {
    let policy = || policies::of(info, shape);
    agree(shape, policy().as_mut(), policy().as_mut())
}

/// Cases for each registered policy, and for the senseless one at each depth: a few; all with
/// `COTENANT_LONG_TESTS`, as in CI.
fn config() -> ProptestConfig {
    let asked = std::env::var("COTENANT_CASES").ok().and_then(|n| n.parse().ok());
    let long = std::env::var_os("COTENANT_LONG_TESTS").is_some();
    let cases = asked.unwrap_or(if long { 40 } else { 10 });
    ProptestConfig {
        cases,
        failure_persistence: None,
        max_shrink_iters: 500,
        ..ProptestConfig::default()
    }
}

fn check(name: &str, test: impl Fn(&Shape) -> Agreed) {
    let mut runner = TestRunner::new(config());
    let done = runner.run(&shapes(), |shape| test(&shape).map(|_| ()));
    assert!(done.is_ok(), "{name}: {}", done.unwrap_err());
}

#[test]
fn a_script_goes_alike_in_both_worlds() {
    for depth in DEPTHS {
        check(&format!("{depth:?}"), |shape| scripted(shape, depth));
    }
}

#[test]
fn every_registered_policy_goes_alike_in_both_worlds() {
    for info in registered() {
        check(info.name, |shape| registry(shape, info));
    }
}

/// Does what it is told to at an instant, and launches every kernel at once.
struct Plan {
    depth: Depth,
    at: Nanos,
    what: Vec<Action>,
    merge: bool,
}

impl Policy for Plan {
    fn depth(&self) -> Depth {
        self.depth
    }

    fn forms_batches(&self) -> bool {
        false
    }

    fn layout(&mut self, setup: &Setup) -> Result<Layout, LayoutError> {
        setup.clients(|_| setup.device.cus())
    }

    fn event(&mut self, event: Event, view: &View<'_>, act: &mut Vec<Action>) {
        match event {
            Event::Start => act.push(Action::Timer { at: self.at, token: 0 }),
            Event::Timer { .. } => act.append(&mut self.what),
            Event::KernelReady { .. } if self.merge => {
                let held =
                    |w: &cotenant_sim::view::Worker| w.status == cotenant_sim::view::Status::Held;
                if view.workers.iter().all(held) {
                    let workers = (0..view.workers.len() as u32).collect();
                    act.push(Action::Merge { workers, priority: 0 });
                }
            }
            Event::KernelReady { worker } => {
                let via = cotenant_sim::action::Via::Stream;
                act.push(Action::Launch { worker, mask: None, priority: 0, via });
            }
            _ => {}
        }
    }
}

/// Two tenants of one kernel of 1 ms each.
fn pair() -> common::World {
    let mut world = common::World::new(common::device(&[4]), vec![common::waves(4, 2, 1_000_000)]);
    for name in ["a", "b"] {
        let model = common::model(vec![common::program(&world.code, &[0], 0)]);
        world.tenants.push(common::tenant(name, model));
    }
    world
}

fn planned(scenario: impl Fn() -> Scenario, plan: impl Fn() -> Plan) {
    let device = scenario().setup.device.clone();
    let (mut ours, mut theirs) = (plan(), plan());
    let agreed =
        alike(simulated(scenario(), &mut ours), replayed(scenario(), &mut theirs), &device);
    if let Err(why) = agreed {
        panic!("{why}");
    }
}

#[test]
fn a_worker_is_not_idle_before_its_requests_are_answered() {
    let world = pair();
    let plan = || Plan { depth: Depth::Request, at: Nanos(1), what: vec![], merge: false };
    planned(|| world.scenario(vec![common::at(vec![10]), common::at(vec![20])]), plan);
}

#[test]
fn a_merged_launch_lasts_as_long_as_its_largest_part() {
    let world = pair();
    let load = |work| -> cotenant_sim::Load {
        let request = Request { work, ..Request::at(Nanos(10)) };
        cotenant_sim::Load::Open(Box::new(std::iter::once(request)))
    };
    let plan = || Plan { depth: Depth::Kernel, at: Nanos(1), what: vec![], merge: true };
    planned(|| world.scenario(vec![load(1.0), load(3.0)]), plan);
}

#[test]
fn a_worker_that_retires_while_it_restarts_has_stood_still() {
    let mut world = pair();
    world.costs.process_start = Mechanism { cost: Nanos(2_000_000), ..Mechanism::FREE };
    let plan = || {
        let resize = Action::Resize { worker: 0, cap: 2, how: Resize::Restart };
        let what = vec![resize, Action::Retire { worker: 0 }];
        Plan { depth: Depth::Request, at: Nanos(1_000), what, merge: false }
    };
    planned(|| world.scenario(vec![common::at(vec![]), common::at(vec![])]), plan);
}

#[test]
fn steps_of_an_engine_go_alike_in_both_worlds() {
    for seed in 0..6 {
        let mut rng = Rng::new(seed);
        let rules = cotenant_sim::engine::Rules {
            max_seqs: 2 + rng.below(6) as u32,
            max_batched_tokens: 16 + rng.below(40) as u32,
            alternate: rng.below(2) == 0,
            scheduler_overhead: Nanos(rng.below(3_000)),
            async_scheduling: rng.below(2) == 0,
            ..model::rules()
        };
        let mut at = 0;
        let mut request = || {
            at += rng.below(60_000);
            (at, 1 + rng.below(20) as u32, 1 + rng.below(12) as u32, rng.below(3))
        };
        let requests: Vec<_> = (0..40).map(|_| request()).collect();
        let mut world = model::world(model::rules(), None);
        let generates = Arc::make_mut(world.tenants[0].generates.as_mut().unwrap());
        generates.rules = rules;
        let kernel = world.code.kernels.len() as u32;
        world.code.kernels.push(common::waves(model::CUS, 3, 2_000));
        let other = common::model(vec![common::program(&world.code, &[kernel], 100)]);
        world.tenants.push(common::tenant("other", other));
        let scenario = || {
            let others = (0..40).map(|i| i * 45_000 + 7).collect();
            world.scenario(vec![model::requests(&requests), common::at(others)])
        };
        for info in registered() {
            let policy = || (info.build)(&cotenant_sim::policy::Options::default()).unwrap();
            let (mut ours, mut theirs) = (policy(), policy());
            let device = &world.device;
            let ours = simulated(scenario(), ours.as_mut());
            let agreed = alike(ours, replayed(scenario(), theirs.as_mut()), device);
            if let Err(why) = agreed {
                panic!("seed {seed}, {}: {why}", info.name);
            }
        }
    }
}

#[test]
fn most_random_scenarios_are_busy() {
    let mut runner = TestRunner::deterministic();
    let shape = |_| {
        use proptest::strategy::ValueTree;
        shapes().new_tree(&mut runner).unwrap().current()
    };
    let happened: Vec<_> = (0..40)
        .map(shape)
        .filter_map(|shape| scripted(&shape, (Depth::Request, false)).unwrap())
        .collect();
    assert!(happened.iter().filter(|&&n| n > 100).count() > 20, "{happened:?}");
}
