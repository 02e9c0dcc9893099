//! `pareto`: two metrics against each other (goodput against p99 latency by default), with a point for each
//! label and sweep point; the frontier is drawn and its points are ringed.

use crate::axis::Axis;
use crate::figure::{Data, Entry, Figure, Key, Mark, Panel, Side};
use crate::select::{Context, column, grouped, logs};
use crate::style::{FAINT, INK, Look, Shape};
use cotenant_results::Estimate;
use cotenant_results::PlotSpec;
use cotenant_results::Row;
use cotenant_results::columns::{Better, Column, unknown};

/// One point.
struct Point {
    series: usize,
    x: Estimate,
    y: Estimate,
    /// A bound is not a way to run a GPU: it does not compete.
    bound: bool,
}

/// Dash pattern of lines that are not a series.
pub(crate) const DASH: &[f64] = &[5.0, 3.0];
/// Ratio of x values above which their axis is logarithmic unless the plot sets it.
const WIDE: f64 = 30.0;

pub(crate) fn figure(cx: &Context<'_>, spec: &PlotSpec) -> Result<Figure, String> {
    let x = column(spec.x.as_deref().unwrap_or("latency_p99_ms"))?;
    let y = column(spec.y.as_deref().unwrap_or("goodput_rps"))?;
    let by = spec.by.as_deref().unwrap_or("label");
    let table = cx.results;
    let rows = table.select(&spec.filter);
    let split = by == "tenant" || by == "model";
    let panels = by_value(cx, spec, cx.panels(table, &rows, spec, split, y.name)?);
    let flat: Vec<&Row> = panels.iter().flat_map(|p| p.1.iter().copied()).collect();
    let series = cx.ordered(by, table.distinct(&flat, by));
    let mut drawn = Vec::new();
    for (title, rows) in &panels {
        drawn.push((title.clone(), points(cx, spec, rows, (x, y), (by, &series))?));
    }
    let ends = |f: fn(&Point) -> Estimate| -> Vec<f64> {
        let all = drawn.iter().flat_map(|p| &p.1).map(f);
        all.flat_map(|e| [e.low().max(0.0), e.mean, e.high()]).collect()
    };
    let (xs, ys) = (ends(|p| p.x), ends(|p| p.y));
    if xs.is_empty() {
        return Err(format!("no cell has both `{}` and `{}`", x.name, y.name));
    }
    let most = xs.iter().copied().fold(0.0, f64::max);
    let least = drawn.iter().flat_map(|p| &p.1).map(|p| p.x.mean).fold(f64::MAX, f64::min);
    let (log_x, log_y) = logs(spec, (most > WIDE * least.max(1e-12), false));
    let mut data = Data::new(["Series", "Panel", x.title, y.title]);
    let mut front: Vec<String> = vec![];
    for (title, points) in &drawn {
        for p in points {
            let name = series[p.series].clone();
            data.rows.push(vec![name, title.clone(), p.x.to_string(), p.y.to_string()]);
        }
        for i in frontier(points, x, y) {
            let name = &series[points[i].series];
            if !front.contains(name) {
                front.push(name.clone());
            }
        }
    }
    let title = |c: &Column, whose: Option<&str>| {
        let whose = whose.map_or_else(String::new, |t| format!(" of {t}"));
        let unit = spec.relative_to.as_ref().map_or(c.unit.to_owned(), |base| format!("× {base}"));
        let better = if c.better == Better::Lower { "lower" } else { "higher" };
        format!("{}{whose}, {better} is better ({unit})", c.title)
    };
    let x_axis = Axis::around(&title(x, None), &xs, log_x);
    let y_axis = Axis::around(&title(y, spec.y_tenant.as_deref()), &ys, log_y);
    let intervals = drawn.iter().flat_map(|p| &p.1).any(|p| p.x.half.or(p.y.half).is_some());
    let panel = |(title, points): (String, Vec<Point>)| Panel {
        title,
        x: x_axis.clone(),
        y: y_axis.clone(),
        marks: marks(cx, (by, &series), (x, y), &points),
    };
    let panels: Vec<Panel> = drawn.into_iter().map(panel).collect();
    let mut legend: Vec<Entry> = cx.legend(by, &series, Key::Marker);
    let bound = |e: &Entry| cx.is_bound(by, &e.label);
    legend.iter_mut().filter(|e| bound(e)).for_each(|e| e.key = Key::Hollow);
    let frontier = Look { color: INK, shape: Shape::Circle, dash: DASH };
    legend.push(Entry { label: "frontier".to_owned(), look: frontier, key: Key::PlainLine });
    legend.push(Entry { label: "on the frontier".to_owned(), look: frontier, key: Key::Ring });
    Ok(Figure {
        title: cx.title(spec, format!("{} against {}", y.title, x.title)),
        notes: vec![cx.note(spec, if split { "" } else { cx.whose(spec) }, intervals)],
        finding: format!("On the frontier: {}.", front.join(", ")),
        data,
        columns: match panels.len() {
            1 => 1,
            2 | 4 => 2,
            _ => 3,
        },
        size: match panels.len() {
            1 => (520.0, 340.0),
            2 | 4 => (360.0, 260.0),
            _ => (300.0, 240.0),
        },
        panels,
        legend,
        ..Figure::default()
    })
}

/// Panels with their titles.
type Panels<'a> = Vec<(String, Vec<&'a Row>)>;

/// Each panel, divided by the values of a column if the plot asks for it.
fn by_value<'a>(cx: &Context<'_>, spec: &PlotSpec, panels: Panels<'a>) -> Panels<'a> {
    let Some(column) = &spec.panels else { return panels };
    let short = column.rsplit('.').next().unwrap_or(column);
    let mut divided = vec![];
    for (title, rows) in panels {
        for value in cx.ordered(column, cx.results.distinct(&rows, column)) {
            let of = |r: &&&Row| cx.results.text(r, column) == value;
            let rows = rows.iter().filter(of).copied().collect();
            let own = match cx.run.sweep_keys.contains(column) {
                true => format!("{short} {value}"),
                false => value,
            };
            let title = if title.is_empty() { own } else { format!("{title} · {own}") };
            divided.push((title, rows));
        }
    }
    divided
}

fn points(
    cx: &Context<'_>,
    spec: &PlotSpec,
    rows: &[&Row],
    (x, y): (&Column, &Column),
    (by, series): (&str, &[String]),
) -> Result<Vec<Point>, String> {
    let table = cx.results;
    // A point is a label, a tenant and a sweep point; rows that agree in these are repeats.
    let identity = |r: &Row| -> Vec<String> {
        let keys = cx.run.sweep_keys.iter().map(String::as_str);
        ["label", "tenant"].into_iter().chain(keys).map(|c| table.text(r, c).to_owned()).collect()
    };
    let all = table.select(&spec.filter);
    if let Some(whose) = &spec.y_tenant {
        let known = table.distinct(&all, "tenant");
        if !known.contains(whose) {
            let known: Vec<&str> = known.iter().map(String::as_str).collect();
            return Err(format!("y_tenant: {}", unknown("tenant", whose, &known)));
        }
    }
    // The rows of the tenant that `y` is taken from, at the same label and sweep point.
    let others = |id: &[String], whose: &str| -> Vec<&Row> {
        let mut id = id.to_vec();
        id[1] = whose.to_owned();
        all.iter().copied().filter(|r| identity(r) == id).collect()
    };
    let mut points = Vec::new();
    for (n, s) in series.iter().enumerate() {
        let own = grouped(table, rows, by, s);
        let mut seen: Vec<Vec<String>> = Vec::new();
        for row in &own {
            let id = identity(row);
            if seen.contains(&id) {
                continue;
            }
            let here: Vec<&Row> = own.iter().copied().filter(|r| identity(r) == id).collect();
            let there = spec.y_tenant.as_ref().map(|whose| others(&id, whose));
            let of_y = there.as_ref().unwrap_or(&here);
            let at = (cx.estimate(table, spec, &here, x)?, cx.estimate(table, spec, of_y, y)?);
            if let (Some(px), Some(py)) = at {
                let bound = cx.run.label_is_bound(table.text(row, "label"));
                points.push(Point { series: n, x: px, y: py, bound });
            }
            seen.push(id);
        }
    }
    Ok(points)
}

/// Indices of the points that no other point beats in both metrics, by ascending x.
fn frontier(points: &[Point], x: &Column, y: &Column) -> Vec<usize> {
    let good = |value: f64, c: &Column| if c.better == Better::Lower { -value } else { value };
    let rivals: Vec<usize> = (0..points.len()).filter(|&i| !points[i].bound).collect();
    let score = |&i: &usize| (good(points[i].x.mean, x), good(points[i].y.mean, y));
    let scores: Vec<(f64, f64)> = rivals.iter().map(score).collect();
    let mut front: Vec<usize> = unbeaten(&scores).into_iter().map(|n| rivals[n]).collect();
    front.sort_by(|a, b| points[*a].x.mean.total_cmp(&points[*b].x.mean));
    front
}

/// Indices of the scores that no other score beats; more is better.
pub(crate) fn unbeaten(scores: &[(f64, f64)]) -> Vec<usize> {
    let beats = |b: &(f64, f64), a: &(f64, f64)| b != a && b.0 >= a.0 && b.1 >= a.1;
    let free = |&i: &usize| !scores.iter().any(|other| beats(other, &scores[i]));
    (0..scores.len()).filter(free).collect()
}

/// A staircase through the points of a frontier by ascending x; `less` tells whether less of x is better.
/// Between two points, nothing better than the worse of both is known.
pub(crate) fn staircase(front: &[(f64, f64)], less: bool) -> Mark {
    let mut points: Vec<(f64, f64)> = vec![];
    for &at in front {
        if let Some(&before) = points.last() {
            points.push(if less { (at.0, before.1) } else { (before.0, at.1) });
        }
        points.push(at);
    }
    Mark::Line { points, color: INK, dash: DASH, width: 1.2 }
}

fn marks(
    cx: &Context<'_>,
    (by, series): (&str, &[String]),
    (x, y): (&Column, &Column),
    points: &[Point],
) -> Vec<Mark> {
    let front = frontier(points, x, y);
    let mut marks = Vec::new();
    if !front.is_empty() {
        let at = |&i: &usize| (points[i].x.mean, points[i].y.mean);
        let front: Vec<(f64, f64)> = front.iter().map(at).collect();
        marks.push(staircase(&front, x.better == Better::Lower));
    }
    for p in points {
        let color = FAINT;
        let (px, py) = (p.x.mean, p.y.mean);
        if p.x.half.is_some() {
            marks.push(Mark::ErrorX { y: py, low: p.x.low(), high: p.x.high(), color });
        }
        if p.y.half.is_some() {
            marks.push(Mark::ErrorY { x: px, low: p.y.low(), high: p.y.high(), color });
        }
    }
    for (i, p) in points.iter().enumerate() {
        let look = cx.look(by, &series[p.series], p.series);
        let at = (p.x.mean, p.y.mean);
        marks.push(Mark::Point { at, look, hollow: p.bound });
        if front.contains(&i) {
            marks.push(Mark::Ring { at, color: INK });
            // Points on the frontier are named in place, if there is room.
            marks.push(Mark::Note { at, text: series[p.series].clone(), side: Side::Free });
        }
    }
    marks
}

#[cfg(test)]
mod tests {
    use super::*;
    use cotenant_results::columns::metric;

    #[test]
    fn the_frontier_is_what_nothing_beats_and_the_bound_does_not_compete() {
        let at = |x: f64, y: f64, bound| Point {
            series: 0,
            x: Estimate::exact(x),
            y: Estimate::exact(y),
            bound,
        };
        let points = [
            at(10.0, 100.0, false),
            at(20.0, 90.0, false),
            at(5.0, 50.0, false),
            at(30.0, 150.0, false),
            at(1.0, 999.0, true),
        ];
        let (x, y) = (metric("latency_p99_ms").unwrap(), metric("goodput_rps").unwrap());
        assert_eq!(frontier(&points, x, y), [2, 0, 3]);
    }
}
