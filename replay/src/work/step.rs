//! Launches of a serving engine's steps that are not plain products.

use std::fmt;

use cotenant_profiles::kernel::Op;
use cotenant_profiles::zoo::decoder::{Decode, Prefill};
use serde::{Deserialize, Serialize};

/// Tokens per page of the cache, as in vLLM by default.
pub const PAGE: u32 = 16;
/// Keys per part in the attention of a generating sequence.
pub const PART: u32 = 256;
/// Queries per block in attention over prompts.
pub const TILE: u32 = 128;
/// Logits per block in the search for the largest.
pub const CHUNK: u32 = 4096;
/// The widest head that attention supports.
pub const WIDEST_HEAD: u32 = 256;
/// The most experts that the router's kernel supports.
pub const MOST_EXPERTS: u32 = 1024;

/// Attention over a paged cache. The sequences are equal, or as nearly equal as whole numbers allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attend {
    /// Sequences.
    pub sequences: u32,
    /// New tokens of all sequences; one per sequence if they generate.
    pub tokens: u32,
    /// Tokens of all sequences that are already in the cache, without the new ones.
    pub cached: u64,
    /// The most keys that a token sees, itself included.
    pub window: u32,
    /// Heads of queries.
    pub heads: u32,
    /// Heads of keys and values.
    pub kv_heads: u32,
    /// Elements of a head.
    pub width: u32,
}

/// A launch of a step that is not a plain product.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum StepTask {
    /// Rows divided by their root mean square. If the residual stream is added first, that sum is a
    /// second result.
    RmsNorm {
        /// Rows.
        rows: u32,
        /// Length of a row.
        width: u32,
        /// Whether a second tensor is added first.
        residual: bool,
    },
    /// Rotates the halves of every head against each other, by the angles of a table.
    Rotary {
        /// Rows.
        tokens: u32,
        /// Heads of queries and keys.
        heads: u32,
        /// Elements of a head.
        width: u32,
    },
    /// Writes keys and values of new tokens into slots of the cache.
    CacheWrite {
        /// Rows.
        tokens: u32,
        /// Elements of a row's keys, or of its values.
        width: u32,
    },
    /// Causal attention of the new tokens of prompts.
    Prefill(Attend),
    /// Attention of one token per sequence.
    Decode(Attend),
    /// `silu(gate) × up`, where gate and up are the two halves of a row.
    Gated {
        /// Rows.
        tokens: u32,
        /// Elements of a row of the result.
        inner: u32,
    },
    /// Computes the weights of the best experts of every token.
    Route {
        /// Rows.
        tokens: u32,
        /// Experts.
        experts: u32,
        /// Active experts per token.
        active: u32,
    },
    /// The weighted sum of the outputs of a token's experts.
    SumExperts {
        /// Rows of the result.
        tokens: u32,
        /// Active experts per token.
        active: u32,
        /// Length of a row.
        width: u32,
    },
    /// Gathers rows by their index.
    Gather {
        /// Rows.
        rows: u32,
        /// Length of a row.
        width: u32,
    },
    /// Logits in single precision, and the largest logit of each row.
    Sample {
        /// Rows.
        rows: u32,
        /// Length of a row.
        vocabulary: u32,
    },
    /// Row-major products of `m × k` by `k × n`, with a bias for each column.
    Biased {
        /// Rows of the result.
        m: u32,
        /// Columns of the result.
        n: u32,
        /// Length of the inner products.
        k: u32,
    },
}

impl Attend {
    /// Attention over prompts. The window is chosen such that all tokens together see as many keys as
    /// the sums say.
    pub(crate) fn prefill(prefill: &Prefill, [heads, kv_heads, width]: [u32; 3]) -> Self {
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

    pub(crate) fn decode(decode: &Decode, [heads, kv_heads, width]: [u32; 3]) -> Self {
        let sequences = decode.sequences.max(1);
        let cached = decode.context.saturating_sub(u64::from(sequences));
        let all = Self { sequences, tokens: sequences, cached, window: 1, heads, kv_heads, width };
        Self { window: all.longest(), ..all }
    }

    /// A sequence's new tokens, and its tokens already in the cache.
    #[must_use]
    pub fn sequence(&self, index: u32) -> (u64, u64) {
        let part = |all: u64| {
            let at = |i: u32| u64::from(i) * all / u64::from(self.sequences);
            at(index + 1) - at(index)
        };
        (part(self.tokens.into()), part(self.cached))
    }

    /// The most new tokens that any sequence has.
    #[must_use]
    pub fn most_tokens(&self) -> u32 {
        self.tokens.div_ceil(self.sequences)
    }

    /// The most tokens that any sequence has, including the new ones.
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

    /// The sum of the keys that the new tokens see.
    #[must_use]
    pub fn seen(&self) -> u64 {
        let window = u64::from(self.window);
        let of = |i: u32| {
            let (new, cached) = self.sequence(i);
            // First the tokens that see all tokens before them, then those that see only the window.
            let whole = window.saturating_sub(cached).min(new);
            whole * cached + whole * (whole + 1) / 2 + (new - whole) * window
        };
        // The sequences are as equal as whole numbers allow, so there are few kinds of them, but only a
        // walk over all tells which is which.
        (0..self.sequences).map(of).sum()
    }

    /// Number of parts that the keys of a generating sequence are divided into.
    #[must_use]
    pub fn parts(&self) -> u32 {
        self.longest().div_ceil(PART)
    }
}

impl StepTask {
    /// Its operation, in a profile's terms.
    pub(super) fn op(&self) -> Op {
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
    pub(super) fn flops(&self) -> u64 {
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
    use cotenant_profiles::zoo::decoder::StepShape;

    #[test]
    fn sums_are_split_evenly_and_windows_see_what_was_asked_for() {
        let a = Attend::prefill(
            &Prefill { sequences: 3, tokens: 100, context: 250, seen: 4000 },
            [8, 2, 64],
        );
        let parts: Vec<_> = (0..3).map(|i| a.sequence(i)).collect();
        assert_eq!(parts, [(33, 50), (33, 50), (34, 50)]);
        assert!(a.seen() >= 4000 && Attend { window: a.window - 1, ..a }.seen() < 4000, "{a:?}");
        // Tokens of whole prompts see every key before them, unlimited by a window.
        let whole = StepShape::new(&[(512, 512)], &[]).prefill;
        let a = Attend::prefill(&whole, [8, 2, 64]);
        assert_eq!((a.window, a.seen(), a.pages_each()), (512, whole.seen, 32));
        let d = Attend::decode(&Decode { sequences: 3, context: 1000 }, [8, 2, 64]);
        assert_eq!((d.seen(), d.longest(), d.parts()), (1000, 334, 2));
    }
}
