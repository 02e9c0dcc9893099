//! What rocprofv3 writes (rocprofiler-sdk): `kernel_trace.csv`, its JSON, and the rocpd database. Grids
//! count work-items there; blocks are the grid over the workgroup.

use std::collections::{BTreeMap, HashMap};
use std::io::Read;
use std::path::Path;

use serde::Deserialize;

use super::sheet::Sheet;
use super::{Call, Copy, Gpu, Kernel, Progress, Recording, Shape, Way, bytes, io};
use crate::files::{FileError, Problem};
use crate::import::ImportError;

pub(super) const WANTED: &str =
    "what rocprofv3 writes: kernel_trace.csv, its JSON, or a rocpd database";

pub(super) fn read(path: &Path, progress: Progress<'_>) -> Result<Recording, ImportError> {
    let file = path.display().to_string();
    let failed = |e| io(path, e);
    if bytes::begins_with(path, b"SQLite format 3").map_err(failed)? {
        return super::rocpd::read(&file, path);
    }
    of_text(&file, bytes::open(path, progress).map_err(failed)?)
}

/// What is no database.
pub(super) fn of_text(file: &str, mut from: impl Read) -> Result<Recording, ImportError> {
    let failed = |e| io(Path::new(file), e);
    let mut head = Vec::new();
    from.by_ref().take(64).read_to_end(&mut head).map_err(failed)?;
    let json = head.iter().find(|b| !b.is_ascii_whitespace()) == Some(&b'{');
    let whole = std::io::BufReader::new(std::io::Cursor::new(head).chain(from));
    if json { of_json(file, whole) } else { of_csv(file, whole) }
}

pub(super) fn empty(file: &str) -> Recording {
    let facts = vec![("tool", "rocprofv3".to_owned())];
    Recording { file: file.to_owned(), facts, ..Recording::default() }
}

/// Blocks of a grid of work-items.
pub(super) fn blocks(grid: [u64; 3], group: [u64; 3]) -> (Option<[u32; 3]>, u32) {
    let n = |i: usize| {
        let blocks =
            grid[i].checked_div(group[i]).map(|n| n + u64::from(!grid[i].is_multiple_of(group[i])));
        blocks.and_then(|n| u32::try_from(n).ok()).filter(|n| *n > 0)
    };
    let three = n(0).zip(n(1)).zip(n(2)).map(|((x, y), z)| [x, y, z]);
    let threads = group.iter().try_fold(1u64, |all, g| all.checked_mul(*g));
    (three, threads.and_then(|t| u32::try_from(t).ok()).unwrap_or(0))
}

pub(super) fn small(n: u64) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

fn of_csv(file: &str, from: impl Read) -> Result<Recording, ImportError> {
    let failed = |e| io(Path::new(file), e);
    let needed = ["kernel_name", "start_timestamp", "end_timestamp"];
    let Some(mut sheet) = Sheet::open(from, &needed).map_err(failed)? else {
        let problem =
            Problem::Value { text: "no such header".to_owned(), wanted: WANTED.to_owned() };
        return Err(FileError::bad(file, 1, "file", problem));
    };
    let mut all = empty(file);
    let [name, start, end] = needed.map(|c| sheet.column(&[c]));
    let agent = sheet.column(&["agent_id"]);
    let queue = sheet.column(&["stream_id"]).or(sheet.column(&["queue_id"]));
    let group =
        ["workgroup_size_x", "workgroup_size_y", "workgroup_size_z"].map(|c| sheet.column(&[c]));
    let grid = ["grid_size_x", "grid_size_y", "grid_size_z"].map(|c| sheet.column(&[c]));
    let smem = sheet.column(&["group_segment_size", "lds_block_size"]);
    let regs = sheet.column(&["vgpr_count", "arch_vgpr_count"]);
    while sheet.next().map_err(failed)? {
        let times = sheet.ns(start).zip(sheet.ns(end));
        let took = times.and_then(|(s, e)| u64::try_from(e.checked_sub(s)?).ok());
        let (Some((start, _)), Some(duration)) = (times, took) else {
            let line = sheet.line();
            let text = sheet.text(start).unwrap_or("nothing").to_owned();
            let wanted = "a time in ns, the end behind the start".to_owned();
            all.drop_bad(
                || format!("line {line}: Start_Timestamp"),
                Problem::Value { text, wanted },
            );
            continue;
        };
        let Some(text) = sheet.text(name).map(ToOwned::to_owned) else {
            all.drop("kernels without a name");
            continue;
        };
        // `Agent 4`, or a number.
        let agent = sheet.text(agent).and_then(|a| a.rsplit(' ').next()?.parse().ok()).unwrap_or(0);
        let three = |columns: [Option<usize>; 3]| columns.map(|c| sheet.count(c).unwrap_or(0));
        let (grid, block) = blocks(three(grid), three(group));
        let smem_bytes = small(sheet.count(smem).unwrap_or(0));
        let shape = Shape { grid, block, regs: small(sheet.count(regs).unwrap_or(0)), smem_bytes };
        let key = format!("{agent}/{}", sheet.text(queue).unwrap_or(""));
        let stream = all.stream_id(&key, 0);
        let (name, shape) = (all.names.id(&text), all.shape(shape));
        let (link, graph) = (0, false);
        all.kernels.push(Kernel { name, shape, gpu: agent, stream, link, start, duration, graph });
    }
    Ok(all)
}

#[derive(Deserialize)]
struct Json {
    #[serde(rename = "rocprofiler-sdk-tool")]
    runs: Vec<Run>,
}

#[derive(Deserialize)]
struct Run {
    #[serde(default)]
    agents: Vec<Agent>,
    #[serde(default)]
    kernel_symbols: Vec<Symbol>,
    buffer_records: Records,
    #[serde(default)]
    metadata: Option<Metadata>,
}

#[derive(Deserialize)]
struct Metadata {
    #[serde(default)]
    pid: u32,
}

#[derive(Deserialize)]
struct Handle {
    #[serde(default)]
    handle: u64,
}

#[derive(Deserialize)]
struct Agent {
    id: Handle,
    #[serde(default)]
    node_id: u32,
    #[serde(default)]
    product_name: String,
    #[serde(default)]
    cu_count: u32,
}

#[derive(Deserialize)]
struct Symbol {
    kernel_id: u64,
    #[serde(default)]
    formatted_kernel_name: String,
    #[serde(default)]
    kernel_name: String,
    #[serde(default)]
    arch_vgpr_count: u32,
}

#[derive(Deserialize)]
struct Records {
    #[serde(default)]
    kernel_dispatch: Vec<Dispatch>,
    #[serde(default)]
    hip_api: Vec<Api>,
    #[serde(default)]
    memory_copy: Vec<Moved>,
}

#[derive(Deserialize)]
struct Correlation {
    #[serde(default)]
    internal: u64,
}

#[derive(Deserialize)]
struct Dispatch {
    correlation_id: Correlation,
    start_timestamp: i64,
    end_timestamp: i64,
    dispatch_info: Info,
}

#[derive(Deserialize)]
struct Size {
    x: u64,
    y: u64,
    z: u64,
}

#[derive(Deserialize)]
struct Info {
    agent_id: Handle,
    queue_id: Handle,
    kernel_id: u64,
    #[serde(default)]
    group_segment_size: u64,
    workgroup_size: Size,
    grid_size: Size,
}

#[derive(Deserialize)]
struct Api {
    correlation_id: Correlation,
    start_timestamp: i64,
    end_timestamp: i64,
}

#[derive(Deserialize)]
struct Moved {
    correlation_id: Correlation,
    start_timestamp: i64,
    end_timestamp: i64,
    src_agent_id: Handle,
    dst_agent_id: Handle,
    #[serde(default)]
    bytes: u64,
}

fn of_json(file: &str, from: impl Read) -> Result<Recording, ImportError> {
    let read: Json = serde_json::from_reader(from).map_err(|e| {
        let problem = Problem::Value { text: e.to_string(), wanted: WANTED.to_owned() };
        FileError::bad(file, e.line().max(1), "rocprofiler-sdk-tool", problem)
    })?;
    let mut all = empty(file);
    for (process, run) in (0u32..).zip(read.runs) {
        let pid = run.metadata.map_or(process, |m| m.pid);
        all.run(process, pid, run.agents, run.kernel_symbols, run.buffer_records);
    }
    Ok(all)
}

impl Recording {
    fn run(
        &mut self,
        process: u32,
        pid: u32,
        agents: Vec<Agent>,
        symbols: Vec<Symbol>,
        records: Records,
    ) {
        let mut gpus: BTreeMap<u64, u32> = BTreeMap::new();
        for agent in agents.into_iter().filter(|a| a.cu_count > 0) {
            gpus.insert(agent.id.handle, agent.node_id);
            if self.gpus.iter().all(|g| g.index != agent.node_id) {
                let cus = Some(agent.cu_count);
                let name = agent.product_name;
                self.gpus.push(Gpu { index: agent.node_id, name, cus, memory: None });
            }
        }
        let symbols: HashMap<u64, Symbol> = symbols.into_iter().map(|s| (s.kernel_id, s)).collect();
        let link = |c: &Correlation| (u64::from(process) << 40) | (c.internal & ((1 << 40) - 1));
        for d in &records.kernel_dispatch {
            let took = d.end_timestamp.checked_sub(d.start_timestamp);
            let Some(duration) = took.and_then(|t| u64::try_from(t).ok()) else {
                self.drop("kernels whose times do not read");
                continue;
            };
            let info = &d.dispatch_info;
            let symbol = symbols.get(&info.kernel_id);
            let name = symbol.map_or("", |s| {
                let formatted = s.formatted_kernel_name.as_str();
                if formatted.is_empty() { s.kernel_name.trim_end_matches(".kd") } else { formatted }
            });
            let name = if name.is_empty() {
                format!("kernel {}", info.kernel_id)
            } else {
                name.to_owned()
            };
            let (grid, group) = (&info.grid_size, &info.workgroup_size);
            let (grid, block) = blocks([grid.x, grid.y, grid.z], [group.x, group.y, group.z]);
            let regs = symbol.map_or(0, |s| s.arch_vgpr_count);
            let shape = Shape { grid, block, regs, smem_bytes: small(info.group_segment_size) };
            let gpu = gpus
                .get(&info.agent_id.handle)
                .copied()
                .unwrap_or_else(|| small(info.agent_id.handle));
            let key = format!("{pid}/{gpu}/{}", info.queue_id.handle);
            let stream = self.stream_id(&key, process);
            let (name, shape) = (self.names.id(&name), self.shape(shape));
            let (start, link) = (d.start_timestamp, link(&d.correlation_id));
            self.kernels.push(Kernel {
                name,
                shape,
                gpu,
                stream,
                link,
                start,
                duration,
                graph: false,
            });
        }
        for c in &records.memory_copy {
            let took = c.end_timestamp.checked_sub(c.start_timestamp);
            let Some(duration) = took.and_then(|t| u64::try_from(t).ok()) else { continue };
            let (from, to) = (gpus.get(&c.src_agent_id.handle), gpus.get(&c.dst_agent_id.handle));
            let (way, gpu) = match (from, to) {
                (None, Some(&gpu)) => (Way::In, gpu),
                (Some(&gpu), None) => (Way::Out, gpu),
                (_, to) => (Way::Inside, to.copied().unwrap_or(0)),
            };
            let (link, start) = (link(&c.correlation_id), c.start_timestamp);
            self.copies.push(Copy { way, gpu, link, bytes: c.bytes, start, duration });
        }
        for a in &records.hip_api {
            let (start, end) = (a.start_timestamp, a.end_timestamp);
            if a.correlation_id.internal > 0 && end >= start {
                self.calls.push(Call { link: link(&a.correlation_id), start, end });
            }
        }
        // Calls of which nothing on the GPU knows are of no use.
        let mut known: Vec<u64> = self.kernels.iter().map(|k| k.link).collect();
        known.extend(self.copies.iter().map(|c| c.link));
        known.sort_unstable();
        self.calls.retain(|c| known.binary_search(&c.link).is_ok());
    }
}
