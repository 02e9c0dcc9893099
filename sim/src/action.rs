//! The events that a policy receives and the actions that it may take: two closed enums, which the host
//! uses with every world.

use cotenant_profiles::Nanos;
use cotenant_profiles::device::{Costs, Mechanism};

use crate::layout::WorkerSpec;
use crate::mask::CuMask;

/// The number of a request in the system. It is reused once the request has left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestId(pub u32);

/// Events that a policy is told about. Which of them reach it depends on its [`crate::policy::Depth`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Event {
    /// The run begins; nothing has arrived yet.
    Start,
    /// A request joined its tenant's queue.
    RequestArrived {
        /// Its tenant.
        tenant: u32,
    },
    /// A request's result is back at the host.
    RequestDone {
        /// Its tenant.
        tenant: u32,
        /// The worker that served it.
        worker: u32,
        /// Time from its scheduled arrival.
        latency: Nanos,
        /// Part of the latency spent in the tenant's queue.
        queued: Nanos,
    },
    /// The kernel at the head of a worker's stream could start: its predecessor is done, and the host has
    /// issued it. It is held until the policy launches it.
    KernelReady {
        /// The worker; [`crate::view::Worker::kernel`] says which kernel.
        worker: u32,
    },
    /// The host has issued the kernel behind a worker's outstanding kernels, which are fewer than
    /// [`crate::policy::Policy::outstanding`] allows. It may follow them ([`Action::Follow`]);
    /// [`crate::view::Worker::next`] says which kernel.
    KernelNext {
        /// The worker.
        worker: u32,
    },
    /// A launched kernel ended. If another one was launched behind it, that one is now at the head.
    KernelDone {
        /// The worker.
        worker: u32,
    },
    /// A launched slice ended, and its kernel has blocks left. The kernel is held again, and
    /// [`crate::view::Worker::left`] is the share that remains.
    SliceDone {
        /// The worker.
        worker: u32,
    },
    /// A launched kernel was preempted ([`Action::Preempt`]) and has left the CUs. It is held again, and
    /// [`crate::view::Worker::left`] is the share that remains.
    KernelPreempted {
        /// The worker.
        worker: u32,
    },
    /// A worker finished its batch and is idle.
    BatchDone {
        /// The worker.
        worker: u32,
        /// Items of the batch.
        items: u32,
        /// Time from the start of the batch to its result.
        took: Nanos,
    },
    /// A worker has loaded its model (or a change of its share or lane has taken effect) and is idle.
    WorkerUp {
        /// The worker.
        worker: u32,
    },
    /// A worker has gone: it is retired.
    WorkerDown {
        /// The worker.
        worker: u32,
    },
    /// The lanes of a pool have the sizes that [`Action::Repartition`] gave them;
    /// [`crate::view::View::pools`] shows them. [`Event::WorkerUp`] follows for each worker that paused for
    /// the change.
    Repartitioned {
        /// The pool.
        pool: u32,
    },
    /// A statistics window of a tenant has closed; [`crate::view::View::window`] returns what it recorded.
    WindowClosed {
        /// The tenant.
        tenant: u32,
    },
    /// A timer that the policy set has fired.
    Timer {
        /// The number it gave.
        token: u64,
    },
}

/// The mechanism that places a kernel. Its cost comes from the device file, or is zero under `ideal`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Via {
    /// The stream that it is in.
    Stream,
    /// A different stream or green context than its predecessor's.
    Hop,
    /// A barrier packet between hardware queues.
    Barrier,
    /// A CU mask set by a system call.
    MaskIoctl,
    /// A TPC mask in the launch descriptor.
    MaskTpc,
    /// A CU mask computed in the packet processor.
    MaskFirmware,
    /// The stream that it is in, by a library between program and driver that intercepts every launch.
    Intercept,
    /// As [`Via::Intercept`], and the library also sets a TPC mask in the launch descriptor.
    InterceptMaskTpc,
    /// As [`Via::Intercept`], and the library also launches the kernel in a preemptible form, whose blocks
    /// poll for the order to stop ([`Preemption::Blocks`]); see [`Costs::persistent_percent`].
    Persistent,
}

impl Via {
    /// What it costs.
    #[must_use]
    pub const fn mechanism(self, costs: &Costs) -> Mechanism {
        match self {
            Self::Stream => Mechanism::FREE,
            Self::Hop => costs.stream_hop,
            Self::Barrier => costs.barrier,
            Self::MaskIoctl => costs.mask_ioctl,
            Self::MaskTpc => costs.mask_tpc,
            Self::MaskFirmware => costs.mask_firmware,
            Self::Intercept | Self::Persistent => costs.kernel_intercept,
            Self::InterceptMaskTpc => Mechanism {
                cost: Nanos(costs.kernel_intercept.cost.0 + costs.mask_tpc.cost.0),
                delay: Nanos(costs.kernel_intercept.delay.0 + costs.mask_tpc.delay.0),
                ..costs.mask_tpc
            },
        }
    }
}

/// How a launched kernel is preempted, and what happens to its progress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preemption {
    /// It is killed: the progress of this launch is lost.
    Reset,
    /// It starts no further blocks, and those on the CUs run to their end. Finished blocks are kept. The
    /// kernel has to be in the preemptible form, which polls for the order before every block.
    Blocks,
    /// It is recalled if none of its blocks has begun; otherwise nothing happens.
    Unstarted,
    /// Its state is saved, and restored at its next launch, which takes as long again. All progress is
    /// kept.
    Save,
}

impl Preemption {
    /// What it costs.
    #[must_use]
    pub const fn mechanism(self, costs: &Costs) -> Mechanism {
        match self {
            Self::Reset => costs.preempt_reset,
            Self::Blocks | Self::Unstarted => costs.preempt_blocks,
            Self::Save => costs.preempt_save,
        }
    }

    /// How long it takes, ns, until all of a worker's outstanding launches are off the GPU. A reset hits
    /// each of them in turn: those behind the first one start, find the order, and end.
    #[must_use]
    pub const fn takes(self, costs: &Costs, launches: u64) -> u64 {
        let m = self.mechanism(costs);
        let once = m.delay.0 + m.cost.0;
        if matches!(self, Self::Reset) { once * launches } else { once }
    }
}

/// How a worker changes its share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resize {
    /// Stop, start a process with the new share, and load the model. The worker is down in the meantime.
    Restart,
    /// Load a second instance beside the first, then route requests to it. Both are in memory in the
    /// meantime.
    Shadow {
        /// Both instances use one copy of the weights.
        shared_weights: bool,
    },
}

/// When a statistics window closes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Closes {
    /// When its time is over.
    OnTime,
    /// With the first batch that ends after its time is over. That batch belongs to the window.
    WithBatch,
}

/// The actions that a policy may take.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Batching policies: start a batch of up to `items` queued items on an idle worker.
    Dispatch {
        /// An idle worker.
        worker: u32,
        /// The most items.
        items: u32,
    },
    /// Batching policies: start a batch of these queued requests of the worker's tenant, in this order,
    /// on an idle worker.
    Form {
        /// An idle worker.
        worker: u32,
        /// At least one; see [`crate::view::View::queue`].
        requests: Vec<RequestId>,
    },
    /// Change a tenant's batching limits from now on.
    SetBatch {
        /// The tenant.
        tenant: u32,
        /// The most items per batch, at most the tenant's configured maximum.
        max: u32,
        /// Longest wait for a batch to fill.
        timeout: Nanos,
    },
    /// Kernel policies: start the held kernel at the head of a worker's stream.
    Launch {
        /// The worker.
        worker: u32,
        /// CUs it may use; `None`: its lane, up to the worker's cap.
        mask: Option<CuMask>,
        /// Where blocks compete, the larger priority goes first.
        priority: i8,
        /// What placing it costs.
        via: Via,
    },
    /// Kernel policies: launch the kernel behind a worker's outstanding kernels
    /// ([`crate::view::Worker::next`]). It waits in the stream, with the priority and the CUs of those
    /// before it, and starts when they have ended. Nothing happens if there is no such kernel any more:
    /// another action at this instant may have led to their being recalled.
    Follow {
        /// The worker.
        worker: u32,
        /// What placing it costs.
        via: Via,
    },
    /// Kernel policies: start this many of the remaining blocks of the held kernel at the head of a
    /// worker's stream, as a separate launch. [`Event::SliceDone`] follows unless they are the kernel's
    /// last blocks. Each slice costs [`Costs::kernel_slice`] in addition to `via`, unless it is a whole
    /// kernel.
    Slice {
        /// The worker.
        worker: u32,
        /// At least 1; more than the remaining blocks means all of them.
        blocks: u64,
        /// CUs they may use; `None`: the lane, up to the worker's cap.
        mask: Option<CuMask>,
        /// Where blocks compete, the larger priority goes first.
        priority: i8,
        /// What placing them costs.
        via: Via,
    },
    /// Kernel policies: preempt a launched kernel. [`Event::KernelPreempted`] follows when it has left the
    /// CUs, or its usual end if that comes first. Kernels launched behind it have not begun, and are
    /// recalled before it, without an event. Nothing happens if no kernel is launched, if the kernel is
    /// merged, or if it is already being preempted.
    Preempt {
        /// The worker.
        worker: u32,
        /// How.
        how: Preemption,
    },
    /// Kernel policies: start the held kernels of several workers as one launch.
    Merge {
        /// The workers, at least two, each holding a kernel.
        workers: Vec<u32>,
        /// Where blocks compete, the larger priority goes first.
        priority: i8,
    },
    /// Limit the board's clock, once [`Costs::clock_switch`] has passed, until another limit is set. The
    /// boost clock or anything above it removes the limit.
    SetClock {
        /// The limit, MHz, at least 1.
        mhz: u32,
    },
    /// Start one more worker. It is up after process start and model load.
    Start {
        /// Its place and its tenant.
        spec: WorkerSpec,
    },
    /// Give a worker another cap. Nothing happens while the worker is starting or retiring, while an
    /// earlier resize of it is in progress, or if there is no memory for a shadow.
    Resize {
        /// The worker.
        worker: u32,
        /// Its new cap, CUs.
        cap: u32,
        /// How.
        how: Resize,
    },
    /// Give the lanes of a pool that runs all lanes at once new sizes, while the workers keep their models
    /// and caches. The workers in lanes that change finish their batches and pause until all of them have
    /// paused. Then the mechanism takes its cost for each of them and its delay, [`Event::Repartitioned`]
    /// follows, and they resume. A worker whose cap was its whole lane gets the whole lane again; others
    /// keep their caps as far as they fit. Nothing happens if the lanes already have these sizes, while an
    /// earlier change of the pool is in progress, or while one of those workers is starting or being
    /// resized.
    Repartition {
        /// The pool.
        pool: u32,
        /// The size of each of its lanes, CUs, at least 1; together at most the pool's.
        lanes: Vec<u32>,
        /// What it costs: [`Via::Hop`] if streams move to other green contexts, [`Via::MaskIoctl`] if
        /// queues get other masks.
        via: Via,
    },
    /// Let a worker finish its batch, then stop it and free its memory.
    Retire {
        /// The worker.
        worker: u32,
    },
    /// Open a statistics window of a tenant, in place of an open one. [`crate::view::View::window`] records
    /// what happens from now on, until [`Event::WindowClosed`].
    OpenWindow {
        /// The tenant.
        tenant: u32,
        /// The minimum time that it is open.
        length: Nanos,
        /// How it closes after that time.
        closes: Closes,
    },
    /// Ask for [`Event::Timer`].
    Timer {
        /// When.
        at: Nanos,
        /// A number that the event returns.
        token: u64,
    },
    /// Give up a queued request.
    Drop {
        /// The request; see [`crate::view::View::queue`].
        request: RequestId,
        /// The reason that appears in the results.
        reason: &'static str,
    },
}
