//! Steps of generating models on the CUDA device, against the stand-in driver: collected, and run by
//! engines under policies, as streams and as processes.
#![allow(clippy::print_stderr)] // helpers of tests

use std::sync::Arc;

use cotenant_profiles::lower::Precision;
use cotenant_profiles::steps::{StepLibrary, StepOptions};
use cotenant_profiles::zoo::decoder::{Decoder, FeedForward, Rounding, decoder};
use cotenant_profiles::{Bytes, Device as Gpu, Executor, Nanos, Source, files};
use cotenant_replay::collect::{Request, collect};
use cotenant_replay::drive::{Replayed, Stop};
use cotenant_replay::runnable;
use cotenant_sim::Class;
use cotenant_sim::engine::{KvSize, Rules};
use cotenant_sim::policy::Options;
use cotenant_sim::program::{Code, HostTimes, ModelCode, StepLimits, as_batches};
use cotenant_sim::scenario::{Generates, Load, Scenario, Tenant, Think};
use cotenant_traces::{TokenCount, Tokens};

use crate::processes::processes_of;
use crate::replay::{a_second, streams_of};
use crate::stand_in::{alive, calls, with_stand_in};

/// Llama 3.2 1B with two layers and little width: the same kernels.
fn small() -> Decoder {
    Decoder {
        layers: 2,
        width: 64,
        heads: 4,
        kv_heads: 2,
        head_dim: 16,
        feed_forward: FeedForward::Gated { inner: 128 },
        vocabulary: 5000,
        positions: 512,
        ..decoder("llama-3.2-1b").unwrap()
    }
}

/// With everything that a decoder of the zoo may have beside it.
fn with_everything() -> Decoder {
    Decoder {
        feed_forward: FeedForward::Experts { experts: 16, active: 4, inner: 64 },
        qkv_bias: true,
        o_bias: true,
        qk_norm: true,
        ..small()
    }
}

/// Two tenants that generate, each with one client.
fn scenario(decoder: &Decoder, precision: Precision) -> Scenario {
    let device = Gpu::builtin("h100-sxm").unwrap();
    let (cus, mut code) = (device.cus(), Code::default());
    let rules = Rules {
        elastic: None,
        max_seqs: 4,
        max_batched_tokens: 64,
        chunked_prefill: true,
        alternate: false,
        prefix_cache: false,
        max_context: 256,
        block: 16,
        kv: KvSize::Bytes(Bytes(64 << 20)),
        kv_per_token: decoder.kv_bytes_per_token(precision),
        scheduler_overhead: Nanos::ZERO,
        async_scheduling: false,
    };
    let limits = StepLimits { sequences: 4, tokens: 64, context: 256, cache: 4096 };
    let host = HostTimes { launch_ns: 4_000, ..HostTimes::default() };
    let options = StepOptions { precision, executor: Executor::Eager, rounding: Rounding::exact() };
    let tenants = ["a", "b"].map(|name| {
        let mut library = StepLibrary::new(decoder.clone(), device.clone(), options.clone());
        let steps = code.compile_steps(&mut library, limits, host, cus);
        let model = ModelCode {
            name: decoder.name.to_string(),
            weights: Bytes(1 << 20),
            ..as_batches(&steps, &code, limits, cus)
        };
        Tenant {
            name: name.to_owned(),
            model,
            class: Class::Latency,
            slo: Some(Nanos::from_millis(500)),
            workers: 1,
            batch_max: 4,
            batch_timeout: Nanos::ZERO,
            generates: Some(Arc::new(Generates { rules, goals: None, steps })),
            per_request_batches: false,
            drop_after: None,
        }
    });
    let of = TokenCount::always;
    let tokens = Tokens { tokens_in: of(40), tokens_out: of(3) };
    let load = |name: &str| Load::Closed {
        concurrency: 1,
        think: Think::Constant(Nanos::from_millis(1)),
        items: 1,
        limit: None,
        tokens: Some(tokens.draws(1, name)),
    };
    a_second(device, code, tenants.to_vec(), vec![load("a"), load("b")])
}

fn all_generate(policy: &str, replayed: &Replayed) {
    for tenant in &replayed.report.tenants {
        let c = &tenant.counts;
        assert!(c.completed > 0, "{policy}: {c:?}");
        assert_eq!(c.offered, c.completed + c.dropped_total() + tenant.in_flight);
    }
}

#[test]
fn engines_run_their_steps_on_streams_and_masks() {
    with_stand_in!("engines_run_their_steps_on_streams_and_masks", &[], || {
        let scenario = || scenario(&small(), Precision::Bf16);
        for policy in ["mps", "mps-static", "krisp", "coalesce"] {
            let replayed = streams_of(&scenario, policy, &Options::default()).unwrap();
            all_generate(policy, &replayed);
            assert_eq!(alive(), (0, 0), "{policy}: everything is given back, in order");
        }
        let calls = calls();
        let times = |name: &str| calls.iter().filter(|c| c.trim() == name).count();
        // Steps of two layers for each request, and more.
        for kernel in ["prefill_attention_bf16", "decode_attention_bf16", "sample_bf16"] {
            assert!(times(kernel) > 4, "{kernel}: {}", times(kernel));
        }
        assert_eq!(calls.iter().filter(|c| c.starts_with("wrong")).count(), 0);
    });
}

#[test]
fn experts_biases_and_norms_of_heads_run_as_well() {
    with_stand_in!("experts_biases_and_norms_of_heads_run_as_well", &[], || {
        let scenario = || scenario(&with_everything(), Precision::Fp16);
        let replayed = streams_of(&scenario, "mps", &Options::default()).unwrap();
        all_generate("mps", &replayed);
        let calls = calls();
        for kernel in ["route_f16", "sum_experts_f16", "rms_norm_f16", "rms_norm_add_f16"] {
            assert!(calls.iter().any(|c| c.trim() == kernel), "{kernel}");
        }
        assert_eq!(alive(), (0, 0));
    });
}

#[test]
fn engines_run_in_processes_of_their_own() {
    with_stand_in!("engines_run_in_processes_of_their_own", &[], || {
        for policy in ["temporal", "mps-percent"] {
            let scenario = scenario(&small(), Precision::Bf16);
            let replayed = processes_of(scenario, policy, "control", &Stop::new()).unwrap();
            assert_eq!(replayed.losses, [], "{policy}");
            all_generate(policy, &replayed);
        }
    });
}

/// Of hundreds of sizes each kind is launched once before the run, and weights are there once.
#[test]
fn sizes_of_a_step_share_their_memory() {
    let scenario = scenario(&small(), Precision::Bf16);
    let works = runnable::works(&scenario.setup).unwrap();
    assert!(works.len() > 300, "{}", works.len());
    let mut families: Vec<String> =
        works.iter().filter_map(cotenant_replay::recipe::family).collect();
    families.sort();
    families.dedup();
    assert!(families.len() < 12, "{families:?}");
    with_stand_in!("sizes_of_a_step_share_their_memory", &[("FAKECUDA_NASTY", "cold=20")], || {
        let scenario = || self::scenario(&small(), Precision::Bf16);
        let replayed = streams_of(&scenario, "mps", &Options::default()).unwrap();
        all_generate("mps", &replayed);
        let calls = calls();
        let allocated = calls.iter().filter(|c| *c == "cuMemAlloc_v2").count();
        // Weights, and what is made larger now and then, for two tenants; operands and results of each
        // size would be thousands.
        eprintln!("{allocated} allocations for {} works", works.len());
        assert!(allocated < 250, "{allocated}");
    });
}

#[test]
fn precisions_without_products_are_refused_by_name() {
    let scenario = scenario(&small(), Precision::Fp8);
    let why = runnable::works(&scenario.setup).unwrap_err().to_string();
    assert!(why.contains("set precision to fp16 or bf16"), "{why}");
}

#[test]
fn layers_of_a_decoder_are_collected() {
    with_stand_in!("layers_of_a_decoder_are_collected", &[], || {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("tiny.json");
        let text = r#"{ "model_type": "llama", "architectures": ["LlamaForCausalLM"],
            "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
            "num_key_value_heads": 2, "head_dim": 16, "intermediate_size": 128,
            "vocab_size": 5000, "max_position_embeddings": 256, "tie_word_embeddings": true,
            "hidden_act": "silu", "torch_dtype": "bfloat16" }"#;
        std::fs::write(&config, text).unwrap();
        let request = Request {
            models: vec![config.display().to_string()],
            batches: vec![1, 2],
            precision: Precision::Bf16,
            cus: vec![66],
            samples: 3,
            ..crate::collect::request()
        };
        let out = folder.path().join("profile");
        let collected = collect(&request, &out, &mut |_| {}).unwrap();
        assert_eq!((collected.incomplete, collected.failed), (vec![], vec![]));
        let profile = files::read(&out).unwrap();
        let models: Vec<&String> = profile.models.keys().collect();
        assert_eq!(models, ["tiny-decode", "tiny-prefill"]);
        for model in profile.models.values() {
            assert_eq!(model.batches.keys().copied().collect::<Vec<u32>>(), [1, 2]);
            // Embedding, ten in each of two layers, four behind them.
            assert!(model.batches.values().all(|launches| launches.len() == 1 + 2 * 10 + 4));
        }
        let times = files::read_layers(&out.join("layers/tiny.csv")).unwrap();
        assert_eq!((times.source, times.device.as_str()), (Source::Analytic, "stand-in"));
        // Two batches of either kind of step.
        assert_eq!(times.attention.len(), 4);
        assert!(times.len() > 30, "{}", times.len());
        let head = std::fs::read_to_string(out.join("layers/tiny.csv")).unwrap();
        assert!(head.contains("NOT A MEASUREMENT"), "{head}");
    });
}
