//! A stand-in for `libcuda.so.1`, and for the little of cuBLASLt, cuDNN and NVRTC that cotenant
//! calls.
//!
//! It computes nothing. It keeps what can be checked without a GPU: which calls were made in which
//! order, which handles are alive, which destruction came too early, and how long a stream is busy
//! by a simple formula (see `cost`), in real time. Tests link it into a private folder under the
//! libraries' names and put that folder on the loader's path.
//!
//! `FAKECUDA_FAIL=name:code[:n]` lets the n-th call (from 1) of a function fail with a code, and
//! `FAKECUDA_NASTY` asks for what real drivers do to those who trust them: see `nasty.rs`.
//! `cotenant_stand_in` is the symbol by which cotenant knows that results are not measurements.
#![allow(unsafe_code)] // it is a C library
#![allow(non_snake_case, missing_docs, unsafe_op_in_unsafe_fn, clippy::missing_safety_doc)]
// the functions are NVIDIA's, documented there; every pointer is the caller's as in the real driver

mod libraries;
mod nasty;
mod state;

use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::time::{Duration, Instant};

use state::{Kind, OK, enter, live, make, note, unmake, with};

pub use libraries::*;

const INVALID_VALUE: c_int = 1;
const INVALID_HANDLE: c_int = 400;
const NOT_READY: c_int = 600;
/// `CUDA_ERROR_ILLEGAL_ADDRESS`, which stays with the context.
const KERNEL_FAILED: c_int = 700;
/// As an H100 or H200 SXM.
pub(crate) const SMS: u32 = 132;

/// Defines a function that is logged, and that can be made to fail.
#[macro_export]
#[doc(hidden)]
macro_rules! api {
    ($(fn $name:ident($($arg:ident: $ty:ty),* $(,)?) $body:block)*) => {$(
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name($($arg: $ty),*) -> c_int {
            match enter(stringify!($name)) {
                0 => $body,
                code => code,
            }
        }
    )*};
}

#[derive(Clone, Copy)]
pub(crate) struct Stream {
    pub(crate) sms: u32,
    ready: Instant,
    pub(crate) green: usize,
}

impl Stream {
    /// Appends work.
    pub(crate) fn push(&mut self, ns: u64) {
        self.ready = self.ready.max(Instant::now()) + Duration::from_nanos(ns);
    }

    /// When all of it will have ended.
    pub(crate) fn end(&self) -> Instant {
        self.ready
    }
}

thread_local! {
    pub(crate) static CURRENT: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
    /// The context under it, of which there is one at most.
    static BELOW: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}
const PRIMARY: usize = 0x1000;

/// Time of a kernel of ours: waves of eight blocks on every SM.
fn cost(name: &str, blocks: u64, sms: u32, first: u64) -> u64 {
    let sms = u64::from(sms);
    if name == "spin" {
        return first * blocks.div_ceil(sms);
    }
    5_000 + 2_000 * blocks.div_ceil(8 * sms)
}

/// Time of a copy: 50 bytes a nanosecond.
fn copy_cost(bytes: usize) -> u64 {
    2_000 + bytes as u64 / 50
}

/// SMs that this process is granted: all, or an MPS percentage of them, in steps of two.
fn granted_sms() -> u32 {
    let share = std::env::var("CUDA_MPS_ACTIVE_THREAD_PERCENTAGE").ok();
    let share: Option<f64> = share.and_then(|s| s.parse().ok());
    let other = nasty::number("sms").filter(|_| share.is_some());
    let granted = |s: f64| ((f64::from(SMS) * s / 100.0) as u32 / 2 * 2).max(2);
    other.map_or(share.map_or(SMS, granted), |n| n as u32)
}

/// Appends work to a stream; none of that name, or none left, is an invalid handle.
pub(crate) fn push(stream: usize, ns: impl FnOnce(&Stream) -> u64) -> c_int {
    match with(stream, |s| s.push(ns(s))) {
        Some(()) => {
            state::worked(stream);
            OK
        }
        None => INVALID_HANDLE,
    }
}

fn wait(until: Instant) {
    std::thread::sleep(until.saturating_duration_since(Instant::now()));
}

/// Text of the calls so far, one a line; returns the bytes there are.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cotenant_calls(text: *mut u8, capacity: usize) -> usize {
    let log = state::log();
    let n = log.len().min(capacity);
    std::ptr::copy_nonoverlapping(log.as_ptr(), text, n);
    log.len()
}
/// Handles alive, all kinds together, and destructions that were wrong.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cotenant_live(alive: *mut usize, wrong: *mut usize) {
    (*alive, *wrong) = live();
}
#[unsafe(no_mangle)]
pub extern "C" fn cotenant_stand_in() -> c_int {
    1
}

api! {
    fn cuInit(_flags: c_uint) { OK }
    fn cuDriverGetVersion(v: *mut c_int) { *v = 13000; OK }
    fn cuDeviceGetCount(n: *mut c_int) { *n = 1; OK }
    fn cuDeviceGet(d: *mut c_int, ordinal: c_int) {
        if ordinal != 0 { return 101 }
        *d = 0;
        OK
    }
    fn cuDeviceGetName(text: *mut c_char, n: c_int, _d: c_int) {
        let name = b"stand-in (not a GPU)\0";
        std::ptr::copy_nonoverlapping(name.as_ptr().cast(), text, name.len().min(n as usize));
        OK
    }
    fn cuDeviceGetUuid_v2(uuid: *mut u8, _d: c_int) { std::ptr::write_bytes(uuid, 0xfa, 16); OK }
    fn cuDeviceTotalMem_v2(bytes: *mut usize, _d: c_int) { *bytes = 141 << 30; OK }
    fn cuDeviceGetAttribute(v: *mut c_int, which: c_uint, _d: c_int) {
        *v = match which { 16 => granted_sms() as c_int, 75 => 9, _ => 0 };
        OK
    }
    fn cuDevicePrimaryCtxRetain(c: *mut usize, _d: c_int) { *c = PRIMARY; make(Kind::Context, PRIMARY); OK }
    fn cuDevicePrimaryCtxRelease_v2(_d: c_int) {
        nasty::take("teardown");
        if let Some(path) = std::env::var_os("FAKECUDA_ENDED") {
            let file = std::fs::OpenOptions::new().create(true).append(true).open(path);
            let _ = file.and_then(|mut f| std::io::Write::write_all(&mut f, b"released\n"));
        }
        if live().0 > 1 { note("leak: the context goes before what lives in it", true); }
        unmake(Kind::Context, PRIMARY)
    }
    fn cuCtxSetCurrent(c: usize) { CURRENT.set(c); OK }
    fn cuCtxFromGreenCtx(c: *mut usize, g: usize) { *c = g; OK }
    fn cuCtxPushCurrent_v2(c: usize) { BELOW.set(CURRENT.replace(c)); OK }
    fn cuCtxPopCurrent_v2(c: *mut usize) { *c = CURRENT.replace(BELOW.get()); OK }
    fn cuCtxGetCurrent(c: *mut usize) { *c = CURRENT.get(); OK }
    fn cuCtxGetStreamPriorityRange(least: *mut c_int, greatest: *mut c_int) {
        (*least, *greatest) = (0, -5);
        OK
    }
    fn cuCtxSynchronize() {
        if state::broken() { return KERNEL_FAILED }
        wait(state::streams().into_iter().map(|s| s.ready).max().unwrap_or_else(Instant::now));
        OK
    }

    fn cuStreamCreateWithPriority(s: *mut usize, _flags: c_uint, priority: c_int) {
        note(&format!("  priority {priority}"), false);
        *s = state::add_stream(Stream { sms: SMS, ready: Instant::now(), green: 0 });
        OK
    }
    fn cuStreamDestroy_v2(s: usize) { state::drop_stream(s) }
    fn cuStreamSynchronize(s: usize) {
        // The default stream is never busy here: what is in it is done at once.
        if state::broken() { return KERNEL_FAILED }
        if s == 0 { return OK }
        match with(s, |s| s.ready) { Some(t) => { wait(t); OK } None => INVALID_HANDLE }
    }

    fn cuStreamWaitEvent(s: usize, e: usize, _flags: c_uint) {
        let Some(at) = state::event(e) else { return INVALID_HANDLE };
        let until = |s: &mut Stream| s.ready = s.ready.max(at.unwrap_or(s.ready));
        if with(s, until).is_some() { OK } else { INVALID_HANDLE }
    }

    fn cuEventCreate(e: *mut usize, flags: c_uint) {
        if state::broken() { return KERNEL_FAILED }
        // CU_EVENT_DISABLE_TIMING.
        *e = state::add_event(CURRENT.get(), flags & 2 == 0);
        OK
    }
    fn cuEventDestroy_v2(e: usize) { state::drop_event(e) }
    fn cuEventRecord(e: usize, s: usize) {
        // `FAKECUDA_EVENTS=own` takes an event in a stream of its own context alone.
        if std::env::var_os("FAKECUDA_EVENTS").is_some() {
            let green = with(s, |s| s.green).unwrap_or(0);
            if state::home(e) != if green == 0 { PRIMARY } else { green } { return INVALID_HANDLE }
        }
        let timed = state::is_timed(e);
        if let Some(us) = nasty::number("record").filter(|_| timed) {
            std::thread::sleep(Duration::from_micros(us));
        }
        let gap = nasty::number("gap").filter(|_| timed).unwrap_or(0);
        let marked = |s: &mut Stream| {
            let at = s.ready.max(Instant::now());
            s.push(gap);
            at
        };
        match with(s, marked) {
            Some(at) => state::set_event(e, at, s),
            None => INVALID_HANDLE,
        }
    }
    fn cuEventQuery(e: usize) {
        if state::broken() { return KERNEL_FAILED }
        match state::event(e) {
            Some(Some(at)) if at > Instant::now() => NOT_READY,
            Some(_) => OK,
            None => INVALID_HANDLE,
        }
    }
    fn cuEventSynchronize(e: usize) {
        match state::event(e) { Some(at) => { wait(at.unwrap_or_else(Instant::now)); OK } None => INVALID_HANDLE }
    }
    fn cuEventElapsedTime_v2(ms: *mut f32, from: usize, to: usize) {
        let (Some(Some(a)), Some(Some(b))) = (state::event(from), state::event(to)) else {
            return INVALID_HANDLE;
        };
        match nasty::nasty("apart").as_deref() {
            Some("streams") if state::in_two_streams(from, to) => return INVALID_HANDLE,
            Some(_) if state::contexts(from, to) => return INVALID_HANDLE,
            _ => {}
        }
        state::check_marks(from, to);
        let (later, earlier) = (b.saturating_duration_since(a), a.saturating_duration_since(b));
        *ms = ((later.as_secs_f64() - earlier.as_secs_f64()) * 1e3) as f32;
        OK
    }

    fn cuMemAlloc_v2(p: *mut usize, n: usize) {
        if n == 0 { return INVALID_VALUE }
        *p = state::allocate(n);
        OK
    }
    fn cuMemFree_v2(p: usize) { state::free(p) }
    fn cuMemsetD8_v2(p: usize, value: u8, n: usize) { state::bytes(p, n, |b| b.fill(value)) }
    fn cuMemcpyHtoD_v2(to: usize, from: *const u8, n: usize) {
        state::bytes(to, n, |b| b.copy_from_slice(std::slice::from_raw_parts(from, n)))
    }
    fn cuMemcpyDtoH_v2(to: *mut u8, from: usize, n: usize) {
        state::bytes(from, n, |b| std::ptr::copy_nonoverlapping(b.as_ptr(), to, n))
    }

    fn cuMemcpyDtoD_v2(to: usize, from: usize, n: usize) { state::copy(to, from, n) }
    fn cuMemAllocHost_v2(p: *mut usize, n: usize) {
        if n == 0 { return INVALID_VALUE }
        nasty::take("create");
        *p = state::address(state::allocate(n));
        OK
    }
    fn cuMemFreeHost(p: usize) { state::free_address(p) }
    fn cuMemcpyHtoDAsync_v2(_to: usize, _from: usize, n: usize, s: usize) {
        push(s, |_| copy_cost(n))
    }
    fn cuMemcpyDtoHAsync_v2(_to: usize, _from: usize, n: usize, s: usize) {
        push(s, |_| copy_cost(n))
    }

    fn cuModuleLoadData(m: *mut usize, image: *const c_char) {
        // Text that a driver would take for PTX.
        if !CStr::from_ptr(image).to_string_lossy().contains(".version") { return 200 }
        *m = state::add_module(CStr::from_ptr(image).to_string_lossy().into_owned());
        OK
    }
    fn cuModuleUnload(m: usize) { state::drop_module(m) }
    fn cuModuleGetFunction(f: *mut usize, m: usize, name: *const c_char) {
        match state::function(m, &CStr::from_ptr(name).to_string_lossy()) {
            Some(handle) => { *f = handle; OK }
            None => 500,
        }
    }
    fn cuFuncGetAttribute(v: *mut c_int, which: c_uint, _f: usize) {
        *v = if which == 4 { 32 } else { 0 };
        OK
    }
    fn cuOccupancyMaxActiveBlocksPerMultiprocessor(n: *mut c_int, _f: usize, block: c_int, _smem: usize) {
        *n = 2048 / block.max(1);
        OK
    }
    fn cuLaunchKernel(
        f: usize, gx: c_uint, gy: c_uint, gz: c_uint, _bx: c_uint, _by: c_uint, _bz: c_uint,
        _smem: c_uint, s: usize, parameters: *mut *mut c_void, _extra: *mut *mut c_void,
    ) {
        let Some(name) = state::function_name(f) else { return INVALID_HANDLE };
        note(&format!("  {name}"), false);
        if nasty::names("refuse", &name) { return INVALID_VALUE }
        if nasty::names("beside", &name) && state::has_company(s) { return INVALID_VALUE }
        if nasty::names("break", &name) { state::break_context() }
        if state::broken() { return KERNEL_FAILED }
        state::first_launch(&name, &["cold", "load"]);
        let first = *(*parameters).cast::<u64>();
        let blocks = u64::from(gx) * u64::from(gy) * u64::from(gz);
        if name == "spin" {
            // Each block notes its SM, if it is told where.
            let sms = with(s, |s| s.sms).unwrap_or(SMS).min(granted_sms());
            let place = *(*parameters.add(1)).cast::<usize>();
            let note = |b: &mut [u8]| {
                for (i, word) in b.chunks_exact_mut(8).enumerate() {
                    word.copy_from_slice(&(i as u64 % u64::from(sms)).to_le_bytes());
                }
            };
            if place != 0 { state::bytes(place, 8 * blocks as usize, note); }
        }
        push(s, |s| cost(&name, blocks, s.sms, first))
    }
}

/// `CUdevResource` of CUDA 13.0: 144 bytes.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Resource {
    kind: c_uint,
    pad: [u8; 92],
    sm: [c_uint; 3],
    rest: [u8; 36],
}

const fn resource(sms: u32, step: u32) -> Resource {
    Resource { kind: 1, pad: [0; 92], sm: [sms, step, step], rest: [0; 36] }
}

api! {
    fn cuDeviceGetDevResource(_d: c_int, r: *mut Resource, kind: c_uint) {
        if kind != 1 { return 914 }
        *r = resource(SMS, 8);
        OK
    }
    fn cuDevSmResourceSplitByCount(
        out: *mut Resource, n: *mut c_uint, whole: *const Resource, rest: *mut Resource,
        flags: c_uint, least: c_uint,
    ) {
        let step = if flags & 1 != 0 { 2 } else { 8 };
        let size = least.max(step).div_ceil(step) * step;
        let groups = (*whole).sm[0] / size;
        if out.is_null() { *n = groups; return OK }
        let fewer = nasty::number("groups").filter(|_| step == 8);
        let groups = fewer.map_or(groups, |n| groups.min(n as c_uint));
        *n = groups.min(*n);
        for i in 0..*n as usize { *out.add(i) = resource(size, step); }
        if !rest.is_null() { *rest = resource((*whole).sm[0] - *n * size, step); }
        OK
    }
    fn cuDevResourceGenerateDesc(d: *mut usize, r: *mut Resource, n: c_uint) {
        *d = std::slice::from_raw_parts(r, n as usize).iter().map(|r| r.sm[0] as usize).sum();
        OK
    }
    fn cuGreenCtxCreate(g: *mut usize, sms: usize, _d: c_int, flags: c_uint) {
        // CU_GREEN_CTX_DEFAULT_STREAM is required up to 13.0.
        if flags & 1 == 0 { return INVALID_VALUE }
        nasty::take("create");
        *g = state::add_green(sms as u32);
        OK
    }
    fn cuGreenCtxDestroy(g: usize) {
        if state::streams().iter().any(|s| s.green == g) {
            note("leak: a green context goes before its streams", true);
        }
        state::drop_green(g)
    }
    fn cuGreenCtxGetDevResource(g: usize, r: *mut Resource, _kind: c_uint) {
        // `FAKECUDA_GRANT` grants another number than was asked for.
        let other = std::env::var("FAKECUDA_GRANT").ok().and_then(|v| v.parse().ok());
        match state::green(g) { Some(sms) => { *r = resource(other.unwrap_or(sms), 2); OK } None => INVALID_HANDLE }
    }
    fn cuGreenCtxStreamCreate(s: *mut usize, g: usize, flags: c_uint, priority: c_int) {
        // CU_STREAM_NON_BLOCKING is required.
        if flags != 1 { return INVALID_VALUE }
        let Some(sms) = state::green(g) else { return INVALID_HANDLE };
        note(&format!("  priority {priority}"), false);
        *s = state::add_stream(Stream { sms, ready: Instant::now(), green: g });
        OK
    }
}
