//! Decoder-only language models as a serving engine runs them: not a batch of equal items, but one
//! step after another, each over the new tokens of some prompts and one token of every sequence that
//! is generating.
//!
//! A [`Decoder`] is the architecture. [`Decoder::step`] lists the layers of one step for a
//! [`StepShape`]; [`crate::lower::step`] turns them into kernels, and [`crate::steps::StepLibrary`]
//! keeps them, rounded and shared, for whoever runs many steps.

mod config;
mod models;
mod step;

use std::borrow::Cow;
use std::path::Path;

pub use config::{Checkpoint, ConfigError, parse_config, read_config};
pub use models::DECODERS;
pub use step::{Decode, Matrix, Prefill, Rounding, Segment, Step, StepLayer, StepShape};

use super::ZooError;
use crate::precision::Precision;
use crate::units::Bytes;

/// The architecture of a decoder-only transformer with gated feed-forward layers: Llama, Mistral,
/// Qwen and their kin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decoder {
    /// The zoo's name.
    pub name: Cow<'static, str>,
    /// For people.
    pub title: Cow<'static, str>,
    /// Transformer layers.
    pub layers: u32,
    /// Width of the residual stream (`hidden_size`).
    pub width: u32,
    /// Query heads.
    pub heads: u32,
    /// Heads of keys and values: fewer than query heads with grouped-query attention.
    pub kv_heads: u32,
    /// Elements of a head; `heads × head_dim` need not be the width.
    pub head_dim: u32,
    /// What follows attention.
    pub feed_forward: FeedForward,
    /// Entries of the vocabulary.
    pub vocabulary: u32,
    /// The output projection is the input embedding again.
    pub tied: bool,
    /// Biases on the projections to queries, keys and values (Qwen2).
    pub qkv_bias: bool,
    /// A bias on the projection behind attention.
    pub o_bias: bool,
    /// RMSNorm on every query and key head (Qwen3).
    pub qk_norm: bool,
    /// Tokens that a query looks back at most, in every layer; `None`: the whole context.
    pub window: Option<u32>,
    /// Longest context, tokens (`max_position_embeddings`).
    pub positions: u32,
}

/// The second half of a transformer layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FeedForward {
    /// Gate, up and down projection: SwiGLU.
    Gated {
        /// Inner width (`intermediate_size`).
        inner: u32,
    },
    /// A mixture of experts: a router sends every token to a few gated feed-forward layers.
    Experts {
        /// Experts of a layer.
        experts: u32,
        /// Experts that a token goes to.
        active: u32,
        /// Inner width of each (`moe_intermediate_size`).
        inner: u32,
    },
}

impl FeedForward {
    /// Matrix parameters that one layer stores, and those that one token is multiplied with.
    fn matrices(self, width: u64) -> [u64; 2] {
        match self {
            Self::Gated { inner } => [3 * width * u64::from(inner); 2],
            Self::Experts { experts, active, inner } => {
                let expert = 3 * width * u64::from(inner);
                let router = width * u64::from(experts);
                [experts, active].map(|n| router + u64::from(n) * expert)
            }
        }
    }

    /// Elements per token at the widest point: the merged gate and up projection, and their product.
    fn widest(self) -> u64 {
        match self {
            Self::Gated { inner } => 3 * u64::from(inner),
            Self::Experts { active, inner, .. } => 3 * u64::from(inner) * u64::from(active),
        }
    }
}

/// Distinct experts that a layer's `tokens` tokens are sent to on average, if the router prefers none:
/// `E (1 - (1 - k/E)^tokens)`, at least those of one token.
#[must_use]
pub fn experts_touched(experts: u32, active: u32, tokens: u32) -> u32 {
    let missed = 1.0 - f64::from(active) / f64::from(experts.max(1));
    let touched = f64::from(experts) * (1.0 - libm::pow(missed.max(0.0), f64::from(tokens)));
    (touched.round() as u32).clamp(active.min(experts), experts)
}

impl Decoder {
    /// Parameters that are stored: a tied output projection once.
    #[must_use]
    pub fn params(&self) -> u64 {
        let tables = if self.tied { 1 } else { 2 };
        let [layers, width, vocabulary] = [self.layers, self.width, self.vocabulary].map(u64::from);
        layers * self.layer_params() + width + tables * vocabulary * width
    }

    /// Parameters that a step of `tokens` tokens reads: not the input embedding, of which it takes
    /// rows, and of experts those that a token is sent to, see [`experts_touched`].
    #[must_use]
    pub fn params_read(&self, tokens: u32) -> u64 {
        let [layers, width, vocabulary] = [self.layers, self.width, self.vocabulary].map(u64::from);
        let idle = match self.feed_forward {
            FeedForward::Gated { .. } => 0,
            FeedForward::Experts { experts, active, inner } => {
                let idle = experts - experts_touched(experts, active, tokens);
                u64::from(idle) * 3 * width * u64::from(inner)
            }
        };
        layers * (self.layer_params() - idle) + width + vocabulary * width
    }

    /// Parameters of the matrices of attention in one layer.
    fn attention_matrices(&self) -> u64 {
        let [width, heads, kv] = [self.width, self.heads, self.kv_heads].map(u64::from);
        2 * width * u64::from(self.head_dim) * (heads + kv)
    }

    /// Parameters of one layer: matrices, norms, biases.
    fn layer_params(&self) -> u64 {
        let width = u64::from(self.width);
        let head_norms = if self.qk_norm { 2 * u64::from(self.head_dim) } else { 0 };
        let qkv_biases = if self.qkv_bias { u64::from(self.qkv_width()) } else { 0 };
        let biases = qkv_biases + if self.o_bias { width } else { 0 };
        let [stored, _] = self.feed_forward.matrices(width);
        self.attention_matrices() + stored + 2 * width + head_norms + biases
    }

    /// Width of queries, keys and values side by side.
    #[must_use]
    pub fn qkv_width(&self) -> u32 {
        (self.heads + 2 * self.kv_heads) * self.head_dim
    }

    /// Device memory for the parameters. A quantised precision is that of the products of the
    /// transformer's layers; embedding, output projection, norms and routers stay wider.
    #[must_use]
    pub fn weights_bytes(&self, precision: Precision) -> Bytes {
        let width = u64::from(self.width);
        let [stored, _] = self.feed_forward.matrices(width);
        let router = match self.feed_forward {
            FeedForward::Gated { .. } => 0,
            FeedForward::Experts { experts, .. } => width * u64::from(experts),
        };
        let products = u64::from(self.layers) * (self.attention_matrices() + stored - router);
        let others = (self.params() - products) * precision.activations().bytes();
        Bytes(precision.weight_bytes(products) + others)
    }

    /// Key-value cache of one token over all layers, in the numbers that attention computes with.
    #[must_use]
    pub fn kv_bytes_per_token(&self, precision: Precision) -> Bytes {
        let [layers, kv, head] = [self.layers, self.kv_heads, self.head_dim].map(u64::from);
        Bytes(2 * layers * kv * head * precision.activations().bytes())
    }

    /// Device memory for activations of a step of `tokens` tokens, of which `sequences` are sampled
    /// from: the widest point of a layer, or the logits with their copy in FP32 that samplers work on,
    /// whichever is larger. Workspaces of libraries come on top.
    #[must_use]
    pub fn activations_bytes(&self, tokens: u32, sequences: u32, precision: Precision) -> Bytes {
        let [width, vocabulary] = [self.width, self.vocabulary].map(u64::from);
        // The residual stream and the normalised input stay while the layer works.
        let attention = u64::from(self.qkv_width()) + u64::from(self.heads * self.head_dim);
        let widest = attention.max(self.feed_forward.widest());
        let bytes = precision.activations().bytes();
        let layer = u64::from(tokens) * (2 * width + widest) * bytes;
        let logits = u64::from(sequences) * vocabulary * (bytes + 2 * 4);
        Bytes(layer.max(logits))
    }

    /// The step with no sequence's context beyond the window. Sequences are known by their sums alone,
    /// so that the window cuts their mean: exact for equal ones.
    fn windowed(&self, shape: &StepShape) -> StepShape {
        let Some(window) = self.window else {
            return *shape;
        };
        let at_most = |n: u32| u64::from(n) * u64::from(window);
        let StepShape { mut prefill, mut decode, padding } = *shape;
        // A chunk reads the window before it, and itself.
        prefill.context =
            prefill.context.min(at_most(prefill.sequences) + u64::from(prefill.tokens));
        prefill.seen = prefill.seen.min(at_most(prefill.tokens));
        decode.context = decode.context.min(at_most(decode.sequences));
        StepShape { prefill, decode, padding }
    }

    /// Multiply-accumulates of a step: matrices for every token, the output projection for every
    /// sequence, and the two products of attention for every key that a query sees.
    #[must_use]
    pub fn macs(&self, shape: &StepShape) -> u64 {
        let [layers, width, vocabulary] = [self.layers, self.width, self.vocabulary].map(u64::from);
        let seen = self.windowed(shape);
        let seen = seen.prefill.seen + seen.decode.context;
        let attention = 2 * seen * u64::from(self.heads) * u64::from(self.head_dim);
        let [_, multiplied] = self.feed_forward.matrices(width);
        let matrices = self.attention_matrices() + multiplied;
        layers * (u64::from(shape.tokens()) * matrices + attention)
            + u64::from(shape.sequences()) * width * vocabulary
    }
}

/// The decoder of a name or of the path of a `config.json`: what ends in `.json` is a path.
///
/// # Errors
/// No such decoder, or a file that gives none.
pub fn find(name_or_path: &str) -> Result<Decoder, DecoderError> {
    let path = Path::new(name_or_path);
    if path.extension().is_some_and(|e| e.eq_ignore_ascii_case("json")) {
        return Ok(read_config(path)?.decoder);
    }
    Ok(decoder(name_or_path)?)
}

/// Why a name or path gives no decoder.
#[derive(Debug, thiserror::Error)]
pub enum DecoderError {
    /// No such name.
    #[error(transparent)]
    Name(#[from] ZooError),
    /// The file does not read, or is not supported.
    #[error(transparent)]
    Config(#[from] ConfigError),
}

/// The decoder of a name such as `llama-3.1-8b`, however it is written: `Llama-3.1-8B`,
/// `llama3.1_8b`.
///
/// # Errors
/// No such decoder; the error names the closest one.
pub fn decoder(name: &str) -> Result<Decoder, ZooError> {
    let wanted = super::plain(name);
    if let Some(known) = DECODERS.iter().find(|d| super::plain(&d.name) == wanted) {
        return Ok(known.clone());
    }
    Err(super::unknown(name, ""))
}
