//! The clock that devices, drivers and worker processes share.

use cotenant_profiles::Nanos;
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A device's time: the system's monotonic clock, or that clock slowed down.
///
/// All processes of a machine share the monotonic clock, so a clock sent to another process tells the
/// same time there. A slowed clock stretches an emulated GPU's microseconds far enough that a thread
/// which sleeps and wakes on a busy machine can keep them.
///
/// A virtual clock ([`Clock::virtual_time`]) moves only when its driver waits, so a run on it does not
/// depend on the machine.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Clock {
    /// Instant 0, ns of the monotonic clock.
    origin: u64,
    /// Wall time divided by this clock's time.
    slowdown: f64,
    /// The time that a virtual clock shows. It stays within its process.
    #[serde(skip)]
    shown: Option<&'static AtomicU64>,
}

impl PartialEq for Clock {
    fn eq(&self, other: &Self) -> bool {
        let same = match (self.shown, other.shown) {
            (Some(a), Some(b)) => std::ptr::eq(a, b),
            (a, b) => a.is_none() && b.is_none(),
        };
        same && (self.origin, self.slowdown) == (other.origin, other.slowdown)
    }
}

impl Clock {
    /// The monotonic clock itself.
    #[must_use]
    pub fn wall() -> Self {
        Self { origin: 0, slowdown: 1.0, shown: None }
    }

    /// A clock that shows 0 now. One of its seconds lasts `slowdown` seconds of wall time.
    ///
    /// # Panics
    /// `slowdown` is not a number of at least 1.
    #[must_use]
    pub fn start(slowdown: f64) -> Self {
        assert!(slowdown >= 1.0 && slowdown.is_finite(), "a clock is slowed down, if anything");
        Self { origin: monotonic(), slowdown, shown: None }
    }

    /// A clock that shows 0 and moves only by [`Clock::move_to`]. Copies show the same time. Its
    /// memory, one word, is never freed.
    #[must_use]
    pub fn virtual_time() -> Self {
        let shown = Box::leak(Box::new(AtomicU64::new(0)));
        Self { origin: 0, slowdown: 1.0, shown: Some(shown) }
    }

    /// Whether it moves only by [`Clock::move_to`].
    #[must_use]
    pub fn is_virtual(&self) -> bool {
        self.shown.is_some()
    }

    /// Sets a virtual clock to `at`, unless it already shows a later time. Other clocks cannot be
    /// moved.
    pub fn move_to(&self, at: Nanos) {
        if let Some(shown) = self.shown {
            shown.fetch_max(at.0, Ordering::Relaxed);
        }
    }

    /// The current time.
    #[must_use]
    pub fn now(&self) -> Nanos {
        if let Some(shown) = self.shown {
            return Nanos(shown.load(Ordering::Relaxed));
        }
        Nanos(self.scaled(monotonic().saturating_sub(self.origin)))
    }

    fn scaled(&self, wall: u64) -> u64 {
        if self.slowdown == 1.0 { wall } else { (wall as f64 / self.slowdown) as u64 }
    }

    /// Wall time until this clock shows `at`; zero if it already does.
    #[must_use]
    pub fn until(&self, at: Nanos) -> Duration {
        if self.is_virtual() {
            return Duration::from_nanos(at.since(self.now()).0);
        }
        let wall = monotonic();
        // Rounded up, so that a thread which sleeps this long wakes at `at`, not just before.
        let then = (at.0 as f64 * self.slowdown).ceil();
        let then = if self.slowdown == 1.0 { at.0 } else { then as u64 };
        Duration::from_nanos(self.origin.saturating_add(then).saturating_sub(wall))
    }

    /// Wall time divided by this clock's time.
    #[must_use]
    pub fn slowdown(&self) -> f64 {
        self.slowdown
    }
}

fn monotonic() -> u64 {
    let t = clock_gettime(ClockId::Monotonic);
    // Neither is ever negative on this clock.
    t.tv_sec.unsigned_abs() * 1_000_000_000 + t.tv_nsec.unsigned_abs()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slowed_clock_lags_and_a_copy_of_it_agrees() {
        let clock = Clock::start(8.0);
        let copy: Clock = serde_json::from_str(&serde_json::to_string(&clock).unwrap()).unwrap();
        assert_eq!(clock, copy);
        let before = Clock::wall().now();
        let at = Nanos(clock.now().0 + 500_000);
        while clock.now() < at {
            std::thread::sleep(copy.until(at));
        }
        let passed = Clock::wall().now().since(before);
        assert!(passed.0 >= 8 * 500_000 - 8, "{passed}");
        assert_eq!(clock.until(at), Duration::ZERO);
    }
}
