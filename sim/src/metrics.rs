//! What is counted while a run goes on: per tenant, from instants of single requests.
//!
//! Every request has a scheduled arrival `a`, a start `s` (its batch begins) and an end `e` (its
//! result is at the host). Latency is `e - a`, queueing `s - a`. The window opens after the warm-up;
//! a request that waits or runs when it opens counts as offered in it.

use cotenant_profiles::Nanos;
use hdrhistogram::Histogram;

mod tokens;

pub use tokens::TokenCounts;

/// Longest latency that is told apart from longer ones, ns: 10 hours.
const LONGEST_NS: u64 = 36_000_000_000_000;

/// Latencies with three significant digits, in constant memory; the extremes are exact.
#[derive(Clone, Debug)]
pub struct Latencies {
    histogram: Histogram<u32>,
    least: u64,
    most: u64,
}

impl Default for Latencies {
    fn default() -> Self {
        let h = Histogram::new_with_bounds(1_000, LONGEST_NS, 3);
        let histogram = h.expect("bounds that the library's documentation allows");
        Self { histogram, least: u64::MAX, most: 0 }
    }
}

impl Latencies {
    /// Adds one.
    #[inline]
    pub fn record(&mut self, latency: Nanos) {
        self.histogram.saturating_record(latency.0);
        self.least = self.least.min(latency.0);
        self.most = self.most.max(latency.0);
    }

    /// How many.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.histogram.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.histogram.is_empty()
    }

    /// The smallest latency that a share `q` (0 to 1) does not exceed, never beyond the extremes;
    /// `None` of nothing.
    #[must_use]
    pub fn quantile(&self, q: f64) -> Option<Nanos> {
        let within = |ns: u64| Nanos(ns.clamp(self.least, self.most));
        (!self.is_empty()).then(|| within(self.histogram.value_at_quantile(q)))
    }

    /// Adds everything that `other` holds: the latencies of several tenants together.
    pub fn merge(&mut self, other: &Self) {
        self.histogram.add(&other.histogram).expect("all have the same bounds and precision");
        self.least = self.least.min(other.least);
        self.most = self.most.max(other.most);
    }

    fn clear(&mut self) {
        self.histogram.reset();
        (self.least, self.most) = (u64::MAX, 0);
    }
}

/// One tenant's counts within the window.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    /// In the system when the window opened, plus arrivals in it.
    pub offered: u64,
    /// Ended in the window with a result.
    pub completed: u64,
    /// Given up in the window, by reason.
    pub dropped: Vec<(&'static str, u64)>,
    /// Completed within their deadline (or without one).
    pub good: u64,
    /// Completed that had a deadline.
    pub with_deadline: u64,
    /// Latencies of the completed.
    pub latencies: Latencies,
    /// Sum of latencies, ns.
    pub latency_sum: u128,
    /// Sum of queueing times, ns.
    pub queue_sum: u128,
    /// Batches ended.
    pub batches: u64,
    /// Items in them.
    pub batch_items: u64,
    /// Resizes and worker starts that took effect.
    pub reconfigurations: u64,
    /// Time that workers stood still for a resize, summed over workers, ns.
    pub downtime_ns: u64,
}

impl Counts {
    /// The window opens: everything so far is forgotten but what is still in the system.
    pub(crate) fn open(&mut self, in_system: u64) {
        let mut latencies = std::mem::take(&mut self.latencies);
        latencies.clear();
        *self = Self { offered: in_system, latencies, ..Self::default() };
    }

    /// A request has been answered. `in_time`: whether by its deadline, if it has one.
    #[inline]
    pub(crate) fn complete(&mut self, latency: Nanos, queued: Nanos, in_time: Option<bool>) {
        self.completed += 1;
        self.good += u64::from(in_time.unwrap_or(true));
        self.with_deadline += u64::from(in_time.is_some());
        self.latencies.record(latency);
        self.latency_sum += u128::from(latency.0);
        self.queue_sum += u128::from(queued.0);
    }

    pub(crate) fn drop_one(&mut self, reason: &'static str) {
        match self.dropped.iter_mut().find(|(r, _)| *r == reason) {
            Some((_, n)) => *n += 1,
            None => self.dropped.push((reason, 1)),
        }
    }

    /// Adds what `other` counted: several GPUs together.
    pub fn add(&mut self, other: &Self) {
        self.offered += other.offered;
        self.completed += other.completed;
        for &(reason, n) in &other.dropped {
            match self.dropped.iter_mut().find(|(r, _)| *r == reason) {
                Some((_, sum)) => *sum += n,
                None => self.dropped.push((reason, n)),
            }
        }
        self.good += other.good;
        self.with_deadline += other.with_deadline;
        self.latencies.merge(&other.latencies);
        self.latency_sum += other.latency_sum;
        self.queue_sum += other.queue_sum;
        self.batches += other.batches;
        self.batch_items += other.batch_items;
        self.reconfigurations += other.reconfigurations;
        self.downtime_ns += other.downtime_ns;
    }

    /// Given up for whatever reason.
    #[must_use]
    pub fn dropped_total(&self) -> u64 {
        self.dropped.iter().map(|(_, n)| n).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_stay_within_the_extremes() {
        let mut all = Latencies::default();
        assert_eq!(all.quantile(0.5), None);
        [1_234_567, 7_654_321].into_iter().for_each(|ns| all.record(Nanos(ns)));
        assert_eq!(
            [0.0, 1.0].map(|q| all.quantile(q)),
            [Some(Nanos(1_234_567)), Some(Nanos(7_654_321))]
        );
        let mut more = Latencies::default();
        more.record(Nanos(9_999_999));
        more.merge(&all);
        assert_eq!(more.quantile(1.0), Some(Nanos(9_999_999)));
    }
}
