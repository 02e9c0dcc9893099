//! `[[tenant]]` tables.

use std::sync::LazyLock;

use cotenant_profiles::lower::{Config, Precision, operators};
use cotenant_profiles::tune::Trials;
use cotenant_profiles::{Device, Executor, Nanos, zoo};
use cotenant_sim::Class;
use cotenant_sim::engine::KvSize;
use cotenant_sim::scenario::{DropAfter, TokenGoals};
use cotenant_traces::{ArrivalSpec, Closed};

use super::check::Checker;
use super::engine::{self, EngineConfig};
use super::expand_variables;
use super::file::{
    ClassName, DropFile, DropName, GpuFile, MEMORY_FRACTION, SloFile, TenantFile, TuneFile,
    tenant_schema,
};
use super::tree::{Data, Flaw, Node, join};

/// One tenant, checked as far as that goes without opening files.
#[derive(Clone, Debug)]
pub(crate) struct TenantConfig {
    pub(crate) name: String,
    /// Its place in the file, from 0.
    pub(crate) place: usize,
    pub(crate) model: String,
    /// `file:line: field` of the model, for what turns out later.
    pub(crate) model_at: String,
    pub(crate) arrivals: ArrivalSpec,
    /// As written.
    pub(crate) arrivals_text: String,
    pub(crate) arrivals_at: String,
    pub(crate) slo: Option<Slo>,
    pub(crate) class: Class,
    pub(crate) workers: u32,
    pub(crate) batch_max: u32,
    pub(crate) batch_timeout: Nanos,
    /// Every request is a batch of its own.
    pub(crate) per_request_batches: bool,
    /// Which waiting requests are dropped.
    pub(crate) drop_after: Option<DropAfter>,
    /// For analytic profiles; the device's default where the file does not say.
    pub(crate) precision: Precision,
    /// The file says so.
    pub(crate) precision_given: bool,
    /// What the host pays per launch; `None`: as the profile says, and an analytic one by `fused`.
    pub(crate) executor: Option<Executor>,
    /// For analytic profiles.
    pub(crate) fused: bool,
    /// Kernels as a tuner picks them at this percentage of the CUs; `None`: as a library does.
    pub(crate) tuned_at: Option<f64>,
    pub(crate) part: Part,
    /// The GPUs that it lives on, in ascending order; `None`: all.
    pub(crate) gpus: Option<Vec<u32>>,
    /// It generates tokens.
    pub(crate) engine: Option<EngineConfig>,
}

/// What of the model is run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Whole,
    /// One operator.
    Operator(String),
    /// The trials of tuning one operator at a batch size.
    Tuning {
        operator: String,
        batch: u32,
        trials: Trials,
    },
}

/// A latency objective.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Slo {
    /// From a request's arrival.
    Absolute(Nanos),
    /// A multiple of the isolated p95.
    Isolated(f64),
    /// Of a tenant that generates tokens.
    Tokens(TokenGoals),
}

impl Slo {
    /// As reports word it.
    pub(crate) fn words(self) -> String {
        match self {
            Self::Absolute(limit) => limit.to_string(),
            Self::Isolated(factor) => format!("{factor} × isolated p95"),
            Self::Tokens(TokenGoals { ttft, tpot }) => {
                format!("first token {ttft}, then {tpot} per token")
            }
        }
    }
}

/// Clients whose requests are dropped ask again: more often than this is a typo, and a run without end.
const LEAST_PATIENCE: Nanos = Nanos::from_micros(1);

static SCHEMA: LazyLock<Checker> = LazyLock::new(|| Checker::new(tenant_schema()));

/// Unit of the plain numbers of a field, by its path in a `[[tenant]]` table.
pub(super) fn unit(path: &[&str]) -> Option<String> {
    SCHEMA.unit(path)
}

/// Whether a `[[tenant]]` table may have such a key.
pub(crate) fn has_key(key: &str) -> bool {
    SCHEMA.keys().iter().any(|known| known == key)
}

/// Checks every tenant. One that is to be tuned becomes one tenant per operator. Without a device,
/// whose absence has been told already, such a tenant stays one.
pub(crate) fn rows(
    root: &Node,
    device: Option<&Device>,
    flaws: &mut Vec<Flaw>,
) -> Vec<TenantConfig> {
    let Some(entry) = root.get("tenant") else {
        let why = "is missing; an experiment needs a [[tenant]] table with name, model, arrivals";
        flaws.push(Flaw::new(&root.place, "tenant", why));
        return vec![];
    };
    let Data::List(nodes) = &entry.node.data else {
        flaws.push(Flaw::new(&entry.place, "tenant", "is not a list; write [[tenant]]"));
        return vec![];
    };
    if nodes.is_empty() {
        flaws.push(Flaw::new(&entry.place, "tenant", "is empty; give at least one tenant"));
    }
    let mut rows: Vec<TenantConfig> = vec![];
    for (i, node) in nodes.iter().enumerate() {
        for tenant in table(node, i, device, flaws) {
            if rows.iter().any(|t| t.name == tenant.name) {
                let why = format!("two tenants are called `{}`", tenant.name);
                flaws.push(Flaw::new(&node.place, format!("tenant[{i}].name"), why));
            } else {
                rows.push(TenantConfig { place: rows.len(), ..tenant });
            }
        }
    }
    rows
}

/// The tenants of one table; none where something is wrong with it.
fn table(
    node: &Node,
    index: usize,
    device: Option<&Device>,
    flaws: &mut Vec<Flaw>,
) -> Vec<TenantConfig> {
    let name = node.get("name").and_then(|e| e.node.text());
    let path = name.map_or_else(|| format!("tenant[{index}]"), |n| format!("tenant.{n}"));
    let before = flaws.len();
    SCHEMA.check(node, &path, &[], flaws);
    if flaws.len() > before {
        return vec![];
    }
    let read = serde_json::from_value::<TenantFile>(node.json());
    let made = read.map_err(|e| Flaw::new(&node.place, &path, e.to_string()));
    let made = made.and_then(|file| {
        let table = Table { node, path: &path };
        let tenant = table.tenant(&file, device)?;
        table.tuned(tenant, file.tune.as_ref(), device)
    });
    made.unwrap_or_else(|flaw| {
        flaws.push(flaw);
        vec![]
    })
}

/// A table whose keys and types are right.
struct Table<'a> {
    node: &'a Node,
    path: &'a str,
}

impl Table<'_> {
    /// Something is wrong with `key`, whose place is the table's if it is absent.
    fn flaw(&self, key: &str, why: impl Into<String>) -> Flaw {
        let place = self.node.get(key).map_or(&self.node.place, |e| &e.node.place);
        Flaw::new(place, join(self.path, key), why)
    }

    fn at(&self, key: &str) -> String {
        self.flaw(key, "").to_string().trim_end_matches(": ").to_owned()
    }

    fn tenant(&self, file: &TenantFile, device: Option<&Device>) -> Result<TenantConfig, Flaw> {
        let name = &file.name;
        let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
        if name.is_empty() || name.len() > 60 || !name.chars().all(legal) || name == "each" {
            let why = format!(
                "`{name}` is not a valid name: use 1 to 60 letters, digits, - and _, and not `each`"
            );
            return Err(self.flaw("name", why));
        }
        let engine = self.engine(file, device)?;
        let (arrivals, arrivals_text) = self.arrivals(file)?;
        let batch = file.batch.as_ref();
        let precision = match &file.precision {
            Some(name) => name.parse().map_err(|e| self.flaw("precision", format!("{e}")))?,
            None => device.map_or_else(Precision::default, Device::default_precision),
        };
        if let (Some(device), true) = (device, file.precision.is_some()) {
            precision.check(device).map_err(|e| self.flaw("precision", e.to_string()))?;
        }
        let executor =
            Executor::ALL.into_iter().find(|e| Some(e.name()) == file.executor.as_deref());
        Ok(TenantConfig {
            name: name.clone(),
            place: 0,
            model: file.model.clone(),
            model_at: self.at("model"),
            arrivals,
            arrivals_text,
            arrivals_at: self.at("arrivals"),
            slo: self.slo(file)?,
            class: match file.class {
                ClassName::Latency => Class::Latency,
                ClassName::BestEffort => Class::BestEffort,
            },
            workers: file.workers,
            batch_max: engine.map_or(batch.map_or(1, |b| b.max), |e| e.max_seqs),
            batch_timeout: batch.and_then(|b| b.timeout).map_or(Nanos::ZERO, |t| t.0),
            per_request_batches: file.per_request_batches,
            drop_after: self.drop_after(file)?,
            precision,
            precision_given: file.precision.is_some(),
            executor,
            fused: file.fused,
            tuned_at: file.tuned_at,
            part: file.operator.clone().map_or(Part::Whole, Part::Operator),
            gpus: self.gpus(file)?,
            engine,
        })
    }

    fn gpus(&self, file: &TenantFile) -> Result<Option<Vec<u32>>, Flaw> {
        let mut list = match &file.gpu {
            None => return Ok(None),
            Some(GpuFile::One(gpu)) => vec![*gpu],
            Some(GpuFile::Several(list)) => list.clone(),
        };
        let given = list.len();
        list.sort_unstable();
        list.dedup();
        match (list.is_empty(), list.len() < given) {
            (true, _) => Err(self.flaw("gpu", "is empty; name a GPU, or leave it out for all")),
            (_, true) => Err(self.flaw("gpu", "names a GPU twice")),
            _ => Ok(Some(list)),
        }
    }

    /// The engine of a generating tenant: what the file does not say is as vLLM has it.
    fn engine(
        &self,
        file: &TenantFile,
        device: Option<&Device>,
    ) -> Result<Option<EngineConfig>, Flaw> {
        let Some(engine) = &file.engine else { return Ok(None) };
        for (key, why) in [
            ("batch", "does not go with `engine`: its `max_seqs` and `max_batched_tokens` say it"),
            ("operator", "does not go with `engine`, which runs whole models"),
            ("tune", "does not go with `engine`, which runs whole models"),
            (
                "predict",
                "does not go with `engine`: when a prompt is done depends on the steps that it is \
                 part of; `drop_after` alone drops what has waited too long",
            ),
            ("per_request_batches", "does not go with `engine`, which plans by tokens"),
            ("tuned_at", "does not go with `engine`: its kernels are a library's"),
        ] {
            if self.node.get(key).is_some() {
                return Err(self.flaw(key, why));
            }
        }
        if engine.kv_memory.is_some() && engine.memory_fraction.is_some() {
            let why = "give either `kv_memory` or `memory_fraction`";
            return Err(self.flaw("engine", why));
        }
        let kv = match &engine.kv_memory {
            None => KvSize::Fraction(engine.memory_fraction.unwrap_or(MEMORY_FRACTION)),
            Some(text) => KvSize::Bytes(
                text.parse().map_err(|e| self.flaw("engine", format!("kv_memory: {e}")))?,
            ),
        };
        let elastic = engine.elastic.as_ref().map(engine::elastic).transpose();
        let elastic = elastic.map_err(|why| self.flaw("engine", why))?;
        Ok(Some(EngineConfig::new(engine, (kv, elastic), device)))
    }

    fn slo(&self, file: &TenantFile) -> Result<Option<Slo>, Flaw> {
        match &file.slo {
            Some(SloFile::Absolute(limit)) if limit.0 == Nanos::ZERO => {
                Err(self.flaw("slo", "is 0: no request could meet it"))
            }
            Some(SloFile::Absolute(limit)) => Ok(Some(Slo::Absolute(limit.0))),
            Some(SloFile::Isolated(goal)) => Ok(Some(Slo::Isolated(goal.isolated))),
            Some(SloFile::Tokens(_)) if file.engine.is_none() => {
                let why =
                    "goals for tokens need an engine: write engine = { kind = \"continuous\" }";
                Err(self.flaw("slo", why))
            }
            Some(SloFile::Tokens(goals)) => {
                Ok(Some(Slo::Tokens(TokenGoals { ttft: goals.ttft.0, tpot: goals.tpot.0 })))
            }
            None => Ok(None),
        }
    }

    fn drop_after(&self, file: &TenantFile) -> Result<Option<DropAfter>, Flaw> {
        let limit = match file.drop_after {
            None if file.predict => {
                let why = "does nothing without `drop_after`; write drop_after = \"slo\"";
                return Err(self.flaw("predict", why));
            }
            None | Some(DropFile::Goal(DropName::Never)) => return Ok(None),
            Some(DropFile::After(limit)) if limit.0 < LEAST_PATIENCE => {
                let why = format!(
                    "`{}` is too short: a request is dropped after {LEAST_PATIENCE} at the earliest",
                    limit.0
                );
                return Err(self.flaw("drop_after", why));
            }
            Some(DropFile::After(limit)) => Some(limit.0),
            Some(DropFile::Goal(DropName::Slo)) => {
                // The requests of a trace bring goals of their own.
                let kind = file.arrivals.as_ref().and_then(|a| a.get("kind"));
                if file.slo.is_none() && kind.is_none_or(|kind| kind != "trace") {
                    let why = "takes its time from the tenant's goal, and there is none: write slo \
                               = \"100ms\" beside it, or a duration in its place";
                    return Err(self.flaw("drop_after", why));
                }
                None
            }
        };
        Ok(Some(DropAfter { limit, predict: file.predict }))
    }

    /// The specification, and how the file words it.
    fn arrivals(&self, file: &TenantFile) -> Result<(ArrivalSpec, String), Flaw> {
        let Some(mut json) = file.arrivals.clone() else {
            if file.tune.is_some() {
                let once = Closed { max_requests: Some(1), ..Closed::default() };
                return Ok((ArrivalSpec::from(once), "once, at the start".to_owned()));
            }
            let why = "is missing; write arrivals = { kind = \"poisson\", rate = 120.0 }";
            return Err(self.flaw("arrivals", why));
        };
        let node = &self.node.get("arrivals").expect("it was read").node;
        if let Some(file) = json.get_mut("file")
            && let Some(text) = file.as_str()
        {
            let expanded = expand_variables(text);
            *file = expanded.map_err(|why| self.arrivals_flaw(node, "file", why))?.into();
        }
        let parsed = serde_json::from_value::<ArrivalSpec>(json).map_err(|e| {
            let text = e.to_string();
            // `arrivals.FIELD: what is wrong`
            let split = text.strip_prefix("arrivals.").and_then(|t| t.split_once(": "));
            match split {
                Some((field, why)) => self.arrivals_flaw(node, field, why.to_owned()),
                None => self.flaw("arrivals", text),
            }
        })?;
        Ok((parsed, words(node)))
    }

    fn arrivals_flaw(&self, node: &Node, field: &str, why: String) -> Flaw {
        let place = node.get(field).map_or(&node.place, |e| &e.node.place);
        Flaw::new(place, format!("{}.arrivals.{field}", self.path), why)
    }

    /// The tuning jobs behind a `tune` table: one tenant per operator, each with one request.
    fn tuned(
        &self,
        tenant: TenantConfig,
        tune: Option<&TuneFile>,
        device: Option<&Device>,
    ) -> Result<Vec<TenantConfig>, Flaw> {
        let (Some(tune), Some(device)) = (tune, device) else { return Ok(vec![tenant]) };
        for key in ["arrivals", "operator", "batch", "slo"] {
            if self.node.get(key).is_some() {
                let why = "does not go with `tune`: every operator is tuned once, from the start";
                return Err(self.flaw(key, why));
            }
        }
        let spec = zoo::find(&tenant.model).map_err(|e| self.flaw("model", e.to_string()))?;
        let batch = tune.batch;
        let config = Config { batch, precision: tenant.precision, fused: tenant.fused };
        let operators =
            operators(&spec, device, config).map_err(|e| self.flaw("tune", e.to_string()))?;
        let trials = Trials { trials: tune.trials, launches: tune.launches };
        let jobs = operators.into_iter().enumerate().map(|(i, operator)| TenantConfig {
            name: format!("{}-{:02}", tenant.name, i + 1),
            part: Part::Tuning { operator: operator.name, batch, trials },
            ..tenant.clone()
        });
        Ok(jobs.collect())
    }
}

/// `poisson, rate = 120.0`.
fn words(node: &Node) -> String {
    let entries = node.entries().unwrap_or_default();
    let kind = entries.iter().filter(|e| e.key == "kind").map(|e| e.node.plain());
    let rest = entries
        .iter()
        .filter(|e| e.key != "kind")
        .map(|e| format!("{} = {}", e.key, e.node.toml()));
    kind.chain(rest).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use cotenant_traces::spec::KINDS;

    #[test]
    fn the_schema_has_the_arrival_keys_that_are_read() {
        let schema = schemars::schema_for!(super::super::arrivals::ArrivalsFile).to_value();
        let mut declared = BTreeSet::new();
        for kind in schema["oneOf"].as_array().unwrap() {
            let name = kind["properties"]["kind"]["const"].as_str().unwrap();
            let keys = kind["properties"].as_object().unwrap().keys().filter(|k| *k != "kind");
            declared.extend(keys.map(|key| format!("{name}.{key}")));
        }
        let read = KINDS.iter().flat_map(|k| k.fields.iter().map(|f| format!("{}.{f}", k.name)));
        assert_eq!(declared, read.collect());
    }
}
