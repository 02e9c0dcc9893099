//! Processor time of the dispatcher per launch, on a device on which everything ends at once: event,
//! decision, launch. `cargo bench -p cotenant-replay --bench dispatch`
#![allow(clippy::print_stdout)] // it prints its numbers

#[path = "../tests/instant/mod.rs"]
mod instant;

use rustix::time::{ClockId, clock_gettime};

fn cpu_s() -> f64 {
    let t = clock_gettime(ClockId::ThreadCPUTime);
    t.tv_sec as f64 + t.tv_nsec as f64 / 1e9
}

fn main() {
    const LAUNCHES: u64 = 500_000;
    for policy in ["mps", "krisp", "eclip", "coalesce"] {
        // The best of some: other programs only ever add.
        let each = (0..3).map(|_| {
            let began = cpu_s();
            instant::dispatch(policy, LAUNCHES, &mut |_| {});
            (cpu_s() - began) / LAUNCHES as f64 * 1e6
        });
        let best = each.fold(f64::INFINITY, f64::min);
        println!("{policy:10} {best:.2} us of processor time per launch (5 allowed)");
    }
}
