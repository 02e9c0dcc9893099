//! From a batch to kernels on the GPU: host, copies, launches, merged launches.

use cotenant_sim::action::{Event, Via};
use cotenant_sim::layout::WorkerSpec;
use cotenant_sim::mask::CuMask;
use cotenant_sim::observe::Happening;
use cotenant_sim::policy::Depth;
use cotenant_sim::program::KernelCode;
use cotenant_sim::view::Status;

use super::{Job, NEVER, Oracle, Timer};

impl Oracle<'_> {
    pub(super) fn pool_of(&self, w: usize) -> usize {
        self.workers[w].spec.pool as usize
    }

    /// The batch is at hand: the host begins to copy it and to issue its launches.
    pub(super) fn prepared(&mut self, w: usize) {
        self.workers[w].handed = true;
        self.begin_pass(w);
        let t = self.workers[w].spec.tenant as usize;
        let bytes = self.setup.tenants[t].model.input_per_item.0 * u64::from(self.workers[w].items);
        match self.copy(w, 0, bytes) {
            Some(done) => self.set(done, Timer::CopiedIn(w)),
            None => self.copied_in(w),
        }
    }

    fn begin_pass(&mut self, w: usize) {
        self.workers[w].host_base = self.now;
        // A policy that launches every kernel has them issued when it asks for them.
        if self.pools[self.pool_of(w)].shares_host() && self.depth_at(w) < Depth::Kernel {
            self.workers[w].issued = 0;
            self.queue_for_host(w);
        }
    }

    /// Its thread stands in line to issue its next launch, if any is left.
    fn queue_for_host(&mut self, w: usize) {
        let next = self.workers[w].issued;
        if next < self.workers[w].program.kernels.len() {
            let at = self.host_spends(w, self.launch_ns(w, next));
            self.set(at, Timer::IssuedByAll(w));
        }
    }

    pub(super) fn issued_by_all(&mut self, w: usize) {
        self.workers[w].issued += 1;
        let head_waited = std::mem::take(&mut self.workers[w].unissued);
        self.queue_for_host(w);
        if head_waited {
            self.open(w);
            self.ready(w);
        }
    }

    /// Host time of one launch.
    pub(super) fn launch_ns(&self, w: usize, position: usize) -> u64 {
        let issued = &self.workers[w].program.issued_ns;
        issued[position] - if position == 0 { 0 } else { issued[position - 1] }
    }

    /// When the shared host has spent so long on this, after what it was asked for before.
    pub(super) fn host_spends(&mut self, w: usize, ns: u64) -> u64 {
        let p = self.pool_of(w);
        let pool = &mut self.pools[p];
        pool.host_free = pool.host_free.max(self.now) + ns;
        pool.host_free
    }

    fn copy(&mut self, w: usize, direction: usize, bytes: u64) -> Option<u64> {
        let p = self.pool_of(w);
        let pcie = &self.setup.device.pcie;
        let ns = (bytes as f64 / [pcie.h2d_gbps, pcie.d2h_gbps][direction]).ceil() as u64;
        let pool = &mut self.pools[p];
        let engine = if pool.spec.copy_engines < 2 { 0 } else { direction };
        (ns > 0).then(|| {
            pool.copies[engine] = pool.copies[engine].max(self.now) + ns;
            pool.copies[engine]
        })
    }

    pub(super) fn copied_in(&mut self, w: usize) {
        // A host that workers share puts the first kernel into the stream once it has issued it.
        if !self.pools[self.pool_of(w)].shares_host() || self.depth_at(w) == Depth::Kernel {
            self.open(w);
        }
        self.head(w);
    }

    /// The first kernel of its batch is in its stream.
    fn open(&mut self, w: usize) {
        let spec = self.workers[w].spec;
        if !std::mem::replace(&mut self.workers[w].opened, true) {
            self.pools[spec.pool as usize].open[spec.lane as usize] += 1;
        }
    }

    /// The next kernel is at the head of its stream, and waits until it has been issued.
    fn head(&mut self, w: usize) {
        let shared = self.pools[self.pool_of(w)].shares_host();
        let depth = self.depth_at(w);
        let worker = &mut self.workers[w];
        let issued = match (shared, depth) {
            (true, Depth::Kernel) => true,
            (true, _) => worker.issued > worker.position,
            (false, _) => worker.host_base + worker.program.issued_ns[worker.position] <= self.now,
        };
        if issued {
            self.open(w);
            return self.ready(w);
        }
        worker.status = Status::Host;
        if shared {
            worker.unissued = true;
        } else {
            let at = worker.host_base + worker.program.issued_ns[worker.position];
            self.expect_issue(w, at);
        }
    }

    pub(super) fn ready(&mut self, w: usize) {
        if self.depth_at(w) == Depth::Kernel {
            self.workers[w].status = Status::Held;
            self.tell(Event::KernelReady { worker: w as u32 });
        } else {
            let priority = self.workers[w].spec.priority;
            self.workers[w].placement = (self.head_kernel(w), None, priority);
            self.submit(w);
        }
    }

    pub(super) fn head_kernel(&self, w: usize) -> usize {
        let worker = &self.workers[w];
        worker.program.kernels[worker.position] as usize
    }

    /// What a mechanism takes to place a kernel.
    pub(super) fn placing(&self, via: Via) -> u64 {
        let costs = &self.setup.costs;
        let (cost, delay) = match via {
            Via::Stream => (0, 0),
            Via::Hop => (costs.stream_hop.cost.0, costs.stream_hop.delay.0),
            Via::Barrier => (costs.barrier.cost.0, costs.barrier.delay.0),
            Via::MaskIoctl => (costs.mask_ioctl.cost.0, costs.mask_ioctl.delay.0),
            Via::MaskTpc => (costs.mask_tpc.cost.0, costs.mask_tpc.delay.0),
            Via::MaskFirmware => (costs.mask_firmware.cost.0, costs.mask_firmware.delay.0),
            Via::Intercept | Via::Persistent => {
                (costs.kernel_intercept.cost.0, costs.kernel_intercept.delay.0)
            }
            Via::InterceptMaskTpc => (
                costs.kernel_intercept.cost.0 + costs.mask_tpc.cost.0,
                costs.kernel_intercept.delay.0 + costs.mask_tpc.delay.0,
            ),
        };
        cost + delay
    }

    pub(super) fn launch(
        &mut self,
        w: usize,
        blocks: Option<u64>,
        mask: Option<CuMask>,
        priority: i8,
        via: Via,
    ) {
        assert_eq!(self.workers[w].status, Status::Held);
        let placing = self.placing(via);
        let costs = &self.setup.costs;
        let slice = costs.kernel_slice.cost.0 + costs.kernel_slice.delay.0;
        let mut at = self.now;
        if self.pools[self.pool_of(w)].shares_host() {
            at = self.host_spends(w, self.launch_ns(w, self.workers[w].position));
        }
        self.workers[w].placement = (self.head_kernel(w), mask, priority);
        let want = self.kernels[self.head_kernel(w)].want.min(self.workers[w].spec.cap);
        self.workers[w].launched = (self.now, mask.map_or(want, |m| want.min(m.count())));
        at += placing;
        if self.portion(w, blocks, via) {
            at += slice;
        }
        self.workers[w].open_end = mask.is_none() && self.workers[w].share == self.workers[w].left;
        self.on_its_way(w, at);
        self.see_next(w);
    }

    /// One launch for the kernels of several workers: the first one's, as it were.
    pub(super) fn merge(&mut self, workers: &[usize], priority: i8) {
        let mut parts: Vec<usize> = vec![];
        for &w in workers {
            assert_eq!(self.workers[w].status, Status::Held);
            self.workers[w].status = Status::Launched;
            self.workers[w].open_end = false;
            parts.push(self.head_kernel(w));
            self.workers[w].launched = (self.now, 0);
            (self.workers[w].share, self.workers[w].resumes) = (1.0, false);
            self.workers[w].longer = 0;
        }
        let want: u32 = parts.iter().map(|&k| self.kernels[k].want).sum();
        let owner = &mut self.workers[workers[0]];
        owner.launched.1 = want.min(owner.spec.cap);
        parts.sort_unstable();
        let of_setup = self.setup.code.kernels.len();
        let known = self.merged.iter().position(|m| *m == parts);
        let kernel = of_setup
            + known.unwrap_or_else(|| {
                let kernels: Vec<&KernelCode> = parts.iter().map(|&k| &self.kernels[k]).collect();
                let setup = &self.setup;
                let merged = KernelCode::merged(&kernels, &setup.device, &setup.costs);
                self.kernels.push(merged);
                self.merged.push(parts);
                self.merged.len() - 1
            });
        let costs = &self.setup.costs;
        let ns = costs.merge_fixed.0 + costs.merge_each.0 * workers.len() as u64;
        let first = workers[0];
        self.workers[first].partners = workers[1..].to_vec();
        self.workers[first].placement = (kernel, None, priority);
        let shared = self.pools[self.pool_of(first)].shares_host();
        let at = if shared { self.host_spends(first, ns) } else { self.now + ns };
        self.on_its_way(first, at);
    }

    pub(super) fn on_its_way(&mut self, w: usize, at: u64) {
        self.workers[w].status = Status::Launched;
        self.workers[w].placed = at.max(self.now);
        if at > self.now {
            self.set(at, Timer::Placed(w));
        } else {
            self.submit(w);
        }
    }

    pub(super) fn submit(&mut self, w: usize) {
        self.workers[w].status = Status::Launched;
        let worker = &self.workers[w];
        let (p, spec) = (worker.spec.pool as usize, worker.spec);
        let (kernel, mask, priority) = worker.placement;
        // Kernels that are launched as one end as one: with the largest request among them.
        let together = worker.partners.iter().map(|&m| self.workers[m].scale);
        let mut scale = together.fold(worker.scale, f64::max);
        if let Some(jitter) = &mut self.jitter {
            scale *= jitter.factor(spec.tenant, worker.number, worker.position as u32);
        }
        let mut job = Job {
            worker: w,
            kernel,
            lane: spec.lane as usize,
            cap: spec.cap,
            priority,
            mask,
            scale,
            extra_ns: 0,
            part: 1.0,
            saved: false,
            leaving: false,
            order: 0,
            way: None,
            ns: 0,
            held: 0,
            cus: vec![],
            fill: 0,
            squeezed: true,
            last: false,
            whole: 0.0,
            left: 0.0,
            since: self.now,
            slow: 1.0,
            heat: 1.0,
            edge: NEVER,
        };
        if self.depth_at(w) == Depth::Kernel {
            (job.part, job.saved) = (self.workers[w].share, self.workers[w].resumes);
            job.extra_ns = self.workers[w].longer;
            if job.saved {
                job.extra_ns += 2 * self.setup.costs.preempt_save.cost.0;
            }
        }
        let n = self.pools[p].queues.len();
        if n > 0 {
            job.extra_ns = self.setup.device.queues.overflow.0;
            let queue = &mut self.pools[p].queues[self.workers[w].stream % n];
            if queue.0.is_some() {
                queue.1.push_back(job);
                return;
            }
            queue.0 = Some(w);
        }
        self.compete(p, job);
    }

    /// The job's blocks compete from now on.
    fn compete(&mut self, p: usize, mut job: Job) {
        self.jobs += 1;
        job.order = self.jobs;
        let (lane, masked) = (job.lane, job.mask.is_some());
        if masked && !self.pools[p].masked[lane] {
            self.name_cus(p, lane);
            self.pools[p].masked[lane] = true;
        }
        self.pools[p].jobs.push(job);
        if self.pools[p].on(lane) {
            self.hand_out(p, lane);
        }
    }

    pub(super) fn pool_event(&mut self, p: usize) {
        let pool = &mut self.pools[p];
        if pool.switch_end == self.now {
            self.activate(p);
            return;
        }
        let ended = (0..pool.jobs.len())
            .filter(|&i| pool.ends(i).min(pool.jobs[i].edge) == self.now)
            .min_by_key(|&i| pool.jobs[i].order);
        let Some(i) = ended else {
            let to = pool.next_lane().expect("others wait when a slice ends");
            self.switch_to(p, to, false);
            return;
        };
        if pool.ends(i) > self.now {
            if pool.jobs[i].leaving {
                self.leaves(p, i);
            } else {
                self.wave_ended(p, i);
            }
            return;
        }
        let job = pool.jobs.remove(i);
        self.hand_out(p, job.lane);
        let (w, kernel) = (job.worker, job.kernel as u32);
        let followed = !self.workers[w].behind.is_empty();
        if self.depth_at(w) == Depth::Kernel && !followed && self.slice_ended(w) {
            return;
        }
        self.out.log.push((self.now, Happening::KernelEnded { worker: w as u32, kernel }));
        let n = self.pools[p].queues.len();
        if n > 0 {
            let queue = &mut self.pools[p].queues[self.workers[w].stream % n];
            let next = queue.1.pop_front();
            queue.0 = next.as_ref().map(|j| j.worker);
            if let Some(job) = next {
                self.compete(p, job);
            }
        }
        if followed {
            return self.next_is_there(w);
        }
        self.told_ended(w);
    }

    /// The policy learns of every kernel of the launch; the streams go on.
    fn told_ended(&mut self, w: usize) {
        (self.workers[w].launched, self.workers[w].next) = ((0, 0), None);
        if self.depth_at(w) == Depth::Kernel {
            self.tell(Event::KernelDone { worker: w as u32 });
            for partner in std::mem::take(&mut self.workers[w].partners) {
                self.workers[partner].launched = (0, 0);
                self.tell(Event::KernelDone { worker: partner as u32 });
                self.kernel_ended(partner);
            }
        }
        self.kernel_ended(w);
    }

    fn kernel_ended(&mut self, w: usize) {
        let worker = &mut self.workers[w];
        worker.position += 1;
        (worker.left, worker.saved) = (1.0, false);
        if worker.position == worker.program.kernels.len() {
            worker.position = 0;
            worker.passes -= 1;
            if worker.passes == 0 {
                self.kernels_done(w);
                return;
            }
            self.begin_pass(w);
        }
        self.head(w);
    }

    fn kernels_done(&mut self, w: usize) {
        let WorkerSpec { tenant, pool, lane, .. } = self.workers[w].spec;
        let per_item = self.setup.tenants[tenant as usize].model.output_per_item.0;
        let on = &mut self.pools[pool as usize];
        on.open[lane as usize] -= 1;
        if on.open[lane as usize] == 0 {
            on.ended_batch = Some((self.now, lane as usize));
        }
        self.workers[w].status = Status::Host;
        match self.copy(w, 1, per_item * u64::from(self.workers[w].items)) {
            Some(done) => self.set(done, Timer::CopiedOut(w)),
            None => self.batch_done(w),
        }
    }
}
