//! The simulator's promises, one module each; what they share is in `common`.
#![allow(clippy::print_stderr, clippy::unwrap_used)] // tests print their numbers
#![allow(unreachable_pub)] // replay's tests use the builders too

mod anchor;
mod audit;
mod autotune;
mod bounds;
mod coalesce;
mod common;
mod conformance;
mod determinism;
mod dnnscaler;
mod driver;
mod dstack;
mod eclip;
mod engine;
mod fleet;
mod gslice;
mod krisp;
mod measured;
mod oracle;
mod oracle_cases;
mod oracle_engine;
mod queueing;
mod repartition;
mod servers;
mod skip;
mod turns;
