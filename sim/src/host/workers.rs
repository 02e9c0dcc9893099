//! Starting, resizing and retiring workers, and the memory that they take.

use cotenant_profiles::device::Mechanism;
use cotenant_profiles::{Bytes, Nanos};

use super::{Alarm, Host, INDICES, Stage, World};
use crate::action::{Event, Resize};
use crate::engine::Role;
use crate::layout::WorkerSpec;
use crate::observe::Happening;
use crate::report::Refusal;
use crate::view::{Status, Worker};

/// A resize in progress.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pending {
    pub(super) cap: u32,
    /// Memory of the shadow, released once it has taken over.
    extra: Bytes,
    pub(super) step: Step,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Restart once the batch is done.
    Restart,
    /// The shadow is loading; the worker serves on.
    Loading,
    /// The shadow has loaded: switch once the batch is done.
    Loaded,
    /// Its lane gets another size once the batches of all affected workers are done.
    Cut,
}

impl<W: World> Host<'_, W> {
    pub(super) fn add_worker(&mut self, spec: WorkerSpec, status: Status, memory: Bytes) -> u32 {
        assert!(self.workers.len() < INDICES, "workers fit an alarm's index");
        self.workers.push(Worker::new(spec, status));
        self.stages.push(Stage { memory, ..Stage::default() });
        self.workers.len() as u32 - 1
    }

    /// Device memory of a worker. A decode worker lives in the process of its engine's prefill worker and
    /// needs none of its own.
    pub(super) fn worker_memory(&self, spec: &WorkerSpec) -> Bytes {
        match spec.role {
            Role::Decode => Bytes(0),
            _ => self.setup.worker_memory(spec, self.pools[spec.pool as usize].memory),
        }
    }

    pub(super) fn take_memory(&mut self, spec: &WorkerSpec, need: Bytes) -> Result<(), Refusal> {
        let taken = &mut self.memory[spec.pool as usize];
        let (need, have) = (Bytes(taken.0 + need.0), self.pools[spec.pool as usize].memory);
        if need > have {
            let name = &self.setup.tenants[spec.tenant as usize].name;
            let who = format!("a worker of tenant `{name}`");
            return Err(Refusal::OutOfMemory { who, need, have });
        }
        *taken = need;
        Ok(())
    }

    pub(super) fn start(&mut self, spec: WorkerSpec) {
        let need = self.worker_memory(&spec);
        let tenant = spec.tenant;
        if self.take_memory(&spec, need).is_err() {
            // As on a real GPU, the process dies at its first allocation.
            let worker = self.add_worker(spec, Status::Retired, Bytes(0));
            self.tell(Event::WorkerDown { worker });
            return;
        }
        let worker = self.add_worker(spec, Status::Starting, need);
        if self.seat(worker, &spec).is_err() {
            self.retire(worker);
            return;
        }
        self.unserved[tenant as usize] = None;
        let wait = self.start_time(tenant);
        self.world.arm(self.world.now() + wait, Alarm::Up, worker);
        self.world.open(worker, &spec);
    }

    /// Process start and model load; the load is part of the process start's cost, so `ideal` zeroes
    /// both.
    fn start_time(&self, tenant: u32) -> u64 {
        let m = self.setup.costs.process_start;
        if m == Mechanism::FREE {
            return 0;
        }
        let load = self.setup.tenants[tenant as usize].model.load.0;
        self.world.charged(m.cost.0 + m.delay.0 + load)
    }

    pub(super) fn worker_up(&mut self, worker: u32) {
        let w = &self.workers[worker as usize];
        if !w.retiring && self.stages[worker as usize].resize.is_none() && self.is_moved(worker) {
            // No worker may start in a lane whose size is changing.
            self.workers[worker as usize].began = Nanos(self.world.now());
            return self.await_cut(worker);
        }
        let w = &mut self.workers[worker as usize];
        let tenant = w.spec.tenant;
        w.status = Status::Idle;
        if let Some(pending) = self.stages[worker as usize].resize.take() {
            w.spec.cap = pending.cap;
            w.resizing = false;
            self.memory[w.spec.pool as usize].0 -= pending.extra.0;
            self.serving.stood_still(tenant, w.began, Nanos(self.world.now()));
        }
        if w.retiring {
            self.retire(worker);
            return;
        }
        self.serving.reconfigured(tenant);
        self.serving.idle(tenant, worker);
        self.world.observe(Happening::WorkerUp { worker });
        self.tell(Event::WorkerUp { worker });
        self.form_batches(tenant);
    }

    pub(super) fn retire(&mut self, worker: u32) {
        let w = &mut self.workers[worker as usize];
        w.status = Status::Retired;
        w.resizing = false;
        let stage = &mut self.stages[worker as usize];
        let shadow = stage.resize.take().map_or(Bytes(0), |p| p.extra);
        let freed = std::mem::take(&mut stage.memory).0 + shadow.0;
        self.memory[w.spec.pool as usize].0 -= freed;
        self.unseat(worker);
        let w = &mut self.workers[worker as usize];
        self.serving.not_idle(w.spec.tenant, worker);
        self.world.close(worker);
        self.world.observe(Happening::WorkerDown { worker });
        let pool = self.workers[worker as usize].spec.pool;
        self.tell(Event::WorkerDown { worker });
        self.cut_if_still(pool);
    }

    /// Makes the worker pause after its current batch until its lane has its new size.
    pub(super) fn await_cut(&mut self, worker: u32) {
        let w = &mut self.workers[worker as usize];
        w.resizing = true;
        let pending = Pending { cap: w.spec.cap, extra: Bytes(0), step: Step::Cut };
        self.stages[worker as usize].resize = Some(pending);
    }

    /// Gives a worker another cap. Ignored while the worker is starting, retiring, or already being
    /// resized.
    pub(super) fn resize(&mut self, worker: u32, cap: u32, how: Resize) {
        let w = &self.workers[worker as usize];
        let spec = w.spec;
        let gone = w.retiring || matches!(w.status, Status::Starting | Status::Retired);
        if gone || self.stages[worker as usize].resize.is_some() {
            return;
        }
        let pending = match how {
            Resize::Restart => Pending { cap, extra: Bytes(0), step: Step::Restart },
            Resize::Shadow { shared_weights } => {
                let model = &self.setup.tenants[spec.tenant as usize].model;
                let weights = if shared_weights { model.weights.0 } else { 0 };
                let extra = Bytes(self.worker_memory(&spec).0 - weights);
                if self.take_memory(&spec, extra).is_err() {
                    return; // No room for a shadow: the worker stays as it is.
                }
                let delay = self.world.charged(self.setup.costs.shadow_switch.delay.0);
                let wait = self.start_time(spec.tenant) + delay;
                self.world.arm(self.world.now() + wait, Alarm::Resized, worker);
                self.world.open_shadow(worker, &WorkerSpec { cap, ..spec }, extra);
                Pending { cap, extra, step: Step::Loading }
            }
        };
        self.stages[worker as usize].resize = Some(pending);
        self.workers[worker as usize].resizing = true;
        self.take_down_if_idle(worker);
    }

    pub(super) fn resized(&mut self, worker: u32) {
        // If the worker has gone in the meantime, its shadow went with it.
        let Some(pending) = &mut self.stages[worker as usize].resize else { return };
        pending.step = Step::Loaded;
        self.take_down_if_idle(worker);
    }

    pub(super) fn resize_due(&self, worker: u32) -> bool {
        self.stages[worker as usize].resize.is_some_and(|p| p.step != Step::Loading)
    }

    pub(super) fn take_down_if_idle(&mut self, worker: u32) {
        let w = &self.workers[worker as usize];
        if w.status == Status::Idle && self.resize_due(worker) {
            self.serving.not_idle(w.spec.tenant, worker);
            if !self.keeps_cache(worker) {
                self.evacuate(worker);
            }
            self.take_down(worker);
        }
    }

    /// Whether the worker's pending change leaves its engine's sequences in place.
    pub(super) fn keeps_cache(&self, worker: u32) -> bool {
        self.stages[worker as usize].resize.is_some_and(|p| p.step == Step::Cut)
    }

    /// Takes the worker down until its replacement is up: for a whole start, or for a switch of routes.
    pub(super) fn take_down(&mut self, worker: u32) {
        let pending = self.stages[worker as usize].resize.expect("a resize is due");
        let w = &mut self.workers[worker as usize];
        w.status = Status::Starting;
        w.began = Nanos(self.world.now());
        let spec = WorkerSpec { cap: pending.cap, ..w.spec };
        self.world.observe(Happening::WorkerDown { worker });
        let wait = match pending.step {
            Step::Restart => self.start_time(spec.tenant),
            Step::Cut => return self.cut_if_still(spec.pool),
            Step::Loading | Step::Loaded => {
                self.world.charged(self.setup.costs.shadow_switch.cost.0)
            }
        };
        self.world.arm(self.world.now() + wait, Alarm::Up, worker);
        self.world.open(worker, &spec);
    }

    /// A shadow was lost before it could take over: its worker stays as it is.
    pub(super) fn forget_shadow(&mut self, worker: u32) {
        let w = &mut self.workers[worker as usize];
        let stage = &mut self.stages[worker as usize];
        if let Some(pending) = stage.resize.take_if(|p| p.step == Step::Loading) {
            self.memory[w.spec.pool as usize].0 -= pending.extra.0;
            w.resizing = false;
        }
    }
}
