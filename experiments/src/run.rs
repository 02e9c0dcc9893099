//! `cotenant run EXP.toml`: every cell of an experiment, then tables, plots and report.

use std::path::{Path, PathBuf};
use std::time::Instant;

use cotenant_results::{Headroom, RunInfo, TARGET};

use crate::capacity::{Capacity, Reach, pointless, search};
use crate::config::{Experiment, Grid, Overrides};
use crate::dry;
use crate::fail::{Done, Failure};
use crate::folder::{ATTEMPTS, COMPLETE, Folder, write_whole};
use crate::info::{self, Tally};
use crate::panics;
use crate::say;
use crate::show::{Show, tell};
use crate::study::compute::{Slices, compute, pool, threads};
use crate::study::ground::Simulated;
use crate::study::journal::{self, Journal, Kept};
use crate::study::record::TABLES;
use crate::study::stop::Stop;
use crate::study::survey::{Extras, Survey, survey};
use crate::study::{conflict, inputs, tables};
use crate::text::count;

/// The options of the command line.
pub(crate) struct Options {
    pub(crate) file: PathBuf,
    pub(crate) out: Option<PathBuf>,
    pub(crate) overrides: Overrides,
    /// Threads; 0 for as many as the machine has.
    pub(crate) jobs: usize,
    pub(crate) extras: Extras,
    /// Only report what would run.
    pub(crate) dry_run: bool,
    /// Compute a finished folder again.
    pub(crate) again: bool,
    pub(crate) show: Show,
}

/// Runs an experiment. Cells that an interrupted run of the same experiment in the same folder has finished
/// are not computed again.
///
/// # Errors
/// Bad input, before anything runs; failed cells or plots, after everything has been written.
pub(crate) fn run(options: &Options) -> Done {
    whole(options).map_err(Failure::into_failed)
}

fn whole(options: &Options) -> Done {
    let start = Instant::now();
    let grid = Grid::read(&options.file, &options.overrides).map_err(Failure::Input)?;
    inputs::look_at_build();
    if options.dry_run {
        return dry::run(grid, options.extras, options.jobs);
    }
    let only = match grid.len() {
        1 => Some(grid.at(0).map_err(Failure::Input)?),
        _ => None,
    };
    let Survey { study, run, curves, preparer, .. } =
        survey(grid, options.extras, 1, inputs::build).map_err(Failure::Input)?;
    let out = options.out.clone().unwrap_or_else(|| Path::new("out").join(&run.name));
    let mut folder = Folder::open(&out)?;
    if !options.again && complete(&out, &study.plan) {
        say::note(&format!(
            "{}: computed already by this program; nothing is computed again (--again does)",
            out.display()
        ));
        let run = RunInfo::read(&out.join("run.json")).map_err(Failure::input)?;
        return draw_and_tell(options, &out, &run);
    }
    let _ = std::fs::remove_file(out.join(COMPLETE));
    let stop = Stop::listen()?;
    let mut kept = Kept::read(&study, &out, 0, true)?.map_err(|c| conflict(&out, &c))?;
    let todo: Vec<usize> = (0..study.cells.len()).filter(|&i| !kept.has(i)).collect();
    let reused = study.cells.len() - todo.len();
    if reused > 0 {
        let of = count(study.cells.len(), "cell");
        say::note(&format!("{reused} of {of} reused from an interrupted run in {}", out.display()));
    }
    if !todo.is_empty() {
        let mut journal = Journal::create(&out, 0)?;
        let to = (out.as_path(), &mut journal);
        let threads = threads(options.jobs);
        let slices = Slices::new(&study, preparer, threads + 1);
        if !compute(&slices, &Simulated::default(), (reused, todo), threads, to, &stop)? {
            return Err(stopped());
        }
        kept = Kept::read(&study, &out, 0, false)?.map_err(|c| conflict(&out, &c))?;
    }
    let mut tally = Tally::default();
    let written = tables::assemble(
        &study,
        &kept,
        0..study.cells.len(),
        |table| Some(out.join(TABLES[table])),
        |i, rows| {
            let line = &rows.line;
            tally.add(&line.cell, line.events, line.digest, line.cpu_s, study.first_of(i) == i);
            line.extras.iter().for_each(|x| folder.keep(&x.path));
        },
    )?;
    written.iter().for_each(|w| folder.keep(TABLES[w.table]));
    if let Some(curves) = curves {
        folder.put("curves.csv", &curves)?;
    }
    let run = tally.finish(run, info::host(), start.elapsed().as_secs_f64());
    let mut run = info::with_winners(run, &out)?;
    if let (Some(e), [winner]) = (&only, &mut run.winners[..]) {
        let events = (run.events, run.events / run.cells.len().max(1) as u64);
        let headroom = headroom(e, &winner.deployed().label, events, &stop)?;
        match &mut winner.today {
            Some(today) => today.headroom = headroom,
            None => winner.headroom = headroom,
        }
    }
    folder.write("run.json", |file| run.write_json(file))?;
    folder.finish()?;
    write_whole(&out.join(COMPLETE), study.plan.as_bytes())?;
    say::note(&format!(
        "{} events in {}: {:.2} million events/s of one thread; {:.1} s in all",
        run.events,
        count(run.cells.len(), "cell"),
        run.events_per_s / 1e6,
        start.elapsed().as_secs_f64(),
    ));
    let told = draw_and_tell(options, &out, &run);
    // Comes last: until here, no failure can cost a finished cell.
    forget(&out, 0, &kept);
    told
}

/// Approximate number of load factors to try for a headroom; each is one cell.
const TRIALS: u64 = 6;
/// They may take a quarter of the run's events, and in any case `LITTLE`: a second or two.
const PART: u64 = 4;
const LITTLE: u64 = 10_000_000;
/// The range in which a headroom is searched.
const REACH: Reach = Reach { least: 1.0 / 16.0, most: 16.0, close: 1.1, repeats: 1 };

/// How much more load a policy can carry; `None` if it has no answer, or if the search would take long
/// compared with the run. The pair holds the events of all cells, and of one.
fn headroom(
    e: &Experiment,
    label: &str,
    (all, one): (u64, u64),
    stop: &Stop,
) -> Done<Option<Headroom>> {
    let row = e.point.policies.iter().position(|p| p.label == label);
    let Some(row) = row.filter(|_| one * TRIALS <= LITTLE.max(all / PART)) else { return Ok(None) };
    if pointless(&e.point).is_some() {
        return Ok(None);
    }
    let goes_on = || if stop.is_set() { Err(stopped()) } else { Ok(()) };
    match panics::kept(|| search(e, row, TARGET, REACH, &goes_on)) {
        Ok(Capacity { factor, limit, .. }) => {
            // At the end of the search's range nothing is missed.
            let limit = (factor != Some(REACH.most)).then_some(limit);
            Ok(Some(Headroom { factor, limit }))
        }
        Err(stopped @ Failure::Stopped(_)) => Err(stopped),
        // The run has its results: an addition to them cannot fail it.
        Err(_) => Ok(None),
    }
}

fn stopped() -> Failure {
    Failure::Stopped("stopped; the same command resumes here".to_owned())
}

/// See [`tell`]; pictures are made on as many threads as cells.
fn draw_and_tell(options: &Options, out: &Path, run: &RunInfo) -> Done {
    pool(threads(options.jobs))?.install(|| tell(out, run, options.show))
}

/// Whether the folder holds the results of exactly this plan: experiment, inputs, options, program.
fn complete(out: &Path, plan: &str) -> bool {
    std::fs::read_to_string(out.join(COMPLETE)).is_ok_and(|stamp| stamp == plan)
        && out.join("results.csv").is_file()
        && out.join("run.json").is_file()
}

/// Replaces the figures of a result folder with those that another file specifies.
///
/// # Errors
/// Plots that do not fit the results; a file that cannot be written.
pub(crate) fn replace_plots(folder: &Path, spec: &Path) -> Done {
    let mut run = RunInfo::read(&folder.join("run.json")).map_err(Failure::input)?;
    let earlier = cotenant_plots::figures(&run);
    run.plots = crate::config::plots(spec, &run.sweep_keys).map_err(Failure::Input)?;
    for path in earlier.iter().map(|file| folder.join(file)).filter(|path| path.is_file()) {
        std::fs::remove_file(&path).map_err(|e| Failure::write(&path, e))?;
    }
    write_whole(&folder.join("run.json"), run.to_json().as_bytes())
}

/// Removes the journals of a finished run, and those of other experiments in its folder.
pub(crate) fn forget(out: &Path, shard: usize, kept: &Kept) {
    for journal in kept.journals() {
        // A journal that remains only takes space: its cells have been used, or belong to another experiment.
        let _ = std::fs::remove_file(journal);
    }
    let _ = std::fs::remove_dir(journal::folder(out, shard));
    let _ = std::fs::remove_dir(out.join(ATTEMPTS));
}
