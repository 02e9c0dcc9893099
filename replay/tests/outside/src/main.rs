//! A program of one's own: it registers a policy and runs it in both worlds.
#![allow(clippy::print_stdout)] // it prints what it finds

use std::sync::Arc;

use cotenant_profiles::{Device, Nanos, analytic, zoo};
use cotenant_replay::clock::Clock;
use cotenant_replay::drive::{self, Kernels, Stop, Streams};
use cotenant_replay::emulated::EmulatedDevice;
use cotenant_sim::contention::ContentionModel;
use cotenant_sim::policy::{self, Options};
use cotenant_sim::program::Code;
use cotenant_sim::scenario::{Class, Load, Scenario, Setup, Tenant};
use cotenant_traces::Request;

mod earliest;

/// A model on an A100, a request every millisecond, due within four.
fn scenario() -> Scenario {
    let device = Device::builtin("a100-sxm-40").expect("it ships");
    let model = zoo::find("resnet50").expect("it is in the zoo");
    let options = analytic::Options::default();
    let profile = analytic::profile(&device, &[&model], &[1, 4], &options).expect("it is known");
    let mut code = Code::default();
    let tenant = Tenant {
        name: "vision".to_owned(),
        model: code.compile(&profile, "resnet50", 4, device.cus()).expect("it compiles"),
        class: Class::Latency,
        slo: Some(Nanos::from_millis(4)),
        workers: 1,
        batch_max: 4,
        batch_timeout: Nanos::ZERO,
        generates: None,
        per_request_batches: false,
        drop_after: None,
    };
    let arrivals = (0..400u64).map(|i| Request::at(Nanos(i * 1_000_003)));
    Scenario {
        loads: vec![Load::Open(Box::new(arrivals))],
        contention: ContentionModel::None,
        setup: Arc::new(Setup {
            costs: device.costs.clone(),
            device,
            code: code.into(),
            tenants: vec![tenant],
        }),
        warmup: Nanos::from_millis(20),
        duration: Nanos::from_millis(300),
        jitter: None,
    }
}

fn main() {
    policy::register(&earliest::INFO).expect("a name of its own");
    let build = policy::find("earliest").expect("it was registered").build;
    let mut policy = build(&Options::default()).expect("defaults are accepted");
    let simulated = cotenant_sim::run(scenario(), &mut *policy, None).expect("it fits");

    let mut policy = build(&Options::default()).expect("defaults are accepted");
    let scenario = scenario();
    let setup = Arc::clone(&scenario.setup);
    let layout = policy.layout(&setup).expect("it fits");
    let clock = Clock::virtual_time();
    let mut device =
        EmulatedDevice::for_scenario(&setup, &layout.pools, scenario.contention, clock);
    let mut streams = Streams::new(&mut device, Kernels::Numbered, setup.code.kernels.len());
    let stop = Stop::new();
    let replayed = drive::run(scenario, &mut *policy, &layout, &mut streams, None, &stop);
    let replayed = replayed.expect("it runs").report;

    let (a, b) = (&simulated.tenants[0].counts, &replayed.tenants[0].counts);
    println!("simulated: {} answered, {} given up", a.completed, a.dropped_total());
    println!("replayed: {} answered, {} given up", b.completed, b.dropped_total());
    assert_eq!((a.completed, a.dropped_total()), (b.completed, b.dropped_total()));
    assert!(a.completed > 100, "most are answered");
}
