//! DenseNet (Huang et al. 2016, arXiv:1608.06993).

use super::ModelSpec;
use super::builder::{Builder, Tensor, conv};

const GROWTH: u32 = 32;

pub(super) fn densenet121(name: &str, side: u32) -> ModelSpec {
    densenet(name, side, [6, 12, 24, 16])
}

pub(super) fn densenet169(name: &str, side: u32) -> ModelSpec {
    densenet(name, side, [6, 12, 32, 32])
}

pub(super) fn densenet201(name: &str, side: u32) -> ModelSpec {
    densenet(name, side, [6, 12, 48, 32])
}

fn densenet(name: &str, side: u32, blocks: [u32; 4]) -> ModelSpec {
    let (mut b, x) = Builder::image(side);
    let x = b.conv_bn_relu(x, conv(64, 7).stride(2).pad(3));
    let mut x = b.max_pool(x, 3, 2, 1);
    for (i, layers) in blocks.into_iter().enumerate() {
        if i > 0 {
            x = bn_relu(&mut b, x);
            let half = x.channels() / 2;
            x = b.conv(x, conv(half, 1));
            x = b.avg_pool(x, 2, 2, 0);
        }
        x = dense_block(&mut b, x, layers);
    }
    let x = bn_relu(&mut b, x);
    let x = b.adaptive_pool(x, 1).flat();
    let x = b.linear(x, 1000, true);
    b.finish(name, x)
}

/// Every layer concatenates what all layers before it made, as the framework does it.
fn dense_block(b: &mut Builder, x: Tensor, layers: u32) -> Tensor {
    let mut features = vec![x];
    for _ in 0..layers {
        let all = b.concat(&features);
        let y = bn_relu(b, all);
        let y = b.conv_bn_relu(y, conv(4 * GROWTH, 1));
        features.push(b.conv(y, conv(GROWTH, 3).pad(1)));
    }
    b.concat(&features)
}

fn bn_relu(b: &mut Builder, x: Tensor) -> Tensor {
    let x = b.batch_norm(x);
    b.relu(x)
}
