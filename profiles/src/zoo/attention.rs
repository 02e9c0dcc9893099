//! What the transformers share: attention and feed-forward, kernel by kernel as eager PyTorch runs
//! them (no fused attention unless the lowering fuses).

use super::builder::{Builder, Tensor};
use super::layer::{Function, Matmul};

/// How scores are masked.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Masking {
    None,
    /// An additive padding mask (BERT) or a causal `where` (GPT-2): one kernel either way.
    Kernel,
}

/// Heads and how many keys each query sees.
#[derive(Clone, Copy)]
pub(super) struct Heads {
    pub(super) heads: u32,
    pub(super) keys: u32,
    pub(super) masking: Masking,
}

/// Softmax(q kᵀ / √d) v, and the copy that puts the heads side by side again.
pub(super) fn attend(b: &mut Builder, [q, k, v]: [Tensor; 3], h: Heads) -> Tensor {
    let (queries, width) = q.rows();
    let d = width / h.heads;
    let scores = Matmul { batch: h.heads, m: queries, n: h.keys, k: d };
    let mut s = b.matmul(q, k, scores);
    s = b.apply(Function::Scale, s);
    if h.masking == Masking::Kernel {
        s = b.apply(Function::Mask, s);
    }
    let s = b.softmax(s);
    let context = Matmul { batch: h.heads, m: queries, n: d, k: h.keys };
    let y = b.matmul(s, v, context).as_rows(queries, width);
    b.copy(y)
}

/// Linear, activation, linear.
pub(super) fn feed_forward(
    b: &mut Builder,
    x: Tensor,
    inner: u32,
    activation: fn(&mut Builder, Tensor) -> Tensor,
) -> Tensor {
    let width = x.rows().1;
    let y = b.linear(x, inner, true);
    let y = activation(b, y);
    b.linear(y, width, true)
}

/// The exact GELU: one kernel.
pub(super) fn gelu(b: &mut Builder, x: Tensor) -> Tensor {
    b.apply(Function::Gelu, x)
}

/// The tanh approximation written out in tensor operations, as Hugging Face's `gelu_new` is:
/// 0.5 x (1 + tanh(√(2/π) (x + 0.044715 x³))), eight kernels.
pub(super) fn gelu_new(b: &mut Builder, x: Tensor) -> Tensor {
    let half = b.apply(Function::Scale, x);
    let y = b.apply(Function::Pow, x);
    let y = b.apply(Function::Scale, y);
    let y = b.combine(Function::Add, x, y);
    let y = b.apply(Function::Scale, y);
    let y = b.apply(Function::Tanh, y);
    let y = b.apply(Function::Add, y);
    b.combine(Function::Mul, half, y)
}
