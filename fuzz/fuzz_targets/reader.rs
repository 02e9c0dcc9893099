//! One target per reader: the name of the program says which.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;

static READER: LazyLock<cotenant_fuzz::Reader> =
    LazyLock::new(|| cotenant_fuzz::reader(env!("CARGO_BIN_NAME")));

fuzz_target!(|bytes: &[u8]| {
    let _ = READER(bytes);
});
