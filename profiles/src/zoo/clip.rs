//! CLIP ViT-L/14 (Radford et al. 2021, arXiv:2103.00020): embedding of an image. The text tower is
//! loaded beside it, as `CLIPModel` does.

use super::ModelSpec;
use super::attention::{feed_forward, gelu};
use super::builder::{Builder, Shape, Tensor, conv};
use super::layer::Function;

const WIDTH: u32 = 1024;
/// Width of the embedding that images and texts share.
const SHARED: u32 = 768;
/// Twelve layers of width 768 over 77 tokens of 49408, and the projection: not run for an image. The
/// last one is the temperature.
const TEXT_PARAMS: u64 = 123_060_480 + 768 * 768 + 1;

pub(super) fn clip_vit_l_14(name: &str, side: u32) -> ModelSpec {
    let (mut b, x) = Builder::image(side);
    let x = b.conv(x, conv(WIDTH, 14).stride(14));
    let [h, w] = x.map().1;
    let class_token = b.state(1, WIDTH);
    let x = b.concat_rows(&[class_token, x.as_rows(h * w, WIDTH)]);
    let x = b.apply(Function::Add, x);
    let tokens = x.rows().0;
    b.extra_params(u64::from(tokens + 1) * u64::from(WIDTH) + TEXT_PARAMS);
    let mut x = b.layer_norm(x);
    for _ in 0..24 {
        let y = b.layer_norm(x);
        let y = self_attention(&mut b, y, 64, true);
        x = b.combine(Function::Add, x, y);
        let y = b.layer_norm(x);
        let y = feed_forward(&mut b, y, 4 * WIDTH, gelu);
        x = b.combine(Function::Add, x, y);
    }
    let first = Builder::part(x, Shape::Rows { rows: 1, width: WIDTH });
    let x = b.layer_norm(first);
    let x = b.linear(x, SHARED, false);
    b.finish(name, x)
}

/// Queries, keys and values, fused attention, projection: PyTorch's scaled-dot-product attention as
/// current model code calls it.
pub(super) fn self_attention(b: &mut Builder, x: Tensor, head_dim: u32, bias: bool) -> Tensor {
    let (tokens, width) = x.rows();
    let [q, k, v] = [bias; 3].map(|bias| b.linear(x, width, bias));
    let y = b.attention([q, k, v], width / head_dim, tokens);
    b.linear(y, width, bias)
}
