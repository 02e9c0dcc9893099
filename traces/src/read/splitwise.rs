//! Traces of splitwise-sim (MIT): `request_id,request_type,application_id,arrival_timestamp,
//! batch_size,prompt_size,token_size`, times in seconds.
//!
//! The tenant is `app-` and the application, the model `llm`, `items` the batch size. The type of a
//! request (2: a language model's) becomes `x_request_type`.

use std::path::Path;
use std::sync::Arc;

use cotenant_profiles::Nanos;

use crate::decimal;
use crate::error::TraceError;
use crate::format::{Format, ReadOptions};
use crate::read::timed::{Origin, Parser, Record, Timed};
use crate::row::{Columns, Meta, Names, Row, Stream, Tally, legal_name};
use crate::table::Table;

pub(crate) const FORMAT: Format = Format {
    name: "splitwise",
    summary: "splitwise-sim: one request per row, seconds",
    open,
    sniff: |probe| {
        let has = |l: &String| l.contains("arrival_timestamp") && l.contains("prompt_size");
        probe.lines.first().is_some_and(has)
    },
};

const COLUMNS: [&str; 7] = [
    "request_id",
    "request_type",
    "application_id",
    "arrival_timestamp",
    "batch_size",
    "prompt_size",
    "token_size",
];
/// Its generator writes microseconds.
const QUANTUM_NS: u64 = 1_000;

struct Reader {
    table: Table,
    columns: [usize; 7],
    names: Names,
}

fn open(path: &Path, options: &ReadOptions) -> Result<Stream, TraceError> {
    let (_, mut table) = Table::open(path, None)?;
    let kept = table.only_or_keep(&COLUMNS, options.keep_extra)?;
    let mut columns = [0; 7];
    for (at, name) in columns.iter_mut().zip(COLUMNS) {
        *at = table.require(name)?;
    }
    let (name, tally) = (table.file.clone(), Arc::new(Tally::default()));
    let reader = Reader { table, columns, names: Names::default() };
    let shared = Arc::clone(&tally);
    let rows = Timed::new(reader, &name, Origin::Zero, QUANTUM_NS, options.sort, shared);
    let mut meta = Meta::default();
    meta.push("quantum_ns", QUANTUM_NS.to_string());
    let extra = std::iter::once("x_request_type".to_owned()).chain(kept).collect();
    let columns = Columns { tokens: true, items: true, extra, ..Columns::default() };
    Ok(Stream { name, meta, columns, tally, rows: Box::new(rows) })
}

impl Parser for Reader {
    fn next_record(&mut self) -> Result<Option<Record>, TraceError> {
        if !self.table.advance()? {
            return Ok(None);
        }
        let [_, kind, application, arrival, batch, prompt, output] = self.columns;
        let table = &self.table;
        let at = decimal::scaled(table.get(arrival), 9)
            .map_err(|_| table.bad(arrival, "a time of 0 s or later"))?;
        let tenant = self.names.get(&legal_name(&format!("app-{}", table.get(application)), 64));
        let mut row = Row::new(Nanos::ZERO, tenant, self.names.get("llm"));
        row.items = table.number(batch, "a whole number of at least 1")?;
        if row.items == 0 {
            return Err(table.bad(batch, "a whole number of at least 1"));
        }
        row.tokens_in = Some(table.number(prompt, "a whole number of tokens")?);
        row.tokens_out = Some(table.number(output, "a whole number of tokens")?);
        row.extra.push(self.names.get(table.get(kind)));
        row.extra.extend(table.kept());
        Ok(Some(Record { at, row, drop: None }))
    }

    fn line(&self) -> u64 {
        self.table.line()
    }
}
