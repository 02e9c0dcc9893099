//! An experiment before its sweep is multiplied out. A point is made when it is asked for, so that
//! a study of a million cells takes no more memory than one of a hundred.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use cotenant_profiles::Device;
use cotenant_results::Metric;

use super::fields::Fields;
use super::tree::{self, Flaw, Node};
use super::{Experiment, LISTS, Overrides, TOP, path, plot, policy, sweep};

/// A checked experiment whose points are checked one by one.
pub(crate) struct Grid {
    /// The experiment without its points.
    head: Experiment,
    root: Node,
    axes: Vec<sweep::Axis>,
    points: usize,
    devices: Devices,
}

impl Grid {
    /// Reads an experiment file; its points are not looked at yet.
    ///
    /// # Errors
    /// One line: file, line, field, what is wrong, and what would be accepted.
    pub(crate) fn read(file: &Path, overrides: &Overrides) -> Result<Self, String> {
        let shown = file.display().to_string();
        let text = std::fs::read_to_string(file).map_err(|e| format!("{shown}: {e}"))?;
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
        Self::check(text, file, base, overrides).map_err(|flaw| flaw.to_string())
    }

    fn check(text: &str, file: &str, base: PathBuf, overrides: &Overrides) -> Result<Self, Flaw> {
        let mut root = tree::parse(text, file)?;
        let known: Vec<&str> = TOP.iter().chain(LISTS).copied().collect();
        Fields::new(&root, "", &known)?;
        policy::expand_all(&mut root)?;
        overrides.apply(&mut root)?;
        let resolved = super::render(&root);
        let axes = super::axes(&mut root)?;
        let keys: Vec<String> = axes.iter().flat_map(|a| a.fields.clone()).collect();
        let points = sweep::count(&axes)?;
        let devices = Mutex::default();
        // What is wrong with all points is told before what is wrong with the experiment.
        point(&root, &base, &axes, 0, &devices)?;
        let f = Fields::new(&root, "", &known)?;
        let head = Experiment {
            name: super::name(&f)?,
            question: f.text("question")?.map(str::to_owned),
            rank_by: f.choice("rank_by", &Metric::ALL.map(Metric::name))?.and_then(Metric::find),
            seeds: super::seeds(&f)?,
            plots: plot::rows(&root, &keys)?,
            base,
            keys,
            points: vec![],
            text: resolved,
        };
        Ok(Self { head, root, axes, points, devices })
    }

    /// The experiment without its points.
    pub(crate) fn head(&self) -> &Experiment {
        &self.head
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
        let points = vec![point.map_err(|flaw| flaw.to_string())?];
        Ok(Experiment { points, ..self.head.clone() })
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
) -> Result<super::Point, Flaw> {
    let choice = sweep::combination(axes, index);
    let mut at_point = root.clone();
    for (key, value) in axes.iter().flat_map(|a| &a.fields).zip(&choice) {
        path::set(&mut at_point, key, value, &value.place, TOP)?;
    }
    let mut devices = devices.lock().expect("no thread panics while it reads a device");
    let mut point = super::point(&at_point, base, &mut devices)?;
    point.values = choice.iter().map(|v| v.plain()).collect();
    Ok(point)
}
