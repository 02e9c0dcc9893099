//! `coalesce`: one launch for kernels of the same shape from several tenants.
//!
//! Models late binding in the manner of a VLIW compiler: the runtime holds the kernel at the head of
//! every stream, sorts them into shape classes (operation, function, threads, registers and shared
//! memory of a block: the tile; the inner dimension may differ within `padding`), and launches
//! several of one class as one super-kernel where the cost law predicts that this ends sooner than
//! launching them one after the other. Heads go out by least slack. A head that could be merged with
//! one that another stream will reach waits for it, but only until its latest start: deadline − what
//! its batch still needs (host and GPU, alone on the GPU, times 1 + `guard`) − what the merged launch
//! takes longer than its own; never longer than `max_wait`; and never longer than what merging with
//! those to come is predicted to save. While the host or the GPU is busy
//! anyway, heads gather for free: nothing is launched before the host is free, nor while the kernels
//! on the GPU want `backlog` times its CUs.
//!
//! The cost law (`law`): a merged launch takes the device's fixed cost and a little per kernel on the
//! host, then the waves of all blocks together, a staircase. Separate launches take the host one
//! launch time each, and then run side by side as far as the CUs go. So merging pays where launches
//! are slow or kernels small, and loses where they are neither.
//!
//! Gives up: launching ahead. What a kernel is merged with is decided when its predecessor has
//! ended, so every launch's host time stands between the two. Merged kernels end together.
//!
//! Read in the sources: merging equal GEMMs of several tenants into one batched call, its staircase
//! and its costs (Jain et al. 2018); late binding, coalescing and reordering under latency goals (the
//! abstract of the VLIW JIT paper). Chosen here, since they are silent: the class key, the gate, the
//! cap at the wave boundary, the slack rule, the padding bound, `max_wait`, `backlog`.
//!
//! A batch that waited can still end late where it would not have without waiting: slack counts on
//! an idle GPU, and neither kernels that start meanwhile nor contention are foreseen. Such batches
//! are counted (`late_by_waiting`), as an upper bound: late by less than they had waited.
//!
//! Source: Jain et al., Dynamic Space-Time Scheduling for GPU Inference (arXiv 1901.00041, 2018);
//! The OoO VLIW JIT Compiler for GPU Inference (arXiv 1901.10008, 2019).

use cotenant_profiles::{Nanos, Op};

use super::streams::one_process;
use super::{Depth, LayoutError, Policy, PolicyInfo, Properties};
use crate::action::{Action, Event, Via};
use crate::counter::{Amount, Count};
use crate::layout::Layout;
use crate::scenario::Setup;
use crate::view::{Status, View};
use crate::{counters, options, words};

mod law;
mod prospects;

use law::{ALONE, Head, Law, Rules};
use prospects::Prospects;

/// The registry entry.
pub(super) const INFO: PolicyInfo = PolicyInfo {
    name: "coalesce",
    summary: "kernels of the same shape from several tenants become one launch, within SLO slack",
    source: "Dynamic Space-Time Scheduling (2018); OoO VLIW JIT (2019)",
    properties: Properties {
        work_conserving: false,
        alone_is_isolated: false,
        starvation_free: true,
    },
    options: Knobs::SPECS,
    counters: Coalesce::COUNTERS,
    build: |options| Ok(Box::new(Coalesce::new(&Knobs::read(options)?))),
};

options! {
    /// Options of `coalesce`.
    struct Knobs {
        /// merge where the cost law predicts a gain, or whatever can be merged
        gate: Gate = Gate::Predicted;
        /// leave out kernels that would open another wave, where that is predicted to pay
        wave_cap: bool = true;
        /// what merges: matrix products and convolutions, or every kernel
        ops: Ops = Ops::Matmul;
        /// most of a merged launch's block time that unequal members may waste
        padding: f64 = 0.25, within(0.0, 1.0);
        /// most kernels in one launch
        max_group: u32 = 1024, whole(2, 1024), unit("kernels");
        /// longest that a kernel waits for a partner, whatever its slack; 0: not at all
        max_wait: Nanos = Nanos::from_micros(500);
        /// what a batch still needs is taken to be longer by this share
        guard: f64 = 0.2, within(0.0, 100.0);
        /// hold heads while launched kernels want this many times the GPU's CUs
        backlog: f64 = 2.0, within(0.0, 1000.0), unit("GPUs");
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Gate {
    Predicted,
    Always,
}

words!(Gate { "predicted" => Gate::Predicted, "always" => Gate::Always });

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ops {
    Matmul,
    All,
}

words!(Ops { "matmul" => Ops::Matmul, "all" => Ops::All });

/// Nothing is armed.
const NEVER: u64 = u64::MAX;

struct Coalesce {
    rules: Rules,
    all_ops: bool,
    max_wait: u64,
    guard: f64,
    backlog: f64,
    /// By kernel: its shape class.
    class: Vec<u32>,
    prospects: Prospects,
    held: Vec<Head>,
    /// Classes whose heads have changed since their last examination.
    changed: Vec<u32>,
    /// By class: its heads, and how many of them the gate refused to merge. The gate is asked again
    /// once there are an eighth more, so that a long queue is not summed up at every launch.
    count: Vec<u32>,
    refused: Vec<u32>,
    /// The class being examined.
    group: Vec<Head>,
    /// When the host is next free.
    host_free: u64,
    /// CUs that launched kernels want in total, and the limit on that.
    wanted: u64,
    limit: u64,
    /// By worker: its part of `wanted`, the deadline of its batch, and how long the batch has waited.
    want: Vec<u64>,
    batch: Vec<(u64, u64)>,
    /// The earliest pending timer.
    armed: u64,
    counts: Counts,
}

#[derive(Default)]
struct Counts {
    kernels: u64,
    launches: u64,
    merged: u64,
    largest: u64,
    capped: u64,
    refused: u64,
    waited: u64,
    waited_ns: u64,
    late: u64,
}

impl Coalesce {
    fn new(knobs: &Knobs) -> Self {
        Self {
            rules: Rules {
                gate: knobs.gate == Gate::Predicted,
                wave_cap: knobs.wave_cap,
                padding: knobs.padding,
                max_group: knobs.max_group as usize,
            },
            all_ops: knobs.ops == Ops::All,
            max_wait: knobs.max_wait.0,
            guard: knobs.guard,
            backlog: knobs.backlog,
            class: vec![],
            prospects: Prospects::default(),
            held: vec![],
            changed: vec![],
            count: vec![],
            refused: vec![],
            group: vec![],
            host_free: 0,
            wanted: 0,
            limit: 0,
            want: vec![],
            batch: vec![],
            armed: NEVER,
            counts: Counts::default(),
        }
    }

    fn merges(&self, op: Op) -> bool {
        match op {
            Op::Gemm | Op::BatchedGemm | Op::Conv => true,
            // A model profiled as one single number has no shape.
            Op::Pseudo => false,
            _ => self.all_ops,
        }
    }

    /// The kernel at the head of a stream joins the held ones.
    fn hold(&mut self, view: &View<'_>, worker: u32) {
        let now = view.now.0;
        let w = &view.workers[worker as usize];
        let program = view.program(worker);
        let at = w.position as usize;
        let before = if at > 0 { program.issued_ns[at - 1] } else { 0 };
        let host_rest = program.issued_ns[program.issued_ns.len() - 1] - program.issued_ns[at];
        let rest_ns = self.guarded(program.remaining_ns[at + 1] + host_rest);
        let launch_ns = program.issued_ns[at] - before;
        let own = launch_ns + program.remaining_ns[at] - program.remaining_ns[at + 1];
        let deadline = w.deadline.0;
        let latest = match deadline {
            u64::MAX => now.saturating_add(self.max_wait),
            _ => deadline.saturating_sub(rest_ns + own),
        };
        let class = self.class[w.kernel as usize];
        self.batch[worker as usize].0 = deadline;
        self.held.push(Head {
            worker,
            kernel: w.kernel,
            class,
            launch_ns,
            rest_ns,
            deadline,
            latest,
            ready: now,
            since: NEVER,
            waited: 0,
            due: now,
        });
        if class != ALONE {
            self.count[class as usize] += 1;
            self.change(class);
        }
    }

    /// Marks the class for another examination.
    fn change(&mut self, class: u32) {
        if !self.changed.contains(&class) {
            self.changed.push(class);
        }
    }

    /// Whether the gate recently refused to merge about this many heads of this class.
    fn refused(&self, class: u32) -> bool {
        let refused = self.refused[class as usize];
        self.rules.gate && refused > 0 && self.count[class as usize] <= refused + refused / 8
    }

    fn guarded(&self, ns: u64) -> u64 {
        (ns as f64 * (1.0 + self.guard)) as u64
    }

    /// Decides how long the heads of a class wait for kernels that other streams will reach.
    fn assess(&mut self, view: &View<'_>, law: &Law<'_>, class: u32) {
        let now = view.now.0;
        let mut due = now;
        if self.max_wait > 0 && !self.refused(class) {
            self.group.clear();
            self.group.extend(self.held.iter().filter(|h| h.class == class));
            let Some(&one) = self.group.first() else { return };
            let here = self.group.len();
            let most = self.rules.max_group - here.min(self.rules.max_group);
            let until = if most > 0 { self.latest_wait(law, one) } else { now };
            if until > now {
                let more = self.prospects.within(view, class, until - now, most);
                due = self.worth_until(law, one, here, more, until, now);
                if due > now && self.prospects.within(view, class, due - now, 1) == 0 {
                    due = now;
                }
            }
        }
        for h in self.held.iter_mut().filter(|h| h.class == class) {
            h.waited += waiting(h, now);
            h.since = if due > now { now } else { NEVER };
            h.due = due.max(h.ready);
        }
    }

    /// The latest instant to which the heads in `group` can wait for one more kernel of their class, by
    /// their slack.
    fn latest_wait(&mut self, law: &Law<'_>, one: Head) -> u64 {
        self.group.push(one);
        let merged = law.merged_ns(&self.group);
        let longer = merged.saturating_sub(one.launch_ns + law.alone_ns(one.kernel));
        let until = |h: &Head| match h.deadline {
            u64::MAX => h.ready + self.max_wait,
            _ => h.latest.saturating_sub(longer).min(h.ready + self.max_wait),
        };
        self.group.iter().map(until).min().unwrap_or(0)
    }

    /// Until when a wait for `more` heads, in addition to those `here`, pays: as long as the time that
    /// merging all of them saves beyond merging only those here; `now` if it saves nothing.
    fn worth_until(
        &mut self,
        law: &Law<'_>,
        like: Head,
        here: usize,
        more: usize,
        until: u64,
        now: u64,
    ) -> u64 {
        if more == 0 {
            return now;
        }
        if !self.rules.gate {
            return until;
        }
        let mut saved = |n: usize| {
            self.group.truncate(here);
            self.group.resize(n, like);
            law.separate_ns(&self.group).saturating_sub(law.merged_ns(&self.group))
        };
        let gain = saved(here + more).saturating_sub(saved(here));
        until.min(now + gain)
    }

    /// Launches the kernels that are due, least slack first, as long as host and GPU accept more.
    fn step(&mut self, view: &View<'_>, act: &mut Vec<Action>) {
        let now = view.now.0;
        let setup = view.setup;
        let law = Law { kernels: &setup.code.kernels, device: &setup.device, costs: &setup.costs };
        while self.host_free <= now && self.wanted < self.limit {
            while let Some(class) = self.changed.pop() {
                self.assess(view, &law, class);
            }
            let due = self.held.iter().filter(|h| h.due <= now);
            let Some(&first) = due.min_by_key(|h| (h.latest, h.worker)) else { break };
            self.launch(now, &law, first, act);
        }
        self.arm(now, act);
    }

    /// Launches a head, merged with those of its class that are worth including.
    fn launch(&mut self, now: u64, law: &Law<'_>, first: Head, act: &mut Vec<Action>) {
        self.group.clear();
        self.group.push(first);
        if first.class != ALONE && !self.refused(first.class) {
            let others =
                self.held.iter().filter(|h| h.class == first.class && h.worker != first.worker);
            self.group.extend(others);
            self.group[1..].sort_unstable_by_key(|h| (h.latest, h.worker));
        }
        let mut n = 1;
        if self.group.len() > 1 {
            let choice = law.choose(now, &mut self.group, &self.rules);
            n = choice.merge;
            self.counts.capped += u64::from(choice.capped);
            self.counts.refused += u64::from(choice.refused);
            let refused = if choice.refused { self.group.len() as u32 } else { 0 };
            self.refused[first.class as usize] = refused;
        }
        let host = if n > 1 {
            let workers = self.group[..n].iter().map(|h| h.worker).collect();
            act.push(Action::Merge { workers, priority: 0 });
            law.merge_host_ns(n)
        } else {
            let worker = first.worker;
            act.push(Action::Launch { worker, mask: None, priority: 0, via: Via::Stream });
            first.launch_ns
        };
        self.host_free = now + host;
        self.counts.kernels += n as u64;
        self.counts.launches += 1;
        self.counts.merged += if n > 1 { n as u64 } else { 0 };
        self.counts.largest = self.counts.largest.max(n as u64);
        let mut room = u64::from(law.device.cus());
        for i in 0..n {
            let h = self.group[i];
            let want = u64::from(law.kernels[h.kernel as usize].want).min(room);
            room -= want;
            self.want[h.worker as usize] = want;
            self.wanted += want;
            let waited = h.waited + waiting(&h, now);
            self.batch[h.worker as usize].1 += waited;
            self.counts.waited += u64::from(waited > 0);
            self.counts.waited_ns += waited;
            let at = self.held.iter().position(|x| x.worker == h.worker);
            self.held.swap_remove(at.expect("only held heads are launched"));
        }
        if first.class != ALONE {
            let class = first.class as usize;
            self.count[class] -= n as u32;
            if self.count[class] <= self.refused[class] / 2 {
                self.refused[class] = 0;
            }
            self.change(first.class);
        }
    }

    /// Asks for the instant at which something may become possible.
    fn arm(&mut self, now: u64, act: &mut Vec<Action>) {
        if self.held.is_empty() || self.wanted >= self.limit {
            // The next kernel that arrives or ends wakes the policy.
            return;
        }
        let due = self.held.iter().map(|h| h.due).min().unwrap_or(now);
        self.wake(now, due.max(self.host_free), act);
    }

    fn wake(&mut self, now: u64, at: u64, act: &mut Vec<Action>) {
        let at = at.max(now);
        if at < self.armed {
            self.armed = at;
            act.push(Action::Timer { at: Nanos(at), token: at });
        }
    }
}

counters! {
    Coalesce |coalesce|
    /// that the policy was asked about
    "kernels", unit("kernels") = coalesce.counts.kernels;
    /// that the policy made of them
    "launches", unit("launches") = coalesce.counts.launches;
    /// that shared a launch with others
    "merged_kernels", unit("kernels") = coalesce.counts.merged;
    /// in one launch, most
    "largest_group", unit("kernels") = Amount::Most(coalesce.counts.largest as f64);
    /// kept smaller so that they fill whole waves
    "wave_capped", unit("launches") = coalesce.counts.capped;
    /// not merged, because together they would have taken longer
    "gate_refused", unit("launches") = coalesce.counts.refused;
    /// held for others to merge with
    "waiting_kernels", unit("kernels") = coalesce.counts.waited;
    /// time that such a kernel was held, mean
    "wait_mean_us", unit("us") = Amount::mean(coalesce.counts.waited_ns, 1000 * coalesce.counts.waited);
    /// held beyond what their deadline allowed
    "late_by_waiting", unit("kernels") = coalesce.counts.late;
}

impl Policy for Coalesce {
    fn depth(&self) -> Depth {
        Depth::Kernel
    }

    fn forms_batches(&self) -> bool {
        false
    }

    fn layout(&mut self, setup: &Setup) -> Result<Layout, LayoutError> {
        let layout = one_process(setup);
        let kernels = &setup.code.kernels;
        self.class = kernels
            .iter()
            .map(|k| match kernels.iter().position(|other| other.same_shape(k)) {
                Some(first) if self.merges(k.op) => first as u32,
                _ => ALONE,
            })
            .collect();
        self.prospects = Prospects::new(setup, &self.class);
        self.count = vec![0; kernels.len()];
        self.refused = vec![0; kernels.len()];
        self.want = vec![0; layout.workers.len()];
        self.batch = vec![(u64::MAX, 0); layout.workers.len()];
        let cus = f64::from(setup.device.cus());
        self.limit = ((self.backlog * cus) as u64).max(1);
        Ok(layout)
    }

    fn event(&mut self, event: Event, view: &View<'_>, act: &mut Vec<Action>) {
        let now = view.now.0;
        match event {
            Event::KernelReady { worker } => {
                self.hold(view, worker);
                // After everything else at this instant: other kernels may still come to the head.
                let at = self.host_free.max(now);
                self.wake(now, at, act);
            }
            Event::KernelDone { worker } => {
                self.wanted -= std::mem::take(&mut self.want[worker as usize]);
                if !self.held.is_empty() {
                    self.wake(now, self.host_free.max(now), act);
                }
            }
            Event::BatchDone { worker, .. } => {
                let (deadline, waited) =
                    std::mem::replace(&mut self.batch[worker as usize], (u64::MAX, 0));
                self.counts.late += u64::from(now > deadline && now - waited <= deadline);
            }
            Event::Timer { token } => {
                if token == self.armed {
                    self.armed = NEVER;
                }
                self.step(view, act);
            }
            _ => {}
        }
    }

    fn counters(&self) -> Vec<Count> {
        self.counted()
    }
}

/// How long a head has waited for partners since it was last asked. Time spent behind a busy host or a
/// full GPU is not part of that, because the policy did not choose it.
fn waiting(h: &Head, now: u64) -> u64 {
    if h.since == NEVER { 0 } else { now.min(h.due).saturating_sub(h.since) }
}

/// Whether the kernel at the head of a worker's stream is on the GPU or on its way to it.
fn under_way(status: Status) -> bool {
    matches!(status, Status::Host | Status::Launched | Status::Held)
}
