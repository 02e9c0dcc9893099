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
