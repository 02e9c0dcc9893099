//! What an engine is told before it starts.

use cotenant_profiles::{Bytes, Nanos};

use super::sequence::Sequence;
use crate::layout::Role;

/// How much memory the key-value cache has.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum KvSize {
    /// What remains of this share of the memory of the worker's GPU or instance after weights,
    /// activations and the context (vLLM's `gpu_memory_utilization`).
    Fraction(f64),
    /// So much.
    Bytes(Bytes),
}

/// A cache whose memory follows what sequences hold: pages are mapped when blocks are wanted and given
/// back when their blocks are free, so that engines of one GPU or instance share what memory there is
/// (kvcached's idea).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Elastic {
    /// Memory of the cache that is mapped from the start and never given back.
    pub floor: Bytes,
    /// Memory is mapped in pages of so many bytes.
    pub page: Bytes,
    /// Host time to map a page.
    pub map: Nanos,
}

impl Elastic {
    /// Its floor in whole pages, where it may have `most` in all.
    #[must_use]
    pub fn floor_within(&self, most: Bytes) -> Bytes {
        let page = self.page.0.max(1);
        Bytes((self.floor.0.div_ceil(page) * page).min(most.0 / page * page))
    }
}

impl Rules {
    /// Bytes of a block of the cache.
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
    /// Prompts are computed in steps of their own, before anybody generates (SGLang's rule), instead
    /// of beside the generating sequences.
    pub alternate: bool,
    /// Blocks of a finished sequence serve the next request of its session.
    pub prefix_cache: bool,
    /// Longest sequence, prompt and output, tokens.
    pub max_context: u32,
    /// Tokens of a cache block.
    pub block: u32,
    /// Memory of the cache; of an elastic one, the most that it may have.
    pub kv: KvSize,
    /// The cache takes memory only while sequences need it.
    pub elastic: Option<Elastic>,
    /// Bytes of the cache per token.
    pub kv_per_token: Bytes,
    /// Host time to plan a step and to prepare its inputs.
    pub scheduler_overhead: Nanos,
    /// The next step is planned while the current one runs (vLLM's async scheduling).
    pub async_scheduling: bool,
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
