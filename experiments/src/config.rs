//! An experiment file: read, overridden by `--set`, multiplied by `[sweep]`, checked. What comes out
//! is complete but for what lies in other files (profiles, traces).

pub(crate) mod fields;
mod grid;
mod path;
mod plot;
pub(crate) mod policy;
mod sweep;
mod tenant;
mod tree;
pub(crate) mod units;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cotenant_profiles::{Device, Nanos};
use cotenant_results::{Metric, PlotSpec};
use cotenant_sim::contention;

use self::fields::{Fields, no_such};
use self::tree::{Data, Entry, Flaw, Node, Place};
pub(crate) use grid::Grid;
pub(crate) use policy::PolicyRow;
pub(crate) use tenant::{Part, Slo, TenantConfig};

/// A checked experiment.
#[derive(Clone)]
pub(crate) struct Experiment {
    pub(crate) name: String,
    pub(crate) question: Option<String>,
    /// By what policies are ranked where no tenant has a goal.
    pub(crate) rank_by: Option<Metric>,
    /// Folder of the file: what its paths are relative to.
    pub(crate) base: PathBuf,
    /// One per repeat.
    pub(crate) seeds: Vec<u64>,
    /// Sweep keys in file order.
    pub(crate) keys: Vec<String>,
    /// Every combination of sweep values, the last key fastest; one where there is no sweep.
    pub(crate) points: Vec<Point>,
    pub(crate) plots: Vec<PlotSpec>,
    /// The experiment as resolved, overrides included.
    pub(crate) text: String,
}

/// One combination of sweep values.
#[derive(Clone)]
pub(crate) struct Point {
    /// The values, as tables show them.
    pub(crate) values: Vec<String>,
    pub(crate) device: Arc<Device>,
    pub(crate) costs: CostMode,
    pub(crate) contention: &'static str,
    pub(crate) duration: Nanos,
    pub(crate) warmup: Nanos,
    /// Bin of the time series, where one is asked for.
    pub(crate) series: Option<Nanos>,
    /// Coefficient of variation of kernel times.
    pub(crate) jitter: f64,
    pub(crate) tenants: Vec<TenantConfig>,
    pub(crate) policies: Vec<PolicyRow>,
    pub(crate) profiles: Vec<ProfileSource>,
}

/// Whether mechanisms cost what the device file says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CostMode {
    Real,
    Ideal,
}

impl CostMode {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Real => "real",
            Self::Ideal => "ideal",
        }
    }
}

/// Where profiles are looked for before those that ship.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum ProfileSource {
    /// A folder of profile files.
    Folder(PathBuf),
    /// Another tool's measurement, read at every run.
    Import {
        /// The importer.
        format: &'static str,
        /// A folder or a file.
        path: PathBuf,
        /// `file:line: field`, for errors.
        at: String,
    },
}

/// Formats that `profiles = [{ import = "…" }]` can name.
pub(crate) const IMPORTS: &[&str] = &["table", "orion", "reef", "neusight"];

/// Keys that are plain fields of an experiment.
const TOP: &[&str] = &[
    "name",
    "question",
    "rank_by",
    "device",
    "profiles",
    "duration",
    "warmup",
    "repeats",
    "seed",
    "costs",
    "contention",
    "series",
    "jitter",
];
const LISTS: &[&str] = &["tenant", "policy", "sweep", "plot"];
/// What is the same in every point.
const UNSWEPT: &[&str] = &["name", "question", "rank_by", "repeats", "seed"];
/// About four months: beyond, a typo is likelier than patience.
const LONGEST: Nanos = Nanos::from_secs(10_000_000);
const TICK: Nanos = Nanos(1_000);

/// `--set` and `--seed`.
#[derive(Clone, Debug, Default)]
pub(crate) struct Overrides {
    /// `KEY=VALUE` texts.
    pub(crate) set: Vec<String>,
    pub(crate) seed: Option<u64>,
}

impl Overrides {
    fn apply(&self, root: &mut Node) -> Result<(), Flaw> {
        for text in &self.set {
            let flag = format!("--set {text}");
            let place = Place::Flag(flag.as_str().into());
            let Some((key, value)) = text.split_once('=') else {
                return Err(Flaw::new(&place, "", "is no KEY=VALUE"));
            };
            let key = key.trim();
            let value = tree::parse_value(value.trim(), &flag, key)?;
            if !set_sweep(root, key, &value, &place) {
                swept_with_others(root, key, &place)?;
                path::set(root, key, &value, &place, TOP)?;
            }
        }
        if let Some(seed) = self.seed {
            let place = Place::Flag("--seed".into());
            let seed =
                i64::try_from(seed).map_err(|_| Flaw::new(&place, "seed", "is not below 2^63"))?;
            let value = Node { place: place.clone(), data: Data::Integer(seed) };
            path::set(root, "seed", &value, &place, TOP)?;
        }
        Ok(())
    }
}

/// A field that is swept together with others cannot be set alone: the sweep would win.
fn swept_with_others(root: &Node, key: &str, at: &Place) -> Result<(), Flaw> {
    let swept = root.get("sweep").and_then(|e| e.node.entries()).unwrap_or_default();
    let names = |e: &&Entry| {
        let fields = sweep::fields_of(&e.key);
        fields.iter().any(|f| path::segments(f) == path::segments(key))
    };
    match swept.iter().find(names) {
        Some(e) => {
            let why = format!("is swept as `{}`; set that, or leave the sweep out", e.key);
            Err(Flaw::new(at, key, why))
        }
        None => Ok(()),
    }
}

/// A key that is swept is swept over the given value or values instead; `sweep.KEY` adds a sweep.
fn set_sweep(root: &mut Node, key: &str, value: &Node, at: &Place) -> bool {
    let parts = path::segments(key);
    let added = parts.first().is_some_and(|p| p == "sweep") && parts.len() > 1;
    let rest = key.split_once('.').map_or("", |(_, rest)| rest.trim_matches('"'));
    let wanted = if added { path::segments(rest) } else { parts };
    let swept = |e: &Entry| path::segments(&e.key) == wanted;
    let Data::Table(top) = &mut root.data else { return false };
    if added && !top.iter().any(|e| e.key == "sweep") {
        let node = Node { place: at.clone(), data: Data::Table(vec![]) };
        top.push(Entry { key: "sweep".to_owned(), place: at.clone(), node });
    }
    let Some(Data::Table(keys)) =
        top.iter_mut().find(|e| e.key == "sweep").map(|e| &mut e.node.data)
    else {
        return false;
    };
    let list = match &value.data {
        Data::List(_) => value.clone(),
        _ => Node { place: at.clone(), data: Data::List(vec![value.clone()]) },
    };
    match keys.iter_mut().find(|e| swept(e)) {
        Some(entry) => entry.node = list,
        None if added => {
            keys.push(Entry { key: rest.to_owned(), place: at.clone(), node: list });
        }
        None => return false,
    }
    true
}

/// Takes the `[sweep]` table out of the tree.
fn axes(root: &mut Node) -> Result<Vec<sweep::Axis>, Flaw> {
    let Data::Table(top) = &mut root.data else { return Ok(vec![]) };
    let Some(i) = top.iter().position(|e| e.key == "sweep") else { return Ok(vec![]) };
    let taken = top.remove(i);
    sweep::axes(&taken.node, UNSWEPT)
}

fn name(f: &Fields<'_>) -> Result<String, Flaw> {
    let name = f.required_text("name", "\"quickstart\"")?;
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if name.is_empty() || name.len() > 80 || name.starts_with('.') || !name.chars().all(legal) {
        let why = format!(
            "`{name}` is no name: it becomes a folder, so 1 to 80 letters, digits, -, _ and ."
        );
        return Err(f.flaw("name", why));
    }
    Ok(name.to_owned())
}

fn seeds(f: &Fields<'_>) -> Result<Vec<u64>, Flaw> {
    let repeats = f.whole("repeats", 1..=10_000)?.unwrap_or(1);
    let first = f.whole("seed", 0..=i64::MAX as u64)?.unwrap_or(1);
    Ok((first..first + repeats).collect())
}

fn point(
    root: &Node,
    base: &Path,
    devices: &mut BTreeMap<String, Arc<Device>>,
) -> Result<Point, Flaw> {
    let known: Vec<&str> = TOP.iter().chain(LISTS).copied().collect();
    let f = Fields::new(root, "", &known)?;
    let device = device(&f, base, devices)?;
    let duration = f.duration("duration", TICK..=LONGEST)?;
    let duration =
        duration.ok_or_else(|| f.flaw("duration", "is missing; write duration = \"60s\""))?;
    let series = f.duration("series", TICK..=duration)?;
    if let Some(bin) = series.filter(|bin| duration.0 / bin.0 > 100_000) {
        let why = format!("`{bin}` makes over 100000 bins of the duration {duration}");
        return Err(f.flaw("series", why));
    }
    let tenants = tenant::rows(root, &device)?;
    let names: Vec<String> = tenants.iter().map(|t| t.name.clone()).collect();
    let costs = match f.choice("costs", &["real", "ideal"])? {
        Some("ideal") => CostMode::Ideal,
        _ => CostMode::Real,
    };
    Ok(Point {
        values: vec![],
        device,
        costs,
        contention: f.choice("contention", contention::NAMES)?.unwrap_or("bandwidth"),
        duration,
        warmup: f.duration("warmup", Nanos::ZERO..=LONGEST)?.unwrap_or(Nanos::ZERO),
        series,
        jitter: f.number("jitter", 0.0..=2.0)?.unwrap_or(0.0),
        policies: policy::rows(root, &names)?,
        tenants,
        profiles: profiles(&f, base)?,
    })
}

fn device(
    f: &Fields<'_>,
    base: &Path,
    known: &mut BTreeMap<String, Arc<Device>>,
) -> Result<Arc<Device>, Flaw> {
    let name = f.required_text("device", "\"h100-sxm\"")?;
    let name = expand_variables(name).map_err(|why| f.flaw("device", why))?;
    if let Some(device) = known.get(&name) {
        return Ok(device.clone());
    }
    let device = Device::find(&name, base).map_err(|e| f.flaw("device", e.to_string()))?;
    let device = Arc::new(device);
    known.insert(name, device.clone());
    Ok(device)
}

fn profiles(f: &Fields<'_>, base: &Path) -> Result<Vec<ProfileSource>, Flaw> {
    let list = f.list("profiles", "folders")?;
    list.iter().enumerate().map(|(i, node)| profile_source(node, i, base)).collect()
}

fn profile_source(node: &Node, i: usize, base: &Path) -> Result<ProfileSource, Flaw> {
    let field = format!("profiles[{i}]");
    let flaw = |why: String| Flaw::new(&node.place, &field, why);
    let existing = |text: &str, folder: bool| {
        let path = base.join(expand_variables(text).map_err(flaw)?);
        let there = if folder { path.is_dir() } else { path.exists() };
        let what = if folder { "folder" } else { "file or folder" };
        let missing = || flaw(format!("there is no {what} {}", path.display()));
        if there { Ok(path) } else { Err(missing()) }
    };
    if let Some(text) = node.text() {
        return existing(text, true).map(ProfileSource::Folder);
    }
    if node.entries().is_none() {
        let why = "is neither a folder nor { import = \"orion\", path = \"…\" }";
        return Err(flaw(format!("`{}` {why}", node.toml())));
    }
    let inner = Fields::new(node, &field, &["import", "path"])?;
    let format = inner.required_text("import", "\"orion\"")?;
    let Some(format) = IMPORTS.iter().find(|k| **k == format) else {
        return Err(inner.flaw("import", no_such(format, IMPORTS)));
    };
    let path = existing(inner.required_text("path", "\"folder\"")?, false)?;
    Ok(ProfileSource::Import { format, path, at: inner.flaw("path", "").to_string() })
}

/// `${NAME}` becomes the environment variable's value.
///
/// # Errors
/// A variable that is not set, or a `${` without its end.
pub(crate) fn expand_variables(text: &str) -> Result<String, String> {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        let Some((name, tail)) = after.split_once('}') else {
            return Err(format!("`{text}` has a `${{` without a `}}`"));
        };
        let value = std::env::var(name).map_err(|_| {
            format!("`{text}` needs the environment variable {name}, which is not set")
        })?;
        out.push_str(before);
        out.push_str(&value);
        rest = tail;
    }
    out.push_str(rest);
    Ok(out)
}

/// `KEY=VALUE` texts as one table.
///
/// # Errors
/// A text without `=`, or a value that is none.
pub(crate) fn table_of_assignments(texts: &[String]) -> Result<serde_json::Value, String> {
    let mut table = serde_json::Map::new();
    for text in texts {
        let (key, value) =
            text.split_once('=').ok_or_else(|| format!("`{text}` is no FIELD=VALUE"))?;
        let value = tree::parse_value(value.trim(), text, key).map_err(|e| e.to_string())?;
        table.insert(key.trim().to_owned(), value.json());
    }
    Ok(table.into())
}

/// The tree as an experiment file.
fn render(root: &Node) -> String {
    let mut plain = String::new();
    let mut tables = String::new();
    for e in root.entries().unwrap_or_default() {
        match &e.node.data {
            Data::List(rows) if LISTS.contains(&e.key.as_str()) => {
                for row in rows {
                    tables += &format!("\n[[{}]]\n", e.key);
                    tables += &assignments(row);
                }
            }
            Data::Table(_) => tables += &format!("\n[{}]\n{}", e.key, assignments(&e.node)),
            _ => plain += &format!("{} = {}\n", tree::key(&e.key), e.node.toml()),
        }
    }
    plain + &tables
}

fn assignments(table: &Node) -> String {
    let entries = table.entries().unwrap_or_default();
    entries.iter().map(|e| format!("{} = {}\n", tree::key(&e.key), e.node.toml())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: &str = r#"
name = "small"
device = "h100-sxm"
duration = "1s"
[[tenant]]
name = "a"
model = "alexnet"
arrivals = { kind = "poisson", rate = 10 }
[[policy]]
name = "temporal"
[[policy]]
name = "mps"
"#;

    fn read(text: &str, set: &[&str]) -> Result<Experiment, String> {
        let set = set.iter().map(|&s| s.to_owned()).collect();
        let grid = Grid::parse(text, "f.toml", PathBuf::new(), &Overrides { set, seed: None })?;
        let mut e = grid.head().clone();
        for i in 0..grid.len() {
            e.points.extend(grid.at(i)?.points);
        }
        Ok(e)
    }

    #[test]
    fn a_sweep_is_the_cartesian_product_in_order() {
        let swept = format!(
            "{SMALL}[sweep]\n\"tenant.a.arrivals.rate\" = [1, 2]\n\
             \"policy.temporal.quantum\" = [\"1ms\", \"2ms\", \"3ms\"]\n"
        );
        let e = read(&swept, &[]).unwrap();
        assert_eq!(e.keys, ["tenant.a.arrivals.rate", "policy.temporal.quantum"]);
        let values: Vec<_> = e.points.iter().map(|p| p.values.join("/")).collect();
        assert_eq!(values, ["1/1ms", "1/2ms", "1/3ms", "2/1ms", "2/2ms", "2/3ms"]);
        assert_eq!(e.points[4].policies[0].options_text, "quantum = \"2ms\"");
        assert_eq!(e.points[4].tenants[0].arrivals.mean_rate(), Some(2.0));
    }

    #[test]
    fn fields_swept_together_change_together() {
        let both = "\"tenant.a.model, tenant.a.slo\"";
        let swept = format!(
            "{SMALL}[sweep]\n{both} = [[\"alexnet\", \"5ms\"], [\"vgg19\", \"9ms\"]]\n\
             \"tenant.a.workers\" = [1, 2]\n"
        );
        let e = read(&swept, &[]).unwrap();
        assert_eq!(e.keys, ["tenant.a.model", "tenant.a.slo", "tenant.a.workers"]);
        let values: Vec<_> = e.points.iter().map(|p| p.values.join("/")).collect();
        assert_eq!(values, ["alexnet/5ms/1", "alexnet/5ms/2", "vgg19/9ms/1", "vgg19/9ms/2"]);
        assert_eq!(e.points[2].tenants[0].model, "vgg19");
        let one = format!("{both} = [[\"vgg19\", \"7ms\"]]").replace('"', "");
        let set = one.replace("vgg19", "\"vgg19\"").replace("7ms", "\"7ms\"");
        assert_eq!(read(&swept, &[&set]).unwrap().points.len(), 2);
        let message = |text: &str, set: &[&str]| read(text, set).err().unwrap();
        let alone = message(&swept, &["tenant.a.slo=1ms"]);
        assert!(alone.contains("is swept as `tenant.a.model, tenant.a.slo`"), "{alone}");
        let short = message(&swept.replace(", \"9ms\"]", "]"), &[]);
        assert!(short.contains("is no list of 2 values"), "{short}");
        let twice = message(&format!("{swept}\"tenant.a.slo\" = [\"1ms\"]\n"), &[]);
        assert!(twice.contains("is swept already"), "{twice}");
    }

    #[test]
    fn an_override_of_a_swept_key_replaces_its_values() {
        let swept = format!("{SMALL}[sweep]\n\"tenant.a.arrivals.rate\" = [1, 2]\n");
        let e = read(&swept, &["tenant.a.arrivals.rate=7"]).unwrap();
        assert_eq!((e.points.len(), e.points[0].values[0].as_str()), (1, "7"));
        let e = read(SMALL, &["sweep.\"tenant.a.workers\"=[1, 2, 3]", "repeats=2"]).unwrap();
        assert_eq!((e.points.len(), e.seeds), (3, vec![1, 2]));
        assert_eq!(e.points[2].tenants[0].workers, 3);
    }

    #[test]
    fn all_is_every_policy_that_has_no_row_of_its_own() {
        let text = SMALL.replace("name = \"mps\"", "name = \"all\"\ntolerance = 0.1");
        let e = read(&text, &[]).unwrap();
        let labels: Vec<_> = e.points[0].policies.iter().map(|p| p.label.as_str()).collect();
        assert_eq!(labels.len(), cotenant_sim::policy::ALL.len());
        assert_eq!(labels.iter().filter(|l| **l == "temporal").count(), 1);
        let percent = e.points[0].policies.iter().find(|p| p.label == "mps-percent").unwrap();
        assert_eq!(percent.options_text, "tolerance = 0.1");
    }

    #[test]
    fn what_is_resolved_reads_back_to_the_same() {
        let swept = format!("{SMALL}[sweep]\n\"tenant.a.arrivals.rate\" = [1, 2.5]\n");
        let once = read(&swept, &["device=a30", "tenant.a.batch.max=4"]).unwrap();
        let twice = read(&once.text, &[]).unwrap();
        assert_eq!(once.text, twice.text);
        assert_eq!(twice.points[1].tenants[0].batch_max, 4);
        assert_eq!(twice.points[1].device.name, "a30");
    }

    #[test]
    fn variables_are_expanded_or_named() {
        assert_eq!(expand_variables("a/${PATH}x").unwrap().len(), 3 + env_len("PATH"));
        let missing = expand_variables("${COTENANT_NO_SUCH}/x").unwrap_err();
        assert!(missing.contains("COTENANT_NO_SUCH, which is not set"), "{missing}");
        assert!(expand_variables("${open").is_err());
    }

    fn env_len(name: &str) -> usize {
        std::env::var(name).unwrap().len()
    }
}
