//! `cotenant capacity`: how much more load each policy carries.

use std::path::PathBuf;

use clap::Args as ClapArgs;
use serde::Serialize;

use crate::cell;
use crate::config::{Experiment, Grid, Overrides, Point};
use crate::fail::{Done, Failure};
use crate::loads::scaled;
use crate::panics;
use crate::prepare::Preparer;
use crate::study::compute::{pool, threads};
use crate::text::{align, percent, rounded};
use crate::watch::Wants;
use crate::{plan, say};

/// Find the largest load at which each policy keeps every goal
///
/// Multiplies the rates of all tenants with open arrivals by a factor and searches the largest at
/// which every tenant with an SLO attains it: simulations only, all repeats at every factor. What
/// closed loops ask stays as it is.
#[derive(ClapArgs)]
#[command(after_help = "Examples:\n  \
    cotenant capacity experiments/quickstart.toml\n  \
    cotenant capacity mine.toml --attainment 95% --set repeats=5")]
pub(crate) struct Args {
    /// Experiment file, without a sweep
    #[arg(value_name = "EXP.toml")]
    experiment: PathBuf,
    /// Replace a field of the experiment; repeatable
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Share of requests that have to meet their goal
    #[arg(long, value_name = "SHARE", default_value = "99%", value_parser = percent)]
    attainment: f64,
    /// Threads [default: as many processors as this process may use]
    #[arg(short, long, alias = "threads", value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    jobs: Option<u16>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Factors that are looked at: beyond, the question is another one.
const LEAST: f64 = 1.0 / 64.0;
const MOST: f64 = 64.0;
/// A factor is known when it is bracketed this closely.
const CLOSE: f64 = 1.02;

/// What a policy carries.
#[derive(Clone, Debug, Serialize)]
struct Capacity {
    label: String,
    /// The largest factor at which all goals are kept; none where there is none.
    factor: Option<f64>,
    /// Requests completed per second there.
    throughput_rps: Option<f64>,
    /// Who misses its goal first, or why a cell fails, just above.
    limit: String,
}

/// What came of one factor.
struct Trial {
    keeps: bool,
    throughput: f64,
    limit: String,
}

/// `cotenant capacity`.
///
/// # Errors
/// Bad input; no tenant has a goal, or none an open load.
pub(crate) fn run(args: &Args) -> Done {
    let overrides = Overrides { set: args.set.clone(), seed: None };
    let grid = Grid::read(&args.experiment, &overrides).map_err(Failure::Input)?;
    let file = args.experiment.display();
    if grid.len() > 1 {
        let why = "sweep: capacity looks at one point; leave the sweep out, or --set its keys";
        return Err(Failure::input(format!("{file}: {why}")));
    }
    let e = grid.at(0).map_err(Failure::Input)?;
    let point = &e.point;
    if point.tenants.iter().all(|t| t.slo.is_none()) {
        return Err(Failure::input(format!("{file}: tenant: nobody has an `slo` to be kept")));
    }
    if !point.tenants.iter().any(|t| scaled(&t.arrivals, 2.0).is_some()) {
        let why = "tenant: all loads are closed loops, whose rate cannot be multiplied";
        return Err(Failure::input(format!("{file}: {why}")));
    }
    let pool = pool(threads(args.jobs.map_or(0, usize::from)))?;
    panics::keep_panics();
    use rayon::prelude::*;
    let rows: Vec<usize> = (0..point.policies.len()).collect();
    let found: Vec<Done<Capacity>> =
        pool.install(|| rows.into_par_iter().map(|row| search(&e, row, args.attainment)).collect());
    let _ = std::panic::take_hook();
    let mut found = found.into_iter().collect::<Done<Vec<_>>>()?;
    found.sort_by(|a, b| b.factor.unwrap_or(0.0).total_cmp(&a.factor.unwrap_or(0.0)));
    if args.json {
        let json = serde_json::to_string_pretty(&found).map_err(Failure::failed)?;
        return say::out(&(json + "\n"));
    }
    let row = |c: &Capacity| {
        let factor = c.factor.map_or_else(|| "none".to_owned(), |f| format!("{f:.2}"));
        let bounded = if c.factor == Some(MOST) { "at least " } else { "" };
        vec![
            c.label.clone(),
            format!("{bounded}{factor}"),
            rounded(c.throughput_rps),
            c.limit.clone(),
        ]
    };
    let header = ["policy", "load factor", "requests/s there", "what limits it"];
    say::out(&align(&header, &found.iter().map(row).collect::<Vec<_>>()))
}

/// Bisects the factor of one policy.
fn search(e: &Experiment, row: usize, wanted: f64) -> Done<Capacity> {
    let label = e.point.policies[row].label.clone();
    let (mut low, mut high) = (None, None);
    let mut factor: f64 = 1.0;
    while (LEAST..=MOST).contains(&factor) {
        let trial = attempt(e, row, factor, wanted)?;
        if trial.keeps {
            low = Some((factor, trial));
        } else {
            high = Some((factor, trial.limit));
        }
        factor = match (&low, &high) {
            (Some((l, _)), Some((h, _))) if h / l <= CLOSE => break,
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
        limit: high.map_or_else(|| format!("nothing up to {MOST} times"), |(_, limit)| limit),
    })
}

/// All repeats of one policy at one factor.
fn attempt(e: &Experiment, row: usize, factor: f64, wanted: f64) -> Done<Trial> {
    let mut e = e.clone();
    let point = &mut e.point;
    for tenant in &mut point.tenants {
        if let Some(arrivals) = scaled(&tenant.arrivals, factor) {
            tenant.arrivals = arrivals;
        }
    }
    let mut preparer = Preparer::default();
    let facts = preparer.facts(&e, &e.point).map_err(Failure::Input)?;
    let ready = facts.compile(&e.base, &e.point).map_err(Failure::Input)?;
    let cells = (0..e.seeds.len()).map(|repeat| row * e.seeds.len() + repeat);
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
            whole.get(cotenant_results::Metric::Throughput).unwrap_or(0.0) / e.seeds.len() as f64;
        if let Some(limit) = missed(&e.point, &outcome, wanted) {
            return Ok(Trial { keeps: false, limit, ..trial });
        }
    }
    Ok(trial)
}

/// The tenant that is furthest from its goal, where one misses it.
fn missed(point: &Point, outcome: &cell::Outcome, wanted: f64) -> Option<String> {
    let judged = point.tenants.iter().zip(&outcome.metrics).filter(|(t, _)| t.slo.is_some());
    let attained = judged.map(|(t, m)| {
        let share = m.get(cotenant_results::Metric::SloAttainment).unwrap_or(0.0);
        (share, t.name.as_str())
    });
    let (share, name) = attained.min_by(|a, b| a.0.total_cmp(&b.0))?;
    (share < wanted).then(|| format!("{name}: {:.1} % within its goal", 100.0 * share))
}
