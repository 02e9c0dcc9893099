//! The result folder: files appear whole, and what an earlier run left goes when this one is done.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use crate::fail::{Done, Failure};

/// A result folder that this run writes.
pub(crate) struct Folder {
    path: PathBuf,
    partial: File,
    /// What this run has written, relative to the folder.
    written: BTreeSet<PathBuf>,
}

const PARTIAL: &str = "results.csv.partial";
/// What a run may leave in the folder itself.
const TABLES: &[&str] =
    &["results.csv", "run.json", "cdf.csv", "series.csv", "curves.csv", "counters.csv"];
/// Folders whose files belong to a run.
const FOLDERS: &[&str] = &["requests", "timeline", "plots"];

impl Folder {
    /// Makes the folder, or takes over one that holds results.
    ///
    /// # Errors
    /// It holds something else, or cannot be made.
    pub(crate) fn open(path: &Path, header: &[u8]) -> Done<Self> {
        if path.exists() {
            let ours = TABLES.iter().chain([&PARTIAL]).any(|name| path.join(name).exists());
            let empty = path.is_dir()
                && fs::read_dir(path).map(|mut d| d.next().is_none()).unwrap_or(false);
            if !ours && !empty {
                return Err(Failure::input(format!(
                    "--out {}: exists and holds no results; choose another folder",
                    path.display()
                )));
            }
        }
        fs::create_dir_all(path).map_err(|e| Failure::write(path, e))?;
        let file = path.join(PARTIAL);
        let mut partial = File::create(&file).map_err(|e| Failure::write(&file, e))?;
        partial.write_all(header).map_err(|e| Failure::write(&file, e))?;
        Ok(Self { path: path.to_owned(), partial, written: BTreeSet::new() })
    }

    /// Adds the rows of a cell that has just ended, so that a run that is cut short leaves them.
    pub(crate) fn append(&mut self, rows: &[u8]) -> Done {
        self.partial.write_all(rows).map_err(|e| Failure::write(&self.path.join(PARTIAL), e))
    }

    /// Writes a file whole: it appears complete or not at all.
    pub(crate) fn put(&mut self, name: &str, bytes: &[u8]) -> Done {
        let file = self.path.join(name);
        write_whole(&file, bytes)?;
        self.written.insert(PathBuf::from(name));
        Ok(())
    }

    /// Removes what an earlier run left and this one did not write.
    pub(crate) fn finish(self) -> Done {
        let mut stale: Vec<PathBuf> = TABLES.iter().map(PathBuf::from).collect();
        for folder in FOLDERS {
            let Ok(entries) = fs::read_dir(self.path.join(folder)) else { continue };
            stale.extend(entries.flatten().map(|e| Path::new(folder).join(e.file_name())));
        }
        stale.retain(|name| !self.written.contains(name));
        stale.push(PathBuf::from(PARTIAL));
        for name in stale {
            let file = self.path.join(name);
            if file.is_file() {
                fs::remove_file(&file).map_err(|e| Failure::write(&file, e))?;
            }
        }
        Ok(())
    }
}

/// Writes beside, then renames.
pub(crate) fn write_whole(file: &Path, bytes: &[u8]) -> Done {
    if let Some(folder) = file.parent().filter(|f| !f.as_os_str().is_empty()) {
        fs::create_dir_all(folder).map_err(|e| Failure::write(folder, e))?;
    }
    let mut name = file.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.tmp", std::process::id()));
    let beside = file.with_file_name(name);
    fs::write(&beside, bytes).map_err(|e| Failure::write(&beside, e))?;
    fs::rename(&beside, file).map_err(|e| Failure::write(file, e))
}
