//! A CSV file with named columns, read one record at a time into one buffer.

use std::io::{BufRead, Read};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use csv::{Reader, ReaderBuilder, StringRecord};

use crate::error::{TraceError, excerpt, hint};
use crate::io::{self, Capped, Input, LONGEST_RECORD};
use crate::row::legal_name;

/// The `# key=value` lines in front of a header, without the `#`.
pub(crate) type Preamble = Vec<(u64, String)>;

/// The most `#` lines in front of a header.
const LONGEST_PREAMBLE: u64 = 10_000;

pub(crate) struct Table {
    pub(crate) file: String,
    pub(crate) columns: Vec<String>,
    pub(crate) header_line: u64,
    reader: Reader<Capped<Input>>,
    /// Bytes read since the last record.
    since: Arc<AtomicUsize>,
    record: StringRecord,
    /// Columns that no format knows, kept on request, and what they are called then.
    kept: Vec<(usize, String)>,
    first_line: u64,
    exhausted: bool,
}

impl Table {
    /// Opens `path`, hands back its `#` lines, and reads the header. Without a header the columns
    /// are named by `fixed`.
    pub(crate) fn open(
        path: &Path,
        fixed: Option<&[&str]>,
    ) -> Result<(Preamble, Self), TraceError> {
        let file = io::name_of(path);
        let mut input = io::open(path)?;
        let mut preamble = Preamble::new();
        let mut lines = 0;
        while input.fill_buf().map_err(|cause| TraceError::io(&file, cause))?.first() == Some(&b'#')
        {
            lines += 1;
            if lines > LONGEST_PREAMBLE {
                let problem =
                    format!("more than {LONGEST_PREAMBLE} `#` lines: this is not a trace");
                return Err(TraceError::line(&file, lines, problem));
            }
            preamble.push((lines, read_line(&mut input, &file, lines)?));
        }
        let (input, since) = Capped::new(input);
        let reader = ReaderBuilder::new()
            .has_headers(false)
            .flexible(true)
            .comment(Some(b'#'))
            .from_reader(input);
        let record = StringRecord::new();
        let columns = Vec::new();
        let mut table = Self {
            file,
            columns,
            header_line: 0,
            reader,
            since,
            record,
            kept: Vec::new(),
            first_line: lines,
            exhausted: false,
        };
        table.columns = match fixed {
            Some(names) => names.iter().map(|&n| n.to_owned()).collect(),
            None => table.header()?,
        };
        Ok((preamble, table))
    }

    fn header(&mut self) -> Result<Vec<String>, TraceError> {
        if !self.read()? {
            return Err(TraceError::file(&self.file, "the file has no header line"));
        }
        self.header_line = self.line();
        let columns: Vec<String> = self.record.iter().map(|c| c.trim().to_owned()).collect();
        for (i, column) in columns.iter().enumerate() {
            if columns[..i].contains(column) {
                let problem = format!("column `{}` appears twice", excerpt(column));
                return Err(TraceError::line(&self.file, self.header_line, problem));
            }
        }
        Ok(columns)
    }

    fn read(&mut self) -> Result<bool, TraceError> {
        self.since.store(0, Ordering::Relaxed);
        self.reader.read_record(&mut self.record).map_err(|error| {
            let line = error.position().map_or(0, |p| p.line() + self.first_line);
            match error.into_kind() {
                csv::ErrorKind::Io(cause) => TraceError::io(&self.file, cause),
                csv::ErrorKind::Utf8 { .. } => {
                    TraceError::line(&self.file, line, "the line is not UTF-8 text")
                }
                other => TraceError::line(&self.file, line, format!("not CSV: {other:?}")),
            }
        })
    }

    /// Reads the next record; false at the end.
    pub(crate) fn advance(&mut self) -> Result<bool, TraceError> {
        if !self.read()? {
            self.exhausted = true;
            return Ok(false);
        }
        if self.record.len() != self.columns.len() {
            let (found, expected) = (self.record.len(), self.columns.len());
            let problem = format!("{found} fields where the header has {expected}");
            return Err(TraceError::line(&self.file, self.line(), problem));
        }
        Ok(true)
    }

    /// Whether the last record has been read.
    pub(crate) fn is_exhausted(&self) -> bool {
        self.exhausted
    }

    /// The line of the current record, from 1.
    pub(crate) fn line(&self) -> u64 {
        self.record.position().map_or(0, csv::Position::line) + self.first_line
    }

    /// The trimmed text of a column in the current record.
    pub(crate) fn get(&self, column: usize) -> &str {
        self.record.get(column).unwrap_or("").trim()
    }

    /// The text of a column in the current record, untouched.
    pub(crate) fn raw(&self, column: usize) -> &str {
        self.record.get(column).unwrap_or("")
    }

    /// The column named `name`, if the header has it.
    pub(crate) fn find(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|c| c == name)
    }

    /// The column named `name`, or an error that says which columns there are.
    pub(crate) fn require(&self, name: &str) -> Result<usize, TraceError> {
        self.find(name).ok_or_else(|| TraceError::MissingColumn {
            file: self.file.clone(),
            line: self.header_line,
            column: name.to_owned(),
            hint: format!("; the header has {}", excerpt(&self.columns.join(", "))),
        })
    }

    /// Refuses every column that `known` does not name and `free` does not accept.
    pub(crate) fn only(&self, known: &[&str], free: fn(&str) -> bool) -> Result<(), TraceError> {
        match self.columns.iter().find(|c| !known.contains(&c.as_str()) && !free(c)) {
            None => Ok(()),
            Some(column) => Err(TraceError::UnknownColumn {
                file: self.file.clone(),
                line: self.header_line,
                column: excerpt(column),
                hint: hint(column, known.iter().copied()),
            }),
        }
    }

    /// As [`Table::only`]; on request unknown columns become pass-through columns `x_…`, whose
    /// names are handed back.
    pub(crate) fn only_or_keep(
        &mut self,
        known: &[&str],
        keep: bool,
    ) -> Result<Vec<String>, TraceError> {
        if !keep {
            return self.only(known, |_| false).map(|()| Vec::new());
        }
        let mut names: Vec<String> = Vec::new();
        for (at, column) in self.columns.iter().enumerate() {
            if !known.contains(&column.as_str()) {
                let name = unused(extra_name(column), &names);
                names.push(name.clone());
                self.kept.push((at, name));
            }
        }
        Ok(self.kept.iter().map(|(_, name)| name.clone()).collect())
    }

    /// Names unknown columns `x_…`, as the canonical format has pass-through columns.
    pub(crate) fn name_extra(&mut self, known: &[&str]) {
        for at in 0..self.columns.len() {
            let column = &self.columns[at];
            if !known.contains(&column.as_str()) && !column.starts_with("x_") {
                self.columns[at] = unused(extra_name(column), &self.columns);
            }
        }
    }

    /// The values of the columns that were kept.
    pub(crate) fn kept(&self) -> impl Iterator<Item = Arc<str>> {
        self.kept.iter().map(|&(at, _)| Arc::from(self.raw(at)))
    }

    /// The current record's value of `column` is not what it should be.
    pub(crate) fn bad(&self, column: usize, expected: &'static str) -> TraceError {
        TraceError::Value {
            file: self.file.clone(),
            line: self.line(),
            field: self.columns[column].clone(),
            value: excerpt(self.get(column)),
            expected,
        }
    }

    /// A number of the column, or an error that says what is accepted.
    pub(crate) fn number<T: std::str::FromStr>(
        &self,
        column: usize,
        expected: &'static str,
    ) -> Result<T, TraceError> {
        self.get(column).parse().map_err(|_| self.bad(column, expected))
    }
}

/// The pass-through name of a foreign column: `Session ID` becomes `x_session_id`.
pub(crate) fn extra_name(column: &str) -> String {
    format!("x_{}", legal_name(&column.trim().to_lowercase().replace(' ', "_"), 62))
}

/// The name, or with the first number behind it that nothing else has.
fn unused(name: String, taken: &[String]) -> String {
    if !taken.contains(&name) {
        return name;
    }
    let numbered = (2..).map(|n| format!("{name}_{n}"));
    numbered.into_iter().find(|n| !taken.contains(n)).unwrap_or(name)
}

/// One line of at most a mebibyte, without its end.
pub(crate) fn read_line(input: &mut Input, file: &str, line: u64) -> Result<String, TraceError> {
    let mut bytes = Vec::new();
    let longest = LONGEST_RECORD as u64;
    let mut limited = input.take(longest);
    limited.read_until(b'\n', &mut bytes).map_err(|cause| TraceError::io(file, cause))?;
    if bytes.len() as u64 == longest && bytes.last() != Some(&b'\n') {
        return Err(TraceError::line(file, line, "a line of over 1 MiB: this is not a trace"));
    }
    let text = String::from_utf8(bytes)
        .map_err(|_| TraceError::line(file, line, "the line is not UTF-8 text"))?;
    Ok(text.trim_end_matches(['\n', '\r']).to_owned())
}
