//! GPT-2 small (Radford et al. 2019) as Hugging Face's `gpt2` has it: the prefill of a prompt, and
//! one decoding step at a given context length.

use super::ModelSpec;
use super::attention::{Heads, Masking, attend, feed_forward, gelu_new};
use super::builder::{Builder, Shape, Tensor};
use super::layer::Function;

const WIDTH: u32 = 768;
const VOCABULARY: u32 = 50_257;
/// Positions the model was trained with: the longest context.
pub(super) const POSITIONS: u32 = 1024;

/// A prompt of `tokens`; logits of the last position alone, as servers compute them.
pub(super) fn gpt2(name: &str, tokens: u32) -> ModelSpec {
    build(name, tokens, tokens)
}

/// One token that sees `context` tokens, itself included; keys and values of the others are
/// cached.
pub(super) fn gpt2_decode(name: &str, context: u32) -> ModelSpec {
    build(name, 1, context)
}

fn build(name: &str, tokens: u32, context: u32) -> ModelSpec {
    let (mut b, ids) = Builder::tokens(tokens);
    let word = b.embedding(ids, WIDTH, VOCABULARY);
    let position = b.embedding(ids, WIDTH, POSITIONS);
    let mut x = b.combine(Function::Add, word, position);
    for _ in 0..12 {
        x = block(&mut b, x, context);
    }
    let x = b.layer_norm(x);
    let last = Builder::part(x, Shape::Rows { rows: 1, width: WIDTH });
    // The output projection is the word embedding again.
    b.share_parameters(true);
    let logits = b.linear(last, VOCABULARY, false);
    b.finish(name, logits)
}

fn block(b: &mut Builder, x: Tensor, context: u32) -> Tensor {
    let tokens = x.rows().0;
    let y = b.layer_norm(x);
    let qkv = b.linear(y, 3 * WIDTH, true);
    let part = Builder::part(qkv, Shape::Rows { rows: tokens, width: WIDTH });
    let [q, k, v] = [part; 3].map(|t| b.copy(t));
    let [k, v] = [k, v].map(|t| with_cache(b, t, context));
    let heads = Heads { heads: 12, keys: context, masking: Masking::Kernel };
    let y = attend(b, [q, k, v], heads);
    let y = b.linear(y, WIDTH, true);
    let x = b.combine(Function::Add, y, x);
    let y = b.layer_norm(x);
    let y = feed_forward(b, y, 4 * WIDTH, gelu_new);
    b.combine(Function::Add, x, y)
}

/// Cached rows and new ones in one tensor: the framework's cache concatenates at every step.
fn with_cache(b: &mut Builder, new: Tensor, context: u32) -> Tensor {
    let tokens = new.rows().0;
    if tokens == context {
        return new;
    }
    let cached = b.state(context - tokens, WIDTH);
    b.concat_rows(&[cached, new])
}
