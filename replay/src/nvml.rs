//! Reads a GPU's clocks, temperature and power with NVML. It only reads, so no code path can change a
//! setting.
#![allow(unsafe_code)] // the library's C interface, loaded at run time

use std::ffi::{c_char, c_int, c_uint, c_void};
use std::path::Path;

use crate::cuda::Loader;

type Device = *mut c_void;

/// The driver's management library, for one GPU.
pub struct Nvml {
    library: Loader,
    device: Device,
}

/// The state of the GPU at one moment; values that it does not report are absent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Reading {
    /// Clock of the SMs, MHz.
    pub sm_mhz: Option<u32>,
    /// Clock of the memory, MHz.
    pub memory_mhz: Option<u32>,
    /// Temperature, °C.
    pub celsius: Option<u32>,
    /// Power, mW.
    pub milliwatt: Option<u32>,
}

impl Nvml {
    /// Opens the library and the GPU with that UUID (`GPU-…`).
    ///
    /// # Errors
    /// What is missing.
    pub fn open(uuid: &str) -> Result<Self, String> {
        let library = Loader::open(Path::new("libnvidia-ml.so.1"))?;
        let uuid = std::ffi::CString::new(uuid).map_err(|e| e.to_string())?;
        let mut device: Device = std::ptr::null_mut();
        // SAFETY: the types are those of nvml.h.
        let codes = unsafe {
            let init: unsafe extern "C" fn() -> c_int =
                library.function("nvmlInit_v2").ok_or("NVML has no nvmlInit_v2")?;
            let by_uuid: unsafe extern "C" fn(*const c_char, *mut Device) -> c_int = library
                .function("nvmlDeviceGetHandleByUUID")
                .ok_or("NVML has no nvmlDeviceGetHandleByUUID")?;
            match init() {
                0 => by_uuid(uuid.as_ptr(), &raw mut device),
                code => code,
            }
        };
        match codes {
            0 => Ok(Self { library, device }),
            code => Err(format!("NVML does not open the GPU ({code})")),
        }
    }

    /// Reads everything once.
    #[must_use]
    pub fn read(&self) -> Reading {
        const SM: c_uint = 1;
        const MEMORY: c_uint = 2;
        const GPU_SENSOR: c_uint = 0;
        Reading {
            sm_mhz: self.of_kind("nvmlDeviceGetClockInfo", SM),
            memory_mhz: self.of_kind("nvmlDeviceGetClockInfo", MEMORY),
            celsius: self.of_kind("nvmlDeviceGetTemperature", GPU_SENSOR),
            milliwatt: self.plain("nvmlDeviceGetPowerUsage"),
        }
    }

    /// Whether MIG is on; `None` if the GPU does not have MIG.
    #[must_use]
    pub fn mig(&self) -> Option<bool> {
        let (mut now, mut pending) = (0, 0);
        // SAFETY: the type is that of nvml.h; writes two integers.
        unsafe {
            let f: unsafe extern "C" fn(Device, *mut c_uint, *mut c_uint) -> c_int =
                self.library.function("nvmlDeviceGetMigMode")?;
            (f(self.device, &raw mut now, &raw mut pending) == 0).then_some(now == 1)
        }
    }

    /// The driver's version, such as `580.95.05`.
    #[must_use]
    pub fn driver(&self) -> Option<String> {
        let mut text = [0u8; 96];
        // SAFETY: the type is that of nvml.h; at most 96 bytes are written.
        let code = unsafe {
            let f: unsafe extern "C" fn(*mut c_char, c_uint) -> c_int =
                self.library.function("nvmlSystemGetDriverVersion")?;
            f(text.as_mut_ptr().cast(), 96)
        };
        let end = text.iter().position(|b| *b == 0)?;
        (code == 0).then(|| String::from_utf8_lossy(&text[..end]).into_owned())
    }

    fn of_kind(&self, name: &str, kind: c_uint) -> Option<u32> {
        let mut value = 0;
        // SAFETY: every function read by kind has this type in nvml.h.
        unsafe {
            let f: unsafe extern "C" fn(Device, c_uint, *mut c_uint) -> c_int =
                self.library.function(name)?;
            (f(self.device, kind, &raw mut value) == 0).then_some(value)
        }
    }

    fn plain(&self, name: &str) -> Option<u32> {
        let mut value = 0;
        // SAFETY: every function read without a kind has this type in nvml.h.
        unsafe {
            let f: unsafe extern "C" fn(Device, *mut c_uint) -> c_int =
                self.library.function(name)?;
            (f(self.device, &raw mut value) == 0).then_some(value)
        }
    }
}
