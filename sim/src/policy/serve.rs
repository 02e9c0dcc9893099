//! `serve`: one executor that takes whole batches, one at a time.
//!
//! Models the inference server as most papers compare with it: every model is loaded in one process,
//! requests wait in a queue per tenant, and one executor runs one batch at a time on the whole GPU, in
//! the order that `order` says: first come, first served; the shortest batch first; the earliest
//! deadline first; by priority; or by lottery. A batch begins when it is full or its oldest request
//! has waited for the tenant's timeout, and runs to its end. Each decision takes `decision`.
//!
//! It gives up: everything that sharing gains (a batch that does not fill the GPU leaves the rest
//! idle, and so does the host between two batches), and short requests wait for long ones. A tenant's
//! `workers` do not count: there is one executor.
//!
//! Source: FCFS, SJF and EDF are the baselines of Abacus (SC 2021) and of many others; one execution at
//! a time is also Clockwork's rule (OSDI 2020); tickets are those of lottery scheduling (Waldspurger
//! and Weihl, OSDI 1994). What is late is dropped by the tenants' `drop_after`, not here.
//!
//! Choices, where the sources are silent:
//! - Within a tenant the order is that of arrival, so that a batch takes the oldest; tenants are
//!   compared by their oldest request, or for `sjf` by the batch that they would start now.
//! - A batch's length is the profile's on the whole GPU, or the host's time to issue it where that is
//!   longer.
//! - `priority` serves latency-critical tenants first, then the larger `prio` of a trace, then the
//!   earlier arrival.
//! - Everything that arrives at one instant is there before the decision is made. Ties go to the
//!   tenant whose name comes first.
//! - An engine that generates tokens takes a turn for every step, and waits since the last one.
//! - The lottery draws from a stream of its own, the same in every run: `draw` gives another.

use cotenant_profiles::{Bytes, Nanos};
use cotenant_traces::Rng;

use super::{Depth, LayoutError, PerTenant, Policy, PolicyInfo, Properties};
use crate::action::{Action, Event};
use crate::counter::Count;
use crate::layout::{Layout, WorkerSpec};
use crate::scenario::{Class, Setup};
use crate::view::{Status, View};
use crate::{counters, options, words};

/// The registry entry.
pub(super) const INFO: PolicyInfo = PolicyInfo {
    name: "serve",
    summary: "one executor takes whole batches: fcfs, sjf, edf, by priority or lottery",
    source: "baselines of Abacus (SC 2021); Clockwork (OSDI 2020); lottery scheduling (OSDI 1994)",
    properties: Properties {
        work_conserving: false,
        alone_is_isolated: false,
        starvation_free: true,
    },
    options: Knobs::SPECS,
    counters: Serve::COUNTERS,
    build: |options| Ok(Box::new(Serve::new(Knobs::read(options)?))),
};

options! {
    /// Options of `serve`.
    struct Knobs {
        /// which tenant's batch is next
        order: Order = Order::Fcfs;
        /// time that each decision takes, while nothing runs
        decision: Nanos = Nanos::ZERO;
        /// lottery: tickets of a tenant, equal, one per waiting request, or given
        tickets: PerTenant<Tickets> = PerTenant::Word(Tickets::Equal), unit("tickets");
        /// lottery: which stream of random numbers decides
        draw: u32 = 1, whole(0, u32::MAX as i64);
    }
}

/// Which tenant is served next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    Fcfs,
    Sjf,
    Edf,
    Priority,
    Lottery,
}

words!(Order {
    "fcfs" => Order::Fcfs,
    "sjf" => Order::Sjf,
    "edf" => Order::Edf,
    "priority" => Order::Priority,
    "lottery" => Order::Lottery,
});

/// Tickets of a tenant that has a batch to start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tickets {
    Equal,
    Requests,
}

words!(Tickets { "equal" => Tickets::Equal, "requests" => Tickets::Requests });

/// Tokens of timers.
const DECIDE: u64 = 0;
const LOOK: u64 = 1;

struct Serve {
    knobs: Knobs,
    rng: Rng,
    /// Tenants, in order of name.
    tenants: Vec<u32>,
    /// Given tickets, by tenant.
    tickets: Vec<f64>,
    /// A decision is being made.
    deciding: bool,
    /// The instant of the next check, at the end of a tenant's timeout.
    look: Nanos,
    decisions: u64,
    idle_decisions: u64,
}

impl Serve {
    fn new(knobs: Knobs) -> Self {
        let rng = Rng::for_names(u64::from(knobs.draw), &["serve", "lottery"]);
        Self {
            knobs,
            rng,
            tenants: vec![],
            tickets: vec![],
            deciding: false,
            look: Nanos::MAX,
            decisions: 0,
            idle_decisions: 0,
        }
    }

    /// Starts a decision if a request waits and the executor is free.
    fn wake(&mut self, view: &View<'_>, act: &mut Vec<Action>) {
        let waiting = view.tenants.iter().any(|t| t.queued > 0);
        if waiting && !self.deciding && free(view) {
            self.deciding = true;
            act.push(Action::Timer { at: view.now + self.knobs.decision, token: DECIDE });
        }
    }

    fn decide(&mut self, view: &View<'_>, act: &mut Vec<Action>) {
        self.deciding = false;
        if !free(view) {
            return;
        }
        self.decisions += 1;
        let next = match self.knobs.order {
            Order::Lottery => self.drawn(view),
            _ => self.ready(view).min_by_key(|&t| self.key(t, view)),
        };
        let Some(tenant) = next else {
            self.idle_decisions += 1;
            return self.look_later(view, act);
        };
        let items = view.tenants[tenant as usize].batch_max;
        act.extend(view.idle(tenant).next().map(|worker| Action::Dispatch { worker, items }));
    }

    /// Tenants with a batch that may start, by name.
    fn ready(&self, view: &View<'_>) -> impl Iterator<Item = u32> {
        self.tenants.iter().copied().filter(move |&t| {
            let seen = &view.tenants[t as usize];
            let each = view.setup.tenants[t as usize].per_request_batches;
            let full = each || seen.queued_items >= seen.batch_max;
            let waited = since(t, view).0.saturating_add(seen.batch_timeout.0) <= view.now.0;
            seen.queued > 0 && (full || waited) && view.idle(t).next().is_some()
        })
    }

    /// The key by which tenants are ordered; the smallest goes first.
    fn key(&self, t: u32, view: &View<'_>) -> (u64, i16, Nanos) {
        let (seen, since) = (&view.tenants[t as usize], since(t, view));
        match self.knobs.order {
            Order::Sjf => (length(t, view), 0, since),
            Order::Edf => (seen.oldest_deadline.0, 0, since),
            Order::Priority => {
                let class = view.setup.tenants[t as usize].class;
                let priority = view.queue(t).next().map_or(0, |r| r.priority);
                (u64::from(class == Class::BestEffort), -i16::from(priority), since)
            }
            Order::Fcfs | Order::Lottery => (0, 0, since),
        }
    }

    fn drawn(&mut self, view: &View<'_>) -> Option<u32> {
        let tickets = |t: &u32| match self.knobs.tickets {
            PerTenant::Word(Tickets::Equal) => 1.0,
            PerTenant::Word(Tickets::Requests) => f64::from(view.tenants[*t as usize].queued),
            PerTenant::Given(_) => self.tickets[*t as usize],
        };
        let mut sum = 0.0;
        let ready: Vec<(u32, f64)> = self
            .ready(view)
            .map(|t| {
                sum += tickets(&t);
                (t, sum)
            })
            .collect();
        let drawn = self.rng.uniform() * sum;
        let winner = ready.iter().find(|(_, upto)| drawn < *upto).or(ready.last());
        winner.map(|(t, _)| *t)
    }

    /// No batch may start yet: schedules a check for the end of the first timeout.
    fn look_later(&mut self, view: &View<'_>, act: &mut Vec<Action>) {
        let ends = view
            .tenants
            .iter()
            .zip(0..)
            .filter(|(seen, t)| seen.queued > 0 && view.idle(*t).next().is_some());
        let ends =
            ends.map(|(seen, t)| Nanos(since(t, view).0.saturating_add(seen.batch_timeout.0)));
        if let Some(at) = ends.min().filter(|&at| at < self.look) {
            self.look = at;
            act.push(Action::Timer { at, token: LOOK });
        }
    }
}

/// Since when a tenant waits: its oldest request, or the last step of an engine that holds sequences.
fn since(t: u32, view: &View<'_>) -> Nanos {
    let oldest = view.tenants[t as usize].oldest;
    if view.setup.tenants[t as usize].generates.is_none() {
        return oldest;
    }
    view.idle(t).map(|w| view.workers[w as usize].began).fold(oldest, Nanos::min)
}

/// Whether the executor has nothing to do.
fn free(view: &View<'_>) -> bool {
    !view.workers.iter().any(|w| matches!(w.status, Status::Host | Status::Held | Status::Launched))
}

/// How long the batch that a tenant would start now takes, ns.
fn length(t: u32, view: &View<'_>) -> u64 {
    let (seen, tenant) = (&view.tenants[t as usize], &view.setup.tenants[t as usize]);
    let first = view.queue(t).next().map_or(1, |r| r.items);
    let (items, requests) = if tenant.per_request_batches {
        (first, 1)
    } else {
        (seen.queued_items.min(seen.batch_max).max(first), seen.queued.min(seen.batch_max))
    };
    let program = tenant.model.program(items);
    let pass = program.remaining_ns[0].max(program.issued_ns.last().copied().unwrap_or(0));
    let passes = u64::from(items.div_ceil(tenant.model.max_items()));
    tenant.model.host_per_request.0 * u64::from(requests) + pass * passes
}

counters! {
    Serve |serve|
    /// in all
    "decisions", unit("decisions") = serve.decisions;
    /// after which everybody waited
    "decisions that started nothing", unit("decisions") = serve.idle_decisions;
}

impl Policy for Serve {
    fn depth(&self) -> Depth {
        Depth::Batch
    }

    fn layout(&mut self, setup: &Setup) -> Result<Layout, LayoutError> {
        self.tenants = setup.by_name();
        if let PerTenant::Given(value) = &self.knobs.tickets {
            self.tickets = setup.per_tenant("tickets", value)?;
        }
        let cus = setup.device.cus();
        let worker = |tenant: u32| WorkerSpec { overhead: Bytes(0), ..setup.client(tenant, cus) };
        let mut workers: Vec<_> = (0..setup.tenants.len() as u32).map(worker).collect();
        if let Some(first) = workers.first_mut() {
            first.overhead = setup.costs.context_memory;
        }
        Ok(Layout { pools: vec![setup.whole_gpu()], workers })
    }

    fn event(&mut self, event: Event, view: &View<'_>, act: &mut Vec<Action>) {
        match event {
            Event::Timer { token: DECIDE } => self.decide(view, act),
            Event::Timer { .. } => {
                self.look = Nanos::MAX;
                self.wake(view, act);
            }
            _ => self.wake(view, act),
        }
    }

    fn counters(&self) -> Vec<Count> {
        self.counted()
    }
}
