//! Whisper large-v3 (Radford et al. 2022, arXiv:2212.04356): encoding of a window of 30 seconds. The
//! decoder's parameters are loaded beside it.

use super::ModelSpec;
use super::attention::{feed_forward, gelu};
use super::builder::{Builder, conv};
use super::layer::Function;

const WIDTH: u32 = 1280;
const LAYERS: u32 = 32;
/// Bands of the mel spectrogram.
const BANDS: u32 = 128;
/// 32 layers with self- and cross-attention, 448 positions, a tied vocabulary of 51866.
const DECODER_PARAMS: u64 = 906_521_600;

/// `frames` of ten milliseconds.
pub(super) fn whisper_large_v3(name: &str, frames: u32) -> ModelSpec {
    let (mut b, x) = Builder::map(BANDS, [1, frames]);
    let x = b.conv(x, conv(WIDTH, 1).window([1, 3]).bias());
    let x = b.apply(Function::Gelu, x);
    let x = b.conv(x, conv(WIDTH, 1).window([1, 3]).stride(2).bias());
    let x = b.apply(Function::Gelu, x);
    let positions = x.map().1[1];
    let x = b.copy(x).as_rows(positions, WIDTH);
    b.extra_params(u64::from(positions) * u64::from(WIDTH) + DECODER_PARAMS);
    let mut x = b.apply(Function::Add, x);
    for _ in 0..LAYERS {
        let y = b.layer_norm(x);
        let q = b.linear(y, WIDTH, true);
        // Keys have no bias.
        let k = b.linear(y, WIDTH, false);
        let v = b.linear(y, WIDTH, true);
        let y = b.attention([q, k, v], WIDTH / 64, positions);
        let y = b.linear(y, WIDTH, true);
        x = b.combine(Function::Add, x, y);
        let y = b.layer_norm(x);
        let y = feed_forward(&mut b, y, 4 * WIDTH, gelu);
        x = b.combine(Function::Add, x, y);
    }
    let x = b.layer_norm(x);
    b.finish(name, x)
}
