//! Several GPUs: assigns tenants to GPUs and searches each GPU by itself.
//!
//! Requests of a tenant that one GPU cannot serve are split evenly over as many GPUs as it needs.
//! Every division of tenants among GPUs is ordered by how evenly it loads them; the best few are
//! searched, GPU by GPU. A group of tenants that has been searched once is not searched again.

use std::collections::BTreeSet;

use cotenant_deploy::Sharing;

use super::lab::{Candidate, How, Lab};
use super::screen;
use super::search::{Score, Search, Tried};
use super::space::{Group, Mechanism};

/// A tenant whose load exceeds this share of a whole GPU is split.
const FULL: f64 = 0.75;
/// Number of divisions to search, the most even first.
const DIVISIONS: usize = 3;
/// Moves to try before a deployment counts as the best.
const MOVES: usize = 12;

/// One GPU of a fleet.
#[derive(Clone)]
pub(crate) struct Member {
    pub(crate) mechanism: Mechanism,
    pub(crate) tried: Tried,
}

/// The results of earlier searches.
#[derive(Default)]
pub(crate) struct Known {
    /// Groups, each with its best member.
    groups: Vec<(Group, Option<Member>)>,
    /// The best deployment on the most GPUs so far.
    fleet: Vec<Member>,
}

impl Known {
    /// Starts with the result for one GPU.
    pub(crate) fn new(one: Option<&Placed>) -> Self {
        let fleet = one.map_or_else(Vec::new, |(_, members)| members.clone());
        Self { groups: fleet.iter().map(|m| (group_of(m), Some(m.clone()))).collect(), fleet }
    }
}

/// A deployment and its score.
pub(crate) type Placed = (Score, Vec<Member>);

/// The best deployment on `gpus` GPUs; `None` if no division serves every tenant.
pub(crate) fn place(
    search: &mut Search<'_>,
    gpus: usize,
    budget: f64,
    known: &mut Known,
) -> Option<Placed> {
    let until = search.spent() + budget;
    let mut divisions = divisions(search.lab, gpus);
    // One GPU more than before: dividing the worst GPU leaves no tenant worse off.
    if known.fleet.len() + 1 == gpus {
        divisions.extend(divided(search.lab, &known.fleet));
    }
    let mut best: Option<Placed> = None;
    // One more share for each GPU is for moving tenants between them.
    let mut left = (divisions.len() + 1) * gpus;
    for (n, division) in divisions.into_iter().enumerate() {
        // The first division is always searched, the others as far as the budget goes.
        let done = best.as_ref().is_some_and(|(score, _)| score.is_good());
        if done || n > 0 && search.spent() >= until {
            break;
        }
        let found = all(search, &division, &mut left, until, known);
        if let Some(found) = found
            && best.as_ref().is_none_or(|(score, _)| found.0 < *score)
        {
            best = Some(found);
        }
    }
    while let Some(placed) = &best
        && !placed.0.is_good()
        && search.spent() < until
    {
        match moved(search, placed, until, known) {
            Some(better) => best = Some(better),
            None => break,
        }
    }
    let best = best?;
    known.fleet.clone_from(&best.1);
    Some(best)
}

/// Searches the groups of a division, each with an even part of the remaining budget.
fn all(
    search: &mut Search<'_>,
    division: &[Group],
    left: &mut usize,
    until: f64,
    known: &mut Known,
) -> Option<Placed> {
    let mut members = vec![];
    for g in division {
        let each = (until - search.spent()).max(0.0) / (*left).max(1) as f64;
        *left = left.saturating_sub(1);
        members.push(member(search, g, each, known)?);
    }
    Some((together(search.lab, &members), members))
}

/// The division for one GPU fewer, with its worst GPU divided in two by load.
fn divided(lab: &Lab, fleet: &[Member]) -> Option<Vec<Group>> {
    let score = |m: &Member| m.tried.score(lab);
    let several = fleet.iter().enumerate().filter(|(_, m)| m.tried.c.tenants.len() > 1);
    let (worst, _) = several
        .max_by(|a, b| score(a.1).partial_cmp(&score(b.1)).unwrap_or(std::cmp::Ordering::Equal))?;
    let mut parts = parts_of(lab, &group_of(&fleet[worst]));
    parts.sort_by(|a, b| b.load.total_cmp(&a.load).then(a.tenant.cmp(&b.tenant)));
    let place = largest_first(&parts, 2)?;
    let mut groups: Vec<Group> = fleet.iter().map(group_of).collect();
    groups[worst] = group(&parts, &place, 0);
    groups.push(group(&parts, &place, 1));
    Some(groups)
}

/// A better deployment in which a tenant of the worst GPU moves to another, swaps places with a tenant there,
/// or leaves half of its requests there; `None` if no move that was tried is better.
fn moved(
    search: &mut Search<'_>,
    placed: &Placed,
    until: f64,
    known: &mut Known,
) -> Option<Placed> {
    let lab = search.lab;
    let (score, members) = placed;
    let groups: Vec<Group> = members.iter().map(group_of).collect();
    let each: Vec<Score> = members.iter().map(|m| m.tried.score(lab)).collect();
    let worst = (0..each.len())
        .max_by(|&a, &b| each[a].partial_cmp(&each[b]).unwrap_or(std::cmp::Ordering::Equal))?;
    let mut pairs: Vec<(f64, usize, [Group; 2])> = vec![];
    for other in (0..groups.len()).filter(|&g| g != worst) {
        let (a, b) = (parts_of(lab, &groups[worst]), parts_of(lab, &groups[other]));
        for pair in exchanges(&a, &b) {
            let load = |parts: &[Part]| parts.iter().map(|p| p.load).sum::<f64>();
            let fuller = load(&pair[0]).max(load(&pair[1]));
            pairs.push((fuller, other, pair.map(|parts| whole(&parts))));
        }
    }
    pairs.sort_by(|a, b| a.0.total_cmp(&b.0));
    let new = |g: &Group| !known.groups.iter().any(|(k, _)| k == g);
    pairs.retain(|(.., pair)| pair.iter().any(new));
    for (n, (_, other, pair)) in pairs.into_iter().take(MOVES).enumerate() {
        if search.spent() >= until {
            break;
        }
        let mut left = 2 * (MOVES - n).min(3);
        let Some((_, two)) = all(search, &pair, &mut left, until, known) else { continue };
        let mut next = members.clone();
        for (at, m) in [worst, other].into_iter().zip(two) {
            next[at] = m;
        }
        let now = together(lab, &next);
        if now < *score {
            return Some((now, next));
        }
    }
    None
}

/// The pairs of part lists that two GPUs may have after one move from the first.
fn exchanges(a: &[Part], b: &[Part]) -> Vec<[Vec<Part>; 2]> {
    let without = |parts: &[Part], i: usize| {
        let mut rest = parts.to_vec();
        rest.remove(i);
        rest
    };
    let has = |parts: &[Part], t: usize| parts.iter().any(|p| p.tenant == t);
    let mut all = vec![];
    for (i, part) in a.iter().enumerate() {
        let rest = without(a, i);
        if !has(b, part.tenant) {
            let with = |part: Part| [b, &[part]].concat();
            if a.len() > 1 {
                all.push([rest.clone(), with(*part)]);
            }
            let half = Part { share: part.share / 2.0, load: part.load / 2.0, ..*part };
            all.push([[&rest[..], &[half]].concat(), with(half)]);
        }
        for (j, other) in b.iter().enumerate() {
            let (mine, theirs) = (rest.clone(), without(b, j));
            if !has(&mine, other.tenant) && !has(&theirs, part.tenant) {
                all.push([[&mine[..], &[*other]].concat(), [&theirs[..], &[*part]].concat()]);
            }
        }
    }
    all
}

fn group_of(m: &Member) -> Group {
    Group { tenants: m.tried.c.tenants.clone(), requests: m.tried.c.requests.clone() }
}

fn parts_of(lab: &Lab, g: &Group) -> Vec<Part> {
    let part = |(&tenant, &share): (&usize, &f64)| {
        let load = screen::load(lab, tenant, lab.batch_limit[tenant], share);
        Part { tenant, share, load }
    };
    g.tenants.iter().zip(&g.requests).map(part).collect()
}

/// The score of several GPUs: the number of tenants that miss a goal in some part, and the worst of the other
/// values.
pub(crate) fn together(lab: &Lab, members: &[Member]) -> Score {
    let mut all = Score { missed: 0, worst: 0.0, lost: 0.0, ratio: 0.0 };
    let mut missed = BTreeSet::new();
    for m in members {
        let s = m.tried.score(lab);
        missed.extend(m.tried.missed(lab));
        all.worst = all.worst.max(s.worst);
        all.lost = all.lost.max(s.lost);
        all.ratio = all.ratio.max(s.ratio);
    }
    Score { missed: missed.len(), ..all }
}

/// The best way to serve a group of tenants on one GPU.
fn member(search: &mut Search<'_>, g: &Group, budget: f64, known: &mut Known) -> Option<Member> {
    if let Some((_, member)) = known.groups.iter().find(|(k, _)| k == g) {
        return member.clone();
    }
    let until = search.spent() + budget;
    // Mechanisms that cannot be deployed cannot be chosen. If the budget is below one short run for each
    // mechanism, only the simplest and the finest are tried.
    let deploys = Mechanism::ALL.into_iter().filter(|m| *m != Mechanism::Krisp);
    let mut looked: Vec<Mechanism> = deploys.collect();
    if budget < looked.len() as f64 * search.lengths.events(search.lab, g) {
        looked.retain(|m| matches!(m, Mechanism::Mps | Mechanism::Percent | Mechanism::Mig));
    }
    // Settings that served a larger group also serve this one.
    let more = known.groups.iter().filter_map(|(_, m)| without(&m.as_ref()?.tried.c, g));
    let more: Vec<Candidate> = more.collect();
    let pools = search.first_with(g, &looked, budget * 0.4, &more);
    let member = search.settle_one(pools, until);
    known.groups.push((g.clone(), member.clone()));
    member
}

/// A candidate without the tenants that are not in a group; `None` if the group has other tenants, or a
/// larger share of a tenant's requests.
pub(super) fn without(c: &Candidate, g: &Group) -> Option<Candidate> {
    let mut kept = vec![];
    for (&t, &requests) in g.tenants.iter().zip(&g.requests) {
        let at = c.tenants.iter().position(|&other| other == t)?;
        if c.requests[at] < requests {
            return None;
        }
        kept.push(at);
    }
    if kept.len() == c.tenants.len() {
        return None;
    }
    let some = |list: &[u32]| kept.iter().map(|&i| list[i]).collect::<Vec<u32>>();
    let deploy = How::Deploy;
    let how = match &c.how {
        How::Deploy(Sharing::Mps { percent }) => deploy(Sharing::Mps { percent: some(percent) }),
        How::Deploy(Sharing::Static { chunks }) => deploy(Sharing::Static { chunks: some(chunks) }),
        How::Deploy(Sharing::Mig { instances, place, percent }) => {
            let mut slots: Vec<usize> = kept.iter().map(|&i| place[i]).collect();
            slots.sort_unstable();
            slots.dedup();
            let slot = |i: &usize| slots.iter().position(|&s| s == place[*i]).unwrap_or(0);
            deploy(Sharing::Mig {
                instances: slots.iter().map(|&s| instances[s].clone()).collect(),
                place: kept.iter().map(slot).collect(),
                percent: some(percent),
            })
        }
        other => other.clone(),
    };
    Some(Candidate {
        tenants: g.tenants.clone(),
        requests: g.requests.clone(),
        how,
        batch: some(&c.batch),
        tokens: some(&c.tokens),
        memory: kept.iter().map(|&i| c.memory[i]).collect(),
        timeout: kept.iter().map(|&i| c.timeout[i]).collect(),
        workers: some(&c.workers),
    })
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
    // If there are fewer parts than GPUs, the heaviest are split further.
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
    let of = |place: &[usize]| (0..gpus).map(|gpu| group(&parts, place, gpu)).collect();
    found.iter().map(|(.., place)| of(place)).collect()
}

/// The parts on one GPU.
fn group(parts: &[Part], place: &[usize], gpu: usize) -> Group {
    let here = parts.iter().zip(place).filter(|(_, p)| **p == gpu).map(|(part, _)| *part);
    whole(&here.collect::<Vec<Part>>())
}

fn whole(parts: &[Part]) -> Group {
    let mut parts = parts.to_vec();
    parts.sort_by_key(|p| p.tenant);
    Group {
        tenants: parts.iter().map(|p| p.tenant).collect(),
        requests: parts.iter().map(|p| p.share).collect(),
    }
}

fn sums(parts: &[Part], gpus: usize, place: &[usize]) -> Vec<f64> {
    let mut sums = vec![0.0; gpus];
    for (part, &gpu) in parts.iter().zip(place) {
        sums[gpu] += part.load;
    }
    sums
}

/// Visits every assignment that leaves no GPU empty and puts no tenant on a GPU twice; all GPUs are alike.
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

/// Places each part, the heaviest first, on the GPU with the least load.
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
