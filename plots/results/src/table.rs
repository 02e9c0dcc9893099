//! Result tables as in their files: text columns that name things, and numbers that may be missing. A
//! malformed field is rejected with file, line and column.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;
use std::sync::Arc;

use crate::columns::{
    CDF, COUNTERS, CURVES, LAYOUTS, LEADING, MATRIX, Metric, NAMES, SERIES_LEADING, STATUS,
};
use crate::columns::{TIMELINE, VALIDATION, has_numbers, unknown};
use crate::error::ReadError;
use crate::spec::Wanted;

/// One row: texts and numbers in the order of the columns of its [`Table`]. Kept small: a table may have
/// hundreds of thousands of rows.
#[derive(Clone, Debug)]
pub struct Row {
    /// Line in the file, from 1.
    pub line: u64,
    /// Equal texts of a table are stored once.
    texts: Box<[Arc<str>]>,
    /// NaN if there is no number.
    numbers: Box<[f64]>,
}

/// A table.
#[derive(Clone, Debug)]
pub struct Table {
    texts: Vec<String>,
    numbers: Vec<String>,
    /// The rows, in file order.
    pub rows: Vec<Row>,
}

impl Table {
    /// Reads `results.csv`.
    ///
    /// # Errors
    /// The file is missing or malformed; the message names file, line and column.
    pub fn results(path: &Path, sweep_keys: &[String]) -> Result<Self, ReadError> {
        let keys = sweep_keys.iter().map(String::as_str);
        let texts = LEADING.into_iter().chain(keys).chain(NAMES).chain([STATUS]).collect();
        Self::open(path, texts, Metric::ALL.map(Metric::name).to_vec(), |name| {
            Metric::find(name).is_some_and(|m| !m.always())
        })
    }

    /// Reads `cdf.csv`.
    ///
    /// # Errors
    /// The file is missing or malformed; the message names file, line and column.
    pub fn cdf(path: &Path, sweep_keys: &[String]) -> Result<Self, ReadError> {
        let keys = sweep_keys.iter().map(String::as_str);
        let texts = SERIES_LEADING.into_iter().chain(keys).chain([CDF[0]]).collect();
        Self::read(path, texts, CDF[1..].to_vec())
    }

    /// Reads `series.csv`.
    ///
    /// # Errors
    /// The file is missing or malformed; the message names file, line and column.
    pub fn series(path: &Path, sweep_keys: &[String]) -> Result<Self, ReadError> {
        let keys = sweep_keys.iter().map(String::as_str);
        let texts = SERIES_LEADING.into_iter().chain(keys).chain([TIMELINE[0]]).collect();
        Self::read(path, texts, TIMELINE[1..].to_vec())
    }

    /// Reads `counters.csv`.
    ///
    /// # Errors
    /// The file is missing or malformed; the message names file, line and column.
    pub fn counters(path: &Path, sweep_keys: &[String]) -> Result<Self, ReadError> {
        let keys = sweep_keys.iter().map(String::as_str);
        let texts =
            SERIES_LEADING.into_iter().chain(keys).chain(COUNTERS[..2].iter().copied()).collect();
        Self::read(path, texts, COUNTERS[2..].to_vec())
    }

    /// Reads `layouts.csv`.
    ///
    /// # Errors
    /// The file is missing or malformed; the message names file, line and column.
    pub fn layouts(path: &Path, sweep_keys: &[String]) -> Result<Self, ReadError> {
        let keys = sweep_keys.iter().map(String::as_str);
        let names = LAYOUTS[..4].iter().copied();
        let texts = SERIES_LEADING.into_iter().chain(keys).chain(names).collect();
        Self::read(path, texts, LAYOUTS[4..].to_vec())
    }

    /// Reads `curves.csv`.
    ///
    /// # Errors
    /// The file is missing or malformed; the message names file, line and column.
    pub fn curves(path: &Path) -> Result<Self, ReadError> {
        Self::read(path, CURVES[..3].to_vec(), CURVES[3..].to_vec())
    }

    /// Reads `validation.csv`.
    ///
    /// # Errors
    /// The file is missing or malformed; the message names file, line and column.
    pub fn validation(path: &Path) -> Result<Self, ReadError> {
        Self::read(path, VALIDATION[..3].to_vec(), VALIDATION[3..].to_vec())
    }

    /// Reads a tuner's `matrix.csv`.
    ///
    /// # Errors
    /// The file is missing or malformed; the message names file, line and column.
    pub fn matrix(path: &Path) -> Result<Self, ReadError> {
        Self::read(path, MATRIX[..4].to_vec(), MATRIX[4..].to_vec())
    }

    fn read(path: &Path, texts: Vec<&str>, numbers: Vec<&str>) -> Result<Self, ReadError> {
        Self::open(path, texts, numbers, |_| false)
    }

    /// Reads a table in which columns that are `optional` may be missing.
    fn open(
        path: &Path,
        texts: Vec<&str>,
        mut numbers: Vec<&str>,
        optional: impl Fn(&str) -> bool,
    ) -> Result<Self, ReadError> {
        let file = std::fs::File::open(path)
            .map_err(|source| ReadError::Read { path: path.to_owned(), source })?;
        let fault = |line, message| ReadError::Table { path: path.to_owned(), line, message };
        let mut reader =
            csv::ReaderBuilder::new().comment(Some(b'#')).flexible(true).from_reader(file);
        let header = reader.headers().map_err(|e| csv_fault(path, &e))?.clone();
        let header_line = header.position().map_or(1, csv::Position::line);
        let header: Vec<&str> = header.iter().collect();
        let known: Vec<&str> = texts.iter().chain(&numbers).copied().collect();
        let may_lack = |name: &&str| !header.contains(name) && optional(name);
        check_header(&header, &known, may_lack).map_err(|m| fault(header_line, m))?;
        numbers.retain(|name| !may_lack(name));
        let place = |name: &&str| header.iter().position(|h| h == name).expect("checked above");
        let text_at: Vec<usize> = texts.iter().map(place).collect();
        let number_at: Vec<usize> = numbers.iter().map(place).collect();
        let (mut rows, mut seen) = (Vec::new(), HashSet::new());
        let mut record = csv::StringRecord::new();
        while reader.read_record(&mut record).map_err(|e| csv_fault(path, &e))? {
            let line = record.position().map_or(0, csv::Position::line);
            if record.len() != header.len() {
                let message =
                    format!("{} fields where the header has {}", record.len(), header.len());
                return Err(fault(line, message));
            }
            let numbers = number_at
                .iter()
                .map(|&i| number(&record[i], header[i]).map_err(|m| fault(line, m)))
                .collect::<Result<_, _>>()?;
            let texts = text_at.iter().map(|&i| one(&mut seen, &record[i])).collect();
            rows.push(Row { line, texts, numbers });
        }
        let own = |names: Vec<&str>| names.into_iter().map(str::to_owned).collect();
        Ok(Self { texts: own(texts), numbers: own(numbers), rows })
    }

    /// The text of `row` in `column`; empty if the table has no such column.
    pub fn text<'a>(&self, row: &'a Row, column: &str) -> &'a str {
        self.texts.iter().position(|c| c == column).map_or("", |i| &*row.texts[i])
    }

    /// The number of `row` in `column`; `None` if the field is empty.
    pub fn number(&self, row: &Row, column: &str) -> Option<f64> {
        self.numbers
            .iter()
            .position(|c| c == column)
            .map(|i| row.numbers[i])
            .filter(|n| !n.is_nan())
    }

    /// Text of a column for filters, which also apply to numbers.
    fn field(&self, row: &Row, column: &str) -> String {
        match self.number(row, column) {
            Some(n) => n.to_string(),
            None => self.text(row, column).to_owned(),
        }
    }

    /// Rows of successful cells that match `filter`.
    pub fn select(&self, filter: &BTreeMap<String, Wanted>) -> Vec<&Row> {
        let has_status = self.texts.iter().any(|c| c == STATUS);
        let ok = |row: &&Row| !has_status || has_numbers(self.text(row, STATUS));
        self.matching(filter).into_iter().filter(ok).collect()
    }

    /// Rows that match `filter`, including those of failed cells.
    pub fn matching(&self, filter: &BTreeMap<String, Wanted>) -> Vec<&Row> {
        self.rows
            .iter()
            .filter(|row| filter.iter().all(|(c, wanted)| wanted.matches(&self.field(row, c))))
            .collect()
    }

    /// The distinct values of a text column among `rows`, in order of appearance.
    pub fn distinct(&self, rows: &[&Row], column: &str) -> Vec<String> {
        let mut seen: Vec<String> = Vec::new();
        for row in rows {
            let text = self.text(row, column);
            if !seen.iter().any(|s| s == text) {
                seen.push(text.to_owned());
            }
        }
        seen
    }
}

/// The text, shared with all equal ones.
fn one(seen: &mut HashSet<Arc<str>>, text: &str) -> Arc<str> {
    if let Some(same) = seen.get(text) {
        return same.clone();
    }
    let text: Arc<str> = text.into();
    seen.insert(text.clone());
    text
}

fn csv_fault(path: &Path, error: &csv::Error) -> ReadError {
    let line = error.position().map_or(1, csv::Position::line);
    let message = match error.kind() {
        csv::ErrorKind::Utf8 { .. } => "is not UTF-8 text".to_owned(),
        _ => error.to_string(),
    };
    ReadError::Table { path: path.to_owned(), line, message }
}

fn check_header(
    header: &[&str],
    known: &[&str],
    may_lack: impl Fn(&&str) -> bool,
) -> Result<(), String> {
    if let Some(stranger) = header.iter().find(|h| !known.contains(h)) {
        return Err(unknown("column", stranger, known));
    }
    if let Some(missing) = known.iter().find(|k| !header.contains(k) && !may_lack(k)) {
        return Err(format!("column `{missing}` is missing"));
    }
    if header.iter().enumerate().any(|(i, h)| header[..i].contains(h)) {
        return Err("a column is in the header twice".to_owned());
    }
    Ok(())
}

/// The number in a field; NaN if it is empty.
fn number(text: &str, column: &str) -> Result<f64, String> {
    if text.is_empty() {
        return Ok(f64::NAN);
    }
    match text.parse::<f64>() {
        Ok(n) if n.is_finite() => Ok(n),
        _ => Err(format!(
            "column `{column}`: `{text}` is not a finite number; a value that does not exist is empty"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::columns::METRICS;

    #[test]
    fn an_older_folder_lacks_the_newer_columns_alone() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = dir.path().join("results.csv");
        let header = |keep: fn(&Metric) -> bool| {
            let metrics = Metric::ALL.into_iter().filter(keep).map(Metric::name);
            let all: Vec<&str> =
                LEADING.into_iter().chain(NAMES).chain(metrics).chain([STATUS]).collect();
            all.join(",") + "\n"
        };
        let old = header(|m| m.always());
        let blanks = ",".repeat(old.matches(',').count() - 12);
        let row = format!("e,c,mps,mps,0,1,*,,10,9,1,0,3{blanks}ok\n");
        std::fs::write(&path, old + &row).expect("a file is written");
        let table = Table::results(&path, &[]).expect("readable");
        assert_eq!(table.number(&table.rows[0], Metric::Throughput.name()), Some(3.0));
        assert_eq!(table.number(&table.rows[0], METRICS[METRICS.len() - 1].name), None);
        std::fs::write(&path, header(|m| *m != Metric::Goodput)).expect("a file is written");
        let error =
            Table::results(&path, &[]).expect_err("goodput is not a newer column").to_string();
        assert!(error.ends_with("results.csv:1: column `goodput_rps` is missing"), "{error}");
    }
}
