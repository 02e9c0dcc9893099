//! The event loop: pick the next instant, apply it, ask the policy, act.
//!
//! Two sources of events, none ever stale: a heap of timers (arrivals, host stages, copies, the
//! policy's own) and one next instant per pool. At equal times pools go before timers, and timers in
//! the order in which they were set.

use std::cmp::Reverse;
use std::collections::binary_heap::PeekMut;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::sync::Arc;

use cotenant_profiles::device::Mechanism;
use cotenant_profiles::{Bytes, Nanos};
use cotenant_traces::Request;
use cotenant_traces::rng::mix;

use crate::action::{Action, Event, Resize, Via};
use crate::contention::ContentionModel;
use crate::layout::{Discipline, Host, Layout, PoolSpec, WorkerSpec};
use crate::metrics::Counts;
use crate::observe::{Happening, Observer};
use crate::policy::{Depth, Policy};
use crate::pool::{Ended, Job, NEVER, Note, Pool, UNMASKED};
use crate::program::{Code, KernelCode};
use crate::report::{GpuReport, Refusal, Report, TenantReport};
use crate::scenario::{Jitter, Load, Scenario, Setup, Think};
use crate::view::{Status, TenantView, View, Worker};

/// Simulates `scenario` under `policy`.
///
/// # Errors
/// The policy cannot lay the tenants out, or they do not fit into memory.
pub fn run<'a>(
    scenario: Scenario,
    policy: &'a mut dyn Policy,
    observer: Option<&'a mut dyn Observer>,
) -> Result<Report, Refusal> {
    let layout = policy.layout(&scenario.setup)?;
    if layout.pools.iter().any(|p| p.discipline == Discipline::Fluid) {
        return Ok(crate::fluid::run(scenario, observer));
    }
    let mut engine = Engine::new(scenario, &layout, policy, observer)?;
    engine.go();
    Ok(engine.report())
}

/// A request in the system.
#[derive(Clone, Copy, Debug)]
struct Live {
    tenant: u32,
    items: u32,
    arrival: u64,
    /// [`NEVER`] without a deadline.
    deadline: u64,
    began: u64,
    work: f32,
    /// How many of its tenant came before it.
    ordinal: u64,
}

/// What an engine keeps of a tenant besides its [`TenantView`].
struct Source {
    load: Load,
    /// The arrival that the timer stands for (open loop).
    next: Request,
    /// Closed-loop requests issued.
    issued: u64,
    queue: VecDeque<u32>,
    idle: Vec<u32>,
    counts: Counts,
    in_system: u64,
    /// A batch timer is set for this instant.
    batch_timer: u64,
    /// When the window opened.
    opened: u64,
}

/// What an engine keeps of a worker besides its [`Worker`] view.
#[derive(Clone, Debug, Default)]
struct Stage {
    batch: Vec<u32>,
    /// The batch's program: where in [`Engine::launches`], and how many.
    first: u32,
    count: u32,
    /// When the host began to issue the current pass.
    host_base: u64,
    /// Launches of the current pass that a shared host has issued.
    issued: u32,
    /// The kernel at the head waits for a shared host to issue it.
    unissued: bool,
    /// What the launch on its way through the host will run.
    launching: u32,
    /// Passes over the program left, for requests larger than the largest batch.
    passes: u32,
    scale: f64,
    /// Of the batch's first request, for the jitter.
    ordinal: u64,
    /// How the held kernel is to be placed once its mechanism has taken effect.
    placement: Placement,
    resize: Option<Pending>,
    memory: u64,
    /// Head of a merged launch: the others follow its completion.
    merged: Vec<u32>,
}

/// A resize under way.
#[derive(Clone, Copy, Debug)]
struct Pending {
    cap: u32,
    /// Memory of the shadow, given back when it has taken over.
    extra: u64,
    step: Step,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// Restart once the batch is done.
    Restart,
    /// The shadow is loading; the worker serves on.
    Loading,
    /// The shadow has loaded: switch once the batch is done.
    Loaded,
}

#[derive(Clone, Copy, Debug, Default)]
struct Placement {
    mask: Option<crate::mask::CuMask>,
    priority: i8,
}

/// What a timer is for; the rest of the key's low word is an index.
mod timer {
    pub(super) const ARRIVAL: u32 = 0;
    pub(super) const CLOSED: u32 = 1;
    pub(super) const PREPARED: u32 = 2;
    pub(super) const COPIED_IN: u32 = 3;
    pub(super) const ISSUED: u32 = 4;
    pub(super) const PLACED: u32 = 5;
    pub(super) const COPIED_OUT: u32 = 6;
    pub(super) const BATCH: u32 = 7;
    pub(super) const UP: u32 = 8;
    pub(super) const POLICY: u32 = 9;
    pub(super) const WINDOW: u32 = 10;
    pub(super) const RESIZED: u32 = 11;
    // 12 and 13 note what is no timer.
    pub(super) const DISPATCHED: u32 = 14;
}

/// Bits of a timer key that hold the index; the kind takes four more, the sequence the other 40.
const INDEX_BITS: u32 = 20;

/// One launch of a program.
#[derive(Clone, Copy, Debug)]
struct Launch {
    kernel: u32,
    /// After the host began the pass.
    issued_ns: u64,
}

struct CopyEngines {
    /// When each direction is free again.
    free: [u64; 2],
    shared: bool,
}

/// Streams beyond the hardware's queues wait in them in order.
#[derive(Default)]
struct HardwareQueues {
    limit: u32,
    busy: Vec<bool>,
    waiting: Vec<VecDeque<Job>>,
}

struct Engine<'a> {
    setup: Arc<Setup>,
    /// The setup's kernels, and behind them the merged ones met so far.
    code: Code,
    /// Which kernel a sorted list of kernels merges into.
    merged: HashMap<Vec<u32>, u32>,
    /// The kernels of the merge at hand, sorted.
    parts: Vec<u32>,
    /// Every program's launches, one after the other.
    launches: Vec<Launch>,
    /// By tenant and program: where its launches begin, and how many.
    programs: Vec<Vec<(u32, u32)>>,
    contention: ContentionModel,
    jitter: Option<Box<dyn Jitter>>,
    policy: &'a mut dyn Policy,
    depth: Depth,
    /// The policy starts batches, not the engine.
    policy_batches: bool,
    observer: Option<&'a mut dyn Observer>,
    specs: Vec<PoolSpec>,
    pools: Vec<Pool>,
    copies: Vec<CopyEngines>,
    /// By pool: when a host that its workers share is free again.
    hosts: Vec<u64>,
    queues: Vec<HardwareQueues>,
    memory: Vec<u64>,
    tenants: Vec<TenantView>,
    sources: Vec<Source>,
    workers: Vec<Worker>,
    stages: Vec<Stage>,
    requests: Vec<Live>,
    free: Vec<u32>,
    timers: BinaryHeap<Reverse<u128>>,
    sequence: u64,
    tokens: Vec<u64>,
    free_tokens: Vec<u32>,
    now: u64,
    end: u64,
    warmup: u64,
    opened: Opened,
    events: u64,
    digest: u64,
    actions: Vec<Action>,
}

/// Totals when the window opened.
#[derive(Clone, Copy, Debug, Default)]
struct Opened {
    busy_cu_ns: u64,
    dram_bytes: f64,
    switches: u64,
}

impl<'a> Engine<'a> {
    fn new(
        scenario: Scenario,
        layout: &Layout,
        policy: &'a mut dyn Policy,
        observer: Option<&'a mut dyn Observer>,
    ) -> Result<Self, Refusal> {
        let Scenario { setup, loads, warmup, duration, contention, jitter } = scenario;
        assert_eq!(loads.len(), setup.tenants.len(), "one load per tenant");
        assert!(setup.tenants.len() < 1 << INDEX_BITS, "tenants fit a timer's index");
        let (depth, policy_batches) = (policy.depth(), policy.forms_batches());
        let observed = observer.is_some();
        let pools: Vec<_> = layout
            .pools
            .iter()
            .map(|p| Pool::new(p, &setup.device, &contention, observed))
            .collect();
        let copies =
            layout.pools.iter().map(|p| CopyEngines { free: [0; 2], shared: p.copy_engines < 2 });
        let tenants = setup.tenants.iter().map(|t| TenantView {
            queued: 0,
            queued_items: 0,
            oldest: Nanos::MAX,
            oldest_deadline: Nanos::MAX,
            arrived: 0,
            batch_max: t.batch_max,
            batch_timeout: t.batch_timeout,
        });
        let sources = loads.into_iter().map(|load| Source {
            load,
            next: Request::at(Nanos::ZERO),
            issued: 0,
            queue: VecDeque::new(),
            idle: vec![],
            counts: Counts::default(),
            in_system: 0,
            batch_timer: NEVER,
            opened: 0,
        });
        let mut engine = Self {
            contention,
            jitter,
            policy,
            depth,
            policy_batches,
            observer,
            specs: layout.pools.clone(),
            copies: copies.collect(),
            hosts: vec![0; layout.pools.len()],
            queues: layout.pools.iter().map(|_| HardwareQueues::default()).collect(),
            memory: vec![0; pools.len()],
            pools,
            tenants: tenants.collect(),
            sources: sources.collect(),
            workers: vec![],
            stages: vec![],
            requests: vec![],
            free: vec![],
            timers: BinaryHeap::new(),
            sequence: 0,
            tokens: vec![],
            free_tokens: vec![],
            now: 0,
            end: warmup.0 + duration.0,
            warmup: warmup.0,
            opened: Opened::default(),
            events: 0,
            digest: 0,
            actions: vec![],
            code: setup.code.clone(),
            merged: HashMap::new(),
            parts: vec![],
            launches: vec![],
            programs: vec![],
            setup,
        };
        engine.lay_programs();
        engine.add_workers(layout)?;
        engine.arm_loads();
        Ok(engine)
    }

    fn lay_programs(&mut self) {
        let setup = Arc::clone(&self.setup);
        for tenant in &setup.tenants {
            let mut spans = vec![];
            for program in &tenant.model.programs {
                spans.push((self.launches.len() as u32, program.kernels.len() as u32));
                let launches = program.kernels.iter().zip(&program.issued_ns);
                self.launches
                    .extend(launches.map(|(&kernel, &issued_ns)| Launch { kernel, issued_ns }));
            }
            self.programs.push(spans);
        }
    }

    fn add_workers(&mut self, layout: &Layout) -> Result<(), Refusal> {
        for spec in &layout.workers {
            let need = self.worker_memory(spec);
            self.take_memory(spec, need)?;
            self.add_worker(*spec, Status::Idle, need);
        }
        // The highest index first, so that the lowest is popped first.
        for (i, w) in self.workers.iter().enumerate().rev() {
            self.sources[w.spec.tenant as usize].idle.push(i as u32);
        }
        for (p, pool) in self.specs.iter().enumerate() {
            let specs = || layout.workers.iter().filter(move |w| w.pool as usize == p);
            if self.depth < Depth::Kernel && pool.discipline == Discipline::Concurrent {
                self.queues[p].limit(specs().count() as u32, self.setup.device.queues.hardware);
            }
        }
        Ok(())
    }

    fn add_worker(&mut self, spec: WorkerSpec, status: Status, memory: u64) -> u32 {
        assert!(self.workers.len() < 1 << INDEX_BITS, "workers fit a timer's index");
        self.workers.push(Worker {
            spec,
            status,
            items: 0,
            position: 0,
            kernel: 0,
            began: Nanos::ZERO,
            deadline: Nanos::MAX,
            retiring: false,
            resizing: false,
        });
        self.stages.push(Stage { memory, ..Stage::default() });
        self.workers.len() as u32 - 1
    }

    /// Device memory of one worker: model and context.
    fn worker_memory(&self, spec: &WorkerSpec) -> u64 {
        let model = &self.setup.tenants[spec.tenant as usize].model;
        model.memory().0 + spec.overhead.0
    }

    fn take_memory(&mut self, spec: &WorkerSpec, need: u64) -> Result<(), Refusal> {
        let used = &mut self.memory[spec.pool as usize];
        let have = self.specs[spec.pool as usize].memory;
        if *used + need > have.0 {
            let who =
                format!("a worker of tenant `{}`", self.setup.tenants[spec.tenant as usize].name);
            return Err(Refusal::OutOfMemory { who, need: Bytes(*used + need), have });
        }
        *used += need;
        Ok(())
    }

    fn arm_loads(&mut self) {
        for t in 0..self.sources.len() as u32 {
            let source = &mut self.sources[t as usize];
            match &mut source.load {
                Load::Open(arrivals) => {
                    if let Some(request) = arrivals.next_request() {
                        source.next = request;
                        self.arm(request.arrival.0, timer::ARRIVAL, t);
                    }
                }
                Load::Closed { concurrency, limit, .. } => {
                    let clients = u64::from(*concurrency).min(limit.unwrap_or(u64::MAX));
                    source.issued = clients;
                    for _ in 0..clients {
                        self.arm(0, timer::CLOSED, t);
                    }
                }
            }
        }
        self.arm(self.warmup, timer::WINDOW, 0);
    }

    fn key(&mut self, at: u64, kind: u32, index: u32) -> u128 {
        self.sequence += 1;
        let low = self.sequence << (INDEX_BITS + 4) | u64::from(kind << INDEX_BITS | index);
        u128::from(at) << 64 | u128::from(low)
    }

    fn arm(&mut self, at: u64, kind: u32, index: u32) {
        let key = self.key(at, kind, index);
        self.timers.push(Reverse(key));
    }

    fn go(&mut self) {
        self.tell(Event::Start);
        self.settle();
        loop {
            let timer = self.timers.peek().map_or(NEVER, |k| (k.0 >> 64) as u64);
            let (mut at, mut pool) = (NEVER, 0);
            for (i, p) in self.pools.iter().enumerate() {
                if p.next < at {
                    (at, pool) = (p.next, i);
                }
            }
            let next = at.min(timer);
            if next >= self.end {
                break;
            }
            assert!(next >= self.now, "time runs forward");
            self.now = next;
            self.events += 1;
            if at <= timer {
                self.pool_event(pool);
            } else {
                self.timer_event();
            }
            self.settle();
        }
        self.now = self.end;
        // A warm-up as long as the run never opens the window by itself.
        assert!(self.end > self.warmup, "a run has a window");
    }

    #[inline]
    fn note(&mut self, kind: u32, index: u32) {
        let word = self.now ^ u64::from(kind) << 56 ^ u64::from(index) << 32;
        self.digest = (self.digest ^ word).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(29);
    }

    #[inline]
    fn settle(&mut self) {
        for pool in &mut self.pools {
            pool.settle(self.now, &self.code, &self.contention);
        }
        if self.observer.is_some() {
            self.drain_notes();
        }
    }

    #[inline]
    fn pool_event(&mut self, p: usize) {
        let ended = self.pools[p].advance(self.now, &self.code);
        let Ended::Kernel { owner, kernel } = ended else {
            self.note(13, p as u32);
            return;
        };
        self.note(12, owner);
        self.observe(Happening::KernelEnded { worker: owner, kernel });
        if self.queues[p].limit > 0 {
            self.next_in_queue(p, owner);
        }
        if self.depth == Depth::Kernel {
            self.tell(Event::KernelDone { worker: owner });
            if !self.stages[owner as usize].merged.is_empty() {
                let others = std::mem::take(&mut self.stages[owner as usize].merged);
                for &w in &others {
                    self.tell(Event::KernelDone { worker: w });
                    self.kernel_ended(w);
                }
                // Keep the allocation for the next merge.
                let mut others = others;
                others.clear();
                self.stages[owner as usize].merged = others;
            }
        }
        self.kernel_ended(owner);
    }

    #[inline]
    fn kernel_ended(&mut self, worker: u32) {
        let w = &mut self.workers[worker as usize];
        let stage = &mut self.stages[worker as usize];
        w.position += 1;
        if w.position < stage.count {
            self.head(worker);
            return;
        }
        stage.passes -= 1;
        if stage.passes > 0 {
            w.position = 0;
            stage.host_base = self.now;
            self.begin_pass(worker);
            self.head(worker);
            return;
        }
        w.position = 0;
        let (pool, lane, items) = (w.spec.pool as usize, w.spec.lane, w.items);
        let model = &self.setup.tenants[w.spec.tenant as usize].model;
        let bytes = model.output_per_item.0 * u64::from(items);
        self.pools[pool].batch(lane, false);
        match self.copy(pool, 1, bytes) {
            Some(done) => {
                self.workers[worker as usize].status = Status::Host;
                self.arm(done, timer::COPIED_OUT, worker);
            }
            None => self.batch_done(worker),
        }
    }

    /// Reserves a copy engine; `None` if the copy takes no time.
    fn copy(&mut self, pool: usize, direction: usize, bytes: u64) -> Option<u64> {
        let pcie = &self.setup.device.pcie;
        let gbps = if direction == 0 { pcie.h2d_gbps } else { pcie.d2h_gbps };
        // 10^9 bytes per second are bytes per nanosecond.
        let ns = libm::ceil(bytes as f64 / gbps) as u64;
        if ns == 0 {
            return None;
        }
        let engines = &mut self.copies[pool];
        let lane = if engines.shared { 0 } else { direction };
        let done = engines.free[lane].max(self.now) + ns;
        engines.free[lane] = done;
        Some(done)
    }

    /// The worker's next kernel is at the head of its stream: wait for the host, or go.
    #[inline]
    fn head(&mut self, worker: u32) {
        let w = &mut self.workers[worker as usize];
        let stage = &self.stages[worker as usize];
        let launch = self.launches[(stage.first + w.position) as usize];
        w.kernel = launch.kernel;
        if self.specs[w.spec.pool as usize].host == Host::Shared {
            if self.depth == Depth::Kernel || stage.issued > w.position {
                self.ready(worker);
            } else {
                w.status = Status::Host;
                self.stages[worker as usize].unissued = true;
            }
            return;
        }
        let issued = stage.host_base + launch.issued_ns;
        if issued > self.now {
            w.status = Status::Host;
            self.arm(issued, timer::ISSUED, worker);
        } else {
            self.ready(worker);
        }
    }

    /// The host begins to issue the launches of a pass.
    fn begin_pass(&mut self, worker: u32) {
        let pool = self.workers[worker as usize].spec.pool as usize;
        if self.specs[pool].host == Host::Shared && self.depth < Depth::Kernel {
            self.stages[worker as usize].issued = 0;
            self.dispatch_next(worker);
        }
    }

    /// The worker's thread queues for the process's lock, to issue its next launch.
    fn dispatch_next(&mut self, worker: u32) {
        let stage = &self.stages[worker as usize];
        if stage.issued < stage.count {
            let ns = self.launch_ns(worker, stage.issued);
            let at = self.host_until(worker, ns);
            self.arm(at, timer::DISPATCHED, worker);
        }
    }

    fn dispatched(&mut self, worker: u32) {
        let stage = &mut self.stages[worker as usize];
        stage.issued += 1;
        let heads = std::mem::take(&mut stage.unissued);
        self.dispatch_next(worker);
        if heads {
            self.ready(worker);
        }
    }

    /// Host time of one launch of the worker's batch.
    fn launch_ns(&self, worker: u32, position: u32) -> u64 {
        let at = (self.stages[worker as usize].first + position) as usize;
        let before = if position > 0 { self.launches[at - 1].issued_ns } else { 0 };
        self.launches[at].issued_ns - before
    }

    /// When a shared host will have spent `ns` more, after what it has to do already.
    fn host_until(&mut self, worker: u32, ns: u64) -> u64 {
        let free = &mut self.hosts[self.workers[worker as usize].spec.pool as usize];
        *free = (*free).max(self.now) + ns;
        *free
    }

    #[inline]
    fn ready(&mut self, worker: u32) {
        if self.depth == Depth::Kernel {
            self.workers[worker as usize].status = Status::Held;
            self.tell(Event::KernelReady { worker });
            return;
        }
        let priority = self.workers[worker as usize].spec.priority;
        self.submit(
            worker,
            Placement { mask: None, priority },
            self.workers[worker as usize].kernel,
        );
    }

    #[inline]
    fn submit(&mut self, worker: u32, placement: Placement, kernel: u32) {
        let w = &mut self.workers[worker as usize];
        w.status = Status::Launched;
        let stage = &self.stages[worker as usize];
        let mut scale = stage.scale;
        if let Some(jitter) = &mut self.jitter {
            scale *= jitter.factor(w.spec.tenant, stage.ordinal, w.position);
        }
        let pool = w.spec.pool as usize;
        let job = Job {
            owner: worker,
            kernel,
            lane: w.spec.lane,
            cap: w.spec.cap,
            priority: placement.priority,
            mask: placement.mask.map_or(UNMASKED, |m| self.pools[pool].masked(m)),
            scale,
            extra_ns: 0,
        };
        let queues = &mut self.queues[pool];
        if queues.limit > 0 {
            let q = (worker % queues.limit) as usize;
            let job = Job { extra_ns: self.setup.device.queues.overflow.0, ..job };
            if queues.busy[q] {
                queues.waiting[q].push_back(job);
                return;
            }
            queues.busy[q] = true;
            self.pools[pool].submit(self.now, job, &self.code);
            return;
        }
        self.pools[pool].submit(self.now, job, &self.code);
    }

    fn next_in_queue(&mut self, p: usize, owner: u32) {
        let queues = &mut self.queues[p];
        let q = (owner % queues.limit) as usize;
        match queues.waiting[q].pop_front() {
            Some(job) => {
                self.pools[p].submit(self.now, job, &self.code);
            }
            None => queues.busy[q] = false,
        }
    }
}

impl HardwareQueues {
    fn limit(&mut self, streams: u32, hardware: u32) {
        if streams > hardware {
            self.limit = hardware;
            self.busy = vec![false; hardware as usize];
            self.waiting = (0..hardware).map(|_| VecDeque::new()).collect();
        }
    }
}

/// Requests and batches.
impl Engine<'_> {
    fn timer_event(&mut self) {
        let top = self.timers.peek().expect("a timer is due").0;
        let low = top as u64;
        let index = low as u32 & ((1 << INDEX_BITS) - 1);
        let kind = low as u32 >> INDEX_BITS & 0xF;
        self.note(kind, index);
        if kind == timer::ARRIVAL {
            self.arrival(index);
            return;
        }
        self.timers.pop();
        match kind {
            timer::CLOSED => self.closed_arrival(index),
            timer::PREPARED => self.prepared(index),
            timer::COPIED_IN => self.copied_in(index),
            timer::ISSUED => self.ready(index),
            timer::PLACED => {
                let Stage { placement, launching, .. } = self.stages[index as usize];
                self.submit(index, placement, launching);
            }
            timer::COPIED_OUT => self.batch_done(index),
            timer::BATCH => {
                self.sources[index as usize].batch_timer = NEVER;
                self.form_batches(index);
            }
            timer::UP => self.worker_up(index),
            timer::RESIZED => self.resized(index),
            timer::DISPATCHED => self.dispatched(index),
            timer::POLICY => {
                let token = self.tokens[index as usize];
                self.free_tokens.push(index);
                self.tell(Event::Timer { token });
            }
            timer::WINDOW => self.open_window(),
            other => unreachable!("no timer is of kind {other}"),
        }
    }

    /// An open-loop arrival; the timer at the top of the heap becomes the tenant's next one.
    fn arrival(&mut self, tenant: u32) {
        let source = &mut self.sources[tenant as usize];
        let request = source.next;
        let Load::Open(arrivals) = &mut source.load else { unreachable!("an open-loop timer") };
        let following = arrivals.next_request();
        if let Some(next) = following {
            assert!(next.arrival >= request.arrival, "arrivals come in time order");
            source.next = next;
        }
        let key = following.map(|next| self.key(next.arrival.0, timer::ARRIVAL, tenant));
        {
            let mut top = self.timers.peek_mut().expect("it is the timer being served");
            match key {
                // Replacing the top costs one sift instead of two.
                Some(key) => *top = Reverse(key),
                None => drop(PeekMut::pop(top)),
            }
        }
        self.admit(tenant, &request);
    }

    fn closed_arrival(&mut self, tenant: u32) {
        let Load::Closed { items, .. } = self.sources[tenant as usize].load else {
            unreachable!("a closed-loop timer")
        };
        let request = Request { items, ..Request::at(Nanos(self.now)) };
        self.admit(tenant, &request);
    }

    fn admit(&mut self, tenant: u32, request: &Request) {
        let t = tenant as usize;
        let slo = request.slo.or(self.setup.tenants[t].slo);
        let live = Live {
            tenant,
            items: request.items.max(1),
            arrival: request.arrival.0,
            deadline: slo.map_or(NEVER, |s| request.arrival.0.saturating_add(s.0)),
            began: 0,
            work: request.work,
            ordinal: self.tenants[t].arrived,
        };
        let id = match self.free.pop() {
            Some(id) => {
                self.requests[id as usize] = live;
                id
            }
            None => {
                self.requests.push(live);
                self.requests.len() as u32 - 1
            }
        };
        let (source, view) = (&mut self.sources[t], &mut self.tenants[t]);
        source.counts.offered += 1;
        source.in_system += 1;
        source.queue.push_back(id);
        view.arrived += 1;
        view.queued += 1;
        view.queued_items += live.items;
        if view.queued == 1 {
            view.oldest = Nanos(live.arrival);
            view.oldest_deadline = Nanos(live.deadline);
        }
        self.observe(Happening::Arrived { tenant });
        if self.depth >= Depth::Request {
            self.tell(Event::RequestArrived { tenant });
        }
        if !self.policy_batches {
            self.form_batches(tenant);
        }
    }

    /// Starts batches while a worker is idle and a batch is full or has waited long enough.
    fn form_batches(&mut self, tenant: u32) {
        let t = tenant as usize;
        while self.tenants[t].queued > 0 && !self.sources[t].idle.is_empty() {
            let view = &self.tenants[t];
            let due = view.oldest.0.saturating_add(view.batch_timeout.0);
            if view.queued_items < view.batch_max && due > self.now {
                let source = &mut self.sources[t];
                if source.batch_timer > due {
                    source.batch_timer = due;
                    self.arm(due, timer::BATCH, tenant);
                }
                return;
            }
            let worker = self.sources[t].idle.pop().expect("checked above");
            let items = self.tenants[t].batch_max;
            self.begin(worker, items);
        }
    }

    /// Takes up to `max` items off the queue and starts them on an idle worker.
    fn begin(&mut self, worker: u32, max: u32) {
        let w = &mut self.workers[worker as usize];
        let t = w.spec.tenant as usize;
        let stage = &mut self.stages[worker as usize];
        let (source, view) = (&mut self.sources[t], &mut self.tenants[t]);
        let (mut items, mut scale, mut deadline) = (0, 0f32, NEVER);
        while let Some(&id) = source.queue.front() {
            let live = &mut self.requests[id as usize];
            if items > 0 && items + live.items > max {
                break;
            }
            source.queue.pop_front();
            live.began = self.now;
            if items == 0 {
                stage.ordinal = live.ordinal;
            }
            items += live.items;
            scale = scale.max(live.work);
            deadline = deadline.min(live.deadline);
            stage.batch.push(id);
        }
        assert!(items > 0, "a batch begins with a request");
        view.queued -= stage.batch.len() as u32;
        view.queued_items -= items;
        let front = source.queue.front().map(|&id| &self.requests[id as usize]);
        view.oldest = Nanos(front.map_or(NEVER, |r| r.arrival));
        view.oldest_deadline = Nanos(front.map_or(NEVER, |r| r.deadline));
        let model = &self.setup.tenants[t].model;
        let largest = model.max_items();
        stage.passes = items.div_ceil(largest);
        let program = model.program_for[items.min(largest) as usize];
        (stage.first, stage.count) = self.programs[t][program as usize];
        stage.scale = f64::from(scale);
        w.status = Status::Host;
        (w.items, w.position) = (items, 0);
        (w.began, w.deadline) = (Nanos(self.now), Nanos(deadline));
        let prepare = model.host_per_request.0 * stage.batch.len() as u64;
        self.observe(Happening::BatchBegan { worker, items });
        if prepare > 0 {
            self.arm(self.now + prepare, timer::PREPARED, worker);
        } else {
            self.prepared(worker);
        }
    }

    /// The host has the batch ready and begins to issue its copy and its kernels.
    fn prepared(&mut self, worker: u32) {
        self.stages[worker as usize].host_base = self.now;
        self.begin_pass(worker);
        let w = &self.workers[worker as usize];
        let model = &self.setup.tenants[w.spec.tenant as usize].model;
        let bytes = model.input_per_item.0 * u64::from(w.items);
        match self.copy(w.spec.pool as usize, 0, bytes) {
            Some(done) => self.arm(done, timer::COPIED_IN, worker),
            None => self.copied_in(worker),
        }
    }

    fn copied_in(&mut self, worker: u32) {
        let spec = &self.workers[worker as usize].spec;
        let pool = &mut self.pools[spec.pool as usize];
        pool.batch(spec.lane, true);
        self.head(worker);
    }

    fn batch_done(&mut self, worker: u32) {
        let w = &mut self.workers[worker as usize];
        let (tenant, items, took) = (w.spec.tenant, w.items, Nanos(self.now).since(w.began));
        w.status = Status::Idle;
        w.deadline = Nanos::MAX;
        let counts = &mut self.sources[tenant as usize].counts;
        counts.batches += 1;
        counts.batch_items += u64::from(items);
        self.observe(Happening::BatchEnded { worker, items });
        let mut batch = std::mem::take(&mut self.stages[worker as usize].batch);
        for id in batch.drain(..) {
            self.request_done(id, worker);
        }
        self.stages[worker as usize].batch = batch;
        if self.workers[worker as usize].retiring {
            self.retire(worker);
        } else if self.resize_due(worker) {
            self.take_down(worker);
        } else {
            self.sources[tenant as usize].idle.push(worker);
        }
        if self.depth >= Depth::Request {
            self.tell(Event::BatchDone { worker, items, took });
        }
        if !self.policy_batches {
            self.form_batches(tenant);
        }
    }

    fn request_done(&mut self, id: u32, worker: u32) {
        let live = self.requests[id as usize];
        self.free.push(id);
        let source = &mut self.sources[live.tenant as usize];
        let counts = &mut source.counts;
        let latency = self.now - live.arrival;
        counts.completed += 1;
        counts.good += u64::from(self.now <= live.deadline);
        counts.with_deadline += u64::from(live.deadline != NEVER);
        counts.latencies.record(Nanos(latency));
        counts.latency_sum += u128::from(latency);
        counts.queue_sum += u128::from(live.began - live.arrival);
        source.in_system -= 1;
        self.again(live.tenant);
        self.observe(Happening::RequestDone { tenant: live.tenant, arrival: Nanos(live.arrival) });
        if self.depth >= Depth::Request {
            self.tell(Event::RequestDone {
                tenant: live.tenant,
                worker,
                latency: Nanos(latency),
                queued: Nanos(live.began - live.arrival),
            });
        }
    }

    /// A closed-loop client has its answer and asks again.
    fn again(&mut self, tenant: u32) {
        let source = &mut self.sources[tenant as usize];
        let Load::Closed { think, limit, .. } = &mut source.load else { return };
        if limit.is_some_and(|n| source.issued >= n) {
            return;
        }
        source.issued += 1;
        let pause = match think {
            Think::Constant(pause) => pause.0,
            Think::Exponential(mean, rng) => (rng.exp1() * mean.0 as f64) as u64,
        };
        self.arm(self.now + pause, timer::CLOSED, tenant);
    }

    fn open_window(&mut self) {
        for (source, _) in self.sources.iter_mut().zip(&self.tenants) {
            let in_system = source.in_system;
            source.counts.open(in_system);
            source.opened = self.now;
        }
        let (busy_cu_ns, dram_bytes, switches) = self.totals();
        self.opened = Opened { busy_cu_ns, dram_bytes, switches };
    }

    fn totals(&self) -> (u64, f64, u64) {
        self.pools.iter().fold((0, 0.0, 0), |(busy, bytes, switches), p| {
            let (b, d) = p.totals(self.now);
            (busy + b, bytes + d, switches + p.switches)
        })
    }
}

/// The policy: told, and its actions carried out.
impl Engine<'_> {
    fn tell(&mut self, event: Event) {
        if self.depth == Depth::Layout {
            return;
        }
        let mut actions = std::mem::take(&mut self.actions);
        debug_assert!(actions.is_empty());
        let view = View {
            now: Nanos(self.now),
            setup: &self.setup,
            tenants: &self.tenants,
            workers: &self.workers,
        };
        self.policy.event(event, &view, &mut actions);
        let mut inner = std::mem::take(&mut actions);
        for action in inner.drain(..) {
            self.act(action);
        }
        // Events raised while acting use a fresh buffer; keep the larger allocation.
        if inner.capacity() > self.actions.capacity() {
            self.actions = inner;
        }
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Launch { worker, mask, priority, via } => {
                self.launch(worker, mask, priority, via);
            }
            Action::Dispatch { worker, items } => {
                let tenant = self.workers[worker as usize].spec.tenant as usize;
                let idle = &mut self.sources[tenant].idle;
                let at = idle.iter().position(|&w| w == worker);
                idle.remove(at.expect("a policy dispatches to idle workers"));
                assert!(self.tenants[tenant].queued > 0, "a policy dispatches what is queued");
                self.begin(worker, items);
            }
            Action::SetBatch { tenant, max, timeout } => {
                let limit = self.setup.tenants[tenant as usize].batch_max;
                let view = &mut self.tenants[tenant as usize];
                view.batch_max = max.clamp(1, limit);
                view.batch_timeout = timeout;
                if !self.policy_batches {
                    self.form_batches(tenant);
                }
            }
            Action::Merge { workers, priority } => self.merge(&workers, priority),
            Action::Timer { at, token } => {
                let slot = match self.free_tokens.pop() {
                    Some(slot) => {
                        self.tokens[slot as usize] = token;
                        slot
                    }
                    None => {
                        self.tokens.push(token);
                        self.tokens.len() as u32 - 1
                    }
                };
                assert!(slot < 1 << INDEX_BITS, "policy timers fit a timer's index");
                self.arm(at.0.max(self.now), timer::POLICY, slot);
            }
            Action::Start { spec } => self.start(spec),
            Action::Resize { worker, cap, how } => self.resize(worker, cap, how),
            Action::Retire { worker } => {
                self.workers[worker as usize].retiring = true;
                if self.workers[worker as usize].status == Status::Idle {
                    self.retire(worker);
                }
            }
            Action::Drop { tenant, reason } => self.drop_oldest(tenant, reason),
        }
    }

    fn mechanism(&self, via: Via) -> Mechanism {
        let costs = &self.setup.costs;
        match via {
            Via::Stream => Mechanism::FREE,
            Via::Hop => costs.stream_hop,
            Via::Barrier => costs.barrier,
            Via::MaskIoctl => costs.mask_ioctl,
            Via::MaskTpc => costs.mask_tpc,
            Via::MaskFirmware => costs.mask_firmware,
        }
    }

    fn launch(&mut self, worker: u32, mask: Option<crate::mask::CuMask>, priority: i8, via: Via) {
        let w = &mut self.workers[worker as usize];
        assert!(w.status == Status::Held, "a policy launches held kernels");
        assert!(mask.is_none_or(|m| !m.is_empty()), "a mask names at least one CU");
        w.status = Status::Launched;
        let placement = Placement { mask, priority };
        let (kernel, position, pool) = (w.kernel, w.position, w.spec.pool as usize);
        let cost = self.mechanism(via);
        let mut at = self.now;
        if self.specs[pool].host == Host::Shared {
            at = self.host_until(worker, self.launch_ns(worker, position));
        }
        self.place_at(at + cost.cost.0 + cost.delay.0, worker, placement, kernel);
    }

    /// Hands a launch to the GPU, now or once the host is done with it.
    fn place_at(&mut self, at: u64, worker: u32, placement: Placement, kernel: u32) {
        if at > self.now {
            let stage = &mut self.stages[worker as usize];
            (stage.placement, stage.launching) = (placement, kernel);
            self.arm(at, timer::PLACED, worker);
        } else {
            self.submit(worker, placement, kernel);
        }
    }

    /// Several held kernels become one launch, owned by the first worker.
    fn merge(&mut self, workers: &[u32], priority: i8) {
        assert!(workers.len() > 1, "a merge takes at least two kernels");
        let mut parts = std::mem::take(&mut self.parts);
        parts.clear();
        for &w in workers {
            let worker = &mut self.workers[w as usize];
            assert!(worker.status == Status::Held, "a policy merges held kernels");
            worker.status = Status::Launched;
            parts.push(worker.kernel);
        }
        parts.sort_unstable();
        let kernel = match self.merged.get(parts.as_slice()) {
            Some(&kernel) => kernel,
            None => self.new_merged(&parts),
        };
        self.parts = parts;
        let owner = workers[0];
        self.stages[owner as usize].merged.extend_from_slice(&workers[1..]);
        let costs = &self.setup.costs;
        let ns = costs.merge_fixed.0 + costs.merge_each.0 * workers.len() as u64;
        let pool = self.workers[owner as usize].spec.pool as usize;
        let at = match self.specs[pool].host {
            Host::Shared => self.host_until(owner, ns),
            Host::Own => self.now + ns,
        };
        self.place_at(at, owner, Placement { mask: None, priority }, kernel);
    }

    #[cold]
    fn new_merged(&mut self, parts: &[u32]) -> u32 {
        let kernels: Vec<_> = parts.iter().map(|&k| &self.code.kernels[k as usize]).collect();
        let merged = KernelCode::merged(&kernels, &self.setup.device, &self.setup.costs);
        self.code.kernels.push(merged);
        let kernel = self.code.kernels.len() as u32 - 1;
        self.merged.insert(parts.to_vec(), kernel);
        kernel
    }

    fn drop_oldest(&mut self, tenant: u32, reason: &'static str) {
        let t = tenant as usize;
        let id = self.sources[t].queue.pop_front().expect("a policy drops what is queued");
        let items = self.requests[id as usize].items;
        let source = &mut self.sources[t];
        source.counts.drop_one(reason);
        source.in_system -= 1;
        let front = source.queue.front().map(|&id| &self.requests[id as usize]);
        let view = &mut self.tenants[t];
        view.queued -= 1;
        view.queued_items -= items;
        view.oldest = Nanos(front.map_or(NEVER, |r| r.arrival));
        view.oldest_deadline = Nanos(front.map_or(NEVER, |r| r.deadline));
        self.free.push(id);
        self.observe(Happening::Dropped { tenant });
        self.again(tenant);
    }
}

/// Workers that come, change and go.
impl Engine<'_> {
    fn start(&mut self, spec: WorkerSpec) {
        let need = self.worker_memory(&spec);
        let tenant = spec.tenant;
        if self.take_memory(&spec, need).is_err() {
            // Refused as on a real GPU: the process dies at its first allocation.
            let worker = self.add_worker(spec, Status::Retired, 0);
            self.tell(Event::WorkerDown { worker });
            return;
        }
        let worker = self.add_worker(spec, Status::Starting, need);
        let wait = self.start_time(tenant);
        self.arm(self.now + wait, timer::UP, worker);
    }

    /// Process start and model load; the load is part of the process start's cost, so `ideal` zeroes
    /// both.
    fn start_time(&self, tenant: u32) -> u64 {
        let m = self.setup.costs.process_start;
        if m == Mechanism::FREE {
            return 0;
        }
        m.cost.0 + m.delay.0 + self.setup.tenants[tenant as usize].model.load.0
    }

    fn worker_up(&mut self, worker: u32) {
        let w = &mut self.workers[worker as usize];
        let tenant = w.spec.tenant;
        w.status = Status::Idle;
        if w.retiring {
            self.retire(worker);
            return;
        }
        let source = &mut self.sources[tenant as usize];
        source.counts.reconfigurations += 1;
        if let Some(pending) = self.stages[worker as usize].resize.take() {
            w.spec.cap = pending.cap;
            w.resizing = false;
            self.memory[w.spec.pool as usize] -= pending.extra;
            source.counts.downtime_ns += self.now - w.began.0.max(source.opened);
        }
        source.idle.push(worker);
        self.observe(Happening::WorkerUp { worker });
        self.tell(Event::WorkerUp { worker });
        if !self.policy_batches {
            self.form_batches(tenant);
        }
    }

    fn retire(&mut self, worker: u32) {
        let w = &mut self.workers[worker as usize];
        w.status = Status::Retired;
        w.resizing = false;
        let stage = &mut self.stages[worker as usize];
        let shadow = stage.resize.take().map_or(0, |p| p.extra);
        self.memory[w.spec.pool as usize] -= std::mem::take(&mut stage.memory) + shadow;
        self.sources[w.spec.tenant as usize].idle.retain(|&i| i != worker);
        self.observe(Happening::WorkerDown { worker });
        self.tell(Event::WorkerDown { worker });
    }

    /// Ignored while the worker starts, goes, or is being resized already.
    fn resize(&mut self, worker: u32, cap: u32, how: Resize) {
        let w = &self.workers[worker as usize];
        let spec = w.spec;
        let gone = w.retiring || matches!(w.status, Status::Starting | Status::Retired);
        if gone || self.stages[worker as usize].resize.is_some() {
            return;
        }
        let pending = match how {
            Resize::Restart => Pending { cap, extra: 0, step: Step::Restart },
            Resize::Shadow { shared_weights } => {
                let model = &self.setup.tenants[spec.tenant as usize].model;
                let weights = if shared_weights { model.weights.0 } else { 0 };
                let extra = self.worker_memory(&spec) - weights;
                if self.take_memory(&spec, extra).is_err() {
                    return; // No room for a shadow: the worker stays as it is.
                }
                let wait = self.start_time(spec.tenant);
                self.arm(self.now + wait, timer::RESIZED, worker);
                Pending { cap, extra, step: Step::Loading }
            }
        };
        self.stages[worker as usize].resize = Some(pending);
        self.workers[worker as usize].resizing = true;
        self.take_down_if_idle(worker);
    }

    fn resized(&mut self, worker: u32) {
        // A worker that went meanwhile took its shadow along.
        let Some(pending) = &mut self.stages[worker as usize].resize else { return };
        pending.step = Step::Loaded;
        self.take_down_if_idle(worker);
    }

    fn resize_due(&self, worker: u32) -> bool {
        self.stages[worker as usize].resize.is_some_and(|p| p.step != Step::Loading)
    }

    fn take_down_if_idle(&mut self, worker: u32) {
        let w = &self.workers[worker as usize];
        if w.status == Status::Idle && self.resize_due(worker) {
            self.sources[w.spec.tenant as usize].idle.retain(|&i| i != worker);
            self.take_down(worker);
        }
    }

    /// The worker stands still until its new self is up: a whole start, or a switch of routes.
    fn take_down(&mut self, worker: u32) {
        let pending = self.stages[worker as usize].resize.expect("a resize is due");
        let w = &mut self.workers[worker as usize];
        w.status = Status::Starting;
        w.began = Nanos(self.now);
        let tenant = w.spec.tenant;
        let wait = match pending.step {
            Step::Restart => self.start_time(tenant),
            _ => self.setup.costs.shadow_switch.cost.0,
        };
        self.observe(Happening::WorkerDown { worker });
        self.arm(self.now + wait, timer::UP, worker);
    }
}

/// Results and observers.
impl Engine<'_> {
    fn observe(&mut self, what: Happening) {
        if let Some(observer) = &mut self.observer {
            observer.happened(Nanos(self.now), what);
        }
    }

    fn drain_notes(&mut self) {
        for p in 0..self.pools.len() {
            let Some(notes) = &mut self.pools[p].notes else { return };
            if notes.is_empty() && !matches!(self.specs[p].discipline, Discipline::Concurrent) {
                continue;
            }
            let drained = std::mem::take(notes);
            for note in &drained {
                let what = match *note {
                    Note::Granted { owner, kernel, cus } => {
                        Happening::Granted { worker: owner, kernel, cus }
                    }
                    Note::Switching { lane } => Happening::Switching { pool: p as u32, lane },
                };
                self.observe(what);
            }
            self.pools[p].notes = Some(drained).map(|mut d| {
                d.clear();
                d
            });
            let cus = self.pools[p].busy();
            self.observe(Happening::Busy { pool: p as u32, cus });
        }
    }

    fn report(self) -> Report {
        let window = self.end - self.warmup;
        let (busy, bytes, switches) = self.totals();
        let (busy, bytes) = (busy - self.opened.busy_cu_ns, bytes - self.opened.dram_bytes);
        let gpu = gpu_report(&self.setup, window, busy, bytes, switches - self.opened.switches);
        let late = |tenant: usize| {
            let waiting = self.sources[tenant].queue.iter();
            let running = self.workers.iter().zip(&self.stages);
            let running = running
                .filter(|(w, _)| w.spec.tenant as usize == tenant)
                .flat_map(|(_, s)| &s.batch);
            waiting
                .chain(running)
                .filter(|&&id| self.requests[id as usize].deadline < self.end)
                .count()
        };
        // Workers that the end of the run finds down for a resize: down until then.
        let down = |tenant: usize, opened: u64| -> u64 {
            let workers = self.workers.iter().filter(|w| w.spec.tenant as usize == tenant);
            let down = workers.filter(|w| w.resizing && w.status == Status::Starting);
            down.map(|w| self.end - w.began.0.max(opened)).sum()
        };
        let tenants = self.sources.iter().enumerate().map(|(t, source)| {
            let mut counts = source.counts.clone();
            counts.downtime_ns += down(t, source.opened);
            assert_eq!(
                counts.offered,
                counts.completed + counts.dropped_total() + source.in_system,
                "every request is accounted for"
            );
            TenantReport { counts, in_flight: source.in_system, in_flight_late: late(t) as u64 }
        });
        Report {
            tenants: tenants.collect(),
            gpu,
            events: self.events,
            digest: mix(self.digest ^ self.events),
            window: Nanos(window),
            counters: self.policy.counters(),
        }
    }
}

pub(crate) fn gpu_report(
    setup: &Setup,
    window: u64,
    busy_cu_ns: u64,
    dram_bytes: f64,
    context_switches: u64,
) -> GpuReport {
    let d = &setup.device;
    let seconds = window as f64 / 1e9;
    let busy_cu_s = busy_cu_ns as f64 / 1e9;
    GpuReport {
        cu_utilization: busy_cu_s / (f64::from(d.cus()) * seconds),
        dram_utilization: dram_bytes / (d.memory.dram_gbps * 1e9 * seconds),
        energy_j: d.power.idle_w * seconds
            + d.power.cu_w * busy_cu_s
            + d.power.dram_pj_per_byte * dram_bytes / 1e12,
        context_switches,
    }
}
