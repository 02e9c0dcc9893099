//! A tenant's goal, and how close a run comes to it.

use cotenant_profiles::Nanos;
use cotenant_results::Metric;
use cotenant_results::columns::overload_rates;
use cotenant_sim::scenario::TokenGoals;

/// Share of requests that must be within the goal: goals are meant for the 99th percentile.
pub(crate) const ATTAINED: f64 = 0.99;

/// A goal.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Goal {
    /// Latency of whole answers.
    Latency(Nanos),
    /// Time to the first token, and time per further token.
    Tokens(TokenGoals),
}

/// What one tenant got in one run.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Got {
    pub(crate) p50_ms: Option<f64>,
    pub(crate) p99_ms: Option<f64>,
    pub(crate) ttft_p99_ms: Option<f64>,
    pub(crate) tpot_p99_ms: Option<f64>,
    /// Share of its requests within the goal; `None` without a goal.
    pub(crate) attained: Option<f64>,
    /// Requests whose outcome is known.
    pub(crate) seen: u64,
    /// Share of arrived requests that were answered.
    pub(crate) answered: f64,
    /// More requests came than were served, until the end: its goal is missed sooner or later. Its latencies
    /// are `None`, since they would only reflect the length of the run.
    pub(crate) overloaded: bool,
    pub(crate) rps: f64,
    pub(crate) goodput_rps: f64,
    /// Mean items of a batch.
    pub(crate) batch_mean: Option<f64>,
}

impl Got {
    /// Reads a row of `results.csv`, whose last field is `status`.
    pub(crate) fn of(get: impl Fn(Metric) -> Option<f64>, status: &str) -> Self {
        let count = |metric| get(metric).unwrap_or(0.0);
        let (offered, completed) = (count(Metric::Offered), count(Metric::Completed));
        let rps = count(Metric::Throughput);
        let goodput_rps = count(Metric::Goodput);
        let attained = get(Metric::SloAttainment);
        let ended = completed + count(Metric::Dropped);
        // Late requests that have not ended count as missed: this is the number of requests behind
        // `attained`.
        let good = if rps > 0.0 { completed * goodput_rps / rps } else { 0.0 };
        let seen = match attained {
            Some(share) if share > 0.0 => (good / share).round().max(ended),
            Some(_) => ended.max(1.0),
            // Requests that arrived and have no answer yet are waiting.
            None if ended == 0.0 => offered,
            None => ended,
        };
        Self {
            p50_ms: get(Metric::LatencyP50),
            p99_ms: get(Metric::LatencyP99),
            ttft_p99_ms: get(Metric::TtftP99),
            tpot_p99_ms: get(Metric::TpotP99),
            attained,
            seen: seen as u64,
            answered: if offered > 0.0 { (completed / offered).min(1.0) } else { 1.0 },
            overloaded: overload_rates(status).is_some(),
            rps,
            goodput_rps,
            batch_mean: get(Metric::BatchMean),
        }
    }

    /// Whether the goal is met until the end, as far as these requests tell.
    fn keeps(&self) -> bool {
        self.attained.is_some_and(|a| a >= ATTAINED)
    }
}

impl Goal {
    /// The 99th percentile over the goal, the worse of two; `None` if no request was served, or if the queue
    /// grew.
    fn quantile(self, got: &Got) -> Option<f64> {
        let over = |value: Option<f64>, goal: Nanos| Some(value? / goal.as_millis_f64());
        match self {
            Self::Latency(slo) => over(got.p99_ms.filter(|_| !got.overloaded), slo),
            Self::Tokens(TokenGoals { ttft, tpot }) => {
                let first = over(got.ttft_p99_ms.filter(|_| !got.overloaded), ttft)?;
                // Answers of one token have no second token.
                Some(first.max(over(got.tpot_p99_ms, tpot).unwrap_or(0.0)))
            }
        }
    }

    /// How close one run comes to the goal: p99 over goal, but at least just above 1 if too few requests met
    /// it. If a queue grows, there is no p99: the late share and the unanswered share tell how far off the
    /// goal is, up to about 100.
    pub(crate) fn ratio(self, got: &Got) -> f64 {
        match (self.quantile(got), got.attained) {
            (Some(ratio), _) if got.keeps() => ratio.min(1.0),
            (Some(ratio), Some(_)) => ratio.max(1.0001),
            // No request was answered, or none arrived.
            (_, None) if got.answered == 0.0 => 101.0,
            (_, None) => 0.0,
            (None, Some(_)) if got.keeps() => 1.0,
            (None, Some(share)) => 1.0001 + 50.0 * (1.0 - share) + 50.0 * (1.0 - got.answered),
        }
    }

    /// The mean ratio over runs; at least just above 1 if the queue grew in half of them or more.
    pub(crate) fn mean_ratio(self, got: impl Iterator<Item = Got> + Clone) -> f64 {
        let (mut n, mut sum, mut grew) = (0_u32, 0.0, 0_u32);
        for got in Self::telling(got) {
            n += 1;
            sum += self.ratio(&got);
            grew += u32::from(got.overloaded);
        }
        let mean = sum / f64::from(n.max(1));
        if grew > 0 && grew * 2 >= n { mean.max(1.0001) } else { mean }
    }

    /// The runs at whose end the outcome of some request is known; all runs, if there is none. A run that
    /// ends before its only request is answered or late tells nothing when others tell more.
    pub(crate) fn telling(
        got: impl Iterator<Item = Got> + Clone,
    ) -> impl Iterator<Item = Got> + Clone {
        let any = got.clone().any(|g| g.attained.is_some());
        got.filter(move |g| !any || g.attained.is_some())
    }

    /// Whether any request arrived in one of the runs: otherwise they tell nothing about the goal.
    pub(crate) fn asked(got: impl Iterator<Item = Got>) -> bool {
        got.map(|g| g.seen).sum::<u64>() > 0
    }

    /// The latency that a growing queue breaks first: within about twenty times this, the goal is missed.
    pub(crate) fn longest(self) -> Nanos {
        match self {
            Self::Latency(slo) => slo,
            Self::Tokens(goals) => goals.ttft,
        }
    }

    /// `20ms`; `first token 500ms, then 40ms each`.
    pub(crate) fn words(self) -> String {
        match self {
            Self::Latency(slo) => slo.to_string(),
            Self::Tokens(TokenGoals { ttft, tpot }) => {
                format!("first token {ttft}, then {tpot} each")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_goal_is_as_near_as_its_worse_half() {
        let ms = Nanos::from_millis;
        let goal = Goal::Tokens(TokenGoals { ttft: ms(500), tpot: ms(40) });
        let got = |ttft: f64, tpot: Option<f64>, attained: f64| Got {
            ttft_p99_ms: Some(ttft),
            tpot_p99_ms: tpot,
            attained: Some(attained),
            ..Got::default()
        };
        assert_eq!(goal.ratio(&got(250.0, Some(30.0), 1.0)), 0.75);
        assert_eq!(goal.ratio(&got(250.0, None, 1.0)), 0.5);
        assert_eq!(goal.ratio(&got(750.0, Some(30.0), 0.9)), 1.5);
        // 99 % of the requests may keep both goals while the worse 99th percentile is above its goal, or not.
        assert_eq!(goal.ratio(&got(501.0, Some(30.0), 0.99)), 1.0);
        assert_eq!(goal.ratio(&got(400.0, Some(39.0), 0.98)), 1.0001);
        // Requests came, and none has an answer; then none came.
        let none = Got { answered: 0.0, ..Got::default() };
        assert_eq!(goal.ratio(&none), 101.0);
        assert_eq!(goal.ratio(&Got { answered: 1.0, ..none }), 0.0);
        // Next to runs that tell more, it does not count.
        assert_eq!(goal.mean_ratio([none, got(250.0, Some(30.0), 1.0)].into_iter()), 0.75);
    }

    #[test]
    fn where_a_queue_grows_more_answers_in_time_are_better() {
        let goal = Goal::Latency(Nanos::from_millis(20));
        let got = |attained: f64, answered: f64| Got {
            p99_ms: None,
            attained: Some(attained),
            answered,
            overloaded: true,
            ..Got::default()
        };
        let ratios = [got(1.0, 0.98), got(0.9, 0.95), got(0.0, 0.9), got(0.0, 0.2)];
        let ratios = ratios.map(|g| goal.ratio(&g));
        assert!(ratios.is_sorted() && ratios[0] == 1.0 && ratios[3] < 101.0, "{ratios:?}");
        // One run of four says little; two say that it does not last.
        let runs = |grew: usize| {
            (0..4).map(move |i| {
                if i < grew {
                    got(1.0, 0.98)
                } else {
                    Got { p99_ms: Some(10.0), attained: Some(1.0), ..Got::default() }
                }
            })
        };
        assert!(goal.mean_ratio(runs(1)) < 1.0 && goal.mean_ratio(runs(2)) > 1.0);
    }
}
