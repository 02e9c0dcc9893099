//! The readers of traces, as the loop of mutations has them.

#[path = "../../traces/tests/it/fuzz/readers.rs"]
pub(crate) mod readers;

mod turns {
    pub(crate) use crate::Reader;
}
