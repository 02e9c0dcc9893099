//! How a tenant's requests arrive, as an experiment file says it:
//! `arrivals = { kind = "poisson", rate = 120.0 }`.

use std::path::{Path, PathBuf};

use cotenant_profiles::Nanos;
use serde::{Deserialize, Deserializer, Serialize};

use crate::closed::Closed;
use crate::error::TraceError;
use crate::generate::{Gap, Mmpp, RateShape, Renewal, Varying};
use crate::mlperf::{self, Scenario};
use crate::replay::{self, TraceSpec};
use crate::request::{Arrivals, Request, check_items};
use crate::rng::Rng;
use crate::spec_fields::Fields;
use crate::tokens::Tokens;

mod kinds;

pub use kinds::{KINDS, Kind};

/// How the requests of one tenant arrive, and how many tokens each has.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ArrivalSpec {
    /// When they arrive.
    #[serde(flatten)]
    pub process: Process,
    /// Prompt and output of each, for models that generate; a trace brings its own.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub tokens: Option<Tokens>,
}

impl From<Process> for ArrivalSpec {
    fn from(process: Process) -> Self {
        Self { process, tokens: None }
    }
}

impl From<Closed> for ArrivalSpec {
    fn from(closed: Closed) -> Self {
        Process::Closed(closed).into()
    }
}

/// When requests arrive. Rates are requests/s.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
#[non_exhaustive]
pub enum Process {
    /// Equal gaps.
    Constant {
        /// Requests/s.
        rate: f64,
        /// When the first request comes; drawn per tenant within the first gap when absent.
        phase: Option<Nanos>,
    },
    /// Exponential gaps.
    Poisson {
        /// Requests/s.
        rate: f64,
    },
    /// Gamma gaps. The coefficient of variation is the knob of burstiness: 0 is constant, 1
    /// Poisson.
    Gamma {
        /// Requests/s.
        rate: f64,
        /// Standard deviation of the gaps over their mean; `burstiness` (the shape, 1/cv²) may be
        /// given instead.
        cv: f64,
    },
    /// Log-normal gaps.
    Lognormal {
        /// Requests/s.
        rate: f64,
        /// Standard deviation of the logarithm of the gaps; `cv` may be given instead.
        sigma: f64,
    },
    /// Weibull gaps.
    Weibull {
        /// Requests/s; `scale` (s) may be given instead.
        rate: f64,
        /// Shape; below 1 burstier than Poisson. `cv` may be given instead.
        shape: f64,
    },
    /// Pareto gaps.
    Pareto {
        /// Requests/s; `scale` (the shortest gap, s) may be given instead.
        rate: f64,
        /// Tail index, above 1.
        shape: f64,
    },
    /// Poisson with a rate that jumps between states.
    Mmpp {
        /// Rate of each state, requests/s.
        rates: Vec<f64>,
        /// Mean time in each state.
        dwell: Vec<Nanos>,
    },
    /// Poisson with a base rate and a plateau, once or periodically.
    Onoff {
        /// Requests/s outside the plateau.
        base: f64,
        /// Requests/s on the plateau.
        peak: f64,
        /// When the plateau begins.
        start: Nanos,
        /// How long it lasts.
        len: Nanos,
        /// Linear rise before it and fall behind it.
        ramp: Nanos,
        /// Repeats this often; absent: once.
        period: Option<Nanos>,
    },
    /// Poisson with a sinusoidal rate.
    Diurnal {
        /// Mean requests/s.
        rate: f64,
        /// Relative to the mean, 0 to 1.
        amplitude: f64,
        /// Length of a day.
        period: Nanos,
        /// Fraction of a day by which it is ahead.
        phase: f64,
    },
    /// Poisson with a rate given by points.
    Piecewise {
        /// Time and requests/s.
        points: Vec<(Nanos, f64)>,
        /// Straight lines between the points (true), or steps.
        linear: bool,
        /// Starts again after the last point; else its rate stays.
        repeat: bool,
    },
    /// Request counts per bin from a file, expanded to requests.
    Counts(TraceSpec),
    /// Requests from a trace file.
    Trace(TraceSpec),
    /// The next request follows a completion.
    Closed(Closed),
    /// A scenario of MLPerf LoadGen.
    Mlperf(mlperf::Settings),
}

impl<'de> Deserialize<'de> for ArrivalSpec {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut fields = Fields::deserialize(deserializer)?;
        Self::parse(&mut fields).map_err(serde::de::Error::custom)
    }
}

fn check(field: &str, holds: bool, problem: &str) -> Result<(), TraceError> {
    if holds { Ok(()) } else { Err(TraceError::spec(field, problem)) }
}

fn check_rate(field: &str, rate: f64) -> Result<(), TraceError> {
    // One request in 30 years to one in a nanosecond: beyond, a clock of nanoseconds says nothing.
    let problem = || format!("`{rate:?}` is not a rate from 1e-9 to 1e9 requests/s");
    if (1e-9..=1e9).contains(&rate) { Ok(()) } else { Err(TraceError::spec(field, problem())) }
}

fn check_weibull(shape: f64) -> Result<(), TraceError> {
    check("shape", (0.02..=1000.0).contains(&shape), "is not from 0.02 to 1000")
}

fn check_pareto(shape: f64) -> Result<(), TraceError> {
    check("shape", shape > 1.0 && shape <= 1000.0, "is not above 1 and at most 1000: no mean")
}

fn check_cv(cv: f64) -> Result<(), TraceError> {
    check("cv", (0.0..=1000.0).contains(&cv), "is not from 0 to 1000")
}

fn secs(ns: Nanos) -> f64 {
    ns.as_secs_f64()
}

impl Process {
    /// The value of `kind`.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Constant { .. } => "constant",
            Self::Poisson { .. } => "poisson",
            Self::Gamma { .. } => "gamma",
            Self::Lognormal { .. } => "lognormal",
            Self::Weibull { .. } => "weibull",
            Self::Pareto { .. } => "pareto",
            Self::Mmpp { .. } => "mmpp",
            Self::Onoff { .. } => "onoff",
            Self::Diurnal { .. } => "diurnal",
            Self::Piecewise { .. } => "piecewise",
            Self::Counts(_) => "counts",
            Self::Trace(_) => "trace",
            Self::Closed(_) => "closed",
            Self::Mlperf(_) => "mlperf",
        }
    }

    /// Checks every value without opening a file.
    ///
    /// # Errors
    /// The first field that is out of range, with the range.
    pub fn validate(&self) -> Result<(), TraceError> {
        match self {
            Self::Constant { rate, .. } | Self::Poisson { rate } => check_rate("rate", *rate),
            Self::Gamma { rate, cv } => check_rate("rate", *rate).and_then(|()| check_cv(*cv)),
            Self::Lognormal { rate, sigma } => {
                check_rate("rate", *rate)?;
                check("sigma", (0.0..=10.0).contains(sigma), "is not from 0 to 10")
            }
            Self::Weibull { rate, shape } => {
                check_weibull(*shape).and_then(|()| check_rate("rate", *rate))
            }
            Self::Pareto { rate, shape } => {
                check_pareto(*shape).and_then(|()| check_rate("rate", *rate))
            }
            Self::Mmpp { rates, dwell } => validate_mmpp(rates, dwell),
            Self::Onoff { .. } => self.validate_onoff(),
            Self::Diurnal { rate, amplitude, period, phase } => {
                check_rate("rate", *rate)?;
                check("amplitude", (0.0..=1.0).contains(amplitude), "is not from 0 to 1")?;
                check("period", period.0 > 0, "is not above 0")?;
                check("phase", (0.0..=1.0).contains(phase), "is not from 0 to 1 (of a period)")
            }
            Self::Piecewise { points, repeat, .. } => validate_points(points, *repeat),
            Self::Counts(spec) | Self::Trace(spec) => spec.validate(),
            Self::Closed(closed) => {
                check("concurrency", closed.concurrency > 0, "is not at least 1")?;
                check_items("items", closed.items)
            }
            Self::Mlperf(settings) => settings.validate(),
        }
    }

    fn validate_onoff(&self) -> Result<(), TraceError> {
        let Self::Onoff { base, peak, start, len, ramp, period } = self else { return Ok(()) };
        check("base", (0.0..=1e9).contains(base), "is not from 0 to 1e9 requests/s")?;
        check("peak", (0.0..=1e9).contains(peak), "is not from 0 to 1e9 requests/s")?;
        check("base", *base > 0.0 || *peak > 0.0, "is 0, and so is `peak`: no request at all")?;
        check("len", len.0 > 0, "is not above 0")?;
        if let Some(period) = period {
            let used = start.0.checked_add(len.0).and_then(|s| s.checked_add(ramp.0));
            let problem = "is shorter than start + len + ramp";
            check("period", used.is_some_and(|used| used <= period.0), problem)?;
            let mean = base + (peak - base) * (secs(*len) + secs(*ramp)) / secs(*period);
            let problem = "changes the rate over 1e5 times for each request: give a longer one";
            check("period", 4.0 / (mean * secs(*period)) <= MOST_JUMPS, problem)?;
        }
        Ok(())
    }

    /// The rate over time of the kinds that have one.
    #[must_use]
    pub fn rate_shape(&self) -> Option<RateShape> {
        Some(match self {
            Self::Onoff { base, peak, start, len, ramp, period } => RateShape::OnOff {
                base: *base,
                peak: *peak,
                start: secs(*start),
                len: secs(*len),
                ramp: secs(*ramp),
                period: period.map(secs),
            },
            Self::Diurnal { rate, amplitude, period, phase } => RateShape::Diurnal {
                mean: *rate,
                amplitude: *amplitude,
                period: secs(*period),
                phase: *phase,
            },
            Self::Piecewise { points, linear, repeat } => RateShape::Piecewise {
                points: points.iter().map(|(at, rate)| (secs(*at), *rate)).collect(),
                linear: *linear,
                repeat: *repeat,
            },
            _ => return None,
        })
    }
}

impl ArrivalSpec {
    fn parse(fields: &mut Fields) -> Result<Self, TraceError> {
        let names: Vec<&str> = KINDS.iter().map(|k| k.name).collect();
        let name = fields.choice("kind", &names)?;
        let name = name.ok_or_else(|| {
            TraceError::spec("kind", format!("is missing; known: {}", names.join(", ")))
        })?;
        let kind = KINDS.iter().find(|k| k.name == name).expect("a choice among these names");
        fields.only(kind.name, kind.fields)?;
        let tokens = fields.tokens()?;
        let spec = Self { process: (kind.parse)(fields)?, tokens };
        spec.validate()?;
        Ok(spec)
    }

    /// The value of `kind`.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        self.process.kind()
    }

    /// Checks every value without opening a file.
    ///
    /// # Errors
    /// The first field that is out of range, with the range.
    pub fn validate(&self) -> Result<(), TraceError> {
        self.process.validate()
    }

    /// The closed loop, for the kinds that are one: the simulator drives these by completions.
    #[must_use]
    pub fn closed(&self) -> Option<Closed> {
        match &self.process {
            Process::Closed(closed) => Some(*closed),
            Process::Mlperf(settings) => settings.closed(),
            _ => None,
        }
    }

    /// The mean rate in requests/s, where the specification alone says it.
    #[must_use]
    pub fn mean_rate(&self) -> Option<f64> {
        match &self.process {
            Process::Constant { rate, .. }
            | Process::Poisson { rate }
            | Process::Gamma { rate, .. }
            | Process::Lognormal { rate, .. }
            | Process::Weibull { rate, .. }
            | Process::Pareto { rate, .. }
            | Process::Diurnal { rate, .. } => Some(*rate),
            Process::Mmpp { rates, dwell } => {
                let time: f64 = dwell.iter().map(|d| secs(*d)).sum();
                Some(rates.iter().zip(dwell).map(|(r, d)| r * secs(*d)).sum::<f64>() / time)
            }
            Process::Mlperf(s) if s.scenario == Scenario::Server => s.target_qps,
            _ => None,
        }
    }

    /// How many requests `span` has on average from the start on, where the specification alone says it.
    #[must_use]
    pub fn expected(&self, span: Nanos) -> Option<f64> {
        match self.mean_rate() {
            Some(rate) => Some(rate * secs(span)),
            None => self.process.rate_shape().map(|shape| shape.expected(secs(span))),
        }
    }

    /// The files that the arrivals come from.
    #[must_use]
    pub fn files(&self, base_dir: &Path) -> Vec<PathBuf> {
        match &self.process {
            Process::Counts(spec) | Process::Trace(spec) => vec![base_dir.join(&spec.file)],
            _ => Vec::new(),
        }
    }

    /// Opens the arrivals of `tenant`. File names are relative to `base_dir`. The random stream
    /// depends on `seed` and `tenant` alone, so that no tenant moves another's arrivals.
    ///
    /// A trace file is read through once here, so that a bad row is an error before the simulation
    /// starts and never a trace cut short in silence.
    ///
    /// # Errors
    /// A field out of range, a file that cannot be read, or a closed loop, which has no arrivals of
    /// its own.
    pub fn open(
        &self,
        base_dir: &Path,
        seed: u64,
        tenant: &str,
    ) -> Result<Box<dyn Arrivals>, TraceError> {
        self.validate()?;
        let Some(tokens) = self.tokens else { return self.open_process(base_dir, seed, tenant) };
        let mut arrivals = self.open_process(base_dir, seed, tenant)?;
        let mut draws = tokens.draws(seed, tenant);
        Ok(Box::new(std::iter::from_fn(move || {
            let mut request = arrivals.next_request()?;
            (request.tokens_in, request.tokens_out) = draws.draw();
            Some(request)
        })))
    }

    /// What a user should know before a run of the length `until` (warm-up included): a trace of
    /// which no request falls into it, and what its reader found odd. Nothing for what is generated.
    ///
    /// # Errors
    /// As [`ArrivalSpec::open`].
    pub fn notes(
        &self,
        base_dir: &Path,
        seed: u64,
        tenant: &str,
        until: Nanos,
    ) -> Result<Vec<String>, TraceError> {
        match &self.process {
            Process::Counts(spec) | Process::Trace(spec) => {
                spec.notes(base_dir, seed, tenant, until)
            }
            _ => Ok(Vec::new()),
        }
    }

    fn open_process(
        &self,
        base_dir: &Path,
        seed: u64,
        tenant: &str,
    ) -> Result<Box<dyn Arrivals>, TraceError> {
        let rng = Rng::for_names(seed, &[tenant, "arrivals"]);
        let renewal =
            |gap, rate, rng| -> Box<dyn Arrivals> { Box::new(Renewal::new(gap, rate, None, rng)) };
        Ok(match &self.process {
            Process::Constant { rate, phase } => {
                let phase = phase.map(|p| secs(p) * rate);
                Box::new(Renewal::new(Gap::Constant, *rate, phase, rng))
            }
            Process::Poisson { rate } => renewal(Gap::Exponential, *rate, rng),
            Process::Gamma { rate, cv } => renewal(Gap::gamma_cv(*cv), *rate, rng),
            Process::Lognormal { rate, sigma } => {
                renewal(Gap::LogNormal { sigma: *sigma }, *rate, rng)
            }
            Process::Weibull { rate, shape } => renewal(Gap::weibull(*shape), *rate, rng),
            Process::Pareto { rate, shape } => renewal(Gap::Pareto { shape: *shape }, *rate, rng),
            Process::Mmpp { rates, dwell } => {
                let states: Vec<_> = rates.iter().copied().zip(dwell.iter().copied()).collect();
                Box::new(Mmpp::new(&states, rng))
            }
            Process::Onoff { .. } | Process::Diurnal { .. } | Process::Piecewise { .. } => {
                let shape = self.process.rate_shape().expect("these kinds have a rate over time");
                Box::new(Varying::new(shape, rng))
            }
            Process::Counts(spec) | Process::Trace(spec) => {
                replay::open(spec, base_dir, seed, tenant)?
            }
            Process::Closed(_) => return Err(no_arrivals("closed")),
            Process::Mlperf(s) => match (s.scenario, s.target_qps) {
                (Scenario::Server, Some(rate)) => renewal(Gap::Exponential, rate, rng),
                (Scenario::Offline, _) => {
                    Box::new((0..s.samples).map(|_| Request::at(Nanos::ZERO)))
                }
                _ => return Err(no_arrivals(s.scenario.name())),
            },
        })
    }
}

fn no_arrivals(kind: &str) -> TraceError {
    let problem = format!("`{kind}` is a closed loop: its requests follow completions");
    TraceError::spec("kind", problem)
}

fn validate_mmpp(rates: &[f64], dwell: &[Nanos]) -> Result<(), TraceError> {
    check("rates", !rates.is_empty(), "is empty: give one rate per state")?;
    for rate in rates {
        check("rates", (0.0..=1e9).contains(rate), "has a rate not from 0 to 1e9 requests/s")?;
    }
    check("rates", rates.iter().any(|&r| r > 0.0), "are all 0: no request at all")?;
    let problem = "has not as many times as `rates` has rates";
    check("dwell", dwell.len() == rates.len(), problem)?;
    check("dwell", dwell.iter().all(|d| d.0 > 0), "has a time that is not above 0")?;
    let time: f64 = dwell.iter().map(|d| secs(*d)).sum();
    let requests: f64 = rates.iter().zip(dwell).map(|(r, d)| r * secs(*d)).sum();
    let jumps = dwell.len() as f64 / requests;
    if jumps > MOST_JUMPS {
        let mean = requests / time;
        return Err(TraceError::spec(
            "dwell",
            format!(
                "changes the state {jumps:.1e} times for each request (at most {MOST_JUMPS:.0e}): \
                 give longer times, or kind = \"poisson\" with the mean rate of {mean}"
            ),
        ));
    }
    Ok(())
}

/// The most changes of state, or of rate, for each request: each of them costs time, and a process
/// that changes so much faster than requests come is a plain Poisson process.
const MOST_JUMPS: f64 = 1e5;

fn validate_points(points: &[(Nanos, f64)], repeat: bool) -> Result<(), TraceError> {
    check("points", !points.is_empty(), "is empty: give at least one [time, rate]")?;
    let ascending = points.windows(2).all(|w| w[0].0 < w[1].0);
    check("points", ascending, "has times that do not ascend")?;
    let legal = points.iter().all(|p| (0.0..=1e9).contains(&p.1));
    check("points", legal, "has a rate not from 0 to 1e9 requests/s")?;
    check("points", points.iter().any(|p| p.1 > 0.0), "has only rates of 0: no request at all")?;
    if repeat && let (Some(first), Some(last)) = (points.first(), points.last()) {
        let problem = "of one point repeat nothing: give a second one, later than 0";
        check("points", points.len() > 1 && last.0.0 > 0, problem)?;
        let head = secs(first.0) * first.1;
        let parts = points.windows(2).map(|w| secs(w[1].0 - w[0].0) * (w[0].1 + w[1].1) / 2.0);
        let requests = head + parts.sum::<f64>();
        let problem = "change the rate over 1e5 times for each request: stretch them";
        check("points", points.len() as f64 / requests <= MOST_JUMPS, problem)?;
    }
    Ok(())
}
