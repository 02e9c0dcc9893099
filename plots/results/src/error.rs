//! Errors in a result folder.

use std::path::PathBuf;

use crate::spec::SpecError;

/// Why a result file cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// A file cannot be read.
    #[error("{}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// `run.json` does not match `RunInfo`.
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
    /// A `[[plot]]` table asks for something impossible.
    #[error(transparent)]
    Spec(#[from] SpecError),
}
