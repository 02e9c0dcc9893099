//! Tenants that generate tokens: closed forms, conservation, and every policy.
#![allow(clippy::unwrap_used)]

mod closed_forms;
#[path = "../common/mod.rs"]
mod common;
mod model;
mod oracle;
mod policies;
mod pressure;
mod steps;
