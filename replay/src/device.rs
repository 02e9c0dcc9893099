//! What replay, collection and validation ask of a GPU.

use cotenant_profiles::{Bytes, Nanos};

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
    /// Refuses what is no GPU, on behalf of a measurement.
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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Completion {
    /// The launch.
    pub ticket: Ticket,
    /// Time on the device between its start and its end, as the device's own events tell.
    pub duration: Nanos,
}

/// What measuring costs by itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Overhead {
    /// Time between two events with nothing in between: part of every duration.
    pub events: Nanos,
    /// Host time of one launch with its events.
    pub launch: Nanos,
    /// Host time of one poll that finds nothing.
    pub poll: Nanos,
}

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

    /// Launches prepared work behind what its queue holds already.
    ///
    /// # Errors
    /// The device's refusal; a fault of an earlier launch may show here.
    fn launch(&mut self, work: Prepared) -> Result<Ticket, DeviceError>;

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

    /// Measures what measuring costs.
    ///
    /// # Errors
    /// Those of launching.
    fn overhead(&mut self) -> Result<Overhead, DeviceError>;
}
