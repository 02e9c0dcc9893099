//! NVRTC: compiles a source for a GPU architecture. It needs no GPU.
#![allow(unsafe_code)] // the library's C interface

use std::ffi::CString;

use cudarc::nvrtc::{result, sys};

use super::library::require;
use crate::error::DeviceError;

/// Compiles to PTX for `architecture` (`sm_90`, or `compute_80` for PTX alone).
///
/// # Errors
/// The library is missing, or the source does not compile; the error has the compiler's own words.
pub fn compile(source: &str, architecture: &str) -> Result<String, DeviceError> {
    compile_with(source, architecture, &[])
}

/// As [`compile`], with further options such as `-DSIZE=8`.
///
/// # Errors
/// Those of [`compile`], or an option contains a zero byte.
pub fn compile_with(
    source: &str,
    architecture: &str,
    further: &[String],
) -> Result<String, DeviceError> {
    // SAFETY: tries to load the library.
    require(unsafe { sys::is_culib_present() }, "NVRTC")?;
    let failed =
        |call: &'static str| move |e: result::NvrtcError| DeviceError::call(call, e.0 as i32, &e.0);
    let text =
        CString::new(source).map_err(|_| DeviceError::unsupported("source", "a zero byte"))?;
    let mut options = vec![format!("--gpu-architecture={architecture}"), "--std=c++17".to_owned()];
    options.extend_from_slice(further);
    if options.iter().any(|o| o.contains('\0')) {
        return Err(DeviceError::unsupported("compiler options", "a zero byte"));
    }
    let program =
        result::create_program(&text, Some(c"zoo.cu")).map_err(failed("nvrtcCreateProgram"))?;
    // SAFETY: the program is alive until it is destroyed at the end.
    unsafe {
        let compiled = result::compile_program(program, &options);
        let words = |v: Vec<std::ffi::c_char>| {
            v.iter().take_while(|c| **c != 0).map(|c| *c as u8 as char).collect::<String>()
        };
        let out = match compiled {
            Ok(()) => result::get_ptx(program).map(words).map_err(failed("nvrtcGetPTX")),
            Err(_) => {
                let log = result::get_program_log(program).map(words).unwrap_or_default();
                Err(DeviceError::unsupported(format!("source for {architecture}"), log))
            }
        };
        let _ = result::destroy_program(program);
        out
    }
}
