//! Swin Transformer T (Liu et al. 2021, arXiv:2103.14030) as torchvision has it.

use super::ModelSpec;
use super::attention::{feed_forward, gelu};
use super::builder::{Builder, Tensor, conv};
use super::layer::{Function, Matmul};

/// Edge of a window, and elements of a head.
const WINDOW: u32 = 7;
const HEAD: u32 = 32;
/// Blocks of the stages.
const STAGES: [u32; 4] = [2, 2, 6, 2];

pub(super) fn swin_t(name: &str, side: u32) -> ModelSpec {
    let (mut b, x) = Builder::image(side);
    let x = b.conv(x, conv(96, 4).stride(4).bias());
    let (width, [edge, _]) = x.map();
    let x = b.copy(x).as_rows(edge * edge, width);
    let mut x = b.layer_norm(x);
    for (stage, blocks) in STAGES.into_iter().enumerate() {
        if stage > 0 {
            // Two by two places side by side.
            let (rows, width) = x.rows();
            let y = b.copy(x).as_rows(rows / 4, 4 * width);
            let y = b.layer_norm(y);
            x = b.linear(y, 2 * width, false);
        }
        for i in 0..blocks {
            x = block(&mut b, x, i % 2 == 1);
        }
    }
    let x = b.layer_norm(x);
    let (rows, width) = x.rows();
    let edge = rows.isqrt();
    let x = b.copy(x).as_map(width, [edge, edge]);
    let x = b.adaptive_pool(x, 1).flat();
    let x = b.linear(x, 1000, true);
    b.finish(name, x)
}

fn block(b: &mut Builder, x: Tensor, shifted: bool) -> Tensor {
    let (rows, width) = x.rows();
    let (places, heads) = (WINDOW * WINDOW, width / HEAD);
    let windows = rows / places;
    let mut y = b.layer_norm(x);
    if shifted {
        y = b.copy(y);
    }
    let y = b.copy(y);
    let qkv = b.linear(y, 3 * width, true);
    let qkv = b.copy(qkv);
    let batch = heads * windows;
    let scores = Matmul { batch, m: places, n: places, k: HEAD };
    let s = b.matmul(qkv, qkv, scores);
    let s = b.apply(Function::Scale, s);
    // A bias per head and distance, and the mask between parts that the shift brought together.
    b.extra_params(u64::from((2 * WINDOW - 1) * (2 * WINDOW - 1) * heads));
    let mut s = b.apply(Function::Add, s);
    if shifted {
        s = b.apply(Function::Mask, s);
    }
    let s = b.softmax(s);
    let context = Matmul { batch, m: places, n: HEAD, k: places };
    let y = b.matmul(s, qkv, context).as_rows(rows, width);
    let y = b.copy(y);
    let mut y = b.linear(y, width, true);
    y = b.copy(y);
    if shifted {
        y = b.copy(y);
    }
    let x = b.combine(Function::Add, x, y);
    let y = b.layer_norm(x);
    let y = feed_forward(b, y, 4 * width, gelu);
    b.combine(Function::Add, x, y)
}
