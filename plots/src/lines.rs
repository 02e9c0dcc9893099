//! `lines`: a metric over one sweep key, with 95 % confidence bands over the repeats.

use crate::axis::Axis;
use crate::figure::{Data, Figure, Key, Mark, Panel};
use crate::grouped::WIDE;
use crate::select::{Context, SweepAxis, column, grouped, logs};
use cotenant_results::PlotSpec;
use cotenant_results::Row;
use cotenant_results::format::{key_title, plain, pretty};

pub(crate) fn figure(cx: &Context<'_>, spec: &PlotSpec) -> Result<Figure, String> {
    let y = column(spec.y.as_deref().unwrap_or("goodput_rps"))?;
    let by = spec.by.as_deref().unwrap_or("label");
    let table = cx.results;
    let rows = table.select(&spec.filter);
    let first = cx.run.sweep_keys.iter().find(|k| *k != by);
    let key = spec.x.as_ref().or(first).ok_or("there is no sweep key left for the x axis")?;
    let panels = cx.panels(table, &rows, spec, by == "tenant" || by == "model", y.name)?;
    let flat: Vec<&Row> = panels.iter().flat_map(|p| p.1.iter().copied()).collect();
    let series = cx.ordered(by, table.distinct(&flat, by));
    let sweep = SweepAxis::of(cx.ordered(key, table.distinct(&flat, key)));
    if sweep.values().is_empty() {
        return Err(format!("no cell that succeeded has a value of the sweep key `{key}`"));
    }
    let (log_x, log_y) = logs(spec, (false, false));
    let x_axis = sweep.axis(cx, key, log_x);
    let (mut drawn, mut heights, mut intervals) = (vec![], vec![], false);
    let value_axis = cx.value_axis(spec, y);
    let mut data = Data::new(["Series", "Panel", x_axis.title.as_str(), value_axis.as_str()]);
    let mut shown: Vec<Vec<Vec<(f64, f64)>>> = vec![vec![]; series.len()];
    for (title, rows) in &panels {
        let mut marks = Vec::new();
        for (n, s) in series.iter().enumerate() {
            let line = Line { rows: grouped(table, rows, by, s), look: cx.look(by, s, n) };
            let before = marks.len();
            line.draw(cx, spec, (key, &sweep), y, (&mut marks, &mut heights, &mut intervals))?;
            let points = marks[before..].iter().filter_map(|m| match m {
                Mark::Point { at, .. } => Some(*at),
                _ => None,
            });
            let points: Vec<(f64, f64)> = points.collect();
            for (x, value) in &points {
                data.rows.push(vec![s.clone(), title.clone(), plain(*x), pretty(*value)]);
            }
            shown[n].push(points);
        }
        // Markers are drawn over all bands and lines.
        marks.sort_by_key(|m| match m {
            Mark::Band { .. } => 0,
            Mark::Line { .. } => 1,
            _ => 2,
        });
        drawn.push((title.clone(), marks));
    }
    if heights.is_empty() {
        return Err(format!("no cell has a value of `{}` to draw", y.name));
    }
    let scale = |values: &[f64]| {
        let axis = Axis::from_zero(&value_axis, values, log_y);
        let percent = y.scale == 100.0 && values.iter().all(|v| *v <= 100.0);
        if percent { axis.capped(100.0) } else { axis }
    };
    let split = by == "tenant" || by == "model";
    let several = drawn.len() > 1;
    // If the panels' ranges differ a lot, each gets its own scale.
    let tops: Vec<Vec<f64>> = drawn.iter().map(|(_, marks)| tops(marks)).collect();
    let most = |t: &Vec<f64>| t.iter().copied().fold(0.0, f64::max);
    let least = tops.iter().map(most).filter(|t| *t > 0.0).fold(f64::MAX, f64::min);
    let apart = tops.iter().map(most).fold(0.0, f64::max) > WIDE * least;
    let panel = |((title, marks), tops): ((String, Vec<Mark>), &Vec<f64>)| Panel {
        title,
        x: x_axis.clone(),
        y: scale(if apart { tops } else { &heights }),
        marks,
    };
    let differ = |n: usize, m: usize| shown[n] != shown[m];
    Ok(Figure {
        title: cx.title(spec, format!("{} over {}", y.title, key_title(key))),
        notes: vec![cx.note(spec, if split { "" } else { cx.whose(spec) }, intervals)],
        finding: format!("{} of {} series over {}.", y.title, series.len(), key_title(key)),
        data,
        panels: drawn.into_iter().zip(&tops).map(panel).collect(),
        columns: if several { 2 } else { 1 },
        size: if several { (360.0, 240.0) } else { (520.0, 320.0) },
        legend: cx.merged_legend(by, &series, Key::Line, differ),
        ..Figure::default()
    })
}

/// The values that the y axis must include.
fn tops(marks: &[Mark]) -> Vec<f64> {
    let of = |m: &Mark| match m {
        Mark::Line { points, .. } => points.iter().map(|p| p.1).collect(),
        Mark::Band { points, .. } => points.iter().flat_map(|p| [p.1.max(0.0), p.2]).collect(),
        Mark::ErrorY { low, high, .. } => vec![low.max(0.0), *high],
        _ => vec![],
    };
    marks.iter().flat_map(of).collect()
}

struct Line<'a> {
    rows: Vec<&'a Row>,
    look: crate::style::Look,
}

impl Line<'_> {
    fn draw(
        &self,
        cx: &Context<'_>,
        spec: &PlotSpec,
        (key, sweep): (&str, &SweepAxis),
        y: &cotenant_results::Column,
        (marks, heights, intervals): (&mut Vec<Mark>, &mut Vec<f64>, &mut bool),
    ) -> Result<(), String> {
        let look = self.look;
        let (mut points, mut band) = (vec![], vec![]);
        for (i, value) in sweep.values().iter().enumerate() {
            let here = grouped(cx.results, &self.rows, key, value);
            let Some(e) = cx.estimate(cx.results, spec, &here, y)? else { continue };
            let x = sweep.at(i);
            points.push((x, e.mean));
            heights.extend([e.low().max(0.0), e.high()]);
            if e.half.is_some() {
                band.push((x, e.low(), e.high()));
            }
            marks.push(Mark::Point { at: (x, e.mean), look, hollow: false });
        }
        // Cells that the key does not affect: the same value along the whole axis.
        let aside = grouped(cx.results, &self.rows, key, "");
        if points.is_empty()
            && let Some(e) = cx.estimate(cx.results, spec, &aside, y)?
        {
            points = (0..sweep.values().len()).map(|i| (sweep.at(i), e.mean)).collect();
            heights.push(e.mean);
        }
        if band.len() > 1 {
            *intervals = true;
            marks.push(Mark::Band { points: band, color: look.color, opacity: 0.16 });
        } else if let [(x, low, high)] = band[..] {
            *intervals = true;
            marks.push(Mark::ErrorY { x, low, high, color: look.color });
        }
        marks.push(Mark::Line { points, color: look.color, dash: look.dash, width: 2.0 });
        Ok(())
    }
}
