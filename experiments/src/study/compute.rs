//! Computes cells on a pool of threads; each result goes to one journal as soon as it is finished.

use std::collections::BTreeMap;
use std::io::{self, BufReader, Read, Seek as _, Write};
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use ruzstd::encoding::{CompressionLevel, FrameCompressor};

use super::Study;
use super::figures::Figures;
use super::ground::{Ground, Played};
use super::journal::Journal;
use super::parquet;
use super::record::{Extra, Record, Sink};
use super::slice::Slice;
use super::stop::Stop;
use crate::cell::Outcome;
use crate::fail::{Done, Failure};
use crate::panics;
use crate::plan::{self, Cell};
use crate::prepare::Preparer;
use crate::progress::Progress;
use crate::say;

/// How often an attempt shows that it is alive while a long cell runs.
const ALIVE: Duration = Duration::from_secs(20);

/// Threads to use: the number on the command line, else the scheduler's, else what the machine and this
/// process's affinity allow.
pub(crate) fn threads(asked: usize) -> usize {
    let given = || std::env::var("SLURM_CPUS_PER_TASK").ok()?.parse::<usize>().ok();
    let machine = || std::thread::available_parallelism().map_or(1, usize::from);
    let asked = Some(asked).filter(|&n| n > 0);
    asked.or_else(given).filter(|&n| n > 0).unwrap_or_else(machine).min(1024)
}

/// The pool that cells run on.
///
/// # Errors
/// The system has no threads left.
pub(crate) fn pool(threads: usize) -> Done<rayon::ThreadPool> {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
    pool.build().map_err(|e| Failure::failed(format!("cannot start {threads} threads: {e}")))
}

/// The points being worked on. Each is prepared once, by the first thread that needs it.
pub(crate) struct Slices<'a> {
    pub(crate) study: &'a Study,
    preparer: Mutex<Preparer>,
    slots: Mutex<BTreeMap<usize, Arc<Slot>>>,
    /// Number of points to keep.
    most: usize,
}

type Slot = OnceLock<Result<Arc<Slice>, String>>;

impl<'a> Slices<'a> {
    /// The points of a study; the last `most` are kept.
    pub(crate) fn new(study: &'a Study, preparer: Preparer, most: usize) -> Self {
        Self { study, preparer: Mutex::new(preparer), slots: Mutex::default(), most }
    }

    /// The preparer that its points were prepared with.
    pub(crate) fn into_preparer(self) -> Preparer {
        self.preparer.into_inner().expect("no thread panics with the lock held")
    }

    /// Stores all points, already prepared.
    pub(crate) fn put(&self, points: &[Arc<Slice>]) {
        let mut slots = self.slots.lock().expect("no thread panics with the lock held");
        slots.extend(
            points.iter().map(|slice| Ok(slice.clone())).map(Slot::from).map(Arc::new).enumerate(),
        );
    }

    /// A point, prepared.
    ///
    /// # Errors
    /// As [`Slice::prepare`].
    pub(crate) fn get(&self, point: usize) -> Result<Arc<Slice>, String> {
        let slot = {
            let mut slots = self.slots.lock().expect("no thread panics with the lock held");
            let slot = slots.entry(point).or_default().clone();
            while slots.len() > self.most {
                // Points are worked on in order: no thread needs the first one any more.
                let _ = slots.pop_first();
            }
            slot
        };
        slot.get_or_init(|| self.prepare(point).map(Arc::new)).clone()
    }

    fn prepare(&self, point: usize) -> Result<Slice, String> {
        let e = self.study.grid.at(point)?;
        Slice::prepare(e, &mut self.preparer.lock().expect("preparing does not panic"))
    }
}

/// A thread's report: the records of one computation, and how it went.
struct Ended {
    records: Vec<Record>,
    what: String,
}

/// Runs `todo`, cells in order, on a ground; returns whether it reached the end. `finished` is the number of
/// cells done before.
///
/// # Errors
/// The journal cannot be written; the experiment is not what was planned.
pub(crate) fn compute(
    slices: &Slices<'_>,
    ground: &dyn Ground,
    (finished, mut todo): (usize, Vec<usize>),
    threads: usize,
    (folder, journal): (&Path, &mut Journal),
    stop: &Stop,
) -> Done<bool> {
    let study = slices.study;
    todo.sort_by_key(|&i| (study.first_of(i), i));
    let works = works(study, &todo);
    let next = AtomicUsize::new(0);
    let (sender, receiver) = sync_channel::<Done<Ended>>(4 * threads);
    let mut progress = Progress::new(finished + todo.len(), finished);
    let mut left = todo.len();
    let abandon = Stop::default();
    let pool = pool(threads)?;
    let written = panics::kept(|| {
        pool.in_place_scope(|scope| {
            for _ in 0..threads.min(works.len()) {
                let sender = sender.clone();
                let work = || Worker { slices, ground, folder, stop: [stop, &abandon] };
                let (worker, next, works, todo) = (work(), &next, &works, &todo);
                scope.spawn(move |_| worker.run(next, works, todo, &sender));
            }
            drop(sender);
            let mut receive = || -> Done {
                loop {
                    let ended = match receiver.recv_timeout(ALIVE) {
                        Ok(ended) => ended?,
                        Err(RecvTimeoutError::Timeout) => {
                            journal.touch();
                            continue;
                        }
                        Err(RecvTimeoutError::Disconnected) => return Ok(()),
                    };
                    journal.append(&ended.records)?;
                    left -= ended.records.len();
                    ended.records.iter().for_each(|r| progress.ended(&r.line.cell, &ended.what));
                }
            };
            let received = receive();
            // There is no receiver any more: the other threads stop after their current cell.
            abandon.set();
            drop(receiver);
            received
        })
    });
    progress.finish();
    written?;
    journal.sync()?;
    Ok(left == 0)
}

/// Ranges of `todo` that one computation serves.
fn works(study: &Study, todo: &[usize]) -> Vec<Range<usize>> {
    let mut works: Vec<Range<usize>> = vec![];
    for (i, &cell) in todo.iter().enumerate() {
        match works.last_mut() {
            Some(last) if study.first_of(todo[last.start]) == study.first_of(cell) => {
                last.end = i + 1;
            }
            _ => works.push(i..i + 1),
        }
    }
    works
}

struct Worker<'a> {
    slices: &'a Slices<'a>,
    ground: &'a dyn Ground,
    folder: &'a Path,
    stop: [&'a Stop; 2],
}

impl Worker<'_> {
    fn run(
        &self,
        next: &AtomicUsize,
        works: &[Range<usize>],
        todo: &[usize],
        sender: &SyncSender<Done<Ended>>,
    ) {
        while !self.stop.iter().any(|s| s.is_set()) {
            let Some(work) = works.get(next.fetch_add(1, Ordering::Relaxed)) else { return };
            let ended = match self.compute(&todo[work.clone()]) {
                Ok(Some(ended)) => Ok(ended),
                Ok(None) => return,
                Err(failure) => Err(failure),
            };
            // The receiver is dropped only when writing failed; this thread's result is useless then.
            if sender.send(ended).is_err() {
                return;
            }
        }
    }

    /// Computes the first of the cells; the others have the same outcome. `None` if it was cut short by a
    /// stop.
    fn compute(&self, cells: &[usize]) -> Done<Option<Ended>> {
        let study = self.slices.study;
        let (point, number) = study.point_of(cells[0]);
        let slice = self.slices.get(point).map_err(Failure::Input)?;
        let cell = plan::cell(&slice.e, &slice.ready.meaning, number);
        let values = slice.e.point.values.join(", ");
        if cell.id != study.cells[cells[0]] {
            return Err(Failure::Input(format!(
                "the cells of point {point} [{values}] are not those of the plan: a device file or \
                 profile has changed; restore it, or plan in another folder"
            )));
        }
        let played = self.ground.play(&slice, &cell, study.wants, self.stop[0]);
        let Some(mut played) = played else { return Ok(None) };
        let extras = self.extras(&mut played.outcome, cells)?;
        let figures = self.ground.is_compared().then(|| Figures::of(&played));
        let mut records = vec![];
        for (i, extras) in cells.iter().zip(extras) {
            let (p, number) = study.point_of(*i);
            let own = if p == point { None } else { Some(study.grid.at(p)) };
            let own = own.transpose().map_err(Failure::Input)?;
            let e = own.as_ref().unwrap_or(&slice.e);
            // The same policy and repeat at the cell's own point.
            let like = plan::cell(e, &slice.ready.meaning, number);
            let cell = Cell { id: study.cells[*i].to_owned(), work: cell.work.clone(), ..like };
            let mut record = Record::of(&study.plan, e, &cell, &played);
            record.line.extras = extras;
            record.figures.clone_from(&figures);
            if *i != study.first_of(*i) {
                record.line.cpu_s = 0.0;
            }
            records.push(record);
        }
        let swept = if values.is_empty() { String::new() } else { format!(" [{values}]") };
        let Played { outcome, .. } = &played;
        let what = format!(
            "{swept} seed {}: {}, {} events, {:.2} s",
            cell.seed, outcome.status, outcome.events, outcome.cpu_s
        );
        Ok(Some(Ended { records, what }))
    }

    /// Writes request logs and timelines at once, so that they do not pile up in memory.
    fn extras(&self, outcome: &mut Outcome, cells: &[usize]) -> Done<Vec<Vec<Extra>>> {
        let ids = || cells.iter().map(|i| &self.slices.study.cells[*i]);
        let mut extras: Vec<Vec<Extra>> = vec![vec![]; cells.len()];
        if let Some(log) = outcome.requests.take() {
            let mut text = log.text().map_err(unkept)?;
            for (id, extras) in ids().zip(&mut extras) {
                text.rewind().map_err(unkept)?;
                let extra = if self.slices.study.wants.parquet {
                    let path = format!("requests/{id}.parquet");
                    Extra::make(self.folder, path, |file| parquet::of_csv(&mut text, file))?
                } else {
                    let path = format!("requests/{id}.csv.zst");
                    Extra::make(self.folder, path, |file| compress(&mut text, file))?
                };
                extras.push(extra);
            }
        }
        if let Some((json, lost)) = outcome.timeline.take() {
            for (id, extras) in ids().zip(&mut extras) {
                let path = format!("timeline/{id}.json");
                extras.push(Extra::write(self.folder, path, json.as_bytes())?);
                if lost > 0 {
                    say::warn(&format!(
                        "timeline/{id}.json is cut: {lost} more events would not fit; shorten \
                         `duration`"
                    ));
                }
            }
        }
        Ok(extras)
    }
}

/// The failure when requests cannot be kept until their cell ends.
fn unkept(e: io::Error) -> Failure {
    let folder = std::env::temp_dir();
    Failure::failed(format!(
        "cannot keep requests in {}: {e}; TMPDIR names another folder for temporary files",
        folder.display()
    ))
}

/// Compresses all of `text` into one zstd frame: some readers stop after the first frame.
fn compress(text: impl Read, file: Sink<'_>) -> io::Result<()> {
    let mut drain = Drain { file, failed: None };
    let source = Source { text: BufReader::new(text), failed: None };
    let mut encoder = FrameCompressor::new(CompressionLevel::Fastest);
    encoder.set_source(source);
    encoder.set_drain(&mut drain);
    encoder.compress();
    let read = encoder.take_source().and_then(|source| source.failed);
    drop(encoder);
    read.or(drain.failed).map_or(Ok(()), Err)
}

/// The encoder cannot return I/O errors: the first is kept here, and nothing more is written.
struct Drain<'a> {
    file: Sink<'a>,
    failed: Option<io::Error>,
}

impl Write for Drain<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.failed.is_none() {
            self.failed = self.file.write_all(bytes).err();
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The same for reading: the input ends at the first error.
struct Source<R> {
    text: R,
    failed: Option<io::Error>,
}

impl<R: Read> Read for Source<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.failed.is_some() {
            return Ok(0);
        }
        self.text.read(buffer).or_else(|e| {
            self.failed = Some(e);
            Ok(0)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A full disk.
    struct Full;

    impl Write for Full {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::StorageFull.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn requests_are_one_frame_and_what_fails_is_told() {
        let text: String = (0..300_000).map(|i| format!("a,{i},{},7,completed\n", i + 7)).collect();
        let mut packed = vec![];
        compress(text.as_bytes(), &mut packed).unwrap();
        let mut back = String::new();
        let mut frame = ruzstd::decoding::StreamingDecoder::new(&packed[..]).unwrap();
        frame.read_to_string(&mut back).unwrap();
        assert!(back == text, "the decoder stops behind the first frame");
        let failed = compress(text.as_bytes(), &mut Full).unwrap_err();
        assert_eq!(failed.kind(), io::ErrorKind::StorageFull);
    }
}
