//! What a kernel costs on a device: devices, kernels, latency curves over compute units (CUs),
//! models as sequences of kernel launches, the analytic model and the importers.
//!
//! This crate knows nothing of requests, arrival times or sharing policies.

pub mod analytic;
pub mod curve;
pub mod device;
mod drawn;
mod executor;
pub mod files;
pub mod import;
pub mod kernel;
pub mod lower;
mod precision;
pub mod roofline;
pub mod stats;
pub mod steps;
pub mod text;
pub mod tune;
pub mod units;
pub mod zoo;

/// The code of the page compiles and runs.
#[cfg(doctest)]
#[doc = include_str!("../../docs/add-a-device.md")]
pub struct AddADevice;

pub use curve::{Curve, Point};
pub use device::Device;
pub use drawn::Drawn;
pub use executor::{Executor, ExecutorError};
pub use kernel::{CoRun, Kernel, Launch, Model, Op, Profile, Source};
pub use units::{Bytes, Nanos};
