//! Mutated inputs for every reader of traces: rows in time order or an error, never a panic, in bounded
//! time. The loop is the one of the profile readers.

mod readers;
#[path = "../../../profiles/tests/it/recordings/fuzz/turns.rs"]
mod turns;

#[test]
fn mutated_traces_are_answers_not_panics() {
    turns::run(readers::readers(), 200);
}

/// Every reader has a target of cargo-fuzz.
#[test]
fn readers_are_targets_of_cargo_fuzz() {
    let manifest = include_str!("../../../fuzz/Cargo.toml");
    for (name, ..) in readers::readers() {
        let line = format!("name = \"{}\"", name.replace(' ', "-"));
        assert!(manifest.lines().any(|l| l == line), "fuzz/Cargo.toml lacks {line}");
    }
}
