//! The answer as a page: one file that opens from disk, in the style of the report.

use std::fmt::Write as _;

use cotenant_deploy::Sharing;
use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::answer::Answer;
use super::lab::Lab;
use super::row::Row;
use super::table;

/// The page. `price`: whether a price was given.
pub(crate) fn html(a: &Answer, price: bool) -> String {
    let device = &a.lab.setup.device.title;
    let chosen = a.choice.map(|c| &a.rows[c]);
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { "How to share " (device) " – cotenant" }
                style { (PreEscaped(cotenant_plots::REPORT_STYLE)) }
            }
            body {
                header {
                    p.kicker { "advise" }
                    h1 { @match chosen {
                        Some(row) => { (row.way) ": " (row.settings) },
                        None => { "Nothing deploys for this mix on this device" },
                    } }
                    p.facts { (a.mix) " – on " (device) }
                }
                main {
                    section id="answer" {
                        h2 { "Answer" }
                        (verdict(a))
                        @if let Some(row) = chosen { (layout(row, &a.lab)) (tenants(row)) }
                    }
                    section id="ways" { h2 { "Every way of sharing" } (ways(a, price)) }
                    section id="frontier" { h2 { "Goals against price" } (frontier(a, price)) }
                    section id="load" { h2 { "Latency against load" } (loads(a)) }
                    section id="settings" { h2 { "Settings" } (settings(a)) }
                    section id="sources" {
                        h2 { "Where the numbers come from" }
                        pre { (table::sources(a)) }
                    }
                }
            }
        }
    }
    .into_string()
}

fn verdict(a: &Answer) -> Markup {
    html! {
        @if let Some(c) = a.choice {
            p.reading { "Chosen is " b { (a.rows[c].way) } ", because it is " (a.why) "." }
        }
        @if let Some(r) = a.runner_up {
            p { "Runner-up: " (a.rows[r].way) " (" (a.rows[r].settings) ")." }
        }
        @if !a.flips.is_empty() { p { "When the choice flips: " (a.flips) "." } }
        @if !a.out_of_reach.is_empty() {
            ul { @for m in &a.out_of_reach {
                li { "Out of reach: " (m.tenant) " " (table::out_of_reach(m)) "." }
            } }
        }
        @if !a.changes.is_empty() {
            ul { @for change in &a.changes { li { (change) "." } } }
        }
    }
}

fn number(x: Option<f64>) -> String {
    crate::text::rounded(x)
}

fn tenants(row: &Row) -> Markup {
    html! {
        table {
            thead { tr { @for h in ["tenant", "GPU", "p50 ms", "p99 ms", "± ms", "goal ms", "within goal", "requests/s", "inflation", "workers", "batch", "memory MiB"] { th { (h) } } } }
            tbody { @for t in &row.tenants { tr {
                td { (t.tenant) } td { (t.gpu) }
                td { (number(t.p50_ms.map(|i| i.mean))) }
                td { (number(t.p99_ms.map(|i| i.mean))) }
                td { (number(t.p99_ms.and_then(|i| i.half))) }
                td { (number(t.goal_ms)) }
                td { (t.attained.map_or_else(|| "–".to_owned(), |x| format!("{:.2} %", x * 100.0))) }
                td { (number(Some(t.rps))) }
                td { (number(t.inflation)) }
                td { (t.workers) } td { (t.batch_max) }
                td { (format!("{:.0}", t.weights_mib + t.activations_mib + t.context_mib + t.cache_mib)) }
            } } }
        }
        @for t in row.tenants.iter().filter(|t| t.step_tokens.is_some()) {
            p { (t.tenant) ": p99 to the first token " (number(t.ttft_p99_ms.map(|i| i.mean))) " ms (goal "
                (number(t.goal_ttft_ms)) "), per token " (number(t.tpot_p99_ms.map(|i| i.mean))) " ms (goal "
                (number(t.goal_tpot_ms)) "); " (t.batch_max) " sequences, steps of "
                (t.step_tokens.unwrap_or(0)) " tokens, a cache of " (format!("{:.0}", t.cache_mib)) " MiB." }
        }
    }
}

fn ways(a: &Answer, price: bool) -> Markup {
    html! {
        table {
            thead { tr {
                @for h in ["way", "GPUs", "goals met", "worst p99 / goal", "goodput/s", "headroom", "W", "kWh per million"] { th { (h) } }
                @if price { th { "price per million" } }
                th { "change s" } th { "settings" }
            } }
            tbody { @for r in &a.rows { tr {
                td { (r.way) }
                @if let Some(why) = &r.impossible {
                    td colspan="10" { (why) }
                } @else {
                    td { (r.gpus) } td { (r.goals_met) "/" (r.goals) }
                    td { (number(r.score.filter(|_| r.goals > 0).map(|s| s.ratio))) }
                    td { (number(Some(r.goodput_rps))) }
                    td { (number(r.headroom)) }
                    td { (format!("{:.0}", r.watts)) }
                    td { (number(r.kwh_per_million)) }
                    @if price { td { (number(r.price_per_million)) } }
                    td { (format!("{:.1}", r.change_s)) }
                    td { (r.settings) @if let Some(n) = r.needs { " (needs " (n) ")" } }
                }
            } } }
        }
    }
}

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 220.0;
const LEFT: f64 = 60.0;
const COLOURS: [&str; 5] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00"];

/// The GPU as a bar: who has which part of it.
fn layout(row: &Row, lab: &Lab) -> Markup {
    let cus = f64::from(lab.setup.device.cus());
    html! {
        @for (index, gpu) in row.plan.iter().enumerate() {
            @let parts = parts(&gpu.sharing, gpu.tenants.len(), lab);
            svg viewBox={ "0 0 " (WIDTH) " 64" } role="img" aria-label={ "Layout of GPU " (index) } {
                text x="0" y="12" fill="currentColor" font-size="12" { "GPU " (index) ": " (gpu.sharing.words()) }
                @for part in &parts {
                    @let (x, width) = (part.from / cus * WIDTH, part.cus / cus * WIDTH);
                    rect x=(x) y="20" width=(width) height="28" fill=(COLOURS[part.colour % COLOURS.len()])
                        fill-opacity=(if part.exclusive { "0.85" } else { "0.35" }) stroke="currentColor" {}
                    text x=(x + 4.0) y="38" font-size="11" fill="currentColor" {
                        (part.tenants.iter().map(|&i| gpu.tenants[i].name.as_str()).collect::<Vec<_>>().join(", "))
                    }
                    text x=(x + 4.0) y="60" font-size="10" fill="currentColor" { (part.what) }
                }
            }
        }
    }
}

/// A part of a GPU.
struct Part {
    from: f64,
    cus: f64,
    tenants: Vec<usize>,
    what: String,
    exclusive: bool,
    colour: usize,
}

fn parts(sharing: &Sharing, tenants: usize, lab: &Lab) -> Vec<Part> {
    let device = &lab.setup.device;
    let mut from = 0.0;
    let mut parts = vec![];
    let mut add = |cus: f64, who: Vec<usize>, what: String, exclusive: bool| {
        parts.push(Part { from, cus, colour: parts.len(), tenants: who, what, exclusive });
        from += cus;
    };
    match sharing {
        Sharing::Static { chunks } => {
            let unit = device.mps.map_or(1, |m| m.chunk_cus);
            for (i, &c) in chunks.iter().enumerate() {
                add(f64::from(c * unit), vec![i], format!("{} SMs", c * unit), true);
            }
        }
        Sharing::Mig { instances, place, .. } => {
            for (slot, name) in instances.iter().enumerate() {
                let table = device.mig.as_ref();
                let profile = table.and_then(|t| t.profiles.iter().find(|p| p.name == *name));
                let cus = profile.map_or(0, |p| p.cus);
                let who = (0..tenants).filter(|&i| place.get(i) == Some(&slot)).collect();
                add(f64::from(cus), who, format!("{name}, {cus} SMs"), true);
            }
        }
        _ => {
            let all = (0..tenants).collect();
            add(f64::from(device.cus()), all, format!("{} SMs, shared", device.cus()), false);
        }
    }
    parts
}

/// Goals met against what a million requests cost (or the GPUs, without a price).
fn frontier(a: &Answer, price: bool) -> Markup {
    let rows: Vec<&Row> = a.rows.iter().filter(|r| r.impossible.is_none()).collect();
    let x_of = |r: &Row| {
        if price { r.price_per_million.unwrap_or(0.0) } else { r.kwh_per_million.unwrap_or(0.0) }
    };
    let most = rows.iter().map(|r| x_of(r)).fold(1e-9, f64::max);
    let unit = if price { "price of a million requests" } else { "kWh for a million requests" };
    let goals = rows.iter().map(|r| r.goals).max().unwrap_or(1).max(1) as f64;
    let x = |v: f64| LEFT + v / most * (WIDTH - LEFT - 140.0);
    let y = |v: f64| HEIGHT - 30.0 - v / goals * (HEIGHT - 60.0);
    html! {
        svg viewBox={ "0 0 " (WIDTH) " " (HEIGHT) } role="img" aria-label="Goals met against price" {
            (axes(unit, "goals met"))
            @for (i, r) in rows.iter().enumerate() {
                @let (px, py) = (x(x_of(r)), y(r.goals_met as f64));
                circle cx=(px) cy=(py) r="4" fill=(COLOURS[i % COLOURS.len()]) {}
                text x=(px + 7.0) y=(py + 4.0 + 11.0 * (i % 3) as f64 - 11.0) font-size="10" fill="currentColor" { (r.way) }
            }
        }
        p { "To the left and above is better; x from 0 to " (number(Some(most))) ", y from 0 to " (goals) "." }
    }
}

/// The worst p99 over its goal as the load grows, of the best three.
fn loads(a: &Answer) -> Markup {
    if a.curves.is_empty() {
        return html! { p { "No tenant has a goal: there is nothing to compare." } };
    }
    let longest = a.curves.iter().flat_map(|c| &c.points).map(|p| p.0).fold(1.0, f64::max);
    let x = |v: f64| LEFT + v / longest * (WIDTH - LEFT - 160.0);
    // Up to three times the goal; beyond, everybody is too late.
    let y = |v: f64| HEIGHT - 30.0 - v.min(3.0) / 3.0 * (HEIGHT - 60.0);
    html! {
        svg viewBox={ "0 0 " (WIDTH) " " (HEIGHT) } role="img" aria-label="Latency against load" {
            (axes("load against the mix's", "worst p99 / goal"))
            line x1=(LEFT) x2=(WIDTH - 160.0) y1=(y(1.0)) y2=(y(1.0)) stroke="currentColor" stroke-dasharray="4 3" {}
            @for (i, curve) in a.curves.iter().enumerate() {
                @let colour = COLOURS[i % COLOURS.len()];
                polyline fill="none" stroke=(colour) stroke-width="2" points=(points(&curve.points, x, y)) {}
                @if let Some(last) = curve.points.last() {
                    text x=(x(last.0) + 6.0) y=(y(last.1) + 4.0 + 12.0 * i as f64) font-size="11" fill=(colour) { (curve.way) }
                }
            }
        }
        p { "Dashed: the goal. x from 0 to " (number(Some(longest))) " times the load, y from 0 to 3." }
    }
}

fn points(list: &[(f64, f64)], x: impl Fn(f64) -> f64, y: impl Fn(f64) -> f64) -> String {
    let mut text = String::new();
    for &(load, ratio) in list {
        let _ = write!(text, "{:.1},{:.1} ", x(load), y(ratio));
    }
    text
}

fn axes(x: &str, y: &str) -> Markup {
    let (bottom, right) = (HEIGHT - 30.0, WIDTH - 20.0);
    html! {
        line x1=(LEFT) x2=(right) y1=(bottom) y2=(bottom) stroke="currentColor" {}
        line x1=(LEFT) x2=(LEFT) y1="20" y2=(bottom) stroke="currentColor" {}
        text x=(LEFT) y=(HEIGHT - 10.0) font-size="11" fill="currentColor" { (x) }
        text x="4" y="14" font-size="11" fill="currentColor" { (y) }
    }
}

/// Every file that deploys the choice.
fn settings(a: &Answer) -> Markup {
    let files = a.plan().map(|plan| cotenant_deploy::emit(&plan));
    html! {
        @match files {
            Some(Ok(files)) => {
                p { "The same files as `--emit` writes." }
                @for file in &files { details { summary { (file.path) } pre { (file.text) } } }
            },
            Some(Err(why)) => { p { (why) } },
            None => { p { "Nothing deploys." } },
        }
    }
}
