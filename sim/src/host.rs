//! The host: the state machine that carries out a policy's decisions. It is the only implementation of
//! queues, batches, launches, workers, memory, mechanism costs, losses and the report.
//!
//! A [`Host`] runs on any [`World`]: the simulator's [`crate::VirtualWorld`], or a device on the wall
//! clock. It has no clock and no GPU of its own.
//!
//! | what | where |
//! |---|---|
//! | requests arrive, form batches, are answered | `host/batches.rs` |
//! | engines that generate tokens: their batches are steps | `host/steps.rs` |
//! | caches whose memory follows what sequences hold | `host/elastic.rs` |
//! | a batch's kernels, where the policy launches them or workers share a host | `host/launches.rs` |
//! | several kernels of a stream launched at a time | `host/ahead.rs` |
//! | workers start, change, retire and are lost | `host/workers.rs`, `host/losses.rs` |
//! | partitions are resized | `host/partitions.rs` |
//! | the policy is told about events, its actions are carried out | `host/actions.rs` |
//! | the report | `host/account.rs` |

use std::collections::VecDeque;
use std::sync::Arc;

use cotenant_profiles::{Bytes, Nanos};
use cotenant_traces::Request;

use crate::action::{Action, Closes, Event, Preemption};
use crate::engine::Engine;
use crate::layout::{Layout, PoolSpec};
use crate::policy::{Depth, Policy};
use crate::report::Refusal;
use crate::scenario::{Load, Setup};
use crate::serving::{RequestId, Serving};
use crate::source::Source;
use crate::view::{Status, Worker};

mod account;
mod actions;
mod ahead;
mod batches;
mod elastic;
mod launches;
mod losses;
mod partitions;
mod programs;
mod steps;
mod timers;
mod workers;
mod world;

pub use programs::{Programs, Step};
pub use timers::{Alarm, INDICES, Timers};
pub use world::{Direction, LOADED, Launch, Part, Pass, Signal, World};

/// What a worker is executing, and so what its end means for the batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Phase {
    #[default]
    Nothing,
    /// The copy of the batch's inputs to the GPU.
    CopyIn,
    /// A kernel that the policy launched.
    Kernel,
    /// A pass over the model.
    Pass,
    /// The copy of the batch's results to the host.
    CopyOut,
}

/// What an [`Alarm::Policy`] stands for.
#[derive(Clone, Copy, Debug)]
enum Token {
    /// A timer that the policy set.
    Policy(u64),
    /// The end of a tenant's statistics window.
    Window(u32),
}

/// The host's own state of a worker, beside the [`Worker`] view that policies see.
#[derive(Clone, Debug, Default)]
struct Stage {
    batch: Vec<RequestId>,
    phase: Phase,
    /// The batch's program, as an index into its model's programs; its first launch in the table; its
    /// number of launches.
    program: u32,
    first: u32,
    count: u32,
    /// When the host began to issue the current pass.
    base: u64,
    /// Launches of the current pass that a shared host has issued.
    issued: u32,
    /// Passes over the program still to run; more than one for requests larger than the largest batch.
    passes: u32,
    /// Factor on kernel times: the largest `work` of any request in the batch.
    work: f64,
    /// Number of the tenant's requests that arrived before the first one of the batch.
    ordinal: u64,
    /// The share of the head kernel that its launch performs, and the earliest time at which it can start.
    part: Part,
    placed: u64,
    /// Launches queued behind the head, in stream order.
    behind: VecDeque<ahead::Flight>,
    /// Whether further kernels may follow the last launch, and the priority at which they do.
    leads: bool,
    priority: i8,
    /// An alarm is set for the time at which the host will have issued the first kernel not yet launched.
    awaiting: bool,
    /// How the launches are being preempted.
    preempting: Option<Preemption>,
    /// The state of the head kernel was saved at its preemption.
    saved: bool,
    /// For the owner of a merged launch: the other workers in it, whose kernels end with the owner's.
    merged: Vec<u32>,
    resize: Option<workers::Pending>,
    memory: Bytes,
}

/// The state machine above a world.
pub struct Host<'a, W> {
    world: W,
    setup: Arc<Setup>,
    programs: Programs,
    policy: &'a mut dyn Policy,
    depth: Depth,
    /// By tenant.
    depths: Vec<Depth>,
    /// By tenant: the maximum number of outstanding kernels per stream.
    outstanding: Vec<u32>,
    /// The policy starts batches, not the host.
    policy_batches: bool,
    pools: Vec<PoolSpec>,
    /// By pool: the repartitioning in progress, if any.
    cuts: Vec<Option<partitions::Cut>>,
    /// By pool: device memory in use.
    memory: Vec<Bytes>,
    /// By pool: when the host shared by its workers is next free.
    host_free: Vec<u64>,
    sources: Vec<Source>,
    serving: Serving,
    workers: Vec<Worker>,
    stages: Vec<Stage>,
    tokens: Vec<Token>,
    free_tokens: Vec<u32>,
    /// By tenant: why it has no workers left, if it has none.
    unserved: Vec<Option<&'static str>>,
    window: Nanos,
    warmup: Nanos,
    /// The run ends early once more requests than this are in the system, and whether it did.
    most: u64,
    cut: bool,
    actions: Vec<Action>,
    /// Set while actions are being carried out.
    acting: bool,
    /// Workers with a kernel that may follow, and about which the policy has yet to be told.
    offers: VecDeque<u32>,
    /// Scratch space: the kernels of the current merge.
    parts: Vec<u32>,
    /// The engines of generating workers; `seats` maps a worker to its engine.
    engines: Vec<Engine>,
    /// By engine: its memory, if the cache is elastic; and whether any memory has been released.
    mapped: Vec<Option<elastic::Mapped>>,
    released: bool,
    seats: Vec<Option<steps::Seat>>,
    /// Scratch space: the launches of the current step, and the requests that it completed.
    composed: Vec<Step>,
    answered: Vec<RequestId>,
    /// Scratch space: the idle workers being considered.
    idle: Vec<u32>,
}

impl<'a, W: World> Host<'a, W> {
    /// All workers are placed; no request has arrived yet. The counted window opens `warmup` after the
    /// start and lasts for `duration`.
    ///
    /// # Errors
    /// The workers of the layout do not fit into memory.
    ///
    /// # Panics
    /// The number of loads differs from the number of tenants, or the window is empty.
    pub fn new(
        world: W,
        setup: &Arc<Setup>,
        loads: Vec<Load>,
        layout: &Layout,
        policy: &'a mut dyn Policy,
        (warmup, duration): (Nanos, Nanos),
    ) -> Result<Self, Refusal> {
        assert_eq!(loads.len(), setup.tenants.len(), "one load per tenant");
        assert!(setup.tenants.len() < INDICES, "tenants fit an alarm's index");
        // A warm-up as long as the run would never open the window.
        assert!(duration > Nanos::ZERO, "a run has a window");
        let (depth, policy_batches) = (policy.depth(), policy.forms_batches());
        let depths: Vec<_> =
            (0..setup.tenants.len()).map(|t| policy.tenant_depth(t as u32).min(depth)).collect();
        let outstanding = (0..setup.tenants.len()).map(|t| policy.outstanding(t as u32).max(1));
        let mut host = Self {
            outstanding: outstanding.collect(),
            world,
            programs: Programs::new(setup),
            policy,
            depth,
            depths,
            policy_batches,
            pools: layout.pools.clone(),
            cuts: vec![None; layout.pools.len()],
            memory: vec![Bytes(0); layout.pools.len()],
            host_free: vec![0; layout.pools.len()],
            sources: loads.into_iter().map(Source::new).collect(),
            serving: Serving::new(setup),
            workers: vec![],
            stages: vec![],
            tokens: vec![],
            free_tokens: vec![],
            unserved: vec![None; setup.tenants.len()],
            window: duration,
            warmup,
            most: u64::MAX,
            cut: false,
            actions: vec![],
            acting: false,
            offers: VecDeque::new(),
            parts: vec![],
            engines: vec![],
            mapped: vec![],
            released: false,
            seats: vec![],
            composed: vec![],
            answered: vec![],
            idle: vec![],
            setup: Arc::clone(setup),
        };
        host.add_workers(layout)?;
        host.arm_loads();
        host.world.arm(warmup.0, Alarm::Window, 0);
        Ok(host)
    }

    /// Allocates memory for the metrics before the run begins, so that a dispatcher on the wall clock never
    /// stalls for it.
    pub fn reserve(&mut self) {
        self.serving.reserve();
    }

    fn add_workers(&mut self, layout: &Layout) -> Result<(), Refusal> {
        for spec in &layout.workers {
            let need = self.worker_memory(spec);
            self.take_memory(spec, need)?;
            let worker = self.add_worker(*spec, Status::Idle, need);
            self.seat(worker, spec)?;
        }
        self.world.lay_out(layout);
        for (worker, spec) in layout.workers.iter().enumerate() {
            self.world.open(worker as u32, spec);
        }
        // Highest index first, so that the lowest index serves first.
        for (worker, spec) in layout.workers.iter().enumerate().rev() {
            self.serving.idle(spec.tenant, worker as u32);
        }
        Ok(())
    }

    fn arm_loads(&mut self) {
        for (t, source) in self.sources.iter_mut().enumerate() {
            let alarm = if source.is_open() { Alarm::Arrival } else { Alarm::Client };
            for at in source.first() {
                self.world.arm(at.0.max(self.world.now()), alarm, t as u32);
            }
        }
    }

    /// Runs to the end.
    pub fn go(&mut self) {
        self.begin_run();
        self.drain();
    }

    /// Starts the clock and tells the policy that the run has begun.
    pub fn begin_run(&mut self) {
        self.world.start();
        self.tell(Event::Start);
    }

    /// Runs until the world has no further event: to the end of the run, or to the limit that was set.
    pub fn drain(&mut self) {
        while let Some(signal) = self.world.next() {
            self.signal(signal);
            if self.released {
                self.offer();
            }
            if self.cut {
                return;
            }
        }
    }

    /// Admits a request, handed over by a router, that arrives now.
    pub fn hand(&mut self, tenant: u32, request: &Request) {
        self.admit(tenant, request);
    }

    /// The number of a tenant's requests that are waiting or running.
    #[must_use]
    pub fn outstanding(&self, tenant: u32) -> u64 {
        self.serving.in_system(tenant)
    }

    /// Loses every worker of this host now. `cause` is the reason, in one word.
    pub fn fail(&mut self, cause: &'static str) {
        for worker in 0..self.workers.len() as u32 {
            self.lose(worker, cause);
        }
    }

    /// Ends the run early once more than `requests` requests are waiting or running: a queue that grows
    /// through the whole run would grow without end.
    pub fn hold_at_most(&mut self, requests: u64) {
        self.most = requests;
    }

    #[inline(always)]
    fn signal(&mut self, signal: Signal) {
        match signal {
            Signal::Ended(worker) => self.ended(worker),
            Signal::Alarm(alarm, index) => self.alarm(alarm, index),
            Signal::Preempted(worker, left) => self.preempted(worker, left),
            Signal::Recalled(worker, launches) => self.recalled(worker, launches),
            Signal::Lost(worker, cause) => self.lose(worker, cause),
            Signal::ShadowLost(worker) => self.forget_shadow(worker),
        }
    }

    #[inline(always)]
    fn alarm(&mut self, alarm: Alarm, index: u32) {
        match alarm {
            Alarm::Arrival => self.arrival(index),
            Alarm::Client => self.client(index),
            Alarm::Prepared => self.prepared(index),
            Alarm::Issued => self.issued(index),
            Alarm::Batch => {
                self.serving.woken(index, Nanos(self.world.now()));
                self.give_up_late(index);
                self.form(index, true);
            }
            Alarm::Up => self.worker_up(index),
            Alarm::Resized => self.resized(index),
            Alarm::Dispatched => self.dispatched(index),
            Alarm::Cut => self.cut(index),
            Alarm::Clock => self.world.set_clock(index),
            Alarm::Policy => {
                let token = self.tokens[index as usize];
                self.free_tokens.push(index);
                match token {
                    Token::Policy(token) => self.tell(Event::Timer { token }),
                    Token::Window(tenant) => self.close_window(tenant, Closes::OnTime),
                }
            }
            Alarm::Window => {
                self.serving.open_window(Nanos(self.world.now()), self.window);
                self.world.open_window();
            }
            Alarm::CopiedIn | Alarm::Placed | Alarm::CopiedOut | Alarm::Preempt => {
                unreachable!("a world keeps its own alarms to itself")
            }
        }
    }

    #[inline(always)]
    fn ended(&mut self, worker: u32) {
        match self.stages[worker as usize].phase {
            Phase::Kernel => self.kernel_done(worker),
            Phase::Pass => self.pass_done(worker),
            Phase::CopyIn => self.copied_in(worker),
            Phase::CopyOut => self.batch_done(worker),
            Phase::Nothing => unreachable!("only what is under way ends"),
        }
    }

    /// The world that this host runs on.
    pub fn world(&self) -> &W {
        &self.world
    }

    /// Mutable access to the world, to set how far it runs.
    pub fn world_mut(&mut self) -> &mut W {
        &mut self.world
    }

    /// Ends the run. Returns the report of what host and policy counted, and the world, which holds further
    /// results.
    #[must_use]
    pub fn finish(mut self) -> (crate::Report, W) {
        let report = self.report();
        (report, self.world)
    }
}
