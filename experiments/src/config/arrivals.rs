//! `arrivals = { … }` as schemars sees it. The values themselves are read and checked by the traces
//! crate; a test holds the keys declared here against those that it knows.

use schemars::JsonSchema;
use serde::Deserialize;

use super::file::Time;

/// How the requests of a tenant arrive.
#[derive(Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
#[schemars(rename = "Arrivals")]
#[allow(dead_code, reason = "the schema is what it is for")]
pub(crate) enum ArrivalsFile {
    /// Equal gaps.
    Constant {
        /// Requests per second.
        #[schemars(extend("unit" = "requests/s"), example = 120.0)]
        rate: f64,
        /// When the first request comes. Default: at random within the first gap.
        #[schemars(example = &"0s")]
        phase: Option<Time>,
        /// Tokens of a prompt, for models that generate: a number or a distribution.
        #[schemars(extend("unit" = "tokens"), example = 512)]
        tokens_in: Option<TokensFile>,
        /// Tokens of an output.
        #[schemars(extend("unit" = "tokens"), example = serde_json::json!({ "lognormal": [128, 0.8], "max": 1024 }))]
        tokens_out: Option<TokensFile>,
    },
    /// Exponential gaps.
    Poisson {
        /// Requests per second.
        #[schemars(extend("unit" = "requests/s"), example = 120.0)]
        rate: f64,
        /// Tokens of a prompt, for models that generate: a number or a distribution.
        #[schemars(extend("unit" = "tokens"), example = 512)]
        tokens_in: Option<TokensFile>,
        /// Tokens of an output.
        #[schemars(extend("unit" = "tokens"), example = serde_json::json!({ "lognormal": [128, 0.8], "max": 1024 }))]
        tokens_out: Option<TokensFile>,
    },
    /// Gamma gaps: `cv` is the knob of burstiness, 0 is constant, 1 Poisson.
    Gamma {
        /// Requests per second.
        #[schemars(extend("unit" = "requests/s"), example = 120.0)]
        rate: f64,
        /// Standard deviation of the gaps over their mean, 0 to 1000; or give `burstiness`.
        #[schemars(example = 2.0)]
        cv: Option<f64>,
        /// Shape of the distribution, 1/cv², in place of `cv`.
        #[schemars(example = 0.25)]
        burstiness: Option<f64>,
        /// Tokens of a prompt, for models that generate: a number or a distribution.
        #[schemars(extend("unit" = "tokens"), example = 512)]
        tokens_in: Option<TokensFile>,
        /// Tokens of an output.
        #[schemars(extend("unit" = "tokens"), example = serde_json::json!({ "lognormal": [128, 0.8], "max": 1024 }))]
        tokens_out: Option<TokensFile>,
    },
    /// Log-normal gaps.
    Lognormal {
        /// Requests per second.
        #[schemars(extend("unit" = "requests/s"), example = 120.0)]
        rate: f64,
        /// Standard deviation of the logarithm of the gaps, 0 to 10; or give `cv`.
        #[schemars(example = 1.0)]
        sigma: Option<f64>,
        /// Standard deviation of the gaps over their mean, in place of `sigma`.
        #[schemars(example = 2.0)]
        cv: Option<f64>,
        /// Tokens of a prompt, for models that generate: a number or a distribution.
        #[schemars(extend("unit" = "tokens"), example = 512)]
        tokens_in: Option<TokensFile>,
        /// Tokens of an output.
        #[schemars(extend("unit" = "tokens"), example = serde_json::json!({ "lognormal": [128, 0.8], "max": 1024 }))]
        tokens_out: Option<TokensFile>,
    },
    /// Weibull gaps.
    Weibull {
        /// Requests per second; or give `scale`.
        #[schemars(extend("unit" = "requests/s"), example = 120.0)]
        rate: Option<f64>,
        /// Shape, 0.02 to 1000, below 1 burstier than Poisson; or give `cv`.
        #[schemars(example = 0.7)]
        shape: Option<f64>,
        /// Scale of the gaps, in place of `rate`.
        #[schemars(extend("unit" = "s"), example = 0.008)]
        scale: Option<f64>,
        /// Standard deviation of the gaps over their mean, in place of `shape`.
        #[schemars(example = 2.0)]
        cv: Option<f64>,
        /// Tokens of a prompt, for models that generate: a number or a distribution.
        #[schemars(extend("unit" = "tokens"), example = 512)]
        tokens_in: Option<TokensFile>,
        /// Tokens of an output.
        #[schemars(extend("unit" = "tokens"), example = serde_json::json!({ "lognormal": [128, 0.8], "max": 1024 }))]
        tokens_out: Option<TokensFile>,
    },
    /// Pareto gaps.
    Pareto {
        /// Requests per second; or give `scale`.
        #[schemars(extend("unit" = "requests/s"), example = 120.0)]
        rate: Option<f64>,
        /// Tail index, above 1.
        #[schemars(example = 1.5)]
        shape: f64,
        /// The shortest gap, in place of `rate`.
        #[schemars(extend("unit" = "s"), example = 0.003)]
        scale: Option<f64>,
        /// Tokens of a prompt, for models that generate: a number or a distribution.
        #[schemars(extend("unit" = "tokens"), example = 512)]
        tokens_in: Option<TokensFile>,
        /// Tokens of an output.
        #[schemars(extend("unit" = "tokens"), example = serde_json::json!({ "lognormal": [128, 0.8], "max": 1024 }))]
        tokens_out: Option<TokensFile>,
    },
    /// Poisson whose rate jumps between states.
    Mmpp {
        /// Requests per second in each state.
        #[schemars(extend("unit" = "requests/s"), example = serde_json::json!([20.0, 200.0]))]
        rates: Vec<f64>,
        /// Mean time in each state.
        #[schemars(example = serde_json::json!(["2s", "500ms"]))]
        dwell: Vec<Time>,
        /// Tokens of a prompt, for models that generate: a number or a distribution.
        #[schemars(extend("unit" = "tokens"), example = 512)]
        tokens_in: Option<TokensFile>,
        /// Tokens of an output.
        #[schemars(extend("unit" = "tokens"), example = serde_json::json!({ "lognormal": [128, 0.8], "max": 1024 }))]
        tokens_out: Option<TokensFile>,
    },
    /// Poisson at a base rate with a plateau, once or periodically.
    Onoff {
        /// Requests per second outside the plateau. Default: 0.
        #[schemars(extend("unit" = "requests/s"), example = 20.0)]
        base: Option<f64>,
        /// Requests per second on the plateau.
        #[schemars(extend("unit" = "requests/s"), example = 200.0)]
        peak: f64,
        /// When the plateau begins. Default: at once.
        #[schemars(example = &"5s")]
        start: Option<Time>,
        /// How long it lasts.
        #[schemars(example = &"10s")]
        len: Time,
        /// Linear rise before it and fall behind it. Default: none.
        #[schemars(example = &"1s")]
        ramp: Option<Time>,
        /// The plateau comes again this often. Default: once.
        #[schemars(example = &"30s")]
        period: Option<Time>,
        /// Tokens of a prompt, for models that generate: a number or a distribution.
        #[schemars(extend("unit" = "tokens"), example = 512)]
        tokens_in: Option<TokensFile>,
        /// Tokens of an output.
        #[schemars(extend("unit" = "tokens"), example = serde_json::json!({ "lognormal": [128, 0.8], "max": 1024 }))]
        tokens_out: Option<TokensFile>,
    },
    /// Poisson whose rate is a sine.
    Diurnal {
        /// Mean requests per second.
        #[schemars(extend("unit" = "requests/s"), example = 120.0)]
        rate: f64,
        /// Swing relative to the mean, 0 to 1. Default: 0.5.
        #[schemars(example = 0.5)]
        amplitude: Option<f64>,
        /// Length of a day. Default: 24 h.
        #[schemars(example = &"10min")]
        period: Option<Time>,
        /// Fraction of a day by which it is ahead, 0 to 1. Default: 0.
        #[schemars(example = 0.25)]
        phase: Option<f64>,
        /// Tokens of a prompt, for models that generate: a number or a distribution.
        #[schemars(extend("unit" = "tokens"), example = 512)]
        tokens_in: Option<TokensFile>,
        /// Tokens of an output.
        #[schemars(extend("unit" = "tokens"), example = serde_json::json!({ "lognormal": [128, 0.8], "max": 1024 }))]
        tokens_out: Option<TokensFile>,
    },
    /// Poisson whose rate follows points.
    Piecewise {
        /// Times and requests per second, ascending.
        #[schemars(with = "Vec<Vec<serde_json::Value>>",
            extend("unit" = "requests/s"), example = serde_json::json!([["0s", 10.0], ["60s", 50.0]]))]
        points: Vec<(Time, f64)>,
        /// Straight lines between the points, or steps. Default: linear.
        #[schemars(example = &"linear")]
        interpolation: Option<Interpolation>,
        /// Starts again after the last point; otherwise its rate stays. Default: false.
        #[schemars(example = true)]
        repeat: Option<bool>,
        /// Tokens of a prompt, for models that generate: a number or a distribution.
        #[schemars(extend("unit" = "tokens"), example = 512)]
        tokens_in: Option<TokensFile>,
        /// Tokens of an output.
        #[schemars(extend("unit" = "tokens"), example = serde_json::json!({ "lognormal": [128, 0.8], "max": 1024 }))]
        tokens_out: Option<TokensFile>,
    },
    /// Requests per time bin from a file, expanded to requests.
    Counts(TraceFile),
    /// Requests from a trace file, in the canonical format or a foreign one.
    Trace(TraceFile),
    /// A closed loop: the next request follows a completion.
    Closed {
        /// Requests in flight or being thought about, at least 1. Default: 1.
        #[schemars(extend("unit" = "requests"), example = 4)]
        concurrency: Option<u32>,
        /// Mean time from a completion to the client's next request. Default: none.
        #[schemars(example = &"10ms")]
        think: Option<Time>,
        /// Distribution of the think time. Default: constant.
        #[schemars(example = &"exponential")]
        think_dist: Option<ThinkDist>,
        /// Items per request. Default: 1.
        #[schemars(extend("unit" = "items"), example = 1)]
        items: Option<u32>,
        /// No more requests than this. Default: until the end of the run.
        #[schemars(extend("unit" = "requests"), example = 1000)]
        max_requests: Option<u64>,
        /// Tokens of a prompt, for models that generate: a number or a distribution.
        #[schemars(extend("unit" = "tokens"), example = 512)]
        tokens_in: Option<TokensFile>,
        /// Tokens of an output.
        #[schemars(extend("unit" = "tokens"), example = serde_json::json!({ "lognormal": [128, 0.8], "max": 1024 }))]
        tokens_out: Option<TokensFile>,
    },
    /// A scenario of MLPerf LoadGen.
    Mlperf {
        /// The scenario.
        #[schemars(example = &"server")]
        scenario: MlperfScenario,
        /// Queries per second, for `server`.
        #[schemars(extend("unit" = "queries/s"), example = 100.0)]
        target_qps: Option<f64>,
        /// Samples per query; for `offline`, samples in all. Default: LoadGen's.
        #[schemars(extend("unit" = "samples"), example = 8)]
        samples: Option<u32>,
        /// A valid run lasts at least this long. Default: 10 min.
        #[schemars(example = &"10min")]
        min_duration: Option<Time>,
        /// A valid run has at least this many queries. Default: LoadGen's.
        #[schemars(extend("unit" = "queries"), example = 100)]
        min_queries: Option<u64>,
        /// Tokens of a prompt, for models that generate: a number or a distribution.
        #[schemars(extend("unit" = "tokens"), example = 512)]
        tokens_in: Option<TokensFile>,
        /// Tokens of an output.
        #[schemars(extend("unit" = "tokens"), example = serde_json::json!({ "lognormal": [128, 0.8], "max": 1024 }))]
        tokens_out: Option<TokensFile>,
    },
}

/// A number of tokens, or a distribution of them.
#[derive(Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(inline)]
#[allow(dead_code, reason = "the schema is what it is for")]
pub(crate) enum TokensFile {
    /// Always so many.
    Always(u32),
    /// A distribution.
    Law(LawFile),
}

/// One distribution, and the bounds that draws are cut to.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(inline)]
#[allow(dead_code, reason = "the schema is what it is for")]
pub(crate) struct LawFile {
    /// Evenly from the first to the last.
    #[schemars(example = serde_json::json!([1, 512]))]
    uniform: Option<Vec<f64>>,
    /// Exponential with this mean.
    #[schemars(example = 128)]
    exponential: Option<f64>,
    /// Mean and standard deviation.
    #[schemars(example = serde_json::json!([512, 100]))]
    normal: Option<Vec<f64>>,
    /// Mean and standard deviation of the logarithm.
    #[schemars(example = serde_json::json!([128, 0.8]))]
    lognormal: Option<Vec<f64>>,
    /// Mean and coefficient of variation.
    #[schemars(example = serde_json::json!([128, 1.5]))]
    gamma: Option<Vec<f64>>,
    /// From 1 to the first, weights 1/k^s of the second.
    #[schemars(example = serde_json::json!([2048, 1.1]))]
    zipf: Option<Vec<f64>>,
    /// Least tokens. Default: 1.
    #[schemars(example = 1)]
    min: Option<u32>,
    /// Most tokens.
    #[schemars(example = 1024)]
    max: Option<u32>,
}

/// How a rate goes from point to point.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub(crate) enum Interpolation {
    Linear,
    Step,
}

/// How think times are distributed.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub(crate) enum ThinkDist {
    Constant,
    Exponential,
}

/// Scenarios of LoadGen.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub(crate) enum MlperfScenario {
    SingleStream,
    MultiStream,
    Server,
    Offline,
}

/// Where a request's service time comes from.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub(crate) enum WorkFrom {
    Trace,
    Tokens,
}

/// A trace file, and what is done to it.
#[derive(Deserialize, JsonSchema)]
#[schemars(inline)]
#[allow(dead_code, reason = "the schema is what it is for")]
pub(crate) struct TraceFile {
    /// The file, relative to the experiment file; `${NAME}` is an environment variable.
    #[schemars(example = &"conv.csv")]
    file: String,
    /// Its format. Default: told from its beginning.
    #[schemars(example = &"canonical")]
    format: Option<String>,
    /// Compresses time so that the rate is multiplied by this, 1e-6 to 1e6. Default: 1.
    #[schemars(extend("unit" = "×"), example = 2.0)]
    rate_scale: Option<f64>,
    /// Only the rows of this tenant of the trace.
    #[schemars(example = &"vision")]
    tenant: Option<String>,
    /// Only the rows of this model of the trace.
    #[schemars(example = &"resnet50")]
    model: Option<String>,
    /// Only this part of the trace, before `rate_scale`.
    #[schemars(example = &"0..600s")]
    window: Option<String>,
    /// What `cotenant trace convert` can do, applied in order, between `window` and `rate_scale`.
    #[schemars(example = serde_json::json!(["sort"]))]
    transforms: Option<Vec<String>>,
    /// How counts become requests within their bin.
    #[schemars(example = &"poisson")]
    expand: Option<String>,
    /// Starts again at its end. Default: false.
    #[serde(rename = "loop")]
    #[schemars(example = true)]
    repeat: Option<bool>,
    /// Service time of a request as a multiple of the profiled inference: the trace's `work` column,
    /// or made of its tokens. Default: trace.
    #[schemars(example = &"tokens")]
    work: Option<WorkFrom>,
    /// Weight of a prompt token, with `work = "tokens"`. Default: 1.
    #[schemars(example = 1.0)]
    work_in: Option<f64>,
    /// Weight of a generated token, with `work = "tokens"`. Default: 1.
    #[schemars(example = 1.0)]
    work_out: Option<f64>,
    /// What counts as one inference, with `work = "tokens"`. Default: the mean over the rows.
    #[schemars(example = 800.0)]
    work_mean: Option<f64>,
}
