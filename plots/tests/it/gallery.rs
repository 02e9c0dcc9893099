//! Every kind of figure and the report, drawn from a made-up result folder. Set
//! `COTENANT_PLOTS_GALLERY` to a folder to keep the pictures and look at them.

use std::path::{Path, PathBuf};

use crate::fixture::Fixture;

/// Where to write: a folder that goes away, or one to look at.
fn folder(name: &str) -> (Option<tempfile::TempDir>, PathBuf) {
    match std::env::var_os("COTENANT_PLOTS_GALLERY") {
        Some(root) => {
            let dir = Path::new(&root).join(name);
            std::fs::create_dir_all(&dir).unwrap();
            (None, dir)
        }
        None => {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().to_owned();
            (Some(dir), path)
        }
    }
}

const PLAIN: &str = r#"
    [[plot]]
    kind = "bars"
    y = "throughput_rps"
    by = "label"
    [[plot]]
    kind = "bars"
    y = "latency_p99_ms"
    [[plot]]
    kind = "bars"
    y = "cu_utilization"
    [[plot]]
    kind = "cdf"
    [[plot]]
    kind = "timeline"
    [[plot]]
    kind = "timeline"
    y = "latency_p95_ms"
    by = "tenant"
    where = { label = "krisp" }
    [[plot]]
    kind = "curves"
    [[plot]]
    kind = "curves"
    by = "batch"
    y = "slowdown"
    name = "curves-relative"
    [[plot]]
    kind = "parity"
    [[plot]]
    kind = "pareto"
"#;

const ONE_KEY: &str = r#"
    [[plot]]
    kind = "lines"
    y = "goodput_rps"
    [[plot]]
    kind = "lines"
    y = "latency_p99_ms"
    tenant = "each"
    log = "xy"
    [[plot]]
    kind = "bars"
    [[plot]]
    kind = "pareto"
    tenant = "each"
"#;

const TWO_KEYS: &str = r#"
    [[plot]]
    kind = "heatmap"
    y = "goodput_rps"
    [[plot]]
    kind = "bars"
    y = "slo_attainment"
    where = { label = ["krisp", "temporal"] }
"#;

fn sweeps() -> [(&'static str, Vec<&'static str>); 2] {
    [
        ("tenant.vision.arrivals.rate", vec!["60", "120", "240"]),
        ("policy.temporal.quantum", vec!["1ms", "2ms", "5ms", "10ms"]),
    ]
}

#[test]
fn every_kind_is_drawn_as_svg_and_png() {
    let cases = [
        ("plain", Fixture::plain(PLAIN), 10),
        ("one-key", Fixture { sweep: sweeps()[..1].to_vec(), ..Fixture::plain(ONE_KEY) }, 4),
        ("two-keys", Fixture { sweep: sweeps().to_vec(), ..Fixture::plain(TWO_KEYS) }, 2),
    ];
    for (name, fixture, plots) in cases {
        let (_keep, dir) = folder(name);
        fixture.write(&dir);
        let files = cotenant_plots::draw(&dir).unwrap();
        assert_eq!(files.len(), 3 * plots + 1, "{files:?}");
        assert!(files.iter().all(|f| f.metadata().unwrap().len() > 1000));
    }
}

/// Draws the plain fixture once and returns its folder.
fn plain() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    Fixture { repeats: 2, ..Fixture::plain(PLAIN) }.write(dir.path());
    cotenant_plots::draw(dir.path()).unwrap();
    dir
}

#[test]
fn axes_carry_units_and_policies_their_colours() {
    let dir = plain();
    let svg = |name: &str| std::fs::read_to_string(dir.path().join("plots").join(name)).unwrap();
    for (name, axes) in [
        ("bars-throughput_rps.svg", vec!["Throughput (requests/s)"]),
        ("bars-cu_utilization.svg", vec!["CU utilisation (% of CUs)"]),
        ("cdf.svg", vec!["Latency (ms)", "Requests answered within (%)", "goal"]),
        ("timeline-latency_p95_ms.svg", vec!["Time (s)", "p95 latency (ms)"]),
        ("curves.svg", vec!["CUs given (CUs)", "Latency (ms)"]),
        ("parity.svg", vec!["Latency, simulated (ms)", "Rate, replayed (requests/s)"]),
        ("pareto.svg", vec!["(ms)", "Goodput, higher is better (requests/s)"]),
    ] {
        let text = svg(name);
        for axis in axes {
            assert!(text.contains(axis), "{name} lacks `{axis}`");
        }
    }
    // mps and krisp, as fixed for every figure of every experiment.
    for name in ["bars-throughput_rps.svg", "cdf.svg", "pareto.svg", "timeline.svg"] {
        let text = svg(name);
        assert!(text.contains("#045d8f") && text.contains("#ce5800"), "{name}");
    }
}

#[test]
fn the_report_is_self_contained_and_says_what_the_table_says() {
    let dir = plain();
    let page = std::fs::read_to_string(dir.path().join("report.html")).unwrap();
    for loads in ["src=", "@import", "<link", "url(http"] {
        assert!(!page.contains(loads), "{loads}");
    }
    // One script, and a policy that lets no other run and nothing be loaded.
    assert_eq!(page.matches("<script").count(), 1);
    assert!(page.contains("default-src 'none'") && page.contains("script-src 'sha256-"));
    assert!(page.contains("&lt;script&gt;"), "the configuration is shown, escaped");
    for said in [
        "<code>KRISP-I</code> keeps both goals.",
        "SIMULATED",
        "Numbers of this figure",
        "failed in 2 cells: out-of-memory: vision needs 9.1GiB of 8GiB",
        "vgg19 has no measured profile on mi50: analytic",
        "imported",
        "9f86d081884c7d65",
        "15,500,000",
    ] {
        assert!(page.contains(said), "{said}");
    }
}

#[test]
fn drawing_twice_gives_the_same_bytes() {
    let dir = plain();
    let read = || {
        let svg = std::fs::read(dir.path().join("plots/pareto.svg")).unwrap();
        (svg, std::fs::read(dir.path().join("report.html")).unwrap())
    };
    let first = read();
    cotenant_plots::draw(dir.path()).unwrap();
    assert!(first == read());
}

#[test]
fn run_json_reads_back_and_no_plot_tables_means_the_default_ones() {
    let fixture = Fixture { repeats: 1, ..Fixture::plain("") };
    let dir = tempfile::tempdir().unwrap();
    fixture.write(dir.path());
    let read = cotenant_results::RunInfo::read(&dir.path().join("run.json")).unwrap();
    assert_eq!(read, fixture.run());
    assert_eq!(cotenant_plots::draw(dir.path()).unwrap().len(), 10);
}

#[test]
fn curves_are_drawn_without_an_experiment() {
    let dir = tempfile::tempdir().unwrap();
    Fixture::plain("").write(dir.path());
    let table = dir.path().join("curves.csv");
    let files = cotenant_plots::draw_curves(&table, dir.path(), "AMD Radeon MI50").unwrap();
    assert_eq!(files.len(), 3);
}
