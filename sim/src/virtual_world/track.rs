//! What a pass over a model does in a place that it has to itself, as sums over its launches: when each
//! ends, which of them wait for the host, and what they take.
//!
//! A kernel starts when the one before has ended and the host has issued it. So launch `k` ends at
//! `max(x + D(k), base + H(k))`: `D` sums the kernels up to it, `H` is when it ends, after the host began
//! the pass at `base`, if nothing but the host and the kernels before hold it up, and `x` is when the
//! kernels would have begun had the one that is known to end at some instant begun them without a gap.
//! `H - D` never falls along the pass, so that there is one launch from which on the host is what holds
//! it up, found by binary search; and so is the launch that runs at an instant.

use crate::pool::{Pool, Work};
use crate::program::Code;

/// Sums over the launches before one.
#[derive(Clone, Copy, Debug, Default)]
struct Before {
    work: Work,
    /// Of those whose issue is waited for however early the pass began: how many, and the sum of the
    /// instants after the base at which they are issued.
    gaps: u64,
    issues: u64,
    /// Sum of the ends of each of them without a gap, and as only the host holds them up.
    ends: u64,
    host_ends: u64,
}

/// A pass, or what is left of it, of which one launch is known to end at some instant.
#[derive(Clone, Copy, Debug)]
pub(super) struct Course {
    /// That launch, and its end.
    pub(super) from: u32,
    pub(super) ends: u64,
    /// When the host began the pass.
    pub(super) base: u64,
    /// The first launch behind it for whose issue the GPU waits; as many as there are: none.
    bound: u32,
}

/// Events of a part of a course, and what their instants add up to.
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
    /// By launch, and one more.
    before: Vec<Before>,
    /// By launch: when it ends after the first one's begin without a gap (`D`), and after the base if only
    /// the host holds it up (`H`); how far that is behind.
    ns: Vec<u64>,
    host: Vec<u64>,
    behind: Vec<u64>,
    issued: Vec<u64>,
    /// Most power that one of its kernels draws, mW.
    pub(super) peak: u64,
}

impl Track {
    /// Of these kernels, issued so long after the base, in a lane of a pool; `None` if how they run cannot
    /// be said beforehand.
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
            // Beyond that nobody ever gets, and nothing overflows.
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

    /// The course of which launch `from` ends at `ends`; `None` if it cannot, so early.
    #[inline]
    pub(super) fn course(&self, from: u32, ends: u64, base: u64) -> Option<Course> {
        let f = from as usize;
        if ends < base + self.host[f] {
            return None;
        }
        // How far the launches up to `from` are behind those that nothing but their base holds up.
        let late = ends - base - self.ns[f];
        let rest = &self.behind[f + 1..];
        let bound = match rest.last() {
            // Most often the host is ahead all along.
            Some(&most) if most > late => from + 1 + rest.partition_point(|&b| b <= late) as u32,
            _ => self.len(),
        };
        Some(Course { from, ends, base, bound })
    }

    /// When launch `k` ends, at or behind the one that is known.
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

    /// When launch `k` is issued if that is waited for.
    pub(super) fn awaited(&self, c: &Course, k: u32) -> Option<u64> {
        let gaps = |k: u32| self.before[k as usize].gaps;
        let gap = k >= c.bound && gaps(k + 1) > gaps(k);
        gap.then(|| c.base + self.issued[k as usize])
    }

    /// The first launch behind the known one for which the GPU waits.
    pub(super) fn first_awaited(&self, c: &Course) -> Option<u32> {
        (c.bound < self.len()).then_some(c.bound)
    }

    /// How long launch `k` lasts.
    pub(super) fn lasts(&self, k: u32) -> u64 {
        self.before[k as usize + 1].work.ns - self.before[k as usize].work.ns
    }

    /// On how many CUs launch `k` lies.
    pub(super) fn lies(&self, k: u32) -> u32 {
        let lain = self.work(k, k + 1).lain;
        (lain / self.lasts(k)) as u32
    }

    /// How many launches have ended before `at`, or with `with` by then.
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

    /// What launches `from..to` do.
    pub(super) fn work(&self, from: u32, to: u32) -> Work {
        self.before[to as usize].work - self.before[from as usize].work
    }

    /// The ends of launches up to `to`, and the issues of those that are waited for among them, from the
    /// known one on, whose own issue is not among them.
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
