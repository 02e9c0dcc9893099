//! The real CUDA code of cotenant against the stand-in driver: order of calls, clean-up, errors.
//!
//! Every test runs in a process of its own, whose loader finds the stand-in under the driver's name.

use cotenant_profiles::lower::Precision;
use cotenant_profiles::{Bytes, Nanos, zoo};
use cotenant_replay::cuda::{CudaDevice, Granularity, probe};
use cotenant_replay::device::{Direction, Launch};
use cotenant_replay::work::{Task, launches};
use cotenant_replay::{Device, DeviceError, Kind, Unavailable, Work};
use cotenant_sim::mask::CuMask;

use crate::stand_in::{alive, calls, with_stand_in};

fn spin(blocks: u32, ns: u64) -> Work {
    Work::new(Task::Spin { blocks, ns }, Precision::Fp32)
}

#[test]
fn partitions_stretch_kernels_and_all_is_cleaned_up_in_order() {
    with_stand_in!("partitions_stretch_kernels_and_all_is_cleaned_up_in_order", &[], || {
        let mut gpu = CudaDevice::open(0, Granularity::Fine).unwrap();
        assert_eq!((gpu.info().cus, gpu.info().grain, gpu.info().kind), (132, 2, Kind::StandIn));
        assert!(gpu.info().require_gpu().is_err(), "never a measurement");
        let part = gpu.partition(66, 34).unwrap();
        assert_eq!(part.granted, 34);
        let whole = gpu.whole();
        let (all, some) = (gpu.queue(whole, 0).unwrap(), gpu.queue(part, 3).unwrap());
        let (a, b) = (
            gpu.prepare(all, &spin(132, 2_000_000)).unwrap(),
            gpu.prepare(some, &spin(132, 2_000_000)).unwrap(),
        );
        let (first, second) = (gpu.launch(a).unwrap(), gpu.launch(b).unwrap());
        let mut ended = Vec::new();
        gpu.poll(&mut ended).unwrap();
        assert!(ended.is_empty(), "polling does not wait");
        gpu.wait(&mut ended).unwrap();
        ended.sort_by_key(|c| c.ticket);
        assert_eq!(ended.iter().map(|c| c.ticket).collect::<Vec<_>>(), [first, second]);
        // One wave on 132 SMs, four on 34; the stand-in's clock goes on between two records.
        let ms = |i: usize| ended[i].duration.as_millis_f64();
        assert!((2.0..4.0).contains(&ms(0)) && (8.0..10.0).contains(&ms(1)), "{ended:?}");
        drop(gpu);
        assert_eq!(alive(), (0, 0), "{:#?}", calls());
        let calls = calls();
        let at = |name: &str| calls.iter().rposition(|c| c == name).unwrap();
        assert!(at("cuEventDestroy_v2") < at("cuGreenCtxDestroy"));
        assert!(at("cuStreamDestroy_v2") < at("cuGreenCtxDestroy"), "else the stream leaks");
        assert!(at("cuGreenCtxDestroy") < at("cuDevicePrimaryCtxRelease_v2"));
        assert!(at("cuModuleUnload") < at("cuDevicePrimaryCtxRelease_v2"));
        let retained = calls.iter().position(|c| c == "cuDevicePrimaryCtxRetain").unwrap();
        let green = calls.iter().position(|c| c == "cuGreenCtxCreate").unwrap();
        assert!(retained < green, "the primary context comes first");
        let splits = calls.iter().filter(|c| *c == "cuDevSmResourceSplitByCount").count();
        assert_eq!(splits, 2, "one cut: counted, then made");
        // Priority 3 is the driver's -3: smaller goes first there.
        assert!(calls.windows(2).any(|w| w == ["cuGreenCtxStreamCreate", "  priority -3"]));
    });
}

#[test]
fn coarse_atoms_are_groups_of_eight() {
    with_stand_in!("coarse_atoms_are_groups_of_eight", &[], || {
        let mut gpu = CudaDevice::open(0, Granularity::Coarse).unwrap();
        assert_eq!((gpu.info().grain, gpu.divisible_cus()), (8, 128));
        assert_eq!(gpu.partition(8, 16).unwrap().granted, 16);
        for (first, cus) in [(0, 4), (4, 8), (0, 0), (128, 8), (0, 136), (u32::MAX - 7, 8)] {
            let error = gpu.partition(first, cus).unwrap_err();
            assert!(matches!(error, DeviceError::BadPartition { .. }), "{first} {cus}: {error}");
        }
    });
}

#[test]
fn partitions_are_made_of_any_atoms_once_each() {
    with_stand_in!("partitions_are_made_of_any_atoms_once_each", &[], || {
        let mut gpu = CudaDevice::open(0, Granularity::Fine).unwrap();
        let mask = |cus: &[u32]| {
            let mut mask = CuMask::EMPTY;
            cus.iter().for_each(|c| mask.insert(*c));
            mask
        };
        let whole = gpu.whole();
        let spread = gpu.subset(whole, &mask(&[0, 1, 10, 11, 130, 131])).unwrap();
        assert_eq!(spread.granted, 6);
        assert_eq!(gpu.subset(whole, &mask(&[10, 11, 0, 1, 130, 131])).unwrap(), spread);
        // Numbers count within the partition: its third and fourth SM are the device's 10 and 11.
        let inner = gpu.subset(spread, &mask(&[2, 3])).unwrap();
        assert_eq!(inner, gpu.subset(whole, &mask(&[10, 11])).unwrap());
        assert_eq!(inner, gpu.partition(10, 2).unwrap());
        assert_eq!(gpu.subset(whole, &CuMask::first(132)).unwrap(), whole);
        let made = calls().iter().filter(|c| *c == "cuGreenCtxCreate").count();
        assert_eq!(made, 2, "what is there is used again");
        for (within, cus) in [(whole, vec![3]), (whole, vec![2, 3, 5]), (inner, vec![0, 1, 2, 3])] {
            let error = gpu.subset(within, &mask(&cus)).unwrap_err();
            assert!(matches!(error, DeviceError::BadPartition { .. }), "{cus:?}: {error}");
        }
        assert!(gpu.subset(whole, &CuMask::EMPTY).is_err());
        drop(gpu);
        assert_eq!(alive(), (0, 0));
    });
}

#[test]
fn copies_go_through_pinned_memory_and_end_in_order() {
    with_stand_in!("copies_go_through_pinned_memory_and_end_in_order", &[], || {
        let mut gpu = CudaDevice::open(0, Granularity::Fine).unwrap();
        let queue = gpu.queue(gpu.whole(), 0).unwrap();
        let copy = |gpu: &mut CudaDevice, way, bytes| {
            gpu.copy(queue, way, Bytes(bytes), Nanos::ZERO).unwrap()
        };
        // The stand-in copies 50 bytes a nanosecond.
        let (small, large) =
            (copy(&mut gpu, Direction::In, 4096), copy(&mut gpu, Direction::Out, 100 << 20));
        let mut ended = Vec::new();
        gpu.wait(&mut ended).unwrap();
        ended.sort_by_key(|c| c.ticket);
        assert_eq!(ended.iter().map(|c| c.ticket).collect::<Vec<_>>(), [small, large]);
        assert!(ended[1].duration.0 >= 100 * (1 << 20) / 50, "{ended:?}");
        // By the events' own time: as far apart as the second one is long, at least.
        assert!(ended[1].at.0 >= ended[0].at.0 + 2_000_000, "{ended:?}");
        drop(gpu);
        assert_eq!(alive(), (0, 0));
    });
}

/// A plan has one workspace: its next launch, in another stream, waits for the one before.
#[test]
fn a_workspace_belongs_to_one_launch_at_a_time() {
    with_stand_in!("a_workspace_belongs_to_one_launch_at_a_time", &[], || {
        let mut gpu = CudaDevice::open(0, Granularity::Fine).unwrap();
        let part = gpu.partition(0, 4).unwrap();
        let queues = [gpu.queue(part, 0).unwrap(), gpu.queue(gpu.whole(), 0).unwrap()];
        // Longer on four SMs than the host takes to launch the next one.
        let product = Task::Gemm { m: 1024, n: 1024, k: 1024, count: 1 };
        let convolution = launches(&zoo::find("vgg16").unwrap(), 1, Precision::Fp32).remove(0);
        assert!(matches!(convolution.task, Task::Conv { .. }), "{convolution:?}");
        for work in [Work::new(product, Precision::Fp32), convolution] {
            let prepared = gpu.prepare(queues[0], &work).unwrap();
            for queue in [queues, queues].concat() {
                gpu.submit_on(queue, &Launch::of(prepared)).unwrap();
            }
        }
        gpu.wait(&mut Vec::new()).unwrap();
        drop(gpu);
        assert_eq!(alive(), (0, 0), "{:#?}", calls());
    });
}

#[test]
fn a_partition_that_is_not_granted_is_an_error() {
    let grant = [("FAKECUDA_GRANT", "36")];
    with_stand_in!("a_partition_that_is_not_granted_is_an_error", &grant, || {
        let mut gpu = CudaDevice::open(0, Granularity::Fine).unwrap();
        let error = gpu.partition(0, 34).unwrap_err();
        assert_eq!(error, DeviceError::NotGranted { asked: 34, granted: 36 });
        drop(gpu);
        assert_eq!(alive(), (0, 0));
    });
}

/// Drivers differ in whether a green context's stream takes an event of the primary context.
#[test]
fn partitions_tell_time_where_events_belong_to_one_context() {
    let own = [("FAKECUDA_EVENTS", "own")];
    with_stand_in!("partitions_tell_time_where_events_belong_to_one_context", &own, || {
        let mut gpu = CudaDevice::open(0, Granularity::Fine).unwrap();
        let part = gpu.partition(0, 4).unwrap();
        let queues = [gpu.queue(part, 0).unwrap(), gpu.queue(gpu.whole(), 0).unwrap()];
        let mut ended = Vec::new();
        for _ in 0..2 {
            for queue in queues {
                let work = gpu.prepare(queue, &spin(1, 50_000)).unwrap();
                gpu.launch(work).unwrap();
            }
            gpu.wait(&mut ended).unwrap();
        }
        assert_eq!(ended.len(), 4);
        assert!(ended.iter().all(|c| c.duration.0 >= 50_000), "{ended:?}");
        drop(gpu);
        assert_eq!(alive(), (0, 0), "{:#?}", calls());
    });
}

#[test]
fn a_device_that_cannot_be_cut_still_runs_whole() {
    let fail = [("FAKECUDA_FAIL", "cuDevSmResourceSplitByCount:801:1")];
    with_stand_in!("a_device_that_cannot_be_cut_still_runs_whole", &fail, || {
        let mut gpu = CudaDevice::open(0, Granularity::Fine).unwrap();
        let why = |e: DeviceError| match e {
            DeviceError::Call { call, code, .. } => (call, code),
            other => panic!("{other}"),
        };
        let refused = ("cuDevSmResourceSplitByCount", 801);
        assert_eq!(why(gpu.partition(0, 4).unwrap_err()), refused, "never another one instead");
        assert_eq!(why(gpu.require_partitions().unwrap_err()), refused);
        let queue = gpu.queue(gpu.whole(), 0).unwrap();
        let work = gpu.prepare(queue, &spin(1, 1000)).unwrap();
        gpu.launch(work).unwrap();
        let mut ended = Vec::new();
        gpu.wait(&mut ended).unwrap();
        assert_eq!(ended.len(), 1);
        drop(gpu);
        assert_eq!(alive(), (0, 0));
    });
}

#[test]
fn a_driver_that_does_not_start_is_named_with_its_code() {
    let fail = [("FAKECUDA_FAIL", "cuInit:100")];
    with_stand_in!("a_driver_that_does_not_start_is_named_with_its_code", &fail, || {
        assert_eq!(probe(), Err(Unavailable::InitFailed { code: 100 }));
    });
}

/// Whatever call fails: an error that names it, and nothing left behind.
fn fails_cleanly(test: &str, call: &str, nth: &str) {
    let plan = format!("{call}:2:{nth}");
    with_stand_in!(test, &[("FAKECUDA_FAIL", &plan)], || {
        let run = || -> Result<(), DeviceError> {
            let mut gpu = CudaDevice::open(0, Granularity::Fine)?;
            let part = gpu.partition(0, 4)?;
            let queue = gpu.queue(part, 0)?;
            let work = Work::new(Task::Softmax { rows: 8, width: 64 }, Precision::Fp32);
            let prepared = gpu.prepare(queue, &work)?;
            gpu.launch(prepared)?;
            gpu.wait(&mut Vec::new())
        };
        let error = run().unwrap_err();
        assert!(
            matches!(&error, DeviceError::Call { call: c, code: 2, .. } if *c == call),
            "{error}"
        );
        assert_eq!(alive(), (0, 0), "{:#?}", calls());
    });
}

macro_rules! failing {
    ($($test:ident: $call:literal, $nth:literal;)*) => {$(
        #[test]
        fn $test() {
            fails_cleanly(stringify!($test), $call, $nth);
        }
    )*};
}
failing! {
    failing_context: "cuCtxSetCurrent", "1";
    failing_green_context: "cuGreenCtxCreate", "1";
    failing_read_back: "cuGreenCtxGetDevResource", "1";
    failing_stream: "cuGreenCtxStreamCreate", "1";
    failing_module: "cuModuleLoadData", "1";
    failing_memory: "cuMemAlloc_v2", "2";
    failing_copy: "cuMemcpyHtoD_v2", "1";
    failing_launch: "cuLaunchKernel", "1";
    failing_event: "cuEventRecord", "2";
    failing_elapsed: "cuEventElapsedTime_v2", "1";
}

#[test]
fn every_kernel_of_the_zoo_is_prepared_launched_and_released() {
    with_stand_in!("every_kernel_of_the_zoo_is_prepared_launched_and_released", &[], || {
        let mut gpu = CudaDevice::open(0, Granularity::Fine).unwrap();
        let part = gpu.partition(0, 66).unwrap();
        let queue = gpu.queue(part, 0).unwrap();
        // One of every kind: the sizes are the same code.
        let mut known: Vec<String> = Vec::new();
        let mut ended = Vec::new();
        for model in ["shufflenet", "mobilenet", "bert@16", "densenet", "gpt2@16", "inception@75"] {
            for work in launches(&zoo::find(model).unwrap(), 1, Precision::Fp16) {
                let kind: String = work.id.chars().take_while(|c| !c.is_ascii_digit()).collect();
                if known.contains(&kind) {
                    continue;
                }
                let prepared = gpu.prepare(queue, &work).unwrap_or_else(|e| panic!("{e}"));
                gpu.launch(prepared).unwrap();
                gpu.release(prepared).unwrap();
                assert!(gpu.launch(prepared).is_err(), "it is gone");
                known.push(kind);
            }
        }
        gpu.wait(&mut ended).unwrap();
        assert_eq!(ended.len(), known.len());
        assert!(known.len() >= 18, "{known:?}");
        assert!(calls().iter().any(|c| c == "  SM_COUNT_TARGET 66"), "the library is told");
        drop(gpu);
        assert_eq!(alive(), (0, 0));
    });
}

#[test]
fn measuring_knows_its_own_cost() {
    with_stand_in!("measuring_knows_its_own_cost", &[], || {
        let mut gpu = CudaDevice::open(0, Granularity::Fine).unwrap();
        let overhead = gpu.overhead().unwrap();
        assert!(overhead.launch.0 > 0 && overhead.launch.as_millis_f64() < 100.0, "{overhead:?}");
        drop(gpu);
        assert_eq!(alive(), (0, 0));
    });
}
