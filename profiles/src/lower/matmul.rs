//! Matrix products and convolutions: the tile that a library would pick, and its grid.
//!
//! A library's heuristic is modelled as what it approximates: of all kernels on offer, the one that
//! is fastest on the whole device.

use super::streaming::follower;
use super::{Config, Context, Group, KernelShape, Precision, grid_dim};
use crate::device::Device;
use crate::kernel::Op;
use crate::roofline;
use crate::zoo::Layer;
use crate::zoo::layer::{Attention, Conv, Linear, Matmul};

/// One tiled kernel: rows and columns of a block's result, its resources, and how fast it is
/// relative to the device's `matmul_efficiency`.
struct Tile {
    m: u64,
    n: u64,
    threads: u32,
    regs: u32,
    smem: u32,
    efficiency: f64,
}

const fn tile(m: u64, n: u64, threads: u32, regs: u32, smem_kib: u32, efficiency: f64) -> Tile {
    Tile { m, n, threads, regs, smem: smem_kib * 1024, efficiency }
}

/// Tiles on vector units. Shapes and resources are those of the `sgemm` and `scudnn` kernels
/// (Maxwell to Volta: 8×8 results per thread, about 120 registers, double-buffered panels of 8
/// columns). Smaller tiles load more operands per multiply-add; the relative efficiencies are a
/// knob, the same for every device and model.
const VECTOR_TILES: [Tile; 7] = [
    tile(128, 128, 256, 122, 16, 1.0),
    tile(128, 64, 128, 120, 12, 0.95),
    tile(64, 128, 128, 120, 12, 0.95),
    tile(64, 64, 128, 118, 8, 0.85),
    tile(128, 32, 128, 80, 10, 0.75),
    tile(32, 128, 128, 80, 10, 0.75),
    tile(32, 32, 128, 57, 8, 0.5),
];

/// Tiles on matrix units: multi-stage panels in shared memory (CUTLASS's defaults). The relative
/// efficiency is (results / 128²)^0.3, calibrated with the device's knobs on the training half of
/// the A100's and H100's products: small tiles issue more instructions per multiply-add.
const MATRIX_TILES: [Tile; 14] = [
    tile(256, 128, 256, 200, 72, 1.0),
    tile(128, 256, 256, 200, 72, 1.0),
    tile(128, 128, 128, 230, 48, 1.0),
    tile(128, 64, 128, 150, 36, 0.81),
    tile(64, 128, 128, 150, 36, 0.81),
    tile(64, 64, 128, 96, 24, 0.66),
    tile(128, 32, 128, 96, 24, 0.66),
    tile(32, 128, 128, 96, 24, 0.66),
    tile(64, 32, 128, 80, 16, 0.54),
    tile(32, 64, 128, 80, 16, 0.54),
    tile(128, 16, 128, 80, 20, 0.54),
    tile(16, 128, 128, 80, 20, 0.54),
    tile(64, 16, 128, 64, 12, 0.44),
    tile(16, 64, 128, 64, 12, 0.44),
];

/// A block's results on their way out, in passes of the CU's port to L2: through shared memory, in
/// rows, converted. Calibrated as above.
const EPILOGUE_PASSES: f64 = 3.0;
/// Sum of the parts of a cut inner product: a kernel of its own, start-up and drain included.
/// Calibrated as above.
const REDUCE_NS: f64 = 2500.0;
/// Share of the attainable DRAM bandwidth that reading panels of rows reaches: shorter runs of
/// addresses than a copy has. Calibrated as above, with `dram_efficiency` being that of copies.
pub(super) const PANEL_BANDWIDTH: f64 = 0.9;
/// Inner steps to which the device file's `step_latency` belongs.
const STEP: u64 = 32;
/// Share of the FP32 peak left to multiply-adds where every issue slot of a CU has a lane behind it
/// (four schedulers and 128 lanes: Pascal's consumer parts, Ampere's GA10x and later): an 8×8
/// `sgemm` step is 64 multiply-adds, 4 vector loads from shared memory and about 8 instructions of
/// indices, panel copies and barriers. With 64 lanes per four schedulers the latter cost nothing.
const ISSUE_BOUND: f64 = 0.84;
/// Lanes per CU above which that holds.
const ISSUE_LANES: f64 = 96.0;

/// Bytes in flight per warp: panels are fetched stages ahead of use, so that one block of four
/// warps draws all that a CU can.
pub(super) const IN_FLIGHT: f64 = 16384.0;
/// The same of kernels whose threads load 16 bytes for themselves.
const LOADS_IN_FLIGHT: f64 = 512.0;
/// Parts into which a library cuts a long inner product to fill the device.
const SPLITS: [u64; 9] = [1, 2, 3, 4, 6, 8, 12, 16, 32];
/// Bytes of a partial sum: FP32 whatever the operands are.
const PARTIAL_BYTES: u64 = 4;
/// Shortest part of an inner product worth a block of its own; knob.
const SPLIT_K_MIN: u64 = 256;
/// A library's heuristic does not chase differences below this share: it takes the kernel with
/// fewer parts and larger tiles; knob.
const INDIFFERENCE: f64 = 0.02;
/// Rows up to which a matrix-vector kernel (one warp per column) is on offer.
const GEMV_ROWS: u64 = 8;
/// Share of the vector peak of a matrix-vector kernel's arithmetic; knob, it is bound by bytes.
const GEMV_EFFICIENCY: f64 = 0.3;
/// Time of a warp's trip for 512 bytes of its column, ns, with the next ones in flight: a latency of
/// 500 ns over eight of them; knob.
const GEMV_TRIP_NS: f64 = 60.0;
/// Multiplications of a direct 3×3 convolution per one of Winograd's F(2×2, 3×3): 36 / 16 (Lavin
/// and Gray 2015, arXiv:1509.09308).
const WINOGRAD_GAIN: f64 = 2.25;
/// The fused Winograd kernel relative to a large GEMM tile: transforms take instructions and
/// shared-memory traffic beside the multiply-adds. A knob; on a V100 it makes 60 % of the peak, and
/// cuDNN 7.6's lies at 44 % or above (Yan et al., PPoPP 2020: 93 % by up to 2.13 times cuDNN's speed).
const WINOGRAD_EFFICIENCY: f64 = 0.8;

/// PyTorch's depthwise kernel (a thread per result, filters and indices fetched again and again)
/// relative to the device's `grouped_efficiency`: about 5 % of the peak in Orion's V100 profile of
/// MobileNetV2 (EuroSys 2024), 40.6 µs for 28.9 MFLOP; derived.
const DEPTHWISE_EFFICIENCY: f64 = 0.33;

/// One product, or a batch of equal ones, apart from any model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gemm {
    /// Products in one launch.
    pub count: u32,
    /// Rows of the result.
    pub m: u32,
    /// Columns of the result.
    pub n: u32,
    /// Length of the inner products.
    pub k: u32,
}

/// The kernel of a batched product, with the tile (rows, columns) that is asked for or the one that
/// a library would pick. `None`: no such tile is on offer for the device and precision.
#[must_use]
pub fn gemm(
    device: &Device,
    gemm: Gemm,
    precision: Precision,
    tile: Option<[u32; 2]>,
) -> Option<KernelShape> {
    let config = Config { batch: 1, precision, fused: false };
    let context = Context::new(device, config, None, false);
    let [count, m, n, k] = [gemm.count, gemm.m, gemm.n, gemm.k].map(u64::from);
    let problem = Problem::batched(count, [m, n, k], String::new(), 0);
    let Some(tile) = tile else {
        return Some(context.fastest(&problem));
    };
    let wanted = |t: &&Tile| [t.m, t.n] == tile.map(u64::from);
    let tile = context.tiles().iter().find(wanted)?;
    Some(context.tiled(&problem, tile, 1))
}

/// A product of matrices, a batch of them, or a convolution seen as one.
#[derive(Clone, PartialEq)]
pub(super) struct Problem {
    pub(super) id: String,
    name: &'static str,
    op: Op,
    /// Independent products.
    count: u64,
    m: u64,
    n: u64,
    k: u64,
    flops: u64,
    /// Unique elements of the left operand, over all products.
    a: u64,
    /// Unique elements of the right operand.
    b: u64,
    /// The right operand is a parameter, never in L2 already.
    b_is_params: bool,
    out: u64,
    /// Elements that merged layers read besides.
    extra: u64,
    /// Elements of the left operand that a block fetches per row and inner step: below 1 where
    /// windows of a convolution overlap.
    a_reuse: f64,
    /// Whether a library offers to cut the inner product.
    split: bool,
    /// Whether blocks of one thread per result exist for few rows.
    gemv: bool,
}

impl Problem {
    /// Products of activations, `[m, n, k]` each.
    fn batched(count: u64, [m, n, k]: [u64; 3], suffix: String, extra: u64) -> Self {
        Self {
            id: format!("bmm-{count}x{m}x{n}x{k}{suffix}"),
            name: "gemm_batched",
            op: Op::BatchedGemm,
            count,
            m,
            n,
            k,
            flops: 2 * count * m * n * k,
            a: count * m * k,
            b: count * n * k,
            b_is_params: false,
            out: count * m * n,
            extra,
            a_reuse: 1.0,
            split: false,
            gemv: true,
        }
    }
}

/// The batch of 36 products behind Winograd's F(4×4, 3×3).
fn large_product(c: &Conv, p: &Problem, batch: u64) -> Problem {
    let tiles: u64 = c.output().iter().map(|&n| u64::from(n.div_ceil(4))).product();
    let (m, n, k) = (tiles * batch, u64::from(c.out_ch), u64::from(c.in_ch));
    Problem {
        id: String::new(),
        name: "winograd_nonfused_4x4_3x3",
        op: p.op,
        count: 36,
        m,
        n,
        k,
        flops: p.flops,
        a: 36 * m * k,
        b: 36 * n * k,
        b_is_params: false,
        out: 36 * m * n,
        extra: 0,
        a_reuse: 1.0,
        split: false,
        gemv: false,
    }
}

impl Context<'_> {
    pub(super) fn linear(&self, l: &Linear, group: &Group<'_>) -> KernelShape {
        self.fastest(&self.linear_problem(l, group))
    }

    pub(super) fn linear_problem(&self, l: &Linear, group: &Group<'_>) -> Problem {
        let (m, k, n) =
            (u64::from(l.rows) * self.batch(), u64::from(l.in_features), u64::from(l.out_features));
        let (suffix, extra) = self.followers(group);
        Problem {
            id: format!("linear-{m}x{n}x{k}{}{suffix}", if l.bias { "+bias" } else { "" }),
            name: "gemm",
            op: Op::Gemm,
            count: 1,
            m,
            n,
            k,
            flops: 2 * m * n * k,
            a: m * k,
            b: n * k + if l.bias { n } else { 0 },
            b_is_params: true,
            out: m * n,
            extra,
            a_reuse: 1.0,
            split: true,
            gemv: true,
        }
    }

    /// The products of a mixture of experts in one launch: `[experts, rows of all, rows gathered
    /// from, columns, inner length]`. Every expert has as many rows as the others, rounded up.
    pub(super) fn grouped_product(&self, sizes: [u32; 5]) -> KernelShape {
        let [experts, all, inputs, n, k] = sizes.map(u64::from);
        let experts = experts.max(1);
        let m = all.div_ceil(experts);
        self.fastest(&Problem {
            id: format!("experts-{experts}x{all}of{inputs}x{n}x{k}"),
            name: "fused_moe",
            op: Op::Gemm,
            count: experts,
            m,
            n,
            k,
            flops: 2 * all * n * k,
            a: inputs * k,
            b: experts * n * k,
            b_is_params: true,
            out: all * n,
            extra: 0,
            a_reuse: 1.0,
            split: false,
            gemv: false,
        })
    }

    pub(super) fn batched(&self, p: &Matmul, group: &Group<'_>) -> KernelShape {
        self.fastest(&self.batched_problem(p, group))
    }

    pub(super) fn batched_problem(&self, p: &Matmul, group: &Group<'_>) -> Problem {
        let count = u64::from(p.batch) * self.batch();
        let (suffix, extra) = self.followers(group);
        Problem::batched(count, [p.m, p.n, p.k].map(u64::from), suffix, extra)
    }

    pub(super) fn conv(&self, c: &Conv, group: &Group<'_>) -> KernelShape {
        let problem = self.conv_problem(c, group);
        if c.groups > 1 { self.grouped(c, problem) } else { self.dense(c, &problem) }
    }

    pub(super) fn conv_problem(&self, c: &Conv, group: &Group<'_>) -> Problem {
        let (suffix, extra) = self.followers(group);
        let ([h, w], [kh, kw]) = (c.input, c.kernel);
        let mut id = format!(
            "conv{kh}x{kw}s{}-c{}-k{}-{h}x{w}{}",
            c.stride[0],
            c.in_ch,
            c.out_ch,
            if c.groups > 1 { format!("-g{}", c.groups) } else { String::new() },
        );
        let pixels: u64 = c.output().iter().map(|&n| u64::from(n)).product();
        let window = f64::from(kh * kw);
        let step = f64::from(c.stride[0] * c.stride[1]);
        let bias = if c.bias && self.config.fused {
            id += "+bias";
            u64::from(c.out_ch)
        } else {
            0
        };
        Problem {
            id: format!("{id}{suffix}-b{}", self.config.batch),
            name: "implicit_convolve_gemm",
            op: Op::Conv,
            count: u64::from(c.groups),
            m: self.batch() * pixels,
            n: u64::from(c.out_ch / c.groups),
            k: u64::from(c.in_ch / c.groups * kh * kw),
            flops: 2 * c.macs() * self.batch(),
            a: u64::from(c.in_ch) * u64::from(h) * u64::from(w) * self.batch(),
            b: c.weights() + bias,
            b_is_params: true,
            out: u64::from(c.out_ch) * pixels * self.batch(),
            extra,
            a_reuse: (step / window).min(1.0),
            split: false,
            gemv: false,
        }
    }

    /// Names of the merged layers, and the elements that they read besides.
    fn followers(&self, group: &Group<'_>) -> (String, u64) {
        let elements = group.main.layer.output_elements();
        let mut suffix = String::new();
        let mut extra = 0;
        for node in &group.epilogue {
            suffix += &follower(&node.layer);
            extra += (node.layer.input_elements() - elements) * self.batch();
        }
        (suffix, extra)
    }

    fn dense(&self, c: &Conv, p: &Problem) -> KernelShape {
        if self.tuned_cus.is_some() {
            return self.pick(self.dense_variants(c, p));
        }
        let implicit = self.fastest(p);
        if !self.has_winograd(c) {
            return implicit;
        }
        let large = self.winograd_large(c, p, self.fastest(&large_product(c, p, self.batch())));
        self.pick([implicit, self.winograd(c, p), large])
    }

    fn has_winograd(&self, c: &Conv) -> bool {
        c.kernel == [3, 3]
            && c.stride == [1, 1]
            && c.dilation == 1
            && !self.config.precision.on_matrix_units(self.device)
    }

    /// Every kernel on offer for a dense convolution.
    pub(super) fn dense_variants(&self, c: &Conv, p: &Problem) -> Vec<KernelShape> {
        let mut all = self.products(p);
        if self.has_winograd(c) {
            all.push(self.winograd(c, p));
            let products = self.products(&large_product(c, p, self.batch()));
            all.extend(products.into_iter().map(|k| self.winograd_large(c, p, k)));
        }
        all
    }

    /// Depthwise and grouped convolutions: one thread per result, no tile shared between groups.
    fn grouped(&self, c: &Conv, p: Problem) -> KernelShape {
        let threads = 256;
        let blocks = p.out.div_ceil(u64::from(threads));
        let rate = self.device.compute.fp32_tflops * self.device.analytic.grouped_efficiency;
        let (name, op, rate) = if c.is_depthwise() {
            let name = "conv_depthwise2d_forward_kernel";
            (name, Op::DepthwiseConv, rate * DEPTHWISE_EFFICIENCY)
        } else {
            ("grouped_direct_kernel", Op::Conv, rate)
        };
        let l2 = p.a + p.b + p.out + p.extra;
        let ops = p.flops as f64 / blocks as f64;
        let tile = Tile { m: 0, n: 0, threads, regs: 40, smem: 0, efficiency: 1.0 };
        let grid = [grid_dim(blocks), 1, 1];
        let mut kernel = self.shape(&p, &tile, grid, self.block_ns(ops, rate));
        kernel.id = format!("{}-direct-{}", p.id, self.config.precision);
        kernel.name = name.to_owned();
        kernel.op = op;
        kernel.l2_bytes = l2 * self.bytes();
        kernel.dram_bytes = self.product_dram(&p, None, 1);
        kernel.in_flight = LOADS_IN_FLIGHT;
        kernel.staggered = true;
        kernel.matrix_units = false;
        kernel.start_ns = 0.0;
        kernel.serial = 0.0;
        kernel
    }

    /// The fused Winograd kernel: a block makes 32 tiles of 2×2 pixels for 64 channels.
    fn winograd(&self, c: &Conv, p: &Problem) -> KernelShape {
        let [h, w] = c.output().map(|n| u64::from(n.div_ceil(2)));
        let (by_pixels, by_channels) =
            ((h * w * self.batch()).div_ceil(32), u64::from(c.out_ch).div_ceil(64));
        let tile = Tile {
            m: 128,
            n: 64,
            threads: 256,
            regs: 126,
            smem: 48 * 1024,
            efficiency: WINOGRAD_EFFICIENCY,
        };
        // Channels are taken eight at a time.
        let depth = u64::from(c.in_ch.next_multiple_of(8)) * 9;
        let ops = 2.0 * (128 * 64 * depth) as f64 / WINOGRAD_GAIN;
        let rate = self.matmul_rate(p.op) * tile.efficiency;
        let grid = [grid_dim(by_pixels), grid_dim(by_channels), 1];
        let mut kernel = self.shape(p, &tile, grid, self.block_ns(ops, rate));
        kernel.end_ns = self.end_ns(tile.m * tile.n);
        kernel.id = format!("{}-winograd-{}", p.id, self.config.precision);
        kernel.name = "winograd_fused_2x2_3x3_128x64".to_owned();
        // Each block of channels reads the 4×4 inputs behind every 2×2 tile (4 per pixel, of which
        // neighbours in L1 share half), and each block of pixels reads the transformed filters.
        let filters = p.b * 16 / 9;
        let l2 = 2 * p.a * by_channels + filters * by_pixels + p.out + p.extra;
        kernel.l2_bytes = l2 * self.bytes();
        kernel.dram_bytes = self.product_dram(p, None, 1);
        kernel
    }

    /// Winograd's F(4×4, 3×3): transforms before and after a batch of 36 products, 36 multiplications
    /// where the direct convolution has 144, and more blocks than any other algorithm has for small
    /// maps. Data, filter and output transforms are kernels of their own in the library; here they
    /// are phases of the one that stands for the call.
    fn winograd_large(&self, c: &Conv, p: &Problem, product_kernel: KernelShape) -> KernelShape {
        let product = large_product(c, p, self.batch());
        let mut kernel = product_kernel;
        kernel.id = format!("{}-winograd4{}", p.id, kernel.id);
        // The product reads what transforms wrote, and a transform reads what it writes. A compiler
        // transforms the filters once and for all; a framework's call does it every time.
        let written = product.a + product.out + if self.config.fused { 0 } else { product.b };
        let stays = (written + product.b) * self.bytes() <= self.device.memory.l2.0;
        let spilled = if stays { 0 } else { 2 * written };
        let filters = if self.config.fused { product.b - p.b } else { 0 };
        kernel.l2_bytes += (written + p.a + p.b + p.out + p.extra) * self.bytes();
        kernel.dram_bytes = self.product_dram(p, None, 1) + (spilled + filters) * self.bytes();
        kernel.phases = if self.config.fused { 2 } else { 3 };
        kernel
    }

    /// The fastest of the kernels on offer for a product.
    fn fastest(&self, p: &Problem) -> KernelShape {
        if let Some((same, kernel)) = self.chosen.borrow().get(&p.id)
            && same == p
        {
            return kernel.clone();
        }
        let kernel = self.pick(self.products(p));
        self.chosen.borrow_mut().insert(p.id.clone(), (p.clone(), kernel.clone()));
        kernel
    }

    /// Every kernel on offer for a product.
    pub(super) fn products(&self, p: &Problem) -> Vec<KernelShape> {
        let tiles = self.tiles();
        let splits = SPLITS.iter().filter(|&&s| s == 1 || p.split && p.k / s >= SPLIT_K_MIN);
        let tiled = splits.flat_map(|&s| tiles.iter().map(move |t| self.tiled(p, t, s)));
        let gemv = (p.gemv && p.m.min(p.n) <= GEMV_ROWS).then(|| self.gemv(p));
        tiled.chain(gemv).collect()
    }

    /// The first candidate that is nearly as fast as the fastest one; a tuner's measurements find
    /// the fastest one itself.
    fn pick(&self, candidates: impl IntoIterator<Item = KernelShape>) -> KernelShape {
        let cus = self.tuned_cus.unwrap_or(self.device.cus());
        let indifference = if self.tuned_cus.is_some() { 0.0 } else { INDIFFERENCE };
        let timed: Vec<(u64, KernelShape)> = candidates
            .into_iter()
            .map(|k| (roofline::duration_ns(self.device, &k, cus), k))
            .collect();
        let fastest = timed.iter().map(|(ns, _)| *ns).min().expect("every problem has candidates");
        let limit = fastest as f64 * (1.0 + indifference);
        let chosen = timed.into_iter().find(|(ns, _)| *ns as f64 <= limit);
        chosen.expect("the fastest is within the limit").1
    }

    fn tiles(&self) -> &'static [Tile] {
        let matrix = self.config.precision.on_matrix_units(self.device);
        if matrix { &MATRIX_TILES } else { &VECTOR_TILES }
    }

    fn tiled(&self, p: &Problem, t: &Tile, split: u64) -> KernelShape {
        let (rows, columns) = (p.m.div_ceil(t.m), p.n.div_ceil(t.n));
        let grid = [grid_dim(rows), grid_dim(columns), grid_dim(p.count * split)];
        // Padding to the tile is executed; inner products advance eight steps at a time.
        let depth = p.k.div_ceil(split).next_multiple_of(8);
        let ops = (2 * t.m * t.n * depth) as f64;
        let rate = self.matmul_rate(p.op) * t.efficiency;
        // Both panels pass the port to L2.
        let panels = (t.m * depth * self.bytes() + self.right_bytes(p, t.n * depth)) as f64;
        let block_ns = self.block_ns(ops, rate).max(panels / self.port_gbps());
        let mut kernel = self.shape(p, t, grid, block_ns);
        let steps = depth.div_ceil(STEP);
        kernel.latency_ns = steps as f64 * self.device.analytic.step_latency.0 as f64;
        kernel.end_ns = self.end_ns(t.m * t.n);
        if split > 1 {
            kernel.helpers_ns = REDUCE_NS;
        }
        let parts = if split > 1 { format!("x{split}") } else { String::new() };
        let algorithm = format!("{}x{}{parts}", t.m, t.n);
        kernel.id = format!("{}-{algorithm}-{}", p.id, self.config.precision);
        kernel.name = format!("{}_{}_{algorithm}", p.name, self.config.precision);
        // Every column of blocks reads the left operand, every row of blocks the right one; parts
        // of inner products are written and read once more.
        let left = ((p.a * columns) as f64 * p.a_reuse.max(1.0 / columns as f64)) as u64;
        let partial = if split > 1 { 2 * split * p.out * PARTIAL_BYTES } else { 0 };
        kernel.l2_bytes = left * self.bytes()
            + self.right_bytes(p, p.b * rows)
            + (p.out + p.extra) * self.result_bytes()
            + partial;
        kernel.dram_bytes = self.product_dram(p, Some((t, kernel.blocks_per_cu)), split);
        kernel
    }

    /// A matrix-vector product, or a few: one warp per result column walks the inner product.
    fn gemv(&self, p: &Problem) -> KernelShape {
        let (few, many) = (p.m.min(p.n), p.m.max(p.n));
        let tile = Tile { m: few, n: 4, threads: 128, regs: 32, smem: 0, efficiency: 1.0 };
        let blocks = many.div_ceil(4);
        let ops = (2 * few * 4 * p.k) as f64;
        let rate = self.device.compute.fp32_tflops * GEMV_EFFICIENCY;
        let grid = [grid_dim(blocks), 1, grid_dim(p.count)];
        let mut kernel = self.shape(p, &tile, grid, self.block_ns(ops, rate));
        kernel.id = format!("{}-gemv-{}", p.id, self.config.precision);
        kernel.name = format!("gemv_{}", self.config.precision);
        let short = if p.m <= p.n { p.a } else { p.b };
        let long = p.a + p.b - short;
        // The short operand is shared through L1 by the four warps of a block.
        let long_bytes = if p.m <= p.n { self.right_bytes(p, long) } else { long * self.bytes() };
        kernel.l2_bytes = long_bytes
            + short / few.max(1) * blocks.min(64) * self.bytes()
            + (p.out + p.extra) * self.result_bytes();
        kernel.dram_bytes = self.product_dram(p, None, 1);
        kernel.in_flight = LOADS_IN_FLIGHT;
        kernel.staggered = true;
        kernel.matrix_units = false;
        kernel.start_ns = 0.0;
        kernel.serial = 0.0;
        // A warp reads 512 bytes of a column at a time, a few of them in flight.
        let column = if p.m <= p.n { self.right_bytes(p, p.k) } else { p.k * self.bytes() };
        let trips = column.div_ceil(512);
        kernel.latency_ns = trips as f64 * GEMV_TRIP_NS;
        kernel
    }

    /// Scores, softmax and context in one kernel: nothing between them leaves the CU.
    pub(super) fn attention(&self, group: &Group<'_>) -> KernelShape {
        let Layer::Matmul(scores) = group.main.layer else {
            unreachable!("attention starts with a product")
        };
        self.fused_attention(&Attention {
            heads: scores.batch,
            queries: scores.m,
            keys: scores.n,
            head_dim: scores.k,
        })
    }

    pub(super) fn fused_attention(&self, a: &Attention) -> KernelShape {
        let [m, n, d] = [a.queries, a.keys, a.head_dim].map(u64::from);
        let count = u64::from(a.heads) * self.batch();
        let (rows, columns) = (count * m * d, count * n * d);
        let problem = Problem {
            id: format!("attention-{count}x{m}x{n}x{d}"),
            name: "fused_attention",
            op: Op::Attention,
            count,
            m,
            n,
            k: d,
            flops: 4 * count * m * n * d,
            a: rows,
            b: 2 * columns,
            b_is_params: false,
            out: rows,
            extra: 0,
            a_reuse: 1.0,
            split: false,
            gemv: false,
        };
        let tile = Tile { m: 64, n: d, threads: 128, regs: 168, smem: 48 * 1024, efficiency: 0.6 };
        let by_rows = m.div_ceil(tile.m);
        let ops = (4 * tile.m * n.next_multiple_of(64) * d) as f64;
        let rate = self.matmul_rate(Op::Attention) * tile.efficiency;
        let grid = [grid_dim(by_rows), 1, grid_dim(count)];
        let mut kernel = self.shape(&problem, &tile, grid, self.block_ns(ops, rate));
        kernel.id = format!("{}-{}", problem.id, self.config.precision);
        kernel.name = format!("fused_attention_{}", self.config.precision);
        kernel.l2_bytes = (2 * rows + 2 * columns * by_rows) * self.bytes();
        kernel.dram_bytes = self.product_dram(&problem, None, 1);
        kernel
    }

    /// What every candidate has in common; id, name and traffic are filled in by the caller.
    fn shape(&self, p: &Problem, t: &Tile, grid: [u32; 3], block_ns: f64) -> KernelShape {
        KernelShape {
            id: String::new(),
            name: String::new(),
            op: p.op,
            grid,
            block: t.threads,
            regs: t.regs,
            smem_bytes: t.smem,
            blocks_per_cu: self.device.topology.residency(t.threads, t.regs, t.smem),
            flops: p.flops,
            dram_bytes: 0,
            l2_bytes: 0,
            block_ns,
            latency_ns: 0.0,
            start_ns: self.device.analytic.block_start.0 as f64,
            end_ns: 0.0,
            staggered: false,
            in_flight: IN_FLIGHT,
            dram_share: PANEL_BANDWIDTH,
            matrix_units: self.config.precision.on_matrix_units(self.device),
            serial: self.device.analytic.serial_share,
            helpers_ns: 0.0,
            helper: false,
            phases: 0,
        }
    }

    /// Time of a block of so many results to write them, ns.
    pub(super) fn end_ns(&self, results: u64) -> f64 {
        EPILOGUE_PASSES * (results * self.result_bytes()) as f64 / self.port_gbps()
    }

    /// Bytes of so many elements of the right operand.
    fn right_bytes(&self, p: &Problem, elements: u64) -> u64 {
        if p.b_is_params {
            self.config.precision.weight_bytes(elements)
        } else {
            elements * self.bytes()
        }
    }

    /// 10^12 operations per second that the largest tiles reach on the whole device.
    fn matmul_rate(&self, op: Op) -> f64 {
        let knobs = &self.device.analytic;
        let share = if op == Op::Conv { knobs.conv_efficiency } else { knobs.matmul_efficiency };
        let rate = self.peak() * share * self.held(self.config.precision);
        let (device, precision) = (self.device, self.config.precision);
        // Two operations per multiply-add.
        let lanes = device.compute.fp32_tflops * 1e6
            / (2.0 * device.clock.boost_mhz * f64::from(device.cus()));
        let issue_bound = !precision.on_matrix_units(device) && lanes > ISSUE_LANES;
        if issue_bound { rate * ISSUE_BOUND } else { rate }
    }

    /// 10^12 operations per second of the precision.
    fn peak(&self) -> f64 {
        self.config.precision.peak_tops(self.device)
    }

    /// Time of `ops` on one CU, ns, where the whole device does `tops` 10^12 per second.
    pub(super) fn block_ns(&self, ops: f64, tops: f64) -> f64 {
        ops * f64::from(self.device.cus()) / (tops * 1e3)
    }

    /// DRAM bytes of a product: every operand once, and more where the operands exceed L2 and the
    /// blocks of one wave cannot cover them.
    fn product_dram(&self, p: &Problem, tiled: Option<(&Tile, u32)>, split: u64) -> u64 {
        let bytes = self.bytes();
        let partial = if split > 1 { split * p.out * PARTIAL_BYTES } else { 0 };
        let (a, b) = (p.a * bytes, self.right_bytes(p, p.b));
        let (out, extra) = (p.out * self.result_bytes(), p.extra * self.result_bytes());
        let (params, inputs) = if p.b_is_params { (b, a) } else { (0, a + b) };
        let once = self.dram_bytes(params, inputs + extra, out, 0);
        let l2 = self.device.memory.l2.0;
        let Some((tile, resident)) = tiled else {
            return once;
        };
        // Partial sums stay in L2 if they fit.
        let spilled = if partial > l2 { 2 * partial } else { 0 };
        if a + b <= l2 {
            return once + spilled;
        }
        // A wave covers a patch of the result, as square as the grid allows; it reads the rows and
        // columns of operands that the patch needs, once.
        let (rows, columns) = (p.m.div_ceil(tile.m), p.n.div_ceil(tile.n));
        let wave = (u64::from(resident) * u64::from(self.device.cus())).min(rows * columns);
        let across = columns.min((wave.isqrt()).max(1));
        let down = rows.min(wave / across).max(1);
        let (patches_down, patches_across) = (rows.div_ceil(down), columns.div_ceil(across));
        let left = (a * patches_across) as f64 * p.a_reuse.max(1.0 / patches_across as f64);
        let right = b * patches_down;
        // An operand that fits in half of L2 stays there between the waves.
        let left = if a <= l2 / 2 { a } else { left as u64 };
        let right = if b <= l2 / 2 { b } else { right };
        once.max(left + right + out + extra) + spilled
    }
}
