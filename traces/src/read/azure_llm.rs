//! Azure LLM inference traces of 2023 and 2024, and the multimodal one of 2025 (CC-BY-4.0):
//! `TIMESTAMP,ContextTokens,GeneratedTokens`, and `NumImages` in 2025. Stamps carry 7, 6, 3 or no
//! fractional digits, and `+00:00`, `Z` or nothing behind them; files may lack a final newline.
//!
//! One row is one request. The tenant is the file's own name (`conv`, `code`), the model `llm`.
//! `NumImages` becomes `items`, at least 1. Time starts at the first row.

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
    name: "azure-llm",
    summary: "Azure LLM inference 2023 and 2024, and multimodal 2025",
    open,
    sniff: |probe| probe.lines.first().is_some_and(|l| l.starts_with("TIMESTAMP,")),
};

const COLUMNS: [&str; 4] = ["TIMESTAMP", "ContextTokens", "GeneratedTokens", "NumImages"];
/// Azure's clock ticks.
const QUANTUM_NS: u64 = 100;

struct Reader {
    table: Table,
    stamp: usize,
    tokens_in: usize,
    tokens_out: usize,
    images: Option<usize>,
    tenant: Arc<str>,
    model: Arc<str>,
}

fn open(path: &Path, options: &ReadOptions) -> Result<Stream, TraceError> {
    let (_, mut table) = Table::open(path, None)?;
    let kept = table.only_or_keep(&COLUMNS, options.keep_extra)?;
    let (stamp, tokens_in) = (table.require(COLUMNS[0])?, table.require(COLUMNS[1])?);
    let (tokens_out, images) = (table.require(COLUMNS[2])?, table.find(COLUMNS[3]));
    let name = stem(path, "AzureLLMInferenceTrace_", "_1week");
    let (tenant, model) = (Arc::from(name.as_str()), Arc::from("llm"));
    let (name, tally) = (table.file.clone(), Arc::new(Tally::default()));
    let reader = Reader { table, stamp, tokens_in, tokens_out, images, tenant, model };
    let shared = Arc::clone(&tally);
    let rows = Timed::new(reader, &name, Origin::First, QUANTUM_NS, options.sort, shared);
    let mut meta = Meta::default();
    meta.push("licence", "CC-BY-4.0");
    meta.push("quantum_ns", QUANTUM_NS.to_string());
    let columns =
        Columns { tokens: true, extra: kept, items: images.is_some(), ..Columns::default() };
    Ok(Stream { name, meta, columns, tally, rows: Box::new(rows) })
}

impl Parser for Reader {
    fn next_record(&mut self) -> Result<Option<Record>, TraceError> {
        if !self.table.advance()? {
            return Ok(None);
        }
        let at = decimal::datetime(self.table.get(self.stamp)).ok_or_else(|| {
            self.table.bad(self.stamp, "a time such as 2023-11-16 18:15:46.6805900")
        })?;
        let mut row = Row::new(Nanos::ZERO, Arc::clone(&self.tenant), Arc::clone(&self.model));
        let rule = "a whole number of tokens";
        row.tokens_in = Some(self.table.number(self.tokens_in, rule)?);
        row.tokens_out = Some(self.table.number(self.tokens_out, rule)?);
        if let Some(column) = self.images {
            row.items = self.table.number::<u32>(column, "a whole number of images")?.max(1);
        }
        row.extra.extend(self.table.kept());
        Ok(Some(Record { at, row, drop: None }))
    }

    fn line(&self) -> u64 {
        self.table.line()
    }
}
