//! The public cases: small inputs of every kind that went wrong once, each with its right value.

use std::path::PathBuf;

use cotenant_profiles::import::{StreamOptions, Tool};

use super::{import, launches_and_ns, options};

/// File, GPU, launches, ns.
const RIGHT: [(&str, Option<u32>, usize, u64); 30] = [
    ("torch-grid-one.json", None, 3, 18_000),
    ("nsys-small-grid.sqlite", None, 4, 26_000),
    ("torch-three-iterations.json", None, 3, 18_000),
    ("nsys-schema-comments.sqlite", None, 4, 26_000),
    ("nsys-schema-plain.sqlite", None, 4, 26_000),
    ("torch-one-step-layers.json", None, 14, 215_000),
    ("torch-two-steps-layers.json", None, 14, 215_000),
    // Steps of 65, 69, … 85 us: the two in the middle.
    ("torch-dynamic-grid.json", None, 4, 75_000),
    ("torch-two-devices.json", Some(0), 4, 26_000),
    ("torch-two-devices.json", Some(1), 4, 34_000),
    ("nsys-two-devices.sqlite", Some(0), 4, 26_000),
    ("nsys-two-devices.sqlite", Some(1), 4, 34_000),
    ("torch-side-stream.json", None, 5, 36_000),
    ("torch-same-shape-different-work.json", None, 6, 570_000),
    ("torch-graph-no-grid.json", None, 3, 18_000),
    ("torch-some-no-grid.json", None, 3, 18_000),
    ("torch-three-iterations.json.gz", None, 3, 18_000),
    ("torch-zero-times.json", None, 3, 18_000),
    ("torch-overflow-dur.json", None, 3, 22_000),
    ("torch-memcpy.json", None, 3, 18_000),
    ("nsys-graph-level.sqlite", None, 5, 66_000),
    ("torch-string-times.json", None, 3, 18_000),
    ("torch-latin1.json", None, 3, 18_000),
    ("torch-bad-escape.json", None, 3, 18_000),
    ("torch-control-char.json", None, 3, 18_000),
    ("torch-inf-bandwidth.json", None, 3, 18_000),
    ("torch-Infinity-bandwidth.json", None, 3, 18_000),
    ("torch-nan-arg.json", None, 3, 18_000),
    ("torch-array-unclosed.json", None, 3, 18_000),
    ("torch-18-kernel.json", None, 3, 18_000),
];

/// Also read right: other ways to write the same.
const MORE: [(&str, usize, u64); 6] = [
    ("torch-absolute-us.json", 3, 18_963),
    ("torch-pause-inside.json", 4, 65_000),
    ("torch-negative-ts.json", 3, 18_000),
    ("torch-begin-end.json", 3, 18_000),
    ("torch-string-grid.json", 3, 18_000),
    ("torch-prefill-decode.json", 4, 17_950),
];

/// Rows whose number in the table is not a sum of kernels as it stands: why, and what the table says.
const OTHERWISE: [(&str, &str, &str); 3] = [
    (
        "torch-dynamic-grid.json",
        "the steps of the file take 65, 69, … 85 us, each of the four kernels 1 us more than in the step \
         before; 67.5 us would be the median if only one of them grew",
        "67.5 us",
    ),
    ("torch-side-stream.json", "written as a sum", "4x8 us + 4 us"),
    (
        "torch-memcpy.json",
        "with its copies, as `copies_are_part_of_the_pass` checks",
        "518 us on the GPU",
    ),
];

/// The times in a sentence, ns.
fn times(words: &str) -> Vec<u64> {
    let words: Vec<&str> =
        words.split([' ', '(', ')', ',', ';', '/']).filter(|w| !w.is_empty()).collect();
    // `0.026 / 0.034 ms`: the unit stands behind the last one.
    let unit = |i: usize| {
        let behind =
            words[i + 1..].iter().find(|w| w.parse::<f64>().is_err() && !w.starts_with("device"));
        match behind {
            Some(&"ms") => Some(1e6),
            Some(&"us") => Some(1e3),
            _ => None,
        }
    };
    let each = (0..words.len()).filter_map(|i| {
        let number: f64 = words[i].parse().ok()?;
        Some((number * unit(i)?).round() as u64)
    });
    each.collect()
}

/// The steps of a file, as its kernels add up: computed here, not by the import.
#[test]
fn the_median_of_growing_steps_is_between_the_two_in_the_middle() {
    let Some(folder) = folder() else { return };
    let text = std::fs::read_to_string(folder.join("torch-dynamic-grid.json")).unwrap();
    let trace: serde_json::Value = serde_json::from_str(&text).unwrap();
    let mut steps = std::collections::BTreeMap::new();
    for event in trace["traceEvents"].as_array().unwrap() {
        if event["cat"] == "kernel" {
            let step = (event["ts"].as_f64().unwrap() / 1e3) as u64;
            *steps.entry(step).or_insert(0) += event["dur"].as_u64().unwrap();
        }
    }
    let steps: Vec<u64> = steps.into_values().collect();
    assert_eq!(steps, [65, 69, 73, 77, 81, 85]);
    let right = RIGHT.iter().find(|r| r.0 == "torch-dynamic-grid.json").unwrap();
    assert_eq!(right.3, (steps[2] + steps[3]) * 1_000 / 2);
}

#[test]
fn copies_are_part_of_the_pass() {
    let Some(folder) = folder() else { return };
    let import = import(Tool::Torch, &folder.join("torch-memcpy.json"), &options()).unwrap();
    let alone = super::alone_ns(&import);
    assert!(alone.abs_diff(518_000) * 20 <= 518_000, "{alone} {:?}", import.notes);
}

fn folder() -> Option<PathBuf> {
    let data = std::env::var_os("COTENANT_PUBLIC_DATA");
    if data.is_none() {
        eprintln!("skipped: COTENANT_PUBLIC_DATA names no folder of public data");
    }
    data.map(|d| PathBuf::from(d).join("cases")).filter(|d| d.exists())
}

fn tool(file: &str) -> Tool {
    if file.starts_with("nsys") { Tool::Nsys } else { Tool::Torch }
}

#[test]
fn every_row_of_the_table_gives_its_right_value() {
    let Some(folder) = folder() else { return };
    let table = std::fs::read_to_string(folder.join("README.md")).unwrap();
    let (mut rows, mut numbers, mut otherwise) = (0, 0, 0);
    for row in table.lines().filter(|l| l.starts_with("| torch-") || l.starts_with("| nsys-")) {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        for file in cells[1].split(", ") {
            let right: Vec<_> = RIGHT.iter().filter(|r| r.0 == file).collect();
            assert!(!right.is_empty(), "{file}: no value here");
            // Where the table writes its numbers out, they are these.
            let words = cells[3];
            let before = words.split_once(" launches").and_then(|(w, _)| w.rsplit(' ').next());
            if let Some(n) = before.and_then(|w| w.parse::<usize>().ok()) {
                assert!(right.iter().all(|r| r.2 == n), "{file}: {words}");
            }
            if let Some((_, why, held)) = OTHERWISE.iter().find(|o| o.0 == file) {
                assert!(words.contains(held), "{file}: {words}: {why}");
                otherwise += 1;
            } else {
                let said = times(words);
                let known = |r: &&&(_, _, _, u64)| said.is_empty() || said.contains(&r.3);
                let unknown: Vec<_> = right.iter().filter(|r| !known(r)).collect();
                assert!(unknown.is_empty(), "{file}: {words}: {unknown:?}");
                numbers += usize::from(!said.is_empty());
            }
            rows += 1;
        }
    }
    assert!(rows >= 26 && numbers >= 15, "{rows} rows, {numbers} with their numbers");
    assert_eq!(otherwise, OTHERWISE.len());
    let more = MORE.iter().map(|&(file, n, ns)| (file, None, n, ns));
    for (file, gpu, launches, ns) in RIGHT.into_iter().chain(more) {
        let options = StreamOptions { gpu, batch: 1, ..options() };
        let found = import(tool(file), &folder.join(file), &options);
        let found = found.unwrap_or_else(|e| panic!("{file}: {e}"));
        let (n, took) = launches_and_ns(&found);
        assert_eq!(n, launches, "{file}: {:?}", found.notes);
        assert!(took.abs_diff(ns) * 100 <= ns, "{file}: {took} ns, right is {ns}");
    }
}

#[test]
fn what_a_case_is_about_is_said() {
    let Some(folder) = folder() else { return };
    let read = |file: &str| import(tool(file), &folder.join(file), &options());
    for file in ["torch-two-devices.json", "nsys-two-devices.sqlite"] {
        let error = read(file).unwrap_err();
        assert!(error.contains("choose with --gpu-index: GPU 0: 24 kernels"), "{error}");
    }
    let said = |file: &str, word: &str| {
        let import = read(file).unwrap();
        let all = [import.notes.clone(), import.warnings.clone()].concat().join("\n");
        let dropped = format!("{:?}", import.dropped);
        assert!(all.contains(word) || dropped.contains(word), "{file}: {all} {dropped}");
    };
    said("torch-zero-times.json", "without times: start and duration are 0\": 9");
    said("torch-overflow-dur.json", "next one of their stream begins: 5");
    said("torch-graph-no-grid.json", "launch shape unknown for 3 of 3 launches");
    said("torch-some-no-grid.json", "launch shape unknown for 1 of 3 launches");
    said("nsys-graph-level.sqlite", "record with --cuda-graph-trace=node");
    said("torch-array-unclosed.json", "the list of events has no end");
    said("torch-dynamic-grid.json", "other grids in 1 of 4 launches");
    said(
        "torch-side-stream.json",
        "streams: stream 7 (4 launches, 0.032 ms) is the main one; stream",
    );
    said("torch-memcpy.json", "8000000 bytes in");
    said("torch-prefill-decode.json", "left out: 4 of 84 launches, 0.380 of 0.");
}
