//! The result folder: files appear only when complete, and leftovers of an earlier run are removed when this
//! one is done.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::fail::{Done, Failure};
use cotenant_results::RunInfo;

/// A result folder that this run writes.
pub(crate) struct Folder {
    path: PathBuf,
    /// Files that this run has written, relative to the folder.
    written: BTreeSet<PathBuf>,
    /// Figures of the earlier run whose results the folder holds.
    earlier: Vec<PathBuf>,
    /// Held until the run is over: only one run at a time may write to a folder.
    _lock: Option<fs::File>,
}

/// The file that marks the folder of a sharded study.
pub(crate) const PLAN: &str = "plan.json";
/// Folder of the journals.
pub(crate) const ATTEMPTS: &str = "attempts";
/// Names the plan of the results, once they are complete.
pub(crate) const COMPLETE: &str = ".complete";
/// Files that a run may leave in the folder itself.
const TABLES: &[&str] = &[
    "results.csv",
    "run.json",
    "cdf.csv",
    "series.csv",
    "curves.csv",
    "counters.csv",
    "layouts.csv",
    "gpus.csv",
    "lateness.csv",
    "simulated.csv",
    "validation.csv",
    "verdict.txt",
];
/// Folders with one file for each cell.
const FOLDERS: &[&str] = &["requests", "timeline"];

impl Folder {
    /// Creates the folder, or takes over one that holds results.
    ///
    /// # Errors
    /// It holds something else, or cannot be created.
    pub(crate) fn open(path: &Path) -> Done<Self> {
        if path.join(PLAN).exists() {
            return Err(Failure::input(format!(
                "--out {0}: holds a plan; compute its shards with `cotenant run {0} --shard K/N`, \
                 or choose another folder",
                path.display()
            )));
        }
        let foreign = || {
            Failure::input(format!(
                "--out {}: exists and holds no results; choose another folder",
                path.display()
            ))
        };
        if path.is_file() {
            return Err(foreign());
        }
        fs::create_dir_all(path).map_err(|e| match e.kind() {
            io::ErrorKind::NotADirectory | io::ErrorKind::AlreadyExists => {
                Failure::input(format!("--out {}: {e}", path.display()))
            }
            _ => Failure::write(path, e),
        })?;
        // Checked under the lock: another run may be filling it at this moment.
        let lock = lock(path)?;
        let ours = TABLES.iter().chain([&ATTEMPTS]).any(|name| path.join(name).exists());
        if !ours && !is_free(path) {
            return Err(foreign());
        }
        Ok(Self { _lock: lock, ..Self::of(path) })
    }

    /// A folder that already holds this run's files.
    pub(crate) fn of(path: &Path) -> Self {
        let earlier = RunInfo::read(&path.join("run.json"));
        let earlier = earlier.map_or_else(|_| vec![], |run| cotenant_plots::figures(&run));
        Self { path: path.to_owned(), written: BTreeSet::new(), earlier, _lock: None }
    }

    /// Writes a whole file: it appears complete or not at all.
    pub(crate) fn put(&mut self, name: &str, bytes: &[u8]) -> Done {
        write_whole(&self.path.join(name), bytes)?;
        self.keep(name);
        Ok(())
    }

    /// As [`Folder::put`], piece by piece.
    pub(crate) fn write(
        &mut self,
        name: &str,
        write: impl FnOnce(&mut dyn io::Write) -> io::Result<()>,
    ) -> Done {
        whole(&self.path.join(name), |beside| {
            let mut file = io::BufWriter::new(fs::File::create(beside)?);
            write(&mut file)?;
            io::Write::flush(&mut file)
        })?;
        self.keep(name);
        Ok(())
    }

    /// Counts a file as written by this run.
    pub(crate) fn keep(&mut self, name: &str) {
        self.written.insert(PathBuf::from(name));
    }

    /// Removes files that an earlier run left and this one did not write. Other files stay.
    pub(crate) fn finish(self) -> Done {
        let mut stale: Vec<PathBuf> =
            TABLES.iter().map(PathBuf::from).chain(self.earlier).collect();
        for folder in FOLDERS {
            let Ok(entries) = fs::read_dir(self.path.join(folder)) else { continue };
            let names = entries.flatten().map(|e| e.file_name());
            let ours = names.filter(|name| name.to_str().is_some_and(of_a_cell));
            stale.extend(ours.map(|name| Path::new(folder).join(name)));
        }
        stale.retain(|name| !self.written.contains(name));
        for name in stale {
            let file = self.path.join(name);
            if file.is_file() {
                fs::remove_file(&file).map_err(|e| Failure::write(&file, e))?;
            }
        }
        Ok(())
    }
}

/// Whether a file is named like a cell: `LABEL-` and twelve digits of its digest in hexadecimal.
fn of_a_cell(name: &str) -> bool {
    let hex = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
    name.split(['-', '.']).any(|part| part.len() == 12 && part.chars().all(hex))
}

/// Locks the folder for this process. The lock is released when the process ends in any way; `None` on a file
/// system without locks.
///
/// # Errors
/// Another process holds the lock.
fn lock(path: &Path) -> Done<Option<fs::File>> {
    let Ok(folder) = fs::File::open(path) else { return Ok(None) };
    match flock(&folder, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(folder)),
        Err(Errno::WOULDBLOCK) => Err(Failure::Stopped(format!(
            "another run is writing to {}; run the same command again when it is done, or give \
             another folder with --out",
            path.display()
        ))),
        Err(_) => Ok(None),
    }
}

/// Whether a folder is absent or empty.
pub(crate) fn is_free(path: &Path) -> bool {
    let empty = || fs::read_dir(path).map(|mut d| d.next().is_none()).unwrap_or(false);
    !path.exists() || empty()
}

/// Writes a temporary file next to the target, then renames it.
pub(crate) fn write_whole(file: &Path, bytes: &[u8]) -> Done {
    whole(file, |beside| fs::write(beside, bytes))
}

/// Lets `write` create a temporary file next to the target, then renames it.
pub(crate) fn whole(file: &Path, write: impl FnOnce(&Path) -> io::Result<()>) -> Done {
    if let Some(folder) = file.parent().filter(|f| !f.as_os_str().is_empty()) {
        fs::create_dir_all(folder).map_err(|e| Failure::write(folder, e))?;
    }
    let mut name = file.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.tmp", std::process::id()));
    let beside = file.with_file_name(name);
    let written = write(&beside).and_then(|()| fs::rename(&beside, file));
    written.map_err(|e| {
        // A leftover is never read; it may not even exist.
        let _ = fs::remove_file(&beside);
        Failure::write(file, e)
    })
}
