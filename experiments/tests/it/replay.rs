//! `cotenant replay` and `validate` from outside: the emulated device, and what is missing.

use std::path::{Path, PathBuf};
use std::process::Output;

use assert_cmd::Command;

fn cotenant(args: &[&str]) -> Output {
    Command::cargo_bin("cotenant").unwrap().args(args).output().unwrap()
}

fn experiment(folder: &Path, policies: &[&str]) -> PathBuf {
    let rows: Vec<String> =
        policies.iter().map(|p| format!("[[policy]]\nname = \"{p}\"\n")).collect();
    let text = format!(
        r#"
name = "small"
device = "a100-sxm-40"
duration = "60ms"
warmup = "10ms"
repeats = 2

[[tenant]]
name = "one"
model = "alexnet"
arrivals = {{ kind = "poisson", rate = 600.0 }}
slo = "20ms"
batch = {{ max = 2, timeout = "1ms" }}

[[tenant]]
name = "two"
model = "vgg16"
arrivals = {{ kind = "closed", concurrency = 1, think = "4ms" }}

{}"#,
        rows.concat()
    );
    let file = folder.join("small.toml");
    std::fs::write(&file, text).unwrap();
    file
}

fn column(table: &str, name: &str) -> Vec<String> {
    let mut reader = csv::Reader::from_reader(table.as_bytes());
    let at = reader.headers().unwrap().iter().position(|h| h == name).unwrap();
    reader.records().map(|r| r.unwrap()[at].to_owned()).collect()
}

#[test]
fn a_validation_compares_identical_arrivals_and_says_that_it_is_emulated() {
    let folder = tempfile::tempdir().unwrap();
    let file = experiment(folder.path(), &["temporal", "mps-static", "krisp", "ideal"]);
    let out = folder.path().join("out");
    let (file, dir) = (file.to_str().unwrap(), out.to_str().unwrap());
    // No number is judged here: a fixed speed bounds the time that this takes.
    let speed = ["--slowdown", "60"];
    let done =
        cotenant(&[&["validate", file, "--on", "emulated", "--out", dir], &speed[..]].concat());
    let (stdout, stderr) = (
        String::from_utf8_lossy(&done.stdout).into_owned(),
        String::from_utf8_lossy(&done.stderr).into_owned(),
    );
    assert_eq!(done.status.code(), Some(0), "{stderr}");
    assert!(stderr.contains("`ideal` is skipped: a bound cannot run on a device"), "{stderr}");
    let read = |name: &str| std::fs::read_to_string(out.join(name)).unwrap();
    for text in [&stdout, &stderr, &read("verdict.txt"), &read("run.json"), &read("report.html")] {
        assert!(text.contains("NOT A MEASUREMENT"), "{text}");
    }
    assert!(read("run.json").contains("\"kind\": \"emulated\""));
    assert!(stdout.contains("weakest part of the device model"), "{stdout}");
    let (measured, simulated) = (read("results.csv"), read("simulated.csv"));
    for name in ["cell", "seed", "tenant", "status"] {
        assert_eq!(column(&measured, name), column(&simulated, name));
    }
    assert!(column(&measured, "status").iter().all(|s| s == "ok"));
    // The same arrivals: what is offered differs by what was in flight when the window opened.
    let tenants = column(&measured, "tenant");
    let offered = column(&measured, "offered").into_iter().zip(column(&simulated, "offered"));
    for ((m, s), _) in offered.zip(tenants).filter(|(_, tenant)| tenant == "one") {
        let (m, s): (i64, i64) = (m.parse().unwrap(), s.parse().unwrap());
        assert!((m - s).abs() <= 2 && m > 10, "{m} and {s} offered");
    }
    let validation = read("validation.csv");
    let header = "label,tenant,metric,simulated,measured,error_pct,ci_low,ci_high";
    assert_eq!(validation.lines().next(), Some(header));
    let labels = column(&validation, "label");
    assert!(["temporal", "mps-static", "krisp"].iter().all(|p| labels.iter().any(|l| l == p)));
    assert!(column(&validation, "ci_low").iter().all(|c| !c.is_empty()), "two repeats");
    let kinds = column(&read("lateness.csv"), "kind");
    assert!(["arrivals", "completions", "decisions"].iter().all(|k| kinds.iter().any(|l| l == k)));
    assert!(out.join("plots/parity.svg").is_file());
}

#[test]
fn what_cannot_run_is_said_in_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let file = experiment(folder.path(), &["ideal"]);
    let file = file.to_str().unwrap();
    let bound = cotenant(&["replay", file, "--on", "emulated"]);
    assert_eq!(bound.status.code(), Some(2));
    let said = String::from_utf8_lossy(&bound.stderr).into_owned();
    assert!(said.contains("small.toml: policy: `ideal` is a bound"), "{said}");
    let unknown = cotenant(&["replay", file, "--on", "cpu"]);
    assert_eq!(unknown.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&unknown.stderr).contains("write emulated or cuda:0"));
    let speed = cotenant(&["validate", file, "--on", "emulated", "--slowdown", "0.5"]);
    assert_eq!(speed.status.code(), Some(2));

    if Path::new("/proc/driver/nvidia/version").exists() {
        eprintln!("there is a driver: its absence is not tested");
        return;
    }
    let file = experiment(folder.path(), &["mps"]);
    for command in ["replay", "validate"] {
        let none = cotenant(&[command, file.to_str().unwrap(), "--on", "cuda:0"]);
        let said = String::from_utf8_lossy(&none.stderr).into_owned();
        assert_eq!(none.status.code(), Some(1), "{said}");
        assert!(said.starts_with("error: ") && said.lines().count() == 1, "{said}");
    }
}
