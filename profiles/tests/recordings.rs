//! Recordings of profilers: the fixtures are made by `fixtures/recordings.py` to the published schemas.
#![allow(clippy::unwrap_used)] // helpers of tests

use cotenant_profiles::import::{Import, Input, StreamOptions, nsys, torch};
use cotenant_profiles::{Device, Nanos};
use proptest::prelude::*;

const TORCH: &str = include_str!("fixtures/torch.json");
const NSYS: &[u8] = include_bytes!("fixtures/nsys.sqlite");

fn device() -> Device {
    Device::builtin("h100-sxm").unwrap()
}

fn options() -> StreamOptions {
    StreamOptions { model: "net".to_owned(), batch: 8, range: None, launch: None }
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
    assert_eq!(import.rows_used, 24, "{:?}", profile.provenance["iteration"]);
    assert_eq!(import.dropped["outside the repeating iterations"], 10);
    let gemm = profile.kernels.iter().find(|k| k.name.starts_with("ampere")).unwrap();
    let point = gemm.curve.points()[0];
    assert_eq!((point.cus, point.samples), (device.cus(), 8));
    // 50 010 to 50 040 and 51 010 to 51 040 ns, the lower of the two in the middle.
    assert_eq!((point.duration_ns, point.p05_ns, point.p95_ns), (50_040, 50_010, 51_040));
    assert_eq!((gemm.grid, gemm.block, gemm.regs, gemm.smem_bytes), ([12, 4, 1], 256, 32, 2048));
    // 65536 registers: eight blocks of 256 threads with 32 registers.
    assert_eq!(gemm.blocks_per_cu, 8);
}

#[test]
fn a_trace_of_pytorch_becomes_the_launches_of_its_iteration() {
    let input = Input { file: "torch.json", text: TORCH };
    check(&torch(&input, &device(), &options()).unwrap());
}

#[test]
fn an_export_of_nsight_systems_becomes_the_launches_of_its_iteration() {
    let import = nsys("nsys.sqlite", NSYS, &device(), &options()).unwrap();
    check(&import);
    let long = import.profile.kernels.iter().find(|k| k.name.contains("softmax")).unwrap();
    assert!(long.name.len() > 1400 && long.name.ends_with("4>"), "a row that overflows its page");
}

#[test]
fn the_host_time_of_a_launch_is_the_devices_or_the_users() {
    let input = Input { file: "torch.json", text: TORCH };
    let given = StreamOptions { launch: Some(Nanos(8_000)), ..options() };
    for (options, host, fact) in [
        (options(), device().costs.launch, "assumed: 5us per launch, costs.launch of h100-sxm"),
        (given, Nanos(8_000), "given: 8us per launch"),
    ] {
        let profile = torch(&input, &device(), &options).unwrap().profile;
        assert!(profile.models["net"].batches[&8].iter().all(|l| l.host == host));
        assert_eq!(profile.provenance["host_ns"], fact);
    }
    let slip = StreamOptions { launch: Some(Nanos(2_000_000_000)), ..options() };
    let error = torch(&input, &device(), &slip).unwrap_err().to_string();
    assert_eq!(error, "torch.json:1: launch: `2s` is not at most 1s");
}

#[test]
fn a_range_replaces_the_search_and_must_lie_within() {
    let input = Input { file: "torch.json", text: TORCH };
    let some = StreamOptions { range: Some([3, 5]), ..options() };
    let import = torch(&input, &device(), &some).unwrap();
    assert_eq!((import.rows_used, import.profile.models["net"].batches[&8].len()), (2, 2));
    let beyond = StreamOptions { range: Some([3, 99]), ..options() };
    let error = torch(&input, &device(), &beyond).unwrap_err().to_string();
    assert_eq!(error, "torch.json:1: range: `3..99` is not within the 34 kernels");
}

#[test]
fn what_is_wrong_is_named() {
    let torch = |text: &str| {
        let input = Input { file: "t.json", text };
        torch(&input, &device(), &options()).unwrap_err().to_string()
    };
    assert!(torch("{\"a\": 1}").starts_with("t.json:1: traceEvents: "));
    assert!(torch("[\n1,").starts_with("t.json:2: traceEvents: "));
    assert_eq!(torch("[]"), "t.json:1: file: no rows: expected at least one kernel");
    let event =
        r#"[{"ph":"X","cat":"kernel","name":"k","ts":1,"args":{"grid":[1,1,1],"block":[1,1,1]}}]"#;
    assert_eq!(torch(event), "t.json:1: traceEvents[0].dur: `nothing` is not microseconds");
    let nsys =
        |bytes: &[u8]| nsys("n.sqlite", bytes, &device(), &options()).unwrap_err().to_string();
    assert!(nsys(b"PK").contains("`no SQLite database` is not an export"), "{}", nsys(b"PK"));
    let cut = nsys(&NSYS[..NSYS.len() / 2]);
    assert!(cut.contains("beyond the end") || cut.contains("broken"), "{cut}");
}

proptest! {
    #[test]
    fn damaged_files_are_answers_not_panics(at in 0usize..NSYS.len(), to in any::<u8>(), n in 1usize..64) {
        let mut bytes = NSYS.to_vec();
        let end = (at + n).min(bytes.len());
        bytes[at..end].fill(to);
        let _ = nsys("n", &bytes, &device(), &options());
        let _ = torch(&Input { file: "t", text: &TORCH[..at.min(TORCH.len())] }, &device(), &options());
    }
}
