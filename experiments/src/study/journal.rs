//! Journals: one file per attempt at a shard, one line per finished cell.
//!
//! Two attempts at the same shard may well run at once, for instance when a scheduler has lost contact with a
//! node. So no file has two writers, and the finished cells are the union of all journals.

use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use super::Study;
use super::record::{Extra, Record};
use super::seal;
use crate::fail::{Done, Failure};
use crate::info;

/// How much work a crash of the whole machine may cost.
const SYNC: Duration = Duration::from_secs(5);

/// Folder of the journals of a shard.
pub(crate) fn folder(dir: &Path, shard: usize) -> PathBuf {
    dir.join("attempts").join(format!("{shard:05}"))
}

/// The journal of this attempt.
pub(crate) struct Journal {
    path: PathBuf,
    file: File,
    synced: Instant,
}

impl Journal {
    /// Starts a journal that no other attempt writes.
    ///
    /// # Errors
    /// It cannot be created.
    pub(crate) fn create(dir: &Path, shard: usize) -> Done<Self> {
        let folder = folder(dir, shard);
        fs::create_dir_all(&folder).map_err(|e| Failure::io(&folder, e))?;
        let name = attempt();
        for n in 1.. {
            let twice = if n == 1 { String::new() } else { format!("-{n}") };
            let path = folder.join(format!("{name}{twice}.jsonl"));
            let made = File::options().read(true).append(true).create_new(true).open(&path);
            match made {
                Ok(file) => return Ok(Self { path, file, synced: Instant::now() }),
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
                Err(e) => return Err(Failure::io(&path, e)),
            }
        }
        unreachable!("some number is free")
    }

    /// Adds finished cells.
    ///
    /// # Errors
    /// They cannot be written.
    pub(crate) fn append(&mut self, records: &[Record]) -> Done {
        let mut text = String::new();
        for record in records {
            text += &seal::line(record);
            text.push('\n');
        }
        let written = self.file.write_all(text.as_bytes());
        written.map_err(|e| Failure::write(&self.path, e).into_io())?;
        if self.synced.elapsed() >= SYNC {
            self.sync()?;
        }
        Ok(())
    }

    /// Flushes the written records to disk.
    ///
    /// # Errors
    /// It cannot be written.
    pub(crate) fn sync(&mut self) -> Done {
        self.synced = Instant::now();
        self.file.sync_data().map_err(|e| Failure::write(&self.path, e).into_io())
    }

    /// Shows users that the attempt is alive while a long cell runs.
    pub(crate) fn touch(&self) {
        // Nothing depends on it.
        let _ = self.file.set_modified(SystemTime::now());
    }
}

/// The name of this attempt: job, restart, host and process.
pub(crate) fn attempt() -> String {
    let variable = |name: &str| std::env::var(name).ok().filter(|v| !v.is_empty());
    let job = variable("SLURM_ARRAY_JOB_ID").or_else(|| variable("SLURM_JOB_ID"));
    let job = match (job, variable("SLURM_ARRAY_TASK_ID")) {
        (Some(job), Some(task)) => format!("{job}_{task}"),
        (Some(job), None) => job,
        _ => "local".to_owned(),
    };
    let restart = variable("SLURM_RESTART_COUNT").unwrap_or_else(|| "0".to_owned());
    let host = variable("SLURMD_NODENAME").unwrap_or_else(info::host);
    let name = format!("{job}-r{restart}-{host}-{}", std::process::id());
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    name.chars().map(|c| if legal(c) { c } else { '-' }).collect()
}

/// Where a cell's record lies.
#[derive(Clone, Copy)]
struct Place {
    /// Index of the journal.
    file: usize,
    offset: u64,
    bytes: usize,
    /// As [`Record::mark`].
    mark: u64,
}

/// The finished cells of all journals: only where each record lies, not its content, so that memory does not
/// grow with the results.
pub(crate) struct Kept {
    files: Vec<(PathBuf, File)>,
    places: Vec<Option<Place>>,
    /// Journals in the folder that hold no record of this plan.
    pub(crate) others: Vec<PathBuf>,
}

/// Two attempts disagree about a cell.
pub(crate) struct Conflict {
    pub(crate) journals: [PathBuf; 2],
    pub(crate) records: [Record; 2],
}

impl Kept {
    /// Reads every journal of a shard. Lines that are truncated, corrupt, of another plan or of a cell that
    /// is not in this study are ignored; so is a cell whose own files are missing or, if `thorough`, damaged.
    ///
    /// # Errors
    /// An existing journal cannot be read; or, as the inner result, two journals disagree.
    pub(crate) fn read(
        study: &Study,
        dir: &Path,
        shard: usize,
        thorough: bool,
    ) -> Done<Result<Self, Box<Conflict>>> {
        let mut kept =
            Self { files: vec![], places: vec![None; study.cells.len()], others: vec![] };
        for path in journals(&folder(dir, shard))? {
            let file = File::open(&path).map_err(|e| Failure::io(&path, e))?;
            kept.files.push((path, file));
            if let Some(conflict) = kept.read_last(study, dir, thorough)? {
                return Ok(Err(Box::new(conflict)));
            }
        }
        Ok(Ok(kept))
    }

    /// Reads the journal that was opened last.
    fn read_last(&mut self, study: &Study, dir: &Path, thorough: bool) -> Done<Option<Conflict>> {
        let is_kept = |x: &Extra| if thorough { x.is_whole(dir) } else { x.is_there(dir) };
        let number = self.files.len() - 1;
        let (path, file) = &self.files[number];
        let mut ours = false;
        for record in records(path, file) {
            let (offset, bytes, record) = record?;
            let Some(i) = study.find(&record.line.cell) else { continue };
            if record.plan != study.plan || !record.line.extras.iter().all(is_kept) {
                continue;
            }
            ours = true;
            let place = Place { file: number, bytes, offset, mark: record.mark() };
            match self.places[i] {
                None => self.places[i] = Some(place),
                Some(known) if known.mark == place.mark => {}
                Some(known) => {
                    let journals = [self.files[known.file].0.clone(), path.clone()];
                    return Ok(Some(Conflict { journals, records: [self.at(known)?, record] }));
                }
            }
        }
        if !ours {
            self.others.push(path.clone());
        }
        Ok(None)
    }

    /// Whether a cell is finished.
    pub(crate) fn has(&self, cell: usize) -> bool {
        self.places[cell].is_some()
    }

    /// The record of a finished cell.
    ///
    /// # Errors
    /// Its journal has changed since it was read.
    pub(crate) fn get(&self, cell: usize) -> Done<Option<Record>> {
        self.places[cell].map(|place| self.at(place)).transpose()
    }

    fn at(&self, place: Place) -> Done<Record> {
        let (path, file) = &self.files[place.file];
        let mut line = vec![0; place.bytes];
        file.read_exact_at(&mut line, place.offset).map_err(|e| Failure::io(path, e))?;
        let changed = || Failure::io(path, "it changed while it was read");
        seal::open(&line).ok_or_else(changed)
    }

    /// The journals that were read.
    pub(crate) fn journals(&self) -> impl Iterator<Item = &Path> {
        self.files.iter().map(|(path, _)| path.as_path())
    }
}

/// The records of a journal, each with the place and the length of its line. Truncated and damaged lines
/// are ignored.
pub(crate) fn records<'a>(
    path: &'a Path,
    file: &'a File,
) -> impl Iterator<Item = Done<(u64, usize, Record)>> + 'a {
    let mut reader = BufReader::with_capacity(1 << 16, file);
    let (mut offset, mut line) = (0, vec![]);
    std::iter::from_fn(move || {
        loop {
            line.clear();
            let bytes = match reader.read_until(b'\n', &mut line) {
                Ok(bytes) => bytes,
                Err(e) => return Some(Err(Failure::io(path, e))),
            };
            // A line without a line end is torn, or still being written.
            if line.last() != Some(&b'\n') {
                return None;
            }
            let start = offset;
            offset += bytes as u64;
            if let Some(record) = seal::open(&line) {
                return Some(Ok((start, bytes, record)));
            }
        }
    })
}

/// The journals in a folder, sorted by name. Other files are ignored.
pub(crate) fn journals(folder: &Path) -> Done<Vec<PathBuf>> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(vec![]),
        Err(e) => return Err(Failure::io(folder, e)),
    };
    let mut paths = vec![];
    for entry in entries {
        let path = entry.map_err(|e| Failure::io(folder, e))?.path();
        if path.extension().is_some_and(|x| x == "jsonl") && path.is_file() {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}
