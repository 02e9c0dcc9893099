//! Several GPUs in an experiment: requests are routed, every one is accounted for, a failure shows
//! what it loses.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use assert_cmd::Command;

const FLEET: &str = r#"
name = "fleet"
device = "a30"
gpus = ["a30", "a100-sxm-40", "a30"]
down = [{ gpu = 1, at = "100ms", for = "80ms" }]
duration = "300ms"
warmup = "50ms"
repeats = 2
series = "20ms"

[[tenant]]
name = "a"
model = "resnet50"
executor = "graphs"
arrivals = { kind = "poisson", rate = 300.0 }
slo = "30ms"

[[tenant]]
name = "b"
model = "mobilenet-v2"
gpu = [0, 1]
arrivals = { kind = "closed", concurrency = 5 }

[[tenant]]
name = "c"
model = "alexnet"
executor = "graphs"
gpu = 1
arrivals = { kind = "poisson", rate = 300.0 }

[[policy]]
name = "temporal"

[[policy]]
name = "mps"

[sweep]
route = ["round-robin", "least-outstanding"]
"#;

fn cotenant() -> Command {
    let mut command = Command::cargo_bin("cotenant").unwrap();
    command.env_remove("COTENANT_PROFILES").env_remove("COTENANT_PUBLIC_DATA");
    command
}

type Row = BTreeMap<String, String>;

fn rows(path: &Path) -> Vec<Row> {
    let mut table = csv::Reader::from_path(path).unwrap();
    table.deserialize().map(Result::unwrap).collect()
}

fn count(row: &Row, column: &str) -> u64 {
    row[column].parse().unwrap()
}

#[test]
fn what_the_gpus_did_adds_up_to_the_results() {
    let dir = tempfile::tempdir().unwrap();
    let (file, out) = (dir.path().join("fleet.toml"), dir.path().join("out"));
    fs::write(&file, FLEET).unwrap();
    cotenant().arg("run").arg(&file).arg("--out").arg(&out).arg("-q").assert().success();
    let (results, gpus) = (rows(&out.join("results.csv")), rows(&out.join("gpus.csv")));
    assert_eq!(results.len(), 8 * 4);
    let mut lost = 0;
    for r in &results {
        assert_eq!(r["status"], "ok");
        let [offered, completed, dropped, in_flight] =
            ["offered", "completed", "dropped", "in_flight"].map(|c| count(r, c));
        assert_eq!(offered, completed + dropped + in_flight);
        let here = |g: &&Row| g["cell"] == r["cell"] && g["tenant"] == r["tenant"];
        let sum = |c: &str| gpus.iter().filter(here).map(|g| count(g, c)).sum::<u64>();
        assert_eq!((completed, in_flight), (sum("completed"), sum("in_flight")));
        // What found no GPU stands in the results alone.
        assert_eq!(offered - sum("offered"), dropped - sum("dropped"));
        match r["tenant"].as_str() {
            "a" => assert_eq!(dropped, sum("dropped"), "two other GPUs serve it"),
            "b" => assert!(dropped <= 2, "the clients of the lost GPU: {dropped}"),
            // A quarter of its time nobody serves it.
            "c" => assert!((10..45).contains(&dropped), "{dropped}"),
            _ => {}
        }
        lost += sum("dropped");
        for column in ["cu_utilization", "gpu_util", "sm_active"] {
            let share: f64 = r[column].parse().unwrap();
            assert!((0.0..=1.0).contains(&share), "{column} {share}");
        }
    }
    assert!(lost > 0, "what the GPU held is lost");
    let served = |tenant: &str| {
        let of = gpus.iter().filter(|g| g["tenant"] == tenant);
        of.map(|g| g["gpu"].as_str()).collect::<std::collections::BTreeSet<_>>()
    };
    assert_eq!(served("b").into_iter().collect::<Vec<_>>(), ["0", "1"]);
    assert_eq!(served("c").into_iter().collect::<Vec<_>>(), ["1"]);
    let layouts = fs::read_to_string(out.join("layouts.csv")).unwrap();
    assert!(layouts.contains("GPU 1: ") && layouts.contains("GPU 2: "), "{layouts}");

    // Shards and threads change no byte.
    let plan = dir.path().join("plan");
    cotenant()
        .arg("plan")
        .arg(&file)
        .arg("--out")
        .arg(&plan)
        .args(["--shards", "3"])
        .assert()
        .success();
    for shard in ["0/3", "1/3", "2/3"] {
        cotenant().arg("run").arg(&plan).args(["--shard", shard, "-q"]).assert().success();
    }
    cotenant().arg("merge").arg(&plan).assert().success();
    for table in ["results.csv", "gpus.csv", "series.csv", "layouts.csv"] {
        assert_eq!(
            fs::read(out.join(table)).unwrap(),
            fs::read(plan.join(table)).unwrap(),
            "{table}"
        );
    }
}

#[test]
fn one_gpu_by_any_name_is_the_same_and_a_fleet_is_not_replayed() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("fleet.toml");
    fs::write(&file, FLEET).unwrap();
    let one =
        ["--set", "gpus=1", "--set", "down=[]", "--set", "repeats=1", "--set", "tenant.b.gpu=0"];
    let more = ["--set", "tenant.c.gpu=0", "--set", "sweep.route=[\"round-robin\"]", "-q"];
    let out = dir.path().join("one");
    cotenant().arg("run").arg(&file).arg("--out").arg(&out).args(one).args(more).assert().success();
    assert!(!out.join("gpus.csv").exists(), "one GPU is the whole result");
    let replay = cotenant().arg("replay").arg(&file).args(["--on", "emulated"]).output().unwrap();
    assert_eq!(replay.status.code(), Some(2));
    let text = String::from_utf8_lossy(&replay.stderr).into_owned();
    assert!(text.contains("leave `gpus` and `down` out"), "{text}");
    let timeline = dir.path().join("timeline");
    let run =
        cotenant().arg("run").arg(&file).arg("--timeline").arg("--out").arg(&timeline).output();
    let text = String::from_utf8_lossy(&run.unwrap().stderr).into_owned();
    assert!(text.contains("a timeline shows one GPU"), "{text}");
}

/// An engine on each of two GPUs beside a one-shot tenant: every request is accounted for, and has its
/// tokens.
#[test]
fn engines_serve_on_several_gpus() {
    let text = r#"
name = "engines"
device = "a100-sxm-40"
gpus = 2
duration = "4s"
warmup = "1s"

[[tenant]]
name = "chat"
model = "llama-3.2-1b"
arrivals = { kind = "poisson", rate = 6.0, tokens_in = 256, tokens_out = 32 }
slo = { ttft = "500ms", tpot = "40ms" }
engine = { kind = "continuous", memory_fraction = 0.6, max_seqs = 32 }

[[tenant]]
name = "vision"
model = "resnet50"
gpu = 1
arrivals = { kind = "poisson", rate = 50.0 }

[[policy]]
name = "mps"
"#;
    let dir = tempfile::tempdir().unwrap();
    let (file, out) = (dir.path().join("engines.toml"), dir.path().join("out"));
    fs::write(&file, text).unwrap();
    cotenant().arg("run").arg(&file).arg("--out").arg(&out).arg("-q").assert().success();
    let (results, gpus) = (rows(&out.join("results.csv")), rows(&out.join("gpus.csv")));
    let chat = results.iter().find(|r| r["tenant"] == "chat").unwrap();
    let here = || gpus.iter().filter(|g| g["tenant"] == "chat");
    let sum: u64 = here().map(|g| count(g, "completed")).sum();
    assert_eq!(sum, count(chat, "completed"));
    assert!(here().count() == 2 && here().all(|g| count(g, "completed") > 0), "{gpus:?}");
    let value = |column: &str| chat[column].parse::<f64>().unwrap();
    let tokens = value("tokens_per_s");
    assert!((100.0..300.0).contains(&tokens), "6 requests/s of 32 tokens: {tokens}");
    assert!(
        value("ttft_p99_ms") > 0.0 && value("tpot_p99_ms") > 0.0 && value("slo_attainment") > 0.9
    );
}
