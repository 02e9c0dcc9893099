//! FGD, fragmentation gradient descent (Weng et al., ATC 2023, "Beware of Fragmentation"), after its
//! published scheduler (kubernetes-scheduler-simulator, `frag.go` and `fgd_score.go`).
//!
//! Tasks ask for parts of a GPU. A GPU's fragment is the amount of its idle part that tasks cannot use,
//! averaged over the task classes, weighted by frequency: all of the idle part if it is less than the
//! class asks for. Each task, in the order of the mix, goes to the GPU whose fragment it lowers most (or
//! raises least), by the published score `⌊100 · sigmoid((before − after) / 1000)⌋` of thousandths of a GPU;
//! among equals, to the first.
//!
//! Our additions, since FGD leaves the requests to users and the cluster's size to its owner: a tenant asks
//! for the smallest share, in steps of 5 %, that serves its rate with a tenth to spare and each batch within
//! half of the goal; if one GPU is not enough, for whole GPUs first. Each GPU is a node of its own, and a GPU
//! is added when no other has room.

use std::collections::BTreeMap;

use cotenant_deploy::Sharing;

use super::super::lab::{Candidate, Lab};
use super::saturated::Saturated;
use super::{Part, Wanted, batches, candidates, profile};

/// Granularity of a request, percent.
const STEP: u32 = 5;
/// Share of a part's capacity that is planned for.
const TRUSTED: f64 = 0.9;

/// A part that a tenant asks for.
#[derive(Clone)]
struct Request {
    percent: u32,
    part: Part,
}

pub(super) fn plan(lab: &Lab, wanted: &[Wanted], threads: usize) -> Result<Vec<Candidate>, String> {
    if lab.setup.device.mps.is_none() {
        return Err(format!("{} has no MPS", lab.setup.device.title));
    }
    let mut requests: Vec<Request> = vec![];
    for w in wanted {
        requests.extend(asked(lab, w, threads)?);
    }
    let percents: Vec<u32> = requests.iter().map(|r| r.percent).collect();
    let gpus = pack(&percents).into_iter().map(|here| {
        let of = |i: &usize| requests[*i].clone();
        let here: Vec<Request> = here.iter().map(of).collect();
        let percent = here.iter().map(|r| r.percent).collect();
        (here.into_iter().map(|r| r.part).collect(), Sharing::Mps { percent })
    });
    Ok(candidates(lab, gpus))
}

/// The requests of a tenant: whole GPUs, and the smallest share that serves the rest.
fn asked(lab: &Lab, w: &Wanted, threads: usize) -> Result<Vec<Request>, String> {
    let mut known: BTreeMap<u32, Option<Request>> = BTreeMap::new();
    let mut at = |percent: u32| {
        known.entry(percent).or_insert_with(|| best(lab, w, percent, threads)).clone()
    };
    let whole = at(100).ok_or_else(|| {
        let goal = w.goal.as_millis_f64();
        format!("a whole GPU does not serve `{}` within half of {goal} ms", lab.name(w.tenant))
    })?;
    let mut all = vec![];
    let mut rest = w.rate;
    while rest > TRUSTED * whole.part.rps {
        rest -= TRUSTED * whole.part.rps;
        all.push(Request {
            part: Part { rps: TRUSTED * whole.part.rps, ..whole.part.clone() },
            ..whole
        });
    }
    // Capacity grows with the share: bisection finds the first that is enough.
    let (mut low, mut high) = (1, 100 / STEP);
    while low < high {
        let middle = u32::midpoint(low, high);
        let enough = at(middle * STEP).is_some_and(|r| TRUSTED * r.part.rps >= rest);
        if enough { high = middle } else { low = middle + 1 }
    }
    let last = at(low * STEP).unwrap_or(whole);
    all.push(Request { percent: last.percent, part: Part { rps: rest, ..last.part } });
    Ok(all)
}

/// The batch size at which a share serves most, with each batch within half of the goal.
fn best(lab: &Lab, w: &Wanted, percent: u32, threads: usize) -> Option<Request> {
    let sharing = || Sharing::Mps { percent: vec![percent] };
    let settings: Vec<_> =
        batches(lab, w.tenant).into_iter().map(|b| (percent, sharing(), b, 1)).collect();
    let found = profile(lab, w.tenant, &settings, threads);
    let fits = found.into_iter().filter(|(_, s): &(_, Saturated)| s.batch.0 * 2 <= w.goal.0);
    let ((_, batch, workers), s) = fits.max_by(|a, b| a.1.rps.total_cmp(&b.1.rps))?;
    let part = Part { tenant: w.tenant, batch, workers, rps: s.rps };
    Some(Request { percent, part })
}

/// The unusable part of `idle` percent, in thousandths of a GPU, averaged over the requests.
fn fragment(idle: u32, requests: &[u32]) -> f64 {
    let useless = requests.iter().filter(|&&r| r > idle).count() as f64;
    useless / requests.len().max(1) as f64 * f64::from(idle) * 10.0
}

/// The indices of the requests (in percent) that each GPU gets.
fn pack(requests: &[u32]) -> Vec<Vec<usize>> {
    let mut gpus: Vec<(u32, Vec<usize>)> = vec![];
    for (i, &request) in requests.iter().enumerate() {
        let score = |idle: u32| {
            let lowered = fragment(idle, requests) - fragment(idle - request, requests);
            (100.0 / (1.0 + libm::exp(-lowered / 1000.0))).floor() as u32
        };
        let fits = gpus.iter_mut().filter(|(idle, _)| *idle >= request);
        // Among equals, the first.
        match fits.rev().max_by_key(|(idle, _)| score(*idle)) {
            Some((idle, here)) => {
                *idle -= request;
                here.push(i);
            }
            None => gpus.push((100_u32.saturating_sub(request), vec![i])),
        }
    }
    gpus.into_iter().map(|(_, here)| here).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Worked by hand. With 65 and 40 on two GPUs, 35 and 60 are idle. A request of 20 on the first would
    /// leave 15, which no request can use: its fragment grows from 2/8 · 350 = 87.5 to 150, score ⌊100 ·
    /// sigmoid(-0.0625)⌋ = 48. On the second it falls from 1/8 · 600 = 75 to 1/8 · 400 = 50, score 50; best
    /// fit would take the first. The next request: 48 against 49 (50 to 3/8 · 200 = 75), then 48 against 51
    /// (75 to 0). The fourth has room only on the first, the fifth on neither.
    #[test]
    fn tasks_go_where_they_leave_what_others_can_use() {
        let requests = [65, 40, 20, 20, 20, 20, 20, 35];
        assert_eq!(pack(&requests), [vec![0, 5], vec![1, 2, 3, 4], vec![6, 7]]);
        assert_eq!(fragment(35, &requests), 87.5);
        assert_eq!(fragment(20, &requests), 75.0);
    }

    #[test]
    fn whole_gpus_are_not_shared() {
        assert_eq!(pack(&[100, 50, 100, 50]), [vec![0], vec![1, 3], vec![2]]);
        assert_eq!(pack(&[]), Vec::<Vec<usize>>::new());
    }
}
