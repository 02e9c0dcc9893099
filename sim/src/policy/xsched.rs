//! `xsched`: preemptible command queues, at the level of preemption that the device supports.
//!
//! Models XSched with its policy "highest priority first": every stream is a queue whose commands
//! (kernels) a library launches, a window of them ahead of the GPU; while a latency-critical tenant has
//! requests, best-effort queues are suspended. What suspending does is the level, and with it how long a
//! request waits. 1: no further kernel is launched, the window drains. 2: the hardware queue is
//! deactivated: what runs ends, the rest of the window is taken back. 3: running kernels are
//! interrupted, their state is saved and restored. With `level = 3` and `hint = true` it is GPreempt,
//! which shrinks the best-effort context's time slice as soon as a request arrives, so that preemption
//! hides behind the preparation of its data. Gives up sharing in space: best-effort kernels fill the
//! time between latency-critical batches, and nothing else.
//!
//! Read in the sources: the queue abstraction and its three levels; a window of 16 commands in flight
//! (the released code's `XSCHED_AUTO_XQUEUE_THRESHOLD`); preemption by time slices within some 100 µs,
//! at most 40 µs of it saving state, and the hint (GPreempt).
//!
//! Chosen here: the window is refilled one command at a time (the released code launches batches of 8);
//! latency-critical queues have no window, because they are never suspended, and GPreempt has none
//! either: its contexts are preempted whole (`window = 1` with `level = 3`); suspension lasts until no
//! latency-critical request is queued or under way; level 2 costs as much as the order to stop at
//! blocks.
//!
//! Source: Shen, Han, Liu, Chen, Chen: XSched (OSDI 2025), github.com/XpuOS/xsched; GPreempt (ATC 2025).

use super::ranks::Ranks;
use super::{Depth, LayoutError, Policy, PolicyInfo, Properties};
use crate::action::{Action, Event, Preemption, Via};
use crate::counter::Count;
use crate::layout::Layout;
use crate::scenario::Setup;
use crate::view::{Status, View};
use crate::{counters, options};

/// The registry entry.
pub(super) const INFO: PolicyInfo = PolicyInfo {
    name: "xsched",
    summary: "best-effort queues suspended while latency-critical ones work, at three levels",
    source: "XSched (OSDI 2025); level 3 with the hint: GPreempt (ATC 2025)",
    properties: Properties {
        work_conserving: false,
        alone_is_isolated: true,
        starvation_free: false,
    },
    options: Knobs::SPECS,
    counters: XSched::COUNTERS,
    build: |options| Ok(Box::new(XSched::new(Knobs::read(options)?))),
};

options! {
    /// Options of `xsched`.
    struct Knobs {
        /// 1: launch no more; 2: take back what has not begun; 3: save what runs
        level: u32 = 2, whole(1, 3);
        /// kernels of a best-effort stream in flight at most: launched, and not ended
        window: u32 = 16, whole(1, 1024), unit("kernels");
        /// suspend when a request arrives, not when its first kernel is ready
        hint: bool = true;
    }
}

struct XSched {
    knobs: Knobs,
    ranks: Ranks,
    preempted: u64,
}

impl XSched {
    fn new(knobs: Knobs) -> Self {
        Self { knobs, ranks: Ranks::default(), preempted: 0 }
    }

    fn suspend(&mut self, view: &View<'_>, act: &mut Vec<Action>) {
        let how = match self.knobs.level {
            1 => return,
            2 => Preemption::Unstarted,
            _ => Preemption::Save,
        };
        for worker in self.ranks.effort(view, Status::Launched) {
            act.push(Action::Preempt { worker, how });
        }
    }

    fn resume(&mut self, view: &View<'_>, act: &mut Vec<Action>) {
        if self.suspended(view) {
            return;
        }
        for worker in self.ranks.effort(view, Status::Held) {
            act.push(Action::Launch { worker, mask: None, priority: 0, via: Via::Intercept });
        }
        for worker in self.ranks.followers(view) {
            act.push(Action::Follow { worker, via: Via::Intercept });
        }
    }

    fn suspended(&self, view: &View<'_>) -> bool {
        if self.knobs.hint { self.ranks.pressed(view) } else { self.ranks.computing(view) }
    }
}

counters! {
    XSched |xsched|
    /// taken off the CUs before their end
    "preempted", unit("kernels") = xsched.preempted;
}

impl Policy for XSched {
    fn depth(&self) -> Depth {
        Depth::Kernel
    }

    fn outstanding(&self, tenant: u32) -> u32 {
        if self.ranks.urgent_tenant(tenant) { 1 } else { self.knobs.window }
    }

    fn forms_batches(&self) -> bool {
        false
    }

    fn layout(&mut self, setup: &Setup) -> Result<Layout, LayoutError> {
        self.ranks = Ranks::new(setup);
        setup.clients(|_| setup.device.cus())
    }

    fn event(&mut self, event: Event, view: &View<'_>, act: &mut Vec<Action>) {
        match event {
            Event::RequestArrived { tenant }
                if self.ranks.urgent_tenant(tenant) && self.knobs.hint =>
            {
                self.suspend(view, act);
            }
            Event::KernelReady { worker } if self.ranks.urgent(view, worker) => {
                self.suspend(view, act);
                act.push(Action::Launch { worker, mask: None, priority: 1, via: Via::Intercept });
            }
            Event::KernelPreempted { .. } => {
                self.preempted += 1;
                self.resume(view, act);
            }
            Event::KernelNext { worker } if !self.suspended(view) => {
                act.push(Action::Follow { worker, via: Via::Intercept });
            }
            Event::KernelReady { .. } | Event::BatchDone { .. } => self.resume(view, act),
            _ => {}
        }
    }

    fn counters(&self) -> Vec<Count> {
        self.counted()
    }
}
