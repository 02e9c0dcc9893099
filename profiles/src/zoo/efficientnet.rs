//! EfficientNet (Tan and Le 2019, arXiv:1905.11946) as torchvision has it.

use super::ModelSpec;
use super::builder::{Builder, Tensor, conv};
use super::layer::Function;

/// Expansion, kernel, stride, output channels, repeats: table 1 of the paper.
const STAGES: [[u32; 5]; 7] = [
    [1, 3, 1, 16, 1],
    [6, 3, 2, 24, 2],
    [6, 5, 2, 40, 2],
    [6, 3, 2, 80, 3],
    [6, 5, 1, 112, 3],
    [6, 5, 2, 192, 4],
    [6, 3, 1, 320, 1],
];

pub(super) fn efficientnet_b0(name: &str, side: u32) -> ModelSpec {
    efficientnet(name, side, [10, 10])
}

pub(super) fn efficientnet_b4(name: &str, side: u32) -> ModelSpec {
    efficientnet(name, side, [14, 18])
}

/// Width and depth are tenths of those of B0.
fn efficientnet(name: &str, side: u32, [width, depth]: [u32; 2]) -> ModelSpec {
    let (mut b, x) = Builder::image(side);
    let stem = channels(32, width);
    let x = b.conv_bn(x, conv(stem, 3).stride(2).pad(1));
    let mut x = b.silu(x);
    for [expansion, kernel, stride, out_ch, repeats] in STAGES {
        for i in 0..(repeats * depth).div_ceil(10) {
            let stride = if i == 0 { stride } else { 1 };
            x = block(&mut b, x, [expansion, kernel, stride, channels(out_ch, width)]);
        }
    }
    let last = 4 * x.channels();
    let x = b.conv_bn(x, conv(last, 1));
    let x = b.silu(x);
    let x = b.adaptive_pool(x, 1).flat();
    let x = b.linear(x, 1000, true);
    b.finish(name, x)
}

/// The nearest multiple of eight, but no less than nine tenths of what is asked for.
fn channels(nominal: u32, tenths: u32) -> u32 {
    let wanted = nominal * tenths;
    let near = ((wanted + 40) / 80 * 8).max(8);
    if near * 100 < 9 * wanted { near + 8 } else { near }
}

/// An inverted residual with squeeze and excitation.
fn block(b: &mut Builder, x: Tensor, [expansion, kernel, stride, out_ch]: [u32; 4]) -> Tensor {
    let in_ch = x.channels();
    let hidden = in_ch * expansion;
    let mut y = x;
    if expansion != 1 {
        y = b.conv_bn(y, conv(hidden, 1));
        y = b.silu(y);
    }
    y = b.conv_bn(y, conv(hidden, kernel).stride(stride).pad(kernel / 2).groups(hidden));
    y = b.silu(y);
    y = excite(b, y, (in_ch / 4).max(1));
    y = b.conv_bn(y, conv(out_ch, 1));
    if stride == 1 && in_ch == out_ch { b.residual(y, x) } else { y }
}

/// Every channel times a weight that all channels' means decide.
fn excite(b: &mut Builder, x: Tensor, squeezed: u32) -> Tensor {
    let y = b.adaptive_pool(x, 1);
    let y = b.conv(y, conv(squeezed, 1).bias());
    let y = b.silu(y);
    let y = b.conv(y, conv(x.channels(), 1).bias());
    b.apply(Function::Sigmoid, y);
    // The weights are broadcast: next to nothing beside the map.
    b.apply(Function::Mul, x)
}
