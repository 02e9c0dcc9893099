//! CSV with a header, read so that every cell knows its line: the base of all readers here.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::str::FromStr;

use super::error::{FileError, Problem};
use crate::text;

/// The first line of every CSV file of a profile.
pub(crate) const VERSION: &str = "# cotenant-profile v1";

/// A file's rows, by named columns.
#[derive(Debug)]
pub(crate) struct Table {
    /// What errors call the file.
    pub file: String,
    /// `# key=value` lines, with their line numbers.
    pub header: BTreeMap<String, (usize, String)>,
    columns: Vec<String>,
    rows: Vec<(usize, csv::StringRecord)>,
}

/// One row of a [`Table`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Row<'a> {
    table: &'a Table,
    line: usize,
    record: &'a csv::StringRecord,
}

/// Which columns a table may have.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Columns {
    /// These must be there.
    pub needed: &'static [&'static str],
    /// These may be.
    pub optional: &'static [&'static str],
}

impl Columns {
    fn known(self) -> impl Iterator<Item = &'static str> + Clone {
        self.needed.iter().chain(self.optional).copied()
    }

    fn list(self) -> String {
        self.known().collect::<Vec<_>>().join(", ")
    }
}

impl Table {
    /// Reads `text`; with `versioned`, the file must open with [`VERSION`] and `# key=value` lines.
    pub(crate) fn parse(
        text: &str,
        file: &str,
        columns: Columns,
        versioned: bool,
    ) -> Result<Self, FileError> {
        let bad = |line, field: &str, problem| FileError::bad(file, line, field, problem);
        let text = text.strip_prefix('\u{feff}').unwrap_or(text).replace("\r\n", "\n");
        let (header, body_at) = if versioned { head(&text, file)? } else { (BTreeMap::new(), 0) };
        let mut lines = LineCounter::new(&text);
        let mut reader = csv::ReaderBuilder::new()
            .has_headers(false)
            .flexible(true)
            .trim(csv::Trim::All)
            .from_reader(&text.as_bytes()[body_at..]);
        let mut names: Option<Vec<String>> = None;
        let mut rows = Vec::new();
        for record in reader.records() {
            // The input is UTF-8 and rows may differ in width: nothing else can go wrong.
            let record = record.map_err(|_| bad(1, "file", Problem::Encoding))?;
            let at = record.position().map_or(0, |p| usize::try_from(p.byte()).unwrap_or(0));
            let line = lines.at(body_at + at);
            match &names {
                None => names = Some(check_columns(&record, file, line, columns)?),
                Some(names) if record.len() != names.len() => {
                    let (found, expected) = (record.len(), names.len());
                    return Err(bad(line, "row", Problem::Cells { found, expected }));
                }
                Some(_) => rows.push((line, record)),
            }
        }
        let end = text.lines().count().max(1);
        let columns = names.ok_or_else(|| bad(end, "file", Problem::NoHeader(columns.list())))?;
        Ok(Self { file: file.to_owned(), header, columns, rows })
    }

    /// Whether the file has this column.
    pub(crate) fn has(&self, column: &str) -> bool {
        self.columns.iter().any(|c| c == column)
    }

    pub(crate) fn rows(&self) -> impl Iterator<Item = Row<'_>> {
        self.rows.iter().map(|(line, record)| Row { table: self, line: *line, record })
    }

    /// Rows read.
    pub(crate) fn len(&self) -> usize {
        self.rows.len()
    }
}

impl<'a> Row<'a> {
    /// An error at this row.
    pub(crate) fn bad(self, column: &str, problem: Problem) -> FileError {
        FileError::bad(&self.table.file, self.line, column, problem)
    }

    /// The cell of `column`, which the reader has made sure of.
    pub(crate) fn text(self, column: &str) -> &'a str {
        self.get(column).unwrap_or_default()
    }

    /// The cell of an optional column; absent and empty are the same.
    pub(crate) fn get(self, column: &str) -> Option<&'a str> {
        let index = self.table.columns.iter().position(|c| c == column)?;
        self.record.get(index).filter(|cell| !cell.is_empty())
    }

    /// A whole number from `low` to `high`.
    pub(crate) fn int<T>(self, column: &str, low: T, high: T) -> Result<T, FileError>
    where
        T: FromStr + PartialOrd + Display + Copy,
    {
        let text = self.text(column);
        let value = text.parse::<T>().ok().filter(|v| *v >= low && *v <= high);
        value.ok_or_else(|| {
            let wanted = format!("a whole number from {low} to {high}");
            self.bad(column, Problem::Value { text: text.to_owned(), wanted })
        })
    }

    /// A decimal number above `low` and up to `high`.
    pub(crate) fn decimal(self, column: &str, low: f64, high: f64) -> Result<f64, FileError> {
        let text = self.text(column);
        let value = text.parse::<f64>().ok().filter(|v| *v > low && *v <= high);
        value.ok_or_else(|| {
            let wanted = format!("a number above {low}, up to {high}");
            self.bad(column, Problem::Value { text: text.to_owned(), wanted })
        })
    }
}

type Head = (BTreeMap<String, (usize, String)>, usize);

/// The version line and the `# key=value` lines, and where the rest begins.
fn head(text: &str, file: &str) -> Result<Head, FileError> {
    let mut keys = BTreeMap::new();
    let mut at = 0;
    for (index, line) in text.split_inclusive('\n').enumerate() {
        let content = line.trim_end();
        let bad = |field: &str, problem| FileError::bad(file, index + 1, field, problem);
        if index == 0 {
            if content != VERSION {
                let shown: String = content.chars().take(60).collect();
                return Err(bad("file", Problem::Version(shown)));
            }
        } else if let Some(pair) = content.strip_prefix('#') {
            let Some((key, value)) = pair.split_once('=') else {
                return Err(bad("header", Problem::Header(content.to_owned())));
            };
            let key = key.trim().to_owned();
            let value = (index + 1, value.trim().to_owned());
            if keys.insert(key.clone(), value).is_some() {
                return Err(bad(&key, Problem::Duplicate(key.clone())));
            }
        } else {
            break;
        }
        at += line.len();
    }
    if at == 0 {
        return Err(FileError::bad(file, 1, "file", Problem::Version(String::new())));
    }
    Ok((keys, at))
}

fn check_columns(
    record: &csv::StringRecord,
    file: &str,
    line: usize,
    columns: Columns,
) -> Result<Vec<String>, FileError> {
    let mut names: Vec<String> = Vec::new();
    for name in record {
        if !columns.known().any(|k| k == name) {
            let hint = text::did_you_mean(name, columns.known());
            let problem = Problem::UnknownColumn { hint, known: columns.list() };
            return Err(FileError::bad(file, line, name, problem));
        }
        if names.iter().any(|n| n == name) {
            return Err(FileError::bad(file, line, name, Problem::Duplicate(name.to_owned())));
        }
        names.push(name.to_owned());
    }
    match columns.needed.iter().find(|needed| !names.iter().any(|n| n == *needed)) {
        Some(missing) => {
            let problem = Problem::MissingColumn(columns.needed.join(", "));
            Err(FileError::bad(file, line, missing, problem))
        }
        None => Ok(names),
    }
}

/// Line numbers of growing byte offsets; empty lines before a record are not its own.
struct LineCounter<'a> {
    bytes: &'a [u8],
    at: usize,
    line: usize,
}

impl<'a> LineCounter<'a> {
    fn new(text: &'a str) -> Self {
        Self { bytes: text.as_bytes(), at: 0, line: 1 }
    }

    fn at(&mut self, offset: usize) -> usize {
        while self.at < self.bytes.len()
            && (self.at < offset || matches!(self.bytes[self.at], b'\n' | b'\r'))
        {
            self.line += usize::from(self.bytes[self.at] == b'\n');
            self.at += 1;
        }
        self.line
    }
}
