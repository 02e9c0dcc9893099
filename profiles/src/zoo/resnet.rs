//! ResNet (He et al. 2015, arXiv:1512.03385) with torchvision's stride in the 3×3 convolution
//! ("v1.5"), and ResNeXt (Xie et al. 2016, arXiv:1611.05431).

use super::ModelSpec;
use super::builder::{Builder, Tensor, conv};

pub(super) fn resnet18(name: &str, side: u32) -> ModelSpec {
    resnet(name, side, [2, 2, 2, 2], Block::Basic)
}

pub(super) fn resnet50(name: &str, side: u32) -> ModelSpec {
    resnet(name, side, [3, 4, 6, 3], PLAIN)
}

pub(super) fn resnet101(name: &str, side: u32) -> ModelSpec {
    resnet(name, side, [3, 4, 23, 3], PLAIN)
}

pub(super) fn resnet152(name: &str, side: u32) -> ModelSpec {
    resnet(name, side, [3, 8, 36, 3], PLAIN)
}

pub(super) fn resnext101_32x8d(name: &str, side: u32) -> ModelSpec {
    resnet(name, side, [3, 4, 23, 3], Block::Bottleneck { groups: 32, base_width: 8 })
}

#[derive(Clone, Copy)]
enum Block {
    Basic,
    Bottleneck { groups: u32, base_width: u32 },
}

const PLAIN: Block = Block::Bottleneck { groups: 1, base_width: 64 };

fn resnet(name: &str, side: u32, repeats: [u32; 4], kind: Block) -> ModelSpec {
    let (mut b, x) = Builder::image(side);
    let x = b.conv_bn_relu(x, conv(64, 7).stride(2).pad(3));
    let mut x = b.max_pool(x, 3, 2, 1);
    for (stage, repeat) in repeats.into_iter().enumerate() {
        for i in 0..repeat {
            let stride = if stage > 0 && i == 0 { 2 } else { 1 };
            x = block(&mut b, x, kind, 64 << stage, stride);
        }
    }
    let x = b.adaptive_pool(x, 1).flat();
    let x = b.linear(x, 1000, true);
    b.finish(name, x)
}

fn block(b: &mut Builder, x: Tensor, kind: Block, planes: u32, stride: u32) -> Tensor {
    let (y, out_ch) = match kind {
        Block::Basic => {
            let y = b.conv_bn_relu(x, conv(planes, 3).stride(stride).pad(1));
            (b.conv_bn(y, conv(planes, 3).pad(1)), planes)
        }
        Block::Bottleneck { groups, base_width } => {
            let width = planes * base_width / 64 * groups;
            let y = b.conv_bn_relu(x, conv(width, 1));
            let y = b.conv_bn_relu(y, conv(width, 3).stride(stride).pad(1).groups(groups));
            (b.conv_bn(y, conv(4 * planes, 1)), 4 * planes)
        }
    };
    let reshape = stride > 1 || x.channels() != out_ch;
    let skip = if reshape { b.conv_bn(x, conv(out_ch, 1).stride(stride)) } else { x };
    let y = b.residual(y, skip);
    b.relu(y)
}
