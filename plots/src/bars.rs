//! `bars`: a metric of every series, with 95 % confidence intervals over the repeats. Many series are drawn
//! as sorted dots next to their names, with a panel for each value of x; a few series over several groups are
//! drawn as bars.

use cotenant_results::PlotSpec;

use crate::axis::Axis;
use crate::dots;
use crate::figure::{Figure, Key, Mark, Panel, Side};
use crate::grouped::{Plan, Value, WIDE, group_title};
use crate::select::Context;

/// Share of a group's width that its bars fill.
const FILLED: f64 = 0.82;
/// Number of colours that a reader can tell apart without the legend; with more series, names are put on the
/// axis.
const FEW_SERIES: usize = 4;

pub(crate) fn figure(cx: &Context<'_>, spec: &PlotSpec) -> Result<Figure, String> {
    let (plan, without) = Plan::of(cx, spec)?;
    let (by, y) = (plan.by, plan.y);
    let whose = if plan.tells_tenants() { "" } else { cx.whose(spec) };
    let mut notes = vec![cx.note(spec, whose, plan.intervals())];
    let values = || plan.panels.iter().flat_map(|p| p.1.iter().flatten());
    if values().any(|v| *v == Value::Failed) {
        notes.push("× the cell failed; its reason is in the results table".to_owned());
    }
    if !without.is_empty() {
        notes.push(format!("no {}: {}", y.title.to_lowercase(), without.join(", ")));
    }
    let title = match &spec.relative_to {
        Some(base) => format!("{} by {}, relative to {base}", y.title, Context::column_title(by)),
        None => format!("{} by {}", y.title, Context::column_title(by)),
    };
    let figure = match plan.few() {
        true => plan.bars(cx),
        false => dots::figure(cx, spec, &plan),
    };
    Ok(Figure {
        title: cx.title(spec, title),
        notes,
        finding: plan.finding(cx),
        data: plan.data(cx),
        ..figure
    })
}

impl Plan<'_> {
    /// Whether bars are suitable: few colours, several groups, one linear axis for all values.
    fn few(&self) -> bool {
        let above = || self.all().map(|e| e.mean).filter(|m| *m > 0.0);
        let (least, most) = (above().fold(f64::MAX, f64::min), above().fold(0.0, f64::max));
        let fits = most <= WIDE * least && !self.log;
        !self.same && self.series.len() <= FEW_SERIES && self.xs.len() > 1 && fits
    }

    fn bars(&self, cx: &Context<'_>) -> Figure {
        let ends: Vec<f64> = self.all().flat_map(|e| [e.low(), e.high()]).collect();
        let x = Axis::names(&group_title(cx, &self.groups), self.shown(cx));
        let y = Axis::from_zero(&self.axis, &ends, false);
        let percent = self.y.scale == 100.0 && ends.iter().all(|v| *v <= 100.0);
        let y = if percent { y.capped(100.0) } else { y };
        let panel = |(title, groups): &(String, Vec<Vec<Value>>)| Panel {
            title: title.clone(),
            x: x.clone(),
            y: y.clone(),
            marks: self.bar_marks(cx, groups),
        };
        let panels: Vec<Panel> = self.panels.iter().map(panel).collect();
        let wanted = (self.xs.len() * (self.series.len() * 16 + 18)) as f64;
        let several = panels.len() > 1;
        let (least, most) = if several { (300.0, 520.0) } else { (420.0, 900.0) };
        Figure {
            columns: if several { 2 } else { 1 },
            size: (wanted.clamp(least, most), 300.0),
            legend: cx.legend(self.by, &self.series, Key::Swatch),
            panels,
            ..Figure::default()
        }
    }

    fn bar_marks(&self, cx: &Context<'_>, groups: &[Vec<Value>]) -> Vec<Mark> {
        let mut marks = Vec::new();
        let width = FILLED / self.series.len() as f64;
        for (i, group) in groups.iter().enumerate() {
            for (n, value) in group.iter().enumerate() {
                let from = i as f64 - FILLED / 2.0 + n as f64 * width;
                let middle = from + width / 2.0;
                match value {
                    Value::Known(e) => {
                        let color = cx.look(self.by, &self.series[n], n).color;
                        marks.push(Mark::Bar { from, to: from + width, top: e.mean, color });
                        if e.half.is_some() {
                            let (low, high, color) = (e.low(), e.high(), crate::style::INK);
                            marks.push(Mark::ErrorY { x: middle, low, high, color });
                        }
                    }
                    Value::Failed => {
                        let text = "×".to_owned();
                        marks.push(Mark::Note { at: (middle, 0.0), text, side: Side::Over });
                    }
                    Value::Absent => {}
                }
            }
        }
        marks
    }
}
