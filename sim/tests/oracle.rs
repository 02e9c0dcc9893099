//! The event engine against a slow and obvious one that recomputes all grants and rates at every
//! event, on random scenarios: every start and end must agree to the nanosecond.

#![allow(clippy::print_stderr, clippy::unwrap_used)] // tests print their numbers

mod common;
mod oracle_engine;

use std::sync::Arc;

use common::{closed, device, kernel, model, program, watch};
use cotenant_profiles::device::{DispatchRule, Mechanism};
use cotenant_profiles::{Bytes, Nanos};
use cotenant_sim::action::{Action, Event, Via};
use cotenant_sim::contention::{ContentionModel, NAMES};
use cotenant_sim::layout::{Discipline, Layout, PoolSpec, WorkerSpec};
use cotenant_sim::mask::CuMask;
use cotenant_sim::observe::Happening;
use cotenant_sim::policy::{Depth, LayoutError};
use cotenant_sim::program::KernelCode;
use cotenant_sim::scenario::{Load, Scenario, Setup, Think};
use cotenant_sim::view::View;
use cotenant_sim::{Policy, Report};
use cotenant_traces::{Request, Rng};
use oracle_engine::Oracle;
use proptest::prelude::*;
use proptest::strategy::ValueTree;

/// What a kernel-level policy does with a kernel: a function of worker and position, so that the
/// oracle asks the same one.
#[derive(Clone, Copy, Debug)]
pub struct Launcher {
    seed: u64,
    cus: u32,
    masks: bool,
    priorities: bool,
    /// How it places kernels.
    pub via: Via,
}

impl Launcher {
    /// Mask and priority of a kernel.
    pub fn choose(&self, worker: u32, position: u32) -> (Option<CuMask>, i8) {
        let name = format!("{worker}/{position}");
        let mut rng = Rng::for_names(self.seed, &[&name]);
        let priority = if self.priorities { rng.below(3) as i8 } else { 0 };
        if !self.masks || rng.below(4) == 0 {
            return (None, priority);
        }
        let mut mask: CuMask = (0..self.cus).filter(|_| rng.below(2) == 0).collect();
        mask.insert(rng.below(u64::from(self.cus)) as u32);
        (Some(mask), priority)
    }
}

/// Lays out what it was given, and launches every kernel at once if it is asked.
struct Given {
    layout: Layout,
    launcher: Option<Launcher>,
}

impl Policy for Given {
    fn depth(&self) -> Depth {
        if self.launcher.is_some() { Depth::Kernel } else { Depth::Layout }
    }
    fn forms_batches(&self) -> bool {
        false
    }
    fn layout(&mut self, _: &Setup) -> Result<Layout, LayoutError> {
        Ok(self.layout.clone())
    }
    fn event(&mut self, event: Event, view: &View<'_>, act: &mut Vec<Action>) {
        let (Event::KernelReady { worker }, Some(l)) = (event, &self.launcher) else { return };
        let (mask, priority) = l.choose(worker, view.workers[worker as usize].position);
        act.push(Action::Launch { worker, mask, priority, via: l.via });
    }
}

/// Size and kind of a random scenario; the rest comes from the seed.
#[derive(Clone, Debug)]
struct Shape {
    seed: u64,
    groups: Vec<u32>,
    kernels: u32,
    tenants: u32,
    workers: u32,
    /// 0: one lane, 1: exclusive lanes, 2: time slices, 3: to completion, 4: two pools.
    kind: u32,
    contention: usize,
    /// 0: streams run free; 1: asked, no masks; 2: masks.
    asked: u32,
    fair: bool,
    priorities: bool,
    hardware: u32,
    even: bool,
}

fn shapes() -> impl Strategy<Value = Shape> {
    let groups = proptest::collection::vec(1u32..5, 1..4);
    let sizes = (1u32..6, 1u32..6, 1u32..4, 0u32..5, 0usize..4, 0u32..3);
    let flags = (any::<bool>(), any::<bool>(), 1u32..20, any::<bool>(), 0u32..4);
    (any::<u64>(), groups, sizes, flags).prop_map(|(seed, groups, sizes, flags)| Shape {
        seed,
        groups,
        kernels: sizes.0,
        tenants: sizes.1,
        workers: sizes.2,
        kind: sizes.3,
        contention: sizes.4,
        asked: sizes.5,
        fair: flags.4 == 0,
        priorities: flags.1,
        hardware: flags.2,
        even: flags.3,
    })
}

fn random_kernel(rng: &mut Rng, cus: u32, fair: bool) -> KernelCode {
    let base = 100 + rng.below(3000);
    let noise: Vec<u64> = (0..=cus).map(|_| rng.below(400)).collect();
    let blocks = 1 + rng.below(u64::from(cus) * 3);
    let per_cu = 1 + rng.below(2) as u32;
    let heavy = rng.below(2) == 0;
    KernelCode {
        want: (blocks.div_ceil(u64::from(per_cu)) as u32).clamp(1, cus),
        blocks,
        blocks_per_cu: per_cu,
        dram_bytes: if heavy { rng.below(900 * base) } else { rng.below(5_000) },
        fair: fair && rng.below(2) == 0,
        // Not even monotone.
        ..kernel(cus, |c| base / u64::from(c) + noise[c as usize] + 1)
    }
}

fn load(rng: &mut Rng) -> Load {
    let think = match rng.below(3) {
        0 => Think::Constant(Nanos::ZERO),
        1 => Think::Constant(Nanos(rng.below(5_000))),
        _ => Think::Exponential(Nanos(2_000), Rng::new(rng.next_u64())),
    };
    let limit = (rng.below(3) == 0).then(|| rng.below(30));
    let clients = 1 + rng.below(4) as u32;
    let items = 1 + rng.below(2) as u32;
    match rng.below(3) {
        0 => closed(clients),
        1 => Load::Closed { concurrency: clients, think, items, limit },
        _ => {
            let (mut draws, gap) = (Rng::new(rng.next_u64()), 500.0 + rng.below(20_000) as f64);
            let mut at = 0;
            Load::Open(Box::new(std::iter::from_fn(move || {
                at += (draws.exp1() * gap) as u64;
                Some(Request {
                    items: 1 + draws.below(3) as u32,
                    work: [1.0, 1.0, 0.4, 1.7][draws.below(4) as usize],
                    slo: (draws.below(2) == 0).then_some(Nanos(20_000)),
                    ..Request::at(Nanos(at))
                })
            })))
        }
    }
}

fn tenants(shape: &Shape, world: &mut common::World, rng: &mut Rng) {
    for t in 0..shape.tenants {
        let programs = (0..1 + rng.below(3))
            .map(|_| {
                let n = 1 + rng.below(6);
                let kernels: Vec<u32> =
                    (0..n).map(|_| rng.below(u64::from(shape.kernels)) as u32).collect();
                let host = [0, 0, 300][rng.below(3) as usize];
                program(&world.code, &kernels, host)
            })
            .collect();
        let mut model = model(programs);
        if rng.below(2) == 0 {
            model.host_per_request = Nanos(rng.below(2_000));
            model.input_per_item = Bytes(rng.below(20_000));
            model.output_per_item = Bytes(rng.below(5_000));
        }
        let mut tenant = common::tenant(&format!("t{t}"), model);
        tenant.workers = 1 + rng.below(u64::from(shape.workers)) as u32;
        tenant.batch_timeout = Nanos([0, 0, 3_000][rng.below(3) as usize]);
        world.tenants.push(tenant);
    }
}

fn layout(shape: &Shape, setup: &Setup, rng: &mut Rng) -> Layout {
    let cus = setup.device.cus();
    let whole = setup.whole_gpu();
    let mut workers = setup.workers(|tenant, _| WorkerSpec {
        tenant,
        pool: 0,
        lane: 0,
        cap: cus,
        priority: 0,
        overhead: Bytes(0),
    });
    for (i, w) in workers.iter_mut().enumerate() {
        w.cap = 1 + rng.below(u64::from(cus)) as u32;
        w.priority = if shape.priorities { rng.below(2) as i8 } else { 0 };
        w.lane = match shape.kind {
            1 => rng.below(u64::from(cus.min(3))) as u32,
            // Mostly a context each; sometimes two workers in one.
            2 | 3 => i as u32 - u32::from(i > 0 && rng.below(4) == 0),
            _ => 0,
        };
        w.pool = u32::from(shape.kind == 4 && rng.below(2) == 0);
    }
    let pool = |cus: u32, lanes: Vec<u32>, discipline| PoolSpec {
        cus,
        lanes,
        discipline,
        ..whole.clone()
    };
    let sliced = |rtc, rng: &mut Rng| Discipline::TimeSliced {
        quantum: Nanos(500 + rng.below(10_000)),
        switch: Nanos([0, 200, 1_000][rng.below(3) as usize]),
        make_way: Nanos([0, 100][rng.below(2) as usize]),
        run_to_completion: rtc,
    };
    let n = workers.len();
    let pools = match shape.kind {
        1 => {
            let lanes = cus.min(3);
            let sizes = (0..lanes).map(|l| cus / lanes + u32::from(l < cus % lanes)).collect();
            vec![pool(cus, sizes, Discipline::Concurrent)]
        }
        2 => vec![pool(cus, vec![cus; n], sliced(false, rng))],
        3 => vec![pool(cus, vec![cus; n], sliced(true, rng))],
        4 => {
            let second = pool(1.max(cus / 2), vec![1.max(cus / 2)], Discipline::Concurrent);
            vec![pool(cus, vec![cus], Discipline::Concurrent), second]
        }
        _ => vec![pool(cus, vec![cus], Discipline::Concurrent)],
    };
    Layout { pools, workers }
}

fn contention(which: usize) -> ContentionModel {
    match NAMES[which] {
        "none" => ContentionModel::None,
        "bandwidth" => ContentionModel::Bandwidth { l2_penalty: 0.7 },
        "linear" => ContentionModel::Linear { c: [0.2, 0.7, 0.4, 0.5, 0.9] },
        _ => ContentionModel::Igniter { cache: 0.4, sched_ns: [150.0, -180.0], mhz_per_watt: 1.0 },
    }
}

/// The scenario of a shape; the same each time.
fn scenario(shape: &Shape) -> (Scenario, Layout, Option<Launcher>) {
    let mut rng = Rng::new(shape.seed);
    let mut device = device(&shape.groups);
    device.queues.hardware = shape.hardware;
    device.queues.overflow = Nanos(rng.below(100));
    device.memory.l2 = Bytes(200_000);
    device.power.cap_w = 54.0 + rng.below(10) as f64;
    device.dispatch.rule =
        if shape.even { DispatchRule::EvenGroups } else { DispatchRule::LeastLoaded };
    device.pcie.copy_engines = 1 + rng.below(2) as u32;
    device.costs.mask_tpc = Mechanism { cost: Nanos(rng.below(500)), ..Mechanism::FREE };
    let cus = device.cus();
    let kernels = (0..shape.kernels).map(|_| random_kernel(&mut rng, cus, shape.fair)).collect();
    let mut world = common::World::new(device, kernels);
    tenants(shape, &mut world, &mut rng);
    world.warmup = Nanos(rng.below(30_000));
    world.duration = Nanos(100_000);
    world.contention = contention(shape.contention);
    let loads = world.tenants.iter().map(|_| load(&mut rng)).collect();
    let scenario = world.scenario(loads);
    let layout = layout(shape, &scenario.setup, &mut rng);
    let launcher = (shape.asked > 0).then(|| Launcher {
        seed: shape.seed,
        cus,
        masks: shape.asked == 2,
        priorities: shape.priorities,
        via: if rng.below(2) == 0 { Via::Stream } else { Via::MaskTpc },
    });
    (scenario, layout, launcher)
}

/// What both engines must agree on.
fn essence(log: Vec<(u64, Happening)>) -> Vec<(u64, Happening)> {
    let kept = |what: &Happening| {
        matches!(
            what,
            Happening::KernelEnded { .. }
                | Happening::RequestDone { .. }
                | Happening::BatchBegan { .. }
                | Happening::BatchEnded { .. }
        )
    };
    log.into_iter().filter(|(_, what)| kept(what)).collect()
}

fn agree(shape: &Shape) -> Result<usize, TestCaseError> {
    let (scenario_a, layout, launcher) = scenario(shape);
    let mut policy = Given { layout: layout.clone(), launcher };
    let (report, log) = watch(scenario_a, &mut policy);
    let (scenario_b, ..) = scenario(shape);
    let setup = Arc::clone(&scenario_b.setup);
    let mut oracle = Oracle::new(scenario_b, layout, launcher);
    oracle.run();
    let (ours, slow) = (essence(log), &oracle.log);
    for (i, (a, b)) in ours.iter().zip(slow).enumerate() {
        prop_assert_eq!(a, b, "happening {}", i);
    }
    prop_assert_eq!(ours.len(), slow.len());
    counts_agree(&report, &oracle, &setup)?;
    Ok(ours.len())
}

fn counts_agree(report: &Report, oracle: &Oracle, setup: &Setup) -> Result<(), TestCaseError> {
    for (tenant, slow) in report.tenants.iter().zip(&oracle.counts) {
        let c = &tenant.counts;
        let ours = [c.offered, c.completed, c.good, c.batches, c.batch_items, tenant.in_flight];
        let want = [
            slow.offered,
            slow.completed,
            slow.good,
            slow.batches,
            slow.batch_items,
            slow.in_system,
        ];
        prop_assert_eq!(ours, want);
        prop_assert_eq!((c.latency_sum, c.queue_sum), (slow.latency_sum, slow.queue_sum));
        prop_assert_eq!(c.latencies.len(), slow.completed);
    }
    let seconds = report.window.as_secs_f64();
    let used = report.gpu.cu_utilization * f64::from(setup.device.cus()) * seconds * 1e9;
    prop_assert!((used - oracle.busy_cu_ns as f64).abs() < 0.5, "{} CU-ns", used);
    prop_assert_eq!(report.gpu.context_switches, oracle.switches);
    Ok(())
}

/// More cases with `PROPTEST_CASES`.
fn config() -> ProptestConfig {
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(1024);
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn the_fast_engine_is_the_slow_one(shape in shapes()) {
        agree(&shape)?;
    }
}

/// Random shapes must not be trivial ones: most scenarios see hundreds of events.
#[test]
fn random_scenarios_are_busy() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let happenings: Vec<usize> = (0..40)
        .map(|_| {
            let shape = shapes().new_tree(&mut runner).unwrap().current();
            agree(&shape).unwrap()
        })
        .collect();
    let busy = happenings.iter().filter(|&&n| n > 100).count();
    assert!(busy > 25, "{happenings:?}");
}
