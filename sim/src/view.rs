//! What a policy may see. The host keeps these tables and hands them out read-only.

use cotenant_profiles::Nanos;

use crate::action::Action;
use crate::layout::WorkerSpec;
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
    /// Model instances; an index never changes its worker.
    pub workers: &'a [Worker],
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
#[derive(Clone, Debug, PartialEq, Eq)]
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
    /// Start of the current batch.
    pub began: Nanos,
    /// Earliest deadline in the current batch; [`Nanos::MAX`] if none.
    pub deadline: Nanos,
    /// It goes once its batch is done.
    pub retiring: bool,
    /// A change of its share is under way.
    pub resizing: bool,
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
            began: Nanos::ZERO,
            deadline: Nanos::MAX,
            retiring: false,
            resizing: false,
        }
    }
}

impl View<'_> {
    /// Isolated GPU time on all CUs from the kernel at the head of `worker` to the end of its batch.
    #[must_use]
    pub fn remaining(&self, worker: u32) -> Nanos {
        let w = &self.workers[worker as usize];
        let model = &self.setup.tenants[w.spec.tenant as usize].model;
        Nanos(model.program(w.items).remaining_ns[w.position as usize])
    }

    /// Another limit for a tenant's batches, at the same timeout.
    #[must_use]
    pub fn set_batch(&self, tenant: u32, max: u32) -> Action {
        let timeout = self.tenants[tenant as usize].batch_timeout;
        Action::SetBatch { tenant, max, timeout }
    }

    /// Idle workers of a tenant, lowest index first.
    pub fn idle(&self, tenant: u32) -> impl Iterator<Item = u32> + '_ {
        self.workers
            .iter()
            .enumerate()
            .filter(move |(_, w)| {
                w.spec.tenant == tenant && w.status == Status::Idle && !w.retiring
            })
            .map(|(i, _)| i as u32)
    }
}
