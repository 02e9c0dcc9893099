//! Operands, results and launches of a step's work.

use super::Parameter::{Input, Number, Output, Scratch};
use super::{BLOCK, Operand, Parameter, SCATTERED, Shapes};
use crate::work::{Attend, CHUNK, MOST_EXPERTS, PAGE, StepTask, TILE, WIDEST_HEAD};

/// Positions in the table of angles.
pub(super) const POSITIONS: u32 = 4096;

fn real(elements: u64) -> Operand {
    Operand { elements, below: None, distinct: false }
}

fn of(n: &[u32]) -> u64 {
    n.iter().map(|&x| u64::from(x)).product()
}

/// Counters at the start of a kernel's scratch memory, as in the source.
const COUNTERS: u64 = 16_384;

/// Slots of a cache that new tokens are written to, or pages of a cache: a whole number of groups of
/// [`SCATTERED`].
pub(crate) fn places(tokens: u32) -> u32 {
    tokens.next_multiple_of(SCATTERED)
}

pub(super) fn shapes(task: &StepTask) -> Shapes {
    let index = |elements: u32, below: u32| Operand {
        elements: u64::from(elements),
        below: Some(below),
        distinct: false,
    };
    let each_once = |elements, below| Operand { distinct: true, ..index(elements, below) };
    let (inputs, output) = match *task {
        StepTask::RmsNorm { rows, width, residual } => {
            let n = of(&[rows, width]);
            let added = residual.then(|| real(n));
            let inputs = [real(n)].into_iter().chain(added).chain([real(width.into())]);
            (inputs.collect(), n * if residual { 2 } else { 1 })
        }
        StepTask::Rotary { tokens, heads, width } => {
            let n = of(&[tokens, heads, width]);
            (vec![real(n), index(tokens, POSITIONS), real(of(&[POSITIONS, width]))], n)
        }
        StepTask::CacheWrite { tokens, width } => {
            let n = of(&[tokens, width]);
            let places = places(tokens);
            (vec![real(n), real(n), each_once(tokens, places)], 2 * of(&[places, width]))
        }
        StepTask::Prefill(a) | StepTask::Decode(a) => {
            let queries = of(&[a.tokens, a.heads, a.width]);
            let pages = a.sequences * a.pages_each();
            let cache = of(&[places(pages), PAGE, a.kv_heads, a.width]);
            (
                vec![real(queries), real(cache), real(cache), each_once(pages, places(pages))],
                queries,
            )
        }
        StepTask::Gated { tokens, inner } => {
            (vec![real(2 * of(&[tokens, inner]))], of(&[tokens, inner]))
        }
        StepTask::Route { tokens, experts, active } => {
            (vec![real(of(&[tokens, experts]))], of(&[tokens, active]))
        }
        StepTask::SumExperts { tokens, active, width } => (
            vec![real(of(&[tokens, active, width])), real(of(&[tokens, active]))],
            of(&[tokens, width]),
        ),
        StepTask::Gather { rows, width } => {
            (vec![real(of(&[rows, width])), index(rows, rows)], of(&[rows, width]))
        }
        StepTask::Sample { rows, vocabulary } => {
            (vec![real(of(&[rows, vocabulary]))], u64::from(rows))
        }
        StepTask::Biased { m, n, k } => {
            (vec![real(of(&[m, k])), real(of(&[k, n])), real(n.into())], of(&[m, n]))
        }
    };
    Shapes { inputs, output }
}

/// The launch of one of our kernels.
pub(crate) struct Launch {
    /// Its name without the precision.
    pub(crate) name: &'static str,
    pub(crate) blocks: u64,
    pub(crate) parameters: Vec<Parameter>,
    /// Bytes besides the operands, zero before the first launch.
    pub(crate) scratch: u64,
}

/// The launch of a task; `None` if a library runs it.
///
/// # Errors
/// The kernel does not support the size.
pub(super) fn launch(task: &StepTask) -> Result<Option<Launch>, &'static str> {
    let number = |n: u32| Number(u64::from(n));
    let plain = |name, blocks: u64, parameters| Launch { name, blocks, parameters, scratch: 0 };
    Ok(Some(match *task {
        StepTask::Biased { .. } => return Ok(None),
        StepTask::RmsNorm { rows, width, residual: false } => {
            plain("rms_norm", rows.into(), vec![Input(0), Input(1), Output, number(width)])
        }
        StepTask::RmsNorm { rows, width, residual: true } => {
            let operands = vec![Input(0), Input(1), Input(2), Output];
            let sizes = vec![number(width), Number(of(&[rows, width]))];
            plain("rms_norm_add", rows.into(), [operands, sizes].concat())
        }
        StepTask::Rotary { tokens, heads, width } => {
            let operands = vec![Input(0), Input(1), Input(2), Output];
            plain("rotary", tokens.into(), [operands, vec![number(heads), number(width)]].concat())
        }
        StepTask::CacheWrite { tokens, width } => {
            let operands = vec![Input(0), Input(1), Input(2), Output];
            let sizes = vec![number(width), Number(of(&[places(tokens), width]))];
            plain("cache_write", tokens.into(), [operands, sizes].concat())
        }
        StepTask::Prefill(a) => {
            fits(&a)?;
            let tiles = a.most_tokens().div_ceil(TILE);
            let operands = vec![Input(0), Input(1), Input(2), Input(3), Output];
            let sizes = [number(a.sequences), number(a.tokens), Number(a.cached)];
            let more = [a.pages_each(), a.window, a.heads, a.kv_heads, a.width, tiles].map(number);
            let parameters = [operands, sizes.to_vec(), more.to_vec()].concat();
            plain("prefill_attention", of(&[tiles, a.heads, a.sequences]), parameters)
        }
        StepTask::Decode(a) => {
            fits(&a)?;
            let parts = a.parts();
            let operands = vec![Input(0), Input(1), Input(2), Input(3), Output, Scratch];
            let sizes = [number(a.sequences), Number(a.cached)];
            let more = [a.pages_each(), a.window, a.heads, a.kv_heads, a.width, parts].map(number);
            counted(of(&[a.sequences, a.kv_heads]))?;
            // A counter per block of keys, then the sums of every part with their scales.
            let sums = 4 * of(&[a.sequences, a.heads, parts, a.width + 2]);
            Launch {
                name: "decode_attention",
                blocks: of(&[parts, a.kv_heads, a.sequences]),
                parameters: [operands, sizes.to_vec(), more.to_vec()].concat(),
                scratch: 4 * COUNTERS + if parts > 1 { sums } else { 0 },
            }
        }
        StepTask::Gated { tokens, inner } => {
            plain("silu_mul", tokens.into(), vec![Input(0), Output, number(inner)])
        }
        StepTask::Route { tokens, experts, active } => {
            if experts > MOST_EXPERTS || active > experts {
                return Err("at most 1024 experts, and no more of them a token");
            }
            let sizes = [number(experts), number(active)];
            Launch {
                name: "route",
                blocks: tokens.into(),
                parameters: [vec![Input(0), Output, Scratch], sizes.to_vec()].concat(),
                scratch: 4 * of(&[tokens, active]),
            }
        }
        StepTask::SumExperts { tokens, active, width } => {
            let sizes = vec![number(active), number(width)];
            plain("sum_experts", tokens.into(), [vec![Input(0), Input(1), Output], sizes].concat())
        }
        StepTask::Gather { rows, width } => {
            let n = of(&[rows, width]);
            let parameters = vec![Input(0), Input(1), Output, Number(n), number(width)];
            plain("embedding", n.div_ceil(BLOCK.into()), parameters)
        }
        StepTask::Sample { rows, vocabulary } => {
            let chunks = vocabulary.div_ceil(CHUNK);
            let sizes = [number(rows), number(vocabulary), number(chunks)];
            counted(rows.into())?;
            // A counter per row, the logits, the largest logit of each block with its position, and the
            // choice.
            let words = of(&[rows, vocabulary]) + 2 * of(&[rows, chunks]) + u64::from(rows);
            Launch {
                name: "sample",
                blocks: of(&[rows, chunks]),
                parameters: [vec![Input(0), Output, Scratch], sizes.to_vec()].concat(),
                scratch: 4 * (COUNTERS + words),
            }
        }
    }))
}

fn counted(blocks: u64) -> Result<(), &'static str> {
    if blocks > COUNTERS {
        return Err("sequences times heads of keys, or rows of logits: at most 16384");
    }
    Ok(())
}

fn fits(a: &Attend) -> Result<(), &'static str> {
    if a.width > WIDEST_HEAD {
        return Err("heads of at most 256 elements");
    }
    if a.kv_heads == 0 || !a.heads.is_multiple_of(a.kv_heads) {
        return Err("as many heads of queries for each head of keys");
    }
    Ok(())
}
