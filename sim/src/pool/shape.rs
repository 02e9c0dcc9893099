//! The resources that a kernel takes of a pool: space for its blocks, speed for their work, bandwidth.

use cotenant_profiles::device::Topology;

use crate::contention::Shared;
use crate::program::KernelCode;

use super::draw::{Draw, Electric};

/// The resolution of a CU's room and speed: parts per CU.
pub(super) const PARTS: u32 = 1024;

/// Threads, registers, shared memory, block slots.
pub(super) type Room = [u32; 4];

/// A kernel in a pool.
#[derive(Clone, Debug)]
pub(super) struct Shape {
    /// What a CU full of its blocks takes of that CU, in [`PARTS`]: all of the resource that limits how
    /// many fit.
    pub(super) takes: Room,
    pub(super) blocks: u64,
    /// A run of small kernels that come and go: takes speed, not space.
    pub(super) fair: bool,
    /// CUs that its blocks fill when packed as densely as possible.
    pub(super) packed: u32,
    /// Bytes that it would keep in L2.
    footprint: u64,
    /// The smallest CU-time in which it can run, CU-ns.
    pub(super) area: u64,
    /// How it runs alone on every CU of the pool's first lane.
    pub(super) alone: Config,
    /// The number of those CUs.
    pub(super) of: u32,
    /// The bandwidth and power that it draws.
    draw: Draw,
}

/// How a kernel runs with a given number of its blocks on a given number of CUs.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Config {
    /// Undisturbed time from its first block to its last, ns.
    pub(super) ns: u64,
    /// CU speed that it uses during that time, in [`PARTS`] of a CU.
    pub(super) speed: u64,
    /// DRAM bandwidth during that time, bytes per microsecond.
    pub(super) dram: u64,
    /// L2 bandwidth during that time, parts per million of the whole GPU's.
    pub(super) l2: u64,
    /// Power during that time, beyond what the board draws as soon as anything runs, mW.
    pub(super) power: u64,
    /// Bytes that it would keep in L2.
    pub(super) footprint: u64,
    /// CUs on which it has blocks.
    pub(super) lies: u32,
    /// Blocks on the CUs at once, and how many waves of that many blocks it has.
    pub(super) there: u64,
    pub(super) waves: u64,
}

impl Shape {
    pub(super) fn new(
        kernel: &KernelCode,
        of: u32,
        topology: &Topology,
        shared: &Shared,
        electric: &Electric,
    ) -> Self {
        let fit = u64::from(kernel.blocks_per_cu.max(1));
        let mut shape = Self {
            takes: takes(kernel, topology),
            blocks: kernel.blocks,
            fair: kernel.fair,
            packed: u32::try_from(kernel.blocks.div_ceil(fit).max(1)).unwrap_or(u32::MAX),
            footprint: kernel.dram_bytes.min(shared.l2),
            area: kernel.least_area(),
            alone: Config::default(),
            of,
            draw: Draw::new(kernel, shared, electric),
        };
        shape.alone = shape.on(kernel, of, shared);
        shape
    }

    /// Runs with room for all the blocks that `cus` CUs can hold.
    pub(super) fn on(&self, kernel: &KernelCode, cus: u32, shared: &Shared) -> Config {
        let ns = undisturbed(kernel, cus, shared);
        if kernel.fair {
            // Small kernels, one after the other, that come and go on every CU.
            return self.config(kernel, ns, u64::from(cus), cus, shared);
        }
        let there = kernel.blocks.min(u64::from(cus) * u64::from(kernel.blocks_per_cu)).max(1);
        self.config(kernel, ns, there, cus, shared)
    }

    /// Runs with room for the blocks of only `held` CUs, spread over `cus`: this takes more waves. A
    /// wave takes as long as it would with that many blocks per CU.
    pub(super) fn short(
        &self,
        kernel: &KernelCode,
        cus: u32,
        held: u32,
        shared: &Shared,
    ) -> Config {
        let fit = u64::from(kernel.blocks_per_cu);
        let there = u128::from(u64::from(held) * fit);
        let (blocks, at_once) = (u128::from(kernel.blocks), u128::from(u64::from(cus) * fit));
        let ns = if blocks > at_once {
            (u128::from(kernel.at(cus)) * at_once).div_ceil(there)
        } else {
            let full = kernel.duration_ns.len() as u128 - 1;
            let as_on = (blocks * u128::from(cus)).div_ceil(there).clamp(u128::from(cus), full);
            (u128::from(kernel.at(as_on as u32)) * blocks).div_ceil(there)
        };
        let ns = u64::try_from(ns).unwrap_or(u64::MAX).max(undisturbed(kernel, cus, shared));
        self.config(kernel, ns, there as u64, cus, shared)
    }

    /// Runs on `held` CUs of its own where it could use `cus`.
    pub(super) fn confined(
        &self,
        kernel: &KernelCode,
        cus: u32,
        held: u32,
        shared: &Shared,
    ) -> Config {
        let ns = undisturbed(kernel, held, shared).max(undisturbed(kernel, cus, shared));
        let there = kernel.blocks.min(u64::from(held) * u64::from(kernel.blocks_per_cu)).max(1);
        self.config(kernel, ns, there, held, shared)
    }

    fn config(
        &self,
        kernel: &KernelCode,
        ns: u64,
        there: u64,
        cus: u32,
        shared: &Shared,
    ) -> Config {
        let lies = there.min(u64::from(cus)) as u32;
        let speed = u128::from(self.area) * u128::from(PARTS) / u128::from(ns.max(1));
        let speed = speed.min(u128::from(lies) * u128::from(PARTS)) as u64;
        let [dram, l2, power] = self.draw.on(cus, ns, speed, shared);
        Config {
            ns,
            speed,
            dram,
            l2,
            power,
            footprint: self.footprint,
            lies,
            there,
            waves: if kernel.fair { 1 } else { kernel.blocks.div_ceil(there).max(1) },
        }
    }
}

/// What a CU full of the kernel's blocks takes of each resource. The resource that limits how many fit
/// is used up; if none of them explains the limit, block slots stand in for whatever does.
fn takes(kernel: &KernelCode, topology: &Topology) -> Room {
    let fit = u64::from(kernel.blocks_per_cu.max(1));
    let warps = u64::from(kernel.threads).div_ceil(32);
    // Registers come in units of 256 per warp.
    let regs = (u64::from(kernel.tile.regs) * 32).next_multiple_of(256) * warps;
    let needs = [
        (warps * 32, u64::from(topology.threads_per_cu)),
        (regs, u64::from(topology.registers_per_cu)),
        (u64::from(kernel.tile.smem_bytes), topology.smem_per_cu.0),
        (1, u64::from(topology.blocks_per_cu)),
    ];
    let limits = |&(need, has): &(u64, u64)| need > 0 && has / need == fit;
    let parts = |(need, has): (u64, u64)| {
        let used = need.saturating_mul(fit).saturating_mul(u64::from(PARTS));
        used.div_ceil(has.max(1)).min(u64::from(PARTS)) as u32
    };
    let mut takes = needs.map(|n| if limits(&n) { PARTS } else { parts(n) });
    if !takes.contains(&PARTS) {
        takes[3] = PARTS;
    }
    takes
}

/// How long a kernel's work takes undisturbed on `cus` CUs, ns: the time from its curve and, in a part
/// of the GPU with less bandwidth, at least as long as its bytes take there. For the whole GPU, the
/// curve already contains the cost of bandwidth.
#[inline]
fn undisturbed(kernel: &KernelCode, cus: u32, shared: &Shared) -> u64 {
    let curve = kernel.at(cus);
    if shared.dram >= shared.board { curve } else { curve.max(bytes_ns(kernel, shared)) }
}

/// How long a kernel's bytes take in a part of the GPU, ns. It moves at most as many bytes as the whole
/// memory system can while the kernel runs on the whole GPU: a profile may count more.
#[inline(never)]
fn bytes_ns(kernel: &KernelCode, shared: &Shared) -> u64 {
    let full = kernel.duration_ns.len() as u32 - 1;
    let most = u128::from(shared.board) * u128::from(kernel.at(full));
    let thousandths = most.min(u128::from(kernel.dram_bytes) * 1000);
    u64::try_from(thousandths.div_ceil(u128::from(shared.dram.max(1)))).unwrap_or(u64::MAX)
}
