//! The replay driver on the CUDA device, against the stand-in driver: real streams, green contexts,
//! events and copies, real policies, no GPU.
#![allow(clippy::print_stderr)] // helpers of tests

use std::collections::BTreeMap;
use std::sync::Arc;

use cotenant_profiles::curve::Point;
use cotenant_profiles::kernel::Launch;
use cotenant_profiles::lower::Precision;
use cotenant_profiles::{Bytes, Curve, Device as Gpu, Kernel, Model, Nanos, Profile, Source, zoo};
use cotenant_replay::cuda::{CudaDevice, Granularity};
use cotenant_replay::drive::{self, Kernels, ReplayError, Replayed, Stop, Streams};
use cotenant_replay::{runnable, work};
use cotenant_sim::Class;
use cotenant_sim::contention::ContentionModel;
use cotenant_sim::policy::{Depth, Options, Value, find};
use cotenant_sim::program::Code;
use cotenant_sim::scenario::{Load, Scenario, Setup, Tenant, Think};

use crate::stand_in::{alive, with_stand_in_of};

/// Runs `body` in a child process with the stand-in on the loader's path.
fn with_stand_in(test: &str, body: impl FnOnce()) {
    with_stand_in_of((module_path!(), test), &[], body);
}

/// A profile as the collector writes it: kernels named after runnable work. Their times are made up.
fn profile(name: &str) -> Profile {
    let spec = zoo::find(name).unwrap();
    let (mut kernels, mut numbers) = (Vec::<Kernel>::new(), BTreeMap::new());
    let mut launches = vec![];
    for w in work::launches(&spec, 1, Precision::Fp32) {
        let kernel = *numbers.entry(w.id.clone()).or_insert_with(|| {
            let point = |c: u32| Point::exact(c, 10_000 + 400_000 / u64::from(c));
            kernels.push(Kernel {
                id: w.id.clone(),
                name: w.id.clone(),
                op: w.op(),
                grid: [64, 1, 1],
                block: 256,
                regs: 0,
                smem_bytes: 0,
                blocks_per_cu: 1,
                flops: w.flops(),
                dram_bytes: 0,
                curve: Curve::new([8, 66, 132].map(point).to_vec()).unwrap(),
            });
            kernels.len() - 1
        });
        launches.push(Launch { kernel, host: Nanos(4_000) });
    }
    let model = Model {
        name: name.to_owned(),
        weights: Bytes(1 << 20),
        activations_per_item: Bytes(1 << 20),
        input_per_item: Bytes(600_000),
        output_per_item: Bytes(4_000),
        load: Nanos::ZERO,
        host_per_request: Nanos::ZERO,
        batches: BTreeMap::from([(1, launches)]),
    };
    Profile {
        device: "h100-sxm".to_owned(),
        source: Source::Analytic,
        provenance: BTreeMap::new(),
        kernels,
        models: BTreeMap::from([(name.to_owned(), model)]),
        corun: vec![],
    }
}

pub(crate) fn scenario(name: &str) -> Scenario {
    let device = Gpu::builtin("h100-sxm").unwrap();
    let profile = profile(name);
    let mut code = Code::default();
    let tenants = ["a", "b"].map(|tenant| Tenant {
        name: tenant.to_owned(),
        model: code.compile(&profile, name, 1, device.cus()).unwrap(),
        class: Class::Latency,
        slo: Some(Nanos::from_millis(200)),
        workers: 1,
        batch_max: 1,
        batch_timeout: Nanos::ZERO,
        generates: None,
        per_request_batches: false,
        drop_after: None,
    });
    let think = || Think::Constant(Nanos::from_millis(1));
    let load =
        || Load::Closed { concurrency: 1, think: think(), items: 1, limit: None, tokens: None };
    a_second(device, code, tenants.to_vec(), vec![load(), load()])
}

/// These tenants on the device for a second.
pub(crate) fn a_second(
    device: Gpu,
    code: Code,
    tenants: Vec<Tenant>,
    loads: Vec<Load>,
) -> Scenario {
    Scenario {
        loads,
        contention: ContentionModel::None,
        setup: Arc::new(Setup { costs: device.costs.clone(), device, code: code.into(), tenants }),
        warmup: Nanos::ZERO,
        duration: Nanos::from_secs(1),
        jitter: None,
    }
}

/// A second of `policy` with two tenants of `model`, as streams.
pub(crate) fn replay_streams(policy: &str, model: &str) -> Result<Replayed, ReplayError> {
    with_options(policy, model, Options::default())
}

fn replay(policy: &str) -> Result<Replayed, ReplayError> {
    with_options(policy, "squeezenet1_1@64", Options::default())
}

/// The same with a second tenant that takes what is left, and one option.
fn beside_effort(name: &str, option: Option<(&str, Value)>) -> Result<Replayed, ReplayError> {
    let mixed = || {
        let mut scenario = scenario("squeezenet1_1@64");
        let setup = Arc::get_mut(&mut scenario.setup).unwrap();
        (setup.tenants[1].class, setup.tenants[1].slo) = (Class::BestEffort, None);
        scenario
    };
    let options = option.into_iter().map(|(n, v)| (n.to_owned(), v)).collect();
    streams_of(&mixed, name, &Options(options))
}

fn with_options(name: &str, model: &str, options: Options) -> Result<Replayed, ReplayError> {
    streams_of(&|| scenario(model), name, &options)
}

/// As [`replay_streams`], until somebody wants to stop.
pub(crate) fn streams_until(
    policy: &str,
    model: &str,
    stop: &Stop,
) -> Result<Replayed, ReplayError> {
    streams(&|| scenario(model), policy, &Options::default(), stop)
}

/// A scenario under a policy, as streams.
pub(crate) fn streams_of(
    scenario: &dyn Fn() -> Scenario,
    name: &str,
    options: &Options,
) -> Result<Replayed, ReplayError> {
    streams(scenario, name, options, &Stop::new())
}

fn streams(
    scenario: &dyn Fn() -> Scenario,
    name: &str,
    options: &Options,
    stop: &Stop,
) -> Result<Replayed, ReplayError> {
    let again = scenario;
    let scenario = scenario();
    let setup = Arc::clone(&scenario.setup);
    let mut policy = (find(name).unwrap().build)(options).unwrap();
    let layout = policy.layout(&setup).unwrap();
    let mut gpu = CudaDevice::open(0, Granularity::Fine).unwrap();
    let works = runnable::works(&setup).unwrap();
    let masks = match policy.depth() {
        Depth::Kernel => {
            let mut policy_again = (find(name).unwrap().build)(options).unwrap();
            drive::foresee(again(), &mut *policy_again, 64)
        }
        _ => vec![],
    };
    let streams = Streams::new(&mut gpu, Kernels::Works(works), setup.code.kernels.len());
    let mut streams = streams.expecting(masks);
    drive::run(scenario, &mut *policy, &layout, &mut streams, None, stop)
}

#[test]
fn policies_drive_streams_and_green_contexts() {
    with_stand_in("policies_drive_streams_and_green_contexts", || {
        for name in ["mps", "mps-static", "krisp", "eclip", "coalesce", "streams"] {
            let Replayed { report, lateness, .. } = replay(name).unwrap();
            let done: Vec<u64> = report.tenants.iter().map(|t| t.counts.completed).collect();
            eprintln!("{name}: completed {done:?}, {:?}", report.counters);
            for tenant in &report.tenants {
                let c = &tenant.counts;
                assert!(c.completed > 0, "{name}: {done:?}");
                assert_eq!(c.offered, c.completed + c.dropped_total() + tenant.in_flight);
            }
            // What a GPU does not tell is not a number.
            assert!(report.gpu.cu_utilization.is_nan());
            assert!(!lateness.arrivals.is_empty());
            let changes = report.counter("queue_changes").unwrap_or(0.0);
            assert_eq!(changes > 0.0, matches!(name, "krisp" | "eclip"), "{name}: {changes}");
            assert_eq!(alive(), (0, 0), "{name}: everything is given back, in order");
        }
    });
}

/// What needs nothing but streams, priorities, partitions and the moment of a launch.
#[test]
fn schedulers_of_kernels_and_requests_drive_streams() {
    with_stand_in("schedulers_of_kernels_and_requests_drive_streams", || {
        let text = |name, word: &str| Some((name, Value::Text(word.to_owned())));
        let rows = [
            ("serve", None),
            ("serve", text("order", "edf")),
            ("overlap", None),
            ("orion", None),
            ("reef", text("variant", "n")),
            ("lithos", None),
            ("xsched", Some(("level", Value::Integer(1)))),
            ("hami", text("sharing", "mps")),
        ];
        for (name, option) in rows {
            let Replayed { report, .. } = beside_effort(name, option).unwrap();
            let done: Vec<u64> = report.tenants.iter().map(|t| t.counts.completed).collect();
            eprintln!("{name}: completed {done:?}, {:?}", report.counters);
            for tenant in &report.tenants {
                let c = &tenant.counts;
                assert!(c.completed > 0, "{name}: {done:?}");
                assert_eq!(c.offered, c.completed + c.dropped_total() + tenant.in_flight);
            }
            assert_eq!(alive(), (0, 0), "{name}: everything is given back, in order");
        }
    });
}

/// And what does not says what it would take.
#[test]
fn what_takes_kernels_off_a_gpu_is_refused_by_name() {
    with_stand_in("what_takes_kernels_off_a_gpu_is_refused_by_name", || {
        let level = |n| Some(("level", Value::Integer(n)));
        let scaling = Some(("scaling", Value::Bool(true)));
        let short = Some(("turnaround", Value::Duration(Nanos::from_micros(5))));
        let refused = [
            ("reef", None, "killing a kernel"),
            ("tally", short, "stopping a kernel between its blocks"),
            ("xsched", level(2), "taking a launched kernel back"),
            ("xsched", level(3), "saving a running kernel"),
            ("lithos", scaling, "a clock of"),
        ];
        for (name, option, what) in refused {
            let run = || beside_effort(name, option.clone()).map(|r| r.report);
            let why = (0..10).find_map(|_| match run() {
                Err(why) => Some(why.to_string()),
                // It comes with the first kernel that is to go. On a quiet machine the stand-in's have all
                // ended by the time that somebody wants them gone: then none was taken.
                Ok(report) => {
                    let mut taken = ["killed", "preempted"].map(|n| report.counter(n)).into_iter();
                    assert!(taken.any(|n| n == Some(0.0)), "{name}: {:?}", report.counters);
                    None
                }
            });
            let Some(why) = why else { continue };
            eprintln!("{why}");
            assert!(why.contains(what), "{what}: {why}");
        }
        assert_eq!(alive(), (0, 0));
    });
}

#[test]
fn matrix_products_of_two_tenants_become_one_launch() {
    with_stand_in("matrix_products_of_two_tenants_become_one_launch", || {
        let always = Options(vec![("gate".to_owned(), Value::Text("always".to_owned()))]);
        let Replayed { report, .. } = with_options("coalesce", "resnet18@64", always).unwrap();
        let counted = |name: &str| report.counter(name).unwrap_or(0.0);
        assert!(counted("merged_kernels") > 0.0, "{:?}", report.counters);
        // Convolutions have no common launch here: they go one after the other, and are counted.
        assert!(counted("merges_one_by_one") > 0.0, "{:?}", report.counters);
        assert_eq!(alive(), (0, 0));
    });
}

#[test]
fn what_one_process_cannot_arrange_is_refused_by_name() {
    with_stand_in("what_one_process_cannot_arrange_is_refused_by_name", || {
        let refused = |name: &str| replay(name).unwrap_err().to_string();
        assert!(refused("temporal").contains("contexts that take turns need a process each"));
        assert!(refused("mps-percent").contains("caps that overlap need a process each"));
        assert!(refused("mig").contains("hardware instances need a process each"));
        assert_eq!(alive(), (0, 0));
    });
}

#[test]
fn a_profile_from_elsewhere_is_refused_with_the_remedy() {
    let mut scenario = scenario("squeezenet1_1@64");
    let setup = Arc::get_mut(&mut scenario.setup).unwrap();
    Arc::make_mut(&mut setup.code).kernels[0].id = "ampere_sgemm".to_owned();
    let why = runnable::works(setup).unwrap_err().to_string();
    assert!(why.contains("`ampere_sgemm`") && why.contains("profile collect"), "{why}");
}

#[test]
fn a_live_repartition_moves_streams_to_other_green_contexts() {
    with_stand_in("a_live_repartition_moves_streams_to_other_green_contexts", || {
        let uneven = || {
            let mut scenario = scenario("squeezenet1_1@64");
            let think = Think::Constant(Nanos::from_millis(50));
            scenario.loads[1] =
                Load::Closed { concurrency: 1, think, items: 1, limit: None, tokens: None };
            scenario
        };
        let period = Value::Duration(Nanos::from_millis(200));
        let options = Options(vec![("rebalance".to_owned(), period)]);
        let done = streams_of(&uneven, "mps-static", &options).unwrap();
        let times = done.report.counter("repartitions");
        assert!(times.is_some_and(|n| n >= 1.0), "{:?}", done.report.counters);
        for tenant in &done.report.tenants {
            assert!(tenant.counts.reconfigurations >= 1);
            assert!(tenant.counts.completed > 1, "{}", tenant.counts.completed);
        }
    });
}
