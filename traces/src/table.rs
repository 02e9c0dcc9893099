//! A CSV file with named columns, read one record at a time into one buffer.

use std::io::{BufRead, Read};
use std::path::Path;

use csv::{Reader, ReaderBuilder, StringRecord};

use crate::error::{TraceError, excerpt, hint};
use crate::io::{self, Input};

/// The `# key=value` lines in front of a header, without the `#`.
pub(crate) type Preamble = Vec<(u64, String)>;

/// Lines longer than this before the header are no trace: better an error than all memory.
const LONGEST_PREAMBLE_LINE: u64 = 1 << 20;

pub(crate) struct Table {
    pub(crate) file: String,
    pub(crate) columns: Vec<String>,
    pub(crate) header_line: u64,
    reader: Reader<Input>,
    record: StringRecord,
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
            preamble.push((lines, read_line(&mut input, &file, lines)?));
        }
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
            record,
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

/// One line of at most a mebibyte, without its end.
pub(crate) fn read_line(input: &mut Input, file: &str, line: u64) -> Result<String, TraceError> {
    let mut bytes = Vec::new();
    let mut limited = input.take(LONGEST_PREAMBLE_LINE);
    limited.read_until(b'\n', &mut bytes).map_err(|cause| TraceError::io(file, cause))?;
    if bytes.len() as u64 == LONGEST_PREAMBLE_LINE && bytes.last() != Some(&b'\n') {
        return Err(TraceError::line(file, line, "a line of over 1 MiB: this is no trace"));
    }
    let text = String::from_utf8(bytes)
        .map_err(|_| TraceError::line(file, line, "the line is not UTF-8 text"))?;
    Ok(text.trim_end_matches(['\n', '\r']).to_owned())
}
