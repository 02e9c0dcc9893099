//! The costs of mechanisms run end to end against the stand-in driver and a stand-in MPS daemon: every
//! step answers, what cannot be measured says why, and nothing can be taken for a measurement.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use cotenant_profiles::Device;
use cotenant_replay::costs::{Ask, Request, child, measure};

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
        let costs = measure(&request(&mps), Path::new(&folder), &mut |_| {}).unwrap();
        assert!(costs.stand_in);
        return;
    }
    let folder = run("control");
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
    // Its contexts do not take turns, and that is what is said.
    assert!(row("quantum").contains("not measured: "), "{}", row("quantum"));
    let lines = text("costs.jsonl");
    assert_eq!(
        lines.lines().count(),
        1 + table.lines().filter(|l| !l.starts_with('#')).count() - 1
    );
    let launch: serde_json::Value = serde_json::from_str(lines.lines().nth(1).unwrap()).unwrap();
    assert_eq!(launch["samples"].as_array().unwrap().len(), 31, "raw samples are kept");
    // A device file that reads, under a name that is no GPU's.
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
        let folder = run(control);
        let table = std::fs::read_to_string(folder.path().join("costs.csv")).unwrap();
        let row = table.lines().find(|l| l.contains(why));
        assert!(row.is_some_and(|l| l.contains("not measured: ")), "{control}: {table}");
        assert!(!table.contains("mps_round_cus"), "{table}");
    }
}

/// Measures in a process whose loader finds the stand-in.
fn run(mps: &str) -> tempfile::TempDir {
    let (libraries, folder) =
        (libraries(&["libcuda.so", "libcuda.so.1"]), tempfile::tempdir().unwrap());
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([TEST, "--exact", "--nocapture"]).env("LD_LIBRARY_PATH", libraries.path());
    command.env("COTENANT_FOLDER", folder.path()).env("COTENANT_MPS", mps);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    folder
}
