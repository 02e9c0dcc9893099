//! `cotenant capture` with a stand-in program that writes the records of the injection library, alone
//! and under the shares of a stand-in MPS daemon.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use cotenant_profiles::files;

fn here(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn capture(out: &Path, control: &str, arguments: &[&str], program: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cotenant"));
    command.args(["capture", "--device", "h200-sxm", "--model", "mynet", "--batch", "4"]);
    command.args(arguments).arg("--out").arg(out).arg("--");
    command.arg(here("tests/capture/program")).args(program);
    // The program plays the library's part as well: any file stands for it.
    command.env("COTENANT_INJECT_LIB", here("tests/capture/program"));
    command.env("COTENANT_MPS_CONTROL", here("../replay/tests/mps").join(control));
    command.output().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn records_become_a_model_profile_and_a_timeline() {
    let folder = tempfile::tempdir().unwrap();
    let output = capture(folder.path(), "control", &[], &[]);
    assert!(output.status.success(), "{}", said(&output));
    assert!(
        String::from_utf8_lossy(&output.stdout).starts_with("18 kernels of 1 recorded program")
    );
    let profile = files::read(&folder.path().join("profile")).unwrap();
    let launches = &profile.models["mynet"].batches[&4];
    let names: Vec<&str> =
        launches.iter().map(|l| profile.kernels[l.kernel].name.as_str()).collect();
    assert_eq!(names, ["conv_large", "sgemm", "relu"], "one iteration, begun behind the pause");
    let sgemm = profile.kernels.iter().find(|k| k.name == "sgemm").unwrap();
    assert_eq!((sgemm.curve.at(132), sgemm.grid, sgemm.block), (2000, [512, 1, 1], 128));
    assert_ne!(profile.source, cotenant_profiles::Source::Measured);
    let timeline = std::fs::read_dir(folder.path().join("timeline")).unwrap().next().unwrap();
    let text = std::fs::read_to_string(timeline.unwrap().path()).unwrap();
    let trace: serde_json::Value = serde_json::from_str(&text).unwrap();
    let events = trace["traceEvents"].as_array().unwrap();
    assert_eq!((events.len(), &events[1]["name"]), (18, &"sgemm".into()));
    // 4000 ns of the convolution and a gap of 100, in microseconds.
    assert_eq!((&events[1]["ts"], &events[1]["dur"]), (&4.1.into(), &2.0.into()));
    // A second recording does not mix with the first.
    let output = capture(folder.path(), "control", &[], &[]);
    assert_eq!(output.status.code(), Some(2));
    assert!(said(&output).contains("choose another folder"), "{}", said(&output));
}

#[test]
fn shares_become_points_of_the_curves() {
    let folder = tempfile::tempdir().unwrap();
    let output = capture(folder.path(), "control", &["--shares", "50,25,100"], &[]);
    assert!(output.status.success(), "{}", said(&output));
    let profile = files::read(&folder.path().join("profile")).unwrap();
    let points = |name: &str| {
        let kernel = profile.kernels.iter().find(|k| k.name == name).unwrap();
        let pairs = kernel.curve.points().iter().map(|p| (p.cus, p.duration_ns));
        pairs.collect::<Vec<_>>()
    };
    // A quarter of 132 SMs is 33, of which MPS grants 32.
    assert_eq!(points("sgemm"), [(32, 8000), (66, 4000), (132, 2000)]);
    assert_eq!(points("relu"), [(32, 1500), (66, 1500), (132, 1500)]);
    // Another kernel at the same place: its time counts for the work that is done there.
    assert_eq!(points("conv_large"), [(32, 16_000), (66, 8000), (132, 4000)]);
    assert_eq!(profile.kernels.len(), 3);
    let shares = &profile.provenance["shares"];
    assert!(shares.starts_with("4 points of the same kernel, 2 of another one"), "{shares}");
    assert!(profile.provenance["curves"].contains("25 %: 32 CUs"), "{:?}", profile.provenance);
    for share in ["25", "50", "100"] {
        assert!(folder.path().join("raw").join(share).is_dir(), "recordings of {share} %");
    }
}

#[test]
fn shares_that_cannot_be_had_are_refused_with_the_reason() {
    let run = |control: &str, shares: &str, program: &[&str]| {
        let folder = tempfile::tempdir().unwrap();
        let output = capture(folder.path(), control, &["--shares", shares], program);
        (output.status.code(), said(&output))
    };
    for (shares, why) in [("0,50", "above 0, up to 100"), ("50,50.1", "are both 66 CUs")] {
        let (code, said) = run("control", shares, &[]);
        assert!(code == Some(2) && said.contains(why), "{shares}: {said}");
    }
    let (code, said) = run("not-there", "50", &[]);
    assert!(code == Some(1) && said.contains("nvidia-cuda-mps-control is not on"), "{said}");
    let (code, said) = run("no-server", "50", &[]);
    assert!(code == Some(1) && said.contains("ran without MPS"), "{said}");
    let (code, said) = run("control", "50", &["fails"]);
    assert!(code == Some(1) && said.contains("exit status: 9"), "{said}");
}

/// What was not recorded leaves no folder in the way of the next attempt.
#[test]
fn an_attempt_that_recorded_nothing_can_be_repeated() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("capture");
    let attempt = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cotenant"));
        command.arg("capture").arg("--out").arg(&out).args(["--", "/no/such/program"]);
        command.output().unwrap()
    };
    for _ in 0..2 {
        let output = attempt();
        assert_eq!(output.status.code(), Some(2));
        assert!(said(&output).contains("cannot start /no/such/program"), "{}", said(&output));
        assert!(!out.exists());
    }
}
