//! The launches of a serving engine's steps besides matrix products, as work: norms, rotary embedding,
//! the key-value cache, attention over its pages, experts, the choice of a token.
//!
//! Each layer of a [`cotenant_profiles::zoo::decoder::Step`] is one work ([`work`]). The kernels are
//! our own, `kernels/steps.cu`: they compute what the layer computes, where possible on the grid that
//! the analytic model gives it, and they are not tuned. They differ in these points:
//!
//! * prompts: blocks as modelled, a tile of 128 queries of a head each, of 256 threads and 33 KiB of
//!   shared memory, without matrix units; flash attention has 128 or 384 threads and more memory;
//! * sequences that generate: keys are divided into parts of 256, combined by the last block of a
//!   sequence and head; the model (and flash attention) makes as many parts as fill the device;
//! * embedding and gathered rows: a thread per element, not a block per row;
//! * experts: their products are one batch of equal products, each of the mean number of rows; the
//!   router's kernel chooses, and leaves the sorting of tokens out.
//!
//! A step's sequences are known only by their sums, so the work has equal sequences, or as nearly equal
//! as whole numbers allow.

mod samples;

use cotenant_profiles::lower::Precision;
use cotenant_profiles::zoo::decoder::{Decoder, Matrix, StepLayer, StepShape};

use crate::work::{Attend, StepTask, Task, Work};

pub use samples::samples;

/// The work of one layer of a step. A quantised precision applies to products alone, as in
/// [`cotenant_profiles::lower::step_layer`].
#[must_use]
pub fn work(layer: &StepLayer, precision: Precision) -> Work {
    let (task, precision) = match *layer {
        StepLayer::Embedding { tokens, width } => {
            // The file determines the length of the vocabulary's table; only these rows are read.
            (Task::Embedding { rows: tokens, width, entries: TABLE }, precision.activations())
        }
        StepLayer::Linear { matrix, tokens: m, in_features: k, out_features: n, bias } => {
            let plain = matches!(matrix, Matrix::LmHead | Matrix::Router);
            let precision = if plain { precision.activations() } else { precision };
            let task = match bias {
                true => Task::Step(StepTask::Biased { m, n, k }),
                false => Task::Gemm { m, n, k, count: 1 },
            };
            (task, precision)
        }
        StepLayer::Experts { touched, rows, in_features: k, out_features: n, .. } => {
            let count = touched.max(1);
            (Task::Gemm { m: rows.div_ceil(count).max(1), n, k, count }, precision)
        }
        ref layer => (Task::Step(other(layer)), precision.activations()),
    };
    Work { step: true, ..Work::new(task, precision) }
}

/// Rows of the embedding over which tokens are spread: too many to stay in a cache.
const TABLE: u32 = 16_384;

fn other(layer: &StepLayer) -> StepTask {
    match *layer {
        StepLayer::RmsNorm { rows, width, residual } => StepTask::RmsNorm { rows, width, residual },
        StepLayer::Rotary { tokens, width, head_dim } => {
            StepTask::Rotary { tokens, heads: width / head_dim.max(1), width: head_dim }
        }
        StepLayer::CacheWrite { tokens, width } => StepTask::CacheWrite { tokens, width },
        StepLayer::PrefillAttention { prefill, heads, kv_heads, head_dim } => {
            StepTask::Prefill(Attend::prefill(&prefill, [heads, kv_heads, head_dim]))
        }
        StepLayer::DecodeAttention { decode, heads, kv_heads, head_dim } => {
            StepTask::Decode(Attend::decode(&decode, [heads, kv_heads, head_dim]))
        }
        StepLayer::GatedActivation { tokens, inner } => StepTask::Gated { tokens, inner },
        StepLayer::Route { tokens, experts: [experts, active] } => {
            StepTask::Route { tokens, experts, active }
        }
        StepLayer::SumExperts { tokens, active, width } => {
            StepTask::SumExperts { tokens, active, width }
        }
        StepLayer::Gather { sequences: rows, width } => StepTask::Gather { rows, width },
        StepLayer::Sample { sequences: rows, vocabulary } => StepTask::Sample { rows, vocabulary },
        StepLayer::Embedding { .. } | StepLayer::Linear { .. } | StepLayer::Experts { .. } => {
            unreachable!("products and the embedding are work of their own")
        }
    }
}

/// The works of one step of a decoder, in order.
#[must_use]
pub fn works(decoder: &Decoder, shape: &StepShape, precision: Precision) -> Vec<Work> {
    let segments = decoder.step(shape).segments.into_iter();
    let layers = segments.flat_map(|s| (0..s.repeat).flat_map(move |_| s.layers.clone()));
    layers.map(|layer| work(&layer, precision)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use cotenant_profiles::zoo::decoder::DECODERS;

    #[test]
    fn every_layer_of_every_decoder_is_work_that_computes_as_much() {
        for decoder in DECODERS {
            for shape in [
                StepShape::new(&[(40, 40), (40, 40)], &[]),
                StepShape::new(&[(300, 812)], &[]),
                StepShape::new(&[], &[1024; 4]),
                StepShape::new(&[(64, 64)], &[100, 200, 600]),
            ] {
                let works = works(decoder, &shape, Precision::Bf16);
                let layers: usize = decoder
                    .step(&shape)
                    .segments
                    .iter()
                    .map(|s| s.layers.len() * s.repeat as usize)
                    .sum();
                assert_eq!(works.len(), layers);
                assert!(works.iter().all(|w| w.step));
                let flops: u64 = works.iter().map(Work::flops).sum();
                let expected = 2 * decoder.macs(&shape);
                // Each expert has the mean number of rows, rounded up.
                let most = if decoder.name.contains("a3b") { 1.6 } else { 1.0 };
                let share = flops as f64 / expected as f64;
                assert!((1.0..=most).contains(&share), "{} {shape:?}: {share}", decoder.name);
            }
        }
    }
}
