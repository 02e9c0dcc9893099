//! The GPU side of cotenant: devices that run kernels in real time, the kernels themselves, the
//! collector of latency profiles and the capture of unmodified programs.
//!
//! [`Device`] has two implementations. [`cuda::CudaDevice`] is reached only through [`cuda::probe`],
//! which gives a typed reason if there is no GPU to use. [`emulated::EmulatedDevice`] keeps the time of
//! a profile, so that everything but the CUDA calls runs on any machine. A measurement refuses the
//! emulated device.

pub mod capture;
pub mod clock;
pub mod collect;
pub mod costs;
pub mod counted;
pub mod cuda;
pub mod device;
pub mod drive;
pub mod emulated;
mod error;
pub mod fit;
pub mod mps;
pub mod nvml;
pub mod process;
pub mod recipe;
pub mod reference;
pub mod runnable;
pub mod steps;
pub mod survey;
pub mod tile;
pub mod tune;
pub mod work;

pub use clock::Clock;
pub use device::{
    Completion, Device, DeviceInfo, Direction, Kind, Launch, Overhead, Partition, Prepared, Queue,
    Ticket, Usage,
};
pub use error::{DeviceError, Unavailable};
pub use work::Work;
