//! YOLOv8 detection (Jocher et al. 2023) as `ultralytics/cfg/models/v8/yolov8.yaml` has it.

use super::ModelSpec;
use super::builder::{Builder, ConvArgs, Shape, Tensor, conv};
use super::layer::Function;

/// Depth and width multiples in percent, and the most channels: `scales` of the file.
struct Scale {
    depth: u32,
    width: u32,
    most: u32,
}

/// Classes of COCO, and bins of a box's edge.
const CLASSES: u32 = 80;
const BINS: u32 = 16;

pub(super) fn yolov8n(name: &str, side: u32) -> ModelSpec {
    yolo(name, side, &Scale { depth: 33, width: 25, most: 1024 })
}

pub(super) fn yolov8m(name: &str, side: u32) -> ModelSpec {
    yolo(name, side, &Scale { depth: 67, width: 75, most: 768 })
}

pub(super) fn yolov8x(name: &str, side: u32) -> ModelSpec {
    yolo(name, side, &Scale { depth: 100, width: 125, most: 512 })
}

impl Scale {
    /// Channels, in multiples of eight.
    fn channels(&self, nominal: u32) -> u32 {
        (nominal.min(self.most) * self.width).div_ceil(100).next_multiple_of(8)
    }

    /// Repeats of a block, at least one.
    fn repeats(&self, nominal: u32) -> u32 {
        ((nominal * self.depth + 50) / 100).max(1)
    }
}

fn yolo(name: &str, side: u32, s: &Scale) -> ModelSpec {
    let (mut b, x) = Builder::image(side);
    let [c64, c128, c256, c512, c1024] = [64, 128, 256, 512, 1024].map(|c| s.channels(c));
    let [three, six] = [3, 6].map(|n| s.repeats(n));
    let half = |c: u32| conv(c, 3).stride(2).pad(1);
    let x = conv_silu(&mut b, x, half(c64));
    let x = conv_silu(&mut b, x, half(c128));
    let x = c2f(&mut b, x, c128, three, true);
    let x = conv_silu(&mut b, x, half(c256));
    let p3 = c2f(&mut b, x, c256, six, true);
    let x = conv_silu(&mut b, p3, half(c512));
    let p4 = c2f(&mut b, x, c512, six, true);
    let x = conv_silu(&mut b, p4, half(c1024));
    let x = c2f(&mut b, x, c1024, three, true);
    let p5 = pyramid(&mut b, x, c1024);
    let x = b.upsample(p5);
    let x = b.concat(&[x, p4]);
    let top = c2f(&mut b, x, c512, three, false);
    let x = b.upsample(top);
    let x = b.concat(&[x, p3]);
    let small = c2f(&mut b, x, c256, three, false);
    let x = conv_silu(&mut b, small, half(c256));
    let x = b.concat(&[x, top]);
    let medium = c2f(&mut b, x, c512, three, false);
    let x = conv_silu(&mut b, medium, half(c512));
    let x = b.concat(&[x, p5]);
    let large = c2f(&mut b, x, c1024, three, false);
    let x = detect(&mut b, [small, medium, large]);
    b.finish(name, x)
}

/// Convolution, batch normalisation, SiLU.
fn conv_silu(b: &mut Builder, x: Tensor, args: ConvArgs) -> Tensor {
    let x = b.conv_bn(x, args);
    b.silu(x)
}

/// A cross-stage block: half of the channels go through bottlenecks, every result is kept.
fn c2f(b: &mut Builder, x: Tensor, out_ch: u32, repeats: u32, shortcut: bool) -> Tensor {
    let half = out_ch / 2;
    let x = conv_silu(b, x, conv(2 * half, 1));
    let size = x.map().1;
    let part = |x: Tensor| Builder::part(x, Shape::Map { channels: half, size });
    let mut parts = vec![part(x), part(x)];
    let mut y = part(x);
    for _ in 0..repeats {
        let z = conv_silu(b, y, conv(half, 3).pad(1));
        let z = conv_silu(b, z, conv(half, 3).pad(1));
        y = if shortcut { b.combine(Function::Add, y, z) } else { z };
        parts.push(y);
    }
    let x = b.concat(&parts);
    conv_silu(b, x, conv(out_ch, 1))
}

/// Three pools of one window behind one another, side by side.
fn pyramid(b: &mut Builder, x: Tensor, out_ch: u32) -> Tensor {
    let mut parts = vec![conv_silu(b, x, conv(x.channels() / 2, 1))];
    for i in 0..3 {
        let pooled = b.max_pool(parts[i], 5, 1, 2);
        parts.push(pooled);
    }
    let x = b.concat(&parts);
    conv_silu(b, x, conv(out_ch, 1))
}

/// Boxes, as a distribution over bins, and classes at every place of three maps.
fn detect(b: &mut Builder, maps: [Tensor; 3]) -> Tensor {
    let first = maps[0].channels();
    let [by_box, by_class] = [(first / 4).max(4 * BINS), first.max(CLASSES.min(100))];
    let mut boxes = vec![];
    let mut classes = vec![];
    for x in maps {
        for (through, to, all) in
            [(by_box, 4 * BINS, &mut boxes), (by_class, CLASSES, &mut classes)]
        {
            let y = conv_silu(b, x, conv(through, 3).pad(1));
            let y = conv_silu(b, y, conv(through, 3).pad(1));
            let y = b.conv(y, conv(to, 1).bias());
            let [h, w] = y.map().1;
            all.push(y.as_rows(h * w, to));
        }
    }
    let boxes = b.concat_rows(&boxes);
    let places = boxes.rows().0;
    let weights = b.softmax(boxes.as_rows(4 * places, BINS));
    let weights = Tensor { shape: Shape::Map { channels: BINS, size: [4, places] }, ..weights };
    // The expected bin: a convolution whose weights are the bins' numbers.
    let edges = b.conv(weights, conv(1, 1)).as_rows(places, 4);
    let classes = b.concat_rows(&classes);
    let classes = b.apply(Function::Sigmoid, classes);
    let edges = edges.as_rows(places * 4, 1);
    let classes = classes.as_rows(places * CLASSES, 1);
    b.concat_rows(&[edges, classes])
}
