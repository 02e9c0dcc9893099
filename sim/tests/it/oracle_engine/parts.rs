//! Slices of kernels, and kernels that leave the CUs before their end.

use cotenant_sim::action::{Event, Preemption, Via};
use cotenant_sim::program::KernelCode;
use cotenant_sim::view::Status;

use super::placement::Way;
use super::{Job, Oracle, Timer};

/// Blocks in such a share of a kernel's, at least one.
pub(super) fn blocks_in(kernel: &KernelCode, share: f64) -> u64 {
    ((kernel.blocks as f64 * share - 1e-9).ceil() as u64).max(1)
}

impl Job {
    /// What is left of its part, of the whole kernel.
    fn rest(&self) -> f64 {
        if self.whole == 0.0 { self.part } else { self.part.min(self.left / self.whole) }
    }

    /// Blocks that a job of a part has to begin anew.
    pub(super) fn counts_blocks(&self, kernel: &KernelCode) -> bool {
        self.part != 1.0 && !self.saved && !kernel.fair
    }
}

impl Way {
    /// With fewer blocks than there is room for.
    pub(super) fn with_blocks(self, kernel: &KernelCode, blocks: u64) -> Self {
        if blocks >= self.there {
            return self;
        }
        let waves = kernel.blocks.div_ceil(blocks);
        Self {
            ns: (self.ns * waves).div_ceil(self.waves),
            speed: self.speed * blocks / self.there,
            rate: self.rate * blocks / self.there,
            cache: self.cache * blocks / self.there,
            power: self.power * blocks / self.there,
            lies: self.lies.min(blocks),
            there: blocks,
            waves,
        }
    }
}

impl Oracle<'_> {
    /// How much of its kernel the launch does; whether it is a slice.
    pub(super) fn portion(&mut self, w: usize, blocks: Option<u64>, via: Via) -> bool {
        let kernel = &self.kernels[self.head_kernel(w)];
        let all = kernel.blocks as f64;
        let longer = self.longer_by(kernel, via);
        let worker = &mut self.workers[w];
        worker.longer = longer;
        worker.resumes = std::mem::take(&mut worker.saved);
        worker.share = worker.left;
        if let Some(n) = blocks {
            let share = n as f64 / all;
            if share <= worker.left - 1e-9 {
                worker.share = share;
            }
        }
        blocks.is_some() && worker.share < 1.0
    }

    /// What the form of a launch adds to its kernel.
    pub(super) fn longer_by(&self, kernel: &KernelCode, via: Via) -> u64 {
        let percent = u64::from(self.setup.costs.persistent_percent - 100);
        let longer = kernel.duration_ns.last().unwrap() * percent / 100;
        if via == Via::Persistent { longer } else { 0 }
    }

    /// The launch that ended was a slice, and not the last one.
    pub(super) fn slice_ended(&mut self, w: usize) -> bool {
        let worker = &mut self.workers[w];
        worker.leaves = None;
        if worker.share == worker.left || !worker.partners.is_empty() {
            return false;
        }
        worker.left -= worker.share;
        worker.launched = (0, 0);
        worker.status = Status::Held;
        self.tell(Event::SliceDone { worker: w as u32 });
        true
    }

    pub(super) fn preempt(&mut self, w: usize, how: Preemption) {
        let worker = &self.workers[w];
        let single = worker.partners.is_empty() && worker.launched.1 > 0;
        if worker.status != Status::Launched || !single || worker.leaves.is_some() {
            return;
        }
        let costs = &self.setup.costs;
        let m = match how {
            Preemption::Reset => costs.preempt_reset,
            Preemption::Blocks | Preemption::Unstarted => costs.preempt_blocks,
            Preemption::Save => costs.preempt_save,
        };
        // Of several launches each is killed by itself.
        let n = if how == Preemption::Reset { 1 + self.workers[w].behind.len() as u64 } else { 1 };
        let worker = &mut self.workers[w];
        worker.next = None;
        let later = worker.behind.iter().map(|l| l.placed + 1).max().unwrap_or(0);
        let placed = worker.placed.max(later);
        let at = placed.max(self.now) + (m.cost.0 + m.delay.0) * n;
        self.workers[w].leaves = Some((how, at));
        self.set(at, Timer::Preempt(w));
    }

    /// The order takes effect, unless its kernel has ended meanwhile.
    pub(super) fn preempt_now(&mut self, w: usize) {
        let Some((how, at)) = self.workers[w].leaves else { return };
        if at != self.now {
            return;
        }
        self.workers[w].behind.clear();
        let p = self.workers[w].spec.pool as usize;
        let i = self.pools[p].jobs.iter().position(|j| j.worker == w).expect("it is on the GPU");
        let fair = self.code(&self.pools[p].jobs[i]).fair;
        let job = &mut self.pools[p].jobs[i];
        let lane = job.lane;
        if how == Preemption::Unstarted && job.whole > 0.0 {
            return;
        }
        if how == Preemption::Blocks && job.way.is_some() && !fair {
            job.leaving = true;
            if self.pools[p].on(lane) {
                self.hand_out(p, lane);
            }
            return;
        }
        self.leaves(p, i);
    }

    /// A job goes with what is left of it.
    pub(super) fn leaves(&mut self, p: usize, i: usize) {
        let now = self.now;
        let mut job = self.pools[p].jobs.remove(i);
        if self.pools[p].on(job.lane) {
            if job.way.is_some() {
                job.age(now);
            }
            self.hand_out(p, job.lane);
        }
        let worker = &mut self.workers[job.worker];
        let (how, _) = worker.leaves.take().expect("it was told to go");
        let left = if how == Preemption::Reset { job.part } else { job.rest() };
        let after = if worker.share == worker.left { 0.0 } else { worker.left - worker.share };
        worker.left = after + left;
        worker.saved = how == Preemption::Save && (left < worker.share || worker.resumes);
        (worker.launched, worker.next) = ((0, 0), None);
        worker.status = Status::Held;
        self.tell(Event::KernelPreempted { worker: job.worker as u32 });
    }
}
