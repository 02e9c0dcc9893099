//! Who asks for what, when: requests, readers of public traces, transforms, arrival generators and
//! statistics.
//!
//! This crate knows nothing of GPUs or sharing policies.

pub mod request;
pub mod rng;

pub use request::{Arrivals, Request};
pub use rng::Rng;
