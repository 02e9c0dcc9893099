//! A cell's numbers, for comparison with those of another ground.

use cotenant_profiles::Nanos;
use cotenant_replay::drive::Lateness;
use cotenant_sim::metrics::Latencies;
use serde::{Deserialize, Serialize};

use super::ground::Played;
use crate::metrics::Metrics;

/// The results of a cell.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
pub(crate) struct Figures {
    /// `ok`, or why there are no results.
    pub(crate) status: String,
    /// For each tenant, then for the whole GPU.
    pub(crate) metrics: Vec<Metrics>,
    /// Within the measurement window.
    pub(crate) context_switches: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    late: Option<Late>,
}

/// How late a dispatcher was.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
struct Late {
    arrivals: Counted,
    completions: Counted,
    decisions: Counted,
    slowdown: f64,
}

/// A histogram: bucket values with their counts, and the exact minimum and maximum.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
struct Counted {
    values: Vec<(u64, u64)>,
    extremes: Option<(u64, u64)>,
}

impl Counted {
    fn of(latencies: &Latencies) -> Self {
        let values = latencies.recorded().map(|(value, n)| (value.0, n)).collect();
        Self { values, extremes: latencies.extremes().map(|(least, most)| (least.0, most.0)) }
    }

    fn latencies(&self) -> Latencies {
        let values = self.values.iter().map(|&(value, n)| (Nanos(value), n));
        Latencies::of(values, self.extremes.map(|(least, most)| (Nanos(least), Nanos(most))))
    }
}

impl Figures {
    pub(crate) fn of(played: &Played) -> Self {
        let late = |l: &Lateness| Late {
            arrivals: Counted::of(&l.arrivals),
            completions: Counted::of(&l.completions),
            decisions: Counted::of(&l.decisions),
            slowdown: l.slowdown,
        };
        let outcome = &played.outcome;
        Self {
            status: outcome.status.clone(),
            metrics: outcome.metrics.clone(),
            context_switches: outcome.context_switches,
            late: played.lateness.as_ref().map(late),
        }
    }

    pub(crate) fn is_ok(&self) -> bool {
        self.status == "ok"
    }

    /// `None` if the cell failed or was simulated.
    pub(crate) fn lateness(&self) -> Option<Lateness> {
        let late = self.late.as_ref()?;
        Some(Lateness {
            arrivals: late.arrivals.latencies(),
            completions: late.completions.latencies(),
            decisions: late.decisions.latencies(),
            slowdown: late.slowdown,
        })
    }
}
