//! Requests arrive, form batches, and are answered.

use cotenant_profiles::{Bytes, Nanos};
use cotenant_traces::Request;

use super::{Alarm, Host, LOADED, Pass, Phase, World};
use crate::action::{Closes, Event};
use crate::layout::Host as Issuer;
use crate::observe::Happening;
use crate::policy::Depth;
use crate::serving::{Due, Finished, RequestId, Taken};
use crate::view::{Execution, Status};

impl<W: World> Host<'_, W> {
    /// Handles an open-loop arrival.
    pub(super) fn arrival(&mut self, tenant: u32) {
        let at = Nanos(self.world.due());
        let (request, next) = self.sources[tenant as usize].arrive(at);
        self.world.next_arrival(next.map(|at| at.0), tenant);
        self.admit(tenant, &request);
    }

    /// Handles a closed-loop client's next request.
    pub(super) fn client(&mut self, tenant: u32) {
        let at = Nanos(self.world.due());
        let (request, _) = self.sources[tenant as usize].arrive(at);
        self.admit(tenant, &request);
    }

    pub(super) fn admit(&mut self, tenant: u32, request: &Request) {
        self.serving.admit(tenant, request);
        self.cut |= self.serving.all_in_system() > self.most;
        self.world.observe(Happening::Arrived { tenant });
        if self.generates(tenant) && self.refuse_too_long(tenant) {
            return;
        }
        self.give_up_late(tenant);
        if self.depth_of(tenant) >= Depth::Request {
            self.tell(Event::RequestArrived { tenant });
        }
        self.give_up_unserved(tenant);
        self.form_batches(tenant);
    }

    /// The depth at which the policy controls a tenant.
    #[inline]
    pub(super) fn depth_of(&self, tenant: u32) -> Depth {
        self.depths[tenant as usize]
    }

    /// A closed-loop client has received its answer, or will receive none, and sends its next request.
    pub(super) fn again(&mut self, tenant: u32) {
        self.again_after(tenant, Nanos::ZERO);
    }

    /// Like [`Self::again`], but no earlier than `at`.
    fn again_after(&mut self, tenant: u32, at: Nanos) {
        let from = Nanos(self.world.now()).max(at);
        if let Some(at) = self.sources[tenant as usize].again(from) {
            self.world.arm(at.0, Alarm::Client, tenant);
        }
    }

    /// Gives up a tenant's queued requests that can no longer be answered in time.
    #[inline]
    pub(super) fn give_up_late(&mut self, tenant: u32) {
        while let Some(expired) = self.serving.expire(tenant, Nanos(self.world.now())) {
            self.world.observe(Happening::Dropped { tenant });
            // The client waits until its limit has passed before it asks again. Otherwise a client that no
            // worker can serve in time would ask forever.
            self.again_after(tenant, expired.limit);
        }
        if let Some(at) = self.serving.next_look(tenant) {
            self.world.arm(at.0, Alarm::Batch, tenant);
        }
    }

    /// Starts the batches that are due, unless the policy starts batches itself.
    pub(super) fn form_batches(&mut self, tenant: u32) {
        self.form(tenant, false);
    }

    /// As [`Self::form_batches`]. `settled`: everything else at this instant has already happened.
    pub(super) fn form(&mut self, tenant: u32, settled: bool) {
        if self.policy_batches {
            return;
        }
        if self.generates(tenant) {
            return self.form_steps(tenant);
        }
        loop {
            match self.serving.due(tenant, Nanos(self.world.now()), settled) {
                Due::Batch { worker } => {
                    let items = self.serving.views()[tenant as usize].batch_max;
                    self.begin(worker, items);
                }
                Due::WakeAt(at) => return self.world.arm(at.0, Alarm::Batch, tenant),
                Due::Nothing => return,
            }
        }
    }

    /// Takes up to `max` items off the queue and starts them on a worker that was idle.
    pub(super) fn begin(&mut self, worker: u32, max: u32) {
        let tenant = self.workers[worker as usize].spec.tenant;
        if self.generates(tenant) {
            return self.dispatch_step(worker, max, &[]);
        }
        let batch = &mut self.stages[worker as usize].batch;
        let taken = self.serving.take(tenant, max, Nanos(self.world.now()), batch);
        self.begin_batch(worker, &taken);
    }

    /// Takes these requests off the queue and starts them on a worker that was idle.
    pub(super) fn begin_chosen(&mut self, worker: u32, chosen: &[RequestId]) {
        let tenant = self.workers[worker as usize].spec.tenant;
        if self.generates(tenant) {
            return self.dispatch_step(worker, u32::MAX, chosen);
        }
        let batch = &mut self.stages[worker as usize].batch;
        let taken = self.serving.take_chosen(tenant, chosen, Nanos(self.world.now()), batch);
        self.begin_batch(worker, &taken);
    }

    #[inline]
    fn begin_batch(&mut self, worker: u32, taken: &Taken) {
        let now = Nanos(self.world.now());
        let w = &mut self.workers[worker as usize];
        let stage = &mut self.stages[worker as usize];
        let tenant = w.spec.tenant;
        let model = &self.setup.tenants[tenant as usize].model;
        let largest = model.max_items();
        stage.passes = taken.items.div_ceil(largest);
        stage.program = model.program_for[taken.items.min(largest) as usize];
        (stage.first, stage.count) = self.programs.span(tenant, stage.program);
        (stage.work, stage.ordinal) = (f64::from(taken.work), taken.ordinal);
        w.status = Status::Host;
        (w.items, w.position) = (taken.items, 0);
        (w.began, w.deadline) = (now, taken.deadline);
        let prepare = model.host_per_request.0 * u64::from(taken.requests);
        self.world.observe(Happening::BatchBegan { worker, items: taken.items });
        let prepare = self.world.charged(prepare);
        if prepare > 0 {
            self.world.arm(now.0 + prepare, Alarm::Prepared, worker);
        } else {
            self.prepared_at(worker, now.0);
        }
    }

    /// The host has finished preparing the batch.
    pub(super) fn prepared(&mut self, worker: u32) {
        let at = self.world.due();
        self.prepared_at(worker, at);
    }

    /// The host has had the batch ready since `at`; it now issues the copy and the kernels.
    pub(super) fn prepared_at(&mut self, worker: u32, at: u64) {
        self.stages[worker as usize].base = at;
        let tenant = self.workers[worker as usize].spec.tenant;
        if self.depth_of(tenant) == Depth::Kernel {
            self.copy_in(worker);
        } else {
            self.pass(worker, true);
        }
    }

    /// Hands the world one pass over the model, which runs without asking the policy in between.
    fn pass(&mut self, worker: u32, first: bool) {
        let w = &mut self.workers[worker as usize];
        let ahead = self.pools[w.spec.pool as usize].host == Issuer::Own;
        w.status = Status::Launched;
        let model = &self.setup.tenants[w.spec.tenant as usize].model;
        let items = u64::from(w.items);
        let stage = &mut self.stages[worker as usize];
        stage.phase = Phase::Pass;
        let last = stage.passes == 1;
        let pass = Pass {
            worker,
            program: stage.program,
            base: stage.base,
            ahead,
            input: Bytes(if first { model.input_per_item.0 * items } else { 0 }),
            output: Bytes(if last { model.output_per_item.0 * items } else { 0 }),
            first,
            last,
            work: stage.work,
            ordinal: stage.ordinal,
        };
        if !ahead {
            stage.issued = 0;
            let at = stage.base;
            self.dispatch_next(worker, at);
        }
        self.world.run(&pass);
    }

    /// A pass over the model has ended.
    pub(super) fn pass_done(&mut self, worker: u32) {
        let stage = &mut self.stages[worker as usize];
        stage.passes -= 1;
        if stage.passes == 0 {
            return self.batch_done(worker);
        }
        stage.base = self.world.due();
        self.pass(worker, false);
    }

    /// The batch's results are back on the host.
    pub(super) fn batch_done(&mut self, worker: u32) {
        if self.stages[worker as usize].program == LOADED {
            return self.step_done(worker);
        }
        let now = Nanos(self.world.now());
        let w = &self.workers[worker as usize];
        let (tenant, items, began) = (w.spec.tenant, w.items, w.began);
        let took = now.since(began);
        self.stages[worker as usize].phase = Phase::Nothing;
        self.serving.batch_ended(tenant, items, Execution { began, took });
        self.world.observe(Happening::BatchEnded { worker, items });
        let mut batch = std::mem::take(&mut self.stages[worker as usize].batch);
        for id in batch.drain(..) {
            self.request_done(id, worker);
        }
        self.stages[worker as usize].batch = batch;
        // Not earlier: a policy that is told about a request must not see its worker as idle before it is.
        let w = &mut self.workers[worker as usize];
        (w.status, w.deadline, w.position) = (Status::Idle, Nanos::MAX, 0);
        if w.retiring {
            self.retire(worker);
        } else if self.resize_due(worker) {
            self.take_down(worker);
        } else {
            self.serving.idle(tenant, worker);
        }
        if self.depth_of(tenant) >= Depth::Request {
            self.tell(Event::BatchDone { worker, items, took });
            self.close_window(tenant, Closes::WithBatch);
        }
        self.form_batches(tenant);
    }

    fn request_done(&mut self, id: RequestId, worker: u32) {
        let done = self.serving.finish(id, Nanos(self.world.now()));
        self.tell_done(done, worker);
    }

    /// Tells the client, the observer and the policy that a request has its result.
    pub(super) fn tell_done(&mut self, done: Finished, worker: u32) {
        let tenant = done.tenant;
        self.again(tenant);
        self.world.observe(Happening::RequestDone { tenant, arrival: done.arrival });
        if self.depth_of(tenant) >= Depth::Request {
            let (latency, queued) = (done.latency, done.queued);
            self.tell(Event::RequestDone { tenant, worker, latency, queued });
        }
    }
}
