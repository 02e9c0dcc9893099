//! Worker processes with a context each on the CUDA device, against the stand-in driver: turns
//! without MPS, shares under a stand-in control program, and MPS that is missing or dies.
#![allow(clippy::print_stderr)] // helpers of tests

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::channel;

use cotenant_profiles::curve::Point;
use cotenant_profiles::kernel::Launch;
use cotenant_profiles::lower::Precision;
use cotenant_profiles::{Bytes, Curve, Device as Gpu, Kernel, Model, Nanos, Profile, Source, zoo};
use cotenant_replay::cuda::{CudaDevice, Granularity};
use cotenant_replay::drive::{self, ReplayError, Replayed, Stop};
use cotenant_replay::process::{
    Ground, Launcher, Patience, Processes, cannot_run_on_a_gpu, child, needs_processes,
};
use cotenant_replay::{Device, mps, runnable, work};
use cotenant_sim::Class;
use cotenant_sim::contention::ContentionModel;
use cotenant_sim::policy::{Options, Value, find};
use cotenant_sim::program::Code;
use cotenant_sim::scenario::{Load, Scenario, Setup, Tenant, Think};

use crate::stand_in::with_stand_in_of;

/// Runs `body` in a child process with the stand-in on the loader's path.
fn with_stand_in(test: &str, body: impl FnOnce()) {
    with_stand_in_of((module_path!(), test), &[], body);
}

/// What the workers of the other tests run; on its own it does nothing.
#[test]
fn worker() {
    if std::env::var_os("COTENANT_STAND_IN").is_some() {
        child::run().unwrap();
    }
}

/// Kernels named after runnable work. Their times are made up.
fn scenario() -> Scenario {
    let device = Gpu::builtin("h100-sxm").unwrap();
    let spec = zoo::find("alexnet").unwrap();
    let mut kernels: BTreeMap<String, Kernel> = BTreeMap::new();
    let works = work::launches(&spec, 1, Precision::Fp32);
    for w in &works {
        let point = |c: u32| Point::exact(c, 10_000 + 400_000 / u64::from(c));
        let kernel = Kernel {
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
        };
        kernels.insert(w.id.clone(), kernel);
    }
    let ids: Vec<String> = kernels.keys().cloned().collect();
    let launch = |w: &cotenant_replay::Work| Launch {
        kernel: ids.iter().position(|id| *id == w.id).unwrap(),
        host: Nanos(4_000),
    };
    let model = Model {
        name: "alexnet".to_owned(),
        weights: Bytes(1 << 20),
        activations_per_item: Bytes(1 << 20),
        input_per_item: Bytes(600_000),
        output_per_item: Bytes(4_000),
        load: Nanos::ZERO,
        host_per_request: Nanos::ZERO,
        batches: BTreeMap::from([(1, works.iter().map(launch).collect())]),
    };
    let profile = Profile {
        device: "h100-sxm".to_owned(),
        source: Source::Analytic,
        provenance: BTreeMap::new(),
        kernels: kernels.into_values().collect(),
        models: BTreeMap::from([("alexnet".to_owned(), model)]),
        corun: vec![],
    };
    let mut code = Code::default();
    let tenants = ["a", "b"].map(|tenant| Tenant {
        name: tenant.to_owned(),
        model: code.compile(&profile, "alexnet", 1, device.cus()).unwrap(),
        class: Class::Latency,
        slo: None,
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
    let (costs, tenants) = (device.costs.clone(), tenants.to_vec());
    Scenario {
        loads: vec![load(), load()],
        contention: ContentionModel::None,
        setup: Arc::new(Setup { costs, device, code: code.into(), tenants }),
        warmup: Nanos::ZERO,
        duration: Nanos::from_secs(1),
        jitter: None,
    }
}

/// A second of `policy` with two tenants, a process each, under the stand-in control program
/// `control`.
pub(crate) fn replay_processes(policy: &str, control: &str) -> Result<Replayed, ReplayError> {
    replay(policy, control)
}

/// Why a run ended that was stopped while its workers started.
pub(crate) fn stopped_while_starting(policy: &str) -> String {
    let stop = Stop::new();
    let asks = stop.clone();
    let asking = std::thread::spawn(move || {
        std::thread::sleep(std::time::Duration::from_millis(500));
        asks.now();
    });
    let error = until(policy, "control", &stop).unwrap_err().to_string();
    asking.join().unwrap();
    error
}

fn replay(policy: &str, control: &str) -> Result<Replayed, ReplayError> {
    until(policy, control, &Stop::new())
}

fn until(policy: &str, control: &str, stop: &Stop) -> Result<Replayed, ReplayError> {
    processes_of(scenario(), policy, control, stop)
}

/// A scenario under a policy, a process for each worker.
pub(crate) fn processes_of(
    scenario: Scenario,
    policy: &str,
    control: &str,
    stop: &Stop,
) -> Result<Replayed, ReplayError> {
    let setup = Arc::clone(&scenario.setup);
    let mut policy = (find(policy).unwrap().build)(&Options::default()).unwrap();
    let layout = policy.layout(&setup).unwrap();
    assert!(needs_processes(policy.depth(), &layout));
    let info = CudaDevice::open(0, Granularity::Fine).unwrap().info().clone();
    let works = runnable::works(&setup).unwrap();
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/mps");
    let options = mps::Options { program: Some(tests.join(control)), ..mps::Options::default() };
    let launcher = Launcher {
        program: std::env::current_exe().unwrap(),
        arguments: ["processes::worker", "--exact", "--nocapture"].map(Into::into).to_vec(),
    };
    let ground = Ground::cuda(0, info, works, options);
    let mut workers = Processes::new(setup, ground, launcher, Patience::default());
    let (told, started) = channel();
    workers.announce(told);
    let done = drive::run(scenario, &mut *policy, &layout, &mut workers, None, stop);
    drop(workers);
    for (worker, id) in started {
        assert!(!Path::new(&format!("/proc/{id}")).exists(), "worker {worker} is left behind");
    }
    done
}

#[test]
fn contexts_of_their_own_and_shares_under_mps() {
    with_stand_in("contexts_of_their_own_and_shares_under_mps", || {
        for policy in ["temporal", "mps-percent"] {
            let Replayed { report, losses, .. } = replay(policy, "control").unwrap();
            assert_eq!(losses, [], "{policy}");
            for tenant in &report.tenants {
                let c = &tenant.counts;
                assert!(c.completed > 0, "{policy}");
                assert_eq!(c.offered, c.completed + c.dropped_total() + tenant.in_flight);
            }
            eprintln!("{policy}: {:?}", report.counters);
            assert!(report.gpu.cu_utilization.is_nan(), "a GPU does not tell");
        }
    });
}

#[test]
fn mps_that_is_missing_dies_or_serves_nobody_is_named() {
    with_stand_in("mps_that_is_missing_dies_or_serves_nobody_is_named", || {
        let why = |control| replay("mps-percent", control).unwrap_err().to_string();
        assert!(why("no-such-program").contains("nvidia-cuda-mps-control is not"));
        assert!(why("dies").contains("the MPS daemon ended with status 7: no device to share"));
        let died = why("dies-later");
        assert!(died.contains("MPS daemon"), "{died}");
        let none = why("no-server");
        assert!(none.contains("what ran, ran without MPS"), "{none}");
        let left = std::fs::read_dir(std::env::temp_dir()).unwrap().filter_map(Result::ok);
        let mine = format!("cotenant-mps-{}-", std::process::id());
        let left = left.filter(|f| f.file_name().to_string_lossy().starts_with(&mine)).count();
        assert_eq!(left, 0, "a daemon's folder is left behind");
    });
}

/// It caps its servers and launches each of their kernels itself: no process can do both.
#[test]
fn autotune_says_why_it_runs_on_no_gpu() {
    let setup = scenario().setup;
    let options = Options(vec![("servers".to_owned(), Value::Integer(2))]);
    let mut policy = (find("autotune").unwrap().build)(&options).unwrap();
    let layout = policy.layout(&setup).unwrap();
    let why = cannot_run_on_a_gpu(policy.depth(), &layout).unwrap();
    assert!(why.contains("a cap takes a process under MPS") && why.contains("emulated"), "{why}");
    // Shares without kernels of its own are a process for each.
    let mut shares = (find("mps-percent").unwrap().build)(&Options::default()).unwrap();
    let layout = shares.layout(&setup).unwrap();
    assert_eq!(cannot_run_on_a_gpu(shares.depth(), &layout), None);
    assert!(needs_processes(shares.depth(), &layout));
}
