//! How fast kernels progress beside each other, and which of them ends first.

use super::resident::Resident;
use super::{NEVER, Pool, Scratch};
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
        let calm = self.contention.calm(&self.shared, self.granted, self.demand, self.footprint);
        if !calm || self.stressed {
            self.rerate(now);
        }
        self.stressed = !calm;
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
        let Scratch { demands, slow, .. } = &mut self.scratch;
        demands.clear();
        demands.extend(self.run.iter().filter(|r| r.grant > 0).map(Resident::demand));
        self.contention.slow_downs(&self.shared, demands, slow);
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
        assert_eq!(self.demand, running().map(|r| r.dram).sum::<u64>());
        assert_eq!(self.granted, running().count());
        assert_eq!(self.busy, self.run.iter().map(|r| r.used).sum::<u32>());
        for (l, lane) in self.lanes.iter().enumerate() {
            let used: u32 = self.run.iter().filter(|r| r.lane as usize == l).map(|r| r.used).sum();
            assert_eq!(lane.free, lane.capacity - used, "lane {l}");
        }
    }
}
