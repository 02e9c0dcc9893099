//! The readers of recordings, as the loop of mutations has them.

#[path = "../../../profiles/tests/it/recordings/fuzz/readers.rs"]
pub(crate) mod readers;

mod turns {
    pub(crate) use crate::Reader;
}
