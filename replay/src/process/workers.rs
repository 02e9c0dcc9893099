//! Workers as processes of their own.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use cotenant_profiles::Bytes;
use cotenant_sim::counter::Count;
use cotenant_sim::layout::{Layout, WorkerSpec};
use cotenant_sim::scenario::Setup;

use super::ground::Ground;
use super::handle::{Heard, Launcher, Process};
use super::messages::{Command, FailureKind, Program, Run};
use crate::counted::{self, Deviations, Late, Started};
use crate::device::{DeviceInfo, Direction, Usage};
use crate::drive::{Batch, Ended, HostCosts, Launch, Lost, RunClock, Stop, Workers};
use crate::error::DeviceError;

mod care;

/// How long to wait for a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// Until it has loaded its model. That includes loading libraries and compiling kernels.
    pub start: Duration,
    /// Between two signs of life after that.
    pub silence: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { start: Duration::from_secs(120), silence: Duration::from_secs(5) }
    }
}

/// How often the workers' signs of life are checked.
const ROUND: Duration = Duration::from_millis(50);

/// A process and what is known about it.
struct Member {
    process: Process,
    token: u64,
    spec: WorkerSpec,
    up: bool,
    /// Number of the pass that it runs.
    running: Option<u64>,
    /// The failure that it reported before it ended.
    failed: Option<(FailureKind, String)>,
    since: Instant,
}

#[derive(Default)]
struct Slot {
    member: Option<Member>,
    /// Loads beside the worker, to take its place.
    shadow: Option<Member>,
}

/// Workers as processes. Dropping this ends them all.
pub struct Processes {
    setup: Arc<Setup>,
    launcher: Launcher,
    patience: Patience,
    slots: Vec<Slot>,
    /// Retired or superseded processes, which end by themselves or are killed.
    leaving: Vec<(Process, Instant)>,
    inbox: Sender<(u64, Heard)>,
    letters: Receiver<(u64, Heard)>,
    /// The worker that each process belongs to, by the process's token.
    owners: BTreeMap<u64, u32>,
    next_token: u64,
    next_pass: u64,
    ended: Vec<Ended>,
    lost: Vec<Lost>,
    /// Why the run cannot go on; reported at the next poll.
    failed: Option<DeviceError>,
    looked: Instant,
    clock: RunClock,
    started: Started,
    announced: Option<Sender<(u32, u32)>>,
    deviations: Deviations,
    /// Declared last, so that the processes end before what they run on.
    ground: Ground,
}

impl Processes {
    /// Workers on `ground`, started by `launcher`.
    #[must_use]
    pub fn new(setup: Arc<Setup>, ground: Ground, launcher: Launcher, patience: Patience) -> Self {
        let (inbox, letters) = channel();
        Self {
            setup,
            launcher,
            patience,
            slots: vec![],
            leaving: vec![],
            inbox,
            letters,
            owners: BTreeMap::new(),
            next_token: 0,
            next_pass: 0,
            ended: vec![],
            lost: vec![],
            failed: None,
            looked: Instant::now(),
            clock: RunClock::start(ground.clock()),
            started: Started::default(),
            announced: None,
            deviations: Deviations::default(),
            ground,
        }
    }

    /// Sends the worker's number and the process id of each process that starts to `to`.
    pub fn announce(&mut self, to: Sender<(u32, u32)>) {
        self.announced = Some(to);
    }

    fn unsupported<T>(&self, what: &str) -> Result<T, DeviceError> {
        let reason = "a worker process is given whole batches";
        Err(DeviceError::unsupported(what, reason))
    }
}

impl Drop for Processes {
    fn drop(&mut self) {
        let slots = self.slots.iter_mut().flat_map(|s| s.member.iter_mut().chain(&mut s.shadow));
        let leaving = self.leaving.iter_mut().map(|(process, _)| process);
        Process::let_all_go(slots.map(|m| &mut m.process).chain(leaving).collect());
    }
}

impl Workers for Processes {
    fn info(&self) -> &DeviceInfo {
        self.ground.info()
    }

    fn is_gathering(&self) -> bool {
        let waiting = |s: &Slot| s.member.as_ref().is_some_and(|m| !m.up);
        self.slots.iter().any(waiting)
    }

    fn start_clock(&mut self, _: &Stop) -> RunClock {
        self.failed = self.ground.require().err();
        self.clock = RunClock::start(self.ground.clock());
        self.clock
    }

    fn host_costs(&self) -> HostCosts {
        self.ground.host_costs()
    }

    fn lay_out(&mut self, layout: &Layout) -> Result<(), DeviceError> {
        self.ground.lay_out(layout)
    }

    fn open(&mut self, worker: u32, spec: &WorkerSpec) -> Result<(), DeviceError> {
        let index = worker as usize;
        if self.slots.len() <= index {
            self.slots.resize_with(index + 1, Slot::default);
        }
        let slot = &mut self.slots[index];
        let old = slot.member.take();
        let shadow = slot.shadow.take_if(|s| s.spec == *spec);
        if let Some(old) = old {
            self.let_go(old);
        }
        let member = match shadow {
            Some(shadow) => shadow,
            None => self.start(worker, spec, self.memory(spec))?,
        };
        self.slots[index].member = Some(member);
        Ok(())
    }

    fn open_shadow(
        &mut self,
        worker: u32,
        spec: &WorkerSpec,
        memory: Bytes,
    ) -> Result<(), DeviceError> {
        let shadow = self.start(worker, spec, memory)?;
        let before = self.slots[worker as usize].shadow.replace(shadow);
        if let Some(before) = before {
            self.let_go(before);
        }
        Ok(())
    }

    fn is_up(&mut self, worker: u32) -> bool {
        let slot = &self.slots[worker as usize];
        slot.shadow.as_ref().or(slot.member.as_ref()).is_none_or(|m| m.up)
    }

    /// Its process makes everything ready before it says that it is up.
    fn warm(&mut self, _: u32, _: &[u32], _: [Bytes; 2], _: &Stop) -> Result<(), DeviceError> {
        Ok(())
    }

    fn close(&mut self, worker: u32) -> Result<(), DeviceError> {
        let slot = &mut self.slots[worker as usize];
        let (member, shadow) = (slot.member.take(), slot.shadow.take());
        member.into_iter().chain(shadow).for_each(|m| self.let_go(m));
        Ok(())
    }

    fn run(&mut self, batch: &Batch<'_>) -> Result<(), DeviceError> {
        let Some(member) = &mut self.slots[batch.worker as usize].member else {
            return Ok(()); // It has gone, and the next poll reports that.
        };
        let model = &self.setup.tenants[member.spec.tenant as usize].model;
        let same = |p: &cotenant_sim::program::Program| p.kernels == batch.kernels;
        let program = model.programs.iter().position(same);
        // A step is not one of the programs, and it says when its launches are issued.
        let loaded =
            program.is_none_or(|p| model.programs[p].issued_ns != batch.issued_ns).then(|| {
                Program { kernels: batch.kernels.to_vec(), issued_ns: batch.issued_ns.to_vec() }
            });
        let scale = batch.scales.first().copied().unwrap_or(1.0);
        let scales = match batch.scales.iter().all(|s| *s == scale) {
            true => vec![scale],
            false => batch.scales.to_vec(),
        };
        let number = self.next_pass;
        self.next_pass += 1;
        member.running = Some(number);
        let run = Run {
            number,
            program: program.unwrap_or(0) as u32,
            loaded,
            base: self.clock.on_device(batch.base).0,
            scales,
            input: batch.input.0,
            output: batch.output.0,
            first: batch.first,
            last: batch.last,
        };
        // If the process has gone, its loss is reported separately.
        let _ = member.process.say(&Command::Run(run));
        Ok(())
    }

    fn copy(&mut self, _: u32, _: Direction, _: Bytes, _: u64, _: bool) -> Result<(), DeviceError> {
        self.unsupported("a copy")
    }

    fn launch(&mut self, _: &Launch) -> Result<(), DeviceError> {
        self.unsupported("a kernel")
    }

    fn merge(&mut self, _: &Launch, _: &[u32]) -> Result<(), DeviceError> {
        self.unsupported("a merged launch")
    }

    fn poll(&mut self, ended: &mut Vec<Ended>) -> Result<(), DeviceError> {
        self.drain_letters();
        self.look();
        self.ground.check()?;
        if let Some(failed) = self.failed.take() {
            return Err(failed);
        }
        ended.append(&mut self.ended);
        Ok(())
    }

    fn lost(&mut self, lost: &mut Vec<Lost>) {
        lost.append(&mut self.lost);
    }

    fn next_event(&mut self) -> Option<u64> {
        None
    }

    fn doze(&mut self, most: Duration) {
        match self.letters.recv_timeout(most) {
            Ok((token, heard)) => self.heard(token, heard),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => unreachable!("we hold a sender ourselves"),
        }
    }

    fn is_idle(&self) -> bool {
        self.slots.iter().all(|s| s.member.as_ref().is_none_or(|m| m.running.is_none()))
    }

    fn usage(&mut self) -> Option<Usage> {
        self.ground.usage()
    }

    fn drain(&mut self) -> Result<(), DeviceError> {
        while !self.is_idle() {
            self.doze(ROUND);
            self.drain_letters();
            self.look();
        }
        self.ended.clear();
        Ok(())
    }

    fn counters(&self) -> Vec<Count> {
        let mut counters = self.started.counted();
        counters.extend(self.ground.late_ms().into_iter().flat_map(|ms| Late(ms).counted()));
        counters.extend(counted::seen(self.deviations.counted()));
        counters
    }
}
