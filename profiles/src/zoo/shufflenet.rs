//! ShuffleNet V2 1.0× (Ma et al. 2018, arXiv:1807.11164).

use super::ModelSpec;
use super::builder::{Builder, Shape, Tensor, conv};

pub(super) fn shufflenet_v2_x1_0(name: &str, side: u32) -> ModelSpec {
    let (mut b, x) = Builder::image(side);
    let x = b.conv_bn_relu(x, conv(24, 3).stride(2).pad(1));
    let mut x = b.max_pool(x, 3, 2, 1);
    for (out_ch, repeat) in [(116, 4), (232, 8), (464, 4)] {
        x = down(&mut b, x, out_ch / 2);
        for _ in 1..repeat {
            x = unit(&mut b, x);
        }
    }
    let x = b.conv_bn_relu(x, conv(1024, 1));
    let x = b.adaptive_pool(x, 1).flat();
    let x = b.linear(x, 1000, true);
    b.finish(name, x)
}

/// Halves the size; both branches see all channels.
fn down(b: &mut Builder, x: Tensor, branch: u32) -> Tensor {
    let in_ch = x.channels();
    let left = b.conv_bn(x, conv(in_ch, 3).stride(2).pad(1).groups(in_ch));
    let left = b.conv_bn_relu(left, conv(branch, 1));
    let right = right(b, x, branch, 2);
    let x = b.concat(&[left, right]);
    b.channel_shuffle(x, 2)
}

/// Keeps the size; one half of the channels passes through.
fn unit(b: &mut Builder, x: Tensor) -> Tensor {
    let (channels, size) = x.map();
    let half = Builder::part(x, Shape::Map { channels: channels / 2, size });
    let right = right(b, half, channels / 2, 1);
    let x = b.concat(&[half, right]);
    b.channel_shuffle(x, 2)
}

fn right(b: &mut Builder, x: Tensor, branch: u32, stride: u32) -> Tensor {
    let x = b.conv_bn_relu(x, conv(branch, 1));
    let x = b.conv_bn(x, conv(branch, 3).stride(stride).pad(1).groups(branch));
    b.conv_bn_relu(x, conv(branch, 1))
}
