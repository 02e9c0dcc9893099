//! Recordings of profilers become models: fixtures made to the published schemas
//! (`fixtures/recordings.py`), real traces, public cases, damage.

mod aiconfigurator;
mod cases;
mod databases;
mod fuzz;
mod host;
mod nsys;
mod others;
mod sheets;
mod torch;

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use cotenant_profiles::import::{Import, Range, Recording, StreamOptions, Tool};
use cotenant_profiles::{Device, Nanos};

fn device() -> Device {
    static DEVICE: LazyLock<Device> = LazyLock::new(|| Device::builtin("h100-sxm").unwrap());
    DEVICE.clone()
}

fn options() -> StreamOptions {
    StreamOptions { model: "net".to_owned(), batch: 8, ..StreamOptions::default() }
}

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

fn read(tool: Tool, path: &Path) -> Result<Recording, String> {
    Recording::read(tool, path, &mut |_| {}).map_err(|e| e.to_string())
}

fn import(tool: Tool, path: &Path, options: &StreamOptions) -> Result<Import, String> {
    read(tool, path)?.model(&device(), options).map_err(|e| e.to_string())
}

fn import_text(text: &[u8], options: &StreamOptions) -> Result<Import, String> {
    let read = Recording::stream(Tool::Torch, "t.json", text).map_err(|e| e.to_string())?;
    read.model(&device(), options).map_err(|e| e.to_string())
}

/// Launches of the one model at the one batch, and what their kernels take in all, ns.
fn launches_and_ns(import: &Import) -> (usize, u64) {
    let model = import.profile.models.values().next().unwrap();
    let launches = model.batches.values().next().unwrap();
    let cus = device().cus();
    (launches.len(), launches.iter().map(|l| import.profile.kernels[l.kernel].curve.at(cus)).sum())
}

/// What a request takes alone: a kernel starts when its predecessor has ended and the host has issued
/// it, behind the copy in; the host begins with both.
fn alone_ns(import: &Import) -> u64 {
    let model = import.profile.models.values().next().unwrap();
    let (batch, launches) = model.batches.iter().next().unwrap();
    let (cus, pcie) = (device().cus(), device().pcie);
    let copy = |bytes: u64, gbps: f64| (bytes as f64 * f64::from(*batch) / gbps).ceil() as u64;
    let (mut issued, mut done) = (0, copy(model.input_per_item.0, pcie.h2d_gbps));
    for launch in launches {
        issued += launch.host.0;
        done = issued.max(done) + import.profile.kernels[launch.kernel].curve.at(cus);
    }
    done + copy(model.output_per_item.0, pcie.d2h_gbps)
}

/// Six launches of four kernels, from four of the five iterations: a stray kernel ends the first.
fn check(import: &Import) {
    let (profile, device) = (&import.profile, device());
    let launches = &profile.models["net"].batches[&8];
    let names: Vec<&str> = launches
        .iter()
        .map(|l| {
            profile.kernels[l.kernel].name.split(['<', ' ']).rfind(|w| w.contains('_')).unwrap()
        })
        .collect();
    assert_eq!(names[1], "ampere_sgemm_128x64_nn", "{names:?}");
    assert_eq!((launches.len(), profile.kernels.len()), (6, 4));
    assert_eq!(import.rows_in, 34);
    assert_eq!(import.rows_used, 24, "{:?}", import.notes);
    assert_eq!(import.dropped["outside the repeating rounds"], 10);
    let gemm = profile.kernels.iter().find(|k| k.name.starts_with("ampere")).unwrap();
    let point = gemm.curve.points()[0];
    assert_eq!((point.cus, point.samples), (device.cus(), 8));
    // 50 010 to 50 040 and 51 010 to 51 040 ns: the mean of the two launches of the median rounds.
    assert_eq!((point.duration_ns, point.p05_ns, point.p95_ns), (50_525, 50_010, 51_040));
    assert_eq!((gemm.grid, gemm.block, gemm.regs, gemm.smem_bytes), ([12, 4, 1], 256, 32, 2048));
    // 65536 registers: eight blocks of 256 threads with 32 registers.
    assert_eq!(gemm.blocks_per_cu, 8);
}

#[test]
fn a_trace_of_pytorch_becomes_the_launches_of_its_iteration() {
    check(&import(Tool::Torch, &fixture("torch.json"), &options()).unwrap());
}

#[test]
fn an_export_of_nsight_systems_becomes_the_launches_of_its_iteration() {
    let import = import(Tool::Nsys, &fixture("nsys.sqlite"), &options()).unwrap();
    check(&import);
    let long = import.profile.kernels.iter().find(|k| k.name.contains("softmax")).unwrap();
    assert!(long.name.len() > 1400 && long.name.ends_with("4>"), "a row that overflows its page");
}

#[test]
fn a_range_replaces_the_search_and_must_lie_within() {
    let torch = fixture("torch.json");
    let some = StreamOptions { range: Some(Range::Kernels([3, 5])), ..options() };
    let read = import(Tool::Torch, &torch, &some).unwrap();
    assert_eq!((read.rows_used, launches_and_ns(&read).0), (2, 2));
    let beyond = StreamOptions { range: Some(Range::Kernels([3, 99])), ..options() };
    let error = import(Tool::Torch, &torch, &beyond).unwrap_err();
    assert!(
        error.ends_with("torch.json:1: range: `3..99` is not within the 34 kernels"),
        "{error}"
    );
    let mark = StreamOptions { range: Some(Range::Mark("fwd".to_owned())), ..options() };
    let error = import(Tool::Torch, &torch, &mark).unwrap_err();
    assert!(error.contains("range: `fwd` is not a mark that holds kernels"), "{error}");
}

#[test]
fn the_host_time_of_a_launch_can_be_given() {
    let given = StreamOptions { launch: Some(Nanos(8_000)), ..options() };
    let profile = import(Tool::Torch, &fixture("torch.json"), &given).unwrap().profile;
    assert!(profile.models["net"].batches[&8].iter().all(|l| l.host == Nanos(8_000)));
    assert_eq!(profile.provenance["host_ns"], "given: 8us per launch");
    let slip = StreamOptions { launch: Some(Nanos(2_000_000_000)), ..options() };
    let error = import(Tool::Torch, &fixture("torch.json"), &slip).unwrap_err();
    assert!(error.ends_with("torch.json:1: launch: `2s` is not at most 1s"), "{error}");
}
