//! The zoo against published figures, and against itself.

use std::collections::BTreeSet;

use cotenant_profiles::lower::Precision;
use cotenant_profiles::zoo::{self, Layer, MODELS};
use proptest::prelude::*;

/// Parameters (exact) and multiply-accumulates in 10^9 (three decimals; torchvision publishes them
/// as "GFLOPS") as the model pages of torchvision and Hugging Face list them.
const PUBLISHED: &[(&str, u64, Option<f64>)] = &[
    ("alexnet", 61_100_840, Some(0.714)),
    ("vgg16", 138_357_544, Some(15.470)),
    ("vgg19", 143_667_240, Some(19.632)),
    ("resnet18", 11_689_512, Some(1.814)),
    ("resnet50", 25_557_032, Some(4.089)),
    ("resnet101", 44_549_160, Some(7.801)),
    ("resnet152", 60_192_808, Some(11.514)),
    ("resnext101_32x8d", 88_791_336, Some(16.414)),
    ("densenet121", 7_978_856, Some(2.834)),
    ("densenet169", 14_149_480, Some(3.360)),
    ("densenet201", 20_013_928, Some(4.291)),
    ("squeezenet1_1", 1_235_496, Some(0.349)),
    ("shufflenet_v2_x1_0", 2_278_604, Some(0.145)),
    ("mobilenet_v2", 3_504_872, Some(0.301)),
    ("inception_v3", 27_161_264, Some(5.713)),
    ("vit_b_16", 86_567_656, Some(17.564)),
    ("bert_base", 109_482_240, None),
    ("bert_large", 335_141_888, None),
    ("albert_base", 11_683_584, None),
    ("gpt2", 124_439_808, None),
    ("gpt2_decode", 124_439_808, None),
];

/// Parameters (exact) and multiply-accumulates in 10^9 (within 1 %), with their sources.
const ELSEWHERE: &[(&str, u64, Option<f64>, &str)] = &[
    ("efficientnet_b0", 5_288_548, Some(0.386), "torchvision 0.29, `num_params`, `_ops`"),
    ("efficientnet_b4", 19_341_616, Some(4.394), "torchvision 0.29"),
    ("convnext_tiny", 28_589_128, Some(4.456), "torchvision 0.29"),
    ("swin_t", 28_288_354, Some(4.491), "torchvision 0.29"),
    // Ultralytics prints twice the multiply-accumulates as FLOPs: 8.7, 78.9 and 257.8 in its table of
    // fused models (docs.ultralytics.com/models/yolov8). `yolov8.yaml` counts batch normalisations
    // besides, as operations: 8.9, 79.3 and 258.5.
    ("yolov8n", 3_157_200, Some(4.35), "ultralytics 8.4, `yolov8.yaml`, and its table"),
    ("yolov8m", 25_902_640, Some(39.45), "ultralytics 8.4"),
    ("yolov8x", 68_229_648, Some(128.9), "ultralytics 8.4"),
    // OpenCLIP prints twice the multiply-accumulates of the image tower: 162.03.
    ("clip_vit_l_14", 427_616_513, Some(81.0), "open_clip `docs/model_profile.csv`: 427.62 M"),
    ("bge_large", 335_141_888, None, "keras-hub 0.32, BERT large"),
    // keras-hub counts 566,702,080 of XLM-R large with this vocabulary, without the head and fewer rows.
    ("bge_reranker_v2_m3", 567_755_777, None, "model card: 568 M"),
    ("t5_base", 222_903_552, None, "keras-hub 0.32, T5 base"),
    // 1,543,304,960 of large-v2 in keras-hub 0.32; v3 has 48 more mel bands and one more token.
    ("whisper_large_v3", 1_543_304_960 + 48 * 3 * 1280 + 1280, None, "keras-hub 0.32 and card"),
    ("sdxl_unet", 2_567_463_684, None, "arXiv:2307.01952: 2.6 B"),
];

#[test]
fn sizes_that_others_publish_are_met() {
    for &(name, params, gmacs, source) in ELSEWHERE {
        let spec = zoo::find(name).unwrap();
        assert_eq!(spec.params(), params, "{name}: parameters, {source}");
        let ours = spec.macs() as f64 / 1e9;
        if let Some(published) = gmacs {
            assert!((ours / published - 1.0).abs() < 0.01, "{name}: {ours} GMAC, {source}");
        }
    }
}

/// Nobody was found who publishes operations of these two. The floating-point operations are what
/// `torch.utils.flop_counter` of PyTorch 2.15 counts on transformers 5.24's `T5EncoderModel` (one text)
/// and `WhisperEncoder` (30 seconds): two for each multiply-accumulate of a product or a convolution.
#[test]
fn encoders_have_the_multiply_accumulates_that_pytorch_counts() {
    let counted: [(&str, u64); 3] = [
        ("t5_base@128", 22_347_251_712),
        ("t5_base@512", 96_636_764_160),
        ("whisper_large_v3", 2_273_771_520_000),
    ];
    for (name, flops) in counted {
        assert_eq!(2 * zoo::find(name).unwrap().macs(), flops, "{name}");
    }
}

/// 3,015.82 GMAC for one step of 1024 × 1024, as torchprofile counts it in github.com/lwag212/sdxl-sige:
/// convolutions and linear layers, and the elements of norms; not the products of fused attention.
#[test]
fn a_step_of_sdxl_has_the_published_multiply_accumulates() {
    let spec = zoo::find("sdxl_unet").unwrap();
    let layers = spec.nodes.iter().map(|n| &n.layer);
    let counted = layers.filter(|l| !matches!(l, Layer::Attention(_)));
    let ours = counted.map(Layer::macs).sum::<u64>() as f64 / 1e9;
    assert!((ours / 3015.82 - 1.0).abs() < 0.01, "{ours} GMAC");
}

#[test]
fn parameters_and_multiply_accumulates_are_the_published_ones() {
    let mut seen = BTreeSet::new();
    for &(name, params, gmacs) in PUBLISHED {
        let spec = zoo::find(name).unwrap();
        assert_eq!(spec.params(), params, "{name}: parameters");
        if let Some(published) = gmacs {
            let ours = spec.macs() as f64 / 1e9;
            // Within 1 %, and within the last digit printed.
            let limit = (0.01 * published).min(0.000_6);
            assert!((ours - published).abs() <= limit, "{name}: {ours} against {published} GMAC");
        }
        seen.insert(name);
    }
    seen.extend(ELSEWHERE.iter().map(|row| row.0));
    for model in MODELS {
        assert!(seen.contains(model.name), "{} has no published figure here", model.name);
    }
}

#[test]
fn transformer_arithmetic_follows_the_closed_form() {
    // Per layer 12 d² per token and 2 s d for the two products; BERT's pooler adds d².
    let (d, s) = (768u64, 128u64);
    let encoder = 12 * (s * 12 * d * d + 2 * s * s * d);
    assert_eq!(zoo::find("bert_base").unwrap().macs(), encoder + d * d);
    assert_eq!(zoo::find("albert_base").unwrap().macs(), encoder + s * 128 * d + d * d);
    assert_eq!(zoo::find("gpt2").unwrap().macs(), encoder + d * 50_257);
    let large = 24 * (s * 12 * 1024 * 1024 + 2 * s * s * 1024) + 1024 * 1024;
    assert_eq!(zoo::find("bge_large@128").unwrap().macs(), large);
    assert_eq!(zoo::find("bge-reranker-v2-m3@128").unwrap().macs(), large + 1024);
    let decode = 12 * (12 * d * d + 2 * 512 * d) + d * 50_257;
    assert_eq!(zoo::find("gpt2_decode").unwrap().macs(), decode);
}

#[test]
fn layers_fit_together() {
    for model in MODELS {
        let spec = model.spec();
        let mut sizes = std::collections::BTreeMap::new();
        for node in &spec.nodes {
            let fresh = sizes.insert(node.output, node.layer.output_elements()).is_none();
            assert!(fresh, "{}: a tensor is written twice", spec.name);
            if let Layer::Conv(c) = node.layer {
                assert!(c.in_ch % c.groups == 0 && c.out_ch % c.groups == 0, "{}", spec.name);
                assert!(c.output().iter().all(|&n| n > 0), "{}: an empty map", spec.name);
            }
            // A layer reads whole tensors, or a part of one (a split, the first token).
            let had: u64 = node.inputs.iter().filter_map(|t| sizes.get(t)).sum();
            let known = node.inputs.iter().all(|t| sizes.contains_key(t));
            let gather = matches!(node.layer, Layer::Embedding { .. });
            assert!(
                !known || gather || node.layer.input_elements() <= 3 * had,
                "{}: {:?} reads more than there is",
                spec.name,
                node.layer
            );
        }
        let activations = spec.activations_per_item_bytes(Precision::Fp32);
        let largest = sizes.values().max().unwrap() * 4;
        assert!(activations.0 >= largest, "{}: peak below the largest tensor", spec.name);
        let all: u64 = sizes.values().sum();
        let tokens_or_cache = 2 * all + (1 << 22);
        assert!(activations.0 / 4 <= tokens_or_cache, "{}: peak above all tensors", spec.name);
    }
}

#[test]
fn peak_activations_are_those_of_the_widest_point() {
    // VGG's widest point: two maps of 64 × 224 × 224 (the ReLU works in place).
    let vgg = zoo::find("vgg19").unwrap();
    assert_eq!(vgg.activations_per_item_bytes(Precision::Fp32).0, 2 * 64 * 224 * 224 * 4);
    assert_eq!(vgg.activations_per_item_bytes(Precision::Fp16).0, 2 * 64 * 224 * 224 * 2);
    assert_eq!(vgg.input_per_item_bytes(Precision::Fp32).0, 602_112);
    assert_eq!(vgg.output_per_item_bytes(Precision::Fp32).0, 4000);
    assert_eq!(zoo::find("bert_base").unwrap().input_per_item_bytes(Precision::Fp16).0, 1024);
}

#[test]
fn names_are_found_however_they_are_written() {
    for (asked, found) in [
        ("bert-base", "bert_base"),
        ("BERT_Base", "bert_base"),
        ("ResNet-152", "resnet152"),
        ("mobilenetv2", "mobilenet_v2"),
        ("albert", "albert_base"),
        ("resnext101", "resnext101_32x8d"),
        ("gpt2-decode@1024", "gpt2_decode@1024"),
        ("bge-large", "bge_large"),
        ("CLIP-ViT-L-14", "clip_vit_l_14"),
        ("whisper-large-v3", "whisper_large_v3"),
        ("yolov8m", "yolov8m"),
        ("convnext-t", "convnext_tiny"),
        ("resnet50@224", "resnet50"),
    ] {
        assert_eq!(zoo::find(asked).unwrap().name, found, "{asked}");
    }
    for (asked, message) in [
        ("resnet5", "no model `resnet5` in the zoo; the closest name is `resnet50`"),
        (
            "llama-3-8b",
            "no model `llama-3-8b` in the zoo; the closest name is `llama-3.1-8b`, which a tenant with \
             an `engine` serves",
        ),
        ("zzz", "no model `zzz` in the zoo"),
        ("bert_base@x", "model `bert_base@x`: what follows `@` must be a whole number of tokens"),
        ("bert_base@513", "model `bert_base` cannot take 513 tokens: 1 to 512 are possible"),
        ("vit@384", "model `vit_b_16` cannot take 384 pixels: 224 to 224 are possible"),
    ] {
        assert_eq!(zoo::find(asked).unwrap_err().to_string(), message);
    }
}

#[test]
fn names_are_unique_whatever_the_separators() {
    let mut names = BTreeSet::new();
    for name in MODELS.iter().flat_map(|m| m.aliases.iter().chain([&m.name])) {
        let plain: String = name.chars().filter(char::is_ascii_alphanumeric).collect();
        assert!(names.insert(plain), "{name} is ambiguous");
    }
}

#[test]
fn every_size_in_range_builds() {
    for model in MODELS {
        for size in model.sizes {
            let spec = model.spec_at(size).unwrap();
            assert!(spec.macs() > 0 && !spec.nodes.is_empty(), "{}", spec.name);
        }
    }
}

proptest! {
    #[test]
    fn any_name_is_an_answer_not_a_panic(name in ".{0,24}") {
        let _ = zoo::find(&name);
    }

    #[test]
    fn any_size_of_any_model_is_an_answer_not_a_panic(
        index in 0..MODELS.len(), size in 0u32..2000,
    ) {
        let model = &MODELS[index];
        let [least, most] = model.sizes;
        prop_assert_eq!(model.spec_at(size).is_ok(), (least..=most).contains(&size));
    }
}
