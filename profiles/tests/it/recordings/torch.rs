//! Traces of PyTorch: damage, compression, marks.

use std::io::Write as _;

use cotenant_profiles::import::{Range, StreamOptions, Tool};
use proptest::prelude::*;

use super::{import, import_text, launches_and_ns, options};

/// A kernel event, µs.
fn kernel(name: &str, stream: u32, ts: f64, dur: f64, link: u32) -> String {
    format!(
        r#"{{"ph": "X", "cat": "kernel", "name": "{name}", "pid": 0, "tid": {stream}, "ts": {ts}, "dur": {dur},
        "args": {{"device": 0, "context": 1, "stream": {stream}, "correlation": {link}, "grid": [200, 1, 1], "block": [128, 1, 1]}}}}"#
    )
}

fn mark(name: &str, ts: f64, dur: f64) -> String {
    format!(
        r#"{{"ph": "X", "cat": "user_annotation", "name": "{name}", "pid": 9, "tid": 9, "ts": {ts}, "dur": {dur}}}"#
    )
}

fn call(name: &str, ts: f64, dur: f64, link: u32) -> String {
    format!(
        r#"{{"ph": "X", "cat": "cuda_runtime", "name": "{name}", "pid": 9, "tid": 9, "ts": {ts}, "dur": {dur}, "args": {{"cbid": 211, "correlation": {link}}}}}"#
    )
}

fn trace(events: &[String]) -> Vec<u8> {
    format!(r#"{{"schemaVersion": 1, "traceEvents": [{}]}}"#, events.join(",\n")).into_bytes()
}

/// Three rounds of two kernels.
fn rounds() -> Vec<String> {
    some_rounds(3)
}

fn some_rounds(n: u32) -> Vec<String> {
    (0..n)
        .flat_map(|i| {
            let at = 100.0 * f64::from(i);
            [kernel("a", 7, at + 1.0, 5.0, 0), kernel("b", 7, at + 10.0, 6.0, 0)]
        })
        .collect()
}

#[test]
fn what_is_wrong_is_named() {
    let error = |text: &str| import_text(text.as_bytes(), &options()).unwrap_err();
    assert!(
        error("{\"a\": 1}").starts_with("t.json:1: traceEvents: `nothing` is not a Chrome trace")
    );
    assert!(error("").starts_with("t.json:1: traceEvents: "));
    assert_eq!(error("[]"), "t.json:1: file: no rows: expected at least one kernel");
    let event =
        r#"[{"ph":"X","cat":"kernel","name":"k","ts":1,"args":{"grid":[1,1,1],"block":[1,1,1]}}]"#;
    assert_eq!(error(event), "t.json:1: traceEvents[0].dur: `nothing` is not microseconds");
}

#[test]
fn packed_files_are_known_by_their_first_bytes() {
    let text = trace(&rounds());
    let frame = |part: &[u8]| {
        ruzstd::encoding::compress_to_vec(part, ruzstd::encoding::CompressionLevel::Fastest)
    };
    let (a, b) = text.split_at(text.len() / 2);
    let two_frames = [frame(a), frame(b)].concat();
    let pack = |part: &[u8]| {
        let mut member = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        member.write_all(part).unwrap();
        member.finish().unwrap()
    };
    let (members, padded) = ([pack(a), pack(b)].concat(), [pack(&text), vec![0; 512]].concat());
    let packed =
        [(pack(&text), "gzip"), (two_frames, "zstd"), (members, "members"), (padded, "padding")];
    for (packed, how) in packed {
        let import = import_text(&packed, &options()).unwrap();
        assert_eq!(launches_and_ns(&import), (2, 11_000), "{how}");
    }
    let gzip = pack(&text);
    let cut = import_text(&gzip[..gzip.len() / 2], &options()).unwrap_err();
    assert!(cut.starts_with("t.json: "), "{cut}");
}

#[test]
fn a_damaged_event_costs_itself_alone() {
    for damage in [
        "{\"ph\": \"X\", \"cat\": \"python_function\", \"name\": \"say \"hi\" twice\", \"ts\": 1, \"dur\": 1}",
        r#"{"ph": "X", "cat": "python_function", "name": "C:\work\", "ts": 1, "dur": 1}"#,
        "null",
        "{\"ph\": \"X\", \"cat\": \"cpu_op\", \"name\": \"a\u{1}b\", \"args\": {\"x\": -inf, \"y\": [1, nan]}}",
        "{\"ph\": }",
        "{}",
    ] {
        let mut events = rounds();
        events.insert(3, damage.to_owned());
        let import = import_text(&trace(&events), &options());
        let import = import.unwrap_or_else(|e| panic!("{damage}: {e}"));
        assert_eq!(launches_and_ns(&import), (2, 11_000), "{damage}");
    }
}

#[test]
fn a_file_that_is_cut_off_gives_what_it_holds() {
    let text = trace(&some_rounds(5));
    let import = import_text(&text[..text.len() - 40], &options()).unwrap();
    assert_eq!(launches_and_ns(&import).0, 2);
    assert_eq!(import.dropped["events cut off at the end of the file"], 1);
}

#[test]
fn kernels_belong_to_the_step_that_called_for_them() {
    // The GPU is a step behind the host.
    let mut events = Vec::new();
    for step in 0..4u32 {
        let at = 100.0 * f64::from(step);
        events.push(mark(&format!("ProfilerStep#{}", step + 7), at, 99.0));
        for (i, name) in ["a", "b", "c"].into_iter().enumerate() {
            let (link, i) = (10 * step + i as u32 + 1, i as f64);
            events.push(call("cudaLaunchKernel", at + 10.0 * i, 4.0, link));
            events.push(kernel(name, 7, at + 95.0 + 30.0 * i, 20.0 + f64::from(step), link));
        }
    }
    let all = import_text(&trace(&events), &options()).unwrap();
    assert_eq!(launches_and_ns(&all), (3, 3 * 21_500), "{:?}", all.notes);
    assert!(all.notes[1].starts_with("taken: ProfilerStep#8 and ProfilerStep#9, the median of 4"));
    let one = StreamOptions { step: Some(10), ..options() };
    assert_eq!(launches_and_ns(&import_text(&trace(&events), &one).unwrap()), (3, 69_000));
    let none = StreamOptions { step: Some(3), ..options() };
    let error = import_text(&trace(&events), &none).unwrap_err();
    assert_eq!(error, "t.json:1: step: `3` is not one of 7, 8, 9, 10");
}

#[test]
fn one_annotated_pass_is_enough_and_layers_are_not_it() {
    let mut events = vec![mark("model_inference", 0.0, 1000.0), mark("layer 1", 10.0, 40.0)];
    events.extend((0..12).map(|i| {
        let at = 10.0 + 20.0 * f64::from(i);
        kernel(if i % 2 == 0 { "gemm" } else { "attn" }, 7, at, 15.0, 0)
    }));
    let import = import_text(&trace(&events), &options()).unwrap();
    assert_eq!(launches_and_ns(&import), (12, 180_000), "{:?}", import.notes);
    // Named, it is another.
    let named = StreamOptions { range: Some(Range::Mark("layer 1".to_owned())), ..options() };
    let import = import_text(&trace(&events), &named).unwrap();
    assert_eq!(launches_and_ns(&import), (2, 30_000), "{:?}", import.notes);
    // Without a mark that says what it is, layers with something behind them are refused.
    events[0] = mark("all", 0.0, 1000.0);
    events.push(kernel("head", 7, 300.0, 15.0, 0));
    let error = import_text(&trace(&events), &options()).unwrap_err();
    assert!(
        error.contains("in which 2 repeat 6 times, with 0 before the first time and 1 behind"),
        "{error}"
    );
    assert!(
        error.contains("--range NAME of one of the marks `all` (1 times), `layer 1` (1 times)"),
        "{error}"
    );
}

#[test]
fn steps_of_a_serving_engine_are_passes() {
    // vLLM: one step of a prompt, then five that generate, each one graph launch.
    let mut events = Vec::new();
    for step in 0..12u32 {
        let (at, prompt) = (1000.0 * f64::from(step), step % 6 == 0);
        let name = if prompt { "1(512)_generation_0(0)" } else { "0(0)_generation_8(8)" };
        events.push(mark(&format!("execute_context_{name}"), at, 900.0));
        events.push(call("cudaGraphLaunch", at + 10.0, 20.0, step + 1));
        let kernels: &[(&str, f64)] = if prompt {
            &[("p", 300.0), ("q", 200.0)]
        } else {
            &[("d", 30.0), ("e", 50.0), ("f", 5.0)]
        };
        let mut start = at + 40.0;
        for (name, us) in kernels {
            events.push(kernel(name, 7, start, *us, step + 1));
            start += us + 1.0;
        }
    }
    let import = import_text(&trace(&events), &options()).unwrap();
    assert_eq!(launches_and_ns(&import), (3, 85_000), "{:?}", import.notes);
    let differ = import.notes.iter().any(|n| n.contains("the passes differ: from 2 to 3 launches"));
    assert!(differ, "{:?}", import.notes);
}

#[test]
fn marks_on_the_gpu_are_passes_without_launch_calls() {
    // One name for all passes, drawn on two streams; with the host's marks and without.
    for host in [true, false] {
        let mut events = Vec::new();
        for pass in 0..4 {
            let at = 1000.0 * f64::from(pass);
            if host {
                events.push(mark("forward", at - 900.0, 100.0));
            }
            for (stream, from) in [(7, 10.0), (20, 60.0)] {
                let drawn = mark("forward", at + from, 300.0);
                events.push(drawn.replace("user_annotation", "gpu_user_annotation"));
                events.push(kernel("gemm", stream, at + from, 100.0, 0));
                events.push(kernel("gemm", stream, at + from + 150.0, 100.0, 0));
            }
        }
        // Nothing repeats in the rest of the file.
        events.push(kernel("init", 7, -500.0, 50.0, 0));
        let import = import_text(&trace(&events), &options()).unwrap();
        assert_eq!(launches_and_ns(&import), (4, 400_000), "{host}: {:?}", import.notes);
        assert!(import.notes[0].starts_with("passes: 4 marks `forward`"), "{:?}", import.notes);
    }
}

#[test]
fn two_recordings_in_one_stream_are_pointed_out() {
    let mut events = Vec::new();
    for rank in 0..2 {
        for step in 0..4 {
            let at = f64::from(step) * 1000.0 + f64::from(rank) * 3.0;
            events.push(mark(&format!("ProfilerStep#{step}"), at, 900.0));
            events.push(kernel("gemm", 7, at + 20.0, 100.0, 0));
        }
    }
    let import = import_text(&trace(&events), &options()).unwrap();
    let warned = import.warnings.iter().any(|w| w.contains("the file may hold several recordings"));
    assert!(warned, "{:?}", import.warnings);
    let by_time = import.warnings.iter().any(|w| w.starts_with("no launch calls say"));
    assert!(by_time, "{:?}", import.warnings);
}

#[test]
fn a_file_on_disk_reports_how_far_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t.json");
    let text = trace(&rounds());
    std::fs::write(&path, &text).unwrap();
    let mut seen = 0;
    let read = cotenant_profiles::import::Recording::read(Tool::Torch, &path, &mut |n| seen = n);
    assert_eq!(read.unwrap().used().len(), 1);
    assert_eq!(seen, text.len() as u64);
    let error = import(Tool::Torch, &folder.path().join("none.json"), &options()).unwrap_err();
    assert!(error.contains("none.json: "), "{error}");
}

proptest! {
    #[test]
    fn damaged_traces_are_answers_not_panics(at in 0usize..4000, to in any::<u8>(), n in 1usize..64) {
        let mut text = trace(&[rounds(), vec![mark("step 1", 0.0, 300.0)]].concat());
        let at = at % text.len();
        let end = (at + n).min(text.len());
        text[at..end].fill(to);
        let _ = import_text(&text, &options());
    }
}
