//! Sorted dots next to the names of the series, with a panel for each group: the form for many series.

use cotenant_results::columns::Better;
use cotenant_results::{Estimate, PlotSpec};

use crate::axis::Axis;
use crate::figure::{Figure, Key, Mark, Panel, Side};
use crate::grouped::{Plan, Value, WIDE};
use crate::select::Context;
use crate::style::FAINT;

/// Height of a row, px.
const ROW: f64 = 19.0;
/// Share of a panel's width that a number of three digits needs, with its distance.
const ROOM: f64 = 0.18;
/// Most groups that get a panel each; more groups become rows.
const MOST_PANELS: usize = 12;
/// Attainment that counts as met, %.
const MET: f64 = 99.0;
/// Attainments below this are far from any goal, %.
const NEAR: f64 = 80.0;
/// Ratio of values above which a latency axis is logarithmic unless the plot sets it.
const LOG: f64 = 30.0;

pub(crate) fn figure(cx: &Context<'_>, spec: &PlotSpec, plan: &Plan<'_>) -> Figure {
    if plan.same {
        let panels: Vec<(String, Vec<Value>)> =
            plan.panels.iter().map(|(t, groups)| (t.clone(), plan.diagonal(groups))).collect();
        return by_series(cx, spec, plan, &panels);
    }
    let shown = plan.titles(cx);
    if plan.xs.len() * plan.panels.len() > MOST_PANELS {
        return by_group(cx, spec, plan, &shown);
    }
    let title = |of: &str, group: &str| match (of, plan.xs.len()) {
        (of, 1) if !of.is_empty() => of.to_owned(),
        ("", _) => group.to_owned(),
        (of, _) => format!("{of} · {group}"),
    };
    let each = plan.panels.iter().flat_map(|(of, groups)| {
        shown.iter().zip(groups).map(move |(x, group)| (title(of, x), group.clone()))
    });
    by_series(cx, spec, plan, &each.collect::<Vec<_>>())
}

/// A row for each series.
fn by_series(
    cx: &Context<'_>,
    spec: &PlotSpec,
    plan: &Plan<'_>,
    panels: &[(String, Vec<Value>)],
) -> Figure {
    let order = order(cx, plan, panels);
    let names: Vec<String> = order.iter().map(|&n| plan.series[n].clone()).collect();
    let apart = apart(panels);
    let several = panels.len() > 1;
    let everything: Vec<&Value> = panels.iter().flat_map(|p| &p.1).collect();
    let panel = |(title, values): &(String, Vec<Value>)| {
        let own: Vec<&Value> = values.iter().collect();
        let goal = goal(cx, plan, title);
        let x = axis(plan, spec, if apart { &own } else { &everything }, goal);
        let mut marks: Vec<Mark> =
            goal.map(|x| Mark::Rule { x, label: String::new() }).into_iter().collect();
        for (row, &n) in order.iter().enumerate() {
            let look = cx.look(plan.by, &plan.series[n], n);
            let bound = cx.is_bound(plan.by, &plan.series[n]);
            marks.extend(dot(plan, &x, row as f64, &values[n], look, bound));
        }
        let title = cx.goal_title(title, plan.y.unit == "ms");
        Panel { title, x, y: Axis::names("", names.clone()), marks }
    };
    let width = match panels.len() {
        1 => 430.0,
        2 => 300.0,
        _ => 225.0,
    };
    Figure {
        share_y: several,
        columns: if panels.len() == 4 { 2 } else { 3 },
        size: (width, names.len() as f64 * ROW + 8.0),
        panels: panels.iter().map(panel).collect(),
        ..Figure::default()
    }
}

/// A row for each group, with the dots of all series in it.
fn by_group(cx: &Context<'_>, spec: &PlotSpec, plan: &Plan<'_>, shown: &[String]) -> Figure {
    let names: Vec<String> = shown.iter().rev().cloned().collect();
    let panel = |(title, groups): &(String, Vec<Vec<Value>>)| {
        let all: Vec<&Value> = groups.iter().flatten().collect();
        let goal = goal(cx, plan, title);
        let x = axis(plan, spec, &all, goal);
        let mut marks: Vec<Mark> =
            goal.map(|x| Mark::Rule { x, label: String::new() }).into_iter().collect();
        for (row, group) in groups.iter().rev().enumerate() {
            for (n, value) in group.iter().enumerate() {
                let look = cx.look(plan.by, &plan.series[n], n);
                let hollow = cx.is_bound(plan.by, &plan.series[n]);
                if let Value::Known(e) = value {
                    marks.push(Mark::Point { at: (e.mean, row as f64), look, hollow });
                }
            }
        }
        Panel { title: title.clone(), x, y: Axis::names("", names.clone()), marks }
    };
    Figure {
        columns: 2,
        size: (430.0, (names.len() as f64 * ROW + 8.0).min(900.0)),
        panels: plan.panels.iter().map(panel).collect(),
        legend: cx.legend(plan.by, &plan.series, Key::Marker),
        ..Figure::default()
    }
}

/// A dot with its interval and its number.
fn dot(
    plan: &Plan<'_>,
    axis: &Axis,
    row: f64,
    value: &Value,
    look: crate::style::Look,
    hollow: bool,
) -> Vec<Mark> {
    let left = axis.ends().0;
    let note = |x: f64, side, text: &str| Mark::Note { at: (x, row), text: text.to_owned(), side };
    let Value::Known(e) = value else {
        let text = if *value == Value::Failed { "× failed" } else { "no value" };
        return vec![note(left, Side::Right, text)];
    };
    if e.mean < left {
        return vec![note(left, Side::Right, &format!("← {}", plan.label(e.mean)))];
    }
    let mut marks = vec![];
    if e.half.is_some_and(|h| h > 0.0) {
        let (low, high) = (e.low().max(left), e.high());
        marks.push(Mark::ErrorX { y: row, low, high, color: FAINT });
    }
    let x = e.mean.max(left);
    // Beyond the interval, so that the number covers nothing.
    let (low, high) = if e.half.is_some() { (e.low().max(left), e.high()) } else { (x, x) };
    let place = |value| axis.place(value).unwrap_or_default().clamp(0.0, 1.0);
    let (before, behind) = (place(low), 1.0 - place(high));
    let (at, side) = match () {
        () if before.max(behind) < ROOM * 0.7 => (x, Side::Over),
        () if behind >= ROOM.min(before) => (high, Side::Right),
        () => (low, Side::Left),
    };
    marks.push(note(at, side, &plan.label(e.mean)));
    marks.push(Mark::Point { at: (x, row), look, hollow });
    marks
}

fn means(values: &[&Value]) -> Vec<f64> {
    values.iter().filter_map(|v| v.estimate()).map(|e| e.mean).collect()
}

/// Whether the panels' ranges differ too much for a common axis.
fn apart(panels: &[(String, Vec<Value>)]) -> bool {
    let tops = panels.iter().map(|(_, values)| {
        means(&values.iter().collect::<Vec<_>>()).into_iter().fold(0.0, f64::max)
    });
    let tops: Vec<f64> = tops.filter(|t| *t > 0.0).collect();
    let (least, most) = tops.iter().fold((f64::MAX, 0.0_f64), |(l, m), t| (l.min(*t), m.max(*t)));
    most > WIDE * least
}

fn axis(plan: &Plan<'_>, spec: &PlotSpec, values: &[&Value], goal: Option<f64>) -> Axis {
    let known: Vec<&Estimate> = values.iter().filter_map(|v| v.estimate()).collect();
    let mut ends: Vec<f64> = known.iter().flat_map(|e| [e.low().max(0.0), e.high()]).collect();
    if plan.y.name == "slo_attainment" && spec.relative_to.is_none() {
        // A value far from its goal need not be read precisely: it is drawn at the edge, with its number.
        let near = known.iter().filter(|e| e.mean >= NEAR).count();
        let from = if near * 3 >= known.len() { NEAR } else { 0.0 };
        return Axis::exact(&plan.axis, from, 100.0)
            .ticks_at(&[from, 50.0, 80.0, 85.0, 90.0, 95.0, 99.0]);
    }
    ends.extend(goal);
    let above = || ends.iter().copied().filter(|v| *v > 0.0);
    let (least, most) = (above().fold(f64::MAX, f64::min), above().fold(0.0, f64::max));
    let wide = plan.y.unit == "ms" && most > LOG * least && spec.log.is_none();
    let axis = match plan.log || wide {
        true => Axis::spanning(&plan.axis, &ends, true),
        false => Axis::from_zero(&plan.axis, &ends, false),
    };
    let percent = plan.y.scale == 100.0 && spec.relative_to.is_none();
    if percent { axis.capped(100.0) } else { axis }
}

/// The goal of a panel: the attainment that counts as met, or the tenant's own latency goal.
fn goal(cx: &Context<'_>, plan: &Plan<'_>, title: &str) -> Option<f64> {
    if plan.y.name == "slo_attainment" {
        return Some(MET);
    }
    let latency = plan.y.name.starts_with("latency_") && plan.y.unit == "ms";
    let tenant = cx.run.tenants.iter().find(|t| t.name == title).filter(|_| latency)?;
    tenant.slo_ms
}

/// Rows from the bottom up: the best on top, failed series and the bound at the bottom.
fn order(cx: &Context<'_>, plan: &Plan<'_>, panels: &[(String, Vec<Value>)]) -> Vec<usize> {
    let score = |n: usize| -> f64 {
        let of = |(_, values): &(String, Vec<Value>)| {
            let all = means(&values.iter().collect::<Vec<_>>());
            let most = all.into_iter().fold(0.0, f64::max);
            values[n].estimate().map(|e| if most > 0.0 { e.mean / most } else { 0.0 })
        };
        let known: Vec<f64> = panels.iter().filter_map(of).collect();
        match (known.is_empty(), plan.y.better) {
            (true, _) => f64::NEG_INFINITY,
            (_, Better::Lower) => -known.iter().sum::<f64>() / known.len() as f64,
            (_, Better::Higher) => known.iter().sum::<f64>() / known.len() as f64,
            (_, Better::Neither) => 0.0,
        }
    };
    let mut order: Vec<usize> = (0..plan.series.len()).rev().collect();
    let rival = |n: usize| !cx.is_bound(plan.by, &plan.series[n]);
    order.sort_by(|a, b| rival(*a).cmp(&rival(*b)).then(score(*a).total_cmp(&score(*b))));
    order
}
