//! Green contexts from PyTorch (`torch.cuda.green_contexts`, beta since 2.10): exclusive SMs for parts
//! of one process.
//!
//! What the driver does (cuda.h 13.0; minimum and step from the device file): a request is rounded *up*
//! to the step, so that fewer groups may come back than the division suggests; what fills no group has
//! no guarantees.

use std::collections::BTreeMap;

use crate::finding::{ReadError, Weight, line_of};
use crate::found::Found;
use crate::plan::{Emitted, Plan, Sharing};

pub(crate) fn emit(plan: &Plan) -> Result<Emitted, String> {
    let mut files = vec![];
    for (index, gpu) in plan.gpus.iter().enumerate() {
        let (Sharing::Static { chunks }, Some(mps)) = (&gpu.sharing, plan.device.mps) else {
            continue;
        };
        let sms: BTreeMap<&str, u32> = gpu
            .tenants
            .iter()
            .zip(chunks)
            .map(|(t, c)| (t.name.as_str(), c * mps.chunk_cus))
            .collect();
        let table = serde_json::to_string(&sms).map_err(|e| e.to_string())?;
        let body = format!(
            "# An alternative to the partitions of mps/gpu{index}: all models as threads of one process.\n\
             import torch\n\nSMS = {table}\n\n\ndef context(tenant):\n    \"\"\"Call .set_context() in the \
             tenant's thread before its first launch.\"\"\"\n    return \
             torch.cuda.green_contexts.GreenContext.create(num_sms=SMS[tenant], device_id={index})\n"
        );
        files.push(plan.file(format!("green_contexts_gpu{index}.py"), &body));
    }
    Ok(if files.is_empty() { Emitted::Nothing } else { Emitted::Files(files) })
}

pub(crate) fn recognises(path: &str, text: &str) -> bool {
    path.ends_with(".py") && text.contains("GreenContext")
}

pub(crate) fn read(path: &str, text: &str, found: &mut Found) -> Result<(), ReadError> {
    let line = line_of(text, &["SMS"]);
    let table = text.split_once("SMS = ").and_then(|(_, rest)| rest.split_once('}'));
    let Some((table, _)) = table else {
        let what = "holds no table `SMS = {\"tenant\": SMs}`";
        return Err(ReadError::new(path, None, "SMS", what));
    };
    let sms: BTreeMap<String, u32> = serde_json::from_str(&format!("{table}}}"))
        .map_err(|e| ReadError::new(path, line, "SMS", e.to_string()))?;
    let mask = found.device.mask;
    let mut sum = 0;
    for (tenant, asked) in &sms {
        let given = asked.next_multiple_of(mask.step_cus.max(1)).max(mask.min_cus);
        sum += given;
        if given != *asked {
            let what = format!(
                "{asked} SMs: the driver rounds up to {given} (at least {}, steps of {})",
                mask.min_cus, mask.step_cus
            );
            found.tell(Weight::Rounded, path, line, &format!("SMS.{tenant}"), what);
        }
    }
    if sum > found.device.cus() {
        let what =
            format!("{sum} SMs of {}: the last contexts cannot be created", found.device.cus());
        found.tell(Weight::Illegal, path, line, "SMS", what);
    }
    let what =
        "green contexts of one process are checked as static partitions where these are given, too";
    found.tell(Weight::Note, path, line, "SMS", what);
    Ok(())
}
