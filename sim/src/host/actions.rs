//! Tells the policy about events and carries out its actions.

use cotenant_profiles::Nanos;

use super::{Alarm, Host, INDICES, Token, World};
use crate::action::{Action, Closes, Event};
use crate::observe::Happening;
use crate::policy::Depth;
use crate::view::{Status, View};

impl<W: World> Host<'_, W> {
    pub(super) fn tell(&mut self, event: Event) {
        if self.depth == Depth::Layout {
            return;
        }
        let mut actions = std::mem::take(&mut self.actions);
        debug_assert!(actions.is_empty());
        let view = View {
            now: Nanos(self.world.now()),
            setup: &self.setup,
            tenants: self.serving.views(),
            queues: &self.serving,
            workers: &self.workers,
            pools: &self.pools,
            gpu: &self.world,
        };
        self.policy.event(event, &view, &mut actions);
        let outer = !std::mem::replace(&mut self.acting, true);
        for action in &actions {
            self.act(action);
        }
        // Events raised while acting use a fresh buffer; keep the larger allocation.
        if actions.capacity() > self.actions.capacity() {
            actions.clear();
            self.actions = actions;
        }
        if outer {
            self.acting = false;
            if !self.offers.is_empty() {
                self.tell_offers();
            }
        }
    }

    fn act(&mut self, action: &Action) {
        match *action {
            Action::Launch { worker, ref mask, priority, via } => {
                self.launch(worker, None, mask.as_ref(), priority, via);
            }
            Action::Slice { worker, blocks, ref mask, priority, via } => {
                self.launch(worker, Some(blocks), mask.as_ref(), priority, via);
            }
            Action::Follow { worker, via } => self.follow(worker, via),
            Action::Preempt { worker, how } => self.preempt(worker, how),
            Action::Dispatch { worker, items } => {
                self.occupy(worker);
                self.begin(worker, items);
            }
            Action::Form { worker, ref requests } => {
                self.occupy(worker);
                self.begin_chosen(worker, requests);
            }
            Action::SetBatch { tenant, max, timeout } => {
                self.serving.set_batch(tenant, max, timeout);
                self.form_batches(tenant);
            }
            Action::Merge { ref workers, priority } => self.merge(workers, priority),
            Action::Timer { at, token } => self.set_timer(at, Token::Policy(token)),
            Action::OpenWindow { tenant, length, closes } => {
                let now = Nanos(self.world.now());
                self.serving.open_watch(tenant, now, length, closes);
                if closes == Closes::OnTime {
                    self.set_timer(now + length, Token::Window(tenant));
                }
            }
            Action::SetClock { mhz } => {
                let m = self.setup.costs.clock_switch;
                let at = self.world.now() + self.world.charged(m.cost.0 + m.delay.0);
                let mhz = mhz.clamp(1, INDICES as u32 - 1);
                self.world.arm(at, Alarm::Clock, mhz);
            }
            Action::Start { spec } => self.start(spec),
            Action::Resize { worker, cap, how } => self.resize(worker, cap, how),
            Action::Repartition { pool, ref lanes, via } => self.repartition(pool, lanes, via),
            Action::Retire { worker } => {
                self.workers[worker as usize].retiring = true;
                if self.workers[worker as usize].status == Status::Idle {
                    self.retire(worker);
                }
            }
            Action::Drop { request, reason } => {
                let tenant = self.serving.drop(request, reason);
                self.world.observe(Happening::Dropped { tenant });
                self.again(tenant);
            }
        }
    }

    /// Marks a worker as busy for a batch that the policy starts.
    fn occupy(&mut self, worker: u32) {
        let tenant = self.workers[worker as usize].spec.tenant;
        let idle = self.serving.not_idle(tenant, worker);
        assert!(idle, "a policy starts batches on idle workers");
    }

    /// Closes a tenant's statistics window, if its time is over.
    pub(super) fn close_window(&mut self, tenant: u32, closes: Closes) {
        if self.serving.close_watch(tenant, Nanos(self.world.now()), closes) {
            self.tell(Event::WindowClosed { tenant });
        }
    }

    fn set_timer(&mut self, at: Nanos, token: Token) {
        let slot = match self.free_tokens.pop() {
            Some(slot) => {
                self.tokens[slot as usize] = token;
                slot
            }
            None => {
                self.tokens.push(token);
                self.tokens.len() as u32 - 1
            }
        };
        assert!((slot as usize) < INDICES, "policy timers fit an alarm's index");
        self.world.arm(at.0.max(self.world.now()), Alarm::Policy, slot);
    }
}
