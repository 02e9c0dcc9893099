//! Which kernels get room for blocks, and when. Blocks run to their end where they are: no kernel loses
//! room that its blocks hold. Room that becomes free goes to the waiting kernels, in the order of their
//! ranks.

use std::cmp::Reverse;

use super::lane::Waiting;
use super::masks::UNMASKED;
use super::resident::{Resident, duration, float};
use super::shape::{Config, Shape};
use super::{NEVER, Note, Pool};
use crate::program::Code;

/// A rank, and the index among the residents.
pub(super) type Turn = (Reverse<i8>, u64, u32);

impl Pool {
    /// Prepares the shape of a kernel before any of its blocks are placed.
    #[inline]
    pub(super) fn meet(&mut self, k: u32, code: &Code) {
        if !matches!(self.shapes.get(k as usize), Some(Some(_))) {
            self.new_shape(k, code);
        }
    }

    #[cold]
    fn new_shape(&mut self, k: u32, code: &Code) {
        let i = k as usize;
        let of = self.lanes[0].capacity;
        let shape = Shape::new(&code.kernels[i], of, &self.topology, &self.shared, &self.electric);
        if self.shapes.len() <= i {
            self.shapes.resize(i + 1, None);
        }
        self.shapes[i] = Some(shape);
    }

    /// The resources that kernel `k` takes of this pool.
    #[inline]
    pub(super) fn shape(&self, k: u32) -> &Shape {
        self.shapes[k as usize].as_ref().expect("it has been looked at")
    }

    /// Brings the remaining time of resident `i` up to date.
    #[inline]
    pub(super) fn age(&mut self, now: u64, i: usize) {
        let r = &mut self.run[i];
        let done = r.age(now);
        self.accounts.book(r, done);
    }

    /// How kernel `k` runs on `cus` CUs with room for the blocks of `held` CUs, where it wants room for
    /// those of `limit`.
    #[inline]
    pub(super) fn config(
        &self,
        k: u32,
        cus: u32,
        (held, limit): (u32, u32),
        code: &Code,
    ) -> Config {
        let shape = self.shape(k);
        let kernel = &code.kernels[k as usize];
        if held < limit {
            shape.short(kernel, cus, held, &self.shared)
        } else if cus == shape.of {
            shape.alone
        } else {
            shape.on(kernel, cus, &self.shared)
        }
    }

    /// Makes a job of a plain lane resident, with the room that there is.
    #[inline(always)] // once for a waiting job, once for one just submitted
    pub(super) fn place(&mut self, now: u64, new: &Waiting, code: &Code) {
        let Waiting { job, seq, mask } = *new;
        let shape = self.shapes[job.kernel as usize].as_ref().expect("it has been looked at");
        let lane = &mut self.lanes[job.lane as usize];
        let cus = job.cap.min(lane.capacity);
        let limit = shape.packed.min(cus);
        let held = lane.room_for(&shape.takes, limit);
        assert!(held > 0, "a plain lane places what it has room for");
        lane.take(&shape.takes, held);
        if held < limit {
            assert!(lane.under.is_none(), "only the last one in is left short");
            lane.under = Some(seq);
        }
        let config = if held == limit && cus == shape.of {
            shape.alone
        } else {
            self.config(job.kernel, cus, (held, limit), code)
        };
        let delay = self.launch_delay;
        let ns = duration(config.ns, job.scale, job.extra_ns, delay, self.sums.granted);
        self.sums.add(&config, config.waves > 1);
        let lane = &mut self.lanes[job.lane as usize];
        lane.lies += u64::from(config.lies);
        lane.speed += config.speed;
        self.accounts.comes(now, job.tenant);
        if self.observed {
            self.note_grant(job.owner, job.kernel, config.lies);
        }
        let resident = Resident {
            seq,
            anchor: now,
            rem: float(ns),
            whole: float(ns),
            slow: 1.0,
            heat: 1.0,
            now: config,
            edge: NEVER,
            scale: job.scale,
            extra_ns: 0,
            part: 1.0,
            saved: false,
            owner: job.owner,
            tenant: job.tenant,
            kernel: job.kernel,
            lane: job.lane,
            mask,
            cus,
            limit,
            held,
            priority: job.priority,
            last: false,
            fair: false,
            leaving: false,
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

    /// The blocks of a resident are on the CUs from now on.
    pub(super) fn comes(&mut self, now: u64, r: &Resident) {
        self.sums.add(&r.now, r.in_waves());
        let lane = &mut self.lanes[r.lane as usize];
        lane.lies += u64::from(r.now.lies);
        lane.speed += r.now.speed;
        self.accounts.comes(now, r.tenant);
        self.spread(now, r.lane);
    }

    /// The blocks of a resident leave the CUs, or are about to run in another configuration.
    pub(super) fn goes(&mut self, now: u64, i: usize) {
        let r = &self.run[i];
        self.sums.subtract(&r.now, r.in_waves());
        let lane = &mut self.lanes[r.lane as usize];
        lane.lies -= u64::from(r.now.lies);
        lane.speed -= r.now.speed;
        self.accounts.goes(now, r.tenant);
        self.spread(now, self.run[i].lane);
    }

    /// Updates the number of busy CUs after the blocks in a lane have changed.
    #[inline]
    pub(super) fn spread(&mut self, now: u64, l: u32) {
        let lane = &mut self.lanes[l as usize];
        let busy = if lane.masked {
            lane.capacity - lane.open.count()
        } else {
            lane.lies.min(u64::from(lane.capacity)) as u32
        };
        let crowded = lane.lies > u64::from(busy);
        if busy != lane.busy || crowded != lane.crowded {
            self.respread(now, l, busy, crowded);
        }
    }

    /// The slow path of [`spread`](Self::spread): the lane now has `busy` CUs in use.
    fn respread(&mut self, now: u64, l: u32, busy: u32, crowded: bool) {
        let lane = &mut self.lanes[l as usize];
        self.crowded += u32::from(crowded);
        self.crowded -= u32::from(std::mem::replace(&mut lane.crowded, crowded));
        let all = self.busy - std::mem::replace(&mut lane.busy, busy) + busy;
        self.occupy(now, all);
    }

    /// From now on, `busy` CUs are in use.
    #[inline]
    pub(super) fn occupy(&mut self, now: u64, busy: u32) {
        if now != self.busy_since {
            let dt = now - self.busy_since;
            self.busy_cu_ns += u64::from(self.busy) * dt;
            self.active_ns += if self.busy > 0 { dt } else { 0 };
            self.busy_since = now;
        }
        self.busy = busy;
    }

    /// Makes a job of a general lane resident. It has no block on a CU until room is next handed out.
    pub(super) fn seat(&mut self, now: u64, new: Waiting, code: &Code) {
        let Waiting { job, seq, mut mask } = new;
        self.meet(job.kernel, code);
        let packed = self.shape(job.kernel).packed;
        let kernel = &code.kernels[job.kernel as usize];
        let lane = &self.lanes[job.lane as usize];
        if lane.masked && mask == UNMASKED {
            mask = self.places.add(lane.all);
        }
        let lane = &self.lanes[job.lane as usize];
        let mut cus = job.cap.min(lane.capacity);
        if lane.masked {
            cus = cus.min(self.reach(mask));
        }
        self.run.push(Resident {
            seq,
            anchor: now,
            rem: 0.0,
            whole: 0.0,
            slow: 1.0,
            heat: 1.0,
            now: Config::default(),
            edge: NEVER,
            scale: job.scale,
            extra_ns: job.extra_ns,
            part: job.part,
            saved: job.saved,
            owner: job.owner,
            tenant: job.tenant,
            kernel: job.kernel,
            lane: job.lane,
            mask,
            cus,
            limit: if kernel.fair { 0 } else { packed.min(cus) },
            held: 0,
            priority: job.priority,
            last: false,
            fair: kernel.fair,
            leaving: false,
        });
        self.ends.push(NEVER);
        if kernel.fair {
            let i = self.run.len() - 1;
            let config = self.config(job.kernel, cus, (0, 0), code);
            if mask != UNMASKED {
                self.places.lie(mask, cus);
            }
            self.run_as(now, i, config);
        }
    }

    /// Resident `i` has ended: its room goes to the next kernels in line.
    #[inline]
    pub(super) fn release(&mut self, now: u64, i: usize, code: &Code) {
        let r = &mut self.run[i];
        let done = r.age(now);
        self.accounts.ends(now, r, done);
        self.sums.subtract(&r.now, r.in_waves());
        let (l, seq, mask) = (r.lane as usize, r.seq, r.mask);
        let lane = &mut self.lanes[l];
        lane.lies -= u64::from(r.now.lies);
        lane.speed -= r.now.speed;
        if !lane.masked {
            lane.give(&self.shapes[r.kernel as usize].as_ref().expect("it ran").takes, r.held);
        }
        // None of its blocks runs any more.
        r.now.lies = 0;
        if lane.general {
            if mask != UNMASKED {
                self.places.remove(mask);
            }
            self.run.swap_remove(i);
            self.ends.swap_remove(i);
            self.hand_out(now, l, code);
            self.spread(now, l as u32);
            return;
        }
        if lane.under == Some(seq) {
            lane.under = None;
        }
        // Usually the next kernel takes its place at this same instant.
        self.hole = Some(i);
        self.fill(now, l, code);
    }

    /// Removes the entry of a resident that ended at this instant, if no kernel has taken its place.
    #[inline]
    pub(super) fn close_hole(&mut self) {
        if let Some(i) = self.hole.take() {
            self.run.swap_remove(i);
            self.ends.swap_remove(i);
        }
    }

    #[cold]
    pub(super) fn note_grant(&mut self, owner: u32, kernel: u32, cus: u32) {
        self.notes.push(Note::Granted { owner, kernel, cus });
    }

    /// Hands out the room of a plain lane in order: first to the resident that was left short, then to
    /// waiting jobs.
    #[inline]
    pub(super) fn fill(&mut self, now: u64, l: usize, code: &Code) {
        if let Some(seq) = self.lanes[l].under {
            let gone = self.hole;
            let mut run = self.run.iter().enumerate();
            let found = run.find(|&(i, r)| r.seq == seq && gone != Some(i));
            let i = found.expect("it is resident").0;
            if self.short(i) {
                self.grow(now, i, code);
            }
            if self.short(i) {
                self.spread(now, l as u32);
                return;
            }
            self.lanes[l].under = None;
        }
        loop {
            let lane = &mut self.lanes[l];
            let (None, Some(&next)) = (lane.under, lane.wait.front()) else { break };
            let shape = self.shapes[next.job.kernel as usize].as_ref().expect("it waits");
            if !lane.has_room(&shape.takes) {
                break;
            }
            lane.wait.pop_front();
            self.place(now, &next, code);
        }
        self.spread(now, l as u32);
    }

    /// Whether resident `i` has blocks that wait for room.
    pub(super) fn short(&self, i: usize) -> bool {
        let r = &self.run[i];
        let waits = if self.lanes[r.lane as usize].masked {
            self.places.short(r.mask)
        } else {
            r.held < r.limit
        };
        waits && !r.last && !r.fair && !r.leaving
    }

    /// The room that resident `i` wants, in CUs. Once it has made way for others, that is room for its
    /// remaining blocks only.
    fn wants(&self, i: usize, code: &Code) -> u32 {
        let r = &self.run[i];
        let share = if r.whole > 0.0 { r.rem / r.whole } else { r.part };
        if r.held > 0 || share >= 1.0 {
            return r.limit;
        }
        let kernel = &code.kernels[r.kernel as usize];
        let left = float(kernel.blocks) * share / f64::from(kernel.blocks_per_cu);
        (libm::ceil(left) as u32).clamp(1, r.limit)
    }

    /// Gives resident `i` of a lane without masks as much of the room it wants as there is.
    fn grow(&mut self, now: u64, i: usize, code: &Code) {
        let r = &self.run[i];
        let (l, k, held, cus, limit) = (r.lane as usize, r.kernel, r.held, r.cus, r.limit);
        let takes = self.shape(k).takes;
        let wants = self.wants(i, code);
        let more = self.lanes[l].room_for(&takes, wants.saturating_sub(held));
        if more > 0 {
            self.lanes[l].take(&takes, more);
            self.run[i].held = held + more;
            let config = self.config(k, cus, (held + more, limit), code);
            self.run_as(now, i, config);
        }
        if more >= wants && wants < limit {
            // All its remaining blocks are on the CUs.
            self.settle_in(i);
        }
    }

    /// The last of a resident's blocks are on the CUs.
    pub(super) fn settle_in(&mut self, i: usize) {
        let r = &mut self.run[i];
        if r.runs() {
            self.sums.multi -= u32::from(r.in_waves());
        }
        r.last = true;
        if r.edge != NEVER {
            r.edge = NEVER;
            self.ends.set(i, r.finish());
        }
    }

    /// From now on, resident `i` runs as `config` says; with no block on a CU it waits.
    pub(super) fn run_as(&mut self, now: u64, i: usize, mut config: Config) {
        if self.run[i].part != 1.0 && config.lies > 0 && self.run[i].whole == 0.0 {
            config = self.part_of(i, config);
        }
        if self.run[i].runs() {
            self.age(now, i);
            self.goes(now, i);
        }
        let (delay, beside) = (self.launch_delay, self.sums.granted);
        let r = &mut self.run[i];
        let before = r.now;
        r.anchor = now;
        r.edge = NEVER;
        if config.lies == 0 {
            // When it comes back, it starts without a slowdown.
            (r.now, r.slow, r.heat) = (Config { ns: before.ns, ..config }, 1.0, 1.0);
            self.ends.set(i, NEVER);
        } else {
            r.now = config;
            if r.whole == 0.0 {
                let ns = duration(config.ns, r.scale, r.extra_ns, delay, beside);
                (r.whole, r.rem) = (float(ns), float(ns));
                if r.part != 1.0 {
                    r.begin_part(self.shapes[r.kernel as usize].as_ref().expect("it runs").blocks);
                }
            } else if config.ns != before.ns {
                let ratio = float(config.ns) / float(before.ns);
                r.whole *= ratio;
                r.rem *= ratio;
            }
            // Blocks that begin now take as long as any others.
            if !r.last && !r.saved && !r.fair {
                r.rem = r.rem.max(r.wave());
            }
            let finish = r.finish();
            self.ends.set(i, finish);
            let r = self.run[i].clone();
            self.comes(now, &r);
        }
        if self.observed {
            let r = &self.run[i];
            let (owner, kernel) = (r.owner, r.kernel);
            self.note_grant(owner, kernel, config.lies);
        }
    }

    /// From now on, room in this lane is handed out after ranking all its residents.
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

    /// Hands out the room of a general lane. Without masks, no kernel overtakes another that has blocks
    /// waiting; with masks, each takes what it may use.
    pub(super) fn hand_out(&mut self, now: u64, l: usize, code: &Code) {
        let mut order = std::mem::take(&mut self.scratch.order);
        order.clear();
        for (i, r) in self.run.iter().enumerate().filter(|(_, r)| r.lane as usize == l) {
            if !r.fair && !r.last {
                order.push((Reverse(r.priority), r.seq, i as u32));
            }
        }
        order.sort_unstable();
        let masked = self.lanes[l].masked;
        if masked {
            self.reopen(l);
        }
        let mut hungry = None;
        for &(priority, seq, i) in &order {
            let i = i as usize;
            if !self.short(i) {
                continue;
            }
            if masked {
                self.take_masked(now, i, code);
            } else if hungry.is_none() {
                self.grow(now, i, code);
            }
            if hungry.is_none() && self.short(i) {
                hungry = Some((priority, seq));
            }
        }
        self.lanes[l].hungry = hungry;
        self.scratch.order = order;
        if masked {
            self.reopen(l);
            self.spread(now, l as u32);
        }
    }
}
