//! `gslice`: a share and a batch limit per tenant, both found by a control loop.
//!
//! Models GSLICE: every tenant is a process with an MPS percentage. Window after window the loop
//! looks at latency and throughput, first tunes the batch limits until they stay, then resizes
//! the shares. A percentage is fixed when a process starts, so a resize starts another one:
//! either in its place (`restart`: down for process start and model load), or beside it
//! (`shadow`: loads while the old one serves, takes over at a batch boundary within 100 µs, both
//! in memory meanwhile unless they share the weights).
//!
//! It gives up: any knowledge of the models (it can only try), isolation of memory bandwidth,
//! and, with `sum = "none"`, of CUs too. A shadow that loads disturbs no other tenant here but takes
//! memory.
//!
//! Source: Dhakal, Kulkarni, Ramakrishnan (SoCC 2020) for the mechanism and the 100 µs. The paper
//! gives no code; the rules are those of two independent re-implementations, which differ:
//! `variant = "igniter"` (icloud-ecnu/igniter, `gslice.py`) and `"glet"` (casys-kaist/glet,
//! `self_tuning.cpp`). Their quirks are kept: see the tests of `gslice/rules.rs`. In particular
//! the step is unbounded (`max_step` bounds it), and from a batch of 1 `glet` can never grow.
//!
//! Choices, where both are silent because they tune off line:
//! - Windows follow each other for as long as the run lasts; one that follows a resize begins
//!   when the last worker has taken over. iGniter's window is 10 s, after 10 s of warm-up.
//! - Both feed the rules from a saturated instance. So by default the latency is that of a
//!   batch's execution, to stay below `execution_share` of the SLO (the other half is for the
//!   batch to form, as in iGniter's own planner), and the throughput is what the workers would
//!   serve if they were never idle. `latency = "request"` shows the resize rule latency from
//!   arrival and the whole SLO, `throughput = "served"` what was served; the batch rule always
//!   sees execution.
//! - A tenant without an SLO keeps its initial share and its configured batch. A window in which
//!   a tenant was offered nothing or ended no batch changes nothing for it.
//! - iGniter starts at 30 % and a batch of 1. gpu-lets starts at 0 %, which its own rule cannot
//!   leave: `initial` serves both. Nor can its batch rule leave 1, so `glet` starts at 2.
//! - A share lies in 1 to 100 % for both, also where gpu-lets' divider has nothing left to give.
//! - A tenant's workers divide its share evenly.

mod rules;
mod schedule;

use cotenant_profiles::Nanos;

use super::options::Latency;
use super::{Depth, LayoutError, Policy, PolicyInfo, Properties};
use crate::action::{Action, Closes, Event, Resize};
use crate::counter::Count;
use crate::layout::Layout;
use crate::scenario::Setup;
use crate::view::{View, Window};
use crate::{counters, options, words};
use rules::{GLET_PARTITIONS, Seen, Variant, divide};
use schedule::Schedule;

/// The registry entry.
pub(super) const INFO: PolicyInfo = PolicyInfo {
    name: "gslice",
    summary: "shares and batches resized by a control loop, shadow workers hide the reload",
    source: "GSLICE (SoCC 2020); rules as re-implemented by iGniter and gpu-lets",
    properties: Properties {
        work_conserving: false,
        alone_is_isolated: false,
        starvation_free: false,
    },
    options: Knobs::SPECS,
    counters: Gslice::COUNTERS,
    build: |options| Ok(Box::new(Gslice::new(Knobs::read(options)?))),
};

options! {
    /// Options of `gslice`.
    struct Knobs {
        /// whose re-implementation of the rules
        variant: Variant = Variant::Igniter;
        /// statistics are taken over this long before each step
        window: Nanos = Nanos::from_secs(10), period();
        /// share that every tenant starts with
        initial: f64 = 30.0, within(1.0, 100.0), unit("%");
        /// batch limit that every tenant starts with
        initial_batch: Option<u32> = None, whole(1, 32), unit("items"),
            unset("1 (igniter), 2 (glet)");
        /// batch steps before a resize, fewer once nothing changes; 0: batches stay as configured
        batch_rounds: u32 = 5, whole(0, 1_000_000), unit("windows");
        /// latency that the resize rule holds against the SLO
        latency: Latency = Latency::Execution;
        /// share of the SLO that a batch's execution may take
        execution_share: f64 = 0.5, within(0.01, 1.0);
        /// throughput that the resize rule holds against the offered rate
        throughput: Throughput = Throughput::Capacity;
        /// largest relative change of a share in one step
        max_step: Option<f64> = None, within(0.0, f64::INFINITY), unset("as published, unbounded");
        /// what bounds the sum of shares: nothing (igniter) or a max-min division of 100 % (glet)
        sum: Sum = Sum::Variant;
        /// shares that max-min hands out: 20, 40, 50, 60, 80, 100 %, or the device's steps
        partitions: Partitions = Partitions::Variant;
        /// how a worker gets another share
        resize: How = How::Shadow;
        /// a shadow uses its original's weights instead of a second copy
        shared_weights: bool = false;
        /// no control loop: shares at given times, such as ["20s:60", "vision@40s:80"]
        schedule: Option<Schedule> = None, unset("the control loop");
    }
}

words!(Variant { "igniter" => Variant::Igniter, "glet" => Variant::Glet });

/// What the resize rule takes as a tenant's throughput.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Throughput {
    Capacity,
    Served,
}

words!(Throughput { "capacity" => Throughput::Capacity, "served" => Throughput::Served });

/// What bounds the sum of shares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sum {
    Variant,
    None,
    MaxMin,
}

words!(Sum { "variant" => Sum::Variant, "none" => Sum::None, "max-min" => Sum::MaxMin });

/// Shares that the divider hands out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Partitions {
    Variant,
    Glet,
    Device,
}

words!(Partitions {
    "variant" => Partitions::Variant,
    "glet" => Partitions::Glet,
    "device" => Partitions::Device,
});

/// How a worker gets another share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    Shadow,
    Restart,
}

words!(How { "shadow" => How::Shadow, "restart" => How::Restart });

/// The timer that fires right after a resize, to check whether it was refused.
const ASKED: u64 = u64::MAX;

struct Gslice {
    knobs: Knobs,
    tenants: Vec<Function>,
    step: Step,
    counted: Counted,
}

/// What the next window is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// The step of the batch limits in this round, counted from 0.
    Batch(u32),
    Resize,
}

/// GSLICE's "inference function": one tenant.
#[derive(Clone, Debug)]
struct Function {
    workers: Vec<u32>,
    /// Percent.
    share: f64,
    /// The share before the last resize, to which a refused one falls back.
    before: f64,
    batch: u32,
}

#[derive(Clone, Copy, Debug, Default)]
struct Counted {
    resizes: u64,
    refused: u64,
    batch_changes: u64,
}

impl Knobs {
    fn first_batch(&self) -> u32 {
        let published = if self.variant == Variant::Glet { 2 } else { 1 };
        self.initial_batch.unwrap_or(published)
    }

    fn max_min(&self) -> bool {
        match self.sum {
            Sum::Variant => self.variant == Variant::Glet,
            Sum::None => false,
            Sum::MaxMin => true,
        }
    }

    fn device_steps(&self) -> bool {
        match self.partitions {
            Partitions::Variant => self.variant != Variant::Glet,
            Partitions::Glet => false,
            Partitions::Device => true,
        }
    }

    fn how(&self) -> Resize {
        match self.resize {
            How::Shadow => Resize::Shadow { shared_weights: self.shared_weights },
            How::Restart => Resize::Restart,
        }
    }

    /// Shares that the divider hands out on a device, percent, in ascending order.
    fn partitions(&self, setup: &Setup) -> Vec<f64> {
        if !self.device_steps() {
            return GLET_PARTITIONS.to_vec();
        }
        let cus = setup.device.cus();
        let step = setup.device.mps.map_or(1, |m| m.round_cus).max(1);
        let steps = (1..=cus / step).map(|i| f64::from(i * step) * 100.0 / f64::from(cus));
        steps.collect()
    }
}

impl Gslice {
    fn new(knobs: Knobs) -> Self {
        Self { step: Step::Batch(0), knobs, tenants: vec![], counted: Counted::default() }
    }

    fn loops(&self) -> bool {
        self.knobs.schedule.is_none()
    }

    /// CUs of each worker of tenant `t`.
    fn cap(&self, t: usize, setup: &Setup) -> u32 {
        let function = &self.tenants[t];
        setup.device.mps_cus(function.share / function.workers.len().max(1) as f64)
    }

    fn start(&mut self, view: &View<'_>, act: &mut Vec<Action>) {
        if let Some(Schedule(entries)) = &self.knobs.schedule {
            let later = entries.iter().enumerate().filter(|(_, e)| e.at > Nanos::ZERO);
            act.extend(later.map(|(i, e)| Action::Timer { at: e.at, token: i as u64 }));
            return;
        }
        for (t, function) in self.tenants.iter_mut().enumerate() {
            let tenant = &view.setup.tenants[t];
            if tenant.slo.is_some() && self.knobs.batch_rounds > 0 {
                function.batch = self.knobs.first_batch().min(tenant.batch_max);
                act.push(view.set_batch(t as u32, function.batch));
            }
        }
        self.open_window(act);
    }

    /// One for every tenant; they close together.
    fn open_window(&self, act: &mut Vec<Action>) {
        let (length, closes) = (self.knobs.window, Closes::OnTime);
        let tenants = 0..self.tenants.len() as u32;
        act.extend(tenants.map(|tenant| Action::OpenWindow { tenant, length, closes }));
    }

    fn close_window(&mut self, view: &View<'_>, act: &mut Vec<Action>) {
        if view.workers.iter().any(|w| w.resizing) {
            // The shares under which this window was measured are about to change.
            self.open_window(act);
            return;
        }
        self.step = match self.step {
            Step::Batch(round) if round < self.knobs.batch_rounds => {
                let changed = self.tune_batches(view, act);
                if changed { Step::Batch(round + 1) } else { Step::Resize }
            }
            Step::Batch(_) | Step::Resize => {
                self.resize(view, act);
                Step::Batch(0)
            }
        };
        self.open_window(act);
    }

    /// Gives up shares that were asked for and are not being set up (no memory for a shadow).
    fn fall_back(&mut self, view: &View<'_>) {
        for t in 0..self.tenants.len() {
            let cap = self.cap(t, view.setup);
            let function = &mut self.tenants[t];
            let refused = |&w: &u32| {
                let worker = &view.workers[w as usize];
                worker.spec.cap != cap && !worker.resizing
            };
            if function.workers.iter().any(refused) {
                self.counted.refused += 1;
                function.share = function.before;
            }
        }
    }

    fn tune_batches(&mut self, view: &View<'_>, act: &mut Vec<Action>) -> bool {
        let mut changed = false;
        for (t, function) in self.tenants.iter_mut().enumerate() {
            let tenant = &view.setup.tenants[t];
            let execution = execution_ms(view.window(t as u32));
            let (Some(slo), Some(execution)) = (tenant.slo, execution) else {
                continue;
            };
            let slo = slo.as_millis_f64() * self.knobs.execution_share;
            let next = self.knobs.variant.batch(function.batch, slo, execution);
            let next = next.min(tenant.batch_max);
            if next != function.batch {
                function.batch = next;
                act.push(view.set_batch(t as u32, next));
                self.counted.batch_changes += 1;
                changed = true;
            }
        }
        changed
    }

    fn resize(&mut self, view: &View<'_>, act: &mut Vec<Action>) {
        let mut shares: Vec<f64> = (0..self.tenants.len()).map(|t| self.wanted(t, view)).collect();
        if self.knobs.max_min() {
            shares = divide(&shares, &self.knobs.partitions(view.setup));
        }
        for (t, share) in shares.into_iter().enumerate() {
            self.set_share(t, share.clamp(1.0, 100.0), view, act);
        }
    }

    /// The share that the rule gives tenant `t`, percent.
    fn wanted(&self, t: usize, view: &View<'_>) -> f64 {
        let function = &self.tenants[t];
        let seen = view.setup.tenants[t]
            .slo
            .and_then(|slo| function.seen(slo, view.window(t as u32), view.now, &self.knobs));
        let Some(seen) = seen else { return function.share };
        let change = self.knobs.variant.resize(function.share, &seen) - function.share;
        let most = self.knobs.max_step.unwrap_or(f64::INFINITY) * function.share;
        (function.share + change.clamp(-most, most)).clamp(1.0, 100.0)
    }

    fn set_share(&mut self, t: usize, share: f64, view: &View<'_>, act: &mut Vec<Action>) {
        let function = &mut self.tenants[t];
        (function.before, function.share) = (function.share, share);
        for i in 0..self.tenants[t].workers.len() {
            self.ask(self.tenants[t].workers[i], view, act);
        }
    }

    /// Asks for a worker's new share, unless it already has it. A worker that is being resized is asked
    /// for again when it is up.
    fn ask(&mut self, worker: u32, view: &View<'_>, act: &mut Vec<Action>) {
        let now = &view.workers[worker as usize];
        let cap = self.cap(now.spec.tenant as usize, view.setup);
        if now.spec.cap != cap && !now.resizing {
            self.counted.resizes += 1;
            act.push(Action::Resize { worker, cap, how: self.knobs.how() });
            act.push(Action::Timer { at: view.now, token: ASKED });
        }
    }

    fn follow_schedule(&mut self, entry: usize, view: &View<'_>, act: &mut Vec<Action>) {
        let entry = self.knobs.schedule.as_ref().expect("its timers are set where there is one").0
            [entry]
            .clone();
        for t in 0..self.tenants.len() {
            if entry.concerns(t, view.setup) {
                self.set_share(t, entry.share, view, act);
            }
        }
    }

    fn worker_up(&mut self, worker: u32, view: &View<'_>, act: &mut Vec<Action>) {
        let asked = self.counted.resizes;
        self.ask(worker, view, act);
        let more = asked != self.counted.resizes || view.workers.iter().any(|w| w.resizing);
        if self.loops() && !more {
            self.open_window(act);
        }
    }
}

impl Function {
    /// The window as the resize rule sees it; `None` if it contains no information.
    fn seen(&self, slo: Nanos, w: &Window, now: Nanos, knobs: &Knobs) -> Option<Seen> {
        let (done, seconds) = (w.latencies.len(), now.since(w.opened).as_secs_f64());
        let rate = w.arrived as f64 / seconds;
        let execution = execution_ms(w).filter(|_| rate > 0.0 && done > 0)?;
        let slo = slo.as_millis_f64();
        let (slo, latency) = if knobs.latency == Latency::Request {
            (slo, sum_ns(w.latencies.iter().copied()) as f64 / done as f64 / 1e6)
        } else {
            (slo * knobs.execution_share, execution)
        };
        let throughput = if knobs.throughput == Throughput::Served {
            done as f64 / seconds
        } else {
            let busy = sum_ns(w.executions.iter().map(|e| e.took)) as f64 / 1e9;
            done as f64 / busy * self.workers.len() as f64
        };
        Some(Seen { slo, latency, rate, throughput })
    }
}

fn sum_ns(times: impl Iterator<Item = Nanos>) -> u128 {
    times.map(|t| u128::from(t.0)).sum()
}

/// Mean time from a batch's start to its result.
fn execution_ms(window: &Window) -> Option<f64> {
    let batches = window.executions.len();
    let ns = sum_ns(window.executions.iter().map(|e| e.took));
    (ns > 0).then(|| ns as f64 / 1e6 / batches as f64)
}

counters! {
    Gslice |gslice|
    /// of a worker's share
    "resizes asked for", unit("changes") = gslice.counted.resizes;
    /// for which there was no memory
    "resizes refused", unit("changes") = gslice.counted.refused;
    /// in all
    "batch limits changed", unit("changes") = gslice.counted.batch_changes;
}

impl Policy for Gslice {
    fn depth(&self) -> Depth {
        Depth::Request
    }

    fn layout(&mut self, setup: &Setup) -> Result<Layout, LayoutError> {
        let entries = self.knobs.schedule.as_ref().map_or(&[][..], |s| &s.0);
        entries.iter().try_for_each(|e| e.check(setup))?;
        let at_first = |t: usize| {
            let mut first = entries.iter().filter(|e| e.at == Nanos::ZERO && e.concerns(t, setup));
            first.next_back().map_or(self.knobs.initial, |e| e.share)
        };
        let mut workers = 0..;
        let functions = setup.tenants.iter().enumerate().map(|(t, tenant)| Function {
            workers: workers.by_ref().take(tenant.workers as usize).collect(),
            share: at_first(t),
            before: at_first(t),
            batch: tenant.batch_max,
        });
        let functions = functions.collect();
        self.tenants = functions;
        let layout = setup.clients(|tenant| self.cap(tenant as usize, setup))?;
        // While they load, shadows are clients too.
        let each = if matches!(self.knobs.how(), Resize::Shadow { .. }) { 2 } else { 1 };
        setup.check_clients(layout.workers.len() * each)?;
        Ok(layout)
    }

    fn event(&mut self, event: Event, view: &View<'_>, act: &mut Vec<Action>) {
        match event {
            Event::Start => self.start(view, act),
            Event::WorkerUp { worker } => self.worker_up(worker, view, act),
            Event::Timer { token: ASKED } => self.fall_back(view),
            Event::Timer { token } => self.follow_schedule(token as usize, view, act),
            // The last of those that close together.
            Event::WindowClosed { tenant } if tenant as usize + 1 == self.tenants.len() => {
                self.close_window(view, act);
            }
            _ => {}
        }
    }

    fn counters(&self) -> Vec<Count> {
        self.counted()
    }
}
