//! Requests arrive, form batches, and are answered.

use cotenant_profiles::Nanos;
use cotenant_traces::Request;

use super::site::Copy;
use super::{Engine, Kind};
use crate::action::Event;
use crate::observe::Happening;
use crate::policy::Depth;
use crate::serving::{Due, RequestId};
use crate::view::Status;

impl Engine<'_> {
    /// An open-loop arrival; the first of the timers becomes the tenant's next one.
    pub(super) fn arrival(&mut self, tenant: u32) {
        let (request, next) = self.sources[tenant as usize].arrive(Nanos(self.now));
        self.timers.replace_first(next.map(|at| at.0), Kind::Arrival, tenant);
        self.admit(tenant, &request);
    }

    pub(super) fn closed_arrival(&mut self, tenant: u32) {
        let (request, _) = self.sources[tenant as usize].arrive(Nanos(self.now));
        self.admit(tenant, &request);
    }

    fn admit(&mut self, tenant: u32, request: &Request) {
        self.serving.admit(tenant, request);
        self.observe(Happening::Arrived { tenant });
        if self.depth >= Depth::Request {
            self.tell(Event::RequestArrived { tenant });
        }
        self.form_batches(tenant);
    }

    /// Starts what batches are due, unless the policy does.
    pub(super) fn form_batches(&mut self, tenant: u32) {
        if self.policy_batches {
            return;
        }
        loop {
            match self.serving.due(tenant, Nanos(self.now)) {
                Due::Batch { worker } => {
                    let items = self.serving.views()[tenant as usize].batch_max;
                    self.begin(worker, items);
                }
                Due::WakeAt(at) => return self.arm(at.0, Kind::Batch, tenant),
                Due::Nothing => return,
            }
        }
    }

    /// Takes up to `max` items off the queue and starts them on an idle worker.
    pub(super) fn begin(&mut self, worker: u32, max: u32) {
        let w = &mut self.workers[worker as usize];
        let stage = &mut self.stages[worker as usize];
        let t = w.spec.tenant;
        let taken = self.serving.take(t, max, Nanos(self.now), &mut stage.batch);
        let model = &self.setup.tenants[t as usize].model;
        let largest = model.max_items();
        stage.passes = taken.items.div_ceil(largest);
        let program = model.program_for[taken.items.min(largest) as usize];
        (stage.first, stage.count) = self.programs[t as usize][program as usize];
        stage.scale = f64::from(taken.work);
        stage.ordinal = taken.ordinal;
        w.status = Status::Host;
        (w.items, w.position) = (taken.items, 0);
        (w.began, w.deadline) = (Nanos(self.now), taken.deadline);
        let prepare = model.host_per_request.0 * u64::from(taken.requests);
        self.observe(Happening::BatchBegan { worker, items: taken.items });
        if prepare > 0 {
            self.arm(self.now + prepare, Kind::Prepared, worker);
        } else {
            self.prepared(worker);
        }
    }

    /// The host has the batch ready and begins to issue its copy and its kernels.
    pub(super) fn prepared(&mut self, worker: u32) {
        self.stages[worker as usize].host_base = self.now;
        self.begin_pass(worker);
        let per_item = self.model_of(worker).input_per_item.0;
        match self.copy(worker, Copy::In, per_item) {
            Some(done) => self.arm(done, Kind::CopiedIn, worker),
            None => self.copied_in(worker),
        }
    }

    pub(super) fn copied_in(&mut self, worker: u32) {
        let spec = &self.workers[worker as usize].spec;
        self.sites[spec.pool as usize].pool.batch(spec.lane, true);
        self.head(worker);
    }

    /// The last kernel of the batch has ended.
    pub(super) fn kernels_done(&mut self, worker: u32) {
        let w = &mut self.workers[worker as usize];
        w.status = Status::Host;
        self.sites[w.spec.pool as usize].pool.batch(w.spec.lane, false);
        let per_item = self.model_of(worker).output_per_item.0;
        match self.copy(worker, Copy::Out, per_item) {
            Some(done) => self.arm(done, Kind::CopiedOut, worker),
            None => self.batch_done(worker),
        }
    }

    fn model_of(&self, worker: u32) -> &crate::program::ModelCode {
        &self.setup.tenants[self.workers[worker as usize].spec.tenant as usize].model
    }

    fn copy(&mut self, worker: u32, way: Copy, per_item: u64) -> Option<u64> {
        let w = &self.workers[worker as usize];
        let bytes = per_item * u64::from(w.items);
        let site = &mut self.sites[w.spec.pool as usize];
        site.copy(self.now, &self.setup.device.pcie, way, bytes)
    }

    pub(super) fn batch_done(&mut self, worker: u32) {
        let w = &self.workers[worker as usize];
        let (tenant, items, took) = (w.spec.tenant, w.items, Nanos(self.now).since(w.began));
        self.serving.batch_ended(tenant, items);
        self.observe(Happening::BatchEnded { worker, items });
        let mut batch = std::mem::take(&mut self.stages[worker as usize].batch);
        for id in batch.drain(..) {
            self.request_done(id, worker);
        }
        self.stages[worker as usize].batch = batch;
        // Only now: a policy that is told of a request must not find its worker idle before it is.
        let w = &mut self.workers[worker as usize];
        (w.status, w.deadline) = (Status::Idle, Nanos::MAX);
        if w.retiring {
            self.retire(worker);
        } else if self.resize_due(worker) {
            self.take_down(worker);
        } else {
            self.serving.idle(tenant, worker);
        }
        if self.depth >= Depth::Request {
            self.tell(Event::BatchDone { worker, items, took });
        }
        self.form_batches(tenant);
    }

    fn request_done(&mut self, id: RequestId, worker: u32) {
        let done = self.serving.finish(id, Nanos(self.now));
        let tenant = done.tenant;
        self.again(tenant);
        self.observe(Happening::RequestDone { tenant, arrival: done.arrival });
        if self.depth >= Depth::Request {
            let (latency, queued) = (done.latency, done.queued);
            self.tell(Event::RequestDone { tenant, worker, latency, queued });
        }
    }

    /// A closed-loop client has its answer and asks again.
    pub(super) fn again(&mut self, tenant: u32) {
        if let Some(at) = self.sources[tenant as usize].again(Nanos(self.now)) {
            self.arm(at.0, Kind::Closed, tenant);
        }
    }
}
