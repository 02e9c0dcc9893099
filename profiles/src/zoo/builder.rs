//! Builds layer lists the way a framework's forward function reads.

use super::layer::{Attention, Conv, Function, Layer, Linear, Matmul, Pool, PoolKind, product};
use super::{ModelSpec, Node};

/// The shape of one item of a tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// Channels, height, width.
    Map { channels: u32, size: [u32; 2] },
    /// Rows of equal width.
    Rows { rows: u32, width: u32 },
}

/// A tensor: views of the same data share the index.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tensor {
    pub(super) id: usize,
    pub(super) shape: Shape,
}

impl Tensor {
    pub(super) fn elements(self) -> u64 {
        match self.shape {
            Shape::Map { channels, size } => product(&[channels, size[0], size[1]]),
            Shape::Rows { rows, width } => product(&[rows, width]),
        }
    }

    pub(super) fn map(self) -> (u32, [u32; 2]) {
        match self.shape {
            Shape::Map { channels, size } => (channels, size),
            Shape::Rows { .. } => panic!("a zoo model uses rows as a feature map"),
        }
    }

    pub(super) fn rows(self) -> (u32, u32) {
        match self.shape {
            Shape::Rows { rows, width } => (rows, width),
            Shape::Map { .. } => panic!("a zoo model uses a feature map as rows"),
        }
    }

    pub(super) fn channels(self) -> u32 {
        self.map().0
    }

    /// The same data seen as rows (flatten, reshape, transpose without a copy).
    pub(super) fn as_rows(self, rows: u32, width: u32) -> Self {
        debug_assert_eq!(self.elements(), product(&[rows, width]));
        Self { shape: Shape::Rows { rows, width }, ..self }
    }

    /// The same data seen as a feature map.
    pub(super) fn as_map(self, channels: u32, size: [u32; 2]) -> Self {
        debug_assert_eq!(self.elements(), product(&[channels, size[0], size[1]]));
        Self { shape: Shape::Map { channels, size }, ..self }
    }

    /// One row out of all the data.
    pub(super) fn flat(self) -> Self {
        let width = u32::try_from(self.elements()).expect("one item has fewer than 2^32 elements");
        self.as_rows(1, width)
    }
}

/// A square convolution without bias, stride 1, no padding; change what differs.
#[derive(Clone, Copy)]
pub(super) struct ConvArgs {
    pub(super) out_ch: u32,
    pub(super) kernel: [u32; 2],
    pub(super) stride: u32,
    pub(super) pad: [u32; 2],
    pub(super) groups: u32,
    pub(super) bias: bool,
}

pub(super) fn conv(out_ch: u32, kernel: u32) -> ConvArgs {
    ConvArgs { out_ch, kernel: [kernel; 2], stride: 1, pad: [0; 2], groups: 1, bias: false }
}

impl ConvArgs {
    pub(super) fn stride(self, stride: u32) -> Self {
        Self { stride, ..self }
    }

    pub(super) fn pad(self, pad: u32) -> Self {
        Self { pad: [pad; 2], ..self }
    }

    pub(super) fn groups(self, groups: u32) -> Self {
        Self { groups, ..self }
    }

    pub(super) fn bias(self) -> Self {
        Self { bias: true, ..self }
    }

    /// A window of `kernel` with padding that keeps the size.
    pub(super) fn window(self, kernel: [u32; 2]) -> Self {
        Self { kernel, pad: kernel.map(|k| k / 2), ..self }
    }
}

/// A model under construction.
pub(super) struct Builder {
    nodes: Vec<Node>,
    /// Elements of each tensor, and which buffer it lives in (its own, or its input's if the
    /// framework computes in place).
    elements: Vec<u64>,
    storage: Vec<usize>,
    /// Buffers that live from the first to the last layer (a key-value cache).
    kept: Vec<usize>,
    params: u64,
    sharing: bool,
    input: u64,
    /// Bytes of one input element; `None`: as wide as the precision.
    input_bytes: Option<u64>,
}

impl Builder {
    /// Starts with an image.
    pub(super) fn image(side: u32) -> (Self, Tensor) {
        Self::map(3, [side; 2])
    }

    /// Starts with a feature map.
    pub(super) fn map(channels: u32, size: [u32; 2]) -> (Self, Tensor) {
        let mut b = Self::empty();
        let shape = Shape::Map { channels, size };
        let id = b.tensor(product(&[channels, size[0], size[1]]), None);
        b.input = b.elements[id];
        (b, Tensor { id, shape })
    }

    /// Starts with token ids of 8 bytes.
    pub(super) fn tokens(length: u32) -> (Self, Tensor) {
        let mut b = Self::empty();
        let id = b.tensor(u64::from(length), None);
        b.input = u64::from(length);
        b.input_bytes = Some(8);
        (b, Tensor { id, shape: Shape::Rows { rows: length, width: 1 } })
    }

    fn empty() -> Self {
        Self {
            nodes: Vec::new(),
            elements: Vec::new(),
            storage: Vec::new(),
            kept: Vec::new(),
            params: 0,
            sharing: false,
            input: 0,
            input_bytes: None,
        }
    }

    fn tensor(&mut self, elements: u64, in_place_of: Option<usize>) -> usize {
        let id = self.elements.len();
        self.elements.push(elements);
        self.storage.push(in_place_of.map_or(id, |of| self.storage[of]));
        id
    }

    fn push(&mut self, layer: Layer, inputs: &[Tensor], shape: Shape, in_place: bool) -> Tensor {
        let id = self.tensor(layer.output_elements(), in_place.then(|| inputs[0].id));
        if !self.sharing {
            self.params += layer.params();
        }
        let inputs = inputs.iter().map(|t| t.id).collect();
        self.nodes.push(Node { layer, inputs, output: id, in_place });
        Tensor { id, shape }
    }

    /// Layers from here on use parameters that are counted already (or no longer).
    pub(super) fn share_parameters(&mut self, sharing: bool) {
        self.sharing = sharing;
    }

    /// Parameters beside those of the layers that run.
    pub(super) fn extra_params(&mut self, params: u64) {
        self.params += params;
    }

    /// A tensor that lives as long as the model (a key-value cache).
    pub(super) fn state(&mut self, rows: u32, width: u32) -> Tensor {
        let id = self.tensor(product(&[rows, width]), None);
        self.kept.push(id);
        Tensor { id, shape: Shape::Rows { rows, width } }
    }

    pub(super) fn conv(&mut self, x: Tensor, a: ConvArgs) -> Tensor {
        let (in_ch, input) = x.map();
        let layer = Conv {
            in_ch,
            out_ch: a.out_ch,
            kernel: a.kernel,
            stride: [a.stride; 2],
            pad: a.pad,
            dilation: 1,
            groups: a.groups,
            input,
            bias: a.bias,
        };
        let shape = Shape::Map { channels: a.out_ch, size: layer.output() };
        self.push(Layer::Conv(layer), &[x], shape, false)
    }

    pub(super) fn batch_norm(&mut self, x: Tensor) -> Tensor {
        let (channels, [h, w]) = x.map();
        self.push(Layer::BatchNorm { channels, pixels: h * w }, &[x], x.shape, false)
    }

    /// Convolution, batch normalisation, ReLU.
    pub(super) fn conv_bn_relu(&mut self, x: Tensor, a: ConvArgs) -> Tensor {
        let x = self.conv_bn(x, a);
        self.relu(x)
    }

    pub(super) fn conv_bn(&mut self, x: Tensor, a: ConvArgs) -> Tensor {
        let x = self.conv(x, a);
        self.batch_norm(x)
    }

    pub(super) fn relu(&mut self, x: Tensor) -> Tensor {
        self.unary(Function::Relu, x, true)
    }

    pub(super) fn relu6(&mut self, x: Tensor) -> Tensor {
        self.unary(Function::Relu6, x, true)
    }

    pub(super) fn silu(&mut self, x: Tensor) -> Tensor {
        self.unary(Function::Silu, x, true)
    }

    /// A pointwise function that allocates its result.
    pub(super) fn apply(&mut self, function: Function, x: Tensor) -> Tensor {
        self.unary(function, x, false)
    }

    fn unary(&mut self, function: Function, x: Tensor, in_place: bool) -> Tensor {
        let layer = Layer::Pointwise { function, elements: x.elements(), inputs: 1 };
        self.push(layer, &[x], x.shape, in_place)
    }

    /// Two tensors of equal size.
    pub(super) fn combine(&mut self, function: Function, x: Tensor, y: Tensor) -> Tensor {
        debug_assert_eq!(x.elements(), y.elements());
        let layer = Layer::Pointwise { function, elements: x.elements(), inputs: 2 };
        self.push(layer, &[x, y], x.shape, false)
    }

    /// A residual connection, accumulated in place.
    pub(super) fn residual(&mut self, x: Tensor, skip: Tensor) -> Tensor {
        let layer = Layer::Pointwise { function: Function::Add, elements: x.elements(), inputs: 2 };
        self.push(layer, &[x, skip], x.shape, true)
    }

    pub(super) fn max_pool(&mut self, x: Tensor, kernel: u32, stride: u32, pad: u32) -> Tensor {
        self.pool(x, PoolKind::Max, [kernel, stride, pad], false)
    }

    pub(super) fn max_pool_ceil(&mut self, x: Tensor, kernel: u32, stride: u32) -> Tensor {
        self.pool(x, PoolKind::Max, [kernel, stride, 0], true)
    }

    pub(super) fn avg_pool(&mut self, x: Tensor, kernel: u32, stride: u32, pad: u32) -> Tensor {
        self.pool(x, PoolKind::Average, [kernel, stride, pad], false)
    }

    fn pool(&mut self, x: Tensor, kind: PoolKind, window: [u32; 3], ceil: bool) -> Tensor {
        let (channels, input) = x.map();
        let [kernel, stride, pad] = window;
        let layer = Pool { kind, channels, input, kernel, stride, pad, ceil };
        let shape = Shape::Map { channels, size: layer.output() };
        self.push(Layer::Pool(layer), &[x], shape, false)
    }

    pub(super) fn adaptive_pool(&mut self, x: Tensor, side: u32) -> Tensor {
        let (channels, input) = x.map();
        let output = [side; 2];
        let layer = Layer::AdaptiveAvgPool { channels, input, output };
        self.push(layer, &[x], Shape::Map { channels, size: output }, false)
    }

    pub(super) fn linear(&mut self, x: Tensor, out_features: u32, bias: bool) -> Tensor {
        let (rows, in_features) = x.rows();
        let layer = Layer::Linear(Linear { rows, in_features, out_features, bias });
        self.push(layer, &[x], Shape::Rows { rows, width: out_features }, false)
    }

    pub(super) fn layer_norm(&mut self, x: Tensor) -> Tensor {
        let (rows, width) = x.rows();
        self.push(Layer::LayerNorm { rows, width }, &[x], x.shape, false)
    }

    pub(super) fn softmax(&mut self, x: Tensor) -> Tensor {
        let (rows, width) = x.rows();
        self.push(Layer::Softmax { rows, width }, &[x], x.shape, false)
    }

    pub(super) fn embedding(&mut self, ids: Tensor, width: u32, entries: u32) -> Tensor {
        let rows = ids.rows().0;
        let shape = Shape::Rows { rows, width };
        self.push(Layer::Embedding { rows, width, entries }, &[ids], shape, false)
    }

    /// Products of activations; the result is seen as `batch * m` rows.
    pub(super) fn matmul(&mut self, x: Tensor, y: Tensor, layer: Matmul) -> Tensor {
        let shape = Shape::Rows { rows: layer.batch * layer.m, width: layer.n };
        self.push(Layer::Matmul(layer), &[x, y], shape, false)
    }

    /// Attention in one kernel; the result has the queries' width.
    pub(super) fn attention(&mut self, qkv: [Tensor; 3], heads: u32, keys: u32) -> Tensor {
        let (queries, width) = qkv[0].rows();
        let layer = Attention { heads, queries, keys, head_dim: width / heads };
        self.push(Layer::Attention(layer), &qkv, qkv[0].shape, false)
    }

    /// Normalisation over groups of channels: their statistics, then scale and shift of every channel.
    pub(super) fn group_norm(&mut self, x: Tensor) -> Tensor {
        self.adaptive_pool(x, 1);
        self.batch_norm(x)
    }

    /// Every pixel four times, as nearest-neighbour upsampling by two writes it.
    pub(super) fn upsample(&mut self, x: Tensor) -> Tensor {
        let (channels, [h, w]) = x.map();
        self.concat(&[x; 4]).as_map(channels, [2 * h, 2 * w])
    }

    /// Concatenation along the channels.
    pub(super) fn concat(&mut self, parts: &[Tensor]) -> Tensor {
        let channels = parts.iter().map(|t| t.channels()).sum();
        let size = parts[0].map().1;
        let layer = Layer::Concat { parts: parts.iter().map(|t| t.elements()).collect() };
        self.push(layer, parts, Shape::Map { channels, size }, false)
    }

    /// Concatenation along the rows.
    pub(super) fn concat_rows(&mut self, parts: &[Tensor]) -> Tensor {
        let rows = parts.iter().map(|t| t.rows().0).sum();
        let width = parts[0].rows().1;
        let layer = Layer::Concat { parts: parts.iter().map(|t| t.elements()).collect() };
        self.push(layer, parts, Shape::Rows { rows, width }, false)
    }

    pub(super) fn channel_shuffle(&mut self, x: Tensor, groups: u32) -> Tensor {
        let (channels, [h, w]) = x.map();
        let layer = Layer::ChannelShuffle { channels, groups, pixels: h * w };
        self.push(layer, &[x], x.shape, false)
    }

    /// A contiguous copy of a permuted view.
    pub(super) fn copy(&mut self, x: Tensor) -> Tensor {
        self.push(Layer::Copy { elements: x.elements() }, &[x], x.shape, false)
    }

    /// A view of a part of a tensor: the same data as far as lifetimes go.
    pub(super) fn part(x: Tensor, shape: Shape) -> Tensor {
        Tensor { shape, ..x }
    }

    pub(super) fn finish(self, name: &str, output: Tensor) -> ModelSpec {
        let peak = self.peak_live(output.id);
        ModelSpec {
            name: name.to_owned(),
            params: self.params,
            input_elements: self.input,
            input_element_bytes: self.input_bytes,
            output_elements: output.elements(),
            peak_live_elements: peak,
            nodes: self.nodes,
        }
    }

    /// The most activation elements alive at once, when every buffer is freed after its last use.
    fn peak_live(&self, output: usize) -> u64 {
        let mut last = vec![0; self.elements.len()];
        for (at, node) in self.nodes.iter().enumerate() {
            for &t in node.inputs.iter().chain([&node.output]) {
                last[self.storage[t]] = at;
            }
        }
        let end = self.nodes.len();
        last[self.storage[output]] = end;
        for &t in &self.kept {
            last[t] = end;
        }
        let kept: u64 = self.kept.iter().map(|&t| self.elements[t]).sum();
        let mut live = self.input + kept;
        let mut peak = live;
        for (at, node) in self.nodes.iter().enumerate() {
            if self.storage[node.output] == node.output {
                live += self.elements[node.output];
            }
            peak = peak.max(live);
            let mut freed: Vec<usize> =
                node.inputs.iter().chain([&node.output]).map(|&t| self.storage[t]).collect();
            freed.sort_unstable();
            freed.dedup();
            let dead = freed.iter().filter(|&&t| last[t] == at);
            live -= dead.map(|&t| self.elements[t]).sum::<u64>();
        }
        peak
    }
}
