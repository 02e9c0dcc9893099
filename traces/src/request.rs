//! One request, and where requests come from.

use cotenant_profiles::Nanos;

use crate::error::TraceError;

/// One request of one tenant, as the simulator and the replay need it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Request {
    /// Scheduled arrival, from the start of the trace. Latency counts from here.
    pub arrival: Nanos,
    /// Samples in the request, at least 1; they count towards the batch size.
    pub items: u32,
    /// Deadline relative to the arrival; `None`: the tenant's default.
    pub slo: Option<Nanos>,
    /// Larger is more urgent.
    pub prio: i8,
    /// Multiplies the profiled service time; finite and above 0.
    pub work: f32,
    /// Tokens of the prompt; 0 where nothing says it.
    pub tokens_in: u32,
    /// Tokens to generate; 0 where nothing says it.
    pub tokens_out: u32,
    /// The conversation that it belongs to, as a number; 0: none.
    pub session: u64,
}

impl Request {
    /// A plain request of one item.
    #[must_use]
    pub const fn at(arrival: Nanos) -> Self {
        Self {
            arrival,
            items: 1,
            slo: None,
            prio: 0,
            work: 1.0,
            tokens_in: 0,
            tokens_out: 0,
            session: 0,
        }
    }
}

/// Open-loop arrivals of one tenant, in time order. Sources are pulled one request at a time, so a
/// trace larger than memory streams through.
pub trait Arrivals: Send {
    /// The next request, not earlier than the one before; `None` when the source is exhausted.
    fn next_request(&mut self) -> Option<Request>;
}

impl<I: Iterator<Item = Request> + Send> Arrivals for I {
    fn next_request(&mut self) -> Option<Request> {
        self.next()
    }
}

/// The most samples of one request: beyond what any batcher takes at once.
pub const MOST_ITEMS: u32 = 1_000_000;

pub(crate) fn check_items(field: &str, items: u32) -> Result<(), TraceError> {
    if (1..=MOST_ITEMS).contains(&items) {
        return Ok(());
    }
    Err(TraceError::spec(field, format!("is not from 1 to {MOST_ITEMS}")))
}
