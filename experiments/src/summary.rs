//! The summary table on stdout: means over repeats.

use std::collections::BTreeMap;

use crate::results::Metrics;
use crate::run::Finished;
use crate::text::{align, rounded};

/// Rows that a terminal is asked to show.
const MOST_ROWS: usize = 120;

/// The table, or the whole-GPU rows alone where there are too many.
pub(crate) fn of(done: &Finished<'_>) -> String {
    let mut groups: BTreeMap<(usize, usize), Vec<usize>> = BTreeMap::new();
    for (i, cell) in done.cells.iter().enumerate() {
        groups.entry((cell.point, cell.policy)).or_default().push(i);
    }
    let tenants = done.e.points[0].tenants.len();
    let whole_only = groups.len() * (tenants + 1) > MOST_ROWS;
    let mut rows = vec![];
    for (&(point, policy), cells) in &groups {
        let p = &done.e.points[point];
        let names = p.tenants.iter().map(|t| t.name.as_str()).chain(["*"]);
        for (t, name) in names.enumerate().filter(|(t, _)| !whole_only || *t == tenants) {
            let metrics: Vec<&Metrics> =
                cells.iter().filter_map(|&i| done.outcomes[i].metrics.get(t)).collect();
            let mut row = p.values.clone();
            row.extend([p.policies[policy].label.clone(), name.to_owned()]);
            row.extend(numbers(&metrics));
            let failed = cells.iter().find(|&&i| !done.outcomes[i].is_ok());
            row.push(failed.map_or("ok", |&i| &done.outcomes[i].status).to_owned());
            rows.push(row);
        }
    }
    let hidden = rows.len().saturating_sub(MOST_ROWS);
    rows.truncate(MOST_ROWS);
    let mut header: Vec<&str> = done.e.keys.iter().map(String::as_str).collect();
    header.extend(["policy", "tenant", "rps", "goodput", "SLO %", "p50 ms", "p99 ms", "CU %"]);
    header.push("status");
    let mut text = align(&header, &rows);
    if hidden > 0 {
        text += &format!("… {hidden} more rows in results.csv\n");
    }
    text
}

/// Means over the cells of a group.
fn numbers(metrics: &[&Metrics]) -> Vec<String> {
    let columns = [
        ("throughput_rps", 1.0),
        ("goodput_rps", 1.0),
        ("slo_attainment", 100.0),
        ("latency_p50_ms", 1.0),
        ("latency_p99_ms", 1.0),
        ("cu_utilization", 100.0),
    ];
    let mean = |(column, scale): (&str, f64)| {
        let values: Vec<f64> = metrics.iter().filter_map(|m| m.get(column)).collect();
        let n = values.len();
        rounded((n > 0).then(|| values.iter().sum::<f64>() / n as f64 * scale))
    };
    columns.into_iter().map(mean).collect()
}
