//! Layers with their shapes, per item of a batch.
//!
//! A layer holds everything that a library call needs to run it (cuDNN, cuBLAS) and everything that
//! the analytic model needs to price it. The batch is applied when a model is lowered to kernels.

use serde::{Deserialize, Serialize};

/// A 2-D convolution, NCHW.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conv {
    /// Input channels.
    pub in_ch: u32,
    /// Output channels.
    pub out_ch: u32,
    /// Filter height and width.
    pub kernel: [u32; 2],
    /// Stride in height and width.
    pub stride: [u32; 2],
    /// Zero padding in height and width, on both sides.
    pub pad: [u32; 2],
    /// Dilation in both directions.
    pub dilation: u32,
    /// Groups; equal to `in_ch` for a depthwise convolution.
    pub groups: u32,
    /// Input height and width.
    pub input: [u32; 2],
    /// Whether a bias is added.
    pub bias: bool,
}

impl Conv {
    /// Output height and width.
    #[must_use]
    pub fn output(&self) -> [u32; 2] {
        std::array::from_fn(|i| {
            let reach = self.dilation * (self.kernel[i] - 1) + 1;
            (self.input[i] + 2 * self.pad[i] - reach) / self.stride[i] + 1
        })
    }

    /// Filter coefficients, without bias.
    #[must_use]
    pub fn weights(&self) -> u64 {
        product(&[self.out_ch, self.in_ch / self.groups, self.kernel[0], self.kernel[1]])
    }

    /// Multiply-accumulates of one item.
    #[must_use]
    pub fn macs(&self) -> u64 {
        self.weights() * product(&self.output())
    }

    /// One filter per channel.
    #[must_use]
    pub fn is_depthwise(&self) -> bool {
        self.groups > 1 && self.groups == self.in_ch
    }
}

/// A product of an activation with a weight matrix: `rows × in_features` by
/// `in_features × out_features`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Linear {
    /// Rows of one item (tokens; 1 for a classifier).
    pub rows: u32,
    /// Width of the input.
    pub in_features: u32,
    /// Width of the output.
    pub out_features: u32,
    /// Whether a bias is added.
    pub bias: bool,
}

/// A batch of products of two activations, such as the two of attention.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Matmul {
    /// Independent products of one item (heads).
    pub batch: u32,
    /// Rows of the result.
    pub m: u32,
    /// Columns of the result.
    pub n: u32,
    /// Length of the inner products.
    pub k: u32,
}

/// Attention in one kernel: scores, softmax and context, of which only the context leaves it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attention {
    /// Heads of one item.
    pub heads: u32,
    /// Queries of one item.
    pub queries: u32,
    /// Keys that each query sees.
    pub keys: u32,
    /// Elements of a head.
    pub head_dim: u32,
}

impl Attention {
    /// The products of scores and of contexts.
    #[must_use]
    pub fn products(&self) -> [Matmul; 2] {
        let (batch, m) = (self.heads, self.queries);
        [
            Matmul { batch, m, n: self.keys, k: self.head_dim },
            Matmul { batch, m, n: self.head_dim, k: self.keys },
        ]
    }
}

/// Maximum or average.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub enum PoolKind {
    Max,
    Average,
}

/// A pooling window sliding over every channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pool {
    /// Maximum or average.
    pub kind: PoolKind,
    /// Channels.
    pub channels: u32,
    /// Input height and width.
    pub input: [u32; 2],
    /// Edge of the square window.
    pub kernel: u32,
    /// Stride in both directions.
    pub stride: u32,
    /// Zero padding on every side.
    pub pad: u32,
    /// Round the output size up instead of down.
    pub ceil: bool,
}

impl Pool {
    /// Output height and width.
    #[must_use]
    pub fn output(&self) -> [u32; 2] {
        self.input.map(|n| {
            let span = n + 2 * self.pad - self.kernel;
            let steps = if self.ceil { span.div_ceil(self.stride) } else { span / self.stride };
            // A window that would start in the padding beyond the input does not count.
            let starts_outside = self.ceil && steps * self.stride >= n + self.pad;
            steps + 1 - u32::from(starts_outside)
        })
    }
}

/// A pointwise function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)] // the field's own names
pub enum Function {
    Relu,
    Relu6,
    Gelu,
    Silu,
    Sigmoid,
    Tanh,
    Pow,
    Scale,
    Add,
    Mul,
    Mask,
}

impl Function {
    /// The name that kernels carry.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Relu => "relu",
            Self::Relu6 => "relu6",
            Self::Gelu => "gelu",
            Self::Silu => "silu",
            Self::Sigmoid => "sigmoid",
            Self::Tanh => "tanh",
            Self::Pow => "pow",
            Self::Scale => "scale",
            Self::Add => "add",
            Self::Mul => "mul",
            Self::Mask => "mask",
        }
    }

    /// A non-linearity, as against arithmetic on tensors.
    #[must_use]
    pub fn is_activation(self) -> bool {
        matches!(
            self,
            Self::Relu | Self::Relu6 | Self::Gelu | Self::Silu | Self::Sigmoid | Self::Tanh
        )
    }
}

/// One layer, per item of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Layer {
    /// Convolution.
    Conv(Conv),
    /// Activation times weights.
    Linear(Linear),
    /// Activation times activation.
    Matmul(Matmul),
    /// Attention as frameworks' fused kernels compute it.
    Attention(Attention),
    /// Normalisation with stored statistics, per channel.
    BatchNorm {
        /// Channels.
        channels: u32,
        /// Height times width.
        pixels: u32,
    },
    /// Normalisation over the last dimension.
    LayerNorm {
        /// Rows of one item.
        rows: u32,
        /// Length of a row.
        width: u32,
    },
    /// A pointwise function of `inputs` tensors of equal size.
    Pointwise {
        /// The function.
        function: Function,
        /// Elements of the result.
        elements: u64,
        /// Tensors of that size read (a broadcast operand or a constant is not counted).
        inputs: u32,
    },
    /// Sliding pool.
    Pool(Pool),
    /// Average pool to a fixed output size.
    AdaptiveAvgPool {
        /// Channels.
        channels: u32,
        /// Input height and width.
        input: [u32; 2],
        /// Output height and width.
        output: [u32; 2],
    },
    /// Softmax over the last dimension.
    Softmax {
        /// Rows of one item.
        rows: u32,
        /// Length of a row.
        width: u32,
    },
    /// Rows gathered from a table.
    Embedding {
        /// Rows gathered for one item.
        rows: u32,
        /// Length of a row.
        width: u32,
        /// Rows of the table.
        entries: u32,
    },
    /// Tensors written one behind the other.
    Concat {
        /// Elements of each part.
        parts: Vec<u64>,
    },
    /// Channels interleaved across groups (ShuffleNet): a strided copy.
    ChannelShuffle {
        /// Channels.
        channels: u32,
        /// Groups.
        groups: u32,
        /// Height times width.
        pixels: u32,
    },
    /// A copy that makes a permuted or split view contiguous.
    Copy {
        /// Elements.
        elements: u64,
    },
}

impl Layer {
    /// Trainable parameters.
    #[must_use]
    pub fn params(&self) -> u64 {
        match self {
            Self::Conv(c) => c.weights() + if c.bias { u64::from(c.out_ch) } else { 0 },
            Self::Linear(l) => {
                let bias = if l.bias { u64::from(l.out_features) } else { 0 };
                product(&[l.in_features, l.out_features]) + bias
            }
            Self::BatchNorm { channels, .. } => 2 * u64::from(*channels),
            Self::LayerNorm { width, .. } => 2 * u64::from(*width),
            Self::Embedding { width, entries, .. } => product(&[*width, *entries]),
            _ => 0,
        }
    }

    /// Parameters that one inference reads: all of them, but for the rows of a table.
    #[must_use]
    pub fn params_read(&self) -> u64 {
        match self {
            Self::Embedding { rows, width, .. } => product(&[*rows, *width]),
            // Running mean and variance besides scale and shift.
            Self::BatchNorm { channels, .. } => 4 * u64::from(*channels),
            _ => self.params(),
        }
    }

    /// Multiply-accumulates of convolutions and matrix products for one item; nothing else counts
    /// (the convention of torchvision's published figures).
    #[must_use]
    pub fn macs(&self) -> u64 {
        match self {
            Self::Conv(c) => c.macs(),
            Self::Linear(l) => product(&[l.rows, l.in_features, l.out_features]),
            Self::Matmul(m) => product(&[m.batch, m.m, m.n, m.k]),
            Self::Attention(a) => 2 * product(&[a.heads, a.queries, a.keys, a.head_dim]),
            _ => 0,
        }
    }

    /// Activation elements read for one item.
    #[must_use]
    pub fn input_elements(&self) -> u64 {
        match self {
            Self::Conv(c) => product(&[c.in_ch, c.input[0], c.input[1]]),
            Self::Linear(l) => product(&[l.rows, l.in_features]),
            Self::Matmul(m) => product(&[m.batch, m.k]) * (u64::from(m.m) + u64::from(m.n)),
            Self::Attention(a) => {
                product(&[a.heads, a.head_dim]) * (u64::from(a.queries) + 2 * u64::from(a.keys))
            }
            Self::Pointwise { elements, inputs, .. } => elements * u64::from(*inputs),
            Self::Pool(p) => product(&[p.channels, p.input[0], p.input[1]]),
            Self::AdaptiveAvgPool { channels, input, .. } => {
                product(&[*channels, input[0], input[1]])
            }
            // Token ids, next to nothing beside the rows.
            Self::Embedding { rows, .. } => u64::from(*rows),
            _ => self.output_elements(),
        }
    }

    /// Activation elements written for one item.
    #[must_use]
    pub fn output_elements(&self) -> u64 {
        match self {
            Self::Conv(c) => u64::from(c.out_ch) * product(&c.output()),
            Self::Linear(l) => product(&[l.rows, l.out_features]),
            Self::Matmul(m) => product(&[m.batch, m.m, m.n]),
            Self::Attention(a) => product(&[a.heads, a.queries, a.head_dim]),
            Self::BatchNorm { channels, pixels } => product(&[*channels, *pixels]),
            Self::LayerNorm { rows, width } | Self::Softmax { rows, width } => {
                product(&[*rows, *width])
            }
            Self::Pointwise { elements, .. } | Self::Copy { elements } => *elements,
            Self::Pool(p) => u64::from(p.channels) * product(&p.output()),
            Self::AdaptiveAvgPool { channels, output, .. } => {
                product(&[*channels, output[0], output[1]])
            }
            Self::Embedding { rows, width, .. } => product(&[*rows, *width]),
            Self::Concat { parts } => parts.iter().sum(),
            Self::ChannelShuffle { channels, pixels, .. } => product(&[*channels, *pixels]),
        }
    }
}

/// The product of small counts, in 64 bits.
#[must_use]
pub(crate) fn product(factors: &[u32]) -> u64 {
    factors.iter().map(|&n| u64::from(n)).product()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_sizes_follow_the_framework() {
        let conv = Conv {
            in_ch: 3,
            out_ch: 64,
            kernel: [7, 7],
            stride: [2, 2],
            pad: [3, 3],
            dilation: 1,
            groups: 1,
            input: [224, 224],
            bias: false,
        };
        assert_eq!(conv.output(), [112, 112]);
        assert_eq!(Conv { dilation: 2, pad: [6, 6], ..conv }.output(), [112, 112]);
        let pool = |input, ceil| {
            let kind = PoolKind::Max;
            Pool { kind, channels: 1, input: [input; 2], kernel: 3, stride: 2, pad: 0, ceil }
                .output()[0]
        };
        assert_eq!((pool(54, false), pool(54, true), pool(55, true)), (26, 27, 27));
    }
}
