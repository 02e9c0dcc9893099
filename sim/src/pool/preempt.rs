//! Parts of kernels, and kernels that leave the CUs before their end.
//!
//! A job may do a part of its kernel: a slice of its blocks, or the rest that a preemption left. It
//! runs as the whole kernel would with that many blocks on the CUs, for as many waves as its blocks
//! fill. Only a job whose state was saved resumes in the middle of its blocks.

use super::masks::UNMASKED;
use super::resident::{Resident, float};
use super::shape::Config;
use super::{NEVER, Note, Pool};
use crate::action::Preemption;
use crate::program::Code;

/// The outcome of a request to preempt.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Taken {
    /// The kernel is off the CUs. This share of the kernel is left of its job's work.
    Now(f64),
    /// It leaves as its blocks end: [`super::Ended::Left`], or its usual end, is still to come.
    Later,
    /// There is no such kernel, or it has begun and was to be taken back only if it had not.
    Nothing,
}

impl Resident {
    /// Reduces the remaining time to the waves of blocks that its job is to do. Until now, `whole` is
    /// the duration of the whole kernel, including the extra time.
    pub(super) fn begin_part(&mut self, blocks: u64) {
        let extra = float(self.extra_ns);
        self.whole = (self.whole - extra).max(1.0);
        let done = if self.saved || self.fair {
            self.whole * self.part
        } else {
            let waves = blocks_of(blocks, self.part).div_ceil(self.now.there);
            self.wave() * float(waves.min(self.now.waves))
        };
        self.rem = done + extra;
    }
}

/// The number of blocks in this part of a kernel, at least one; a billionth of a block is rounding
/// error.
pub(super) fn blocks_of(blocks: u64, part: f64) -> u64 {
    (libm::ceil(float(blocks) * part - 1e-9) as u64).max(1)
}

impl Pool {
    /// How a job that does a part of its kernel runs, given how the whole kernel would run: with no
    /// more blocks on the CUs than its part has.
    pub(super) fn part_of(&self, i: usize, config: Config) -> Config {
        let r = &self.run[i];
        let blocks = self.shape(r.kernel).blocks;
        let left = blocks_of(blocks, r.part);
        if r.saved || r.fair || left >= config.there {
            return config;
        }
        let waves = blocks.div_ceil(left);
        // Unevenly filled groups occupy more CUs than there are blocks.
        let most =
            if r.mask == UNMASKED { u32::try_from(left).unwrap_or(u32::MAX) } else { u32::MAX };
        let share = |x: u64| x * left / config.there;
        Config {
            ns: config.ns.saturating_mul(waves).div_ceil(config.waves),
            speed: share(config.speed),
            dram: share(config.dram),
            l2: share(config.l2),
            power: share(config.power),
            footprint: config.footprint,
            lies: config.lies.min(most),
            there: left,
            waves,
        }
    }

    /// Takes the kernel of `owner` off the CUs: at once, or as its blocks end. A kernel that waits for
    /// its turn or for room has no blocks, and goes at once.
    pub fn preempt(&mut self, now: u64, owner: u32, how: Preemption, code: &Code) -> Taken {
        self.close_hole();
        let begun = |r: &Resident| r.runs() || r.whole > 0.0;
        if let Some(i) = self.run.iter().position(|r| r.owner == owner) {
            let r = &mut self.run[i];
            if how == Preemption::Unstarted && begun(r) {
                return Taken::Nothing;
            }
            if how == Preemption::Blocks && r.runs() && !r.fair {
                r.leaving = true;
                let l = r.lane as usize;
                self.edged = true;
                self.fill_up(now, l, code);
                return Taken::Later;
            }
            if r.runs() {
                self.age(now, i);
            }
            let r = self.remove(now, i, code);
            return Taken::Now(if how == Preemption::Reset { r.part } else { r.left() });
        }
        let away = |l: usize| self.sliced && (self.active != l || self.switch_end != NEVER);
        for l in 0..self.lanes.len() {
            let (lane, away) = (&mut self.lanes[l], away(l));
            if let Some(i) = lane.wait.iter().position(|w| w.job.owner == owner) {
                let waiting = lane.wait.remove(i).expect("it was found there");
                if waiting.mask != UNMASKED {
                    self.places.remove(waiting.mask);
                }
                self.dirty = true;
                if !away {
                    self.fill_up(now, l, code);
                }
                return Taken::Now(waiting.job.part);
            }
            let Some(i) = lane.parked.iter().position(|r| r.owner == owner) else { continue };
            if how == Preemption::Unstarted && begun(&lane.parked[i]) {
                return Taken::Nothing;
            }
            if how == Preemption::Blocks && lane.parked[i].runs() && !lane.parked[i].fair {
                lane.parked[i].leaving = true;
                return Taken::Later;
            }
            let r = lane.parked.remove(i);
            let takes = self.shapes[r.kernel as usize].as_ref().expect("it ran").takes;
            if !lane.masked {
                lane.give(&takes, r.held);
            }
            if lane.under == Some(r.seq) {
                lane.under = None;
            }
            if r.mask != UNMASKED {
                self.places.remove(r.mask);
            }
            self.dirty = true;
            return Taken::Now(if how == Preemption::Reset { r.part } else { r.left() });
        }
        Taken::Nothing
    }

    /// Removes resident `i`, which is up to date if it runs; its room goes to the next kernels in line.
    pub(super) fn remove(&mut self, now: u64, i: usize, code: &Code) -> Resident {
        if self.run[i].runs() {
            self.goes(now, i);
        }
        let mut r = self.run.swap_remove(i);
        self.ends.swap_remove(i);
        self.dirty = true;
        r.edge = NEVER;
        if self.observed {
            self.notes.push(Note::Granted { owner: r.owner, kernel: r.kernel, cus: 0 });
        }
        let l = r.lane as usize;
        let takes = self.shape(r.kernel).takes;
        let lane = &mut self.lanes[l];
        if !lane.masked {
            lane.give(&takes, r.held);
        }
        if lane.under == Some(r.seq) {
            lane.under = None;
        }
        if r.mask != UNMASKED {
            self.places.remove(r.mask);
        }
        self.fill_up(now, l, code);
        r
    }

    /// Hands out room again after a kernel has gone or needs no more room.
    fn fill_up(&mut self, now: u64, l: usize, code: &Code) {
        self.dirty = true;
        if self.lanes[l].general {
            self.hand_out(now, l, code);
        } else {
            self.fill(now, l, code);
        }
        self.spread(now, l as u32);
    }
}
