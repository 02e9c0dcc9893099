//! The device model of one pool: which kernels have blocks on which CUs, how fast each progresses,
//! when the next one ends.
//!
//! A CU has space and speed. Space holds blocks: up to its threads, registers, shared memory and
//! block slots. Speed does their work: a kernel uses so much of it as its own curve shows (the least
//! CU-time that it can be run in, over the time that it takes), and while the kernels on a CU use no
//! more than it has, none is slowed. Blocks go to CUs with most room, the earlier or higher-priority
//! kernel's first; they end where they run, so that a newcomer waits for room until some do.
//!
//! Between two events every running kernel progresses at a constant rate. An event changes blocks or
//! slow-downs; a kernel is re-rated only if its own did, so its remaining time is computed from the
//! same numbers in whatever order events are looked at. Floating point lives here alone: what is
//! left of kernels, and slow-downs. Time, CUs, speed and bandwidth are integers.
//!
//! A pool has no clock. Whoever drives it, in virtual or in real time, goes from instant to instant:
//!
//! 1. submit what is ready at this instant, and [`Pool::advance`] while [`Pool::next`] is this instant;
//! 2. [`Pool::weigh`] every pool of the board, and [`Pool::settle`] each with what they draw together,
//!    after which [`Pool::next`] says when something will happen if nothing is submitted before.
//!
//! Instants are nanoseconds and never go back; the kernels of one owner follow each other.

use std::ops::{Add, Sub};

use cotenant_profiles::Device;
use cotenant_profiles::device::{DispatchRule, Topology};

use crate::contention::{ContentionModel, Demand, Shared};
use crate::layout::{Discipline, PoolSpec};
use crate::mask::CuMask;
use crate::program::Code;
use crate::supply::Supply;

mod accounts;
mod draw;
mod ends;
mod lane;
mod masks;
mod place;
mod preempt;
mod rates;
mod resident;
mod shape;
mod solo;
mod turns;
mod waves;

use accounts::Accounts;
pub use accounts::Used;
use draw::Electric;
use ends::Ends;
use lane::{Lane, Waiting};
use masks::{Places, UNMASKED};
pub use preempt::Taken;
use resident::Resident;
use shape::{Config, Shape};
pub use solo::{Undisturbed, Work};

/// No event.
pub const NEVER: u64 = u64::MAX;

/// A kernel on its way to the CUs.
#[derive(Clone, Copy, Debug)]
pub struct Job {
    /// Whose completion it is: a worker, a queue. It has one kernel at a time in the pool.
    pub owner: u32,
    /// Who is charged for it.
    pub tenant: u32,
    /// Index into [`Code::kernels`].
    pub kernel: u32,
    /// Lane of the pool.
    pub lane: u32,
    /// Most CUs it may use, at least 1.
    pub cap: u32,
    /// Larger goes first where blocks compete.
    pub priority: i8,
    /// Multiplies its duration; exactly 1 leaves the profile's integer untouched.
    pub scale: f64,
    /// Added to its duration, ns.
    pub extra_ns: u64,
    /// How much of the kernel it does; exactly 1: all of it.
    pub part: f64,
    /// It goes on inside of its blocks; otherwise what is left of it are blocks that begin anew.
    pub saved: bool,
}

/// What observers are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Note {
    /// A kernel's blocks lie on `cus` CUs (again, if it already runs); 0: it has to wait.
    Granted {
        /// Whose kernel.
        owner: u32,
        /// Index into [`Code::kernels`].
        kernel: u32,
        /// CUs, which others may be on as well.
        cus: u32,
    },
    /// A context switch began.
    Switching {
        /// The lane to come.
        lane: u32,
    },
}

/// What [`Pool::advance`] came upon.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Ended {
    /// A kernel has ended, and its room has gone to whom it is due.
    Kernel {
        /// Whose kernel.
        owner: u32,
        /// Index into [`Code::kernels`].
        kernel: u32,
    },
    /// A kernel that was to leave has left at the end of a wave of its blocks.
    Left {
        /// Whose kernel.
        owner: u32,
        /// Index into [`Code::kernels`].
        kernel: u32,
        /// Share of the kernel left of what its job was to do.
        left: f64,
    },
    /// A context's turn, or a switch between two, or a wave of blocks that somebody waited for.
    Turn,
}

/// What a pool has used since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Totals {
    /// Time that CUs had blocks, CU-ns.
    pub busy_cu_ns: u64,
    /// Speed of CUs in use, CU-ns: at most the time that they had blocks.
    pub cu_ns: f64,
    /// Bytes to and from DRAM.
    pub dram_bytes: f64,
    /// Energy of what ran, besides what the board draws as soon as anything runs, mJ.
    pub energy_mj: f64,
    /// Time that the board's limit took from its clock: the share lost × ns.
    pub lost_ns: f64,
    /// Time with any kernel on the CUs, ns, over pools weighted by their CUs.
    pub active_cu_ns: u64,
    /// Context switches.
    pub switches: u64,
}

impl Add for Totals {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self {
            busy_cu_ns: self.busy_cu_ns + other.busy_cu_ns,
            cu_ns: self.cu_ns + other.cu_ns,
            dram_bytes: self.dram_bytes + other.dram_bytes,
            energy_mj: self.energy_mj + other.energy_mj,
            // All pools have the board's clock.
            lost_ns: self.lost_ns.max(other.lost_ns),
            active_cu_ns: self.active_cu_ns + other.active_cu_ns,
            switches: self.switches + other.switches,
        }
    }
}

impl Sub for Totals {
    type Output = Self;
    fn sub(self, earlier: Self) -> Self {
        Self {
            busy_cu_ns: self.busy_cu_ns - earlier.busy_cu_ns,
            cu_ns: self.cu_ns - earlier.cu_ns,
            dram_bytes: self.dram_bytes - earlier.dram_bytes,
            energy_mj: self.energy_mj - earlier.energy_mj,
            lost_ns: self.lost_ns - earlier.lost_ns,
            active_cu_ns: self.active_cu_ns - earlier.active_cu_ns,
            switches: self.switches - earlier.switches,
        }
    }
}

/// CUs behind one memory system, and the kernels that share them.
#[derive(Debug)]
pub struct Pool {
    discipline: Discipline,
    /// One lane at a time.
    sliced: bool,
    contention: ContentionModel,
    cus: u32,
    topology: Topology,
    groups: Vec<u32>,
    rule: DispatchRule,
    shared: Shared,
    supply: Supply,
    electric: Electric,
    /// Extra time of a kernel that starts beside others, ns: per co-runner, itself included, and
    /// constant (`igniter`).
    launch_delay: Option<[f64; 2]>,
    /// By kernel, of those seen so far.
    shapes: Vec<Option<Shape>>,
    lanes: Vec<Lane>,
    run: Vec<Resident>,
    /// When each of them ends, or a wave of it that somebody waits for.
    ends: Ends,
    /// Who of them is first, as of the last settling.
    first: usize,
    /// The place in `run` of a resident that has just ended.
    hole: Option<usize>,
    places: Places,
    seq: u64,
    sums: Sums,
    /// What they draw at the boost clock, as of the last weighing, mW.
    drawn: u64,
    /// Share of the boost clock that the board's limit leaves; since when, and what it took before.
    clock: f64,
    clock_since: u64,
    lost_ns: f64,
    /// Slow-downs at the boost clock have been worked out since blocks changed last.
    weighed: bool,
    /// Lanes with CUs on which several kernels lie.
    crowded: u32,
    /// Ends of waves may be set.
    edged: bool,
    /// Somebody may be slowed, and is as of the last weighing.
    stressed: bool,
    calm: bool,
    active: usize,
    turn_start: u64,
    slice_end: u64,
    switch_end: u64,
    /// The active context has ended its batch at this instant: under run-to-completion its turn
    /// ends, whatever it begins next.
    turn_over: bool,
    /// Something changed since the last settling.
    dirty: bool,
    next: u64,
    busy: u32,
    busy_since: u64,
    busy_cu_ns: u64,
    active_ns: u64,
    accounts: Accounts,
    switches: u64,
    scratch: Scratch,
    observed: bool,
    notes: Vec<Note>,
}

/// Over residents with blocks on CUs.
#[derive(Clone, Copy, Debug, Default)]
struct Sums {
    granted: usize,
    demand: u64,
    footprint: u64,
    power: u64,
    /// How many of them have waves to come.
    multi: u32,
}

impl Sums {
    #[inline]
    fn add(&mut self, config: &Config, in_waves: bool) {
        self.granted += 1;
        self.demand += config.dram;
        self.footprint += config.footprint;
        self.power += config.power;
        self.multi += u32::from(in_waves);
    }

    #[inline]
    fn subtract(&mut self, config: &Config, in_waves: bool) {
        self.granted -= 1;
        self.demand -= config.dram;
        self.footprint -= config.footprint;
        self.power -= config.power;
        self.multi -= u32::from(in_waves);
    }
}

#[derive(Debug, Default)]
struct Scratch {
    order: Vec<place::Turn>,
    rates: (Vec<Demand>, Vec<f64>),
    with_room: Vec<(u32, u32)>,
}

/// What the CUs of a place can draw of its bandwidth, bytes per microsecond: a few of them do not
/// saturate DRAM.
fn attainable(spec: &PoolSpec, device: &Device) -> u64 {
    let saturating = f64::from(device.analytic.dram_saturating_cus).max(1.0);
    let reach = device.memory.dram_gbps * 1000.0 * f64::from(spec.cus) / saturating;
    spec.dram_bytes_per_us.min(reach as u64)
}

impl Pool {
    /// An empty pool. With `observed` it keeps notes, to be drained after every settling.
    #[must_use]
    pub fn new(
        spec: &PoolSpec,
        device: &Device,
        contention: &ContentionModel,
        observed: bool,
    ) -> Self {
        let supply = Supply::new(device, contention);
        let slices = spec.l2.0 as f64 / device.memory.l2.0.max(1) as f64;
        Self {
            discipline: spec.discipline,
            sliced: matches!(spec.discipline, Discipline::TimeSliced { .. }),
            contention: *contention,
            cus: spec.cus,
            topology: device.topology.clone(),
            groups: device.topology.groups.clone(),
            rule: device.dispatch.rule,
            launch_delay: match contention {
                ContentionModel::Igniter { sched_ns, .. } => Some(*sched_ns),
                _ => None,
            },
            shared: Shared {
                dram: attainable(spec, device),
                board: (device.memory.dram_gbps * 1000.0) as u64,
                l2_rate: ((1e6 * slices) as u64).clamp(1, 1_000_000),
                l2: spec.l2.0,
            },
            supply,
            electric: Electric::new(device, &supply),
            shapes: vec![],
            lanes: spec.lanes.iter().map(|&cus| Lane::new(cus)).collect(),
            run: Vec::with_capacity(64),
            ends: Ends::default(),
            first: 0,
            hole: None,
            places: Places::default(),
            seq: 0,
            sums: Sums::default(),
            drawn: 0,
            clock: 1.0,
            clock_since: 0,
            lost_ns: 0.0,
            weighed: false,
            crowded: 0,
            edged: false,
            stressed: false,
            calm: true,
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
            active_ns: 0,
            accounts: Accounts::default(),
            switches: 0,
            scratch: Scratch::default(),
            observed,
            notes: vec![],
        }
    }

    /// When the next kernel or turn ends if nothing is submitted before, as of the last settling;
    /// [`NEVER`] if nothing runs.
    #[inline]
    #[must_use]
    pub fn next(&self) -> u64 {
        self.next
    }

    /// What has been used until `now`.
    #[must_use]
    pub fn totals(&self, now: u64) -> Totals {
        let used = self.used(now);
        let since = now - self.busy_since;
        let active = self.active_ns + if self.busy > 0 { since } else { 0 };
        Totals {
            busy_cu_ns: self.busy_cu_ns + u64::from(self.busy) * since,
            cu_ns: used.iter().map(|u| u.cu_ns).sum(),
            dram_bytes: used.iter().map(|u| u.dram_bytes).sum(),
            energy_mj: used.iter().map(|u| u.energy_mj).sum(),
            lost_ns: self.lost_ns + self.losing(now),
            active_cu_ns: active * u64::from(self.cus),
            switches: self.switches,
        }
    }

    /// What each tenant has used until `now`, by number: bytes and work count while they are moved
    /// and done, not when their kernel ends.
    #[must_use]
    pub fn used(&self, now: u64) -> Vec<Used> {
        let run = self.run.iter().enumerate().filter(|&(i, _)| self.hole != Some(i));
        self.accounts.until(now, run.map(|(_, r)| r))
    }

    /// CUs in use.
    #[must_use]
    pub fn busy(&self) -> u32 {
        self.busy
    }

    /// CUs on which blocks of an owner's kernel lie.
    #[must_use]
    pub fn held(&self, owner: u32) -> u32 {
        let run = self.run.iter().enumerate().filter(|&(i, _)| self.hole != Some(i));
        run.filter(|(_, r)| r.owner == owner).map(|(_, r)| r.now.lies).sum()
    }

    /// Its lanes have other sizes from now on.
    ///
    /// # Panics
    /// A lane that changes is not empty, or the number of lanes does.
    pub fn repartition(&mut self, lanes: &[u32]) {
        assert!(lanes.len() == self.lanes.len(), "a pool keeps its lanes");
        self.close_hole();
        for (l, &cus) in lanes.iter().enumerate() {
            let lane = &self.lanes[l];
            if lane.capacity == cus {
                continue;
            }
            let runs = self.run.iter().any(|r| r.lane as usize == l);
            assert!(!runs && !lane.pending(), "a lane that changes is empty");
            self.lanes[l] = Lane::new(cus);
        }
        self.dirty = true;
    }

    /// What changed since the caller last took these away; none unless observed.
    pub fn notes(&mut self) -> &mut Vec<Note> {
        &mut self.notes
    }

    /// A kernel is ready: its blocks compete from now on, for the CUs of `mask` or for all of its lane.
    #[inline]
    pub fn submit(&mut self, now: u64, job: Job, mask: Option<&CuMask>, code: &Code) {
        self.seq += 1;
        let l = job.lane as usize;
        let away = self.sliced && (self.active != l || self.switch_end != NEVER);
        self.meet(job.kernel, code);
        let unlike = mask.is_some() || self.shape(job.kernel).fair || job.part != 1.0;
        if self.lanes[l].usual != Some(job.priority) || unlike {
            self.submit_unlike(now, job, mask, away, code);
            return;
        }
        self.queue(now, Waiting { job, seq: self.seq, mask: UNMASKED }, away, code);
    }

    /// A kernel that queues behind those before it in a plain lane, if there is no room at once.
    #[inline]
    fn queue(&mut self, now: u64, new: Waiting, away: bool, code: &Code) {
        // While it waits nothing changes for those who run, unless their turn is to end, or the room
        // of blocks that end comes free for it.
        self.dirty |= self.sliced || self.sums.multi > 0;
        let takes = &self.shapes[new.job.kernel as usize].as_ref().expect("it was met").takes;
        let lane = &mut self.lanes[new.job.lane as usize];
        if away || lane.starves() || !lane.has_room(takes) {
            lane.wait.push_back(new);
        } else {
            self.dirty = true;
            self.place(now, &new, code);
            self.spread(now, new.job.lane);
        }
    }

    /// A kernel that does not just queue behind those before it.
    #[inline(never)]
    fn submit_unlike(
        &mut self,
        now: u64,
        job: Job,
        mask: Option<&CuMask>,
        away: bool,
        code: &Code,
    ) {
        self.close_hole();
        self.dirty = true;
        let l = job.lane as usize;
        let new = Waiting {
            job,
            seq: self.seq,
            mask: mask.map_or(UNMASKED, |allowed| self.places.add(*allowed)),
        };
        let lane = &mut self.lanes[l];
        let fair = self.shapes[job.kernel as usize].as_ref().expect("it was met").fair;
        if !lane.general {
            let usual = *lane.usual.get_or_insert(job.priority) == job.priority;
            if !usual || mask.is_some() || fair || job.part != 1.0 {
                self.make_general(now, job.lane, code);
            } else {
                self.queue(now, new, away, code);
                return;
            }
        }
        if mask.is_some() && !self.lanes[l].masked {
            let lane = &mut self.lanes[l];
            assert!(lane.capacity <= CuMask::CAPACITY, "masks can name every CU of the lane");
            lane.masked = true;
            self.name_cus(l, code);
        }
        if away {
            self.lanes[l].wait.push_back(new);
            return;
        }
        self.seat(now, new, code);
        self.hand_out(now, l, code);
    }

    /// The earliest event of the pool, which is at `now`.
    #[inline]
    pub fn advance(&mut self, now: u64, code: &Code) -> Ended {
        assert!(self.next == now && !self.dirty, "a pool advances to its next event, settled");
        self.dirty = true;
        if self.switch_end == now {
            self.activate(now, code);
            return Ended::Turn;
        }
        let i = self.first;
        if i < self.run.len() && self.ends.get(i) <= now {
            let Resident { owner, kernel, edge, leaving, .. } = self.run[i];
            if edge == now {
                if leaving {
                    self.age(now, i);
                    let left = self.remove(now, i, code).left();
                    return Ended::Left { owner, kernel, left };
                }
                self.wave_ended(now, i, code);
                return Ended::Turn;
            }
            self.release(now, i, code);
            return Ended::Kernel { owner, kernel };
        }
        assert!(self.slice_end == now, "the pool's next event is a kernel's or a turn's end");
        let to = self.next_lane().expect("a slice ends only while others wait");
        self.switch_to(now, to, self.run.is_empty(), code);
        Ended::Turn
    }
}
