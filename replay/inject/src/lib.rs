//! Records the kernels of an unmodified CUDA program.
//!
//! `CUDA_INJECTION64_PATH=libcotenant_inject.so program`: inside `cuInit` the driver loads this library
//! and calls [`InitializeInjection`]. It uses CUPTI's activity interface alone, since a profiler in
//! the program (PyTorch's Kineto) may hold the one subscriber's place. Whatever fails here is one
//! line on stderr, and the program goes on undisturbed.
//!
//! | variable | meaning |
//! |---|---|
//! | `COTENANT_TRACE_OUT` | file of records, one JSON object a line; `%p` becomes the process id |
//! | `COTENANT_CUPTI_LIB` | path of libcupti, where the program brings none |
#![allow(unsafe_code)] // loaded by the driver, calls CUPTI, reads its records
#![allow(clippy::print_stderr)] // there is nobody else to tell

mod cupti;
mod record;

use std::ffi::{c_int, c_void};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::sync::{Mutex, OnceLock};

use cupti::Cupti;
pub use record::{CONCURRENT_KERNEL, Kernel, KernelRecord, Next, kernels, to_json};

struct Recorder {
    cupti: Cupti,
    out: Mutex<BufWriter<File>>,
}

static RECORDER: OnceLock<Recorder> = OnceLock::new();

/// What CUPTI's documentation suggests as a buffer: thousands of records, few calls.
const BUFFER: usize = 8 << 20;

unsafe extern "C" fn requested(buffer: *mut *mut u8, size: *mut usize, most: *mut usize) {
    // SAFETY: CUPTI's pointers; records are aligned to eight bytes.
    unsafe {
        let memory = libc::memalign(8, BUFFER).cast::<u8>();
        *buffer = memory;
        *size = if memory.is_null() { 0 } else { BUFFER };
        *most = 0;
    }
}

unsafe extern "C" fn completed(_: *mut c_void, _: u32, buffer: *mut u8, _: usize, valid: usize) {
    // Nothing may unwind into CUPTI.
    let _ = std::panic::catch_unwind(|| {
        let Some(recorder) = RECORDER.get() else { return };
        let Ok(mut out) = recorder.out.lock() else { return };
        // SAFETY: CUPTI hands a buffer of `valid` bytes of its records, and its own iterator.
        for kernel in unsafe { kernels(recorder.cupti.next, buffer, valid) } {
            let _ = writeln!(out, "{}", to_json(&kernel));
        }
        let dropped = recorder.cupti.dropped();
        if dropped > 0 {
            let _ = writeln!(out, "{{\"dropped\":{dropped}}}");
        }
    });
    // SAFETY: allocated in `requested`, and given back for good.
    unsafe { libc::free(buffer.cast()) };
}

extern "C" fn at_exit() {
    let _ = std::panic::catch_unwind(|| {
        if let Some(recorder) = RECORDER.get() {
            recorder.cupti.flush();
            if let Ok(mut out) = recorder.out.lock() {
                let _ = out.flush();
            }
        }
    });
}

fn start() -> Result<String, String> {
    let (cupti, from) = Cupti::load()?;
    let path = std::env::var("COTENANT_TRACE_OUT")
        .unwrap_or_else(|_| "cotenant-trace.%p.jsonl".to_owned())
        .replace("%p", &std::process::id().to_string());
    let file = File::create(&path).map_err(|e| format!("{path}: {e}"))?;
    let mut out = BufWriter::new(file);
    let (version, pid) = (cupti.version(), std::process::id());
    let head = format!("{{\"cotenant_capture\":1,\"cupti\":{version},\"pid\":{pid}}}");
    writeln!(out, "{head}").and_then(|()| out.flush()).map_err(|e| format!("{path}: {e}"))?;
    let recorder = Recorder { cupti, out: Mutex::new(out) };
    RECORDER.set(recorder).map_err(|_| "started twice".to_owned())?;
    let recorder = RECORDER.get().ok_or("started twice")?;
    recorder.cupti.start(requested, completed)?;
    // SAFETY: the function lives as long as the process: this library is never unloaded.
    unsafe { libc::atexit(at_exit) };
    Ok(format!("CUPTI {version} from {from}, records in {path}"))
}

/// Called by the driver. Always says that all is well: a program must not fail for its profiler.
///
/// # Safety
/// Any time, once.
#[unsafe(no_mangle)]
pub extern "C" fn InitializeInjection() -> c_int {
    match std::panic::catch_unwind(start) {
        Ok(Ok(what)) => eprintln!("[cotenant] capture on: {what}"),
        Ok(Err(why)) => eprintln!("[cotenant] capture off: {why}"),
        Err(_) => eprintln!("[cotenant] capture off: it failed"),
    }
    1
}
