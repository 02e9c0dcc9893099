//! Whole-model latencies as serving tools write them, brought into the columns of [`table()`](super::table()):
//! Triton's perf_analyzer and Model Analyzer, and what pandas makes of a table.

use std::borrow::Cow;

use super::{Import, ImportError, Input};
use crate::Device;
use crate::files::{FileError, MODEL_NAME, Problem, is_model_name};
use crate::units::Nanos;

/// What these files do not say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WholeOptions {
    /// Name of the model.
    pub model: Option<String>,
    /// Items of one request or iteration.
    pub batch: u32,
    /// Host time of one launch, in place of what the file shows.
    pub launch: Option<Nanos>,
}

pub(super) fn bad(file: &str, line: usize, field: &str, text: &str, wanted: &str) -> ImportError {
    let problem = Problem::Value { text: text.to_owned(), wanted: wanted.to_owned() };
    FileError::bad(file, line, field, problem)
}

/// One model's latency on the whole GPU, ns.
pub(super) struct Latency {
    pub model: String,
    pub batch: u32,
    pub compute: u64,
    /// What the host adds before the GPU has all of it.
    pub host: u64,
    /// Copies in and out, ns.
    pub copies: [u64; 2],
}

pub(super) fn import(
    input: &Input<'_>,
    device: &Device,
    tool: &str,
    found: &[Latency],
    rows: usize,
    notes: Vec<String>,
) -> Result<Import, ImportError> {
    let mut text = String::from("model,batch,share_pct,latency_ms\n");
    for one in found {
        if !is_model_name(&one.model) {
            return Err(bad(input.file, 1, "model", &one.model, MODEL_NAME));
        }
        if one.compute == 0 {
            let wanted = "a time of the GPU; of an ensemble, measure the models that it calls";
            return Err(bad(input.file, 1, "latency", "0 in the row taken", wanted));
        }
        text += &format!("{},{},100,{}\n", one.model, one.batch, one.compute as f64 / 1e6);
    }
    let mut import = super::table(
        &Input { file: input.file, text: &text },
        device,
        &super::TableOptions::default(),
    )?;
    for one in found {
        let Some(model) = import.profile.models.get_mut(&one.model) else { continue };
        let rates = [device.pcie.h2d_gbps, device.pcie.d2h_gbps];
        let bytes = [0, 1].map(|i| (one.copies[i] as f64 * rates[i]) as u64 / u64::from(one.batch));
        model.input_per_item.0 = model.input_per_item.0.max(bytes[0]);
        model.output_per_item.0 = model.output_per_item.0.max(bytes[1]);
        if let Some(first) = model.batches.get_mut(&one.batch).and_then(|l| l.first_mut()) {
            first.host = Nanos(one.host);
        }
    }
    let facts = [
        ("tool", tool.to_owned()),
        ("host_ns", "as recorded, before the launch".to_owned()),
        ("rows_in", rows.to_string()),
        ("rows_used", found.len().to_string()),
    ];
    import.profile.provenance.extend(facts.map(|(k, v)| (k.to_owned(), v)));
    (import.rows_in, import.rows_used) = (rows, found.len());
    if rows > found.len() {
        import
            .dropped
            .insert("other load levels and iterations than the one taken", rows - found.len());
    }
    import.notes.extend(notes);
    import.warnings.push(
        "one point per model, on the whole GPU: smaller shares are extrapolated; measure them for \
         numbers to rely on"
            .to_owned(),
    );
    Ok(import)
}

/// Cells of a CSV by column names in lower case, with line numbers.
struct Cells {
    columns: Vec<String>,
    rows: Vec<(usize, csv::StringRecord)>,
}

impl Cells {
    fn of(input: &Input<'_>) -> Result<Self, ImportError> {
        let text = input.text.trim_start_matches('\u{feff}');
        let mut reader = csv::ReaderBuilder::new()
            .has_headers(false)
            .flexible(true)
            .trim(csv::Trim::All)
            .from_reader(text.as_bytes());
        let mut all = reader
            .records()
            .filter_map(Result::ok)
            .map(|r| (r.position().map_or(1, |p| usize::try_from(p.line()).unwrap_or(1)), r));
        let (_, header) = all
            .next()
            .ok_or_else(|| FileError::bad(input.file, 1, "file", Problem::NoRows("row")))?;
        let columns = header.iter().map(str::to_lowercase).collect();
        Ok(Self { columns, rows: all.collect() })
    }

    fn column(&self, is: impl Fn(&str) -> bool) -> Option<usize> {
        self.columns.iter().position(|c| is(c))
    }
}

fn number(row: &csv::StringRecord, column: Option<usize>) -> Option<f64> {
    let text = row.get(column?)?.trim_end_matches('%');
    text.parse().ok().filter(|x: &f64| x.is_finite() && *x >= 0.0)
}

/// Imports the CSV of perf_analyzer (`-f FILE`): the row of least load, since the others wait in
/// queues. Its times are microseconds; the model's own part is `Server Compute Infer`.
///
/// # Errors
/// No model name, a column that is missing, a cell that does not read, or no row.
pub fn perf_analyzer(
    input: &Input<'_>,
    device: &Device,
    options: &WholeOptions,
) -> Result<Import, ImportError> {
    let cells = Cells::of(input)?;
    let model_column = cells.column(|c| c == "model" || c == "model_name");
    if model_column.is_some() {
        return model_analyzer(input, device, options, &cells, model_column);
    }
    let load = cells.column(|c| c == "concurrency" || c == "request rate");
    let infer = cells.column(|c| c == "server compute infer");
    let (Some(_), Some(_)) = (load, infer) else {
        let wanted = "the CSV of perf_analyzer, with `Concurrency` or `Request Rate` and `Server \
                      Compute Infer`, or metrics-model-inference.csv of Model Analyzer";
        return Err(bad(input.file, 1, "file", "a header without them", wanted));
    };
    let model = named(input, options)?;
    let least = cells.rows.iter().min_by(|a, b| {
        let at = |r: &csv::StringRecord| number(r, load).unwrap_or(f64::INFINITY);
        at(&a.1).total_cmp(&at(&b.1))
    });
    let Some((line, row)) = least else {
        return Err(FileError::bad(input.file, 1, "file", Problem::NoRows("load level")));
    };
    let micros = |name: &str| {
        let column = cells.column(|c| c == name);
        match (column, number(row, column)) {
            (None, _) => Ok(0),
            (Some(_), Some(us)) => Ok((us * 1e3) as u64),
            (Some(c), None) => {
                let text = row.get(c).unwrap_or("nothing");
                Err(bad(input.file, *line, name, text, "microseconds"))
            }
        }
    };
    let one = Latency {
        model,
        batch: options.batch,
        compute: micros("server compute infer")?,
        host: options.launch.map_or(0, |l| l.0),
        copies: [micros("server compute input")?, micros("server compute output")?],
    };
    let at = row.get(load.unwrap_or(0)).unwrap_or("");
    let note =
        format!("taken: the row of the least load, {} {at}", cells.columns[load.unwrap_or(0)]);
    import(input, device, "Triton perf_analyzer", &[one], cells.rows.len(), vec![note])
}

/// metrics-model-inference.csv: for each model and batch, the row of one instance and least load.
fn model_analyzer(
    input: &Input<'_>,
    device: &Device,
    options: &WholeOptions,
    cells: &Cells,
    model: Option<usize>,
) -> Result<Import, ImportError> {
    let batch = cells.column(|c| c == "batch" || c == "batch_size");
    let load = cells.column(|c| c == "concurrency" || c == "request rate" || c == "request_rate");
    let throughput = cells.column(|c| c.starts_with("throughput") || c == "perf_throughput");
    let usual = ["avg latency", "perf_latency_avg", "p50 latency", "perf_latency_p50"];
    let usual = usual.iter().find_map(|n| cells.column(|c| c.starts_with(n)));
    // A tail is more than what a request takes: only where nothing else is said.
    let latency = usual.or_else(|| cells.column(|c| c.contains("latency")));
    if throughput.is_none() && latency.is_none() {
        let wanted = "metrics-model-inference.csv, with a throughput or a latency";
        return Err(bad(input.file, 1, "file", "a header without them", wanted));
    }
    let closed = load.is_none_or(|c| cells.columns[c] == "concurrency");
    let instances = cells.column(|c| c.contains("instance"));
    // `1:GPU`, `2/GPU`
    let alone = |r: &csv::StringRecord| {
        instances.and_then(|c| r.get(c)).is_none_or(|t| t.starts_with('1') || t.is_empty())
    };
    let mut best: std::collections::BTreeMap<(String, u32), (f64, u64)> = Default::default();
    for (line, row) in cells.rows.iter().filter(|(_, r)| alone(r)) {
        let name = model.and_then(|c| row.get(c)).unwrap_or("").to_owned();
        let items = number(row, batch).map_or(options.batch, |b| b as u32).max(1);
        let level = number(row, load).unwrap_or(1.0).max(1.0);
        // At this load, so many requests are under way: Little's law. A rate of requests says nothing of
        // how many those are.
        let by_rate = number(row, throughput).filter(|t| *t > 0.0 && closed);
        let by_rate = by_rate.map(|t| level * f64::from(items) / t * 1e3);
        let ms = number(row, usual).or(by_rate).or_else(|| number(row, latency));
        let Some(ms) = ms.filter(|ms| *ms > 0.0 && *ms < 3.6e6) else {
            return Err(bad(input.file, *line, "latency", "nothing", "milliseconds"));
        };
        let ns = (ms * 1e6) as u64;
        let kept = best.entry((name, items)).or_insert((level, ns));
        if level < kept.0 {
            *kept = (level, ns);
        }
    }
    let found: Vec<Latency> = best
        .into_iter()
        .map(|((model, batch), (_, compute))| {
            let host = options.launch.map_or(0, |l| l.0);
            Latency { model, batch, compute, host, copies: [0, 0] }
        })
        .collect();
    let note =
        "taken: the row of one instance and the least load, for each model and batch".to_owned();
    import(input, device, "Triton Model Analyzer", &found, cells.rows.len(), vec![note])
}

pub(super) fn named(input: &Input<'_>, options: &WholeOptions) -> Result<String, ImportError> {
    let none =
        || bad(input.file, 1, "model", "nothing", "given by this file: name it with --model");
    options.model.clone().ok_or_else(none)
}

/// A table as pandas writes it, in the plain form: without the column of row numbers, `1.0` as 1 where
/// whole numbers belong, `10%` as 10.
pub(super) fn plain(text: &str) -> Cow<'_, str> {
    let header = text.lines().next().unwrap_or("").trim_start_matches('\u{feff}');
    let names: Vec<&str> = header.split(',').map(|c| c.trim().trim_matches('"')).collect();
    let numbered = ["", "Unnamed: 0", "index"].contains(names.first().unwrap_or(&"x"));
    let odd = |cell: &str| cell.ends_with('%') || cell.ends_with(".0");
    if !numbered && !text.split([',', '\n']).any(|c| odd(c.trim())) {
        return Cow::Borrowed(text);
    }
    let mut reader = csv::ReaderBuilder::new()
        .has_headers(false)
        .flexible(true)
        .trim(csv::Trim::All)
        .from_reader(text.trim_start_matches('\u{feff}').as_bytes());
    let mut out = csv::WriterBuilder::new().flexible(true).from_writer(Vec::new());
    for record in reader.records() {
        let Ok(record) = record else { return Cow::Borrowed(text) };
        let cells = record.iter().enumerate().skip(usize::from(numbered)).map(|(i, cell)| {
            let cell = cell.strip_suffix('%').map_or(cell, str::trim_end);
            let whole =
                ["batch", "cus", "kernels", "width_cus"].contains(names.get(i).unwrap_or(&""));
            if whole { cell.strip_suffix(".0").unwrap_or(cell) } else { cell }.to_owned()
        });
        if out.write_record(cells).is_err() {
            return Cow::Borrowed(text);
        }
    }
    match out.into_inner().map(String::from_utf8) {
        Ok(Ok(text)) => Cow::Owned(text),
        _ => Cow::Borrowed(text),
    }
}

#[cfg(test)]
mod tests {
    use super::plain;

    #[test]
    fn what_pandas_writes_becomes_plain() {
        let text = ",model,batch,share_pct,latency_ms\n0,a,1.0,10%,2.0\n1,b,8.0,50 %,3.5\n";
        assert_eq!(plain(text), "model,batch,share_pct,latency_ms\na,1,10,2.0\nb,8,50,3.5\n");
        let plain_already = "model,batch,share_pct,latency_ms\na,1,10,2.5\n";
        assert!(matches!(plain(plain_already), std::borrow::Cow::Borrowed(_)));
    }
}
