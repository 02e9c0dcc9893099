//! Builders for small scenarios, shared by the tests.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used)] // tests and the bench use parts of it

pub mod anchor;

use std::sync::Arc;

use cotenant_profiles::device::Costs;
use cotenant_profiles::{Bytes, Device, Nanos, Op};
use cotenant_sim::contention::ContentionModel;
use cotenant_sim::observe::{Happening, Observer};
use cotenant_sim::policy::{Options, Value};
use cotenant_sim::program::{Code, KernelCode, ModelCode, Program, Tile};
use cotenant_sim::scenario::{Jitter, Load, Scenario, Setup, Tenant, Think};
use cotenant_sim::{Class, Policy, Report, policy};
use cotenant_traces::{Request, Rng};

/// A V100 cut to these groups, without limits on clients, queues and memory.
pub fn device(groups: &[u32]) -> Device {
    let mut device = Device::builtin("v100-sxm2-16").unwrap();
    device.topology.groups = groups.to_vec();
    device.mps = None;
    device.queues.hardware = 1 << 20;
    device.memory.capacity = Bytes(1 << 40);
    device.costs.context_memory = Bytes(0);
    device
}

/// A kernel whose duration on `c` CUs is `at(c)`, with blocks for all of them.
pub fn kernel(cus: u32, at: impl Fn(u32) -> u64) -> KernelCode {
    KernelCode {
        id: "k".to_owned(),
        name: "k".to_owned(),
        op: Op::Other,
        duration_ns: std::iter::once(u64::MAX).chain((1..=cus).map(at)).collect(),
        want: cus,
        blocks: u64::from(cus),
        threads: 256,
        blocks_per_cu: 1,
        flops: 0,
        dram_bytes: 0,
        fair: false,
        tile: Tile::default(),
        drawn: vec![],
    }
}

/// A kernel of `want` blocks that lasts `ns` per wave of them.
pub fn waves(cus: u32, want: u32, ns: u64) -> KernelCode {
    let at = |c: u32| ns * u64::from(want.div_ceil(c));
    KernelCode { want: want.min(cus), blocks: u64::from(want), ..kernel(cus, at) }
}

/// A launch sequence; `host` is the time to issue each launch.
pub fn program(code: &Code, kernels: &[u32], host: u64) -> Program {
    let mut left = 0;
    let mut remaining: Vec<u64> = kernels
        .iter()
        .rev()
        .map(|&k| {
            left += *code.kernels[k as usize].duration_ns.last().unwrap();
            left
        })
        .collect();
    remaining.reverse();
    remaining.push(0);
    Program {
        kernels: kernels.to_vec(),
        issued_ns: (1..=kernels.len() as u64).map(|i| i * host).collect(),
        remaining_ns: remaining,
    }
}

/// A model of one program per batch size, from 1.
pub fn model(programs: Vec<Program>) -> ModelCode {
    let n = programs.len() as u32;
    ModelCode {
        name: "m".to_owned(),
        programs: programs.into(),
        program_for: std::iter::once(0).chain(0..n).collect(),
        weights: Bytes(0),
        activations_per_item: Bytes(0),
        input_per_item: Bytes(0),
        output_per_item: Bytes(0),
        load: Nanos::ZERO,
        host_per_request: Nanos::ZERO,
    }
}

/// One tenant with one worker and batches of one.
pub fn tenant(name: &str, model: ModelCode) -> Tenant {
    Tenant {
        name: name.to_owned(),
        batch_max: model.max_items(),
        model,
        class: Class::Latency,
        slo: None,
        workers: 1,
        batch_timeout: Nanos::ZERO,
        generates: None,
        per_request_batches: false,
        drop_after: None,
    }
}

/// Clients that ask again as soon as they are answered.
pub fn closed(concurrency: u32) -> Load {
    Load::Closed {
        concurrency,
        think: Think::Constant(Nanos::ZERO),
        items: 1,
        limit: None,
        tokens: None,
    }
}

/// Poisson arrivals with this mean gap.
pub fn poisson(mean_gap_ns: f64, seed: u64) -> Load {
    let mut rng = Rng::new(seed);
    let mut at = 0;
    Load::Open(Box::new(std::iter::from_fn(move || {
        at += (rng.exp1() * mean_gap_ns) as u64 + 1;
        Some(Request::at(Nanos(at)))
    })))
}

/// Requests at these instants.
pub fn at(instants: Vec<u64>) -> Load {
    Load::Open(Box::new(instants.into_iter().map(|t| Request::at(Nanos(t)))))
}

/// Exponential factors of mean 1: exponential service times.
pub struct Exponential(pub Rng);

impl Jitter for Exponential {
    fn factor(&mut self, _: u32, _: u64, _: u32) -> f64 {
        self.0.exp1()
    }
}

/// What a scenario is made of, with defaults.
pub struct World {
    pub device: Device,
    pub costs: Costs,
    pub code: Code,
    pub tenants: Vec<Tenant>,
    pub warmup: Nanos,
    pub duration: Nanos,
    pub contention: ContentionModel,
}

impl World {
    pub fn new(device: Device, kernels: Vec<KernelCode>) -> Self {
        Self {
            costs: device.costs.clone(),
            device,
            code: Code::of(kernels),
            tenants: vec![],
            warmup: Nanos::ZERO,
            duration: Nanos::from_millis(10),
            contention: ContentionModel::None,
        }
    }

    pub fn scenario(&self, loads: Vec<Load>) -> Scenario {
        let setup = Setup {
            device: self.device.clone(),
            costs: self.costs.clone(),
            code: self.code.clone().into(),
            tenants: self.tenants.clone(),
        };
        Scenario {
            setup: Arc::new(setup),
            loads,
            warmup: self.warmup,
            duration: self.duration,
            contention: self.contention,
            jitter: None,
        }
    }
}

/// The policy of that name with these options.
pub fn build(name: &str, options: &[(&str, Value)]) -> Box<dyn Policy> {
    let options = options.iter().map(|(n, v)| ((*n).to_owned(), v.clone())).collect();
    (policy::find(name).expect("a registered policy").build)(&Options(options)).unwrap()
}

/// Runs under a registered policy.
pub fn run(scenario: Scenario, name: &str, options: &[(&str, Value)]) -> Report {
    let mut policy = build(name, options);
    cotenant_sim::run(scenario, policy.as_mut(), None).unwrap()
}

/// Everything that happened, in order.
#[derive(Default)]
pub struct Log(pub Vec<(u64, Happening)>);

impl Observer for Log {
    fn happened(&mut self, now: Nanos, what: Happening) {
        self.0.push((now.0, what));
    }
}

/// Runs and keeps everything that happened.
pub fn watch(scenario: Scenario, policy: &mut dyn Policy) -> (Report, Vec<(u64, Happening)>) {
    let mut log = Log::default();
    let report = cotenant_sim::run(scenario, policy, Some(&mut log)).unwrap();
    (report, log.0)
}

/// `(when, tenant, arrival)` of every completed request, in order.
pub fn completions(log: &[(u64, Happening)]) -> Vec<(u64, u32, u64)> {
    log.iter()
        .filter_map(|&(now, what)| match what {
            Happening::RequestDone { tenant, arrival } => Some((now, tenant, arrival.0)),
            _ => None,
        })
        .collect()
}
