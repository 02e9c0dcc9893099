//! The U-Net of Stable Diffusion XL (Podell et al. 2023, arXiv:2307.01952): one denoising step of one
//! latent, as `UNet2DConditionModel` has it. Guidance doubles the batch.

use super::ModelSpec;
use super::builder::{Builder, Shape, Tensor, conv};
use super::layer::Function;

/// Channels of the three levels, and transformer blocks at each place of attention.
const LEVELS: [[u32; 2]; 3] = [[320, 0], [640, 2], [1280, 10]];
/// Width of the time embedding.
const TIME: u32 = 1280;
/// Tokens of the prompt, and their width.
const PROMPT: [u32; 2] = [77, 2048];
/// Pooled prompt and six sizes, each embedded in 256.
const ADDED: u32 = 1280 + 6 * 256;
/// Elements of a head.
const HEAD: u32 = 64;
/// Pixels per latent in height and width.
const PIXELS: u32 = 8;

struct Net {
    b: Builder,
    time: Tensor,
    prompt: Tensor,
}

pub(super) fn sdxl_unet(name: &str, side: u32) -> ModelSpec {
    let edge = side / PIXELS;
    let (mut b, latent) = Builder::map(4, [edge, edge]);
    let prompt = b.state(PROMPT[0], PROMPT[1]);
    let steps = b.state(1, LEVELS[0][0]);
    let added = b.state(1, ADDED);
    let [steps, added] = [steps, added].map(|x| {
        let x = b.linear(x, TIME, true);
        let x = b.silu(x);
        b.linear(x, TIME, true)
    });
    let time = b.combine(Function::Add, steps, added);
    let mut net = Net { b, time, prompt };
    let mut x = net.b.conv(latent, conv(LEVELS[0][0], 3).pad(1).bias());
    let mut skips = vec![x];
    for (level, [channels, depth]) in LEVELS.into_iter().enumerate() {
        for _ in 0..2 {
            x = net.residual(x, channels);
            x = net.transformer(x, depth);
            skips.push(x);
        }
        if level + 1 < LEVELS.len() {
            x = net.b.conv(x, conv(channels, 3).stride(2).pad(1).bias());
            skips.push(x);
        }
    }
    let [channels, depth] = LEVELS[2];
    x = net.residual(x, channels);
    x = net.transformer(x, depth);
    x = net.residual(x, channels);
    for (level, [channels, depth]) in LEVELS.into_iter().enumerate().rev() {
        for _ in 0..3 {
            let skip = skips.pop().expect("as many as were pushed on the way down");
            x = net.b.concat(&[x, skip]);
            x = net.residual(x, channels);
            x = net.transformer(x, depth);
        }
        if level > 0 {
            x = net.b.upsample(x);
            x = net.b.conv(x, conv(channels, 3).pad(1).bias());
        }
    }
    let x = net.b.group_norm(x);
    let x = net.b.silu(x);
    let x = net.b.conv(x, conv(4, 3).pad(1).bias());
    net.b.finish(name, x)
}

impl Net {
    /// Two convolutions with the time embedding added in between, beside a shortcut.
    fn residual(&mut self, x: Tensor, channels: u32) -> Tensor {
        let b = &mut self.b;
        let y = b.group_norm(x);
        let y = b.silu(y);
        let y = b.conv(y, conv(channels, 3).pad(1).bias());
        let time = b.silu(self.time);
        b.linear(time, channels, true);
        // Broadcast over the map.
        let y = b.apply(Function::Add, y);
        let y = b.group_norm(y);
        let y = b.silu(y);
        let y = b.conv(y, conv(channels, 3).pad(1).bias());
        let x = if x.channels() == channels { x } else { b.conv(x, conv(channels, 1).bias()) };
        b.combine(Function::Add, x, y)
    }

    /// Blocks of self-attention, attention to the prompt and a gated feed-forward.
    fn transformer(&mut self, x: Tensor, depth: u32) -> Tensor {
        if depth == 0 {
            return x;
        }
        let (channels, [h, w]) = x.map();
        let y = self.b.group_norm(x);
        let y = self.b.copy(y).as_rows(h * w, channels);
        let mut y = self.b.linear(y, channels, true);
        for _ in 0..depth {
            for context in [None, Some(self.prompt)] {
                let z = self.b.layer_norm(y);
                let z = self.attention(z, context.unwrap_or(z));
                y = self.b.combine(Function::Add, y, z);
            }
            let z = self.b.layer_norm(y);
            let z = self.b.linear(z, 8 * channels, true);
            let gate = Builder::part(z, Shape::Rows { rows: h * w, width: 4 * channels });
            let gated = self.b.apply(Function::Gelu, gate);
            let z = self.b.combine(Function::Mul, gated, gate);
            let z = self.b.linear(z, channels, true);
            y = self.b.combine(Function::Add, y, z);
        }
        let y = self.b.linear(y, channels, true);
        let y = self.b.copy(y);
        let y = Tensor { shape: Shape::Map { channels, size: [h, w] }, ..y };
        self.b.combine(Function::Add, x, y)
    }

    fn attention(&mut self, x: Tensor, context: Tensor) -> Tensor {
        let width = x.rows().1;
        let q = self.b.linear(x, width, false);
        let [k, v] = [0; 2].map(|_| self.b.linear(context, width, false));
        let y = self.b.attention([q, k, v], width / HEAD, context.rows().0);
        self.b.linear(y, width, true)
    }
}
