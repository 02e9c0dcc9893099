//! The loop: whatever is due first, then what the policy says to it.

use std::sync::Arc;

use cotenant_profiles::{Bytes, Nanos};
use cotenant_sim::action::{Action, Event};
use cotenant_sim::layout::{Layout, PoolSpec, WorkerSpec};
use cotenant_sim::observe::{Happening, Observer};
use cotenant_sim::policy::Depth;
use cotenant_sim::pool::Totals;
use cotenant_sim::report::{GpuReport, Refusal, Report};
use cotenant_sim::scenario::{Jitter, Setup};
use cotenant_sim::serving::{Due, RequestId, Serving};
use cotenant_sim::source::Source;
use cotenant_sim::view::{Status, View, Worker};
use cotenant_sim::{Policy, Scenario};

use super::clock::RunClock;
use super::lateness::Lateness;
use super::lifecycle::Pending;
use super::losses::Loss;
use super::timers::{Timer, Timers};
use super::workers::{Ended, HostCosts, Lost, Workers};
use super::{ReplayError, Replayed, Stop};
use crate::device::Usage;
use crate::error::DeviceError;

/// Longest wait without a look at the wish to stop, in wall-clock time.
const GLANCE: std::time::Duration = std::time::Duration::from_millis(50);

/// What is kept of a worker besides its view.
#[derive(Debug, Default)]
pub(super) struct Stage {
    pub(super) batch: Vec<RequestId>,
    pub(super) phase: Phase,
    /// The batch's program among its model's.
    pub(super) program: usize,
    /// When the host began to issue the current pass.
    pub(super) base: u64,
    /// Launches of the current pass that a shared host has issued.
    pub(super) issued: u32,
    /// Passes over the program left, for requests larger than the largest batch.
    pub(super) passes: u32,
    pub(super) work: f64,
    /// Of the batch's first request, for the jitter.
    pub(super) ordinal: u64,
    /// Head of a merged launch: the others follow its end.
    pub(super) merged: Vec<u32>,
    pub(super) resize: Option<Pending>,
    pub(super) memory: u64,
}

/// What the end of something on the device means for a worker's batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Phase {
    #[default]
    Nothing,
    /// Its inputs are there.
    CopyIn,
    /// A kernel that the policy launched has ended.
    Kernel,
    /// All kernels, or a pass of them, with the results.
    Whole,
    /// Its results are at the host.
    CopyOut,
}

pub(super) struct Driver<'a> {
    pub(super) setup: Arc<Setup>,
    pub(super) policy: &'a mut dyn Policy,
    pub(super) depth: Depth,
    /// The policy starts batches, not the driver.
    pub(super) policy_batches: bool,
    pub(super) gpu: &'a mut dyn Workers,
    pub(super) kept: bool,
    pub(super) observer: Option<&'a mut dyn Observer>,
    pub(super) jitter: Option<Box<dyn Jitter>>,
    pub(super) serving: Serving,
    pub(super) sources: Vec<Source>,
    pub(super) pools: Vec<PoolSpec>,
    /// By pool: device memory in use.
    pub(super) memory: Vec<u64>,
    /// By pool: when a host that its workers share is free again.
    pub(super) hosts: Vec<u64>,
    pub(super) workers: Vec<Worker>,
    pub(super) stages: Vec<Stage>,
    pub(super) timers: Timers,
    pub(super) lateness: Lateness,
    pub(super) now: u64,
    clock: RunClock,
    warmup: u64,
    end: u64,
    opened: Option<Usage>,
    closed: Option<Usage>,
    events: u64,
    actions: Vec<Action>,
    ended: Vec<Ended>,
    pub(super) lost: Vec<Lost>,
    /// Everybody lost so far.
    pub(super) record: Vec<Loss>,
    /// By tenant: why it has no worker any more.
    pub(super) unserved: Vec<Option<&'static str>>,
    pub(super) scales: Vec<f64>,
    /// Kernels of the merge at hand.
    pub(super) parts: Vec<u32>,
    /// When the event at hand began to be handled.
    handled: u64,
}

impl<'a> Driver<'a> {
    pub(super) fn new(
        scenario: Scenario,
        policy: &'a mut dyn Policy,
        layout: &Layout,
        gpu: &'a mut dyn Workers,
        observer: Option<&'a mut dyn Observer>,
    ) -> Result<Self, ReplayError> {
        let Scenario { setup, loads, warmup, duration, jitter, .. } = scenario;
        assert_eq!(loads.len(), setup.tenants.len(), "one load per tenant");
        let (depth, policy_batches) = (policy.depth(), policy.forms_batches());
        let kept = gpu.host_costs() == HostCosts::Kept;
        let mut driver = Self {
            serving: Serving::new(&setup),
            sources: loads.into_iter().map(Source::new).collect(),
            pools: layout.pools.clone(),
            memory: vec![0; layout.pools.len()],
            hosts: vec![0; layout.pools.len()],
            workers: vec![],
            stages: vec![],
            timers: Timers::default(),
            lateness: Lateness::default(),
            now: 0,
            clock: gpu.start_clock(),
            warmup: warmup.0,
            end: warmup.0 + duration.0,
            opened: None,
            closed: None,
            events: 0,
            actions: vec![],
            ended: vec![],
            lost: vec![],
            record: vec![],
            unserved: vec![None; setup.tenants.len()],
            scales: vec![],
            parts: vec![],
            handled: 0,
            jitter: jitter.filter(|_| kept),
            setup,
            policy,
            depth,
            policy_batches,
            gpu,
            kept,
            observer,
        };
        for spec in &layout.workers {
            let need = driver.setup.worker_memory(spec).0;
            driver.take_memory(spec, need)?;
            driver.add_worker(*spec, Status::Idle, need);
        }
        driver.gpu.lay_out(layout)?;
        for (worker, spec) in layout.workers.iter().enumerate() {
            driver.gpu.open(worker as u32, spec)?;
            driver.warm(worker as u32, spec)?;
        }
        // The highest index first, so that the lowest serves first.
        for (worker, w) in driver.workers.iter().enumerate().rev() {
            driver.serving.idle(w.spec.tenant, worker as u32);
        }
        for t in 0..driver.sources.len() as u32 {
            let source = &mut driver.sources[t as usize];
            let kind = if source.is_open() { Timer::Arrival(t) } else { Timer::Client(t) };
            for at in source.first() {
                driver.timers.set(at.0, kind);
            }
        }
        driver.timers.set(driver.warmup, Timer::Window);
        Ok(driver)
    }

    pub(super) fn add_worker(&mut self, spec: WorkerSpec, status: Status, memory: u64) -> u32 {
        self.workers.push(Worker::new(spec, status));
        self.stages.push(Stage { memory, ..Stage::default() });
        self.workers.len() as u32 - 1
    }

    /// Makes every kernel of a worker's model ready.
    pub(super) fn warm(&mut self, worker: u32, spec: &WorkerSpec) -> Result<(), DeviceError> {
        let programs = &self.setup.tenants[spec.tenant as usize].model.programs;
        let mut all: Vec<u32> = programs.iter().flat_map(|p| p.kernels.iter().copied()).collect();
        all.sort_unstable();
        all.dedup();
        self.gpu.warm(worker, &all)
    }

    pub(super) fn take_memory(&mut self, spec: &WorkerSpec, need: u64) -> Result<(), Refusal> {
        let used = &mut self.memory[spec.pool as usize];
        let have = self.pools[spec.pool as usize].memory;
        if *used + need > have.0 {
            let tenant = &self.setup.tenants[spec.tenant as usize].name;
            let who = format!("a worker of tenant `{tenant}`");
            return Err(Refusal::OutOfMemory { who, need: Bytes(*used + need), have });
        }
        *used += need;
        Ok(())
    }

    /// Time starts with the first call.
    pub(super) fn go(&mut self, stop: &Stop) -> Result<(), ReplayError> {
        self.clock = self.gpu.start_clock();
        self.lateness.slowdown = self.clock.slowdown();
        self.tell(Event::Start)?;
        loop {
            if stop.wanted() {
                return Err(ReplayError::Stopped);
            }
            // What ends before the end of the run has to be seen once more behind it.
            let over = self.clock.now() >= self.end;
            self.collect()?;
            self.now = self.clock.now().min(self.end);
            let busy = self.step()?;
            self.losses()?;
            if busy {
                continue;
            }
            if over {
                self.closed = self.gpu.usage();
                return Ok(());
            }
            self.rest();
        }
    }

    /// What has ended on the device since the last look, in order.
    fn collect(&mut self) -> Result<(), DeviceError> {
        self.gpu.poll(&mut self.ended)
    }

    /// Handles everything that is due, by its own time; whether there was anything.
    fn step(&mut self) -> Result<bool, DeviceError> {
        let mut ended = std::mem::take(&mut self.ended);
        let mut any = false;
        for e in ended.drain(..) {
            while let Some((at, timer)) = self.timers.due(e.at.min(self.now), self.end) {
                self.timer(at, timer)?;
            }
            // What ends after the end of the run is in flight at its end.
            if e.at < self.end {
                any = true;
                self.events += 1;
                self.handled = self.clock.now();
                let late = self.lateness.wall(self.now.saturating_sub(e.at));
                self.lateness.completions.record(late);
                self.ended(e)?;
            }
        }
        self.ended = ended;
        while let Some((at, timer)) = self.timers.due(self.now, self.end) {
            any = true;
            self.timer(at, timer)?;
        }
        Ok(any)
    }

    /// Nothing is due: sleep until something will be, but look up now and then.
    fn rest(&mut self) {
        let timer = self.timers.next().unwrap_or(u64::MAX).min(self.end);
        let until = match self.gpu.next_event() {
            Some(at) => timer.min(at),
            None if self.gpu.is_idle() => timer,
            None => return self.gpu.doze(self.clock.until(timer).min(GLANCE)),
        };
        self.clock.wait_until(until, GLANCE);
    }

    fn timer(&mut self, at: u64, timer: Timer) -> Result<(), DeviceError> {
        self.events += 1;
        self.handled = self.clock.now();
        // What was on its way for a worker that has gone.
        if timer.worker().is_some_and(|w| self.workers[w as usize].status == Status::Retired) {
            return Ok(());
        }
        match timer {
            Timer::Arrival(t) | Timer::Client(t) => self.arrival(at, t, timer),
            Timer::Batch(t) => {
                self.serving.woken(t);
                self.form_batches(t)
            }
            Timer::Window => {
                self.serving.open_window(Nanos(self.now));
                self.opened = self.gpu.usage();
                Ok(())
            }
            Timer::Prepared(w) => self.prepared(w, at),
            Timer::Issued(w) => self.ready(w),
            Timer::Dispatched(w) => self.dispatched(w, at),
            Timer::Up(w) => self.worker_up(w),
            Timer::Shadow(w) => self.shadow_loaded(w),
            Timer::Policy(token) => self.tell(Event::Timer { token }),
        }
    }

    fn arrival(&mut self, at: u64, tenant: u32, timer: Timer) -> Result<(), DeviceError> {
        let late = self.lateness.wall(self.now - at);
        self.lateness.arrivals.record(late);
        let (request, next) = self.sources[tenant as usize].arrive(Nanos(at));
        if let Some(next) = next {
            self.timers.set(next.0, timer);
        }
        self.serving.admit(tenant, &request);
        self.observe(Happening::Arrived { tenant });
        if self.depth >= Depth::Request {
            self.tell(Event::RequestArrived { tenant })?;
        }
        self.give_up_unserved(tenant);
        self.form_batches(tenant)
    }

    /// A request of a closed-loop client has been answered or given up.
    pub(super) fn again(&mut self, tenant: u32) {
        if let Some(at) = self.sources[tenant as usize].again(Nanos(self.now)) {
            self.timers.set(at.0, Timer::Client(tenant));
        }
    }

    /// Starts batches while the batching rule wants some, unless the policy does that itself.
    pub(super) fn form_batches(&mut self, tenant: u32) -> Result<(), DeviceError> {
        if self.policy_batches {
            return Ok(());
        }
        loop {
            match self.serving.due(tenant, Nanos(self.now)) {
                Due::Nothing => return Ok(()),
                Due::WakeAt(at) => self.timers.set(at.0, Timer::Batch(tenant)),
                Due::Batch { worker } => {
                    let items = self.serving.views()[tenant as usize].batch_max;
                    self.begin(worker, items)?;
                }
            }
        }
    }

    pub(super) fn tell(&mut self, event: Event) -> Result<(), DeviceError> {
        if self.depth == Depth::Layout {
            return Ok(());
        }
        let mut actions = std::mem::take(&mut self.actions);
        let view = View {
            now: Nanos(self.now),
            setup: &self.setup,
            tenants: self.serving.views(),
            workers: &self.workers,
        };
        self.policy.event(event, &view, &mut actions);
        for action in actions.drain(..) {
            self.act(action)?;
        }
        // Events raised while acting use a fresh buffer; keep the larger allocation.
        if actions.capacity() > self.actions.capacity() {
            self.actions = actions;
        }
        Ok(())
    }

    fn act(&mut self, action: Action) -> Result<(), DeviceError> {
        match action {
            Action::Launch { worker, mask, priority, via } => {
                self.launch(worker, mask, priority, via)
            }
            Action::Merge { workers, priority } => self.merge(&workers, priority),
            Action::Dispatch { worker, items } => {
                let tenant = self.workers[worker as usize].spec.tenant;
                let idle = self.serving.not_idle(tenant, worker);
                assert!(idle, "a policy dispatches to idle workers");
                self.begin(worker, items)
            }
            Action::SetBatch { tenant, max, timeout } => {
                self.serving.set_batch(tenant, max, timeout);
                self.form_batches(tenant)
            }
            Action::Timer { at, token } => {
                self.timers.set(at.0.max(self.now), Timer::Policy(token));
                Ok(())
            }
            Action::Start { spec } => self.start(spec),
            Action::Resize { worker, cap, how } => self.resize(worker, cap, how),
            Action::Retire { worker } => self.retire_when_idle(worker),
            Action::Drop { tenant, reason } => {
                self.serving.drop_oldest(tenant, reason);
                self.observe(Happening::Dropped { tenant });
                self.again(tenant);
                Ok(())
            }
        }
    }

    /// The policy's answer to the event at hand is on its way.
    pub(super) fn decided(&mut self) {
        let took = self.clock.now().saturating_sub(self.handled);
        let took = self.lateness.wall(took);
        self.lateness.decisions.record(took);
    }

    pub(super) fn observe(&mut self, what: Happening) {
        if let Some(observer) = &mut self.observer {
            observer.happened(Nanos(self.now), what);
        }
    }

    /// The device finishes what it has; a failure now changes nothing about the run.
    pub(super) fn drain(&mut self) {
        let _ = self.gpu.drain();
    }

    pub(super) fn replayed(mut self) -> Replayed {
        let window = self.end - self.warmup;
        let down = self.workers.iter().filter(|w| w.resizing && w.status == Status::Starting);
        for w in down {
            self.serving.stood_still(w.spec.tenant, w.began, Nanos(self.end));
        }
        let gpu = match (self.opened, self.closed) {
            (Some(from), Some(to)) => {
                GpuReport::of(&self.setup.device, Nanos(window), totals(to) - totals(from))
            }
            // The device does not tell: not a number, which tables leave empty.
            _ => GpuReport {
                cu_utilization: f64::NAN,
                dram_utilization: f64::NAN,
                energy_j: f64::NAN,
                context_switches: 0,
            },
        };
        let mut counters = self.policy.counters();
        counters.extend(self.gpu.counters());
        let report = Report {
            tenants: self.serving.reports(Nanos(self.end)),
            gpu,
            events: self.events,
            digest: 0,
            window: Nanos(window),
            counters,
        };
        Replayed { report, lateness: self.lateness, losses: self.record }
    }
}

fn totals(usage: Usage) -> Totals {
    let Usage { busy_cu_ns, dram_bytes, switches } = usage;
    Totals { busy_cu_ns, dram_bytes, switches }
}
