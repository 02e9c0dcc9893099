//! What planners call a profile: the performance of a tenant that has a place to itself and always has a
//! batch to run. It is an input to a plan, not an evaluation, and not a cell.

use cotenant_deploy::Sharing;
use cotenant_profiles::Nanos;
use cotenant_sim::policy::{self, Options};
use cotenant_sim::scenario::Think;
use cotenant_sim::{Load, Scenario};

use super::super::lab::{Candidate, How, Lab};
use super::super::space::own_tokens;
use crate::ends::Ends;

/// Batches measured for each worker, after those that fill the place.
const BATCHES: u64 = 8;
const BEFORE: u64 = 2;
/// A place in which they take longer is useless.
const AT_MOST: Nanos = Nanos(600_000_000_000);

/// Performance of a tenant in a place of its own where it never waits for requests.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Saturated {
    /// Requests/s of all its workers.
    pub(crate) rps: f64,
    /// Time of a batch.
    pub(crate) batch: Nanos,
}

impl Lab {
    /// A tenant's profile at some settings. `None` if it does not fit, or the device does not support it.
    pub(crate) fn saturated(
        &self,
        tenant: usize,
        sharing: Sharing,
        batch: u32,
        workers: u32,
    ) -> Option<Saturated> {
        if self.cells.stopped() {
            return None;
        }
        let c = Candidate {
            tenants: vec![tenant],
            requests: vec![1.0],
            how: How::Deploy(sharing),
            batch: vec![batch],
            tokens: vec![own_tokens(self, tenant)],
            memory: vec![None],
            timeout: vec![Nanos::ZERO],
            workers: vec![workers],
        };
        let setup = self.prepare(&c).ok()?;
        let (name, options) = self.options(&c);
        // Each request is a whole batch. This many complete in order, however long each takes.
        let requests = u64::from(workers) * (BEFORE + BATCHES);
        let mut ends = Ends::default();
        let scenario = Scenario {
            setup,
            loads: vec![Load::Closed {
                concurrency: workers,
                think: Think::Constant(Nanos::ZERO),
                items: batch,
                tokens: None,
                limit: Some(requests),
            }],
            warmup: Nanos::ZERO,
            duration: AT_MOST,
            contention: self.facts.contention,
            jitter: None,
        };
        let mut policy = (policy::find(name)?.build)(&Options(options)).ok()?;
        let report = cotenant_sim::run(scenario, &mut *policy, Some(&mut ends)).ok()?;
        self.cells.spend(report.events);
        let skip = (u64::from(workers) * BEFORE) as usize;
        let per_batch = ends.gap_ns(skip, workers)?;
        Some(Saturated {
            rps: f64::from(batch) * 1e9 / per_batch,
            // Little's law: this many batches are in progress at any time.
            batch: Nanos((per_batch * f64::from(workers)) as u64),
        })
    }
}
