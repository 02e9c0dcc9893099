//! Discrete-event simulation of GPU sharing.
//!
//! [`run`] takes a checked [`Scenario`] and a [`policy::Policy`] and returns a [`Report`]. No IO, no
//! threads, no wall clock: it computes, and on checked input it cannot fail except by a
//! [`Refusal`] that is itself a result (a tenant that does not fit into memory, say).

pub mod action;
pub mod contention;
mod engine;
pub mod fluid;
pub mod layout;
pub mod mask;
pub mod metrics;
pub mod observe;
pub mod policy;
pub mod pool;
pub mod program;
pub mod report;
pub mod scenario;
pub mod serving;
pub mod source;
pub mod timeline;
pub mod view;

pub use engine::run;
pub use layout::Layout;
pub use mask::CuMask;
pub use policy::{Policy, PolicyInfo};
pub use report::{Refusal, Report};
pub use scenario::{Class, Load, Scenario, Tenant};
