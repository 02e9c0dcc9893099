//! The launches of one process on one GPU, without impossible ones, each with its launch call.

use std::collections::BTreeMap;

use super::{Call, Copy, Kernel, Recording};
use crate::files::{FileError, Problem};
use crate::import::ImportError;

/// A launch: the kernel that ran, and when the host called for it, if that is known.
#[derive(Clone, Copy, Debug)]
pub(super) struct Launch {
    pub kernel: Kernel,
    pub call: Option<(i64, i64)>,
}

impl Launch {
    /// When the host asked for it; if that is unknown, when it began.
    pub(super) fn asked(&self) -> i64 {
        self.call.map_or(self.kernel.start, |(start, _)| start)
    }
}

/// The launches of one process on one GPU.
#[derive(Debug)]
pub(super) struct Timeline {
    /// In the host's order if the calls are known, otherwise by start.
    pub launches: Vec<Launch>,
    /// By start.
    pub copies: Vec<Copy>,
    /// Whether nearly every launch has its call.
    pub called: bool,
    pub process: u32,
    /// The rank of each stream, busiest first.
    pub ranks: BTreeMap<u32, usize>,
    pub dropped: BTreeMap<&'static str, usize>,
    /// Kernels that began before the previous one on their stream had ended.
    pub overlaps: usize,
}

/// Places of launches in their timeline. There may be millions of them, so the smaller type matters.
pub(super) type Place = u32;

impl Timeline {
    /// The launch at this place.
    pub(super) fn at(&self, place: Place) -> &Launch {
        &self.launches[place as usize]
    }

    /// All places, in order.
    pub(super) fn places(&self) -> std::ops::Range<Place> {
        0..u32::try_from(self.launches.len()).unwrap_or(u32::MAX)
    }
}

/// Counted with the dropped kernels, although these are kept.
pub(super) const CLIPPED: &str = "kernels cut where the next one of their stream begins:";

/// How far a kernel may reach into the next one of its stream before it counts as an error of the
/// recording: clocks of old files tick in microseconds.
const SLACK_NS: i64 = 2_000;

impl Recording {
    /// Why there is nothing to import.
    pub(super) fn empty(&self) -> ImportError {
        match &self.first_bad {
            Some((field, problem)) => FileError::bad(&self.file, 1, field, problem.clone()),
            None => FileError::bad(&self.file, 1, "file", Problem::NoRows("kernel")),
        }
    }

    pub(super) fn timeline(&self, gpu: u32) -> Result<Timeline, ImportError> {
        let mut dropped = self.dropped.clone();
        let mut drop = |why, n: usize| {
            if n > 0 {
                *dropped.entry(why).or_default() += n;
            }
        };
        let here = |k: &&Kernel| k.gpu == gpu;
        // This is the only copy, since there may be millions.
        let mut launches = Vec::with_capacity(self.kernels.iter().filter(here).count());
        launches
            .extend(self.kernels.iter().filter(here).map(|&kernel| Launch { kernel, call: None }));
        drop("on other GPUs", self.kernels.len() - launches.len());
        let before = launches.len();
        launches.retain(|l| l.kernel.start != 0 || l.kernel.duration != 0);
        drop("without times: start and duration are 0", before - launches.len());
        let process = self.busiest_process(&launches);
        let before = launches.len();
        launches.retain(|l| self.processes.get(l.kernel.stream as usize) == Some(&process));
        drop("of other processes", before - launches.len());
        if launches.is_empty() {
            return Err(self.empty());
        }
        let (clipped, overlaps) = clip(&mut launches);
        let ranks = ranks(&launches);
        for launch in &mut launches {
            launch.call = call_of(&self.calls, launch.kernel.link, launch.kernel.start);
        }
        let with_call = launches.iter().filter(|l| l.call.is_some()).count();
        let called = with_call * 20 >= launches.len() * 19;
        if called {
            launches.sort_unstable_by_key(|l| (l.asked(), order(&l.kernel)));
        } else {
            launches.iter_mut().for_each(|l| l.call = None);
            launches.sort_unstable_by_key(|l| {
                (l.kernel.start, ranks[&l.kernel.stream], order(&l.kernel))
            });
        }
        let mine = |c: &&Copy| c.gpu == gpu && [process, Copy::OF_ANY].contains(&c.process);
        let mut copies: Vec<Copy> = self.copies.iter().filter(mine).copied().collect();
        copies.sort_by_key(|c| c.start);
        if clipped > 0 {
            dropped.insert(CLIPPED, clipped);
        }
        Ok(Timeline { launches, copies, called, process, ranks, dropped, overlaps })
    }

    fn busiest_process(&self, launches: &[Launch]) -> u32 {
        let mut busy: BTreeMap<u32, u64> = BTreeMap::new();
        for Launch { kernel: k, .. } in launches {
            let process = self.processes.get(k.stream as usize).copied().unwrap_or(0);
            let sum = busy.entry(process).or_default();
            *sum = sum.saturating_add(k.duration);
        }
        let most = busy.into_iter().max_by_key(|&(p, sum)| (sum, std::cmp::Reverse(p)));
        most.map_or(0, |(p, _)| p)
    }
}

/// A total order of kernels, so that sorting needs no memory.
fn order(k: &Kernel) -> (i64, u32, u64, u64, u32, u32) {
    (k.start, k.stream, k.duration, k.link, k.name, k.shape)
}

/// The call of a kernel or copy: the last call with its link that had begun by `start`.
pub(super) fn call_of(calls: &[Call], link: u64, start: i64) -> Option<(i64, i64)> {
    if link == 0 {
        return None;
    }
    let from = calls.partition_point(|c| c.link < link);
    let same = calls[from..].iter().take_while(|c| c.link == link);
    same.take_while(|c| c.start <= start).last().map(|c| (c.start, c.end))
}

/// Cuts kernels that outlast the next kernel of their stream at that kernel's start, since a stream
/// runs one kernel at a time. Nodes of graphs, and the early starts of dependent launches, may overlap.
/// Returns how many were cut, and how many others overlap.
fn clip(launches: &mut [Launch]) -> (usize, usize) {
    launches.sort_unstable_by_key(|l| (l.kernel.stream, order(&l.kernel)));
    let (mut clipped, mut overlaps) = (0, 0);
    for i in 1..launches.len() {
        let next = launches[i].kernel;
        let k = &mut launches[i - 1].kernel;
        let past = k.end().saturating_sub(next.end());
        if k.stream != next.stream || k.graph || next.graph {
            continue;
        }
        if past > SLACK_NS {
            k.duration = u64::try_from(next.start.saturating_sub(k.start)).unwrap_or(0);
            clipped += 1;
        } else if k.end().saturating_sub(next.start) > SLACK_NS {
            overlaps += 1;
        }
    }
    (clipped, overlaps)
}

fn ranks(launches: &[Launch]) -> BTreeMap<u32, usize> {
    let mut busy: BTreeMap<u32, (usize, u64)> = BTreeMap::new();
    for Launch { kernel: k, .. } in launches {
        let sum = busy.entry(k.stream).or_default();
        *sum = (sum.0 + 1, sum.1.saturating_add(k.duration));
    }
    let mut order: Vec<(u32, (usize, u64))> = busy.into_iter().collect();
    order.sort_by_key(|&(stream, sum)| (std::cmp::Reverse(sum), stream));
    order.into_iter().enumerate().map(|(rank, (stream, _))| (stream, rank)).collect()
}
