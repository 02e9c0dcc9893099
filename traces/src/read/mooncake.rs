//! Mooncake (Apache-2.0) and Qwen-Bailian traces: JSON lines with `timestamp`, `input_length`,
//! `output_length` and `hash_ids`. Bailian's rows carry a `chat_id` and count **seconds** with a
//! fraction, Mooncake's have none and count whole **milliseconds**.
//!
//! Mooncake's stamps come in ticks of 3,000 ± 1 ms with up to 28 rows each: `spread:3s` undoes
//! that. The tenant is the file's own name, the model `llm`; Bailian's `type` becomes `x_type`, and
//! its conversations become sessions, each named by the `chat_id` of its first turn.

use std::borrow::Cow;
use std::collections::HashMap;
use std::io::BufRead as _;
use std::path::Path;
use std::sync::Arc;

use cotenant_profiles::Nanos;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::decimal;
use crate::error::{TraceError, excerpt, hint};
use crate::format::{Format, Probe, ReadOptions};
use crate::io::{self, Input};
use crate::read::stem;
use crate::read::timed::{Origin, Parser, Record, Timed};
use crate::row::{Columns, Meta, Names, Row, Stream, Tally};
use crate::table::{extra_name, read_line};

pub(crate) const MOONCAKE: Format = Format {
    name: "mooncake",
    summary: "Mooncake: JSON lines, milliseconds",
    open: |path, options| open(path, options, Unit::Milliseconds),
    sniff: |probe| looks_right(probe) && !probe.lines[0].contains("\"chat_id\""),
};

pub(crate) const BAILIAN: Format = Format {
    name: "bailian",
    summary: "Qwen-Bailian: JSON lines with chat_id, seconds",
    open: |path, options| open(path, options, Unit::Seconds),
    sniff: |probe| looks_right(probe) && probe.lines[0].contains("\"chat_id\""),
};

fn looks_right(probe: &Probe) -> bool {
    let has = |line: &String| line.starts_with('{') && line.contains("\"input_length\"");
    probe.lines.first().is_some_and(has)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Unit {
    Milliseconds,
    Seconds,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line<'a> {
    #[serde(borrow)]
    timestamp: &'a RawValue,
    input_length: u32,
    output_length: u32,
    #[serde(default, rename = "hash_ids")]
    _hash_ids: Option<IgnoredAny>,
    chat_id: Option<i64>,
    parent_chat_id: Option<i64>,
    #[serde(default, rename = "type")]
    kind: Option<String>,
    #[serde(default, rename = "turn")]
    _turn: Option<IgnoredAny>,
}

struct Reader {
    input: Input,
    file: String,
    line: u64,
    unit: Unit,
    tenant: Arc<str>,
    model: Arc<str>,
    names: Names,
    /// The first turn of each conversation.
    roots: HashMap<i64, i64>,
    tally: Arc<Tally>,
    /// A fractional stamp has been seen.
    warned: bool,
    /// Keys that the format does not have, kept on request.
    kept: Vec<String>,
}

fn open(path: &Path, options: &ReadOptions, unit: Unit) -> Result<Stream, TraceError> {
    let tenant = match unit {
        Unit::Milliseconds => stem(path, "", "_trace"),
        Unit::Seconds => stem(path, "qwen_", "_blksz_16"),
    };
    let (name, tally) = (io::name_of(path), Arc::new(Tally::default()));
    let kept = if options.keep_extra { unknown_keys(path)? } else { Vec::new() };
    let extra: Vec<String> = kept.iter().map(|key| extra_name(key)).collect();
    let reader = Reader {
        input: io::open(path)?,
        file: name.clone(),
        line: 0,
        unit,
        tenant: Arc::from(tenant.as_str()),
        model: Arc::from("llm"),
        names: Names::default(),
        roots: HashMap::new(),
        tally: Arc::clone(&tally),
        warned: false,
        kept,
    };
    let quantum = 1_000_000;
    let shared = Arc::clone(&tally);
    let rows = Timed::new(reader, &name, Origin::Zero, quantum, options.sort, shared);
    let mut meta = Meta::default();
    meta.push("licence", "Apache-2.0");
    meta.push("quantum_ns", quantum.to_string());
    let mut columns = Columns { tokens: true, ..Columns::default() };
    if unit == Unit::Seconds {
        columns.session = true;
        columns.extra.push("x_type".to_owned());
    }
    columns.extra.extend(extra);
    Ok(Stream { name, meta, columns, tally, rows: Box::new(rows) })
}

const KEYS: [&str; 8] = [
    "timestamp",
    "input_length",
    "output_length",
    "hash_ids",
    "chat_id",
    "parent_chat_id",
    "type",
    "turn",
];

/// The parser's message; for an unknown key with the closest known one in place of a plain list.
fn not_a_row(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let key = text.strip_prefix("unknown field `").and_then(|rest| rest.split_once('`'));
    match key {
        Some((key, _)) => format!("unknown key `{}`{}", excerpt(key), hint(key, KEYS)),
        None => format!("not a row: {text}"),
    }
}

impl Reader {
    fn record(&mut self, text: &str) -> Result<Record, TraceError> {
        let fail = |problem: String| TraceError::line(&self.file, self.line, problem);
        let (text, kept) = self.split(text)?;
        let line: Line = serde_json::from_str(&text).map_err(|e| fail(not_a_row(&e)))?;
        if (self.unit == Unit::Seconds) != line.chat_id.is_some() {
            return Err(fail(match self.unit {
                Unit::Milliseconds => "`chat_id` in a mooncake file: read it as bailian".to_owned(),
                Unit::Seconds => "no `chat_id` in a bailian file: read it as mooncake".to_owned(),
            }));
        }
        let power = if self.unit == Unit::Milliseconds { 6 } else { 9 };
        let stamp = line.timestamp.get();
        let at = decimal::scaled(stamp, power).map_err(|_| TraceError::Value {
            file: self.file.clone(),
            line: self.line,
            field: "timestamp".to_owned(),
            value: excerpt(stamp),
            expected: "a time of 0 or later",
        })?;
        if power == 6 && !self.warned && !at.is_multiple_of(1_000_000) {
            self.warned = true;
            self.tally.warn(format!(
                "{}:{}: timestamp `{}` is a fraction, where Mooncake counts whole milliseconds; it \
                 is read as milliseconds. If the file counts seconds, add `scale-time:1000`",
                self.file,
                self.line,
                excerpt(stamp)
            ));
        }
        let mut row = Row::new(Nanos::ZERO, Arc::clone(&self.tenant), Arc::clone(&self.model));
        (row.tokens_in, row.tokens_out) = (Some(line.input_length), Some(line.output_length));
        if let Some(chat) = line.chat_id {
            let parent = line.parent_chat_id.filter(|&parent| parent >= 0);
            let root = parent.map_or(chat, |p| self.roots.get(&p).copied().unwrap_or(p));
            self.roots.insert(chat, root);
            row.session = Some(self.names.get(&root.to_string()));
            row.extra.push(self.names.get(line.kind.as_deref().unwrap_or("")));
        }
        row.extra.extend(kept);
        Ok(Record { at, row, drop: None })
    }

    /// The line without the keys that are kept, and their values in order.
    fn split<'a>(&self, text: &'a str) -> Result<(Cow<'a, str>, Vec<Arc<str>>), TraceError> {
        if self.kept.is_empty() {
            return Ok((text.into(), Vec::new()));
        }
        let fail = |e| TraceError::line(&self.file, self.line, format!("not a row: {e}"));
        let mut all: serde_json::Map<String, Value> = serde_json::from_str(text).map_err(fail)?;
        let value = |key: &String| match all.remove(key) {
            None | Some(Value::Null) => Arc::from(""),
            Some(Value::String(text)) => Arc::from(text),
            Some(other) => Arc::from(other.to_string()),
        };
        let kept = self.kept.iter().map(value).collect();
        Ok((Value::Object(all).to_string().into(), kept))
    }
}

/// The keys of the first row that the format does not have.
fn unknown_keys(path: &Path) -> Result<Vec<String>, TraceError> {
    let first = read_line(&mut io::open(path)?, &io::name_of(path), 1)?;
    let all: serde_json::Map<String, Value> = serde_json::from_str(&first).unwrap_or_default();
    Ok(all.into_iter().map(|(key, _)| key).filter(|key| !KEYS.contains(&key.as_str())).collect())
}

impl Parser for Reader {
    fn next_record(&mut self) -> Result<Option<Record>, TraceError> {
        loop {
            let rest = self.input.fill_buf().map_err(|e| TraceError::io(&self.file, e))?;
            if rest.is_empty() {
                return Ok(None);
            }
            self.line += 1;
            let text = read_line(&mut self.input, &self.file, self.line)?;
            if !text.trim().is_empty() {
                return self.record(&text).map(Some);
            }
        }
    }

    fn line(&self) -> u64 {
        self.line
    }
}
