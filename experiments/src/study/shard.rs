//! `cotenant plan` and `cotenant run DIR --shard K/N`.

use std::path::{Path, PathBuf};
use std::time::Instant;

use super::advice::advice;
use super::commit::{self, Lack, Of};
use super::compute::{Slices, compute, threads};
use super::ground::Simulated;
use super::journal::{Journal, Kept};
use super::plan_file::PlanFile;
use super::stop::Stop;
use super::survey::{Extras, survey};
use super::{conflict, disagree, inputs};
use crate::config::{Grid, Overrides};
use crate::fail::{Done, Failure};
use crate::prepare::Preparer;
use crate::say;
use crate::text::count;

/// The options of `cotenant plan`.
pub(crate) struct PlanOptions {
    pub(crate) file: PathBuf,
    pub(crate) out: PathBuf,
    pub(crate) overrides: Overrides,
    pub(crate) shards: usize,
    pub(crate) extras: Extras,
    /// Whether to time a few cells and advise on the number of shards.
    pub(crate) advise: bool,
}

/// `cotenant plan`.
///
/// # Errors
/// Bad input; the folder holds other files.
pub(crate) fn plan(options: &PlanOptions) -> Done {
    let grid = Grid::read(&options.file, &options.overrides).map_err(Failure::Input)?;
    let base = grid.head().base.clone();
    let build = inputs::build().map_err(Failure::failed)?;
    let found =
        survey(grid, options.extras, options.shards, inputs::build).map_err(Failure::Input)?;
    let plan = PlanFile::of(&found, options.shards, &build, &base)?;
    let first = plan.write(&options.out, found.curves.as_deref())?;
    let cells = found.study.cells.len();
    say::out(&format!(
        "plan {} in {}{}: {} in {}\n",
        plan.plan,
        options.out.display(),
        if first { "" } else { " (there already)" },
        count(cells, "cell"),
        count(options.shards, "shard"),
    ))?;
    if options.advise {
        say::out(&advice(found.study, found.preparer, options.shards))?;
    }
    Ok(())
}

/// Which shard of how many, such as `3/64`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ShardOf {
    pub(crate) shard: usize,
    pub(crate) shards: usize,
}

impl std::str::FromStr for ShardOf {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.split_once('/');
        let parts = parts.and_then(|(k, n)| Some((k.parse().ok()?, n.parse().ok()?)));
        match parts {
            Some((shard, shards)) if shard < shards => Ok(Self { shard, shards }),
            Some((_, shards)) => Err(format!("shards of {shards} are counted from 0")),
            None => Err("write K/N, such as 3/64".to_owned()),
        }
    }
}

/// `cotenant run DIR --shard K/N`.
///
/// # Errors
/// Another plan, build or input; a signal; two attempts that disagree; a file that cannot be written.
pub(crate) fn run(dir: &Path, of: ShardOf, jobs: usize) -> Done {
    let start = Instant::now();
    let plan = PlanFile::read(dir)?;
    if of.shards != plan.shards {
        return Err(Failure::input(format!(
            "--shard {}/{}: the plan in {} has {}",
            of.shard,
            of.shards,
            dir.display(),
            count(plan.shards, "shard")
        )));
    }
    let (study, files) = plan.study()?;
    let shard_of = study.deal(plan.shards);
    let cells: Vec<usize> = (0..study.cells.len()).filter(|&i| shard_of[i] == of.shard).collect();
    let name = format!("shard {} of {}", of.shard, of.shards);
    match commit::read(&study, dir, of.shard, &cells)? {
        Ok(_) => {
            say::note(&format!("{name}: already complete"));
            return Ok(());
        }
        Err(Lack::Corrupt(why)) => say::warn(&format!("{name}: {why}; it is written again")),
        Err(Lack::Missing) => {}
    }
    let stop = Stop::listen()?;
    let mut kept = Kept::read(&study, dir, of.shard, true)?.map_err(|c| conflict(dir, &c))?;
    let todo: Vec<usize> = cells.iter().copied().filter(|&i| !kept.has(i)).collect();
    let reused = cells.len() - todo.len();
    say::note(&format!("{name}: {}, {reused} reused", count(cells.len(), "cell")));
    if !todo.is_empty() {
        let mut journal = Journal::create(dir, of.shard)?;
        let preparer = Preparer::with_files(files);
        let to = (dir, &mut journal);
        let threads = threads(jobs);
        let slices = Slices::new(&study, preparer, threads + 1);
        let elsewhere = study.cells.len() - todo.len();
        if !compute(&slices, &Simulated::default(), (elsewhere, todo), threads, to, &stop)? {
            return Err(Failure::Stopped(format!("{name}: stopped; run it again to resume")));
        }
        kept = Kept::read(&study, dir, of.shard, false)?.map_err(|c| conflict(dir, &c))?;
    }
    // Another attempt may have been faster. Its results must equal ours.
    let earlier = commit::read(&study, dir, of.shard, &cells)?.ok();
    let of = Of {
        shard: of.shard,
        shards: of.shards,
        build: &plan.build,
        wall_s: start.elapsed().as_secs_f64(),
    };
    if let Some(earlier) = &earlier {
        let ours = commit::describe(&study, &of, &kept, &cells)?;
        if !ours.agrees(earlier) {
            return Err(disagree(dir, of.shard, earlier, &ours));
        }
        say::note(&format!("{name}: another attempt finished first, with the same result"));
        return Ok(());
    }
    let ours = commit::write(&study, dir, &of, &kept, &cells)?;
    match commit::read(&study, dir, of.shard, &cells)? {
        Ok(there) if there.agrees(&ours) => {}
        Ok(there) => return Err(disagree(dir, of.shard, &there, &ours)),
        Err(lack) => {
            let what = format!("{name} does not read back as it was written: {lack}");
            return Err(Failure::Io(what));
        }
    }
    say::note(&format!("{name}: complete"));
    Ok(())
}
