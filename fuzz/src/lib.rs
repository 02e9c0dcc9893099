//! The readers that are fuzzed, by the names of their targets: those of the loops in `cargo test`.
#![allow(dead_code, clippy::unwrap_used, reason = "shared with the tests, which need more of it")]

mod recordings;
mod traces;

/// A reader: the kind of its answer, or an error.
pub type Reader = fn(&[u8]) -> Result<String, String>;

/// The reader that a target is named after.
///
/// # Panics
/// There is none of this name.
#[must_use]
pub fn reader(target: &str) -> Reader {
    let mut all = recordings::fuzz::readers::readers();
    all.extend(traces::readers::readers());
    let found = all.iter().find(|(name, ..)| name.replace(' ', "-") == target);
    let Some((.., reader)) = found else { panic!("no reader is called `{target}`") };
    *reader
}
