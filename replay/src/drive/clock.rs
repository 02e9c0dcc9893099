//! The experiment's time: a device's clock, counted from the start of the run.

use std::time::Duration;

use cotenant_profiles::Nanos;

use crate::clock::Clock;

/// A sleeper wakes this much late, if nothing is in its way; so much is spent awake instead.
const EARLY: Duration = Duration::from_micros(80);

/// A device's clock, set to 0 at the start of a run.
#[derive(Clone, Copy, Debug)]
pub struct RunClock {
    clock: Clock,
    origin: u64,
}

impl RunClock {
    /// Counts from now on.
    #[must_use]
    pub fn start(clock: Clock) -> Self {
        Self { clock, origin: clock.now().0 }
    }

    /// Nanoseconds of the experiment since the start.
    #[must_use]
    pub fn now(&self) -> u64 {
        self.clock.now().0.saturating_sub(self.origin)
    }

    /// An instant of the run on the device's clock.
    #[must_use]
    pub fn on_device(&self, at: u64) -> Nanos {
        Nanos(at.saturating_add(self.origin))
    }

    /// An instant of the device's clock in the run.
    #[must_use]
    pub fn in_run(&self, at: Nanos) -> u64 {
        at.0.saturating_sub(self.origin)
    }

    /// Whether it moves only when somebody waits.
    #[must_use]
    pub fn is_virtual(&self) -> bool {
        self.clock.is_virtual()
    }

    /// Wall time over the experiment's.
    #[must_use]
    pub fn slowdown(&self) -> f64 {
        self.clock.slowdown()
    }

    /// Wall time until `at`; nothing if it has passed.
    #[must_use]
    pub fn until(&self, at: u64) -> Duration {
        self.clock.until(self.on_device(at))
    }

    /// Waits until `at`, but no longer than `most` on the wall clock: asleep, and the last of it
    /// awake, because a sleeper wakes late.
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
