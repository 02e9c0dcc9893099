//! Attention of a serving engine: flash attention over a paged cache.

mod flash;

use super::{Config, Context, KernelShape, Precision, grid_dim};
use crate::device::Device;
use crate::kernel::Op;
use crate::roofline;
use flash::{DECODE_ROWS, Flash, PARTIAL_BYTES};

/// A call of attention in a serving engine: keys and values of the new tokens go into the cache,
/// then every new token looks at its sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttentionCall {
    /// Sequences.
    pub sequences: u32,
    /// New tokens of each: the prompt, or 1.
    pub queries: u32,
    /// Tokens of each in the cache when the call is done, the new ones included.
    pub context: u32,
    /// Heads of queries.
    pub heads: u32,
    /// Heads of keys and values.
    pub kv_heads: u32,
    /// Elements of a head.
    pub head_dim: u32,
}

/// Kernels of a call beside attention itself: the write to the cache and the copy of the result, and
/// the launch schedule where the library makes one (read off vLLM's sources).
const HELPERS: u32 = 2;

impl AttentionCall {
    /// Time of the call on the whole device, ns, one kernel after the other.
    #[must_use]
    pub fn duration_ns(&self, device: &Device, precision: Precision) -> u64 {
        let kernel = self.kernel(device, precision);
        let floor = device.analytic.kernel_floor.0;
        let new = 2 * self.attend().new_elements() * precision.bytes();
        let bandwidth = device.memory.dram_gbps * device.analytic.dram_efficiency;
        let cache = (2 * new) as f64 / bandwidth;
        roofline::duration_ns(device, &kernel, device.cus())
            + u64::from(HELPERS + Flash::of(device, self.head_dim, precision.bytes()).schedules)
                * floor
            + cache as u64
    }

    /// Attention itself.
    #[must_use]
    pub fn kernel(&self, device: &Device, precision: Precision) -> KernelShape {
        let config = Config { batch: 1, precision, fused: true };
        Context::new(device, config, None, false).attend(&self.attend())
    }

    fn attend(&self) -> Attend {
        let [sequences, queries, context] =
            [self.sequences, self.queries, self.context].map(u64::from);
        let cached = context.saturating_sub(queries);
        Attend {
            sequences: self.sequences,
            tokens: sequences * queries,
            context: sequences * context,
            seen: sequences * (queries * cached + queries * (queries + 1) / 2),
            heads: self.heads,
            kv_heads: self.kv_heads,
            head_dim: self.head_dim,
        }
    }
}

/// Sequences of any lengths in one launch, by their sums.
pub(super) struct Attend {
    /// Sequences; one new token each is decoding.
    pub(super) sequences: u32,
    /// New tokens of all.
    pub(super) tokens: u64,
    /// Tokens in the cache, of all, the new ones included.
    pub(super) context: u64,
    /// Keys that the new tokens see, each up to itself.
    pub(super) seen: u64,
    /// Heads of queries.
    pub(super) heads: u32,
    /// Heads of keys and values.
    pub(super) kv_heads: u32,
    /// Elements of a head.
    pub(super) head_dim: u32,
}

impl Attend {
    /// Elements of the new tokens' keys, or of their values.
    fn new_elements(&self) -> u64 {
        self.tokens * u64::from(self.kv_heads) * u64::from(self.head_dim)
    }
}

impl Context<'_> {
    /// Flash attention. A block takes a tile of queries (of one head, or of the heads that share keys
    /// and values, where the library packs them) and walks the keys. Where the blocks of sequences that
    /// generate are few, the keys are divided among several, whose results a further kernel combines.
    pub(super) fn attend(&self, call: &Attend) -> KernelShape {
        let (device, precision) = (self.device, self.config.precision);
        let (bytes, knobs) = (precision.bytes(), &device.analytic);
        let flash = Flash::of(device, call.head_dim, bytes);
        let Flash { columns, threads, .. } = flash;
        let sequences = u64::from(call.sequences.max(1));
        let (heads, kv_heads) = (u64::from(call.heads), u64::from(call.kv_heads.max(1)));
        let decode = call.tokens <= sequences;
        let queries = call.tokens.div_ceil(sequences);
        let rows = if decode { DECODE_ROWS } else { flash.prompt_rows };
        let group = (heads / kv_heads).max(1);
        let packed = flash.packs_all || decode && group > 1;
        let tiles = if packed {
            (queries * group).div_ceil(rows) * kv_heads
        } else {
            queries.div_ceil(rows) * heads
        };
        let blocks = tiles * sequences;
        let panels = call.context.div_ceil(sequences).div_ceil(columns).max(1);
        let parts = if decode && packed { flash.parts(device, blocks, panels) } else { 1 };
        // With a causal mask a tile of a prompt sees what was there before, and on average half of the
        // prompt and its own.
        let longest = panels.div_ceil(parts) as f64;
        let each = call.tokens as f64 / sequences as f64;
        let before = (call.seen as f64 / call.tokens.max(1) as f64 - (each + 1.0) / 2.0).max(0.0);
        let tile_queries = if packed { (rows / group).max(1) } else { rows };
        let tiles_down = queries.div_ceil(tile_queries) as f64;
        let seen = (before + (tiles_down + 1.0) / 2.0 * tile_queries as f64) / columns as f64;
        let mean = if decode { longest } else { seen.min(longest) };
        let width = u64::from(call.head_dim.next_multiple_of(32));
        let ops = (4 * rows * columns * width) as f64;
        let rate = precision.peak_tops(device) * flash.efficiency * self.held(precision);
        let panel = (2 * columns * width * bytes) as f64;
        let step = self.block_ns(ops, rate).max(panel / self.port_gbps());
        // Keys, then values behind the softmax: two inner loops a step.
        let latency = 2.0 * columns as f64 / 32.0 * knobs.step_latency.0 as f64;
        let smem = flash.smem(rows, call.head_dim, bytes);
        let fits = device.topology.smem_per_cu.0 / smem.max(1);
        let resident = flash.resident.min(fits).max(1);
        let per_cu = (blocks * parts).div_ceil(u64::from(device.cus())).min(resident) as f64;
        let tail = (longest - mean) * (per_cu * step).max(latency);
        let floor = knobs.kernel_floor.0 as f64;
        let combine = if parts > 1 {
            floor + knobs.block_start.0 as f64 + parts as f64 * flash.combine_ns
        } else {
            0.0
        };
        let head_dim = u64::from(call.head_dim);
        let results = call.tokens * heads * head_dim;
        let moves = kv_heads > 1 && sequences > 1;
        let swaps = if packed { f64::from(flash.swaps(moves)) } else { 0.0 };
        let moved = if moves { swaps * (2 * results * bytes) as f64 } else { 0.0 };
        let swapped = swaps * floor + moved / (device.memory.dram_gbps * knobs.dram_efficiency);
        let partial = if parts > 1 { parts * results * PARTIAL_BYTES } else { 0 };
        let cache = 2 * call.context * kv_heads * head_dim;
        let traffic = (cache + 2 * results) * bytes + partial;
        let [s, q, c] = [call.sequences.into(), call.tokens, call.context];
        let (h, kv, seen) = (call.heads, call.kv_heads, call.seen);
        KernelShape {
            id: format!("paged-attention-{s}x{q}x{c}x{seen}-h{h}kv{kv}x{head_dim}-{precision}"),
            name: "flash_attention".to_owned(),
            op: Op::Attention,
            grid: [grid_dim(tiles), grid_dim(s), grid_dim(parts)],
            block: threads,
            regs: 168,
            smem_bytes: u32::try_from(smem).unwrap_or(u32::MAX),
            blocks_per_cu: u32::try_from(resident).expect("one or two"),
            flops: 4 * heads * head_dim * call.seen,
            dram_bytes: traffic,
            l2_bytes: traffic,
            block_ns: mean * step,
            latency_ns: mean * latency,
            start_ns: knobs.block_start.0 as f64 + flash.start_ns,
            end_ns: self.end_ns(rows * width),
            staggered: true,
            in_flight: super::matmul::IN_FLIGHT,
            dram_share: super::matmul::PANEL_BANDWIDTH,
            matrix_units: precision.on_matrix_units(device),
            serial: knobs.serial_share,
            helpers_ns: tail + combine + swapped,
            helper: false,
            phases: 0,
        }
    }
}
