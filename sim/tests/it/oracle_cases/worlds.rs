//! Scenarios and layouts of a shape; the same each time.

use cotenant_profiles::device::{DispatchRule, Mechanism, Mig, Mps};
use cotenant_profiles::{Bytes, Device, Drawn, Nanos, Op};
use cotenant_sim::contention::{ContentionModel, NAMES, Pairs};
use cotenant_sim::layout::{Discipline, Host, Layout, PoolSpec, Role, WorkerSpec};
use cotenant_sim::program::{KernelCode, Tile};
use cotenant_sim::scenario::{Class, DropAfter, Jitter, Load, Scenario, Setup, Think};
use cotenant_traces::{Request, Rng};

use super::Shape;
use crate::common::{self, closed, kernel, model, program};

fn random_kernel(rng: &mut Rng, cus: u32, fair: bool) -> KernelCode {
    let base = 100 + rng.below(3000);
    let noise: Vec<u64> = (0..=cus).map(|_| rng.below(400)).collect();
    let blocks = 1 + rng.below(u64::from(cus) * 3);
    let per_cu = 1 + rng.below(2) as u32;
    let heavy = rng.below(2) == 0;
    let name = ["gemm", "gemm", "conv", "add"][rng.below(4) as usize];
    KernelCode {
        name: name.to_owned(),
        op: match name {
            "gemm" => Op::Gemm,
            "conv" => Op::Conv,
            _ => Op::Other,
        },
        tile: Tile { regs: 32, smem_bytes: 0 },
        want: (blocks.div_ceil(u64::from(per_cu)) as u32).clamp(1, cus),
        blocks,
        blocks_per_cu: per_cu,
        dram_bytes: if heavy { rng.below(900 * base) } else { rng.below(5_000) },
        fair: fair && rng.below(2) == 0,
        drawn: random_drawn(rng, cus),
        // Not even monotone.
        ..kernel(cus, |c| base / u64::from(c) + noise[c as usize] + 1)
    }
}

/// Seen on no count of CUs, one or two, and not everything of each.
fn random_drawn(rng: &mut Rng, cus: u32) -> Vec<Drawn> {
    let first = 1 + rng.below(u64::from(cus)) as u32;
    let second = (first + 1 + rng.below(3) as u32).min(cus);
    let mut counts = vec![first, second];
    counts.dedup();
    counts.truncate(rng.below(3) as usize);
    let seen = |cus: &u32| {
        let some = |rng: &mut Rng, most: f64| {
            (rng.below(4) > 0).then(|| rng.below(1_000) as f64 / 1e3 * most)
        };
        Drawn::new(*cus, some(rng, 1.0), some(rng, 1.0), some(rng, 90.0))
    };
    counts.iter().map(seen).collect()
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
        1 => Load::Closed { concurrency: clients, think, items, limit, tokens: None },
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
        let programs = (0..1 + rng.below(4))
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
        model.weights = Bytes(rng.below(100));
        model.activations_per_item = Bytes(rng.below(20));
        model.load = Nanos(rng.below(4_000));
        let mut tenant = common::tenant(&format!("t{t}"), model);
        tenant.workers = 1 + rng.below(u64::from(shape.workers)) as u32;
        tenant.batch_timeout = Nanos([0, 0, 3_000][rng.below(3) as usize]);
        if shape.flags.slos {
            tenant.slo = (rng.below(4) > 0).then(|| Nanos(2_000 + rng.below(30_000)));
        }
        if rng.below(4) == 0 {
            tenant.class = Class::BestEffort;
        }
        tenant.per_request_batches = rng.below(6) == 0;
        if rng.below(3) == 0 {
            let limit = (rng.below(2) == 0).then(|| Nanos(1_000 + rng.below(40_000)));
            tenant.drop_after = Some(DropAfter { limit, predict: rng.below(2) == 0 });
        }
        world.tenants.push(tenant);
    }
}

fn mechanism(rng: &mut Rng, most: u64) -> Mechanism {
    let mut ns = || Nanos(if rng.below(3) == 0 { 0 } else { rng.below(most) });
    Mechanism { cost: ns(), delay: ns(), ..Mechanism::FREE }
}

fn costs(device: &mut Device, rng: &mut Rng) {
    let costs = &mut device.costs;
    let placing = [
        &mut costs.stream_hop,
        &mut costs.barrier,
        &mut costs.mask_ioctl,
        &mut costs.mask_tpc,
        &mut costs.mask_firmware,
        &mut costs.kernel_intercept,
        &mut costs.kernel_slice,
        &mut costs.preempt_reset,
        &mut costs.preempt_blocks,
        &mut costs.preempt_save,
    ];
    for m in placing {
        *m = mechanism(rng, 500);
    }
    costs.persistent_percent = 100 + rng.below(30) as u32;
    costs.clock_switch = mechanism(rng, 3_000);
    costs.process_start = mechanism(rng, 5_000);
    costs.shadow_switch = Mechanism {
        cost: Nanos(rng.below(1_000)),
        delay: Nanos(rng.below(500)),
        ..Mechanism::FREE
    };
    costs.context_switch = mechanism(rng, 500);
    costs.context_yield = mechanism(rng, 100);
    costs.quantum = Nanos(500 + rng.below(10_000));
    costs.context_memory = Bytes(rng.below(10));
    costs.merge_fixed = Nanos([0, 0, 200, 1_500][rng.below(4) as usize]);
    costs.merge_each = Nanos(rng.below(50));
    costs.merge_wave_percent = 100 + rng.below(40) as u32;
}

fn random_device(shape: &Shape, rng: &mut Rng) -> Device {
    let mut device = common::device(&shape.groups);
    let cus = device.cus();
    device.queues.hardware = shape.hardware;
    device.queues.overflow = Nanos(rng.below(100));
    device.memory.l2 = Bytes(200_000);
    device.power.cap_w = 74.0 + rng.below(15) as f64;
    device.dispatch.rule =
        if shape.flags.even { DispatchRule::EvenGroups } else { DispatchRule::LeastLoaded };
    device.pcie.copy_engines = 1 + rng.below(2) as u32;
    let step = 1 + u32::from(cus > 3 && rng.below(4) == 0);
    (device.mask.min_cus, device.mask.step_cus) = (step, step);
    if rng.below(2) == 0 {
        device.mps = Some(Mps {
            round_cus: step,
            max_clients: 8 + rng.below(40) as u32,
            client_memory: Bytes(rng.below(10)),
            chunk_cus: step,
            chunks: cus / step,
        });
    }
    // Quarters, each of a few CUs, where there are so many.
    let mut mig: Mig = Device::builtin("a30").unwrap().mig.unwrap();
    for p in &mut mig.profiles {
        p.cus = (cus * p.compute / mig.compute_slices).max(1);
        p.capacity = Bytes(400 * u64::from(p.memory));
    }
    device.mig = Some(mig);
    costs(&mut device, rng);
    device
}

fn contention(which: usize) -> ContentionModel {
    match NAMES[which] {
        "none" => ContentionModel::None,
        "bandwidth" => ContentionModel::Bandwidth { l2_penalty: 0.7 },
        "linear" => ContentionModel::Linear { c: [0.2, 0.7, 0.4, 0.5, 0.9] },
        "igniter" => {
            ContentionModel::Igniter { cache: 0.4, sched_ns: [150.0, -180.0], mhz_per_watt: 1.0 }
        }
        "cache" => ContentionModel::Cache { cache: 0.4 },
        _ => ContentionModel::Measured { cache: 0.4 },
    }
}

/// A factor per kernel that depends on nothing but which one it is.
struct Uneven(u64);

impl Jitter for Uneven {
    fn factor(&mut self, tenant: u32, request: u64, position: u32) -> f64 {
        let name = format!("{tenant}/{request}/{position}");
        0.5 + Rng::for_names(self.0, &[&name]).below(1_000) as f64 / 1_000.0
    }
}

/// The scenario of a shape.
pub(crate) fn scenario(shape: &Shape) -> Scenario {
    let mut rng = Rng::new(shape.seed);
    let device = random_device(shape, &mut rng);
    let cus = device.cus();
    let kernels =
        (0..shape.kernels).map(|_| random_kernel(&mut rng, cus, shape.flags.fair)).collect();
    let mut world = common::World::new(device, kernels);
    let pair = |_| {
        let (a, b) = (rng.below(6) as u32, rng.below(6) as u32);
        ((a, b), 0.9 + rng.below(800) as f64 / 1e3)
    };
    world.code.pairs = Pairs::new((0..12).map(pair).collect());
    tenants(shape, &mut world, &mut rng);
    world.warmup = Nanos(rng.below(30_000));
    world.duration = Nanos(100_000);
    world.contention = contention(shape.contention);
    if shape.flags.ideal {
        world.costs = world.costs.ideal();
    }
    if shape.flags.tight {
        let each = |t: &cotenant_sim::Tenant| t.model.memory().0 * u64::from(t.workers);
        let all: u64 = world.tenants.iter().map(each).sum();
        world.device.memory.capacity = Bytes(all + rng.below(600));
    }
    let loads = world.tenants.iter().map(|_| load(&mut rng)).collect();
    let mut scenario = world.scenario(loads);
    if shape.flags.jitter {
        scenario.jitter = Some(Box::new(Uneven(shape.seed)));
    }
    scenario
}

/// A layout of the shape's kind.
pub(crate) fn laid_out(shape: &Shape, setup: &Setup) -> Layout {
    let mut rng = Rng::for_names(shape.seed, &["layout"]);
    let rng = &mut rng;
    let cus = setup.device.cus();
    let host = if shape.flags.shared_host { Host::Shared } else { Host::Own };
    let whole = PoolSpec { host, ..setup.whole_gpu() };
    let mut workers = setup.workers(|tenant, _| WorkerSpec {
        tenant,
        pool: 0,
        lane: 0,
        cap: cus,
        priority: 0,
        overhead: Bytes(0),
        role: Role::Whole,
    });
    for (i, w) in workers.iter_mut().enumerate() {
        w.cap = 1 + rng.below(u64::from(cus)) as u32;
        w.priority = if shape.flags.priorities { rng.below(2) as i8 } else { 0 };
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
