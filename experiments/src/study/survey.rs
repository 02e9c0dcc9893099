//! Checks every point of an experiment before anything is computed: names its cells and reports whatever is
//! wrong.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::OnceLock;

use cotenant_results::{PlotKind, RunInfo};

use super::Study;
use super::names::Names;
use crate::config::{Grid, Head};
use crate::curves;
use crate::digest;
use crate::info::Gather;
use crate::plan;
use crate::prepare::Preparer;
use crate::watch::Wants;

/// The result of a survey.
pub(crate) struct Survey {
    pub(crate) study: Study,
    /// `run.json` of an experiment before any of its cells has run.
    pub(crate) run: RunInfo,
    /// `curves.csv`, if a plot needs it.
    pub(crate) curves: Option<Vec<u8>>,
    /// Input files with their digests.
    pub(crate) files: BTreeMap<PathBuf, String>,
    /// Holds everything that was read.
    pub(crate) preparer: Preparer,
}

/// What the command line adds to an experiment file.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Extras {
    pub(crate) requests: bool,
    /// Requests as Parquet.
    pub(crate) parquet: bool,
    pub(crate) timeline: bool,
}

/// Names every cell. `shards` and the `build` of the program enter the plan's identity.
///
/// # Errors
/// Bad input: a model that cannot be found, a trace that cannot be read.
pub(crate) fn survey(
    grid: Grid,
    extras: Extras,
    shards: usize,
    build: impl FnOnce() -> Result<String, String>,
) -> Result<Survey, String> {
    let mut preparer = Preparer::default();
    let mut gather = Gather::default();
    let head = grid.head();
    let plots = |kind| head.plots.iter().any(|p| p.kind == kind);
    let mut wants = Wants {
        cdf: plots(PlotKind::Cdf),
        series: plots(PlotKind::Timeline),
        requests: extras.requests,
        parquet: extras.parquet,
        timeline: extras.timeline,
    };
    let (mut cells, mut twins) = (Names::default(), BTreeMap::new());
    let mut works: HashMap<[u8; 16], usize> = HashMap::new();
    let mut drawn = None;
    for p in 0..grid.len() {
        let e = grid.at(p)?;
        let point = &e.point;
        let facts = preparer.facts(&e, point)?;
        gather.add(point, &facts.profiles, &facts.isolated, &facts.slos);
        wants.series |= point.series.is_some();
        for cell in plan::cells_of(&e, &facts.meaning) {
            let i = cells.len();
            let first = *works.entry(short(&cell.work)).or_insert(i);
            if first != i {
                twins.insert(i, first);
            }
            cells.push(&cell.id);
        }
        if p == 0 && plots(PlotKind::Curves) {
            drawn = Some(curves::of_tenants(point, &facts.profiles));
        }
    }
    let experiment = plan::digest(&head.name, cells.iter());
    let plan = identity(head, &experiment, wants, shards, &build()?);
    gather.notes(preparer.notes());
    let run = gather.finish(head, experiment);
    let study = Study { grid, wants, cells, twins, plan, by_name: OnceLock::new() };
    let files = preparer.files().clone();
    Ok(Survey { study, run, curves: drawn, files, preparer })
}

/// Identifies a study: the same identity means the same files.
fn identity(head: &Head, experiment: &str, wants: Wants, shards: usize, build: &str) -> String {
    let wants = serde_json::json!(wants);
    let text = format!("{experiment} {wants} {shards} {build}\n{}", head.text);
    digest::of_text(&text)[..16].to_owned()
}

/// The first half of a hexadecimal digest: enough to tell computations apart.
fn short(work: &str) -> [u8; 16] {
    let mut half = [0; 16];
    for (byte, pair) in half.iter_mut().zip(work.as_bytes().chunks(2)) {
        let text = std::str::from_utf8(pair).expect("a digest in hex");
        *byte = u8::from_str_radix(text, 16).expect("a digest in hex");
    }
    half
}
