//! Host times: a request alone takes what the recording took.

use cotenant_profiles::Nanos;
use cotenant_profiles::import::StreamOptions;
use proptest::prelude::*;

use super::{alone_ns, import_text, launches_and_ns, options};

/// A run of `passes` equal passes under step marks, ns: each launch has the host's time before its
/// call, and the kernel's time. The GPU takes 6 µs from call to start, 1 µs between kernels.
fn trace(passes: usize, one: &[(u64, u64)], calls: bool) -> (Vec<u8>, u64) {
    let us = |ns: u64| ns as f64 / 1e3;
    let (mut events, mut host, mut gpu, mut link, mut took) = (Vec::new(), 0u64, 0u64, 0, 0);
    for pass in 0..passes {
        let begun = host;
        let mut first = None;
        for (i, &(before, ns)) in one.iter().enumerate() {
            host += before;
            link += 1;
            let start = (host + 6_000).max(gpu + 1_000);
            gpu = start + ns;
            first.get_or_insert(start);
            if calls {
                events.push(format!(
                    r#"{{"ph":"X","cat":"cuda_runtime","name":"cudaLaunchKernel","pid":1,"tid":1,"ts":{},"dur":4,"args":{{"correlation":{link}}}}}"#,
                    us(host)
                ));
            }
            host += 4_000;
            events.push(format!(
                r#"{{"ph":"X","cat":"kernel","name":"k{i}","pid":0,"tid":7,"ts":{},"dur":{},"args":{{"device":0,"stream":7,"correlation":{link},"grid":[99,1,1],"block":[64,1,1]}}}}"#,
                us(start), us(ns)
            ));
        }
        took = gpu - first.unwrap_or(0);
        // The host waits for the GPU, as a request does.
        host = host.max(gpu) + 10_000;
        events.push(format!(
            r#"{{"ph":"X","cat":"user_annotation","name":"ProfilerStep#{pass}","pid":1,"tid":1,"ts":{},"dur":{}}}"#,
            us(begun), us(host - begun)
        ));
    }
    (format!("{{\"traceEvents\":[{}]}}", events.join(",")).into_bytes(), took)
}

#[test]
fn a_host_bound_model_stays_host_bound() {
    // 80 kernels of 4 µs, one every 45 µs: 0.32 ms of kernels in 3.9 ms.
    let one = vec![(45_000, 4_000); 80];
    for calls in [true, false] {
        let (text, took) = trace(5, &one, calls);
        let import = import_text(&text, &options()).unwrap();
        assert_eq!(launches_and_ns(&import), (80, 320_000));
        let alone = alone_ns(&import);
        assert!(alone.abs_diff(took) * 100 <= took, "{alone} {took} {:?}", import.notes);
        let given = StreamOptions { launch: Some(Nanos(1_000)), ..options() };
        assert_eq!(alone_ns(&import_text(&text, &given).unwrap()), 321_000);
    }
}

#[test]
fn a_gpu_bound_model_is_issued_ahead() {
    let one = vec![(2_000, 100_000); 50];
    let (text, took) = trace(5, &one, true);
    let import = import_text(&text, &options()).unwrap();
    let host: u64 = import.profile.models["net"].batches[&8].iter().map(|l| l.host.0).sum();
    assert!(host < took / 10, "the calls take {host} of {took} ns");
    let alone = alone_ns(&import);
    assert!(alone.abs_diff(took) * 50 <= took, "{alone} {took}");
}

/// Three marked passes of four kernels of 8 µs on stream 7, 2 µs apart, and one of `side` µs on stream
/// 20 that begins at 5 µs; 38 µs in all where the side stream is done by then.
fn two_streams(side: u64, calls: bool) -> Vec<u8> {
    let mut events = Vec::new();
    for pass in 0..3u64 {
        let at = pass * 1_000;
        let mut kernel = |name: &str, stream: u64, start: u64, us: u64, link: u64| {
            let link = pass * 10 + link;
            if calls {
                events.push(format!(
                    r#"{{"ph":"X","cat":"cuda_runtime","name":"cudaLaunchKernel","pid":1,"tid":1,"ts":{},"dur":0.5,"args":{{"correlation":{link}}}}}"#,
                    at + link % 10
                ));
            }
            events.push(format!(
                r#"{{"ph":"X","cat":"kernel","name":"{name}","pid":0,"tid":{stream},"ts":{start},"dur":{us},"args":{{"device":0,"stream":{stream},"correlation":{link},"grid":[99,1,1],"block":[64,1,1]}}}}"#
            ));
        };
        (0..4).for_each(|i| kernel("main", 7, at + 10 + i * 10, 8, 1 + 2 * i));
        kernel("side", 20, at + 15, side, 4);
        events.push(format!(
            r#"{{"ph":"X","cat":"user_annotation","name":"ProfilerStep#{pass}","pid":1,"tid":1,"ts":{at},"dur":900}}"#
        ));
    }
    format!("{{\"traceEvents\":[{}]}}", events.join(",")).into_bytes()
}

#[test]
fn side_streams_are_put_into_the_main_one_by_name() {
    for calls in [false, true] {
        // 32 and 4 µs fit into the 38 µs that the pass took: no longer than that.
        let import = import_text(&two_streams(4, calls), &options()).unwrap();
        assert_eq!(launches_and_ns(&import), (5, 36_000));
        let place = if calls { "put where the host launched them" } else { "put after it" };
        let main = "streams: stream 7 (4 launches, 0.032 ms) is the main one; stream 20 (1 launch, 0.004 ms) ";
        let said = import.notes.iter().find(|n| n.starts_with(main)).unwrap();
        assert!(said.contains(place) && said.contains("0.003 ms ran at once"), "{said}");
        // The way of the first launch to the GPU stands before it, where calls show it.
        let lead = if calls { 6_000 } else { 0 };
        let alone = alone_ns(&import);
        assert!(alone <= 38_000 + lead && alone >= 38_000, "{alone} {:?}", import.notes);
        let names: Vec<&str> = import.profile.models["net"].batches[&8]
            .iter()
            .map(|l| &*import.profile.kernels[l.kernel].name)
            .collect();
        let order = ["main", "main", "side", "main", "main"];
        let want = if calls { order } else { ["main", "main", "main", "main", "side"] };
        assert_eq!(names, want);
        // 32 and 30 µs cannot: longer, and said to be.
        let import = import_text(&two_streams(30, calls), &options()).unwrap();
        assert_eq!(launches_and_ns(&import), (5, 62_000));
        let warned =
            import.warnings.iter().any(|w| w.contains("% longer than the recorded 0.038 ms"));
        assert!(warned, "{:?} {:?}", import.warnings, import.notes);
        assert!((62_000..=62_000 + lead).contains(&alone_ns(&import)), "{}", alone_ns(&import));
    }
}

#[test]
fn branches_of_a_graph_are_said_to_be_one_behind_the_other() {
    let mut events = Vec::new();
    for pass in 0..3u64 {
        for i in 0..4u64 {
            for (name, after, us) in [("a", 0, 10), ("b", 1, 8)] {
                events.push(format!(
                    r#"{{"ph":"X","cat":"kernel","name":"{name}{i}","pid":0,"tid":7,"ts":{},"dur":{us},"args":{{"device":0,"stream":7,"graph node id":{},"grid":[99,1,1],"block":[64,1,1]}}}}"#,
                    pass * 1_000 + i * 12 + after, 10 * i + after + 1
                ));
            }
        }
        events.push(format!(
            r#"{{"ph":"X","cat":"user_annotation","name":"ProfilerStep#{pass}","pid":1,"tid":1,"ts":{},"dur":900}}"#,
            pass * 1_000
        ));
    }
    let text = format!("{{\"traceEvents\":[{}]}}", events.join(",")).into_bytes();
    let import = import_text(&text, &options()).unwrap();
    assert_eq!(launches_and_ns(&import), (8, 72_000));
    let note = "streams: one, whose kernels are put one after the other; 0.032 ms ran at once";
    assert!(import.notes.iter().any(|n| n == note), "{:?}", import.notes);
    let warned = "alone, the model takes 0.072 ms, 56 % longer than the recorded 0.046 ms";
    assert!(import.warnings.iter().any(|w| w.ends_with(warned)), "{:?}", import.warnings);
    assert_eq!(alone_ns(&import), 72_000);
}

proptest! {
    #[test]
    fn alone_a_request_takes_what_the_pass_took(
        one in proptest::collection::vec((0u64..60_000, 1_000u64..80_000), 1..60),
        calls in any::<bool>(),
    ) {
        let (text, took) = trace(3, &one, calls);
        let import = import_text(&text, &options()).unwrap();
        let sum: u64 = one.iter().map(|(_, ns)| ns).sum();
        prop_assert!(launches_and_ns(&import).1.abs_diff(sum) * 100 <= sum);
        // The first launch's way to the GPU is part of a request.
        let alone = alone_ns(&import);
        prop_assert!(alone >= took - took / 20 && alone <= took + took / 20 + 6_000, "{} {}", alone, took);
    }
}
