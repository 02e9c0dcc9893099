//! The few functions of CUPTI's activity interface, loaded at run time.

use std::ffi::{CStr, c_char, c_int, c_void};

use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};

use crate::record::{CONCURRENT_KERNEL, Next};

pub(crate) type Requested = unsafe extern "C" fn(*mut *mut u8, *mut usize, *mut usize);
pub(crate) type Completed = unsafe extern "C" fn(*mut c_void, u32, *mut u8, usize, usize);

const MEMCPY: u32 = 1;
const MEMSET: u32 = 2;
/// Buffers that are not full are delivered as well.
const FLUSH_FORCED: u32 = 1;
/// Full buffers are delivered this often, ms.
const FLUSH_PERIOD_MS: u32 = 1000;

/// CUPTI's functions; the library is never unloaded.
pub(crate) struct Cupti {
    register: unsafe extern "C" fn(Requested, Completed) -> c_int,
    enable: unsafe extern "C" fn(u32) -> c_int,
    flush_all: unsafe extern "C" fn(u32) -> c_int,
    flush_period: unsafe extern "C" fn(u32) -> c_int,
    pub(crate) next: Next,
    dropped: unsafe extern "C" fn(*mut c_void, u32, *mut usize) -> c_int,
    version: unsafe extern "C" fn(*mut u32) -> c_int,
    text: unsafe extern "C" fn(c_int, *mut *const c_char) -> c_int,
}

impl Cupti {
    /// By explicit path, then what the program has loaded itself under its name, then the loader's
    /// path. A bare `libcupti.so` comes last: other tools ship old ones under it.
    pub(crate) fn load() -> Result<(Self, String), String> {
        let mut tried = Vec::new();
        let given = std::env::var("COTENANT_CUPTI_LIB").ok();
        let names = ["libcupti.so.13", "libcupti.so.12", "libcupti.so"].map(str::to_owned);
        for name in given.into_iter().chain(names) {
            // SAFETY: NVIDIA's library, whose initialisers have no precondition.
            match unsafe { Library::open(Some(&name), RTLD_NOW | RTLD_GLOBAL) } {
                Ok(library) => {
                    return Self::resolve(Box::leak(Box::new(library))).map(|c| (c, name));
                }
                Err(e) => tried.push(e.to_string()),
            }
        }
        let package = "`pip install nvidia-cuda-cupti` brings it; name it in COTENANT_CUPTI_LIB";
        Err(format!("no CUPTI: {package} ({})", tried.join("; ")))
    }

    fn resolve(library: &'static Library) -> Result<Self, String> {
        macro_rules! find {
            // SAFETY: the types are those of cupti_activity.h.
            ($name:literal) => {
                *unsafe { library.get($name) }.map_err(|e| e.to_string())?
            };
        }
        Ok(Self {
            register: find!(b"cuptiActivityRegisterCallbacks\0"),
            enable: find!(b"cuptiActivityEnable\0"),
            flush_all: find!(b"cuptiActivityFlushAll\0"),
            flush_period: find!(b"cuptiActivityFlushPeriod\0"),
            next: find!(b"cuptiActivityGetNextRecord\0"),
            dropped: find!(b"cuptiActivityGetNumDroppedRecords\0"),
            version: find!(b"cuptiGetVersion\0"),
            text: find!(b"cuptiGetResultString\0"),
        })
    }

    /// Registers the buffers, then switches the kinds on. Kernels as `CONCURRENT_KERNEL`: the plain
    /// kind would make them run one after another.
    pub(crate) fn start(&self, requested: Requested, completed: Completed) -> Result<(), String> {
        let check = |what: &str, code: c_int| match code {
            0 => Ok(()),
            code => Err(format!("{what}: {} ({code})", self.message(code))),
        };
        // SAFETY: as documented: callbacks first, before any kind is enabled.
        unsafe {
            check("cuptiActivityRegisterCallbacks", (self.register)(requested, completed))?;
            for kind in [CONCURRENT_KERNEL, MEMCPY, MEMSET] {
                check("cuptiActivityEnable", (self.enable)(kind))?;
            }
            let _ = (self.flush_period)(FLUSH_PERIOD_MS);
        }
        Ok(())
    }

    pub(crate) fn flush(&self) {
        // SAFETY: allowed at any time after the start.
        unsafe { (self.flush_all)(FLUSH_FORCED) };
    }

    /// Records that found no buffer, since the last question.
    pub(crate) fn dropped(&self) -> usize {
        let mut n = 0;
        // SAFETY: writes one size.
        let code = unsafe { (self.dropped)(std::ptr::null_mut(), 0, &raw mut n) };
        if code == 0 { n } else { 0 }
    }

    pub(crate) fn version(&self) -> u32 {
        let mut v = 0;
        // SAFETY: writes one integer.
        unsafe { (self.version)(&raw mut v) };
        v
    }

    fn message(&self, code: c_int) -> String {
        let mut text: *const c_char = std::ptr::null();
        // SAFETY: CUPTI writes a pointer to a text of its own.
        unsafe {
            if (self.text)(code, &raw mut text) == 0 && !text.is_null() {
                return CStr::from_ptr(text).to_string_lossy().into_owned();
            }
        }
        "unknown".to_owned()
    }
}
