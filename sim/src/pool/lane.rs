//! An exclusive part of a pool, or a context that takes turns with others.

use std::cmp::Reverse;
use std::collections::VecDeque;

use super::Job;
use super::resident::{Resident, float};
use super::shape::{PARTS, Room};
use crate::mask::CuMask;

/// Order among the residents that compete for space: higher priority first, then earlier submission.
pub(super) type Rank = (Reverse<i8>, u64);

/// A job that has no block on a CU yet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Waiting {
    pub(super) job: Job,
    /// Order of submission: earlier goes first.
    pub(super) seq: u64,
    /// Its entry in the pool's masks, or [`UNMASKED`].
    pub(super) mask: u32,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Lane {
    pub(super) capacity: u32,
    /// The first `capacity` CUs, numbered from 0, or as many as a mask can name.
    pub(super) all: CuMask,
    /// Room for blocks: CUs × [`PARTS`]. A masked lane counts room CU by CU instead.
    pub(super) room: Room,
    /// CUs of a masked lane on which no kernel has a block.
    pub(super) open: CuMask,
    /// Sums over residents: CUs on which they have blocks, and speed that they use undisturbed.
    pub(super) lies: u64,
    pub(super) speed: u64,
    /// CUs with blocks on them.
    pub(super) busy: u32,
    /// Some CUs have blocks of several kernels.
    pub(super) crowded: bool,
    pub(super) wait: VecDeque<Waiting>,
    /// Preempted residents of a context that is not on the GPU.
    pub(super) parked: Vec<Resident>,
    /// Sequence number of the one resident of a plain lane that has blocks waiting for room.
    pub(super) under: Option<u64>,
    /// Rank of the first resident of a general lane that has blocks waiting for room.
    pub(super) hungry: Option<Rank>,
    /// The lane has priorities, masks or small kernels that come and go: room is handed out after
    /// ranking all its residents.
    pub(super) general: bool,
    pub(super) masked: bool,
    /// The priority that all kernels so far had, in a lane that is not general.
    pub(super) usual: Option<i8>,
    /// Batches that have begun and not ended.
    pub(super) open_batches: u32,
}

impl Lane {
    pub(super) fn new(capacity: u32) -> Self {
        let all = CuMask::first(capacity.min(CuMask::CAPACITY));
        Self { capacity, all, open: all, room: [capacity * PARTS; 4], ..Self::default() }
    }

    /// Whether the lane has work while it is not its turn.
    pub(super) fn pending(&self) -> bool {
        !self.wait.is_empty() || !self.parked.is_empty()
    }

    /// Whether any kernel waits for room.
    #[inline]
    pub(super) fn starves(&self) -> bool {
        self.under.is_some() || !self.wait.is_empty() || self.hungry.is_some()
    }

    /// Whether there is room for one CU full of blocks that take `takes`.
    #[inline]
    pub(super) fn has_room(&self, takes: &Room) -> bool {
        // Compares all four at once, without a branch for each.
        takes.iter().zip(&self.room).fold(true, |all, (t, room)| all & (t <= room))
    }

    /// For how many CUs full of such blocks there is room, at most `most`.
    #[inline]
    pub(super) fn room_for(&self, takes: &Room, most: u32) -> u32 {
        if most == 1 {
            return u32::from(self.has_room(takes));
        }
        if (0..4).all(|r| u64::from(takes[r]) * u64::from(most) <= u64::from(self.room[r])) {
            return most;
        }
        let fit = |r: usize| self.room[r].checked_div(takes[r]).unwrap_or(u32::MAX);
        (0..4).map(fit).min().unwrap_or(0).min(most)
    }

    /// How many of a resident's CUs it shares with other kernels in a lane without masks, and how much
    /// of a CU's speed those ask for there. Blocks go to the CU with the most room, so kernels share
    /// one only where no other is free.
    pub(super) fn meets(&self, r: &Resident) -> (u64, f64) {
        let (capacity, lies) = (u64::from(self.capacity), u64::from(r.now.lies));
        let theirs = (self.lies - lies).min(capacity);
        let shared = (lies + theirs).saturating_sub(capacity).min(lies);
        if shared == 0 {
            return (0, 0.0);
        }
        (shared, float(self.speed - r.now.speed) / float(theirs * u64::from(PARTS)))
    }

    #[inline]
    pub(super) fn take(&mut self, takes: &Room, held: u32) {
        for (room, t) in self.room.iter_mut().zip(takes) {
            *room -= t * held;
        }
    }

    #[inline]
    pub(super) fn give(&mut self, takes: &Room, held: u32) {
        let mut within = true;
        for (room, t) in self.room.iter_mut().zip(takes) {
            // Both are at most `capacity * PARTS`, which fits.
            *room = room.wrapping_add(t.wrapping_mul(held));
            within &= *room <= self.capacity * PARTS;
        }
        assert!(within, "a lane has no more room than it has");
    }
}
