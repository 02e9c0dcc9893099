//! `bars`: grouped bars, a group for each value of x and a colour for each series, with 95 %
//! confidence intervals over the repeats.

use crate::axis::Axis;
use crate::figure::{Figure, Key, Mark, Panel};
use crate::select::{Context, WHOLE, column, logs};
use cotenant_results::PlotSpec;
use cotenant_results::Row;
use cotenant_results::columns::{Column, STATUS};

/// Part of a group's place that its bars fill.
const FILLED: f64 = 0.82;

/// What stands on the x axis.
enum Groups {
    /// The values of one column.
    Column(String),
    /// The values of every sweep key at once, so that nothing is averaged away.
    Sweep,
}

pub(crate) fn figure(cx: &Context<'_>, spec: &PlotSpec) -> Result<Figure, String> {
    let y = column(spec.y.as_deref().unwrap_or("goodput_rps"))?;
    let by = spec.by.as_deref().unwrap_or("label");
    let table = cx.results;
    let rows = table.select(&spec.filter);
    let groups = groups(cx, spec, by, &rows, y.name);
    let named = |c: &str| by == c || matches!(&groups, Groups::Column(x) if x == c);
    let split = named("tenant") || named("model");
    let panels = cx.panels(table, &rows, spec, split, y.name)?;
    let flat: Vec<&Row> = panels.iter().flat_map(|p| p.1.iter().copied()).collect();
    let series = cx.series(table, spec, by, &flat);
    let mut xs = group_names(cx, spec, &groups, &flat);
    let without = drop_without_value(cx, &groups, y, &flat, &mut xs);
    let mut tally = Tally::default();
    let mut drawn = Vec::new();
    for (title, rows) in &panels {
        let plan = Plan { by, groups: &groups, xs: &xs, series: &series, y };
        drawn.push((title.clone(), plan.marks(cx, rows, &mut tally)?));
    }
    let Tally { highest, intervals, failed } = tally;
    if highest.is_empty() {
        return Err(format!("no cell has a value of `{}` to draw", y.name));
    }
    let log = logs(spec, (false, false)).1;
    let same = matches!(&groups, Groups::Column(c) if c == by);
    let bars = if same { 2 } else { series.len() };
    let size = (panel_width(xs.len(), bars, drawn.len()), 300.0);
    let shown: Vec<String> = xs.iter().map(|x| show_group(cx, &groups, x)).collect();
    let x_axis = Axis::names(&group_title(cx, &groups), shown);
    let mut y_axis = Axis::from_zero(&y.axis(), &highest, log);
    cap_percent(&mut y_axis, y.scale, &highest);
    let whose = if split { "" } else { whose(spec) };
    let mut notes = vec![cx.note(spec, whose, intervals)];
    if failed {
        notes.push("× the cell failed; its reason stands in the results table".to_owned());
    }
    if !without.is_empty() {
        notes.push(format!("no such value: {}", without.join(", ")));
    }
    let panels: Vec<Panel> = drawn
        .into_iter()
        .map(|(title, marks)| Panel { title, x: x_axis.clone(), y: y_axis.clone(), marks })
        .collect();
    Ok(Figure {
        title: cx.title(spec, format!("{} by {}", y.title, Context::column_title(by))),
        notes,
        stacked: false,
        columns: if panels.len() > 1 { 2 } else { 1 },
        panels,
        size,
        legend: if same { vec![] } else { cx.legend(by, &series, Key::Swatch) },
        colors: None,
    })
}

/// What the panels hold together: it decides the axis and the small print.
#[derive(Default)]
struct Tally {
    highest: Vec<f64>,
    intervals: bool,
    failed: bool,
}

/// Where which bar stands.
struct Plan<'a> {
    by: &'a str,
    groups: &'a Groups,
    xs: &'a [String],
    series: &'a [String],
    y: &'a Column,
}

impl Plan<'_> {
    fn marks(
        &self,
        cx: &Context<'_>,
        rows: &[&Row],
        tally: &mut Tally,
    ) -> Result<Vec<Mark>, String> {
        let table = cx.results;
        // One bar for each group where groups and series are the same thing.
        let same = matches!(self.groups, Groups::Column(c) if c == self.by);
        let mut marks = Vec::new();
        for (i, x) in self.xs.iter().enumerate() {
            for (n, s) in self.series.iter().enumerate() {
                if same && s != x {
                    continue;
                }
                let bar: Vec<&Row> = rows
                    .iter()
                    .copied()
                    .filter(|r| group_of(cx, self.groups, r) == *x)
                    .filter(|r| table.text(r, self.by) == s)
                    .collect();
                let (slot, of) = if same { (0, 1) } else { (n, self.series.len()) };
                let width = FILLED / of as f64;
                let from = i as f64 - FILLED / 2.0 + slot as f64 * width;
                let color = cx.look(self.by, s, n).color;
                match cx.estimate(table, &bar, self.y)? {
                    Some(e) => {
                        marks.push(Mark::Bar { from, to: from + width, top: e.mean, color });
                        tally.highest.extend([e.low(), e.high()]);
                        if e.half.is_some() {
                            tally.intervals = true;
                            let (x, color) = (from + width / 2.0, crate::style::INK);
                            marks.push(Mark::ErrorY { x, low: e.low(), high: e.high(), color });
                        }
                    }
                    None if bar.is_empty() && did_fail(cx, self.groups, x, self.by, s) => {
                        tally.failed = true;
                        let at = (from + width / 2.0, 0.0);
                        marks.push(Mark::Note { at, text: "×".to_owned() });
                    }
                    None => {}
                }
            }
        }
        Ok(marks)
    }
}

/// A share never exceeds 100 %: no empty room above it.
pub(crate) fn cap_percent(axis: &mut Axis, scale: f64, values: &[f64]) {
    let most = values.iter().copied().fold(0.0, f64::max);
    if let crate::axis::Scale::Linear { hi, .. } = &mut axis.scale
        && scale == 100.0
        && *hi > 100.0
        && most <= 100.0
    {
        *hi = 100.0;
    }
}

/// Whose values a plot shows that is not split by tenant.
pub(crate) fn whose(spec: &PlotSpec) -> &str {
    match spec.tenant.as_deref() {
        None | Some(WHOLE) => "whole GPU",
        Some("each") => "",
        Some(tenant) => tenant,
    }
}

fn groups(cx: &Context<'_>, spec: &PlotSpec, by: &str, rows: &[&Row], y: &str) -> Groups {
    if let Some(x) = &spec.x {
        return Groups::Column(x.clone());
    }
    let varying = |key: &&String| key.as_str() != by && cx.results.distinct(rows, key).len() > 1;
    match cx.run.sweep_keys.iter().filter(varying).count() {
        0 => {}
        1 => {
            let key = cx.run.sweep_keys.iter().find(varying).cloned();
            return Groups::Column(key.unwrap_or_default());
        }
        _ => return Groups::Sweep,
    }
    let per_tenant = rows
        .iter()
        .any(|r| cx.results.text(r, "tenant") != WHOLE && cx.results.number(r, y).is_some());
    match (by, spec.tenant.is_none() && per_tenant) {
        ("tenant" | "model", _) | (_, false) => Groups::Column("label".to_owned()),
        _ => Groups::Column("tenant".to_owned()),
    }
}

/// Takes out the tenants that have no such value (an attainment without an SLO) though their cells are
/// fine: nothing will stand there. Returns them.
fn drop_without_value(
    cx: &Context<'_>,
    groups: &Groups,
    y: &Column,
    rows: &[&Row],
    xs: &mut Vec<String>,
) -> Vec<String> {
    if !matches!(groups, Groups::Column(c) if c == "tenant") {
        return vec![];
    }
    let table = cx.results;
    let stands = |x: &String| {
        let mut own = rows.iter().filter(|r| table.text(r, "tenant") == x);
        own.any(|r| table.number(r, y.name).is_some() || table.text(r, STATUS) != "ok")
    };
    let without = xs.iter().filter(|x| !stands(x)).cloned().collect();
    xs.retain(stands);
    without
}

fn group_of(cx: &Context<'_>, groups: &Groups, row: &Row) -> String {
    match groups {
        Groups::Column(c) => cx.results.text(row, c).to_owned(),
        Groups::Sweep => {
            let part = |k: &String| (k.clone(), cx.results.text(row, k).to_owned());
            let parts = cx.run.sweep_keys.iter().map(part).filter(|(_, v)| !v.is_empty());
            parts.map(|(k, v)| cx.show(&k, &v)).collect::<Vec<_>>().join(" ")
        }
    }
}

fn group_names(cx: &Context<'_>, spec: &PlotSpec, groups: &Groups, rows: &[&Row]) -> Vec<String> {
    if let Groups::Column(c) = groups {
        return cx.series(cx.results, spec, c, rows);
    }
    let mut seen: Vec<String> = Vec::new();
    for row in rows {
        let name = group_of(cx, groups, row);
        if !seen.contains(&name) {
            seen.push(name);
        }
    }
    seen
}

fn show_group(cx: &Context<'_>, groups: &Groups, name: &str) -> String {
    match groups {
        Groups::Column(c) if cx.run.sweep_keys.contains(c) && !name.is_empty() => name.to_owned(),
        Groups::Column(c) => cx.show(c, name),
        Groups::Sweep => name.to_owned(),
    }
}

fn group_title(cx: &Context<'_>, groups: &Groups) -> String {
    match groups {
        Groups::Column(c) if c == "label" => "Policy".to_owned(),
        Groups::Column(c) if matches!(c.as_str(), "policy" | "tenant" | "model") => {
            let mut title = c.clone();
            title[..1].make_ascii_uppercase();
            title
        }
        Groups::Column(c) => crate::format::key_axis(c, cx.unit(c)),
        Groups::Sweep => "Sweep point".to_owned(),
    }
}

/// Whether the cells behind a missing bar failed, rather than had nothing to count.
fn did_fail(cx: &Context<'_>, groups: &Groups, x: &str, by: &str, series: &str) -> bool {
    let table = cx.results;
    table.rows.iter().any(|r| {
        table.text(r, STATUS) != "ok" && table.text(r, by) == series && group_of(cx, groups, r) == x
    })
}

/// Wide enough that a bar is a bar.
fn panel_width(groups: usize, series: usize, panels: usize) -> f64 {
    let wanted = (groups * (series * 16 + 18)) as f64;
    if panels > 1 { wanted.clamp(300.0, 520.0) } else { wanted.clamp(420.0, 900.0) }
}
