//! An experiment before its sweep is multiplied out. A point is made when it is asked for, so that
//! a study of a million cells takes no more memory than one of a hundred.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use cotenant_profiles::Device;
use cotenant_profiles::text::closest;
use cotenant_results::Metric;

use super::file::ExperimentFile;
use super::tree::{self, Data, Flaw, Node};
use super::{Experiment, Head, Overrides, TOP, path, plot, policy, report, sweep};
use crate::models;

/// A checked experiment whose points are checked one by one.
pub(crate) struct Grid {
    head: Arc<Head>,
    root: Node,
    axes: Vec<sweep::Axis>,
    points: usize,
    devices: Devices,
}

impl Grid {
    /// Reads an experiment file; its points are not looked at yet.
    ///
    /// # Errors
    /// A line for everything that is wrong: file, line, field, and what would be accepted.
    pub(crate) fn read(file: &Path, overrides: &Overrides) -> Result<Self, String> {
        let shown = file.display().to_string();
        let text = std::fs::read_to_string(file).map_err(|e| {
            let meant =
                if e.kind() == ErrorKind::NotFound { neighbour(file) } else { String::new() };
            format!("{shown}: {e}{meant}")
        })?;
        let base = file.parent().unwrap_or(Path::new("")).to_owned();
        Self::parse(&text, &shown, base, overrides)
    }

    /// As [`Grid::read`], from a text; `base` is the folder that its paths are relative to.
    ///
    /// # Errors
    /// As [`Grid::read`]; `file` is what messages call the text.
    pub(crate) fn parse(
        text: &str,
        file: &str,
        base: PathBuf,
        overrides: &Overrides,
    ) -> Result<Self, String> {
        Self::check(text, file, base, overrides).map_err(report)
    }

    fn check(
        text: &str,
        file: &str,
        base: PathBuf,
        overrides: &Overrides,
    ) -> Result<Self, Vec<Flaw>> {
        let one = |flaw: Flaw| vec![flaw];
        let mut root = tree::parse(text, file).map_err(one)?;
        policy::expand_all(&mut root).map_err(one)?;
        overrides.apply(&mut root).map_err(one)?;
        let resolved = super::render(&root);
        let axes = super::axes(&mut root).map_err(one)?;
        let keys: Vec<String> = axes.iter().flat_map(|a| a.fields.clone()).collect();
        let points = sweep::count(&axes).map_err(one)?;
        let devices = Mutex::default();
        let first = point(&root, &base, &axes, 0, &devices);
        let (first, mut flaws) = match first {
            Ok(first) => (Some(first), vec![]),
            Err(flaws) => (None, flaws),
        };
        let plots = plot::rows(&root, &keys, &mut flaws);
        let file = match first {
            Some((_, file)) if flaws.is_empty() => file,
            _ => {
                unknown_models(&root, &keys, &devices, &mut flaws);
                return Err(flaws);
            }
        };
        let head = Arc::new(Head {
            seeds: (file.seed..file.seed + file.repeats).collect(),
            name: file.name,
            question: file.question,
            rank_by: file.rank_by.as_deref().and_then(Metric::find),
            plots,
            base,
            keys,
            text: resolved,
        });
        Ok(Self { head, root, axes, points, devices })
    }

    /// The experiment without its points.
    pub(crate) fn head(&self) -> &Head {
        &self.head
    }

    /// The same, for whoever keeps it.
    #[cfg(test)]
    pub(super) fn shared(&self) -> Arc<Head> {
        self.head.clone()
    }

    /// How many combinations of sweep values there are; 1 where there is no sweep.
    pub(crate) fn len(&self) -> usize {
        self.points
    }

    /// The experiment with one of its points alone.
    ///
    /// # Errors
    /// As [`Grid::read`].
    pub(crate) fn at(&self, index: usize) -> Result<Experiment, String> {
        let point = point(&self.root, &self.head.base, &self.axes, index, &self.devices);
        let (point, _) = point.map_err(report)?;
        Ok(Experiment { head: self.head.clone(), point })
    }
}

/// Models that are not to be found, beside what else is wrong. Where nothing is, they are looked up when they
/// are made ready; those that the experiment's own profiles may have, and those that are swept, wait for that
/// anyway.
fn unknown_models(root: &Node, swept: &[String], devices: &Devices, flaws: &mut Vec<Flaw>) {
    let devices = devices.lock().expect("no thread panics while it reads a device");
    let Some(device) = devices.values().next() else { return };
    if root.get("profiles").is_some() || swept.iter().any(|key| key.ends_with("model")) {
        return;
    }
    let Some(Data::List(tenants)) = root.get("tenant").map(|e| &e.node.data) else { return };
    for (i, tenant) in tenants.iter().enumerate().filter(|(_, t)| t.get("engine").is_none()) {
        let Some(entry) = tenant.get("model") else { continue };
        let name = tenant.get("name").and_then(|e| e.node.text());
        let path = name.map_or_else(|| format!("tenant[{i}]"), |n| format!("tenant.{n}"));
        let why = entry.node.text().and_then(|model| models::unknown(model, device));
        flaws.extend(why.map(|why| Flaw::new(&entry.node.place, format!("{path}.model"), why)));
    }
}

/// Devices that have been read, by name.
type Devices = Mutex<BTreeMap<String, Arc<Device>>>;

fn point(
    root: &Node,
    base: &Path,
    axes: &[sweep::Axis],
    index: usize,
    devices: &Devices,
) -> Result<(super::Point, ExperimentFile), Vec<Flaw>> {
    let choice = sweep::combination(axes, index);
    let mut at_point = root.clone();
    for (key, value) in axes.iter().flat_map(|a| &a.fields).zip(&choice) {
        path::set(&mut at_point, key, value, &value.place, &TOP).map_err(|flaw| vec![flaw])?;
    }
    let mut devices = devices.lock().expect("no thread panics while it reads a device");
    let (mut point, file) = super::point(&at_point, base, &mut devices)?;
    point.values = choice.iter().map(|v| v.plain()).collect();
    Ok((point, file))
}

/// `: did you mean …?` where an experiment of nearly that name lies in the same folder.
fn neighbour(file: &Path) -> String {
    let stem = |file: &Path| file.file_stem().and_then(|s| s.to_str()).map(str::to_owned);
    let folder = file.parent().filter(|f| !f.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let files = entries.map(|e| e.path()).filter(|f| f.extension().is_some_and(|e| e == "toml"));
    let mut known: Vec<String> = files.filter_map(|f| stem(&f)).collect();
    known.sort();
    let wanted = stem(file).unwrap_or_default();
    closest(&wanted, known.iter().map(String::as_str)).map_or_else(String::new, |name| {
        let path = file.with_file_name(format!("{name}.toml"));
        format!(": did you mean `{}`?", path.display())
    })
}
