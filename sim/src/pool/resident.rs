//! One kernel among those that share a pool.

use super::{Job, NEVER};
use crate::contention::{Demand, Shared};
use crate::program::{Code, KernelCode};

#[derive(Clone, Debug)]
pub(super) struct Resident {
    pub(super) job: Job,
    /// Order of submission: earlier goes first.
    pub(super) seq: u64,
    /// Its entry in the pool's masks, or none.
    pub(super) mask: u32,
    /// CUs whose blocks can be used at once, at most the cap.
    pub(super) limit: u32,
    /// CUs that determine its duration; 0 while it waits.
    pub(super) grant: u32,
    /// CUs it occupies (more than `grant` where groups are unevenly filled).
    pub(super) used: u32,
    /// The grant at which `rem` is counted; 0 before the first.
    pub(super) basis: u32,
    /// When `rem` was last brought up to date.
    pub(super) anchor: u64,
    /// Undisturbed time left at `basis` CUs, ns.
    pub(super) rem: f64,
    /// Slow-down by contention, at least 1.
    pub(super) slow: f64,
    pub(super) demand: Demand,
}

impl Resident {
    /// Takes the time since the anchor off what is left.
    pub(super) fn age(&mut self, now: u64) {
        let dt = float(now - self.anchor);
        self.rem = (self.rem - dt / self.slow).max(0.0);
        self.anchor = now;
    }

    /// The first grant, beside so many kernels: how long it takes undisturbed, ns.
    #[inline]
    pub(super) fn start(&mut self, kernel: &KernelCode, delay: [f64; 2], beside: usize) -> u64 {
        let mut ns = kernel.at(self.grant);
        if self.job.scale != 1.0 {
            // Whole nanoseconds, at least one: what a drawn duration is.
            ns = whole(float(ns) * self.job.scale) + 1;
        }
        if beside > 0 {
            self.job.extra_ns += whole((delay[0] * (beside + 1) as f64 + delay[1]).max(0.0));
        }
        ns += self.job.extra_ns;
        self.rem = float(ns);
        self.basis = self.grant;
        ns
    }

    /// Counts what is left at the current grant.
    pub(super) fn rebase(&mut self, kernel: &KernelCode) {
        if self.basis != self.grant {
            self.rem *= float(kernel.at(self.grant)) / float(kernel.at(self.basis));
            self.basis = self.grant;
        }
    }

    pub(super) fn finish(&self) -> u64 {
        if self.grant == 0 {
            return NEVER;
        }
        let left = self.rem * self.slow;
        let down = whole(left);
        self.anchor + down + u64::from(float(down) < left)
    }

    /// All its blocks are on CUs: they end there, whoever comes.
    pub(super) fn settled(&self, code: &Code) -> bool {
        self.grant > 0 && code.kernels[self.job.kernel as usize].placed(self.grant)
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

/// Alone, a kernel never draws more than the memory system has, whatever its profile says.
pub(super) fn demand_of(kernel: &KernelCode, cus: u32, shared: &Shared) -> Demand {
    let dram = kernel.dram_bytes.saturating_mul(1000) / kernel.at(cus).max(1);
    Demand { dram: dram.min(shared.dram), footprint: kernel.dram_bytes.min(shared.l2), cus }
}
