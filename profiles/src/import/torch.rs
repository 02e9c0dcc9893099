//! The Chrome trace that PyTorch's profiler writes (`prof.export_chrome_trace`).
//!
//! Complete events (`"ph": "X"`) of the category `kernel` are kernels; times are microseconds. The
//! arguments are those of Kineto's CUDA activity: `grid`, `block`, `registers per thread`,
//! `shared memory`.

use serde::Deserialize;

use super::stream::{self, Record, StreamOptions};
use super::{Import, ImportError, Input};
use crate::Device;
use crate::files::{FileError, Problem};

#[derive(Deserialize)]
#[serde(untagged)]
enum File {
    Object {
        #[serde(rename = "traceEvents")]
        events: Vec<Event>,
    },
    List(Vec<Event>),
}

#[derive(Deserialize)]
struct Event {
    #[serde(default)]
    ph: String,
    #[serde(default)]
    cat: Option<String>,
    #[serde(default)]
    name: Option<serde_json::Value>,
    #[serde(default)]
    ts: Option<f64>,
    #[serde(default)]
    dur: Option<f64>,
    #[serde(default)]
    args: Option<serde_json::Value>,
}

/// Imports a trace as one model at one batch, measured on `device`.
///
/// # Errors
/// Text that is no such trace, a kernel without its times or sizes, or no repeating iteration.
pub fn torch(
    input: &Input<'_>,
    device: &Device,
    options: &StreamOptions,
) -> Result<Import, ImportError> {
    let file: File = serde_json::from_str(input.text).map_err(|e| {
        let wanted = "a Chrome trace: an object with `traceEvents`, or a list of events".to_owned();
        // The reader cannot say where an untagged form fails: then the text's own syntax.
        let syntax = serde_json::from_str::<serde::de::IgnoredAny>(input.text).err();
        let line = syntax.as_ref().map_or(1, |s| s.line().max(1));
        let problem = Problem::Value { text: syntax.unwrap_or(e).to_string(), wanted };
        FileError::bad(input.file, line, "traceEvents", problem)
    })?;
    let (File::Object { events } | File::List(events)) = file;
    let mut records = Vec::new();
    for (i, event) in events.iter().enumerate() {
        let category = event.cat.as_deref().unwrap_or("");
        if event.ph == "X" && category.eq_ignore_ascii_case("kernel") {
            records.push(record(event).map_err(|(field, problem)| {
                FileError::bad(input.file, 1, &format!("traceEvents[{i}].{field}"), problem)
            })?);
        }
    }
    let facts = [("tool", "PyTorch profiler".to_owned()), ("framework", "PyTorch".to_owned())];
    stream::profile(input.file, records, device, options, &facts)
}

fn record(event: &Event) -> Result<Record, (&'static str, Problem)> {
    let bad = |field, text: String, wanted: &str| {
        (field, Problem::Value { text, wanted: wanted.to_owned() })
    };
    let micros = |field: &'static str, value: Option<f64>| {
        let ns = value.map(|us| us * 1e3).filter(|ns| (0.0..9e18).contains(ns));
        let text = value.map_or("nothing".to_owned(), |v| v.to_string());
        ns.map(|ns| ns.round() as u64).ok_or_else(|| bad(field, text, "microseconds"))
    };
    let name = event.name.as_ref().and_then(serde_json::Value::as_str);
    let name = name.filter(|n| !n.trim().is_empty());
    let args = event.args.as_ref();
    let three = |field: &'static str| {
        let list = args.and_then(|a| a.get(field)).and_then(serde_json::Value::as_array);
        let sizes: Option<Vec<u32>> = list.map(|l| {
            let size = |v: &serde_json::Value| v.as_u64().and_then(|n| u32::try_from(n).ok());
            l.iter().filter_map(|v| size(v).filter(|n| *n > 0)).collect()
        });
        let sizes = sizes.and_then(|s| <[u32; 3]>::try_from(s).ok());
        sizes.ok_or_else(|| bad(field, "nothing".to_owned(), "three sizes of at least 1"))
    };
    let number = |field: &str| {
        let value = args.and_then(|a| a.get(field)).and_then(serde_json::Value::as_u64);
        value.and_then(|n| u32::try_from(n).ok()).unwrap_or(0)
    };
    let block = three("block")?;
    let threads = block.iter().try_fold(1u32, |all, n| all.checked_mul(*n));
    Ok(Record {
        name: name.ok_or_else(|| bad("name", "nothing".to_owned(), "a kernel's name"))?.to_owned(),
        grid: three("grid")?,
        block: threads.ok_or_else(|| bad("block", format!("{block:?}"), "a block's size"))?,
        regs: number("registers per thread"),
        smem_bytes: number("shared memory"),
        start_ns: micros("ts", event.ts)?,
        duration_ns: micros("dur", event.dur)?,
    })
}
