//! What the cells of a study run on: the simulator, or a device in real time.

use cotenant_replay::drive::Lateness;

use super::slice::Slice;
use super::stop::Stop;
use crate::cell::{self, Outcome};
use crate::plan::Cell;
use crate::watch::Wants;

/// A cell that ran.
pub(crate) struct Played {
    pub(crate) outcome: Outcome,
    /// How late the dispatcher was, in real time.
    pub(crate) lateness: Option<Lateness>,
}

/// Runs cells, several at a time.
pub(crate) trait Ground: Sync {
    /// Runs a cell; nothing where `stop` has cut it short.
    fn play(&self, slice: &Slice, cell: &Cell, wants: Wants, stop: &Stop) -> Option<Played>;

    /// Whether its cells' numbers are kept for who compares them.
    fn is_compared(&self) -> bool {
        true
    }
}

/// The simulator. A cell that has begun is computed to its end.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Simulated {
    /// With what another ground measures.
    pub(crate) compared: bool,
}

impl Ground for Simulated {
    fn play(&self, slice: &Slice, cell: &Cell, wants: Wants, _: &Stop) -> Option<Played> {
        let outcome = cell::compute(&slice.e, &slice.ready, cell, wants);
        Some(Played { outcome, lateness: None })
    }

    fn is_compared(&self) -> bool {
        self.compared
    }
}
