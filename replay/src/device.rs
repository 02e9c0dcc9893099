//! The interface to a GPU that replay, collection and validation use.

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

/// What a device really is.
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
    /// What the device really is.
    pub kind: Kind,
    /// Distinguishes it from other devices of the same name; empty if unknown.
    pub uuid: String,
    /// Compute units.
    pub cus: u32,
    /// Partitions start and end at multiples of this many CUs.
    pub grain: u32,
    /// Device memory.
    pub memory: Bytes,
    /// Driver and its CUDA version, such as `13.0`.
    pub driver: String,
}

impl DeviceInfo {
    /// Refuses a device that is not a GPU, on behalf of a measurement.
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
    /// Time on the device between its start and its end, according to the device's own events.
    pub duration: Nanos,
    /// When it ended, on the device's clock; if the device does not report that, when its end was seen.
    pub at: Nanos,
    /// How it ended.
    pub end: End,
}

/// How a launch ended.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum End {
    /// It ran to its end.
    Done,
    /// It was preempted. This share of its kernel's work is left.
    Preempted(f64),
    /// It was taken back while it waited behind another launch in its queue; none of its work was done.
    Recalled,
}

/// The direction of a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Direction {
    /// To the device.
    In,
    /// From the device.
    Out,
}

/// A launch, with everything that the driver of a policy can say about it.
///
/// A GPU knows little of this: there, [`Device::submit`] refuses settings that would change the result,
/// and ignores those that only describe it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Launch {
    /// The kernel.
    pub work: Prepared,
    /// The host has issued it at this instant of the device's clock, and it starts no earlier. A GPU's
    /// host is real: it launches when the launch is submitted.
    pub issued: Nanos,
    /// CUs that it may use, numbered within its queue's partition; `None` means all of them. Only for
    /// devices with [`Device::masks_launches`].
    pub mask: Option<CuMask>,
    /// Overrides its queue's priority. Only for devices with [`Device::masks_launches`].
    pub priority: Option<i8>,
    /// The part of the kernel that it runs.
    pub part: Part,
    /// Multiplies its duration, for requests that are more work than the profile's. Always 1 on a GPU.
    pub scale: f64,
    /// The first of its batch. Contexts that take turns may keep their turn from it to the last.
    pub first: bool,
    /// The last of its batch.
    pub last: bool,
    /// Whether its end is reported.
    pub reported: bool,
}

impl Launch {
    /// Launches the whole kernel at once, with its end reported.
    #[must_use]
    pub fn of(work: Prepared) -> Self {
        let (issued, scale) = (Nanos::ZERO, 1.0);
        let (first, last, reported) = (false, false, true);
        let part = Part::WHOLE;
        Self { work, issued, mask: None, priority: None, part, scale, first, last, reported }
    }

    /// Checks that a GPU can do it.
    ///
    /// # Errors
    /// The launch has a mask or a priority of its own, or is to take longer or shorter than it really
    /// takes.
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

/// The overhead of measuring itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Overhead {
    /// What the two events around a launch add to its measured duration.
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

/// A GPU, or an emulation that keeps its time.
pub trait Device {
    /// Facts about the device.
    fn info(&self) -> &DeviceInfo;

    /// Makes a partition of `cus` CUs, starting at number `first`. Partitions may overlap.
    ///
    /// # Errors
    /// The CUs are not multiples of the grain or do not exist, or the device grants another size. A
    /// partition that is not granted is never replaced by another one.
    fn partition(&mut self, first: u32, cus: u32) -> Result<Partition, DeviceError>;

    /// Makes a partition of those CUs of `within` that `cus` names, numbered within it.
    ///
    /// # Errors
    /// Those of [`Device::partition`]; or the CUs are in several pieces, and the device can cut only
    /// contiguous ranges.
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
    /// This device cannot arrange the layout inside one process: several pools (hardware instances),
    /// contexts that take turns, a cap without fixed borders.
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

    /// Allocates device memory for a model, until the device is dropped. On a GPU, prepared work brings
    /// its own operands, so nothing is allocated beforehand.
    ///
    /// # Errors
    /// There is not enough memory.
    fn allocate(&mut self, partition: Partition, bytes: Bytes) -> Result<(), DeviceError> {
        let _ = (partition, bytes);
        Ok(())
    }

    /// Makes an in-order queue. As in a policy, the larger `priority` goes first.
    ///
    /// # Errors
    /// There is no such partition, or the device refuses.
    fn queue(&mut self, partition: Partition, priority: i8) -> Result<Queue, DeviceError>;

    /// Makes work ready to launch on `queue`: code, operands, library plans.
    ///
    /// # Errors
    /// This device cannot do the work; the error gives the reason and the remedy.
    fn prepare(&mut self, queue: Queue, work: &Work) -> Result<Prepared, DeviceError>;

    /// Makes kernel number `kernel` ready, counted in the scenario that the device was made for. The
    /// same kernel and queue give the same result again.
    ///
    /// # Errors
    /// There is no such kernel, or the device was made for no scenario.
    fn prepare_kernel(&mut self, queue: Queue, kernel: u32) -> Result<Prepared, DeviceError> {
        let _ = queue;
        let work = format!("kernel {kernel}");
        Err(DeviceError::unsupported(work, "the device was made for no scenario"))
    }

    /// Makes the work of several prepared kernels ready as one launch on `queue`. The same kernels and
    /// queue give the same result again.
    ///
    /// # Errors
    /// These kernels cannot be merged here.
    fn merge(&mut self, queue: Queue, parts: &[Prepared]) -> Result<Prepared, DeviceError> {
        let _ = queue;
        let work = format!("{} kernels as one launch", parts.len());
        Err(DeviceError::unsupported(work, "this device merges nothing"))
    }

    /// Launches prepared work behind what its queue already holds.
    ///
    /// # Errors
    /// The device refuses. The fault of an earlier launch may surface here.
    fn launch(&mut self, work: Prepared) -> Result<Ticket, DeviceError>;

    /// Launches prepared work behind what its queue already holds, with everything known about it.
    ///
    /// # Errors
    /// Those of [`Device::launch`], and settings that this device cannot honour.
    fn submit(&mut self, launch: &Launch) -> Result<Ticket, DeviceError> {
        launch.plain()?;
        self.launch(launch.work)
    }

    /// Launches prepared work on a queue other than the one it was made ready for. Its operands and
    /// plans serve there, too.
    ///
    /// # Errors
    /// Those of [`Device::submit`].
    fn submit_on(&mut self, queue: Queue, launch: &Launch) -> Result<Ticket, DeviceError> {
        let _ = (queue, launch);
        let reason = "this device launches work on the queue that it was made ready for";
        Err(DeviceError::unsupported("a launch on another queue", reason))
    }

    /// Changes the sizes of a pool's lanes; the lanes that change are empty. A GPU has nothing to do:
    /// its partitions are made as workers get their places.
    ///
    /// # Errors
    /// There is no such pool.
    fn repartition(&mut self, pool: u32, lanes: &[u32]) -> Result<(), DeviceError> {
        let _ = (pool, lanes);
        Ok(())
    }

    /// CUs that hold blocks of the kernel at the head of a queue; `None` if the device does not report
    /// that.
    fn held(&self, queue: Queue) -> Option<u32> {
        let _ = queue;
        None
    }

    /// Limits the board's clock to `mhz` from now on.
    ///
    /// # Errors
    /// This program may not set the device's clock.
    fn set_clock(&mut self, mhz: u32) -> Result<(), DeviceError> {
        let work = format!("a clock of {mhz} MHz");
        let reason = "it takes an administrator (nvidia-smi --lock-gpu-clocks), and holds for everybody \
                      on the GPU: set it by hand, and leave the policy's scaling off";
        Err(DeviceError::unsupported(work, reason))
    }

    /// A batch begins or ends on a queue whose kernels are launched one by one. A context that runs to
    /// completion keeps its turn from one to the other.
    ///
    /// # Errors
    /// There is no such queue.
    fn batch(&mut self, queue: Queue, began: bool) -> Result<(), DeviceError> {
        let _ = (queue, began);
        Ok(())
    }

    /// Preempts the kernel at the head of a queue from `at` on, and takes back the launches that wait
    /// behind it. Their [`Completion`]s say how much is left. The head may also reach its end first.
    ///
    /// # Errors
    /// There is no such queue, or the device cannot preempt.
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

    /// Whether a launch may carry its own mask and priority.
    fn masks_launches(&self) -> bool {
        false
    }

    /// Copies between host and device, behind what the queue already holds. As for a launch, `issued`
    /// is when the host has issued it.
    ///
    /// # Errors
    /// The device refuses.
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

    /// The device's clock.
    fn clock(&self) -> Clock {
        Clock::wall()
    }

    /// When the next submitted launch will start or end, if the device knows; polling before that is
    /// pointless. `None` means that the caller must poll, or that nothing is under way.
    fn next_event(&mut self) -> Option<Nanos> {
        None
    }

    /// What the device has done so far; `None` if it does not report that.
    fn usage(&mut self) -> Option<Usage> {
        None
    }

    /// Waits until something may have ended, at most `most` of wall time.
    fn doze(&mut self, most: Duration) {
        /// Shorter than any kernel worth sleeping for, and long compared with a poll.
        const NAP: Duration = Duration::from_micros(20);
        std::thread::sleep(most.min(NAP));
    }

    /// Appends the launches that have ended since the last call, without waiting.
    ///
    /// # Errors
    /// A launch has failed.
    fn poll(&mut self, ended: &mut Vec<Completion>) -> Result<(), DeviceError>;

    /// Waits until every launch has ended, and appends them.
    ///
    /// # Errors
    /// A launch has failed.
    fn wait(&mut self, ended: &mut Vec<Completion>) -> Result<(), DeviceError>;

    /// Waits until everything in a queue has ended, without reporting it.
    ///
    /// # Errors
    /// A launch has failed.
    fn finish(&mut self, queue: Queue) -> Result<(), DeviceError> {
        let _ = queue;
        Ok(())
    }

    /// What the device made, and where it deviated from what was asked, in numbers since it was opened.
    fn counters(&self) -> Vec<Count> {
        vec![]
    }

    /// Measures the overhead of measuring itself.
    ///
    /// # Errors
    /// Those of launching.
    fn overhead(&mut self) -> Result<Overhead, DeviceError>;
}
