//! Inception v3 (Szegedy et al. 2015, arXiv:1512.00567) as torchvision has it.

use super::ModelSpec;
use super::builder::{Builder, Tensor, conv};

pub(super) fn inception_v3(name: &str, side: u32) -> ModelSpec {
    let (mut b, x) = Builder::image(side);
    let x = b.conv_bn_relu(x, conv(32, 3).stride(2));
    let x = b.conv_bn_relu(x, conv(32, 3));
    let x = b.conv_bn_relu(x, conv(64, 3).pad(1));
    let x = b.max_pool(x, 3, 2, 0);
    let x = b.conv_bn_relu(x, conv(80, 1));
    let x = b.conv_bn_relu(x, conv(192, 3));
    let mut x = b.max_pool(x, 3, 2, 0);
    for pool_ch in [32, 64, 64] {
        x = block_a(&mut b, x, pool_ch);
    }
    x = block_b(&mut b, x);
    for width in [128, 160, 160, 192] {
        x = block_c(&mut b, x, width);
    }
    // The auxiliary classifier is loaded but runs in training only: two convolutions with batch
    // normalisation (768 to 128, 1×1; 128 to 768, 5×5) and a classifier.
    b.extra_params(768 * 128 + 2 * 128 + 128 * 768 * 25 + 2 * 768 + 768 * 1000 + 1000);
    x = block_d(&mut b, x);
    for _ in 0..2 {
        x = block_e(&mut b, x);
    }
    let x = b.adaptive_pool(x, 1).flat();
    let x = b.linear(x, 1000, true);
    b.finish(name, x)
}

/// Average pool, then 1×1.
fn pooled(b: &mut Builder, x: Tensor, out_ch: u32) -> Tensor {
    let x = b.avg_pool(x, 3, 1, 1);
    b.conv_bn_relu(x, conv(out_ch, 1))
}

/// A chain of stride-1 convolutions that keep the size.
fn chain(b: &mut Builder, mut x: Tensor, steps: &[(u32, [u32; 2])]) -> Tensor {
    for &(out_ch, window) in steps {
        x = b.conv_bn_relu(x, conv(out_ch, 1).window(window));
    }
    x
}

fn block_a(b: &mut Builder, x: Tensor, pool_ch: u32) -> Tensor {
    let one = chain(b, x, &[(64, [1, 1])]);
    let five = chain(b, x, &[(48, [1, 1]), (64, [5, 5])]);
    let double = chain(b, x, &[(64, [1, 1]), (96, [3, 3]), (96, [3, 3])]);
    let pool = pooled(b, x, pool_ch);
    b.concat(&[one, five, double, pool])
}

fn block_b(b: &mut Builder, x: Tensor) -> Tensor {
    let three = b.conv_bn_relu(x, conv(384, 3).stride(2));
    let double = chain(b, x, &[(64, [1, 1]), (96, [3, 3])]);
    let double = b.conv_bn_relu(double, conv(96, 3).stride(2));
    let pool = b.max_pool(x, 3, 2, 0);
    b.concat(&[three, double, pool])
}

fn block_c(b: &mut Builder, x: Tensor, width: u32) -> Tensor {
    let (row, column) = ([1, 7], [7, 1]);
    let one = chain(b, x, &[(192, [1, 1])]);
    let seven = chain(b, x, &[(width, [1, 1]), (width, row), (192, column)]);
    let steps = [(width, [1, 1]), (width, column), (width, row), (width, column), (192, row)];
    let double = chain(b, x, &steps);
    let pool = pooled(b, x, 192);
    b.concat(&[one, seven, double, pool])
}

fn block_d(b: &mut Builder, x: Tensor) -> Tensor {
    let three = chain(b, x, &[(192, [1, 1])]);
    let three = b.conv_bn_relu(three, conv(320, 3).stride(2));
    let seven = chain(b, x, &[(192, [1, 1]), (192, [1, 7]), (192, [7, 1])]);
    let seven = b.conv_bn_relu(seven, conv(192, 3).stride(2));
    let pool = b.max_pool(x, 3, 2, 0);
    b.concat(&[three, seven, pool])
}

fn block_e(b: &mut Builder, x: Tensor) -> Tensor {
    let one = chain(b, x, &[(320, [1, 1])]);
    let three = chain(b, x, &[(384, [1, 1])]);
    let three = split(b, three);
    let double = chain(b, x, &[(448, [1, 1]), (384, [3, 3])]);
    let double = split(b, double);
    let pool = pooled(b, x, 192);
    b.concat(&[one, three, double, pool])
}

/// 1×3 and 3×1 side by side.
fn split(b: &mut Builder, x: Tensor) -> Tensor {
    let row = chain(b, x, &[(384, [1, 3])]);
    let column = chain(b, x, &[(384, [3, 1])]);
    b.concat(&[row, column])
}
