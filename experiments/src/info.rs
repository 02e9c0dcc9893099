//! `run.json`.

use std::collections::BTreeSet;

use cotenant_plots::{CellInfo, DeviceInfo, PolicyInfo, RunInfo, TenantInfo};
use cotenant_sim::Class;

use crate::config::Point;
use crate::models;
use crate::plan;
use crate::run::Finished;

/// The commit of the program, or `unknown`.
pub(crate) fn commit() -> &'static str {
    option_env!("COTENANT_COMMIT").unwrap_or("unknown")
}

/// Everything that plots and report need besides the tables.
pub(crate) fn of(done: &Finished<'_>, wall_s: f64) -> RunInfo {
    let e = done.e;
    let first = &e.points[0];
    // What was computed once for several cells counts once in the rate.
    let mut counted = BTreeSet::new();
    let (mut events, mut cpu_s) = (0, 0.0);
    for (cell, outcome) in done.each() {
        if counted.insert(&cell.work) {
            events += outcome.events;
            cpu_s += outcome.cpu_s;
        }
    }
    let cells = done.each().map(|(cell, o)| CellInfo {
        cell: cell.id.clone(),
        events: o.events,
        digest: format!("{:016x}", o.digest),
    });
    RunInfo {
        name: e.name.clone(),
        question: e.question.clone(),
        experiment_digest: plan::digest(e, done.cells),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        commit: commit().to_owned(),
        host: host(),
        seeds: e.seeds.clone(),
        events,
        wall_s,
        events_per_s: if cpu_s > 0.0 { events as f64 / cpu_s } else { 0.0 },
        cells: cells.collect(),
        device: DeviceInfo {
            name: first.device.name.clone(),
            title: first.device.title.clone(),
            cus: first.device.cus(),
        },
        costs: first.costs.name().to_owned(),
        duration: first.duration.to_string(),
        warmup: first.warmup.to_string(),
        config: e.text.clone(),
        tenants: (0..first.tenants.len()).map(|t| tenant(done, t)).collect(),
        policies: (0..first.policies.len()).map(|p| policy(&e.points, p)).collect(),
        sweep_keys: e.keys.clone(),
        plots: e.plots.clone(),
        warnings: warnings(done),
    }
}

/// The value that all points agree on.
fn agreed<T: PartialEq>(mut values: impl Iterator<Item = T>) -> Option<T> {
    let first = values.next()?;
    values.all(|v| v == first).then_some(first)
}

/// What all points agree on, `swept` where some have another; nothing where none has any.
fn swept_option(values: impl Iterator<Item = Option<String>> + Clone) -> Option<String> {
    let any = values.clone().any(|v| v.is_some());
    any.then(|| agreed(values).flatten().unwrap_or_else(|| "swept".to_owned()))
}

fn tenant(done: &Finished<'_>, t: usize) -> TenantInfo {
    let points = &done.e.points;
    let first = &points[0].tenants[t];
    let swept = |text: Option<String>| text.unwrap_or_else(|| "swept".to_owned());
    let ready = || done.prepared.iter();
    let isolated = agreed(ready().map(|p| p.isolated[t])).flatten();
    let slo = agreed(ready().map(|p| p.setup.tenants[t].slo)).flatten();
    // A swept SLO is no missing one: the report judges each point by its own.
    let words = swept_option(points.iter().map(|p| p.tenants[t].slo.map(|s| s.words())));
    TenantInfo {
        name: first.name.clone(),
        model: swept(agreed(points.iter().map(|p| p.tenants[t].model.clone()))),
        class: match first.class {
            Class::Latency => "latency".to_owned(),
            Class::BestEffort => "best-effort".to_owned(),
        },
        slo_ms: slo.map(|s| s.as_millis_f64()),
        slo: words,
        isolated_p95_ms: isolated.map(|i| i.p95.as_millis_f64()),
        isolated_rps: isolated.map(|i| i.rps),
        arrivals: swept(agreed(points.iter().map(|p| p.tenants[t].arrivals_text.clone()))),
        profile_source: models::source_name(done.prepared[0].profiles[t].profile.source).to_owned(),
        profile: swept(agreed(ready().map(|p| p.profiles[t].words.clone()))),
    }
}

fn policy(points: &[Point], p: usize) -> PolicyInfo {
    let first = &points[0].policies[p];
    let options = agreed(points.iter().map(|point| point.policies[p].options_text.clone()));
    PolicyInfo {
        label: first.label.clone(),
        name: first.info.name.to_owned(),
        options: options.unwrap_or_else(|| format!("{} (swept)", first.options_text)),
    }
}

fn warnings(done: &Finished<'_>) -> Vec<String> {
    let mut all: BTreeSet<String> =
        done.prepared.iter().flat_map(|p| &p.profiles).filter_map(|f| f.warning.clone()).collect();
    if done.e.points.iter().flat_map(|p| &p.tenants).any(|t| t.batch_max > 16) {
        all.insert(
            "analytic profiles above batch 16 hold four sizes per doubling: a batch in between \
             runs as the next larger one"
                .to_owned(),
        );
    }
    if done.e.points.iter().any(|p| p.contention == "none") {
        all.insert(
            "contention is switched off: co-running kernels slow each other by taking CUs alone"
                .to_owned(),
        );
    }
    all.into_iter().collect()
}

fn host() -> String {
    let told = std::fs::read_to_string("/proc/sys/kernel/hostname").ok();
    let told = told.or_else(|| std::env::var("HOSTNAME").ok());
    told.map_or_else(|| "unknown".to_owned(), |h| h.trim().to_owned())
}
