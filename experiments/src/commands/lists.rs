//! `cotenant policies`, `devices` and `models`.

use std::path::Path;

use clap::Args;
use cotenant_profiles::lower::{self, Precision};
use cotenant_profiles::steps::{StepLibrary, StepOptions};
use cotenant_profiles::zoo::decoder::{self, Decoder, Rounding, StepShape};
use cotenant_profiles::{Device, zoo};
use cotenant_results::METRICS;
use cotenant_sim::counter::Counter;
use cotenant_sim::policy::{self, PolicyInfo};

use crate::fail::{Done, Failure, did_you_mean};
use crate::say;
use crate::text::{align, rounded};

/// Lists policies, or shows one.
pub(crate) fn policies(name: Option<&str>) -> Done {
    let Some(name) = name else {
        let rows: Vec<_> =
            policy::ALL.iter().map(|p| vec![p.name.to_owned(), p.summary.to_owned()]).collect();
        return say::out(&align(&["policy", "what it does"], &rows));
    };
    let info = policy::find(name).ok_or_else(|| Failure::input(crate::config::no_policy(name)))?;
    say::out(&one_policy(info))
}

fn one_policy(info: &PolicyInfo) -> String {
    let yes = |b: bool| if b { "yes" } else { "no" };
    let p = info.properties;
    let mut text = format!(
        "{}: {}\nsource: {}\nwork-conserving: {}\nalone like isolated: {}\nstarvation-free: {}\n\n",
        info.name,
        info.summary,
        info.source,
        yes(p.work_conserving),
        yes(p.alone_is_isolated),
        yes(p.starvation_free),
    );
    text += match info.options {
        [] => "It has no options.\n",
        _ => "Options, as a [[policy]] table sets them:\n",
    };
    for o in info.options {
        let default = match ((o.default)(), o.unset) {
            (Some(value), _) => format!("default {value}{}", unit(o.unit)),
            (None, "") => "no default".to_owned(),
            (None, unset) => format!("default: {unset}"),
        };
        text += &format!("\n  {}: {}{}; {default}\n", o.name, o.kind, unit(o.unit));
        text += &format!("      {}\n", o.help);
    }
    if !info.counters.is_empty() {
        text += "\nWhat it counts, in counters.csv:\n\n";
        let row = |c: &Counter| vec![c.name.to_owned(), c.unit.to_owned(), c.doc.to_owned()];
        let rows: Vec<_> = info.counters.iter().map(row).collect();
        text += &align(&["counter", "unit", "meaning"], &rows);
    }
    text
}

/// A unit behind a number.
fn unit(unit: &str) -> String {
    if unit.is_empty() { String::new() } else { format!(" {unit}") }
}

/// Lists the columns of the results.
///
/// # Errors
/// Nobody reads the output any more.
pub(crate) fn metrics(json: bool) -> Done {
    if json {
        let list: Vec<serde_json::Value> = METRICS
            .iter()
            .map(|m| {
                serde_json::json!({
                    "name": m.name, "title": m.title, "unit": m.file_unit(), "meaning": m.doc,
                })
            })
            .collect();
        let text = serde_json::to_string_pretty(&list).map_err(Failure::failed)?;
        return say::out(&(text + "\n"));
    }
    let row = |m: &cotenant_results::Column| {
        vec![m.name.to_owned(), m.file_unit().to_owned(), m.doc.to_owned()]
    };
    let rows: Vec<Vec<String>> = METRICS.iter().map(row).collect();
    let table = align(&["column", "unit", "meaning"], &rows);
    say::out(&format!(
        "{table}\nA value that does not exist is an empty field. More: docs/results.md\n"
    ))
}

/// Lists devices, or shows one.
pub(crate) fn devices(name: Option<&str>) -> Done {
    let Some(name) = name else {
        let mut rows = vec![];
        for name in Device::builtin_names() {
            rows.push(device_row(&Device::builtin(name).map_err(Failure::failed)?));
        }
        let header = ["device", "title", "CUs", "fp32 TFLOP/s", "GB/s", "GiB", "MPS", "MIG"];
        return say::out(&align(&header, &rows));
    };
    let device = Device::find(name, Path::new("")).map_err(Failure::input)?;
    let text = match Device::builtin_text(name) {
        Some(text) => text.to_owned(),
        None => std::fs::read_to_string(name).map_err(Failure::input)?,
    };
    say::out(&format!(
        "{}\n{text}",
        align(
            &["device", "title", "CUs", "fp32 TFLOP/s", "GB/s", "GiB", "MPS", "MIG"],
            &[device_row(&device)],
        )
    ))
}

fn device_row(d: &Device) -> Vec<String> {
    vec![
        d.name.clone(),
        d.title.clone(),
        d.cus().to_string(),
        rounded(Some(d.compute.fp32_tflops)),
        rounded(Some(d.memory.dram_gbps)),
        rounded(Some(d.memory.capacity.0 as f64 / f64::from(1 << 30))),
        d.mps.map_or_else(|| "-".to_owned(), |m| format!("{} clients", m.max_clients)),
        d.mig.as_ref().map_or_else(
            || "-".to_owned(),
            |m| m.profiles.iter().map(|p| p.name.as_str()).collect::<Vec<_>>().join(" "),
        ),
    ]
}

/// List the models of the zoo, or show one with its layers
#[derive(Args)]
#[command(after_help = "Examples:\n  cotenant models\n  cotenant models bert-base\n  \
    cotenant models resnet50 --device v100-sxm2-16 --batch 4 --precision fp16\n  \
    cotenant models llama-3.1-8b --precision fp8\n  \
    cotenant models path/to/config.json")]
pub(crate) struct ModelArgs {
    /// Model to show; NAME@SIZE for another sequence length or image edge, or the path of a Hugging Face
    /// config.json
    name: Option<String>,
    /// GPU for which the layers are lowered to kernels
    #[arg(long, default_value = "h100-sxm")]
    device: String,
    /// Items per batch
    #[arg(long, default_value_t = 1)]
    batch: u32,
    /// Numbers computed with: fp32, tf32, fp16, bf16, fp8, int8 or int4 [default: the device's own]
    #[arg(long)]
    precision: Option<Precision>,
    /// Merge element-wise followers, as compilers do
    #[arg(long)]
    fused: bool,
}

impl ModelArgs {
    fn device(&self) -> Done<Device> {
        Device::find(&self.device, Path::new("")).map_err(Failure::input)
    }

    /// What experiments compute with on this device, unless told otherwise.
    fn precision(&self, device: &Device) -> Precision {
        self.precision.unwrap_or(device.default_precision())
    }

    fn lowered(&self, spec: &zoo::ModelSpec, device: &Device) -> Done<lower::Lowered> {
        let precision = self.precision(device);
        let config = lower::Config { batch: self.batch, precision, fused: self.fused };
        lower::lower(spec, device, config).map_err(Failure::input)
    }
}

/// Lists models, or shows one.
pub(crate) fn models(args: &ModelArgs) -> Done {
    let device = args.device()?;
    if let Some(name) = &args.name {
        args.precision(&device).check(&device).map_err(Failure::input)?;
        return match (zoo::find(name), decoder::find(name)) {
            (Ok(spec), _) => say::out(&one_model(args, &spec, &device)?),
            (Err(_), Ok(model)) => say::out(&one_decoder(args, &model, &device)),
            (Err(_), Err(why @ decoder::DecoderError::Config(_))) => Err(Failure::input(why)),
            (Err(zoo), Err(_)) => Err(Failure::input(unknown(name, &zoo))),
        };
    }
    let mut text = String::new();
    for (task, names) in zoo::by_task() {
        let infos = zoo::MODELS.iter().filter(|m| names.contains(&m.name));
        let rows = infos.map(|info| one_shot(args, info, &device)).collect::<Done<Vec<_>>>()?;
        let table = if rows.is_empty() { decoders() } else { align(&ONE_SHOT, &rows) };
        text += &format!("{task}\n{table}\n");
    }
    text += "Another model: record it and import it (cotenant profile import --help); a generating one \
             also by its config.json.\n";
    say::out(&text)
}

/// Why there is no such model, and what there is.
fn unknown(name: &str, why: &zoo::ZooError) -> String {
    let mut text = match why {
        zoo::ZooError::Unknown { .. } => {
            let all = zoo::by_task().into_iter().flat_map(|(_, names)| names);
            let near = did_you_mean(name, all);
            format!("no model `{name}` in the zoo{near}")
        }
        other => other.to_string(),
    };
    for (task, names) in zoo::by_task() {
        text += &format!("\n  {task}: {}", names.join(", "));
    }
    text + "\n  another one: record it and import it (cotenant profile import --help)"
}

const ONE_SHOT: [&str; 7] = ["model", "title", "input", "params M", "GMAC", "launches", "kernels"];

fn one_shot(args: &ModelArgs, info: &zoo::ModelInfo, device: &Device) -> Done<Vec<String>> {
    let spec = info.spec();
    let kernels = args.lowered(&spec, device)?;
    Ok(vec![
        info.name.to_owned(),
        info.title.to_owned(),
        format!("{} {}", info.default_size, info.input.unit()),
        format!("{:.2}", spec.params() as f64 / 1e6),
        format!("{:.2}", spec.macs() as f64 / 1e9),
        kernels.launches.len().to_string(),
        kernels.kernels.len().to_string(),
    ])
}

/// The generating models: sizes in FP16, as most of them are published.
fn decoders() -> String {
    let rows: Vec<Vec<String>> = decoder::DECODERS
        .iter()
        .map(|d| {
            vec![
                d.name.to_string(),
                d.title.to_string(),
                format!("{:.2}", d.params() as f64 / 1e6),
                format!("{:.2}", d.weights_bytes(Precision::Fp16).0 as f64 / f64::from(1 << 30)),
                format!("{}", d.kv_bytes_per_token(Precision::Fp16).0 / 1024),
                d.positions.to_string(),
            ]
        })
        .collect();
    align(&["model", "title", "params M", "fp16 GiB", "KV KiB/token", "context"], &rows)
}

/// A generating model: sizes, and what steps of a serving engine take.
fn one_decoder(args: &ModelArgs, model: &Decoder, device: &Device) -> String {
    let precision = args.precision(device);
    let mut text = format!(
        "{}: {}\n{} layers of width {}, {} query heads and {} of keys and values of {}, vocabulary {}\n\
         parameters: {:.2} M ({:.2} GiB)\nKV cache: {} KiB per token, context up to {} tokens\n\n\
         steps on {}, {}, alone and without host time:\n",
        model.name,
        model.title,
        model.layers,
        model.width,
        model.heads,
        model.kv_heads,
        model.head_dim,
        model.vocabulary,
        model.params() as f64 / 1e6,
        model.weights_bytes(precision).0 as f64 / f64::from(1 << 30),
        model.kv_bytes_per_token(precision).0 / 1024,
        model.positions,
        device.name,
        precision,
    );
    let options = StepOptions { precision, rounding: Rounding::exact(), ..StepOptions::default() };
    let mut steps = StepLibrary::new(model.clone(), device.clone(), options);
    let mut rows = vec![];
    for (what, shape) in [
        ("decode, 1 sequence of 1024", StepShape::new(&[], &[1024])),
        ("decode, 32 sequences of 1024", StepShape::new(&[], &[1024; 32])),
        ("prefill of 512", StepShape::new(&[(512, 512)], &[])),
        ("prefill of 2048", StepShape::new(&[(2048, 2048)], &[])),
        ("prefill of 512 beside decode of 32", StepShape::new(&[(512, 512)], &[1024; 32])),
    ] {
        let program = steps.program(&shape);
        rows.push(vec![
            what.to_owned(),
            program.launches().count().to_string(),
            rounded(Some(model.macs(&shape) as f64 / 1e9)),
            rounded(Some(program.gpu_ns as f64 / 1e6)),
        ]);
    }
    text += &align(&["step", "launches", "GMAC", "ms"], &rows);
    text
}

fn one_model(args: &ModelArgs, spec: &zoo::ModelSpec, device: &Device) -> Done<String> {
    let lowered = args.lowered(spec, device)?;
    let precision = args.precision(device);
    let flops: u64 = lowered.launches.iter().map(|&k| lowered.kernels[k].flops).sum();
    let bytes: u64 = lowered.launches.iter().map(|&k| lowered.kernels[k].dram_bytes).sum();
    let mut text = format!(
        "{}\nparameters: {:.2} M ({:.1} MB)\nmultiply-accumulates per item: {:.3} G\n\
         activations per item: {:.1} MB\nat batch {} on {}, {}: {} launches of {} kernels, {:.2} GFLOP, \
         {:.1} MB of DRAM traffic\n\n",
        spec.name,
        spec.params() as f64 / 1e6,
        spec.weights_bytes(precision).0 as f64 / 1e6,
        spec.macs() as f64 / 1e9,
        spec.activations_per_item_bytes(precision).0 as f64 / 1e6,
        args.batch,
        args.device,
        precision,
        lowered.launches.len(),
        lowered.kernels.len(),
        flops as f64 / 1e9,
        bytes as f64 / 1e6,
    );
    let rows: Vec<Vec<String>> = spec
        .nodes
        .iter()
        .enumerate()
        .map(|(i, node)| {
            let macs = node.layer.macs();
            let macs = if macs == 0 { "-".to_owned() } else { rounded(Some(macs as f64 / 1e6)) };
            vec![i.to_string(), node.layer.to_string(), macs]
        })
        .collect();
    text += &align(&["layer", "what", "MMAC"], &rows);
    Ok(text)
}
