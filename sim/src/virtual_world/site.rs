//! A pool, and the copy engines and hardware queues in front of it.

use std::collections::VecDeque;

use cotenant_profiles::Device;
use cotenant_profiles::device::{Pcie, Queues};

use crate::contention::ContentionModel;
use crate::host::Direction;
use crate::layout::PoolSpec;
use crate::mask::CuMask;
use crate::pool::{Job, Pool};
use crate::program::Code;

use super::skip::Stretch;

pub(super) struct Site {
    pub(super) spec: PoolSpec,
    pub(super) pool: Pool,
    /// The pass that has the pool to itself, while the world does not stop at each of its kernels.
    pub(super) stretch: Option<Stretch>,
    /// Number of busy CUs last reported to the observer.
    pub(super) told: Option<u32>,
    /// When the copy engine of each direction is next free.
    copies: [u64; 2],
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
            stretch: None,
            told: None,
            copies: [0; 2],
            queues: HardwareQueues::default(),
        }
    }

    /// Resizes its lanes. Those that change are empty.
    pub(super) fn repartition(&mut self, lanes: &[u32]) {
        self.spec.lanes = lanes.to_vec();
        self.pool.repartition(lanes);
    }

    /// The power it draws, mW; during a stretch, the highest.
    pub(super) fn most_drawn(&self) -> u64 {
        self.stretch.as_ref().map_or(self.pool.drawn(), |s| s.peak)
    }

    /// When its next event happens, as of the last settling.
    #[inline]
    pub(super) fn next(&self) -> u64 {
        self.stretch.as_ref().map_or(self.pool.next(), |s| s.at)
    }

    /// Whether its streams share the hardware queues.
    pub(super) fn shares_queues(&self) -> bool {
        self.queues.limit > 0
    }

    /// Reserves a copy engine. Returns when the copy is done, or `None` if it takes no time.
    pub(super) fn copy(
        &mut self,
        now: u64,
        pcie: &Pcie,
        way: Direction,
        bytes: u64,
    ) -> Option<u64> {
        if bytes == 0 {
            return None;
        }
        let gbps = if way == Direction::In { pcie.h2d_gbps } else { pcie.d2h_gbps };
        // 10^9 bytes per second are bytes per nanosecond.
        let ns = libm::ceil(bytes as f64 / gbps) as u64;
        if ns == 0 {
            return None;
        }
        let one_for_both = self.spec.copy_engines < 2;
        let free = &mut self.copies[usize::from(way == Direction::Out && !one_for_both)];
        *free = (*free).max(now) + ns;
        Some(*free)
    }
}

/// Hardware queues. When there are more streams than queues, kernels wait in them in order.
#[derive(Default)]
struct HardwareQueues {
    /// The number of queues; 0 while there are enough for every stream.
    limit: u32,
    /// Added to every kernel's duration once there are not enough, ns.
    overflow: u64,
    busy: Vec<bool>,
    waiting: Vec<VecDeque<Job>>,
}

/// Between the host and the pool.
impl Site {
    /// From now on its streams share the hardware queues, of which there are too few.
    pub(super) fn share_queues(&mut self, hardware: &Queues) {
        let n = hardware.hardware as usize;
        self.queues = HardwareQueues {
            limit: hardware.hardware,
            overflow: hardware.overflow.0,
            busy: vec![false; n],
            waiting: vec![VecDeque::new(); n],
        };
    }

    /// Hands a kernel to the GPU, where it may wait behind others in its hardware queue.
    #[inline]
    pub(super) fn submit(
        &mut self,
        now: u64,
        stream: u32,
        mut job: Job,
        mask: Option<&CuMask>,
        code: &Code,
    ) {
        let queues = &mut self.queues;
        if queues.limit > 0 {
            assert!(mask.is_none(), "only policies below kernel depth share hardware queues");
            job.extra_ns = queues.overflow;
            let q = (stream % queues.limit) as usize;
            if queues.busy[q] {
                queues.waiting[q].push_back(job);
                return;
            }
            queues.busy[q] = true;
        }
        self.pool.submit(now, job, mask, code);
    }

    /// The kernel of a stream has ended: the next one in its hardware queue goes.
    #[inline]
    pub(super) fn ended(&mut self, now: u64, stream: u32, code: &Code) {
        let queues = &mut self.queues;
        if queues.limit == 0 {
            return;
        }
        let q = (stream % queues.limit) as usize;
        match queues.waiting[q].pop_front() {
            Some(job) => self.pool.submit(now, job, None, code),
            None => queues.busy[q] = false,
        }
    }
}
