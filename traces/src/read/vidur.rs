//! Vidur's processed traces (MIT): `arrived_at,num_prefill_tokens,num_decode_tokens`, seconds as
//! decimals with the noise of binary fractions (`5.8926549999999995`), which rounding to whole
//! nanoseconds removes.

use std::path::Path;
use std::sync::Arc;

use cotenant_profiles::Nanos;

use crate::decimal;
use crate::error::TraceError;
use crate::format::{Format, ReadOptions};
use crate::read::stem;
use crate::read::timed::{Origin, Parser, Record, Timed};
use crate::row::{Columns, Meta, Row, Stream, Tally};
use crate::table::Table;

pub(crate) const FORMAT: Format = Format {
    name: "vidur",
    summary: "Vidur's processed traces: seconds, prefill and decode tokens",
    open,
    sniff: |probe| probe.lines.first().is_some_and(|l| l.starts_with("arrived_at,")),
};

const COLUMNS: [&str; 3] = ["arrived_at", "num_prefill_tokens", "num_decode_tokens"];
/// The files are rounded to microseconds.
const QUANTUM_NS: u64 = 1_000;

struct Reader {
    table: Table,
    columns: [usize; 3],
    tenant: Arc<str>,
    model: Arc<str>,
}

fn open(path: &Path, options: &ReadOptions) -> Result<Stream, TraceError> {
    let (_, mut table) = Table::open(path, None)?;
    let kept = table.only_or_keep(&COLUMNS, options.keep_extra)?;
    let columns =
        [table.require(COLUMNS[0])?, table.require(COLUMNS[1])?, table.require(COLUMNS[2])?];
    let tenant = Arc::from(stem(path, "splitwise_", "").as_str());
    let (name, tally) = (table.file.clone(), Arc::new(Tally::default()));
    let reader = Reader { table, columns, tenant, model: Arc::from("llm") };
    let shared = Arc::clone(&tally);
    let rows = Timed::new(reader, &name, Origin::Zero, QUANTUM_NS, options.sort, shared);
    let mut meta = Meta::default();
    meta.push("quantum_ns", QUANTUM_NS.to_string());
    let columns = Columns { tokens: true, extra: kept, ..Columns::default() };
    Ok(Stream { name, meta, columns, tally, rows: Box::new(rows) })
}

impl Parser for Reader {
    fn next_record(&mut self) -> Result<Option<Record>, TraceError> {
        if !self.table.advance()? {
            return Ok(None);
        }
        let [arrived, prefill, decode] = self.columns;
        let at = decimal::scaled(self.table.get(arrived), 9)
            .map_err(|_| self.table.bad(arrived, "a time of 0 s or later"))?;
        let mut row = Row::new(Nanos::ZERO, Arc::clone(&self.tenant), Arc::clone(&self.model));
        let rule = "a whole number of tokens";
        row.tokens_in = Some(self.table.number(prefill, rule)?);
        row.tokens_out = Some(self.table.number(decode, rule)?);
        row.extra.extend(self.table.kept());
        Ok(Some(Record { at, row, drop: None }))
    }

    fn line(&self) -> u64 {
        self.table.line()
    }
}
