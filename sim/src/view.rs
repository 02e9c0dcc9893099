//! What a policy may see. The host keeps these tables and hands them out read-only.

use std::sync::Arc;

use cotenant_profiles::Nanos;

use crate::action::{Action, RequestId};
use crate::layout::{PoolSpec, WorkerSpec};
use crate::program::Program;
use crate::scenario::Setup;

/// The world as a policy sees it.
#[derive(Clone, Copy)]
pub struct View<'a> {
    /// Now.
    pub now: Nanos,
    /// Device, costs, kernels, tenants.
    pub setup: &'a Setup,
    /// Queues, by tenant.
    pub tenants: &'a [TenantView],
    /// The requests in them.
    pub queues: &'a dyn Queues,
    /// Model instances; an index never changes its worker.
    pub workers: &'a [Worker],
    /// Memory systems, with their lanes as they are now.
    pub pools: &'a [PoolSpec],
    /// What the GPU tells of itself.
    pub gpu: &'a dyn Gpu,
}

/// What a GPU may tell of itself. Simulated and emulated ones tell it, hardware does not.
pub trait Gpu {
    /// CUs on which blocks of a worker's kernel lie at this instant; for one that has launched something.
    fn held(&self, worker: u32) -> Option<u32>;
}

/// A GPU that tells nothing.
impl Gpu for () {
    fn held(&self, _: u32) -> Option<u32> {
        None
    }
}

/// A request that waits in its tenant's queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Queued {
    /// Names it in actions while it is queued.
    pub id: RequestId,
    /// When it was scheduled to arrive; latency counts from here.
    pub arrival: Nanos,
    /// When it has to be answered; [`Nanos::MAX`] without a deadline.
    pub deadline: Nanos,
    /// Samples; they count towards the batch size.
    pub items: u32,
    /// Tokens of its prompt; 0 where nothing says it.
    pub tokens_in: u32,
    /// Tokens to generate; 0 where nothing says it.
    pub tokens_out: u32,
    /// Larger is more urgent.
    pub priority: i8,
}

/// What a tenant did while a statistics window was open; see [`Action::OpenWindow`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Window {
    /// When it opened.
    pub opened: Nanos,
    /// Requests that arrived.
    pub arrived: u64,
    /// Of the requests that were answered, from their arrival, in the order of the answers.
    pub latencies: Vec<Nanos>,
    /// The batches that ended, in this order.
    pub executions: Vec<Execution>,
}

/// A batch that has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Execution {
    /// When it started.
    pub began: Nanos,
    /// From then to its result.
    pub took: Nanos,
}

/// Queues that a policy can look into, and what statistics windows have seen.
pub trait Queues {
    /// Number `i` of a tenant's queue, from 0 in order of arrival.
    fn queued(&self, tenant: u32, i: usize) -> Option<Queued>;

    /// A tenant's statistics window, open or closed last; `None`: it has not had one.
    fn window(&self, tenant: u32) -> Option<&Window> {
        let _ = tenant;
        None
    }
}

/// Nobody waits.
impl Queues for () {
    fn queued(&self, _: u32, _: usize) -> Option<Queued> {
        None
    }
}

/// A tenant's queue and current batching limits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TenantView {
    /// Requests waiting for a worker.
    pub queued: u32,
    /// Their items.
    pub queued_items: u32,
    /// Arrival of the oldest waiting request; [`Nanos::MAX`] if none waits.
    pub oldest: Nanos,
    /// Deadline of the oldest waiting request; [`Nanos::MAX`] if it has none.
    pub oldest_deadline: Nanos,
    /// Requests arrived since the start.
    pub arrived: u64,
    /// Most items of the next batch.
    pub batch_max: u32,
    /// Longest wait for a batch to fill.
    pub batch_timeout: Nanos,
}

/// What a worker is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Process start and model load.
    Starting,
    /// Ready for a batch.
    Idle,
    /// Host work, copies, or waiting for the host to issue the next kernel.
    Host,
    /// The kernel at the head is held by the policy.
    Held,
    /// The kernel at the head was launched: it runs, or waits for CUs.
    Launched,
    /// Gone.
    Retired,
}

/// One model instance.
#[derive(Clone, Debug, PartialEq)]
pub struct Worker {
    /// Tenant, pool, lane, cap, priority.
    pub spec: WorkerSpec,
    /// What it is doing. Below kernel depth a batch that the host has handed to the GPU is
    /// [`Status::Launched`] until it ends: how far it is, no host knows.
    pub status: Status,
    /// Items of the current batch.
    pub items: u32,
    /// Position of the kernel at the head in the batch's program; 0 below kernel depth.
    pub position: u32,
    /// The kernel at the head, an index into [`crate::program::Code::kernels`].
    pub kernel: u32,
    /// Share of the kernel at the head that was still to be done when its last launch ended: 1 unless it
    /// was sliced or preempted.
    pub left: f64,
    /// When the kernel at the head was launched, while it is; [`Nanos::ZERO`] otherwise and below kernel
    /// depth.
    pub launched: Nanos,
    /// Most CUs that the launched kernel can have: what it wants, within the worker's cap and its mask.
    /// A merged launch counts for its first worker, and for the others 0.
    pub cus: u32,
    /// Kernels launched behind the one at the head, which wait for it.
    pub behind: u32,
    /// The kernel behind all launched ones, where it may follow them
    /// ([`crate::action::Action::Follow`]).
    pub next: Option<u32>,
    /// Start of the current batch.
    pub began: Nanos,
    /// Earliest deadline in the current batch; [`Nanos::MAX`] if none.
    pub deadline: Nanos,
    /// It goes once its batch is done.
    pub retiring: bool,
    /// A change of its share is under way.
    pub resizing: bool,
    /// Sequences that go on with its next step, where the policy starts steps: they are among those that wait
    /// for their tenant's workers, and only this one has them.
    pub sequences: u32,
    /// Of a generating worker whose kernels the policy launches: the step at hand.
    pub step: Option<Arc<Program>>,
}

impl Worker {
    /// A worker without a batch.
    #[must_use]
    pub fn new(spec: WorkerSpec, status: Status) -> Self {
        Self {
            spec,
            status,
            items: 0,
            position: 0,
            kernel: 0,
            left: 1.0,
            launched: Nanos::ZERO,
            cus: 0,
            behind: 0,
            next: None,
            began: Nanos::ZERO,
            deadline: Nanos::MAX,
            retiring: false,
            resizing: false,
            sequences: 0,
            step: None,
        }
    }
}

/// A kernel that the policy has launched and that has not ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resident {
    /// Whose.
    pub worker: u32,
    /// Its tenant.
    pub tenant: u32,
    /// Its pool, and lane within it.
    pub pool: u32,
    /// Lane within the pool.
    pub lane: u32,
    /// The kernel, an index into [`crate::program::Code::kernels`].
    pub kernel: u32,
    /// Most CUs that it can have; see [`Worker::cus`].
    pub cus: u32,
    /// CUs on which its blocks lie, 0 while it waits for room; `None`: the GPU does not tell.
    pub held: Option<u32>,
    /// When it was launched.
    pub since: Nanos,
}

impl View<'_> {
    /// A tenant's queue, in order of arrival.
    pub fn queue(&self, tenant: u32) -> impl Iterator<Item = Queued> + '_ {
        (0..).map_while(move |i| self.queues.queued(tenant, i))
    }

    /// A tenant's statistics window, open or closed last.
    ///
    /// # Panics
    /// The policy has never opened one for it.
    #[must_use]
    pub fn window(&self, tenant: u32) -> &Window {
        self.queues.window(tenant).expect("a policy looks at windows that it has opened")
    }

    /// What is on the CUs or waits for them, at kernel depth: whose, where, on how many of them, since
    /// when.
    pub fn resident(&self) -> impl Iterator<Item = Resident> + '_ {
        let launched = |(_, w): &(u32, &Worker)| w.status == Status::Launched && w.cus > 0;
        (0..).zip(self.workers).filter(launched).map(|(worker, w)| Resident {
            worker,
            tenant: w.spec.tenant,
            pool: w.spec.pool,
            lane: w.spec.lane,
            kernel: w.kernel,
            cus: w.cus,
            held: self.gpu.held(worker),
            since: w.launched,
        })
    }

    /// What the batch of a worker launches.
    #[must_use]
    pub fn program(&self, worker: u32) -> &Program {
        let w = &self.workers[worker as usize];
        let model = &self.setup.tenants[w.spec.tenant as usize].model;
        w.step.as_deref().unwrap_or_else(|| model.program(w.items))
    }

    /// Isolated GPU time on all CUs from the kernel at the head of `worker` to the end of its batch.
    #[must_use]
    pub fn remaining(&self, worker: u32) -> Nanos {
        let position = self.workers[worker as usize].position as usize;
        Nanos(self.program(worker).remaining_ns[position])
    }

    /// Another limit for a tenant's batches, at the same timeout.
    #[must_use]
    pub fn set_batch(&self, tenant: u32, max: u32) -> Action {
        let timeout = self.tenants[tenant as usize].batch_timeout;
        Action::SetBatch { tenant, max, timeout }
    }

    /// Idle workers of a tenant, lowest index first; of one that generates, those for which something
    /// waits, if any does: sequences of their own, or requests that no worker has yet.
    pub fn idle(&self, tenant: u32) -> impl Iterator<Item = u32> + '_ {
        let own = self.workers.iter().enumerate().filter(move |(_, w)| w.spec.tenant == tenant);
        let held: u32 = match self.setup.tenants[tenant as usize].generates {
            Some(_) => own.clone().map(|(_, w)| w.sequences).sum(),
            None => 0,
        };
        let all = held == 0 || self.tenants[tenant as usize].queued > held;
        own.filter(move |(_, w)| {
            w.status == Status::Idle && !w.retiring && (all || w.sequences > 0)
        })
        .map(|(i, _)| i as u32)
    }
}
