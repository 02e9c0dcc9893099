//! Compiles `kernels/zoo.cu` into `kernels/zoo.ptx.gz`. The shipped file is made by NVRTC 12.9, whose
//! PTX loads on drivers from CUDA 12.9 on:
//! `pip install --target S nvidia-cuda-nvrtc-cu12==12.9.86`, then
//! `LD_LIBRARY_PATH=S/nvidia/cuda_nvrtc/lib cargo run -p cotenant-replay --example ptx`.

use std::io::Write as _;
use std::path::Path;

use cotenant_replay::{cuda, recipe};
use flate2::Compression;
use flate2::write::GzEncoder;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let ptx = cuda::nvrtc::compile(recipe::SOURCE, "compute_80")?;
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("kernels/zoo.ptx.gz");
    let mut packed = GzEncoder::new(std::fs::File::create(file)?, Compression::best());
    packed.write_all(ptx.as_bytes())?;
    packed.finish()?;
    Ok(())
}
