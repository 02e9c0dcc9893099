//! Turns work into a launch of one of our kernels: function, grid, parameters, operands.

mod steps;

use std::io::Read as _;
use std::sync::LazyLock;

use cotenant_profiles::lower::Precision;
use cotenant_profiles::zoo::layer::PoolKind;

use crate::error::DeviceError;
use crate::work::{Task, Work};

pub(crate) use steps::places;

/// The source of the kernels.
pub const SOURCE: &str =
    concat!(include_str!("../kernels/zoo.cu"), include_str!("../kernels/steps.cu"));
/// The source compiled for compute capability 8.0 and later, which the driver compiles further.
/// Compression shrinks it to a seventh of its size; the program would otherwise carry every byte.
pub static PTX: LazyLock<String> = LazyLock::new(|| {
    let packed: &[u8] = include_bytes!("../kernels/zoo.ptx.gz");
    let mut text = String::new();
    flate2::read::GzDecoder::new(packed)
        .read_to_string(&mut text)
        .expect("the shipped file is whole: a test reads it");
    text
});

/// Threads per block of our kernels, as the block-wide sums in the source assume.
pub const BLOCK: u32 = 256;

/// Indices per group within which distinct indices are shuffled.
pub const SCATTERED: u32 = 64;

/// An operand that a launch reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Operand {
    /// Elements.
    pub elements: u64,
    /// The bound of random indices; without one, the elements are random numbers.
    pub below: Option<u32>,
    /// Whether every index is used only once. Each group of [`SCATTERED`] indices is shuffled by
    /// itself, so that a longer operand starts as a shorter one does. The bound is a whole number of
    /// groups.
    pub distinct: bool,
}

/// One parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parameter {
    /// The address of an operand.
    Input(usize),
    /// No address.
    Null,
    /// The address of the result.
    Output,
    /// The address of scratch memory for the kernel.
    Scratch,
    /// A number.
    Number(u64),
}

/// Operands and result of some work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shapes {
    /// The operands read.
    pub inputs: Vec<Operand>,
    /// Elements written.
    pub output: u64,
}

/// A launch of one of our kernels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recipe {
    /// The function in [`PTX`].
    pub function: String,
    /// Blocks.
    pub blocks: u32,
    /// Threads of a block.
    pub block: u32,
    /// Parameters in order.
    pub parameters: Vec<Parameter>,
    /// Bytes of scratch memory, zero before the first launch.
    pub scratch: u64,
}

fn real(elements: u64) -> Operand {
    Operand { elements, below: None, distinct: false }
}

/// Operands and result of `work`.
#[must_use]
pub fn shapes(work: &Work) -> Shapes {
    let all = |n: &[u32]| n.iter().map(|&x| u64::from(x)).product::<u64>();
    let (inputs, output) = match &work.task {
        Task::Spin { .. } => (vec![], 0),
        Task::Gemm { m, n, k, count } => (
            vec![real(all(&[*count, *m, *k])), real(all(&[*count, *k, *n]))],
            all(&[*count, *m, *n]),
        ),
        Task::Conv { batch, conv: c } => {
            let [oh, ow] = c.output();
            let input = all(&[*batch, c.in_ch, c.input[0], c.input[1]]);
            (vec![real(input), real(c.weights())], all(&[*batch, c.out_ch, oh, ow]))
        }
        Task::BatchNorm { planes, channels, pixels } => {
            let n = all(&[*planes, *pixels]);
            (vec![real(n), real(u64::from(*channels)), real(u64::from(*channels))], n)
        }
        Task::LayerNorm { rows, width } => {
            let n = all(&[*rows, *width]);
            (vec![real(n), real(u64::from(*width)), real(u64::from(*width))], n)
        }
        Task::Softmax { rows, width } => (vec![real(all(&[*rows, *width]))], all(&[*rows, *width])),
        Task::Pointwise { elements, second, .. } => {
            (vec![real(*elements); 1 + usize::from(*second)], *elements)
        }
        Task::Pool { planes, pool } => {
            let [oh, ow] = pool.output();
            let input = all(&[*planes, pool.input[0], pool.input[1]]);
            (vec![real(input)], all(&[*planes, oh, ow]))
        }
        Task::AdaptivePool { planes, input, output } => {
            let n = |[h, w]: [u32; 2]| all(&[*planes, h, w]);
            (vec![real(n(*input))], n(*output))
        }
        Task::Embedding { rows, width, entries } => {
            let (elements, below) = (u64::from(*rows), Some(*entries));
            let index = Operand { elements, below, distinct: false };
            (vec![real(all(&[*entries, *width])), index], all(&[*rows, *width]))
        }
        Task::Concat { batch, part, whole } => {
            (vec![real(u64::from(*batch) * part)], u64::from(*batch) * whole)
        }
        Task::Shuffle { batch, channels, pixels, .. } => {
            let n = all(&[*batch, *channels, *pixels]);
            (vec![real(n)], n)
        }
        Task::Copy { elements } => (vec![real(*elements)], *elements),
        Task::Attention { heads, tokens, width } => {
            let n = all(&[*heads, *tokens, *width]);
            (vec![real(n); 3], n)
        }
        Task::Bias { elements, values, .. } => {
            (vec![real(*elements), real(u64::from(*values))], *elements)
        }
        Task::Step(task) => return steps::shapes(task),
    };
    Shapes { inputs, output }
}

/// The launch of `work` by one of our kernels; `None` if a library runs it.
///
/// # Errors
/// The kernel does not support the size or precision.
pub fn recipe(work: &Work) -> Result<Option<Recipe>, DeviceError> {
    use Parameter::{Input, Null, Number, Output};
    let number = |n: u32| Number(u64::from(n));
    let out = shapes(work).output;
    let (mut scratch, mut in_rows) = (0, None);
    let (name, parameters) = match &work.task {
        Task::Gemm { .. } | Task::Conv { .. } => return Ok(None),
        Task::Spin { blocks, ns } => {
            let function = "spin".to_owned();
            let parameters = vec![Number(*ns), Null];
            let (blocks, block) = (*blocks, 128);
            return Ok(Some(Recipe { function, blocks, block, parameters, scratch }));
        }
        Task::BatchNorm { channels, pixels, .. } => {
            let sizes = [Number(out), number(*pixels), number(*channels)];
            ("batch_norm", [vec![Input(0), Input(1), Input(2), Output], sizes.to_vec()].concat())
        }
        Task::LayerNorm { width, .. } => {
            ("layer_norm", vec![Input(0), Input(1), Input(2), Output, number(*width)])
        }
        Task::Softmax { width, .. } => ("softmax", vec![Input(0), Output, number(*width)]),
        Task::Pointwise { function, second, .. } => {
            let other = if *second { Input(1) } else { Null };
            (function.name(), vec![Input(0), other, Output, Number(out)])
        }
        Task::Pool { planes, pool: p } => {
            let name = if p.kind == PoolKind::Max { "max_pool" } else { "avg_pool" };
            let ([h, w], [oh, ow]) = (p.input, p.output());
            let sizes = [*planes, h, w, oh, ow, p.kernel, p.stride, p.pad].map(number);
            (name, [vec![Input(0), Output], sizes.to_vec()].concat())
        }
        Task::AdaptivePool { planes, input, output } => {
            let sizes = [*planes, input[0], input[1], output[0], output[1]].map(number);
            ("adaptive_pool", [vec![Input(0), Output], sizes.to_vec()].concat())
        }
        Task::Embedding { width, .. } => {
            ("embedding", vec![Input(0), Input(1), Output, Number(out), number(*width)])
        }
        Task::Concat { batch, part, whole } => {
            let n = u64::from(*batch) * part;
            ("concat", vec![Input(0), Output, Number(n), Number(*part), Number(*whole)])
        }
        Task::Shuffle { channels, groups, pixels, .. } => {
            let sizes = [Number(out), number(*pixels), number(*channels), number(*groups)];
            ("shuffle", [vec![Input(0), Output], sizes.to_vec()].concat())
        }
        Task::Copy { .. } => ("copy", vec![Input(0), Output, Number(out)]),
        Task::Attention { tokens, width, .. } => {
            if *tokens > 4096 {
                return Err(DeviceError::unsupported(&work.id, "at most 4096 tokens"));
            }
            let sizes = [number(*tokens), number(*width)];
            ("attention", [vec![Input(0), Input(1), Input(2), Output], sizes.to_vec()].concat())
        }
        Task::Bias { run, values, .. } => {
            let sizes = [Number(out), number(*run), number(*values)];
            ("bias", [vec![Input(0), Input(1), Output], sizes.to_vec()].concat())
        }
        Task::Step(task) => {
            let refused = |why: &str| DeviceError::unsupported(&work.id, why);
            let Some(launch) = steps::launch(task).map_err(refused)? else { return Ok(None) };
            (scratch, in_rows) = (launch.scratch, Some(launch.blocks));
            (launch.name, launch.parameters)
        }
    };
    let suffix = match work.precision {
        Precision::Fp32 | Precision::Tf32 => "f32",
        Precision::Fp16 => "f16",
        Precision::Bf16 => "bf16",
        Precision::Fp8 | Precision::Int8 | Precision::Int4 => {
            let why = format!("no kernels for {}; use fp16, bf16 or fp32", work.precision);
            return Err(DeviceError::unsupported(&work.id, &why));
        }
    };
    let blocks = in_rows.map_or_else(|| blocks(work, out), clamped);
    let function = format!("{name}_{suffix}");
    Ok(Some(Recipe { function, blocks, block: BLOCK, parameters, scratch }))
}

/// Identifies the code that a launch of a step runs, whatever its sizes: one launch loads it for all of
/// them. `None` for other work.
#[must_use]
pub fn family(work: &Work) -> Option<String> {
    let function = || recipe(work).ok().flatten().map(|r| r.function);
    work.step.then(|| function().unwrap_or_else(|| "product".to_owned()))
}

/// One block per row if a block works on a row, otherwise one thread per element.
fn blocks(work: &Work, elements: u64) -> u32 {
    clamped(match &work.task {
        Task::LayerNorm { rows, .. } | Task::Softmax { rows, .. } => u64::from(*rows),
        Task::Attention { heads, tokens, .. } => u64::from(*heads) * u64::from(*tokens),
        Task::Concat { batch, part, .. } => (u64::from(*batch) * part).div_ceil(BLOCK.into()),
        _ => elements.div_ceil(BLOCK.into()),
    })
}

/// The number of blocks, limited to what a grid can have.
fn clamped(blocks: u64) -> u32 {
    /// The largest x dimension of a grid.
    const MOST: u64 = (1 << 31) - 1;
    blocks.clamp(1, MOST) as u32
}
