//! The JSON of rocprofv3 (rocprofiler-sdk, `generateJSON.cpp`): a list of processes, each with agents,
//! kernel symbols, and records of dispatches, calls, markers and copies. It is read as a stream, record by
//! record: what one record is damaged by costs that record.

use std::collections::{BTreeMap, HashMap};
use std::io::Read;
use std::path::Path;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::json::{Bytes, Ended};
use super::rocprof::{WANTED, blocks, empty, small};
use super::{Call, Copy, Gpu, Kernel, Mark, Recording, Shape, Way, io};
use crate::files::{FileError, Problem};
use crate::import::ImportError;

const PROCESSES: &str = "rocprofiler-sdk-tool";

pub(super) fn read(file: &str, from: impl Read) -> Result<Recording, ImportError> {
    let failed = |e| io(Path::new(file), e);
    let mut bytes = Bytes::new(from);
    let (mut all, mut found, mut whole) = (empty(file), false, true);
    let end = bytes.members(&mut |bytes, key| {
        if key != PROCESSES.as_bytes() {
            return Ok(false);
        }
        found = true;
        let mut number = 0u32;
        whole = bytes.objects(&mut |bytes| {
            let mut process = Process::new(number, &mut all);
            number = number.saturating_add(1);
            process.read(bytes)?;
            process.finish();
            Ok(())
        })?;
        Ok(true)
    });
    let end = end.map_err(failed)?;
    if !found {
        let text = "an object without this list".to_owned();
        let problem = Problem::Value { text, wanted: WANTED.to_owned() };
        return Err(FileError::bad(file, 1, PROCESSES, problem));
    }
    if !(end && whole) {
        all.warnings.push("the file has no end: it may be cut off".to_owned());
    }
    Ok(all)
}

#[derive(Deserialize)]
struct Metadata {
    pid: u32,
}

#[derive(Clone, Copy, Default, Deserialize)]
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

/// The operations of one kind of calls, in the order of their numbers.
#[derive(Deserialize)]
struct Operations {
    #[serde(default)]
    operations: Vec<String>,
}

#[derive(Deserialize)]
struct Message {
    key: u64,
    value: String,
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
    #[serde(default)]
    stream_id: Handle,
    dispatch_info: Info,
}

#[derive(Clone, Copy, Deserialize, PartialEq, Eq, Hash)]
struct Size {
    x: u64,
    y: u64,
    z: u64,
}

impl Size {
    fn three(self) -> [u64; 3] {
        [self.x, self.y, self.z]
    }
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
    #[serde(default)]
    kind: u32,
    #[serde(default)]
    operation: u32,
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

/// All that a dispatch says but its times: what stands for it is known when its process has been read.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Launched {
    kernel: u64,
    agent: u64,
    queue: u64,
    stream: u64,
    segment: u64,
    group: Size,
    grid: Size,
}

/// One process of the file.
struct Process<'a> {
    all: &'a mut Recording,
    number: u32,
    pid: u32,
    /// GPUs by the handle of their agent.
    gpus: BTreeMap<u64, u32>,
    symbols: HashMap<u64, Symbol>,
    /// Names of operations by kind.
    operations: Vec<Vec<String>>,
    /// Names of markers by correlation.
    messages: HashMap<u64, u32>,
    launched: Vec<Launched>,
    known: HashMap<Launched, u32>,
    /// Places in `launched`, in the place of the kernels' shapes, from this kernel on.
    first: usize,
    /// Agents of copies, from this copy on.
    ends: Vec<(u64, u64)>,
    first_copy: usize,
    first_call: usize,
    record: Vec<u8>,
}

impl<'a> Process<'a> {
    fn new(number: u32, all: &'a mut Recording) -> Self {
        let (first, first_copy, first_call) =
            (all.kernels.len(), all.copies.len(), all.calls.len());
        Self {
            all,
            number,
            pid: number,
            gpus: BTreeMap::new(),
            symbols: HashMap::new(),
            operations: Vec::new(),
            messages: HashMap::new(),
            launched: Vec::new(),
            known: HashMap::new(),
            first,
            ends: Vec::new(),
            first_copy,
            first_call,
            record: Vec::new(),
        }
    }

    fn read<R: Read>(&mut self, bytes: &mut Bytes<R>) -> std::io::Result<()> {
        let all = bytes.members(&mut |bytes, key| match key {
            b"metadata" => self.one(bytes, |p, m: Metadata| p.pid = m.pid).map(|()| true),
            b"agents" => self.each(bytes, "agents", Self::agent),
            b"kernel_symbols" => self.each(bytes, "kernel symbols", |p, s: Symbol| {
                p.symbols.insert(s.kernel_id, s);
            }),
            b"strings" => bytes.members(&mut |bytes, key| match key {
                b"buffer_records" => self.each(bytes, "names of operations", |p, o: Operations| {
                    p.operations.push(o.operations);
                }),
                b"marker_api" => self.each(bytes, "names of markers", |p, m: Message| {
                    let name = p.all.names.id(&m.value);
                    p.messages.insert(m.key, name);
                }),
                _ => Ok(false),
            }),
            b"buffer_records" => bytes.members(&mut |bytes, key| match key {
                b"kernel_dispatch" => {
                    self.each(bytes, "kernels whose times do not read", Self::dispatch)
                }
                b"hip_api" => self.each(bytes, "calls that do not read", Self::call),
                b"marker_api" => self.each(bytes, "markers that do not read", Self::marker),
                b"memory_copy" => self.each(bytes, "copies that do not read", Self::copy),
                _ => Ok(false),
            }),
            _ => Ok(false),
        });
        all.map(drop)
    }

    /// Reads one value.
    fn one<R: Read, T: DeserializeOwned>(
        &mut self,
        bytes: &mut Bytes<R>,
        take: impl FnOnce(&mut Self, T),
    ) -> std::io::Result<()> {
        let mut record = std::mem::take(&mut self.record);
        bytes.value(&mut record)?;
        if let Ok(read) = serde_json::from_slice(&record) {
            take(self, read);
        }
        self.record = record;
        Ok(())
    }

    /// Reads the records of a list; `lost` names those that do not read.
    fn each<R: Read, T: DeserializeOwned>(
        &mut self,
        bytes: &mut Bytes<R>,
        lost: &'static str,
        mut take: impl FnMut(&mut Self, T),
    ) -> std::io::Result<bool> {
        bytes.objects(&mut |bytes| {
            let mut record = std::mem::take(&mut self.record);
            let ended = bytes.value(&mut record)?;
            let text = String::from_utf8_lossy(&record);
            match (ended, serde_json::from_str(&text)) {
                (Ended::Whole, Ok(read)) => take(self, read),
                (Ended::Whole, Err(e)) if lost.starts_with("kernels") => {
                    let wanted = "a dispatch with start, end and sizes".to_owned();
                    let problem = Problem::Value { text: e.to_string(), wanted };
                    self.all.drop_bad(|| "kernel_dispatch".to_owned(), problem);
                }
                _ => self.all.drop(lost),
            }
            self.record = record;
            Ok(())
        })?;
        Ok(true)
    }

    fn agent(&mut self, agent: Agent) {
        if agent.cu_count == 0 {
            return;
        }
        self.gpus.insert(agent.id.handle, agent.node_id);
        if self.all.gpus.iter().all(|g| g.index != agent.node_id) {
            let (index, cus) = (agent.node_id, Some(agent.cu_count));
            self.all.gpus.push(Gpu { index, name: agent.product_name, cus, memory: None });
        }
    }

    /// A correlation's link: processes count on their own.
    fn link(&self, correlation: &Correlation) -> u64 {
        (u64::from(self.number) << 40) | (correlation.internal & ((1 << 40) - 1))
    }

    fn dispatch(&mut self, d: Dispatch) {
        let took = d.end_timestamp.checked_sub(d.start_timestamp);
        let Some(duration) = took.and_then(|t| u64::try_from(t).ok()) else {
            let text = d.end_timestamp.to_string();
            let wanted = "a time in ns, the end after the start".to_owned();
            let field = || "kernel_dispatch.end_timestamp".to_owned();
            self.all.drop_bad(field, Problem::Value { text, wanted });
            return;
        };
        let info = &d.dispatch_info;
        let launched = Launched {
            kernel: info.kernel_id,
            agent: info.agent_id.handle,
            queue: info.queue_id.handle,
            stream: d.stream_id.handle,
            segment: info.group_segment_size,
            group: info.workgroup_size,
            grid: info.grid_size,
        };
        let next = u32::try_from(self.launched.len()).unwrap_or(u32::MAX);
        let shape = *self.known.entry(launched).or_insert(next);
        if shape == next {
            self.launched.push(launched);
        }
        let (start, link) = (d.start_timestamp, self.link(&d.correlation_id));
        let (name, gpu, stream, graph) = (0, 0, 0, false);
        self.all.kernels.push(Kernel { name, shape, gpu, stream, link, start, duration, graph });
    }

    fn call(&mut self, a: Api) {
        // Most calls put nothing on a GPU; where their names are not known, all are kept for now.
        let name = self.operations.get(a.kind as usize).and_then(|o| o.get(a.operation as usize));
        let puts = name.is_none_or(|n| {
            let n = n.to_ascii_lowercase();
            ["launch", "memcpy", "memset"].iter().any(|w| n.contains(w))
        });
        let (start, end) = (a.start_timestamp, a.end_timestamp);
        if puts && a.correlation_id.internal > 0 && end >= start {
            let link = self.link(&a.correlation_id);
            self.all.calls.push(Call { link, start, end });
        }
    }

    fn marker(&mut self, m: Api) {
        let (start, end) = (m.start_timestamp, m.end_timestamp);
        if let Some(&name) = self.messages.get(&m.correlation_id.internal)
            && end > start
        {
            let process = self.number;
            self.all.marks.push(Mark { name, process, start, end, on_gpu: false });
        }
    }

    fn copy(&mut self, c: Moved) {
        let took = c.end_timestamp.checked_sub(c.start_timestamp);
        let Some(duration) = took.and_then(|t| u64::try_from(t).ok()) else {
            self.all.drop("copies that do not read");
            return;
        };
        self.ends.push((c.src_agent_id.handle, c.dst_agent_id.handle));
        let (link, start) = (self.link(&c.correlation_id), c.start_timestamp);
        self.all.copies.push(Copy {
            way: Way::Inside,
            gpu: 0,
            process: self.number,
            link,
            bytes: c.bytes,
            start,
            duration,
        });
    }

    /// Gives kernels and copies their names, shapes and GPUs, wherever these stood in the file.
    fn finish(self) {
        let Self { all, number, pid, gpus, symbols, launched, .. } = self;
        let gpu_of = |agent: u64| gpus.get(&agent).copied();
        let resolved: Vec<Kernel> = launched
            .into_iter()
            .map(|l| {
                let symbol = symbols.get(&l.kernel);
                let name = symbol.map_or("", |s| {
                    let formatted = s.formatted_kernel_name.as_str();
                    let plain = s.kernel_name.trim_end_matches(".kd");
                    if formatted.is_empty() { plain } else { formatted }
                });
                let name = match name {
                    "" => all.names.id(&format!("kernel {}", l.kernel)),
                    name => all.names.id(name),
                };
                let (grid, block) = blocks(l.grid.three(), l.group.three());
                let regs = symbol.map_or(0, |s| s.arch_vgpr_count);
                let smem_bytes = small(l.segment);
                let shape = all.shape(Shape { grid, block, regs, smem_bytes });
                let gpu = gpu_of(l.agent).unwrap_or_else(|| small(l.agent));
                let stream = match l.stream {
                    0 => all.stream_id(&format!("{pid}/{gpu}/{}", l.queue), number),
                    s => all.stream_id(&format!("{pid}/{gpu}/{}/{s}", l.queue), number),
                };
                let (link, start, duration, graph) = (0, 0, 0, false);
                Kernel { name, shape, gpu, stream, link, start, duration, graph }
            })
            .collect();
        for kernel in &mut all.kernels[self.first..] {
            let Kernel { name, shape, gpu, stream, .. } = resolved[kernel.shape as usize];
            *kernel = Kernel { name, shape, gpu, stream, ..*kernel };
        }
        for (copy, (from, to)) in all.copies[self.first_copy..].iter_mut().zip(self.ends) {
            (copy.way, copy.gpu) = match (gpu_of(from), gpu_of(to)) {
                (None, Some(gpu)) => (Way::In, gpu),
                (Some(gpu), None) => (Way::Out, gpu),
                (_, to) => (Way::Inside, to.unwrap_or(0)),
            };
        }
        // Calls of which nothing on the GPU knows are of no use.
        let mut known: Vec<u64> = all.kernels[self.first..].iter().map(|k| k.link).collect();
        known.extend(all.copies[self.first_copy..].iter().map(|c| c.link));
        known.sort_unstable();
        let mut kept = self.first_call;
        for i in self.first_call..all.calls.len() {
            if known.binary_search(&all.calls[i].link).is_ok() {
                all.calls[kept] = all.calls[i];
                kept += 1;
            }
        }
        all.calls.truncate(kept);
    }
}
