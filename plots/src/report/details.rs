//! The folded parts: why, caveats, every number, files, provenance.

use std::path::Path;

use cotenant_results::columns::{LEADING, METRICS, NAMES, STATUS, has_numbers};
use cotenant_results::format::{fixed, plain_ms, pretty};
use cotenant_results::{Estimate, Metric, Row, WHOLE};
use maud::{Markup, html};

use super::code;
use crate::select::Context;

/// Most result rows shown on a page; `results.csv` has all of them.
const MAX_ROWS: usize = 100;

/// Metrics behind the answer: use of the GPU, and where the time of a request goes.
const BEHIND: [Metric; 11] = [
    Metric::CuUtilization,
    Metric::DramUtilization,
    Metric::Energy,
    Metric::Power,
    Metric::Clock,
    Metric::QueueMean,
    Metric::LatencyService,
    Metric::LatencyMean,
    Metric::BatchMean,
    Metric::Reconfigurations,
    Metric::Downtime,
];

/// Means by policy over all sweep points and tenants.
pub(super) fn why(cx: &Context<'_>) -> Markup {
    let table = cx.results;
    let whole: Vec<&Row> = table
        .rows
        .iter()
        .filter(|r| table.text(r, "tenant") == WHOLE && has_numbers(table.text(r, STATUS)))
        .collect();
    let labels = cx.ordered("label", table.distinct(&whole, "label"));
    let known: Vec<Metric> = BEHIND
        .into_iter()
        .filter(|m| whole.iter().any(|r| table.number(r, m.name()).is_some()))
        .collect();
    let mean = |label: &str, m: Metric| {
        let own = whole.iter().filter(|r| table.text(r, "label") == label);
        let values: Vec<f64> = own.filter_map(|r| table.number(r, m.name())).collect();
        Estimate::of(&values).map_or("–".to_owned(), |e| pretty(e.mean * m.column().scale))
    };
    let goals = table.rows.iter().any(|r| table.number(r, Metric::SloAttainment.name()).is_some());
    html! {
        p.note {
            "Means over all cells of a policy, " (cx.whole) ". Queueing is the wait for a worker; service is \
             the rest of a request's latency."
            @if goals { " The worst run is the repeat in which a tenant had the fewest requests in time." }
        }
        div.scroll tabindex="0" {
            table {
                thead { tr {
                    th scope="col" { "Policy" }
                    @for m in &known { th.num scope="col" { (m.column().title) small { (m.column().unit) } } }
                    @if goals { th scope="col" { "Worst run" small { "% in time" } } }
                } }
                tbody {
                    @for label in &labels {
                        tr {
                            th scope="row" { (label) }
                            @for m in &known { td.num { (mean(label, *m)) } }
                            @if goals { td { (worst(cx, label).unwrap_or("–".to_owned())) } }
                        }
                    }
                }
            }
        }
    }
}

/// The smallest share of a tenant's requests in time in any cell of a policy, with the tenant and the seed.
fn worst(cx: &Context<'_>, label: &str) -> Option<String> {
    let table = cx.results;
    let own = table
        .rows
        .iter()
        .filter(|r| table.text(r, "label") == label && table.text(r, "tenant") != WHOLE);
    let known = own.filter_map(|r| Some((table.number(r, Metric::SloAttainment.name())?, r)));
    let (share, row) = known.min_by(|a, b| a.0.total_cmp(&b.0))?;
    let (tenant, seed) = (table.text(row, "tenant"), table.text(row, "seed"));
    Some(format!("{} ({tenant}, seed {seed})", fixed((share * 1000.0).floor() / 10.0, 1)))
}

/// What readers must know before they trust the numbers.
pub(super) fn caveats(cx: &Context<'_>) -> Markup {
    let repeats = cx.run.seeds.len();
    html! {
        ul {
            li { "These numbers are " (cx.kind_of_numbers()) "." }
            @if cx.run.costs == "ideal" { li { "Mechanisms cost nothing (" code { "costs = \"ideal\"" } ")." } }
            @for w in &cx.run.warnings { li { (code(w)) } }
            @if let Some(held) = held_back(cx) { li { (held) } }
            li {
                "A goal is met when the whole 95 % interval of the share of requests in time is at or above \
                 99 %, missed when it is below, undecided otherwise. The interval is Wilson's over all \
                 requests of a tenant, or Student's over the repeats where that is wider. Requests of one \
                 run are not independent: "
                @if repeats < 3 { "with " (repeats) " repeat" @if repeats != 1 { "s" } ", true intervals may be wider." }
                @else { (repeats) " repeats keep that in check." }
            }
            li { "± is the 95 % confidence interval over the repeats. – means that there is no value." }
        }
    }
}

/// The power limit is mentioned if the clock falls below this share of the boost clock.
const HELD: f64 = 0.99;

/// Tells which policies the board's power limit slows down, if any.
fn held_back(cx: &Context<'_>) -> Option<String> {
    let boost = cx.run.device.boost_mhz?;
    let table = cx.results;
    let clock = |r: &Row| table.number(r, Metric::Clock.name()).map(|mhz| mhz / boost);
    // If a policy sets the clock, a low clock does not come from the power limit.
    let sets = |r: &Row| {
        let label = table.text(r, "label");
        let known = cx.run.policies.iter().find(|p| p.label == label);
        known.is_some_and(|p| p.options.contains("scaling = true"))
    };
    let whole = table.rows.iter().filter(|r| table.text(r, "tenant") == WHOLE && !sets(r));
    let mut least: Vec<(&str, f64)> = vec![];
    for (label, share) in whole.filter_map(|r| Some((table.text(r, "label"), clock(r)?))) {
        match least.iter_mut().find(|(known, _)| *known == label) {
            Some((_, low)) => *low = low.min(share),
            None => least.push((label, share)),
        }
    }
    least.retain(|(_, share)| *share < HELD);
    least.sort_by(|a, b| a.1.total_cmp(&b.1));
    let (label, share) = least.first()?;
    let others = match least.len() - 1 {
        0 => String::new(),
        1 => ", and one other policy less".to_owned(),
        n => format!(", and {n} other policies less"),
    };
    Some(format!(
        "The board's power limit binds: it holds the clock at {} % of {} MHz on average under {label}{others}. \
         Kernels share clock and power whatever divides the CUs, MIG instances included.",
        fixed(100.0 * share, 0),
        fixed(boost, 0),
    ))
}

/// Links to the files next to the page.
pub(super) fn files(cx: &Context<'_>, stems: &[&str]) -> Markup {
    let beside = [
        "results.csv",
        "layouts.csv",
        "gpus.csv",
        "run.json",
        "cdf.csv",
        "series.csv",
        "counters.csv",
        "curves.csv",
        "validation.csv",
    ];
    let there: Vec<&str> =
        beside.into_iter().filter(|f| Path::new(&cx.dir).join(f).is_file()).collect();
    html! {
        p { @for f in there { a href=(f) { (f) } " " } }
        @if !stems.is_empty() {
            p {
                "Figures: "
                @for s in stems {
                    (s) " ("
                    @for (i, end) in ["svg", "png", "pdf"].iter().enumerate() {
                        @if i > 0 { ", " }
                        a href=(format!("plots/{s}.{end}")) { (end) }
                    }
                    ") "
                }
            }
        }
    }
}

pub(super) fn tenants(cx: &Context<'_>) -> Markup {
    let ms = |v: Option<f64>| v.map_or("–".to_owned(), pretty);
    html! {
        @if !cx.run.tenants.is_empty() {
            div.scroll tabindex="0" {
                table {
                    thead {
                        tr {
                            @for h in ["Tenant", "Model", "Class", "Arrivals", "Goal"] {
                                th scope="col" { (h) }
                            }
                            th.num scope="col" { "Isolated p95" small { "ms" } }
                            th.num scope="col" { "Isolated rate" small { "requests/s" } }
                            th scope="col" { "Profile" }
                        }
                    }
                    tbody {
                        @for t in &cx.run.tenants {
                            tr {
                                th scope="row" { (t.name) }
                                td { (t.model) }
                                td { (dash(&t.class)) }
                                td { (dash(&t.arrivals)) }
                                td { (match (&t.slo, t.slo_ms) {
                                    (Some(text), _) => text.clone(),
                                    (None, Some(v)) => plain_ms(v),
                                    (None, None) => "none".to_owned(),
                                }) }
                                td.num { (ms(t.isolated_p95_ms)) }
                                td.num { (ms(t.isolated_rps)) }
                                td {
                                    @if !t.profile_source.is_empty() {
                                        span.badge.source { (t.profile_source) } " "
                                    }
                                    (dash(&t.profile))
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn dash(text: &str) -> &str {
    if text.is_empty() { "–" } else { text }
}

pub(super) fn policies(cx: &Context<'_>) -> Markup {
    html! {
        @if !cx.run.policies.is_empty() {
            div.scroll tabindex="0" {
                table {
                    thead {
                        tr {
                            @for h in ["Label", "Policy", "Options"] { th scope="col" { (h) } }
                        }
                    }
                    tbody {
                        @for p in &cx.run.policies {
                            tr {
                                th scope="row" { (p.label) }
                                td { (p.name) }
                                td { code.options { (dash(&p.options)) } }
                            }
                        }
                    }
                }
            }
        }
    }
}

pub(super) fn provenance(cx: &Context<'_>) -> Markup {
    let run = cx.run;
    let seeds: Vec<String> = run.seeds.iter().map(u64::to_string).collect();
    let seeds = match seeds.len() {
        0..=12 => seeds.join(", "),
        n => format!("{} … {} ({n})", seeds[0], seeds[n - 1]),
    };
    let rows = [
        ("Experiment digest", run.experiment_digest.clone()),
        ("Program", format!("cotenant {} at {}", run.version, run.commit)),
        ("Host", run.host.clone()),
        ("Device", format!("{} ({})", run.device.title, run.device.name)),
        ("Costs of mechanisms", run.costs.clone()),
        ("Seeds", seeds),
        ("Cells", run.cells.len().to_string()),
        ("Events", fixed(run.events as f64, 0)),
        ("Events per second, one thread", fixed(run.events_per_s, 0)),
        ("Wall-clock time", format!("{} s", pretty(run.wall_s))),
    ];
    html! {
        dl { @for (name, value) in &rows { div { dt { (name) } dd { (dash(value)) } } } }
        @if !run.cells.is_empty() {
            details {
                summary { "Event-stream digests, cell by cell" }
                div.scroll tabindex="0" { table {
                    thead { tr {
                        th scope="col" { "Cell" }
                        th.num scope="col" { "Events" }
                        th scope="col" { "Digest" }
                    } }
                    tbody { @for c in run.cells.iter().take(MAX_ROWS) {
                        tr {
                            td { (c.cell) }
                            td.num { (fixed(c.events as f64, 0)) }
                            td { code { (c.digest) } }
                        }
                    } }
                } }
            }
        }
    }
}

/// The first rows of `results.csv`, without empty columns.
pub(super) fn numbers(cx: &Context<'_>) -> Markup {
    let table = cx.results;
    let rows = &table.rows[..table.rows.len().min(MAX_ROWS)];
    // The experiment's name is already the name of the page.
    let keys = cx.run.sweep_keys.iter().map(String::as_str);
    let texts: Vec<&str> = LEADING[2..].iter().copied().chain(keys).chain(NAMES).collect();
    let known =
        |c: &&cotenant_results::Column| rows.iter().any(|r| table.number(r, c.name).is_some());
    let metrics: Vec<&cotenant_results::Column> = METRICS.iter().filter(known).collect();
    html! {
        p.note {
            @if rows.len() < table.rows.len() { "The first " (rows.len()) " of " (table.rows.len()) " rows; " }
            @else { "All " (rows.len()) " rows, as in " }
            a href="results.csv" { "results.csv" }
            @if rows.len() < table.rows.len() { " has them all" }
            ". A column's title says what it is."
        }
        div.scroll tabindex="0" {
            table.results {
                thead { tr {
                    @for c in &texts { th scope="col" { (c) } }
                    @for c in &metrics { th.num scope="col" title=(format!("{}: {}", c.axis(), c.doc)) { (c.name) } }
                    th scope="col" { (STATUS) }
                } }
                tbody {
                    @for row in rows {
                        @let status = table.text(row, STATUS);
                        tr.bad[status != "ok"] {
                            @for c in &texts { td { (table.text(row, c)) } }
                            @for c in &metrics {
                                td { @if let Some(n) = table.number(row, c.name) { (pretty(n)) } @else { "–" } }
                            }
                            td { (status) }
                        }
                    }
                }
            }
        }
    }
}
