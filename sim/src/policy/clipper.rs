//! `clipper`: additive increase, multiplicative decrease of the batch size.
//!
//! Models Clipper's adaptive batching as DNNScaler's authors re-implemented it to compare with: one
//! container per model, contexts that take turns on the GPU, and a batch limit that grows by a
//! constant while the tail latency is below the SLO and shrinks by a tenth when it is above.
//!
//! It gives up: everything but the batch size. Instances, shares and queues stay as configured.
//!
//! Source: Crankshaw et al. (NSDI 2017) for the rule, `Clipper/` of
//! github.com/nabavinejad/DNNScaler for the numbers: +4, ×0.9, 95th percentile, every 3 s, held
//! between 0.85 × SLO and the SLO, batches from a list 1 to 127. The decrease is of the index
//! into that list: batch 11 becomes ⌊0.9 × 10⌋ + 1 = 10.
//!
//! Choices:
//! - Latency is from a batch's start to its result, since the released loop has no queue;
//!   `latency = "request"` takes it from the arrival.
//! - The increase stops at the end of the list, past which the released code reads.
//! - The released code begins with 20 readings of −1 in its first window; here windows begin empty.
//! - A tenant without an SLO keeps its configured batch.

use cotenant_profiles::Nanos;

use super::dnnscaler::band::{Band, Statistic};
use super::options::Latency;
use super::{Depth, LayoutError, Policy, PolicyInfo, Properties};
use crate::action::{Action, Closes, Event};
use crate::counter::Count;
use crate::layout::{Discipline, Layout};
use crate::scenario::Setup;
use crate::view::View;
use crate::{counters, options};

/// The registry entry.
pub(super) const INFO: PolicyInfo = PolicyInfo {
    name: "clipper",
    summary: "batch sizes by additive increase and multiplicative decrease, contexts take turns",
    source: "Clipper (NSDI 2017), as re-implemented for DNNScaler (arXiv 2308.13803)",
    properties: Properties {
        work_conserving: false,
        alone_is_isolated: false,
        starvation_free: true,
    },
    options: Knobs::SPECS,
    counters: Clipper::COUNTERS,
    build: |options| Ok(Box::new(Clipper::new(Knobs::read(options)?))),
};

options! {
    /// Options of `clipper`.
    struct Knobs {
        /// added to the batch size while there is room
        increase: u32 = 4, whole(1, 1024), unit("items");
        /// factor of the batch size when the SLO is missed
        decrease: f64 = 0.9, within(0.0, 1.0);
        /// largest batch, where the tenant's own limit is not smaller
        max_batch: u32 = 127, whole(1, 1024), unit("items");
        /// least time between two decisions; they fall on the end of a batch
        period: Nanos = Nanos::from_secs(3), period();
        /// part of the SLO from which on the batch stays as it is
        dead_band: f64 = 0.85, within(0.0, 1.0);
        /// which latency of the period is held against the SLO
        statistic: Statistic = Statistic::P95;
        /// from the start of a batch, or from a request's arrival
        latency: Latency = Latency::Execution;
    }
}

impl Knobs {
    /// What is observed between two decisions.
    fn window(&self, tenant: u32) -> Action {
        Action::OpenWindow { tenant, length: self.period, closes: Closes::WithBatch }
    }
}

struct Clipper {
    knobs: Knobs,
    jobs: Vec<Job>,
    changes: u64,
    over: u64,
}

/// One tenant.
#[derive(Clone, Copy, Debug, Default)]
struct Job {
    /// Index into the list of batch sizes, which starts at 1.
    index: u32,
    limit: u32,
}

impl Clipper {
    fn new(knobs: Knobs) -> Self {
        Self { knobs, jobs: vec![], changes: 0, over: 0 }
    }

    fn decide(&mut self, t: usize, view: &View<'_>, act: &mut Vec<Action>) {
        let job = &mut self.jobs[t];
        let Some(slo) = view.setup.tenants[t].slo else { return };
        let window = view.window(t as u32);
        let latency = match self.knobs.latency {
            Latency::Execution => {
                self.knobs.statistic.of_times(window.executions.iter().map(|e| e.took))
            }
            Latency::Request => self.knobs.statistic.of_times(window.latencies.iter().copied()),
        };
        act.push(self.knobs.window(t as u32));
        let Some(latency) = latency else { return };
        let band = Band::of(latency, slo.as_millis_f64(), self.knobs.dead_band);
        self.over += u64::from(band == Band::Over);
        let next =
            next(job.index, band, self.knobs.increase, self.knobs.decrease).min(job.limit - 1);
        if next != job.index {
            job.index = next;
            self.changes += 1;
            act.push(view.set_batch(t as u32, next + 1));
        }
    }
}

/// The next index into the list of batch sizes, however long.
fn next(index: u32, band: Band, increase: u32, decrease: f64) -> u32 {
    match band {
        Band::Inside => index,
        Band::Under => index + increase,
        // Where the product is an integer, it is one in binary too, or off by a rounding error: 0.9 ×
        // 10.
        Band::Over => libm::floor(decrease * f64::from(index)) as u32,
    }
}

counters! {
    Clipper |clipper|
    /// over tenants
    "batch limits at the end, sum", unit("items") =
        clipper.jobs.iter().map(|job| u64::from(job.index) + 1).sum::<u64>();
    /// of a batch limit
    "changes of the knob", unit("changes") = clipper.changes;
    /// whose latency was above it
    "periods over the SLO", unit("periods") = clipper.over;
}

impl Policy for Clipper {
    fn depth(&self) -> Depth {
        Depth::Request
    }

    fn layout(&mut self, setup: &Setup) -> Result<Layout, LayoutError> {
        let limit = |most: u32| most.min(self.knobs.max_batch).max(1);
        let jobs =
            setup.tenants.iter().map(|t| Job { limit: limit(t.batch_max), ..Job::default() });
        self.jobs = jobs.collect();
        Ok(setup.contexts(turns(setup), setup.costs.context_memory))
    }

    fn event(&mut self, event: Event, view: &View<'_>, act: &mut Vec<Action>) {
        match event {
            Event::Start => {
                for (t, tenant) in view.setup.tenants.iter().enumerate() {
                    if tenant.slo.is_some() {
                        act.push(view.set_batch(t as u32, 1));
                        act.push(self.knobs.window(t as u32));
                    }
                }
            }
            Event::WindowClosed { tenant } => self.decide(tenant as usize, view, act),
            _ => {}
        }
    }

    fn counters(&self) -> Vec<Count> {
        self.counted()
    }
}

/// Contexts that take turns, at the device's costs.
pub(super) fn turns(setup: &Setup) -> Discipline {
    Discipline::TimeSliced {
        quantum: setup.costs.quantum,
        switch: setup.costs.context_switch.cost,
        make_way: setup.costs.context_yield.cost,
        run_to_completion: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Batches of the first `n` decisions where a batch of `b` takes `latency(b)` ms.
    fn walk(slo: f64, n: usize, latency: impl Fn(u32) -> f64) -> Vec<u32> {
        let mut index = 0;
        let mut seen = vec![1];
        for _ in 0..n {
            let band = Band::of(latency(index + 1), slo, 0.85);
            index = next(index, band, 4, 0.9).min(126);
            seen.push(index + 1);
        }
        seen
    }

    #[test]
    fn it_climbs_by_four_and_falls_by_a_tenth() {
        // 10·b ms under 150 ms, held from 127.5 ms: 1, 5, 9, 13 (130 ms, inside).
        assert_eq!(walk(150.0, 5, |b| 10.0 * f64::from(b)), [1, 5, 9, 13, 13, 13]);
        // Under 125 ms, held from 106.25 ms: 13 takes 130 ms. Index 12 → ⌊10.8⌋ = 10, batch 11:
        // 110 ms, inside.
        assert_eq!(walk(125.0, 5, |b| 10.0 * f64::from(b)), [1, 5, 9, 13, 11, 11]);
    }

    #[test]
    fn without_a_batch_in_the_band_it_saws() {
        // Batches above 12 take far too long, those below are fast: 13 → 11 → 15 → index
        // ⌊0.9 × 14⌋ = 12, batch 13 → 11 → 15 …
        let step = |b| if b > 12 { 1000.0 } else { 10.0 };
        assert_eq!(walk(100.0, 9, step), [1, 5, 9, 13, 11, 15, 13, 11, 15, 13]);
    }

    #[test]
    fn it_keeps_to_the_list() {
        assert_eq!(walk(1.0, 2, |_| 10.0), [1, 1, 1]);
        assert_eq!(walk(1e9, 40, |_| 10.0)[30..34], [121, 125, 127, 127]);
    }

    #[test]
    fn the_factor_of_whole_tens_is_whole() {
        for tens in 0..=12 {
            assert_eq!(next(tens * 10, Band::Over, 4, 0.9), tens * 9);
        }
    }
}
