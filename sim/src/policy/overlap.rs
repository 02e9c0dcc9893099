//! `overlap`: groups of operators of two models that run together under a predicted deadline.
//!
//! Models Abacus. Queries (batches under way) do not meet on the GPU as it comes: a controller forms
//! one group of operators after the other. The most urgent query, the one with the least headroom to
//! its deadline, goes into the group with all the operators that it has left; beside it goes the
//! longest run of the next query's operators with which the group is still predicted to end before the
//! deadline. The group runs, all others wait, and at its end the next group is formed. So what
//! overlaps is decided before, and its duration can be predicted.
//!
//! It gives up: work conservation (a query that arrives while a group runs waits for its end, and what
//! a group leaves idle stays idle), and anything that a wrong prediction costs.
//!
//! Source: Cui et al., Abacus (SC 2021) and its released controller (github.com/Raphael-Hao/Abacus):
//! least headroom first and whole, the other's prefix searched until the headroom left is within 5 ms,
//! two queries in a group, others wait. The original drops a query whose headroom is negative; so does
//! a tenant's `drop_after` with `predict` here, before its batch begins. One that becomes late
//! afterwards is finished, after those that can still make it.
//!
//! Choices, where the original needs what is not here, or is silent:
//! - It predicts by a small neural network, trained per pair of models, that is off by 6 % (mean). Here
//!   queries of a group are taken to meet at random: while several run, all are slowed by the mean of
//!   what their kernels together ask of the CUs' speed, or of the bandwidth, where that is more than
//!   there is; each lasts at least as long as its host. `margin` is added, 6 % by default. The counters
//!   say how long groups of several queries were predicted to last, and how long they lasted.
//! - Operators are the profile's kernels. The longest prefix is found by bisection, exactly, so that
//!   there is no tolerance of 5 ms.
//! - Queries of one tenant never share a group. While one runs, the next one is copied to the GPU on
//!   another worker (`instances`), whose memory counts in full: a real server's streams share weights.
//! - Without a deadline a query is the least urgent; if no query in sight has one, all run whole.
//! - What a decision costs is not in the sources: `decision`.
//! - Equal headrooms go by the tenant's name.

use std::sync::Arc;

use cotenant_profiles::{Device, Nanos};

use super::{Depth, LayoutError, Policy, PolicyInfo, Properties};
use crate::action::{Action, Event, Via};
use crate::counter::Count;
use crate::layout::Layout;
use crate::program::{KernelCode, Program};
use crate::scenario::{Setup, Tenant};
use crate::view::{Status, View};
use crate::{counters, options};

/// The registry entry.
pub(super) const INFO: PolicyInfo = PolicyInfo {
    name: "overlap",
    summary: "operator groups of two models run together under a predicted deadline",
    source: "Abacus (SC 2021)",
    properties: Properties {
        work_conserving: false,
        alone_is_isolated: false,
        starvation_free: false,
    },
    options: Knobs::SPECS,
    counters: Overlap::COUNTERS,
    build: |options| Ok(Box::new(Overlap::new(Knobs::read(options)?))),
};

options! {
    /// Options of `overlap`.
    struct Knobs {
        /// workers of a tenant at least: with two, its next query is ready when a group ends
        instances: u32 = 2, whole(1, 16), unit("workers");
        /// queries in a group; 1 runs one after the other
        queries: u32 = 2, whole(1, 16), unit("queries");
        /// added to what is predicted, for what a prediction may be off
        margin: f64 = 0.06, within(0.0, 10.0);
        /// time that forming a group takes, while nothing runs
        decision: Nanos = Nanos::ZERO;
    }
}

/// The demand of kernels is quantised into this many steps.
const STEPS: usize = 20;

/// What a range of operators takes, alone on the whole GPU.
#[derive(Clone, Copy, Debug, Default)]
struct Work {
    /// ns.
    gpu: u64,
    /// The host's time to issue it, ns.
    host: u64,
    /// Histogram of those ns by the CU speed that the kernels ask for, in steps.
    speed: [u64; STEPS + 1],
    /// Likewise of the DRAM bandwidth.
    dram: [u64; STEPS + 1],
}

/// A query in the group.
#[derive(Clone, Copy, Debug)]
struct Member {
    worker: u32,
    /// Its operators up to here, not included.
    until: u32,
}

struct Overlap {
    knobs: Knobs,
    /// By tenant and program: what the operators before each position take together.
    sums: Vec<Vec<Vec<Work>>>,
    /// By tenant: its rank by name.
    rank: Vec<u32>,
    group: Vec<Member>,
    /// When the group began and, if it has several queries, how long it was predicted to last.
    predicted: Option<(Nanos, u64)>,
    /// A group is being formed.
    forming: bool,
    counts: Counts,
}

#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    groups: u64,
    overlapped: u64,
    beside: u64,
    late: u64,
    /// Totals over groups of several queries, ns.
    predicted_ns: u64,
    lasted_ns: u64,
}

/// A query that could go into a group.
#[derive(Clone, Debug)]
struct Query {
    worker: u32,
    tenant: u32,
    /// Index into the sums of its tenant.
    program: u32,
    /// For a step that was put together on arrival: its own sums.
    step: Option<Vec<Work>>,
    position: u32,
    deadline: Nanos,
    /// Headroom to its deadline if it ran alone from now on, ns; negative: late.
    headroom: i128,
    began: Nanos,
}

impl Work {
    fn since(self, before: Self) -> Self {
        Self {
            gpu: self.gpu - before.gpu,
            host: self.host - before.host,
            speed: std::array::from_fn(|i| self.speed[i] - before.speed[i]),
            dram: std::array::from_fn(|i| self.dram[i] - before.dram[i]),
        }
    }

    /// Adds an operator of a program, with the instant at which the host has issued it.
    fn add(&mut self, kernel: &KernelCode, issued: u64, device: &Device) {
        let (ns, cus) = (kernel.at(device.cus()).max(1), f64::from(device.cus()));
        let step = |share: f64| (share.clamp(0.0, 1.0) * STEPS as f64).round() as usize;
        self.gpu += ns;
        self.host = issued;
        self.speed[step(kernel.least_area() as f64 / (ns as f64 * cus))] += ns;
        let bytes = kernel.dram_bytes as f64;
        self.dram[step(bytes / (ns as f64 * device.memory.dram_gbps))] += ns;
    }

    fn alone(self) -> u64 {
        self.gpu.max(self.host)
    }
}

impl Overlap {
    fn new(knobs: Knobs) -> Self {
        Self {
            knobs,
            sums: vec![],
            rank: vec![],
            group: vec![],
            predicted: None,
            forming: false,
            counts: Counts::default(),
        }
    }

    fn sums_of<'a>(&'a self, query: &'a Query) -> &'a [Work] {
        let known = || &self.sums[query.tenant as usize][query.program as usize];
        query.step.as_ref().unwrap_or_else(known)
    }

    /// What the next `n` operators of a query take.
    fn work(&self, query: &Query, n: u32) -> Work {
        let sums = self.sums_of(query);
        sums[(query.position + n) as usize].since(sums[query.position as usize])
    }

    fn operators_left(&self, query: &Query) -> u32 {
        self.sums_of(query).len() as u32 - 1 - query.position
    }

    /// How long these take when run together, ns: the shorter ones end one after the other.
    fn predicted(&self, all: impl Iterator<Item = Work>) -> u64 {
        let mut all: Vec<Work> = all.collect();
        all.sort_by_key(|w| w.alone());
        let (mut ended, mut ns) = (0, 0.0);
        for i in 0..all.len() {
            let alone = all[i].alone();
            if alone > ended {
                let running = &all[i..];
                let slow = slowed(running, |w| &w.speed).max(slowed(running, |w| &w.dram));
                ns += (alone - ended) as f64 * slow;
                ended = alone;
            }
        }
        (ns * (1.0 + self.knobs.margin)) as u64
    }

    /// Queries whose next operator is ready, the most urgent first.
    fn queries(&self, view: &View<'_>) -> Vec<Query> {
        let held = view.workers.iter().zip(0..).filter(|(w, _)| w.status == Status::Held);
        let mut queries: Vec<Query> = held
            .map(|(w, worker)| {
                let model = &view.setup.tenants[w.spec.tenant as usize].model;
                let own = |program: &Arc<Program>| sums(program, view.setup);
                let mut query = Query {
                    worker,
                    tenant: w.spec.tenant,
                    program: model.program_for[w.items.min(model.max_items()) as usize],
                    step: w.step.as_ref().map(own),
                    position: w.position,
                    deadline: w.deadline,
                    headroom: i128::MAX,
                    began: w.began,
                };
                if w.deadline != Nanos::MAX {
                    let alone = self.work(&query, self.operators_left(&query)).alone();
                    query.headroom =
                        i128::from(w.deadline.0) - i128::from(view.now.0) - i128::from(alone);
                }
                query
            })
            .collect();
        queries.sort_by_key(|q| {
            let late = q.headroom < 0;
            let urgency = if late { i128::from(q.began.0) } else { q.headroom };
            (late, urgency, self.rank[q.tenant as usize], q.worker)
        });
        queries
    }

    fn form(&mut self, view: &View<'_>, act: &mut Vec<Action>) {
        self.forming = false;
        if !self.group.is_empty() {
            return;
        }
        let queries = self.queries(view);
        let Some(first) = queries.first() else { return };
        let whole = self.operators_left(first);
        self.add(first, whole, act);
        self.counts.groups += 1;
        self.counts.late += u64::from(first.headroom < 0);
        let mut works = vec![self.work(first, whole)];
        let bounded = first.headroom >= 0 && first.deadline != Nanos::MAX;
        let until = if bounded { first.deadline.0 - view.now.0 } else { u64::MAX };
        for query in &queries[1..] {
            if self.group.len() as u32 == self.knobs.queries {
                break;
            }
            let tenant = |m: &Member| view.workers[m.worker as usize].spec.tenant;
            if self.group.iter().any(|m| tenant(m) == query.tenant) {
                continue;
            }
            let left = self.operators_left(query);
            let fits = |n: u32| {
                let with = works.iter().copied().chain([self.work(query, n)]);
                self.predicted(with) <= until
            };
            // The largest prefix that fits: each additional operator makes the group longer, or leaves
            // it as long.
            let (mut most, mut too_many) = (0, left + 1);
            while most + 1 < too_many {
                let middle = most.midpoint(too_many);
                if fits(middle) { most = middle } else { too_many = middle }
            }
            if most > 0 {
                works.push(self.work(query, most));
                self.add(query, most, act);
                self.counts.beside += u64::from(most);
            }
        }
        if self.group.len() > 1 {
            self.counts.overlapped += 1;
            self.predicted = Some((view.now, self.predicted(works.into_iter())));
        }
    }

    /// Puts `n` operators of a query into the group, and begins the first of them.
    fn add(&mut self, query: &Query, operators: u32, act: &mut Vec<Action>) {
        let Query { worker, position, .. } = *query;
        self.group.push(Member { worker, until: position + operators });
        act.push(launch(worker));
    }

    /// Whether a worker's next operator belongs to the group.
    fn admits(&self, worker: u32, view: &View<'_>) -> bool {
        let position = view.workers[worker as usize].position;
        self.group.iter().any(|m| m.worker == worker && position < m.until)
    }

    /// An operator has ended, or a worker has gone.
    fn ended(&mut self, worker: u32, gone: bool, view: &View<'_>) {
        let position = view.workers[worker as usize].position;
        self.group.retain(|m| m.worker != worker || !(gone || position + 1 >= m.until));
        if self.group.is_empty()
            && let Some((began, ns)) = self.predicted.take()
        {
            self.counts.predicted_ns += ns;
            self.counts.lasted_ns += view.now.since(began).0;
        }
    }

    /// If nothing runs and a query waits, schedules the forming of a group for when everything of this
    /// instant has happened.
    fn wake(&mut self, view: &View<'_>, act: &mut Vec<Action>) {
        let waits = || view.workers.iter().any(|w| w.status == Status::Held);
        if self.group.is_empty() && !self.forming && waits() {
            self.forming = true;
            act.push(Action::Timer { at: view.now + self.knobs.decision, token: 0 });
        }
    }
}

/// What a program's operators before each position take together.
fn sums(program: &Program, setup: &Setup) -> Vec<Work> {
    let mut sum = Work::default();
    let mut sums = vec![sum];
    for (&k, &issued) in program.kernels.iter().zip(&program.issued_ns) {
        sum.add(&setup.code.kernels[k as usize], issued, &setup.device);
        sums.push(sum);
    }
    sums
}

/// The slowdown of queries that run together and ask for more of a resource than there is, on average
/// over kernels that meet at random. While its host is behind, a query asks for nothing.
fn slowed(running: &[Work], asks: impl Fn(&Work) -> &[u64; STEPS + 1]) -> f64 {
    // Fractions of the time in which each number of steps is asked for.
    let mut all = vec![1.0];
    for work in running {
        let time = work.alone() as f64;
        let idle = (work.alone() - work.gpu) as f64 / time;
        let mut sum = vec![0.0; all.len() + STEPS];
        for (i, before) in all.iter().enumerate() {
            sum[i] += before * idle;
            for (j, &ns) in asks(work).iter().enumerate() {
                sum[i + j] += before * ns as f64 / time;
            }
        }
        all = sum;
    }
    let most = |i: usize| (i as f64 / STEPS as f64).max(1.0);
    all.iter().enumerate().map(|(i, share)| share * most(i)).sum()
}

fn launch(worker: u32) -> Action {
    Action::Launch { worker, mask: None, priority: 0, via: Via::Stream }
}

counters! {
    Overlap |overlap|
    /// of operators that ran together
    "groups", unit("groups") = overlap.counts.groups;
    /// with operators of more than one query
    "groups of several queries", unit("groups") = overlap.counts.overlapped;
    /// in such groups
    "operators beside the most urgent query", unit("operators") = overlap.counts.beside;
    /// whose most urgent query was late already
    "groups led by a late query", unit("groups") = overlap.counts.late;
    /// that such groups were to last
    "groups of several queries: predicted, ms, sum", unit("ms") =
        overlap.counts.predicted_ns as f64 / 1e6;
    /// that they lasted
    "groups of several queries: lasted, ms, sum", unit("ms") =
        overlap.counts.lasted_ns as f64 / 1e6;
}

impl Policy for Overlap {
    fn depth(&self) -> Depth {
        Depth::Kernel
    }

    fn forms_batches(&self) -> bool {
        false
    }

    fn layout(&mut self, setup: &Setup) -> Result<Layout, LayoutError> {
        self.rank = vec![0; setup.tenants.len()];
        for (place, tenant) in (0..).zip(setup.by_name()) {
            self.rank[tenant as usize] = place;
        }
        let of = |tenant: &Tenant| tenant.model.programs.iter().map(|p| sums(p, setup)).collect();
        self.sums = setup.tenants.iter().map(of).collect();
        let cus = setup.device.cus();
        let mut workers = vec![];
        for (t, tenant) in (0..).zip(&setup.tenants) {
            let instances = tenant.workers.max(self.knobs.instances);
            workers.extend((0..instances).map(|_| setup.client(t, cus)));
        }
        setup.check_clients(workers.len())?;
        Ok(Layout { pools: vec![setup.whole_gpu()], workers })
    }

    fn event(&mut self, event: Event, view: &View<'_>, act: &mut Vec<Action>) {
        match event {
            Event::KernelReady { worker } if self.admits(worker, view) => act.push(launch(worker)),
            Event::KernelReady { .. } => self.wake(view, act),
            Event::KernelDone { worker } => {
                self.ended(worker, false, view);
                self.wake(view, act);
            }
            Event::WorkerDown { worker } => {
                self.ended(worker, true, view);
                self.wake(view, act);
            }
            Event::Timer { .. } => self.form(view, act),
            _ => {}
        }
    }

    fn counters(&self) -> Vec<Count> {
        self.counted()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// This many ns of kernels that ask for this many steps of the CUs' speed.
    fn work(ns: u64, steps: usize) -> Work {
        let mut work = Work { gpu: ns, ..Work::default() };
        (work.speed[steps], work.dram[0]) = (ns, ns);
        work
    }

    #[test]
    fn queries_slow_each_other_where_they_ask_for_more_than_there_is() {
        let policy = Overlap::new(Knobs { margin: 0.0, ..Knobs::default() });
        let predicted = |works: &[Work]| policy.predicted(works.iter().copied());
        assert_eq!(predicted(&[work(1_000, 20)]), 1_000);
        assert_eq!(predicted(&[work(1_000, 10), work(400, 10)]), 1_000, "both fit");
        // Both ask for everything: 400 of each take 800, and 600 are left of the longer one.
        assert_eq!(predicted(&[work(1_000, 20), work(400, 20)]), 1_400);
        // Half of the time one of them asks for nothing.
        let host = Work { host: 800, ..work(400, 20) };
        assert_eq!(predicted(&[work(1_000, 20), host]), 1_400);
        let three = [work(300, 20), work(300, 20), work(300, 20)];
        assert_eq!(predicted(&three), 900);
    }
}
