//! `cotenant advise` and `cotenant check` from outside.

use std::fs;

use assert_cmd::Command;

fn cotenant(args: &[&str]) -> assert_cmd::assert::Assert {
    let mut command = Command::cargo_bin("cotenant").unwrap();
    command.env_remove("COTENANT_PROFILES").args(args).assert()
}

const MIX: &str = r#"
device = "a30"
[[tenant]]
name = "vision"
model = "resnet18"
arrivals = { kind = "poisson", rate = 100.0 }
slo = "20ms"
[[tenant]]
name = "small"
model = "squeezenet1_1"
class = "best-effort"
arrivals = { kind = "closed", concurrency = 2 }
batch = { max = 4 }
"#;

#[test]
fn what_is_advised_is_emitted_and_checks() {
    let dir = tempfile::tempdir().unwrap();
    let (mix, out) = (dir.path().join("mix.toml"), dir.path().join("deploy"));
    let page = dir.path().join("answer.html");
    fs::write(&mix, MIX).unwrap();
    let (mix, out) = (mix.to_str().unwrap(), out.to_str().unwrap());
    let page = page.to_str().unwrap();
    let done =
        cotenant(&["advise", mix, "--budget", "200ms", "--emit", out, "--page", page, "--json"]);
    let said = done.code(0).get_output().stdout.clone();
    let answer: serde_json::Value = serde_json::from_slice(&said).unwrap();
    let rows = answer["rows"].as_array().unwrap();
    assert!(rows.len() >= 8);
    let chosen = &rows[answer["choice"].as_u64().unwrap() as usize];
    assert_eq!(chosen["goals_met"], chosen["goals"], "{chosen}");
    // What the mix fixes stays.
    assert!(
        rows.iter()
            .flat_map(|r| r["tenants"].as_array().unwrap())
            .all(|t| { t["tenant"] != "small" || t["batch_max"] == 4 })
    );
    let checked = cotenant(&["check", out, "--mix", mix, "--budget", "200ms", "--json"])
        .code(0)
        .get_output()
        .stdout
        .clone();
    let checked: serde_json::Value = serde_json::from_slice(&checked).unwrap();
    let read = &checked["delivers"];
    assert_eq!(chosen["tenants"][0]["p99_ms"], read["tenants"][0]["p99_ms"]);
    assert_eq!(chosen["goodput_rps"], read["goodput_rps"]);
    let html = fs::read_to_string(page).unwrap();
    assert!(html.contains("<svg") && html.contains("Every way of sharing"));
    assert!(!html.contains("http://") || !html.contains("src=\"http"));
}

/// Every candidate of the search as a point of an ordinary experiment: what `run` computes there is what
/// `advise` would simulate itself.
#[test]
fn a_study_takes_the_place_of_the_search() {
    let dir = tempfile::tempdir().unwrap();
    let (mix, study) = (dir.path().join("mix.toml"), dir.path().join("study"));
    let fixed = MIX
        .replace("a30", "v100-sxm2-16")
        .replace("slo = \"20ms\"", "slo = { isolated = 6 }\nworkers = 1\nbatch = { max = 2 }")
        .replace("class =", "workers = 2\nclass =");
    fs::write(&mix, fixed).unwrap();
    let (mix, folder) = (mix.to_str().unwrap(), study.to_str().unwrap());
    // Enough for both to decide every goal, so that as many seeds are behind both.
    let args = ["advise", mix, "--budget", "1s", "--json"];
    let with: Vec<&str> = args.iter().copied().chain(["--study", folder]).collect();
    let first = cotenant(&with).code(3);
    let said = String::from_utf8(first.get_output().stderr.clone()).unwrap();
    assert!(said.contains("5 experiments") && said.contains("cotenant plan"), "{said}");
    let mut experiments: Vec<_> =
        fs::read_dir(&study).unwrap().map(|e| e.unwrap().path()).collect();
    experiments.sort();
    for (i, file) in experiments.iter().enumerate() {
        let (file, out) = (file.to_str().unwrap(), file.with_extension(""));
        let out = out.to_str().unwrap();
        if i == 0 {
            // As on a cluster.
            cotenant(&["plan", file, "--out", out, "--shards", "2"]).code(0);
            cotenant(&["run", out, "--shard", "1/2", "-q"]).code(0);
            cotenant(&with).code(3);
            cotenant(&["run", out, "--shard", "0/2", "-q"]).code(0);
            cotenant(&["merge", out, "-q"]).code(0);
        } else {
            cotenant(&["run", file, "--out", out, "-q"]).code(0);
        }
    }
    let read = |args: &[&str]| -> serde_json::Value {
        serde_json::from_slice(&cotenant(args).code(0).get_output().stdout).unwrap()
    };
    let (studied, searched) = (read(&with), read(&args));
    let row = |a: &serde_json::Value, way: &str| {
        a["rows"].as_array().unwrap().iter().find(|r| r["way"] == way).unwrap().clone()
    };
    for way in ["time slicing", "one server", "MPS", "KRISP masks"] {
        let (a, b) = (row(&studied, way), row(&searched, way));
        assert_eq!(a["settings"], b["settings"], "{way}: there are no others");
        assert_eq!(a["tenants"][0]["p99_ms"], b["tenants"][0]["p99_ms"], "{way}");
        assert_eq!(a["goodput_rps"], b["goodput_rps"], "{way}");
    }
    // With more candidates and more runs of each it is no worse off.
    let goals = |a: &serde_json::Value| row(a, "MPS percentages")["goals_met"].as_u64();
    assert!(goals(&studied) >= goals(&searched));
}

#[test]
fn illegal_settings_fail_and_say_where() {
    let dir = tempfile::tempdir().unwrap();
    let (mix, mig) = (dir.path().join("mix.toml"), dir.path().join("mig.yaml"));
    fs::write(&mix, MIX).unwrap();
    let layout = "version: v1\nmig-configs:\n  two:\n  - devices: all\n    mig-enabled: true\n    mig-devices: {2g.12gb: 3}\n";
    fs::write(&mig, layout).unwrap();
    let (mix, mig) = (mix.to_str().unwrap(), mig.to_str().unwrap());
    let output = cotenant(&["check", mig, "--mix", mix]).code(1).get_output().clone();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.contains("illegal:") && said.contains("mig.yaml:5"), "{said}");
    let other = cotenant(&["check", mig, "--mix", mix, "--gpu", "v100-sxm2-16"]).code(2);
    let said = String::from_utf8(other.get_output().stderr.clone()).unwrap();
    assert!(said.contains("no hardware instances"), "{said}");
}

#[test]
fn bad_questions_are_told_what_is_missing() {
    for (args, says) in [
        (vec!["advise"], "needs a mix"),
        (vec!["advise", "--model", "alexnet@5rps"], "needs --gpu"),
        (vec!["advise", "--gpu", "a30", "--model", "alexnet"], "gives no rate"),
        (vec!["advise", "--gpu", "a30", "--model", "alexnet@5rps,slo=3"], "slo"),
        (vec!["advise", "--gpu", "a31", "--model", "alexnet@5rps"], "a30"),
        (vec!["advise", "--gpu", "a30", "--gpus", "4..2", "--model", "alexnet@5rps"], "range"),
        (vec!["advise", "--gpu", "a30", "--model", "alexnet@nanrps"], "not a rate"),
        (vec!["advise", "--gpu", "a30", "--model", "alexnet@0rps"], "not a rate"),
        (vec!["advise", "--gpu", "a30", "--model", "resnet5@5rps"], "resnet50"),
        (vec!["advise", "--gpu", "a30", "--model", "alexnet@5rps", "--budget", "0s"], "too little"),
        (vec!["advise", "--gpu", "a30", "--model", "alexnet@5rps", "--price", "-2"], "not a price"),
        (
            vec!["advise", "--gpu", "rtx-3080", "--model", "llama-3.1-8b@1rps,tokens=512/128"],
            "the smallest that hold it: a10g",
        ),
        (vec!["check", "x.yaml"], "--mix"),
    ] {
        let done = cotenant(&args).code(2);
        let said = String::from_utf8(done.get_output().stderr.clone()).unwrap();
        assert!(said.contains(says), "{args:?}: {said}");
    }
}
