//! Kubernetes workloads: Deployments for the device plugin, and for the schedulers KAI and HAMi.
//!
//! What the real things do without a word. KAI (docs/gpu-sharing, commit d5bc503): a fraction is of
//! memory and only decides placement; nothing limits memory or compute. HAMi (commit 4707fb0): memory
//! is limited by hooked allocation; `gpucores` is a token bucket refilled every 120 ms that counts grid
//! blocks, no bound on CUs. Names of MIG resources follow the plugin's mixed strategy, with `.` for
//! `+`. Deployments of ours carry annotations `cotenant/…`, so that what the formats cannot say (the GPU,
//! the instance, the tenant's full name) is not lost when they are read again.

use serde_json::{Map, Value as Json, json};
use serde_yaml_ng::Value;

use cotenant_profiles::Bytes;

use crate::board::short_name;
use crate::dra::{self, Claims};
use crate::finding::{ReadError, Weight, line_of};
use crate::found::{Found, Mechanism};
use crate::mig_parted::long_name;
use crate::plan::{Emitted, Placed, Plan, Sharing};
use crate::workload::{annotations, container, deployment, documents};
use crate::yaml;

pub(crate) fn emit(plan: &Plan) -> Result<Emitted, String> {
    let mut workloads = vec![];
    let (mut kai, mut hami) = (vec![], vec![]);
    for placed in plan.all() {
        let resource = match &placed.gpu.sharing {
            Sharing::TimeSlicing { .. } => "nvidia.com/gpu".to_owned(),
            Sharing::Mps { percent } => {
                let clients: u32 = placed.gpu.tenants.iter().map(|t| t.workers).sum();
                if clients > 1 && percent.iter().any(|&p| p != 100 / clients) {
                    return Ok(Emitted::Nothing);
                }
                "nvidia.com/gpu".to_owned()
            }
            Sharing::Mig { instances, place, .. } => {
                if place.len() > instances.len() {
                    return Ok(Emitted::Nothing);
                }
                let name = long_name(plan, &instances[place[placed.i]])?;
                format!("nvidia.com/mig-{}", name.replace('+', "."))
            }
            Sharing::Static { .. } | Sharing::Streams => return Ok(Emitted::Nothing),
        };
        let mut container = container(&placed);
        container.insert("resources".to_owned(), json!({"limits": {resource: 1}}));
        workloads.push(deployment(&placed, annotations(&placed), container, Map::new()));
        if matches!(placed.gpu.sharing, Sharing::TimeSlicing { .. }) {
            kai.push(kai_workload(plan, &placed));
            hami.push(hami_workload(&placed));
        }
    }
    let mut files =
        vec![documents(plan, "kubernetes.yaml", "# Needs device-plugin.yaml.\n", &workloads)?];
    if !kai.is_empty() && plan.gpus.iter().all(|g| g.tenants.len() > 1) {
        let head = "# KAI places by memory fraction and limits nothing: global.gpuSharing=true is needed.\n";
        files.push(documents(plan, "kai.yaml", head, &kai)?);
        let head = "# HAMi limits memory; without gpucores compute is time-sliced by the driver.\n";
        files.push(documents(plan, "hami.yaml", head, &hami)?);
    }
    Ok(Emitted::Files(files))
}

fn kai_workload(plan: &Plan, placed: &Placed<'_>) -> Json {
    let mut notes = annotations(placed);
    let share = placed.tenant.memory.0 as f64 / plan.device.memory.capacity.0.max(1) as f64;
    // Rounded up to a hundredth: a smaller fraction than the model needs would be a wrong placement.
    let fraction = ((share * 100.0).ceil() / 100.0).clamp(0.01, 1.0);
    notes.insert("gpu-fraction".to_owned(), json!(fraction.to_string()));
    let pod = Map::from_iter([("schedulerName".to_owned(), json!("kai-scheduler"))]);
    deployment(placed, notes, container(placed), pod)
}

fn hami_workload(placed: &Placed<'_>) -> Json {
    let mib = placed.tenant.memory.0.div_ceil(1 << 20);
    let mut container = container(placed);
    let limits = json!({"nvidia.com/gpu": 1, "nvidia.com/gpumem": mib});
    container.insert("resources".to_owned(), json!({"limits": limits}));
    deployment(placed, annotations(placed), container, Map::new())
}

pub(crate) fn recognises(path: &str, text: &str) -> bool {
    let named = [".yaml", ".yml", ".json"].iter().any(|end| path.ends_with(end));
    named || text.lines().any(|l| l.starts_with("apiVersion:"))
}

/// Reads every document of a file.
pub(crate) fn read(path: &str, text: &str, found: &mut Found) -> Result<(), ReadError> {
    let documents = yaml::documents(path, text)?;
    let mut known = 0;
    // Claims first: pods refer to them.
    let claims = dra::claims(path, text, &documents, found)?;
    for document in documents.iter().filter(|d| !d.is_null()) {
        known += usize::from(read_workload(path, text, document, &claims, found)?);
    }
    if known == 0 && claims.is_empty() {
        let what = "holds neither a workload with a container nor a claim of NVIDIA's DRA driver, nor \
                    is it of mig-parted or the device plugin";
        return Err(ReadError::new(path, None, "", what));
    }
    Ok(())
}

/// Reads one document; whether it is a workload.
fn read_workload(
    path: &str,
    text: &str,
    document: &Value,
    claims: &Claims,
    found: &mut Found,
) -> Result<bool, ReadError> {
    let Some(pod) = pod_of(document) else { return Ok(false) };
    let Some(spec) = yaml::at(pod, &["spec"]) else { return Ok(false) };
    let Some(name) = yaml::word(document, &["metadata", "name"]) else {
        let what = "is missing: it tells which tenant this is";
        return Err(ReadError::new(path, None, "metadata.name", what));
    };
    let line = line_of(text, &[&format!("name: {name}")]);
    let note = |key: &str| {
        yaml::word(pod, &["metadata", "annotations", key])
            .or_else(|| yaml::word(document, &["metadata", "annotations", key]))
    };
    let tenant = note("cotenant/tenant").unwrap_or_else(|| name.clone());
    let gpu = note("cotenant/gpu").and_then(|g| g.parse().ok());
    let replicas = yaml::at(document, &["spec", "replicas"]).and_then(Value::as_u64);
    let workload = Workload { path, line, name: &name, tenant: &tenant, gpu, slot: None };
    let slot: Option<usize> = note("cotenant/instance").and_then(|i| i.parse().ok());
    let workload = Workload { slot, ..workload };
    {
        let t = found.placed(&tenant, gpu, slot);
        t.processes = Some(replicas.unwrap_or(1) as u32);
        t.requests = note("cotenant/requests").and_then(|r| r.parse().ok()).or(t.requests);
        t.batch_max = note("cotenant/batch").and_then(|b| b.parse().ok()).or(t.batch_max);
        let wait = note("cotenant/batch-timeout").and_then(|b| b.parse().ok());
        t.batch_timeout = wait.or(t.batch_timeout);
        t.slot = slot.or(t.slot);
    }
    for container in yaml::list(spec, &["containers"]) {
        workload.container(container, found)?;
    }
    workload.kai(&note, found);
    workload.claims(spec, claims, found)?;
    Ok(true)
}

/// The pod of a workload: itself, or its template.
fn pod_of(document: &Value) -> Option<&Value> {
    match yaml::word(document, &["kind"])?.as_str() {
        "Pod" => Some(document),
        "Deployment" | "StatefulSet" | "DaemonSet" | "ReplicaSet" | "Job" => {
            yaml::at(document, &["spec", "template"])
        }
        _ => None,
    }
}

struct Workload<'a> {
    path: &'a str,
    line: Option<usize>,
    name: &'a str,
    tenant: &'a str,
    gpu: Option<u32>,
    slot: Option<usize>,
}

impl<'a> Workload<'a> {
    fn who(&self) -> (&'a str, Option<u32>, Option<usize>) {
        (self.tenant, self.gpu, self.slot)
    }

    fn tell(&self, weight: Weight, field: &str, what: impl Into<String>, found: &mut Found) {
        found.tell(weight, self.path, self.line, &format!("{}: {field}", self.name), what);
    }

    fn container(&self, container: &Value, found: &mut Found) -> Result<(), ReadError> {
        for env in yaml::list(container, &["env"]) {
            let (name, value) = (yaml::word(env, &["name"]), yaml::word(env, &["value"]));
            if let (Some(name), Some(value)) = (name, value) {
                self.env(&name, &value, found)?;
            }
        }
        for kind in ["limits", "requests"] {
            let resources = yaml::at(container, &["resources", kind]).and_then(Value::as_mapping);
            for (key, value) in resources.into_iter().flatten() {
                if let (Some(key), Some(value)) = (key.as_str(), yaml::scalar(value)) {
                    self.resource(key, &value, found)?;
                }
            }
        }
        Ok(())
    }

    fn env(&self, name: &str, value: &str, found: &mut Found) -> Result<(), ReadError> {
        crate::mps::variable(self.path, self.line, (name, value), self.who(), found)
    }

    fn resource(&self, key: &str, value: &str, found: &mut Found) -> Result<(), ReadError> {
        let number = || {
            value.parse::<u64>().map_err(|_| {
                let what = format!("`{value}` is not a whole number");
                ReadError::new(self.path, self.line, key, what)
            })
        };
        match key {
            "nvidia.com/gpu" | "nvidia.com/gpu.shared" => {
                if number()? > 1 {
                    let what = "asks for more than one: with sharing that is another share of the same \
                                kind, no larger one";
                    self.tell(Weight::Note, key, what, found);
                }
            }
            "nvidia.com/gpumem" => {
                found.shared_by(Mechanism::TimeSlicing);
                let limit = Bytes(number()? << 20);
                found.placed(self.tenant, self.gpu, self.slot).memory_limit = Some(limit);
            }
            "nvidia.com/gpucores" => {
                found.shared_by(Mechanism::TimeSlicing);
                let percent = number()?;
                let what = format!(
                    "{percent} % is a token bucket in the container's CUDA calls, refilled every 120 ms \
                     and blind to block sizes; it is not a bound on SMs and is checked as time slicing"
                );
                self.tell(Weight::Rounded, key, what, found);
            }
            _ => {
                let Some(name) = key.strip_prefix("nvidia.com/mig-") else { return Ok(()) };
                let name = name.strip_suffix(".shared").unwrap_or(name);
                let short = short_name(&found.device, name)
                    .map_err(|why| ReadError::new(self.path, self.line, key, why))?;
                found.shared_by(Mechanism::Mig);
                found.placed(self.tenant, self.gpu, self.slot).instance = Some(short);
            }
        }
        Ok(())
    }

    fn kai(&self, note: &dyn Fn(&str) -> Option<String>, found: &mut Found) {
        for key in ["gpu-fraction", "gpu-memory"] {
            let Some(value) = note(key) else { continue };
            found.shared_by(Mechanism::TimeSlicing);
            let what = format!(
                "`{value}` decides where the pod is placed; KAI limits neither memory nor compute"
            );
            self.tell(Weight::Note, key, what, found);
            let share = value.parse::<f64>().unwrap_or(f64::NAN);
            if key == "gpu-fraction" && !(share > 0.0 && share < 1.0) {
                self.tell(Weight::Illegal, key, format!("`{value}` is not between 0 and 1"), found);
            }
        }
    }

    fn claims(&self, spec: &Value, claims: &Claims, found: &mut Found) -> Result<(), ReadError> {
        for reference in yaml::list(spec, &["resourceClaims"]) {
            let named = ["resourceClaimName", "resourceClaimTemplateName"]
                .iter()
                .find_map(|k| yaml::word(reference, &[k]));
            let Some(claim) = named else { continue };
            let Some(facts) = claims.get(&claim) else {
                self.tell(
                    Weight::Note,
                    "resourceClaims",
                    format!("`{claim}` is in none of these files"),
                    found,
                );
                continue;
            };
            let local = yaml::word(reference, &["name"]).unwrap_or_default();
            let request = yaml::list(spec, &["containers"])
                .iter()
                .flat_map(|c| yaml::list(c, &["resources", "claims"]))
                .find(|c| yaml::word(c, &["name"]).as_deref() == Some(local.as_str()))
                .and_then(|c| yaml::word(c, &["request"]));
            facts.given(request.as_deref(), self.who(), found);
        }
        Ok(())
    }
}
