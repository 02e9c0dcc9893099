//! The event loop: pick the next instant, apply it, ask the policy, act.
//!
//! Two sources of events, none ever stale: a heap of timers (arrivals, host stages, copies, the
//! policy's own) and one next instant per pool. At equal times pools go before timers, and timers in
//! the order in which they were set.

use std::collections::HashMap;
use std::sync::Arc;

use cotenant_profiles::{Bytes, Nanos};

use crate::action::{Action, Event};
use crate::layout::{Discipline, Layout};
use crate::mask::CuMask;
use crate::observe::{Happening, Observer};
use crate::policy::{Depth, Policy};
use crate::pool::{NEVER, Totals};
use crate::program::Code;
use crate::report::{Refusal, Report};
use crate::scenario::{Jitter, Scenario, Setup};
use crate::serving::{RequestId, Serving};
use crate::source::Source;
use crate::view::{Status, Worker};

mod actions;
mod batches;
mod results;
mod site;
mod streams;
mod timers;
mod workers;

use site::Site;
use timers::{INDICES, Kind, Timers};

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

/// What an engine keeps of a worker besides its [`Worker`] view.
#[derive(Clone, Debug, Default)]
struct Stage {
    batch: Vec<RequestId>,
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
    resize: Option<workers::Pending>,
    memory: Bytes,
    /// Head of a merged launch: the others follow its completion.
    merged: Vec<u32>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Placement {
    mask: Option<CuMask>,
    priority: i8,
}

/// One launch of a program.
#[derive(Clone, Copy, Debug)]
struct Launch {
    kernel: u32,
    /// After the host began the pass.
    issued_ns: u64,
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
    jitter: Option<Box<dyn Jitter>>,
    policy: &'a mut dyn Policy,
    depth: Depth,
    /// The policy starts batches, not the engine.
    policy_batches: bool,
    observer: Option<&'a mut dyn Observer>,
    sites: Vec<Site>,
    sources: Vec<Source>,
    serving: Serving,
    workers: Vec<Worker>,
    stages: Vec<Stage>,
    timers: Timers,
    tokens: Vec<u64>,
    free_tokens: Vec<u32>,
    now: u64,
    end: u64,
    warmup: u64,
    /// Totals when the window opened.
    opened: Totals,
    events: u64,
    digest: u64,
    actions: Vec<Action>,
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
        assert!(setup.tenants.len() < INDICES, "tenants fit a timer's index");
        let (depth, policy_batches) = (policy.depth(), policy.forms_batches());
        let observed = observer.is_some();
        let site = |p| Site::new(p, &setup.device, &contention, observed);
        let mut engine = Self {
            sites: layout.pools.iter().map(site).collect(),
            jitter,
            policy,
            depth,
            policy_batches,
            observer,
            sources: loads.into_iter().map(Source::new).collect(),
            serving: Serving::new(&setup),
            workers: vec![],
            stages: vec![],
            timers: Timers::default(),
            tokens: vec![],
            free_tokens: vec![],
            now: 0,
            end: warmup.0 + duration.0,
            warmup: warmup.0,
            opened: Totals::default(),
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
            let need = self.setup.worker_memory(spec);
            self.take_memory(spec, need)?;
            self.add_worker(*spec, Status::Idle, need);
        }
        // The highest index first, so that the lowest is popped first.
        for (i, w) in self.workers.iter().enumerate().rev() {
            self.serving.idle(w.spec.tenant, i as u32);
        }
        for (p, site) in self.sites.iter_mut().enumerate() {
            let streams = layout.workers.iter().filter(|w| w.pool as usize == p).count();
            if self.depth < Depth::Kernel && site.spec.discipline == Discipline::Concurrent {
                site.queue(streams as u32, &self.setup.device.queues);
            }
        }
        Ok(())
    }

    fn arm_loads(&mut self) {
        for (t, source) in self.sources.iter_mut().enumerate() {
            let kind = if source.is_open() { Kind::Arrival } else { Kind::Closed };
            for at in source.first() {
                self.timers.arm(at.0, kind, t as u32);
            }
        }
        self.timers.arm(self.warmup, Kind::Window, 0);
    }

    fn arm(&mut self, at: u64, kind: Kind, index: u32) {
        self.timers.arm(at, kind, index);
    }

    fn go(&mut self) {
        self.tell(Event::Start);
        loop {
            let (at, pool) = self.settle();
            let timer = self.timers.next();
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
        }
        self.now = self.end;
        // A warm-up as long as the run never opens the window by itself.
        assert!(self.end > self.warmup, "a run has a window");
    }

    /// Into the digest: something of this kind happened now, to this index.
    #[inline]
    fn note(&mut self, kind: u32, index: u32) {
        let word = self.now ^ u64::from(kind) << 56 ^ u64::from(index) << 32;
        self.digest = (self.digest ^ word).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(29);
    }

    /// Brings the pools up to date after what happened at this instant: when something happens next
    /// in one of them, and in which.
    #[inline]
    fn settle(&mut self) -> (u64, usize) {
        let (mut at, mut pool) = (NEVER, 0);
        for (i, site) in self.sites.iter_mut().enumerate() {
            site.pool.settle(self.now, &self.code);
            if site.pool.next() < at {
                (at, pool) = (site.pool.next(), i);
            }
        }
        if self.observer.is_some() {
            self.drain_notes();
        }
        (at, pool)
    }

    fn timer_event(&mut self) {
        let (kind, index) = self.timers.first();
        self.note(kind as u32, index);
        if kind == Kind::Arrival {
            self.arrival(index);
            return;
        }
        self.timers.pop();
        match kind {
            Kind::Arrival => unreachable!("served above"),
            Kind::Closed => self.closed_arrival(index),
            Kind::Prepared => self.prepared(index),
            Kind::CopiedIn => self.copied_in(index),
            Kind::Issued => self.ready(index),
            Kind::Placed => {
                let Stage { placement, launching, .. } = self.stages[index as usize];
                self.submit(index, launching, placement.mask.as_ref(), placement.priority);
            }
            Kind::CopiedOut => self.batch_done(index),
            Kind::Batch => {
                self.serving.woken(index);
                self.form_batches(index);
            }
            Kind::Up => self.worker_up(index),
            Kind::Resized => self.resized(index),
            Kind::Dispatched => self.dispatched(index),
            Kind::Policy => {
                let token = self.tokens[index as usize];
                self.free_tokens.push(index);
                self.tell(Event::Timer { token });
            }
            Kind::Window => self.open_window(),
        }
    }

    fn observe(&mut self, what: Happening) {
        if let Some(observer) = &mut self.observer {
            observer.happened(Nanos(self.now), what);
        }
    }
}
