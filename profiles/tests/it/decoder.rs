//! Decoder-only models: sizes against published ones, steps against closed forms and layer tables.

mod layers;

use cotenant_profiles::lower::Precision;
use cotenant_profiles::steps::{StepLibrary, StepOptions};
use cotenant_profiles::zoo::decoder::{
    DECODERS, Decode, Decoder, FeedForward, Prefill, Rounding, StepLayer, StepShape, decoder,
    experts_touched, parse_config,
};
use cotenant_profiles::{Device, Executor};
use proptest::prelude::*;

fn library(model: &str, device: &str, rounding: Rounding) -> StepLibrary {
    let options = StepOptions { rounding, ..StepOptions::default() };
    let device = Device::builtin(device).expect("it ships");
    StepLibrary::new(decoder(model).expect("in the zoo"), device, options)
}

/// Parameters, exactly, as keras-hub 0.32 (`*_presets.py`) counts the tensors of the checkpoints that
/// it converts. It counts Llama 3.2's tied table twice: the card of the 1B model says 1.23 B, of the 3B
/// model 3.21 B (github.com/meta-llama/llama-models, `models/llama3_2/MODEL_CARD.md`).
const PUBLISHED: &[(&str, u64)] = &[
    ("llama-3.2-1b", 1_235_814_400),
    ("llama-3.2-3b", 3_212_749_824),
    ("llama-3.1-8b", 8_030_261_248),
    ("mistral-7b", 7_248_023_552),
    ("qwen2.5-7b", 7_615_616_512),
    ("qwen3-4b", 4_022_468_096),
    ("qwen3-8b", 8_190_735_360),
    ("qwen3-30b-a3b", 30_532_122_624),
];

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
    let matrices = llama.params_read(1) - 4096 - 32 * 2 * 4096;
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
fn experts_are_read_as_tokens_are_sent_to_them() {
    // 128 (1 - (1 - 8/128)^n), uniformly routed.
    let touched = [1, 4, 16, 64].map(|n| experts_touched(128, 8, n));
    assert_eq!(touched, [8, 29, 82, 126]);
    assert_eq!([experts_touched(8, 2, 0), experts_touched(8, 8, 5)], [2, 8]);
    let qwen = decoder("qwen3-30b-a3b").unwrap();
    // "A3B": about three billion parameters at one token, nearly all of them at many.
    assert!((3.0e9..3.1e9).contains(&(qwen.params_read(1) as f64)), "{}", qwen.params_read(1));
    assert!(qwen.params_read(4096) as f64 > 0.98 * qwen.params() as f64);
    // One token is multiplied with what it reads but the norms, and with itself.
    let norms = 48 * (2 * 2048 + 2 * 128) + 2048;
    let one = qwen.params_read(1) - norms + 48 * 2 * 4096;
    assert_eq!(qwen.macs(&StepShape::new(&[(1, 1)], &[])), one);
    // Router, top-k, two grouped products, activation and sum in place of three kernels; and two
    // norms of heads.
    let mut steps = library("qwen3-30b-a3b", "h100-sxm", Rounding::exact());
    let launches = steps.program(&StepShape::new(&[], &[500; 8])).launches().count();
    assert_eq!(launches, 48 * (10 + 2 + 3) + 5);
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
            let bytes =
                (2 * llama.params_read(shape.tokens()) + cache) as f64 / device.memory.dram_gbps;
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

#[test]
fn quantised_products_read_fewer_bytes() {
    let llama = decoder("llama-3.1-8b").unwrap();
    // Matrices of the layers in the precision, two tables and the norms in FP16.
    let matrices = 32 * (2 * 4096 * 4096 + 2 * 4096 * 1024 + 3 * 4096 * 14_336);
    let rest = 2 * (8_030_261_248 - matrices);
    assert_eq!(llama.weights_bytes(Precision::Fp8).0, matrices + rest);
    assert_eq!(llama.weights_bytes(Precision::Int8).0, matrices + rest);
    assert_eq!(llama.weights_bytes(Precision::Int4).0, (matrices * 13).div_ceil(25) + rest);
    assert_eq!(llama.kv_bytes_per_token(Precision::Int4).0, 131_072);
    let ns = |precision: Precision, shape: &StepShape| {
        let device = Device::builtin("h100-sxm").unwrap();
        let options = StepOptions { precision, ..StepOptions::default() };
        StepLibrary::new(llama.clone(), device, options).program(shape).gpu_ns as f64
    };
    // A step of one token is bound by weights: 16.0, 8.0 and about 5.7 GB with the output projection.
    let one = StepShape::new(&[], &[100]);
    let [half, fp8, int4] = [Precision::Bf16, Precision::Fp8, Precision::Int4].map(|p| ns(p, &one));
    assert!((0.5..0.65).contains(&(fp8 / half)), "{}", fp8 / half);
    assert!((0.3..0.48).contains(&(int4 / half)), "{}", int4 / half);
    // A long prompt is bound by arithmetic, which four-bit weights leave as it is.
    let long = StepShape::new(&[(4096, 4096)], &[]);
    let [half, fp8, int4] =
        [Precision::Bf16, Precision::Fp8, Precision::Int4].map(|p| ns(p, &long));
    assert!((0.45..0.85).contains(&(fp8 / half)), "{}", fp8 / half);
    assert!((0.85..1.1).contains(&(int4 / half)), "{}", int4 / half);
}

#[test]
fn a_device_says_which_precisions_it_has() {
    for (device, precision, wanted) in [
        ("h100-sxm", Precision::Fp8, None),
        (
            "a100-sxm-80",
            Precision::Fp8,
            Some("a100-sxm-80 has no units for fp8; it has fp32, tf32, fp16, bf16, int8, int4"),
        ),
        ("t4", Precision::Bf16, Some("t4 has no units for bf16; it has fp32, fp16, int8, int4")),
        ("p40", Precision::Int4, Some("p40 has no units for int4; it has fp32, fp16, int8")),
        ("p40", Precision::Int8, None),
    ] {
        let error = precision.check(&Device::builtin(device).unwrap()).err().map(|e| e.to_string());
        assert_eq!(error.as_deref(), wanted, "{device} {precision}");
    }
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

const QWEN: &str = r#"{
  "architectures": ["Qwen3MoeForCausalLM"],
  "attention_bias": false,
  "attention_dropout": 0.0,
  "bos_token_id": 151643,
  "decoder_sparse_step": 1,
  "eos_token_id": 151645,
  "head_dim": 128,
  "hidden_act": "silu",
  "hidden_size": 2048,
  "initializer_range": 0.02,
  "intermediate_size": 6144,
  "max_position_embeddings": 40960,
  "max_window_layers": 48,
  "mlp_only_layers": [],
  "model_type": "qwen3_moe",
  "moe_intermediate_size": 768,
  "norm_topk_prob": true,
  "num_attention_heads": 32,
  "num_experts": 128,
  "num_experts_per_tok": 8,
  "num_hidden_layers": 48,
  "num_key_value_heads": 4,
  "output_router_logits": false,
  "rms_norm_eps": 1e-06,
  "rope_scaling": null,
  "rope_theta": 1000000.0,
  "router_aux_loss_coef": 0.001,
  "sliding_window": null,
  "tie_word_embeddings": false,
  "torch_dtype": "bfloat16",
  "transformers_version": "4.51.0",
  "use_cache": true,
  "use_sliding_window": false,
  "vocab_size": 151936
}"#;

#[test]
fn a_config_gives_the_architecture() {
    let path = std::path::Path::new("models/Qwen3-30B-A3B/config.json");
    let checkpoint = parse_config(path, QWEN).unwrap();
    assert_eq!(checkpoint.precision, Some(Precision::Bf16));
    let zoo = decoder("qwen3-30b-a3b").unwrap();
    let read = Decoder { title: zoo.title.clone(), name: zoo.name.clone(), ..checkpoint.decoder };
    assert_eq!(read, zoo);
    // A Llama may leave out what follows from the rest.
    let text = r#"{"model_type": "llama", "hidden_size": 4096, "intermediate_size": 11008,
        "num_hidden_layers": 32, "num_attention_heads": 32, "vocab_size": 32000,
        "max_position_embeddings": 4096}"#;
    let llama2 = parse_config("llama-2.json".as_ref(), text).unwrap().decoder;
    assert_eq!((llama2.kv_heads, llama2.head_dim, &*llama2.name), (32, 128, "llama-2"));
    // What keras-hub counts of Llama 2 7B.
    assert_eq!(llama2.params(), 6_738_415_616);
    let windowed = text
        .replace("\"llama\"", "\"mistral\", \"sliding_window\": 4096")
        .replace("\"vocab_size\"", "\"num_key_value_heads\": 8, \"vocab_size\"");
    let mistral = parse_config("mistral.json".as_ref(), &windowed).unwrap().decoder;
    let far = StepShape::new(&[], &[100_000; 3]);
    let near = StepShape::new(&[], &[4096; 3]);
    assert_eq!(mistral.macs(&far), mistral.macs(&near));
    assert_eq!(mistral.step(&far), mistral.step(&near));
    assert_eq!(mistral.feed_forward, FeedForward::Gated { inner: 11_008 });
}

#[test]
fn a_config_that_cannot_be_read_says_why_and_what_to_do() {
    let edit = |from: &str, to: &str| QWEN.replace(from, to);
    for (text, line, wanted) in [
        (edit("\"num_experts\"", "\"num_expert\""), 20, "write `num_experts` if that is meant"),
        (edit("  \"num_hidden_layers\": 48,\n", ""), 1, "num_hidden_layers: missing"),
        (edit("\"hidden_size\": 2048", "\"hidden_size\": -1"), 10, "is not a whole number"),
        (edit("\"qwen3_moe\"", "\"deepseek_v3\""), 16, "`deepseek_v3` is not supported"),
        (edit("\"qwen3_moe\"", "\"qwen3_next\""), 16, "the nearest to it is `qwen3"),
        (edit("Qwen3MoeForCausalLM", "Qwen3MoeForScores"), 2, "Qwen3MoeForCausalLM is"),
        (edit("\"num_key_value_heads\": 4", "\"num_key_value_heads\": 5"), 23, "does not divide"),
        (edit("\"silu\"", "\"relu6\""), 9, "\"silu\" is what costs the same"),
        (edit("\"mlp_only_layers\": []", "\"mlp_only_layers\": [0]"), 15, "[] is"),
        (edit("\"num_experts_per_tok\": 8", "\"num_experts_per_tok\": 200"), 21, "200 of 128"),
        (QWEN.replace('}', ","), 36, "no JSON object"),
        ("[1]".to_owned(), 1, "no JSON object"),
        ("{}".to_owned(), 1, "model_type: missing"),
    ] {
        let error = parse_config("q/config.json".as_ref(), &text).unwrap_err().to_string();
        assert!(error.starts_with(&format!("q/config.json:{line}: ")), "{error}");
        assert!(error.contains(wanted), "{error}");
    }
}
