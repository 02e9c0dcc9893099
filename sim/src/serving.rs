//! Requests from arrival to report: queues, the batching rule, the view that policies have of both, and the
//! metrics.
//!
//! One [`Serving`] keeps the requests of all tenants. It has no clock, no events and no GPU: its driver
//! supplies the time and carries out the batches. Every driver of policies uses it, so a request is queued,
//! batched and counted the same way in virtual and in real time.
//!
//! ```text
//! admit -> queue -> take (into a batch) -> finish
//!               \-> drop
//! ```

use std::collections::{BTreeSet, VecDeque};

use cotenant_profiles::Nanos;
use cotenant_traces::Request;

use crate::action::Closes;
use crate::metrics::Counts;
use crate::report::TenantReport;
use crate::scenario::{DropAfter, Setup, Tenant};
use crate::view::{Execution, Queued, Queues, TenantView, Window};

mod generating;

use generating::Generating;
pub use generating::Waiting;

pub use crate::action::RequestId;

/// The contents of a batch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Taken {
    /// Total number of items.
    pub items: u32,
    /// Number of requests.
    pub requests: u32,
    /// The largest factor on kernel times among its requests.
    pub work: f32,
    /// The earliest deadline; [`Nanos::MAX`] if there is none.
    pub deadline: Nanos,
    /// Number of the tenant's requests that arrived before the first one of the batch.
    pub ordinal: u64,
}

/// What the batching rule asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// Nothing: no request waits, no worker is idle, or a wake-up has been asked for.
    Nothing,
    /// Start a batch on this worker, which counts as busy from now on.
    Batch {
        /// The worker.
        worker: u32,
    },
    /// Call [`Serving::woken`] when the oldest request will have waited long enough, after everything else
    /// at that instant.
    WakeAt(Nanos),
}

/// A request that was given up because it could no longer be answered in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expired {
    /// When its time limit passes or passed.
    pub limit: Nanos,
}

/// Drop reason: the request's time limit has passed.
const EXPIRED: &str = "expired";
/// Drop reason: the time limit would pass before a result could be ready.
const HOPELESS: &str = "would-expire";

/// A request that has been answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Finished {
    /// Its tenant.
    pub tenant: u32,
    /// When it was scheduled to arrive.
    pub arrival: Nanos,
    /// From its scheduled arrival to now.
    pub latency: Nanos,
    /// The part of the latency spent in the tenant's queue.
    pub queued: Nanos,
}

#[derive(Clone, Copy, Debug)]
struct Live {
    tenant: u32,
    items: u32,
    arrival: Nanos,
    /// [`Nanos::MAX`] without a deadline.
    deadline: Nanos,
    /// When it is given up if it is still queued, and when its time limit passes; [`Nanos::MAX`]: never.
    expires: Nanos,
    limit: Nanos,
    began: Nanos,
    work: f32,
    prio: i8,
    tokens_in: u32,
    tokens_out: u32,
    ordinal: u64,
    session: u64,
    /// Tokens generated so far, and when the first and the latest of them were produced.
    generated: u32,
    first: Nanos,
    last: Nanos,
    /// It counts as late if the run ends after its deadline.
    late: bool,
}

/// The internal state of a tenant, beside its view.
#[derive(Clone, Debug)]
struct Desk {
    queue: VecDeque<RequestId>,
    /// Idle workers; the last one serves next.
    idle: Vec<u32>,
    slo: Option<Nanos>,
    /// Upper bound on the tenant's batch size, in items.
    batch_limit: u32,
    counts: Counts,
    in_system: u64,
    /// The instants for which wake-ups have been requested: for a batch, and for a request that expires.
    wake: Nanos,
    look: Nanos,
    /// Every batch is exactly one request.
    one_each: bool,
    patience: Option<Patience>,
    /// Queued requests that can expire: when, the ordinal, and the request.
    expiring: BTreeSet<(Nanos, u64, u32)>,
    /// When the window opened.
    opened: Nanos,
    generating: Option<Box<Generating>>,
    watch: Option<Box<Watch>>,
}

/// A statistics window requested by the policy.
#[derive(Clone, Debug)]
struct Watch {
    window: Window,
    open: bool,
    until: Nanos,
    closes: Closes,
}

/// When requests of a tenant are given up.
#[derive(Clone, Debug)]
struct Patience {
    rule: DropAfter,
    /// By items of a request: the shortest time that it takes on the GPU, and on the host and copy engines,
    /// ns. Larger requests take several passes of the last entry.
    least: Vec<(u64, u64)>,
    per_request: u64,
    /// ns per item.
    copies: f64,
}

impl Patience {
    fn of(tenant: &Tenant, setup: &Setup) -> Option<Self> {
        let rule = tenant.drop_after?;
        let model = &tenant.model;
        let pass = |items: u32| {
            let program = model.program(items);
            let kernels = program.kernels.iter().map(|&k| setup.code.kernels[k as usize].fastest());
            (kernels.sum(), program.issued_ns.last().copied().unwrap_or(0))
        };
        let pcie = &setup.device.pcie;
        let (input, output) = (model.input_per_item.0 as f64, model.output_per_item.0 as f64);
        Some(Self {
            rule,
            least: (1..=model.max_items()).map(pass).collect(),
            per_request: model.host_per_request.0,
            copies: input / pcie.h2d_gbps + output / pcie.d2h_gbps,
        })
    }

    /// The shortest time in which a request can be answered, ns.
    fn least(&self, items: u32, work: f32) -> u64 {
        let largest = self.least.len() as u32;
        let (gpu, host) = self.least[items.min(largest) as usize - 1];
        let pass = ((gpu as f64 * f64::from(work)) as u64).max(host);
        let copies = (self.copies * f64::from(items)) as u64;
        self.per_request + pass * u64::from(items.div_ceil(largest)) + copies
    }

    /// When a request is given up, and when its time limit passes.
    fn expires(&self, request: &Request, deadline: Nanos) -> (Nanos, Nanos) {
        let after = |limit: Nanos| Nanos(request.arrival.0.saturating_add(limit.0));
        let limit = self.rule.limit.map_or(deadline, after);
        if limit == Nanos::MAX || !self.rule.predict {
            return (limit, limit);
        }
        // A batch that begins at exactly the last possible instant is still in time, hence one nanosecond
        // more.
        let least = self.least(request.items.max(1), request.work);
        (Nanos((limit.0 + 1).saturating_sub(least)), limit)
    }
}

/// The requests of all tenants.
#[derive(Clone, Debug)]
pub struct Serving {
    views: Vec<TenantView>,
    desks: Vec<Desk>,
    requests: Vec<Live>,
    free: Vec<RequestId>,
    /// Requests in the system, of all tenants.
    in_system: u64,
}

impl Serving {
    /// See [`Latencies::reserve`](crate::metrics::Latencies::reserve).
    pub fn reserve(&mut self) {
        for desk in &mut self.desks {
            desk.counts.latencies.reserve();
            if let Some(g) = &mut desk.generating {
                g.counts.reserve();
            }
        }
    }

    /// The start of a run: no request has arrived, and no worker is idle.
    #[must_use]
    pub fn new(setup: &Setup) -> Self {
        let view = |t: &Tenant| TenantView {
            queued: 0,
            queued_items: 0,
            oldest: Nanos::MAX,
            oldest_deadline: Nanos::MAX,
            arrived: 0,
            batch_max: t.batch_max,
            batch_timeout: t.batch_timeout,
        };
        let desk = |t: &Tenant| Desk {
            queue: VecDeque::new(),
            idle: vec![],
            slo: t.generates.as_ref().and_then(|g| g.goals).map_or(t.slo, |g| Some(g.ttft)),
            batch_limit: t.batch_max,
            counts: Counts::default(),
            in_system: 0,
            wake: Nanos::MAX,
            look: Nanos::MAX,
            one_each: t.per_request_batches,
            patience: Patience::of(t, setup),
            expiring: BTreeSet::new(),
            opened: Nanos::ZERO,
            generating: t.generates.as_ref().map(|g| Box::new(Generating::new(g))),
            watch: None,
        };
        Self {
            views: setup.tenants.iter().map(view).collect(),
            desks: setup.tenants.iter().map(desk).collect(),
            requests: vec![],
            free: vec![],
            in_system: 0,
        }
    }

    /// The number of waiting or running requests of all tenants.
    #[inline]
    #[must_use]
    pub fn all_in_system(&self) -> u64 {
        self.in_system
    }

    /// Queues and batching limits by tenant, as policies see them.
    #[must_use]
    pub fn views(&self) -> &[TenantView] {
        &self.views
    }

    /// Adds a request to its tenant's queue. Its deadline counts from its scheduled arrival.
    #[inline]
    pub fn admit(&mut self, tenant: u32, request: &Request) {
        let (desk, view) = (&mut self.desks[tenant as usize], &mut self.views[tenant as usize]);
        let slo = request.slo.or(desk.slo);
        let deadline = Nanos(slo.map_or(u64::MAX, |s| request.arrival.0.saturating_add(s.0)));
        let never = (Nanos::MAX, Nanos::MAX);
        let (expires, limit) =
            desk.patience.as_ref().map_or(never, |p| p.expires(request, deadline));
        let live = Live {
            tenant,
            items: request.items.max(1),
            arrival: request.arrival,
            deadline,
            expires,
            limit,
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
        desk.counts.arrive(request.arrival, desk.in_system);
        desk.in_system += 1;
        self.in_system += 1;
        if let Some(watch) = desk.watch.as_mut().filter(|w| w.open) {
            watch.window.arrived += 1;
        }
        desk.queue.push_back(id);
        if expires != Nanos::MAX {
            desk.expiring.insert((expires, live.ordinal, id.0));
        }
        view.arrived += 1;
        view.queued += 1;
        view.queued_items += live.items;
        if view.queued == 1 {
            (view.oldest, view.oldest_deadline) = (live.arrival, live.deadline);
        }
    }

    /// What to do for a tenant `now`. Call it again until it returns [`Due::Nothing`] or a wake-up. A batch
    /// starts on an idle worker once it is full, or once its oldest request has waited long enough and
    /// everything else at this instant has happened (`settled`: at a wake-up). Requests of one instant,
    /// such as those of clients that were answered together, thus form one batch.
    #[inline]
    pub fn due(&mut self, tenant: u32, now: Nanos, settled: bool) -> Due {
        let (desk, view) = (&mut self.desks[tenant as usize], &self.views[tenant as usize]);
        if view.queued == 0 || desk.idle.is_empty() {
            return Due::Nothing;
        }
        let full = view.queued_items >= view.batch_max || desk.one_each;
        let wake = Nanos(view.oldest.0.saturating_add(view.batch_timeout.0)).max(now);
        if full || settled && wake == now {
            let worker = desk.idle.pop().expect("checked above");
            Due::Batch { worker }
        } else if wake < desk.wake {
            desk.wake = wake;
            Due::WakeAt(wake)
        } else {
            Due::Nothing
        }
    }

    /// Notes that a requested wake-up has come. Call [`Self::expire`], [`Self::next_look`] and
    /// [`Self::due`] again.
    pub fn woken(&mut self, tenant: u32, now: Nanos) {
        let desk = &mut self.desks[tenant as usize];
        let past = |at: Nanos| if at <= now { Nanos::MAX } else { at };
        (desk.wake, desk.look) = (past(desk.wake), past(desk.look));
    }

    /// Gives up one queued request of the tenant that can no longer be answered in time, if there is one.
    #[inline]
    pub fn expire(&mut self, tenant: u32, now: Nanos) -> Option<Expired> {
        let &(expires, _, id) = self.desks[tenant as usize].expiring.first()?;
        if expires > now {
            return None;
        }
        let limit = self.requests[id as usize].limit;
        self.drop(RequestId(id), if limit <= now { EXPIRED } else { HOPELESS });
        Some(Expired { limit })
    }

    /// The wake-up to request for the tenant's next expiry, if it is earlier than the one already
    /// requested.
    #[inline]
    pub fn next_look(&mut self, tenant: u32) -> Option<Nanos> {
        let desk = &mut self.desks[tenant as usize];
        let &(at, ..) = desk.expiring.first()?;
        (at < desk.look).then(|| {
            desk.look = at;
            at
        })
    }

    /// Takes requests with up to `max` items in total off the queue, but at least one request, and appends
    /// them to `batch`.
    ///
    /// # Panics
    /// The queue is empty.
    #[inline]
    pub fn take(&mut self, tenant: u32, max: u32, now: Nanos, batch: &mut Vec<RequestId>) -> Taken {
        let desk = &mut self.desks[tenant as usize];
        let (mut items, mut requests, mut ordinal) = (0, 0, 0);
        let (mut work, mut deadline) = (0f32, Nanos::MAX);
        while let Some(&id) = desk.queue.front() {
            let live = &mut self.requests[id.0 as usize];
            if items > 0 && (items + live.items > max || desk.one_each) {
                break;
            }
            desk.queue.pop_front();
            if live.expires != Nanos::MAX {
                desk.expiring.remove(&(live.expires, live.ordinal, id.0));
            }
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
    /// One of them is not in this tenant's queue, or `chosen` is empty.
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

    /// Gives up a queued request. Returns its tenant.
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

    /// The request that joined a tenant's queue last.
    #[must_use]
    pub fn newest(&self, tenant: u32) -> Option<RequestId> {
        self.desks[tenant as usize].queue.back().copied()
    }

    fn unqueue(&mut self, tenant: u32, id: RequestId) {
        let desk = &mut self.desks[tenant as usize];
        let at = desk.queue.iter().position(|&q| q == id);
        desk.queue.remove(at.expect("a policy names requests that are queued"));
        let live = &self.requests[id.0 as usize];
        if live.expires != Nanos::MAX {
            desk.expiring.remove(&(live.expires, live.ordinal, id.0));
        }
    }

    /// Gives up a request that has left its queue, for instance because its worker was lost.
    pub fn give_up(&mut self, id: RequestId, reason: &'static str) {
        let desk = &mut self.desks[self.requests[id.0 as usize].tenant as usize];
        desk.counts.drop_one(reason);
        desk.in_system -= 1;
        self.in_system -= 1;
        self.free.push(id);
    }

    /// Updates a tenant's view after requests have left its queue.
    #[inline]
    fn left(&mut self, tenant: u32, requests: u32, items: u32) {
        let (desk, view) = (&self.desks[tenant as usize], &mut self.views[tenant as usize]);
        view.queued -= requests;
        view.queued_items -= items;
        let front = desk.queue.front().map(|id| &self.requests[id.0 as usize]);
        view.oldest = front.map_or(Nanos::MAX, |r| r.arrival);
        view.oldest_deadline = front.map_or(Nanos::MAX, |r| r.deadline);
    }

    /// The number of a tenant's requests that are waiting or running.
    #[must_use]
    pub fn in_system(&self, tenant: u32) -> u64 {
        self.desks[tenant as usize].in_system
    }

    /// Sets the batching limits of a tenant from now on: at least one item, and at most what its model and
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

    /// A request has its result. `in_time`: whether it met its goals, if it has any.
    #[inline]
    fn answered(&mut self, id: RequestId, now: Nanos, in_time: Option<bool>) -> Finished {
        let live = self.requests[id.0 as usize];
        self.free.push(id);
        let desk = &mut self.desks[live.tenant as usize];
        let latency = Nanos(now.0 - live.arrival.0);
        let queued = Nanos(live.began.0 - live.arrival.0);
        desk.counts.complete(latency, queued, in_time);
        if let Some(watch) = desk.watch.as_mut().filter(|w| w.open) {
            watch.window.latencies.push(latency);
        }
        desk.in_system -= 1;
        self.in_system -= 1;
        Finished { tenant: live.tenant, arrival: live.arrival, latency, queued }
    }

    /// A batch has ended. Its requests are finished one by one.
    #[inline]
    pub fn batch_ended(&mut self, tenant: u32, items: u32, execution: Execution) {
        let desk = &mut self.desks[tenant as usize];
        desk.counts.batches += 1;
        desk.counts.batch_items += u64::from(items);
        if let Some(watch) = desk.watch.as_mut().filter(|w| w.open) {
            watch.window.executions.push(execution);
        }
    }
}

/// Statistics windows that a policy asks for.
impl Serving {
    /// Opens a window, in place of the tenant's open one, if any.
    pub fn open_watch(&mut self, tenant: u32, now: Nanos, length: Nanos, closes: Closes) {
        let until = Nanos(now.0.saturating_add(length.0));
        let watch = &mut self.desks[tenant as usize].watch;
        // Reuse the vectors' allocations.
        let mut window = watch.take().map_or_else(Window::default, |w| w.window);
        window.latencies.clear();
        window.executions.clear();
        (window.opened, window.arrived) = (now, 0);
        *watch = Some(Box::new(Watch { window, open: true, until, closes }));
    }

    /// Closes the open window if its time is over and it closes in this way. Returns whether it closed.
    pub fn close_watch(&mut self, tenant: u32, now: Nanos, closes: Closes) -> bool {
        let Some(watch) = &mut self.desks[tenant as usize].watch else { return false };
        let over = match closes {
            Closes::OnTime => watch.until <= now,
            // A batch that ends at exactly this instant is still part of the window.
            Closes::WithBatch => watch.until < now,
        };
        let closed = watch.open && watch.closes == closes && over;
        watch.open &= !closed;
        closed
    }
}

impl Queues for Serving {
    fn window(&self, tenant: u32) -> Option<&Window> {
        Some(&self.desks[tenant as usize].watch.as_ref()?.window)
    }

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

/// Workers, as far as batching and metrics need to know them.
impl Serving {
    /// A worker of the tenant has become idle.
    #[inline]
    pub fn idle(&mut self, tenant: u32, worker: u32) {
        self.desks[tenant as usize].idle.push(worker);
    }

    /// A worker is not idle any more, for a reason other than a batch from [`Self::due`]. Returns whether
    /// it was idle.
    pub fn not_idle(&mut self, tenant: u32, worker: u32) -> bool {
        let idle = &mut self.desks[tenant as usize].idle;
        let at = idle.iter().position(|&w| w == worker);
        at.map(|at| idle.remove(at)).is_some()
    }

    /// A worker start or a resize has taken effect.
    pub fn reconfigured(&mut self, tenant: u32) {
        self.desks[tenant as usize].counts.reconfigurations += 1;
    }

    /// A worker was down for a resize. Time before the window does not count.
    pub fn stood_still(&mut self, tenant: u32, from: Nanos, to: Nanos) {
        let desk = &mut self.desks[tenant as usize];
        desk.counts.downtime_ns += to.0 - from.max(desk.opened).0;
    }
}

/// The report.
impl Serving {
    /// Opens the window: discards all counts, except for the requests still in the system.
    pub fn open_window(&mut self, now: Nanos, window: Nanos) {
        for desk in &mut self.desks {
            desk.counts.open(desk.in_system, now, window);
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
