//! Workers as streams of this process.

use std::collections::{BTreeSet, VecDeque};

use cotenant_profiles::{Bytes, Nanos};
use cotenant_sim::CuMask;
use cotenant_sim::action::Preemption;
use cotenant_sim::counter::Count;
use cotenant_sim::host::Part;
use cotenant_sim::layout::{Layout, PoolSpec, WorkerSpec};

use super::Stop;
use super::clock::RunClock;
use super::workers::{Batch, Ended, Foreseen, HostCosts, Launch, Workers};
use crate::counted::{self, Deviations, Issued};
use crate::device::{
    self, Completion, Device, DeviceInfo, Direction, End, Kind, Partition, Prepared, Queue, Usage,
};
use crate::error::DeviceError;
use crate::recipe;
use crate::work::Work;

/// Launches that a real host issues for one worker before it turns to the other workers.
const TURN: usize = 32;

/// How the scenario's kernels are found on the device.
#[derive(Clone, Debug)]
pub enum Kernels {
    /// The device was made for the scenario and knows them by number.
    Numbered,
    /// Runnable work for each kernel.
    Works(Vec<Work>),
}

/// A queue of the pool for those of a worker's kernels that are launched under a mask or a priority.
#[derive(Clone, Copy, Debug)]
struct Hop {
    mask: Option<CuMask>,
    priority: i8,
    queue: Queue,
}

/// A worker's queues, and the launches of its batch that a real host has yet to issue.
#[derive(Debug)]
struct Line {
    partition: Partition,
    spec: WorkerSpec,
    queue: Queue,
    hops: Vec<Hop>,
    last: Queue,
    due: VecDeque<Due>,
}

#[derive(Clone, Copy, Debug)]
enum Due {
    Kernel(Launch),
    Copy(Direction, Bytes, u64, bool),
}

/// Workers as in-order queues on one device.
pub struct Streams<'a> {
    device: &'a mut dyn Device,
    kernels: Kernels,
    /// Kernels of the scenario.
    count: usize,
    host: HostCosts,
    clock: RunClock,
    pools: Vec<PoolSpec>,
    /// By worker; `None` for workers that found no memory.
    lines: Vec<Option<Line>>,
    /// On a GPU, the partitions and queues that workers had before their places changed, for workers
    /// that come back to one.
    left: Vec<(u32, Partition, Queue)>,
    /// By queue and kernel.
    prepared: Vec<Vec<Option<Prepared>>>,
    /// The worker whose end a launch is, by the launch's number counted from `oldest`; `None` if no
    /// worker waits for it.
    owners: VecDeque<Option<u32>>,
    oldest: u64,
    waiting: usize,
    completions: Vec<Completion>,
    /// Workers whose copies the device does not do: such a copy ends at once.
    skipped: Vec<u32>,
    parts: Vec<Prepared>,
    issued: Issued,
    deviations: Deviations,
    /// Masks that the policy is expected to need; their queues are made when the run begins.
    foreseen: Vec<Foreseen>,
    /// The device's counters when the run began.
    before: Vec<Count>,
}

impl<'a> Streams<'a> {
    /// Workers on `device`, which runs the `count` kernels of a scenario as `kernels` says.
    #[must_use]
    pub fn new(device: &'a mut dyn Device, kernels: Kernels, count: usize) -> Self {
        let emulated = device.info().kind == Kind::Emulated;
        Self {
            clock: RunClock::start(device.clock()),
            device,
            kernels,
            count,
            host: if emulated { HostCosts::Kept } else { HostCosts::Real },
            pools: vec![],
            lines: vec![],
            left: vec![],
            prepared: vec![],
            owners: VecDeque::new(),
            oldest: 0,
            waiting: 0,
            completions: vec![],
            skipped: vec![],
            parts: vec![],
            issued: Issued::default(),
            deviations: Deviations::default(),
            foreseen: vec![],
            before: vec![],
        }
    }

    /// Makes queues for these masks before the run, since a GPU takes long to make a partition.
    #[must_use]
    pub fn expecting(mut self, masks: Vec<Foreseen>) -> Self {
        self.foreseen = masks;
        self
    }

    fn line(&mut self, worker: u32) -> &mut Line {
        let line = self.lines[worker as usize].as_mut();
        line.expect("only workers that have come are given something to do")
    }

    fn make_queue(&mut self, partition: Partition, priority: i8) -> Result<Queue, DeviceError> {
        let queue = self.device.queue(partition, priority)?;
        self.deviations.queues += 1;
        let index = queue.0 as usize;
        if self.prepared.len() <= index {
            self.prepared.resize_with(index + 1, || vec![None; self.count]);
        }
        Ok(queue)
    }

    /// A worker's own queue on a partition. On a GPU this is the queue that it had there before, if
    /// any, because its operands and code are ready there.
    fn home(
        &mut self,
        worker: u32,
        partition: Partition,
        priority: i8,
    ) -> Result<Queue, DeviceError> {
        if self.host == HostCosts::Real {
            if let Some(Some(line)) = self.lines.get(worker as usize) {
                self.left.push((worker, line.partition, line.queue));
            }
            let here = |l: &&(u32, Partition, Queue)| (l.0, l.1) == (worker, partition);
            if let Some(&(.., queue)) = self.left.iter().find(here) {
                return Ok(queue);
            }
        }
        self.make_queue(partition, priority)
    }

    /// The kernel prepared for a queue; prepared at its first use there.
    fn ready(&mut self, queue: Queue, kernel: u32) -> Result<Prepared, DeviceError> {
        if let Some(ready) = self.prepared[queue.0 as usize][kernel as usize] {
            return Ok(ready);
        }
        let ready = match &self.kernels {
            Kernels::Numbered => self.device.prepare_kernel(queue, kernel)?,
            Kernels::Works(works) => self.device.prepare(queue, &works[kernel as usize])?,
        };
        self.prepared[queue.0 as usize][kernel as usize] = Some(ready);
        Ok(ready)
    }

    /// The code that a step's kernel runs, see [`recipe::family`].
    fn family(&self, kernel: u32) -> Option<String> {
        match &self.kernels {
            Kernels::Works(works) => recipe::family(&works[kernel as usize]),
            Kernels::Numbered => None,
        }
    }

    /// Notes which worker waits for a launch.
    fn note(&mut self, ticket: u64, owner: Option<u32>) {
        if self.owners.is_empty() {
            self.oldest = ticket;
        }
        let index = (ticket - self.oldest) as usize;
        debug_assert!(index >= self.owners.len(), "numbers ascend");
        self.owners.resize(index, None);
        self.owners.push_back(owner);
        self.waiting += usize::from(owner.is_some());
        self.forget();
    }

    /// Drops launches that no worker waits for from the front.
    fn forget(&mut self) {
        while let Some(None) = self.owners.front() {
            self.owners.pop_front();
            self.oldest += 1;
        }
    }

    /// The queue for a kernel: the worker's own, or the queue of the pool whose CUs come closest to the
    /// mask.
    fn queue_for(&mut self, launch: &Launch) -> Result<Queue, DeviceError> {
        let line = self.line(launch.worker);
        let own = line.spec.priority;
        let priority = launch.priority.unwrap_or(own);
        if launch.mask.is_none() && priority == own {
            return Ok(line.queue);
        }
        self.hop(launch.worker, launch.mask, priority)
    }

    /// A worker's queue for a mask and a priority, made at its first use.
    fn hop(
        &mut self,
        worker: u32,
        mask: Option<CuMask>,
        priority: i8,
    ) -> Result<Queue, DeviceError> {
        let line = self.line(worker);
        let same = |h: &&Hop| (h.mask, h.priority) == (mask, priority);
        if let Some(hop) = line.hops.iter().find(same) {
            return Ok(hop.queue);
        }
        let own = line.partition;
        let partition = mask.map_or(Ok(own), |mask| self.nearest(&mask))?;
        let queue = self.make_queue(partition, priority)?;
        self.line(worker).hops.push(Hop { mask, priority, queue });
        Ok(queue)
    }

    /// The partition for a mask: exactly its CUs, or else as many from the same position on as the
    /// device can cut.
    fn nearest(&mut self, mask: &CuMask) -> Result<Partition, DeviceError> {
        let (first, cus) = (mask.iter().next().unwrap_or(0), mask.count());
        let info = self.device.info();
        let (grain, all) = (info.grain.max(1), info.cus);
        let whole = Partition { index: 0, granted: all };
        if let Ok(partition) = self.device.subset(whole, mask) {
            return Ok(partition);
        }
        self.deviations.rounded += 1;
        let cus = cus.div_ceil(grain) * grain;
        let last = (all / grain * grain).saturating_sub(cus);
        if cus >= all {
            return Ok(whole);
        }
        self.device.partition((first / grain * grain).min(last), cus)
    }

    fn submit(&mut self, launch: &Launch) -> Result<(), DeviceError> {
        let own = self.device.masks_launches();
        let home = self.line(launch.worker).queue;
        let queue = if own { home } else { self.queue_for(launch)? };
        let work = self.ready(home, launch.kernel)?;
        self.fire(launch, queue, work)
    }

    fn fire(&mut self, launch: &Launch, queue: Queue, work: Prepared) -> Result<(), DeviceError> {
        let own = self.device.masks_launches();
        let line = self.line(launch.worker);
        let (hops, home) = (std::mem::replace(&mut line.last, queue) != queue, line.queue);
        self.issued.launches += 1;
        self.issued.hops += u64::from(hops);
        let launched = device::Launch {
            work,
            issued: self.clock.on_device(launch.issued),
            mask: launch.mask.filter(|_| own),
            priority: launch.priority.filter(|_| own),
            part: launch.part,
            scale: launch.scale,
            first: launch.first,
            last: launch.last,
            reported: launch.tell,
        };
        let ticket = if queue == home {
            self.device.submit(&launched)?
        } else {
            self.device.submit_on(queue, &launched)?
        };
        self.note(ticket.0, launch.tell.then_some(launch.worker));
        Ok(())
    }

    /// Makes queues for the expected masks. Every kernel of the worker runs once in each queue, so that
    /// the partition has what the kernels need.
    fn make_foreseen(&mut self, stop: &Stop) -> Result<(), DeviceError> {
        let foreseen = std::mem::take(&mut self.foreseen);
        if self.host == HostCosts::Kept || self.device.masks_launches() {
            return Ok(());
        }
        for Foreseen { worker, mask, priority } in foreseen {
            if stop.wanted() {
                return Ok(());
            }
            let Some(Some(line)) = self.lines.get(worker as usize) else { continue };
            let home = line.queue;
            let queue = self.hop(worker, Some(mask), priority)?;
            let mut kernels: Vec<Prepared> = vec![];
            let mut warm = BTreeSet::new();
            for (kernel, work) in self.prepared[home.0 as usize].iter().enumerate() {
                let again = |family| !warm.insert(family);
                if let Some(work) = work
                    && !self.family(kernel as u32).is_some_and(again)
                {
                    kernels.push(*work);
                }
            }
            for work in kernels {
                if stop.wanted() {
                    return Ok(());
                }
                let launch = device::Launch { reported: false, ..device::Launch::of(work) };
                self.device.submit_on(queue, &launch)?;
            }
            self.device.finish(queue)?;
        }
        Ok(())
    }

    fn issue(&mut self, worker: u32, most: usize) -> Result<(), DeviceError> {
        for _ in 0..most {
            let Some(due) = self.line(worker).due.pop_front() else { break };
            match due {
                Due::Kernel(launch) => self.submit(&launch)?,
                Due::Copy(direction, bytes, issued, tell) => {
                    self.copy(worker, direction, bytes, issued, tell)?;
                }
            }
        }
        Ok(())
    }
}

impl Workers for Streams<'_> {
    fn info(&self) -> &DeviceInfo {
        self.device.info()
    }

    fn start_clock(&mut self, stop: &Stop) -> RunClock {
        if self.lines.iter().any(Option::is_some) {
            // Anything that fails here fails again where it is needed, and is reported there.
            let _ = self.make_foreseen(stop);
        }
        self.before = self.device.counters();
        self.deviations.queues = 0;
        self.clock = RunClock::start(self.device.clock());
        self.clock
    }

    fn host_costs(&self) -> HostCosts {
        self.host
    }

    fn lay_out(&mut self, layout: &Layout) -> Result<(), DeviceError> {
        self.pools.clone_from(&layout.pools);
        Ok(())
    }

    fn repartition(&mut self, pool: u32, lanes: &[u32]) -> Result<(), DeviceError> {
        self.pools[pool as usize].lanes = lanes.to_vec();
        self.device.repartition(pool, lanes)
    }

    fn open(&mut self, worker: u32, spec: &WorkerSpec) -> Result<(), DeviceError> {
        let partition = self.device.place(&self.pools, spec)?;
        let queue = self.home(worker, partition, spec.priority)?;
        let (hops, due) = (vec![], VecDeque::new());
        let line = Line { partition, spec: *spec, queue, hops, last: queue, due };
        let lines = self.lines.len().max(worker as usize + 1);
        self.lines.resize_with(lines, || None);
        self.lines[worker as usize] = Some(line);
        Ok(())
    }

    fn warm(
        &mut self,
        worker: u32,
        kernels: &[u32],
        [input, output]: [Bytes; 2],
        stop: &Stop,
    ) -> Result<(), DeviceError> {
        let queue = self.line(worker).queue;
        let mut warm = BTreeSet::new();
        for &kernel in kernels {
            if stop.wanted() {
                return Ok(());
            }
            let work = self.ready(queue, kernel)?;
            // A step's kernels come in thousands of sizes, but one of each kind loads the code.
            let again = self.family(kernel).is_some_and(|family| !warm.insert(family));
            if self.host == HostCosts::Real && !again {
                self.device
                    .submit(&device::Launch { reported: false, ..device::Launch::of(work) })?;
            }
        }
        if self.host == HostCosts::Kept {
            return Ok(());
        }
        for (way, bytes) in [(Direction::In, input), (Direction::Out, output)] {
            if bytes.0 > 0 {
                self.device.copy(queue, way, bytes, Nanos::ZERO)?;
            }
        }
        self.device.finish(queue)
    }

    fn close(&mut self, _worker: u32) -> Result<(), DeviceError> {
        Ok(()) // An empty queue takes nothing from the others.
    }

    fn run(&mut self, batch: &Batch<'_>) -> Result<(), DeviceError> {
        let Batch { worker, base, .. } = *batch;
        let due = &mut self.line(worker).due;
        if batch.input.0 > 0 {
            due.push_back(Due::Copy(Direction::In, batch.input, base, false));
        }
        let (n, copies) = (batch.kernels.len(), batch.output.0 > 0);
        for (i, &kernel) in batch.kernels.iter().enumerate() {
            let end = i + 1 == n;
            due.push_back(Due::Kernel(Launch {
                worker,
                kernel,
                mask: None,
                priority: None,
                part: Part::WHOLE,
                issued: base + batch.issued_ns[i],
                scale: batch.scales[i],
                first: i == 0 && batch.first,
                last: end && batch.last,
                tell: end && !copies,
            }));
        }
        if copies {
            due.push_back(Due::Copy(Direction::Out, batch.output, base, true));
        }
        self.issue(worker, if self.host == HostCosts::Kept { usize::MAX } else { TURN })
    }

    fn copy(
        &mut self,
        worker: u32,
        direction: Direction,
        bytes: Bytes,
        issued: u64,
        tell: bool,
    ) -> Result<(), DeviceError> {
        let queue = self.line(worker).queue;
        match self.device.copy(queue, direction, bytes, self.clock.on_device(issued)) {
            Ok(ticket) => self.note(ticket.0, tell.then_some(worker)),
            Err(DeviceError::Unsupported { .. }) => {
                self.deviations.copies_left_out += 1;
                if tell {
                    self.skipped.push(worker);
                }
            }
            Err(e) => return Err(e),
        }
        Ok(())
    }

    fn launch(&mut self, launch: &Launch) -> Result<(), DeviceError> {
        self.submit(launch)
    }

    /// Kernels that the device cannot merge run one after the other, and end together.
    fn merge(&mut self, launch: &Launch, kernels: &[u32]) -> Result<(), DeviceError> {
        let queue = self.line(launch.worker).queue;
        let mut parts = std::mem::take(&mut self.parts);
        parts.clear();
        for &kernel in kernels {
            parts.push(self.ready(queue, kernel)?);
        }
        let merged = self.device.merge(queue, &parts);
        let one_by_one = matches!(merged, Err(DeviceError::Unsupported { .. }));
        if one_by_one {
            self.deviations.merges_refused += 1;
            for (i, &work) in parts.iter().enumerate() {
                let tell = i + 1 == parts.len();
                self.fire(&Launch { tell, ..*launch }, queue, work)?;
            }
        }
        self.parts = parts;
        if one_by_one { Ok(()) } else { self.fire(launch, queue, merged?) }
    }

    fn preempt(&mut self, worker: u32, how: Preemption, at: u64) -> Result<(), DeviceError> {
        let queue = self.line(worker).last;
        self.device.preempt(queue, how, self.clock.on_device(at))
    }

    fn held(&self, worker: u32) -> Option<u32> {
        let line = self.lines.get(worker as usize)?.as_ref()?;
        self.device.held(line.queue)
    }

    fn set_clock(&mut self, mhz: u32) -> Result<(), DeviceError> {
        self.device.set_clock(mhz)
    }

    fn batch(&mut self, worker: u32, began: bool) -> Result<(), DeviceError> {
        let queue = self.line(worker).queue;
        self.device.batch(queue, began)
    }

    fn poll(&mut self, ended: &mut Vec<Ended>) -> Result<(), DeviceError> {
        if self.host == HostCosts::Real {
            for worker in 0..self.lines.len() as u32 {
                if self.lines[worker as usize].as_ref().is_some_and(|l| !l.due.is_empty()) {
                    self.issue(worker, TURN)?;
                }
            }
        }
        let at = self.clock.now();
        ended.extend(self.skipped.drain(..).map(|worker| Ended { worker, at, end: End::Done }));
        // On a virtual clock, launches that no worker waits for have to complete as well.
        if self.waiting == 0 && !self.clock.is_virtual() {
            return Ok(());
        }
        loop {
            self.device.poll(&mut self.completions)?;
            let more = self.clock.is_virtual() && !self.completions.is_empty();
            for c in self.completions.drain(..) {
                let Some(index) = c.ticket.0.checked_sub(self.oldest) else { continue };
                if let Some(worker) = self.owners.get_mut(index as usize).and_then(Option::take) {
                    self.waiting -= 1;
                    let at = self.clock.in_run(c.at);
                    ended.push(Ended { worker, at, end: c.end });
                }
            }
            // On a virtual clock the device reports one end at a time, so that the answer to it comes
            // before the next end. An end that no worker waits for has no answer.
            if !more || !ended.is_empty() {
                break;
            }
        }
        self.forget();
        Ok(())
    }

    fn next_event(&mut self) -> Option<u64> {
        let next: Option<Nanos> = self.device.next_event();
        next.map(|at| self.clock.in_run(at))
    }

    fn is_idle(&self) -> bool {
        let issued = || self.lines.iter().flatten().all(|l| l.due.is_empty());
        self.waiting == 0 && self.skipped.is_empty() && issued()
    }

    fn usage(&mut self) -> Option<Usage> {
        self.device.usage()
    }

    fn drain(&mut self) -> Result<(), DeviceError> {
        self.lines.iter_mut().flatten().for_each(|l| l.due.clear());
        let mut rest = vec![];
        self.device.wait(&mut rest)
    }

    fn counters(&self) -> Vec<Count> {
        let mut counters = self.issued.counted();
        counters.extend(counted::seen(self.deviations.counted()));
        counters.extend(counted::seen(counted::since(self.device.counters(), &self.before)));
        counters
    }
}
