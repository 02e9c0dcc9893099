//! Launching a batch's kernels one by one: under a policy that launches every kernel, and for workers that
//! share a host.

use cotenant_profiles::{Bytes, Nanos};

use super::{Alarm, Direction, Host, Launch, Part, Phase, World};
use crate::action::{Event, Preemption, Via};
use crate::layout::Host as Issuer;
use crate::mask::CuMask;
use crate::view::Status;

/// A shared host issues one launch at a time, for its workers in turn.
impl<W: World> Host<'_, W> {
    /// Queues the worker's thread for the process's lock, to issue its next launch.
    pub(super) fn dispatch_next(&mut self, worker: u32, at: u64) {
        let stage = &self.stages[worker as usize];
        if stage.issued < stage.count {
            let ns = self.programs.launch_ns(stage.first, stage.issued);
            let at = self.host_until(worker, at, ns);
            self.world.arm(at, Alarm::Dispatched, worker);
        }
    }

    /// The shared host has issued a worker's next launch.
    pub(super) fn dispatched(&mut self, worker: u32) {
        let at = self.world.due();
        let position = self.stages[worker as usize].issued;
        self.stages[worker as usize].issued += 1;
        self.dispatch_next(worker, at);
        self.world.issue(worker, position);
    }

    /// Reserves `ns` of the worker's shared host, from `at` on and after the work that it already has.
    /// Returns when that time ends.
    pub(super) fn host_until(&mut self, worker: u32, at: u64, ns: u64) -> u64 {
        let free = &mut self.host_free[self.workers[worker as usize].spec.pool as usize];
        *free = (*free).max(at) + self.world.charged(ns);
        *free
    }

    pub(super) fn shares_host(&self, worker: u32) -> bool {
        self.pools[self.workers[worker as usize].spec.pool as usize].host == Issuer::Shared
    }
}

/// Kernels that the policy launches.
impl<W: World> Host<'_, W> {
    pub(super) fn copy_in(&mut self, worker: u32) {
        let w = &self.workers[worker as usize];
        let per_item = self.setup.tenants[w.spec.tenant as usize].model.input_per_item.0;
        self.copy(worker, Direction::In, Bytes(per_item * u64::from(w.items)));
    }

    fn copy_out(&mut self, worker: u32) {
        let w = &self.workers[worker as usize];
        let per_item = self.setup.tenants[w.spec.tenant as usize].model.output_per_item.0;
        self.copy(worker, Direction::Out, Bytes(per_item * u64::from(w.items)));
    }

    fn copy(&mut self, worker: u32, direction: Direction, bytes: Bytes) {
        let issued = match direction {
            Direction::In => self.stages[worker as usize].base,
            Direction::Out => self.world.due(),
        };
        let awaited = bytes.0 > 0 && self.world.copy(worker, direction, bytes, issued);
        match direction {
            Direction::In if awaited => self.stages[worker as usize].phase = Phase::CopyIn,
            Direction::Out if awaited => self.stages[worker as usize].phase = Phase::CopyOut,
            Direction::In => self.copied_in(worker),
            Direction::Out => self.batch_done(worker),
        }
    }

    pub(super) fn copied_in(&mut self, worker: u32) {
        self.world.batch(worker, true);
        self.head(worker);
    }

    /// The worker's next kernel is at the head of its stream: waits for the host to issue it, or asks the
    /// policy.
    #[inline(always)]
    fn head(&mut self, worker: u32) {
        let w = &mut self.workers[worker as usize];
        let stage = &self.stages[worker as usize];
        let step = self.programs.step(stage.first, w.position);
        w.kernel = step.kernel;
        let issued = stage.base + self.world.charged(step.issued_ns);
        // A shared host issues a launch when the policy asks for it.
        if issued > self.world.now() && self.pools[w.spec.pool as usize].host == Issuer::Own {
            w.status = Status::Host;
            self.await_issue(worker, issued);
        } else {
            self.ready(worker);
        }
    }

    /// Asks the policy to launch the kernel at the head, which is held until then.
    #[inline(always)]
    pub(super) fn ready(&mut self, worker: u32) {
        self.workers[worker as usize].status = Status::Held;
        self.tell(Event::KernelReady { worker });
    }

    /// Launches the remainder of a held kernel, or `blocks` blocks of it.
    pub(super) fn launch(
        &mut self,
        worker: u32,
        blocks: Option<u64>,
        mask: Option<&CuMask>,
        priority: i8,
        via: Via,
    ) {
        let w = &mut self.workers[worker as usize];
        assert!(w.status == Status::Held, "a policy launches held kernels");
        assert!(mask.is_none_or(|m| !m.is_empty()), "a mask names at least one CU");
        w.status = Status::Launched;
        let (kernel, position) = (w.kernel, w.position);
        w.launched = Nanos(self.world.now());
        w.cus = self.setup.code.kernels[kernel as usize].want.min(w.spec.cap);
        if let Some(mask) = mask {
            w.cus = w.cus.min(mask.count());
        }
        let mut issued = self.issue(worker, position, via);
        let mut part = Part::WHOLE;
        let persistent = via == Via::Persistent;
        if blocks.is_some() || self.workers[worker as usize].left < 1.0 || persistent {
            part = self.part(worker, blocks, persistent);
            let slice = self.setup.costs.kernel_slice;
            // A slice that covers the whole kernel costs no slicing.
            if blocks.is_some() && part.share < 1.0 {
                issued += self.world.charged(slice.cost.0 + slice.delay.0);
            }
        }
        let stage = &mut self.stages[worker as usize];
        (stage.phase, stage.part, stage.placed) = (Phase::Kernel, part, issued);
        (stage.leads, stage.priority) = (part.ends && mask.is_none(), priority);
        let (work, ordinal, behind) = (stage.work, stage.ordinal, false);
        let launch = Launch {
            worker,
            kernel,
            position,
            part,
            mask,
            priority,
            issued,
            work,
            ordinal,
            behind,
        };
        self.world.launch(&launch);
        self.offer_next(worker);
    }

    /// When the host will have issued the kernel at `position`, which the policy launches now, and the
    /// mechanism will have taken effect.
    #[inline]
    pub(super) fn issue(&mut self, worker: u32, position: u32, via: Via) -> u64 {
        let mut issued = self.world.now();
        if self.shares_host(worker) {
            let ns = self.programs.launch_ns(self.stages[worker as usize].first, position);
            issued = self.host_until(worker, issued, ns);
        }
        let cost = via.mechanism(&self.setup.costs);
        issued + self.world.charged(cost.cost.0 + cost.delay.0)
    }

    /// The part of the head kernel's work that a launch of `blocks` blocks performs, or of all remaining
    /// ones if `None`.
    #[cold]
    fn part(&mut self, worker: u32, blocks: Option<u64>, persistent: bool) -> Part {
        /// Shares that differ by less than this are equal up to rounding.
        const DUST: f64 = 1e-9;
        let w = &self.workers[worker as usize];
        let all = self.setup.code.kernels[w.kernel as usize].blocks.max(1);
        let share = blocks.map_or(w.left, |n| (n.max(1) as f64 / all as f64).min(w.left));
        let ends = share > w.left - DUST;
        let (left, kernel) = (w.left, w.kernel);
        let saved = std::mem::take(&mut self.stages[worker as usize].saved);
        let again = self.setup.costs.preempt_save.cost.0;
        let mut extra = if saved { 2 * again } else { 0 };
        if persistent {
            extra += self.longer(kernel);
        }
        let extra = self.world.charged(extra);
        Part { share: if ends { left } else { share }, ends, saved, extra }
    }

    /// Overhead of the preemptible form of a kernel, which polls for the order to stop, ns.
    pub(super) fn longer(&self, kernel: u32) -> u64 {
        let longer = self.setup.costs.persistent_percent.saturating_sub(100);
        let kernel = &self.setup.code.kernels[kernel as usize];
        kernel.at(self.setup.device.cus()) * u64::from(longer) / 100
    }

    /// Preempts a launched kernel, if it can be preempted.
    pub(super) fn preempt(&mut self, worker: u32, how: Preemption) {
        let w = &self.workers[worker as usize];
        let stage = &mut self.stages[worker as usize];
        let alone = stage.phase == Phase::Kernel && stage.merged.is_empty() && w.cus > 0;
        if w.status != Status::Launched || !alone || stage.preempting.is_some() {
            return;
        }
        stage.preempting = Some(how);
        let launches = 1 + stage.behind.len() as u64;
        // By this time each of them has reached the GPU.
        let placed = stage.behind.iter().fold(stage.placed, |at, flight| at.max(flight.placed + 1));
        let takes = self.world.charged(how.takes(&self.setup.costs, launches));
        let at = placed.max(self.world.now()) + takes;
        self.workers[worker as usize].next = None;
        self.world.preempt(worker, how, at);
    }

    /// A launched kernel was preempted; `left` is the share of the kernel that its launch did not get to.
    pub(super) fn preempted(&mut self, worker: u32, left: f64) {
        self.landed(worker);
        let stage = &mut self.stages[worker as usize];
        stage.phase = Phase::Nothing;
        stage.behind.clear();
        let part = stage.part;
        // A kernel that has not begun has no state to save.
        let state = left < part.share || part.saved;
        stage.saved = stage.preempting.take() == Some(Preemption::Save) && state;
        let w = &mut self.workers[worker as usize];
        w.left = if part.ends { left } else { w.left - part.share + left };
        (w.status, w.behind, w.next) = (Status::Held, 0, None);
        self.tell(Event::KernelPreempted { worker });
    }

    /// A slice has ended, and its kernel has blocks left.
    fn slice_done(&mut self, worker: u32) {
        self.landed(worker);
        let w = &mut self.workers[worker as usize];
        w.left -= self.stages[worker as usize].part.share;
        w.status = Status::Held;
        self.tell(Event::SliceDone { worker });
    }

    /// A kernel ended before its preemption took effect.
    #[cold]
    fn spared(&mut self, worker: u32) {
        self.stages[worker as usize].preempting = None;
        self.world.spare(worker);
    }

    /// Merges several held kernels into one launch, owned by the first worker.
    pub(super) fn merge(&mut self, workers: &[u32], priority: i8) {
        assert!(workers.len() > 1, "a merge takes at least two kernels");
        let mut parts = std::mem::take(&mut self.parts);
        parts.clear();
        // Kernels in one launch end together, with the one that has the most work.
        let mut work = f64::NEG_INFINITY;
        let (now, mut want) = (self.world.now(), 0);
        for &w in workers {
            let worker = &mut self.workers[w as usize];
            assert!(worker.status == Status::Held, "a policy merges held kernels");
            assert!(worker.left == 1.0, "a policy merges kernels that have not begun");
            worker.status = Status::Launched;
            (worker.launched, worker.cus) = (Nanos(now), 0);
            want += self.setup.code.kernels[worker.kernel as usize].want;
            parts.push(worker.kernel);
            work = work.max(self.stages[w as usize].work);
            self.stages[w as usize].leads = false;
        }
        let worker = workers[0];
        let costs = &self.setup.costs;
        let ns = costs.merge_fixed.0 + costs.merge_each.0 * workers.len() as u64;
        let owner = &mut self.workers[worker as usize];
        owner.cus = want.min(owner.spec.cap);
        let issued = match self.shares_host(worker) {
            true => self.host_until(worker, now, ns),
            false => now + self.world.charged(ns),
        };
        let stage = &mut self.stages[worker as usize];
        (stage.phase, stage.part, stage.placed) = (Phase::Kernel, Part::WHOLE, issued);
        stage.merged.extend_from_slice(&workers[1..]);
        let launch = Launch {
            worker,
            kernel: parts[0],
            position: self.workers[worker as usize].position,
            part: Part::WHOLE,
            mask: None,
            priority,
            issued,
            work,
            ordinal: stage.ordinal,
            behind: false,
        };
        self.world.merge(&launch, &parts);
        self.parts = parts;
    }

    /// A launched kernel has ended, and with it the kernels that were merged into it.
    #[inline(always)]
    pub(super) fn kernel_done(&mut self, worker: u32) {
        let stage = &self.stages[worker as usize];
        if !stage.behind.is_empty() {
            return self.next_began(worker);
        }
        let ends = stage.part.ends;
        if stage.preempting.is_some() {
            self.spared(worker);
        }
        if !ends {
            return self.slice_done(worker);
        }
        self.landed(worker);
        self.tell(Event::KernelDone { worker });
        if !self.stages[worker as usize].merged.is_empty() {
            self.merged_done(worker);
        }
        self.kernel_ended(worker);
    }

    /// Clears a worker's launch: its kernel has left the GPU.
    #[inline(always)]
    fn landed(&mut self, worker: u32) {
        let w = &mut self.workers[worker as usize];
        (w.launched, w.cus, w.next) = (Nanos::ZERO, 0, None);
    }

    #[inline(never)]
    fn merged_done(&mut self, owner: u32) {
        let mut others = std::mem::take(&mut self.stages[owner as usize].merged);
        for &worker in &others {
            self.landed(worker);
            self.tell(Event::KernelDone { worker });
            self.kernel_ended(worker);
        }
        // Keep the allocation for the next merge, unless one has already begun.
        others.clear();
        let merged = &mut self.stages[owner as usize].merged;
        if merged.is_empty() {
            *merged = others;
        }
    }

    #[inline(always)]
    fn kernel_ended(&mut self, worker: u32) {
        let w = &mut self.workers[worker as usize];
        (w.position, w.left) = (w.position + 1, 1.0);
        if w.position < self.stages[worker as usize].count {
            self.head(worker);
        } else {
            self.kernels_done(worker);
        }
    }

    /// All kernels of a pass have ended.
    #[inline(never)]
    fn kernels_done(&mut self, worker: u32) {
        let stage = &mut self.stages[worker as usize];
        self.workers[worker as usize].position = 0;
        stage.passes -= 1;
        if stage.passes > 0 {
            stage.base = self.world.due();
            return self.head(worker);
        }
        self.workers[worker as usize].status = Status::Host;
        self.world.batch(worker, false);
        self.copy_out(worker);
    }
}
