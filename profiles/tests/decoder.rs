//! Decoder-only models: sizes against published ones, steps against closed forms.

use cotenant_profiles::lower::Precision;
use cotenant_profiles::steps::{StepLibrary, StepOptions};
use cotenant_profiles::zoo::decoder::{
    DECODERS, Decode, Decoder, Prefill, Rounding, StepLayer, StepShape, decoder,
};
use cotenant_profiles::{Device, Executor};
use proptest::prelude::*;

fn library(model: &str, device: &str, rounding: Rounding) -> StepLibrary {
    let options = StepOptions { rounding, ..StepOptions::default() };
    let device = Device::builtin(device).expect("it ships");
    StepLibrary::new(decoder(model).expect("in the zoo"), device, options)
}

/// Parameters by the name of the source, exactly: keras-hub 0.32 (`*_presets.py`) counts every tensor
/// of the checkpoints that it converts.
const PUBLISHED: &[(&str, u64)] = &[("llama-3.1-8b", 8_030_261_248)];

#[test]
fn parameters_are_the_published_ones() {
    for &(name, params) in PUBLISHED {
        assert_eq!(decoder(name).unwrap().params(), params, "{name}");
    }
    for known in DECODERS {
        assert!(PUBLISHED.iter().any(|(n, _)| *n == known.name), "{}: not checked", known.name);
    }
}

#[test]
fn sizes_follow_from_the_shapes() {
    let llama = decoder("Llama-3.1-8B").unwrap();
    // 2 tensors × 32 layers × 8 heads × 128 elements × 2 bytes.
    assert_eq!(llama.kv_bytes_per_token(Precision::Fp16).0, 131_072);
    assert_eq!(llama.weights_bytes(Precision::Bf16).0, 2 * 8_030_261_248);
    // Two residual rows and the gated layer's three of 14336 beat queries, keys and values.
    let activations = llama.activations_bytes(2048, 1, Precision::Fp16).0;
    assert_eq!(activations, 2048 * (2 * 4096 + 3 * 14_336) * 2);
    // Logits in FP16, in FP32, and the sampler's copy.
    let activations = llama.activations_bytes(256, 256, Precision::Fp16).0;
    assert_eq!(activations, 256 * 128_256 * 10);
}

#[test]
fn a_step_multiplies_what_the_closed_form_says() {
    let llama = decoder("llama-3.1-8b").unwrap();
    // One token that sees 1000: every matrix once, and 2 × 1000 × 4096 per layer.
    let matrices = llama.params_read() - 4096 - 32 * 2 * 4096;
    let step = StepShape::new(&[], &[1000]);
    assert_eq!(llama.macs(&step), matrices + 32 * 2 * 1000 * 4096);
    let linear: u64 = llama
        .step(&step)
        .segments
        .iter()
        .flat_map(|s| s.layers.iter().map(move |l| (l, u64::from(s.repeat))))
        .map(|(layer, repeat)| match *layer {
            StepLayer::Linear { tokens, in_features, out_features, .. } => {
                repeat * u64::from(tokens) * u64::from(in_features) * u64::from(out_features)
            }
            _ => 0,
        })
        .sum();
    assert_eq!(linear, matrices);
}

#[test]
fn a_chunked_prompt_multiplies_as_much_as_a_whole_one() {
    let whole = StepShape::new(&[(1000, 1000)], &[]);
    let chunks = [(400, 400), (400, 800), (200, 1000)].map(|c| StepShape::new(&[c], &[]));
    assert_eq!(whole.prefill.seen, 1000 * 1001 / 2);
    assert_eq!(chunks.iter().map(|c| c.prefill.seen).sum::<u64>(), whole.prefill.seen);
    // But it reads its cache again with every chunk.
    assert_eq!(chunks.iter().map(|c| c.prefill.context).sum::<u64>(), 2200);
}

#[test]
fn a_step_launches_what_a_serving_engine_does() {
    let mut steps = library("llama-3.1-8b", "h100-sxm", Rounding::default());
    // Ten kernels a layer (eleven where prompts stand beside sequences that generate), one before,
    // four behind.
    let decode = steps.program(&StepShape::new(&[], &[500; 8])).clone();
    assert_eq!(decode.launches().count(), 32 * 10 + 5);
    let mixed = steps.program(&StepShape::new(&[(512, 512)], &[500; 8])).clone();
    assert_eq!(mixed.launches().count(), 32 * 11 + 5);
    // A captured graph costs the host next to nothing, piecewise ones two launches a layer.
    let host =
        |p: &cotenant_profiles::steps::StepProgram| p.launches().map(|l| l.host.0).sum::<u64>();
    assert!(host(&decode) < 1_000_000, "{}", host(&decode));
    assert!(host(&mixed) > 1_000_000, "{}", host(&mixed));
    let device = Device::builtin("h100-sxm").unwrap();
    let options = StepOptions { executor: Executor::Eager, ..StepOptions::default() };
    let mut eager = StepLibrary::new(decoder("llama-3.1-8b").unwrap(), device.clone(), options);
    let eager = eager.program(&StepShape::new(&[], &[500; 8])).clone();
    assert_eq!(host(&eager), 325 * device.host.eager.0);
}

#[test]
fn a_step_takes_at_least_its_bytes_and_its_arithmetic() {
    for device in ["a100-sxm-80", "h100-sxm", "rtx-4090", "l4"] {
        let mut steps = library("llama-3.1-8b", device, Rounding::exact());
        let llama = steps.decoder().clone();
        let device = Device::builtin(device).unwrap();
        for shape in [
            StepShape::new(&[], &[1024]),
            StepShape::new(&[], &[1024; 64]),
            StepShape::new(&[(2048, 2048)], &[]),
            StepShape::new(&[(512, 4096)], &[700; 32]),
        ] {
            let ns = steps.program(&shape).gpu_ns as f64;
            let cache = (shape.decode.context + shape.prefill.context)
                * llama.kv_bytes_per_token(Precision::Fp16).0;
            let bytes = (2 * llama.params_read() + cache) as f64 / device.memory.dram_gbps;
            let flops = 2.0 * llama.macs(&shape) as f64 / (device.compute.fp16_tflops * 1e3);
            assert!(ns >= bytes.max(flops), "{}: {ns} below {bytes}, {flops}", device.name);
            assert!(
                ns <= 2.5 * (bytes + flops),
                "{}: {ns} far above {bytes} + {flops}",
                device.name
            );
        }
    }
}

#[test]
fn decoding_needs_few_compute_units_and_prefill_all_of_them() {
    let device = Device::builtin("h100-sxm").unwrap();
    let mut steps = library("llama-3.1-8b", "h100-sxm", Rounding::default());
    let mut slowdown = |shape: StepShape, cus: u32| {
        let program = steps.program(&shape).clone();
        let on =
            |c: u32| -> u64 { program.launches().map(|l| steps.kernels()[l.kernel].at(c)).sum() };
        on(cus) as f64 / on(device.cus()) as f64
    };
    let half = device.cus() / 2;
    let decode = slowdown(StepShape::new(&[], &[1024; 8]), half);
    let prefill = slowdown(StepShape::new(&[(4096, 4096)], &[]), half);
    assert!(prefill > 1.6, "prefill on half of the GPU: {prefill}");
    assert!(decode < 1.5 && decode < prefill - 0.2, "decode on half of the GPU: {decode}");
}

#[test]
fn steps_alike_share_a_program() {
    let mut steps = library("llama-3.1-8b", "h100-sxm", Rounding::default());
    let one = steps.index(&StepShape::new(&[], &[1000; 5]));
    assert_eq!(steps.index(&StepShape::new(&[], &[1001, 999, 1003, 1000, 1000])), one);
    assert_ne!(steps.index(&StepShape::new(&[], &[2000; 5])), one);
    assert_eq!(steps.programs().len(), 2);
    // What was asked for before changes nothing.
    let mut fresh = library("llama-3.1-8b", "h100-sxm", Rounding::default());
    let again = fresh.program(&StepShape::new(&[], &[2000; 5]));
    assert_eq!(again.gpu_ns, steps.programs()[1].gpu_ns);
}

#[test]
fn captured_sizes_pad_steps_that_only_generate() {
    let sizes = Rounding::captured_by_vllm(512);
    assert_eq!(sizes[..6], [1, 2, 4, 8, 16, 24]);
    assert_eq!(sizes[sizes.len() - 3..], [480, 496, 512]);
    assert_eq!(Rounding::captured_by_vllm(3), [1, 2]);
    let rounding = Rounding { captured: sizes, ..Rounding::exact() };
    let padded = rounding.round(&StepShape::new(&[], &[100; 5]));
    assert_eq!((padded.tokens(), padded.sequences(), padded.padding), (8, 5, 3));
    let mixed = StepShape::new(&[(10, 10)], &[100; 5]);
    assert_eq!(rounding.round(&mixed), mixed);
}

#[test]
fn no_name_gives_no_decoder_but_a_hint() {
    let error = decoder("llama-3.1-8").unwrap_err().to_string();
    assert!(error.contains("the closest name is `llama-3.1-8b`"), "{error}");
}

fn any_shape() -> impl Strategy<Value = StepShape> {
    let prefill = prop::collection::vec((1u32..5000, 0u32..100_000), 0..4);
    let decode = prop::collection::vec(1u32..120_000, 0..300);
    (prefill, decode).prop_map(|(prefill, decode)| {
        let chunks: Vec<(u32, u32)> = prefill.iter().map(|&(n, cached)| (n, n + cached)).collect();
        StepShape::new(&chunks, &decode)
    })
}

proptest! {
    #[test]
    fn rounding_is_stable_and_near(shape in any_shape(), bits in 1u32..12) {
        let rounding = Rounding { bits, captured: Vec::new() };
        let once = rounding.round(&shape);
        prop_assert_eq!(rounding.round(&once), once);
        let limit = 1.0 / f64::from(1u32 << bits) + 1e-9;
        let near = |a: u64, b: u64| (a as f64 - b as f64).abs() <= limit * a.max(b) as f64 * 1.01;
        let Prefill { sequences, tokens, .. } = shape.prefill;
        let Decode { sequences: decoding, context } = shape.decode;
        prop_assert!(near(sequences.into(), once.prefill.sequences.into()));
        prop_assert!(near(tokens.into(), once.prefill.tokens.into()));
        prop_assert!(near(decoding.into(), once.decode.sequences.into()));
        prop_assert!(near(context, once.decode.context));
        prop_assert_eq!(Rounding::exact().round(&shape), shape);
    }

    #[test]
    fn any_step_of_any_decoder_has_a_program(shape in any_shape(), at in 0..DECODERS.len()) {
        prop_assume!(!shape.is_empty());
        let known: &Decoder = &DECODERS[at];
        let mut steps = library(&known.name, "l4", Rounding::exact());
        prop_assert!(steps.program(&shape).gpu_ns > 0);
    }
}
