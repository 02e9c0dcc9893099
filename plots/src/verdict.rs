//! Which policy meets which SLO at what goodput, and what that means in a sentence: computed from
//! `results.csv`, for every sweep point.

use crate::format::{fixed, pretty};
use crate::select::{Context, WHOLE};
use cotenant_results::Estimate;
use cotenant_results::Row;
use cotenant_results::columns::{Column, STATUS, metric};

/// A tenant's SLO counts as met when `slo_attainment` is at least this: the p99 is within it.
pub(crate) const SLO_TARGET: f64 = 0.99;

/// Goodputs that differ by less than this share are the same.
const TIE: f64 = 1e-6;

/// Whether an SLO is met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Slo {
    Met,
    Missed,
    /// The tenant has none.
    None,
    /// It has one, and no request to judge by.
    Unknown,
}

/// One tenant under one policy.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Cell {
    pub(crate) slo: Slo,
    pub(crate) attainment: Option<Estimate>,
    pub(crate) p99: Option<Estimate>,
    pub(crate) goodput: Option<Estimate>,
    pub(crate) throughput: Option<Estimate>,
}

/// One policy at one sweep point.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Line {
    pub(crate) label: String,
    /// `ideal` bounds the others and does not compete.
    pub(crate) bound: bool,
    /// One for each tenant of the verdict.
    pub(crate) cells: Vec<Option<Cell>>,
    pub(crate) goodput: Option<Estimate>,
    /// Share of the bound's goodput, averaged over the repeats.
    pub(crate) share: Option<f64>,
    pub(crate) cu: Option<Estimate>,
    pub(crate) energy: Option<Estimate>,
    /// Reasons of failed cells with how many repeats failed.
    pub(crate) failures: Vec<(String, usize)>,
    /// The one that meets every SLO with most goodput.
    pub(crate) best: bool,
}

/// One sweep point; without a sweep there is one, unnamed.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Point {
    pub(crate) name: String,
    pub(crate) lines: Vec<Line>,
}

impl Point {
    /// More than one policy competes: one alone wins nothing.
    pub(crate) fn has_rivals(&self) -> bool {
        self.lines.iter().filter(|l| !l.bound).count() > 1
    }
}

/// The whole verdict.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Verdict {
    pub(crate) tenants: Vec<String>,
    pub(crate) points: Vec<Point>,
    /// The plain reading, a few sentences.
    pub(crate) reading: Vec<String>,
}

impl Line {
    fn count(&self, slo: Slo) -> usize {
        self.cells.iter().flatten().filter(|c| c.slo == slo).count()
    }

    fn has_slo(&self) -> bool {
        self.cells.iter().flatten().any(|c| c.slo != Slo::None)
    }

    /// Every repeat succeeded and every SLO is met.
    fn meets_all(&self) -> bool {
        let judged = self.count(Slo::Missed) + self.count(Slo::Unknown) == 0;
        self.failures.is_empty() && judged && self.goodput.is_some()
    }

    fn total(&self) -> f64 {
        self.goodput.map_or(f64::NEG_INFINITY, |g| g.mean)
    }
}

/// Judges the run.
pub(crate) fn judge(cx: &Context<'_>) -> Verdict {
    let table = cx.results;
    let all: Vec<&Row> = table.rows.iter().collect();
    let tenants: Vec<String> =
        table.distinct(&all, "tenant").into_iter().filter(|t| t != WHOLE).collect();
    let tenants = cx.ordered("tenant", tenants);
    let labels = cx.ordered("label", table.distinct(&all, "label"));
    let mut points: Vec<Point> = sweep_points(cx, &all)
        .into_iter()
        .map(|at| {
            let rows: Vec<&Row> =
                all.iter().copied().filter(|r| covers(&sweep_of(cx, r), &at)).collect();
            let of = |label: &String| line(cx, &rows, label, &tenants);
            let mut lines: Vec<Line> = labels.iter().filter_map(of).collect();
            shares(cx, &rows, &mut lines);
            Point { name: point_name(cx, &at), lines }
        })
        .collect();
    points.iter_mut().for_each(mark_best);
    let reading = read(&points, &tenants);
    Verdict { tenants, points, reading }
}

fn sweep_of(cx: &Context<'_>, row: &Row) -> Vec<String> {
    cx.run.sweep_keys.iter().map(|k| cx.results.text(row, k).to_owned()).collect()
}

/// Whether a row at `a` belongs to the point `b`: a key that does not concern the row is empty.
fn covers(a: &[String], b: &[String]) -> bool {
    a.iter().zip(b).all(|(a, b)| a == b || a.is_empty())
}

/// Sweep points, the most specific ones.
fn sweep_points(cx: &Context<'_>, rows: &[&Row]) -> Vec<Vec<String>> {
    let mut points: Vec<Vec<String>> = Vec::new();
    for row in rows {
        let at = sweep_of(cx, row);
        if !points.contains(&at) {
            points.push(at);
        }
    }
    let specific = |a: &&Vec<String>| !points.iter().any(|b| b != *a && covers(a, b));
    points.iter().filter(specific).cloned().collect()
}

fn point_name(cx: &Context<'_>, at: &[String]) -> String {
    let keys = cx.run.sweep_keys.iter().zip(at).filter(|(_, v)| !v.is_empty());
    keys.map(|(k, v)| cx.show(k, v)).collect::<Vec<_>>().join(", ")
}

fn line(cx: &Context<'_>, rows: &[&Row], label: &String, tenants: &[String]) -> Option<Line> {
    let table = cx.results;
    let own: Vec<&Row> = rows.iter().copied().filter(|r| table.text(r, "label") == label).collect();
    let whole: Vec<&Row> =
        own.iter().copied().filter(|r| table.text(r, "tenant") == WHOLE).collect();
    let first = own.first()?;
    let mut failures: Vec<(String, Vec<&str>)> = Vec::new();
    for row in own.iter().filter(|r| table.text(r, STATUS) != "ok") {
        let (reason, cell) = (table.text(row, STATUS), table.text(row, "cell"));
        match failures.iter_mut().find(|(r, _)| r == reason) {
            Some((_, cells)) if cells.contains(&cell) => {}
            Some((_, cells)) => cells.push(cell),
            None => failures.push((reason.to_owned(), vec![cell])),
        }
    }
    let cell = |t: &String| {
        let rows: Vec<&Row> = own
            .iter()
            .copied()
            .filter(|r| table.text(r, "tenant") == t && table.text(r, STATUS) == "ok")
            .collect();
        (!rows.is_empty()).then(|| tenant_cell(cx, t, &rows))
    };
    Some(Line {
        label: label.clone(),
        bound: table.text(first, "policy") == "ideal",
        cells: tenants.iter().map(cell).collect(),
        goodput: mean(cx, &whole, "goodput_rps"),
        share: None,
        cu: mean(cx, &whole, "cu_utilization"),
        energy: mean(cx, &whole, "energy_j"),
        failures: failures.into_iter().map(|(r, cells)| (r, cells.len())).collect(),
        best: false,
    })
}

fn tenant_cell(cx: &Context<'_>, tenant: &str, rows: &[&Row]) -> Cell {
    let attainment = mean(cx, rows, "slo_attainment");
    let info = cx.run.tenants.iter().find(|t| t.name == tenant);
    let promised = info.is_some_and(|t| t.slo_ms.is_some() || t.slo.is_some());
    let throughput = mean(cx, rows, "throughput_rps");
    let slo = match attainment {
        // The column is in percent here.
        Some(a) if a.mean >= SLO_TARGET * 100.0 => Slo::Met,
        Some(_) => Slo::Missed,
        // Where requests with deadlines completed, there is an attainment.
        None if promised && throughput.is_none_or(|t| t.mean == 0.0) => Slo::Unknown,
        None => Slo::None,
    };
    Cell {
        slo,
        attainment,
        p99: mean(cx, rows, "latency_p99_ms"),
        goodput: mean(cx, rows, "goodput_rps"),
        throughput,
    }
}

/// Mean over rows that differ in the repeat alone, in the drawn unit.
fn mean(cx: &Context<'_>, rows: &[&Row], name: &str) -> Option<Estimate> {
    let column: &Column = metric(name)?;
    let ok = rows.iter().filter(|r| cx.results.text(r, STATUS) == "ok");
    let values: Vec<f64> = ok.filter_map(|r| cx.results.number(r, name)).collect();
    Estimate::of(&values).map(|e| e.within(0.0, column.most()).scaled(column.scale))
}

/// Shares of the bound, repeat by repeat: both saw the same arrivals.
/// The class of tenants whose latency matters, as `run.json` words it.
const LATENCY_CLASS: &str = "latency";

/// Goodput as a share of the bound's, of the tenants that the bound serves first: latency-critical
/// ones, where there are both kinds. What best-effort tenants get is only what is left.
fn shares(cx: &Context<'_>, rows: &[&Row], lines: &mut [Line]) {
    let Some(bound) = lines.iter().find(|l| l.bound).map(|l| l.label.clone()) else { return };
    let latency =
        |tenant: &str| cx.run.tenants.iter().any(|t| t.name == tenant && t.class == LATENCY_CLASS);
    let some = cx.run.tenants.iter().any(|t| t.class == LATENCY_CLASS);
    let goodput = |label: &str, repeat: &str| {
        let of_label = |r: &&&Row| {
            cx.results.text(r, "label") == label && cx.results.text(r, "repeat") == repeat
        };
        let counts = |r: &&&Row| {
            let tenant = cx.results.text(r, "tenant");
            if some { latency(tenant) } else { tenant == WHOLE }
        };
        let mut each = rows.iter().filter(of_label).filter(counts).peekable();
        each.peek()?;
        each.map(|row| cx.results.number(row, "goodput_rps")).sum::<Option<f64>>()
    };
    let repeats = cx.results.distinct(rows, "repeat");
    for line in lines {
        let ratios: Vec<f64> = repeats
            .iter()
            .filter_map(|r| Some(goodput(&line.label, r)? / goodput(&bound, r)?))
            .filter(|r| r.is_finite())
            .collect();
        line.share = Estimate::of(&ratios).map(|e| e.mean);
    }
}

/// Whoever meets every SLO with the most goodput; nobody where the next does exactly as well, as
/// where all finish the same fixed work.
fn mark_best(point: &mut Point) {
    let ranked = ranked(point);
    let tied = |a: &Line, b: &Line| {
        b.meets_all() && (a.total() - b.total()).abs() <= TIE * a.total().abs()
    };
    let best = ranked.first().filter(|l| l.meets_all());
    let best = best.filter(|l| !ranked.get(1).is_some_and(|next| tied(l, next)));
    let best = best.map(|l| l.label.clone());
    for line in &mut point.lines {
        line.best = Some(&line.label) == best.as_ref();
    }
}

/// Policies that compete, best first: those that meet every SLO by goodput, then by SLOs met.
fn ranked(point: &Point) -> Vec<&Line> {
    let mut lines: Vec<&Line> =
        point.lines.iter().filter(|l| !l.bound && l.goodput.is_some()).collect();
    lines.sort_by(|a, b| {
        b.meets_all()
            .cmp(&a.meets_all())
            .then(b.count(Slo::Met).cmp(&a.count(Slo::Met)))
            .then(b.total().total_cmp(&a.total()))
    });
    lines
}

/// `156.21 ± 0.27`: two digits of the interval, and the mean to the same place, but no more than five
/// digits of it: an interval below that is none.
pub(crate) fn with_interval(e: &Estimate) -> String {
    let magnitude = |x: f64| x.abs().log10().floor();
    match e.half {
        Some(h) if h > 0.0 => {
            let most = (4.0 - magnitude(e.mean).max(0.0)).clamp(0.0, 4.0);
            let decimals = (1.0 - magnitude(h)).clamp(0.0, most) as usize;
            if h < 0.5 * 10f64.powi(-(decimals as i32)) {
                return format!("{} ± 0", fixed(e.mean, decimals.min(2)));
            }
            format!("{} ± {}", fixed(e.mean, decimals), fixed(h, decimals))
        }
        Some(_) => format!("{} ± 0", pretty(e.mean)),
        None => pretty(e.mean),
    }
}

/// A percentage rounded down: 98.999 must not read as 99.
pub(crate) fn percent(value: f64) -> String {
    fixed((value * 100.0 + 1e-7).floor() / 100.0, 2)
}

fn read(points: &[Point], tenants: &[String]) -> Vec<String> {
    match points {
        [] => vec!["results.csv has no row: no cell was computed.".to_owned()],
        [point] => read_point(point, tenants),
        points => read_sweep(points),
    }
}

fn read_point(point: &Point, tenants: &[String]) -> Vec<String> {
    let ranked = ranked(point);
    let mut text = Vec::new();
    let Some(best) = ranked.first() else {
        text.push("No policy delivered a result.".to_owned());
        text.extend(failed(point));
        return text;
    };
    let slos = best.has_slo();
    let meeting = ranked.iter().filter(|l| l.meets_all()).count();
    let goodput = best.goodput.map(|g| with_interval(&g)).unwrap_or_default();
    let share = best
        .share
        .map_or(String::new(), |s| format!(", {} % of the bound `ideal`", fixed(s * 100.0, 1)));
    let n = ranked.len();
    let name = &best.label;
    if !slos {
        text.push(format!(
            "No tenant has an SLO. Most is delivered by `{name}`: {goodput} requests/s{share}."
        ));
    } else if meeting > 0 {
        let among = match (meeting, n) {
            (_, 1) => String::new(),
            (1, _) => format!(" It is the only one of {n} policies that does."),
            (m, n) if m == n => format!(" All {n} policies meet every SLO."),
            (m, n) => format!(" {m} of {n} policies meet every SLO."),
        };
        let tied = meeting > 1 && !point.lines.iter().any(|l| l.best);
        let alone = if tied { ", as others do: compare their times" } else { "" };
        text.push(format!(
            "`{name}` meets every SLO with the most goodput: {goodput} requests/s{share}{alone}.{among}"
        ));
    } else {
        let met = best.count(Slo::Met);
        let all = best.cells.iter().flatten().filter(|c| c.slo != Slo::None).count();
        text.push(format!(
            "No policy meets every SLO. Nearest is `{name}`: {met} of {all} SLOs met, \
             {goodput} requests/s of goodput{share}."
        ));
    }
    if let Some(next) = ranked.get(1).filter(|l| l.meets_all() || meeting == 0) {
        text.extend(runner_up(best, next));
    }
    text.extend(missed(&ranked, tenants));
    text.extend(failed(point));
    if let Some(over) = ranked.iter().find(|l| l.share.is_some_and(|s| s > 1.0005)) {
        text.push(format!(
            "`{}` exceeds the bound `ideal`, which nothing can: treat these numbers as wrong.",
            over.label
        ));
    }
    text
}

fn runner_up(best: &Line, next: &Line) -> Option<String> {
    let (a, b) = (best.goodput?, next.goodput?);
    let certain = match (a.half, b.half) {
        (Some(_), Some(_)) if a.low() <= b.high() && b.low() <= a.high() => {
            "; their confidence intervals overlap, so the order is not certain"
        }
        (None, _) | (_, None) => "; one repeat each, so how sure the order is remains open",
        _ => "",
    };
    Some(format!("Next is `{}` with {} requests/s{certain}.", next.label, with_interval(&b)))
}

/// Who misses what, by how much.
fn missed(ranked: &[&Line], tenants: &[String]) -> Option<String> {
    let of = |line: &&&Line| {
        let each: Vec<String> = tenants
            .iter()
            .zip(&line.cells)
            .filter_map(|(t, c)| c.as_ref().filter(|c| c.slo == Slo::Missed).map(|c| (t, c)))
            .map(|(t, c)| match c.attainment {
                Some(a) => format!("{t}, {} % in time", percent(a.mean)),
                None => t.clone(),
            })
            .collect();
        (!each.is_empty()).then(|| format!("`{}` ({})", line.label, each.join("; ")))
    };
    let list: Vec<String> = ranked.iter().filter_map(|l| of(&l)).collect();
    (!list.is_empty()).then(|| format!("SLOs are missed by {}.", list.join(", ")))
}

fn failed(point: &Point) -> Option<String> {
    let each: Vec<String> = point
        .lines
        .iter()
        .filter(|l| !l.failures.is_empty())
        .map(|l| {
            let (reason, n) = &l.failures[0];
            format!("`{}` ({n} cell{}: {reason})", l.label, if *n == 1 { "" } else { "s" })
        })
        .collect();
    (!each.is_empty()).then(|| format!("Failed: {}.", each.join(", ")))
}

/// Who wins a sweep point.
#[derive(PartialEq)]
enum Winner<'a> {
    One(&'a str),
    /// The best deliver the same, as where all finish the same fixed work.
    Several,
    /// None meets every SLO.
    Nobody,
}

fn winner(point: &Point) -> Winner<'_> {
    match point.lines.iter().find(|l| l.best) {
        Some(best) => Winner::One(&best.label),
        None if point.lines.iter().any(|l| !l.bound && l.meets_all()) => Winner::Several,
        None => Winner::Nobody,
    }
}

/// Who comes nearest where nobody meets every SLO.
fn nearest(points: &[Point]) -> String {
    let mut counts: Vec<(&str, usize)> = Vec::new();
    for point in points.iter().filter(|p| winner(p) == Winner::Nobody && p.has_rivals()) {
        let Some(first) = ranked(point).first().map(|l| l.label.as_str()) else { continue };
        match counts.iter_mut().find(|(label, _)| *label == first) {
            Some((_, n)) => *n += 1,
            None => counts.push((first, 1)),
        }
    }
    counts.sort_by_key(|(_, n)| std::cmp::Reverse(*n));
    let list: Vec<String> = counts.iter().map(|(label, n)| format!("`{label}` at {n}")).collect();
    if list.is_empty() { String::new() } else { format!("; nearest: {}", list.join(", ")) }
}

fn read_sweep(points: &[Point]) -> Vec<String> {
    let slos = points.iter().flat_map(|p| &p.lines).any(Line::has_slo);
    if !slos && !points.iter().any(Point::has_rivals) {
        return vec![format!(
            "One policy at {} sweep points: nothing to rank; the plots show how it answers.",
            points.len()
        )];
    }
    let mut wins: Vec<(Winner<'_>, Vec<&str>)> = Vec::new();
    for point in points {
        let winner = winner(point);
        match wins.iter_mut().find(|(w, _)| *w == winner) {
            Some((_, names)) => names.push(&point.name),
            None => wins.push((winner, vec![&point.name])),
        }
    }
    let is_one = |w: &Winner<'_>| matches!(w, Winner::One(_));
    wins.sort_by_key(|(winner, names)| (!is_one(winner), std::cmp::Reverse(names.len())));
    let what = if slos { "meets every SLO with the most goodput" } else { "delivers most" };
    let n = points.len();
    let mut text = Vec::new();
    for (winner, names) in wins {
        let places = if names.len() == n {
            format!("at all {n} sweep points")
        } else if names.len() <= 4 {
            format!("at {} of {n} sweep points ({})", names.len(), names.join("; "))
        } else {
            format!("at {} of {n} sweep points", names.len())
        };
        text.push(match winner {
            Winner::One(label) => format!("`{label}` {what} {places}."),
            Winner::Nobody => format!("No policy meets every SLO {places}{}.", nearest(points)),
            Winner::Several => {
                format!("Several policies deliver the same amount {places}: compare their times.")
            }
        });
    }
    let failing = points.iter().flat_map(|p| &p.lines).filter(|l| !l.failures.is_empty()).count();
    if failing > 0 {
        text.push(format!("{failing} combinations of policy and sweep point have failed cells."));
    }
    text
}
