//! A trace does not have to fit into memory: rows go through one at a time.

use std::path::Path;

use cotenant_profiles::Nanos;
use cotenant_traces::{ArrivalSpec, ReadOptions, convert, generate, stats};

/// Peak resident memory of this process in KiB, where the system says it.
fn peak_kib() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

/// The only test of its process, so that the peak is its own.
#[test]
#[ignore = "run by the test below in a process of its own"]
fn peak_of_a_process_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let spec: ArrivalSpec = serde_json::from_str(r#"{"kind":"poisson","rate":10000}"#).unwrap();
    let run = |seconds: u64| {
        let (raw, out) = (folder.path().join("raw.csv.zst"), folder.path().join("out.csv.gz"));
        let duration = Nanos::from_secs(seconds);
        let rows = generate(&spec, Path::new("."), "t", "m", duration, 1, &raw).unwrap();
        let steps: Vec<_> = ["window:1s..", "thin:0.5", "map:stripe:4"]
            .iter()
            .map(|s| s.parse().unwrap())
            .collect();
        let options = ReadOptions::default();
        let report = convert(None, &raw, &out, &steps, &options).unwrap();
        assert_eq!(report.rows_in, rows);
        assert_eq!(stats(None, &out, &[], &options).unwrap().total.requests, report.rows_out);
        peak_kib()
    };
    let (Some(small), Some(large)) = (run(60), run(200)) else { return };
    // 1.4 million more rows: held in memory, at over 100 bytes each, they would be 140 MB.
    assert!(large < small + 8 * 1024, "peak {small} KiB, then {large} KiB");
}

#[test]
fn memory_does_not_grow_with_the_trace() {
    let child = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["streaming::peak_of_a_process_of_its_own", "--exact", "--ignored"])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&child.stdout);
    assert!(child.status.success() && text.contains("1 passed"), "{text}");
}
