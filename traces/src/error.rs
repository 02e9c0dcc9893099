//! What can be wrong with a trace, an arrival specification or a transform.

use std::fmt::Write as _;

/// Why a trace could not be read, transformed, generated or written. Every message names the file
/// and the line or the field, and what would be accepted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TraceError {
    /// The operating system, or a compressed stream, failed.
    #[error("{file}: {cause}")]
    Io {
        /// The file as the user named it.
        file: String,
        /// What failed.
        cause: std::io::Error,
    },
    /// A column or key that the format does not have.
    #[error("{file}:{line}: unknown column `{column}`{hint}")]
    UnknownColumn {
        /// The file as the user named it.
        file: String,
        /// Line, from 1.
        line: u64,
        /// The name that was found.
        column: String,
        /// The closest known name and all known names.
        hint: String,
    },
    /// A column that the format needs.
    #[error("{file}:{line}: column `{column}` is missing{hint}")]
    MissingColumn {
        /// The file as the user named it.
        file: String,
        /// Line, from 1.
        line: u64,
        /// The name that was expected.
        column: String,
        /// What else would be accepted.
        hint: String,
    },
    /// A value that its column does not accept.
    #[error("{file}:{line}: {field}: `{value}` is not {expected}")]
    Value {
        /// The file as the user named it.
        file: String,
        /// Line, from 1.
        line: u64,
        /// The column.
        field: String,
        /// The text that was found.
        value: String,
        /// What is accepted.
        expected: &'static str,
    },
    /// A line that breaks a rule of the format.
    #[error("{file}:{line}: {problem}")]
    Line {
        /// The file as the user named it.
        file: String,
        /// Line, from 1.
        line: u64,
        /// Which rule, and what to do.
        problem: String,
    },
    /// A file that breaks a rule of the format as a whole.
    #[error("{file}: {problem}")]
    File {
        /// The file as the user named it.
        file: String,
        /// Which rule, and what to do.
        problem: String,
    },
    /// The file's own accounting does not add up.
    #[error(
        "{file}: rows_in={rows_in}, but its {rows_out} rows and {dropped} dropped ones make {}",
        rows_out + dropped
    )]
    Accounting {
        /// The file as the user named it.
        file: String,
        /// What the header says went in.
        rows_in: u64,
        /// Rows that are there.
        rows_out: u64,
        /// Rows that the header says were dropped, over all reasons.
        dropped: u64,
    },
    /// A format name that no reader has.
    #[error("unknown trace format `{name}`{hint}")]
    UnknownFormat {
        /// The name that was given.
        name: String,
        /// The closest known name and all known names.
        hint: String,
    },
    /// A transform that cannot be parsed or does not fit the trace.
    #[error("transform `{spec}`: {problem}")]
    Transform {
        /// The transform as the user wrote it.
        spec: String,
        /// What is wrong and what is accepted.
        problem: String,
    },
    /// An arrival specification with a wrong field.
    #[error("arrivals.{field}: {problem}")]
    Spec {
        /// The field.
        field: String,
        /// What is wrong and what is accepted.
        problem: String,
    },
}

impl TraceError {
    pub(crate) fn io(file: &str, cause: std::io::Error) -> Self {
        Self::Io { file: file.to_owned(), cause }
    }

    pub(crate) fn file(file: &str, problem: impl Into<String>) -> Self {
        Self::File { file: file.to_owned(), problem: problem.into() }
    }

    pub(crate) fn line(file: &str, line: u64, problem: impl Into<String>) -> Self {
        Self::Line { file: file.to_owned(), line, problem: problem.into() }
    }

    pub(crate) fn spec(field: &str, problem: impl Into<String>) -> Self {
        Self::Spec { field: field.to_owned(), problem: problem.into() }
    }

    pub(crate) fn transform(spec: &str, problem: impl Into<String>) -> Self {
        Self::Transform { spec: spec.to_owned(), problem: problem.into() }
    }
}

/// `; did you mean `x`? known: x, y`: the end of every "unknown name" message.
pub(crate) fn hint<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    let known: Vec<&str> = known.into_iter().collect();
    let lower = name.to_lowercase();
    let closest = known
        .iter()
        .map(|k| (strsim::damerau_levenshtein(&lower, &k.to_lowercase()), *k))
        .min_by_key(|(distance, _)| *distance);
    let mut text = String::new();
    if let Some((_, closest)) = closest {
        let _ = write!(text, "; did you mean `{closest}`? known: {}", known.join(", "));
    }
    text
}

/// At most 60 characters of what a user wrote, for a message.
pub(crate) fn excerpt(text: &str) -> String {
    if text.chars().count() <= 60 {
        return text.to_owned();
    }
    let mut short: String = text.chars().take(57).collect();
    short.push_str("...");
    short
}
