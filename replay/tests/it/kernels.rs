//! The kernels' source and what it was compiled into.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use cotenant_profiles::lower::Precision;
use cotenant_profiles::zoo::{
    self,
    decoder::{DECODERS, StepShape},
};
use cotenant_replay::steps;
use cotenant_replay::tune::{self, TILES, Tile};
use cotenant_replay::work::{Task, launches};
use cotenant_replay::{DeviceError, Unavailable, Work, cuda, recipe};

fn functions(ptx: &str) -> BTreeSet<&str> {
    let name = |line: &'_ str| line.find(".entry ").map(|at| at + ".entry ".len());
    let lines = ptx.lines().filter_map(|l| name(l).map(|at| &l[at..]));
    lines.map(|l| l.split('(').next().unwrap_or(l).trim()).collect()
}

/// How many parameters of 64 bits each function declares.
fn parameters(ptx: &str) -> BTreeMap<&str, usize> {
    let mut all = BTreeMap::new();
    for declared in ptx.split("param .u64 ").skip(1) {
        if let Some((function, _)) = declared.split_once("_param_") {
            *all.entry(function).or_default() += 1;
        }
    }
    all
}

#[test]
fn every_recipe_of_the_zoo_has_its_function_in_the_ptx() {
    let known = functions(&recipe::PTX);
    let parameters = parameters(&recipe::PTX);
    assert_eq!(known.len(), 3 * 31 + 3, "{known:?}");
    for precision in [Precision::Fp32, Precision::Tf32, Precision::Fp16, Precision::Bf16] {
        let networks = zoo::MODELS.iter().map(|m| launches(&m.spec(), 1, precision));
        let shape = StepShape::new(&[(300, 812)], &[1024; 4]);
        let decoders = DECODERS.iter().map(|d| steps::works(d, &shape, precision));
        for works in networks.chain(decoders) {
            for work in works {
                if let Some(recipe) = recipe::recipe(&work).unwrap() {
                    let function = recipe.function.as_str();
                    assert!(known.contains(function), "{}: {function}", work.id);
                    // As many parameters as the function declares.
                    assert_eq!(
                        Some(&recipe.parameters.len()),
                        parameters.get(function),
                        "{function}"
                    );
                }
            }
        }
    }
}

#[test]
fn sizes_that_a_kernel_cannot_take_are_named() {
    let long = Task::Attention { heads: 1, tokens: 5000, width: 64 };
    let error = recipe::recipe(&Work::new(long, Precision::Fp32)).unwrap_err().to_string();
    assert!(error.contains("at most 4096 tokens"), "{error}");
    let bytes = Work::new(Task::Copy { elements: 1 }, Precision::Int8);
    assert!(recipe::recipe(&bytes).unwrap_err().to_string().contains("use fp16, bf16 or fp32"));
}

/// What of a list is compiled for every architecture, with NVRTC on the loader's path or in the folder
/// that `COTENANT_CUDA_LIBS` names. Without it nothing is, unless `COTENANT_REQUIRE_NVRTC` is set.
fn compiled(source: &str, options: &[String]) -> Option<Vec<(&'static str, String)>> {
    let folders: Vec<PathBuf> =
        std::env::var_os("COTENANT_CUDA_LIBS").iter().flat_map(std::env::split_paths).collect();
    cuda::preload(&folders);
    let mut all = Vec::new();
    for architecture in ["sm_80", "sm_90", "sm_100"] {
        match cuda::nvrtc::compile_with(source, architecture, options) {
            Ok(ptx) => all.push((architecture, ptx)),
            Err(DeviceError::Unavailable(Unavailable::NoLibrary { package, .. })) => {
                assert!(
                    std::env::var_os("COTENANT_REQUIRE_NVRTC").is_none(),
                    "NVRTC is not in {folders:?}"
                );
                eprintln!("skipped: no NVRTC; `pip install {package}`, COTENANT_CUDA_LIBS");
                return None;
            }
            Err(e) => panic!("{architecture} {options:?}: {e}"),
        }
    }
    Some(all)
}

#[test]
fn every_variant_of_the_tuner_compiles_for_every_architecture() {
    let work = Work::new(Task::Gemm { m: 150, n: 201, k: 77, count: 2 }, Precision::Fp32);
    for tile in TILES {
        let Some(all) = compiled(tune::SOURCE, &tile.options()) else { return };
        let recipe = tile.recipe(&work).unwrap();
        for (architecture, ptx) in all {
            assert_eq!(functions(&ptx), BTreeSet::from(["gemm"]), "{tile} {architecture}");
            assert_eq!(recipe.parameters.len(), ptx.matches("param .u64").count(), "{tile}");
            // The code is of as many threads and as much shared memory as the launch and the limits say.
            let threads = format!(".maxntid {}", recipe.block);
            assert!(ptx.contains(&threads), "{tile} {architecture}: {threads}");
            assert_eq!(shared_bytes(&ptx), tile.shared_bytes(), "{tile} {architecture}");
        }
    }
    let crooked = Tile { block: [64, 64, 8], thread: [7, 8] };
    let error = cuda::nvrtc::compile_with(tune::SOURCE, "sm_90", &crooked.options()).unwrap_err();
    assert!(error.to_string().contains("threads cover the tile"), "{error}");
}

/// Sizes of the shared arrays: lines such as `.shared .align 4 .b8 name[4160];`.
fn shared_bytes(ptx: &str) -> u32 {
    let arrays = ptx.lines().filter(|l| l.trim_start().starts_with(".shared"));
    let size = |l: &str| l.split(['[', ']']).nth(1).and_then(|n| n.parse::<u32>().ok());
    arrays.filter_map(size).sum()
}

#[test]
fn the_source_compiles_for_every_architecture_and_gives_the_shipped_functions() {
    let Some(all) = compiled(recipe::SOURCE, &[]) else { return };
    for (architecture, ptx) in all {
        assert_eq!(functions(&ptx), functions(&recipe::PTX), "{architecture}");
    }
    let error = cuda::nvrtc::compile("__global__ void k() { oops }", "sm_90").unwrap_err();
    assert!(error.to_string().contains("oops"), "{error}");
}
