//! Time slicing: contexts take turns.

use cotenant_sim::layout::Discipline;

use super::{NEVER, Oracle, Pool};

impl Pool {
    /// Kernels of this lane are on the CUs, or could be.
    pub(crate) fn on(&self, lane: usize) -> bool {
        match self.spec.discipline {
            Discipline::TimeSliced { .. } => self.active == lane && self.switch_end == NEVER,
            _ => true,
        }
    }

    pub(crate) fn ends(&self, i: usize) -> u64 {
        let job = &self.jobs[i];
        if !self.on(job.lane) || job.way.is_none() {
            return NEVER;
        }
        job.since + (job.left * job.slow).ceil() as u64
    }

    /// The pool's next event.
    pub(crate) fn next(&self) -> u64 {
        let ends = (0..self.jobs.len()).map(|i| self.ends(i).min(self.jobs[i].edge));
        let ends = ends.min().unwrap_or(NEVER);
        ends.min(self.switch_end).min(self.slice_end)
    }

    /// The next lane in the ring that has kernels to run.
    pub(crate) fn next_lane(&self) -> Option<usize> {
        let n = self.spec.lanes.len();
        let mut ring = (1..n).map(|i| (self.active + i) % n);
        ring.find(|&l| self.jobs.iter().any(|j| j.lane == l))
    }
}

impl Oracle<'_> {
    /// Whoever is on the GPU goes on or makes way.
    pub(crate) fn turn(&mut self, p: usize) {
        let pool = &mut self.pools[p];
        let Discipline::TimeSliced { quantum, run_to_completion, .. } = pool.spec.discipline else {
            return;
        };
        if pool.switch_end != NEVER {
            return;
        }
        let over = pool.ended_batch.take() == Some((self.now, pool.active)) && run_to_completion;
        let Some(other) = pool.next_lane() else {
            pool.slice_end = NEVER;
            return;
        };
        let idle = pool.jobs.iter().all(|j| j.lane != pool.active);
        let in_batch = run_to_completion && pool.open[pool.active] > 0;
        if over || idle && !in_batch {
            self.switch_to(p, other, idle || over);
        } else if !run_to_completion && pool.slice_end == NEVER {
            // Turns begin at whole multiples of the quantum from the start of the first.
            let turns = (self.now - pool.turn_start) / quantum.0 + 1;
            pool.slice_end = pool.turn_start + turns * quantum.0;
        }
    }

    pub(crate) fn switch_to(&mut self, p: usize, lane: usize, idle: bool) {
        let now = self.now;
        let pool = &mut self.pools[p];
        let Discipline::TimeSliced { switch, make_way, .. } = pool.spec.discipline else {
            unreachable!("contexts take turns")
        };
        let active = pool.active;
        for job in pool.jobs.iter_mut().filter(|j| j.lane == active) {
            if job.way.is_some() {
                job.age(now);
            }
            job.edge = NEVER;
        }
        pool.active = lane;
        pool.slice_end = NEVER;
        pool.switch_end = now + if idle { make_way.0 } else { switch.0 };
        self.out.switches += 1;
        if pool.switch_end == now {
            self.activate(p);
        }
    }

    pub(crate) fn activate(&mut self, p: usize) {
        let now = self.now;
        let pool = &mut self.pools[p];
        pool.switch_end = NEVER;
        pool.turn_start = now;
        let active = pool.active;
        for job in pool.jobs.iter_mut().filter(|j| j.lane == active) {
            job.since = now;
            (job.slow, job.heat) = (1.0, 1.0);
        }
        self.hand_out(p, active);
        self.turn(p);
    }
}
