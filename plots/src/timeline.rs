//! `timeline`: CU use, throughput or p95 latency over time, from the time bins of `series.csv`.

use crate::axis::Axis;
use crate::figure::{Data, Figure, Key, Mark, Panel};
use crate::select::{Context, column, grouped, logs};
use crate::style::Look;
use cotenant_results::PlotSpec;
use cotenant_results::format::pretty;
use cotenant_results::{Row, Table};

/// From this length on, the axis shows seconds instead of milliseconds.
const LONG_MS: f64 = 10_000.0;

pub(crate) fn figure(cx: &Context<'_>, spec: &PlotSpec) -> Result<Figure, String> {
    let y = column(spec.y.as_deref().unwrap_or("sm_active"))?;
    let by = spec.by.as_deref().unwrap_or("label");
    let table = &Table::series(&cx.dir.join("series.csv"), &cx.run.sweep_keys)
        .map_err(|e| e.to_string())?;
    let (rows, repeat) = one_repeat(table, spec);
    let tenants = cx.panels(table, &rows, spec, by == "tenant", y.name)?;
    let flat: Vec<&Row> = tenants.iter().flat_map(|p| p.1.iter().copied()).collect();
    let series = cx.ordered(by, table.distinct(&flat, by));
    // Overlapping areas hide each other: CU use gets a panel for each label.
    let labels = cx.ordered("label", table.distinct(&flat, "label"));
    let apart = labels.len() > 1 && (by == "tenant" || (by == "label" && y.name == "sm_active"));
    let panels: Vec<(String, Vec<&Row>)> = if apart {
        labels.iter().map(|l| (l.clone(), grouped(table, &flat, "label", l))).collect()
    } else {
        tenants
    };
    let span = flat.iter().filter_map(|r| table.number(r, "t_ms")).fold(0.0, f64::max);
    let (scale, x_title) = if span >= LONG_MS { (1e-3, "Time (s)") } else { (1.0, "Time (ms)") };
    let (mut drawn, mut xs, mut ys) = (vec![], vec![], vec![]);
    let mut data = Data::new(["Series", "Panel", "Mean", "Least", "Most"]);
    for (title, rows) in panels {
        let mut marks = Vec::new();
        for (n, s) in series.iter().enumerate() {
            let steps = steps(cx, table, &grouped(table, &rows, by, s), y, scale)?;
            let all: Vec<f64> = steps.iter().flatten().map(|p| p.1).collect();
            if !all.is_empty() {
                let mean = all.iter().sum::<f64>() / all.len() as f64;
                let (least, most) =
                    all.iter().fold((f64::MAX, f64::MIN), |(l, m), v| (l.min(*v), m.max(*v)));
                let row = [mean, least, most].map(pretty);
                data.rows.push([s.clone(), title.clone()].into_iter().chain(row).collect());
            }
            for run in &steps {
                xs.extend(run.iter().map(|p| p.0));
                ys.extend(run.iter().map(|p| p.1));
            }
            line(&mut marks, steps, cx.look(by, s, n), series.len() == 1 || apart && by == "label");
        }
        drawn.push((title, marks));
    }
    if ys.is_empty() {
        return Err(format!("series.csv has no value of `{}` to draw", y.name));
    }
    let (lo, hi) = xs.iter().fold((f64::MAX, f64::MIN), |(l, h), x| (l.min(*x), h.max(*x)));
    let x_axis = Axis::exact(x_title, lo, hi);
    let y_axis = Axis::from_zero(&y.axis(), &ys, logs(spec, (false, false)).1);
    let percent = y.scale == 100.0 && ys.iter().all(|v| *v <= 100.0);
    let y_axis = if percent { y_axis.capped(100.0) } else { y_axis };
    let several = drawn.len() > 1;
    let height = if several { 110.0 } else { 260.0 };
    let panel = |(title, marks)| Panel { title, x: x_axis.clone(), y: y_axis.clone(), marks };
    let mut note = cx.note(spec, if by == "tenant" { "" } else { cx.whose(spec) }, false);
    if cx.run.seeds.len() > 1 {
        note = format!("{note} · repeat {repeat} of {}", cx.run.seeds.len());
    }
    Ok(Figure {
        title: cx.title(spec, format!("{} over time", y.title)),
        notes: vec![note],
        finding: format!("{} over time, {} series.", y.title, series.len()),
        data,
        panels: drawn.into_iter().map(panel).collect(),
        stacked: several,
        columns: 1,
        size: (640.0, height),
        legend: if apart && by == "label" {
            vec![]
        } else {
            cx.legend(by, &series, Key::PlainLine)
        },
        ..Figure::default()
    })
}

/// Rows of the first repeat, unless the plot names another one: an average over repeats would smooth away
/// what the plot is meant to show.
fn one_repeat<'a>(table: &'a Table, spec: &PlotSpec) -> (Vec<&'a Row>, String) {
    let rows = table.select(&spec.filter);
    let repeats = table.distinct(&rows, "repeat");
    let first = repeats.iter().min_by_key(|r| r.parse::<u64>().unwrap_or(u64::MAX));
    let first = first.cloned().unwrap_or_default();
    (grouped(table, &rows, "repeat", &first), first)
}

/// Runs of bins without a gap, as steps: each bin keeps its value until the next one begins.
fn steps(
    cx: &Context<'_>,
    table: &Table,
    rows: &[&Row],
    y: &cotenant_results::Column,
    scale: f64,
) -> Result<Vec<Vec<(f64, f64)>>, String> {
    cx.unmixed(table, rows)?;
    let mut bins: Vec<(f64, Option<f64>)> = Vec::new();
    for row in rows {
        let t = table.number(row, "t_ms");
        let t = t.ok_or_else(|| format!("series.csv:{}: `t_ms` is empty", row.line))?;
        bins.push((t * scale, table.number(row, y.name).map(|v| v * y.scale)));
    }
    bins.sort_by(|a, b| a.0.total_cmp(&b.0));
    let widths: Vec<f64> = bins.windows(2).map(|w| w[1].0 - w[0].0).filter(|w| *w > 0.0).collect();
    let width = widths.iter().copied().fold(f64::INFINITY, f64::min);
    let width = if width.is_finite() { width } else { scale };
    let mut runs: Vec<Vec<(f64, f64)>> = Vec::new();
    let mut open_until = f64::NEG_INFINITY;
    for (t, value) in bins {
        let Some(value) = value else { continue };
        if t > open_until + width * 0.01 {
            runs.push(vec![]);
        }
        if let Some(run) = runs.last_mut() {
            run.extend([(t, value), (t + width, value)]);
        }
        open_until = t + width;
    }
    Ok(runs)
}

fn line(marks: &mut Vec<Mark>, runs: Vec<Vec<(f64, f64)>>, look: Look, filled: bool) {
    for points in runs {
        if filled {
            let points = points.iter().map(|p| (p.0, 0.0, p.1)).collect();
            marks.push(Mark::Band { points, color: look.color, opacity: 0.25 });
        }
        // Dashed steps look like gaps; areas are distinguished by their panels.
        let dash = if filled { &[] } else { look.dash };
        marks.push(Mark::Line { points, color: look.color, dash, width: 1.6 });
    }
}
