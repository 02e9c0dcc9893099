//! What the cells of a study run on: the simulator, or a device in real time.

use cotenant_replay::drive::Lateness;

use super::slice::Slice;
use super::stop::Stop;
use crate::cell::{self, Outcome};
use crate::plan::Cell;
use crate::watch::Wants;

/// The result of running a cell.
pub(crate) struct Played {
    pub(crate) outcome: Outcome,
    /// How late the dispatcher was, in real time.
    pub(crate) lateness: Option<Lateness>,
}

/// Runs cells, several at a time.
pub(crate) trait Ground: Sync {
    /// Runs a cell; `None` if it was cut short by `stop`.
    fn play(&self, slice: &Slice, cell: &Cell, wants: Wants, stop: &Stop) -> Option<Played>;

    /// Whether its cells' numbers are kept for a later comparison.
    fn is_compared(&self) -> bool {
        true
    }
}

/// The simulator. A cell that has started always runs to its end.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Simulated {
    /// Whether its results are compared with measurements on another ground.
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
