//! The rate at which requests end, from the time of each end.

use cotenant_profiles::Nanos;
use cotenant_sim::observe::{Happening, Observer};

/// When requests ended, in order.
#[derive(Default)]
pub(crate) struct Ends(Vec<Nanos>);

impl Ends {
    /// Mean time from one end to the next after the first `skip`, ns; `None` if there are too few.
    ///
    /// `group` clients wait for their answers and then send the next request. Their requests may end
    /// together: only whole rounds of them are counted, otherwise the last round's ends would count without
    /// the time before them.
    pub(crate) fn gap_ns(&self, skip: usize, group: u32) -> Option<f64> {
        let ends = self.0.get(skip..)?;
        let group = group.max(1) as usize;
        let counted = ends.len().checked_sub(1)? / group * group;
        let span = ends.get(counted)?.0.checked_sub(ends[0].0).filter(|s| *s > 0)?;
        Some(span as f64 / counted as f64)
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

#[cfg(test)]
mod tests {
    use super::*;

    fn ends(at: &[u64]) -> Ends {
        Ends(at.iter().copied().map(Nanos).collect())
    }

    #[test]
    fn ends_that_come_together_count_by_the_round() {
        let together = ends(&[10, 10, 20, 20, 30, 30, 40, 40]);
        assert_eq!(together.gap_ns(0, 2), Some(5.0));
        assert_eq!(together.gap_ns(2, 2), Some(5.0));
        let in_turn = ends(&[5, 10, 15, 20, 25, 30]);
        assert_eq!((in_turn.gap_ns(0, 2), in_turn.gap_ns(1, 1)), (Some(5.0), Some(5.0)));
        assert_eq!((ends(&[1]).gap_ns(0, 1), ends(&[1, 2]).gap_ns(0, 2)), (None, None));
        assert_eq!((ends(&[]).gap_ns(0, 1), ends(&[3, 3]).gap_ns(0, 1)), (None, None));
    }
}
