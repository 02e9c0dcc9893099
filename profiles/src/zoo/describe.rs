//! Layers in words, for people.

use std::fmt;

use super::layer::{Layer, PoolKind};

/// Height by width, such as `7x7`.
fn by([height, width]: [u32; 2]) -> String {
    format!("{height}x{width}")
}

impl fmt::Display for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Conv(c) => {
                let [input, output] = [by(c.input), by(c.output())];
                write!(f, "{} convolution, {} to {} channels", by(c.kernel), c.in_ch, c.out_ch)?;
                write!(f, ", {input} to {output}")?;
                if c.groups > 1 {
                    write!(f, ", {} groups", c.groups)?;
                }
                if c.dilation > 1 {
                    write!(f, ", dilation {}", c.dilation)?;
                }
                if c.bias { write!(f, ", bias") } else { Ok(()) }
            }
            Self::Linear(l) => {
                write!(
                    f,
                    "linear, {} rows, {} to {} features",
                    l.rows, l.in_features, l.out_features
                )?;
                if l.bias { write!(f, ", bias") } else { Ok(()) }
            }
            Self::Matmul(m) => {
                write!(f, "{} products of {}x{} by {}x{}", m.batch, m.m, m.k, m.k, m.n)
            }
            Self::Attention(a) => {
                let (heads, head) = (a.heads, a.head_dim);
                write!(
                    f,
                    "attention, {heads} heads of {head}, {} queries, {} keys",
                    a.queries, a.keys
                )
            }
            Self::BatchNorm { channels, pixels } => {
                write!(f, "batch normalisation, {channels} channels of {pixels}")
            }
            Self::LayerNorm { rows, width } => {
                write!(f, "layer normalisation, {rows} rows of {width}")
            }
            Self::Pointwise { function, elements, inputs: 1 } => {
                write!(f, "{}, {elements} elements", function.name())
            }
            Self::Pointwise { function, elements, inputs } => {
                write!(f, "{} of {inputs} tensors, {elements} elements", function.name())
            }
            Self::Pool(p) => {
                let kind = if p.kind == PoolKind::Max { "max" } else { "average" };
                let (edge, input) = (p.kernel, by(p.input));
                write!(
                    f,
                    "{edge}x{edge} {kind} pool, stride {}, {} channels of {input}",
                    p.stride, p.channels
                )
            }
            Self::AdaptiveAvgPool { channels, input, output } => {
                write!(f, "average pool, {channels} channels, {} to {}", by(*input), by(*output))
            }
            Self::Softmax { rows, width } => write!(f, "softmax, {rows} rows of {width}"),
            Self::Embedding { rows, width, entries } => {
                write!(f, "embedding, {rows} rows of {width} from {entries}")
            }
            Self::Concat { parts } => {
                write!(
                    f,
                    "concatenation of {}, {} elements",
                    parts.len(),
                    parts.iter().sum::<u64>()
                )
            }
            Self::ChannelShuffle { channels, groups, pixels } => {
                write!(f, "channel shuffle, {channels} channels of {pixels}, {groups} groups")
            }
            Self::Copy { elements } => write!(f, "copy, {elements} elements"),
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::zoo;

    #[test]
    fn layers_read_as_words() {
        let spec = zoo::find("resnet50").expect("in the zoo");
        let words: Vec<String> = spec.nodes.iter().take(4).map(|n| n.layer.to_string()).collect();
        assert_eq!(
            words,
            [
                "7x7 convolution, 3 to 64 channels, 224x224 to 112x112",
                "batch normalisation, 64 channels of 12544",
                "relu, 802816 elements",
                "3x3 max pool, stride 2, 64 channels of 112x112",
            ]
        );
    }
}
