//! `report.html`: one self-contained page that first answers, then shows why, then lists every number. It
//! loads nothing: style, script and pictures are inline, and its content security policy says so.

mod details;
mod ranking;

use std::collections::BTreeSet;
use std::fmt::Write as _;

use base64::Engine as _;
use cotenant_results::{Answer, Goal};
use maud::{DOCTYPE, Markup, PreEscaped, html};
use sha2::Digest as _;

use crate::Drawn;
use crate::figure::Data;
use crate::select::Context;
use crate::style::{self, Rgb};

/// Copies the text next to a button; without the script, the text can still be selected.
pub(crate) const SCRIPT: &str = include_str!("report.js");
pub(crate) const STYLE: &str = include_str!("report.css");
/// Most rows in a figure's table of numbers; the files have all of them.
const MAX_DATA: usize = 60;
/// Most repeats that an experiment file may ask for.
const MOST_REPEATS: u64 = 10_000;

/// The page.
pub(crate) fn html(cx: &Context<'_>, drawn: &[Drawn]) -> String {
    let run = cx.run;
    let answer = Answer::of(run, cx.results);
    let title = run.question.clone().unwrap_or_else(|| run.name.clone());
    let swept = answer.points.len() > 1;
    // A policy that is alone at every point has no rank: its figures are the answer.
    let ranked = !swept || answer.points.iter().any(cotenant_results::Point::has_rivals);
    let pieces = drawn.iter().filter_map(|d| d.figure.as_ref().ok()).flat_map(|f| &f.1);
    let style = format!("{STYLE}{}", dark_colors(pieces.map(String::as_str)));
    let stems: Vec<&str> =
        drawn.iter().filter(|d| d.figure.is_ok()).map(|d| d.stem.as_str()).collect();
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta http-equiv="Content-Security-Policy" content=(policy());
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (run.name) " – cotenant" }
                style { (PreEscaped(style)) }
            }
            body {
                a.skip href="#answer" { "Skip to the answer" }
                header {
                    (kicker(cx))
                    h1 { (title) }
                }
                main {
                    section.answer id="answer" aria-labelledby="answer-title" { (box_of(cx, &answer)) }
                    @if ranked { section id="policies" {
                        @if swept {
                            h2 { "Where which policy " @if answer.goals { "keeps the goals" } @else { "is best" } }
                            (ranking::map(cx, &answer))
                            details { summary { "Point by point" } (ranking::points(cx, &answer)) }
                        } @else if let Some(point) = answer.points.first() {
                            h2 { "Policies, best first" }
                            (ranking::table(cx, &answer, point))
                        }
                    } }
                    section id="figures" {
                        h2 { "Figures" }
                        @for plot in drawn { (figure(plot)) }
                    }
                    section id="details" {
                        h2 { "Details" }
                        details { summary { "Why" } (details::why(cx)) }
                        details id="caveats" open[!run.warnings.is_empty()] { summary { "Caveats" } (details::caveats(cx)) }
                        details { summary { "Tenants, policies, provenance" } (details::tenants(cx)) (details::policies(cx)) (details::provenance(cx)) }
                        details { summary { "All numbers" } (details::numbers(cx)) }
                        details { summary { "Files and repeat command" } (details::files(cx, &stems)) (repeat(cx)) }
                    }
                }
                script { (PreEscaped(SCRIPT)) }
            }
        }
    }
    .into_string()
}

/// The content security policy: nothing is loaded, and only the script of this page runs.
pub(crate) fn policy() -> String {
    let digest = sha2::Sha256::digest(SCRIPT.as_bytes());
    let hash = base64::engine::general_purpose::STANDARD.encode(digest);
    format!("default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{hash}'")
}

/// Text that contains `` `names` ``.
fn code(text: &str) -> Markup {
    html! {
        @for (i, part) in text.split('`').enumerate() {
            @if i % 2 == 1 { code { (part) } } @else { (part) }
        }
    }
}

/// Name, device, how the numbers were obtained, and what they are valid for.
fn kicker(cx: &Context<'_>) -> Markup {
    let run = cx.run;
    let kind = match &run.replay {
        None => "simulated".to_owned(),
        Some(r) if r.kind == "measured" => "measured".to_owned(),
        Some(r) if r.kind == "emulated" => "emulated, not measured".to_owned(),
        Some(_) => "on a stand-in, not measured".to_owned(),
    };
    let one = |of: fn(&cotenant_results::TenantInfo) -> &str| -> String {
        let all: BTreeSet<&str> = run.tenants.iter().map(of).filter(|v| !v.is_empty()).collect();
        all.into_iter().collect::<Vec<_>>().join(" and ")
    };
    let mut facts = vec![];
    let sources = cx.sources().join(" and ");
    if !sources.is_empty() {
        facts.push(format!("{sources} profiles"));
    }
    facts.extend([one(|t| &t.precision), one(|t| &t.executor)]);
    if !run.duration.is_empty() {
        let repeats = match run.seeds.len() {
            1 => "1 repeat".to_owned(),
            n => format!("{n} repeats"),
        };
        facts.push(format!("{} × {repeats}", run.duration));
    }
    if run.costs == "ideal" {
        facts.push("mechanisms cost nothing".to_owned());
    }
    facts.retain(|f| !f.is_empty());
    html! {
        p.kicker {
            strong { (run.name) }
            @if !run.device.title.is_empty() { " · " (run.device.title) }
            " " span.badge.source { (kind.to_uppercase()) }
            @if !facts.is_empty() { " " (facts.join(", ")) }
            " " a href="#caveats" { "why" }
        }
    }
}

fn box_of(cx: &Context<'_>, answer: &Answer) -> Markup {
    let sentences = answer.sentences();
    let file = format!("{}.toml", cx.run.name);
    html! {
        h2 id="answer-title" { "Answer" }
        @for s in sentences.iter().take(1) { p.lead { (code(s)) } }
        (deploy(cx))
        @for s in sentences.iter().skip(1) { p { (code(s)) } }
        @if let Some(headroom) = cx.run.headroom_words() { p { (code(&headroom)) } }
        @if answer.goals && answer.points.len() == 1 && cx.run.replay.is_none() {
            p.note {
                @if let Some(repeats) = repeats_to_decide(cx, answer) {
                    "To decide: " code { "cotenant run " (file) " --set repeats=" (repeats) } ". "
                }
                "Headroom of every policy: " code { "cotenant capacity " (file) } "."
            }
        }
    }
}

/// What to deploy, and how: the best policy, or the best one that is not a prototype.
fn deploy(cx: &Context<'_>) -> Markup {
    let winners = &cx.run.winners;
    html! {
        @if let [winner] = winners.as_slice() {
            @let best = winner.deployed();
            @let policy = cx.run.policies.iter().find(|p| p.label == best.label);
            @if !best.settings.is_empty() {
                p {
                    @if policy.and_then(|p| p.deployable) == Some(false) {
                        code { (best.label) } " is a research prototype, and no policy that deploys today may keep the "
                        "goals. Its settings:"
                    } @else {
                        "To deploy today: " strong { (best.label) }
                        @if !best.certain { ", undecided" }
                        @if best.tied { " (others do exactly as well)" }
                        @if winner.today.is_some() { " (" code { (winner.label) } " is a research prototype)" }
                        ":"
                    }
                }
                div.copy {
                    pre id="settings" tabindex="0" { (best.settings.join("\n")) }
                    button type="button" data-copy="settings" { "Copy" }
                }
            }
        } @else if !winners.is_empty() {
            details {
                summary { "Settings of the best, point by point" }
                @for w in winners.iter().take(20) {
                    p { strong { (w.point) } ": " code { (w.label) } @if !w.certain { " (undecided)" } }
                    pre tabindex="0" { (w.settings.join("\n")) }
                }
            }
        }
    }
}

/// Number of repeats that give the policy to deploy enough requests to decide its goals; `None` if they are
/// decided, or if the run would take unreasonably long.
fn repeats_to_decide(cx: &Context<'_>, answer: &Answer) -> Option<u64> {
    let ([point], [winner]) = (answer.points.as_slice(), cx.run.winners.as_slice()) else {
        return None;
    };
    let best = winner.today.as_deref().unwrap_or(winner);
    let line = point.lines.iter().find(|l| l.label == best.label)?;
    let factor =
        line.cells.iter().flatten().filter_map(|cell| match (cell.goal, cell.attainment) {
            (Goal::Undecided { more: Some(more) }, Some(a)) => Some(1.0 + more as f64 / a.n as f64),
            _ => None,
        });
    let repeats = factor.reduce(f64::max)? * cx.run.seeds.len() as f64;
    Some(repeats.ceil() as u64).filter(|n| *n <= MOST_REPEATS)
}

fn figure(plot: &Drawn) -> Markup {
    html! {
        @match &plot.figure {
            Ok((figure, pieces)) => {
                figure {
                    figcaption {
                        h3 { (figure.title) }
                        @for note in figure.notes.iter().filter(|n| !n.is_empty()) { p.note { (note) } }
                    }
                    div.picture.stacked[figure.stacked] {
                        @for (i, piece) in pieces.iter().enumerate() {
                            div.key[i >= figure.panels.len()] { (PreEscaped(piece)) }
                        }
                    }
                    @if !figure.data.rows.is_empty() {
                        details { summary { "Numbers of this figure" } (data(&figure.data)) }
                    }
                }
            }
            Err(reason) => {
                figure.missing { p { "Plot " code { (plot.stem) } " is missing: " (code(reason)) } }
            }
        }
    }
}

fn data(data: &Data) -> Markup {
    html! {
        div.scroll tabindex="0" {
            table.results {
                thead { tr { @for h in &data.head { th scope="col" { (h) } } } }
                tbody {
                    @for row in data.rows.iter().take(MAX_DATA) { tr { @for cell in row { td { (cell) } } } }
                }
            }
        }
        @if data.rows.len() > MAX_DATA { p.note { "The first " (MAX_DATA) " of " (data.rows.len()) " rows." } }
    }
}

fn repeat(cx: &Context<'_>) -> Markup {
    let run = cx.run;
    let seed = run.seeds.first().map_or(String::new(), |s| format!(" --seed {s}"));
    let command = match &run.replay {
        None => format!("cotenant run {}.toml{seed}", run.name),
        Some(r) => format!("cotenant replay {}.toml --on {}{seed}", run.name, r.on),
    };
    html! {
        div.copy {
            pre id="repeat" tabindex="0" { (command) }
            button type="button" data-copy="repeat" { "Copy" }
        }
        @if !run.config.is_empty() {
            details { summary { "Experiment file as resolved" } pre tabindex="0" { (run.config) } }
        }
    }
}

/// CSS rules that give the figures' colours their dark-mode shade.
pub(crate) fn dark_colors<'a>(pieces: impl Iterator<Item = &'a str>) -> String {
    let mut used: BTreeSet<&str> = BTreeSet::new();
    for svg in pieces {
        let colors = svg.match_indices("=\"#").filter_map(|(i, _)| svg.get(i + 2..i + 9));
        used.extend(colors);
    }
    let mut css = String::from("@media screen and (prefers-color-scheme: dark) {\n");
    let roles = [
        (style::INK, "ink"),
        (style::FAINT, "faint"),
        (style::GRID, "line"),
        (style::PAPER, "card"),
    ];
    for color in used {
        let Some(rgb) = Rgb::parse(color) else { continue };
        let value = match roles.iter().find(|(c, _)| *c == rgb) {
            Some((_, role)) => format!("var(--{role})"),
            // Tiles of heatmaps and the text on them stay as they are.
            None if style::stays(rgb) || rgb.on_dark() == rgb => continue,
            None => rgb.on_dark().hex(),
        };
        for what in ["fill", "stroke"] {
            let _ = writeln!(css, ".picture [{what}=\"{color}\"] {{ {what}: {value} }}");
        }
    }
    css + "}\n"
}
