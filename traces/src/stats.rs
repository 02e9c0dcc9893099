//! What a trace looks like: rate, variation of the gaps, dispersion of counts, peak to mean.
//!
//! * `rate` counts requests over the explicit duration, idle ends included, not up to the last one.
//! * `cv` is the coefficient of variation of the gaps between successive arrivals: standard
//!   deviation over mean. 1 for a Poisson process, 0 for a constant one.
//! * `idc` is the index of dispersion for counts: variance over mean of the requests per bin, over
//!   the bins that lie wholly within the duration. 1 for a Poisson process at every bin length.
//! * `peak_to_mean` is the fullest second over the mean second.
//!
//! Variances divide by n - 1. What needs more requests or bins than there are is `None`.

use std::collections::BTreeMap;
use std::sync::Arc;

use cotenant_profiles::Nanos;

use crate::error::TraceError;
use crate::row::{Counts, Source, Stream};

const SECOND: u64 = 1_000_000_000;
const MINUTE: u64 = 60 * SECOND;

/// Statistics of one tenant, or of the whole trace.
#[derive(Clone, Debug, PartialEq)]
pub struct Summary {
    /// Requests.
    pub requests: u64,
    /// Samples over all requests.
    pub items: u64,
    /// Length of the trace.
    pub duration: Nanos,
    /// Requests/s over the duration.
    pub rate: Option<f64>,
    /// Coefficient of variation of the gaps.
    pub cv: Option<f64>,
    /// Index of dispersion of the counts per second.
    pub idc_1s: Option<f64>,
    /// Index of dispersion of the counts per minute.
    pub idc_60s: Option<f64>,
    /// The fullest second over the mean second.
    pub peak_to_mean: Option<f64>,
    /// First arrival.
    pub first: Option<Nanos>,
    /// Last arrival.
    pub last: Option<Nanos>,
}

/// Statistics of a trace.
#[derive(Clone, Debug, PartialEq)]
pub struct Stats {
    /// All tenants together.
    pub total: Summary,
    /// Each tenant, by name.
    pub tenants: BTreeMap<String, Summary>,
    /// Requests per model.
    pub models: BTreeMap<String, u64>,
    /// What was read and dropped on the way, and what to know about it.
    pub counts: Counts,
}

/// Requests per bin, one bin at a time.
#[derive(Clone, Debug)]
struct Bins {
    width: u64,
    bin: u64,
    count: u64,
    /// Over the bins that are complete: the sum of counts and of their squares.
    sum: u128,
    squares: u128,
    peak: u64,
}

impl Bins {
    fn new(width: u64) -> Self {
        Self { width, bin: 0, count: 0, sum: 0, squares: 0, peak: 0 }
    }

    fn add(&mut self, at: u64) {
        let bin = at / self.width;
        if bin != self.bin {
            self.close();
            self.bin = bin;
        }
        self.count += 1;
        self.peak = self.peak.max(self.count);
    }

    fn close(&mut self) {
        self.sum += u128::from(self.count);
        self.squares += u128::from(self.count) * u128::from(self.count);
        self.count = 0;
    }

    /// Variance over mean of the counts in the bins that end by `duration`.
    fn dispersion(mut self, duration: u64) -> Option<f64> {
        let bins = duration / self.width;
        if self.bin < bins {
            self.close();
        }
        if bins < 2 || self.sum == 0 {
            return None;
        }
        let (n, sum, squares) = (bins as f64, self.sum as f64, self.squares as f64);
        let variance = (squares - sum * sum / n) / (n - 1.0);
        Some(variance * n / sum)
    }
}

/// Statistics in one pass.
#[derive(Clone, Debug)]
pub struct Collector {
    requests: u64,
    items: u64,
    first: u64,
    last: u64,
    /// Welford's running mean and sum of squares of the gaps.
    gap_mean: f64,
    gap_squares: f64,
    seconds: Bins,
    minutes: Bins,
}

impl Default for Collector {
    fn default() -> Self {
        Self {
            requests: 0,
            items: 0,
            first: 0,
            last: 0,
            gap_mean: 0.0,
            gap_squares: 0.0,
            seconds: Bins::new(SECOND),
            minutes: Bins::new(MINUTE),
        }
    }
}

impl Collector {
    /// One more request, not earlier than the one before.
    pub fn add(&mut self, arrival: Nanos, items: u32) {
        if self.requests == 0 {
            self.first = arrival.0;
        } else {
            let gap = arrival.0.saturating_sub(self.last) as f64;
            let delta = gap - self.gap_mean;
            self.gap_mean += delta / self.requests as f64;
            self.gap_squares += delta * (gap - self.gap_mean);
        }
        self.requests += 1;
        self.items += u64::from(items);
        self.last = arrival.0;
        self.seconds.add(arrival.0);
        self.minutes.add(arrival.0);
    }

    /// The statistics over a trace of that duration.
    #[must_use]
    pub fn finish(self, duration: Nanos) -> Summary {
        let some = self.requests > 0;
        let rate = (duration.0 > 0).then(|| self.requests as f64 / duration.as_secs_f64());
        let gaps = self.requests.saturating_sub(1) as f64;
        let has_cv = self.requests > 2 && self.gap_mean > 0.0;
        let peak = self.seconds.peak as f64;
        Summary {
            requests: self.requests,
            items: self.items,
            duration,
            rate,
            cv: has_cv.then(|| libm::sqrt(self.gap_squares / (gaps - 1.0)) / self.gap_mean),
            idc_1s: self.seconds.dispersion(duration.0),
            idc_60s: self.minutes.dispersion(duration.0),
            peak_to_mean: rate.filter(|&r| r > 0.0).map(|rate| peak / rate),
            first: some.then_some(Nanos(self.first)),
            last: some.then_some(Nanos(self.last)),
        }
    }
}

/// Reads a stream to its end.
///
/// # Errors
/// What is wrong with the trace.
pub fn of(stream: &mut Stream) -> Result<Stats, TraceError> {
    let mut total = Collector::default();
    let mut tenants: BTreeMap<Arc<str>, Collector> = BTreeMap::new();
    let mut models: BTreeMap<Arc<str>, u64> = BTreeMap::new();
    while let Some(row) = stream.rows.next_row()? {
        total.add(row.arrival, row.items);
        match tenants.get_mut(&row.tenant) {
            Some(tenant) => tenant.add(row.arrival, row.items),
            None => tenants.entry(row.tenant).or_default().add(row.arrival, row.items),
        }
        *models.entry(row.model).or_default() += 1;
    }
    let duration = duration_of(stream.rows.as_ref(), total.last);
    let tenants = tenants.into_iter().map(|(name, t)| (name.to_string(), t.finish(duration)));
    Ok(Stats {
        total: total.finish(duration),
        tenants: tenants.collect(),
        models: models.into_iter().map(|(name, n)| (name.to_string(), n)).collect(),
        counts: stream.tally.counts(),
    })
}

fn duration_of(rows: &dyn Source, last: u64) -> Nanos {
    rows.duration().unwrap_or(Nanos(last.saturating_add(1)))
}
