//! What can go wrong between a result folder and its pictures.

use std::path::PathBuf;

use crate::spec::SpecError;

/// Why `draw` did not, or not fully, succeed.
#[derive(Debug, thiserror::Error)]
pub enum PlotError {
    /// A file cannot be read.
    #[error("{}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// A file cannot be written.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// `run.json` is not what `RunInfo` describes.
    #[error("{}:{line}: {message}", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// What is wrong, with the field's name.
        message: String,
    },
    /// A table is malformed.
    #[error("{}:{line}: {message}", path.display())]
    Table {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: u64,
        /// What is wrong, with the column's name.
        message: String,
    },
    /// A `[[plot]]` table asks for what cannot be.
    #[error(transparent)]
    Spec(#[from] SpecError),
    /// One plot cannot be drawn from the data there is.
    #[error("plot `{plot}`: {reason}")]
    Plot {
        /// The plot's file stem.
        plot: String,
        /// Why not, and what would help.
        reason: String,
    },
    /// Some plots could not be drawn; the others and the report were written.
    #[error("{}", failures.join("\n"))]
    Some {
        /// The files that were written.
        drawn: Vec<PathBuf>,
        /// One line for each plot that is missing.
        failures: Vec<String>,
    },
}
