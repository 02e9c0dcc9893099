//! Every policy serves a generating tenant beside one that answers at once.

use cotenant_profiles::{Bytes, Nanos};
use cotenant_sim::policy::ALL;

use crate::common;
use crate::model::{CUS, requests, rules, world};

#[test]
fn every_policy_carries_steps() {
    let all: Vec<_> =
        (0..40).map(|i| (i * 60_000, 5 + (i % 9) as u32, 1 + (i % 7) as u32, i % 3)).collect();
    let out: u64 = all.iter().map(|r| u64::from(r.2)).sum();
    let mut ran = 0;
    for info in ALL {
        let mut world = world(rules(), None);
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
                println!("{}: {why}", info.name);
                continue;
            }
        };
        ran += 1;
        let llm = &report.tenants[0];
        assert_eq!(llm.counts.completed, 40, "{}: {llm:?}", info.name);
        assert_eq!(llm.tokens.as_ref().unwrap().generated, out, "{}", info.name);
        assert_eq!(report.tenants[1].counts.completed, 40, "{}", info.name);
    }
    assert!(ran >= 10, "only {ran} policies ran");
}
