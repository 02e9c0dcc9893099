//! The policy: told what happened, and its actions carried out.

use cotenant_profiles::Nanos;

use super::{Engine, INDICES, Kind, Placement};
use crate::action::{Action, Event, Via};
use crate::layout::Host;
use crate::mask::CuMask;
use crate::observe::Happening;
use crate::policy::Depth;
use crate::program::KernelCode;
use crate::view::{Status, View};

impl Engine<'_> {
    pub(super) fn tell(&mut self, event: Event) {
        if self.depth == Depth::Layout {
            return;
        }
        let mut actions = std::mem::take(&mut self.actions);
        debug_assert!(actions.is_empty());
        let view = View {
            now: Nanos(self.now),
            setup: &self.setup,
            tenants: self.serving.views(),
            workers: &self.workers,
        };
        self.policy.event(event, &view, &mut actions);
        for action in &actions {
            self.act(action);
        }
        // Events raised while acting use a fresh buffer; keep the larger allocation.
        if actions.capacity() > self.actions.capacity() {
            actions.clear();
            self.actions = actions;
        }
    }

    fn act(&mut self, action: &Action) {
        match *action {
            Action::Launch { worker, ref mask, priority, via } => {
                self.launch(worker, mask.as_ref(), priority, via);
            }
            Action::Dispatch { worker, items } => {
                let tenant = self.workers[worker as usize].spec.tenant;
                let idle = self.serving.not_idle(tenant, worker);
                assert!(idle, "a policy dispatches to idle workers");
                self.begin(worker, items);
            }
            Action::SetBatch { tenant, max, timeout } => {
                self.serving.set_batch(tenant, max, timeout);
                self.form_batches(tenant);
            }
            Action::Merge { ref workers, priority } => self.merge(workers, priority),
            Action::Timer { at, token } => {
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
                assert!((slot as usize) < INDICES, "policy timers fit a timer's index");
                self.arm(at.0.max(self.now), Kind::Policy, slot);
            }
            Action::Start { spec } => self.start(spec),
            Action::Resize { worker, cap, how } => self.resize(worker, cap, how),
            Action::Retire { worker } => {
                self.workers[worker as usize].retiring = true;
                if self.workers[worker as usize].status == Status::Idle {
                    self.retire(worker);
                }
            }
            Action::Drop { tenant, reason } => {
                self.serving.drop_oldest(tenant, reason);
                self.observe(Happening::Dropped { tenant });
                self.again(tenant);
            }
        }
    }

    fn launch(&mut self, worker: u32, mask: Option<&CuMask>, priority: i8, via: Via) {
        let w = &mut self.workers[worker as usize];
        assert!(w.status == Status::Held, "a policy launches held kernels");
        assert!(mask.is_none_or(|m| !m.is_empty()), "a mask names at least one CU");
        w.status = Status::Launched;
        let (kernel, position, pool) = (w.kernel, w.position, w.spec.pool as usize);
        let cost = via.mechanism(&self.setup.costs);
        let mut at = self.now;
        if self.sites[pool].spec.host == Host::Shared {
            at = self.host_until(worker, self.launch_ns(worker, position));
        }
        self.place_at(at + cost.cost.0 + cost.delay.0, worker, kernel, mask, priority);
    }

    /// Hands a launch to the GPU, now or once the host is done with it.
    fn place_at(&mut self, at: u64, worker: u32, kernel: u32, mask: Option<&CuMask>, priority: i8) {
        if at > self.now {
            let stage = &mut self.stages[worker as usize];
            stage.placement = Placement { mask: mask.copied(), priority };
            stage.launching = kernel;
            self.arm(at, Kind::Placed, worker);
        } else {
            self.submit(worker, kernel, mask, priority);
        }
    }

    /// Several held kernels become one launch, owned by the first worker.
    fn merge(&mut self, workers: &[u32], priority: i8) {
        assert!(workers.len() > 1, "a merge takes at least two kernels");
        let mut parts = std::mem::take(&mut self.parts);
        parts.clear();
        for &w in workers {
            let worker = &mut self.workers[w as usize];
            assert!(worker.status == Status::Held, "a policy merges held kernels");
            worker.status = Status::Launched;
            parts.push(worker.kernel);
        }
        parts.sort_unstable();
        let kernel = match self.merged.get(parts.as_slice()) {
            Some(&kernel) => kernel,
            None => self.new_merged(&parts),
        };
        self.parts = parts;
        let owner = workers[0];
        self.stages[owner as usize].merged.extend_from_slice(&workers[1..]);
        let costs = &self.setup.costs;
        let ns = costs.merge_fixed.0 + costs.merge_each.0 * workers.len() as u64;
        let pool = self.workers[owner as usize].spec.pool as usize;
        let at = match self.sites[pool].spec.host {
            Host::Shared => self.host_until(owner, ns),
            Host::Own => self.now + ns,
        };
        self.place_at(at, owner, kernel, None, priority);
    }

    #[cold]
    fn new_merged(&mut self, parts: &[u32]) -> u32 {
        let kernels: Vec<_> = parts.iter().map(|&k| &self.code.kernels[k as usize]).collect();
        let merged = KernelCode::merged(&kernels, &self.setup.device, &self.setup.costs);
        self.code.kernels.push(merged);
        let kernel = self.code.kernels.len() as u32 - 1;
        self.merged.insert(parts.to_vec(), kernel);
        kernel
    }
}
