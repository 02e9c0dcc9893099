//! Figures, the report, and what is refused.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod fixture;
mod gallery;
mod matrix;
mod messages;
