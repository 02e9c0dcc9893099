//! What a tuner chooses, and how the choice depends on the share that it measures on.

use cotenant_profiles::analytic::{self, Options};
use cotenant_profiles::lower::{
    Config, Operator, Precision, fastest_on, lower, lower_tuned, operators,
};
use cotenant_profiles::roofline::duration_ns;
use cotenant_profiles::tune::{self, Trials, workload};
use cotenant_profiles::{Device, zoo};

fn v100() -> Device {
    Device::builtin("v100-sxm2-16").expect("it ships")
}

fn config(batch: u32) -> Config {
    Config { batch, precision: Precision::Fp32, fused: true }
}

fn operator(model: &str, batch: u32, start: &str) -> Operator {
    let spec = zoo::find(model).expect("it ships");
    let all = operators(&spec, &v100(), config(batch)).expect("it ships");
    all.into_iter().find(|o| o.name.starts_with(start)).expect("the model has it")
}

/// ResNet-50's 1×1 convolution from 1024 to 256 channels on 14×14 pixels, batch 1: 196 × 256
/// results, by hand. Time is results per CU, over the tile's efficiency and the rate that w
/// resident warps reach, `w / (w + 2)` relative to 16 of them; per step of the inner product:
///
/// ```text
///                      8 CUs                            20 CUs               80 CUs
/// 32×32,   56 blocks   7 · 1024 / 0.50 / 1    = 14336   3 · … / 0.96 = 6372   1 · … / 0.75 = 2731
/// 64×64,   16 blocks   2 · 4096 / 0.85 / 0.90 = 10708   1 · … / 0.75 = 6425   the same
/// 128×64,   8 blocks   1 · 8192 / 0.95 / 0.75 = 11498   the same                the same
/// 128×128,  4 blocks   1 · 16384 / 1 / 0.90   = 18204
/// ```
#[test]
fn the_choice_per_share() {
    let device = v100();
    let op = operator("resnet50", 1, "conv1x1s1-c1024-k256-14x14");
    let choice = |cus: u32| fastest_on(&device, &op.variants, cus).unwrap();
    let tile = |cus: u32| choice(cus).name.rsplit('_').next().unwrap().to_owned();
    assert_eq!([80, 40, 20, 8].map(tile), ["32x32", "32x32", "32x32", "64x64"]);
    // Tuned on everything, it is slower on 8 SMs than what was tuned there, and the other way
    // round.
    let time = |tuned: u32, run: u32| duration_ns(&device, choice(tuned), run);
    assert!(time(80, 8) > time(8, 8) * 12 / 10, "{} {}", time(80, 8), time(8, 8));
    assert!(time(8, 80) > time(80, 80) * 12 / 10, "{} {}", time(8, 80), time(80, 80));
}

#[test]
fn a_tuned_model_has_the_fastest_variant_of_every_operator() {
    let device = v100();
    for model in ["resnet50", "bert_base", "vgg19"] {
        let spec = zoo::find(model).unwrap();
        let all = operators(&spec, &device, config(4)).unwrap();
        for cus in [8, 40, 80] {
            let lowered = lower_tuned(&spec, &device, config(4), Some(cus)).unwrap();
            let ids: Vec<&str> = lowered.kernels.iter().map(|k| k.id.as_str()).collect();
            for op in &all {
                let best = fastest_on(&device, &op.variants, cus).unwrap();
                assert!(ids.contains(&best.id.as_str()), "{model} {} on {cus}", op.name);
            }
            // So nothing that was tuned elsewhere is faster there.
            let total = |tuned: Option<u32>| -> u64 {
                let l = lower_tuned(&spec, &device, config(4), tuned).unwrap();
                l.launches.iter().map(|&k| duration_ns(&device, &l.kernels[k], cus)).sum()
            };
            let own = total(Some(cus));
            for other in [None, Some(8), Some(20), Some(40), Some(80)] {
                assert!(own <= total(other), "{model} tuned on {other:?} run on {cus}");
            }
        }
    }
}

#[test]
fn untuned_is_what_a_library_picks() {
    let spec = zoo::find("resnet50").unwrap();
    let library = lower(&spec, &v100(), config(8)).unwrap();
    assert_eq!(library, lower_tuned(&spec, &v100(), config(8), None).unwrap());
    // A library accepts 5 % for fewer parts and larger tiles.
    let tuned = lower_tuned(&spec, &v100(), config(8), Some(80)).unwrap();
    let total = |l: &cotenant_profiles::lower::Lowered| -> u64 {
        l.launches.iter().map(|&k| duration_ns(&v100(), &l.kernels[k], 80)).sum()
    };
    assert!(total(&tuned) <= total(&library) && total(&library) * 100 <= total(&tuned) * 105);
}

#[test]
fn a_workload_tries_every_kernel_on_offer() {
    let spec = zoo::find("resnet18").unwrap();
    let trials = Trials { trials: 30, launches: 13 };
    let options = Options { fused: true, ..Options::default() };
    let profile = workload(&v100(), &spec, 1, &options, trials).unwrap();
    let all = operators(&spec, &v100(), config(1)).unwrap();
    assert_eq!(profile.models.len(), all.len());
    for op in &all {
        let launches = &profile.models[&op.name].batches[&1];
        assert_eq!(launches.len(), 30 * 13);
        let tried: std::collections::BTreeSet<usize> = launches.iter().map(|l| l.kernel).collect();
        assert_eq!(tried.len(), op.variants.len().min(30), "{}", op.name);
        let changes = launches.windows(2).filter(|w| w[0].kernel != w[1].kernel).count();
        assert_eq!(changes, 29, "one trial after the other");
        let kernel = &profile.kernels[launches[0].kernel];
        assert_eq!(kernel.curve.points(), analytic::curve(&v100(), &op.variants[0]).points());
    }
}

#[test]
fn an_operator_alone_is_the_kernel_that_the_model_launches() {
    let (device, spec) = (v100(), zoo::find("resnet50").unwrap());
    for tuned_cus in [None, Some(8)] {
        let options = Options { fused: true, tuned_cus, ..Options::default() };
        for op in operators(&spec, &device, config(4)).unwrap() {
            let profile = tune::operator(&device, &spec, 4, &options, &op.name).unwrap();
            let lowered = lower_tuned(&spec, &device, config(4), tuned_cus).unwrap();
            let kernel = &profile.kernels[0];
            assert!(lowered.kernels.iter().any(|k| k.id == kernel.id), "{}", op.name);
            assert_eq!(profile.models[&op.name].batches[&4].len(), 1);
        }
    }
}

#[test]
fn an_operator_that_is_none_is_told_its_neighbours() {
    let spec = zoo::find("alexnet").unwrap();
    let wrong = "conv5x5s1-c64-k192-28x28-b1";
    let error = tune::operator(&v100(), &spec, 1, &Options::default(), wrong).unwrap_err();
    let message = error.to_string();
    let start = "model `alexnet` has no operator `conv5x5s1-c64-k192-28x28-b1` at batch 1: did you \
                 mean `conv5x5s1-c64-k192-27x27-b1`?; it has conv11x11s4-c3-k64-224x224-b1, ";
    assert!(message.starts_with(start), "{message}");
}
