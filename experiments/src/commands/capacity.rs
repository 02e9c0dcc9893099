//! `cotenant capacity`: how much more load each policy carries.

use std::path::PathBuf;

use clap::Args as ClapArgs;

use crate::capacity::{Capacity, Reach, pointless, search};
use crate::config::{Grid, Overrides};
use crate::fail::{Done, Failure};
use crate::panics;
use crate::say;
use crate::study::compute::{pool, threads};
use crate::text::{align, percent, rounded};

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

/// Where the answer is looked for.
const REACH: Reach = Reach { least: 1.0 / 64.0, most: 64.0, close: 1.02, repeats: usize::MAX };

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
    if let Some(why) = pointless(&e.point) {
        return Err(Failure::input(format!("{file}: {why}")));
    }
    let rows: Vec<usize> = (0..e.point.policies.len()).collect();
    let pool = pool(threads(args.jobs.map_or(0, usize::from)))?;
    use rayon::prelude::*;
    let one = |row| search(&e, row, args.attainment, REACH, &|| Ok(()));
    let all = || rows.into_par_iter().map(one).collect::<Vec<Done<Capacity>>>();
    let found = panics::kept(|| pool.install(all));
    let mut found = found.into_iter().collect::<Done<Vec<_>>>()?;
    found.sort_by(|a, b| b.factor.unwrap_or(0.0).total_cmp(&a.factor.unwrap_or(0.0)));
    if args.json {
        let json = serde_json::to_string_pretty(&found).map_err(Failure::failed)?;
        return say::out(&(json + "\n"));
    }
    let row = |c: &Capacity| {
        let factor = c.factor.map_or_else(|| "none".to_owned(), |f| format!("{f:.2}"));
        let bounded = if c.factor == Some(REACH.most) { "at least " } else { "" };
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
