//! Messages between a process and another process's emulated GPU: one JSON value per line.

use std::io::{BufRead, Write};

use cotenant_profiles::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::clock::Clock;
use crate::device::Direction;
use crate::error::DeviceError;

/// A message to the GPU.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Ask {
    /// Asks for the facts; the first message on a connection.
    Hello,
    Place {
        pool: u32,
        lane: u32,
        cap: u32,
    },
    Partition {
        first: u32,
        cus: u32,
    },
    Allocate {
        partition: u32,
        bytes: u64,
    },
    Queue {
        partition: u32,
        priority: i8,
    },
    Kernel {
        queue: u32,
        kernel: u32,
    },
    Merge {
        queue: u32,
        parts: Vec<u32>,
    },
    /// Asks how many orders have not ended.
    Outstanding,
    /// Not answered: the GPU and the process count tickets in step.
    Orders(Vec<Order>),
}

/// A launch or a copy.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Order {
    Launch {
        work: u32,
        issued: u64,
        priority: Option<i8>,
        scale: f64,
        first: bool,
        last: bool,
        reported: bool,
    },
    Copy {
        queue: u32,
        direction: Direction,
        bytes: u64,
        issued: u64,
    },
}

/// A message from the GPU.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Tell {
    Facts {
        name: String,
        cus: u32,
        grain: u32,
        memory: u64,
        clock: Clock,
    },
    /// A number, and CUs if a partition was asked for.
    Done(u32, u32),
    /// A request was refused.
    Refused(Refusal),
    /// Ticket, duration, instant.
    Ended(Vec<(u64, u64, u64)>),
    /// The context is lost.
    Lost(Refusal),
}

/// A [`DeviceError`] in transit.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Refusal {
    OutOfMemory { need: u64, free: u64 },
    KernelFailed(String),
    NeighbourFailed,
    Other(String),
}

impl From<DeviceError> for Refusal {
    fn from(e: DeviceError) -> Self {
        match e {
            DeviceError::OutOfMemory { need, free } => {
                Self::OutOfMemory { need: need.0, free: free.0 }
            }
            DeviceError::KernelFailed(kernel) => Self::KernelFailed(kernel),
            DeviceError::NeighbourFailed => Self::NeighbourFailed,
            other => Self::Other(other.to_string()),
        }
    }
}

impl From<Refusal> for DeviceError {
    fn from(r: Refusal) -> Self {
        match r {
            Refusal::OutOfMemory { need, free } => {
                Self::OutOfMemory { need: Bytes(need), free: Bytes(free) }
            }
            Refusal::KernelFailed(kernel) => Self::KernelFailed(kernel),
            Refusal::NeighbourFailed => Self::NeighbourFailed,
            Refusal::Other(text) => Self::Refused(text),
        }
    }
}

/// Writes one value as a line.
pub(crate) fn say(to: &mut impl Write, what: &impl Serialize) -> std::io::Result<()> {
    serde_json::to_writer(&mut *to, what)?;
    to.write_all(b"\n")?;
    to.flush()
}

/// Reads one value; `None` at the end of the stream.
pub(crate) fn hear<T: DeserializeOwned>(from: &mut impl BufRead) -> std::io::Result<Option<T>> {
    let mut line = String::new();
    if from.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    Ok(Some(serde_json::from_str(&line)?))
}
