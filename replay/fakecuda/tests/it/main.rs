//! cotenant's CUDA code against the stand-in driver. Every test runs in a process of its own, whose
//! loader finds the stand-in under the libraries' names.
#![allow(clippy::unwrap_used)] // helpers of tests

mod collect;
mod costs;
mod driver;
mod merge;
mod nasty;
mod processes;
mod replay;
mod stand_in;
mod steps;
mod tune;
