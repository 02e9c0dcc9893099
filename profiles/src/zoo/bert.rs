//! BERT (Devlin et al. 2018, arXiv:1810.04805) and ALBERT (Lan et al. 2019, arXiv:1909.11942)
//! encoders with pooler, as Hugging Face's `bert-*-uncased` and `albert-base-v2` have them.

use super::ModelSpec;
use super::attention::{Heads, Masking, attend, feed_forward, gelu, gelu_new};
use super::builder::{Builder, Tensor};
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
    let mut x = embeddings(&mut b, ids, width, 30_522);
    for _ in 0..layers {
        x = encoder(&mut b, x, gelu);
    }
    pooler(b, x, name)
}

pub(super) fn albert_base(name: &str, tokens: u32) -> ModelSpec {
    let (mut b, ids) = Builder::tokens(tokens);
    let x = embeddings(&mut b, ids, 128, 30_000);
    let mut x = b.linear(x, 768, true);
    for layer in 0..12 {
        // All layers use one set of parameters.
        b.share_parameters(layer > 0);
        x = encoder(&mut b, x, gelu_new);
    }
    b.share_parameters(false);
    pooler(b, x, name)
}

/// Word, segment and position, added and normalised.
fn embeddings(b: &mut Builder, ids: Tensor, width: u32, vocabulary: u32) -> Tensor {
    let word = b.embedding(ids, width, vocabulary);
    let segment = b.embedding(ids, width, 2);
    let x = b.combine(Function::Add, word, segment);
    let position = b.embedding(ids, width, POSITIONS);
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
