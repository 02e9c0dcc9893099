//! The heap of alarms: events at known instants, unless the run ends first.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;

use crate::pool::NEVER;

/// What an alarm is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Alarm {
    /// An open-loop arrival, by tenant.
    Arrival = 0,
    /// A closed-loop client sends its next request, by tenant.
    Client = 1,
    /// The host has prepared a batch, by worker.
    Prepared = 2,
    /// A copy to the GPU has ended, by worker: internal to a world.
    CopiedIn = 3,
    /// The host has issued the launch at the head of a worker's stream, by worker; internal to a world
    /// where the policy does not launch kernels.
    Issued = 4,
    /// The mechanism that places a launch has taken effect, by worker: internal to a world.
    Placed = 5,
    /// A copy from the GPU has ended, by worker: internal to a world.
    CopiedOut = 6,
    /// A batch has waited long enough to fill, or a request has expired, by tenant.
    Batch = 7,
    /// A worker has started, by worker.
    Up = 8,
    /// A timer of the policy, or the end of a statistics window, by slot.
    Policy = 9,
    /// The counted window opens.
    Window = 10,
    /// A shadow has loaded, by worker.
    Resized = 11,
    /// The lanes of a pool get their new sizes, by pool.
    Cut = 12,
    /// A new clock limit takes effect, by MHz.
    Clock = 13,
    /// A shared host has issued a worker's next launch, by worker.
    Dispatched = 14,
    /// A worker's kernel leaves the CUs, by worker: internal to a world.
    Preempt = 15,
}

impl Alarm {
    /// By number. In digests a kernel's end counts as 12 and a turn's end as 13, numbers that two alarms
    /// have here.
    const ALL: [Self; 16] = [
        Self::Arrival,
        Self::Client,
        Self::Prepared,
        Self::CopiedIn,
        Self::Issued,
        Self::Placed,
        Self::CopiedOut,
        Self::Batch,
        Self::Up,
        Self::Policy,
        Self::Window,
        Self::Resized,
        Self::Cut,
        Self::Clock,
        Self::Dispatched,
        Self::Preempt,
    ];
}

/// Bits of a key that hold the index. The alarm takes four more bits and the sequence number 38. Two flags,
/// [`HOST`] and [`LATE`], take the rest.
const INDEX_BITS: u32 = 20;

/// One more than the largest index that an alarm can carry.
pub const INDICES: usize = 1 << INDEX_BITS;

/// Set in the keys of the host's alarms: the GPU's alarms come first.
const HOST: u64 = 1 << 63;

/// Set in the keys of those host alarms that come after everything else at their instant.
const LATE: u64 = 1 << 62;

/// Alarms ordered by instant. At equal instants the GPU's alarms come before the host's, then in the order
/// in which they were set. Two kinds come after everything else at their instant, so that requests of one
/// instant are gathered: [`Alarm::Batch`] and [`Alarm::Policy`].
#[derive(Debug, Default)]
pub struct Timers {
    heap: BinaryHeap<Reverse<u128>>,
    sequence: u64,
}

impl Timers {
    fn key(&mut self, at: u64, class: u64, alarm: Alarm, index: u32) -> Reverse<u128> {
        debug_assert!((index as usize) < INDICES);
        self.sequence += 1;
        let low =
            self.sequence << (INDEX_BITS + 4) | u64::from((alarm as u32) << INDEX_BITS | index);
        Reverse(u128::from(at) << 64 | u128::from(low | class))
    }

    /// Sets an alarm of the host.
    #[inline]
    pub fn arm(&mut self, at: u64, alarm: Alarm, index: u32) {
        let late = matches!(alarm, Alarm::Batch | Alarm::Policy);
        let key = self.key(at, if late { HOST | LATE } else { HOST }, alarm, index);
        self.heap.push(key);
    }

    /// Sets an alarm for something that the GPU does on its own.
    #[inline]
    pub fn arm_gpu(&mut self, at: u64, alarm: Alarm, index: u32) {
        let key = self.key(at, 0, alarm, index);
        self.heap.push(key);
    }

    /// Like [`Self::arm_gpu`], for an alarm that should have been set earlier: the GPU's alarms of the same
    /// instant for which `later` holds are moved behind it.
    pub fn arm_gpu_before(
        &mut self,
        at: u64,
        alarm: Alarm,
        index: u32,
        later: impl Fn(Alarm, u32) -> bool,
    ) {
        let here = |key: u128| (key >> 64) as u64 == at && key as u64 & (HOST | LATE) == 0;
        let what = |key: u128| {
            let low = key as u32;
            (Self::alarm(low >> INDEX_BITS & 0xF), low & (INDICES as u32 - 1))
        };
        let behind = |key: u128| {
            let (alarm, index) = what(key);
            here(key) && later(alarm, index)
        };
        let mut again: Vec<u128> =
            self.heap.iter().map(|k| k.0).filter(|&key| behind(key)).collect();
        if !again.is_empty() {
            self.heap.retain(|k| !behind(k.0));
            again.sort_unstable();
        }
        self.arm_gpu(at, alarm, index);
        for key in again {
            let (alarm, index) = what(key);
            self.arm_gpu(at, alarm, index);
        }
    }

    fn alarm(number: u32) -> Alarm {
        Alarm::ALL[number as usize]
    }

    /// When the first alarm is due, or [`NEVER`].
    #[inline]
    #[must_use]
    pub fn next(&self) -> u64 {
        self.heap.peek().map_or(NEVER, |k| (k.0 >> 64) as u64)
    }

    /// The first alarm and its index.
    ///
    /// # Panics
    /// No alarm is set.
    #[inline]
    #[must_use]
    pub fn first(&self) -> (Alarm, u32) {
        let low = self.heap.peek().expect("an alarm is due").0 as u32;
        (Self::alarm(low >> INDEX_BITS & 0xF), low & (INDICES as u32 - 1))
    }

    /// Removes the first alarm.
    #[inline]
    pub fn pop(&mut self) {
        self.heap.pop();
    }

    /// Replaces the first alarm by another one of the host, or removes it. Replacing the top of the heap
    /// costs one sift instead of two.
    ///
    /// # Panics
    /// No alarm is set.
    #[inline]
    pub fn replace_first(&mut self, at: Option<u64>, alarm: Alarm, index: u32) {
        let key = at.map(|at| self.key(at, HOST, alarm, index));
        let mut top = self.heap.peek_mut().expect("it is the alarm being served");
        match key {
            Some(key) => *top = key,
            None => drop(PeekMut::pop(top)),
        }
    }
}
