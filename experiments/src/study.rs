//! A study: every cell of an experiment, computed in one go or in shards, by one machine or many.
//!
//! Files alone tell what is finished: a journal per attempt ([`journal`]) and a commit record per shard
//! ([`commit`]). Every computation follows the same steps: read the journals, compute the missing cells,
//! write the rows in the order of the cells.

pub(crate) mod advice;
mod cells;
pub(crate) mod commit;
pub(crate) mod compute;
pub(crate) mod figures;
pub(crate) mod ground;
pub(crate) mod inputs;
pub(crate) mod journal;
pub(crate) mod merge;
pub(crate) mod names;
mod parquet;
pub(crate) mod plan_file;
pub(crate) mod record;
pub(crate) mod seal;
pub(crate) mod shard;
pub(crate) mod slice;
pub(crate) mod status;
pub(crate) mod stop;
pub(crate) mod submit;
pub(crate) mod survey;
pub(crate) mod tables;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::OnceLock;

use crate::config::Grid;
use crate::digest;
use crate::fail::Failure;
use crate::watch::Wants;

use self::commit::Commit;
use self::journal::Conflict;
use self::names::Names;

/// Folder for the records of attempts that disagree.
const CONFLICTS: &str = "conflicts";

/// The cells of an experiment, and what they are computed from.
pub(crate) struct Study {
    pub(crate) grid: Grid,
    pub(crate) wants: Wants,
    /// Names of all cells, in the order of `results.csv`.
    pub(crate) cells: Names,
    /// Cells that share the computation of an earlier cell, with that cell.
    pub(crate) twins: BTreeMap<usize, usize>,
    /// Identifies cells, build and options: records with another identity are not ours.
    pub(crate) plan: String,
    /// The cells sorted by name, filled at the first look-up.
    pub(crate) by_name: OnceLock<Vec<usize>>,
}

impl Study {
    /// The cell whose computation serves this one: itself, or an earlier cell.
    pub(crate) fn first_of(&self, cell: usize) -> usize {
        self.twins.get(&cell).copied().unwrap_or(cell)
    }

    /// The index of the cell with this name.
    pub(crate) fn find(&self, name: &str) -> Option<usize> {
        let by_name = self.by_name.get_or_init(|| {
            let mut order: Vec<usize> = (0..self.cells.len()).collect();
            order.sort_unstable_by_key(|&i| &self.cells[i]);
            order
        });
        by_name.binary_search_by_key(&name, |&i| &self.cells[i]).ok().map(|at| by_name[at])
    }

    /// Which point of the grid a cell belongs to, and its number there.
    pub(crate) fn point_of(&self, cell: usize) -> (usize, usize) {
        let per_point = self.cells.len() / self.grid.len();
        (cell / per_point, cell % per_point)
    }

    /// Assigns the cells to `shards`: returns the shard of each. Cells that share a computation stay
    /// together; the others are scattered, since neighbours in the grid take about equally long.
    pub(crate) fn deal(&self, shards: usize) -> Vec<usize> {
        let firsts = (0..self.cells.len()).filter(|&i| self.first_of(i) == i);
        let mut order: Vec<(u64, usize)> =
            firsts.map(|i| (digest::number(&digest::of_text(&self.cells[i])), i)).collect();
        order.sort_unstable();
        let mut shard_of = vec![0; self.cells.len()];
        for (rank, (_, cell)) in order.iter().enumerate() {
            shard_of[*cell] = rank % shards;
        }
        for (&twin, &first) in &self.twins {
            shard_of[twin] = shard_of[first];
        }
        shard_of
    }
}

/// Keeps what two journals say about the same cell, and reports the conflict.
pub(crate) fn conflict(dir: &Path, conflict: &Conflict) -> Failure {
    let cell = &conflict.records[0].line.cell;
    let lines: Vec<String> = conflict.records.iter().map(seal::line).collect();
    let [a, b] = &conflict.journals;
    let what = format!("cell {cell} in {} and {}", a.display(), b.display());
    keep_conflict(dir, &format!("{cell}.jsonl"), &lines, &what)
}

/// Keeps the commit records of two attempts that disagree, and reports the conflict.
pub(crate) fn disagree(dir: &Path, shard: usize, there: &Commit, ours: &Commit) -> Failure {
    let lines = [seal::line(there), seal::line(ours)];
    let what = format!("shard {shard}, computed on {} and {}", there.host, ours.host);
    keep_conflict(dir, &format!("{shard:05}.jsonl"), &lines, &what)
}

fn keep_conflict(dir: &Path, name: &str, lines: &[String], what: &str) -> Failure {
    let file = dir.join(CONFLICTS).join(name);
    if let Err(failure) = tables::write_synced(&file, (lines.join("\n") + "\n").as_bytes()) {
        return failure;
    }
    Failure::Conflict(format!(
        "two attempts disagree on {what}; both results are kept in {}. The same cell has to give \
         the same bytes everywhere: find out which is right, remove the other's files and \
         {CONFLICTS}/, and run again",
        file.display()
    ))
}
