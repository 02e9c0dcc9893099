//! Reads a profile folder and checks that its files agree with one another and with the device.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::error::{FileError, Problem};
use super::table::{Columns, Row, Table};
use super::write::{MODEL_NAME, is_model_name};
use crate::Device;
use crate::curve::{Curve, Point};
use crate::drawn::Drawn;
use crate::kernel::{CoRun, Kernel, Launch, Model, Op, Profile, Source};
use crate::text::{self, TomlPlace};
use crate::units::{Bytes, Nanos};

pub(super) const KERNELS: Columns = Columns {
    needed: &[
        "kernel",
        "name",
        "op",
        "grid",
        "block",
        "regs",
        "smem_bytes",
        "blocks_per_cu",
        "flops",
        "dram_bytes",
    ],
    optional: &[],
};
pub(super) const CURVES: Columns = Columns {
    needed: &["kernel", "cus", "duration_ns", "p05_ns", "p95_ns", "samples"],
    optional: &DRAWN,
};
/// What a kernel draws at a point of its curve, where it is known.
pub(super) const DRAWN: [&str; 3] = ["l2_util_pct", "dram_util_pct", "power_w"];
pub(super) const LAUNCHES: Columns =
    Columns { needed: &["batch", "position", "kernel", "host_ns"], optional: &[] };
pub(super) const CORUN: Columns = Columns {
    needed: &[
        "kernel_a",
        "cus_a",
        "kernel_b",
        "cus_b",
        "duration_a_ns",
        "duration_b_ns",
        "samples",
    ],
    optional: &[],
};

/// No launch lasts longer: half a year in nanoseconds, far from where sums would overflow.
const LONGEST_NS: u64 = 1 << 54;

/// `models/<model>.toml`.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ModelFile {
    pub name: String,
    pub weights: Bytes,
    pub activations_per_item: Bytes,
    pub input_per_item: Bytes,
    pub output_per_item: Bytes,
    pub load: Nanos,
    pub host_per_request: Nanos,
}

/// Reads the profile in `dir`. CU counts are checked against the device that the files name, if
/// it is built in.
///
/// # Errors
/// A file that is missing, does not read, or contradicts another one.
pub fn read(dir: &Path) -> Result<Profile, FileError> {
    read_checked(dir, None, None)
}

/// Reads the profile in `dir`, which must be one of `device`.
///
/// # Errors
/// As [`read`], and a profile of another device or with more CUs than this one has.
pub fn read_for(dir: &Path, device: &Device) -> Result<Profile, FileError> {
    read_checked(dir, Some(device), None)
}

/// As [`read_for`], of all models only `model`.
pub(super) fn read_model(dir: &Path, device: &Device, model: &str) -> Result<Profile, FileError> {
    read_checked(dir, Some(device), Some(model))
}

fn read_checked(
    dir: &Path,
    device: Option<&Device>,
    only: Option<&str>,
) -> Result<Profile, FileError> {
    let kernels = load(&dir.join("kernels.csv"), KERNELS)?;
    let (name, source) = identity(&kernels)?;
    let builtin = Device::builtin(&name).ok();
    let device = device.or(builtin.as_ref());
    if let Some(device) = device.filter(|d| d.name != name) {
        let line = kernels.header["device"].0;
        let problem = Problem::Disagrees {
            found: name,
            expected: device.name.clone(),
            other: "the device asked for".to_owned(),
        };
        return Err(FileError::bad(&kernels.file, line, "device", problem));
    }
    let curves = load(&dir.join("curves.csv"), CURVES)?;
    agree(&curves, &kernels)?;
    let mut profile = Profile {
        device: name,
        source,
        provenance: kernels
            .header
            .iter()
            .filter(|(key, _)| !["device", "source"].contains(&key.as_str()))
            .map(|(key, (_, value))| (key.clone(), value.clone()))
            .collect(),
        kernels: read_kernels(&kernels, &curves, device)?,
        models: BTreeMap::new(),
        corun: Vec::new(),
    };
    let index = index_of(&profile);
    for model in model_names(dir)? {
        if only.is_none_or(|o| o == model) {
            let read = read_one_model(dir, &model, &kernels, &index)?;
            profile.models.insert(model, read);
        }
    }
    let corun = dir.join("corun.csv");
    if corun.exists() {
        let table = load(&corun, CORUN)?;
        agree(&table, &kernels)?;
        profile.corun =
            table.rows().map(|row| read_corun(row, &index, device)).collect::<Result<_, _>>()?;
    }
    Ok(profile)
}

fn index_of(profile: &Profile) -> BTreeMap<String, usize> {
    profile.kernels.iter().enumerate().map(|(i, k)| (k.id.clone(), i)).collect()
}

pub(super) fn load(path: &Path, columns: Columns) -> Result<Table, FileError> {
    Table::parse(&load_text(path)?, &path.display().to_string(), columns, true)
}

pub(super) fn load_text(path: &Path) -> Result<String, FileError> {
    let io = |source| FileError::Io { path: path.to_path_buf(), source };
    let bytes = std::fs::read(path).map_err(io)?;
    String::from_utf8(bytes)
        .map_err(|_| FileError::bad(&path.display().to_string(), 1, "file", Problem::Encoding))
}

/// Names of the models in `dir`, sorted.
fn model_names(dir: &Path) -> Result<Vec<String>, FileError> {
    let models = dir.join("models");
    let io = |source| FileError::Io { path: models.clone(), source };
    let mut names = Vec::new();
    if models.exists() {
        for entry in std::fs::read_dir(&models).map_err(io)? {
            let path: PathBuf = entry.map_err(io)?.path();
            if path.extension().is_some_and(|e| e == "csv") {
                let stem = path.file_stem().unwrap_or_default().to_string_lossy();
                if !is_model_name(&stem) {
                    let text = stem.into_owned();
                    let problem = Problem::Value { text, wanted: MODEL_NAME.to_owned() };
                    let file = path.display().to_string();
                    return Err(FileError::bad(&file, 1, "the file's name", problem));
                }
                names.push(stem.into_owned());
            }
        }
    }
    names.sort();
    Ok(names)
}

/// Device and source of a file.
pub(super) fn identity(table: &Table) -> Result<(String, Source), FileError> {
    let key = |key: &'static str| {
        table
            .header
            .get(key)
            .filter(|(_, value)| !value.is_empty())
            .ok_or_else(|| FileError::bad(&table.file, 1, key, Problem::MissingKey(key)))
    };
    let (_, device) = key("device")?;
    let (line, source) = key("source")?;
    let known = [Source::Measured, Source::Analytic, Source::Imported];
    let source = known.into_iter().find(|s| s.name() == source).ok_or_else(|| {
        let wanted = "`measured`, `analytic` or `imported`".to_owned();
        let problem = Problem::Value { text: source.clone(), wanted };
        FileError::bad(&table.file, *line, "source", problem)
    })?;
    Ok((device.clone(), source))
}

/// Checks that `table` is of the same device and source as kernels.csv.
pub(super) fn agree(table: &Table, kernels: &Table) -> Result<(), FileError> {
    identity(table)?;
    for key in ["device", "source"] {
        let ((line, found), (_, expected)) = (&table.header[key], &kernels.header[key]);
        if found != expected {
            let problem = Problem::Disagrees {
                found: found.clone(),
                expected: expected.clone(),
                other: "kernels.csv".to_owned(),
            };
            return Err(FileError::bad(&table.file, *line, key, problem));
        }
    }
    Ok(())
}

fn read_kernels(
    kernels: &Table,
    curves: &Table,
    device: Option<&Device>,
) -> Result<Vec<Kernel>, FileError> {
    let mut ids = BTreeSet::new();
    for row in kernels.rows() {
        let id = row.text("kernel");
        if !ids.insert(id) {
            return Err(row.bad("kernel", Problem::Duplicate(id.to_owned())));
        }
    }
    let mut known = curves_of(curves, &ids, device)?;
    let curve_of = |row: Row<'_>| {
        let id = row.text("kernel");
        let curve =
            known.remove(id).ok_or_else(|| row.bad("kernel", Problem::NoCurve(id.to_owned())))?;
        read_kernel(row, curve)
    };
    kernels.rows().map(curve_of).collect()
}

/// The curves of a table, by kernel: those of `ids` alone.
pub(super) fn curves_of(
    table: &Table,
    ids: &BTreeSet<&str>,
    device: Option<&Device>,
) -> Result<BTreeMap<String, Curve>, FileError> {
    let mut points: BTreeMap<&str, (Row<'_>, BTreeMap<u32, Point>)> = BTreeMap::new();
    let mut drawn: BTreeMap<&str, Vec<Drawn>> = BTreeMap::new();
    for row in table.rows() {
        let id = row.text("kernel");
        if !ids.contains(id) {
            return Err(unknown_kernel(row, "kernel", id, ids.iter().copied()));
        }
        let point = read_point(row, device)?;
        let of = points.entry(id).or_insert_with(|| (row, BTreeMap::new()));
        if of.1.insert(point.cus, point).is_some() {
            let what = format!("{id} on {} CUs", point.cus);
            return Err(row.bad("cus", Problem::Duplicate(what)));
        }
        if let Some(seen) = read_drawn(row, point.cus)? {
            drawn.entry(id).or_default().push(seen);
        }
    }
    let curve = |(id, (row, points)): (&str, (Row<'_>, BTreeMap<u32, Point>))| {
        let curve = Curve::new(points.into_values().collect())
            .map_err(|e| row.bad("kernel", Problem::Curve(e)))?;
        Ok((id.to_owned(), curve.with_drawn(drawn.remove(id).unwrap_or_default())))
    };
    points.into_iter().map(curve).collect()
}

fn read_drawn(row: Row<'_>, cus: u32) -> Result<Option<Drawn>, FileError> {
    let [l2, dram, watts] = DRAWN;
    let number = |column: &str, high: f64| match row.get(column) {
        // 0 itself is what `decimal` leaves out.
        Some(text) if text.parse() == Ok(0.0) => Ok(Some(0.0)),
        Some(_) => row.decimal(column, 0.0, high).map(Some),
        None => Ok(None),
    };
    let part = |column: &str| number(column, 100.0).map(|x| x.map(|percent| percent / 100.0));
    let seen = Drawn::new(cus, part(l2)?, part(dram)?, number(watts, 1e5)?);
    Ok(Some(seen).filter(|d| *d != Drawn { cus, ..Drawn::default() }))
}

fn read_kernel(row: Row<'_>, curve: Curve) -> Result<Kernel, FileError> {
    let name = |column: &str| {
        let text = row.text(column);
        let wanted = || "a name".to_owned();
        if text.is_empty() {
            Err(row.bad(column, Problem::Value { text: String::new(), wanted: wanted() }))
        } else {
            Ok(text.to_owned())
        }
    };
    let op = row.text("op");
    Ok(Kernel {
        id: name("kernel")?,
        name: name("name")?,
        op: Op::from_name(op).ok_or_else(|| {
            let known = || Op::ALL.iter().map(|(_, name)| *name);
            let hint = text::did_you_mean(op, known());
            let wanted =
                format!("an operation{hint}; known are {}", known().collect::<Vec<_>>().join(", "));
            row.bad("op", Problem::Value { text: op.to_owned(), wanted })
        })?,
        grid: read_grid(row)?,
        block: row.int("block", 0, 1 << 16)?,
        regs: row.int("regs", 0, 1 << 16)?,
        smem_bytes: row.int("smem_bytes", 0, u32::MAX)?,
        blocks_per_cu: row.int("blocks_per_cu", 1, 1 << 16)?,
        flops: row.int("flops", 0, u64::MAX)?,
        dram_bytes: row.int("dram_bytes", 0, u64::MAX)?,
        curve,
    })
}

/// `XxYxZ`, `XxY` or a plain number of blocks.
fn read_grid(row: Row<'_>) -> Result<[u32; 3], FileError> {
    let text = row.text("grid");
    let mut grid = [1u32; 3];
    let parts: Vec<&str> = text.split('x').collect();
    let right = parts.len() <= 3
        && parts.iter().zip(&mut grid).all(|(part, n)| match part.trim().parse() {
            Ok(blocks) if blocks > 0 => {
                *n = blocks;
                true
            }
            _ => false,
        })
        // The product is a number of blocks: 2^64 of them is not a launch.
        && grid.iter().try_fold(1u64, |all, &n| all.checked_mul(n.into())).is_some();
    if right {
        return Ok(grid);
    }
    let wanted = "a grid such as `128x1x1`, or a number of blocks".to_owned();
    Err(row.bad("grid", Problem::Value { text: text.to_owned(), wanted }))
}

fn read_cus(row: Row<'_>, column: &str, device: Option<&Device>) -> Result<u32, FileError> {
    let cus = row.int(column, 1, u32::MAX)?;
    match device {
        Some(d) if cus > d.cus() => {
            Err(row.bad(column, Problem::TooManyCus { cus, device: d.name.clone(), has: d.cus() }))
        }
        _ => Ok(cus),
    }
}

fn read_point(row: Row<'_>, device: Option<&Device>) -> Result<Point, FileError> {
    let duration_ns = row.int("duration_ns", 1, LONGEST_NS)?;
    Ok(Point {
        cus: read_cus(row, "cus", device)?,
        duration_ns,
        p05_ns: row.int("p05_ns", 1, duration_ns)?,
        p95_ns: row.int("p95_ns", duration_ns, LONGEST_NS)?,
        samples: row.int("samples", 0, u32::MAX)?,
    })
}

fn unknown_kernel<'a>(
    row: Row<'_>,
    column: &str,
    name: &str,
    known: impl IntoIterator<Item = &'a str>,
) -> FileError {
    let hint = text::did_you_mean(name, known);
    row.bad(column, Problem::UnknownKernel { name: name.to_owned(), hint })
}

fn kernel_index(
    row: Row<'_>,
    column: &str,
    index: &BTreeMap<String, usize>,
) -> Result<usize, FileError> {
    let name = row.text(column);
    index
        .get(name)
        .copied()
        .ok_or_else(|| unknown_kernel(row, column, name, index.keys().map(String::as_str)))
}

fn read_corun(
    row: Row<'_>,
    index: &BTreeMap<String, usize>,
    device: Option<&Device>,
) -> Result<CoRun, FileError> {
    Ok(CoRun {
        a: (kernel_index(row, "kernel_a", index)?, read_cus(row, "cus_a", device)?),
        b: (kernel_index(row, "kernel_b", index)?, read_cus(row, "cus_b", device)?),
        duration_a_ns: row.int("duration_a_ns", 1, LONGEST_NS)?,
        duration_b_ns: row.int("duration_b_ns", 1, LONGEST_NS)?,
        samples: row.int("samples", 0, u32::MAX)?,
    })
}

fn read_one_model(
    dir: &Path,
    name: &str,
    kernels: &Table,
    index: &BTreeMap<String, usize>,
) -> Result<Model, FileError> {
    let launches = load(&dir.join("models").join(format!("{name}.csv")), LAUNCHES)?;
    agree(&launches, kernels)?;
    let batches = read_batches(&launches, index)?;
    let path = dir.join("models").join(format!("{name}.toml"));
    let (text, file) = (load_text(&path)?, path.display().to_string());
    let model: ModelFile = toml::from_str(&text).map_err(|e| {
        let place = TomlPlace::of(&text, &e);
        FileError::bad(&file, place.line, &place.field, Problem::Toml(place.message))
    })?;
    if model.name != name {
        let problem = Problem::Disagrees {
            found: model.name,
            expected: name.to_owned(),
            other: "the file's name".to_owned(),
        };
        return Err(FileError::bad(&file, text::toml_line(&text, "name"), "name", problem));
    }
    Ok(Model {
        name: model.name,
        weights: model.weights,
        activations_per_item: model.activations_per_item,
        input_per_item: model.input_per_item,
        output_per_item: model.output_per_item,
        load: model.load,
        host_per_request: model.host_per_request,
        batches,
    })
}

fn read_batches(
    launches: &Table,
    index: &BTreeMap<String, usize>,
) -> Result<BTreeMap<u32, Vec<Launch>>, FileError> {
    let mut rows: BTreeMap<(u32, u32), (Row<'_>, Launch)> = BTreeMap::new();
    for row in launches.rows() {
        let (batch, position) = (row.int("batch", 1, u32::MAX)?, row.int("position", 0, u32::MAX)?);
        let launch = Launch {
            kernel: kernel_index(row, "kernel", index)?,
            host: Nanos(row.int("host_ns", 0, LONGEST_NS)?),
        };
        if rows.insert((batch, position), (row, launch)).is_some() {
            let what = format!("batch {batch}, position {position}");
            return Err(row.bad("position", Problem::Duplicate(what)));
        }
    }
    let mut batches: BTreeMap<u32, Vec<Launch>> = BTreeMap::new();
    for ((batch, found), (row, launch)) in rows {
        let stream = batches.entry(batch).or_default();
        if found as usize != stream.len() {
            let expected = u32::try_from(stream.len()).unwrap_or(u32::MAX);
            return Err(row.bad("position", Problem::Position { batch, found, expected }));
        }
        stream.push(launch);
    }
    if batches.is_empty() {
        return Err(FileError::bad(&launches.file, 1, "file", Problem::NoRows("launch")));
    }
    Ok(batches)
}
