//! A complete replay: every cell of an experiment on a device, then tables and report.
//!
//! It is a study like any other, on another ground: finished cells are in journals, and the same command
//! resumes after a stop. A validation is the same study on two grounds.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use cotenant_replay::drive::Lateness;
use cotenant_results::RunInfo;
use cotenant_sim::metrics::Latencies;

use crate::config::{Grid, Overrides};
use crate::digest;
use crate::fail::{Done, Failure};
use crate::folder::{COMPLETE, Folder};
use crate::info::{self, Tally};
use crate::on::{On, Stage};
use crate::plan::{self, Cell};
use crate::run::forget;
use crate::say;
use crate::show::draw;
use crate::study::compute::{Slices, compute};
use crate::study::figures::Figures;
use crate::study::ground::{Ground, Simulated};
use crate::study::journal::{Journal, Kept};
use crate::study::record::TABLES;
use crate::study::slice::Slice;
use crate::study::stop::Stop;
use crate::study::survey::{Extras, Survey, survey};
use crate::study::{Study, conflict, inputs, tables};
use crate::summary::Summary;
use crate::text::{align, count, rounded};
use crate::watch::Wants;

/// Indices of the journals of the measurements, and of the simulations that they are compared with.
const MEASURED: usize = 0;
const SIMULATED: usize = 1;

/// What to replay, and on which device.
pub(crate) struct Ask {
    pub(crate) experiment: PathBuf,
    pub(crate) overrides: Overrides,
    pub(crate) on: On,
    pub(crate) out: Option<PathBuf>,
    /// Slowdown of an emulated GPU; `None` to choose it for each cell.
    pub(crate) slowdown: Option<f64>,
    /// Keep an emulated GPU's workers in this process.
    pub(crate) streams: bool,
    /// Number of cells that run concurrently on emulated GPUs.
    pub(crate) jobs: Option<u16>,
    /// Simulate every cell, too.
    pub(crate) compare: bool,
    /// Write every request.
    pub(crate) requests: bool,
}

/// One cell and its results.
pub(crate) struct Play {
    /// Index among the slices.
    pub(crate) slice: usize,
    pub(crate) cell: Cell,
    pub(crate) measured: Figures,
    /// For a validation.
    pub(crate) simulated: Figures,
    pub(crate) lateness: Option<Lateness>,
}

/// Everything that was replayed; its tables are on disk.
pub(crate) struct Session {
    pub(crate) slices: Vec<Arc<Slice>>,
    pub(crate) plays: Vec<Play>,
    pub(crate) stage: Stage,
    pub(crate) folder: Folder,
    pub(crate) run: RunInfo,
    out: PathBuf,
    /// Journals to remove once everything is written.
    kept: Vec<(usize, Kept)>,
    start: Instant,
    /// A stop was requested: unfinished cells are missing.
    stopped: bool,
}

impl Session {
    /// Reads the experiment, opens the device, runs every cell that has not run yet, and writes the tables.
    ///
    /// # Errors
    /// Bad input, a missing device, a requested stop.
    pub(crate) fn play(ask: &Ask) -> Done<Self> {
        let start = Instant::now();
        let grid = Grid::read(&ask.experiment, &ask.overrides).map_err(Failure::Input)?;
        let extras = Extras { requests: ask.requests, ..Extras::default() };
        let Survey { mut study, mut run, curves, preparer, .. } =
            survey(grid, extras, 1, inputs::build).map_err(Failure::Input)?;
        let cdf = study.wants.cdf;
        study.wants = Wants { cdf, requests: ask.requests, ..Wants::default() };
        // Every cell needs its own measurement.
        study.twins.clear();
        let identity = study.plan.clone();
        let slices = Slices::new(&study, preparer, usize::MAX);
        let points = (0..study.grid.len()).map(|p| slices.get(p));
        let prepared = points.collect::<Result<Vec<_>, String>>().map_err(Failure::Input)?;
        let cells = can_run(&study, &prepared, &ask.experiment)?;
        let stage = Stage::open(ask.on, ask.slowdown, ask.streams, &prepared)?;
        let what = if ask.compare { "validate" } else { "replay" };
        let out = ask.out.clone();
        let out = out.unwrap_or_else(|| Path::new("out").join(format!("{}-{what}", run.name)));
        let mut folder = Folder::open(&out)?;
        let _ = std::fs::remove_file(out.join(COMPLETE));
        if let Some(caution) = stage.caution() {
            say::note(&caution);
            run.warnings.insert(0, caution);
        }
        run.replay = Some(stage.info.clone());
        let preparer = slices.into_preparer();
        study.plan = digest::of_text(&format!("{identity} {}", stage.identity()))[..16].to_owned();
        let slices = Slices::new(&study, preparer, usize::MAX);
        slices.put(&prepared);
        let jobs = jobs(ask, cells.len());
        let stop = Stop::listen()?;
        let ran = Ran { slices: &slices, out: &out, jobs };
        let measured = ran.on(&stage, MEASURED, &cells, &stop, |todo| {
            tell_time(&study, &prepared, &stage, todo, jobs);
        })?;
        let ended: Vec<usize> = cells.iter().copied().filter(|&i| measured.has(i)).collect();
        if ended.is_empty() {
            return Err(Failure::Stopped("stopped before the first cell had ended".to_owned()));
        }
        let stopped = ended.len() < cells.len();
        let mut kept = vec![];
        let mut plays = plays(&study, &prepared, &ended, &measured)?;
        if ask.compare {
            // Finished measurements are compared even if a stop has been requested.
            let simulated = Simulated { compared: true };
            let simulated = ran.on(&simulated, SIMULATED, &ended, &Stop::default(), |_| ())?;
            for (play, &cell) in plays.iter_mut().zip(&ended) {
                let record = simulated.get(cell)?;
                play.simulated = record.and_then(|r| r.figures).unwrap_or_default();
            }
            let path = |table| (table == 0).then(|| out.join("simulated.csv"));
            tables::assemble(&study, &simulated, ended.iter().copied(), path, |_, _| ())?;
            folder.keep("simulated.csv");
            kept.push((SIMULATED, simulated));
        }
        let mut tally = Tally::default();
        let path = |table: usize| Some(out.join(TABLES[table]));
        let written =
            tables::assemble(&study, &measured, ended.iter().copied(), path, |_, rows| {
                let line = &rows.line;
                tally.add(&line.cell, line.events, line.digest, line.cpu_s, true);
                line.extras.iter().for_each(|x| folder.keep(&x.path));
            })?;
        written.iter().for_each(|w| folder.keep(TABLES[w.table]));
        kept.push((MEASURED, measured));
        if let Some(curves) = curves {
            folder.put("curves.csv", &curves)?;
        }
        let run = tally.finish(run, info::host(), start.elapsed().as_secs_f64());
        Ok(Self { slices: prepared, plays, stage, folder, run, out, kept, start, stopped })
    }

    /// Writes `run.json`; then plots, report, and the tables on stdout, followed by `more`.
    ///
    /// # Errors
    /// Cells failed; the drawing failed.
    pub(crate) fn show(mut self, more: &str) -> Done {
        self.folder.put("run.json", self.run.to_json().as_bytes())?;
        self.folder.finish()?;
        self.run.warnings.iter().skip(1).for_each(|w| say::warn(w));
        let drawn = draw(&self.out);
        let caution = self.stage.caution().map_or_else(String::new, |c| format!("{c}\n\n"));
        let summary = Summary::read(&self.out.join("results.csv"), &self.run.sweep_keys)?;
        let late = late_table(&self.slices, &self.plays);
        say::out(&format!("{caution}{}\n{late}{more}", summary.text()))?;
        let (cells, took) = (count(self.plays.len(), "cell"), self.start.elapsed().as_secs_f64());
        say::note(&format!("{cells} in {took:.1} s; results in {}", self.out.display()));
        for missing in drawn?.missing {
            say::warn(&format!("{missing} (the report says so in its place)"));
        }
        if self.stopped {
            let ended = count(self.plays.len(), "cell");
            let why = format!(
                "stopped; {ended} had ended and are in {}; the same command resumes here",
                self.out.display()
            );
            return Err(Failure::Stopped(why));
        }
        self.kept.iter().for_each(|(journals, kept)| forget(&self.out, *journals, kept));
        match summary.failures(self.plays.len()) {
            Some(why) => Err(Failure::failed(why)),
            None => Ok(()),
        }
    }
}

/// The cells that a device can run: all but bounds.
fn can_run(study: &Study, slices: &[Arc<Slice>], experiment: &Path) -> Done<Vec<usize>> {
    let (mut cells, mut bound) = (vec![], None);
    for i in 0..study.cells.len() {
        let (point, number) = study.point_of(i);
        let slice = &slices[point];
        let info = slice.row(&plan::cell(&slice.e, &slice.ready.meaning, number)).info;
        if info.is_bound() {
            bound = Some(info.name);
        } else {
            cells.push(i);
        }
    }
    match bound {
        Some(bound) if cells.is_empty() => {
            let file = experiment.display();
            let why = format!("{file}: policy: `{bound}` is a bound and cannot run on a device");
            return Err(Failure::Input(why));
        }
        Some(bound) => say::note(&format!("`{bound}` is skipped: a bound cannot run on a device")),
        None => {}
    }
    Ok(cells)
}

/// One cell at a time on a GPU; emulated cells, which sleep most of the time, run concurrently.
fn jobs(ask: &Ask, cells: usize) -> usize {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    match ask.on {
        On::Emulated => ask.jobs.map_or(4 * processors, usize::from).min(cells),
        On::Cuda(_) => 1,
    }
}

/// Runs the cells on a ground that have not run yet.
struct Ran<'a> {
    slices: &'a Slices<'a>,
    out: &'a Path,
    jobs: usize,
}

impl Ran<'_> {
    /// Runs those of `cells` that the journals lack, after passing them to `before`.
    fn on(
        &self,
        ground: &dyn Ground,
        journals: usize,
        cells: &[usize],
        stop: &Stop,
        before: impl FnOnce(&[usize]),
    ) -> Done<Kept> {
        let Self { slices, out, jobs } = *self;
        let read = |thorough| {
            let kept = Kept::read(slices.study, out, journals, thorough)?;
            kept.map_err(|c| conflict(out, &c))
        };
        let kept = read(true)?;
        let todo: Vec<usize> = cells.iter().copied().filter(|&i| !kept.has(i)).collect();
        let reused = cells.len() - todo.len();
        if reused > 0 {
            let of = count(cells.len(), "cell");
            say::note(&format!(
                "{reused} of {of} reused from an interrupted run in {}",
                out.display()
            ));
        }
        if todo.is_empty() {
            return Ok(kept);
        }
        before(&todo);
        let mut journal = Journal::create(out, journals)?;
        compute(slices, ground, (reused, todo), jobs, (out, &mut journal), stop)?;
        read(false)
    }
}

/// The results of the finished cells.
fn plays(study: &Study, slices: &[Arc<Slice>], ended: &[usize], kept: &Kept) -> Done<Vec<Play>> {
    let play = |&i: &usize| -> Done<Play> {
        let (point, number) = study.point_of(i);
        let slice = &slices[point];
        let cell = plan::cell(&slice.e, &slice.ready.meaning, number);
        let measured = kept.get(i)?.and_then(|r| r.figures).unwrap_or_default();
        let lateness = measured.lateness();
        Ok(Play { slice: point, cell, measured, simulated: Figures::default(), lateness })
    };
    ended.iter().map(play).collect()
}

/// Real time cannot be accelerated: announce how long it will take.
fn tell_time(study: &Study, slices: &[Arc<Slice>], stage: &Stage, cells: &[usize], jobs: usize) {
    let seconds = |&i: &usize| {
        let (point, number) = study.point_of(i);
        let slice = &slices[point];
        let row = slice.row(&plan::cell(&slice.e, &slice.ready.meaning, number));
        let mut policy = (row.info.build)(&row.options).ok()?;
        let span = (slice.e.point.warmup.0 + slice.e.point.duration.0) as f64 / 1e9;
        Some(span * stage.slowdown(&slice.ready, &mut *policy))
    };
    let all: f64 = cells.iter().filter_map(seconds).sum();
    let longest = cells.iter().filter_map(seconds).fold(0.0, f64::max);
    let wall = (all / jobs as f64).max(longest);
    let cells = count(cells.len(), "cell");
    say::note(&format!("{cells} in real time, {jobs} at a time: about {wall:.0} s"));
}

/// Lateness of the dispatcher, over all cells of each policy.
fn late_table(slices: &[Arc<Slice>], plays: &[Play]) -> String {
    let mut rows: Vec<Vec<String>> = vec![];
    for (policy, row) in slices[0].e.point.policies.iter().enumerate() {
        let of_policy = plays.iter().filter(|p| p.cell.policy == policy);
        let mut all: Vec<(&str, Latencies)> = vec![];
        for lateness in of_policy.filter_map(|p| p.lateness.as_ref()) {
            for (i, (kind, l)) in lateness.kinds().enumerate() {
                match all.get_mut(i) {
                    Some((_, known)) => known.merge(l),
                    None => all.push((kind, l.clone())),
                }
            }
        }
        for (kind, l) in all.iter().filter(|(_, l)| !l.is_empty()) {
            let us = |q| rounded(l.quantile(q).map(|ns| ns.0 as f64 / 1e3));
            let (label, n) = (row.label.clone(), l.len().to_string());
            rows.push(vec![label, (*kind).to_owned(), n, us(0.5), us(0.99)]);
        }
    }
    let header = ["dispatcher's lateness", "of", "count", "p50 us", "p99 us"];
    if rows.is_empty() { String::new() } else { align(&header, &rows) }
}
