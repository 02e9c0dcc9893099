//! Who asks for what, when: requests, readers of public traces, transforms, arrival generators and
//! statistics.
//!
//! This crate knows nothing of GPUs or sharing policies.

pub mod canonical;
pub mod closed;
pub mod convert;
pub mod error;
mod expand;
pub mod format;
pub mod generate;
pub mod mlperf;
pub mod read;
pub mod replay;
pub mod request;
pub mod rng;
pub mod row;
pub mod spec;
pub mod stats;
pub mod tokens;
pub mod transform;
pub mod writer;

mod decimal;
mod io;
mod spec_fields;
mod table;

pub use closed::Closed;
pub use convert::{ConversionReport, convert, generate, stats};
pub use error::TraceError;
pub use expand::Expand;
pub use format::ReadOptions;
pub use mlperf::{Scenario, Settings};
pub use read::FORMATS;
pub use request::{Arrivals, Request};
pub use rng::Rng;
pub use row::{Row, Stream};
pub use spec::{ArrivalSpec, KINDS, Process};
pub use tokens::{TokenCount, TokenDraws, Tokens};
pub use transform::Transform;
