//! The load scenarios of MLPerf LoadGen and its rule for a valid run.
//!
//! Scenarios, defaults and limits: mlcommons/inference, `mlperf.conf` and `loadgen/`; the rules:
//! mlcommons/inference_policies. LoadGen draws its schedule with C++'s `std::mt19937` and
//! `std::exponential_distribution`, which no two standard libraries do alike: what comes out here is
//! the same process, not the same schedule, and nothing here is an MLPerf result.

use cotenant_profiles::Nanos;
use serde::Serialize;

use crate::error::TraceError;
use crate::spec::Closed;
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
            (Scenario::Server, _) | (_, None) if self.samples > 0 => Ok(()),
            (_, None) => spec("samples", "is not at least 1"),
            (_, Some(_)) => spec("target_qps", "belongs to the scenario `server` alone"),
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
