//! What the difference of simulation and replay comes to.

pub(crate) mod compare;
pub(crate) mod residuals;
pub(crate) mod verdict;
