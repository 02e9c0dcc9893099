//! Policies, best first, with their result for every goal; for sweeps, also the map of goals.

use cotenant_results::format::{fixed, plain_ms, pretty};
use cotenant_results::{Answer, Cell, Goal, Line, Point, Standing};
use maud::{Markup, html};

use super::code;
use crate::select::Context;

/// Rows that are visible at once; the others are folded away behind a line.
const OPEN: usize = 4;
/// Most sweep points shown on a page; for more, `results.csv` is easier to read.
const MAX_POINTS: usize = 60;

/// A percentage, rounded down: 98.999 must not read as 99.
fn percent(value: f64) -> String {
    fixed((value * 10.0 + 1e-7).floor() / 10.0, 1)
}

/// The ranking of a point: the best rows, the others and the bound folded away.
pub(super) fn table(cx: &Context<'_>, answer: &Answer, point: &Point) -> Markup {
    let rivals: Vec<&Line> = point.lines.iter().filter(|l| !l.bound).collect();
    let bounds: Vec<&Line> = point.lines.iter().filter(|l| l.bound).collect();
    // Showing one more row takes less room than a line that says there is one.
    let open = if rivals.len() <= OPEN + 1 { rivals.len() } else { OPEN };
    let (mut open, mut folded) = (rivals[..open].to_vec(), rivals[open..].to_vec());
    // The policy to deploy today is always visible.
    let winner = cx.run.winners.iter().find(|w| w.point == point.name);
    let today = winner.and_then(|w| w.today.as_ref()).map(|t| t.label.as_str());
    if let Some(i) = folded.iter().position(|l| Some(l.label.as_str()) == today) {
        open.push(folded.remove(i));
    }
    html! {
        (rows(cx, answer, point, &open))
        @if !folded.is_empty() {
            details { summary { (folded.len()) " more" } (rows(cx, answer, point, &folded)) }
        }
        @if !bounds.is_empty() {
            details {
                summary { "Bound" }
                p.note { "What no way of sharing can exceed. It is computed, not a policy." }
                (rows(cx, answer, point, &bounds))
            }
        }
    }
}

fn rows(cx: &Context<'_>, answer: &Answer, point: &Point, lines: &[&Line]) -> Markup {
    // Jobs of a sweep that differ from point to point add columns that are empty at this point.
    let here: Vec<usize> = (0..answer.tenants.len())
        .filter(|&i| point.lines.iter().any(|l| l.cells[i].is_some() || !l.failures.is_empty()))
        .collect();
    let rank = answer.rank_by.column();
    html! {
        div.scroll tabindex="0" {
            table.ranking {
                thead { tr {
                    th scope="col" { "Policy" }
                    @for &i in &here {
                        @let (model, goal) = goal_text(cx, &answer.tenants[i]);
                        th scope="col" { (answer.tenants[i]) small { (model) } small { (goal) } }
                    }
                    th.num scope="col" { (rank.title) small { (rank.unit) } }
                    th.what scope="col" { "What it does" }
                } }
                tbody { @for line in lines { (row(cx, answer, line, &here)) } }
            }
        }
    }
}

/// A tenant's model and goal, in words.
fn goal_text<'a>(cx: &Context<'a>, tenant: &str) -> (&'a str, String) {
    let Some(t) = cx.run.tenants.iter().find(|t| t.name == tenant) else {
        return ("", String::new());
    };
    let goal = match (&t.slo, t.slo_ms) {
        (Some(text), Some(ms)) if !text.contains("ms") => {
            format!("within {} ms ({text})", pretty(ms))
        }
        (Some(text), _) if text == "swept" => "goal swept".to_owned(),
        (Some(text), _) => format!("within {text}"),
        (None, Some(ms)) => format!("within {}", plain_ms(ms)),
        (None, None) => "no goal".to_owned(),
    };
    (&t.model, goal)
}

fn row(cx: &Context<'_>, answer: &Answer, line: &Line, tenants: &[usize]) -> Markup {
    let swatch = format!("background:{}", cx.looks.label(&line.label).color.hex());
    let policy = cx.run.policies.iter().find(|p| p.label == line.label);
    html! {
        tr.best[line.best].bound[line.bound] {
            th scope="row" {
                span.swatch style=(swatch) {}
                (line.label)
                @if line.label != line.policy { small { (line.policy) } }
                @match policy.and_then(|p| p.deployable) {
                    _ if line.bound => {}
                    Some(true) => { small.deployable { "deployable today" } }
                    Some(false) => { small { "research" } }
                    None => {}
                }
            }
            @if line.cells.iter().all(Option::is_none) {
                td.failed colspan=(tenants.len()) { (failures(line)) }
            } @else {
                @for (i, &t) in tenants.iter().enumerate() {
                    @let tenant = &answer.tenants[t];
                    td data-label={ (tenant) ", " (goal_text(cx, tenant).1) } {
                        @match &line.cells[t] { Some(cell) => (tenant_cell(cell)), None => "–" }
                        @if i == 0 && !line.failures.is_empty() { (failures(line)) }
                    }
                }
            }
            td.num data-label=(answer.rank_by.column().title) { (line.rank.map_or("–".to_owned(), |r| r.to_string())) }
            td.what { (policy.map_or("", |p| p.summary.as_str())) }
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
    let interval = |c: &Cell| {
        c.attainment.map_or(String::new(), |a| {
            format!(
                "{} % ({} to {}, n = {})",
                percent(a.mean),
                percent(a.low),
                percent(a.high),
                fixed(a.n as f64, 0)
            )
        })
    };
    html! {
        @match cell.goal {
            Goal::Met => { span.met { "● met" } }
            Goal::Missed => { span.missed { "✗ missed" } }
            Goal::Undecided { .. } => { span.open { "◐ undecided" } }
            Goal::Unknown => { "no request completed" }
            Goal::None => { @if let Some(t) = cell.throughput { (t) "/s" } }
        }
        @if cell.goal != Goal::None && cell.attainment.is_some() { small { (interval(cell)) } }
        @if let Goal::Undecided { more: Some(more) } = cell.goal { small { "about " (fixed(more as f64, 0)) " more requests decide" } }
        @if let Some(p) = &cell.p99 { small { "p99 " (p) " ms" } }
        @if let Some((offered, served)) = cell.overloaded {
            small.missed { "overloaded: offered " (pretty(offered)) "/s, served " (pretty(served)) "/s" }
        }
    }
}

/// Policy by sweep point: which policy keeps every goal where, or how it ranks if there is no goal.
pub(super) fn map(cx: &Context<'_>, answer: &Answer) -> Markup {
    let shown = &answer.points[..answer.points.len().min(MAX_POINTS)];
    let labels: Vec<String> = {
        let mut all: Vec<String> = vec![];
        for line in shown.iter().flat_map(|p| &p.lines).filter(|l| !l.bound) {
            if !all.contains(&line.label) {
                all.push(line.label.clone());
            }
        }
        let score = |label: &String| {
            let of = shown.iter().filter_map(|p| {
                let i = p.rivals().position(|l| &l.label == label)?;
                Some(if answer.goals {
                    p.rivals().nth(i).map_or(2, |l| l.standing() as usize)
                } else {
                    i
                })
            });
            let all: Vec<usize> = of.collect();
            (all.iter().sum::<usize>() * 1000).checked_div(all.len()).unwrap_or(usize::MAX)
        };
        all.sort_by_key(score);
        all
    };
    let keys = &cx.run.sweep_keys;
    html! {
        p.note {
            @if answer.goals { "Goals of all tenants: ● kept, ◐ undecided, ✗ missed, × failed." }
            @else { "Rank by " (answer.rank_by.column().title.to_lowercase()) ", 1 is best." }
        }
        div.scroll tabindex="0" {
            table.map {
                thead {
                    @for (k, key) in keys.iter().enumerate() {
                        tr {
                            th scope="row" { small { (cotenant_results::format::key_axis(key, cx.unit(key))) } }
                            @for p in shown { th scope="col" { (p.values[k]) } }
                        }
                    }
                }
                tbody {
                    @for label in &labels {
                        tr {
                            th scope="row" { (label) }
                            @for p in shown { (mark(answer, p, label)) }
                        }
                    }
                }
            }
        }
        @if shown.len() < answer.points.len() {
            p.note { "The first " (shown.len()) " of " (answer.points.len()) " sweep points; the others are in results.csv." }
        }
    }
}

fn mark(answer: &Answer, point: &Point, label: &str) -> Markup {
    let Some(line) = point.lines.iter().find(|l| l.label == label) else {
        return html! { td { "" } };
    };
    if !line.failures.is_empty() && line.goodput.is_none() {
        return html! { td.none title="failed" { "×" } };
    }
    let place = point.rivals().position(|l| l.label == label).map_or(0, |i| i + 1);
    if !answer.goals {
        return html! { td.keeps[line.best] { (place) } };
    }
    let says = format!("{label} at {}", point.name);
    match line.standing() {
        Standing::Keeps => html! { td.keeps.first[line.best] title=(says) { "●" } },
        Standing::May => html! { td.may.first[line.best] title=(says) { "◐" } },
        Standing::Misses => html! { td.misses title=(says) { "✗" } },
    }
}

/// One table for each point of a sweep, folded away.
pub(super) fn points(cx: &Context<'_>, answer: &Answer) -> Markup {
    let shown = &answer.points[..answer.points.len().min(MAX_POINTS / 3)];
    html! {
        @for point in shown {
            details.point {
                summary { (point.name) @if let Some(best) = point.best() { ": " (code(&format!("`{}`", best.label))) } }
                (table(cx, answer, point))
            }
        }
        @if shown.len() < answer.points.len() {
            p.note { "The first " (shown.len()) " of " (answer.points.len()) " sweep points." }
        }
    }
}
