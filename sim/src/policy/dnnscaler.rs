//! `dnnscaler`: batching or several instances, whichever helps the model, then that one knob.
//!
//! Models DNNScaler: a profiler runs each model with batch 1 and batch `m` on one instance, and
//! with batch 1 on one and on `n` instances. Whichever raises the throughput more becomes the
//! model's only knob: the batch size, found by a pseudo-binary search every 3 s, or the number of
//! instances, which starts at an estimate of how many the SLO carries and moves by one. Instances
//! are processes whose contexts take turns on the GPU (the released code uses no MPS); each
//! takes process start and model load to come up, and 7.5 % of the memory.
//!
//! It gives up: both knobs at once; any view of what shares the GPU with the model (each tenant's
//! loop only sees its own latency, and tenants that probe at the same time disturb each other).
//!
//! Source: arXiv 2308.13803 for the idea, github.com/nabavinejad/DNNScaler for every number of the
//! loops. Its profiler is not released: `probe_instances` (8) follows from the two columns that its
//! matrix completion takes as given, `probe_batch` (32) and `probe` are knobs. Quirks of the
//! released loops are kept, see the tests in `dnnscaler/`: the search may return to a batch that
//! has just failed, a removal freezes the number of instances, the mean of the last 100 latencies
//! counts a zero in place of one of them (1 % less; with the video jobs' 5, 20 %) and is taken of
//! the first instance alone.
//!
//! Choices:
//! - The profiler runs on line, on the tenant's own load, and compares items per second of busy
//!   time; its instances stay or go instead of being started afresh.
//! - A tenant has one instance to begin with, whatever `workers` says; one without an SLO keeps
//!   its configured workers and batch.
//! - Latency is from a batch's start to its result: the released loops pull their next image when
//!   they have finished one, so none waits. `latency = "request"` takes it from the arrival.
//! - Between 1 instance and `max_instances` always: the released loop would stop its last one.
//! - No decision while an instance is coming up or before the first instance has served `samples`
//!   requests, where the released loop would take zeros for latencies.
//! - Without `known` rows of other models there is no matrix to complete: the start is read off
//!   the line through the two probes. A known row of the tenant's own model is left out.
//! - Memory is that of the model, or the instance's share of the device if that is more.

pub(super) mod band;
mod completion;
mod instances;
mod knobs;
mod known;
mod search;

use std::collections::VecDeque;

use cotenant_profiles::Nanos;

use super::options::Latency;
use super::{Depth, LayoutError, Policy, PolicyInfo, Properties, clipper};
use crate::action::{Action, Closes, Event};
use crate::counter::Count;
use crate::counters;
use crate::layout::{Layout, PoolSpec, WorkerSpec};
use crate::scenario::Setup;
use crate::view::View;
use band::Band;
use instances::{Change, Loop};
use knobs::{Approach, Knobs, Probed, Sharing};
use search::Search;

/// The registry entry.
pub(super) const INFO: PolicyInfo = PolicyInfo {
    name: "dnnscaler",
    summary: "batching or several instances per model, whichever its probes favour, then that knob",
    source: "DNNScaler (arXiv 2308.13803) and its released code",
    properties: Properties {
        work_conserving: false,
        alone_is_isolated: false,
        starvation_free: true,
    },
    options: Knobs::SPECS,
    counters: Dnnscaler::COUNTERS,
    build: |options| Ok(Box::new(Dnnscaler::new(Knobs::read(options)?.checked()?))),
};

struct Dnnscaler {
    knobs: Knobs,
    jobs: Vec<Job>,
    counted: Counted,
}

/// One tenant.
#[derive(Clone, Debug)]
struct Job {
    tenant: u32,
    /// Instances that serve, oldest first.
    workers: Vec<u32>,
    /// Instances that are starting.
    coming: u32,
    /// Free lanes; the next one to use is last.
    lanes: Vec<u32>,
    /// Largest batch.
    limit: u32,
    /// Memory allows no more instances than this.
    most: u32,
    phase: Phase,
    /// Timers of earlier phases are stale.
    epoch: u32,
    /// Batches that began before this instant do not count.
    since: Nanos,
    probed: Probed,
    /// Latencies of the phase, or since the last decision, ms.
    latencies: VecDeque<f64>,
    /// Latencies of the first instance since it was deployed.
    served: u64,
    /// The last latency that was compared with the SLO, ms.
    seen: f64,
}

/// The phase that a tenant is in.
#[derive(Clone, Copy, Debug)]
enum Phase {
    /// No SLO: its configuration is never changed.
    Free,
    Probing(Probe, Tally),
    Batching(Search),
    Instances(Loop),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Probe {
    /// Batch 1, one instance.
    Single,
    Batch,
    Instances,
}

/// What a probe has measured.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    batches: u64,
    items: u64,
    busy_ns: u128,
}

#[derive(Clone, Copy, Debug, Default)]
struct Counted {
    started: u64,
    retired: u64,
    refused: u64,
    changes: u64,
    over: u64,
}

impl Tally {
    /// Items per second of one instance that is never idle.
    fn rate(&self) -> f64 {
        self.items as f64 * 1e9 / self.busy_ns as f64
    }

    fn mean_ms(&self) -> f64 {
        self.busy_ns as f64 / 1e6 / self.batches as f64
    }
}

impl Job {
    fn token(&self) -> u64 {
        u64::from(self.tenant) << 32 | u64::from(self.epoch)
    }

    /// Sets the job's one timer; earlier ones become stale.
    fn wake(&mut self, at: Nanos, act: &mut Vec<Action>) {
        self.epoch += 1;
        act.push(Action::Timer { at, token: self.token() });
    }

    fn set_batch(&self, max: u32, view: &View<'_>, act: &mut Vec<Action>) {
        act.push(view.set_batch(self.tenant, max));
    }

    fn forget(&mut self, now: Nanos) {
        self.since = now;
        self.latencies.clear();
    }

    fn retire_down_to(&mut self, n: u32, act: &mut Vec<Action>) -> u64 {
        let gone = self.workers.split_off((n as usize).min(self.workers.len()));
        act.extend(gone.iter().rev().map(|&worker| Action::Retire { worker }));
        gone.len() as u64
    }

    fn live(&self) -> u32 {
        self.workers.len() as u32
    }
}

impl Knobs {
    /// What is observed between two decisions on the batch size.
    fn window(&self, tenant: u32) -> Action {
        Action::OpenWindow { tenant, length: self.period, closes: Closes::WithBatch }
    }
}

impl Dnnscaler {
    fn new(knobs: Knobs) -> Self {
        Self { knobs, jobs: vec![], counted: Counted::default() }
    }

    fn begin(&mut self, t: usize, view: &View<'_>, act: &mut Vec<Action>) {
        match self.knobs.approach {
            Approach::Batching => self.batching(t, view, act),
            _ => self.probe(t, Probe::Single, view, act),
        }
    }

    fn probe(&mut self, t: usize, probe: Probe, view: &View<'_>, act: &mut Vec<Action>) {
        let knobs = &self.knobs;
        let batch = if probe == Probe::Batch { knobs.probe_batch } else { 1 };
        let job = &mut self.jobs[t];
        job.phase = Phase::Probing(probe, Tally::default());
        job.set_batch(batch.min(job.limit), view, act);
        job.forget(view.now);
        if probe == Probe::Instances {
            self.grow(t, self.knobs.probe_instances(), view, act);
        }
        let job = &mut self.jobs[t];
        if job.coming == 0 {
            job.wake(view.now + self.knobs.probe, act);
        }
    }

    /// Starts instances until there are `n`, or as many as fit.
    fn grow(&mut self, t: usize, n: u32, view: &View<'_>, act: &mut Vec<Action>) {
        let job = &mut self.jobs[t];
        while job.live() + job.coming < n.min(job.most) {
            let Some(lane) = job.lanes.pop() else { return };
            job.coming += 1;
            self.counted.started += 1;
            let spec = self.knobs.worker(job.tenant, lane, view.setup);
            act.push(Action::Start { spec });
        }
    }

    /// The last instance is up, or never will be.
    fn settled(&mut self, t: usize, view: &View<'_>, act: &mut Vec<Action>) {
        let job = &mut self.jobs[t];
        if let Phase::Probing(Probe::Instances, tally) = &mut job.phase {
            *tally = Tally::default();
            job.forget(view.now);
            job.wake(view.now + self.knobs.probe, act);
        }
    }

    fn timer(&mut self, t: usize, view: &View<'_>, act: &mut Vec<Action>) {
        match self.jobs[t].phase {
            // Nothing was served: checks again later.
            Phase::Probing(_, tally) if tally.batches == 0 => {
                self.jobs[t].wake(view.now + self.knobs.probe, act);
            }
            Phase::Probing(probe, tally) => self.probed(t, probe, tally, view, act),
            Phase::Instances(state) => self.look(t, state, view, act),
            Phase::Free | Phase::Batching(_) => {}
        }
    }

    fn probed(
        &mut self,
        t: usize,
        probe: Probe,
        tally: Tally,
        view: &View<'_>,
        act: &mut Vec<Action>,
    ) {
        let job = &mut self.jobs[t];
        let seen = &mut job.probed;
        match probe {
            Probe::Single => {
                (seen.single, seen.alone_ms) = (tally.rate(), tally.mean_ms());
                let both = self.knobs.approach == Approach::Probe;
                let next = if both && job.limit > 1 { Probe::Batch } else { Probe::Instances };
                self.probe(t, next, view, act);
            }
            Probe::Batch => {
                seen.batch = Some(tally.rate());
                self.probe(t, Probe::Instances, view, act);
            }
            Probe::Instances => {
                let n = job.workers.len() as u32;
                seen.instances = Some(tally.rate() * f64::from(n));
                seen.beside = (n > 1).then(|| (n, tally.mean_ms()));
                let (batch, instances) = job.probed.gains();
                match self.knobs.approach {
                    Approach::MultiTenancy => self.instances(t, view, act),
                    Approach::Probe if instances > batch => self.instances(t, view, act),
                    _ => self.batching(t, view, act),
                }
            }
        }
    }

    fn batching(&mut self, t: usize, view: &View<'_>, act: &mut Vec<Action>) {
        let job = &mut self.jobs[t];
        let search = Search::new(job.limit);
        job.phase = Phase::Batching(search);
        job.set_batch(search.batch(), view, act);
        act.push(self.knobs.window(t as u32));
        self.counted.retired += job.retire_down_to(1, act);
    }

    fn decide_batch(&mut self, t: usize, view: &View<'_>, act: &mut Vec<Action>) {
        let Some(slo) = view.setup.tenants[t].slo else { return };
        let job = &mut self.jobs[t];
        let Phase::Batching(search) = &mut job.phase else { return };
        let window = view.window(t as u32);
        let latency = match self.knobs.latency {
            // A batch from the previous phase ran beside other instances.
            Latency::Execution => {
                let own = window.executions.iter().filter(|e| e.began >= window.opened);
                self.knobs.statistic.of_times(own.map(|e| e.took))
            }
            Latency::Request => self.knobs.statistic.of_times(window.latencies.iter().copied()),
        };
        act.push(self.knobs.window(t as u32));
        let Some(latency) = latency else { return };
        let band = Band::of(latency, slo.as_millis_f64(), self.knobs.dead_band);
        self.counted.over += u64::from(band == Band::Over);
        let before = search.batch();
        search.step(band);
        let after = search.batch();
        job.seen = latency;
        if after != before {
            self.counted.changes += 1;
            job.set_batch(after, view, act);
        }
    }

    fn instances(&mut self, t: usize, view: &View<'_>, act: &mut Vec<Action>) {
        let tenant = &view.setup.tenants[t];
        let slo = tenant.slo.map_or(f64::INFINITY, Nanos::as_millis_f64);
        let job = &mut self.jobs[t];
        let first = self.knobs.start(&tenant.model.name, slo, &job.probed);
        job.phase = Phase::Instances(Loop::new(self.knobs.waits()));
        job.forget(view.now);
        job.served = 0;
        self.counted.retired += job.retire_down_to(first, act);
        self.grow(t, first, view, act);
        let deployed = Nanos(self.knobs.waits().bias.0 * u64::from(first));
        self.jobs[t].wake(view.now + deployed + self.knobs.waits().tick, act);
    }

    fn look(&mut self, t: usize, mut state: Loop, view: &View<'_>, act: &mut Vec<Action>) {
        let slo = view.setup.tenants[t].slo.map_or(f64::INFINITY, Nanos::as_millis_f64);
        let job = &mut self.jobs[t];
        let ready = job.coming == 0 && job.served > u64::from(self.knobs.samples);
        let latency = self.knobs.statistic_of(&job.latencies).filter(|_| ready);
        let Some(latency) = latency else {
            job.wake(view.now + self.knobs.waits().tick, act);
            return;
        };
        job.seen = latency;
        self.counted.over += u64::from(latency > slo);
        let (change, wait) = state.look(latency, slo, self.knobs.dead_band, job.live(), job.most);
        job.phase = Phase::Instances(state);
        match change {
            Change::Keep => {}
            Change::Add => {
                self.counted.changes += 1;
                let n = job.live() + 1;
                self.grow(t, n, view, act);
            }
            Change::Remove => {
                self.counted.changes += 1;
                let n = job.live() - 1;
                self.counted.retired += job.retire_down_to(n, act);
            }
        }
        self.jobs[t].wake(view.now + wait, act);
    }

    fn batch_done(&mut self, worker: u32, items: u32, took: Nanos, view: &View<'_>) {
        let t = view.workers[worker as usize].spec.tenant as usize;
        let job = &mut self.jobs[t];
        if view.now.0 - took.0 < job.since.0 {
            return; // Begun in the phase before.
        }
        if let Phase::Probing(_, tally) = &mut job.phase {
            tally.batches += 1;
            tally.items += u64::from(items);
            tally.busy_ns += u128::from(took.0);
        }
        if self.knobs.latency == Latency::Execution {
            self.latency(t, worker, took);
        }
    }

    fn latency(&mut self, t: usize, worker: u32, latency: Nanos) {
        let job = &mut self.jobs[t];
        match job.phase {
            Phase::Instances(_) if job.workers.first() == Some(&worker) => {
                job.served += 1;
                job.latencies.push_back(latency.as_millis_f64());
                if job.latencies.len() > self.knobs.kept() {
                    job.latencies.pop_front();
                }
            }
            _ => {}
        }
    }

    fn worker_down(&mut self, worker: u32, view: &View<'_>, act: &mut Vec<Action>) {
        let spec = view.workers[worker as usize].spec;
        let t = spec.tenant as usize;
        let job = &mut self.jobs[t];
        job.lanes.push(spec.lane);
        // An instance that never came up, and was not asked to stop, found no memory.
        if !view.workers[worker as usize].retiring && !job.workers.contains(&worker) {
            job.coming -= 1;
            job.most = job.live() + job.coming;
            self.counted.refused += 1;
            if job.coming == 0 {
                self.settled(t, view, act);
            }
        }
    }

    fn worker_up(&mut self, worker: u32, view: &View<'_>, act: &mut Vec<Action>) {
        let t = view.workers[worker as usize].spec.tenant as usize;
        let job = &mut self.jobs[t];
        job.workers.push(worker);
        job.coming -= 1;
        if job.coming == 0 {
            self.settled(t, view, act);
        }
    }
}

impl Dnnscaler {
    /// Over tenants.
    fn sum(&self, of: fn(&Job) -> f64) -> f64 {
        self.jobs.iter().map(of).sum()
    }
}

counters! {
    Dnnscaler |scaler|
    /// for which batching was chosen, at the end
    "tenants on batching", unit("tenants") =
        scaler.sum(|job| matches!(job.phase, Phase::Batching(_)).into());
    /// for which instances were chosen, at the end
    "tenants on multi-tenancy", unit("tenants") =
        scaler.sum(|job| matches!(job.phase, Phase::Instances(_)).into());
    /// of throughput, over tenants
    "gain of batching in the probe, %, sum", unit("%") = scaler.sum(|job| job.probed.gains().0);
    /// of throughput, over tenants
    "gain of multi-tenancy in the probe, %, sum", unit("%") =
        scaler.sum(|job| job.probed.gains().1);
    /// over tenants
    "batch limits at the end, sum", unit("items") = scaler.sum(|job| match job.phase {
        Phase::Batching(search) => f64::from(search.batch()),
        _ => 1.0,
    });
    /// over tenants
    "instances at the end, sum", unit("instances") =
        scaler.sum(|job| f64::from(job.live() + job.coming));
    /// over tenants
    "last latency held against the SLO, ms, sum", unit("ms") = scaler.sum(|job| job.seen);
    /// in all
    "instances started", unit("instances") = scaler.counted.started;
    /// in all
    "instances retired", unit("instances") = scaler.counted.retired;
    /// for which there was no memory
    "instances refused", unit("instances") = scaler.counted.refused;
    /// of a batch limit or of the number of instances
    "changes of the knob", unit("changes") = scaler.counted.changes;
    /// at a latency that was above it
    "looks over the SLO", unit("looks") = scaler.counted.over;
}

impl Policy for Dnnscaler {
    fn depth(&self) -> Depth {
        Depth::Request
    }

    fn layout(&mut self, setup: &Setup) -> Result<Layout, LayoutError> {
        let mut workers: Vec<WorkerSpec> = vec![];
        let mut lanes = 0;
        self.jobs.clear();
        for (t, tenant) in setup.tenants.iter().enumerate() {
            let (now, most) = match tenant.slo {
                Some(_) => (1, self.knobs.max_instances),
                None => (tenant.workers, tenant.workers),
            };
            let first = workers.len() as u32;
            workers.extend((0..now).map(|i| self.knobs.worker(t as u32, lanes + i, setup)));
            self.jobs.push(Job {
                tenant: t as u32,
                workers: (first..first + now).collect(),
                coming: 0,
                lanes: (lanes + now..lanes + most).rev().collect(),
                limit: tenant.batch_max.min(self.knobs.max_batch),
                most,
                phase: Phase::Free,
                epoch: 0,
                since: Nanos::ZERO,
                probed: Probed::default(),
                latencies: VecDeque::new(),
                served: 0,
                seen: 0.0,
            });
            lanes += most;
        }
        let cus = setup.device.cus();
        let pool = if self.knobs.sharing == Sharing::Mps {
            setup.check_clients(lanes as usize)?;
            setup.whole_gpu()
        } else {
            let lanes = vec![cus; lanes as usize];
            PoolSpec { discipline: clipper::turns(setup), lanes, ..setup.whole_gpu() }
        };
        Ok(Layout { pools: vec![pool], workers })
    }

    fn event(&mut self, event: Event, view: &View<'_>, act: &mut Vec<Action>) {
        match event {
            Event::Start => {
                for (t, tenant) in view.setup.tenants.iter().enumerate() {
                    if tenant.slo.is_some() {
                        self.begin(t, view, act);
                    }
                }
            }
            Event::RequestDone { tenant, worker, latency, .. }
                if self.knobs.latency == Latency::Request =>
            {
                self.latency(tenant as usize, worker, latency);
            }
            Event::BatchDone { worker, items, took } => {
                self.batch_done(worker, items, took, view);
            }
            Event::WindowClosed { tenant } => self.decide_batch(tenant as usize, view, act),
            Event::WorkerUp { worker } => self.worker_up(worker, view, act),
            Event::WorkerDown { worker } => self.worker_down(worker, view, act),
            Event::Timer { token } => {
                let t = (token >> 32) as usize;
                if self.jobs[t].token() == token {
                    self.timer(t, view, act);
                }
            }
            _ => {}
        }
    }

    fn counters(&self) -> Vec<Count> {
        self.counted()
    }
}
