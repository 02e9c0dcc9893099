//! What the kernels must compute, evaluated on the CPU in double precision, and the random operands for
//! the comparison.

mod steps;

use cotenant_profiles::lower::Precision;
use cotenant_profiles::zoo::layer::{Conv, Function, Pool, PoolKind};

use crate::recipe::{Operand, SCATTERED, Shapes};
use crate::work::{StepTask, Task, Work};

/// The length after which an operand repeats: large operands would take longer to draw than to use. It
/// is odd, so that rows differ.
const PERIOD: u64 = (1 << 18) - 5;

/// Operands of `work`, equal on every machine: numbers in [-1, 1) that the precision holds exactly, or
/// indices.
#[must_use]
pub fn operands(shapes: &Shapes, precision: Precision) -> Vec<Vec<f64>> {
    operands_of(0, shapes, precision)
}

/// As [`operands`], with other numbers for every `set`.
#[must_use]
pub fn operands_of(set: usize, shapes: &Shapes, precision: Precision) -> Vec<Vec<f64>> {
    let first = set * shapes.inputs.len();
    let all = |(i, o): (usize, &Operand)| {
        pattern(first + i, o, precision).iter().copied().cycle().take(o.elements as usize).collect()
    };
    shapes.inputs.iter().enumerate().map(all).collect()
}

/// The values that operand number `i` repeats.
fn pattern(i: usize, operand: &Operand, precision: Precision) -> Vec<f64> {
    let mut state = 0x9e37_79b9_7f4a_7c15u64.wrapping_mul(i as u64 + 1);
    let drawn = 0..operand.elements.min(PERIOD);
    if operand.distinct {
        let group = u64::from(SCATTERED);
        return drawn.map(|n| (n / group * group + (37 * n + 11) % group) as f64).collect();
    }
    drawn.map(|_| draw(&mut state, operand.below, precision)).collect()
}

/// Operand number `i` as device bytes: the content of [`operands`], without converting all of it from
/// doubles.
#[must_use]
pub fn operand_bytes(i: usize, operand: &Operand, precision: Precision) -> Vec<u8> {
    let (once, size) = operand_once(i, operand, precision);
    let mut all = Vec::with_capacity(size);
    while all.len() < size {
        all.extend_from_slice(&once[..once.len().min(size - all.len())]);
    }
    all
}

/// The bytes that operand number `i` repeats, and its size in bytes.
#[must_use]
pub fn operand_once(i: usize, operand: &Operand, precision: Precision) -> (Vec<u8>, usize) {
    let once = to_bytes(&pattern(i, operand, precision), operand, precision);
    (once, operand_size(operand, precision))
}

/// Size of an operand on the device, in bytes.
#[must_use]
pub fn operand_size(operand: &Operand, precision: Precision) -> usize {
    let width = if operand.below.is_some() { 4 } else { precision.bytes() };
    usize::try_from(operand.elements * width).unwrap_or(usize::MAX)
}

/// The next number of the sequence SplitMix64.
fn draw(state: &mut u64, below: Option<u32>, precision: Precision) -> f64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^= z >> 31;
    match below {
        Some(bound) => (z % u64::from(bound.max(1))) as f64,
        // Multiples of a step that the precision holds exactly, so that both sides start from the same
        // numbers.
        None => {
            let steps = match precision {
                Precision::Fp16 => 10,
                Precision::Bf16 => 7,
                _ => 23,
            };
            ((z >> (64 - steps - 1)) as f64) / f64::from(1u32 << steps) - 1.0
        }
    }
}

/// Converts operands to device bytes.
#[must_use]
pub fn to_bytes(values: &[f64], operand: &Operand, precision: Precision) -> Vec<u8> {
    let each = |v: &f64| -> Vec<u8> {
        match (operand.below, precision) {
            (Some(_), _) => (*v as u32).to_le_bytes().to_vec(),
            (None, Precision::Fp16) => to_half(*v).to_le_bytes().to_vec(),
            // A bf16 number is a single-precision number without its lower half.
            (None, Precision::Bf16) => (*v as f32).to_le_bytes()[2..].to_vec(),
            _ => (*v as f32).to_le_bytes().to_vec(),
        }
    };
    values.iter().flat_map(each).collect()
}

/// Converts device bytes to results.
#[must_use]
pub fn from_bytes(bytes: &[u8], precision: Precision) -> Vec<f64> {
    if precision == Precision::Fp16 {
        let (halves, _) = bytes.as_chunks::<2>();
        return halves.iter().map(|b| from_half(u16::from_le_bytes(*b))).collect();
    }
    if precision == Precision::Bf16 {
        let (halves, _) = bytes.as_chunks::<2>();
        return halves.iter().map(|b| f64::from(f32::from_le_bytes([0, 0, b[0], b[1]]))).collect();
    }
    let (words, _) = bytes.as_chunks::<4>();
    words.iter().map(|b| f64::from(f32::from_le_bytes(*b))).collect()
}

/// A number of at most 11 significant bits within half precision's normal range, or zero.
fn to_half(v: f64) -> u16 {
    let bits = (v as f32).to_bits();
    let (sign, exponent) = ((bits >> 16) & 0x8000, (bits >> 23) & 0xff);
    let magnitude = match exponent {
        // Below 2^-14: a subnormal, exact for multiples of 2^-24.
        0..113 => (v.abs() * f64::from(1u32 << 24)) as u32,
        _ => ((exponent - 112) << 10) | ((bits >> 13) & 0x3ff),
    };
    (sign | magnitude) as u16
}

fn from_half(h: u16) -> f64 {
    let sign = if h & 0x8000 == 0 { 1.0 } else { -1.0 };
    let (exponent, fraction) = ((h >> 10) & 0x1f, f64::from(h & 0x3ff));
    sign * match exponent {
        0 => fraction * 2f64.powi(-24),
        31 if fraction == 0.0 => f64::INFINITY,
        31 => f64::NAN,
        e => (1.0 + fraction / 1024.0) * 2f64.powi(i32::from(e) - 15),
    }
}

/// Computes only the elements `picks` of a product's result, given by index: large products have too
/// many elements to compute them all.
#[must_use]
pub fn product_at(work: &Work, picks: &[u64]) -> Vec<f64> {
    let Task::Gemm { m, n, k, .. } = work.task else { return Vec::new() };
    let (m, n, k) = (u64::from(m), u64::from(n), u64::from(k));
    let shapes = crate::recipe::shapes(work);
    let [a, b] = [0, 1].map(|i| pattern(i, &shapes.inputs[i], work.precision));
    let at = |x: &[f64], i: u64| x[(i % x.len() as u64) as usize];
    let element = |&i: &u64| {
        let (product, row, column) = (i / (m * n), i / n % m, i % n);
        (0..k)
            .map(|j| at(&a, (product * m + row) * k + j) * at(&b, (product * k + j) * n + column))
            .sum()
    };
    picks.iter().map(element).collect()
}

/// `‖a - b‖ / ‖b‖`; infinite if the lengths differ or a value is not finite.
#[must_use]
pub fn distance(found: &[f64], expected: &[f64]) -> f64 {
    let off: f64 = found.iter().zip(expected).map(|(a, b)| (a - b) * (a - b)).sum();
    let norm: f64 = expected.iter().map(|b| b * b).sum();
    let off = (off / norm.max(f64::MIN_POSITIVE)).sqrt();
    if found.len() == expected.len() && off.is_finite() { off } else { f64::INFINITY }
}

/// The largest [`distance`] that rounding alone explains, in units of the arithmetic's own step.
#[must_use]
pub fn tolerance(work: &Work) -> f64 {
    // Sums of terms with random signs lose few bits, however long they are: accumulation is in FP32.
    match (&work.task, work.precision) {
        (
            Task::Gemm { .. } | Task::Conv { .. } | Task::Step(StepTask::Biased { .. }),
            Precision::Tf32,
        ) => 64.0 * 2f64.powi(-11),
        (_, Precision::Fp16) => 64.0 * 2f64.powi(-11),
        (_, Precision::Bf16) => 8.0 * 2f64.powi(-8),
        _ => 64.0 * 2f64.powi(-24),
    }
}

/// The result of `work` on `x`, one list per operand.
#[must_use]
pub fn compute(work: &Work, x: &[Vec<f64>], output: u64) -> Vec<f64> {
    let size = |n: u32| n as usize;
    let at = |f: &dyn Fn(usize) -> f64| (0..output as usize).map(f).collect::<Vec<f64>>();
    match &work.task {
        Task::Spin { .. } => Vec::new(),
        Task::Gemm { m, n, k, .. } => {
            let (m, n, k) = (size(*m), size(*n), size(*k));
            at(&|i| {
                let (g, r, c) = (i / (m * n), i / n % m, i % n);
                (0..k).map(|j| x[0][(g * m + r) * k + j] * x[1][(g * k + j) * n + c]).sum()
            })
        }
        Task::Conv { conv, .. } => at(&|i| conv_at(conv, &x[0], &x[1], i)),
        Task::BatchNorm { channels, pixels, .. } => at(&|i| {
            let c = i / size(*pixels) % size(*channels);
            x[0][i] * x[1][c] + x[2][c]
        }),
        Task::LayerNorm { width, .. } => rows(&x[0], size(*width), |row| {
            let n = row.len() as f64;
            let mean = row.iter().sum::<f64>() / n;
            let variance = row.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>() / n;
            let scale = 1.0 / (variance + 1e-5).sqrt();
            (0..row.len()).map(|i| (row[i] - mean) * scale * x[1][i] + x[2][i]).collect()
        }),
        Task::Softmax { width, .. } => rows(&x[0], size(*width), softmax),
        Task::Pointwise { function, .. } => at(&|i| {
            let y = x.get(1).map_or(0.5, |y| y[i]);
            pointwise(*function, x[0][i], y)
        }),
        Task::Pool { pool, .. } => at(&|i| pool_at(pool, &x[0], i)),
        Task::AdaptivePool { input, output, .. } => at(&|i| adaptive_at(*input, *output, &x[0], i)),
        Task::Embedding { width, .. } => at(&|i| {
            let width = size(*width);
            x[0][x[1][i / width] as usize * width + i % width]
        }),
        Task::Concat { part, whole, .. } => at(&|i| {
            let (item, place) = (i / *whole as usize, i % *whole as usize);
            if place < *part as usize { x[0][item * *part as usize + place] } else { 0.0 }
        }),
        Task::Shuffle { channels, groups, pixels, .. } => at(&|i| {
            let (c, g, p) = (size(*channels), size(*groups), size(*pixels));
            let to = i / p % c;
            x[0][(i / (p * c) * c + to % g * (c / g) + to / g) * p + i % p]
        }),
        Task::Copy { .. } => x[0].clone(),
        Task::Attention { tokens, width, .. } => attention(x, size(*tokens), size(*width)),
        Task::Bias { run, values, .. } => at(&|i| x[0][i] + x[1][i / size(*run) % size(*values)]),
        Task::Step(task) => steps::compute(task, x),
    }
}

fn rows(x: &[f64], width: usize, f: impl Fn(&[f64]) -> Vec<f64>) -> Vec<f64> {
    x.chunks(width.max(1)).flat_map(f).collect()
}

fn softmax(row: &[f64]) -> Vec<f64> {
    let most = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let powers: Vec<f64> = row.iter().map(|v| libm::exp(v - most)).collect();
    let sum: f64 = powers.iter().sum();
    powers.iter().map(|p| p / sum).collect()
}

fn pointwise(function: Function, x: f64, y: f64) -> f64 {
    match function {
        Function::Relu => x.max(0.0),
        Function::Relu6 => x.clamp(0.0, 6.0),
        Function::Gelu => 0.5 * x * (1.0 + libm::erf(x * std::f64::consts::FRAC_1_SQRT_2)),
        Function::Silu => x / (1.0 + libm::exp(-x)),
        Function::Sigmoid => 1.0 / (1.0 + libm::exp(-x)),
        Function::Tanh => libm::tanh(x),
        Function::Pow => x * x * x,
        Function::Scale => x * 0.125,
        Function::Add => x + y,
        Function::Mul => x * y,
        Function::Mask => {
            if y > 0.0 {
                x
            } else {
                -10_000.0
            }
        }
    }
}

fn conv_at(c: &Conv, x: &[f64], w: &[f64], i: usize) -> f64 {
    let [oh, ow] = c.output().map(|n| n as usize);
    let [h, width] = c.input.map(|n| n as usize);
    let [r, s] = c.kernel.map(|n| n as usize);
    let (item, channel) = (i / (oh * ow) / c.out_ch as usize, i / (oh * ow) % c.out_ch as usize);
    let (each_in, each_out) = ((c.in_ch / c.groups) as usize, (c.out_ch / c.groups) as usize);
    let first = channel / each_out * each_in;
    let place = |out: usize, tap: usize, axis: usize| {
        let at = (out * c.stride[axis] as usize + tap * c.dilation as usize)
            .checked_sub(c.pad[axis] as usize)?;
        (at < [h, width][axis]).then_some(at)
    };
    let mut sum = 0.0;
    for ch in 0..each_in {
        for (a, b) in (0..r).flat_map(|a| (0..s).map(move |b| (a, b))) {
            let (Some(y), Some(z)) = (place(i / ow % oh, a, 0), place(i % ow, b, 1)) else {
                continue;
            };
            let input = ((item * c.in_ch as usize + first + ch) * h + y) * width + z;
            sum += x[input] * w[((channel * each_in + ch) * r + a) * s + b];
        }
    }
    sum
}

fn pool_at(p: &Pool, x: &[f64], i: usize) -> f64 {
    let [oh, ow] = p.output().map(i64::from);
    let [h, w] = p.input.map(i64::from);
    let (i, f, stride, pad) =
        (i as i64, i64::from(p.kernel), i64::from(p.stride), i64::from(p.pad));
    let span = |out: i64, n: i64| {
        let start = out * stride - pad;
        (start, (start + f).min(n + pad))
    };
    let ((top, bottom), (left, right)) = (span(i / ow % oh, h), span(i % ow, w));
    let plane = i / (ow * oh);
    let inside = (top.max(0)..bottom.min(h))
        .flat_map(|y| (left.max(0)..right.min(w)).map(move |z| (y, z)))
        .map(|(y, z)| x[((plane * h + y) * w + z) as usize]);
    match p.kind {
        PoolKind::Max => inside.fold(f64::NEG_INFINITY, f64::max),
        PoolKind::Average => inside.sum::<f64>() / ((bottom - top) * (right - left)) as f64,
    }
}

fn adaptive_at(input: [u32; 2], output: [u32; 2], x: &[f64], i: usize) -> f64 {
    let ([h, w], [oh, ow]) = (input.map(|n| n as usize), output.map(|n| n as usize));
    let (c, r) = (i % ow, i / ow % oh);
    let (rows, columns) =
        (r * h / oh..((r + 1) * h).div_ceil(oh), c * w / ow..((c + 1) * w).div_ceil(ow));
    let area = (rows.len() * columns.len()) as f64;
    let plane = i / (ow * oh) * h;
    let sum: f64 = rows
        .flat_map(|y| columns.clone().map(move |z| (y, z)))
        .map(|(y, z)| x[(plane + y) * w + z])
        .sum();
    sum / area
}

fn attention(x: &[Vec<f64>], tokens: usize, width: usize) -> Vec<f64> {
    let row = |x: &[f64], r: usize| x[r * width..(r + 1) * width].to_vec();
    let queries = x[0].len() / width;
    let mut out = Vec::with_capacity(x[0].len());
    for q in 0..queries {
        let head = q / tokens * tokens;
        let query = row(&x[0], q);
        let scores: Vec<f64> = (0..tokens)
            .map(|j| {
                let dot: f64 = query.iter().zip(row(&x[1], head + j)).map(|(a, b)| a * b).sum();
                dot / (width as f64).sqrt()
            })
            .collect();
        let weights = softmax(&scores);
        for d in 0..width {
            out.push((0..tokens).map(|j| weights[j] * x[2][(head + j) * width + d]).sum());
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::shapes;

    #[test]
    fn half_precisions_hold_every_operand_exactly() {
        for precision in [Precision::Fp16, Precision::Bf16] {
            let work = Work::new(Task::Copy { elements: 300_000 }, precision);
            let shapes = shapes(&work);
            let x = operands(&shapes, precision);
            let whole = operand_bytes(0, &shapes.inputs[0], precision);
            assert_eq!(from_bytes(&whole, precision), x[0]);
            let bytes = to_bytes(&x[0], &shapes.inputs[0], precision);
            assert_eq!(from_bytes(&bytes, precision), x[0]);
            assert!(x[0].iter().any(|v| *v < -0.9) && x[0].iter().any(|v| *v > 0.9));
        }
    }

    #[test]
    fn picked_elements_of_a_product_are_those_of_the_whole() {
        // Long enough that its operands repeat.
        let work = Work::new(Task::Gemm { m: 3, n: 5, k: 30_000, count: 3 }, Precision::Fp32);
        let of = shapes(&work);
        let whole = compute(&work, &operands(&of, work.precision), of.output);
        let picks: Vec<u64> = (0..of.output).rev().collect();
        let mut picked = product_at(&work, &picks);
        picked.reverse();
        assert_eq!(picked, whole);
        assert!(of.inputs[1].elements > PERIOD);
    }

    #[test]
    fn known_answers() {
        let conv = Conv {
            in_ch: 1,
            out_ch: 1,
            kernel: [3, 3],
            stride: [1, 1],
            pad: [1, 1],
            dilation: 1,
            groups: 1,
            input: [3, 3],
            bias: false,
        };
        let image: Vec<f64> = (1..=9).map(f64::from).collect();
        let sums = compute(
            &Work::new(Task::Conv { batch: 1, conv }, Precision::Fp32),
            &[image.clone(), vec![1.0; 9]],
            9,
        );
        assert_eq!(sums, [12.0, 21.0, 16.0, 27.0, 45.0, 33.0, 24.0, 39.0, 28.0]);
        let gemm = Task::Gemm { m: 2, n: 1, k: 2, count: 1 };
        let product = compute(
            &Work::new(gemm, Precision::Fp32),
            &[vec![1.0, 2.0, 3.0, 4.0], vec![5.0, 6.0]],
            2,
        );
        assert_eq!(product, [17.0, 39.0]);
        let kind = PoolKind::Average;
        let pool =
            Pool { kind, channels: 1, input: [3, 3], kernel: 2, stride: 2, pad: 0, ceil: true };
        let pooled =
            compute(&Work::new(Task::Pool { planes: 1, pool }, Precision::Fp32), &[image], 4);
        assert_eq!(pooled, [3.0, 4.5, 7.5, 9.0]);
        assert_eq!(distance(&[1.0, f64::NAN], &[1.0, 1.0]), f64::INFINITY);
    }
}
