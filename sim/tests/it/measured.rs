//! Physical sanity on measured kernels: Orion's V100 profiles, where they are at hand.
//!
//! `COTENANT_PUBLIC_DATA` names the folder that holds `profiles/orion_v100`.

use std::path::PathBuf;

use crate::common::{World, closed, run, tenant};
use cotenant_profiles::import::{Input, OrionOptions, orion};
use cotenant_profiles::{Device, Nanos};
use cotenant_sim::contention::ContentionModel;
use cotenant_sim::program::Code;

fn file(name: &str) -> Option<(String, String)> {
    let Some(root) = std::env::var_os("COTENANT_PUBLIC_DATA") else {
        eprintln!("left out: COTENANT_PUBLIC_DATA is not set");
        return None;
    };
    let path = PathBuf::from(root).join("profiles/orion_v100").join(name);
    let text = std::fs::read_to_string(&path).expect("the public data holds Orion's profiles");
    Some((path.display().to_string(), text))
}

/// `n` closed-loop clients of one Orion model under `policy`: the mean time of one inference, ms.
fn mean_ms(name: &str, model: &str, batch: u32, n: u32, policy: &str) -> Option<f64> {
    let (file, text) = file(name)?;
    let device = Device::builtin("v100-sxm2-16").unwrap();
    let inputs = [Input { file: &file, text: &text }];
    let profile = orion(&inputs, &device, &OrionOptions::default()).unwrap().profile;
    let mut code = Code::default();
    let mut compiled = code.compile(&profile, model, batch, device.cus()).unwrap();
    // The kernels alone: what is published are sums of kernel durations.
    compiled.host_per_request = Nanos::ZERO;
    for program in std::sync::Arc::make_mut(&mut compiled.programs) {
        program.issued_ns.fill(0);
    }
    compiled.programs = vec![compiled.program(batch).clone()].into();
    compiled.program_for = vec![0, 0];
    let contention = ContentionModel::from_name("bandwidth", &device).unwrap();
    let mut world = World::new(device, code.kernels);
    world.contention = contention;
    world.duration = Nanos::from_secs(2);
    world.warmup = Nanos::from_millis(200);
    world.tenants = (0..n).map(|i| tenant(&format!("t{i}"), compiled.clone())).collect();
    let report = run(world.scenario((0..n).map(|_| closed(1)).collect()), policy, &[]);
    let done: u64 = report.tenants.iter().map(|t| t.counts.completed).sum();
    let sum: u128 = report.tenants.iter().map(|t| t.counts.latency_sum).sum();
    let mean = sum as f64 / done as f64 / 1e6;
    eprintln!("{model} b{batch} × {n} under {policy}: {mean:.3} ms");
    Some(mean)
}

#[test]
fn alone_the_published_sums_come_out() {
    for (file, model, batch, sum) in [
        ("resnet50_4_fwd.csv", "resnet50", 4, 6.498_424),
        ("resnet101_4_fwd.csv", "resnet101", 4, 11.567_105),
        ("bert_2_fwd.csv", "bert", 2, 48.625_298),
    ] {
        let Some(mean) = mean_ms(file, model, batch, 1, "mps") else { return };
        assert!((mean - sum).abs() < 1e-6, "{model}: {mean} ms, published {sum} ms");
    }
}

#[test]
fn two_small_kernel_streams_overlap_and_two_large_ones_hardly() {
    let Some(resnet) = mean_ms("resnet50_4_fwd.csv", "resnet50", 4, 2, "mps") else { return };
    // 70 % of its time is in kernels that leave CUs over: strictly between alone and one after
    // the other.
    assert!(resnet > 6.5 && resnet < 13.0 * 0.999, "{resnet} ms");
    let bert = mean_ms("bert_2_fwd.csv", "bert", 2, 2, "mps").expect("the same data");
    let serial = 2.0 * 48.625_298;
    // Side by side they also lose L2 to each other: measured pairs that saturate a GPU reach 1.16
    // times serial.
    assert!(bert >= 0.93 * serial && bert <= serial * 1.05, "{} of serial", bert / serial);
}

#[test]
fn taking_turns_costs_as_many_times_as_there_are_clients() {
    for n in [2, 3, 5, 8] {
        let Some(mean) = mean_ms("bert_2_fwd.csv", "bert", 2, n, "temporal") else { return };
        // Every turn of the device's 2 ms loses the 0.2 ms of a switch between busy contexts.
        let expected = f64::from(n) * 48.625_298 * (1.0 + 0.2 / 2.0);
        assert!((mean / expected - 1.0).abs() < 0.05, "{n} clients: {mean} ms, not {expected}");
    }
}
