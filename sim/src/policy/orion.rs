//! `orion`: best-effort kernels beside latency-critical ones whose bottleneck is another.
//!
//! Models Orion's scheduler: it intercepts every launch; kernels of latency-critical tenants go at once
//! and at high stream priority; a kernel of a best-effort tenant goes when no latency-critical kernel is
//! held or on the CUs, or when it needs few enough CUs and its class (compute or memory, see
//! [`KernelCode::class`](crate::program::KernelCode::class)) is not that of the latency-critical kernels
//! at hand; and at any time the best-effort kernels that have been launched and have not ended last no
//! longer than a bound. Gives up preemption: a best-effort kernel that runs keeps its CUs until its
//! blocks end, so the tail is as long as the longest one that was let in while no latency-critical work
//! was there.
//!
//! Read in the sources (the paper's reading notes and the released code): the three rules; unknown
//! classes count as different; the bound of 2.5 % of a latency-critical request; all SMs as the limit of
//! CUs while the latency-critical tenant infers; best-effort clients take turns; one client may have
//! several kernels outstanding, bounded by their time alone.
//!
//! Chosen here: a kernel's need of CUs is its blocks packed as densely as they fit; several
//! latency-critical tenants are one; a best-effort stream has no more than `depth` kernels outstanding;
//! `against = "free"` compares the need with the CUs that
//! resident latency-critical kernels leave, as the issue of occupancy suggests and the code does not.
//!
//! Source: Strati, Ma, Klimovic: Orion (EuroSys 2024), and github.com/eth-easl/orion.

use std::collections::VecDeque;

use cotenant_profiles::Nanos;

use super::ranks::Ranks;
use super::{Depth, LayoutError, Policy, PolicyInfo, Properties};
use crate::action::{Action, Event, Via};
use crate::counter::Count;
use crate::layout::Layout;
use crate::program::KernelClass;
use crate::scenario::{Class, Setup};
use crate::view::{Status, View};
use crate::{counters, options, words};

/// The registry entry.
pub(super) const INFO: PolicyInfo = PolicyInfo {
    name: "orion",
    summary: "best-effort kernels admitted by class, CUs and outstanding time",
    source: "Orion (EuroSys 2024) and its released code",
    properties: Properties {
        work_conserving: false,
        alone_is_isolated: true,
        starvation_free: false,
    },
    options: Knobs::SPECS,
    counters: Orion::COUNTERS,
    build: |options| Ok(Box::new(Orion::new(Knobs::read(options)?))),
};

options! {
    /// Options of `orion`.
    struct Knobs {
        /// most time of best-effort kernels launched and not ended
        be_duration: Option<Nanos> = None, period(), unset("2.5 % of the shortest latency-critical batch");
        /// a best-effort kernel needs fewer CUs than this part of what it is held against
        cus_percent: f64 = 100.0, within(0.0, 1000.0);
        /// its need of CUs is held against the device's, or those that resident kernels leave
        against: Against = Against::Device;
        /// only kernels of another class go beside a latency-critical one
        by_class: bool = true;
        /// best-effort kernels of a stream outstanding at most
        depth: u32 = 16, whole(1, 1024), unit("kernels");
    }
}

/// What a kernel's need of CUs is compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Against {
    Device,
    Free,
}

words!(Against { "device" => Against::Device, "free" => Against::Free });

/// What is known of a kernel.
#[derive(Clone, Copy, Debug)]
struct Known {
    class: KernelClass,
    /// CUs that its blocks fill when densely packed; may exceed what the device has.
    need: u64,
    ns: u64,
}

struct Orion {
    knobs: Knobs,
    ranks: Ranks,
    kernels: Vec<Known>,
    cus: u32,
    bound: u64,
    /// By worker: the times of its best-effort kernels that have not ended; then the sum over all
    /// workers.
    outstanding: Vec<VecDeque<u64>>,
    sum: u64,
    /// A check at the end of this instant is due.
    looking: bool,
    counts: Counts,
}

#[derive(Default)]
struct Counts {
    alone: u64,
    beside: u64,
    refused_class: u64,
    refused_cus: u64,
    throttled: u64,
}

impl Orion {
    fn new(knobs: Knobs) -> Self {
        Self {
            knobs,
            ranks: Ranks::default(),
            kernels: vec![],
            cus: 0,
            bound: 0,
            outstanding: vec![],
            sum: 0,
            looking: false,
            counts: Counts::default(),
        }
    }

    /// Launches the best-effort kernels that are allowed to run.
    fn admit(&mut self, view: &View<'_>, act: &mut Vec<Action>) {
        let mut beside = false;
        let mut classes = [false; 2];
        let mut taken = 0;
        let held = (0..view.workers.len() as u32)
            .filter(|&w| view.workers[w as usize].status == Status::Held)
            .filter(|&w| self.ranks.urgent(view, w));
        for w in self.ranks.resident(view).chain(held) {
            let worker = &view.workers[w as usize];
            beside = true;
            taken += worker.cus;
            match self.kernels[worker.kernel as usize].class {
                KernelClass::Compute => classes[0] = true,
                KernelClass::Memory => classes[1] = true,
                KernelClass::Unknown => {}
            }
        }
        let free = match self.knobs.against {
            Against::Device => self.cus,
            Against::Free => self.cus.saturating_sub(taken),
        };
        let most = f64::from(free) * self.knobs.cus_percent / 100.0;
        let mut refused = [0; 3];
        let start = self.ranks.turn(view.workers.len() as u32);
        let n = view.workers.len() as u32;
        for worker in (0..n).map(|i| (start + i) % n) {
            let w = &view.workers[worker as usize];
            if self.ranks.urgent(view, worker) {
                continue;
            }
            let (kernel, follows) = match w.next {
                _ if w.status == Status::Held => (w.kernel, false),
                Some(kernel) => (kernel, true),
                None => continue,
            };
            let kernel = self.kernels[kernel as usize];
            if self.sum > self.bound {
                refused[2] += 1;
                break;
            }
            if beside {
                let same = match kernel.class {
                    KernelClass::Compute => classes[0],
                    KernelClass::Memory => classes[1],
                    KernelClass::Unknown => false,
                };
                if self.knobs.by_class && same {
                    refused[0] += 1;
                    continue;
                }
                if kernel.need as f64 >= most {
                    refused[1] += 1;
                    continue;
                }
                self.counts.beside += 1;
            } else {
                self.counts.alone += 1;
            }
            self.outstanding[worker as usize].push_back(kernel.ns);
            self.sum += kernel.ns;
            let (mask, priority, via) = (None, 0, Via::Intercept);
            act.push(match follows {
                true => Action::Follow { worker, via },
                false => Action::Launch { worker, mask, priority, via },
            });
        }
        self.counts.refused_class += refused[0];
        self.counts.refused_cus += refused[1];
        self.counts.throttled += refused[2];
    }
}

counters! {
    Orion |orion|
    /// of best-effort tenants, launched while nobody else's ran
    "best_effort_alone", unit("kernels") = orion.counts.alone;
    /// of best-effort tenants, launched beside a latency-critical one
    "best_effort_beside", unit("kernels") = orion.counts.beside;
    /// that held a kernel for its class
    "refused_by_class", unit("decisions") = orion.counts.refused_class;
    /// that held a kernel for the CUs that it needs
    "refused_by_cus", unit("decisions") = orion.counts.refused_cus;
    /// that held a kernel because enough best-effort time was outstanding
    "throttled", unit("decisions") = orion.counts.throttled;
}

impl Policy for Orion {
    fn depth(&self) -> Depth {
        Depth::Kernel
    }

    fn outstanding(&self, tenant: u32) -> u32 {
        if self.ranks.urgent_tenant(tenant) { 1 } else { self.knobs.depth }
    }

    fn forms_batches(&self) -> bool {
        false
    }

    fn layout(&mut self, setup: &Setup) -> Result<Layout, LayoutError> {
        let layout = setup.clients(|_| setup.device.cus())?;
        self.ranks = Ranks::new(setup);
        self.cus = setup.device.cus();
        let known = |k: &crate::program::KernelCode| Known {
            class: k.class(&setup.device),
            need: k.blocks.div_ceil(u64::from(k.blocks_per_cu.max(1))),
            ns: k.at(self.cus),
        };
        self.kernels = setup.code.kernels.iter().map(known).collect();
        let urgent = setup.tenants.iter().filter(|t| t.class == Class::Latency);
        let batch = |t: &crate::scenario::Tenant| {
            t.model.program(t.batch_max).remaining_ns.first().copied()
        };
        // A fortieth is 2.5 %.
        let bound = urgent.filter_map(batch).min().map_or(u64::MAX, |ns| ns / 40);
        self.bound = self.knobs.be_duration.map_or(bound, |d| d.0);
        self.outstanding = vec![VecDeque::new(); layout.workers.len()];
        Ok(layout)
    }

    fn event(&mut self, event: Event, view: &View<'_>, act: &mut Vec<Action>) {
        match event {
            Event::KernelReady { worker } if self.ranks.urgent(view, worker) => {
                act.push(Action::Launch { worker, mask: None, priority: 1, via: Via::Intercept });
            }
            Event::KernelReady { .. } | Event::KernelNext { .. } => self.admit(view, act),
            Event::KernelDone { worker } | Event::WorkerDown { worker } => {
                self.outstanding.resize_with(view.workers.len(), VecDeque::new);
                let ended = &mut self.outstanding[worker as usize];
                let n = if event == (Event::KernelDone { worker }) { 1 } else { ended.len() };
                self.sum -= ended.drain(..n.min(ended.len())).sum::<u64>();
                // The next kernel of the stream may be ready at this very instant.
                if !std::mem::replace(&mut self.looking, true) {
                    act.push(Action::Timer { at: view.now, token: 0 });
                }
            }
            Event::Timer { .. } => {
                self.looking = false;
                self.admit(view, act);
            }
            _ => {}
        }
    }

    fn counters(&self) -> Vec<Count> {
        self.counted()
    }
}
