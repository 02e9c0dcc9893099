//! A whole collection against the stand-in driver: killed half-way, resumed, and marked so that
//! nobody takes it for a measurement.

use std::path::{Path, PathBuf};
use std::time::Duration;

use cotenant_profiles::lower::Precision;
use cotenant_profiles::{Device, Source, files};
use cotenant_replay::collect::{CollectError, Request, collect};
use cotenant_replay::drive::Stop;
use cotenant_replay::{DeviceError, Unavailable};

use crate::stand_in::{LIBRARIES, again, libraries};

/// A short collection of a small model.
pub(crate) fn request() -> Request {
    Request {
        device: Device::builtin("h100-sxm").unwrap(),
        models: vec!["squeezenet1_1@64".to_owned()],
        batches: vec![1],
        precision: Precision::Fp32,
        cus: vec![8, 66, 132],
        samples: 4,
        rounds: 1,
        corun_kernels: 2,
        budget: None,
        ramp: Duration::ZERO,
        stop: Stop::new(),
        seed: 7,
    }
}

fn child(test: &str, folder: &Path, stop_after: Option<usize>) -> std::process::Output {
    let libraries = libraries(&LIBRARIES);
    let mut command = again(module_path!(), test);
    command.env("LD_LIBRARY_PATH", libraries.path());
    command.env("COTENANT_FOLDER", folder);
    if let Some(n) = stop_after {
        command.env("COTENANT_STOP", n.to_string());
    }
    command.output().unwrap()
}

#[test]
fn a_collection_is_killed_resumed_and_marked() {
    if let Some(folder) = std::env::var_os("COTENANT_FOLDER").map(PathBuf::from) {
        let stop = std::env::var("COTENANT_STOP").ok().and_then(|v| v.parse().ok());
        let collected = collect(&request(), &folder, &mut |progress| {
            if Some(progress.done) == stop {
                std::process::abort(); // as a kill: nothing is cleaned up
            }
        });
        let collected = collected.unwrap();
        assert!(collected.stand_in && collected.incomplete.is_empty());
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let test = "a_collection_is_killed_resumed_and_marked";
    assert!(!child(test, folder.path(), Some(9)).status.success());
    let journal = folder.path().join("visits.jsonl");
    let half = std::fs::read_to_string(&journal).unwrap();
    assert_eq!(half.lines().count(), 1 + 9, "every visit is on disk at once");
    assert!(!folder.path().join("kernels.csv").exists());
    // What a kill in the middle of a write leaves.
    std::fs::write(&journal, format!("{half}{{\"work\":3,\"cu")).unwrap();
    let output = child(test, folder.path(), None);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let whole = std::fs::read_to_string(&journal).unwrap();
    assert!(whole.starts_with(&half), "what was measured stays");

    let profile = files::read(folder.path()).unwrap();
    assert_eq!((profile.device.as_str(), profile.source), ("stand-in", Source::Analytic));
    assert!(profile.provenance["tool"].contains("NOT A MEASUREMENT"));
    for file in ["kernels.csv", "curves.csv", "models/squeezenet1_1@64.csv", "corun.csv"] {
        let text = std::fs::read_to_string(folder.path().join(file)).unwrap();
        assert!(text.contains("NOT A MEASUREMENT"), "{file}");
        assert!(!text.contains("source=measured"), "{file}");
    }
    // Every kernel at 8, 66 and 132 CUs, and 8 in the other granularity: in the journal alone.
    let visits = whole.lines().count() - 1;
    assert_eq!(visits, profile.kernels.len() * 4);
    assert!(profile.kernels.iter().all(|k| k.curve.points().len() == 3));
    let conv = profile.kernels.iter().find(|k| k.id.starts_with("conv")).unwrap();
    assert!(conv.curve.at(8) > conv.curve.at(132), "{:?}", conv.curve);
    assert_eq!(profile.corun.len(), 7, "two kernels: three pairs, and quarters either way round");
    let coarse = std::fs::read_to_string(folder.path().join("curves_coarse.csv")).unwrap();
    assert!(coarse.contains("NOT A MEASUREMENT") && coarse.contains("# granularity=groups of 8"));
    let rows = coarse.lines().filter(|l| !l.starts_with('#')).count();
    assert_eq!(rows, 1 + profile.kernels.len(), "8 CUs in groups of 8");
    let pairs = std::fs::read_to_string(folder.path().join("pairs.jsonl")).unwrap();
    assert_eq!(pairs.lines().count(), 1 + 7, "with their samples");
}

#[test]
fn without_a_driver_the_reason_is_named() {
    if Path::new("/proc/driver/nvidia/version").exists() {
        eprintln!("there is a driver: skipped");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let error = collect(&request(), folder.path(), &mut |_| {}).unwrap_err();
    assert!(
        matches!(
            error,
            CollectError::Device(DeviceError::Unavailable(
                Unavailable::NoDriver | Unavailable::InitFailed { .. } | Unavailable::NoDevice
            ))
        ),
        "{error}"
    );
}
