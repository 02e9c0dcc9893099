//! The program from outside: what it promises on the command line, in its files and at its exits.
#![allow(
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "a test that cannot go on has failed, and some print their numbers"
)]
#![allow(dead_code, reason = "helpers that not every build of the tests uses")]

mod advise;
mod capture;
mod cli;
mod commands;
mod dnnscaler;
mod faults;
mod fleet;
mod measured;
mod mutated;
mod processes;
mod readme;
mod recordings;
mod replay;
mod requests;
mod robust;
mod shard;
mod shard_faults;
mod study;
mod submit;
mod tune;
mod worker;
