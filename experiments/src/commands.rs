//! Commands other than `run` and `plot`.

pub(crate) mod accuracy;
pub(crate) mod advise;
pub(crate) mod capacity;
pub(crate) mod check;
pub(crate) mod compare;
pub(crate) mod fit;
pub(crate) mod gpu;
pub(crate) mod import;
pub(crate) mod init;
pub(crate) mod lists;
pub(crate) mod profile;
pub(crate) mod reference;
pub(crate) mod replay;
pub(crate) mod trace;
pub(crate) mod tune;
pub(crate) mod validate;
