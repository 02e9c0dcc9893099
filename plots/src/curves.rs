//! `curves`: latency against the number of CUs; a ring marks the fewest CUs that are sufficient.

use cotenant_results::format::pretty;

use crate::axis::Axis;
use crate::figure::{Data, Entry, Figure, Key, Mark, Panel};
use crate::select::{Context, grouped, logs};
use crate::style::{FAINT, INK, Look, Shape, other_look};
use cotenant_results::PlotSpec;
use cotenant_results::{Row, Table};

/// Number of kernels drawn next to the whole model: those with the largest share of its time.
const KERNELS: usize = 6;

/// The pseudo-kernel that stands for the whole model.
const MODEL: &str = "*";

/// One curve.
struct Curve {
    label: String,
    look: Look,
    points: Vec<(f64, f64)>,
    min_cus: Option<f64>,
    width: f64,
}

pub(crate) fn figure(cx: &Context<'_>, spec: &PlotSpec) -> Result<Figure, String> {
    let table = Table::curves(&cx.dir.join("curves.csv")).map_err(|e| e.to_string())?;
    let title = cx.title(spec, "Latency against compute units".to_owned());
    draw(&table, spec, title, &cx.run.device.title)
}

/// The figure for a table of curves, with or without an experiment around it.
pub(crate) fn draw(
    table: &Table,
    spec: &PlotSpec,
    title: String,
    device: &str,
) -> Result<Figure, String> {
    let rows = table.select(&spec.filter);
    let relative = spec.y.as_deref() == Some("slowdown");
    let by = spec.by.as_deref().unwrap_or("kernel");
    let panels = match by {
        "kernel" => by_kernel(table, &rows, relative),
        _ => whole_models(table, &rows, by, relative),
    };
    let values = |f: fn(&(f64, f64)) -> f64| -> Vec<f64> {
        panels.iter().flat_map(|p| p.1.iter().flat_map(|c| c.points.iter().map(f))).collect()
    };
    let (xs, ys) = (values(|p| p.0), values(|p| p.1));
    if ys.is_empty() {
        return Err("curves.csv has no point to draw".to_owned());
    }
    // Kernels of one model differ by orders of magnitude.
    let (log_x, log_y) = logs(spec, (false, by == "kernel" && !relative));
    let (unit, scale) = if relative {
        ("Latency relative to all CUs (×)", 1.0)
    } else if ys.iter().copied().fold(0.0, f64::max) >= 10_000.0 {
        ("Latency (ms)", 1e-3)
    } else {
        ("Latency (µs)", 1.0)
    };
    let scaled: Vec<f64> = ys.iter().map(|y| y * scale).collect();
    let y_axis = Axis::from_zero(unit, &scaled, log_y);
    let x_axis = if log_x {
        Axis::spanning("CUs given (CUs)", &xs, true)
    } else {
        Axis::exact("CUs given (CUs)", 0.0, xs.iter().copied().fold(1.0, f64::max) * 1.02)
    };
    let mut data = Data::new(["Panel", "Curve", "On most CUs", "min-CU"]);
    for (title, curves) in &panels {
        for c in curves {
            let last = c.points.last().map_or("–".to_owned(), |p| pretty(p.1 * scale));
            let least = c.min_cus.map_or("–".to_owned(), pretty);
            data.rows.push(vec![title.clone(), c.label.clone(), last, least]);
        }
    }
    let legend = legend(&panels);
    let several = panels.len() > 1;
    let panel = |(title, curves): (String, Vec<Curve>)| Panel {
        title: if several { title } else { String::new() },
        x: x_axis.clone(),
        y: y_axis.clone(),
        marks: curves.iter().flat_map(|c| marks(c, scale)).collect(),
    };
    let mut notes: Vec<&str> = vec![];
    let name = panels.first().map(|p| p.0.clone()).unwrap_or_default();
    if !several && !name.is_empty() {
        notes.push(&name);
    }
    if !device.is_empty() {
        notes.push(device);
    }
    Ok(Figure {
        title,
        notes: vec![notes.join(" · ")],
        finding: "A ring marks the fewest CUs within the tolerance (min-CU).".to_owned(),
        data,
        columns: if several { 2 } else { 1 },
        size: if several { (330.0, 230.0) } else { (520.0, 330.0) },
        panels: panels.into_iter().map(panel).collect(),
        legend,
        ..Figure::default()
    })
}

/// A panel for each model and batch, with the whole model and its heaviest kernels.
fn by_kernel(table: &Table, rows: &[&Row], relative: bool) -> Vec<(String, Vec<Curve>)> {
    let mut panels = Vec::new();
    for model in table.distinct(rows, "model") {
        let of_model = grouped(table, rows, "model", &model);
        for batch in table.distinct(&of_model, "batch") {
            let own = grouped(table, &of_model, "batch", &batch);
            let mut names = table.distinct(&own, "kernel");
            let share = |name: &String| {
                let rows = grouped(table, &own, "kernel", name);
                rows.first().and_then(|r| table.number(r, "share_pct_of_model_time"))
            };
            names.retain(|n| n != MODEL);
            names.sort_by(|a, b| share(b).unwrap_or(0.0).total_cmp(&share(a).unwrap_or(0.0)));
            names.truncate(KERNELS);
            let mut curves = Vec::new();
            let whole = grouped(table, &own, "kernel", MODEL);
            if !whole.is_empty() {
                let look = Look { color: INK, shape: Shape::Circle, dash: &[] };
                curves.push(curve(table, &whole, "whole model".to_owned(), look, relative));
            }
            for (n, name) in names.iter().enumerate() {
                let rows = grouped(table, &own, "kernel", name);
                let label = match share(name) {
                    Some(s) => format!("{name}, {s:.0} % of the time"),
                    None => name.clone(),
                };
                let mut c = curve(table, &rows, label, other_look(n), relative);
                c.width = 1.5;
                curves.push(c);
            }
            panels.push((format!("{model}, batch {batch}"), curves));
        }
    }
    panels
}

/// Only whole models, with a curve for each batch or model.
fn whole_models(
    table: &Table,
    rows: &[&Row],
    by: &str,
    relative: bool,
) -> Vec<(String, Vec<Curve>)> {
    let rows: Vec<&Row> = grouped(table, rows, "kernel", MODEL);
    let (apart, other) = if by == "batch" { ("model", "batch") } else { ("batch", "model") };
    let series = table.distinct(&rows, other);
    let mut panels = Vec::new();
    for value in table.distinct(&rows, apart) {
        let own = grouped(table, &rows, apart, &value);
        let curves = series
            .iter()
            .enumerate()
            .map(|(n, s)| {
                let label = if by == "batch" { format!("batch {s}") } else { s.clone() };
                curve(table, &grouped(table, &own, other, s), label, other_look(n), relative)
            })
            .collect();
        panels.push((if by == "batch" { value } else { format!("batch {value}") }, curves));
    }
    panels
}

fn curve(table: &Table, rows: &[&Row], label: String, look: Look, relative: bool) -> Curve {
    let mut points: Vec<(f64, f64)> = rows
        .iter()
        .filter_map(|r| Some((table.number(r, "cus")?, table.number(r, "duration_us")?)))
        .collect();
    points.sort_by(|a, b| a.0.total_cmp(&b.0));
    if relative && let Some(all) = points.last().map(|p| p.1).filter(|d| *d > 0.0) {
        points.iter_mut().for_each(|p| p.1 /= all);
    }
    let min_cus = rows.iter().find_map(|r| table.number(r, "min_cus"));
    Curve { label, look, points, min_cus, width: 2.2 }
}

fn marks(curve: &Curve, scale: f64) -> Vec<Mark> {
    let Look { color, dash, .. } = curve.look;
    let points: Vec<_> = curve.points.iter().map(|p| (p.0, p.1 * scale)).collect();
    let mut marks = Vec::new();
    if let Some(cus) = curve.min_cus
        && let Some(y) = at(&points, cus)
    {
        let look = Look { shape: Shape::Circle, ..curve.look };
        marks.push(Mark::Point { at: (cus, y), look, hollow: true });
    }
    marks.insert(0, Mark::Line { points, color, dash, width: curve.width });
    marks
}

/// The height of the drawn line at `x`, so that the ring is on the line.
fn at(points: &[(f64, f64)], x: f64) -> Option<f64> {
    let right = points.iter().position(|p| p.0 >= x)?;
    let b = points[right];
    if b.0 == x || right == 0 {
        return Some(b.1);
    }
    let a = points[right - 1];
    Some(a.1 + (b.1 - a.1) * (x - a.0) / (b.0 - a.0))
}

fn legend(panels: &[(String, Vec<Curve>)]) -> Vec<Entry> {
    let mut entries: Vec<Entry> = Vec::new();
    // Each panel has its own kernel names: with several panels, colours stand for ranks.
    let ranks = panels.len() > 1 && panels.iter().any(|p| p.1.iter().any(|c| c.width < 2.0));
    let longest = panels.iter().max_by_key(|p| p.1.len());
    for (n, c) in longest.iter().flat_map(|p| p.1.iter().enumerate()) {
        let label = match (ranks, n) {
            (true, n) if c.width < 2.0 => {
                let whole = usize::from(longest.is_some_and(|p| p.1[0].width > 2.0));
                format!("kernel of rank {} by time", n + 1 - whole)
            }
            _ => c.label.clone(),
        };
        entries.push(Entry { label, look: c.look, key: Key::PlainLine });
    }
    if panels.iter().any(|p| p.1.iter().any(|c| c.min_cus.is_some())) {
        let look = Look { color: FAINT, shape: Shape::Circle, dash: &[] };
        entries.push(Entry {
            label: "fewest CUs within the tolerance (min-CU)".to_owned(),
            look,
            key: Key::Hollow,
        });
    }
    entries
}
