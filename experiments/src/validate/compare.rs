//! `validation.csv`: a metric simulated and measured, per policy and tenant, and the ranking.

use std::collections::BTreeMap;

use cotenant_results::columns::VALIDATION;
use cotenant_results::{Metric, student_975};

use crate::metrics::{Metrics, number};
use crate::session::Session;
use crate::study::figures::Figures;
use crate::text::{align, rounded};

/// What is compared.
const COMPARED: [Metric; 7] = [
    Metric::Throughput,
    Metric::Goodput,
    Metric::LatencyMean,
    Metric::LatencyP50,
    Metric::LatencyP90,
    Metric::LatencyP95,
    Metric::LatencyP99,
];

/// Metrics by which policies are ranked, all tenants together.
const RANKED: [Metric; 3] = [Metric::Goodput, Metric::LatencyP50, Metric::LatencyP99];

/// One row.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Row {
    /// Policy, and the sweep point where there is a sweep.
    pub(crate) label: String,
    /// The sweep point alone.
    pub(crate) point: usize,
    pub(crate) tenant: String,
    pub(crate) metric: Metric,
    /// Means over the repeats.
    pub(crate) simulated: f64,
    pub(crate) measured: f64,
    /// Mean of the repeats' errors, percent of what was measured: positive where the simulator
    /// says more.
    pub(crate) error: f64,
    /// Half the width of its 95 % confidence interval; nothing for a single repeat.
    pub(crate) half: Option<f64>,
    /// The same of what was measured.
    pub(crate) measured_half: Option<f64>,
}

/// Mean, and half the width of its 95 % confidence interval.
pub(crate) fn mean(values: &[f64]) -> (f64, Option<f64>) {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    if values.len() < 2 {
        return (mean, None);
    }
    let squares: f64 = values.iter().map(|v| (v - mean).powi(2)).sum();
    (mean, Some(student_975(values.len() - 1) * (squares / (n - 1.0) / n).sqrt()))
}

/// Every row, in the order of the cells; repeats in which either side has no value are left out.
pub(crate) fn rows(session: &Session) -> Vec<Row> {
    let mut groups: BTreeMap<(usize, usize), Vec<(&Figures, &Figures)>> = BTreeMap::new();
    for play in &session.plays {
        let (s, m) = (&play.simulated, &play.measured);
        if s.is_ok() && m.is_ok() {
            groups.entry((play.slice, play.cell.policy)).or_default().push((s, m));
        }
    }
    let mut rows = vec![];
    for (&(p, policy), pairs) in &groups {
        let (point, swept) = (&session.slices[p].e.point, session.slices[p].swept());
        let label = &point.policies[policy].label;
        let label = if swept.is_empty() { label.clone() } else { format!("{label} [{swept}]") };
        let names = point.tenants.iter().map(|t| t.name.as_str()).chain(["*"]);
        for (t, tenant) in names.enumerate() {
            for metric in COMPARED {
                let of = |o: &Figures| o.metrics.get(t).and_then(|m: &Metrics| m.get(metric));
                let both: Vec<(f64, f64)> =
                    pairs.iter().filter_map(|(s, m)| Some((of(s)?, of(m)?))).collect();
                rows.extend(row(&label, p, tenant, metric, &both));
            }
        }
    }
    rows
}

fn row(
    label: &str,
    point: usize,
    tenant: &str,
    metric: Metric,
    both: &[(f64, f64)],
) -> Option<Row> {
    // Where nothing was measured, there is nothing to be wrong by.
    let both: Vec<(f64, f64)> = both.iter().copied().filter(|(_, m)| *m > 0.0).collect();
    if both.is_empty() {
        return None;
    }
    let errors: Vec<f64> = both.iter().map(|(s, m)| (s - m) / m * 100.0).collect();
    let (error, half) = mean(&errors);
    let (simulated, _) = mean(&both.iter().map(|b| b.0).collect::<Vec<_>>());
    let (measured, measured_half) = mean(&both.iter().map(|b| b.1).collect::<Vec<_>>());
    let (label, tenant) = (label.to_owned(), tenant.to_owned());
    Some(Row { label, point, tenant, metric, simulated, measured, error, half, measured_half })
}

/// `validation.csv`.
pub(crate) fn table(rows: &[Row]) -> Vec<u8> {
    let mut table = csv::Writer::from_writer(vec![]);
    table.write_record(VALIDATION).expect("writing to memory, rows of one width");
    for r in rows {
        let numbers = [
            Some(r.simulated),
            Some(r.measured),
            Some(r.error),
            r.half.map(|h| r.error - h),
            r.half.map(|h| r.error + h),
        ];
        let names = [r.label.clone(), r.tenant.clone(), r.metric.name().to_owned()];
        let fields = names.into_iter().chain(numbers.into_iter().map(number));
        table.write_record(fields).expect("writing to memory, rows of one width");
    }
    table.into_inner().expect("writing to memory")
}

/// Errors by policy, all tenants together, for the terminal.
pub(crate) fn summary(rows: &[Row]) -> String {
    let metrics = [Metric::Throughput, Metric::LatencyMean, Metric::LatencyP50, Metric::LatencyP99];
    let mut labels: Vec<&str> = vec![];
    for r in rows {
        if !labels.contains(&r.label.as_str()) {
            labels.push(&r.label);
        }
    }
    let line = |label: &str| {
        let error = |metric: Metric| {
            let is = |r: &&Row| r.label == label && r.tenant == "*" && r.metric == metric;
            let found = rows.iter().find(is);
            found.map_or("-".to_owned(), |r| {
                let half = r.half.map_or_else(String::new, |h| format!(" ± {}", rounded(Some(h))));
                format!("{:+.2}{half}", r.error)
            })
        };
        std::iter::once(label.to_owned()).chain(metrics.map(error)).collect::<Vec<_>>()
    };
    let lines: Vec<Vec<String>> = labels.into_iter().map(line).collect();
    align(&["simulator's error, %", "throughput", "mean", "p50", "p99"], &lines)
}

/// How many pairs of policies the measurement tells apart, and how many of them the simulator puts
/// in the same order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ranking {
    pub(crate) told_apart: usize,
    pub(crate) right: usize,
}

/// Pairs at the same sweep point whose measured confidence intervals do not overlap.
pub(crate) fn ranking(rows: &[Row]) -> Ranking {
    let mut ranking = Ranking::default();
    for metric in RANKED {
        let of: Vec<&Row> = rows.iter().filter(|r| r.tenant == "*" && r.metric == metric).collect();
        for (i, a) in of.iter().enumerate() {
            for b in of[i + 1..].iter().filter(|b| b.point == a.point) {
                let (Some(x), Some(y)) = (a.measured_half, b.measured_half) else { continue };
                if (a.measured - b.measured).abs() <= x + y {
                    continue;
                }
                ranking.told_apart += 1;
                let same = (a.measured < b.measured) == (a.simulated < b.simulated);
                ranking.right += usize::from(same && a.simulated != b.simulated);
            }
        }
    }
    ranking
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_of_what_was_measured_and_bounded_over_repeats() {
        let r = row("mps", 0, "a", Metric::LatencyP50, &[(11.0, 10.0), (24.0, 20.0)]).unwrap();
        assert_eq!((r.simulated, r.measured, r.error), (17.5, 15.0, 15.0));
        // Two repeats, 10 % and 20 %: s = 7.07, standard error 5, t(1) = 12.706.
        assert!((r.half.unwrap() - 12.706 * 5.0).abs() < 1e-9);
        let one = row("mps", 0, "a", Metric::LatencyP50, &[(11.0, 10.0)]).unwrap();
        assert_eq!(one.half, None);
        assert_eq!(row("mps", 0, "a", Metric::Goodput, &[(1.0, 0.0)]), None);
    }

    #[test]
    fn only_pairs_that_the_measurement_tells_apart_are_ranked() {
        let at = |label: &str, simulated, measured, half| Row {
            label: label.to_owned(),
            point: 0,
            tenant: "*".to_owned(),
            metric: Metric::LatencyP99,
            simulated,
            measured,
            error: 0.0,
            half: Some(0.0),
            measured_half: Some(half),
        };
        let rows = [at("a", 1.0, 1.0, 0.1), at("b", 3.0, 2.0, 0.1), at("c", 2.0, 2.15, 0.1)];
        // a < b and a < c are told apart and right; b and c overlap.
        assert_eq!(ranking(&rows), Ranking { told_apart: 2, right: 2 });
        let rows = [at("a", 1.0, 2.0, 0.1), at("b", 3.0, 1.0, 0.1)];
        assert_eq!(ranking(&rows), Ranking { told_apart: 1, right: 0 });
    }
}
