//! How a tenant's requests arrive, as an experiment file says it:
//! `arrivals = { kind = "poisson", rate = 120.0 }`.

use std::path::{Path, PathBuf};

use cotenant_profiles::Nanos;
use serde::{Deserialize, Deserializer, Serialize};

use crate::error::TraceError;
use crate::generate::{Gap, Mmpp, RateShape, Renewal, Varying};
use crate::mlperf::{self, Scenario};
use crate::replay::{self, TraceSpec};
use crate::request::{Arrivals, Request};
use crate::rng::Rng;
use crate::spec_fields::Fields;

mod kinds;

pub use kinds::{KINDS, Kind};

/// How the requests of one tenant arrive. Rates are requests/s.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
#[non_exhaustive]
pub enum ArrivalSpec {
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

/// A closed loop: `concurrency` clients, each sending its next request a think time after the
/// completion of its last.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Closed {
    /// Requests in flight or being thought about, at least 1.
    pub concurrency: u32,
    /// Mean time from a completion to the client's next request.
    pub think: Nanos,
    /// Think times are exponential with that mean; else constant.
    pub exponential: bool,
    /// Samples per request.
    pub items: u32,
    /// No more requests than this; absent: until the end of the run.
    pub max_requests: Option<u64>,
}

impl Default for Closed {
    fn default() -> Self {
        let think = Nanos::ZERO;
        Self { concurrency: 1, think, exponential: false, items: 1, max_requests: None }
    }
}

impl Closed {
    /// One think time. `rng` is the tenant's stream for this purpose.
    pub fn think_time(&self, rng: &mut Rng) -> Nanos {
        if self.exponential { Nanos((rng.exp1() * self.think.0 as f64) as u64) } else { self.think }
    }
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
    check(field, (1e-9..=1e9).contains(&rate), "is not a rate from 1e-9 to 1e9 requests/s")
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

impl ArrivalSpec {
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

    fn parse(fields: &mut Fields) -> Result<Self, TraceError> {
        let names: Vec<&str> = KINDS.iter().map(|k| k.name).collect();
        let name = fields.choice("kind", &names)?;
        let name = name.ok_or_else(|| {
            TraceError::spec("kind", format!("is missing; known: {}", names.join(", ")))
        })?;
        let kind = KINDS.iter().find(|k| k.name == name).expect("a choice among these names");
        fields.only(kind.name, kind.fields)?;
        let spec = (kind.parse)(fields)?;
        spec.validate()?;
        Ok(spec)
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
            Self::Piecewise { points, .. } => validate_points(points),
            Self::Counts(spec) | Self::Trace(spec) => spec.validate(),
            Self::Closed(closed) => {
                check("concurrency", closed.concurrency > 0, "is not at least 1")?;
                check("items", closed.items > 0, "is not at least 1")
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
        }
        Ok(())
    }

    /// The closed loop, for the kinds that are one: the simulator drives these by completions.
    #[must_use]
    pub fn closed(&self) -> Option<Closed> {
        match self {
            Self::Closed(closed) => Some(*closed),
            Self::Mlperf(settings) => settings.closed(),
            _ => None,
        }
    }

    /// The mean rate in requests/s, where the specification alone says it.
    #[must_use]
    pub fn mean_rate(&self) -> Option<f64> {
        match self {
            Self::Constant { rate, .. }
            | Self::Poisson { rate }
            | Self::Gamma { rate, .. }
            | Self::Lognormal { rate, .. }
            | Self::Weibull { rate, .. }
            | Self::Pareto { rate, .. }
            | Self::Diurnal { rate, .. } => Some(*rate),
            Self::Mmpp { rates, dwell } => {
                let time: f64 = dwell.iter().map(|d| secs(*d)).sum();
                Some(rates.iter().zip(dwell).map(|(r, d)| r * secs(*d)).sum::<f64>() / time)
            }
            Self::Mlperf(s) if s.scenario == Scenario::Server => s.target_qps,
            _ => None,
        }
    }

    /// The files that the arrivals come from.
    #[must_use]
    pub fn files(&self, base_dir: &Path) -> Vec<PathBuf> {
        match self {
            Self::Counts(spec) | Self::Trace(spec) => vec![base_dir.join(&spec.file)],
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
        let rng = Rng::for_names(seed, &[tenant, "arrivals"]);
        let renewal =
            |gap, rate, rng| -> Box<dyn Arrivals> { Box::new(Renewal::new(gap, rate, None, rng)) };
        Ok(match self {
            Self::Constant { rate, phase } => {
                let phase = phase.map(|p| secs(p) * rate);
                Box::new(Renewal::new(Gap::Constant, *rate, phase, rng))
            }
            Self::Poisson { rate } => renewal(Gap::Exponential, *rate, rng),
            Self::Gamma { rate, cv } => renewal(Gap::gamma_cv(*cv), *rate, rng),
            Self::Lognormal { rate, sigma } => {
                renewal(Gap::LogNormal { sigma: *sigma }, *rate, rng)
            }
            Self::Weibull { rate, shape } => renewal(Gap::weibull(*shape), *rate, rng),
            Self::Pareto { rate, shape } => renewal(Gap::Pareto { shape: *shape }, *rate, rng),
            Self::Mmpp { rates, dwell } => {
                let states: Vec<_> = rates.iter().copied().zip(dwell.iter().copied()).collect();
                Box::new(Mmpp::new(&states, rng))
            }
            Self::Onoff { .. } | Self::Diurnal { .. } | Self::Piecewise { .. } => {
                let shape = self.rate_shape().expect("these kinds have a rate over time");
                Box::new(Varying::new(shape, rng))
            }
            Self::Counts(spec) | Self::Trace(spec) => replay::open(spec, base_dir, seed, tenant)?,
            Self::Closed(_) => return Err(no_arrivals("closed")),
            Self::Mlperf(s) => match (s.scenario, s.target_qps) {
                (Scenario::Server, Some(rate)) => renewal(Gap::Exponential, rate, rng),
                (Scenario::Offline, _) => {
                    Box::new((0..s.samples).map(|_| Request::at(Nanos::ZERO)))
                }
                _ => return Err(no_arrivals(s.scenario.name())),
            },
        })
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
    check("dwell", dwell.iter().all(|d| d.0 > 0), "has a time that is not above 0")
}

fn validate_points(points: &[(Nanos, f64)]) -> Result<(), TraceError> {
    check("points", !points.is_empty(), "is empty: give at least one [time, rate]")?;
    let ascending = points.windows(2).all(|w| w[0].0 < w[1].0);
    check("points", ascending, "has times that do not ascend")?;
    let legal = points.iter().all(|p| (0.0..=1e9).contains(&p.1));
    check("points", legal, "has a rate not from 0 to 1e9 requests/s")?;
    check("points", points.iter().any(|p| p.1 > 0.0), "has only rates of 0: no request at all")
}
