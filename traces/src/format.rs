//! A format of traces, and the options of its reader.

use std::path::Path;

use crate::error::TraceError;
use crate::expand::Expand;
use crate::row::Stream;

/// Options for the readers.
#[derive(Clone, Debug, PartialEq)]
pub struct ReadOptions {
    /// Seed of every random choice a reader makes.
    pub seed: u64,
    /// How counts become requests.
    pub expand: Expand,
    /// Sort rows by arrival, in memory; ties keep their order.
    pub sort: bool,
    /// BurstGPT: leave out the rows without response tokens, under the reason `failed`.
    pub drop_failures: bool,
    /// ServeGen: the largest coefficient of variation that a window's gaps may have. Fits of nearly
    /// idle windows go up to several hundred.
    pub cv_max: f64,
    /// Columns that the format does not have are kept as `x_…` instead of refused.
    pub keep_extra: bool,
    /// The tenant of every row, in place of what the format says.
    pub tenant: Option<String>,
    /// The model of every row, in place of what the format says.
    pub model: Option<String>,
}

impl Default for ReadOptions {
    fn default() -> Self {
        Self {
            seed: 1,
            expand: Expand::default(),
            sort: false,
            drop_failures: false,
            cv_max: 10.0,
            keep_extra: false,
            tenant: None,
            model: None,
        }
    }
}

/// The beginning of a file, to tell its format.
#[derive(Debug)]
pub struct Probe {
    /// It is a folder.
    pub is_dir: bool,
    /// Lower-case file name.
    pub name: String,
    /// Its first non-empty lines that are not comments.
    pub lines: Vec<String>,
    /// Its first line.
    pub first: String,
}

/// One format that can be read.
pub struct Format {
    /// The name after `--from`.
    pub name: &'static str,
    /// What it is, in one line.
    pub summary: &'static str,
    pub(crate) open: fn(&Path, &ReadOptions) -> Result<Stream, TraceError>,
    pub(crate) sniff: fn(&Probe) -> bool,
}

impl std::fmt::Debug for Format {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Format").field("name", &self.name).finish()
    }
}
