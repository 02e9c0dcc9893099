//! Launching several kernels of a stream at once: those behind the head wait for it on the GPU.

use cotenant_profiles::Nanos;

use super::{Alarm, Host, Launch, Part, World};
use crate::action::{Event, Via};
use crate::layout::Host as Issuer;
use crate::view::Status;

/// A launch that waits in its stream for the launches before it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Flight {
    /// When it was launched, and the most CUs that it can have.
    launched: Nanos,
    cus: u32,
    part: Part,
    /// The earliest time at which it can start.
    pub(super) placed: u64,
}

impl<W: World> Host<'_, W> {
    /// Sets an alarm for `at`, when the host will have issued the worker's first kernel that is not
    /// launched yet.
    pub(super) fn await_issue(&mut self, worker: u32, at: u64) {
        // One alarm at a time: until it fires, that kernel remains the first one that is not issued.
        if !std::mem::replace(&mut self.stages[worker as usize].awaiting, true) {
            self.world.arm(at, Alarm::Issued, worker);
        }
    }

    /// The host has issued the kernel that the alarm was set for.
    pub(super) fn issued(&mut self, worker: u32) {
        self.stages[worker as usize].awaiting = false;
        match self.workers[worker as usize].status {
            Status::Host => self.ready(worker),
            Status::Launched => self.offer_next(worker),
            // The launches before it have been recalled.
            _ => {}
        }
    }

    /// Asks the policy about the kernel behind the launched ones, if it may follow them.
    #[inline(always)]
    pub(super) fn offer_next(&mut self, worker: u32) {
        let most = self.outstanding[self.workers[worker as usize].spec.tenant as usize];
        if most > 1 {
            self.look_ahead(worker, most);
        }
    }

    #[inline(never)]
    fn look_ahead(&mut self, worker: u32, most: u32) {
        let w = &mut self.workers[worker as usize];
        let stage = &self.stages[worker as usize];
        w.next = None;
        let launches = 1 + stage.behind.len() as u32;
        let position = w.position + launches;
        let full = launches >= most || position >= stage.count;
        if !stage.leads || stage.preempting.is_some() || full {
            return;
        }
        let step = self.programs.step(stage.first, position);
        let issued = stage.base + self.world.charged(step.issued_ns);
        if issued > self.world.now() && self.pools[w.spec.pool as usize].host == Issuer::Own {
            return self.await_issue(worker, issued);
        }
        w.next = Some(step.kernel);
        self.offers.push_back(worker);
        if !self.acting {
            self.tell_offers();
        }
    }

    /// Tells the policy about kernels that may follow. This waits until all its earlier actions are done,
    /// so that no answer is based on state that is about to change.
    pub(super) fn tell_offers(&mut self) {
        while let Some(worker) = self.offers.pop_front() {
            let told = self.offers.contains(&worker);
            if self.workers[worker as usize].next.is_some() && !told {
                self.tell(Event::KernelNext { worker });
            }
        }
    }

    /// Launches the next kernel behind those already launched.
    pub(super) fn follow(&mut self, worker: u32, via: Via) {
        let w = &mut self.workers[worker as usize];
        let Some(kernel) = w.next.take() else { return };
        let position = w.position + 1 + w.behind;
        w.behind += 1;
        let cus = self.setup.code.kernels[kernel as usize].want.min(w.spec.cap);
        let now = self.world.now();
        let issued = self.issue(worker, position, via);
        let longer = if via == Via::Persistent { self.longer(kernel) } else { 0 };
        let part = Part { extra: self.world.charged(longer), ..Part::WHOLE };
        let stage = &mut self.stages[worker as usize];
        stage.behind.push_back(Flight { launched: Nanos(now), cus, part, placed: issued });
        let (work, ordinal, priority) = (stage.work, stage.ordinal, stage.priority);
        let (mask, behind) = (None, true);
        let launch = Launch {
            worker,
            kernel,
            position,
            part,
            mask,
            priority,
            issued,
            work,
            ordinal,
            behind,
        };
        self.world.launch(&launch);
        self.offer_next(worker);
    }

    /// The head kernel has ended; the launch behind it becomes the head.
    #[cold]
    pub(super) fn next_began(&mut self, worker: u32) {
        let stage = &mut self.stages[worker as usize];
        let flight = stage.behind.pop_front().expect("a launch waits");
        (stage.part, stage.placed) = (flight.part, flight.placed);
        let w = &mut self.workers[worker as usize];
        (w.position, w.left, w.behind) = (w.position + 1, 1.0, w.behind - 1);
        (w.launched, w.cus) = (flight.launched, flight.cus);
        w.kernel = self.programs.step(stage.first, w.position).kernel;
        self.tell(Event::KernelDone { worker });
        self.offer_next(worker);
    }

    /// The last `launches` launches of a worker have been recalled.
    pub(super) fn recalled(&mut self, worker: u32, launches: u32) {
        let behind = &mut self.stages[worker as usize].behind;
        behind.truncate(behind.len() - launches as usize);
        let w = &mut self.workers[worker as usize];
        (w.behind, w.next) = (behind.len() as u32, None);
    }
}
