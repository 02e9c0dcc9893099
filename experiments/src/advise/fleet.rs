//! Several GPUs: who goes where, each GPU searched by itself.
//!
//! Requests of a tenant that one GPU cannot serve are split evenly over as many GPUs as it needs.
//! Every division of tenants among GPUs is ordered by how evenly it loads them; the best few are
//! searched, GPU by GPU. A group of tenants that has been searched once is not searched again.

use super::lab::Lab;
use super::screen;
use super::search::{Best, Score, Search, Tried};
use super::space::{Group, Mechanism};

/// Above this load of a whole GPU a tenant is split.
const FULL: f64 = 0.75;
/// Divisions that are searched.
const DIVISIONS: usize = 3;

/// One GPU of a fleet.
#[derive(Clone)]
pub(crate) struct Member {
    pub(crate) mechanism: Mechanism,
    pub(crate) tried: Tried,
}

/// Groups that have been searched, with their best member.
#[derive(Default)]
pub(crate) struct Known(Vec<(Group, Option<Member>)>);

/// The best deployment on `gpus` GPUs; `None` where no division serves every tenant.
pub(crate) fn place(
    search: &mut Search<'_>,
    gpus: usize,
    budget: f64,
    known: &mut Known,
) -> Option<Vec<Member>> {
    let mut best: Option<(Score, Vec<Member>)> = None;
    let divisions = divisions(search.lab, gpus);
    let until = search.spent() + budget;
    let mut left = divisions.iter().map(Vec::len).sum::<usize>();
    for (n, division) in divisions.into_iter().enumerate() {
        // One is always searched, others as far as the budget goes.
        if n > 0 && search.spent() >= until {
            break;
        }
        let one = |g: &Group| {
            let each = (until - search.spent()).max(0.0) / left.max(1) as f64;
            left = left.saturating_sub(1);
            member(search, g, each, known)
        };
        let members: Option<Vec<Member>> = division.iter().map(one).collect();
        let Some(members) = members else { continue };
        let score = together(search.lab, &members);
        if best.as_ref().is_none_or(|(s, _)| score < *s) {
            best = Some((score, members));
        }
    }
    best.map(|(_, members)| members)
}

/// The score of several GPUs: all that is missed, and the worst of the rest.
pub(crate) fn together(lab: &Lab, members: &[Member]) -> Score {
    let mut all = Score { missed: 0, worst: 0.0, lost: 0.0, ratio: 0.0 };
    for m in members {
        let s = m.tried.score(lab);
        all.missed += s.missed;
        all.worst = all.worst.max(s.worst);
        all.lost = all.lost.max(s.lost);
        all.ratio = all.ratio.max(s.ratio);
    }
    all
}

/// The member that a group of tenants is served by best.
fn member(search: &mut Search<'_>, g: &Group, budget: f64, known: &mut Known) -> Option<Member> {
    if let Some((_, member)) = known.0.iter().find(|(k, _)| k == g) {
        return member.clone();
    }
    let until = search.spent() + budget;
    // What is not deployed cannot be chosen; where the budget is for less than one short run of each, the
    // simplest and the finest have to do.
    let deploys = Mechanism::ALL.into_iter().filter(|m| *m != Mechanism::Krisp);
    let mut looked: Vec<Mechanism> = deploys.collect();
    if budget < looked.len() as f64 * search.lengths.events(search.lab, g) {
        looked.retain(|m| matches!(m, Mechanism::Mps | Mechanism::Percent | Mechanism::Mig));
    }
    let pools = search.first(g, &looked, budget * 0.4);
    let all = search.settle_one(g, pools, until);
    let member = choose(search.lab, &all);
    known.0.push((g.clone(), member.clone()));
    member
}

/// The best that deploys: by score, the simplest of equals.
pub(crate) fn choose(lab: &Lab, all: &[Best]) -> Option<Member> {
    let deploys = all.iter().filter(|b| b.mechanism != Mechanism::Krisp);
    let tried = deploys.filter_map(|b| Some((b.mechanism, b.tried.as_ref().ok()?)));
    let key = |t: &Tried, m: Mechanism| {
        let s = t.score(lab);
        (s.missed, (s.worst * 50.0).round(), (s.lost * 20.0).round(), m)
    };
    let best = tried.min_by(|a, b| {
        key(a.1, a.0).partial_cmp(&key(b.1, b.0)).unwrap_or(std::cmp::Ordering::Equal)
    });
    best.map(|(mechanism, tried)| Member { mechanism, tried: tried.clone() })
}

/// A part of a tenant.
#[derive(Clone, Copy, Debug)]
struct Part {
    tenant: usize,
    share: f64,
    load: f64,
}

/// Divisions of the tenants among `gpus` GPUs, the most even first.
fn divisions(lab: &Lab, gpus: usize) -> Vec<Vec<Group>> {
    let mut parts = vec![];
    for t in lab.all() {
        let load = screen::load(lab, t, lab.batch_limit[t], 1.0);
        let pieces = ((load / FULL).ceil().max(1.0) as usize).min(gpus);
        let share = 1.0 / pieces as f64;
        parts.extend((0..pieces).map(|_| Part { tenant: t, share, load: load * share }));
    }
    // Too few parts to have one for every GPU: the heaviest are split further.
    while parts.len() < gpus {
        let heaviest = (0..parts.len()).max_by(|&a, &b| parts[a].load.total_cmp(&parts[b].load));
        let Some(i) = heaviest else { return vec![] };
        let t = parts[i].tenant;
        let pieces = parts.iter().filter(|p| p.tenant == t).count() + 1;
        let load: f64 = parts.iter().filter(|p| p.tenant == t).map(|p| p.load).sum();
        parts.retain(|p| p.tenant != t);
        let share = 1.0 / pieces as f64;
        parts.extend((0..pieces).map(|_| Part { tenant: t, share, load: load * share }));
    }
    parts.sort_by(|a, b| b.load.total_cmp(&a.load).then(a.tenant.cmp(&b.tenant)));
    let mut found: Vec<(f64, f64, Vec<usize>)> = vec![];
    if parts.len() <= 8 {
        assign(&parts, gpus, &mut vec![], &mut |place| {
            let sums = sums(&parts, gpus, place);
            let worst = sums.iter().copied().fold(0.0, f64::max);
            found.push((worst, sums.iter().map(|s| s * s).sum(), place.to_vec()));
        });
        found.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1)));
        found.truncate(DIVISIONS);
    } else if let Some(place) = largest_first(&parts, gpus) {
        found.push((0.0, 0.0, place));
    }
    let group = |place: &[usize], gpu: usize| {
        let mut here: Vec<Part> =
            parts.iter().zip(place).filter(|(_, p)| **p == gpu).map(|(part, _)| *part).collect();
        here.sort_by_key(|p| p.tenant);
        Group {
            tenants: here.iter().map(|p| p.tenant).collect(),
            requests: here.iter().map(|p| p.share).collect(),
        }
    };
    found.iter().map(|(_, _, place)| (0..gpus).map(|gpu| group(place, gpu)).collect()).collect()
}

fn sums(parts: &[Part], gpus: usize, place: &[usize]) -> Vec<f64> {
    let mut sums = vec![0.0; gpus];
    for (part, &gpu) in parts.iter().zip(place) {
        sums[gpu] += part.load;
    }
    sums
}

/// Every assignment in which no GPU is empty and no tenant twice on one, GPUs being alike.
fn assign(parts: &[Part], gpus: usize, place: &mut Vec<usize>, visit: &mut impl FnMut(&[usize])) {
    let used = place.iter().max().map_or(0, |m| m + 1);
    if place.len() == parts.len() {
        if used == gpus {
            visit(place);
        }
        return;
    }
    if gpus - used > parts.len() - place.len() {
        return;
    }
    for gpu in 0..(used + 1).min(gpus) {
        let twice = place
            .iter()
            .zip(parts)
            .any(|(&p, part)| p == gpu && part.tenant == parts[place.len()].tenant);
        if !twice {
            place.push(gpu);
            assign(parts, gpus, place, visit);
            place.pop();
        }
    }
}

/// Each part, the heaviest first, onto the GPU with the least load.
fn largest_first(parts: &[Part], gpus: usize) -> Option<Vec<usize>> {
    let mut place: Vec<usize> = vec![];
    for (i, part) in parts.iter().enumerate() {
        let sums = sums(&parts[..i], gpus, &place);
        let free = (0..gpus).filter(|&g| {
            !place.iter().zip(parts).any(|(&p, other)| p == g && other.tenant == part.tenant)
        });
        place.push(free.min_by(|&a, &b| sums[a].total_cmp(&sums[b]))?);
    }
    Some(place)
}
