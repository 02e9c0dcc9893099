//! A kernel's isolated duration against the compute units it may use.

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
}

/// Why points are no curve.
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
        Ok(Self { points })
    }

    /// The points, ascending in CUs.
    #[must_use]
    pub fn points(&self) -> &[Point] {
        &self.points
    }

    /// Duration in ns on `cus` compute units.
    ///
    /// A measured point is returned as measured. Between two points the duration is linear in
    /// `1/cus` (exact for perfectly parallel work plus a serial part). Below the first point the
    /// work is taken to be conserved (`duration × cus` constant); above the last one it is flat.
    #[must_use]
    pub fn at(&self, cus: u32) -> u64 {
        assert!(cus > 0, "a kernel cannot run on 0 CUs");
        let (first, last) = (self.points[0], self.points[self.points.len() - 1]);
        if cus <= first.cus {
            let work = u128::from(first.duration_ns) * u128::from(first.cus);
            return u64::try_from(work.div_ceil(u128::from(cus))).unwrap_or(u64::MAX);
        }
        if cus >= last.cus {
            return last.duration_ns;
        }
        let right = self.points.partition_point(|p| p.cus < cus);
        let (a, b) = (self.points[right - 1], self.points[right]);
        if b.cus == cus {
            return b.duration_ns;
        }
        // d(c) = da + (db - da) * (1/a - 1/c) / (1/a - 1/b), in integers: same bits everywhere.
        let (ca, cb, c) = (i128::from(a.cus), i128::from(b.cus), i128::from(cus));
        let (da, db) = (i128::from(a.duration_ns), i128::from(b.duration_ns));
        let d = da + ((db - da) * (c - ca) * cb).div_euclid(c * (cb - ca));
        u64::try_from(d.max(1)).expect("between two u64 durations")
    }

    /// Durations for every count: entry `c` is the duration on `c` CUs, entry 0 is `u64::MAX`.
    #[must_use]
    pub fn dense(&self, cus: u32) -> Vec<u64> {
        std::iter::once(u64::MAX).chain((1..=cus).map(|c| self.at(c))).collect()
    }

    /// The fewest CUs whose duration is at most `(1 + tolerance)` times that on all `cus`.
    #[must_use]
    pub fn min_cu(&self, cus: u32, tolerance: f64) -> u32 {
        let limit = self.at(cus) as f64 * (1.0 + tolerance);
        (1..=cus).find(|&c| self.at(c) as f64 <= limit).unwrap_or(cus)
    }
}

/// The fewest CUs at which the sum of `curves` (one inference, kernel by kernel) stays within
/// `(1 + tolerance)` of its value on all `cus`: a model's right size, or knee.
#[must_use]
pub fn right_size<'a>(
    curves: impl Iterator<Item = &'a Curve> + Clone,
    cus: u32,
    tolerance: f64,
) -> u32 {
    let total = |c: u32| curves.clone().map(|k| u128::from(k.at(c))).sum::<u128>();
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
        assert_eq!((c.at(10), c.at(20), c.at(40)), (1000, 600, 700));
        assert_eq!(c.at(15), 733); // 1000 - 400 * (5 * 20) / (15 * 10) = 733.3
        assert_eq!(c.at(5), 2000); // work conserved below the first point
        assert_eq!(c.at(80), 700);
    }

    #[test]
    fn min_cu_does_not_assume_a_falling_curve() {
        let c = curve(&[(1, 400), (2, 190), (3, 230), (4, 200)]);
        assert_eq!(c.min_cu(4, 0.05), 2);
        assert_eq!(c.min_cu(4, 0.0), 2);
        assert_eq!(curve(&[(1, 500), (4, 125)]).min_cu(4, 0.0), 4);
    }

    #[test]
    fn a_models_right_size_weighs_its_kernels_by_time() {
        let (flat, scaling) = (curve(&[(1, 10), (60, 10)]), curve(&[(1, 6000), (60, 100)]));
        assert_eq!(right_size([&flat].into_iter(), 60, 0.05), 1);
        assert_eq!(right_size([&flat, &scaling].into_iter(), 60, 0.0), 60);
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
        ) {
            let c = curve(&[(a, da), (a + gap, db)]);
            for cus in a..=a + gap {
                prop_assert!((da.min(db)..=da.max(db)).contains(&c.at(cus)));
            }
        }
    }
}
