//! Every kind of figure and the report, drawn from a made-up result folder. Set
//! `COTENANT_PLOTS_GALLERY` to a folder to keep the pictures and look at them.

mod fixture;

use std::path::{Path, PathBuf};

use fixture::Fixture;

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
        assert_eq!(files.len(), 2 * plots + 1, "{files:?}");
        assert!(files.iter().all(|f| f.metadata().unwrap().len() > 1000));
    }
}
