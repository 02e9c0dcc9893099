//! ConvNeXt-T (Liu et al. 2022, arXiv:2201.03545) as torchvision has it.

use super::ModelSpec;
use super::builder::{Builder, Shape, Tensor, conv};
use super::layer::Function;

const STAGES: [[u32; 2]; 4] = [[96, 3], [192, 3], [384, 9], [768, 3]];

pub(super) fn convnext_tiny(name: &str, side: u32) -> ModelSpec {
    let (mut b, x) = Builder::image(side);
    let x = b.conv(x, conv(96, 4).stride(4).bias());
    let mut x = norm(&mut b, x);
    for [width, blocks] in STAGES {
        if width != 96 {
            let y = norm(&mut b, x);
            x = b.conv(y, conv(width, 2).stride(2).bias());
        }
        for _ in 0..blocks {
            x = block(&mut b, x);
        }
    }
    let x = b.adaptive_pool(x, 1).flat();
    let x = b.layer_norm(x);
    let x = b.linear(x, 1000, true);
    b.finish(name, x)
}

/// Layer normalisation over channels: on a copy that has them last.
fn norm(b: &mut Builder, x: Tensor) -> Tensor {
    let (channels, [h, w]) = x.map();
    let y = b.copy(x).as_rows(h * w, channels);
    let y = b.layer_norm(y);
    Tensor { shape: Shape::Map { channels, size: [h, w] }, ..y }
}

fn block(b: &mut Builder, x: Tensor) -> Tensor {
    let (channels, [h, w]) = x.map();
    let y = b.conv(x, conv(channels, 7).pad(3).groups(channels).bias());
    let y = b.copy(y).as_rows(h * w, channels);
    let y = b.layer_norm(y);
    let y = b.linear(y, 4 * channels, true);
    let y = b.apply(Function::Gelu, y);
    let y = b.linear(y, channels, true);
    // A scale per channel.
    b.extra_params(u64::from(channels));
    let y = b.apply(Function::Mul, y);
    let y = Tensor { shape: Shape::Map { channels, size: [h, w] }, ..y };
    b.combine(Function::Add, y, x)
}
