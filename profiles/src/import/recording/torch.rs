//! The Chrome trace that PyTorch's profiler writes (`prof.export_chrome_trace`), of versions 1.8 to
//! today, on CUDA and ROCm (Kineto's `output_json.cpp` and `ActivityType.h`).
//!
//! Complete events (`"ph": "X"`, or a pair of `B` and `E`) of these categories count, whatever their
//! case: `kernel`, `gpu_memcpy` and `gpu_memset` (`Memcpy`, `Memset` before 1.11), `cuda_runtime` and
//! `cuda_driver` (`Runtime`), `user_annotation` and `gpu_user_annotation`. A step of the profiler is
//! known by its name, `ProfilerStep#…`, since its category has changed. Times are microseconds,
//! numbers or text.

use std::collections::BTreeMap;
use std::io::Read;

use serde::Deserialize;

use super::json::{Bytes, Ended, Value, fields};
use super::{Call, Copy, Gpu, Kernel, Mark, Recording, Shape, Way, io};
use crate::files::{FileError, Problem};
use crate::import::ImportError;

const WANTED: &str = "a Chrome trace: an object with `traceEvents`, or a list of events";

pub(super) fn read(file: &str, from: impl Read) -> Result<Recording, ImportError> {
    let facts = vec![("tool", "PyTorch profiler".to_owned()), ("framework", "PyTorch".to_owned())];
    let all = Recording { file: file.to_owned(), facts, ..Recording::default() };
    let mut reader = Reader {
        all,
        bytes: Bytes::new(from),
        event: Vec::new(),
        open: BTreeMap::new(),
        number: 0,
    };
    let failed = |e: std::io::Error| io(std::path::Path::new(file), e);
    let found = reader.file().map_err(failed)?;
    if !found {
        let problem = Problem::Value { text: "nothing".to_owned(), wanted: WANTED.to_owned() };
        return Err(FileError::bad(file, 1, "traceEvents", problem));
    }
    Ok(reader.all)
}

struct Reader<R> {
    all: Recording,
    bytes: Bytes<R>,
    event: Vec<u8>,
    /// Events of kernels that have begun, by process and thread.
    open: BTreeMap<Place, Vec<Vec<u8>>>,
    number: usize,
}

type Place = (Vec<u8>, Vec<u8>);

/// One event's fields.
#[derive(Default)]
struct Event<'a> {
    phase: &'a [u8],
    category: &'a [u8],
    name: Option<Value<'a>>,
    pid: Option<Value<'a>>,
    tid: Option<Value<'a>>,
    ts: Option<Value<'a>>,
    dur: Option<Value<'a>>,
    args: &'a [u8],
}

impl<'a> Event<'a> {
    fn of(text: &'a [u8]) -> Self {
        let mut event = Self::default();
        for (key, value) in fields(text) {
            match (key, value) {
                (b"ph", v) => event.phase = v.plain().unwrap_or_default(),
                (b"cat", v) => event.category = v.plain().unwrap_or_default(),
                (b"name", v) => event.name = Some(v),
                (b"pid", v) => event.pid = Some(v),
                (b"tid", v) => event.tid = Some(v),
                (b"ts", v) => event.ts = Some(v),
                (b"dur", v) => event.dur = Some(v),
                (b"args", Value::Nested(v)) => event.args = v,
                _ => {}
            }
        }
        event
    }

    fn is(&self, categories: &[&str]) -> bool {
        categories.iter().any(|c| self.category.eq_ignore_ascii_case(c.as_bytes()))
    }
}

#[derive(Deserialize)]
struct Properties {
    #[serde(default)]
    id: Option<u32>,
    #[serde(default)]
    name: String,
    #[serde(default, rename = "numSms")]
    cus: Option<u32>,
    #[serde(default, rename = "totalGlobalMem")]
    memory: Option<u64>,
}

impl<R: Read> Reader<R> {
    /// Reads the file; false if it holds no list of events.
    fn file(&mut self) -> std::io::Result<bool> {
        // A byte order mark, and whatever else is not JSON.
        while matches!(self.bytes.token()?, Some(b) if b > 0x7f) {
            self.bytes.next()?;
        }
        match self.bytes.token()? {
            Some(b'[') => {
                self.events()?;
                return Ok(true);
            }
            Some(b'{') => drop(self.bytes.next()?),
            _ => return Ok(false),
        }
        let mut found = false;
        loop {
            match self.bytes.token()? {
                Some(b'"') => {}
                Some(b'}') | None => return Ok(found),
                Some(_) => {
                    self.bytes.next()?;
                    continue;
                }
            }
            let Some(key) = self.bytes.key()? else { return Ok(found) };
            if self.bytes.token()? != Some(b':') {
                continue;
            }
            self.bytes.next()?;
            if key == b"traceEvents" && self.bytes.token()? == Some(b'[') {
                self.events()?;
                found = true;
                continue;
            }
            let mut value = std::mem::take(&mut self.event);
            if self.bytes.value(&mut value)? == Ended::Whole && key == b"deviceProperties" {
                self.properties(&value);
            }
            self.event = value;
        }
    }

    fn properties(&mut self, text: &[u8]) {
        let text = String::from_utf8_lossy(text);
        let Ok(all) = serde_json::from_str::<Vec<Properties>>(&text) else { return };
        for (i, p) in (0u32..).zip(all) {
            self.all.gpus.push(Gpu {
                index: p.id.unwrap_or(i),
                name: p.name,
                cus: p.cus.filter(|n| *n > 0),
                memory: p.memory.filter(|n| *n > 0),
            });
        }
    }

    fn events(&mut self) -> std::io::Result<()> {
        self.bytes.next()?;
        loop {
            match self.bytes.token()? {
                None => {
                    self.all
                        .warnings
                        .push("the list of events has no end: the file may be cut off".to_owned());
                    return Ok(());
                }
                Some(b']') => {
                    self.bytes.next()?;
                    return Ok(());
                }
                Some(b'{') => {
                    let mut event = std::mem::take(&mut self.event);
                    let ended = self.bytes.value(&mut event)?;
                    match ended {
                        Ended::Whole => self.event(&event),
                        Ended::Long => self.all.drop("damaged events"),
                        Ended::File => self.all.drop("events cut off at the end of the file"),
                    }
                    self.event = event;
                    self.number += 1;
                }
                Some(_) => drop(self.bytes.next()?),
            }
        }
    }

    fn event(&mut self, text: &[u8]) {
        let event = Event::of(text);
        let (begins, ends) = (event.phase == b"B", event.phase == b"E");
        if begins || ends {
            if event.is(&["kernel"]) {
                self.half(text, begins);
            }
        } else if event.phase == b"X" {
            self.complete(&event, event.dur.and_then(micros));
        }
    }

    /// A kernel begins or ends.
    fn half(&mut self, text: &[u8], begins: bool) {
        let event = Event::of(text);
        let plain = |v: Option<Value<'_>>| v.and_then(Value::plain).unwrap_or_default().to_vec();
        let place = (plain(event.pid), plain(event.tid));
        if begins {
            self.open.entry(place).or_default().push(text.to_vec());
            return;
        }
        let Some(begun) = self.open.get_mut(&place).and_then(Vec::pop) else {
            self.all.drop("ends of kernels that did not begin");
            return;
        };
        let begun = Event::of(&begun);
        let from = begun.ts.and_then(micros);
        let took = event.ts.and_then(micros).zip(from).and_then(|(e, s)| e.checked_sub(s));
        self.complete(&begun, took);
    }

    fn complete(&mut self, event: &Event<'_>, took: Option<i64>) {
        let times = event.ts.and_then(micros).zip(took.filter(|d| *d >= 0));
        // Before Kineto, the autograd profiler wrote no categories.
        let legacy =
            event.category.is_empty() && matches!(event.pid, Some(Value::Text(b"CUDA functions")));
        if legacy || event.is(&["kernel"]) {
            match times {
                Some((start, took)) => self.kernel(event, start, took.unsigned_abs()),
                None => {
                    let broken = event.ts.and_then(micros).map_or("ts", |_| "dur");
                    let value = if broken == "ts" { event.ts } else { event.dur };
                    let text = value.and_then(Value::text).unwrap_or_else(|| "nothing".to_owned());
                    let number = self.number;
                    let wanted = "microseconds".to_owned();
                    let field = || format!("traceEvents[{number}].{broken}");
                    self.all.drop_bad(field, Problem::Value { text, wanted });
                }
            }
            return;
        }
        let Some((start, took)) = times else { return };
        let end = start.saturating_add(took);
        if event.is(&["gpu_memcpy", "memcpy", "gpu_memset", "memset"]) {
            self.copy(event, start, took.unsigned_abs());
        } else if event.is(&["cuda_runtime", "cuda_driver", "runtime", "driver", "hip_runtime"]) {
            self.call(event, start, end);
        } else {
            let Some(Value::Text(raw)) = event.name else { return };
            let step = raw.starts_with(b"ProfilerStep");
            let on_gpu = event.is(&["gpu_user_annotation"]);
            if step || on_gpu || event.is(&["user_annotation"]) {
                let text = Value::Text(raw).text().unwrap_or_default();
                let name = self.all.names.id(&text);
                self.all.marks.push(Mark { name, process: 0, start, end, on_gpu });
            }
        }
    }

    fn kernel(&mut self, event: &Event<'_>, start: i64, duration: u64) {
        let mut shape = Shape { grid: None, block: 0, regs: 0, smem_bytes: 0 };
        let (mut gpu, mut link, mut graph) = (None, 0, false);
        let (mut stream, mut context) = (None, None);
        let size = |v: Value<'_>| u32::try_from(v.count().unwrap_or(0)).unwrap_or(0);
        for (key, value) in fields(event.args) {
            match key {
                b"grid" => shape.grid = three(value),
                b"block" => {
                    let threads = three(value)
                        .and_then(|b| b.iter().try_fold(1u32, |all, n| all.checked_mul(*n)));
                    shape.block = threads.unwrap_or(0);
                }
                b"registers per thread" => shape.regs = size(value),
                b"shared memory" => shape.smem_bytes = size(value),
                b"device" => gpu = value.count(),
                b"stream" | b"queue" | b"hsa_queue" => stream = value.plain(),
                b"context" => context = value.plain(),
                b"correlation" => link = value.count().unwrap_or(0),
                b"graph node id" => graph = value.count().is_some_and(|n| n > 0),
                _ => {}
            }
        }
        let Some(name) = event.name.and_then(Value::text).filter(|n| !n.trim().is_empty()) else {
            self.all.drop("kernels without a name");
            return;
        };
        let gpu = gpu.or_else(|| event.pid.and_then(Value::count)).unwrap_or(0);
        let gpu = u32::try_from(gpu).unwrap_or(u32::MAX);
        // The stream, or the track that it is drawn on.
        let stream = stream.or_else(|| event.tid.and_then(Value::plain)).unwrap_or_default();
        let word = |t: &[u8]| String::from_utf8_lossy(t).into_owned();
        let key = format!("{gpu}/{}/{}", word(context.unwrap_or_default()), word(stream));
        let stream = self.all.stream_id(&key, 0);
        let (name, shape) = (self.all.names.id(&name), self.all.shape(shape));
        self.all.kernels.push(Kernel { name, shape, gpu, stream, link, start, duration, graph });
    }

    fn copy(&mut self, event: &Event<'_>, start: i64, duration: u64) {
        let (mut gpu, mut link, mut bytes) = (None, 0, 0);
        for (key, value) in fields(event.args) {
            match key {
                b"device" => gpu = value.count(),
                b"correlation" => link = value.count().unwrap_or(0),
                b"bytes" => bytes = value.count().unwrap_or(0),
                _ => {}
            }
        }
        let gpu = gpu.or_else(|| event.pid.and_then(Value::count)).unwrap_or(0);
        let name = event.name.and_then(Value::text).unwrap_or_default();
        // `Memcpy HtoD (Pageable -> Device)` on CUDA, `CopyHostToDevice` on ROCm.
        let has = |words: [&str; 2]| words.iter().any(|w| name.contains(w));
        let way = if has(["HtoD", "HostToDevice"]) {
            Way::In
        } else if has(["DtoH", "DeviceToHost"]) {
            Way::Out
        } else {
            Way::Inside
        };
        let gpu = u32::try_from(gpu).unwrap_or(u32::MAX);
        let process = 0;
        self.all.copies.push(Copy { way, gpu, process, link, bytes, start, duration });
    }

    /// A call that put something on a stream: the others have no counterpart there.
    fn call(&mut self, event: &Event<'_>, start: i64, end: i64) {
        let Some(Value::Text(name)) = event.name else { return };
        let has = |word: &[u8]| name.windows(word.len()).any(|w| w.eq_ignore_ascii_case(word));
        if !(has(b"launch") || has(b"memcpy") || has(b"memset")) {
            return;
        }
        let link = fields(event.args).find(|(k, _)| *k == b"correlation");
        let link = link.and_then(|(_, v)| v.count()).unwrap_or(0);
        if link > 0 {
            self.all.calls.push(Call { link, start, end });
        }
    }
}

fn three(value: Value<'_>) -> Option<[u32; 3]> {
    let mut sizes = [0; 3];
    let mut items = value.items();
    for size in &mut sizes {
        *size = items.next()?.count().and_then(|n| u32::try_from(n).ok()).filter(|n| *n > 0)?;
    }
    items.next().is_none().then_some(sizes)
}

/// Microseconds in ns, exactly: the stamps of a wall clock have more digits than an `f64`.
pub(super) fn micros(value: Value<'_>) -> Option<i64> {
    let text = str::from_utf8(value.plain()?).ok()?.trim();
    let (sign, digits) = match text.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, text),
    };
    let (whole, part) = digits.split_once('.').unwrap_or((digits, ""));
    let plain = |t: &str| t.bytes().all(|b| b.is_ascii_digit());
    if whole.is_empty() || !plain(whole) || !plain(part) {
        let ns = text.parse::<f64>().ok()? * 1e3;
        return (ns.abs() < 9e18).then_some(ns.round() as i64);
    }
    let thousandths: String = part.chars().chain("000".chars()).take(3).collect();
    let up = i64::from(part.as_bytes().get(3).is_some_and(|b| *b >= b'5'));
    let ns = whole.parse::<i64>().ok()?.checked_mul(1000)?;
    Some(sign * ns.checked_add(thousandths.parse::<i64>().ok()? + up)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn microseconds_are_exact() {
        for (text, ns) in [
            ("0.0", Some(0)),
            ("5", Some(5_000)),
            ("1712192331123456.789", Some(1_712_192_331_123_456_789)),
            ("-120.5", Some(-120_500)),
            ("6.9999", Some(7_000)),
            ("1.5e3", Some(1_500_000)),
            ("inf", None),
            ("NaN", None),
            ("", None),
            ("99999999999999999999", None),
        ] {
            assert_eq!(micros(Value::Word(text.as_bytes())), ns, "{text}");
        }
    }
}
