//! `reef`: best-effort kernels are killed when a latency-critical request comes, and pad its kernels.
//!
//! Models REEF. `variant = "reset"`, on AMD: when a latency-critical request arrives, the best-effort
//! kernels on the CUs are killed and start over later (inference kernels are idempotent); while
//! latency-critical kernels run, each is padded: blocks of best-effort kernels go to the CUs that it does
//! not need, as many as end before it does. `variant = "n"`, the version for NVIDIA as Orion's authors
//! built it: nothing is killed, so a latency-critical kernel waits for what runs, and whole best-effort
//! kernels go beside it that need no more CUs than it leaves and last no longer. Otherwise best-effort
//! kernels run one after the other per stream, all streams side by side, and the device's queues hold a
//! few of each. The deeper they are, the less launching costs best-effort streams, and the longer it
//! takes to reset them or, where nothing is killed, to wait for them. Gives up what the killed kernels
//! had done.
//!
//! Read in the sources (the released code): a latency-critical kernel needs `blocks ÷ waves` CUs; the
//! number of padding blocks is free CUs × whole best-effort waves within its time × blocks per CU; reset
//! within tens of µs; the two modes; a device queue of 2 best-effort kernels, each of which a reset has
//! to meet, and of 12 in REEF-N (`reef_depth` in Orion's code).
//!
//! Chosen here: kernels in the queue that have not begun are taken back and lost nothing; the merged
//! kernel of REEF is two launches, the padding under a mask of the free CUs; the least-loaded stream's
//! kernel is taken first that fits.
//!
//! Source: Han, Zhang, Chen, Chen: REEF (OSDI 2022), github.com/SJTU-IPADS/reef; REEF-N after Orion
//! (EuroSys 2024).

use super::ranks::Ranks;
use super::{Depth, LayoutError, Policy, PolicyInfo, Properties};
use crate::action::{Action, Event, Preemption, Via};
use crate::counter::Count;
use crate::layout::Layout;
use crate::mask::CuMask;
use crate::program::KernelCode;
use crate::scenario::Setup;
use crate::view::{Status, View};
use crate::{counters, options, words};

/// The registry entry.
pub(super) const INFO: PolicyInfo = PolicyInfo {
    name: "reef",
    summary: "best-effort kernels killed and redone, or padding what latency-critical ones leave",
    source: "REEF (OSDI 2022) and its released code; REEF-N after Orion (EuroSys 2024)",
    properties: Properties {
        work_conserving: false,
        alone_is_isolated: true,
        starvation_free: false,
    },
    options: Knobs::SPECS,
    counters: Reef::COUNTERS,
    build: |options| Ok(Box::new(Reef::new(Knobs::read(options)?))),
};

options! {
    /// Options of `reef`.
    struct Knobs {
        /// kill what runs, or wait for it as on NVIDIA
        variant: Variant = Variant::Reset;
        /// best-effort kernels beside latency-critical ones
        padding: bool = true;
        /// best-effort kernels of a stream in the device's queue at most, the running one included
        depth: Option<u32> = None, whole(1, 1024), unit("kernels"),
            unset("2 with reset, 12 with n");
    }
}

/// Which version of REEF.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Variant {
    Reset,
    N,
}

words!(Variant { "reset" => Variant::Reset, "n" => Variant::N });

struct Reef {
    knobs: Knobs,
    ranks: Ranks,
    cus: u32,
    counts: [u64; 3],
}

impl Reef {
    fn new(knobs: Knobs) -> Self {
        Self { knobs, ranks: Ranks::default(), cus: 0, counts: [0; 3] }
    }

    fn kill(&mut self, view: &View<'_>, act: &mut Vec<Action>) {
        if self.knobs.variant == Variant::Reset {
            for worker in self.ranks.effort(view, Status::Launched) {
                act.push(Action::Preempt { worker, how: Preemption::Reset });
            }
        }
    }

    /// CUs that a kernel needs for as few waves as it can have.
    fn natural(&self, kernel: &KernelCode) -> u32 {
        let fit = u64::from(kernel.blocks_per_cu.max(1));
        let waves = kernel.blocks.div_ceil(fit * u64::from(self.cus)).max(1);
        let need = kernel.blocks.div_ceil(waves * fit);
        u32::try_from(need).unwrap_or(self.cus).clamp(1, self.cus)
    }

    /// Launches a best-effort kernel beside the latency-critical one that a worker is about to launch.
    fn pad(&mut self, view: &View<'_>, worker: u32, act: &mut Vec<Action>) {
        let kernels = &view.setup.code.kernels;
        let urgent = &kernels[view.workers[worker as usize].kernel as usize];
        let step = view.setup.device.mask.step_cus.max(1);
        let need = self.natural(urgent).next_multiple_of(step).min(self.cus);
        let free = self.cus - need;
        if free == 0 || urgent.fair {
            return;
        }
        let time = urgent.at(self.cus);
        for other in self.ranks.effort(view, Status::Held) {
            let kernel = &kernels[view.workers[other as usize].kernel as usize];
            if kernel.fair {
                continue;
            }
            if self.knobs.variant == Variant::N {
                let packed = kernel.blocks.div_ceil(u64::from(kernel.blocks_per_cu.max(1)));
                if packed <= u64::from(free) && kernel.at(self.cus) <= time {
                    let (mask, via) = (None, Via::Intercept);
                    act.push(Action::Launch { worker: other, mask, priority: 0, via });
                    self.counts[1] += 1;
                    return;
                }
                continue;
            }
            let rounds = time / kernel.wave_ns().max(1);
            let blocks = u64::from(free) * rounds * u64::from(kernel.blocks_per_cu.max(1));
            if blocks > 0 && self.cus <= CuMask::CAPACITY {
                let mask = CuMask::first(self.cus).without(&CuMask::first(need));
                let (mask, priority, via) = (Some(mask), 0, Via::Intercept);
                act.push(Action::Slice { worker: other, blocks, mask, priority, via });
                self.counts[1] += 1;
                return;
            }
        }
    }

    fn fill(&mut self, view: &View<'_>, act: &mut Vec<Action>) {
        if self.ranks.pressed(view) {
            return;
        }
        for worker in self.ranks.effort(view, Status::Held) {
            self.counts[0] += 1;
            act.push(Action::Launch { worker, mask: None, priority: 0, via: Via::Intercept });
        }
        for worker in self.ranks.followers(view) {
            self.counts[0] += 1;
            act.push(Action::Follow { worker, via: Via::Intercept });
        }
    }
}

counters! {
    Reef |reef|
    /// of best-effort tenants, launched while nobody else's ran
    "best_effort_alone", unit("kernels") = reef.counts[0];
    /// launched beside others, on CUs that those left free
    "padded", unit("kernels") = reef.counts[1];
    /// killed, to start over
    "killed", unit("kernels") = reef.counts[2];
}

impl Policy for Reef {
    fn depth(&self) -> Depth {
        Depth::Kernel
    }

    fn outstanding(&self, tenant: u32) -> u32 {
        let usual = if self.knobs.variant == Variant::Reset { 2 } else { 12 };
        if self.ranks.urgent_tenant(tenant) { 1 } else { self.knobs.depth.unwrap_or(usual) }
    }

    fn forms_batches(&self) -> bool {
        false
    }

    fn layout(&mut self, setup: &Setup) -> Result<Layout, LayoutError> {
        self.ranks = Ranks::new(setup);
        self.cus = setup.device.cus();
        setup.clients(|_| setup.device.cus())
    }

    fn event(&mut self, event: Event, view: &View<'_>, act: &mut Vec<Action>) {
        match event {
            Event::RequestArrived { tenant }
                if self.ranks.urgent_tenant(tenant)
                // Later kernels find nothing but padding.
                && !self.ranks.busy(view) =>
            {
                self.kill(view, act);
            }
            Event::KernelReady { worker } if self.ranks.urgent(view, worker) => {
                act.push(Action::Launch { worker, mask: None, priority: 1, via: Via::Intercept });
                if self.knobs.padding {
                    self.pad(view, worker, act);
                }
            }
            Event::KernelNext { worker } if !self.ranks.pressed(view) => {
                self.counts[0] += 1;
                act.push(Action::Follow { worker, via: Via::Intercept });
            }
            Event::KernelPreempted { .. } => {
                self.counts[2] += 1;
                self.fill(view, act);
            }
            Event::KernelReady { .. } | Event::SliceDone { .. } | Event::BatchDone { .. } => {
                self.fill(view, act);
            }
            _ => {}
        }
    }

    fn counters(&self) -> Vec<Count> {
        self.counted()
    }
}
