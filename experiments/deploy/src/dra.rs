//! NVIDIA's driver for dynamic resource allocation: claims of GPUs and instances, with `GpuConfig`.
//!
//! Grammar: API `resource.nvidia.com/v1beta1` (dra-driver-nvidia-gpu, commit 9593204) inside claims of
//! `resource.k8s.io/v1`. What it does without a word: strategies need the feature gates
//! `TimeSlicingSettings`, `MPSSupport` and `DynamicMIG`, all off by default (naming a strategy without
//! its gate is an error); a memory limit is rounded down to whole MiB; `MigDeviceConfig` has no
//! parameters for time slicing. Pods share a GPU by naming the same claim: a template would give each
//! its own.

use std::collections::BTreeMap;

use serde_json::{Map, Value as Json, json};
use serde_yaml_ng::Value;

use crate::board::short_name;
use crate::finding::{ReadError, Weight, line_of};
use crate::found::{Found, Mechanism};
use crate::mig_parted::long_name;
use crate::plan::{Emitted, Gpu, Plan, Sharing, TimeSlice};
use crate::workload::{annotations, container, deployment, documents};
use crate::yaml;

const DRIVER: &str = "gpu.nvidia.com";
const API: &str = "resource.nvidia.com/v1beta1";

pub(crate) fn emit(plan: &Plan) -> Result<Emitted, String> {
    let mut all = vec![];
    for (index, gpu) in plan.gpus.iter().enumerate() {
        match &gpu.sharing {
            Sharing::Static { .. } => {
                return Ok(Emitted::Cannot(
                    "dra.yaml: `mpsConfig` knows no static partitions; use the scripts in mps/"
                        .to_owned(),
                ));
            }
            Sharing::Streams => return Ok(Emitted::Nothing),
            _ => all.push(claim(plan, index, gpu)?),
        }
    }
    for placed in plan.all() {
        let mut container = container(&placed);
        let mut use_of = Map::from_iter([("name".to_owned(), json!("gpu"))]);
        if let Sharing::Mig { place, .. } = &placed.gpu.sharing {
            use_of.insert("request".to_owned(), json!(request_name(place[placed.i])));
        }
        container.insert("resources".to_owned(), json!({"claims": [use_of]}));
        let reference = json!([{"name": "gpu", "resourceClaimName": claim_name(placed.index)}]);
        let pod = Map::from_iter([("resourceClaims".to_owned(), reference)]);
        all.push(deployment(&placed, annotations(&placed), container, pod));
    }
    let head = "# Needs the DRA driver with the feature gates TimeSlicingSettings, MPSSupport and \
                DynamicMIG, as used.\n";
    Ok(Emitted::Files(vec![documents(plan, "dra.yaml", head, &all)?]))
}

fn claim_name(index: usize) -> String {
    format!("gpu{index}")
}

fn request_name(slot: usize) -> String {
    format!("slot{slot}")
}

fn claim(plan: &Plan, index: usize, gpu: &Gpu) -> Result<Json, String> {
    let mut devices = Map::new();
    if let Sharing::Mig { instances, place, percent } = &gpu.sharing {
        let mut requests = vec![];
        for (slot, name) in instances.iter().enumerate() {
            let name = long_name(plan, name)?;
            let expression = format!("device.attributes['{DRIVER}'].profile == '{name}'");
            requests.push(json!({
                "name": request_name(slot),
                "exactly": {
                    "deviceClassName": "mig.nvidia.com",
                    "selectors": [{"cel": {"expression": expression}}],
                },
            }));
        }
        devices.insert("requests".to_owned(), json!(requests));
        if instances.len() > 1 {
            let same = json!([{"matchAttribute": format!("{DRIVER}/parentUUID")}]);
            devices.insert("constraints".to_owned(), same);
        }
        // MPS in every instance that several processes share.
        let mut shared = vec![];
        for slot in 0..instances.len() {
            let here = || (0..place.len()).filter(|&i| place[i] == slot);
            if here().map(|i| gpu.tenants[i].workers).sum::<u32>() > 1 {
                let most = here().map(|i| percent[i]).max().unwrap_or(100);
                shared.push(mps(&[request_name(slot)], "MigDeviceConfig", Some(most)));
            }
        }
        if !shared.is_empty() {
            devices.insert("config".to_owned(), json!(shared));
        }
    } else {
        devices.insert(
            "requests".to_owned(),
            json!([{"name": "gpu", "exactly": {"deviceClassName": DRIVER}}]),
        );
        let all = ["gpu".to_owned()];
        let shared = match &gpu.sharing {
            Sharing::Mps { percent } => mps(&all, "GpuConfig", percent.iter().max().copied()),
            Sharing::TimeSlicing { slice } => slicing(&all, *slice),
            _ => slicing(&all, TimeSlice::Default),
        };
        devices.insert("config".to_owned(), json!([shared]));
    }
    Ok(json!({
        "apiVersion": "resource.k8s.io/v1",
        "kind": "ResourceClaim",
        "metadata": {"name": claim_name(index)},
        "spec": {"devices": devices},
    }))
}

fn slicing(requests: &[String], slice: TimeSlice) -> Json {
    let interval = json!({"interval": slice.name()});
    config(
        requests,
        "GpuConfig",
        &json!({"strategy": "TimeSlicing", "timeSlicingConfig": interval}),
    )
}

fn mps(requests: &[String], kind: &str, percent: Option<u32>) -> Json {
    let mut sharing = Map::from_iter([("strategy".to_owned(), json!("MPS"))]);
    if let Some(percent) = percent {
        let mps = json!({"defaultActiveThreadPercentage": percent});
        sharing.insert("mpsConfig".to_owned(), mps);
    }
    config(requests, kind, &sharing.into())
}

fn config(requests: &[String], kind: &str, sharing: &Json) -> Json {
    json!({
        "requests": requests,
        "opaque": {
            "driver": DRIVER,
            "parameters": {"apiVersion": API, "kind": kind, "sharing": sharing},
        },
    })
}

/// Claims by name.
pub(crate) type Claims = BTreeMap<String, Claim>;

/// What a claim gives whoever uses it.
#[derive(Debug, Default)]
pub(crate) struct Claim {
    /// Instance profile by request; `None`: a whole GPU.
    requests: Vec<(String, Option<String>)>,
    /// Strategy and percentage, and the requests that they are for (none: all).
    configs: Vec<(Vec<String>, Mechanism, Option<u32>)>,
}

impl Claim {
    /// What a tenant gets that uses one of the requests (all, where it names none).
    pub(crate) fn given(
        &self,
        request: Option<&str>,
        (tenant, gpu, slot): (&str, Option<u32>, Option<usize>),
        found: &mut Found,
    ) {
        for (name, instance) in self.requests.iter().filter(|(n, _)| request.is_none_or(|r| r == n))
        {
            if let Some(instance) = instance {
                found.shared_by(Mechanism::Mig);
                found.placed(tenant, gpu, slot).instance = Some(instance.clone());
            }
            let configs = self.configs.iter().filter(|(of, ..)| of.is_empty() || of.contains(name));
            for (_, mechanism, percent) in configs {
                found.shared_by(*mechanism);
                let t = found.placed(tenant, gpu, slot);
                if let Some(p) = percent {
                    t.percent = Some(t.percent.map_or(*p, |own| own.min(*p)));
                }
            }
        }
    }
}

/// The claims among the documents of a file.
pub(crate) fn claims(
    path: &str,
    text: &str,
    documents: &[Value],
    found: &mut Found,
) -> Result<Claims, ReadError> {
    let mut claims = Claims::new();
    for document in documents {
        let devices = match yaml::word(document, &["kind"]).as_deref() {
            Some("ResourceClaim") => yaml::at(document, &["spec", "devices"]),
            Some("ResourceClaimTemplate") => {
                found.tell(
                    Weight::Note,
                    path,
                    line_of(text, &["kind: ResourceClaimTemplate"]),
                    "kind",
                    "a template makes a claim for every pod: pods that are to share a GPU name one \
                     ResourceClaim",
                );
                yaml::at(document, &["spec", "spec", "devices"])
            }
            _ => continue,
        };
        let (Some(devices), Some(name)) = (devices, yaml::word(document, &["metadata", "name"]))
        else {
            return Err(ReadError::new(
                path,
                None,
                "spec.devices",
                "a claim without name or devices",
            ));
        };
        claims.insert(name, claim_of(path, text, devices, found)?);
    }
    Ok(claims)
}

fn claim_of(
    path: &str,
    text: &str,
    devices: &Value,
    found: &mut Found,
) -> Result<Claim, ReadError> {
    let mut claim = Claim::default();
    for request in yaml::list(devices, &["requests"]) {
        let name = yaml::word(request, &["name"]).unwrap_or_default();
        // `exactly` since resource.k8s.io/v1beta2.
        let exact = yaml::at(request, &["exactly"]).unwrap_or(request);
        let mut instance = None;
        for selector in yaml::list(exact, &["selectors"]) {
            let cel = yaml::word(selector, &["cel", "expression"]).unwrap_or_default();
            let Some((_, rest)) = cel.split_once(".profile") else { continue };
            let Some(wanted) = rest.split(['\'', '"']).nth(1) else { continue };
            let line = line_of(text, &["requests", "expression"]);
            let short = short_name(&found.device, wanted)
                .map_err(|why| ReadError::new(path, line, "selectors.cel.expression", why))?;
            instance = Some(short);
        }
        claim.requests.push((name, instance));
    }
    for config in yaml::list(devices, &["config"]) {
        if yaml::word(config, &["opaque", "driver"]).as_deref() != Some(DRIVER) {
            continue;
        }
        let Some(parameters) = yaml::at(config, &["opaque", "parameters"]) else { continue };
        let of = yaml::list(config, &["requests"]).iter().filter_map(yaml::scalar).collect();
        if let Some((mechanism, percent)) = sharing(path, text, parameters, found)? {
            claim.configs.push((of, mechanism, percent));
        }
    }
    Ok(claim)
}

fn sharing(
    path: &str,
    text: &str,
    parameters: &Value,
    found: &mut Found,
) -> Result<Option<(Mechanism, Option<u32>)>, ReadError> {
    let at = |key: &str| line_of(text, &["opaque", key]);
    let error = |key: &str, what: String| {
        Err(ReadError::new(path, at(key), format!("sharing.{key}"), what))
    };
    let kind = yaml::word(parameters, &["kind"]).unwrap_or_default();
    let Some(sharing) = yaml::at(parameters, &["sharing"]) else { return Ok(None) };
    let strategy = yaml::word(sharing, &["strategy"]).unwrap_or_default();
    let (mps, slicing) = (sharing.get("mpsConfig"), sharing.get("timeSlicingConfig"));
    let gate = match strategy.as_str() {
        "MPS" if slicing.is_some() => {
            return error(
                "timeSlicingConfig",
                "is set beside the strategy MPS: the driver refuses it".to_owned(),
            );
        }
        "TimeSlicing" if mps.is_some() => {
            return error(
                "mpsConfig",
                "is set beside the strategy TimeSlicing: the driver refuses it".to_owned(),
            );
        }
        "MPS" => "MPSSupport",
        "TimeSlicing" => "TimeSlicingSettings",
        other => return error("strategy", format!("`{other}` is neither TimeSlicing nor MPS")),
    };
    let what = format!("needs the feature gate {gate}, which is off by default");
    found.tell(Weight::Note, path, at("strategy"), "sharing.strategy", what);
    if strategy == "TimeSlicing" {
        if kind == "MigDeviceConfig" && slicing.is_some() {
            let what = "instances have no parameters for time slicing".to_owned();
            return error("timeSlicingConfig", what);
        }
        let interval = slicing.and_then(|s| yaml::word(s, &["interval"]));
        if let Some(interval) = interval {
            let Some(slice) = TimeSlice::named(&interval) else {
                return error(
                    "interval",
                    format!("`{interval}` is none of Default, Short, Medium, Long"),
                );
            };
            if let Some(other) = found.slice.filter(|other| *other != slice) {
                let what = format!(
                    "{interval} here and {} in another claim: taken as {interval} everywhere",
                    other.name()
                );
                found.tell(Weight::Note, path, at("interval"), "sharing.interval", what);
            }
            found.slice = Some(slice);
            if slice != TimeSlice::Default {
                let what = format!(
                    "NVIDIA does not publish how long {interval} is: simulated as the policy \
                     `temporal` has it (`cotenant policies temporal`)"
                );
                found.tell(Weight::Note, path, at("interval"), "sharing.interval", what);
            }
        }
        return Ok(Some((Mechanism::TimeSlicing, None)));
    }
    let percent = mps.and_then(|m| m.get("defaultActiveThreadPercentage"));
    let percent = percent.map(|p| p.as_u64().filter(|p| *p <= 100).ok_or(p));
    let percent = match percent.transpose() {
        Ok(percent) => percent.map(|p| p as u32).filter(|p| *p > 0),
        Err(_) => {
            let what = "is not a whole number from 0 to 100".to_owned();
            return error("defaultActiveThreadPercentage", what);
        }
    };
    if let Some(percent) = percent {
        let line = at("defaultActiveThreadPercentage");
        found.percent_told(percent, path, line, "mpsConfig.defaultActiveThreadPercentage");
    }
    let mechanism = if kind == "MigDeviceConfig" { Mechanism::Mig } else { Mechanism::Mps };
    Ok(Some((mechanism, percent)))
}
