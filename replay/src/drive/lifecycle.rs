//! Workers that come, change and go.
//!
//! What starting a process and loading a model cost is kept, in real time, beside an emulated
//! device; elsewhere opening the worker takes what it takes.

use cotenant_profiles::device::Mechanism;
use cotenant_profiles::{Bytes, Nanos};
use cotenant_sim::action::{Event, Resize};
use cotenant_sim::layout::WorkerSpec;
use cotenant_sim::observe::Happening;
use cotenant_sim::view::Status;

use super::driver::Driver;
use super::timers::Timer;
use crate::error::DeviceError;

/// A resize under way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pending {
    cap: u32,
    /// Memory of the shadow, given back when it has taken over.
    extra: u64,
    step: Step,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// Restart once the batch is done.
    Restart,
    /// The shadow is loading; the worker serves on.
    Loading,
    /// The shadow has loaded: switch once the batch is done.
    Loaded,
}

impl Driver<'_> {
    pub(super) fn start(&mut self, spec: WorkerSpec) -> Result<(), DeviceError> {
        let (need, tenant) = (self.setup.worker_memory(&spec).0, spec.tenant);
        if self.take_memory(&spec, need).is_err() {
            // Refused as on a real GPU: the process dies at its first allocation.
            let worker = self.add_worker(spec, Status::Retired, 0);
            return self.tell(Event::WorkerDown { worker });
        }
        let worker = self.add_worker(spec, Status::Starting, need);
        self.unserved[tenant as usize] = None;
        let wait = self.start_time(spec.tenant);
        self.timers.set(self.now + wait, Timer::Up(worker));
        self.gpu.open(worker, &spec)?;
        self.warm(worker, &spec)
    }

    /// Process start and model load; the load is part of the process start's cost, so `ideal` zeroes
    /// both.
    fn start_time(&self, tenant: u32) -> u64 {
        let m = self.setup.costs.process_start;
        if m == Mechanism::FREE || !self.kept {
            return 0;
        }
        m.cost.0 + m.delay.0 + self.setup.tenants[tenant as usize].model.load.0
    }

    /// Whether a worker has loaded; if not, `timer` comes again a little later.
    fn loaded(&mut self, worker: u32, timer: Timer) -> bool {
        /// Short against what loading takes anywhere.
        const AGAIN: u64 = 100_000;
        let up = self.gpu.is_up(worker);
        if !up {
            self.timers.set(self.now + AGAIN, timer);
        }
        up
    }

    /// A shadow has gone before it could take over: its worker stays as it is.
    pub(super) fn forget_resize(&mut self, worker: u32) {
        let w = &mut self.workers[worker as usize];
        let stage = &mut self.stages[worker as usize];
        if let Some(pending) = stage.resize.take_if(|p| p.step == Step::Loading) {
            self.memory[w.spec.pool as usize] -= pending.extra;
            w.resizing = false;
        }
    }

    pub(super) fn worker_up(&mut self, worker: u32) -> Result<(), DeviceError> {
        if !self.loaded(worker, Timer::Up(worker)) {
            return Ok(());
        }
        let w = &mut self.workers[worker as usize];
        let tenant = w.spec.tenant;
        w.status = Status::Idle;
        if w.retiring {
            return self.retire(worker);
        }
        self.serving.reconfigured(tenant);
        if let Some(pending) = self.stages[worker as usize].resize.take() {
            w.spec.cap = pending.cap;
            w.resizing = false;
            self.memory[w.spec.pool as usize] -= pending.extra;
            self.serving.stood_still(tenant, w.began, Nanos(self.now));
        }
        self.serving.idle(tenant, worker);
        self.observe(Happening::WorkerUp { worker });
        self.tell(Event::WorkerUp { worker })?;
        self.form_batches(tenant)
    }

    pub(super) fn retire_when_idle(&mut self, worker: u32) -> Result<(), DeviceError> {
        let w = &mut self.workers[worker as usize];
        w.retiring = true;
        if w.status == Status::Idle { self.retire(worker) } else { Ok(()) }
    }

    pub(super) fn retire(&mut self, worker: u32) -> Result<(), DeviceError> {
        let w = &mut self.workers[worker as usize];
        w.status = Status::Retired;
        w.resizing = false;
        let stage = &mut self.stages[worker as usize];
        let shadow = stage.resize.take().map_or(0, |p| p.extra);
        self.memory[w.spec.pool as usize] -= std::mem::take(&mut stage.memory) + shadow;
        self.serving.not_idle(w.spec.tenant, worker);
        self.gpu.close(worker)?;
        self.observe(Happening::WorkerDown { worker });
        self.tell(Event::WorkerDown { worker })
    }

    /// Ignored while the worker starts, goes, or is being resized already.
    pub(super) fn resize(&mut self, worker: u32, cap: u32, how: Resize) -> Result<(), DeviceError> {
        let w = &self.workers[worker as usize];
        let spec = w.spec;
        let gone = w.retiring || matches!(w.status, Status::Starting | Status::Retired);
        if gone || self.stages[worker as usize].resize.is_some() {
            return Ok(());
        }
        let pending = match how {
            Resize::Restart => Pending { cap, extra: 0, step: Step::Restart },
            Resize::Shadow { shared_weights } => {
                let model = &self.setup.tenants[spec.tenant as usize].model;
                let weights = if shared_weights { model.weights.0 } else { 0 };
                let extra = self.setup.worker_memory(&spec).0 - weights;
                if self.take_memory(&spec, extra).is_err() {
                    return Ok(()); // No room for a shadow: the worker stays as it is.
                }
                let wait = self.start_time(spec.tenant);
                self.timers.set(self.now + wait, Timer::Shadow(worker));
                self.gpu.open_shadow(worker, &WorkerSpec { cap, ..spec }, Bytes(extra))?;
                Pending { cap, extra, step: Step::Loading }
            }
        };
        self.stages[worker as usize].resize = Some(pending);
        self.workers[worker as usize].resizing = true;
        self.take_down_if_idle(worker)
    }

    pub(super) fn shadow_loaded(&mut self, worker: u32) -> Result<(), DeviceError> {
        if self.stages[worker as usize].resize.is_some()
            && !self.loaded(worker, Timer::Shadow(worker))
        {
            return Ok(());
        }
        // A worker that went meanwhile took its shadow along.
        let Some(pending) = &mut self.stages[worker as usize].resize else { return Ok(()) };
        pending.step = Step::Loaded;
        self.take_down_if_idle(worker)
    }

    pub(super) fn resize_due(&self, worker: u32) -> bool {
        self.stages[worker as usize].resize.is_some_and(|p| p.step != Step::Loading)
    }

    fn take_down_if_idle(&mut self, worker: u32) -> Result<(), DeviceError> {
        let w = &self.workers[worker as usize];
        if w.status != Status::Idle || !self.resize_due(worker) {
            return Ok(());
        }
        self.serving.not_idle(w.spec.tenant, worker);
        self.take_down(worker)
    }

    /// The worker stands still until its new self is up: a whole start, or a switch of routes.
    pub(super) fn take_down(&mut self, worker: u32) -> Result<(), DeviceError> {
        let pending = self.stages[worker as usize].resize.expect("a resize is due");
        let w = &mut self.workers[worker as usize];
        w.status = Status::Starting;
        w.began = Nanos(self.now);
        let spec = WorkerSpec { cap: pending.cap, ..w.spec };
        let wait = match pending.step {
            Step::Restart => self.start_time(spec.tenant),
            _ if self.kept => self.setup.costs.shadow_switch.cost.0,
            _ => 0,
        };
        self.observe(Happening::WorkerDown { worker });
        self.timers.set(self.now + wait, Timer::Up(worker));
        self.gpu.open(worker, &spec)?;
        self.warm(worker, &spec)
    }
}
