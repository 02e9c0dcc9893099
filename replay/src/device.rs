//! What replay, collection and validation ask of a GPU.

use std::time::Duration;

use cotenant_profiles::{Bytes, Nanos};
use cotenant_sim::CuMask;
use cotenant_sim::action::Preemption;
use cotenant_sim::counter::Count;
use cotenant_sim::host::Part;
use cotenant_sim::layout::{Discipline, PoolSpec, WorkerSpec};
use serde::{Deserialize, Serialize};

use crate::clock::Clock;
use crate::error::DeviceError;
use crate::work::Work;

/// What stands behind a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A GPU.
    Gpu,
    /// A stand-in for the driver: the calls are real, the GPU is not.
    StandIn,
    /// A profile played in real time.
    Emulated,
}

/// Facts of a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceInfo {
    /// Its name.
    pub name: String,
    /// What stands behind it.
    pub kind: Kind,
    /// What tells it from others of its name; empty if unknown.
    pub uuid: String,
    /// Compute units.
    pub cus: u32,
    /// Partitions begin and end at multiples of this many CUs.
    pub grain: u32,
    /// Device memory.
    pub memory: Bytes,
    /// Driver and its CUDA version, such as `13.0`.
    pub driver: String,
}

impl DeviceInfo {
    /// Refuses what is not a GPU, on behalf of a measurement.
    ///
    /// # Errors
    /// The device is emulated or a stand-in.
    pub fn require_gpu(&self) -> Result<(), DeviceError> {
        match self.kind {
            Kind::Gpu => Ok(()),
            Kind::StandIn | Kind::Emulated => Err(DeviceError::NotAGpu(self.name.clone())),
        }
    }
}

/// A set of CUs; number 0 is the whole device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Partition {
    /// Its number on the device.
    pub index: u32,
    /// CUs granted, as read back from the device.
    pub granted: u32,
}

/// An in-order queue on a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Queue(pub u32);

/// A kernel made ready to launch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prepared(pub u32);

/// A launch; numbers ascend in the order of launches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(pub u64);

/// A launch that has ended.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Completion {
    /// The launch.
    pub ticket: Ticket,
    /// Time on the device between its start and its end, as the device's own events tell.
    pub duration: Nanos,
    /// When it ended, on the device's clock; where the device does not tell, when that was seen.
    pub at: Nanos,
    /// How.
    pub end: End,
}

/// How a launch ended.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum End {
    /// By itself.
    Done,
    /// Preempted: this share of its kernel is left of what it was to do.
    Preempted(f64),
    /// Taken back while it waited behind another one of its queue: nothing of it was done.
    Recalled,
}

/// Which way a copy goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Direction {
    /// To the device.
    In,
    /// From the device.
    Out,
}

/// A launch with everything that a driver of policies may say of it.
///
/// A GPU does not know most of this: [`Device::submit`] refuses there what would change the result,
/// and takes no notice of what only describes it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Launch {
    /// The kernel.
    pub work: Prepared,
    /// The host has issued it at this instant of the device's clock; it starts then at the
    /// earliest. A GPU's host is real: there it is launched when it is submitted.
    pub issued: Nanos,
    /// CUs that it may use, by their number within its queue's partition; `None`: all of them.
    /// For devices whose [`Device::masks_launches`].
    pub mask: Option<CuMask>,
    /// Instead of its queue's priority; with the same restriction.
    pub priority: Option<i8>,
    /// How much of the kernel it does.
    pub part: Part,
    /// Multiplies its duration: requests that are more work than the profile's. 1 on a GPU.
    pub scale: f64,
    /// The first of its batch: contexts that take turns may be kept for it until its last one.
    pub first: bool,
    /// The last of its batch.
    pub last: bool,
    /// Its end is reported.
    pub reported: bool,
}

impl Launch {
    /// The kernel, at once, and its end reported.
    #[must_use]
    pub fn of(work: Prepared) -> Self {
        let (issued, scale) = (Nanos::ZERO, 1.0);
        let (first, last, reported) = (false, false, true);
        let part = Part::WHOLE;
        Self { work, issued, mask: None, priority: None, part, scale, first, last, reported }
    }

    /// Whether it is what a GPU can do.
    ///
    /// # Errors
    /// It brings a mask or a priority of its own, or is to take another time than it takes.
    pub fn plain(&self) -> Result<(), DeviceError> {
        if self.mask.is_some() || self.priority.is_some() {
            let reason = "masks and priorities belong to queues here";
            return Err(DeviceError::unsupported("a launch with a mask or a priority", reason));
        }
        if self.part != Part::WHOLE {
            let reason = "the kernels of libraries launch whole grids; only kernels rewritten to take \
                          a range of their blocks can be cut";
            return Err(DeviceError::unsupported("a slice of a kernel", reason));
        }
        if self.scale != 1.0 {
            let reason = "a GPU's kernels take the time they take";
            return Err(DeviceError::unsupported("a launch with a scaled duration", reason));
        }
        Ok(())
    }
}

/// What measuring costs by itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Overhead {
    /// What the two events around a launch add to its duration.
    pub events: Nanos,
    /// Host time of one launch without events.
    pub plain: Nanos,
    /// Host time of one launch with its events.
    pub launch: Nanos,
    /// Host time of one poll that finds nothing.
    pub poll: Nanos,
}

/// What a device has done since it was opened.
pub use cotenant_sim::pool::Totals as Usage;

/// A GPU, or what keeps its time.
pub trait Device {
    /// Its facts.
    fn info(&self) -> &DeviceInfo;

    /// Cuts out `cus` CUs from number `first` on. Partitions may overlap.
    ///
    /// # Errors
    /// CUs that are not multiples of the grain or not there, and a grant of another size: a
    /// partition that is not granted is never replaced by another one.
    fn partition(&mut self, first: u32, cus: u32) -> Result<Partition, DeviceError>;

    /// The CUs of `within` that `cus` names by their number in it.
    ///
    /// # Errors
    /// Those of [`Device::partition`]; CUs in several pieces where only whole ranges can be cut.
    fn subset(&mut self, within: Partition, cus: &CuMask) -> Result<Partition, DeviceError> {
        let first = cus.iter().next().unwrap_or(0);
        let count = cus.count();
        let solid = *cus == CuMask::first(first + count).without(&CuMask::first(first));
        if within.index == 0 && solid {
            return self.partition(first, count);
        }
        let reason = "this device cuts ranges of CUs only from the whole device".to_owned();
        Err(DeviceError::BadPartition { first, cus: count, reason })
    }

    /// The CUs that a policy's layout gives to a worker.
    ///
    /// # Errors
    /// What this device cannot arrange inside one process: several pools (hardware instances),
    /// contexts that take turns, a cap without borders.
    fn place(&mut self, pools: &[PoolSpec], worker: &WorkerSpec) -> Result<Partition, DeviceError> {
        let cannot = |reason| Err(DeviceError::unsupported("this layout", reason));
        let [pool] = pools else {
            return cannot("hardware instances need a process each");
        };
        if pool.discipline != Discipline::Concurrent {
            return cannot("contexts that take turns need a process each");
        }
        let lanes = &pool.lanes;
        let (lane, cus) = (worker.lane as usize, lanes[worker.lane as usize]);
        if worker.cap < cus {
            return cannot("caps that overlap need a process each, under MPS");
        }
        if cus == self.info().cus {
            return Ok(Partition { index: 0, granted: cus });
        }
        self.partition(lanes[..lane].iter().sum(), cus)
    }

    /// Takes device memory for a model, until the device is dropped. On a GPU prepared work brings
    /// its own operands, and nothing is to be taken beforehand.
    ///
    /// # Errors
    /// There is not enough.
    fn allocate(&mut self, partition: Partition, bytes: Bytes) -> Result<(), DeviceError> {
        let _ = (partition, bytes);
        Ok(())
    }

    /// An in-order queue; `priority` as in a policy: larger goes first.
    ///
    /// # Errors
    /// No such partition, or the device's refusal.
    fn queue(&mut self, partition: Partition, priority: i8) -> Result<Queue, DeviceError>;

    /// Makes work ready to launch on `queue`: code, operands, library plans.
    ///
    /// # Errors
    /// Work that this device cannot do, with the reason and the remedy.
    fn prepare(&mut self, queue: Queue, work: &Work) -> Result<Prepared, DeviceError>;

    /// Makes kernel number `kernel` of the scenario that the device was made for ready; the same
    /// again for the same kernel and queue.
    ///
    /// # Errors
    /// No such kernel, or a device that was made for no scenario.
    fn prepare_kernel(&mut self, queue: Queue, kernel: u32) -> Result<Prepared, DeviceError> {
        let _ = queue;
        let work = format!("kernel {kernel}");
        Err(DeviceError::unsupported(work, "the device was made for no scenario"))
    }

    /// Makes the work of several prepared kernels ready as one launch on `queue`; the same again
    /// for the same kernels and queue.
    ///
    /// # Errors
    /// Kernels that cannot be merged here.
    fn merge(&mut self, queue: Queue, parts: &[Prepared]) -> Result<Prepared, DeviceError> {
        let _ = queue;
        let work = format!("{} kernels as one launch", parts.len());
        Err(DeviceError::unsupported(work, "this device merges nothing"))
    }

    /// Launches prepared work behind what its queue holds already.
    ///
    /// # Errors
    /// The device's refusal; a fault of an earlier launch may show here.
    fn launch(&mut self, work: Prepared) -> Result<Ticket, DeviceError>;

    /// Launches prepared work behind what its queue holds already, with all that is known of it.
    ///
    /// # Errors
    /// Those of [`Device::launch`], and what this device cannot honour.
    fn submit(&mut self, launch: &Launch) -> Result<Ticket, DeviceError> {
        launch.plain()?;
        self.launch(launch.work)
    }

    /// Launches prepared work on another queue than the one it was made ready for: operands and
    /// plans serve there, too.
    ///
    /// # Errors
    /// Those of [`Device::submit`].
    fn submit_on(&mut self, queue: Queue, launch: &Launch) -> Result<Ticket, DeviceError> {
        let _ = (queue, launch);
        let reason = "this device launches work on the queue that it was made ready for";
        Err(DeviceError::unsupported("a launch on another queue", reason))
    }

    /// The lanes of a pool have other sizes, and those that change are empty. A GPU has nothing to do:
    /// its partitions are cut as workers get their places.
    ///
    /// # Errors
    /// No such pool.
    fn repartition(&mut self, pool: u32, lanes: &[u32]) -> Result<(), DeviceError> {
        let _ = (pool, lanes);
        Ok(())
    }

    /// CUs on which blocks of the kernel at the head of a queue lie; `None`: the device does not tell.
    fn held(&self, queue: Queue) -> Option<u32> {
        let _ = queue;
        None
    }

    /// From now on the board's clock is at most that.
    ///
    /// # Errors
    /// A device whose clock is not this program's to set.
    fn set_clock(&mut self, mhz: u32) -> Result<(), DeviceError> {
        let work = format!("a clock of {mhz} MHz");
        let reason = "it takes an administrator (nvidia-smi --lock-gpu-clocks), and holds for everybody \
                      on the GPU: set it by hand, and leave the policy's scaling off";
        Err(DeviceError::unsupported(work, reason))
    }

    /// A batch begins or ends on a queue whose kernels are launched one by one: a context that runs to
    /// completion keeps its turn in between.
    ///
    /// # Errors
    /// No such queue.
    fn batch(&mut self, queue: Queue, began: bool) -> Result<(), DeviceError> {
        let _ = (queue, began);
        Ok(())
    }

    /// Takes the kernel at the head of a queue off the CUs, from `at` on, and what waits behind it off
    /// the queue. Their [`Completion`]s say how much is left; the head may also end by itself before.
    ///
    /// # Errors
    /// No such queue, or a device that cannot.
    fn preempt(&mut self, queue: Queue, how: Preemption, at: Nanos) -> Result<(), DeviceError> {
        let _ = (queue, at);
        let (what, reason) = match how {
            Preemption::Reset => ("killing a kernel", "it takes a changed driver (REEF, on AMD)"),
            Preemption::Unstarted => (
                "taking a launched kernel back",
                "it takes kernels whose blocks look for the order before they begin",
            ),
            Preemption::Blocks => (
                "stopping a kernel between its blocks",
                "it takes kernels rewritten as persistent threads that look for the order",
            ),
            Preemption::Save => (
                "saving a running kernel",
                "it takes a changed driver that sets time slices (GPreempt, XSched's third level)",
            ),
        };
        Err(DeviceError::unsupported(what, reason))
    }

    /// Whether a launch may bring a mask and a priority of its own.
    fn masks_launches(&self) -> bool {
        false
    }

    /// Copies between host and device, behind what the queue holds already. As with a launch,
    /// `issued` is when the host has issued it.
    ///
    /// # Errors
    /// The device's refusal.
    fn copy(
        &mut self,
        queue: Queue,
        direction: Direction,
        bytes: Bytes,
        issued: Nanos,
    ) -> Result<Ticket, DeviceError> {
        let _ = (queue, direction, issued);
        Err(DeviceError::unsupported(format!("a copy of {bytes}"), "this device copies nothing"))
    }

    /// The clock by which it tells time.
    fn clock(&self) -> Clock {
        Clock::wall()
    }

    /// When something of what was submitted will end or start, if the device knows: nothing is to be
    /// polled for before that. `None`: poll, or nothing is under way.
    fn next_event(&mut self) -> Option<Nanos> {
        None
    }

    /// What it has done so far; `None`: it does not tell.
    fn usage(&mut self) -> Option<Usage> {
        None
    }

    /// Waits until something may have ended, at most `most` of wall time.
    fn doze(&mut self, most: Duration) {
        /// Shorter than kernels that are worth waiting for asleep, and long against a poll.
        const NAP: Duration = Duration::from_micros(20);
        std::thread::sleep(most.min(NAP));
    }

    /// Appends what has ended since the last call, without waiting.
    ///
    /// # Errors
    /// A launch that failed.
    fn poll(&mut self, ended: &mut Vec<Completion>) -> Result<(), DeviceError>;

    /// Waits until every launch has ended; appends them.
    ///
    /// # Errors
    /// A launch that failed.
    fn wait(&mut self, ended: &mut Vec<Completion>) -> Result<(), DeviceError>;

    /// Waits until everything in a queue has ended, without reporting it.
    ///
    /// # Errors
    /// A launch that failed.
    fn finish(&mut self, queue: Queue) -> Result<(), DeviceError> {
        let _ = queue;
        Ok(())
    }

    /// What it made, and where it deviated, with numbers since it was opened.
    fn counters(&self) -> Vec<Count> {
        vec![]
    }

    /// Measures what measuring costs.
    ///
    /// # Errors
    /// Those of launching.
    fn overhead(&mut self) -> Result<Overhead, DeviceError>;
}
