//! The engine of a tenant that generates tokens, with vLLM's defaults.

use cotenant_profiles::{Bytes, Device, Nanos};
use cotenant_sim::engine::{Elastic, KvSize};

use super::file::{ElasticFile, EngineFile, EngineKind};

/// Memory from which vLLM takes a GPU for a large one, bytes.
const LARGE: u64 = 70 << 30;
const LARGEST: u64 = 160 << 30;
/// Host time of a step: what remains of the 5 ms that vLLM reports for a step of an 8B model on an
/// H100, whose weights take 4.5 ms to read.
const OVERHEAD: Nanos = Nanos::from_micros(500);

/// kvcached maps memory in pages of 2 MiB. Its benchmark (`benchmarks/bench_alloc`) takes 4.2 ms on a
/// GB10 for 128 blocks of 512 KiB, 64 MiB: 130 us each.
const PAGE: Bytes = Bytes(2 << 20);
const MAP: Nanos = Nanos::from_micros(130);

/// What a file says of an elastic cache.
///
/// # Errors
/// A size that is none, or a page of no bytes.
pub(super) fn elastic(file: &ElasticFile) -> Result<Elastic, String> {
    let size = |key: &str, text: &Option<String>, default: Bytes| match text {
        None => Ok(default),
        Some(text) => text.parse::<Bytes>().map_err(|e| format!("elastic.{key}: {e}")),
    };
    let page = size("page", &file.page, PAGE)?;
    if page == Bytes(0) {
        return Err("elastic.page: is 0; write page = \"2MiB\"".to_owned());
    }
    let floor = size("floor", &file.floor, Bytes(0))?;
    Ok(Elastic { floor, page, map: file.map.map_or(MAP, |t| t.0) })
}

/// An engine, every value given.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct EngineConfig {
    pub(crate) max_seqs: u32,
    pub(crate) max_batched_tokens: u32,
    pub(crate) chunked_prefill: bool,
    pub(crate) alternate: bool,
    pub(crate) kv: KvSize,
    pub(crate) elastic: Option<Elastic>,
    pub(crate) block: u32,
    pub(crate) prefix_cache: bool,
    /// `None`: the model's.
    pub(crate) max_context: Option<u32>,
    pub(crate) scheduler_overhead: Nanos,
    pub(crate) async_scheduling: bool,
    pub(crate) graphs: bool,
}

impl EngineConfig {
    /// What the file does not say is as vLLM's API server has it on the device
    /// (`vllm/engine/arg_utils.py`, release 0.33).
    pub(super) fn new(
        file: &EngineFile,
        (kv, elastic): (KvSize, Option<Elastic>),
        device: Option<&Device>,
    ) -> Self {
        let EngineKind::Continuous = file.kind;
        let memory = device.map_or(0, |d| d.memory.capacity.0);
        let a100 = device.is_some_and(|d| d.name.to_lowercase().contains("a100"));
        let (seqs, tokens) = match memory {
            LARGEST.. => (1024, 16_384),
            LARGE.. if !a100 => (1024, 8192),
            _ => (256, 2048),
        };
        Self {
            max_seqs: file.max_seqs.unwrap_or(seqs),
            max_batched_tokens: file.max_batched_tokens.unwrap_or(tokens),
            chunked_prefill: file.chunked_prefill.unwrap_or(true),
            alternate: file.alternate.unwrap_or(false),
            kv,
            elastic,
            block: file.block.unwrap_or(16),
            prefix_cache: file.prefix_cache.unwrap_or(true),
            max_context: file.max_context,
            scheduler_overhead: file.scheduler_overhead.map_or(OVERHEAD, |t| t.0),
            async_scheduling: file.async_scheduling.unwrap_or(true),
            graphs: file.graphs.unwrap_or(true),
        }
    }
}
