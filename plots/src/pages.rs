//! Pictures for pages other than the report, in its style: alternatives compared with each other, and their
//! behaviour under growing load.

use crate::axis::Axis;
use crate::chart;
use crate::figure::{Entry, Figure, Key, Mark, Panel, Side};
use crate::pareto::{self, DASH};
use crate::report;
use crate::style::{self, INK, Look, Shape};

/// An alternative and its results.
#[derive(Clone, Debug)]
pub struct Way {
    /// Its name.
    pub name: String,
    /// The policy whose look it has in other figures; alternatives without one get a look of their own.
    pub policy: Option<&'static str>,
    /// Its points: one on a frontier, several on a curve, by ascending x.
    pub points: Vec<(f64, f64)>,
}

fn looks(ways: &[Way]) -> Vec<Look> {
    let own = ways.iter().enumerate();
    own.map(|(n, w)| w.policy.map_or_else(|| style::other_look(n), style::policy_look)).collect()
}

/// Alternatives as points, where less of `x` and more of `y` is better; those that no other one beats are
/// named, ringed and joined. One SVG for the panel, one for the legend.
#[must_use]
pub fn frontier(x: &str, y: &str, ways: &[Way]) -> Vec<String> {
    let looks = looks(ways);
    let points: Vec<(usize, (f64, f64))> =
        ways.iter().enumerate().filter_map(|(n, w)| Some((n, *w.points.first()?))).collect();
    let scores: Vec<(f64, f64)> = points.iter().map(|(_, at)| (-at.0, at.1)).collect();
    let mut front: Vec<(usize, (f64, f64))> =
        pareto::unbeaten(&scores).into_iter().map(|i| points[i]).collect();
    front.sort_by(|a, b| a.1.0.total_cmp(&b.1.0));
    let mut marks = vec![];
    if front.len() > 1 {
        let stairs: Vec<(f64, f64)> = front.iter().map(|(_, at)| *at).collect();
        marks.push(pareto::staircase(&stairs, true));
    }
    for (n, at) in &points {
        marks.push(Mark::Point { at: *at, look: looks[*n], hollow: false });
    }
    for (n, at) in &front {
        marks.push(Mark::Ring { at: *at, color: INK });
        marks.push(Mark::Note { at: *at, text: ways[*n].name.clone(), side: Side::Free });
    }
    let of = |f: fn(&(f64, f64)) -> f64| points.iter().map(|(_, at)| f(at)).collect::<Vec<f64>>();
    let (xs, ys) = (of(|p| p.0), of(|p| p.1));
    let mut legend: Vec<Entry> = points
        .iter()
        .map(|(n, _)| Entry { label: ways[*n].name.clone(), look: looks[*n], key: Key::Marker })
        .collect();
    let ring = Look { color: INK, shape: Shape::Circle, dash: DASH };
    legend.push(Entry { label: "on the frontier".to_owned(), look: ring, key: Key::Ring });
    let names: Vec<&str> = front.iter().map(|(n, _)| ways[*n].name.as_str()).collect();
    let finding = format!("On the frontier: {}.", names.join(", "));
    let axes = (Axis::from_zero(x, &xs, false), counted(y, &ys));
    pieces("frontier", finding, axes, marks, legend)
}

/// A figure of one panel: its SVG, and that of its legend.
fn pieces(
    name: &str,
    finding: String,
    (x, y): (Axis, Axis),
    marks: Vec<Mark>,
    legend: Vec<Entry>,
) -> Vec<String> {
    let figure = Figure {
        finding,
        panels: vec![Panel { title: String::new(), x, y, marks }],
        columns: 1,
        size: (520.0, 280.0),
        legend,
        ..Figure::default()
    };
    chart::pieces(&figure, name)
}

/// An axis from zero; for counts, with ticks at whole numbers and room for markers.
fn counted(title: &str, values: &[f64]) -> Axis {
    let most = values.iter().copied().fold(1.0, f64::max);
    if most > 12.0 || values.iter().any(|v| v.fract() != 0.0) {
        return Axis::from_zero(title, values, false);
    }
    let whole: Vec<f64> = (0..=most as u32).map(f64::from).collect();
    Axis::exact(title, -0.08 * most, 1.12 * most).ticks_at(&whole)
}

/// Alternatives as curves with a dashed line at `limit`; everything above `most` is cut off. One SVG for the
/// panel, one for the legend.
#[must_use]
pub fn curves(x: &str, y: &str, (limit, most): (f64, f64), ways: &[Way]) -> Vec<String> {
    let looks = looks(ways);
    let xs: Vec<f64> = ways.iter().flat_map(|w| &w.points).map(|p| p.0).collect();
    let ends =
        (xs.iter().copied().fold(f64::MAX, f64::min), xs.iter().copied().fold(0.0, f64::max));
    let rule = vec![(ends.0.min(ends.1), limit), (ends.1, limit)];
    let mut marks = vec![Mark::Line { points: rule, color: INK, dash: DASH, width: 1.2 }];
    let mut ys = vec![limit];
    for (way, look) in ways.iter().zip(&looks) {
        let (mut points, mut over) = (vec![], None);
        for &(x, y) in &way.points {
            if y > most {
                over = Some((x, y));
                break;
            }
            points.push((x, y));
        }
        ys.extend(points.iter().map(|p| p.1));
        for at in &points {
            marks.push(Mark::Point { at: *at, look: *look, hollow: false });
        }
        // Up to the edge of the picture.
        if let (Some(&(x0, y0)), Some((x1, y1))) = (points.last(), over) {
            let share = if y1.is_finite() { (most - y0) / (y1 - y0) } else { 0.5 };
            points.push((x0 + (x1 - x0) * share.clamp(0.0, 1.0), most));
            ys.push(most);
        }
        if points.len() > 1 {
            marks.push(Mark::Line { points, color: look.color, dash: look.dash, width: 2.0 });
        }
    }
    let entry =
        |(way, look): (&Way, &Look)| Entry { label: way.name.clone(), look: *look, key: Key::Line };
    let mut legend: Vec<Entry> = ways.iter().zip(&looks).map(entry).collect();
    let dashed = Look { color: INK, shape: Shape::Circle, dash: DASH };
    legend.push(Entry { label: "the goal".to_owned(), look: dashed, key: Key::PlainLine });
    let top = ys.iter().copied().fold(limit, f64::max) * 1.05;
    let finding = format!("{y} of {} ways over {x}.", ways.len());
    let axes = (Axis::from_zero(x, &xs, false).ticks_at(&xs), Axis::exact(y, 0.0, top.min(most)));
    pieces("curves", finding, axes, marks, legend)
}

/// The report's style sheet, with the dark-mode colours of these pictures.
#[must_use]
pub fn style(pictures: &[&[String]]) -> String {
    let all = pictures.iter().copied().flatten().map(String::as_str);
    format!("{}{}", report::STYLE, report::dark_colors(all))
}

/// The script of the copy buttons.
pub const SCRIPT: &str = report::SCRIPT;

/// The content security policy of a page that loads nothing and runs only that script.
#[must_use]
pub fn policy() -> String {
    report::policy()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn way(name: &str, points: &[(f64, f64)]) -> Way {
        Way { name: name.to_owned(), policy: None, points: points.to_vec() }
    }

    #[test]
    fn what_nothing_beats_is_on_the_frontier() {
        let ways = [
            way("dear", &[(3.0, 2.0)]),
            way("good", &[(1.0, 2.0)]),
            way("cheap", &[(0.5, 1.0)]),
            way("bad", &[(2.0, 1.0)]),
        ];
        let pieces = frontier("price", "goals met", &ways);
        assert_eq!(pieces.len(), 2);
        assert!(pieces[0].contains("On the frontier: cheap, good."), "{}", pieces[0]);
        assert!(pieces[1].contains("dear") && pieces[1].contains("bad"));
    }

    #[test]
    fn curves_end_where_the_paper_does() {
        let ways = [
            way("short", &[(1.0, 0.5), (2.0, 9.0)]),
            way("long", &[(1.0, 0.2), (2.0, f64::INFINITY)]),
            way("never", &[(1.0, 50.0)]),
        ];
        let pieces = curves("load", "p99 over goal", (1.0, 3.0), &ways);
        assert_eq!(pieces.len(), 2);
        assert!(!pieces[0].contains("NaN") && !pieces[0].contains("inf"));
        assert!(style(&[&pieces]).contains("prefers-color-scheme: dark"));
    }
}
