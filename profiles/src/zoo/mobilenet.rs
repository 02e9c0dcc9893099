//! MobileNetV2 1.0× (Sandler et al. 2018, arXiv:1801.04381).

use super::ModelSpec;
use super::builder::{Builder, ConvArgs, Tensor, conv};

/// Expansion, output channels, repeats, stride of the first: table 2 of the paper.
const STAGES: [[u32; 4]; 7] = [
    [1, 16, 1, 1],
    [6, 24, 2, 2],
    [6, 32, 3, 2],
    [6, 64, 4, 2],
    [6, 96, 3, 1],
    [6, 160, 3, 2],
    [6, 320, 1, 1],
];

pub(super) fn mobilenet_v2(name: &str, side: u32) -> ModelSpec {
    let (mut b, x) = Builder::image(side);
    let mut x = conv_relu6(&mut b, x, conv(32, 3).stride(2).pad(1));
    for [expansion, out_ch, repeat, stride] in STAGES {
        for i in 0..repeat {
            let stride = if i == 0 { stride } else { 1 };
            x = inverted_residual(&mut b, x, expansion, conv(out_ch, 1).stride(stride));
        }
    }
    let x = conv_relu6(&mut b, x, conv(1280, 1));
    let x = b.adaptive_pool(x, 1).flat();
    let x = b.linear(x, 1000, true);
    b.finish(name, x)
}

/// `to` holds the output channels and the stride of the depthwise convolution.
fn inverted_residual(b: &mut Builder, x: Tensor, expansion: u32, to: ConvArgs) -> Tensor {
    let in_ch = x.channels();
    let hidden = in_ch * expansion;
    let y = if expansion == 1 { x } else { conv_relu6(b, x, conv(hidden, 1)) };
    let y = conv_relu6(b, y, conv(hidden, 3).stride(to.stride).pad(1).groups(hidden));
    let y = b.conv_bn(y, conv(to.out_ch, 1));
    if to.stride == 1 && in_ch == to.out_ch { b.residual(y, x) } else { y }
}

fn conv_relu6(b: &mut Builder, x: Tensor, args: ConvArgs) -> Tensor {
    let x = b.conv_bn(x, args);
    b.relu6(x)
}
