//! `plan.json`: what a sharded study computes. It is written once; all later commands read it.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use cotenant_results::RunInfo;
use serde::{Deserialize, Serialize};

use super::inputs::{self, Input};
use super::names::Names;
use super::seal;
use super::survey::Survey;
use super::tables::{Making, sync_folder, write_synced};
use super::{Study, record};
use crate::config::{Grid, Overrides};
use crate::digest;
use crate::fail::{Done, Failure};
use crate::folder::{self, PLAN};
use crate::watch::Wants;

/// The name and version of the format.
const FORMAT: &str = "cotenant-plan v1";

/// The content of `plan.json`.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
pub(crate) struct PlanFile {
    format: String,
    /// Identifies the plan in every file of the study.
    pub(crate) plan: String,
    pub(crate) shards: usize,
    pub(crate) version: String,
    /// Digest of the program's executable.
    pub(crate) build: String,
    /// Folder that the experiment's paths are relative to.
    base: PathBuf,
    /// Environment variables that the experiment refers to.
    variables: BTreeMap<String, String>,
    /// Traces and other files that the experiment reads.
    pub(crate) inputs: Vec<Input>,
    wants: Wants,
    /// `curves.csv`, written with the plan.
    pub(crate) curves: Option<record::Extra>,
    /// `run.json`, as far as it is known before the run.
    pub(crate) run: RunInfo,
    /// Cells that share the computation of an earlier cell, each paired with that cell.
    twins: Vec<(usize, usize)>,
    /// Names of the cells in the order of `results.csv`.
    cells: Names,
}

impl PlanFile {
    /// The plan for the result of a survey; `base` is the experiment's folder.
    ///
    /// # Errors
    /// An input no longer exists.
    pub(crate) fn of(found: &Survey, shards: usize, build: &str, base: &Path) -> Done<Self> {
        let base = if base == Path::new("") { Path::new(".") } else { base };
        let curves = found.curves.as_ref().map(|bytes| record::Extra {
            path: "curves.csv".to_owned(),
            bytes: bytes.len() as u64,
            sha256: digest::of_bytes(bytes),
        });
        Ok(Self {
            format: FORMAT.to_owned(),
            plan: found.study.plan.clone(),
            shards,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            build: build.to_owned(),
            base: inputs::absolute(base)?,
            variables: inputs::variables(&found.run.config),
            inputs: inputs::list(&found.files)?,
            wants: found.study.wants,
            curves,
            run: found.run.clone(),
            twins: found.study.twins.iter().map(|(&twin, &first)| (twin, first)).collect(),
            cells: found.study.cells.clone(),
        })
    }

    /// Writes the plan, unless the folder has one. The first writer wins; returns whether that was this call.
    ///
    /// # Errors
    /// The folder holds another plan, or something else; it cannot be written.
    pub(crate) fn write(&self, dir: &Path, curves: Option<&[u8]>) -> Done<bool> {
        let path = dir.join(PLAN);
        if !path.exists() && !folder::is_free(dir) {
            let why = "exists and holds no plan; choose another folder";
            return Err(Failure::input(format!("--out {}: {why}", dir.display())));
        }
        fs::create_dir_all(dir).map_err(|e| Failure::io(dir, e))?;
        let beside = dir.join(format!("{PLAN}.{}.tmp", std::process::id()));
        let mut making = Making::begin(&beside)?;
        making.fill(|file| seal::document(self, file))?;
        making.finish()?;
        let linked = fs::hard_link(&beside, &path);
        let _ = fs::remove_file(&beside);
        let first = match linked {
            Ok(()) => true,
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                self.same_as(&Self::read(dir)?, dir)?;
                false
            }
            Err(e) => return Err(Failure::io(&path, e)),
        };
        if let Some(curves) = curves {
            write_synced(&dir.join("curves.csv"), curves)?;
        }
        sync_folder(dir).map_err(|e| Failure::io(dir, e))?;
        Ok(first)
    }

    fn same_as(&self, known: &Self, dir: &Path) -> Done {
        if known == self {
            return Ok(());
        }
        let what = if known.shards != self.shards {
            format!("of {} shards, not {}", known.shards, self.shards)
        } else if known.build != self.build {
            "made by another build of this program".to_owned()
        } else if known.inputs != self.inputs {
            "with other trace files".to_owned()
        } else {
            "of another experiment, or with other options".to_owned()
        };
        Err(Failure::input(format!(
            "{}: holds a plan {what}; choose another folder",
            dir.join(PLAN).display()
        )))
    }

    /// Reads the plan of a folder.
    ///
    /// # Errors
    /// There is none, or it is damaged.
    pub(crate) fn read(dir: &Path) -> Done<Self> {
        let path = dir.join(PLAN);
        let plan: Option<Self> = seal::read(&path).map_err(|e| match e.kind() {
            io::ErrorKind::NotFound => Failure::input(format!(
                "{}: there is no plan here; make one with `cotenant plan EXP.toml --out {} \
                 --shards N`",
                path.display(),
                dir.display()
            )),
            _ => Failure::io(&path, e),
        })?;
        plan.filter(|p| p.format == FORMAT && p.shards > 0 && !p.cells.is_empty()).ok_or_else(
            || {
                let why = "damaged, edited, or of another version; make the plan again elsewhere";
                Failure::input(format!("{}: {why}", path.display()))
            },
        )
    }

    /// The study to compute. Checks that build and inputs are those of the plan.
    ///
    /// # Errors
    /// This is another build; an input has changed; the experiment no longer parses.
    pub(crate) fn study(&self) -> Done<(Study, BTreeMap<PathBuf, String>)> {
        let build = inputs::build().map_err(Failure::failed)?;
        if build != self.build {
            return Err(Failure::input(format!(
                "the plan was made by build {} of this program, and this is build {build}: every \
                 shard has to be computed by the same executable",
                self.build
            )));
        }
        let files = inputs::check(&self.inputs)?;
        Ok((self.listed()?, files))
    }

    /// The cells of the plan, for commands that compute nothing.
    ///
    /// # Errors
    /// The experiment no longer parses.
    pub(crate) fn listed(&self) -> Done<Study> {
        let text = inputs::fill(&self.run.config, &self.variables);
        let grid = Grid::parse(&text, PLAN, self.base.clone(), &Overrides::default());
        let grid = grid.map_err(Failure::Input)?;
        if !self.cells.len().is_multiple_of(grid.len()) {
            return Err(Failure::input(format!("{PLAN}: its cells are not those of its sweep")));
        }
        Ok(Study {
            grid,
            wants: self.wants,
            cells: self.cells.clone(),
            twins: self.twins.iter().copied().collect(),
            plan: self.plan.clone(),
            by_name: OnceLock::new(),
        })
    }
}
