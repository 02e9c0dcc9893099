//! The tuner against the stand-in driver: order of calls, clean-up, and files that nobody takes for a
//! measurement.
#![allow(unsafe_code)] // asks the stand-in for its log

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use cotenant_profiles::Device;
use cotenant_profiles::lower::Precision;
use cotenant_replay::collect::Request;
use cotenant_replay::cuda::Loader;
use cotenant_replay::drive::Stop;
use cotenant_replay::tune::{TILES, TuneError, tune};
use cotenant_replay::{DeviceError, Unavailable};
use tempfile::TempDir;

use crate::stand_in::{again, libraries};

fn request() -> Request {
    Request {
        device: Device::builtin("h100-sxm").unwrap(),
        models: vec!["alexnet".to_owned()],
        batches: vec![1],
        precision: Precision::Fp32,
        cus: vec![],
        samples: 3,
        rounds: 2,
        corun_kernels: 0,
        budget: None,
        ramp: Duration::ZERO,
        stop: Stop::new(),
        seed: 7,
    }
}

/// Runs a test again in a process of its own, with the stand-in under the libraries' names.
fn child(test: &str, folder: &Path, nvrtc: bool) -> Output {
    prepared(test, folder, nvrtc).0.output().unwrap()
}

/// That process, and the folder of its libraries, which must outlive it.
fn prepared(test: &str, folder: &Path, nvrtc: bool) -> (Command, TempDir) {
    let names = ["libcuda.so", "libcuda.so.1", "libnvrtc.so", "libnvrtc.so.13"];
    let libraries = libraries(&names[..if nvrtc { 4 } else { 2 }]);
    let mut command = again(module_path!(), test);
    command.env("LD_LIBRARY_PATH", libraries.path()).env("COTENANT_FOLDER", folder);
    (command, libraries)
}

fn child_folder() -> Option<PathBuf> {
    std::env::var_os("COTENANT_FOLDER").map(PathBuf::from)
}

fn succeeded(output: &Output) {
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
    assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"), "{text}");
}

/// The stand-in's log, and what is alive or was destroyed wrongly.
fn log() -> (String, (usize, usize)) {
    let stand_in = Loader::open(Path::new("libcuda.so.1")).unwrap();
    // SAFETY: the stand-in's own signatures.
    unsafe {
        let calls = stand_in
            .function::<unsafe extern "C" fn(*mut u8, usize) -> usize>("cotenant_calls")
            .unwrap();
        let live = stand_in
            .function::<unsafe extern "C" fn(*mut usize, *mut usize)>("cotenant_live")
            .unwrap();
        let mut text = vec![0u8; 1 << 26];
        let n = calls(text.as_mut_ptr(), text.len());
        let (mut alive, mut wrong) = (0, 0);
        live(&raw mut alive, &raw mut wrong);
        (String::from_utf8_lossy(&text[..n]).into_owned(), (alive, wrong))
    }
}

/// Rows of a table without its head.
fn rows(folder: &Path, file: &str) -> Vec<Vec<String>> {
    let text = std::fs::read_to_string(folder.join(file)).unwrap();
    assert!(text.contains("NOT A MEASUREMENT"), "{file}");
    assert!(text.contains("# device=stand-in\n# source=analytic\n"), "{file}");
    assert!(!text.contains("measured\n"), "{file}");
    let rows = text.lines().filter(|l| !l.starts_with('#')).skip(1);
    rows.map(|l| l.split(',').map(str::to_owned).collect()).collect()
}

#[test]
fn every_variant_is_timed_at_every_share_and_nothing_leaks() {
    let test = "every_variant_is_timed_at_every_share_and_nothing_leaks";
    let shares = 4;
    if let Some(folder) = child_folder() {
        let outcome = tune(&request(), &folder, &mut |_, _| {}).unwrap();
        assert!(outcome.stand_in && outcome.left_out == 0);
        assert_eq!(outcome.cus, [32, 66, 98, 132], "quarters in atoms of two");
        let (log, live) = log();
        assert_eq!(live, (0, 0), "what is alive, and wrong destructions");
        let count = |call: &str| log.lines().filter(|l| *l == call).count();
        // Each variant is compiled and loaded once, with the sizes of its own.
        assert_eq!(count("nvrtcCompileProgram"), TILES.len());
        assert_eq!(count("nvrtcDestroyProgram"), TILES.len());
        for tile in TILES {
            let options: String = tile.options().iter().map(|o| format!("  {o}\n")).collect();
            assert!(log.contains(&options), "{tile}");
        }
        // Three warm-up launches before those that count; one to check each variant.
        let shapes = outcome.shapes.len();
        let (rounds, launches) = (2, 3 + 3);
        let timed = shapes * TILES.len() * shares * rounds * launches;
        let checks = (1 + shapes) * TILES.len();
        // A visit that a busy machine was too late for is made again, whole.
        let again = count("  gemm") - timed - checks;
        assert!(again.is_multiple_of(launches), "{again}");
        let first = |call: &str| log.lines().position(|l| l == call).unwrap();
        assert!(first("nvrtcCompileProgram") < first("  gemm"));
        let after = log.lines().skip_while(|l| *l != "cuModuleUnload");
        assert!(!after.into_iter().any(|l| l == "  gemm"), "code goes after its last launch");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    succeeded(&child(test, folder.path(), true));
    let timings = rows(folder.path(), "tune.csv");
    let cells = rows(folder.path(), "matrix.csv");
    let shapes: std::collections::BTreeSet<&String> = timings.iter().map(|r| &r[0]).collect();
    assert_eq!(timings.len(), shapes.len() * TILES.len() * shares);
    assert_eq!(cells.len(), (shapes.len() + 1) * shares * shares, "and the sum");
    assert!(timings.iter().all(|r| r[7] == "6"), "two rounds of three");
    // Five convolutions and three layers of products; every launch is counted.
    let launches =
        |s: &&String| -> u64 { timings.iter().find(|r| r[0] == **s).unwrap()[1].parse().unwrap() };
    assert_eq!(shapes.iter().map(launches).sum::<u64>(), 8);
    // The best in one table is the one that the other says was tuned there.
    for cell in cells.iter().filter(|c| c[0] != "*" && c[1] == c[2]) {
        let of = timings.iter().filter(|r| r[0] == cell[0] && r[3] == cell[1]);
        let least = of.map(|r| r[4].parse::<u64>().unwrap()).min().unwrap();
        assert_eq!((cell[4].as_str(), cell[6].as_str()), (&*least.to_string(), "1.000000"));
    }
    assert!(cells.iter().all(|c| c[6].parse::<f64>().unwrap() >= 1.0));
}

/// As in a collection: what two events add is in no duration, and the raw ones are kept.
#[test]
fn what_events_cost_is_in_no_duration() {
    let test = "what_events_cost_is_in_no_duration";
    if let Some(folder) = child_folder() {
        let one = Request { rounds: 1, samples: 2, ..request() };
        tune(&one, &folder, &mut |_, _| {}).unwrap();
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let mut command = prepared(test, folder.path(), true);
    succeeded(&command.0.env("FAKECUDA_NASTY", "gap=30000").output().unwrap());
    let text = std::fs::read_to_string(folder.path().join("tune.csv")).unwrap();
    assert!(text.contains("# events_ns=30000:"), "{text}");
    let number = |text: &str| text.parse::<u64>().unwrap();
    let shortest = rows(folder.path(), "tune.csv").iter().map(|r| number(&r[4])).min().unwrap();
    assert!(shortest < 30_000, "{shortest}");
    let raw = rows(folder.path(), "samples.csv");
    assert!(raw.iter().all(|r| number(&r[4]) > 30_000), "as measured");
}

#[test]
fn without_the_compiler_its_package_is_named_and_nothing_is_written() {
    let test = "without_the_compiler_its_package_is_named_and_nothing_is_written";
    if let Some(folder) = child_folder() {
        match tune(&request(), &folder, &mut |_, _| {}) {
            Err(TuneError::Device(DeviceError::Unavailable(Unavailable::NoLibrary {
                package,
                ..
            }))) => assert_eq!(package, "nvidia-cuda-nvrtc"),
            // A machine that has it where every program finds it.
            Ok(_) => eprintln!("there is a compiler: skipped"),
            Err(e) => panic!("{e}"),
        }
        assert_eq!(log().1, (0, 0));
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    succeeded(&child(test, folder.path(), false));
}

#[test]
fn what_cannot_be_tuned_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let half = Request { precision: Precision::Fp16, ..request() };
    let error = tune(&half, folder.path(), &mut |_, _| {}).unwrap_err().to_string();
    assert!(error.contains("computes in fp32"), "{error}");
    if Path::new("/proc/driver/nvidia/version").exists() {
        eprintln!("there is a driver: the rest is skipped");
        return;
    }
    let error = tune(&request(), folder.path(), &mut |_, _| {}).unwrap_err();
    assert!(matches!(error, TuneError::Device(DeviceError::Unavailable(_))), "{error}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}
