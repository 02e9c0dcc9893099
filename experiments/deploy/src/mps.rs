//! MPS by hand: one environment per tenant, and a script that starts the daemon.
//!
//! Names and commands: NVIDIA's MPS documentation, releases 580 to 615. What the real thing does
//! without a word: a percentage becomes whole TPCs (2 SMs), rounded down; a client can only lower what
//! the daemon gives, and reads its environment once, at start; the sum of percentages may exceed 100,
//! and then clients contend; with static partitions (`-S`, CUDA 13.1) percentages are ignored, a client
//! without a partition fails to start, and SMs that fill no chunk are stranded. `mps_v3.rs` has the newer
//! interface.

use std::fmt::Write as _;

use crate::finding::{ReadError, Weight};
use crate::found::{Found, Mechanism};
use crate::mps_limits::{chunk_cus, memory, memory_share, overruled, partition, percentage, pipe};
use crate::mps_v3;
use crate::plan::{Emitted, File, Gpu, Plan, Sharing, slug};

pub(crate) fn emit(plan: &Plan) -> Result<Emitted, String> {
    let uses_mps = |g: &Gpu| match &g.sharing {
        Sharing::Mps { .. } | Sharing::Static { .. } => true,
        Sharing::Mig { instances, .. } => {
            g.tenants.iter().map(|t| t.workers).sum::<u32>() > instances.len() as u32
        }
        _ => false,
    };
    if !plan.gpus.iter().any(uses_mps) {
        return Ok(Emitted::Nothing);
    }
    let mut files = vec![];
    for (index, gpu) in plan.gpus.iter().enumerate().filter(|(_, g)| uses_mps(g)) {
        let mig = matches!(gpu.sharing, Sharing::Mig { .. });
        let newer = mps_v3::emit(plan, index, gpu);
        match script(plan, index, gpu) {
            Some(script) => files.push(script),
            None if newer.is_empty() => {
                return Ok(Emitted::Cannot(format!(
                    "mps/gpu{index}: {}",
                    "the older commands have chunks of 4 SMs, and a share is not a multiple of them"
                )));
            }
            None => {}
        }
        files.extend(newer);
        for (i, tenant) in gpu.tenants.iter().enumerate() {
            let place = match &gpu.sharing {
                Sharing::Mig { place, .. } => place.get(i).copied(),
                _ => None,
            };
            let pipe = pipe(index, place);
            let mut env = format!(
                "# tenant={} gpu={index} processes={}\nCUDA_MPS_PIPE_DIRECTORY={pipe}\nCUDA_MPS_LOG_DIRECTORY={pipe}/log\n",
                tenant.name, tenant.workers
            );
            if mig {
                env += "# CUDA_VISIBLE_DEVICES=MIG-UUID of the instance, from nvidia-smi -L\n";
            }
            match &gpu.sharing {
                Sharing::Mps { percent } | Sharing::Mig { percent, .. } if percent[i] < 100 => {
                    let _ = writeln!(env, "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE={}", percent[i]);
                }
                Sharing::Static { .. } => {
                    env += "# CUDA_MPS_SM_PARTITION is added by start.sh\n";
                }
                _ => {}
            }
            if !mig && let Some(limit) = memory_share(plan, gpu, i) {
                let _ = writeln!(env, "CUDA_MPS_PINNED_DEVICE_MEM_LIMIT={index}={limit}M");
            }
            if tenant.best_effort {
                env += "CUDA_MPS_CLIENT_PRIORITY=1\n";
            }
            let name = slug(&tenant.name);
            files.push(plan.file(format!("mps/gpu{index}/{name}.env"), &env));
        }
    }
    Ok(Emitted::Files(files))
}

/// None where the older commands cannot express the chunks.
fn script(plan: &Plan, index: usize, gpu: &Gpu) -> Option<File> {
    let unit = chunk_cus(&plan.device, 2);
    let own = plan.device.mps.map_or(1, |m| m.chunk_cus);
    if let Sharing::Static { chunks } = &gpu.sharing
        && chunks.iter().any(|c| !(c * own).is_multiple_of(unit))
    {
        return None;
    }
    let fixed = if matches!(gpu.sharing, Sharing::Static { .. }) { " -S" } else { "" };
    let pipes: Vec<(String, String)> = match &gpu.sharing {
        Sharing::Mig { instances, .. } => (0..instances.len())
            .map(|i| {
                (
                    pipe(index, Some(i)),
                    format!("${{SLOT{i}:?MIG UUID of the {} instance}}", instances[i]),
                )
            })
            .collect(),
        _ => vec![(pipe(index, None), format!("${{GPU:-{index}}}"))],
    };
    let mut body = "set -eu\ncd \"$(dirname \"$0\")\"\n".to_owned();
    for (pipe, device) in &pipes {
        let _ = write!(
            body,
            "export CUDA_VISIBLE_DEVICES=\"{device}\"\nexport CUDA_MPS_PIPE_DIRECTORY={pipe}\nexport \
             CUDA_MPS_LOG_DIRECTORY={pipe}/log\nmkdir -p \"$CUDA_MPS_LOG_DIRECTORY\"\nnvidia-cuda-mps-control \
             -d{fixed}\n"
        );
    }
    if let Sharing::Static { chunks } = &gpu.sharing {
        body += "uuid=\"$(nvidia-smi --query-gpu=uuid --format=csv,noheader -i \"$CUDA_VISIBLE_DEVICES\")\"\n";
        for (tenant, chunks) in gpu.tenants.iter().zip(chunks) {
            let name = slug(&tenant.name);
            // Releases differ: the identifier alone, or `Partition UUID/ID created`.
            let _ = write!(
                body,
                "# tenant={} gpu={index}\npartition=\"$(echo \"sm_partition add $uuid {}\" | \
                 nvidia-cuda-mps-control | grep -o 'GPU-[^ ]*/[^ ]*' | head -n 1)\"\necho \
                 \"CUDA_MPS_SM_PARTITION=${{partition:?no partition}}\" >> {name}.env\n",
                tenant.name,
                chunks * own / unit
            );
        }
    }
    body += "# Stop: echo quit | nvidia-cuda-mps-control\n";
    let head = format!("#!/bin/sh\n{}", plan.comments());
    Some(File { path: format!("mps/gpu{index}/start.sh"), text: head + &body })
}

pub(crate) fn recognises(path: &str, text: &str) -> bool {
    let yaml = path.ends_with(".yaml") || path.ends_with(".yml") || path.ends_with(".json");
    !yaml && (text.contains("CUDA_MPS_") || text.contains("nvidia-cuda-mps-control"))
}

/// Reads `KEY=VALUE` lines, exports and commands to the control daemon.
pub(crate) fn read(path: &str, text: &str, found: &mut Found) -> Result<(), ReadError> {
    let stem = path.rsplit('/').next().unwrap_or(path);
    let stem = stem.strip_suffix(".env").or_else(|| stem.strip_suffix(".sh")).unwrap_or(stem);
    let is_env = path.ends_with(".env");
    // Who the lines are for: a file of its own, or the last comment that says so.
    let mut tenant = is_env.then(|| stem.to_owned());
    let mut gpu = None;
    if found.device.is_amd() {
        let what = format!(
            "MPS is of NVIDIA's GPUs; of a {} HSA_CU_MASK divides the CUs",
            found.device.title
        );
        found.tell(Weight::Illegal, path, None, "", what);
        return Ok(());
    }
    found.shared_by(Mechanism::Mps);
    for (i, line) in text.lines().enumerate() {
        let (number, line) = (Some(i + 1), line.trim());
        if let Some(comment) = line.strip_prefix('#') {
            for word in comment.split_whitespace() {
                if let Some(name) = word.strip_prefix("tenant=") {
                    tenant = Some(name.to_owned());
                } else if let Some(index) = word.strip_prefix("gpu=") {
                    gpu = index.parse().ok().or(gpu);
                } else if let (Some(count), Some(name)) = (word.strip_prefix("processes="), &tenant)
                {
                    found.tenant(name, gpu).processes = count.parse().ok();
                }
            }
            continue;
        }
        if line.contains("nvidia-cuda-mps-control") && line.split_whitespace().any(|w| w == "-S") {
            found.shared_by(Mechanism::Static);
        }
        command(path, number, line, tenant.as_deref(), gpu, found)?;
        let line = line.strip_prefix("export ").unwrap_or(line);
        for word in line.split_whitespace() {
            let Some((name, value)) = word.split_once('=') else { break };
            let value = value.trim_matches(['"', '\'']);
            if name.starts_with("CUDA_MPS_") && !value.contains('$') {
                let who = (tenant.as_deref().unwrap_or(""), gpu, None);
                variable(path, number, (name, value), who, found)?;
            }
        }
    }
    Ok(())
}

/// One variable of a client's environment, or of the daemon's where no tenant is known (`""`).
pub(crate) fn variable(
    path: &str,
    line: Option<usize>,
    (name, value): (&str, &str),
    (tenant, gpu, slot): (&str, Option<u32>, Option<usize>),
    found: &mut Found,
) -> Result<(), ReadError> {
    match name {
        "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE" => {
            let percent = percentage(path, line, name, value)?;
            // Kubernetes workloads of instances set it, too: MPS inside an instance.
            if found.mechanism != Some(Mechanism::Mig) {
                found.shared_by(Mechanism::Mps);
            }
            found.percent_told(percent, path, line, name);
            if tenant.is_empty() {
                found.default_percent = Some(percent);
            } else {
                let plain = slug(tenant);
                let mut held = found.namespaces.iter();
                let held = held.find(|((n, g), _)| *n == plain && (*g == gpu || g.is_none()));
                let held = held.map_or(percent, |(_, held)| *held);
                found.placed(tenant, gpu, slot).percent = Some(held);
                if held != percent {
                    let what = overruled(held, percent);
                    found.tell(Weight::Ignored, path, line, name, what);
                }
            }
        }
        "CUDA_MPS_PINNED_DEVICE_MEM_LIMIT" => {
            for part in value.split(',') {
                let Some((_, limit)) = part.split_once('=') else {
                    let what = format!(
                        "`{part}` is not of the form DEVICE=LIMIT such as 0=8G: the limit is not set"
                    );
                    found.tell(Weight::Ignored, path, line, name, what);
                    continue;
                };
                let limit = memory(limit).map_err(|what| ReadError::new(path, line, name, what))?;
                if tenant.is_empty() {
                    found.default_limit = Some(limit);
                } else {
                    found.placed(tenant, gpu, slot).memory_limit = Some(limit);
                }
            }
        }
        "CUDA_MPS_CLIENT_PRIORITY" => {
            if !matches!(value, "0" | "1") {
                let what = format!("`{value}` is neither 0 (normal) nor 1 (below normal)");
                return Err(ReadError::new(path, line, name, what));
            }
            if value == "1" {
                let what = "a hint to the driver; not part of what is checked";
                found.tell(Weight::Note, path, line, name, what);
            }
        }
        _ => {}
    }
    Ok(())
}

/// A command to the control daemon.
fn command(
    path: &str,
    line: Option<usize>,
    text: &str,
    tenant: Option<&str>,
    gpu: Option<u32>,
    found: &mut Found,
) -> Result<(), ReadError> {
    let words: Vec<&str> = text
        .split(|c: char| c.is_whitespace() || "\"'|()".contains(c))
        .filter(|w| !w.is_empty())
        .collect();
    let behind = |name: &str, n: usize| {
        let at = words.iter().position(|w| *w == name)?;
        words.get(at + n).copied()
    };
    if let Some(value) = behind("set_default_active_thread_percentage", 1) {
        let percent = percentage(path, line, "set_default_active_thread_percentage", value)?;
        found.percent_told(percent, path, line, "set_default_active_thread_percentage");
        found.default_percent = Some(percent);
        let what = "holds for servers that start later; clients that run keep theirs";
        found.tell(Weight::Note, path, line, "set_default_active_thread_percentage", what);
    }
    if let Some(value) = behind("set_default_device_pinned_mem_limit", 2) {
        let field = "set_default_device_pinned_mem_limit";
        found.default_limit =
            Some(memory(value).map_err(|what| ReadError::new(path, line, field, what))?);
    }
    if words.contains(&"sm_partition") && words.contains(&"add") {
        let Some(chunks) = behind("add", 2) else {
            let what = "needs the GPU's UUID and a number of chunks";
            return Err(ReadError::new(path, line, "sm_partition add", what));
        };
        let chunks: u32 = chunks.parse().ok().filter(|n| *n > 0).ok_or_else(|| {
            ReadError::new(
                path,
                line,
                "sm_partition add",
                format!("`{chunks}` is not a number of chunks"),
            )
        })?;
        partition(path, line, (chunks, 2), tenant, gpu, found);
    }
    mps_v3::command(path, line, &words, gpu, found)
}
