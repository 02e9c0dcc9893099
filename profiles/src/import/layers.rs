//! Layer tables of LLM serving simulators: LLMServingSim's `dense.csv`, `per_sequence.csv` and
//! `attention.csv` (github.com/casys-kaist/LLMServingSim, `profiler/perf`), which time one layer of a
//! decoder by its tokens, sequences and contexts.

use std::collections::BTreeMap;

use super::{ImportError, Input};
use crate::Device;
use crate::files::table::{Columns, Row, Table};
use crate::files::{FileError, Problem};
use crate::steps::{LayerTimes, TimedLayer};
use crate::zoo::decoder::StepShape;

const DENSE: Columns = Columns { needed: &["layer", "tokens", "time_us"], optional: &[] };
const PER_SEQUENCE: Columns = Columns { needed: &["layer", "sequences", "time_us"], optional: &[] };
const ATTENTION: Columns = Columns {
    needed: &["prefill_chunk", "kv_prefill", "n_decode", "kv_decode", "time_us"],
    optional: &[],
};

/// Largest count, and longest time in µs, that a table may hold.
const MOST: u32 = 1 << 24;
const LONGEST_US: f64 = 1e9;

/// Imported layer times, and what became of every row.
#[derive(Clone, Debug, PartialEq)]
pub struct LayerImport {
    /// The times.
    pub times: LayerTimes,
    /// Rows read.
    pub rows_in: usize,
    /// Rows that became a time.
    pub rows_used: usize,
    /// The other rows, by reason.
    pub dropped: BTreeMap<String, usize>,
}

/// Layer times from LLMServingSim's tables, told apart by their columns. `facts`: what is known of
/// their origin.
///
/// In its attention table a context counts what is in the cache before the step: `kv_decode` tokens of
/// each of `n_decode` sequences, `kv_prefill` tokens before a chunk.
///
/// # Errors
/// A table of other columns, a cell that does not read, or no row at all.
pub fn llmservingsim(
    inputs: &[Input<'_>],
    device: &Device,
    model: &str,
    facts: &[(&str, String)],
) -> Result<LayerImport, ImportError> {
    let mut times = LayerTimes {
        model: model.to_owned(),
        device: device.name.clone(),
        provenance: facts.iter().map(|(k, v)| ((*k).to_owned(), super::one_line(v))).collect(),
        ..LayerTimes::default()
    };
    times.provenance.insert("tool".to_owned(), "llmservingsim layer tables".to_owned());
    let mut dropped = BTreeMap::new();
    let (mut rows_in, mut rows_used) = (0, 0);
    for input in inputs {
        let columns = columns_of(input)?;
        let table = Table::parse(input.text, input.file, columns, false)?;
        for row in table.rows() {
            rows_in += 1;
            let ns = (row.decimal("time_us", 0.0, LONGEST_US)? * 1e3).round().max(1.0) as u64;
            let known = if columns.needed == ATTENTION.needed {
                add_attention(&mut times, row, ns)?
            } else {
                let by = columns.needed[1];
                let name = row.text("layer");
                let Some(layer) = TimedLayer::from_name(name) else {
                    *dropped.entry(format!("of layer {name}, which is not scaled")).or_insert(0) +=
                        1;
                    continue;
                };
                if layer.by_sequences() != (by == "sequences") {
                    let problem = Problem::Value {
                        text: name.to_owned(),
                        wanted: format!("a layer whose time goes by {by}"),
                    };
                    return Err(row.bad("layer", problem));
                }
                let rows = row.int(by, 1, MOST)?;
                times.rows.entry(layer).or_default().insert(rows, ns).is_some()
            };
            if known {
                let problem = Problem::Duplicate("the same point".to_owned());
                return Err(row.bad(columns.needed[0], problem));
            }
            rows_used += 1;
        }
    }
    if times.is_empty() {
        let file = inputs.first().map_or("", |i| i.file);
        return Err(FileError::bad(file, 1, "file", Problem::NoRows("timed layer")));
    }
    Ok(LayerImport { times, rows_in, rows_used, dropped })
}

/// Which of the three tables an input is.
fn columns_of(input: &Input<'_>) -> Result<Columns, ImportError> {
    let header = input.text.lines().next().unwrap_or_default();
    let has = |name: &str| header.split(',').any(|c| c.trim() == name);
    let all = [ATTENTION, PER_SEQUENCE, DENSE];
    let known = all.into_iter().find(|c| c.needed[..2].iter().all(|n| has(n)));
    known.ok_or_else(|| {
        let tables = all.map(|c| c.needed.join(","));
        let wanted = format!("the header of a layer table: {}", tables.join(" or "));
        let text = header.chars().take(60).collect();
        FileError::bad(input.file, 1, "file", Problem::Value { text, wanted })
    })
}

/// Adds a point of attention; whether it was there already.
fn add_attention(times: &mut LayerTimes, row: Row<'_>, ns: u64) -> Result<bool, ImportError> {
    let count = |column| row.int(column, 0, MOST);
    let [chunk, before] = [count("prefill_chunk")?, count("kv_prefill")?];
    let [sequences, each] = [count("n_decode")?, count("kv_decode")?];
    if chunk == 0 && sequences == 0 {
        let problem = Problem::Value {
            text: "0".to_owned(),
            wanted: "above 0 here or in n_decode".to_owned(),
        };
        return Err(row.bad("prefill_chunk", problem));
    }
    let mut shape = StepShape::default();
    if chunk > 0 {
        shape.add_prefill(chunk, before + chunk);
    }
    shape.decode.sequences = sequences;
    shape.decode.context = u64::from(sequences) * (u64::from(each) + 1);
    Ok(times.attention.insert((shape.prefill, shape.decode), ns).is_some())
}
