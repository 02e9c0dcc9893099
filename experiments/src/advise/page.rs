//! The answer as a page: one file that opens from disk, in the style of the report.

mod layout;

use cotenant_plots::pages::{self, Way};
use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::answer::Answer;
use super::row::{Row, Served};
use super::table;
use crate::text::rounded;

/// Beyond this many times the goal every answer is too late.
const LATE: f64 = 3.0;

/// The page; `price` tells whether a price was given.
pub(crate) fn html(a: &Answer, price: bool) -> String {
    let device = &a.lab.setup.device.title;
    let chosen = a.choice.map(|c| &a.rows[c]);
    let (frontier, loads) = (frontier(a, price), loads(a));
    let style = pages::style(&[&frontier, &loads]) + layout::STYLE;
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta http-equiv="Content-Security-Policy" content=(pages::policy());
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { "How to share " (device) " – cotenant" }
                style { (PreEscaped(style)) }
            }
            body {
                a.skip href="#answer" { "Skip to the answer" }
                header {
                    p.kicker { strong { "advise" } " · " (device) " " span.badge.source { "SIMULATED" } }
                    h1 { "How should these models share it?" }
                    ul { @for t in &a.tenants { li { (asked(t)) } } }
                }
                main {
                    section.answer id="answer" aria-labelledby="answer-title" { (verdict(a)) }
                    @if let Some(row) = chosen {
                        section id="choice" {
                            h2 { "What it delivers" }
                            (layout::drawn(row, &a.lab))
                            (tenants(row))
                        }
                    }
                    section id="ways" { h2 { "Every way of sharing" } (ways(a, price)) }
                    section id="figures" {
                        h2 { "Figures" }
                        (figure(if price { "Goals met against price" } else { "Goals met against energy" },
                            "To the left and above is better.", &frontier))
                        @if loads.is_empty() {
                            p { "No tenant has a goal: there is no latency to hold against it." }
                        } @else {
                            (figure("Latency against load", "The worst p99 over its goal, as all rates grow; cut off at \
                                three times the goal.", &loads))
                        }
                    }
                    section id="settings" { h2 { "Settings" } (settings(a)) }
                    section id="sources" {
                        h2 { "Where the numbers come from" }
                        pre tabindex="0" { (table::sources(a)) }
                    }
                }
                script { (PreEscaped(pages::SCRIPT)) }
            }
        }
    }
    .into_string()
}

fn asked(t: &super::answer::Asked) -> String {
    let rate = t.rate_rps.map_or_else(String::new, |r| format!(" at {r} requests/s"));
    let goal = match (&t.goal, t.best_effort) {
        (Some(goal), _) => format!(", goal {goal}"),
        (None, true) => ", best-effort".to_owned(),
        (None, false) => String::new(),
    };
    let name = if t.name == t.model { t.name.clone() } else { format!("{} ({})", t.name, t.model) };
    format!("{name}{rate}{goal}")
}

fn verdict(a: &Answer) -> Markup {
    html! {
        h2 id="answer-title" { "Answer" }
        @if let Some(c) = a.choice {
            p.lead { strong { (a.rows[c].way) } ", because it is " (a.why) "." }
            div.copy {
                pre id="chosen" tabindex="0" { (a.rows[c].settings) }
                button type="button" data-copy="chosen" { "Copy" }
            }
        } @else {
            p.lead { "Nothing deploys for this mix on this device." }
        }
        @if let Some(r) = a.runner_up {
            p { "Runner-up: " strong { (a.rows[r].way) } " (" (a.rows[r].settings) ")." }
        }
        @if !a.flips.is_empty() { p { "When the choice flips: " (a.flips) "." } }
        @for m in &a.out_of_reach {
            p { span.missed { "Out of reach: " } (m.tenant) " " (table::out_of_reach(m)) "." }
        }
        @if !a.changes.is_empty() {
            ul { @for change in &a.changes { li { (change) "." } } }
        }
    }
}

fn number(x: Option<f64>) -> String {
    rounded(x).replace('-', "–")
}

/// Whether a goal is met, in the style of the report.
fn met(t: &Served) -> Markup {
    html! {
        @match (t.met, t.undecided) {
            (None, _) => { "–" },
            (Some(_), true) => { span.open { "undecided" } },
            (Some(true), _) => { span.met { "met" } },
            (Some(false), _) => { span.missed { "missed" } },
        }
    }
}

fn tenants(row: &Row) -> Markup {
    let cache = row.tenants.iter().any(|t| t.step_tokens.is_some());
    let mut head = vec![
        "tenant",
        "GPU",
        "goal",
        "p50 ms",
        "p99 ms",
        "± ms",
        "goal ms",
        "within goal",
        "requests/s",
        "inflation",
        "workers",
        "batch",
        "weights MiB",
        "activations",
        "contexts",
    ];
    if cache {
        head.push("cache");
    }
    let mib = |x: f64| format!("{x:.0}");
    html! {
        div.scroll tabindex="0" { table {
            thead { tr { @for h in head { th scope="col" { (h) } } } }
            tbody { @for t in &row.tenants { tr {
                th scope="row" { (t.tenant) } td { (t.gpu) } td { (met(t)) }
                td.num { (number(t.p50_ms.map(|i| i.mean))) }
                td.num { (number(t.p99_ms.map(|i| i.mean))) }
                td.num { (number(t.p99_ms.and_then(|i| i.half))) }
                td.num { (number(t.goal_ms)) }
                td.num { (t.attained.map_or_else(|| "–".to_owned(), |x| format!("{:.2} %", x * 100.0))) }
                td.num { (number(Some(t.rps))) }
                td { (number(t.inflation)) @if let Some(who) = &t.inflated_by { " by " (who) } }
                td.num { (t.workers) } td.num { (t.batch_max) }
                td.num { (mib(t.weights_mib)) } td.num { (mib(t.activations_mib)) } td.num { (mib(t.context_mib)) }
                @if cache { td.num { (mib(t.cache_mib)) } }
            } } }
        } }
        @for t in row.tenants.iter().filter(|t| t.step_tokens.is_some()) {
            p { (t.tenant) ": p99 to the first token " (number(t.ttft_p99_ms.map(|i| i.mean))) " ms (goal "
                (number(t.goal_ttft_ms)) "), per token " (number(t.tpot_p99_ms.map(|i| i.mean))) " ms (goal "
                (number(t.goal_tpot_ms)) "); " (t.batch_max) " sequences, steps of "
                (t.step_tokens.unwrap_or(0)) " tokens." }
        }
    }
}

fn ways(a: &Answer, price: bool) -> Markup {
    let head = table::headings(price);
    let columns = head.len() - 1;
    html! {
        div.scroll tabindex="0" { table {
            thead { tr { @for [_, long] in head { th scope="col" { (long) } } } }
            tbody { @for (i, r) in a.rows.iter().enumerate() { tr.best[a.choice == Some(i)] {
                th scope="row" { (r.way) }
                @if let Some(why) = &r.impossible {
                    td.wrap colspan=(columns) { (why) }
                } @else {
                    td.num { (r.gpus) }
                    td.num { span.met[r.goals_met == r.goals].missed[r.goals_met < r.goals] { (r.goals_met) "/" (r.goals) } }
                    td.num { (number(r.score.filter(|_| r.goals > 0).map(|s| s.ratio))) }
                    td.num { (number(Some(r.goodput_rps))) }
                    td.num { (number(r.headroom)) }
                    td.wrap { (table::worst_words(r, "–")) }
                    td.num { (format!("{:.0}", r.watts)) }
                    td.num { (number(r.kwh_per_million)) }
                    @if price { td.num { (number(r.price_per_million)) } }
                    td.num { (format!("{:.1}", r.change_s)) }
                    td.wrap { (r.settings) (table::remarks(r)) }
                }
            } } }
        } }
    }
}

fn figure(title: &str, note: &str, pieces: &[String]) -> Markup {
    html! {
        figure {
            figcaption { h3 { (title) } p.note { (note) } }
            div.picture {
                @for (i, piece) in pieces.iter().enumerate() {
                    div.key[i + 1 == pieces.len()] { (PreEscaped(piece)) }
                }
            }
        }
    }
}

/// The policy that a row is drawn like in other figures.
fn policy(row: &Row) -> Option<&'static str> {
    use super::space::Mechanism as M;
    let [member] = row.members.as_slice() else { return None };
    Some(match member.mechanism {
        M::TimeSlicing => "temporal",
        M::Streams => "streams",
        M::Mps => "mps",
        M::Percent => "mps-percent",
        M::Static => "mps-static",
        M::Mig => "mig",
        M::MigMps => return None,
        M::Krisp => "krisp",
    })
}

/// Goals met against the price of a million requests (or their energy, without a price).
fn frontier(a: &Answer, price: bool) -> Vec<String> {
    let x =
        if price { "price of a million requests" } else { "energy of a million requests (kWh)" };
    let ways = a.rows.iter().filter(|r| r.impossible.is_none());
    let ways = ways.filter_map(|r| {
        let x = if price { r.price_per_million } else { r.kwh_per_million }?;
        let (name, policy) = (r.way.clone(), policy(r));
        Some(Way { name, policy, points: vec![(x, r.goals_met as f64)] })
    });
    pages::frontier(x, "goals met", &ways.collect::<Vec<_>>())
}

/// The worst p99 over its goal as the load grows, for the best three.
fn loads(a: &Answer) -> Vec<String> {
    if a.curves.is_empty() {
        return vec![];
    }
    let way = |c: &super::answer::Curve| {
        let row = a.rows.iter().find(|r| r.way == c.way);
        Way { name: c.way.clone(), policy: row.and_then(policy), points: c.points.clone() }
    };
    let ways: Vec<Way> = a.curves.iter().map(way).collect();
    pages::curves("load, times that of the mix", "worst p99 over goal", (1.0, LATE), &ways)
}

/// Every file that deploys the choice.
fn settings(a: &Answer) -> Markup {
    let files = a.plan().map(|plan| cotenant_deploy::emit(&plan));
    html! {
        @match files {
            Some(Ok(files)) => {
                p { "The files that " code { "--emit" } " writes, ready to copy; README.md says which is for what." }
                @for (i, file) in files.iter().enumerate() {
                    details open[file.path == "README.md"] {
                        summary { (file.path) }
                        div.copy {
                            pre id={ "file-" (i) } tabindex="0" { (file.text) }
                            button type="button" data-copy={ "file-" (i) } { "Copy" }
                        }
                    }
                }
            },
            Some(Err(why)) => { p { (why) } },
            None => { p { "Nothing deploys." } },
        }
    }
}
