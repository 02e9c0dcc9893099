//! The real world: workers on a device, and the wall clock.
//!
//! On a GPU, the host and the mechanisms have their real costs. Beside an emulated GPU nothing on this
//! machine would cost as much, so the scenario's costs are applied in real time.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use cotenant_profiles::{Bytes, Nanos};
use cotenant_sim::action::Preemption;
use cotenant_sim::counter::Count;
use cotenant_sim::host::{self, Alarm, LOADED, Pass, Signal, Step, Timers, World};
use cotenant_sim::layout::{Layout, WorkerSpec};
use cotenant_sim::observe::{Happening, Observer};
use cotenant_sim::pool::NEVER;
use cotenant_sim::scenario::{Jitter, Setup};

use super::clock::RunClock;
use super::lateness::Lateness;
use super::workers::{Batch, Ended, HostCosts, Launch, Lost, Workers};
use super::{Loss, ReplayError, Stop};
use crate::device::{Direction, End, Usage};
use crate::error::DeviceError;

/// Longest wait, in wall-clock time, without checking whether a stop was requested.
const GLANCE: Duration = Duration::from_millis(50);

/// A worker that has not loaded yet is checked again after this long, ns: short compared with loading
/// on any machine.
const AGAIN: u64 = 100_000;

/// What the world remembers about a worker.
#[derive(Clone, Copy)]
struct Member {
    tenant: u32,
    gone: bool,
    /// The pass whose launches a shared host issues one by one.
    pass: Option<Pass>,
}

/// Launches that were loaded for a worker.
#[derive(Clone, Default)]
struct Loaded {
    kernels: Vec<u32>,
    issued_ns: Vec<u64>,
}

pub(super) struct RealWorld<'a> {
    setup: Arc<Setup>,
    gpu: &'a mut dyn Workers,
    kept: bool,
    jitter: Option<Box<dyn Jitter>>,
    observer: Option<&'a mut dyn Observer>,
    stop: &'a Stop,
    clock: RunClock,
    timers: Timers,
    members: Vec<Member>,
    /// By worker.
    loaded: Vec<Loaded>,
    /// Ends that are still to be reported, in order.
    ended: VecDeque<Ended>,
    polled: Vec<Ended>,
    gone: VecDeque<Lost>,
    looked: Vec<Lost>,
    scales: Vec<f64>,
    now: u64,
    due: u64,
    /// When the current signal was handed out.
    handled: u64,
    end: u64,
    opened: Option<Usage>,
    closed: Option<Usage>,
    events: u64,
    pub(super) lateness: Lateness,
    pub(super) losses: Vec<Loss>,
    /// Why the run cannot go on.
    pub(super) failed: Option<ReplayError>,
}

impl<'a> RealWorld<'a> {
    pub(super) fn new(
        setup: &Arc<Setup>,
        gpu: &'a mut dyn Workers,
        jitter: Option<Box<dyn Jitter>>,
        observer: Option<&'a mut dyn Observer>,
        stop: &'a Stop,
        end: Nanos,
    ) -> Self {
        let kept = gpu.host_costs() == HostCosts::Kept;
        Self {
            setup: Arc::clone(setup),
            kept,
            // A GPU's kernels vary by themselves.
            jitter: jitter.filter(|_| kept),
            observer,
            stop,
            clock: gpu.start_clock(stop),
            gpu,
            timers: Timers::default(),
            members: vec![],
            loaded: vec![],
            ended: VecDeque::new(),
            polled: vec![],
            gone: VecDeque::new(),
            looked: vec![],
            scales: vec![],
            now: 0,
            due: 0,
            handled: 0,
            end: end.0,
            opened: None,
            closed: None,
            events: 0,
            lateness: Lateness::reserved(),
            losses: vec![],
            failed: None,
        }
    }

    /// Lets the device finish its work; a failure at this point changes nothing about the run.
    pub(super) fn drain(&mut self) {
        let _ = self.gpu.drain();
    }

    /// Whether nothing has failed and no stop has been requested.
    fn goes_on(&mut self) -> bool {
        if self.failed.is_none() && self.stop.wanted() {
            self.failed = Some(ReplayError::Stopped);
        }
        self.failed.is_none()
    }

    fn attempt(&mut self, done: Result<(), DeviceError>) {
        if let Err(why) = done {
            self.failed.get_or_insert(why.into());
        }
    }

    /// Collects what has ended, and which workers were lost, since the last look.
    fn look(&mut self) {
        let done = self.gpu.poll(&mut self.polled);
        self.ended.extend(self.polled.drain(..));
        self.attempt(done);
        self.gpu.lost(&mut self.looked);
        self.gone.extend(self.looked.drain(..));
    }

    /// The next signal that is due, in order of time.
    fn at_hand(&mut self) -> Option<Signal> {
        if let Some(lost) = self.gone.pop_front() {
            return Some(self.lost(lost));
        }
        loop {
            let ended = self.ended.front().map_or(NEVER, |e| e.at);
            let alarm = self.timers.next();
            if alarm < ended && alarm <= self.now && alarm < self.end {
                let signal = self.alarm(alarm);
                if signal.is_some() {
                    return signal;
                }
                continue;
            }
            let Ended { worker, at, end } = self.ended.pop_front()?;
            // Work that ends after the end of the run counts as in flight at its end.
            if at < self.end {
                self.begin_event(at);
                let late = self.lateness.wall(self.now.saturating_sub(at));
                self.lateness.completions.record(late);
                return Some(match end {
                    End::Done => Signal::Ended(worker),
                    End::Preempted(left) => Signal::Preempted(worker, left),
                    End::Recalled => Signal::Recalled(worker, 1),
                });
            }
        }
    }

    fn begin_event(&mut self, due: u64) {
        self.events += 1;
        self.due = due;
        self.handled = self.clock.now();
    }

    fn alarm(&mut self, at: u64) -> Option<Signal> {
        let (alarm, index) = self.timers.first();
        if alarm != Alarm::Arrival {
            self.timers.pop();
        }
        self.begin_event(at);
        match alarm {
            Alarm::Arrival | Alarm::Client => {
                let late = self.lateness.wall(self.now - at);
                self.lateness.arrivals.record(late);
            }
            Alarm::Batch | Alarm::Policy | Alarm::Window | Alarm::Clock | Alarm::Cut => {}
            // The alarm is for a worker that has gone.
            _ if self.members[index as usize].gone => return None,
            Alarm::Up | Alarm::Resized if !self.gpu.is_up(index) => {
                self.timers.arm(self.now + AGAIN, alarm, index);
                return None;
            }
            _ => {}
        }
        Some(Signal::Alarm(alarm, index))
    }

    fn lost(&mut self, lost: Lost) -> Signal {
        let Lost { worker, shadow, cause, why } = lost;
        let tenant = self.members[worker as usize].tenant;
        self.losses.push(Loss { at: Nanos(self.now), tenant, worker, cause, why });
        self.begin_event(self.now);
        if shadow { Signal::ShadowLost(worker) } else { Signal::Lost(worker, cause) }
    }

    /// Nothing is due: sleep until something will be, but look up now and then.
    fn rest(&mut self) {
        let alarm = self.timers.next().min(self.end);
        let until = match self.gpu.next_event() {
            Some(at) => alarm.min(at),
            // On a virtual clock nothing ends without the device knowing of it beforehand.
            None if self.gpu.is_idle() || self.clock.is_virtual() => alarm,
            None => return self.gpu.doze(self.clock.until(alarm).min(GLANCE)),
        };
        self.clock.wait_until(until, GLANCE);
    }

    /// The policy's answer to the current event is on its way.
    fn decided(&mut self) {
        let took = self.clock.now().saturating_sub(self.handled);
        let took = self.lateness.wall(took);
        self.lateness.decisions.record(took);
    }

    /// The factor by which the duration of a kernel is multiplied.
    fn scale(&mut self, worker: u32, work: f64, ordinal: u64, position: u32) -> f64 {
        let tenant = self.members[worker as usize].tenant;
        let jitter = self.jitter.as_mut();
        work * jitter.map_or(1.0, |j| j.factor(tenant, ordinal, position))
    }

    fn launched(&mut self, launch: &host::Launch<'_>) -> Launch {
        let host::Launch { worker, kernel, position, part, issued, work, ordinal, .. } = *launch;
        Launch {
            worker,
            kernel,
            mask: launch.mask.copied(),
            priority: Some(launch.priority),
            part,
            issued,
            scale: self.scale(worker, work, ordinal, position),
            first: false,
            last: false,
            tell: true,
        }
    }

    /// Makes every kernel of a worker's model ready.
    fn warm(&mut self, worker: u32, spec: &WorkerSpec) {
        let programs = &self.setup.tenants[spec.tenant as usize].model.programs;
        let mut all: Vec<u32> = programs.iter().flat_map(|p| p.kernels.iter().copied()).collect();
        let generates = self.setup.tenants[spec.tenant as usize].generates.as_ref();
        all.extend(generates.into_iter().flat_map(|g| g.steps.kernels()));
        all.sort_unstable();
        all.dedup();
        let model = &self.setup.tenants[spec.tenant as usize].model;
        let items = u64::from(self.setup.tenants[spec.tenant as usize].batch_max.max(1));
        let of = |per_item: Bytes| Bytes(per_item.0.saturating_mul(items));
        let (input, output) = (of(model.input_per_item), of(model.output_per_item));
        let done = self.gpu.warm(worker, &all, [input, output], self.stop);
        self.attempt(done);
        self.goes_on();
    }
}

impl World for RealWorld<'_> {
    fn now(&self) -> u64 {
        self.now
    }

    fn due(&self) -> u64 {
        self.due
    }

    fn start(&mut self) {
        // The run begins once every worker has either loaded or is known to be lost.
        while self.goes_on() && self.gpu.is_gathering() {
            self.gpu.doze(GLANCE);
            self.look();
        }
        if self.failed.is_none() {
            self.clock = self.gpu.start_clock(self.stop);
        }
        self.lateness.slowdown = self.clock.slowdown();
    }

    fn next(&mut self) -> Option<Signal> {
        while self.goes_on() {
            let mut over = false;
            if self.ended.is_empty() {
                // Look once more after the end of the run, to see what ended just before it.
                over = self.clock.now() >= self.end;
                if over && self.closed.is_none() {
                    self.closed = self.gpu.usage();
                }
                self.look();
            }
            self.now = self.clock.now().min(self.end);
            if self.failed.is_some() {
                return None;
            }
            let signal = self.at_hand();
            if signal.is_some() {
                return signal;
            }
            if over {
                return None;
            }
            self.rest();
        }
        None
    }

    fn arm(&mut self, at: u64, alarm: Alarm, index: u32) {
        self.timers.arm(at, alarm, index);
    }

    fn next_arrival(&mut self, at: Option<u64>, tenant: u32) {
        self.timers.replace_first(at, Alarm::Arrival, tenant);
    }

    fn charged(&self, ns: u64) -> u64 {
        if self.kept { ns } else { 0 }
    }

    fn lay_out(&mut self, layout: &Layout) {
        let done = self.gpu.lay_out(layout);
        self.attempt(done);
    }

    fn repartition(&mut self, pool: u32, lanes: &[u32]) {
        if self.failed.is_none() {
            let done = self.gpu.repartition(pool, lanes);
            self.attempt(done);
        }
    }

    fn open(&mut self, worker: u32, spec: &WorkerSpec) {
        let member = Member { tenant: spec.tenant, gone: false, pass: None };
        let members = self.members.len().max(worker as usize + 1);
        self.members.resize(members, member);
        self.members[worker as usize] = member;
        if self.goes_on() {
            let done = self.gpu.open(worker, spec);
            self.attempt(done);
        }
        if self.failed.is_none() {
            self.warm(worker, spec);
        }
    }

    fn open_shadow(&mut self, worker: u32, spec: &WorkerSpec, memory: Bytes) {
        if self.failed.is_none() {
            let done = self.gpu.open_shadow(worker, spec, memory);
            self.attempt(done);
        }
    }

    fn close(&mut self, worker: u32) {
        self.members[worker as usize].gone = true;
        if self.failed.is_none() {
            let done = self.gpu.close(worker);
            self.attempt(done);
        }
    }

    fn load(&mut self, worker: u32, steps: &[Step]) {
        let workers = self.loaded.len().max(worker as usize + 1);
        self.loaded.resize(workers, Loaded::default());
        let loaded = &mut self.loaded[worker as usize];
        loaded.kernels.clear();
        loaded.kernels.extend(steps.iter().map(|s| s.kernel));
        loaded.issued_ns.clear();
        loaded.issued_ns.extend(steps.iter().map(|s| s.issued_ns));
    }

    fn run(&mut self, pass: &Pass) {
        if self.failed.is_some() {
            return;
        }
        let Pass { worker, base, input, output, first, last, work, ordinal, .. } = *pass;
        if !pass.ahead {
            self.members[worker as usize].pass = Some(*pass);
            if input.0 > 0 {
                let done = self.gpu.copy(worker, Direction::In, input, base, false);
                self.attempt(done);
            }
            return;
        }
        let setup = Arc::clone(&self.setup);
        let tenant = self.members[worker as usize].tenant;
        let loaded = std::mem::take(&mut self.loaded);
        let (kernels, issued_ns) = match pass.program {
            LOADED => (&loaded[worker as usize].kernels, &loaded[worker as usize].issued_ns),
            program => {
                let program = &setup.tenants[tenant as usize].model.programs[program as usize];
                (&program.kernels, &program.issued_ns)
            }
        };
        let mut scales = std::mem::take(&mut self.scales);
        scales.clear();
        let positions = 0..kernels.len() as u32;
        scales.extend(positions.map(|position| self.scale(worker, work, ordinal, position)));
        let batch =
            Batch { worker, kernels, issued_ns, scales: &scales, base, input, output, first, last };
        let done = self.gpu.run(&batch);
        self.scales = scales;
        self.loaded = loaded;
        self.attempt(done);
    }

    fn issue(&mut self, worker: u32, position: u32) {
        let Some(pass) = self.members[worker as usize].pass.filter(|_| self.failed.is_none())
        else {
            return;
        };
        let tenant = self.members[worker as usize].tenant;
        let model = &self.setup.tenants[tenant as usize].model;
        let kernels = match pass.program {
            LOADED => &self.loaded[worker as usize].kernels,
            program => &model.programs[program as usize].kernels,
        };
        let (kernel, end) = (kernels[position as usize], position as usize + 1 == kernels.len());
        let copies = end && pass.output.0 > 0;
        let launch = Launch {
            worker,
            kernel,
            mask: None,
            priority: None,
            part: host::Part::WHOLE,
            issued: self.due,
            scale: self.scale(worker, pass.work, pass.ordinal, position),
            first: position == 0,
            last: end && pass.last,
            tell: end && !copies,
        };
        let done = self.gpu.launch(&launch);
        self.attempt(done);
        if copies && self.failed.is_none() {
            let done = self.gpu.copy(worker, Direction::Out, pass.output, self.due, true);
            self.attempt(done);
        }
    }

    fn copy(&mut self, worker: u32, way: host::Direction, bytes: Bytes, issued: u64) -> bool {
        if self.failed.is_none() {
            let way = match way {
                host::Direction::In => Direction::In,
                host::Direction::Out => Direction::Out,
            };
            let done = self.gpu.copy(worker, way, bytes, issued, true);
            self.attempt(done);
        }
        true
    }

    fn launch(&mut self, launch: &host::Launch<'_>) {
        if self.failed.is_none() {
            let launch = self.launched(launch);
            let done = self.gpu.launch(&launch);
            self.attempt(done);
            self.decided();
        }
    }

    fn merge(&mut self, launch: &host::Launch<'_>, kernels: &[u32]) {
        if self.failed.is_none() {
            let launch = self.launched(launch);
            let done = self.gpu.merge(&launch, kernels);
            self.attempt(done);
            self.decided();
        }
    }

    fn preempt(&mut self, worker: u32, how: Preemption, at: u64) {
        if self.failed.is_none() {
            let done = self.gpu.preempt(worker, how, at);
            self.attempt(done);
            self.decided();
        }
    }

    fn batch(&mut self, worker: u32, began: bool) {
        if self.failed.is_none() {
            let done = self.gpu.batch(worker, began);
            self.attempt(done);
        }
    }

    fn set_clock(&mut self, mhz: u32) {
        if self.failed.is_none() {
            let done = self.gpu.set_clock(mhz);
            self.attempt(done);
        }
    }

    fn held(&self, worker: u32) -> Option<u32> {
        self.gpu.held(worker)
    }

    fn open_window(&mut self) {
        self.opened = self.gpu.usage();
    }

    fn used(&self) -> Option<Usage> {
        Some(self.closed? - self.opened?)
    }

    fn events(&self) -> u64 {
        self.events
    }

    fn digest(&self) -> u64 {
        0
    }

    fn counters(&self) -> Vec<Count> {
        self.gpu.counters()
    }

    fn observe(&mut self, what: Happening) {
        if let Some(observer) = &mut self.observer {
            observer.happened(Nanos(self.now), what);
        }
    }
}
