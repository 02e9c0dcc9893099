//! The load scenarios of MLPerf LoadGen and its rule for a valid run.
//!
//! Scenarios, defaults and limits: mlcommons/inference, `mlperf.conf` and `loadgen/`; the rules:
//! mlcommons/inference_policies. LoadGen draws its schedule with C++'s `std::mt19937` and
//! `std::exponential_distribution`, which no two standard libraries do alike: what comes out here
//! is the same process, not the same schedule, and nothing here is an MLPerf result.

use cotenant_profiles::Nanos;
use serde::Serialize;

use crate::closed::Closed;
use crate::error::TraceError;
use crate::request::check_items;
use crate::spec_fields::Fields;

/// Confidence of the early-stopping rule.
pub const CONFIDENCE: f64 = 0.99;

/// How LoadGen issues queries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Scenario {
    /// The next query follows the completion of the last.
    SingleStream,
    /// The same with several samples per query.
    MultiStream,
    /// Poisson arrivals, any number outstanding.
    Server,
    /// Everything at once.
    Offline,
}

const SCENARIOS: [Scenario; 4] =
    [Scenario::SingleStream, Scenario::MultiStream, Scenario::Server, Scenario::Offline];

impl Scenario {
    /// The name in an experiment file.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::SingleStream => "singlestream",
            Self::MultiStream => "multistream",
            Self::Server => "server",
            Self::Offline => "offline",
        }
    }

    /// The latency percentile that counts: 90 for SingleStream, else 99.
    #[must_use]
    pub fn percentile(self) -> f64 {
        if self == Self::SingleStream { 0.90 } else { 0.99 }
    }

    fn default_samples(self) -> u32 {
        match self {
            Self::SingleStream | Self::Server => 1,
            Self::MultiStream => 8,
            Self::Offline => 24_576,
        }
    }

    fn default_min_queries(self) -> u64 {
        match self {
            Self::SingleStream | Self::Server => 100,
            Self::MultiStream => 662,
            Self::Offline => 1,
        }
    }
}

/// One scenario with its parameters.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Settings {
    /// The scenario.
    pub scenario: Scenario,
    /// Queries/s of the Server scenario.
    pub target_qps: Option<f64>,
    /// Samples per query; for Offline the samples in all, each a request of its own at time 0 so
    /// that the batcher of the system under test may group them.
    pub samples: u32,
    /// A valid run lasts at least this long.
    pub min_duration: Nanos,
    /// A valid run has at least this many queries.
    pub min_queries: u64,
}

impl Settings {
    /// The scenario with LoadGen's defaults.
    #[must_use]
    pub fn new(scenario: Scenario, target_qps: Option<f64>) -> Self {
        Self {
            scenario,
            target_qps,
            samples: scenario.default_samples(),
            min_duration: Nanos::from_secs(600),
            min_queries: scenario.default_min_queries(),
        }
    }

    pub(crate) fn parse(fields: &mut Fields) -> Result<Self, TraceError> {
        let names = SCENARIOS.map(Scenario::name);
        let name = fields.choice("scenario", &names)?.ok_or_else(|| {
            TraceError::spec("scenario", format!("is missing; known: {}", names.join(", ")))
        })?;
        let scenario = SCENARIOS.into_iter().find(|s| s.name() == name);
        let mut settings = Self::new(scenario.expect("a choice among these names"), None);
        settings.target_qps = fields.number("target_qps")?;
        settings.samples = fields.count("samples")?.unwrap_or(settings.samples);
        settings.min_duration = fields.duration("min_duration")?.unwrap_or(settings.min_duration);
        settings.min_queries = fields.whole("min_queries")?.unwrap_or(settings.min_queries);
        Ok(settings)
    }

    pub(crate) fn validate(&self) -> Result<(), TraceError> {
        let spec = |field: &str, problem: &str| Err(TraceError::spec(field, problem));
        match (self.scenario, self.target_qps) {
            (Scenario::Server, None) => spec("target_qps", "is missing: `server` needs it"),
            (Scenario::Server, Some(rate)) if !(1e-9..=1e9).contains(&rate) => {
                spec("target_qps", "is not from 1e-9 to 1e9 queries/s")
            }
            (Scenario::Server, Some(_)) if self.samples != 1 => {
                spec("samples", "is 1 in the scenario `server`")
            }
            (Scenario::Server, _) => Ok(()),
            (Scenario::Offline, None) if self.samples > 0 => Ok(()),
            (Scenario::Offline, None) => spec("samples", "is not at least 1"),
            (_, None) => check_items("samples", self.samples),
            (_, Some(_)) => spec("target_qps", "belongs only to the scenario `server`"),
        }
    }

    /// The closed loop of SingleStream and MultiStream.
    #[must_use]
    pub fn closed(&self) -> Option<Closed> {
        match self.scenario {
            Scenario::SingleStream | Scenario::MultiStream => {
                Some(Closed { items: self.samples, ..Closed::default() })
            }
            Scenario::Server | Scenario::Offline => None,
        }
    }
}

/// Fewest queries that prove, at confidence 0.99 and tolerance 0, that `percentile` (such as 0.99)
/// of latencies meet a limit when `over` of them missed it: the smallest n with
/// P[Binomial(n, 1 - percentile) ≤ over] ≤ 0.01. `None` for a percentile outside 0.5 to 0.9999.
///
/// LoadGen assumes independent samples; latencies behind a queue are not, so that this is a
/// necessary condition, not a sufficient one.
#[must_use]
pub fn min_queries(percentile: f64, over: u64) -> Option<u64> {
    if !(0.5..=0.9999).contains(&percentile) || over > 1 << 20 {
        return None;
    }
    let miss = 1.0 - percentile;
    let proves = |n: u64| binomial_cdf(n, miss, over) <= 1.0 - CONFIDENCE;
    let (mut low, mut high) = (over, over.max(1) * 2);
    while !proves(high) {
        (low, high) = (high, high * 2);
    }
    // The probability falls with n.
    while low + 1 < high {
        let middle = low + (high - low) / 2;
        if proves(middle) { high = middle } else { low = middle }
    }
    Some(high)
}

/// P[Binomial(n, p) ≤ t], summed from the largest term down in units of that term.
fn binomial_cdf(n: u64, p: f64, t: u64) -> f64 {
    if t >= n {
        return 1.0;
    }
    let (nf, odds) = (n as f64, p / (1.0 - p));
    let mode = ((nf + 1.0) * p) as u64;
    let top = t.min(mode);
    let k = top as f64;
    let log_top = libm::lgamma(nf + 1.0) - libm::lgamma(k + 1.0) - libm::lgamma(nf - k + 1.0)
        + k * libm::log(p)
        + (nf - k) * libm::log1p(-p);
    let (mut sum, mut term) = (1.0, 1.0);
    for i in (0..top).rev() {
        // term(i) = term(i + 1) × (i + 1) / (n - i) / odds
        term *= (i as f64 + 1.0) / (nf - i as f64) / odds;
        sum += term;
        if term < sum * 1e-18 {
            break;
        }
    }
    term = 1.0;
    for i in top..t {
        term *= (nf - i as f64) / (i as f64 + 1.0) * odds;
        sum += term;
    }
    (libm::exp(log_top) * sum).min(1.0)
}

/// One of LoadGen's four conditions that a run misses.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "reason", rename_all = "kebab-case")]
pub enum Invalid {
    /// The run was too short.
    MinDuration {
        /// How long it was.
        ran: Nanos,
        /// How long it has to be.
        needed: Nanos,
    },
    /// Too few queries.
    MinQueries {
        /// Queries that were issued.
        issued: u64,
        /// Queries that are needed.
        needed: u64,
    },
    /// Server: the latency at the percentile is over the limit.
    Latency {
        /// The latency at the percentile.
        found: Nanos,
        /// The limit.
        limit: Nanos,
    },
    /// Too few queries for the misses among them.
    EarlyStopping {
        /// Queries that were issued.
        issued: u64,
        /// Queries over the limit.
        over: u64,
        /// Queries that so many misses need.
        needed: u64,
    },
}

/// Whether a run is valid by LoadGen's rules, and why not. No MLPerf result.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Verdict {
    /// Every condition that is missed; empty: valid.
    pub invalid: Vec<Invalid>,
    /// Single- and MultiStream: the early-stopping estimate of the latency at the percentile.
    pub estimate: Option<Nanos>,
}

impl Verdict {
    /// No condition is missed.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        self.invalid.is_empty()
    }
}

/// Judges a run by its query latencies, counted from the scheduled time.
///
/// `ran` is the last scheduled time (Server), the last issue time (Single- and MultiStream) or the
/// largest latency (Offline). `limit` is the Server scenario's latency limit and ignored otherwise.
#[must_use]
pub fn judge(
    settings: &Settings,
    latencies: &mut [Nanos],
    ran: Nanos,
    limit: Option<Nanos>,
) -> Verdict {
    latencies.sort_unstable();
    let issued = latencies.len() as u64;
    let percentile = settings.scenario.percentile();
    let (mut invalid, mut estimate) = (Vec::new(), None);
    if ran < settings.min_duration {
        invalid.push(Invalid::MinDuration { ran, needed: settings.min_duration });
    }
    if issued < settings.min_queries {
        invalid.push(Invalid::MinQueries { issued, needed: settings.min_queries });
    }
    match (settings.scenario, limit) {
        (Scenario::Server, Some(limit)) => {
            let at = ((issued as f64 * percentile) as usize).min(latencies.len().saturating_sub(1));
            if let Some(&found) = latencies.get(at).filter(|&&found| found > limit) {
                invalid.push(Invalid::Latency { found, limit });
            }
            let over = latencies.iter().filter(|&&latency| latency > limit).count() as u64;
            // No number of queries outweighs more misses than the table reaches.
            let needed = min_queries(percentile, over).unwrap_or(u64::MAX);
            if issued < needed {
                invalid.push(Invalid::EarlyStopping { issued, over, needed });
            }
        }
        (Scenario::SingleStream | Scenario::MultiStream, _) => {
            estimate = early_stopping_estimate(percentile, latencies);
            if estimate.is_none() {
                let needed = min_queries(percentile, 1).unwrap_or(u64::MAX);
                invalid.push(Invalid::EarlyStopping { issued, over: 1, needed });
            }
        }
        (Scenario::Server, None) | (Scenario::Offline, _) => {}
    }
    Verdict { invalid, estimate }
}

/// With t the largest number of misses that n queries allow, the t-th largest latency; `None` where
/// they do not even allow one.
fn early_stopping_estimate(percentile: f64, sorted: &[Nanos]) -> Option<Nanos> {
    let n = sorted.len() as u64;
    let allows = |t: u64| min_queries(percentile, t).is_some_and(|needed| n >= needed);
    if !allows(1) {
        return None;
    }
    let (mut low, mut high) = (1, n);
    while low + 1 < high {
        let middle = low + (high - low) / 2;
        if allows(middle) { low = middle } else { high = middle }
    }
    sorted.get(sorted.len() - usize::try_from(low).ok()?).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn early_stopping_needs_as_many_queries_as_published() {
        let misses = [0, 1, 2, 5, 10, 50, 100, 200];
        for (percentile, needed) in [
            (0.90, vec![44, 64, 81, 127, 197, 681, 1_246, 2_337]),
            (0.99, vec![459, 662, 838, 1_307, 2_010, 6_898, 12_571, 23_527]),
            (0.999, vec![4_603, 6_636, 8_403, 13_105, 20_140, 69_058, 125_826]),
        ] {
            for (over, want) in misses.into_iter().zip(needed) {
                assert_eq!(min_queries(percentile, over), Some(want), "{percentile} {over}");
            }
        }
        assert_eq!(min_queries(1.0, 0), None);
        assert_eq!(min_queries(0.2, 0), None);
    }

    #[test]
    fn a_server_run_fails_for_its_four_reasons() {
        let settings = Settings::new(Scenario::Server, Some(100.0));
        let (limit, long) = (Some(Nanos::from_millis(15)), Nanos::from_secs(600));
        let run = |n: usize, over: usize, ran| {
            let slow = |i: usize| Nanos::from_millis(if i < over { 20 } else { 5 });
            let mut latencies: Vec<Nanos> = (0..n).map(slow).collect();
            judge(&settings, &mut latencies, ran, limit).invalid
        };
        assert_eq!(run(60_000, 0, long), []);
        assert_eq!(run(662, 1, long), []);
        let needed = long;
        assert_eq!(run(1_000, 0, Nanos(5)), [Invalid::MinDuration { ran: Nanos(5), needed }]);
        assert_eq!(
            run(661, 1, long),
            [Invalid::EarlyStopping { issued: 661, over: 1, needed: 662 }]
        );
        assert!(matches!(run(1_000, 11, long)[..], [Invalid::Latency { .. }, _]));
        assert!(matches!(run(50, 0, long)[..], [Invalid::MinQueries { .. }, _]));
        // No query at all: too few, but no percentile and no panic.
        assert!(matches!(run(0, 0, long)[..], [Invalid::MinQueries { .. }, _]));
    }

    #[test]
    fn a_stream_reports_the_early_stopping_estimate() {
        let settings = Settings::new(Scenario::SingleStream, None);
        let long = Nanos::from_secs(600);
        // 81 queries allow two misses at p90: the second largest latency is the estimate.
        let mut latencies: Vec<Nanos> = (1..=126).map(Nanos::from_millis).collect();
        let at = |latencies: &mut [Nanos]| judge(&settings, latencies, long, None).estimate;
        assert_eq!(at(&mut latencies[..81]), Some(Nanos::from_millis(80)));
        assert_eq!(at(&mut latencies[..63]), None);
        assert_eq!(at(&mut []), None);
    }
}
