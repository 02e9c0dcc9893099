//! The SQLite export of Nsight Systems (`nsys export --type sqlite`), of versions 2020 to 2026: its
//! tables exist where something was recorded, and their columns come and go, so each one is asked for
//! by name and may be missing.

use std::collections::HashMap;
use std::path::Path;

use rusqlite::Row;
use rusqlite::types::ValueRef;

use super::database::{Database, count, int, text};
use super::{Call, Copy, Gpu, Kernel, Mark, Progress, Recording, Shape, Way, bytes, io};
use crate::files::{FileError, Problem};
use crate::import::ImportError;

const WHOLE: &str = "an export of Nsight Systems (nsys export --type sqlite)";
const KERNELS: &str = "CUPTI_ACTIVITY_KIND_KERNEL";
const GRAPHS: &str = "CUPTI_ACTIVITY_KIND_GRAPH_TRACE";
/// The tables that may have many rows.
const TABLES: [&str; 8] = [
    KERNELS,
    GRAPHS,
    "CUPTI_ACTIVITY_KIND_MEMCPY",
    "CUPTI_ACTIVITY_KIND_MEMSET",
    "CUPTI_ACTIVITY_KIND_RUNTIME",
    "CUPTI_ACTIVITY_KIND_DRIVER",
    "NVTX_EVENTS",
    "StringIds",
];

pub(super) fn read(path: &Path, progress: Progress<'_>) -> Result<Recording, ImportError> {
    let file = path.display().to_string();
    let size = std::fs::metadata(path).map_err(|e| io(path, e))?.len();
    let unpacked = if bytes::is_packed(path).map_err(|e| io(path, e))? {
        let mut plain = tempfile::NamedTempFile::new().map_err(|e| io(path, e))?;
        let mut from = bytes::open(path, &mut *progress).map_err(|e| io(path, e))?;
        std::io::copy(&mut from, &mut plain).map_err(|e| io(path, e))?;
        Some(plain)
    } else {
        None
    };
    let plain = unpacked.as_ref().map_or(path, |t| t.path());
    if !bytes::begins_with(plain, b"SQLite format 3").map_err(|e| io(path, e))? {
        let from = bytes::open(plain, progress).map_err(|e| io(path, e))?;
        return super::nsys_csv::read(&file, from);
    }
    // The progress of a packed file was that of unpacking it.
    let mut silent = |_| {};
    let watch: Progress<'_> = if unpacked.is_some() { &mut silent } else { &mut *progress };
    let database = Database::open(&file, plain, &TABLES, watch)?;
    let mut reader = Reader {
        all: Recording { file, ..Recording::default() },
        database,
        texts: HashMap::new(),
        processes: HashMap::new(),
    };
    reader.everything()?;
    let all = reader.all;
    progress(size);
    Ok(all)
}

struct Reader<'a> {
    all: Recording,
    database: Database<'a>,
    /// Ids of `StringIds` encountered so far, as names of the recording.
    texts: HashMap<i64, u32>,
    processes: HashMap<i64, u32>,
}

/// The process and its machine in a `globalPid` or `globalTid`: the lowest 24 bits are the thread.
fn process(global: i64) -> i64 {
    global >> 24
}

impl Reader<'_> {
    fn everything(&mut self) -> Result<(), ImportError> {
        let named = self.database.columns("StringIds")?;
        if named.is_empty() {
            let problem = Problem::Value {
                text: "a database without this table".to_owned(),
                wanted: WHOLE.to_owned(),
            };
            return Err(FileError::bad(&self.all.file, 1, "StringIds", problem));
        }
        self.all.facts = vec![("tool", self.tool()?)];
        self.gpus()?;
        let kernels = self.kernels()?;
        let graphs = self.graphs()?;
        if !kernels && graphs == 0 {
            let has = self.database.columns(KERNELS)?;
            let text = if has.is_empty() {
                "a database without this table"
            } else {
                "a table without start, end or a name"
            };
            let problem = Problem::Value {
                text: text.to_owned(),
                wanted: format!("{WHOLE} of a run that was traced with `--trace=cuda`"),
            };
            return Err(FileError::bad(&self.all.file, 1, KERNELS, problem));
        }
        if graphs > 0 {
            self.all.warnings.push(format!(
                "{graphs} launches of CUDA graphs were recorded whole, without their kernels: each is \
                 taken for one kernel of unknown shape; record with --cuda-graph-trace=node"
            ));
        }
        self.copies()?;
        self.calls()?;
        self.marks()?;
        self.texts()
    }

    fn tool(&self) -> Result<String, ImportError> {
        let mut version = None;
        self.database.each("META_DATA_EXPORT", &["name", "value"], 2, |row| {
            if text(row, 0).is_some_and(|n| n == "EXPORT_SCHEMA_VERSION") {
                version = text(row, 1);
            }
        })?;
        let schema = version.map_or(String::new(), |v| format!(", schema {v}"));
        Ok(format!("Nsight Systems (SQLite export{schema})"))
    }

    fn gpus(&mut self) -> Result<(), ImportError> {
        let mut by_id: Vec<(i64, Gpu)> = Vec::new();
        let columns = ["id", "name", "smCount", "totalMemory"];
        self.database.each("TARGET_INFO_GPU", &columns, 2, |row| {
            let Some(id) = int(row, 0) else { return };
            let gpu = Gpu {
                index: u32::try_from(id).unwrap_or(u32::MAX),
                name: text(row, 1).unwrap_or_default(),
                cus: int(row, 2).and_then(|n| u32::try_from(n).ok()).filter(|n| *n > 0),
                memory: int(row, 3).and_then(|n| u64::try_from(n).ok()).filter(|n| *n > 0),
            };
            by_id.push((id, gpu));
        })?;
        // Device 0 of a process may be another GPU of the machine.
        let mut cuda: Vec<(u32, i64)> = Vec::new();
        self.database.each("TARGET_INFO_CUDA_DEVICE", &["cudaId", "gpuId"], 2, |row| {
            if let (Some(cuda_id), Some(gpu)) = (int(row, 0), int(row, 1)) {
                cuda.push((u32::try_from(cuda_id).unwrap_or(u32::MAX), gpu));
            }
        })?;
        let all = &mut self.all.gpus;
        for (cuda_id, gpu_id) in cuda {
            let known = by_id.iter().find(|(id, _)| *id == gpu_id);
            if let Some((_, gpu)) = known.filter(|_| all.iter().all(|g| g.index != cuda_id)) {
                all.push(Gpu { index: cuda_id, ..gpu.clone() });
            }
        }
        if all.is_empty() {
            all.extend(by_id.into_iter().map(|(_, gpu)| gpu));
        }
        Ok(())
    }

    fn kernels(&mut self) -> Result<bool, ImportError> {
        const COLUMNS: [&str; 20] = [
            "start",
            "end",
            "deviceId",
            "contextId",
            "streamId",
            "correlationId",
            "globalPid",
            "demangledName",
            "shortName",
            "registersPerThread",
            "gridX",
            "gridY",
            "gridZ",
            "blockX",
            "blockY",
            "blockZ",
            "staticSharedMemory",
            "dynamicSharedMemory",
            "graphNodeId",
            "mangledName",
        ];
        let (all, texts, processes) = (&mut self.all, &mut self.texts, &mut self.processes);
        let mut number = 0usize;
        self.database.each(KERNELS, &COLUMNS, 2, |row| {
            let (at, begun) = (number, int(row, 0));
            number += 1;
            let end = int(row, 1);
            let took = begun.zip(end).and_then(|(s, e)| u64::try_from(e.checked_sub(s)?).ok());
            let (Some(start), Some(duration)) = (begun, took) else {
                let column = if begun.is_none() { "start" } else { "end" };
                let problem = Problem::Value {
                    text: int(row, usize::from(begun.is_some()))
                        .map_or_else(|| "nothing".to_owned(), |n| n.to_string()),
                    wanted: "a time in ns, the end after the start".to_owned(),
                };
                all.drop_bad(|| format!("{KERNELS}[{at}].{column}"), problem);
                return;
            };
            let sizes = |first: usize| {
                let size = |i| int(row, i).and_then(|n| u32::try_from(n).ok()).filter(|n| *n > 0);
                Some([size(first)?, size(first + 1)?, size(first + 2)?])
            };
            let threads = sizes(13).and_then(|b| b.iter().try_fold(1u32, |n, s| n.checked_mul(*s)));
            let shape = Shape {
                grid: sizes(10),
                block: threads.unwrap_or(0),
                regs: count(row, 9),
                smem_bytes: count(row, 16).saturating_add(count(row, 17)),
            };
            let Some(name) = name(row, &[7, 8, 19], all, texts) else {
                all.drop("kernels without a name");
                return;
            };
            let process = place(processes, process(int(row, 6).unwrap_or(0)));
            let gpu = count(row, 2);
            let key = format!("{process}/{gpu}/{}/{}", count(row, 3), count(row, 4));
            let stream = all.stream_id(&key, process);
            let shape = all.shape(shape);
            let link = link(process, int(row, 5));
            let graph = int(row, 18).is_some_and(|n| n > 0);
            all.kernels.push(Kernel { name, shape, gpu, stream, link, start, duration, graph });
        })
    }

    /// Launches of whole graphs: one kernel each.
    fn graphs(&mut self) -> Result<usize, ImportError> {
        const COLUMNS: [&str; 8] = [
            "start",
            "end",
            "deviceId",
            "graphId",
            "contextId",
            "streamId",
            "correlationId",
            "globalPid",
        ];
        let (all, processes) = (&mut self.all, &mut self.processes);
        let mut nodes: Vec<u64> =
            all.kernels.iter().filter(|k| k.graph && k.link > 0).map(|k| k.link).collect();
        nodes.sort_unstable();
        nodes.dedup();
        let mut n = 0;
        self.database.each(GRAPHS, &COLUMNS, 2, |row| {
            let took = int(row, 0).zip(int(row, 1));
            let took = took.and_then(|(s, e)| Some((s, u64::try_from(e.checked_sub(s)?).ok()?)));
            let Some((start, duration)) = took else {
                all.drop("graphs whose times do not read");
                return;
            };
            let process = place(processes, process(int(row, 7).unwrap_or(0)));
            let link = link(process, int(row, 6));
            if nodes.binary_search(&link).is_ok() {
                all.drop("graphs whose kernels are recorded, too");
                return;
            }
            let name = match int(row, 3) {
                Some(id) => all.names.id(&format!("CUDA graph {id}")),
                None => all.names.id("CUDA graph"),
            };
            let shape = all.shape(Shape { grid: None, block: 0, regs: 0, smem_bytes: 0 });
            let gpu = count(row, 2);
            // Without its stream it may be on any: the first one of its GPU.
            let known = all.kernels.iter().find(|k| k.gpu == gpu).map(|k| k.stream);
            let stream = match (int(row, 5), known) {
                (None, Some(stream)) => stream,
                _ => {
                    let key = format!("{process}/{gpu}/{}/{}", count(row, 4), count(row, 5));
                    all.stream_id(&key, process)
                }
            };
            all.kernels.push(Kernel {
                name,
                shape,
                gpu,
                stream,
                link,
                start,
                duration,
                graph: true,
            });
            n += 1;
        })?;
        Ok(n)
    }

    fn copies(&mut self) -> Result<(), ImportError> {
        const COLUMNS: [&str; 7] =
            ["start", "end", "deviceId", "correlationId", "globalPid", "bytes", "copyKind"];
        let (all, processes) = (&mut self.all, &mut self.processes);
        for (table, memset) in
            [("CUPTI_ACTIVITY_KIND_MEMCPY", false), ("CUPTI_ACTIVITY_KIND_MEMSET", true)]
        {
            self.database.each(table, &COLUMNS, 2, |row| {
                let took = int(row, 0).zip(int(row, 1));
                let took =
                    took.and_then(|(s, e)| Some((s, u64::try_from(e.checked_sub(s)?).ok()?)));
                let Some((start, duration)) = took else { return };
                let way = match int(row, 6) {
                    Some(1) if !memset => Way::In,
                    Some(2) if !memset => Way::Out,
                    _ => Way::Inside,
                };
                let global = int(row, 4);
                let place = place(processes, process(global.unwrap_or(0)));
                all.copies.push(Copy {
                    way,
                    gpu: count(row, 2),
                    process: global.map_or(Copy::OF_ANY, |_| place),
                    link: link(place, int(row, 3)),
                    bytes: int(row, 5).and_then(|n| u64::try_from(n).ok()).unwrap_or(0),
                    start,
                    duration,
                });
            })?;
        }
        Ok(())
    }

    /// Calls that belong to a kernel or a copy, according to `correlationId`.
    fn calls(&mut self) -> Result<(), ImportError> {
        let all = &mut self.all;
        let mut wanted: Vec<u64> = all.kernels.iter().map(|k| k.link).collect();
        wanted.extend(all.copies.iter().map(|c| c.link));
        wanted.retain(|l| *l > 0);
        wanted.sort_unstable();
        wanted.dedup();
        let processes = &mut self.processes;
        for table in ["CUPTI_ACTIVITY_KIND_RUNTIME", "CUPTI_ACTIVITY_KIND_DRIVER"] {
            self.database.each(
                table,
                &["start", "end", "correlationId", "globalTid"],
                3,
                |row| {
                    let process = place(processes, process(int(row, 3).unwrap_or(0)));
                    let link = link(process, int(row, 2));
                    if let (Some(start), Some(end)) = (int(row, 0), int(row, 1))
                        && end >= start
                        && wanted.binary_search(&link).is_ok()
                    {
                        all.calls.push(Call { link, start, end });
                    }
                },
            )?;
        }
        Ok(())
    }

    /// Ranges of NVTX: pushed and popped, or started and ended.
    fn marks(&mut self) -> Result<(), ImportError> {
        let columns = ["start", "end", "text", "textId", "globalTid", "eventType"];
        let (all, texts, processes) = (&mut self.all, &mut self.texts, &mut self.processes);
        self.database.each("NVTX_EVENTS", &columns, 2, |row| {
            let (Some(start), Some(end)) = (int(row, 0), int(row, 1)) else { return };
            if end < start || int(row, 5).is_some_and(|t| ![59, 60, 70, 71].contains(&t)) {
                return;
            }
            let name = match text(row, 2) {
                Some(text) => all.names.id(&text),
                None => match int(row, 3) {
                    Some(id) => later(id, all, texts),
                    None => return,
                },
            };
            let process = place(processes, process(int(row, 4).unwrap_or(0)));
            all.marks.push(Mark { name, process, start, end, on_gpu: false });
        })?;
        Ok(())
    }

    /// Looks up the names encountered; the table also holds those of every call stack.
    fn texts(&mut self) -> Result<(), ImportError> {
        let (all, texts) = (&mut self.all, &self.texts);
        self.database.each("StringIds", &["id", "value"], 2, |row| {
            let known = int(row, 0).and_then(|id| texts.get(&id));
            if let (Some(&name), Some(text)) = (known, text(row, 1)) {
                all.names.all[name as usize] = text;
            }
        })?;
        Ok(())
    }
}

/// The first of these columns that holds a name: an id of `StringIds`, or the text itself.
fn name(
    row: &Row<'_>,
    columns: &[usize],
    all: &mut Recording,
    texts: &mut HashMap<i64, u32>,
) -> Option<u32> {
    columns.iter().find_map(|&c| match row.get_ref(c).ok()? {
        ValueRef::Integer(id) => Some(later(id, all, texts)),
        ValueRef::Text(t) => Some(all.names.id(&String::from_utf8_lossy(t))),
        _ => None,
    })
}

/// A name whose text is looked up at the end.
fn later(id: i64, all: &mut Recording, texts: &mut HashMap<i64, u32>) -> u32 {
    // The placeholder that remains if the table lacks the name.
    *texts.entry(id).or_insert_with(|| all.names.id(&format!("string {id}")))
}

fn place(known: &mut HashMap<i64, u32>, process: i64) -> u32 {
    let next = u32::try_from(known.len()).unwrap_or(u32::MAX);
    *known.entry(process).or_insert(next)
}

/// A correlation id counts within its process.
fn link(process: u32, correlation: Option<i64>) -> u64 {
    match correlation.and_then(|c| u32::try_from(c).ok()) {
        Some(c) if c > 0 => (u64::from(process) << 32) | u64::from(c),
        _ => 0,
    }
}
