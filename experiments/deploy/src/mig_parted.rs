//! NVIDIA mig-parted (`nvidia-mig-parted apply -f FILE -c NAME`), also what the GPU operator's MIG
//! manager reads.
//!
//! Grammar: `api/spec/v1/spec.go` of mig-parted (commit bd7160f): `version: v1`, a list under each
//! label with `devices`, `mig-enabled`, `mig-devices` and optionally `device-filter`; every other key,
//! a negative count, and counts that are all zero are errors.
//!
//! What it does without a word: it writes counts, not placements, and tries large instances first;
//! applying destroys *every* instance of the GPU, unchanged ones too, unless the counts are those
//! that exist; if no order works the GPU is left empty.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::board::{instance_name, short_name};
use crate::finding::{ReadError, Weight, line_of};
use crate::found::{Found, Mechanism};
use crate::plan::{Emitted, Plan, Sharing};
use crate::yaml;

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Spec {
    version: String,
    mig_configs: BTreeMap<String, Vec<Config>>,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Config {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    device_filter: Option<serde_yaml_ng::Value>,
    devices: Devices,
    mig_enabled: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    mig_devices: Option<BTreeMap<String, i64>>,
}

#[derive(Deserialize, Serialize)]
#[serde(untagged)]
enum Devices {
    All(String),
    These(Vec<u32>),
}

/// The label that is written.
const LABEL: &str = "cotenant";

pub(crate) fn emit(plan: &Plan) -> Result<Emitted, String> {
    let mut configs = vec![];
    for (index, gpu) in plan.gpus.iter().enumerate() {
        let Sharing::Mig { instances, .. } = &gpu.sharing else { continue };
        let mut counts: BTreeMap<String, i64> = BTreeMap::new();
        for name in instances {
            *counts.entry(long_name(plan, name)?).or_default() += 1;
        }
        configs.push(Config {
            device_filter: None,
            devices: Devices::These(vec![index as u32]),
            mig_enabled: true,
            mig_devices: Some(counts),
        });
    }
    if configs.is_empty() {
        return Ok(Emitted::Nothing);
    }
    let spec = Spec { version: "v1".to_owned(), mig_configs: [(LABEL.to_owned(), configs)].into() };
    let body = yaml::text(&spec)?;
    let usage = format!("# nvidia-mig-parted apply -f mig-parted.yaml -c {LABEL}\n");
    Ok(Emitted::Files(vec![plan.file("mig-parted.yaml", &(usage + &body))]))
}

/// NVIDIA's name of a profile of the plan's device.
pub(crate) fn long_name(plan: &Plan, name: &str) -> Result<String, String> {
    let short = short_name(&plan.device, name)?;
    let table = plan.device.mig.as_ref();
    let profile = table.and_then(|t| t.profiles.iter().find(|p| p.name == short));
    profile.map(|p| instance_name(&plan.device, p)).ok_or_else(|| format!("no profile `{name}`"))
}

pub(crate) fn recognises(_path: &str, text: &str) -> bool {
    text.lines().any(|l| l.starts_with("mig-configs:"))
}

pub(crate) fn read(path: &str, text: &str, found: &mut Found) -> Result<(), ReadError> {
    let spec: Spec = yaml::typed(path, text)?;
    let at = |keys: &[&str]| line_of(text, keys);
    if spec.version != "v1" {
        let what = format!("`{}`: mig-parted knows only version v1", spec.version);
        return Err(ReadError::new(path, at(&["version"]), "version", what));
    }
    let labels: Vec<&String> = spec.mig_configs.keys().collect();
    let chosen = spec.mig_configs.get(LABEL).or_else(|| spec.mig_configs.values().next());
    let Some(configs) = chosen else {
        return Err(ReadError::new(path, at(&["mig-configs"]), "mig-configs", "is empty"));
    };
    let label = if spec.mig_configs.contains_key(LABEL) { LABEL } else { labels[0] };
    if labels.len() > 1 {
        let what = format!("holds {} configurations; `{label}` is checked", labels.len());
        found.tell(Weight::Note, path, at(&["mig-configs"]), "mig-configs", what);
    }
    for (i, config) in configs.iter().enumerate() {
        one(path, text, (label, i), config, found)?;
    }
    Ok(())
}

fn one(
    path: &str,
    text: &str,
    (label, i): (&str, usize),
    config: &Config,
    found: &mut Found,
) -> Result<(), ReadError> {
    let field = format!("mig-configs.{label}[{i}]");
    let line = line_of(text, &["mig-configs", label, "mig-enabled"]);
    let error = |key: &str, what: String| {
        let line = line_of(text, &["mig-configs", label, key]);
        Err(ReadError::new(path, line, format!("{field}.{key}"), what))
    };
    let Some(counts) = &config.mig_devices else {
        if config.mig_enabled {
            return error(
                "mig-enabled",
                "is true without `mig-devices`: give {} for none".to_owned(),
            );
        }
        return Ok(());
    };
    if !config.mig_enabled {
        return error("mig-devices", "is set beside `mig-enabled: false`".to_owned());
    }
    let gpus: Vec<Option<u32>> = match &config.devices {
        Devices::All(word) if word == "all" => vec![None],
        Devices::All(word) => {
            return error("devices", format!("`{word}` is neither all nor a list"));
        }
        Devices::These(list) => list.iter().map(|g| Some(*g)).collect(),
    };
    if counts.values().any(|n| *n < 0) || (!counts.is_empty() && counts.values().all(|n| *n == 0)) {
        return error("mig-devices", "counts are at least 0 and not all 0".to_owned());
    }
    let mut instances = vec![];
    for (name, count) in counts {
        match short_name(&found.device, name) {
            Ok(short) => {
                let exact = found.device.mig.as_ref().and_then(|t| {
                    t.profiles
                        .iter()
                        .find(|p| p.name == short)
                        .map(|p| instance_name(&found.device, p))
                });
                if let Some(exact) = exact.filter(|e| e != name) {
                    let what = format!(
                        "`{name}` is not a name that this board's driver prints; taken as {exact}: \
                         names follow the memory that the driver reports"
                    );
                    found.tell(Weight::Note, path, line_of(text, &[name]), &field, what);
                }
                instances.extend((0..*count).map(|_| short.clone()));
            }
            Err(why) => return error("mig-devices", why),
        }
    }
    // As mig-parted does: by size, the largest first.
    let table = found.device.mig.clone();
    let rank = |name: &String| {
        let profile = table.as_ref().and_then(|t| t.profiles.iter().find(|p| p.name == *name));
        std::cmp::Reverse(profile.map_or((0, 0), |p| (p.compute, p.memory)))
    };
    instances.sort_by_key(rank);
    if let Some(table) = &table {
        let names: Vec<&str> = instances.iter().map(String::as_str).collect();
        if let Err(why) = table.placements(&names) {
            let what = format!("{why}; mig-parted would try every order and leave the GPU empty");
            found.tell(Weight::Illegal, path, line, &format!("{field}.mig-devices"), what);
        }
    }
    found.tell(
        Weight::Note,
        path,
        line,
        &field,
        "applying it destroys every instance of the GPU first, unless these very counts exist already: \
         all tenants of the GPU stop",
    );
    found.shared_by(Mechanism::Mig);
    for gpu in gpus {
        found.layouts.insert(gpu, instances.clone());
    }
    Ok(())
}
