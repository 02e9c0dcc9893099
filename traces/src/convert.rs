//! Whole jobs on trace files: convert, generate, describe.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;

use cotenant_profiles::Nanos;
use sha2::{Digest, Sha256};

use crate::error::TraceError;
use crate::format::ReadOptions;
use crate::io;
use crate::read;
use crate::row::{Columns, Counts, Meta, NAME_RULE, Row, Stream, is_name};
use crate::spec::{ArrivalSpec, Process};
use crate::stats::{self, Stats};
use crate::transform::{self, Transform};
use crate::writer::Writer;

/// The fate of the rows of a conversion: `rows_in` = `rows_out` + everything in `dropped`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConversionReport {
    /// The format that was read.
    pub format: &'static str,
    /// Requests that were read, expanded from counts, or added by a transform.
    pub rows_in: u64,
    /// Requests in the output.
    pub rows_out: u64,
    /// Requests left out, by reason.
    pub dropped: BTreeMap<String, u64>,
    /// Requests that transforms added, by transform; they are part of `rows_in`.
    pub added: BTreeMap<String, u64>,
    /// What a user should know about the data.
    pub warnings: Vec<String>,
}

/// Converts a trace in any format to a canonical one.
///
/// Without `format` the format is told from the file's beginning. `transforms` are applied in
/// order; `sort` in first place also orders foreign files whose rows are not in time order.
///
/// # Errors
/// What is wrong with the input, a transform or the output file. Nothing is written then.
pub fn convert(
    format: Option<&str>,
    input: &Path,
    output: &Path,
    transforms: &[Transform],
    options: &ReadOptions,
) -> Result<ConversionReport, TraceError> {
    let format = match format {
        Some(name) => read::find(name)?,
        None => read::sniff(input)?,
    };
    let mut options = options.clone();
    options.sort |= transforms.first().is_some_and(Transform::is_sort);
    let mut stream = read::open(input, Some(format.name), &options)?;
    note_source(&mut stream, input, format.name)?;
    let mut stream = transform::apply(stream, transforms, options.seed)?;
    let (counts, rows_out) = write(&mut stream, output)?;
    let Counts { rows_in, dropped, added, warnings } = counts;
    Ok(ConversionReport { format: format.name, rows_in, rows_out, dropped, added, warnings })
}

/// Keeps a canonical file's own accounting as `earlier`, and names any other file by its digest.
fn note_source(stream: &mut Stream, input: &Path, format: &str) -> Result<(), TraceError> {
    if format != "canonical" {
        if input.is_file() {
            let at = stream.meta.0.iter().position(|(key, _)| key == "format").unwrap_or(0);
            let digest = ("source_sha256".to_owned(), sha256(input)?);
            stream.meta.0.insert(at, digest);
        }
        return Ok(());
    }
    let earlier: Vec<String> = ["rows_in", "added", "dropped"]
        .iter()
        .filter_map(|key| stream.meta.get(key).map(|value| format!("{key}:{value}")))
        .collect();
    stream.meta.0.retain(|(key, _)| {
        !matches!(key.as_str(), "rows_in" | "added" | "dropped" | "duration_ns")
    });
    if !earlier.is_empty() {
        stream.meta.push("earlier", earlier.join(" "));
    }
    Ok(())
}

fn sha256(path: &Path) -> Result<String, TraceError> {
    let fail = |cause| TraceError::io(&io::name_of(path), cause);
    let mut file = std::fs::File::open(path).map_err(fail)?;
    let (mut hasher, mut buffer) = (Sha256::new(), vec![0; 1 << 16]);
    loop {
        match file.read(&mut buffer).map_err(fail)? {
            0 => break,
            n => hasher.update(&buffer[..n]),
        }
    }
    Ok(format!("{:x}", hasher.finalize()))
}

/// Writes a stream to a file and returns the accounting and the number of rows.
fn write(stream: &mut Stream, output: &Path) -> Result<(Counts, u64), TraceError> {
    let mut writer = Writer::create(output, &stream.columns)?;
    while let Some(row) = stream.rows.next_row()? {
        writer.write(&row)?;
    }
    let counts = stream.tally.counts();
    let duration = stream.rows.duration().unwrap_or(Nanos::ZERO);
    let rows = writer.finish(&stream.meta, &counts, duration)?;
    Ok((counts, rows))
}

/// Describes a trace in any format.
///
/// # Errors
/// What is wrong with the trace.
pub fn stats(
    format: Option<&str>,
    input: &Path,
    transforms: &[Transform],
    options: &ReadOptions,
) -> Result<Stats, TraceError> {
    let mut options = options.clone();
    options.sort |= transforms.first().is_some_and(Transform::is_sort);
    let stream = read::open(input, format, &options)?;
    stats::of(&mut transform::apply(stream, transforms, options.seed)?)
}

/// Writes the open-loop arrivals of one tenant as a trace and returns their number.
///
/// # Errors
/// A wrong specification or name, a closed loop, or a file that cannot be written.
pub fn generate(
    spec: &ArrivalSpec,
    base_dir: &Path,
    tenant: &str,
    model: &str,
    duration: Nanos,
    seed: u64,
    output: &Path,
) -> Result<u64, TraceError> {
    for (field, name) in [("tenant", tenant), ("model", model)] {
        if !is_name(name) {
            return Err(TraceError::spec(field, format!("`{name}` is not {NAME_RULE}")));
        }
    }
    let mut arrivals = spec.open(base_dir, seed, tenant)?;
    // Only a file can say more about a request than its arrival and its number of items.
    let file = matches!(spec.process, Process::Trace(_) | Process::Counts(_));
    let (slo, prio, work, tokens) = (file, file, file, file || spec.tokens.is_some());
    let columns = Columns { items: true, slo, prio, work, tokens, ..Columns::default() };
    let mut writer = Writer::create(output, &columns)?;
    let (tenant, model): (Arc<str>, Arc<str>) = (Arc::from(tenant), Arc::from(model));
    let mut counts = Counts::default();
    while let Some(request) = arrivals.next_request().filter(|r| r.arrival < duration) {
        let mut row = Row::new(request.arrival, Arc::clone(&tenant), Arc::clone(&model));
        (row.items, row.slo, row.prio) = (request.items, request.slo, request.prio);
        row.work = request.work;
        let tokens = |n: u32| (n > 0 || spec.tokens.is_some()).then_some(n);
        (row.tokens_in, row.tokens_out) = (tokens(request.tokens_in), tokens(request.tokens_out));
        writer.write(&row)?;
        counts.rows_in += 1;
    }
    let mut meta = Meta::default();
    meta.push("source", format!("generated by cotenant {}", env!("CARGO_PKG_VERSION")));
    let text = serde_json::to_string(spec).unwrap_or_else(|_| spec.kind().to_owned());
    meta.push("arrivals", text);
    meta.push("seed", seed.to_string());
    writer.finish(&meta, &counts, duration)
}
