//! `cotenant-trace v1`: the canonical trace file, read and written one row at a time.

use std::path::Path;
use std::sync::Arc;

use cotenant_profiles::Nanos;

use crate::decimal::{self, DecimalError};
use crate::error::{TraceError, excerpt};
use crate::format::{Probe, ReadOptions};
use crate::row::{Columns, Meta, NAME_RULE, Names, Row, Source, Stream, Tally, is_name};
use crate::table::{Preamble, Table};
use crate::transform;

/// The first line of a trace file, without `# `.
pub const MAGIC: &str = "cotenant-trace v1";

/// Units of a time column and their power of ten over nanoseconds.
const UNITS: [(&str, i64); 4] = [("ns", 0), ("us", 3), ("ms", 6), ("s", 9)];

const KNOWN: [&str; 16] = [
    "arrival_ns",
    "arrival_us",
    "arrival_ms",
    "arrival_s",
    "tenant",
    "model",
    "items",
    "slo_ns",
    "slo_us",
    "slo_ms",
    "slo_s",
    "prio",
    "work",
    "tokens_in",
    "tokens_out",
    "session",
];

/// Opens a canonical trace. The file's own accounting is checked when its rows end. With
/// `options.sort` its rows may stand in any order; they are then sorted in memory. With
/// `options.keep_extra` columns that it does not have pass through as `x_…`.
///
/// # Errors
/// An unreadable file, a header or a row that breaks the format.
pub fn open(path: &Path, options: &ReadOptions) -> Result<Stream, TraceError> {
    let (preamble, mut table) = Table::open(path, None)?;
    let meta = meta(&table.file, &preamble, MAGIC)?;
    if options.keep_extra {
        table.name_extra(&KNOWN);
    }
    let layout = Layout::of(&table)?;
    let tally = Arc::new(Tally::default());
    let declared = Declared::of(&table.file, &meta)?;
    if meta.get("magic").is_none() {
        tally.warn(format!("{}: no `# {MAGIC}` line; read as one", table.file));
    }
    if declared.duration.is_none() {
        tally.warn(format!(
            "{}: no `# duration_ns=` line: the trace is taken to end 1 ns after its last row, so \
             idle time behind it is not counted in its rate",
            table.file
        ));
    }
    let columns = layout.columns(&table);
    let name = table.file.clone();
    let shared = Arc::clone(&tally);
    let reader = Reader {
        table,
        layout,
        declared,
        tally: shared,
        names: Names::default(),
        rows: 0,
        last: None,
        sort: options.sort,
    };
    let mut meta = meta;
    meta.0.retain(|(key, _)| key != "magic");
    let rows: Box<dyn Source> = Box::new(reader);
    let rows = if options.sort { transform::sorted(rows, &tally) } else { rows };
    Ok(Stream { name, meta, columns, tally, rows })
}

/// The `# key=value` lines; the magic line, where there is one, becomes the key `magic`.
pub(crate) fn meta(file: &str, preamble: &Preamble, magic: &str) -> Result<Meta, TraceError> {
    let mut meta = Meta::default();
    for (line, text) in preamble {
        let text = text.trim_start_matches('#').trim();
        if let Some((key, value)) = text.split_once('=') {
            meta.push(key.trim(), value.trim());
        } else if text == magic {
            meta.push("magic", magic);
        } else if text.starts_with("cotenant-") {
            let problem = format!("`{}` where `{magic}` is read", excerpt(text));
            return Err(TraceError::line(file, *line, problem));
        }
    }
    Ok(meta)
}

/// What the `#` lines promise about the rows.
struct Declared {
    duration: Option<u64>,
    rows_in: Option<u64>,
    dropped: u64,
}

impl Declared {
    fn of(file: &str, meta: &Meta) -> Result<Self, TraceError> {
        let number = |key: &str| match meta.get(key) {
            None => Ok(None),
            Some(text) => text.parse::<u64>().map(Some).map_err(|_| {
                let shown = excerpt(text);
                TraceError::file(file, format!("{key}: `{shown}` is not a whole number"))
            }),
        };
        let mut dropped = 0u64;
        for item in meta.get("dropped").unwrap_or("").split(',').filter(|s| !s.trim().is_empty()) {
            let count = item.rsplit_once(':').and_then(|(_, n)| n.trim().parse().ok());
            let sum = count.and_then(|n| dropped.checked_add(n));
            dropped = sum.ok_or_else(|| {
                let shown = excerpt(item);
                TraceError::file(file, format!("dropped: `{shown}` is not reason:count"))
            })?;
        }
        Ok(Self { duration: number("duration_ns")?, rows_in: number("rows_in")?, dropped })
    }
}

/// Where each field stands in a record.
struct Layout {
    arrival: (usize, i64),
    slo: Option<(usize, i64)>,
    tenant: usize,
    model: usize,
    items: Option<usize>,
    prio: Option<usize>,
    work: Option<usize>,
    tokens_in: Option<usize>,
    tokens_out: Option<usize>,
    session: Option<usize>,
    extra: Vec<usize>,
}

impl Layout {
    fn of(table: &Table) -> Result<Self, TraceError> {
        table.only(&KNOWN, |column| column.strip_prefix("x_").is_some_and(is_name))?;
        let arrival = time_column(table, "arrival")?.ok_or_else(|| TraceError::MissingColumn {
            file: table.file.clone(),
            line: table.header_line,
            column: "arrival_ns".to_owned(),
            hint: " (or arrival_us, arrival_ms, arrival_s)".to_owned(),
        })?;
        let is_extra = |i: &usize| table.columns[*i].starts_with("x_");
        Ok(Self {
            arrival,
            slo: time_column(table, "slo")?,
            tenant: table.require("tenant")?,
            model: table.require("model")?,
            items: table.find("items"),
            prio: table.find("prio"),
            work: table.find("work"),
            tokens_in: table.find("tokens_in"),
            tokens_out: table.find("tokens_out"),
            session: table.find("session"),
            extra: (0..table.columns.len()).filter(is_extra).collect(),
        })
    }

    fn columns(&self, table: &Table) -> Columns {
        Columns {
            items: self.items.is_some(),
            slo: self.slo.is_some(),
            prio: self.prio.is_some(),
            work: self.work.is_some(),
            tokens: self.tokens_in.is_some() || self.tokens_out.is_some(),
            session: self.session.is_some(),
            extra: self.extra.iter().map(|&i| table.columns[i].clone()).collect(),
        }
    }
}

/// The one column `<stem>_ns|us|ms|s` of the header.
fn time_column(table: &Table, stem: &str) -> Result<Option<(usize, i64)>, TraceError> {
    let mut found = UNITS
        .iter()
        .filter_map(|(unit, power)| Some((table.find(&format!("{stem}_{unit}"))?, *power)));
    let first = found.next();
    if let (Some((first, _)), Some((second, _))) = (first, found.next()) {
        let (a, b) = (&table.columns[first], &table.columns[second]);
        let problem = format!("`{a}` and `{b}`: exactly one of them is accepted");
        return Err(TraceError::line(&table.file, table.header_line, problem));
    }
    Ok(first)
}

struct Reader {
    table: Table,
    layout: Layout,
    declared: Declared,
    tally: Arc<Tally>,
    names: Names,
    rows: u64,
    last: Option<u64>,
    sort: bool,
}

impl Reader {
    fn time(&self, (column, power): (usize, i64)) -> Result<Nanos, TraceError> {
        let text = self.table.get(column);
        let expected = match (power, decimal::scaled(text, power)) {
            (0, Ok(ns)) if text.bytes().all(|b| b.is_ascii_digit()) => return Ok(Nanos(ns)),
            (0, Ok(_)) => "a whole number of nanoseconds",
            (_, Ok(ns)) => return Ok(Nanos(ns)),
            (_, Err(DecimalError::Negative)) => "a time of 0 or later",
            (_, Err(DecimalError::TooLarge)) => "a time below 584 years",
            (_, Err(DecimalError::NotANumber)) => "a time as a decimal number",
        };
        Err(self.table.bad(column, expected))
    }

    fn name(&mut self, column: usize) -> Result<Arc<str>, TraceError> {
        let text = self.table.get(column);
        if is_name(text) {
            Ok(self.names.get(text))
        } else {
            Err(self.table.bad(column, NAME_RULE))
        }
    }

    /// An optional number: an absent column and an empty field are `None`.
    fn optional<T: std::str::FromStr>(
        &self,
        column: Option<usize>,
        expected: &'static str,
    ) -> Result<Option<T>, TraceError> {
        match column {
            Some(c) if !self.table.get(c).is_empty() => self.table.number(c, expected).map(Some),
            _ => Ok(None),
        }
    }

    fn row(&mut self) -> Result<Row, TraceError> {
        let arrival = self.time(self.layout.arrival)?;
        self.check_order(arrival.0)?;
        let tenant = self.name(self.layout.tenant)?;
        let model = self.name(self.layout.model)?;
        let mut row = Row::new(arrival, tenant, model);
        row.slo = match self.layout.slo {
            Some(at) if !self.table.get(at.0).is_empty() => Some(self.time(at)?),
            _ => None,
        };
        let items_rule = "a whole number of at least 1";
        row.items = self.optional(self.layout.items, items_rule)?.unwrap_or(1);
        row.prio = self.optional(self.layout.prio, "a whole number from -128 to 127")?.unwrap_or(0);
        let work_rule = "a finite number above 0";
        row.work = self.optional(self.layout.work, work_rule)?.unwrap_or(1.0);
        if let Some(column) = self.layout.items.filter(|_| row.items == 0) {
            return Err(self.table.bad(column, items_rule));
        }
        if let Some(column) = self.layout.work.filter(|_| !(row.work > 0.0 && row.work.is_finite()))
        {
            return Err(self.table.bad(column, work_rule));
        }
        let tokens_rule = "a whole number of tokens";
        row.tokens_in = self.optional(self.layout.tokens_in, tokens_rule)?;
        row.tokens_out = self.optional(self.layout.tokens_out, tokens_rule)?;
        let session = self.layout.session.map(|c| self.table.get(c)).filter(|s| !s.is_empty());
        // Sessions and pass-through values may be all different: sharing them would hold them all.
        row.session = session.map(Arc::from);
        for &column in &self.layout.extra {
            row.extra.push(Arc::from(self.table.raw(column)));
        }
        Ok(row)
    }

    fn check_order(&self, arrival: u64) -> Result<(), TraceError> {
        let (file, line) = (&self.table.file, self.table.line());
        if let Some(last) = self.last.filter(|&last| arrival < last && !self.sort) {
            let problem = format!(
                "arrival {arrival} ns is earlier than the row before ({last} ns); convert the file \
                 with the transform `sort` first"
            );
            return Err(TraceError::line(file, line, problem));
        }
        if let Some(end) = self.declared.duration.filter(|&end| arrival >= end) {
            let problem = format!("arrival {arrival} ns is not before duration_ns={end}");
            return Err(TraceError::line(file, line, problem));
        }
        Ok(())
    }

    fn check_accounting(&self) -> Result<(), TraceError> {
        match self.declared.rows_in {
            Some(rows_in) if Some(rows_in) != self.rows.checked_add(self.declared.dropped) => {
                Err(TraceError::Accounting {
                    file: self.table.file.clone(),
                    rows_in,
                    rows_out: self.rows,
                    dropped: self.declared.dropped,
                })
            }
            _ => Ok(()),
        }
    }
}

impl Source for Reader {
    fn next_row(&mut self) -> Result<Option<Row>, TraceError> {
        if !self.table.advance()? {
            self.check_accounting()?;
            return Ok(None);
        }
        let row = self.row()?;
        self.last = self.last.max(Some(row.arrival.0));
        self.rows += 1;
        self.tally.read();
        Ok(Some(row))
    }

    fn duration(&self) -> Option<Nanos> {
        // Before the end a missing declaration is unknown; asked at the end it is last + 1.
        let end = || self.last.map_or(0, |last| last.saturating_add(1));
        self.declared.duration.or_else(|| self.table.is_exhausted().then(end)).map(Nanos)
    }
}

/// Whether a file looks like a canonical trace.
pub(crate) fn sniff(probe: &Probe) -> bool {
    probe.first.contains("cotenant-trace")
        || probe.lines.first().is_some_and(|line| {
            let mut columns = line.split(',').map(str::trim);
            columns.any(|c| UNITS.iter().any(|(unit, _)| c == format!("arrival_{unit}")))
        })
}
