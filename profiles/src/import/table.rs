//! The table that most people have: whole-model latency by batch and GPU share.
//!
//! `model,batch,share_pct,latency_ms`, or `cus` in place of `share_pct`, and optionally
//! `l2_util_pct,dram_util_pct,power_w`. Each model becomes one pseudo-kernel per batch.

use std::collections::BTreeMap;

use super::{Builder, Import, ImportError, Input, bytes_at};
use crate::Device;
use crate::curve::{Curve, Point};
use crate::files::table::{Columns, Row, Table};
use crate::files::{FileError, MODEL_NAME, Problem, is_model_name};
use crate::kernel::{Kernel, Op};
use crate::units::Nanos;

const COLUMNS: Columns = Columns {
    needed: &["model", "batch", "latency_ms"],
    optional: &["share_pct", "cus", "l2_util_pct", "dram_util_pct", "power_w"],
};

/// A latency up to an hour.
const LONGEST_MS: f64 = 3.6e6;

/// Two shares of the table that are the same number of CUs on the device.
const SAME_CUS: &str = "another share rounds to the same CUs";

struct TableRow {
    point: Point,
    /// The share as written: decides between rows that come down to the same CUs.
    share: f64,
    dram_util: Option<f64>,
    l2_util: Option<f64>,
    power_w: Option<f64>,
}

/// Imports a table of whole-model latencies on `device`.
///
/// A share becomes CUs as MPS rounds it on the device. Where two shares of one model and batch
/// come to the same CUs, the smaller one, which is nearer to them, is kept and the other dropped.
/// The pseudo-kernel wants every CU; its DRAM bytes follow from `dram_util_pct` at the largest
/// share, 0 where the table does not say. L2 and power are kept in the provenance
/// (`l2_util_pct.<model>.b<batch>`, `power_w.<model>.b<batch>`).
///
/// # Errors
/// A row that does not read, both or neither of `share_pct` and `cus`, a row twice, more CUs than
/// the device has, or no row.
pub fn table(input: &Input<'_>, device: &Device) -> Result<Import, ImportError> {
    let table = Table::parse(input.text, input.file, COLUMNS, false)?;
    if table.has("share_pct") == table.has("cus") {
        let problem = Problem::MissingColumn("one of share_pct and cus, not both".to_owned());
        return Err(FileError::bad(input.file, 1, "share_pct", problem));
    }
    let mut groups: BTreeMap<(&str, u32), BTreeMap<u32, TableRow>> = BTreeMap::new();
    let mut dropped = BTreeMap::new();
    for row in table.rows() {
        let model = row.text("model");
        if !is_model_name(model) {
            let problem = Problem::Value { text: model.to_owned(), wanted: MODEL_NAME.to_owned() };
            return Err(row.bad("model", problem));
        }
        let group = groups.entry((model, row.int("batch", 1, 1 << 20)?)).or_default();
        let read = read_row(row, device)?;
        match group.get(&read.point.cus) {
            None => {
                group.insert(read.point.cus, read);
            }
            Some(other) if other.share == read.share => {
                let what = format!("{model} at the same batch and share");
                return Err(row.bad("model", Problem::Duplicate(what)));
            }
            Some(other) => {
                *dropped.entry(SAME_CUS).or_default() += 1;
                if read.share < other.share {
                    group.insert(read.point.cus, read);
                }
            }
        }
    }
    if groups.is_empty() {
        return Err(FileError::bad(input.file, 1, "file", Problem::NoRows("latency")));
    }
    let facts = [
        ("tool", "table of whole-model latencies".to_owned()),
        ("curves", "whole-model latencies, one pseudo-kernel per batch".to_owned()),
        ("host_ns", "0: part of the latency".to_owned()),
    ];
    let mut builder = Builder::new(device, &facts);
    for ((model, batch), rows) in groups {
        add(&mut builder, model, batch, &rows);
    }
    Ok(builder.finish(table.len(), dropped))
}

fn add(builder: &mut Builder<'_>, model: &str, batch: u32, rows: &BTreeMap<u32, TableRow>) {
    let device = builder.device;
    let Some((_, widest)) = rows.last_key_value() else { return };
    for (key, value) in [("l2_util_pct", widest.l2_util), ("power_w", widest.power_w)] {
        if let Some(value) = value {
            let key = format!("{key}.{model}.b{batch}");
            builder.profile.provenance.insert(key, value.to_string());
        }
    }
    let points = rows.values().map(|row| row.point).collect();
    let share = widest.dram_util.unwrap_or(0.0) / 100.0;
    let id = format!("{model}-b{batch}");
    let kernel = builder.kernel(id.clone(), |_| Kernel {
        name: id.clone(),
        id,
        op: Op::Pseudo,
        grid: [device.cus(), 1, 1],
        block: 0,
        regs: 0,
        smem_bytes: 0,
        blocks_per_cu: 1,
        flops: 0,
        dram_bytes: bytes_at(device.memory.dram_gbps, widest.point.duration_ns, share),
        curve: Curve::new(points).expect("read with at least one CU and 1 ns, once per count"),
    });
    builder.launch(model, batch, kernel, Nanos::ZERO);
}

fn read_row(row: Row<'_>, device: &Device) -> Result<TableRow, ImportError> {
    let (cus, share) = if row.get("cus").is_some() {
        let cus = row.int("cus", 1, u32::MAX)?;
        if cus > device.cus() {
            let (device, has) = (device.name.clone(), device.cus());
            return Err(row.bad("cus", Problem::TooManyCus { cus, device, has }));
        }
        (cus, f64::from(cus))
    } else {
        let share = row.decimal("share_pct", 0.0, 100.0)?;
        (share_cus(device, share), share)
    };
    let duration_ns = (row.decimal("latency_ms", 0.0, LONGEST_MS)? * 1e6).round().max(1.0) as u64;
    let optional = |column: &str, high: f64| match row.get(column) {
        // The lowest value that is allowed is 0 itself, which `decimal` leaves out.
        Some(text) if text.parse() == Ok(0.0) => Ok(Some(0.0)),
        Some(_) => row.decimal(column, 0.0, high).map(Some),
        None => Ok(None),
    };
    Ok(TableRow {
        point: Point::exact(cus, duration_ns),
        share,
        dram_util: optional("dram_util_pct", 100.0)?,
        l2_util: optional("l2_util_pct", 100.0)?,
        power_w: optional("power_w", 1e5)?,
    })
}

/// CUs of a share: as MPS rounds, and whole CUs where MPS knows no percentages.
fn share_cus(device: &Device, percent: f64) -> u32 {
    let cus = device.cus();
    match device.mps {
        Some(mps) if mps.round_cus < cus => device.mps_cus(percent),
        _ => ((f64::from(cus) * percent / 100.0 + 1e-9) as u32).clamp(1, cus),
    }
}
