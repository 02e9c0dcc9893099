//! Kernels apart from any model: one layer, one product, one call of attention.

use super::{Config, Context, Group, KernelShape, Precision, grid_dim};
use crate::analytic;
use crate::device::Device;
use crate::kernel::Op;
use crate::zoo::layer::Linear;
use crate::zoo::{Layer, Node};

/// The kernels of one layer.
#[must_use]
pub fn layer(device: &Device, layer: &Layer, config: Config) -> Vec<KernelShape> {
    let context = Context { device, config, tuned_cus: None };
    let main = Node { layer: layer.clone(), inputs: vec![0], output: 1, in_place: false };
    context.kernels(&Group { main: &main, epilogue: Vec::new(), attention: false })
}

/// The kernel of a linear layer without bias: `m` rows, `n` columns, inner products of length `k`.
#[must_use]
pub fn linear(device: &Device, [m, n, k]: [u32; 3], precision: Precision) -> KernelShape {
    let linear = Linear { rows: m, in_features: k, out_features: n, bias: false };
    let config = Config { batch: 1, precision, fused: false };
    let mut kernels = layer(device, &Layer::Linear(linear), config);
    kernels.pop().expect("a linear layer is one kernel")
}

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

/// Share of the peak that flash attention's inner loop reaches: FlashAttention-2 makes up to 73 % of
/// an A100's peak, 65 % with a causal mask (Dao 2023, arXiv:2307.08691); FlashAttention-3 as much of
/// an H100's (Shah et al. 2024, arXiv:2407.08608).
const FLASH_EFFICIENCY: f64 = 0.65;
/// Rows of queries of a block: one tile of a prompt, or of the heads that share keys and values.
const PROMPT_ROWS: u32 = 128;
const DECODE_ROWS: u32 = 64;
/// Kernels of a call beside attention itself: the launch schedule, the write to the cache, the copy
/// of the result (read off vLLM's sources).
const HELPERS: u32 = 3;

impl AttentionCall {
    /// Time of the call on the whole device, ns, one kernel after the other.
    #[must_use]
    pub fn duration_ns(&self, device: &Device, precision: Precision) -> u64 {
        let kernel = self.kernel(device, precision);
        let floor = device.analytic.kernel_floor.0;
        let new = self.tokens(self.queries) * 2 * precision.bytes();
        let bandwidth = device.memory.dram_gbps * device.analytic.dram_efficiency;
        let cache = (2 * new) as f64 / bandwidth;
        analytic::duration_ns(device, &kernel, device.cus())
            + u64::from(HELPERS) * floor
            + cache as u64
    }

    /// Elements of keys, or of values, of so many tokens of every sequence.
    fn tokens(&self, each: u32) -> u64 {
        [self.sequences, each, self.kv_heads, self.head_dim].map(u64::from).iter().product()
    }

    /// Attention itself. A block takes a tile of queries (of one head, or of the heads that share
    /// keys and values where each sequence has one new token) and walks the keys. Where blocks are
    /// few, the keys are divided among several, whose results a further kernel combines.
    #[must_use]
    pub fn kernel(&self, device: &Device, precision: Precision) -> KernelShape {
        let config = Config { batch: 1, precision, fused: true };
        let context = Context { device, config, tuned_cus: None };
        let decode = self.queries == 1;
        // Panels of keys: as many rows as fit beside the queries twice.
        let large = device.topology.smem_per_cu.0 > 200 << 10;
        let (columns, threads, resident) = if large { (128, 384, 1) } else { (64, 128, 2) };
        let rows = if decode { DECODE_ROWS } else { PROMPT_ROWS };
        let tiles = if decode {
            u64::from(self.heads / self.kv_heads.max(1)).div_ceil(u64::from(rows)).max(1)
                * u64::from(self.kv_heads)
        } else {
            u64::from(self.queries.div_ceil(rows)) * u64::from(self.heads)
        };
        let blocks = tiles * u64::from(self.sequences);
        let panels = u64::from(self.context.div_ceil(columns)).max(1);
        let slots = u64::from(device.cus()) * resident;
        let parts = if decode && blocks * 5 < slots * 4 {
            (slots / blocks).clamp(1, panels.min(128))
        } else {
            1
        };
        // With a causal mask a tile of a prompt sees, on average, half of the prompt and its own.
        let longest = panels.div_ceil(parts) as f64;
        let tiles_down = f64::from(self.queries.div_ceil(rows));
        let seen = (tiles_down + 1.0) / 2.0 * f64::from(rows) / f64::from(columns);
        let mean = if decode { longest } else { seen.min(longest) };
        let width = u64::from(self.head_dim.next_multiple_of(32));
        let (bytes, knobs) = (precision.bytes(), &device.analytic);
        let ops = (4 * u64::from(rows) * u64::from(columns) * width) as f64;
        let rate = precision.peak_tops(device) * FLASH_EFFICIENCY * context.held(precision);
        let panel = (2 * u64::from(columns) * width * bytes) as f64;
        let step = context.block_ns(ops, rate).max(panel / context.port_gbps());
        // Keys, then values behind the softmax: two inner loops a step.
        let latency = 2.0 * f64::from(columns) / 32.0 * knobs.step_latency.0 as f64;
        let per_cu = (blocks * parts).div_ceil(u64::from(device.cus())).min(resident) as f64;
        let tail = (longest - mean) * (per_cu * step).max(latency);
        let combine =
            if parts > 1 { (knobs.kernel_floor.0 + knobs.block_start.0) as f64 } else { 0.0 };
        let results = self.tokens(1) / u64::from(self.kv_heads.max(1))
            * u64::from(self.heads)
            * u64::from(self.queries);
        let traffic = (2 * self.tokens(self.context) + 2 * results) * bytes;
        let pairs = [self.sequences, self.heads, self.queries, self.head_dim].map(u64::from);
        KernelShape {
            id: format!("attention-{self:?}-{precision}"),
            name: "flash_attention".to_owned(),
            op: Op::Attention,
            grid: [grid_dim(tiles), grid_dim(u64::from(self.sequences)), grid_dim(parts)],
            block: threads,
            regs: 168,
            smem_bytes: u32::try_from(2 * panel as u64).unwrap_or(u32::MAX),
            blocks_per_cu: u32::try_from(resident).expect("one or two"),
            flops: 4 * pairs.iter().product::<u64>() * u64::from(self.context),
            dram_bytes: traffic,
            l2_bytes: traffic,
            block_ns: mean * step,
            latency_ns: mean * latency,
            start_ns: knobs.block_start.0 as f64,
            end_ns: context.end_ns(u64::from(rows) * width),
            staggered: true,
            in_flight: super::matmul::IN_FLIGHT,
            dram_share: super::matmul::PANEL_BANDWIDTH,
            matrix_units: precision.on_matrix_units(device),
            serial: 0.0,
            helpers_ns: tail + combine,
            helper: false,
            phases: 0,
        }
    }
}
