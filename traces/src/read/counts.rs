//! `cotenant-counts v1`: requests per bin, tenant and model. `# bin_ns=` gives the bin length; the
//! columns are `bin,tenant,model,count`, or `bin,tenant,model,rate_rps,cv,dist,p1,p2` for rates
//! with a gap distribution. Bins ascend; a tenant that a bin does not name has no request in it.

use std::path::Path;
use std::sync::Arc;

use crate::canonical;
use crate::error::TraceError;
use crate::expand::{Binned, Bins, Demand, LARGEST_COUNT};
use crate::format::{Format, Probe, ReadOptions};
use crate::read::servegen;
use crate::row::{Columns, Meta, NAME_RULE, Names, Row, Stream, Tally, is_name};
use crate::table::Table;

/// The first line of a counts file, without `# `.
pub const MAGIC: &str = "cotenant-counts v1";

pub(crate) const FORMAT: Format = Format {
    name: "counts",
    summary: "cotenant-counts v1: requests per bin, expanded to requests",
    open,
    sniff: |probe: &Probe| {
        probe.first.contains("cotenant-counts")
            || probe.lines.first().is_some_and(|l| l.starts_with("bin,"))
    },
};

fn open(path: &Path, options: &ReadOptions) -> Result<Stream, TraceError> {
    let (preamble, table) = Table::open(path, None)?;
    let declared = canonical::meta(&table.file, &preamble, MAGIC)?;
    let reader = Reader::new(table, &declared, options.cv_max)?;
    let mut meta = Meta(declared.0);
    meta.0.retain(|(key, _)| !matches!(key.as_str(), "magic" | "bin_ns" | "duration_ns"));
    meta.push("expand", options.expand.to_string());
    meta.push("seed", options.seed.to_string());
    let (name, tally) = (reader.table.file.clone(), Arc::new(Tally::default()));
    let rows = Binned::new(reader, options.expand, options.seed, Arc::clone(&tally));
    Ok(Stream { name, meta, columns: Columns::default(), tally, rows: Box::new(rows) })
}

/// Where the demand of a record stands.
enum Fields {
    Count(usize),
    Rate { rate: usize, cv: usize, dist: usize, p1: usize },
}

struct Reader {
    table: Table,
    bin_ns: u64,
    duration: Option<u64>,
    columns: (usize, usize, usize),
    fields: Fields,
    cv_max: f64,
    names: Names,
    clients: Vec<Row>,
    index: std::collections::BTreeMap<(Arc<str>, Arc<str>), usize>,
    /// A record of the next bin that has been read already.
    pending: Option<(u64, usize, Demand)>,
    last_bin: Option<u64>,
}

impl Reader {
    fn new(table: Table, meta: &Meta, cv_max: f64) -> Result<Self, TraceError> {
        let known = ["bin", "tenant", "model", "count", "rate_rps", "cv", "dist", "p1", "p2"];
        table.only(&known, |_| false)?;
        let number = |key: &str| {
            let text = meta.get(key)?;
            Some(text.parse::<u64>().map_err(|_| {
                TraceError::file(&table.file, format!("{key}: `{text}` is not a whole number"))
            }))
        };
        let bin_ns = number("bin_ns").transpose()?.filter(|&ns| ns > 0).ok_or_else(|| {
            TraceError::file(
                &table.file,
                "`# bin_ns=` is missing: give the length of a bin above 0",
            )
        })?;
        let duration = number("duration_ns").transpose()?;
        let columns = (table.require("bin")?, table.require("tenant")?, table.require("model")?);
        let fields = match table.find("rate_rps") {
            None => Fields::Count(table.require("count")?),
            Some(rate) => {
                let (cv, dist) = (table.require("cv")?, table.require("dist")?);
                Fields::Rate { rate, cv, dist, p1: table.require("p1")? }
            }
        };
        let (names, clients, index) = (Names::default(), Vec::new(), Default::default());
        let (pending, last_bin) = (None, None);
        Ok(Self {
            table,
            bin_ns,
            duration,
            columns,
            fields,
            cv_max,
            names,
            clients,
            index,
            pending,
            last_bin,
        })
    }

    fn record(&mut self) -> Result<Option<(u64, usize, Demand)>, TraceError> {
        if !self.table.advance()? {
            return Ok(None);
        }
        let (bin_column, tenant, model) = self.columns;
        let bin: u64 = self.table.number(bin_column, "a bin number from 0")?;
        if bin.checked_add(1).and_then(|b| b.checked_mul(self.bin_ns)).is_none() {
            return Err(self.table.bad(bin_column, "a bin within 584 years"));
        }
        for column in [tenant, model] {
            if !is_name(self.table.get(column)) {
                return Err(self.table.bad(column, NAME_RULE));
            }
        }
        let demand = self.demand()?;
        let tenant = self.names.get(self.table.get(tenant));
        let model = self.names.get(self.table.get(model));
        let key = (tenant, model);
        let client = match self.index.get(&key) {
            Some(&client) => client,
            None => {
                let row = Row::new(cotenant_profiles::Nanos::ZERO, key.0.clone(), key.1.clone());
                self.clients.push(row);
                self.index.insert(key, self.clients.len() - 1);
                self.clients.len() - 1
            }
        };
        Ok(Some((bin, client, demand)))
    }

    fn demand(&self) -> Result<Demand, TraceError> {
        match self.fields {
            Fields::Count(column) => {
                let rule = "a whole number of requests up to 100000000";
                let count: u64 = self.table.number(column, rule)?;
                if count > LARGEST_COUNT {
                    return Err(self.table.bad(column, rule));
                }
                Ok(Demand::Count(count))
            }
            Fields::Rate { rate, cv, dist, p1 } => {
                let columns = servegen::Window { rate, cv, dist, p1 };
                Ok(columns.demand(&self.table, self.bin_ns, self.cv_max)?.0)
            }
        }
    }
}

impl Bins for Reader {
    fn next_bin(&mut self, out: &mut Vec<(usize, Demand)>) -> Result<Option<u64>, TraceError> {
        let first = match self.pending.take() {
            Some(record) => Some(record),
            None => self.record()?,
        };
        let Some((bin, client, demand)) = first else { return Ok(None) };
        if let Some(last) = self.last_bin.filter(|&last| bin < last) {
            let problem = format!("bin {bin} comes after bin {last}; bins must ascend");
            return Err(TraceError::line(&self.table.file, self.table.line(), problem));
        }
        self.last_bin = Some(bin);
        out.push((client, demand));
        while let Some(record) = self.record()? {
            if record.0 != bin {
                self.pending = Some(record);
                break;
            }
            out.push((record.1, record.2));
        }
        Ok(Some(bin * self.bin_ns))
    }

    fn template(&self, client: usize) -> &Row {
        &self.clients[client]
    }

    fn bin_ns(&self) -> u64 {
        self.bin_ns
    }

    fn end(&self) -> u64 {
        let end = self.last_bin.map_or(0, |bin| (bin + 1) * self.bin_ns);
        self.duration.unwrap_or(0).max(end)
    }
}
