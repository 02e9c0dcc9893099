//! What the real world asks of those who carry its workers' batches out: streams of this process, or
//! processes of their own.

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

/// Where the host's costs come from: work per request, launches, and what a mechanism costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostCosts {
    /// The driver keeps the scenario's: nothing on this machine would cost as much.
    Kept,
    /// They are what they are.
    Real,
}

/// One kernel of a worker. Its end is told where `tell` says so.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Launch {
    /// Whose.
    pub worker: u32,
    /// An index into the scenario's kernels.
    pub kernel: u32,
    /// CUs it may use; `None`: the worker's own.
    pub mask: Option<CuMask>,
    /// Larger goes first where blocks compete; `None`: the worker's own.
    pub priority: Option<i8>,
    /// The host has issued it then, in the experiment's nanoseconds; it starts no earlier.
    pub issued: u64,
    /// How much of it.
    pub part: Part,
    /// Multiplies its duration.
    pub scale: f64,
    /// The first of its batch.
    pub first: bool,
    /// The last of its batch.
    pub last: bool,
    /// Tell its end.
    pub tell: bool,
}

/// Everything that a worker's batch does on the GPU, in order: inputs in, kernels, results out.
/// Its end is told once.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Batch<'a> {
    /// Whose.
    pub worker: u32,
    /// Indices into the scenario's kernels.
    pub kernels: &'a [u32],
    /// When the host has issued each, after `base`.
    pub issued_ns: &'a [u64],
    /// Multiplies each duration.
    pub scales: &'a [f64],
    /// When the host began to issue them, in the experiment's nanoseconds.
    pub base: u64,
    /// Copied in before.
    pub input: Bytes,
    /// Copied out behind.
    pub output: Bytes,
    /// It is the first pass over the model for these requests.
    pub first: bool,
    /// It is the last one.
    pub last: bool,
}

/// A mask that a policy is expected to launch a worker's kernels under.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Foreseen {
    /// Whose.
    pub worker: u32,
    /// CUs.
    pub mask: CuMask,
    /// Larger goes first where blocks compete.
    pub priority: i8,
}

/// What a worker had to do has ended.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ended {
    /// Whose.
    pub worker: u32,
    /// When, in the experiment's nanoseconds; where the device does not tell, when it was seen.
    pub at: u64,
    /// How.
    pub end: End,
}

/// A worker has gone without being asked to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lost {
    /// Which.
    pub worker: u32,
    /// It was only loading, to take the worker's place; the worker itself goes on.
    pub shadow: bool,
    /// In a word: the reason under which its requests are given up.
    pub cause: &'static str,
    /// In a sentence.
    pub why: String,
}

/// Those who carry batches out. What one worker is given is done in order.
pub trait Workers {
    /// The device that they share.
    fn info(&self) -> &DeviceInfo;

    /// The run begins: its clock shows 0. What had to be made ready for it is left out as soon as
    /// somebody wants to `stop`.
    fn start_clock(&mut self, stop: &Stop) -> RunClock;

    /// Who keeps the host's costs.
    fn host_costs(&self) -> HostCosts;

    /// Where the workers to come will have their places.
    ///
    /// # Errors
    /// A layout that cannot be carried out here, work that the device cannot run.
    fn lay_out(&mut self, layout: &Layout) -> Result<(), DeviceError>;

    /// The lanes of a pool have other sizes; their workers come back ([`Self::open`]) behind it.
    ///
    /// # Errors
    /// Workers whose shares are those that they started with.
    fn repartition(&mut self, pool: u32, lanes: &[u32]) -> Result<(), DeviceError> {
        let _ = (pool, lanes);
        let reason = "workers are processes here, whose shares are set when they start";
        Err(DeviceError::unsupported("a live repartition", reason))
    }

    /// A worker comes, or comes back with another share; numbers count up from 0.
    ///
    /// # Errors
    /// The device's refusal.
    fn open(&mut self, worker: u32, spec: &WorkerSpec) -> Result<(), DeviceError>;

    /// Another self of a worker begins to load beside it, with `memory` of its own; the next
    /// [`Self::open`] with the same place puts it in the worker's.
    ///
    /// # Errors
    /// The device's refusal.
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

    /// Makes kernels ready for a worker before it needs them: code, operands. On a GPU each runs once,
    /// since the first launch loads its code, and so do `copies` in and out, the largest
    /// that the worker will be asked for. First launches take long: it ends between two of them as soon
    /// as somebody wants to `stop`.
    ///
    /// # Errors
    /// Work that the device cannot run.
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

    /// A worker that has nothing to do goes.
    ///
    /// # Errors
    /// The device's refusal.
    fn close(&mut self, worker: u32) -> Result<(), DeviceError>;

    /// Hands a worker a whole batch.
    ///
    /// # Errors
    /// The device's refusal.
    fn run(&mut self, batch: &Batch<'_>) -> Result<(), DeviceError>;

    /// Copies for a worker; the end is told where `tell` says so.
    ///
    /// # Errors
    /// The device's refusal.
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
    /// The device's refusal.
    fn launch(&mut self, launch: &Launch) -> Result<(), DeviceError>;

    /// Hands a worker several kernels as one; `launch.kernel` is one of them.
    ///
    /// # Errors
    /// Kernels that the device cannot merge.
    fn merge(&mut self, launch: &Launch, kernels: &[u32]) -> Result<(), DeviceError>;

    /// Takes a worker's kernel off the CUs, from `at` on: its end says how much of it is left.
    ///
    /// # Errors
    /// A device that cannot.
    fn preempt(&mut self, worker: u32, how: Preemption, at: u64) -> Result<(), DeviceError> {
        let _ = (worker, how, at);
        let reason = "workers are processes here, which are handed whole batches";
        Err(DeviceError::unsupported("preempting a kernel", reason))
    }

    /// From now on the board's clock is at most that.
    ///
    /// # Errors
    /// A device whose clock is not this program's to set.
    fn set_clock(&mut self, mhz: u32) -> Result<(), DeviceError> {
        let reason = "workers are processes here, and the board's clock is nobody's";
        Err(DeviceError::unsupported(format!("a clock of {mhz} MHz"), reason))
    }

    /// CUs on which blocks of a worker's kernel lie; `None`: the device does not tell.
    fn held(&self, worker: u32) -> Option<u32> {
        let _ = worker;
        None
    }

    /// A worker whose kernels are handed over one by one begins or ends a batch: contexts that run
    /// to completion keep their turn in between.
    ///
    /// # Errors
    /// The device's refusal.
    fn batch(&mut self, worker: u32, began: bool) -> Result<(), DeviceError> {
        let _ = (worker, began);
        Ok(())
    }

    /// Appends what has ended, in the order in which it did.
    ///
    /// # Errors
    /// A launch that failed.
    fn poll(&mut self, ended: &mut Vec<Ended>) -> Result<(), DeviceError>;

    /// Appends the workers that have gone without being asked to, each once.
    fn lost(&mut self, lost: &mut Vec<Lost>) {
        let _ = lost;
    }

    /// Waits until there may be something to poll for, at most so long on the wall clock.
    fn doze(&mut self, most: Duration) {
        let _ = most;
        // A sleeper wakes later than a kernel lasts: look again at once.
        std::thread::yield_now();
    }

    /// When something will end, if the device knows. `None`: polling tells.
    fn next_event(&mut self) -> Option<u64>;

    /// Whether nothing is under way.
    fn is_idle(&self) -> bool;

    /// What the GPU did so far; `None`: it does not tell.
    fn usage(&mut self) -> Option<Usage>;

    /// Waits for what is under way and forgets it: the run is over.
    ///
    /// # Errors
    /// A launch that failed.
    fn drain(&mut self) -> Result<(), DeviceError>;

    /// Where it deviated from what a policy asked for, with numbers: grants rounded, hops.
    fn counters(&self) -> Vec<Count> {
        vec![]
    }
}
