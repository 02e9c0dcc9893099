//! The experiment's time: a device's clock, counted from the start of the run.

use std::time::Duration;

use cotenant_profiles::Nanos;

use crate::clock::Clock;

/// How late a sleeping thread wakes if nothing gets in its way. This much of a wait is spent awake
/// instead.
const EARLY: Duration = Duration::from_micros(80);

/// A device's clock, set to 0 at the start of a run.
#[derive(Clone, Copy, Debug)]
pub struct RunClock {
    clock: Clock,
    origin: u64,
}

impl RunClock {
    /// Starts counting now.
    #[must_use]
    pub fn start(clock: Clock) -> Self {
        Self { clock, origin: clock.now().0 }
    }

    /// Nanoseconds of the experiment since the start.
    #[must_use]
    pub fn now(&self) -> u64 {
        self.clock.now().0.saturating_sub(self.origin)
    }

    /// Converts an instant of the run to the device's clock.
    #[must_use]
    pub fn on_device(&self, at: u64) -> Nanos {
        Nanos(at.saturating_add(self.origin))
    }

    /// Converts an instant of the device's clock to the run's time.
    #[must_use]
    pub fn in_run(&self, at: Nanos) -> u64 {
        at.0.saturating_sub(self.origin)
    }

    /// Whether the clock moves only when a caller waits.
    #[must_use]
    pub fn is_virtual(&self) -> bool {
        self.clock.is_virtual()
    }

    /// Wall time divided by the experiment's time.
    #[must_use]
    pub fn slowdown(&self) -> f64 {
        self.clock.slowdown()
    }

    /// Wall time until `at`; zero if it has passed.
    #[must_use]
    pub fn until(&self, at: u64) -> Duration {
        self.clock.until(self.on_device(at))
    }

    /// Waits until `at`, but no longer than `most` on the wall clock. It sleeps, but spends the last
    /// part of the wait awake, because a sleeping thread wakes late.
    pub fn wait_until(&self, at: u64, most: Duration) {
        let at = self.on_device(at);
        if self.clock.is_virtual() {
            self.clock.move_to(at);
            return;
        }
        let wait = self.clock.until(at);
        if wait > most {
            std::thread::sleep(most);
            return;
        }
        if let Some(asleep) = wait.checked_sub(EARLY) {
            std::thread::sleep(asleep);
        }
        while !self.clock.until(at).is_zero() {
            std::hint::spin_loop();
        }
    }
}
