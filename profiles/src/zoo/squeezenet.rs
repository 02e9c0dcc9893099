//! SqueezeNet 1.1 (Iandola et al. 2016, arXiv:1602.07360, and its authors' later release).

use super::ModelSpec;
use super::builder::{Builder, Tensor, conv};

pub(super) fn squeezenet1_1(name: &str, side: u32) -> ModelSpec {
    let (mut b, x) = Builder::image(side);
    let x = b.conv(x, conv(64, 3).stride(2).bias());
    let mut x = b.relu(x);
    for group in [&[(16, 64), (16, 64)][..], &[(32, 128), (32, 128)]] {
        x = b.max_pool_ceil(x, 3, 2);
        for &(squeeze, expand) in group {
            x = fire(&mut b, x, squeeze, expand);
        }
    }
    x = b.max_pool_ceil(x, 3, 2);
    for (squeeze, expand) in [(48, 192), (48, 192), (64, 256), (64, 256)] {
        x = fire(&mut b, x, squeeze, expand);
    }
    let x = b.conv(x, conv(1000, 1).bias());
    let x = b.relu(x);
    let x = b.adaptive_pool(x, 1).flat();
    b.finish(name, x)
}

fn fire(b: &mut Builder, x: Tensor, squeeze: u32, expand: u32) -> Tensor {
    let x = b.conv(x, conv(squeeze, 1).bias());
    let x = b.relu(x);
    let one = b.conv(x, conv(expand, 1).bias());
    let one = b.relu(one);
    let three = b.conv(x, conv(expand, 3).pad(1).bias());
    let three = b.relu(three);
    b.concat(&[one, three])
}
