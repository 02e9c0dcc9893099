//! The search on one GPU: short runs of the candidates that the formula ranks best, then of the neighbours of
//! the best, then longer runs of the survivors until their order is settled.
//!
//! All candidates see the same requests (common random numbers), so that a difference between two comes from
//! their settings. The budget is counted in simulated events, not in seconds: the same question has the same
//! answer on every machine and with any number of threads, whether its cells are simulated or were known
//! before.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::evaluate::{For, Run};
use super::fleet::Member;
use super::goal::Goal;
use super::lab::{Candidate, Lab};
use super::length::Lengths;
use super::space::{Group, Mechanism, Space};

/// Most candidates of a mechanism that are simulated first.
const STARTS: usize = 5;
/// The same for a mechanism that no setting deploys.
const KRISP_STARTS: usize = 2;
/// Mechanisms to climb from if only one result is wanted.
const CLIMBING: usize = 3;
/// Seeds of the last round of the race.
pub(crate) const SEEDS: usize = 4;
/// Ratios of p99 and goal below this one are all equally good.
const SAFE: f64 = 0.8;

/// A candidate with its results.
#[derive(Clone)]
pub(crate) struct Tried {
    pub(crate) c: Candidate,
    /// Short run.
    short: Option<Result<Run, String>>,
    /// Long runs, one per seed.
    pub(crate) long: Vec<Run>,
}

/// How good a candidate is; smaller is better.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub(crate) struct Score {
    /// Number of missed goals.
    pub(crate) missed: usize,
    /// The worst ratio of p99 and goal, but at least [`SAFE`].
    pub(crate) worst: f64,
    /// Share of their isolated throughput that best-effort tenants lose, on average.
    pub(crate) lost: f64,
    /// The worst ratio.
    pub(crate) ratio: f64,
}

impl Score {
    /// Whether neither a larger distance from the goals nor more for best-effort tenants is possible.
    pub(crate) fn is_good(self) -> bool {
        self.missed == 0 && self.worst <= SAFE && self.lost <= 0.0
    }

    pub(crate) const NOTHING: Self =
        Self { missed: usize::MAX, worst: f64::INFINITY, lost: 1.0, ratio: f64::INFINITY };
}

/// The best of a mechanism.
pub(crate) struct Best {
    pub(crate) mechanism: Mechanism,
    /// Its results, or why there are none.
    pub(crate) tried: Result<Tried, String>,
}

/// The candidates tried for each mechanism, the best first.
pub(crate) type Pools = Vec<(Mechanism, Vec<Tried>)>;

/// A search under way.
pub(crate) struct Search<'a> {
    pub(crate) lab: &'a Lab,
    pub(crate) space: Space,
    pub(crate) threads: usize,
    pub(crate) seed: u64,
    pub(super) lengths: Lengths,
    /// Events that had been asked for before this search.
    start: u64,
}

impl Tried {
    pub(crate) fn new(c: Candidate) -> Self {
        Self { c, short: None, long: vec![] }
    }

    /// Simulates it.
    pub(super) fn run(&self, lab: &Lab, how: For) -> Result<Run, String> {
        lab.run(&self.c, how)
    }

    /// The runs that numbers may be taken from: the long ones if there are any.
    pub(crate) fn samples(&self) -> Vec<&Run> {
        if !self.long.is_empty() {
            return self.long.iter().collect();
        }
        self.short.iter().filter_map(|r| r.as_ref().ok()).collect()
    }

    pub(crate) fn score(&self, lab: &Lab) -> Score {
        score(lab, &self.c.tenants, &self.samples())
    }

    /// Tenants whose goals are missed.
    pub(super) fn missed(&self, lab: &Lab) -> Vec<usize> {
        let runs = self.samples();
        let misses = |(i, t): (usize, &usize)| {
            let got = runs.iter().map(|r| r.got[i]);
            lab.goal(*t).filter(|goal| goal.mean_ratio(got) > 1.0).map(|_| *t)
        };
        self.c.tenants.iter().enumerate().filter_map(misses).collect()
    }

    /// Events of a long run: as measured in its runs, else estimated.
    pub(super) fn long_events(&self, lab: &Lab, lengths: &Lengths) -> f64 {
        let mean =
            |runs: &[&Run]| runs.iter().map(|r| r.events as f64).sum::<f64>() / runs.len() as f64;
        let runs = self.samples();
        match (self.long.is_empty(), runs.as_slice()) {
            (_, []) => lengths.long_events(lab, &self.c),
            (false, runs) => mean(runs),
            (true, runs) => {
                let (short, long) = (lengths.short(lab, &self.c).0, lengths.long(lab, &self.c));
                mean(runs) * long.0 as f64 / short.0 as f64
            }
        }
    }

    /// Events of a short run, in the same way.
    fn short_events(&self, lab: &Lab, lengths: &Lengths) -> f64 {
        match &self.short {
            Some(Ok(run)) => run.events as f64,
            _ => lengths.short(lab, &self.c).1,
        }
    }

    fn why(&self) -> Option<&str> {
        self.short.as_ref().and_then(|r| r.as_ref().err()).map(String::as_str)
    }
}

/// The score of runs under several seeds.
pub(crate) fn score(lab: &Lab, tenants: &[usize], runs: &[&Run]) -> Score {
    if runs.is_empty() {
        return Score::NOTHING;
    }
    let n = runs.len() as f64;
    let (mut missed, mut worst) = (0, 0.0_f64);
    let (mut lost, mut spare) = (0.0, 0.0);
    for (i, &t) in tenants.iter().enumerate() {
        let got = || runs.iter().map(move |r| r.got[i]);
        if let Some(goal) = lab.goal(t) {
            let mean = goal.mean_ratio(got());
            missed += usize::from(mean > 1.0);
            worst = worst.max(mean);
        } else if let Some(alone) = lab.isolated[t] {
            // With an open load no tenant gets more than it asks for.
            let most = lab.mix.rate(t).map_or(alone.rps, |r| r.min(alone.rps));
            lost += 1.0 - (got().map(|g| g.rps).sum::<f64>() / n / most).min(1.0);
            spare += 1.0;
        }
    }
    let lost = if spare > 0.0 { lost / spare } else { 0.0 };
    // Differences below a hundredth are noise.
    let lost = (lost * 100.0).round() / 100.0;
    Score { missed, worst: worst.max(SAFE), lost, ratio: worst }
}

/// Whether every goal is kept, and every tenant with a goal received requests.
pub(crate) fn keeps(lab: &Lab, tenants: &[usize], runs: &[&Run]) -> bool {
    let asked = |(i, &t): (usize, &usize)| {
        lab.goal(t).is_none() || Goal::asked(runs.iter().map(|r| r.got[i]))
    };
    score(lab, tenants, runs).missed == 0 && tenants.iter().enumerate().all(asked)
}

impl<'a> Search<'a> {
    /// A search whose runs are of the lengths that about `budget` events allow.
    pub(crate) fn new(lab: &'a Lab, space: Space, threads: usize, budget: f64) -> Self {
        let seed = lab.mix.e.seeds.first().copied().unwrap_or(1);
        let (lengths, start) = (Lengths::new(budget), lab.cells.events());
        Self { lab, space, threads, seed, lengths, start }
    }

    /// Events so far.
    pub(crate) fn spent(&self) -> f64 {
        (self.lab.cells.events() - self.start) as f64
    }

    pub(super) fn short(&self, c: &Candidate) -> For {
        For { seed: self.seed, duration: self.lengths.short(self.lab, c).0, load: 1.0 }
    }

    /// A long run under the seed of this index.
    pub(super) fn long(&self, c: &Candidate, seed: usize) -> For {
        let duration = self.lengths.long(self.lab, c);
        For { seed: self.seed + seed as u64, duration, load: 1.0 }
    }

    /// The best of every mechanism after the first short runs, which may have about `most` events.
    pub(crate) fn first(&mut self, g: &Group, mechanisms: &[Mechanism], most: f64) -> Pools {
        self.first_with(g, mechanisms, most, &[])
    }

    /// The same, with the candidates in `also` among them.
    pub(crate) fn first_with(
        &mut self,
        g: &Group,
        mechanisms: &[Mechanism],
        most: f64,
        also: &[Candidate],
    ) -> Pools {
        let possible = |m: &&Mechanism| m.possible(self.lab, g.tenants.len()).is_ok();
        let possible: Vec<Mechanism> = mechanisms.iter().filter(possible).copied().collect();
        let each = self.lengths.events(self.lab, g);
        let starts = (most / (each * possible.len().max(1) as f64)) as usize;
        let mut pools = vec![];
        for mechanism in possible {
            let found = self.space.starts(self.lab, g, mechanism);
            let also = also.iter().filter(|c| Mechanism::of(c) == mechanism).cloned();
            let most = if mechanism == Mechanism::Krisp { KRISP_STARTS } else { STARTS };
            let found = found.into_iter().take(starts.clamp(1, most));
            let mut all: Vec<Candidate> = also.chain(found).collect();
            super::space::dedup(&mut all);
            pools.push((mechanism, all.into_iter().map(Tried::new).collect()));
        }
        self.try_short(&mut pools);
        pools
    }

    /// Continues the search until `budget` events are simulated or nothing changes any more, and races the
    /// survivors.
    pub(crate) fn settle(&mut self, g: &Group, mut pools: Pools, budget: f64) -> Vec<Best> {
        // More than half of the budget is for telling the best apart, which takes longer runs.
        let climb = self.spent() + (budget - self.spent()) * 0.45;
        self.climb(&mut pools, climb);
        self.as_deployed(&mut pools);
        self.race(&mut pools, budget);
        self.best(g, pools)
    }

    /// As [`Search::settle`], if only the best of all mechanisms is wanted: it ends as soon as long runs
    /// confirm a candidate that cannot be beaten, or when the budget is spent.
    pub(crate) fn settle_one(&mut self, mut pools: Pools, budget: f64) -> Option<Member> {
        pools.retain(|(m, _)| *m != Mechanism::Krisp);
        let climb = self.spent() + (budget - self.spent()) * 0.5;
        let good = |this: &Self, pools: &Pools| {
            top(this.lab, pools).is_some_and(|(p, i)| pools[p].1[i].score(this.lab).is_good())
        };
        if good(self, &pools) {
            self.confirm(&mut pools, budget);
        }
        if !good(self, &pools) {
            self.climb_best(&mut pools, climb);
            self.confirm(&mut pools, budget);
        }
        while !good(self, &pools) && self.spent() < budget {
            // The favourites of short runs do not hold up: continue from the best that does, by long runs.
            if !self.improve(&mut pools, budget) {
                break;
            }
            self.confirm(&mut pools, budget);
        }
        let (p, i) = top(self.lab, &pools)?;
        let mechanism = pools[p].0;
        Some(Member { mechanism, tried: pools.swap_remove(p).1.swap_remove(i) })
    }

    /// Long runs of the current best, until the best has all of them.
    fn confirm(&mut self, pools: &mut Pools, budget: f64) {
        while let Some((p, i)) = hopeful(self.lab, pools) {
            let t = &mut pools[p].1[i];
            if t.long.len() >= SEEDS || self.spent() >= budget && !t.long.is_empty() {
                break;
            }
            if !self.lengthen(t) {
                // It cannot run under this seed.
                pools[p].1.remove(i);
            } else if self.spent() >= budget {
                break;
            }
        }
    }

    /// One round of long runs of neighbours of the best; returns whether one was better.
    fn improve(&mut self, pools: &mut Pools, budget: f64) -> bool {
        let lab = self.lab;
        let Some((p, i)) = top(lab, pools) else { return false };
        let before = pools[p].1[i].score(lab);
        let best = pools[p].1.remove(i);
        pools[p].1.insert(0, best);
        for wide in [false, true] {
            let each = pools[p].1[0].long_events(lab, &self.lengths).max(1.0);
            let room = ((budget - self.spent()) / each) as usize;
            let around = if room > 0 { self.around(&pools[p].1, wide, room) } else { vec![] };
            let runs = parallel(self.threads, &around, |t| t.run(lab, self.long(&t.c, 0)));
            for (mut t, run) in around.into_iter().zip(runs) {
                if let Ok(run) = run {
                    t.long.push(run);
                    pools[p].1.push(t);
                }
            }
            if top(lab, pools).is_some_and(|(p, i)| pools[p].1[i].score(lab) < before) {
                return true;
            }
        }
        false
    }

    /// Climbs from the best few mechanisms until one cannot be beaten, or `most` events are simulated.
    fn climb_best(&mut self, pools: &mut Pools, most: f64) {
        let lab = self.lab;
        let first = |p: &[Tried]| p.first().map_or(Score::NOTHING, |t| t.score(lab));
        let mut order: Vec<usize> = (0..pools.len()).collect();
        order.sort_by(|&a, &b| {
            let (a, b) = (first(&pools[a].1), first(&pools[b].1));
            a.partial_cmp(&b).unwrap_or(std::cmp::Ordering::Equal)
        });
        let open = (0..pools.len()).map(|p| order.iter().take(CLIMBING).any(|&o| o == p));
        self.climb_open(pools, open.collect(), most, true);
    }

    /// Moves from the best of every pool to better neighbours, until there are none or `most` events are
    /// simulated.
    pub(crate) fn climb(&mut self, pools: &mut Pools, most: f64) {
        let open = pools.iter().map(|(m, _)| *m != Mechanism::Krisp).collect();
        self.climb_open(pools, open, most, false);
    }

    /// Tries masks per kernel with the best batches and workers found without them: they are a bound for
    /// settings that deploy, and slow to simulate.
    fn as_deployed(&mut self, pools: &mut Pools) {
        let shared =
            pools.iter().filter(|(m, _)| matches!(m, Mechanism::TimeSlicing | Mechanism::Mps));
        let best = shared.filter_map(|(_, pool)| pool.first()).map(|t| t.c.clone());
        let best: Vec<Candidate> = best.collect();
        let Some((_, pool)) = pools.iter_mut().find(|(m, _)| *m == Mechanism::Krisp) else {
            return;
        };
        let Some(how) = pool.first().map(|t| t.c.how.clone()) else { return };
        for c in best {
            let c = Candidate { how: how.clone(), ..c };
            if pool.iter().all(|t| t.c != c) {
                pool.push(Tried::new(c));
            }
        }
        self.try_short(pools);
    }

    /// The same for the pools that are open; with `one`, only until one of them has a candidate that cannot
    /// be beaten.
    fn climb_open(&mut self, pools: &mut Pools, mut open: Vec<bool>, most: f64, one: bool) {
        let mut wide = vec![false; pools.len()];
        let good = |this: &Self, pools: &Pools| {
            let firsts = pools.iter().filter_map(|(_, p)| p.first());
            one && firsts.into_iter().any(|t| t.score(this.lab).is_good())
        };
        while open.contains(&true) && self.spent() < most && !good(self, pools) {
            let mut more: Pools = vec![];
            let of = open.iter().filter(|o| **o).count() as f64;
            for (at, (mechanism, pool)) in pools.iter().enumerate().filter(|(at, _)| open[*at]) {
                let best = pool.first();
                let each = best.map_or(1.0, |t| t.short_events(self.lab, &self.lengths));
                // Not more than the budget allows.
                let room = ((most - self.spent()) / of / each.max(1.0)) as usize;
                let around = if room > 0 { self.around(pool, wide[at], room) } else { vec![] };
                more.push((*mechanism, around));
            }
            if more.iter().all(|(_, around)| around.is_empty()) {
                break;
            }
            self.try_short(&mut more);
            let mut more = more.into_iter();
            for (at, (_, pool)) in pools.iter_mut().enumerate() {
                if !open[at] {
                    continue;
                }
                let Some((_, new)) = more.next() else { break };
                let before = pool.first().map_or(Score::NOTHING, |t| t.score(self.lab));
                pool.extend(new);
                rank(self.lab, pool);
                let after = pool.first().map_or(Score::NOTHING, |t| t.score(self.lab));
                let better = after < before;
                // Narrow steps first, then all neighbours; the climb ends if none of these is better.
                open[at] = better || !wide[at];
                wide[at] = !better;
            }
        }
    }

    /// The best of every mechanism, or why there is none.
    pub(crate) fn best(&self, g: &Group, pools: Pools) -> Vec<Best> {
        let mut pools = pools.into_iter().peekable();
        let mut all = vec![];
        for mechanism in Mechanism::ALL {
            let tried = match mechanism.possible(self.lab, g.tenants.len()) {
                Err(why) => Err(why),
                Ok(()) => match pools.next_if(|(m, _)| *m == mechanism) {
                    Some((_, pool)) => pick(pool),
                    None => Err("not looked at".to_owned()),
                },
            };
            all.push(Best { mechanism, tried });
        }
        all
    }

    /// At most `most` candidates around the best of a pool that are not in it: a few that help the tenant
    /// that is worst off, or all.
    fn around(&self, pool: &[Tried], wide: bool, most: usize) -> Vec<Tried> {
        let Some(best) = pool.first() else { return vec![] };
        let runs = best.samples();
        let of = |i: usize| {
            let goal = self.lab.goal(best.c.tenants[i])?;
            Some(runs.iter().map(|r| goal.ratio(&r.got[i])).fold(0.0, f64::max))
        };
        // Goals that are kept with room to spare gain nothing: then the best-effort tenant that loses most
        // counts.
        let lost = |i: usize| {
            let t = best.c.tenants[i];
            let alone = self.lab.isolated[t].filter(|_| self.lab.goal(t).is_none())?.rps;
            let most = self.lab.mix.rate(t).map_or(alone, |r| r.min(alone));
            let got = runs.iter().map(|r| r.got[i].rps).sum::<f64>() / runs.len().max(1) as f64;
            Some(1.0 - got / most)
        };
        let need = |i: usize| match of(i) {
            Some(ratio) if ratio > SAFE => 2.0 + ratio,
            Some(ratio) => ratio / 1e3,
            None => lost(i).unwrap_or(0.0).clamp(0.0, 1.0),
        };
        let worst =
            (0..best.c.tenants.len()).max_by(|&a, &b| need(a).total_cmp(&need(b))).unwrap_or(0);
        let mut all = self.space.neighbours(self.lab, &best.c, worst);
        super::space::dedup(&mut all);
        // If batches are usually less than half full, room for larger ones changes nothing.
        let seldom = |i: usize| {
            let means = runs.iter().filter_map(|r| r.got[i].batch_mean);
            let mean = means.clone().sum::<f64>() / means.count().max(1) as f64;
            mean * 2.0 <= f64::from(best.c.batch[i]) && !self.lab.generates(best.c.tenants[i])
        };
        let idle = |c: &Candidate| {
            let larger = (0..c.batch.len()).filter(|&i| c.batch[i] > best.c.batch[i]);
            let same = Candidate { batch: best.c.batch.clone(), ..c.clone() } == best.c;
            same && larger.into_iter().any(seldom)
        };
        all.retain(|c| !idle(c));
        all.retain(|c| !pool.iter().any(|t| t.c == *c));
        all.truncate(if wide { most } else { most.min(6) });
        all.into_iter().map(Tried::new).collect()
    }

    fn try_short(&mut self, pools: &mut Pools) {
        let lab = self.lab;
        let this = &*self;
        let mut todo: Vec<&mut Tried> = pools
            .iter_mut()
            .flat_map(|(_, p)| p.iter_mut())
            .filter(|t| t.short.is_none())
            .collect();
        let results = parallel(self.threads, &todo, |t| t.run(lab, this.short(&t.c)));
        for (t, result) in todo.iter_mut().zip(results) {
            t.short = Some(result);
        }
        for (_, pool) in pools {
            rank(lab, pool);
        }
    }

    /// Long runs under more and more seeds, for fewer and fewer candidates.
    fn race(&mut self, pools: &mut Pools, budget: f64) {
        let lab = self.lab;
        for (seeds, keep) in [(1, 3), (2, 2), (SEEDS, 2)] {
            // The best of each mechanism first.
            let (mut who, mut firsts): (Vec<(usize, usize)>, usize) = (vec![], 0);
            for rank in 0..keep {
                for (p, (mechanism, pool)) in pools.iter().enumerate() {
                    if rank > 0 && *mechanism == Mechanism::Krisp {
                        continue;
                    }
                    let mut served = (0..pool.len()).filter(|&i| pool[i].why().is_none());
                    who.extend(served.nth(rank).map(|i| (p, i)));
                }
                firsts = if rank == 0 { who.len() } else { firsts };
            }
            loop {
                let mut planned = self.spent();
                let mut now: Vec<(usize, usize)> = vec![];
                for (n, &(p, i)) in who.iter().enumerate() {
                    let t = &pools[p].1[i];
                    if t.long.len() >= seeds {
                        continue;
                    }
                    // One run of the best of each mechanism is always made: a short run alone is not an
                    // answer.
                    if planned > budget && !(seeds == 1 && n < firsts) {
                        break;
                    }
                    planned += t.long_events(lab, &self.lengths);
                    now.push((p, i));
                }
                if now.is_empty() {
                    break;
                }
                let (this, tried) = (&*self, &*pools);
                let results = parallel(self.threads, &now, |&(p, i)| {
                    let t = &tried[p].1[i];
                    t.run(lab, this.long(&t.c, t.long.len()))
                });
                for (at, result) in now.into_iter().zip(results) {
                    match result {
                        Ok(run) => pools[at.0].1[at.1].long.push(run),
                        // It would not run under another seed, either.
                        Err(_) => who.retain(|other| *other != at),
                    }
                }
            }
            for (_, pool) in pools.iter_mut() {
                rank(lab, pool);
            }
        }
    }

    /// The best first.
    pub(super) fn rank(&self, pool: &mut [Tried]) {
        rank(self.lab, pool);
    }

    /// One more long run of a candidate; returns whether it ran.
    pub(crate) fn lengthen(&mut self, t: &mut Tried) -> bool {
        let run = t.run(self.lab, self.long(&t.c, t.long.len()));
        run.map(|run| t.long.push(run)).is_ok()
    }

    /// The score of one short run.
    #[cfg(test)]
    pub(crate) fn short_score(&self, c: &Candidate) -> Option<Score> {
        let t = Tried::new(c.clone());
        let run = t.run(self.lab, self.short(c)).ok()?;
        Some(score(self.lab, &t.c.tenants, &[&run]))
    }

    /// Long runs of a candidate under `seeds` seeds.
    ///
    /// # Errors
    /// The device does not support it.
    pub(crate) fn measure(&mut self, c: Candidate, seeds: usize) -> Result<Tried, String> {
        let mut t = Tried::new(c);
        let seeds: Vec<usize> = (0..seeds).collect();
        let lab = self.lab;
        let one = |&seed: &usize| t.run(lab, self.long(&t.c, seed));
        let runs = parallel(self.threads, &seeds, one);
        for run in runs {
            t.long.push(run?);
        }
        Ok(t)
    }
}

fn by_runs(lab: &Lab, a: &Tried, b: &Tried) -> std::cmp::Ordering {
    let known = |t: &Tried| t.long.len();
    let (sa, sb) = (a.score(lab), b.score(lab));
    // A long run outranks a short one.
    (known(b) > 0)
        .cmp(&(known(a) > 0))
        .then(sa.partial_cmp(&sb).unwrap_or(std::cmp::Ordering::Equal))
}

/// Sort key of a candidate across all mechanisms: among equals the simplest wins.
fn key(lab: &Lab, t: &Tried, m: Mechanism) -> (usize, f64, f64, Mechanism) {
    let s = t.score(lab);
    (s.missed, (s.worst * 50.0).round(), (s.lost * 20.0).round(), m)
}

/// The candidate with the smallest key.
fn least<K: PartialOrd>(
    pools: &Pools,
    of: impl Fn(usize, Mechanism, &Tried) -> Option<K>,
) -> Option<(usize, usize)> {
    let all = pools
        .iter()
        .enumerate()
        .flat_map(|(p, (m, pool))| pool.iter().enumerate().map(move |(i, t)| (p, i, *m, t)));
    let keyed = all.filter_map(|(p, i, m, t)| Some((of(p, m, t)?, (p, i))));
    let least = keyed.min_by(|a, b| a.0.partial_cmp(&b.0).unwrap_or(std::cmp::Ordering::Equal));
    least.map(|(_, at)| at)
}

/// The best of all mechanisms: only candidates with long runs if there are any, else all that ran.
fn top(lab: &Lab, pools: &Pools) -> Option<(usize, usize)> {
    let most = pools.iter().flat_map(|(_, p)| p).map(|t| t.long.len()).max()?;
    least(pools, |_, m, t| {
        let known = !t.samples().is_empty() && (!t.long.is_empty() || most == 0);
        known.then(|| key(lab, t, m))
    })
}

/// The best of all mechanisms so far, where candidates without long runs are held back by those refuted in
/// their mechanism.
fn hopeful(lab: &Lab, pools: &Pools) -> Option<(usize, usize)> {
    let refuted = |t: &&Tried| {
        let short = t.short.iter().filter_map(|r| r.as_ref().ok());
        let short: Vec<&Run> = short.collect();
        !t.long.is_empty() && score(lab, &t.c.tenants, &short).missed < t.score(lab).missed
    };
    let refuted: Vec<usize> = pools.iter().map(|(_, p)| p.iter().filter(refuted).count()).collect();
    least(pools, |p, m, t| {
        let (missed, worst, lost, m) = key(lab, t, m);
        let doubt = if t.long.is_empty() { refuted[p] } else { 0 };
        (!t.samples().is_empty()).then_some((missed, doubt, worst, lost, m))
    })
}

/// Candidates with long runs first, then by score; equals stay in order.
fn rank(lab: &Lab, pool: &mut [Tried]) {
    pool.sort_by(|a, b| by_runs(lab, a, b));
}

/// The best, or why none of them runs.
fn pick(pool: Vec<Tried>) -> Result<Tried, String> {
    let why = pool.iter().find_map(Tried::why).map(str::to_owned);
    let best = pool.into_iter().find(|t| !t.samples().is_empty());
    best.ok_or_else(|| why.unwrap_or_else(|| "no settings are legal".to_owned()))
}

/// `f` of every item on several threads, in the order of the items.
pub(crate) fn parallel<T: Sync, R: Send>(
    threads: usize,
    items: &[T],
    f: impl Fn(&T) -> R + Sync,
) -> Vec<R> {
    if threads <= 1 || items.len() <= 1 {
        return items.iter().map(f).collect();
    }
    let next = AtomicUsize::new(0);
    let mut parts: Vec<(usize, R)> = std::thread::scope(|scope| {
        let work = || {
            let mut own = vec![];
            loop {
                let i = next.fetch_add(1, Ordering::Relaxed);
                let Some(item) = items.get(i) else { return own };
                own.push((i, f(item)));
            }
        };
        let handles: Vec<_> = (0..threads.min(items.len())).map(|_| scope.spawn(work)).collect();
        handles.into_iter().flat_map(|h| h.join().expect("a run does not panic")).collect()
    });
    parts.sort_by_key(|(i, _)| *i);
    parts.into_iter().map(|(_, r)| r).collect()
}
