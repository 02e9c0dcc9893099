//! Closed loops: the next request follows a completion.

use cotenant_profiles::Nanos;
use serde::Serialize;

use crate::rng::Rng;

/// A closed loop: `concurrency` clients, each sending its next request a think time after the
/// completion of its last.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Closed {
    /// Requests in flight or being thought about, at least 1.
    pub concurrency: u32,
    /// Mean time from a completion to the client's next request.
    pub think: Nanos,
    /// Think times are exponential with that mean; else constant.
    pub exponential: bool,
    /// Samples per request.
    pub items: u32,
    /// No more requests than this; absent: until the end of the run.
    pub max_requests: Option<u64>,
}

impl Default for Closed {
    fn default() -> Self {
        let think = Nanos::ZERO;
        Self { concurrency: 1, think, exponential: false, items: 1, max_requests: None }
    }
}

impl Closed {
    /// One think time. `rng` is the tenant's stream for this purpose.
    pub fn think_time(&self, rng: &mut Rng) -> Nanos {
        if self.exponential { Nanos((rng.exp1() * self.think.0 as f64) as u64) } else { self.think }
    }
}
