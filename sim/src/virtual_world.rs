//! The simulated world: the GPU's model on an event queue.
//!
//! Two sources of events, neither of which holds outdated entries: a heap of alarms (the host's, and what copy engines and
//! launches on their way wait for) and one next instant per pool. At equal instants pools go first,
//! then the GPU's alarms, then the host's, each in the order in which they were set.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use cotenant_profiles::device::Pcie;
use cotenant_profiles::{Bytes, Nanos};
use cotenant_traces::rng::mix;

use crate::action::Preemption;
use crate::contention::ContentionModel;
use crate::host::{Alarm, Direction, Launch, Pass, Programs, Signal, Step, Timers, World};
use crate::layout::{Layout, WorkerSpec};
use crate::observe::{Happening, Observer};
use crate::policy::Depth;
use crate::pool::{Ended, NEVER, Note, Totals, Used};
use crate::program::{Code, KernelCode};
use crate::scenario::{Jitter, Setup};

mod site;
mod skip;
mod streams;
mod track;

use site::Site;
use skip::{At, Tracks, weight};
use streams::{Parcel, Stream};

/// What the digest calls a kernel's end and the end of a turn; see [`Alarm`] for the others.
const KERNEL_ENDED: u32 = 12;
const TURN_ENDED: u32 = 13;

/// A simulated GPU in virtual time.
pub struct VirtualWorld<'a> {
    setup: Arc<Setup>,
    pcie: Pcie,
    /// The setup's kernels, and behind them the merged ones met so far.
    code: Arc<Code>,
    /// Which kernel a sorted list of kernels merges into.
    merged: HashMap<Vec<u32>, u32>,
    /// The kernels of the merge at hand, sorted.
    parts: Vec<u32>,
    programs: Programs,
    jitter: Option<Box<dyn Jitter>>,
    observer: Option<&'a mut dyn Observer>,
    /// It wants what happens on the GPU.
    observed: bool,
    sites: Vec<Site>,
    streams: Vec<Stream>,
    parcels: Vec<Parcel>,
    /// By stream: launches that wait for those before them.
    behind: Vec<VecDeque<Launch<'static>>>,
    /// Streams opened so far.
    opened_streams: u32,
    timers: Timers,
    now: u64,
    end: u64,
    /// Nothing from this instant on is done for now, and where time stands meanwhile.
    limit: u64,
    pause: u64,
    /// Totals when the window opened.
    opened: Totals,
    /// And what each tenant had used.
    opened_by: Vec<Used>,
    events: u64,
    digest: u64,
    /// What the ends of kernels and the issues of launches add to it.
    instants: u64,
    /// Events that cannot matter may be skipped, and how many have been.
    skips: bool,
    skipped: u64,
    tracks: Tracks,
    at: At,
    /// The pool in which somebody may have come to be alone, if any.
    joins: u32,
}

/// No pool.
const NONE: u32 = u32::MAX;

impl<'a> VirtualWorld<'a> {
    /// An idle GPU, divided as `layout` says, for a policy of that depth. Time ends at `end`.
    #[must_use]
    pub fn new(
        setup: &Arc<Setup>,
        layout: &Layout,
        depth: Depth,
        contention: &ContentionModel,
        jitter: Option<Box<dyn Jitter>>,
        observer: Option<&'a mut dyn Observer>,
        end: Nanos,
    ) -> Self {
        let observed = observer.as_ref().is_some_and(|o| o.watches_gpu());
        let skips = !observed && jitter.is_none();
        let site = |p| Site::new(p, &setup.device, contention, observed);
        let mut sites: Vec<_> = layout.pools.iter().map(site).collect();
        for pool in layout.shared_queues(depth, setup.device.queues.hardware) {
            sites[pool as usize].share_queues(&setup.device.queues);
        }
        Self {
            pcie: setup.device.pcie.clone(),
            code: setup.code.clone(),
            merged: HashMap::new(),
            parts: vec![],
            programs: Programs::new(setup),
            jitter,
            observer,
            observed,
            sites,
            streams: vec![],
            parcels: vec![],
            behind: vec![],
            opened_streams: 0,
            timers: Timers::default(),
            now: 0,
            end: end.0,
            limit: end.0,
            pause: end.0,
            opened: Totals::default(),
            opened_by: vec![],
            events: 0,
            digest: 0,
            instants: 0,
            skips,
            skipped: 0,
            tracks: Tracks::default(),
            at: At::Host,
            joins: NONE,
            setup: Arc::clone(setup),
        }
    }

    /// The same, from that instant on: nothing was there before.
    #[must_use]
    pub fn starting_at(mut self, start: Nanos) -> Self {
        self.now = start.0;
        self
    }

    /// [`World::next`] goes up to and with this instant, which lies before the end, and time stands
    /// there until the next call; [`Self::go_on`] takes that back.
    pub fn pause_at(&mut self, at: Nanos) {
        self.limit = self.end.min(at.0 + 1);
        self.pause = at.0;
    }

    /// Time goes on to its end.
    pub fn go_on(&mut self) {
        (self.limit, self.pause) = (self.end, self.end);
    }

    /// Events that have been counted without a stop at them.
    #[must_use]
    pub fn skipped(&self) -> u64 {
        self.skipped
    }

    /// When something happens next; [`u64::MAX`]: never.
    pub fn next_at(&mut self) -> u64 {
        let (pools, _) = self.settle();
        pools.min(self.timers.next())
    }

    /// Into the digest: something of this kind happened now, to this index.
    #[inline]
    fn note(&mut self, kind: u32, index: u32) {
        if kind == KERNEL_ENDED || kind == Alarm::Issued as u32 {
            // Of these there are many, one worker's in order: a sum tells their instants.
            let instant = weight(kind, index).wrapping_mul(self.now);
            self.instants = self.instants.wrapping_add(instant);
            return;
        }
        let word = self.now ^ u64::from(kind) << 56 ^ u64::from(index) << 32;
        self.digest = (self.digest ^ word).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(29);
    }

    /// Whoever has come to be alone in a pool goes on without a stop at each kernel: whether somebody does.
    #[inline]
    fn join(&mut self) -> bool {
        let p = std::mem::replace(&mut self.joins, NONE);
        self.skips && self.join_stretch(p as usize)
    }

    /// Brings the pools up to date after what happened at this instant: when something happens next
    /// in one of them, and in which.
    #[inline]
    fn settle(&mut self) -> (u64, usize) {
        if let ([site], false) = (self.sites.as_mut_slice(), self.observed)
            && site.stretch.is_none()
        {
            // The common case, without the loops.
            let drawn = site.pool.weigh(self.now, &self.code);
            site.pool.settle(self.now, drawn, &self.code);
            return (site.pool.next(), 0);
        }
        let mut drawn = self.weigh();
        if self.sites.len() > 1 {
            drawn = self.weigh_again(drawn);
        }
        let (mut at, mut pool) = (NEVER, 0);
        for (i, site) in self.sites.iter_mut().enumerate() {
            if site.stretch.is_none() {
                site.pool.settle(self.now, drawn, &self.code);
            }
            if site.next() < at {
                (at, pool) = (site.next(), i);
            }
        }
        if self.observed {
            self.drain_notes();
        }
        (at, pool)
    }

    /// What the pools draw at the boost clock, mW: at most, where stretches are.
    #[inline]
    fn weigh(&mut self) -> u64 {
        let mut drawn = 0;
        for site in &mut self.sites {
            drawn += match &site.stretch {
                Some(stretch) => stretch.peak,
                None => site.pool.weigh(self.now, &self.code),
            };
        }
        drawn
    }

    /// The same, without stretches if the board might not have the power for them.
    fn weigh_again(&mut self, drawn: u64) -> u64 {
        let stretches = self.sites.iter().any(|site| site.stretch.is_some());
        if !stretches || self.sites[0].pool.boosts(drawn) {
            return drawn;
        }
        self.touch_all();
        self.weigh()
    }

    /// Tells the observer how grants have changed.
    #[cold]
    fn drain_notes(&mut self) {
        let Self { sites, observer: Some(observer), now, .. } = self else { return };
        for (p, site) in sites.iter_mut().enumerate() {
            let (pool, now, busy) = (p as u32, Nanos(*now), site.pool.busy());
            let notes = site.pool.notes();
            if notes.is_empty() && site.told == Some(busy) {
                continue;
            }
            site.told = Some(busy);
            for note in notes.drain(..) {
                let what = match note {
                    Note::Granted { owner, kernel, cus } => {
                        Happening::Granted { worker: owner, kernel, cus }
                    }
                    Note::Switching { lane } => Happening::Switching { pool, lane },
                };
                observer.happened(now, what);
            }
            observer.happened(now, Happening::Busy { pool, cus: busy });
        }
    }

    #[inline(always)]
    fn pool_event(&mut self, p: usize) -> Option<Signal> {
        if self.sites[p].stretch.is_some() {
            return self.stretch_ended(p);
        }
        self.joins = p as u32;
        self.events += 1;
        let ended = self.sites[p].pool.advance(self.now, &self.code);
        let Ended::Kernel { owner, kernel } = ended else {
            self.note(TURN_ENDED, p as u32);
            return match ended {
                Ended::Left { owner, left, .. } => Some(Signal::Preempted(owner, left)),
                _ => None,
            };
        };
        self.note(KERNEL_ENDED, owner);
        if self.observed {
            self.observe(match self.streams[owner as usize].slice {
                true => Happening::Granted { worker: owner, kernel, cus: 0 },
                false => Happening::KernelEnded { worker: owner, kernel },
            });
        }
        let queue = self.streams[owner as usize].number;
        self.sites[p].ended(self.now, queue, &self.code);
        self.kernel_ended(owner)
    }

    fn alarm(&mut self) -> Option<Signal> {
        let (alarm, index) = self.timers.first();
        self.note(alarm as u32, index);
        self.at = match alarm {
            Alarm::CopiedIn | Alarm::CopiedOut | Alarm::Placed | Alarm::Preempt => {
                At::Gpu(self.parcels[index as usize].armed_for(alarm))
            }
            Alarm::Issued if !self.streams[index as usize].asked => {
                At::Gpu(self.parcels[index as usize].armed)
            }
            _ => At::Host,
        };
        if alarm != Alarm::Arrival {
            self.timers.pop();
        }
        match alarm {
            Alarm::CopiedOut => Some(Signal::Ended(index)),
            Alarm::CopiedIn if self.streams[index as usize].asked => Some(Signal::Ended(index)),
            Alarm::CopiedIn => {
                self.copied_in(index);
                None
            }
            Alarm::Issued if !self.streams[index as usize].asked => {
                self.go(index);
                None
            }
            Alarm::Placed => {
                self.placed(index);
                None
            }
            Alarm::Preempt => self.preempt_due(index),
            _ => Some(Signal::Alarm(alarm, index)),
        }
    }

    fn by_tenant(&self) -> Vec<Used> {
        let mut sum: Vec<Used> = vec![];
        for used in self.sites.iter().map(|site| site.pool.used(self.now)) {
            sum.resize(sum.len().max(used.len()), Used::default());
            sum.iter_mut().zip(used).for_each(|(sum, used)| *sum = *sum + used);
        }
        sum
    }

    fn totals(&self) -> Totals {
        self.sites.iter().fold(Totals::default(), |sum, site| sum + site.pool.totals(self.now))
    }

    #[cold]
    fn new_merged(&mut self) -> u32 {
        let kernels: Vec<_> = self.parts.iter().map(|&k| &self.code.kernels[k as usize]).collect();
        let merged = KernelCode::merged(&kernels, &self.setup.device, &self.setup.costs);
        Arc::make_mut(&mut self.code).kernels.push(merged);
        let kernel = self.code.kernels.len() as u32 - 1;
        self.merged.insert(self.parts.clone(), kernel);
        kernel
    }
}

impl World for VirtualWorld<'_> {
    #[inline(always)]
    fn now(&self) -> u64 {
        self.now
    }

    #[inline(always)]
    fn due(&self) -> u64 {
        self.now
    }

    #[inline(always)]
    fn next(&mut self) -> Option<Signal> {
        loop {
            let (at, pool) = self.settle();
            if self.joins != NONE && self.join() {
                continue;
            }
            let timer = self.timers.next();
            let next = at.min(timer);
            if next >= self.limit {
                (self.now, self.at) = (self.pause, At::Host);
                return None;
            }
            assert!(next >= self.now, "time runs forward");
            self.now = next;
            let signal = if at <= timer {
                if self.leaves_stretch(pool) {
                    continue;
                }
                self.at = At::Pool(pool as u32);
                self.pool_event(pool)
            } else {
                self.events += 1;
                self.alarm()
            };
            if signal.is_some() {
                return signal;
            }
        }
    }

    #[inline]
    fn arm(&mut self, at: u64, alarm: Alarm, index: u32) {
        self.timers.arm(at, alarm, index);
    }

    #[inline]
    fn next_arrival(&mut self, at: Option<u64>, tenant: u32) {
        self.timers.replace_first(at, Alarm::Arrival, tenant);
    }

    #[inline(always)]
    fn charged(&self, ns: u64) -> u64 {
        ns
    }

    fn lay_out(&mut self, _: &Layout) {}

    fn repartition(&mut self, pool: u32, lanes: &[u32]) {
        self.touch(pool as usize);
        self.sites[pool as usize].repartition(lanes);
    }

    fn open(&mut self, worker: u32, spec: &WorkerSpec) {
        let number = self.opened_streams;
        self.opened_streams += 1;
        let stream = Stream::new(spec, number);
        let streams = self.streams.len().max(worker as usize + 1);
        self.streams.resize(streams, stream);
        self.parcels.resize(streams, Parcel::default());
        self.behind.resize_with(streams, VecDeque::new);
        self.streams[worker as usize] = stream;
        self.tracks.open(worker);
    }

    fn open_shadow(&mut self, _: u32, _: &WorkerSpec, _: Bytes) {}

    fn close(&mut self, _: u32) {}

    fn load(&mut self, worker: u32, steps: &[Step]) {
        self.programs.load(worker, steps);
    }

    fn run(&mut self, pass: &Pass) {
        self.begin_pass(pass);
    }

    fn issue(&mut self, worker: u32, position: u32) {
        self.issued(worker, position);
    }

    fn copy(&mut self, worker: u32, direction: Direction, bytes: Bytes, _: u64) -> bool {
        self.streams[worker as usize].asked = true;
        self.begin_copy(worker, direction, bytes)
    }

    #[inline]
    fn launch(&mut self, launch: &Launch<'_>) {
        if launch.behind {
            return self.queue_up(launch);
        }
        self.place(launch, launch.kernel);
    }

    fn merge(&mut self, launch: &Launch<'_>, kernels: &[u32]) {
        self.parts.clear();
        self.parts.extend_from_slice(kernels);
        self.parts.sort_unstable();
        let kernel = match self.merged.get(self.parts.as_slice()) {
            Some(&kernel) => kernel,
            None => self.new_merged(),
        };
        self.place(launch, kernel);
    }

    fn preempt(&mut self, worker: u32, how: Preemption, at: u64) {
        self.parcels[worker as usize].preempt = Some((how, at));
        self.parcels[worker as usize].ordered = self.armed_now();
        self.timers.arm_gpu(at, Alarm::Preempt, worker);
    }

    fn spare(&mut self, worker: u32) {
        self.parcels[worker as usize].preempt = None;
    }

    fn batch(&mut self, worker: u32, began: bool) {
        self.streams[worker as usize].asked = true;
        self.mark_batch(worker, began);
    }

    fn set_clock(&mut self, mhz: u32) {
        self.touch_all();
        let share = f64::from(mhz) / self.setup.device.clock.boost_mhz;
        for site in &mut self.sites {
            site.pool.hold_clock(share);
        }
    }

    fn held(&self, worker: u32) -> Option<u32> {
        let pool = self.streams.get(worker as usize)?.pool;
        Some(self.held_in_stretch(worker).unwrap_or_else(|| {
            let site = &self.sites[pool as usize];
            site.pool.held(worker)
        }))
    }

    fn catch_up(&mut self) {
        if self.now >= self.end {
            // Of the end's instant nothing has happened.
            self.at = At::Pool(0);
        }
        self.touch_all();
    }

    fn open_window(&mut self) {
        self.touch_all();
        self.opened = self.totals();
        self.opened_by = self.by_tenant();
    }

    fn used(&self) -> Option<Totals> {
        Some(self.totals() - self.opened)
    }

    fn used_by_tenant(&self) -> Vec<Used> {
        let opened = self.opened_by.iter().copied().chain(std::iter::repeat(Used::default()));
        self.by_tenant().into_iter().zip(opened).map(|(now, then)| now - then).collect()
    }

    fn events(&self) -> u64 {
        self.events
    }

    fn digest(&self) -> u64 {
        mix(self.digest ^ mix(self.instants) ^ self.events)
    }

    #[inline]
    fn observe(&mut self, what: Happening) {
        if let Some(observer) = &mut self.observer {
            observer.happened(Nanos(self.now), what);
        }
    }
}
