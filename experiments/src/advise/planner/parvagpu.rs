//! ParvaGPU (Lee et al., SC 2024), after its published code (MunQ-Lee/ParvaGPU_SC24, `configurator.c` and
//! `allocator.c`).
//!
//! *Configurator*: of a tenant's points (instance size, batch, 1 to 3 processes), those whose batch takes
//! less than 0.9 of half the goal count. The best point has the most requests/s per slice. The tenant gets as
//! many instances of it as the rate fills, and one more for the rest: the smallest size whose best point
//! covers it. *Allocator*: places instances in order of decreasing size, each on the GPU with the least room
//! that has enough. Then, from the last GPU backwards, GPUs with at most four slices in use are dissolved
//! into instances of two slices (if they serve more per slice) and of one slice, which are placed again.
//!
//! Our version differs in two ways: batches go up to the search's largest, and a layout must be one that the
//! device allows (theirs checks only the start positions).

use std::collections::BTreeMap;

use cotenant_deploy::Sharing;
use cotenant_profiles::device::Mig as Table;

use super::super::lab::{Candidate, Lab};
use super::{Part, Wanted, batches, candidates, profile};

/// Share of half the goal that a batch may take.
const MARGIN: f64 = 0.9;
const PROCESSES: u32 = 3;
/// A GPU with at most this many slices in use is dissolved.
const SPARSE: u32 = 4;

/// An instance with its processes.
#[derive(Clone)]
struct Segment {
    /// Index of the instance's profile.
    profile: usize,
    slices: u32,
    part: Part,
}

/// The best point of every instance size, by slices.
type Points = BTreeMap<u32, Segment>;

pub(super) fn plan(lab: &Lab, wanted: &[Wanted], threads: usize) -> Result<Vec<Candidate>, String> {
    let table = lab.setup.device.mig.as_ref();
    let table = table.ok_or_else(|| format!("{} has no MIG", lab.setup.device.title))?;
    let mut points: BTreeMap<usize, Points> = BTreeMap::new();
    let mut queue: Vec<Segment> = vec![];
    for w in wanted {
        let found = configure(lab, table, w, threads);
        queue.extend(segments(&found, w).ok_or_else(|| {
            let goal = w.goal.as_millis_f64();
            format!(
                "no instance serves `{}` within {MARGIN} of half of {goal} ms",
                lab.name(w.tenant)
            )
        })?);
        points.insert(w.tenant, found);
    }
    let mut gpus: Vec<Vec<Segment>> = vec![];
    place(table, queue, &mut gpus)?;
    dissolve(table, &points, &mut gpus)?;
    gpus.retain(|g| !g.is_empty());
    let shared = gpus.iter().map(|segments| {
        let name = |s: &Segment| table.profiles[s.profile].name.clone();
        let sharing = Sharing::Mig {
            instances: segments.iter().map(name).collect(),
            place: (0..segments.len()).collect(),
            percent: vec![100; segments.len()],
        };
        (segments.iter().map(|s| s.part.clone()).collect(), sharing)
    });
    Ok(candidates(lab, shared))
}

/// The instance profiles that it uses: one for each number of slices, without extra memory or engines.
fn sizes(table: &Table) -> Vec<(usize, u32)> {
    let mut sizes: Vec<(usize, u32)> = vec![];
    for (i, p) in table.profiles.iter().enumerate() {
        if !p.name.contains('+') && !sizes.iter().any(|(_, s)| *s == p.compute) {
            sizes.push((i, p.compute));
        }
    }
    sizes.sort_by_key(|(_, slices)| *slices);
    sizes
}

fn configure(lab: &Lab, table: &Table, w: &Wanted, threads: usize) -> Points {
    let mut settings = vec![];
    for (profile, slices) in sizes(table) {
        for batch in batches(lab, w.tenant) {
            for workers in 1..=PROCESSES {
                let sharing = Sharing::Mig {
                    instances: vec![table.profiles[profile].name.clone()],
                    place: vec![0],
                    percent: vec![100],
                };
                settings.push(((slices, profile), sharing, batch, workers));
            }
        }
    }
    let most = w.goal.0 as f64 / 2.0 * MARGIN;
    let mut best = Points::new();
    for (((slices, profile), batch, workers), found) in profile(lab, w.tenant, &settings, threads) {
        let better = best.get(&slices).is_none_or(|b: &Segment| found.rps > b.part.rps);
        if (found.batch.0 as f64) < most && better {
            let part = Part { tenant: w.tenant, batch, workers, rps: found.rps };
            best.insert(slices, Segment { profile, slices, part });
        }
    }
    best
}

/// The instances that serve a rate; `None` if no point is fast enough.
fn segments(points: &Points, w: &Wanted) -> Option<Vec<Segment>> {
    let per_slice = |s: &Segment| s.part.rps / f64::from(s.slices);
    // Among equals, the smallest.
    let best = points.values().rev().max_by(|a, b| per_slice(a).total_cmp(&per_slice(b)))?;
    // The rest is never zero: if the rate fills all instances exactly, the last of them is the rest.
    let whole = ((w.rate / best.part.rps).ceil() - 1.0).max(0.0);
    let rest = w.rate - whole * best.part.rps;
    let last = points.values().find(|s| s.part.rps >= rest).unwrap_or(best);
    let mut all = vec![best.clone(); whole as usize];
    all.push(last.clone());
    Some(all)
}

/// Whether a GPU has room for another instance.
fn takes(table: &Table, gpu: &[Segment], more: &Segment) -> bool {
    let names: Vec<&str> =
        gpu.iter().chain([more]).map(|s| table.profiles[s.profile].name.as_str()).collect();
    table.placements(&names).is_ok()
}

fn used(gpu: &[Segment]) -> u32 {
    gpu.iter().map(|s| s.slices).sum()
}

/// Places every segment, the largest first, on the fullest GPU that has room for it.
fn place(
    table: &Table,
    mut queue: Vec<Segment>,
    gpus: &mut Vec<Vec<Segment>>,
) -> Result<(), String> {
    queue.sort_by_key(|s| std::cmp::Reverse(s.slices));
    for segment in queue {
        let fits = gpus.iter_mut().filter(|g| takes(table, g, &segment));
        // Among equally full ones, the first.
        match fits.rev().max_by_key(|g| used(g)) {
            Some(gpu) => gpu.push(segment),
            None if takes(table, &[], &segment) => gpus.push(vec![segment]),
            None => return Err(format!("no GPU takes {}", table.profiles[segment.profile].name)),
        }
    }
    Ok(())
}

/// Replaces the instances of sparse GPUs with small ones on any GPU that has room.
fn dissolve(
    table: &Table,
    points: &BTreeMap<usize, Points>,
    gpus: &mut Vec<Vec<Segment>>,
) -> Result<(), String> {
    // Requests/s of a tenant that are still to be placed; if negative, instances have room to spare.
    let mut open: BTreeMap<usize, f64> = BTreeMap::new();
    for i in (0..gpus.len()).rev() {
        if used(&gpus[i]) > SPARSE {
            continue;
        }
        for segment in std::mem::take(&mut gpus[i]) {
            let tenant = segment.part.tenant;
            let rest = open.entry(tenant).or_insert(0.0);
            let (one, two) = (points[&tenant].get(&1), points[&tenant].get(&2));
            if one.is_none() && two.is_none() {
                gpus[i].push(segment);
                continue;
            }
            *rest += segment.part.rps;
            let mut again = vec![];
            let mut fill = |s: &Segment, whole: bool, rest: &mut f64| {
                let n = *rest / s.part.rps;
                let n = if whole { n.floor() } else { n.ceil() }.max(0.0);
                *rest -= n * s.part.rps;
                again.extend(vec![s.clone(); n as usize]);
            };
            match (one, two) {
                (Some(one), Some(two)) => {
                    if two.part.rps / 2.0 > one.part.rps {
                        fill(two, true, rest);
                    }
                    fill(one, false, rest);
                }
                (Some(s), None) | (None, Some(s)) => fill(s, false, rest),
                (None, None) => {}
            }
            place(table, again, gpus)?;
        }
    }
    Ok(())
}
