//! A slow and obvious simulator of streams, contexts, placement and contention, written from the
//! documentation: every event recomputes the grants and the slow-downs of everything.
//!
//! Shared with the engine is only what results are defined by: a kernel's remaining time is brought
//! up to date when its own grant or slow-down changes and at no other instant, so that both round
//! alike; kernels end before timers at the same instant, and timers go in the order in which they
//! were set.

mod placement;
mod slices;

use std::collections::VecDeque;
use std::sync::Arc;

use cotenant_profiles::Nanos;
use cotenant_profiles::device::Mechanism;
use cotenant_sim::action::Via;
use cotenant_sim::contention::ContentionModel;
use cotenant_sim::layout::{Discipline, Layout, PoolSpec, WorkerSpec};
use cotenant_sim::mask::CuMask;
use cotenant_sim::observe::Happening;
use cotenant_sim::program::Program;
use cotenant_sim::scenario::{Load, Scenario, Setup, Think};
use cotenant_traces::Request;

use super::Launcher;

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
    pub(crate) order: u64,
    pub(crate) grant: u32,
    /// CUs it occupies; which ones, where its lane has masks.
    pub(crate) used: u32,
    pub(crate) cus: Vec<u32>,
    /// The CUs at which `left` is counted; 0 before it started.
    pub(crate) basis: u32,
    pub(crate) left: f64,
    pub(crate) since: u64,
    pub(crate) slow: f64,
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
    /// Hardware queues: the worker whose kernel is out, and those behind it.
    queues: Vec<(Option<usize>, VecDeque<Job>)>,
}

#[derive(Clone, Copy, Debug)]
enum Timer {
    Arrival(usize),
    Asks(usize),
    Prepared(usize),
    CopiedIn(usize),
    Issued(usize),
    Placed(usize),
    CopiedOut(usize),
    Batch(usize),
    Window,
}

struct Pending {
    arrival: u64,
    items: u32,
    work: f32,
    deadline: u64,
    began: u64,
}

#[derive(Default)]
pub(crate) struct Counts {
    pub(crate) offered: u64,
    pub(crate) completed: u64,
    pub(crate) good: u64,
    pub(crate) batches: u64,
    pub(crate) batch_items: u64,
    pub(crate) in_system: u64,
    pub(crate) latency_sum: u128,
    pub(crate) queue_sum: u128,
}

struct Source {
    load: Load,
    next: Option<Request>,
    issued: u64,
    queue: VecDeque<Pending>,
    idle: Vec<usize>,
    batch_timer: u64,
}

struct Worker {
    spec: WorkerSpec,
    batch: Vec<Pending>,
    items: u32,
    program: Program,
    position: usize,
    passes: u32,
    scale: f64,
    host_base: u64,
}

pub(crate) struct Oracle {
    pub(crate) setup: Arc<Setup>,
    pub(crate) contention: ContentionModel,
    launcher: Option<Launcher>,
    pub(crate) pools: Vec<Pool>,
    sources: Vec<Source>,
    workers: Vec<Worker>,
    timers: Vec<(u64, u64, Timer)>,
    set: u64,
    jobs: u64,
    pub(crate) now: u64,
    warmup: u64,
    end: u64,
    pub(crate) log: Vec<(u64, Happening)>,
    pub(crate) counts: Vec<Counts>,
    pub(crate) busy_cu_ns: u64,
    pub(crate) switches: u64,
}

impl Oracle {
    pub(crate) fn new(scenario: Scenario, layout: Layout, launcher: Option<Launcher>) -> Self {
        let Scenario { setup, loads, warmup, duration, contention, .. } = scenario;
        let hardware = setup.device.queues.hardware as usize;
        let pools = layout.pools.iter().enumerate().map(|(p, spec)| {
            let streams = layout.workers.iter().filter(|w| w.pool as usize == p).count();
            let limited = launcher.is_none()
                && spec.discipline == Discipline::Concurrent
                && streams > hardware;
            let queues = if limited { hardware } else { 0 };
            Pool {
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
                queues: (0..queues).map(|_| (None, VecDeque::new())).collect(),
            }
        });
        let workers = layout.workers.iter().map(|&spec| Worker {
            spec,
            batch: vec![],
            items: 0,
            program: Program { kernels: vec![], issued_ns: vec![], remaining_ns: vec![] },
            position: 0,
            passes: 0,
            scale: 1.0,
            host_base: 0,
        });
        let workers: Vec<_> = workers.collect();
        let sources = loads.into_iter().enumerate().map(|(t, load)| {
            let mine = |&w: &usize| workers[w].spec.tenant as usize == t;
            let idle = (0..workers.len()).rev().filter(mine).collect();
            let queue = VecDeque::new();
            Source { load, next: None, issued: 0, queue, idle, batch_timer: NEVER }
        });
        let sources: Vec<_> = sources.collect();
        let counts = sources.iter().map(|_| Counts::default()).collect();
        Self {
            contention,
            launcher,
            pools: pools.collect(),
            sources,
            workers,
            timers: vec![],
            set: 0,
            jobs: 0,
            now: 0,
            warmup: warmup.0,
            end: warmup.0 + duration.0,
            log: vec![],
            counts,
            busy_cu_ns: 0,
            switches: 0,
            setup,
        }
    }

    pub(crate) fn run(&mut self) {
        for t in 0..self.sources.len() {
            match &mut self.sources[t].load {
                Load::Open(arrivals) => {
                    self.sources[t].next = arrivals.next_request();
                    if let Some(at) = self.sources[t].next.map(|r| r.arrival.0) {
                        self.set(at, Timer::Arrival(t));
                    }
                }
                Load::Closed { concurrency, limit, .. } => {
                    let n = u64::from(*concurrency).min(limit.unwrap_or(u64::MAX));
                    self.sources[t].issued = n;
                    (0..n).for_each(|_| self.set(0, Timer::Asks(t)));
                }
            }
        }
        self.set(self.warmup, Timer::Window);
        loop {
            let timer = self.timers.iter().enumerate().min_by_key(|(_, t)| (t.0, t.1));
            let timer = timer.map(|(i, t)| (t.0, i));
            let pool = (0..self.pools.len()).map(|p| (self.pools[p].next(), p)).min();
            let (pool_at, p) = pool.expect("a layout has a pool");
            let at = pool_at.min(timer.map_or(NEVER, |t| t.0)).min(self.end);
            let busy: u32 = self.pools.iter().map(Pool::busy).sum();
            self.busy_cu_ns += u64::from(busy) * (at - self.now);
            self.now = at;
            if at == self.end {
                return;
            }
            match timer {
                Some((timer_at, i)) if timer_at < pool_at => {
                    let (_, _, timer) = self.timers.remove(i);
                    self.timer(timer);
                }
                _ => self.pool_event(p),
            }
            for p in 0..self.pools.len() {
                // Whatever the event led to at this instant comes before anybody makes way.
                self.turn(p);
                self.rerate(p);
            }
        }
    }

    fn set(&mut self, at: u64, timer: Timer) {
        self.set += 1;
        self.timers.push((at, self.set, timer));
    }

    fn timer(&mut self, timer: Timer) {
        match timer {
            Timer::Arrival(t) => {
                let request = self.sources[t].next.expect("it arrives");
                if let Load::Open(arrivals) = &mut self.sources[t].load {
                    self.sources[t].next = arrivals.next_request();
                }
                if let Some(next) = self.sources[t].next {
                    self.set(next.arrival.0, Timer::Arrival(t));
                }
                self.admit(t, request);
            }
            Timer::Asks(t) => {
                let Load::Closed { items, .. } = self.sources[t].load else { unreachable!() };
                self.admit(t, Request { items, ..Request::at(Nanos(self.now)) });
            }
            Timer::Prepared(w) => self.prepared(w),
            Timer::CopiedIn(w) => self.copied_in(w),
            Timer::Issued(w) => self.ready(w),
            Timer::Placed(w) => {
                let (mask, priority) = self.chosen(w);
                self.submit(w, mask, priority);
            }
            Timer::CopiedOut(w) => self.batch_done(w),
            Timer::Batch(t) => {
                self.sources[t].batch_timer = NEVER;
                self.form(t);
            }
            Timer::Window => {
                for c in &mut self.counts {
                    let in_system = c.in_system;
                    *c = Counts { offered: in_system, in_system, ..Counts::default() };
                }
                self.busy_cu_ns = 0;
                self.switches = 0;
            }
        }
    }

    fn admit(&mut self, t: usize, request: Request) {
        let slo = request.slo.or(self.setup.tenants[t].slo);
        self.sources[t].queue.push_back(Pending {
            arrival: request.arrival.0,
            items: request.items,
            work: request.work,
            deadline: slo.map_or(NEVER, |s| request.arrival.0 + s.0),
            began: 0,
        });
        self.counts[t].offered += 1;
        self.counts[t].in_system += 1;
        self.form(t);
    }

    fn form(&mut self, t: usize) {
        let (most, timeout) =
            (self.setup.tenants[t].batch_max, self.setup.tenants[t].batch_timeout.0);
        while !self.sources[t].queue.is_empty() && !self.sources[t].idle.is_empty() {
            let s = &mut self.sources[t];
            let due = s.queue[0].arrival + timeout;
            let waiting: u32 = s.queue.iter().map(|r| r.items).sum();
            if waiting < most && due > self.now {
                if s.batch_timer > due {
                    s.batch_timer = due;
                    self.set(due, Timer::Batch(t));
                }
                return;
            }
            let w = s.idle.pop().expect("one is idle");
            self.begin(t, w, most);
        }
    }

    fn begin(&mut self, t: usize, w: usize, most: u32) {
        let queue = &mut self.sources[t].queue;
        let mut batch: Vec<Pending> = vec![];
        while let Some(r) = queue.front() {
            let items: u32 = batch.iter().map(|r| r.items).sum();
            if !batch.is_empty() && items + r.items > most {
                break;
            }
            batch.extend(queue.pop_front());
        }
        batch.iter_mut().for_each(|r| r.began = self.now);
        let model = &self.setup.tenants[t].model;
        let items: u32 = batch.iter().map(|r| r.items).sum();
        let largest = model.programs.len() as u32;
        let worker = &mut self.workers[w];
        worker.items = items;
        worker.passes = items.div_ceil(largest);
        worker.program = model.programs[items.min(largest) as usize - 1].clone();
        worker.scale = f64::from(batch.iter().map(|r| r.work).fold(0.0, f32::max));
        worker.position = 0;
        let prepare = model.host_per_request.0 * batch.len() as u64;
        worker.batch = batch;
        self.log.push((self.now, Happening::BatchBegan { worker: w as u32, items }));
        if prepare > 0 {
            self.set(self.now + prepare, Timer::Prepared(w));
        } else {
            self.prepared(w);
        }
    }

    fn prepared(&mut self, w: usize) {
        self.workers[w].host_base = self.now;
        let t = self.workers[w].spec.tenant as usize;
        let bytes = self.setup.tenants[t].model.input_per_item.0 * u64::from(self.workers[w].items);
        match self.copy(w, 0, bytes) {
            Some(done) => self.set(done, Timer::CopiedIn(w)),
            None => self.copied_in(w),
        }
    }

    fn copy(&mut self, w: usize, direction: usize, bytes: u64) -> Option<u64> {
        let pcie = &self.setup.device.pcie;
        let ns = (bytes as f64 / [pcie.h2d_gbps, pcie.d2h_gbps][direction]).ceil() as u64;
        let pool = &mut self.pools[self.workers[w].spec.pool as usize];
        let engine = if pool.spec.copy_engines < 2 { 0 } else { direction };
        (ns > 0).then(|| {
            pool.copies[engine] = pool.copies[engine].max(self.now) + ns;
            pool.copies[engine]
        })
    }

    fn copied_in(&mut self, w: usize) {
        let spec = self.workers[w].spec;
        self.pools[spec.pool as usize].open[spec.lane as usize] += 1;
        self.head(w);
    }

    fn head(&mut self, w: usize) {
        let worker = &self.workers[w];
        let issued = worker.host_base + worker.program.issued_ns[worker.position];
        if issued > self.now {
            self.set(issued, Timer::Issued(w));
        } else {
            self.ready(w);
        }
    }

    fn chosen(&self, w: usize) -> (Option<CuMask>, i8) {
        match &self.launcher {
            Some(l) => l.choose(w as u32, self.workers[w].position as u32),
            None => (None, self.workers[w].spec.priority),
        }
    }

    fn ready(&mut self, w: usize) {
        let cost = match self.launcher.map(|l| l.via) {
            Some(Via::MaskTpc) => self.setup.costs.mask_tpc,
            _ => Mechanism::FREE,
        };
        let wait = cost.cost.0 + cost.delay.0;
        if wait > 0 {
            self.set(self.now + wait, Timer::Placed(w));
        } else {
            let (mask, priority) = self.chosen(w);
            self.submit(w, mask, priority);
        }
    }

    fn submit(&mut self, w: usize, mask: Option<CuMask>, priority: i8) {
        let worker = &self.workers[w];
        let p = worker.spec.pool as usize;
        let mut job = Job {
            worker: w,
            kernel: worker.program.kernels[worker.position] as usize,
            lane: worker.spec.lane as usize,
            cap: worker.spec.cap,
            priority,
            mask,
            scale: worker.scale,
            extra_ns: 0,
            order: 0,
            grant: 0,
            used: 0,
            cus: vec![],
            basis: 0,
            left: 0.0,
            since: self.now,
            slow: 1.0,
        };
        let n = self.pools[p].queues.len();
        if n > 0 {
            job.extra_ns = self.setup.device.queues.overflow.0;
            let queue = &mut self.pools[p].queues[w % n];
            if queue.0.is_some() {
                queue.1.push_back(job);
                return;
            }
            queue.0 = Some(w);
        }
        self.compete(p, job);
    }

    /// The job's blocks compete from now on.
    fn compete(&mut self, p: usize, mut job: Job) {
        self.jobs += 1;
        job.order = self.jobs;
        let (lane, masked) = (job.lane, job.mask.is_some());
        if masked && !self.pools[p].masked[lane] {
            self.pools[p].masked[lane] = true;
            self.name_cus(p, lane);
        }
        self.pools[p].jobs.push(job);
        if self.pools[p].on(lane) {
            self.regrant(p, lane);
        }
    }

    fn pool_event(&mut self, p: usize) {
        let pool = &mut self.pools[p];
        if pool.switch_end == self.now {
            self.activate(p);
            return;
        }
        let ended = (0..pool.jobs.len())
            .filter(|&i| pool.ends(i) == self.now)
            .min_by_key(|&i| pool.jobs[i].order);
        let Some(i) = ended else {
            let to = pool.next_lane().expect("others wait when a slice ends");
            self.switch_to(p, to, false);
            return;
        };
        let job = pool.jobs.remove(i);
        self.regrant(p, job.lane);
        let (w, kernel) = (job.worker, job.kernel as u32);
        self.log.push((self.now, Happening::KernelEnded { worker: w as u32, kernel }));
        let n = self.pools[p].queues.len();
        if n > 0 {
            let queue = &mut self.pools[p].queues[w % n];
            let next = queue.1.pop_front();
            queue.0 = next.as_ref().map(|j| j.worker);
            if let Some(job) = next {
                self.compete(p, job);
            }
        }
        self.kernel_ended(w);
    }

    fn kernel_ended(&mut self, w: usize) {
        let worker = &mut self.workers[w];
        worker.position += 1;
        if worker.position == worker.program.kernels.len() {
            worker.position = 0;
            worker.passes -= 1;
            worker.host_base = self.now;
            if worker.passes == 0 {
                self.kernels_done(w);
                return;
            }
        }
        self.head(w);
    }

    fn kernels_done(&mut self, w: usize) {
        let WorkerSpec { tenant, pool, lane, .. } = self.workers[w].spec;
        let per_item = self.setup.tenants[tenant as usize].model.output_per_item.0;
        let on = &mut self.pools[pool as usize];
        on.open[lane as usize] -= 1;
        if on.open[lane as usize] == 0 {
            on.ended_batch = Some((self.now, lane as usize));
        }
        match self.copy(w, 1, per_item * u64::from(self.workers[w].items)) {
            Some(done) => self.set(done, Timer::CopiedOut(w)),
            None => self.batch_done(w),
        }
    }

    fn batch_done(&mut self, w: usize) {
        let (t, items) = (self.workers[w].spec.tenant as usize, self.workers[w].items);
        self.counts[t].batches += 1;
        self.counts[t].batch_items += u64::from(items);
        self.log.push((self.now, Happening::BatchEnded { worker: w as u32, items }));
        for r in std::mem::take(&mut self.workers[w].batch) {
            let c = &mut self.counts[t];
            c.completed += 1;
            c.good += u64::from(self.now <= r.deadline);
            c.in_system -= 1;
            c.latency_sum += u128::from(self.now - r.arrival);
            c.queue_sum += u128::from(r.began - r.arrival);
            self.asks_again(t);
            let (tenant, arrival) = (t as u32, Nanos(r.arrival));
            self.log.push((self.now, Happening::RequestDone { tenant, arrival }));
        }
        self.sources[t].idle.push(w);
        self.form(t);
    }

    fn asks_again(&mut self, t: usize) {
        let s = &mut self.sources[t];
        let Load::Closed { think, limit, .. } = &mut s.load else { return };
        if limit.is_some_and(|n| s.issued >= n) {
            return;
        }
        s.issued += 1;
        let pause = match think {
            Think::Constant(pause) => pause.0,
            Think::Exponential(mean, rng) => (rng.exp1() * mean.0 as f64) as u64,
        };
        self.set(self.now + pause, Timer::Asks(t));
    }
}
