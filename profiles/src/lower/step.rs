//! From one step of a serving engine to kernels.

use std::collections::BTreeMap;

use super::attention::Attend;
use super::streaming::{Streaming, THREADS};
use super::{Config, Context, Group, KernelShape, Precision};
use crate::device::Device;
use crate::kernel::Op;
use crate::zoo::decoder::{Matrix, Step, StepLayer};
use crate::zoo::layer::Linear;
use crate::zoo::{Layer, Node};

/// A step lowered to kernels.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LoweredStep {
    /// Distinct kernels, in the order of their first launch.
    pub kernels: Vec<KernelShape>,
    /// Launches in stream order, by segments of the step: indices into `kernels`, and how often the
    /// segment runs.
    pub segments: Vec<(Vec<usize>, u32)>,
}

/// Lowers a step for a device, one kernel per layer.
#[must_use]
pub fn step(step: &Step, device: &Device, precision: Precision) -> LoweredStep {
    let mut lowered = LoweredStep::default();
    let mut known = BTreeMap::new();
    for segment in &step.segments {
        let mut launches = Vec::new();
        for layer in &segment.layers {
            let kernel = step_layer(layer, device, precision);
            let index = *known.entry(kernel.id.clone()).or_insert_with(|| {
                lowered.kernels.push(kernel);
                lowered.kernels.len() - 1
            });
            launches.push(index);
        }
        lowered.segments.push((launches, segment.repeat));
    }
    lowered
}

/// The kernel of one layer of a step. A quantised precision is that of the products of the
/// transformer's layers; they take quantised inputs as their predecessors write them (engines fuse the
/// conversion) and return activations. Everything else, the router and the output projection included,
/// stays in those.
#[must_use]
pub fn step_layer(layer: &StepLayer, device: &Device, precision: Precision) -> KernelShape {
    let context = |precision| {
        let config = Config { batch: 1, precision, fused: false };
        Context::new(device, config, None, true)
    };
    let quantised = context(precision);
    let context = context(precision.activations());
    match *layer {
        StepLayer::Linear { matrix, tokens, in_features, out_features, bias } => {
            let linear = Linear { rows: tokens, in_features, out_features, bias };
            let layer = Layer::Linear(linear);
            let main = Node { layer, inputs: vec![0], output: 1, in_place: false };
            let group = Group { main: &main, epilogue: Vec::new(), attention: false };
            let plain = matches!(matrix, Matrix::LmHead | Matrix::Router);
            if plain { &context } else { &quantised }.linear(&linear, &group)
        }
        StepLayer::Experts { touched, rows, inputs, in_features, out_features, .. } => {
            quantised.grouped_product([touched, rows, inputs, out_features, in_features])
        }
        StepLayer::PrefillAttention { prefill, heads, kv_heads, head_dim } => {
            context.attend(&Attend {
                sequences: prefill.sequences,
                tokens: u64::from(prefill.tokens),
                context: prefill.context,
                seen: prefill.seen,
                heads,
                kv_heads,
                head_dim,
            })
        }
        StepLayer::DecodeAttention { decode, heads, kv_heads, head_dim } => {
            context.attend(&Attend {
                sequences: decode.sequences,
                tokens: u64::from(decode.sequences),
                context: decode.context,
                seen: decode.context,
                heads,
                kv_heads,
                head_dim,
            })
        }
        _ => context.stream(streaming(layer)),
    }
}

/// A layer that moves rows and computes little.
fn streaming(layer: &StepLayer) -> Streaming {
    let of = |rows: u32, width: u32| u64::from(rows) * u64::from(width);
    match *layer {
        StepLayer::Embedding { tokens, width } => {
            let elements = of(tokens, width);
            let id = format!("embedding-{tokens}x{width}");
            // The rows of the table are the parameters that it reads.
            Streaming {
                params: elements,
                ..rows(id, "embedding", Op::Embedding, tokens, 0, elements)
            }
        }
        StepLayer::RmsNorm { rows: n, width, residual } => {
            let elements = of(n, width) * if residual { 2 } else { 1 };
            let id = format!("rmsnorm{}-{n}x{width}", if residual { "+add" } else { "" });
            let name = if residual { "fused_add_rms_norm" } else { "rms_norm" };
            let kernel = rows(id, name, Op::Norm, n, elements, elements);
            // The sum of squares, then the result; the row stays in registers.
            let in_place = if residual { elements } else { 0 };
            Streaming { params: u64::from(width), in_place, trips: 3.0, ..kernel }
        }
        StepLayer::Rotary { tokens, width, .. } => {
            let elements = of(tokens, width);
            let id = format!("rotary-{tokens}x{width}");
            let kernel = rows(id, "rotary_embedding", Op::Elementwise, tokens, elements, elements);
            Streaming { in_place: elements, ..kernel }
        }
        StepLayer::CacheWrite { tokens, width } => {
            let elements = 2 * of(tokens, width);
            let id = format!("cache-write-{tokens}x{width}");
            rows(id, "reshape_and_cache", Op::Copy, tokens, elements, elements)
        }
        StepLayer::GatedActivation { tokens, inner } => {
            let elements = of(tokens, inner);
            let id = format!("silu-mul-{tokens}x{inner}");
            rows(id, "silu_and_mul", Op::Activation, tokens, 2 * elements, elements)
        }
        StepLayer::Route { tokens, experts: [experts, active] } => {
            let scores = of(tokens, experts);
            let chosen = 2 * of(tokens, active);
            let id = format!("route-{tokens}x{experts}x{active}");
            let kernel = rows(id, "topk_softmax", Op::Softmax, tokens, scores, chosen);
            // Scores, then counts of tokens per expert, then places: two kernels behind one another.
            Streaming { trips: 8.0, ..kernel }
        }
        StepLayer::SumExperts { tokens, active, width } => {
            let elements = of(tokens, width);
            let id = format!("sum-experts-{tokens}x{active}x{width}");
            let inputs = elements * u64::from(active);
            rows(id, "moe_sum", Op::Reduce, tokens, inputs, elements)
        }
        StepLayer::Gather { sequences, width } => {
            let elements = of(sequences, width);
            let id = format!("gather-{sequences}x{width}");
            rows(id, "index_select", Op::Copy, sequences, elements, elements)
        }
        StepLayer::Sample { sequences, vocabulary } => {
            let elements = of(sequences, vocabulary);
            let id = format!("sample-{sequences}x{vocabulary}");
            // Logits are written once more, twice as wide, and read twice.
            let kernel = rows(id, "sample", Op::Reduce, sequences, 5 * elements, 2 * elements);
            Streaming { blocks: elements.div_ceil(4096), ..kernel }
        }
        StepLayer::Linear { .. }
        | StepLayer::Experts { .. }
        | StepLayer::PrefillAttention { .. }
        | StepLayer::DecodeAttention { .. } => unreachable!("products have kernels of their own"),
    }
}

/// A kernel whose blocks own a row each.
fn rows(id: String, name: &str, op: Op, rows: u32, inputs: u64, outputs: u64) -> Streaming {
    let tensors = inputs.div_ceil(outputs.max(1)).max(1);
    Streaming {
        blocks: u64::from(rows.max(1)),
        block: 2 * THREADS,
        flops: inputs.max(outputs),
        inputs,
        outputs,
        ..Streaming::moving(id, name, op, tensors)
    }
}
