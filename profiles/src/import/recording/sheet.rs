//! Tables that profilers print as CSV: lines of text before the header, units in the column names.

use std::io::{BufRead, BufReader, Read};

/// Rows under named columns.
pub(super) struct Sheet<R> {
    rows: csv::Reader<BufReader<R>>,
    row: csv::StringRecord,
    columns: Vec<(String, String)>,
    first: u64,
    /// No row has been read yet.
    fresh: bool,
}

/// Most lines that may precede the header.
const PREFACE: usize = 200;

impl<R: Read> Sheet<R> {
    /// Finds the header: the first line that has all of these columns. `None` if there is no such line.
    pub(super) fn open(from: R, needed: &[&str]) -> std::io::Result<Option<Self>> {
        let mut from = BufReader::new(from);
        for number in 1..=PREFACE as u64 {
            let mut line = Vec::new();
            // A line of a megabyte is not a header.
            if from.by_ref().take(1 << 20).read_until(b'\n', &mut line)? == 0 {
                return Ok(None);
            }
            let text = String::from_utf8_lossy(&line).to_lowercase();
            if !needed.iter().all(|n| text.contains(n)) {
                continue;
            }
            let mut header = csv::ReaderBuilder::new().has_headers(false).from_reader(&line[..]);
            let mut cells = csv::ByteRecord::new();
            if !header.read_byte_record(&mut cells).unwrap_or(false) {
                continue;
            }
            let columns: Vec<(String, String)> =
                cells.iter().map(|c| name_and_unit(&String::from_utf8_lossy(c))).collect();
            if needed.iter().all(|n| columns.iter().any(|(name, _)| name == n)) {
                let rows = csv::ReaderBuilder::new()
                    .has_headers(false)
                    .flexible(true)
                    .trim(csv::Trim::All)
                    .from_reader(from);
                return Ok(Some(Self {
                    rows,
                    row: csv::StringRecord::new(),
                    columns,
                    first: number,
                    fresh: true,
                }));
            }
        }
        Ok(None)
    }

    /// The place of a column by any of its names, in lower case and without units.
    pub(super) fn column(&self, names: &[&str]) -> Option<usize> {
        names.iter().find_map(|n| self.columns.iter().position(|(name, _)| name == n))
    }

    /// The unit of a column, as its name says.
    pub(super) fn unit(&self, column: Option<usize>) -> &str {
        column.map_or("", |c| &self.columns[c].1)
    }

    /// Advances to the next row that can be read as text. A row of units after the header gives the
    /// units of columns whose names have none.
    pub(super) fn next(&mut self) -> std::io::Result<bool> {
        loop {
            match self.rows.read_record(&mut self.row) {
                Ok(true) if std::mem::take(&mut self.fresh) && self.are_units() => {
                    for ((_, unit), cell) in self.columns.iter_mut().zip(&self.row) {
                        if unit.is_empty() {
                            *unit = cell.to_lowercase();
                        }
                    }
                }
                Ok(more) => return Ok(more),
                // Bytes that are not UTF-8 spoil only their own row; the next one may be sound.
                Err(e) => {
                    if let csv::ErrorKind::Io(e) = e.into_kind() {
                        return Err(e);
                    }
                }
            }
        }
    }

    /// Whether this row holds units, as nvprof prints them.
    fn are_units(&self) -> bool {
        let time = |cell: &str| nanoseconds(&cell.to_lowercase()).is_some_and(|_| !cell.is_empty());
        let number = |cell: &str| cell.bytes().any(|b| b.is_ascii_digit());
        self.row.iter().any(time) && !self.row.iter().any(number)
    }

    /// The line of this row.
    pub(super) fn line(&self) -> usize {
        let line = self.row.position().map_or(1, csv::Position::line);
        usize::try_from(self.first + line).unwrap_or(1)
    }

    pub(super) fn text(&self, column: Option<usize>) -> Option<&str> {
        self.row.get(column?).filter(|t| !t.is_empty())
    }

    pub(super) fn number(&self, column: Option<usize>) -> Option<f64> {
        // Some locales group digits.
        let text = self.text(column)?;
        text.parse().ok().or_else(|| text.replace([',', ' '], "").parse().ok())
    }

    /// A whole number from 0 up, exactly.
    pub(super) fn count(&self, column: Option<usize>) -> Option<u64> {
        self.text(column)?.parse().ok().or_else(|| {
            let x = self.number(column)?;
            ((0.0..=9e15).contains(&x) && x.fract() == 0.0).then_some(x as u64)
        })
    }

    /// A time in ns, from the unit of its column.
    pub(super) fn ns(&self, column: Option<usize>) -> Option<i64> {
        let unit = self.unit(column);
        let scale = nanoseconds(unit)?;
        if scale == 1.0
            && let Some(whole) = self.text(column).and_then(|t| t.parse().ok())
        {
            return Some(whole);
        }
        let ns = self.number(column)? * scale;
        // A fraction of a nanosecond in a column without a unit: the column must be in another unit.
        if unit.is_empty() && ns.fract() != 0.0 {
            return None;
        }
        (ns.abs() < 9e18).then_some(ns.round() as i64)
    }
}

/// Nanoseconds of a unit of time.
fn nanoseconds(unit: &str) -> Option<f64> {
    match unit {
        "" | "ns" | "nsec" => Some(1.0),
        "us" | "usec" | "μs" | "µs" => Some(1e3),
        "ms" | "msec" => Some(1e6),
        "s" | "sec" => Some(1e9),
        _ => None,
    }
}

/// `Start (ns)` is `start` in `ns`.
fn name_and_unit(cell: &str) -> (String, String) {
    let cell = cell.trim().trim_start_matches('\u{feff}').to_lowercase();
    match cell.rsplit_once('(') {
        Some((name, unit)) => {
            (name.trim().to_owned(), unit.trim_end_matches(')').trim().to_owned())
        }
        None => (cell, String::new()),
    }
}
