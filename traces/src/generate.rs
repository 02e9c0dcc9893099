//! Arrival processes: renewal processes of any gap distribution, Poisson processes with a rate that
//! changes over time, and Markov-modulated ones. No allocation per request, and every logarithm and
//! power through `libm`, so that a seed means the same arrivals on every machine.

use cotenant_profiles::Nanos;
use rand_distr::{LogNormal, Pareto, Weibull};

use crate::request::Request;
use crate::rng::{Real, Rng};

/// An instant that advances by fractional nanoseconds without losing any.
#[derive(Clone, Debug, Default)]
struct Clock {
    ns: u64,
    carry: f64,
}

impl Clock {
    /// Moves on; `None` beyond the end of time (584 years).
    #[inline]
    fn advance(&mut self, gap_ns: f64) -> Option<Nanos> {
        let gap = gap_ns + self.carry;
        if gap >= 1.8e19 || gap.is_nan() {
            return None;
        }
        let whole = gap as u64;
        self.carry = gap - whole as f64;
        self.ns = self.ns.checked_add(whole)?;
        Some(Nanos(self.ns))
    }
}

/// A distribution of gaps with mean 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Gap {
    /// Always 1.
    Constant,
    /// Exponential: a Poisson process.
    Exponential,
    /// Gamma with this shape; the coefficient of variation is 1/√shape.
    Gamma {
        /// Shape.
        shape: f64,
    },
    /// Log-normal with this standard deviation of the logarithm.
    LogNormal {
        /// Standard deviation of the logarithm.
        sigma: f64,
    },
    /// Weibull with this shape.
    Weibull {
        /// Shape.
        shape: f64,
        /// 1/Γ(1 + 1/shape), which makes the mean 1.
        scale: f64,
    },
    /// Pareto with this tail index, above 1.
    Pareto {
        /// Tail index.
        shape: f64,
    },
}

impl Gap {
    /// Gamma gaps with coefficient of variation `cv`; 0 gives constant gaps.
    #[must_use]
    pub fn gamma_cv(cv: f64) -> Self {
        if cv == 0.0 { Self::Constant } else { Self::Gamma { shape: 1.0 / (cv * cv) } }
    }

    /// Weibull gaps of this shape.
    #[must_use]
    pub fn weibull(shape: f64) -> Self {
        Self::Weibull { shape, scale: 1.0 / libm::tgamma(1.0 + 1.0 / shape) }
    }

    /// The coefficient of variation; infinite where the variance is.
    #[must_use]
    pub fn cv(self) -> f64 {
        match self {
            Self::Constant => 0.0,
            Self::Exponential => 1.0,
            Self::Gamma { shape } => 1.0 / libm::sqrt(shape),
            Self::LogNormal { sigma } => libm::sqrt(libm::expm1(sigma * sigma)),
            Self::Weibull { shape, .. } => {
                let ratio = libm::lgamma(1.0 + 2.0 / shape) - 2.0 * libm::lgamma(1.0 + 1.0 / shape);
                libm::sqrt(libm::expm1(ratio))
            }
            Self::Pareto { shape } if shape > 2.0 => 1.0 / libm::sqrt(shape * (shape - 2.0)),
            Self::Pareto { .. } => f64::INFINITY,
        }
    }

    /// The Weibull shape whose coefficient of variation is `cv`, to 1e-9, by bisection.
    #[must_use]
    pub fn weibull_shape(cv: f64) -> f64 {
        let (mut low, mut high) = (0.02_f64, 100.0_f64);
        for _ in 0..80 {
            let middle = libm::sqrt(low * high);
            if Self::weibull(middle).cv() > cv { low = middle } else { high = middle }
        }
        high
    }

    /// One gap.
    #[inline]
    pub fn draw(self, rng: &mut Rng) -> f64 {
        match self {
            Self::Constant => 1.0,
            Self::Exponential => rng.exp1(),
            Self::Gamma { shape } => rng.gamma(shape) / shape,
            Self::LogNormal { sigma } => rng.sample(
                LogNormal::new(Real(-0.5 * sigma * sigma), Real(sigma)).expect("a finite sigma"),
            ),
            Self::Weibull { shape, scale } => {
                rng.sample(Weibull::new(Real(scale), Real(shape)).expect("a shape above 0"))
            }
            Self::Pareto { shape } => {
                let scale = (shape - 1.0) / shape;
                rng.sample(Pareto::new(Real(scale), Real(shape)).expect("a shape above 1"))
            }
        }
    }
}

/// Independent gaps of one distribution. The first request comes one whole gap after the start,
/// except for constant gaps, where it comes at the phase.
#[derive(Clone, Debug)]
pub struct Renewal {
    gap: Gap,
    mean_ns: f64,
    clock: Clock,
    first_ns: Option<f64>,
    rng: Rng,
}

impl Renewal {
    /// `rate` requests/s, finite and above 0. `phase` is where the first request of a constant
    /// process comes, as a fraction of its period; it is drawn from `rng` when absent.
    #[must_use]
    pub fn new(gap: Gap, rate: f64, phase: Option<f64>, mut rng: Rng) -> Self {
        let mean_ns = 1e9 / rate;
        let first_ns = match gap {
            Gap::Constant => Some(phase.unwrap_or_else(|| rng.uniform()) * mean_ns),
            _ => None,
        };
        Self { gap, mean_ns, clock: Clock::default(), first_ns, rng }
    }
}

impl Iterator for Renewal {
    type Item = Request;

    #[inline]
    fn next(&mut self) -> Option<Request> {
        let gap_ns = match self.first_ns.take() {
            Some(first) => first,
            None => self.gap.draw(&mut self.rng) * self.mean_ns,
        };
        self.clock.advance(gap_ns).map(Request::at)
    }
}

/// A rate over time, in requests/s.
#[derive(Clone, Debug, PartialEq)]
pub enum RateShape {
    /// `base`, and between `start` and `start + len` `peak`, with linear ramps of `ramp` before and
    /// after; again every `period`.
    OnOff {
        /// Rate outside, requests/s.
        base: f64,
        /// Rate inside, requests/s.
        peak: f64,
        /// When the plateau begins, s.
        start: f64,
        /// How long the plateau lasts, s.
        len: f64,
        /// How long each ramp lasts, s.
        ramp: f64,
        /// Repeats this often, s.
        period: Option<f64>,
    },
    /// mean × (1 + amplitude × sin(2π(t/period + phase))).
    Diurnal {
        /// Mean rate, requests/s.
        mean: f64,
        /// Relative, 0 to 1.
        amplitude: f64,
        /// Length of a day, s.
        period: f64,
        /// Fraction of a period.
        phase: f64,
    },
    /// Points (time, rate); before the first and after the last the rate stays.
    Piecewise {
        /// Time in s, rate in requests/s; times strictly ascending.
        points: Vec<(f64, f64)>,
        /// Linear between points; else constant until the next.
        linear: bool,
        /// Starts again after the last point.
        repeat: bool,
    },
}

impl RateShape {
    /// The highest rate there is.
    #[must_use]
    pub fn peak(&self) -> f64 {
        match self {
            Self::OnOff { base, peak, .. } => base.max(*peak),
            Self::Diurnal { mean, amplitude, .. } => mean * (1.0 + amplitude),
            Self::Piecewise { points, .. } => points.iter().map(|p| p.1).fold(0.0, f64::max),
        }
    }

    /// The rate `t` seconds after the start.
    #[must_use]
    pub fn at(&self, t: f64) -> f64 {
        match self {
            Self::OnOff { base, peak, start, len, ramp, period } => {
                let t = period.map_or(t, |p| libm::fmod(t, p));
                let share = if t < *start {
                    if *ramp > 0.0 { 1.0 - (start - t) / ramp } else { 0.0 }
                } else if t < start + len {
                    1.0
                } else if *ramp > 0.0 {
                    1.0 - (t - start - len) / ramp
                } else {
                    0.0
                };
                base + (peak - base) * share.clamp(0.0, 1.0)
            }
            Self::Diurnal { mean, amplitude, period, phase } => {
                let turn = std::f64::consts::TAU * (libm::fmod(t, *period) / period + phase);
                mean * (1.0 + amplitude * libm::sin(turn))
            }
            Self::Piecewise { points, linear, repeat } => {
                let t = match points.last() {
                    Some(last) if *repeat && last.0 > 0.0 => libm::fmod(t, last.0),
                    _ => t,
                };
                interpolate(points, *linear, t)
            }
        }
    }

    /// How many requests the first `span` seconds have on average; parts of rounds as parts of their
    /// mean.
    #[must_use]
    pub fn expected(&self, span: f64) -> f64 {
        match self {
            Self::OnOff { base, peak, start, len, ramp, period } => {
                // Both ramps together are as much as one at full height.
                let rounds = period.map_or(f64::from(span > start - ramp), |p| span / p);
                let on = (rounds * (len + ramp)).min(span);
                base * (span - on) + peak * on
            }
            Self::Diurnal { mean, .. } => mean * span,
            Self::Piecewise { points, linear, repeat } => match points.last() {
                Some(&(cycle, _)) if *repeat && cycle > 0.0 => {
                    span / cycle * integral(points, *linear, cycle)
                }
                _ => integral(points, *linear, span),
            },
        }
    }

    /// A rate that is not exceeded from `t` (s) until a later time, and that time (infinite: for
    /// good). Thinning by it draws few candidates in vain where the rate is far below its peak.
    fn stretch(&self, t: f64) -> (f64, f64) {
        match self {
            Self::OnOff { base, peak, start, len, ramp, period } => {
                let within = period.map_or(t, |p| libm::fmod(t, p));
                let round = t - within;
                let (rise, fall) = (start - ramp, start + len + ramp);
                if within < rise {
                    (*base, round + rise)
                } else if within < fall {
                    (base.max(*peak), round + fall)
                } else {
                    (*base, period.map_or(f64::INFINITY, |p| round + p))
                }
            }
            Self::Diurnal { .. } => (self.peak(), f64::INFINITY),
            Self::Piecewise { points, linear, repeat } => {
                let within = match points.last() {
                    Some(last) if *repeat && last.0 > 0.0 => libm::fmod(t, last.0),
                    _ => t,
                };
                let next = points.partition_point(|p| p.0 <= within);
                let before = next.checked_sub(1).map(|i| points[i].1);
                let rate = match (before, points.get(next)) {
                    (Some(before), Some(after)) if *linear => before.max(after.1),
                    (Some(before), _) => before,
                    (None, Some(after)) => after.1,
                    (None, None) => 0.0,
                };
                (rate, points.get(next).map_or(f64::INFINITY, |p| t - within + p.0))
            }
        }
    }

    /// The time in s from which on the rate is 0 for good.
    #[must_use]
    pub fn end(&self) -> Option<f64> {
        match self {
            Self::OnOff { base, start, len, ramp, period: None, .. } if *base == 0.0 => {
                Some(start + len + ramp)
            }
            Self::Piecewise { points, repeat: false, .. } => {
                points.last().filter(|last| last.1 == 0.0).map(|last| last.0)
            }
            _ => None,
        }
    }
}

fn interpolate(points: &[(f64, f64)], linear: bool, t: f64) -> f64 {
    let next = points.partition_point(|p| p.0 <= t);
    match (next.checked_sub(1).map(|i| points[i]), points.get(next)) {
        (None, None) => 0.0,
        (None, Some(first)) => first.1,
        (Some(last), None) => last.1,
        (Some(a), Some(_)) if !linear => a.1,
        (Some(a), Some(b)) => a.1 + (b.1 - a.1) * (t - a.0) / (b.0 - a.0),
    }
}

/// The area under the points from 0 to `end`.
fn integral(points: &[(f64, f64)], linear: bool, end: f64) -> f64 {
    let mut edges: Vec<f64> = points.iter().map(|p| p.0).filter(|t| *t < end).collect();
    edges.insert(0, 0.0);
    edges.push(end);
    let part = |w: &[f64]| (w[1] - w[0]) * interpolate(points, linear, f64::midpoint(w[0], w[1]));
    edges.windows(2).map(part).sum()
}

/// A Poisson process whose rate follows a shape, by thinning (Lewis and Shedler 1979).
#[derive(Clone, Debug)]
pub struct Varying {
    shape: RateShape,
    end_ns: f64,
    clock: Clock,
    rng: Rng,
}

impl Varying {
    /// Arrivals of `shape`; none at all where its peak is 0.
    #[must_use]
    pub fn new(shape: RateShape, rng: Rng) -> Self {
        let end_ns = shape.end().map_or(f64::INFINITY, |s| s * 1e9);
        Self { shape, end_ns, clock: Clock::default(), rng }
    }
}

impl Iterator for Varying {
    type Item = Request;

    fn next(&mut self) -> Option<Request> {
        if self.shape.peak() <= 0.0 {
            return None;
        }
        loop {
            let now_ns = self.clock.ns as f64 + self.clock.carry;
            if now_ns >= self.end_ns {
                return None;
            }
            let (bound, until) = self.shape.stretch(now_ns / 1e9);
            // Whatever the rounding, time goes on.
            let left_ns = (until * 1e9 - now_ns).max(1.0);
            let gap_ns = if bound > 0.0 { self.rng.exp1() * 1e9 / bound } else { f64::INFINITY };
            if gap_ns >= left_ns {
                // An exponential gap that outlives the stretch may be drawn anew.
                self.clock.advance(left_ns)?;
                continue;
            }
            let at = self.clock.advance(gap_ns)?;
            if at.0 as f64 >= self.end_ns {
                return None;
            }
            if self.rng.uniform() * bound < self.shape.at(at.as_secs_f64()) {
                return Some(Request::at(at));
            }
        }
    }
}

/// A Poisson process whose rate jumps between states with exponential dwell times, each next state
/// drawn evenly among the others. It starts in its long-run distribution over the states.
#[derive(Clone, Debug)]
pub struct Mmpp {
    states: Vec<(f64, f64)>,
    state: usize,
    /// Time left in the state, ns.
    left: f64,
    clock: Clock,
    rng: Rng,
}

impl Mmpp {
    /// States as (rate in requests/s, mean dwell time). At least one, dwell times above 0.
    #[must_use]
    pub fn new(states: &[(f64, Nanos)], mut rng: Rng) -> Self {
        assert!(!states.is_empty(), "an MMPP has at least one state");
        let states: Vec<_> = states.iter().map(|&(rate, dwell)| (rate, dwell.0 as f64)).collect();
        // With even jumps every state is visited equally often: its share of time is its dwell's.
        let mut point = rng.uniform() * states.iter().map(|s| s.1).sum::<f64>();
        let state = states
            .iter()
            .position(|s| {
                point -= s.1;
                point < 0.0
            })
            .unwrap_or(states.len() - 1);
        let left = rng.exp1() * states[state].1;
        Self { states, state, left, clock: Clock::default(), rng }
    }

    fn jump(&mut self) {
        let others = self.states.len() as u64 - 1;
        if others > 0 {
            let step = 1 + self.rng.below(others) as usize;
            self.state = (self.state + step) % self.states.len();
        }
        self.left = self.rng.exp1() * self.states[self.state].1;
    }
}

impl Iterator for Mmpp {
    type Item = Request;

    fn next(&mut self) -> Option<Request> {
        if self.states.iter().all(|s| s.0 <= 0.0) {
            return None;
        }
        // An exponential gap that outlives the state may be drawn anew: it has no memory.
        loop {
            let rate = self.states[self.state].0;
            let gap = if rate > 0.0 { self.rng.exp1() * 1e9 / rate } else { f64::INFINITY };
            if gap <= self.left {
                self.left -= gap;
                return self.clock.advance(gap).map(Request::at);
            }
            self.clock.advance(self.left)?;
            self.jump();
        }
    }
}
