//! gpu-lets (Choi et al., ATC 2022), after its published code (casys-kaist/glet, `scheduler_*.cpp`).
//!
//! A GPU is divided into at most two parts, in steps of a fifth. A share's rate is that of the largest batch
//! that takes at most half of the goal. The preferred share has the largest gain per percent among the steps
//! that gain at least 5 %. Tenants are taken in ascending order of rate × goal: each gets preferred shares as
//! long as its rate exceeds what they serve, then the smallest share that serves the rest in time. Each share
//! goes to the fullest GPU that has room, if both tenants there keep their goals under the slowdown that the
//! linear interference model predicts; otherwise the next larger share is tried, and finally a GPU of its
//! own.
//!
//! Left out: several models that take turns in one share, and new plans when rates change.

use std::collections::BTreeMap;

use cotenant_deploy::Sharing;
use cotenant_profiles::Nanos;

use super::super::lab::{Candidate, Lab};
use super::saturated::Saturated;
use super::{Part, Wanted, batches, candidates, profile, utilization};

const SHARES: [u32; 5] = [20, 40, 60, 80, 100];
/// A larger share that gains less than this does not count as a step.
const STEP: f64 = 1.05;
/// A remainder of at most this many requests/s gets no share of its own.
const REST: f64 = 15.0;
/// Safety factor on predicted latencies.
const SPARE: f64 = 1.1;
/// Factor by which a share for the rest may exceed the goal.
const REST_OVER: f64 = 1.05;

/// A share of a GPU.
#[derive(Clone)]
struct Let {
    percent: u32,
    part: Part,
    /// Time of a batch without neighbours.
    batch: Nanos,
    goal: Nanos,
    /// It waits for its batch to fill, instead of running batches back to back.
    rest: bool,
}

type Profile = BTreeMap<(u32, u32, u32), Saturated>;

pub(super) fn plan(lab: &Lab, wanted: &[Wanted], threads: usize) -> Result<Vec<Candidate>, String> {
    if lab.setup.device.mps.is_none() {
        return Err(format!("{} has no MPS", lab.setup.device.title));
    }
    let mut tasks = wanted.to_vec();
    tasks.sort_by(|a, b| (a.rate * a.goal.0 as f64).total_cmp(&(b.rate * b.goal.0 as f64)));
    let mut gpus: Vec<Vec<Let>> = vec![];
    for w in &tasks {
        let mut settings = vec![];
        for percent in SHARES {
            for batch in batches(lab, w.tenant) {
                settings.push((percent, Sharing::Mps { percent: vec![percent] }, batch, 1));
            }
        }
        let known = profile(lab, w.tenant, &settings, threads);
        let mut open = w.rate;
        let preferred = preferred(&known, w).ok_or_else(|| {
            format!("no share of {} runs `{}`", lab.setup.device.title, lab.name(w.tenant))
        })?;
        while open > preferred.part.rps {
            open -= preferred.part.rps;
            put(lab, &known, w, preferred.clone(), &mut gpus);
        }
        if open > REST || open >= w.rate {
            let rest = rest(&known, w, open).unwrap_or_else(|| preferred.clone());
            put(lab, &known, w, rest, &mut gpus);
        }
    }
    let shared = gpus.iter().map(|lets| {
        let percent = lets.iter().map(|l| l.percent).collect();
        (lets.iter().map(|l| l.part.clone()).collect(), Sharing::Mps { percent })
    });
    Ok(candidates(lab, shared))
}

/// The largest batch of a share that takes at most half of the goal; a batch of one request if there is none.
fn saturated(known: &Profile, w: &Wanted, percent: u32) -> Option<Let> {
    let here = || known.iter().filter(move |((p, ..), _)| *p == percent);
    let fits = here().rfind(|(_, s)| s.batch.0 * 2 <= w.goal.0);
    let ((_, batch, workers), s) = fits.or_else(|| here().next())?;
    let part = Part {
        tenant: w.tenant,
        batch: *batch,
        workers: *workers,
        rps: f64::from(*batch) * 1e9 / s.batch.0 as f64,
    };
    Some(Let { percent, part, batch: s.batch, goal: w.goal, rest: false })
}

/// The share whose step gains most per percent.
fn preferred(known: &Profile, w: &Wanted) -> Option<Let> {
    let all: Vec<Let> = SHARES.iter().filter_map(|&p| saturated(known, w, p)).collect();
    let mut best = all.first()?.clone();
    let mut most = best.part.rps / f64::from(best.percent);
    for pair in all.windows(2) {
        let (small, large) = (&pair[0], &pair[1]);
        let gain = (large.part.rps - small.part.rps) / f64::from(large.percent - small.percent);
        if large.part.rps >= STEP * small.part.rps && gain > most {
            most = gain;
            best = large.clone();
        }
    }
    Some(best)
}

/// The smallest share that serves `rate`: a batch fills and completes within the goal, and completes before
/// the next one has filled.
fn rest(known: &Profile, w: &Wanted, rate: f64) -> Option<Let> {
    let serves = |((_, batch, _), s): &(&(u32, u32, u32), &Saturated)| {
        let fill = f64::from(*batch) * 1e9 / rate;
        s.batch.0 as f64 + fill <= w.goal.0 as f64 && fill >= s.batch.0 as f64
    };
    let percent = known.iter().find(serves).map(|((p, ..), _)| *p)?;
    let ((_, batch, workers), s) =
        known.iter().filter(|((p, ..), _)| *p == percent).rfind(serves)?;
    let part = Part { tenant: w.tenant, batch: *batch, workers: *workers, rps: rate };
    Some(Let { percent, part, batch: s.batch, goal: w.goal, rest: true })
}

/// Places a share on the fullest GPU on which both keep their goals, enlarged if necessary.
fn put(lab: &Lab, known: &Profile, w: &Wanted, wish: Let, gpus: &mut Vec<Vec<Let>>) {
    for percent in SHARES.into_iter().filter(|&p| p >= wish.percent) {
        let Some(s) = known.get(&(percent, wish.part.batch, wish.part.workers)) else { continue };
        let one = Let { percent, batch: s.batch, ..wish.clone() };
        let fits = gpus.iter_mut().filter(|g| match g.as_slice() {
            [other] => {
                other.percent + percent <= 100
                    && other.part.tenant != w.tenant
                    && keeps(lab, &one, other)
                    && keeps(lab, other, &one)
            }
            _ => false,
        });
        if let Some(gpu) = fits.rev().max_by_key(|g| g[0].percent) {
            gpu.push(one);
            return;
        }
    }
    gpus.push(vec![wish]);
}

/// Whether a share keeps its goal next to another.
fn keeps(lab: &Lab, own: &Let, other: &Let) -> bool {
    let [own_l2, others_l2, own_dram, others_dram, constant] = lab.setup.device.contention.linear;
    let share = |l: &Let| f64::from(l.percent) / 100.0;
    let of = |l: &Let| utilization(lab, &l.part, l.percent);
    let (mine, theirs) = (of(own), of(other));
    let slower = own_l2 * mine.0 * share(own)
        + others_l2 * theirs.0 * share(other)
        + own_dram * mine.1 * share(own)
        + others_dram * theirs.1 * share(other)
        + constant;
    let batch = own.batch.0 as f64 * slower.max(1.0) * SPARE;
    let goal = own.goal.0 as f64;
    if own.rest {
        let fill = f64::from(own.part.batch) * 1e9 / own.part.rps;
        batch + fill <= REST_OVER * goal && batch <= fill
    } else {
        2.0 * batch <= REST_OVER * goal
    }
}
