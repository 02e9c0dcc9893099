//! How fast kernels progress beside each other, and which of them ends first.

use super::resident::{Resident, float};
use super::shape::PARTS;
use super::{NEVER, Pool};
use crate::contention::Demand;
use crate::mask::CuMask;
use crate::program::Code;

impl Pool {
    /// Brings rates and the next event up to date after the grants changed.
    #[inline]
    pub fn settle(&mut self, now: u64, code: &Code) {
        if !self.dirty {
            return;
        }
        self.dirty = false;
        self.close_hole();
        if self.sliced {
            // Only now: between two kernels of one stream its context is not idle.
            self.turn(now, code);
        }
        let calm = self.crowded == 0
            && self.contention.calm(&self.shared, self.granted, self.demand, self.footprint);
        if !calm || self.stressed {
            self.rerate(now);
        }
        self.stressed = !calm;
        self.await_waves(now);
        let first = self.ends.first();
        let tie = first.tie && first.at != NEVER;
        self.first = if tie { self.earliest(first.at) } else { first.index };
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

    fn rerate(&mut self, now: u64) {
        let (mut demands, mut slow) = std::mem::take(&mut self.scratch.rates);
        demands.clear();
        slow.clear();
        for r in self.run.iter().filter(|r| r.runs()) {
            let footprint = self.shape(r.kernel).footprint;
            demands.push(Demand { dram: r.now.dram, footprint, cus: r.now.lies, asked: 0 });
            slow.push(self.by_speed(r));
        }
        self.contention.slow_downs(&self.shared, &mut demands, &mut slow);
        let running = self.run.iter_mut().enumerate().filter(|(_, r)| r.runs());
        for ((i, r), &s) in running.zip(slow.iter()) {
            if r.slow != s {
                let (dt, done) = r.age(now);
                self.accounts.book(r.tenant, &r.now, dt, done);
                r.slow = s;
                self.ends.set(i, r.finish());
            }
        }
        self.scratch.rates = (demands, slow);
    }

    /// What sharing the speed of CUs costs a resident: nothing while those on a CU together ask for
    /// no more than it has.
    fn by_speed(&self, r: &Resident) -> f64 {
        let lane = &self.lanes[r.lane as usize];
        if !lane.crowded {
            return 1.0;
        }
        let lies = u64::from(r.now.lies);
        let own = float(r.now.speed) / float(lies * u64::from(PARTS));
        // On so many of its CUs lie others, who there ask for so much of a CU's speed.
        let (shared, others) = if lane.masked { self.meets(r) } else { lane.meets(r) };
        if shared == 0 {
            return 1.0;
        }
        let there = (own + others).max(1.0);
        let slow = if r.in_waves() || r.fair {
            // Blocks go on where others have ended: what counts is how many end per time.
            float(lies) / (float(lies - shared) + float(shared) / there)
        } else {
            // It ends with the last of its blocks.
            there
        };
        // Whoever lies where: no more speed than there is.
        slow.max(float(lane.speed) / float(u64::from(lane.capacity) * u64::from(PARTS)))
    }

    /// The same where CUs have names.
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

    /// Sums recomputed: a wrong one is a wrong result.
    fn check(&self) {
        let running = || self.run.iter().filter(|r| r.runs());
        assert_eq!(self.demand, running().map(|r| r.now.dram).sum::<u64>());
        assert_eq!(self.granted, running().count());
        assert_eq!(self.multi as usize, running().filter(|r| r.in_waves()).count());
        assert_eq!(self.busy, self.lanes.iter().map(|l| l.busy).sum::<u32>());
        for (l, lane) in self.lanes.iter().enumerate() {
            let here = || running().filter(|r| r.lane as usize == l);
            assert_eq!(lane.lies, here().map(|r| u64::from(r.now.lies)).sum::<u64>(), "lane {l}");
            assert_eq!(lane.speed, here().map(|r| r.now.speed).sum::<u64>(), "lane {l}");
        }
    }
}
