//! Layer tables of other tools: the step takes what the table's rows add up to.

use std::collections::BTreeMap;
use std::path::PathBuf;

use cotenant_profiles::Device;
use cotenant_profiles::files::{Store, read_layers, write_layers};
use cotenant_profiles::import::{Input, LayerImport, llmservingsim};
use cotenant_profiles::steps::{LayerTimes, StepLibrary, StepOptions, TimedLayer};
use cotenant_profiles::zoo::decoder::{Rounding, StepShape, decoder};

const DENSE: &str = "layer,tokens,time_us\nqkv_proj,1,30.5\nqkv_proj,9,31.5\nact_fn,1,2\n";
const ATTENTION: &str = "prefill_chunk,kv_prefill,n_decode,kv_decode,time_us\n\
                         0,0,1,15,9.5\n0,0,1,63,10.5\n16,0,0,0,7\n";

fn small() -> LayerImport {
    let device = Device::builtin("rtx-4090").unwrap();
    let inputs = [
        Input { file: "dense.csv", text: DENSE },
        Input { file: "attention.csv", text: ATTENTION },
    ];
    let facts = [("precision", "bf16".to_owned())];
    llmservingsim(&inputs, &device, "llama-3.1-8b", &facts).unwrap()
}

fn steps(times: &LayerTimes) -> StepLibrary {
    let options = StepOptions { rounding: Rounding::exact(), ..StepOptions::default() };
    let device = Device::builtin(&times.device).unwrap();
    StepLibrary::new(decoder("llama-3.1-8b").unwrap(), device, options).with_measured(times.clone())
}

/// Times of the kernels of one transformer layer, by their ids.
fn layer_times(steps: &mut StepLibrary, shape: &StepShape) -> BTreeMap<String, u64> {
    let program = steps.program(shape).clone();
    let cus = Device::builtin("rtx-4090").unwrap().cus();
    let kernel = |k: usize| &steps.kernels()[k];
    let launches = program.segments[1].launches.iter();
    launches.map(|l| (kernel(l.kernel).id.clone(), kernel(l.kernel).at(cus))).collect()
}

#[test]
fn a_timed_layer_takes_its_row_and_scales_its_curve() {
    let mut measured = steps(&small().times);
    let of = |times: &BTreeMap<String, u64>, part: &str| -> u64 {
        times.iter().filter(|(id, _)| id.starts_with(part)).map(|(_, ns)| ns).sum()
    };
    let one = layer_times(&mut measured, &StepShape::new(&[], &[16]));
    assert_eq!(of(&one, "linear-1x6144x4096"), 30_500);
    assert_eq!(of(&one, "silu"), 2000);
    // Attention and the write to the cache share a row.
    assert_eq!(of(&one, "paged") + of(&one, "cache-write"), 9500);
    // Between two rows of a table, on the line between them.
    let five = layer_times(&mut measured, &StepShape::new(&[], &[16; 5]));
    assert_eq!(of(&five, "linear-5x6144x4096"), 31_000);
    // Whole GPUs were measured; the shape of the curve stays the computed one.
    let mut computed = StepLibrary::new(
        decoder("llama-3.1-8b").unwrap(),
        Device::builtin("rtx-4090").unwrap(),
        measured.options().clone(),
    );
    let shape = StepShape::new(&[], &[16]);
    let half = |s: &mut StepLibrary| {
        let k = s.program(&shape).segments[1].launches[1].kernel;
        s.kernels()[k].at(40) as f64 / s.kernels()[k].at(128) as f64
    };
    assert!((half(&mut measured) - half(&mut computed)).abs() < 1e-3);
}

#[test]
fn layer_times_survive_a_file() {
    let dir = tempfile();
    let times = small().times;
    write_layers(&dir, &times, false).unwrap();
    let path = dir.join("layers/llama-3.1-8b.csv");
    assert_eq!(read_layers(&path).unwrap(), times);
    let again = write_layers(&dir, &times, false).unwrap_err().to_string();
    assert!(again.contains("holds layer times of llama-3.1-8b already"), "{again}");
    write_layers(&dir, &times, true).unwrap();
    let store = Store::new(vec![dir.clone()]);
    let on = |name: &str| store.layers_of("llama-3.1-8b", &Device::builtin(name).unwrap()).unwrap();
    assert_eq!(on("rtx-4090").unwrap().1, times);
    assert!(on("h100-sxm").is_none());
    // Damage names its place.
    let text = std::fs::read_to_string(&path).unwrap();
    for (from, to, wanted) in [
        ("qkv_proj,1", "qkv_projs,1", "did you mean `qkv_proj`?"),
        ("qkv_proj,1,,,,,,,,30500", "qkv_proj,1,,,,,,,,0", "duration_ns: `0` is not"),
        ("qkv_proj,9", "qkv_proj,1", "is there twice"),
        ("# model=llama-3.1-8b\n", "", "model: missing"),
    ] {
        assert!(text.contains(from), "{text}");
        std::fs::write(&path, text.replace(from, to)).unwrap();
        let error = read_layers(&path).unwrap_err().to_string();
        assert!(error.contains(wanted), "{error}");
    }
    std::fs::remove_dir_all(&dir).unwrap();
}

fn tempfile() -> PathBuf {
    let dir = std::env::temp_dir().join(format!("cotenant-layers-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&dir);
    dir
}

#[test]
fn a_table_of_layers_that_does_not_read_says_where() {
    let device = Device::builtin("l4").unwrap();
    for (text, wanted) in [
        ("layer,time_us\nqkv_proj,1\n", "the header of a layer table"),
        ("layer,tokens,time_us\nqkv_proj,0,1\n", "t.csv:2: tokens: `0` is not"),
        ("layer,tokens,time_us\nlm_head,1,1\n", "a layer whose time goes by tokens"),
        ("layer,tokens,time_us\nqkv_proj,1,nan\n", "t.csv:2: time_us: `nan` is not"),
        ("layer,tokens,time_us\nqkv_proj,1,1\nqkv_proj,1,2\n", "t.csv:3: layer: `the same point`"),
        ("layer,tokens,time_us\nother,1,1\n", "no rows"),
    ] {
        let inputs = [Input { file: "t.csv", text }];
        let error = llmservingsim(&inputs, &device, "m", &[]).unwrap_err().to_string();
        assert!(error.contains(wanted), "{error}");
    }
}

/// LLMServingSim's tables of a GPU, where public data is at hand.
fn public(gpu: &str, device: &str) -> Option<(LayerImport, Vec<(String, String)>)> {
    let Some(root) = std::env::var_os("COTENANT_PUBLIC_DATA") else {
        eprintln!("skipped: COTENANT_PUBLIC_DATA is not set");
        return None;
    };
    let dir = PathBuf::from(root).join("profiles/llmservingsim/profiler/perf").join(gpu);
    let dir = dir.join("meta-llama/Llama-3.1-8B/bf16/tp1");
    let texts: Vec<(String, String)> = ["dense.csv", "per_sequence.csv", "attention.csv"]
        .iter()
        .map(|name| {
            let path = dir.join(name);
            (path.display().to_string(), std::fs::read_to_string(path).unwrap())
        })
        .collect();
    let inputs: Vec<Input<'_>> = texts.iter().map(|(file, text)| Input { file, text }).collect();
    let device = Device::builtin(device).unwrap();
    Some((llmservingsim(&inputs, &device, "llama-3.1-8b", &[]).unwrap(), texts))
}

/// The sum of a table's rows over a step of Llama 3.1 8B, ns, independently of how they are imported;
/// rows between two measured ones lie on the line between them.
fn sum(texts: &[(String, String)], tokens: u32, sequences: u32, attention: &str) -> f64 {
    let row = |layer: &str, n: u32| -> f64 {
        let points: BTreeMap<u32, f64> = texts[..2]
            .iter()
            .flat_map(|(_, text)| text.lines())
            .filter_map(|l| l.strip_prefix(layer)?.strip_prefix(',')?.split_once(','))
            .map(|(n, us)| (n.parse().unwrap(), us.parse::<f64>().unwrap()))
            .collect();
        let (&a, &from) = points.range(..=n).next_back().unwrap();
        let (&b, &to) = points.range(n..).next().unwrap();
        if a == b { from } else { from + (to - from) * f64::from(n - a) / f64::from(b - a) }
    };
    let line = texts[2].1.lines().find_map(|l| l.strip_prefix(attention)?.strip_prefix(','));
    let attention: f64 = line.unwrap().parse().unwrap();
    let layers = ["qkv_proj", "rotary_emb", "o_proj", "gate_up_proj", "act_fn", "down_proj"];
    let layer = layers.iter().map(|l| row(l, tokens)).sum::<f64>()
        + 2.0 * row("layernorm", tokens)
        + attention;
    let ends = row("embedding", tokens)
        + row("final_layernorm", tokens)
        + row("lm_head", sequences)
        + row("sampler", sequences);
    1e3 * (32.0 * layer + ends)
}

#[test]
fn steps_take_what_the_public_tables_add_up_to() {
    for (gpu, device) in [("RTX4090", "rtx-4090"), ("RTXPRO6000", "rtx-pro-6000")] {
        let Some((import, texts)) = public(gpu, device) else { return };
        assert_eq!(import.rows_in, import.rows_used);
        let mut steps = steps(&import.times);
        let mut worst: f64 = 0.0;
        // Decode at measured contexts, prompts and chunks, and both in one step.
        let decode = [1, 4, 32, 128, 256]
            .into_iter()
            .flat_map(|n| [16, 256, 1024, 4096].map(|kv| (0, 0, n, kv)));
        let prefill =
            [16, 128, 512, 2048].into_iter().flat_map(|c| [0, 1024, 8192].map(|kv| (c, kv, 0, 0)));
        let mixed = [(64, 0, 32, 512), (512, 1024, 8, 1024), (1024, 0, 128, 256)];
        for (chunk, before, n, kv) in decode.chain(prefill).chain(mixed) {
            let attention = format!("{chunk},{before},{n},{kv}");
            if !texts[2].1.contains(&format!("\n{attention},")) {
                continue;
            }
            let chunks = [(chunk, before + chunk)];
            let chunks = if chunk > 0 { &chunks[..] } else { &[] };
            let shape = StepShape::new(chunks, &vec![kv + 1; n as usize]);
            let wanted = sum(&texts, shape.tokens(), shape.sequences(), &attention);
            let ours = steps.program(&shape).gpu_ns as f64;
            worst = worst.max((ours / wanted - 1.0).abs());
        }
        eprintln!("{gpu}: at most {:.3} % from the sums of the table", 100.0 * worst);
        assert!(worst < 0.001, "{gpu}: {worst}");
    }
}

#[test]
fn steps_between_the_public_rows_are_near_those_that_were_left_out() {
    for (gpu, device) in [("RTX4090", "rtx-4090"), ("RTXPRO6000", "rtx-pro-6000")] {
        let Some((import, _)) = public(gpu, device) else { return };
        let whole = import.times;
        // Every other number of tokens, and every other context, is left out and then asked for.
        let mut half = whole.clone();
        for points in half.rows.values_mut() {
            let odd: Vec<u32> = points.keys().copied().skip(1).step_by(2).collect();
            let end = *points.keys().next_back().unwrap();
            points.retain(|n, _| *n == end || !odd.contains(n));
        }
        let context = |n: u64| n.saturating_sub(1).checked_ilog2().unwrap_or(0) % 2 == 1;
        half.attention.retain(|(p, d), _| {
            let each = d.context.checked_div(u64::from(d.sequences)).unwrap_or(0);
            !context(each) || p.tokens > 0
        });
        let (mut all, mut some) = (steps(&whole), steps(&half));
        let mut errors = vec![];
        for (prefill, decode) in whole.attention.keys() {
            if half.attention.contains_key(&(*prefill, *decode)) {
                continue;
            }
            let shape = StepShape { prefill: *prefill, decode: *decode, padding: 0 };
            let [a, b] = [&mut all, &mut some].map(|s| s.program(&shape).gpu_ns as f64);
            errors.push((b / a - 1.0).abs());
        }
        errors.sort_by(f64::total_cmp);
        let mean = errors.iter().sum::<f64>() / errors.len() as f64;
        let worst = errors[errors.len() - 1];
        eprintln!(
            "{gpu}: {} steps left out: mean {:.2} %, worst {:.2} %",
            errors.len(),
            100.0 * mean,
            100.0 * worst
        );
        assert!(mean < 0.03, "{gpu}: {mean}");
    }
}

#[test]
fn layers_have_names_of_their_own() {
    for (layer, name) in TimedLayer::ALL {
        assert_eq!(TimedLayer::from_name(name), Some(layer));
        assert_eq!(layer.name(), name);
    }
}
