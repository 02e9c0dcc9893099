//! Arrival processes against their closed forms, and the mistakes that published load generators
//! make.

use std::path::Path;

use cotenant_profiles::Nanos;
use cotenant_traces::generate::Gap;
use cotenant_traces::stats::{Collector, Summary};
use cotenant_traces::{ArrivalSpec, KINDS, Request};

fn spec(json: &str) -> ArrivalSpec {
    serde_json::from_str(json).unwrap_or_else(|e| panic!("{json}: {e}"))
}

fn fails(json: &str) -> String {
    let error = serde_json::from_str::<ArrivalSpec>(json).expect_err(json).to_string();
    error.split(" at line").next().unwrap().to_owned()
}

fn take(json: &str, seed: u64, tenant: &str, duration: Nanos) -> Vec<Request> {
    let mut arrivals = spec(json).open(Path::new("."), seed, tenant).unwrap();
    let next = || arrivals.next_request();
    std::iter::from_fn(next).take_while(|r| r.arrival < duration).collect()
}

fn summary(json: &str, duration: Nanos) -> Summary {
    let mut collector = Collector::default();
    for request in take(json, 1, "t", duration) {
        collector.add(request.arrival, request.items);
    }
    collector.finish(duration)
}

const HOUR: Nanos = Nanos::from_secs(3600);

/// Name, specification, rate, coefficient of variation.
const PROCESSES: &[(&str, f64, f64)] = &[
    (r#"{"kind":"constant","rate":50}"#, 50.0, 0.0),
    (r#"{"kind":"poisson","rate":50}"#, 50.0, 1.0),
    (r#"{"kind":"gamma","rate":50,"cv":0.5}"#, 50.0, 0.5),
    (r#"{"kind":"gamma","rate":50,"burstiness":0.25}"#, 50.0, 2.0),
    (r#"{"kind":"gamma","rate":50,"cv":0}"#, 50.0, 0.0),
    (r#"{"kind":"lognormal","rate":50,"cv":1.5}"#, 50.0, 1.5),
    (r#"{"kind":"weibull","rate":50,"shape":0.8}"#, 50.0, 1.2605),
    (r#"{"kind":"weibull","shape":1,"scale":0.02}"#, 50.0, 1.0),
    (r#"{"kind":"weibull","rate":50,"cv":2}"#, 50.0, 2.0),
    (r#"{"kind":"pareto","rate":50,"shape":6}"#, 50.0, 0.2041),
    (r#"{"kind":"mlperf","scenario":"server","target_qps":50}"#, 50.0, 1.0),
];

#[test]
fn renewal_processes_have_their_rate_and_variation() {
    for &(json, rate, cv) in PROCESSES {
        let s = summary(json, HOUR * 5);
        let (r, c) = (s.rate.unwrap(), s.cv.unwrap());
        // Over n = 900,000 requests the rate's standard error is cv/√n < 0.3 %; the variation of
        // heavy tails converges more slowly: 0.8 % for the log-normal gaps.
        assert!((r / rate - 1.0).abs() < 0.02, "{json}: rate {r}");
        assert!((c - cv).abs() < 0.03 * cv.max(0.01), "{json}: cv {c}");
        assert!((spec(json).mean_rate().unwrap() - rate).abs() < 1e-6, "{json}");
    }
}

#[test]
fn poisson_is_poisson_at_every_scale() {
    // Some load generators draw `poisson(mean gap)` as a gap, which is nearly periodic: its
    // variation is 1/√(mean in ms), 0.22 here, and so is its dispersion far below 1.
    let s = summary(r#"{"kind":"poisson","rate":50}"#, HOUR);
    assert!((s.cv.unwrap() - 1.0).abs() < 0.01, "{s:?}");
    // 3,600 bins: the standard error of a dispersion of 1 is √(2/3600) = 0.024.
    assert!((s.idc_1s.unwrap() - 1.0).abs() < 0.075, "{s:?}");
    let s = summary(r#"{"kind":"poisson","rate":50}"#, HOUR * 24);
    assert!((s.idc_60s.unwrap() - 1.0).abs() < 0.12, "{s:?}");
}

#[test]
fn long_runs_keep_time_exact() {
    // Gaps of a third of a second lose no fraction of a nanosecond over 100,000 of them.
    let all =
        take(r#"{"kind":"constant","rate":3,"phase":"0"}"#, 1, "t", Nanos::from_millis(33_333_500));
    assert_eq!(all.len(), 100_001);
    let last = all[99_999].arrival.0;
    assert!(last.abs_diff(33_333_000_000_000) <= 20, "{last}");
}

#[test]
fn constant_tenants_do_not_align_unless_told_to() {
    let first = |json, tenant| take(json, 1, tenant, HOUR)[0].arrival;
    let free = r#"{"kind":"constant","rate":10}"#;
    assert_ne!(first(free, "a"), first(free, "b"));
    assert!(first(free, "a") < Nanos::from_millis(100));
    let fixed = r#"{"kind":"constant","rate":10,"phase":"30ms"}"#;
    assert_eq!(first(fixed, "a"), Nanos::from_millis(30));
    assert_eq!(first(fixed, "b"), Nanos::from_millis(30));
}

#[test]
fn a_tenants_arrivals_depend_on_seed_and_name_alone() {
    let json = r#"{"kind":"gamma","rate":10,"cv":2}"#;
    let a = take(json, 7, "a", HOUR);
    assert_eq!(a, take(json, 7, "a", HOUR));
    assert_ne!(a, take(json, 8, "a", HOUR));
    assert_ne!(a, take(json, 7, "b", HOUR));
}

#[test]
fn markov_modulation_has_its_mean_rate_and_is_bursty() {
    let json = r#"{"kind":"mmpp","rates":[5,100],"dwell":["9s","1s"]}"#;
    let s = summary(json, HOUR * 10);
    let mean = spec(json).mean_rate().unwrap();
    assert!((mean - 14.5).abs() < 1e-9);
    assert!((s.rate.unwrap() / mean - 1.0).abs() < 0.05, "{s:?}");
    assert!(s.idc_1s.unwrap() > 20.0 && s.cv.unwrap() > 1.5, "{s:?}");
    let one = summary(r#"{"kind":"mmpp","rates":[50],"dwell":["1s"]}"#, HOUR);
    assert!((one.cv.unwrap() - 1.0).abs() < 0.02, "one state is Poisson: {one:?}");
}

#[test]
fn as_many_requests_come_as_are_expected() {
    let hour = Nanos::from_secs(3_600);
    for json in [
        r#"{"kind":"poisson","rate":7}"#,
        r#"{"kind":"mmpp","rates":[5,100],"dwell":["900ms","100ms"]}"#,
        r#"{"kind":"onoff","base":2,"peak":200,"start":"10s","len":"5s","ramp":"3s","period":"60s"}"#,
        r#"{"kind":"onoff","base":2,"peak":200,"start":"10min","len":"50s"}"#,
        r#"{"kind":"onoff","base":20,"peak":2,"start":"3h","len":"1s"}"#,
        r#"{"kind":"piecewise","points":[["0s",0],["100s",100],["200s",0]]}"#,
        r#"{"kind":"piecewise","points":[["10s",3],["100s",100],["200s",5]]}"#,
        r#"{"kind":"piecewise","points":[["0s",3],["10s",50],["20s",5]],"repeat":true}"#,
    ] {
        let expected = spec(json).expected(hour).unwrap();
        let came = take(json, 1, "t", HOUR).len() as f64;
        assert!(
            (came - expected).abs() < 5.0 * expected.sqrt() + 0.02 * expected,
            "{json}: {came}, {expected}"
        );
    }
}

#[test]
fn varying_rates_follow_their_shape() {
    let json = r#"{"kind":"onoff","base":2,"peak":200,"start":"10s","len":"5s","period":"60s"}"#;
    let all = take(json, 1, "t", HOUR);
    let on = all.iter().filter(|r| (10..15).contains(&(r.arrival.0 / 1_000_000_000 % 60))).count();
    let (on, off) = (on as f64, (all.len() - on) as f64);
    assert!((on / 60_000.0 - 1.0).abs() < 0.02, "on: {on}");
    assert!((off / 6_600.0 - 1.0).abs() < 0.05, "off: {off}");

    let json = r#"{"kind":"diurnal","rate":50,"amplitude":1,"period":"1h"}"#;
    let all = take(json, 1, "t", HOUR);
    let early = all.iter().filter(|r| r.arrival < Nanos::from_secs(1800)).count() as f64;
    // The first half of a sine of amplitude 1 holds 1/2 + 1/π of its mass.
    let share = early / all.len() as f64;
    assert!((share - (0.5 + 1.0 / std::f64::consts::PI)).abs() < 0.01, "{share}");

    let json = r#"{"kind":"piecewise","points":[["0s",0],["100s",100],["200s",0]]}"#;
    let all = take(json, 1, "t", HOUR);
    assert!((all.len() as f64 / 10_000.0 - 1.0).abs() < 0.04, "{}", all.len());
    assert!(all.last().unwrap().arrival < Nanos::from_secs(200));
}

#[test]
fn a_short_peak_costs_no_candidates_in_vain() {
    // A million times the base rate for a microsecond a minute: thinning by the peak alone would
    // draw a billion candidates for each second.
    let json = r#"{"kind":"onoff","base":10,"peak":1e9,"start":"30s","len":"1us","period":"1min"}"#;
    let n = take(json, 1, "t", HOUR).len() as f64;
    let want = 36_000.0 + 60.0 * 1_000.0;
    assert!((n - want).abs() < 6.0 * want.sqrt(), "{n}, not {want}");
    let json = r#"{"kind":"piecewise","points":[["0s",0],["1s",1e4],["1001ms",0],["60s",0]],"repeat":true}"#;
    let n = take(json, 1, "t", HOUR).len() as f64;
    let want = 60.0 * (5_000.0 + 5.0);
    assert!((n - want).abs() < 6.0 * want.sqrt(), "{n}, not {want}");
}

#[test]
fn generated_requests_have_tokens() {
    let plain = r#"{"kind":"poisson","rate":50}"#;
    let json = r#"{"kind":"poisson","rate":50,"tokens_in":512,"tokens_out":{"lognormal":[128,0.8],"max":1024}}"#;
    let all = take(json, 1, "t", HOUR);
    // Tokens have a stream of their own: they move no arrival.
    let times = |all: &[Request]| all.iter().map(|r| r.arrival).collect::<Vec<_>>();
    assert_eq!(times(&all), times(&take(plain, 1, "t", HOUR)));
    assert!(all.iter().all(|r| r.tokens_in == 512 && (1..=1024).contains(&r.tokens_out)));
    let mean = all.iter().map(|r| f64::from(r.tokens_out)).sum::<f64>() / all.len() as f64;
    // Cut at 1024 the mean is 0.5 % lower.
    assert!((mean / 128.0 - 1.0).abs() < 0.02, "{mean}");
    let written = serde_json::to_string(&spec(json)).unwrap();
    assert_eq!(spec(&written), spec(json), "{written}");
}

#[test]
fn a_process_that_ends_ends() {
    for json in [
        r#"{"kind":"onoff","base":0,"peak":100,"len":"1s"}"#,
        r#"{"kind":"piecewise","points":[["0s",100],["1s",0]],"interpolation":"step"}"#,
    ] {
        let mut arrivals = spec(json).open(Path::new("."), 1, "t").unwrap();
        let n = std::iter::from_fn(|| arrivals.next_request()).count();
        assert!((50..150).contains(&n), "{json}: {n}");
    }
}

#[test]
fn mlperf_scenarios_are_bursts_streams_or_loops() {
    let offline = take(r#"{"kind":"mlperf","scenario":"offline"}"#, 1, "t", HOUR);
    assert_eq!(offline.len(), 24_576);
    assert!(offline.iter().all(|r| *r == Request::at(Nanos::ZERO)));
    let multi = spec(r#"{"kind":"mlperf","scenario":"multistream"}"#).closed().unwrap();
    assert_eq!((multi.concurrency, multi.items), (1, 8));
    let closed = spec(r#"{"kind":"closed","concurrency":4,"think":"10ms","max_requests":9}"#);
    assert_eq!(closed.closed().unwrap().think, Nanos::from_millis(10));
    let error = closed.open(Path::new("."), 1, "t").err().unwrap().to_string();
    assert!(error.contains("closed loop"), "{error}");
}

#[test]
fn weibull_shapes_are_found_from_their_variation() {
    for cv in [0.3, 1.0, 2.0, 10.0] {
        let shape = Gap::weibull_shape(cv);
        assert!((Gap::weibull(shape).cv() / cv - 1.0).abs() < 1e-6, "{cv}: {shape}");
    }
    assert!((Gap::weibull_shape(1.0) - 1.0).abs() < 1e-6);
}

#[test]
fn every_error_names_its_field() {
    for (json, want) in [
        (r#"{"rate":1}"#, "arrivals.kind: is missing; known: constant, poisson"),
        (
            r#"{"kind":"poison","rate":1}"#,
            "arrivals.kind: `poison` is unknown; did you mean `poisson`?",
        ),
        (r#"{"kind":"poisson"}"#, "arrivals.rate: is missing: give requests/s, such as 120.0"),
        (
            r#"{"kind":"poisson","rat":1}"#,
            "arrivals.rat: `poisson` has no such field; did you mean `rate`? known: rate",
        ),
        (
            r#"{"kind":"poisson","rate":-1}"#,
            "arrivals.rate: `-1.0` is not a rate from 1e-9 to 1e9 requests/s",
        ),
        (r#"{"kind":"poisson","rate":"x"}"#, "arrivals.rate: `\"x\"` is not a finite number"),
        (r#"{"kind":"gamma","rate":1}"#, "arrivals.cv: give exactly one of `cv` and `burstiness`"),
        (r#"{"kind":"pareto","rate":1,"shape":1}"#, "arrivals.shape: is not above 1"),
        (r#"{"kind":"mmpp","rates":[1],"dwell":[]}"#, "arrivals.dwell: has not as many times"),
        (r#"{"kind":"closed","think":"3"}"#, "arrivals.think: `3` is not a duration"),
        (r#"{"kind":"closed","concurrency":0}"#, "arrivals.concurrency: is not at least 1"),
        (r#"{"kind":"closed","items":4294967295}"#, "arrivals.items: is not from 1 to 1000000"),
        (
            r#"{"kind":"mmpp","rates":[1,2],"dwell":["1ns","1ns"]}"#,
            "arrivals.dwell: changes the state 6.7e8 times for each request",
        ),
        (r#"{"kind":"poisson","rate":1,"tokens_in":5}"#, "arrivals.tokens_out: is missing beside"),
        (
            r#"{"kind":"trace","file":"a","tokens_in":5}"#,
            "arrivals.tokens_in: `trace` has no such field",
        ),
        (r#"{"kind":"mlperf","scenario":"server"}"#, "arrivals.target_qps: is missing"),
        (r#"{"kind":"trace"}"#, "arrivals.file: is missing: name a trace file"),
        (
            r#"{"kind":"trace","file":"a","format":"maf"}"#,
            "unknown trace format `maf`; did you mean",
        ),
        (
            r#"{"kind":"trace","file":"a","window":"9s"}"#,
            "transform `window:9s`: write it as `window:",
        ),
        (
            r#"{"kind":"piecewise","points":[["1s",1],["1s",2]]}"#,
            "arrivals.points: has times that do",
        ),
        (
            r#"{"kind":"onoff","peak":1,"len":"2s","period":"1s"}"#,
            "arrivals.period: is shorter than start + len + ramp",
        ),
    ] {
        let error = fails(json);
        assert!(error.starts_with(want), "{json}\n  {error}\n  {want}");
    }
}

#[test]
fn every_kind_says_what_it_is() {
    for kind in KINDS {
        assert!(!kind.summary.is_empty() && !kind.fields.is_empty(), "{}", kind.name);
    }
}

#[test]
fn a_specification_survives_being_written() {
    for &(json, ..) in PROCESSES {
        let written = serde_json::to_value(spec(json)).unwrap();
        assert_eq!(written["kind"], spec(json).kind(), "{written}");
    }
}
