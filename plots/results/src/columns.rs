//! Every column of every result table: the single place for its name, unit and meaning. The writer, the
//! reader, the plots, `docs/results.md` and `cotenant metrics` all use it.

/// Which values of a metric are better.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Better {
    /// Less is better, such as latency.
    Lower,
    /// More is better, such as goodput.
    Higher,
    /// Neither, such as the number of requests offered.
    Neither,
}

/// The rows of `results.csv` in which a metric has a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rows {
    /// Tenants and the whole GPU.
    All,
    /// Only the whole GPU (tenant `*`).
    Gpu,
    /// Tenants that generate tokens, and the whole GPU if there are any.
    Generating,
}

/// A numeric column of `results.csv`, `series.csv` or `cdf.csv`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Column {
    /// The name in the header.
    pub name: &'static str,
    /// The title for axes and tables, without the unit.
    pub title: &'static str,
    /// The unit of the drawn values, as shown on axes.
    pub unit: &'static str,
    /// File value × `scale` = drawn value: fractions are drawn in percent.
    pub scale: f64,
    /// Which values are better.
    pub better: Better,
    /// The rows in which it has a value.
    pub rows: Rows,
    /// What it means, in one sentence without the full stop.
    pub doc: &'static str,
}

impl Column {
    /// `title (unit)`.
    #[must_use]
    pub fn axis(&self) -> String {
        format!("{} ({})", self.title, self.unit)
    }

    /// The unit in the file: fractions are not in percent there.
    #[must_use]
    pub fn file_unit(&self) -> &'static str {
        if self.scale == 100.0 { "0 to 1" } else { self.unit }
    }

    /// The largest possible value, in the file's unit; no value is negative.
    #[must_use]
    pub fn most(&self) -> f64 {
        if self.scale == 100.0 { 1.0 } else { f64::INFINITY }
    }
}

/// Declares the enum and the table from one list, so that they always agree.
macro_rules! metrics {
    ($($metric:ident $name:literal $title:literal $unit:literal $scale:literal
       $better:ident $rows:ident $doc:literal;)*) => {
        /// A numeric column of `results.csv`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Metric { $(#[doc = $doc] $metric,)* }

        /// The numeric columns of `results.csv`, in file order; [`Metric`] is the index.
        pub const METRICS: [Column; [$(Metric::$metric),*].len()] = [$(Column {
            name: $name, title: $title, unit: $unit, scale: $scale,
            better: Better::$better, rows: Rows::$rows, doc: $doc,
        },)*];

        impl Metric {
            /// Every metric, in file order.
            pub const ALL: [Self; METRICS.len()] = [$(Self::$metric,)*];
        }
    };
}

// To add a metric, add its line before the last group of its kind: old folders that lack it remain readable
// as long as it comes after `downtime_ms`.
metrics! {
    Offered "offered" "Offered" "requests" 1.0 Neither All
        "requests in the system when counting opens, plus arrivals while it lasts";
    Completed "completed" "Completed" "requests" 1.0 Higher All
        "requests whose result reached the host within the window";
    Dropped "dropped" "Dropped" "requests" 1.0 Lower All
        "requests given up within the window";
    InFlight "in_flight" "In flight at the end" "requests" 1.0 Lower All
        "requests neither completed nor dropped when the window ends; offered = completed + dropped + in_flight";
    Throughput "throughput_rps" "Throughput" "requests/s" 1.0 Higher All
        "completed requests over the window's length";
    Goodput "goodput_rps" "Goodput" "requests/s" 1.0 Higher All
        "requests completed within their goal (any, where there is no goal) over the window's length";
    SloAttainment "slo_attainment" "Goal attainment" "% of requests" 100.0 Higher All
        "share of the requests with a goal whose fate is known (completed, dropped, or past their deadline) that completed within it; empty without a goal";
    LatencyMean "latency_mean_ms" "Mean latency" "ms" 1.0 Lower All
        "mean time from the scheduled arrival to the result, over completed requests";
    LatencyP50 "latency_p50_ms" "Median latency" "ms" 1.0 Lower All
        "median latency";
    LatencyP90 "latency_p90_ms" "p90 latency" "ms" 1.0 Lower All
        "latency that 90 % of the completed requests do not exceed";
    LatencyP95 "latency_p95_ms" "p95 latency" "ms" 1.0 Lower All
        "latency that 95 % of the completed requests do not exceed";
    LatencyP99 "latency_p99_ms" "p99 latency" "ms" 1.0 Lower All
        "latency that 99 % of the completed requests do not exceed";
    LatencyP999 "latency_p999_ms" "p99.9 latency" "ms" 1.0 Lower All
        "latency that 99.9 % of the completed requests do not exceed";
    QueueMean "queue_mean_ms" "Mean queueing time" "ms" 1.0 Lower All
        "mean time from the scheduled arrival to the start of the request's batch";
    BatchMean "batch_mean" "Mean batch size" "items per batch" 1.0 Neither All
        "items per batch";
    CuUtilization "cu_utilization" "CU utilisation" "% of CUs" 100.0 Higher All
        "share of the compute units' speed in use, mean over the window; on a tenant's row its own part";
    DramUtilization "dram_utilization" "DRAM utilisation" "% of bandwidth" 100.0 Higher All
        "DRAM bytes moved over what the memory's pins could move; on a tenant's row its own part";
    Energy "energy_j" "Energy" "J" 1.0 Lower Gpu
        "energy over the window: idle power, what runs at all, and what each kernel draws, at most the board's limit";
    Reconfigurations "reconfigurations" "Reconfigurations" "count" 1.0 Neither All
        "resizes, repartitions and worker starts that took effect";
    Downtime "downtime_ms" "Downtime" "ms" 1.0 Lower All
        "time in which reconfigurations left requests without a worker";
    LatencyService "latency_service_ms" "Mean service time" "ms" 1.0 Lower All
        "mean time from the start of a request's batch to its result; with queue_mean_ms it adds up to latency_mean_ms";
    Clock "clock_mhz" "Clock" "MHz" 1.0 Higher Gpu
        "mean clock of the compute units: below the boost clock where the board's power limit binds or a policy has set another, for all places alike";
    Power "power_w" "Power" "W" 1.0 Lower Gpu
        "mean power of the board over the window";
    GpuUtil "gpu_util" "GPU busy time" "% of time" 100.0 Neither All
        "share of the window in which at least one kernel ran, as nvidia-smi counts utilisation";
    SmActive "sm_active" "Active CUs" "% of CUs" 100.0 Higher All
        "compute units with at least one resident block over all, mean over the window, as DCGM counts SM activity";
    TtftMean "ttft_mean_ms" "Mean time to first token" "ms" 1.0 Lower Generating
        "mean time from the scheduled arrival to the first token";
    TtftP50 "ttft_p50_ms" "Median time to first token" "ms" 1.0 Lower Generating
        "median time from the scheduled arrival to the first token";
    TtftP99 "ttft_p99_ms" "p99 time to first token" "ms" 1.0 Lower Generating
        "time to the first token that 99 % of the requests do not exceed";
    TpotMean "tpot_mean_ms" "Mean time per output token" "ms" 1.0 Lower Generating
        "mean over requests of the time from the first to the last token over the tokens after the first";
    TpotP50 "tpot_p50_ms" "Median time per output token" "ms" 1.0 Lower Generating
        "median over requests of the time per output token";
    TpotP99 "tpot_p99_ms" "p99 time per output token" "ms" 1.0 Lower Generating
        "time per output token that 99 % of the requests do not exceed";
    TokensPerS "tokens_per_s" "Token rate" "tokens/s" 1.0 Higher Generating
        "tokens generated over the window's length";
    KvUtilization "kv_utilization" "KV-cache use" "% of blocks" 100.0 Neither Generating
        "KV-cache blocks in use over all that have memory, mean over the window";
    Preemptions "preemptions" "Preemptions" "count" 1.0 Lower Generating
        "generating requests that lost their KV-cache blocks and began again";
    ItlP99 "itl_p99_ms" "p99 gap between tokens" "ms" 1.0 Lower Generating
        "time between two tokens of a request that 99 % of all gaps do not exceed; steps that also compute prompts show here";
    PromptTokensPerS "prompt_tokens_per_s" "Prompt token rate" "tokens/s" 1.0 Higher Generating
        "tokens of prompts computed or found in the KV cache over the window's length";
    CachedTokens "cached_tokens" "Prompt tokens from the cache" "tokens" 1.0 Neither Generating
        "tokens of prompts that an earlier request of the session had left in the KV cache";
    RecomputedTokens "recomputed_tokens" "Tokens computed again" "tokens" 1.0 Lower Generating
        "tokens computed again because their KV-cache blocks were taken";
    KvMemory "kv_memory_gib" "KV-cache memory" "GiB" 1.0 Neither Generating
        "device memory that the KV cache takes, mean over the window; a fixed one always takes all of it";
}

impl Metric {
    /// Its column.
    #[must_use]
    pub const fn column(self) -> &'static Column {
        &METRICS[self as usize]
    }

    /// Its name in the header.
    #[must_use]
    pub const fn name(self) -> &'static str {
        self.column().name
    }

    /// The metric with this name.
    #[must_use]
    pub fn find(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|m| m.name() == name)
    }

    /// Whether every result folder has it; newer metrics may be missing in older folders.
    #[must_use]
    pub const fn always(self) -> bool {
        self as usize <= Self::Downtime as usize
    }
}

/// A column of a table next to `results.csv`, or a naming column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    /// The name in the header.
    pub name: &'static str,
    /// Its unit; empty for text columns.
    pub unit: &'static str,
    /// What it means.
    pub doc: &'static str,
}

pub(crate) const fn field(name: &'static str, unit: &'static str, doc: &'static str) -> Field {
    Field { name, unit, doc }
}

/// Names of a list of columns.
#[must_use]
pub const fn names<const N: usize>(fields: &[Field; N]) -> [&'static str; N] {
    let mut names = [""; N];
    let mut i = 0;
    while i < N {
        names[i] = fields[i].name;
        i += 1;
    }
    names
}

/// Columns of `results.csv` before the sweep keys, each of which has a column of its own.
pub const LEADING_FIELDS: [Field; 6] = [
    field("experiment", "", "the experiment's name"),
    field("cell", "", "digest of everything that decides the cell's numbers"),
    field("label", "", "what plots and tables call the policy's row"),
    field("policy", "", "the policy"),
    field("repeat", "", "the repeat, from 0"),
    field("seed", "", "the repeat's seed"),
];
/// Columns of `results.csv` right after the sweep keys.
pub const NAME_FIELDS: [Field; 2] = [
    field("tenant", "", "the tenant; `*` is the whole GPU"),
    field("model", "", "the tenant's model"),
];
/// The last column of `results.csv`.
pub const STATUS_FIELD: Field = field(
    "status",
    "",
    "`ok`, or why the cell failed; `overloaded: …` where the tenant's queue grew through the whole window: its latencies, which would tell the length of the run, are empty",
);

/// Beginning of the status of a cell that ran under more load than it could serve.
pub const OVERLOADED: &str = "overloaded: ";

/// Whether a cell with this status has numbers: it succeeded, or it ran and was overloaded. The latencies of
/// an overloaded tenant are empty.
#[must_use]
pub fn has_numbers(status: &str) -> bool {
    status == "ok" || status.starts_with(OVERLOADED)
}

/// Requests/s offered and served, from the status of an overloaded tenant.
#[must_use]
pub fn overload_rates(status: &str) -> Option<(f64, f64)> {
    let (offered, rest) =
        status.strip_prefix(OVERLOADED)?.strip_prefix("offered ")?.split_once("/s, served ")?;
    let (served, _) = rest.split_once("/s")?;
    Some((offered.parse().ok()?, served.parse().ok()?))
}

/// Columns of `cdf.csv`, `series.csv`, `counters.csv`, `layouts.csv` and `gpus.csv` before the sweep
/// keys.
pub const SIDE_FIELDS: [Field; 3] = [
    field("cell", "", "as in results.csv"),
    field("label", "", "as in results.csv"),
    field("repeat", "", "as in results.csv"),
];
/// Columns of `cdf.csv` after the sweep keys.
pub const CDF_FIELDS: [Field; 3] = [
    field("tenant", "", "the tenant; `*` is the whole GPU"),
    field("quantile", "0 to 1", "share of the completed requests"),
    field("latency_ms", "ms", "latency that this share does not exceed"),
];
/// Columns of `series.csv` after the sweep keys.
pub const TIMELINE_FIELDS: [Field; 5] = [
    field("tenant", "", "the tenant; `*` is the whole GPU"),
    field("t_ms", "ms", "start of the time bin, from the end of the warm-up"),
    field("throughput_rps", "requests/s", "completed requests over the bin's length"),
    field("latency_p95_ms", "ms", "p95 latency of those requests"),
    field("sm_active", "0 to 1", "compute units that hold blocks over all; only on `*`"),
];
/// Columns of `counters.csv` after the sweep keys.
pub const COUNTER_FIELDS: [Field; 3] = [
    field(
        "counter",
        "",
        "what the policy or the device counted (below); `dropped: TENANT, REASON`: requests given up for that reason",
    ),
    field("unit", "", "of the value"),
    field(
        "value",
        "",
        "the count over the whole run, warm-up included; of dropped requests, within the window",
    ),
];
/// Columns of `layouts.csv` after the sweep keys.
pub const LAYOUT_FIELDS: [Field; 12] = [
    field("worker", "", "the worker, from 0"),
    field("tenant", "", "whom it serves"),
    field("model", "", "the tenant's model"),
    field("setting", "", "what sets it up, in words"),
    field("pool", "", "the part of the GPU with a memory system of its own, from 0"),
    field("pool_cus", "CUs", "compute units of that part"),
    field("lane_cus", "CUs", "compute units of its partition of that part"),
    field("cap_cus", "CUs", "most compute units that one of its kernels may use"),
    field("share_pct", "%", "cap_cus over the GPU's compute units"),
    field("turns", "", "1 where workers take turns on the whole part, else 0"),
    field("batch_max", "items", "largest batch"),
    field("batch_timeout_ms", "ms", "longest wait for a batch to fill"),
];
/// Columns of `gpus.csv` after the sweep keys.
pub const GPU_FIELDS: [Field; 16] = [
    field("gpu", "", "the GPU, from 0"),
    field("device", "", "what it is"),
    field("tenant", "", "a tenant that it serves; `*` is all of them"),
    field("offered", "requests", "as in results.csv, of the requests that this GPU was given"),
    field("completed", "requests", "as in results.csv"),
    field("dropped", "requests", "as in results.csv; `gpu-down` are those that it took along"),
    field("in_flight", "requests", "as in results.csv"),
    field("throughput_rps", "requests/s", "as in results.csv"),
    field("goodput_rps", "requests/s", "as in results.csv"),
    field("latency_p50_ms", "ms", "as in results.csv"),
    field("latency_p99_ms", "ms", "as in results.csv"),
    field("cu_utilization", "0 to 1", "as in results.csv, of this GPU"),
    field("dram_utilization", "0 to 1", "as in results.csv, of this GPU"),
    field("gpu_util", "0 to 1", "as in results.csv, of this GPU"),
    field("sm_active", "0 to 1", "as in results.csv, of this GPU"),
    field("energy_j", "J", "as in results.csv, of this GPU; only on `*`"),
];
/// Columns of `curves.csv`.
pub const CURVE_FIELDS: [Field; 7] = [
    field("model", "", "the model"),
    field("batch", "items", "items of a batch"),
    field("kernel", "", "the kernel; `*` is the whole model"),
    field("share_pct_of_model_time", "%", "its share of the model's GPU time on all compute units"),
    field("cus", "CUs", "compute units given"),
    field("duration_us", "µs", "duration alone on so many compute units, of all its launches"),
    field("min_cus", "CUs", "fewest compute units within 5 % of the duration on all"),
];
/// Columns of `validation.csv`.
pub const VALIDATION_FIELDS: [Field; 8] = [
    field("label", "", "as in results.csv"),
    field("tenant", "", "as in results.csv"),
    field("metric", "", "a metric of results.csv"),
    field("simulated", "", "mean over the repeats, in the metric's unit"),
    field("measured", "", "the same on the device"),
    field("error_pct", "%", "simulated against measured"),
    field("ci_low", "%", "lower end of the error's 95 % confidence interval"),
    field("ci_high", "%", "upper end of it"),
];
/// Columns of a tuner's `matrix.csv`.
pub const MATRIX_FIELDS: [Field; 7] = [
    field("shape", "", "the operator; `*` is the sum over all"),
    field("tuned_at_cus", "CUs", "compute units on which the variant was chosen"),
    field("run_at_cus", "CUs", "compute units on which it ran"),
    field("variant", "", "the variant"),
    field("duration_ns", "ns", "its duration there"),
    field("best_ns", "ns", "duration of what was tuned there"),
    field("slowdown", "×", "the one over the other"),
];

/// Columns of `results.csv` that come before the sweep keys.
pub const LEADING: [&str; 6] = names(&LEADING_FIELDS);
/// Text columns of `results.csv` that come right after the sweep keys.
pub const NAMES: [&str; 2] = names(&NAME_FIELDS);
/// The last column of `results.csv`: `ok`, or the reason why the cell failed.
pub const STATUS: &str = STATUS_FIELD.name;
/// Columns of the tables next to `results.csv` that come before the sweep keys.
pub const SERIES_LEADING: [&str; 3] = names(&SIDE_FIELDS);
/// Columns of `cdf.csv` after the sweep keys.
pub const CDF: [&str; 3] = names(&CDF_FIELDS);
/// Columns of `series.csv` after the sweep keys.
pub const TIMELINE: [&str; 5] = names(&TIMELINE_FIELDS);
/// Columns of `counters.csv` after the sweep keys.
pub const COUNTERS: [&str; 3] = names(&COUNTER_FIELDS);
/// Columns of `layouts.csv` after the sweep keys; the first four are text columns.
pub const LAYOUTS: [&str; 12] = names(&LAYOUT_FIELDS);
/// Columns of `gpus.csv` after the sweep keys.
pub const GPUS: [&str; 16] = names(&GPU_FIELDS);
/// Columns of `curves.csv`.
pub const CURVES: [&str; 7] = names(&CURVE_FIELDS);
/// Columns of `validation.csv`.
pub const VALIDATION: [&str; 8] = names(&VALIDATION_FIELDS);
/// Columns of a tuner's `matrix.csv`.
pub const MATRIX: [&str; 7] = names(&MATRIX_FIELDS);

/// Columns of `series.csv` that can be drawn over time.
pub const SERIES: [&str; 3] = ["throughput_rps", "latency_p95_ms", "sm_active"];

/// Latency in general, for plots of its distribution.
pub const LATENCY: Column = Column {
    name: "latency_ms",
    title: "Latency",
    unit: "ms",
    scale: 1.0,
    better: Better::Lower,
    rows: Rows::All,
    doc: "latency from the scheduled arrival",
};

/// Looks up a numeric column.
#[must_use]
pub fn metric(name: &str) -> Option<&'static Column> {
    Metric::find(name).map(Metric::column)
}

/// The known name closest to `name`, if it is close enough to be what was meant.
#[must_use]
pub fn closest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    known
        .map(|k| (strsim::damerau_levenshtein(name, k), k))
        .filter(|(distance, k)| *distance <= (name.len().max(k.len()) / 2).max(1))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, k)| k)
}

/// `` unknown WHAT `name`; did you mean `x`? Known: a, b, c ``.
#[must_use]
pub fn unknown(what: &str, name: &str, known: &[&str]) -> String {
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
    fn every_column_has_a_title_a_unit_and_a_meaning() {
        for c in METRICS.iter().chain([&LATENCY]) {
            assert!(!c.title.is_empty() && !c.unit.is_empty() && !c.doc.is_empty(), "{}", c.name);
            assert!(c.scale > 0.0 && !c.doc.ends_with('.'), "{}", c.name);
        }
        for m in Metric::ALL {
            assert_eq!(Metric::find(m.name()), Some(m));
        }
        assert!(SERIES.iter().all(|s| metric(s).is_some()));
    }

    #[test]
    fn a_status_tells_what_was_offered_and_served() {
        let status = "overloaded: offered 1985.3/s, served 184.0/s, 5593 left at the end";
        assert_eq!(overload_rates(status), Some((1985.3, 184.0)));
        assert_eq!(overload_rates("overloaded: vision"), None);
        assert!(has_numbers(status) && has_numbers("ok") && !has_numbers("out-of-memory: …"));
    }

    #[test]
    fn a_typo_finds_its_column() {
        let names = || METRICS.iter().map(|c| c.name);
        assert_eq!(closest("goodput", names()), Some("goodput_rps"));
        assert_eq!(closest("latency_p99", names()), Some("latency_p99_ms"));
        assert_eq!(closest("zzzzzzzzzzzzzzzzzzzz", names()), None);
    }
}
