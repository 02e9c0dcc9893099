//! ServeGen (Alibaba, 2025): one client per `chunk-N-trace.csv`, one row per 10-minute window:
//! `t_s,rate_rps,cv,dist,p1,p2` without a header, `dist` being `Gamma`, `Weibull` or empty (idle),
//! `p1` its shape and `p2` its scale in seconds. A folder is all of its clients.
//!
//! ServeGen itself draws ⌈rate × 600⌉ gaps and stretches them to fill the window, which fixes every
//! window's count. Here the gaps run on across windows at the window's rate, with the window's
//! shape, so that counts vary as the fitted process says. Windows are fitted one by one, and nearly
//! idle ones have variations of several hundred: `cv_max` bounds them.
//!
//! Tenants are `chunk-N`, in the order of N; the model is the folder's name.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use cotenant_profiles::Nanos;

use crate::decimal;
use crate::error::TraceError;
use crate::expand::{Binned, Bins, Demand};
use crate::format::{Format, Probe, ReadOptions};
use crate::generate::Gap;
use crate::io;
use crate::read::stem;
use crate::row::{Columns, Meta, Row, Stream, Tally, legal_name};
use crate::table::Table;

pub(crate) const FORMAT: Format = Format {
    name: "servegen",
    summary: "ServeGen: rate and gap distribution per client and 10 minutes; a file or a folder",
    open,
    sniff,
};

/// ServeGen's windows.
const WINDOW_NS: u64 = 600_000_000_000;
const COLUMNS: [&str; 6] = ["t_s", "rate_rps", "cv", "dist", "p1", "p2"];

fn sniff(probe: &Probe) -> bool {
    let is_row = |line: &String| {
        let fields: Vec<&str> = line.split(',').collect();
        fields.len() == 6 && fields[0].trim().parse::<f64>().is_ok()
    };
    probe.is_dir || probe.lines.first().is_some_and(is_row)
}

struct Reader {
    tables: Vec<Table>,
    rows: Vec<Row>,
    /// Per client, the window that has been read already.
    pending: Vec<Option<(u64, Demand)>>,
    started: bool,
    cv_max: f64,
    tally: Arc<Tally>,
    clamped: u64,
    last: Option<u64>,
}

fn open(path: &Path, options: &ReadOptions) -> Result<Stream, TraceError> {
    let files = if path.is_dir() { chunks(path)? } else { vec![path.to_owned()] };
    let folder = if path.is_dir() { Some(path) } else { path.parent() };
    let folder = folder.and_then(Path::file_name).map(|n| n.to_string_lossy().into_owned());
    let model: Arc<str> = Arc::from(legal_name(folder.as_deref().unwrap_or("llm"), 64).as_str());
    let (mut tables, mut rows) = (Vec::new(), Vec::new());
    for file in &files {
        tables.push(Table::open(file, Some(&COLUMNS))?.1);
        let tenant = Arc::from(stem(file, "", "-trace").as_str());
        rows.push(Row::new(Nanos::ZERO, tenant, Arc::clone(&model)));
    }
    let tally = Arc::new(Tally::default());
    let mut meta = Meta::default();
    meta.push("licence", "Apache-2.0");
    meta.push("clients", files.len().to_string());
    meta.push("cv_max", options.cv_max.to_string());
    meta.push("seed", options.seed.to_string());
    let reader = Reader {
        pending: vec![None; tables.len()],
        tables,
        rows,
        started: false,
        cv_max: options.cv_max,
        tally: Arc::clone(&tally),
        clamped: 0,
        last: None,
    };
    let rows = Binned::new(reader, options.expand, options.seed, Arc::clone(&tally));
    let name = io::name_of(path);
    Ok(Stream { name, meta, columns: Columns::default(), tally, rows: Box::new(rows) })
}

/// The client files of a folder, by their number.
fn chunks(folder: &Path) -> Result<Vec<PathBuf>, TraceError> {
    let name = io::name_of(folder);
    let fail = |cause| TraceError::io(&name, cause);
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(fail)? {
        let path = entry.map_err(fail)?.path();
        let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let number = file.strip_prefix("chunk-").and_then(|rest| rest.split_once("-trace.csv"));
        if let Some(number) = number.and_then(|(n, _)| n.parse::<u64>().ok()) {
            files.push((number, path));
        }
    }
    if files.is_empty() {
        return Err(TraceError::file(&name, "the folder has no chunk-N-trace.csv"));
    }
    files.sort();
    Ok(files.into_iter().map(|(_, path)| path).collect())
}

impl Reader {
    /// The next window of a client.
    fn window(&mut self, client: usize) -> Result<Option<(u64, Demand)>, TraceError> {
        let table = &mut self.tables[client];
        if !table.advance()? {
            return Ok(None);
        }
        let start = decimal::scaled(table.get(0), 9)
            .ok()
            .filter(|at| at.checked_add(WINDOW_NS).is_some())
            .ok_or_else(|| table.bad(0, "a time of 0 s or later"))?;
        let columns = Window { rate: 1, cv: 2, dist: 3, p1: 4 };
        let (demand, clamped) = columns.demand(table, WINDOW_NS, self.cv_max)?;
        self.clamped += u64::from(clamped);
        Ok(Some((start, demand)))
    }

    fn finish(&mut self) {
        if self.clamped > 0 {
            let (n, cv_max) = (self.clamped, self.cv_max);
            self.tally.warn(format!("{n} windows had a variation over {cv_max}, set to {cv_max}"));
            self.clamped = 0;
        }
    }
}

impl Bins for Reader {
    fn next_bin(&mut self, out: &mut Vec<(usize, Demand)>) -> Result<Option<u64>, TraceError> {
        if !self.started {
            for client in 0..self.tables.len() {
                self.pending[client] = self.window(client)?;
            }
            self.started = true;
        }
        let Some(start) = self.pending.iter().flatten().map(|w| w.0).min() else {
            self.finish();
            return Ok(None);
        };
        for client in 0..self.tables.len() {
            let Some((at, demand)) = self.pending[client].filter(|w| w.0 == start) else {
                continue;
            };
            out.push((client, demand));
            self.pending[client] = self.window(client)?;
            if let Some((next, _)) = self.pending[client].filter(|w| w.0 < at + WINDOW_NS) {
                let (table, next) = (&self.tables[client], next as f64 / 1e9);
                let problem = format!("window {next} s does not follow by 600 s");
                return Err(TraceError::line(&table.file, table.line(), problem));
            }
        }
        self.last = Some(start);
        Ok(Some(start))
    }

    fn template(&self, client: usize) -> &Row {
        &self.rows[client]
    }

    fn bin_ns(&self) -> u64 {
        WINDOW_NS
    }

    fn end(&self) -> u64 {
        self.last.map_or(0, |start| start + WINDOW_NS)
    }
}

/// Columns of one window.
pub(crate) struct Window {
    pub(crate) rate: usize,
    pub(crate) cv: usize,
    pub(crate) dist: usize,
    pub(crate) p1: usize,
}

impl Window {
    /// The demand of the current record, and whether its variation was clamped to `cv_max`.
    pub(crate) fn demand(
        &self,
        table: &Table,
        bin_ns: u64,
        cv_max: f64,
    ) -> Result<(Demand, bool), TraceError> {
        let rate_rule = "a rate from 0 to 1e9 requests/s";
        let rate: f64 = table.number(self.rate, rate_rule)?;
        if !(0.0..=1e9).contains(&rate) {
            return Err(table.bad(self.rate, rate_rule));
        }
        let cv: f64 = table.number(self.cv, "a number")?;
        if cv < 0.0 || cv.is_nan() {
            return Err(table.bad(self.cv, "a number of at least 0"));
        }
        let expected = rate * bin_ns as f64 / 1e9;
        if expected > crate::expand::LARGEST_COUNT as f64 {
            return Err(table.bad(self.rate, "a rate of at most 100000000 requests per window"));
        }
        let shape_rule = "a shape above 0";
        let shape = || match table.number::<f64>(self.p1, shape_rule) {
            Ok(shape) if shape > 0.0 && shape.is_finite() => Ok(shape),
            _ => Err(table.bad(self.p1, shape_rule)),
        };
        let gap = match table.get(self.dist) {
            "" if rate == 0.0 => Gap::Exponential,
            "" => Gap::gamma_cv(cv.min(cv_max)),
            "Gamma" => Gap::Gamma { shape: shape()? },
            // Below this shape the mean overflows; the clamp below replaces it anyway.
            "Weibull" => Gap::weibull(shape()?.max(0.02)),
            _ => return Err(table.bad(self.dist, "`Gamma`, `Weibull` or empty")),
        };
        if gap.cv() <= cv_max {
            return Ok((Demand::Renewal { expected, gap }, false));
        }
        let gap = match gap {
            Gap::Weibull { .. } => Gap::weibull(Gap::weibull_shape(cv_max)),
            _ => Gap::gamma_cv(cv_max),
        };
        Ok((Demand::Renewal { expected, gap }, true))
    }
}
