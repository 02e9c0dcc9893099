//! Azure Functions 2021 (CC-BY-4.0): `app,func,end_timestamp,duration`, seconds. A row is stamped
//! with its **end**: its arrival is `end_timestamp - duration`, so the file is not in order of
//! arrival, and it is sorted in memory (24 bytes and a name per invocation; the whole public trace
//! has about 2 million). `func` is unique within its `app` alone: the tenant is both.
//!
//! A row that started before the trace is dropped under the reason `started_before_trace`. The
//! duration stays as `x_duration_ns`.

use std::path::Path;
use std::sync::Arc;

use cotenant_profiles::Nanos;

use crate::decimal::{self, DecimalError};
use crate::error::TraceError;
use crate::format::{Format, ReadOptions};
use crate::read::timed::{Origin, Parser, Record, Timed};
use crate::row::{Columns, Meta, Names, Row, Stream, Tally, legal_name};
use crate::table::Table;

pub(crate) const FORMAT: Format = Format {
    name: "maf2",
    summary: "Azure Functions 2021: one invocation per row, by its end and duration",
    open,
    sniff: |probe| probe.lines.first().is_some_and(|l| l.starts_with("app,func,end_timestamp")),
};

const COLUMNS: [&str; 4] = ["app", "func", "end_timestamp", "duration"];
const EARLY: &str = "started_before_trace";

struct Reader {
    table: Table,
    columns: [usize; 4],
    names: Names,
}

fn open(path: &Path, options: &ReadOptions) -> Result<Stream, TraceError> {
    let (_, mut table) = Table::open(path, None)?;
    let kept = table.only_or_keep(&COLUMNS, options.keep_extra)?;
    let mut columns = [0; 4];
    for (at, name) in columns.iter_mut().zip(COLUMNS) {
        *at = table.require(name)?;
    }
    let (name, tally) = (table.file.clone(), Arc::new(Tally::default()));
    let reader = Reader { table, columns, names: Names::default() };
    tally.drop_rows(EARLY, 0);
    // Stamps are finer than a nanosecond.
    let rows = Timed::new(reader, &name, Origin::Zero, 1, true, Arc::clone(&tally));
    let mut meta = Meta::default();
    meta.push("licence", "CC-BY-4.0");
    let extra = std::iter::once("x_duration_ns".to_owned()).chain(kept).collect();
    let columns = Columns { extra, ..Columns::default() };
    Ok(Stream { name, meta, columns, tally, rows: Box::new(rows) })
}

impl Parser for Reader {
    fn next_record(&mut self) -> Result<Option<Record>, TraceError> {
        if !self.table.advance()? {
            return Ok(None);
        }
        let [app, func, end, duration] = self.columns;
        let table = &self.table;
        let seconds = |column| {
            decimal::scaled(table.get(column), 9).map_err(|error| match error {
                DecimalError::Negative => table.bad(column, "a time of 0 s or later"),
                _ => table.bad(column, "a time in seconds"),
            })
        };
        let (end, duration) = (seconds(end)?, seconds(duration)?);
        let key = format!("{}:{}", legal_name(table.get(app), 31), legal_name(table.get(func), 31));
        let tenant = self.names.get(&key);
        let mut row = Row::new(Nanos::ZERO, Arc::clone(&tenant), tenant);
        row.extra.push(Arc::from(duration.to_string().as_str()));
        row.extra.extend(table.kept());
        let start = end.checked_sub(duration);
        Ok(Some(Record { at: start.unwrap_or(0), row, drop: start.is_none().then_some(EARLY) }))
    }

    fn line(&self) -> u64 {
        self.table.line()
    }
}
