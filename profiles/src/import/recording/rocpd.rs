//! rocpd, the database of ROCm's profilers (schema 3).

use std::collections::HashMap;
use std::path::Path;

use super::database::{Database, count, int, text};
use super::rocprof::{blocks, small};
use super::{Call, Copy, Gpu, Kernel, Mark, Progress, Recording, Shape, Way};
use crate::files::{FileError, Problem};
use crate::import::ImportError;

/// The tables whose rows may be many.
const TABLES: [&str; 5] =
    ["rocpd_event", "rocpd_kernel_dispatch", "rocpd_memory_copy", "rocpd_string", "rocpd_region"];

/// Reads tables with or without the run's own suffix.
pub(super) fn read(
    file: &str,
    path: &Path,
    progress: Progress<'_>,
) -> Result<Recording, ImportError> {
    let database = Database::open(file, path, &TABLES, progress)?;
    let mut all = super::rocprof::empty(file);
    let mut names: HashMap<i64, String> = HashMap::new();
    let mut regs: HashMap<i64, u32> = HashMap::new();
    let columns = ["id", "display_name", "kernel_name", "arch_vgpr_count"];
    for table in database.tables("rocpd_info_kernel_symbol")? {
        database.each(&table, &columns, 1, |row| {
            let Some(id) = int(row, 0) else { return };
            let name = text(row, 1).filter(|n| !n.is_empty()).or_else(|| text(row, 2));
            names.insert(id, name.unwrap_or_default());
            regs.insert(id, count(row, 3));
        })?;
    }
    let columns = ["id", "absolute_index", "type", "product_name", "name"];
    let mut gpus: HashMap<i64, u32> = HashMap::new();
    for table in database.tables("rocpd_info_agent")? {
        database.each(&table, &columns, 1, |row| {
            let Some(id) = int(row, 0) else { return };
            if text(row, 2).is_some_and(|t| !t.eq_ignore_ascii_case("gpu")) {
                return;
            }
            let index = int(row, 1)
                .and_then(|n| u32::try_from(n).ok())
                .unwrap_or_else(|| small(id.unsigned_abs()));
            gpus.insert(id, index);
            let name =
                text(row, 3).filter(|n| !n.is_empty()).or_else(|| text(row, 4)).unwrap_or_default();
            all.gpus.push(Gpu { index, name, cus: None, memory: None });
        })?;
    }
    // The event of a launch and that of its call share a stack id.
    let mut stacks: HashMap<i64, (i64, i64)> = HashMap::new();
    for table in database.tables("rocpd_event")? {
        database.each(&table, &["id", "stack_id", "category_id"], 1, |row| {
            if let Some(id) = int(row, 0) {
                stacks.insert(id, (int(row, 1).unwrap_or(0), int(row, 2).unwrap_or(0)));
            }
        })?;
    }
    let link = |event: Option<i64>| {
        let stack = event.and_then(|e| stacks.get(&e)).map_or(0, |s| s.0);
        u64::try_from(stack).unwrap_or(0)
    };
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
    let tables = database.tables("rocpd_kernel_dispatch")?;
    if tables.is_empty() {
        let problem = Problem::Value {
            text: "a database without this table".to_owned(),
            wanted: super::rocprof::WANTED.to_owned(),
        };
        return Err(FileError::bad(file, 1, "rocpd_kernel_dispatch", problem));
    }
    for table in tables {
        database.each(&table, &COLUMNS, 3, |row| {
            let took = int(row, 0).zip(int(row, 1));
            let took = took.and_then(|(s, e)| Some((s, u64::try_from(e.checked_sub(s)?).ok()?)));
            let Some((start, duration)) = took else {
                all.drop("kernels whose times do not read");
                return;
            };
            let id = int(row, 2).unwrap_or(0);
            let size = |first: usize| [0, 1, 2].map(|i| u64::from(count(row, first + i)));
            let (grid, block) = blocks(size(12), size(9));
            let shape = Shape {
                grid,
                block,
                regs: regs.get(&id).copied().unwrap_or(0),
                smem_bytes: count(row, 8),
            };
            let agent = int(row, 3).unwrap_or(0);
            let gpu = gpus.get(&agent).copied().unwrap_or_else(|| small(agent.unsigned_abs()));
            let process = count(row, 6);
            let key = format!("{process}/{gpu}/{}/{}", count(row, 4), count(row, 5));
            let stream = all.stream_id(&key, process);
            let name = names.get(&id).filter(|n| !n.is_empty());
            let name = name.cloned().unwrap_or_else(|| format!("kernel {id}"));
            let (name, shape) = (all.names.id(&name), all.shape(shape));
            let link = link(int(row, 7));
            let graph = int(row, 15).is_some_and(|n| n > 0);
            all.kernels.push(Kernel { name, shape, gpu, stream, link, start, duration, graph });
        })?;
    }
    let columns = ["start", "end", "src_agent_id", "dst_agent_id", "size", "event_id"];
    for table in database.tables("rocpd_memory_copy")? {
        database.each(&table, &columns, 2, |row| {
            let took = int(row, 0).zip(int(row, 1));
            let took = took.and_then(|(s, e)| Some((s, u64::try_from(e.checked_sub(s)?).ok()?)));
            let Some((start, duration)) = took else {
                all.drop("copies that do not read");
                return;
            };
            let of = |column| int(row, column).and_then(|agent| gpus.get(&agent).copied());
            let (way, gpu) = match (of(2), of(3)) {
                (None, Some(gpu)) => (Way::In, gpu),
                (Some(gpu), None) => (Way::Out, gpu),
                (_, to) => (Way::Inside, to.unwrap_or(0)),
            };
            let bytes = int(row, 4).and_then(|n| u64::try_from(n).ok()).unwrap_or(0);
            let link = link(int(row, 5));
            all.copies.push(Copy { way, gpu, link, bytes, start, duration });
        })?;
    }
    let mut strings: HashMap<i64, String> = HashMap::new();
    for table in database.tables("rocpd_string")? {
        database.each(&table, &["id", "string"], 2, |row| {
            if let (Some(id), Some(text)) = (int(row, 0), text(row, 1)) {
                strings.insert(id, text);
            }
        })?;
    }
    let mut known: Vec<u64> = all.kernels.iter().map(|k| k.link).collect();
    known.extend(all.copies.iter().map(|c| c.link));
    known.retain(|l| *l > 0);
    known.sort_unstable();
    for table in database.tables("rocpd_region")? {
        let columns = ["start", "end", "event_id", "name_id", "pid"];
        database.each(&table, &columns, 2, |row| {
            let (Some(start), Some(end)) = (int(row, 0), int(row, 1)) else { return };
            let event = int(row, 2);
            let link = link(event);
            if end < start {
                return;
            }
            if known.binary_search(&link).is_ok() {
                all.calls.push(Call { link, start, end });
                return;
            }
            let category = event.and_then(|e| stacks.get(&e)).and_then(|s| strings.get(&s.1));
            let marker = category.is_some_and(|c| c.contains("MARKER"));
            let name = int(row, 3).and_then(|n| strings.get(&n)).filter(|_| marker);
            if let Some(name) = name {
                let name = all.names.id(name);
                all.marks.push(Mark { name, process: count(row, 4), start, end, on_gpu: false });
            }
        })?;
    }
    Ok(all)
}
