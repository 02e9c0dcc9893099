//! The experiment file as serde and schemars see it: every key with its type, unit, range, default
//! and meaning, once. Checks (`check.rs`), `cotenant schema` and docs/experiment-file.md are made
//! from these declarations; what one key says about another is checked where the key is used.

use std::collections::BTreeMap;

use cotenant_profiles::lower::{MAX_BATCH, Precision};
use cotenant_profiles::{Bytes, Executor, Nanos};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;

use super::arrivals::ArrivalsFile;

/// A duration with its unit: `"250us"`, `"3ms"`, `"1.5s"`, `"2min"`.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(transparent)]
pub(crate) struct Time(pub(crate) Nanos);

impl JsonSchema for Time {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Duration".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "format": "duration" })
    }
}

/// An experiment: who asks for what on which GPU, and the ways of sharing it that are compared.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "cotenant experiment file", rename = "Experiment")]
#[allow(dead_code, reason = "what is read elsewhere still has its place in the schema")]
pub(crate) struct ExperimentFile {
    /// Name: 1 to 80 letters, digits, `-`, `_` and `.`. Results go to `out/NAME` unless told otherwise.
    #[schemars(example = &"quickstart")]
    pub(crate) name: String,
    /// What the experiment asks; the report shows it.
    #[schemars(example = &"How many workers does one GPU carry under each policy?")]
    pub(crate) question: Option<String>,
    /// By what policies are ranked where no tenant has a goal: a column of `results.csv`.
    #[schemars(with = "Option<MetricName>", example = &"throughput_rps")]
    pub(crate) rank_by: Option<String>,
    /// The GPU: a name that `cotenant devices` lists, or the path of a device file.
    #[schemars(example = &"h100-sxm")]
    pub(crate) device: String,
    /// Where profiles are looked for before those that ship; the first hit wins.
    #[serde(default)]
    #[schemars(example = ["data/mi50"])]
    pub(crate) profiles: Vec<ProfilesFile>,
    /// Simulated time after the warm-up.
    #[schemars(example = &"60s", extend("least" = "1us", "most" = "10000000s"))]
    pub(crate) duration: Time,
    /// Simulated time before anything is counted.
    #[serde(default)]
    #[schemars(example = &"2s", extend("most" = "10000000s", "default" = "0s"))]
    pub(crate) warmup: Option<Time>,
    /// How often every cell is run, each time with the next seed; results then carry confidence
    /// intervals.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 10_000), example = 5)]
    pub(crate) repeats: u64,
    /// Seed of the first repeat. A seed fixes every random number of a cell.
    #[serde(default = "one")]
    #[schemars(range(min = 0, max = i64::MAX), example = 1)]
    pub(crate) seed: u64,
    /// `real`: mechanisms (switches, masks, resizes, loads) cost what the device file says.
    /// `ideal`: they are free, which separates a scheduling idea from the cost of its mechanism.
    #[serde(default)]
    #[schemars(example = &"real")]
    pub(crate) costs: CostMode,
    /// How co-running kernels slow each other down, beyond sharing compute units, bandwidth and the
    /// board's power. `cache`: by the L2 utilisation of the others. `igniter`: and by a delay of each
    /// launch per process beside it. `bandwidth`: by working sets that overflow L2. `linear`: by a
    /// linear function of L2 and DRAM utilisation. `measured`: as the pairs of the profile's
    /// `corun.csv` say, and as `cache` where a pair is missing.
    #[schemars(with = "Option<ContentionName>", example = &"cache", extend("default" = "cache"))]
    pub(crate) contention: Option<String>,
    /// Width of the bins of the time series; given, `series.csv` is written.
    #[schemars(example = &"100ms", extend("least" = "1us"))]
    pub(crate) series: Option<Time>,
    /// Coefficient of variation of kernel times: log-normal factors of mean 1, drawn per request and
    /// kernel, the same under every policy.
    #[serde(default)]
    #[schemars(range(min = 0.0, max = 2.0), example = 0.1)]
    pub(crate) jitter: f64,
    /// The GPUs: how many of `device`, or a list of devices. Each has a policy of its own; a tenant
    /// lives on all of them unless its `gpu` says otherwise. Multiples of the isolated latency refer
    /// to `device`.
    #[schemars(example = 4, extend("default" = 1))]
    pub(crate) gpus: Option<GpusFile>,
    /// Which of the GPUs that serve its tenant gets a request: the one with the fewest of the tenant's
    /// requests waiting or running, or each in turn. Clients of a closed loop keep their GPU.
    #[serde(default)]
    #[schemars(example = &"round-robin")]
    pub(crate) route: RouteName,
    /// GPUs that fail: requests that they hold are lost, and they come back empty.
    #[schemars(length(max = 10_000), example = serde_json::json!([{ "gpu": 1, "at": "30s", "for": "10s" }]))]
    pub(crate) down: Option<Vec<DownFile>>,
    /// Who is served: one `[[tenant]]` table each.
    #[schemars(with = "Vec<TenantFile>", length(min = 1))]
    pub(crate) tenant: serde_json::Value,
    /// The ways of sharing that are compared: one `[[policy]]` table each, by the name that
    /// `cotenant policies` lists, or `all`.
    #[schemars(with = "Vec<PolicyFile>", length(min = 1))]
    pub(crate) policy: serde_json::Value,
    /// Fields that vary, each with the values it takes; every combination is run. A key is the path of
    /// a field (`tenant.NAME.FIELD`, `tenant.*.FIELD`, `policy.LABEL.OPTION`, or a top-level field).
    /// Several paths separated by commas vary together, with a list of values per step.
    #[serde(default)]
    #[schemars(with = "Option<BTreeMap<String, Vec<serde_json::Value>>>",
        example = serde_json::json!({ "tenant.vision.arrivals.rate": [60, 120, 240] }))]
    pub(crate) sweep: serde_json::Value,
    /// Figures to draw: one `[[plot]]` table each. Without any, a few that suit the experiment.
    #[serde(default)]
    #[schemars(with = "Option<Vec<cotenant_results::PlotSpec>>")]
    pub(crate) plot: serde_json::Value,
}

fn one() -> u64 {
    1
}

/// A folder of profiles, or another tool's measurement.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(crate) enum ProfilesFile {
    /// A folder, relative to the experiment file.
    Folder(String),
    /// A measurement of another tool, read at every run.
    Import(ImportFile),
}

/// Another tool's measurement.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(inline)]
pub(crate) struct ImportFile {
    /// The tool whose files they are.
    #[schemars(with = "ImportName", example = &"orion")]
    pub(crate) import: String,
    /// A file, or a folder of .csv files, relative to the experiment file.
    #[schemars(example = &"measured/")]
    pub(crate) path: String,
}

/// A format of [`IMPORTS`](super::IMPORTS).
struct ImportName;

impl JsonSchema for ImportName {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Import".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "enum": super::IMPORTS })
    }
}

/// Whether mechanisms cost what the device file says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, serde::Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub(crate) enum CostMode {
    #[default]
    Real,
    Ideal,
}

impl CostMode {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Real => "real",
            Self::Ideal => "ideal",
        }
    }
}

/// A column of `results.csv`, by name.
struct MetricName;

impl JsonSchema for MetricName {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Metric".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let names: Vec<&str> = cotenant_results::METRICS.iter().map(|m| m.name).collect();
        json_schema!({ "type": "string", "enum": names })
    }
}

/// A contention model, by name.
struct ContentionName;

impl JsonSchema for ContentionName {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Contention".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "enum": cotenant_sim::contention::NAMES })
    }
}

/// How many GPUs, or which.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(crate) enum GpusFile {
    /// So many of `device`.
    Count(#[schemars(range(min = 1, max = 64))] u32),
    /// One device each.
    Devices(Vec<String>),
}

/// How requests find a GPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, serde::Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(inline)]
pub(crate) enum RouteName {
    RoundRobin,
    #[default]
    LeastOutstanding,
}

/// A GPU that fails for a while.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(inline)]
pub(crate) struct DownFile {
    /// Which, counted from 0.
    #[schemars(range(min = 0, max = 63), example = 1)]
    pub(crate) gpu: u32,
    /// When, from the end of the warm-up.
    #[schemars(example = &"30s")]
    pub(crate) at: Time,
    /// How long until its workers serve again.
    #[serde(rename = "for")]
    #[schemars(example = &"10s", extend("least" = "1ns"))]
    pub(crate) lasts: Time,
}

/// A GPU by its number, or several.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(crate) enum GpuFile {
    /// One.
    One(#[schemars(range(min = 0, max = 63))] u32),
    /// Several: replicas.
    Several(Vec<u32>),
}

/// A tenant: who is served and charged.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Tenant")]
pub(crate) struct TenantFile {
    /// Name: 1 to 60 letters, digits, `-` and `_`; results call the tenant so.
    #[schemars(example = &"vision")]
    pub(crate) name: String,
    /// The model: a name that `cotenant models` lists, or of a profile.
    #[schemars(example = &"resnet50")]
    pub(crate) model: String,
    /// How its requests arrive. Not for a tenant with `tune`.
    #[schemars(with = "Option<ArrivalsFile>", example = serde_json::json!({ "kind": "poisson", "rate": 120.0 }))]
    pub(crate) arrivals: Option<serde_json::Value>,
    /// Its goal for the latency of a request, counted from the arrival.
    #[schemars(example = &"100ms")]
    pub(crate) slo: Option<SloFile>,
    /// `latency` for requests that somebody waits for, `best-effort` for the rest; policies with
    /// priorities prefer the first.
    #[serde(default)]
    #[schemars(example = &"latency")]
    pub(crate) class: ClassName,
    /// Model instances that serve it.
    #[serde(default = "one_worker")]
    #[schemars(range(min = 1, max = 1024), extend("unit" = "workers"), example = 2)]
    pub(crate) workers: u32,
    /// How requests are put together.
    #[schemars(example = serde_json::json!({ "max": 8, "timeout": "2ms" }))]
    pub(crate) batch: Option<BatchFile>,
    /// Number format that the model runs in. Default: the device's, fp16 with tensor cores, else fp32.
    #[schemars(with = "Option<PrecisionName>", example = &"fp16")]
    pub(crate) precision: Option<String>,
    /// How the framework issues kernels, which decides what the host pays per launch. Default: as the
    /// profile says; for a computed one, `compiled` where `fused`, else `eager`.
    #[schemars(with = "Option<ExecutorName>", example = &"eager")]
    pub(crate) executor: Option<String>,
    /// Whether neighbouring operators are fused, as a compiler does.
    #[serde(default)]
    #[schemars(example = true)]
    pub(crate) fused: bool,
    /// Kernels as a tuner picks them for this share of the CUs; not given: as a library picks them
    /// for the whole GPU.
    #[schemars(range(max = 100.0), extend("unit" = "%", "exclusiveMinimum" = 0), example = 25.0)]
    pub(crate) tuned_at: Option<f64>,
    /// Runs this one operator of the model alone.
    #[schemars(example = &"conv1")]
    pub(crate) operator: Option<String>,
    /// Tunes every operator of the model, each as a tenant of its own with one request.
    #[schemars(example = serde_json::json!({ "trials": 64 }))]
    pub(crate) tune: Option<TuneFile>,
    /// Requests that still wait when their time is over are dropped, with that reason: `slo` takes the
    /// time from the goal (of a generating tenant, that for the first token), a duration counts from the
    /// arrival, `never` drops nobody, as if not given. A request whose batch has begun, or that an engine
    /// has admitted, is answered, however late.
    #[schemars(example = &"slo")]
    pub(crate) drop_after: Option<DropFile>,
    /// Drops a request as soon as it cannot be answered in time any more, even if its batch began now:
    /// the profile's shortest time for it, alone on the whole GPU. Goes with `drop_after`.
    #[serde(default)]
    #[schemars(example = true)]
    pub(crate) predict: bool,
    /// Every request is a batch of its own, however many items it has; none waits for others.
    #[serde(default)]
    #[schemars(example = true)]
    pub(crate) per_request_batches: bool,
    /// The GPU that it lives on, counted from 0, or a list of them. Default: all.
    #[schemars(example = 0)]
    pub(crate) gpu: Option<GpuFile>,
    /// The serving engine of a generating model.
    pub(crate) engine: Option<EngineFile>,
}

fn one_worker() -> u32 {
    1
}

/// A goal.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(crate) enum SloFile {
    /// From a request's arrival to its result.
    Absolute(Time),
    /// A multiple of the p95 that the tenant has alone on the GPU.
    Isolated(IsolatedFile),
    /// Of a generating tenant.
    Tokens(TokenGoals),
}

/// A goal relative to the tenant alone.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(inline)]
pub(crate) struct IsolatedFile {
    /// Multiple of the isolated p95 latency.
    #[schemars(range(min = 0.01, max = 1e6), extend("unit" = "× isolated p95"), example = 2.0)]
    pub(crate) isolated: f64,
}

/// Goals of a generating tenant.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(inline)]
pub(crate) struct TokenGoals {
    /// Time to the first token.
    #[schemars(example = &"500ms", extend("least" = "1ns"))]
    pub(crate) ttft: Time,
    /// Time per further token.
    #[schemars(example = &"40ms", extend("least" = "1ns"))]
    pub(crate) tpot: Time,
}

/// Whether somebody waits.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(inline)]
pub(crate) enum ClassName {
    #[default]
    Latency,
    BestEffort,
}

/// Batching of requests.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(inline)]
pub(crate) struct BatchFile {
    /// Most items in a batch.
    #[serde(default = "one_worker")]
    #[schemars(range(min = 1, max = MAX_BATCH), extend("unit" = "items"), example = 8)]
    pub(crate) max: u32,
    /// Longest that the first request of a batch waits for others.
    #[schemars(example = &"2ms", extend("most" = "60min", "default" = "0s"))]
    pub(crate) timeout: Option<Time>,
}

/// A number format, by name.
struct PrecisionName;

impl JsonSchema for PrecisionName {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Precision".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "enum": Precision::ALL.map(Precision::name) })
    }
}

/// How a framework issues kernels, by name.
struct ExecutorName;

impl JsonSchema for ExecutorName {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Executor".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "enum": Executor::ALL.map(Executor::name) })
    }
}

/// When a waiting request is dropped.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(inline)]
pub(crate) enum DropFile {
    /// When its goal is missed.
    Goal(DropName),
    /// So long after its arrival.
    After(Time),
}

/// What is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub(crate) enum DropName {
    Slo,
    Never,
}

/// A tuning job.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(inline)]
pub(crate) struct TuneFile {
    /// Candidates per operator.
    #[serde(default = "trials")]
    #[schemars(range(min = 1, max = 10_000), example = 64)]
    pub(crate) trials: u32,
    /// Launches that measure a candidate.
    #[serde(default = "launches")]
    #[schemars(range(min = 1, max = 10_000), example = 13)]
    pub(crate) launches: u32,
    /// Batch size that the operators are tuned for.
    #[serde(default = "one_worker")]
    #[schemars(range(min = 1, max = MAX_BATCH), extend("unit" = "items"), example = 1)]
    pub(crate) batch: u32,
}

fn trials() -> u32 {
    64
}

fn launches() -> u32 {
    13
}

/// The serving engine of a generating tenant.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(inline)]
pub(crate) struct EngineFile {
    /// How sequences are put together.
    #[schemars(example = &"continuous")]
    pub(crate) kind: EngineKind,
    /// Most sequences at once. Default: 256; 1024 on GPUs of 70 GB and more other than the A100
    /// (vLLM).
    #[schemars(range(min = 1, max = 4096), extend("unit" = "sequences"), example = 256)]
    pub(crate) max_seqs: Option<u32>,
    /// Most tokens in one step. Default: 2048; 8192 on GPUs of 70 GB and more other than the A100,
    /// 16384 from 160 GB (vLLM).
    #[schemars(range(min = 1, max = 131_072), extend("unit" = "tokens"), example = 8192)]
    pub(crate) max_batched_tokens: Option<u32>,
    /// Whether prompts are split over steps.
    #[serde(default = "yes")]
    #[schemars(example = true)]
    pub(crate) chunked_prefill: bool,
    /// Prompts are computed in steps of their own, and sequences generate only while none waits that
    /// could be admitted (SGLang's rule); otherwise prompts beside sequences that generate.
    #[serde(default)]
    #[schemars(example = false)]
    pub(crate) alternate: bool,
    /// Share of the memory of the GPU, or of its MIG instance, that one worker may use: weights,
    /// activations, and the key-value cache in the rest. The default is vLLM's; lower it where others
    /// share the memory.
    #[schemars(range(min = 0.01, max = 1.0), example = 0.9, extend("default" = MEMORY_FRACTION))]
    pub(crate) memory_fraction: Option<f64>,
    /// Memory of the key-value cache, in place of `memory_fraction`.
    #[schemars(example = &"8GiB")]
    pub(crate) kv_memory: Option<String>,
    /// The cache takes memory only while sequences need it, and engines with this key share what the
    /// models on their GPU leave (kvcached's idea); `memory_fraction` or `kv_memory` is then the most
    /// that it may have.
    #[schemars(example = serde_json::json!({ "floor": "2GiB" }))]
    pub(crate) elastic: Option<ElasticFile>,
    /// Tokens of a block of the cache.
    #[serde(default = "block")]
    #[schemars(range(min = 1, max = 4096), extend("unit" = "tokens"), example = 16)]
    pub(crate) block: u32,
    /// Whether the next request of a session finds the cache of the one before.
    #[serde(default = "yes")]
    #[schemars(example = true)]
    pub(crate) prefix_cache: bool,
    /// Longest sequence, prompt and output; a request that is longer is dropped. Default: the model's.
    #[schemars(range(min = 1, max = 16_777_216), extend("unit" = "tokens"), example = 8192)]
    pub(crate) max_context: Option<u32>,
    /// Host time to plan a step and prepare its inputs. The default leaves the 5 ms per step that vLLM
    /// reports for 8B models on an H100.
    #[schemars(
        example = &"500us",
        extend("most" = "10s", "default" = SCHEDULER_OVERHEAD.to_string())
    )]
    pub(crate) scheduler_overhead: Option<Time>,
    /// Whether the next step is planned while the current one runs, as in vLLM.
    #[serde(default = "yes")]
    #[schemars(example = true)]
    pub(crate) async_scheduling: bool,
    /// Whether steps are launched as captured graphs: one for a step that only generates, one per
    /// piece between two calls of attention for others.
    #[serde(default = "yes")]
    #[schemars(example = true)]
    pub(crate) graphs: bool,
}

/// Share of the memory that vLLM takes.
pub(super) const MEMORY_FRACTION: f64 = 0.92;
/// Host time of a step: what remains of the 5 ms that vLLM reports for a step of an 8B model on an
/// H100, whose weights take 4.5 ms to read.
pub(super) const SCHEDULER_OVERHEAD: Nanos = Nanos::from_micros(500);
/// kvcached maps memory in pages of 2 MiB. Its benchmark (`benchmarks/bench_alloc`) takes 4.2 ms on a
/// GB10 for 128 blocks of 512 KiB, 64 MiB: 130 us each.
pub(super) const PAGE: Bytes = Bytes(2 << 20);
pub(super) const MAP: Nanos = Nanos::from_micros(130);

fn yes() -> bool {
    true
}

/// vLLM's.
fn block() -> u32 {
    16
}

/// A cache whose memory follows what sequences hold.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(inline)]
pub(crate) struct ElasticFile {
    /// Memory that is the tenant's own from the start to the end: what nobody can take, and where
    /// finished sessions find their prefixes.
    #[schemars(example = &"2GiB", extend("default" = "0MiB"))]
    pub(crate) floor: Option<String>,
    /// Memory is mapped and given back in pages of this size (kvcached: multiples of 2 MiB).
    #[schemars(example = &"2MiB", extend("default" = PAGE.to_string()))]
    pub(crate) page: Option<String>,
    /// Host time to map a page, while the step before runs as far as steps are planned ahead. The default
    /// is of the 4.2 ms that kvcached's benchmark has for 64 MiB on a GB10.
    #[schemars(example = &"130us", extend("most" = "1s", "default" = MAP.to_string()))]
    pub(crate) map: Option<Time>,
}

/// How an engine puts sequences together.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub(crate) enum EngineKind {
    Continuous,
}

/// A `[[policy]]` table: read against the registry.
struct PolicyFile;

impl JsonSchema for PolicyFile {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Policy".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        super::policy_schema::table().try_into().expect("a schema is a table")
    }
}

/// The schema that `cotenant schema` prints.
pub(crate) fn published() -> serde_json::Value {
    schema().to_value()
}

/// The JSON Schema of an experiment file.
pub(crate) fn schema() -> Schema {
    let settings = schemars::generate::SchemaSettings::draft2020_12();
    settings.into_generator().into_root_schema_for::<ExperimentFile>()
}

/// The JSON Schema of one `[[tenant]]` table.
pub(crate) fn tenant_schema() -> Schema {
    let settings = schemars::generate::SchemaSettings::draft2020_12();
    settings.into_generator().into_root_schema_for::<TenantFile>()
}
