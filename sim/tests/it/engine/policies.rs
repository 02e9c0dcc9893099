//! Every policy serves a generating tenant beside one that answers at once.

use cotenant_profiles::{Bytes, Nanos};
use cotenant_sim::policy::ALL;

use super::model::{CUS, requests, rules, world};
use crate::common;

#[test]
fn every_policy_carries_steps() {
    carried(1, 60_000);
}

/// Each worker has sequences of its own: the one that a policy asks may have none.
#[test]
fn every_policy_carries_the_steps_of_several_workers() {
    carried(3, 6_000);
}

/// Forty requests, one each `gap` ns.
fn carried(workers: u32, gap: u64) {
    let all: Vec<_> =
        (0..40).map(|i| (i * gap, 5 + (i % 9) as u32, 1 + (i % 7) as u32, i % 3)).collect();
    let out: u64 = all.iter().map(|r| u64::from(r.2)).sum();
    let (mut ran, mut refused) = (0, vec![]);
    for info in ALL {
        let mut world = world(rules(), None);
        world.tenants[0].workers = workers;
        world.device.mps = cotenant_profiles::Device::builtin("v100-sxm2-16").unwrap().mps;
        world.device.memory.capacity = Bytes(1 << 40);
        let kernel = world.code.kernels.len() as u32;
        world.code.kernels.push(common::waves(CUS, CUS, 3_000));
        let program = common::program(&world.code, &[kernel, kernel], 0);
        world.tenants.push(common::tenant("vision", common::model(vec![program])));
        world.duration = Nanos::from_millis(400);
        let loads = vec![requests(&all), common::at((0..40).map(|i| i * 50_000).collect())];
        let Ok(mut policy) = (info.build)(&Default::default()) else { continue };
        let report = match cotenant_sim::run(world.scenario(loads), policy.as_mut(), None) {
            Ok(report) => report,
            Err(why) => {
                refused.push(format!("{}: {why}", info.name));
                continue;
            }
        };
        ran += 1;
        let llm = &report.tenants[0];
        assert_eq!(llm.counts.completed, 40, "{}: {llm:?}", info.name);
        assert_eq!(llm.tokens.as_ref().unwrap().generated, out, "{}", info.name);
        assert_eq!(report.tenants[1].counts.completed, 40, "{}", info.name);
    }
    assert!(ran >= 10, "only {ran} policies ran: {refused:#?}");
}

#[test]
fn nobody_starves_where_a_policy_says_so() {
    // More than the engine can do, beside a neighbour that never pauses.
    let all: Vec<_> = (0..4000).map(|i| (i * 10_000, 8, 6, i % 3)).collect();
    let mut fair = 0;
    for info in ALL.iter().filter(|info| info.properties.starvation_free) {
        let mut world = world(rules(), None);
        world.device.mps = cotenant_profiles::Device::builtin("v100-sxm2-16").unwrap().mps;
        world.device.memory.capacity = Bytes(1 << 40);
        let kernel = world.code.kernels.len() as u32;
        world.code.kernels.push(common::waves(CUS, 4 * CUS, 3_000));
        let program = common::program(&world.code, &[kernel, kernel, kernel], 0);
        world.tenants.push(common::tenant("vision", common::model(vec![program])));
        world.duration = Nanos::from_millis(40);
        let Ok(mut policy) = (info.build)(&Default::default()) else { continue };
        let scenario = world.scenario(vec![requests(&all), common::closed(4)]);
        if policy.layout(&scenario.setup).is_err() {
            continue;
        }
        fair += 1;
        let (_, log) = common::watch(scenario, policy.as_mut());
        let done = common::completions(&log);
        for tenant in [0, 1] {
            // Every quarter of the run.
            for quarter in 0..4 {
                let within = |at: u64| at / 10_000_000 == quarter;
                let n = done.iter().filter(|c| c.1 == tenant && within(c.0)).count();
                assert!(n > 0, "{}: tenant {tenant} starves in quarter {quarter}", info.name);
            }
        }
        // Within the tenant, first come, first served: requests are alike, so they end in order. Where
        // prompts have steps of their own, one that is being computed cannot be thrown back, and one
        // admitted earlier makes way.
        let arrivals = done.iter().filter(|c| c.1 == 0).map(|c| c.2);
        assert!(info.name == "pd-mux" || arrivals.is_sorted(), "{}", info.name);
    }
    assert!(fair >= 4, "only {fair} policies claim it and ran");
}
