//! The event engine against a slow and obvious one that recomputes everything at every event, on
//! random scenarios: every event that a policy is told, every start and end must agree to the
//! nanosecond. Policies are a senseless one that does anything, and every registered one.

use crate::common::Log;
use crate::oracle_cases::policies::{self, registered, witnessed};
use crate::oracle_cases::script::{DEPTHS, Script};
use crate::oracle_cases::{Shape, scenario, shapes};
use crate::oracle_engine::{Oracle, Outcome};
use crate::skip;
use cotenant_profiles::Device;
use cotenant_sim::observe::Happening;
use cotenant_sim::policy::{Depth, PolicyInfo};
use cotenant_sim::{Policy, Report};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

/// What both engines log, in the same order.
fn essence(log: Vec<(u64, Happening)>) -> Vec<(u64, Happening)> {
    let kept = |what: &Happening| {
        !matches!(
            what,
            Happening::Granted { .. } | Happening::Switching { .. } | Happening::Busy { .. }
        )
    };
    log.into_iter().filter(|(_, what)| kept(what)).collect()
}

/// How many things happened, if the policy could lay the tenants out.
type Agreed = Result<Option<usize>, TestCaseError>;

/// Without an observer the engine skips what cannot matter: the policy is told the same, and the report has
/// the same bits.
fn unobserved(
    shape: &Shape,
    told: &[policies::Told],
    report: &Report,
    policy: &mut dyn Policy,
) -> Result<(), TestCaseError> {
    let mut again = vec![];
    let mut policy = witnessed(policy, &mut again);
    let (skipping, skipped) = skip::run(scenario(shape), &mut policy, true).expect("it ran before");
    drop(policy);
    for (i, (a, b)) in told.iter().zip(&again).enumerate() {
        prop_assert_eq!(a, b, "told without an observer {}", i);
    }
    prop_assert_eq!(told.len(), again.len());
    prop_assert_eq!(format!("{report:?}"), format!("{skipping:?}"), "{} skipped", skipped);
    Ok(())
}

/// Runs three of the same policy: one in each engine, and one where events may be skipped.
fn agree(shape: &Shape, policies: [&mut dyn Policy; 3]) -> Agreed {
    let [ours, theirs, again] = policies;
    let (mut we, mut they) = (vec![], vec![]);
    let (mut ours, mut theirs) = (witnessed(ours, &mut we), witnessed(theirs, &mut they));
    let mut log = Log::default();
    let report = cotenant_sim::run(scenario(shape), &mut ours, Some(&mut log));
    let oracle = Oracle::new(scenario(shape), &mut theirs);
    let (report, slow) = match (report, oracle) {
        (Err(a), Err(b)) => {
            prop_assert_eq!(a, b);
            return Ok(None);
        }
        (Ok(report), Ok(oracle)) => (report, oracle.run()),
        (a, b) => {
            let refused = (a.err(), b.err());
            return Err(TestCaseError::fail(format!("one of them refused: {refused:?}")));
        }
    };
    let counted = [ours.counters(), theirs.counters()];
    drop((ours, theirs));
    for (i, (a, b)) in we.iter().zip(&they).enumerate() {
        prop_assert_eq!(a, b, "told {}", i);
    }
    let log = essence(log.0);
    for (i, (a, b)) in log.iter().zip(&slow.log).enumerate() {
        prop_assert_eq!(a, b, "happening {}", i);
    }
    prop_assert_eq!(log.len(), slow.log.len());
    prop_assert_eq!(we.len(), they.len());
    counts_agree(&report, &slow, &scenario(shape).setup.device)?;
    unobserved(shape, &we, &report, again)?;
    let [ours, theirs] = counted;
    prop_assert_eq!(format!("{ours:?}"), format!("{theirs:?}"));
    Ok(Some(log.len()))
}

fn counts_agree(report: &Report, out: &Outcome, device: &Device) -> Result<(), TestCaseError> {
    for (t, (tenant, slow)) in report.tenants.iter().zip(&out.counts).enumerate() {
        let c = &tenant.counts;
        let ours = [
            c.offered,
            c.completed,
            c.dropped_total(),
            c.good,
            c.with_deadline,
            c.batches,
            c.batch_items,
            c.reconfigurations,
            c.downtime_ns,
            tenant.in_flight,
            tenant.in_flight_late,
        ];
        let want = [
            slow.offered,
            slow.completed,
            slow.dropped,
            slow.good,
            slow.with_deadline,
            slow.batches,
            slow.batch_items,
            slow.reconfigurations,
            slow.downtime_ns,
            slow.in_system,
            slow.in_flight_late,
        ];
        prop_assert_eq!(ours, want, "tenant {}", t);
        prop_assert_eq!((c.latency_sum, c.queue_sum), (slow.latency_sum, slow.queue_sum));
        prop_assert_eq!(c.latencies.len(), slow.completed);
    }
    let seconds = report.window.as_secs_f64();
    let busy = report.gpu.sm_active * f64::from(device.cus()) * seconds * 1e9;
    prop_assert!(
        (busy - out.busy_cu_ns as f64).abs() < 0.5,
        "{} CU-ns busy, not {}",
        busy,
        out.busy_cu_ns
    );
    let used = report.gpu.cu_utilization * f64::from(device.cus()) * seconds * 1e9;
    prop_assert!(
        (used - out.cu_ns).abs() <= 1e-9 * used + 1e-3,
        "{} CU-ns, not {}",
        used,
        out.cu_ns
    );
    let moved = report.gpu.dram_utilization * device.memory.dram_gbps * 1e9 * seconds;
    prop_assert!((moved - out.dram_bytes).abs() <= 1e-9 * moved + 1e-3, "{} bytes", moved);
    let power = &device.power;
    let board = (power.idle_w + power.active_w * report.gpu.gpu_util) * seconds;
    let energy = (report.gpu.energy_j - board) * 1e3;
    // What is left when the board's own part is taken away.
    let rounding = 1e-12 * report.gpu.energy_j * 1e3;
    prop_assert!(
        (energy - out.energy_mj).abs() <= 1e-9 * energy + rounding,
        "{} mJ, not {}",
        energy,
        out.energy_mj
    );
    let lost = (1.0 - report.gpu.clock_mhz / device.clock.boost_mhz) * seconds * 1e9;
    prop_assert!((lost - out.lost_ns).abs() <= 1e-3, "{} ns lost, not {}", lost, out.lost_ns);
    prop_assert_eq!(report.gpu.context_switches, out.switches);
    prop_assert_eq!(report.events, out.events);
    Ok(())
}

fn scripted(shape: &Shape, (depth, forms): (Depth, bool)) -> Agreed {
    let script = || Script::new(shape, depth, forms);
    agree(shape, [&mut script(), &mut script(), &mut script()])
}

fn registry(shape: &Shape, info: &PolicyInfo) -> Agreed {
    let policy = || policies::of(info, shape);
    agree(shape, [policy().as_mut(), policy().as_mut(), policy().as_mut()])
}

/// A few hundred cases; all with `COTENANT_LONG_TESTS`, as in CI, and as many as `COTENANT_CASES` says.
pub(crate) fn config() -> ProptestConfig {
    let asked = std::env::var("COTENANT_CASES").ok().and_then(|n| n.parse().ok());
    let long = std::env::var_os("COTENANT_LONG_TESTS").is_some();
    let cases = asked.unwrap_or(if long { 2048 } else { 256 });
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn the_fast_engine_is_the_slow_one(shape in shapes(), depth in 0..DEPTHS.len()) {
        scripted(&shape, DEPTHS[depth])?;
    }

    #[test]
    fn so_it_is_under_every_registered_policy(shape in shapes(), which in 0..registered().len()) {
        registry(&shape, registered()[which])?;
    }
}

/// Runs `agree` on 48 random shapes: how many things happened in each that could be laid out.
fn busy(agree: impl Fn(&Shape) -> Agreed) -> Vec<usize> {
    let mut runner = TestRunner::deterministic();
    let shape = |_| shapes().new_tree(&mut runner).unwrap().current();
    (0..48).map(shape).filter_map(|shape| agree(&shape).unwrap()).collect()
}

/// Random scenarios must not be trivial ones: most see hundreds of events.
#[test]
fn random_scenarios_are_busy() {
    let many = |happened: &[usize]| happened.iter().filter(|&&n| n > 100).count();
    for depth in DEPTHS {
        let happened = busy(|shape| scripted(shape, depth));
        assert!(many(&happened) > 20, "{depth:?}: {happened:?}");
    }
    for info in registered() {
        let happened = busy(|shape| registry(shape, info));
        eprintln!("{}: {} of {} are busy", info.name, many(&happened), happened.len());
        assert!(many(&happened) >= 8, "{}: {happened:?}", info.name);
    }
}

/// The senseless policy does everything there is to do, many times over.
#[test]
fn every_action_is_taken() {
    let done = std::cell::RefCell::new([0; 16]);
    for (depth, forms) in DEPTHS {
        busy(|shape| {
            let [mut a, mut b, mut c] = [(); 3].map(|()| Script::new(shape, depth, forms));
            let agreed = agree(shape, [&mut a, &mut b, &mut c]);
            done.borrow_mut().iter_mut().zip(a.done).for_each(|(sum, n)| *sum += n);
            agreed
        });
    }
    assert!(done.borrow().iter().all(|&n| n > 100), "{done:?}");
}
