//! A pass over a model in a place that it has to itself, as sums over its launches: when each launch
//! ends, which ones wait for the host, and what they use.
//!
//! A kernel starts when the one before it has ended and the host has issued it. So launch `k` ends at
//! `max(x + D(k), base + H(k))`. `D(k)` is the sum of the kernel times up to `k`. `H(k)` is when `k`
//! ends, counted from `base`, when the host began the pass, if only the host and the kernels before
//! hold it up. `x` is when the kernels would have begun, had they run without a gap up to the launch
//! whose end is known. `H - D` never falls along the pass, so there is one launch from which on the
//! host is the bottleneck, and binary search finds it. Binary search also finds the launch that runs at
//! a given instant.

use crate::pool::{Pool, Work};
use crate::program::Code;

/// Sums over the launches before a given one.
#[derive(Clone, Copy, Debug, Default)]
struct Before {
    work: Work,
    /// The launches whose issue is waited for however early the pass began: how many there are, and the
    /// sum of their issue times after the base.
    gaps: u64,
    issues: u64,
    /// Sums of the ends of the launches: when they run without a gap, and when only the host holds them
    /// up.
    ends: u64,
    host_ends: u64,
}

/// A pass, or the rest of one, with one launch whose end is known.
#[derive(Clone, Copy, Debug)]
pub(super) struct Course {
    /// That launch, and its end.
    pub(super) from: u32,
    pub(super) ends: u64,
    /// When the host began the pass.
    pub(super) base: u64,
    /// The first launch behind it for whose issue the GPU waits; the number of launches: none.
    bound: u32,
}

/// Number of events in a part of a course, and the sums of their instants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Passed {
    /// Kernels that ended.
    pub(super) ends: u64,
    pub(super) ends_sum: u64,
    /// Launches whose issue was waited for.
    pub(super) issues: u64,
    pub(super) issues_sum: u64,
}

#[derive(Debug, Default)]
pub(super) struct Track {
    /// One entry per launch, and one more.
    before: Vec<Before>,
    /// By launch: `ns` is when it ends after the first one's start without a gap (`D`); `host`, when it
    /// ends after the base if only the host holds it up (`H`); `behind`, how far `H` is behind `D`.
    ns: Vec<u64>,
    host: Vec<u64>,
    behind: Vec<u64>,
    issued: Vec<u64>,
    /// The highest power that one of its kernels draws, mW.
    pub(super) peak: u64,
}

impl Track {
    /// The track of these launches, each a kernel and its issue time after the base, in a lane of a
    /// pool. `None` if how they run cannot be known in advance.
    pub(super) fn new(
        launches: impl Iterator<Item = (u32, u64)>,
        pool: &mut Pool,
        (lane, cap): (u32, u32),
        code: &Code,
    ) -> Option<Self> {
        let mut track = Self { before: vec![Before::default()], ..Self::default() };
        let (mut sum, mut host, mut behind) = (Before::default(), 0_u64, 0);
        for (kernel, issued) in launches {
            let (work, power) = pool.alone(kernel, lane, cap, code)?;
            track.peak = track.peak.max(power);
            if issued > host {
                sum.gaps += 1;
                sum.issues = sum.issues.checked_add(issued)?;
                (host, behind) = (issued, issued - sum.work.ns);
            }
            host = host.checked_add(work.ns)?;
            // No run ever gets beyond this, and nothing overflows.
            if host >= 1 << 60 {
                return None;
            }
            sum.work = sum.work + work;
            sum.ends = sum.ends.wrapping_add(sum.work.ns);
            sum.host_ends = sum.host_ends.wrapping_add(host);
            track.before.push(sum);
            track.ns.push(sum.work.ns);
            track.host.push(host);
            track.behind.push(behind);
            track.issued.push(issued);
        }
        Some(track)
    }

    pub(super) fn len(&self) -> u32 {
        self.issued.len() as u32
    }

    /// The course in which launch `from` ends at `ends`; `None` if it cannot end that early.
    #[inline]
    pub(super) fn course(&self, from: u32, ends: u64, base: u64) -> Option<Course> {
        let f = from as usize;
        if ends < base + self.host[f] {
            return None;
        }
        // How far the launches up to `from` are behind launches that only their base holds up.
        let late = ends - base - self.ns[f];
        let rest = &self.behind[f + 1..];
        let bound = match rest.last() {
            // Usually the host is ahead all along.
            Some(&most) if most > late => from + 1 + rest.partition_point(|&b| b <= late) as u32,
            _ => self.len(),
        };
        Some(Course { from, ends, base, bound })
    }

    /// When launch `k` ends; `k` is the launch with the known end or a later one.
    #[inline]
    pub(super) fn end(&self, c: &Course, k: u32) -> u64 {
        if k < c.bound {
            c.ends + (self.ns[k as usize] - self.ns[c.from as usize])
        } else {
            c.base + self.host[k as usize]
        }
    }

    /// When the last launch ends.
    pub(super) fn over(&self, c: &Course) -> u64 {
        self.end(c, self.len() - 1)
    }

    /// When launch `k` is issued, if the GPU waits for that.
    pub(super) fn awaited(&self, c: &Course, k: u32) -> Option<u64> {
        let gaps = |k: u32| self.before[k as usize].gaps;
        let gap = k >= c.bound && gaps(k + 1) > gaps(k);
        gap.then(|| c.base + self.issued[k as usize])
    }

    /// The first launch after the known one for whose issue the GPU waits.
    pub(super) fn first_awaited(&self, c: &Course) -> Option<u32> {
        (c.bound < self.len()).then_some(c.bound)
    }

    /// How long launch `k` lasts.
    pub(super) fn lasts(&self, k: u32) -> u64 {
        self.before[k as usize + 1].work.ns - self.before[k as usize].work.ns
    }

    /// The number of CUs on which launch `k` has blocks.
    pub(super) fn lies(&self, k: u32) -> u32 {
        let lain = self.work(k, k + 1).lain;
        (lain / self.lasts(k)) as u32
    }

    /// How many launches have ended before `at`, or, with `with`, at or before it.
    pub(super) fn ended(&self, c: &Course, at: u64, with: bool) -> u32 {
        let over = |k: u32| {
            let end = self.end(c, k);
            end < at || with && end == at
        };
        let (mut low, mut high) = (c.from, self.len());
        while low < high {
            let middle = low.midpoint(high);
            if over(middle) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }

    /// The work of launches `from..to`.
    pub(super) fn work(&self, from: u32, to: u32) -> Work {
        self.before[to as usize].work - self.before[from as usize].work
    }

    /// The events from the known launch up to, not including, `to`: the ends of these launches, and the
    /// issues among them that are waited for, except the known launch's own.
    pub(super) fn passed(&self, c: &Course, to: u32) -> Passed {
        let at = |k: u32| &self.before[k as usize];
        let bound = c.bound.min(to);
        let mut passed = Passed { ends: u64::from(to - c.from), ..Passed::default() };
        let free = u64::from(bound - c.from);
        let offset = c.ends.wrapping_sub(self.ns[c.from as usize]);
        passed.ends_sum =
            at(bound).ends.wrapping_sub(at(c.from).ends).wrapping_add(offset.wrapping_mul(free));
        if to > bound {
            let held = u64::from(to - bound);
            let host = at(to).host_ends.wrapping_sub(at(bound).host_ends);
            let sum = host.wrapping_add(c.base.wrapping_mul(held));
            passed.ends_sum = passed.ends_sum.wrapping_add(sum);
            passed.issues = at(to).gaps - at(bound).gaps;
            let issues = at(to).issues - at(bound).issues;
            passed.issues_sum = issues.wrapping_add(c.base.wrapping_mul(passed.issues));
        }
        passed
    }
}
