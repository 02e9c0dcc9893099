//! The databases of profilers: SQLite, with tables and columns that come and go between versions.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::Path;
use std::rc::Rc;

use rusqlite::types::ValueRef;
use rusqlite::{Connection, OpenFlags, Row};

use super::Progress;
use crate::files::{FileError, Problem};
use crate::import::ImportError;

const WANTED: &str = "a sound SQLite database of a profiler";

/// An open database.
pub(super) struct Database<'a> {
    file: String,
    connection: Connection,
    /// Names of its tables and views.
    names: Vec<String>,
    /// Columns of the tables that were asked for, in lower case.
    columns: RefCell<BTreeMap<String, Rc<[String]>>>,
    watch: RefCell<Watch<'a>>,
}

/// Another table, of which one row accompanies each row: the one whose `id` is in `column`.
pub(super) struct Beside<'a> {
    pub table: &'a str,
    pub column: &'a str,
    pub columns: &'a [&'a str],
}

/// How far a database has been read, by rows.
struct Watch<'a> {
    /// Bytes of the file.
    size: u64,
    rows: u64,
    of: u64,
    progress: Progress<'a>,
}

/// Rows between two progress reports.
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
    /// Opens a database for reading. If a write-ahead log was left behind, its rows count as well,
    /// provided that the folder can be read.
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
            // Nothing writes to it: no lock, no file beside it, and the folder may be read-only.
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
        let names = Self::names(&database).map_err(|e| Self::refused(file, "file", &e))?;
        let columns = RefCell::default();
        let all = Self { file: file.to_owned(), connection: database, names, columns, watch };
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

    fn names(connection: &Connection) -> rusqlite::Result<Vec<String>> {
        let text = "SELECT name FROM sqlite_master WHERE type IN ('table', 'view') ORDER BY name";
        let mut query = connection.prepare(text)?;
        query.query_map([], |row| row.get(0))?.collect()
    }

    /// Tables or views of this name, either plain or with the suffix of a run.
    pub(super) fn tables(&self, name: &str) -> Result<Vec<String>, ImportError> {
        for exact in [name.to_owned(), format!("_{name}")] {
            if !self.columns(&exact)?.is_empty() {
                return Ok(vec![exact]);
            }
        }
        let suffixes = self.suffixes(name).into_iter();
        Ok(suffixes.map(|suffix| format!("{name}{suffix}")).collect())
    }

    /// What follows this name in the names of tables, from the `_` on.
    pub(super) fn suffixes(&self, name: &str) -> Vec<String> {
        let suffixes = self.names.iter().filter_map(|known| known.strip_prefix(name));
        suffixes.filter(|s| s.starts_with('_')).map(ToOwned::to_owned).collect()
    }

    /// The columns of a table or view, in lower case; none if it does not exist.
    pub(super) fn columns(&self, table: &str) -> Result<Rc<[String]>, ImportError> {
        if let Some(known) = self.columns.borrow().get(table) {
            return Ok(Rc::clone(known));
        }
        let mut found = Vec::new();
        if self.names.iter().any(|n| n.eq_ignore_ascii_case(table)) {
            let refused = |e| Self::refused(&self.file, table, &e);
            let text = "SELECT lower(name) FROM pragma_table_info(?1)";
            let mut query = self.connection.prepare(text).map_err(refused)?;
            let rows = query.query_map([table], |row| row.get(0)).map_err(refused)?;
            found = rows.collect::<Result<_, _>>().map_err(refused)?;
        }
        let found: Rc<[String]> = found.into();
        self.columns.borrow_mut().insert(table.to_owned(), Rc::clone(&found));
        Ok(found)
    }

    /// Calls `each` with every row of a table; columns that it does not have read as NULL. Nothing
    /// happens if the table does not exist or lacks one of the first `needed` columns.
    pub(super) fn each(
        &self,
        table: &str,
        columns: &[&str],
        needed: usize,
        each: impl FnMut(&Row<'_>),
    ) -> Result<bool, ImportError> {
        self.each_beside(table, columns, needed, None, each)
    }

    /// As [`Database::each`], with the columns of a row of another table after those of each row, or
    /// NULL if there is no such row.
    pub(super) fn each_beside(
        &self,
        table: &str,
        columns: &[&str],
        needed: usize,
        beside: Option<&Beside<'_>>,
        mut each: impl FnMut(&Row<'_>),
    ) -> Result<bool, ImportError> {
        let has = self.columns(table)?;
        let known = |has: &[String], c: &str| has.iter().any(|h| h.eq_ignore_ascii_case(c));
        if !columns[..needed].iter().all(|c| known(&has, c)) {
            return Ok(false);
        }
        let one = |has: &[String], of: &str, c: &&str| {
            if known(has, c) { format!("{of}.{}", quote(c)) } else { "NULL".to_owned() }
        };
        let mut list: Vec<String> = columns.iter().map(|c| one(&has, "t", c)).collect();
        let mut from = format!("{} t", quote(table));
        if let Some(Beside { table: other, column, columns }) = beside {
            let mut of_other = self.columns(other)?;
            if known(&of_other, "id") && known(&has, column) {
                from += &format!(" LEFT JOIN {} o ON o.id = t.{}", quote(other), quote(column));
            } else {
                of_other = Rc::default();
            }
            list.extend(columns.iter().map(|c| one(&of_other, "o", c)));
        }
        let refused = |e| Self::refused(&self.file, table, &e);
        let text = format!("SELECT {} FROM {from}", list.join(", "));
        let mut query = self.connection.prepare(&text).map_err(refused)?;
        let mut rows = query.query([]).map_err(refused)?;
        while let Some(row) = rows.next().map_err(refused)? {
            each(row);
            self.watch.borrow_mut().row();
        }
        Ok(true)
    }
}

/// A quoted name, for use in SQL.
fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A whole number, stored as a number or as text.
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
