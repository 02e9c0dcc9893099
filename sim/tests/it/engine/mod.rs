//! Tenants that generate tokens: closed forms, conservation, and every policy.

mod closed_forms;
mod model;
mod oracle;
mod policies;
mod pressure;
mod steps;
