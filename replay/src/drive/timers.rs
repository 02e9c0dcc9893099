//! What the driver has to do at which instant.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// What a timer is for; the number is a tenant's, a worker's or the policy's token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    /// A tenant's next open-loop arrival.
    Arrival(u32),
    /// A closed-loop client of a tenant asks.
    Client(u32),
    /// The oldest request of a tenant has waited long enough for its batch.
    Batch(u32),
    /// What is counted begins.
    Window,
    /// A worker's host work before the first launch is done.
    Prepared(u32),
    /// A worker's host has issued the kernel at the head of its stream.
    Issued(u32),
    /// A host that several workers share has issued a worker's next launch.
    Dispatched(u32),
    /// A worker is up: loaded, restarted, or switched to.
    Up(u32),
    /// A worker's shadow is loaded.
    Shadow(u32),
    /// The policy's own.
    Policy(u64),
}

impl Timer {
    /// The worker that it is for.
    pub(super) fn worker(self) -> Option<u32> {
        match self {
            Self::Prepared(w) | Self::Issued(w) | Self::Dispatched(w) => Some(w),
            Self::Up(w) | Self::Shadow(w) => Some(w),
            Self::Arrival(_) | Self::Client(_) | Self::Batch(_) => None,
            Self::Window | Self::Policy(_) => None,
        }
    }
}

/// Timers in the order of their instants, then in the order in which they were set.
#[derive(Debug, Default)]
pub(super) struct Timers {
    heap: BinaryHeap<Reverse<(u64, u64, Timer)>>,
    sequence: u64,
}

impl Timers {
    pub(super) fn set(&mut self, at: u64, timer: Timer) {
        self.sequence += 1;
        self.heap.push(Reverse((at, self.sequence, timer)));
    }

    /// The next instant.
    pub(super) fn next(&self) -> Option<u64> {
        self.heap.peek().map(|t| t.0.0)
    }

    /// The next timer, if it is due before `limit` and no later than `now`.
    pub(super) fn due(&mut self, now: u64, limit: u64) -> Option<(u64, Timer)> {
        let at = self.next().filter(|&at| at <= now && at < limit)?;
        let Reverse((_, _, timer)) = self.heap.pop()?;
        Some((at, timer))
    }
}
