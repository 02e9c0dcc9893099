//! KRISP on small GPUs, through the simulator.

use crate::common::{
    self, World, build, closed, completions, kernel, model, program, tenant, watch, waves,
};
use cotenant_profiles::{Device, Nanos};
use cotenant_sim::observe::Happening;
use cotenant_sim::policy::Value;
use cotenant_sim::program::{Code, KernelCode};
use cotenant_sim::{Report, Scenario};

/// Two shader engines of four CUs, blocks split evenly; no copies, no host time.
fn small() -> Device {
    let mut device = Device::builtin("mi50").unwrap();
    device.topology.groups = vec![4, 4];
    device.costs.context_memory = cotenant_profiles::Bytes(0);
    device
}

/// One tenant per kernel, which it runs over and over.
fn world(kernels: Vec<KernelCode>) -> World {
    let mut world = World::new(small(), kernels);
    let code = Code::of(world.code.kernels.clone());
    for k in 0..code.kernels.len() as u32 {
        world.tenants.push(tenant(&format!("t{k}"), model(vec![program(&code, &[k], 0)])));
    }
    world.duration = Nanos(100_000);
    world
}

fn text(word: &str) -> Value {
    Value::Text(word.to_owned())
}

fn go(scenario: Scenario, options: &[(&str, Value)]) -> (Report, Vec<(u64, Happening)>) {
    watch(scenario, build("krisp", options).as_mut())
}

fn counter(report: &Report, name: &str) -> f64 {
    report.counter(name).expect("a counter of krisp")
}

/// CUs granted to each worker, in order.
fn grants(log: &[(u64, Happening)], worker: u32) -> Vec<(u64, u32)> {
    let of = |&(now, what): &(u64, Happening)| match what {
        Happening::Granted { worker: w, cus, .. } if w == worker => Some((now, cus)),
        _ => None,
    };
    log.iter().filter_map(of).collect()
}

#[test]
fn each_kernel_gets_what_it_needs_and_its_own_cus() {
    // Four and three blocks: min-CU 4 and 3; both fit side by side.
    let w = world(vec![waves(8, 4, 10_000), waves(8, 3, 10_000)]);
    let (report, log) = go(w.scenario(vec![closed(1), closed(1)]), &[]);
    // Firmware sets each mask in 1 us.
    assert_eq!(grants(&log, 0)[0], (1_000, 4));
    assert_eq!(grants(&log, 1)[0], (1_000, 3));
    assert_eq!(report.tenants[0].counts.completed, 9);
    assert_eq!(counter(&report, "overlapped_kernels"), 0.0);
    assert_eq!(counter(&report, "asked_cus_mean"), 3.5);
}

#[test]
fn isolated_shrinks_and_overlapped_waits_for_the_rest() {
    let eight = || waves(8, 8, 10_000);
    let mut three = waves(8, 3, 10_000);
    three.name = "three".to_owned();
    // The first kernel takes three CUs of engine 0, the second asks for all eight. KRISP-I gives it
    // the four of engine 1 (an even split would waste the fifth), for two waves of blocks.
    let w = world(vec![three.clone(), eight()]);
    let ideal = ("mask_cost", text("ideal"));
    let (_, log) = go(w.scenario(vec![closed(1), closed(1)]), std::slice::from_ref(&ideal));
    assert_eq!(grants(&log, 1)[0], (0, 4));
    let second = completions(&log).into_iter().find(|c| c.1 == 1);
    assert_eq!(second.map(|c| c.0), Some(20_000));
    // KRISP-O names all eight; the earlier kernel's CUs come to it when they are free.
    let all = ("oversubscription", Value::Integer(8));
    let (report, log) = go(w.scenario(vec![closed(1), closed(1)]), &[ideal, all]);
    assert_eq!(
        grants(&log, 1)[0],
        (0, 5),
        "on all that are free, as fast as on one of each engine"
    );
    assert!(counter(&report, "overlapped_kernels") > 0.0);
}

#[test]
fn one_cu_at_least_even_if_none_is_free() {
    let w = world(vec![waves(8, 8, 10_000), waves(8, 8, 10_000)]);
    let (report, log) = go(w.scenario(vec![closed(1), closed(1)]), &[("mask_cost", text("ideal"))]);
    // The second kernel waits on its one CU for the first, and runs there for eight waves.
    let times: Vec<_> = completions(&log).iter().filter(|c| c.1 == 1).map(|c| c.0).collect();
    assert_eq!(times[0], 90_000);
    assert!(report.tenants[0].counts.completed > 0);
    assert!(counter(&report, "shrunk_kernels") > 0.0);
}

#[test]
fn masks_cost_what_their_mechanism_costs() {
    for (word, ns) in [("ideal", 0), ("firmware", 1_000), ("tpc", 4_100), ("ioctl", 55_400)] {
        let w = world(vec![waves(8, 4, 10_000)]);
        let (_, log) = go(w.scenario(vec![closed(1)]), &[("mask_cost", text(word))]);
        assert_eq!(completions(&log)[0].0, 10_000 + ns, "{word}");
        let mut free = world(vec![waves(8, 4, 10_000)]);
        free.costs = free.costs.ideal();
        let (_, log) = go(free.scenario(vec![closed(1)]), &[("mask_cost", text(word))]);
        assert_eq!(completions(&log)[0].0, 10_000, "{word}, ideal costs");
    }
}

#[test]
fn a_mask_released_at_the_next_dispatch_blocks_others_meanwhile() {
    // One kernel of all CUs, then a minute of thinking; the other one starts after it has ended.
    let device = small();
    let mut w = World::new(device, vec![waves(8, 8, 10_000), waves(8, 4, 10_000)]);
    let code = Code::of(w.code.kernels.clone());
    w.tenants = vec![
        tenant("once", model(vec![program(&code, &[0], 0)])),
        tenant("later", model(vec![program(&code, &[1], 0)])),
    ];
    w.duration = Nanos(200_000);
    let run = |release: &str| {
        let loads = vec![common::at(vec![0]), common::at(vec![50_000])];
        let options = [("mask_cost", text("ideal")), ("release", text(release))];
        grants(&go(w.scenario(loads), &options).1, 1)[0]
    };
    assert_eq!(run("completion"), (50_000, 4));
    assert_eq!(run("next-dispatch"), (50_000, 1));
}

#[test]
fn kernels_that_the_sweep_did_not_see_get_the_whole_gpu_and_are_counted() {
    // A tenant with batches of one or two; the smaller batch's kernel is another one.
    let (mut one, two) = (waves(8, 2, 10_000), waves(8, 4, 10_000));
    one.name = "small".to_owned();
    let mut w = World::new(small(), vec![one, two]);
    let code = Code::of(w.code.kernels.clone());
    w.tenants = vec![tenant("t", model(vec![program(&code, &[0], 0), program(&code, &[1], 0)]))];
    w.tenants[0].batch_timeout = Nanos(1_000);
    let run = |known: &str| {
        go(w.scenario(vec![common::at(vec![0, 500_000, 500_000])]), &[("known", text(known))]).0
    };
    for (known, unknown, asked) in
        [("all", 0.0, 3.0), ("largest-batch", 1.0, 6.0), ("none", 2.0, 8.0)]
    {
        let report = run(known);
        assert_eq!(counter(&report, "kernels"), 2.0);
        assert_eq!(counter(&report, "unknown_kernels"), unknown, "{known}");
        assert_eq!(counter(&report, "asked_cus_mean"), asked, "{known}");
    }
}

#[test]
fn kernels_of_one_name_and_size_share_the_larger_entry() {
    // The same function on as many work-items, with other operands: the runtime cannot tell.
    let fast = kernel(8, |c| 8_000 / u64::from(c.min(2)));
    let slow = kernel(8, |c| 8_000 / u64::from(c.min(6)));
    let w = world(vec![fast, slow]);
    let (report, _) = go(w.scenario(vec![closed(1), closed(1)]), &[]);
    assert_eq!(counter(&report, "shared_keys"), 1.0);
    assert_eq!(counter(&report, "asked_cus_mean"), 6.0);
}

#[test]
fn the_sweep_sees_masks_as_the_gpu_does() {
    // 31 CUs of an MI50 count as 27 under an even split (11, 11, 9): the sweep asks for 33.
    let mut w = World::new(Device::builtin("mi50").unwrap(), vec![waves(60, 31, 10_000)]);
    let code = Code::of(w.code.kernels.clone());
    w.tenants = vec![tenant("t", model(vec![program(&code, &[0], 0)]))];
    let run = |sizing: &str| {
        let (report, log) = go(w.scenario(vec![closed(1)]), &[("sizing", text(sizing))]);
        (counter(&report, "asked_cus_mean"), completions(&log)[0].0)
    };
    assert_eq!(run("mask"), (33.0, 11_000));
    assert_eq!(run("curve"), (31.0, 21_000));
}
