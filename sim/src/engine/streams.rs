//! Kernels in stream order: issued by the host, handed to the GPU, ended.

use super::{Engine, Kind};
use crate::action::Event;
use crate::layout::Host;
use crate::mask::CuMask;
use crate::observe::Happening;
use crate::policy::Depth;
use crate::pool::{Ended, Job};
use crate::view::Status;

/// What the digest calls a kernel's end and the end of a turn; see [`Kind`] for the others.
const KERNEL_ENDED: u32 = 12;
const TURN_ENDED: u32 = 13;

impl Engine<'_> {
    #[inline(always)]
    pub(super) fn pool_event(&mut self, p: usize) {
        let ended = self.sites[p].pool.advance(self.now, &self.code);
        let Ended::Kernel { owner, kernel } = ended else {
            self.note(TURN_ENDED, p as u32);
            return;
        };
        self.note(KERNEL_ENDED, owner);
        self.observe(Happening::KernelEnded { worker: owner, kernel });
        self.sites[p].ended(self.now, owner, &self.code);
        if self.depth == Depth::Kernel {
            self.tell(Event::KernelDone { worker: owner });
            if !self.stages[owner as usize].merged.is_empty() {
                self.merged_ended(owner);
            }
        }
        self.kernel_ended(owner);
    }

    /// The kernels that were merged into the one of `owner` have ended with it.
    #[inline(never)]
    fn merged_ended(&mut self, owner: u32) {
        let mut others = std::mem::take(&mut self.stages[owner as usize].merged);
        for &w in &others {
            self.tell(Event::KernelDone { worker: w });
            self.kernel_ended(w);
        }
        // Keep the allocation for the next merge.
        others.clear();
        self.stages[owner as usize].merged = others;
    }

    #[inline(always)] // the path of almost every event
    fn kernel_ended(&mut self, worker: u32) {
        let w = &mut self.workers[worker as usize];
        let stage = &mut self.stages[worker as usize];
        w.position += 1;
        if w.position < stage.count {
            self.head(worker);
            return;
        }
        self.pass_ended(worker);
    }

    #[inline(never)]
    fn pass_ended(&mut self, worker: u32) {
        let stage = &mut self.stages[worker as usize];
        self.workers[worker as usize].position = 0;
        stage.passes -= 1;
        if stage.passes > 0 {
            stage.host_base = self.now;
            self.begin_pass(worker);
            self.head(worker);
        } else {
            self.kernels_done(worker);
        }
    }

    /// The worker's next kernel is at the head of its stream: wait for the host, or go.
    #[inline(always)]
    pub(super) fn head(&mut self, worker: u32) {
        let w = &mut self.workers[worker as usize];
        let stage = &self.stages[worker as usize];
        let launch = self.launches[(stage.first + w.position) as usize];
        w.kernel = launch.kernel;
        if self.sites[w.spec.pool as usize].spec.host == Host::Shared {
            if self.depth == Depth::Kernel || stage.issued > w.position {
                self.ready(worker);
            } else {
                w.status = Status::Host;
                self.stages[worker as usize].unissued = true;
            }
            return;
        }
        let issued = stage.host_base + launch.issued_ns;
        if issued > self.now {
            w.status = Status::Host;
            self.arm(issued, Kind::Issued, worker);
        } else {
            self.ready(worker);
        }
    }

    /// The host begins to issue the launches of a pass.
    pub(super) fn begin_pass(&mut self, worker: u32) {
        let pool = self.workers[worker as usize].spec.pool as usize;
        if self.sites[pool].spec.host == Host::Shared && self.depth < Depth::Kernel {
            self.stages[worker as usize].issued = 0;
            self.dispatch_next(worker);
        }
    }

    /// The worker's thread queues for the process's lock, to issue its next launch.
    fn dispatch_next(&mut self, worker: u32) {
        let stage = &self.stages[worker as usize];
        if stage.issued < stage.count {
            let ns = self.launch_ns(worker, stage.issued);
            let at = self.host_until(worker, ns);
            self.arm(at, Kind::Dispatched, worker);
        }
    }

    pub(super) fn dispatched(&mut self, worker: u32) {
        let stage = &mut self.stages[worker as usize];
        stage.issued += 1;
        let heads = std::mem::take(&mut stage.unissued);
        self.dispatch_next(worker);
        if heads {
            self.ready(worker);
        }
    }

    /// Host time of one launch of the worker's batch.
    pub(super) fn launch_ns(&self, worker: u32, position: u32) -> u64 {
        let at = (self.stages[worker as usize].first + position) as usize;
        let before = if position > 0 { self.launches[at - 1].issued_ns } else { 0 };
        self.launches[at].issued_ns - before
    }

    /// When the host that the worker shares will have spent `ns` more.
    pub(super) fn host_until(&mut self, worker: u32, ns: u64) -> u64 {
        let pool = self.workers[worker as usize].spec.pool as usize;
        self.sites[pool].host_until(self.now, ns)
    }

    #[inline(always)]
    pub(super) fn ready(&mut self, worker: u32) {
        let w = &mut self.workers[worker as usize];
        if self.depth == Depth::Kernel {
            w.status = Status::Held;
            self.tell(Event::KernelReady { worker });
            return;
        }
        let (kernel, priority) = (w.kernel, w.spec.priority);
        self.submit(worker, kernel, None, priority);
    }

    #[inline(always)]
    pub(super) fn submit(&mut self, worker: u32, kernel: u32, mask: Option<&CuMask>, priority: i8) {
        let w = &mut self.workers[worker as usize];
        w.status = Status::Launched;
        let stage = &self.stages[worker as usize];
        // Kernels in one launch end together: with the one that has the most work.
        let others = stage.merged.iter().map(|&w| self.stages[w as usize].scale);
        let mut scale = others.fold(stage.scale, f64::max);
        if let Some(jitter) = &mut self.jitter {
            scale *= jitter.factor(w.spec.tenant, stage.ordinal, w.position);
        }
        let (lane, cap) = (w.spec.lane, w.spec.cap);
        let job = Job { owner: worker, kernel, lane, cap, priority, scale, extra_ns: 0 };
        self.sites[w.spec.pool as usize].submit(self.now, job, mask, &self.code);
    }
}
