//! Time slicing: which context has its turn.

use cotenant_profiles::Nanos;

use super::{NEVER, Note, Pool};
use crate::layout::Discipline;
use crate::program::Code;

impl Pool {
    /// The worker of `lane` began or ended a batch. Under run-to-completion, the turn ends with the
    /// batch.
    pub fn batch(&mut self, lane: u32, began: bool) {
        let sliced = self.sliced;
        let l = &mut self.lanes[lane as usize];
        l.open_batches = if began { l.open_batches + 1 } else { l.open_batches - 1 };
        if !sliced {
            return;
        }
        self.turn_over |= !began && l.open_batches == 0 && lane as usize == self.active;
        self.dirty = true;
    }

    pub(super) fn next_lane(&self) -> Option<usize> {
        let n = self.lanes.len();
        (1..n).map(|i| (self.active + i) % n).find(|&l| self.lanes[l].pending())
    }

    /// Ends the turn of an idle context if another one has work; otherwise sets the end of its slice.
    pub(super) fn turn(&mut self, now: u64, code: &Code) {
        let Discipline::TimeSliced { quantum, run_to_completion, .. } = self.discipline else {
            return;
        };
        if self.switch_end != NEVER {
            return;
        }
        let active = &self.lanes[self.active];
        let idle = self.run.is_empty() && active.wait.is_empty();
        let over = std::mem::take(&mut self.turn_over) && run_to_completion;
        let keeps = !over && (!idle || run_to_completion && active.open_batches > 0);
        match self.next_lane() {
            None => self.slice_end = NEVER,
            Some(to) if !keeps => self.switch_to(now, to, idle || over, code),
            Some(_) if run_to_completion => self.slice_end = NEVER,
            Some(_) if self.slice_end == NEVER => {
                // Alone, a context gets slice after slice; a context that gets work waits for the
                // current slice to end.
                let into = (now - self.turn_start) % quantum.0.max(1);
                self.slice_end = now - into + quantum.0.max(1);
            }
            Some(_) => {}
        }
    }

    /// `idle`: the context has nothing on the CUs, or only what arrived at this instant.
    pub(super) fn switch_to(&mut self, now: u64, to: usize, idle: bool, code: &Code) {
        let Discipline::TimeSliced { switch, make_way, .. } = self.discipline else {
            unreachable!("only time-sliced pools switch")
        };
        let switch = if idle { make_way } else { switch };
        let from = self.active;
        for i in 0..self.run.len() {
            if self.run[i].runs() {
                self.age(now, i);
                self.goes(now, i);
            }
        }
        for mut r in self.run.drain(..) {
            r.edge = NEVER;
            self.lanes[from].parked.push(r);
        }
        self.ends.clear();
        self.lanes[from].open = self.lanes[from].all;
        self.spread(now, from as u32);
        self.active = to;
        self.slice_end = NEVER;
        self.switches += 1;
        if self.observed {
            for r in &self.lanes[from].parked {
                self.notes.push(Note::Granted { owner: r.owner, kernel: r.kernel, cus: 0 });
            }
            self.notes.push(Note::Switching { lane: to as u32 });
        }
        if switch == Nanos::ZERO {
            self.activate(now, code);
        } else {
            self.switch_end = now + switch.0;
        }
    }

    /// The residents of the active context resume where they were.
    pub(super) fn activate(&mut self, now: u64, code: &Code) {
        self.switch_end = NEVER;
        self.turn_start = now;
        let l = self.active;
        let mut parked = std::mem::take(&mut self.lanes[l].parked);
        for mut r in parked.drain(..) {
            r.anchor = now;
            (r.slow, r.heat) = (1.0, 1.0);
            self.edged |= r.leaving;
            if r.runs() {
                self.comes(now, &r);
            }
            if self.observed {
                let (owner, kernel) = (r.owner, r.kernel);
                self.notes.push(Note::Granted { owner, kernel, cus: r.now.lies });
            }
            self.ends.push(r.finish());
            self.run.push(r);
        }
        self.lanes[l].parked = parked;
        if self.lanes[l].general {
            while let Some(next) = self.lanes[l].wait.pop_front() {
                self.seat(now, next, code);
            }
            self.hand_out(now, l, code);
        } else {
            self.fill(now, l, code);
        }
        self.turn(now, code);
    }
}
