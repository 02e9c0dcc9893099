//! Lowering and the analytic model: conservation, bounds, shapes of curves, and the documentation.

use std::collections::BTreeSet;

use cotenant_profiles::lower::{Config, Gemm, Lowered, MAX_BATCH, Precision, gemm, lower};
use cotenant_profiles::zoo::{self, MODELS, ModelSpec};
use cotenant_profiles::{Device, Op, Source, analytic, roofline};
use proptest::prelude::*;

#[path = "../../examples/accuracy/tables.rs"]
mod tables;

fn v100() -> Device {
    Device::builtin("v100-sxm2-16").expect("a device that ships")
}

fn eager(batch: u32) -> Config {
    Config { batch, precision: Precision::Fp32, fused: false }
}

fn product_flops(lowered: &Lowered) -> u64 {
    let products =
        [Op::Conv, Op::DepthwiseConv, Op::Gemm, Op::BatchedGemm, Op::Attention].as_slice();
    let kernels = lowered.launches.iter().map(|&k| &lowered.kernels[k]);
    kernels.filter(|k| products.contains(&k.op)).map(|k| k.flops).sum()
}

#[test]
fn every_multiply_accumulate_is_in_a_kernel_fused_or_not() {
    let device = v100();
    for model in MODELS {
        let spec = model.spec();
        for (batch, fused) in [(1, false), (1, true), (7, false), (32, true)] {
            let lowered = lower(&spec, &device, Config { fused, ..eager(batch) }).unwrap();
            let wanted = 2 * spec.macs() * u64::from(batch);
            assert_eq!(product_flops(&lowered), wanted, "{} b{batch} {fused}", spec.name);
        }
    }
}

#[test]
fn fusing_saves_launches_and_traffic_but_never_a_layer() {
    let device = v100();
    for model in MODELS {
        let spec = model.spec();
        let bytes = |l: &Lowered| l.launches.iter().map(|&k| l.kernels[k].dram_bytes).sum::<u64>();
        let plain = lower(&spec, &device, eager(8)).unwrap();
        let fused = lower(&spec, &device, Config { fused: true, ..eager(8) }).unwrap();
        assert!(fused.launches.len() < plain.launches.len(), "{}", spec.name);
        assert!(bytes(&fused) < bytes(&plain), "{}", spec.name);
    }
}

#[test]
fn no_kernel_beats_the_hardware() {
    for device in Device::builtin_names().map(|name| Device::builtin(name).unwrap()) {
        for model in MODELS {
            for precision in Precision::ALL {
                let config = Config { precision, ..eager(8) };
                let lowered = lower(&model.spec(), &device, config).unwrap();
                for k in &lowered.kernels {
                    let ns = roofline::duration_ns(&device, k, device.cus()) as f64;
                    // Winograd executes fewer multiplications than the layer asks for.
                    let gain = if k.id.contains("-winograd4") {
                        4.0
                    } else if k.id.contains("-winograd") {
                        2.25
                    } else {
                        1.0
                    };
                    let peak = precision.peak_tops(&device) * 1e3 * gain;
                    assert!(k.flops as f64 / ns <= peak, "{}: {}", device.name, k.id);
                    let bandwidth = k.dram_bytes as f64 / ns;
                    assert!(bandwidth <= device.memory.dram_gbps, "{}: {}", device.name, k.id);
                    assert!(k.l2_bytes as f64 / ns <= device.memory.l2_gbps, "{}", k.id);
                }
            }
        }
    }
}

#[test]
fn more_cus_never_slow_a_kernel_and_one_cu_does_all_its_work() {
    let device = v100();
    for model in MODELS {
        for k in lower(&model.spec(), &device, eager(4)).unwrap().kernels {
            let curve = analytic::curve(&device, &k);
            assert_eq!(curve.points().len(), 80);
            let falls = |w: &[cotenant_profiles::Point]| w[1].duration_ns <= w[0].duration_ns;
            assert!(curve.points().windows(2).all(falls), "{}", k.id);
            // Beyond one block per CU, more CUs change nothing.
            if let Ok(blocks @ 1..80) = u32::try_from(k.blocks()) {
                assert_eq!(curve.at(blocks), curve.at(80), "{}", k.id);
            }
        }
    }
}

#[test]
fn waves_show_as_a_staircase() {
    let device = v100();
    let time = |count| {
        let product = Gemm { count, m: 256, n: 128, k: 1152 };
        let kernel = gemm(&device, product, Precision::Fp32, Some([128, 64])).unwrap();
        assert_eq!((kernel.grid, kernel.blocks()), ([2, 2, count], 4 * u64::from(count)));
        roofline::duration_ns(&device, &kernel, 80)
    };
    // 80 CUs take 20 products of four blocks at a time: steps at 21, 41, 61, flat in between.
    let steps: Vec<u32> = (2..=80).filter(|&r| time(r) != time(r - 1)).collect();
    assert_eq!(steps, [21, 41, 61]);
    // A partition of 20 CUs takes five at a time.
    let product = Gemm { count: 5, m: 256, n: 128, k: 1152 };
    let five = gemm(&device, product, Precision::Fp32, Some([128, 64])).unwrap();
    assert_eq!(analytic::curve(&device, &five).min_cu(80, 0.0), 20);
    assert_eq!(analytic::curve(&device, &five).at(19), time(40));
    assert!(gemm(&device, product, Precision::Fp32, Some([256, 128])).is_none());
}

#[test]
fn small_kernels_need_few_cus_and_large_ones_all() {
    let device = v100();
    let lowered = lower(&zoo::find("resnet50").unwrap(), &device, eager(1)).unwrap();
    let needs: BTreeSet<u32> =
        lowered.kernels.iter().map(|k| analytic::curve(&device, k).min_cu(80, 0.05)).collect();
    assert!(*needs.first().unwrap() <= 16 && *needs.last().unwrap() >= 60, "{needs:?}");
    assert!(needs.len() >= 10, "{needs:?}");
    // What a model needs grows with its batch.
    let knee = |batch| {
        let l = lower(&zoo::find("resnet50").unwrap(), &device, eager(batch)).unwrap();
        let curves: Vec<_> = l.kernels.iter().map(|k| analytic::curve(&device, k)).collect();
        let total = |c| l.launches.iter().map(|&k| u128::from(curves[k].at(c))).sum();
        cotenant_profiles::curve::right_size(total, 80, 0.1)
    };
    assert!(knee(1) < knee(32), "{} {}", knee(1), knee(32));
}

#[test]
fn a_profile_shares_kernels_and_fills_in_the_models() {
    let device = v100();
    let specs = ["resnet50", "resnet101"].map(|name| zoo::find(name).unwrap());
    let options = analytic::Options::default();
    let profile = analytic::profile(&device, &specs.each_ref(), &[1, 8], &options).unwrap();
    assert_eq!((profile.source, profile.device.as_str()), (Source::Analytic, "v100-sxm2-16"));
    assert_eq!(profile.provenance["precision"], "fp32");
    let ids: BTreeSet<&str> = profile.kernels.iter().map(|k| k.id.as_str()).collect();
    assert_eq!(ids.len(), profile.kernels.len(), "an id twice");
    assert!(ids.iter().all(|id| !id.contains([',', '"', ' '])));
    // The deeper network repeats the blocks of the other one: no new shape.
    let alone = analytic::profile(&device, &[&specs[0]], &[1, 8], &options).unwrap();
    assert_eq!(alone.kernels, profile.kernels);
    let model = &profile.models["resnet101"];
    assert_eq!(model.batches.keys().copied().collect::<Vec<_>>(), [1, 8]);
    assert_eq!(model.batches[&8].len(), 344);
    assert_eq!(model.weights.0, 44_549_160 * 4);
    let launches = model.batches.values().flatten();
    assert!(launches.clone().all(|l| l.host == device.host.compiled));
    let eager = analytic::Options { executor: None, ..options };
    let eager = analytic::profile(&device, &[&specs[0]], &[1], &eager).unwrap();
    let launches = eager.models.values().flat_map(|m| m.batches.values()).flatten();
    assert!(launches.clone().all(|l| l.host == device.host.eager));
    let launches = model.batches.values().flatten();
    assert!(launches.clone().all(|l| l.kernel < profile.kernels.len()));
    let rate = u64::from(device.costs.load_mbps);
    assert_eq!(model.load.0, (44_549_160u64 * 4 * 1000).div_ceil(rate));
}

#[test]
fn every_model_lowers_on_every_device() {
    for device in Device::builtin_names().map(|name| Device::builtin(name).unwrap()) {
        for (i, model) in MODELS.iter().enumerate() {
            let precision = Precision::ALL[i % Precision::ALL.len()];
            let largest = model.spec_at(model.sizes[1]).unwrap();
            for fused in [false, true] {
                let config = Config { batch: MAX_BATCH, precision, fused };
                let lowered = lower(&largest, &device, config).unwrap();
                assert!(lowered.launches.iter().all(|&k| k < lowered.kernels.len()));
                for k in &lowered.kernels {
                    let threads = k.blocks_per_cu * k.block;
                    assert!(threads <= device.topology.threads_per_cu, "{}", k.id);
                }
            }
        }
    }
}

#[test]
fn faster_arithmetic_is_used_where_the_device_has_it() {
    let spec = zoo::find("bert_base").unwrap();
    let sum = |device: &str, precision| {
        let device = Device::builtin(device).unwrap();
        let l = lower(&spec, &device, Config { precision, ..eager(32) }).unwrap();
        let one = |&k: &usize| roofline::duration_ns(&device, &l.kernels[k], device.cus());
        l.launches.iter().map(one).sum::<u64>()
    };
    assert!(sum("a100-sxm-80", Precision::Tf32) * 2 < sum("a100-sxm-80", Precision::Fp32));
    assert!(sum("a100-sxm-80", Precision::Fp16) < sum("a100-sxm-80", Precision::Tf32));
    assert_eq!(sum("a100-sxm-80", Precision::Bf16), sum("a100-sxm-80", Precision::Fp16));
    // A V100 has no BF16 on its tensor cores: it is computed in FP32.
    assert!(sum("v100-sxm2-16", Precision::Bf16) > sum("v100-sxm2-16", Precision::Fp16) * 2);
    // A P40 computes FP16 at 1/64 of its FP32 rate: libraries do not.
    assert!(sum("p40", Precision::Fp16) <= sum("p40", Precision::Fp32));
    assert_eq!(sum("v100-sxm2-16", Precision::Tf32) / 1000, {
        sum("v100-sxm2-16", Precision::Fp32) / 1000
    });
}

#[test]
fn bad_batches_and_precisions_say_what_is_possible() {
    let spec = zoo::find("alexnet").unwrap();
    for batch in [0, MAX_BATCH + 1, u32::MAX] {
        let error = lower(&spec, &v100(), eager(batch)).unwrap_err().to_string();
        assert_eq!(error, format!("batch {batch} of model `alexnet`: 1 to 4096 are possible"));
    }
    assert_eq!("FP16".parse(), Ok(Precision::Fp16));
    let error = "fp64".parse::<Precision>().unwrap_err().to_string();
    assert_eq!(
        error,
        "no precision `fp64`: fp32, tf32, fp16, bf16, fp8, int8 and int4 are possible"
    );
}

/// The documentation shows what the model gives today, errors included.
#[test]
fn the_documentation_shows_these_tables() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/analytic-model.md");
    let text = std::fs::read_to_string(path).unwrap().replace("\r\n", "\n");
    assert!(
        text.contains(&tables::markdown()),
        "docs/analytic-model.md is out of date: \
         cargo run -p cotenant-profiles --example accuracy prints its tables"
    );
}

proptest! {
    #[test]
    fn any_batch_of_any_model_keeps_its_arithmetic(
        index in 0..MODELS.len(), batch in 1u32..300, fused in any::<bool>(),
    ) {
        let spec: ModelSpec = MODELS[index].spec();
        let lowered = lower(&spec, &v100(), Config { fused, ..eager(batch) }).unwrap();
        prop_assert_eq!(product_flops(&lowered), 2 * spec.macs() * u64::from(batch));
        let again = lower(&spec, &v100(), Config { fused, ..eager(batch) }).unwrap();
        prop_assert_eq!(lowered, again);
    }
}
