//! From rows to lines: means, intervals, goals, order.

use super::{Answer, Attainment, Cell, Goal, Line, Point, Standing};
use crate::WHOLE;
use crate::columns::{Metric, STATUS, has_numbers, overload_rates};
use crate::estimate::Estimate;
use crate::format::{key_title, quantity};
use crate::run_info::RunInfo;
use crate::table::{Row, Table};

/// Share of requests that must be within the goal for it to count as kept: the p99 is within the goal.
pub const TARGET: f64 = 0.99;

/// 97.5 % quantile of the normal distribution.
const Z: f64 = 1.959_964;
/// Goodputs that differ by a smaller share than this are equal.
pub(super) const TIE: f64 = 1e-6;
/// More requests than anyone would wait for.
const MANY: f64 = 1e8;
/// The name in `run.json` of the class of tenants whose latency matters.
const LATENCY_CLASS: &str = "latency";

/// A goodput beyond the bound's by more than this share is not rounding.
const SAME_AS_BOUND: f64 = 0.0005;

/// Wilson's 95 % interval of a share of `n` requests (E. B. Wilson, "Probable inference, the law of
/// succession, and statistical inference", 1927): unlike the usual interval, it is not empty if all requests
/// had the same outcome.
#[must_use]
pub fn wilson(share: f64, n: f64) -> (f64, f64) {
    if n <= 0.0 {
        return (0.0, 1.0);
    }
    let z2 = Z * Z / n;
    let center = (share + z2 / 2.0) / (1.0 + z2);
    let half = Z / (1.0 + z2) * (share * (1.0 - share) / n + z2 / (4.0 * n)).sqrt();
    ((center - half).max(0.0), (center + half).min(1.0))
}

/// How many more requests than `n` move the interval of `share` off the target; `None` if there would be too
/// many. `wider` is the factor by which the interval in use is wider than Wilson's.
#[must_use]
pub fn more_requests(share: f64, n: f64, wider: f64) -> Option<u64> {
    let open = |n: f64| {
        let (low, high) = wilson(share, n / (wider * wider));
        low < TARGET && high >= TARGET
    };
    let mut enough = n.max(1.0);
    while open(enough) {
        enough *= 1.05;
        if enough > MANY {
            return None;
        }
    }
    Some((enough - n).max(1.0).ceil() as u64)
}

pub(super) fn judge(run: &RunInfo, table: &Table) -> Answer {
    let all: Vec<&Row> = table.rows.iter().collect();
    let mut tenants: Vec<String> =
        table.distinct(&all, "tenant").into_iter().filter(|t| t != WHOLE).collect();
    let place = |names: Vec<&str>, v: &String| names.iter().position(|n| n == v);
    tenants.sort_by_key(|t| place(run.tenants.iter().map(|t| &*t.name).collect(), t));
    let mut labels = table.distinct(&all, "label");
    labels.sort_by_key(|l| place(run.policies.iter().map(|p| &*p.label).collect(), l));
    let rank_by = run.rank_by.as_deref().and_then(Metric::find).unwrap_or(Metric::Goodput);
    let cx = Judge { run, table, tenants: &tenants, rank_by };
    let points = cx.points(&all).into_iter().map(|at| cx.point(&all, at, &labels)).collect();
    let mut answer = Answer { points, rank_by, goals: false, tenants: tenants.clone() };
    answer.goals = answer.points.iter().flat_map(|p| &p.lines).any(Line::has_goal);
    let (sign, goals) = (answer.sign(), answer.goals);
    answer.points.iter_mut().for_each(|p| order(p, sign, goals));
    answer
}

struct Judge<'a> {
    run: &'a RunInfo,
    table: &'a Table,
    tenants: &'a [String],
    rank_by: Metric,
}

/// Whether a row at `a` belongs to the point `b`: keys that do not affect the row are empty.
fn covers(a: &[String], b: &[String]) -> bool {
    a.iter().zip(b).all(|(a, b)| a == b || a.is_empty())
}

impl Judge<'_> {
    fn swept(&self, row: &Row) -> Vec<String> {
        self.run.sweep_keys.iter().map(|k| self.table.text(row, k).to_owned()).collect()
    }

    /// The sweep points, only the most specific ones.
    fn points(&self, rows: &[&Row]) -> Vec<Vec<String>> {
        let mut points: Vec<Vec<String>> = Vec::new();
        for row in rows {
            let at = self.swept(row);
            if !points.contains(&at) {
                points.push(at);
            }
        }
        let specific = |a: &&Vec<String>| !points.iter().any(|b| b != *a && covers(a, b));
        points.iter().filter(specific).cloned().collect()
    }

    fn point(&self, all: &[&Row], at: Vec<String>, labels: &[String]) -> Point {
        let rows: Vec<&Row> = all.iter().copied().filter(|r| covers(&self.swept(r), &at)).collect();
        let mut lines: Vec<Line> =
            labels.iter().filter_map(|label| self.line(&rows, label)).collect();
        self.shares(&rows, &mut lines);
        let keys = self.run.sweep_keys.iter().zip(&at).filter(|(_, v)| !v.is_empty());
        let name: Vec<String> = keys.map(|(k, v)| format!("{} = {v}", key_title(k))).collect();
        Point { name: name.join(", "), values: at, lines }
    }

    fn line(&self, rows: &[&Row], label: &str) -> Option<Line> {
        let table = self.table;
        let own: Vec<&Row> =
            rows.iter().copied().filter(|r| table.text(r, "label") == label).collect();
        let first = own.first()?;
        let of = |tenant: &str| -> Vec<&Row> {
            let ok =
                |r: &&&Row| table.text(r, "tenant") == tenant && has_numbers(table.text(r, STATUS));
            own.iter().filter(ok).copied().collect()
        };
        let whole = of(WHOLE);
        let mut failures: Vec<(String, Vec<&str>)> = Vec::new();
        for row in own.iter().filter(|r| !has_numbers(table.text(r, STATUS))) {
            let (reason, cell) = (table.text(row, STATUS), table.text(row, "cell"));
            match failures.iter_mut().find(|(r, _)| r == reason) {
                Some((_, cells)) if cells.contains(&cell) => {}
                Some((_, cells)) => cells.push(cell),
                None => failures.push((reason.to_owned(), vec![cell])),
            }
        }
        let cell = |t: &String| {
            let rows = of(t);
            (!rows.is_empty()).then(|| self.cell(t, &rows))
        };
        Some(Line {
            label: label.to_owned(),
            policy: table.text(first, "policy").to_owned(),
            bound: self.run.label_is_bound(label),
            cells: self.tenants.iter().map(cell).collect(),
            goodput: self.mean(&whole, Metric::Goodput),
            share: None,
            exceeds: false,
            cu: self.mean(&whole, Metric::CuUtilization),
            energy: self.mean(&whole, Metric::Energy),
            rank: self.mean(&whole, self.rank_by),
            failures: failures.into_iter().map(|(r, cells)| (r, cells.len())).collect(),
            best: false,
        })
    }

    fn cell(&self, tenant: &str, rows: &[&Row]) -> Cell {
        let info = self.run.tenants.iter().find(|t| t.name == tenant);
        let promised = info.is_some_and(|t| t.slo_ms.is_some() || t.slo.is_some());
        let sum =
            |m: Metric| -> f64 { rows.iter().filter_map(|r| self.table.number(r, m.name())).sum() };
        let n = sum(Metric::Completed) + sum(Metric::Dropped);
        let throughput = self.mean(rows, Metric::Throughput);
        let attained = self.mean(rows, Metric::SloAttainment);
        let attainment = attained.map(|e| interval(&e, n));
        let goal = match attainment {
            Some(a) if a.low >= TARGET * 100.0 => Goal::Met,
            Some(a) if a.high < TARGET * 100.0 => Goal::Missed,
            Some(a) => {
                let (low, high) = wilson(a.mean / 100.0, n);
                // Student's interval before it is clipped to the bounds of a share: few repeats can leave
                // everything open.
                let student = 2.0 * attained.and_then(|e| e.half).unwrap_or(0.0) / 100.0;
                let wider = (student / (high - low).max(1e-12)).max(1.0);
                Goal::Undecided { more: more_requests(a.mean / 100.0, n, wider) }
            }
            // If requests with goals completed, there is an attainment.
            None if promised && throughput.is_none_or(|t| t.mean == 0.0) => Goal::Unknown,
            None => Goal::None,
        };
        let rates = rows.iter().filter_map(|r| overload_rates(self.table.text(r, STATUS)));
        let rates: Vec<(f64, f64)> = rates.collect();
        let mean = |sum: f64| sum / rates.len() as f64;
        let overloaded = (!rates.is_empty()).then(|| {
            (mean(rates.iter().map(|r| r.0).sum()), mean(rates.iter().map(|r| r.1).sum()))
        });
        Cell {
            goal,
            attainment,
            p99: self.mean(rows, Metric::LatencyP99),
            goodput: self.mean(rows, Metric::Goodput),
            throughput,
            overloaded,
        }
    }

    /// Mean over rows that differ only in the repeat, in the drawn unit.
    fn mean(&self, rows: &[&Row], metric: Metric) -> Option<Estimate> {
        let column = metric.column();
        let values: Vec<f64> =
            rows.iter().filter_map(|r| self.table.number(r, column.name)).collect();
        Estimate::of(&values).map(|e| e.within(0.0, column.most()).scaled(column.scale))
    }

    /// Goodput as a share of the bound's, repeat by repeat, over the tenants that the bound serves first: the
    /// latency-critical ones, if there are both kinds. Best-effort tenants only get what is left.
    fn shares(&self, rows: &[&Row], lines: &mut [Line]) {
        let Some(bound) = lines.iter().find(|l| l.bound).map(|l| l.label.clone()) else { return };
        let latency = |tenant: &str| {
            self.run.tenants.iter().any(|t| t.name == tenant && t.class == LATENCY_CLASS)
        };
        let some = self.run.tenants.iter().any(|t| t.class == LATENCY_CLASS);
        let of = |label: &str, repeat: &str, metric: fn(&Self, &Row) -> Option<f64>| {
            let of_label = |r: &&&Row| {
                self.table.text(r, "label") == label && self.table.text(r, "repeat") == repeat
            };
            let counts = |r: &&&Row| {
                let tenant = self.table.text(r, "tenant");
                if some { latency(tenant) } else { tenant == WHOLE }
            };
            let mut each = rows.iter().filter(of_label).filter(counts).peekable();
            each.peek()?;
            each.map(|r| metric(self, r)).sum::<Option<f64>>()
        };
        let goodput = |label: &str, repeat: &str| {
            of(label, repeat, |judge, r| judge.table.number(r, Metric::Goodput.name()))
        };
        // Bounds answer sooner: requests that they answered before the window opened count for the other
        // policies within it.
        let exceeds = |label: &str, repeat: &str| {
            let more = goodput(label, repeat)? - goodput(&bound, repeat)? * (1.0 + SAME_AS_BOUND);
            let whole = |r: &&&Row| {
                let text = |column| self.table.text(r, column);
                text("label") == bound && text("repeat") == repeat && text("tenant") == WHOLE
            };
            let window = self.window(rows.iter().find(whole)?)?;
            let under_way = of(label, repeat, Self::under_way)?;
            Some(more * window > under_way + 3.0 * under_way.sqrt() + 1.0)
        };
        let repeats = self.table.distinct(rows, "repeat");
        for line in lines {
            let ratios: Vec<f64> = repeats
                .iter()
                .filter_map(|r| Some(goodput(&line.label, r)? / goodput(&bound, r)?))
                .filter(|r| r.is_finite())
                .collect();
            line.share = Estimate::of(&ratios).map(|e| e.mean);
            line.exceeds = repeats.iter().any(|r| exceeds(&line.label, r) == Some(true));
        }
    }

    /// Length of a row's window, s; `None` if no request completed.
    fn window(&self, row: &Row) -> Option<f64> {
        let rate = self.table.number(row, Metric::Throughput.name()).filter(|rate| *rate > 0.0)?;
        Some(self.table.number(row, Metric::Completed.name())? / rate)
    }

    /// Mean number of requests in progress, by Little's law.
    fn under_way(&self, row: &Row) -> Option<f64> {
        let latency_ms = self.table.number(row, Metric::LatencyMean.name()).unwrap_or(0.0);
        Some(latency_ms / 1e3 * self.table.number(row, Metric::Throughput.name())?)
    }
}

/// The interval by which a goal is judged: the wider one of Wilson's and Student's.
fn interval(e: &Estimate, n: f64) -> Attainment {
    let (low, high) = wilson(e.mean / 100.0, n);
    Attainment {
        mean: e.mean,
        low: (low * 100.0).min(e.low()),
        high: (high * 100.0).max(e.high()),
        n: n as u64,
    }
}

/// Sorts the lines, best first and the bound last, and marks the best: none if the next one does exactly as
/// well, for instance if all complete the same fixed work.
fn order(point: &mut Point, sign: f64, goals: bool) {
    let rank = |l: &Line| l.rank.map_or(f64::NEG_INFINITY, |r| sign * r.mean);
    point.lines.sort_by(|a, b| {
        let by_goals = if goals {
            (a.standing().cmp(&b.standing()))
                .then(b.count(|g| g == Goal::Met).cmp(&a.count(|g| g == Goal::Met)))
                .then(b.worst().total_cmp(&a.worst()))
        } else {
            std::cmp::Ordering::Equal
        };
        a.bound.cmp(&b.bound).then(by_goals).then(rank(b).total_cmp(&rank(a)))
    });
    let rivals: Vec<&Line> = point.rivals().collect();
    let Some(first) = rivals.first().filter(|l| l.standing() != Standing::Misses) else { return };
    let tied = rivals.get(1).is_some_and(|next| next.does_as_well_as(first));
    if !tied {
        let label = first.label.clone();
        point.lines.iter_mut().for_each(|l| l.best = l.label == label);
    }
}

/// The number of a sweep value; `None` if it is not a number.
pub(super) fn numeric(value: &str) -> Option<f64> {
    quantity(value).map(|q| q.value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wilson_is_honest_at_the_ends() {
        // 22 of 22: the textbook's lower end is 85.1 %.
        let (low, high) = wilson(1.0, 22.0);
        assert!((low - 0.851).abs() < 1e-3 && high == 1.0, "{low} {high}");
        let (low, high) = wilson(0.5, 100.0);
        assert!((low - 0.4038).abs() < 1e-3 && (high - 0.5962).abs() < 1e-3);
    }

    #[test]
    fn more_requests_decide_what_few_leave_open() {
        // All in time: with 381 requests the lower end is at 99 %.
        let more = more_requests(1.0, 22.0, 1.0).expect("decidable");
        assert!((359..=390).contains(&more), "{more}");
        assert_eq!(more_requests(0.99, 1000.0, 1.0), None, "the target itself is never decided");
        let wide = more_requests(1.0, 22.0, 2.0).expect("decidable");
        assert!(wide > 4 * more, "twice as wide an interval takes four times as many");
    }
}
