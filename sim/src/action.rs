//! What happens to a policy, and what a policy may do: two closed enums, which the host speaks whatever
//! the world below it.

use cotenant_profiles::Nanos;
use cotenant_profiles::device::{Costs, Mechanism};

use crate::layout::WorkerSpec;
use crate::mask::CuMask;

/// A request in the system, by a number that is used again once it has left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestId(pub u32);

/// What a policy is told. Which of these reach it depends on its [`crate::policy::Depth`].
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
        /// From its scheduled arrival.
        latency: Nanos,
        /// Part of the latency spent in the tenant's queue.
        queued: Nanos,
    },
    /// The kernel at the head of a worker's stream could start: its predecessor is done and the host
    /// has issued it. Until the policy launches it, it is held.
    KernelReady {
        /// The worker; [`crate::view::Worker::kernel`] says which kernel.
        worker: u32,
    },
    /// The host has issued the kernel behind those that a worker has launched and that have not ended,
    /// which are fewer than [`crate::policy::Policy::outstanding`] allows: it may follow them
    /// ([`Action::Follow`]); [`crate::view::Worker::next`] says which kernel.
    KernelNext {
        /// The worker.
        worker: u32,
    },
    /// A launched kernel ended. Where another one was launched behind it, that is at the head by now.
    KernelDone {
        /// The worker.
        worker: u32,
    },
    /// A launched slice ended, and its kernel has blocks left: it is held again, with
    /// [`crate::view::Worker::left`] of it to do.
    SliceDone {
        /// The worker.
        worker: u32,
    },
    /// A launched kernel has left the CUs before its end ([`Action::Preempt`]): it is held again, with
    /// [`crate::view::Worker::left`] of it to do.
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
        /// From the start of the batch to its result.
        took: Nanos,
    },
    /// A worker has loaded its model (or a change of its share or lane has taken effect) and is idle.
    WorkerUp {
        /// The worker.
        worker: u32,
    },
    /// A worker is gone: retired.
    WorkerDown {
        /// The worker.
        worker: u32,
    },
    /// The lanes of a pool have the sizes that [`Action::Repartition`] gave them;
    /// [`crate::view::View::pools`] says them. [`Event::WorkerUp`] follows for each worker that stood still
    /// for it.
    Repartitioned {
        /// The pool.
        pool: u32,
    },
    /// A statistics window of a tenant has closed; [`crate::view::View::window`] is what it saw.
    WindowClosed {
        /// The tenant.
        tenant: u32,
    },
    /// A timer that the policy set.
    Timer {
        /// The number it gave.
        token: u64,
    },
}

/// By which mechanism a kernel is placed; its cost is the device file's, or nothing under `ideal`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Via {
    /// The stream it is in.
    Stream,
    /// Another stream or green context than its predecessor's.
    Hop,
    /// A barrier packet between hardware queues.
    Barrier,
    /// A CU mask set by a system call.
    MaskIoctl,
    /// A TPC mask in the launch descriptor.
    MaskTpc,
    /// A CU mask computed in the packet processor.
    MaskFirmware,
    /// The stream it is in, by a library between program and driver that looks at every launch.
    Intercept,
    /// The same, which also sets a TPC mask in the launch descriptor.
    InterceptMaskTpc,
    /// The same, which also launches the kernel in a form whose blocks look for the order to stop
    /// ([`Preemption::Blocks`]); see [`Costs::persistent_percent`].
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

/// How a launched kernel leaves the CUs before its end, and what becomes of its progress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preemption {
    /// It is killed: what this launch has done of it is lost.
    Reset,
    /// It starts no more blocks, and those on the CUs end where they run: what has ended is kept. The
    /// kernel has to be in a form that looks for the order before every block.
    Blocks,
    /// It is taken back if none of its blocks has begun; otherwise nothing happens.
    Unstarted,
    /// Its state is saved and restored at its next launch, which takes as long again: everything is
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

    /// How long it takes, ns, until a worker's launches are off the GPU that have not ended. A reset
    /// meets each of them in turn: those behind the first start, find the order and end.
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
    /// Stop, start a process with the new share, load the model: down meanwhile.
    Restart,
    /// Load a second instance beside the first, then route to it: both in memory meanwhile.
    Shadow {
        /// Both use one copy of the weights.
        shared_weights: bool,
    },
}

/// When a statistics window closes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Closes {
    /// When its time is over.
    OnTime,
    /// With the first batch that ends when its time is over: it is one of the window's.
    WithBatch,
}

/// What a policy may do.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Batching policies: start a batch of up to `items` queued items on an idle worker.
    Dispatch {
        /// An idle worker.
        worker: u32,
        /// Most items.
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
        /// Most items, at most the tenant's configured maximum.
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
        /// Larger goes first where blocks compete.
        priority: i8,
        /// What placing it costs.
        via: Via,
    },
    /// Kernel policies: launch the kernel behind those of a worker that have been launched and have not
    /// ended ([`crate::view::Worker::next`]). It waits in the stream, at the priority and on the CUs of
    /// those before it, and starts when they have ended. Nothing happens where there is no such kernel
    /// any more: what another action led to at this instant may have taken the others back.
    Follow {
        /// The worker.
        worker: u32,
        /// What placing it costs.
        via: Via,
    },
    /// Kernel policies: start so many blocks of what is left of the held kernel at the head of a
    /// worker's stream, as a launch of their own. [`Event::SliceDone`] follows unless they are the last
    /// of the kernel. Each slice costs [`Costs::kernel_slice`] besides `via`, unless it is a whole
    /// kernel.
    Slice {
        /// The worker.
        worker: u32,
        /// At least 1; more than are left are all of them.
        blocks: u64,
        /// CUs they may use; `None`: the lane, up to the worker's cap.
        mask: Option<CuMask>,
        /// Larger goes first where blocks compete.
        priority: i8,
        /// What placing them costs.
        via: Via,
    },
    /// Kernel policies: take a launched kernel off the CUs. [`Event::KernelPreempted`] follows when it
    /// has left them, or its usual end if that comes first. What was launched behind it has not begun,
    /// and is taken back before it, silently. Nothing happens where nothing is launched, to merged
    /// kernels, and while the worker's kernel is being preempted already.
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
        /// Larger goes first where blocks compete.
        priority: i8,
    },
    /// Run the board at no more than this clock once [`Costs::clock_switch`] has passed, until another
    /// one holds. The boost clock and anything above it set no bound.
    SetClock {
        /// At least 1.
        mhz: u32,
    },
    /// Start one more worker; it is up after process start and model load.
    Start {
        /// Where and for whom.
        spec: WorkerSpec,
    },
    /// Give a worker another cap. Nothing happens while the worker starts or goes, while an earlier
    /// resize of it is under way, or where a shadow finds no memory.
    Resize {
        /// The worker.
        worker: u32,
        /// Its new cap, CUs.
        cap: u32,
        /// How.
        how: Resize,
    },
    /// Give the lanes of a pool that runs them at once other sizes, while their workers keep their models
    /// and caches. The workers of those lanes that change finish their batches and stand still until all of
    /// them do; then the mechanism takes its cost for each of them and its delay,
    /// [`Event::Repartitioned`] follows, and they serve on. A worker whose cap was its whole lane has the
    /// whole lane again; others keep their caps as far as they fit. Nothing happens where the sizes are
    /// these already, while an earlier change of the pool is under way, and while one of those workers
    /// starts or is being resized.
    Repartition {
        /// The pool.
        pool: u32,
        /// The size of each of its lanes, CUs, at least 1; together at most the pool's.
        lanes: Vec<u32>,
        /// What it costs: [`Via::Hop`] where streams move to other green contexts, [`Via::MaskIoctl`]
        /// where queues get other masks.
        via: Via,
    },
    /// Let a worker finish its batch, then stop it and free its memory.
    Retire {
        /// The worker.
        worker: u32,
    },
    /// Open a statistics window of a tenant, in place of one that is open: what happens from now on is
    /// seen by [`crate::view::View::window`], until [`Event::WindowClosed`].
    OpenWindow {
        /// The tenant.
        tenant: u32,
        /// How long it is open at least.
        length: Nanos,
        /// When it closes then.
        closes: Closes,
    },
    /// Ask for [`Event::Timer`].
    Timer {
        /// When.
        at: Nanos,
        /// Handed back.
        token: u64,
    },
    /// Give up a queued request.
    Drop {
        /// Which; see [`crate::view::View::queue`].
        request: RequestId,
        /// Why, for the results.
        reason: &'static str,
    },
}
