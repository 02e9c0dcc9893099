//! The same digests everywhere: written down here, so debug and release builds, optimised or not, and
//! CPUs with and without fused multiply-add must all arrive at them.
//!
//! When the simulator's semantics change on purpose, `COTENANT_PRINT_DIGESTS=1 cargo test -p
//! cotenant-sim --test it determinism -- --nocapture` prints the new lines.

use crate::common::anchor::{Counter, Params};
use crate::common::{
    Exponential, World, anchor, closed, model, poisson, program, run, tenant, waves,
};
use cotenant_profiles::{Device, Nanos};
use cotenant_sim::contention::ContentionModel;
use cotenant_sim::program::KernelCode;
use cotenant_sim::scenario::{Load, Scenario, Think};
use cotenant_traces::Rng;

/// Scenario, events, digest.
const WRITTEN: &[(&str, u64, u64)] = &[
    ("fifo", 21304, 0xf754066db0eaae8f),
    ("bandwidth", 8163, 0x163afd66b802a5c6),
    ("linear", 7477, 0x1536f842bec4f331),
    ("igniter", 6406, 0x6184e583336bc2dd),
    ("turns", 6625, 0x0a50a668b2e57599),
];

/// Three tenants with think times, jitter and memory-bound kernels: every kind of floating point.
fn shared(contention: &str) -> Scenario {
    let device = Device::builtin("v100-sxm2-16").unwrap();
    let cus = device.cus();
    let heavy = KernelCode { dram_bytes: 60_000_000, ..waves(cus, 3 * cus / 2, 70_000) };
    let mut world = World::new(device, vec![heavy, waves(cus, 30, 20_000)]);
    let m = model(vec![program(&world.code, &[0, 1, 1, 0], 4_000)]);
    world.tenants = ["a", "b", "c"].map(|name| tenant(name, m.clone())).to_vec();
    world.duration = Nanos::from_millis(300);
    world.contention = ContentionModel::from_name(contention, &world.device).unwrap();
    let think = Think::Exponential(Nanos::from_micros(300), Rng::new(5));
    let thinking = Load::Closed { concurrency: 2, think, items: 1, limit: None, tokens: None };
    let mut scenario = world.scenario(vec![poisson(700_000.0, 9), thinking, closed(1)]);
    scenario.jitter = Some(Box::new(Exponential(Rng::new(11))));
    scenario
}

fn fifo() -> Scenario {
    let p = Params::new(16, 8, 0);
    anchor::scenario(&p, Counter(libm::log), 8, 100_000, ContentionModel::None, 300_000_000)
}

/// Name, policy and scenario of each.
fn runs() -> Vec<(&'static str, &'static str, Scenario)> {
    vec![
        ("fifo", "mps", fifo()),
        ("bandwidth", "mps", shared("bandwidth")),
        ("linear", "mps", shared("linear")),
        ("igniter", "mps-percent", shared("igniter")),
        ("turns", "temporal", shared("bandwidth")),
    ]
}

fn digests() -> Vec<(&'static str, u64, u64)> {
    let digest = |(name, policy, scenario)| {
        let report = run(scenario, policy, &[]);
        (name, report.events, report.digest)
    };
    runs().into_iter().map(digest).collect()
}

#[test]
fn digests_are_the_written_ones() {
    let digests = digests();
    if std::env::var_os("COTENANT_PRINT_DIGESTS").is_some() {
        for (name, events, digest) in &digests {
            eprintln!("    (\"{name}\", {events}, 0x{digest:016x}),");
        }
        return;
    }
    assert_eq!(digests, WRITTEN);
}

/// The same test in a process whose C library is told that the CPU has neither AVX2 nor FMA: the
/// system's `ln`, `exp` and `pow` then give other bits, ours must not.
#[test]
fn digests_do_not_depend_on_what_the_cpu_can_do() {
    let me = std::env::current_exe().unwrap();
    let child = std::process::Command::new(me)
        .args(["determinism::digests_are_the_written_ones", "--exact"])
        .env("GLIBC_TUNABLES", "glibc.cpu.hwcaps=-AVX2,-FMA,-FMA4,-AVX512F")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&child.stdout);
    assert!(child.status.success(), "{text}");
    assert!(text.contains("1 passed"), "{text}");
}

/// A run does not depend on how often or beside what it is run.
#[test]
fn the_same_on_many_threads_at_once() {
    let once = digests();
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(digests)).collect();
        for thread in threads {
            assert_eq!(thread.join().unwrap(), once);
        }
    });
}
