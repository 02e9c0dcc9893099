//! Prepared work: its code, its operands, and how it is launched.

use std::cell::RefCell;
use std::rc::Rc;

use cudarc::driver::sys::CUfunction;

use super::blas::Gemm;
use super::dnn::{Conv, Dnn};
use super::driver::{Context, Event, Stream};
use super::memory::Buffer;
use crate::device::Queue;
use crate::error::DeviceError;
use crate::recipe::{Parameter, Recipe};
use crate::work::Work;

/// What is known about prepared work besides its time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LaunchFacts {
    /// The function, or the library and its algorithm.
    pub name: String,
    /// Blocks, and threads per block; `None` if a library decides.
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
        /// Scratch memory, if the kernel needs some.
        scratch: Option<Rc<Buffer>>,
    },
    Gemm(Box<Gemm>),
    Conv(Box<Conv>),
    /// Products of one shape, with their operands left in place. The lists on the device hold the
    /// addresses of all left matrices, then of all right matrices, then of all results, `count` each.
    Listed {
        plan: Box<Gemm>,
        lists: Buffer,
        count: u64,
    },
}

/// What a work reads and writes.
pub(super) struct Operands {
    pub(super) work: Work,
    /// Shared between works that use them in the same way.
    pub(super) inputs: Vec<Rc<Buffer>>,
    pub(super) output: Rc<Buffer>,
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
    /// Further operands that the launch reads and writes, shared with the works that brought them.
    pub(super) more: Vec<Rc<Operands>>,
    pub(super) facts: LaunchFacts,
    /// The stream of the last launch.
    pub(super) last: RefCell<Option<Rc<Stream>>>,
}

impl Body {
    /// Takes the next of the library's algorithms; false if there is none.
    pub(super) fn next(&mut self, context: &Rc<Context>) -> Result<bool, DeviceError> {
        match self {
            Self::Ours { .. } => Ok(false),
            Self::Gemm(plan) | Self::Listed { plan, .. } => plan.next(context),
            Self::Conv(plan) => plan.next(context),
        }
    }

    /// Whether a library runs it, which may have more than one algorithm.
    pub(super) fn is_of_a_library(&self) -> bool {
        !matches!(self, Self::Ours { .. })
    }

    /// Whether two simultaneous launches would write to the same memory besides their results.
    pub(super) fn has_a_workspace(&self) -> bool {
        match self {
            Self::Ours { scratch, .. } => scratch.is_some(),
            _ => true,
        }
    }

    /// The library's name for the algorithm that runs.
    pub(super) fn name(&self) -> Option<String> {
        let which = |plan: &Gemm| if plan.is_first() { "" } else { ", not its first choice" };
        match self {
            Self::Ours { .. } => None,
            Self::Gemm(plan) => Some(format!("cublasLtMatmul{}", which(plan))),
            Self::Listed { plan, .. } => {
                Some(format!("cublasLtMatmul by lists of addresses{}", which(plan)))
            }
            Self::Conv(plan) => Some(format!("cudnn_forward_algo{}", plan.algorithm())),
        }
    }
}

impl Ready {
    /// The work has only one workspace and one result, so a launch in `stream` waits for an earlier
    /// launch in another stream.
    pub(super) fn follow(&self, stream: &Rc<Stream>) -> Result<(), DeviceError> {
        let mut last = self.last.borrow_mut();
        if let Some(before) = last.as_ref().filter(|s| !Rc::ptr_eq(s, stream)) {
            let done = Event::untimed(before)?;
            done.record(before)?;
            stream.wait(&done)?;
        }
        *last = Some(Rc::clone(stream));
        Ok(())
    }

    pub(super) fn launch(&self, stream: &Stream, dnn: Option<&Dnn>) -> Result<(), DeviceError> {
        let (addresses, output) = (self.operands.addresses(), self.operands.output.address);
        match &self.body {
            Body::Gemm(plan) => plan.launch(stream, &addresses, output),
            Body::Conv(plan) => {
                let none = || DeviceError::unsupported(&self.work.id, "no handle of cuDNN");
                plan.launch(dnn.ok_or_else(none)?, stream, &addresses, output)
            }
            Body::Listed { plan, lists, count } => {
                let [left, right, out] = [0, 1, 2].map(|i| lists.address + 8 * count * i);
                plan.launch(stream, &[left, right], out)
            }
            Body::Ours { function, recipe, scratch } => {
                let value = |p: &Parameter| match p {
                    Parameter::Input(i) => addresses[*i],
                    Parameter::Null => 0,
                    Parameter::Output => output,
                    Parameter::Scratch => scratch.as_ref().map_or(0, |s| s.address),
                    Parameter::Number(n) => *n,
                };
                let mut values: Vec<u64> = recipe.parameters.iter().map(value).collect();
                stream.launch(*function, [recipe.blocks, 1, 1], recipe.block, &mut values)
            }
        }
    }
}
