//! What can be wrong with a profile on disk, always with file, line and field.

use std::path::PathBuf;

use crate::curve::CurveError;

/// Why a profile cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The system refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// File or folder.
        path: PathBuf,
        /// What the system reports.
        source: std::io::Error,
    },
    /// Something in a file is wrong.
    #[error("{file}:{line}: {field}: {problem}")]
    Bad {
        /// The file.
        file: String,
        /// Line, from 1.
        line: usize,
        /// Column, key, or `file` for the file as a whole.
        field: String,
        /// What is wrong and what is accepted.
        problem: Box<Problem>,
    },
    /// A profile in memory that cannot be written as it is.
    #[error("cannot write the profile: {what}: {problem}")]
    Unwritable {
        /// The part concerned.
        what: String,
        /// What is wrong.
        problem: Box<Problem>,
    },
    /// Only a measurement is written as one.
    #[error(
        "a `measured` profile is written by a measurement alone: a copy or a computation must \
         say `imported` or `analytic`"
    )]
    NotAMeasurement,
    /// The folder holds something else already.
    #[error("{}: holds {what} already; choose another folder, or merge", dir.display())]
    Occupied {
        /// The folder.
        dir: PathBuf,
        /// What it holds.
        what: String,
    },
}

impl FileError {
    pub(crate) fn bad(file: &str, line: usize, field: &str, problem: Problem) -> Self {
        let (file, field) = (file.to_owned(), field.to_owned());
        Self::Bad { file, line, field, problem: Box::new(problem) }
    }

    pub(crate) fn unwritable(what: &str, problem: Problem) -> Self {
        Self::Unwritable { what: what.to_owned(), problem: Box::new(problem) }
    }

    /// What is wrong, if the error is about content.
    #[must_use]
    pub fn problem(&self) -> Option<&Problem> {
        match self {
            Self::Bad { problem, .. } | Self::Unwritable { problem, .. } => Some(problem),
            _ => None,
        }
    }
}

/// What is wrong at a place in a file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// Bytes that are not text.
    #[error("not UTF-8 text")]
    Encoding,
    /// Not this format.
    #[error("the first line is `{0}`, expected `# cotenant-profile v1`")]
    Version(String),
    /// A `#` line before the header without `=`.
    #[error("`{0}` is not `# key=value`")]
    Header(String),
    /// A header key that must be there.
    #[error("missing: expected a line `# {0}=…` before the header")]
    MissingKey(&'static str),
    /// No row of column names.
    #[error("no header; expected the columns {0}")]
    NoHeader(String),
    /// A column that means nothing.
    #[error("unknown column{hint}; known are {known}")]
    UnknownColumn {
        /// `: did you mean …?`, or nothing.
        hint: String,
        /// The known columns.
        known: String,
    },
    /// A column that must be there.
    #[error("missing column; needed are {0}")]
    MissingColumn(String),
    /// A column, kernel, point or launch given twice.
    #[error("`{0}` is there twice")]
    Duplicate(String),
    /// A row of another width than the header.
    #[error("{found} cells, the header has {expected}")]
    Cells {
        /// Cells of the row.
        found: usize,
        /// Columns of the header.
        expected: usize,
    },
    /// A cell that does not read.
    #[error("`{text}` is not {wanted}")]
    Value {
        /// The text found.
        text: String,
        /// What would be right.
        wanted: String,
    },
    /// A kernel that kernels.csv does not have.
    #[error("no kernel `{name}` in kernels.csv{hint}")]
    UnknownKernel {
        /// The name found.
        name: String,
        /// `: did you mean …?`, or nothing.
        hint: String,
    },
    /// A kernel without a single duration.
    #[error("kernel `{0}` has no point in curves.csv")]
    NoCurve(String),
    /// Durations that make no curve.
    #[error("{0}")]
    Curve(CurveError),
    /// More CUs than the device has.
    #[error("{cus} CUs: {device} has {has}")]
    TooManyCus {
        /// CUs asked for.
        cus: u32,
        /// The device.
        device: String,
        /// Its CUs.
        has: u32,
    },
    /// Something to be added exists already, with other numbers.
    #[error("has other numbers in the profile it is added to")]
    Known,
    /// Two files of one profile that contradict one another.
    #[error("`{found}` here, `{expected}` in {other}")]
    Disagrees {
        /// The text found here.
        found: String,
        /// The text in the other place.
        expected: String,
        /// The other place.
        other: String,
    },
    /// Launches that do not count up.
    #[error("position {found} of batch {batch}, expected {expected}: launches count from 0")]
    Position {
        /// Batch size.
        batch: u32,
        /// The position found.
        found: u32,
        /// The position expected.
        expected: u32,
    },
    /// No row at all.
    #[error("no rows: expected at least one {0}")]
    NoRows(&'static str),
    /// The TOML reader's own words.
    #[error("{0}")]
    Toml(String),
}
