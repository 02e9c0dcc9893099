//! How fast kernels progress beside each other, and which one ends first.

use super::resident::{Resident, float};
use super::shape::{Config, PARTS};
use super::{NEVER, Pool, Sums};
use crate::contention::Demand;
use crate::mask::CuMask;
use crate::program::Code;
use crate::supply::throttled;

impl Pool {
    /// Brings blocks up to date after the grants changed. Returns what the pool draws at the boost
    /// clock from now on, mW. All pools of the board share one clock, which follows from the power they
    /// draw together: see [`Pool::settle`].
    #[inline]
    pub fn weigh(&mut self, now: u64, code: &Code) -> u64 {
        if !self.dirty {
            return self.drawn;
        }
        self.dirty = false;
        self.weighed = true;
        self.close_hole();
        if self.sliced {
            // Not earlier: between two kernels of one stream its context is not idle.
            self.turn(now, code);
        }
        let Sums { granted, demand, footprint, .. } = self.sums;
        let calm =
            self.crowded == 0 && self.contention.calm(&self.shared, granted, demand, footprint);
        self.drawn = if calm { self.sums.power } else { self.weigh_slowed(code) };
        self.stressed |= !calm;
        self.calm = calm;
        self.drawn
    }

    /// Brings rates and the next event up to date, given that all pools of the board together draw
    /// `drawn` mW at the boost clock.
    #[inline]
    pub fn settle(&mut self, now: u64, drawn: u64, code: &Code) {
        let held = !self.supply.boosts(drawn);
        if !self.weighed && !held && self.clock == 1.0 {
            return;
        }
        self.weighed = false;
        if held || self.clock != 1.0 {
            self.keep_time(now, self.supply.clock(drawn));
        }
        if self.stressed || self.clock != 1.0 {
            if self.calm {
                self.weigh_slowed(code);
            }
            self.rerate(now, drawn);
            self.stressed = !self.calm || self.clock != 1.0;
        }
        if self.sums.multi > 0 {
            self.await_waves(now);
        }
        let first = self.ends.first();
        let tie = first.tie && first.at != NEVER;
        self.first = if tie { self.earliest(first.at) } else { first.index };
        self.next = first.at.min(self.switch_end).min(self.slice_end);
        if cfg!(debug_assertions) {
            self.check();
        }
    }

    /// From now on, the board's clock is at most this share of the boost clock.
    pub fn hold_clock(&mut self, share: f64) {
        self.supply.hold(share);
        self.dirty = true;
    }

    /// From now on, the clock is this share of the boost clock.
    fn keep_time(&mut self, now: u64, clock: f64) {
        if clock != self.clock {
            self.lost_ns += self.losing(now);
            (self.clock, self.clock_since) = (clock, now);
        }
    }

    /// Time that the reduced clock has cost since it last changed: the share lost × ns.
    pub(super) fn losing(&self, now: u64) -> f64 {
        (1.0 - self.clock) * float(now - self.clock_since)
    }

    /// The earliest submitted of the residents that end at `at`.
    #[cold]
    fn earliest(&self, at: u64) -> usize {
        let here = (0..self.run.len()).filter(|&i| self.ends.get(i) == at);
        here.min_by_key(|&i| self.run[i].seq).expect("somebody ends at the first instant")
    }

    /// Computes the slowdown of every running kernel at the boost clock, into the scratch space.
    /// Returns what they draw then, mW.
    fn weigh_slowed(&mut self, code: &Code) -> u64 {
        let (mut demands, mut slow) = std::mem::take(&mut self.scratch.rates);
        demands.clear();
        slow.clear();
        for r in self.run.iter().filter(|r| r.runs()) {
            let (Config { dram, l2, footprint, .. }, kernel) = (r.now, r.kernel);
            demands.push(Demand { dram, footprint, l2, kernel, asked: 0 });
            slow.push(self.by_speed(r));
        }
        self.contention.slow_downs(&self.shared, &code.pairs, &mut demands, &mut slow);
        let running = self.run.iter().filter(|r| r.runs());
        let drawn = running.zip(&slow).map(|(r, s)| (float(r.now.power) / s) as u64).sum();
        self.scratch.rates = (demands, slow);
        drawn
    }

    /// Applies the slowdowns in the scratch space, combined with the effect of the clock.
    fn rerate(&mut self, now: u64, drawn: u64) {
        let clock = self.clock;
        let slow = std::mem::take(&mut self.scratch.rates.1);
        let running = self.run.iter_mut().enumerate().filter(|(_, r)| r.runs());
        for ((i, r), &s) in running.zip(slow.iter()) {
            let (s, heat) = if clock == 1.0 {
                (s, 1.0)
            } else {
                let by_clock = throttled(clock, float(r.now.dram) / float(self.shared.dram));
                let memory = self.electric.memory(r.now.dram, r.now.power);
                (s * by_clock, self.supply.heat(clock, drawn, by_clock, memory))
            };
            if r.slow != s || r.heat != heat {
                let done = r.age(now);
                self.accounts.book(r, done);
                (r.slow, r.heat) = (s, heat);
                self.ends.set(i, r.finish());
            }
        }
        self.scratch.rates.1 = slow;
    }

    /// The slowdown of a resident by the sharing of CU speed: none while the kernels on a CU together
    /// ask for no more than it has.
    fn by_speed(&self, r: &Resident) -> f64 {
        let lane = &self.lanes[r.lane as usize];
        if !lane.crowded {
            return 1.0;
        }
        let lies = u64::from(r.now.lies);
        let own = float(r.now.speed) / float(lies * u64::from(PARTS));
        // The number of its CUs that others also use, and how much of a CU's speed those ask for there.
        let (shared, others) = if lane.masked { self.meets(r) } else { lane.meets(r) };
        if shared == 0 {
            return 1.0;
        }
        let there = (own + others).max(1.0);
        let slow = if r.in_waves() || r.fair {
            // New blocks start where others have ended: what counts is how many end per unit of time.
            float(lies) / (float(lies - shared) + float(shared) / there)
        } else {
            // The kernel ends with the last of its blocks.
            there
        };
        // Wherever the blocks are, the lane has no more speed than this.
        slow.max(float(lane.speed) / float(u64::from(lane.capacity) * u64::from(PARTS)))
    }

    /// Like [`Lane::meets`](super::lane::Lane::meets), for a lane with masks.
    fn meets(&self, r: &Resident) -> (u64, f64) {
        let mine = &self.places.list[r.mask as usize].used;
        let mut met = CuMask::EMPTY;
        let mut asked = 0;
        let here = self.run.iter().filter(|o| o.lane == r.lane && o.seq != r.seq && o.runs());
        for other in here {
            let both = self.places.list[other.mask as usize].used.and(mine);
            met = met.or(&both);
            asked += other.now.speed / u64::from(other.now.lies) * u64::from(both.count());
        }
        let shared = u64::from(met.count());
        (shared, if shared > 0 { float(asked) / float(shared * u64::from(PARTS)) } else { 0.0 })
    }

    /// Recomputes the sums and compares: a wrong sum gives wrong results.
    fn check(&self) {
        let running = || self.run.iter().filter(|r| r.runs());
        assert_eq!(self.sums.demand, running().map(|r| r.now.dram).sum::<u64>());
        assert_eq!(self.sums.power, running().map(|r| r.now.power).sum::<u64>());
        assert_eq!(self.sums.granted, running().count());
        assert_eq!(self.sums.multi as usize, running().filter(|r| r.in_waves()).count());
        assert_eq!(self.busy, self.lanes.iter().map(|l| l.busy).sum::<u32>());
        for (l, lane) in self.lanes.iter().enumerate() {
            let here = || running().filter(|r| r.lane as usize == l);
            assert_eq!(lane.lies, here().map(|r| u64::from(r.now.lies)).sum::<u64>(), "lane {l}");
            assert_eq!(lane.speed, here().map(|r| r.now.speed).sum::<u64>(), "lane {l}");
        }
    }
}
