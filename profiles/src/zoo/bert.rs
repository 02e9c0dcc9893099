//! BERT (Devlin et al. 2018, arXiv:1810.04805) and ALBERT (Lan et al. 2019, arXiv:1909.11942)
//! encoders with pooler, as Hugging Face's `bert-*-uncased` and `albert-base-v2` have them.

use super::ModelSpec;
use super::attention::{Heads, Masking, attend, feed_forward, gelu, gelu_new};
use super::builder::{Builder, Tensor};
use super::clip::self_attention;
use super::layer::Function;

/// Positions both models were trained with: the longest sequence.
pub(super) const POSITIONS: u32 = 512;

pub(super) fn bert_base(name: &str, tokens: u32) -> ModelSpec {
    bert(name, tokens, 12, 768)
}

pub(super) fn bert_large(name: &str, tokens: u32) -> ModelSpec {
    bert(name, tokens, 24, 1024)
}

fn bert(name: &str, tokens: u32, layers: u32, width: u32) -> ModelSpec {
    let (mut b, ids) = Builder::tokens(tokens);
    let mut x = embeddings(&mut b, ids, width, [30_522, 2, POSITIONS]);
    for _ in 0..layers {
        x = encoder(&mut b, x, gelu);
    }
    pooler(b, x, name)
}

pub(super) fn albert_base(name: &str, tokens: u32) -> ModelSpec {
    let (mut b, ids) = Builder::tokens(tokens);
    let x = embeddings(&mut b, ids, 128, [30_000, 2, POSITIONS]);
    let mut x = b.linear(x, 768, true);
    for layer in 0..12 {
        // All layers use one set of parameters.
        b.share_parameters(layer > 0);
        x = encoder(&mut b, x, gelu_new);
    }
    b.share_parameters(false);
    pooler(b, x, name)
}

/// BGE large (Xiao et al. 2023, arXiv:2309.07597): BERT large, with the fused attention that current
/// libraries call.
pub(super) fn bge_large(name: &str, tokens: u32) -> ModelSpec {
    let (mut b, ids) = Builder::tokens(tokens);
    let mut x = embeddings(&mut b, ids, 1024, [30_522, 2, POSITIONS]);
    for _ in 0..24 {
        x = fused_encoder(&mut b, x);
    }
    pooler(b, x, name)
}

/// Positions of BGE's multilingual models; two of the table are never used.
pub(super) const LONG_POSITIONS: u32 = 8192;

/// BGE reranker v2 m3 (Chen et al. 2024, arXiv:2402.03216): XLM-R large over a query and a passage,
/// and a score of the first token.
pub(super) fn bge_reranker_v2_m3(name: &str, tokens: u32) -> ModelSpec {
    let (mut b, ids) = Builder::tokens(tokens);
    let mut x = embeddings(&mut b, ids, 1024, [250_002, 1, LONG_POSITIONS + 2]);
    for _ in 0..24 {
        x = fused_encoder(&mut b, x);
    }
    let first = Builder::part(x, super::builder::Shape::Rows { rows: 1, width: 1024 });
    let y = b.linear(first, 1024, true);
    let y = b.apply(Function::Tanh, y);
    let y = b.linear(y, 1, true);
    b.finish(name, y)
}

fn fused_encoder(b: &mut Builder, x: Tensor) -> Tensor {
    let width = x.rows().1;
    let y = self_attention(b, x, 64, true);
    let y = b.combine(Function::Add, y, x);
    let x = b.layer_norm(y);
    let y = feed_forward(b, x, 4 * width, gelu);
    let y = b.combine(Function::Add, y, x);
    b.layer_norm(y)
}

/// Word, segment and position, added and normalised: entries of the three tables.
fn embeddings(b: &mut Builder, ids: Tensor, width: u32, entries: [u32; 3]) -> Tensor {
    let [words, segments, positions] = entries;
    let word = b.embedding(ids, width, words);
    let segment = b.embedding(ids, width, segments);
    let x = b.combine(Function::Add, word, segment);
    let position = b.embedding(ids, width, positions);
    let x = b.combine(Function::Add, x, position);
    b.layer_norm(x)
}

fn encoder(b: &mut Builder, x: Tensor, act: fn(&mut Builder, Tensor) -> Tensor) -> Tensor {
    let (tokens, width) = x.rows();
    let projected = [0; 3].map(|_| b.linear(x, width, true));
    // `matmul` on permuted four-dimensional views makes each operand contiguous.
    let qkv = projected.map(|t| b.copy(t));
    let heads = Heads { heads: width / 64, keys: tokens, masking: Masking::Kernel };
    let y = attend(b, qkv, heads);
    let y = b.linear(y, width, true);
    let y = b.combine(Function::Add, y, x);
    let x = b.layer_norm(y);
    let y = feed_forward(b, x, 4 * width, act);
    let y = b.combine(Function::Add, y, x);
    b.layer_norm(y)
}

/// The first token through a linear layer and tanh.
fn pooler(mut b: Builder, x: Tensor, name: &str) -> ModelSpec {
    let width = x.rows().1;
    let first = Builder::part(x, super::builder::Shape::Rows { rows: 1, width });
    let y = b.linear(first, width, true);
    let y = b.apply(Function::Tanh, y);
    b.finish(name, y)
}
