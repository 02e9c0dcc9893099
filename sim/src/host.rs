//! The host: the state machine that carries a policy's decisions out. Queues, batches, launches,
//! workers, memory, mechanisms' costs, losses and the account, written once.
//!
//! A [`Host`] runs on a [`World`], which it knows by its trait alone: the simulator's
//! [`crate::VirtualWorld`], or a device on the wall clock. It has no clock and no GPU of its own.
//!
//! | what | where |
//! |---|---|
//! | requests arrive, form batches, are answered | `host/batches.rs` |
//! | engines that generate tokens: their batches are steps | `host/steps.rs` |
//! | caches whose memory follows what sequences hold | `host/elastic.rs` |
//! | a batch's kernels, where the policy launches them or workers share a host | `host/launches.rs` |
//! | several kernels of a stream launched at a time | `host/ahead.rs` |
//! | workers come, change, go and are lost | `host/workers.rs`, `host/losses.rs` |
//! | partitions are cut anew | `host/partitions.rs` |
//! | the policy is told, its actions are carried out | `host/actions.rs` |
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

/// What the end of something that a worker was given means for its batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Phase {
    #[default]
    Nothing,
    /// Its inputs are there.
    CopyIn,
    /// A kernel that the policy launched has ended.
    Kernel,
    /// A pass over the model.
    Pass,
    /// Its results are back.
    CopyOut,
}

/// What a policy's alarm is for.
#[derive(Clone, Copy, Debug)]
enum Token {
    /// The policy's own.
    Policy(u64),
    /// The end of a tenant's statistics window.
    Window(u32),
}

/// What a host keeps of a worker besides its [`Worker`] view.
#[derive(Clone, Debug, Default)]
struct Stage {
    batch: Vec<RequestId>,
    phase: Phase,
    /// The batch's program among its model's, where its launches begin, and how many they are.
    program: u32,
    first: u32,
    count: u32,
    /// When the host began to issue the current pass.
    base: u64,
    /// Launches of the current pass that a shared host has issued.
    issued: u32,
    /// Passes over the program left, for requests larger than the largest batch.
    passes: u32,
    /// Multiplies kernel times: the most work of a request in the batch.
    work: f64,
    /// How many requests of the tenant came before the batch's first one.
    ordinal: u64,
    /// How much of the kernel at the head its launch does, and when it starts at the earliest.
    part: Part,
    placed: u64,
    /// Launches behind that one, in order.
    behind: VecDeque<ahead::Flight>,
    /// Others may follow the last launch, at its priority.
    leads: bool,
    priority: i8,
    /// An alarm says when the host has issued the first kernel that is not launched.
    awaiting: bool,
    /// How the launches are being preempted.
    preempting: Option<Preemption>,
    /// The state of the kernel at the head was saved.
    saved: bool,
    /// Owner of a merged launch: the others follow its end.
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
    /// By tenant: most kernels of a stream outstanding.
    outstanding: Vec<u32>,
    /// The policy starts batches, not the host.
    policy_batches: bool,
    pools: Vec<PoolSpec>,
    /// By pool: a change of its lanes under way.
    cuts: Vec<Option<partitions::Cut>>,
    /// By pool: device memory taken.
    memory: Vec<Bytes>,
    /// By pool: when a host that its workers share is free again.
    host_free: Vec<u64>,
    sources: Vec<Source>,
    serving: Serving,
    workers: Vec<Worker>,
    stages: Vec<Stage>,
    tokens: Vec<Token>,
    free_tokens: Vec<u32>,
    /// By tenant: why nobody serves it any more.
    unserved: Vec<Option<&'static str>>,
    window: Nanos,
    warmup: Nanos,
    /// More requests than this end the run, and whether there were.
    most: u64,
    cut: bool,
    actions: Vec<Action>,
    /// Actions are being carried out.
    acting: bool,
    /// Workers with a kernel that may follow, of which the policy is to be told.
    offers: VecDeque<u32>,
    /// The kernels of the merge at hand.
    parts: Vec<u32>,
    /// Of workers that generate, and by worker who has which.
    engines: Vec<Engine>,
    /// By engine: its memory, if that is elastic; and whether some has been given back.
    mapped: Vec<Option<elastic::Mapped>>,
    released: bool,
    seats: Vec<Option<steps::Seat>>,
    /// The launches of the step at hand, and the requests that it has answered.
    composed: Vec<Step>,
    answered: Vec<RequestId>,
    /// Idle workers that are looked at.
    idle: Vec<u32>,
}

impl<'a, W: World> Host<'a, W> {
    /// Everybody at their places, nothing asked for yet. What is counted begins `warmup` after the
    /// start and lasts for `duration`.
    ///
    /// # Errors
    /// The workers of the layout do not fit into memory.
    ///
    /// # Panics
    /// There is not one load per tenant, or the window is empty.
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

    /// Takes the memory of what is counted as the run goes on, before it begins: a dispatcher on the wall
    /// clock does not stop for it.
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
        // The highest index first, so that the lowest serves first.
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

    /// Time starts.
    pub fn begin_run(&mut self) {
        self.world.start();
        self.tell(Event::Start);
    }

    /// Runs until the world has nothing more to tell: to its end, or as far as it is to go.
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

    /// A request that a router hands to this host arrives now.
    pub fn hand(&mut self, tenant: u32, request: &Request) {
        self.admit(tenant, request);
    }

    /// Requests of a tenant that wait or run.
    #[must_use]
    pub fn outstanding(&self, tenant: u32) -> u64 {
        self.serving.in_system(tenant)
    }

    /// Everything under this host is lost now, for the reason given in a word.
    pub fn fail(&mut self, cause: &'static str) {
        for worker in 0..self.workers.len() as u32 {
            self.lose(worker, cause);
        }
    }

    /// The run ends early when more requests than this wait or run: a queue that grows through a whole
    /// run grows without end.
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

    /// The world below.
    pub fn world(&self) -> &W {
        &self.world
    }

    /// The same, to be told how far time is to go.
    pub fn world_mut(&mut self) -> &mut W {
        &mut self.world
    }

    /// What the host and its policy counted, and the world, which has more to tell.
    #[must_use]
    pub fn finish(mut self) -> (crate::Report, W) {
        let report = self.report();
        (report, self.world)
    }
}
