//! What real drivers do that a polite stand-in does not: each test fails where cotenant trusts them.
#![allow(clippy::print_stderr)] // helpers of tests

use std::time::Duration;

use cotenant_profiles::lower::Precision;
use cotenant_profiles::{Profile, files};
use cotenant_replay::collect::{Collected, Request, collect};
use cotenant_replay::cuda::{CudaDevice, Granularity};
use cotenant_replay::drive::{Kernels, Launch, Replayed, Stop, Streams, Workers};
use cotenant_replay::work::{Task, launches};
use cotenant_replay::{Device, Work};
use cotenant_sim::CuMask;
use cotenant_sim::host::Part;
use cotenant_sim::policy::{Options, find};

use crate::processes::{replay_processes, stopped_while_starting};
use crate::replay::{replay_streams, scenario, streams_until};
use crate::stand_in::{alive, calls, with_stand_in};

fn request(model: &str, cus: &[u32]) -> Request {
    Request {
        models: vec![model.to_owned()],
        cus: cus.to_vec(),
        samples: 3,
        ..crate::collect::request()
    }
}

fn collected(request: &Request) -> (Collected, Profile, Vec<String>) {
    let folder = tempfile::tempdir().unwrap();
    let collected = collect(request, folder.path(), &mut |_| {}).unwrap_or_else(|e| panic!("{e}"));
    let journal = std::fs::read_to_string(folder.path().join("visits.jsonl")).unwrap();
    let lines = journal.lines().map(str::to_owned).collect();
    (collected, files::read(folder.path()).unwrap(), lines)
}

/// Work launched in a partition must lie between events of that partition's stream.
#[test]
fn convolutions_run_where_their_events_are() {
    with_stand_in!("convolutions_run_where_their_events_are", &[], || {
        for policy in ["krisp", "eclip"] {
            let replayed = replay_streams(policy, "squeezenet1_1@64").unwrap();
            assert!(replayed.report.tenants.iter().all(|t| t.counts.completed > 0));
            let convolutions = calls().iter().filter(|c| *c == "cudnnConvolutionForward").count();
            assert!(convolutions > 100, "{convolutions}");
            let wrong = calls().iter().filter(|c| c.starts_with("wrong: the work")).count();
            assert_eq!(wrong, 0, "{policy}: {convolutions} convolutions");
        }
    });
}

/// A handle of cuDNN may take streams of the context alone that it was made in.
#[test]
fn a_convolution_finds_a_handle_in_every_partition() {
    let nasty = [("FAKECUDA_NASTY", "dnn=own"), ("FAKECUDA_EVENTS", "own")];
    with_stand_in!("a_convolution_finds_a_handle_in_every_partition", &nasty, || {
        let replayed = replay_streams("krisp", "squeezenet1_1@64").unwrap();
        assert!(replayed.report.tenants.iter().all(|t| t.counts.completed > 0));
        assert_eq!(alive(), (0, 0), "everything is given back, in order");
    });
}

#[test]
fn a_kernel_that_fails_is_a_line_and_the_others_are_measured() {
    let nasty = [("FAKECUDA_NASTY", "refuse=pool")];
    with_stand_in!("a_kernel_that_fails_is_a_line_and_the_others_are_measured", &nasty, || {
        let (collected, profile, lines) = collected(&request("squeezenet1_1@64", &[66]));
        assert!(!collected.incomplete.is_empty(), "the model lacks a kernel");
        assert!(profile.kernels.len() > 10, "{}", profile.kernels.len());
        assert!(profile.kernels.iter().all(|k| !k.id.contains("pool")));
        let failed = lines.iter().filter(|l| l.contains("cuLaunchKernel failed: 1")).count();
        assert!(failed >= 2, "whole and half are lines: {failed}");
    });
}

/// Pairs of a kernel that does not bear a neighbour are lines with their reason; the others are measured
/// and assembled, and a second run tries none of them again.
#[test]
fn a_pair_that_fails_is_a_line_and_the_others_are_measured() {
    let nasty = [("FAKECUDA_NASTY", "beside=convolution")];
    with_stand_in!("a_pair_that_fails_is_a_line_and_the_others_are_measured", &nasty, || {
        let request = Request { corun_kernels: 7, ..request("alexnet", &[66]) };
        let folder = tempfile::tempdir().unwrap();
        let pairs = || {
            let text = std::fs::read_to_string(folder.path().join("pairs.jsonl")).unwrap();
            let lines = text.lines().skip(1).map(|l| serde_json::from_str(l).unwrap());
            lines.collect::<Vec<serde_json::Value>>()
        };
        let collected = collect(&request, folder.path(), &mut |_| {}).unwrap();
        assert_eq!((&collected.incomplete[..], collected.pairs_left), (&[][..], 0));
        let (failed, measured): (Vec<_>, Vec<_>) =
            pairs().into_iter().partition(|p| p["failed"].is_string());
        eprintln!("{} pairs failed, {} were measured", failed.len(), measured.len());
        assert!(!failed.is_empty() && !measured.is_empty());
        assert!(failed.iter().all(|p| p["failed"].as_str().unwrap().contains("cudnnConvolution")));
        let profile = files::read(folder.path()).unwrap();
        // Two that a busy machine has not run at the same time have no durations.
        assert!((1..=measured.len()).contains(&profile.corun.len()), "{}", profile.corun.len());
        let fails = |kernel: usize| profile.kernels[kernel].id.starts_with("conv");
        assert!(profile.corun.iter().all(|p| !fails(p.a.0) && !fails(p.b.0)));
        let said = collected.failed.iter().filter(|l| l.contains(" beside conv")).count();
        assert!(said > 0, "{:?}", collected.failed);
        collect(&request, folder.path(), &mut |_| {}).unwrap();
        assert_eq!(pairs().len(), failed.len() + measured.len());
    });
}

/// A fault that takes the context along ends the measuring, but what was measured is there.
#[test]
fn a_broken_context_ends_the_visits_and_not_the_profile() {
    let nasty = [("FAKECUDA_NASTY", "break=pool")];
    with_stand_in!("a_broken_context_ends_the_visits_and_not_the_profile", &nasty, || {
        let (collected, _, lines) = collected(&request("squeezenet1_1@64", &[66]));
        assert!(!collected.incomplete.is_empty());
        assert!(lines.iter().any(|l| l.contains("700")), "{lines:#?}");
    });
}

/// The best algorithm may want clusters that do not fit into a small partition.
#[test]
fn the_next_algorithm_is_taken_where_the_first_does_not_run() {
    let nasty = [("FAKECUDA_NASTY", "cluster=16")];
    with_stand_in!("the_next_algorithm_is_taken_where_the_first_does_not_run", &nasty, || {
        let (collected, profile, _) = collected(&request("alexnet@64", &[8]));
        assert!(collected.incomplete.is_empty(), "{:?}", collected.incomplete);
        for kernel in profile.kernels.iter().filter(|k| !k.curve.points().is_empty()) {
            assert_eq!(kernel.curve.points().len(), 2, "{}", kernel.id);
        }
    });
}

/// Clocks rise under load: there is some before anything is timed.
#[test]
fn the_gpu_is_kept_busy_before_anything_is_timed() {
    with_stand_in!("the_gpu_is_kept_busy_before_anything_is_timed", &[], || {
        let ramp = Duration::from_millis(50);
        collected(&Request { ramp, corun_kernels: 0, ..request("squeezenet1_1@64", &[66]) });
        let calls = calls();
        // What measuring costs by itself is measured first, with kernels that only wait.
        let first = calls.iter().position(|c| c == "  spin").unwrap();
        let load = calls[..first].iter().filter(|c| *c == "cublasLtMatmul").count();
        assert!(load >= 8, "{load} products");
    });
}

/// Who stops a collection has what was measured by then.
#[test]
fn a_stopped_collection_is_assembled() {
    with_stand_in!("a_stopped_collection_is_assembled", &[], || {
        let request = request("squeezenet1_1@64", &[66]);
        let folder = tempfile::tempdir().unwrap();
        let collected = collect(&request, folder.path(), &mut |p| {
            if p.done == 5 {
                request.stop.now();
            }
        });
        assert_eq!(collected.unwrap().profile.kernels.len(), 5);
        assert_eq!(files::read(folder.path()).unwrap().kernels.len(), 5);
    });
}

#[test]
fn a_coarse_cut_of_fewer_groups_than_it_should_have_is_measured_as_it_is() {
    let test = "a_coarse_cut_of_fewer_groups_than_it_should_have_is_measured_as_it_is";
    with_stand_in!(test, &[("FAKECUDA_NASTY", "groups=15")], || {
        let mut gpu = CudaDevice::open(0, Granularity::Coarse).unwrap();
        assert_eq!(gpu.divisible_cus(), 120);
        assert_eq!(gpu.partition(0, 120).unwrap().granted, 120);
        drop(gpu);
        let (collected, profile, lines) = collected(&request("alexnet@64", &[120, 128]));
        assert!(collected.incomplete.is_empty(), "{:?}", collected.incomplete);
        assert!(collected.failed.is_empty(), "{:?}", collected.failed);
        assert!(profile.kernels.iter().all(|k| k.curve.points().len() == 3));
        let coarse: Vec<_> = lines.iter().filter(|l| l.contains("\"coarse\":true")).collect();
        assert!(coarse.iter().all(|l| l.contains("\"cus\":120,")), "{coarse:#?}");
        assert_eq!(coarse.len(), profile.kernels.len());
    });
}

/// First launches load code: longer for all of a model than the run, which is one second long. What a
/// library does is tried when it is made ready, so that our own functions are what is left.
#[test]
fn cold_launches_are_over_before_the_run_begins() {
    let nasty = [("FAKECUDA_NASTY", "load=500")];
    with_stand_in!("cold_launches_are_over_before_the_run_begins", &nasty, || {
        let replayed = replay_streams("mps", "alexnet@64").unwrap();
        for tenant in &replayed.report.tenants {
            assert!(tenant.counts.completed > 20, "{}", tenant.counts.completed);
        }
    });
}

/// The same where each worker is a process.
#[test]
fn cold_launches_are_over_before_a_process_is_up() {
    let nasty = [("FAKECUDA_NASTY", "load=500")];
    with_stand_in!("cold_launches_are_over_before_a_process_is_up", &nasty, || {
        let replayed = replay_processes("temporal", "control").unwrap();
        for tenant in &replayed.report.tenants {
            assert!(tenant.counts.completed > 20, "{}", tenant.counts.completed);
        }
    });
}

/// Events of two contexts may not be comparable: times come from an anchor in the same context.
#[test]
fn partitions_tell_when_work_ended_by_their_own_events() {
    let nasty = [("FAKECUDA_NASTY", "apart"), ("FAKECUDA_EVENTS", "own")];
    with_stand_in!("partitions_tell_when_work_ended_by_their_own_events", &nasty, || {
        let mut gpu = CudaDevice::open(0, Granularity::Fine).unwrap();
        let part = gpu.partition(0, 4).unwrap();
        let queue = gpu.queue(part, 0).unwrap();
        let spin = Work::new(Task::Spin { blocks: 1, ns: 20_000_000 }, Precision::Fp32);
        let prepared = gpu.prepare(queue, &spin).unwrap();
        let mut ended = Vec::new();
        gpu.launch(prepared).unwrap();
        gpu.wait(&mut ended).unwrap();
        ended.clear();
        gpu.launch(prepared).unwrap();
        gpu.launch(prepared).unwrap();
        // Both have long ended when somebody looks.
        std::thread::sleep(Duration::from_millis(100));
        gpu.poll(&mut ended).unwrap();
        let apart = ended[1].at.0 - ended[0].at.0;
        assert!((19_000_000..30_000_000).contains(&apart), "{ended:?}");
        drop(gpu);
        assert_eq!(alive(), (0, 0));
    });
}

/// An end that no event tells is when it was seen, and is counted: nobody takes it for the moment itself.
#[test]
fn ends_that_no_event_tells_are_counted() {
    let nasty = [("FAKECUDA_NASTY", "apart=streams")];
    with_stand_in!("ends_that_no_event_tells_are_counted", &nasty, || {
        let mut gpu = CudaDevice::open(0, Granularity::Fine).unwrap();
        let queue = gpu.queue(gpu.whole(), 0).unwrap();
        let spin = Work::new(Task::Spin { blocks: 1, ns: 1_000 }, Precision::Fp32);
        let prepared = gpu.prepare(queue, &spin).unwrap();
        let mut ended = Vec::new();
        for _ in 0..3 {
            gpu.launch(prepared).unwrap();
            gpu.wait(&mut ended).unwrap();
        }
        assert!(ended.iter().all(|c| c.duration.0 < 1_000_000), "of one stream: {ended:?}");
        let mut counted = gpu.counters().into_iter();
        let as_seen = counted.find(|count| count.counter.name == "ends_told_as_seen");
        assert_eq!(as_seen.map(|count| count.amount.value()), Some(3.0));
        drop(gpu);
        assert_eq!(alive(), (0, 0));
    });
}

/// A context takes a second to go: whoever is killed before leaves a server of MPS with a dead client.
#[test]
fn workers_have_the_time_to_give_their_context_back() {
    let folder = tempfile::tempdir().unwrap();
    let ended = folder.path().join("ended");
    let path = ended.to_str().unwrap();
    let nasty = [("FAKECUDA_NASTY", "teardown=1000"), ("FAKECUDA_ENDED", path)];
    with_stand_in!("workers_have_the_time_to_give_their_context_back", &nasty, || {
        let path = std::env::var("FAKECUDA_ENDED").unwrap();
        let before = std::fs::read_to_string(&path).map_or(0, |t| t.lines().count());
        replay_processes("mps-percent", "control").unwrap();
        let lines = std::fs::read_to_string(&path).unwrap_or_default().lines().count() - before;
        // Two workers, and the device that is opened to look at it.
        assert_eq!(lines, 3);
    });
}

/// Who asks for the end while workers start is heard.
#[test]
fn a_stop_is_obeyed_while_workers_start() {
    let nasty = [("FAKECUDA_NASTY", "cold=20000")];
    with_stand_in!("a_stop_is_obeyed_while_workers_start", &nasty, || {
        let error = stopped_while_starting("temporal");
        assert!(error.contains("stopped"), "{error}");
    });
}

/// Who asks for the end inside of a worker's first launches is heard between two of them: in each process,
/// which then gives its context back instead of being killed.
#[test]
fn a_stop_is_obeyed_inside_the_first_launches_of_a_process() {
    let folder = tempfile::tempdir().unwrap();
    let ended = folder.path().join("ended");
    // All of them take longer than a worker may take to go.
    let nasty = [("FAKECUDA_NASTY", "cold=700"), ("FAKECUDA_ENDED", ended.to_str().unwrap())];
    with_stand_in!("a_stop_is_obeyed_inside_the_first_launches_of_a_process", &nasty, || {
        let error = stopped_while_starting("temporal");
        assert!(error.contains("stopped"), "{error}");
        let path = std::env::var("FAKECUDA_ENDED").unwrap();
        let text = std::fs::read_to_string(path).unwrap();
        // Two workers, and the device that is opened to look at it.
        assert_eq!(text.lines().count(), 3, "who is killed gives nothing back");
    });
}

/// The same where workers are streams of this process: while their kernels run for the first time, and
/// while partitions for foreseen masks are made.
#[test]
fn a_stop_is_obeyed_inside_the_first_launches_of_streams() {
    let test = "a_stop_is_obeyed_inside_the_first_launches_of_streams";
    with_stand_in!(test, &[("FAKECUDA_NASTY", "cold=20,create=50")], || {
        let count = |call: &str| calls().iter().filter(|c| *c == call).count();
        // The policy, the call at whose first sight the end is asked for, and how many of which call there
        // may be then, of so many more.
        for (policy, sign, call, most) in [
            ("mps", "cudnnConvolutionForward", "cudnnConvolutionForward", 20),
            ("krisp", "cuGreenCtxCreate", "cuGreenCtxCreate", 2),
        ] {
            let (seen, before) = (count(sign), count(call));
            let stop = Stop::new();
            let asks = stop.clone();
            let asking = std::thread::spawn(move || {
                while count(sign) == seen {
                    std::thread::sleep(Duration::from_millis(1));
                }
                asks.now();
            });
            let error = streams_until(policy, "squeezenet1_1@64", &stop).unwrap_err();
            asking.join().unwrap();
            assert!(error.to_string().contains("stopped"), "{policy}: {error}");
            let made = count(call) - before;
            eprintln!("{policy}: {made} of {call}");
            assert!(made <= most, "{policy}: {made} of {call}");
            assert_eq!(alive(), (0, 0), "{policy}: everything is given back");
        }
    });
}

/// Events take the GPU's time and the host's: neither belongs to a kernel.
#[test]
fn what_events_cost_is_in_no_duration_and_no_launch() {
    let nasty = [("FAKECUDA_NASTY", "gap=30000,record=200")];
    with_stand_in!("what_events_cost_is_in_no_duration_and_no_launch", &nasty, || {
        let mut gpu = CudaDevice::open(0, Granularity::Fine).unwrap();
        let overhead = gpu.overhead().unwrap();
        assert_eq!(overhead.events.0, 30_000);
        // Two records of 200 us against none.
        assert!(2 * overhead.plain.0 < overhead.launch.0, "{overhead:?}");
        drop(gpu);
        let (_, profile, lines) = collected(&request("squeezenet1_1@64", &[66]));
        assert!(lines[1].contains("\"events_ns\":30000"), "{}", lines[1]);
        let shortest = profile.kernels.iter().map(|k| k.curve.at(132)).min().unwrap();
        assert!(shortest < 30_000, "{shortest}");
        let launches = profile.models.values().flat_map(|m| m.batches.values()).flatten();
        let host = launches.map(|l| l.host.0).max().unwrap();
        assert!(host < 200_000, "{host} ns for a launch without events");
        let raw: serde_json::Value = serde_json::from_str(&lines[1]).unwrap();
        assert!(raw["ns"][0].as_u64().unwrap() > 30_000, "as measured: {raw}");
    });
}

/// A worker says how many CUs it was given.
#[test]
fn workers_on_other_cus_than_asked_are_counted() {
    let counted = |replayed: &Replayed| replayed.report.counter("workers_on_other_cus");
    let test = "workers_on_other_cus_than_asked_are_counted";
    with_stand_in!(test, &[("FAKECUDA_NASTY", "sms=64")], || {
        let replayed = replay_processes("mps-percent", "control").unwrap();
        assert_eq!(counted(&replayed), Some(2.0));
    });
}

/// Partitions take long to make: those that a policy will use are there before the run.
#[test]
fn partitions_are_made_before_the_run() {
    let nasty = [("FAKECUDA_NASTY", "create=20")];
    with_stand_in!("partitions_are_made_before_the_run", &nasty, || {
        let replayed = replay_streams("krisp", "squeezenet1_1@64").unwrap();
        eprintln!("{:?}", replayed.report.counters);
        let made = calls().iter().filter(|c| *c == "cuGreenCtxCreate").count() as f64;
        let late = replayed.report.counter("partitions_made").unwrap_or(0.0);
        assert!(made >= 2.0 && late < made, "{late} of {made} while it ran");
    });
}

#[test]
fn every_work_of_a_model_runs_on_small_partitions() {
    let nasty = [("FAKECUDA_NASTY", "cluster=16,dnn=own"), ("FAKECUDA_EVENTS", "own")];
    with_stand_in!("every_work_of_a_model_runs_on_small_partitions", &nasty, || {
        let mut gpu = CudaDevice::open(0, Granularity::Fine).unwrap();
        let part = gpu.partition(0, 2).unwrap();
        let queue = gpu.queue(part, 0).unwrap();
        let spec = cotenant_profiles::zoo::find("resnet18@64").unwrap();
        for work in launches(&spec, 1, Precision::Fp16) {
            let prepared = gpu.prepare(queue, &work).unwrap_or_else(|e| panic!("{}: {e}", work.id));
            gpu.launch(prepared).unwrap();
        }
        gpu.wait(&mut Vec::new()).unwrap();
        drop(gpu);
        assert_eq!(alive(), (0, 0));
    });
}

/// Masks that begin alike and have as many CUs are two masks.
#[test]
fn masks_are_compared_whole() {
    with_stand_in!("masks_are_compared_whole", &[], || {
        let mut gpu = CudaDevice::open(0, Granularity::Fine).unwrap();
        let spin = Work::new(Task::Spin { blocks: 1, ns: 1_000 }, Precision::Fp32);
        let mut streams = Streams::new(&mut gpu, Kernels::Works(vec![spin]), 1);
        let setup = scenario("squeezenet1_1@64").setup;
        let mut krisp = (find("krisp").unwrap().build)(&Options::default()).unwrap();
        let layout = krisp.layout(&setup).unwrap();
        let spec = layout.workers[0];
        streams.lay_out(&layout).unwrap();
        streams.open(0, &spec).unwrap();
        let masks = [0..8, 0..4].map(|first| first.collect::<CuMask>());
        let [together, mut apart] = masks;
        (8..12).for_each(|cu| apart.insert(cu));
        for mask in [together, apart, together] {
            let launch = Launch {
                worker: 0,
                kernel: 0,
                mask: Some(mask),
                priority: None,
                issued: 0,
                part: Part::WHOLE,
                scale: 1.0,
                first: true,
                last: true,
                tell: false,
            };
            streams.launch(&launch).unwrap();
        }
        streams.drain().unwrap();
        drop(streams);
        drop(gpu);
        let made = calls().iter().filter(|c| *c == "cuGreenCtxCreate").count();
        assert_eq!(made, 2, "a partition for each mask, and none twice");
        assert_eq!(alive(), (0, 0));
    });
}
