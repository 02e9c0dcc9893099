//! Devices, profiles on disk, the zoo and its analytic curves, importers of tables and recordings.
#![allow(
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "a test that cannot go on has failed, and some say what they skip"
)]

mod decoder;
mod devices;
mod files;
mod import;
mod recordings;
mod tune;
mod zoo;
mod zoo_analytic;
