//! Requests that are answered token by token: which of them wait for an engine, when tokens are produced,
//! and their metrics.

use cotenant_profiles::Nanos;

use super::{Finished, RequestId, Serving};
use crate::engine::{Arrived, Planned, Queue};
use crate::metrics::TokenCounts;
use crate::scenario::{Generates, TokenGoals};

/// Additional state of a generating tenant.
#[derive(Clone, Debug)]
pub(super) struct Generating {
    goals: Option<TokenGoals>,
    pub(super) counts: TokenCounts,
    /// Blocks in use and in total, valid since `since`.
    used: u64,
    blocks: u64,
    /// Bytes of a block.
    block: u64,
    since: Nanos,
    /// Sequences that engines hold between steps. A policy that starts steps itself sees them as waiting.
    held: u32,
}

impl Generating {
    pub(super) fn new(generates: &Generates) -> Self {
        Self {
            goals: generates.goals,
            block: generates.rules.block_bytes().0,
            counts: TokenCounts::default(),
            used: 0,
            blocks: 0,
            since: Nanos::ZERO,
            held: 0,
        }
    }

    /// Accumulates the use of blocks up to `now`.
    pub(super) fn settle(&mut self, now: Nanos) {
        let ns = u128::from(now.0 - self.since.0);
        self.counts.block_ns += ns * u128::from(self.used);
        self.counts.capacity_ns += ns * u128::from(self.blocks);
        self.counts.memory_ns += ns * u128::from(self.blocks * self.block);
        self.since = now;
    }
}

/// A tenant's queue, as an engine that admits from it `now` sees it.
pub struct Waiting<'a> {
    serving: &'a mut Serving,
    tenant: u32,
    now: Nanos,
    /// The engine may admit from it; otherwise it looks empty.
    open: bool,
}

impl Queue for Waiting<'_> {
    fn front(&self) -> Option<Arrived> {
        let first = self.open.then(|| self.serving.oldest(self.tenant)).flatten()?;
        Some(self.serving.sequence(first))
    }

    fn admit(&mut self) {
        let id = self.serving.oldest(self.tenant).expect("there is a first one");
        self.serving.unqueue(self.tenant, id);
        self.serving.enters(id, self.now);
    }
}

impl Serving {
    /// A tenant's queue, for its engine; `open`: the engine may admit from it.
    pub fn waiting(&mut self, tenant: u32, now: Nanos, open: bool) -> Waiting<'_> {
        Waiting { serving: self, tenant, now, open }
    }

    /// A request as an engine sees it. Unspecified lengths count as one token.
    #[must_use]
    pub fn sequence(&self, id: RequestId) -> Arrived {
        let live = &self.requests[id.0 as usize];
        Arrived {
            id,
            prompt: live.tokens_in.max(1),
            output: live.tokens_out.max(1),
            generated: live.generated,
            session: live.session,
            lost: 0,
        }
    }

    /// Takes a queued request, chosen by a policy, for an engine.
    pub fn chosen(&mut self, tenant: u32, id: RequestId, now: Nanos) -> Arrived {
        self.unqueue(tenant, id);
        self.enters(id, now);
        self.sequence(id)
    }

    /// A request has left its queue for an engine.
    fn enters(&mut self, id: RequestId, now: Nanos) {
        let live = &mut self.requests[id.0 as usize];
        if live.generated == 0 {
            live.began = now;
        }
        let (tenant, items) = (live.tenant, live.items);
        self.left(tenant, 1, items);
    }

    /// Returns a request whose engine has stopped to the front of its queue.
    pub fn requeue(&mut self, id: RequestId) {
        let live = &self.requests[id.0 as usize];
        let (tenant, items) = (live.tenant as usize, live.items);
        self.desks[tenant].queue.push_front(id);
        let view = &mut self.views[tenant];
        view.queued += 1;
        view.queued_items += items;
        self.left(tenant as u32, 0, 0);
    }

    /// The number of sequences that an engine holds without a step under way changes from `before` to
    /// `after`.
    pub fn hold(&mut self, tenant: u32, before: u32, after: u32) {
        let Some(g) = &mut self.desks[tenant as usize].generating else { return };
        let view = &mut self.views[tenant as usize];
        g.held = g.held + after - before;
        view.queued = view.queued + after - before;
        view.queued_items = view.queued_items + after - before;
    }

    /// The number of requests in a tenant's queue, without those that engines hold.
    #[must_use]
    pub fn in_queue(&self, tenant: u32) -> usize {
        self.desks[tenant as usize].queue.len()
    }

    /// Idle workers of a tenant; the last one serves next.
    #[must_use]
    pub fn idle_workers(&self, tenant: u32) -> &[u32] {
        &self.desks[tenant as usize].idle
    }

    /// Counts a step that begins.
    pub fn step_begins(&mut self, tenant: u32, step: &Planned) {
        let Some(g) = &mut self.desks[tenant as usize].generating else { return };
        let c = &mut g.counts;
        c.steps += 1;
        c.preemptions += u64::from(step.preempted);
        c.prefilled += step.prefilled;
        c.recomputed += step.recomputed;
        c.cached += step.cached;
    }

    /// An engine's cache changes from `was` to `is`: blocks in use, and in total.
    pub fn cache(&mut self, tenant: u32, now: Nanos, was: (u32, u32), is: (u32, u32)) {
        let Some(g) = &mut self.desks[tenant as usize].generating else { return };
        g.settle(now);
        g.used = g.used + u64::from(is.0) - u64::from(was.0);
        g.blocks = g.blocks + u64::from(is.1) - u64::from(was.1);
        g.counts.most_blocks = g.counts.most_blocks.max(g.used);
    }

    /// A request has its next token. Returns whether it is the first one.
    pub fn token(&mut self, id: RequestId, now: Nanos) -> bool {
        let live = &mut self.requests[id.0 as usize];
        let desk = &mut self.desks[live.tenant as usize];
        let Some(g) = &mut desk.generating else { return false };
        live.generated += 1;
        let first = live.generated == 1;
        if first {
            live.first = now;
            g.counts.first(Nanos(now.0 - live.arrival.0));
            // The goal for the first token was met: the deadline of the next one counts from here.
            if let Some(goals) = g.goals
                && now <= live.deadline
            {
                live.deadline = Nanos(now.0.saturating_add(goals.tpot.0));
                live.late = false;
            }
        } else {
            g.counts.further(Nanos(now.0 - live.last.0));
        }
        live.last = now;
        first
    }

    /// When a request's next token is due.
    #[must_use]
    pub fn token_due(&self, id: RequestId) -> Nanos {
        let live = &self.requests[id.0 as usize];
        match self.desks[live.tenant as usize].generating.as_ref().and_then(|g| g.goals) {
            Some(goals) if live.generated > 0 => {
                let tokens = u64::from(live.generated);
                Nanos(live.first.0.saturating_add(goals.tpot.0.saturating_mul(tokens)))
            }
            _ => live.deadline,
        }
    }

    /// A request has its last token.
    pub fn finish_generated(&mut self, id: RequestId, now: Nanos) -> Finished {
        let live = self.requests[id.0 as usize];
        let desk = &mut self.desks[live.tenant as usize];
        let Some(g) = &mut desk.generating else { return self.finish(id, now) };
        let further = u64::from(live.generated.saturating_sub(1));
        let tpot = Nanos((now.0 - live.first.0) / further.max(1));
        if further > 0 {
            g.counts.per_token(tpot);
        }
        let kept =
            |goals: TokenGoals| live.first.0 - live.arrival.0 <= goals.ttft.0 && tpot <= goals.tpot;
        let in_time = match g.goals {
            Some(goals) => Some(kept(goals)),
            None => (live.deadline != Nanos::MAX).then_some(now <= live.deadline),
        };
        self.answered(id, now, in_time)
    }
}
