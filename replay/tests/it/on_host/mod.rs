//! Every kernel of ours on the CPU, from the source that a GPU runs, against sums in double precision.
#![allow(unsafe_code)] // calls what the compiler made

use std::path::Path;
use std::process::Command;

use cotenant_profiles::lower::Precision;
use cotenant_profiles::zoo::layer::{Function, Pool, PoolKind};
use cotenant_replay::cuda::Loader;
use cotenant_replay::recipe::{self, Parameter};
use cotenant_replay::steps;
use cotenant_replay::work::{StepTask, Task};
use cotenant_replay::{Work, reference};

type Kernel = unsafe extern "C" fn();
type Run = unsafe extern "C" fn(Kernel, u64, u64, *const u64) -> u64;

/// The source compiled for this machine, or why it is not.
fn compiled(folder: &Path) -> Result<Loader, String> {
    let compiler = std::env::var("CXX").unwrap_or_else(|_| "c++".to_owned());
    let shim = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/on_host/shim.h");
    let (source, library) = (folder.join("kernels.cpp"), folder.join("libkernels.so"));
    let text = format!("#define ON_HOST\n#include \"{}\"\n{}", shim.display(), recipe::SOURCE);
    std::fs::write(&source, text).unwrap();
    let made = Command::new(&compiler)
        .args(["-std=c++17", "-O1", "-w", "-shared", "-fPIC", "-o"])
        .args([&library, &source])
        .output()
        .map_err(|e| format!("no C++ compiler: {compiler}: {e}"))?;
    let said = String::from_utf8_lossy(&made.stderr).into_owned();
    // A compiler from before half precision is none for this.
    let old = said.contains("_Float16");
    assert!(made.status.success() || old, "{said}");
    if old {
        return Err(format!("{compiler} knows no half precision"));
    }
    Ok(Loader::open(&library).unwrap())
}

/// The distance of the kernel's result from the CPU's.
fn distance(library: &Loader, work: &Work) -> f64 {
    let recipe = recipe::recipe(work).unwrap().expect("a kernel of ours");
    let shapes = recipe::shapes(work);
    let bytes = |(i, o)| reference::operand_bytes(i, o, work.precision);
    let inputs: Vec<Vec<u8>> = shapes.inputs.iter().enumerate().map(bytes).collect();
    let mut output = vec![0u8; (shapes.output * work.precision.bytes()) as usize];
    let mut scratch = vec![0u64; recipe.scratch.div_ceil(8) as usize];
    let value = |p: &Parameter| match p {
        Parameter::Input(i) => inputs[*i].as_ptr() as u64,
        Parameter::Null => 0,
        Parameter::Output => output.as_mut_ptr() as u64,
        Parameter::Scratch => scratch.as_mut_ptr() as u64,
        Parameter::Number(n) => *n,
    };
    let mut parameters: Vec<u64> = recipe.parameters.iter().map(value).collect();
    parameters.resize(16, 0);
    // SAFETY: the library was made with that function; the kernel is given what its recipe says. It runs
    // twice: what it leaves behind in its own memory must not disturb the second launch.
    let stuck = unsafe {
        let run = library.function::<Run>("run_on_host").unwrap();
        let kernel = library.function::<Kernel>(&recipe.function).unwrap();
        let (grid, block) = (recipe.blocks.into(), recipe.block.into());
        run(kernel, grid, block, parameters.as_ptr())
            + run(kernel, grid, block, parameters.as_ptr())
    };
    assert_eq!(stuck, 0, "{}: threads wait for each other for ever", work.id);
    let mut found = reference::from_bytes(&output, work.precision);
    found.truncate(shapes.output as usize);
    let operands = reference::operands(&shapes, work.precision);
    reference::distance(&found, &reference::compute(work, &operands, shapes.output))
}

/// Of networks: every kernel, with sizes that fill no block.
fn of_networks() -> Vec<Task> {
    use Function::{Add, Gelu, Mask, Mul, Pow, Relu, Relu6, Scale, Tanh};
    let pool = |kind| {
        let pool =
            Pool { kind, channels: 3, input: [13, 9], kernel: 3, stride: 2, pad: 1, ceil: true };
        Task::Pool { planes: 6, pool }
    };
    let point = |function| {
        let second = matches!(function, Add | Mul | Mask);
        Task::Pointwise { function, elements: 1000, second }
    };
    let mut all: Vec<Task> =
        [Add, Gelu, Mask, Mul, Pow, Relu, Relu6, Scale, Tanh].map(point).to_vec();
    all.extend([
        Task::BatchNorm { planes: 6, channels: 3, pixels: 50 },
        Task::Bias { elements: 600, run: 50, values: 3 },
        Task::LayerNorm { rows: 3, width: 300 },
        Task::Softmax { rows: 3, width: 700 },
        pool(PoolKind::Max),
        pool(PoolKind::Average),
        Task::AdaptivePool { planes: 4, input: [7, 9], output: [2, 4] },
        Task::Embedding { rows: 5, width: 70, entries: 11 },
        Task::Concat { batch: 2, part: 30, whole: 70 },
        Task::Shuffle { batch: 2, channels: 6, groups: 3, pixels: 20 },
        Task::Copy { elements: 777 },
        Task::Attention { heads: 3, tokens: 21, width: 32 },
    ]);
    all
}

#[test]
fn every_kernel_computes_on_the_cpu_what_it_must() {
    let folder = tempfile::tempdir().unwrap();
    let library = match compiled(folder.path()) {
        Ok(library) => library,
        Err(why) => return eprintln!("skipped: {why}"),
    };
    let mut worst = 0.0f64;
    for precision in [Precision::Fp32, Precision::Fp16, Precision::Bf16] {
        let steps = steps::samples().into_iter();
        let steps = steps.filter(|t| !matches!(t, StepTask::Biased { .. })).map(Task::Step);
        for task in of_networks().into_iter().chain(steps) {
            let work = Work::new(task, precision);
            let share = distance(&library, &work) / reference::tolerance(&work);
            assert!(share <= 1.0, "{}: {share} of what rounding explains", work.id);
            worst = worst.max(share);
        }
    }
    eprintln!("the furthest off: {worst:.3} of what rounding explains");
}
