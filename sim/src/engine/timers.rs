//! The heap of timers: what happens at a known instant unless the end of the run comes first.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;

use crate::pool::NEVER;

/// What a timer is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    /// An open-loop arrival, by tenant.
    Arrival = 0,
    /// A closed-loop client asks, by tenant.
    Closed = 1,
    /// The host has prepared a batch, by worker; so are all the following.
    Prepared = 2,
    CopiedIn = 3,
    /// The host has issued the launch at the head.
    Issued = 4,
    /// The mechanism by which a launch is placed has taken effect.
    Placed = 5,
    CopiedOut = 6,
    /// A batch has waited long enough to fill, by tenant.
    Batch = 7,
    /// A worker has started, by worker.
    Up = 8,
    /// The policy's own, by slot.
    Policy = 9,
    /// The counted window opens.
    Window = 10,
    /// A shadow has loaded, by worker.
    Resized = 11,
    /// A shared host has issued a worker's next launch, by worker.
    Dispatched = 14,
}

impl Kind {
    /// By number. Digests tell 12 and 13 apart from timers: a kernel's end and a turn's.
    const ALL: [Option<Self>; 16] = [
        Some(Self::Arrival),
        Some(Self::Closed),
        Some(Self::Prepared),
        Some(Self::CopiedIn),
        Some(Self::Issued),
        Some(Self::Placed),
        Some(Self::CopiedOut),
        Some(Self::Batch),
        Some(Self::Up),
        Some(Self::Policy),
        Some(Self::Window),
        Some(Self::Resized),
        None,
        None,
        Some(Self::Dispatched),
        None,
    ];
}

/// Bits of a key that hold the index; the kind takes four more, the sequence the other 40.
const INDEX_BITS: u32 = 20;

/// One more than the largest index that a timer can carry.
pub(super) const INDICES: usize = 1 << INDEX_BITS;

/// Timers by instant, and by the order in which they were set at equal ones.
#[derive(Debug, Default)]
pub(super) struct Timers {
    heap: BinaryHeap<Reverse<u128>>,
    sequence: u64,
}

impl Timers {
    fn key(&mut self, at: u64, kind: Kind, index: u32) -> Reverse<u128> {
        debug_assert!((index as usize) < INDICES);
        self.sequence += 1;
        let low =
            self.sequence << (INDEX_BITS + 4) | u64::from((kind as u32) << INDEX_BITS | index);
        Reverse(u128::from(at) << 64 | u128::from(low))
    }

    #[inline]
    pub(super) fn arm(&mut self, at: u64, kind: Kind, index: u32) {
        let key = self.key(at, kind, index);
        self.heap.push(key);
    }

    /// When the first one is due, or [`NEVER`].
    #[inline]
    pub(super) fn next(&self) -> u64 {
        self.heap.peek().map_or(NEVER, |k| (k.0 >> 64) as u64)
    }

    /// What the first one is for, and its index.
    #[inline]
    pub(super) fn first(&self) -> (Kind, u32) {
        let low = self.heap.peek().expect("a timer is due").0 as u32;
        let kind = Kind::ALL[(low >> INDEX_BITS & 0xF) as usize];
        (kind.expect("every armed timer has a kind"), low & (INDICES as u32 - 1))
    }

    #[inline]
    pub(super) fn pop(&mut self) {
        self.heap.pop();
    }

    /// Sets the first one anew, or takes it away. Replacing the top costs one sift instead of two.
    #[inline]
    pub(super) fn replace_first(&mut self, at: Option<u64>, kind: Kind, index: u32) {
        let key = at.map(|at| self.key(at, kind, index));
        let mut top = self.heap.peek_mut().expect("it is the timer being served");
        match key {
            Some(key) => *top = key,
            None => drop(PeekMut::pop(top)),
        }
    }
}
