//! Latencies of a window, and how they compare with the SLO.

use cotenant_profiles::Nanos;

use crate::words;

/// Which number stands for a window of latencies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::policy) enum Statistic {
    Mean,
    /// The 95th percentile, interpolated between neighbours.
    P95,
}

words!(Statistic { "mean" => Statistic::Mean, "p95" => Statistic::P95 });

impl Statistic {
    /// The statistic of these times, ms.
    pub(in crate::policy) fn of_times(self, times: impl Iterator<Item = Nanos>) -> Option<f64> {
        let ms: Vec<f64> = times.map(Nanos::as_millis_f64).collect();
        self.of(&ms)
    }

    /// The statistic of these latencies; `None` if there are none.
    pub(in crate::policy) fn of(self, latencies: &[f64]) -> Option<f64> {
        if latencies.is_empty() {
            return None;
        }
        Some(match self {
            Self::Mean => latencies.iter().sum::<f64>() / latencies.len() as f64,
            Self::P95 => {
                let mut sorted = latencies.to_vec();
                sorted.sort_unstable_by(f64::total_cmp);
                let rank = 0.95 * (sorted.len() - 1) as f64;
                let low = rank as usize;
                let high = (low + 1).min(sorted.len() - 1);
                sorted[low] + (sorted[high] - sorted[low]) * (rank - low as f64)
            }
        })
    }
}

/// How a latency compares with the SLO.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::policy) enum Band {
    /// Below the dead band: there is room.
    Under,
    /// Between the dead band's lower edge and the SLO, both included.
    Inside,
    /// Above the SLO.
    Over,
}

impl Band {
    /// The position of `latency`; the dead band begins at `edge × slo`.
    pub(in crate::policy) fn of(latency: f64, slo: f64, edge: f64) -> Self {
        if latency > slo {
            Self::Over
        } else if latency < edge * slo {
            Self::Under
        } else {
            Self::Inside
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_percentile_interpolates() {
        // Rank 0.95 × 19 = 18.05 of 1 to 20: 19 + 0.05 × 1.
        let latencies: Vec<f64> = (1..=20).rev().map(f64::from).collect();
        assert!((Statistic::P95.of(&latencies).unwrap() - 19.05).abs() < 1e-12);
        assert_eq!(Statistic::Mean.of(&latencies), Some(10.5));
        assert_eq!(Statistic::P95.of(&[7.0]), Some(7.0));
        assert_eq!(Statistic::Mean.of(&[]), None);
    }

    #[test]
    fn both_edges_belong_to_the_band() {
        let of = |latency| Band::of(latency, 100.0, 0.85);
        assert_eq!([of(84.9), of(85.0), of(100.0)], [Band::Under, Band::Inside, Band::Inside]);
        assert_eq!(of(100.1), Band::Over);
    }
}
