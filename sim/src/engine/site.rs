//! A pool and what stands before it: memory, copy engines, a shared host, hardware queues.

use std::collections::VecDeque;

use cotenant_profiles::device::{Pcie, Queues};
use cotenant_profiles::{Bytes, Device};

use crate::contention::ContentionModel;
use crate::layout::PoolSpec;
use crate::mask::CuMask;
use crate::pool::{Job, Pool};
use crate::program::Code;

/// Which way a copy goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Copy {
    In,
    Out,
}

pub(super) struct Site {
    pub(super) spec: PoolSpec,
    pub(super) pool: Pool,
    /// Device memory taken.
    pub(super) memory: Bytes,
    /// When the copy engine of each direction is free again.
    copies: [u64; 2],
    /// When a host that its workers share is free again.
    host: u64,
    queues: HardwareQueues,
}

impl Site {
    pub(super) fn new(
        spec: &PoolSpec,
        device: &Device,
        contention: &ContentionModel,
        observed: bool,
    ) -> Self {
        Self {
            spec: spec.clone(),
            pool: Pool::new(spec, device, contention, observed),
            memory: Bytes(0),
            copies: [0; 2],
            host: 0,
            queues: HardwareQueues::default(),
        }
    }

    /// Reserves memory.
    ///
    /// # Errors
    /// What would be needed in all, if there is not so much.
    pub(super) fn take_memory(&mut self, need: Bytes) -> Result<(), Bytes> {
        let taken = Bytes(self.memory.0 + need.0);
        if taken > self.spec.memory {
            return Err(taken);
        }
        self.memory = taken;
        Ok(())
    }

    /// Reserves a copy engine: when the copy is done, or `None` if it takes no time.
    pub(super) fn copy(&mut self, now: u64, pcie: &Pcie, way: Copy, bytes: u64) -> Option<u64> {
        if bytes == 0 {
            return None;
        }
        let gbps = if way == Copy::In { pcie.h2d_gbps } else { pcie.d2h_gbps };
        // 10^9 bytes per second are bytes per nanosecond.
        let ns = libm::ceil(bytes as f64 / gbps) as u64;
        if ns == 0 {
            return None;
        }
        let one_for_both = self.spec.copy_engines < 2;
        let free = &mut self.copies[usize::from(way == Copy::Out && !one_for_both)];
        *free = (*free).max(now) + ns;
        Some(*free)
    }

    /// When a shared host will have spent `ns` more, after what it has to do already.
    pub(super) fn host_until(&mut self, now: u64, ns: u64) -> u64 {
        self.host = self.host.max(now) + ns;
        self.host
    }
}

/// Streams beyond the hardware's queues wait in them in order.
#[derive(Default)]
struct HardwareQueues {
    /// How many there are; 0 while there are enough for every stream.
    limit: u32,
    /// Added to every kernel's duration once there are not enough, ns.
    overflow: u64,
    busy: Vec<bool>,
    waiting: Vec<VecDeque<Job>>,
}

/// Between the host and the pool.
impl Site {
    /// So many streams share the hardware's queues.
    pub(super) fn queue(&mut self, streams: u32, hardware: &Queues) {
        if streams > hardware.hardware {
            let n = hardware.hardware as usize;
            self.queues = HardwareQueues {
                limit: hardware.hardware,
                overflow: hardware.overflow.0,
                busy: vec![false; n],
                waiting: vec![VecDeque::new(); n],
            };
        }
    }

    /// Hands a kernel to the GPU, where it may wait behind others in its hardware queue.
    #[inline]
    pub(super) fn submit(&mut self, now: u64, mut job: Job, mask: Option<&CuMask>, code: &Code) {
        let queues = &mut self.queues;
        if queues.limit > 0 {
            assert!(mask.is_none(), "only policies below kernel depth share hardware queues");
            job.extra_ns = queues.overflow;
            let q = (job.owner % queues.limit) as usize;
            if queues.busy[q] {
                queues.waiting[q].push_back(job);
                return;
            }
            queues.busy[q] = true;
        }
        self.pool.submit(now, job, mask, code);
    }

    /// The kernel of `owner` has ended: the next one in its hardware queue goes.
    #[inline]
    pub(super) fn ended(&mut self, now: u64, owner: u32, code: &Code) {
        let queues = &mut self.queues;
        if queues.limit == 0 {
            return;
        }
        let q = (owner % queues.limit) as usize;
        match queues.waiting[q].pop_front() {
            Some(job) => self.pool.submit(now, job, None, code),
            None => queues.busy[q] = false,
        }
    }
}
