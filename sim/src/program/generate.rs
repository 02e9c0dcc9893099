//! Compiling a generating model: the kernels of every step that its engine can compose.

use std::collections::BTreeMap;
use std::sync::Arc;

use cotenant_profiles::steps::StepLibrary;
use cotenant_profiles::zoo::decoder::{Decode, Matrix, Prefill, StepLayer, StepShape};

use super::Step;
use super::steps::{Follows, Grid, HostTimes, Shape, StepCode, Table};
use super::{Code, KernelCode, ModelCode, Program};

/// The limits of possible steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StepLimits {
    /// Most sequences.
    pub sequences: u32,
    /// Most tokens.
    pub tokens: u32,
    /// Longest sequence.
    pub context: u32,
    /// Most tokens of all sequences together.
    pub cache: u64,
}

/// Grid sizes per doubling, for the tokens and sequences of attention and for the rows of the output
/// projection. The number of keys that they attend to is kept exact, so that little but the number of
/// blocks is rounded.
const SIZES: u32 = 4;
/// Grid lengths per doubling: a length is off by at most 4.4 %, as often up as down.
const LENGTHS: u32 = 8;
/// Sequence length of the steps that represent a model for policies that plan by batches: a knob.
const TYPICAL: u32 = 1024;

impl Code {
    /// Compiles the steps of a decoder for a device of `cus` CUs.
    ///
    /// # Panics
    /// The library rounds steps. They have to be exact, because kernels are looked up by size here.
    pub fn compile_steps(
        &mut self,
        library: &mut StepLibrary,
        limits: StepLimits,
        host: HostTimes,
        cus: u32,
    ) -> StepCode {
        assert_eq!(library.options().rounding.bits, u32::MAX, "steps as they are");
        let mut named: BTreeMap<String, Vec<u32>> = BTreeMap::new();
        for (i, kernel) in self.kernels.iter().enumerate() {
            named.entry(kernel.id.clone()).or_default().push(i as u32);
        }
        let mut compiled: BTreeMap<usize, u32> = BTreeMap::new();
        let mut layers: BTreeMap<u32, StepLayer> = BTreeMap::new();
        // The kernels of the `wanted` layers of a step.
        let mut of =
            |library: &mut StepLibrary, shape: &StepShape, wanted: fn(&StepLayer) -> bool| {
                let kernels = library.layers(shape, wanted);
                let compile = |k: usize| {
                    *compiled.entry(k).or_insert_with(|| {
                        self.intern(KernelCode::new(&library.kernels()[k], cus), &mut named)
                    })
                };
                let kernels: Vec<u32> = kernels.into_iter().map(compile).collect();
                let step = library.decoder().step(shape);
                let computed = step.segments.iter().flat_map(|s| &s.layers).filter(|l| wanted(l));
                layers.extend(kernels.iter().copied().zip(computed.copied()));
                kernels
            };
        let tokens = token_sizes(limits.tokens);
        let rows = tokens.iter().map(|&n| of(library, &StepShape::new(&[(n, n)], &[]), by_tokens));
        let by_tokens = Table { kernels: transposed(rows.collect()), sizes: tokens };
        let sequences = geometric(1, limits.sequences, SIZES);
        let rows = sequences.iter().map(|&n| of(library, &decoding(n, 1), by_sequences));
        let by_sequences = Table { kernels: transposed(rows.collect()), sizes: sequences.clone() };
        let lengths = geometric(1, limits.context, LENGTHS);
        let mut decode = Grid { sizes: sequences, lengths: lengths.clone(), kernels: vec![] };
        for (i, &n) in decode.sizes.iter().enumerate() {
            // Leave out combinations that exceed what the cache holds.
            let least = if i == 0 { 1 } else { u64::from(decode.sizes[i - 1]) + 1 };
            let fit = |&&l: &&u32| least * u64::from(l) <= limits.cache.saturating_mul(2);
            let lengths = lengths.iter().take_while(fit);
            let row = lengths.map(|&l| of(library, &decoding(n, l), is_decode)[0]);
            decode.kernels.push(row.collect());
        }
        let mut prefill =
            Grid { sizes: geometric(1, limits.tokens, SIZES), lengths, kernels: vec![] };
        for &n in &prefill.sizes {
            let row = prefill.lengths.iter().map(|&l| of(library, &prompt(n, l), is_prefill)[0]);
            prefill.kernels.push(row.collect());
        }
        StepCode {
            launches: launches(library),
            by_tokens,
            by_sequences,
            prefill,
            decode,
            host,
            layers,
            precision: library.options().precision,
        }
    }
}

/// The model of a generating tenant as one that serves batches: a batch of `n` items is a step that
/// generates for `n` sequences of typical length.
#[must_use]
pub fn as_batches(steps: &StepCode, code: &Code, limits: StepLimits, cus: u32) -> ModelCode {
    let (mut model, mut programs) = (ModelCode::default(), vec![]);
    let length = TYPICAL.min(limits.context);
    let mut launches: Vec<Step> = vec![];
    model.program_for.push(0);
    for &n in &steps.by_sequences.sizes {
        let shape = Shape {
            decode_sequences: n,
            decode_context: u64::from(n) * u64::from(length),
            ..Shape::default()
        };
        steps.compose(&shape, &mut launches);
        while model.program_for.len() as u32 <= n {
            model.program_for.push(programs.len() as u32);
        }
        programs.push(Program::of_steps(&launches, code, cus));
    }
    model.programs = Arc::new(programs);
    model
}

/// The launches of a step that contains every kind of launch.
fn launches(library: &StepLibrary) -> Vec<Follows> {
    let step = library.decoder().step(&StepShape::new(&[(1, 1)], &[1]));
    let (mut tokens, mut sequences) = (0, 0);
    let mut launches = vec![];
    for segment in &step.segments {
        let follow = |layer: &StepLayer| match layer {
            l if is_prefill(l) => Follows::Prefill,
            l if is_decode(l) => Follows::Decode,
            l if by_sequences(l) => {
                sequences += 1;
                Follows::Sequences(sequences - 1)
            }
            _ => {
                tokens += 1;
                Follows::Tokens(tokens - 1)
            }
        };
        let once: Vec<Follows> = segment.layers.iter().map(follow).collect();
        (0..segment.repeat).for_each(|_| launches.extend(&once));
    }
    launches
}

fn is_prefill(layer: &StepLayer) -> bool {
    matches!(layer, StepLayer::PrefillAttention { .. })
}

fn is_decode(layer: &StepLayer) -> bool {
    matches!(layer, StepLayer::DecodeAttention { .. })
}

fn by_sequences(layer: &StepLayer) -> bool {
    matches!(
        layer,
        StepLayer::Gather { .. }
            | StepLayer::Sample { .. }
            | StepLayer::Linear { matrix: Matrix::LmHead, .. }
    )
}

fn by_tokens(layer: &StepLayer) -> bool {
    !is_prefill(layer) && !is_decode(layer) && !by_sequences(layer)
}

/// A step in which this many sequences of one length generate.
fn decoding(sequences: u32, length: u32) -> StepShape {
    let context = u64::from(sequences) * u64::from(length);
    StepShape { decode: Decode { sequences, context }, ..StepShape::default() }
}

/// A step with this many new prompt tokens, each of which attends to `keys` keys on average: one prompt
/// with a cached prefix, or several short prompts.
fn prompt(tokens: u32, keys: u32) -> StepShape {
    let (n, keys) = (u64::from(tokens), u64::from(keys));
    let seen = n * keys;
    let prefill = if 2 * keys > n {
        let cached = keys - n.div_ceil(2);
        Prefill { sequences: 1, tokens, context: cached + n, seen }
    } else {
        let sequences = (n / (2 * keys - 1)).max(1) as u32;
        Prefill { sequences, tokens, context: n, seen }
    };
    StepShape { prefill, ..StepShape::default() }
}

/// The sizes that token counts are rounded up to: up to 512 those of the graphs that vLLM captures, then
/// multiples of 16, 64 and 128, like the tiles of matrix products.
fn token_sizes(most: u32) -> Vec<u32> {
    let captured = [1, 2, 4].into_iter().chain((8..256).step_by(8)).chain((256..512).step_by(16));
    let further = (512..2048).step_by(16).chain((2048..8192).step_by(64));
    let all = captured.chain(further).chain((8192..).step_by(128));
    all.take_while(|&n| n < most).chain([most]).collect()
}

/// Sizes from `least` to `most`: `per` sizes per doubling, and every integer while they are small.
fn geometric(least: u32, most: u32, per: u32) -> Vec<u32> {
    let mut sizes = vec![];
    let mut n = u64::from(least);
    while n < u64::from(most) {
        sizes.push(n as u32);
        let doubling = n.next_power_of_two() >> u32::from(!n.is_power_of_two());
        n += (doubling / u64::from(per)).max(1);
    }
    sizes.push(most);
    sizes
}

/// Transposes rows by size into rows by kernel.
fn transposed(by_size: Vec<Vec<u32>>) -> Vec<Vec<u32>> {
    let rows = by_size.first().map_or(0, Vec::len);
    (0..rows).map(|row| by_size.iter().map(|kernels| kernels[row]).collect()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_ascend_to_the_most() {
        assert_eq!(geometric(1, 20, 4), [1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20]);
        for most in [1, 7, 512, 513, 8192, 10_000] {
            let sizes = token_sizes(most);
            assert!(sizes.windows(2).all(|w| w[0] < w[1]) && sizes.last() == Some(&most));
        }
    }

    #[test]
    fn a_prompt_looks_at_as_many_keys_as_asked_for() {
        let p = prompt(100, 400).prefill;
        assert_eq!((p.sequences, p.tokens, p.seen, p.context), (1, 100, 40_000, 450));
        let p = prompt(1024, 64).prefill;
        assert_eq!((p.sequences, p.seen, p.context), (8, 65_536, 1024));
    }
}
