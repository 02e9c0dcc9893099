//! Tests of the crate in one program, but for two: `dispatch.rs` counts what its process allocates, and
//! `drive.rs` compares wall-clock times, which neighbours would change.
#![allow(clippy::print_stderr, clippy::unwrap_used)] // tests print their numbers, and say that they are skipped

mod kernels;
mod mps;
#[cfg(target_arch = "x86_64")] // fibers in its own instructions
mod on_host;
mod outside;
mod transcript;

// What the simulator's tests draw scripts from.
#[path = "../../../sim/tests/it/common/mod.rs"]
mod common;
#[path = "../../../sim/tests/it/engine/model.rs"]
mod model;
#[path = "../../../sim/tests/it/oracle_cases/mod.rs"]
mod oracle_cases;
