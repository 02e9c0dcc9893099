//! Partitions that follow the load: what a live repartition costs, and whom it stops.

use crate::common::{World, at, build, completions, device, kernel, model, program, tenant, watch};
use cotenant_profiles::Nanos;
use cotenant_profiles::device::Mechanism;
use cotenant_sim::Report;
use cotenant_sim::policy::Value;

const MS: u64 = 1_000_000;

/// Two tenants on 16 CUs, whose only kernel takes `16 ms / CUs`.
fn pair() -> World {
    let mut world = World::new(device(&[16]), vec![kernel(16, |c| 16 * MS / u64::from(c))]);
    for name in ["busy", "quiet"] {
        let model = model(vec![program(&world.code, &[0], 0)]);
        world.tenants.push(tenant(name, model));
    }
    world.duration = Nanos::from_millis(300);
    world.costs.stream_hop =
        Mechanism { cost: Nanos(10_000), delay: Nanos(40_000), ..Mechanism::FREE };
    world
}

/// One asks three times as often as the other.
fn run(world: &World, rebalance: Option<u64>) -> (Report, Vec<u64>) {
    let mut options = vec![("chunk", Value::Integer(1))];
    options.extend(rebalance.map(|ms| ("rebalance", Value::Duration(Nanos(ms * MS)))));
    let mut policy = build("mps-static", &options);
    let loads = vec![
        at((0..99).map(|i| i * 3 * MS).collect()),
        at((0..33).map(|i| i * 9 * MS + MS).collect()),
    ];
    let (report, log) = watch(world.scenario(loads), policy.as_mut());
    let busy = completions(&log).into_iter().filter(|&(_, tenant, _)| tenant == 0);
    (report, busy.map(|(when, _, arrival)| when - arrival).collect())
}

#[test]
fn partitions_follow_the_load_and_nobody_loads_a_model_again() {
    let mut world = pair();
    world.costs.process_start = Mechanism { cost: Nanos(3_000_000_000), ..Mechanism::FREE };
    let (fixed, alone) = run(&world, None);
    assert_eq!(alone, [2 * MS; 99]);
    assert_eq!(fixed.tenants[0].counts.reconfigurations, 0);
    let (live, followed) = run(&world, Some(45));
    // 12 of 16 CUs from the first period on.
    assert_eq!(followed[..16], [2 * MS; 16]);
    assert_eq!(followed[16..], [16 * MS / 12; 83]);
    let down = |t: usize| live.tenants[t].counts.downtime_ns;
    // Both streams one after the other, and the delay; who was idle waits for the other's batch, too.
    assert_eq!([down(0), down(1)], [60_000, 60_000 + 2 * MS]);
    assert!(live.tenants.iter().all(|t| t.counts.reconfigurations == 1));
    assert_eq!(live.counter("repartitions"), Some(1.0));
}

#[test]
fn it_costs_nothing_where_mechanisms_do() {
    let mut world = pair();
    world.costs = world.costs.ideal();
    let (live, _) = run(&world, Some(45));
    assert_eq!(live.tenants[0].counts.downtime_ns, 0);
}
