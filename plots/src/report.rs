//! `report.html`: one self-contained page with the verdict, the plots, the results and where every
//! number comes from. It loads nothing: style and pictures are inline.

use maud::{DOCTYPE, Markup, PreEscaped, html};

use crate::Drawn;
use crate::format::{fixed, plain_ms, pretty};
use crate::select::Context;
use crate::verdict::{self, Cell, Line, Point, Slo, Verdict, with_interval};
use cotenant_results::Estimate;
use cotenant_results::columns::{LEADING, METRICS, NAMES, STATUS};

/// Sweep points and result rows that a page shows; beyond, `results.csv` is the better reader.
const MAX_POINTS: usize = 60;
/// Sweep points whose tables are listed one by one; more fold away behind one line.
const FEW_POINTS: usize = 8;
const MAX_ROWS: usize = 1500;

/// The page.
pub(crate) fn html(cx: &Context<'_>, drawn: &[Drawn]) -> String {
    let run = cx.run;
    let verdict = verdict::judge(cx);
    let title = run.question.clone().unwrap_or_else(|| run.name.clone());
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (run.name) " – cotenant" }
                style { (PreEscaped(include_str!("report.css"))) }
            }
            body {
                header {
                    p.kicker { (run.name) }
                    h1 { (title) }
                    p.facts { (facts(cx)) }
                    nav {
                        @for (id, name) in [
                            ("verdict", "Verdict"),
                            ("plots", "Plots"),
                            ("sources", "Where the numbers come from"),
                            ("results", "All results"),
                        ] { a href={ "#" (id) } { (name) } }
                    }
                }
                main {
                    (warnings(cx))
                    section id="verdict" {
                        h2 { "Verdict" }
                        p.reading { @for s in &verdict.reading { (code(s)) " " } }
                        (verdict_tables(cx, &verdict))
                    }
                    section id="plots" {
                        h2 { "Plots" }
                        @for plot in drawn { (figure(plot)) }
                    }
                    section id="sources" {
                        h2 { "Where the numbers come from" }
                        (tenants(cx))
                        (policies(cx))
                        (provenance(cx))
                    }
                    section id="results" {
                        h2 { "All results" }
                        (results(cx))
                        details {
                            summary { "Configuration as resolved" }
                            pre { (run.config) }
                        }
                    }
                }
            }
        }
    }
    .into_string()
}

/// Text with `` `names` `` in it.
fn code(text: &str) -> Markup {
    html! {
        @for (i, part) in text.split('`').enumerate() {
            @if i % 2 == 1 { code { (part) } } @else { (part) }
        }
    }
}

fn facts(cx: &Context<'_>) -> Markup {
    let run = cx.run;
    let device = &run.device;
    let mut parts = vec![];
    if !device.title.is_empty() {
        parts.push(format!("{} ({} CUs)", device.title, device.cus));
    }
    if !run.duration.is_empty() {
        let warm_up = match run.warmup.as_str() {
            "" | "0" | "0ns" | "0s" => String::new(),
            w => format!(" after {w} of warm-up"),
        };
        let how = match &run.replay {
            None => "simulated",
            Some(replay) if replay.kind == "measured" => "measured",
            Some(replay) if replay.kind == "emulated" => "emulated, not measured,",
            Some(_) => "on a stand-in, not measured,",
        };
        parts.push(format!("{} {how}{warm_up}", run.duration));
    }
    if let Some(replay) = &run.replay {
        parts.push(format!("replayed on {}", replay.device));
    }
    parts.push(match run.seeds.len() {
        1 => "1 repeat".to_owned(),
        n => format!("{n} repeats"),
    });
    if run.costs == "ideal" {
        parts.push("mechanisms cost nothing (costs = ideal)".to_owned());
    }
    html! { (parts.join(" · ")) }
}

fn warnings(cx: &Context<'_>) -> Markup {
    html! {
        @if !cx.run.warnings.is_empty() {
            aside.warnings {
                h2 { "Mind" }
                ul { @for w in &cx.run.warnings { li { (code(w)) } } }
            }
        }
    }
}

/// One table; for a sweep one for each point, folded away so that the plots are not pushed out of sight.
fn verdict_tables(cx: &Context<'_>, verdict: &Verdict) -> Markup {
    let n = verdict.points.len();
    let shown = &verdict.points[..n.min(MAX_POINTS)];
    let points = html! {
        @for (i, point) in shown.iter().enumerate() {
            @if point.name.is_empty() {
                (verdict_table(cx, verdict, point))
            } @else {
                details.point open[n <= 2 || (i == 0 && n <= FEW_POINTS)] {
                    summary { (point.name) @if let Some(best) = winner(point) { ": " span.badge { (best) } } }
                    (verdict_table(cx, verdict, point))
                }
            }
        }
        @if shown.len() < n {
            p.note { "The first " (shown.len()) " of " (n) " sweep points; the others stand in \
                results.csv." }
        }
    };
    html! {
        @if n > FEW_POINTS {
            details { summary { "Point by point: " (n) " sweep points" } (points) }
        } @else {
            (points)
        }
        p.note {
            "An SLO is met when at least " (fixed(verdict::SLO_TARGET * 100.0, 0))
            " % of a tenant's requests are answered within it (slo_attainment). Goodput, share, CU \
             use and energy are those of the whole GPU. "
            "± is the 95 % confidence interval over the repeats. – means that there is no value."
        }
    }
}

fn winner(point: &Point) -> Option<&str> {
    point.has_rivals().then_some(())?;
    point.lines.iter().find(|l| l.best).map(|l| l.label.as_str())
}

fn verdict_table(cx: &Context<'_>, verdict: &Verdict, point: &Point) -> Markup {
    // Jobs of a sweep that differ from point to point leave columns of which this one has nothing.
    let here: Vec<usize> = (0..verdict.tenants.len())
        .filter(|&i| point.lines.iter().any(|l| l.cells[i].is_some() || !l.failures.is_empty()))
        .collect();
    let bound = point.lines.iter().any(|l| l.share.is_some());
    let energy = point.lines.iter().any(|l| l.energy.is_some());
    let columns = Columns { tenants: here, bound, energy, best: point.has_rivals() };
    html! {
        div.scroll {
            table.verdict {
                thead {
                    tr {
                        th scope="col" { "Policy" }
                        @for &i in &columns.tenants {
                            th scope="col" { (verdict.tenants[i]) (slo_text(cx, &verdict.tenants[i])) }
                        }
                        th.num scope="col" { "Goodput" small { "requests/s" } }
                        @if bound { th.num scope="col" { "Share of ideal" small { "%" } } }
                        th.num scope="col" { "CU use" small { "% of CUs" } }
                        @if energy { th.num scope="col" { "Energy" small { "J" } } }
                    }
                }
                tbody {
                    @for line in &point.lines { (verdict_line(cx, line, &columns)) }
                }
            }
        }
    }
}

fn slo_text(cx: &Context<'_>, tenant: &str) -> Markup {
    let Some(t) = cx.run.tenants.iter().find(|t| t.name == tenant) else { return html! {} };
    let slo = match (&t.slo, t.slo_ms) {
        (Some(text), Some(ms)) if !text.contains("ms") => {
            format!("SLO {text} = {}", plain_ms(ms))
        }
        (Some(text), _) => format!("SLO {text}"),
        (None, Some(ms)) => format!("SLO {}", plain_ms(ms)),
        (None, None) => "no SLO".to_owned(),
    };
    html! { small { (t.model) } small { (slo) } }
}

/// What a verdict table has to show.
struct Columns {
    /// Indices of its tenants.
    tenants: Vec<usize>,
    bound: bool,
    energy: bool,
    /// Whether somebody can be best.
    best: bool,
}

fn verdict_line(cx: &Context<'_>, line: &Line, columns: &Columns) -> Markup {
    let best = line.best && columns.best;
    let color = cx.looks.label(&line.label).color;
    let swatch = format!("background:#{:02x}{:02x}{:02x}", color.0, color.1, color.2);
    let number = |e: &Option<Estimate>| e.as_ref().map_or("–".to_owned(), with_interval);
    html! {
        tr.best[best].bound[line.bound] {
            th scope="row" {
                span.swatch style=(swatch) {}
                (line.label)
                @if best { span.badge { "best" } }
                @if line.bound { small { "bound, not a policy" } }
            }
            @if line.cells.iter().all(Option::is_none) {
                td.failed colspan=(columns.tenants.len()) { (failures(line)) }
            } @else {
                @for (i, &tenant) in columns.tenants.iter().enumerate() {
                    td {
                        @match &line.cells[tenant] {
                            Some(cell) => (tenant_cell(cell)),
                            None => "–",
                        }
                        @if i == 0 && !line.failures.is_empty() { (failures(line)) }
                    }
                }
            }
            td.num { (number(&line.goodput)) }
            @if columns.bound {
                td.num { (line.share.map_or("–".to_owned(), |s| fixed(s * 100.0, 1))) }
            }
            td.num { (number(&line.cu)) }
            @if columns.energy { td.num { (number(&line.energy)) } }
        }
    }
}

fn failures(line: &Line) -> Markup {
    html! {
        @for (reason, n) in &line.failures {
            div.failed { "failed in " (n) " cell" @if *n != 1 { "s" } ": " (reason) }
        }
        @if line.failures.is_empty() { "–" }
    }
}

fn tenant_cell(cell: &Cell) -> Markup {
    let (class, word) = match cell.slo {
        Slo::Met => ("met", "✓ met"),
        Slo::Missed => ("missed", "✗ missed"),
        Slo::None => ("none", ""),
        Slo::Unknown => ("none", "no request completed"),
    };
    // Where no SLO is, what was delivered is the throughput.
    let rate = if cell.slo == Slo::None { &cell.throughput } else { &cell.goodput };
    let what = if cell.slo == Slo::None { "throughput" } else { "goodput" };
    html! {
        @if !word.is_empty() { span class=(class) { (word) } }
        @if cell.slo != Slo::None && let Some(a) = &cell.attainment {
            div { (verdict::percent(a.mean)) " % in time" }
        }
        @if let Some(p) = &cell.p99 { div { "p99 " (with_interval(p)) " ms" } }
        @if let Some(r) = rate { div { (what) " " (pretty(r.mean)) "/s" } }
    }
}

fn figure(plot: &Drawn) -> Markup {
    html! {
        @match &plot.svg {
            Ok(svg) => { figure { div.scroll.picture { (PreEscaped(svg)) } } }
            Err(reason) => {
                figure.missing {
                    p { "Plot " code { (plot.title) } " is missing: " (code(reason)) }
                }
            }
        }
    }
}

fn tenants(cx: &Context<'_>) -> Markup {
    let ms = |v: Option<f64>| v.map_or("–".to_owned(), pretty);
    html! {
        @if !cx.run.tenants.is_empty() {
            div.scroll {
                table {
                    thead {
                        tr {
                            @for h in ["Tenant", "Model", "Class", "Arrivals", "SLO"] {
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

fn policies(cx: &Context<'_>) -> Markup {
    html! {
        @if !cx.run.policies.is_empty() {
            div.scroll {
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

fn provenance(cx: &Context<'_>) -> Markup {
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
                div.scroll { table {
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

fn results(cx: &Context<'_>) -> Markup {
    let table = cx.results;
    // The experiment's name is the page's.
    let texts: Vec<&str> = LEADING[1..]
        .iter()
        .copied()
        .chain(cx.run.sweep_keys.iter().map(String::as_str))
        .chain(NAMES)
        .collect();
    html! {
        details {
            summary { "results.csv, " (table.rows.len()) " rows" }
            @if table.rows.len() > MAX_ROWS {
                p.note { "The first " (MAX_ROWS) " rows; all of them stand in results.csv." }
            }
            div.scroll {
                table.results {
                    thead { tr {
                        @for c in &texts { th scope="col" { (c) } }
                        @for c in &METRICS { th.num scope="col" title=(c.axis()) { (c.name) } }
                        th scope="col" { (STATUS) }
                    } }
                    tbody {
                        @for row in table.rows.iter().take(MAX_ROWS) {
                            @let status = table.text(row, STATUS);
                            tr.bad[status != "ok"] {
                                @for c in &texts { td { (table.text(row, c)) } }
                                @for c in &METRICS {
                                    td.num {
                                        @match table.number(row, c.name) {
                                            Some(n) => (n),
                                            None => "–",
                                        }
                                    }
                                }
                                td { (status) }
                            }
                        }
                    }
                }
            }
        }
    }
}
