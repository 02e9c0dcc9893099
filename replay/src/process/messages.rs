//! What a worker process and the one that started it say to each other: a JSON value a line, over
//! one socket. The assignment comes first.

use serde::{Deserialize, Serialize};

use crate::error::DeviceError;
use crate::work::Work;

/// What a worker process is to be.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Assignment {
    /// Process that started it: it ends with that one.
    pub parent: u32,
    /// File of the counters that both see, by a path that the worker can open.
    pub counters: String,
    /// Its device.
    pub on: On,
    /// Where its kernels run.
    pub site: Site,
    /// Device memory of its model and context, bytes.
    pub memory: u64,
    /// What it may be asked to run.
    pub programs: Vec<Program>,
    /// Most bytes that it may be asked to copy in and out.
    pub copies: [u64; 2],
}

/// The device of a worker process.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum On {
    /// A context on the emulated GPU of the process that started it, over its standard output.
    Emulated,
    /// A context of its own on a GPU.
    Cuda {
        /// Number of the GPU.
        ordinal: u32,
        /// CUs of the hardware instance that it is meant to see, if it is one.
        instance: Option<u32>,
        /// The scenario's kernels, as far as its programs use them: number and work.
        works: Vec<(u32, Work)>,
    },
}

/// Where a worker's kernels run on an emulated GPU; on a real one its process's share of MPS and
/// its turns say that.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Site {
    /// Pool of the layout.
    pub pool: u32,
    /// Lane of the pool.
    pub lane: u32,
    /// Most CUs that one of its kernels may use.
    pub cap: u32,
    /// Larger goes first where blocks compete.
    pub priority: i8,
}

/// The launches of one batch size.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Program {
    /// Numbers of kernels in the scenario.
    pub kernels: Vec<u32>,
    /// When the host has issued each, ns after it began.
    pub issued_ns: Vec<u64>,
}

/// One pass over a program: the inputs in, the kernels, the results out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// Handed back when it has ended.
    pub number: u64,
    /// Which of the programs.
    pub program: u32,
    /// What is launched in place of a program: a step of a serving engine, put together when it runs.
    pub loaded: Option<Program>,
    /// Instant of the device's clock at which the host begins to issue; kept on an emulated device.
    pub base: u64,
    /// Factors on the kernels' durations, one for all or one for each.
    pub scales: Vec<f64>,
    /// Bytes copied in before.
    pub input: u64,
    /// Bytes copied out behind.
    pub output: u64,
    /// The first pass for these requests.
    pub first: bool,
    /// The last one.
    pub last: bool,
}

/// To a worker process.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Command {
    /// Run this, behind what came before.
    Run(Run),
    /// End once everything has been run.
    Retire,
}

/// From a worker process.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Message {
    /// It has loaded its model, and on a GPU run it once.
    Up {
        /// CUs that it was really given.
        cus: u32,
    },
    /// A pass has ended.
    Ended {
        /// Its number.
        number: u64,
        /// Instant of the device's clock at which the worker handed it to the device.
        began: u64,
        /// When it ended.
        at: u64,
        /// Copies that its device cannot do.
        copies_left_out: u32,
    },
    /// It cannot go on, and ends.
    Failed {
        /// What kind of failure.
        kind: FailureKind,
        /// In words.
        reason: String,
    },
}

/// Kinds of failure that a run is told apart by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FailureKind {
    /// Its model does not fit into what is left of the device's memory.
    OutOfMemory,
    /// One of its kernels failed.
    KernelFailed,
    /// Another process's kernel failed, and took its context along.
    NeighbourFailed,
    /// Anything else.
    Device,
}

impl FailureKind {
    /// The reason under which requests are given up.
    #[must_use]
    pub fn cause(self) -> &'static str {
        match self {
            Self::OutOfMemory => "out-of-memory",
            Self::KernelFailed => "kernel-failed",
            Self::NeighbourFailed => "neighbour-failed",
            Self::Device => "worker-failed",
        }
    }
}

impl From<&DeviceError> for FailureKind {
    fn from(e: &DeviceError) -> Self {
        // The driver's numbers for the same.
        const OUT_OF_MEMORY: i32 = 2;
        const MPS_CLIENT_TERMINATED: i32 = 809;
        /// Illegal address, launch timeout, assertion, stack, instruction, alignment, address
        /// space, program counter, launch failure: `CUresult` 700 and following.
        const KERNEL: [i32; 10] = [700, 702, 710, 714, 715, 716, 717, 718, 719, 720];
        match e {
            DeviceError::OutOfMemory { .. } => Self::OutOfMemory,
            DeviceError::KernelFailed(_) => Self::KernelFailed,
            DeviceError::NeighbourFailed => Self::NeighbourFailed,
            DeviceError::Call { code: OUT_OF_MEMORY, .. } => Self::OutOfMemory,
            DeviceError::Call { code: MPS_CLIENT_TERMINATED, .. } => Self::NeighbourFailed,
            DeviceError::Call { code, .. } if KERNEL.contains(code) => Self::KernelFailed,
            _ => Self::Device,
        }
    }
}
