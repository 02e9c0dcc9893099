//! The kinds of arrivals: their names, their fields and how each is read.

use cotenant_profiles::Nanos;

use super::{Process, check_pareto, check_weibull};
use crate::closed::Closed;
use crate::error::TraceError;
use crate::generate::Gap;
use crate::mlperf;
use crate::replay::TraceSpec;
use crate::spec_fields::Fields;

/// One kind of arrivals, for help texts and checks.
#[derive(Debug)]
pub struct Kind {
    /// The value of `kind`.
    pub name: &'static str,
    /// What it is, in one line.
    pub summary: &'static str,
    /// Its other fields.
    pub fields: &'static [&'static str],
    pub(super) parse: fn(&mut Fields) -> Result<Process, TraceError>,
}

const TRACE_FIELDS: &[&str] = &[
    "file",
    "format",
    "rate_scale",
    "tenant",
    "model",
    "window",
    "transforms",
    "expand",
    "loop",
    "work",
    "work_in",
    "work_out",
    "work_mean",
];

/// Every kind of arrivals, in the order of the documentation.
pub const KINDS: &[Kind] = &[
    Kind {
        name: "constant",
        summary: "equal gaps; the phase is random per tenant unless given",
        fields: &["rate", "phase", "tokens_in", "tokens_out"],
        parse: |f| Ok(Process::Constant { rate: f.rate("rate")?, phase: f.duration("phase")? }),
    },
    Kind {
        name: "poisson",
        summary: "exponential gaps",
        fields: &["rate", "tokens_in", "tokens_out"],
        parse: |f| Ok(Process::Poisson { rate: f.rate("rate")? }),
    },
    Kind {
        name: "gamma",
        summary: "gamma gaps of a coefficient of variation `cv`, or of shape `burstiness`",
        fields: &["rate", "cv", "burstiness", "tokens_in", "tokens_out"],
        parse: parse_gamma,
    },
    Kind {
        name: "lognormal",
        summary: "log-normal gaps of a `sigma` of their logarithm, or of a `cv`",
        fields: &["rate", "sigma", "cv", "tokens_in", "tokens_out"],
        parse: parse_lognormal,
    },
    Kind {
        name: "weibull",
        summary: "Weibull gaps of a `shape` or a `cv`, and a `rate` or a `scale` in seconds",
        fields: &["rate", "shape", "scale", "cv", "tokens_in", "tokens_out"],
        parse: parse_weibull,
    },
    Kind {
        name: "pareto",
        summary: "Pareto gaps of a tail index `shape`, and a `rate` or a `scale` in seconds",
        fields: &["rate", "shape", "scale", "tokens_in", "tokens_out"],
        parse: parse_pareto,
    },
    Kind {
        name: "mmpp",
        summary: "Poisson whose rate jumps between states of mean `dwell` times",
        fields: &["rates", "dwell", "tokens_in", "tokens_out"],
        parse: |f| Ok(Process::Mmpp { rates: f.numbers("rates")?, dwell: f.durations("dwell")? }),
    },
    Kind {
        name: "onoff",
        summary: "Poisson at `base`, and at `peak` from `start` for `len`, every `period`",
        fields: &["base", "peak", "start", "len", "ramp", "period", "tokens_in", "tokens_out"],
        parse: parse_onoff,
    },
    Kind {
        name: "diurnal",
        summary: "Poisson whose rate is a sine around `rate`",
        fields: &["rate", "amplitude", "period", "phase", "tokens_in", "tokens_out"],
        parse: parse_diurnal,
    },
    Kind {
        name: "piecewise",
        summary: "Poisson whose rate follows `points` of [time, rate]",
        fields: &["points", "interpolation", "repeat", "tokens_in", "tokens_out"],
        parse: parse_piecewise,
    },
    Kind {
        name: "counts",
        summary: "requests per bin from a file, expanded to requests",
        fields: TRACE_FIELDS,
        parse: |f| {
            let mut spec = TraceSpec::parse(f)?;
            spec.format = spec.format.or_else(|| Some("counts".to_owned()));
            Ok(Process::Counts(spec))
        },
    },
    Kind {
        name: "trace",
        summary: "requests from a trace file, canonical or foreign",
        fields: TRACE_FIELDS,
        parse: |f| Ok(Process::Trace(TraceSpec::parse(f)?)),
    },
    Kind {
        name: "closed",
        summary: "closed loop: `concurrency` clients with a `think` time after each completion",
        fields: &[
            "concurrency",
            "think",
            "think_dist",
            "items",
            "max_requests",
            "tokens_in",
            "tokens_out",
        ],
        parse: parse_closed,
    },
    Kind {
        name: "mlperf",
        summary: "a LoadGen scenario: singlestream, multistream, server or offline",
        fields: &[
            "scenario",
            "target_qps",
            "samples",
            "min_duration",
            "min_queries",
            "tokens_in",
            "tokens_out",
        ],
        parse: |f| Ok(Process::Mlperf(mlperf::Settings::parse(f)?)),
    },
];

fn parse_gamma(f: &mut Fields) -> Result<Process, TraceError> {
    let rate = f.rate("rate")?;
    let cv = match (f.number("cv")?, f.number("burstiness")?) {
        (Some(cv), None) => cv,
        (None, Some(shape)) if shape > 0.0 => 1.0 / libm::sqrt(shape),
        (None, Some(_)) => return Err(TraceError::spec("burstiness", "is not above 0")),
        _ => return Err(TraceError::spec("cv", "give exactly one of `cv` and `burstiness`")),
    };
    Ok(Process::Gamma { rate, cv })
}

fn parse_lognormal(f: &mut Fields) -> Result<Process, TraceError> {
    let rate = f.rate("rate")?;
    let sigma = match (f.number("sigma")?, f.number("cv")?) {
        (Some(sigma), None) => sigma,
        (None, Some(cv)) => libm::sqrt(libm::log1p(cv * cv)),
        _ => return Err(TraceError::spec("sigma", "give exactly one of `sigma` and `cv`")),
    };
    Ok(Process::Lognormal { rate, sigma })
}

/// The rate from `rate`, or from `scale` in seconds and the mean of the distribution of scale 1.
fn rate_or_scale(f: &mut Fields, unit_mean: f64) -> Result<f64, TraceError> {
    match (f.number("rate")?, f.number("scale")?) {
        (Some(rate), None) => Ok(rate),
        (None, Some(scale)) if scale > 0.0 => Ok(1.0 / (scale * unit_mean)),
        (None, Some(_)) => Err(TraceError::spec("scale", "is not above 0 (seconds)")),
        _ => Err(TraceError::spec("rate", "give exactly one of `rate` and `scale`")),
    }
}

fn parse_weibull(f: &mut Fields) -> Result<Process, TraceError> {
    let shape = match (f.number("shape")?, f.number("cv")?) {
        (Some(shape), None) => shape,
        (None, Some(cv)) if (0.02..=50.0).contains(&cv) => Gap::weibull_shape(cv),
        (None, Some(_)) => return Err(TraceError::spec("cv", "is not from 0.02 to 50")),
        _ => return Err(TraceError::spec("shape", "give exactly one of `shape` and `cv`")),
    };
    check_weibull(shape)?;
    let rate = rate_or_scale(f, libm::tgamma(1.0 + 1.0 / shape))?;
    Ok(Process::Weibull { rate, shape })
}

fn parse_pareto(f: &mut Fields) -> Result<Process, TraceError> {
    let shape = f.required("shape")?;
    check_pareto(shape)?;
    let rate = rate_or_scale(f, shape / (shape - 1.0))?;
    Ok(Process::Pareto { rate, shape })
}

fn parse_onoff(f: &mut Fields) -> Result<Process, TraceError> {
    Ok(Process::Onoff {
        base: f.number("base")?.unwrap_or(0.0),
        peak: f.required("peak")?,
        start: f.duration("start")?.unwrap_or(Nanos::ZERO),
        len: f.required_duration("len")?,
        ramp: f.duration("ramp")?.unwrap_or(Nanos::ZERO),
        period: f.duration("period")?,
    })
}

fn parse_diurnal(f: &mut Fields) -> Result<Process, TraceError> {
    Ok(Process::Diurnal {
        rate: f.rate("rate")?,
        amplitude: f.number("amplitude")?.unwrap_or(0.5),
        period: f.duration("period")?.unwrap_or(Nanos::from_secs(86_400)),
        phase: f.number("phase")?.unwrap_or(0.0),
    })
}

fn parse_piecewise(f: &mut Fields) -> Result<Process, TraceError> {
    let linear = f.choice("interpolation", &["linear", "step"])? != Some("step");
    let points = f.points("points")?;
    Ok(Process::Piecewise { points, linear, repeat: f.flag("repeat")?.unwrap_or(false) })
}

fn parse_closed(f: &mut Fields) -> Result<Process, TraceError> {
    let default = Closed::default();
    Ok(Process::Closed(Closed {
        concurrency: f.count("concurrency")?.unwrap_or(default.concurrency),
        think: f.duration("think")?.unwrap_or(default.think),
        exponential: f.choice("think_dist", &["constant", "exponential"])? == Some("exponential"),
        items: f.count("items")?.unwrap_or(default.items),
        max_requests: f.whole("max_requests")?,
    }))
}
