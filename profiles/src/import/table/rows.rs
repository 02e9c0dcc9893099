//! Rows of the table.

use super::super::{ImportError, Input, whole};
use crate::Device;
use crate::curve::Point;
use crate::files::table::{Columns, Row, Table};
use crate::files::{FileError, MODEL_NAME, Problem, is_model_name};

const COLUMNS: Columns = Columns {
    needed: &["model", "batch", "latency_ms"],
    optional: &[
        "share_pct",
        "cus",
        "kernels",
        "width_cus",
        "host_ms",
        "l2_util_pct",
        "dram_util_pct",
        "power_w",
        "weights_mib",
    ],
};

/// A latency up to an hour.
const LONGEST_MS: f64 = 3.6e6;
/// Kernels of a batch: beyond it, a table of kernels is what is wanted.
const MOST_KERNELS: u32 = 100_000;

/// A model at one batch.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    pub(super) model: String,
    pub(super) batch: u32,
}

impl Key {
    /// Whose rows must agree about a field.
    pub(super) fn words(&self, field: &str) -> String {
        if field == "weights_mib" {
            format!("`{}`", self.model)
        } else {
            format!("`{}` at batch {}", self.model, self.batch)
        }
    }
}

pub(super) struct TableRow {
    pub(super) point: Point,
    /// The share as written: decides between rows that come down to the same CUs.
    pub(super) share: f64,
    pub(super) kernels: Option<u32>,
    pub(super) width_cus: Option<u32>,
    pub(super) host_ns: Option<u64>,
    pub(super) dram_util: Option<f64>,
    pub(super) l2_util: Option<f64>,
    pub(super) power_w: Option<f64>,
    pub(super) weights_mib: Option<f64>,
}

impl TableRow {
    /// Whether anything is known of what it asks of memory or power supply.
    pub(super) fn draws(&self) -> bool {
        self.dram_util.is_some() || self.l2_util.is_some() || self.power_w.is_some()
    }

    /// The field about which it and another row of the model must agree and do not; a row that says
    /// nothing agrees.
    pub(super) fn disagrees(&self, other: &Self, same_batch: bool) -> Option<&'static str> {
        fn differ<T: PartialEq>(a: Option<T>, b: Option<T>) -> bool {
            matches!((a, b), (Some(a), Some(b)) if a != b)
        }
        if differ(self.weights_mib, other.weights_mib) {
            return Some("weights_mib");
        }
        let batch = [
            ("kernels", differ(self.kernels, other.kernels)),
            ("width_cus", differ(self.width_cus, other.width_cus)),
            ("host_ms", differ(self.host_ns, other.host_ns)),
        ];
        batch.into_iter().find(|(_, differs)| same_batch && *differs).map(|(field, _)| field)
    }
}

/// The table, its columns checked.
pub(super) fn parse(input: &Input<'_>) -> Result<Table, ImportError> {
    let table = Table::parse(&whole::plain(input.text), input.file, COLUMNS, false)?;
    if table.has("share_pct") == table.has("cus") {
        let problem = Problem::MissingColumn("one of share_pct and cus, not both".to_owned());
        return Err(FileError::bad(input.file, 1, "share_pct", problem));
    }
    Ok(table)
}

pub(super) fn read(row: Row<'_>, device: &Device) -> Result<(Key, TableRow), ImportError> {
    let model = row.text("model");
    if !is_model_name(model) {
        let problem = Problem::Value { text: model.to_owned(), wanted: MODEL_NAME.to_owned() };
        return Err(row.bad("model", problem));
    }
    let key = Key { model: model.to_owned(), batch: row.int("batch", 1, 1 << 20)? };
    let (cus, share) = if row.get("cus").is_some() {
        let cus = row.int("cus", 1, u32::MAX)?;
        within(row, "cus", cus, device)?;
        (cus, f64::from(cus))
    } else {
        let share = row.decimal("share_pct", 0.0, 100.0)?;
        (share_cus(device, share), share)
    };
    let duration_ns = (row.decimal("latency_ms", 0.0, LONGEST_MS)? * 1e6).round().max(1.0) as u64;
    let count = |column: &str, most: u32| match row.get(column) {
        Some(_) => row.int(column, 1, most).map(Some),
        None => Ok(None),
    };
    let width_cus = count("width_cus", u32::MAX)?;
    if let Some(cus) = width_cus {
        within(row, "width_cus", cus, device)?;
    }
    let optional = |column: &str, high: f64| match row.get(column) {
        // The lowest value that is allowed is 0 itself, which `decimal` leaves out.
        Some(text) if text.parse() == Ok(0.0) => Ok(Some(0.0)),
        Some(_) => row.decimal(column, 0.0, high).map(Some),
        None => Ok(None),
    };
    let host_ms = optional("host_ms", LONGEST_MS)?;
    if let Some(ms) = host_ms
        && ms * 1e6 > duration_ns as f64
    {
        let wanted = "at most the latency: the host's part is in it".to_owned();
        return Err(row.bad("host_ms", Problem::Value { text: ms.to_string(), wanted }));
    }
    let read = TableRow {
        point: Point::exact(cus, duration_ns),
        share,
        kernels: count("kernels", MOST_KERNELS)?,
        width_cus,
        host_ns: host_ms.map(|ms| (ms * 1e6).round() as u64),
        dram_util: optional("dram_util_pct", 100.0)?,
        l2_util: optional("l2_util_pct", 100.0)?,
        power_w: optional("power_w", 1e5)?,
        weights_mib: optional("weights_mib", 1e9)?,
    };
    Ok((key, read))
}

fn within(row: Row<'_>, column: &str, cus: u32, device: &Device) -> Result<(), ImportError> {
    if cus <= device.cus() {
        return Ok(());
    }
    let (device, has) = (device.name.clone(), device.cus());
    Err(row.bad(column, Problem::TooManyCus { cus, device, has }))
}

/// CUs of a share: as MPS rounds, and whole CUs where MPS knows no percentages.
fn share_cus(device: &Device, percent: f64) -> u32 {
    let cus = device.cus();
    match device.mps {
        Some(mps) if mps.round_cus < cus => device.mps_cus(percent),
        _ => ((f64::from(cus) * percent / 100.0 + 1e-9) as u32).clamp(1, cus),
    }
}
