//! Tables in Parquet, row by row.

use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};

use parquet::errors::ParquetError;
use parquet::file::reader::{FileReader as _, SerializedFileReader};
use parquet::record::{Field, Row};

use super::super::ImportError;
use crate::files::{FileError, Problem};

/// Calls `each` with every row; `file` is what errors call it.
///
/// # Errors
/// A file that does not read as Parquet.
pub(super) fn parquet(
    file: &str,
    from: File,
    mut each: impl FnMut(&dyn Fn(&str) -> Option<String>),
) -> Result<(), ImportError> {
    let bad = |text: String| {
        let problem = Problem::Value { text, wanted: "a table in Parquet".to_owned() };
        FileError::bad(file, 1, "file", problem)
    };
    // The library counts on sound metadata and panics where it is damaged.
    let hook = take_hook();
    set_hook(Box::new(|_| {}));
    let read = catch_unwind(AssertUnwindSafe(|| rows(from, &mut each)));
    set_hook(hook);
    match read {
        Ok(read) => read.map_err(|e| bad(e.to_string())),
        Err(_) => Err(bad("a file with damaged metadata or pages".to_owned())),
    }
}

fn rows(
    from: File,
    each: &mut impl FnMut(&dyn Fn(&str) -> Option<String>),
) -> Result<(), ParquetError> {
    for row in SerializedFileReader::new(from)?.get_row_iter(None)? {
        let row = row?;
        each(&|name| cell(&row, name));
    }
    Ok(())
}

fn cell(row: &Row, name: &str) -> Option<String> {
    let (_, field) = row.get_column_iter().find(|(n, _)| *n == name)?;
    match field {
        Field::Str(text) => Some(text.clone()),
        Field::Int(x) => Some(x.to_string()),
        Field::Long(x) => Some(x.to_string()),
        Field::Float(x) => Some(x.to_string()),
        Field::Double(x) => Some(x.to_string()),
        _ => None,
    }
}
