//! How a policy lays tenants out on the GPU before the first request: plain data that both the simulator
//! and the replay carry out.

use cotenant_profiles::{Bytes, Nanos};

/// How deeply a policy controls the run. A deeper policy is asked more often; below its depth, streams run
/// freely.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Depth {
    /// It lays tenants out once and is not asked again.
    Layout,
    /// It is told about requests and batches, and may change batching, workers and shares.
    Request,
    /// It also decides when a batch starts, and on which worker.
    Batch,
    /// It also launches every kernel.
    Kernel,
}

/// A policy cannot lay these tenants out on this device.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct LayoutError(pub String);

/// Which steps a worker runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Role {
    /// All steps: the worker has its own engine.
    #[default]
    Whole,
    /// Steps that process prompts; another worker of its tenant generates.
    Prefill,
    /// Steps that generate one token per sequence.
    Decode,
}

/// Memory systems and workers at time zero.
#[derive(Clone, Debug, PartialEq)]
pub struct Layout {
    /// Parts of the GPU that share no CU and no memory bandwidth: one, or one per hardware instance.
    pub pools: Vec<PoolSpec>,
    /// Model instances.
    pub workers: Vec<WorkerSpec>,
}

impl Layout {
    /// The pools whose streams have to share the device's hardware queues, because more workers run side by
    /// side than there are queues. A policy that launches every kernel itself uses no more streams than
    /// there are queues.
    pub fn shared_queues(&self, depth: Depth, hardware: u32) -> impl Iterator<Item = u32> + '_ {
        let crowded = move |&(p, pool): &(u32, &PoolSpec)| {
            depth < Depth::Kernel
                && pool.discipline == Discipline::Concurrent
                && self.workers.iter().filter(|w| w.pool == p).count() > hardware as usize
        };
        (0..).zip(&self.pools).filter(crowded).map(|(p, _)| p)
    }
}

/// A set of CUs behind one memory system.
#[derive(Clone, Debug, PartialEq)]
pub struct PoolSpec {
    /// CUs.
    pub cus: u32,
    /// CUs of each lane; see [`Discipline`].
    pub lanes: Vec<u32>,
    /// Which lanes run when.
    pub discipline: Discipline,
    /// DRAM bandwidth, bytes per microsecond.
    pub dram_bytes_per_us: u64,
    /// L2 capacity.
    pub l2: Bytes,
    /// Device memory.
    pub memory: Bytes,
    /// Copy engines: 1 serves both directions, 2 or more one each.
    pub copy_engines: u32,
    /// What issues launches.
    pub host: Host,
}

/// What issues the launches of a pool's workers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Host {
    /// Every worker has its own process, whose thread issues launches ahead of the GPU.
    #[default]
    Own,
    /// The workers are threads of one process. They take turns at its lock (the interpreter's, the
    /// framework's or the driver's), one launch each. Under a policy that launches every kernel, a launch
    /// is issued when the policy asks for it, not ahead of the GPU.
    Shared,
}

/// Which lanes run when inside a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Discipline {
    /// All lanes at once, each on its own CUs: exclusive partitions, or one lane for all workers.
    Concurrent,
    /// One lane (context) at a time on all CUs.
    TimeSliced {
        /// The longest turn while other contexts wait.
        quantum: Nanos,
        /// Nothing runs for this long when a context is preempted: its state is saved.
        switch: Nanos,
        /// Nothing runs for this long when an idle context makes way: there is no state to save.
        make_way: Nanos,
        /// A turn ends with the batch, not with the quantum.
        run_to_completion: bool,
    },
}

/// One model instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WorkerSpec {
    /// Index of its tenant.
    pub tenant: u32,
    /// Index of its pool.
    pub pool: u32,
    /// Lane within the pool.
    pub lane: u32,
    /// The most CUs that one of its kernels may use.
    pub cap: u32,
    /// Where blocks compete, the larger priority goes first.
    pub priority: i8,
    /// Device memory in addition to the model: context, MPS client.
    pub overhead: Bytes,
    /// For a generating tenant: which steps it runs. A worker that runs one kind shares its engine, weights
    /// and cache with the worker of the other kind that comes before or after it.
    pub role: Role,
}
