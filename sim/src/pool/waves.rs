//! Blocks run to their end where they are. The blocks of one wave begin together and are alike, so they
//! end together. Their room then goes to kernels that rank before theirs; in the last wave, the room
//! that it no longer needs goes to kernels that rank behind.

use std::cmp::Reverse;

use super::shape::{Config, PARTS};
use super::{NEVER, Pool};
use crate::program::Code;

impl Pool {
    /// Schedules the ends of the waves that a kernel waits for.
    pub(super) fn await_waves(&mut self, now: u64) {
        if !self.edged && !self.lanes.iter().any(super::lane::Lane::starves) {
            return;
        }
        self.edged = false;
        for i in 0..self.run.len() {
            let r = &self.run[i];
            if !r.runs() || !r.in_waves() {
                continue;
            }
            let edge = self.awaited(now, i);
            let r = &mut self.run[i];
            let finish = r.finish();
            r.edge = if edge < finish { edge } else { NEVER };
            self.edged |= r.edge != NEVER || r.leaving;
            let at = finish.min(r.edge);
            if self.ends.get(i) != at {
                self.ends.set(i, at);
            }
        }
    }

    /// The end of the next wave of resident `i` that a kernel waits for.
    fn awaited(&self, now: u64, i: usize) -> u64 {
        let r = &self.run[i];
        if r.leaving {
            return r.wave_end(now, false);
        }
        let lane = &self.lanes[r.lane as usize];
        if !lane.starves() {
            return NEVER;
        }
        if lane.general && self.makes_way(i) {
            return r.wave_end(now, false);
        }
        let shape = self.shape(r.kernel);
        let blocks_over = !shape.blocks.is_multiple_of(r.now.there);
        if blocks_over || self.short(i) { r.wave_end(now, true) } else { NEVER }
    }

    /// Whether a kernel that ranks before resident `i` waits for its room.
    fn makes_way(&self, i: usize) -> bool {
        let r = &self.run[i];
        let lane = &self.lanes[r.lane as usize];
        let rank = (Reverse(r.priority), r.seq);
        if lane.hungry.is_none_or(|hungry| hungry >= rank) {
            return false;
        }
        if !lane.masked {
            return true;
        }
        let used = &self.places.list[r.mask as usize].used;
        self.run.iter().enumerate().any(|(j, other)| {
            other.lane == r.lane
                && (Reverse(other.priority), other.seq) < rank
                && self.short(j)
                && !self.places.list[other.mask as usize].allowed.and(used).is_empty()
        })
    }

    /// The blocks of one wave of resident `i` have ended.
    pub(super) fn wave_ended(&mut self, now: u64, i: usize, code: &Code) {
        self.age(now, i);
        let r = &mut self.run[i];
        let (l, k, held) = (r.lane as usize, r.kernel as usize, r.held);
        let kernel = &code.kernels[k];
        let fit = u64::from(kernel.blocks_per_cu);
        let takes = self.shapes[k].as_ref().expect("it runs").takes;
        let masked = self.lanes[l].masked;
        let last = r.at_last_wave();
        if last {
            let left = kernel.blocks - (r.now.waves - 1) * r.now.there;
            if masked {
                let place = &mut self.places.list[r.mask as usize];
                let each = left.div_ceil(u64::from(r.now.lies));
                (place.fill, place.short) = ((each * u64::from(PARTS)).div_ceil(fit) as u32, false);
            } else {
                let still = u64::from(held).min(left.div_ceil(fit)) as u32;
                r.held = still;
                self.lanes[l].give(&takes, held - still);
            }
            self.settle_in(i);
        } else {
            r.edge = NEVER;
            if masked {
                self.leave_masked(i);
            } else {
                r.held = 0;
                self.lanes[l].give(&takes, held);
            }
        }
        if self.lanes[l].general {
            self.hand_out(now, l, code);
        } else {
            self.fill(now, l, code);
        }
        if !last {
            let r = &self.run[i];
            let none = if masked {
                self.places.list[r.mask as usize].used.is_empty()
            } else {
                r.held == 0
            };
            if none {
                self.run_as(now, i, Config::default());
            } else if r.edge == NEVER {
                self.ends.set(i, r.finish());
            }
        }
        self.spread(now, l as u32);
    }
}
