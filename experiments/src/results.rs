//! `results.csv` and the tables next to it: their columns, and how values are written.

use cotenant_replay::drive::Lateness;
use cotenant_results::columns::{self, METRICS};

use crate::cell::{Counted, Outcome, bin};
use crate::config::{Experiment, Point};
use crate::metrics::{Metrics, number};
use crate::plan::Cell;

/// A table being built.
pub(crate) struct Table(csv::Writer<Vec<u8>>);

impl Table {
    fn new<'a>(header: impl IntoIterator<Item = &'a str>) -> Self {
        let mut table = Self::headless();
        table.row(header);
        table
    }

    fn headless() -> Self {
        Self(csv::WriterBuilder::new().from_writer(vec![]))
    }

    fn row<'a>(&mut self, fields: impl IntoIterator<Item = &'a str>) {
        self.0.write_record(fields).expect("writing to memory, rows of one width");
    }

    /// The text written so far.
    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.0.into_inner().expect("writing to memory")
    }
}

/// The header of `results.csv`.
pub(crate) fn header(keys: &[String]) -> Vec<u8> {
    let mut names: Vec<&str> = columns::LEADING.to_vec();
    names.extend(keys.iter().map(String::as_str));
    names.extend(columns::NAMES);
    names.extend(METRICS.iter().map(|c| c.name));
    names.push(columns::STATUS);
    Table::new(names).into_bytes()
}

/// The rows of one cell: one per tenant, then `*`.
pub(crate) fn rows(e: &Experiment, cell: &Cell, outcome: &Outcome) -> Vec<u8> {
    let point = &e.point;
    let policy = &point.policies[cell.policy];
    let (repeat, seed) = (cell.repeat.to_string(), cell.seed.to_string());
    let mut table = Table::headless();
    let none = Metrics::default();
    let names = tenants(point);
    for i in point.as_listed().into_iter().chain([point.tenants.len()]) {
        let (tenant, model) = names[i];
        let metrics = outcome.metrics.get(i).unwrap_or(&none);
        let numbers: Vec<String> = metrics.values().iter().map(|v| number(*v)).collect();
        let mut fields: Vec<&str> =
            vec![&e.name, &cell.id, &policy.label, policy.info.name, &repeat, &seed];
        fields.extend(point.values.iter().map(String::as_str));
        fields.extend([tenant, model]);
        fields.extend(numbers.iter().map(String::as_str));
        let overloaded = outcome.overloaded.get(i).and_then(Option::as_deref);
        fields.push(overloaded.unwrap_or(&outcome.status));
        table.row(fields);
    }
    table.into_bytes()
}

/// Tenant and model, then `*`.
fn tenants(point: &Point) -> Vec<(&str, &str)> {
    let named = point.tenants.iter().map(|t| (t.name.as_str(), t.model.as_str()));
    named.chain([("*", "")]).collect()
}

/// Cell, label, repeat and sweep values: the first fields of every row in the tables next to `results.csv`.
fn leading(e: &Experiment, cell: &Cell) -> Vec<String> {
    let point = &e.point;
    let label = point.policies[cell.policy].label.clone();
    let head = [cell.id.clone(), label, cell.repeat.to_string()];
    head.into_iter().chain(point.values.iter().cloned()).collect()
}

/// The header of a table next to `results.csv`.
fn side_header(keys: &[String], columns: &[&str]) -> Vec<u8> {
    let head = columns::SERIES_LEADING.iter().copied();
    let all = head.chain(keys.iter().map(String::as_str)).chain(columns.iter().copied());
    Table::new(all).into_bytes()
}

/// The header of `cdf.csv`.
pub(crate) fn cdf_header(keys: &[String]) -> Vec<u8> {
    side_header(keys, &columns::CDF)
}

/// The header of `series.csv`.
pub(crate) fn series_header(keys: &[String]) -> Vec<u8> {
    side_header(keys, &columns::TIMELINE)
}

/// The header of `counters.csv`.
pub(crate) fn counters_header(keys: &[String]) -> Vec<u8> {
    side_header(keys, &columns::COUNTERS)
}

fn side_row(table: &mut Table, leading: &[String], fields: &[String]) {
    table.row(leading.iter().chain(fields).map(String::as_str));
}

/// The rows of one cell in `cdf.csv`.
pub(crate) fn cdf_rows(e: &Experiment, cell: &Cell, outcome: &Outcome) -> Vec<u8> {
    let mut table = Table::headless();
    let head = leading(e, cell);
    let names = tenants(&e.point);
    for &(i, q, ms) in &outcome.cdf {
        let fields = [names[i].0.to_owned(), number(Some(q)), number(Some(ms))];
        side_row(&mut table, &head, &fields);
    }
    table.into_bytes()
}

/// The rows of one cell in `series.csv`.
pub(crate) fn series_rows(e: &Experiment, cell: &Cell, outcome: &Outcome) -> Vec<u8> {
    let mut table = Table::headless();
    let head = leading(e, cell);
    let point = &e.point;
    let names = tenants(point);
    let fleet = point.fleet.iter().flat_map(|fleet| &fleet.devices);
    let all: u32 = fleet.map(|device| device.cus()).sum();
    let cus = f64::from(if all > 0 { all } else { point.device.cus() });
    let bin = bin(point);
    for (b, values) in outcome.series.iter().enumerate() {
        let start = bin.0 * b as u64;
        let span = (point.duration.0 - start).min(bin.0) as f64 / 1e9;
        for (i, (count, p95)) in values.served.iter().enumerate() {
            let whole = i + 1 == names.len();
            let fields = [
                names[i].0.to_owned(),
                number(Some(start as f64 / 1e6)),
                number(Some(*count as f64 / span)),
                number(p95.map(|ns| ns as f64 / 1e6)),
                number(whole.then_some(values.busy / cus)),
            ];
            side_row(&mut table, &head, &fields);
        }
    }
    table.into_bytes()
}

/// The rows of one cell in `counters.csv`: the counters of its policy.
pub(crate) fn counter_rows(e: &Experiment, cell: &Cell, outcome: &Outcome) -> Vec<u8> {
    let mut table = Table::headless();
    let head = leading(e, cell);
    for Counted { name, unit, value } in &outcome.counters {
        side_row(&mut table, &head, &[name.clone(), (*unit).to_owned(), number(Some(*value))]);
    }
    table.into_bytes()
}

/// The header of `layouts.csv`.
pub(crate) fn layouts_header(keys: &[String]) -> Vec<u8> {
    side_header(keys, &columns::LAYOUTS)
}

/// The rows of one cell in `layouts.csv`: only for the first repeat, which the others resemble.
pub(crate) fn layout_rows(e: &Experiment, cell: &Cell, outcome: &Outcome) -> Vec<u8> {
    let mut table = Table::headless();
    let head = leading(e, cell);
    for fields in outcome.layout.iter().filter(|_| cell.repeat == 0) {
        side_row(&mut table, &head, fields);
    }
    table.into_bytes()
}

/// The header of `gpus.csv`.
pub(crate) fn gpus_header(keys: &[String]) -> Vec<u8> {
    side_header(keys, &columns::GPUS)
}

/// The rows of one cell in `gpus.csv`: what each GPU of a fleet did for each tenant.
pub(crate) fn gpu_rows(e: &Experiment, cell: &Cell, outcome: &Outcome) -> Vec<u8> {
    let mut table = Table::headless();
    let head = leading(e, cell);
    outcome.gpus.iter().for_each(|fields| side_row(&mut table, &head, fields));
    table.into_bytes()
}

/// The header of `lateness.csv`: delays of the dispatcher itself on the wall clock, by kind.
pub(crate) fn lateness_header(keys: &[String]) -> Vec<u8> {
    let columns = ["kind", "count", "p50_us", "p90_us", "p99_us", "max_us", "slowdown"];
    side_header(keys, &columns)
}

/// The rows of one cell in `lateness.csv`.
pub(crate) fn lateness_rows(e: &Experiment, cell: &Cell, lateness: &Lateness) -> Vec<u8> {
    let mut table = Table::headless();
    let head = leading(e, cell);
    for (kind, delays) in lateness.kinds().filter(|(_, d)| !d.is_empty()) {
        let us = |q| number(delays.quantile(q).map(|ns| ns.0 as f64 / 1e3));
        let mut fields = vec![kind.to_owned(), delays.len().to_string()];
        fields.extend([us(0.5), us(0.9), us(0.99), us(1.0), number(Some(lateness.slowdown))]);
        side_row(&mut table, &head, &fields);
    }
    table.into_bytes()
}
