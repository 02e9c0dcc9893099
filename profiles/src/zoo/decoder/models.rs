//! The decoders that ship, by the shapes that their makers publish in `config.json`.

use std::borrow::Cow;

use super::{Decoder, FeedForward};

/// What a plain Llama has: no biases, no norms on heads, an output projection of its own.
const LLAMA: Decoder = Decoder {
    name: Cow::Borrowed("llama"),
    title: Cow::Borrowed("Llama"),
    layers: 0,
    width: 0,
    heads: 0,
    kv_heads: 0,
    head_dim: 0,
    feed_forward: FeedForward::Gated { inner: 0 },
    vocabulary: 0,
    tied: false,
    qkv_bias: false,
    qk_norm: false,
    positions: 0,
};

/// Every decoder, in the order in which they are listed to people.
pub static DECODERS: &[Decoder] = &[Decoder {
    name: Cow::Borrowed("llama-3.1-8b"),
    title: Cow::Borrowed("Llama 3.1 8B"),
    layers: 32,
    width: 4096,
    heads: 32,
    kv_heads: 8,
    head_dim: 128,
    feed_forward: FeedForward::Gated { inner: 14_336 },
    vocabulary: 128_256,
    positions: 131_072,
    ..LLAMA
}];
