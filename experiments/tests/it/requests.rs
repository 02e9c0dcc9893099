//! Requests that are dropped, queues that grow, and the order of tenants in a file.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use assert_cmd::Command;

fn cotenant() -> Command {
    let mut command = Command::cargo_bin("cotenant").unwrap();
    command.env_remove("COTENANT_PROFILES").env_remove("COTENANT_PUBLIC_DATA");
    command
}

fn folder(name: &str) -> tempfile::TempDir {
    tempfile::Builder::new().prefix(name).tempdir().unwrap()
}

/// Runs an experiment; its rows by column.
fn rows(dir: &Path, text: &str) -> Vec<BTreeMap<String, String>> {
    fs::write(dir.join("e.toml"), text).unwrap();
    let mut run = cotenant();
    run.current_dir(dir).args(["run", "e.toml", "-q", "--out", "out", "--again"]);
    run.assert().success();
    let mut reader = csv::Reader::from_path(dir.join("out/results.csv")).unwrap();
    let header = reader.headers().unwrap().clone();
    let row = |record: csv::StringRecord| {
        header.iter().zip(&record).map(|(h, f)| (h.to_owned(), f.to_owned())).collect()
    };
    reader.records().map(|record| row(record.unwrap())).collect()
}

fn number(row: &BTreeMap<String, String>, column: &str) -> f64 {
    row[column].parse().unwrap_or_else(|_| panic!("{column} of {row:?}"))
}

fn conserved(row: &BTreeMap<String, String>) {
    let n = |column| number(row, column);
    assert_eq!(n("offered"), n("completed") + n("dropped") + n("in_flight"), "{row:?}");
}

const OVERLOAD: &str = r#"
name = "over"
device = "a30"
duration = "3s"
warmup = "100ms"

[[tenant]]
name = "vision"
model = "resnet50"
arrivals = { kind = "poisson", rate = 2000.0 }
slo = "50ms"
predict = true

[[policy]]
name = "mps"

[[policy]]
name = "serve"
order = "edf"

[sweep]
"tenant.vision.drop_after" = ["never", "slo", "80ms"]
"#;

#[test]
fn what_is_late_is_dropped_and_a_queue_that_grows_is_told() {
    let dir = folder("over");
    let all = rows(dir.path(), OVERLOAD);
    assert_eq!(all.len(), 12);
    for row in &all {
        conserved(row);
        let latencies = ["latency_mean_ms", "latency_p50_ms", "latency_p99_ms", "queue_mean_ms"];
        let told = latencies.map(|column| !row[column].is_empty());
        if row["tenant.vision.drop_after"] == "never" {
            assert!(row["status"].starts_with("overloaded: "), "{row:?}");
            assert_eq!(told, [false; 4], "{row:?}");
            assert!(number(row, "throughput_rps") > 100.0 && row["dropped"] == "0", "{row:?}");
            if row["tenant"] == "vision" {
                let words = [" offered ", "/s, served ", " left at the end"];
                assert!(words.iter().all(|w| row["status"].contains(w)), "{row:?}");
            }
        } else {
            assert_eq!((row["status"].as_str(), told), ("ok", [true; 4]), "{row:?}");
            assert!(number(row, "dropped") > 1000.0, "{row:?}");
        }
    }
    let goodput = |label: &str, drop: &str| {
        let of = |r: &&BTreeMap<String, String>| {
            r["label"] == label && r["tenant.vision.drop_after"] == drop && r["tenant"] == "*"
        };
        number(all.iter().find(of).unwrap(), "goodput_rps")
    };
    for label in ["mps", "serve"] {
        assert!(goodput(label, "slo") > 100.0 && goodput(label, "never") < 10.0, "{label}");
        assert!(goodput(label, "slo") > goodput(label, "80ms"), "{label}");
    }
    let counters = fs::read_to_string(dir.path().join("out/counters.csv")).unwrap();
    assert!(counters.contains("\"dropped: vision, would-expire\""), "{counters}");
    let report = fs::read_to_string(dir.path().join("out/report.html")).unwrap();
    assert!(report.contains("overloaded: offered "), "the report says it");
    let mut again = cotenant();
    again.current_dir(dir.path()).args(["run", "e.toml", "-q", "--out", "out"]);
    let out = String::from_utf8(again.assert().success().get_output().stdout.clone()).unwrap();
    assert!(out.contains("`vision` is offered 1,9") && out.contains("/s and served "), "{out}");
}

#[test]
fn a_queue_without_end_is_cut_where_memory_ends() {
    let dir = folder("cut");
    let text = OVERLOAD.replace("rate = 2000.0", "rate = 1e7").replace(", \"slo\", \"80ms\"", "");
    fs::write(dir.path().join("e.toml"), text).unwrap();
    let mut run = cotenant();
    run.current_dir(dir.path());
    run.args(["run", "e.toml", "-q", "--out", "out", "--memory", "400MiB", "--jobs", "1"]);
    run.assert().success();
    let results = fs::read_to_string(dir.path().join("out/results.csv")).unwrap();
    let cut = results.lines().filter(|l| l.contains("cut at")).count();
    assert_eq!(cut, 4, "{results}");
}

/// Three tenants, two of them alike, who ask at the same instants.
fn three(order: [usize; 3]) -> String {
    let tenant = |name: &str, model: &str, rest: &str| {
        format!("[[tenant]]\nname = \"{name}\"\nmodel = \"{model}\"\n{rest}\n")
    };
    let tenants = [
        tenant(
            "a",
            "resnet18",
            "arrivals = { kind = \"closed\", concurrency = 3 }\nslo = \"20ms\"",
        ),
        tenant(
            "c",
            "resnet18",
            "arrivals = { kind = \"closed\", concurrency = 3 }\nslo = \"20ms\"",
        ),
        tenant(
            "b",
            "squeezenet1_1",
            "arrivals = { kind = \"constant\", rate = 500.0 }\nslo = \"10ms\"\n\
             batch = { max = 4, timeout = \"1ms\" }\ndrop_after = \"slo\"\npredict = true",
        ),
    ];
    let head =
        "name = \"order\"\ndevice = \"a100-sxm-40\"\nduration = \"300ms\"\nwarmup = \"50ms\"\n";
    let policies = "[[policy]]\nname = \"all\"\n[[policy]]\nname = \"serve\"\nlabel = \"lottery\"\n\
                    order = \"lottery\"\n[[policy]]\nname = \"mps-percent\"\nlabel = \"given\"\n\
                    shares = { a = 50, b = 30, c = 20 }\n";
    order.iter().fold(head.to_owned(), |text, &i| text + &tenants[i]) + policies
}

#[test]
fn the_order_of_tenants_in_a_file_does_not_matter() {
    let dir = folder("order");
    let sorted = |order| {
        let mut all = rows(dir.path(), &three(order));
        let names: Vec<_> = all[..3].iter().map(|r| r["tenant"].clone()).collect();
        all.sort_by_key(|r| (r["label"].clone(), r["tenant"].clone()));
        (all, names)
    };
    let (first, names) = sorted([0, 1, 2]);
    assert_eq!(names, ["a", "c", "b"], "listed as in the file");
    for row in first.iter().filter(|r| r["status"] == "ok") {
        conserved(row);
    }
    let ran = first.iter().filter(|r| r["status"] == "ok").count();
    assert!(ran > 60, "{ran} rows of {}", first.len());
    let (turned, names) = sorted([2, 1, 0]);
    assert_eq!(names, ["b", "c", "a"]);
    for (a, b) in first.iter().zip(&turned) {
        assert_eq!(a, b, "{} of {}", a["label"], a["tenant"]);
    }
}

#[test]
fn what_cannot_be_dropped_is_refused() {
    let dir = folder("refused");
    let refused = |from: &str, to: &str, why: &str| {
        let text = OVERLOAD.split("[sweep]").next().unwrap().replace("predict = true\n", "");
        let text = text.replace(from, to);
        assert_ne!(text, OVERLOAD);
        fs::write(dir.path().join("e.toml"), &text).unwrap();
        let mut run = cotenant();
        run.current_dir(dir.path()).args(["run", "e.toml", "-q", "--out", "out"]);
        let said = run.assert().code(2).get_output().stderr.clone();
        let said = String::from_utf8(said).unwrap();
        assert!(said.contains(why), "{said}\nis not\n{why}");
    };
    let slo = "slo = \"50ms\"";
    let at = "e.toml:12: tenant.vision.drop_after: ";
    refused(
        slo,
        "slo = \"50ms\"\ndrop_after = \"slow\"",
        &format!("{at}`slow` is neither `slo`, `never` nor a duration"),
    );
    refused(slo, "slo = \"50ms\"\ndrop_after = 5", &format!("{at}`5` is"));
    refused(slo, "slo = \"50ms\"\ndrop_after = \"10ns\"", &format!("{at}`10ns` is too short"));
    refused(
        slo,
        "drop_after = \"slo\"",
        "takes its time from the tenant's goal, and there is none",
    );
    refused(slo, "predict = true", "e.toml:11: tenant.vision.predict: does nothing without");
}
