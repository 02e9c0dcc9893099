//! `heatmap`: a metric over two sweep keys, one panel per label.

use crate::axis::Axis;
use crate::figure::{ColorBar, Data, Figure, Mark, Panel};
use crate::select::{Context, SweepAxis, column, grouped};
use crate::style::map_color;
use cotenant_results::PlotSpec;
use cotenant_results::columns::{Column, STATUS};
use cotenant_results::format::{key_title, pretty};
use cotenant_results::{Row, Table};

/// One tile: its position, its value, and whether its cells failed.
type Cell = (f64, f64, Option<f64>, bool);

pub(crate) fn figure(cx: &Context<'_>, spec: &PlotSpec) -> Result<Figure, String> {
    let y = column(spec.y.as_deref().unwrap_or("goodput_rps"))?;
    let table = cx.results;
    let keys = &cx.run.sweep_keys;
    let missing = "needs two sweep keys";
    let x_key = spec.x.as_ref().or(keys.iter().find(|k| Some(*k) != spec.by.as_ref()));
    let x_key = x_key.ok_or(missing)?;
    let y_key = spec.by.as_ref().or(keys.iter().find(|k| *k != x_key)).ok_or(missing)?;
    let rows = table.select(&spec.filter);
    let panels = cx.panels(table, &rows, spec, false, y.name)?;
    let all: Vec<&Row> = table.rows.iter().collect();
    let xs = SweepAxis::of(cx.ordered(x_key, table.distinct(&all, x_key)));
    let ys = SweepAxis::of(cx.ordered(y_key, table.distinct(&all, y_key)));
    let mut drawn: Vec<(String, Vec<Cell>)> = Vec::new();
    for (tenant, rows) in &panels {
        for label in cx.ordered("label", table.distinct(rows, "label")) {
            let own = grouped(table, rows, "label", &label);
            let cells = cells(cx, spec, (&own, &label), (x_key, &xs), (y_key, &ys), y)?;
            // A policy that the keys do not affect has nothing to show here.
            if cells.iter().any(|c| c.2.is_some()) {
                let parts = [label.as_str(), tenant.as_str()];
                let parts: Vec<&str> = parts.into_iter().filter(|p| !p.is_empty()).collect();
                drawn.push((parts.join(" · "), cells));
            }
        }
    }
    let values: Vec<f64> = drawn.iter().flat_map(|p| p.1.iter().filter_map(|c| c.2)).collect();
    let (lo, hi) = values.iter().fold((f64::MAX, f64::MIN), |(l, h), v| (l.min(*v), h.max(*v)));
    if values.is_empty() {
        return Err(format!("no cell has a value of `{}` to draw", y.name));
    }
    let failed = drawn.iter().any(|p| p.1.iter().any(|c| c.2.is_none() && c.3));
    let mut notes = vec![cx.note(spec, cx.whose(spec), false)];
    if failed {
        notes.push("× the cell failed; its reason is in the results table".to_owned());
    }
    let value_axis = cx.value_axis(spec, y);
    let size = (
        (xs.values().len() as f64 * 58.0).clamp(180.0, 460.0),
        (ys.values().len() as f64 * 40.0).clamp(120.0, 360.0),
    );
    let mut data = Data::new(["Panel", x_key.as_str(), y_key.as_str(), value_axis.as_str()]);
    for (title, cells) in &drawn {
        for (x, v, value, _) in cells {
            let value = value.map_or("–".to_owned(), pretty);
            let at = [&xs.values()[*x as usize], &ys.values()[*v as usize]].map(String::clone);
            let [x, v] = at;
            data.rows.push(vec![title.clone(), x, v, value]);
        }
    }
    let panel = |(title, cells): (String, Vec<Cell>)| Panel {
        title,
        x: xs.names(cx, x_key),
        y: ys.names(cx, y_key),
        marks: cells.into_iter().map(|c| tile(c, lo, hi)).collect(),
    };
    let several = drawn.len() > 1;
    Ok(Figure {
        title: cx
            .title(spec, format!("{} over {} and {}", y.title, key_title(x_key), key_title(y_key))),
        notes,
        finding: format!("{} from {} to {} {}.", y.title, pretty(lo), pretty(hi), y.unit),
        data,
        columns: match drawn.len() {
            n if n > 4 && size.0 < 300.0 => 3,
            _ if several => 2,
            _ => 1,
        },
        panels: drawn.into_iter().map(panel).collect(),
        size,
        colors: Some(ColorBar { title: value_axis, lo, hi }),
        ..Figure::default()
    })
}

/// A tuner's matrix over all shapes: how many times as long kernels tuned at one share take at another as
/// kernels tuned there.
pub(crate) fn matrix(table: &Table, note: &str) -> Result<Figure, String> {
    let rows: Vec<&Row> = table.rows.iter().filter(|r| table.text(r, "shape") == "*").collect();
    let (xs, ys) = (table.distinct(&rows, "run_at_cus"), table.distinct(&rows, "tuned_at_cus"));
    let value = |row: &&Row| {
        let place = |of: &[String], column| of.iter().position(|v| v == table.text(row, column));
        let (x, y) = (place(&xs, "run_at_cus")?, place(&ys, "tuned_at_cus")?);
        Some((x as f64, y as f64, table.number(row, "slowdown"), false))
    };
    let cells: Vec<Cell> = rows.iter().filter_map(value).collect();
    let values: Vec<f64> = cells.iter().filter_map(|c| c.2).collect();
    if values.is_empty() {
        return Err("matrix.csv has no row of all shapes (`*`) with a slowdown".to_owned());
    }
    let (lo, hi) = values.iter().fold((f64::MAX, f64::MIN), |(l, h), v| (l.min(*v), h.max(*v)));
    let size = (
        (xs.len() as f64 * 58.0).clamp(180.0, 460.0),
        (ys.len() as f64 * 40.0).clamp(120.0, 360.0),
    );
    let panel = Panel {
        title: String::new(),
        x: Axis::names("Run at (CUs)", xs),
        y: Axis::names("Tuned at (CUs)", ys),
        marks: cells.into_iter().map(|c| tile(c, lo, hi)).collect(),
    };
    Ok(Figure {
        title: "Tuned at one share, run at another".to_owned(),
        notes: vec![note.to_owned()],
        finding: format!("Slow-downs from {} to {}.", pretty(lo), pretty(hi)),
        columns: 1,
        panels: vec![panel],
        size,
        colors: Some(ColorBar {
            title: "Time against what was tuned there (×)".to_owned(),
            lo,
            hi,
        }),
        ..Figure::default()
    })
}

fn cells(
    cx: &Context<'_>,
    spec: &PlotSpec,
    (own, label): (&[&Row], &str),
    (x_key, xs): (&str, &SweepAxis),
    (y_key, ys): (&str, &SweepAxis),
    y: &Column,
) -> Result<Vec<Cell>, String> {
    let table = cx.results;
    let mut cells = Vec::new();
    for (i, x) in xs.values().iter().enumerate() {
        for (j, v) in ys.values().iter().enumerate() {
            let here = grouped(table, &grouped(table, own, x_key, x), y_key, v);
            let value = cx.estimate(table, spec, &here, y)?.map(|e| e.mean);
            let failed = table.rows.iter().any(|r| {
                table.text(r, STATUS) != "ok"
                    && table.text(r, "label") == label
                    && table.text(r, x_key) == x
                    && table.text(r, y_key) == v
            });
            cells.push((i as f64, j as f64, value, failed));
        }
    }
    Ok(cells)
}

fn tile((x, y, value, failed): Cell, lo: f64, hi: f64) -> Mark {
    let share = |v: f64| if hi > lo { (v - lo) / (hi - lo) } else { 0.5 };
    let text = match value {
        Some(v) => pretty(v),
        None if failed => "×".to_owned(),
        None => "–".to_owned(),
    };
    Mark::Tile { x, y, color: value.map(|v| map_color(share(v))), text }
}
