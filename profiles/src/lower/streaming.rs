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
        let mut id = format!("{}{followers}", short(layer));
        let per_thread = |per: u64, block: u32| outputs.div_ceil(per * u64::from(block));
        let mut arithmetic = 1;
        let (name, op, blocks, block) = match shape {
            Layer::BatchNorm { channels, pixels } => {
                id += &format!("-c{channels}x{pixels}");
                arithmetic = 4;
                // Blocks walk the pixels of one channel of one image.
                let per_image = u64::from(*pixels).div_ceil(PER_THREAD * 256);
                let blocks = u64::from(*channels) * batch * per_image;
                ("batch_norm_transform_input_kernel".to_owned(), Op::Norm, blocks, 256)
            }
            Layer::LayerNorm { rows, width } => {
                id += &format!("-{rows}x{width}");
                arithmetic = 8;
                let blocks = u64::from(*rows) * batch;
                ("vectorized_layer_norm_kernel".to_owned(), Op::Norm, blocks, THREADS)
            }
            Layer::Softmax { rows, width } => {
                id += &format!("-{rows}x{width}");
                arithmetic = 8;
                // Up to 1024 columns one warp holds a row in registers; beyond, a block does.
                let rows = u64::from(*rows) * batch;
                let warp = *width <= 1024;
                let name = if warp { "softmax_warp_forward" } else { "cunn_SoftMaxForward" };
                (name.to_owned(), Op::Softmax, if warp { rows.div_ceil(4) } else { rows }, THREADS)
            }
            Layer::Pool(p) => {
                let [h, w] = p.input;
                id += &format!("{k}s{s}-c{c}x{h}x{w}", k = p.kernel, s = p.stride, c = p.channels);
                arithmetic = u64::from(p.kernel) * u64::from(p.kernel);
                let kind = if p.kind == PoolKind::Max { "max" } else { "avg" };
                (format!("{kind}_pool_forward_nchw"), Op::Pool, per_thread(1, 256), 256)
            }
            Layer::AdaptiveAvgPool { channels, input: [h, w], output } => {
                id += &format!("-c{channels}x{h}x{w}-{}x{}", output[0], output[1]);
                arithmetic = inputs.div_ceil(outputs);
                // A mean over the map: 16 outputs per block, 32 threads share one sum.
                ("reduce_kernel<mean>".to_owned(), Op::Reduce, outputs.div_ceil(16), 512)
            }
            Layer::Embedding { rows, width, .. } => {
                id += &format!("-{rows}x{width}");
                let name = "indexSelectLargeIndex".to_owned();
                (name, Op::Embedding, per_thread(PER_THREAD, THREADS), THREADS)
            }
            Layer::Concat { parts } => {
                id += &format!("-{}x{}", parts.len(), layer.output_elements());
                let blocks = per_thread(PER_THREAD, 512);
                ("CatArrayBatchedCopy".to_owned(), Op::Concat, blocks, 512)
            }
            Layer::ChannelShuffle { channels, groups, pixels } => {
                id += &format!("-c{channels}g{groups}x{pixels}");
                let blocks = per_thread(PER_THREAD, THREADS);
                ("elementwise_kernel<copy>".to_owned(), Op::Copy, blocks, THREADS)
            }
            Layer::Copy { elements } => {
                id += &format!("-{elements}");
                let blocks = per_thread(PER_THREAD, THREADS);
                ("elementwise_kernel<copy>".to_owned(), Op::Copy, blocks, THREADS)
            }
            Layer::Pointwise { function, elements, inputs } => {
                id += &format!("{inputs}-{elements}");
                let op = if function.is_activation() { Op::Activation } else { Op::Elementwise };
                let name = format!("vectorized_elementwise_kernel<{}>", function.name());
                (name, op, per_thread(PER_THREAD, THREADS), THREADS)
            }
            Layer::Conv(_) | Layer::Linear(_) | Layer::Matmul(_) => {
                unreachable!("products have kernels of their own")
            }
        };
        let flops = outputs * arithmetic;
        Streaming { id, name, op, blocks, block, flops, params: 0, inputs, outputs }
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
