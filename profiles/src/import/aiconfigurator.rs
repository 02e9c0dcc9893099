//! The operator tables of AIConfigurator (github.com/ai-dynamo/aiconfigurator): measured latencies of
//! products and attention on whole GPUs, by shape. A model of the zoo gets them as its points on all
//! CUs, and its computed curves are scaled through them.

mod steps;
mod tables;

pub use steps::aiconfigurator_layers;

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;

use super::{Import, ImportError, read_text};
use crate::Device;
use crate::analytic::{self, Options};
use crate::files::{FileError, Problem};
use crate::kernel::{Kernel, Source};
use crate::lower::{Gemm, Precision, gemm};
use crate::roofline;
use crate::zoo::ModelSpec;

/// What the tables hold in one precision: the fastest of each shape, ns.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Operators {
    /// `gemm_perf`: by `m`, `n`, `k`.
    pub products: BTreeMap<[u32; 3], f64>,
    /// `encoder_attention_perf` or `context_attention_perf`: by `batch_size × num_heads`, `isl`,
    /// `head_dim`.
    pub attention: BTreeMap<[u32; 3], f64>,
    /// `context_attention_perf` and `generation_attention_perf`: whole calls.
    pub calls: BTreeMap<Call, f64>,
    /// `moe_perf`, one GPU: the experts of a layer, by [`Experts`]. How tokens spread over the experts is
    /// drawn from several distributions: the sum of their times, and how many there are.
    pub experts: BTreeMap<Experts, (f64, u32)>,
    /// Rows read, of any precision.
    pub rows: usize,
    /// Rows without a latency or sizes that can be, beside these.
    pub unread: usize,
}

/// Largest size of an operator that a table may hold.
const MOST: f64 = 16_777_216.0;
/// Longest latency that a table may hold, and longest estimate from it: an hour.
const LONGEST_NS: f64 = 3.6e12;

/// A call of attention: sequences, new tokens and context of each, query heads, heads of keys and
/// values, elements of a head.
pub type Call = [u32; 6];

/// A call of a layer's experts: tokens, width of the model, inner width of an expert, experts per
/// token, experts.
pub type Experts = [u32; 5];

impl Operators {
    /// Adds the rows of a table: Parquet, or CSV as older releases have it.
    ///
    /// # Errors
    /// A file that does not read, or is no such table.
    pub fn read(&mut self, path: &Path, precision: Precision) -> Result<(), ImportError> {
        let file = path.display().to_string();
        let io = |source| FileError::Io { path: path.to_path_buf(), source };
        let before = (self.products.len() + self.attention.len(), self.rows);
        if super::begins_with(path, b"PAR1").map_err(io)? {
            let from = File::open(path).map_err(io)?;
            tables::parquet(&file, from, |cell| self.add(cell, precision))?;
        } else {
            let text = read_text(path)?;
            let mut reader = csv::ReaderBuilder::new().flexible(true).from_reader(text.as_bytes());
            let header = reader.headers().cloned().unwrap_or_default();
            for row in reader.records().filter_map(Result::ok) {
                let cell = |name: &str| {
                    let place = header.iter().position(|h| h.trim() == name)?;
                    row.get(place).map(|t| t.trim().to_owned())
                };
                self.add(&cell, precision);
            }
        }
        if self.rows == before.1 {
            let wanted = "a table of products (m, n, k), attention (batch_size, isl, num_heads, \
                          head_dim) or experts (num_tokens, hidden_size, inter_size, topk, \
                          num_experts) with `latency`";
            let problem = Problem::Value { text: "no row".to_owned(), wanted: wanted.to_owned() };
            return Err(FileError::bad(&file, 1, "latency", problem));
        }
        Ok(())
    }

    /// The rows beside those used, by reason.
    fn left(&self, used: usize) -> impl Iterator<Item = (&'static str, usize)> {
        let others = self.rows.saturating_sub(used);
        [(OTHERS, others), (UNREAD, self.unread)].into_iter().filter(|(_, n)| *n > 0)
    }

    fn add(&mut self, cell: &dyn Fn(&str) -> Option<String>, precision: Precision) {
        let count = |name: &str| {
            let size = cell(name)?.parse::<f64>().ok()?;
            ((0.0..=MOST).contains(&size) && size.fract() == 0.0).then_some(size as u32)
        };
        let latency = cell("latency").and_then(|t| t.parse::<f64>().ok());
        let ns = latency.map(|ms| ms * 1e6).filter(|ns| *ns > 0.0 && *ns <= LONGEST_NS);
        let Some(ns) = ns else {
            self.unread += 1;
            return;
        };
        let three = |a: Option<u32>, b: Option<u32>, c: Option<u32>| {
            let sizes = [a?, b?, c?];
            sizes.iter().all(|n| *n > 0).then_some(sizes)
        };
        if let (Some(tokens), Some(experts)) = (count("num_tokens"), count("num_experts")) {
            let sizes = [count("hidden_size"), count("inter_size"), count("topk")];
            let [Some(width), Some(inner), Some(active)] = sizes else {
                self.unread += 1;
                return;
            };
            self.rows += 1;
            let alone = ["moe_tp_size", "moe_ep_size"].iter().all(|n| count(n).unwrap_or(1) == 1);
            if alone && same_precision(cell("moe_dtype").as_deref(), precision) {
                let all = self.experts.entry([tokens, width, inner, active, experts]);
                let (sum, n) = all.or_default();
                (*sum, *n) = (*sum + ns, *n + 1);
            }
            return;
        }
        let product = three(count("m"), count("n"), count("k"));
        let heads = count("batch_size").zip(count("num_heads"));
        let heads = heads.and_then(|(b, h)| b.checked_mul(h));
        let attention = three(heads, count("isl"), count("head_dim"));
        let (dtype, shape) = match (product, attention) {
            (Some(shape), _) => (cell("gemm_dtype"), shape),
            (None, Some(shape)) => (cell("attn_dtype"), shape),
            (None, None) => {
                self.unread += 1;
                return;
            }
        };
        self.rows += 1;
        // Attention is not quantised where products are.
        let precision = if product.is_none() { precision.activations() } else { precision };
        let same = same_precision(dtype.as_deref(), precision);
        // Windows and earlier tokens are other operators.
        let window = count("window_size").is_some_and(|n| n > 0);
        let wide_cache = cell("kv_cache_dtype").is_none_or(|d| !d.contains("fp8"));
        let step = count("step").unwrap_or(0);
        let whole = product.is_none() && same && !window && wide_cache;
        if let Some([heads, kv_heads, dim]) =
            three(count("num_heads"), count("num_key_value_heads"), count("head_dim"))
                .filter(|[h, kv, _]| whole && *h > 0 && *kv > 0)
            && let (Some(sequences), Some(queries)) = (count("batch_size"), count("isl"))
        {
            let context = queries.saturating_add(step);
            let kept = self.calls.entry([sequences, queries, context, heads, kv_heads, dim]);
            let kept = kept.or_insert(ns);
            *kept = kept.min(ns);
        }
        let other = window || step > 0 || !wide_cache;
        if same && !other {
            let all = if product.is_some() { &mut self.products } else { &mut self.attention };
            let kept = all.entry(shape).or_insert(ns);
            *kept = kept.min(ns);
        }
    }
}

/// Half precision is one rate, whatever its exponent.
fn same_precision(name: Option<&str>, precision: Precision) -> bool {
    match name {
        Some("bfloat16" | "float16" | "bf16" | "fp16") => {
            matches!(precision, Precision::Bf16 | Precision::Fp16)
        }
        Some(name) => name == precision.name(),
        None => true,
    }
}

/// Why rows are not used.
const OTHERS: &str = "of another precision, or slower ones of a shape";
const UNREAD: &str = "without a latency, or without the sizes of a product or of attention";

/// Measured shapes that one that was not measured is estimated from.
const NEIGHBOURS: usize = 4;

/// The profile of a zoo model at one batch, fused as serving frameworks run it: products and attention
/// take the measured time of their shape. A shape that was not measured takes the computed time times
/// what its four nearest measured shapes take over what they are computed to take (products), or the
/// time per operation of the nearest one (attention). Other kernels stay as computed.
///
/// # Errors
/// Tables without a product, or a batch that the zoo does not lower.
pub fn aiconfigurator(
    file: &str,
    operators: &Operators,
    device: &Device,
    spec: &ModelSpec,
    batch: u32,
    precision: Precision,
) -> Result<Import, ImportError> {
    let bad = |field: &str, text: String, wanted: &str| {
        let problem = Problem::Value { text, wanted: wanted.to_owned() };
        FileError::bad(file, 1, field, problem)
    };
    if operators.products.is_empty() {
        return Err(bad("latency", "no row".to_owned(), &format!("a product in {precision}")));
    }
    let options = Options { precision, fused: true, ..Options::default() };
    let mut profile = analytic::profile(device, &[spec], &[batch], &options)
        .map_err(|e| bad("batch", batch.to_string(), &e.to_string()))?;
    let (mut exact, mut near, mut computed) = (0, 0, 0);
    for kernel in &mut profile.kernels {
        let found = measured(kernel, operators, device, precision);
        match found.map(|(ns, exact)| (ns.clamp(1.0, LONGEST_NS), exact)) {
            Some((ns, true)) => {
                exact += 1;
                scale(kernel, device, ns);
            }
            Some((ns, false)) => {
                near += 1;
                scale(kernel, device, ns);
            }
            None => computed += 1,
        }
    }
    profile.source = Source::Imported;
    let said = format!("{exact} kernels measured, {near} from shapes nearby, {computed} computed");
    profile.provenance.insert("tool".to_owned(), "AIConfigurator operator tables".to_owned());
    profile.provenance.insert("method".to_owned(), said.clone());
    let used = operators.products.len() + operators.attention.len();
    let dropped = operators.left(used).collect();
    Ok(Import {
        profile,
        rows_in: operators.rows.max(used) + operators.unread,
        rows_used: used,
        dropped,
        notes: vec![said],
        warnings: Vec::new(),
    })
}

/// The time of a kernel on the whole GPU, and whether its very shape was measured.
fn measured(
    kernel: &Kernel,
    operators: &Operators,
    device: &Device,
    precision: Precision,
) -> Option<(f64, bool)> {
    if let Some(shape) = kernel.id.strip_prefix("linear-").and_then(numbers::<3>) {
        let near = nearest(&operators.products, shape);
        if let Some((_, ns)) = near.first().filter(|(s, _)| *s == shape) {
            return Some((*ns, true));
        }
        let ours = |[m, n, k]: [u32; 3]| {
            let shape = gemm(device, Gemm { count: 1, m, n, k }, precision, None)?;
            Some(roofline::duration_ns(device, &shape, device.cus()) as f64)
        };
        let mut sum = (0.0, 0.0);
        for &(other, ns) in &near {
            let weight = 1.0 / distance(other, shape);
            sum.0 += weight * libm::log(ns / ours(other)?);
            sum.1 += weight;
        }
        let factor = libm::exp(sum.0 / sum.1);
        return (sum.1 > 0.0).then(|| (kernel.curve.at(device.cus()) as f64 * factor, false));
    }
    let [count, m, n, d] = kernel.id.strip_prefix("attention-").and_then(numbers::<4>)?;
    let shape = [count, m, d];
    if m != n {
        return None;
    }
    let (other, ns) = *nearest(&operators.attention, shape).first()?;
    let work = |[c, t, d]: [u32; 3]| f64::from(c) * f64::from(t) * f64::from(t) * f64::from(d);
    Some((ns * work(shape) / work(other), other == shape))
}

/// The first `N` numbers of `128x768x768+bias-…`.
fn numbers<const N: usize>(text: &str) -> Option<[u32; N]> {
    let end = text.find(|c: char| c != 'x' && !c.is_ascii_digit()).unwrap_or(text.len());
    let all: Option<Vec<u32>> = text[..end].split('x').map(|n| n.parse().ok()).collect();
    <[u32; N]>::try_from(all?).ok()
}

/// The measured shapes nearest to this one, the nearest first.
fn nearest(all: &BTreeMap<[u32; 3], f64>, shape: [u32; 3]) -> Vec<([u32; 3], f64)> {
    let mut best: Vec<([u32; 3], f64)> = Vec::with_capacity(NEIGHBOURS + 1);
    for (&other, &ns) in all {
        let at = best.partition_point(|b| distance(b.0, shape) <= distance(other, shape));
        if at < NEIGHBOURS {
            best.insert(at, (other, ns));
            best.truncate(NEIGHBOURS);
        }
    }
    best
}

/// How far two shapes are apart: the sum of the squared logarithms of their ratios.
fn distance(a: [u32; 3], b: [u32; 3]) -> f64 {
    let one = |i: usize| {
        let ratio = libm::log2(f64::from(a[i].max(1)) / f64::from(b[i].max(1)));
        ratio * ratio
    };
    one(0) + one(1) + one(2)
}

/// Scales a curve so that it takes `ns` on all CUs.
fn scale(kernel: &mut Kernel, device: &Device, ns: f64) {
    kernel.curve = kernel.curve.scaled(ns / kernel.curve.at(device.cus()) as f64);
}
