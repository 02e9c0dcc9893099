//! Kernels that read, compute a little and write: normalisation, activations, pools, copies.

use super::{Context, Group, KernelShape, grid_dim};
use crate::kernel::Op;
use crate::zoo::Layer;
use crate::zoo::layer::{Conv, PoolKind, product};

/// Elements per thread of a vectorised element-wise kernel (PyTorch's `thread_work_size`, and one
/// 16-byte access in FP32).
const PER_THREAD: u64 = 4;
/// Threads of its blocks (PyTorch's `num_threads`: four warps).
pub(super) const THREADS: u32 = 128;
/// Registers of a streaming kernel: enough to keep four accesses in flight, few enough for full
/// residency on every device here.
const REGS: u32 = 32;
/// One round trip to memory that a block waits for, ns; a knob, as `DRAM_LATENCY_NS` of the analytic
/// model.
const TRIP_NS: f64 = 500.0;
/// Round trips in the life of a block that has next to nothing to do: a parameter or an index, then
/// the data. It is what many tiny blocks cost.
const TRIPS: f64 = 2.0;
/// Bytes of a warp's access where every thread loads 16 of them, and where it loads one FP32.
const VECTOR_ACCESS: f64 = 512.0;
const SCALAR_ACCESS: f64 = 128.0;
/// Share of the FP32 peak that pointwise arithmetic reaches: no fused multiply-add and index
/// arithmetic beside it; knob, seldom decisive.
const ARITHMETIC: f64 = 0.25;

/// Instructions of a thread of PyTorch's pools beside its window: four divisions and remainders that
/// turn its index into image, channel, row and column, bounds of the window; and those per element
/// of the window: bounds, address, load, comparison with a test for NaN, choice of value and index.
/// Counted in the source of `max_pool_forward_nchw`; knobs.
const POOL_INDEX: u64 = 150;
const POOL_STEP: u64 = 12;

/// One streaming kernel: who does how much per block, and what moves.
pub(super) struct Streaming {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) op: Op,
    pub(super) blocks: u64,
    pub(super) block: u32,
    pub(super) flops: u64,
    pub(super) params: u64,
    pub(super) inputs: u64,
    pub(super) outputs: u64,
    /// Elements of the result that lie where an input lay.
    pub(super) in_place: u64,
    /// Bytes written beside the results.
    pub(super) beside: u64,
    /// Times that the inputs are read again, and the bytes of a block's part of them: from DRAM unless
    /// the parts of a CU's resident blocks stay in L1, or all of them in L2.
    pub(super) again: [u64; 2],
    /// Bytes that a warp keeps in flight.
    pub(super) in_flight: f64,
    /// Round trips to memory, one after the other, in the life of a block.
    pub(super) trips: f64,
}

impl Streaming {
    /// A kernel that moves nothing yet: the caller fills in how much, and how it is laid out.
    pub(super) fn moving(id: String, name: &str, op: Op, tensors: u64) -> Self {
        Self {
            id,
            name: name.to_owned(),
            op,
            blocks: 1,
            block: THREADS,
            flops: 0,
            params: 0,
            inputs: 0,
            outputs: 0,
            in_place: 0,
            beside: 0,
            again: [0, 0],
            in_flight: VECTOR_ACCESS * tensors as f64,
            trips: TRIPS,
        }
    }
}

impl Context<'_> {
    /// A pointwise kernel of `elements` results per item, `inputs` tensors of that size and
    /// `params` parameters.
    pub(super) fn pointwise(
        &self,
        name: &str,
        elements: u64,
        inputs: u64,
        params: u64,
    ) -> KernelShape {
        let total = elements * self.batch();
        let kernel = format!("vectorized_elementwise_kernel<{name}>");
        let moving =
            Streaming::moving(format!("{name}-{elements}"), &kernel, Op::Elementwise, inputs);
        self.stream(Streaming {
            blocks: total.div_ceil(PER_THREAD * u64::from(THREADS)),
            flops: total * inputs.max(1),
            params,
            inputs: total * inputs,
            outputs: total,
            ..moving
        })
    }

    /// Changes of layout around a convolution on matrix units: their kernels want channels last,
    /// the framework's tensors have them first. cuDNN copies the input and the filters of every
    /// call (`nchwToNhwcKernel`); results are written channels first. Compilers keep channels last.
    pub(super) fn layout_changes(&self, c: &Conv) -> Vec<KernelShape> {
        let precision = self.config.precision;
        if self.config.fused || c.groups > 1 || !precision.on_matrix_units(self.device) {
            return Vec::new();
        }
        let input = product(&[c.in_ch, c.input[0], c.input[1]]) * self.batch();
        let change = |what: &str, id: String, elements: u64, params: bool| {
            self.stream(Streaming {
                id,
                name: format!("nchwToNhwcKernel<{what}>"),
                op: Op::Copy,
                // Tiles of 32×32 through shared memory.
                blocks: elements.div_ceil(1024),
                block: 256,
                flops: 0,
                params: if params { elements } else { 0 },
                inputs: if params { 0 } else { elements },
                outputs: elements,
                in_place: 0,
                beside: 0,
                again: [0, 0],
                in_flight: 4.0 * SCALAR_ACCESS,
                trips: TRIPS,
            })
        };
        let filters =
            format!("nhwc-filters-{}x{}x{}x{}", c.out_ch, c.in_ch, c.kernel[0], c.kernel[1]);
        let map = format!("nhwc-c{}x{}x{}", c.in_ch, c.input[0], c.input[1]);
        let both =
            [change("input", map, input, false), change("filters", filters, c.weights(), true)];
        both.map(|kernel| KernelShape { helper: true, ..kernel }).to_vec()
    }

    pub(super) fn streaming(&self, group: &Group<'_>) -> Vec<KernelShape> {
        let layer = &group.main.layer;
        // Followers read their other operands and cost arithmetic; nothing in between is stored.
        let elements = layer.output_elements();
        let mut followers = String::new();
        let (mut extra, mut params) = (0, layer.params_read());
        for node in &group.epilogue {
            followers += &follower(&node.layer);
            extra += node.layer.input_elements() - elements;
            params += node.layer.params_read();
        }
        let last = group.epilogue.last().map_or(layer, |n| &n.layer);
        // A normalisation over rows shapes the whole kernel, wherever it stands in the chain.
        let shape = if matches!(last, Layer::LayerNorm { .. }) { last } else { layer };
        let mut kernel = self.layer_kernel(layer, shape, &followers);
        if group.main.in_place {
            kernel.in_place = kernel.outputs;
        }
        let tensors = kernel.inputs.div_ceil(kernel.outputs.max(1)).max(1);
        if matches!(layer, Layer::Pointwise { .. }) {
            kernel.in_flight *= tensors as f64;
        }
        kernel.flops += kernel.outputs * group.epilogue.len() as u64;
        kernel.inputs += extra * self.batch();
        kernel.params = params;
        vec![self.stream(kernel)]
    }

    /// The kernel of a streaming layer; `shape` decides how its blocks are laid out.
    fn layer_kernel(&self, layer: &Layer, shape: &Layer, followers: &str) -> Streaming {
        let batch = self.batch();
        let (inputs, outputs) = (layer.input_elements() * batch, layer.output_elements() * batch);
        let layout = match shape {
            // A compiler that did not merge it makes a pointwise kernel of it.
            Layer::BatchNorm { channels, pixels } if self.config.fused => {
                let id = format!("-c{channels}x{pixels}");
                Layout { op: Op::Norm, id, ..pointwise("batch_norm", outputs) }
            }
            Layer::Softmax { rows, width } => {
                softmax(u64::from(*rows) * batch, u64::from(*width), *rows, self.bytes())
            }
            Layer::BatchNorm { .. } | Layer::LayerNorm { .. } => normalising(shape, batch),
            Layer::Pool(_) | Layer::AdaptiveAvgPool { .. } => pooling(shape, inputs, outputs),
            _ => moving(shape, outputs),
        };
        Streaming {
            id: format!("{}{followers}{}", short(layer), layout.id),
            name: layout.name,
            op: layout.op,
            blocks: layout.blocks,
            block: layout.block,
            flops: outputs * layout.arithmetic,
            params: 0,
            inputs,
            outputs,
            in_place: 0,
            beside: layout.beside * outputs,
            again: [layout.again, inputs / layout.blocks.max(1) * self.bytes()],
            in_flight: layout.access,
            trips: layout.trips,
        }
    }

    pub(super) fn stream(&self, s: Streaming) -> KernelShape {
        let bytes = self.bytes();
        let (params, inputs, outputs) = (s.params * bytes, s.inputs * bytes, s.outputs * bytes);
        let blocks = s.blocks.max(1);
        let cu_flops_per_ns =
            self.device.compute.fp32_tflops * 1e3 / f64::from(self.device.cus()) * ARITHMETIC;
        let topology = &self.device.topology;
        let per_cu = u64::from(topology.residency(s.block, REGS, 0));
        let resident = per_cu * u64::from(self.device.cus());
        let [again, part] = s.again;
        // L1 is the memory that blocks share, where they don't. Softmax finds its row there; layer
        // normalisation's re-reads come from further away (NeuSight's T4 and V100).
        let near = blocks.div_ceil(u64::from(self.device.cus())).min(per_cu) * part;
        let kept = (s.op == Op::Softmax && near <= topology.smem_per_cu.0)
            || blocks.min(resident) * part <= self.kept_in_l2();
        // Rows that stay near are read again from there.
        let again = if kept { 0 } else { again * inputs };
        let once = self.dram_bytes(params, inputs, outputs + s.beside, s.in_place * bytes);
        KernelShape {
            id: format!("{}-b{}-{}", s.id, self.config.batch, self.config.precision),
            name: s.name,
            op: s.op,
            grid: [grid_dim(blocks), 1, 1],
            block: s.block,
            regs: REGS,
            smem_bytes: 0,
            blocks_per_cu: self.device.topology.residency(s.block, REGS, 0),
            flops: s.flops,
            dram_bytes: once + again,
            l2_bytes: params + inputs + outputs + s.beside + again,
            block_ns: s.flops as f64 / blocks as f64 / cu_flops_per_ns,
            latency_ns: s.trips * TRIP_NS,
            start_ns: 0.0,
            end_ns: 0.0,
            staggered: true,
            in_flight: s.in_flight,
            dram_share: 1.0,
            matrix_units: false,
            serial: 0.0,
            helpers_ns: 0.0,
            helper: false,
            phases: 0,
        }
    }
}

/// How a layer is spread over blocks.
struct Layout {
    /// What tells shapes apart inside an id.
    id: String,
    name: String,
    op: Op,
    blocks: u64,
    block: u32,
    /// Operations per result.
    arithmetic: u64,
    /// Bytes of a warp's access.
    access: f64,
    /// Round trips to memory in the life of a block.
    trips: f64,
    /// Bytes written beside each result.
    beside: u64,
    /// Times that the inputs are read again.
    again: u64,
}

/// A thread for four elements, one after the other in memory.
fn pointwise(name: &str, outputs: u64) -> Layout {
    Layout {
        id: String::new(),
        name: format!("vectorized_elementwise_kernel<{name}>"),
        op: Op::Elementwise,
        blocks: outputs.div_ceil(PER_THREAD * u64::from(THREADS)),
        block: THREADS,
        arithmetic: 1,
        access: VECTOR_ACCESS,
        trips: TRIPS,
        beside: 0,
        again: 0,
    }
}

/// PyTorch's choice of threads for a row (`getNumThreads` of its normalisations).
fn threads_for(elements: u64) -> u64 {
    [32, 64, 128, 256].into_iter().find(|&t| elements <= t).unwrap_or(512)
}

/// PyTorch's batch normalisation in inference (`batch_norm_transform_input_kernel`): a block takes
/// one channel of one image, or of a few where the map is small; its threads walk the map, one
/// scalar load after the other, each behind the store of the one before. The grids are those of
/// Orion's V100 profiles.
fn batch_norm(channels: u64, pixels: u64, batch: u64) -> Layout {
    let across = threads_for(pixels / 4).max(threads_for(pixels).min(64));
    let images = (64 / across).max(1);
    let down = batch.div_ceil(images).min((256 * 1024 / channels).max(1)).max(1);
    let walk = pixels.div_ceil(across) * batch.div_ceil(images * down);
    Layout {
        id: format!("-c{channels}x{pixels}"),
        name: "batch_norm_transform_input_kernel".to_owned(),
        op: Op::Norm,
        blocks: channels * down,
        block: u32::try_from(across * images).expect("at most 512 threads"),
        arithmetic: 4,
        access: SCALAR_ACCESS,
        // The parameters, then the walk.
        trips: 1.0 + walk as f64,
        beside: 0,
        again: 0,
    }
}

/// Kernels whose blocks or warps own a channel or a row.
fn normalising(layer: &Layer, batch: u64) -> Layout {
    match layer {
        Layer::BatchNorm { channels, pixels } => {
            batch_norm(u64::from(*channels), u64::from(*pixels), batch)
        }
        Layer::LayerNorm { rows, width } => Layout {
            id: format!("-{rows}x{width}"),
            name: "vectorized_layer_norm_kernel".to_owned(),
            op: Op::Norm,
            blocks: u64::from(*rows) * batch,
            block: THREADS,
            arithmetic: 8,
            access: VECTOR_ACCESS,
            // The row twice (statistics, result) with a reduction between.
            trips: TRIPS + 1.0,
            beside: 0,
            // Statistics, then the result: two walks over the row.
            again: 1,
        },
        _ => unreachable!("only normalisations are laid out by rows"),
    }
}

/// PyTorch's softmax. Up to 1024 columns a warp holds a row in registers (`softmax_warp_forward`);
/// beyond, a block walks its row three times, for maximum, sum and result (`cunn_SoftMaxForward`): as
/// far as its threads reach with accesses of 16 bytes, then an element each for the rest.
fn softmax(rows: u64, width: u64, each: u32, bytes: u64) -> Layout {
    let warps = Layout {
        id: format!("-{each}x{width}"),
        name: "softmax_warp_forward".to_owned(),
        op: Op::Softmax,
        blocks: rows.div_ceil(4),
        block: THREADS,
        arithmetic: 8,
        access: VECTOR_ACCESS,
        trips: TRIPS,
        beside: 0,
        again: 0,
    };
    if width <= 1024 {
        return warps;
    }
    let vector = 16 / bytes.clamp(1, 16);
    // `SoftMax_getBlockSize`: the power of two from half of what a row would fill.
    let threads = ((width / vector).min(1024) / 2).next_power_of_two().max(32);
    let reach = threads * vector;
    let walk = width / reach + (width % reach).div_ceil(threads);
    Layout {
        name: "cunn_SoftMaxForward".to_owned(),
        blocks: rows,
        block: u32::try_from(threads).expect("at most 512 threads"),
        trips: TRIPS + 3.0 * walk as f64,
        again: 2,
        ..warps
    }
}

/// Kernels that reduce windows.
fn pooling(layer: &Layer, inputs: u64, outputs: u64) -> Layout {
    match layer {
        Layer::Pool(p) => {
            let kind = if p.kind == PoolKind::Max { "max" } else { "avg" };
            let ([h, w], [k, s, c]) = (p.input, [p.kernel, p.stride, p.channels]);
            Layout {
                id: format!("{k}s{s}-c{c}x{h}x{w}"),
                name: format!("{kind}_pool_forward_nchw"),
                op: Op::Pool,
                blocks: outputs.div_ceil(256),
                block: 256,
                arithmetic: POOL_INDEX + POOL_STEP * u64::from(k) * u64::from(k),
                access: SCALAR_ACCESS * f64::from(k),
                trips: TRIPS + 1.0,
                // PyTorch's maximum also writes where it was found, 8 bytes.
                beside: if p.kind == PoolKind::Max { 8 } else { 0 },
                again: 0,
            }
        }
        Layer::AdaptiveAvgPool { channels, input: [h, w], output } => Layout {
            id: format!("-c{channels}x{h}x{w}-{}x{}", output[0], output[1]),
            // A mean over the map: 16 outputs per block, 32 threads share one sum.
            name: "reduce_kernel<mean>".to_owned(),
            op: Op::Reduce,
            blocks: outputs.div_ceil(16),
            block: 512,
            arithmetic: inputs.div_ceil(outputs),
            access: VECTOR_ACCESS,
            trips: TRIPS,
            beside: 0,
            again: 0,
        },
        _ => unreachable!("only pools reduce windows"),
    }
}

/// Kernels that handle one element after the other.
fn moving(layer: &Layer, outputs: u64) -> Layout {
    let copy = "elementwise_kernel<copy>".to_owned();
    let (id, name, op) = match layer {
        Layer::Embedding { rows, width, .. } => {
            (format!("-{rows}x{width}"), "indexSelectLargeIndex".to_owned(), Op::Embedding)
        }
        Layer::Concat { parts } => {
            let elements: u64 = parts.iter().sum();
            let id = format!("-{}x{elements}", parts.len());
            (id, "CatArrayBatchedCopy".to_owned(), Op::Concat)
        }
        Layer::ChannelShuffle { channels, groups, pixels } => {
            (format!("-c{channels}g{groups}x{pixels}"), copy, Op::Copy)
        }
        Layer::Copy { elements } => (format!("-{elements}"), copy, Op::Copy),
        Layer::Pointwise { function, elements, inputs } => {
            let op = if function.is_activation() { Op::Activation } else { Op::Elementwise };
            let name = format!("vectorized_elementwise_kernel<{}>", function.name());
            (format!("{inputs}-{elements}"), name, op)
        }
        _ => unreachable!("products, normalisations and pools have layouts of their own"),
    };
    let block = if op == Op::Concat { 512 } else { THREADS };
    let blocks = outputs.div_ceil(PER_THREAD * u64::from(block));
    Layout { id, name, op, blocks, block, ..pointwise("", outputs) }
}

/// A merged layer inside an id: which function, of how many tensors.
pub(super) fn follower(layer: &Layer) -> String {
    match layer {
        Layer::Pointwise { inputs, .. } if *inputs > 1 => format!("+{}{inputs}", short(layer)),
        _ => format!("+{}", short(layer)),
    }
}

/// What a layer is called inside an id.
fn short(layer: &Layer) -> &'static str {
    match layer {
        Layer::Conv(_) => "conv",
        Layer::Linear(_) => "linear",
        Layer::Matmul(_) => "matmul",
        Layer::Attention(_) => "attention",
        Layer::BatchNorm { .. } => "batchnorm",
        Layer::LayerNorm { .. } => "layernorm",
        Layer::Pointwise { function, .. } => function.name(),
        Layer::Pool(p) if p.kind == PoolKind::Max => "maxpool",
        Layer::Pool(_) => "avgpool",
        Layer::AdaptiveAvgPool { .. } => "adaptive-avgpool",
        Layer::Softmax { .. } => "softmax",
        Layer::Embedding { .. } => "embedding",
        Layer::Concat { .. } => "concat",
        Layer::ChannelShuffle { .. } => "channel-shuffle",
        Layer::Copy { .. } => "copy",
    }
}
