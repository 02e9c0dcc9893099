//! `cotenant merge DIR`: merges the shards' tables into the results of one study.
//!
//! The commit records tell where each cell's rows go, so the shards are copied into place one after another:
//! memory does not grow with the rows.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufReader, Read as _, Seek as _, SeekFrom};
use std::path::Path;
use std::time::{Duration, Instant};

use super::commit::{self, Commit, Lack, table_file};
use super::journal::Kept;
use super::plan_file::PlanFile;
use super::record::TABLES;
use super::tables::{self, Making};
use super::{CONFLICTS, Study, conflict};
use crate::fail::{Done, Failure};
use crate::folder::Folder;
use crate::info::{self, Tally};
use crate::say;
use crate::show::{Show, tell};
use crate::text::count;

/// The options of `cotenant merge`.
pub(crate) struct Options<'a> {
    pub(crate) dir: &'a Path,
    pub(crate) allow_missing: bool,
    /// How long to keep looking for shards that are not visible yet.
    pub(crate) wait: Duration,
}

/// The state of every shard, established from the files.
pub(crate) struct Proof {
    /// Cells by shard, in the order of the plan.
    pub(crate) cells: Vec<Vec<usize>>,
    pub(crate) shards: Vec<Result<Commit, Lack>>,
}

impl Proof {
    /// Checks every shard.
    ///
    /// # Errors
    /// An existing file cannot be read.
    pub(crate) fn of(study: &Study, dir: &Path, shards: usize) -> Done<Self> {
        let mut cells = vec![vec![]; shards];
        for (i, shard) in study.deal(shards).into_iter().enumerate() {
            cells[shard].push(i);
        }
        let read = |(shard, cells): (usize, &Vec<usize>)| commit::read(study, dir, shard, cells);
        let shards = cells.iter().enumerate().map(read).collect::<Done<_>>()?;
        Ok(Self { cells, shards })
    }

    /// The shards that are not finished.
    pub(crate) fn lacking(&self) -> Vec<usize> {
        (0..self.shards.len()).filter(|&s| self.shards[s].is_err()).collect()
    }

    /// Number of cells in the finished shards.
    fn present(&self) -> usize {
        self.cells.iter().zip(&self.shards).filter(|(_, s)| s.is_ok()).map(|(c, _)| c.len()).sum()
    }
}

/// `cotenant merge`.
///
/// # Errors
/// Cells are missing; attempts disagree; a file cannot be read or written.
pub(crate) fn merge(options: &Options<'_>) -> Done {
    let start = Instant::now();
    let dir = options.dir;
    let plan = PlanFile::read(dir)?;
    let study = plan.listed()?;
    let mut proof = Proof::of(&study, dir, plan.shards)?;
    while !proof.lacking().is_empty() && start.elapsed() < options.wait {
        std::thread::sleep(Duration::from_secs(2).min(options.wait));
        proof = Proof::of(&study, dir, plan.shards)?;
    }
    no_conflict(&study, dir, plan.shards)?;
    let (present, all) = (proof.present(), study.cells.len());
    let lacking = proof.lacking();
    if !lacking.is_empty() {
        let list = compact(&lacking);
        for &shard in &lacking {
            if let Err(lack @ Lack::Corrupt(_)) = &proof.shards[shard] {
                say::warn(&format!("shard {shard}: {lack}"));
            }
        }
        let what = format!("{present} of {}; not finished: --array={list}", count(all, "cell"),);
        if !options.allow_missing || present == 0 {
            return Err(Failure::Incomplete(what));
        }
        say::warn(&what);
    }
    let mut folder = Folder::of(dir);
    copy(&study, dir, &proof, &mut folder)?;
    if let Some(curves) = &plan.curves {
        if !curves.is_whole(dir) {
            let what = format!("{} is damaged; make the plan again", curves.path);
            return Err(Failure::Incomplete(what));
        }
        folder.keep(&curves.path);
    }
    let mut run = tally(&study, &proof).finish(plan.run, hosts(&proof), wall_s(&proof));
    if present < all {
        run.warnings.push(format!("incomplete: {present} of {}", count(all, "cell")));
    }
    let run = info::with_winners(run, dir).map_err(Failure::into_io)?;
    folder.write("run.json", |file| run.write_json(file)).map_err(Failure::into_io)?;
    folder.finish().map_err(Failure::into_io)?;
    match tell(dir, &run, Show::default()) {
        // The results are complete: a cell that failed is one of the results.
        Err(Failure::Failed(why)) => {
            say::warn(&why);
            Ok(())
        }
        told => told,
    }
}

/// Attempts that disagree cast doubt on all results: nothing is merged then.
fn no_conflict(study: &Study, dir: &Path, shards: usize) -> Done {
    for shard in 0..shards {
        if let Err(found) = Kept::read(study, dir, shard, false)? {
            return Err(conflict(dir, &found));
        }
    }
    let kept = dir.join(CONFLICTS);
    let any = std::fs::read_dir(&kept).is_ok_and(|mut entries| entries.next().is_some());
    if any {
        return Err(Failure::Conflict(format!(
            "{} holds results on which attempts disagree; nothing is merged until it is removed",
            kept.display()
        )));
    }
    Ok(())
}

/// Copies every cell's rows into place.
fn copy(study: &Study, dir: &Path, proof: &Proof, folder: &mut Folder) -> Done {
    let headers = tables::headers(&study.grid.head().keys);
    for (t, name) in TABLES.iter().enumerate() {
        let commits = || proof.shards.iter().flatten();
        if !commits().any(|c| c.tables.iter().any(|table| table.name == *name)) {
            continue;
        }
        let mut bytes = vec![0; study.cells.len()];
        for (cells, commit) in proof.cells.iter().zip(&proof.shards) {
            let Ok(commit) = commit else { continue };
            cells.iter().zip(commit.cells.iter()).for_each(|(&i, done)| bytes[i] = done.bytes[t]);
        }
        let mut offset = headers[t].len() as u64;
        // From here on, `bytes` holds where the rows of each cell begin.
        for place in &mut bytes {
            offset += std::mem::replace(place, offset);
        }
        let mut out = Making::begin(&dir.join(name))?;
        out.add(&headers[t])?;
        for (shard, (cells, commit)) in proof.cells.iter().zip(&proof.shards).enumerate() {
            let Ok(commit) = commit else { continue };
            if !commit.tables.iter().any(|table| table.name == *name) {
                continue;
            }
            let path = table_file(dir, shard, t);
            let failed = |e: std::io::Error| Failure::io(&path, e);
            let mut file = BufReader::new(File::open(&path).map_err(failed)?);
            file.seek(SeekFrom::Start(headers[t].len() as u64)).map_err(failed)?;
            let mut rows = vec![];
            for (&i, cell) in cells.iter().zip(commit.cells.iter()) {
                rows.resize(cell.bytes[t] as usize, 0);
                file.read_exact(&mut rows).map_err(failed)?;
                out.seek(bytes[i])?;
                out.add(&rows)?;
            }
        }
        out.finish()?;
        folder.keep(name);
    }
    for commit in proof.shards.iter().flatten() {
        commit.cells.extras().for_each(|x| folder.keep(&x.path));
    }
    Ok(())
}

/// What the cells took, in the order of the plan.
fn tally(study: &Study, proof: &Proof) -> Tally {
    let mut at = vec![None; study.cells.len()];
    for (s, cells) in proof.cells.iter().enumerate() {
        cells.iter().enumerate().for_each(|(n, &i)| at[i] = Some((s, n)));
    }
    let mut tally = Tally::default();
    for (i, place) in at.into_iter().enumerate() {
        let (s, n) = place.expect("every cell is dealt to a shard");
        let Ok(commit) = &proof.shards[s] else { continue };
        let done = &commit.cells[n];
        tally.add(&study.cells[i], done.events, done.digest, done.cpu_s, study.first_of(i) == i);
    }
    tally
}

/// The hosts that computed the shards; at most four are named.
fn hosts(proof: &Proof) -> String {
    let hosts: BTreeSet<&str> = proof.shards.iter().flatten().map(|c| c.host.as_str()).collect();
    let few: Vec<&str> = hosts.iter().take(4).copied().collect();
    match hosts.len() - few.len() {
        0 => few.join(", "),
        more => format!("{} and {more} more", few.join(", ")),
    }
}

/// Wall time of all shards together, s.
fn wall_s(proof: &Proof) -> f64 {
    proof.shards.iter().flatten().map(|c| c.wall_s).sum()
}

/// The numbers as `3,17,42-44`, the form that schedulers accept.
pub(crate) fn compact(numbers: &[usize]) -> String {
    let mut parts: Vec<String> = vec![];
    let mut rest = numbers;
    while let Some((&first, _)) = rest.split_first() {
        let run = rest.iter().enumerate().take_while(|(i, n)| **n == first + i).count();
        parts.push(match run {
            1 => first.to_string(),
            n => format!("{first}-{}", first + n - 1),
        });
        rest = &rest[run..];
    }
    parts.join(",")
}

#[cfg(test)]
mod tests {
    use super::compact;

    #[test]
    fn runs_of_numbers_are_ranges() {
        assert_eq!(compact(&[3, 17, 42, 43, 44]), "3,17,42-44");
        assert_eq!(compact(&[0, 1]), "0-1");
        assert_eq!(compact(&[]), "");
    }
}
