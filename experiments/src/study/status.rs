//! `cotenant status DIR`: the state of every shard.

use std::path::Path;
use std::time::{Duration, SystemTime};

use super::commit::Lack;
use super::conflict;
use super::journal::Kept;
use super::merge::{Proof, compact};
use super::plan_file::PlanFile;
use crate::fail::{Done, Failure};
use crate::say;
use crate::text::{align, count};

/// How recent a sign of life must be. An attempt gives one every 20 s.
const ALIVE: Duration = Duration::from_secs(120);

/// `cotenant status`.
///
/// # Errors
/// Shards are not finished; attempts disagree; a file cannot be read.
pub(crate) fn status(dir: &Path) -> Done {
    let plan = PlanFile::read(dir)?;
    let study = plan.listed()?;
    let proof = Proof::of(&study, dir, plan.shards)?;
    let (mut rows, mut finished) = (vec![], 0);
    for (shard, (cells, state)) in proof.cells.iter().zip(&proof.shards).enumerate() {
        let (word, done, detail) = match state {
            Ok(commit) => ("ok", cells.len(), format!("{}, {:.1} s", commit.host, commit.wall_s)),
            Err(lack) => {
                let kept = Kept::read(&study, dir, shard, false)?.map_err(|c| conflict(dir, &c))?;
                let done = cells.iter().filter(|&&i| kept.has(i)).count();
                let attempts = count(kept.journals().count(), "attempt");
                match lack {
                    Lack::Corrupt(why) => ("corrupt", done, why.clone()),
                    Lack::Missing if kept.journals().any(is_alive) => ("running", done, attempts),
                    Lack::Missing => ("missing", done, attempts),
                }
            }
        };
        finished += done;
        let of = cells.len().to_string();
        rows.push(vec![shard.to_string(), word.to_owned(), done.to_string(), of, detail]);
    }
    let lacking = proof.lacking();
    say::out(&align(&["shard", "state", "done", "cells", ""], &rows))?;
    let all = count(study.cells.len(), "cell");
    let ok = plan.shards - lacking.len();
    let told = format!("{ok} of {} ok, {finished} of {all}", count(plan.shards, "shard"));
    say::out(&format!("{told}\n"))?;
    if lacking.is_empty() {
        return Ok(());
    }
    Err(Failure::Incomplete(format!("not finished: --array={}", compact(&lacking))))
}

/// Whether a journal was touched lately. Only for display: the clocks of machines differ.
fn is_alive(journal: &Path) -> bool {
    let touched = journal.metadata().and_then(|m| m.modified());
    touched.is_ok_and(|t| {
        let now = SystemTime::now();
        let age = now.duration_since(t).or_else(|_| t.duration_since(now));
        age.is_ok_and(|age| age < ALIVE)
    })
}
