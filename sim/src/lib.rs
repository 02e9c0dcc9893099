//! Discrete-event simulation of GPU sharing.
//!
//! [`run`] takes a checked [`Scenario`] and a [`policy::Policy`] and returns a [`Report`]. It uses no IO,
//! no threads and no wall clock. On checked input it cannot fail, except with a [`Refusal`] that is itself
//! a result (for example, a tenant that does not fit into memory).

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

/// Makes sure that the code on the page compiles and runs.
#[cfg(doctest)]
#[doc = include_str!("../../docs/add-a-policy.md")]
pub struct AddAPolicy;

/// Makes sure that the code on the page compiles and runs.
#[cfg(doctest)]
#[doc = include_str!("../../docs/library.md")]
pub struct Library;

/// Simulates `scenario` under `policy`, or computes the bound if the policy is one.
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

/// Like [`run`], but ends early ([`Report::cut`]) once more than `most` requests are waiting or running.
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
    // The bounds do not apply to a layout of more than the device has, which tests of the engine use.
    let device = &setup.device;
    if cus <= u64::from(device.cus()) && dram as f64 <= device.memory.dram_gbps * 1001.0 {
        report.gpu.assert_within(device);
    }
    Ok(report)
}
