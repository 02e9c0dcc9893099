//! Workers that are lost: killed, hung or failed.
//!
//! The requests in a lost worker's batch are given up, with the cause of the loss as their reason. A tenant
//! with no worker left is no longer served: its queued requests and all later arrivals are given up too.
//! All other tenants continue.

use cotenant_profiles::Nanos;

use super::{Host, Phase, World};
use crate::observe::Happening;
use crate::view::{Status, Worker};

impl<W: World> Host<'_, W> {
    pub(super) fn lose(&mut self, worker: u32, cause: &'static str) {
        let w = &mut self.workers[worker as usize];
        if w.status == Status::Retired {
            return;
        }
        let tenant = w.spec.tenant;
        w.deadline = Nanos::MAX;
        if w.resizing && w.status == Status::Starting {
            self.serving.stood_still(tenant, w.began, Nanos(self.world.now()));
        }
        let stage = &mut self.stages[worker as usize];
        (stage.phase, stage.preempting, stage.saved) = (Phase::Nothing, None, false);
        stage.behind.clear();
        (w.behind, w.next) = (0, None);
        let mut batch = std::mem::take(&mut self.stages[worker as usize].batch);
        let alive = |(i, w): (usize, &Worker)| {
            i != worker as usize && w.spec.tenant == tenant && w.status != Status::Retired
        };
        let unserved = !self.workers.iter().enumerate().any(alive);
        self.unserved[tenant as usize] = unserved.then_some(cause);
        batch.extend(self.abandon(worker));
        for id in batch.drain(..) {
            self.serving.give_up(id, cause);
            self.world.observe(Happening::Dropped { tenant });
            // A client of an unserved tenant would ask again forever.
            if !unserved {
                self.again(tenant);
            }
        }
        self.stages[worker as usize].batch = batch;
        self.retire(worker);
        self.give_up_unserved(tenant);
        self.form_batches(tenant);
    }

    /// Gives up all queued requests of a tenant that has no workers.
    #[inline]
    pub(super) fn give_up_unserved(&mut self, tenant: u32) {
        let Some(cause) = self.unserved[tenant as usize] else { return };
        while let Some(request) = self.serving.oldest(tenant) {
            self.serving.drop(request, cause);
            self.world.observe(Happening::Dropped { tenant });
        }
    }
}
