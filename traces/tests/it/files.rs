//! Trace files end to end: what is written reads back, what is dropped is accounted for, and what
//! each transform does.

use std::path::{Path, PathBuf};

use cotenant_profiles::Nanos;
use cotenant_traces::Expand;
use cotenant_traces::stats::Stats;
use cotenant_traces::{ArrivalSpec, ReadOptions, Row, Transform, convert, generate, read, stats};
use proptest::prelude::*;
use tempfile::TempDir;

struct Bench(TempDir);

impl Bench {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, text).unwrap();
        path
    }
}

fn transforms(texts: &[&str]) -> Vec<Transform> {
    texts.iter().map(|t| t.parse().unwrap_or_else(|e| panic!("{e}"))).collect()
}

/// The rows of a file behind transforms.
fn rows(path: &Path, texts: &[&str]) -> Vec<Row> {
    let stream = read::open(path, None, &ReadOptions::default()).unwrap();
    let stream = cotenant_traces::transform::apply(stream, &transforms(texts), 7).unwrap();
    stream.map(|row| row.unwrap_or_else(|e| panic!("{e}"))).collect()
}

fn times(path: &Path, texts: &[&str]) -> Vec<u64> {
    rows(path, texts).iter().map(|row| row.arrival.0).collect()
}

fn describe(path: &Path, texts: &[&str], options: &ReadOptions) -> Stats {
    stats(None, path, &transforms(texts), options).unwrap_or_else(|e| panic!("{e}"))
}

const SMALL: &str = "# cotenant-trace v1\n# duration_ns=100\narrival_ns,tenant,model,x_trigger\n\
    0,a,m,http\n10,b,m,timer\n10,c,m,http\n50,a,m,timer\n99,d,m,http\n";

fn convert_ok(input: &Path, output: &Path, texts: &[&str]) -> cotenant_traces::ConversionReport {
    let options = ReadOptions::default();
    let report = convert(None, input, output, &transforms(texts), &options);
    let report = report.unwrap_or_else(|e| panic!("{e}"));
    let dropped: u64 = report.dropped.values().sum();
    assert_eq!(report.rows_in, report.rows_out + dropped);
    report
}

#[test]
fn a_converted_file_says_where_it_comes_from_and_what_was_dropped() {
    let bench = Bench::new();
    let input = bench.file("in.csv", SMALL);
    let output = bench.path("out.csv");
    let report = convert_ok(&input, &output, &["window:5ns..60ns", "filter:trigger!=timer"]);
    assert_eq!((report.rows_in, report.rows_out), (5, 1));
    let want = "# cotenant-trace v1\n# transform=window:5ns..60ns\n\
        # transform=filter:trigger!=timer\n# duration_ns=55\n# rows_in=5\n\
        # dropped=filter:2,window:2\narrival_ns,tenant,model,x_trigger\n5,c,m,http\n";
    assert_eq!(std::fs::read_to_string(&output).unwrap(), want);
    // Converting it again keeps its history.
    let again = bench.path("again.csv");
    convert_ok(&output, &again, &["slo:3ms"]);
    let text = std::fs::read_to_string(&again).unwrap();
    assert!(text.contains("# earlier=rows_in:5 dropped:filter:2,window:2\n"), "{text}");
    assert!(text.contains("# rows_in=1\n# dropped=\n"), "{text}");
    assert!(text.ends_with("arrival_ns,tenant,model,slo_ns,x_trigger\n5,c,m,3000000,http\n"));
}

#[test]
fn a_failed_conversion_leaves_nothing_behind() {
    let bench = Bench::new();
    let input =
        bench.file("in.csv", "# cotenant-trace v1\narrival_ns,tenant,model\n5,a,m\n1,a,m\n");
    let output = bench.path("out.csv.gz");
    let result = convert(None, &input, &output, &[], &ReadOptions::default());
    assert!(result.is_err());
    let left: Vec<_> = std::fs::read_dir(bench.0.path()).unwrap().collect();
    assert_eq!(left.len(), 1, "{left:?}");
    let report = convert_ok(&input, &output, &["sort"]);
    assert_eq!(report.rows_out, 2);
    assert_eq!(times(&output, &[]), [1, 5]);
}

#[test]
fn compression_goes_by_content_and_many_members_are_one_file() {
    let bench = Bench::new();
    let input = bench.file("in.csv", SMALL);
    for name in ["out.csv", "out.csv.gz", "out.csv.zst"] {
        let output = bench.path(name);
        convert_ok(&input, &output, &[]);
        assert_eq!(rows(&output, &[]), rows(&input, &[]), "{name}");
        // The name does not matter for reading.
        let other = bench.path("renamed");
        std::fs::copy(&output, &other).unwrap();
        assert_eq!(rows(&other, &[]), rows(&input, &[]), "{name}");
    }
    let bytes = std::fs::read(bench.path("out.csv.gz")).unwrap();
    std::fs::write(bench.path("cut.gz"), &bytes[..bytes.len() - 9]).unwrap();
    let stream = read::open(&bench.path("cut.gz"), Some("canonical"), &ReadOptions::default());
    let failed = stream.is_err() || stream.unwrap().any(|row| row.is_err());
    assert!(failed, "a truncated file is an error, not a shorter trace");
}

#[test]
fn units_byte_order_mark_carriage_returns_and_quotes_are_accepted() {
    let bench = Bench::new();
    let text = "\u{FEFF}# cotenant-trace v1\r\n# duration_ns=9000000000\r\n\
        tenant,arrival_s,model,slo_ms,session,x_a\r\n\"a\",5.8926549999999995,m,1.5,s 1,\"x,y\"";
    let all = rows(&bench.file("in.csv", text), &[]);
    assert_eq!(all[0].arrival, Nanos(5_892_655_000));
    assert_eq!(all[0].slo, Some(Nanos(1_500_000)));
    assert_eq!((all[0].session.as_deref(), &*all[0].extra[0]), (Some("s 1"), "x,y"));
    let out = bench.path("out.csv");
    convert_ok(&bench.path("in.csv"), &out, &[]);
    assert_eq!(rows(&out, &[]), all);
}

#[test]
fn unknown_columns_pass_through_where_they_are_kept() {
    let bench = Bench::new();
    let text = "# cotenant-trace v1\n# duration_ns=9\narrival_ns,tenant,model,Foo Bar,x_foo_bar,session\n\
        5,a,m,7,8,s\n";
    let input = bench.file("in.csv", text);
    let output = bench.path("out.csv");
    let keep = ReadOptions { keep_extra: true, ..ReadOptions::default() };
    assert!(convert(None, &input, &output, &[], &ReadOptions::default()).is_err());
    convert(None, &input, &output, &[], &keep).unwrap_or_else(|e| panic!("{e}"));
    let text = std::fs::read_to_string(&output).unwrap();
    let want = "arrival_ns,tenant,model,session,x_foo_bar_2,x_foo_bar\n5,a,m,s,7,8\n";
    assert!(text.ends_with(want), "{text}");
    assert_eq!(rows(&output, &[])[0].session.as_deref(), Some("s"));
}

#[test]
fn a_missing_duration_is_last_plus_one_with_a_warning() {
    let bench = Bench::new();
    let path = bench.file("in.csv", "# cotenant-trace v1\narrival_ns,tenant,model\n7,a,m\n");
    let s = describe(&path, &[], &ReadOptions::default());
    assert_eq!(s.total.duration, Nanos(8));
    assert!(s.counts.warnings.iter().any(|w| w.contains("duration_ns")), "{:?}", s.counts);
}

#[test]
fn the_rate_counts_idle_ends() {
    let bench = Bench::new();
    let text = "# cotenant-trace v1\n# duration_ns=100000000000\narrival_s,tenant,model\n\
        40,a,m\n41,a,m\n42,a,m\n43,a,m\n";
    let s = describe(&bench.file("in.csv", text), &[], &ReadOptions::default()).total;
    assert_eq!(s.rate, Some(0.04));
    assert_eq!(s.peak_to_mean, Some(25.0));
    assert_eq!(s.cv, Some(0.0));
    let empty = "# cotenant-trace v1\n# duration_ns=0\narrival_s,tenant,model\n";
    let s = describe(&bench.file("empty.csv", empty), &[], &ReadOptions::default()).total;
    assert_eq!((s.requests, s.rate, s.cv, s.idc_1s), (0, None, None, None));
}

#[test]
fn mapping_modes_do_what_their_names_say() {
    let bench = Bench::new();
    let mut text = "# cotenant-trace v1\n# duration_ns=1000\narrival_ns,tenant,model\n".to_owned();
    // Tenants a to f in this order, f with the most requests.
    for (i, tenant) in "abcdefffee".chars().enumerate() {
        text.push_str(&format!("{i},{tenant},m\n"));
    }
    let path = bench.file("in.csv", &text);
    let models = |spec: &str| {
        let all = rows(&path, &[spec]);
        let of =
            |tenant: &str| all.iter().find(|r| &*r.tenant == tenant).unwrap().model.to_string();
        ["a", "b", "c", "d", "e", "f"].map(of).join(" ")
    };
    assert_eq!(models("map:stripe:2"), "m0 m1 m0 m1 m0 m1");
    assert_eq!(models("map:block:2"), "m0 m0 m0 m1 m1 m1");
    // By requests: e 3 and f 3, then a to d by name.
    assert_eq!(models("map:rank:6"), "m2 m3 m4 m5 m0 m1");
    assert_eq!(models("map:stripe:x,y,z"), "x y z x y z");
    assert_eq!(models("map:zipf:3:0"), models("map:zipf:3:0"));
    assert_eq!(models("map:hash:1"), "m0 m0 m0 m0 m0 m0");
    let skewed = models("map:zipf:1000:100");
    assert_eq!(skewed, "m0 m0 m0 m0 m0 m0");
}

fn poisson(bench: &Bench, rate: f64, seconds: u64) -> PathBuf {
    let spec: ArrivalSpec =
        serde_json::from_value(serde_json::json!({"kind": "poisson", "rate": rate})).unwrap();
    let path = bench.path("poisson.csv");
    generate(&spec, Path::new("."), "t", "m", Nanos::from_secs(seconds), 1, &path).unwrap();
    path
}

#[test]
fn thinning_nests_and_pulls_towards_poisson_while_scaling_keeps_variation() {
    let bench = Bench::new();
    let spec: ArrivalSpec = serde_json::from_str(r#"{"kind":"gamma","rate":50,"cv":4}"#).unwrap();
    let path = bench.path("g.csv");
    generate(&spec, Path::new("."), "t", "m", Nanos::from_secs(4000), 1, &path).unwrap();
    let (half, third) = (times(&path, &["thin:0.5"]), times(&path, &["thin:0.3"]));
    assert!(third.iter().all(|t| half.binary_search(t).is_ok()), "0.3 keeps a part of 0.5");
    let options = ReadOptions::default();
    let whole = describe(&path, &[], &options).total;
    let thin = describe(&path, &["thin:0.1"], &options).total;
    let fast = describe(&path, &["scale-time:0.1"], &options).total;
    let ratio = |s: &stats::Summary| s.rate.unwrap() / whole.rate.unwrap();
    assert!((ratio(&thin) - 0.1).abs() < 0.01 && thin.cv.unwrap() < 0.7 * whole.cv.unwrap());
    assert!((ratio(&fast) - 10.0).abs() < 1e-6);
    assert!((fast.cv.unwrap() / whole.cv.unwrap() - 1.0).abs() < 1e-6);
}

#[test]
fn superposed_copies_are_no_clones() {
    let bench = Bench::new();
    let path = poisson(&bench, 20.0, 1000);
    let options = ReadOptions::default();
    let (one, three) =
        (describe(&path, &[], &options), describe(&path, &["superpose:3:100s"], &options));
    assert_eq!(three.total.requests, 3 * one.total.requests);
    assert_eq!(three.total.duration, one.total.duration);
    assert_eq!(three.counts.added["superpose"], 2 * one.total.requests);
    // k clones at one instant would raise the dispersion to k.
    assert!((three.total.cv.unwrap() - 1.0).abs() < 0.05, "{:?}", three.total);
    assert!("superpose:3:0".parse::<Transform>().is_err());
}

#[test]
fn load_caps_and_refits_reach_their_targets() {
    let bench = Bench::new();
    let path = poisson(&bench, 20.0, 1000);
    let options = ReadOptions::default();
    let loaded = describe(&path, &["load:0.8:5ms"], &options).total;
    assert!((loaded.rate.unwrap() * 0.005 - 0.8).abs() < 1e-6, "{loaded:?}");
    let capped = describe(&path, &["cap-rate:5"], &options);
    assert!((capped.total.rate.unwrap() - 5.0).abs() < 0.1, "{capped:?}");
    assert_eq!(capped.counts.rows_in, capped.total.requests + capped.counts.dropped["cap-rate"]);
    let refit = describe(&path, &["refit:gamma:window=100s:rate=2:cv=3"], &options).total;
    assert!((refit.rate.unwrap() / 40.0 - 1.0).abs() < 0.05, "{refit:?}");
    assert!((refit.cv.unwrap() / 3.0 - 1.0).abs() < 0.1, "{refit:?}");
}

#[test]
fn ticks_that_jitter_are_spread_without_being_binned() {
    let bench = Bench::new();
    let text = "# cotenant-trace v1\n# duration_ns=9002000000\narrival_ms,tenant,model\n\
        0,a,m\n0,a,m\n2999,a,m\n2999,a,m\n2999,a,m\n6001,a,m\n9000,a,m\n";
    let path = bench.file("in.csv", text);
    let spread = times(&path, &["spread:3s"]);
    let ms = |i: usize| spread[i] / 1_000_000;
    assert!(spread.is_sorted() && spread.len() == 7);
    assert!(ms(1) < 2999 && (2999..6001).contains(&ms(2)) && (2999..6001).contains(&ms(4)));
    assert!((6001..9000).contains(&ms(5)) && (9000..12_000).contains(&ms(6)));
    let s = describe(&path, &["spread:3s"], &ReadOptions::default());
    assert_eq!(s.total.duration, Nanos::from_secs(12));
}

/// Counts: a timer of 60 a minute and a burst, over many bins.
fn counts_file(bench: &Bench) -> PathBuf {
    let mut text =
        "# cotenant-counts v1\n# bin_ns=60000000000\nbin,tenant,model,count\n".to_owned();
    for bin in 0..600 {
        text.push_str(&format!("{bin},timer,m,60\n{bin},event,m,{}\n", bin % 3));
    }
    bench.file("counts.csv", &text)
}

#[test]
fn counts_keep_their_totals_where_they_should() {
    let bench = Bench::new();
    let path = counts_file(&bench);
    let of = |expand| describe(&path, &[], &ReadOptions { expand, ..ReadOptions::default() });
    for expand in [Expand::PoissonN, Expand::Even] {
        let s = of(expand);
        assert_eq!(s.tenants["timer"].requests, 36_000, "{expand}");
        assert_eq!(s.tenants["event"].requests, 600, "{expand}");
        assert_eq!(s.total.duration, Nanos::from_secs(36_000));
        assert_eq!(s.tenants["timer"].idc_60s, Some(0.0), "{expand}");
    }
    let rate = of(Expand::PoissonRate);
    let (n, idc) = (rate.tenants["timer"].requests, rate.tenants["timer"].idc_60s.unwrap());
    // Poisson totals: 36,000 ± 190, and a dispersion of 1 ± 0.058.
    assert!(n.abs_diff(36_000) < 800 && (idc - 1.0).abs() < 0.25, "{n} {idc}");
    assert!(of(Expand::Even).tenants["timer"].cv.unwrap() < 1e-6);
}

#[test]
fn residuals_are_carried_over_bin_edges() {
    // 1 request in each 1 s bin on average, drawn as constant gaps: carried on, they are exactly 1
    // s apart. Started anew at each edge, the first gap of every bin would reach past its end.
    let bench = Bench::new();
    let mut text = "# cotenant-counts v1\n# bin_ns=1000000000\nbin,tenant,model,count\n".to_owned();
    (0..1000).for_each(|bin| text.push_str(&format!("{bin},a,m,1\n")));
    let path = bench.file("counts.csv", &text);
    let of = |cv| {
        let options = ReadOptions { expand: Expand::Gamma(cv), ..ReadOptions::default() };
        describe(&path, &[], &options).total
    };
    let regular = of(0.0);
    assert!(regular.requests >= 999 && regular.cv.unwrap() < 1e-6, "{regular:?}");
    let bursty = of(2.0);
    assert!((bursty.requests as f64 / 1000.0 - 1.0).abs() < 0.3, "{bursty:?}");
    assert!((bursty.cv.unwrap() - 2.0).abs() < 0.4, "{bursty:?}");
}

#[test]
fn every_style_of_the_foreign_formats_reads() {
    let bench = Bench::new();
    let one = |name: &str, text: &str| rows(&bench.file(name, text), &[]);
    // Azure 2024: 6 digits or none, an offset; 2025: Z, three digits, images.
    let azure = one(
        "AzureLLMInferenceTrace_conv_1week.csv",
        "TIMESTAMP,ContextTokens,GeneratedTokens\r\n2024-05-12 00:00:00+00:00,1452,3\r\n\
         2024-05-12 00:00:00.041683+00:00,584,3",
    );
    assert_eq!((azure[1].arrival, &*azure[1].tenant), (Nanos(41_683_000), "conv"));
    let lmm = one(
        "lmm.csv",
        "TIMESTAMP,NumImages,ContextTokens,GeneratedTokens\n\
         2024-10-15T12:00:00.269Z,0,770,491\n2024-10-15T12:00:05.819Z,3,949,126\n",
    );
    assert_eq!((lmm[0].items, lmm[1].items), (1, 3));
    // BurstGPT's third release has its new columns in the middle.
    let burst = one(
        "b3.csv",
        "Timestamp,Session ID,Elapsed time,Model,Request tokens,Response tokens,Total tokens,\
         Log Type\n\
         5.5,,1.2,GPT-4,1,2,3,API log\n6,77,1.2,GPT-4,1,0,1,Conversation log\n",
    );
    assert_eq!((burst[0].session.as_deref(), burst[1].session.as_deref()), (None, Some("77")));
    assert_eq!((burst[0].tokens_out, burst[0].arrival), (Some(2), Nanos::from_millis(5500)));
    // The 2019 functions with another run of minutes, without triggers and with one id for all.
    let maf = one("inv.csv", "HashFunction,HashOwner,HashApp,minute_1,minute_2\nf,f,f,0,2\n");
    assert_eq!((maf.len(), &*maf[0].tenant), (2, "f"));
    assert!(maf[0].arrival >= Nanos::from_secs(60));
    // Bailian counts seconds where Mooncake counts milliseconds.
    let bailian = one(
        "qwen_traceA_blksz_16.jsonl",
        "{\"chat_id\":55,\"parent_chat_id\":-1,\"timestamp\":61.114,\"input_length\":5,\
          \"output_length\":1,\"type\":\"text\",\"turn\":1,\"hash_ids\":[1]}\n\
         {\"chat_id\":159,\"parent_chat_id\":55,\"timestamp\":62,\"input_length\":5,\
          \"output_length\":1,\"type\":\"text\",\"turn\":2,\"hash_ids\":[1]}\n",
    );
    assert_eq!((bailian[0].arrival, &*bailian[1].tenant), (Nanos(61_114_000_000), "traceA"));
    assert_eq!(bailian[1].session.as_deref(), Some("55"));
    let mooncake = one("m.jsonl", "{\"timestamp\":61,\"input_length\":1,\"output_length\":1}\n");
    assert_eq!(mooncake[0].arrival, Nanos::from_millis(61));
    // Gaps of Triton and of Orion.
    assert_eq!(
        times(&bench.file("gaps.txt", "100000\n200000\n500000\n"), &[]),
        [100_000_000, 300_000_000, 800_000_000]
    );
    assert_eq!(
        times(&bench.file("gaps.json", "[0.1, 0.2,\n1e-9]"), &[]),
        [100_000_000, 300_000_000, 300_000_001]
    );
}

#[test]
fn failures_and_early_starts_are_dropped_by_name() {
    let bench = Bench::new();
    let text = "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n\
        5,ChatGPT,1,0,1,API log\n6,ChatGPT,1,2,3,API log\n";
    let path = bench.file("burst.csv", text);
    let options = ReadOptions { drop_failures: true, ..ReadOptions::default() };
    assert_eq!(describe(&path, &[], &options).counts.dropped["failed"], 1);
    assert_eq!(describe(&path, &[], &ReadOptions::default()).total.requests, 2);
    // One function name in two apps is two functions; ends are not arrivals.
    let text = "app,func,end_timestamp,duration\nx,f,0.5,0.7\nx,f,3.0,0.134\ny,f,3.1,2.1\n";
    let path = bench.file("maf2.csv", text);
    let s = describe(&path, &[], &ReadOptions::default());
    assert_eq!(s.counts.dropped["started_before_trace"], 1);
    assert_eq!(s.tenants.keys().collect::<Vec<_>>(), ["x:f", "y:f"]);
    assert_eq!(times(&path, &[]), [1_000_000_000, 2_866_000_000]);
}

#[test]
fn a_replay_loops_and_filters() {
    let bench = Bench::new();
    let path = bench.file("in.csv", SMALL);
    let json = serde_json::json!({"kind": "trace", "file": path, "tenant": "a", "loop": true});
    let spec: ArrivalSpec = serde_json::from_value(json).unwrap();
    let mut arrivals = spec.open(Path::new("/"), 1, "t").unwrap();
    let first: Vec<u64> =
        std::iter::from_fn(|| arrivals.next_request()).take(5).map(|r| r.arrival.0).collect();
    assert_eq!(first, [0, 50, 100, 150, 200]);
    let json = serde_json::json!({"kind": "trace", "file": path, "tenant": "nobody"});
    let spec: ArrivalSpec = serde_json::from_value(json).unwrap();
    let error = spec.open(Path::new("/"), 1, "t").err().unwrap().to_string();
    assert!(error.ends_with("no row is left of 5 (dropped: {\"filter\": 5})"), "{error}");
}

#[test]
fn a_bad_row_is_an_error_before_the_first_request() {
    let bench = Bench::new();
    let text = "# cotenant-trace v1\narrival_ns,tenant,model\n5,a,m\n1,a,m\n";
    let json = serde_json::json!({"kind": "trace", "file": bench.file("in.csv", text)});
    let spec: ArrivalSpec = serde_json::from_value(json).unwrap();
    let error = spec.open(Path::new("/"), 1, "t").err().unwrap().to_string();
    assert!(error.contains("in.csv:4: arrival 1 ns is earlier"), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn accounting_holds_behind_any_pipeline(
        gaps in prop::collection::vec((0u64..2_000_000_000, 0u8..5), 0..60),
        picks in prop::collection::vec(0usize..12, 0..4),
    ) {
        const STEPS: [&str; 12] = [
            "window:1s..20s", "filter:tenant!=t1", "map:block:3", "top:2", "scale-time:0.37",
            "thin:0.5", "superpose:3:77ms", "spread:1s", "cap-rate:0.5", "load:0.5:10ms",
            "refit:gamma:window=5s:rate=1.5:cv=2", "sort",
        ];
        let bench = Bench::new();
        let mut text = "# cotenant-trace v1\narrival_ns,tenant,model\n".to_owned();
        let mut at = 0;
        for (gap, tenant) in gaps {
            at += gap;
            text.push_str(&format!("{at},t{tenant},m\n"));
        }
        let input = bench.file("in.csv", &text);
        let steps: Vec<&str> = picks.iter().map(|&i| STEPS[i]).collect();
        let out = bench.path("out.csv");
        let report = convert(
            None, &input, &out, &transforms(&steps), &ReadOptions::default(),
        );
        // A shift by a multiple of the duration is refused: copies would be clones.
        if let Err(error) = &report {
            prop_assert!(error.to_string().contains("is shifted by a multiple"), "{}", error);
            return Ok(());
        }
        let report = report.unwrap();
        prop_assert_eq!(report.rows_in, report.rows_out + report.dropped.values().sum::<u64>());
        let back = rows(&out, &[]);
        prop_assert_eq!(back.len() as u64, report.rows_out);
    }
}
