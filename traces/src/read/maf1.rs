//! Azure Functions 2019 (CC-BY-4.0): `HashOwner,HashApp,HashFunction[,Trigger]` and one column per
//! minute with the number of invocations. The minutes may be any run of whole numbers (`480..959`
//! in samples of the trace) or `minute_N`; time starts at the first of them. Counts were recorded
//! when invocations ended.
//!
//! One row per function is held in memory (its non-zero minutes, 8 bytes each); requests are
//! expanded minute by minute. Half of the functions are timers, whose counts vary less than a
//! Poisson process: expand those with `even`, or leave them out with `filter:trigger!=timer`.
//!
//! The tenant is app and function (a function's hash is unique within its app), or the function
//! alone where the file gives them the same hash; `x_trigger` is the trigger. A function that
//! appears twice has its counts added up, with a warning.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use cotenant_profiles::Nanos;

use crate::error::TraceError;
use crate::expand::{Binned, Bins, Demand, LARGEST_COUNT};
use crate::format::{Format, ReadOptions};
use crate::row::{Columns, Meta, Row, Stream, Tally, legal_name};
use crate::table::Table;

pub(crate) const FORMAT: Format = Format {
    name: "maf1",
    summary: "Azure Functions 2019: invocations per function and minute",
    open,
    sniff: |probe| {
        let has = |line: &String| line.contains("HashFunction") && minute_in(line);
        probe.lines.first().is_some_and(has)
    },
};

const KEYS: [&str; 4] = ["HashOwner", "HashApp", "HashFunction", "Trigger"];
const MINUTE_NS: u64 = 60_000_000_000;

fn minute(column: &str) -> Option<u64> {
    column.strip_prefix("minute_").unwrap_or(column).parse().ok()
}

fn minute_in(header: &str) -> bool {
    header.split(',').filter(|c| minute(c.trim()).is_some()).count() > 0
}

struct Minutes {
    rows: Vec<Row>,
    /// Per minute, the functions with invocations, in file order.
    bins: Vec<Vec<(u32, u32)>>,
    next: usize,
}

fn open(path: &Path, options: &ReadOptions) -> Result<Stream, TraceError> {
    let (_, mut table) = Table::open(path, None)?;
    table.only(&KEYS, |column| minute(column).is_some())?;
    let keys = [table.require(KEYS[0])?, table.require(KEYS[1])?, table.require(KEYS[2])?];
    let trigger = table.find(KEYS[3]);
    let minutes = minutes(&table)?;
    let tally = Arc::new(Tally::default());
    let mut functions = Functions::default();
    let mut bins: Vec<Vec<(u32, u32)>> = vec![Vec::new(); minutes.len()];
    while table.advance()? {
        let index = functions.index(&table, keys, trigger, &tally);
        for (bin, &column) in bins.iter_mut().zip(&minutes) {
            let text = table.get(column);
            if text == "0" {
                continue;
            }
            let rule = "a whole number of invocations up to 100000000";
            let count: u32 = table.number(column, rule)?;
            if u64::from(count) > LARGEST_COUNT {
                return Err(table.bad(column, rule));
            }
            if count > 0 {
                bin.push((index, count));
            }
        }
    }
    let name = table.file.clone();
    let mut meta = Meta::default();
    meta.push("licence", "CC-BY-4.0");
    meta.push("first_minute", table.columns[minutes[0]].clone());
    meta.push("functions", functions.rows.len().to_string());
    meta.push("expand", options.expand.to_string());
    meta.push("seed", options.seed.to_string());
    let extra = trigger.map(|_| "x_trigger".to_owned()).into_iter().collect();
    let columns = Columns { extra, ..Columns::default() };
    let source = Minutes { rows: functions.rows, bins, next: 0 };
    let rows = Binned::new(source, options.expand, options.seed, Arc::clone(&tally));
    Ok(Stream { name, meta, columns, tally, rows: Box::new(rows) })
}

/// The minute columns in order; they must be one run of whole numbers.
fn minutes(table: &Table) -> Result<Vec<usize>, TraceError> {
    let mut found: Vec<(u64, usize)> =
        table.columns.iter().enumerate().filter_map(|(i, c)| Some((minute(c)?, i))).collect();
    found.sort_unstable();
    let fail = |problem: String| TraceError::line(&table.file, table.header_line, problem);
    if found.is_empty() {
        return Err(fail("no minute column, such as `1` or `minute_1`".to_owned()));
    }
    if let Some(gap) = found.windows(2).find(|w| w[0].0.checked_add(1) != Some(w[1].0)) {
        let (a, b) = (gap[0].0, gap[1].0);
        return Err(fail(format!("minute {a} is followed by {b}: minutes must be one run")));
    }
    Ok(found.into_iter().map(|(_, column)| column).collect())
}

#[derive(Default)]
struct Functions {
    rows: Vec<Row>,
    index: BTreeMap<[String; 3], u32>,
}

impl Functions {
    fn index(
        &mut self,
        table: &Table,
        keys: [usize; 3],
        trigger: Option<usize>,
        tally: &Tally,
    ) -> u32 {
        let [owner, app, function] = keys.map(|column| table.get(column).to_owned());
        let key = [owner, app, function];
        if let Some(&known) = self.index.get(&key) {
            let (file, line) = (&table.file, table.line());
            tally.warn(format!("{file}:{line}: a function appears twice; its counts are added up"));
            return known;
        }
        let tenant: Arc<str> = Arc::from(if key[1] == key[2] {
            legal_name(&key[2], 64)
        } else {
            format!("{}:{}", legal_name(&key[1], 31), legal_name(&key[2], 31))
        });
        let mut row = Row::new(Nanos::ZERO, Arc::clone(&tenant), tenant);
        row.extra.extend(trigger.map(|column| Arc::from(table.get(column))));
        let index = u32::try_from(self.rows.len()).unwrap_or(u32::MAX);
        self.rows.push(row);
        self.index.insert(key, index);
        index
    }
}

impl Bins for Minutes {
    fn next_bin(&mut self, out: &mut Vec<(usize, Demand)>) -> Result<Option<u64>, TraceError> {
        let Some(bin) = self.bins.get_mut(self.next) else { return Ok(None) };
        let counts = std::mem::take(bin);
        out.extend(counts.iter().map(|&(f, n)| (f as usize, Demand::Count(u64::from(n)))));
        self.next += 1;
        Ok(Some((self.next as u64 - 1) * MINUTE_NS))
    }

    fn template(&self, client: usize) -> &Row {
        &self.rows[client]
    }

    fn bin_ns(&self) -> u64 {
        MINUTE_NS
    }

    fn end(&self) -> u64 {
        self.bins.len() as u64 * MINUTE_NS
    }
}
