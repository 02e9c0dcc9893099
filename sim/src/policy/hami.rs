//! `hami`: a limit on each container's use of the GPU, by a bucket of tokens.
//!
//! Models what container platforms do with a "cores" limit (HAMi's `nvidia.com/gpucores`): a library
//! in front of the driver counts every kernel launch against the container's bucket, one token per
//! thread block whatever its size. While the bucket is below zero, launches sleep and try again. A
//! thread of the library fills the bucket every `period`, by a share that it raises while the measured
//! utilisation of the last `window` is below the limit and lowers while it is above. So the limit is
//! a mean over seconds, kept after the fact: a burst runs at full speed until the measurement has seen
//! it, and a container that has been held back stands still for tens of milliseconds at a time. That
//! is what requests feel: the mean is right, the tail is not. Containers do not share a context, so
//! kernels of different ones take turns (`sharing = "mps"` runs them side by side).
//!
//! It gives up: isolation in time (no container is protected from a neighbour's burst), idle capacity (a
//! limit holds also while the GPU is free), and short tails.
//!
//! Source: HAMi-core, `multiprocess_utilization_watcher.c` (commit 8f3a89c) for all numbers: with S
//! SMs of M threads the bucket holds T = 32·S·M; launches take their grid's blocks; retry after 10 ms;
//! every 120 ms, with u the utilisation and d = max(5, |limit − u|), the share moves by S²·M·d/2560,
//! times 2d/(limit + 1) where d exceeds half the limit, within 0 to T; T doubles when the share has
//! reached it and the bucket is still negative.
//!
//! Choices, where the source needs what a simulator has not:
//! - Utilisation is NVML's per process: the share of time with a kernel on the GPU. Contexts that take
//!   turns divide the time in which several have kernels launched; in whole percent, as NVML tells it.
//! - A launch asks for tokens when it could start, not when the host issues it ahead of the GPU. So a
//!   kernel that is held is never on the GPU's queue already.
//! - A limit of 100 % is none, as in the source.
//! - Priorities between containers, which the source has too, are not modelled.

use std::collections::VecDeque;

use cotenant_profiles::Nanos;

use super::clipper::turns;
use super::{Depth, LayoutError, PerTenant, Policy, PolicyInfo, Properties};
use crate::action::{Action, Event, Via};
use crate::counter::Count;
use crate::layout::Layout;
use crate::scenario::Setup;
use crate::view::{Status, View};
use crate::{counters, options, words};

/// The registry entry.
pub(super) const INFO: PolicyInfo = PolicyInfo {
    name: "hami",
    summary: "a token bucket per container limits its kernel launches, after the fact",
    source: "HAMi-core (github.com/Project-HAMi/HAMi-core), utilization watcher",
    properties: Properties {
        work_conserving: false,
        alone_is_isolated: false,
        starvation_free: false,
    },
    options: Knobs::SPECS,
    counters: Hami::COUNTERS,
    build: |options| Ok(Box::new(Hami::new(Knobs::read(options)?))),
};

options! {
    /// Options of `hami`.
    struct Knobs {
        /// each container's limit: an even part of the GPU, or given; 100 means no limit
        cores: PerTenant<Cores> = PerTenant::Word(Cores::Even), unit("%");
        /// how often buckets are filled
        period: Nanos = Nanos::from_millis(120), period();
        /// a launch that finds no tokens tries again after this long
        retry: Nanos = Nanos::from_millis(10), period();
        /// utilisation is that of so long before
        window: Nanos = Nanos::from_secs(1), period();
        /// containers take turns on the GPU, or run side by side under MPS
        sharing: Sharing = Sharing::Turns;
    }
}

/// The rule for limits that are not given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cores {
    Even,
}

words!(Cores { "even" => Cores::Even });

/// How containers share the GPU below the limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sharing {
    Turns,
    Mps,
}

words!(Sharing { "turns" => Sharing::Turns, "mps" => Sharing::Mps });

/// The token of the timer that fills the buckets; smaller tokens are workers that try again.
const FILL: u64 = u64::MAX;
/// Tokens of a bucket per thread of the GPU.
const FACTOR: i64 = 32;
/// The smallest difference that the step of the share is computed from, in percent of utilisation.
const LEAST_DIFFERENCE: i64 = 5;
/// Divides the step of the share.
const STEP: i64 = 2560;

struct Hami {
    knobs: Knobs,
    containers: Vec<Container>,
    /// By worker: whether it waits for tokens; whether its kernel is on the GPU.
    waits: Vec<bool>,
    on_gpu: Vec<bool>,
    /// Utilisation is counted up to here.
    counted: Nanos,
    /// The square of the number of SMs, times the threads of one SM.
    gain: i64,
    held: u64,
}

/// One tenant.
#[derive(Clone, Debug)]
struct Container {
    /// The limit, percent; 100: no limit.
    limit: i64,
    /// Tokens: in the bucket, added at each filling, and the capacity of the bucket.
    pool: i64,
    share: i64,
    total: i64,
    /// Kernels on the GPU.
    running: u32,
    /// Time with a kernel on the GPU, ns, and its values at the last fillings.
    busy: u64,
    past: VecDeque<(Nanos, u64)>,
}

impl Container {
    /// Utilisation, percent of the time since the oldest remembered filling.
    fn utilization(&self, now: Nanos) -> i64 {
        let Some(&(then, busy)) = self.past.front() else { return 0 };
        let span = now.0 - then.0;
        ((self.busy - busy) * 100).checked_div(span).unwrap_or(0) as i64
    }

    /// The work of the library's thread in every period.
    fn fill(&mut self, utilization: i64, gain: i64) {
        if self.share == self.total && self.pool < 0 {
            self.total = self.total.saturating_mul(2);
            self.share = self.total;
        }
        let difference = (self.limit - utilization).abs().max(LEAST_DIFFERENCE);
        let mut step = gain.saturating_mul(difference) / STEP;
        if difference > self.limit / 2 {
            step = step.saturating_mul(2 * difference) / (self.limit + 1);
        }
        self.share = if utilization <= self.limit {
            self.share.saturating_add(step).min(self.total)
        } else {
            (self.share - step).max(0)
        };
        self.pool = self.pool.saturating_add(self.share).min(self.total);
    }
}

impl Hami {
    fn new(knobs: Knobs) -> Self {
        Self {
            knobs,
            containers: vec![],
            waits: vec![],
            on_gpu: vec![],
            counted: Nanos::ZERO,
            gain: 0,
            held: 0,
        }
    }

    /// Brings the containers' time on the GPU up to date.
    fn count(&mut self, now: Nanos) {
        let span = now.0 - self.counted.0;
        self.counted = now;
        if span == 0 {
            return;
        }
        let busy = self.containers.iter().filter(|c| c.running > 0).count() as u64;
        let each = if self.knobs.sharing == Sharing::Turns { span / busy.max(1) } else { span };
        self.containers.iter_mut().filter(|c| c.running > 0).for_each(|c| c.busy += each);
    }

    fn ask(&mut self, worker: u32, view: &View<'_>, act: &mut Vec<Action>) {
        let w = &view.workers[worker as usize];
        let container = &mut self.containers[w.spec.tenant as usize];
        if container.limit < 100 {
            if container.pool < 0 {
                self.waits[worker as usize] = true;
                self.held += 1;
                let at = view.now + self.knobs.retry;
                act.push(Action::Timer { at, token: u64::from(worker) });
                return;
            }
            let blocks = view.setup.code.kernels[w.kernel as usize].blocks;
            container.pool -= i64::try_from(blocks).unwrap_or(i64::MAX / 2);
        }
        self.count(view.now);
        self.containers[w.spec.tenant as usize].running += 1;
        self.on_gpu[worker as usize] = true;
        act.push(Action::Launch { worker, mask: None, priority: 0, via: Via::Stream });
    }

    fn off(&mut self, worker: u32, view: &View<'_>) {
        if std::mem::take(&mut self.on_gpu[worker as usize]) {
            self.count(view.now);
            let tenant = view.workers[worker as usize].spec.tenant;
            self.containers[tenant as usize].running -= 1;
        }
    }

    fn fill(&mut self, view: &View<'_>, act: &mut Vec<Action>) {
        self.count(view.now);
        let opens = view.now.since(self.knobs.window);
        for container in &mut self.containers {
            // The newest one that is older than the window stays.
            while container.past.get(1).is_some_and(|(at, _)| *at <= opens) {
                container.past.pop_front();
            }
            let utilization = container.utilization(view.now);
            container.fill(utilization, self.gain);
            container.past.push_back((view.now, container.busy));
        }
        act.push(Action::Timer { at: view.now + self.knobs.period, token: FILL });
    }
}

counters! {
    Hami |hami|
    /// of a container that had spent its own
    "launches held for tokens", unit("launches") = hami.held;
    /// over containers
    "shares at the end, tokens", unit("tokens") =
        hami.containers.iter().map(|container| container.share as f64).sum::<f64>();
}

impl Policy for Hami {
    fn depth(&self) -> Depth {
        Depth::Kernel
    }

    fn forms_batches(&self) -> bool {
        false
    }

    fn layout(&mut self, setup: &Setup) -> Result<Layout, LayoutError> {
        let n = setup.tenants.len();
        let limits = match &self.knobs.cores {
            PerTenant::Word(Cores::Even) => vec![100.0 / n as f64; n],
            PerTenant::Given(value) => setup.per_tenant("cores", value)?,
        };
        let (sms, threads) =
            (i64::from(setup.device.cus()), i64::from(setup.device.topology.threads_per_cu));
        self.gain = sms * sms * threads;
        let container = |limit: f64| Container {
            limit: (limit as i64).max(1),
            pool: 0,
            share: 0,
            total: sms * threads * FACTOR,
            running: 0,
            busy: 0,
            past: VecDeque::from([(Nanos::ZERO, 0)]),
        };
        self.containers = limits.into_iter().map(container).collect();
        let layout = match self.knobs.sharing {
            Sharing::Turns => setup.contexts(turns(setup), setup.costs.context_memory),
            Sharing::Mps => setup.clients(|_| setup.device.cus())?,
        };
        self.waits = vec![false; layout.workers.len()];
        self.on_gpu = vec![false; layout.workers.len()];
        Ok(layout)
    }

    fn event(&mut self, event: Event, view: &View<'_>, act: &mut Vec<Action>) {
        match event {
            Event::Start => act.push(Action::Timer { at: self.knobs.period, token: FILL }),
            Event::KernelReady { worker } => self.ask(worker, view, act),
            Event::KernelDone { worker } | Event::WorkerDown { worker } => self.off(worker, view),
            Event::Timer { token: FILL } => self.fill(view, act),
            Event::Timer { token } => {
                let waited = std::mem::take(&mut self.waits[token as usize]);
                if waited && view.workers[token as usize].status == Status::Held {
                    self.ask(token as u32, view, act);
                }
            }
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

    fn container(limit: i64) -> Container {
        let total = 108 * 2048 * FACTOR;
        let past = VecDeque::from([(Nanos::ZERO, 0)]);
        Container { limit, pool: 0, share: 0, total, running: 0, busy: 0, past }
    }

    /// An A100: 108 SMs of 2048 threads.
    const GAIN: i64 = 108 * 108 * 2048;

    #[test]
    fn the_share_moves_by_the_published_steps() {
        let mut c = container(50);
        c.pool = -1;
        // Idle: 50 below the limit, more than half of it: 466,560 · 100 / 51.
        c.fill(0, GAIN);
        assert_eq!((c.share, c.pool), (914_823, 914_822));
        // Near the limit the difference counts as 5, which is no more than half of the limit.
        let step = GAIN * 5 / STEP;
        c.fill(49, GAIN);
        assert_eq!(c.share, 914_823 + step);
        c.fill(53, GAIN);
        assert_eq!(c.share, 914_823);
        // Never below zero, never above the bucket's capacity.
        c.fill(100, GAIN);
        c.fill(100, GAIN);
        assert_eq!(c.share, 0);
        (0..40).for_each(|_| c.fill(0, GAIN));
        assert_eq!((c.share, c.pool), (c.total, c.total));
    }

    #[test]
    fn a_bucket_that_is_too_small_grows() {
        let mut c = container(90);
        let total = c.total;
        (c.share, c.pool) = (total, -10 * total);
        c.fill(20, GAIN);
        assert_eq!((c.total, c.share, c.pool), (2 * total, 2 * total, -8 * total));
    }

    #[test]
    fn utilization_is_that_of_the_window() {
        let mut c = container(50);
        c.busy = 300;
        assert_eq!(c.utilization(Nanos(1_000)), 30);
        c.past = VecDeque::from([(Nanos(500), 200)]);
        assert_eq!(c.utilization(Nanos(1_000)), 20);
        assert_eq!(c.utilization(Nanos(500)), 0);
    }
}
