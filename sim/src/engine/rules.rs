//! What an engine is told before it starts.

use cotenant_profiles::{Bytes, Nanos};

use super::sequence::Sequence;

/// How much memory the key-value cache has.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum KvSize {
    /// What remains of this share of the memory of the worker's GPU or instance after weights,
    /// activations and the context (vLLM's `gpu_memory_utilization`).
    Fraction(f64),
    /// So much.
    Bytes(Bytes),
}

/// An engine's rules.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rules {
    /// Most sequences admitted at once.
    pub max_seqs: u32,
    /// Most tokens of one step.
    pub max_batched_tokens: u32,
    /// A prompt may be split over steps; otherwise it is computed whole.
    pub chunked_prefill: bool,
    /// Prompts are computed in steps of their own, before anybody generates (SGLang's rule), instead
    /// of beside the generating sequences.
    pub alternate: bool,
    /// Blocks of a finished sequence serve the next request of its session.
    pub prefix_cache: bool,
    /// Longest sequence, prompt and output, tokens.
    pub max_context: u32,
    /// Tokens of a cache block.
    pub block: u32,
    /// Memory of the cache.
    pub kv: KvSize,
    /// Bytes of the cache per token.
    pub kv_per_token: Bytes,
    /// Host time to plan a step and to prepare its inputs.
    pub scheduler_overhead: Nanos,
    /// The next step is planned while the current one runs (vLLM's async scheduling).
    pub async_scheduling: bool,
}

/// Which steps a worker runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Role {
    /// All of them: the engine is its own.
    #[default]
    Whole,
    /// Those of prompts; another worker of its tenant generates.
    Prefill,
    /// Those of one token per sequence.
    Decode,
}

impl Role {
    /// Where the engine keeps its step.
    pub(super) fn index(self) -> usize {
        usize::from(self == Self::Decode)
    }

    /// Whether such a worker computes the next tokens of a sequence.
    pub(super) fn takes(self, s: &Sequence) -> bool {
        match self {
            Self::Whole => true,
            Self::Prefill => !s.generates(),
            Self::Decode => s.generates(),
        }
    }
}
