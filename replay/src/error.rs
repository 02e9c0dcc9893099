//! Why a device cannot be used, or failed to do what it was asked.

use cotenant_profiles::Bytes;

/// Why there is no CUDA device to use.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unavailable {
    /// There is no driver library.
    #[error("no CUDA driver: libcuda.so.1 is not found; install the NVIDIA driver (580 or newer)")]
    NoDriver,
    /// The driver lacks a call that is needed, because it is too old.
    #[error("the CUDA driver has no {0}: driver 580 (CUDA 13.0) or newer is needed")]
    MissingSymbol(&'static str),
    /// The driver does not start.
    #[error("the CUDA driver does not start: cuInit gave {code} ({})", init_reason(*code))]
    InitFailed {
        /// The driver's error code.
        code: i32,
    },
    /// The driver finds no GPU.
    #[error("the CUDA driver finds no GPU")]
    NoDevice,
    /// There is no GPU of that number.
    #[error("no GPU {asked}: the driver finds {found}")]
    NoSuchDevice {
        /// Ordinal asked for.
        asked: u32,
        /// GPUs found.
        found: u32,
    },
    /// Another CUDA library is missing.
    #[error("{library} is not found; `pip install {package}` brings it, on LD_LIBRARY_PATH")]
    NoLibrary {
        /// The library.
        library: &'static str,
        /// The pip package that holds it.
        package: &'static str,
    },
}

/// The meaning of codes of cuInit, as far as they have been seen on real machines.
fn init_reason(code: i32) -> &'static str {
    match code {
        34 => "a stub library takes the driver's place",
        100 => "no GPU",
        803 => "kernel module and user library are of different versions",
        804 => "forward compatibility is not possible on this GPU",
        805 => "the MPS daemon does not give a server",
        999 => "unknown; see the system's log",
        _ => "see the CUDA driver API, CUresult",
    }
}

/// Why a device failed to do what it was asked.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum DeviceError {
    /// There is no device to begin with.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
    /// A call of a CUDA library failed.
    #[error("{call} failed: {code} ({name})")]
    Call {
        /// The function.
        call: &'static str,
        /// Its error code.
        code: i32,
        /// The name of the code.
        name: String,
    },
    /// The device cannot make this partition.
    #[error("CUs {first}..{}: {reason}", first + cus)]
    BadPartition {
        /// First CU.
        first: u32,
        /// CUs asked for.
        cus: u32,
        /// What would be possible instead.
        reason: String,
    },
    /// The device granted another number of CUs than was asked for.
    #[error("a partition of {asked} CUs was asked for, {granted} were granted")]
    NotGranted {
        /// CUs asked for.
        asked: u32,
        /// CUs read back.
        granted: u32,
    },
    /// A handle of another device, or an invalid one.
    #[error("no {what} {index} on this device")]
    NoSuch {
        /// Kind of handle.
        what: &'static str,
        /// Its number.
        index: u32,
    },
    /// The device does not support this work.
    #[error("{work}: {reason}")]
    Unsupported {
        /// The work.
        work: String,
        /// Why not, and what would work.
        reason: String,
    },
    /// Device memory is used up.
    #[error("out of GPU memory: {need} needed, {free} free")]
    OutOfMemory {
        /// Memory asked for.
        need: Bytes,
        /// Memory left.
        free: Bytes,
    },
    /// A kernel failed on the GPU; the context that launched it is lost.
    #[error("kernel `{0}` failed on the GPU; its context is lost")]
    KernelFailed(String),
    /// A kernel of another process failed and destroyed this process's context.
    #[error("a kernel of another process under MPS failed; this context is lost with it")]
    NeighbourFailed,
    /// The process that keeps the device does not answer.
    #[error("the device of another process is gone: {0}")]
    Gone(String),
    /// The process that keeps the device refuses.
    #[error("{0}")]
    Refused(String),
    /// A measurement was attempted on a device that is not a GPU.
    #[error("{0} is not a GPU: what it shows is not a measurement")]
    NotAGpu(String),
}

impl DeviceError {
    /// A failed call with its code's name.
    pub(crate) fn call(call: &'static str, code: i32, name: &dyn std::fmt::Debug) -> Self {
        Self::Call { call, code, name: format!("{name:?}") }
    }

    pub(crate) fn unsupported(work: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Unsupported { work: work.into(), reason: reason.into() }
    }
}
