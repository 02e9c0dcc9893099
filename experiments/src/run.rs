//! `cotenant run`: every cell of an experiment, then tables, plots and report.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Instant;

use cotenant_plots::{PlotError, PlotKind};

use crate::cell::{self, Outcome};
use crate::config::{self, Experiment, Overrides};
use crate::fail::{Done, Failure};
use crate::folder::Folder;
use crate::plan::{self, Cell};
use crate::prepare::{Prepared, Preparer};
use crate::progress::Progress;
use crate::text::count;
use crate::watch::Wants;
use crate::{curves, info, results, say, summary};

/// What the command line asks for.
pub(crate) struct Options {
    pub(crate) file: PathBuf,
    pub(crate) out: Option<PathBuf>,
    pub(crate) overrides: Overrides,
    /// Threads; 0: one per processor.
    pub(crate) jobs: usize,
    pub(crate) requests: bool,
    pub(crate) timeline: bool,
}

/// Runs an experiment.
///
/// # Errors
/// Bad input before anything runs; cells or plots that failed after everything has been written.
pub(crate) fn run(options: &Options) -> Done {
    let start = Instant::now();
    let e = config::read(&options.file, &options.overrides).map_err(Failure::Input)?;
    let mut preparer = Preparer::default();
    let prepared: Result<Vec<Prepared>, String> =
        e.points.iter().map(|point| preparer.point(&e, point)).collect();
    let prepared = prepared.map_err(Failure::Input)?;
    let cells = plan::cells(&e, &prepared);
    let out = options.out.clone().unwrap_or_else(|| Path::new("out").join(&e.name));
    let mut folder = Folder::open(&out, &results::header(&e.keys))?;
    let wants = Wants {
        cdf: e.plots.iter().any(|p| p.kind == PlotKind::Cdf),
        series: e.plots.iter().any(|p| p.kind == PlotKind::Timeline)
            || e.points.iter().any(|p| p.series.is_some()),
        requests: options.requests,
        timeline: options.timeline,
    };
    let outcomes = compute(&e, &prepared, &cells, wants, options.jobs, &mut folder)?;
    let done = Finished { e: &e, prepared: &prepared, cells: &cells, outcomes: &outcomes };
    done.write_tables(&mut folder, wants)?;
    let run = info::of(&done, start.elapsed().as_secs_f64());
    folder.put("run.json", run.to_json().as_bytes())?;
    folder.finish()?;
    run.warnings.iter().for_each(|w| say::warn(w));
    let drawn = draw(&out);
    say::out(&summary::of(&done))?;
    say::note(&format!(
        "{} events in {}: {:.2} million events/s of one thread; {:.1} s in all; results in {}",
        run.events,
        count(cells.len(), "cell"),
        run.events_per_s / 1e6,
        start.elapsed().as_secs_f64(),
        out.display()
    ));
    for missing in drawn?.missing {
        say::warn(&format!("{missing} (the report says so in its place)"));
    }
    done.verdict()
}

/// An experiment with all its outcomes, in the order of its cells.
pub(crate) struct Finished<'a> {
    pub(crate) e: &'a Experiment,
    pub(crate) prepared: &'a [Prepared],
    pub(crate) cells: &'a [Cell],
    pub(crate) outcomes: &'a [Arc<Outcome>],
}

impl Finished<'_> {
    /// Cells with their outcomes.
    pub(crate) fn each(&self) -> impl Iterator<Item = (&Cell, &Outcome)> {
        self.cells.iter().zip(self.outcomes.iter().map(|o| &**o))
    }

    fn write_tables(&self, folder: &mut Folder, wants: Wants) -> Done {
        let mut table = results::header(&self.e.keys);
        for (cell, outcome) in self.each() {
            table.extend(results::rows(self.e, cell, outcome));
        }
        folder.put("results.csv", &table)?;
        if wants.cdf {
            folder.put("cdf.csv", &results::cdf(self.e, self.each()))?;
        }
        if wants.series {
            folder.put("series.csv", &results::series(self.e, self.each()))?;
        }
        if let Some(counters) = results::counters(self.e, self.each()) {
            folder.put("counters.csv", &counters)?;
        }
        if self.e.plots.iter().any(|p| p.kind == PlotKind::Curves) {
            folder.put("curves.csv", &curves::of_tenants(&self.e.points[0], &self.prepared[0]))?;
        }
        Ok(())
    }

    /// Status 1 where a cell failed, its reason said once.
    fn verdict(&self) -> Done {
        let mut reasons: BTreeMap<&str, usize> = BTreeMap::new();
        for (_, outcome) in self.each().filter(|(_, o)| !o.is_ok()) {
            *reasons.entry(&outcome.status).or_default() += 1;
        }
        if reasons.is_empty() {
            return Ok(());
        }
        let failed: usize = reasons.values().sum();
        let list: Vec<String> = reasons.iter().map(|(why, n)| format!("{why} ({n}×)")).collect();
        let what = count(self.cells.len(), "cell");
        Err(Failure::failed(format!("{failed} of {what} failed: {}", list.join("; "))))
    }
}

/// Computes every distinct piece of work once, on a pool of threads.
fn compute(
    e: &Experiment,
    prepared: &[Prepared],
    cells: &[Cell],
    wants: Wants,
    jobs: usize,
    folder: &mut Folder,
) -> Done<Vec<Arc<Outcome>>> {
    cell::keep_panics();
    let mut works: Vec<Vec<usize>> = vec![];
    let mut known: BTreeMap<&str, usize> = BTreeMap::new();
    for (i, cell) in cells.iter().enumerate() {
        let w = *known.entry(&cell.work).or_insert_with(|| {
            works.push(vec![]);
            works.len() - 1
        });
        works[w].push(i);
    }
    let pool = rayon::ThreadPoolBuilder::new().num_threads(jobs).build();
    let pool = pool.map_err(|e| Failure::failed(format!("cannot start threads: {e}")))?;
    let (sender, receiver) = mpsc::channel::<(usize, Outcome)>();
    let mut outcomes: Vec<Option<Arc<Outcome>>> = vec![None; cells.len()];
    let mut progress = Progress::new(cells.len());
    let written = std::thread::scope(|scope| {
        let (pool, works) = (&pool, &works);
        scope.spawn(move || {
            use rayon::prelude::*;
            pool.install(|| {
                works.par_iter().enumerate().for_each_with(sender, |sender, (w, group)| {
                    let cell = &cells[group[0]];
                    let outcome = cell::compute(e, &prepared[cell.point], cell, wants);
                    // The receiver goes only when writing failed: then nothing matters any more.
                    let _ = sender.send((w, outcome));
                });
            });
        });
        for (w, mut outcome) in receiver {
            keep_extras(&mut outcome, &works[w], cells, folder)?;
            let outcome = Arc::new(outcome);
            for &i in &works[w] {
                folder.append(&results::rows(e, &cells[i], &outcome))?;
                progress.ended(&cells[i], &e.points[cells[i].point].values, &outcome);
                outcomes[i] = Some(outcome.clone());
            }
        }
        Ok(())
    });
    progress.finish();
    let _ = std::panic::take_hook();
    written?;
    Ok(outcomes.into_iter().map(|o| o.expect("every cell was computed")).collect())
}

/// Writes request logs and timelines at once, so that they do not pile up in memory.
fn keep_extras(
    outcome: &mut Outcome,
    group: &[usize],
    cells: &[Cell],
    folder: &mut Folder,
) -> Done {
    if let Some(text) = outcome.requests.take() {
        let level = ruzstd::encoding::CompressionLevel::Fastest;
        let packed = ruzstd::encoding::compress_to_vec(text.as_slice(), level);
        for &i in group {
            folder.put(&format!("requests/{}.csv.zst", cells[i].id), &packed)?;
        }
    }
    if let Some((json, lost)) = outcome.timeline.take() {
        for &i in group {
            folder.put(&format!("timeline/{}.json", cells[i].id), json.as_bytes())?;
            if lost > 0 {
                say::warn(&format!(
                    "timeline/{}.json is cut: {lost} more events would not fit; shorten `duration`",
                    cells[i].id
                ));
            }
        }
    }
    Ok(())
}

/// What has been drawn, and why the rest has not.
pub(crate) struct Drawn {
    pub(crate) files: usize,
    pub(crate) missing: Vec<String>,
}

/// Plots and report from the folder alone. Results that some plot cannot show (no value at all, a
/// sweep that `--set` added) are no failed run: the others and the report are there.
pub(crate) fn draw(folder: &Path) -> Done<Drawn> {
    let (files, missing) = match cotenant_plots::draw(folder) {
        Ok(files) => (files, vec![]),
        Err(PlotError::Some { drawn, failures }) => (drawn, failures),
        Err(e @ PlotError::Write { .. }) => return Err(Failure::failed(e)),
        Err(e) => return Err(Failure::input(e)),
    };
    files.iter().for_each(|f| say::detail(&format!("wrote {}", f.display())));
    Ok(Drawn { files: files.len(), missing })
}
