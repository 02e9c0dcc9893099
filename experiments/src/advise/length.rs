//! How long a candidate is simulated. Lengths depend only on the mix, the budget and the tenants on the GPU,
//! so that all settings see the same requests, and `check` with the same budget sees those of `advise`.

use cotenant_profiles::Nanos;

use super::lab::{Candidate, Lab};
use super::screen::{self, Place};
use super::space::Group;

/// Approximate events of a short run.
const SHORT_EVENTS: f64 = 15_000.0;
/// Requests of the slowest tenant with a goal in a short run, unless that takes more than four times as long.
const SHORT_REQUESTS: f64 = 150.0;
/// A short run is at least this many times as long as the shortest goal: before that nothing is late.
const SHORT_GOALS: f64 = 3.0;
/// Approximate maximum of short runs of an answer before the climb. They get a quarter of the budget.
const SHORT_RUNS: f64 = 40.0;
/// A long run is this many times longer, as far as the budget goes.
const LONGEST: f64 = 8.0;
/// Requests of the slowest tenant with a goal in a long run, as far as the budget goes.
const LONG_REQUESTS: f64 = 150.0;
/// Approximate number of long runs of every answer: the first round of the race, every seed of the best of
/// each mechanism, their headroom. They get half of the budget.
const LONG_RUNS: f64 = 80.0;
/// A growing queue breaks a goal within this many times the goal.
const GOALS_TO_OVERFLOW: u64 = 20;
/// The launch and the end of a kernel.
const EVENTS_OF_KERNEL: f64 = 2.0;
/// Arrival, copies and answer of a request.
const EVENTS_OF_REQUEST: f64 = 4.0;
/// Workers of a tenant if the search decides.
const WORKERS: f64 = 2.0;
/// Iterations of the fixed point of batch sizes and time.
const ROUNDS: usize = 12;
/// Shortest and longest short run, s.
const SECONDS: [f64; 2] = [0.02, 60.0];

/// Run lengths under a budget.
pub(crate) struct Lengths {
    /// Events that a long run may have.
    most: f64,
    /// Events that a short run may have.
    short_most: f64,
}

impl Lengths {
    /// Lengths for a budget of about `budget` events in all.
    pub(crate) fn new(budget: f64) -> Self {
        Self { most: budget / 2.0 / LONG_RUNS, short_most: budget / 4.0 / SHORT_RUNS }
    }

    /// Length of a short run, and its approximate number of events.
    pub(crate) fn short(&self, lab: &Lab, c: &Candidate) -> (Nanos, f64) {
        self.of(lab, &c.tenants, &c.requests)
    }

    /// Approximate events of a short run.
    pub(crate) fn events(&self, lab: &Lab, g: &Group) -> f64 {
        self.of(lab, &g.tenants, &g.requests).1
    }

    fn of(&self, lab: &Lab, tenants: &[usize], requests: &[f64]) -> (Nanos, f64) {
        let events = events_per_s(lab, tenants, requests);
        let by_events = SHORT_EVENTS / f64::max(events, 1.0);
        let by_requests = slowest(lab, tenants, requests).map_or(0.0, |rate| SHORT_REQUESTS / rate);
        let goals = tenants.iter().filter_map(|&t| lab.goal(t));
        let shortest = goals.map(|g| g.longest().as_secs_f64()).min_by(f64::total_cmp);
        let by_goals = shortest.map_or(0.0, |goal| SHORT_GOALS * goal);
        let by_goals = by_goals.min(self.short_most / 4.0 / f64::max(events, 1.0));
        let seconds = by_events.max(by_requests.min(4.0 * by_events)).max(by_goals);
        let seconds = seconds.min(self.short_most / f64::max(events, 1.0));
        let seconds = seconds.clamp(SECONDS[0], SECONDS[1]);
        (Nanos((seconds * 1e9) as u64), (seconds * events).max(1.0))
    }

    /// Length of a long run.
    pub(crate) fn long(&self, lab: &Lab, c: &Candidate) -> Nanos {
        let (short, events) = self.short(lab, c);
        let short = short.0 as f64;
        let slowest = slowest(lab, &c.tenants, &c.requests);
        let enough = slowest.map_or(0.0, |rate| LONG_REQUESTS * 1e9 / rate);
        let enough = enough.max(overflow(lab, c).0 as f64);
        let wanted = enough.max(short * LONGEST);
        Nanos(wanted.min(self.most * short / events).max(short) as u64)
    }

    /// Approximate events of a long run.
    pub(crate) fn long_events(&self, lab: &Lab, c: &Candidate) -> f64 {
        let (short, events) = self.short(lab, c);
        events * self.long(lab, c).0 as f64 / short.0 as f64
    }

    /// Length of a run at `load` times the load, with about the same number of requests at every load.
    pub(crate) fn loaded(&self, lab: &Lab, c: &Candidate, load: f64) -> Nanos {
        let whole = self.short(lab, c).0.max(Nanos(self.long(lab, c).0 / 2));
        Nanos((whole.0 as f64 / load.max(1.0)) as u64).max(overflow(lab, c)).min(whole)
    }
}

/// How long a growing queue may take to break a goal.
fn overflow(lab: &Lab, c: &Candidate) -> Nanos {
    let goals = c.tenants.iter().filter_map(|&t| lab.goal(t));
    Nanos(goals.map(|g| g.longest().0.saturating_mul(GOALS_TO_OVERFLOW)).max().unwrap_or(0))
}

/// Approximate events per second for the requests of tenants on one GPU.
fn events_per_s(lab: &Lab, tenants: &[usize], requests: &[f64]) -> f64 {
    let batches = batches(lab, tenants, requests);
    let each = tenants.iter().zip(requests).zip(batches);
    each.map(|((&t, share), batch)| {
        let rate = rate(lab, t) * share;
        match lab.isolated[t].filter(|_| lab.generates(t)) {
            // Requests share steps: an engine that never rests has the events of single requests run back to
            // back.
            Some(alone) => {
                let busy = alone.events / alone.p95.as_secs_f64().max(1e-9);
                (rate * alone.events).min(busy)
            }
            None => {
                let kernels = lab.setup.tenants[t].model.program(1).kernels.len() as f64;
                rate * (EVENTS_OF_KERNEL * kernels / batch + EVENTS_OF_REQUEST)
            }
        }
    })
    .sum()
}

/// Approximate mean batches of tenants that share a GPU: the requests that arrive while one batch of every
/// tenant runs, partly in parallel, divided among the workers.
fn batches(lab: &Lab, tenants: &[usize], requests: &[f64]) -> Vec<f64> {
    let whole = Place::whole(&lab.setup);
    let shared: Vec<usize> = (0..tenants.len()).filter(|&i| !lab.generates(tenants[i])).collect();
    let mut batches = vec![1.0_f64; tenants.len()];
    let mut round = 0.0;
    for _ in 0..ROUNDS {
        let (mut longest, mut together) = (0.0_f64, 0.0);
        for &i in &shared {
            let batch = batches[i].ceil() as u32;
            let (gpu, host) = screen::batch_ns(lab, tenants[i], batch, whole);
            longest = longest.max(gpu.max(host));
            together += screen::area_ns(lab, tenants[i], batch);
        }
        let next = longest.max(together);
        if next <= round * 1.01 {
            break;
        }
        round = next;
        for &i in &shared {
            let t = tenants[i];
            let gathered = f64::max(round, super::space::timeout(lab, t).0 as f64);
            let come = rate(lab, t) * requests[i] * gathered / 1e9;
            let workers = match lab.mix.fixed_workers[t] {
                true => f64::from(lab.mix.point.tenants[t].workers),
                false => WORKERS,
            };
            batches[i] = (come / workers).clamp(1.0, f64::from(lab.batch_limit[t]));
        }
    }
    batches
}

/// Requests/s of a tenant; for a closed loop, the rate without neighbours.
fn rate(lab: &Lab, t: usize) -> f64 {
    let closed = || {
        let clients = lab.mix.point.tenants[t].arrivals.closed()?;
        let alone = lab.isolated[t]?;
        if lab.generates(t) {
            return Some(alone.rps);
        }
        let batch = clients.concurrency.clamp(1, lab.batch_limit[t]);
        let (gpu, host) = screen::batch_ns(lab, t, batch, Place::whole(&lab.setup));
        let answered = (gpu.max(host) + clients.think.0 as f64) / 1e9;
        Some(f64::from(clients.concurrency) / answered.max(1e-9)).map(|r| r.min(alone.rps))
    };
    lab.mix.rate(t).or_else(closed).unwrap_or(1.0)
}

/// The lowest rate among tenants with a goal.
fn slowest(lab: &Lab, tenants: &[usize], requests: &[f64]) -> Option<f64> {
    let goals = tenants.iter().zip(requests).filter(|(t, _)| lab.goal(**t).is_some());
    goals.map(|(&t, share)| rate(lab, t) * share).min_by(f64::total_cmp).filter(|r| *r > 0.0)
}
