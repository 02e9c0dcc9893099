//! Who gets which CUs.

use std::cmp::Reverse;

use super::masks::UNMASKED;
use super::resident::{Resident, demand_of, duration, float};
use super::{NEVER, Note, Pool, Waiting};
use crate::program::Code;

/// Who goes first among those that compete for CUs: the higher priority, then who came first. With
/// the place among the residents.
pub(super) type Turn = (Reverse<i8>, u64, u32);

impl Pool {
    /// Puts a job of a plain lane among the residents, with what is free.
    #[inline(always)] // once for a waiting job, once for one just submitted
    pub(super) fn place(&mut self, now: u64, new: &Waiting, code: &Code) {
        let Waiting { job, seq, mask } = *new;
        let kernel = &code.kernels[job.kernel as usize];
        let lane = &mut self.lanes[job.lane as usize];
        let limit = kernel.want.min(job.cap).min(lane.capacity);
        let grant = limit.min(lane.free);
        assert!(grant > 0, "a plain lane places what it has a CU for");
        lane.free -= grant;
        // Blocks that are all placed, if only stacked, stay where they are.
        if grant < limit && !kernel.placed(grant) {
            assert!(lane.under.is_none(), "only the last one in is left short");
            lane.under = Some(seq);
        }
        let once = (job.scale, job.extra_ns);
        let ns = duration(kernel, grant, once, &self.shared, self.launch_delay, self.granted);
        let (dram, footprint) = demand_of(kernel, grant, &self.shared);
        self.granted += 1;
        self.demand += dram;
        self.footprint += footprint;
        self.occupy(now, self.busy + grant);
        if self.observed {
            self.note_grant(job.owner, job.kernel, grant);
        }
        let resident = Resident {
            seq,
            anchor: now,
            rem: float(ns),
            slow: 1.0,
            moved: 0.0,
            dram,
            footprint,
            scale: job.scale,
            extra_ns: 0,
            owner: job.owner,
            kernel: job.kernel,
            lane: job.lane,
            mask,
            limit,
            grant,
            used: grant,
            basis: grant,
            blocks: kernel.blocks,
            blocks_per_cu: kernel.blocks_per_cu,
            priority: job.priority,
            fair: false,
        };
        match self.hole.take() {
            Some(i) => {
                self.run[i] = resident;
                self.ends.set(i, now + ns);
            }
            None => {
                self.run.push(resident);
                self.ends.push(now + ns);
            }
        }
    }

    /// Puts a job of a general lane among the residents: it has no CUs until the next regranting.
    pub(super) fn seat(&mut self, now: u64, new: Waiting, code: &Code) {
        let Waiting { job, seq, mut mask } = new;
        let lane = &self.lanes[job.lane as usize];
        if lane.masked && mask == UNMASKED {
            mask = self.places.add(lane.all);
        }
        let kernel = &code.kernels[job.kernel as usize];
        let limit = kernel.want.min(job.cap).min(lane.capacity);
        self.run.push(Resident {
            seq,
            anchor: now,
            rem: 0.0,
            slow: 1.0,
            moved: 0.0,
            dram: 0,
            footprint: 0,
            scale: job.scale,
            extra_ns: job.extra_ns,
            owner: job.owner,
            kernel: job.kernel,
            lane: job.lane,
            mask,
            limit,
            grant: 0,
            used: 0,
            basis: 0,
            blocks: kernel.blocks,
            blocks_per_cu: kernel.blocks_per_cu,
            priority: job.priority,
            fair: kernel.fair,
        });
        self.ends.push(NEVER);
    }

    /// Resident `i` has ended: its CUs go to whom they are due.
    #[inline]
    pub(super) fn release(&mut self, now: u64, i: usize, code: &Code) {
        let r = &self.run[i];
        let (l, seq, used) = (r.lane as usize, r.seq, r.used);
        self.dram_bytes += r.moved_by(now);
        self.granted -= 1;
        self.demand -= r.dram;
        self.footprint -= r.footprint;
        self.occupy(now, self.busy - used);
        let lane = &mut self.lanes[l];
        lane.free += used;
        assert!(lane.free <= lane.capacity, "a lane has no more CUs than it has");
        if lane.general {
            self.leave(now, i, code);
            return;
        }
        if lane.under == Some(seq) {
            lane.under = None;
        }
        // Most often the next one takes its place at this instant.
        self.hole = Some(i);
        self.ends.set(i, NEVER);
        self.fill(now, l, code);
    }

    /// Resident `i` leaves a general lane.
    fn leave(&mut self, now: u64, i: usize, code: &Code) {
        let Resident { lane, mask, fair, .. } = self.run[i];
        let l = lane as usize;
        if mask != UNMASKED {
            self.places.remove(mask);
        }
        self.remove(i);
        if fair || !self.leave_masked(l, mask) {
            self.regrant(now, l, code);
        }
    }

    fn remove(&mut self, i: usize) {
        self.run.swap_remove(i);
        self.ends.swap_remove(i);
    }

    /// Nobody has taken the place of the resident that ended at this instant.
    #[inline]
    pub(super) fn close_hole(&mut self) {
        if let Some(i) = self.hole.take() {
            self.remove(i);
        }
    }

    #[cold]
    pub(super) fn note_grant(&mut self, owner: u32, kernel: u32, cus: u32) {
        self.notes.push(Note::Granted { owner, kernel, cus });
    }

    /// Hands free CUs of a plain lane out in order: first to the resident left short, then to those
    /// who wait.
    #[inline]
    pub(super) fn fill(&mut self, now: u64, l: usize, code: &Code) {
        if let Some(seq) = self.lanes[l].under {
            let i = self.run.iter().position(|r| r.seq == seq).expect("it is resident");
            let lane = &mut self.lanes[l];
            let r = &self.run[i];
            let more = (r.limit - r.grant).min(lane.free);
            lane.free -= more;
            let grant = r.grant + more;
            if grant == r.limit || code.kernels[r.kernel as usize].placed(grant) {
                lane.under = None;
            }
            self.set_grant(now, i, grant, grant, code);
        }
        while self.lanes[l].free > 0 {
            let Some(next) = self.lanes[l].wait.pop_front() else { break };
            self.place(now, &next, code);
        }
    }

    /// So many CUs are in use from now on.
    #[inline]
    pub(super) fn occupy(&mut self, now: u64, busy: u32) {
        if now != self.busy_since {
            self.busy_cu_ns += u64::from(self.busy) * (now - self.busy_since);
            self.busy_since = now;
        }
        self.busy = busy;
    }

    /// Gives resident `i` another grant; `used` CUs are occupied by it.
    pub(super) fn set_grant(&mut self, now: u64, i: usize, grant: u32, used: u32, code: &Code) {
        let r = &mut self.run[i];
        let before = r.used;
        r.used = used;
        if grant != r.grant {
            let kernel = &code.kernels[r.kernel as usize];
            if r.grant > 0 {
                r.age(now);
                self.granted -= 1;
                self.demand -= r.dram;
                self.footprint -= r.footprint;
            }
            r.anchor = now;
            r.grant = grant;
            let mut finish = NEVER;
            if grant > 0 {
                if r.basis == 0 {
                    let (once, delay) = ((r.scale, r.extra_ns), self.launch_delay);
                    let ns = duration(kernel, grant, once, &self.shared, delay, self.granted);
                    (r.basis, r.rem) = (grant, float(ns));
                    finish = now + ns;
                } else {
                    r.rebase(kernel, &self.shared);
                    finish = r.finish();
                }
                (r.dram, r.footprint) = demand_of(kernel, grant, &self.shared);
                self.granted += 1;
                self.demand += r.dram;
                self.footprint += r.footprint;
            } else {
                // It starts undisturbed when it comes back: the next settling looks at it again.
                r.slow = 1.0;
            }
            let (owner, kernel) = (r.owner, r.kernel);
            self.ends.set(i, finish);
            if self.observed {
                self.note_grant(owner, kernel, grant);
            }
        }
        self.occupy(now, self.busy - before + used);
    }

    /// Grants in this lane are decided afresh at every change from now on.
    #[cold]
    pub(super) fn make_general(&mut self, now: u64, lane: u32, code: &Code) {
        let l = &mut self.lanes[lane as usize];
        l.general = true;
        (l.under, l.usual) = (None, None);
        if !self.sliced || self.active == lane as usize && self.switch_end == NEVER {
            let waiting = std::mem::take(&mut self.lanes[lane as usize].wait);
            for new in waiting {
                self.seat(now, new, code);
            }
        }
    }

    /// Decides the grants of a general lane from scratch.
    pub(super) fn regrant(&mut self, now: u64, l: usize, code: &Code) {
        let mut order = std::mem::take(&mut self.scratch.order);
        order.clear();
        let mut fair = false;
        for (i, r) in self.run.iter().enumerate().filter(|(_, r)| r.lane as usize == l) {
            order.push((Reverse(r.priority), r.seq, i as u32));
            fair |= r.fair;
        }
        order.sort_unstable();
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
    fn leave_over(&mut self, now: u64, l: usize, order: &[Turn], code: &Code) {
        let mut free = self.lanes[l].capacity;
        for &(_, _, i) in order {
            let r = &self.run[i as usize];
            if r.settled() {
                free -= r.used;
            }
        }
        for &(_, _, i) in order {
            let r = &self.run[i as usize];
            if !r.settled() {
                let grant = r.limit.min(free);
                free -= grant;
                self.set_grant(now, i as usize, grant, grant, code);
            }
        }
        self.lanes[l].free = free;
    }

    /// Equal shares, bounded by what each can use; CUs that do not divide go to the earliest.
    fn share_fairly(&mut self, now: u64, l: usize, order: &[Turn], code: &Code) {
        let limits = &mut self.scratch.limits;
        limits.clear();
        limits.extend(order.iter().map(|&(_, _, i)| self.run[i as usize].limit));
        limits.sort_unstable();
        let mut left = self.lanes[l].capacity;
        let mut count = order.len() as u32;
        let mut level = 0;
        for &limit in &*limits {
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
        for &(_, _, i) in order {
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
}
