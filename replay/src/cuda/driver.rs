//! Driver handles that free themselves. Each holds what it depends on: streams are freed before their
//! green context (destroying that first leaks them), and green contexts before the device's context.
#![allow(unsafe_code)] // the driver's C interface; reached only after the probe

use std::ffi::CString;
use std::rc::Rc;

use cudarc::driver::sys;

use crate::error::DeviceError;

/// Turns a result into an error with the call's name.
pub(super) fn check(call: &'static str, result: sys::CUresult) -> Result<(), DeviceError> {
    match result as i32 {
        0 => Ok(()),
        code => Err(DeviceError::Call { call, code, name: format!("{result:?}") }),
    }
}

/// Calls a driver function and names it in any error.
macro_rules! cu {
    ($name:ident ( $($argument:expr),* $(,)? )) => {
        check(stringify!($name), sys::$name($($argument),*))
    };
}
pub(super) use cu;

/// The primary context of a GPU, current on the thread that made it.
pub(super) struct Context {
    pub(super) device: sys::CUdevice,
    raw: sys::CUcontext,
}

impl Context {
    pub(super) fn new(ordinal: u32) -> Result<Rc<Self>, DeviceError> {
        let (mut device, mut raw) = (0, std::ptr::null_mut());
        // SAFETY: the probe has initialised the driver; both write one handle.
        unsafe {
            cu!(cuDeviceGet(&raw mut device, ordinal as i32))?;
            cu!(cuDevicePrimaryCtxRetain(&raw mut raw, device))?;
            let context = Self { device, raw };
            cu!(cuCtxSetCurrent(raw))?;
            Ok(Rc::new(context))
        }
    }

    pub(super) fn synchronize(&self) -> Result<(), DeviceError> {
        // SAFETY: a context is current.
        unsafe { cu!(cuCtxSynchronize()) }
    }

    pub(super) fn attribute(&self, which: sys::CUdevice_attribute) -> Result<u32, DeviceError> {
        let mut value = 0;
        // SAFETY: writes one integer.
        unsafe { cu!(cuDeviceGetAttribute(&raw mut value, which, self.device))? };
        Ok(u32::try_from(value).unwrap_or(0))
    }

    pub(super) fn name(&self) -> Result<String, DeviceError> {
        let mut text = [0u8; 256];
        // SAFETY: at most 256 bytes are written, with a zero at the end.
        unsafe { cu!(cuDeviceGetName(text.as_mut_ptr().cast(), 256, self.device))? };
        let end = text.iter().position(|b| *b == 0).unwrap_or(text.len());
        Ok(String::from_utf8_lossy(&text[..end]).into_owned())
    }

    pub(super) fn uuid(&self) -> Result<String, DeviceError> {
        let mut uuid = sys::CUuuid { bytes: [0; 16] };
        // SAFETY: writes 16 bytes.
        unsafe { cu!(cuDeviceGetUuid_v2(&raw mut uuid, self.device))? };
        let hex: Vec<String> = uuid.bytes.iter().map(|b| format!("{:02x}", *b as u8)).collect();
        let part = |r: std::ops::Range<usize>| hex[r].concat();
        let parts = [part(0..4), part(4..6), part(6..8), part(8..10), part(10..16)];
        Ok(format!("GPU-{}", parts.join("-")))
    }

    pub(super) fn memory(&self) -> Result<u64, DeviceError> {
        let mut bytes = 0;
        // SAFETY: writes one size.
        unsafe { cu!(cuDeviceTotalMem_v2(&raw mut bytes, self.device))? };
        Ok(bytes as u64)
    }

    /// The least and greatest priorities that streams can have, in the driver's numbering.
    pub(super) fn priorities(&self) -> Result<[i32; 2], DeviceError> {
        let (mut least, mut greatest) = (0, 0);
        // SAFETY: writes two integers.
        unsafe { cu!(cuCtxGetStreamPriorityRange(&raw mut least, &raw mut greatest))? };
        Ok([least, greatest])
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: retained once in `new`.
        let _ = unsafe { cu!(cuDevicePrimaryCtxRelease_v2(self.device)) };
        let _ = self.raw;
    }
}

/// Loaded code.
pub(super) struct Module {
    raw: sys::CUmodule,
    _context: Rc<Context>,
}

impl Module {
    /// Loads PTX, which the driver compiles for its GPU.
    pub(super) fn load(context: &Rc<Context>, ptx: &str) -> Result<Self, DeviceError> {
        let text =
            CString::new(ptx).map_err(|_| DeviceError::unsupported("module", "a zero byte"))?;
        let mut raw = std::ptr::null_mut();
        // SAFETY: the text ends with a zero; writes one handle.
        unsafe { cu!(cuModuleLoadData(&raw mut raw, text.as_ptr().cast()))? };
        Ok(Self { raw, _context: Rc::clone(context) })
    }

    pub(super) fn function(&self, name: &str) -> Result<sys::CUfunction, DeviceError> {
        let c = CString::new(name).map_err(|_| DeviceError::unsupported(name, "a zero byte"))?;
        let mut raw = std::ptr::null_mut();
        // SAFETY: writes one handle, which lives as long as the module.
        unsafe { cu!(cuModuleGetFunction(&raw mut raw, self.raw, c.as_ptr()))? };
        Ok(raw)
    }
}

impl Drop for Module {
    fn drop(&mut self) {
        // SAFETY: loaded in `load`, and whatever launches its functions holds the device.
        let _ = unsafe { cu!(cuModuleUnload(self.raw)) };
    }
}

/// The SMs of a device, split once into equal atoms. A partition is a set of atoms, and all of its
/// atoms must come from the same split.
pub(super) struct Atoms {
    atoms: Vec<sys::CUdevResource>,
    pub(super) grain: u32,
}

/// SMs of a resource.
fn sms(resource: &sys::CUdevResource) -> u32 {
    // SAFETY: every resource here was requested as a resource of SMs.
    unsafe { resource.__bindgen_anon_1.sm.smCount }
}

const SM: sys::CUdevResourceType = sys::CUdevResourceType::CU_DEV_RESOURCE_TYPE_SM;

fn empty_resource() -> sys::CUdevResource {
    // SAFETY: plain data, for which zero is the documented initial value.
    unsafe { std::mem::zeroed() }
}

impl Atoms {
    /// Splits the SMs. `fine` gives the smallest atoms, but gives up the co-scheduling of SMs that
    /// large clusters need.
    pub(super) fn cut(context: &Context, fine: bool) -> Result<Self, DeviceError> {
        const IGNORE_SM_COSCHEDULING: u32 = 1;
        let flags = if fine { IGNORE_SM_COSCHEDULING } else { 0 };
        let least = if fine { 2 } else { 8 };
        let mut whole = empty_resource();
        let mut rest = empty_resource();
        let mut count = 0;
        // SAFETY: the first call counts, the second fills as many as were counted.
        let atoms = unsafe {
            cu!(cuDeviceGetDevResource(context.device, &raw mut whole, SM))?;
            let null = std::ptr::null_mut();
            cu!(cuDevSmResourceSplitByCount(
                null,
                &raw mut count,
                &raw const whole,
                null,
                flags,
                least
            ))?;
            let mut atoms = vec![empty_resource(); count as usize];
            cu!(cuDevSmResourceSplitByCount(
                atoms.as_mut_ptr(),
                &raw mut count,
                &raw const whole,
                &raw mut rest,
                flags,
                least,
            ))?;
            atoms.truncate(count as usize);
            atoms
        };
        let grain = atoms.first().map_or(0, sms);
        Ok(Self { atoms, grain })
    }

    pub(super) fn len(&self) -> u32 {
        self.atoms.len() as u32
    }
}

/// A partition of SMs.
pub(super) struct Green {
    raw: sys::CUgreenCtx,
    pub(super) granted: u32,
    context: Rc<Context>,
}

impl Green {
    /// A green context of some atoms of one split. The number of SMs granted is read back.
    pub(super) fn new(
        context: &Rc<Context>,
        cut: &Atoms,
        atoms: &[u32],
    ) -> Result<Rc<Self>, DeviceError> {
        let mut parts: Vec<_> = atoms.iter().map(|&i| cut.atoms[i as usize]).collect();
        let count = parts.len() as u32;
        let mut description = std::ptr::null_mut();
        let mut raw = std::ptr::null_mut();
        let mut got = empty_resource();
        // Required up to CUDA 13.0.
        let flags = sys::CUgreenCtxCreate_flags::CU_GREEN_CTX_DEFAULT_STREAM as u32;
        // SAFETY: `parts` holds `count` resources of one cut; handles are written once each.
        unsafe {
            cu!(cuDevResourceGenerateDesc(&raw mut description, parts.as_mut_ptr(), count))?;
            cu!(cuGreenCtxCreate(&raw mut raw, description, context.device, flags))?;
            let mut green = Self { raw, granted: 0, context: Rc::clone(context) };
            cu!(cuGreenCtxGetDevResource(raw, &raw mut got, SM))?;
            green.granted = sms(&got);
            Ok(Rc::new(green))
        }
    }
}

impl Green {
    /// Runs a closure with the partition's context current, as creating a library handle in it may
    /// require.
    pub(super) fn inside<R>(&self, what: impl FnOnce() -> R) -> Result<R, DeviceError> {
        let (mut home, mut popped) = (std::ptr::null_mut(), std::ptr::null_mut());
        // SAFETY: writes one handle each; the context that is made current is popped again at once.
        unsafe {
            cu!(cuCtxFromGreenCtx(&raw mut home, self.raw))?;
            cu!(cuCtxPushCurrent_v2(home))?;
            let done = what();
            cu!(cuCtxPopCurrent_v2(&raw mut popped))?;
            Ok(done)
        }
    }
}

impl Drop for Green {
    fn drop(&mut self) {
        // SAFETY: its streams hold it, so they are gone.
        let _ = unsafe { cu!(cuGreenCtxDestroy(self.raw)) };
        let _ = &self.context;
    }
}

/// A stream of the device or of one of its partitions.
pub(super) struct Stream {
    pub(super) raw: sys::CUstream,
    /// The context for its events, if the driver does not accept events of the primary context.
    home: Option<sys::CUcontext>,
    green: Option<Rc<Green>>,
    context: Rc<Context>,
}

impl Stream {
    pub(super) fn new(
        context: &Rc<Context>,
        green: Option<&Rc<Green>>,
        priority: i32,
    ) -> Result<Rc<Self>, DeviceError> {
        // Required for green contexts; besides, the stream must not wait for the default stream.
        let flags = sys::CUstream_flags::CU_STREAM_NON_BLOCKING as u32;
        let mut raw = std::ptr::null_mut();
        // SAFETY: writes one handle.
        unsafe {
            match green {
                None => cu!(cuStreamCreateWithPriority(&raw mut raw, flags, priority))?,
                Some(g) => cu!(cuGreenCtxStreamCreate(&raw mut raw, g.raw, flags, priority))?,
            }
        }
        let mut stream =
            Self { raw, home: None, green: green.cloned(), context: Rc::clone(context) };
        if let Some(green) = green {
            stream.find_home(green)?;
        }
        Ok(Rc::new(stream))
    }

    /// According to the driver's documentation, an event and its stream must be of one context. In
    /// practice a green context's stream sometimes takes an event of the primary context and sometimes
    /// does not, so this tries it.
    fn find_home(&mut self, green: &Green) -> Result<(), DeviceError> {
        const INVALID_HANDLE: i32 = 400;
        match Event::new(self)?.record(self) {
            Err(DeviceError::Call { code: INVALID_HANDLE, .. }) => {
                let mut home = std::ptr::null_mut();
                // SAFETY: writes one handle, which lives as long as the green context.
                unsafe { cu!(cuCtxFromGreenCtx(&raw mut home, green.raw))? };
                self.home = Some(home);
                Event::new(self)?.record(self)
            }
            other => other,
        }
    }

    pub(super) fn synchronize(&self) -> Result<(), DeviceError> {
        // SAFETY: the stream is alive.
        unsafe { cu!(cuStreamSynchronize(self.raw)) }
    }

    /// Its partition, unless it is a stream of the whole device.
    pub(super) fn green(&self) -> Option<&Rc<Green>> {
        self.green.as_ref()
    }

    /// Makes later work in this stream wait for the event.
    pub(super) fn wait(&self, event: &Event) -> Result<(), DeviceError> {
        // SAFETY: both are alive; the driver keeps what it needs of the event.
        unsafe { cu!(cuStreamWaitEvent(self.raw, event.raw, 0)) }
    }

    /// Launches a function with parameters that each point at a value of the right type.
    pub(super) fn launch(
        &self,
        function: sys::CUfunction,
        grid: [u32; 3],
        block: u32,
        values: &mut [u64],
    ) -> Result<(), DeviceError> {
        let mut pointers: Vec<*mut std::ffi::c_void> =
            values.iter_mut().map(|v| std::ptr::from_mut(v).cast()).collect();
        let null = std::ptr::null_mut();
        // SAFETY: every value is eight bytes and every parameter of our kernels at most as many
        // (little-endian: the low bytes come first).
        unsafe {
            cu!(cuLaunchKernel(
                function,
                grid[0],
                grid[1],
                grid[2],
                block,
                1,
                1,
                0,
                self.raw,
                pointers.as_mut_ptr(),
                null,
            ))
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        // SAFETY: made in `new`; pending work ends before the driver frees it.
        let _ = unsafe { cu!(cuStreamDestroy_v2(self.raw)) };
    }
}

/// An event.
pub(super) struct Event {
    raw: sys::CUevent,
    _green: Option<Rc<Green>>,
    _context: Rc<Context>,
}

impl Event {
    /// An event with timing, to be recorded in `stream`.
    pub(super) fn new(stream: &Stream) -> Result<Self, DeviceError> {
        Self::with_flags(stream, sys::CUevent_flags::CU_EVENT_DEFAULT)
    }

    /// An event that streams can wait for, without timing.
    pub(super) fn untimed(stream: &Stream) -> Result<Self, DeviceError> {
        Self::with_flags(stream, sys::CUevent_flags::CU_EVENT_DISABLE_TIMING)
    }

    fn with_flags(stream: &Stream, flags: sys::CUevent_flags) -> Result<Self, DeviceError> {
        let mut raw = std::ptr::null_mut();
        // SAFETY: writes one handle; a context that is made current is popped again at once.
        unsafe {
            if let Some(home) = stream.home {
                cu!(cuCtxPushCurrent_v2(home))?;
            }
            let made = cu!(cuEventCreate(&raw mut raw, flags as u32));
            if stream.home.is_some() {
                let mut popped = std::ptr::null_mut();
                cu!(cuCtxPopCurrent_v2(&raw mut popped))?;
            }
            made?;
        }
        let (context, green) = (Rc::clone(&stream.context), stream.green.clone());
        Ok(Self { raw, _green: green, _context: context })
    }

    pub(super) fn record(&self, stream: &Stream) -> Result<(), DeviceError> {
        // SAFETY: both are alive.
        unsafe { cu!(cuEventRecord(self.raw, stream.raw)) }
    }

    /// Whether all work before it has ended.
    pub(super) fn reached(&self) -> Result<bool, DeviceError> {
        // SAFETY: the event is alive.
        match unsafe { sys::cuEventQuery(self.raw) } {
            sys::CUresult::CUDA_ERROR_NOT_READY => Ok(false),
            other => check("cuEventQuery", other).map(|()| true),
        }
    }

    /// Time since `start`, ns; 0 if `start` came later.
    pub(super) fn since(&self, start: &Self) -> Result<u64, DeviceError> {
        self.after(start).map(|ns| ns.max(0).unsigned_abs())
    }

    /// How much later this event was than `other`, ns.
    pub(super) fn after(&self, other: &Self) -> Result<i64, DeviceError> {
        let mut ms = 0.0f32;
        // SAFETY: both events were recorded and reached.
        unsafe { cu!(cuEventElapsedTime_v2(&raw mut ms, other.raw, self.raw))? };
        Ok((f64::from(ms) * 1e6).round() as i64)
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        // SAFETY: made in `new`.
        let _ = unsafe { cu!(cuEventDestroy_v2(self.raw)) };
    }
}

/// Facts about the compiled function.
pub(super) fn function_facts(
    function: sys::CUfunction,
    block: u32,
) -> Result<FunctionFacts, DeviceError> {
    use sys::CUfunction_attribute as A;
    let get = |which| {
        let mut value = 0;
        // SAFETY: writes one integer.
        unsafe { cu!(cuFuncGetAttribute(&raw mut value, which, function))? };
        Ok::<_, DeviceError>(u32::try_from(value).unwrap_or(0))
    };
    let mut blocks = 0;
    // SAFETY: writes one integer.
    unsafe {
        cu!(cuOccupancyMaxActiveBlocksPerMultiprocessor(
            &raw mut blocks,
            function,
            block as i32,
            0
        ))?;
    }
    Ok(FunctionFacts {
        regs: get(A::CU_FUNC_ATTRIBUTE_NUM_REGS)?,
        smem_bytes: get(A::CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES)?,
        blocks_per_cu: u32::try_from(blocks).unwrap_or(1).max(1),
    })
}

/// Registers, shared memory and residency of a function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FunctionFacts {
    pub(super) regs: u32,
    pub(super) smem_bytes: u32,
    pub(super) blocks_per_cu: u32,
}
