//! What it costs to compile kernels on grids of sizes instead of for every step.

use cotenant_profiles::lower::Precision;
use cotenant_profiles::steps::{StepLibrary, StepOptions};
use cotenant_profiles::zoo::decoder::{self, Rounding, StepShape};
use cotenant_profiles::{Device, Executor};
use cotenant_sim::program::{Code, HostTimes, Shape, StepLimits};
use cotenant_traces::Rng;

/// Relative errors of steps drawn at random: kernels from the grids against kernels of just that step.
fn errors(model: &str, device: &str, prompts: bool, n: usize) -> Vec<f64> {
    let device = Device::builtin(device).unwrap();
    let options = StepOptions {
        precision: Precision::Bf16,
        executor: Executor::Graphs,
        rounding: Rounding::exact(),
    };
    let new =
        || StepLibrary::new(decoder::decoder(model).unwrap(), device.clone(), options.clone());
    let limits = StepLimits { sequences: 256, tokens: 2048, context: 16_384, cache: 400_000 };
    let (mut code, mut library, cus) = (Code::default(), new(), device.cus());
    let steps = code.compile_steps(&mut library, limits, HostTimes::default(), cus);
    let mut exact = new();
    let mut rng = Rng::new(7);
    let mut launches = vec![];
    // Evenly by ratio, as sizes and lengths are.
    let mut drawn = |most: f64| libm::exp(rng.uniform() * libm::log(most)) as u32;
    (0..n)
        .map(|_| {
            let (mut shape, mut asked) = (Shape::default(), StepShape::default());
            for _ in 0..drawn(128.0) {
                let context = drawn(8000.0);
                shape.add_decode(context);
                asked.add_decode(context);
            }
            if prompts {
                for _ in 0..drawn(4.0) {
                    let new = drawn(400.0);
                    let context = new + drawn(4000.0) - 1;
                    shape.add_prefill(new, context);
                    asked.add_prefill(new, context);
                }
            }
            steps.compose(&shape, &mut launches);
            let ours: u64 = launches.iter().map(|l| code.kernels[l.kernel as usize].at(cus)).sum();
            ours as f64 / exact.program(&asked).gpu_ns as f64 - 1.0
        })
        .collect()
}

#[test]
fn kernels_on_grids_take_as_long_as_those_of_the_step() {
    // As docs/llm.md says: in the mean, and at most.
    for (model, device, prompts, mean, most) in [
        ("llama-3.1-8b", "h100-sxm", false, 0.003, 0.02),
        ("llama-3.1-8b", "h100-sxm", true, 0.008, 0.11),
        ("llama-3.2-1b", "a100-sxm-80", false, 0.008, 0.06),
        ("llama-3.2-1b", "a100-sxm-80", true, 0.012, 0.18),
    ] {
        let errors = errors(model, device, prompts, 200);
        let found = errors.iter().map(|e| e.abs()).sum::<f64>() / errors.len() as f64;
        let worst = errors.iter().fold(0.0, |w: f64, e| w.max(e.abs()));
        assert!(found < mean && worst < most, "{model}, prompts {prompts}: {found}, {worst}");
    }
}
