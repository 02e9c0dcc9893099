//! Means over repeats and their confidence intervals.

use std::fmt;

use crate::format::{fixed, pretty};

/// A mean with its 95 % confidence interval.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate {
    /// Mean over the repeats.
    pub mean: f64,
    /// Half the width of the 95 % confidence interval; `None` for a single repeat.
    pub half: Option<f64>,
    /// Possible values of the quantity: Student's interval is unbounded, a share is not.
    pub range: (f64, f64),
}

impl Estimate {
    /// A value without an interval.
    #[must_use]
    pub fn exact(mean: f64) -> Self {
        Self { mean, half: None, range: (f64::NEG_INFINITY, f64::INFINITY) }
    }

    /// The mean of `values` with Student's interval; `None` if there is no value.
    #[must_use]
    pub fn of(values: &[f64]) -> Option<Self> {
        if values.is_empty() {
            return None;
        }
        let n = values.len() as f64;
        let mean = values.iter().sum::<f64>() / n;
        if values.len() == 1 {
            return Some(Self::exact(mean));
        }
        let squares = values.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>();
        let error = (squares / (n - 1.0) / n).sqrt();
        Some(Self { half: Some(student_975(values.len() - 1) * error), ..Self::exact(mean) })
    }

    /// Lower end of the interval.
    #[must_use]
    pub fn low(&self) -> f64 {
        (self.mean - self.half.unwrap_or(0.0)).max(self.range.0)
    }

    /// Upper end of the interval.
    #[must_use]
    pub fn high(&self) -> f64 {
        (self.mean + self.half.unwrap_or(0.0)).min(self.range.1)
    }

    /// The estimate in another unit.
    #[must_use]
    pub fn scaled(&self, by: f64) -> Self {
        let range = (self.range.0 * by, self.range.1 * by);
        Self { mean: self.mean * by, half: self.half.map(|h| h * by), range }
    }

    /// The estimate of a quantity between `low` and `high`.
    #[must_use]
    pub fn within(self, low: f64, high: f64) -> Self {
        Self { range: (low, high), ..self }
    }
}

/// `156.21 ± 0.27`: two digits of the interval, and the mean to the same place, but at most five digits of
/// it: a smaller interval is not shown.
impl fmt::Display for Estimate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let magnitude = |x: f64| x.abs().log10().floor();
        match self.half {
            Some(h) if h > 0.0 => {
                let most = (4.0 - magnitude(self.mean).max(0.0)).clamp(0.0, 4.0);
                let decimals = (1.0 - magnitude(h)).clamp(0.0, most) as usize;
                if h < 0.5 * 10f64.powi(-(decimals as i32)) {
                    return write!(f, "{} ± 0", fixed(self.mean, decimals.min(2)));
                }
                write!(f, "{} ± {}", fixed(self.mean, decimals), fixed(h, decimals))
            }
            Some(_) => write!(f, "{} ± 0", pretty(self.mean)),
            None => f.write_str(&pretty(self.mean)),
        }
    }
}

/// 97.5 % quantiles of Student's t for 1 to 30 degrees of freedom (any statistics textbook).
const STUDENT_975: [f64; 30] = [
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160,
    2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056,
    2.052, 2.048, 2.045, 2.042,
];

/// 97.5 % quantile of Student's t; above 30 degrees of freedom from its expansion around the normal quantile
/// (Abramowitz and Stegun 26.7.5), whose error is below 0.0001.
#[must_use]
pub fn student_975(freedom: usize) -> f64 {
    match STUDENT_975.get(freedom.saturating_sub(1)) {
        Some(t) => *t,
        None => {
            let (z, n) = (1.959_964_f64, freedom as f64);
            let first = (z.powi(3) + z) / 4.0;
            let second = (5.0 * z.powi(5) + 16.0 * z.powi(3) + 3.0 * z) / 96.0;
            z + first / n + second / (n * n)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_has_no_interval_beyond_its_bounds() {
        let e = Estimate::of(&[0.9, 1.0, 1.0]).unwrap().within(0.0, 1.0).scaled(100.0);
        assert_eq!(e.high(), 100.0);
        assert!(e.low() > 0.0 && e.low() < 90.0);
    }

    #[test]
    fn the_interval_is_students() {
        // 1..=5: mean 3, s² = 2.5, standard error √0.5, t(4) = 2.776.
        let e = Estimate::of(&[1.0, 2.0, 3.0, 4.0, 5.0]).unwrap();
        assert!((e.mean - 3.0).abs() < 1e-12);
        assert!((e.half.unwrap() - 2.776 * 0.5_f64.sqrt()).abs() < 1e-12);
        assert_eq!(Estimate::of(&[7.0]), Some(Estimate::exact(7.0)));
        assert_eq!(Estimate::of(&[]), None);
    }

    #[test]
    fn table_and_expansion_meet() {
        for (freedom, t) in [(30, 2.0423), (31, 2.0395), (40, 2.0211), (120, 1.9799)] {
            assert!((student_975(freedom) - t).abs() < 5e-4, "{freedom}");
        }
    }
}
