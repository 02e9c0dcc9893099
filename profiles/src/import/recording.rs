//! What a profiler recorded of a run, whichever profiler it was: kernels, copies, launch calls, marks
//! and GPUs. [`Recording::model`] makes a model of it.
//!
//! Times are ns since an instant of the recording's own. A kernel takes some fifty bytes, its call
//! half of that, and both as much again while a model is made: names and launch shapes are kept once.

mod build;
mod bytes;
mod clean;
mod database;
mod gpu;
mod host;
mod json;
mod marks;
mod nsys;
mod nsys_csv;
mod passes;
mod repeat;
mod rocpd;
mod rocprof;
mod rocprof_json;
mod sheet;
mod streams;
mod torch;

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use super::ImportError;
use crate::files::{FileError, Problem};
use crate::units::Nanos;

pub(super) use bytes::begins_with;
pub use bytes::{Progress, read_text};
pub use gpu::{Gpu, GpuUse};

/// The tool that wrote a recording.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tool {
    /// PyTorch's profiler: a Chrome trace.
    Torch,
    /// Nsight Systems: its SQLite export, or the CSV of `nsys stats`.
    Nsys,
    /// rocprofv3: `kernel_trace.csv`, JSON, or a rocpd database.
    Rocprof,
}

/// One kernel that ran, as our own capture records it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its name.
    pub name: String,
    /// Blocks in x, y, z.
    pub grid: [u32; 3],
    /// Threads of a block.
    pub block: u32,
    /// Registers of a thread; 0 if unknown.
    pub regs: u32,
    /// Shared memory of a block, bytes.
    pub smem_bytes: u32,
    /// When it began, ns.
    pub start_ns: u64,
    /// Its duration, ns.
    pub duration_ns: u64,
}

/// Facts that a recording does not contain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StreamOptions {
    /// Name of the model.
    pub model: String,
    /// Items of one pass.
    pub batch: u32,
    /// Which launches are the model, in place of what is found.
    pub range: Option<Range>,
    /// The pass to take, by the number in its mark, or counted from 0, in place of the median one.
    pub step: Option<u64>,
    /// The GPU to take, by the recording's own number.
    pub gpu: Option<u32>,
    /// Host time of one launch, in place of what the recording shows.
    pub launch: Option<Nanos>,
    /// How often the model ran; needed for summaries, which do not say.
    pub passes: Option<u32>,
}

/// Which launches are the model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Range {
    /// Kernels by number, in order of their start, the end not included.
    Kernels([usize; 2]),
    /// Every range marked with this name is a pass; numbers in the name do not count.
    Mark(String),
}

/// Texts kept once.
#[derive(Debug, Default)]
pub(super) struct Names {
    known: HashMap<String, u32>,
    all: Vec<String>,
}

impl Names {
    pub(super) fn id(&mut self, text: &str) -> u32 {
        if let Some(&id) = self.known.get(text) {
            return id;
        }
        let id = u32::try_from(self.all.len()).unwrap_or(u32::MAX);
        self.known.insert(text.to_owned(), id);
        self.all.push(text.to_owned());
        id
    }

    pub(super) fn text(&self, id: u32) -> &str {
        self.all.get(id as usize).map_or("", String::as_str)
    }
}

/// The launch configuration of a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Shape {
    /// Blocks; nothing where the recording does not say.
    pub grid: Option<[u32; 3]>,
    /// Threads of a block; 0 if unknown.
    pub block: u32,
    /// Registers of a thread; 0 if unknown.
    pub regs: u32,
    /// Shared memory of a block, bytes.
    pub smem_bytes: u32,
}

/// A kernel that ran.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kernel {
    pub name: u32,
    pub shape: u32,
    pub gpu: u32,
    /// Process, context and stream, as one of [`Recording::streams`].
    pub stream: u32,
    /// Joins it to its [`Call`]; 0 is nothing.
    pub link: u64,
    pub start: i64,
    pub duration: u64,
    /// Nodes of a graph may run side by side on what is recorded as one stream.
    pub graph: bool,
}

impl Kernel {
    pub(super) fn end(&self) -> i64 {
        self.start.saturating_add_unsigned(self.duration)
    }
}

/// The direction of a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// Host to device.
    In,
    /// Device to host.
    Out,
    /// Within the device, to a neighbour, or a memset.
    Inside,
}

/// A copy or a memset.
#[derive(Clone, Copy, Debug)]
pub(super) struct Copy {
    pub way: Way,
    pub gpu: u32,
    /// The process, where the recording tells processes apart.
    pub process: u32,
    pub link: u64,
    pub bytes: u64,
    pub start: i64,
    pub duration: u64,
}

impl Copy {
    /// The process of copies of which it is not known.
    pub(super) const OF_ANY: u32 = u32::MAX;
}

/// A call of the host that put something on a stream.
#[derive(Clone, Copy, Debug)]
pub(super) struct Call {
    pub link: u64,
    pub start: i64,
    pub end: i64,
}

/// A range of the host's time with a name.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mark {
    pub name: u32,
    /// The process, where the recording tells processes apart.
    pub process: u32,
    pub start: i64,
    pub end: i64,
    /// On the GPU's clock: it holds the kernels that started in it.
    pub on_gpu: bool,
}

/// Everything that a profiler recorded, as far as a model needs it.
#[derive(Debug, Default)]
pub struct Recording {
    file: String,
    facts: Vec<(&'static str, String)>,
    names: Names,
    shapes: Vec<Shape>,
    shape_ids: HashMap<Shape, u32>,
    streams: Names,
    /// The process of each stream.
    processes: Vec<u32>,
    kernels: Vec<Kernel>,
    copies: Vec<Copy>,
    /// By link and start.
    calls: Vec<Call>,
    marks: Vec<Mark>,
    gpus: Vec<Gpu>,
    dropped: BTreeMap<&'static str, usize>,
    warnings: Vec<String>,
    /// Kernels by name alone, where the file has nothing else.
    summary: Option<Vec<nsys_csv::Summary>>,
    /// Why the first kernel that was dropped did not read: field and problem.
    first_bad: Option<(String, Problem)>,
}

impl Recording {
    /// Reads what a profiler wrote; `progress` is told how much of the file has been read.
    ///
    /// # Errors
    /// A file that cannot be read, or is nothing that the tool writes.
    pub fn read(tool: Tool, path: &Path, progress: Progress<'_>) -> Result<Self, ImportError> {
        let all = match tool {
            Tool::Torch => torch::read(&path.display().to_string(), {
                bytes::open(path, progress).map_err(|e| io(path, e))?
            }),
            Tool::Nsys => nsys::read(path, progress),
            Tool::Rocprof => rocprof::read(path, progress),
        };
        Ok(all?.sorted())
    }

    /// Reads what is not a database from bytes, packed or not; `file` is what errors call it.
    ///
    /// # Errors
    /// As [`Recording::read`].
    pub fn stream(tool: Tool, file: &str, from: impl std::io::Read) -> Result<Self, ImportError> {
        let from = bytes::unpacked(from).map_err(|e| io(Path::new(file), e))?;
        let all = match tool {
            Tool::Torch => torch::read(file, from),
            Tool::Nsys => nsys_csv::read(file, from),
            Tool::Rocprof => rocprof::of_text(file, from),
        };
        Ok(all?.sorted())
    }

    /// With its calls in the order in which they are looked up, in as little memory as they need.
    fn sorted(mut self) -> Self {
        self.kernels.shrink_to_fit();
        self.copies.shrink_to_fit();
        self.calls.shrink_to_fit();
        self.calls.sort_unstable_by_key(|c| (c.link, c.start, c.end));
        self
    }

    /// A recording of our own capture.
    pub(super) fn captured(
        file: &str,
        records: Vec<Record>,
        facts: &[(&'static str, String)],
    ) -> Self {
        let mut all = Self { file: file.to_owned(), facts: facts.to_vec(), ..Self::default() };
        let stream = all.stream_id("0", 0);
        for r in records {
            let shape = Shape {
                grid: Some(r.grid),
                block: r.block,
                regs: r.regs,
                smem_bytes: r.smem_bytes,
            };
            let (name, shape) = (all.names.id(&r.name), all.shape(shape));
            let start = i64::try_from(r.start_ns).unwrap_or(i64::MAX);
            let (link, duration) = (0, r.duration_ns);
            all.kernels.push(Kernel {
                name,
                shape,
                gpu: 0,
                stream,
                link,
                start,
                duration,
                graph: false,
            });
        }
        all
    }

    fn shape(&mut self, shape: Shape) -> u32 {
        let next = u32::try_from(self.shapes.len()).unwrap_or(u32::MAX);
        let id = *self.shape_ids.entry(shape).or_insert(next);
        if id == next {
            self.shapes.push(shape);
        }
        id
    }

    /// The number of a stream, identified by everything that distinguishes streams.
    fn stream_id(&mut self, key: &str, process: u32) -> u32 {
        let id = self.streams.id(key);
        if id as usize == self.processes.len() {
            self.processes.push(process);
        }
        id
    }

    fn drop(&mut self, why: &'static str) {
        *self.dropped.entry(why).or_default() += 1;
    }

    /// A kernel that does not read; the first one is what an empty recording complains of.
    fn drop_bad(&mut self, field: impl FnOnce() -> String, problem: Problem) {
        self.drop("kernels whose times do not read");
        if self.first_bad.is_none() {
            self.first_bad = Some((field(), problem));
        }
    }

    fn bad(&self, field: &str, text: impl Into<String>, wanted: impl Into<String>) -> ImportError {
        let problem = Problem::Value { text: text.into(), wanted: wanted.into() };
        FileError::bad(&self.file, 1, field, problem)
    }
}

fn io(path: &Path, source: std::io::Error) -> ImportError {
    FileError::Io { path: path.to_path_buf(), source }
}
