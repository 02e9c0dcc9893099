//! Replay: the same policies and scenarios as the simulator's, in real time on a device.
//!
//! [`run`] is to a device what [`cotenant_sim::run`] is to virtual time: it takes the same scenario
//! and the same policy and returns the same report. The same [`Host`] carries the policy's decisions
//! out; only the world below it is another one, workers on a device and the wall clock. What the host
//! costs (work per request, launches, mechanisms) is what it is on a GPU; beside an emulated device,
//! the scenario's costs are kept, in real time. Latency counts from the scheduled arrival, so that a
//! dispatcher that is late shows it; how late it was itself is in [`Lateness`].

mod clock;
mod foresight;
mod lateness;
mod streams;
mod workers;
mod world;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use cotenant_profiles::Nanos;
use cotenant_sim::host::Host;
use cotenant_sim::observe::Observer;
use cotenant_sim::report::{Refusal, Report};
use cotenant_sim::{Policy, Scenario};

pub use clock::RunClock;
pub use foresight::foresee;
pub use lateness::Lateness;
pub use streams::{Kernels, Streams};
pub use workers::{Batch, Ended, Foreseen, HostCosts, Launch, Lost, Workers};

use crate::error::DeviceError;

/// What a replay returns.
#[derive(Clone, Debug)]
pub struct Replayed {
    /// As a simulation's. There is no digest; what the device does not tell is not a number.
    pub report: Report,
    /// How late the dispatcher itself was.
    pub lateness: Lateness,
    /// Workers that went without being asked to. The others went on.
    pub losses: Vec<Loss>,
}

/// A worker that went without being asked to, for the record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loss {
    /// When it was noticed, in the experiment's time.
    pub at: Nanos,
    /// Whose worker.
    pub tenant: u32,
    /// Which.
    pub worker: u32,
    /// In a word.
    pub cause: &'static str,
    /// In a sentence.
    pub why: String,
}

/// Why a replay came to nothing, or to an early end.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// It would not have been simulated either.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// A bound is not a policy: nothing can carry it out.
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

/// Whether a policy can be carried out at all.
///
/// # Errors
/// It is a bound.
pub fn check(policy: &dyn Policy) -> Result<(), ReplayError> {
    if policy.bound().is_some() { Err(ReplayError::Bound) } else { Ok(()) }
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
    check(policy)?;
    let Scenario { setup, loads, warmup, duration, jitter, .. } = scenario;
    let end = Nanos(warmup.0 + duration.0);
    let world = world::RealWorld::new(&setup, workers, jitter, observer, stop, end);
    let mut host = Host::new(world, &setup, loads, layout, policy, (warmup, duration))?;
    host.reserve();
    host.go();
    let (report, mut world) = host.finish();
    world.drain();
    match world.failed {
        Some(why) => Err(why),
        None => Ok(Replayed { report, lateness: world.lateness, losses: world.losses }),
    }
}
