//! VGG (Simonyan and Zisserman 2014, arXiv:1409.1556), without batch normalisation.

use super::ModelSpec;
use super::builder::{Builder, conv};

pub(super) fn vgg16(name: &str, side: u32) -> ModelSpec {
    vgg(name, side, [2, 2, 3, 3, 3])
}

pub(super) fn vgg19(name: &str, side: u32) -> ModelSpec {
    vgg(name, side, [2, 2, 4, 4, 4])
}

fn vgg(name: &str, side: u32, repeats: [u32; 5]) -> ModelSpec {
    let (mut b, mut x) = Builder::image(side);
    for (out_ch, repeat) in [64, 128, 256, 512, 512].into_iter().zip(repeats) {
        for _ in 0..repeat {
            x = b.conv(x, conv(out_ch, 3).pad(1).bias());
            x = b.relu(x);
        }
        x = b.max_pool(x, 2, 2, 0);
    }
    let mut x = b.adaptive_pool(x, 7).flat();
    for width in [4096, 4096] {
        x = b.linear(x, width, true);
        x = b.relu(x);
    }
    let x = b.linear(x, 1000, true);
    b.finish(name, x)
}
