//! An experiment file: read, overridden by `--set`, expanded by `[sweep]`, checked. The result is complete
//! except for the contents of other files (profiles, traces).

mod arrivals;
mod check;
mod engine;
pub(crate) mod fields;
mod file;
mod fleet;
mod grid;
mod path;
mod plot;
pub(crate) mod policy;
mod policy_schema;
mod sweep;
mod tenant;
mod tree;
pub(crate) mod units;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

use cotenant_profiles::{Device, Nanos};
use cotenant_results::{Metric, PlotSpec};

use self::check::Checker;
use self::file::{ExperimentFile, ProfilesFile};
use self::tree::{Data, Entry, Flaw, Node, Place};
pub(crate) use check::toml as toml_text;
pub(crate) use engine::EngineConfig;
pub(crate) use fields::no_such;
pub(crate) use file::{CostMode, published as schema};
pub(crate) use fleet::FleetConfig;
pub(crate) use grid::Grid;
pub(crate) use policy::{PolicyRow, no_policy};
pub(crate) use tenant::{Part, Slo, TenantConfig};

/// What all points of a checked experiment have in common.
pub(crate) struct Head {
    pub(crate) name: String,
    pub(crate) question: Option<String>,
    /// Metric that ranks policies if no tenant has a goal.
    pub(crate) rank_by: Option<Metric>,
    /// Folder of the file, to which its paths are relative.
    pub(crate) base: PathBuf,
    /// One per repeat.
    pub(crate) seeds: Vec<u64>,
    /// Sweep keys in file order.
    pub(crate) keys: Vec<String>,
    pub(crate) plots: Vec<PlotSpec>,
    /// The resolved experiment, overrides included.
    pub(crate) text: String,
}

/// A checked experiment at one of its points.
#[derive(Clone)]
pub(crate) struct Experiment {
    head: Arc<Head>,
    /// One combination of sweep values; the only one if there is no sweep.
    pub(crate) point: Point,
}

impl std::ops::Deref for Experiment {
    type Target = Head;

    fn deref(&self) -> &Head {
        &self.head
    }
}

impl Experiment {
    /// An experiment of one point and one seed that is not in any file.
    pub(crate) fn alone(name: &str, base: PathBuf, seed: u64, point: Point) -> Self {
        let head = Head {
            name: name.to_owned(),
            question: None,
            rank_by: None,
            base,
            seeds: vec![seed],
            keys: vec![],
            plots: vec![],
            text: String::new(),
        };
        Self { head: Arc::new(head), point }
    }
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
    /// Bin width of the time series, if one was asked for.
    pub(crate) series: Option<Nanos>,
    /// Coefficient of variation of kernel times.
    pub(crate) jitter: f64,
    /// Sorted by name, so that results do not depend on the order in the file: at equal instants the first
    /// name goes first. Results list them in the order of the file.
    pub(crate) tenants: Vec<TenantConfig>,
    pub(crate) policies: Vec<PolicyRow>,
    pub(crate) profiles: Vec<ProfileSource>,
    /// Several GPUs, or one that fails; `None` for `device` alone.
    pub(crate) fleet: Option<FleetConfig>,
}

/// The context in which outages are checked.
struct Failures<'a> {
    root: &'a Node,
    /// Number of GPUs.
    count: usize,
    warmup: Nanos,
    duration: Nanos,
}

impl Point {
    /// Indices of the tenants, in the order of the file.
    pub(crate) fn as_listed(&self) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.tenants.len()).collect();
        order.sort_by_key(|&t| self.tenants[t].place);
        order
    }
}

/// Where to look for profiles before the built-in ones.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum ProfileSource {
    /// A folder of profile files.
    Folder(PathBuf),
    /// Another tool's measurement, read again in every run.
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

const LISTS: &[&str] = &["tenant", "policy", "sweep", "plot"];
/// Keys that are the same in every point.
const UNSWEPT: &[&str] = &["name", "question", "rank_by", "repeats", "seed"];
/// Most errors that are reported at once.
const MOST_FLAWS: usize = 10;

static SCHEMA: LazyLock<Checker> = LazyLock::new(|| Checker::new(file::schema()));

/// Keys that are plain fields of an experiment.
pub(crate) static TOP: LazyLock<Vec<String>> = LazyLock::new(|| {
    SCHEMA.keys().into_iter().filter(|key| !LISTS.contains(&key.as_str())).collect()
});

/// Everything that is wrong with a file, in the order of the file, one line each.
pub(crate) fn report(mut flaws: Vec<Flaw>) -> String {
    flaws.sort_by_key(|flaw| match &flaw.place {
        Place::Flag(_) => 0,
        Place::Line(_, line) => *line,
    });
    flaws.dedup();
    let shown: Vec<String> = flaws.iter().take(MOST_FLAWS).map(Flaw::to_string).collect();
    let more = flaws.len() - shown.len();
    let rest = if more > 0 { format!("\n… and {more} more") } else { String::new() };
    shown.join("\n") + &rest
}

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
                return Err(Flaw::new(&place, "", "write KEY=VALUE"));
            };
            let key = key.trim();
            let value = tree::parse_value(value.trim(), &flag, key)?;
            if !set_sweep(root, key, &value, &place) {
                swept_with_others(root, key, &place)?;
                path::set(root, key, &value, &place, &TOP)?;
            }
        }
        if let Some(seed) = self.seed {
            let place = Place::Flag("--seed".into());
            let seed =
                i64::try_from(seed).map_err(|_| Flaw::new(&place, "seed", "is not below 2^63"))?;
            let value = Node { place: place.clone(), data: Data::Integer(seed) };
            path::set(root, "seed", &value, &place, &TOP)?;
        }
        Ok(())
    }
}

/// A field that is swept together with others cannot be set alone: the sweep would override it.
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

/// If the key is swept, sweeps it over the given value or values instead; `sweep.KEY` adds a sweep.
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

/// Checks the name of an experiment.
fn name_of(root: &Node, name: &str) -> Result<(), Flaw> {
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if !name.is_empty() && name.len() <= 80 && !name.starts_with('.') && name.chars().all(legal) {
        return Ok(());
    }
    let why = format!(
        "`{name}` is not a valid name: it becomes a folder, so use 1 to 80 letters, digits, -, _ and ."
    );
    Err(flaw(root, "name", why))
}

/// An error in a top-level `key`; its place is that of the file if the key is absent.
fn flaw(root: &Node, key: &str, why: impl Into<String>) -> Flaw {
    let place = root.get(key).map_or(&root.place, |e| &e.node.place);
    Flaw::new(place, key, why)
}

/// The keys of the experiment that are not lists, checked against the schema.
fn top(root: &Node, flaws: &mut Vec<Flaw>) -> Option<ExperimentFile> {
    let mut found = vec![];
    SCHEMA.check(root, "", LISTS, &mut found);
    for flaw in found.iter_mut().filter(|f| f.message.starts_with("unknown key")) {
        if tenant::has_key(&flaw.field) {
            flaw.message = format!("belongs in a [[tenant]] table; unknown here{}", {
                let known = TOP.iter().map(String::as_str);
                crate::fail::did_you_mean(&flaw.field, known)
            });
        }
    }
    let fine = found.is_empty();
    flaws.append(&mut found);
    if !fine {
        return None;
    }
    let without_lists = |e: &&Entry| !LISTS.contains(&e.key.as_str());
    let plain = root.entries().unwrap_or_default().iter().filter(without_lists);
    let mut json: serde_json::Map<_, _> = plain.map(|e| (e.key.clone(), e.node.json())).collect();
    for list in LISTS {
        json.insert((*list).to_owned(), serde_json::Value::Null);
    }
    let read = serde_json::from_value(json.into());
    read.map_err(|e| flaws.push(Flaw::new(&root.place, "", e.to_string()))).ok()
}

fn point(
    root: &Node,
    base: &Path,
    devices: &mut BTreeMap<String, Arc<Device>>,
) -> Result<(Point, ExperimentFile), Vec<Flaw>> {
    let mut flaws = vec![];
    let file = top(root, &mut flaws);
    let name = root.get("device").and_then(|e| e.node.text());
    let device = name
        .and_then(|name| device(root, name, base, devices).map_err(|flaw| flaws.push(flaw)).ok());
    let before = flaws.len();
    let mut tenants = tenant::rows(root, device.as_deref(), &mut flaws);
    // References to tenants in a policy cannot be checked if a tenant is missing.
    let names =
        (flaws.len() == before).then(|| tenants.iter().map(|t| t.name.clone()).collect::<Vec<_>>());
    let policies = policy::rows(root, names.as_deref(), &mut flaws);
    tenants.sort_by(|a, b| a.name.cmp(&b.name));
    let (Some(file), Some(device)) = (file, device) else { return Err(flaws) };
    let profiles = profiles(root, &file, base, &mut flaws);
    let (duration, series) = (file.duration.0, file.series.map(|t| t.0));
    if let Some(bin) = series.filter(|bin| *bin > duration || duration.0 / bin.0 > 100_000) {
        let why = format!(
            "`{bin}` makes no bin or over 100000 of the duration {duration}; choose a part of it"
        );
        flaws.push(flaw(root, "series", why));
    }
    let fleet = fleet::read(root, &file, base, &device, devices, &tenants, &mut flaws);
    if let Err(flaw) = name_of(root, &file.name) {
        flaws.push(flaw);
    }
    if !flaws.is_empty() {
        return Err(flaws);
    }
    let point = Point {
        values: vec![],
        device,
        costs: file.costs,
        contention: contention(file.contention.as_deref()),
        duration,
        warmup: file.warmup.map_or(Nanos::ZERO, |t| t.0),
        series,
        jitter: file.jitter,
        policies,
        tenants,
        profiles,
        fleet,
    };
    Ok((point, file))
}

/// A contention model of the registry; the schema has checked its name.
fn contention(name: Option<&str>) -> &'static str {
    let known = cotenant_sim::contention::NAMES.iter().find(|known| Some(**known) == name);
    known.copied().unwrap_or(cotenant_sim::contention::DEFAULT)
}

fn device(
    root: &Node,
    name: &str,
    base: &Path,
    known: &mut BTreeMap<String, Arc<Device>>,
) -> Result<Arc<Device>, Flaw> {
    device_named(root, "device", name, base, known)
}

/// The device that `key` names.
fn device_named(
    root: &Node,
    key: &str,
    name: &str,
    base: &Path,
    known: &mut BTreeMap<String, Arc<Device>>,
) -> Result<Arc<Device>, Flaw> {
    let name = expand_variables(name).map_err(|why| flaw(root, key, why))?;
    if let Some(device) = known.get(&name) {
        return Ok(device.clone());
    }
    let device = Device::find(&name, base).map_err(|e| flaw(root, key, e.to_string()))?;
    let device = Arc::new(device);
    known.insert(name, device.clone());
    Ok(device)
}

fn profiles(
    root: &Node,
    file: &ExperimentFile,
    base: &Path,
    flaws: &mut Vec<Flaw>,
) -> Vec<ProfileSource> {
    let list = root.get("profiles").map(|e| &e.node.data);
    let Some(Data::List(nodes)) = list else { return vec![] };
    let sources = file.profiles.iter().zip(nodes).enumerate();
    let read = sources.map(|(i, (source, node))| profile_source(source, node, i, base));
    read.filter_map(|source| source.map_err(|flaw| flaws.push(flaw)).ok()).collect()
}

fn profile_source(
    source: &ProfilesFile,
    node: &Node,
    i: usize,
    base: &Path,
) -> Result<ProfileSource, Flaw> {
    let field = format!("profiles[{i}]");
    let existing = |text: &str, folder: bool| {
        let expanded = expand_variables(text);
        let path = base.join(expanded.map_err(|why| Flaw::new(&node.place, &field, why))?);
        let there = if folder { path.is_dir() } else { path.exists() };
        let what = if folder { "folder" } else { "file or folder" };
        let missing =
            || Flaw::new(&node.place, &field, format!("there is no {what} {}", path.display()));
        if there { Ok(path) } else { Err(missing()) }
    };
    match source {
        ProfilesFile::Folder(text) => existing(text, true).map(ProfileSource::Folder),
        ProfilesFile::Import(import) => Ok(ProfileSource::Import {
            format: imported(&import.import),
            path: existing(&import.path, false)?,
            at: Flaw::new(&node.place, format!("{field}.import"), "").to_string(),
        }),
    }
}

/// A format of [`IMPORTS`]; the schema has checked its name.
fn imported(name: &str) -> &'static str {
    IMPORTS.iter().find(|known| **known == name).expect("a word of the schema")
}

/// The `[[plot]]` tables of a file, checked against a sweep.
///
/// # Errors
/// One line for each error.
pub(crate) fn plots(file: &Path, sweep_keys: &[String]) -> Result<Vec<PlotSpec>, String> {
    let shown = file.display().to_string();
    let text = std::fs::read_to_string(file).map_err(|e| format!("{shown}: {e}"))?;
    let root = tree::parse(&text, &shown).map_err(|flaw| flaw.to_string())?;
    let mut flaws = vec![];
    let specs = plot::rows(&root, sweep_keys, &mut flaws);
    if specs.is_empty() && flaws.is_empty() {
        return Err(format!("{shown}: plot: is missing; add a [[plot]] table"));
    }
    if flaws.is_empty() { Ok(specs) } else { Err(report(flaws)) }
}

/// Replaces `${NAME}` with the environment variable's value.
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
/// A text without `=`, or an invalid value.
pub(crate) fn table_of_assignments(texts: &[String]) -> Result<serde_json::Value, String> {
    let mut table = serde_json::Map::new();
    for text in texts {
        let (key, value) = text
            .split_once('=')
            .ok_or_else(|| format!("`{text}` is not of the form FIELD=VALUE"))?;
        let value = tree::parse_value(value.trim(), text, key).map_err(|e| e.to_string())?;
        table.insert(key.trim().to_owned(), value.json());
    }
    Ok(table.into())
}

/// The tree as the text of an experiment file.
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

    /// The head, and all points; the last key varies fastest.
    struct All {
        head: Arc<Head>,
        points: Vec<Point>,
    }

    impl std::ops::Deref for All {
        type Target = Head;

        fn deref(&self) -> &Head {
            &self.head
        }
    }

    fn read(text: &str, set: &[&str]) -> Result<All, String> {
        let set = set.iter().map(|&s| s.to_owned()).collect();
        let grid = Grid::parse(text, "f.toml", PathBuf::new(), &Overrides { set, seed: None })?;
        let points = (0..grid.len()).map(|i| Ok(grid.at(i)?.point));
        let points = points.collect::<Result<_, String>>()?;
        Ok(All { head: grid.shared(), points })
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
        assert!(short.contains("is not a list of 2 values"), "{short}");
        let twice = message(&format!("{swept}\"tenant.a.slo\" = [\"1ms\"]\n"), &[]);
        assert!(twice.contains("is swept already"), "{twice}");
    }

    #[test]
    fn an_override_of_a_swept_key_replaces_its_values() {
        let swept = format!("{SMALL}[sweep]\n\"tenant.a.arrivals.rate\" = [1, 2]\n");
        let e = read(&swept, &["tenant.a.arrivals.rate=7"]).unwrap();
        assert_eq!((e.points.len(), e.points[0].values[0].as_str()), (1, "7"));
        let e = read(SMALL, &["sweep.\"tenant.a.workers\"=[1, 2, 3]", "repeats=2"]).unwrap();
        assert_eq!((e.points.len(), e.seeds.clone()), (3, vec![1, 2]));
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
