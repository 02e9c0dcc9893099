//! Compiles `kernels/zoo.cu` into `kernels/zoo.ptx`. The shipped file is made by NVRTC 12.9, whose
//! PTX loads on drivers from CUDA 12.9 on:
//! `pip install --target S nvidia-cuda-nvrtc-cu12==12.9.86`, then
//! `LD_LIBRARY_PATH=S/nvidia/cuda_nvrtc/lib cargo run -p cotenant-replay --example ptx`.

use std::path::Path;

use cotenant_replay::{cuda, recipe};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let ptx = cuda::nvrtc::compile(recipe::SOURCE, "compute_80")?;
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("kernels/zoo.ptx");
    std::fs::write(file, ptx)?;
    Ok(())
}
