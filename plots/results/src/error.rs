//! What can be wrong with a result folder.

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
}
