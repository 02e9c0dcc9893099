//! Why a command failed, and the exit status for it.

use std::fmt;
use std::process::ExitCode;

/// A failure with its exit status.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The user's input cannot be used: status 2.
    Input(String),
    /// A check, a cell or the device failed: status 1. The text is empty if everything has been reported
    /// already.
    Failed(String),
    /// Cells are missing: status 3.
    Incomplete(String),
    /// Two attempts disagree: status 4.
    Conflict(String),
    /// A file of a study cannot be read or written: status 74.
    Io(String),
    /// Stopped by a signal; finished work is kept: status 75.
    Stopped(String),
    /// The reader of our output is gone: status 0, silently.
    Closed,
}

impl Failure {
    /// Bad input.
    pub(crate) fn input(what: impl fmt::Display) -> Self {
        Self::Input(what.to_string())
    }

    /// Something failed.
    pub(crate) fn failed(what: impl fmt::Display) -> Self {
        Self::Failed(what.to_string())
    }

    /// A file of a study that cannot be read or written.
    pub(crate) fn io(path: &std::path::Path, cause: impl fmt::Display) -> Self {
        Self::Io(format!("{}: {cause}", path.display()))
    }

    /// Turns a failure to write into an I/O error, for commands whose files others rely on.
    pub(crate) fn into_io(self) -> Self {
        match self {
            Self::Failed(text) => Self::Io(text),
            other => other,
        }
    }

    /// The reverse, for commands where a full disk is a failure like any other.
    pub(crate) fn into_failed(self) -> Self {
        match self {
            Self::Io(text) => Self::Failed(text),
            other => other,
        }
    }

    /// A file that cannot be written.
    pub(crate) fn write(path: &std::path::Path, cause: impl fmt::Display) -> Self {
        Self::Failed(format!("cannot write {}: {cause}", path.display()))
    }

    /// The exit status.
    pub(crate) fn code(&self) -> ExitCode {
        match self {
            Self::Input(_) => ExitCode::from(2),
            Self::Failed(_) => ExitCode::from(1),
            Self::Incomplete(_) => ExitCode::from(3),
            Self::Conflict(_) => ExitCode::from(4),
            Self::Io(_) => ExitCode::from(74),
            Self::Stopped(_) => ExitCode::from(75),
            Self::Closed => ExitCode::SUCCESS,
        }
    }

    /// What to tell the user, if anything.
    pub(crate) fn message(&self) -> Option<&str> {
        match self {
            Self::Input(text)
            | Self::Failed(text)
            | Self::Incomplete(text)
            | Self::Conflict(text)
            | Self::Io(text)
            | Self::Stopped(text)
                if !text.is_empty() =>
            {
                Some(text)
            }
            _ => None,
        }
    }
}

/// Result of a command.
pub(crate) type Done<T = ()> = Result<T, Failure>;

/// The known name closest to `name`, as `` (did you mean `x`?) ``, or nothing.
pub(crate) fn did_you_mean<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    let closest = cotenant_profiles::text::closest(name, known);
    closest.map_or_else(String::new, |k| format!(" (did you mean `{k}`?)"))
}
