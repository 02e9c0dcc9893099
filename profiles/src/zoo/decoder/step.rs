//! One step of a serving engine: what it is asked to compute, and the layers that compute it.

use super::{Decoder, FeedForward, experts_touched};

/// New tokens of prompts in a step, summed over the sequences.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prefill {
    /// Sequences with new prompt tokens in this step.
    pub sequences: u32,
    /// New tokens of all of them.
    pub tokens: u32,
    /// Tokens in the cache when the step is done, the new ones included: what is read.
    pub context: u64,
    /// Keys that the new tokens see, each up to itself: what is multiplied.
    pub seen: u64,
}

/// Sequences that generate one token each in a step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Decode {
    /// Sequences.
    pub sequences: u32,
    /// Tokens of all of them in the cache when the step is done, the new ones included.
    pub context: u64,
}

/// What a step computes. The sums decide what its kernels cost, so that an engine can keep them up
/// to date instead of listing its sequences at every step, and steps alike share one program.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StepShape {
    /// New tokens of prompts: whole ones, or chunks.
    pub prefill: Prefill,
    /// Sequences that generate.
    pub decode: Decode,
    /// Rows that compute nothing of use: a captured graph is launched at the next larger size that
    /// was captured.
    pub padding: u32,
}

impl StepShape {
    /// The step of these chunks of prompts, `(new tokens, context)` each, and sequences that
    /// generate, each with its context. A context counts the tokens in the cache when the step is
    /// done, the new ones included: a whole prompt of 512 tokens is `(512, 512)`.
    #[must_use]
    pub fn new(prefill: &[(u32, u32)], decode: &[u32]) -> Self {
        let mut shape = Self::default();
        for &(new_tokens, context) in prefill {
            shape.add_prefill(new_tokens, context);
        }
        for &context in decode {
            shape.add_decode(context);
        }
        shape
    }

    /// Adds the next `new_tokens` tokens of a prompt; `context` tokens of the sequence are in the
    /// cache when the step is done.
    pub fn add_prefill(&mut self, new_tokens: u32, context: u32) {
        let (new, context) = (u64::from(new_tokens), u64::from(context.max(new_tokens)));
        let prefill = &mut self.prefill;
        prefill.sequences += 1;
        prefill.tokens += new_tokens;
        prefill.context += context;
        prefill.seen += new * (context - new) + new * (new + 1) / 2;
    }

    /// Adds a sequence that generates one token and has `context` tokens in the cache when the step
    /// is done.
    pub fn add_decode(&mut self, context: u32) {
        self.decode.sequences += 1;
        self.decode.context += u64::from(context.max(1));
    }

    /// Rows of the matrix products of the layers: new tokens, and padding.
    #[must_use]
    pub fn tokens(&self) -> u32 {
        self.prefill.tokens + self.decode.sequences + self.padding
    }

    /// Sequences, each of which is sampled from: an engine projects the last row of every one, also
    /// of a prompt that is not done (vLLM drops that sample).
    #[must_use]
    pub fn sequences(&self) -> u32 {
        self.prefill.sequences + self.decode.sequences
    }

    /// Nothing to compute.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.tokens() == 0
    }
}

/// How steps are rounded, so that those alike share one program. A knob: fewer significant bits
/// mean fewer programs and coarser times.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rounding {
    /// Tokens and contexts are rounded to the nearest number of so many significant bits; numbers
    /// below 2^bits stay exact. With 4 bits, the default, a number is moved by at most 3.2 %, up as
    /// often as down.
    pub bits: u32,
    /// Sizes at which steps that only generate are captured as graphs, ascending: such a step is
    /// padded up to the next one. Empty: no padding.
    pub captured: Vec<u32>,
}

impl Default for Rounding {
    fn default() -> Self {
        Self { bits: 4, captured: Vec::new() }
    }
}

impl Rounding {
    /// No rounding at all.
    #[must_use]
    pub fn exact() -> Self {
        Self { bits: u32::MAX, captured: Vec::new() }
    }

    /// The sizes that vLLM captures up to `most` sequences: 1, 2, 4, every eighth to 248, every
    /// sixteenth from 256 (`vllm/config/vllm.py`, release 0.33).
    #[must_use]
    pub fn captured_by_vllm(most: u32) -> Vec<u32> {
        let small = [1, 2, 4].into_iter();
        let sizes = small.chain((8..256).step_by(8)).chain((256..=most.max(256)).step_by(16));
        sizes.take_while(|&n| n <= most).collect()
    }

    /// The step whose program stands for this one. Rounding twice changes nothing more.
    #[must_use]
    pub fn round(&self, shape: &StepShape) -> StepShape {
        let n = |x: u64| nearest(x, self.bits);
        // Rounded counts of 32 bits stay in range: the largest ones are rounded down.
        let n32 = |x: u32| u32::try_from(n(u64::from(x))).unwrap_or(x);
        let (prefill, decode) = (&shape.prefill, &shape.decode);
        let sequences = n32(prefill.sequences);
        let tokens = n32(prefill.tokens).max(sequences);
        let prefill = Prefill {
            sequences,
            tokens,
            context: n(prefill.context).max(u64::from(tokens)),
            seen: n(prefill.seen).max(u64::from(tokens)),
        };
        let mut padding = n32(shape.padding);
        let mut decode = Decode {
            sequences: n32(decode.sequences),
            context: n(decode.context).max(u64::from(n32(decode.sequences))),
        };
        if prefill.tokens == 0 && shape.decode.sequences > 0 {
            let real = shape.decode.sequences + shape.padding;
            if let Some(&size) = self.captured.iter().find(|&&size| size >= real) {
                decode.sequences = decode.sequences.min(size);
                padding = size - decode.sequences;
            }
        }
        StepShape { prefill, decode, padding }
    }
}

/// The nearest number of at most `bits` significant bits; halves are rounded up.
fn nearest(x: u64, bits: u32) -> u64 {
    let dropped = (u64::BITS - x.leading_zeros()).saturating_sub(bits.max(1));
    match dropped {
        0 => x,
        _ => ((x >> dropped) + ((x >> (dropped - 1)) & 1)) << dropped,
    }
}

/// The layers of one step, in execution order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Runs of layers, one after the other.
    pub segments: Vec<Segment>,
}

/// Layers that are executed several times in a row: what comes before the transformer's layers,
/// those layers, and what comes after.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Layers in execution order.
    pub layers: Vec<StepLayer>,
    /// How often.
    pub repeat: u32,
}

/// One operator of a step, at the granularity of a serving engine: fused norms with their residual
/// addition, merged projections, paged attention.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StepLayer {
    /// Rows of the embedding.
    Embedding {
        /// Rows gathered.
        tokens: u32,
        /// Length of a row.
        width: u32,
    },
    /// RMSNorm over rows.
    RmsNorm {
        /// Rows.
        rows: u32,
        /// Length of a row.
        width: u32,
        /// Adds the residual stream before it, in the same kernel.
        residual: bool,
    },
    /// A projection: rows by weights.
    Linear {
        /// Which of the layer's matrices.
        matrix: Matrix,
        /// Rows.
        tokens: u32,
        /// Width of the input.
        in_features: u32,
        /// Width of the output.
        out_features: u32,
        /// Whether a bias is added.
        bias: bool,
    },
    /// Rotary position embedding, in place on queries and keys.
    Rotary {
        /// Rows.
        tokens: u32,
        /// Elements of a row: heads of queries and of keys.
        width: u32,
        /// Elements of a head.
        head_dim: u32,
    },
    /// Keys and values of the new tokens go to their pages.
    CacheWrite {
        /// Rows.
        tokens: u32,
        /// Elements of a row's keys, or of its values.
        width: u32,
    },
    /// Paged attention of new prompt tokens, causal.
    PrefillAttention {
        /// The tokens.
        prefill: Prefill,
        /// Query heads.
        heads: u32,
        /// Heads of keys and values.
        kv_heads: u32,
        /// Elements of a head.
        head_dim: u32,
    },
    /// Paged attention of one token per sequence.
    DecodeAttention {
        /// The sequences.
        decode: Decode,
        /// Query heads.
        heads: u32,
        /// Heads of keys and values.
        kv_heads: u32,
        /// Elements of a head.
        head_dim: u32,
    },
    /// The gate's activation times the other half: SiLU and multiply.
    GatedActivation {
        /// Rows.
        tokens: u32,
        /// Elements of a row of the result.
        inner: u32,
    },
    /// Which experts a token goes to: softmax over the router's scores, the best of them, and the
    /// order in which the grouped products take the tokens.
    Route {
        /// Rows.
        tokens: u32,
        /// Experts, and those that a token goes to.
        experts: [u32; 2],
    },
    /// A grouped product: the rows of every expert by that expert's weights.
    Experts {
        /// Which of the expert's matrices.
        matrix: Matrix,
        /// Experts with at least one row.
        touched: u32,
        /// Rows of all of them: tokens times the experts that each goes to.
        rows: u32,
        /// Rows of the input: tokens for the first product, which gathers them; its own for the second.
        inputs: u32,
        /// Width of the input.
        in_features: u32,
        /// Width of the output.
        out_features: u32,
    },
    /// The weighted sum of what a token's experts return.
    SumExperts {
        /// Rows of the result.
        tokens: u32,
        /// Experts per token.
        active: u32,
        /// Length of a row.
        width: u32,
    },
    /// Last rows of the sequences, side by side.
    Gather {
        /// Rows gathered.
        sequences: u32,
        /// Length of a row.
        width: u32,
    },
    /// Logits to FP32, and the choice of a token.
    Sample {
        /// Rows.
        sequences: u32,
        /// Length of a row.
        vocabulary: u32,
    },
}

/// The matrices of a decoder, by the names that serving engines give them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs)] // the field's own names
pub enum Matrix {
    QkvProj,
    OProj,
    GateUpProj,
    DownProj,
    Router,
    LmHead,
}

impl Decoder {
    /// The layers of one step, as vLLM's models order and merge them (`vllm/model_executor/models`,
    /// release 0.33).
    #[must_use]
    pub fn step(&self, shape: &StepShape) -> Step {
        let (tokens, sequences, width) = (shape.tokens(), shape.sequences(), self.width);
        let embedding = StepLayer::Embedding { tokens, width };
        let gather = StepLayer::Gather { sequences, width };
        let last_norm = StepLayer::RmsNorm { rows: tokens, width, residual: true };
        let head = self.linear(Matrix::LmHead, sequences, width, self.vocabulary);
        let sample = StepLayer::Sample { sequences, vocabulary: self.vocabulary };
        let segment = |layers, repeat| Segment { layers, repeat };
        Step {
            segments: vec![
                segment(vec![embedding], 1),
                segment(self.layer(shape), self.layers),
                segment(vec![last_norm, gather, head, sample], 1),
            ],
        }
    }

    /// One transformer layer.
    fn layer(&self, shape: &StepShape) -> Vec<StepLayer> {
        let (tokens, width) = (shape.tokens(), self.width);
        let (heads, kv_heads, head_dim) = (self.heads, self.kv_heads, self.head_dim);
        let norm = StepLayer::RmsNorm { rows: tokens, width, residual: true };
        let mut layers = vec![norm, self.linear(Matrix::QkvProj, tokens, width, self.qkv_width())];
        if self.qk_norm {
            for heads in [heads, kv_heads] {
                let rows = tokens * heads;
                layers.push(StepLayer::RmsNorm { rows, width: head_dim, residual: false });
            }
        }
        let width_rotated = (heads + kv_heads) * head_dim;
        layers.push(StepLayer::Rotary { tokens, width: width_rotated, head_dim });
        layers.push(StepLayer::CacheWrite { tokens, width: kv_heads * head_dim });
        let StepShape { prefill, decode, .. } = self.windowed(shape);
        if prefill.tokens > 0 {
            layers.push(StepLayer::PrefillAttention { prefill, heads, kv_heads, head_dim });
        }
        if decode.sequences > 0 {
            layers.push(StepLayer::DecodeAttention { decode, heads, kv_heads, head_dim });
        }
        layers.push(self.linear(Matrix::OProj, tokens, heads * head_dim, width));
        layers.push(norm);
        layers.extend(self.feed_forward(tokens));
        layers
    }

    /// What follows attention.
    fn feed_forward(&self, tokens: u32) -> Vec<StepLayer> {
        let width = self.width;
        match self.feed_forward {
            FeedForward::Gated { inner } => vec![
                self.linear(Matrix::GateUpProj, tokens, width, 2 * inner),
                StepLayer::GatedActivation { tokens, inner },
                self.linear(Matrix::DownProj, tokens, inner, width),
            ],
            FeedForward::Experts { experts, active, inner } => {
                let touched = experts_touched(experts, active, tokens);
                let rows = tokens * active;
                let product = |matrix, inputs, in_features, out_features| StepLayer::Experts {
                    matrix,
                    touched,
                    rows,
                    inputs,
                    in_features,
                    out_features,
                };
                vec![
                    self.linear(Matrix::Router, tokens, width, experts),
                    StepLayer::Route { tokens, experts: [experts, active] },
                    product(Matrix::GateUpProj, tokens, width, 2 * inner),
                    StepLayer::GatedActivation { tokens: rows, inner },
                    product(Matrix::DownProj, rows, inner, width),
                    StepLayer::SumExperts { tokens, active, width },
                ]
            }
        }
    }

    fn linear(&self, matrix: Matrix, tokens: u32, from: u32, to: u32) -> StepLayer {
        let bias = match matrix {
            Matrix::QkvProj => self.qkv_bias,
            Matrix::OProj => self.o_bias,
            _ => false,
        };
        StepLayer::Linear { matrix, tokens, in_features: from, out_features: to, bias }
    }
}
