//! `run.json`: the description of the run that created a result folder. With it, plots and report can be
//! redrawn from the folder alone.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::ReadError;
use crate::spec::PlotSpec;

/// The content of `run.json`. Keys added by a newer version are ignored when reading.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
pub struct RunInfo {
    /// Experiment name.
    pub name: String,
    /// The question that the experiment answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub question: Option<String>,
    /// Digest of the experiment and everything it refers to.
    pub experiment_digest: String,
    /// Version of the program.
    pub version: String,
    /// Commit of the program; `unknown` outside a checkout.
    pub commit: String,
    /// Host that computed the cells.
    pub host: String,
    /// Seeds, one per repeat.
    pub seeds: Vec<u64>,
    /// Simulated events of all cells.
    pub events: u64,
    /// Wall-clock time of the whole run, seconds.
    pub wall_s: f64,
    /// Events per second of one thread.
    pub events_per_s: f64,
    /// Every cell that ran.
    pub cells: Vec<CellInfo>,
    /// The GPU.
    #[serde(default)]
    pub device: DeviceInfo,
    /// `real` or `ideal`: whether mechanisms have the costs that the device file lists.
    #[serde(default)]
    pub costs: String,
    /// Simulated time after the warm-up, such as `60s`.
    #[serde(default)]
    pub duration: String,
    /// Simulated time before counting starts, such as `2s`.
    #[serde(default)]
    pub warmup: String,
    /// The resolved text of the experiment file, overrides included.
    #[serde(default)]
    pub config: String,
    /// Tenants, in file order.
    #[serde(default)]
    pub tenants: Vec<TenantInfo>,
    /// Policies, one per label, in file order.
    #[serde(default)]
    pub policies: Vec<PolicyInfo>,
    /// Sweep keys, in the order of their columns in `results.csv`.
    #[serde(default)]
    pub sweep_keys: Vec<String>,
    /// Unit of the plain numbers of a sweep key; keys without a unit are absent.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub sweep_units: BTreeMap<String, String>,
    /// The metric that ranks policies if no tenant has a goal; default: goodput.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rank_by: Option<String>,
    /// The best policy of every sweep point that has one, with the settings that it resolved to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub winners: Vec<Winner>,
    /// The `[[plot]]` tables; if empty, [`PlotSpec::defaults`] are drawn.
    #[serde(default)]
    pub plots: Vec<PlotSpec>,
    /// Present if the results come from a device in real time instead of a simulation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replay: Option<ReplayInfo>,
    /// What readers of the results must know: fallbacks, approximations, data used at its limits.
    #[serde(default)]
    pub warnings: Vec<String>,
}

/// What ran the cells instead of the simulator.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct ReplayInfo {
    /// The device as it was requested: `emulated`, `cuda:0`.
    pub on: String,
    /// `measured`, or the alternative to a measurement: `emulated`, `stand-in`.
    pub kind: String,
    /// The device and its driver.
    pub device: String,
}

/// The best policy of a sweep point.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
pub struct Winner {
    /// The sweep point in words; empty without a sweep.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub point: String,
    /// The policy's name in tables and plots.
    pub label: String,
    /// Whether it keeps every goal for certain; otherwise it may.
    pub certain: bool,
    /// The settings that it resolved to, one line for each step or worker, as in `layouts.csv`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub settings: Vec<String>,
    /// If the best is a research prototype: the best of the policies that can be deployed today and miss no
    /// goal for certain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub today: Option<Box<Winner>>,
    /// Whether others do exactly as well.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub tied: bool,
    /// How much more load it can carry, if that was determined.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub headroom: Option<Headroom>,
}

/// The factor by which all open loads may grow before a goal is missed, found by a search over the first
/// repeat.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
pub struct Headroom {
    /// The largest factor that keeps every goal; absent if none of those tried does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub factor: Option<f64>,
    /// Which goal is missed at the next larger factor; absent if none is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<String>,
}

impl Winner {
    /// What to deploy today: this policy or, if it is a research prototype, the best one that can be
    /// deployed.
    #[must_use]
    pub fn deployed(&self) -> &Self {
        self.today.as_deref().unwrap_or(self)
    }
}

/// One cell of the experiment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct CellInfo {
    /// The cell's name, as in `results.csv`.
    pub cell: String,
    /// Simulated events.
    pub events: u64,
    /// Digest of the event stream.
    pub digest: String,
}

/// The GPU of the run.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
pub struct DeviceInfo {
    /// Device file name without `.toml`.
    pub name: String,
    /// Its name for readers.
    pub title: String,
    /// Compute units.
    pub cus: u32,
    /// Boost clock, MHz; absent in files of earlier versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boost_mhz: Option<f64>,
}

/// One tenant.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
pub struct TenantInfo {
    /// Tenant name, as in `results.csv`.
    pub name: String,
    /// Model served.
    pub model: String,
    /// `latency` or `best-effort`.
    #[serde(default)]
    pub class: String,
    /// The SLO in ms; absent if there is none, or if it differs between cells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slo_ms: Option<f64>,
    /// The SLO as written in the experiment file, such as `100ms` or `2 × isolated p95`; `swept` if it
    /// differs between cells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slo: Option<String>,
    /// p95 latency of one worker alone on the whole GPU, ms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub isolated_p95_ms: Option<f64>,
    /// Throughput of one saturated worker alone on the whole GPU, requests/s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub isolated_rps: Option<f64>,
    /// Arrivals, in words.
    #[serde(default)]
    pub arrivals: String,
    /// Precision of its arithmetic, such as `fp16`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub precision: String,
    /// How its kernels are issued: `eager`, `compiled` or `graphs`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub executor: String,
    /// Source of the model's numbers: `measured`, `analytic` or `imported`.
    #[serde(default)]
    pub profile_source: String,
    /// The profile in words: file, tool, date, GPU, and whatever else its provenance lists.
    #[serde(default)]
    pub profile: String,
}

/// One policy row of the experiment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct PolicyInfo {
    /// Its name in tables and plots.
    pub label: String,
    /// The policy.
    pub name: String,
    /// Its resolved options, as one line of text.
    #[serde(default)]
    pub options: String,
    /// What it does, in a sentence.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub summary: String,
    /// Whether the platform's own mechanisms implement it with fixed settings; otherwise it needs a scheduler
    /// as described in research.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deployable: Option<bool>,
    /// Whether it is a bound: a function of the scenario that no way to run a GPU can exceed, listed among
    /// the policies but not competing with them. Absent in files of earlier versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bound: Option<bool>,
}

impl PolicyInfo {
    /// Whether it is a bound. Files of earlier versions do not say so; they have only one.
    #[must_use]
    pub fn is_bound(&self) -> bool {
        self.bound.unwrap_or(self.name == "ideal")
    }
}

impl RunInfo {
    /// The headroom of what is to be deployed as a sentence, with the label in backquotes; `None` if it was not
    /// determined, or if there are several points.
    #[must_use]
    pub fn headroom_words(&self) -> Option<String> {
        let [winner] = self.winners.as_slice() else { return None };
        let Winner { label, headroom, .. } = winner.deployed();
        let Headroom { factor, limit } = headroom.as_ref()?;
        let kept = match (factor, limit) {
            (Some(factor), Some(limit)) => {
                format!(
                    "keeps every goal up to {factor:.2} times this load; just above it, {limit}"
                )
            }
            (Some(factor), None) => {
                format!("keeps every goal at {factor:.2} times this load, the most that was tried")
            }
            (None, _) => "misses a goal at the least load that was tried, too".to_owned(),
        };
        Some(format!("Headroom: `{label}` {kept} (first repeat, to within a tenth)."))
    }

    /// Reads `run.json`.
    ///
    /// # Errors
    /// The file is missing or unreadable, is not JSON, lacks a required key, or has a bad plot table; the
    /// message names file, line and field.
    pub fn read(path: &Path) -> Result<Self, ReadError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ReadError::Read { path: path.to_owned(), source })?;
        let run: Self = serde_json::from_str(&text).map_err(|e| ReadError::Json {
            path: path.to_owned(),
            line: e.line(),
            message: strip_position(&e),
        })?;
        run.check_plots()?;
        Ok(run)
    }

    /// Whether the policy that tables and plots call `label` is a bound.
    #[must_use]
    pub fn label_is_bound(&self, label: &str) -> bool {
        self.policies.iter().any(|p| p.label == label && p.is_bound())
    }

    /// Whether the policy of this name is a bound.
    #[must_use]
    pub fn policy_is_bound(&self, name: &str) -> bool {
        self.policies.iter().any(|p| p.name == name && p.is_bound())
    }

    /// Checks every plot table against the sweep keys of the run.
    ///
    /// # Errors
    /// The first table that asks for something that cannot be drawn.
    pub fn check_plots(&self) -> Result<(), ReadError> {
        for (i, plot) in self.plots.iter().enumerate() {
            plot.check(i, &self.sweep_keys)?;
        }
        Ok(())
    }

    /// The pretty JSON text of `run.json`, with a final newline.
    ///
    /// # Panics
    /// Never: every field has a JSON form (a float that is not finite becomes `null`).
    #[must_use]
    pub fn to_json(&self) -> String {
        let mut text = vec![];
        self.write_json(&mut text).expect("plain data serialises");
        String::from_utf8(text).expect("JSON is text")
    }

    /// Writes [`RunInfo::to_json`] without holding it in memory: many cells make a long text.
    ///
    /// # Errors
    /// The text cannot be written.
    pub fn write_json(&self, mut to: impl io::Write) -> io::Result<()> {
        serde_json::to_writer_pretty(&mut to, self)?;
        to.write_all(b"\n")
    }
}

/// serde_json appends `at line L column C`; the caller puts the line at the front instead.
fn strip_position(error: &serde_json::Error) -> String {
    let text = error.to_string();
    text.rsplit_once(" at line ").map_or(text.clone(), |(head, _)| head.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_is_told_by_the_field_and_in_old_files_by_its_name() {
        let run = |policies: &str| -> RunInfo {
            let text = r#"{"name": "n", "experiment_digest": "d", "version": "v", "commit": "c",
                "host": "h", "seeds": [], "events": 0, "wall_s": 0, "events_per_s": 0, "cells": [],
                "policies": "#;
            serde_json::from_str(&format!("{text}{policies}}}")).unwrap()
        };
        let told = run(r#"[{"label": "most", "name": "fluid", "bound": true},
            {"label": "ideal", "name": "mps", "bound": false}]"#);
        assert!(told.label_is_bound("most") && told.policy_is_bound("fluid"));
        assert!(!told.label_is_bound("ideal") && !told.policy_is_bound("mps"));
        let old = run(r#"[{"label": "best", "name": "ideal"}, {"label": "mps", "name": "mps"}]"#);
        assert!(old.label_is_bound("best") && old.policy_is_bound("ideal"));
        assert!(!old.label_is_bound("mps") && !old.label_is_bound("absent"));
    }
}
