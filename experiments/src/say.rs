//! The one place that talks to people: results to stdout, the rest to stderr.

use std::io::{ErrorKind, Write};
use std::sync::atomic::{AtomicU8, Ordering};

use crate::fail::{Done, Failure};

/// 0 quiet, 1 normal, 2 verbose.
static LEVEL: AtomicU8 = AtomicU8::new(1);

/// Sets how much goes to stderr.
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

/// Results, to stdout.
///
/// # Errors
/// The reader has gone, or the disk is full.
pub(crate) fn out(text: &str) -> Done {
    let mut stdout = std::io::stdout().lock();
    let written = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
    written.map_err(|e| match e.kind() {
        ErrorKind::BrokenPipe => Failure::Closed,
        _ => Failure::failed(format!("cannot write to stdout: {e}")),
    })
}

/// Progress and facts, to stderr, unless `-q`.
pub(crate) fn note(text: &str) {
    if !quiet() {
        eprintln_or_nothing(text);
    }
}

/// Details, to stderr, with `-v` alone.
pub(crate) fn detail(text: &str) {
    if verbose() {
        eprintln_or_nothing(text);
    }
}

/// Something that a reader of the results has to know, to stderr, even with `-q`.
pub(crate) fn warn(text: &str) {
    eprintln_or_nothing(&format!("warning: {text}"));
}

/// Why the command ends, to stderr.
pub(crate) fn error(text: &str) {
    eprintln_or_nothing(&format!("error: {text}"));
}

/// A message of the argument parser, which brings its own `error:`.
pub(crate) fn plain_error(text: &str) {
    eprintln_or_nothing(text.trim_end());
}

/// A closed stderr is no reason to fail.
fn eprintln_or_nothing(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}
