//! What a policy may see. The host keeps these tables and hands them out read-only.

use std::sync::Arc;

use cotenant_profiles::Nanos;

use crate::action::{Action, RequestId};
use crate::layout::{PoolSpec, WorkerSpec};
use crate::program::Program;
use crate::scenario::Setup;

/// The state of the run as a policy sees it.
#[derive(Clone, Copy)]
pub struct View<'a> {
    /// The current time.
    pub now: Nanos,
    /// Device, costs, kernels, tenants.
    pub setup: &'a Setup,
    /// Queues, by tenant.
    pub tenants: &'a [TenantView],
    /// The requests in the queues.
    pub queues: &'a dyn Queues,
    /// Model instances. An index always denotes the same worker.
    pub workers: &'a [Worker],
    /// Memory systems, with the current sizes of their lanes.
    pub pools: &'a [PoolSpec],
    /// What the GPU reports about itself.
    pub gpu: &'a dyn Gpu,
}

/// What a GPU can report about itself. Simulated and emulated GPUs do, hardware does not.
pub trait Gpu {
    /// The number of CUs that hold blocks of a worker's kernel right now, for a worker with a launched
    /// kernel.
    fn held(&self, worker: u32) -> Option<u32>;
}

/// A GPU that reports nothing.
impl Gpu for () {
    fn held(&self, _: u32) -> Option<u32> {
        None
    }
}

/// A request that waits in its tenant's queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Queued {
    /// Identifies it in actions while it is queued.
    pub id: RequestId,
    /// When it was scheduled to arrive; latency counts from here.
    pub arrival: Nanos,
    /// Its deadline; [`Nanos::MAX`] if it has none.
    pub deadline: Nanos,
    /// Samples; they count towards the batch size.
    pub items: u32,
    /// Tokens of its prompt; 0 if unspecified.
    pub tokens_in: u32,
    /// Tokens to generate; 0 if unspecified.
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
    /// Latencies, from arrival, of the requests that were answered, in the order of their answers.
    pub latencies: Vec<Nanos>,
    /// The batches that ended, in order of their ends.
    pub executions: Vec<Execution>,
}

/// A batch that has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Execution {
    /// When it started.
    pub began: Nanos,
    /// From its start to its result.
    pub took: Nanos,
}

/// Queues that a policy can inspect, and the results of statistics windows.
pub trait Queues {
    /// Request `i` of a tenant's queue, counted from 0 in order of arrival.
    fn queued(&self, tenant: u32, i: usize) -> Option<Queued>;

    /// A tenant's statistics window: the open one, or the one closed last. `None` if it never had one.
    fn window(&self, tenant: u32) -> Option<&Window> {
        let _ = tenant;
        None
    }
}

/// Empty queues.
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
    /// The kernel at the head was launched: it is running or waiting for CUs.
    Launched,
    /// Gone.
    Retired,
}

/// One model instance.
#[derive(Clone, Debug, PartialEq)]
pub struct Worker {
    /// Tenant, pool, lane, cap, priority.
    pub spec: WorkerSpec,
    /// What it is doing. Below kernel depth, a batch that the host has handed to the GPU is
    /// [`Status::Launched`] until it ends: a host cannot know how far it has progressed.
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
    /// The most CUs that the launched kernel can have: what it wants, within the worker's cap and its mask.
    /// A merged launch is counted for its first worker, and the others have 0.
    pub cus: u32,
    /// Number of kernels launched behind the one at the head, which wait for it.
    pub behind: u32,
    /// The kernel behind all launched ones, if it may follow them ([`crate::action::Action::Follow`]).
    pub next: Option<u32>,
    /// Start of the current batch.
    pub began: Nanos,
    /// Earliest deadline in the current batch; [`Nanos::MAX`] if none.
    pub deadline: Nanos,
    /// It retires once its batch is done.
    pub retiring: bool,
    /// A change of its share is in progress.
    pub resizing: bool,
    /// Number of sequences that continue with its next step, where the policy starts steps. They count
    /// among the requests that wait for the tenant's workers, but only this worker can serve them.
    pub sequences: u32,
    /// The current step of a generating worker whose kernels the policy launches.
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
    /// The worker that launched it.
    pub worker: u32,
    /// Its tenant.
    pub tenant: u32,
    /// Its pool.
    pub pool: u32,
    /// Lane within the pool.
    pub lane: u32,
    /// The kernel, an index into [`crate::program::Code::kernels`].
    pub kernel: u32,
    /// The most CUs that it can have; see [`Worker::cus`].
    pub cus: u32,
    /// The number of CUs that hold its blocks, 0 while it waits for room. `None`: the GPU does not report
    /// it.
    pub held: Option<u32>,
    /// When it was launched.
    pub since: Nanos,
}

impl View<'_> {
    /// A tenant's queue, in order of arrival.
    pub fn queue(&self, tenant: u32) -> impl Iterator<Item = Queued> + '_ {
        (0..).map_while(move |i| self.queues.queued(tenant, i))
    }

    /// A tenant's statistics window: the open one, or the one closed last.
    ///
    /// # Panics
    /// The policy has never opened one for it.
    #[must_use]
    pub fn window(&self, tenant: u32) -> &Window {
        self.queues.window(tenant).expect("a policy looks at windows that it has opened")
    }

    /// The kernels that are on the CUs or waiting for them, at kernel depth.
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

    /// The program of a worker's batch.
    #[must_use]
    pub fn program(&self, worker: u32) -> &Program {
        let w = &self.workers[worker as usize];
        let model = &self.setup.tenants[w.spec.tenant as usize].model;
        w.step.as_deref().unwrap_or_else(|| model.program(w.items))
    }

    /// Isolated GPU time, on all CUs, from the kernel at the head of `worker` to the end of its batch.
    #[must_use]
    pub fn remaining(&self, worker: u32) -> Nanos {
        let position = self.workers[worker as usize].position as usize;
        Nanos(self.program(worker).remaining_ns[position])
    }

    /// The action that sets a new limit for a tenant's batches and keeps the timeout.
    #[must_use]
    pub fn set_batch(&self, tenant: u32, max: u32) -> Action {
        let timeout = self.tenants[tenant as usize].batch_timeout;
        Action::SetBatch { tenant, max, timeout }
    }

    /// Idle workers of a tenant, lowest index first. For a generating tenant with sequences held between
    /// steps, those that have work waiting: sequences of their own, or requests that no worker has taken
    /// yet.
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
