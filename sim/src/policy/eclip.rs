//! `eclip`: kernel-wise right-sizing with masks that are set once.
//!
//! Models the practical variant of KRISP on AMD: setting a mask per kernel by a system call costs
//! more than the kernel, so each worker gets a few streams whose masks cover whole groups (shader
//! engines), and a kernel changes its CUs by changing its stream. A kernel whose predecessor ran in
//! another queue pays a barrier packet. Which stream each kernel takes is planned offline for the
//! set of co-located workers, with a budget of switches per request. Gives up fine sizes, and any
//! reaction to what is running: the plan is fixed.
//!
//! Read in the source: seven masked streams, since from the eighth on latency climbs (eight hardware
//! queues, one of them the default stream's); two workers get 15, 30 and 45 CUs on an MI50 (engines
//! 1; 1, 3; 1, 2, 3 and 4; 2, 4; 2, 3, 4), three workers 30 and 45, and all share the default stream
//! of 60; a barrier only if the predecessor of the same request ran in another queue; the objective
//! and its budget of 14 switches per request.
//!
//! Chosen here: a worker alone has the default stream only (the objective would keep it off CUs that no
//! other worker wants, and it would run faster beside others than alone); with three workers or more, a
//! worker's engines start at its share of them and go round; four to seven workers get one stream each
//! of half the engines; from the eighth on a worker has only the default stream; other GPUs take a
//! quarter, half and three quarters of their groups. The default stream is one hardware queue: its
//! kernels run one after the other (`shared_queue`). `switches = 0` with `streams = 0` is the paper's
//! baseline, everything in the default stream; a large budget is its KW-Prealloc. How the objective is
//! minimised is described in `sim/src/policy/eclip/plan.rs`.
//!
//! Source: ECLIP (arXiv 2506.12598, ISLPED 2025).

use std::collections::VecDeque;

use cotenant_profiles::device::DispatchRule;

use super::{Depth, LayoutError, Policy, PolicyInfo, Properties};
use crate::action::{Action, Event, Via};
use crate::counter::{Amount, Count};
use crate::layout::{Layout, WorkerSpec};
use crate::mask::CuMask;
use crate::program::Program;
use crate::scenario::Setup;
use crate::view::View;
use crate::{counters, options, words};

mod plan;

use plan::{Choices, Problem, Score};

/// The registry entry.
pub(super) const INFO: PolicyInfo = PolicyInfo {
    name: "eclip",
    summary: "a few streams with fixed masks per worker, planned switches between them",
    source: "ECLIP (arXiv 2506.12598)",
    properties: Properties {
        work_conserving: false,
        alone_is_isolated: false,
        starvation_free: true,
    },
    options: Knobs::SPECS,
    counters: Eclip::COUNTERS,
    build: |options| Ok(Box::new(Eclip::new(Knobs::read(options)?))),
};

options! {
    /// Options of `eclip`.
    struct Knobs {
        /// most changes of stream within one request of one worker
        switches: u32 = 14, whole(0, 1_000_000), unit("per request");
        /// masked streams of all workers, beside the shared default stream
        streams: u32 = 7, whole(0, 64), unit("streams");
        /// the default stream: one hardware queue for all workers, or one each
        shared_queue: Queue = Queue::InOrder;
    }
}

/// The default stream of the workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Queue {
    InOrder,
    Concurrent,
}

words!(Queue { "in-order" => Queue::InOrder, "concurrent" => Queue::Concurrent });

/// A masked stream of a worker, or the default stream.
#[derive(Clone, Copy, Debug)]
struct Stream {
    mask: CuMask,
    /// CUs that decide a kernel's time under the mask.
    cus: u32,
    shared: bool,
}

#[derive(Clone, Debug)]
struct Plan {
    streams: Vec<Stream>,
    /// By program of the worker's model.
    choices: Vec<Choices>,
    /// Stream of the previous kernel of the current request.
    last: u8,
}

#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    requests: u64,
    kernels: u64,
    switches: u64,
    /// Kernels launched in the default stream, and how many of them waited for another worker's kernel.
    shared: u64,
    waited: u64,
    planned: u64,
}

struct Eclip {
    knobs: Knobs,
    plans: Vec<Plan>,
    /// The worker whose kernel is in the default queue, and the workers behind it with how their
    /// kernels enter.
    running: Option<u32>,
    waiting: VecDeque<(u32, Via)>,
    counts: Counts,
}

impl Eclip {
    fn new(knobs: Knobs) -> Self {
        Self {
            knobs,
            plans: vec![],
            running: None,
            waiting: VecDeque::new(),
            counts: Counts::default(),
        }
    }

    /// The offline table for these workers.
    fn plan(&mut self, setup: &Setup, workers: &[WorkerSpec]) {
        let count = workers.len() as u32;
        let streams: Vec<Vec<Stream>> =
            (0..count).map(|w| streams(setup, w, count, self.knobs.streams)).collect();
        let model = |w: usize| &setup.tenants[workers[w].tenant as usize].model;
        let problem = |w: usize, program: &Program| Problem {
            cus: streams[w].iter().map(|s| s.mask.count()).collect(),
            beta: program
                .kernels
                .iter()
                .map(|&k| &setup.code.kernels[k as usize])
                .map(|k| streams[w].iter().map(|s| k.at(s.cus)).collect())
                .collect(),
        };
        let largest = |w: usize| {
            let tenant = &setup.tenants[workers[w].tenant as usize];
            tenant.model.program_for[tenant.batch_max as usize] as usize
        };
        let problems: Vec<Problem> =
            (0..workers.len()).map(|w| problem(w, &model(w).programs[largest(w)])).collect();
        let total = setup.device.cus();
        let (joint, scores) = plan::plan(&problems, Score::default(), self.knobs.switches, total);
        self.plans = (0..workers.len())
            .map(|w| {
                // Smaller batches get the best table given what the other workers do at their largest
                // batch.
                let others: Vec<Score> =
                    scores.iter().enumerate().filter(|&(i, _)| i != w).map(|(_, &s)| s).collect();
                let table = |(i, program): (usize, &Program)| {
                    if i == largest(w) {
                        return joint[w].clone();
                    }
                    let alone = [problem(w, program)];
                    plan::plan(&alone, plan::sum(&others), self.knobs.switches, total).0.remove(0)
                };
                let choices = model(w).programs.iter().enumerate().map(table).collect();
                Plan { streams: streams[w].clone(), choices, last: 0 }
            })
            .collect();
        self.counts.planned = joint.iter().map(|c| u64::from(plan::switches(c))).sum();
    }

    fn ready(&mut self, worker: u32, view: &View<'_>, act: &mut Vec<Action>) {
        let w = &view.workers[worker as usize];
        let model = &view.setup.tenants[w.spec.tenant as usize].model;
        let program = model.program_for[w.items.min(model.max_items()) as usize];
        let plan = &mut self.plans[worker as usize];
        // A step of a generating model may have launches that no plan covers: they stay in the current
        // stream.
        let choices = &plan.choices[program as usize];
        let choice = choices.get(w.position as usize).copied().unwrap_or(plan.last);
        let first = w.position == 0;
        let switched = !first && choice != plan.last;
        plan.last = choice;
        let via = if switched { Via::Barrier } else { Via::Stream };
        let shared = plan.streams[choice as usize].shared;
        self.counts.requests += u64::from(first);
        self.counts.kernels += 1;
        self.counts.switches += u64::from(switched);
        self.counts.shared += u64::from(shared);
        if shared && self.knobs.shared_queue == Queue::InOrder {
            if self.running.is_some() {
                self.waiting.push_back((worker, via));
                self.counts.waited += 1;
                return;
            }
            self.running = Some(worker);
        }
        act.push(self.launch(worker, via));
    }

    fn launch(&self, worker: u32, via: Via) -> Action {
        let plan = &self.plans[worker as usize];
        let mask = Some(plan.streams[plan.last as usize].mask);
        Action::Launch { worker, mask, priority: 0, via }
    }

    /// Launches the next kernel of the default queue once the one before it has ended.
    fn done(&mut self, worker: u32, act: &mut Vec<Action>) {
        if self.running == Some(worker) {
            let next = self.waiting.pop_front();
            self.running = next.map(|(w, _)| w);
            act.extend(next.map(|(w, via)| self.launch(w, via)));
        }
    }
}

/// The streams of worker `w` of `workers`, smallest first, the default stream last.
fn streams(setup: &Setup, w: u32, workers: u32, limit: u32) -> Vec<Stream> {
    let groups = &setup.device.topology.groups;
    let n = groups.len();
    // A worker that is alone has no other to leave CUs to, and nothing to plan.
    let limit = if workers > 1 { limit } else { 0 };
    let each = (limit / workers.max(1)).max(u32::from(w < limit)).min(limit);
    let quarters: &[usize] = match each {
        0 => &[],
        1 => &[2],
        2 => &[2, 3],
        _ => &[1, 2, 3],
    };
    let order = group_order(n, w as usize, workers as usize);
    let mut sizes: Vec<usize> = quarters.iter().map(|q| (n * q + 2) / 4).collect();
    sizes.retain(|&s| s > 0 && s < n);
    sizes.dedup();
    let stream = |open: &[usize], shared| {
        let in_group = |&g: &usize| {
            let start: u32 = groups[..g].iter().sum();
            start..start + groups[g]
        };
        let mask: CuMask = open.iter().flat_map(in_group).collect();
        let cus = match setup.device.dispatch.rule {
            DispatchRule::LeastLoaded => mask.count(),
            DispatchRule::EvenGroups => mask.even_groups(groups),
        };
        Stream { mask, cus, shared }
    };
    let masked = sizes.iter().map(|&s| stream(&order[..s], false));
    masked.chain([stream(&order, true)]).collect()
}

/// The order in which a worker's streams take up groups: two workers start from opposite ends, every
/// other group first; with more workers, each goes round from where its share of the groups begins.
fn group_order(groups: usize, w: usize, workers: usize) -> Vec<usize> {
    if workers <= 2 {
        let mut order: Vec<usize> = (0..groups).step_by(2).chain((1..groups).step_by(2)).collect();
        if w == 1 {
            order.reverse();
        }
        return order;
    }
    let start = w * groups / workers;
    (0..groups).map(|i| (start + i) % groups).collect()
}

counters! {
    Eclip |eclip|
    /// that the policy was asked about
    "kernels", unit("kernels") = eclip.counts.kernels;
    /// of the CUs that a stream launches on
    "switches", unit("changes") = eclip.counts.switches;
    /// of queue per request
    "switches_per_request", unit("changes") =
        Amount::mean(eclip.counts.switches, eclip.counts.requests);
    /// of queue that the plan has
    "planned_switches", unit("changes") = eclip.counts.planned;
    /// of the kernels, those on the queue without a mask
    "default_stream_share", unit("0 to 1") =
        Amount::mean(eclip.counts.shared, eclip.counts.kernels);
    /// that waited for that queue
    "default_queue_waits", unit("kernels") = eclip.counts.waited;
}

impl Policy for Eclip {
    fn depth(&self) -> Depth {
        Depth::Kernel
    }

    fn forms_batches(&self) -> bool {
        false
    }

    fn layout(&mut self, setup: &Setup) -> Result<Layout, LayoutError> {
        let queues = setup.device.queues.hardware;
        if self.knobs.streams >= queues {
            return Err(LayoutError(format!(
                "{} has {queues} hardware queues: `streams` is at most {} beside the default stream",
                setup.device.name,
                queues.saturating_sub(1)
            )));
        }
        let layout = setup.clients(|_| setup.device.cus())?;
        self.plan(setup, &layout.workers);
        Ok(layout)
    }

    fn event(&mut self, event: Event, view: &View<'_>, act: &mut Vec<Action>) {
        match event {
            Event::KernelReady { worker } => self.ready(worker, view, act),
            Event::KernelDone { worker } => self.done(worker, act),
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

    #[test]
    fn two_workers_open_engines_from_opposite_ends_as_published() {
        assert_eq!(group_order(4, 0, 2), [0, 2, 1, 3]);
        assert_eq!(group_order(4, 1, 2), [3, 1, 2, 0]);
        assert_eq!(group_order(4, 1, 3), [1, 2, 3, 0]);
        assert_eq!(group_order(4, 2, 3), [2, 3, 0, 1]);
    }
}
