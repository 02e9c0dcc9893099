//! The columns of `results.csv` and what a reader must be told of each: title, unit, direction.

/// Which way a metric is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Better {
    /// Less is better, such as latency.
    Lower,
    /// More is better, such as goodput.
    Higher,
    /// Neither is, such as the number of requests offered.
    Neither,
}

/// A numeric column of `results.csv`, `series.csv` or `cdf.csv`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Column {
    /// The name in the header.
    pub name: &'static str,
    /// For axes and tables, without the unit.
    pub title: &'static str,
    /// The unit of what is drawn, as axes write it.
    pub unit: &'static str,
    /// File value × `scale` = drawn value: fractions are drawn in percent.
    pub scale: f64,
    /// Which way is good.
    pub better: Better,
}

impl Column {
    /// `title (unit)`.
    #[must_use]
    pub fn axis(&self) -> String {
        format!("{} ({})", self.title, self.unit)
    }

    /// The largest value that it can take, in the file's unit; none of them is negative.
    #[must_use]
    pub fn most(&self) -> f64 {
        if self.scale == 100.0 { 1.0 } else { f64::INFINITY }
    }
}

const fn column(
    name: &'static str,
    title: &'static str,
    unit: &'static str,
    scale: f64,
    better: Better,
) -> Column {
    Column { name, title, unit, scale, better }
}

/// Columns of `results.csv` that come before the sweep keys.
pub const LEADING: [&str; 6] = ["experiment", "cell", "label", "policy", "repeat", "seed"];

/// Text columns of `results.csv` that come right after the sweep keys.
pub const NAMES: [&str; 2] = ["tenant", "model"];

/// The last column of `results.csv`: `ok`, or the reason why the cell failed.
pub const STATUS: &str = "status";

/// Numeric columns of `results.csv`, in file order.
pub const METRICS: [Column; 20] = [
    column("offered", "Requests offered", "requests", 1.0, Better::Neither),
    column("completed", "Requests completed", "requests", 1.0, Better::Higher),
    column("dropped", "Requests dropped", "requests", 1.0, Better::Lower),
    column("in_flight", "Requests in flight at the end", "requests", 1.0, Better::Lower),
    column("throughput_rps", "Throughput", "requests/s", 1.0, Better::Higher),
    column("goodput_rps", "Goodput", "requests/s", 1.0, Better::Higher),
    column("slo_attainment", "SLO attainment", "% of requests", 100.0, Better::Higher),
    column("latency_mean_ms", "Mean latency", "ms", 1.0, Better::Lower),
    column("latency_p50_ms", "Median latency", "ms", 1.0, Better::Lower),
    column("latency_p90_ms", "p90 latency", "ms", 1.0, Better::Lower),
    column("latency_p95_ms", "p95 latency", "ms", 1.0, Better::Lower),
    column("latency_p99_ms", "p99 latency", "ms", 1.0, Better::Lower),
    column("latency_p999_ms", "p99.9 latency", "ms", 1.0, Better::Lower),
    column("queue_mean_ms", "Mean queueing time", "ms", 1.0, Better::Lower),
    column("batch_mean", "Mean batch size", "requests per batch", 1.0, Better::Neither),
    column("cu_utilization", "CU utilisation", "% of CUs", 100.0, Better::Higher),
    column("dram_utilization", "DRAM utilisation", "% of bandwidth", 100.0, Better::Higher),
    column("energy_j", "Energy", "J", 1.0, Better::Lower),
    column("reconfigurations", "Reconfigurations", "count", 1.0, Better::Neither),
    column("downtime_ms", "Downtime", "ms", 1.0, Better::Lower),
];

/// Columns of `cdf.csv` and `series.csv` that come before the sweep keys.
pub const SERIES_LEADING: [&str; 3] = ["cell", "label", "repeat"];

/// Columns of `cdf.csv` after the sweep keys. `quantile` runs from 0 to 1.
pub const CDF: [&str; 3] = ["tenant", "quantile", "latency_ms"];

/// Columns of `series.csv` after the sweep keys. `t_ms` is the start of the time bin.
pub const TIMELINE: [&str; 5] =
    ["tenant", "t_ms", "throughput_rps", "latency_p95_ms", "cu_utilization"];

/// Columns of `curves.csv`. `kernel` is `*` for the whole model.
pub const CURVES: [&str; 7] =
    ["model", "batch", "kernel", "share_pct_of_model_time", "cus", "duration_us", "min_cus"];

/// Columns of `validation.csv`. `ci_low` and `ci_high` bound `error_pct`, at 95 %.
pub const VALIDATION: [&str; 8] =
    ["label", "tenant", "metric", "simulated", "measured", "error_pct", "ci_low", "ci_high"];

/// Columns of a tuner's `matrix.csv`. `shape` is `*` for the sum over all.
pub const MATRIX: [&str; 7] =
    ["shape", "tuned_at_cus", "run_at_cus", "variant", "duration_ns", "best_ns", "slowdown"];

/// Columns of `series.csv` that can be drawn over time.
pub const SERIES: [&str; 3] = ["throughput_rps", "latency_p95_ms", "cu_utilization"];

/// Latency in general, for distribution plots.
pub const LATENCY: Column = column("latency_ms", "Latency", "ms", 1.0, Better::Lower);

/// Looks a numeric column up.
#[must_use]
pub fn metric(name: &str) -> Option<&'static Column> {
    METRICS.iter().find(|c| c.name == name)
}

/// Where `name` stands in [`METRICS`].
#[must_use]
pub fn metric_index(name: &str) -> Option<usize> {
    METRICS.iter().position(|c| c.name == name)
}

/// ` (closest: …)` text: the known name nearest to `name`, if one is near enough to be meant.
#[must_use]
pub(crate) fn closest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    known
        .map(|k| (strsim::damerau_levenshtein(name, k), k))
        .filter(|(distance, k)| *distance <= (name.len().max(k.len()) / 2).max(1))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, k)| k)
}

/// `` unknown WHAT `name`; did you mean `x`? Known: a, b, c ``.
#[must_use]
pub(crate) fn unknown(what: &str, name: &str, known: &[&str]) -> String {
    let list = known.join(", ");
    match closest(name, known.iter().copied()) {
        Some(near) => format!("unknown {what} `{name}`; did you mean `{near}`? Known: {list}"),
        None => format!("unknown {what} `{name}`. Known: {list}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_column_has_a_title_and_a_unit() {
        for c in METRICS.iter().chain([&LATENCY]) {
            assert!(!c.title.is_empty() && !c.unit.is_empty(), "{}", c.name);
            assert!(c.scale > 0.0);
        }
        assert!(SERIES.iter().all(|s| metric(s).is_some()));
    }

    #[test]
    fn a_typo_finds_its_column() {
        let names: Vec<_> = METRICS.iter().map(|c| c.name).collect();
        assert_eq!(closest("goodput", names.iter().copied()), Some("goodput_rps"));
        assert_eq!(closest("latency_p99", names.iter().copied()), Some("latency_p99_ms"));
        assert_eq!(closest("zzzzzzzzzzzzzzzz", names.iter().copied()), None);
    }
}
