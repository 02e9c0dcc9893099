//! The multi-tenancy scaler: one instance more, or one less, as released.

use cotenant_profiles::Nanos;

use super::band::Band;

/// Waits of the loop.
#[derive(Clone, Copy, Debug)]
pub(super) struct Waits {
    /// Between two checks of the latency.
    pub(super) tick: Nanos,
    /// After an instance was added, in addition to the growing wait.
    pub(super) after_add: Nanos,
    /// After one was removed.
    pub(super) after_remove: Nanos,
    /// By how much the wait grows with each instance added.
    pub(super) bias: Nanos,
}

/// What to do about the number of instances.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    Keep,
    Add,
    Remove,
}

/// The state of the loop.
#[derive(Clone, Copy, Debug)]
pub(super) struct Loop {
    waits: Waits,
    /// The wait that the next addition adds to its own.
    bias: Nanos,
    /// Latency that led to the last addition; 0 before the first.
    before_add: f64,
    /// Latency that led to the last removal, while it stays frozen.
    frozen: Option<f64>,
}

impl Loop {
    pub(super) fn new(waits: Waits) -> Self {
        Self { waits, bias: Nanos::ZERO, before_add: 0.0, frozen: None }
    }

    /// One check of the latency, with `live` instances of at most `most`: what to do, and how long to
    /// wait until the next check.
    pub(super) fn look(
        &mut self,
        latency: f64,
        slo: f64,
        edge: f64,
        live: u32,
        most: u32,
    ) -> (Change, Nanos) {
        if let Some(broke) = self.frozen {
            if latency < 0.95 * self.before_add || latency > broke {
                self.frozen = None;
            }
            return (Change::Keep, self.waits.tick);
        }
        match Band::of(latency, slo, edge) {
            Band::Under if live < most => {
                self.before_add = latency;
                let wait = self.waits.after_add + self.bias + self.waits.tick;
                self.bias += self.waits.bias;
                (Change::Add, wait)
            }
            Band::Over if live > 1 => {
                self.frozen = Some(latency);
                (Change::Remove, self.waits.after_remove)
            }
            _ => (Change::Keep, self.waits.tick),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waits() -> Waits {
        let s = Nanos::from_secs;
        Waits { tick: s(1), after_add: s(5), after_remove: s(5), bias: s(3) }
    }

    /// Instances after each look, and the seconds until the next, where `n` instances take
    /// `latency(n)` ms.
    fn walk(start: u32, slo: f64, looks: usize, latency: impl Fn(u32) -> f64) -> Vec<(u32, u64)> {
        let (mut state, mut live) = (Loop::new(waits()), start);
        let mut seen = vec![];
        for _ in 0..looks {
            let (change, wait) = state.look(latency(live), slo, 0.85, live, 10);
            match change {
                Change::Add => live += 1,
                Change::Remove => live -= 1,
                Change::Keep => {}
            }
            seen.push((live, wait.0 / 1_000_000_000));
        }
        seen
    }

    #[test]
    fn it_adds_until_the_band() {
        // 10 ms an instance under 48 ms: 40 ms is under 40.8 ms, 50 ms is over: from 2 it adds a
        // third (wait 5 + 0 + 1 s), a fourth (5 + 3 + 1), a fifth (5 + 6 + 1), removes that (5) and
        // freezes: 40 ms is between 0.95 × 40 and 50.
        let seen = walk(2, 48.0, 6, |n| 10.0 * f64::from(n));
        assert_eq!(seen, [(3, 6), (4, 9), (5, 12), (4, 5), (4, 1), (4, 1)]);
    }

    #[test]
    fn it_holds_inside_the_band() {
        let seen = walk(4, 45.0, 3, |n| 10.0 * f64::from(n));
        assert_eq!(seen, [(4, 1), (4, 1), (4, 1)]);
    }

    #[test]
    fn a_start_too_high_goes_down_once_and_freezes() {
        // Without an addition the lower edge of the freeze is 0: one removal, then 70 ms against
        // 45 ms is held for ever, as released.
        let seen = walk(8, 45.0, 4, |n| 10.0 * f64::from(n));
        assert_eq!(seen, [(7, 5), (7, 1), (7, 1), (7, 1)]);
    }

    #[test]
    fn a_thaw_takes_one_look() {
        let mut state = Loop::new(waits());
        let mut look = |latency, live| state.look(latency, 45.0, 0.85, live, 10).0;
        assert_eq!(look(30.0, 3), Change::Add);
        assert_eq!(look(50.0, 4), Change::Remove);
        assert_eq!(look(30.0, 3), Change::Keep);
        // 28 ms is below 0.95 × 30: the next look may act.
        assert_eq!(look(28.0, 3), Change::Keep);
        assert_eq!(look(28.0, 3), Change::Add);
    }

    #[test]
    fn neither_none_nor_more_than_allowed() {
        assert_eq!(walk(1, 5.0, 2, |_| 10.0), [(1, 1), (1, 1)]);
        assert_eq!(walk(10, 500.0, 2, |_| 10.0), [(10, 1), (10, 1)]);
    }
}
