//! The answer: which way of sharing keeps which goal, how certain that is, and what it means, in sentences.
//! It is computed from `results.csv`, for every sweep point.

mod judge;
mod words;

use crate::columns::{Better, Metric};
use crate::estimate::Estimate;
use crate::run_info::{RunInfo, Winner};
use crate::table::{Row, Table};

pub use judge::{TARGET, more_requests, wilson};

/// Whether a goal is kept: at least 99 % of a tenant's requests within it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Goal {
    /// The whole 95 % interval of the attainment is at or above the target.
    Met,
    /// The whole interval is below it.
    Missed,
    /// The interval includes the target: the run is too short to tell.
    Undecided {
        /// Approximately how many more requests decide it, if the attainment stays the same; `None` if it is
        /// practically at the target.
        more: Option<u64>,
    },
    /// The tenant has no goal.
    None,
    /// The tenant has a goal, but no request to judge it by.
    Unknown,
}

/// One tenant under one policy.
#[derive(Clone, Debug, PartialEq)]
pub struct Cell {
    /// Whether its goal is kept.
    pub goal: Goal,
    /// Share of requests within the goal, %, with the interval by which the goal is judged: Wilson's over all
    /// requests, or Student's over the repeats if that is wider.
    pub attainment: Option<Attainment>,
    /// p99 latency, ms.
    pub p99: Option<Estimate>,
    /// Requests/s within the goal.
    pub goodput: Option<Estimate>,
    /// Requests/s.
    pub throughput: Option<Estimate>,
    /// Requests/s offered and served, if the load was more than the policy could serve: requests that arrived
    /// in the window, and requests that left it.
    pub overloaded: Option<(f64, f64)>,
}

/// A share of requests, in %, with its 95 % interval.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Attainment {
    /// Mean over the repeats, %.
    pub mean: f64,
    /// Lower end, %.
    pub low: f64,
    /// Upper end, %.
    pub high: f64,
    /// Number of requests that it is computed from.
    pub n: u64,
}

/// One policy at one sweep point.
#[derive(Clone, Debug, PartialEq)]
pub struct Line {
    /// Its name in plots and tables.
    pub label: String,
    /// The policy.
    pub policy: String,
    /// Whether it is a bound, which limits the others and does not compete with them.
    pub bound: bool,
    /// One for each tenant of the answer.
    pub cells: Vec<Option<Cell>>,
    /// Goodput of the whole GPU, requests/s.
    pub goodput: Option<Estimate>,
    /// Share of the bound's goodput, averaged over the repeats.
    pub share: Option<f64>,
    /// Whether it delivers more than the bound in some repeat, beyond what requests in progress at the start
    /// of the window explain.
    pub exceeds: bool,
    /// CU utilisation, %.
    pub cu: Option<Estimate>,
    /// Energy, J.
    pub energy: Option<Estimate>,
    /// The metric that ranks it if no tenant has a goal, or if goals do not decide.
    pub rank: Option<Estimate>,
    /// Reasons why cells failed, each with the number of cells.
    pub failures: Vec<(String, usize)>,
    /// Whether it is the first policy that keeps, or may keep, every goal.
    pub best: bool,
}

/// How a policy does with all goals taken together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// It keeps them all.
    Keeps,
    /// It misses none for certain, but some are undecided.
    May,
    /// It misses some for certain, or its cells failed.
    Misses,
}

impl Line {
    /// Number of goals for which `which` holds.
    #[must_use]
    pub fn count(&self, which: impl Fn(Goal) -> bool) -> usize {
        self.cells.iter().flatten().filter(|c| which(c.goal)).count()
    }

    /// Whether some tenant has a goal.
    #[must_use]
    pub fn has_goal(&self) -> bool {
        self.count(|g| g != Goal::None) > 0
    }

    /// How it does with all goals taken together.
    #[must_use]
    pub fn standing(&self) -> Standing {
        let missed = self.count(|g| matches!(g, Goal::Missed | Goal::Unknown));
        if missed > 0 || !self.failures.is_empty() || self.goodput.is_none() {
            return Standing::Misses;
        }
        match self.count(|g| matches!(g, Goal::Undecided { .. })) {
            0 => Standing::Keeps,
            _ => Standing::May,
        }
    }

    /// Whether both keep the goals equally well and have the same rank.
    pub(super) fn does_as_well_as(&self, other: &Self) -> bool {
        let rank = |l: &Self| l.rank.map_or(f64::NEG_INFINITY, |r| r.mean);
        let same = (rank(other) - rank(self)).abs() <= judge::TIE * rank(other).abs();
        self.standing() == other.standing() && self.worst() == other.worst() && same
    }

    /// The attainment of the goal that is furthest from being kept, in %.
    fn worst(&self) -> f64 {
        let of = self.cells.iter().flatten().filter(|c| c.goal != Goal::None);
        of.map(|c| c.attainment.map_or(0.0, |a| a.mean.min(TARGET * 100.0))).fold(100.0, f64::min)
    }
}

/// One sweep point; without a sweep there is a single one without a name.
#[derive(Clone, Debug, PartialEq)]
pub struct Point {
    /// The sweep values, in words.
    pub name: String,
    /// Sweep values, by key.
    pub values: Vec<String>,
    /// Policies, best first; the bound comes last.
    pub lines: Vec<Line>,
}

impl Point {
    /// Whether more than one policy competes: a single policy cannot win.
    #[must_use]
    pub fn has_rivals(&self) -> bool {
        self.rivals().count() > 1
    }

    /// Policies that compete and delivered results, best first.
    pub fn rivals(&self) -> impl Iterator<Item = &Line> {
        self.lines.iter().filter(|l| !l.bound && l.goodput.is_some())
    }

    /// The best policy, if there is one.
    #[must_use]
    pub fn best(&self) -> Option<&Line> {
        self.lines.iter().find(|l| l.best)
    }
}

/// The whole answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// Tenants, in file order.
    pub tenants: Vec<String>,
    /// Sweep points, in the order of `results.csv`.
    pub points: Vec<Point>,
    /// The metric that ranks policies without goals.
    pub rank_by: Metric,
    /// Whether some tenant has a goal.
    pub goals: bool,
}

impl Answer {
    /// Judges a run.
    #[must_use]
    pub fn of(run: &RunInfo, results: &Table) -> Self {
        judge::judge(run, results)
    }

    /// The best policy of every point that has one, with its settings from `layouts.csv`. Where goals are kept
    /// equally well, the first in file order, preferably one that deploys today.
    #[must_use]
    pub fn winners(&self, run: &RunInfo, layouts: Option<&Table>) -> Vec<Winner> {
        let of = |point: &Point| {
            let deploys = |line: &Line| {
                let policy = run.policies.iter().find(|p| p.label == line.label);
                policy.and_then(|p| p.deployable)
            };
            let equals = || {
                let first = point.rivals().next().filter(|_| self.goals)?;
                let same = |l: &&Line| l.does_as_well_as(first);
                (first.standing() != Standing::Misses).then_some(())?;
                point.rivals().filter(same).find(|l| deploys(l) == Some(true)).or(Some(first))
            };
            let best = point.best().or_else(equals).filter(|_| point.has_rivals())?;
            let winner = |line: &Line, today, tied| Winner {
                point: point.name.clone(),
                label: line.label.clone(),
                certain: line.standing() == Standing::Keeps,
                settings: layouts.map_or(vec![], |t| settings(run, t, &line.label, &point.values)),
                today,
                tied,
                headroom: None,
            };
            let mut rivals = point.rivals();
            let today = match deploys(best) {
                Some(false) => rivals
                    .find(|l| deploys(l) == Some(true) && l.standing() != Standing::Misses)
                    .map(|line| Box::new(winner(line, None, false))),
                _ => None,
            };
            Some(winner(best, today, point.best().is_none()))
        };
        self.points.iter().filter_map(of).collect()
    }

    /// The answer in a few sentences, the most important one first. `` `names` `` are in backquotes.
    #[must_use]
    pub fn sentences(&self) -> Vec<String> {
        words::sentences(self)
    }

    /// 1 if more of the ranking metric is better, -1 if less is.
    #[must_use]
    pub fn sign(&self) -> f64 {
        if self.rank_by.column().better == Better::Lower { -1.0 } else { 1.0 }
    }
}

/// The settings that `label` resolved to at a sweep point: each setting once, with the tenants it is for.
fn settings(run: &RunInfo, layouts: &Table, label: &str, at: &[String]) -> Vec<String> {
    let here = |row: &&Row| {
        let swept = run.sweep_keys.iter().map(|k| layouts.text(row, k));
        layouts.text(row, "label") == label
            && swept.zip(at).all(|(v, a)| v == a || v.is_empty() || a.is_empty())
    };
    let mut list: Vec<(String, usize)> = vec![];
    for row in layouts.rows.iter().filter(here) {
        let batch = match layouts.number(row, "batch_max") {
            Some(b) if b > 1.0 => format!(", batches up to {b}"),
            _ => String::new(),
        };
        let who = layouts.text(row, "tenant");
        let text = format!("{who}: {}{batch}", layouts.text(row, "setting"));
        match list.iter_mut().find(|(t, _)| *t == text) {
            Some((_, n)) => *n += 1,
            None => list.push((text, 1)),
        }
    }
    let times =
        |(text, n): (String, usize)| if n > 1 { format!("{text} (× {n} workers)") } else { text };
    list.into_iter().map(times).collect()
}
