//! The interface between the real world and whatever carries out its workers' batches: streams of this
//! process, or worker processes.

use std::time::Duration;

use cotenant_profiles::Bytes;
use cotenant_sim::CuMask;
use cotenant_sim::action::Preemption;
use cotenant_sim::counter::Count;
use cotenant_sim::host::Part;
use cotenant_sim::layout::{Layout, WorkerSpec};

use super::Stop;
use super::clock::RunClock;
use crate::device::{DeviceInfo, Direction, End, Usage};
use crate::error::DeviceError;

/// Where the host's costs come from: work per request, launches, and mechanisms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostCosts {
    /// The driver applies the scenario's costs, since nothing on this machine would cost as much.
    Kept,
    /// The costs are the real ones.
    Real,
}

/// One kernel of a worker. Its end is reported if `tell` is set.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Launch {
    /// The worker.
    pub worker: u32,
    /// An index into the scenario's kernels.
    pub kernel: u32,
    /// CUs it may use; `None` means the worker's own mask.
    pub mask: Option<CuMask>,
    /// Where blocks compete, the larger priority goes first; `None` means the worker's own priority.
    pub priority: Option<i8>,
    /// When the host has issued it, in the experiment's nanoseconds; it starts no earlier.
    pub issued: u64,
    /// The part of the kernel that is launched.
    pub part: Part,
    /// Multiplies its duration.
    pub scale: f64,
    /// The first of its batch.
    pub first: bool,
    /// The last of its batch.
    pub last: bool,
    /// Whether to report its end.
    pub tell: bool,
}

/// Everything that a worker's batch does on the GPU, in order: copy inputs in, run kernels, copy
/// results out. Its end is reported once.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Batch<'a> {
    /// The worker.
    pub worker: u32,
    /// Indices into the scenario's kernels.
    pub kernels: &'a [u32],
    /// When the host has issued each kernel, ns after `base`.
    pub issued_ns: &'a [u64],
    /// Multiplies the duration of each kernel.
    pub scales: &'a [f64],
    /// When the host began to issue the kernels, in the experiment's nanoseconds.
    pub base: u64,
    /// Bytes copied in before the kernels.
    pub input: Bytes,
    /// Bytes copied out after them.
    pub output: Bytes,
    /// Whether this is the first pass over the model for these requests.
    pub first: bool,
    /// Whether this is the last pass.
    pub last: bool,
}

/// A mask that a policy is expected to launch a worker's kernels under.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Foreseen {
    /// The worker.
    pub worker: u32,
    /// CUs.
    pub mask: CuMask,
    /// Where blocks compete, the larger priority goes first.
    pub priority: i8,
}

/// A worker's kernel or batch has ended.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ended {
    /// The worker.
    pub worker: u32,
    /// When it ended, in the experiment's nanoseconds; if the device does not report that, when the end
    /// was seen.
    pub at: u64,
    /// How it ended.
    pub end: End,
}

/// A worker has ended without being asked to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lost {
    /// The worker.
    pub worker: u32,
    /// Only the shadow that was loading to take the worker's place has ended; the worker itself goes
    /// on.
    pub shadow: bool,
    /// The cause in a word; the worker's requests are given up for this reason.
    pub cause: &'static str,
    /// The reason, in a sentence.
    pub why: String,
}

/// Carries out batches. Each worker's work is done in order.
pub trait Workers {
    /// The device that the workers share.
    fn info(&self) -> &DeviceInfo;

    /// Starts the run, with its clock at 0. Preparations that are still to be made are skipped as soon
    /// as a `stop` is requested.
    fn start_clock(&mut self, stop: &Stop) -> RunClock;

    /// Where the host's costs come from.
    fn host_costs(&self) -> HostCosts;

    /// Lays out the places of the workers to come.
    ///
    /// # Errors
    /// The layout cannot be carried out here, or the device cannot run the work.
    fn lay_out(&mut self, layout: &Layout) -> Result<(), DeviceError>;

    /// Changes the sizes of a pool's lanes. Afterwards the pool's workers come back ([`Self::open`]).
    ///
    /// # Errors
    /// The workers' shares are fixed when they start.
    fn repartition(&mut self, pool: u32, lanes: &[u32]) -> Result<(), DeviceError> {
        let _ = (pool, lanes);
        let reason = "workers are processes here, whose shares are set when they start";
        Err(DeviceError::unsupported("a live repartition", reason))
    }

    /// Adds a worker, or brings one back with another share. Numbers count up from 0.
    ///
    /// # Errors
    /// The device refuses.
    fn open(&mut self, worker: u32, spec: &WorkerSpec) -> Result<(), DeviceError>;

    /// Starts a shadow of a worker, which loads beside it with `memory` of its own. The next
    /// [`Self::open`] with the same place puts the shadow in the worker's place.
    ///
    /// # Errors
    /// The device refuses.
    fn open_shadow(
        &mut self,
        worker: u32,
        spec: &WorkerSpec,
        memory: Bytes,
    ) -> Result<(), DeviceError> {
        let _ = (worker, spec, memory);
        Ok(())
    }

    /// Whether a worker, or its shadow if it has one, has loaded its model.
    fn is_up(&mut self, worker: u32) -> bool {
        let _ = worker;
        true
    }

    /// Makes kernels ready for a worker before it needs them: code and operands. On a GPU each kernel
    /// runs once, since its first launch loads its code, and so do `copies` in and out, the largest
    /// that the worker will be asked for. First launches take long, so this ends between two of them as
    /// soon as a `stop` is requested.
    ///
    /// # Errors
    /// The device cannot run the work.
    fn warm(
        &mut self,
        worker: u32,
        kernels: &[u32],
        copies: [Bytes; 2],
        stop: &Stop,
    ) -> Result<(), DeviceError>;

    /// Whether a worker that was opened before the run has yet to load its model.
    fn is_gathering(&self) -> bool {
        false
    }

    /// Removes a worker that has nothing to do.
    ///
    /// # Errors
    /// The device refuses.
    fn close(&mut self, worker: u32) -> Result<(), DeviceError>;

    /// Hands a worker a whole batch.
    ///
    /// # Errors
    /// The device refuses.
    fn run(&mut self, batch: &Batch<'_>) -> Result<(), DeviceError>;

    /// Copies data for a worker; the end is reported if `tell` is set.
    ///
    /// # Errors
    /// The device refuses.
    fn copy(
        &mut self,
        worker: u32,
        direction: Direction,
        bytes: Bytes,
        issued: u64,
        tell: bool,
    ) -> Result<(), DeviceError>;

    /// Hands a worker one kernel.
    ///
    /// # Errors
    /// The device refuses.
    fn launch(&mut self, launch: &Launch) -> Result<(), DeviceError>;

    /// Hands a worker several kernels as one; `launch.kernel` is one of them.
    ///
    /// # Errors
    /// The device cannot merge the kernels.
    fn merge(&mut self, launch: &Launch, kernels: &[u32]) -> Result<(), DeviceError>;

    /// Preempts a worker's kernel from `at` on. The end that is reported says how much of the kernel is
    /// left.
    ///
    /// # Errors
    /// The device cannot preempt a kernel.
    fn preempt(&mut self, worker: u32, how: Preemption, at: u64) -> Result<(), DeviceError> {
        let _ = (worker, how, at);
        let reason = "workers are processes here, which are handed whole batches";
        Err(DeviceError::unsupported("preempting a kernel", reason))
    }

    /// Limits the board's clock to `mhz` from now on.
    ///
    /// # Errors
    /// This program may not set the device's clock.
    fn set_clock(&mut self, mhz: u32) -> Result<(), DeviceError> {
        let reason = "workers are processes here, and the board's clock is nobody's";
        Err(DeviceError::unsupported(format!("a clock of {mhz} MHz"), reason))
    }

    /// CUs that hold blocks of a worker's kernel; `None` if the device does not report that.
    fn held(&self, worker: u32) -> Option<u32> {
        let _ = worker;
        None
    }

    /// A worker whose kernels are handed over one by one begins or ends a batch. Contexts that run to
    /// completion keep their turn from one to the other.
    ///
    /// # Errors
    /// The device refuses.
    fn batch(&mut self, worker: u32, began: bool) -> Result<(), DeviceError> {
        let _ = (worker, began);
        Ok(())
    }

    /// Appends everything that has ended, in the order in which it ended.
    ///
    /// # Errors
    /// A launch has failed.
    fn poll(&mut self, ended: &mut Vec<Ended>) -> Result<(), DeviceError>;

    /// Appends the workers that have ended without being asked to, each once.
    fn lost(&mut self, lost: &mut Vec<Lost>) {
        let _ = lost;
    }

    /// Waits until there may be something to poll for, but no longer than `most` on the wall clock.
    fn doze(&mut self, most: Duration) {
        let _ = most;
        // A sleeping thread wakes later than a kernel lasts, so look again at once.
        std::thread::yield_now();
    }

    /// When the next end is due, if the device knows; `None` means that only polling tells.
    fn next_event(&mut self) -> Option<u64>;

    /// Whether no work is under way.
    fn is_idle(&self) -> bool;

    /// What the GPU has done so far; `None` if it does not report that.
    fn usage(&mut self) -> Option<Usage>;

    /// Waits for the work under way and discards it: the run is over.
    ///
    /// # Errors
    /// A launch has failed.
    fn drain(&mut self) -> Result<(), DeviceError>;

    /// Deviations from what a policy asked for, with numbers: masks rounded, changes of queue.
    fn counters(&self) -> Vec<Count> {
        vec![]
    }
}
