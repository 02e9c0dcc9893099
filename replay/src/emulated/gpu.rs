//! The emulated GPU without a clock: streams of several contexts on the simulator's own pools.
//! The caller passes the time to every call.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};

use cotenant_profiles::device::Costs;
use cotenant_profiles::{Bytes, Device as GpuDescription, Nanos};
use cotenant_sim::action::Preemption;
use cotenant_sim::contention::ContentionModel;
use cotenant_sim::layout::PoolSpec;
use cotenant_sim::metrics::Latencies;
use cotenant_sim::pool::{Ended, Job, NEVER, Pool, Taken};
use cotenant_sim::program::{Code, KernelCode};

use super::Fault;
use crate::device::{Completion, Direction, End, Ticket, Usage};
use crate::error::DeviceError;

mod contexts;
mod parts;

use parts::{Context, CopyEngines, HardwareQueues, Head, Item, Stream, What};
pub(super) use parts::{Shot, Site};

pub(super) struct Gpu {
    now: u64,
    device: GpuDescription,
    costs: Costs,
    code: Code,
    specs: Vec<PoolSpec>,
    pools: Vec<Pool>,
    memory: Vec<u64>,
    copies: Vec<CopyEngines>,
    /// By pool, if its streams share hardware queues.
    queues: Vec<Option<HardwareQueues>>,
    streams: Vec<Stream>,
    contexts: Vec<Context>,
    /// Instant, order, stream: the stream's head will have been issued or copied, or will be preempted.
    timers: BinaryHeap<Reverse<(u64, u64, u32, For)>>,
    sequence: u64,
    merged: HashMap<Vec<u32>, u32>,
    launches: u64,
    fault: Option<Fault>,
    /// How long after the host's issue time work arrived that had nothing ahead of it.
    late: Latencies,
}

/// The purpose of a stream's timer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum For {
    Head,
    Preemption,
}

impl Gpu {
    pub(super) fn new(
        device: &GpuDescription,
        costs: Costs,
        code: Code,
        pools: &[PoolSpec],
        contention: ContentionModel,
    ) -> Self {
        let engines = |p: &PoolSpec| CopyEngines { free: [0; 2], shared: p.copy_engines < 2 };
        Self {
            now: 0,
            pools: pools.iter().map(|p| Pool::new(p, device, &contention, false)).collect(),
            memory: vec![0; pools.len()],
            copies: pools.iter().map(engines).collect(),
            queues: pools.iter().map(|_| None).collect(),
            specs: pools.to_vec(),
            device: device.clone(),
            costs,
            code,
            streams: Vec::new(),
            contexts: Vec::new(),
            timers: BinaryHeap::new(),
            sequence: 0,
            merged: HashMap::new(),
            launches: 0,
            fault: None,
            late: Latencies::default(),
        }
    }

    pub(super) fn kernels(&self) -> &[KernelCode] {
        &self.code.kernels
    }

    pub(super) fn add_kernel(&mut self, kernel: KernelCode) -> u32 {
        self.code.kernels.push(kernel);
        self.code.kernels.len() as u32 - 1
    }

    pub(super) fn specs(&self) -> &[PoolSpec] {
        &self.specs
    }

    pub(super) fn set_fault(&mut self, fault: Option<Fault>) {
        self.fault = fault;
    }

    /// Makes the streams of a pool share this many hardware queues, assigned by stream number.
    pub(super) fn limit_queues(&mut self, pool: u32, hardware: u32) {
        let n = hardware as usize;
        self.queues[pool as usize] = Some(HardwareQueues {
            limit: hardware,
            extra_ns: self.device.queues.overflow.0,
            busy: vec![false; n],
            waiting: vec![VecDeque::new(); n],
        });
    }

    /// The kernel that does the work of all `parts` (sorted here).
    pub(super) fn merge(&mut self, mut parts: Vec<u32>) -> u32 {
        parts.sort_unstable();
        if let Some(&known) = self.merged.get(&parts) {
            return known;
        }
        let kernels: Vec<_> = parts.iter().map(|&k| &self.code.kernels[k as usize]).collect();
        let merged = KernelCode::merged(&kernels, &self.device, &self.costs);
        let kernel = self.add_kernel(merged);
        self.merged.insert(parts, kernel);
        kernel
    }

    pub(super) fn add_stream(&mut self, context: u32, site: Site) -> u32 {
        let (waiting, head, preempt, in_batch) = (VecDeque::new(), None, None, false);
        self.streams.push(Stream { context, site, waiting, head, preempt, in_batch });
        self.streams.len() as u32 - 1
    }

    pub(super) fn launch(
        &mut self,
        now: u64,
        stream: u32,
        ticket: Ticket,
        issued: Nanos,
        reported: bool,
        shot: Shot,
    ) -> Result<(), DeviceError> {
        let what = What::Kernel(shot);
        self.push(now, stream, Item { ticket, issued: issued.0, reported, what })
    }

    pub(super) fn copy(
        &mut self,
        now: u64,
        stream: u32,
        ticket: Ticket,
        issued: Nanos,
        direction: Direction,
        bytes: Bytes,
    ) -> Result<(), DeviceError> {
        let pcie = &self.device.pcie;
        let gbps = if direction == Direction::In { pcie.h2d_gbps } else { pcie.d2h_gbps };
        // 10^9 bytes per second are bytes per nanosecond.
        let ns = libm::ceil(bytes.0 as f64 / gbps) as u64;
        let what = What::Copy { direction, ns };
        self.push(now, stream, Item { ticket, issued: issued.0, reported: true, what })
    }

    fn push(&mut self, now: u64, stream: u32, item: Item) -> Result<(), DeviceError> {
        self.run_before(now);
        let s = &mut self.streams[stream as usize];
        let context = &mut self.contexts[s.context as usize];
        if let Some(lost) = &context.lost {
            return Err(lost.clone());
        }
        context.outstanding += 1;
        if s.head.is_none() && item.issued > 0 {
            self.late.record(Nanos(self.now.saturating_sub(item.issued)));
        }
        s.waiting.push_back(item);
        self.next_of(stream);
        Ok(())
    }

    /// The next instant at which something happens without a call.
    pub(super) fn next_event(&mut self) -> Option<u64> {
        // Settled only now: work that is submitted at the instant of an end goes before any lane
        // yields.
        self.settle();
        let pools = self.pools.iter().map(Pool::next).min().unwrap_or(NEVER);
        let timer = self.timers.peek().map_or(NEVER, |t| t.0.0);
        Some(pools.min(timer)).filter(|&t| t != NEVER)
    }

    /// Advances time to `until`, including what happens at that instant.
    pub(super) fn run_to(&mut self, until: u64) {
        while self.happens(until) {}
        self.now = self.now.max(until);
    }

    /// Advances time to `until`; what happens at that very instant is still to come.
    pub(super) fn run_before(&mut self, until: u64) {
        while until > self.now && self.happens(until - 1) {}
        self.now = self.now.max(until);
    }

    /// As [`Self::run_to`], but stops as soon as the context has something to report.
    pub(super) fn run_to_news(&mut self, until: u64, context: u32) {
        while !self.has_news(context) {
            if !self.happens(until) {
                self.now = self.now.max(until);
                return;
            }
        }
    }

    /// Processes the next event, if it is due by `until`. At equal times pools go before streams, as in
    /// the simulator.
    fn happens(&mut self, until: u64) -> bool {
        let Some(next) = self.next_event().filter(|&t| t <= until) else { return false };
        assert!(next >= self.now, "time runs forward");
        self.now = next;
        match self.pools.iter().position(|p| p.next() == next) {
            Some(pool) => match self.pools[pool].advance(next, &self.code) {
                Ended::Kernel { owner, .. } => self.kernel_ended(owner),
                Ended::Left { owner, left, .. } => self.ended(owner, End::Preempted(left)),
                Ended::Turn => {}
            },
            None => {
                let Reverse((_, _, stream, what)) =
                    self.timers.pop().expect("it is the next event");
                match what {
                    For::Head => self.timer(stream),
                    For::Preemption => self.preempt_due(stream),
                }
            }
        }
        true
    }

    fn settle(&mut self) {
        let weighed = self.pools.iter_mut().map(|pool| pool.weigh(self.now, &self.code));
        let drawn = weighed.sum();
        for pool in &mut self.pools {
            pool.settle(self.now, drawn, &self.code);
        }
    }

    fn arm(&mut self, at: u64, stream: u32) {
        self.sequence += 1;
        self.timers.push(Reverse((at, self.sequence, stream, For::Head)));
    }

    /// Preempts the kernel at the head of a stream from `at` on.
    pub(super) fn preempt(&mut self, now: u64, stream: u32, how: Preemption, at: u64) {
        self.run_before(now);
        let s = &mut self.streams[stream as usize];
        if s.kernel().is_some() {
            let at = at.max(self.now);
            s.preempt = Some((how, at));
            self.sequence += 1;
            self.timers.push(Reverse((at, self.sequence, stream, For::Preemption)));
        }
    }

    /// Changes the sizes of a pool's lanes.
    pub(super) fn repartition(&mut self, now: u64, pool: u32, lanes: &[u32]) {
        self.run_before(now);
        self.specs[pool as usize].lanes = lanes.to_vec();
        self.pools[pool as usize].repartition(lanes);
    }

    /// CUs that hold blocks of a stream's kernel.
    pub(super) fn held(&self, stream: u32) -> u32 {
        self.pools[self.streams[stream as usize].site.pool as usize].held(stream)
    }

    /// Limits the board's clock to `mhz` from now on.
    pub(super) fn set_clock(&mut self, now: u64, mhz: u32) {
        self.run_before(now);
        let share = f64::from(mhz) / self.device.clock.boost_mhz;
        self.pools.iter_mut().for_each(|pool| pool.hold_clock(share));
    }

    fn preempt_due(&mut self, stream: u32) {
        let now = self.now;
        let s = &mut self.streams[stream as usize];
        // The kernel to be preempted may have ended, and another may have taken its place.
        let Some((how, _)) = s.preempt.take_if(|(_, at)| *at == now) else { return };
        let pool = s.site.pool as usize;
        // Launches that wait behind it have not begun.
        for item in std::mem::take(&mut s.waiting) {
            self.told(stream, &item, now, End::Recalled);
        }
        match self.pools[pool].preempt(now, stream, how, &self.code) {
            Taken::Now(left) => self.ended(stream, End::Preempted(left)),
            Taken::Later | Taken::Nothing => {}
        }
    }

    /// Brings the next item of a stream to its head.
    fn next_of(&mut self, stream: u32) {
        let s = &mut self.streams[stream as usize];
        if s.head.is_some() {
            return;
        }
        let Some(item) = s.waiting.pop_front() else { return };
        let waits = item.issued > self.now;
        s.head = Some(Head { item, waits, began: self.now });
        if let What::Kernel(Shot { first: true, .. }) = item.what {
            self.batch(stream, true);
        }
        if waits {
            self.arm(item.issued, stream);
        } else {
            self.start(stream);
        }
    }

    /// The head has been issued, or its copy has ended.
    fn timer(&mut self, stream: u32) {
        let head = self.streams[stream as usize].head.as_mut().expect("a timer is the head's");
        if head.waits {
            (head.waits, head.began) = (false, self.now);
            self.start(stream);
        } else {
            self.ended(stream, End::Done);
        }
    }

    fn start(&mut self, stream: u32) {
        let s = &self.streams[stream as usize];
        let Head { item, .. } = s.head.expect("something is at the head");
        match item.what {
            What::Kernel(_) => self.through_queue(stream),
            What::Copy { direction, ns } => {
                let engines = &mut self.copies[s.site.pool as usize];
                let lane = if engines.shared { 0 } else { direction as usize };
                let done = engines.free[lane].max(self.now) + ns;
                engines.free[lane] = done;
                self.arm(done, stream);
            }
        }
    }

    fn through_queue(&mut self, stream: u32) {
        let mut extra_ns = 0;
        let pool = self.streams[stream as usize].site.pool;
        if let Some(queues) = &mut self.queues[pool as usize] {
            extra_ns = queues.extra_ns;
            let q = (stream % queues.limit) as usize;
            if queues.busy[q] {
                queues.waiting[q].push_back(stream);
                return;
            }
            queues.busy[q] = true;
        }
        self.submit(stream, extra_ns);
    }

    fn submit(&mut self, stream: u32, extra_ns: u64) {
        let s = &self.streams[stream as usize];
        let shot = s.kernel().expect("kernels alone go through queues");
        let Site { pool, lane, mask, cap } = s.site;
        let pool = &mut self.pools[pool as usize];
        let job = Job {
            owner: stream,
            tenant: 0,
            kernel: shot.kernel,
            lane,
            cap,
            priority: shot.priority,
            scale: shot.scale,
            extra_ns: extra_ns + shot.part.extra,
            part: shot.part.share,
            saved: shot.part.saved,
        };
        pool.submit(self.now, job, shot.mask.or(mask).as_ref(), &self.code);
    }

    fn kernel_ended(&mut self, stream: u32) {
        let pool = self.streams[stream as usize].site.pool;
        if let Some(queues) = &mut self.queues[pool as usize] {
            let q = (stream % queues.limit) as usize;
            match queues.waiting[q].pop_front() {
                Some(next) => {
                    let extra_ns = queues.extra_ns;
                    self.submit(next, extra_ns);
                }
                None => queues.busy[q] = false,
            }
        }
        self.launches += 1;
        if self.fault.is_some_and(|f| f.launch == self.launches) {
            self.fail(stream);
        }
        self.ended(stream, End::Done);
    }

    /// Reports to a context that a launch or copy has left its stream.
    fn told(&mut self, stream: u32, item: &Item, began: u64, end: End) {
        let context = &mut self.contexts[self.streams[stream as usize].context as usize];
        context.outstanding -= 1;
        if item.reported && !context.closed && context.lost.is_none() {
            let (duration, at) = (Nanos(self.now - began), Nanos(self.now));
            context.ended.push(Completion { ticket: item.ticket, duration, at, end });
        }
    }

    /// The head of a stream has ended, or been preempted.
    fn ended(&mut self, stream: u32, end: End) {
        let s = &mut self.streams[stream as usize];
        // A preemption applies to everything that was launched before it took effect.
        if s.waiting.is_empty() {
            s.preempt = None;
        }
        let Head { item, began, .. } = s.head.take().expect("what ends was at the head");
        self.told(stream, &item, began, end);
        if matches!(item.what, What::Kernel(Shot { last: true, .. })) {
            self.batch(stream, false);
        }
        self.next_of(stream);
        let s = &self.streams[stream as usize];
        let context = &self.contexts[s.context as usize];
        if s.head.is_none() && (context.closed || context.lost.is_some()) {
            self.batch(stream, false);
        }
    }

    /// Marks the start or end of a batch on a stream, unless that has already been done.
    pub(super) fn batch(&mut self, stream: u32, began: bool) {
        let s = &mut self.streams[stream as usize];
        if std::mem::replace(&mut s.in_batch, began) != began {
            let Site { pool, lane, .. } = s.site;
            self.pools[pool as usize].batch(lane, began);
        }
    }

    pub(super) fn late(&self) -> &Latencies {
        &self.late
    }

    /// What all pools have done so far.
    pub(super) fn usage(&self) -> Usage {
        let totals = self.pools.iter().map(|p| p.totals(self.now));
        totals.fold(Usage::default(), |sum, t| sum + t)
    }

    /// CUs in use now.
    #[cfg(test)]
    pub(super) fn busy(&self) -> u32 {
        self.pools.iter().map(Pool::busy).sum()
    }
}

#[cfg(test)]
#[path = "gpu_tests.rs"]
mod tests;
