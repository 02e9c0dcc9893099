//! The answer in sentences.

use super::judge::{TARGET, numeric};
use super::{Answer, Cell, Goal, Line, Point, Standing};
use crate::format::{fixed, pretty};

pub(super) fn sentences(answer: &Answer) -> Vec<String> {
    match answer.points.as_slice() {
        [] => vec!["results.csv has no row: no cell was computed.".to_owned()],
        [point] => at_point(answer, point),
        points => over_sweep(answer, points),
    }
}

/// A percentage, rounded down: 98.999 must not read as 99.
fn percent(value: f64) -> String {
    fixed((value * 10.0 + 1e-7).floor() / 10.0, 1)
}

/// `98.2 % of text in time (95.1 to 99.3 %, n = 685)`.
fn open_goal(tenant: &str, cell: &Cell) -> Option<String> {
    let a = cell.attainment?;
    let Goal::Undecided { more } = cell.goal else { return None };
    let decide = match more {
        Some(n) => format!("about {} more decide", fixed(rounded(n), 0)),
        None => "too near the goal to decide".to_owned(),
    };
    Some(format!(
        "{tenant} {} % in time ({} to {} %, n = {}; {decide})",
        percent(a.mean),
        percent(a.low),
        percent(a.high),
        fixed(a.n as f64, 0)
    ))
}

/// A number of requests, rounded up to two digits.
fn rounded(n: u64) -> f64 {
    let n = n as f64;
    let unit = 10f64.powf((n.log10().floor() - 1.0).max(0.0));
    (n / unit).ceil() * unit
}

fn quoted(lines: &[&Line]) -> String {
    let names: Vec<String> = lines.iter().map(|l| format!("`{}`", l.label)).collect();
    match names.as_slice() {
        [] => String::new(),
        [one] => one.clone(),
        [head @ .., last] if names.len() <= 5 => format!("{} and {last}", head.join(", ")),
        _ => format!("{} and {} others", names[..4].join(", "), names.len() - 4),
    }
}

fn at_point(answer: &Answer, point: &Point) -> Vec<String> {
    let rivals: Vec<&Line> = point.rivals().collect();
    let mut text = vec![];
    if rivals.is_empty() {
        text.push("No policy delivered a result.".to_owned());
    } else if answer.goals {
        text.extend(goals(answer, &rivals));
    } else {
        text.extend(ranking(answer, &rivals));
    }
    text.extend(overload(answer, rivals.first().copied()));
    text.extend(bound(rivals.first().copied()));
    text.extend(failed(point));
    if let Some(over) = rivals.iter().find(|l| l.exceeds) {
        text.push(format!(
            "`{}` exceeds the bound `ideal`, which nothing can: treat these numbers as wrong.",
            over.label
        ));
    }
    text
}

fn goals(answer: &Answer, rivals: &[&Line]) -> Vec<String> {
    let of = |s: Standing| -> Vec<&Line> {
        rivals.iter().copied().filter(|l| l.standing() == s).collect()
    };
    let (keep, may, miss) = (of(Standing::Keeps), of(Standing::May), of(Standing::Misses));
    let all = match rivals[0].count(|g| g != Goal::None) {
        1 => "the goal",
        2 => "both goals",
        _ => "all goals",
    };
    let mut text = vec![];
    if !keep.is_empty() {
        let s = if keep.len() == 1 { "keeps" } else { "keep" };
        text.push(format!("{} {s} {all}.", quoted(&keep)));
    }
    if !may.is_empty() {
        let open = answer.tenants.iter().zip(&may[0].cells);
        let open: Vec<String> = open.filter_map(|(t, c)| open_goal(t, c.as_ref()?)).collect();
        let whose = if may.len() > 1 { format!("for `{}`, ", may[0].label) } else { String::new() };
        let list = open.join("; ");
        text.push(format!("{} may keep {all}, undecided: {whose}{list}.", quoted(&may)));
    }
    if keep.is_empty() && may.is_empty() {
        let near = rivals[0];
        let each = answer.tenants.iter().zip(&near.cells);
        let missed: Vec<String> = each
            .filter_map(|(t, c)| c.as_ref().filter(|c| c.goal == Goal::Missed).map(|c| (t, c)))
            .map(|(t, c)| {
                let a = c.attainment.map_or("–".to_owned(), |a| percent(a.mean));
                format!("{t} {a} % in time")
            })
            .collect();
        text.push(format!(
            "No policy keeps {all}. Nearest is `{}`: {} (the goal is {} %).",
            near.label,
            missed.join(", "),
            TARGET * 100.0
        ));
    } else if !miss.is_empty() {
        let who = if miss.len() <= 3 { quoted(&miss) } else { format!("{} others", miss.len()) };
        let s = if miss.len() == 1 { "does not" } else { "do not" };
        text.push(format!("{who} certainly {s}."));
    }
    text
}

fn ranking(answer: &Answer, rivals: &[&Line]) -> Vec<String> {
    let column = answer.rank_by.column();
    let value = |l: &Line| l.rank.map_or("–".to_owned(), |r| format!("{r} {}", column.unit));
    let first = rivals[0];
    let title = column.title.to_lowercase();
    let word = if answer.sign() < 0.0 { "lowest" } else { "highest" };
    let mut text = vec![match rivals {
        [_] => format!("`{}`: {} {}.", first.label, title, value(first)),
        _ => format!(
            "No tenant has a goal. `{}` has the {word} {title}: {}.",
            first.label,
            value(first)
        ),
    }];
    if let Some(next) = rivals.get(1) {
        let (a, b) = (first.rank, next.rank);
        let certain = match a.zip(b) {
            Some((a, b)) if a.half.is_none() || b.half.is_none() => {
                " (one repeat each: the order may be chance)"
            }
            Some((a, b)) if a.low() <= b.high() && b.low() <= a.high() => {
                " (their intervals overlap: the order is not certain)"
            }
            _ => "",
        };
        text.push(format!("Next is `{}` with {}{certain}.", next.label, value(next)));
    }
    text
}

fn overload(answer: &Answer, line: Option<&Line>) -> Option<String> {
    let line = line?;
    let of = answer.tenants.iter().zip(&line.cells);
    let over: Vec<String> = of
        .filter_map(|(t, c)| c.as_ref()?.overloaded.map(|o| (t, o)))
        .map(|(t, (offered, served))| {
            format!("`{t}` is offered {}/s and served {}/s", pretty(offered), pretty(served))
        })
        .collect();
    (!over.is_empty()).then(|| format!("Overloaded under `{}`: {}.", line.label, over.join(", ")))
}

/// How often tenants are overloaded, and the first case.
fn overload_in_sweep(answer: &Answer, points: &[Point]) -> Option<String> {
    let over = |l: &&Line| l.cells.iter().flatten().any(|c| c.overloaded.is_some());
    let mut lines = points.iter().flat_map(|p| p.lines.iter().filter(over).map(move |l| (p, l)));
    let (point, line) = lines.next()?;
    let all: usize = points.iter().map(|p| p.lines.len()).sum();
    let first = overload(answer, Some(line))?;
    Some(format!(
        "In {} of {all} combinations of policy and sweep point queues grow through the whole window. At {}: \
         {first}",
        1 + lines.count(),
        point.name
    ))
}

fn bound(line: Option<&Line>) -> Option<String> {
    let line = line?;
    let share = line.share.filter(|s| *s <= 1.0005)?;
    Some(format!(
        "`{}` delivers {} % of the goodput that the bound `ideal` allows.",
        line.label,
        fixed(share * 100.0, 1)
    ))
}

fn failed(point: &Point) -> Option<String> {
    let failing: Vec<&Line> = point.lines.iter().filter(|l| !l.failures.is_empty()).collect();
    let each = failing.iter().take(3).map(|l| {
        let (reason, n) = &l.failures[0];
        format!("`{}` ({n} cell{}: {reason})", l.label, if *n == 1 { "" } else { "s" })
    });
    let list: Vec<String> = each.collect();
    let more = match failing.len() {
        n if n > 3 => format!(" and {} others", n - 3),
        _ => String::new(),
    };
    (!list.is_empty()).then(|| format!("Failed: {}{more}.", list.join(", ")))
}

/// The best policy at a point.
#[derive(PartialEq)]
enum Winner<'a> {
    One(&'a str),
    /// The best ones do exactly the same.
    Several,
    /// All policies miss a goal for certain.
    Nobody,
}

fn winner<'a>(answer: &Answer, point: &'a Point) -> Winner<'a> {
    match point.best() {
        Some(best) => Winner::One(&best.label),
        None if answer.goals && point.rivals().all(|l| l.standing() == Standing::Misses) => {
            Winner::Nobody
        }
        None => Winner::Several,
    }
}

/// Longest list of sweep points in a sentence, characters; the map lists all of them.
const NAMED: usize = 120;

fn over_sweep(answer: &Answer, points: &[Point]) -> Vec<String> {
    if !answer.goals && !points.iter().any(Point::has_rivals) {
        return vec![format!(
            "One policy at {} sweep points: nothing to rank; the plots show how it answers.",
            points.len()
        )];
    }
    let n = points.len();
    let mut wins: Vec<(Winner<'_>, Vec<&Point>)> = Vec::new();
    for point in points {
        let winner = winner(answer, point);
        match wins.iter_mut().find(|(w, _)| *w == winner) {
            Some((_, at)) => at.push(point),
            None => wins.push((winner, vec![point])),
        }
    }
    let one = |w: &Winner<'_>| matches!(w, Winner::One(_));
    wins.sort_by_key(|(w, at)| (!one(w), std::cmp::Reverse(at.len())));
    let mut text = vec![];
    for (winner, at) in wins.iter().take(5) {
        let places = match at.len() {
            len if len == n => format!("at all {n} sweep points"),
            len => {
                let names: Vec<&str> = at.iter().map(|p| p.name.as_str()).collect();
                let names = Some(names.join("; ")).filter(|n| len <= 3 && n.len() <= NAMED);
                let names = names.map_or(String::new(), |n| format!(" ({n})"));
                format!("at {len} of {n} sweep points{names}")
            }
        };
        text.push(match winner {
            Winner::One(label) if answer.goals => {
                format!("`{label}` is best {places}: it keeps every goal, or may.")
            }
            Winner::One(label) => format!(
                "`{label}` has the best {} {places}.",
                answer.rank_by.column().title.to_lowercase()
            ),
            Winner::Nobody => format!("No policy keeps every goal {places}{}.", nearest(at)),
            Winner::Several => format!("Several policies do equally well {places}."),
        });
    }
    if answer.goals {
        text.extend(crossings(points));
    }
    text.extend(overload_in_sweep(answer, points));
    let failing = points.iter().flat_map(|p| &p.lines).filter(|l| !l.failures.is_empty()).count();
    if failing > 0 {
        text.push(format!("{failing} combinations of policy and sweep point have failed cells."));
    }
    text
}

/// Which policies come closest at points where none keeps every goal.
fn nearest(points: &[&Point]) -> String {
    let mut counts: Vec<(&str, usize)> = Vec::new();
    for point in points.iter().filter(|p| p.has_rivals()) {
        let Some(first) = point.rivals().next().map(|l| l.label.as_str()) else { continue };
        match counts.iter_mut().find(|(label, _)| *label == first) {
            Some((_, n)) => *n += 1,
            None => counts.push((first, 1)),
        }
    }
    counts.sort_by_key(|(_, n)| std::cmp::Reverse(*n));
    let list: Vec<String> =
        counts.iter().take(3).map(|(label, n)| format!("`{label}` at {n}")).collect();
    if list.is_empty() { String::new() } else { format!("; nearest: {}", list.join(", ")) }
}

/// Where, along a numeric key with all else equal, a policy stops keeping its goals.
fn crossings(points: &[Point]) -> Vec<String> {
    let keys = points.first().map_or(0, |p| p.values.len());
    if keys != 1 {
        return vec![];
    }
    let mut sorted: Vec<(f64, &Point)> =
        points.iter().filter_map(|p| Some((numeric(&p.values[0])?, p))).collect();
    if sorted.len() != points.len() {
        return vec![];
    }
    sorted.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut labels: Vec<&str> =
        sorted.iter().flat_map(|(_, p)| p.rivals()).map(|l| &*l.label).collect();
    labels.sort_unstable();
    labels.dedup();
    let mut list: Vec<(f64, String)> = vec![];
    for label in labels {
        let stands = |p: &Point| {
            p.lines.iter().find(|l| l.label == label).map(|l| l.standing() != Standing::Misses)
        };
        let at = sorted
            .windows(2)
            .find(|w| stands(w[0].1) == Some(true) && stands(w[1].1) == Some(false));
        if let Some(w) = at {
            let between = format!("`{label}` up to {}", w[0].1.values[0]);
            list.push((w[0].0, between));
        }
    }
    list.sort_by(|a, b| b.0.total_cmp(&a.0));
    let named: Vec<String> = list.into_iter().take(6).map(|l| l.1).collect();
    match named.is_empty() {
        true => vec![],
        false => vec![format!("Goals are kept, or may be, by {}.", named.join(", "))],
    }
}
