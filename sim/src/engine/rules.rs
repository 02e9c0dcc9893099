//! The configuration of an engine.

use cotenant_profiles::{Bytes, Nanos};

use super::sequence::Sequence;
use crate::layout::Role;

/// How much memory the key-value cache has.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum KvSize {
    /// What remains of this share of the memory of the worker's GPU or instance after weights, activations
    /// and the context (vLLM's `gpu_memory_utilization`).
    Fraction(f64),
    /// A fixed amount.
    Bytes(Bytes),
}

/// A cache whose memory follows what sequences hold: pages are mapped when blocks are needed and unmapped
/// when their blocks are free, so that the engines of a GPU or instance share its memory (the idea of
/// kvcached).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Elastic {
    /// Cache memory that is mapped from the start and never unmapped.
    pub floor: Bytes,
    /// Size of the pages in which memory is mapped.
    pub page: Bytes,
    /// Host time to map a page.
    pub map: Nanos,
}

impl Elastic {
    /// Its floor in whole pages, limited to `most`.
    #[must_use]
    pub fn floor_within(&self, most: Bytes) -> Bytes {
        let page = self.page.0.max(1);
        Bytes((self.floor.0.div_ceil(page) * page).min(most.0 / page * page))
    }
}

impl Rules {
    /// Size of a cache block.
    #[must_use]
    pub fn block_bytes(&self) -> Bytes {
        Bytes(self.kv_per_token.0.max(1) * u64::from(self.block))
    }
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
    /// Prompts are computed in steps of their own before any sequence generates (SGLang's rule), instead of
    /// in the same steps as generating sequences.
    pub alternate: bool,
    /// Blocks of a finished sequence serve the next request of its session.
    pub prefix_cache: bool,
    /// Longest sequence, prompt and output, tokens.
    pub max_context: u32,
    /// Tokens per cache block.
    pub block: u32,
    /// Memory of the cache; for an elastic cache, its maximum.
    pub kv: KvSize,
    /// The cache takes memory only while sequences need it.
    pub elastic: Option<Elastic>,
    /// Cache memory per token.
    pub kv_per_token: Bytes,
    /// Host time to plan a step and to prepare its inputs.
    pub scheduler_overhead: Nanos,
    /// The next step is planned while the current one runs (vLLM's async scheduling).
    pub async_scheduling: bool,
}

impl Role {
    /// The index of this role's step in the engine.
    pub(super) fn index(self) -> usize {
        usize::from(self == Self::Decode)
    }

    /// Whether a worker of this role computes the next tokens of a sequence.
    pub(super) fn takes(self, s: &Sequence) -> bool {
        match self {
            Self::Whole => true,
            Self::Prefill => !s.generates(),
            Self::Decode => s.generates(),
        }
    }
}
