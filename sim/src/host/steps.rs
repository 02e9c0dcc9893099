//! Generating workers: their batches are the successive steps of an engine.
//!
//! A step is a batch of kernels like any other: it is prepared, handed to the world or launched kernel by
//! kernel, and ends. It differs in where it comes from and what its end means. An engine
//! ([`crate::engine`]) composes it from running sequences and from the tenant's queue. When it has ended,
//! some requests have one more token, and for a few of them it was the last one.

use cotenant_profiles::{Bytes, Nanos};

use super::{Alarm, Host, LOADED, Phase, World};
use crate::action::{Closes, Event};
use crate::engine::{Engine, Role};
use crate::layout::WorkerSpec;
use crate::observe::Happening;
use crate::policy::{Depth, LayoutError};
use crate::program::{Program, Shape};
use crate::report::Refusal;
use crate::serving::RequestId;
use crate::view::{Execution, Status};
use std::sync::Arc;

/// The reason for dropping a request whose tokens can never fit into the cache or the model's context.
const TOO_LONG: &str = "too-long";

/// The engine that a worker belongs to, and its role there.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seat {
    engine: u32,
    role: Role,
    /// When its last step began; `None` unless the next step follows immediately.
    began: Option<Nanos>,
}

impl<W: World> Host<'_, W> {
    /// Whether a tenant's requests are answered token by token.
    #[inline]
    pub(super) fn generates(&self, tenant: u32) -> bool {
        self.setup.tenants[tenant as usize].generates.is_some()
    }

    /// Gives a worker of a generating tenant its own engine, or, for a prefill or decode worker, joins it
    /// to the engine of its other half.
    pub(super) fn seat(&mut self, worker: u32, spec: &WorkerSpec) -> Result<(), Refusal> {
        self.seats.resize(self.workers.len(), None);
        let Some(generates) = &self.setup.tenants[spec.tenant as usize].generates else {
            return Ok(());
        };
        let half = |w: &u32| {
            let other = &self.workers[*w as usize].spec;
            let alone = |e| self.seats.iter().flatten().filter(|s| s.engine == e).count() == 1;
            other.tenant == spec.tenant
                && other.role != spec.role
                && self.engine_of(*w).is_some_and(alone)
        };
        let other = (0..worker).find(half).filter(|_| spec.role != Role::Whole);
        let engine = match other.and_then(|w| self.engine_of(w)) {
            Some(engine) => engine,
            // The policy would wait for a step that itself waits for memory that other engines hold.
            _ if generates.rules.elastic.is_some() && self.policy_batches => {
                return Err(Refusal::Layout(LayoutError(format!(
                    "the cache of `{}` is elastic, and a policy that starts every step itself cannot \
                     wait for its memory: give it `kv_memory` without `elastic`, or take a policy that \
                     leaves steps to the engine",
                    self.setup.tenants[spec.tenant as usize].name
                ))));
            }
            _ => {
                let total = self.pools[spec.pool as usize].memory;
                let (blocks, most, mapped) = self.cache_of(spec, &generates.rules);
                if most == 0 {
                    let tenant = &self.setup.tenants[spec.tenant as usize];
                    let model = tenant.model.memory().0 + spec.overhead.0;
                    return Err(Refusal::NoCache {
                        who: format!("the engine of tenant `{}`", tenant.name),
                        have: Bytes(model + self.setup.kv_memory(spec, total).0),
                        model: Bytes(model),
                    });
                }
                self.engines.push(Engine::new(generates.rules, blocks));
                self.mapped.push(mapped);
                let now = Nanos(self.world.now());
                self.serving.cache(spec.tenant, now, (0, 0), (0, blocks));
                self.engines.len() as u32 - 1
            }
        };
        let seat = Seat { engine, role: spec.role, began: None };
        self.seats[worker as usize] = Some(seat);
        Ok(())
    }

    /// Blocks of an engine's cache: in use, and in all.
    fn cache(&self, engine: u32) -> (u32, u32) {
        let kv = self.engines[engine as usize].kv();
        (kv.used(), kv.blocks())
    }

    fn engine_of(&self, worker: u32) -> Option<u32> {
        self.seats.get(worker as usize)?.as_ref().map(|s| s.engine)
    }

    /// Drops the request that has just joined its tenant's queue if no engine can ever hold it. Returns
    /// whether it did.
    pub(super) fn refuse_too_long(&mut self, tenant: u32) -> bool {
        let mut longest = None;
        for (seat, w) in self.seats.iter().zip(&self.workers) {
            if let Some(seat) = seat
                && w.spec.tenant == tenant
                && w.status != Status::Retired
            {
                let blocks = self.most_blocks(seat.engine);
                longest = longest.max(Some(self.engines[seat.engine as usize].longest(blocks)));
            }
        }
        let Some((longest, id)) = longest.zip(self.serving.newest(tenant)) else { return false };
        let s = self.serving.sequence(id);
        let refused = u64::from(s.prompt) + u64::from(s.output) > longest;
        if refused {
            self.serving.drop(id, TOO_LONG);
            self.world.observe(Happening::Dropped { tenant });
            self.again(tenant);
        }
        refused
    }

    /// Starts steps on idle workers that have work, unless the policy starts steps itself.
    pub(super) fn form_steps(&mut self, tenant: u32) {
        if self.policy_batches {
            return;
        }
        // Requests that cannot be admitted now are tried again at the end of a step.
        let mut idle = std::mem::take(&mut self.idle);
        idle.extend(self.serving.idle_workers(tenant).iter().rev());
        for worker in idle.drain(..) {
            let queued = self.serving.in_queue(tenant) > 0;
            if self.workers[worker as usize].status == Status::Idle && self.has_work(worker, queued)
            {
                self.serving.not_idle(tenant, worker);
                self.begin_step(worker, u32::MAX);
            }
        }
        self.idle = idle;
    }

    fn has_work(&self, worker: u32, queued: bool) -> bool {
        let Some(seat) = self.seats[worker as usize] else { return false };
        let engine = &self.engines[seat.engine as usize];
        engine.has_work(seat.role)
            || queued && seat.role != Role::Decode && !self.workers[worker as usize].retiring
    }

    /// Starts a step on an idle worker at the policy's request. The worker stays idle if it has no work.
    pub(super) fn dispatch_step(&mut self, worker: u32, most: u32, chosen: &[RequestId]) {
        let tenant = self.workers[worker as usize].spec.tenant;
        let now = Nanos(self.world.now());
        let seat = self.seats[worker as usize].expect("a generating worker has an engine");
        if !chosen.is_empty() {
            let serving = &mut self.serving;
            let chosen: Vec<_> = chosen.iter().map(|&id| serving.chosen(tenant, id, now)).collect();
            self.engines[seat.engine as usize].choose(chosen.into_iter());
        }
        self.begin_step(worker, most);
    }

    /// Plans and starts a worker's next step. A worker without work becomes idle again.
    fn begin_step(&mut self, worker: u32, most: u32) {
        let now = Nanos(self.world.now());
        let tenant = self.workers[worker as usize].spec.tenant;
        let mut seat = self.seats[worker as usize].expect("a generating worker has an engine");
        let before = self.cache(seat.engine);
        self.lend(seat.engine);
        self.show_held(worker, 0);
        let mut queue = self.serving.waiting(tenant, now, true);
        let engine = &mut self.engines[seat.engine as usize];
        let planned = engine.plan(seat.role, most, &mut queue);
        let mapping = self.map(seat.engine);
        let after = self.cache(seat.engine);
        let engine = &self.engines[seat.engine as usize];
        let overhead = engine.rules().scheduler_overhead.0 + mapping.0;
        let hidden = engine.rules().async_scheduling;
        self.serving.cache(tenant, now, before, after);
        let Some(step) = planned else {
            self.hold(worker);
            self.serving.idle(tenant, worker);
            return;
        };
        self.serving.step_begins(tenant, &step);
        // Planning that overlapped with the last step costs no time of its own.
        let ran = seat.began.filter(|_| hidden).map_or(0, |began| now.0 - began.0);
        seat.began = Some(now);
        self.seats[worker as usize] = Some(seat);
        self.load_step(worker, &step.shape);
        let deadline = match self.depths[tenant as usize] {
            Depth::Layout => Nanos::MAX,
            _ => {
                let due = self.engines[seat.engine as usize].in_step(seat.role);
                due.map(|id| self.serving.token_due(id)).min().unwrap_or(Nanos::MAX)
            }
        };
        let w = &mut self.workers[worker as usize];
        w.status = Status::Host;
        (w.items, w.position) = (step.shape.sequences(), 0);
        (w.began, w.deadline) = (now, deadline);
        self.world.observe(Happening::BatchBegan { worker, items: step.shape.sequences() });
        let prepare = self.world.charged(overhead.saturating_sub(ran));
        if prepare > 0 {
            self.world.arm(now.0 + prepare, Alarm::Prepared, worker);
        } else {
            self.prepared_at(worker, now.0);
        }
    }

    /// Loads the launches of a step into host and world.
    fn load_step(&mut self, worker: u32, shape: &Shape) {
        let setup = Arc::clone(&self.setup);
        let tenant = self.workers[worker as usize].spec.tenant;
        let generates = setup.tenants[tenant as usize].generates.as_ref();
        let mut steps = std::mem::take(&mut self.composed);
        generates.expect("it has an engine").steps.compose(shape, &mut steps);
        let stage = &mut self.stages[worker as usize];
        (stage.first, stage.count) = self.programs.load(worker, &steps);
        (stage.program, stage.passes) = (LOADED, 1);
        (stage.work, stage.ordinal) = (1.0, self.serving.views()[tenant as usize].arrived);
        self.world.load(worker, &steps);
        if self.depths[tenant as usize] == Depth::Kernel {
            let program = Program::of_steps(&steps, &setup.code, setup.device.cus());
            self.workers[worker as usize].step = Some(Arc::new(program));
        }
        self.composed = steps;
    }

    /// A step has ended and has produced tokens.
    pub(super) fn step_done(&mut self, worker: u32) {
        let now = Nanos(self.world.now());
        let w = &self.workers[worker as usize];
        let (tenant, items, began) = (w.spec.tenant, w.items, w.began);
        let took = now.since(began);
        self.stages[worker as usize].phase = Phase::Nothing;
        self.serving.batch_ended(tenant, items, Execution { began, took });
        self.world.observe(Happening::BatchEnded { worker, items });
        let seat = self.seats[worker as usize].expect("a generating worker has an engine");
        let before = self.cache(seat.engine);
        let mut done = std::mem::take(&mut self.answered);
        let serving = &mut self.serving;
        self.engines[seat.engine as usize].ended(seat.role, |emitted| {
            serving.token(emitted.id, now);
            if emitted.last {
                done.push(emitted.id);
            }
        });
        self.map(seat.engine);
        let after = self.cache(seat.engine);
        self.serving.cache(tenant, now, before, after);
        for id in done.drain(..) {
            self.generated(id, worker);
        }
        self.answered = done;
        let w = &mut self.workers[worker as usize];
        (w.status, w.deadline, w.position, w.step) = (Status::Idle, Nanos::MAX, 0, None);
        if w.retiring {
            self.retire(worker);
        } else if self.resize_due(worker) {
            if self.keeps_cache(worker) {
                self.hold(worker);
            } else {
                self.evacuate(worker);
            }
            self.take_down(worker);
        } else {
            self.hold(worker);
            self.serving.idle(tenant, worker);
        }
        if self.depths[tenant as usize] >= Depth::Request {
            self.tell(Event::BatchDone { worker, items, took });
            self.close_window(tenant, Closes::WithBatch);
        }
        self.form_steps(tenant);
        // A step that does not follow immediately has to be planned while the GPU waits.
        if matches!(self.workers[worker as usize].status, Status::Idle | Status::Starting)
            && let Some(seat) = &mut self.seats[worker as usize]
        {
            seat.began = None;
        }
    }

    /// Counts the sequences of an idle worker as waiting for its next step, where the policy starts steps.
    fn hold(&mut self, worker: u32) {
        let Some(seat) = self.seats[worker as usize] else { return };
        let held = match self.policy_batches && seat.role != Role::Decode {
            true => self.engines[seat.engine as usize].len() as u32,
            false => 0,
        };
        self.show_held(worker, held);
    }

    /// Counts `held` sequences of a worker among the requests that wait for the tenant's workers.
    fn show_held(&mut self, worker: u32, held: u32) {
        let w = &mut self.workers[worker as usize];
        let before = std::mem::replace(&mut w.sequences, held);
        self.serving.hold(w.spec.tenant, before, held);
    }

    fn generated(&mut self, id: RequestId, worker: u32) {
        let done = self.serving.finish_generated(id, Nanos(self.world.now()));
        self.tell_done(done, worker);
    }

    /// Stops a worker's engine: its sequences return to the queue, for the next worker that serves them.
    pub(super) fn evacuate(&mut self, worker: u32) {
        let ids = self.abandon(worker);
        ids.into_iter().rev().for_each(|id| self.serving.requeue(id));
    }

    /// Empties a worker's engine, for instance when the worker is lost. Returns the requests that it held.
    pub(super) fn abandon(&mut self, worker: u32) -> Vec<RequestId> {
        let Some(Some(seat)) = self.seats.get(worker as usize).copied() else { return vec![] };
        let (now, tenant) = (Nanos(self.world.now()), self.workers[worker as usize].spec.tenant);
        self.show_held(worker, 0);
        self.seats[worker as usize] = Some(Seat { began: None, ..seat });
        let was = self.cache(seat.engine);
        let ids = self.engines[seat.engine as usize].evacuate();
        self.map(seat.engine);
        let is = self.cache(seat.engine);
        self.serving.cache(tenant, now, was, is);
        ids
    }

    /// Removes a worker that has gone for good from its engine. The cache of an engine with no worker left
    /// is released.
    pub(super) fn unseat(&mut self, worker: u32) {
        self.evacuate(worker);
        let Some(Some(seat)) = self.seats.get(worker as usize).copied() else { return };
        let tenant = self.workers[worker as usize].spec.tenant;
        self.seats[worker as usize] = None;
        if !self.seats.iter().flatten().any(|s| s.engine == seat.engine) {
            let was = self.cache(seat.engine);
            self.serving.cache(tenant, Nanos(self.world.now()), was, (0, 0));
        }
    }
}
