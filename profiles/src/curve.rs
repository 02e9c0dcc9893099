//! A kernel's isolated duration against the compute units it may use.

use crate::drawn::Drawn;

/// One measured or computed point of a curve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Point {
    /// Compute units the kernel was restricted to.
    pub cus: u32,
    /// Median duration, ns.
    pub duration_ns: u64,
    /// 5th percentile, ns; equal to the median where only one number is known.
    pub p05_ns: u64,
    /// 95th percentile, ns.
    pub p95_ns: u64,
    /// Samples behind the point; 0 for a computed one.
    pub samples: u32,
}

impl Point {
    /// A point known by its duration alone.
    #[must_use]
    pub const fn exact(cus: u32, duration_ns: u64) -> Self {
        Self { cus, duration_ns, p05_ns: duration_ns, p95_ns: duration_ns, samples: 0 }
    }
}

/// A latency curve: points at ascending CU counts. Nothing says that it falls: a kernel may well be
/// slower on more CUs, and what was measured stays as it was measured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Curve {
    points: Vec<Point>,
    /// Ascending in CUs.
    drawn: Vec<Drawn>,
}

/// Why points do not make a curve.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CurveError {
    /// No point at all.
    #[error("a latency curve needs at least one point")]
    Empty,
    /// Zero CUs cannot run anything.
    #[error("a latency curve has no point at 0 CUs")]
    ZeroCus,
    /// A duration of zero.
    #[error("the duration at {0} CUs is 0 ns: a kernel takes at least 1 ns")]
    ZeroDuration(u32),
    /// The same CU count twice.
    #[error("two points at {0} CUs")]
    Duplicate(u32),
}

impl Curve {
    /// Sorts and checks the points.
    ///
    /// # Errors
    /// No point, a point at 0 CUs or 0 ns, or two points at the same CU count.
    pub fn new(mut points: Vec<Point>) -> Result<Self, CurveError> {
        points.sort_by_key(|p| p.cus);
        let first = points.first().ok_or(CurveError::Empty)?;
        if first.cus == 0 {
            return Err(CurveError::ZeroCus);
        }
        if let Some(p) = points.iter().find(|p| p.duration_ns == 0) {
            return Err(CurveError::ZeroDuration(p.cus));
        }
        if let Some(w) = points.windows(2).find(|w| w[0].cus == w[1].cus) {
            return Err(CurveError::Duplicate(w[0].cus));
        }
        Ok(Self { points, drawn: Vec::new() })
    }

    /// With what the kernel draws of memory system and power supply at some counts of CUs.
    #[must_use]
    pub fn with_drawn(mut self, mut drawn: Vec<Drawn>) -> Self {
        drawn.sort_by_key(|d| d.cus);
        self.drawn = drawn;
        self
    }

    /// The curve with every duration times `factor`, to the nearest ns and at least 1 ns. The same
    /// bytes in another time: shares of bandwidth change with it, up to all of it.
    ///
    /// # Panics
    /// A factor that is not above zero.
    #[must_use]
    pub fn scaled(&self, factor: f64) -> Self {
        assert!(factor > 0.0, "a curve cannot be scaled by {factor}");
        let ns = |d: u64| ((d as f64 * factor).round() as u64).max(1);
        let points = self.points.iter().map(|p| Point {
            duration_ns: ns(p.duration_ns),
            p05_ns: ns(p.p05_ns),
            p95_ns: ns(p.p95_ns),
            ..*p
        });
        let share = |x: Option<f64>| x.map(|x| (x / factor).min(1.0));
        let drawn =
            self.drawn.iter().map(|d| Drawn::new(d.cus, share(d.l2()), share(d.dram()), d.watts()));
        Self { points: points.collect(), drawn: drawn.collect() }
    }

    /// The kernel's draw at the CU counts where it is known; empty if it is not known anywhere.
    #[must_use]
    pub fn drawn(&self) -> &[Drawn] {
        &self.drawn
    }

    /// The kernel's draw on `cus` CUs: linear in the CUs between two known counts, and that of the
    /// nearest count beyond them. `None` if nothing is known.
    #[must_use]
    pub fn drawn_at(&self, cus: u32) -> Option<Drawn> {
        let right = self.drawn.partition_point(|d| d.cus < cus);
        match (right.checked_sub(1).and_then(|i| self.drawn.get(i)), self.drawn.get(right)) {
            (Some(a), Some(b)) => Some(Drawn::between(a, b, cus)),
            (Some(d), None) | (None, Some(d)) => Some(Drawn { cus, ..*d }),
            (None, None) => None,
        }
    }

    /// The points, ascending in CUs.
    #[must_use]
    pub fn points(&self) -> &[Point] {
        &self.points
    }

    /// The most compute units that a point was taken at: beyond it nothing is known.
    #[must_use]
    pub fn known_to(&self) -> u32 {
        self.points[self.points.len() - 1].cus
    }

    /// Duration in ns on `cus` compute units, of a kernel whose blocks are unknown: see
    /// [`Curve::of_blocks`].
    #[must_use]
    pub fn at(&self, cus: u32) -> u64 {
        self.of_blocks(cus, None)
    }

    /// The fewest CUs whose duration is at most `(1 + tolerance)` times that on all `cus`.
    #[must_use]
    pub fn min_cu(&self, cus: u32, tolerance: f64) -> u32 {
        let limit = self.at(cus) as f64 * (1.0 + tolerance);
        (1..=cus).find(|&c| self.at(c) as f64 <= limit).unwrap_or(cus)
    }

    /// Duration in ns on `cus` compute units of a kernel of `blocks` thread blocks; `None`: unknown.
    ///
    /// A measured point is returned as measured. Elsewhere blocks count: a kernel lasts as long as
    /// its busiest compute unit has blocks to run, `ceil(blocks / cus)` of them. Between two points
    /// the duration is linear in that number; below the first point it is proportional to it, so
    /// that a kernel with a block for each CU or fewer takes the same time on any larger number.
    /// Where the blocks are unknown, or the number of them on a CU is the same at both points, the
    /// duration is linear in `1/cus` (exact for perfectly parallel work plus a serial part), and the
    /// work is conserved (`duration × cus` constant) below the first point. Beyond the last point
    /// nothing is known and the last duration is returned: see [`Curve::known_to`].
    #[must_use]
    pub fn of_blocks(&self, cus: u32, blocks: Option<u64>) -> u64 {
        assert!(cus > 0, "a kernel cannot run on 0 CUs");
        let (first, last) = (self.points[0], self.points[self.points.len() - 1]);
        let load = |c: u32| blocks.map(|b| b.max(1).div_ceil(u64::from(c)));
        if cus <= first.cus {
            let (here, there) = match (load(cus), load(first.cus)) {
                (Some(here), Some(there)) => (here, there),
                _ => (u64::from(first.cus), u64::from(cus)),
            };
            let work = u128::from(first.duration_ns) * u128::from(here);
            return u64::try_from(work.div_ceil(u128::from(there))).unwrap_or(u64::MAX);
        }
        if cus >= last.cus {
            return last.duration_ns;
        }
        let right = self.points.partition_point(|p| p.cus < cus);
        let (a, b) = (self.points[right - 1], self.points[right]);
        if b.cus == cus {
            return b.duration_ns;
        }
        // In integers: same bits everywhere.
        let (da, db) = (i128::from(a.duration_ns), i128::from(b.duration_ns));
        let d = match (load(a.cus), load(cus), load(b.cus)) {
            (Some(la), Some(l), Some(lb)) if la != lb => {
                db + ((da - db) * i128::from(l - lb)).div_euclid(i128::from(la - lb))
            }
            _ => {
                // d(c) = da + (db - da) * (1/a - 1/c) / (1/a - 1/b)
                let (ca, cb, c) = (i128::from(a.cus), i128::from(b.cus), i128::from(cus));
                da + ((db - da) * (c - ca) * cb).div_euclid(c * (cb - ca))
            }
        };
        u64::try_from(d.max(1)).expect("between two u64 durations")
    }
}

/// The fewest CUs at which `total` (of one inference on so many CUs) stays within `(1 + tolerance)`
/// of its value on all `cus`: a model's right size, or knee.
#[must_use]
pub fn right_size(total: impl Fn(u32) -> u128, cus: u32, tolerance: f64) -> u32 {
    let limit = total(cus) as f64 * (1.0 + tolerance);
    (1..=cus).find(|&c| total(c) as f64 <= limit).unwrap_or(cus)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn curve(points: &[(u32, u64)]) -> Curve {
        Curve::new(points.iter().map(|&(c, d)| Point::exact(c, d)).collect()).unwrap()
    }

    #[test]
    fn measured_points_are_honoured_and_the_rest_is_linear_in_one_over_c() {
        let c = curve(&[(10, 1000), (20, 600), (40, 700)]);
        let at = |cus| c.at(cus);
        assert_eq!((at(10), at(20), at(40)), (1000, 600, 700));
        assert_eq!(at(15), 733); // 1000 - 400 * (5 * 20) / (15 * 10) = 733.3
        assert_eq!(at(5), 2000); // work conserved below the first point
        assert_eq!((at(80), c.known_to()), (700, 40));
    }

    #[test]
    fn what_is_drawn_lies_between_what_was_seen() {
        let c = curve(&[(10, 100), (30, 50)]);
        assert_eq!(c.drawn_at(10), None);
        let seen = |cus, l2, watts| Drawn::new(cus, l2, None, watts);
        let c = c.with_drawn(vec![seen(30, Some(0.6), Some(200.0)), seen(10, Some(0.2), None)]);
        let at = c.drawn_at(20).unwrap();
        assert_eq!((at.l2(), at.dram(), at.watts()), (Some(0.4), None, Some(200.0)));
        assert_eq!(c.drawn_at(5).unwrap().l2(), Some(0.2));
        assert_eq!(c.drawn_at(80).unwrap().l2(), Some(0.6));
    }

    #[test]
    fn min_cu_does_not_assume_a_falling_curve() {
        let c = curve(&[(1, 400), (2, 190), (3, 230), (4, 200)]);
        assert_eq!((c.min_cu(4, 0.05), c.min_cu(4, 0.0)), (2, 2));
        assert_eq!(curve(&[(1, 500), (4, 125)]).min_cu(4, 0.0), 4);
    }

    #[test]
    fn a_models_right_size_weighs_its_kernels_by_time() {
        let (flat, scaling) = (curve(&[(1, 10), (60, 10)]), curve(&[(1, 6000), (60, 100)]));
        let total = |c: u32| u128::from(flat.at(c) + scaling.at(c));
        assert_eq!(right_size(|c| u128::from(flat.at(c)), 60, 0.05), 1);
        assert_eq!(right_size(total, 60, 0.0), 60);
    }

    #[test]
    fn where_blocks_are_known_the_busiest_cu_decides() {
        // Eight blocks, measured on 66 and 132 CUs: a block for each CU from eight on.
        let c = curve(&[(66, 1000), (132, 1000)]);
        let at = |cus| c.of_blocks(cus, Some(8));
        assert_eq!([132, 100, 66, 8].map(at), [1000; 4]);
        assert_eq!([7, 4, 3, 1].map(at), [2000, 2000, 3000, 8000]);
        // One block is as fast anywhere.
        assert_eq!(curve(&[(2, 1000), (132, 1000)]).of_blocks(1, Some(1)), 1000);
        // 60 blocks between 20 CUs (three each) and 60 (one each): two each from 30 on.
        let c = curve(&[(20, 3100), (60, 1100)]);
        assert_eq!([25, 29, 30, 59].map(|n| c.of_blocks(n, Some(60))), [3100, 3100, 2100, 2100]);
    }

    #[test]
    fn impossible_points_are_refused() {
        assert_eq!(Curve::new(vec![]), Err(CurveError::Empty));
        assert_eq!(Curve::new(vec![Point::exact(0, 1)]), Err(CurveError::ZeroCus));
        assert_eq!(Curve::new(vec![Point::exact(3, 0)]), Err(CurveError::ZeroDuration(3)));
        let twice = vec![Point::exact(3, 1), Point::exact(3, 2)];
        assert_eq!(Curve::new(twice), Err(CurveError::Duplicate(3)));
    }

    proptest! {
        #[test]
        fn between_two_points_lies_between_their_durations(
            a in 1u32..100, gap in 2u32..100, da in 1u64..1 << 40, db in 1u64..1 << 40,
            blocks in 1u64..1000,
        ) {
            let c = curve(&[(a, da), (a + gap, db)]);
            for cus in a..=a + gap {
                prop_assert!((da.min(db)..=da.max(db)).contains(&c.at(cus)));
                prop_assert!((da.min(db)..=da.max(db)).contains(&c.of_blocks(cus, Some(blocks))));
            }
        }
    }
}
