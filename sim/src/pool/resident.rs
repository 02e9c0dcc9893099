//! One kernel among those that share a pool.

use super::NEVER;
use super::shape::Config;

#[derive(Clone, Debug)]
pub(super) struct Resident {
    /// Order of submission: earlier goes first.
    pub(super) seq: u64,
    /// When `rem` was last brought up to date.
    pub(super) anchor: u64,
    /// Undisturbed time left with the blocks that it has on the CUs, ns.
    pub(super) rem: f64,
    /// Undisturbed time from beginning to end with so many blocks at once, ns; 0 before it began.
    pub(super) whole: f64,
    /// Slow-down by others, at least 1.
    pub(super) slow: f64,
    /// Energy per work over that at the boost clock.
    pub(super) heat: f64,
    /// How it runs: nothing of it does where it lies on no CU, but `ns` keeps its last value.
    pub(super) now: Config,
    /// When a wave of its blocks ends that somebody waits for; [`NEVER`]: none.
    pub(super) edge: u64,
    /// Of its job.
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
    /// Most CUs that its blocks may lie on.
    pub(super) cus: u32,
    /// Space that it wants and has: CUs filled by its blocks.
    pub(super) limit: u32,
    pub(super) held: u32,
    pub(super) priority: i8,
    /// The last of its waves is on the CUs: they end there, whoever comes.
    pub(super) last: bool,
    /// Small kernels that come and go: takes speed, not space.
    pub(super) fair: bool,
    /// It leaves the CUs as its blocks end.
    pub(super) leaving: bool,
}

impl Resident {
    /// Has blocks on CUs.
    #[inline]
    pub(super) fn runs(&self) -> bool {
        self.now.lies > 0
    }

    /// Share of its kernel that is left of what its job is to do, as of the anchor.
    pub(super) fn left(&self) -> f64 {
        if self.whole > 0.0 { (self.rem / self.whole).min(self.part) } else { self.part }
    }

    /// Takes the time since the anchor off what is left: how long that was, and how much was done.
    #[inline]
    pub(super) fn age(&mut self, now: u64) -> (u64, f64) {
        let dt = now - self.anchor;
        // Most often nobody slows it, and then the division is left out.
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

    /// When so much is left if nothing changes.
    fn when(&self, rem: f64) -> u64 {
        let left = (self.rem - rem) * self.slow;
        let down = whole(left);
        self.anchor + down + u64::from(float(down) < left)
    }

    /// Undisturbed time of one of its waves, ns.
    pub(super) fn wave(&self) -> f64 {
        self.whole / float(self.now.waves)
    }

    /// Blocks of its own wait for those on the CUs to end.
    pub(super) fn in_waves(&self) -> bool {
        self.now.waves > 1 && !self.last
    }

    /// When, from `now` on, the next wave of its blocks ends, or with `last` the one before its last;
    /// [`NEVER`] if it is in its last wave.
    pub(super) fn wave_end(&self, now: u64, last: bool) -> u64 {
        let wave = self.wave();
        let left = self.rem - float(now - self.anchor) / self.slow;
        // One that ends at this very instant is ahead until it has been seen to.
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

    /// Whether what is left is one wave; a ten-billionth of it is rounding.
    pub(super) fn at_last_wave(&self) -> bool {
        self.rem <= self.wave() * (1.0 + 1e-10)
    }
}

/// Exact below 2^53, and one instruction where the unsigned conversion takes several.
#[inline]
pub(super) fn float(x: u64) -> f64 {
    x as i64 as f64
}

/// Rounded down; the signed conversion is the fast one. No time here comes near 2^63 ns.
#[inline]
fn whole(x: f64) -> u64 {
    x as i64 as u64
}

/// How long a kernel takes that takes `ns` undisturbed by its profile, ns. `beside`: kernels that run
/// already, each of which delays it by so many ns, plus a constant (`igniter`).
#[inline]
pub(super) fn duration(
    mut ns: u64,
    scale: f64,
    extra_ns: u64,
    delay: Option<[f64; 2]>,
    beside: usize,
) -> u64 {
    if scale != 1.0 {
        // Whole nanoseconds, at least one: what a drawn duration is.
        ns = whole(float(ns) * scale) + 1;
    }
    if let (Some([each, constant]), 1..) = (delay, beside) {
        ns += whole((each * (beside + 1) as f64 + constant).max(0.0));
    }
    ns + extra_ns
}
