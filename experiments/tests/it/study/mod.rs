//! A small study for the tests of shards: every table, two policies with cells in common.

use std::fs;
use std::path::{Path, PathBuf};

use assert_cmd::Command;
use assert_cmd::assert::Assert;

const TEXT: &str = r#"
name = "small"
device = "a30"
duration = "60ms"
warmup = "10ms"
repeats = 3
series = "20ms"

[[tenant]]
name = "a"
model = "squeezenet1_1"
arrivals = { kind = "trace", file = "trace.csv" }
slo = { isolated = 3.0 }
batch = { max = 4, timeout = "1ms" }

[[tenant]]
name = "b"
model = "mobilenet-v2"
class = "best-effort"
arrivals = { kind = "closed", concurrency = 2 }

[[policy]]
name = "temporal"

[[policy]]
name = "krisp"

[[policy]]
name = "mps"
label = "MPS"

[sweep]
"policy.temporal.quantum" = ["200us", "4ms"]
"tenant.b.arrivals.concurrency" = [1, 2, 3]

[[plot]]
kind = "bars"
y = "goodput_rps"
where = { "policy.temporal.quantum" = "4ms", "tenant.b.arrivals.concurrency" = 3 }

[[plot]]
kind = "cdf"
where = { "policy.temporal.quantum" = "4ms", "tenant.b.arrivals.concurrency" = 3 }

[[plot]]
kind = "timeline"
y = "throughput_rps"
where = { "policy.temporal.quantum" = "4ms", "tenant.b.arrivals.concurrency" = 3 }

[[plot]]
kind = "curves"
"#;

/// 3 policies × 6 points × 3 repeats.
pub(crate) const CELLS: usize = 54;

/// An experiment file with its trace, in a folder of its own.
pub(crate) struct Study {
    pub(crate) dir: tempfile::TempDir,
}

/// What a plain run left.
pub(crate) struct Plain {
    pub(crate) dir: PathBuf,
    pub(crate) summary: String,
}

impl Study {
    pub(crate) fn new(name: &str) -> Self {
        let study = Self { dir: tempfile::Builder::new().prefix(name).tempdir().unwrap() };
        fs::write(study.file(), TEXT).unwrap();
        let mut trace = "# cotenant-trace v1\narrival_ns,tenant,model\n".to_owned();
        (0..40).for_each(|i| trace += &format!("{},a,squeezenet1_1\n", i * 2_000_000));
        fs::write(study.trace(), trace).unwrap();
        study
    }

    /// The same with longer cells.
    pub(crate) fn with_duration(name: &str, duration: &str) -> Self {
        let study = Self::new(name);
        fs::write(study.file(), TEXT.replace("\"60ms\"", &format!("\"{duration}\""))).unwrap();
        study
    }

    pub(crate) fn file(&self) -> PathBuf {
        self.dir.path().join("small.toml")
    }

    pub(crate) fn trace(&self) -> PathBuf {
        self.dir.path().join("trace.csv")
    }

    pub(crate) fn cotenant(&self) -> Command {
        let mut command = Command::cargo_bin("cotenant").unwrap();
        command.env_remove("COTENANT_PROFILES").env_remove("COTENANT_PUBLIC_DATA");
        command
    }

    /// Runs the experiment whole, with everything that it can leave.
    pub(crate) fn plain(&self) -> Plain {
        let dir = self.dir.path().join("plain");
        let mut command = self.cotenant();
        command.arg("run").arg(self.file()).arg("--out").arg(&dir);
        let done = command.args(["--requests", "--timeline"]).assert().success();
        let summary = String::from_utf8_lossy(&done.get_output().stdout).into_owned();
        Plain { dir, summary }
    }

    pub(crate) fn plan(&self, shards: usize, args: &[&str]) -> PathBuf {
        let dir = self.dir.path().join(format!("of-{shards}"));
        self.try_plan(&dir, shards, args).success();
        dir
    }

    pub(crate) fn try_plan(&self, dir: &Path, shards: usize, args: &[&str]) -> Assert {
        let mut command = self.cotenant();
        command.arg("plan").arg(self.file()).arg("--out").arg(dir);
        command.args(["--shards", &shards.to_string()]).args(args).assert()
    }

    pub(crate) fn shard(&self, dir: &Path, k: usize, n: usize) -> Assert {
        self.cotenant().arg("run").arg(dir).args(["--shard", &format!("{k}/{n}")]).assert()
    }

    pub(crate) fn merge(&self, dir: &Path) -> Assert {
        self.cotenant().arg("merge").arg(dir).assert()
    }
}

pub(crate) fn read(path: impl AsRef<Path>) -> String {
    let path = path.as_ref();
    fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Every file of results is the same, and the report but for who computed it and how fast.
pub(crate) fn same_results(a: &Path, b: &Path) {
    for name in ["results.csv", "cdf.csv", "series.csv", "counters.csv", "curves.csv"] {
        assert_eq!(read(a.join(name)), read(b.join(name)), "{name}");
    }
    for folder in ["requests", "timeline", "plots"] {
        let names = |dir: &Path| {
            let entries = fs::read_dir(dir.join(folder)).unwrap();
            let mut names: Vec<_> = entries.map(|e| e.unwrap().file_name()).collect();
            names.sort();
            names
        };
        assert_eq!(names(a), names(b), "{folder}");
        for name in names(a) {
            let bytes = |dir: &Path| fs::read(dir.join(folder).join(&name)).unwrap();
            assert!(bytes(a) == bytes(b), "{folder}/{}", name.display());
        }
    }
    assert_eq!(timeless(&read(a.join("report.html"))), timeless(&read(b.join("report.html"))));
    let run = |dir: &Path| {
        let mut run: serde_json::Value = serde_json::from_str(&read(dir.join("run.json"))).unwrap();
        for key in ["host", "wall_s", "events_per_s"] {
            run.as_object_mut().unwrap().remove(key).unwrap();
        }
        run
    };
    assert_eq!(run(a), run(b));
}

/// The report without host, time and speed.
fn timeless(report: &str) -> String {
    let mut text = report.to_owned();
    for row in ["Host", "Wall-clock time", "Events per second, one thread"] {
        let start = text.find(&format!(">{row}<")).unwrap_or_else(|| panic!("no {row}"));
        let end = start + text[start..].find("</dd>").unwrap();
        text.replace_range(start..end, "");
    }
    text
}
