//! Calls of attention: AIConfigurator's tables of vLLM, each row a whole operation.

use cotenant_profiles::lower::{AttentionCall, Precision};

use super::products::{device, three_constants};
use super::split::trains;
use super::tables::parquet;
use super::{Comparison, Data, Set};
use crate::fail::Done;

const COLUMNS: [&str; 9] = [
    "batch_size",
    "isl",
    "step",
    "num_heads",
    "num_key_value_heads",
    "head_dim",
    "kv_cache_dtype",
    "window_size",
    "latency",
];

pub(super) fn compare(data: &Data<'_>) -> Done<Vec<Comparison>> {
    let mut all = vec![];
    for (name, system, version) in
        [("a100-sxm-80", "a100_sxm", "0.14.0"), ("h100-sxm", "h100_sxm", "0.24.0")]
    {
        let device = device(name)?;
        for (kind, words) in [("context", "prompts"), ("generation", "decoding")] {
            let path = format!(
                "aiconfigurator/data/{system}/attention/vllm/{version}/{kind}_attention_perf.parquet"
            );
            let new = |set| {
                let model = format!("attention of {words}, BF16, {name}");
                Comparison::new("AIConfigurator", "alone", model, set)
            };
            let mut halves = [new(Set::Training), new(Set::Test)];
            for row in parquet(&data.at(&path), &COLUMNS)?.iter() {
                // Sliding windows and FP8 caches are other operations.
                if row.maybe("window_size").unwrap_or(0.0) > 0.0
                    || row.text("kv_cache_dtype") != "bfloat16"
                {
                    continue;
                }
                let queries = row.count("isl")?;
                let call = AttentionCall {
                    sequences: row.count("batch_size")?,
                    queries,
                    context: queries + row.count("step")?,
                    heads: row.count("num_heads")?,
                    kv_heads: row.count("num_key_value_heads")?,
                    head_dim: row.count("head_dim")?,
                };
                let ours = call.duration_ns(&device, Precision::Bf16) as f64;
                let [s, q, c, h, kv, d] = [
                    call.sequences,
                    call.queries,
                    call.context,
                    call.heads,
                    call.kv_heads,
                    call.head_dim,
                ]
                .map(f64::from);
                let masked = if call.queries > 1 { 0.5 } else { 1.0 };
                let flops = 4.0 * s * h * q * c * d * masked;
                let bytes = 2.0 * s * d * (2.0 * q * h + 2.0 * c * kv);
                let naive =
                    three_constants(&device, flops, bytes, Precision::Bf16.peak_tops(&device));
                let measured = row.number("latency")? * 1e6;
                let half = usize::from(!trains([call.sequences, call.context, call.heads]));
                halves[half].push(measured, ours, &[("three constants", naive)]);
            }
            all.extend(halves);
        }
    }
    Ok(all)
}
