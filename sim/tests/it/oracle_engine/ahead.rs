//! Kernels of a stream that are launched before the one in front of them has ended.

use cotenant_sim::action::{Event, Via};
use cotenant_sim::view::Status;

use super::{Later, Oracle, Timer};

impl Oracle<'_> {
    /// The first kernel of a worker that is not launched is issued at that instant.
    pub(super) fn expect_issue(&mut self, w: usize, at: u64) {
        if !self.workers[w].awaits {
            self.workers[w].awaits = true;
            self.set(at, Timer::Issued(w));
        }
    }

    pub(super) fn issued(&mut self, w: usize) {
        self.workers[w].awaits = false;
        match self.workers[w].status {
            Status::Host => self.ready(w),
            // Below kernel depth nobody looks.
            Status::Launched => self.see_next(w),
            _ => {}
        }
    }

    /// Whether the kernel behind everything launched may be launched, too.
    pub(super) fn see_next(&mut self, w: usize) {
        let shared = self.pools[self.pool_of(w)].shares_host();
        let worker = &mut self.workers[w];
        worker.next = None;
        let launched = worker.behind.len() + 1;
        let there = worker.position + launched;
        let room = launched < self.most[worker.spec.tenant as usize];
        if !room || !worker.open_end || worker.leaves.is_some() {
            return;
        }
        let Some(&kernel) = worker.program.kernels.get(there) else { return };
        let issued = worker.host_base + worker.program.issued_ns[there];
        if !shared && issued > self.now {
            return self.expect_issue(w, issued);
        }
        self.workers[w].next = Some(kernel);
        self.offered.push(w);
        if self.acting == 0 {
            self.tell_of_next();
        }
    }

    /// Once nothing that the policy wanted is left to do; of each worker once.
    pub(super) fn tell_of_next(&mut self) {
        while !self.offered.is_empty() {
            let w = self.offered.remove(0);
            if self.workers[w].next.is_some() && !self.offered.contains(&w) {
                self.tell(Event::KernelNext { worker: w as u32 });
            }
        }
    }

    pub(super) fn follow(&mut self, w: usize, via: Via) {
        let Some(kernel) = self.workers[w].next.take() else { return };
        let kernel = kernel as usize;
        let there = self.workers[w].position + self.workers[w].behind.len() + 1;
        let mut at = self.now;
        if self.pools[self.pool_of(w)].shares_host() {
            at = self.host_spends(w, self.launch_ns(w, there));
        }
        let code = &self.kernels[kernel];
        let placed = at + self.placing(via);
        let launched = (self.now, code.want.min(self.workers[w].spec.cap));
        let longer = self.longer_by(code, via);
        self.workers[w].behind.push_back(Later { launched, longer, placed });
        self.see_next(w);
    }

    /// A launch has ended behind which there is another one.
    pub(super) fn next_is_there(&mut self, w: usize) {
        let later = self.workers[w].behind.pop_front().expect("there is one");
        let worker = &mut self.workers[w];
        worker.position += 1;
        (worker.left, worker.share, worker.saved, worker.resumes) = (1.0, 1.0, false, false);
        worker.longer = later.longer;
        worker.launched = later.launched;
        let priority = worker.placement.2;
        self.workers[w].placement = (self.head_kernel(w), None, priority);
        self.on_its_way(w, later.placed);
        self.workers[w].placed = later.placed;
        self.tell(Event::KernelDone { worker: w as u32 });
        self.see_next(w);
    }
}
