//! Writes `cotenant-trace v1`. The accounting stands in front of the rows but is known only behind
//! them, so the rows go to a neighbouring temporary file first; memory stays constant.

use std::io::Write;
use std::path::{Path, PathBuf};

use cotenant_profiles::Nanos;

use crate::canonical::MAGIC;
use crate::error::TraceError;
use crate::io::{self, Output};
use crate::row::{Columns, Counts, Meta, Row};

/// Writes one trace file. Nothing appears under its name before [`Writer::finish`].
#[derive(Debug)]
pub struct Writer {
    path: PathBuf,
    body: Scratch,
    output: Output,
    columns: Columns,
    line: String,
    rows: u64,
    last: u64,
}

/// A temporary neighbour of the output, removed when it goes out of scope.
#[derive(Debug)]
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        // Nothing to do about a leftover: it carries a name that says what it is.
        let _ = std::fs::remove_file(&self.0);
    }
}

fn neighbour(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(format!(".{}.{suffix}.tmp", std::process::id()));
    path.with_file_name(name)
}

impl Writer {
    /// Starts a file; an ending of `.gz` or `.zst` compresses it.
    ///
    /// # Errors
    /// The folder does not exist or cannot be written.
    pub fn create(path: &Path, columns: &Columns) -> Result<Self, TraceError> {
        let body = Scratch(neighbour(path, "rows"));
        let output = Output::create(&body.0, path)?;
        let columns = columns.clone();
        let path = path.to_owned();
        Ok(Self { path, body, output, columns, line: String::new(), rows: 0, last: 0 })
    }

    /// Adds one row.
    ///
    /// # Errors
    /// A row earlier than the one before, or a full disk.
    pub fn write(&mut self, row: &Row) -> Result<(), TraceError> {
        use std::fmt::Write as _;
        if row.arrival.0 < self.last {
            let problem = format!(
                "row {} arrives at {} ns, before the one in front of it ({} ns): sort first",
                self.rows + 1,
                row.arrival.0,
                self.last
            );
            return Err(TraceError::file(&io::name_of(&self.path), problem));
        }
        self.last = row.arrival.0;
        self.rows += 1;
        let (line, columns) = (&mut self.line, &self.columns);
        line.clear();
        // Writing to a string cannot fail.
        let _ = write!(line, "{},{},{}", row.arrival.0, row.tenant, row.model);
        if columns.items {
            let _ = write!(line, ",{}", row.items);
        }
        if columns.slo {
            push_option(line, row.slo.map(|slo| slo.0));
        }
        if columns.prio {
            let _ = write!(line, ",{}", row.prio);
        }
        if columns.work {
            let _ = write!(line, ",{}", row.work);
        }
        if columns.tokens {
            push_option(line, row.tokens_in);
            push_option(line, row.tokens_out);
        }
        if columns.session {
            line.push(',');
            push_text(line, row.session.as_deref().unwrap_or(""));
        }
        for i in 0..columns.extra.len() {
            line.push(',');
            push_text(line, row.extra.get(i).map_or("", |value| value));
        }
        line.push('\n');
        self.output
            .write_all(self.line.as_bytes())
            .map_err(|cause| TraceError::io(&io::name_of(&self.path), cause))
    }

    /// Completes the file: provenance, duration and accounting, then the rows.
    ///
    /// # Errors
    /// `rows_in` is not what was written plus what was dropped, or the disk is full.
    pub fn finish(self, meta: &Meta, counts: &Counts, duration: Nanos) -> Result<u64, TraceError> {
        let dropped: u64 = counts.dropped.values().sum();
        let file = io::name_of(&self.path);
        if counts.rows_in != self.rows + dropped {
            let (rows_in, rows_out) = (counts.rows_in, self.rows);
            return Err(TraceError::Accounting { file, rows_in, rows_out, dropped });
        }
        let header = self.header(meta, counts, duration);
        let Self { path, body, output, rows, .. } = self;
        let whole = Scratch(neighbour(&path, "whole"));
        let write = || -> std::io::Result<()> {
            output.finish()?.sync_all()?;
            let mut head = Output::create(&whole.0, &path).map_err(std::io::Error::other)?;
            head.write_all(header.as_bytes())?;
            let mut file = head.finish()?;
            std::io::copy(&mut std::fs::File::open(&body.0)?, &mut file)?;
            file.sync_all()?;
            std::fs::rename(&whole.0, &path)
        };
        write().map_err(|cause| TraceError::io(&file, cause))?;
        Ok(rows)
    }

    fn header(&self, meta: &Meta, counts: &Counts, duration: Nanos) -> String {
        use std::fmt::Write as _;
        let mut text = format!("# {MAGIC}\n");
        for (key, value) in &meta.0 {
            let _ = writeln!(text, "# {key}={value}");
        }
        let _ = writeln!(text, "# duration_ns={}", duration.0.max(self.end()));
        let list = |map: &std::collections::BTreeMap<String, u64>| {
            map.iter().map(|(reason, n)| format!("{reason}:{n}")).collect::<Vec<_>>().join(",")
        };
        let _ = writeln!(text, "# rows_in={}", counts.rows_in);
        if !counts.added.is_empty() {
            let _ = writeln!(text, "# added={}", list(&counts.added));
        }
        let _ = writeln!(text, "# dropped={}", list(&counts.dropped));
        text.push_str("arrival_ns,tenant,model");
        let columns = &self.columns;
        for (used, name) in [
            (columns.items, ",items"),
            (columns.slo, ",slo_ns"),
            (columns.prio, ",prio"),
            (columns.work, ",work"),
            (columns.tokens, ",tokens_in,tokens_out"),
            (columns.session, ",session"),
        ] {
            text.push_str(if used { name } else { "" });
        }
        for name in &columns.extra {
            text.push(',');
            text.push_str(name);
        }
        text.push('\n');
        text
    }

    /// The earliest end that holds every row.
    fn end(&self) -> u64 {
        if self.rows == 0 { 0 } else { self.last.saturating_add(1) }
    }
}

fn push_option<T: std::fmt::Display>(line: &mut String, value: Option<T>) {
    use std::fmt::Write as _;
    line.push(',');
    if let Some(value) = value {
        let _ = write!(line, "{value}");
    }
}

/// Text as a CSV field (RFC 4180): quoted where it must be, never across lines.
fn push_text(line: &mut String, text: &str) {
    if text.contains([',', '"', '\n', '\r']) || text.starts_with('#') || text.trim() != text {
        line.push('"');
        let flat = text.replace(['\n', '\r'], " ");
        line.push_str(&flat.replace('"', "\"\""));
        line.push('"');
    } else {
        line.push_str(text);
    }
}
