//! Workloads of ours for Kubernetes, as every way of asking for a GPU writes them: a Deployment with one
//! pod per worker, annotated with what the formats cannot say.

use serde_json::{Map, Value as Json, json};

use crate::plan::{File, Placed, Plan, Sharing};
use crate::yaml;

/// What a container is started with, to be replaced by the user's own.
const IMAGE: &str = "registry.example/replace-me:1";

/// Several documents as one file.
pub(crate) fn documents(plan: &Plan, path: &str, head: &str, all: &[Json]) -> Result<File, String> {
    let texts: Result<Vec<String>, String> = all.iter().map(yaml::text).collect();
    Ok(plan.file(path, &(head.to_owned() + &texts?.join("---\n"))))
}

/// What our annotations say of a tenant.
pub(crate) fn annotations(placed: &Placed<'_>) -> Map<String, Json> {
    let mut map = Map::new();
    map.insert("cotenant/tenant".to_owned(), json!(placed.tenant.name));
    map.insert("cotenant/gpu".to_owned(), json!(placed.index.to_string()));
    map.insert("cotenant/batch".to_owned(), json!(placed.tenant.batch_max.to_string()));
    if placed.tenant.batch_timeout.0 > 0 {
        let wait = placed.tenant.batch_timeout.to_string();
        map.insert("cotenant/batch-timeout".to_owned(), json!(wait));
    }
    if placed.tenant.requests < 1.0 {
        map.insert("cotenant/requests".to_owned(), json!(placed.tenant.requests.to_string()));
    }
    if let Sharing::Mig { place, .. } = &placed.gpu.sharing
        && let Some(slot) = place.get(placed.i)
    {
        map.insert("cotenant/instance".to_owned(), json!(slot.to_string()));
    }
    map
}

/// A container with the environment that its sharing needs.
pub(crate) fn container(placed: &Placed<'_>) -> Map<String, Json> {
    let mut map = Map::new();
    map.insert("name".to_owned(), json!(placed.name));
    map.insert("image".to_owned(), json!(IMAGE));
    let percent = match &placed.gpu.sharing {
        Sharing::Mps { percent } | Sharing::Mig { percent, .. } => percent.get(placed.i).copied(),
        _ => None,
    };
    if let Some(percent) = percent.filter(|&p| p < 100) {
        let env =
            json!([{"name": "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE", "value": percent.to_string()}]);
        map.insert("env".to_owned(), env);
    }
    map
}

/// A Deployment with one pod per worker.
pub(crate) fn deployment(
    placed: &Placed<'_>,
    annotations: Map<String, Json>,
    container: Map<String, Json>,
    mut pod: Map<String, Json>,
) -> Json {
    pod.insert("containers".to_owned(), json!([container]));
    let labels = json!({"app": placed.name});
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": placed.name, "annotations": annotations.clone()},
        "spec": {
            "replicas": placed.tenant.workers,
            "selector": {"matchLabels": labels.clone()},
            "template": {
                "metadata": {"labels": labels, "annotations": annotations},
                "spec": pod,
            },
        },
    })
}
