//! A replay from beginning to end: every cell of an experiment on a device, then tables and report.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::Instant;

use cotenant_replay::drive::Lateness;
use cotenant_results::{PlotKind, RunInfo};
use cotenant_sim::metrics::Latencies;

use crate::cell::{self, Outcome};
use crate::config::{Grid, Overrides};
use crate::fail::{Done, Failure};
use crate::folder::Folder;
use crate::info::{self, Tally};
use crate::on::{On, Played, Stage};
use crate::plan::{self, Cell};
use crate::progress::Progress;
use crate::run::draw;
use crate::study::compute::pool;
use crate::study::inputs;
use crate::study::slice::Slice;
use crate::study::stop::Stop;
use crate::study::survey::{Extras, Survey, survey};
use crate::summary::Summary;
use crate::text::{align, count, rounded};
use crate::watch::Wants;
use crate::{results, say};

/// Rows of cells that have ended, until all have.
const PARTIAL: &str = "results.csv.partial";

/// What is to be replayed, and on what.
pub(crate) struct Ask {
    pub(crate) experiment: PathBuf,
    pub(crate) overrides: Overrides,
    pub(crate) on: On,
    pub(crate) out: Option<PathBuf>,
    /// Of an emulated GPU; `None`: as each cell needs.
    pub(crate) slowdown: Option<f64>,
    /// Keep an emulated GPU's workers in this process.
    pub(crate) streams: bool,
    /// Cells side by side on emulated GPUs.
    pub(crate) jobs: Option<u16>,
}

/// One cell and what came of it.
pub(crate) struct Play {
    /// Index among the slices.
    pub(crate) slice: usize,
    pub(crate) cell: Cell,
    pub(crate) measured: Outcome,
    /// Filled by a validation.
    pub(crate) simulated: Outcome,
    pub(crate) lateness: Option<Lateness>,
}

/// Everything that was replayed.
pub(crate) struct Session {
    pub(crate) slices: Vec<Slice>,
    pub(crate) plays: Vec<Play>,
    pub(crate) stage: Stage,
    pub(crate) folder: Folder,
    pub(crate) run: RunInfo,
    curves: Option<Vec<u8>>,
    out: PathBuf,
    wants: Wants,
    start: Instant,
    /// Somebody asked for the end: cells that had not ended are not there.
    stopped: bool,
}

impl Session {
    /// Reads the experiment, opens the device and runs every cell.
    ///
    /// # Errors
    /// Bad input, a device that is not there, somebody who wants to stop.
    pub(crate) fn play(args: &Ask, what: &str, requests: bool) -> Done<Self> {
        let start = Instant::now();
        let grid = Grid::read(&args.experiment, &args.overrides).map_err(Failure::Input)?;
        let build = inputs::build().map_err(Failure::failed)?;
        let extras = Extras { requests, ..Extras::default() };
        let Survey { study, mut run, curves, mut preparer, .. } =
            survey(grid, extras, 1, &build).map_err(Failure::Input)?;
        let mut slices = vec![];
        for p in 0..study.grid.len() {
            let e = study.grid.at(p).map_err(Failure::Input)?;
            slices.push(Slice::prepare(e, &mut preparer).map_err(Failure::Input)?);
        }
        let (mut cells, mut bound) = (vec![], None);
        for (s, slice) in slices.iter().enumerate() {
            let all = plan::cells_of(&slice.e, &slice.ready.meaning);
            let (bounds, can): (Vec<_>, Vec<_>) = all.partition(|c| slice.row(c).info.is_bound());
            bound = bounds.first().map(|c| slice.row(c).info.name).or(bound);
            cells.extend(can.into_iter().map(|cell| (s, cell)));
        }
        if let Some(bound) = bound {
            if cells.is_empty() {
                let file = args.experiment.display();
                let why =
                    format!("{file}: policy: `{bound}` is a bound and cannot run on a device");
                return Err(Failure::Input(why));
            }
            say::note(&format!("`{bound}` is skipped: a bound cannot run on a device"));
        }
        let stage = Stage::open(args.on, args.slowdown, args.streams, &slices)?;
        let out = args.out.clone();
        let out = out.unwrap_or_else(|| Path::new("out").join(format!("{}-{what}", run.name)));
        let folder = Folder::open(&out)?;
        let wants = Wants {
            cdf: run.plots.iter().any(|p| p.kind == PlotKind::Cdf),
            requests,
            ..Wants::default()
        };
        if let Some(caution) = stage.caution() {
            say::note(&caution);
            run.warnings.insert(0, caution);
        }
        run.replay = Some(stage.info.clone());
        let plays = vec![];
        let stopped = false;
        let mut session =
            Self { slices, plays, stage, folder, run, curves, out, wants, start, stopped };
        session.plays = session.cells(cells, args.jobs)?;
        Ok(session)
    }

    /// Runs the cells: one after the other on a GPU; emulated ones, who sleep most of the time, side
    /// by side. Rows are on disk as soon as their cell has ended.
    fn cells(&mut self, cells: Vec<(usize, Cell)>, jobs: Option<u16>) -> Done<Vec<Play>> {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let jobs = match self.stage.on {
            On::Emulated => jobs.map_or(4 * processors, usize::from).min(cells.len()),
            On::Cuda(_) => 1,
        };
        self.tell_time(&cells, jobs);
        let stop = Stop::listen()?;
        let partial = self.out.join(PARTIAL);
        let mut file = File::create(&partial).map_err(|e| Failure::write(&partial, e))?;
        let mut append =
            |rows: &[u8]| file.write_all(rows).map_err(|e| Failure::write(&partial, e));
        append(&results::header(self.keys()))?;
        cell::keep_panics();
        let next = AtomicUsize::new(0);
        let (sender, receiver) = mpsc::channel::<(usize, Played)>();
        let mut played: Vec<Option<Played>> = cells.iter().map(|_| None).collect();
        let mut progress = Progress::new(cells.len(), 0);
        let (stage, slices, wants, folder) =
            (&self.stage, &self.slices, self.wants, &mut self.folder);
        let pool = pool(jobs)?;
        let written: Done = pool.in_place_scope(|scope| {
            for _ in 0..jobs {
                let (sender, next, stop, cells) = (sender.clone(), &next, &stop, &cells);
                scope.spawn(move |_| {
                    while !stop.is_set() {
                        let i = next.fetch_add(1, Ordering::Relaxed);
                        let Some((s, cell)) = cells.get(i) else { return };
                        let done = stage.play(&slices[*s], cell, wants, stop.driver());
                        // The receiver goes only when writing failed: nothing matters then.
                        let _ = sender.send((i, done));
                    }
                });
            }
            drop(sender);
            for (i, mut done) in receiver {
                // A cell that the stop has cut short is not one that has ended.
                if stop.is_set() && !done.outcome.is_ok() {
                    continue;
                }
                let (slice, cell) = (&slices[cells[i].0], &cells[i].1);
                let kept = log(&mut done.outcome, cell, folder)
                    .and_then(|()| append(&results::rows(&slice.e, cell, &done.outcome)));
                if let Err(failure) = kept {
                    stop.set();
                    return Err(failure);
                }
                let (status, events) = (&done.outcome.status, done.outcome.events);
                let what = format!(" seed {}: {status}, {events} events", cell.seed);
                progress.ended(&cell.id, &what);
                played[i] = Some(done);
            }
            Ok(())
        });
        progress.finish();
        let _ = std::panic::take_hook();
        written?;
        self.stopped = stop.is_set();
        let plays = cells.into_iter().zip(played).filter_map(|((slice, cell), played)| {
            let Played { outcome: measured, lateness } = played?;
            Some(Play { slice, cell, measured, simulated: Outcome::default(), lateness })
        });
        let plays: Vec<Play> = plays.collect();
        if self.stopped && plays.is_empty() {
            return Err(Failure::Stopped("stopped before the first cell had ended".to_owned()));
        }
        Ok(plays)
    }

    /// Real time cannot be hurried: say how long it will take.
    fn tell_time(&self, cells: &[(usize, Cell)], jobs: usize) {
        let seconds = |(s, cell): &(usize, Cell)| {
            let slice = &self.slices[*s];
            let (point, row) = (&slice.e.point, slice.row(cell));
            let mut policy = (row.info.build)(&row.options).ok()?;
            let span = (point.warmup.0 + point.duration.0) as f64 / 1e9;
            Some(span * self.stage.slowdown(&slice.ready, &mut *policy))
        };
        let all: f64 = cells.iter().filter_map(seconds).sum();
        let longest = cells.iter().filter_map(seconds).fold(0.0, f64::max);
        let wall = (all / jobs as f64).max(longest);
        let cells = count(cells.len(), "cell");
        say::note(&format!("{cells} in real time, {jobs} at a time: about {wall:.0} s"));
    }

    pub(crate) fn keys(&self) -> &[String] {
        &self.run.sweep_keys
    }

    /// Writes every table and `run.json`.
    ///
    /// # Errors
    /// A file cannot be written.
    pub(crate) fn write(&mut self) -> Done {
        let keys = self.keys();
        let mut tables = [
            ("results.csv", results::header(keys)),
            ("cdf.csv", results::cdf_header(keys)),
            ("counters.csv", results::counters_header(keys)),
            ("layouts.csv", results::layouts_header(keys)),
            ("lateness.csv", results::lateness_header(keys)),
        ];
        let mut tally = Tally::default();
        for Play { slice, cell, measured, lateness, .. } in &self.plays {
            let e = &self.slices[*slice].e;
            tables[0].1.extend(results::rows(e, cell, measured));
            tables[1].1.extend(results::cdf_rows(e, cell, measured));
            tables[2].1.extend(results::counter_rows(e, cell, measured));
            if cell.repeat == 0 {
                tables[3].1.extend(results::layout_rows(e, cell, measured));
            }
            if let Some(lateness) = lateness {
                tables[4].1.extend(results::lateness_rows(e, cell, lateness));
            }
            tally.add(&cell.id, measured.events, measured.digest, measured.cpu_s, true);
        }
        for (name, table) in tables.iter().filter(|(n, _)| self.wants.cdf || *n != "cdf.csv") {
            self.folder.put(name, table)?;
        }
        if let Some(curves) = &self.curves {
            self.folder.put("curves.csv", curves)?;
        }
        let wall_s = self.start.elapsed().as_secs_f64();
        self.run = tally.finish(std::mem::take(&mut self.run), info::host(), wall_s);
        self.folder.put("run.json", self.run.to_json().as_bytes())
    }

    /// Plots, report, and the tables on stdout, `more` behind them.
    ///
    /// # Errors
    /// Cells failed; the drawing failed.
    pub(crate) fn show(self, more: &str) -> Done {
        self.folder.finish()?;
        // A left-over says nothing that results.csv does not.
        let _ = std::fs::remove_file(self.out.join(PARTIAL));
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
            let why = format!("stopped; {ended} had ended and are in {}", self.out.display());
            return Err(Failure::Stopped(why));
        }
        match summary.failures(self.plays.len()) {
            Some(why) => Err(Failure::failed(why)),
            None => Ok(()),
        }
    }
}

/// Writes a cell's requests at once, so that they do not pile up in memory.
fn log(outcome: &mut Outcome, cell: &Cell, folder: &mut Folder) -> Done {
    let Some(text) = outcome.requests.take() else { return Ok(()) };
    let level = ruzstd::encoding::CompressionLevel::Fastest;
    let packed = ruzstd::encoding::compress_to_vec(text.as_slice(), level);
    folder.put(&format!("requests/{}.csv.zst", cell.id), &packed)
}

/// How late the dispatcher was, all cells of a policy together.
fn late_table(slices: &[Slice], plays: &[Play]) -> String {
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
