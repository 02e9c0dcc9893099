//! A kernel that shares a pool with others.

use super::NEVER;
use super::shape::Config;

#[derive(Clone, Debug)]
pub(super) struct Resident {
    /// Order of submission: earlier goes first.
    pub(super) seq: u64,
    /// The instant at which `rem` was last brought up to date.
    pub(super) anchor: u64,
    /// Undisturbed time left with the blocks that it has on the CUs now, ns.
    pub(super) rem: f64,
    /// Undisturbed time from beginning to end with that many blocks at once, ns; 0 before it begins.
    pub(super) whole: f64,
    /// Slowdown by other kernels, at least 1.
    pub(super) slow: f64,
    /// Energy per unit of work, relative to that at the boost clock.
    pub(super) heat: f64,
    /// How it runs. While it is on no CU all of it is zero, except that `ns` keeps its last value.
    pub(super) now: Config,
    /// The end of a wave of its blocks that another kernel waits for, or at which it leaves; [`NEVER`]:
    /// none.
    pub(super) edge: u64,
    /// Taken from its job.
    pub(super) scale: f64,
    pub(super) extra_ns: u64,
    pub(super) part: f64,
    pub(super) saved: bool,
    pub(super) owner: u32,
    pub(super) tenant: u32,
    pub(super) kernel: u32,
    pub(super) lane: u32,
    /// Its entry in the pool's masks, or none.
    pub(super) mask: u32,
    /// Maximum number of CUs that its blocks may be on.
    pub(super) cus: u32,
    /// Space that it wants, and space that it has: CUs filled by its blocks.
    pub(super) limit: u32,
    pub(super) held: u32,
    pub(super) priority: i8,
    /// Its last wave is on the CUs: these blocks end there, whichever kernels come.
    pub(super) last: bool,
    /// A run of small kernels that come and go: takes speed, not space.
    pub(super) fair: bool,
    /// It leaves the CUs as its blocks end.
    pub(super) leaving: bool,
}

impl Resident {
    /// Whether it has blocks on CUs.
    #[inline]
    pub(super) fn runs(&self) -> bool {
        self.now.lies > 0
    }

    /// The share of the kernel that is still left of its job's work, as of the anchor.
    pub(super) fn left(&self) -> f64 {
        if self.whole > 0.0 { (self.rem / self.whole).min(self.part) } else { self.part }
    }

    /// Subtracts the progress since the anchor from the remaining time. Returns how much time has
    /// passed, and how much undisturbed work was done in it.
    #[inline]
    pub(super) fn age(&mut self, now: u64) -> (u64, f64) {
        let dt = now - self.anchor;
        // Usually nothing slows it, and then the division is skipped.
        let done = if self.slow == 1.0 { float(dt) } else { float(dt) / self.slow };
        self.rem = (self.rem - done).max(0.0);
        self.anchor = now;
        (dt, done)
    }

    /// When it ends if nothing changes; [`NEVER`] while it waits.
    pub(super) fn finish(&self) -> u64 {
        if !self.runs() {
            return NEVER;
        }
        self.when(0.0)
    }

    /// When `rem` ns are left, if nothing changes.
    fn when(&self, rem: f64) -> u64 {
        let left = (self.rem - rem) * self.slow;
        let down = whole(left);
        self.anchor + down + u64::from(float(down) < left)
    }

    /// Undisturbed duration of one of its waves, ns.
    pub(super) fn wave(&self) -> f64 {
        self.whole / float(self.now.waves)
    }

    /// Whether some of its blocks wait for those on the CUs to end.
    pub(super) fn in_waves(&self) -> bool {
        self.now.waves > 1 && !self.last
    }

    /// The end of the next wave of its blocks from `now` on, or with `last` of its second-to-last wave;
    /// [`NEVER`] if it is in its last wave.
    pub(super) fn wave_end(&self, now: u64, last: bool) -> u64 {
        let wave = self.wave();
        let left = self.rem - float(now - self.anchor) / self.slow;
        // A wave that ends at this very instant still counts as ahead until it has been handled.
        let mut ahead = if last { 1.0 } else { libm::ceil(left / wave) };
        while ahead >= 1.0 {
            let then = ahead * wave;
            if self.rem > then {
                let at = self.when(then);
                if at >= now {
                    return at;
                }
            }
            ahead -= 1.0;
        }
        NEVER
    }

    /// Whether one wave is left; a ten-billionth of a wave is rounding error.
    pub(super) fn at_last_wave(&self) -> bool {
        self.rem <= self.wave() * (1.0 + 1e-10)
    }
}

/// Exact below 2^53, and one instruction where the unsigned conversion takes several.
#[inline]
pub(super) fn float(x: u64) -> f64 {
    x as i64 as f64
}

/// Rounds down. The signed conversion is the fast one, and no time here comes near 2^63 ns.
#[inline]
fn whole(x: f64) -> u64 {
    x as i64 as u64
}

/// Duration of a kernel that takes `ns` undisturbed according to its profile, ns. `beside`: kernels
/// that already run. Each of them delays it by `delay[0]` ns, plus once that for itself and a constant,
/// `delay[1]` (`igniter`).
#[inline]
pub(super) fn duration(
    mut ns: u64,
    scale: f64,
    extra_ns: u64,
    delay: Option<[f64; 2]>,
    beside: usize,
) -> u64 {
    if scale != 1.0 {
        // A drawn duration is a whole number of nanoseconds, at least one.
        ns = whole(float(ns) * scale) + 1;
    }
    if let (Some([each, constant]), 1..) = (delay, beside) {
        ns += whole((each * (beside + 1) as f64 + constant).max(0.0));
    }
    ns + extra_ns
}
