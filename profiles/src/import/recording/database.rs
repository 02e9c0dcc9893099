//! The databases of profilers: SQLite, whose tables and columns come and go between versions.

use std::cell::RefCell;
use std::path::Path;

use rusqlite::types::ValueRef;
use rusqlite::{Connection, OpenFlags, Row};

use super::Progress;
use crate::files::{FileError, Problem};
use crate::import::ImportError;

const WANTED: &str = "a sound SQLite database of a profiler";

/// A database that is open.
pub(super) struct Database<'a> {
    file: String,
    connection: Connection,
    watch: RefCell<Watch<'a>>,
}

/// How far a database has been read, by rows.
struct Watch<'a> {
    /// Bytes of the file.
    size: u64,
    rows: u64,
    of: u64,
    progress: Progress<'a>,
}

/// Rows between two words about progress.
const ROWS: u64 = 1 << 14;

impl Watch<'_> {
    fn row(&mut self) {
        self.rows += 1;
        if self.rows.is_multiple_of(ROWS) {
            let part = u128::from(self.size) * u128::from(self.rows.min(self.of));
            (self.progress)(u64::try_from(part / u128::from(self.of.max(1))).unwrap_or(self.size));
        }
    }
}

impl<'a> Database<'a> {
    /// Opens a database for reading. Beside a write-ahead log that was left behind, its rows count,
    /// too, where the folder allows to look.
    ///
    /// `progress` is told how much of the file the rows read are, of those of all tables whose names begin
    /// with one of `tables`.
    pub(super) fn open(
        file: &str,
        path: &Path,
        tables: &[&str],
        progress: Progress<'a>,
    ) -> Result<Self, ImportError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let mut log = path.as_os_str().to_owned();
        log.push("-wal");
        let connection = if Path::new(&log).exists() {
            Connection::open_with_flags(path, flags)
        } else {
            // Nobody writes it: no lock, no file beside it, a folder that may be read-only.
            let text = path.display().to_string();
            let escaped = text.replace('%', "%25").replace('?', "%3f").replace('#', "%23");
            let flags = flags | OpenFlags::SQLITE_OPEN_URI;
            Connection::open_with_flags(format!("file:{escaped}?immutable=1"), flags)
        };
        let database = connection.map_err(|e| Self::refused(file, "file", &e))?;
        database
            .execute_batch("PRAGMA trusted_schema = OFF; PRAGMA cache_size = -8192;")
            .map_err(|e| Self::refused(file, "file", &e))?;
        let size = std::fs::metadata(path).map_or(0, |m| m.len());
        let watch = RefCell::new(Watch { size, rows: 0, of: 0, progress });
        let all = Self { file: file.to_owned(), connection: database, watch };
        let of = tables.iter().map(|t| all.rows(t)).fold(0, u64::saturating_add);
        all.watch.borrow_mut().of = of;
        Ok(all)
    }

    /// About how many rows such tables hold: the last row's number, which is known without reading them.
    fn rows(&self, name: &str) -> u64 {
        let last = |table: &String| {
            let text = format!("SELECT max(rowid) FROM {}", quote(table));
            let found: Option<i64> = self.connection.query_row(&text, [], |row| row.get(0)).ok()?;
            found.and_then(|n| u64::try_from(n).ok())
        };
        let tables = self.tables(name).unwrap_or_default();
        tables.iter().filter_map(last).fold(0, u64::saturating_add)
    }

    fn refused(file: &str, field: &str, error: &rusqlite::Error) -> ImportError {
        let text = match error {
            rusqlite::Error::SqliteFailure(_, Some(text)) => text.clone(),
            other => other.to_string(),
        };
        let problem = Problem::Value { text, wanted: WANTED.to_owned() };
        FileError::bad(file, 1, field, problem)
    }

    /// Tables or views of this name, as it is or with the suffix of a run behind it.
    pub(super) fn tables(&self, name: &str) -> Result<Vec<String>, ImportError> {
        for exact in [name.to_owned(), format!("_{name}")] {
            if !self.columns(&exact)?.is_empty() {
                return Ok(vec![exact]);
            }
        }
        let refused = |e| Self::refused(&self.file, name, &e);
        let text = "SELECT name FROM sqlite_master WHERE type = 'table' AND substr(name, 1, length(?1)) = ?1 ORDER BY name";
        let mut query = self.connection.prepare(text).map_err(refused)?;
        let rows = query.query_map([format!("{name}_")], |row| row.get(0)).map_err(refused)?;
        rows.collect::<Result<_, _>>().map_err(refused)
    }

    /// The columns of a table or view, in lower case; none if it does not exist.
    pub(super) fn columns(&self, table: &str) -> Result<Vec<String>, ImportError> {
        let refused = |e| Self::refused(&self.file, table, &e);
        let mut query = self
            .connection
            .prepare("SELECT lower(name) FROM pragma_table_info(?1)")
            .map_err(refused)?;
        let rows = query.query_map([table], |row| row.get(0)).map_err(refused)?;
        rows.collect::<Result<_, _>>().map_err(refused)
    }

    /// Calls `each` with every row of a table; columns that it does not have read as NULL. Nothing
    /// happens if the table does not exist or lacks one of the first `needed` columns.
    pub(super) fn each(
        &self,
        table: &str,
        columns: &[&str],
        needed: usize,
        mut each: impl FnMut(&Row<'_>),
    ) -> Result<bool, ImportError> {
        let has = self.columns(table)?;
        let known = |c: &str| has.iter().any(|h| *h == c.to_lowercase());
        if !columns[..needed].iter().all(|c| known(c)) {
            return Ok(false);
        }
        let list: Vec<String> =
            columns.iter().map(|c| if known(c) { quote(c) } else { "NULL".to_owned() }).collect();
        let refused = |e| Self::refused(&self.file, table, &e);
        let text = format!("SELECT {} FROM {}", list.join(", "), quote(table));
        let mut query = self.connection.prepare(&text).map_err(refused)?;
        let mut rows = query.query([]).map_err(refused)?;
        while let Some(row) = rows.next().map_err(refused)? {
            each(row);
            self.watch.borrow_mut().row();
        }
        Ok(true)
    }
}

/// A name as SQL takes it.
fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A whole number, stored as one or as text.
pub(super) fn int(row: &Row<'_>, column: usize) -> Option<i64> {
    match row.get_ref(column).ok()? {
        ValueRef::Integer(n) => Some(n),
        ValueRef::Real(x) if x.fract() == 0.0 && x.abs() < 9e15 => Some(x as i64),
        ValueRef::Text(t) => str::from_utf8(t).ok()?.trim().parse().ok(),
        _ => None,
    }
}

pub(super) fn text(row: &Row<'_>, column: usize) -> Option<String> {
    match row.get_ref(column).ok()? {
        ValueRef::Text(t) => Some(String::from_utf8_lossy(t).into_owned()),
        _ => None,
    }
}

pub(super) fn count(row: &Row<'_>, column: usize) -> u32 {
    int(row, column).and_then(|n| u32::try_from(n).ok()).unwrap_or(0)
}
