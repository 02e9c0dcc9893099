//! The comparison tables. Measured numbers are transcribed from the sources named with them; every
//! number in an "analytic" column is computed here.

use std::fmt::Write as _;

use cotenant_profiles::lower::{Config, Gemm, Lowered, Precision, gemm, lower};
use cotenant_profiles::{Device, Op, roofline, zoo};

/// All tables, as Markdown.
pub(crate) fn markdown() -> String {
    let v100 = device("v100-sxm2-16");
    let tables = [
        shares(&v100),
        whole_models(&v100),
        kinds(&v100),
        staircase(&v100),
        other_stacks(),
        launches(&v100),
    ];
    tables.join("\n")
}

fn device(name: &str) -> Device {
    Device::builtin(name).expect("a device that ships")
}

/// A model at FP32 on a device.
fn lowered(device: &Device, model: &str, batch: u32, fused: bool) -> Lowered {
    let spec = zoo::find(model).expect("a model of the zoo");
    let config = Config { batch, precision: Precision::Fp32, fused };
    lower(&spec, device, config).expect("a legal batch")
}

/// Sum of the isolated kernel durations, ms.
fn sum_ms(device: &Device, model: &Lowered, cus: u32) -> f64 {
    let one = |&k: &usize| roofline::duration_ns(device, &model.kernels[k], cus);
    model.launches.iter().map(one).sum::<u64>() as f64 / 1e6
}

fn error(ours: f64, measured: f64) -> f64 {
    100.0 * (ours / measured - 1.0)
}

/// The error in whole per cent, with its sign.
fn percent(ours: f64, measured: f64) -> String {
    let rounded = error(ours, measured).round() as i64;
    if rounded == 0 { "0 %".to_owned() } else { format!("{rounded:+} %") }
}

/// `title`, then the rows under `header`.
fn table(title: &str, header: &[&str], rows: &[Vec<String>]) -> String {
    let mut text = format!("### {title}\n\n| {} |\n|", header.join(" | "));
    for (i, _) in header.iter().enumerate() {
        text += if i == 0 { "---|" } else { "---:|" };
    }
    for row in rows {
        write!(text, "\n| {} |", row.join(" | ")).expect("a String takes everything");
    }
    text + "\n"
}

/// Batch, and milliseconds on 10, 50 and 100 % of the device.
type Shares = (u32, [f64; 3]);

/// GPU latency of TensorRT engines under MPS shares: data of iGniter (Xu et al., IEEE TPDS 2023;
/// `icloud-ecnu/igniter`, `i-Gniter/Algorithm/config`).
const IGNITER: [(&str, [Shares; 3]); 3] = [
    ("alexnet", [(1, [3.62, 0.93, 0.71]), (16, [16.71, 3.62, 2.07]), (32, [30.88, 6.47, 3.60])]),
    (
        "resnet50",
        [(1, [7.69, 2.85, 2.39]), (16, [91.70, 20.08, 11.54]), (32, [180.47, 38.38, 21.34])],
    ),
    (
        "vgg19",
        [(1, [20.93, 4.77, 2.76]), (16, [253.68, 51.86, 28.59]), (32, [501.68, 102.33, 56.32])],
    ),
];

fn shares(device: &Device) -> String {
    let mut rows = Vec::new();
    let mut errors = Vec::new();
    for (model, batches) in IGNITER {
        for (batch, measured) in batches {
            let kernels = lowered(device, model, batch, true);
            let mut row = vec![format!("{model} b{batch}")];
            for (cus, measured) in [8, 40, 80].into_iter().zip(measured) {
                let ours = sum_ms(device, &kernels, cus);
                errors.push(error(ours, measured).abs());
                row.extend([
                    format!("{measured:.2}"),
                    format!("{ours:.2}"),
                    percent(ours, measured),
                ]);
            }
            rows.push(row);
        }
    }
    let header = ["V100, FP32, fused", "10 %", "analytic", "error"];
    let header = [&header[..], &["50 %", "analytic", "error", "100 %", "analytic", "error"]];
    let title = "TensorRT under MPS shares (iGniter), ms";
    let mean = errors.iter().sum::<f64>() / errors.len() as f64;
    let worst = errors.iter().copied().fold(0.0, f64::max);
    table(title, &header.concat(), &rows)
        + &format!("\nMean absolute error {mean:.0} %, largest {worst:.0} %.\n")
}

/// Sums of kernel durations and their number: Orion's profiles (Strati et al., EuroSys 2024;
/// `eth-easl/orion`). Its BERT is the large one at 384 tokens: the shapes of its kernels say so.
const ORION: [(&str, u32, f64, usize); 4] = [
    ("resnet50", 4, 6.50, 175),
    ("resnet101", 4, 11.57, 345),
    ("mobilenet_v2", 4, 2.26, 152),
    ("bert_large@384", 2, 48.63, 572),
];

fn whole_models(device: &Device) -> String {
    let mut rows = Vec::new();
    for (model, batch, measured, _) in ORION {
        let ours = sum_ms(device, &lowered(device, model, batch, false), device.cus());
        rows.push(vec![
            format!("{model} b{batch}"),
            format!("{measured:.2}"),
            format!("{ours:.2}"),
            percent(ours, measured),
        ]);
    }
    let header = ["V100, FP32, eager", "measured", "analytic", "error"];
    table("PyTorch, sum of isolated kernel durations (Orion), ms", &header, &rows)
}

/// Where the time of one Orion profile goes: ResNet-50 at batch 4, ms by kind of kernel.
const ORION_KINDS: [(&str, f64, &[Op]); 3] = [
    ("convolution", 4.938, &[Op::Conv]),
    ("batch normalisation", 0.706, &[Op::Norm]),
    ("addition and ReLU", 0.771, &[Op::Elementwise, Op::Activation]),
];

fn kinds(device: &Device) -> String {
    let model = lowered(device, "resnet50", 4, false);
    let mut rows = Vec::new();
    for (kind, measured, ops) in ORION_KINDS {
        let kernels = model.launches.iter().map(|&k| &model.kernels[k]);
        let ns = kernels
            .filter(|k| ops.contains(&k.op))
            .map(|k| roofline::duration_ns(device, k, device.cus()))
            .sum::<u64>();
        let ours = ns as f64 / 1e6;
        rows.push(vec![
            kind.to_owned(),
            format!("{measured:.2}"),
            format!("{ours:.2}"),
            percent(ours, measured),
        ]);
    }
    let header = ["ResNet-50 b4, V100", "measured", "analytic", "error"];
    table("The same by kind of kernel, ms", &header, &rows)
}

/// Completion of R products 256×128×1152 in one `cublasSgemmBatched`, µs, digitised from figure 7
/// of Jain et al., "Dynamic Space-Time Scheduling for GPU Inference" (arXiv:1901.00041).
const STAIRCASE: [(u32, f64); 10] = [
    (1, 386.0),
    (10, 412.0),
    (20, 424.0),
    (22, 610.0),
    (40, 620.0),
    (42, 840.0),
    (60, 856.0),
    (62, 1073.0),
    (80, 1081.0),
    (82, 1324.0),
];

fn staircase(device: &Device) -> String {
    let mut rows = Vec::new();
    for (count, measured) in STAIRCASE {
        let product = Gemm { count, m: 256, n: 128, k: 1152 };
        let tile = Some([128, 64]);
        let kernel = gemm(device, product, Precision::Fp32, tile).expect("an FP32 tile");
        let ours = roofline::duration_ns(device, &kernel, device.cus()) as f64 / 1e3;
        rows.push(vec![
            format!("R = {count}"),
            kernel.blocks().to_string(),
            format!("{measured:.0}"),
            format!("{ours:.0}"),
            percent(ours, measured),
            format!("{:.0}", measured - ours),
        ]);
    }
    let header = ["products", "blocks", "measured", "analytic", "error", "difference"];
    table("Batched GEMM 256×128×1152, tiles 128×64, V100, µs (space-time)", &header, &rows)
}

/// One row of the table of other stacks: device, model, batch, fused, measured ms, what it is.
type Other = (&'static str, &'static str, u32, bool, f64, &'static str);

const OTHERS: [Other; 14] = [
    ("v100-sxm2-16", "alexnet", 1, false, 1.0, "request, TensorFlow, space-time fig. 1"),
    ("v100-sxm2-16", "vgg16", 1, false, 22.0, "request, TensorFlow, space-time fig. 1"),
    ("v100-sxm2-16", "resnet152", 1, false, 27.0, "request, TensorFlow, space-time fig. 1"),
    ("v100-sxm2-16", "resnet50", 1, false, 7.5, "request, TensorFlow, space-time fig. 3"),
    ("v100-sxm2-16", "resnet50", 1, false, 2.7, "request, faster stack, space-time fig. 5"),
    ("v100-sxm2-16", "mobilenet_v2@96", 1, false, 3.9, "request, TensorFlow, space-time fig. 3"),
    ("p40", "resnet50", 1, false, 7.3, "added per instance (V2 variant), TensorFlow, DNNScaler"),
    ("p40", "mobilenet_v2", 1, false, 2.5, "added per instance, TensorFlow, DNNScaler"),
    ("mi50", "alexnet", 1, true, 8.85, "inference, TVM, REEF"),
    ("mi50", "resnet18", 1, true, 2.19, "inference, TVM, REEF"),
    ("mi50", "resnet152", 1, true, 13.23, "inference, TVM, REEF"),
    ("mi50", "densenet201", 1, true, 3.74, "inference (variant not stated), TVM, REEF"),
    ("mi50", "inception_v3", 1, true, 8.27, "inference, TVM, REEF"),
    ("mi50", "bert_base", 1, true, 5.43, "inference (length not stated), TVM, REEF"),
];

fn other_stacks() -> String {
    let mut rows = Vec::new();
    for (name, model, batch, fused, measured, what) in OTHERS {
        let device = device(name);
        let kernels = lowered(&device, model, batch, fused);
        let ours = sum_ms(&device, &kernels, device.cus());
        let host = kernels.launches.len() as f64 * device.costs.launch.as_millis_f64();
        rows.push(vec![
            format!("{name}, {model} b{batch}"),
            format!("{measured:.2}"),
            format!("{ours:.2}"),
            percent(ours, measured),
            format!("{host:.2}"),
            what.to_owned(),
        ]);
    }
    let header = ["device, model", "measured", "analytic", "error", "host", "what was measured"];
    table("Other stacks, FP32, ms", &header, &rows)
}

/// Launches per inference of eager PyTorch as published: ROCm (mask switches of ECLIP, table I,
/// arXiv:2506.12598, solved for the models) and Orion's profiles.
const ECLIP: [(&str, usize); 5] = [
    ("densenet201", 711),
    ("resnet152", 517),
    ("albert_base", 304),
    ("vgg19", 62),
    ("alexnet", 34),
];

fn launches(device: &Device) -> String {
    let mut rows = Vec::new();
    let eclip = ECLIP.map(|(model, n)| (model, 1, n, "ROCm 5.2, PyTorch 1.12 (ECLIP)"));
    let orion = ORION.map(|(model, batch, _, n)| (model, batch, n, "V100 (Orion)"));
    for (model, batch, published, source) in eclip.into_iter().chain(orion) {
        let ours = lowered(device, model, batch, false).launches.len();
        let fused = lowered(device, model, batch, true).launches.len();
        rows.push(vec![
            model.to_owned(),
            published.to_string(),
            ours.to_string(),
            percent(ours as f64, published as f64),
            fused.to_string(),
            source.to_owned(),
        ]);
    }
    let header = ["model", "published", "eager here", "difference", "fused here", "source"];
    table("Launches per inference", &header, &rows)
}
