//! Tables that appear only when complete: written to a temporary file, flushed to disk, renamed.

use std::fs::{self, File};
use std::io::{self, BufWriter, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use super::Study;
use super::journal::Kept;
use super::record::{Line, TABLES};
use crate::digest::Running;
use crate::fail::{Done, Failure};
use crate::results;

/// A file being written; it is deleted unless it is finished.
pub(crate) struct Making {
    path: PathBuf,
    beside: PathBuf,
    file: BufWriter<File>,
    finished: bool,
}

impl Making {
    /// Begins a file.
    ///
    /// # Errors
    /// It cannot be created.
    pub(crate) fn begin(path: &Path) -> Done<Self> {
        let folder = path.parent().expect("files lie in a folder");
        fs::create_dir_all(folder).map_err(|e| Failure::io(folder, e))?;
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(format!(".{}.tmp", std::process::id()));
        let beside = path.with_file_name(name);
        let file = File::create(&beside).map_err(|e| Failure::io(&beside, e))?;
        let file = BufWriter::with_capacity(1 << 18, file);
        Ok(Self { path: path.to_owned(), beside, file, finished: false })
    }

    /// Adds bytes.
    ///
    /// # Errors
    /// They cannot be written.
    pub(crate) fn add(&mut self, bytes: &[u8]) -> Done {
        self.file.write_all(bytes).map_err(|e| Failure::io(&self.beside, e))
    }

    /// Lets `write` write into the file.
    ///
    /// # Errors
    /// It cannot be written.
    pub(crate) fn fill(
        &mut self,
        write: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>,
    ) -> Done {
        write(&mut self.file).map_err(|e| Failure::io(&self.beside, e))
    }

    /// Moves to an offset in the file.
    ///
    /// # Errors
    /// Buffered bytes cannot be written.
    pub(crate) fn seek(&mut self, offset: u64) -> Done {
        let moved = self.file.seek(SeekFrom::Start(offset));
        moved.map(|_| ()).map_err(|e| Failure::io(&self.beside, e))
    }

    /// Flushes the file to disk and renames it to its final name.
    ///
    /// # Errors
    /// The disk is full, or gone.
    pub(crate) fn finish(mut self) -> Done {
        let synced = self.file.flush().and_then(|()| self.file.get_ref().sync_all());
        synced.map_err(|e| Failure::io(&self.beside, e))?;
        fs::rename(&self.beside, &self.path).map_err(|e| Failure::io(&self.path, e))?;
        self.finished = true;
        let folder = self.path.parent().expect("files lie in a folder");
        sync_folder(folder).map_err(|e| Failure::io(folder, e))
    }
}

impl Drop for Making {
    fn drop(&mut self) {
        if !self.finished {
            // The file may not exist; a leftover is never read.
            let _ = fs::remove_file(&self.beside);
        }
    }
}

/// Makes a rename survive a crash of the machine.
pub(crate) fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Writes a small file completely and flushes it to disk.
///
/// # Errors
/// It cannot be written.
pub(crate) fn write_synced(path: &Path, bytes: &[u8]) -> Done {
    let mut making = Making::begin(path)?;
    making.add(bytes)?;
    making.finish()
}

/// The header of each table, in the order of [`TABLES`].
pub(crate) fn headers(keys: &[String]) -> [Vec<u8>; TABLES.len()] {
    [
        results::header(keys),
        results::cdf_header(keys),
        results::series_header(keys),
        results::counters_header(keys),
        results::layouts_header(keys),
        results::gpus_header(keys),
        results::lateness_header(keys),
    ]
}

/// Whether a table is written even if it has no rows.
pub(crate) fn wanted(study: &Study) -> [bool; TABLES.len()] {
    [true, study.wants.cdf, study.wants.series, false, false, false, false]
}

/// A table that has been written.
pub(crate) struct Written {
    /// Index into [`TABLES`].
    pub(crate) table: usize,
    pub(crate) bytes: u64,
    pub(crate) sha256: String,
}

/// A cell whose rows have been written.
pub(crate) struct Rows {
    pub(crate) line: Line,
    /// Bytes of the rows in each table.
    pub(crate) bytes: [u64; TABLES.len()],
}

struct Sink {
    /// `None` if the tables are only described, not written.
    making: Option<Making>,
    digest: Running,
    bytes: u64,
}

impl Sink {
    fn begin(path: Option<PathBuf>, header: &[u8]) -> Done<Self> {
        let making = path.map(|p| Making::begin(&p)).transpose()?;
        let mut sink = Self { making, digest: Running::default(), bytes: 0 };
        sink.add(header)?;
        Ok(sink)
    }

    fn add(&mut self, bytes: &[u8]) -> Done {
        if let Some(making) = &mut self.making {
            making.add(bytes)?;
        }
        self.digest.add(bytes);
        self.bytes += bytes.len() as u64;
        Ok(())
    }
}

/// Writes the rows of `cells`, all of which are in `kept`, into tables. `path` gives the file of each table,
/// or `None` if the tables are only described. `each` is called for every cell.
///
/// # Errors
/// A table cannot be written, a journal cannot be read.
pub(crate) fn assemble(
    study: &Study,
    kept: &Kept,
    cells: impl Iterator<Item = usize>,
    path: impl Fn(usize) -> Option<PathBuf>,
    mut each: impl FnMut(usize, Rows),
) -> Done<Vec<Written>> {
    let headers = headers(&study.grid.head().keys);
    let mut sinks: [Option<Sink>; TABLES.len()] = Default::default();
    for (t, wanted) in wanted(study).into_iter().enumerate() {
        if wanted {
            sinks[t] = Some(Sink::begin(path(t), &headers[t])?);
        }
    }
    for cell in cells {
        let record = kept.get(cell)?.expect("every cell has been computed");
        for (t, rows) in record.tables.iter().enumerate().filter(|(_, rows)| !rows.is_empty()) {
            if sinks[t].is_none() {
                sinks[t] = Some(Sink::begin(path(t), &headers[t])?);
            }
            sinks[t].as_mut().expect("made above").add(rows.as_bytes())?;
        }
        let bytes = record.tables.each_ref().map(|rows| rows.len() as u64);
        each(cell, Rows { line: record.line, bytes });
    }
    let mut written = vec![];
    for (table, sink) in sinks.into_iter().enumerate() {
        if let Some(sink) = sink {
            if let Some(making) = sink.making {
                making.finish()?;
            }
            let sha256 = sink.digest.finish();
            written.push(Written { table, bytes: sink.bytes, sha256 });
        }
    }
    Ok(written)
}
