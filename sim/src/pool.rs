//! The device model of one pool: which kernels hold which CUs, how fast each progresses, when the
//! next one ends.
//!
//! Between two events every running kernel progresses at a constant rate. An event changes grants
//! (CUs) or slow-downs (contention); a kernel is re-rated only if its own grant or slow-down changed,
//! so its remaining time is computed from the same numbers in whatever order events are looked at.
//! Floating point lives here alone: `rem` and `slow`. Time, CUs and bandwidth demands are integers.

use std::collections::VecDeque;

use cotenant_profiles::device::DispatchRule;
use cotenant_profiles::{Device, Nanos};

use crate::contention::{ContentionModel, Demand, Shared};
use crate::ends::Ends;
use crate::layout::{Discipline, PoolSpec};
use crate::mask::CuMask;
use crate::program::{Code, KernelCode};

/// No event.
pub(crate) const NEVER: u64 = u64::MAX;

/// Of a job that may use any CU of its lane.
pub(crate) const UNMASKED: u32 = u32::MAX;

/// A kernel on its way to the CUs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Job {
    /// Whose completion it is.
    pub(crate) owner: u32,
    pub(crate) kernel: u32,
    pub(crate) lane: u32,
    /// Most CUs it may use.
    pub(crate) cap: u32,
    pub(crate) priority: i8,
    /// Its entry in the pool's masks, or [`UNMASKED`].
    pub(crate) mask: u32,
    /// Multiplies its duration; exactly 1 leaves the profile's integer untouched.
    pub(crate) scale: f64,
    /// Added to its duration.
    pub(crate) extra_ns: u64,
}

#[derive(Clone, Debug)]
struct Resident {
    job: Job,
    /// Order of submission: earlier goes first.
    seq: u64,
    /// CUs whose blocks can be used at once, at most the cap.
    limit: u32,
    /// CUs that determine its duration; 0 while it waits.
    grant: u32,
    /// CUs it occupies (more than `grant` where groups are unevenly filled).
    used: u32,
    /// The grant at which `rem` is counted; 0 before the first.
    basis: u32,
    /// When `rem` was last brought up to date.
    anchor: u64,
    /// Undisturbed time left at `basis` CUs, ns.
    rem: f64,
    /// Slow-down by contention, at least 1.
    slow: f64,
    demand: Demand,
}

/// Which CUs a job may use and which it occupies; kept beside the residents, because few have one.
#[derive(Clone, Copy, Debug)]
struct Place {
    allowed: CuMask,
    used: CuMask,
}

#[derive(Debug, Default)]
struct Places {
    list: Vec<Place>,
    free: Vec<u32>,
}

impl Places {
    fn add(&mut self, allowed: CuMask) -> u32 {
        let place = Place { allowed, used: CuMask::EMPTY };
        match self.free.pop() {
            Some(i) => {
                self.list[i as usize] = place;
                i
            }
            None => {
                self.list.push(place);
                self.list.len() as u32 - 1
            }
        }
    }
}

#[derive(Clone, Debug, Default)]
struct Lane {
    capacity: u32,
    free: u32,
    wait: VecDeque<(u64, Job)>,
    /// Preempted residents of a context that is not on the GPU.
    parked: Vec<Resident>,
    /// Sequence number of the one resident that wants more CUs than were left.
    under: Option<u64>,
    /// Priorities, masks or fair sharing: grants are recomputed from scratch at every change.
    general: bool,
    masked: bool,
    /// Of every kernel so far, in a lane that is not general.
    priority: Option<i8>,
    /// Batches begun and not ended.
    open: u32,
}

impl Lane {
    fn pending(&self) -> bool {
        !self.wait.is_empty() || !self.parked.is_empty()
    }
}

/// A change of grant, for observers.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Note {
    Granted { owner: u32, kernel: u32, cus: u32 },
    Switching { lane: u32 },
}

/// What [`Pool::advance`] came upon.
pub(crate) enum Ended {
    Kernel { owner: u32, kernel: u32 },
    Turn,
}

#[derive(Debug)]
pub(crate) struct Pool {
    discipline: Discipline,
    groups: Vec<u32>,
    rule: DispatchRule,
    shared: Shared,
    /// Extra time of a kernel that starts beside others, ns: per co-runner, itself included, and
    /// constant (`igniter`).
    launch_delay: [f64; 2],
    lanes: Vec<Lane>,
    run: Vec<Resident>,
    /// When each of them ends.
    ends: Ends,
    /// Who of them ends first, as of the last settling.
    first: usize,
    /// The place in `run` of a resident that has just ended.
    hole: Option<usize>,
    places: Places,
    seq: u64,
    /// Sums over residents with a grant.
    demand: u64,
    footprint: u64,
    granted: usize,
    stressed: bool,
    active: usize,
    turn_start: u64,
    slice_end: u64,
    switch_end: u64,
    /// The active context has ended its batch at this instant: under run-to-completion its turn
    /// ends, whatever it begins next.
    turn_over: bool,
    /// Lanes other than the active one with work.
    dirty: bool,
    pub(crate) next: u64,
    busy: u32,
    busy_since: u64,
    busy_cu_ns: u64,
    dram_bytes: f64,
    pub(crate) switches: u64,
    scratch: Scratch,
    pub(crate) notes: Option<Vec<Note>>,
}

#[derive(Debug, Default)]
struct Scratch {
    order: Vec<u32>,
    demands: Vec<Demand>,
    slow: Vec<f64>,
}

impl Pool {
    pub(crate) fn new(
        spec: &PoolSpec,
        device: &Device,
        model: &ContentionModel,
        observed: bool,
    ) -> Self {
        let lanes =
            spec.lanes.iter().map(|&capacity| Lane { capacity, free: capacity, ..Lane::default() });
        let share = spec.cus as f64 / f64::from(device.cus());
        Self {
            discipline: spec.discipline,
            groups: device.topology.groups.clone(),
            rule: device.dispatch.rule,
            launch_delay: match model {
                ContentionModel::Igniter { sched_ns, .. } => *sched_ns,
                _ => [0.0; 2],
            },
            shared: Shared {
                dram: spec.dram_bytes_per_us,
                l2_rate: (device.memory.l2_gbps * 1000.0 * share).max(1.0) as u64,
                l2: spec.l2.0,
                power: [device.power.idle_w * share, device.power.cu_w, device.power.cap_w * share],
                pj_per_byte: device.power.dram_pj_per_byte,
                mhz: device.clock.boost_mhz,
            },
            lanes: lanes.collect(),
            run: Vec::with_capacity(64),
            ends: Ends::default(),
            first: 0,
            hole: None,
            places: Places::default(),
            seq: 0,
            demand: 0,
            footprint: 0,
            granted: 0,
            stressed: false,
            active: 0,
            turn_start: 0,
            slice_end: NEVER,
            switch_end: NEVER,
            turn_over: false,
            dirty: false,
            next: NEVER,
            busy: 0,
            busy_since: 0,
            busy_cu_ns: 0,
            dram_bytes: 0.0,
            switches: 0,
            scratch: Scratch::default(),
            notes: observed.then(Vec::new),
        }
    }

    /// Grants in this lane are decided afresh at every change from now on.
    #[cold]
    fn make_general(&mut self, now: u64, lane: u32, code: &Code) {
        let l = &mut self.lanes[lane as usize];
        l.general = true;
        l.under = None;
        if !self.sliced() || self.active == lane as usize && self.switch_end == NEVER {
            let waiting = std::mem::take(&mut self.lanes[lane as usize].wait);
            for (seq, job) in waiting {
                self.place(now, seq, job, code);
            }
        }
    }

    /// CU-nanoseconds in use until `now`, and bytes moved by the kernels that ended.
    pub(crate) fn totals(&self, now: u64) -> (u64, f64) {
        (self.busy_cu_ns + u64::from(self.busy) * (now - self.busy_since), self.dram_bytes)
    }

    pub(crate) fn busy(&self) -> u32 {
        self.busy
    }

    fn sliced(&self) -> bool {
        matches!(self.discipline, Discipline::TimeSliced { .. })
    }

    /// A kernel is ready: its blocks compete from now on.
    #[inline]
    pub(crate) fn submit(&mut self, now: u64, job: Job, code: &Code) {
        self.seq += 1;
        let seq = self.seq;
        let l = job.lane as usize;
        let kernel = &code.kernels[job.kernel as usize];
        let (masked, sliced) = (job.mask != UNMASKED, self.sliced());
        let lane = &mut self.lanes[l];
        let settled_in = lane.general && lane.masked;
        let ranked = *lane.priority.get_or_insert(job.priority) != job.priority;
        if (kernel.fair || masked || ranked) && !lane.general {
            self.make_general(now, job.lane, code);
        }
        if masked && !self.lanes[l].masked {
            self.lanes[l].masked = true;
            self.name_cus(l);
        }
        let lane = &mut self.lanes[l];
        if !lane.general && (lane.free == 0 || !lane.wait.is_empty()) && !sliced {
            // Nothing changes for those who run.
            lane.wait.push_back((seq, job));
            return;
        }
        self.dirty = true;
        if sliced && (self.active != l || self.switch_end != NEVER) {
            self.lanes[l].wait.push_back((seq, job));
            return;
        }
        let lane = &mut self.lanes[l];
        if !lane.general && (lane.free == 0 || !lane.wait.is_empty()) {
            lane.wait.push_back((seq, job));
            return;
        }
        self.place(now, seq, job, code);
        if self.lanes[l].general && !(settled_in && self.join_masked(now, l, code)) {
            self.regrant(now, l, code);
        }
    }

    /// Puts a job among the residents, with what is free if the lane is a plain one.
    #[inline]
    fn place(&mut self, now: u64, seq: u64, job: Job, code: &Code) {
        let kernel = &code.kernels[job.kernel as usize];
        let mut job = job;
        if self.lanes[job.lane as usize].masked && job.mask == UNMASKED {
            job.mask = self.places.add(CuMask::first(self.lanes[job.lane as usize].capacity));
        }
        let lane = &mut self.lanes[job.lane as usize];
        let limit = kernel.want.min(job.cap).min(lane.capacity);
        let mut r = Resident {
            job,
            seq,
            limit,
            grant: 0,
            used: 0,
            basis: 0,
            anchor: now,
            rem: 0.0,
            slow: 1.0,
            demand: Demand::default(),
        };
        let mut finish = NEVER;
        if !lane.general {
            let grant = limit.min(lane.free);
            assert!(grant > 0, "a plain lane places what it has a CU for");
            lane.free -= grant;
            if grant < limit {
                assert!(lane.under.is_none(), "only the last one in is left short");
                lane.under = Some(seq);
            }
            (r.grant, r.used) = (grant, grant);
            finish = now + r.start(kernel, self.launch_delay, self.granted);
            r.demand = demand_of(kernel, grant, &self.shared);
            self.granted += 1;
            self.demand += r.demand.dram;
            self.footprint += r.demand.footprint;
            self.occupy(now, self.busy + grant);
            if let Some(notes) = &mut self.notes {
                notes.push(Note::Granted { owner: job.owner, kernel: job.kernel, cus: grant });
            }
        }
        match self.hole.take() {
            Some(i) => {
                self.run[i] = r;
                self.ends.set(i, finish);
            }
            None => {
                self.run.push(r);
                self.ends.push(finish);
            }
        }
    }

    /// The earliest event of the pool, which is at `now`.
    #[inline]
    pub(crate) fn advance(&mut self, now: u64, code: &Code) -> Ended {
        debug_assert!(self.next == now);
        self.dirty = true;
        if self.switch_end == now {
            self.activate(now, code);
            return Ended::Turn;
        }
        let i = self.first;
        if i < self.run.len() && self.ends.get(i) <= now {
            let Job { owner, kernel, .. } = self.run[i].job;
            self.release(now, i, code);
            return Ended::Kernel { owner, kernel };
        }
        assert!(self.slice_end == now, "the pool's next event is a kernel's or a turn's end");
        let to = self.next_lane().expect("a slice ends only while others wait");
        self.switch_to(now, to, self.run.is_empty(), code);
        Ended::Turn
    }

    /// Resident `i` has ended: its CUs go to whom they are due.
    #[inline]
    fn release(&mut self, now: u64, i: usize, code: &Code) {
        let r = &self.run[i];
        let (l, seq, used, mask) = (r.job.lane as usize, r.seq, r.used, r.job.mask);
        let kernel = &code.kernels[r.job.kernel as usize];
        let (bytes, fair) = (kernel.dram_bytes, kernel.fair);
        self.dram_bytes += float(bytes) * r.job.scale;
        self.granted -= 1;
        self.demand -= r.demand.dram;
        self.footprint -= r.demand.footprint;
        self.occupy(now, self.busy - used);
        if mask != UNMASKED {
            self.places.free.push(mask);
        }
        let lane = &mut self.lanes[l];
        lane.free += used;
        assert!(lane.free <= lane.capacity, "a lane has no more CUs than it has");
        if lane.general {
            self.remove(i);
            if fair || !self.leave_masked(l, mask, code) {
                self.regrant(now, l, code);
            }
        } else {
            if lane.under == Some(seq) {
                lane.under = None;
            }
            // Most often the next one takes its place at once.
            self.hole = Some(i);
            self.fill(now, l, code);
            if let Some(i) = self.hole.take() {
                self.remove(i);
            }
        }
    }

    fn remove(&mut self, i: usize) {
        self.run.swap_remove(i);
        self.ends.swap_remove(i);
    }

    /// Hands free CUs of a plain lane out in order: first to the resident left short, then to those
    /// who wait.
    #[inline]
    fn fill(&mut self, now: u64, l: usize, code: &Code) {
        if let Some(seq) = self.lanes[l].under {
            let i = self.run.iter().position(|r| r.seq == seq).expect("it is resident");
            let lane = &mut self.lanes[l];
            let r = &self.run[i];
            let more = (r.limit - r.grant).min(lane.free);
            lane.free -= more;
            if r.grant + more == r.limit {
                lane.under = None;
            }
            let grant = r.grant + more;
            self.set_grant(now, i, grant, grant, code);
        }
        while self.lanes[l].free > 0 {
            let Some((seq, job)) = self.lanes[l].wait.pop_front() else { break };
            self.place(now, seq, job, code);
        }
    }

    #[inline]
    fn occupy(&mut self, now: u64, busy: u32) {
        self.busy_cu_ns += u64::from(self.busy) * (now - self.busy_since);
        self.busy_since = now;
        self.busy = busy;
    }

    /// Gives resident `i` another grant; `used` CUs are occupied by it.
    #[inline]
    fn set_grant(&mut self, now: u64, i: usize, grant: u32, used: u32, code: &Code) {
        let r = &mut self.run[i];
        let before = r.used;
        r.used = used;
        if grant != r.grant {
            let kernel = &code.kernels[r.job.kernel as usize];
            if r.grant > 0 {
                r.age(now);
                self.granted -= 1;
                self.demand -= r.demand.dram;
                self.footprint -= r.demand.footprint;
            }
            r.anchor = now;
            r.grant = grant;
            let mut finish = NEVER;
            if grant > 0 {
                if r.basis == 0 {
                    finish = now + r.start(kernel, self.launch_delay, self.granted);
                } else {
                    r.rebase(kernel);
                    finish = r.finish();
                }
                r.demand = demand_of(kernel, grant, &self.shared);
                self.granted += 1;
                self.demand += r.demand.dram;
                self.footprint += r.demand.footprint;
            } else {
                // It starts undisturbed when it comes back: the next settling looks at it again.
                r.slow = 1.0;
            }
            self.ends.set(i, finish);
            if let Some(notes) = &mut self.notes {
                notes.push(Note::Granted { owner: r.job.owner, kernel: r.job.kernel, cus: grant });
            }
        }
        self.occupy(now, self.busy - before + used);
    }

    /// Decides the grants of a general lane from scratch.
    fn regrant(&mut self, now: u64, l: usize, code: &Code) {
        let mut order = std::mem::take(&mut self.scratch.order);
        order.clear();
        order.extend(
            (0..self.run.len() as u32).filter(|&i| self.run[i as usize].job.lane as usize == l),
        );
        order.sort_unstable_by_key(|&i| {
            let r = &self.run[i as usize];
            (std::cmp::Reverse(r.job.priority), r.seq)
        });
        let fair =
            order.iter().any(|&i| code.kernels[self.run[i as usize].job.kernel as usize].fair);
        if fair {
            self.share_fairly(now, l, &order, code);
        } else if self.lanes[l].masked {
            self.leave_over_masked(now, l, &order, code);
        } else {
            self.leave_over(now, l, &order, code);
        }
        self.scratch.order = order;
    }

    /// Earlier and higher-priority kernels first; blocks already placed in their last wave stay.
    fn leave_over(&mut self, now: u64, l: usize, order: &[u32], code: &Code) {
        let mut free = self.lanes[l].capacity;
        for &i in order {
            let r = &self.run[i as usize];
            if r.settled(code) {
                free -= r.used;
            }
        }
        for &i in order {
            let r = &self.run[i as usize];
            if !r.settled(code) {
                let grant = r.limit.min(free);
                free -= grant;
                self.set_grant(now, i as usize, grant, grant, code);
            }
        }
        self.lanes[l].free = free;
    }

    /// The same where kernels name the CUs they may use.
    fn leave_over_masked(&mut self, now: u64, l: usize, order: &[u32], code: &Code) {
        let capacity = self.lanes[l].capacity;
        let mut free = CuMask::first(capacity);
        for &i in order {
            let r = &self.run[i as usize];
            if r.settled(code) {
                free = free.without(&self.places.list[r.job.mask as usize].used);
            }
        }
        for &i in order {
            let r = &self.run[i as usize];
            if r.settled(code) {
                continue;
            }
            let used = self.take_masked(now, i as usize, &free, code);
            free = free.without(&used);
        }
        self.lanes[l].free = free.count();
    }

    /// Gives a resident what it may use of the `free` CUs, and says which ones it occupies.
    fn take_masked(&mut self, now: u64, i: usize, free: &CuMask, code: &Code) -> CuMask {
        let r = &self.run[i];
        let place = r.job.mask as usize;
        let allowed = self.places.list[place].allowed.and(free);
        let (grant, used) = match self.rule {
            DispatchRule::LeastLoaded => {
                let used = allowed.lowest(r.limit);
                (used.count(), used)
            }
            DispatchRule::EvenGroups => even_groups(&allowed, r.limit, &self.groups),
        };
        self.places.list[place].used = used;
        self.set_grant(now, i, grant, used.count(), code);
        used
    }

    /// A kernel that came last to a masked lane, and whose blocks go last, changes nothing for the
    /// others: it takes what they leave. Whether that was so.
    fn join_masked(&mut self, now: u64, l: usize, code: &Code) -> bool {
        let fair = |r: &Resident| code.kernels[r.job.kernel as usize].fair;
        let i = self.run.len() - 1;
        let (last, others) = (&self.run[i], &self.run[..i]);
        if fair(last) {
            return false;
        }
        let mut free = CuMask::first(self.lanes[l].capacity);
        for r in others.iter().filter(|r| r.job.lane as usize == l) {
            if r.job.priority < last.job.priority || fair(r) {
                return false;
            }
            free = free.without(&self.places.list[r.job.mask as usize].used);
        }
        let used = self.take_masked(now, i, &free, code);
        self.lanes[l].free -= used.count();
        true
    }

    /// CUs that nobody else in the lane may use just fall free. Whether that is so of those that the
    /// kernel at `place` occupied.
    fn leave_masked(&self, l: usize, place: u32, code: &Code) -> bool {
        if !self.lanes[l].masked {
            return false;
        }
        let freed = &self.places.list[place as usize].used;
        self.run.iter().filter(|r| r.job.lane as usize == l).all(|r| {
            let allowed = &self.places.list[r.job.mask as usize].allowed;
            allowed.and(freed).is_empty() && !code.kernels[r.job.kernel as usize].fair
        })
    }

    /// Equal shares, bounded by what each can use; CUs that do not divide go to the earliest.
    fn share_fairly(&mut self, now: u64, l: usize, order: &[u32], code: &Code) {
        let mut by_limit = order.to_vec();
        by_limit.sort_by_key(|&i| self.run[i as usize].limit);
        let mut left = self.lanes[l].capacity;
        let mut count = order.len() as u32;
        let mut level = 0;
        for &i in &by_limit {
            let limit = self.run[i as usize].limit;
            if limit > left / count {
                level = left / count;
                break;
            }
            left -= limit;
            count -= 1;
            level = limit;
        }
        // `count` residents share `left` CUs; `odd` of them get one more.
        let mut odd = if count > 0 { left - level * count } else { 0 };
        let mut free = self.lanes[l].capacity;
        for &i in order {
            let limit = self.run[i as usize].limit;
            let mut grant = limit.min(level);
            if limit > level && odd > 0 && count > 0 {
                grant += 1;
                odd -= 1;
            }
            free -= grant;
            self.set_grant(now, i as usize, grant, grant, code);
        }
        self.lanes[l].free = free;
        if self.lanes[l].masked {
            self.name_cus(l);
        }
    }

    /// An entry for a job that may use only these CUs.
    pub(crate) fn masked(&mut self, allowed: CuMask) -> u32 {
        self.places.add(allowed)
    }

    /// Gives the residents of a lane, who held some number of CUs, certain ones: the lowest, in the
    /// order in which they came.
    #[cold]
    fn name_cus(&mut self, l: usize) {
        let Self { run, lanes, places, .. } = self;
        let lane = &mut lanes[l];
        let here = run.iter_mut().filter(|r| r.job.lane as usize == l);
        let mut residents: Vec<_> = here.chain(&mut lane.parked).collect();
        residents.sort_unstable_by_key(|r| r.seq);
        let all = CuMask::first(lane.capacity);
        let mut free = all;
        for r in residents {
            if r.job.mask == UNMASKED {
                r.job.mask = places.add(all);
            }
            let used = free.lowest(r.used);
            free = free.without(&used);
            places.list[r.job.mask as usize].used = used;
        }
    }

    /// Brings rates and the next event up to date after the grants changed.
    #[inline]
    pub(crate) fn settle(&mut self, now: u64, code: &Code, model: &ContentionModel) {
        if !self.dirty {
            return;
        }
        self.dirty = false;
        if self.sliced() {
            // Only now: between two kernels of one stream its context is not idle.
            self.turn(now, code);
        }
        let calm = model.calm(&self.shared, self.granted, self.demand, self.footprint);
        if !calm || self.stressed {
            self.rerate(now, model);
        }
        self.stressed = !calm;
        let first = self.ends.first();
        self.first = if first.tie { self.earliest(first.at) } else { first.index };
        self.next = first.at.min(self.switch_end).min(self.slice_end);
        if cfg!(debug_assertions) {
            self.check();
        }
    }

    /// Of those who end at `at`, the one that came first.
    #[cold]
    fn earliest(&self, at: u64) -> usize {
        let here = (0..self.run.len()).filter(|&i| self.ends.get(i) == at);
        here.min_by_key(|&i| self.run[i].seq).expect("somebody ends at the first instant")
    }

    fn rerate(&mut self, now: u64, model: &ContentionModel) {
        let Scratch { demands, slow, .. } = &mut self.scratch;
        demands.clear();
        demands.extend(self.run.iter().filter(|r| r.grant > 0).map(|r| r.demand));
        model.slow_downs(&self.shared, demands, slow);
        let running = self.run.iter_mut().enumerate().filter(|(_, r)| r.grant > 0);
        for ((i, r), &s) in running.zip(slow.iter()) {
            if r.slow != s {
                r.age(now);
                r.slow = s;
                self.ends.set(i, r.finish());
            }
        }
    }

    /// Sums recomputed: a wrong one is a wrong result.
    fn check(&self) {
        let running = || self.run.iter().filter(|r| r.grant > 0);
        assert_eq!(self.demand, running().map(|r| r.demand.dram).sum::<u64>());
        assert_eq!(self.granted, running().count());
        assert_eq!(self.busy, self.run.iter().map(|r| r.used).sum::<u32>());
        for (l, lane) in self.lanes.iter().enumerate() {
            let used: u32 =
                self.run.iter().filter(|r| r.job.lane as usize == l).map(|r| r.used).sum();
            assert_eq!(lane.free, lane.capacity - used, "lane {l}");
        }
    }
}

/// Time slicing: whose turn it is.
impl Pool {
    /// The worker of `lane` began (+1) or ended (-1) a batch: turns run to completion end with it.
    pub(crate) fn batch(&mut self, lane: u32, began: bool) {
        let sliced = self.sliced();
        let l = &mut self.lanes[lane as usize];
        l.open = if began { l.open + 1 } else { l.open - 1 };
        if !sliced {
            return;
        }
        self.turn_over |= !began && l.open == 0 && lane as usize == self.active;
        self.dirty = true;
    }

    fn next_lane(&self) -> Option<usize> {
        let n = self.lanes.len();
        (1..n).map(|i| (self.active + i) % n).find(|&l| self.lanes[l].pending())
    }

    /// Ends the turn of an idle context if another one has work; else arms the end of its slice.
    fn turn(&mut self, now: u64, code: &Code) {
        let Discipline::TimeSliced { quantum, run_to_completion, .. } = self.discipline else {
            return;
        };
        if self.switch_end != NEVER {
            return;
        }
        let active = &self.lanes[self.active];
        let idle = self.run.is_empty() && active.wait.is_empty();
        let over = std::mem::take(&mut self.turn_over) && run_to_completion;
        let keeps = !over && (!idle || run_to_completion && active.open > 0);
        match self.next_lane() {
            None => self.slice_end = NEVER,
            Some(to) if !keeps => self.switch_to(now, to, idle || over, code),
            Some(_) if run_to_completion => self.slice_end = NEVER,
            Some(_) if self.slice_end == NEVER => {
                // Alone, a context gets slice after slice; a newcomer waits for the current one.
                let into = (now - self.turn_start) % quantum.0.max(1);
                self.slice_end = now - into + quantum.0.max(1);
            }
            Some(_) => {}
        }
    }

    /// `idle`: the context has nothing on the CUs, or only what came this instant.
    fn switch_to(&mut self, now: u64, to: usize, idle: bool, code: &Code) {
        let Discipline::TimeSliced { switch, make_way, .. } = self.discipline else {
            unreachable!("only time-sliced pools switch")
        };
        let switch = if idle { make_way } else { switch };
        let from = self.active;
        for mut r in self.run.drain(..) {
            if r.grant > 0 {
                r.age(now);
            }
            self.lanes[from].parked.push(r);
        }
        self.ends.clear();
        (self.demand, self.footprint, self.granted) = (0, 0, 0);
        self.occupy(now, 0);
        self.lanes[from].free = self.lanes[from].capacity;
        self.active = to;
        self.slice_end = NEVER;
        self.switches += 1;
        if let Some(notes) = &mut self.notes {
            for r in &self.lanes[from].parked {
                notes.push(Note::Granted { owner: r.job.owner, kernel: r.job.kernel, cus: 0 });
            }
            notes.push(Note::Switching { lane: to as u32 });
        }
        if switch == Nanos::ZERO {
            self.activate(now, code);
        } else {
            self.switch_end = now + switch.0;
        }
    }

    /// The active context's residents go on where they were.
    fn activate(&mut self, now: u64, code: &Code) {
        self.switch_end = NEVER;
        self.turn_start = now;
        let l = self.active;
        let mut parked = std::mem::take(&mut self.lanes[l].parked);
        for mut r in parked.drain(..) {
            r.anchor = now;
            r.slow = 1.0;
            self.lanes[l].free -= r.used;
            if r.grant > 0 {
                self.granted += 1;
                self.demand += r.demand.dram;
                self.footprint += r.demand.footprint;
            }
            self.occupy(now, self.busy + r.used);
            if let Some(notes) = &mut self.notes {
                let (owner, kernel) = (r.job.owner, r.job.kernel);
                notes.push(Note::Granted { owner, kernel, cus: r.grant });
            }
            self.ends.push(r.finish());
            self.run.push(r);
        }
        self.lanes[l].parked = parked;
        if self.lanes[l].general {
            while let Some((seq, job)) = self.lanes[l].wait.pop_front() {
                self.place(now, seq, job, code);
            }
            self.regrant(now, l, code);
        } else {
            self.fill(now, l, code);
        }
        self.turn(now, code);
    }
}

impl Resident {
    /// Takes the time since the anchor off what is left.
    fn age(&mut self, now: u64) {
        let dt = float(now - self.anchor);
        self.rem = (self.rem - dt / self.slow).max(0.0);
        self.anchor = now;
    }

    /// The first grant, beside so many kernels: how long it takes undisturbed, ns.
    #[inline]
    fn start(&mut self, kernel: &KernelCode, delay: [f64; 2], beside: usize) -> u64 {
        let mut ns = kernel.at(self.grant);
        if self.job.scale != 1.0 {
            // Whole nanoseconds, at least one: what a drawn duration is.
            ns = whole(float(ns) * self.job.scale) + 1;
        }
        if beside > 0 {
            self.job.extra_ns += whole((delay[0] * (beside + 1) as f64 + delay[1]).max(0.0));
        }
        ns += self.job.extra_ns;
        self.rem = float(ns);
        self.basis = self.grant;
        ns
    }

    /// Counts what is left at the current grant.
    fn rebase(&mut self, kernel: &KernelCode) {
        if self.basis != self.grant {
            self.rem *= float(kernel.at(self.grant)) / float(kernel.at(self.basis));
            self.basis = self.grant;
        }
    }

    fn finish(&self) -> u64 {
        if self.grant == 0 {
            return NEVER;
        }
        let left = self.rem * self.slow;
        let down = whole(left);
        self.anchor + down + u64::from(float(down) < left)
    }

    /// All its blocks are on CUs: they end there, whoever comes.
    fn settled(&self, code: &Code) -> bool {
        let k = &code.kernels[self.job.kernel as usize];
        self.grant > 0 && k.blocks <= u64::from(self.grant) * u64::from(k.blocks_per_cu)
    }
}

/// Exact below 2^53, and one instruction where the unsigned conversion takes several.
#[inline]
fn float(x: u64) -> f64 {
    x as i64 as f64
}

/// Rounded down; the signed conversion is the fast one. No time here comes near 2^63 ns.
#[inline]
fn whole(x: f64) -> u64 {
    x as i64 as u64
}

/// Alone, a kernel never draws more than the memory system has, whatever its profile says.
fn demand_of(kernel: &KernelCode, cus: u32, shared: &Shared) -> Demand {
    let dram = kernel.dram_bytes.saturating_mul(1000) / kernel.at(cus).max(1);
    Demand { dram: dram.min(shared.dram), footprint: kernel.dram_bytes.min(shared.l2), cus }
}

/// Blocks split evenly over the groups of `allowed`: how many CUs count, and which are taken.
fn even_groups(allowed: &CuMask, limit: u32, groups: &[u32]) -> (u32, CuMask) {
    let effective = allowed.even_groups(groups);
    if effective < limit {
        return (effective, *allowed);
    }
    let in_use = allowed.per_group(groups).filter(|&n| n > 0).count() as u32;
    let each = limit.div_ceil(in_use);
    let mut used = CuMask::EMPTY;
    let mut start = 0;
    for &n in groups {
        let group = CuMask::first(start + n).without(&CuMask::first(start));
        used = used.or(&allowed.and(&group).lowest(each));
        start += n;
    }
    (limit, used)
}
