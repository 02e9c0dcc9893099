//! `cotenant replay` when things go wrong: what was measured is on disk, nothing stays behind.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// Nothing here takes as long, however busy the machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// Two cells with a process for each of two workers.
fn experiment(folder: &Path) -> PathBuf {
    let text = r#"
name = "small"
device = "a100-sxm-40"
duration = "40ms"
warmup = "5ms"

[[tenant]]
name = "one"
model = "alexnet"
arrivals = { kind = "constant", rate = 500.0 }

[[tenant]]
name = "two"
model = "vgg16"
arrivals = { kind = "closed", concurrency = 1, think = "1ms" }

[[policy]]
name = "temporal"

[[policy]]
name = "mps-percent"
"#;
    let file = folder.join("small.toml");
    std::fs::write(&file, text).unwrap();
    file
}

/// A replay of the experiment, one cell after the other, and its folder of results.
struct Replay {
    child: Child,
    out: PathBuf,
    _folder: tempfile::TempDir,
}

impl Replay {
    fn start(edit: impl FnOnce(&mut Command)) -> Self {
        Self::start_as("replay", edit)
    }

    /// `replay`, or `validate`, which replays first.
    fn start_as(what: &str, edit: impl FnOnce(&mut Command)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (file, out) = (experiment(folder.path()), folder.path().join("out"));
        let mut command = Command::new(env!("CARGO_BIN_EXE_cotenant"));
        command.arg(what).arg(file).args(["--on", "emulated", "--jobs", "1"]);
        command.args(["--slowdown", "60", "--out"]).arg(&out);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        edit(&mut command);
        Self { child: command.spawn().unwrap(), out, _folder: folder }
    }

    /// Waits until `there` finds something, while the replay runs.
    fn until<T>(&mut self, what: &str, mut there: impl FnMut(&Self) -> Option<T>) -> T {
        let began = Instant::now();
        loop {
            if let Some(found) = there(self) {
                return found;
            }
            assert!(self.child.try_wait().unwrap().is_none(), "it ended before {what}");
            assert!(began.elapsed() < PATIENCE, "{what}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Process ids of its workers, once the second cell has both.
    fn workers_of_the_second_cell(&mut self) -> Vec<u32> {
        self.until("a row of the first cell", |r| (!r.rows().is_empty()).then_some(()));
        self.until("two workers", |r| Some(children(r.child.id())).filter(|c| c.len() == 2))
    }

    /// Data rows of finished cells on disk.
    fn rows(&self) -> Vec<String> {
        let table = std::fs::read_to_string(self.out.join("results.csv"));
        let table = table.map(|text| text.lines().skip(1).map(str::to_owned).collect());
        table.unwrap_or_else(|_| self.journal())
    }

    /// Rows of the cells that the journals of a run under way hold.
    fn journal(&self) -> Vec<String> {
        let mut rows = vec![];
        for file in std::fs::read_dir(self.out.join("attempts/00000")).into_iter().flatten() {
            let text = std::fs::read_to_string(file.unwrap().path()).unwrap();
            for line in text.split_inclusive('\n').filter(|line| line.ends_with('\n')) {
                let record: serde_json::Value = serde_json::from_str(line).unwrap();
                rows.extend(record["tables"][0].as_str().unwrap().lines().map(str::to_owned));
            }
        }
        rows
    }

    fn end(mut self) -> (ExitStatus, String, Vec<String>) {
        let mut stderr = String::new();
        let began = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(began.elapsed() < PATIENCE, "it does not end");
            std::thread::sleep(Duration::from_millis(10));
        };
        self.child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
        (status, stderr, self.rows())
    }
}

fn children(id: u32) -> Vec<u32> {
    let threads = std::fs::read_dir(format!("/proc/{id}/task")).into_iter().flatten();
    let lists =
        threads.filter_map(|t| std::fs::read_to_string(t.ok()?.path().join("children")).ok());
    lists
        .flat_map(|l| l.split_whitespace().map(|c| c.parse().unwrap()).collect::<Vec<_>>())
        .collect()
}

fn signal(id: u32, name: &str) {
    let told = Command::new("kill").arg(format!("-{name}")).arg(id.to_string()).status();
    assert!(told.unwrap().success());
}

/// Whether the process is there; who has ended and waits for the system's reaper is not.
fn lives(id: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
    stat.rsplit(')')
        .next()
        .is_some_and(|rest| !rest.trim_start().starts_with(['Z', 'X']) && !rest.is_empty())
}

fn gone(ids: &[u32]) {
    let began = Instant::now();
    while let Some(id) = ids.iter().find(|&&id| lives(id)) {
        assert!(began.elapsed() < PATIENCE, "worker process {id} is left behind");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn stopped_it_keeps_the_rows_it_has_and_takes_its_workers_along() {
    for name in ["INT", "TERM", "USR1"] {
        let mut replay = Replay::start(|_| {});
        let workers = replay.workers_of_the_second_cell();
        signal(replay.child.id(), name);
        let (status, stderr, rows) = replay.end();
        assert_eq!(status.code(), Some(75), "{name}: {stderr}");
        assert!(stderr.contains("stopped"), "{stderr}");
        // Two tenants and the whole GPU, of the first cell at least.
        assert!(rows.len() >= 3, "{rows:?}");
        gone(&workers);
    }
}

#[test]
fn the_same_command_resumes_what_was_stopped() {
    for what in ["replay", "validate"] {
        let mut first = Replay::start_as(what, |_| {});
        first.workers_of_the_second_cell();
        signal(first.child.id(), "TERM");
        assert_eq!(first.child.wait().unwrap().code(), Some(75));
        let kept = first.rows();
        let mut command = Command::new(env!("CARGO_BIN_EXE_cotenant"));
        command.arg(what).arg(first.out.with_file_name("small.toml")).args(["--on", "emulated"]);
        command.args(["--jobs", "1", "--slowdown", "60", "--out"]).arg(&first.out);
        let done = command.output().unwrap();
        let stderr = String::from_utf8_lossy(&done.stderr).into_owned();
        assert_eq!(done.status.code(), Some(0), "{what}: {stderr}");
        assert!(stderr.contains("1 of 2 cells reused from an interrupted run"), "{stderr}");
        let rows = first.rows();
        assert_eq!(rows.len(), 6, "{rows:?}");
        assert!(kept.iter().all(|row| rows.contains(row)), "measured once: {kept:?} {rows:?}");
        assert!(!first.out.join("attempts").exists(), "{what}");
    }
}

#[test]
fn a_stopped_validation_compares_what_has_ended() {
    let mut replay = Replay::start_as("validate", |_| {});
    let workers = replay.workers_of_the_second_cell();
    let compared = replay.out.join("validation.csv");
    signal(replay.child.id(), "TERM");
    let status = replay.child.wait().unwrap();
    assert_eq!(status.code(), Some(75));
    let table = std::fs::read_to_string(compared).unwrap();
    assert!(table.lines().count() > 1, "{table}");
    gone(&workers);
}

#[test]
fn killed_it_takes_its_workers_along() {
    let mut replay = Replay::start(|_| {});
    let workers = replay.workers_of_the_second_cell();
    signal(replay.child.id(), "KILL");
    let (status, _, rows) = replay.end();
    assert!(!status.success());
    assert!(rows.len() >= 3, "{rows:?}");
    gone(&workers);
}

#[test]
fn a_killed_worker_stands_in_the_status_beside_what_was_measured() {
    let mut replay = Replay::start(|_| {});
    let workers = replay.workers_of_the_second_cell();
    signal(workers[0], "KILL");
    let (status, stderr, rows) = replay.end();
    assert_eq!(status.code(), Some(1), "{stderr}");
    assert_eq!(rows.len(), 6, "{rows:?}");
    let (whole, hurt): (Vec<_>, Vec<_>) = rows.iter().partition(|r| r.ends_with(",ok"));
    assert_eq!((whole.len(), hurt.len()), (3, 3), "{rows:?}");
    for row in hurt {
        assert!(row.contains("worker-killed: worker "), "{row}");
        assert!(row.contains("signal: 9"), "{row}");
    }
    gone(&workers);
}

#[test]
fn a_failed_kernel_stands_in_the_status() {
    let replay = Replay::start(|c| {
        c.env("COTENANT_EMULATED_FAULT", "100,spreads");
    });
    let (status, stderr, rows) = replay.end();
    assert_eq!(status.code(), Some(1), "{stderr}");
    // Under MPS the neighbour goes with it; contexts that take turns are apart.
    let of = |policy: &str| rows.iter().find(|r| r.contains(policy)).unwrap().clone();
    assert!(of("mps-percent").contains("and 1 more"), "{rows:?}");
    assert!(of("temporal").contains("kernel-failed: worker "), "{rows:?}");
    assert!(!of("temporal").contains("more)"), "{rows:?}");
    let odd = Replay::start(|c| {
        c.env("COTENANT_EMULATED_FAULT", "often");
    });
    let (_, _, rows) = odd.end();
    assert!(rows[0].contains("`often` is neither `500` nor `500,spreads`"), "{rows:?}");
}

#[test]
fn a_full_disk_is_told() {
    // A limit on the size of files is the nearest to a full disk that needs no rights.
    let folder = tempfile::tempdir().unwrap();
    let file = experiment(folder.path());
    let line = format!(
        "ulimit -f 1; exec {} replay {} --on emulated --jobs 1 --slowdown 10 --out {}",
        env!("CARGO_BIN_EXE_cotenant"),
        file.display(),
        folder.path().join("out").display()
    );
    let done = Command::new("bash").arg("-c").arg(line).output().unwrap();
    let stderr = String::from_utf8_lossy(&done.stderr);
    assert_eq!(done.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("cannot write"), "{stderr}");
}
