//! A batch on its way: host work, copies, kernels, results.

use cotenant_profiles::{Bytes, Nanos};
use cotenant_sim::CuMask;
use cotenant_sim::action::{Event, Via};
use cotenant_sim::layout::Host;
use cotenant_sim::observe::Happening;
use cotenant_sim::policy::Depth;
use cotenant_sim::program::Program;
use cotenant_sim::view::Status;

use super::driver::{Driver, Phase};
use super::timers::Timer;
use super::workers::{Batch, Ended, Launch};
use crate::device::Direction;
use crate::error::DeviceError;

impl Driver<'_> {
    /// Takes up to `max` items off the queue and starts them on a worker that was idle.
    pub(super) fn begin(&mut self, worker: u32, max: u32) -> Result<(), DeviceError> {
        let tenant = self.workers[worker as usize].spec.tenant;
        let stage = &mut self.stages[worker as usize];
        let taken = self.serving.take(tenant, max, Nanos(self.now), &mut stage.batch);
        let model = &self.setup.tenants[tenant as usize].model;
        let largest = model.max_items();
        stage.passes = taken.items.div_ceil(largest);
        stage.program = model.program_for[taken.items.min(largest) as usize] as usize;
        (stage.work, stage.ordinal) = (f64::from(taken.work), taken.ordinal);
        let w = &mut self.workers[worker as usize];
        w.status = Status::Host;
        (w.items, w.position) = (taken.items, 0);
        (w.began, w.deadline) = (Nanos(self.now), taken.deadline);
        let prepare = model.host_per_request.0 * u64::from(taken.requests);
        self.observe(Happening::BatchBegan { worker, items: taken.items });
        if prepare > 0 && self.kept {
            self.timers.set(self.now + prepare, Timer::Prepared(worker));
            return Ok(());
        }
        self.prepared(worker, self.now)
    }

    /// The host has had the batch ready since `at`, and issues its copy and its kernels.
    pub(super) fn prepared(&mut self, worker: u32, at: u64) -> Result<(), DeviceError> {
        let w = &self.workers[worker as usize];
        let (pool, items) = (w.spec.pool as usize, w.items);
        let model = &self.setup.tenants[w.spec.tenant as usize].model;
        let input = Bytes(model.input_per_item.0 * u64::from(items));
        let shared = self.pools[pool].host == Host::Shared;
        self.stages[worker as usize].base = at;
        if self.depth == Depth::Kernel || shared {
            return self.copy_in(worker, input, at, shared);
        }
        self.pass(worker, at, input)
    }

    /// Copies the inputs; what the policy launches starts behind them. The launches of a host that
    /// its workers share go their own way meanwhile.
    fn copy_in(
        &mut self,
        worker: u32,
        input: Bytes,
        at: u64,
        shared: bool,
    ) -> Result<(), DeviceError> {
        let asked = self.depth == Depth::Kernel;
        if input.0 > 0 {
            self.stages[worker as usize].phase = Phase::CopyIn;
            self.gpu.copy(worker, Direction::In, input, at, asked)?;
        }
        if shared && !asked {
            self.stages[worker as usize].phase = Phase::Whole;
            self.begin_shared_pass(worker, at);
            return Ok(());
        }
        if input.0 == 0 { self.head(worker) } else { Ok(()) }
    }

    /// Hands the device a pass over the model, for nobody to be asked in between.
    fn pass(&mut self, worker: u32, at: u64, input: Bytes) -> Result<(), DeviceError> {
        let stage = &mut self.stages[worker as usize];
        let w = &mut self.workers[worker as usize];
        let setup = std::sync::Arc::clone(&self.setup);
        let model = &setup.tenants[w.spec.tenant as usize].model;
        let program = &model.programs[stage.program];
        self.scales.clear();
        self.scales.resize(program.kernels.len(), stage.work);
        if let Some(jitter) = &mut self.jitter {
            for (position, scale) in self.scales.iter_mut().enumerate() {
                *scale *= jitter.factor(w.spec.tenant, stage.ordinal, position as u32);
            }
        }
        let last = stage.passes == 1;
        let output = if last { model.output_per_item.0 * u64::from(w.items) } else { 0 };
        let batch = Batch {
            worker,
            kernels: &program.kernels,
            issued_ns: &program.issued_ns,
            scales: &self.scales,
            base: at,
            input,
            output: Bytes(output),
            first: w.position == 0 && stage.base == at,
            last,
        };
        (stage.phase, w.status) = (Phase::Whole, Status::Launched);
        self.gpu.run(&batch)
    }

    /// Something that the device did for a worker has ended.
    pub(super) fn ended(&mut self, e: Ended) -> Result<(), DeviceError> {
        let stage = &mut self.stages[e.worker as usize];
        match std::mem::take(&mut stage.phase) {
            Phase::Nothing => unreachable!("only what is under way ends"),
            Phase::CopyIn => self.head(e.worker),
            Phase::Kernel => self.kernel_done(e),
            Phase::Whole => {
                stage.passes -= 1;
                if stage.passes == 0 {
                    return self.batch_done(e.worker);
                }
                stage.base = e.at;
                let pool = self.workers[e.worker as usize].spec.pool as usize;
                if self.pools[pool].host == Host::Shared {
                    self.stages[e.worker as usize].phase = Phase::Whole;
                    self.begin_shared_pass(e.worker, e.at);
                    return Ok(());
                }
                self.pass(e.worker, e.at, Bytes(0))
            }
            Phase::CopyOut => self.batch_done(e.worker),
        }
    }

    fn batch_done(&mut self, worker: u32) -> Result<(), DeviceError> {
        let w = &mut self.workers[worker as usize];
        let (tenant, items, took) = (w.spec.tenant, w.items, Nanos(self.now).since(w.began));
        w.status = Status::Idle;
        w.position = 0;
        w.deadline = Nanos::MAX;
        self.serving.batch_ended(tenant, items);
        self.observe(Happening::BatchEnded { worker, items });
        let mut batch = std::mem::take(&mut self.stages[worker as usize].batch);
        for id in batch.drain(..) {
            let done = self.serving.finish(id, Nanos(self.now));
            self.again(done.tenant);
            self.observe(Happening::RequestDone { tenant: done.tenant, arrival: done.arrival });
            if self.depth >= Depth::Request {
                let (latency, queued) = (done.latency, done.queued);
                self.tell(Event::RequestDone { tenant: done.tenant, worker, latency, queued })?;
            }
        }
        self.stages[worker as usize].batch = batch;
        if self.workers[worker as usize].retiring {
            self.retire(worker)?;
        } else if self.resize_due(worker) {
            self.take_down(worker)?;
        } else {
            self.serving.idle(tenant, worker);
        }
        if self.depth >= Depth::Request {
            self.tell(Event::BatchDone { worker, items, took })?;
        }
        self.form_batches(tenant)
    }
}

/// A host that workers share: one launch after the other, by turns.
impl Driver<'_> {
    fn begin_shared_pass(&mut self, worker: u32, at: u64) {
        self.workers[worker as usize].status = Status::Launched;
        self.stages[worker as usize].issued = 0;
        self.dispatch_next(worker, at);
    }

    /// The worker's thread queues for the process's lock, to issue its next launch.
    fn dispatch_next(&mut self, worker: u32, at: u64) {
        let issued = self.stages[worker as usize].issued;
        if (issued as usize) < self.program(worker).kernels.len() {
            let ns = if self.kept { launch_ns(self.program(worker), issued) } else { 0 };
            let at = self.host_until(worker, at, ns);
            self.timers.set(at, Timer::Dispatched(worker));
        }
    }

    pub(super) fn dispatched(&mut self, worker: u32, at: u64) -> Result<(), DeviceError> {
        let position = self.stages[worker as usize].issued;
        self.stages[worker as usize].issued += 1;
        self.dispatch_next(worker, at);
        let (count, kernel) = {
            let program = self.program(worker);
            (program.kernels.len() as u32, program.kernels[position as usize])
        };
        let (end, last_pass) = (position + 1 == count, self.stages[worker as usize].passes == 1);
        let w = &self.workers[worker as usize];
        let model = &self.setup.tenants[w.spec.tenant as usize].model;
        let output = Bytes(model.output_per_item.0 * u64::from(w.items));
        let copies = end && last_pass && output.0 > 0;
        let launch = Launch {
            worker,
            kernel,
            mask: None,
            priority: None,
            issued: at,
            scale: self.scale(worker, position),
            first: position == 0,
            last: end && last_pass,
            tell: end && !copies,
        };
        self.gpu.launch(&launch)?;
        if copies {
            self.gpu.copy(worker, Direction::Out, output, at, true)?;
        }
        Ok(())
    }

    /// When a shared host will have spent `ns` more, after what it has to do already.
    fn host_until(&mut self, worker: u32, at: u64, ns: u64) -> u64 {
        let free = &mut self.hosts[self.workers[worker as usize].spec.pool as usize];
        *free = (*free).max(at) + ns;
        *free
    }

    fn program(&self, worker: u32) -> &Program {
        let tenant = self.workers[worker as usize].spec.tenant as usize;
        let model = &self.setup.tenants[tenant].model;
        &model.programs[self.stages[worker as usize].program]
    }

    /// What multiplies the duration of a kernel of the batch.
    fn scale(&mut self, worker: u32, position: u32) -> f64 {
        let stage = &self.stages[worker as usize];
        let tenant = self.workers[worker as usize].spec.tenant;
        let jitter = self.jitter.as_mut();
        stage.work * jitter.map_or(1.0, |j| j.factor(tenant, stage.ordinal, position))
    }
}

/// Kernels that the policy launches.
impl Driver<'_> {
    /// The worker's next kernel is at the head of its stream: wait for the host, or ask.
    fn head(&mut self, worker: u32) -> Result<(), DeviceError> {
        let position = self.workers[worker as usize].position as usize;
        let program = self.program(worker);
        let (kernel, issued) = (program.kernels[position], program.issued_ns[position]);
        let w = &mut self.workers[worker as usize];
        w.kernel = kernel;
        let own = self.pools[w.spec.pool as usize].host == Host::Own;
        let issued = self.stages[worker as usize].base + issued;
        if own && self.kept && issued > self.now {
            w.status = Status::Host;
            self.timers.set(issued, Timer::Issued(worker));
            return Ok(());
        }
        self.ready(worker)
    }

    /// The policy is asked.
    pub(super) fn ready(&mut self, worker: u32) -> Result<(), DeviceError> {
        self.workers[worker as usize].status = Status::Held;
        self.tell(Event::KernelReady { worker })
    }

    pub(super) fn launch(
        &mut self,
        worker: u32,
        mask: Option<CuMask>,
        priority: i8,
        via: Via,
    ) -> Result<(), DeviceError> {
        assert!(mask.is_none_or(|m| !m.is_empty()), "a mask names at least one CU");
        let (kernel, position) = self.take_held(worker);
        let mut issued = self.now;
        if self.kept {
            let pool = self.workers[worker as usize].spec.pool as usize;
            if self.pools[pool].host == Host::Shared {
                let ns = launch_ns(self.program(worker), position);
                issued = self.host_until(worker, self.now, ns);
            }
            let cost = via.mechanism(&self.setup.costs);
            issued += cost.cost.0 + cost.delay.0;
        }
        let launch = self.launch_of(worker, kernel, position, (mask, priority), issued);
        self.gpu.launch(&launch)?;
        self.decided();
        Ok(())
    }

    /// Several held kernels become one launch, on the queue of the first worker.
    pub(super) fn merge(&mut self, workers: &[u32], priority: i8) -> Result<(), DeviceError> {
        assert!(workers.len() > 1, "a merge takes at least two kernels");
        let mut kernels = std::mem::take(&mut self.parts);
        kernels.clear();
        kernels.extend(workers.iter().map(|&w| self.take_held(w).0));
        let owner = workers[0];
        self.stages[owner as usize].merged.extend_from_slice(&workers[1..]);
        let mut issued = self.now;
        if self.kept {
            let costs = &self.setup.costs;
            let ns = costs.merge_fixed.0 + costs.merge_each.0 * workers.len() as u64;
            let pool = self.workers[owner as usize].spec.pool as usize;
            issued = match self.pools[pool].host {
                Host::Shared => self.host_until(owner, self.now, ns),
                Host::Own => self.now + ns,
            };
        }
        let position = self.workers[owner as usize].position;
        let launch = self.launch_of(owner, kernels[0], position, (None, priority), issued);
        self.gpu.merge(&launch, &kernels)?;
        self.parts = kernels;
        self.decided();
        Ok(())
    }

    /// The held kernel of a worker, which counts as launched from now on, and its position.
    fn take_held(&mut self, worker: u32) -> (u32, u32) {
        let w = &mut self.workers[worker as usize];
        assert!(w.status == Status::Held, "a policy launches held kernels");
        w.status = Status::Launched;
        (w.kernel, w.position)
    }

    fn launch_of(
        &mut self,
        worker: u32,
        kernel: u32,
        position: u32,
        (mask, priority): (Option<CuMask>, i8),
        issued: u64,
    ) -> Launch {
        let scale = self.scale(worker, position);
        let count = self.program(worker).kernels.len() as u32;
        let stage = &mut self.stages[worker as usize];
        stage.phase = Phase::Kernel;
        let last = position + 1 == count && stage.passes == 1;
        let priority = Some(priority);
        let first = position == 0;
        Launch { worker, kernel, mask, priority, issued, scale, first, last, tell: true }
    }

    fn kernel_done(&mut self, e: Ended) -> Result<(), DeviceError> {
        let owner = e.worker;
        let kernel = self.workers[owner as usize].kernel;
        self.observe(Happening::KernelEnded { worker: owner, kernel });
        self.tell(Event::KernelDone { worker: owner })?;
        let mut others = std::mem::take(&mut self.stages[owner as usize].merged);
        for &worker in &others {
            self.tell(Event::KernelDone { worker })?;
            self.kernel_ended(worker, e.at)?;
        }
        others.clear();
        // Kept for the next merge, unless one has begun meanwhile.
        let merged = &mut self.stages[owner as usize].merged;
        if merged.is_empty() {
            *merged = others;
        }
        self.kernel_ended(owner, e.at)
    }

    fn kernel_ended(&mut self, worker: u32, at: u64) -> Result<(), DeviceError> {
        let count = self.program(worker).kernels.len() as u32;
        let w = &mut self.workers[worker as usize];
        let stage = &mut self.stages[worker as usize];
        w.position += 1;
        if w.position < count {
            return self.head(worker);
        }
        w.position = 0;
        stage.passes -= 1;
        if stage.passes > 0 {
            stage.base = at;
            return self.head(worker);
        }
        let items = u64::from(w.items);
        let output = self.setup.tenants[w.spec.tenant as usize].model.output_per_item.0 * items;
        if output == 0 {
            return self.batch_done(worker);
        }
        (w.status, stage.phase) = (Status::Host, Phase::CopyOut);
        self.gpu.copy(worker, Direction::Out, Bytes(output), at, true)
    }
}

/// Host time of one launch.
fn launch_ns(program: &Program, position: u32) -> u64 {
    let at = position as usize;
    let before = if at > 0 { program.issued_ns[at - 1] } else { 0 };
    program.issued_ns[at] - before
}
