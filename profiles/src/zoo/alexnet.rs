//! AlexNet as torchvision has it ("One weird trick", Krizhevsky 2014, arXiv:1404.5997).

use super::ModelSpec;
use super::builder::{Builder, conv};

pub(super) fn alexnet(name: &str, side: u32) -> ModelSpec {
    let (mut b, x) = Builder::image(side);
    let x = b.conv(x, conv(64, 11).stride(4).pad(2).bias());
    let x = b.relu(x);
    let x = b.max_pool(x, 3, 2, 0);
    let x = b.conv(x, conv(192, 5).pad(2).bias());
    let x = b.relu(x);
    let mut x = b.max_pool(x, 3, 2, 0);
    for out_ch in [384, 256, 256] {
        x = b.conv(x, conv(out_ch, 3).pad(1).bias());
        x = b.relu(x);
    }
    let x = b.max_pool(x, 3, 2, 0);
    let mut x = b.adaptive_pool(x, 6).flat();
    for width in [4096, 4096] {
        x = b.linear(x, width, true);
        x = b.relu(x);
    }
    let x = b.linear(x, 1000, true);
    b.finish(name, x)
}
