//! Settings that divide GPUs between models, in the formats that people deploy.
//!
//! A [`Plan`] says who runs where: it is what a format is written from, and what reading files comes
//! to. Every format is one file here with three parts: how it is written, how it is read, and what
//! the real thing makes of it without a word (what it rounds, ignores or refuses), which reading
//! reports as [`Finding`]s. This crate knows GPUs as data and nothing of simulation: whether a plan is
//! any good is for others to say.
//!
//! | file | format | written for |
//! |---|---|---|
//! | `mig_parted.rs` | NVIDIA mig-parted | hardware instances |
//! | `device_plugin.rs` | NVIDIA's Kubernetes device plugin | time slicing, equal MPS shares |
//! | `dra.rs` | NVIDIA's DRA driver: claims and `GpuConfig` | all |
//! | `kubernetes.rs` | Deployments; KAI and HAMi shares | all |
//! | `mps.rs` | `CUDA_MPS_*` environments, start script, static partitions | MPS |
//! | `mps_v3.rs` | the same for MPS v3: servers, namespaces, partitions, TOML | MPS without instances |
//! | `triton.rs` | Triton `config.pbtxt` | batching, instances |
//! | `engine.rs` | vLLM and SGLang memory fractions | generating models |
//! | `green.rs` | green contexts of PyTorch | exclusive CUs inside one process |
//! | `rocm.rs` | environments with CU masks, the amdgpu module's option | AMD's GPUs |
//! | `parvagpu.rs` | ParvaGPU's deployment map | read only |

mod board;
mod device_plugin;
mod dra;
mod engine;
mod finding;
mod found;
mod green;
mod kubernetes;
mod mig_parted;
mod mps;
mod mps_limits;
mod mps_v3;
mod parvagpu;
mod plan;
mod readme;
mod rocm;
mod triton;
mod workload;
mod yaml;

pub use board::{instance_name, no_instances, short_name};
pub use finding::{Finding, ReadError, Weight};
pub use found::{Found, Known, Mechanism, TenantFound};
pub use plan::{Engine, File, Gpu, Plan, Sharing, Tenant, TimeSlice};

/// A format's name, and whether a file is of it.
type Reader = (fn(&str, &str) -> bool, fn(&str, &str, &mut Found) -> Result<(), ReadError>);

/// In the order in which they are tried: the first that recognises a file reads it.
const READERS: &[Reader] = &[
    (triton::recognises, triton::read),
    (mig_parted::recognises, mig_parted::read),
    (device_plugin::recognises, device_plugin::read),
    (green::recognises, green::read),
    (engine::recognises, engine::read),
    (mps_v3::recognises, mps_v3::read),
    (rocm::recognises, rocm::read),
    (mps::recognises, mps::read),
    (parvagpu::recognises, parvagpu::read),
    (kubernetes::recognises, kubernetes::read),
];

/// How a format writes a plan.
type Format = fn(&Plan) -> Result<plan::Emitted, String>;

/// Every file that deploys `plan`, its explanation (`README.md`) among them. A format that cannot
/// express the plan is left out, and the explanation says why.
///
/// # Errors
/// The plan names an instance that the device does not have.
pub fn emit(plan: &Plan) -> Result<Vec<File>, String> {
    let mut files = vec![];
    let mut left_out = vec![];
    let nvidia: [Format; 5] =
        [mig_parted::emit, device_plugin::emit, dra::emit, kubernetes::emit, mps::emit];
    let mut formats = match plan.device.is_amd() {
        true => {
            left_out.push("kubernetes.yaml: AMD's device plugin hands out whole GPUs".to_owned());
            vec![rocm::emit as Format]
        }
        false => nvidia.to_vec(),
    };
    formats.extend([triton::emit as Format, engine::emit]);
    if !plan.device.is_amd() {
        formats.push(green::emit);
    }
    for format in formats {
        match format(plan)? {
            plan::Emitted::Files(more) => files.extend(more),
            plan::Emitted::Cannot(why) => left_out.push(why),
            plan::Emitted::Nothing => {}
        }
    }
    files.push(readme::file(plan, &files, &left_out));
    Ok(files)
}

/// Reads a file of any of the formats into `found`. `path` is what messages call it; its name helps
/// to recognise the format.
///
/// # Errors
/// No format recognises it, or it breaks the grammar of its format.
pub fn read(path: &str, text: &str, found: &mut Found) -> Result<(), ReadError> {
    let reader = READERS.iter().find(|(recognises, _)| recognises(path, text));
    let Some((_, reader)) = reader else {
        return Err(ReadError::new(
            path,
            None,
            "",
            "is of no format that is known here: mig-parted, device plugin, DRA or Kubernetes YAML, \
             CUDA_MPS_* environment or script, MPS v3 TOML, ROCm environment, config.pbtxt, vLLM or SGLang command, green contexts, a ParvaGPU deployment map",
        ));
    };
    reader(path, text, found)
}
