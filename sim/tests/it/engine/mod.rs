//! Tenants that generate tokens: closed forms, conservation, and every policy.

mod closed_forms;
mod elastic;
mod model;
mod oracle;
mod policies;
mod pressure;
mod rounding;
mod steps;
