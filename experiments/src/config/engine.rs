//! The engine of a tenant that generates tokens, with vLLM's defaults.

use cotenant_profiles::{Bytes, Device, Nanos};
use cotenant_sim::engine::{Elastic, KvSize};

use super::file::{ElasticFile, EngineFile, EngineKind, MAP, PAGE, SCHEDULER_OVERHEAD};

/// Memory from which vLLM takes a GPU for a large one, bytes.
const LARGE: u64 = 70 << 30;
const LARGEST: u64 = 160 << 30;

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
            chunked_prefill: file.chunked_prefill,
            alternate: file.alternate,
            kv,
            elastic,
            block: file.block,
            prefix_cache: file.prefix_cache,
            max_context: file.max_context,
            scheduler_overhead: file.scheduler_overhead.map_or(SCHEDULER_OVERHEAD, |t| t.0),
            async_scheduling: file.async_scheduling,
            graphs: file.graphs,
        }
    }
}
