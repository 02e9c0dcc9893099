//! Known answers on public traces. They are not part of the project: the tests run where the
//! environment variable `COTENANT_PUBLIC_DATA` names the folder that holds `traces/`.

use std::path::{Path, PathBuf};

use cotenant_profiles::Nanos;
use cotenant_traces::read::sniff;
use cotenant_traces::stats::Stats;
use cotenant_traces::{ArrivalSpec, Expand, ReadOptions, Transform, convert, stats};

/// The file, or a note and `None` where there is no public data.
fn data(file: &str) -> Option<PathBuf> {
    let Some(root) = std::env::var_os("COTENANT_PUBLIC_DATA") else {
        eprintln!("COTENANT_PUBLIC_DATA is not set: no check against {file}");
        return None;
    };
    Some(Path::new(&root).join("traces").join(file))
}

fn describe(path: &Path, transforms: &[&str]) -> Stats {
    let transforms: Vec<Transform> = transforms.iter().map(|t| t.parse().unwrap()).collect();
    stats(None, path, &transforms, &ReadOptions::default()).unwrap_or_else(|e| panic!("{e}"))
}

/// `value` rounds to `want` at the last digit that `want` shows.
#[track_caller]
fn close(what: &str, value: Option<f64>, want: f64, half_digit: f64) {
    let value = value.expect(what);
    eprintln!("{what}: {value:.4} (published {want})");
    assert!((value - want).abs() <= half_digit, "{what}: {value}, published {want}");
}

/// Converts, and checks that every row is accounted for on both sides.
fn converts(path: &Path, transforms: &[&str], options: &ReadOptions) -> (u64, u64) {
    let transforms: Vec<Transform> = transforms.iter().map(|t| t.parse().unwrap()).collect();
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out.csv.zst");
    let report = convert(None, path, &out, &transforms, options).unwrap_or_else(|e| panic!("{e}"));
    let dropped: u64 = report.dropped.values().sum();
    assert_eq!(report.rows_in, report.rows_out + dropped, "{}", path.display());
    let back = describe(&out, &[]);
    assert_eq!(back.total.requests, report.rows_out, "{}", path.display());
    (report.rows_in, report.rows_out)
}

#[test]
fn azure_conversation() {
    let Some(path) = data("azure_llm_2023/AzureLLMInferenceTrace_conv.csv") else { return };
    let s = describe(&path, &[]).total;
    assert_eq!(s.requests, 19_366);
    close("rate", s.rate, 5.53, 0.005);
    close("cv", s.cv, 1.09, 0.005);
    close("idc 1 s", s.idc_1s, 1.39, 0.005);
    // A figure of 20.5 circulates: it counts the last, incomplete minute as one of few requests and
    // divides by n. Over the 58 complete minutes it is 16.4.
    close("idc 60 s", s.idc_60s, 16.411, 0.0005);
    assert_eq!(converts(&path, &[], &ReadOptions::default()), (19_366, 19_366));
    // The first ten minutes hold 2,867 requests.
    let cut = converts(&path, &["window:0..600s", "slo:100ms"], &ReadOptions::default());
    assert_eq!(cut, (19_366, 2_867));
}

#[test]
fn azure_code_is_idle_for_minutes() {
    let Some(path) = data("azure_llm_2023/AzureLLMInferenceTrace_code.csv") else { return };
    let s = describe(&path, &[]).total;
    assert_eq!(s.requests, 8_819);
    close("rate", s.rate, 2.57, 0.005);
    close("cv", s.cv, 13.2, 0.05);
    close("idc 1 s", s.idc_1s, 13.2, 0.05);
    // 160 with the incomplete last minute and a division by n; over complete minutes 166.9.
    close("idc 60 s", s.idc_60s, 166.893, 0.0005);
    converts(&path, &[], &ReadOptions::default());
}

#[test]
fn an_idle_stretch_has_statistics_without_values() {
    let Some(path) = data("azure_llm_2023/AzureLLMInferenceTrace_code.csv") else { return };
    // Between its longest gaps the trace says nothing for over three minutes.
    let all = cotenant_traces::read::open(&path, None, &ReadOptions::default()).unwrap();
    let times: Vec<u64> = all.map(|row| row.unwrap().arrival.0).collect();
    let gap = times.windows(2).max_by_key(|w| w[1] - w[0]).unwrap();
    assert_eq!((gap[1] - gap[0]) / 1_000_000_000, 217);
    let window = format!("window:{}..{}", Nanos(gap[0] + 1), Nanos(gap[1]));
    let s = describe(&path, &[&window]).total;
    assert_eq!((s.requests, s.rate, s.cv, s.idc_1s), (0, Some(0.0), None, None));
    assert_eq!((s.peak_to_mean, s.first), (None, None));
}

#[test]
fn vidur_is_the_same_trace_on_another_clock() {
    for name in ["conv", "code"] {
        let Some(azure) = data(&format!("azure_llm_2023/AzureLLMInferenceTrace_{name}.csv")) else {
            return;
        };
        let vidur = data(&format!("vidur/splitwise_{name}.csv")).unwrap();
        let rows = |path: &Path| {
            let stream = cotenant_traces::read::open(path, None, &ReadOptions::default()).unwrap();
            stream.map(|r| r.unwrap()).map(|r| (r.arrival, r.tokens_in, r.tokens_out)).collect()
        };
        let (a, b): (Vec<_>, Vec<_>) = (rows(&azure), rows(&vidur));
        assert_eq!(a, b, "{name}: exact decimals make them equal to the nanosecond");
    }
}

#[test]
fn mooncake_ticks_are_spread() {
    let Some(path) = data("mooncake/conversation_trace.jsonl") else { return };
    assert_eq!(sniff(&path).unwrap().name, "mooncake");
    let raw = describe(&path, &[]).total;
    assert_eq!(raw.requests, 12_031);
    close("rate", raw.rate, 3.40, 0.005);
    close("cv", raw.cv, 3.03, 0.005);
    close("idc 1 s", raw.idc_1s, 7.9, 0.05);
    close("idc 60 s", raw.idc_60s, 2.9, 0.05);
    let spread = describe(&path, &["spread:3s"]).total;
    assert_eq!(spread.requests, 12_031);
    // One draw of the places: its standard error is 1/√12,031 = 0.009.
    close("cv, spread", spread.cv, 1.01, 0.02);
    converts(&path, &["spread:3s"], &ReadOptions::default());
}

#[test]
fn functions_of_2019() {
    let Some(path) = data("azure_functions_2019_sample/s500/invocations.csv") else { return };
    let s = describe(&path, &[]);
    assert_eq!(s.total.requests, 3_037_902);
    assert_eq!(s.total.duration, Nanos::from_secs(8 * 3600));
    close("rate", s.total.rate, 105.5, 0.05);
    // One function makes 63 % of all invocations, ten make 91 %.
    let mut volumes: Vec<u64> = s.tenants.values().map(|t| t.requests).collect();
    volumes.sort_unstable_by_key(|n| std::cmp::Reverse(*n));
    close("first", Some(volumes[0] as f64 / 3_037_902.0), 0.63, 0.005);
    let ten: u64 = volumes[..10].iter().sum();
    close("ten", Some(ten as f64 / 3_037_902.0), 0.91, 0.005);
    let triggered = describe(&path, &["filter:trigger!=timer", "top:8", "window:0..10min"]);
    assert!(triggered.tenants.len() <= 8);
}

#[test]
fn timers_are_regular_only_when_spaced_evenly() {
    let Some(path) = data("azure_functions_2019_sample/s500/invocations.csv") else { return };
    let timers: Vec<Transform> =
        ["filter:trigger=timer", "top:1"].iter().map(|t| t.parse().unwrap()).collect();
    let of = |expand| {
        let options = ReadOptions { expand, ..ReadOptions::default() };
        stats(None, &path, &timers, &options).unwrap().total
    };
    let (even, poisson) = (of(Expand::Even), of(Expand::PoissonN));
    assert_eq!(even.requests, poisson.requests);
    assert!(even.cv.unwrap() < 0.5 * poisson.cv.unwrap(), "{even:?}\n{poisson:?}");
}

#[test]
fn functions_of_2021_are_sorted_by_their_start() {
    let Some(path) = data("azure_functions_2021_sample/Azure2021_200.csv") else { return };
    let s = describe(&path, &[]);
    assert_eq!(s.counts.rows_in, 199);
    assert_eq!(s.total.requests + s.counts.dropped["started_before_trace"], 199);
    assert_eq!(s.tenants.len(), 31);
    converts(&path, &[], &ReadOptions::default());
}

#[test]
fn burstgpt_rows_of_one_second_keep_their_order() {
    let Some(path) = data("burstgpt_docsample/burstgpt_doc_rows.csv") else { return };
    let stream = cotenant_traces::read::open(&path, None, &ReadOptions::default()).unwrap();
    let spread = cotenant_traces::transform::apply(stream, &["spread:1s".parse().unwrap()], 1);
    let rows: Vec<_> = spread.unwrap().map(|r| r.unwrap()).collect();
    let tokens: Vec<_> = rows.iter().map(|r| r.tokens_in.unwrap()).collect();
    assert_eq!(tokens, [472, 1087, 417, 266, 166, 758, 482]);
    assert!(rows[3..].iter().all(|r| r.arrival.0 / 1_000_000_000 == 862_919));
    assert!(rows[3..].windows(2).all(|w| w[0].arrival < w[1].arrival));
}

#[test]
fn disb_clients() {
    let Some(real) = data("disb_workloads/REAL.json") else { return };
    let s = describe(&real, &[]);
    let requests: Vec<_> = s.tenants.iter().map(|(n, t)| (n.as_str(), t.requests)).collect();
    let want = [
        ("densenet201_rt", 202),
        ("distilbert_rt", 173),
        ("inceptionv3_rt", 374),
        ("resnet152_rt", 375),
        ("vgg19_rt", 560),
    ];
    assert_eq!(requests, want);
    assert_eq!(s.counts.dropped["closed_loop"], 5);
    assert_eq!(s.counts.rows_in, 1_684 + 5);
    close("vgg19 cv", s.tenants["vgg19_rt"].cv, 1.59, 0.005);
    for (file, clients) in [("A", 1), ("B", 0), ("C", 1), ("D", 5), ("E", 5)] {
        let path = data(&format!("disb_workloads/{file}.json")).unwrap();
        let s = describe(&path, &[]);
        assert_eq!(s.tenants.len(), clients, "{file}");
        converts(&path, &[], &ReadOptions::default());
    }
    let poisson = describe(&data("disb_workloads/E.json").unwrap(), &[]);
    close("poisson rate", poisson.total.rate, 100.0, 4.0);
}

#[test]
fn servegen_clients_keep_their_rates() {
    let Some(folder) = data("servegen/multimodal/mm-image") else { return };
    let s = describe(&folder, &[]);
    // Σ rate × 600 s over all windows of all files.
    let mut expected = 0.0;
    for entry in std::fs::read_dir(&folder).unwrap() {
        for line in std::fs::read_to_string(entry.unwrap().path()).unwrap().lines() {
            expected += line.split(',').nth(1).unwrap().parse::<f64>().unwrap() * 600.0;
        }
    }
    close("requests", Some(s.total.requests as f64 / expected), 1.0, 0.02);
    assert_eq!(s.total.duration, Nanos::from_secs(86_400));
    assert_eq!(s.counts.rows_in, s.total.requests);
}

#[test]
fn worked_examples_read_back() {
    let Some(path) = data("canonical/azure_llm_2023_conv_first10min.csv") else { return };
    let s = describe(&path, &[]);
    assert_eq!((s.total.requests, s.total.duration), (2_867, Nanos::from_secs(600)));
    let maf = describe(&data("canonical/maf1_s500_top2-9_10min_uniform.csv").unwrap(), &[]);
    assert_eq!(maf.total.duration, Nanos::from_secs(600));
    assert_eq!(maf.models.len(), 4);
}

#[test]
fn a_trace_drives_a_model() {
    let Some(path) = data("azure_llm_2023/AzureLLMInferenceTrace_conv.csv") else { return };
    let json = serde_json::json!({
        "kind": "trace", "file": path, "rate_scale": 2.0, "window": "0..600s", "work": "tokens",
    });
    let spec: ArrivalSpec = serde_json::from_value(json).unwrap();
    let mut arrivals = spec.open(Path::new("/"), 1, "conv").unwrap();
    let requests: Vec<_> = std::iter::from_fn(|| arrivals.next_request()).collect();
    assert_eq!(requests.len(), 2_867);
    assert!(requests.last().unwrap().arrival < Nanos::from_secs(300));
    let mean = requests.iter().map(|r| f64::from(r.work)).sum::<f64>() / 2_867.0;
    assert!((mean - 1.0).abs() < 1e-5, "mean work {mean}");
    // The first request of the trace: 374 + 44 tokens.
    let ratio = f64::from(requests[1].work) / f64::from(requests[0].work);
    assert!((ratio - (396.0 + 109.0) / (374.0 + 44.0)).abs() < 1e-5);
}
