//! What the program makes of a measured profile. The one here is made up: a computed one, twice as slow,
//! in a temporary folder.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use assert_cmd::Command;
use cotenant_profiles::curve::{Curve, Point};
use cotenant_profiles::files::{self, Measurement};
use cotenant_profiles::{CoRun, Device, Profile, Source, analytic, zoo};

const DEVICE: &str = "h200-sxm";

/// A profile of resnet18 at batches 1 and 2, with pairs of its first kernels: each slows the other by half
/// of the L2 utilisation that it causes itself.
fn written(folder: &Path, source: Source) -> Profile {
    let device = Device::builtin(DEVICE).unwrap();
    let spec = zoo::find("resnet18").unwrap();
    let options = analytic::Options::default();
    let mut profile = analytic::profile(&device, &[&spec], &[1, 2], &options).unwrap();
    for kernel in &mut profile.kernels {
        let twice = |p: &Point| Point::exact(p.cus, 2 * p.duration_ns);
        kernel.curve = Curve::new(kernel.curve.points().iter().map(twice).collect()).unwrap();
    }
    let (half, few) = (66, profile.kernels.len().min(6));
    let alone = |k: usize| profile.kernels[k].curve.at(half);
    let pressure = |k: usize| {
        let rate = profile.kernels[k].dram_bytes as f64 / alone(k) as f64;
        (rate / device.memory.l2_gbps).min(1.0)
    };
    let beside = |k: usize, other: usize| (alone(k) as f64 * (1.0 + 0.5 * pressure(other))) as u64;
    let pairs = (0..few).flat_map(|a| (a..few).map(move |b| (a, b)));
    let pairs = pairs.map(|(a, b)| CoRun {
        a: (a, half),
        b: (b, half),
        duration_a_ns: beside(a, b),
        duration_b_ns: beside(b, a),
        samples: 10,
    });
    profile.corun = pairs.collect();
    profile.source = source;
    profile.provenance = BTreeMap::from([("tool".to_owned(), "a test: made up".to_owned())]);
    if source == Source::Measured {
        let evidence = Measurement::of_this_run("none", "none", "none", "2026-01-01").unwrap();
        files::write_measured(folder, &profile, &evidence).unwrap();
    } else {
        files::write(folder, &profile).unwrap();
    }
    profile
}

/// A command that must succeed: what it says.
fn cotenant(folder: &Path, args: &[&str]) -> String {
    let mut command = Command::cargo_bin("cotenant").unwrap();
    command.env_remove("COTENANT_PROFILES").current_dir(folder);
    let done = command.args(args).output().unwrap();
    let said = String::from_utf8_lossy(&done.stderr);
    assert_eq!(done.status.code(), Some(0), "{args:?}: {said}");
    String::from_utf8_lossy(&done.stdout).into_owned()
}

fn experiment(device: &str, batch: u32) -> String {
    format!(
        r#"
name = "measured"
device = "{device}"
profiles = ["profile"]
contention = "measured"
duration = "200ms"
warmup = "50ms"

[[tenant]]
name = "one"
model = "resnet18"
arrivals = {{ kind = "poisson", rate = 400.0 }}
batch = {{ max = {batch}, timeout = "2ms" }}

[[tenant]]
name = "two"
model = "resnet18"
arrivals = {{ kind = "closed", concurrency = 1 }}

[[policy]]
name = "mps-static"
"#
    )
}

/// Batches that were measured need no word.
#[test]
fn a_batch_beyond_the_measured_ones_is_said_in_the_results() {
    let folder = tempfile::tempdir().unwrap();
    written(&folder.path().join("profile"), Source::Measured);
    for (batch, beyond) in [(2, false), (8, true)] {
        fs::write(folder.path().join("e.toml"), experiment(DEVICE, batch)).unwrap();
        cotenant(folder.path(), &["run", "e.toml", "--out", "out", "--again"]);
        for file in ["run.json", "report.html"] {
            let text = fs::read_to_string(folder.path().join("out").join(file)).unwrap();
            let said = text.contains("batches above 2 were not measured: analytic curves, scaled");
            assert_eq!(said, beyond, "{file} at batch {batch}");
            assert!(!text.contains("no measured profile"), "{file} at batch {batch}");
            assert!(!text.contains("no profile holds measured pairs"), "{file}");
        }
    }
}

/// Whose pairs were measured, the constants say so; those of a stand-in do not.
#[test]
fn measured_pairs_give_a_device_file_its_constants() {
    for (source, word) in
        [(Source::Measured, "measured: 2026-01-01, "), (Source::Analytic, "knob: ")]
    {
        let folder = tempfile::tempdir().unwrap();
        let pairs = written(&folder.path().join("profile"), source).corun.len();
        let args = ["gpu", "fit", "--device", DEVICE, "--profiles", "profile", "--out", "fit"];
        let said = cotenant(folder.path(), &args);
        assert!(said.contains(&format!("{} sides of {pairs} pairs", 2 * pairs)), "{said}");
        let file = fs::read_to_string(folder.path().join("fit/h200-sxm.toml")).unwrap();
        let line = file.lines().find(|l| l.starts_with("igniter_cache")).unwrap();
        assert!(line.contains(word) && line.contains(" pairs, error 0.0"), "{line}");
        let value = line.split(['=', '#']).nth(1).unwrap().trim().parse::<f64>().unwrap();
        assert!((value - 0.5).abs() < 0.01, "{line}");
        let table = fs::read_to_string(folder.path().join("fit/fit.csv")).unwrap();
        assert_eq!(table.contains("# source=measured"), source == Source::Measured);
        // An experiment runs on the fitted device.
        fs::write(folder.path().join("e.toml"), experiment("fit/h200-sxm.toml", 2)).unwrap();
        cotenant(folder.path(), &["run", "e.toml", "--out", "out"]);
    }
}
