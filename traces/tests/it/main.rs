//! The promises of the trace crate: readers, transforms, generators, memory.

#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "helpers of tests; notes on absent data"
)]

mod broken;
mod cases;
mod files;
mod fuzz;
mod generators;
mod public;
mod streaming;
