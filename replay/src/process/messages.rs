//! Messages between a worker process and its parent: one JSON value per line, over one socket. The
//! assignment comes first.

use serde::{Deserialize, Serialize};

use crate::error::DeviceError;
use crate::work::Work;

/// What a worker process is told to be.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Assignment {
    /// Process id of the parent; the worker ends with it.
    pub parent: u32,
    /// File of the counters that both processes see, as a path that the worker can open.
    pub counters: String,
    /// The worker's device.
    pub on: On,
    /// Where its kernels run.
    pub site: Site,
    /// Device memory of its model and context, bytes.
    pub memory: u64,
    /// The programs that it may be asked to run.
    pub programs: Vec<Program>,
    /// Most bytes that it may be asked to copy in and out.
    pub copies: [u64; 2],
}

/// The device of a worker process.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum On {
    /// A context on the parent's emulated GPU, over the worker's standard output.
    Emulated,
    /// A context of its own on a GPU.
    Cuda {
        /// Number of the GPU.
        ordinal: u32,
        /// CUs of the hardware instance that the worker should see, if it runs on one.
        instance: Option<u32>,
        /// Number and work of those of the scenario's kernels that its programs use.
        works: Vec<(u32, Work)>,
    },
}

/// Where a worker's kernels run on an emulated GPU. On a real GPU the MPS share of its process and its
/// turns decide that.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Site {
    /// Pool of the layout.
    pub pool: u32,
    /// Lane of the pool.
    pub lane: u32,
    /// Most CUs that one of its kernels may use.
    pub cap: u32,
    /// Where blocks compete, the larger priority goes first.
    pub priority: i8,
}

/// The launches of one batch size.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Program {
    /// Numbers of kernels in the scenario.
    pub kernels: Vec<u32>,
    /// When the host has issued each kernel, ns after it began to issue.
    pub issued_ns: Vec<u64>,
}

/// One pass over a program: copy inputs in, run kernels, copy results out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// Handed back when the pass has ended.
    pub number: u64,
    /// Index of the program.
    pub program: u32,
    /// Launches that replace a program: a step of a serving engine, put together when it runs.
    pub loaded: Option<Program>,
    /// Instant of the device's clock at which the host begins to issue; observed on an emulated device
    /// only.
    pub base: u64,
    /// Factors on the kernels' durations: one for all kernels, or one for each.
    pub scales: Vec<f64>,
    /// Bytes copied in before the kernels.
    pub input: u64,
    /// Bytes copied out after them.
    pub output: u64,
    /// Whether it is the first pass for these requests.
    pub first: bool,
    /// Whether it is the last pass.
    pub last: bool,
}

/// A message to a worker process.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Command {
    /// Run this pass after those that came before.
    Run(Run),
    /// End once everything has been run.
    Retire,
}

/// A message from a worker process.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Message {
    /// The worker has loaded its model; on a GPU it has also run it once.
    Up {
        /// CUs that it was actually given.
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
    /// The worker cannot go on, and ends.
    Failed {
        /// What kind of failure.
        kind: FailureKind,
        /// The reason, in words.
        reason: String,
    },
}

/// Kinds of failure that a run distinguishes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FailureKind {
    /// Its model does not fit into what is left of the device's memory.
    OutOfMemory,
    /// One of its kernels failed.
    KernelFailed,
    /// A kernel of another process failed and destroyed this process's context.
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
        // The driver's codes for the same failures.
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
