//! Commands other than `run` and `plot`.

pub(crate) mod gpu;
pub(crate) mod lists;
pub(crate) mod profile;
pub(crate) mod trace;
