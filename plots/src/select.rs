//! Shared by all kinds of plots: the run with its tables, selecting rows, grouping them without mixing
//! different things, and naming what is shown.

use std::path::PathBuf;

use cotenant_results::columns::{Column, metric, unknown};
use cotenant_results::{Estimate, LogAxes, PlotSpec, Row, RunInfo, Table, Width};

use crate::axis::Axis;
use crate::figure::{Entry, Figure, Key, Shaped};
use crate::style::{Look, Looks};
use cotenant_results::format::{Quantity, key_axis, key_title, pretty, quantity};

pub(crate) use cotenant_results::WHOLE;

/// Everything that a plot is drawn from.
pub(crate) struct Context<'a> {
    /// The folder, for the tables that only some kinds read.
    pub(crate) dir: PathBuf,
    pub(crate) run: &'a RunInfo,
    pub(crate) results: &'a Table,
    pub(crate) looks: Looks,
    /// How many plots the run has; a single one may carry the question as its title.
    pub(crate) plots: usize,
    /// The name for rows of all tenants together.
    pub(crate) whole: &'static str,
}

impl Context<'_> {
    /// The plot's title: its own, else the question if it is the only plot, else what it shows.
    pub(crate) fn title(&self, spec: &PlotSpec, shown: String) -> String {
        let question = self.run.question.clone().filter(|_| self.plots == 1);
        spec.title.clone().or(question).unwrap_or(shown)
    }

    /// The unit of a sweep key's plain numbers; empty if they have none.
    pub(crate) fn unit(&self, key: &str) -> &str {
        self.run.sweep_units.get(key).map_or("", String::as_str)
    }

    /// The tenant whose values a plot shows if it is not split by tenant.
    pub(crate) fn whose<'b>(&self, spec: &'b PlotSpec) -> &'b str {
        match spec.tenant.as_deref() {
            None | Some(WHOLE) => self.whole,
            Some("each") => "",
            Some(tenant) => tenant,
        }
    }

    /// A panel's title, with its tenant's goal if the panel shows times.
    pub(crate) fn goal_title(&self, title: &str, times: bool) -> String {
        let goal = self.run.tenants.iter().find(|t| t.name == title).and_then(|t| t.slo_ms);
        match goal.filter(|_| times) {
            Some(ms) => format!("{title} · goal {} ms", pretty(ms)),
            None => title.to_owned(),
        }
    }

    /// Whether a series is the bound, which competes with no policy.
    pub(crate) fn is_bound(&self, by: &str, value: &str) -> bool {
        match by {
            "label" => self.run.label_is_bound(value),
            "policy" => self.run.policy_is_bound(value),
            _ => false,
        }
    }

    /// Values of a column in the expected order: as in the experiment file, or ascending if they are numbers.
    pub(crate) fn ordered(&self, column: &str, mut values: Vec<String>) -> Vec<String> {
        let rank =
            |names: Vec<&str>, v: &String| names.iter().position(|n| n == v).unwrap_or(names.len());
        match column {
            "label" => values
                .sort_by_key(|v| rank(self.run.policies.iter().map(|p| &*p.label).collect(), v)),
            "tenant" => {
                values.sort_by_key(|v| rank(self.run.tenants.iter().map(|t| &*t.name).collect(), v))
            }
            _ if values.iter().all(|v| quantity(v).is_some()) => values.sort_by(|a, b| {
                let value = |t: &str| quantity(t).map_or(0.0, |q| q.value);
                value(a).total_cmp(&value(b))
            }),
            _ => {}
        }
        values
    }

    /// A value as shown in legends and on axes.
    pub(crate) fn show(&self, column: &str, value: &str) -> String {
        match (column, value) {
            ("tenant", WHOLE) => self.whole.to_owned(),
            ("label" | "policy" | "tenant" | "model", "") => "(none)".to_owned(),
            ("label" | "policy" | "tenant" | "model", v) => v.to_owned(),
            (_, "") => format!("no {}", key_title(column)),
            (key, v) => format!("{} = {v}", key_title(key)),
        }
    }

    /// Rows of the tenants that the plot shows, as panels: `(panel title, rows)`.
    pub(crate) fn panels<'b>(
        &self,
        table: &Table,
        rows: &[&'b Row],
        spec: &PlotSpec,
        split_by_tenant: bool,
        y: &str,
    ) -> Result<Vec<(String, Vec<&'b Row>)>, String> {
        let of = |tenant: &str| -> Vec<&'b Row> {
            rows.iter().copied().filter(|r| table.text(r, "tenant") == tenant).collect()
        };
        let each = || -> Vec<&'b Row> {
            rows.iter().copied().filter(|r| table.text(r, "tenant") != WHOLE).collect()
        };
        let has = |rows: &[&Row]| rows.iter().any(|r| table.number(r, y).is_some());
        match spec.tenant.as_deref() {
            Some("each") => {
                let names = self.ordered("tenant", table.distinct(&each(), "tenant"));
                Ok(names.iter().map(|t| (t.clone(), of(t))).collect())
            }
            Some(tenant) => {
                let mut known = table.distinct(rows, "tenant");
                known.push("each".to_owned());
                let known: Vec<&str> = known.iter().map(String::as_str).collect();
                if !known.contains(&tenant) {
                    return Err(unknown("tenant", tenant, &known));
                }
                Ok(vec![(String::new(), of(tenant))])
            }
            None if split_by_tenant && has(&each()) => Ok(vec![(String::new(), each())]),
            None => Ok(vec![(String::new(), of(WHOLE))]),
        }
    }

    /// The order of a column's values among all rows that the plot selects, including failed cells: a policy
    /// that fails everywhere is a result and must not disappear.
    pub(crate) fn series(
        &self,
        table: &Table,
        spec: &PlotSpec,
        by: &str,
        rows: &[&Row],
    ) -> Vec<String> {
        let mut values = table.distinct(rows, by);
        if matches!(by, "label" | "policy") {
            for value in table.distinct(&table.matching(&spec.filter), by) {
                if !values.contains(&value) {
                    values.push(value);
                }
            }
        }
        self.ordered(by, values)
    }

    /// Refuses to average over rows that differ in more than the repeat.
    pub(crate) fn unmixed(&self, table: &Table, rows: &[&Row]) -> Result<(), String> {
        let keys = self.run.sweep_keys.iter().map(String::as_str);
        for column in ["label", "tenant"].into_iter().chain(keys) {
            let values = table.distinct(rows, column);
            if values.len() > 1 {
                let list = self.ordered(column, values).join(", ");
                return Err(format!(
                    "rows that differ in `{column}` ({list}) would fall into one value: \
                     make it `x` or `by`, or keep one with `where`"
                ));
            }
        }
        Ok(())
    }

    /// Mean and interval of `column` over the repeats in `rows`, in the drawn unit; relative to a label if
    /// the plot asks for it.
    pub(crate) fn estimate(
        &self,
        table: &Table,
        spec: &PlotSpec,
        rows: &[&Row],
        column: &Column,
    ) -> Result<Option<Estimate>, String> {
        self.unmixed(table, rows)?;
        let value = |r: &&Row| table.number(r, column.name);
        let Some(base) = &spec.relative_to else {
            let values: Vec<f64> = rows.iter().filter_map(value).collect();
            return Ok(
                Estimate::of(&values).map(|e| e.within(0.0, column.most()).scaled(column.scale))
            );
        };
        let same = |a: &Row, b: &Row| {
            let keys = self.run.sweep_keys.iter().map(String::as_str);
            let mut swept =
                keys.filter(|k| !table.text(a, k).is_empty() && !table.text(b, k).is_empty());
            swept.all(|k| table.text(a, k) == table.text(b, k))
                && ["tenant", "repeat"].iter().all(|c| table.text(a, c) == table.text(b, c))
        };
        let all = table.select(&spec.filter);
        let bases: Vec<&Row> = grouped(table, &all, "label", base);
        if bases.is_empty() {
            let labels = table.distinct(&all, "label");
            let known: Vec<&str> = labels.iter().map(String::as_str).collect();
            return Err(format!("relative_to: {}", unknown("label", base, &known)));
        }
        let ratio = |r: &&Row| {
            let of = bases.iter().find(|b| same(r, b)).and_then(value)?;
            value(r).map(|v| v / of).filter(|v| v.is_finite())
        };
        let ratios: Vec<f64> = rows.iter().filter_map(ratio).collect();
        Ok(Estimate::of(&ratios).map(|e| e.within(0.0, f64::INFINITY)))
    }

    /// The axis title of a metric.
    pub(crate) fn value_axis(&self, spec: &PlotSpec, column: &Column) -> String {
        match &spec.relative_to {
            Some(base) => format!("{} relative to {base} (×)", column.title),
            None => column.axis(),
        }
    }

    /// What the plot's table asks for beyond its kind.
    pub(crate) fn dress(&self, spec: &PlotSpec, mut figure: Figure) -> Figure {
        figure.notes.extend(spec.note.clone());
        if let Some(title) = &spec.xlabel {
            figure.panels.iter_mut().for_each(|p| p.x.title.clone_from(title));
        }
        figure.shape = Shaped {
            mm: spec.width.map(Width::mm),
            font: spec.font.clone().unwrap_or_default(),
            legend: spec.legend.unwrap_or_default(),
        };
        figure
    }

    /// Small print: whose numbers they are, and over how many repeats.
    pub(crate) fn note(&self, spec: &PlotSpec, whose: &str, intervals: bool) -> String {
        let mut parts = vec![];
        if !whose.is_empty() {
            parts.push(whose.to_owned());
        }
        if intervals {
            let n = self.run.seeds.len();
            // A failed cell leaves its policy with fewer repeats.
            let kept = self.results.matching(&spec.filter).len();
            let failed = kept > self.results.select(&spec.filter).len();
            let over = if failed { "the successful of " } else { "" };
            parts.push(format!("mean and 95 % confidence interval over {over}{n} repeats"));
        }
        parts.extend(spec.filter.iter().map(|(k, v)| format!("{} = {v}", key_title(k))));
        if !self.run.device.title.is_empty() {
            parts.push(self.run.device.title.clone());
        }
        parts.push(self.kind_of_numbers());
        parts.join(" · ")
    }

    /// How the numbers were obtained, in a few words that every figure contains.
    pub(crate) fn kind_of_numbers(&self) -> String {
        let how = match &self.run.replay {
            None => "simulated",
            Some(r) if r.kind == "measured" => "measured",
            Some(r) if r.kind == "emulated" => "emulated, not measured",
            Some(_) => "on a stand-in, not measured",
        };
        match self.sources().as_slice() {
            [] => how.to_owned(),
            sources => format!("{how}, {} profiles", sources.join(" and ")),
        }
    }

    /// The distinct sources of the tenants' profiles.
    pub(crate) fn sources(&self) -> Vec<&str> {
        let mut sources: Vec<&str> = vec![];
        for t in &self.run.tenants {
            if !t.profile_source.is_empty() && !sources.contains(&t.profile_source.as_str()) {
                sources.push(&t.profile_source);
            }
        }
        sources
    }

    /// Legend entries of the series `values` of `by`.
    pub(crate) fn legend(&self, by: &str, values: &[String], key: Key) -> Vec<Entry> {
        if values.len() < 2 {
            return vec![];
        }
        let entry = |(n, v): (usize, &String)| Entry {
            label: self.show(by, v),
            look: self.looks.series(by, v, n),
            key,
        };
        values.iter().enumerate().map(entry).collect()
    }

    /// Legend entries, where series that cannot be told apart share one.
    pub(crate) fn merged_legend(
        &self,
        by: &str,
        values: &[String],
        key: Key,
        apart: impl Fn(usize, usize) -> bool,
    ) -> Vec<Entry> {
        let mut entries: Vec<(usize, Entry)> = vec![];
        for (n, entry) in self.legend(by, values, key).into_iter().enumerate() {
            match entries.iter_mut().find(|(first, _)| !apart(*first, n)) {
                Some((_, same)) => same.label = format!("{} = {}", same.label, entry.label),
                None => entries.push((n, entry)),
            }
        }
        entries.into_iter().map(|e| e.1).collect()
    }

    /// A column's name in titles.
    pub(crate) fn column_title(column: &str) -> String {
        if column == "label" { "policy".to_owned() } else { key_title(column) }
    }

    /// The look of the `n`-th series.
    pub(crate) fn look(&self, by: &str, value: &str, n: usize) -> Look {
        self.looks.series(by, value, n)
    }
}

/// Which of the axes are logarithmic: as the plot sets it, else `default`.
pub(crate) fn logs(spec: &PlotSpec, default: (bool, bool)) -> (bool, bool) {
    match spec.log {
        None => default,
        Some(LogAxes::X) => (true, false),
        Some(LogAxes::Y) => (false, true),
        Some(LogAxes::Xy) => (true, true),
        Some(LogAxes::None) => (false, false),
    }
}

/// The metric column named `name`; the plot's check has accepted it.
pub(crate) fn column(name: &str) -> Result<&'static Column, String> {
    metric(name).ok_or_else(|| format!("`{name}` is not a numeric column of results.csv"))
}

/// The rows of one group.
pub(crate) fn grouped<'b>(table: &Table, rows: &[&'b Row], by: &str, value: &str) -> Vec<&'b Row> {
    rows.iter().copied().filter(|r| table.text(r, by) == value).collect()
}

/// A sweep key as an axis: of numbers if all values are numbers, else of names.
pub(crate) struct SweepAxis {
    values: Vec<String>,
    numbers: Option<Vec<Quantity>>,
}

impl SweepAxis {
    /// Builds the axis from the key's values in order; the empty value of cells that the key does not affect
    /// is skipped.
    pub(crate) fn of(values: Vec<String>) -> Self {
        let values: Vec<String> = values.into_iter().filter(|v| !v.is_empty()).collect();
        let numbers: Option<Vec<Quantity>> = values.iter().map(|v| quantity(v)).collect();
        let one_unit = |n: &Vec<Quantity>| n.windows(2).all(|w| w[0].unit == w[1].unit);
        Self { values, numbers: numbers.filter(one_unit) }
    }

    /// The values, in order.
    pub(crate) fn values(&self) -> &[String] {
        &self.values
    }

    /// The position of value `i`.
    pub(crate) fn at(&self, i: usize) -> f64 {
        self.numbers.as_ref().map_or(i as f64, |n| n[i].value)
    }

    /// The axis for lines.
    pub(crate) fn axis(&self, cx: &Context<'_>, key: &str, log: bool) -> Axis {
        match &self.numbers {
            Some(numbers) => {
                let values: Vec<f64> = numbers.iter().map(|n| n.value).collect();
                let unit = match numbers.first().map_or("", |n| n.unit) {
                    "" => cx.unit(key),
                    unit => unit,
                };
                Axis::spanning(&key_axis(key, unit), &values, log).ticks_at(&values)
            }
            None => self.names(cx, key),
        }
    }

    /// The axis for tiles and bars: one position for each value.
    pub(crate) fn names(&self, cx: &Context<'_>, key: &str) -> Axis {
        // Names such as `5ms` already contain their unit.
        let title = match self.numbers.as_ref().and_then(|n| n.first()).map(|n| n.unit) {
            Some("ms") => format!("{} (time)", key_title(key)),
            Some("MiB") => format!("{} (size)", key_title(key)),
            Some(_) => key_axis(key, cx.unit(key)),
            None => format!("{} (name)", key_title(key)),
        };
        Axis::names(&title, self.values.clone())
    }
}
