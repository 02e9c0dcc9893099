//! Replay: runs the simulator's policies and scenarios in real time on a device.
//!
//! [`run`] is to a device what [`cotenant_sim::run`] is to virtual time: it takes the same scenario and
//! the same policy and returns the same report. The same [`Host`] carries out the policy's decisions;
//! only the world below it differs: workers on a device, and the wall clock. On a GPU, the host's costs
//! (work per request, launches, mechanisms) are the real ones; beside an emulated device, the
//! scenario's costs are applied in real time. Latency counts from the scheduled arrival, so a late
//! dispatcher shows in it. How late the dispatcher itself was is in [`Lateness`].

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

/// The result of a replay.
#[derive(Clone, Debug)]
pub struct Replayed {
    /// As a simulation's report, but without a digest; values that the device does not report are not
    /// numbers.
    pub report: Report,
    /// How late the dispatcher itself was.
    pub lateness: Lateness,
    /// Workers that were lost. The others went on.
    pub losses: Vec<Loss>,
}

/// The record of a lost worker: one that ended without being asked to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loss {
    /// When it was noticed, in the experiment's time.
    pub at: Nanos,
    /// The worker's tenant.
    pub tenant: u32,
    /// The worker.
    pub worker: u32,
    /// The cause, in a word.
    pub cause: &'static str,
    /// The reason, in a sentence.
    pub why: String,
}

/// Why a replay failed or ended early.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// The simulator would have refused it as well.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The policy is a bound, which nothing can carry out.
    #[error("a bound cannot be replayed: no device divides its CUs without end")]
    Bound,
    /// The device failed.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// The run was stopped on request.
    #[error("stopped before the end of the run")]
    Stopped,
}

/// A request to end early, which signal handlers can set.
#[derive(Clone, Debug, Default)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    /// No stop has been requested.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The flag that requests the stop when it is set.
    #[must_use]
    pub fn flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.0)
    }

    /// Ends the run at its next event.
    pub fn now(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether a stop has been requested.
    #[must_use]
    pub fn wanted(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Checks that a policy can be carried out at all.
///
/// # Errors
/// The policy is a bound.
pub fn check(policy: &dyn Policy) -> Result<(), ReplayError> {
    if policy.bound().is_some() { Err(ReplayError::Bound) } else { Ok(()) }
}

/// Replays `scenario` under `policy`, whose layout is `layout`.
///
/// # Errors
/// The tenants do not fit into memory, the device fails, or a stop was requested.
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
