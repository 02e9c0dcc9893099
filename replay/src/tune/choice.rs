//! Evaluates the timings: the best variant of each share, and how it performs at the others.

/// Samples of one variant of one shape at one share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// Median, ns.
    pub median_ns: u64,
    /// The value that 5 % of the samples do not exceed, ns.
    pub p05_ns: u64,
    /// The value that 95 % of the samples do not exceed, ns.
    pub p95_ns: u64,
    /// Samples.
    pub samples: u32,
}

/// Timings of a shape: by variant, then by share.
pub type Timings = Vec<Vec<Timing>>;

/// The variant tuned at one share, run at another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cell {
    /// Index of the share that the variant was tuned at.
    pub tuned_at: usize,
    /// Index of the share that the variant runs at.
    pub run_at: usize,
    /// Index of the variant; `None` in a sum over shapes.
    pub variant: Option<usize>,
    /// Its median at `run_at`, ns.
    pub ns: u64,
    /// The median of the variant tuned for `run_at`, ns.
    pub best_ns: u64,
}

impl Cell {
    /// The variant's time divided by that of the variant tuned for the share.
    #[must_use]
    pub fn slowdown(&self) -> f64 {
        self.ns as f64 / self.best_ns.max(1) as f64
    }
}

/// The variant with the smallest median at a share; the first one if several are equal.
#[must_use]
pub fn best(timings: &Timings, share: usize) -> Option<usize> {
    (0..timings.len()).min_by_key(|&variant| timings[variant][share].median_ns)
}

/// The best variant of every share, run at every share: by `tuned_at`, then by `run_at`.
#[must_use]
pub fn matrix(timings: &Timings, shares: usize) -> Vec<Cell> {
    let best: Option<Vec<usize>> = (0..shares).map(|share| best(timings, share)).collect();
    let Some(best) = best else { return Vec::new() };
    let at = |variant: usize, share: usize| timings[variant][share].median_ns;
    let cell = |tuned_at: usize, run_at: usize| {
        let variant = best[tuned_at];
        let (ns, best_ns) = (at(variant, run_at), at(best[run_at], run_at));
        Cell { tuned_at, run_at, variant: Some(variant), ns, best_ns }
    };
    (0..shares).flat_map(|a| (0..shares).map(move |b| (a, b))).map(|(a, b)| cell(a, b)).collect()
}

/// The sum of the shapes' matrices, each multiplied by its launches.
#[must_use]
pub fn sum(parts: &[(u64, Vec<Cell>)]) -> Vec<Cell> {
    let Some((_, first)) = parts.first() else { return Vec::new() };
    let total = |i: usize, of: fn(&Cell) -> u64| {
        parts.iter().map(|(n, cells)| n.saturating_mul(of(&cells[i]))).fold(0, u64::saturating_add)
    };
    let cell = |(i, c): (usize, &Cell)| Cell {
        variant: None,
        ns: total(i, |c| c.ns),
        best_ns: total(i, |c| c.best_ns),
        ..*c
    };
    first.iter().enumerate().map(cell).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timings(medians: &[[u64; 2]]) -> Timings {
        let timing = |&median_ns: &u64| Timing {
            median_ns,
            p05_ns: median_ns,
            p95_ns: median_ns,
            samples: 1,
        };
        medians.iter().map(|of| of.iter().map(timing).collect()).collect()
    }

    #[test]
    fn each_share_has_its_best_and_the_first_of_equals() {
        let of = timings(&[[90, 60], [80, 70], [80, 60]]);
        assert_eq!((best(&of, 0), best(&of, 1)), (Some(1), Some(0)));
        assert_eq!(best(&timings(&[]), 0), None);
        assert!(matrix(&timings(&[]), 2).is_empty());
    }

    #[test]
    fn nothing_beats_what_was_tuned_where_it_runs() {
        let cells = matrix(&timings(&[[90, 60], [80, 70]]), 2);
        let of = |a, b| *cells.iter().find(|c| (c.tuned_at, c.run_at) == (a, b)).unwrap();
        assert_eq!(cells.len(), 4);
        for share in 0..2 {
            let diagonal = of(share, share);
            assert_eq!(diagonal.ns, diagonal.best_ns);
            assert_eq!(diagonal.slowdown(), 1.0);
        }
        // Tuned at share 0: variant 1, which takes 70 at share 1, where variant 0 takes 60.
        assert_eq!((of(0, 1).variant, of(0, 1).ns, of(0, 1).best_ns), (Some(1), 70, 60));
        assert_eq!((of(1, 0).variant, of(1, 0).ns, of(1, 0).best_ns), (Some(0), 90, 80));
        assert!(cells.iter().all(|c| c.slowdown() >= 1.0));
    }

    #[test]
    fn a_sum_counts_every_launch() {
        let a = matrix(&timings(&[[90, 60], [80, 70]]), 2);
        let b = matrix(&timings(&[[10, 10]]), 2);
        let cells = sum(&[(1, a), (3, b)]);
        assert_eq!((cells[1].ns, cells[1].best_ns, cells[1].variant), (100, 90, None));
        assert_eq!((cells[0].ns, cells[0].best_ns), (110, 110));
        assert!(sum(&[]).is_empty());
    }
}
