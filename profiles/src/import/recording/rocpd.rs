//! rocpd, the database of ROCm's profilers (schema 3). Each process that was recorded has tables of its
//! own, whose names end in its identifier; numbers count within them.

use std::collections::HashMap;
use std::path::Path;

use rusqlite::Row;

use super::database::{Beside, Database, count, int, text};
use super::rocprof::{blocks, small};
use super::{Call, Copy, Gpu, Kernel, Mark, Progress, Recording, Shape, Way};
use crate::files::{FileError, Problem};
use crate::import::ImportError;

const KERNELS: &str = "rocpd_kernel_dispatch";
/// The tables that may have many rows.
const TABLES: [&str; 4] = [KERNELS, "rocpd_memory_copy", "rocpd_string", "rocpd_region"];

/// Reads the tables of every process; if there are none, views without a suffix, or tables without one.
pub(super) fn read(
    file: &str,
    path: &Path,
    progress: Progress<'_>,
) -> Result<Recording, ImportError> {
    let database = Database::open(file, path, &TABLES, progress)?;
    let mut all = super::rocprof::empty(file);
    let mut suffixes = database.suffixes(KERNELS);
    if suffixes.is_empty() {
        if database.tables(KERNELS)?.is_empty() {
            let problem = Problem::Value {
                text: "a database without this table".to_owned(),
                wanted: super::rocprof::WANTED.to_owned(),
            };
            return Err(FileError::bad(file, 1, KERNELS, problem));
        }
        suffixes.push(String::new());
    }
    let mut processes = HashMap::new();
    for (group, suffix) in (0u32..).zip(&suffixes) {
        Group {
            database: &database,
            suffix,
            group,
            all: &mut all,
            processes: &mut processes,
            gpus: HashMap::new(),
            first: 0,
            first_copy: 0,
        }
        .read()?;
    }
    Ok(all)
}

/// The tables of one suffix.
struct Group<'a, 'b> {
    database: &'a Database<'b>,
    suffix: &'a str,
    group: u32,
    all: &'a mut Recording,
    /// Processes by group and number.
    processes: &'a mut HashMap<(u32, i64), u32>,
    /// GPUs by the number of their agent.
    gpus: HashMap<i64, u32>,
    /// The first kernel and copy of this group.
    first: usize,
    first_copy: usize,
}

/// The number of a process among all.
fn place(processes: &mut HashMap<(u32, i64), u32>, group: u32, process: i64) -> u32 {
    let next = u32::try_from(processes.len()).unwrap_or(u32::MAX);
    *processes.entry((group, process)).or_insert(next)
}

/// The link between a launch and its call: both have the same stack id, which counts within their
/// process.
fn link(process: u32, stack: Option<i64>) -> u64 {
    match stack.and_then(|s| u64::try_from(s).ok()) {
        Some(stack) if stack > 0 => (u64::from(process) << 40) | (stack & ((1 << 40) - 1)),
        _ => 0,
    }
}

fn took(row: &Row<'_>) -> Option<(i64, u64)> {
    let (start, end) = int(row, 0).zip(int(row, 1))?;
    Some((start, u64::try_from(end.checked_sub(start)?).ok()?))
}

impl Group<'_, '_> {
    /// The tables of this name.
    fn tables(&self, name: &str) -> Result<Vec<String>, ImportError> {
        let own = format!("{name}{}", self.suffix);
        if !self.suffix.is_empty() && !self.database.columns(&own)?.is_empty() {
            return Ok(vec![own]);
        }
        self.database.tables(name)
    }

    fn read(&mut self) -> Result<(), ImportError> {
        (self.first, self.first_copy) = (self.all.kernels.len(), self.all.copies.len());
        self.agents()?;
        self.kernels()?;
        self.copies()?;
        self.regions()
    }

    fn agents(&mut self) -> Result<(), ImportError> {
        let columns = ["id", "absolute_index", "type", "product_name", "name", "extdata"];
        for table in self.tables("rocpd_info_agent")? {
            self.database.each(&table, &columns, 1, |row| {
                let Some(id) = int(row, 0) else { return };
                if text(row, 2).is_some_and(|t| !t.eq_ignore_ascii_case("gpu")) {
                    return;
                }
                let index = int(row, 1)
                    .and_then(|n| u32::try_from(n).ok())
                    .unwrap_or_else(|| small(id.unsigned_abs()));
                self.gpus.insert(id, index);
                if self.all.gpus.iter().any(|g| g.index == index) {
                    return;
                }
                let name = text(row, 3).filter(|n| !n.is_empty()).or_else(|| text(row, 4));
                // The agent as rocprofiler-sdk describes it, in JSON.
                let more = text(row, 5).and_then(|t| serde_json::from_str::<Agent>(&t).ok());
                let cus = more.and_then(|m| m.cu_count).filter(|n| *n > 0);
                let name = name.unwrap_or_default();
                self.all.gpus.push(Gpu { index, name, cus, memory: None });
            })?;
        }
        Ok(())
    }

    fn kernels(&mut self) -> Result<(), ImportError> {
        const COLUMNS: [&str; 16] = [
            "start",
            "end",
            "kernel_id",
            "agent_id",
            "queue_id",
            "stream_id",
            "pid",
            "event_id",
            "group_segment_size",
            "workgroup_size_x",
            "workgroup_size_y",
            "workgroup_size_z",
            "grid_size_x",
            "grid_size_y",
            "grid_size_z",
            "graph_node_id",
        ];
        let mut symbols: HashMap<i64, (String, u32)> = HashMap::new();
        let columns = ["id", "display_name", "kernel_name", "arch_vgpr_count"];
        for table in self.tables("rocpd_info_kernel_symbol")? {
            self.database.each(&table, &columns, 1, |row| {
                let Some(id) = int(row, 0) else { return };
                let name = text(row, 1).filter(|n| !n.is_empty()).or_else(|| text(row, 2));
                symbols.insert(id, (name.unwrap_or_default(), count(row, 3)));
            })?;
        }
        let events = self.tables("rocpd_event")?;
        let beside = events.first().map(|table| Beside {
            table,
            column: "event_id",
            columns: &["stack_id"],
        });
        for table in self.tables(KERNELS)? {
            let (all, processes, group) = (&mut *self.all, &mut *self.processes, self.group);
            self.database.each_beside(&table, &COLUMNS, 3, beside.as_ref(), |row| {
                let Some((start, duration)) = took(row) else {
                    all.drop("kernels whose times do not read");
                    return;
                };
                let id = int(row, 2).unwrap_or(0);
                let size = |first: usize| [0, 1, 2].map(|i| u64::from(count(row, first + i)));
                let (grid, block) = blocks(size(12), size(9));
                let symbol = symbols.get(&id);
                let regs = symbol.map_or(0, |s| s.1);
                let shape = Shape { grid, block, regs, smem_bytes: count(row, 8) };
                let agent = int(row, 3).unwrap_or(0);
                let gpu =
                    self.gpus.get(&agent).copied().unwrap_or_else(|| small(agent.unsigned_abs()));
                let process = place(processes, group, int(row, 6).unwrap_or(0));
                let key = format!("{process}/{gpu}/{}/{}", count(row, 4), count(row, 5));
                let stream = all.stream_id(&key, process);
                let name = match symbol.map(|s| s.0.as_str()).filter(|n| !n.is_empty()) {
                    Some(name) => all.names.id(name),
                    None => all.names.id(&format!("kernel {id}")),
                };
                let shape = all.shape(shape);
                let link = link(process, beside.as_ref().and_then(|_| int(row, 16)));
                let graph = int(row, 15).is_some_and(|n| n > 0);
                all.kernels.push(Kernel { name, shape, gpu, stream, link, start, duration, graph });
            })?;
        }
        Ok(())
    }

    fn copies(&mut self) -> Result<(), ImportError> {
        let columns = ["start", "end", "src_agent_id", "dst_agent_id", "size", "pid", "event_id"];
        let events = self.tables("rocpd_event")?;
        let beside = events.first().map(|table| Beside {
            table,
            column: "event_id",
            columns: &["stack_id"],
        });
        for table in self.tables("rocpd_memory_copy")? {
            let (all, processes, group) = (&mut *self.all, &mut *self.processes, self.group);
            self.database.each_beside(&table, &columns, 2, beside.as_ref(), |row| {
                let Some((start, duration)) = took(row) else {
                    all.drop("copies that do not read");
                    return;
                };
                let of = |column| int(row, column).and_then(|agent| self.gpus.get(&agent).copied());
                let (way, gpu) = match (of(2), of(3)) {
                    (None, Some(gpu)) => (Way::In, gpu),
                    (Some(gpu), None) => (Way::Out, gpu),
                    (_, to) => (Way::Inside, to.unwrap_or(0)),
                };
                let bytes = int(row, 4).and_then(|n| u64::try_from(n).ok()).unwrap_or(0);
                let process = place(processes, group, int(row, 5).unwrap_or(0));
                let link = link(process, beside.as_ref().and_then(|_| int(row, 7)));
                all.copies.push(Copy { way, gpu, process, link, bytes, start, duration });
            })?;
        }
        Ok(())
    }

    /// Reads calls that put work on a GPU, and marks.
    fn regions(&mut self) -> Result<(), ImportError> {
        let mut strings: HashMap<i64, String> = HashMap::new();
        for table in self.tables("rocpd_string")? {
            self.database.each(&table, &["id", "string"], 2, |row| {
                if let (Some(id), Some(text)) = (int(row, 0), text(row, 1)) {
                    strings.insert(id, text);
                }
            })?;
        }
        let mut known: Vec<u64> = self.all.kernels[self.first..].iter().map(|k| k.link).collect();
        known.extend(self.all.copies[self.first_copy..].iter().map(|c| c.link));
        known.retain(|l| *l > 0);
        known.sort_unstable();
        known.dedup();
        let columns = ["start", "end", "name_id", "pid", "event_id"];
        let events = self.tables("rocpd_event")?;
        let beside = events.first().map(|table| Beside {
            table,
            column: "event_id",
            columns: &["stack_id", "category_id"],
        });
        for table in self.tables("rocpd_region")? {
            let (all, processes, group) = (&mut *self.all, &mut *self.processes, self.group);
            self.database.each_beside(&table, &columns, 2, beside.as_ref(), |row| {
                let (Some(start), Some(end)) = (int(row, 0), int(row, 1)) else { return };
                if end < start {
                    return;
                }
                let process = place(processes, group, int(row, 3).unwrap_or(0));
                let event = |column| beside.as_ref().and_then(|_| int(row, column));
                let link = link(process, event(5));
                if known.binary_search(&link).is_ok() {
                    all.calls.push(Call { link, start, end });
                    return;
                }
                let category = event(6).and_then(|c| strings.get(&c));
                let marker = category.is_some_and(|c| c.contains("MARKER"));
                let name = int(row, 2).and_then(|n| strings.get(&n)).filter(|_| marker);
                if let Some(name) = name {
                    let name = all.names.id(name);
                    all.marks.push(Mark { name, process, start, end, on_gpu: false });
                }
            })?;
        }
        Ok(())
    }
}

/// Facts about a GPU according to rocprofiler-sdk.
#[derive(serde::Deserialize)]
struct Agent {
    cu_count: Option<u32>,
}
