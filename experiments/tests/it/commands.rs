//! The commands around a run, as a new user meets them.

use std::fs;
use std::path::Path;

use assert_cmd::Command;

fn cotenant() -> Command {
    let mut command = Command::cargo_bin("cotenant").unwrap();
    command.env_remove("COTENANT_PROFILES").env_remove("COTENANT_PUBLIC_DATA");
    command
}

/// What a command prints to stdout, once it has succeeded.
fn told(dir: &Path, args: &[&str]) -> String {
    let done = cotenant().current_dir(dir).args(args).output().unwrap();
    let stderr = String::from_utf8_lossy(&done.stderr);
    assert_eq!(done.status.code(), Some(0), "{args:?}: {stderr}");
    String::from_utf8(done.stdout).unwrap()
}

/// What it says to stderr where it ends with a status.
fn refused(dir: &Path, args: &[&str], status: i32) -> String {
    let done = cotenant().current_dir(dir).args(args).output().unwrap();
    let stderr = String::from_utf8_lossy(&done.stderr).into_owned();
    assert_eq!(done.status.code(), Some(status), "{args:?}: {stderr}");
    stderr
}

const SHORT: [&str; 4] = ["--set", "duration=300ms", "--set", "warmup=50ms"];

/// A folder with `mine.toml`, as `init` writes it.
fn begun() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let models = "squeezenet1_1,mobilenet-v2";
    let text = told(dir.path(), &["init", "mine", "--device", "a30", "--model", models]);
    assert!(text.contains("cotenant run ./mine.toml --dry-run"), "{text}");
    dir
}

#[test]
fn an_experiment_begins_with_init_and_ends_with_an_answer() {
    let dir = begun();
    let here = dir.path();
    assert!(refused(here, &["init", "mine"], 2).contains("exists already"));
    let run = |more: &[&str]| told(here, &[&["run", "mine.toml"], &SHORT[..], more].concat());
    let dry = run(&["--dry-run"]);
    assert!(dry.contains("mine: 12 cells (1 point × 4 policies × 3 repeats)"), "{dry}");
    assert!(dry.contains("temporal") && dry.contains("memory GiB"), "{dry}");
    assert!(!here.join("out").exists(), "nothing is written");
    let answer = run(&[]);
    assert!(answer.ends_with("Report: out/mine/report.html\n"), "{answer}");
    assert!(answer.lines().count() <= 8, "an answer in a few lines: {answer}");
    let table = run(&["--table"]);
    assert!(table.contains("p99 ms") && table.len() > answer.len(), "{table}");
    let json: serde_json::Value = serde_json::from_str(&run(&["--json"])).unwrap();
    assert_eq!(json["rows"].as_array().unwrap().len(), 12, "4 policies × (2 tenants + the GPU)");
    assert!(json["answer"].as_array().is_some_and(|a| !a.is_empty()));
}

#[test]
fn a_finished_folder_is_computed_again_only_when_asked() {
    let dir = begun();
    let run = |more: &[&str]| {
        let args = [&["run", "mine.toml"], &SHORT[..], more].concat();
        let done = cotenant().current_dir(dir.path()).args(args).output().unwrap();
        assert!(done.status.success());
        String::from_utf8(done.stderr).unwrap()
    };
    let skipped = "computed already";
    assert!(!run(&[]).contains(skipped));
    assert!(run(&[]).contains(skipped));
    assert!(!run(&["--again"]).contains(skipped));
    assert!(!run(&["--seed", "7"]).contains(skipped), "other results");
    assert!(!run(&["--seed", "7", "--timeline"]).contains(skipped), "more files");
}

#[test]
fn two_folders_are_compared_repeat_by_repeat() {
    let dir = begun();
    let here = dir.path();
    let run = |out: &str, more: &[&str]| {
        told(here, &[&["run", "mine.toml", "--out", out], &SHORT[..], more].concat())
    };
    run("a", &[]);
    run("b", &["--set", "tenant.*.arrivals.rate=400"]);
    let same = told(here, &["compare", "a", "a"]);
    assert!(same.contains("0 of"), "{same}");
    let more = told(here, &["compare", "a", "b", "--metric", "throughput_rps"]);
    assert!(more.contains("significant"), "{more}");
    let json: serde_json::Value =
        serde_json::from_str(&told(here, &["compare", "a", "b", "--json"])).unwrap();
    assert!(json.as_array().unwrap().iter().all(|d| d["difference"].is_number()));
    let wrong = refused(here, &["compare", "a", "b", "--metric", "latency_p99"], 2);
    assert!(wrong.contains("did you mean `latency_p99_ms`?"), "{wrong}");
    run("swept", &["--set", "sweep.device=[\"a30\", \"h100-sxm\"]"]);
    assert!(refused(here, &["compare", "a", "swept"], 2).contains("the same sweep"));
}

#[test]
fn capacity_is_the_load_at_which_goals_are_kept() {
    let dir = begun();
    let args = [&["capacity", "mine.toml", "--json"], &SHORT[..]].concat();
    let found: Vec<serde_json::Value> = serde_json::from_str(&told(dir.path(), &args)).unwrap();
    assert_eq!(found.len(), 4);
    let factor = |label: &str| {
        let row = found.iter().find(|c| c["label"] == label).unwrap();
        row["factor"].as_f64().unwrap_or(0.0)
    };
    assert!(factor("ideal") >= factor("temporal"), "nobody beats the bound: {found:?}");
    assert!(factor("ideal") > 1.0, "{found:?}");
    // A run says it of what is to be deployed, from its first repeat.
    let loaded = ["--set", "tenant.*.arrivals.rate=1100", "--set", "repeats=1"];
    let run = told(dir.path(), &[&["run", "mine.toml"], &SHORT[..], &loaded].concat());
    let args = [&args[..], &loaded].concat();
    let found: Vec<serde_json::Value> = serde_json::from_str(&told(dir.path(), &args)).unwrap();
    let info = fs::read(dir.path().join("out/mine/run.json")).unwrap();
    let info: serde_json::Value = serde_json::from_slice(&info).unwrap();
    let winner = &info["winners"][0];
    let winner = winner.get("today").unwrap_or(winner);
    let said = winner["headroom"]["factor"].as_f64().expect("it has a headroom");
    let exact = found.iter().find(|c| c["label"] == winner["label"]).unwrap();
    let ratio = exact["factor"].as_f64().unwrap() / said;
    assert!((0.98..1.1).contains(&ratio), "{winner} against {exact}");
    let label = winner["label"].as_str().unwrap();
    assert!(run.contains(&format!("Headroom: `{label}` keeps every goal up to")), "{run}");
    assert!(!run.contains("exceeds the bound"), "{run}");
    // At a load that all carry equally well, one is named all the same.
    let light = ["--set", "tenant.*.arrivals.rate=400", "--set", "repeats=1"];
    let run = told(dir.path(), &[&["run", "mine.toml"], &SHORT[..], &light].concat());
    assert!(run.contains("Headroom: `temporal` keeps every goal up to"), "{run}");
    let info = fs::read_to_string(dir.path().join("out/mine/run.json")).unwrap();
    assert!(info.contains("\"tied\": true"), "{info}");
    let text = fs::read_to_string(dir.path().join("mine.toml")).unwrap();
    fs::write(dir.path().join("free.toml"), text.replace("slo      =", "# slo")).unwrap();
    assert!(refused(dir.path(), &["capacity", "free.toml"], 2).contains("nobody has an `slo`"));
}

#[test]
fn kept_results_get_other_figures() {
    let dir = begun();
    let here = dir.path();
    told(here, &[&["run", "mine.toml", "--out", "a"], &SHORT[..]].concat());
    let figures = || {
        let mut names: Vec<String> = fs::read_dir(here.join("a/plots"))
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    };
    let before = figures();
    // What is not ours stays, whatever is replaced.
    fs::write(here.join("a/plots/mine.svg"), "<svg/>").unwrap();
    let spec = "[[plot]]\nkind = \"bars\"\ny = \"cu_utilization\"\nname = \"use\"\n";
    fs::write(here.join("spec.toml"), spec).unwrap();
    told(here, &["plot", "a", "--spec", "spec.toml"]);
    let mut after = figures();
    after.retain(|name| name != "mine.svg");
    assert!(after.iter().all(|name| name.starts_with("use.")), "{before:?} {after:?}");
    after.insert(0, "mine.svg".to_owned());
    told(here, &["plot", "a"]);
    assert_eq!(figures(), after, "later draws keep them");
    fs::write(here.join("bad.toml"), spec.replace("cu_utilization", "cu_use")).unwrap();
    let wrong = refused(here, &["plot", "a", "--spec", "bad.toml"], 2);
    assert!(wrong.contains("bad.toml:3: plot[0].y: "), "{wrong}");
    // Another run into the folder: its own figures, those of before gone, what is not ours still there.
    fs::create_dir(here.join("a/requests")).unwrap();
    for file in ["mps-0123456789ab-s1.csv.zst", "notes.txt"] {
        fs::write(here.join("a/requests").join(file), "").unwrap();
    }
    told(here, &[&["run", "mine.toml", "--out", "a", "--again"], &SHORT[..]].concat());
    let mut again = before;
    again.push("mine.svg".to_owned());
    again.sort();
    assert_eq!(figures(), again);
    assert!(!here.join("a/requests/mps-0123456789ab-s1.csv.zst").exists());
    assert!(here.join("a/requests/notes.txt").exists());
}

#[test]
fn metrics_and_policies_print_for_people() {
    let dir = tempfile::tempdir().unwrap();
    let metrics = told(dir.path(), &["metrics"]);
    for column in ["goodput_rps", "latency_p99_ms", "batch_mean"] {
        assert!(metrics.contains(column), "{metrics}");
    }
    let json: serde_json::Value =
        serde_json::from_str(&told(dir.path(), &["metrics", "--json"])).unwrap();
    assert!(json.as_array().unwrap().iter().all(|m| m["meaning"].is_string()));
    let policy = told(dir.path(), &["policies", "temporal"]);
    assert!(policy.contains("default: the device's"), "{policy}");
    let other = refused(dir.path(), &["policies", "time-slicing"], 2);
    assert!(other.contains("it is called `temporal` here"), "{other}");
}

#[test]
fn colour_is_for_terminals_and_those_who_ask() {
    let dir = tempfile::tempdir().unwrap();
    assert!(refused(dir.path(), &["run", "none.toml"], 2).starts_with("error: "));
    let asked = refused(dir.path(), &["--color", "always", "run", "none.toml"], 2);
    assert!(asked.starts_with("\u{1b}[1;31merror\u{1b}[0m: "), "{asked:?}");
}
