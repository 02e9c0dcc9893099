//! BurstGPT (CC-BY-4.0): calls to ChatGPT and GPT-4. Six columns, or eight in the third release,
//! which inserts `Session ID` and `Elapsed time` in the middle: columns are found by name.
//!
//! Stamps are whole seconds from 00:00 of the first day. Rows of one second came in the order of
//! the file, so `spread:1s` gives them their places. A failed call has 0 response tokens; the
//! option `drop_failures` leaves those out under the reason `failed`. Tenant and model are `Model`.

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
    name: "burstgpt",
    summary: "BurstGPT: calls to ChatGPT and GPT-4, whole seconds",
    open,
    sniff: |probe| {
        probe.lines.first().is_some_and(|l| l.starts_with("Timestamp,") && l.contains("tokens"))
    },
};

const COLUMNS: [&str; 8] = [
    "Timestamp",
    "Model",
    "Request tokens",
    "Response tokens",
    "Total tokens",
    "Log Type",
    "Session ID",
    "Elapsed time",
];
const QUANTUM_NS: u64 = 1_000_000_000;

struct Reader {
    table: Table,
    stamp: usize,
    model: usize,
    tokens_in: usize,
    tokens_out: usize,
    log_type: Option<usize>,
    session: Option<usize>,
    drop_failures: bool,
    names: Names,
}

fn open(path: &Path, options: &ReadOptions) -> Result<Stream, TraceError> {
    let (_, mut table) = Table::open(path, None)?;
    let kept = table.only_or_keep(&COLUMNS, options.keep_extra)?;
    let reader = Reader {
        stamp: table.require(COLUMNS[0])?,
        model: table.require(COLUMNS[1])?,
        tokens_in: table.require(COLUMNS[2])?,
        tokens_out: table.require(COLUMNS[3])?,
        log_type: table.find(COLUMNS[5]),
        session: table.find(COLUMNS[6]),
        drop_failures: options.drop_failures,
        names: Names::default(),
        table,
    };
    let (name, tally) = (reader.table.file.clone(), Arc::new(Tally::default()));
    if options.drop_failures {
        tally.drop_rows("failed", 0);
    }
    let extra = reader.log_type.map(|_| "x_log_type".to_owned()).into_iter().chain(kept).collect();
    let session = reader.session.is_some();
    let columns = Columns { tokens: true, session, extra, ..Columns::default() };
    let shared = Arc::clone(&tally);
    let rows = Timed::new(reader, &name, Origin::Zero, QUANTUM_NS, options.sort, shared);
    let mut meta = Meta::default();
    meta.push("licence", "CC-BY-4.0");
    meta.push("quantum_ns", QUANTUM_NS.to_string());
    Ok(Stream { name, meta, columns, tally, rows: Box::new(rows) })
}

impl Parser for Reader {
    fn next_record(&mut self) -> Result<Option<Record>, TraceError> {
        if !self.table.advance()? {
            return Ok(None);
        }
        let table = &self.table;
        let at = decimal::scaled(table.get(self.stamp), 9)
            .map_err(|_| table.bad(self.stamp, "a time of 0 s or later"))?;
        let model = self.names.get(&legal_name(table.get(self.model), 64));
        let mut row = Row::new(Nanos::ZERO, Arc::clone(&model), model);
        let rule = "a whole number of tokens";
        let tokens = |column| table.number::<u32>(column, rule);
        row.tokens_in = Some(tokens(self.tokens_in)?);
        row.tokens_out = Some(tokens(self.tokens_out)?);
        let session = self.session.map(|c| table.get(c)).filter(|text| !text.is_empty());
        row.session = session.map(Arc::from);
        if let Some(column) = self.log_type {
            row.extra.push(self.names.get(table.get(column)));
        }
        row.extra.extend(table.kept());
        let failed = self.drop_failures && row.tokens_out == Some(0);
        Ok(Some(Record { at, row, drop: failed.then_some("failed") }))
    }

    fn line(&self) -> u64 {
        self.table.line()
    }
}
