//! Single layers: NeuSight's tables of PyTorch in FP32, and the dense layers of Llama-3.1-8B that
//! LLMServingSim measured in vLLM.

use cotenant_profiles::lower::{Config, Gemm, Precision, gemm, layer, linear};
use cotenant_profiles::zoo::Layer;
use cotenant_profiles::zoo::layer::{Conv, Function};
use cotenant_profiles::{Device, roofline};

use super::products::{device, three_constants};
use super::tables::{Row, csv};
use super::{Comparison, Data, Set};
use crate::fail::Done;

/// Devices of the tables, as the files call them and as we do. There is no file for the P100 and the
/// P4; the V100 of the tables is the PCIe board, whose clock is 10 % below ours.
const DEVICES: [(&str, &str); 6] = [
    ("NVIDIA A100 80GB PCIe", "a100-pcie-80"),
    ("NVIDIA A100-PCIE-40GB", "a100-pcie-40"),
    ("NVIDIA H100 80GB HBM3", "h100-sxm"),
    ("NVIDIA L4", "l4"),
    ("Tesla T4", "t4"),
    ("Tesla V100-PCIE-32GB", "v100-sxm2-16"),
];

const KINDS: [(&str, &str); 6] = [
    ("test/linear.csv", "linear layers"),
    ("test/bmm.csv", "batched products"),
    ("test/ln.csv", "layer normalisation"),
    ("test/softmax.csv", "softmax"),
    ("test/elem.csv", "element-wise"),
    ("train/conv", "3×3 convolutions"),
];

const COLUMNS: [&str; 15] = [
    "OPName",
    "Latency",
    "Device",
    "B",
    "M",
    "N",
    "K",
    "H",
    "Input_Channel",
    "Output_Channel",
    "Kernel_Szie",
    "Input_Size",
    "Stride",
    "Padding",
    "Kernel Name",
];

/// What a row asks for: kernels' time on the device, operations and bytes.
struct Asked {
    ns: f64,
    flops: f64,
    bytes: f64,
}

pub(super) fn compare(data: &Data<'_>) -> Done<Vec<Comparison>> {
    let mut all = vec![];
    for (path, words) in KINDS {
        let path = data.at("neusight/dataset").join(path);
        let mut files = vec![path.clone()];
        if path.is_dir() {
            files = ["NVIDIA_A100_80GB_PCIe.csv", "Tesla_V100-PCIE-32GB.csv"]
                .map(|f| path.join(f))
                .to_vec();
        }
        for (theirs, ours) in DEVICES {
            let device = device(ours)?;
            let model = format!("{words}, FP32, {ours}");
            let mut comparison = Comparison::new("NeuSight", "alone", model, Set::Test);
            for file in &files {
                for row in csv(file, &COLUMNS)?.iter().filter(|r| r.text("Device") == theirs) {
                    let asked = neusight(&device, row)?;
                    let peak = device.compute.fp32_tflops;
                    let naive = three_constants(&device, asked.flops, asked.bytes, peak);
                    let measured = row.number("Latency")? * 1e6;
                    comparison.push(measured, asked.ns, &[("three constants", naive)]);
                }
            }
            if !comparison.rows.is_empty() {
                all.push(comparison);
            }
        }
    }
    all.extend(llama(data)?);
    Ok(all)
}

fn neusight(device: &Device, row: Row<'_>) -> Done<Asked> {
    let config = |batch| Config { batch, precision: Precision::Fp32, fused: false };
    let asked = |kernels: Vec<_>, elements: f64, flops: f64| {
        let ns =
            kernels.iter().map(|k| roofline::duration_ns(device, k, device.cus())).sum::<u64>();
        Asked { ns: ns as f64, flops, bytes: 4.0 * elements }
    };
    let batch = row.count("B")?;
    if row.maybe("Input_Channel").is_some() {
        let (side, window) = (row.count("Input_Size")?, row.count("Kernel_Szie")?);
        let conv = Conv {
            in_ch: row.count("Input_Channel")?,
            out_ch: row.count("Output_Channel")?,
            kernel: [window; 2],
            stride: [row.count("Stride")?; 2],
            pad: [row.count("Padding")?; 2],
            dilation: 1,
            groups: 1,
            input: [side; 2],
            bias: false,
        };
        let (b, [h, w]) = (f64::from(batch), conv.output().map(f64::from));
        let input = b * f64::from(conv.in_ch) * f64::from(side) * f64::from(side);
        let output = b * f64::from(conv.out_ch) * h * w;
        let flops = 2.0 * conv.macs() as f64 * b;
        let kernels = layer(device, &Layer::Conv(conv), config(batch));
        return Ok(asked(kernels, input + output + conv.weights() as f64, flops));
    }
    if row.maybe("M").is_some() {
        // Rows, inner length, columns: the grids say so.
        let [m, k, n] = [row.count("M")?, row.count("N")?, row.count("K")?];
        let kernel = if row.text("OPName") == "bmm" {
            let product = Gemm { count: batch, m, n, k };
            gemm(device, product, Precision::Fp32, None).expect("a library has a kernel")
        } else {
            linear(device, [m * batch, n, k], Precision::Fp32)
        };
        let [b, m, n, k] = [batch, m, n, k].map(f64::from);
        let weights = if row.text("OPName") == "bmm" { b * n * k } else { n * k };
        return Ok(asked(vec![kernel], b * (m * k + m * n) + weights, 2.0 * b * m * n * k));
    }
    let width = row.count("H")?;
    let elements = u64::from(batch) * u64::from(width);
    let (shape, tensors) = match row.text("OPName") {
        "ln" => (Layer::LayerNorm { rows: batch, width }, 2.0),
        "softmax" => (Layer::Softmax { rows: batch, width }, 2.0),
        "add" | "mul" | "div" | "pow" => {
            (Layer::Pointwise { function: Function::Add, elements, inputs: 2 }, 3.0)
        }
        _ => (Layer::Pointwise { function: Function::Relu, elements, inputs: 1 }, 2.0),
    };
    let kernels = layer(device, &shape, config(1));
    Ok(asked(kernels, tensors * elements as f64, elements as f64))
}

/// Columns and inner lengths of Llama-3.1-8B's linear layers.
const LLAMA: [(&str, u32, u32); 5] = [
    ("qkv_proj", 6144, 4096),
    ("o_proj", 4096, 4096),
    ("gate_up_proj", 28_672, 4096),
    ("down_proj", 4096, 14_336),
    ("lm_head", 128_256, 4096),
];

fn llama(data: &Data<'_>) -> Done<Vec<Comparison>> {
    let mut all = vec![];
    for (theirs, ours) in [("RTX4090", "rtx-4090"), ("RTXPRO6000", "rtx-pro-6000")] {
        let device = device(ours)?;
        let folder =
            format!("llmservingsim/profiler/perf/{theirs}/meta-llama/Llama-3.1-8B/bf16/tp1");
        let model = format!("linear layers of Llama-3.1-8B, BF16, {ours}");
        let mut comparison = Comparison::new("LLMServingSim", "alone", model, Set::Test);
        for (file, rows_in) in [("dense.csv", "tokens"), ("per_sequence.csv", "sequences")] {
            let path = data.at(&folder).join(file);
            for row in csv(&path, &["layer", rows_in, "time_us"])?.iter() {
                let Some((_, n, k)) = LLAMA.iter().find(|(name, ..)| *name == row.text("layer"))
                else {
                    continue;
                };
                let m = row.count(rows_in)?;
                let kernel = linear(&device, [m, *n, *k], Precision::Bf16);
                let ours = roofline::duration_ns(&device, &kernel, device.cus()) as f64;
                let peak = Precision::Bf16.peak_tops(&device);
                let [m, n, k] = [m, *n, *k].map(f64::from);
                let bytes = 2.0 * (m * k + n * k + m * n);
                let naive = three_constants(&device, 2.0 * m * n * k, bytes, peak);
                let measured = row.number("time_us")? * 1e3;
                comparison.push(measured, ours, &[("three constants", naive)]);
            }
        }
        all.push(comparison);
    }
    Ok(all)
}
