//! Runs every kind of kernel of the zoo on GPU 0, whole and on a partition, and compares its result
//! with the CPU's in double precision: `cargo run --release -p cotenant-replay --bin kernels`.
//! Exits with status 1 if a result is further off than rounding explains.
#![allow(clippy::print_stdout)] // a program

use std::process::ExitCode;

use cotenant_profiles::lower::Precision;
use cotenant_profiles::zoo;
use cotenant_replay::cuda::{CudaDevice, Granularity};
use cotenant_replay::device::Queue;
use cotenant_replay::work::{Task, launches};
use cotenant_replay::{Device, DeviceError, Work, reference, steps};

/// Small enough for a CPU, which computes products and convolutions by naive sums.
const MOST_FLOPS: u64 = 20_000_000;

/// The kind of a convolution, since libraries use other algorithms for some kinds.
fn variant(task: &Task) -> String {
    match task {
        Task::Conv { conv: c, .. } => format!(
            "{}{}{}",
            if c.is_depthwise() {
                "depthwise"
            } else if c.groups > 1 {
                "grouped"
            } else {
                ""
            },
            if c.kernel == [1, 1] { "1x1" } else { "" },
            if c.stride == [1, 1] { "" } else { "strided" },
        ),
        _ => String::new(),
    }
}

fn works() -> Vec<Work> {
    let mut known: Vec<String> = Vec::new();
    let mut works = Vec::new();
    for precision in [Precision::Fp32, Precision::Tf32, Precision::Fp16, Precision::Bf16] {
        let attention = Task::Attention { heads: 4, tokens: 100, width: 64 };
        works.push(Work::new(attention, precision));
        works.extend(steps::samples().into_iter().map(|t| Work::new(Task::Step(t), precision)));
        works.push(Work::new(Task::Gemm { m: 37, n: 64, k: 72, count: 5 }, precision));
        for model in zoo::MODELS {
            for work in launches(&model.spec(), 2, precision) {
                let name: String = work.id.chars().take_while(|c| !c.is_ascii_digit()).collect();
                let kind = format!("{name}{}{precision}", variant(&work.task));
                let heavy = work.flops() > MOST_FLOPS;
                let of_kind = known.iter().filter(|k| **k == kind).count();
                if !heavy && of_kind < 2 {
                    known.push(kind);
                    works.push(work);
                }
            }
        }
    }
    works
}

/// Products of one shape that one launch merges in place: single products, the same product twice, and
/// batches, whose matrices are less aligned than an allocation.
fn merges(precision: Precision) -> [Vec<Work>; 2] {
    let gemm = |(m, n, k), count| Work::new(Task::Gemm { m, n, k, count }, precision);
    let (even, odd) = ((64, 96, 128), (37, 64, 72));
    [vec![gemm(even, 1); 3], vec![gemm(odd, 1), gemm(odd, 2), gemm(odd, 3)]]
}

/// Merges the works as a policy would, naming the first one twice, and frees them again.
fn check_merged(gpu: &mut CudaDevice, queue: Queue, works: &[Work]) -> Result<f64, DeviceError> {
    let mut parts = Vec::new();
    for work in works {
        parts.push(gpu.prepare(queue, work)?);
    }
    parts.push(parts[0]);
    let merged = gpu.merge(queue, &parts)?;
    parts.pop();
    parts.push(merged);
    let distance = gpu.check_merged(merged)?;
    parts.into_iter().try_for_each(|p| gpu.release(p))?;
    Ok(distance)
}

fn report(place: &str, what: &str, distance: Result<f64, DeviceError>, limit: f64) -> usize {
    let (state, said) = match distance {
        Ok(d) if d <= limit => ("ok", format!("{d:.2e} (limit {limit:.2e})")),
        Ok(d) => ("SHORT", format!("{d:.2e} (limit {limit:.2e})")),
        Err(e) => ("SHORT", e.to_string()),
    };
    println!("{state:5} {place:5} {what}: {said}");
    usize::from(state == "SHORT")
}

fn run() -> Result<usize, DeviceError> {
    let mut gpu = CudaDevice::open(0, Granularity::Fine)?;
    gpu.info().require_gpu()?;
    let part = gpu.partition(0, 16 * gpu.info().grain)?;
    let whole = gpu.whole();
    let queues = [gpu.queue(whole, 0)?, gpu.queue(part, 0)?];
    let mut short = 0;
    for work in works() {
        for (queue, place) in queues.iter().zip(["whole", "part"]) {
            let distance = gpu.prepare(*queue, &work).and_then(|p| {
                let distance = gpu.check(p, &work)?;
                gpu.release(p).map(|()| distance)
            });
            short += report(place, &work.id, distance, reference::tolerance(&work));
        }
    }
    for precision in [Precision::Fp32, Precision::Tf32, Precision::Fp16, Precision::Bf16] {
        for works in merges(precision) {
            for (queue, place) in queues.iter().zip(["whole", "part"]) {
                let distance = check_merged(&mut gpu, *queue, &works);
                let what = format!("merged {}", works[0].id);
                short += report(place, &what, distance, reference::tolerance(&works[0]));
            }
        }
    }
    Ok(short)
}

fn main() -> ExitCode {
    match run() {
        Ok(0) => ExitCode::SUCCESS,
        Ok(short) => {
            println!("{short} fell short");
            ExitCode::FAILURE
        }
        Err(e) => {
            println!("{e}");
            ExitCode::FAILURE
        }
    }
}
