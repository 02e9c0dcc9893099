//! The decoders that ship, by the shapes that their makers publish in `config.json`.

use std::borrow::Cow;

use super::{Decoder, FeedForward};

/// What a plain Llama has: no biases, no norms on heads, an output projection of its own.
const LLAMA: Decoder = Decoder {
    name: Cow::Borrowed("llama"),
    title: Cow::Borrowed("Llama"),
    layers: 32,
    width: 4096,
    heads: 32,
    kv_heads: 8,
    head_dim: 128,
    feed_forward: FeedForward::Gated { inner: 14_336 },
    vocabulary: 128_256,
    tied: false,
    qkv_bias: false,
    o_bias: false,
    qk_norm: false,
    window: None,
    positions: 131_072,
};

/// What Qwen3 has besides: a norm on every head of queries and keys.
const QWEN3: Decoder =
    Decoder { qk_norm: true, vocabulary: 151_936, positions: 40_960, layers: 36, ..LLAMA };

/// Every decoder, in the order in which they are listed to people.
pub static DECODERS: &[Decoder] = &[
    Decoder {
        name: Cow::Borrowed("llama-3.2-1b"),
        title: Cow::Borrowed("Llama 3.2 1B"),
        layers: 16,
        width: 2048,
        head_dim: 64,
        feed_forward: FeedForward::Gated { inner: 8192 },
        tied: true,
        ..LLAMA
    },
    Decoder {
        name: Cow::Borrowed("llama-3.2-3b"),
        title: Cow::Borrowed("Llama 3.2 3B"),
        layers: 28,
        width: 3072,
        heads: 24,
        feed_forward: FeedForward::Gated { inner: 8192 },
        tied: true,
        ..LLAMA
    },
    Decoder { name: Cow::Borrowed("llama-3.1-8b"), title: Cow::Borrowed("Llama 3.1 8B"), ..LLAMA },
    Decoder {
        name: Cow::Borrowed("mistral-7b"),
        title: Cow::Borrowed("Mistral 7B v0.3"),
        vocabulary: 32_768,
        positions: 32_768,
        ..LLAMA
    },
    Decoder {
        name: Cow::Borrowed("qwen2.5-7b"),
        title: Cow::Borrowed("Qwen2.5 7B"),
        layers: 28,
        width: 3584,
        heads: 28,
        kv_heads: 4,
        feed_forward: FeedForward::Gated { inner: 18_944 },
        vocabulary: 152_064,
        qkv_bias: true,
        positions: 32_768,
        ..LLAMA
    },
    Decoder {
        name: Cow::Borrowed("qwen3-4b"),
        title: Cow::Borrowed("Qwen3 4B"),
        width: 2560,
        feed_forward: FeedForward::Gated { inner: 9728 },
        tied: true,
        ..QWEN3
    },
    Decoder {
        name: Cow::Borrowed("qwen3-8b"),
        title: Cow::Borrowed("Qwen3 8B"),
        feed_forward: FeedForward::Gated { inner: 12_288 },
        ..QWEN3
    },
    Decoder {
        name: Cow::Borrowed("qwen3-30b-a3b"),
        title: Cow::Borrowed("Qwen3 30B-A3B, 128 experts"),
        layers: 48,
        width: 2048,
        kv_heads: 4,
        feed_forward: FeedForward::Experts { experts: 128, active: 8, inner: 768 },
        ..QWEN3
    },
];
