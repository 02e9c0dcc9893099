//! Work made ready: its code, its operands, how it is launched.

use cudarc::driver::sys::CUfunction;

use super::blas::Gemm;
use super::dnn::Conv;
use super::driver::Stream;
use super::memory::Buffer;
use crate::device::Queue;
use crate::error::DeviceError;
use crate::recipe::{Parameter, Recipe};
use crate::work::Work;

/// What is known of prepared work besides its time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LaunchFacts {
    /// Function, or library and algorithm.
    pub name: String,
    /// Blocks and threads of a block; `None` where a library decides.
    pub grid: Option<(u32, u32)>,
    /// Registers of a thread, 0 if unknown.
    pub regs: u32,
    /// Shared memory of a block, bytes.
    pub smem_bytes: u32,
    /// Blocks that fit on one SM, 1 if unknown.
    pub blocks_per_cu: u32,
}

pub(super) enum Body {
    Ours { function: CUfunction, recipe: Recipe },
    Gemm(Box<Gemm>),
    Conv(Box<Conv>),
}

pub(super) struct Ready {
    pub(super) queue: Queue,
    pub(super) work: Work,
    pub(super) body: Body,
    pub(super) inputs: Vec<Buffer>,
    pub(super) output: Buffer,
    pub(super) facts: LaunchFacts,
}

impl Ready {
    pub(super) fn launch(&self, stream: &Stream) -> Result<(), DeviceError> {
        let addresses: Vec<u64> = self.inputs.iter().map(|b| b.address).collect();
        match &self.body {
            Body::Gemm(plan) => plan.launch(stream, &addresses, self.output.address),
            Body::Conv(plan) => plan.launch(&addresses, self.output.address),
            Body::Ours { function, recipe } => {
                let value = |p: &Parameter| match p {
                    Parameter::Input(i) => addresses[*i],
                    Parameter::Null => 0,
                    Parameter::Output => self.output.address,
                    Parameter::Number(n) => *n,
                };
                let mut values: Vec<u64> = recipe.parameters.iter().map(value).collect();
                stream.launch(*function, [recipe.blocks, 1, 1], recipe.block, &mut values)
            }
        }
    }
}
