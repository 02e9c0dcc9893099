//! Runnable kernels: the work that a device can be asked to do, and how the model zoo's layers turn
//! into it.

mod step;

use std::fmt;

use cotenant_profiles::kernel::Op;
use cotenant_profiles::lower::Precision;
use cotenant_profiles::zoo::layer::{Conv, Function, Pool, PoolKind};
use cotenant_profiles::zoo::{Layer, ModelSpec};
use serde::{Deserialize, Serialize};

pub use step::{Attend, CHUNK, MOST_EXPERTS, PAGE, PART, StepTask, TILE, WIDEST_HEAD};

/// One launch with its sizes. Its identifier names it in a profile.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Work {
    /// Key within a profile; equal for equal work.
    pub id: String,
    /// What the launch does.
    pub task: Task,
    /// Number format of the computation.
    pub precision: Precision,
    /// Whether it is one of the launches of a serving engine's steps. These come in many sizes and
    /// share weights, as well as memory for what they read and write, as in an engine.
    #[serde(default)]
    pub step: bool,
}

/// What a launch does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Task {
    /// Keeps every block busy for a set time, for calibration.
    Spin {
        /// Blocks of 128 threads.
        blocks: u32,
        /// Time of each block, ns.
        ns: u64,
    },
    /// `count` products of `m × k` by `k × n`, row-major; with `count` 1, the right operand is shared.
    Gemm {
        /// Rows of the result.
        m: u32,
        /// Columns of the result.
        n: u32,
        /// Length of the inner products.
        k: u32,
        /// Independent products.
        count: u32,
    },
    /// A convolution of `batch` images.
    Conv {
        /// Images.
        batch: u32,
        /// Its shape.
        conv: Conv,
    },
    /// `x × scale + shift` per channel: batch normalisation in inference.
    BatchNorm {
        /// Images times channels.
        planes: u32,
        /// Channels.
        channels: u32,
        /// Height times width.
        pixels: u32,
    },
    /// Normalisation by row.
    LayerNorm {
        /// Rows.
        rows: u32,
        /// Length of a row.
        width: u32,
    },
    /// Softmax by row.
    Softmax {
        /// Rows.
        rows: u32,
        /// Length of a row.
        width: u32,
    },
    /// A pointwise function.
    Pointwise {
        /// The function.
        function: Function,
        /// Elements of the result.
        elements: u64,
        /// Whether a second tensor is read.
        second: bool,
    },
    /// A sliding pool over `planes` images of one channel.
    Pool {
        /// Images times channels.
        planes: u32,
        /// Its shape.
        pool: Pool,
    },
    /// Averages over the parts of an even split.
    AdaptivePool {
        /// Images times channels.
        planes: u32,
        /// Input height and width.
        input: [u32; 2],
        /// Output height and width.
        output: [u32; 2],
    },
    /// Rows gathered from a table.
    Embedding {
        /// Rows gathered.
        rows: u32,
        /// Length of a row.
        width: u32,
        /// Rows of the table.
        entries: u32,
    },
    /// Writes one tensor behind others: a copy to an offset. Concatenations consist of these.
    Concat {
        /// Items.
        batch: u32,
        /// Elements of the part, per item.
        part: u64,
        /// Elements of the whole, per item.
        whole: u64,
    },
    /// `[groups, n]` channels become `[n, groups]`; with one pixel row per channel.
    Shuffle {
        /// Images.
        batch: u32,
        /// Channels.
        channels: u32,
        /// Groups.
        groups: u32,
        /// Height times width.
        pixels: u32,
    },
    /// A copy.
    Copy {
        /// Elements.
        elements: u64,
    },
    /// Scaled dot-product attention in one kernel: `heads` heads of `width` over `tokens` tokens.
    Attention {
        /// Heads of all items.
        heads: u32,
        /// Tokens of one item.
        tokens: u32,
        /// Width of a head, at most 128.
        width: u32,
    },
    /// Adds one value per column to rows: the bias of a linear layer or of a convolution.
    Bias {
        /// Elements.
        elements: u64,
        /// Elements that share a value.
        run: u32,
        /// Values.
        values: u32,
    },
    /// A launch of a serving engine's step.
    Step(StepTask),
}

impl Work {
    /// Work for a task. Its identifier follows from its content.
    #[must_use]
    pub fn new(task: Task, precision: Precision) -> Self {
        let id = match task {
            Task::Spin { .. } => task.to_string(),
            _ => format!("{task}-{}", precision.name()),
        };
        Self { id, task, precision, step: false }
    }

    /// Whether most of what it reads is in no cache when it starts. Between two launches on a layer's
    /// weights, its key cache or the embedding, a step reads those of all other layers.
    #[must_use]
    pub fn starts_cold(&self) -> bool {
        let cold = matches!(
            self.task,
            Task::Gemm { .. }
                | Task::Embedding { .. }
                | Task::Step(StepTask::Biased { .. } | StepTask::Decode(_))
        );
        self.step && cold
    }

    /// Its operation, in a profile's terms.
    #[must_use]
    pub fn op(&self) -> Op {
        match &self.task {
            Task::Spin { .. } => Op::Other,
            Task::Gemm { count: 1, .. } => Op::Gemm,
            Task::Gemm { .. } => Op::BatchedGemm,
            Task::Conv { conv, .. } if conv.is_depthwise() => Op::DepthwiseConv,
            Task::Conv { .. } => Op::Conv,
            Task::BatchNorm { .. } | Task::LayerNorm { .. } => Op::Norm,
            Task::Softmax { .. } => Op::Softmax,
            Task::Pointwise { function, .. } if function.is_activation() => Op::Activation,
            Task::Pointwise { .. } | Task::Bias { .. } => Op::Elementwise,
            Task::Pool { .. } | Task::AdaptivePool { .. } => Op::Pool,
            Task::Embedding { .. } => Op::Embedding,
            Task::Concat { .. } => Op::Concat,
            Task::Shuffle { .. } | Task::Copy { .. } => Op::Copy,
            Task::Attention { .. } => Op::Attention,
            Task::Step(task) => task.op(),
        }
    }

    /// Floating-point operations of matrix work; 0 for the rest.
    #[must_use]
    pub fn flops(&self) -> u64 {
        let all = |n: &[u32]| n.iter().map(|&x| u64::from(x)).product::<u64>();
        match &self.task {
            Task::Gemm { m, n, k, count } => 2 * all(&[*m, *n, *k, *count]),
            Task::Conv { batch, conv } => 2 * u64::from(*batch) * conv.macs(),
            Task::Attention { heads, tokens, width } => {
                4 * all(&[*heads, *tokens, *tokens, *width])
            }
            Task::Step(task) => task.flops(),
            _ => 0,
        }
    }
}

impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Spin { blocks, ns } => write!(f, "spin-{blocks}x{ns}ns"),
            Self::Gemm { m, n, k, count: 1 } => write!(f, "gemm-m{m}-n{n}-k{k}"),
            Self::Gemm { m, n, k, count } => write!(f, "bgemm-{count}x-m{m}-n{n}-k{k}"),
            Self::Conv { batch, conv: c } => {
                let ([h, w], [r, s]) = (c.input, c.kernel);
                write!(f, "conv-b{batch}-c{}-k{}-{h}x{w}-f{r}x{s}", c.in_ch, c.out_ch)?;
                write!(f, "-s{}x{}-p{}x{}", c.stride[0], c.stride[1], c.pad[0], c.pad[1])?;
                write!(f, "-d{}-g{}", c.dilation, c.groups)
            }
            Self::BatchNorm { planes, channels, pixels } => {
                write!(f, "batch_norm-{planes}x{pixels}-c{channels}")
            }
            Self::LayerNorm { rows, width } => write!(f, "layer_norm-{rows}x{width}"),
            Self::Softmax { rows, width } => write!(f, "softmax-{rows}x{width}"),
            Self::Pointwise { function, elements, second } => {
                write!(f, "{}{}-{elements}", function.name(), if *second { "2" } else { "" })
            }
            Self::Pool { planes, pool: p } => {
                let kind = if p.kind == PoolKind::Max { "max" } else { "avg" };
                let ([h, w], ceil) = (p.input, if p.ceil { "-ceil" } else { "" });
                write!(
                    f,
                    "{kind}_pool-{planes}x{h}x{w}-f{}-s{}-p{}{ceil}",
                    p.kernel, p.stride, p.pad
                )
            }
            Self::AdaptivePool { planes, input: [h, w], output: [a, b] } => {
                write!(f, "adaptive_pool-{planes}x{h}x{w}-to-{a}x{b}")
            }
            Self::Embedding { rows, width, entries } => {
                write!(f, "embedding-{rows}x{width}-of-{entries}")
            }
            Self::Concat { batch, part, whole } => write!(f, "concat-{batch}x{part}-of-{whole}"),
            Self::Shuffle { batch, channels, groups, pixels } => {
                write!(f, "shuffle-{batch}x{channels}x{pixels}-g{groups}")
            }
            Self::Copy { elements } => write!(f, "copy-{elements}"),
            Self::Attention { heads, tokens, width } => {
                write!(f, "attention-{heads}x{tokens}x{width}")
            }
            Self::Bias { elements, run, values } => write!(f, "bias-{elements}-v{values}-r{run}"),
            Self::Step(task) => task.fmt(f),
        }
    }
}

/// The launches of one forward pass, in order. They come from the same layer list as the analytic
/// profile, with one or more launches per layer.
#[must_use]
pub fn launches(spec: &ModelSpec, batch: u32, precision: Precision) -> Vec<Work> {
    let mut tasks = Vec::new();
    for node in &spec.nodes {
        tasks_of(&node.layer, batch, &mut tasks);
    }
    tasks.into_iter().map(|task| Work::new(task, precision)).collect()
}

fn tasks_of(layer: &Layer, batch: u32, tasks: &mut Vec<Task>) {
    let all = |n: u64| n * u64::from(batch);
    match layer {
        Layer::Conv(conv) => {
            // The bias is a separate launch.
            tasks.push(Task::Conv { batch, conv: Conv { bias: false, ..*conv } });
            if conv.bias {
                let elements = all(layer.output_elements());
                let run = conv.output()[0] * conv.output()[1];
                tasks.push(Task::Bias { elements, run, values: conv.out_ch });
            }
        }
        Layer::Linear(l) => {
            let (m, n, k) = (l.rows * batch, l.out_features, l.in_features);
            tasks.push(Task::Gemm { m, n, k, count: 1 });
            if l.bias {
                let elements = u64::from(m) * u64::from(n);
                tasks.push(Task::Bias { elements, run: 1, values: n });
            }
        }
        Layer::Matmul(p) => {
            tasks.push(Task::Gemm { m: p.m, n: p.n, k: p.k, count: p.batch * batch });
        }
        Layer::Attention(a) => {
            // There is no fused kernel here, so this is both products, with the softmax between them.
            let [scores, context] = a.products();
            tasks_of(&Layer::Matmul(scores), batch, tasks);
            let rows = a.heads * a.queries;
            tasks_of(&Layer::Softmax { rows, width: a.keys }, batch, tasks);
            tasks_of(&Layer::Matmul(context), batch, tasks);
        }
        Layer::BatchNorm { channels, pixels } => {
            let (channels, pixels) = (*channels, *pixels);
            tasks.push(Task::BatchNorm { planes: channels * batch, channels, pixels });
        }
        Layer::LayerNorm { rows, width } => {
            tasks.push(Task::LayerNorm { rows: rows * batch, width: *width });
        }
        Layer::Pointwise { function, elements, inputs } => tasks.push(Task::Pointwise {
            function: stand_in(*function),
            elements: all(*elements),
            second: *inputs > 1,
        }),
        Layer::Pool(pool) => tasks.push(Task::Pool { planes: pool.channels * batch, pool: *pool }),
        Layer::AdaptiveAvgPool { channels, input, output } => tasks.push(Task::AdaptivePool {
            planes: channels * batch,
            input: *input,
            output: *output,
        }),
        Layer::Softmax { rows, width } => {
            tasks.push(Task::Softmax { rows: rows * batch, width: *width });
        }
        Layer::Embedding { rows, width, entries } => {
            tasks.push(Task::Embedding { rows: rows * batch, width: *width, entries: *entries });
        }
        Layer::Concat { parts } => {
            let whole = parts.iter().sum();
            tasks.extend(parts.iter().map(|&part| Task::Concat { batch, part, whole }));
        }
        Layer::ChannelShuffle { channels, groups, pixels } => tasks.push(Task::Shuffle {
            batch,
            channels: *channels,
            groups: *groups,
            pixels: *pixels,
        }),
        Layer::Copy { elements } => tasks.push(Task::Copy { elements: all(*elements) }),
    }
}

/// The function that is run in place of `function`. Of the functions with one exponential per element,
/// GELU is the one that has a kernel here. It moves the same bytes and takes as long; its values
/// differ, but nothing reads them.
fn stand_in(function: Function) -> Function {
    match function {
        Function::Silu | Function::Sigmoid => Function::Gelu,
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cotenant_profiles::zoo;

    #[test]
    fn every_model_of_the_zoo_is_made_of_runnable_work() {
        for model in zoo::MODELS {
            let spec = model.spec();
            for batch in [1, 8] {
                let works = launches(&spec, batch, Precision::Fp32);
                assert!(works.len() >= spec.nodes.len(), "{}", model.name);
                // Multiply-accumulates are counted per item, and all of them are matrix work.
                let flops: u64 = works.iter().map(Work::flops).sum();
                assert_eq!(flops, 2 * u64::from(batch) * spec.macs(), "{}", model.name);
            }
        }
    }

    #[test]
    fn equal_work_has_equal_identifiers_and_other_work_has_others() {
        let mut known: Vec<Work> = Vec::new();
        for model in zoo::MODELS {
            for work in launches(&model.spec(), 2, Precision::Fp16) {
                match known.iter().find(|k| k.id == work.id) {
                    Some(same) => assert_eq!(*same, work),
                    None => known.push(work),
                }
            }
        }
        assert!(known.len() > 300, "{}", known.len());
    }
}
