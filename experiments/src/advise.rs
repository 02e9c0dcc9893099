//! `cotenant advise` and `cotenant check`: from a mix and its goals to settings that can be deployed, and
//! back.
//!
//! ```text
//! mix (flags or TOML) -> lab: models compiled once, one cell = one candidate under one seed
//!   -> space: the settings that each mechanism has  -> screen: a formula orders them
//!   -> search: short runs with common random numbers, neighbours of the best, longer runs of the
//!      survivors -> fleet: several GPUs, each searched by itself
//!   -> answer: rows, choice, runner-up, when it flips -> screen, JSON, page, files (cotenant-deploy)
//! ```
//!
//! `planner` adds the plans of published planners, for comparison. What a candidate delivers is always
//! simulated; the formula only decides what is simulated first.

pub(crate) mod answer;
pub(crate) mod cells;
pub(crate) mod check;
mod evaluate;
mod finish;
pub(crate) mod fleet;
mod goal;
pub(crate) mod lab;
mod length;
pub(crate) mod mix;
pub(crate) mod page;
pub(crate) mod planner;
mod published;
mod reason;
mod row;
pub(crate) mod screen;
pub(crate) mod search;
pub(crate) mod space;
mod study;
pub(crate) mod table;

#[cfg(test)]
mod tests;
