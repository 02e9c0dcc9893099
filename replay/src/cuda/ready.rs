//! Work made ready: its code, its operands, how it is launched.

use std::rc::Rc;

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
    Ours {
        function: CUfunction,
        recipe: Recipe,
    },
    Gemm(Box<Gemm>),
    Conv(Box<Conv>),
    /// Products of one shape, each where its operands are. On the device: the addresses of all left
    /// matrices, then of all right ones, then of all results, `count` each.
    Listed {
        plan: Box<Gemm>,
        lists: Buffer,
        count: u64,
    },
}

/// What one work reads and writes.
pub(super) struct Operands {
    pub(super) work: Work,
    /// Shared where several do the same with them.
    pub(super) inputs: Vec<Rc<Buffer>>,
    pub(super) output: Buffer,
}

impl Operands {
    pub(super) fn addresses(&self) -> Vec<u64> {
        self.inputs.iter().map(|b| b.address).collect()
    }
}

pub(super) struct Ready {
    pub(super) queue: Queue,
    pub(super) work: Work,
    pub(super) body: Body,
    pub(super) operands: Rc<Operands>,
    /// Further ones that the launch reads and writes, shared with the work that brought them.
    pub(super) more: Vec<Rc<Operands>>,
    pub(super) facts: LaunchFacts,
}

impl Ready {
    pub(super) fn launch(&self, stream: &Stream) -> Result<(), DeviceError> {
        let (addresses, output) = (self.operands.addresses(), self.operands.output.address);
        match &self.body {
            Body::Gemm(plan) => plan.launch(stream, &addresses, output),
            Body::Conv(plan) => plan.launch(&addresses, output),
            Body::Listed { plan, lists, count } => {
                let [left, right, out] = [0, 1, 2].map(|i| lists.address + 8 * count * i);
                plan.launch(stream, &[left, right], out)
            }
            Body::Ours { function, recipe } => {
                let value = |p: &Parameter| match p {
                    Parameter::Input(i) => addresses[*i],
                    Parameter::Null => 0,
                    Parameter::Output => output,
                    Parameter::Number(n) => *n,
                };
                let mut values: Vec<u64> = recipe.parameters.iter().map(value).collect();
                stream.launch(*function, [recipe.blocks, 1, 1], recipe.block, &mut values)
            }
        }
    }
}
