//! The question: which tenants to serve on which GPU, from flags or from a file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::config::{Experiment, FleetConfig, Grid, Overrides, Point};

/// Largest batch that the search tries if the mix leaves it open.
pub(crate) const LARGEST_BATCH: u32 = 32;

/// A mix with its goals.
#[derive(Clone)]
pub(crate) struct Mix {
    /// The experiment that the mix was read as; its only point is `point`.
    pub(crate) e: Experiment,
    pub(crate) point: Point,
    /// By tenant: whether the mix fixes its batch size.
    pub(crate) fixed_batch: Vec<bool>,
    /// By tenant: whether the mix fixes its number of workers.
    pub(crate) fixed_workers: Vec<bool>,
    /// By tenant: which settings of its engine the mix fixes.
    pub(crate) fixed_engine: Vec<FixedEngine>,
    /// GPUs that the mix asks for.
    pub(crate) gpus: usize,
    /// The text and overrides that the mix was read from.
    pub(crate) source: Source,
}

/// Which settings of an engine the mix sets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct FixedEngine {
    /// `memory_fraction`, `kv_memory` or `elastic`.
    pub(crate) memory: bool,
    /// `max_seqs`.
    pub(crate) sequences: bool,
    /// `max_batched_tokens`.
    pub(crate) tokens: bool,
}

impl FixedEngine {
    fn of(tenant: &toml::Value) -> Self {
        let has = |key: &str| tenant.get("engine").is_some_and(|e| e.get(key).is_some());
        Self {
            memory: ["memory_fraction", "kv_memory", "elastic"].into_iter().any(has),
            sequences: has("max_seqs"),
            tokens: has("max_batched_tokens"),
        }
    }
}

/// What the mix was read from: enough to read it again with another device.
#[derive(Clone)]
pub(crate) struct Source {
    text: String,
    file: String,
    base: PathBuf,
    overrides: Overrides,
}

impl Mix {
    /// Reads an experiment file; it may lack policies, duration and name.
    ///
    /// # Errors
    /// File, line, field, what is wrong, and what would be accepted.
    pub(crate) fn read(file: &Path, device: Option<&str>) -> Result<Self, String> {
        let shown = file.display().to_string();
        let text = std::fs::read_to_string(file).map_err(|e| format!("{shown}: {e}"))?;
        let base = file.parent().unwrap_or(Path::new("")).to_owned();
        Self::parse(&text, &shown, base, device)
    }

    /// A mix from `--model` texts.
    ///
    /// # Errors
    /// Which text is wrong, and what would be accepted.
    pub(crate) fn of_models(models: &[String], device: &str) -> Result<Self, String> {
        let mut text = String::new();
        let mut seen: BTreeMap<String, u32> = BTreeMap::new();
        for model in models {
            text += &tenant(model, &mut seen).map_err(|why| format!("--model {model}: {why}"))?;
        }
        Self::parse(&text, "--model", PathBuf::new(), Some(device))
    }

    fn parse(text: &str, file: &str, base: PathBuf, device: Option<&str>) -> Result<Self, String> {
        // Text that is not TOML at all is reported below, with its line.
        let table = toml::from_str::<toml::Table>(text).unwrap_or_default();
        if table.contains_key("sweep") {
            return Err(format!("{file}: sweep: a mix is one question; leave the sweep out"));
        }
        let mut set = vec![];
        for (key, value) in [("name", "\"advise\""), ("duration", "\"10s\"")] {
            if !table.contains_key(key) {
                set.push(format!("{key}={value}"));
            }
        }
        if let Some(device) = device {
            set.push(format!("device={}", toml::Value::from(device)));
        } else if !table.contains_key("device") {
            return Err(format!(
                "{file}: device: is missing; write device = \"h100-sxm\", or give --gpu"
            ));
        }
        let mut text = text.to_owned();
        if !table.contains_key("policy") {
            text += "\n[[policy]]\nname = \"mps\"\n";
        }
        let overrides = Overrides { set, seed: None };
        let source = Source { text, file: file.to_owned(), base, overrides };
        let said = |why: String| as_given(&why, file, device);
        let given = |key: &str| {
            let tenants = table.get("tenant").and_then(toml::Value::as_array);
            let has = |t: &toml::Value| t.get(key).is_some();
            tenants.map_or_else(Vec::new, |list| list.iter().map(has).collect::<Vec<bool>>())
        };
        let engines = table.get("tenant").and_then(toml::Value::as_array);
        let engines = engines.map_or_else(Vec::new, |l| l.iter().map(FixedEngine::of).collect());
        source.build(given("batch"), given("workers"), engines).map_err(said)
    }

    /// The same mix on another device.
    ///
    /// # Errors
    /// The device does not exist, or it cannot run one of the models.
    pub(crate) fn on(&self, device: &str) -> Result<Self, String> {
        let mut source = self.source.clone();
        source.overrides.set.retain(|s| !s.starts_with("device="));
        source.overrides.set.push(format!("device={}", toml::Value::from(device)));
        let engines = self.fixed_engine.clone();
        source.build(self.fixed_batch.clone(), self.fixed_workers.clone(), engines)
    }

    /// The same mix with every batch size left open.
    pub(crate) fn with_open_batches(&self) -> Self {
        let fixed_batch = vec![false; self.fixed_batch.len()];
        Self { fixed_batch, ..self.clone() }
    }

    /// An error of the mix, in terms of what the user gave.
    pub(crate) fn as_given(&self, why: &str) -> String {
        as_given(why, &self.source.file, None)
    }

    /// Mean requests/s; `None` for a closed loop, whose rate depends on the answers.
    pub(crate) fn rate(&self, tenant: usize) -> Option<f64> {
        self.point.tenants[tenant].arrivals.mean_rate().filter(|r| *r > 0.0)
    }

    /// The mix in one line.
    pub(crate) fn words(&self) -> String {
        let tenants = self.point.tenants.iter();
        let each: Vec<String> = tenants
            .map(|t| {
                let load = match (t.arrivals.closed(), t.arrivals.mean_rate()) {
                    (_, Some(rate)) => format!(" at {rate}/s"),
                    (Some(c), None) => format!(" for {} clients", c.concurrency),
                    (None, None) => String::new(),
                };
                let goal = t.slo.map_or_else(String::new, |s| format!(", goal {}", s.words()));
                format!("{} ({}{load}{goal})", t.name, t.model)
            })
            .collect();
        each.join("; ")
    }
}

impl Mix {
    /// The mix as it could stand in a file in any folder.
    ///
    /// # Errors
    /// It is not TOML; the absolute form of a path cannot be determined.
    pub(crate) fn table(&self) -> Result<toml::Table, String> {
        let source = &self.source;
        let mut table: toml::Table = toml::from_str(&source.text).map_err(|e| e.to_string())?;
        for set in &source.overrides.set {
            let Some((key, value)) = set.split_once('=') else { continue };
            let value: toml::Table =
                toml::from_str(&format!("v = {value}")).map_err(|e| e.to_string())?;
            table.extend(value.into_iter().map(|(_, v)| (key.to_owned(), v)));
        }
        let path = |value: &mut toml::Value| -> Result<(), String> {
            if let toml::Value::String(text) = value
                && !text.contains("${")
            {
                let there = source.base.join(&*text);
                let there = std::path::absolute(&there).map_err(|e| format!("{text}: {e}"))?;
                *text = there.display().to_string();
            }
            Ok(())
        };
        // Names of built-in devices and profiles stay names.
        let is_path = |value: &toml::Value, end: &str| {
            value.as_str().is_some_and(|v| v.ends_with(end) || v.contains('/'))
        };
        if let Some(device) = table.get_mut("device").filter(|d| is_path(d, ".toml")) {
            path(device)?;
        }
        let profiles = table.get_mut("profiles").and_then(toml::Value::as_array_mut);
        for entry in profiles.into_iter().flatten() {
            match entry {
                toml::Value::Table(import) => {
                    import.get_mut("path").map_or(Ok(()), path)?;
                }
                entry => path(entry)?,
            }
        }
        let tenants = table.get_mut("tenant").and_then(toml::Value::as_array_mut);
        for tenant in tenants.into_iter().flatten() {
            if let Some(model) = tenant.get_mut("model").filter(|m| is_path(m, ".json")) {
                path(model)?;
            }
            if let Some(file) = tenant.get_mut("arrivals").and_then(|a| a.get_mut("file")) {
                path(file)?;
            }
        }
        Ok(table)
    }
}

impl Source {
    fn build(
        self,
        mut fixed_batch: Vec<bool>,
        mut fixed_workers: Vec<bool>,
        mut fixed_engine: Vec<FixedEngine>,
    ) -> Result<Mix, String> {
        let grid = Grid::parse(&self.text, &self.file, self.base.clone(), &self.overrides)?;
        let e = grid.at(0)?;
        let mut point = e.point.clone();
        // Answers list tenants in the order of the question.
        point.tenants.sort_by_key(|t| t.place);
        // Tenants that stand for several (tuning jobs) fix everything.
        fixed_batch.resize(point.tenants.len(), true);
        fixed_workers.resize(point.tenants.len(), true);
        let all = FixedEngine { memory: true, sequences: true, tokens: true };
        fixed_engine.resize(point.tenants.len(), all);
        let mut gpus = 1;
        if let Some(fleet) = point.fleet.take() {
            gpus = one_kind(&point, &fleet).map_err(|why| format!("{}: {why}", self.file))?;
        }
        Ok(Mix { e, point, fixed_batch, fixed_workers, fixed_engine, gpus, source: self })
    }
}

/// The number of GPUs of a mix, all of its device's kind; the mix may fix nothing else about them.
fn one_kind(point: &Point, fleet: &FleetConfig) -> Result<usize, String> {
    if fleet.devices.iter().any(|d| d.name != point.device.name) {
        return Err(format!(
            "gpus: a mix is for GPUs of one kind ({} are asked for): give one device, and --gpus",
            fleet.words()
        ));
    }
    if let Some(tenant) = point.tenants.iter().find(|t| t.gpus.is_some()) {
        return Err(format!(
            "tenant.{}.gpu: who is on which GPU is searched here: leave it out; `cotenant run` compares \
             policies for a placement that you write",
            tenant.name
        ));
    }
    if !fleet.outages.is_empty() {
        return Err("down: failures are for `cotenant run`: leave them out".to_owned());
    }
    Ok(fleet.devices.len())
}

/// An error of a mix, in terms of what the user gave: flags have no lines, and the device is `--gpu`'s.
fn as_given(why: &str, file: &str, device: Option<&str>) -> String {
    let set = device.map(|d| format!("--set device={}: device: ", toml::Value::from(d)));
    if let Some(rest) = set.and_then(|set| why.strip_prefix(&set)) {
        return format!("--gpu: {rest}");
    }
    let of_flags = why.strip_prefix("--model:").filter(|_| file == "--model");
    match of_flags.map(|rest| rest.trim_start_matches(|c: char| c.is_ascii_digit())) {
        Some(rest) => format!("--model{rest}"),
        None => why.to_owned(),
    }
}

/// `NAME@RATErps[,slo=…][,batch=…][,workers=…][,precision=…][,executor=…][,best-effort]` as a table; for a
/// model that generates tokens, `NAME@RATErps,tokens=512/128[,ttft=…,tpot=…]`.
fn tenant(text: &str, seen: &mut BTreeMap<String, u32>) -> Result<String, String> {
    let mut parts = text.split(',').map(str::trim);
    let head = parts.next().unwrap_or_default();
    let (model, rate) = match head.split_once('@') {
        Some((model, rate)) => (model, Some(rate)),
        None => (head, None),
    };
    if model.is_empty() {
        return Err("names no model; write resnet50@200rps,slo=20ms".to_owned());
    }
    let plain: String = model
        .rsplit('/')
        .next()
        .unwrap_or(model)
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || c == '_' { c } else { '-' })
        .collect();
    let count = seen.entry(plain.clone()).or_default();
    *count += 1;
    let name = if *count == 1 { plain } else { format!("{plain}-{count}") };
    let quoted = |value: &str| toml::Value::from(value).to_string();
    let mut out = format!("[[tenant]]\nname = {}\nmodel = {}\n", quoted(&name), quoted(model));
    let mut best_effort = false;
    let (mut tokens, mut ttft, mut tpot) = (None, None, None);
    for part in parts {
        match part.split_once('=') {
            None if part == "best-effort" => best_effort = true,
            Some(("slo", value)) if value.ends_with('x') => {
                let factor = value.trim_end_matches('x');
                out += &format!("slo = {{ isolated = {factor} }}\n");
            }
            Some(("slo", value)) => out += &format!("slo = {}\n", quoted(value)),
            Some(("tokens", value)) => tokens = Some(value.split_once('/').unwrap_or((value, "1"))),
            Some(("ttft", value)) => ttft = Some(value),
            Some(("tpot", value)) => tpot = Some(value),
            Some(("batch", value)) => out += &format!("batch = {{ max = {value} }}\n"),
            Some(("workers", value)) => out += &format!("workers = {value}\n"),
            Some((key @ ("precision" | "executor" | "name"), value)) => {
                if key == "name" {
                    out = out.replacen(&quoted(&name), &quoted(value), 1);
                } else {
                    out += &format!("{key} = {}\n", quoted(value));
                }
            }
            _ => {
                return Err(format!(
                    "`{part}` is none of slo=20ms (or slo=3x, a multiple of the isolated p95), batch=8, \
                     workers=2, precision=fp16, executor=graphs, name=vision, best-effort; of a model that \
                     generates tokens=512/128 (prompt and output), ttft=500ms, tpot=40ms"
                ));
            }
        }
    }
    if best_effort {
        out += "class = \"best-effort\"\n";
    }
    match (ttft, tpot) {
        (Some(ttft), Some(tpot)) => {
            let (ttft, tpot) = (quoted(ttft), quoted(tpot));
            out += &format!("slo = {{ ttft = {ttft}, tpot = {tpot} }}\n");
        }
        (None, None) => {}
        _ => return Err("gives one of two goals; write ttft=500ms,tpot=40ms".to_owned()),
    }
    let length = match tokens {
        Some((prompt, output)) => {
            out += "engine = { kind = \"continuous\" }\n";
            format!(", tokens_in = {prompt}, tokens_out = {output}")
        }
        None if ttft.is_some() => {
            return Err(
                "has goals for tokens, and says not how many; write tokens=512/128".to_owned()
            );
        }
        None => String::new(),
    };
    let arrivals = match rate {
        Some(rate) => {
            let number =
                rate.strip_suffix("rps").or_else(|| rate.strip_suffix("/s")).unwrap_or(rate);
            let wrong = || format!("`{rate}` is not a rate; write {model}@200rps");
            let number: f64 = number.parse().map_err(|_| wrong())?;
            if !number.is_finite() {
                return Err(wrong());
            }
            format!("{{ kind = \"poisson\", rate = {number:?}{length} }}")
        }
        None if best_effort => format!("{{ kind = \"closed\", concurrency = 4{length} }}"),
        None => {
            return Err(format!("gives no rate; write {model}@200rps, or {model},best-effort"));
        }
    };
    Ok(out + &format!("arrivals = {arrivals}\n\n"))
}
