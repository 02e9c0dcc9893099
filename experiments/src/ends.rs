//! How fast requests end, by when each of them did.

use cotenant_profiles::Nanos;
use cotenant_sim::observe::{Happening, Observer};

/// When requests ended, in order.
#[derive(Default)]
pub(crate) struct Ends(Vec<Nanos>);

impl Ends {
    /// Mean time from one end to the next behind the first `skip`, ns; `None`: too few to tell.
    pub(crate) fn gap_ns(&self, skip: usize) -> Option<f64> {
        let (first, last) = (self.0.get(skip)?, self.0.last()?);
        let span = last.0.checked_sub(first.0).filter(|s| *s > 0)?;
        Some(span as f64 / (self.0.len() - skip - 1) as f64)
    }
}

impl Observer for Ends {
    fn happened(&mut self, now: Nanos, what: Happening) {
        if let Happening::RequestDone { .. } = what {
            self.0.push(now);
        }
    }

    fn watches_gpu(&self) -> bool {
        false
    }
}
