//! One point of a study, prepared: what all of its cells share, on any ground.

use crate::config::{Experiment, PolicyRow};
use crate::plan::Cell;
use crate::prepare::{Prepared, Preparer};

/// One point of the sweep with everything that its cells need.
pub(crate) struct Slice {
    pub(crate) e: Experiment,
    pub(crate) ready: Prepared,
}

impl Slice {
    /// Finds and compiles the profiles of a point.
    ///
    /// # Errors
    /// As [`Preparer::facts`].
    pub(crate) fn prepare(e: Experiment, preparer: &mut Preparer) -> Result<Self, String> {
        let ready = preparer.facts(&e, &e.point)?.compile(&e.base, &e.point)?;
        Ok(Self { e, ready })
    }

    /// The policy of a cell.
    pub(crate) fn row(&self, cell: &Cell) -> &PolicyRow {
        &self.e.point.policies[cell.policy]
    }

    /// The sweep point in words; empty if there is no sweep.
    pub(crate) fn swept(&self) -> String {
        let pairs = self.e.keys.iter().zip(&self.e.point.values);
        pairs.map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>().join(", ")
    }
}
