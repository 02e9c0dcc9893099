//! DISB workloads (Apache-2.0), the GPU-sharing benchmark of REEF's authors: a JSON file with a
//! `time` in seconds and `tasks`, each one client with a `load` and a model.
//!
//! `trace` loads list arrivals in whole milliseconds; `periodic` and `poisson` ones are generated
//! from their `frequency` for the file's `time`. A `continuous` load is a closed loop and a
//! `dependent` one follows others: neither is a list of arrivals, so each such client is dropped,
//! under the reason `closed_loop` or `dependent`, and named in a warning. Drivers of DISB skip a
//! frame that is due while the last one runs: that is a policy, and no part of the trace.

use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;

use cotenant_profiles::Nanos;
use serde::Deserialize;

use crate::error::{TraceError, hint};
use crate::generate::{Gap, Renewal};
use crate::io;
use crate::read::{Format, ReadOptions};
use crate::rng::Rng;
use crate::row::{Columns, Meta, Row, Source, Stream, Tally, legal_name};

pub(crate) const FORMAT: Format = Format {
    name: "disb",
    summary: "DISB workloads: JSON, one client per task",
    open,
    sniff: |probe| {
        let is_object = probe.lines.first().is_some_and(|l| l.trim_start().starts_with('{'));
        is_object && probe.lines.iter().any(|l| l.contains("\"time\"") || l.contains("\"tasks\""))
    },
};

const LOADS: [&str; 5] = ["trace", "periodic", "poisson", "continuous", "dependent"];

#[derive(Deserialize)]
struct Workload {
    /// Seconds.
    time: Option<f64>,
    tasks: Vec<Task>,
}

#[derive(Deserialize)]
struct Task {
    id: String,
    load: Load,
    client: Client,
}

#[derive(Deserialize)]
struct Load {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    priority: Option<i64>,
    #[serde(default)]
    frequency: Option<f64>,
    #[serde(default)]
    trace: Option<Vec<u64>>,
}

#[derive(Deserialize)]
struct Client {
    model_name: String,
    #[serde(default)]
    batch_size: Option<u32>,
}

fn open(path: &Path, options: &ReadOptions) -> Result<Stream, TraceError> {
    let name = io::name_of(path);
    let mut text = String::new();
    io::open(path)?.read_to_string(&mut text).map_err(|e| TraceError::io(&name, e))?;
    let workload: Workload = serde_json::from_str(&text)
        .map_err(|e| TraceError::line(&name, e.line() as u64, format!("no DISB workload: {e}")))?;
    let tally = Arc::new(Tally::default());
    let time = workload.time.unwrap_or(0.0);
    if !(0.0..=1e9).contains(&time) {
        return Err(TraceError::file(&name, format!("time: {time} is not from 0 to 1e9 s")));
    }
    let mut rows = Vec::new();
    for task in &workload.tasks {
        expand(task, Nanos::from_secs_f64(time), &name, options, &tally, &mut rows)?;
    }
    // Equal times keep the order of the tasks.
    rows.sort_by_key(|row: &Row| row.arrival);
    let last = rows.last().map_or(0, |row| row.arrival.0.saturating_add(1_000_000));
    let duration = Nanos(Nanos::from_secs_f64(time).0.max(last));
    let mut meta = Meta::default();
    meta.push("licence", "Apache-2.0");
    meta.push("quantum_ns", "1000000");
    meta.push("seed", options.seed.to_string());
    let columns = Columns { items: true, prio: true, ..Columns::default() };
    let rows = Box::new(Sorted { rows: rows.into_iter(), duration });
    Ok(Stream { name, meta, columns, tally, rows })
}

fn expand(
    task: &Task,
    end: Nanos,
    file: &str,
    options: &ReadOptions,
    tally: &Tally,
    rows: &mut Vec<Row>,
) -> Result<(), TraceError> {
    let fail = |field: &str, problem: String| {
        TraceError::file(file, format!("task `{}`: {field}: {problem}", task.id))
    };
    let mut row = template(task).map_err(|problem| fail("client", problem))?;
    let mut push = |at: Nanos| {
        tally.read();
        row.arrival = at;
        rows.push(row.clone());
    };
    match task.load.kind.as_str() {
        "trace" => {
            let stamps = task.load.trace.as_ref();
            let stamps = stamps.ok_or_else(|| fail("load.trace", "is missing".to_owned()))?;
            for &ms in stamps {
                let ns = ms.checked_mul(1_000_000);
                push(Nanos(ns.ok_or_else(|| fail("load.trace", format!("{ms} ms is too late")))?));
            }
        }
        kind @ ("periodic" | "poisson") => {
            let rate = task.load.frequency.filter(|f| (1e-9..=1e6).contains(f));
            let rate = rate.ok_or_else(|| {
                fail("load.frequency", "is missing or not from 1e-9 to 1e6 requests/s".to_owned())
            })?;
            let rng = Rng::for_names(options.seed, &[&task.id, "arrivals"]);
            let gap = if kind == "periodic" { Gap::Constant } else { Gap::Exponential };
            if rate * end.as_secs_f64() > 1e8 {
                return Err(fail("load.frequency", "makes over 1e8 requests".to_owned()));
            }
            let arrivals = Renewal::new(gap, rate, None, rng);
            arrivals.take_while(|r| r.arrival < end).for_each(|r| push(r.arrival));
        }
        "continuous" => {
            tally.read();
            tally.drop_row("closed_loop");
            let id = &task.id;
            tally.warn(format!("{file}: task `{id}` is a closed loop: no arrivals to list"));
        }
        "dependent" => {
            tally.read();
            tally.drop_row("dependent");
            tally.warn(format!("{file}: task `{}` follows other tasks: left out", task.id));
        }
        other => {
            return Err(fail("load.type", format!("`{other}` is unknown{}", hint(other, LOADS))));
        }
    }
    Ok(())
}

fn template(task: &Task) -> Result<Row, String> {
    let tenant = Arc::from(legal_name(&task.id, 64).as_str());
    let model = Arc::from(legal_name(&task.client.model_name, 64).as_str());
    let mut row = Row::new(Nanos::ZERO, tenant, model);
    row.items = task.client.batch_size.unwrap_or(1);
    if row.items == 0 {
        return Err("batch_size 0 is not at least 1".to_owned());
    }
    let prio = task.load.priority.unwrap_or(0);
    row.prio =
        i8::try_from(prio).map_err(|_| format!("priority {prio} is not from -128 to 127"))?;
    Ok(row)
}

struct Sorted {
    rows: std::vec::IntoIter<Row>,
    duration: Nanos,
}

impl Source for Sorted {
    fn next_row(&mut self) -> Result<Option<Row>, TraceError> {
        Ok(self.rows.next())
    }

    fn duration(&self) -> Option<Nanos> {
        Some(self.duration)
    }
}
