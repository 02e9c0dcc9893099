//! The largest load at which a policy keeps every goal.

use serde::Serialize;

use crate::cell;
use crate::config::{Experiment, Point};
use crate::fail::{Done, Failure};
use crate::loads::scaled;
use crate::plan;
use crate::prepare::Preparer;
use crate::watch::Wants;

/// The range of a search, and when it ends.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reach {
    /// Range of factors to try: beyond it the question is a different one.
    pub(crate) least: f64,
    pub(crate) most: f64,
    /// The search ends when the factor is bracketed this closely.
    pub(crate) close: f64,
    /// Most repeats to run at each factor, starting with the first.
    pub(crate) repeats: usize,
}

/// The capacity of a policy.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Capacity {
    pub(crate) label: String,
    /// The largest factor at which all goals are kept; `None` if there is none.
    pub(crate) factor: Option<f64>,
    /// Requests completed per second at that factor.
    pub(crate) throughput_rps: Option<f64>,
    /// Which tenant misses its goal first just above it, or why a cell fails there.
    pub(crate) limit: String,
}

/// The result at one factor.
struct Trial {
    keeps: bool,
    throughput: f64,
    limit: String,
}

/// Why the load of an experiment has no largest factor; `None` if it has one.
pub(crate) fn pointless(point: &Point) -> Option<&'static str> {
    if point.tenants.iter().all(|t| t.slo.is_none()) {
        return Some("tenant: nobody has an `slo` to be kept");
    }
    if !point.tenants.iter().any(|t| scaled(&t.arrivals, 2.0).is_some()) {
        return Some("tenant: all loads are closed loops, whose rate cannot be multiplied");
    }
    None
}

/// Finds the factor of one policy by bisection, as long as `goes_on` lets it.
///
/// # Errors
/// Bad input; a stop was requested.
pub(crate) fn search(
    e: &Experiment,
    row: usize,
    wanted: f64,
    reach: Reach,
    goes_on: &dyn Fn() -> Done,
) -> Done<Capacity> {
    let mut preparer = Preparer::default();
    let label = e.point.policies[row].label.clone();
    let (mut low, mut high) = (None, None);
    let mut factor: f64 = 1.0;
    while (reach.least..=reach.most).contains(&factor) {
        goes_on()?;
        let trial = attempt(&mut preparer, e, row, factor, wanted, reach.repeats)?;
        if trial.keeps {
            low = Some((factor, trial));
        } else {
            high = Some((factor, trial.limit));
        }
        factor = match (&low, &high) {
            (Some((l, _)), Some((h, _))) if h / l <= reach.close => break,
            (Some((l, _)), Some((h, _))) => (l * h).sqrt(),
            (Some((l, _)), None) => l * 2.0,
            (None, Some((h, _))) => h / 2.0,
            (None, None) => unreachable!("a factor was tried"),
        };
    }
    Ok(Capacity {
        label,
        factor: low.as_ref().map(|(factor, _)| *factor),
        throughput_rps: low.map(|(_, trial)| trial.throughput),
        limit: high
            .map_or_else(|| format!("nothing up to {} times", reach.most), |(_, limit)| limit),
    })
}

/// Runs `repeats` repeats of one policy at one factor.
fn attempt(
    preparer: &mut Preparer,
    e: &Experiment,
    row: usize,
    factor: f64,
    wanted: f64,
    repeats: usize,
) -> Done<Trial> {
    let mut e = e.clone();
    let point = &mut e.point;
    for tenant in &mut point.tenants {
        if let Some(arrivals) = scaled(&tenant.arrivals, factor) {
            tenant.arrivals = arrivals;
        }
    }
    let facts = preparer.facts(&e, &e.point).map_err(Failure::Input)?;
    let ready = facts.compile(&e.base, &e.point).map_err(Failure::Input)?;
    let repeats = repeats.min(e.seeds.len());
    let cells = (0..repeats).map(|repeat| row * e.seeds.len() + repeat);
    let mut trial = Trial { keeps: true, throughput: 0.0, limit: String::new() };
    for number in cells {
        let cell = plan::cell(&e, &ready.meaning, number);
        let outcome = cell::compute(&e, &ready, &cell, Wants::default());
        if !outcome.is_ok() {
            return Ok(Trial { keeps: false, limit: outcome.status, ..trial });
        }
        if let Some(limit) = outcome.overloaded.iter().flatten().next() {
            return Ok(Trial { keeps: false, limit: limit.clone(), ..trial });
        }
        let whole = outcome.metrics.last().expect("the whole GPU has a row");
        trial.throughput +=
            whole.get(cotenant_results::Metric::Throughput).unwrap_or(0.0) / repeats as f64;
        if let Some(limit) = missed(&e.point, &outcome, wanted) {
            return Ok(Trial { keeps: false, limit, ..trial });
        }
    }
    Ok(trial)
}

/// The tenant that is furthest from its goal, if one misses it.
fn missed(point: &Point, outcome: &cell::Outcome, wanted: f64) -> Option<String> {
    let judged = point.tenants.iter().zip(&outcome.metrics).filter(|(t, _)| t.slo.is_some());
    let attained = judged.map(|(t, m)| {
        let share = m.get(cotenant_results::Metric::SloAttainment).unwrap_or(0.0);
        (share, t.name.as_str())
    });
    let (share, name) = attained.min_by(|a, b| a.0.total_cmp(&b.0))?;
    (share < wanted).then(|| format!("{name}: {:.1} % within its goal", 100.0 * share))
}
