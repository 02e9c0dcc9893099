//! Requests from their arrival to the account: queues, the rule by which batches are formed, what a
//! policy sees of both, and the metrics.
//!
//! One [`Serving`] keeps the requests of all tenants. It has no clock, no events and no GPU: whoever
//! drives it says what time it is and carries the batches out. Every driver of policies uses it, so a
//! request is queued, batched and counted the same way whether time is virtual or real.
//!
//! ```text
//! admit -> queue -> take (into a batch) -> finish
//!               \-> drop
//! ```

use std::collections::VecDeque;

use cotenant_profiles::Nanos;
use cotenant_traces::Request;

use crate::metrics::Counts;
use crate::report::TenantReport;
use crate::scenario::Setup;
use crate::view::{Queued, Queues, TenantView};

mod generating;

use generating::Generating;
pub use generating::Waiting;

/// A request in the system, by a number that is used again once it has left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestId(pub u32);

/// What a batch is made of.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Taken {
    /// Items in all.
    pub items: u32,
    /// Requests.
    pub requests: u32,
    /// The largest factor on kernel times among its requests.
    pub work: f32,
    /// The earliest deadline; [`Nanos::MAX`] if none.
    pub deadline: Nanos,
    /// How many requests of its tenant came before the first one.
    pub ordinal: u64,
}

/// What the batching rule wants for a tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// Nothing: no request waits, no worker is idle, or a wake-up has been asked for.
    Nothing,
    /// A batch on this worker, which counts as busy from now on.
    Batch {
        /// The worker.
        worker: u32,
    },
    /// A wake-up ([`Serving::woken`]) when the oldest request has waited long enough.
    WakeAt(Nanos),
}

/// A request that has been answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Finished {
    /// Its tenant.
    pub tenant: u32,
    /// When it was scheduled to arrive.
    pub arrival: Nanos,
    /// From then to now.
    pub latency: Nanos,
    /// Part of it spent in the tenant's queue.
    pub queued: Nanos,
}

#[derive(Clone, Copy, Debug)]
struct Live {
    tenant: u32,
    items: u32,
    arrival: Nanos,
    /// [`Nanos::MAX`] without one.
    deadline: Nanos,
    began: Nanos,
    work: f32,
    prio: i8,
    tokens_in: u32,
    tokens_out: u32,
    ordinal: u64,
    session: u64,
    /// Tokens generated so far, and when the first and the last of them came.
    generated: u32,
    first: Nanos,
    last: Nanos,
    /// Past its deadline at the end of the run it counts as late.
    late: bool,
}

/// What is kept of a tenant besides its view.
#[derive(Clone, Debug)]
struct Desk {
    queue: VecDeque<RequestId>,
    /// Idle workers; the last one serves next.
    idle: Vec<u32>,
    slo: Option<Nanos>,
    /// Most items that a batch may ever have.
    batch_limit: u32,
    counts: Counts,
    in_system: u64,
    /// A wake-up has been asked for this instant.
    wake: Nanos,
    /// When the window opened.
    opened: Nanos,
    generating: Option<Box<Generating>>,
}

/// The requests of all tenants.
#[derive(Clone, Debug)]
pub struct Serving {
    views: Vec<TenantView>,
    desks: Vec<Desk>,
    requests: Vec<Live>,
    free: Vec<RequestId>,
}

impl Serving {
    /// Nobody has asked for anything yet, and no worker is idle.
    #[must_use]
    pub fn new(setup: &Setup) -> Self {
        let view = |t: &crate::Tenant| TenantView {
            queued: 0,
            queued_items: 0,
            oldest: Nanos::MAX,
            oldest_deadline: Nanos::MAX,
            arrived: 0,
            batch_max: t.batch_max,
            batch_timeout: t.batch_timeout,
        };
        let desk = |t: &crate::Tenant| Desk {
            queue: VecDeque::new(),
            idle: vec![],
            slo: t.generates.as_ref().and_then(|g| g.goals).map_or(t.slo, |g| Some(g.ttft)),
            batch_limit: t.batch_max,
            counts: Counts::default(),
            in_system: 0,
            wake: Nanos::MAX,
            opened: Nanos::ZERO,
            generating: t.generates.as_ref().map(|g| Box::new(Generating::new(g.goals))),
        };
        Self {
            views: setup.tenants.iter().map(view).collect(),
            desks: setup.tenants.iter().map(desk).collect(),
            requests: vec![],
            free: vec![],
        }
    }

    /// Queues and batching limits by tenant, as policies see them.
    #[must_use]
    pub fn views(&self) -> &[TenantView] {
        &self.views
    }

    /// A request joins its tenant's queue. Its deadline counts from its scheduled arrival.
    #[inline]
    pub fn admit(&mut self, tenant: u32, request: &Request) {
        let (desk, view) = (&mut self.desks[tenant as usize], &mut self.views[tenant as usize]);
        let slo = request.slo.or(desk.slo);
        let deadline = slo.map_or(u64::MAX, |s| request.arrival.0.saturating_add(s.0));
        let live = Live {
            tenant,
            items: request.items.max(1),
            arrival: request.arrival,
            deadline: Nanos(deadline),
            began: Nanos::ZERO,
            work: request.work,
            prio: request.prio,
            tokens_in: request.tokens_in,
            tokens_out: request.tokens_out,
            ordinal: view.arrived,
            session: request.session,
            generated: 0,
            first: Nanos::ZERO,
            last: Nanos::ZERO,
            late: true,
        };
        let id = match self.free.pop() {
            Some(id) => {
                self.requests[id.0 as usize] = live;
                id
            }
            None => {
                self.requests.push(live);
                RequestId(self.requests.len() as u32 - 1)
            }
        };
        desk.counts.offered += 1;
        desk.in_system += 1;
        desk.queue.push_back(id);
        view.arrived += 1;
        view.queued += 1;
        view.queued_items += live.items;
        if view.queued == 1 {
            (view.oldest, view.oldest_deadline) = (live.arrival, live.deadline);
        }
    }

    /// What to do for a tenant `now`, to be asked again until it is [`Due::Nothing`] or a wake-up: a
    /// batch starts while a worker is idle and a batch is full or its oldest request has waited long
    /// enough.
    #[inline]
    pub fn due(&mut self, tenant: u32, now: Nanos) -> Due {
        let (desk, view) = (&mut self.desks[tenant as usize], &self.views[tenant as usize]);
        if view.queued == 0 || desk.idle.is_empty() {
            return Due::Nothing;
        }
        let wake = Nanos(view.oldest.0.saturating_add(view.batch_timeout.0));
        if view.queued_items >= view.batch_max || wake <= now {
            let worker = desk.idle.pop().expect("checked above");
            Due::Batch { worker }
        } else if wake < desk.wake {
            desk.wake = wake;
            Due::WakeAt(wake)
        } else {
            Due::Nothing
        }
    }

    /// A wake-up that was asked for has come: ask [`Self::due`] again.
    pub fn woken(&mut self, tenant: u32) {
        self.desks[tenant as usize].wake = Nanos::MAX;
    }

    /// Takes requests of up to `max` items off the queue, at least one, and appends them to `batch`.
    ///
    /// # Panics
    /// Nothing is queued.
    #[inline]
    pub fn take(&mut self, tenant: u32, max: u32, now: Nanos, batch: &mut Vec<RequestId>) -> Taken {
        let desk = &mut self.desks[tenant as usize];
        let (mut items, mut requests, mut ordinal) = (0, 0, 0);
        let (mut work, mut deadline) = (0f32, Nanos::MAX);
        while let Some(&id) = desk.queue.front() {
            let live = &mut self.requests[id.0 as usize];
            if items > 0 && items + live.items > max {
                break;
            }
            desk.queue.pop_front();
            live.began = now;
            if requests == 0 {
                ordinal = live.ordinal;
            }
            items += live.items;
            requests += 1;
            work = work.max(live.work);
            deadline = deadline.min(live.deadline);
            batch.push(id);
        }
        assert!(requests > 0, "a batch begins with a request");
        self.left(tenant, requests, items);
        Taken { items, requests, work, deadline, ordinal }
    }

    /// Takes these requests off the queue and appends them to `batch`, in this order.
    ///
    /// # Panics
    /// One of them is not in this tenant's queue, or there is none.
    pub fn take_chosen(
        &mut self,
        tenant: u32,
        chosen: &[RequestId],
        now: Nanos,
        batch: &mut Vec<RequestId>,
    ) -> Taken {
        assert!(!chosen.is_empty(), "a batch begins with a request");
        let ordinal = self.requests[chosen[0].0 as usize].ordinal;
        let (requests, mut items) = (chosen.len() as u32, 0);
        let (mut work, mut deadline) = (0f32, Nanos::MAX);
        for &id in chosen {
            self.unqueue(tenant, id);
            let live = &mut self.requests[id.0 as usize];
            live.began = now;
            items += live.items;
            work = work.max(live.work);
            deadline = deadline.min(live.deadline);
            batch.push(id);
        }
        self.left(tenant, requests, items);
        Taken { items, requests, work, deadline, ordinal }
    }

    /// Gives a queued request up; its tenant.
    ///
    /// # Panics
    /// It is not queued.
    pub fn drop(&mut self, id: RequestId, reason: &'static str) -> u32 {
        let Live { tenant, items, .. } = self.requests[id.0 as usize];
        self.unqueue(tenant, id);
        self.left(tenant, 1, items);
        self.give_up(id, reason);
        tenant
    }

    /// The request that has waited longest in a tenant's queue.
    #[must_use]
    pub fn oldest(&self, tenant: u32) -> Option<RequestId> {
        self.desks[tenant as usize].queue.front().copied()
    }

    /// The request that has joined a tenant's queue last.
    #[must_use]
    pub fn newest(&self, tenant: u32) -> Option<RequestId> {
        self.desks[tenant as usize].queue.back().copied()
    }

    fn unqueue(&mut self, tenant: u32, id: RequestId) {
        let queue = &mut self.desks[tenant as usize].queue;
        let at = queue.iter().position(|&q| q == id);
        queue.remove(at.expect("a policy names requests that are queued"));
    }

    /// Gives up a request that a batch has taken: its worker is gone.
    pub fn give_up(&mut self, id: RequestId, reason: &'static str) {
        let desk = &mut self.desks[self.requests[id.0 as usize].tenant as usize];
        desk.counts.drop_one(reason);
        desk.in_system -= 1;
        self.free.push(id);
    }

    /// So much has left a queue.
    #[inline]
    fn left(&mut self, tenant: u32, requests: u32, items: u32) {
        let (desk, view) = (&self.desks[tenant as usize], &mut self.views[tenant as usize]);
        view.queued -= requests;
        view.queued_items -= items;
        let front = desk.queue.front().map(|id| &self.requests[id.0 as usize]);
        view.oldest = front.map_or(Nanos::MAX, |r| r.arrival);
        view.oldest_deadline = front.map_or(Nanos::MAX, |r| r.deadline);
    }

    /// Requests of a tenant that wait or run.
    #[must_use]
    pub fn in_system(&self, tenant: u32) -> u64 {
        self.desks[tenant as usize].in_system
    }

    /// The batching limits of a tenant from now on: at least one item, at most what its model and
    /// configuration allow.
    pub fn set_batch(&mut self, tenant: u32, max: u32, timeout: Nanos) {
        let view = &mut self.views[tenant as usize];
        view.batch_max = max.clamp(1, self.desks[tenant as usize].batch_limit);
        view.batch_timeout = timeout;
    }

    /// A request has its result.
    #[inline]
    pub fn finish(&mut self, id: RequestId, now: Nanos) -> Finished {
        let deadline = self.requests[id.0 as usize].deadline;
        self.answered(id, now, (deadline != Nanos::MAX).then_some(now <= deadline))
    }

    /// A request has its result. `in_time`: whether within its goals, if it has any.
    #[inline]
    fn answered(&mut self, id: RequestId, now: Nanos, in_time: Option<bool>) -> Finished {
        let live = self.requests[id.0 as usize];
        self.free.push(id);
        let desk = &mut self.desks[live.tenant as usize];
        let latency = Nanos(now.0 - live.arrival.0);
        let queued = Nanos(live.began.0 - live.arrival.0);
        desk.counts.complete(latency, queued, in_time);
        desk.in_system -= 1;
        Finished { tenant: live.tenant, arrival: live.arrival, latency, queued }
    }

    /// A batch has ended; its requests are finished one by one.
    #[inline]
    pub fn batch_ended(&mut self, tenant: u32, items: u32) {
        let counts = &mut self.desks[tenant as usize].counts;
        counts.batches += 1;
        counts.batch_items += u64::from(items);
    }
}

impl Queues for Serving {
    fn queued(&self, tenant: u32, i: usize) -> Option<Queued> {
        let &id = self.desks[tenant as usize].queue.get(i)?;
        let live = &self.requests[id.0 as usize];
        Some(Queued {
            id,
            arrival: live.arrival,
            deadline: live.deadline,
            items: live.items,
            tokens_in: live.tokens_in,
            tokens_out: live.tokens_out,
            priority: live.prio,
        })
    }
}

/// Workers, as far as batches and accounts need them.
impl Serving {
    /// A worker of the tenant has nothing to do.
    #[inline]
    pub fn idle(&mut self, tenant: u32, worker: u32) {
        self.desks[tenant as usize].idle.push(worker);
    }

    /// A worker is idle no longer (or was not), for another reason than a batch of [`Self::due`].
    /// Whether it was.
    pub fn not_idle(&mut self, tenant: u32, worker: u32) -> bool {
        let idle = &mut self.desks[tenant as usize].idle;
        let at = idle.iter().position(|&w| w == worker);
        at.map(|at| idle.remove(at)).is_some()
    }

    /// A worker start or a resize has taken effect.
    pub fn reconfigured(&mut self, tenant: u32) {
        self.desks[tenant as usize].counts.reconfigurations += 1;
    }

    /// A worker stood still for a resize; what lies before the window does not count.
    pub fn stood_still(&mut self, tenant: u32, from: Nanos, to: Nanos) {
        let desk = &mut self.desks[tenant as usize];
        desk.counts.downtime_ns += to.0 - from.max(desk.opened).0;
    }
}

/// The account.
impl Serving {
    /// The window opens: everything so far is forgotten but what is still in the system.
    pub fn open_window(&mut self, now: Nanos) {
        for desk in &mut self.desks {
            desk.counts.open(desk.in_system);
            desk.opened = now;
            if let Some(g) = &mut desk.generating {
                g.settle(now);
                g.counts.open();
            }
        }
    }

    /// Every tenant's part of the report at the end of the window.
    ///
    /// # Panics
    /// A request is not accounted for.
    #[must_use]
    pub fn reports(&self, end: Nanos) -> Vec<TenantReport> {
        let mut late = vec![0; self.desks.len()];
        let mut here = vec![true; self.requests.len()];
        self.free.iter().for_each(|id| here[id.0 as usize] = false);
        let live = self.requests.iter().zip(here).filter(|(_, here)| *here);
        for (request, _) in live.filter(|(r, _)| r.late && r.deadline < end) {
            late[request.tenant as usize] += 1;
        }
        let report = |(desk, in_flight_late): (&Desk, u64)| {
            let counts = desk.counts.clone();
            assert_eq!(
                counts.offered,
                counts.completed + counts.dropped_total() + desk.in_system,
                "every request is accounted for"
            );
            let tokens = desk.generating.clone().map(|mut g| {
                g.settle(end);
                g.counts
            });
            TenantReport { counts, tokens, in_flight: desk.in_system, in_flight_late, used: None }
        };
        self.desks.iter().zip(late).map(report).collect()
    }
}
