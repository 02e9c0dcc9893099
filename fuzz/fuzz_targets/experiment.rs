//! Experiments: read, prepared, laid out, and a short cell computed.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(said) = cotenant::inspect(text, 20_000.0) {
        assert!(!said.contains("internal-error"), "{said}");
    }
});
