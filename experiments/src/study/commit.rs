//! A finished shard: its tables, and the commit record that is renamed last.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::Study;
use super::cells::Cells;
use super::journal::Kept;
use super::record::TABLES;
use super::seal;
use super::tables::{self, Making};
use crate::digest;
use crate::fail::{Done, Failure};
use crate::info;

/// The contents of a finished shard.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Commit {
    pub(crate) plan: String,
    pub(crate) shard: usize,
    pub(crate) shards: usize,
    pub(crate) build: String,
    pub(crate) host: String,
    /// Wall time of the attempt that finished the shard, s.
    pub(crate) wall_s: f64,
    pub(crate) tables: Vec<Table>,
    /// In the order of the plan.
    pub(crate) cells: Cells,
}

/// A table of the shard.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub(crate) struct Table {
    /// Name of the study's table that this one becomes a part of.
    pub(crate) name: String,
    pub(crate) bytes: u64,
    pub(crate) sha256: String,
}

/// Why a shard does not count as finished.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Lack {
    /// No commit record.
    Missing,
    /// The record, or a file that it names, is damaged; the text says how.
    Corrupt(String),
}

impl std::fmt::Display for Lack {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Missing => f.write_str("not finished"),
            Self::Corrupt(why) => f.write_str(why),
        }
    }
}

/// The file of a shard's table.
pub(crate) fn table_file(dir: &Path, shard: usize, table: usize) -> PathBuf {
    let kind = TABLES[table].strip_suffix(".csv").expect("tables are CSV files");
    let name =
        if table == 0 { format!("{shard:05}.csv") } else { format!("{shard:05}.{kind}.csv") };
    dir.join("shards").join(name)
}

/// The file of a shard's commit record.
pub(crate) fn record_file(dir: &Path, shard: usize) -> PathBuf {
    dir.join("shards").join(format!("{shard:05}.json"))
}

/// Which shard of how many, computed by which build, in how long.
pub(crate) struct Of<'a> {
    pub(crate) shard: usize,
    pub(crate) shards: usize,
    pub(crate) build: &'a str,
    pub(crate) wall_s: f64,
}

/// Writes a shard's tables, then its record.
///
/// # Errors
/// A file cannot be written.
pub(crate) fn write(
    study: &Study,
    dir: &Path,
    of: &Of<'_>,
    kept: &Kept,
    cells: &[usize],
) -> Done<Commit> {
    let commit = make(study, of, kept, cells, |t| Some(table_file(dir, of.shard, t)))?;
    let mut making = Making::begin(&record_file(dir, of.shard))?;
    making.fill(|file| seal::record(&commit, file))?;
    making.finish()?;
    Ok(commit)
}

/// The record that [`write()`] would write.
///
/// # Errors
/// A journal cannot be read.
pub(crate) fn describe(study: &Study, of: &Of<'_>, kept: &Kept, cells: &[usize]) -> Done<Commit> {
    make(study, of, kept, cells, |_| None)
}

fn make(
    study: &Study,
    of: &Of<'_>,
    kept: &Kept,
    cells: &[usize],
    path: impl Fn(usize) -> Option<PathBuf>,
) -> Done<Commit> {
    let mut finished = Cells::default();
    let keep = |_, rows: tables::Rows| finished.push(rows.line, rows.bytes);
    let written = tables::assemble(study, kept, cells.iter().copied(), path, keep)?;
    let table = |w: tables::Written| Table {
        name: TABLES[w.table].to_owned(),
        bytes: w.bytes,
        sha256: w.sha256,
    };
    Ok(Commit {
        plan: study.plan.clone(),
        shard: of.shard,
        shards: of.shards,
        build: of.build.to_owned(),
        host: std::env::var("SLURMD_NODENAME").unwrap_or_else(|_| info::host()),
        wall_s: of.wall_s,
        tables: written.into_iter().map(table).collect(),
        cells: finished,
    })
}

/// Checks from the files that a shard is finished.
///
/// # Errors
/// An existing file cannot be read.
pub(crate) fn read(
    study: &Study,
    dir: &Path,
    shard: usize,
    cells: &[usize],
) -> Done<Result<Commit, Lack>> {
    let path = record_file(dir, shard);
    let sealed = match seal::read::<Commit>(&path) {
        Ok(sealed) => sealed,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Err(Lack::Missing)),
        Err(e) => return Err(Failure::io(&path, e)),
    };
    let corrupt = |why: &str| Ok(Err(Lack::Corrupt(why.to_owned())));
    let Some(commit) = sealed else {
        return corrupt("its commit record is damaged");
    };
    if commit.plan != study.plan || commit.shard != shard {
        return corrupt("its commit record belongs to another plan");
    }
    if !commit.cells.names().eq(cells.iter().map(|&i| &study.cells[i])) {
        return corrupt("its cells are not those of the plan");
    }
    let headers = tables::headers(&study.grid.head().keys);
    for (t, name) in TABLES.iter().enumerate() {
        let rows: u64 = commit.cells.iter().map(|c| c.bytes[t]).sum();
        let Some(table) = commit.tables.iter().find(|table| table.name == *name) else {
            if rows > 0 || tables::wanted(study)[t] {
                return corrupt(&format!("its commit record lacks {name}"));
            }
            continue;
        };
        if table.bytes != headers[t].len() as u64 + rows {
            return corrupt(&format!("its commit record contradicts itself on {name}"));
        }
        let file = table_file(dir, shard, t);
        let shown = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        match digest_of(&file) {
            Ok(Some(digest)) if digest == table.sha256 => {}
            Ok(Some(_)) => return corrupt(&format!("{shown} is damaged")),
            Ok(None) => return corrupt(&format!("{shown} is missing")),
            Err(e) => return Err(Failure::io(&file, e)),
        }
    }
    for extra in commit.cells.extras() {
        if !extra.is_whole(dir) {
            return corrupt(&format!("{} is missing or damaged", extra.path));
        }
    }
    Ok(Ok(commit))
}

fn digest_of(file: &Path) -> std::io::Result<Option<String>> {
    let mut file = match File::open(file) {
        Ok(file) => file,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e),
    };
    let mut digest = digest::Running::default();
    let mut buffer = vec![0; 1 << 16];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(Some(digest.finish())),
            n => digest.add(&buffer[..n]),
        }
    }
}

impl Commit {
    /// Whether another attempt got the same results: compares everything but times and hosts.
    pub(crate) fn agrees(&self, other: &Self) -> bool {
        self.tables == other.tables && self.cells.agrees(&other.cells)
    }
}
