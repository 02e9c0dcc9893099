//! What the two flash attention libraries of serving engines do, read off their sources.

use crate::device::Device;

/// Blocks of new tokens' rows when a sequence generates: the smallest tile of both libraries.
pub(super) const DECODE_ROWS: u64 = 64;
/// Bytes of an element of a partial result: FP32 whatever the operands are.
pub(super) const PARTIAL_BYTES: u64 = 4;
/// Shared memory per CU from which on `FlashAttention-3` runs: Hopper's.
const FA3_SMEM: u64 = 200 << 10;
/// Parts of the keys of a sequence, at most.
const MOST_PARTS: u64 = 128;

/// A flash attention library: tiles, and how it divides work.
#[derive(Clone, Copy, Debug)]
pub(super) struct Flash {
    /// Keys of a step.
    pub(super) columns: u64,
    /// Rows of a block of a prompt.
    pub(super) prompt_rows: u64,
    /// Threads of a block.
    pub(super) threads: u32,
    /// Blocks that fit on a CU by registers.
    pub(super) resident: u64,
    /// Share of the peak that the inner loop reaches.
    pub(super) efficiency: f64,
    /// Time of a block before and after its steps, beyond that of a product's block, ns.
    pub(super) start_ns: f64,
    /// Time per part to combine partial results, ns.
    pub(super) combine_ns: f64,
    /// Whether the heads that share keys and values share tiles in prompts too.
    pub(super) packs_all: bool,
    /// Kernels that plan the launch.
    pub(super) schedules: u32,
    /// Whether this is FlashAttention-2, whose rules for parts and shared heads differ.
    second: bool,
}

/// FlashAttention-2's kernel for paged caches, 64 rows whatever the queries are. Efficiency and time
/// per part are calibrated on the training half of the A100's rows (docs/analytic-model.md); its
/// authors' 73 % of the peak (Dao 2023, arXiv:2307.08691) are those of the kernel without pages, which
/// has 128 rows.
const SECOND: Flash = Flash {
    columns: 128,
    prompt_rows: 64,
    threads: 128,
    resident: 2,
    efficiency: 0.56,
    start_ns: 0.0,
    combine_ns: 185.0,
    packs_all: false,
    schedules: 0,
    second: true,
};
/// FlashAttention-3. Its causal speed on an H100 is 65 % of the peak, with heads of 64 elements 48 %
/// (Shah et al. 2024, arXiv:2407.08608, figure 5). A block is alone on its CU, and nothing hides its
/// loads of lengths and pages, its pipeline's filling and its results' way out: calibrated on the
/// training half of the H100's rows.
const THIRD: Flash = Flash {
    columns: 128,
    prompt_rows: 128,
    threads: 384,
    resident: 1,
    efficiency: 0.65,
    start_ns: 2500.0,
    combine_ns: 0.0,
    packs_all: true,
    schedules: 1,
    second: false,
};
/// Efficiency of FlashAttention-3 with heads of up to 64 elements.
const THIRD_NARROW: f64 = 0.48;

impl Flash {
    /// The library of a device, for heads of so many elements of so many bytes.
    pub(super) fn of(device: &Device, head_dim: u32, bytes: u64) -> Self {
        let smem = device.topology.smem_per_cu.0;
        let mut flash = if smem > FA3_SMEM {
            let efficiency = if head_dim <= 64 { THIRD_NARROW } else { THIRD.efficiency };
            Self { efficiency, ..THIRD }
        } else {
            let columns = match head_dim {
                0..=64 => 256,
                65..=128 => 128,
                _ => 64,
            };
            Self { columns, ..SECOND }
        };
        // Neither has such wide heads, nor such wide elements; the tile that would fit.
        while flash.columns > 16 && flash.smem(flash.prompt_rows, head_dim, bytes) > smem {
            flash.columns /= 2;
        }
        flash
    }

    /// Shared memory of a block: queries, keys and values.
    pub(super) fn smem(&self, rows: u64, head_dim: u32, bytes: u64) -> u64 {
        (rows + 2 * self.columns) * u64::from(head_dim.next_multiple_of(32)) * bytes
    }

    /// Parts of the keys of every sequence, of so many panels, where it has so many blocks without.
    pub(super) fn parts(&self, device: &Device, blocks: u64, panels: u64) -> u64 {
        let (cus, blocks) = (u64::from(device.cus()), blocks.max(1));
        let slots = if self.second { 2 * cus } else { cus };
        if blocks * 5 >= slots * 4 {
            return 1;
        }
        let most = MOST_PARTS.min(slots).min(panels);
        if !self.second {
            return (slots / blocks).clamp(1, most);
        }
        // The fewest parts whose waves are at least 0.85 times as full as the fullest.
        let worth = |n: u64| n == 1 || panels.div_ceil(n) != panels.div_ceil(n - 1);
        let full = |n: u64| {
            let waves = (blocks * n) as f64 / slots as f64;
            if worth(n) { waves / waves.ceil() } else { 0.0 }
        };
        let fullest = (1..=most).map(full).fold(0.0, f64::max);
        (1..=most).find(|&n| full(n) >= 0.85 * fullest).unwrap_or(1)
    }

    /// Small kernels that change places of heads and rows where heads share tiles: queries there,
    /// results there and back where that is not a mere view of them.
    pub(super) fn swaps(&self, moves: bool) -> u32 {
        match (self.second, moves) {
            (true, true) => 3,
            (true, false) => 1,
            (false, _) => 0,
        }
    }
}
