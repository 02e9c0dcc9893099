//! Metrics collected during a run, per tenant, from the times of single requests.
//!
//! Every request has a scheduled arrival `a`, a start `s` (its batch begins) and an end `e` (its
//! result is at the host). Latency is `e - a`, queueing `s - a`. The window opens after the warm-up;
//! a request that waits or runs when it opens counts as offered in it.

use cotenant_profiles::Nanos;
use hdrhistogram::Histogram;

mod tokens;

pub use tokens::TokenCounts;

/// The longest latency that is distinguished from longer ones, ns: 10 hours.
const LONGEST_NS: u64 = 36_000_000_000_000;

/// Latencies with three significant digits. The memory grows with the longest one, to at most about 100
/// KiB. The extremes are exact.
#[derive(Clone, Debug)]
pub struct Latencies {
    histogram: Histogram<u32>,
    least: u64,
    most: u64,
}

impl Default for Latencies {
    fn default() -> Self {
        // From one microsecond on. The upper bound starts at the lowest that the library allows, and grows.
        let h = Histogram::new_with_bounds(1_000, 2_000, 3);
        let mut histogram = h.expect("bounds that the library's documentation allows");
        histogram.auto(true);
        Self { histogram, least: u64::MAX, most: 0 }
    }
}

impl Latencies {
    /// Adds a latency.
    #[inline]
    pub fn record(&mut self, latency: Nanos) {
        self.histogram.record(latency.0.min(LONGEST_NS)).expect("it grows so far");
        self.least = self.least.min(latency.0);
        self.most = self.most.max(latency.0);
    }

    /// The number of latencies.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.histogram.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.histogram.is_empty()
    }

    /// The smallest latency that a share `q` (0 to 1) does not exceed, never beyond the extremes. `None` if
    /// there are no latencies.
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

    /// The recorded values in ascending order, with the count of each.
    pub fn recorded(&self) -> impl Iterator<Item = (Nanos, u64)> + '_ {
        let values = self.histogram.iter_recorded();
        values.map(|v| (Nanos(v.value_iterated_to()), u64::from(v.count_at_value())))
    }

    /// The exact minimum and maximum. `None` if there are no latencies.
    #[must_use]
    pub fn extremes(&self) -> Option<(Nanos, Nanos)> {
        (!self.is_empty()).then_some((Nanos(self.least), Nanos(self.most)))
    }

    /// Restores latencies from the results of [`Self::recorded`] and [`Self::extremes`].
    #[must_use]
    pub fn of(
        recorded: impl Iterator<Item = (Nanos, u64)>,
        extremes: Option<(Nanos, Nanos)>,
    ) -> Self {
        let mut all = Self::default();
        for (value, n) in recorded {
            let n = u32::try_from(n).unwrap_or(u32::MAX);
            all.histogram.record_n(value.0.min(LONGEST_NS), n).expect("it grows so far");
        }
        if let Some((least, most)) = extremes {
            (all.least, all.most) = (least.0, most.0);
        }
        all
    }

    /// Allocates memory up to the longest latency now, so that the dispatcher of a real GPU does not stall
    /// for it later.
    pub fn reserve(&mut self) {
        debug_assert!(self.is_empty(), "before the first");
        self.histogram.record(LONGEST_NS).expect("it grows so far");
        self.clear();
    }

    fn clear(&mut self) {
        self.histogram.reset();
        (self.least, self.most) = (u64::MAX, 0);
    }
}

/// The number of requests in the system over the course of the window: at the beginning of each quarter, as
/// seen by arrivals.
#[derive(Clone, Copy, Debug)]
pub struct Growth {
    seen: [u64; 4],
    quarters: usize,
    /// When the next quarter begins, and the length of a quarter, ns.
    next: u64,
    quarter: u64,
}

impl Default for Growth {
    /// Before the window opens.
    fn default() -> Self {
        Self { seen: [0; 4], quarters: 0, next: u64::MAX, quarter: 0 }
    }
}

impl Growth {
    fn open(in_system: u64, now: Nanos, window: Nanos) -> Self {
        let quarter = (window.0 / 4).max(1);
        Self { seen: [in_system, 0, 0, 0], quarters: 1, next: now.0 + quarter, quarter }
    }

    /// A request arrives and finds `in_system` requests.
    #[inline]
    fn see(&mut self, now: Nanos, in_system: u64) {
        while now.0 >= self.next {
            self.seen[self.quarters] = in_system;
            self.quarters += 1;
            self.next = if self.quarters < 4 { self.next + self.quarter } else { u64::MAX };
        }
    }

    /// Adds the numbers of another GPU. A quarter without arrivals on one of them repeats the quarter
    /// before.
    fn add(&mut self, other: &Self) {
        let at =
            |g: &Self, i: usize| g.quarters.checked_sub(1).map_or(0, |last| g.seen[i.min(last)]);
        self.seen = std::array::from_fn(|i| at(self, i) + at(other, i));
        self.quarters = self.quarters.max(other.quarters);
    }

    /// The numbers at the beginning of each quarter, and at the end, where `left` requests remain. Quarters
    /// with no later arrival take the number at the end.
    #[must_use]
    pub fn to(&self, left: u64) -> [u64; 5] {
        let at = |i: usize| if i < self.quarters { self.seen[i] } else { left };
        [at(0), at(1), at(2), at(3), left]
    }
}

/// One tenant's counts within the window.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    /// The number of requests in the system over the course of the window.
    pub growth: Growth,
    /// Requests in the system when the window opened, plus arrivals in it.
    pub offered: u64,
    /// Requests that ended in the window with a result.
    pub completed: u64,
    /// Requests given up in the window, by reason.
    pub dropped: Vec<(&'static str, u64)>,
    /// Requests completed within their deadline, or that had none.
    pub good: u64,
    /// Completed requests that had a deadline.
    pub with_deadline: u64,
    /// Latencies of the completed requests.
    pub latencies: Latencies,
    /// Sum of latencies, ns.
    pub latency_sum: u128,
    /// Sum of queueing times, ns.
    pub queue_sum: u128,
    /// Batches that ended.
    pub batches: u64,
    /// Items in those batches.
    pub batch_items: u64,
    /// Resizes and worker starts that took effect.
    pub reconfigurations: u64,
    /// Time that workers were down for a resize, summed over workers, ns.
    pub downtime_ns: u64,
}

impl Counts {
    /// Opens the window: discards all counts, except for the requests still in the system.
    pub(crate) fn open(&mut self, in_system: u64, now: Nanos, window: Nanos) {
        let mut latencies = std::mem::take(&mut self.latencies);
        latencies.clear();
        let growth = Growth::open(in_system, now, window);
        *self = Self { offered: in_system, latencies, growth, ..Self::default() };
    }

    /// A request arrives and finds `in_system` requests in the system.
    #[inline]
    pub(crate) fn arrive(&mut self, now: Nanos, in_system: u64) {
        self.offered += 1;
        self.growth.see(now, in_system);
    }

    /// A request has been answered. `in_time`: whether it met its deadline, if it has one.
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

    /// Adds the counts of `other`, to combine several GPUs.
    pub fn add(&mut self, other: &Self) {
        self.growth.add(&other.growth);
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

    /// Requests given up for any reason.
    #[must_use]
    pub fn dropped_total(&self) -> u64 {
        self.dropped.iter().map(|(_, n)| n).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growth_is_seen_at_quarters() {
        let mut growth = Growth::default();
        growth.see(Nanos(5), 9);
        assert_eq!(growth.to(3), [3; 5], "no window has opened");
        let mut growth = Growth::open(2, Nanos(100), Nanos(40));
        for (at, n) in [(109, 7), (112, 8), (119, 9), (133, 20), (139, 30)] {
            growth.see(Nanos(at), n);
        }
        assert_eq!(growth.to(31), [2, 8, 20, 20, 31]);
        let mut growth = Growth::open(2, Nanos(100), Nanos(40));
        growth.see(Nanos(111), 4);
        assert_eq!(growth.to(0), [2, 4, 0, 0, 0], "nobody came any more");
    }

    #[test]
    fn latencies_grow_to_hours_and_merge_whatever_their_size() {
        let ns = [1, 900, 2_500, 40_000_000, 3_600_000_000_000, LONGEST_NS, LONGEST_NS * 3];
        let (mut all, mut short, mut long) =
            (Latencies::default(), Latencies::default(), Latencies::default());
        for (i, &ns) in ns.iter().enumerate() {
            all.record(Nanos(ns));
            if i < 3 { &mut short } else { &mut long }.record(Nanos(ns));
        }
        let mut merged = short.clone();
        merged.merge(&long);
        long.merge(&short);
        let recorded = |l: &Latencies| l.recorded().collect::<Vec<_>>();
        assert_eq!(recorded(&merged), recorded(&all));
        assert_eq!(recorded(&long), recorded(&all));
        assert_eq!(recorded(&Latencies::of(all.recorded(), all.extremes())), recorded(&all));
        // Three digits, or half a microsecond, up to the longest distinguished latency.
        for (&ns, (kept, _)) in ns[2..6].iter().zip(&recorded(&all)[2..]) {
            assert!(kept.0.abs_diff(ns) <= ns / 1000 + 512, "{ns}: {kept}");
        }
        assert_eq!(all.extremes(), Some((Nanos(1), Nanos(LONGEST_NS * 3))));
    }

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
