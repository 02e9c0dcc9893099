//! Vision Transformer B/16 (Dosovitskiy et al. 2020, arXiv:2010.11929) as torchvision has it.

use super::ModelSpec;
use super::attention::{Heads, Masking, attend, feed_forward, gelu};
use super::builder::{Builder, Shape, Tensor, conv};
use super::layer::{Function, product};

const WIDTH: u32 = 768;

pub(super) fn vit_b_16(name: &str, side: u32) -> ModelSpec {
    let (mut b, x) = Builder::image(side);
    let x = b.conv(x, conv(WIDTH, 16).stride(16).bias());
    let [h, w] = x.map().1;
    let class_token = b.state(1, WIDTH);
    let x = b.concat_rows(&[class_token, x.as_rows(h * w, WIDTH)]);
    let mut x = b.apply(Function::Add, x);
    let tokens = x.rows().0;
    // The class token and the position embedding, one row per token.
    b.extra_params(product(&[tokens + 1, WIDTH]));
    for _ in 0..12 {
        x = block(&mut b, x);
    }
    let x = b.layer_norm(x);
    let first = Builder::part(x, Shape::Rows { rows: 1, width: WIDTH });
    let x = b.linear(first, 1000, true);
    b.finish(name, x)
}

fn block(b: &mut Builder, x: Tensor) -> Tensor {
    let tokens = x.rows().0;
    let y = b.layer_norm(x);
    let qkv = b.linear(y, 3 * WIDTH, true);
    // One transposing copy of the packed projection; q, k and v are views of it.
    let qkv = b.copy(qkv);
    let q = Builder::part(qkv, Shape::Rows { rows: tokens, width: WIDTH });
    let heads = Heads { heads: 12, keys: tokens, masking: Masking::None };
    let y = attend(b, [q, q, q], heads);
    let y = b.linear(y, WIDTH, true);
    let x = b.combine(Function::Add, y, x);
    let y = b.layer_norm(x);
    let y = feed_forward(b, y, 4 * WIDTH, gelu);
    b.combine(Function::Add, x, y)
}
