//! Operands that the works of a serving engine's steps share, and what drives them out of the cache.

use std::collections::BTreeMap;
use std::rc::{Rc, Weak};

use cotenant_profiles::lower::Precision;

use super::CudaDevice;
use crate::cuda::driver::Context;
use crate::cuda::memory::Buffer;
use crate::device::Queue;
use crate::error::DeviceError;
use crate::recipe::BLOCK;

/// What a shared buffer is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Place {
    /// A matrix of weights: the operand's number and size.
    Weights(usize, usize, Precision),
    /// What changes with the size of the step. Shorter operands are beginnings of longer ones.
    Input(usize, Precision),
    /// What is written; nobody reads it but a check, right behind.
    Result,
}

impl Place {
    pub(super) fn of_input(i: usize, weights: Option<usize>, precision: Precision) -> Self {
        weights.map_or(Self::Input(i, precision), |bytes| Self::Weights(i, bytes, precision))
    }
}

/// Buffers by queue and place, as long as somebody uses them.
#[derive(Default)]
pub(super) struct Shared(BTreeMap<(u32, Place), Weak<Buffer>>);

impl Shared {
    /// The buffer of a place, with at least `bytes` bytes that repeat `once`; a larger one takes its
    /// place where it is too small.
    pub(super) fn take(
        &mut self,
        context: &Rc<Context>,
        place: (u32, Place),
        once: &[u8],
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
        let made = Rc::new(Buffer::repeated(context, once, size)?);
        self.0.insert(place, Rc::downgrade(&made));
        Ok(made)
    }
}

/// More than any L2 cache holds: a B200's, the largest so far, has 126 MB.
const SWEPT: usize = 256 << 20;

impl CudaDevice {
    /// Queues a launch that fills the L2 cache with what nobody else reads.
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
        // Sixteen bytes a read; the address behind is never written to, since all are zero.
        let mut values = [swept.address, SWEPT as u64 / 16, 1, swept.address];
        stream.launch(function, [8 * cus, 1, 1], BLOCK, &mut values)
    }
}
