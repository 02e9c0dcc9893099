//! The source of a tenant's requests, one after the other: open-loop arrivals, or closed-loop clients that
//! send their next request once they have been answered.

use cotenant_profiles::Nanos;
use cotenant_traces::{Request, TokenDraws};

use crate::scenario::{Load, Think};

/// A load in progress. It has no clock: it says when the next request is due, and returns it when its
/// driver says that this instant has come.
pub struct Source {
    load: Load,
    /// The next arrival (open loop).
    next: Request,
    /// Closed-loop requests issued so far.
    issued: u64,
}

impl Source {
    /// A load from which no request has come yet.
    #[must_use]
    pub fn new(load: Load) -> Self {
        Self { load, next: Request::at(Nanos::ZERO), issued: 0 }
    }

    /// Whether requests come whether or not earlier ones are done.
    #[must_use]
    pub fn is_open(&self) -> bool {
        matches!(self.load, Load::Open(_))
    }

    /// When the first requests are due: the first arrival, or every client at once.
    pub fn first(&mut self) -> impl Iterator<Item = Nanos> + use<> {
        let (at, n) = match &mut self.load {
            Load::Open(arrivals) => match arrivals.next_request() {
                Some(request) => {
                    self.next = request;
                    (request.arrival, 1)
                }
                None => (Nanos::ZERO, 0),
            },
            Load::Closed { concurrency, limit, .. } => {
                self.issued = u64::from(*concurrency).min(limit.unwrap_or(u64::MAX));
                (Nanos::ZERO, self.issued)
            }
        };
        (0..n).map(move |_| at)
    }

    /// The request that is due `now`, and the time of the next arrival if the load is open and continues.
    #[inline]
    pub fn arrive(&mut self, now: Nanos) -> (Request, Option<Nanos>) {
        match &mut self.load {
            Load::Open(arrivals) => {
                let request = self.next;
                let following = arrivals.next_request();
                if let Some(next) = following {
                    assert!(next.arrival >= request.arrival, "arrivals come in time order");
                    self.next = next;
                }
                (request, following.map(|next| next.arrival))
            }
            Load::Closed { items, tokens, .. } => {
                let (tokens_in, tokens_out) = tokens.as_mut().map_or((0, 0), TokenDraws::draw);
                (Request { items: *items, tokens_in, tokens_out, ..Request::at(now) }, None)
            }
        }
    }

    /// A request has been answered or given up. Returns when its closed-loop client sends the next one, if
    /// it does.
    #[inline]
    pub fn again(&mut self, now: Nanos) -> Option<Nanos> {
        let Load::Closed { think, limit, .. } = &mut self.load else { return None };
        if limit.is_some_and(|n| self.issued >= n) {
            return None;
        }
        self.issued += 1;
        let pause = match think {
            Think::Constant(pause) => pause.0,
            Think::Exponential(mean, rng) => (rng.exp1() * mean.0 as f64) as u64,
        };
        Some(Nanos(now.0 + pause))
    }
}
