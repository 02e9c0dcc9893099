//! Statistics of repeated measurements.

/// The least of the ascending samples that `percent` of them do not exceed (nearest rank).
///
/// ```
/// use cotenant_profiles::stats::quantile;
/// assert_eq!(quantile(&[10, 20, 30, 40], 50), Some(20));
/// assert_eq!(quantile(&[10, 20, 30, 40], 95), Some(40));
/// assert_eq!(quantile::<u64>(&[], 50), None);
/// ```
#[must_use]
pub fn quantile<T: Copy>(ascending: &[T], percent: usize) -> Option<T> {
    let rank = (ascending.len() * percent).div_ceil(100);
    ascending.get(rank.max(1).min(ascending.len().max(1)) - 1).copied()
}
