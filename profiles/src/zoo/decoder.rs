//! Decoder-only language models as a serving engine runs them: not a batch of equal items, but one
//! step after another, each over the new tokens of some prompts and one token of every sequence that
//! is generating.
//!
//! A [`Decoder`] is the architecture. [`Decoder::step`] lists the layers of one step for a
//! [`StepShape`]; [`crate::lower::step`] turns them into kernels, and [`crate::steps::StepLibrary`]
//! keeps them, rounded and shared, for whoever runs many steps.

mod models;
mod step;

use std::borrow::Cow;

pub use models::DECODERS;
pub use step::{Decode, Prefill, Rounding, Segment, Step, StepLayer, StepShape};

use super::ZooError;
use crate::lower::Precision;
use crate::text;
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
    /// RMSNorm on every query and key head (Qwen3).
    pub qk_norm: bool,
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
}

impl Decoder {
    /// Parameters that are stored: a tied output projection once.
    #[must_use]
    pub fn params(&self) -> u64 {
        let tables = if self.tied { 1 } else { 2 };
        let [layers, width, vocabulary] = [self.layers, self.width, self.vocabulary].map(u64::from);
        layers * self.layer_params() + width + tables * vocabulary * width
    }

    /// Parameters that a step of one token reads: not the input embedding, of which it takes a row.
    #[must_use]
    pub fn params_read(&self) -> u64 {
        let [layers, width, vocabulary] = [self.layers, self.width, self.vocabulary].map(u64::from);
        layers * self.layer_params() + width + vocabulary * width
    }

    /// Parameters of the matrices of one layer.
    fn layer_matrices(&self) -> u64 {
        let [width, heads, kv] = [self.width, self.heads, self.kv_heads].map(u64::from);
        let head = u64::from(self.head_dim);
        let attention = 2 * width * heads * head + 2 * width * kv * head;
        let FeedForward::Gated { inner } = self.feed_forward;
        attention + 3 * width * u64::from(inner)
    }

    /// Parameters of one layer: matrices, norms, biases.
    fn layer_params(&self) -> u64 {
        let norms = 2 * u64::from(self.width);
        let head_norms = if self.qk_norm { 2 * u64::from(self.head_dim) } else { 0 };
        let biases = if self.qkv_bias { u64::from(self.qkv_width()) } else { 0 };
        self.layer_matrices() + norms + head_norms + biases
    }

    /// Width of queries, keys and values side by side.
    #[must_use]
    pub fn qkv_width(&self) -> u32 {
        (self.heads + 2 * self.kv_heads) * self.head_dim
    }

    /// Device memory for the parameters.
    #[must_use]
    pub fn weights_bytes(&self, precision: Precision) -> Bytes {
        Bytes(self.params() * precision.bytes())
    }

    /// Key-value cache of one token over all layers.
    #[must_use]
    pub fn kv_bytes_per_token(&self, precision: Precision) -> Bytes {
        let [layers, kv, head] = [self.layers, self.kv_heads, self.head_dim].map(u64::from);
        Bytes(2 * layers * kv * head * precision.bytes())
    }

    /// Device memory for activations of a step of `tokens` tokens, of which `sequences` are sampled
    /// from: the widest point of a layer, or the logits with their copy in FP32 that samplers work on,
    /// whichever is larger. Workspaces of libraries come on top.
    #[must_use]
    pub fn activations_bytes(&self, tokens: u32, sequences: u32, precision: Precision) -> Bytes {
        let [width, vocabulary] = [self.width, self.vocabulary].map(u64::from);
        let FeedForward::Gated { inner } = self.feed_forward;
        // The residual stream and the normalised input stay while the layer works.
        let attention = u64::from(self.qkv_width()) + u64::from(self.heads * self.head_dim);
        let feed_forward = 3 * u64::from(inner);
        let layer =
            u64::from(tokens) * (2 * width + attention.max(feed_forward)) * precision.bytes();
        let logits = u64::from(sequences) * vocabulary * (precision.bytes() + 2 * 4);
        Bytes(layer.max(logits))
    }

    /// Multiply-accumulates of a step: matrices for every token, the output projection for every
    /// sequence, and the two products of attention for every key that a query sees.
    #[must_use]
    pub fn macs(&self, shape: &StepShape) -> u64 {
        let [layers, width, vocabulary] = [self.layers, self.width, self.vocabulary].map(u64::from);
        let seen = shape.prefill.seen + shape.decode.context;
        let attention = 2 * seen * u64::from(self.heads) * u64::from(self.head_dim);
        layers * (u64::from(shape.tokens()) * self.layer_matrices() + attention)
            + u64::from(shape.sequences()) * width * vocabulary
    }
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
    let names = DECODERS.iter().map(|d| &*d.name);
    let closest = text::closest(name, names).unwrap_or(&DECODERS[0].name);
    Err(ZooError::Unknown { name: name.to_owned(), closest })
}
