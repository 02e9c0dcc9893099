//! What can go wrong between a result folder and its pictures.

use std::path::PathBuf;

use cotenant_results::ReadError;

/// Why `draw` did not, or not fully, succeed.
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
        /// Why not.
        source: std::io::Error,
    },
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
