//! The CUDA device. Nothing in the driver is used before [`probe`] has found that it is there.

mod bench;
mod blas;
mod device;
mod dnn;
mod driver;
mod library;
mod memory;
pub mod nvrtc;
mod probe;
mod ready;

pub use bench::{Bench, Hop, Level, Watch};
pub use device::{CudaDevice, Granularity};
pub use library::{LIBRARIES, Library, LibraryState, Loader, libraries, preload};
pub use probe::{Probe, probe};
pub use ready::LaunchFacts;
