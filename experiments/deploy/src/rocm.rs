//! Processes that share an AMD GPU: an environment for each tenant, with a mask of its CUs where it has some
//! for itself.
//!
//! Names and syntax: ROCm's documentation, "Setting the number of compute units"
//! (`HSA_CU_MASK = GPU list : CU list`, GPUs counted behind `ROCR_VISIBLE_DEVICES`), and the amdgpu module's
//! option `hws_max_conc_proc`: how many processes run at once, 1: they take turns. A mask says which CUs, not
//! how many: two that overlap share what they have in common.

use crate::finding::{ReadError, Weight};
use crate::found::{Found, Mechanism};
use crate::plan::{Emitted, Plan, Sharing, slug};

const MASK: &str = "HSA_CU_MASK";
const VISIBLE: &str = "ROCR_VISIBLE_DEVICES";
const TURNS: &str = "hws_max_conc_proc=1";

pub(crate) fn emit(plan: &Plan) -> Result<Emitted, String> {
    let mut files = vec![];
    for (index, gpu) in plan.gpus.iter().enumerate() {
        let unit = plan.device.mps.map_or(1, |m| m.chunk_cus.max(1));
        let mut next = 0;
        for (i, tenant) in gpu.tenants.iter().enumerate() {
            let mut env = format!(
                "# tenant={} gpu={index} processes={}\n{VISIBLE}={index}\n",
                tenant.name, tenant.workers
            );
            match &gpu.sharing {
                Sharing::Static { chunks } => {
                    let end = next + chunks[i] * unit;
                    env += &format!("{MASK}=0:{next}-{}\n", end - 1);
                    next = end;
                }
                Sharing::TimeSlicing { .. } => {}
                Sharing::Mps { percent } if percent.iter().all(|&p| p >= 100) => {}
                Sharing::Mps { .. } => {
                    return Ok(Emitted::Cannot(
                        "rocm/: a mask says which CUs a process has, not how many; ask for CU masks"
                            .to_owned(),
                    ));
                }
                Sharing::Streams | Sharing::Mig { .. } => return Ok(Emitted::Nothing),
            }
            files.push(plan.file(format!("rocm/gpu{index}/{}.env", slug(&tenant.name)), &env));
        }
    }
    if plan.gpus.iter().any(|g| matches!(g.sharing, Sharing::TimeSlicing { .. })) {
        let body = format!("options amdgpu {TURNS}\n");
        files.push(plan.file("rocm/modprobe.conf", &body));
    }
    Ok(if files.is_empty() { Emitted::Nothing } else { Emitted::Files(files) })
}

pub(crate) fn recognises(path: &str, text: &str) -> bool {
    let yaml = path.ends_with(".yaml") || path.ends_with(".yml") || path.ends_with(".json");
    !yaml && [MASK, VISIBLE, "hws_max_conc_proc"].iter().any(|w| text.contains(w))
}

/// Reads `KEY=VALUE` lines and exports of one process, and the module's option.
pub(crate) fn read(path: &str, text: &str, found: &mut Found) -> Result<(), ReadError> {
    let stem = path.rsplit('/').next().unwrap_or(path);
    let stem = stem.strip_suffix(".env").or_else(|| stem.strip_suffix(".sh")).unwrap_or(stem);
    let (mut tenant, mut gpu) = (stem.to_owned(), None);
    if found.device.mps.is_none() || !found.device.is_amd() {
        let what = format!("ROCm's settings; {} is not an AMD GPU", found.device.title);
        found.tell(Weight::Illegal, path, None, "", what);
        return Ok(());
    }
    for (i, line) in text.lines().enumerate() {
        let (number, line) = (Some(i + 1), line.trim());
        if let Some(comment) = line.strip_prefix('#') {
            for word in comment.split_whitespace() {
                if let Some(name) = word.strip_prefix("tenant=") {
                    name.clone_into(&mut tenant);
                } else if let Some(index) = word.strip_prefix("gpu=") {
                    gpu = index.parse().ok().or(gpu);
                } else if let Some(count) = word.strip_prefix("processes=") {
                    found.tenant(&tenant, gpu).processes = count.parse().ok();
                }
            }
            continue;
        }
        if line.starts_with("options amdgpu") && line.contains(TURNS) {
            found.turns = true;
            found.shared_by(Mechanism::TimeSlicing);
        }
        let line = line.strip_prefix("export ").unwrap_or(line);
        let Some((name, value)) = line.split_once('=') else { continue };
        match name.trim() {
            VISIBLE => {
                found.shared_by(if found.turns { Mechanism::TimeSlicing } else { Mechanism::Mps });
            }
            MASK => mask(path, number, value.trim_matches(['"', '\'']), (&tenant, gpu), found)?,
            _ => {}
        }
    }
    Ok(())
}

/// The CUs that a process has for itself.
fn mask(
    path: &str,
    line: Option<usize>,
    value: &str,
    (tenant, gpu): (&str, Option<u32>),
    found: &mut Found,
) -> Result<(), ReadError> {
    let wrong = || {
        let what = format!("`{value}` is not a mask such as 0:0-29 (GPU, then its CUs)");
        ReadError::new(path, line, MASK, what)
    };
    let (_, list) = value.split_once(':').ok_or_else(wrong)?;
    let number = |t: &str| t.trim().parse::<u32>().map_err(|_| wrong());
    let all = found.device.cus();
    let (mut named, mut beyond) = (vec![false; all as usize], None);
    let mut name = |low: u32, high: u32| {
        if high >= all {
            beyond.get_or_insert(low.max(all));
        }
        (low..=high.min(all.saturating_sub(1))).for_each(|cu| named[cu as usize] = true);
    };
    if let Some(hex) = list.trim().strip_prefix("0x") {
        for (i, digit) in hex.chars().rev().enumerate() {
            let digit = digit.to_digit(16).ok_or_else(wrong)?;
            let first = u32::try_from(i).unwrap_or(u32::MAX).saturating_mul(4);
            for bit in (0..4).filter(|bit| digit >> bit & 1 == 1) {
                name(first.saturating_add(bit), first.saturating_add(bit));
            }
        }
    } else {
        for part in list.split(',') {
            let (low, high) = part.split_once('-').unwrap_or((part, part));
            let (low, high) = (number(low)?, number(high)?);
            if low > high {
                return Err(wrong());
            }
            name(low, high);
        }
    }
    if let Some(beyond) = beyond {
        let what = format!("CU {beyond} of {all}: there is none of that number");
        found.tell(Weight::Ignored, path, line, MASK, what);
    }
    let cus: Vec<u32> = (0..all).filter(|&cu| named[cu as usize]).collect();
    let key = (slug(tenant), gpu);
    let shared: Vec<String> = found
        .masks
        .iter()
        .filter(|((name, g), other)| {
            *g == gpu && *name != key.0 && other.iter().any(|c| cus.contains(c))
        })
        .map(|((name, _), _)| name.clone())
        .collect();
    if !shared.is_empty() {
        let what =
            format!("CUs are shared with {}; simulated as if each had its own", shared.join(", "));
        found.tell(Weight::Note, path, line, MASK, what);
    }
    let unit = found.device.mps.map_or(1, |m| m.chunk_cus.max(1));
    let chunks = (cus.len() as u32 / unit).max(1);
    found.shared_by(Mechanism::Static);
    found.tenant(tenant, gpu).chunks = Some(chunks);
    found.masks.insert(key, cus);
    Ok(())
}
