//! The explanation that goes with the files.

use crate::plan::{File, Plan};

/// What a file is for, by how its path begins.
const ABOUT: &[(&str, &str)] = &[
    (
        "mig-parted.yaml",
        "creates the instances: `nvidia-mig-parted apply -f mig-parted.yaml -c cotenant`. It \
      destroys every instance of the GPU first; all its tenants stop.",
    ),
    (
        "device-plugin.yaml",
        "configuration of NVIDIA's device plugin (the GPU operator takes it as a ConfigMap).",
    ),
    (
        "dra.yaml",
        "claims and workloads for NVIDIA's DRA driver, in place of device-plugin.yaml and \
      kubernetes.yaml: `kubectl apply -f dra.yaml`.",
    ),
    (
        "kubernetes.yaml",
        "workloads for the device plugin: set your images, then `kubectl apply -f kubernetes.yaml`.",
    ),
    ("kai.yaml", "the same for the KAI scheduler, which places by memory and limits nothing."),
    ("hami.yaml", "the same for HAMi, which limits memory."),
    (
        "mps/",
        "without Kubernetes: run `start.sh` of each GPU, then start each tenant's processes with its `.env`; \
      or, with driver 615 and later, `start-v3.sh`, which makes an `.env3` for each.",
    ),
    (
        "rocm/",
        "start each tenant's processes with its `.env`; where `modprobe.conf` is there, the kernel's module is \
      to be loaded with its option first.",
    ),
    ("triton/", "model configurations for Triton; inputs and outputs are yours to add."),
    ("engines/", "commands for vLLM and SGLang."),
    ("green_contexts", "the same division inside one PyTorch process."),
];

pub(crate) fn file(plan: &Plan, files: &[File], left_out: &[String]) -> File {
    let mut text = "# Settings that deploy\n\n".to_owned();
    for line in &plan.header {
        text += &format!("    {line}\n");
    }
    for (index, gpu) in plan.gpus.iter().enumerate() {
        text += &format!(
            "\nGPU {index} ({}): {}\n\n",
            plan.device.title,
            gpu.sharing.words_on(&plan.device)
        );
        for t in &gpu.tenants {
            let batch = if t.batch_max > 1 {
                format!(", batches up to {} after at most {}", t.batch_max, t.batch_timeout)
            } else {
                String::new()
            };
            let part = if t.requests < 1.0 {
                format!(", {:.0} % of its requests", t.requests * 100.0)
            } else {
                String::new()
            };
            text += &format!(
                "* {} ({}): {} worker{}{batch}{part}; {:#} each\n",
                t.name,
                t.model,
                t.workers,
                if t.workers == 1 { "" } else { "s" },
                t.memory
            );
        }
    }
    text += "\n| file | is |\n|---|---|\n";
    for (start, about) in ABOUT {
        if files.iter().any(|f| f.path.starts_with(start)) {
            let name = if start.ends_with('/') || start.contains('.') {
                (*start).to_owned()
            } else {
                format!("{start}*")
            };
            text += &format!("| {name} | {about} |\n");
        }
    }
    if !left_out.is_empty() {
        text += "\nLeft out:\n\n";
        for why in left_out {
            text += &format!("* {why}\n");
        }
    }
    text += "\nCheck this folder after every edit: `cotenant check DIR --mix MIX.toml`, or, in place of `--mix`, with \
             the `--gpu` and `--model` flags of the question.\n";
    File { path: "README.md".to_owned(), text }
}
