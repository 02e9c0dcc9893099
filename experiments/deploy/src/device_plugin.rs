//! NVIDIA's Kubernetes device plugin: `sharing.timeSlicing` and `sharing.mps`.
//!
//! Grammar: `api/config/v1` of k8s-device-plugin (commit 1b826ac). What it does without a word: shares
//! are equal, always; `rename` and `devices` are ignored with a warning in its log, since sharing is per
//! node and never per GPU; with both sharings given it uses MPS; MPS gives every client
//! `floor(100 / replicas)` percent and `floor(memory / replicas)`, and a client can only lower that.

use serde_yaml_ng::Value;

use cotenant_profiles::Bytes;

use crate::finding::{ReadError, Weight, line_of};
use crate::found::{Found, Mechanism};
use crate::plan::{Emitted, Plan, Sharing};
use crate::yaml;

/// Most clients of MPS on one GPU that the plugin allows, compute capability 7.5 and later.
const MPS_REPLICAS: u64 = 48;

pub(crate) fn emit(plan: &Plan) -> Result<Emitted, String> {
    let workers = |g: &crate::Gpu| g.tenants.iter().map(|t| t.workers).sum::<u32>();
    let Some(replicas) = plan.gpus.iter().map(workers).max() else { return Ok(Emitted::Nothing) };
    let Some(first) = plan.gpus.first() else { return Ok(Emitted::Nothing) };
    let all = |wanted: fn(&Sharing) -> bool| plan.gpus.iter().all(|g| wanted(&g.sharing));
    let mig = all(|s| matches!(s, Sharing::Mig { .. }));
    let slicing = all(|s| matches!(s, Sharing::TimeSlicing { .. }));
    let mut config =
        format!("version: v1\nflags:\n  migStrategy: {}\n", if mig { "mixed" } else { "none" });
    let single = replicas < 2;
    if mig {
        let shared = plan.gpus.iter().any(|g| match &g.sharing {
            Sharing::Mig { instances, .. } => {
                g.tenants.len() > instances.len() || workers(g) > instances.len() as u32
            }
            _ => false,
        });
        if shared {
            return Ok(Emitted::Cannot(
                "device-plugin.yaml: the plugin refuses MPS on a MIG instance; use dra.yaml or the \
                 scripts in mps/"
                    .to_owned(),
            ));
        }
        return Ok(Emitted::Files(vec![plan.file("device-plugin.yaml", &config)]));
    }
    let sharing = match &first.sharing {
        _ if single => return Ok(Emitted::Nothing),
        Sharing::TimeSlicing { .. } if slicing => "timeSlicing",
        Sharing::Mps { percent } => {
            let each = 100 / replicas;
            let equal = plan.gpus.len() == 1 && percent.iter().all(|&p| p == each);
            if !equal {
                return Ok(Emitted::Cannot(format!(
                    "device-plugin.yaml: with MPS the plugin gives every one of {replicas} clients \
                     {each} %, and a client can only lower that; use dra.yaml or the scripts in mps/"
                )));
            }
            "mps"
        }
        Sharing::Static { .. } => {
            return Ok(Emitted::Cannot(
                "device-plugin.yaml: the plugin knows no static partitions; use the scripts in mps/"
                    .to_owned(),
            ));
        }
        _ => return Ok(Emitted::Nothing),
    };
    config += &format!(
        "sharing:\n  {sharing}:\n    renameByDefault: false\n    failRequestsGreaterThanOne: true\n    \
         resources:\n    - name: nvidia.com/gpu\n      replicas: {replicas}\n"
    );
    let limit = "# Shares are equal per process: a pod with two processes gets two.\n";
    Ok(Emitted::Files(vec![plan.file("device-plugin.yaml", &(limit.to_owned() + &config))]))
}

pub(crate) fn recognises(_path: &str, text: &str) -> bool {
    let has = |key: &str| text.lines().any(|l| l.starts_with(key));
    (has("sharing:") || has("flags:")) && !has("apiVersion:") && !has("kind:")
}

pub(crate) fn read(path: &str, text: &str, found: &mut Found) -> Result<(), ReadError> {
    let value: Value = yaml::typed(path, text)?;
    let at = |keys: &[&str]| line_of(text, keys);
    if let Some(version) = yaml::word(&value, &["version"]).filter(|v| v != "v1") {
        let what = format!("`{version}`: the plugin knows only version v1");
        return Err(ReadError::new(path, at(&["version"]), "version", what));
    }
    let strategy =
        yaml::word(&value, &["flags", "migStrategy"]).unwrap_or_else(|| "none".to_owned());
    let given = |kind: &str| yaml::at(&value, &["sharing", kind]).filter(|v| !v.is_null());
    let (slicing, mps) = (given("timeSlicing"), given("mps"));
    if let Some(keys) = yaml::at(&value, &["sharing"]).and_then(Value::as_mapping) {
        let known = |key: &&str| matches!(*key, "timeSlicing" | "mps");
        if let Some(key) = keys.keys().filter_map(Value::as_str).find(|k| !known(k)) {
            let what =
                format!("unknown: the plugin shares by `timeSlicing` or `mps`, not by `{key}`");
            return Err(ReadError::new(
                path,
                at(&["sharing", key]),
                format!("sharing.{key}"),
                what,
            ));
        }
    }
    if slicing.is_some() && mps.is_some() {
        found.tell(
            Weight::Ignored,
            path,
            at(&["sharing", "timeSlicing"]),
            "sharing.timeSlicing",
            "is set beside `sharing.mps`: documented as exclusive, and the plugin uses mps",
        );
    }
    let (name, sharing) = match (mps, slicing) {
        (Some(mps), _) => ("mps", mps),
        (None, Some(slicing)) => ("timeSlicing", slicing),
        (None, None) => {
            if strategy == "mixed" || strategy == "single" {
                found.shared_by(Mechanism::Mig);
            }
            return Ok(());
        }
    };
    let field = format!("sharing.{name}");
    if name == "mps" && strategy == "mixed" {
        let what = "MPS goes with no MIG strategy but none: the plugin does not start";
        found.tell(Weight::Illegal, path, at(&["flags", "migStrategy"]), "flags.migStrategy", what);
    }
    let resources = yaml::list(sharing, &["resources"]);
    if resources.is_empty() {
        let what = "is missing or empty: the plugin refuses the file";
        return Err(ReadError::new(
            path,
            at(&["sharing", name]),
            format!("{field}.resources"),
            what,
        ));
    }
    for (i, resource) in resources.iter().enumerate() {
        let field = format!("{field}.resources[{i}]");
        for key in ["rename", "devices"].into_iter().filter(|k| resource.get(*k).is_some()) {
            let what = "the plugin ignores it with a warning in its log: sharing is per node, never per GPU";
            let line = at(&["sharing", name, "resources", key]);
            found.tell(Weight::Ignored, path, line, &format!("{field}.{key}"), what);
        }
        let line = at(&["sharing", name, "resources", "replicas"]);
        let replicas = yaml::at(resource, &["replicas"]).and_then(Value::as_u64);
        let Some(replicas) = replicas.filter(|n| *n >= 2) else {
            let what = "is required and at least 2";
            return Err(ReadError::new(path, line, format!("{field}.replicas"), what));
        };
        let resource = yaml::word(resource, &["name"]).unwrap_or_default();
        if resource.contains("/mig-") && name == "mps" {
            let what = "the plugin refuses MPS on MIG devices";
            found.tell(Weight::Illegal, path, line, &field, what);
        }
        if name == "mps" {
            mps_limits(path, line, &field, replicas, found);
        } else {
            found.shared_by(Mechanism::TimeSlicing);
        }
        found.replicas = Some(replicas as u32);
    }
    if name == "timeSlicing"
        && yaml::word(sharing, &["failRequestsGreaterThanOne"]).is_none_or(|v| v == "false")
    {
        let what = "a pod that asks for 2 gets no more time than one that asks for 1; \
                    failRequestsGreaterThanOne: true refuses it";
        found.tell(Weight::Note, path, at(&["sharing", name]), "sharing.timeSlicing", what);
    }
    Ok(())
}

fn mps_limits(path: &str, line: Option<usize>, field: &str, replicas: u64, found: &mut Found) {
    found.shared_by(Mechanism::Mps);
    if replicas > MPS_REPLICAS {
        let what = format!("{replicas} clients: the plugin allows {MPS_REPLICAS}");
        found.tell(Weight::Illegal, path, line, field, what);
    }
    let percent = (100 / replicas).max(1) as u32;
    let limit = Bytes((found.device.memory.capacity.0 / replicas) >> 20 << 20);
    let what = format!(
        "every client gets {percent} % ({} of {} SMs) and at most {limit}, whatever it needs, and can \
         only lower that",
        found.device.mps_cus(f64::from(percent)),
        found.device.cus()
    );
    found.tell(Weight::Rounded, path, line, &format!("{field}.replicas"), what);
    found.default_percent = Some(percent);
    found.default_limit = Some(limit);
}
