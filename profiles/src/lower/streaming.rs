//! Kernels that read, compute a little and write: normalisation, activations, pools, copies.

use super::{Context, Group, KernelShape, grid_dim};
use crate::kernel::Op;
use crate::zoo::Layer;
use crate::zoo::layer::PoolKind;

/// Elements per thread of a vectorised element-wise kernel (PyTorch's `thread_work_size`, and one
/// 16-byte access in FP32).
const PER_THREAD: u64 = 4;
/// Threads of its blocks (PyTorch's `num_threads`: four warps).
const THREADS: u32 = 128;
/// Registers of a streaming kernel: enough to keep four accesses in flight, few enough for full
/// residency on every device here.
const REGS: u32 = 32;
/// Resident warps that draw a CU's full bandwidth, each with 512 bytes in flight. Little's law on a
/// V100: 900 GB/s × 500 ns / 80 SMs is 5.6 kB, 11 such warps; knob.
const MEMORY_WARPS: f64 = 12.0;
/// Life of a block that has next to nothing to do: two dependent round trips to memory (a parameter
/// or an index, then the data) of about 500 ns; knob. It is what many tiny blocks cost.
const LATENCY_NS: f64 = 1000.0;
/// Share of the FP32 peak that pointwise arithmetic reaches: no fused multiply-add and index
/// arithmetic beside it; knob, seldom decisive.
const ARITHMETIC: f64 = 0.25;

/// One streaming kernel: who does how much per block, and what moves.
struct Streaming {
    id: String,
    name: String,
    op: Op,
    blocks: u64,
    block: u32,
    flops: u64,
    params: u64,
    inputs: u64,
    outputs: u64,
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
        self.stream(Streaming {
            id: format!("{name}-{elements}"),
            name: format!("vectorized_elementwise_kernel<{name}>"),
            op: Op::Elementwise,
            blocks: total.div_ceil(PER_THREAD * u64::from(THREADS)),
            block: THREADS,
            flops: total * inputs.max(1),
            params,
            inputs: total * inputs,
            outputs: total,
        })
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
            Layer::BatchNorm { .. } | Layer::LayerNorm { .. } | Layer::Softmax { .. } => {
                normalising(shape, batch)
            }
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
        }
    }

    fn stream(&self, s: Streaming) -> KernelShape {
        let bytes = self.bytes();
        let (params, inputs, outputs) = (s.params * bytes, s.inputs * bytes, s.outputs * bytes);
        let blocks = s.blocks.max(1);
        let cu_flops_per_ns =
            self.device.compute.fp32_tflops * 1e3 / f64::from(self.device.cus()) * ARITHMETIC;
        KernelShape {
            id: format!("{}-b{}-{}", s.id, self.config.batch, self.config.precision),
            name: s.name,
            op: s.op,
            grid: [grid_dim(blocks), 1, 1],
            block: s.block,
            regs: REGS,
            smem_bytes: 0,
            blocks_per_cu: self.residency(s.block, REGS, 0),
            flops: s.flops,
            dram_bytes: self.dram_bytes(params, inputs, outputs),
            l2_bytes: params + inputs + outputs,
            block_ns: s.flops as f64 / blocks as f64 / cu_flops_per_ns,
            latency_ns: LATENCY_NS,
            memory_warps: MEMORY_WARPS,
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
}

/// Kernels whose blocks or warps own a channel or a row.
fn normalising(layer: &Layer, batch: u64) -> Layout {
    match layer {
        Layer::BatchNorm { channels, pixels } => Layout {
            id: format!("-c{channels}x{pixels}"),
            name: "batch_norm_transform_input_kernel".to_owned(),
            op: Op::Norm,
            // Blocks walk the pixels of one channel of one image.
            blocks: u64::from(*channels) * batch * u64::from(*pixels).div_ceil(PER_THREAD * 256),
            block: 256,
            arithmetic: 4,
        },
        Layer::LayerNorm { rows, width } => Layout {
            id: format!("-{rows}x{width}"),
            name: "vectorized_layer_norm_kernel".to_owned(),
            op: Op::Norm,
            blocks: u64::from(*rows) * batch,
            block: THREADS,
            arithmetic: 8,
        },
        Layer::Softmax { rows, width } => {
            let rows_in_all = u64::from(*rows) * batch;
            // Up to 1024 columns one warp holds a row in registers; beyond, a block does.
            let (name, blocks) = if *width <= 1024 {
                ("softmax_warp_forward", rows_in_all.div_ceil(4))
            } else {
                ("cunn_SoftMaxForward", rows_in_all)
            };
            let (id, name) = (format!("-{rows}x{width}"), name.to_owned());
            Layout { id, name, op: Op::Softmax, blocks, block: THREADS, arithmetic: 8 }
        }
        _ => unreachable!("only normalisations are laid out by rows"),
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
                arithmetic: u64::from(k) * u64::from(k),
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
    Layout { id, name, op, blocks, block, arithmetic: 1 }
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
