//! `layers/<model>.csv`: measured times of a generating model's layers on the whole device.
//!
//! One row is one layer of the model at one step. Layers that go by tokens or by sequences fill that
//! column alone; attention fills the sums over the prompts of the step and over the sequences that
//! generate, as [`crate::zoo::decoder::StepShape`] has them.

use std::collections::BTreeMap;
use std::path::Path;

use super::error::{FileError, Problem};
use super::table::{Columns, Row, Table, VERSION};
use super::write::{Measurement, put};
use crate::kernel::Source;
use crate::steps::{LayerTimes, TimedLayer};
use crate::text;
use crate::zoo::decoder::{Decode, Prefill};

const LAYERS: Columns = Columns {
    needed: &["layer", "duration_ns"],
    optional: &[
        "tokens",
        "sequences",
        "prefill_sequences",
        "prefill_tokens",
        "prefill_context",
        "prefill_seen",
        "decode_sequences",
        "decode_context",
    ],
};

/// Most rows of a matrix, and the longest time: far from where sums would overflow.
const MOST: u32 = 1 << 30;
const LONGEST_NS: u64 = 1 << 54;

/// Reads a file of layer times.
///
/// # Errors
/// A file that does not read, with line and field.
pub fn read_layers(path: &Path) -> Result<LayerTimes, FileError> {
    let io = |source| FileError::Io { path: path.to_path_buf(), source };
    let bytes = std::fs::read(path).map_err(io)?;
    let file = path.display().to_string();
    let encoding = |_| FileError::bad(&file, 1, "file", Problem::Encoding);
    let content = String::from_utf8(bytes).map_err(encoding)?;
    let table = Table::parse(&content, &file, LAYERS, true)?;
    let key = |name: &'static str| {
        let missing = || FileError::bad(&file, 1, name, Problem::MissingKey(name));
        table.header.get(name).map(|(_, value)| value.clone()).ok_or_else(missing)
    };
    let mut provenance: BTreeMap<String, String> =
        table.header.iter().map(|(key, (_, value))| (key.clone(), value.clone())).collect();
    let (device, model) = (key("device")?, key("model")?);
    let source = match table.header.get("source") {
        Some((line, name)) => Source::from_name(name).ok_or_else(|| {
            let wanted = "measured, analytic or imported".to_owned();
            FileError::bad(&file, *line, "source", Problem::Value { text: name.clone(), wanted })
        })?,
        None => Source::default(),
    };
    for key in ["device", "model", "source"] {
        provenance.remove(key);
    }
    let mut times = LayerTimes { model, device, source, provenance, ..LayerTimes::default() };
    for row in table.rows() {
        add(&mut times, row)?;
    }
    if times.is_empty() {
        return Err(FileError::bad(&file, 1, "file", Problem::NoRows("timed layer")));
    }
    Ok(times)
}

fn add(times: &mut LayerTimes, row: Row<'_>) -> Result<(), FileError> {
    let name = row.text("layer");
    let layer = TimedLayer::from_name(name).ok_or_else(|| {
        let all = TimedLayer::ALL.map(|(_, n)| n);
        let hint = text::did_you_mean(name, all);
        let wanted = format!("a layer{hint}; known are {}", all.join(", "));
        row.bad("layer", Problem::Value { text: name.to_owned(), wanted })
    })?;
    let ns = row.int("duration_ns", 1, LONGEST_NS)?;
    let twice = |column: &str| row.bad(column, Problem::Duplicate(name.to_owned()));
    if layer != TimedLayer::Attention {
        let column = if layer.by_sequences() { "sequences" } else { "tokens" };
        let rows = row.int(column, 1, MOST)?;
        let known = times.rows.entry(layer).or_default().insert(rows, ns);
        return if known.is_some() { Err(twice(column)) } else { Ok(()) };
    }
    let count = |column: &str| match row.get(column) {
        Some(_) => row.int(column, 0, MOST),
        None => Ok(0),
    };
    let sum = |column: &str| match row.get(column) {
        Some(_) => row.int(column, 0, LONGEST_NS),
        None => Ok(0),
    };
    let prefill = Prefill {
        sequences: count("prefill_sequences")?,
        tokens: count("prefill_tokens")?,
        context: sum("prefill_context")?,
        seen: sum("prefill_seen")?,
    };
    let decode = Decode { sequences: count("decode_sequences")?, context: sum("decode_context")? };
    if prefill.tokens == 0 && decode.sequences == 0 {
        let wanted = "above 0 here or in decode_sequences: attention of something".to_owned();
        return Err(row.bad("prefill_tokens", Problem::Value { text: "0".to_owned(), wanted }));
    }
    match times.attention.insert((prefill, decode), ns) {
        Some(_) => Err(twice("layer")),
        None => Ok(()),
    }
}

/// Writes layer times as `layers/<model>.csv` below a profile folder.
///
/// # Errors
/// The times say `measured` (see [`write_measured_layers`]), a file of that model exists and `replace`
/// is not set, or the system refuses.
pub fn write_layers(dir: &Path, times: &LayerTimes, replace: bool) -> Result<(), FileError> {
    if times.source == Source::Measured {
        return Err(FileError::NotAMeasurement);
    }
    write_file(dir, times, replace)
}

/// As [`write_layers`], for times that have just been measured: the evidence goes into the file, which
/// replaces an existing one.
///
/// # Errors
/// The times do not say `measured`, or those of [`write_layers`].
pub fn write_measured_layers(
    dir: &Path,
    times: &LayerTimes,
    evidence: &Measurement,
) -> Result<(), FileError> {
    if times.source != Source::Measured {
        return Err(FileError::NotAMeasurement);
    }
    let mut times = times.clone();
    times.provenance.extend(evidence.facts().clone());
    write_file(dir, &times, true)
}

fn write_file(dir: &Path, times: &LayerTimes, replace: bool) -> Result<(), FileError> {
    let folder = dir.join("layers");
    let path = folder.join(format!("{}.csv", times.model));
    if path.exists() && !replace {
        let what = format!("layer times of {}", times.model);
        return Err(FileError::Occupied { dir: dir.to_path_buf(), what });
    }
    std::fs::create_dir_all(&folder)
        .map_err(|source| FileError::Io { path: folder.clone(), source })?;
    put(&path, &layers_text(times))
}

/// The text of the file.
#[must_use]
pub fn layers_text(times: &LayerTimes) -> String {
    let source = times.source.name();
    let mut text = format!(
        "{VERSION}\n# device={}\n# source={source}\n# model={}\n",
        times.device, times.model
    );
    for (key, value) in &times.provenance {
        text += &format!("# {key}={}\n", value.trim());
    }
    let columns: Vec<&str> = LAYERS.needed[..1]
        .iter()
        .chain(LAYERS.optional)
        .chain(&LAYERS.needed[1..])
        .copied()
        .collect();
    text += &columns.join(",");
    text.push('\n');
    for (layer, points) in &times.rows {
        for (rows, ns) in points {
            let (tokens, sequences) = if layer.by_sequences() {
                (String::new(), rows.to_string())
            } else {
                (rows.to_string(), String::new())
            };
            text += &format!("{},{tokens},{sequences},,,,,,,{ns}\n", layer.name());
        }
    }
    let name = TimedLayer::Attention.name();
    for ((p, d), ns) in &times.attention {
        text += &format!(
            "{name},,,{},{},{},{},{},{},{ns}\n",
            p.sequences, p.tokens, p.context, p.seen, d.sequences, d.context
        );
    }
    text
}
