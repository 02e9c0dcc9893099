//! Errors between a result folder and its pictures.

use std::path::PathBuf;

use cotenant_results::ReadError;

/// Why `draw` failed, or succeeded only in part.
#[derive(Debug, thiserror::Error)]
pub enum PlotError {
    /// The folder's results cannot be read.
    #[error(transparent)]
    Results(#[from] ReadError),
    /// A file cannot be written.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// A plot cannot be drawn from the available data.
    #[error("plot `{plot}`: {reason}")]
    Plot {
        /// The plot's file stem.
        plot: String,
        /// The cause, and what would help.
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
