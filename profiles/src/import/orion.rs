//! Kernel profiles of Orion (EuroSys 2024, github.com/eth-easl/orion): one CSV per model and
//! batch, `<model>_<batch>_fwd.csv`, columns `Name,Profile,Memory_footprint,SM_usage,Duration`.
//!
//! `Duration` is in ns, alone on the GPU. `SM_usage` is what grid and occupancy ask for and may
//! exceed the device. `Profile` is 1 (compute-bound), 0 (memory-bound) or −1 (unknown).
//! `Memory_footprint` is 0 everywhere in the published files and not used. Names are C++ names:
//! commas in them are not always quoted, so a row is read from its right end.

use super::{Builder, Import, ImportError, Input, bytes_at, op_of, scaled, staircase};
use crate::Device;
use crate::files::{FileError, MODEL_NAME, Problem, is_model_name};
use crate::kernel::Kernel;
use crate::text;

/// What Orion does not say and a simulation needs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OrionOptions {
    /// DRAM bandwidth that a memory-bound kernel takes, 0 to 1. Orion calls a kernel memory-bound
    /// from 60 % DRAM utilisation on: the default is the middle of 60 to 100 %.
    pub memory_share: f64,
    /// The same for a compute-bound one; the middle of 0 to 60 %.
    pub compute_share: f64,
    /// The same where Orion does not know.
    pub unknown_share: f64,
}

impl Default for OrionOptions {
    fn default() -> Self {
        Self { memory_share: 0.8, compute_share: 0.3, unknown_share: 0.3 }
    }
}

/// What bounds a kernel, by Orion's roofline or utilisation counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Class {
    /// DRAM bandwidth.
    Memory,
    /// Arithmetic.
    Compute,
    /// Neither counter reached 60 %.
    Unknown,
}

impl Class {
    const ALL: [(Self, &'static str, &'static str); 3] = [
        (Self::Memory, "0", "memory"),
        (Self::Compute, "1", "compute"),
        (Self::Unknown, "-1", "unknown"),
    ];

    /// The word in kernel identifiers, for people: what the class says goes into the DRAM traffic.
    fn name(self) -> &'static str {
        Self::ALL.iter().find(|(c, _, _)| *c == self).expect("ALL lists every class").2
    }
}

const COLUMNS: [&str; 5] = ["Name", "Profile", "Memory_footprint", "SM_usage", "Duration"];

struct KernelRow {
    name: String,
    class: Class,
    need: u32,
    duration_ns: u64,
}

/// Imports Orion's files, one model and batch each, measured on `device`.
///
/// The curve of a kernel follows from its duration `D` on all `C` CUs and its need `n` by waves:
/// `D(c) = D × ceil(n/c) / ceil(n/C)`. Its DRAM traffic is assumed from its class (see
/// [`OrionOptions`]), limited to what the CUs it needs can draw; the host time of a launch is the
/// device's.
///
/// # Errors
/// A file name or a row that is not Orion's, a model and batch given twice, or no file.
pub fn orion(
    inputs: &[Input<'_>],
    device: &Device,
    options: &OrionOptions,
) -> Result<Import, ImportError> {
    let facts = [
        ("tool", "orion kernel profiles (EuroSys 2024)".to_owned()),
        ("framework", "PyTorch".to_owned()),
        ("curves", "derived-from-sm-need".to_owned()),
        (
            "dram_bytes",
            format!(
                "assumed: {} / {} / {} of DRAM bandwidth if memory-bound / compute-bound / unknown",
                options.memory_share, options.compute_share, options.unknown_share
            ),
        ),
        ("host_ns", format!("assumed: {} per launch", device.costs.launch)),
        ("class", "second part of the kernel identifier".to_owned()),
    ];
    let mut builder = Builder::new(device, &facts);
    let mut rows_in = 0;
    for input in inputs {
        let (model, batch) = model_and_batch(input.file)?;
        let batches = builder.profile.models.get(&model).map(|m| &m.batches);
        if batches.is_some_and(|b| b.contains_key(&batch)) {
            let what = format!("{model} at batch {batch}");
            return Err(FileError::bad(input.file, 1, "file", Problem::Duplicate(what)));
        }
        let rows = read(input)?;
        if rows.is_empty() {
            return Err(FileError::bad(input.file, 1, "file", Problem::NoRows("kernel")));
        }
        if rows.iter().all(|r| r.duration_ns == 1) {
            let problem = Problem::Value {
                text: "1 in every row".to_owned(),
                wanted: "measured: the file is a placeholder".to_owned(),
            };
            return Err(FileError::bad(input.file, 1, "Duration", problem));
        }
        rows_in += rows.len();
        for row in rows {
            let kernel = add(&mut builder, &model, batch, row, options);
            builder.launch(&model, batch, kernel, device.costs.launch);
        }
    }
    if inputs.is_empty() {
        return Err(FileError::bad("orion", 1, "file", Problem::NoRows("file")));
    }
    Ok(builder.finish(rows_in, std::collections::BTreeMap::new()))
}

fn add(
    builder: &mut Builder<'_>,
    model: &str,
    batch: u32,
    row: KernelRow,
    options: &OrionOptions,
) -> usize {
    let device = builder.device;
    let content =
        format!("{model}/{batch}/{:?}/{}/{}/{}", row.class, row.need, row.duration_ns, row.name);
    builder.kernel(content, |number| {
        let share = match row.class {
            Class::Memory => options.memory_share,
            Class::Compute => options.compute_share,
            Class::Unknown => options.unknown_share,
        };
        // A few CUs cannot draw the whole bandwidth, whatever the class says.
        let reach = f64::from(row.need) / f64::from(device.analytic.dram_saturating_cus);
        let (cus, waves) = (device.cus(), |c: u32| u128::from(row.need.div_ceil(c)));
        Kernel {
            id: format!("{model}-b{batch}/{}/{number}", row.class.name()),
            op: op_of(&row.name),
            name: row.name,
            grid: [row.need, 1, 1],
            block: 0,
            regs: 0,
            smem_bytes: 0,
            blocks_per_cu: 1,
            flops: 0,
            dram_bytes: bytes_at(device.memory.dram_gbps, row.duration_ns, share * reach.min(1.0)),
            curve: staircase(cus, |c| scaled(row.duration_ns, waves(c), waves(cus))),
        }
    })
}

/// `resnet50_4_fwd.csv` is the model `resnet50` at batch 4, `resnet50_4_fb1.csv` is `resnet50-train`.
fn model_and_batch(file: &str) -> Result<(String, u32), ImportError> {
    let name = file.rsplit(['/', '\\']).next().unwrap_or(file);
    let stem = name.strip_suffix(".csv").unwrap_or(name);
    // `_fwd_new` is a later measurement; `_fb`, `_fb1`, … are training, another model.
    let (stem, training) = match stem.rsplit_once("_f") {
        Some((stem, "wd" | "wd_new")) => (stem, false),
        Some((stem, b))
            if b.strip_prefix('b').is_some_and(|n| n.bytes().all(|c| c.is_ascii_digit())) =>
        {
            (stem, true)
        }
        _ => (stem, false),
    };
    let parts = stem.rsplit_once('_').and_then(|(model, batch)| {
        let batch = batch.parse::<u32>().ok().filter(|b| *b > 0)?;
        let suffix = if training { "-train" } else { "" };
        is_model_name(model).then(|| (format!("{model}{suffix}"), batch))
    });
    parts.ok_or_else(|| {
        let wanted =
            format!("`<model>_<batch>_fwd.csv`, such as `resnet50_4_fwd.csv`, with {MODEL_NAME}");
        let problem = Problem::Value { text: name.to_owned(), wanted };
        FileError::bad(file, 1, "file", problem)
    })
}

fn read(input: &Input<'_>) -> Result<Vec<KernelRow>, ImportError> {
    let text = input.text.strip_prefix('\u{feff}').unwrap_or(input.text);
    let mut lines =
        text.lines().enumerate().map(|(i, l)| (i + 1, l.trim())).filter(|(_, l)| !l.is_empty());
    let (line, header) = lines.next().ok_or_else(|| {
        FileError::bad(input.file, 1, "file", Problem::NoHeader(COLUMNS.join(", ")))
    })?;
    let columns = header_columns(input.file, line, header)?;
    lines.map(|(line, text)| read_row(input.file, line, text, &columns)).collect()
}

/// The column names, which must be all five, the name first.
fn header_columns(file: &str, line: usize, header: &str) -> Result<Vec<&'static str>, ImportError> {
    let mut columns: Vec<&'static str> = Vec::new();
    for cell in header.split(',').map(|c| c.trim().trim_matches('"')) {
        let Some(known) = COLUMNS.iter().find(|c| **c == cell) else {
            let hint = text::did_you_mean(cell, COLUMNS);
            let problem = Problem::UnknownColumn { hint, known: COLUMNS.join(", ") };
            return Err(FileError::bad(file, line, cell, problem));
        };
        if columns.contains(known) {
            return Err(FileError::bad(file, line, cell, Problem::Duplicate(cell.to_owned())));
        }
        columns.push(known);
    }
    if let Some(missing) = COLUMNS.iter().find(|c| !columns.contains(c)) {
        let problem = Problem::MissingColumn(COLUMNS.join(", "));
        return Err(FileError::bad(file, line, missing, problem));
    }
    if columns[0] != "Name" {
        let wanted = "`Name` as the first column: names may hold commas".to_owned();
        let problem = Problem::Value { text: columns[0].to_owned(), wanted };
        return Err(FileError::bad(file, line, columns[0], problem));
    }
    Ok(columns)
}

fn read_row(
    file: &str,
    line: usize,
    text: &str,
    columns: &[&'static str],
) -> Result<KernelRow, ImportError> {
    let mut cells: Vec<&str> = text.rsplitn(columns.len(), ',').map(str::trim).collect();
    cells.reverse();
    if cells.len() != columns.len() {
        let problem = Problem::Cells { found: cells.len(), expected: columns.len() };
        return Err(FileError::bad(file, line, "row", problem));
    }
    let cell = |column: &str| columns.iter().position(|c| *c == column).map_or("", |i| cells[i]);
    let bad = |column: &str, wanted: &str| {
        let problem = Problem::Value { text: cell(column).to_owned(), wanted: wanted.to_owned() };
        FileError::bad(file, line, column, problem)
    };
    let name = unquote(cells[0]);
    if name.is_empty() {
        return Err(bad("Name", "a kernel's name"));
    }
    let class = Class::ALL
        .iter()
        .find(|(_, code, _)| *code == cell("Profile"))
        .map(|(class, _, _)| *class)
        .ok_or_else(|| bad("Profile", "1 (compute), 0 (memory) or -1 (unknown)"))?;
    let need = whole(cell("SM_usage"), f64::from(1 << 24))
        .ok_or_else(|| bad("SM_usage", "a whole number of SMs, at least 1"))?;
    let duration_ns =
        whole(cell("Duration"), 1e15).ok_or_else(|| bad("Duration", "nanoseconds, at least 1"))?;
    if cell("Memory_footprint").parse::<f64>().is_err() {
        return Err(bad("Memory_footprint", "a number"));
    }
    let need = u32::try_from(need).map_err(|_| bad("SM_usage", "at most 2^24 SMs"))?;
    Ok(KernelRow { name, class, need, duration_ns })
}

/// A number from 1 to `high`, to the nearest whole: some tools print `98.0`.
fn whole(text: &str, high: f64) -> Option<u64> {
    let value = text.parse::<f64>().ok()?.round();
    (value >= 1.0 && value <= high).then_some(value as u64)
}

/// A name without the quotes of CSV, on one line.
fn unquote(cell: &str) -> String {
    let inner = cell.strip_prefix('"').and_then(|c| c.strip_suffix('"'));
    let name = inner.map_or_else(|| cell.to_owned(), |c| c.replace("\"\"", "\""));
    super::one_line(&name)
}
