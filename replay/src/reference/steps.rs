//! What a step's kernels must compute, evaluated on the CPU in double precision.

use crate::recipe::places;
use crate::work::{Attend, PAGE, StepTask};

/// The result of a task on `x`, one list per operand.
pub(super) fn compute(task: &StepTask, x: &[Vec<f64>]) -> Vec<f64> {
    let size = |n: u32| n as usize;
    match *task {
        StepTask::RmsNorm { width, residual, .. } => rms_norm(x, size(width), residual),
        StepTask::Rotary { heads, width, .. } => rotary(x, size(heads), size(width)),
        StepTask::CacheWrite { tokens, width } => {
            let (width, places) = (size(width), size(places(tokens)));
            let mut cache = vec![0.0; 2 * places * width];
            for (token, place) in x[2].iter().enumerate() {
                for (half, from) in x[..2].iter().enumerate() {
                    let at = (half * places + *place as usize) * width;
                    cache[at..at + width].copy_from_slice(&from[token * width..][..width]);
                }
            }
            cache
        }
        StepTask::Prefill(a) | StepTask::Decode(a) => attention(&a, x),
        StepTask::Gated { inner, .. } => {
            let inner = size(inner);
            let silu = |v: f64| v / (1.0 + libm::exp(-v));
            let gated = |row: &[f64]| -> Vec<f64> {
                (0..inner).map(|i| silu(row[i]) * row[inner + i]).collect()
            };
            x[0].chunks(2 * inner).flat_map(gated).collect()
        }
        StepTask::Route { experts, active, .. } => {
            x[0].chunks(size(experts)).flat_map(|row| best(row, size(active))).collect()
        }
        StepTask::SumExperts { active, width, .. } => {
            let (active, width) = (size(active), size(width));
            let sum = |(rows, weights): (&[f64], &[f64])| -> Vec<f64> {
                let term = |i: usize| (0..active).map(|e| rows[e * width + i] * weights[e]).sum();
                (0..width).map(term).collect()
            };
            x[0].chunks(active * width).zip(x[1].chunks(active)).flat_map(sum).collect()
        }
        StepTask::Gather { width, .. } => {
            let width = size(width);
            x[1].iter().flat_map(|&r| x[0][r as usize * width..][..width].to_vec()).collect()
        }
        StepTask::Sample { vocabulary, .. } => {
            let most = |row: &[f64]| row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            x[0].chunks(size(vocabulary)).map(most).collect()
        }
        StepTask::Biased { m, n, k } => {
            let (m, n, k) = (size(m), size(n), size(k));
            let element = |i: usize| {
                let (row, column) = (i / n, i % n);
                let sum: f64 = (0..k).map(|j| x[0][row * k + j] * x[1][j * n + column]).sum();
                sum + x[2][column]
            };
            (0..m * n).map(element).collect()
        }
    }
}

fn rms_norm(x: &[Vec<f64>], width: usize, residual: bool) -> Vec<f64> {
    let sums: Vec<f64> = match residual {
        true => x[0].iter().zip(&x[1]).map(|(a, b)| a + b).collect(),
        false => x[0].clone(),
    };
    let gamma = &x[1 + usize::from(residual)];
    let mut out = Vec::with_capacity(2 * sums.len());
    for row in sums.chunks(width) {
        let square = row.iter().map(|v| v * v).sum::<f64>() / width as f64;
        let scale = 1.0 / (square + 1e-5).sqrt();
        out.extend(row.iter().zip(gamma).map(|(v, g)| v * scale * g));
    }
    if residual {
        out.extend(sums);
    }
    out
}

fn rotary(x: &[Vec<f64>], heads: usize, width: usize) -> Vec<f64> {
    let half = width / 2;
    let mut out = Vec::with_capacity(x[0].len());
    for (token, row) in x[0].chunks(heads * width).enumerate() {
        let angles = &x[2][x[1][token] as usize * width..][..width];
        for head in row.chunks(width) {
            for i in 0..width {
                let (cos, sin) = (angles[i % half], angles[half + i % half]);
                let (a, b) = (head[i % half], head[half + i % half]);
                out.push(if i < half { a * cos - b * sin } else { b * cos + a * sin });
            }
        }
    }
    out
}

/// Weights of the best `active` entries of a row, best first. They sum to one.
fn best(row: &[f64], active: usize) -> Vec<f64> {
    let mut order: Vec<usize> = (0..row.len()).collect();
    order.sort_by(|&a, &b| row[b].total_cmp(&row[a]).then(a.cmp(&b)));
    let top = row[order[0]];
    let powers: Vec<f64> = order[..active].iter().map(|&i| libm::exp(row[i] - top)).collect();
    let sum: f64 = powers.iter().sum();
    powers.iter().map(|p| p / sum).collect()
}

fn attention(a: &Attend, x: &[Vec<f64>]) -> Vec<f64> {
    let [heads, kv_heads, width] = [a.heads, a.kv_heads, a.width].map(|n| n as usize);
    let (group, page) = (heads / kv_heads, PAGE as usize);
    let root = 1.0 / (width as f64).sqrt();
    let mut out = vec![0.0; x[0].len()];
    let mut first = 0;
    for sequence in 0..a.sequences {
        let (new, cached) = a.sequence(sequence);
        let pages = &x[3][(sequence * a.pages_each()) as usize..];
        let row = |key: usize, head: usize| {
            ((pages[key / page] as usize * page + key % page) * kv_heads + head) * width
        };
        for token in 0..new as usize {
            let seen = cached as usize + token + 1;
            let from = seen.saturating_sub(a.window as usize);
            for head in 0..heads {
                let at = ((first + token) * heads + head) * width;
                let query = &x[0][at..at + width];
                let dot = |key: usize| {
                    let keys = &x[1][row(key, head / group)..][..width];
                    query.iter().zip(keys).map(|(q, k)| q * k).sum::<f64>() * root
                };
                let scores: Vec<f64> = (from..seen).map(dot).collect();
                let top = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let powers: Vec<f64> = scores.iter().map(|s| libm::exp(s - top)).collect();
                let sum: f64 = powers.iter().sum();
                for (key, power) in (from..seen).zip(&powers) {
                    let values = &x[2][row(key, head / group)..][..width];
                    for (o, v) in out[at..at + width].iter_mut().zip(values) {
                        *o += power / sum * v;
                    }
                }
            }
        }
        first += new as usize;
    }
    out
}
