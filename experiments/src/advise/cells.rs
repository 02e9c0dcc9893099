//! Finished cells: those of this call and, with a folder, those of earlier calls.
//!
//! A folder holds journals like those of `cotenant run`: one line with a checksum for each cell, one file per
//! attempt. A cell is identified by its name, which is a digest of everything that decides its numbers; lines
//! of another build of this program are not read. A call that is stopped loses only the cells that are
//! running.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use cotenant_results::Metric;

use super::goal::Got;
use crate::cell;
use crate::config::Experiment;
use crate::digest;
use crate::fail::{Done, Failure};
use crate::folder::{ATTEMPTS, is_free};
use crate::plan::Cell;
use crate::prepare::Prepared;
use crate::progress::Spending;
use crate::results;
use crate::study::ground::Played;
use crate::study::inputs;
use crate::study::journal::{self, Journal};
use crate::study::record::Record;
use crate::study::stop::Stop;
use crate::watch::Wants;

/// The result of a finished cell.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Finished {
    /// `ok`, or why there are no numbers.
    pub(crate) status: String,
    pub(crate) events: u64,
    pub(crate) watts: f64,
    pub(crate) cu_utilization: f64,
    pub(crate) tenants: Vec<(String, Got)>,
}

/// The error of an evaluation that was not made because a stop was requested.
pub(crate) const STOPPED: &str = "stopped";

/// Finished cells, by name.
#[derive(Default)]
pub(crate) struct Cells {
    known: Mutex<BTreeMap<String, Finished>>,
    folder: Option<Folder>,
    stop: Stop,
    /// Why nothing more is written.
    failure: Mutex<Option<Failure>>,
    simulated: AtomicUsize,
    read: AtomicUsize,
    /// Present if the progress is shown.
    progress: Option<Spending>,
    /// Cells that were asked for, and their events, whether simulated or read.
    asked: Mutex<BTreeSet<String>>,
    events: AtomicU64,
}

struct Folder {
    path: PathBuf,
    /// Identifies the records that may be reused: those of this exact build.
    plan: String,
    /// Created with the first cell.
    journal: Mutex<Option<Journal>>,
}

impl Cells {
    /// An empty collection; `stop` is checked before every cell.
    pub(crate) fn new(stop: Stop) -> Self {
        Self { stop, ..Self::default() }
    }

    /// The cells that a folder holds; newly finished cells are added to it.
    ///
    /// # Errors
    /// The folder holds something else or cannot be read, or two attempts disagree.
    pub(crate) fn in_folder(path: &Path, stop: Stop) -> Done<Self> {
        let theirs = path.is_file() || !(is_free(path) || path.join(ATTEMPTS).is_dir());
        if theirs {
            let why = "exists and holds no finished simulations; choose another folder";
            return Err(Failure::input(format!("--out {}: {why}", path.display())));
        }
        let build = inputs::build().map_err(Failure::failed)?;
        let plan = digest::of_text(&format!("advise {build}"))[..16].to_owned();
        let known = read(path, &plan)?;
        let folder = Folder { path: path.to_owned(), plan, journal: Mutex::default() };
        let known = Mutex::new(known);
        Ok(Self { known, folder: Some(folder), stop, ..Self::default() })
    }

    /// Shows how much of a budget of `events` is spent.
    pub(crate) fn with_progress(self, events: f64) -> Self {
        Self { progress: Some(Spending::new(events as u64)), ..self }
    }

    /// Prints a note next to the progress.
    pub(crate) fn note(&self, text: &str) {
        if let Some(progress) = &self.progress {
            progress.note(text);
        }
    }

    /// Ends the progress display.
    pub(crate) fn finish(&self) {
        if let Some(progress) = &self.progress {
            progress.finish();
        }
    }

    /// The result of a cell: looked up, or computed and saved. A cell that fails has a result, too.
    ///
    /// # Errors
    /// A stop was requested; the cell cannot be prepared.
    pub(crate) fn finished(
        &self,
        e: &Experiment,
        cell: &Cell,
        ready: impl FnOnce() -> Result<Prepared, String>,
    ) -> Result<Finished, String> {
        let known = guard(&self.known).get(&cell.id).cloned();
        let finished = match known {
            Some(finished) => {
                self.read.fetch_add(1, Ordering::Relaxed);
                finished
            }
            None => {
                if self.stop.is_set() {
                    return Err(STOPPED.to_owned());
                }
                self.compute(e, cell, &ready()?)
            }
        };
        // Count each cell once, so that a call spends the same whatever was known before.
        if guard(&self.asked).insert(cell.id.clone()) {
            self.events.fetch_add(finished.events, Ordering::Relaxed);
        }
        if let Some(progress) = &self.progress {
            let (simulated, read) = self.counts();
            progress.at(self.events(), simulated + read);
        }
        Ok(finished)
    }

    fn compute(&self, e: &Experiment, cell: &Cell, ready: &Prepared) -> Finished {
        let outcome = cell::compute(e, ready, cell, Wants::default());
        self.simulated.fetch_add(1, Ordering::Relaxed);
        let metrics = |i: usize| outcome.metrics.get(i);
        let said = |i: usize| outcome.overloaded.get(i).and_then(Option::as_deref).unwrap_or("ok");
        let tenants = e.point.tenants.iter().enumerate().filter_map(|(i, t)| {
            let row = metrics(i)?;
            Some((t.name.clone(), Got::of(|m| row.get(m), said(i))))
        });
        let whole = outcome.metrics.last();
        let of_all = |metric| whole.and_then(|w| w.get(metric)).unwrap_or(0.0);
        let finished = Finished {
            status: outcome.status.clone(),
            events: outcome.events,
            watts: of_all(Metric::Power),
            cu_utilization: of_all(Metric::CuUtilization),
            tenants: tenants.collect(),
        };
        // Failures that another machine or a bug fix would remove are not saved.
        let lasts =
            !["over-budget", "internal-error"].iter().any(|w| outcome.status.starts_with(w));
        if lasts && let Some(folder) = &self.folder {
            let played = Played { outcome, lateness: None };
            let record = Record::of(&folder.plan, e, cell, &played);
            if let Err(failure) = folder.append(record) {
                guard(&self.failure).get_or_insert(failure);
                self.stop.set();
            }
        }
        guard(&self.known).insert(cell.id.clone(), finished.clone());
        finished
    }

    /// Adds a cell that was computed elsewhere.
    pub(super) fn learn(&self, id: String, finished: Finished) {
        guard(&self.known).insert(id, finished);
    }

    /// Whether a stop was requested.
    pub(crate) fn stopped(&self) -> bool {
        self.stop.is_set()
    }

    /// Events of all cells that were asked for so far.
    pub(crate) fn events(&self) -> u64 {
        self.events.load(Ordering::Relaxed)
    }

    /// Counts events of simulations that are not cells.
    pub(crate) fn spend(&self, events: u64) {
        self.events.fetch_add(events, Ordering::Relaxed);
    }

    /// Cells simulated, and cells that were known.
    pub(crate) fn counts(&self) -> (usize, usize) {
        (self.simulated.load(Ordering::Relaxed), self.read.load(Ordering::Relaxed))
    }

    /// Whether everything could be computed and written.
    ///
    /// # Errors
    /// A file that could not be written; a requested stop.
    pub(crate) fn check(&self) -> Done {
        if let Some(folder) = &self.folder
            && let Some(journal) = &mut *guard(&folder.journal)
        {
            journal.sync()?;
        }
        match guard(&self.failure).take() {
            Some(failure) => Err(failure.into_failed()),
            None if self.stop.is_set() => Err(Failure::Stopped(match self.folder {
                Some(_) => "stopped; the same command resumes here".to_owned(),
                None => "stopped; with --out DIR the same command would resume here".to_owned(),
            })),
            None => Ok(()),
        }
    }
}

impl Folder {
    fn append(&self, record: Record) -> Done {
        let mut journal = guard(&self.journal);
        if journal.is_none() {
            *journal = Some(Journal::create(&self.path, 0)?);
        }
        journal.as_mut().map_or(Ok(()), |j| j.append(&[record]))
    }
}

fn guard<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Reads the journals of a folder; truncated or damaged lines and those of another build are ignored.
fn read(path: &Path, plan: &str) -> Done<BTreeMap<String, Finished>> {
    let mut records: BTreeMap<String, Record> = BTreeMap::new();
    for file in journal::journals(&journal::folder(path, 0))? {
        let open = std::fs::File::open(&file).map_err(|e| Failure::io(&file, e))?;
        for record in journal::records(&file, &open) {
            let (.., record) = record?;
            if record.plan != plan {
                continue;
            }
            match records.get(&record.line.cell) {
                Some(other) if other.mark() != record.mark() => {
                    return Err(Failure::Conflict(format!(
                        "two attempts disagree on cell {} in {}: the same cell has to give the same \
                         bytes everywhere; remove the folder, and run again",
                        record.line.cell,
                        file.display()
                    )));
                }
                _ => records.insert(record.line.cell.clone(), record),
            };
        }
    }
    let header = String::from_utf8(results::header(&[])).unwrap_or_default();
    let mut known = BTreeMap::new();
    for (id, record) in records {
        let text = format!("{header}{}", record.tables[0]);
        let rows = of_table(&text).map_err(Failure::failed)?;
        if let Some((_, mut finished)) = rows.into_iter().next() {
            finished.events = record.line.events;
            known.insert(id, finished);
        }
    }
    Ok(known)
}

/// The cells of a `results.csv`, which does not list the number of events.
///
/// # Errors
/// The text is not such a table.
pub(super) fn of_table(text: &str) -> Result<BTreeMap<String, Finished>, String> {
    let mut table = csv::Reader::from_reader(text.as_bytes());
    let header = table.headers().map_err(|e| e.to_string())?.clone();
    let column = |name: &str| {
        let at = header.iter().position(|h| h == name);
        at.ok_or_else(|| format!("results.csv: there is no column `{name}`"))
    };
    let (cell, tenant, status) = (column("cell")?, column("tenant")?, column("status")?);
    let mut at = BTreeMap::new();
    for metric in Metric::ALL {
        if let Ok(i) = column(metric.name()) {
            at.insert(metric as usize, i);
        }
    }
    let mut cells: BTreeMap<String, Finished> = BTreeMap::new();
    for row in table.records() {
        let row = row.map_err(|e| e.to_string())?;
        let get = |metric: Metric| row.get(*at.get(&(metric as usize))?)?.parse::<f64>().ok();
        let said = row.get(status).unwrap_or_default();
        let name = row.get(cell).unwrap_or_default().to_owned();
        let finished = cells.entry(name).or_insert_with(|| Finished {
            status: "ok".to_owned(),
            events: 0,
            watts: 0.0,
            cu_utilization: 0.0,
            tenants: vec![],
        });
        let failed = !cotenant_results::columns::has_numbers(said);
        if failed {
            finished.status = said.to_owned();
        }
        match row.get(tenant) {
            Some("*") => {
                finished.watts = get(Metric::Power).unwrap_or(0.0);
                finished.cu_utilization = get(Metric::CuUtilization).unwrap_or(0.0);
            }
            Some(_) if failed => {}
            Some(name) => finished.tenants.push((name.to_owned(), Got::of(get, said))),
            None => {}
        }
    }
    Ok(cells)
}
