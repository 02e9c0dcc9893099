//! The SQLite export of Nsight Systems (`nsys export --type sqlite`): the tables
//! `CUPTI_ACTIVITY_KIND_KERNEL` and `StringIds` of its documented schema.

use std::collections::BTreeMap;

use super::sqlite::{Database, Rows, Value};
use super::stream::{self, Record, StreamOptions};
use super::{Import, ImportError};
use crate::Device;
use crate::files::{FileError, Problem};

const KERNELS: &str = "CUPTI_ACTIVITY_KIND_KERNEL";

/// Imports an export as one model at one batch, measured on `device`; `file` is what errors call it.
///
/// # Errors
/// Bytes that are no such database, a table or a column that is missing, a row that does not read,
/// or no repeating iteration.
pub fn nsys(
    file: &str,
    bytes: &[u8],
    device: &Device,
    options: &StreamOptions,
) -> Result<Import, ImportError> {
    let bad = |field: &str, text: &str, wanted: &str| {
        let problem = Problem::Value { text: text.to_owned(), wanted: wanted.to_owned() };
        FileError::bad(file, 1, field, problem)
    };
    let whole = "an export of Nsight Systems (nsys export --type sqlite)";
    let database = Database::open(bytes).map_err(|what| bad("file", what, whole))?;
    let table = |name: &str| match database.table(name) {
        Ok(Some(rows)) => Ok(rows),
        Ok(None) => Err(bad(name, "a database without this table", whole)),
        Err(what) => Err(bad(name, what, whole)),
    };
    let strings = strings(&table("StringIds")?);
    let kernels = table(KERNELS)?;
    let mut records = Vec::with_capacity(kernels.rows.len());
    for (i, row) in kernels.rows.iter().enumerate() {
        let record = record(&kernels, row, &strings);
        records.push(record.map_err(|column| {
            let field = format!("{KERNELS}[{i}].{column}");
            bad(&field, "nothing usable", "a number in range, as the schema says")
        })?);
    }
    let facts = [("tool", "Nsight Systems (SQLite export)".to_owned())];
    stream::profile(file, records, device, options, &facts)
}

fn strings(table: &Rows) -> BTreeMap<i64, String> {
    let (id, value) = (table.columns.get("id"), table.columns.get("value"));
    let entry = |row: &Vec<Value>| match (row.get(*id?)?, row.get(*value?)?) {
        (Value::Integer(id), Value::Text(text)) => Some((*id, text.clone())),
        _ => None,
    };
    table.rows.iter().filter_map(entry).collect()
}

fn record(
    table: &Rows,
    row: &[Value],
    strings: &BTreeMap<i64, String>,
) -> Result<Record, &'static str> {
    let get = |column: &'static str| {
        let place = table.columns.get(&column.to_lowercase());
        place.and_then(|p| row.get(*p)).and_then(Value::integer).ok_or(column)
    };
    let size = |column: &'static str| {
        get(column).and_then(|v| u32::try_from(v).map_err(|_| column)).map(|v| v.max(1))
    };
    let count =
        |column: &'static str| get(column).ok().and_then(|v| u32::try_from(v).ok()).unwrap_or(0);
    let time =
        |column: &'static str| get(column).and_then(|v| u64::try_from(v).map_err(|_| column));
    let (start, end) = (time("start")?, time("end")?);
    let name = get("demangledName").or_else(|_| get("shortName"))?;
    let block = [size("blockX")?, size("blockY")?, size("blockZ")?];
    let block = block.iter().try_fold(1u32, |all, n| all.checked_mul(*n)).ok_or("blockX")?;
    Ok(Record {
        name: strings.get(&name).cloned().ok_or("demangledName")?,
        grid: [size("gridX")?, size("gridY")?, size("gridZ")?],
        block,
        regs: count("registersPerThread"),
        smem_bytes: count("staticSharedMemory").saturating_add(count("dynamicSharedMemory")),
        start_ns: start,
        duration_ns: end.checked_sub(start).ok_or("end")?,
    })
}
