//! A checked, runnable input: everything that the simulator needs, with nothing left to look up.

use std::sync::Arc;

use cotenant_profiles::device::Costs;
use cotenant_profiles::{Bytes, Device, Nanos};
use cotenant_traces::{Arrivals, Rng, TokenDraws};

use crate::contention::ContentionModel;
use crate::engine::{KvSize, Rules};
use crate::layout::{Discipline, Host, Layout, LayoutError, PoolSpec, Role, WorkerSpec};

use crate::program::{Code, ModelCode, StepCode};

/// One simulation: which tenants share which GPU, and for how long.
pub struct Scenario {
    /// The part that policies see.
    pub setup: Arc<Setup>,
    /// The source of each tenant's requests, in tenant order.
    pub loads: Vec<Load>,
    /// Simulated before anything is counted.
    pub warmup: Nanos,
    /// Simulated and counted.
    pub duration: Nanos,
    /// How co-running kernels slow each other.
    pub contention: ContentionModel,
    /// Random factors of mean 1 on kernel times; `None`: exactly the profile's times.
    pub jitter: Option<Box<dyn Jitter>>,
}

/// What policies may know before the first request. The replay builds the same setup.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The GPU.
    pub device: Device,
    /// What its mechanisms cost in this run: the device's own numbers, or zero (`ideal`).
    pub costs: Costs,
    /// Every kernel; setups share them.
    pub code: Arc<Code>,
    /// The tenants that share the GPU.
    pub tenants: Vec<Tenant>,
}

/// One tenant.
#[derive(Clone, Debug)]
pub struct Tenant {
    /// Its name.
    pub name: String,
    /// Its model.
    pub model: ModelCode,
    /// Latency-critical or best-effort.
    pub class: Class,
    /// Deadline of a request from its arrival; `None`: none.
    pub slo: Option<Nanos>,
    /// Model instances to start with.
    pub workers: u32,
    /// The most items per batch.
    pub batch_max: u32,
    /// Longest time that a request waits for its batch to fill while a worker is idle.
    pub batch_timeout: Nanos,
    /// Set if it generates tokens: its batches are then steps of an engine. For policies that plan by
    /// batches, its model's programs are steps that generate for a number of sequences of typical length.
    pub generates: Option<Arc<Generates>>,
    /// Every request is a batch of its own, however many items it has.
    pub per_request_batches: bool,
    /// Which queued requests are given up; `None`: none.
    pub drop_after: Option<DropAfter>,
}

/// Additional settings of a tenant that generates tokens.
#[derive(Clone, Debug)]
pub struct Generates {
    /// The rules of its engines.
    pub rules: Rules,
    /// Its goals.
    pub goals: Option<TokenGoals>,
    /// Its model's steps.
    pub steps: StepCode,
}

/// Goals of a tenant that generates tokens. A request is good if it keeps both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokenGoals {
    /// From a request's arrival to its first token.
    pub ttft: Nanos,
    /// Time per further token, mean of a request.
    pub tpot: Nanos,
}

/// Which queued requests are given up: those that can no longer be answered in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DropAfter {
    /// The time limit, counted from the arrival; `None`: the request's deadline.
    pub limit: Option<Nanos>,
    /// Give requests up not only once the limit has passed, but as soon as a batch that began now would be
    /// too late, even at the profile's shortest time for the request alone on the whole GPU.
    pub predict: bool,
}

/// Whether a tenant's latency matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Its requests have deadlines that matter.
    Latency,
    /// It takes what is left.
    BestEffort,
}

/// A source of requests.
pub enum Load {
    /// Requests arrive whether or not earlier ones are done.
    Open(Box<dyn Arrivals>),
    /// A fixed number of clients, each of which sends its next request after its answer has arrived.
    Closed {
        /// Number of clients.
        concurrency: u32,
        /// Pause between an answer and the next request.
        think: Think,
        /// Items of each request.
        items: u32,
        /// Tokens of each request, for models that generate.
        tokens: Option<TokenDraws>,
        /// Total number of requests; `None`: until the end of the run.
        limit: Option<u64>,
    },
}

/// A closed-loop client's pause.
pub enum Think {
    /// Always the same.
    Constant(Nanos),
    /// Exponential with this mean.
    Exponential(Nanos, Rng),
}

/// Random factors for kernel times.
pub trait Jitter: Send {
    /// The factor for kernel `position` of the `request`-th request of `tenant`; mean 1, above 0.
    fn factor(&mut self, tenant: u32, request: u64, position: u32) -> f64;
}

impl Setup {
    /// The whole GPU as one pool with one lane.
    #[must_use]
    pub fn whole_gpu(&self) -> PoolSpec {
        let memory = &self.device.memory;
        PoolSpec {
            cus: self.device.cus(),
            lanes: vec![self.device.cus()],
            discipline: Discipline::Concurrent,
            dram_bytes_per_us: (memory.dram_gbps * 1000.0) as u64,
            l2: memory.l2,
            memory: memory.capacity,
            copy_engines: self.device.pcie.copy_engines,
            host: Host::Own,
        }
    }

    /// Tenants, sorted by name. Policies that break ties in this order behave the same whatever the order
    /// of tenants in a file.
    #[must_use]
    pub fn by_name(&self) -> Vec<u32> {
        let mut tenants: Vec<u32> = (0..self.tenants.len() as u32).collect();
        tenants.sort_by_key(|&t| &self.tenants[t as usize].name);
        tenants
    }

    /// Every tenant's workers, in tenant order.
    pub fn workers(&self, mut spec: impl FnMut(u32, &Tenant) -> WorkerSpec) -> Vec<WorkerSpec> {
        let mut workers = vec![];
        for (i, tenant) in self.tenants.iter().enumerate() {
            workers.extend((0..tenant.workers).map(|_| spec(i as u32, tenant)));
        }
        workers
    }

    /// Device memory of one worker in a pool with `total` memory: model, context, and the cache if it
    /// generates.
    #[must_use]
    pub fn worker_memory(&self, worker: &WorkerSpec, total: Bytes) -> Bytes {
        let tenant = &self.tenants[worker.tenant as usize];
        let model = tenant.model.memory().0 + worker.overhead.0;
        let most = self.kv_memory(worker, total).0;
        let elastic = tenant.generates.as_ref().and_then(|g| g.rules.elastic);
        Bytes(model + elastic.map_or(most, |e| e.floor_within(Bytes(most)).0))
    }

    /// Memory of the cache of a generating worker in a pool with `total` memory, or the maximum for an
    /// elastic cache: what remains of the engine's memory beside the model.
    #[must_use]
    pub fn kv_memory(&self, worker: &WorkerSpec, total: Bytes) -> Bytes {
        let tenant = &self.tenants[worker.tenant as usize];
        let model = tenant.model.memory().0 + worker.overhead.0;
        match tenant.generates.as_ref().map(|g| g.rules.kv) {
            None => Bytes(0),
            Some(KvSize::Bytes(kv)) => kv,
            Some(KvSize::Fraction(share)) => {
                Bytes(((total.0 as f64 * share) as u64).saturating_sub(model))
            }
        }
    }

    /// Device memory of one client process that shares the GPU.
    #[must_use]
    pub fn client_memory(&self) -> Bytes {
        self.device.mps.map_or(self.costs.context_memory, |m| m.client_memory)
    }

    /// A worker that is one of several client processes on the whole GPU, side by side.
    #[must_use]
    pub fn client(&self, tenant: u32, cap: u32) -> WorkerSpec {
        WorkerSpec {
            tenant,
            pool: 0,
            lane: 0,
            cap,
            priority: 0,
            overhead: self.client_memory(),
            role: Role::Whole,
        }
    }

    /// A layout in which every worker is a client process on the whole GPU, with one cap per tenant.
    ///
    /// # Errors
    /// There are more clients than the device admits.
    pub fn clients(&self, mut cap: impl FnMut(u32) -> u32) -> Result<Layout, LayoutError> {
        let workers = self.workers(|tenant, _| self.client(tenant, cap(tenant)));
        self.check_clients(workers.len())?;
        Ok(Layout { pools: vec![self.whole_gpu()], workers })
    }

    /// A layout in which every worker is a process with its own context, and the contexts take turns on the
    /// whole GPU.
    #[must_use]
    pub fn contexts(&self, turns: Discipline, overhead: Bytes) -> Layout {
        let cus = self.device.cus();
        let mut workers =
            self.workers(|tenant, _| WorkerSpec { overhead, ..self.client(tenant, cus) });
        for (lane, worker) in workers.iter_mut().enumerate() {
            worker.lane = lane as u32;
        }
        let lanes = vec![cus; workers.len()];
        Layout { pools: vec![PoolSpec { discipline: turns, lanes, ..self.whole_gpu() }], workers }
    }

    /// Whether the device can limit a client to a percentage of its CUs.
    ///
    /// # Errors
    /// It cannot.
    pub fn check_percentages(&self) -> Result<(), LayoutError> {
        match self.device.mps {
            Some(mps) if mps.round_cus >= self.device.cus() && self.device.cus() > 1 => {
                Err(LayoutError(format!(
                    "{} cannot limit MPS clients to a percentage: that takes Volta or later",
                    self.device.name
                )))
            }
            _ => Ok(()),
        }
    }

    /// Whether the device admits this many clients.
    ///
    /// # Errors
    /// They exceed its limit.
    pub fn check_clients(&self, clients: usize) -> Result<(), LayoutError> {
        match self.device.mps {
            Some(mps) if clients > mps.max_clients as usize => Err(LayoutError(format!(
                "{} admits {} MPS clients, not {clients}",
                self.device.name, mps.max_clients
            ))),
            _ => Ok(()),
        }
    }

    /// The fewest CUs on which one batch of a tenant (the largest) stays within `(1 + tolerance)` times its
    /// isolated GPU time: its right size, or knee.
    #[must_use]
    pub fn right_size(&self, tenant: usize, tolerance: f64) -> u32 {
        let t = &self.tenants[tenant];
        let program = t.model.program(t.batch_max);
        let total = |c: u32| -> u128 {
            let kernels = program.kernels.iter().map(|&k| &self.code.kernels[k as usize]);
            kernels.map(|k| u128::from(k.at(c))).sum()
        };
        let full = self.device.cus();
        let limit = total(full) as f64 * (1.0 + tolerance);
        (1..=full).find(|&c| total(c) as f64 <= limit).unwrap_or(full)
    }
}
