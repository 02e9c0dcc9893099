//! ParvaGPU's deployment map (`deployment/SLO*/…_deploy.csv`): MIG instances with several processes of one
//! model in each.
//!
//! Read only. `Placement` is left aside: on a real board the driver places instances, and the maps hold
//! starts that it would not take (a `1g` within the memory of a `3g`).

use std::collections::BTreeMap;

use cotenant_profiles::device::MigProfile;
use serde::Deserialize;

use crate::finding::{ReadError, Weight};
use crate::found::{Found, Mechanism};

const COLUMNS: [&str; 7] =
    ["Num instance", "Num GPU", "Model", "Placement", "Instance size", "Batch size", "Num proc"];

/// One instance.
#[derive(Deserialize)]
struct Segment {
    #[serde(rename = "Num instance")]
    node: u32,
    #[serde(rename = "Num GPU")]
    gpu: u32,
    #[serde(rename = "Model")]
    model: String,
    #[serde(rename = "Instance size")]
    slices: u32,
    #[serde(rename = "Batch size")]
    batch: u32,
    #[serde(rename = "Num proc")]
    processes: u32,
}

pub(crate) fn recognises(_path: &str, text: &str) -> bool {
    let header: Vec<&str> = text.lines().next().unwrap_or_default().split(',').collect();
    COLUMNS.iter().all(|c| header.iter().any(|h| h.trim() == *c))
}

pub(crate) fn read(path: &str, text: &str, found: &mut Found) -> Result<(), ReadError> {
    let Some(table) = found.device.mig.clone() else {
        let what = format!("{} has no MIG", found.device.title);
        return Err(ReadError::new(path, None, "", what));
    };
    let mut rows = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(text.as_bytes());
    // GPUs of all nodes, in the order of the file.
    let mut gpus: Vec<(u32, u32)> = vec![];
    let mut layouts: BTreeMap<u32, Vec<String>> = BTreeMap::new();
    let wrong = |e: csv::Error| {
        let line = e.position().and_then(|p| usize::try_from(p.line()).ok());
        ReadError::new(path, line, "", e.to_string())
    };
    let headers = rows.headers().map_err(wrong)?.clone();
    for record in rows.records() {
        let record = record.map_err(wrong)?;
        let at = record.position().and_then(|p| usize::try_from(p.line()).ok());
        let segment: Segment = record.deserialize(Some(&headers)).map_err(wrong)?;
        for (value, field) in [
            (segment.batch, "Batch size"),
            (segment.processes, "Num proc"),
            (segment.slices, "Instance size"),
        ] {
            if value == 0 {
                return Err(ReadError::new(path, at, field, "is at least 1"));
            }
        }
        let plain = |p: &&MigProfile| p.compute == segment.slices && !p.name.contains('+');
        let Some(profile) = table.profiles.iter().find(plain) else {
            let names: Vec<&str> = table.profiles.iter().map(|p| p.name.as_str()).collect();
            let what = format!(
                "{} slices: {} has {}",
                segment.slices,
                found.device.title,
                names.join(", ")
            );
            return Err(ReadError::new(path, at, "Instance size", what));
        };
        let place = (segment.node, segment.gpu);
        let gpu = gpus.iter().position(|g| *g == place).unwrap_or_else(|| {
            gpus.push(place);
            gpus.len() - 1
        });
        let gpu = u32::try_from(gpu).unwrap_or(u32::MAX);
        let layout = layouts.entry(gpu).or_default();
        let tenant = found.placed(&segment.model, Some(gpu), Some(layout.len()));
        tenant.instance = Some(profile.name.clone());
        tenant.processes = Some(segment.processes);
        tenant.batch_max = Some(segment.batch);
        layout.push(profile.name.clone());
    }
    if layouts.is_empty() {
        return Err(ReadError::new(path, None, "", "lists no instance"));
    }
    for (gpu, layout) in &layouts {
        let names: Vec<&str> = layout.iter().map(String::as_str).collect();
        if let Err(why) = table.placements(&names) {
            found.tell(Weight::Illegal, path, None, &format!("GPU {gpu}"), why.to_string());
        }
    }
    found.shared_by(Mechanism::Mig);
    found.layouts.extend(layouts.into_iter().map(|(gpu, layout)| (Some(gpu), layout)));
    Ok(())
}
