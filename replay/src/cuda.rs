//! The CUDA device. Nothing of the driver is touched before [`probe`] has said that it is there.

mod blas;
mod device;
mod dnn;
mod driver;
mod library;
pub mod nvrtc;
mod probe;

pub use device::{CudaDevice, Granularity, LaunchFacts};
pub use library::{LIBRARIES, Library, LibraryState, Loader, libraries, preload};
pub use probe::{Probe, probe};
