//! Why a command did not succeed, and the exit status that says so.

use std::fmt;
use std::process::ExitCode;

/// A failure with its exit status.
#[derive(Debug)]
pub(crate) enum Failure {
    /// What the user gave cannot be used: status 2.
    Input(String),
    /// A check, a cell or the device failed: status 1. The text is empty where everything has
    /// been said already.
    Failed(String),
    /// Nobody reads our output any more: status 0, silently.
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

    /// A file that cannot be written.
    pub(crate) fn write(path: &std::path::Path, cause: impl fmt::Display) -> Self {
        Self::Failed(format!("cannot write {}: {cause}", path.display()))
    }

    /// The exit status.
    pub(crate) fn code(&self) -> ExitCode {
        match self {
            Self::Input(_) => ExitCode::from(2),
            Self::Failed(_) => ExitCode::from(1),
            Self::Closed => ExitCode::SUCCESS,
        }
    }

    /// What to tell the user, if anything.
    pub(crate) fn message(&self) -> Option<&str> {
        match self {
            Self::Input(text) | Self::Failed(text) if !text.is_empty() => Some(text),
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
