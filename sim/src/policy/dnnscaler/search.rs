//! The batching scaler's pseudo-binary search, as released.
//!
//! It walks indices into the list of batch sizes 1, 2, … of which entry 0 is batch 1. Two quirks of
//! the released code are kept because they decide where it settles: the upward step rounds up, so
//! it may return to the index that has just failed, and two neighbours of which one is too small
//! and one too large alternate for ever. One is not: the list's length itself is a legal index
//! upwards, which the code would read past the end of; here it means the largest batch.

use super::band::Band;

/// The state of a search over batch sizes from 1 to a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Search {
    best: u32,
    low: u32,
    high: u32,
    limit: u32,
}

impl Search {
    /// Starts at batch 1.
    pub(super) fn new(limit: u32) -> Self {
        Self { best: 0, low: 0, high: limit, limit }
    }

    /// The batch size to use now.
    pub(super) fn batch(&self) -> u32 {
        (self.best + 1).min(self.limit)
    }

    /// One decision.
    pub(super) fn step(&mut self, band: Band) {
        match band {
            Band::Inside => {}
            Band::Under if self.best == self.limit => {}
            Band::Under => {
                if self.best == self.high {
                    (self.low, self.high) = (self.high, self.limit);
                } else {
                    self.low = self.best;
                }
                self.best = (self.low + self.high).div_ceil(2);
            }
            Band::Over if self.best == 0 => {}
            Band::Over => {
                if self.best == self.low {
                    // Nowhere left to go: starts over from the smallest batch.
                    (self.low, self.high) = (0, self.low);
                } else {
                    self.high = self.best;
                }
                self.best = (self.low + self.high) / 2;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Batches of the first `n` decisions where a batch of `b` takes `latency(b)` ms.
    fn walk(limit: u32, slo: f64, n: usize, latency: impl Fn(u32) -> f64) -> Vec<u32> {
        let mut search = Search::new(limit);
        let mut seen = vec![search.batch()];
        for _ in 0..n {
            search.step(Band::of(latency(search.batch()), slo, 0.85));
            seen.push(search.batch());
        }
        seen
    }

    #[test]
    fn it_halves_its_way_into_the_band() {
        // 10 + 2·b ms under 100 ms: batches 38 to 45 take 86 to 100 ms.
        // Index 0 → ⌈(0+127)/2⌉ = 64, batch 65: 140 ms, over. high = 64, ⌊(0+64)/2⌋ = 32, batch 33:
        // 76 ms, under. low = 32, ⌈(32+64)/2⌉ = 48, batch 49: 108 ms, over. high = 48,
        // ⌊(32+48)/2⌋ = 40, batch 41: 92 ms, inside, and there it stays.
        let linear = |b| 10.0 + 2.0 * f64::from(b);
        assert_eq!(walk(127, 100.0, 6, linear), [1, 65, 33, 49, 41, 41, 41]);
    }

    #[test]
    fn a_loose_objective_ends_at_the_largest_batch() {
        // 64, 96, 112, 120, 124, 126, 127 by halves that round up; index 127 is past the list.
        let batches = walk(127, 1e9, 9, f64::from);
        assert_eq!(batches, [1, 65, 97, 113, 121, 125, 127, 127, 127, 127]);
    }

    #[test]
    fn a_tight_objective_stays_at_one() {
        assert_eq!(walk(127, 5.0, 3, |_| 10.0), [1, 1, 1, 1]);
        // One fits, two do not: index 64, 32, 16, 8, 4, 2, 1, 0; then again between 0 and 1, whose
        // upward step rounds up to the index that has just failed.
        let steep = |b| if b == 1 { 10.0 } else { 1000.0 };
        let batches = walk(127, 50.0, 12, steep);
        assert_eq!(batches, [1, 65, 33, 17, 9, 5, 3, 2, 1, 2, 1, 2, 1]);
    }

    #[test]
    fn neighbours_of_which_none_fits_alternate() {
        // 10 ms up to batch 20 and 100 ms from 21, under 50 ms. Indices: 64, 32, 16 (batch 17,
        // under), 24, 20 (batch 21, over), 18 (19, under), 19 (20, under), ⌈(19+20)/2⌉ = 20, …
        let step = |b| if b <= 20 { 10.0 } else { 100.0 };
        let batches = walk(127, 50.0, 11, step);
        assert_eq!(batches, [1, 65, 33, 17, 25, 21, 19, 20, 21, 20, 21, 20]);
    }

    #[test]
    fn a_slower_machine_sends_it_back_to_the_start() {
        let mut search = Search::new(127);
        let latency = |b: u32| 2.0 * f64::from(b);
        for _ in 0..3 {
            search.step(Band::of(latency(search.batch()), 100.0, 0.85));
        }
        // Index 64 over, 32 under, 48: batch 49 takes 98 ms, inside.
        assert_eq!((search.batch(), search.low, search.high), (49, 32, 64));
        // Twice as slow: 48 over (high 48, index 40), 40 over (36), 34, 33, then 32 = low: over still,
        // so the search starts over below it, ⌊(0+32)/2⌋ = 16, batch 17: 68 ms, under; index 24,
        // batch 25: 100 ms, inside.
        let slow = |b: u32| 4.0 * f64::from(b);
        let mut seen = vec![];
        for _ in 0..8 {
            search.step(Band::of(slow(search.batch()), 100.0, 0.85));
            seen.push(search.batch());
        }
        assert_eq!(seen, [41, 37, 35, 34, 33, 17, 25, 25]);
    }

    #[test]
    fn a_faster_machine_lifts_the_upper_bound() {
        // Over at 65, under at 33, 49, 57, 61, 63, 64, and, as rounding up takes it back, at 65 too
        // now that the machine is faster: the upper bound is lifted to the end of the list.
        let mut search = Search::new(127);
        search.step(Band::Under);
        search.step(Band::Over);
        let mut seen = vec![search.batch()];
        for _ in 0..8 {
            search.step(Band::Under);
            seen.push(search.batch());
        }
        assert_eq!(seen, [33, 49, 57, 61, 63, 64, 65, 97, 113]);
    }
}
