//! Operands that the steps of a serving engine share, and the launch that evicts them from the cache.

use std::collections::BTreeMap;
use std::rc::{Rc, Weak};

use cotenant_profiles::lower::Precision;

use super::CudaDevice;
use crate::cuda::driver::Context;
use crate::cuda::memory::Buffer;
use crate::device::Queue;
use crate::error::DeviceError;
use crate::recipe::{BLOCK, Operand};
use crate::work::{StepTask, Task, Work};

/// The use of a shared buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Place {
    /// A matrix of weights: the operand's number and size.
    Weights(usize, usize, Precision),
    /// An operand whose size depends on the step. Shorter operands are prefixes of longer ones.
    Input(usize, Precision),
    /// Indices below a bound. All distinct indices start with the same prefix.
    Index(usize, Option<u32>),
    /// The result. Only a check reads it, directly after the launch.
    Result,
    /// A library's workspace.
    Workspace,
    /// Scratch memory of our kernels: counters that are zero again after each launch, and numbers that
    /// belong to one launch.
    Own,
}

impl Place {
    /// The place of a work's operand number `i`.
    pub(super) fn of_input(i: usize, operand: &Operand, work: &Work, bytes: usize) -> Self {
        if let Some(below) = operand.below {
            return Self::Index(i, (!operand.distinct).then_some(below));
        }
        let weights = matches!(
            (&work.task, i),
            (Task::Gemm { .. } | Task::Step(StepTask::Biased { .. }), 1)
                | (Task::Embedding { .. }, 0)
        );
        match weights {
            true => Self::Weights(i, bytes, work.precision),
            false => Self::Input(i, work.precision),
        }
    }
}

/// Buffers by queue and place, for as long as they are in use.
#[derive(Default)]
pub(super) struct Shared(BTreeMap<(u32, Place), Weak<Buffer>>);

impl Shared {
    /// The buffer of a place, with at least `bytes` bytes that repeat `once`. A buffer that is too
    /// small is replaced by a larger one.
    pub(super) fn take(
        &mut self,
        context: &Rc<Context>,
        place: (u32, Place),
        once: impl FnOnce() -> Vec<u8>,
        bytes: usize,
    ) -> Result<Rc<Buffer>, DeviceError> {
        let known = self.0.get(&place).and_then(Weak::upgrade);
        if let Some(known) = known.filter(|b| b.bytes >= bytes) {
            return Ok(known);
        }
        let size = match place.1 {
            Place::Weights(..) => bytes,
            _ => bytes.max(1).next_power_of_two(),
        };
        let made = Rc::new(Buffer::repeated(context, &once(), size)?);
        self.0.insert(place, Rc::downgrade(&made));
        Ok(made)
    }
}

/// More than any L2 cache holds: that of a B200, the largest so far, has 126 MB.
const SWEPT: usize = 256 << 20;

impl CudaDevice {
    /// Queues a launch that fills the L2 cache with data that nothing else reads.
    pub(crate) fn sweep_cache(&mut self, queue: Queue) -> Result<(), DeviceError> {
        let function = self.function("sweep")?;
        let (stream, cus) = {
            let lane = self.lane(queue)?;
            (Rc::clone(&lane.stream), lane.cus)
        };
        let swept = match &self.swept {
            Some(known) => Rc::clone(known),
            None => Rc::clone(self.swept.insert(Rc::new(Buffer::zeroed(&self.context, SWEPT)?))),
        };
        // Sixteen bytes per read. The last address is never written to, since all values are zero.
        let mut values = [swept.address, SWEPT as u64 / 16, 1, swept.address];
        stream.launch(function, [8 * cus, 1, 1], BLOCK, &mut values)
    }
}
