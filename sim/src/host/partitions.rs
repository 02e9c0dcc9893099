//! Repartitioning a pool while its workers keep their models.
//!
//! Workers in lanes that change finish their batches and pause. Once the last one has paused, the mechanism
//! takes its time, the lanes get their new sizes, and all workers resume.

use super::workers::Step;
use super::{Alarm, Host, World};
use crate::action::{Event, Via};
use crate::layout::Discipline;
use crate::view::{Status, Worker};

/// A repartitioning in progress.
#[derive(Clone, Debug)]
pub(super) struct Cut {
    lanes: Vec<u32>,
    via: Via,
    /// All affected workers have paused, and the mechanism is at work.
    begun: bool,
}

impl<W: World> Host<'_, W> {
    /// Gives the lanes of a pool new sizes, unless one of the affected workers is starting or already
    /// changing.
    pub(super) fn repartition(&mut self, pool: u32, lanes: &[u32], via: Via) {
        let spec = &self.pools[pool as usize];
        let parallel = spec.discipline == Discipline::Concurrent;
        assert!(parallel, "a policy repartitions lanes that run at once");
        assert!(lanes.len() == spec.lanes.len(), "a policy names the size of every lane");
        assert!(!lanes.contains(&0), "a lane has at least one CU");
        assert!(lanes.iter().sum::<u32>() <= spec.cus, "lanes lie within their pool");
        let moves = |w: &&Worker| {
            let lane = w.spec.lane as usize;
            let gone = w.status == Status::Retired;
            !gone && w.spec.pool == pool && lanes[lane] != spec.lanes[lane]
        };
        let mut moved = self.workers.iter().filter(moves);
        let changes = moved.any(|w| w.resizing || w.status == Status::Starting);
        if changes || self.cuts[pool as usize].is_some() || spec.lanes == lanes {
            return;
        }
        self.cuts[pool as usize] = Some(Cut { lanes: lanes.to_vec(), via, begun: false });
        for worker in 0..self.workers.len() as u32 {
            if self.is_moved(worker) {
                self.await_cut(worker);
                self.take_down_if_idle(worker);
            }
        }
        self.cut_if_still(pool);
    }

    /// Whether the size of a worker's lane is changing.
    pub(super) fn is_moved(&self, worker: u32) -> bool {
        let w = &self.workers[worker as usize];
        let (pool, lane) = (w.spec.pool as usize, w.spec.lane as usize);
        let cut = self.cuts.get(pool).and_then(Option::as_ref);
        w.status != Status::Retired
            && cut.is_some_and(|cut| cut.lanes[lane] != self.pools[pool].lanes[lane])
    }

    /// Starts the mechanism once no worker in the changing lanes is busy.
    pub(super) fn cut_if_still(&mut self, pool: u32) {
        let Some(cut) = self.cuts.get(pool as usize).and_then(Option::as_ref) else { return };
        let of_pool = |&w: &u32| self.workers[w as usize].spec.pool == pool && self.is_moved(w);
        let moved = (0..self.workers.len() as u32).filter(of_pool);
        let states = moved.map(|w| &self.workers[w as usize]);
        let mut standing = 0;
        for w in states {
            if w.status != Status::Starting {
                return;
            }
            standing += u64::from(w.resizing);
        }
        if cut.begun {
            return;
        }
        // The host reconfigures one stream after the other.
        let m = cut.via.mechanism(&self.setup.costs);
        let ns = self.world.charged(m.cost.0 * standing + m.delay.0);
        self.world.arm(self.world.now() + ns, Alarm::Cut, pool);
        if let Some(cut) = &mut self.cuts[pool as usize] {
            cut.begun = true;
        }
    }

    /// Gives the lanes their new sizes. A worker that used a whole lane gets the whole lane again.
    pub(super) fn cut(&mut self, pool: u32) {
        let moved = (0..self.workers.len() as u32)
            .filter(|&w| self.workers[w as usize].spec.pool == pool && self.is_moved(w));
        let moved: Vec<u32> = moved.collect();
        let cut = self.cuts[pool as usize].take().expect("its alarm was set");
        self.world.repartition(pool, &cut.lanes);
        let before = std::mem::replace(&mut self.pools[pool as usize].lanes, cut.lanes);
        let mut standing = vec![];
        for worker in moved {
            let w = &mut self.workers[worker as usize];
            let lane = w.spec.lane as usize;
            let size = self.pools[pool as usize].lanes[lane];
            let all = w.spec.cap >= before[lane];
            w.spec.cap = if all { size } else { w.spec.cap.min(size) };
            let spec = w.spec;
            if let Some(pending) = &mut self.stages[worker as usize].resize {
                pending.cap = spec.cap;
                standing.push(worker);
            }
            self.world.open(worker, &spec);
        }
        self.tell(Event::Repartitioned { pool });
        for worker in standing {
            let waits = |p: &super::workers::Pending| p.step == Step::Cut;
            if self.stages[worker as usize].resize.as_ref().is_some_and(waits) {
                self.worker_up(worker);
            }
        }
    }
}
