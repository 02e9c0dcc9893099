//! What TensorRT's `trtexec` exports as JSON: times of iterations, and times of layers.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::whole::{Latency, WholeOptions, bad, import, named};
use super::{Builder, Import, ImportError, Input, one_line, op_of};
use crate::Device;
use crate::curve::{Curve, Point};
use crate::files::{FileError, MODEL_NAME, Problem, is_model_name};
use crate::kernel::Kernel;

/// Longest layer that a file may hold: an hour.
const LONGEST_MS: f64 = 3.6e6;

/// An entry of either list.
#[derive(Deserialize)]
#[serde(untagged)]
enum Entry {
    Times(Times),
    Layer(Layer),
    Count(Count),
}

/// The first entry of a profile: how often the layers ran.
#[derive(Deserialize)]
struct Count {
    count: f64,
}

/// A layer, in the order of the engine; its time is the sum over all iterations.
#[derive(Deserialize)]
struct Layer {
    name: String,
    #[serde(rename = "timeMs")]
    time: f64,
}

#[derive(Deserialize)]
struct Times {
    #[serde(rename = "startEnqMs")]
    start_enq: Option<f64>,
    #[serde(rename = "endEnqMs")]
    end_enq: Option<f64>,
    #[serde(rename = "h2dMs", default)]
    h2d: f64,
    #[serde(rename = "computeMs")]
    compute: f64,
    #[serde(rename = "d2hMs", default)]
    d2h: f64,
}

/// Imports what trtexec writes: with `--exportTimes` the median iteration as one kernel, with
/// `--exportProfile` a kernel for each layer, which takes its mean time.
///
/// # Errors
/// No model name, text that is no such list, or no iteration or layer.
pub fn trtexec(
    input: &Input<'_>,
    device: &Device,
    options: &WholeOptions,
) -> Result<Import, ImportError> {
    let all: Vec<Entry> = serde_json::from_str(input.text).map_err(|e| {
        let wanted = "a list that `trtexec` writes: `--exportTimes`, with `computeMs`, or \
                      `--exportProfile`, with `count` and layers of `name` and `timeMs`";
        bad(input.file, e.line().max(1), "computeMs", &e.to_string(), wanted)
    })?;
    if all.iter().any(|e| matches!(e, Entry::Count(_))) {
        return profile(input, device, options, all);
    }
    let mixed = |e: Entry| match e {
        Entry::Times(times) => Ok(times),
        Entry::Count(_) | Entry::Layer(_) => {
            let wanted = "with the times of an iteration; a profile begins with its `count`";
            Err(bad(input.file, 1, "computeMs", "an entry", wanted))
        }
    };
    let all: Vec<Times> = all.into_iter().map(mixed).collect::<Result<_, _>>()?;
    if all.is_empty() {
        return Err(FileError::bad(input.file, 1, "file", Problem::NoRows("iteration")));
    }
    let median = |of: &dyn Fn(&Times) -> f64| {
        let mut values: Vec<f64> =
            all.iter().map(of).filter(|x| x.is_finite() && *x >= 0.0).collect();
        values.sort_by(f64::total_cmp);
        let ms = values.get(values.len() / 2).copied().unwrap_or(0.0);
        (ms.min(3.6e6) * 1e6) as u64
    };
    let (compute, h2d, d2h) = (median(&|t| t.compute), median(&|t| t.h2d), median(&|t| t.d2h));
    let enqueue = median(&|t| t.end_enq.zip(t.start_enq).map_or(0.0, |(e, s)| e - s));
    // The host enqueues while the GPU computes: alone, only what it takes longer is seen.
    let host = options.launch.map_or(enqueue.saturating_sub(compute), |l| l.0);
    let model = named(input, options)?;
    let one = Latency { model, batch: options.batch, compute, host, copies: [h2d, d2h] };
    let note = format!("taken: the median of {} iterations, warm-up included", all.len());
    import(input, device, "TensorRT trtexec", &[one], all.len(), vec![note])
}

/// Layers of `--exportProfile`: `timeMs` over `count`, so that their sum is the mean pass.
fn profile(
    input: &Input<'_>,
    device: &Device,
    options: &WholeOptions,
    all: Vec<Entry>,
) -> Result<Import, ImportError> {
    let model = named(input, options)?;
    if !is_model_name(&model) {
        return Err(bad(input.file, 1, "model", &model, MODEL_NAME));
    }
    let (mut count, mut layers) = (None, Vec::new());
    for entry in all {
        match entry {
            Entry::Count(c) if count.is_none() => count = Some(c.count),
            Entry::Layer(layer) => layers.push(layer),
            Entry::Count(_) | Entry::Times(_) => {
                let wanted = "one `count`, and then layers";
                return Err(bad(input.file, 1, "count", "another entry", wanted));
            }
        }
    }
    let count = count.filter(|n| *n >= 1.0 && *n <= 1e9).ok_or_else(|| {
        bad(input.file, 1, "count", "nothing", "a number of iterations of at least 1")
    })?;
    let facts = [
        ("tool", "TensorRT trtexec --exportProfile".to_owned()),
        ("curves", "one point, on all CUs".to_owned()),
        ("iterations", count.to_string()),
    ];
    let mut builder = Builder::new(device, &facts);
    let host = options.launch.unwrap_or(device.costs.launch);
    let (mut idle, mut sum) = (0, 0.0);
    for (at, layer) in layers.iter().enumerate() {
        let ms = layer.time / count;
        if !(0.0..=LONGEST_MS).contains(&ms) {
            let text = format!("{} of layer {}", layer.time, layer.name);
            return Err(bad(input.file, 1, "timeMs", &text, "milliseconds of 0 or more"));
        }
        let ns = (ms * 1e6).round();
        if ns < 1.0 {
            idle += 1;
            continue;
        }
        sum += ms;
        let name = one_line(&layer.name);
        let name = if name.is_empty() { "unnamed".to_owned() } else { name };
        let op = op_of(&name);
        let point = Point { samples: 1, ..Point::exact(device.cus(), ns as u64) };
        let kernel = builder.kernel(at.to_string(), |number| Kernel {
            id: format!("{model}-b{}/{}/{number}", options.batch, op.name()),
            name,
            op,
            // Of unknown shape: it is taken to fill the device.
            grid: [device.cus(), 1, 1],
            block: 0,
            regs: 0,
            smem_bytes: 0,
            blocks_per_cu: 1,
            flops: 0,
            dram_bytes: 0,
            curve: Curve::new(vec![point]).expect("one point of at least 1 CU and 1 ns"),
        });
        builder.launch(&model, options.batch, kernel, host);
    }
    if builder.profile.kernels.is_empty() {
        return Err(FileError::bad(input.file, 1, "file", Problem::NoRows("layer with a time")));
    }
    let n = builder.profile.kernels.len();
    let dropped = match idle {
        0 => BTreeMap::new(),
        n => BTreeMap::from([("layers that took no time", n)]),
    };
    let mut import = builder.finish(layers.len(), dropped);
    import.notes.push(format!(
        "taken: {n} layers, {sum:.3} ms, the mean of {count} iterations; a launch each, {host} of the \
         host's time"
    ));
    import.notes.push(format!(
        "launch shape unknown for {n} of {n} layers: they are taken to fill the device"
    ));
    import.warnings.push(
        "trtexec times layers one by one, which costs time itself: compare the sum with \
         --exportTimes"
            .to_owned(),
    );
    Ok(import)
}
