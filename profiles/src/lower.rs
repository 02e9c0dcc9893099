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

use std::cell::RefCell;
use std::collections::BTreeMap;

pub use attention::AttentionCall;
pub use calls::{layer, linear};
use matmul::Problem;
pub use matmul::{Gemm, gemm};
pub use step::{LoweredStep, step, step_layer};
pub use variants::{Operator, fastest_on, operators};

pub use crate::precision::{Precision, PrecisionError, UnsupportedPrecision};

use crate::device::Device;
use crate::roofline::{self, KernelShape};
use crate::zoo::{Layer, ModelSpec, Node};

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
    Ok((Context::new(device, config, tuned_cus, false), groups))
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
    /// Products whose kernel has been chosen: a model repeats the same few.
    chosen: RefCell<BTreeMap<String, (Problem, KernelShape)>>,
}

impl<'a> Context<'a> {
    fn new(device: &'a Device, config: Config, tuned_cus: Option<u32>, serving: bool) -> Self {
        Self { device, config, tuned_cus, serving, chosen: RefCell::default() }
    }

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
        roofline::port_gbps(self.device)
    }
}

/// A count of blocks as a grid dimension; batches are bounded so that it always fits.
fn grid_dim(blocks: u64) -> u32 {
    u32::try_from(blocks.max(1)).expect("MAX_BATCH keeps grids below 2^32")
}
