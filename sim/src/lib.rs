//! Discrete-event simulation of GPU sharing.
//!
//! [`run`] takes a checked [`Scenario`] and a [`policy::Policy`] and returns a [`Report`]. No IO, no
//! threads, no wall clock: it computes, and on checked input it cannot fail except by a
//! [`Refusal`] that is itself a result (a tenant that does not fit into memory, say).

pub mod action;
pub mod bound;
pub mod contention;
pub mod counter;
pub mod engine;
pub mod fleet;
pub mod host;
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
pub mod supply;
pub mod timeline;
pub mod view;
pub mod virtual_world;

pub use layout::Layout;
pub use mask::CuMask;
pub use policy::{Policy, PolicyInfo};
pub use report::{Refusal, Report};
pub use scenario::{Class, Load, Scenario, Tenant};
pub use virtual_world::VirtualWorld;

use cotenant_profiles::Nanos;

/// The code of the page compiles and runs.
#[cfg(doctest)]
#[doc = include_str!("../../docs/add-a-policy.md")]
pub struct AddAPolicy;

/// The code of the page compiles and runs.
#[cfg(doctest)]
#[doc = include_str!("../../docs/library.md")]
pub struct Library;

/// Simulates `scenario` under `policy`, or computes its bound if it is one.
///
/// # Errors
/// The policy cannot lay the tenants out, or they do not fit into memory.
pub fn run(
    scenario: Scenario,
    policy: &mut dyn Policy,
    observer: Option<&mut dyn observe::Observer>,
) -> Result<Report, Refusal> {
    run_within(scenario, policy, observer, u64::MAX)
}

/// As [`run`], and ends early ([`Report::cut`]) when more than `most` requests wait or run at once.
///
/// # Errors
/// As [`run`].
pub fn run_within(
    scenario: Scenario,
    policy: &mut dyn Policy,
    observer: Option<&mut dyn observe::Observer>,
    most: u64,
) -> Result<Report, Refusal> {
    if let Some(bound) = policy.bound() {
        if let Some(tenant) = scenario.setup.tenants.iter().find(|t| t.generates.is_some()) {
            let why = format!("no bound is known for `{}`, which generates tokens", tenant.name);
            return Err(Refusal::Layout(policy::LayoutError(why)));
        }
        return Ok(bound(scenario, observer));
    }
    let layout = policy.layout(&scenario.setup)?;
    let Scenario { setup, loads, warmup, duration, contention, jitter } = scenario;
    let (depth, end) = (policy.depth(), Nanos(warmup.0 + duration.0));
    let world = VirtualWorld::new(&setup, &layout, depth, &contention, jitter, observer, end);
    let mut host = host::Host::new(world, &setup, loads, &layout, policy, (warmup, duration))?;
    host.hold_at_most(most);
    host.go();
    let report = host.finish().0;
    let (cus, dram) = layout
        .pools
        .iter()
        .fold((0, 0), |(cus, dram), p| (cus + u64::from(p.cus), dram + p.dram_bytes_per_us));
    // A layout of more than there is (in tests of the engine) has no such bounds.
    let device = &setup.device;
    if cus <= u64::from(device.cus()) && dram as f64 <= device.memory.dram_gbps * 1001.0 {
        report.gpu.assert_within(device);
    }
    Ok(report)
}
