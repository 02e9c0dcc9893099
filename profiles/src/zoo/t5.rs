//! T5 base (Raffel et al. 2020, arXiv:1910.10683): encoding of a text. The decoder's parameters are
//! loaded beside it.

use super::ModelSpec;
use super::builder::{Builder, Tensor};
use super::layer::{Function, Matmul};

const WIDTH: u32 = 768;
const HEADS: u32 = 12;
const VOCABULARY: u32 = 32_128;
/// Buckets of the relative position bias.
const BUCKETS: u32 = 32;
/// Twelve layers of twice attention and a feed-forward of 3072, three norms each; bias and last norm.
const DECODER_PARAMS: u64 = 12 * (8 * 768 * 768 + 2 * 768 * 3072 + 3 * 768) + 32 * 12 + 768;

pub(super) fn t5_base(name: &str, tokens: u32) -> ModelSpec {
    let (mut b, ids) = Builder::tokens(tokens);
    let mut x = b.embedding(ids, WIDTH, VOCABULARY);
    b.extra_params(DECODER_PARAMS + u64::from(BUCKETS * HEADS));
    for _ in 0..12 {
        let y = norm(&mut b, x);
        let [q, k, v] = [0; 3].map(|_| b.linear(y, WIDTH, false));
        // The bias keeps T5 from fused attention.
        let dim = WIDTH / HEADS;
        let s = b.matmul(q, k, Matmul { batch: HEADS, m: tokens, n: tokens, k: dim });
        let s = b.apply(Function::Add, s);
        let s = b.softmax(s);
        let y = b.matmul(s, v, Matmul { batch: HEADS, m: tokens, n: dim, k: tokens });
        let y = b.copy(y.as_rows(tokens, WIDTH));
        let y = b.linear(y, WIDTH, false);
        x = b.combine(Function::Add, x, y);
        let y = norm(&mut b, x);
        let y = b.linear(y, 4 * WIDTH, false);
        let y = b.relu(y);
        let y = b.linear(y, WIDTH, false);
        x = b.combine(Function::Add, x, y);
    }
    let x = norm(&mut b, x);
    b.finish(name, x)
}

/// RMSNorm: a scale, no shift.
fn norm(b: &mut Builder, x: Tensor) -> Tensor {
    b.share_parameters(true);
    let y = b.layer_norm(x);
    b.share_parameters(false);
    b.extra_params(u64::from(x.rows().1));
    y
}
