//! A metric by panel, group and series: the numbers of bars and dots.

use cotenant_results::columns::{Better, Column, STATUS};
use cotenant_results::format::pretty;
use cotenant_results::{Estimate, PlotSpec, Row};

use crate::figure::Data;
use crate::select::{Context, WHOLE, column, logs};

/// The group of geometric means.
const MEAN: &str = "geometric mean";
/// Values with a larger ratio than this are not drawn on one linear axis.
pub(crate) const WIDE: f64 = 20.0;

/// The groups on the x axis.
pub(crate) enum Groups {
    /// The values of one column.
    Column(String),
    /// The values of every sweep key at once, so that nothing is averaged away.
    Sweep,
}

/// The value at one place of the figure.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    Known(Estimate),
    /// Its cells failed.
    Failed,
    /// It has no value, such as an attainment without a goal.
    Absent,
}

impl Value {
    pub(crate) fn estimate(&self) -> Option<&Estimate> {
        match self {
            Self::Known(e) => Some(e),
            _ => None,
        }
    }
}

/// The figure's numbers, by panel, group and series.
pub(crate) struct Plan<'a> {
    pub(crate) by: &'a str,
    pub(crate) groups: Groups,
    pub(crate) xs: Vec<String>,
    pub(crate) series: Vec<String>,
    pub(crate) y: &'static Column,
    /// Groups and series are the same.
    pub(crate) same: bool,
    /// Panel title, then values by group and series.
    pub(crate) panels: Vec<(String, Vec<Vec<Value>>)>,
    pub(crate) axis: String,
    pub(crate) log: bool,
}

/// Whether the figure shows each tenant, or each model, separately.
fn tells_tenants(by: &str, groups: &Groups) -> bool {
    let named = |c: &str| by == c || matches!(groups, Groups::Column(x) if x == c);
    named("tenant") || named("model")
}

impl<'a> Plan<'a> {
    /// The numbers of a figure, and the tenants without a value.
    ///
    /// # Errors
    /// The column does not exist, or no cell has a value in it.
    pub(crate) fn of(cx: &Context<'_>, spec: &'a PlotSpec) -> Result<(Self, Vec<String>), String> {
        let y = column(spec.y.as_deref().unwrap_or("goodput_rps"))?;
        let by = spec.by.as_deref().unwrap_or("label");
        let table = cx.results;
        let rows = table.select(&spec.filter);
        let groups = groups(cx, spec, by, &rows, y.name);
        let split = tells_tenants(by, &groups);
        let panels = cx.panels(table, &rows, spec, split, y.name)?;
        let flat: Vec<&Row> = panels.iter().flat_map(|p| p.1.iter().copied()).collect();
        let series = cx.series(table, spec, by, &flat);
        let mut xs = group_names(cx, spec, &groups, &flat);
        let without = drop_without_value(cx, &groups, y, &flat, &mut xs);
        let same = matches!(&groups, Groups::Column(c) if c == by);
        let mut plan = Plan {
            by,
            groups,
            xs,
            series,
            y,
            same,
            panels: vec![],
            axis: cx.value_axis(spec, y),
            log: logs(spec, (false, false)).1,
        };
        for (title, rows) in &panels {
            let values = plan.values(cx, spec, rows)?;
            plan.panels.push((title.clone(), values));
        }
        if plan.all().next().is_none() {
            return Err(format!("no cell has a value of `{}` to draw", y.name));
        }
        if spec.geomean {
            plan.add_means();
        }
        Ok((plan, without))
    }

    fn values(
        &self,
        cx: &Context<'_>,
        spec: &PlotSpec,
        rows: &[&Row],
    ) -> Result<Vec<Vec<Value>>, String> {
        let table = cx.results;
        let mut all = Vec::new();
        for x in &self.xs {
            let mut group = Vec::new();
            for s in &self.series {
                let own: Vec<&Row> = rows
                    .iter()
                    .copied()
                    .filter(|r| table.text(r, self.by) == s && group_of(cx, &self.groups, r) == *x)
                    .collect();
                group.push(match cx.estimate(table, spec, &own, self.y)? {
                    Some(e) => Value::Known(e),
                    None if own.is_empty() && did_fail(cx, &self.groups, x, self.by, s) => {
                        Value::Failed
                    }
                    None => Value::Absent,
                });
            }
            all.push(group);
        }
        Ok(all)
    }

    /// Adds a group with the geometric mean of the others, whose values must be positive.
    fn add_means(&mut self) {
        for (_, groups) in &mut self.panels {
            let mean = |s: usize| {
                let each: Option<Vec<f64>> = groups
                    .iter()
                    .map(|g| g[s].estimate().map(|e| e.mean).filter(|m| *m > 0.0))
                    .collect();
                let logs: Vec<f64> = each?.into_iter().map(f64::ln).collect();
                Some(Estimate::exact((logs.iter().sum::<f64>() / logs.len() as f64).exp()))
            };
            let means = (0..self.series.len())
                .map(|s| mean(s).map_or(Value::Absent, Value::Known))
                .collect();
            groups.push(means);
        }
        self.xs.push(MEAN.to_owned());
    }

    /// Whether the figure shows each tenant, or each model, separately.
    pub(crate) fn tells_tenants(&self) -> bool {
        tells_tenants(self.by, &self.groups)
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &Estimate> {
        self.panels.iter().flat_map(|p| p.1.iter().flatten()).filter_map(Value::estimate)
    }

    pub(crate) fn intervals(&self) -> bool {
        self.all().any(|e| e.half.is_some())
    }

    /// The groups' names on the axis.
    pub(crate) fn shown(&self, cx: &Context<'_>) -> Vec<String> {
        self.xs.iter().map(|x| show_group(cx, &self.groups, x)).collect()
    }

    /// The groups' names as panel titles: sweep values with their key.
    pub(crate) fn titles(&self, cx: &Context<'_>) -> Vec<String> {
        match &self.groups {
            Groups::Column(c) if cx.run.sweep_keys.contains(c) => {
                let name = |x: &String| match self.xs.last() == Some(x) && x == MEAN {
                    true => x.clone(),
                    false => cx.show(c, x),
                };
                self.xs.iter().map(name).collect()
            }
            _ => self.shown(cx),
        }
    }

    /// A number as shown next to its dot: a share is rounded down, so that 98.999 is not shown as 99.
    pub(crate) fn label(&self, value: f64) -> String {
        match self.y.scale {
            100.0 => cotenant_results::format::fixed((value * 10.0 + 1e-7).floor() / 10.0, 1),
            _ => pretty(value),
        }
    }

    /// The best series of each group.
    pub(crate) fn finding(&self, cx: &Context<'_>) -> String {
        if self.y.better == Better::Neither {
            return String::new();
        }
        let sign = if self.y.better == Better::Lower { -1.0 } else { 1.0 };
        let best = |(x, group): (&String, &Vec<Value>)| {
            let known = group.iter().enumerate().filter_map(|(n, v)| Some((n, v.estimate()?)));
            let rivals = known.filter(|(n, _)| !cx.is_bound(self.by, &self.series[*n]));
            let (n, e) = rivals.max_by(|a, b| (sign * a.1.mean).total_cmp(&(sign * b.1.mean)))?;
            let place = show_group(cx, &self.groups, x);
            let at = if self.same { String::new() } else { format!("{place}: ") };
            Some(format!("{at}{} with {} {}", self.series[n], self.label(e.mean), self.y.unit))
        };
        let panels = self.panels.iter().take(1);
        let list: Vec<String> = match self.same {
            true => {
                let diagonal: Vec<Value> = self.diagonal(&self.panels[0].1);
                best((&String::new(), &diagonal)).into_iter().collect()
            }
            false => {
                panels.flat_map(|p| self.xs.iter().zip(&p.1).filter_map(best)).take(6).collect()
            }
        };
        match list.is_empty() {
            true => String::new(),
            false => format!("Best in {}: {}.", self.y.title.to_lowercase(), list.join("; ")),
        }
    }

    /// One value for each series, if the groups are the series.
    pub(crate) fn diagonal(&self, groups: &[Vec<Value>]) -> Vec<Value> {
        let of = |s: &String| {
            let i = self.xs.iter().position(|x| x == s);
            let n = self.series.iter().position(|x| x == s);
            i.zip(n).map_or(Value::Absent, |(i, n)| groups[i][n].clone())
        };
        self.series.iter().map(of).collect()
    }

    pub(crate) fn data(&self, cx: &Context<'_>) -> Data {
        let groups = self.shown(cx);
        let mut data = Data::new(["Series", "Group", "Panel", self.axis.as_str()]);
        for (title, values) in &self.panels {
            for (x, group) in groups.iter().zip(values) {
                for (s, value) in self.series.iter().zip(group) {
                    let text = match value {
                        Value::Known(e) => e.to_string(),
                        Value::Failed => "failed".to_owned(),
                        Value::Absent => continue,
                    };
                    data.rows.push(vec![s.clone(), x.clone(), title.clone(), text]);
                }
            }
        }
        data
    }
}

fn groups(cx: &Context<'_>, spec: &PlotSpec, by: &str, rows: &[&Row], y: &str) -> Groups {
    if let Some(x) = &spec.x {
        return Groups::Column(x.clone());
    }
    let varying = |key: &&String| key.as_str() != by && cx.results.distinct(rows, key).len() > 1;
    match cx.run.sweep_keys.iter().filter(varying).count() {
        0 => {}
        1 => {
            let key = cx.run.sweep_keys.iter().find(varying).cloned();
            return Groups::Column(key.unwrap_or_default());
        }
        _ => return Groups::Sweep,
    }
    let per_tenant = rows
        .iter()
        .any(|r| cx.results.text(r, "tenant") != WHOLE && cx.results.number(r, y).is_some());
    match (by, spec.tenant.is_none() && per_tenant) {
        ("tenant" | "model", _) | (_, false) => Groups::Column("label".to_owned()),
        _ => Groups::Column("tenant".to_owned()),
    }
}

/// Removes the tenants whose cells succeeded but have no such value (an attainment without an SLO): there
/// would be nothing to draw. Returns them.
fn drop_without_value(
    cx: &Context<'_>,
    groups: &Groups,
    y: &Column,
    rows: &[&Row],
    xs: &mut Vec<String>,
) -> Vec<String> {
    if !matches!(groups, Groups::Column(c) if c == "tenant") {
        return vec![];
    }
    let table = cx.results;
    let stands = |x: &String| {
        let mut own = rows.iter().filter(|r| table.text(r, "tenant") == x);
        own.any(|r| table.number(r, y.name).is_some() || table.text(r, STATUS) != "ok")
    };
    let without = xs.iter().filter(|x| !stands(x)).cloned().collect();
    xs.retain(stands);
    without
}

fn group_of(cx: &Context<'_>, groups: &Groups, row: &Row) -> String {
    match groups {
        Groups::Column(c) => cx.results.text(row, c).to_owned(),
        Groups::Sweep => {
            let part = |k: &String| (k.clone(), cx.results.text(row, k).to_owned());
            let parts = cx.run.sweep_keys.iter().map(part).filter(|(_, v)| !v.is_empty());
            parts.map(|(k, v)| cx.show(&k, &v)).collect::<Vec<_>>().join(" ")
        }
    }
}

fn group_names(cx: &Context<'_>, spec: &PlotSpec, groups: &Groups, rows: &[&Row]) -> Vec<String> {
    if let Groups::Column(c) = groups {
        return cx.series(cx.results, spec, c, rows);
    }
    let mut seen: Vec<String> = Vec::new();
    for row in rows {
        let name = group_of(cx, groups, row);
        if !seen.contains(&name) {
            seen.push(name);
        }
    }
    seen
}

fn show_group(cx: &Context<'_>, groups: &Groups, name: &str) -> String {
    match groups {
        Groups::Column(c) if cx.run.sweep_keys.contains(c) && !name.is_empty() => name.to_owned(),
        Groups::Column(c) => cx.show(c, name),
        Groups::Sweep => name.to_owned(),
    }
}

pub(crate) fn group_title(cx: &Context<'_>, groups: &Groups) -> String {
    match groups {
        Groups::Column(c) if c == "label" => "Policy".to_owned(),
        Groups::Column(c) if matches!(c.as_str(), "policy" | "tenant" | "model") => {
            let mut title = c.clone();
            title[..1].make_ascii_uppercase();
            title
        }
        Groups::Column(c) => cotenant_results::format::key_axis(c, cx.unit(c)),
        Groups::Sweep => "Sweep point".to_owned(),
    }
}

/// Whether the cells of a missing bar failed, as opposed to having nothing to count.
fn did_fail(cx: &Context<'_>, groups: &Groups, x: &str, by: &str, series: &str) -> bool {
    let table = cx.results;
    table.rows.iter().any(|r| {
        table.text(r, STATUS) != "ok" && table.text(r, by) == series && group_of(cx, groups, r) == x
    })
}
