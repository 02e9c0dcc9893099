//! Kernels that follow each other with no other kernel beside them: how each one runs is known in
//! advance, and all their work can be booked at once.
//!
//! All quantities here are integers. So an account has the same bits whether kernels are booked one by
//! one as they end or all together, and a kernel that is placed here with a start in the past ends when
//! it would have.

use std::ops::{Add, Sub};

use super::{NEVER, Pool};
use crate::layout::Discipline;
use crate::program::Code;

/// What kernels use of a pool that they have to themselves; for several kernels, the sum.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// Time on the CUs, ns.
    pub ns: u64,
    /// `ns` times the CU speed in use. The next fields are `ns` times DRAM bytes per microsecond, times
    /// power, and times the number of CUs with blocks.
    pub speed: u128,
    /// See `speed`.
    pub dram: u128,
    /// See `speed`.
    pub power: u128,
    /// See `speed`.
    pub lain: u64,
}

impl Add for Work {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self {
            ns: self.ns + other.ns,
            speed: self.speed + other.speed,
            dram: self.dram + other.dram,
            power: self.power + other.power,
            lain: self.lain + other.lain,
        }
    }
}

impl Sub for Work {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        Self {
            ns: self.ns - other.ns,
            speed: self.speed - other.speed,
            dram: self.dram - other.dram,
            power: self.power - other.power,
            lain: self.lain - other.lain,
        }
    }
}

/// How long no other kernel interferes with the one that has the pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Undisturbed {
    /// Until this instant at most: its turn ends then.
    pub until: u64,
    /// And only while it has a kernel on the CUs: otherwise other contexts take their turn.
    pub gapless: bool,
}

impl Pool {
    /// What a kernel uses alone in a lane, on at most `cap` CUs, and the power that it draws, mW.
    /// `None` if that cannot be known in advance.
    #[must_use]
    pub fn alone(&mut self, kernel: u32, lane: u32, cap: u32, code: &Code) -> Option<(Work, u64)> {
        if code.kernels[kernel as usize].fair {
            return None;
        }
        self.meet(kernel, code);
        let cus = cap.min(self.lanes[lane as usize].capacity);
        let limit = self.shape(kernel).packed.min(cus);
        let config = self.config(kernel, cus, (limit, limit), code);
        let each = |x: u64| u128::from(config.ns) * u128::from(x);
        let work = Work {
            ns: config.ns,
            speed: each(config.speed),
            dram: each(config.dram),
            power: each(config.power),
            lain: config.ns.checked_mul(u64::from(config.lies))?,
        };
        (config.ns > 0).then_some((work, config.power))
    }

    /// Whether kernels that together draw `drawn` mW run at the boost clock.
    #[must_use]
    pub fn boosts(&self, drawn: u64) -> bool {
        self.supply.boosts(drawn) && self.clock == 1.0
    }

    /// The power that the pool draws at the boost clock, as of the last weighing, mW.
    #[must_use]
    pub fn drawn(&self) -> u64 {
        self.drawn
    }

    /// Whether the contexts of this pool take turns.
    #[must_use]
    pub fn takes_turns(&self) -> bool {
        self.sliced
    }

    /// The owner of the only kernel in this pool, if there is exactly one.
    #[inline]
    #[must_use]
    pub fn only(&self) -> Option<u32> {
        match self.run.as_slice() {
            [r] if self.hole.is_none() => Some(r.owner),
            _ => None,
        }
    }

    /// Whether no kernel runs or waits here, so that a stream in this lane would have the pool to
    /// itself.
    #[inline]
    #[must_use]
    pub fn vacant(&self, lane: u32, priority: i8) -> bool {
        let ended = usize::from(self.hole.is_some());
        let turn = !self.sliced
            || self.active == lane as usize
                && self.switch_end == NEVER
                && self.slice_end == NEVER
                && !self.turn_over;
        self.run.len() == ended
            && turn
            && self.usual(lane, priority)
            && !self.lanes.iter().any(super::lane::Lane::pending)
    }

    /// Whether a kernel of this priority needs no special treatment in its lane, like those before it.
    fn usual(&self, lane: u32, priority: i8) -> bool {
        let lane = &self.lanes[lane as usize];
        !lane.masked && (lane.general || lane.usual == Some(priority))
    }

    /// The owner that has the settled pool to itself with a kernel on the CUs, when that kernel ends,
    /// and how long no other kernel interferes.
    #[inline]
    #[must_use]
    pub fn sole(&self, priority: impl Fn(u32) -> i8) -> Option<(u32, u64, Undisturbed)> {
        let [r] = self.run.as_slice() else { return None };
        let undisturbed = r.slow == 1.0 && r.heat == 1.0 && self.clock == 1.0;
        let plain = r.runs() && r.edge == NEVER && !r.leaving && r.part == 1.0;
        let settled = !self.dirty && self.hole.is_none() && self.switch_end == NEVER;
        if !(undisturbed && plain && settled && self.usual(r.lane, priority(r.owner))) {
            return None;
        }
        let active = &self.lanes[r.lane as usize];
        if active.starves() || !active.parked.is_empty() {
            return None;
        }
        let mut until = Undisturbed { until: NEVER, gapless: false };
        if self.lanes.iter().any(super::lane::Lane::pending) {
            let Discipline::TimeSliced { run_to_completion, .. } = self.discipline else {
                return None;
            };
            until.until = self.slice_end;
            until.gapless = !run_to_completion || active.open_batches == 0;
        }
        Some((r.owner, self.ends.get(0), until))
    }

    /// The only kernel on the CUs has ended at `at`, which may lie in the past.
    pub fn end_sole(&mut self, at: u64, code: &Code) {
        self.release(at, 0, code);
        self.close_hole();
        self.dirty = true;
    }

    /// No kernel is on the CUs; the next event has to be determined again.
    pub fn vacate(&mut self) {
        self.close_hole();
        self.dirty = true;
    }

    /// Books the work of a tenant's kernels that ran one after the other with no other kernel beside
    /// them.
    #[inline]
    pub fn did(&mut self, tenant: u32, work: &Work) {
        self.busy_cu_ns += work.lain;
        self.active_ns += work.ns;
        self.accounts.did(tenant, work);
    }
}
