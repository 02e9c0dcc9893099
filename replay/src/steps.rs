//! What a serving engine's steps launch beside matrix products, as work: norms, rotary embedding,
//! the key-value cache, attention over its pages, experts, the choice of a token.
//!
//! Each layer of a [`cotenant_profiles::zoo::decoder::Step`] is one work ([`work`]). The kernels
//! are ours, `kernels/steps.cu`: they compute what the layer computes, on the grid that the analytic
//! model gives it where that is possible, and are not tuned. Where they differ:
//!
//! * prompts: blocks as modelled, a tile of 128 queries of a head each, of 256 threads and 33 KiB of
//!   shared memory, without matrix units; flash attention has 128 or 384 threads and more memory;
//! * sequences that generate: keys are divided into parts of 256, combined by the last block of a
//!   sequence and head; the model (and flash attention) makes as many parts as fill the device;
//! * embedding and gathered rows: a thread per element, not a block per row;
//! * experts: their products are one batch of equal products, each of the mean number of rows; the
//!   router's kernel chooses, and leaves the sorting of tokens out.
//!
//! Sequences of a step are known by their sums, so work has equal ones, as even as whole numbers are.

mod reference;
mod samples;
mod shapes;

use std::fmt;

use cotenant_profiles::kernel::Op;
use cotenant_profiles::lower::Precision;
use cotenant_profiles::zoo::decoder::{Decode, Decoder, Matrix, Prefill, StepLayer, StepShape};
use serde::{Deserialize, Serialize};

use crate::work::{Task, Work};

pub(crate) use reference::compute;
pub use samples::samples;
pub(crate) use shapes::{launch, shapes};

/// Tokens of a page of the cache: vLLM's default.
pub const PAGE: u32 = 16;
/// Keys of a part of attention over a sequence that generates.
pub const PART: u32 = 256;
/// Queries of a block of attention over prompts.
pub const TILE: u32 = 128;
/// Logits of a block that looks for the largest.
pub const CHUNK: u32 = 4096;
/// The longest head that attention takes.
pub const WIDEST_HEAD: u32 = 256;
/// Most experts that the router's kernel takes.
pub const MOST_EXPERTS: u32 = 1024;

/// Attention over a paged cache: equal sequences, as even as whole numbers are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attend {
    /// Sequences.
    pub sequences: u32,
    /// New tokens of all: one of each where they generate.
    pub tokens: u32,
    /// Tokens of all in the cache before, without the new ones.
    pub cached: u64,
    /// Keys that a token sees at most, itself included.
    pub window: u32,
    /// Heads of queries.
    pub heads: u32,
    /// Heads of keys and values.
    pub kv_heads: u32,
    /// Elements of a head.
    pub width: u32,
}

/// A launch of a step that is no plain product.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum StepTask {
    /// Rows over the root of their mean square; the sum with the residual stream before that is a second
    /// result.
    RmsNorm {
        /// Rows.
        rows: u32,
        /// Length of a row.
        width: u32,
        /// Whether a second tensor is added first.
        residual: bool,
    },
    /// Halves of every head turned against each other, by the angles of a table.
    Rotary {
        /// Rows.
        tokens: u32,
        /// Heads of queries and keys.
        heads: u32,
        /// Elements of a head.
        width: u32,
    },
    /// Keys and values of new tokens into places of the cache.
    CacheWrite {
        /// Rows.
        tokens: u32,
        /// Elements of a row's keys, or of its values.
        width: u32,
    },
    /// Causal attention of new tokens of prompts.
    Prefill(Attend),
    /// Attention of one token per sequence.
    Decode(Attend),
    /// `silu(gate) × up`, both halves of a row.
    Gated {
        /// Rows.
        tokens: u32,
        /// Elements of a row of the result.
        inner: u32,
    },
    /// Weights of the best experts of every token.
    Route {
        /// Rows.
        tokens: u32,
        /// Experts.
        experts: u32,
        /// Experts of a token.
        active: u32,
    },
    /// The weighted sum of what a token's experts return.
    SumExperts {
        /// Rows of the result.
        tokens: u32,
        /// Experts of a token.
        active: u32,
        /// Length of a row.
        width: u32,
    },
    /// Rows by their number.
    Gather {
        /// Rows.
        rows: u32,
        /// Length of a row.
        width: u32,
    },
    /// Logits in single precision, and the largest of each row.
    Sample {
        /// Rows.
        rows: u32,
        /// Length of a row.
        vocabulary: u32,
    },
    /// A product of row-major `m × k` by `k × n`, with a bias for each column.
    Biased {
        /// Rows of the result.
        m: u32,
        /// Columns of the result.
        n: u32,
        /// Length of the inner products.
        k: u32,
    },
}

/// The work of one layer of a step. A quantised precision is that of products alone, as
/// [`cotenant_profiles::lower::step_layer`] has it.
#[must_use]
pub fn work(layer: &StepLayer, precision: Precision) -> Work {
    let (task, precision) = match *layer {
        StepLayer::Embedding { tokens, width } => {
            // The table of the vocabulary is as long as its file says; what is read are these rows.
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

/// Rows of the embedding that tokens are spread over: as many as cannot stay in a cache.
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

impl Attend {
    /// Prompts: the window is such that all tokens see as many keys together as the sums say.
    fn prefill(prefill: &Prefill, [heads, kv_heads, width]: [u32; 3]) -> Self {
        let sequences = prefill.sequences.max(1);
        let cached = prefill.context.saturating_sub(u64::from(prefill.tokens));
        let tokens = prefill.tokens.max(1);
        let mut all = Self { sequences, tokens, cached, window: u32::MAX, heads, kv_heads, width };
        let (mut low, mut high) = (1, all.longest());
        while low < high {
            let middle = low + (high - low) / 2;
            all.window = middle;
            if all.seen() < prefill.seen { low = middle + 1 } else { high = middle }
        }
        Self { window: low, ..all }
    }

    fn decode(decode: &Decode, [heads, kv_heads, width]: [u32; 3]) -> Self {
        let sequences = decode.sequences.max(1);
        let cached = decode.context.saturating_sub(u64::from(sequences));
        let all = Self { sequences, tokens: sequences, cached, window: 1, heads, kv_heads, width };
        Self { window: all.longest(), ..all }
    }

    /// New tokens of a sequence, and those in its cache before.
    #[must_use]
    pub fn sequence(&self, index: u32) -> (u64, u64) {
        let part = |all: u64| {
            let at = |i: u32| u64::from(i) * all / u64::from(self.sequences);
            at(index + 1) - at(index)
        };
        (part(self.tokens.into()), part(self.cached))
    }

    /// Most new tokens of a sequence.
    #[must_use]
    pub fn most_tokens(&self) -> u32 {
        self.tokens.div_ceil(self.sequences)
    }

    /// The longest that a sequence may be, with the new tokens.
    #[must_use]
    pub fn longest(&self) -> u32 {
        let cached = self.cached.div_ceil(u64::from(self.sequences));
        u32::try_from(cached).unwrap_or(u32::MAX).saturating_add(self.most_tokens())
    }

    /// Pages that each sequence has in the table.
    #[must_use]
    pub fn pages_each(&self) -> u32 {
        self.longest().div_ceil(PAGE)
    }

    /// Keys that all new tokens see together.
    #[must_use]
    pub fn seen(&self) -> u64 {
        let window = u64::from(self.window);
        let of = |i: u32| {
            let (new, cached) = self.sequence(i);
            // Tokens that see all before them, then those that see the window.
            let whole = window.saturating_sub(cached).min(new);
            whole * cached + whole * (whole + 1) / 2 + (new - whole) * window
        };
        // As even as whole numbers are: few kinds of sequences, but which is which takes a walk.
        (0..self.sequences).map(of).sum()
    }

    /// Parts that the keys of a sequence are divided into where it generates.
    #[must_use]
    pub fn parts(&self) -> u32 {
        self.longest().div_ceil(PART)
    }
}

impl StepTask {
    /// What it does, in a profile's terms.
    pub(crate) fn op(&self) -> Op {
        match self {
            Self::RmsNorm { .. } => Op::Norm,
            Self::Rotary { .. } => Op::Elementwise,
            Self::CacheWrite { .. } | Self::Gather { .. } => Op::Copy,
            Self::Prefill(_) | Self::Decode(_) => Op::Attention,
            Self::Gated { .. } => Op::Activation,
            Self::Route { .. } => Op::Softmax,
            Self::SumExperts { .. } | Self::Sample { .. } => Op::Reduce,
            Self::Biased { .. } => Op::Gemm,
        }
    }

    /// Floating-point operations of matrix work; 0 for the rest.
    pub(crate) fn flops(&self) -> u64 {
        match self {
            Self::Prefill(a) | Self::Decode(a) => {
                4 * u64::from(a.heads) * u64::from(a.width) * a.seen()
            }
            Self::Biased { m, n, k } => 2 * u64::from(*m) * u64::from(*n) * u64::from(*k),
            _ => 0,
        }
    }
}

impl fmt::Display for StepTask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let attend = |f: &mut fmt::Formatter<'_>, name: &str, a: &Attend| {
            let Attend { sequences, tokens, cached, window, heads, kv_heads, width } = a;
            write!(f, "{name}-{sequences}x{tokens}x{cached}w{window}")?;
            write!(f, "-h{heads}kv{kv_heads}x{width}")
        };
        match self {
            Self::RmsNorm { rows, width, residual } => {
                write!(f, "rms_norm{}-{rows}x{width}", if *residual { "_add" } else { "" })
            }
            Self::Rotary { tokens, heads, width } => write!(f, "rotary-{tokens}x{heads}x{width}"),
            Self::CacheWrite { tokens, width } => write!(f, "cache_write-{tokens}x{width}"),
            Self::Prefill(a) => attend(f, "prefill_attention", a),
            Self::Decode(a) => attend(f, "decode_attention", a),
            Self::Gated { tokens, inner } => write!(f, "silu_mul-{tokens}x{inner}"),
            Self::Route { tokens, experts, active } => {
                write!(f, "route-{tokens}x{experts}x{active}")
            }
            Self::SumExperts { tokens, active, width } => {
                write!(f, "sum_experts-{tokens}x{active}x{width}")
            }
            Self::Gather { rows, width } => write!(f, "gather-{rows}x{width}"),
            Self::Sample { rows, vocabulary } => write!(f, "sample-{rows}x{vocabulary}"),
            Self::Biased { m, n, k } => write!(f, "gemm_bias-m{m}-n{n}-k{k}"),
        }
    }
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
                // Experts have the mean number of rows, rounded up.
                let most = if decoder.name.contains("a3b") { 1.6 } else { 1.0 };
                let share = flops as f64 / expected as f64;
                assert!((1.0..=most).contains(&share), "{} {shape:?}: {share}", decoder.name);
            }
        }
    }

    #[test]
    fn sums_are_split_evenly_and_windows_see_what_was_asked_for() {
        let a = Attend::prefill(
            &Prefill { sequences: 3, tokens: 100, context: 250, seen: 4000 },
            [8, 2, 64],
        );
        let parts: Vec<_> = (0..3).map(|i| a.sequence(i)).collect();
        assert_eq!(parts, [(33, 50), (33, 50), (34, 50)]);
        assert!(a.seen() >= 4000 && Attend { window: a.window - 1, ..a }.seen() < 4000, "{a:?}");
        // Whole prompts see each key before them and no window.
        let whole = StepShape::new(&[(512, 512)], &[]).prefill;
        let a = Attend::prefill(&whole, [8, 2, 64]);
        assert_eq!((a.window, a.seen(), a.pages_each()), (512, whole.seen, 32));
        let d = Attend::decode(&Decode { sequences: 3, context: 1000 }, [8, 2, 64]);
        assert_eq!((d.seen(), d.longest(), d.parts()), (1000, 334, 2));
    }
}
