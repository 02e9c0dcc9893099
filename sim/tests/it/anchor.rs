//! The event engine against the loop that one writes by hand for the same workload, on the same
//! draws: every sum must come out the same.

use crate::common::anchor::{Counter, Params, Stats, by_hand, scenario, simulate};
use cotenant_profiles::Device;
use cotenant_sim::contention::ContentionModel;

const KERNELS: u64 = 2_000_000;

fn compare(tenants: u32, servers: u32, kernels: u64, contention: ContentionModel) {
    let p = Params::new(tenants, servers, kernels);
    let draws = Counter(libm::log);
    let hand = by_hand::<true, _>(&p, draws);
    let mut ours = Stats::default();
    let scenario = scenario(&p, draws, 64, 100_000, contention, hand.end + 1);
    let report = simulate(scenario, Some(&mut ours));
    assert_eq!(ours, hand.stats);
    // One more: the opening of the window.
    assert_eq!(report.events, hand.events + 1);
    let sum: u128 = report.tenants.iter().map(|t| t.counts.latency_sum).sum();
    let count: u64 = report.tenants.iter().map(|t| t.counts.completed).sum();
    assert_eq!((sum, count), (u128::from(ours.lat_sum), ours.requests));
    eprintln!(
        "{tenants}/{servers}: {} requests, mean latency {:.3} us, max {:.1} us, check {:016x}, {} ties",
        ours.requests,
        ours.lat_sum as f64 / ours.requests as f64 / 1e3,
        ours.lat_max as f64 / 1e3,
        ours.check,
        hand.ties
    );
}

#[test]
fn the_engine_computes_what_the_hand_written_loop_computes() {
    compare(16, 8, KERNELS, ContentionModel::None);
}

/// A memory system that is never short must not change a bit.
#[test]
fn contention_without_contenders_changes_nothing() {
    let device = Device::builtin("v100-sxm2-16").unwrap();
    let model = ContentionModel::from_name("bandwidth", &device).unwrap();
    compare(16, 8, KERNELS / 4, model);
}

#[test]
fn and_at_the_size_of_a_cluster() {
    compare(512, 128, KERNELS / 4, ContentionModel::None);
}

/// The loop's usual rule at equal times is the order of scheduling; the simulator lets kernels end
/// first. Both are first come, first served among kernels, so the means agree to the last digits
/// that anybody quotes.
#[test]
fn the_rule_at_equal_times_does_not_move_the_mean() {
    let p = Params::new(16, 8, KERNELS);
    let first = by_hand::<true, _>(&p, Counter(libm::log)).stats;
    let fifo = by_hand::<false, _>(&p, Counter(libm::log)).stats;
    let mean = |s: Stats| s.lat_sum as f64 / s.requests as f64;
    eprintln!("kernels first {:.6} us, in order {:.6} us", mean(first) / 1e3, mean(fifo) / 1e3);
    assert!((mean(first) / mean(fifo) - 1.0).abs() < 1e-4);
}
