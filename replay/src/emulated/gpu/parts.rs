//! Parts of the emulated GPU: streams with their waiting work, contexts, engines and queues.

use std::collections::VecDeque;

use cotenant_sim::CuMask;
use cotenant_sim::action::Preemption;
use cotenant_sim::host::Part;

use crate::device::{Completion, Direction, Ticket};
use crate::error::DeviceError;

/// Where a stream's kernels run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::emulated) struct Site {
    pub(in crate::emulated) pool: u32,
    pub(in crate::emulated) lane: u32,
    /// CUs, numbered within the lane; `None` means all of them.
    pub(in crate::emulated) mask: Option<CuMask>,
    /// Most CUs that a kernel may use.
    pub(in crate::emulated) cap: u32,
}

/// A kernel with the settings of its launch.
#[derive(Clone, Copy, Debug)]
pub(in crate::emulated) struct Shot {
    pub(in crate::emulated) kernel: u32,
    pub(in crate::emulated) mask: Option<CuMask>,
    pub(in crate::emulated) priority: i8,
    pub(in crate::emulated) part: Part,
    pub(in crate::emulated) scale: f64,
    pub(in crate::emulated) first: bool,
    pub(in crate::emulated) last: bool,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum What {
    Kernel(Shot),
    Copy { direction: Direction, ns: u64 },
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Item {
    pub(super) ticket: Ticket,
    pub(super) issued: u64,
    pub(super) reported: bool,
    pub(super) what: What,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Head {
    pub(super) item: Item,
    /// The host has yet to issue it.
    pub(super) waits: bool,
    /// When it was issued. Since then it is being copied, or wants CUs.
    pub(super) began: u64,
}

pub(super) struct Stream {
    pub(super) context: u32,
    pub(super) site: Site,
    pub(super) waiting: VecDeque<Item>,
    pub(super) head: Option<Head>,
    /// How and when its kernel is to be preempted.
    pub(super) preempt: Option<(Preemption, u64)>,
    /// Between the first and the last kernel of a batch.
    pub(super) in_batch: bool,
}

impl Stream {
    /// The kernel at its head.
    pub(super) fn kernel(&self) -> Option<Shot> {
        match self.head?.item.what {
            What::Kernel(shot) => Some(shot),
            What::Copy { .. } => None,
        }
    }
}

#[derive(Default)]
pub(super) struct Context {
    pub(super) ended: Vec<Completion>,
    /// Launches and copies that have not ended.
    pub(super) outstanding: usize,
    /// Memory taken, by pool.
    pub(super) taken: Vec<(u32, u64)>,
    pub(super) lost: Option<DeviceError>,
    pub(super) closed: bool,
}

/// When the engine of each direction is free again.
pub(super) struct CopyEngines {
    pub(super) free: [u64; 2],
    pub(super) shared: bool,
}

/// Hardware queues, which streams share in order if there are more streams than queues.
pub(super) struct HardwareQueues {
    pub(super) limit: u32,
    pub(super) extra_ns: u64,
    pub(super) busy: Vec<bool>,
    pub(super) waiting: Vec<VecDeque<u32>>,
}
