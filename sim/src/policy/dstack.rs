//! `dstack`: right-sized shares placed in space and time, by deadline and fairness.
//!
//! Models D-STACK. Every model has a knee: a share beyond which more CUs buy little. Time is
//! divided into sessions as long as the largest SLO. In each, every model is placed at least once
//! per its own SLO with its best batch at its knee, the earliest deadline first, as many side by
//! side as fit into the GPU. What the plan leaves idle goes to whichever model fits into it, the
//! one that has had the least of the GPU in the last sessions first. A share is the MPS percentage
//! of a context; because a percentage is fixed when a context is made, every tenant holds a few
//! contexts of different shares from the start, and a batch is sent to one of them (NVIDIA's advice
//! for MPS). Shares in use never add up to more than the GPU, so kernels meet only in L2 and DRAM.
//!
//! It gives up: memory (a context holds the model, `contexts` times), any knowledge of contention,
//! and the CUs that a kernel below its model's knee leaves idle.
//!
//! Source: Dhakal, Kulkarni, Ramakrishnan (arXiv 2304.13541; IEEE TCC 2024). Its abstract confirms
//! the knee, the batch optimisation, the fair spatio-temporal scheduler, and 90 % or more of an
//! ideal that re-allocates the GPU per kernel. The formulas (knee: `1 / (E² S)` at its largest;
//! efficacy `b / (f² S)` with `f + assembly ≤ SLO` and `f ≤ SLO / 2`; a scoreboard over about ten
//! sessions) are as remembered, not checked against the paper's text: each is an option.
//!
//! Choices, where nothing is known:
//! - A batch's time is computed from the kernels' curves instead of the paper's fitted model.
//! - The knee is found for every batch, and the pair of the best efficacy is taken. Shares are
//!   fixed when the run begins; the batch is chosen anew every session from the rate of the last
//!   ones. The best efficacy is a batch of one wherever time grows about as fast as the batch;
//!   `batch = "largest"` keeps the share and takes as many as can be assembled and run within the
//!   SLO.
//! - Without an SLO, a tenant is placed once per session.
//! - A planned run whose tenant has nothing queued when its time comes leaves its CUs to gaps; it
//!   begins when a request comes before its latest start and finds them free. One that finds its
//!   CUs still taken (an earlier run took longer than computed) waits for them.
//! - A gap is filled at the largest of the tenant's shares that fits into it, for as long as the
//!   batch takes there; below the knee only if the batch still meets its deadline, or could not
//!   meet it at the knee either.
//! - What a session cannot place, or does not come to, goes into the next one with its old
//!   deadline.
//! - The scoreboard counts the time of batches, whatever their share.

mod plan;
mod size;

use std::collections::VecDeque;

use cotenant_profiles::Nanos;

use super::{Depth, LayoutError, PerTenant, Policy, PolicyInfo, Properties};
use crate::action::{Action, Event};
use crate::counter::Count;
use crate::layout::Layout;
use crate::scenario::Setup;
use crate::view::{Status, View};
use crate::{counters, options, words};
use plan::{Job, Slot, free, plan};
use size::{Batching, Knee, batch_ns, choose, steps};

/// The registry entry.
pub(super) const INFO: PolicyInfo = PolicyInfo {
    name: "dstack",
    summary: "knee shares placed in space and time by deadline, gaps filled by fairness",
    source: "D-STACK (arXiv 2304.13541; IEEE TCC 2024)",
    properties: Properties {
        work_conserving: false,
        alone_is_isolated: false,
        starvation_free: true,
    },
    options: Knobs::SPECS,
    counters: Dstack::COUNTERS,
    build: |options| Ok(Box::new(Dstack::new(Knobs::read(options)?))),
};

options! {
    /// Options of `dstack`.
    struct Knobs {
        /// each model's share: where 1/(E² S) is largest, or within `tolerance` of the whole GPU
        knee: PerTenant<Rule> = PerTenant::Word(Rule::Efficacy), unit("%");
        /// right-sized: slow-down accepted for fewer CUs
        tolerance: f64 = 0.05, within(0.0, 1.0);
        /// of those that meet the SLO: that of the best efficacy, or the largest at its share
        batch: Batching = Batching::Efficacy;
        /// length of a session
        session: Option<Nanos> = None, period(),
            unset("the largest SLO, 100ms where nobody has one");
        /// shares per tenant: its knee and so many minus one halves of it, for gaps
        contexts: u32 = 3, whole(1, 8);
        /// fill what the plan leaves idle
        gaps: bool = true;
        /// fairness looks back so far
        scoreboard: u32 = 10, whole(1, 10_000), unit("sessions");
    }
}

/// How a share is determined.
#[derive(Clone, Copy, Debug)]
enum Rule {
    Efficacy,
    RightSized,
}

words!(Rule { "efficacy" => Rule::Efficacy, "right-sized" => Rule::RightSized });

words!(Batching { "efficacy" => Batching::Efficacy, "largest" => Batching::Largest });

/// Length of a session if there is no SLO to derive it from.
const SESSION: Nanos = Nanos::from_millis(100);
/// Maximum number of runs of one model in a session's plan.
const RUNS_MAX: u64 = 1000;

/// Tokens of timers.
const LOOK: u64 = 0;
const NEW_SESSION: u64 = 1;

struct Dstack {
    knobs: Knobs,
    session: u64,
    session_end: u64,
    models: Vec<ModelState>,
    /// Runs planned and not yet begun, by start.
    slots: Vec<Slot>,
    /// Runs left over from the previous session.
    carried: Vec<Job>,
    /// By worker: the CUs that it holds while it runs.
    running: Vec<Option<Slot>>,
    cus: u32,
    /// A check is due at this instant.
    looks: Option<Nanos>,
    counted: Counted,
}

/// What is known of one tenant.
#[derive(Clone, Debug)]
struct ModelState {
    /// It is placed once per this period.
    period: u64,
    /// Largest share first: the knee.
    contexts: Vec<Context>,
    /// Batch size of the current session, items.
    batch: u32,
    /// GPU time of past sessions, with the current session last.
    scores: VecDeque<u64>,
    /// Arrivals at the start of each of these sessions.
    arrived: VecDeque<u64>,
}

#[derive(Clone, Debug)]
struct Context {
    cus: u32,
    workers: Vec<u32>,
    /// Time of a batch of `i + 1` items, ns.
    times: Vec<u64>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Counted {
    sessions: u64,
    planned: u64,
    late: u64,
    carried: u64,
    empty: u64,
    kept: u64,
    gaps: u64,
    below_knee: u64,
}

impl Knobs {
    /// By tenant.
    fn knees(&self, setup: &Setup) -> Result<Vec<Knee>, LayoutError> {
        match &self.knee {
            PerTenant::Word(Rule::Efficacy) => Ok(vec![Knee::Efficacy; setup.tenants.len()]),
            PerTenant::Word(Rule::RightSized) => {
                Ok(vec![Knee::RightSize(self.tolerance); setup.tenants.len()])
            }
            PerTenant::Given(value) => {
                let percent = setup.per_tenant("knee", value)?;
                Ok(percent.into_iter().map(|p| Knee::Given(setup.device.mps_cus(p))).collect())
            }
        }
    }
}

impl Dstack {
    fn new(knobs: Knobs) -> Self {
        Self {
            knobs,
            session: 0,
            session_end: 0,
            models: vec![],
            slots: vec![],
            carried: vec![],
            running: vec![],
            cus: 0,
            looks: None,
            counted: Counted::default(),
        }
    }

    /// Share, contexts and first batch size of tenant `t`; its workers are numbered from `first`.
    fn model(&self, setup: &Setup, t: usize, knee: Knee, first: u32) -> ModelState {
        let tenant = &setup.tenants[t];
        let slo = tenant.slo.map_or(self.session, |s| s.0);
        let best = choose(setup, t, slo, None, knee, Batching::Efficacy);
        let mut shares = vec![best.cus];
        let allowed = steps(setup);
        for i in 1..self.knobs.contexts {
            let half = best.cus >> i;
            shares.extend(allowed.iter().copied().rfind(|&c| c <= half));
        }
        shares.dedup();
        let mut workers = first..;
        let largest = tenant.batch_max.min(tenant.model.max_items());
        let contexts = shares.into_iter().enumerate().map(|(i, cus)| {
            let count = if i == 0 { tenant.workers } else { 1 };
            Context {
                cus,
                workers: workers.by_ref().take(count as usize).collect(),
                times: (1..=largest).map(|b| batch_ns(setup, t, b, cus)).collect(),
            }
        });
        let contexts = contexts.collect();
        // It need not be planned more often than it can run.
        let period = slo.max(best.ns).max(self.session / RUNS_MAX).max(1);
        ModelState {
            period,
            contexts,
            batch: best.items,
            scores: VecDeque::from([0]),
            arrived: VecDeque::from([0]),
        }
    }

    /// Begins a session: carries over the runs that the past session did not get to, chooses new batch
    /// sizes, and makes the plan.
    fn new_session(&mut self, view: &View<'_>, act: &mut Vec<Action>) {
        let now = view.now.0;
        let waiting = |t: usize| view.tenants[t].queued > 0;
        for slot in std::mem::take(&mut self.slots) {
            if waiting(slot.tenant) && !self.carried.iter().any(|j| j.tenant == slot.tenant) {
                let Slot { tenant, cus, deadline, .. } = slot;
                self.carried.push(Job { tenant, cus, ns: 0, release: now, deadline });
            }
        }
        let end = now + self.session;
        let mut jobs = std::mem::take(&mut self.carried);
        self.counted.carried += jobs.len() as u64;
        for t in 0..self.models.len() {
            self.choose_batch(t, view);
            let (m, cus) = (&self.models[t], self.models[t].contexts[0].cus);
            let ns = m.time(0, m.batch);
            jobs.iter_mut().filter(|j| j.tenant == t).for_each(|j| {
                j.ns = ns;
                j.release = now;
            });
            let runs = self.session.div_ceil(m.period).min(RUNS_MAX);
            let at =
                |i: u64| now + (u128::from(self.session) * u128::from(i) / u128::from(runs)) as u64;
            jobs.extend((0..runs).map(|i| Job {
                tenant: t,
                cus,
                ns,
                release: at(i),
                deadline: at(i + 1),
            }));
        }
        let busy: Vec<Slot> = self.busy(now).collect();
        (self.slots, self.carried) = plan(self.cus, &busy, jobs, end);
        self.counted.sessions += 1;
        self.counted.planned += self.slots.len() as u64;
        self.counted.late += self.slots.iter().filter(|s| s.end > s.deadline).count() as u64;
        // One owed run is as good as many.
        let mut seen = vec![false; self.models.len()];
        self.carried.retain(|j| !std::mem::replace(&mut seen[j.tenant], true));
        let mut starts: Vec<u64> =
            self.slots.iter().map(|s| s.start).filter(|&s| s > now).collect();
        starts.dedup();
        act.extend(starts.into_iter().map(|s| Action::Timer { at: Nanos(s), token: LOOK }));
        self.session_end = end;
        act.push(Action::Timer { at: Nanos(end), token: NEW_SESSION });
    }

    /// The batch size for the arrival rate of the sessions that the scoreboard covers; the share stays
    /// the same.
    fn choose_batch(&mut self, t: usize, view: &View<'_>) {
        let session_s = self.session as f64 / 1e9;
        let m = &mut self.models[t];
        let sessions = m.arrived.len() - usize::from(self.session_end == 0);
        let now = view.tenants[t].arrived;
        if sessions > 0 {
            let came = now - m.arrived.front().copied().unwrap_or(0);
            let rate = came as f64 / (sessions as f64 * session_s);
            let slo = view.setup.tenants[t].slo.map_or(self.session, |s| s.0);
            let knee = Knee::Given(m.contexts[0].cus);
            let rate = (came > 0).then_some(rate);
            m.batch = choose(view.setup, t, slo, rate, knee, self.knobs.batch).items;
            m.scores.push_back(0);
            m.arrived.push_back(now);
        }
        while m.arrived.len() > self.knobs.scoreboard as usize {
            m.arrived.pop_front();
            m.scores.pop_front();
        }
    }

    /// CUs that are held at `now`, and until when according to the computed times.
    fn busy(&self, now: u64) -> impl Iterator<Item = Slot> + '_ {
        // A run that is still there after its computed time will end any moment.
        self.running.iter().flatten().map(move |s| Slot { end: s.end.max(now + 1), ..*s })
    }

    fn idle_cus(&self) -> u32 {
        self.cus - self.running.iter().flatten().map(|s| s.cus).sum::<u32>()
    }

    /// Begins the runs that are due, then fills gaps. At most one batch per tenant: the rest of its
    /// queue is known only when the first batch has been taken off it.
    fn look(&mut self, view: &View<'_>, act: &mut Vec<Action>) {
        let before = act.len();
        let mut begun = vec![false; self.models.len()];
        // A step does not begin if there is no memory for it.
        for (slot, worker) in self.running.iter_mut().zip(view.workers) {
            slot.take_if(|_| worker.status == Status::Idle);
        }
        self.begin_due(view, &mut begun, act);
        if self.knobs.gaps {
            self.fill_gaps(view, &mut begun, act);
        }
        let more = |t: usize| begun[t] && view.tenants[t].queued > 1;
        if act.len() > before && (0..begun.len()).any(more) && self.idle_cus() > 0 {
            self.look_soon(view, act);
        }
    }

    /// Schedules a check for when everything else at this instant has happened.
    fn look_soon(&mut self, view: &View<'_>, act: &mut Vec<Action>) {
        if self.looks != Some(view.now) {
            self.looks = Some(view.now);
            act.push(Action::Timer { at: view.now, token: LOOK });
        }
    }

    fn begin_due(&mut self, view: &View<'_>, begun: &mut [bool], act: &mut Vec<Action>) {
        let now = view.now.0;
        let mut i = 0;
        while i < self.slots.len() && self.slots[i].start <= now {
            let Slot { tenant: t, cus, .. } = self.slots[i];
            if begun[t] {
                i += 1;
            } else if view.tenants[t].queued == 0 {
                if now >= self.slots[i].latest() {
                    self.slots.remove(i);
                    self.counted.empty += 1;
                } else {
                    i += 1;
                }
            } else if cus <= self.idle_cus()
                && let Some(worker) = self.idle_worker(t, 0, view)
            {
                self.slots.remove(i);
                self.begin(t, 0, worker, view, act);
                self.counted.kept += 1;
                begun[t] = true;
            } else {
                i += 1;
            }
        }
    }

    fn fill_gaps(&mut self, view: &View<'_>, begun: &mut [bool], act: &mut Vec<Action>) {
        let wants = |t: usize| view.tenants[t].queued > 0;
        let mut order: Vec<usize> =
            (0..self.models.len()).filter(|&t| !begun[t] && wants(t)).collect();
        order.sort_by_key(|&t| (self.models[t].score(), t));
        for t in order {
            let idle = self.idle_cus();
            let fits = |c: &usize| self.fits_gap(t, *c, idle, view);
            let found = (0..self.models[t].contexts.len()).find(fits);
            if let Some(c) = found
                && let Some(worker) = self.idle_worker(t, c, view)
            {
                self.begin(t, c, worker, view, act);
                self.counted.gaps += 1;
                self.counted.below_knee += u64::from(c > 0);
                begun[t] = true;
            }
        }
    }

    /// Whether a batch of tenant `t` at its `c`-th share is over before the plan needs its CUs.
    fn fits_gap(&self, t: usize, c: usize, idle: u32, view: &View<'_>) -> bool {
        let (m, now) = (&self.models[t], view.now.0);
        let cus = m.contexts[c].cus;
        if cus > idle || self.idle_worker(t, c, view).is_none() {
            return false;
        }
        let ns = m.time(c, m.batch.min(view.tenants[t].queued_items));
        let late = now + ns > view.tenants[t].oldest_deadline.0;
        if c > 0 && late && now + m.time(0, 1) <= view.tenants[t].oldest_deadline.0 {
            return false;
        }
        // Only slots that begin before it would end can conflict; of those that are already due, only
        // the ones that have requests waiting.
        let soon = self.slots.iter().take_while(|s| s.start < now.saturating_add(ns));
        let soon = soon.filter(|s| s.start > now || view.tenants[s.tenant].queued > 0);
        let claims = soon.map(|s| Slot { start: s.start.max(now), end: s.end.max(now + 1), ..*s });
        let held: Vec<Slot> = self.busy(now).chain(claims).collect();
        free(self.cus, &held, now, ns) >= cus
    }

    fn idle_worker(&self, t: usize, c: usize, view: &View<'_>) -> Option<u32> {
        let workers = &self.models[t].contexts[c].workers;
        let free = |w: &u32| workers.contains(w) && self.running[*w as usize].is_none();
        view.idle(t as u32).find(free)
    }

    fn begin(&mut self, t: usize, c: usize, worker: u32, view: &View<'_>, act: &mut Vec<Action>) {
        let m = &self.models[t];
        let now = view.now.0;
        let items = m.batch;
        let end = now + m.time(c, items.min(view.tenants[t].queued_items));
        let deadline = view.tenants[t].oldest_deadline.0;
        let cus = m.contexts[c].cus;
        self.running[worker as usize] = Some(Slot { tenant: t, cus, start: now, end, deadline });
        act.push(Action::Dispatch { worker, items });
    }
}

impl ModelState {
    /// Time of a batch at the `c`-th share, ns.
    fn time(&self, c: usize, items: u32) -> u64 {
        let times = &self.contexts[c].times;
        let largest = times.len() as u32;
        // More items than the largest batch take several passes.
        let passes = u64::from(items.div_ceil(largest).max(1));
        times[(items.clamp(1, largest) - 1) as usize] * passes
    }

    /// GPU time of the sessions on the scoreboard, ns.
    fn score(&self) -> u64 {
        self.scores.iter().sum()
    }
}

counters! {
    Dstack |dstack|
    /// planned
    "sessions", unit("sessions") = dstack.counted.sessions;
    /// of a batch
    "runs planned", unit("runs") = dstack.counted.planned;
    /// whose plan ends behind the deadline
    "runs planned too late", unit("runs") = dstack.counted.late;
    /// for which there was no place
    "runs left to the next session", unit("runs") = dstack.counted.carried;
    /// at their planned place
    "planned runs begun", unit("runs") = dstack.counted.kept;
    /// that had nothing to do
    "planned runs without a request", unit("runs") = dstack.counted.empty;
    /// in CUs that the plan left free
    "gaps filled", unit("runs") = dstack.counted.gaps;
    /// of those, on fewer CUs than the knee
    "gaps filled below the knee", unit("runs") = dstack.counted.below_knee;
}

impl Policy for Dstack {
    fn depth(&self) -> Depth {
        Depth::Batch
    }

    fn layout(&mut self, setup: &Setup) -> Result<Layout, LayoutError> {
        let largest = setup.tenants.iter().filter_map(|t| t.slo).max();
        let session = self.knobs.session.or(largest).unwrap_or(SESSION);
        self.session = session.0.max(1);
        self.cus = setup.device.cus();
        let knees = self.knobs.knees(setup)?;
        let mut workers = vec![];
        self.models.clear();
        for (t, knee) in knees.into_iter().enumerate() {
            let model = self.model(setup, t, knee, workers.len() as u32);
            for context in &model.contexts {
                let spec = setup.client(t as u32, context.cus);
                workers.extend(context.workers.iter().map(|_| spec));
            }
            self.models.push(model);
        }
        setup.check_clients(workers.len())?;
        self.running = vec![None; workers.len()];
        Ok(Layout { pools: vec![setup.whole_gpu()], workers })
    }

    fn event(&mut self, event: Event, view: &View<'_>, act: &mut Vec<Action>) {
        match event {
            Event::Start | Event::Timer { token: NEW_SESSION } => self.new_session(view, act),
            Event::Timer { .. } => {
                self.looks = None;
                self.look(view, act);
                return;
            }
            Event::BatchDone { worker, .. } => {
                let slot = self.running[worker as usize].take().expect("what ends has begun");
                let score = self.models[slot.tenant].scores.back_mut();
                *score.expect("a session is on") += view.now.0 - slot.start;
            }
            Event::RequestArrived { .. } | Event::WorkerUp { .. } => {}
            _ => return,
        }
        self.look_soon(view, act);
    }

    fn counters(&self) -> Vec<Count> {
        self.counted()
    }
}
