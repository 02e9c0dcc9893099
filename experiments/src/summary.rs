//! The summary table on stdout: means over repeats, read from `results.csv`.

use std::collections::HashMap;
use std::path::Path;

use cotenant_results::{Metric, RunInfo, columns};

use crate::fail::{Done, Failure};
use crate::text::{align, rounded};

/// Most rows to print on a terminal.
const MOST_ROWS: usize = 120;
/// Metrics in the table.
const SHOWN: [Metric; 6] = [
    Metric::Throughput,
    Metric::Goodput,
    Metric::SloAttainment,
    Metric::LatencyP50,
    Metric::LatencyP99,
    Metric::CuUtilization,
];

/// The repeats of one policy at one point, for one tenant.
struct Group {
    /// Sweep values, label, tenant.
    names: Vec<String>,
    /// Sum and number of the existing values, by column of [`SHOWN`].
    sums: [(f64, usize); SHOWN.len()],
    /// Status of the first failed repeat.
    status: Option<String>,
}

/// The results of a folder, aggregated while they are read.
pub(crate) struct Summary {
    groups: Vec<Group>,
    /// Cells that failed, by reason.
    pub(crate) failures: Vec<(String, usize)>,
    header: Vec<String>,
}

impl Summary {
    /// Reads `results.csv`; memory grows with the policies and points, not with the repeats.
    ///
    /// # Errors
    /// The file is not a table of results.
    pub(crate) fn read(file: &Path, keys: &[String]) -> Done<Self> {
        let bad = |e: csv::Error| Failure::input(format!("{}: {e}", file.display()));
        let mut reader = csv::Reader::from_path(file).map_err(bad)?;
        let header = reader.headers().map_err(bad)?.clone();
        let column = |name: &str| {
            let found = header.iter().position(|h| h == name);
            found.ok_or_else(|| {
                Failure::input(format!("{}:1: there is no column `{name}`", file.display()))
            })
        };
        let (label, tenant, status) = (column("label")?, column("tenant")?, column("status")?);
        let shown: Vec<usize> = SHOWN.iter().map(|m| column(m.name())).collect::<Done<_>>()?;
        let swept = columns::LEADING.len()..columns::LEADING.len() + keys.len();
        let mut index: HashMap<Vec<String>, usize> = HashMap::new();
        let mut summary = Self { groups: vec![], failures: vec![], header: keys.to_vec() };
        let mut row = csv::StringRecord::new();
        while reader.read_record(&mut row).map_err(bad)? {
            let field = |i: usize| row.get(i).unwrap_or_default();
            let mut names: Vec<String> = swept.clone().map(|i| field(i).to_owned()).collect();
            names.extend([field(label).to_owned(), field(tenant).to_owned()]);
            let known = index.get(&names).copied().unwrap_or_else(|| {
                index.insert(names.clone(), summary.groups.len());
                summary.groups.push(Group { names, sums: Default::default(), status: None });
                summary.groups.len() - 1
            });
            let group = &mut summary.groups[known];
            for (sum, &i) in group.sums.iter_mut().zip(&shown) {
                if let Ok(value) = field(i).parse::<f64>() {
                    *sum = (sum.0 + value, sum.1 + 1);
                }
            }
            let status = field(status);
            if status != "ok" {
                group.status.get_or_insert_with(|| status.to_owned());
                if field(tenant) == "*" && !columns::has_numbers(status) {
                    summary.failed(status);
                }
            }
        }
        Ok(summary)
    }

    fn failed(&mut self, status: &str) {
        match self.failures.iter_mut().find(|(why, _)| why == status) {
            Some((_, n)) => *n += 1,
            None => self.failures.push((status.to_owned(), 1)),
        }
    }

    /// The table; only its whole-GPU rows if it would be too long.
    pub(crate) fn text(&self) -> String {
        let whole_only = self.groups.len() > MOST_ROWS;
        let is_whole = |g: &Group| g.names.last().is_some_and(|t| t == "*");
        let shown = self.groups.iter().filter(|g| !whole_only || is_whole(g));
        let mut rows: Vec<Vec<String>> = shown.map(Group::row).collect();
        let hidden = rows.len().saturating_sub(MOST_ROWS);
        rows.truncate(MOST_ROWS);
        let mut header: Vec<&str> = self.header.iter().map(String::as_str).collect();
        header.extend(["policy", "tenant", "rps", "goodput", "SLO %", "p50 ms", "p99 ms", "CU %"]);
        header.push("status");
        let mut text = align(&header, &rows);
        if hidden > 0 {
            text += &format!("… {hidden} more rows in results.csv\n");
        }
        text
    }

    /// The answer as JSON: the facts of the report, and the table.
    ///
    /// # Errors
    /// None can occur with this kind of data.
    pub(crate) fn json(&self, run: &RunInfo, answer: &[String], report: &Path) -> Done<String> {
        let keys = self.header.len();
        let rows = self.groups.iter().map(|group| {
            let mut row = serde_json::Map::new();
            for (key, value) in self.header.iter().zip(&group.names) {
                row.insert(key.clone(), value.as_str().into());
            }
            row.insert("label".to_owned(), group.names[keys].as_str().into());
            row.insert("tenant".to_owned(), group.names[keys + 1].as_str().into());
            for (&(sum, n), metric) in group.sums.iter().zip(&SHOWN) {
                let mean = if n > 0 { Some(sum / n as f64) } else { None };
                row.insert(metric.name().to_owned(), mean.into());
            }
            row.insert("status".to_owned(), group.status.as_deref().unwrap_or("ok").into());
            serde_json::Value::Object(row)
        });
        let all = serde_json::json!({
            "name": run.name,
            "question": run.question,
            "answer": answer,
            "report": report,
            "cells": run.cells.len(),
            "rows": rows.collect::<Vec<_>>(),
        });
        Ok(serde_json::to_string_pretty(&all).map_err(Failure::failed)? + "\n")
    }

    /// Why cells failed, in one line; `None` if none did.
    pub(crate) fn failures(&self, cells: usize) -> Option<String> {
        let failed: usize = self.failures.iter().map(|(_, n)| n).sum();
        let mut reasons = self.failures.clone();
        reasons.sort();
        let list: Vec<String> = reasons.iter().map(|(why, n)| format!("{why} ({n}×)")).collect();
        let what = crate::text::count(cells, "cell");
        (failed > 0).then(|| format!("{failed} of {what} failed: {}", list.join("; ")))
    }
}

impl Group {
    fn row(&self) -> Vec<String> {
        let mean = |(&(sum, n), metric): (&(f64, usize), &Metric)| {
            rounded((n > 0).then(|| sum / n as f64 * metric.column().scale))
        };
        let mut row = self.names.clone();
        row.extend(self.sums.iter().zip(&SHOWN).map(mean));
        row.push(self.status.clone().unwrap_or_else(|| "ok".to_owned()));
        row
    }
}
