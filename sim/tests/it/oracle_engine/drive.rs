//! The policy: what it sees, made afresh every time, and what it does.

use std::sync::Arc;

use cotenant_profiles::Nanos;
use cotenant_sim::action::{Action, Closes, Event};
use cotenant_sim::policy::Depth;
use cotenant_sim::view::{self, Gpu, Queued, Queues, Status, TenantView, View, Window};

use super::{NEVER, Oracle, Pending, Timer};

/// Every queue, copied.
struct Lines(Vec<Vec<Queued>>, Vec<Option<Window>>);

impl Queues for Lines {
    fn queued(&self, tenant: u32, i: usize) -> Option<Queued> {
        self.0[tenant as usize].get(i).copied()
    }

    fn window(&self, tenant: u32) -> Option<&Window> {
        self.1[tenant as usize].as_ref()
    }
}

/// By worker.
struct Held(Vec<u32>);

impl Gpu for Held {
    fn held(&self, worker: u32) -> Option<u32> {
        self.0.get(worker as usize).copied()
    }
}

fn seen(request: &Pending) -> Queued {
    Queued {
        id: request.id,
        arrival: Nanos(request.arrival),
        deadline: Nanos(request.deadline),
        items: request.items,
        tokens_in: request.tokens.0,
        tokens_out: request.tokens.1,
        priority: request.prio,
    }
}

impl Oracle<'_> {
    fn occupy(&mut self, t: usize, w: usize) {
        let idle = &mut self.sources[t].idle;
        assert!(idle.contains(&w), "a policy starts batches on idle workers");
        idle.retain(|&i| i != w);
    }

    pub(super) fn tell(&mut self, event: Event) {
        if self.depth == Depth::Layout {
            return;
        }
        let (tenants, workers) = (self.tenant_views(), self.worker_views());
        let pools: Vec<_> = self.pools.iter().map(|p| p.spec.clone()).collect();
        let held = self.held();
        let setup = Arc::clone(&self.setup);
        let queues = self.sources.iter().map(|s| s.queue.iter().map(seen).collect()).collect();
        let queues = Lines(queues, self.sources.iter().map(|s| s.window.clone()).collect());
        let view = View {
            now: Nanos(self.now),
            setup: &setup,
            tenants: &tenants,
            queues: &queues,
            workers: &workers,
            pools: &pools,
            gpu: &held,
        };
        let mut actions = vec![];
        self.policy.event(event, &view, &mut actions);
        self.acting += 1;
        for action in actions {
            self.act(action);
        }
        self.acting -= 1;
        if self.acting == 0 {
            self.tell_of_next();
        }
    }

    /// If its time is over: a batch may end at that instant and be within.
    pub(super) fn close_window(&mut self, t: usize, closes: Closes) {
        let slack = u64::from(closes == Closes::WithBatch);
        let over = |&(until, how): &(u64, Closes)| how == closes && until + slack <= self.now;
        if self.sources[t].open.as_ref().is_some_and(over) {
            self.sources[t].open = None;
            self.tell(Event::WindowClosed { tenant: t as u32 });
        }
    }

    /// CUs on which each worker's kernel lies.
    fn held(&self) -> Held {
        let on = |w: usize| {
            let pool = &self.pools[self.workers[w].spec.pool as usize];
            let runs = |&i: &usize| pool.jobs[i].worker == w && pool.ends(i) != NEVER;
            let jobs = (0..pool.jobs.len()).filter(runs);
            jobs.filter_map(|i| pool.jobs[i].way).map(|way| way.lies as u32).sum()
        };
        Held((0..self.workers.len()).map(on).collect())
    }

    fn tenant_views(&self) -> Vec<TenantView> {
        let view = |s: &super::Source| TenantView {
            queued: s.queue.len() as u32,
            queued_items: s.queue.iter().map(|r| r.items).sum(),
            oldest: s.queue.front().map_or(Nanos::MAX, |r| Nanos(r.arrival)),
            oldest_deadline: s.queue.front().map_or(Nanos::MAX, |r| Nanos(r.deadline)),
            arrived: s.arrived,
            batch_max: s.batch_max,
            batch_timeout: Nanos(s.batch_timeout),
        };
        self.sources.iter().map(view).collect()
    }

    fn worker_views(&self) -> Vec<view::Worker> {
        let view = |w: &super::Worker| {
            let busy = matches!(w.status, Status::Host | Status::Held | Status::Launched);
            // How far a batch is on the GPU, only those know who launch its kernels.
            let (mut status, mut position) = (w.status, w.position);
            let mut kernel = w.program.kernels.get(w.position).copied().unwrap_or(0);
            if self.depth_of(w.spec.tenant as usize) < Depth::Kernel {
                (position, kernel) = (0, 0);
                if busy {
                    status = if w.handed { Status::Launched } else { Status::Host };
                }
            }
            view::Worker {
                spec: w.spec,
                status,
                items: w.items,
                position: position as u32,
                kernel,
                left: w.left,
                launched: Nanos(w.launched.0),
                cus: w.launched.1,
                behind: w.behind.len() as u32,
                next: w.next,
                began: Nanos(w.began),
                deadline: Nanos(if busy { w.deadline } else { NEVER }),
                retiring: w.retiring,
                resizing: w.change.is_some(),
                sequences: 0,
                step: None,
            }
        };
        self.workers.iter().map(view).collect()
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Dispatch { worker, items } => {
                let (w, t) = (worker as usize, self.workers[worker as usize].spec.tenant as usize);
                self.occupy(t, w);
                self.begin(t, w, items);
            }
            Action::Form { worker, requests } => {
                let (w, t) = (worker as usize, self.workers[worker as usize].spec.tenant as usize);
                self.occupy(t, w);
                let batch = requests.iter().map(|&id| self.unqueue(id)).collect();
                self.begin_with(t, w, batch);
            }
            Action::SetBatch { tenant, max, timeout } => {
                let t = tenant as usize;
                let most = self.setup.tenants[t].batch_max;
                self.sources[t].batch_max = max.max(1).min(most);
                self.sources[t].batch_timeout = timeout.0;
                self.form(t, false);
            }
            Action::Launch { worker, mask, priority, via } => {
                self.launch(worker as usize, None, mask, priority, via);
            }
            Action::Slice { worker, blocks, mask, priority, via } => {
                self.launch(worker as usize, Some(blocks), mask, priority, via);
            }
            Action::Follow { worker, via } => self.follow(worker as usize, via),
            Action::Preempt { worker, how } => self.preempt(worker as usize, how),
            Action::Merge { workers, priority } => {
                let workers: Vec<usize> = workers.into_iter().map(|w| w as usize).collect();
                self.merge(&workers, priority);
            }
            Action::SetClock { mhz } => {
                let m = self.setup.costs.clock_switch;
                self.set(self.now + m.cost.0 + m.delay.0, Timer::Clock(mhz));
            }
            Action::Start { spec } => self.start(spec),
            Action::Resize { worker, cap, how } => self.resize(worker as usize, cap, how),
            Action::Repartition { pool, lanes, via } => {
                self.repartition(pool as usize, lanes, via);
            }
            Action::Retire { worker } => self.retire(worker as usize),
            Action::OpenWindow { tenant, length, closes } => {
                let (t, until) = (tenant as usize, self.now + length.0);
                let opened = Nanos(self.now);
                self.sources[t].window = Some(Window { opened, ..Window::default() });
                self.sources[t].open = Some((until, closes));
                if closes == Closes::OnTime {
                    self.set(until, Timer::Closes(t));
                }
            }
            Action::Timer { at, token } => self.set(at.0.max(self.now), Timer::Policy(token)),
            Action::Drop { request, .. } => self.drop(request),
        }
    }
}
