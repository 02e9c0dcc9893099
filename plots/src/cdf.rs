//! `cdf`: the share of requests answered within a latency, one panel per tenant, with the SLO marked.

use std::collections::BTreeMap;

use crate::axis::Axis;
use crate::figure::{Data, Figure, Key, Mark, Panel};
use crate::select::{Context, WHOLE, grouped, logs};
use cotenant_results::PlotSpec;
use cotenant_results::columns::LATENCY;
use cotenant_results::format::pretty;
use cotenant_results::{Row, Table};

/// Ratio of latencies above which the axis is logarithmic unless the plot sets it.
const WIDE: f64 = 40.0;

pub(crate) fn figure(cx: &Context<'_>, spec: &PlotSpec) -> Result<Figure, String> {
    let by = spec.by.as_deref().unwrap_or("label");
    let table =
        &Table::cdf(&cx.dir.join("cdf.csv"), &cx.run.sweep_keys).map_err(|e| e.to_string())?;
    let rows = table.select(&spec.filter);
    let rows: Vec<&Row> =
        rows.into_iter().filter(|r| table.number(r, "latency_ms").is_some()).collect();
    let tenants = tenants(cx, table, &rows, spec, by)?;
    let series: Vec<String> = cx
        .ordered(by, table.distinct(&rows, by))
        .into_iter()
        .filter(|s| by != "tenant" || s != WHOLE)
        .collect();
    let (mut curves, mut latencies) = (vec![], vec![]);
    for tenant in &tenants {
        let own =
            if by == "tenant" { rows.clone() } else { grouped(table, &rows, "tenant", tenant) };
        let mut lines = vec![];
        for s in &series {
            let points = quantiles(cx, table, &grouped(table, &own, by, s))?;
            latencies.extend(points.iter().map(|p| p.0));
            lines.push(points);
        }
        curves.push((tenant, lines));
    }
    if latencies.is_empty() {
        return Err("cdf.csv has no latency to draw: no request completed".to_owned());
    }
    let typical = percentile(&latencies, 0.5);
    let most = latencies.iter().copied().fold(0.0, f64::max);
    let log = logs(spec, (most > WIDE * typical.max(1e-9), false)).0;
    let x_axis = if log {
        let above: Vec<f64> = latencies.iter().copied().filter(|v| *v > most * 1e-6).collect();
        Axis::spanning(&LATENCY.axis(), &above, true)
    } else {
        Axis::from_zero(&LATENCY.axis(), &latencies, false)
    };
    let y_axis = Axis::tail("Requests answered within (%)");
    let mut data = Data::new([
        "Series",
        "Tenant",
        "50 % within (ms)",
        "90 % within (ms)",
        "99 % within (ms)",
        "99.9 % within (ms)",
    ]);
    let mut shown: Vec<Vec<String>> = vec![];
    let mut panels = Vec::new();
    for (tenant, lines) in curves {
        let title = match tenants.len() {
            1 => String::new(),
            _ => cx.goal_title(&cx.show("tenant", tenant), true),
        };
        for (s, points) in series.iter().zip(&lines).filter(|(_, p)| !p.is_empty()) {
            let at = |q: f64| points.iter().find(|p| p.1 >= q - 1e-9).map_or(f64::NAN, |p| p.0);
            let mut row = vec![s.clone(), cx.show("tenant", tenant)];
            row.extend([50.0, 90.0, 99.0, 99.9].map(|q| pretty(at(q))));
            data.rows.push(row);
        }
        shown.push(lines.iter().map(|l| format!("{l:?}")).collect());
        let marks = marks(cx, by, &series, tenant, lines);
        panels.push(Panel { title, x: x_axis.clone(), y: y_axis.clone(), marks });
    }
    let several = panels.len() > 1;
    let whose =
        if several || by == "tenant" { String::new() } else { cx.show("tenant", &tenants[0]) };
    let mut note = cx.note(spec, &whose, false);
    if cx.run.seeds.len() > 1 {
        note = format!("{note} · latency at each quantile averaged over the repeats");
    }
    let apart = |n: usize, m: usize| shown.iter().any(|p| p[n] != p[m]);
    Ok(Figure {
        title: cx.title(spec, "Latency distribution".to_owned()),
        finding: "Share of requests answered within a latency; the axis widens towards 100 %."
            .to_owned(),
        notes: vec![note],
        data,
        columns: if several { 2 } else { 1 },
        size: if several { (360.0, 240.0) } else { (520.0, 320.0) },
        panels,
        legend: cx.merged_legend(by, &series, Key::PlainLine, apart),
        ..Figure::default()
    })
}

/// The tenants that get a panel each; a single unnamed panel if tenants are the series.
fn tenants(
    cx: &Context<'_>,
    table: &Table,
    rows: &[&Row],
    spec: &PlotSpec,
    by: &str,
) -> Result<Vec<String>, String> {
    match spec.tenant.as_deref() {
        Some(t) if t != "each" => {
            let known = table.distinct(rows, "tenant");
            if !known.iter().any(|k| k == t) {
                let known: Vec<&str> = known.iter().map(String::as_str).collect();
                return Err(cotenant_results::columns::unknown("tenant", t, &known));
            }
            Ok(vec![t.to_owned()])
        }
        _ if by == "tenant" => Ok(vec![String::new()]),
        _ => {
            let all = cx.ordered("tenant", table.distinct(rows, "tenant"));
            let single: Vec<String> = all.iter().filter(|t| *t != WHOLE).cloned().collect();
            Ok(if single.is_empty() { all } else { single })
        }
    }
}

fn marks(
    cx: &Context<'_>,
    by: &str,
    series: &[String],
    tenant: &str,
    lines: Vec<Vec<(f64, f64)>>,
) -> Vec<Mark> {
    let mut marks = Vec::new();
    let info = cx.run.tenants.iter().find(|t| t.name == tenant);
    if let Some(slo) = info.and_then(|t| t.slo_ms) {
        marks.push(Mark::Rule { x: slo, label: "goal".to_owned() });
    }
    for (n, points) in lines.into_iter().enumerate() {
        let look = cx.look(by, &series[n], n);
        marks.push(Mark::Line { points, color: look.color, dash: look.dash, width: 2.0 });
    }
    marks
}

/// `(latency, percent)` of one series, the latency at each quantile averaged over the repeats.
fn quantiles(cx: &Context<'_>, table: &Table, rows: &[&Row]) -> Result<Vec<(f64, f64)>, String> {
    cx.unmixed(table, rows)?;
    // Quantiles are not negative, so their bits sort in the same order as their values.
    let mut at: BTreeMap<u64, (f64, u32)> = BTreeMap::new();
    for row in rows {
        let quantile = table.number(row, "quantile").filter(|q| (0.0..=1.0).contains(q));
        let quantile = quantile
            .ok_or_else(|| format!("cdf.csv:{}: `quantile` is not within 0 and 1", row.line))?;
        let sum = at.entry((quantile + 0.0).to_bits()).or_insert((0.0, 0));
        sum.0 += table.number(row, "latency_ms").unwrap_or(0.0);
        sum.1 += 1;
    }
    let mean = |(q, (sum, n)): (u64, (f64, u32))| (sum / f64::from(n), f64::from_bits(q) * 100.0);
    Ok(at.into_iter().map(mean).collect())
}

fn percentile(values: &[f64], share: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[((sorted.len() - 1) as f64 * share) as usize]
}
