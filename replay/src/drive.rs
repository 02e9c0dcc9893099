//! The replay driver: the same policies and scenarios as the simulator's, in real time on a device.
//!
//! [`run`] is to a device what [`cotenant_sim::run`] is to virtual time: it takes the same scenario
//! and the same policy and returns the same report, counted by the same code. One loop feeds the
//! policy events (arrivals, ends on the device, its timers) and carries its actions out. What the
//! host costs (work per request, launches, mechanisms) is what it is on a GPU; beside an emulated
//! device, the driver keeps the scenario's, in real time. Latency counts from the scheduled arrival,
//! so that a driver that is late shows it; how late it was itself is in [`Lateness`].

mod batch;
mod clock;
mod driver;
mod lateness;
mod lifecycle;
mod losses;
mod streams;
mod timers;
mod workers;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use cotenant_sim::layout::Discipline;
use cotenant_sim::observe::Observer;
use cotenant_sim::report::{Refusal, Report};
use cotenant_sim::{Policy, Scenario};

pub use clock::RunClock;
pub use lateness::Lateness;
pub use losses::Loss;
pub use streams::{Kernels, Streams};
pub use workers::{Batch, Ended, HostCosts, Launch, Lost, Workers};

use crate::error::DeviceError;

/// What a replay returns.
#[derive(Clone, Debug)]
pub struct Replayed {
    /// As a simulation's. There is no digest; what the device does not tell is not a number.
    pub report: Report,
    /// How late the driver itself was.
    pub lateness: Lateness,
    /// Workers that went without being asked to. The others went on.
    pub losses: Vec<Loss>,
}

/// Why a replay came to nothing, or to an early end.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// It would not have been simulated either.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// A bound is no policy: nothing can carry it out.
    #[error("a bound cannot be replayed: no device divides its CUs without end")]
    Bound,
    /// The device could not do it.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// Somebody asked for the end.
    #[error("stopped before the end of the run")]
    Stopped,
}

/// A wish to end early, which signal handlers can express.
#[derive(Clone, Debug, Default)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    /// Nobody wants to stop yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Set by whoever wants to stop.
    #[must_use]
    pub fn flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.0)
    }

    /// Ends the run at its next event.
    pub fn now(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether somebody wants to.
    #[must_use]
    pub fn wanted(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Whether a layout can be carried out at all.
///
/// # Errors
/// It is a bound.
pub fn check(layout: &cotenant_sim::Layout) -> Result<(), ReplayError> {
    let fluid = layout.pools.iter().any(|p| p.discipline == Discipline::Fluid);
    if fluid { Err(ReplayError::Bound) } else { Ok(()) }
}

/// Replays `scenario` under `policy`, which has laid `layout` out.
///
/// # Errors
/// The tenants do not fit into memory, the device fails, or somebody wanted to stop.
pub fn run<'a>(
    scenario: Scenario,
    policy: &'a mut dyn Policy,
    layout: &cotenant_sim::Layout,
    workers: &'a mut dyn Workers,
    observer: Option<&'a mut dyn Observer>,
    stop: &'a Stop,
) -> Result<Replayed, ReplayError> {
    check(layout)?;
    let mut driver = driver::Driver::new(scenario, policy, layout, workers, observer)?;
    let gone = driver.go(stop);
    driver.drain();
    gone?;
    Ok(driver.replayed())
}
