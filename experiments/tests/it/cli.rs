//! The command line from outside: exit statuses, messages, files.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command as Process, Stdio};

use assert_cmd::Command;
use cotenant_profiles::Device;
use cotenant_results::Field;
use cotenant_sim::counter::Counter;

/// A small experiment: two tenants, two policies, a sweep, two seeds.
const SMALL: &str = r#"
name = "small"
question = "Does it work?"
device = "a30"
duration = "200ms"
warmup = "50ms"
repeats = 2

[[tenant]]
name = "a"
model = "squeezenet1_1"
precision = "fp32"
executor = "compiled"
arrivals = { kind = "poisson", rate = 100.0 }
slo = { isolated = 3.0 }
batch = { max = 4, timeout = "1ms" }

[[tenant]]
name = "b"
model = "mobilenet-v2"
precision = "fp32"
executor = "compiled"
class = "best-effort"
arrivals = { kind = "closed", concurrency = 2 }

[[policy]]
name = "temporal"

[[policy]]
name = "mps"
label = "MPS"

[sweep]
"policy.temporal.quantum" = ["200us", "4ms"]

[[plot]]
kind = "bars"
y = "goodput_rps"
"#;

fn folder(name: &str) -> tempfile::TempDir {
    tempfile::Builder::new().prefix(name).tempdir().unwrap()
}

fn cotenant() -> Command {
    let mut command = Command::cargo_bin("cotenant").unwrap();
    command.env_remove("COTENANT_PROFILES").env_remove("COTENANT_PUBLIC_DATA");
    command
}

fn experiments() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: impl AsRef<Path>) -> String {
    let path = path.as_ref();
    fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Runs an experiment text with extra arguments and returns its result folder.
fn run(dir: &Path, text: &str, out: &str, args: &[&str]) -> PathBuf {
    let file = dir.join("small.toml");
    fs::write(&file, text).unwrap();
    let out = dir.join(out);
    cotenant().arg("run").arg(&file).arg("--out").arg(&out).args(args).assert().success();
    out
}

type Rows = Vec<BTreeMap<String, String>>;

fn rows(text: &str) -> Rows {
    let mut reader = csv::Reader::from_reader(text.as_bytes());
    reader.deserialize().map(|row| row.unwrap()).collect()
}

#[test]
fn results_are_the_same_bytes_whatever_the_threads() {
    let dir = folder("same");
    let table = |out, jobs| {
        let out = run(dir.path(), SMALL, out, &["--jobs", jobs]);
        (read(out.join("results.csv")), digests(&out))
    };
    let (one, first) = table("one", "1");
    assert_eq!(table("two", "2"), (one.clone(), first.clone()));
    assert_eq!(table("one", "1"), (one, first), "a second run into the same folder");
}

fn digests(out: &Path) -> Vec<(String, String)> {
    let run: serde_json::Value = serde_json::from_str(&read(out.join("run.json"))).unwrap();
    let text = |v: &serde_json::Value| v.as_str().unwrap().to_owned();
    let cells = run["cells"].as_array().unwrap().iter();
    let mut all: Vec<_> = cells.map(|c| (text(&c["cell"]), text(&c["digest"]))).collect();
    all.push(("experiment".to_owned(), text(&run["experiment_digest"])));
    all
}

#[test]
fn every_row_accounts_for_its_requests() {
    let dir = folder("rows");
    let out = run(dir.path(), SMALL, "out", &["--requests", "--timeline"]);
    let text = read(out.join("results.csv"));
    assert!(text.starts_with(
        "experiment,cell,label,policy,repeat,seed,policy.temporal.quantum,tenant,model,offered,\
         completed,dropped,in_flight,throughput_rps,goodput_rps,slo_attainment,latency_mean_ms,\
         latency_p50_ms,latency_p90_ms,latency_p95_ms,latency_p99_ms,latency_p999_ms,\
         queue_mean_ms,batch_mean,cu_utilization,dram_utilization,energy_j,reconfigurations,\
         downtime_ms,latency_service_ms,clock_mhz,power_w,gpu_util,sm_active,ttft_mean_ms,\
         ttft_p50_ms,ttft_p99_ms,tpot_mean_ms,tpot_p50_ms,tpot_p99_ms,tokens_per_s,\
         kv_utilization,preemptions,itl_p99_ms,\
         prompt_tokens_per_s,cached_tokens,recomputed_tokens,kv_memory_gib,status\n"
    ));
    let rows = rows(&text);
    // 2 policies × 2 sweep values × 2 repeats × (2 tenants + the GPU).
    assert_eq!(rows.len(), 24);
    let cells: Vec<&str> = rows.iter().map(|r| r["cell"].as_str()).collect();
    for row in &rows {
        let n = |column: &str| row[column].parse::<u64>().unwrap();
        assert_eq!(n("offered"), n("completed") + n("dropped") + n("in_flight"), "{row:?}");
        assert!(n("completed") > 0, "{row:?}");
        assert_eq!(row["status"], "ok");
        assert!(row.values().all(|v| v != "NaN" && v != "inf"), "{row:?}");
        for share in ["cu_utilization", "dram_utilization", "gpu_util", "sm_active"] {
            let value: f64 = row[share].parse().unwrap();
            assert!(value > 0.0 && value <= 1.0, "{share}: {row:?}");
        }
        assert_eq!(row["energy_j"].is_empty(), row["tenant"] != "*");
        if row["tenant"] == "b" {
            assert_eq!(row["slo_attainment"], "", "no SLO, no attainment");
        }
    }
    for whole in rows.iter().filter(|r| r["tenant"] == "*") {
        let parts = rows.iter().filter(|r| r["cell"] == whole["cell"] && r["tenant"] != "*");
        let sum: u64 = parts.map(|r| r["completed"].parse::<u64>().unwrap()).sum();
        assert_eq!(sum.to_string(), whole["completed"]);
        let cell = &whole["cell"];
        assert!(out.join(format!("requests/{cell}.csv.zst")).is_file());
        let timeline: serde_json::Value =
            serde_json::from_str(&read(out.join(format!("timeline/{cell}.json")))).unwrap();
        assert!(timeline["traceEvents"].as_array().unwrap().len() > 100);
    }
    let distinct: std::collections::BTreeSet<_> = cells.iter().collect();
    assert_eq!(distinct.len(), 8, "cells have names of their own");
}

#[test]
fn a_key_that_does_not_concern_a_policy_leaves_its_numbers_alone() {
    let dir = folder("concern");
    let rows = rows(&read(run(dir.path(), SMALL, "out", &[]).join("results.csv")));
    let p99 = |label: &str, quantum: &str| -> Vec<String> {
        let wanted = |r: &&BTreeMap<String, String>| {
            r["label"] == label && r["policy.temporal.quantum"] == quantum
        };
        rows.iter().filter(wanted).map(|r| r["latency_p99_ms"].clone()).collect()
    };
    assert_eq!(p99("MPS", "200us"), p99("MPS", "4ms"));
    assert_ne!(p99("temporal", "200us"), p99("temporal", "4ms"));
}

#[test]
fn a_swept_goal_is_judged_at_each_point() {
    let dir = folder("swept-goal");
    let sweep = "\"tenant.a.slo.isolated\" = [0.5, 1000.0]";
    let text = SMALL.replace(r#""policy.temporal.quantum" = ["200us", "4ms"]"#, sweep);
    let out = run(dir.path(), &text, "out", &[]);
    let report = read(out.join("report.html"));
    assert!(report.contains("goal swept"), "the tenant's column says that its goal is swept");
    for label in ["MPS", "temporal"] {
        let at = |standing: &str, value: &str| {
            let title = format!("title=\"{label} at a.slo.isolated = {value}\"");
            report.lines().any(|l| l.contains(&title))
                && report.contains(&format!("<td class=\"{standing}\" {title}"))
        };
        assert!(at("misses", "0.5"), "{label}: half the isolated p95 cannot be met");
        assert!(!at("misses", "1000.0"), "{label}: no request is late");
    }
    let nowhere = "No policy keeps every goal at 1 of 2 sweep points (a.slo.isolated = 0.5)";
    assert!(report.contains(nowhere), "the reading");
}

#[test]
fn a_goal_relative_to_isolated_counts_the_size_of_the_requests() {
    let dir = folder("isolated-items");
    let text = SMALL
        .replace(r#"{ kind = "poisson", rate = 100.0 }"#, r#"{ kind = "closed", items = 4 }"#)
        .replace("slo = { isolated = 3.0 }", "slo = { isolated = 1.01 }");
    let alone = text[..text.find("[[tenant]]\nname = \"b\"").unwrap()].to_owned()
        + "[[policy]]\nname = \"mps\"\n";
    let out = run(dir.path(), &alone, "out", &[]);
    for row in rows(&read(out.join("results.csv"))).iter().filter(|r| r["tenant"] == "a") {
        assert_eq!(row["slo_attainment"], "1", "alone, a request takes what it takes isolated");
    }
}

#[test]
fn seeds_move_arrivals_and_overrides_move_numbers() {
    let dir = folder("seeds");
    let offered = |out, args: &[&str]| -> Vec<String> {
        let rows = rows(&read(run(dir.path(), SMALL, out, args).join("results.csv")));
        let mine = rows.iter().filter(|r| r["tenant"] == "a" && r["label"] == "MPS");
        mine.map(|r| r["offered"].clone()).collect()
    };
    let (base, seeded) = (offered("base", &[]), offered("seed", &["--seed", "77"]));
    assert_ne!(base, seeded);
    let faster = offered("set", &["--set", "tenant.a.arrivals.rate=400", "--set", "repeats=1"]);
    assert_eq!(faster.len(), base.len() / 2);
    assert!(faster[0].parse::<u64>().unwrap() > 2 * base[0].parse::<u64>().unwrap());
}

#[test]
fn a_cell_that_fails_does_not_stop_the_others() {
    let dir = folder("fail");
    let file = dir.path().join("small.toml");
    let text = SMALL.replace("device = \"a30\"", "device = \"v100-sxm2-16\"");
    fs::write(&file, text + "[[policy]]\nname = \"mig\"\n").unwrap();
    let out = dir.path().join("out");
    let done = cotenant().arg("run").arg(&file).arg("--out").arg(&out).assert().code(1);
    let stderr = String::from_utf8_lossy(&done.get_output().stderr).into_owned();
    assert!(stderr.contains("error: 4 of 12 cells failed: layout: "), "{stderr}");
    for row in rows(&read(out.join("results.csv"))) {
        let failed = row["policy"] == "mig";
        assert_eq!(row["status"] == "ok", !failed, "{row:?}");
        assert_eq!(row["offered"].is_empty(), failed, "what does not exist is empty: {row:?}");
    }
    assert!(out.join("report.html").is_file() && out.join("run.json").is_file());
    assert!(!out.join("results.csv.partial").exists());
}

#[test]
fn a_tenant_that_does_not_fit_fails_its_cells_with_the_reason() {
    let dir = folder("memory");
    let file = dir.path().join("small.toml");
    let large = SMALL.replace("squeezenet1_1", "vgg19").replace("max = 4,", "max = 4096,");
    fs::write(&file, large).unwrap();
    let out = dir.path().join("out");
    cotenant().arg("run").arg(&file).arg("--out").arg(&out).assert().code(1);
    let rows = rows(&read(out.join("results.csv")));
    assert_eq!(rows.len(), 24);
    assert!(rows.iter().all(|r| r["status"].starts_with("out-of-memory: ")), "{:?}", rows[0]);
}

#[test]
fn a_result_folder_draws_itself_again_and_nothing_else_is_overwritten() {
    let dir = folder("plot");
    let out = run(dir.path(), SMALL, "out", &[]);
    let report = read(out.join("report.html"));
    fs::remove_dir_all(out.join("plots")).unwrap();
    fs::remove_file(out.join("report.html")).unwrap();
    cotenant().arg("plot").arg(&out).assert().success();
    assert_eq!(read(out.join("report.html")), report);
    assert!(fs::read_dir(out.join("plots")).unwrap().count() >= 2);
    let other = dir.path().join("other");
    fs::create_dir(&other).unwrap();
    fs::write(other.join("thesis.tex"), "mine").unwrap();
    let file = dir.path().join("small.toml");
    cotenant().arg("run").arg(&file).arg("--out").arg(&other).assert().code(2);
    assert_eq!(fs::read_dir(&other).unwrap().count(), 1);
}

/// Every file in tests/broken is refused with exactly the messages in its `# error:` lines.
#[test]
fn broken_experiments_say_what_is_wrong_and_where() {
    let broken = experiments().join("tests/broken");
    let mut files: Vec<PathBuf> =
        fs::read_dir(&broken).unwrap().map(|e| e.unwrap().path()).collect();
    files.retain(|p| p.extension().is_some_and(|e| e == "toml"));
    files.sort();
    assert!(files.len() >= 30, "{} files", files.len());
    let dir = folder("broken");
    let out = dir.path().join("never-made");
    let mut wrong = vec![];
    for file in files {
        let name = file.file_name().unwrap().to_str().unwrap().to_owned();
        let text = read(&file);
        let expected: Vec<String> =
            text.lines().filter_map(|l| l.strip_prefix("# error: ")).map(fill).collect();
        let output = cotenant()
            .current_dir(&broken)
            .args(["run", &name, "--out"])
            .arg(&out)
            .output()
            .unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        let got: Vec<&str> =
            stderr.lines().map(|l| l.strip_prefix("error: ").unwrap_or(l)).collect();
        if output.status.code() != Some(2) || got != expected {
            wrong.push(format!(
                "{name}: status {:?}\n  got  {got:#?}\n  want {expected:#?}",
                output.status
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(!out.exists(), "nothing is written for bad input");
}

/// What grows with the registry stands as a placeholder in the expected messages.
fn fill(message: &str) -> String {
    let names = |all: Vec<&str>| all.join(", ");
    let policies = names(cotenant_sim::policy::ALL.iter().map(|p| p.name).collect());
    let temporal = cotenant_sim::policy::find("temporal").unwrap();
    let options = names(temporal.options.iter().map(|o| o.name).collect());
    let metrics = names(cotenant_results::METRICS.iter().map(|c| c.name).collect());
    message
        .replace("<policies>", &policies)
        .replace("<metrics>", &metrics)
        .replace("<devices>", &names(Device::builtin_names().collect()))
        .replace("<options of temporal>", &options)
        .replace("<keys>", &keys(""))
        .replace("<keys of tenants>", &keys("/$defs/Tenant"))
        .replace("<keys of plots>", &keys("/$defs/Plot"))
}

/// Known keys of a table, as the program's schema lists them.
fn keys(table: &str) -> String {
    static SCHEMA: std::sync::LazyLock<serde_json::Value> = std::sync::LazyLock::new(|| {
        let told = cotenant().arg("schema").output().unwrap();
        serde_json::from_slice(&told.stdout).unwrap()
    });
    let table = SCHEMA.pointer(table).unwrap();
    let keys: Vec<&str> =
        table["properties"].as_object().unwrap().keys().map(String::as_str).collect();
    keys.join(", ")
}

/// `COTENANT_WRITE=1 cargo test -p cotenant the_reference_page` writes the page anew.
#[test]
fn the_reference_page_of_experiment_files_is_the_schema() {
    let path = experiments().join("../docs/experiment-file.md");
    let told = cotenant().args(["schema", "--markdown"]).output().unwrap();
    let page = String::from_utf8(told.stdout).unwrap();
    if std::env::var_os("COTENANT_WRITE").is_some() {
        fs::write(&path, &page).unwrap();
    }
    assert!(read(&path) == page, "COTENANT_WRITE=1 writes the page anew");
}

/// `COTENANT_WRITE=1 cargo test -p cotenant the_page_of_results` writes the page anew.
#[test]
fn the_page_of_results_is_what_tables_and_policies_declare() {
    let field = |c: &Counter| Field { name: c.name, unit: c.unit, doc: c.doc };
    let fields = |table: &[Counter]| table.iter().map(field).collect::<Vec<_>>();
    let policies = cotenant_sim::policy::ALL.iter().map(|p| (p.name, fields(p.counters)));
    let devices = cotenant_replay::counted::COUNTERS.into_iter();
    let devices = devices.map(|table| ("`replay`, `validate`", fields(table)));
    let counters: Vec<_> = policies.chain(devices).collect();
    for (who, list) in &counters {
        for (i, f) in list.iter().enumerate() {
            assert!(!f.unit.is_empty() && !f.doc.is_empty(), "{who}: {}", f.name);
            assert!(list[..i].iter().all(|other| other.name != f.name), "{who}: {}", f.name);
        }
    }
    let page = cotenant_results::markdown(&counters);
    let path = experiments().join("../docs/results.md");
    if std::env::var_os("COTENANT_WRITE").is_some() {
        fs::write(&path, &page).unwrap();
    }
    assert!(read(&path) == page, "COTENANT_WRITE=1 writes the page anew");
}

#[test]
fn completions_and_the_manual_name_every_command() {
    for args in [vec!["completions", "bash"], vec!["completions", "zsh"], vec!["man"]] {
        let told = cotenant().args(&args).output().unwrap();
        let text = String::from_utf8(told.stdout).unwrap();
        for command in ["validate", "policies", "schema"] {
            assert!(text.contains(command), "{args:?}: {command}");
        }
    }
}

#[test]
fn broken_files_of_other_kinds_are_named_with_line_and_field() {
    let dir = folder("files");
    let put = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
    put("gpu.toml", "name = \"gpu\"\ntitle = 3\n");
    put("table.csv", "model,batch,share_pct,latency_ms\nm,1,50,fast\n");
    put("trace.csv", "# cotenant-trace v1\narrival_ns,tenant,model\n5,a,m\nx,a,m\n");
    for (args, place) in [
        (vec!["devices", "./gpu.toml"], "gpu.toml:2: title: "),
        (
            vec![
                "profile",
                "import",
                "--from",
                "table",
                "--device",
                "a30",
                "table.csv",
                "--out",
                "p",
            ],
            "table.csv:2: latency_ms: `fast` is not ",
        ),
        (vec!["trace", "stats", "trace.csv"], "trace.csv:4: arrival_ns: `x` is not "),
    ] {
        let output = cotenant().current_dir(dir.path()).args(&args).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{args:?}: {stderr}");
        assert!(stderr.starts_with("error: ") && stderr.contains(place), "{args:?}: {stderr}");
        assert_eq!(stderr.trim_end().lines().count(), 1, "{args:?}: one line: {stderr}");
    }
}

#[test]
fn unknown_names_are_answered_with_the_closest() {
    for (args, near) in [
        (["policies", "tempral"], "`temporal`"),
        (["devices", "h100"], "`h100-sxm`"),
        (["models", "resnet05"], "`resnet50`"),
    ] {
        let done = cotenant().args(args).assert().code(2);
        let stderr = String::from_utf8_lossy(&done.get_output().stderr).into_owned();
        assert!(stderr.contains(near), "{stderr}");
    }
}

#[test]
fn every_command_shows_an_example() {
    for args in [
        vec![],
        vec!["run"],
        vec!["plan"],
        vec!["status"],
        vec!["merge"],
        vec!["submit"],
        vec!["plot"],
        vec!["policies"],
        vec!["devices"],
        vec!["models"],
        vec!["profile"],
        vec!["profile", "analyze"],
        vec!["profile", "import"],
        vec!["profile", "show"],
        vec!["trace"],
        vec!["trace", "convert"],
        vec!["trace", "generate"],
        vec!["trace", "stats"],
    ] {
        let done = cotenant().args(&args).arg("--help").assert().success();
        let help = String::from_utf8_lossy(&done.get_output().stdout).into_owned();
        assert!(help.contains("Example"), "{args:?}");
        assert!(help.contains("cotenant "), "{args:?}");
    }
    cotenant().assert().code(2);
    cotenant().args(["run"]).assert().code(2);
    cotenant().args(["run", "no-such-file.toml"]).assert().code(2);
    cotenant().args(["--version"]).assert().success();
}

#[test]
fn lists_name_every_policy_device_and_model() {
    let told = |args: &[&str]| {
        let done = cotenant().args(args).assert().success();
        String::from_utf8_lossy(&done.get_output().stdout).into_owned()
    };
    let policies = told(&["policies"]);
    for info in cotenant_sim::policy::ALL {
        assert!(policies.contains(info.name));
        let one = told(&["policies", info.name]);
        assert!(info.options.iter().all(|o| one.contains(o.name)), "{one}");
    }
    let devices = told(&["devices"]);
    assert!(Device::builtin_names().all(|d| devices.contains(d)));
    let models = told(&["models"]);
    assert!(cotenant_profiles::zoo::MODELS.iter().all(|m| models.contains(m.name)));
    assert!(told(&["models", "bert-base"]).contains("109.48 M"));
}

#[test]
fn a_closed_pipe_is_no_failure() {
    let program = assert_cmd::cargo::cargo_bin("cotenant");
    let mut child = Process::new(program)
        .args(["devices", "h100-sxm"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn traces_are_generated_described_and_converted() {
    let dir = folder("trace");
    let tell = |args: &[&str]| {
        let done = cotenant().current_dir(dir.path()).args(args).assert().success();
        String::from_utf8_lossy(&done.get_output().stdout).into_owned()
    };
    tell(&["trace", "generate", "poisson", "rate=200", "--duration", "50s", "-o", "p.csv.gz"]);
    let stats = tell(&["trace", "stats", "p.csv.gz"]);
    let fields: Vec<f64> =
        stats.lines().nth(1).unwrap().split_whitespace().filter_map(|f| f.parse().ok()).collect();
    // 10,000 requests expected: four standard deviations are 4 % of the rate and of the CV.
    assert!((fields[3] - 200.0).abs() < 8.0 && (fields[4] - 1.0).abs() < 0.04, "{stats}");
    let told = tell(&["trace", "convert", "p.csv.gz", "-o", "half.csv", "window:0..25s"]);
    assert!(told.starts_with("canonical: rows_in "), "{told}");
    let half = rows(
        &read(dir.path().join("half.csv"))
            .lines()
            .filter(|l| !l.starts_with('#'))
            .collect::<Vec<_>>()
            .join("\n"),
    );
    assert!(half.iter().all(|r| r["arrival_ns"].parse::<u64>().unwrap() < 25_000_000_000));
}

#[test]
fn profiles_are_analyzed_found_and_shown() {
    let dir = folder("profile");
    let tell = |args: &[&str]| {
        let done = cotenant().current_dir(dir.path()).args(args).assert().success();
        String::from_utf8_lossy(&done.get_output().stdout).into_owned()
    };
    let analyze = [
        "profile", "analyze", "--device", "a30", "--model", "alexnet", "--batch", "1,4", "--out",
        "p",
    ];
    assert!(tell(&analyze).contains("alexnet"));
    assert!(read(dir.path().join("p/models/alexnet.csv")).contains("# source=analytic"));
    let show = ["profile", "show", "alexnet", "--device", "a30", "--batch", "4"];
    let computed = tell(&show);
    let stored = tell(&[&show[..], &["--profiles", "p", "--out", "c"]].concat());
    let table = |text: &str| text.split("\n\n").next().unwrap().to_owned();
    assert_eq!(table(&stored), table(&computed), "a profile reads back as it was computed");
    assert!(stored.contains("profile: analytic, p"), "{stored}");
    assert!(dir.path().join("c/curves.csv").is_file());
    // Where whole groups of CUs were measured too, it says what they cost.
    assert!(!stored.contains("whole groups"), "{stored}");
    fs::copy(dir.path().join("p/curves.csv"), dir.path().join("p/curves_coarse.csv")).unwrap();
    let both = tell(&[&show[..], &["--profiles", "p"]].concat());
    let (_, groups) = both.split_once("Time in whole groups of CUs").unwrap();
    let last = groups.trim().lines().last().unwrap();
    let cells: Vec<&str> = last.split_whitespace().collect();
    assert_eq!((cells[0], &cells[2..]), ("56", &["0", "0", "0"][..]), "the same curves: {groups}");
    fs::remove_file(dir.path().join("p/curves_coarse.csv")).unwrap();
    // An experiment finds it by its path relative to the file, and says so.
    let text = SMALL
        .replace("squeezenet1_1", "alexnet")
        .replace("duration =", "profiles = [\"p\"]\nduration =");
    let out = run(dir.path(), &text, "out", &[]);
    let info: serde_json::Value = serde_json::from_str(&read(out.join("run.json"))).unwrap();
    assert!(info["tenants"][0]["profile"].as_str().unwrap().contains("/p;"), "{info}");
}

#[test]
fn mistyped_flags_are_answered_with_what_may_be_meant() {
    let file = experiments().join("quickstart.toml");
    for (flag, says) in [
        ("--durration", "`duration` is a field of the experiment: --set duration=VALUE"),
        ("--requets", "a similar argument exists: '--requests'"),
        ("--jobs=-3", "-3 is not in 1..=1024"),
    ] {
        let done = cotenant().arg("run").arg(&file).arg(flag).assert().code(2);
        let stderr = String::from_utf8_lossy(&done.get_output().stderr).into_owned();
        assert!(stderr.contains(says) && !stderr.contains("as a value"), "{flag}: {stderr}");
    }
    // `--set policy=mps` would be refused.
    for flag in ["--polices", "--plots"] {
        let done = cotenant().arg("run").arg(&file).arg(flag).assert().code(2);
        let stderr = String::from_utf8_lossy(&done.get_output().stderr).into_owned();
        assert!(!stderr.contains("tip"), "{stderr}");
    }
}

/// They are laid out, not run: `.ci/experiments` runs each of them.
#[test]
fn every_experiment_that_ships_is_valid_and_asks_a_question() {
    let mut files: Vec<PathBuf> =
        fs::read_dir(experiments()).unwrap().map(|e| e.unwrap().path()).collect();
    files.retain(|p| {
        p.extension().is_some_and(|e| e == "toml") && p.file_name().unwrap() != "Cargo.toml"
    });
    assert!(files.len() >= 6);
    for file in files {
        let name = file.file_stem().unwrap().to_str().unwrap().to_owned();
        assert!(read(&file).contains("question"), "{name}");
        let mut command = cotenant();
        command.arg("run").arg(&file).arg("--dry-run");
        if read(&file).contains("${COTENANT_PUBLIC_DATA}") {
            let done = command.assert().code(2);
            let stderr = String::from_utf8_lossy(&done.get_output().stderr).into_owned();
            assert!(stderr.contains("COTENANT_PUBLIC_DATA, which is not set"), "{stderr}");
            continue;
        }
        if read(&file).contains(", duration,") {
            // Its jobs bring durations of their own, and a sweep is not overridden in part.
            let done = command.args(["--set", "duration=50ms"]).assert().code(2);
            let stderr = String::from_utf8_lossy(&done.get_output().stderr).into_owned();
            assert!(stderr.contains("duration: is swept as"), "{stderr}");
            continue;
        }
        // A dry run tries some cells, for an estimate of the time.
        command.args(["--set", "duration=50ms", "--set", "warmup=1ms"]);
        if read(&file).contains("\nseries") {
            command.args(["--set", "series=100us"]);
        }
        if read(&file).contains("\ndown") {
            command.args(["--set", "down=[{ gpu = 0, at = \"10ms\", for = \"5ms\" }]"]);
        }
        command.assert().success();
    }
}

/// Measured kernels under a measured trace: runs where the public data is at hand.
#[test]
fn the_public_trace_runs_on_the_public_data() {
    let Some(data) = std::env::var_os("COTENANT_PUBLIC_DATA") else {
        eprintln!("COTENANT_PUBLIC_DATA is not set: public-trace.toml is not run");
        return;
    };
    let dir = folder("public");
    let out = dir.path().join("out");
    cotenant()
        .env("COTENANT_PUBLIC_DATA", data)
        .arg("run")
        .arg(experiments().join("public-trace.toml"))
        .arg("--out")
        .arg(&out)
        .args(["--set", "duration=20s", "--set", "warmup=1s"])
        .assert()
        .success();
    let info: serde_json::Value = serde_json::from_str(&read(out.join("run.json"))).unwrap();
    // Orion's solo sums: 6.50 ms of ResNet-50 at batch 4, 48.63 ms of BERT at batch 2.
    for (tenant, ms) in [(0, 6.50), (1, 48.63)] {
        let p95 = info["tenants"][tenant]["isolated_p95_ms"].as_f64().unwrap();
        assert!((p95 / ms - 1.0).abs() < 0.05, "{p95} against {ms}");
        assert_eq!(info["tenants"][tenant]["profile_source"], "imported");
    }
}
