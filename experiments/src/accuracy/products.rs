//! Products of matrices: AIConfigurator's tables.

use cotenant_profiles::lower::{Precision, linear};
use cotenant_profiles::{Device, roofline};

use super::split::trains;
use super::tables::parquet;
use super::{Comparison, Data, Set};
use crate::fail::{Done, Failure};

/// Three constants: 0.8 of the peak, 0.8 of the bandwidth, 3 µs. In ns.
pub(super) fn three_constants(device: &Device, flops: f64, bytes: f64, peak_tops: f64) -> f64 {
    let arithmetic = flops / (0.8 * peak_tops * 1e3);
    3000.0 + arithmetic.max(bytes / (0.8 * device.memory.dram_gbps))
}

pub(super) fn device(name: &str) -> Done<Device> {
    Device::builtin(name).map_err(|e| Failure::failed(e.to_string()))
}

pub(super) fn compare(data: &Data<'_>) -> Done<Vec<Comparison>> {
    let mut all = vec![];
    for (name, system, version) in
        [("a100-sxm-80", "a100_sxm", "0.14.0"), ("h100-sxm", "h100_sxm", "0.24.0")]
    {
        let device = device(name)?;
        let path = format!("aiconfigurator/data/{system}/gemm/vllm/{version}/gemm_perf.parquet");
        let rows = parquet(&data.at(&path), &["gemm_dtype", "m", "n", "k", "latency"])?;
        let new = |set| {
            let model = format!("BF16 products, {name}");
            Comparison::new("AIConfigurator", "alone", model, set)
        };
        let mut halves = [new(Set::Training), new(Set::Test)];
        for row in rows.iter().filter(|r| r.text("gemm_dtype") == "bfloat16") {
            let shape = [row.count("m")?, row.count("n")?, row.count("k")?];
            let measured = row.number("latency")? * 1e6;
            let kernel = linear(&device, shape, Precision::Bf16);
            let ours = roofline::duration_ns(&device, &kernel, device.cus()) as f64;
            let [m, n, k] = shape.map(f64::from);
            let peak = Precision::Bf16.peak_tops(&device);
            let bytes = 2.0 * (m * k + n * k + m * n);
            let naive = three_constants(&device, 2.0 * m * n * k, bytes, peak);
            let half = usize::from(!trains(shape));
            halves[half].push(measured, ours, &[("three constants", naive)]);
        }
        all.extend(halves);
    }
    Ok(all)
}
