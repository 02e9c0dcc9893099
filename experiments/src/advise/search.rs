//! The search on one GPU: short runs of what the formula likes, then of the neighbours of the best,
//! then longer runs of the survivors until their order is settled.
//!
//! All candidates see the same requests (common random numbers), so that a difference between two is
//! one of settings. The budget is counted in simulated events, not in seconds: the same question has
//! the same answer on every machine and for any number of threads.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use cotenant_profiles::Nanos;
use cotenant_sim::scenario::Setup;

use super::lab::{Candidate, Got, Lab, Run};
use super::space::{Group, Mechanism, Space};

/// Simulated events that one second of `--budget` stands for: about what one core of 2024 does.
pub(crate) const EVENTS_PER_SECOND: f64 = 4.0e6;
/// Events of a short run, about.
const SHORT_EVENTS: f64 = 15_000.0;
/// Requests of the slowest tenant with a goal in a short run, if that takes at most four times as long.
const SHORT_REQUESTS: f64 = 150.0;
/// A long run is at most so many times longer.
const LONGEST: f64 = 8.0;
/// Requests of the slowest tenant with a goal in a long run, as far as the budget goes.
const LONG_REQUESTS: f64 = 150.0;
/// Long runs that every answer has, about: the first round of the race, every seed of the best of each
/// mechanism, their headroom. They get half of the budget.
const LONG_RUNS: f64 = 80.0;
/// A queue that grows breaks a goal within so many times the goal.
const GOALS_TO_OVERFLOW: u64 = 20;
/// Candidates of a mechanism that are simulated first.
const STARTS: usize = 5;
/// Seeds of the longest race.
const SEEDS: usize = 4;
/// Share of requests that must be within the goal: goals are meant for the 99th percentile.
pub(crate) const ATTAINED: f64 = 0.99;
/// Below this ratio of p99 and goal more distance is no advantage.
const SAFE: f64 = 0.8;

/// A candidate with what it delivered.
#[derive(Clone)]
pub(crate) struct Tried {
    pub(crate) c: Candidate,
    setup: Arc<Setup>,
    /// Short run.
    short: Option<Result<Run, String>>,
    /// Long runs, one per seed.
    pub(crate) long: Vec<Run>,
}

/// How good a candidate is; smaller is better.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub(crate) struct Score {
    /// Goals that are missed.
    pub(crate) missed: usize,
    /// The worst ratio of p99 and goal, not below the safe one.
    pub(crate) worst: f64,
    /// What best-effort tenants do not get of their isolated throughput, on average.
    pub(crate) lost: f64,
    /// The worst ratio.
    pub(crate) ratio: f64,
}

impl Score {
    pub(crate) const NOTHING: Self =
        Self { missed: usize::MAX, worst: f64::INFINITY, lost: 1.0, ratio: f64::INFINITY };
}

/// The best of a mechanism.
pub(crate) struct Best {
    pub(crate) mechanism: Mechanism,
    /// What it comes to, or why it does not.
    pub(crate) tried: Result<Tried, String>,
}

/// A search under way.
pub(crate) struct Search<'a> {
    pub(crate) lab: &'a Lab,
    pub(crate) space: Space,
    pub(crate) threads: usize,
    seed: u64,
    /// A long run over a short one.
    times: f64,
    /// Events that a run may have to see enough.
    most: f64,
    /// Tenants alone on a GPU, by tenant, batch, workers, share of requests and length.
    alone: BTreeMap<(usize, u32, u32, u64, Nanos), Option<Got>>,
    /// Events simulated so far.
    pub(crate) events: u64,
}

impl Tried {
    fn new(lab: &Lab, c: Candidate) -> Self {
        Self { setup: lab.prepare(&c), c, short: None, long: vec![] }
    }

    /// Runs, the longest there are.
    fn runs(&self) -> Vec<&Run> {
        if !self.long.is_empty() {
            return self.long.iter().collect();
        }
        self.short.iter().filter_map(|r| r.as_ref().ok()).collect()
    }

    /// All runs that numbers may be taken from.
    pub(crate) fn samples(&self) -> Vec<&Run> {
        self.runs()
    }

    pub(crate) fn score(&self, lab: &Lab) -> Score {
        score(lab, &self.c.tenants, &self.runs())
    }

    fn why(&self) -> Option<&str> {
        self.short.as_ref().and_then(|r| r.as_ref().err()).map(String::as_str)
    }
}

/// p99 over goal in one run, at least just above 1 where too few requests made it.
pub(crate) fn ratio(got: &Got, slo: Nanos) -> f64 {
    let goal = slo.as_millis_f64();
    let late = got.attained.is_none_or(|a| a < ATTAINED);
    match got.p99_ms {
        Some(p99) if late => (p99 / goal).max(1.0001),
        Some(p99) => (p99 / goal).min(1.0),
        // Nobody was served, or nobody asked.
        None if got.attained.is_none() => 0.0,
        None => 1e6,
    }
}

/// The mean ratio over runs; at least just above 1 where the queue grew through half of them.
pub(crate) fn mean_ratio(got: impl Iterator<Item = Got>, slo: Nanos) -> f64 {
    let (mut n, mut sum, mut grew) = (0_u32, 0.0, 0_u32);
    for got in got {
        n += 1;
        sum += ratio(&got, slo);
        grew += u32::from(got.overloaded);
    }
    let mean = sum / f64::from(n.max(1));
    if grew > 0 && grew * 2 >= n { mean.max(1.0001) } else { mean }
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
        if let Some(slo) = lab.slo(t) {
            let mean = mean_ratio(got(), slo);
            missed += usize::from(mean > 1.0);
            worst = worst.max(mean);
        } else if let Some(alone) = lab.isolated[t] {
            // With an open load nobody gets more than is asked for.
            let most = lab.mix.rate(t).map_or(alone.rps, |r| r.min(alone.rps));
            lost += 1.0 - (got().map(|g| g.rps).sum::<f64>() / n / most).min(1.0);
            spare += 1.0;
        }
    }
    let lost = if spare > 0.0 { lost / spare } else { 0.0 };
    // A hundredth is less than anybody can tell.
    let lost = (lost * 100.0).round() / 100.0;
    Score { missed, worst: worst.max(SAFE), lost, ratio: worst }
}

impl<'a> Search<'a> {
    /// A search that may simulate about `budget` events.
    pub(crate) fn new(lab: &'a Lab, space: Space, threads: usize, budget: f64) -> Self {
        let seed = lab.mix.e.seeds.first().copied().unwrap_or(1);
        let all = Group::all(lab);
        let (_, events) = short(lab, &all.tenants, &all.requests);
        let times = (budget / 2.0 / LONG_RUNS / events).clamp(1.0, LONGEST);
        let most = budget / 2.0 / LONG_RUNS;
        Self { lab, space, threads, seed, times, most, alone: BTreeMap::new(), events: 0 }
    }

    /// Length of a short run of a candidate. It depends on who is on the GPU alone, so that all settings
    /// see the same requests.
    fn short(&self, c: &Candidate) -> Nanos {
        short(self.lab, &c.tenants, &c.requests).0
    }

    /// Length of a long run.
    fn long(&self, c: &Candidate) -> Nanos {
        let (short, events) = short(self.lab, &c.tenants, &c.requests);
        let usual = short.0 as f64 * self.times;
        let per_ns = events / short.0 as f64;
        let slowest = slowest(self.lab, &c.tenants, &c.requests);
        let enough =
            slowest.map_or(0.0, |rate| LONG_REQUESTS * 1e9 / rate).max(self.overflow(c).0 as f64);
        Nanos(usual.max(enough.min(self.most / per_ns)) as u64)
    }

    /// How long a queue that grows may take to break a goal.
    fn overflow(&self, c: &Candidate) -> Nanos {
        let goals = c.tenants.iter().filter_map(|&t| self.lab.slo(t));
        Nanos(goals.max().map_or(0, |slo| slo.0.saturating_mul(GOALS_TO_OVERFLOW)))
    }

    /// Length of a run at so many times the load, for about as many requests at every load.
    fn loaded(&self, c: &Candidate, load: f64) -> Nanos {
        let whole = self.short(c).max(Nanos(self.long(c).0 / 2));
        Nanos((whole.0 as f64 / load.max(1.0)) as u64).max(self.overflow(c)).min(whole)
    }

    /// The best of every mechanism after the first short runs.
    pub(crate) fn first(&mut self, g: &Group) -> Vec<(Mechanism, Vec<Tried>)> {
        let mut pools = vec![];
        for mechanism in Mechanism::ALL {
            if mechanism.possible(self.lab, g.tenants.len()).is_ok() {
                let starts = self.space.starts(self.lab, g, mechanism);
                let starts =
                    starts.into_iter().take(STARTS).map(|c| Tried::new(self.lab, c)).collect();
                pools.push((mechanism, starts));
            }
        }
        self.try_short(&mut pools);
        pools
    }

    /// Searches on until `budget` events are simulated or nothing changes any more, and races the
    /// survivors.
    pub(crate) fn settle(
        &mut self,
        g: &Group,
        mut pools: Vec<(Mechanism, Vec<Tried>)>,
        budget: f64,
    ) -> Vec<Best> {
        // More than half of it is for telling the best apart, which takes longer runs.
        let climb = self.events as f64 + (budget - self.events as f64) * 0.45;
        self.climb(&mut pools, climb);
        self.race(&mut pools, budget);
        self.best(g, pools)
    }

    /// Goes from the best of every pool to its neighbours while they are better and less than `most`
    /// events are simulated.
    pub(crate) fn climb(&mut self, pools: &mut [(Mechanism, Vec<Tried>)], most: f64) {
        let mut open: Vec<bool> = vec![true; pools.len()];
        let mut wide = vec![false; pools.len()];
        while open.contains(&true) && (self.events as f64) < most {
            let mut more: Vec<(Mechanism, Vec<Tried>)> = vec![];
            for (at, (mechanism, pool)) in pools.iter().enumerate().filter(|(at, _)| open[*at]) {
                more.push((*mechanism, self.around(pool, wide[at])));
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
                // Narrow steps first, then all neighbours; nothing better there is the end.
                open[at] = better || !wide[at];
                wide[at] = !better;
            }
        }
    }

    /// The best of every mechanism, or why there is none.
    pub(crate) fn best(&self, g: &Group, pools: Vec<(Mechanism, Vec<Tried>)>) -> Vec<Best> {
        let mut pools = pools.into_iter();
        let mut next = pools.next();
        let mut all = vec![];
        for mechanism in Mechanism::ALL {
            let tried = match mechanism.possible(self.lab, g.tenants.len()) {
                Err(why) => Err(why),
                Ok(()) => {
                    let pool = next.take().map_or_else(Vec::new, |(_, pool)| pool);
                    next = pools.next();
                    pick(pool)
                }
            };
            all.push(Best { mechanism, tried });
        }
        all
    }

    /// Candidates around the best of a pool that are not in it: a few that help the tenant that is
    /// worst off, or all.
    fn around(&self, pool: &[Tried], wide: bool) -> Vec<Tried> {
        let Some(best) = pool.first() else { return vec![] };
        let runs = best.runs();
        let of = |i: usize| {
            let slo = self.lab.slo(best.c.tenants[i])?;
            Some(runs.iter().map(|r| ratio(&r.got[i], slo)).fold(0.0, f64::max))
        };
        let worst = (0..best.c.tenants.len())
            .max_by(|&a, &b| of(a).unwrap_or(0.0).total_cmp(&of(b).unwrap_or(0.0)))
            .unwrap_or(0);
        let mut all = self.space.neighbours(self.lab, &best.c, worst);
        super::space::dedup(&mut all);
        all.retain(|c| !pool.iter().any(|t| t.c == *c));
        if !wide {
            all.truncate(6);
        }
        all.into_iter().map(|c| Tried::new(self.lab, c)).collect()
    }

    fn try_short(&mut self, pools: &mut [(Mechanism, Vec<Tried>)]) {
        let (lab, seed) = (self.lab, self.seed);
        let this = &*self;
        let mut todo: Vec<&mut Tried> = pools
            .iter_mut()
            .flat_map(|(_, p)| p.iter_mut())
            .filter(|t| t.short.is_none())
            .collect();
        let results =
            parallel(self.threads, &todo, |t| lab.run(&t.c, &t.setup, seed, this.short(&t.c), 1.0));
        for (t, result) in todo.iter_mut().zip(results) {
            self.events += result.as_ref().map_or(0, |r| r.events);
            t.short = Some(result);
        }
        for (_, pool) in pools {
            rank(lab, pool);
        }
    }

    /// Long runs under more and more seeds, of fewer and fewer candidates.
    fn race(&mut self, pools: &mut [(Mechanism, Vec<Tried>)], budget: f64) {
        for (seeds, keep) in [(1, 3), (2, 2), (SEEDS, 2)] {
            let (lab, first) = (self.lab, self.seed);
            let mut todo: Vec<(&mut Tried, u64)> = vec![];
            for (_, pool) in pools.iter_mut() {
                let served = pool.iter_mut().filter(|t| t.why().is_none());
                for t in served.take(keep) {
                    if t.long.len() < seeds {
                        let next = first + t.long.len() as u64;
                        todo.push((t, next));
                    }
                }
            }
            // The first round is always run: a short run alone is no answer.
            if seeds > 1 && self.events as f64 > budget {
                break;
            }
            loop {
                let this = &*self;
                let results = parallel(self.threads, &todo, |(t, seed)| {
                    lab.run(&t.c, &t.setup, *seed, this.long(&t.c), 1.0)
                });
                let mut ended = vec![];
                for ((t, seed), result) in todo.iter_mut().zip(results) {
                    if let Ok(run) = &result {
                        self.events += run.events;
                        t.long.push(run.clone());
                    }
                    *seed += 1;
                    ended.push(result.is_err() || t.long.len() >= seeds);
                }
                let mut ended = ended.into_iter();
                todo.retain(|_| !ended.next().unwrap_or(true));
                if todo.is_empty() || self.events as f64 > budget {
                    break;
                }
            }
            for (_, pool) in pools.iter_mut() {
                rank(self.lab, pool);
            }
        }
    }

    /// The largest factor by which the load may grow before a goal breaks, below 1 where one is broken;
    /// `None` without goals. To a tenth, at most 16.
    pub(crate) fn headroom(&mut self, t: &Tried) -> Option<f64> {
        t.c.tenants.iter().find(|&&i| self.lab.slo(i).is_some())?;
        // At the load as it is, all of its runs have the word.
        let kept = t.score(self.lab).missed == 0;
        let mut met = |load: f64| {
            let duration = self.loaded(&t.c, load);
            let run = self.lab.run(&t.c, &t.setup, self.seed, duration, load);
            let Ok(run) = run else { return false };
            self.events += run.events;
            score(self.lab, &t.c.tenants, &[&run]).missed == 0
        };
        let (mut low, mut high): (f64, f64) = if kept { (1.0, 16.0) } else { (0.0, 1.0) };
        while low >= 1.0 && low * 2.0 <= 16.0 && met(low * 2.0) {
            low *= 2.0;
        }
        high = if low >= 1.0 { high.min(low * 2.0) } else { high };
        if low >= 16.0 {
            return Some(16.0);
        }
        while high - low > 0.1 * high.max(0.2) {
            let middle = f64::midpoint(low, high);
            if met(middle) { low = middle } else { high = middle }
        }
        Some((low * 100.0).round() / 100.0)
    }

    /// The score of one short run.
    #[cfg(test)]
    pub(crate) fn short_score(&self, c: &Candidate) -> Option<Score> {
        let t = Tried::new(self.lab, c.clone());
        let run = self.lab.run(&t.c, &t.setup, self.seed, self.short(c), 1.0).ok()?;
        Some(score(self.lab, &t.c.tenants, &[&run]))
    }

    /// The worst ratio of p99 and goal at `load` times the rates.
    pub(crate) fn ratio_at(&self, t: &Tried, load: f64) -> f64 {
        let duration = self.loaded(&t.c, load);
        let run = self.lab.run(&t.c, &t.setup, self.seed, duration, load);
        run.map_or(f64::INFINITY, |run| score(self.lab, &t.c.tenants, &[&run]).ratio)
    }

    /// A tenant alone on the whole GPU with the same settings and requests.
    pub(crate) fn alone(&mut self, c: &Candidate, i: usize) -> Option<Got> {
        let long = self.long(c);
        let key = (c.tenants[i], c.batch[i], c.workers[i], c.requests[i].to_bits(), long);
        if let Some(known) = self.alone.get(&key) {
            return *known;
        }
        let percent = vec![100];
        let one = Candidate {
            tenants: vec![c.tenants[i]],
            requests: vec![c.requests[i]],
            how: super::lab::How::Deploy(match self.lab.setup.device.mps {
                Some(_) => cotenant_deploy::Sharing::Mps { percent },
                None => cotenant_deploy::Sharing::TURNS,
            }),
            batch: vec![c.batch[i]],
            timeout: vec![c.timeout[i]],
            workers: vec![c.workers[i]],
        };
        let setup = self.lab.prepare(&one);
        let run = self.lab.run(&one, &setup, self.seed, long, 1.0).ok();
        self.events += run.as_ref().map_or(0, |r| r.events);
        let got = run.and_then(|r| r.got.first().copied());
        self.alone.insert(key, got);
        got
    }

    /// One candidate as `check` needs it: long runs under every seed.
    ///
    /// # Errors
    /// The device cannot do it.
    pub(crate) fn measure(&mut self, c: Candidate) -> Result<Tried, String> {
        let mut t = Tried::new(self.lab, c);
        let seeds: Vec<u64> = (0..SEEDS as u64).map(|i| self.seed + i).collect();
        let (lab, long) = (self.lab, self.long(&t.c));
        for run in parallel(self.threads, &seeds, |&seed| lab.run(&t.c, &t.setup, seed, long, 1.0))
        {
            let run = run?;
            self.events += run.events;
            t.long.push(run);
        }
        Ok(t)
    }

    /// As many seeds for a candidate as [`Search::measure`] takes.
    pub(crate) fn finish(&mut self, t: &mut Tried) {
        while t.long.len() < SEEDS {
            let seed = self.seed + t.long.len() as u64;
            let Ok(run) = self.lab.run(&t.c, &t.setup, seed, self.long(&t.c), 1.0) else { return };
            self.events += run.events;
            t.long.push(run);
        }
    }
}

/// Long runs first where there are any, then by score; equals stay in order.
fn rank(lab: &Lab, pool: &mut [Tried]) {
    pool.sort_by(|a, b| {
        let known = |t: &Tried| t.long.len();
        let (sa, sb) = (a.score(lab), b.score(lab));
        // A short run does not beat a long one.
        (known(b) > 0)
            .cmp(&(known(a) > 0))
            .then(sa.partial_cmp(&sb).unwrap_or(std::cmp::Ordering::Equal))
    });
}

/// The best, or why none runs.
fn pick(pool: Vec<Tried>) -> Result<Tried, String> {
    let why = pool.iter().find_map(Tried::why).map(str::to_owned);
    let best = pool.into_iter().find(|t| !t.runs().is_empty());
    best.ok_or_else(|| why.unwrap_or_else(|| "no settings are legal".to_owned()))
}

/// How long a short run is with these tenants on a GPU, and how many events it has, about.
fn short(lab: &Lab, tenants: &[usize], requests: &[f64]) -> (Nanos, f64) {
    let mut events = 0.0;
    for (&t, share) in tenants.iter().zip(requests) {
        let kernels = lab.setup.tenants[t].model.program(1).kernels.len() as f64;
        events += rate(lab, t) * share * (kernels + 4.0);
    }
    let by_events = SHORT_EVENTS / f64::max(events, 1.0);
    let by_requests = slowest(lab, tenants, requests).map_or(0.0, |rate| SHORT_REQUESTS / rate);
    let seconds = by_events.max(by_requests.min(4.0 * by_events)).clamp(0.02, 60.0);
    (Nanos((seconds * 1e9) as u64), (seconds * events).max(1.0))
}

/// Requests/s of a tenant; those of a closed loop as they are without neighbours.
fn rate(lab: &Lab, t: usize) -> f64 {
    lab.mix.rate(t).or(lab.isolated[t].map(|i| i.rps)).unwrap_or(1.0)
}

/// The lowest rate among tenants with a goal.
fn slowest(lab: &Lab, tenants: &[usize], requests: &[f64]) -> Option<f64> {
    let goals = tenants.iter().zip(requests).filter(|(t, _)| lab.slo(**t).is_some());
    goals.map(|(&t, share)| rate(lab, t) * share).min_by(f64::total_cmp).filter(|r| *r > 0.0)
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
