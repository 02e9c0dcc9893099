//! One kernel among those that share a pool.

use super::NEVER;
use crate::contention::{Demand, Shared};
use crate::program::KernelCode;

#[derive(Clone, Debug)]
pub(super) struct Resident {
    /// Order of submission: earlier goes first.
    pub(super) seq: u64,
    /// When `rem` was last brought up to date.
    pub(super) anchor: u64,
    /// Undisturbed time left at `basis` CUs, ns.
    pub(super) rem: f64,
    /// Slow-down by contention, at least 1.
    pub(super) slow: f64,
    /// Bytes that it has moved so far.
    pub(super) moved: f64,
    /// What it asks of the memory system at its grant, as in [`Demand`].
    pub(super) dram: u64,
    pub(super) footprint: u64,
    /// Of its job.
    pub(super) scale: f64,
    pub(super) extra_ns: u64,
    pub(super) owner: u32,
    pub(super) kernel: u32,
    pub(super) lane: u32,
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
    /// Of its kernel: thread blocks, and how many of them a CU holds.
    pub(super) blocks: u64,
    pub(super) blocks_per_cu: u32,
    pub(super) priority: i8,
    /// Its kernel shares CUs fairly.
    pub(super) fair: bool,
}

impl Resident {
    /// What it asks of the memory system.
    pub(super) fn demand(&self) -> Demand {
        Demand { dram: self.dram, footprint: self.footprint, cus: self.grant }
    }

    /// Takes the time since the anchor off what is left.
    pub(super) fn age(&mut self, now: u64) {
        let worked = float(now - self.anchor) / self.slow;
        self.moved += worked * float(self.dram) / 1000.0;
        self.rem = (self.rem - worked).max(0.0);
        self.anchor = now;
    }

    /// Bytes that it will have moved at `now`.
    pub(super) fn moved_by(&self, now: u64) -> f64 {
        let worked = float(now - self.anchor) / self.slow;
        self.moved + if self.grant > 0 { worked * float(self.dram) / 1000.0 } else { 0.0 }
    }

    /// Counts what is left at the current grant.
    pub(super) fn rebase(&mut self, kernel: &KernelCode, shared: &Shared) {
        if self.basis != self.grant {
            let here = undisturbed(kernel, self.grant, shared);
            self.rem *= float(here) / float(undisturbed(kernel, self.basis, shared));
            self.basis = self.grant;
        }
    }

    /// When it ends if nothing changes; [`NEVER`] while it waits.
    pub(super) fn finish(&self) -> u64 {
        if self.grant == 0 {
            return NEVER;
        }
        let left = self.rem * self.slow;
        let down = whole(left);
        self.anchor + down + u64::from(float(down) < left)
    }

    /// All its blocks are on CUs: they end there, whoever comes.
    pub(super) fn settled(&self) -> bool {
        let held = u64::from(self.grant) * u64::from(self.blocks_per_cu);
        self.grant > 0 && self.blocks <= held
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

/// What a kernel's work takes on so many CUs undisturbed, ns: its curve, and in a part of the GPU
/// with less bandwidth at least as long as its bytes take there. On the whole GPU the curve holds
/// what bandwidth costs.
#[inline]
pub(super) fn undisturbed(kernel: &KernelCode, cus: u32, shared: &Shared) -> u64 {
    let curve = kernel.at(cus);
    if shared.dram >= shared.board { curve } else { curve.max(bytes_ns(kernel, shared)) }
}

/// How long a kernel's bytes take in a part of the GPU, ns. What it moves is at most what the whole
/// memory system can while the kernel lasts on the whole GPU: a profile may count more.
#[inline(never)]
fn bytes_ns(kernel: &KernelCode, shared: &Shared) -> u64 {
    let full = kernel.duration_ns.len() as u32 - 1;
    let most = u128::from(shared.board) * u128::from(kernel.at(full));
    let thousandths = most.min(u128::from(kernel.dram_bytes) * 1000);
    u64::try_from(thousandths.div_ceil(u128::from(shared.dram.max(1)))).unwrap_or(u64::MAX)
}

/// How long a kernel that starts on so many CUs takes undisturbed, ns. `beside`: kernels that run
/// already, each of which delays it by so many ns, plus a constant (`igniter`).
#[inline]
pub(super) fn duration(
    kernel: &KernelCode,
    grant: u32,
    (scale, extra_ns): (f64, u64),
    shared: &Shared,
    delay: Option<[f64; 2]>,
    beside: usize,
) -> u64 {
    let mut ns = undisturbed(kernel, grant, shared);
    if scale != 1.0 {
        // Whole nanoseconds, at least one: what a drawn duration is.
        ns = whole(float(ns) * scale) + 1;
    }
    if let (Some([each, constant]), 1..) = (delay, beside) {
        ns += whole((each * (beside + 1) as f64 + constant).max(0.0));
    }
    ns + extra_ns
}

/// Bytes per microsecond on so many CUs, and bytes that it would keep in L2. Alone, a kernel never
/// draws more than the memory system has, whatever its profile says.
#[inline]
pub(super) fn demand_of(kernel: &KernelCode, cus: u32, shared: &Shared) -> (u64, u64) {
    let ns = undisturbed(kernel, cus, shared);
    let dram = kernel.dram_bytes.saturating_mul(1000) / ns.max(1);
    (dram.min(shared.dram), kernel.dram_bytes.min(shared.l2))
}
