//! Finds out, without a panic, whether there is a CUDA driver with a GPU.
#![allow(unsafe_code)] // calls into a library that is loaded at run time

use cudarc::driver::sys;

use crate::error::Unavailable;

/// Driver calls that every use needs. cudarc resolves a call at its first use and panics if it is
/// missing, so they are looked up here.
const REQUIRED: &[&str] = &[
    "cuDriverGetVersion",
    "cuDeviceGetCount",
    "cuDeviceGet",
    "cuDeviceGetName",
    "cuDeviceGetAttribute",
    "cuDeviceGetUuid_v2",
    "cuDeviceTotalMem_v2",
    "cuDevicePrimaryCtxRetain",
    "cuDevicePrimaryCtxRelease_v2",
    "cuCtxSetCurrent",
    "cuCtxSynchronize",
    "cuModuleLoadData",
    "cuModuleUnload",
    "cuModuleGetFunction",
    "cuLaunchKernel",
    "cuStreamCreateWithPriority",
    "cuStreamDestroy_v2",
    "cuStreamSynchronize",
    "cuStreamWaitEvent",
    "cuCtxGetStreamPriorityRange",
    "cuEventCreate",
    "cuEventDestroy_v2",
    "cuEventRecord",
    "cuEventQuery",
    "cuEventSynchronize",
    "cuEventElapsedTime_v2",
    "cuMemAlloc_v2",
    "cuMemFree_v2",
    "cuMemcpyHtoD_v2",
    "cuMemcpyDtoH_v2",
    "cuMemsetD8_v2",
    "cuMemAllocHost_v2",
    "cuMemFreeHost",
    "cuMemcpyHtoDAsync_v2",
    "cuMemcpyDtoHAsync_v2",
    "cuOccupancyMaxActiveBlocksPerMultiprocessor",
    "cuFuncGetAttribute",
];

/// Driver calls of green contexts (CUDA 12.4).
const GREEN: &[&str] = &[
    "cuDeviceGetDevResource",
    "cuDevSmResourceSplitByCount",
    "cuDevResourceGenerateDesc",
    "cuGreenCtxCreate",
    "cuGreenCtxDestroy",
    "cuGreenCtxGetDevResource",
    "cuGreenCtxStreamCreate",
    "cuCtxFromGreenCtx",
    "cuCtxPushCurrent_v2",
    "cuCtxPopCurrent_v2",
];

/// What the driver offers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// CUDA version of the driver: 13000 is 13.0.
    pub cuda: i32,
    /// Number of GPUs that the driver shows.
    pub devices: u32,
    /// Whether partitions of SMs can be made.
    pub green_contexts: bool,
    /// Whether the library is the stand-in used in tests.
    pub stand_in: bool,
}

impl Probe {
    /// The driver's CUDA version in its usual form.
    #[must_use]
    pub fn cuda_version(&self) -> String {
        format!("{}.{}", self.cuda / 1000, self.cuda % 1000 / 10)
    }
}

/// Whether the driver exports `name`; the library must be present.
fn has(name: &str) -> bool {
    let name = format!("{name}\0");
    // SAFETY: the symbol is looked up, not used.
    unsafe { sys::culib().get::<*const ()>(name.as_bytes()).is_ok() }
}

/// Streams that share a hardware queue wait for each other, and the driver makes 8 queues (2 under MPS)
/// unless it is told otherwise before it starts. A value set by the user is kept.
fn connections() {
    const VARIABLE: &str = "CUDA_DEVICE_MAX_CONNECTIONS";
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        if std::env::var_os(VARIABLE).is_none() {
            // SAFETY: once per process, before the driver has threads; Rust's own readers take the
            // same lock.
            unsafe { std::env::set_var(VARIABLE, "32") };
        }
    });
}

/// Loads and starts the driver.
///
/// # Errors
/// What is missing, and how to fix it.
pub fn probe() -> Result<Probe, Unavailable> {
    // SAFETY: tries to load the library and to find a symbol in it.
    if !unsafe { sys::is_culib_present() } {
        return Err(Unavailable::NoDriver);
    }
    connections();
    // SAFETY: cuInit has this signature in every version. Its result is read as an integer: the
    // bindings' enum would be undefined for codes newer than they are.
    let code = unsafe {
        let init = sys::culib().get::<unsafe extern "C" fn(u32) -> i32>(b"cuInit\0");
        init.map_err(|_| Unavailable::MissingSymbol("cuInit"))?(0)
    };
    if code != 0 {
        return Err(Unavailable::InitFailed { code });
    }
    if let Some(missing) = REQUIRED.iter().find(|s| !has(s)) {
        return Err(Unavailable::MissingSymbol(missing));
    }
    let (mut cuda, mut devices) = (0, 0);
    // SAFETY: both write one integer.
    unsafe {
        let _ = sys::cuDriverGetVersion(&raw mut cuda);
        let _ = sys::cuDeviceGetCount(&raw mut devices);
    }
    let devices = u32::try_from(devices).unwrap_or(0);
    if devices == 0 {
        return Err(Unavailable::NoDevice);
    }
    let green_contexts = GREEN.iter().all(|s| has(s));
    Ok(Probe { cuda, devices, green_contexts, stand_in: has("cotenant_stand_in") })
}
