//! An exclusive part of a pool, or a context that takes turns with others.

use std::collections::VecDeque;

use super::Job;
use super::resident::Resident;
use crate::mask::CuMask;

/// A job that has no CUs yet.
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
    /// So many CUs, numbered from 0, or as many as a mask can name.
    pub(super) all: CuMask,
    pub(super) free: u32,
    pub(super) wait: VecDeque<Waiting>,
    /// Preempted residents of a context that is not on the GPU.
    pub(super) parked: Vec<Resident>,
    /// Sequence number of the one resident that has blocks waiting for more CUs than were left.
    pub(super) under: Option<u64>,
    /// Priorities, masks or fair sharing: grants are recomputed from scratch at every change.
    pub(super) general: bool,
    pub(super) masked: bool,
    /// The priority of every kernel so far, in a lane that is not general.
    pub(super) usual: Option<i8>,
    /// Batches begun and not ended.
    pub(super) open: u32,
}

impl Lane {
    /// Has work while it is not its turn.
    pub(super) fn pending(&self) -> bool {
        !self.wait.is_empty() || !self.parked.is_empty()
    }
}
