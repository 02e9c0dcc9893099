//! Reads tables of measurements, Parquet and CSV, column by name.

use std::fs::File;
use std::path::Path;

use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::Field;

use crate::fail::{Done, Failure};

/// A table as text and numbers; a row is a slice of fields in the order of the columns asked for.
pub(crate) struct Rows {
    file: String,
    columns: Vec<&'static str>,
    rows: Vec<Vec<Cell>>,
}

#[derive(Clone, Debug, PartialEq)]
enum Cell {
    Text(String),
    Number(f64),
    Nothing,
}

/// One row.
#[derive(Clone, Copy)]
pub(crate) struct Row<'a> {
    table: &'a Rows,
    cells: &'a [Cell],
    number: usize,
}

impl Rows {
    pub(crate) fn iter(&self) -> impl Iterator<Item = Row<'_>> {
        self.rows.iter().enumerate().map(move |(n, c)| Row { table: self, cells: c, number: n + 1 })
    }
}

impl Row<'_> {
    /// # Errors
    /// No number there.
    pub(crate) fn number(&self, column: &str) -> Done<f64> {
        match self.cell(column) {
            Some(Cell::Number(x)) => Ok(*x),
            other => Err(self.fault(column, &format!("{other:?} is not a number"))),
        }
    }

    /// # Errors
    /// No count there.
    pub(crate) fn count(&self, column: &str) -> Done<u32> {
        let x = self.number(column)?;
        if x.fract() != 0.0 || !(0.0..=4e9).contains(&x) {
            return Err(self.fault(column, &format!("{x} is not a count")));
        }
        Ok(x as u32)
    }

    /// The text there, empty if there is none.
    pub(crate) fn text(&self, column: &str) -> &str {
        match self.cell(column) {
            Some(Cell::Text(text)) => text,
            _ => "",
        }
    }

    /// The number there, if any.
    pub(crate) fn maybe(&self, column: &str) -> Option<f64> {
        match self.cell(column) {
            Some(Cell::Number(x)) => Some(*x),
            _ => None,
        }
    }

    fn cell(&self, column: &str) -> Option<&Cell> {
        let index = self.table.columns.iter().position(|c| *c == column)?;
        self.cells.get(index)
    }

    fn fault(&self, column: &str, why: &str) -> Failure {
        Failure::input(format!("{}: row {}: {column}: {why}", self.table.file, self.number))
    }
}

/// Reads the named columns of a Parquet file; a column that the file lacks is empty.
///
/// # Errors
/// A file that does not read.
pub(crate) fn parquet(path: &Path, columns: &[&'static str]) -> Done<Rows> {
    let fault = |e: &dyn std::fmt::Display| Failure::input(format!("{}: {e}", path.display()));
    let file = File::open(path).map_err(|e| fault(&e))?;
    let reader = SerializedFileReader::new(file).map_err(|e| fault(&e))?;
    let mut rows = vec![];
    for row in reader.get_row_iter(None).map_err(|e| fault(&e))? {
        let row = row.map_err(|e| fault(&e))?;
        let mut cells = vec![Cell::Nothing; columns.len()];
        for (name, field) in row.get_column_iter() {
            if let Some(index) = columns.iter().position(|c| c == name) {
                cells[index] = match field {
                    Field::Int(x) => Cell::Number(f64::from(*x)),
                    Field::Long(x) => Cell::Number(*x as f64),
                    Field::Float(x) => Cell::Number(f64::from(*x)),
                    Field::Double(x) => Cell::Number(*x),
                    Field::Str(x) => Cell::Text(x.clone()),
                    _ => Cell::Nothing,
                };
            }
        }
        rows.push(cells);
    }
    Ok(Rows { file: path.display().to_string(), columns: columns.to_vec(), rows })
}

/// Reads the named columns of a CSV file; a column that the file lacks is empty.
///
/// # Errors
/// A file that does not read.
pub(crate) fn csv(path: &Path, columns: &[&'static str]) -> Done<Rows> {
    let fault = |e: &dyn std::fmt::Display| Failure::input(format!("{}: {e}", path.display()));
    let mut reader =
        csv::ReaderBuilder::new().flexible(true).from_path(path).map_err(|e| fault(&e))?;
    let head = reader.headers().map_err(|e| fault(&e))?.clone();
    let places: Vec<Option<usize>> =
        columns.iter().map(|c| head.iter().position(|h| h.trim() == *c)).collect();
    let mut rows = vec![];
    for record in reader.records() {
        let record = record.map_err(|e| fault(&e))?;
        let cell = |place: &Option<usize>| match place.and_then(|p| record.get(p)).map(str::trim) {
            None | Some("") => Cell::Nothing,
            Some(text) => text.parse().map_or_else(|_| Cell::Text(text.to_owned()), Cell::Number),
        };
        rows.push(places.iter().map(cell).collect());
    }
    Ok(Rows { file: path.display().to_string(), columns: columns.to_vec(), rows })
}
