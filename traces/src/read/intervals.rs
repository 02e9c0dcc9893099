//! Gaps between requests: Triton perf_analyzer's `--request-intervals` (microseconds, one per line)
//! and Orion's trace (a JSON array of seconds). The first request comes after the first gap; the
//! list is played once here, and looping is the business of who replays it.

use std::io::BufRead as _;
use std::path::Path;
use std::sync::Arc;

use cotenant_profiles::Nanos;
use serde_json::value::RawValue;

use crate::decimal;
use crate::error::{TraceError, excerpt};
use crate::format::{Format, ReadOptions};
use crate::io::{self, Input};
use crate::read::stem;
use crate::read::timed::{Origin, Parser, Record, Timed};
use crate::row::{Columns, Meta, Row, Stream, Tally};
use crate::table::read_line;

pub(crate) const FORMAT: Format = Format {
    name: "intervals",
    summary: "gaps: microseconds, one per line (Triton), or a JSON array of seconds (Orion)",
    open,
    sniff: |probe| {
        let is_gap = |line: &String| line.trim().bytes().all(|b| b.is_ascii_digit());
        let is_array = probe.lines.first().is_some_and(|l| l.trim_start().starts_with('['));
        is_array || !probe.lines.is_empty() && probe.lines.iter().all(is_gap)
    },
};

enum Gaps {
    Lines(Input),
    Array(std::vec::IntoIter<Box<RawValue>>),
}

struct Reader {
    gaps: Gaps,
    file: String,
    line: u64,
    at: u64,
    tenant: Arc<str>,
}

fn open(path: &Path, options: &ReadOptions) -> Result<Stream, TraceError> {
    let (name, tally) = (io::name_of(path), Arc::new(Tally::default()));
    let mut input = io::open(path)?;
    let head = input.fill_buf().map_err(|e| TraceError::io(&name, e))?;
    let gaps = if head.trim_ascii_start().starts_with(b"[") {
        let text = io::text(input, &name)?;
        let array: Vec<Box<RawValue>> = serde_json::from_str(&text)
            .map_err(|e| TraceError::file(&name, format!("not a JSON array of seconds: {e}")))?;
        Gaps::Array(array.into_iter())
    } else {
        Gaps::Lines(input)
    };
    let tenant = Arc::from(stem(path, "", "").as_str());
    let reader = Reader { gaps, file: name.clone(), line: 0, at: 0, tenant };
    let shared = Arc::clone(&tally);
    let rows = Timed::new(reader, &name, Origin::Zero, 1, options.sort, shared);
    let (meta, columns) = (Meta::default(), Columns::default());
    Ok(Stream { name, meta, columns, tally, rows: Box::new(rows) })
}

impl Reader {
    /// The next gap as text and its power of ten over nanoseconds.
    fn gap(&mut self) -> Result<Option<(String, i64)>, TraceError> {
        match &mut self.gaps {
            Gaps::Array(array) => {
                self.line += 1;
                Ok(array.next().map(|value| (value.get().to_owned(), 9)))
            }
            Gaps::Lines(input) => loop {
                let rest = input.fill_buf().map_err(|e| TraceError::io(&self.file, e))?;
                if rest.is_empty() {
                    return Ok(None);
                }
                self.line += 1;
                let text = read_line(input, &self.file, self.line)?;
                if !text.trim().is_empty() {
                    return Ok(Some((text, 3)));
                }
            },
        }
    }
}

impl Parser for Reader {
    fn next_record(&mut self) -> Result<Option<Record>, TraceError> {
        let Some((text, power)) = self.gap()? else { return Ok(None) };
        let gap = decimal::scaled(&text, power).ok();
        self.at = gap.and_then(|gap| self.at.checked_add(gap)).ok_or_else(|| {
            let (file, value) = (self.file.clone(), excerpt(&text));
            let expected = "a gap of 0 or more, in all below 584 years";
            TraceError::Value { file, line: self.line, field: "gap".to_owned(), value, expected }
        })?;
        let row = Row::new(Nanos::ZERO, Arc::clone(&self.tenant), Arc::clone(&self.tenant));
        Ok(Some(Record { at: self.at, row, drop: None }))
    }

    fn line(&self) -> u64 {
        self.line
    }
}
