//! A slow and obvious simulator of the whole device model, written from the documentation: every
//! event recomputes the grants and the slow-downs of everything, and what a policy sees is made afresh
//! whenever it is told something.
//!
//! Shared with the engine is only what results are defined by: a kernel's remaining time is brought
//! up to date when its own grant or slow-down changes and at no other instant, so that both round
//! alike; at the same instant kernels end before timers, the GPU's timers go before the host's, each
//! in the order in which they were set, batches that wait and the policy's timers last; what an action leads to at once is told before the next action is carried out; and the
//! curve of a merged launch.

mod ahead;
mod batches;
mod drive;
mod parts;
mod placement;
mod power;
mod rates;
mod slices;
mod streams;
mod workers;

use std::collections::VecDeque;
use std::sync::Arc;

use cotenant_profiles::Nanos;
use cotenant_sim::Refusal;
use cotenant_sim::action::{Closes, Event, Preemption, Via};
use cotenant_sim::contention::ContentionModel;
use cotenant_sim::layout::{Discipline, Host, Layout, PoolSpec, WorkerSpec};
use cotenant_sim::mask::CuMask;
use cotenant_sim::observe::Happening;
use cotenant_sim::policy::{Depth, Policy};
use cotenant_sim::program::{KernelCode, Program};
use cotenant_sim::scenario::{Jitter, Load, Scenario, Setup};
use cotenant_sim::serving::RequestId;
use cotenant_sim::view::{Status, Window};
use cotenant_traces::Request;

use placement::Way;

pub(crate) const NEVER: u64 = u64::MAX;

/// A kernel that was launched and has not ended.
#[derive(Clone, Debug)]
pub(crate) struct Job {
    pub(crate) worker: usize,
    pub(crate) kernel: usize,
    pub(crate) lane: usize,
    pub(crate) cap: u32,
    pub(crate) priority: i8,
    pub(crate) mask: Option<CuMask>,
    pub(crate) scale: f64,
    pub(crate) extra_ns: u64,
    /// How much of its kernel it is, and whether it goes on inside of blocks.
    pub(crate) part: f64,
    pub(crate) saved: bool,
    /// It goes when a wave of it ends.
    pub(crate) leaving: bool,
    pub(crate) order: u64,
    /// How it runs; `None` while it waits. And how long it takes so, or took so last.
    pub(crate) way: Option<Way>,
    pub(crate) ns: u64,
    /// Room that its blocks hold, in CUs full of them; in a lane with masks, which CUs, how much of
    /// each in 1/1024, and whether it would be on more.
    pub(crate) held: u64,
    pub(crate) cus: Vec<u32>,
    pub(crate) fill: u64,
    pub(crate) squeezed: bool,
    /// Its last wave is on the CUs.
    pub(crate) last: bool,
    /// From beginning to end, and what is left of it, at today's ways.
    pub(crate) whole: f64,
    pub(crate) left: f64,
    pub(crate) since: u64,
    pub(crate) slow: f64,
    /// Energy of its work over that at the boost clock.
    pub(crate) heat: f64,
    /// When a wave of it ends that somebody waits for.
    pub(crate) edge: u64,
}

pub(crate) struct Pool {
    pub(crate) spec: PoolSpec,
    pub(crate) jobs: Vec<Job>,
    pub(crate) masked: Vec<bool>,
    pub(crate) open: Vec<u32>,
    pub(crate) active: usize,
    pub(crate) turn_start: u64,
    pub(crate) slice_end: u64,
    pub(crate) switch_end: u64,
    /// When a lane last had no batch under way any more, and which.
    pub(crate) ended_batch: Option<(u64, usize)>,
    copies: [u64; 2],
    /// When a host that its workers share is free again.
    host_free: u64,
    /// Sizes that its lanes are to have, by which mechanism, and whether that is at work.
    cut: Option<(Vec<u32>, Via, bool)>,
    /// Hardware queues: the worker whose kernel is out, and those behind it.
    queues: Vec<(Option<usize>, VecDeque<Job>)>,
}

#[derive(Clone, Copy, Debug)]
enum Timer {
    Arrival(usize),
    Asks(usize),
    Prepared(usize),
    CopiedIn(usize),
    /// The worker's own host has issued its next launch.
    Issued(usize),
    /// A shared host has.
    IssuedByAll(usize),
    Placed(usize),
    Preempt(usize),
    CopiedOut(usize),
    Batch(usize),
    Up(usize),
    ShadowLoaded(usize),
    /// The lanes of a pool have other sizes.
    Cut(usize),
    /// A clock of so many MHz holds.
    Clock(u32),
    Policy(u64),
    /// The end of a tenant's statistics window.
    Closes(usize),
    Window,
}

struct Pending {
    arrival: u64,
    items: u32,
    work: f32,
    deadline: u64,
    /// Its time is over, and when it is given up if it still waits.
    limit: u64,
    expires: u64,
    began: u64,
    /// How many of its tenant came before.
    number: u64,
    prio: i8,
    tokens: (u32, u32),
    id: RequestId,
}

#[derive(Default)]
pub(crate) struct Counts {
    pub(crate) offered: u64,
    pub(crate) completed: u64,
    pub(crate) dropped: u64,
    pub(crate) good: u64,
    pub(crate) with_deadline: u64,
    pub(crate) batches: u64,
    pub(crate) batch_items: u64,
    pub(crate) in_system: u64,
    pub(crate) reconfigurations: u64,
    pub(crate) downtime_ns: u64,
    pub(crate) latency_sum: u128,
    pub(crate) queue_sum: u128,
    /// Waiting or running at the end, and too late already.
    pub(crate) in_flight_late: u64,
}

struct Source {
    load: Load,
    next: Option<Request>,
    issued: u64,
    arrived: u64,
    queue: VecDeque<Pending>,
    idle: Vec<usize>,
    batch_max: u32,
    batch_timeout: u64,
    batch_timer: u64,
    /// When its queue is looked through for requests that have expired.
    look: u64,
    /// What a statistics window has seen, and until when it is open, if it is.
    window: Option<Window>,
    open: Option<(u64, Closes)>,
}

/// What came of a run.
pub(crate) struct Outcome {
    pub(crate) log: Vec<(u64, Happening)>,
    pub(crate) counts: Vec<Counts>,
    pub(crate) busy_cu_ns: u64,
    pub(crate) cu_ns: f64,
    pub(crate) dram_bytes: f64,
    pub(crate) energy_mj: f64,
    pub(crate) lost_ns: f64,
    pub(crate) switches: u64,
    pub(crate) events: u64,
}

/// A change of a worker's share that was asked for.
struct Change {
    cap: u32,
    /// Memory of its shadow; a restart has none.
    shadow: Option<u64>,
    /// Nothing is in the way but the batch under way.
    ready: bool,
    /// It is its lane's.
    cut: bool,
    /// Since when the worker has stood still for it.
    down: Option<u64>,
}

struct Worker {
    spec: WorkerSpec,
    status: Status,
    /// How many streams were made before its own.
    stream: usize,
    /// The host has handed its batch to the GPU.
    handed: bool,
    /// The first kernel of its batch is in its stream.
    opened: bool,
    /// When its kernel was launched, and for how many CUs at most.
    launched: (u64, u32),
    memory: u64,
    retiring: bool,
    change: Option<Change>,
    batch: Vec<Pending>,
    items: u32,
    began: u64,
    deadline: u64,
    program: Program,
    position: usize,
    passes: u32,
    scale: f64,
    /// Number of the batch's first request.
    number: u64,
    host_base: u64,
    /// A shared host: launches issued in this pass, and whether the head waits for its own.
    issued: usize,
    unissued: bool,
    /// How the launch that is on its way will be placed: kernel, mask, priority.
    placement: (usize, Option<CuMask>, i8),
    /// Of the kernel at the head: what is still to be done, and how much of that its launch does.
    left: f64,
    share: f64,
    /// Its state was saved; so was that of the launch under way.
    saved: bool,
    resumes: bool,
    /// What its form adds to its time.
    longer: u64,
    /// When its launch is on the GPU.
    placed: u64,
    /// How and when it is to leave the CUs.
    leaves: Option<(Preemption, u64)>,
    /// Workers whose kernels are part of this one's launch.
    partners: Vec<usize>,
    /// What was launched behind the launch at the head: its CUs and when, what its form adds, when it
    /// is on the GPU.
    behind: VecDeque<Later>,
    /// The kernel that may come next.
    next: Option<u32>,
    /// Others may follow what was launched last.
    open_end: bool,
    /// The instant at which the host issues the first kernel that is not launched is waited for.
    awaits: bool,
}

#[derive(Clone, Copy)]
struct Later {
    launched: (u64, u32),
    longer: u64,
    placed: u64,
}

pub(crate) struct Oracle<'a> {
    pub(crate) setup: Arc<Setup>,
    pub(crate) contention: ContentionModel,
    /// The share of the boost clock that the board's limit leaves, and that a policy allows.
    pub(crate) clock: f64,
    pub(crate) most_clock: f64,
    policy: &'a mut dyn Policy,
    depth: Depth,
    /// By tenant.
    depths: Vec<Depth>,
    /// Launches of one stream at a time, by tenant.
    most: Vec<usize>,
    /// Events whose actions are being carried out, and who is to be told of meanwhile.
    acting: u32,
    offered: Vec<usize>,
    policy_batches: bool,
    jitter: Option<Box<dyn Jitter>>,
    /// The setup's kernels, then the merged ones with what they were made of.
    pub(crate) kernels: Vec<KernelCode>,
    merged: Vec<Vec<usize>>,
    pub(crate) pools: Vec<Pool>,
    sources: Vec<Source>,
    workers: Vec<Worker>,
    /// When; the GPU's first, then the host's, then those that let the instant pass; its number, what
    /// for.
    timers: Vec<(u64, u8, u64, Timer)>,
    set: u64,
    streams: usize,
    admitted: u32,
    jobs: u64,
    pub(crate) now: u64,
    warmup: u64,
    end: u64,
    out: Outcome,
}

impl<'a> Oracle<'a> {
    pub(crate) fn new(scenario: Scenario, policy: &'a mut dyn Policy) -> Result<Self, Refusal> {
        let layout = policy.layout(&scenario.setup)?;
        let Scenario { setup, loads, warmup, duration, contention, jitter } = scenario;
        let depth = policy.depth();
        let tenants = 0..setup.tenants.len() as u32;
        let depths = tenants.clone().map(|t| policy.tenant_depth(t).min(depth)).collect();
        let most = tenants.map(|t| policy.outstanding(t) as usize).collect();
        let hardware = setup.device.queues.hardware as usize;
        let pools = layout.pools.iter().enumerate().map(|(p, spec)| {
            let streams = layout.workers.iter().filter(|w| w.pool as usize == p).count();
            let limited = depth < Depth::Kernel
                && spec.discipline == Discipline::Concurrent
                && streams > hardware;
            Pool::new(spec, if limited { hardware } else { 0 })
        });
        let sources = loads.into_iter().zip(&setup.tenants).map(|(load, tenant)| Source {
            load,
            next: None,
            issued: 0,
            arrived: 0,
            queue: VecDeque::new(),
            idle: vec![],
            batch_max: tenant.batch_max,
            batch_timeout: tenant.batch_timeout.0,
            batch_timer: NEVER,
            look: NEVER,
            window: None,
            open: None,
        });
        let counts = setup.tenants.iter().map(|_| Counts::default()).collect();
        let mut oracle = Self {
            contention,
            clock: 1.0,
            most_clock: 1.0,
            policy_batches: policy.forms_batches(),
            policy,
            depth,
            depths,
            most,
            acting: 0,
            offered: vec![],
            jitter,
            kernels: setup.code.kernels.clone(),
            merged: vec![],
            pools: pools.collect(),
            sources: sources.collect(),
            workers: vec![],
            timers: vec![],
            set: 0,
            streams: 0,
            admitted: 0,
            jobs: 0,
            now: 0,
            warmup: warmup.0,
            end: warmup.0 + duration.0,
            out: Outcome {
                log: vec![],
                counts,
                busy_cu_ns: 0,
                cu_ns: 0.0,
                dram_bytes: 0.0,
                energy_mj: 0.0,
                lost_ns: 0.0,
                switches: 0,
                events: 0,
            },
            setup,
        };
        oracle.lay_out(&layout)?;
        Ok(oracle)
    }

    fn lay_out(&mut self, layout: &Layout) -> Result<(), Refusal> {
        for spec in &layout.workers {
            let memory = self.memory_of(spec);
            self.check_memory(spec, memory)?;
            self.workers.push(Worker::new(*spec, Status::Idle, memory));
            self.new_stream(self.workers.len() - 1);
        }
        // The first worker is the first to be taken.
        for w in (0..self.workers.len()).rev() {
            let tenant = self.workers[w].spec.tenant as usize;
            self.sources[tenant].idle.push(w);
        }
        Ok(())
    }

    pub(crate) fn run(mut self) -> Outcome {
        self.arm_loads();
        self.set(self.warmup, Timer::Window);
        self.tell(Event::Start);
        self.after();
        loop {
            let timer = self.timers.iter().enumerate().min_by_key(|(_, t)| (t.0, t.1, t.2));
            let timer = timer.map(|(i, t)| (t.0, i));
            let pool = (0..self.pools.len()).map(|p| (self.pools[p].next(), p)).min();
            let (pool_at, p) = pool.expect("a layout has a pool");
            let at = pool_at.min(timer.map_or(NEVER, |t| t.0)).min(self.end);
            let busy: u64 = (0..self.pools.len()).map(|p| self.busy(p)).sum();
            self.out.busy_cu_ns += busy * (at - self.now);
            let (speed, bytes, energy) = self.using(at - self.now);
            self.out.cu_ns += speed;
            self.out.dram_bytes += bytes;
            self.out.energy_mj += energy;
            self.out.lost_ns += (1.0 - self.clock) * (at - self.now) as f64;
            self.now = at;
            if at == self.end {
                self.count_down_workers();
                self.count_late();
                return self.out;
            }
            self.out.events += 1;
            match timer {
                Some((timer_at, i)) if timer_at < pool_at => {
                    let (_, _, _, timer) = self.timers.remove(i);
                    self.timer(timer);
                }
                _ => self.pool_event(p),
            }
            self.after();
        }
    }

    /// Whatever the event led to at this instant comes before anybody makes way.
    fn after(&mut self) {
        for p in 0..self.pools.len() {
            self.turn(p);
        }
        self.rerate();
        for p in 0..self.pools.len() {
            for i in 0..self.pools[p].jobs.len() {
                self.pools[p].jobs[i].edge = if self.pools[p].ends(i) == NEVER {
                    NEVER
                } else {
                    self.wave_that_counts(p, i)
                };
            }
        }
    }

    /// How deep the policy looks at a tenant.
    fn depth_of(&self, t: usize) -> Depth {
        self.depths[t]
    }

    /// The same at the tenant of a worker.
    fn depth_at(&self, w: usize) -> Depth {
        self.depths[self.workers[w].spec.tenant as usize]
    }

    fn set(&mut self, at: u64, timer: Timer) {
        self.set += 1;
        let of_gpu = match timer {
            Timer::CopiedIn(_) | Timer::CopiedOut(_) => true,
            Timer::Placed(_) | Timer::Preempt(_) => true,
            Timer::Issued(w) => self.depth_at(w) < Depth::Kernel,
            _ => false,
        };
        let late = matches!(timer, Timer::Batch(_) | Timer::Policy(_) | Timer::Closes(_));
        self.timers.push((at, u8::from(!of_gpu) + u8::from(late), self.set, timer));
    }

    /// A worker's process is made, and with it its stream.
    fn new_stream(&mut self, w: usize) {
        self.workers[w].stream = self.streams;
        self.streams += 1;
    }

    fn timer(&mut self, timer: Timer) {
        match timer {
            Timer::Arrival(t) => self.arrival(t),
            Timer::Asks(t) => self.asks(t),
            Timer::Prepared(w) => self.prepared(w),
            Timer::CopiedIn(w) => self.copied_in(w),
            Timer::Issued(w) => self.issued(w),
            Timer::IssuedByAll(w) => self.issued_by_all(w),
            Timer::Placed(w) => self.submit(w),
            Timer::Preempt(w) => self.preempt_now(w),
            Timer::CopiedOut(w) => self.batch_done(w),
            Timer::Batch(t) => {
                let (now, s) = (self.now, &mut self.sources[t]);
                for at in [&mut s.batch_timer, &mut s.look] {
                    if *at <= now {
                        *at = NEVER;
                    }
                }
                self.give_up_late(t);
                self.form(t, true);
            }
            Timer::Up(w) => self.up(w),
            Timer::ShadowLoaded(w) => self.shadow_loaded(w),
            Timer::Cut(p) => self.cut(p),
            Timer::Clock(mhz) => {
                let share = f64::from(mhz) / self.setup.device.clock.boost_mhz;
                self.most_clock = share.min(1.0);
            }
            Timer::Policy(token) => self.tell(Event::Timer { token }),
            Timer::Closes(t) => self.close_window(t, Closes::OnTime),
            Timer::Window => {
                for c in &mut self.out.counts {
                    let in_system = c.in_system;
                    *c = Counts { offered: in_system, in_system, ..Counts::default() };
                }
                self.out.busy_cu_ns = 0;
                self.out.cu_ns = 0.0;
                self.out.dram_bytes = 0.0;
                self.out.energy_mj = 0.0;
                self.out.lost_ns = 0.0;
                self.out.switches = 0;
            }
        }
    }
}

impl Pool {
    fn new(spec: &PoolSpec, queues: usize) -> Self {
        Self {
            spec: spec.clone(),
            jobs: vec![],
            masked: vec![false; spec.lanes.len()],
            open: vec![0; spec.lanes.len()],
            active: 0,
            turn_start: 0,
            slice_end: NEVER,
            switch_end: NEVER,
            ended_batch: None,
            copies: [0; 2],
            host_free: 0,
            cut: None,
            queues: (0..queues).map(|_| (None, VecDeque::new())).collect(),
        }
    }

    fn shares_host(&self) -> bool {
        self.spec.host == Host::Shared
    }
}

impl Worker {
    fn new(spec: WorkerSpec, status: Status, memory: u64) -> Self {
        Self {
            spec,
            status,
            stream: 0,
            handed: false,
            opened: false,
            launched: (0, 0),
            memory,
            retiring: false,
            change: None,
            batch: vec![],
            items: 0,
            began: 0,
            deadline: NEVER,
            program: Program { kernels: vec![], issued_ns: vec![], remaining_ns: vec![] },
            position: 0,
            passes: 0,
            scale: 1.0,
            number: 0,
            host_base: 0,
            issued: 0,
            unissued: false,
            placement: (0, None, 0),
            left: 1.0,
            share: 1.0,
            saved: false,
            resumes: false,
            longer: 0,
            placed: 0,
            leaves: None,
            partners: vec![],
            behind: VecDeque::new(),
            next: None,
            open_end: false,
            awaits: false,
        }
    }
}

/// Latency of work counts from here.
fn deadline(request: &Request, slo: Option<Nanos>) -> u64 {
    request.slo.or(slo).map_or(NEVER, |s| request.arrival.0 + s.0)
}
