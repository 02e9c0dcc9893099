//! Mutated inputs for every reader: an answer or an error, never a panic, in bounded time.

pub(super) mod readers;
mod turns;

use cotenant_profiles::import::{self, Recording, Tool};

use super::{device, options};
use readers::{SUM_CSV, readers, stream};

/// Found by mutations: the sum of instances and half of the passes was too large for a number, and many
/// rows of many launches each took memory without an end.
#[test]
fn instances_beyond_reason_are_an_answer() {
    let rows = |instances: &str, n: usize| {
        let head = SUM_CSV.lines().next().unwrap();
        let columns = head.split(',').count();
        let at = head.split(',').position(|c| c.contains("Instances")).unwrap();
        let one = (0..columns).map(|c| if c == at { instances } else { "7000" });
        let row = one.collect::<Vec<_>>().join(",");
        format!("{head}\n{}", format!("{row}\n").repeat(n))
    };
    let once = import::StreamOptions { passes: Some(1), ..options() };
    for text in [rows("18446744073709551615", 1), rows("100000", 1000)] {
        let read = Recording::stream(Tool::Nsys, "f", text.as_bytes()).unwrap();
        let why = read.model(&device(), &once).unwrap_err().to_string();
        assert!(why.contains("give --passes N"), "{why}");
    }
    assert!(stream(Tool::Nsys, rows("18446744073709551615", 1).as_bytes()).is_ok());
}

#[test]
fn mutated_inputs_are_answers_not_panics() {
    turns::run(readers(), 200);
}

/// Every reader has a target of cargo-fuzz.
#[test]
fn readers_are_targets_of_cargo_fuzz() {
    let manifest = include_str!("../../../../fuzz/Cargo.toml");
    for (name, ..) in readers() {
        let line = format!("name = \"{}\"", name.replace(' ', "-"));
        assert!(manifest.lines().any(|l| l == line), "fuzz/Cargo.toml lacks {line}");
    }
}
