//! From layers to kernels: a model at one batch size and precision as the launches of a framework.
//!
//! The granularity is eager PyTorch's: one kernel per convolution, bias of a convolution, linear
//! layer, normalisation, activation, addition, pool, concatenation and copy; views cost nothing.
//! With `fused`, element-wise followers join the kernel before them and attention becomes one
//! kernel, as TensorRT or TVM would have it. Launch configurations that are identical become one
//! kernel with several launches.

mod attention;
mod calls;
mod fuse;
mod matmul;
mod step;
mod streaming;
mod variants;

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

pub use attention::AttentionCall;
pub use calls::{layer, linear};
pub use matmul::{Gemm, gemm};
pub use step::{LoweredStep, step, step_layer};
pub use variants::{Operator, fastest_on, operators};

use crate::analytic;
use crate::device::Device;
use crate::kernel::Op;
use crate::zoo::{Layer, ModelSpec, Node};

/// Numbers that a model computes with.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    serde::Serialize,
    serde::Deserialize,
)]
#[allow(missing_docs)] // the field's own names
pub enum Precision {
    #[default]
    Fp32,
    Tf32,
    Fp16,
    Bf16,
    /// Weights and inputs of products in FP8.
    Fp8,
    Int8,
    /// Weights of four bits, computed with in FP16: AWQ, GPTQ.
    Int4,
}

impl Precision {
    /// Every precision.
    pub const ALL: [Self; 7] =
        [Self::Fp32, Self::Tf32, Self::Fp16, Self::Bf16, Self::Fp8, Self::Int8, Self::Int4];

    /// The name that files use.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Fp32 => "fp32",
            Self::Tf32 => "tf32",
            Self::Fp16 => "fp16",
            Self::Bf16 => "bf16",
            Self::Fp8 => "fp8",
            Self::Int8 => "int8",
            Self::Int4 => "int4",
        }
    }

    /// Bytes of one stored activation; TF32 is stored as FP32.
    #[must_use]
    pub fn bytes(self) -> u64 {
        match self {
            Self::Fp32 | Self::Tf32 => 4,
            Self::Fp16 | Self::Bf16 | Self::Int4 => 2,
            Self::Fp8 | Self::Int8 => 1,
        }
    }

    /// Bytes of so many weights. Four bits come with a scale of 16 bits and a zero of 4 for every 128:
    /// 0.52 bytes (group size 128, as AWQ and GPTQ have it).
    #[must_use]
    pub fn weight_bytes(self, weights: u64) -> u64 {
        match self {
            Self::Int4 => (weights * 13).div_ceil(25),
            _ => weights * self.bytes(),
        }
    }

    /// What a serving engine computes with beside its quantised products: norms, attention, cache.
    #[must_use]
    pub fn activations(self) -> Self {
        match self {
            Self::Fp8 | Self::Int8 | Self::Int4 => Self::Fp16,
            other => other,
        }
    }

    /// Whether a device has units for it: FP32 and FP16 run everywhere, INT8 also on vector units that
    /// compute four at a time.
    #[must_use]
    pub fn supported_by(self, device: &Device) -> bool {
        let quadruple = device.compute.int8_tops > 1.5 * device.compute.fp32_tflops;
        match self {
            Self::Fp32 | Self::Fp16 => true,
            Self::Int8 => quadruple || self.on_matrix_units(device),
            other => other.on_matrix_units(device),
        }
    }

    /// The same, with a reason.
    ///
    /// # Errors
    /// The device has no units for it; the error says which precisions it has.
    pub fn check(self, device: &Device) -> Result<(), UnsupportedPrecision> {
        if self.supported_by(device) {
            return Ok(());
        }
        let has = Self::ALL.into_iter().filter(|p| p.supported_by(device)).map(Self::name);
        Err(UnsupportedPrecision {
            precision: self.name(),
            device: device.name.clone(),
            has: has.collect::<Vec<_>>().join(", "),
        })
    }

    /// The device's peak rate for matrix products, 10^12 operations per second. A precision that
    /// the device is slower at than FP32 is computed in FP32, as libraries do.
    #[must_use]
    pub fn peak_tops(self, device: &Device) -> f64 {
        let c = &device.compute;
        let rate = match self {
            Self::Fp32 => c.fp32_tflops,
            Self::Tf32 => c.tf32_tflops,
            Self::Fp16 => c.fp16_tflops,
            Self::Bf16 => c.bf16_tflops.unwrap_or(c.fp32_tflops),
            Self::Fp8 => c.fp8_tflops.unwrap_or(c.fp16_tflops),
            Self::Int8 => c.int8_tops,
            Self::Int4 => c.fp16_tflops,
        };
        rate.max(c.fp32_tflops)
    }

    /// Whether products in it run on matrix units: FP16 where there are any, TF32 and BF16 where the
    /// device knows BF16, INT8 where its rate is beyond that of vector units (four products per lane,
    /// DP4A).
    #[must_use]
    pub fn on_matrix_units(self, device: &Device) -> bool {
        let c = &device.compute;
        c.matrix_units
            && match self {
                Self::Fp32 => false,
                Self::Fp16 | Self::Int4 => true,
                Self::Fp8 => c.fp8_tflops.is_some(),
                Self::Tf32 | Self::Bf16 => c.bf16_tflops.is_some(),
                Self::Int8 => c.int8_tops > 4.5 * c.fp32_tflops,
            }
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A device has no units for a precision.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{device} has no units for {precision}; it has {has}")]
pub struct UnsupportedPrecision {
    precision: &'static str,
    device: String,
    has: String,
}

/// No such precision.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no precision `{0}`: fp32, tf32, fp16, bf16, fp8, int8 and int4 are possible")]
pub struct PrecisionError(String);

impl FromStr for Precision {
    type Err = PrecisionError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let known = |p: &Self| p.name().eq_ignore_ascii_case(text.trim());
        Self::ALL.into_iter().find(known).ok_or_else(|| PrecisionError(text.to_owned()))
    }
}

/// How a model is lowered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// Items per batch, 1 to [`MAX_BATCH`].
    pub batch: u32,
    /// Numbers computed with.
    pub precision: Precision,
    /// Merge element-wise followers and attention.
    pub fused: bool,
}

/// The largest batch that is lowered; beyond it, counts of blocks leave the ranges of real grids.
pub const MAX_BATCH: u32 = 4096;

/// Why a model was not lowered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LowerError {
    /// No batch of that size.
    #[error("batch {0} of model `{1}`: 1 to {MAX_BATCH} are possible")]
    Batch(u32, String),
}

/// One kernel without its curve: what the analytic model computes durations from.
#[derive(Clone, Debug, PartialEq)]
pub struct KernelShape {
    /// Readable, and the same for the same shape: operation, problem, algorithm, precision.
    pub id: String,
    /// The function, named after those of the libraries.
    pub name: String,
    /// What it does.
    pub op: Op,
    /// Thread blocks.
    pub grid: [u32; 3],
    /// Threads per block.
    pub block: u32,
    /// Registers per thread.
    pub regs: u32,
    /// Shared memory per block, bytes.
    pub smem_bytes: u32,
    /// Blocks that fit on one CU at once.
    pub blocks_per_cu: u32,
    /// Operations that the layer asks for.
    pub flops: u64,
    /// Bytes to and from DRAM.
    pub dram_bytes: u64,
    /// Bytes between L2 and the CUs.
    pub l2_bytes: u64,
    /// Time that one block takes of a CU whose units it keeps busy, ns: executed operations,
    /// padding included, at the efficiency of its kind, or its operands through the CU's port to
    /// L2, whichever takes longer.
    pub block_ns: f64,
    /// Shortest time of a block's inner loop, ns, however many units are free: round trips to
    /// memory that wait for each other.
    pub latency_ns: f64,
    /// Start of a wave of blocks until its units have work, ns: addresses, parameters, the first
    /// panels.
    pub start_ns: f64,
    /// End of each block, ns: results through shared memory to L2, while its units idle.
    pub end_ns: f64,
    /// Blocks end at different times, so that a wave's stragglers run beside the next one: many
    /// short blocks of a streaming kernel. Otherwise the busiest CU works in whole waves.
    pub staggered: bool,
    /// Bytes that a resident warp keeps in flight between memory and its CU.
    pub in_flight: f64,
    /// Share of the device's attainable DRAM bandwidth that the kernel's access pattern reaches.
    pub dram_share: f64,
    /// The arithmetic is done by matrix units, which few warps keep busy.
    pub matrix_units: bool,
    /// Share of the shorter one of arithmetic and traffic that the longer one does not hide.
    pub serial: f64,
    /// Kernels that belong to the call beside this one, ns: sums of partial products.
    pub helpers_ns: f64,
    /// A library starts it within the call of the operator behind it: no dispatch of its own.
    pub helper: bool,
    /// Traffic and arithmetic follow each other instead of overlapping, with this many further
    /// start-ups in between: a library call that is several kernels behind one name.
    pub phases: u32,
}

impl KernelShape {
    /// Thread blocks in all.
    #[must_use]
    pub fn blocks(&self) -> u64 {
        self.grid.iter().map(|&n| u64::from(n)).product()
    }
}

/// A model lowered to kernels.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Lowered {
    /// Distinct kernels, in the order of their first launch.
    pub kernels: Vec<KernelShape>,
    /// Launches in stream order: indices into `kernels`.
    pub launches: Vec<usize>,
}

/// Lowers a model for a device: tiles depend on its CUs, residency on its registers.
///
/// # Errors
/// The batch lies outside 1 to [`MAX_BATCH`].
pub fn lower(spec: &ModelSpec, device: &Device, config: Config) -> Result<Lowered, LowerError> {
    lower_tuned(spec, device, config, None)
}

/// The same with the kernels that a tuner would pick: of all on offer for an operator, the one that
/// is fastest on `tuned_cus` compute units. `None`: a library's choice for the whole device.
///
/// # Errors
/// As [`lower`].
pub fn lower_tuned(
    spec: &ModelSpec,
    device: &Device,
    config: Config,
    tuned_cus: Option<u32>,
) -> Result<Lowered, LowerError> {
    let (context, groups) = prepare(spec, device, config, tuned_cus)?;
    let mut lowered = Lowered::default();
    let mut known = BTreeMap::new();
    for group in &groups {
        for kernel in context.kernels(group) {
            let index = *known.entry(kernel.id.clone()).or_insert_with(|| {
                lowered.kernels.push(kernel.clone());
                lowered.kernels.len() - 1
            });
            assert_eq!(lowered.kernels[index], kernel, "two kernels of one id");
            lowered.launches.push(index);
        }
    }
    Ok(lowered)
}

fn prepare<'a>(
    spec: &'a ModelSpec,
    device: &'a Device,
    config: Config,
    tuned_cus: Option<u32>,
) -> Result<(Context<'a>, Vec<Group<'a>>), LowerError> {
    if !(1..=MAX_BATCH).contains(&config.batch) {
        return Err(LowerError::Batch(config.batch, spec.name.clone()));
    }
    let groups = if config.fused { fuse::groups(spec) } else { fuse::singles(spec) };
    let tuned_cus = tuned_cus.map(|c| c.clamp(1, device.cus()));
    Ok((Context { device, config, tuned_cus, serving: false }, groups))
}

/// A layer and what is computed in the same kernel behind it.
struct Group<'a> {
    main: &'a Node,
    epilogue: Vec<&'a Node>,
    /// The layers are the parts of attention between its two products.
    attention: bool,
}

struct Context<'a> {
    device: &'a Device,
    config: Config,
    /// Kernels are chosen by their time on so many CUs; `None`: as a library chooses.
    tuned_cus: Option<u32>,
    /// Only products are quantised, and return activations; everything else computes in those.
    serving: bool,
}

impl Context<'_> {
    fn kernels(&self, group: &Group<'_>) -> Vec<KernelShape> {
        if group.attention {
            return vec![self.attention(group)];
        }
        match &group.main.layer {
            Layer::Conv(c) => {
                let mut kernels = self.layout_changes(c);
                kernels.push(self.conv(c, group));
                if c.bias && !self.config.fused {
                    // PyTorch adds the bias of a cuDNN convolution in a kernel of its own
                    // (pytorch/pytorch#31524).
                    let elements = group.main.layer.output_elements();
                    kernels.push(self.pointwise("add_bias", elements, 1, 0));
                }
                kernels
            }
            Layer::Linear(l) => vec![self.linear(l, group)],
            Layer::Matmul(m) => vec![self.batched(m, group)],
            Layer::Attention(a) => vec![self.fused_attention(a)],
            _ => self.streaming(group),
        }
    }

    fn batch(&self) -> u64 {
        u64::from(self.config.batch)
    }

    fn bytes(&self) -> u64 {
        self.config.precision.bytes()
    }

    /// Bytes of results of products.
    fn result_bytes(&self) -> u64 {
        let precision = self.config.precision;
        if self.serving { precision.activations().bytes() } else { precision.bytes() }
    }

    /// DRAM bytes of one launch: parameters always, results always (they are written back sooner
    /// or later), inputs unless the kernel before can have left them in L2. What is written in
    /// place of an input takes no room of its own.
    fn dram_bytes(&self, params: u64, inputs: u64, outputs: u64, in_place: u64) -> u64 {
        let resident = params + inputs + outputs - in_place <= self.kept_in_l2();
        params + outputs + if resident { 0 } else { inputs }
    }

    /// Bytes that stay in L2 from one kernel to the next: half of it. The other half is under
    /// replacement, and on a device whose L2 is two partitions (A100, H100) a line that both sides
    /// read stands in both.
    fn kept_in_l2(&self) -> u64 {
        self.device.memory.l2.0 / 2
    }

    /// Share of the boost clock held while the units of a precision are busy.
    fn held(&self, precision: Precision) -> f64 {
        let matrix = precision.on_matrix_units(self.device);
        self.device.held_clock(matrix, precision.peak_tops(self.device))
    }

    /// 10^9 bytes per second through one CU's port to L2.
    fn port_gbps(&self) -> f64 {
        analytic::port_gbps(self.device)
    }
}

/// A count of blocks as a grid dimension; batches are bounded so that it always fits.
fn grid_dim(blocks: u64) -> u32 {
    u32::try_from(blocks.max(1)).expect("MAX_BATCH keeps grids below 2^32")
}
