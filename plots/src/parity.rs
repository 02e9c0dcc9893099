//! `parity`: simulated against measured, one panel per kind of metric, with the diagonal and
//! bands of ±5 % and ±10 % around it.

use crate::axis::{Axis, Scale};
use crate::figure::{Data, Entry, Figure, Key, Mark, Panel};
use crate::select::{Context, logs};
use crate::style::{FAINT, Look, Shape};
use cotenant_results::PlotSpec;
use cotenant_results::columns::metric;
use cotenant_results::format::pretty;
use cotenant_results::{Row, Table};

/// Metrics that share a panel, by the start of their names.
fn family(name: &str) -> &str {
    match name {
        n if n.starts_with("latency_") => "Latency",
        n if n.ends_with("_rps") => "Rate",
        n => metric(n).map_or(n, |c| c.title),
    }
}

fn unit(name: &str) -> &str {
    metric(name).map_or("as in validation.csv", |c| c.unit)
}

pub(crate) fn figure(cx: &Context<'_>, spec: &PlotSpec) -> Result<Figure, String> {
    let by = spec.by.as_deref().unwrap_or("label");
    let table = &Table::validation(&cx.dir.join("validation.csv")).map_err(|e| e.to_string())?;
    let rows: Vec<&Row> = table
        .select(&spec.filter)
        .into_iter()
        .filter(|r| spec.y.as_deref().is_none_or(|y| table.text(r, "metric") == y))
        .filter(|r| point(table, r).is_some())
        .collect();
    if let Some(y) = &spec.y
        && rows.is_empty()
    {
        let all: Vec<&Row> = table.rows.iter().collect();
        let known = table.distinct(&all, "metric");
        let known: Vec<&str> = known.iter().map(String::as_str).collect();
        return Err(cotenant_results::columns::unknown("metric", y, &known));
    }
    if rows.is_empty() {
        return Err("validation.csv has no pair of a simulated and a measured value".to_owned());
    }
    let series = cx.ordered(by, table.distinct(&rows, by));
    let mut families: Vec<&str> = Vec::new();
    for row in &rows {
        let name = family(table.text(row, "metric"));
        if !families.contains(&name) {
            families.push(name);
        }
    }
    let panels: Vec<Panel> = families
        .iter()
        .map(|f| {
            let own: Vec<&Row> =
                rows.iter().copied().filter(|r| family(table.text(r, "metric")) == *f).collect();
            panel(cx, table, spec, (f, &own), (by, &series))
        })
        .collect();
    let mut legend = cx.legend(by, &series, Key::Marker);
    let grey = Look { color: FAINT, shape: Shape::Square, dash: &[] };
    let entry = |label: &str, color, key| Entry {
        label: label.to_owned(),
        look: Look { color, ..grey },
        key,
    };
    legend.push(entry("equal", FAINT, Key::PlainLine));
    legend.push(entry("within 5 %", band_color(0.34), Key::Swatch));
    legend.push(entry("within 10 %", band_color(0.17), Key::Swatch));
    let mut data = Data::new(["Label", "Tenant", "Metric", "Simulated", "Measured"]);
    for row in &rows {
        let mut cells: Vec<String> =
            ["label", "tenant", "metric"].map(|c| table.text(row, c).to_owned()).to_vec();
        cells.extend(point(table, row).iter().flat_map(|p| [pretty(p.0), pretty(p.1)]));
        data.rows.push(cells);
    }
    let n = rows.len();
    let within = |limit: f64| {
        let good = |r: &&&Row| {
            point(table, r).is_some_and(|(s, m)| m != 0.0 && ((s - m) / m).abs() * 100.0 <= limit)
        };
        rows.iter().filter(good).count()
    };
    let several = panels.len() > 1;
    Ok(Figure {
        title: cx.title(spec, "Simulated against replayed".to_owned()),
        notes: vec![cx.note(
            spec,
            &format!("{n} pairs, {} within 5 %, {} within 10 %", within(5.0), within(10.0)),
            false,
        )],
        finding: format!("{} of {n} pairs are within 10 %.", within(10.0)),
        data,
        columns: if several { 2 } else { 1 },
        panels,
        size: if several { (300.0, 300.0) } else { (380.0, 380.0) },
        legend,
        ..Figure::default()
    })
}

fn point(table: &Table, row: &Row) -> Option<(f64, f64)> {
    Some((table.number(row, "simulated")?, table.number(row, "measured")?))
}

fn band_color(share: f64) -> crate::style::Rgb {
    crate::style::PAPER.towards(FAINT, share)
}

fn panel(
    cx: &Context<'_>,
    table: &Table,
    spec: &PlotSpec,
    (family, rows): (&str, &[&Row]),
    (by, series): (&str, &[String]),
) -> Panel {
    let values: Vec<f64> =
        rows.iter().filter_map(|r| point(table, r)).flat_map(|(s, m)| [s, m]).collect();
    let most = values.iter().copied().fold(0.0, f64::max);
    let least = values.iter().copied().filter(|v| *v > 0.0).fold(f64::MAX, f64::min);
    // Both axes are alike, otherwise there would be no diagonal.
    let log = logs(spec, (most > 30.0 * least, false));
    let axis = Axis::from_zero("", &values, log.0 || log.1);
    let unit = unit(table.text(rows[0], "metric"));
    let titled = |what: &str| Axis { title: format!("{family}, {what} ({unit})"), ..axis.clone() };
    let (lo, hi) = match axis.scale {
        Scale::Linear { lo, hi } | Scale::Log { lo, hi } => (lo, hi),
        Scale::Names(_) | Scale::Tail => (0.0, 1.0),
    };
    let mut marks = Vec::new();
    for (share, shade) in [(0.10, 0.17), (0.05, 0.34)] {
        let edges = |x: f64| (x, x * (1.0 - share), x * (1.0 + share));
        let points = vec![edges(lo), edges(hi)];
        marks.push(Mark::Band { points, color: band_color(shade), opacity: 1.0 });
    }
    let diagonal = vec![(lo, lo), (hi, hi)];
    marks.push(Mark::Line { points: diagonal, color: FAINT, dash: &[], width: 1.2 });
    let mut points = Vec::new();
    for row in rows {
        let Some((simulated, measured)) = point(table, row) else { continue };
        let value = table.text(row, by);
        let n = series.iter().position(|s| s == value).unwrap_or(0);
        let look = cx.look(by, value, n);
        let ends = (table.number(row, "ci_low"), table.number(row, "ci_high"));
        if let (Some(low), Some(high)) = ends {
            // Bounds of the error in percent, converted to bounds of the simulated value.
            let at = |error: f64| measured * (1.0 + error / 100.0);
            let (low, high) = (at(low), at(high));
            marks.push(Mark::ErrorY { x: measured, low, high, color: look.color });
        }
        points.push(Mark::Point { at: (measured, simulated), look, hollow: false });
    }
    marks.extend(points);
    // Not "measured": a replay on an emulated GPU is not a measurement.
    Panel { title: String::new(), x: titled("replayed"), y: titled("simulated"), marks }
}
