//! The record of a finished cell: its rows as text, ready for the tables, and its line of `run.json`.
//!
//! Rows are kept as the text that the tables will hold, not as numbers: whichever path a cell's result takes
//! to `results.csv`, the bytes are those that its computation wrote.

use std::fs;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::figures::Figures;
use super::ground::Played;
use crate::config::Experiment;
use crate::digest;
use crate::fail::{Done, Failure};
use crate::folder::whole;
use crate::plan::Cell;
use crate::results;

/// The tables that are assembled from the cells' rows.
pub(crate) const TABLES: [&str; 7] = [
    "results.csv",
    "cdf.csv",
    "series.csv",
    "counters.csv",
    "layouts.csv",
    "gpus.csv",
    "lateness.csv",
];

/// A finished cell.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
pub(crate) struct Record {
    /// The plan that it belongs to.
    pub(crate) plan: String,
    pub(crate) line: Line,
    /// Rows, by table of [`TABLES`].
    pub(crate) tables: [String; TABLES.len()],
    /// Its numbers, if they are compared with another ground's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) figures: Option<Figures>,
}

/// The facts about a cell besides its rows.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
pub(crate) struct Line {
    pub(crate) cell: String,
    /// `ok`, or why it failed.
    pub(crate) status: String,
    pub(crate) events: u64,
    /// Digest of the event stream.
    #[serde(with = "hex")]
    pub(crate) digest: u64,
    /// Processor time, s; 0 if it shares another cell's computation.
    pub(crate) cpu_s: f64,
    /// Files that this cell alone wrote.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) extras: Vec<Extra>,
}

/// A file that a cell wrote: its request log or its timeline.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub(crate) struct Extra {
    /// Relative to the result folder.
    pub(crate) path: String,
    pub(crate) bytes: u64,
    pub(crate) sha256: String,
}

impl Record {
    /// The record of a cell; `e` holds only the cell's point.
    pub(crate) fn of(plan: &str, e: &Experiment, cell: &Cell, played: &Played) -> Self {
        let Played { outcome, lateness } = played;
        let text = |rows: Vec<u8>| String::from_utf8(rows).expect("rows are made of text");
        Self {
            plan: plan.to_owned(),
            line: Line {
                cell: cell.id.clone(),
                status: outcome.status.clone(),
                events: outcome.events,
                digest: outcome.digest,
                cpu_s: outcome.cpu_s,
                extras: vec![],
            },
            tables: [
                text(results::rows(e, cell, outcome)),
                text(results::cdf_rows(e, cell, outcome)),
                text(results::series_rows(e, cell, outcome)),
                text(results::counter_rows(e, cell, outcome)),
                text(results::layout_rows(e, cell, outcome)),
                text(results::gpu_rows(e, cell, outcome)),
                lateness
                    .as_ref()
                    .map_or_else(String::new, |l| text(results::lateness_rows(e, cell, l))),
            ],
            figures: None,
        }
    }

    /// Identifies the result: a digest of everything but the time it took.
    pub(crate) fn mark(&self) -> u64 {
        let timeless = Self { line: Line { cpu_s: 0.0, ..self.line.clone() }, ..self.clone() };
        digest::number(&digest::of_text(&serde_json::to_string(&timeless).expect("plain data")))
    }
}

/// Digests as 16 hexadecimal digits.
mod hex {
    use serde::de::Error as _;
    use serde::{Deserialize as _, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(digest: &u64, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{digest:016x}"))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
        let text = String::deserialize(deserializer)?;
        u64::from_str_radix(&text, 16).map_err(D::Error::custom)
    }
}

impl Extra {
    /// Writes the file into the folder.
    ///
    /// # Errors
    /// It cannot be written.
    pub(crate) fn write(folder: &Path, path: String, bytes: &[u8]) -> Done<Self> {
        Self::make(folder, path, |file| file.write_all(bytes))
    }

    /// The same, written piece by piece.
    ///
    /// # Errors
    /// It cannot be written.
    pub(crate) fn make(
        folder: &Path,
        path: String,
        write: impl FnOnce(Sink<'_>) -> io::Result<()>,
    ) -> Done<Self> {
        let mut digest = digest::Running::default();
        let mut bytes = 0;
        whole(&folder.join(&path), |beside| {
            let file = BufWriter::new(fs::File::create(beside)?);
            let mut counted = Counted { file, digest: &mut digest, bytes: &mut bytes };
            write(&mut counted)?;
            counted.flush()
        })
        .map_err(Failure::into_io)?;
        Ok(Self { path, bytes, sha256: digest.finish() })
    }

    /// Whether the file exists and has the right length.
    pub(crate) fn is_there(&self, folder: &Path) -> bool {
        fs::metadata(folder.join(&self.path)).is_ok_and(|m| m.len() == self.bytes)
    }

    /// Whether the file exists and has the right content.
    pub(crate) fn is_whole(&self, folder: &Path) -> bool {
        self.is_there(folder)
            && digest::of_path(&folder.join(&self.path)).is_ok_and(|d| d == self.sha256)
    }
}

/// A file being written.
pub(crate) type Sink<'a> = &'a mut (dyn Write + Send);

/// A file that counts its bytes and computes its digest while it is written.
struct Counted<'a, W> {
    file: W,
    digest: &'a mut digest::Running,
    bytes: &'a mut u64,
}

impl<W: Write> Write for Counted<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.file.write(bytes)?;
        self.digest.add(&bytes[..n]);
        *self.bytes += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}
