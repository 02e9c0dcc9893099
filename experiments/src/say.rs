//! All output: results go to stdout, everything else to stderr.

use std::io::{ErrorKind, IsTerminal, Write};
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use crate::fail::{Done, Failure};

/// Whether messages are coloured; see [`set_color`].
static COLOR: AtomicBool = AtomicBool::new(false);

/// When to colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Color {
    Auto,
    Always,
    Never,
}

/// Sets whether messages on stderr are coloured: on a terminal, unless `NO_COLOR` is set.
pub(crate) fn set_color(color: Color) {
    let wanted = match color {
        Color::Always => true,
        Color::Never => false,
        Color::Auto => {
            let refused = std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty());
            let dumb = std::env::var_os("TERM").is_some_and(|t| t == "dumb");
            !refused && !dumb && std::io::stderr().is_terminal()
        }
    };
    COLOR.store(wanted, Ordering::Relaxed);
}

/// A word in bold and a colour of the terminal.
fn marked(word: &str, color: u8) -> String {
    if COLOR.load(Ordering::Relaxed) {
        format!("\x1b[1;{color}m{word}\x1b[0m")
    } else {
        word.to_owned()
    }
}

/// 0 quiet, 1 normal, 2 verbose.
static LEVEL: AtomicU8 = AtomicU8::new(1);

/// Sets how much is printed to stderr.
pub(crate) fn set_level(quiet: bool, verbose: bool) {
    LEVEL.store(if quiet { 0 } else { 1 + u8::from(verbose) }, Ordering::Relaxed);
}

/// Whether `-q` was given.
pub(crate) fn quiet() -> bool {
    LEVEL.load(Ordering::Relaxed) == 0
}

/// Whether `-v` was given.
pub(crate) fn verbose() -> bool {
    LEVEL.load(Ordering::Relaxed) > 1
}

/// Prints results to stdout.
///
/// # Errors
/// The reader is gone, or the disk is full.
pub(crate) fn out(text: &str) -> Done {
    let mut stdout = std::io::stdout().lock();
    let written = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
    written.map_err(|e| match e.kind() {
        ErrorKind::BrokenPipe => Failure::Closed,
        _ => Failure::failed(format!("cannot write to stdout: {e}")),
    })
}

/// Prints progress and facts to stderr, unless `-q` was given.
pub(crate) fn note(text: &str) {
    if !quiet() {
        eprintln_or_nothing(text);
    }
}

/// Prints details to stderr, only with `-v`.
pub(crate) fn detail(text: &str) {
    if verbose() {
        eprintln_or_nothing(text);
    }
}

/// Prints a warning that readers of the results need to stderr, even with `-q`.
pub(crate) fn warn(text: &str) {
    eprintln_or_nothing(&format!("{}: {text}", marked("warning", 33)));
}

/// Prints the reason for a failure to stderr.
pub(crate) fn error(text: &str) {
    for line in text.lines() {
        eprintln_or_nothing(&format!("{}: {line}", marked("error", 31)));
    }
}

/// Prints a message of the argument parser, which already contains `error:`.
pub(crate) fn plain_error(text: &str) {
    eprintln_or_nothing(text.trim_end());
}

/// A closed stderr is not a failure.
fn eprintln_or_nothing(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}
