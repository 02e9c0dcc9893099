//! `[[tenant]]` tables.

use cotenant_profiles::lower::{Config, MAX_BATCH, Precision, operators};
use cotenant_profiles::tune::Trials;
use cotenant_profiles::{Device, Executor, Nanos, zoo};
use cotenant_sim::Class;
use cotenant_traces::ArrivalSpec;
use cotenant_traces::Closed;

use super::expand_variables;
use super::fields::{Fields, duration, table};
use super::tree::{Data, Flaw, Node};

/// One tenant, checked as far as that goes without opening files.
#[derive(Clone, Debug)]
pub(crate) struct TenantConfig {
    pub(crate) name: String,
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
}

impl Slo {
    /// As reports word it.
    pub(crate) fn words(self) -> String {
        match self {
            Self::Absolute(limit) => limit.to_string(),
            Self::Isolated(factor) => format!("{factor} × isolated p95"),
        }
    }
}

const KEYS: &[&str] = &[
    "name",
    "model",
    "arrivals",
    "slo",
    "class",
    "workers",
    "batch",
    "precision",
    "executor",
    "fused",
    "tuned_at",
    "operator",
    "tune",
];
const HOUR: Nanos = Nanos::from_secs(3600);

/// Checks every tenant. One that is to be tuned becomes one tenant per operator.
pub(crate) fn rows(root: &Node, device: &Device) -> Result<Vec<TenantConfig>, Flaw> {
    let Some(entry) = root.get("tenant") else {
        let why = "is missing; an experiment needs a [[tenant]] table with name, model, arrivals";
        return Err(Flaw::new(&root.place, "tenant", why));
    };
    let Data::List(nodes) = &entry.node.data else {
        return Err(Flaw::new(&entry.place, "tenant", "is no list; write [[tenant]]"));
    };
    let mut rows: Vec<TenantConfig> = vec![];
    for (i, node) in nodes.iter().enumerate() {
        for tenant in tuned(tenant(node, i, device)?, node, device)? {
            if rows.iter().any(|t| t.name == tenant.name) {
                let why = format!("two tenants are called `{}`", tenant.name);
                return Err(Flaw::new(&node.place, format!("tenant[{i}].name"), why));
            }
            rows.push(tenant);
        }
    }
    if rows.is_empty() {
        return Err(Flaw::new(&entry.place, "tenant", "is empty; give at least one tenant"));
    }
    Ok(rows)
}

fn tenant(node: &Node, index: usize, device: &Device) -> Result<TenantConfig, Flaw> {
    table(node, &format!("tenant[{index}]"))?;
    let name = node.get("name").and_then(|e| e.node.text());
    let path = name.map_or_else(|| format!("tenant[{index}]"), |n| format!("tenant.{n}"));
    let f = Fields::new(node, &path, KEYS)?;
    let name = f.required_text("name", "\"vision\"")?;
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    if name.is_empty() || name.len() > 60 || !name.chars().all(legal) || name == "each" {
        let why = format!("`{name}` is no name: 1 to 60 letters, digits, - and _, and not `each`");
        return Err(f.flaw("name", why));
    }
    let model = f.required_text("model", "\"resnet50\"")?;
    let (arrivals, arrivals_text) = arrivals(&f)?;
    let at = |key: &str| f.flaw(key, "").to_string().trim_end_matches(": ").to_owned();
    let (batch_max, batch_timeout) = batch(&f)?;
    let class = match f.choice("class", &["latency", "best-effort"])? {
        Some("best-effort") => Class::BestEffort,
        _ => Class::Latency,
    };
    let names = Precision::ALL.map(Precision::name);
    let named = f.choice("precision", &names)?;
    let precision = Precision::ALL.into_iter().find(|p| Some(p.name()) == named);
    let executor = f.choice("executor", &Executor::ALL.map(Executor::name))?;
    let executor = Executor::ALL.into_iter().find(|e| Some(e.name()) == executor);
    Ok(TenantConfig {
        name: name.to_owned(),
        model: model.to_owned(),
        model_at: at("model"),
        arrivals,
        arrivals_text,
        arrivals_at: at("arrivals"),
        slo: slo(&f)?,
        class,
        workers: f.whole("workers", 1..=1024)?.unwrap_or(1) as u32,
        batch_max,
        batch_timeout,
        precision: precision.unwrap_or(device.default_precision()),
        precision_given: precision.is_some(),
        executor,
        fused: f.flag("fused")?.unwrap_or(false),
        tuned_at: tuned_at(&f)?,
        part: f.text("operator")?.map_or(Part::Whole, |o| Part::Operator(o.to_owned())),
    })
}

fn tuned_at(f: &Fields<'_>) -> Result<Option<f64>, Flaw> {
    let percent = f.number("tuned_at", 0.0..=100.0)?;
    if percent == Some(0.0) {
        return Err(f.flaw("tuned_at", "is 0: a percentage of the CUs lies above 0"));
    }
    Ok(percent)
}

/// The tuning jobs behind a `tune` table: one tenant per operator, each with one request.
fn tuned(tenant: TenantConfig, node: &Node, device: &Device) -> Result<Vec<TenantConfig>, Flaw> {
    let path = format!("tenant.{}", tenant.name);
    let f = Fields::new(node, &path, KEYS)?;
    let Some(node) = f.get("tune") else { return Ok(vec![tenant]) };
    for key in ["arrivals", "operator", "batch", "slo"] {
        if f.get(key).is_some() {
            let why = "does not go with `tune`: every operator is tuned once, from the start";
            return Err(f.flaw(key, why));
        }
    }
    table(node, &f.name("tune"))?;
    let inner = Fields::new(node, &f.name("tune"), &["trials", "launches", "batch"])?;
    let trials = inner.whole("trials", 1..=10_000)?.unwrap_or(64) as u32;
    let launches = inner.whole("launches", 1..=10_000)?.unwrap_or(13) as u32;
    let batch = inner.whole("batch", 1..=u64::from(MAX_BATCH))?.unwrap_or(1) as u32;
    let spec = zoo::find(&tenant.model).map_err(|e| f.flaw("model", e.to_string()))?;
    let config = Config { batch, precision: tenant.precision, fused: tenant.fused };
    let operators = operators(&spec, device, config).map_err(|e| f.flaw("tune", e.to_string()))?;
    let trials = Trials { trials, launches };
    let jobs = operators.into_iter().enumerate().map(|(i, operator)| TenantConfig {
        name: format!("{}-{:02}", tenant.name, i + 1),
        part: Part::Tuning { operator: operator.name, batch, trials },
        ..tenant.clone()
    });
    Ok(jobs.collect())
}

fn batch(f: &Fields<'_>) -> Result<(u32, Nanos), Flaw> {
    let Some(node) = f.get("batch") else { return Ok((1, Nanos::ZERO)) };
    if node.entries().is_none() {
        let why = format!("`{}` is no table; write {{ max = 8, timeout = \"2ms\" }}", node.plain());
        return Err(f.flaw("batch", why));
    }
    let f = Fields::new(node, &f.name("batch"), &["max", "timeout"])?;
    let max = f.whole("max", 1..=u64::from(MAX_BATCH))?.unwrap_or(1) as u32;
    Ok((max, f.duration("timeout", Nanos::ZERO..=HOUR)?.unwrap_or(Nanos::ZERO)))
}

fn slo(f: &Fields<'_>) -> Result<Option<Slo>, Flaw> {
    let Some(node) = f.get("slo") else { return Ok(None) };
    if node.entries().is_some() {
        let inner = Fields::new(node, &f.name("slo"), &["isolated"])?;
        let factor = inner.number("isolated", 0.01..=1e6)?.ok_or_else(|| {
            f.flaw("slo", "is empty; write slo = \"100ms\" or slo = { isolated = 2.0 }")
        })?;
        return Ok(Some(Slo::Isolated(factor)));
    }
    let limit = duration(node).map_err(|why| {
        f.flaw("slo", format!("{why}; or a multiple of the isolated p95: {{ isolated = 2.0 }}"))
    })?;
    if limit == Nanos::ZERO {
        return Err(f.flaw("slo", "is 0: no request could meet it"));
    }
    Ok(Some(Slo::Absolute(limit)))
}

/// The specification, and how the file words it.
fn arrivals(f: &Fields<'_>) -> Result<(ArrivalSpec, String), Flaw> {
    let Some(node) = f.get("arrivals") else {
        if f.get("tune").is_some() {
            let once = Closed { max_requests: Some(1), ..Closed::default() };
            return Ok((ArrivalSpec::from(once), "once, at the start".to_owned()));
        }
        let why = "is missing; write arrivals = { kind = \"poisson\", rate = 120.0 }";
        return Err(f.flaw("arrivals", why));
    };
    table(node, &f.name("arrivals"))?;
    let mut json = node.json();
    if let Some(file) = json.get_mut("file")
        && let Some(text) = file.as_str()
    {
        let expanded = expand_variables(text);
        *file = expanded.map_err(|why| arrivals_flaw(f, node, "file", why))?.into();
    }
    let parsed = serde_json::from_value::<ArrivalSpec>(json).map_err(|e| {
        let text = e.to_string();
        // `arrivals.FIELD: what is wrong`
        let split = text.strip_prefix("arrivals.").and_then(|t| t.split_once(": "));
        match split {
            Some((field, why)) => arrivals_flaw(f, node, field, why.to_owned()),
            None => f.flaw("arrivals", text),
        }
    })?;
    Ok((parsed, words(node)))
}

fn arrivals_flaw(f: &Fields<'_>, node: &Node, field: &str, why: String) -> Flaw {
    let place = node.get(field).map_or(&node.place, |e| &e.node.place);
    Flaw::new(place, format!("{}.{field}", f.name("arrivals")), why)
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
