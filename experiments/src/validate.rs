//! Evaluates the difference between simulation and replay.

pub(crate) mod compare;
pub(crate) mod residuals;
pub(crate) mod verdict;
