//! How late the dispatcher itself was: its own share of any deviation.

use cotenant_profiles::Nanos;
use cotenant_sim::metrics::Latencies;

/// Delays of the dispatcher, on the wall clock.
#[derive(Clone, Debug, Default)]
pub struct Lateness {
    /// From a request's scheduled arrival to its handling.
    pub arrivals: Latencies,
    /// From the end of a kernel or a batch on the device to its handling; empty if the device does not
    /// report when a kernel ended.
    pub completions: Latencies,
    /// From the handling of an event to the launch with which the policy answered it.
    pub decisions: Latencies,
    /// Wall time divided by the experiment's time.
    pub slowdown: f64,
}

impl Lateness {
    /// No delay recorded yet, but memory reserved for all of them.
    pub(super) fn reserved() -> Self {
        let mut late = Self::default();
        late.arrivals.reserve();
        late.completions.reserve();
        late.decisions.reserve();
        late
    }

    /// Every kind of delay, with its name.
    pub fn kinds(&self) -> impl Iterator<Item = (&'static str, &Latencies)> {
        [
            ("arrivals", &self.arrivals),
            ("completions", &self.completions),
            ("decisions", &self.decisions),
        ]
        .into_iter()
    }

    /// The quantile `q` of one kind, in the experiment's time.
    #[must_use]
    pub fn in_run(&self, latencies: &Latencies, q: f64) -> Option<Nanos> {
        latencies.quantile(q).map(|wall| Nanos((wall.0 as f64 / self.slowdown) as u64))
    }

    /// Converts a time of the experiment, ns, to wall-clock time.
    pub(super) fn wall(&self, ns: u64) -> Nanos {
        Nanos((ns as f64 * self.slowdown) as u64)
    }
}
