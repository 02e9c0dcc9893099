//! Tenants whose kernels a tuner picks, single operators, and tuning jobs, from the command line.

use std::fs;

use assert_cmd::Command;

const HEAD: &str = "name = \"t\"\ndevice = \"v100-sxm2-16\"\nduration = \"50ms\"\n";
const CAPPED: &str =
    "[[policy]]\nname = \"mps-percent\"\nlabel = \"capped\"\nshares = { m = 10 }\n";

/// Runs an experiment; its rows of `results.csv` or the message that refuses it.
fn run(tenant: &str, policy: &str, set: &[&str]) -> Result<Vec<Vec<String>>, String> {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("e.toml");
    fs::write(&file, format!("{HEAD}\n[[tenant]]\nname = \"m\"\n{tenant}\n{policy}")).unwrap();
    let out = dir.path().join("out");
    let mut command = Command::cargo_bin("cotenant").unwrap();
    command.env_remove("COTENANT_PROFILES").arg("-q").arg("run").arg(&file).arg("--out").arg(&out);
    for s in set {
        command.args(["--set", s]);
    }
    let done = command.output().unwrap();
    if done.status.code() != Some(0) {
        return Err(String::from_utf8(done.stderr).unwrap());
    }
    let mut reader = csv::Reader::from_path(out.join("results.csv")).unwrap();
    let head = reader.headers().unwrap().clone();
    let rows = reader.records().map(|r| r.unwrap().iter().map(str::to_owned).collect());
    Ok(std::iter::once(head.iter().map(str::to_owned).collect()).chain(rows).collect())
}

fn column(rows: &[Vec<String>], name: &str) -> Vec<String> {
    let i = rows[0].iter().position(|h| h == name).unwrap();
    rows[1..].iter().map(|r| r[i].clone()).collect()
}

const MODEL: &str = "model = \"resnet50\"\nfused = true\n\
                     arrivals = { kind = \"closed\", concurrency = 1 }";

#[test]
fn a_model_runs_best_where_it_was_tuned() {
    let latency = |set: &[&str]| -> f64 {
        column(&run(MODEL, CAPPED, set).unwrap(), "latency_p50_ms")[0].parse().unwrap()
    };
    let tuned = latency(&["tenant.m.tuned_at=10"]);
    assert!(tuned < latency(&["tenant.m.tuned_at=100"]));
    assert!(tuned <= latency(&[]));
    let whole = |at: &str| latency(&[at, "policy.capped.shares.m=100"]);
    assert!(whole("tenant.m.tuned_at=100") < whole("tenant.m.tuned_at=10"));
}

#[test]
fn one_operator_is_a_model() {
    let operator = format!("{MODEL}\noperator = \"conv1x1s1-c1024-k256-14x14+batchnorm+relu-b1\"");
    let mean = |tenant: &str| -> f64 {
        column(&run(tenant, CAPPED, &[]).unwrap(), "latency_mean_ms")[0].parse().unwrap()
    };
    assert!(mean(&operator) * 20.0 < mean(MODEL), "one of 54 launches");
    let wrong = format!("{MODEL}\noperator = \"conv1x1s1-c1024-k256-14x15+batchnorm+relu-b1\"");
    let message = run(&wrong, CAPPED, &[]).unwrap_err();
    let says = "did you mean `conv1x1s1-c1024-k256-14x14+batchnorm+relu-b1`?";
    assert!(message.contains(says) && message.contains("e.toml:7"), "{message}");
}

#[test]
fn a_tuned_model_is_a_tenant_per_operator() {
    let tune = "model = \"alexnet\"\nfused = true\ntune = { trials = 4, launches = 3 }";
    let policy = "[[policy]]\nname = \"autotune\"\nservers = 2\nbuild = \"1ms\"\n";
    let rows = run(tune, policy, &[]).unwrap();
    let tenants = column(&rows, "tenant");
    // Five convolutions and three linear layers.
    assert_eq!(tenants.len(), 8 + 1);
    assert_eq!((tenants[0].as_str(), tenants[7].as_str()), ("m-01", "m-08"));
    assert_eq!(column(&rows, "completed")[..8], ["1"; 8].map(str::to_owned));
    let both = format!("{tune}\nslo = \"5ms\"");
    let message = run(&both, policy, &[]).unwrap_err();
    let says = "e.toml:10: tenant.m.slo: does not go with `tune`: every operator is tuned once";
    assert!(message.contains(says), "{message}");
    let message = run(&tune.replace("trials", "trial"), policy, &[]).unwrap_err();
    assert!(message.contains("tenant.m.tune.trial") && message.contains("trials"), "{message}");
}

#[test]
fn a_share_to_tune_at_lies_above_0() {
    let message = run(&format!("{MODEL}\ntuned_at = 0"), CAPPED, &[]).unwrap_err();
    assert!(
        message.contains("e.toml:10: tenant.m.tuned_at: `0` is not a number above 0"),
        "{message}"
    );
}

#[test]
fn a_tuner_refuses_what_it_cannot_measure() {
    let dir = tempfile::tempdir().unwrap();
    let collect = |more: &[&str]| {
        let mut command = Command::cargo_bin("cotenant").unwrap();
        command.args(["gpu", "tiles", "--device", "h100-sxm", "--models", "vgg11"]);
        let done = command.args(["--out"]).arg(dir.path()).args(more).output().unwrap();
        (done.status.code(), String::from_utf8(done.stderr).unwrap())
    };
    let (status, words) = collect(&["--precision", "fp16"]);
    assert_eq!(status, Some(2), "{words}");
    assert!(words.contains("the tuner's template computes in fp32"), "{words}");
    if !std::path::Path::new("/proc/driver/nvidia/version").exists() {
        let (status, words) = collect(&[]);
        assert_eq!(status, Some(1), "{words}");
        assert!(words.contains("gpu tiles: "), "{words}");
    }
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "nothing is written");
}
