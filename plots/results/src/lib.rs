//! The contents of a result folder, typed: the columns of its tables with units and meanings, their reader,
//! and `run.json`. All code that writes or reads results uses this crate; it knows neither the simulator nor
//! its policies beyond the names in the tables.
//!
//! | file | one row is | columns |
//! |---|---|---|
//! | `results.csv` | a cell's tenant, or `*`: the whole GPU | [`columns::LEADING`], sweep keys, [`columns::NAMES`], [`METRICS`], [`columns::STATUS`] |
//! | `cdf.csv` | a quantile of a tenant's latency | [`columns::SERIES_LEADING`], sweep keys, [`columns::CDF`] |
//! | `series.csv` | a time bin of a tenant or `*` | [`columns::SERIES_LEADING`], sweep keys, [`columns::TIMELINE`] |
//! | `counters.csv` | what a policy counted in a cell | [`columns::SERIES_LEADING`], sweep keys, [`columns::COUNTERS`] |
//! | `layouts.csv` | a worker as a policy laid it out | [`columns::SERIES_LEADING`], sweep keys, [`columns::LAYOUTS`] |
//! | `gpus.csv` | what one of several GPUs did for a tenant | [`columns::SERIES_LEADING`], sweep keys, [`columns::GPUS`] |
//! | `curves.csv` | a point of a latency curve | [`columns::CURVES`] |
//! | `validation.csv` | a metric simulated and measured | [`columns::VALIDATION`] |
//!
//! Shares are fractions in files and percentages in pictures. A missing value is an empty field: drawn as a
//! gap and printed as a dash, never as 0.

mod answer;
pub mod columns;
mod doc;
mod error;
mod estimate;
pub mod format;
mod run_info;
mod spec;
mod table;

pub use answer::{
    Answer, Attainment, Cell, Goal, Line, Point, Standing, TARGET, more_requests, wilson,
};
pub use columns::{Better, Column, Field, METRICS, Metric};
pub use doc::markdown;
pub use error::ReadError;
pub use estimate::{Estimate, student_975};
pub use run_info::{
    CellInfo, DeviceInfo, Headroom, PolicyInfo, ReplayInfo, RunInfo, TenantInfo, Winner,
};
pub use spec::{Legend, LogAxes, PlotKind, PlotSpec, SpecError, Wanted, Width};
pub use table::{Row, Table};

/// The name of the tenant that represents the whole GPU.
pub const WHOLE: &str = "*";
