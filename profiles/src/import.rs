//! Reads what other tools measured.
//!
//! | format | one row is | becomes |
//! |---|---|---|
//! | [`table()`] | a whole model at one batch and share | equal kernels behind a host part |
//! | [`orion()`] | one kernel launch, with the SMs it needs | one kernel per distinct row |
//! | [`reef()`] | one kernel launch, with latency by occupancy | one kernel per distinct row |
//! | [`neusight()`] | one operator, by shape and GPU | one kernel per row |
//! | [`perf_analyzer()`], [`trtexec()`] | a whole model at one load, or one iteration | as [`table()`] |
//! | [`trtexec()`] | one layer of an engine | one kernel per layer |
//! | [`aiconfigurator()`] | one operator, by shape | points of a zoo model's products and attention |
//! | [`llmservingsim()`] | one layer of a decoder, by tokens and contexts | points of its layers |
//! | [`Recording`] | what ran (PyTorch profiler, Nsight Systems, rocprofv3) | the launches of the typical pass |
//! | [`records()`] | one kernel that ran, by our own capture | the same |
//!
//! Every row of the input is accounted for: it becomes a launch or a point, or it is dropped for a
//! named reason. What the source does not say and a model needs is assumed by a documented knob,
//! and the provenance of the profile says so.

mod aiconfigurator;
mod layers;
mod neusight;
mod orion;
mod recording;
mod reef;
mod table;
mod trtexec;
mod whole;

use std::collections::BTreeMap;

use recording::begins_with;

use crate::Device;
use crate::curve::{Curve, Point};
use crate::files::FileError;
use crate::kernel::{Kernel, Launch, Model, Op, Profile, Source};
use crate::units::{Bytes, Nanos};

pub use aiconfigurator::{Call, Experts, Operators, aiconfigurator, aiconfigurator_layers};
pub use layers::{LayerImport, llmservingsim};
pub use neusight::neusight;
pub use orion::{OrionOptions, orion};
pub use recording::{
    Gpu, GpuUse, Progress, Range, Record, Recording, StreamOptions, Tool, read_text,
};
pub use reef::{MODEL_TIMES_US, ReefOptions, reef};
pub use table::{LaunchFloor, TableOptions, table};
pub use trtexec::trtexec;
pub use whole::{WholeOptions, perf_analyzer};

/// Why nothing was imported: always with file, line and field.
pub type ImportError = FileError;

/// An imported profile, and what became of every row.
#[derive(Clone, Debug, PartialEq)]
pub struct Import {
    /// The profile, source `imported`.
    pub profile: Profile,
    /// Rows read.
    pub rows_in: usize,
    /// Rows that became launches or points of a curve.
    pub rows_used: usize,
    /// The other rows, by reason: `rows_in = rows_used + dropped`.
    pub dropped: BTreeMap<&'static str, usize>,
    /// What was taken of what, and what it stands for, one line each.
    pub notes: Vec<String>,
    /// What a user of the profile has to know.
    pub warnings: Vec<String>,
}

/// An input file, as errors call it, and its text.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a> {
    /// Name or path.
    pub file: &'a str,
    /// Its content.
    pub text: &'a str,
}

/// Imports a recording of our own capture, `file` being what errors call it, with what is known of
/// the program.
///
/// # Errors
/// No kernel, a range outside the recording, or no repeating iteration.
pub fn records(
    file: &str,
    recorded: Vec<Record>,
    device: &Device,
    options: &StreamOptions,
    facts: &[(&'static str, String)],
) -> Result<Import, ImportError> {
    Recording::captured(file, recorded, facts).model(device, options)
}

/// Collects kernels by content, so that equal rows share one kernel.
struct Builder<'a> {
    device: &'a Device,
    profile: Profile,
    known: BTreeMap<String, usize>,
}

impl<'a> Builder<'a> {
    fn new(device: &'a Device, facts: &[(&str, String)]) -> Self {
        let mut provenance: BTreeMap<String, String> =
            facts.iter().map(|(k, v)| ((*k).to_owned(), one_line(v))).collect();
        provenance.insert("memory".to_owned(), "unknown: 0 in every model".to_owned());
        let profile = Profile {
            device: device.name.clone(),
            source: Source::Imported,
            provenance,
            kernels: Vec::new(),
            models: BTreeMap::new(),
            corun: Vec::new(),
        };
        Self { device, profile, known: BTreeMap::new() }
    }

    /// The index of the kernel with this content, made by `make` when it is new.
    fn kernel(&mut self, content: String, make: impl FnOnce(usize) -> Kernel) -> usize {
        let next = self.profile.kernels.len();
        let index = *self.known.entry(content).or_insert(next);
        if index == next {
            self.profile.kernels.push(make(next));
        }
        index
    }

    /// Appends a launch to a model's stream.
    fn launch(&mut self, model: &str, batch: u32, kernel: usize, host: Nanos) {
        let model = self.profile.models.entry(model.to_owned()).or_insert_with(|| Model {
            name: model.to_owned(),
            weights: Bytes(0),
            activations_per_item: Bytes(0),
            input_per_item: Bytes(0),
            output_per_item: Bytes(0),
            load: Nanos::ZERO,
            host_per_request: Nanos::ZERO,
            batches: BTreeMap::new(),
        });
        model.batches.entry(batch).or_default().push(Launch { kernel, host });
    }

    fn finish(mut self, rows_in: usize, dropped: BTreeMap<&'static str, usize>) -> Import {
        let rows_used = rows_in - dropped.values().sum::<usize>();
        let fact = |n: usize| n.to_string();
        self.profile.provenance.insert("rows_in".to_owned(), fact(rows_in));
        self.profile.provenance.insert("rows_used".to_owned(), fact(rows_used));
        Import {
            profile: self.profile,
            rows_in,
            rows_used,
            dropped,
            notes: Vec::new(),
            warnings: Vec::new(),
        }
    }
}

/// Control characters have no place in a header line.
fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect::<String>().trim().to_owned()
}

/// A curve over all CUs of a device from a duration at every count, with the points left out that
/// [`Curve::at`] gives anyway: those inside a flat step.
fn staircase(cus: u32, duration: impl Fn(u32) -> u64) -> Curve {
    let all: Vec<u64> = (1..=cus).map(|c| duration(c).max(1)).collect();
    let last = all.len() - 1;
    let points = (0..all.len())
        .filter(|&i| i == 0 || i == last || all[i] != all[i - 1] || all[i] != all[i + 1])
        .map(|i| Point::exact(i as u32 + 1, all[i]))
        .collect();
    Curve::new(points).expect("ascending counts from 1, durations of at least 1 ns")
}

/// `total × part / whole`, to the nearest integer.
fn scaled(total: u64, part: u128, whole: u128) -> u64 {
    let product = u128::from(total) * part;
    u64::try_from((product + whole / 2) / whole.max(1)).unwrap_or(u64::MAX)
}

/// What a kernel does, from the words in its name; the first word found decides.
fn op_of(name: &str) -> Op {
    const WORDS: [(&str, Op); 37] = [
        ("depthwise", Op::DepthwiseConv),
        ("batch_matmul", Op::BatchedGemm),
        ("bmm", Op::BatchedGemm),
        ("conv2d", Op::Conv),
        ("winograd", Op::Conv),
        ("convolution", Op::Conv),
        ("softmax", Op::Softmax),
        ("batchnorm", Op::Norm),
        ("batch_norm", Op::Norm),
        ("layernorm", Op::Norm),
        ("layer_norm", Op::Norm),
        ("_norm", Op::Norm),
        ("gemm", Op::Gemm),
        ("sgemv", Op::Gemm),
        ("dense", Op::Gemm),
        ("matmul", Op::Gemm),
        ("addmm", Op::Gemm),
        ("linear", Op::Gemm),
        ("pool", Op::Pool),
        ("embedding", Op::Embedding),
        ("indexselect", Op::Embedding),
        ("take", Op::Embedding),
        ("catarray", Op::Concat),
        ("concat", Op::Concat),
        ("reduce", Op::Reduce),
        ("_mean", Op::Reduce),
        ("variance", Op::Reduce),
        ("relu", Op::Activation),
        ("gelu", Op::Activation),
        ("tanh", Op::Activation),
        ("erf", Op::Activation),
        ("elementwise", Op::Elementwise),
        ("_add", Op::Elementwise),
        ("transpose", Op::Copy),
        ("reshape", Op::Copy),
        ("flatten", Op::Copy),
        ("copy", Op::Copy),
    ];
    let lower = name.to_lowercase();
    match lower.as_str() {
        "conv" => Op::Conv,
        "add" | "multiply" => Op::Elementwise,
        _ => WORDS.iter().find(|(word, _)| lower.contains(word)).map_or(Op::Other, |(_, op)| *op),
    }
}

/// A number of bytes: `gbps` for `duration_ns`, a share of it.
fn bytes_at(gbps: f64, duration_ns: u64, share: f64) -> u64 {
    // 10^9 bytes per second are one byte per nanosecond.
    (gbps * duration_ns as f64 * share.clamp(0.0, 1.0)).round() as u64
}
