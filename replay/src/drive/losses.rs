//! Workers that go without being asked to: killed, hung, failed.
//!
//! The requests of the lost worker's batch are given up, for the reason that it went. A tenant that
//! has no worker left is not served any more: what it has queued and what still arrives is given up
//! too. Everybody else goes on.

use cotenant_profiles::Nanos;
use cotenant_sim::observe::Happening;
use cotenant_sim::view::Status;

use super::driver::{Driver, Phase};
use super::workers::Lost;
use crate::error::DeviceError;

/// A loss, for the record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loss {
    /// When it was noticed, in the experiment's time.
    pub at: Nanos,
    /// Whose worker.
    pub tenant: u32,
    /// Which.
    pub worker: u32,
    /// In a word.
    pub cause: &'static str,
    /// In a sentence.
    pub why: String,
}

impl Driver<'_> {
    /// Looks who has gone.
    pub(super) fn losses(&mut self) -> Result<(), DeviceError> {
        let mut lost = std::mem::take(&mut self.lost);
        self.gpu.lost(&mut lost);
        for l in lost.drain(..) {
            self.lose(l)?;
        }
        self.lost = lost;
        Ok(())
    }

    fn lose(&mut self, lost: Lost) -> Result<(), DeviceError> {
        let Lost { worker, shadow, cause, why } = lost;
        let tenant = self.workers[worker as usize].spec.tenant;
        self.record.push(Loss { at: Nanos(self.now), tenant, worker, cause, why });
        if shadow {
            self.forget_resize(worker);
            return Ok(());
        }
        if self.workers[worker as usize].status == Status::Retired {
            return Ok(());
        }
        self.stages[worker as usize].phase = Phase::Nothing;
        let mut batch = std::mem::take(&mut self.stages[worker as usize].batch);
        self.workers[worker as usize].deadline = Nanos::MAX;
        let alive = |(i, w): (usize, &cotenant_sim::view::Worker)| {
            i != worker as usize && w.spec.tenant == tenant && w.status != Status::Retired
        };
        let unserved = !self.workers.iter().enumerate().any(alive);
        self.unserved[tenant as usize] = unserved.then_some(cause);
        for id in batch.drain(..) {
            self.serving.give_up(id, cause);
            self.observe(Happening::Dropped { tenant });
            self.again_unless_unserved(tenant);
        }
        self.stages[worker as usize].batch = batch;
        self.retire(worker)?;
        self.give_up_unserved(tenant);
        self.form_batches(tenant)
    }

    /// Gives up what a tenant without workers has queued.
    pub(super) fn give_up_unserved(&mut self, tenant: u32) {
        let Some(cause) = self.unserved[tenant as usize] else { return };
        while self.serving.views()[tenant as usize].queued > 0 {
            self.serving.drop_oldest(tenant, cause);
            self.observe(Happening::Dropped { tenant });
        }
    }

    /// A client whose tenant nobody serves would ask again for ever.
    fn again_unless_unserved(&mut self, tenant: u32) {
        if self.unserved[tenant as usize].is_none() {
            self.again(tenant);
        }
    }
}
