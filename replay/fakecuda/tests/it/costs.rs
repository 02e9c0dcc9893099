//! The costs of mechanisms run end to end against the stand-in driver and a stand-in MPS daemon: every
//! step answers, what cannot be measured says why, and nothing can be taken for a measurement.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use cotenant_profiles::Device;
use cotenant_replay::costs::{Ask, Request, child, measure};
use cotenant_replay::drive::Stop;

use crate::stand_in::libraries;

const TEST: &str = "costs::costs_are_taken_step_by_step_and_marked";

fn request(mps: &str) -> Request {
    let me = std::env::current_exe().unwrap();
    let control = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/mps").join(mps);
    Request {
        device: Device::builtin("h200-sxm").unwrap(),
        text: Device::builtin_text("h200-sxm").unwrap().to_owned(),
        // The question follows as if it were names of tests: none of them is run but this one.
        helper: [me.as_os_str(), TEST.as_ref(), "--exact".as_ref(), "--nocapture".as_ref()]
            .map(std::ffi::OsStr::to_owned)
            .into(),
        mps: Some(control),
        step: Duration::from_secs(20),
        stop: Stop::new(),
    }
}

/// The question, where this process is a helper: the last two arguments.
fn asked() -> Option<(Ask, std::path::PathBuf)> {
    let arguments: Vec<String> = std::env::args().collect();
    let [.., ask, to] = &arguments[..] else { return None };
    Ask::read(ask).map(|ask| (ask, to.into()))
}

#[test]
fn costs_are_taken_step_by_step_and_marked() {
    if let Some((ask, to)) = asked() {
        child(ask, &to).unwrap();
        return;
    }
    if let Some(folder) = std::env::var_os("COTENANT_FOLDER") {
        let mps = std::env::var("COTENANT_MPS").unwrap();
        let request = request(&mps);
        let at = |what: &str| std::env::var(what).ok();
        let mut tell = |step: &str| {
            if at("COTENANT_DIES_AT").as_deref() == Some(step) {
                std::process::abort(); // as a kill: nothing is cleaned up
            }
            if at("COTENANT_STOPS_AT").as_deref() == Some(step) {
                request.stop.now();
            }
        };
        let costs = measure(&request, Path::new(&folder), &mut tell).unwrap();
        assert!(costs.stand_in);
        return;
    }
    let folder = run("control", None);
    let text = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();
    let table = text("costs.csv");
    assert!(table.contains("NOT A MEASUREMENT") && !table.contains("source=measured"), "{table}");
    let row = |step: &str| {
        let begin = format!("{step},");
        table.lines().find(|l| l.starts_with(&begin)).unwrap_or_else(|| panic!("{step}: {table}"))
    };
    let median = |step: &str| row(step).split(',').nth(3).unwrap().parse::<f64>();
    for step in [
        "launch",
        "same_stream",
        "stream_hop",
        "partition_hop",
        "barrier",
        "module_load",
        "h2d",
        "d2h",
        "l2_read",
        "dram_read",
        "process_start",
        "context_open",
        "first_kernel",
        "process_start_uncached",
        "mps_daemon_start",
        "mps_first_client",
        "mps_client_start",
    ] {
        assert!(median(step).is_ok_and(f64::is_finite), "{}", row(step));
    }
    // The stand-in grants shares in steps of two SMs, as its driver says and as its blocks ran.
    assert_eq!(median("mps_cus_at_25"), Ok(32.0), "{}", row("mps_cus_at_25"));
    assert_eq!(median("mps_round_cus"), Ok(2.0), "{}", row("mps_round_cus"));
    // A machine that takes the daemon away early has told what shares become.
    let place = |step: &str| table.find(&format!("\n{step},")).unwrap();
    assert!(place("mps_cus_at_25") < place("mps_daemon_start"), "{table}");
    // Its contexts do not take turns, and that is what is said.
    assert!(row("quantum").contains("not measured: "), "{}", row("quantum"));
    let lines = text("costs.jsonl");
    assert_eq!(
        lines.lines().count(),
        1 + table.lines().filter(|l| !l.starts_with('#')).count() - 1
    );
    let launch: serde_json::Value = serde_json::from_str(lines.lines().nth(1).unwrap()).unwrap();
    assert_eq!(launch["samples"].as_array().unwrap().len(), 31, "raw samples are kept");
    // A device file that reads, under a name that is not a GPU's.
    let device = Device::read(&folder.path().join("stand-in.toml")).unwrap();
    assert_eq!(device.title, "NOT A MEASUREMENT");
    let file = text("stand-in.toml");
    assert!(!file.contains("measured: 2"), "no line calls itself measured today");
    assert!(!folder.path().join("h200-sxm.toml").exists());
}

#[test]
fn what_mps_lacks_is_the_reason() {
    for (control, why) in [
        ("not-there", "nvidia-cuda-mps-control is not on the PATH"),
        ("dies", "no device to share"),
        ("no-server", "ran without MPS"),
    ] {
        let folder = run(control, None);
        let table = std::fs::read_to_string(folder.path().join("costs.csv")).unwrap();
        let row = table.lines().find(|l| l.contains(why));
        assert!(row.is_some_and(|l| l.contains("not measured: ")), "{control}: {table}");
        assert!(!table.contains("mps_round_cus"), "{table}");
    }
}

/// Whoever is ended in the middle leaves a table and a device file of the steps before.
#[test]
fn what_was_measured_is_there_behind_every_step() {
    let folder = run("control", Some(("COTENANT_DIES_AT", "starting processes")));
    let table = std::fs::read_to_string(folder.path().join("costs.csv")).unwrap();
    assert!(table.contains("\nlaunch,ns,") && table.contains("\ndram_read,"), "{table}");
    assert!(!table.contains("process_start"), "{table}");
    let device = Device::read(&folder.path().join("stand-in.toml")).unwrap();
    assert_ne!(device.costs.launch, Device::builtin("h200-sxm").unwrap().costs.launch);
    let files = std::fs::read_dir(folder.path()).unwrap().count();
    assert_eq!(files, 3, "with the samples, and nothing half written");
}

/// Whoever asks for the end is heard inside of a step, and no further one begins.
#[test]
fn a_stop_leaves_what_was_measured() {
    let folder = run("control", Some(("COTENANT_STOPS_AT", "starting processes")));
    let table = std::fs::read_to_string(folder.path().join("costs.csv")).unwrap();
    assert!(table.contains("\ndram_read,"), "{table}");
    let row = table.lines().find(|l| l.starts_with("process_start,")).unwrap();
    assert!(row.contains("not measured: stopped"), "{row}");
    assert!(!table.contains("mps_") && !table.contains("quantum"), "{table}");
    assert!(Device::read(&folder.path().join("stand-in.toml")).is_ok());
}

/// Measures in a process whose loader finds the stand-in, until that dies or stops at a step.
fn run(mps: &str, ends: Option<(&str, &str)>) -> tempfile::TempDir {
    let (libraries, folder) =
        (libraries(&["libcuda.so", "libcuda.so.1"]), tempfile::tempdir().unwrap());
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([TEST, "--exact", "--nocapture"]).env("LD_LIBRARY_PATH", libraries.path());
    command.env("COTENANT_FOLDER", folder.path()).env("COTENANT_MPS", mps);
    command.envs(ends);
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    let dies = ends.is_some_and(|(how, _)| how == "COTENANT_DIES_AT");
    assert_ne!(output.status.success(), dies, "{text}");
    folder
}
