//! DISB workloads (Apache-2.0), the GPU-sharing benchmark of REEF's authors: a JSON file with a
//! `time` in seconds and `tasks`, each one client with a `load` and a model.
//!
//! `trace` loads list arrivals in whole milliseconds; `periodic` and `poisson` ones are generated
//! from their `frequency` for the file's `time`. A `continuous` load is a closed loop and a
//! `dependent` one follows others: neither is a list of arrivals, so each such client is dropped,
//! under the reason `closed_loop` or `dependent`, and named in a warning. Drivers of DISB skip a
//! frame that is due while the last one runs: that is a policy, and no part of the trace.

use std::path::Path;
use std::sync::Arc;

use cotenant_profiles::Nanos;
use serde::Deserialize;

use crate::error::{TraceError, hint};
use crate::format::{Format, ReadOptions};
use crate::generate::{Gap, Renewal};
use crate::io;
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
    client: Runs,
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
struct Runs {
    model_name: String,
    #[serde(default)]
    batch_size: Option<u32>,
}

fn open(path: &Path, options: &ReadOptions) -> Result<Stream, TraceError> {
    let name = io::name_of(path);
    let text = io::text(io::open(path)?, &name)?;
    let workload: Workload = serde_json::from_str(&text)
        .map_err(|e| TraceError::line(&name, e.line() as u64, format!("no DISB workload: {e}")))?;
    let tally = Arc::new(Tally::default());
    let time = workload.time.unwrap_or(0.0);
    if !(0.0..=1e9).contains(&time) {
        return Err(TraceError::file(&name, format!("time: {time} is not from 0 to 1e9 s")));
    }
    let (end, mut tasks) = (Nanos::from_secs_f64(time), Vec::new());
    for task in &workload.tasks {
        tasks.extend(arrivals(task, end, &name, options, &tally)?);
    }
    let mut meta = Meta::default();
    meta.push("licence", "Apache-2.0");
    meta.push("quantum_ns", "1000000");
    meta.push("seed", options.seed.to_string());
    let columns = Columns { items: true, prio: true, ..Columns::default() };
    let rows = Box::new(Merged { tasks, end, last: None, tally: Arc::clone(&tally) });
    Ok(Stream { name, meta, columns, tally, rows })
}

/// Arrivals of one task, one at a time, and what is the same in all of its rows.
struct Client {
    next: Option<Nanos>,
    arrivals: Box<dyn Iterator<Item = Nanos> + Send>,
    row: Row,
}

/// The arrivals of a task; nothing for one that is not a list of arrivals.
fn arrivals(
    task: &Task,
    end: Nanos,
    file: &str,
    options: &ReadOptions,
    tally: &Tally,
) -> Result<Option<Client>, TraceError> {
    let fail = |field: &str, problem: String| {
        TraceError::file(file, format!("task `{}`: {field}: {problem}", task.id))
    };
    let row = template(task).map_err(|problem| fail("client", problem))?;
    let mut arrivals: Box<dyn Iterator<Item = Nanos> + Send> = match task.load.kind.as_str() {
        "trace" => {
            let stamps = task.load.trace.as_ref();
            let stamps = stamps.ok_or_else(|| fail("load.trace", "is missing".to_owned()))?;
            let late = |ms: &u64| fail("load.trace", format!("{ms} ms is too late"));
            let at = |ms: &u64| ms.checked_mul(1_000_000).map(Nanos).ok_or_else(|| late(ms));
            let mut stamps = stamps.iter().map(at).collect::<Result<Vec<_>, _>>()?;
            stamps.sort_unstable();
            Box::new(stamps.into_iter())
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
            let all = Renewal::new(gap, rate, None, rng).map(|r| r.arrival);
            Box::new(all.take_while(move |at| *at < end))
        }
        "continuous" => {
            tally.read();
            tally.drop_row("closed_loop");
            let id = &task.id;
            tally.warn(format!("{file}: task `{id}` is a closed loop: no arrivals to list"));
            return Ok(None);
        }
        "dependent" => {
            tally.read();
            tally.drop_row("dependent");
            tally.warn(format!("{file}: task `{}` follows other tasks: left out", task.id));
            return Ok(None);
        }
        other => {
            return Err(fail("load.type", format!("`{other}` is unknown{}", hint(other, LOADS))));
        }
    };
    Ok(Some(Client { next: arrivals.next(), arrivals, row }))
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

/// The tasks' arrivals in order of time; equal times keep the order of the tasks.
struct Merged {
    tasks: Vec<Client>,
    /// The file's `time`.
    end: Nanos,
    last: Option<Nanos>,
    tally: Arc<Tally>,
}

impl Source for Merged {
    fn next_row(&mut self) -> Result<Option<Row>, TraceError> {
        let first = self.tasks.iter_mut().filter(|t| t.next.is_some()).min_by_key(|t| t.next);
        let Some(task) = first else { return Ok(None) };
        let Some(arrival) = task.next else { return Ok(None) };
        task.next = task.arrivals.next();
        self.last = Some(arrival);
        self.tally.read();
        Ok(Some(Row { arrival, ..task.row.clone() }))
    }

    fn duration(&self) -> Option<Nanos> {
        let done = self.tasks.iter().all(|t| t.next.is_none());
        let last = self.last.map_or(0, |at| at.0.saturating_add(1_000_000));
        done.then(|| Nanos(self.end.0.max(last)))
    }
}
