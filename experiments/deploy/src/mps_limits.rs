//! What both interfaces of MPS have: pipes, percentages, memory limits and chunks of SMs.

use std::collections::BTreeMap;

use cotenant_profiles::{Bytes, Device};

use crate::finding::{ReadError, Weight};
use crate::found::{Found, Mechanism};
use crate::plan::{Gpu, Plan, slug};

const PIPE: &str = "/tmp/cotenant-mps";

/// SMs of a chunk under a version of the control interface. Parts before Hopper have 4 under version 2 and 2
/// under version 3 (MPS documentation, releases 615 and 620); device files have either.
pub(crate) fn chunk_cus(device: &Device, version: u32) -> u32 {
    match device.mps.map_or(1, |m| m.chunk_cus) {
        2 | 4 if version == 3 => 2,
        2 | 4 => 4,
        other => other,
    }
}

/// A client's limit, MiB: the memory shared out by need, so that no client's limit is below its own.
pub(crate) fn memory_share(plan: &Plan, gpu: &Gpu, tenant: usize) -> Option<u64> {
    let need: u64 = gpu.tenants.iter().map(|t| t.memory.0 * u64::from(t.workers)).sum();
    let capacity = plan.device.memory.capacity.0;
    if need == 0 || need > capacity {
        return None;
    }
    let share = u128::from(capacity) * u128::from(gpu.tenants[tenant].memory.0) / u128::from(need);
    Some((share as u64) >> 20)
}

pub(crate) fn pipe(index: usize, instance: Option<usize>) -> String {
    match instance {
        Some(instance) => format!("{PIPE}-gpu{index}-slot{instance}"),
        None => format!("{PIPE}-gpu{index}"),
    }
}

pub(crate) fn percentage(
    path: &str,
    line: Option<usize>,
    field: &str,
    value: &str,
) -> Result<u32, ReadError> {
    let percent = value.parse::<f64>().ok().filter(|p| *p > 0.0 && *p <= 100.0);
    let percent = percent.ok_or_else(|| {
        let what = format!("`{value}` is not a percentage above 0 and at most 100");
        ReadError::new(path, line, field, what)
    })?;
    Ok((percent as u32).max(1))
}

/// What becomes of a client's percentage in a namespace of MPS v3.
pub(crate) fn overruled(held: u32, asked: u32) -> String {
    format!("{held} % of the namespace hold, whatever a client's environment says ({asked} %)")
}

/// `8G`, `512M`.
pub(crate) fn memory(text: &str) -> Result<Bytes, String> {
    let wrong = || format!("`{text}` is not a limit: a whole number with G or M");
    let (digits, unit) =
        text.trim().split_at_checked(text.trim().len().saturating_sub(1)).ok_or_else(wrong)?;
    let number: u64 = digits.parse().map_err(|_| wrong())?;
    let shift = match unit {
        "G" | "g" => 30,
        "M" | "m" => 20,
        _ => return Err(wrong()),
    };
    Ok(Bytes(number << shift))
}

/// A static partition of so many chunks of an interface's version.
pub(crate) fn partition(
    path: &str,
    line: Option<usize>,
    (chunks, version): (u32, u32),
    tenant: Option<&str>,
    gpu: Option<u32>,
    found: &mut Found,
) {
    found.shared_by(Mechanism::Static);
    let field = if version == 3 { "sm-partition" } else { "sm_partition add" };
    let Some(tenant) = tenant else {
        let what = "no comment `# tenant=NAME` says whose partition this is: left out";
        return found.tell(Weight::Note, path, line, field, what);
    };
    let Some(mps) = found.device.mps.filter(|m| m.chunks > 0) else {
        let what = format!("{} has no static partitions", found.device.title);
        return found.tell(Weight::Illegal, path, line, field, what);
    };
    let (own, unit) = (mps.chunk_cus.max(1), chunk_cus(&found.device, version));
    let sms = chunks * unit;
    let whole = sms / own;
    if !sms.is_multiple_of(own) {
        let what =
            format!("{sms} SMs are not a multiple of {own}: simulated with {} SMs", whole * own);
        found.tell(Weight::Note, path, line, field, what);
    }
    found.tenant(tenant, gpu).chunks = Some(whole.max(1));
    // A script and a configuration may say the same of one tenant, each by its own form of the name.
    let of_gpu = found.tenants.iter().filter(|((_, g, _), _)| *g == gpu);
    let each: BTreeMap<String, u32> =
        of_gpu.filter_map(|((name, ..), t)| Some((slug(name), t.chunks?))).collect();
    let asked: u32 = each.values().sum();
    if asked > mps.chunks {
        let (cus, usable) = (found.device.cus(), mps.chunks * mps.chunk_cus);
        let what = format!(
            "{asked} chunks of {} SMs: the GPU gives {} and strands {} of its {cus} SMs",
            mps.chunk_cus,
            mps.chunks,
            cus - usable
        );
        found.tell(Weight::Illegal, path, line, field, what);
    }
}
