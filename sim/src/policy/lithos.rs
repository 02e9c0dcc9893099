//! `lithos`: quotas of CUs, idle ones stolen in atoms of bounded duration, kernels right-sized.
//!
//! Models LithOS: every tenant has a quota of TPCs; each kernel is launched under a mask, on its own
//! tenant's CUs and, if these are too few, on idle CUs of others; a kernel that would last longer than an
//! atom is launched as several, ranges of its blocks, so that the owner of the CUs has them back when
//! the atom ends; stolen work has the lower stream priority. Right-sizing gives a kernel the fewest CUs on
//! which it is no more than `slip` times slower, by `m ÷ CUs + b` through its durations on one TPC and on
//! all. With `scaling` the board's clock is the lowest at which no tenant's kernels take `clock_slip` times
//! as long as at the boost clock: compute takes longer in proportion, bytes do not (`lithos/clock.rs`).
//! Gives up work conservation: right-sized kernels leave CUs idle, and a running atom keeps its mask.
//!
//! Read in the sources (reading notes and a public reproduction): atoms of 250 to 500 µs; stolen work
//! bounded to 100 µs; slip 1.1; the two-point model; masks per launch, which a running atom keeps; that
//! the clock follows from how sensitive kernels are to it, and that a new one takes some 50 ms to hold
//! (`clock_switch` of the device file); the costs of interception and of a slice that stand in the device files; a mask written into the launch
//! descriptor costs nothing that the reproduction could measure (`mask_cost = "reconfiguration"`: the
//! 4 µs that another system measured for it).
//!
//! Chosen here: without given `quotas` the latency-critical tenants share all CUs and best-effort ones
//! live by stealing, where there are both; idle is a CU on which nothing was launched at this moment,
//! also while its owner has a batch under way (`steal = "idle-tenants"`: only those of tenants without
//! one); the two durations of a kernel and its share of DRAM's bandwidth are known from the start, as
//! after its first launches; of a tenant's kernels the clock sees the mean, weighted by their time, of
//! the last `clock_window`; every tenant counts, and the most sensitive one decides; steps of 15 MHz;
//! no clock below 60 % of the boost clock, where voltage stops following it.
//!
//! Source: Coppock et al.: LithOS (SOSP 2025, arXiv 2504.15465).

use cotenant_profiles::Nanos;
use cotenant_profiles::device::DispatchRule;

mod clock;

use super::ranks::Ranks;
use super::{Depth, LayoutError, PerTenant, Policy, PolicyInfo, Properties};
use crate::action::{Action, Event, Via};
use crate::counter::{Amount, Count};
use crate::layout::Layout;
use crate::mask::CuMask;
use crate::program::KernelCode;
use crate::scenario::{Class, Setup};
use crate::view::{Status, View};
use crate::{counters, options, words};
use clock::Clock;

/// The registry entry.
pub(super) const INFO: PolicyInfo = PolicyInfo {
    name: "lithos",
    summary: "quotas of CUs, idle ones stolen in atoms of bounded duration, kernels right-sized",
    source: "LithOS (SOSP 2025, arXiv 2504.15465) and a public reproduction",
    properties: Properties {
        work_conserving: false,
        alone_is_isolated: false,
        starvation_free: false,
    },
    options: Knobs::SPECS,
    counters: Lithos::COUNTERS,
    build: |options| Ok(Box::new(Lithos::new(Knobs::read(options)?))),
};

options! {
    /// Options of `lithos`.
    struct Knobs {
        /// CUs of each tenant
        quotas: PerTenant<Rule> = PerTenant::Word(Rule::LatencyFirst), unit("%");
        /// longest atom on a tenant's own CUs
        atom: Nanos = Nanos(250_000), period();
        /// longest atom on CUs of others
        stolen_atom: Nanos = Nanos(100_000), period();
        /// which CUs of others a tenant may take
        steal: Steal = Steal::IdleCus;
        /// how the mask is set: in the launch descriptor at no cost, or as a reconfiguration
        mask_cost: MaskCost = MaskCost::Descriptor;
        /// kernels get no more CUs than they need
        right_size: bool = true;
        /// how much slower a right-sized kernel may be
        slip: f64 = 1.1, within(1.0, 10.0);
        /// the board's clock follows what its tenants' kernels need
        scaling: bool = false;
        /// how much slower a lower clock may make a tenant's kernels
        clock_slip: f64 = 1.1, within(1.0, 10.0);
        /// how often a clock is chosen
        clock_window: Nanos = Nanos::from_millis(250), period();
        /// lowest clock, of the boost clock
        clock_least: f64 = 60.0, within(1.0, 100.0), unit("%");
    }
}

/// How quotas are determined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rule {
    LatencyFirst,
    Equal,
}

words!(Rule { "latency-first" => Rule::LatencyFirst, "equal" => Rule::Equal });

/// Which CUs may be stolen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Steal {
    IdleCus,
    IdleTenants,
    Nothing,
}

words!(Steal {
    "idle-cus" => Steal::IdleCus,
    "idle-tenants" => Steal::IdleTenants,
    "nothing" => Steal::Nothing,
});

/// What a mask costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum MaskCost {
    Descriptor,
    Reconfiguration,
}

words!(MaskCost {
    "descriptor" => MaskCost::Descriptor,
    "reconfiguration" => MaskCost::Reconfiguration,
});

impl MaskCost {
    fn via(self) -> Via {
        match self {
            Self::Descriptor => Via::Intercept,
            Self::Reconfiguration => Via::InterceptMaskTpc,
        }
    }
}

struct Lithos {
    knobs: Knobs,
    ranks: Ranks,
    all: CuMask,
    /// CUs of each group, where blocks are split evenly over groups.
    groups: Option<Vec<u32>>,
    /// By tenant.
    quotas: Vec<CuMask>,
    /// By kernel: its right size, CUs.
    sizes: Vec<u32>,
    /// By worker: the CUs of the kernel that it has launched.
    held: Vec<CuMask>,
    looking: bool,
    clock: Clock,
    counts: Counts,
}

#[derive(Default)]
struct Counts {
    kernels: u64,
    atoms: u64,
    stolen: u64,
    cus: u64,
}

impl Counts {
    fn launches(&self) -> u64 {
        self.kernels + self.atoms
    }
}

impl Lithos {
    fn new(knobs: Knobs) -> Self {
        Self {
            knobs,
            ranks: Ranks::default(),
            all: CuMask::EMPTY,
            groups: None,
            quotas: vec![],
            sizes: vec![],
            held: vec![],
            looking: false,
            clock: Clock::default(),
            counts: Counts::default(),
        }
    }

    /// The CUs of each tenant: whole steps, side by side.
    fn divide(&self, setup: &Setup) -> Result<Vec<CuMask>, LayoutError> {
        let step = setup.device.mask.step_cus.max(1);
        let steps = setup.device.cus() / step;
        let count = |class| setup.tenants.iter().filter(|t| t.class == class).count() as u32;
        let (latency, effort) = (count(Class::Latency), count(Class::BestEffort));
        let each: Vec<u32> = match &self.knobs.quotas {
            PerTenant::Word(Rule::LatencyFirst) if latency > 0 && effort > 0 => setup
                .tenants
                .iter()
                .map(|t| if t.class == Class::Latency { steps / latency } else { 0 })
                .collect(),
            PerTenant::Word(_) => vec![steps / (latency + effort).max(1); setup.tenants.len()],
            PerTenant::Given(value) => {
                let shares = setup.per_tenant("quotas", value)?;
                let of = |p: f64| (f64::from(steps) * p / 100.0 + 1e-9) as u32;
                shares.into_iter().map(of).collect()
            }
        };
        if each.iter().sum::<u32>() > steps {
            return Err(LayoutError(format!(
                "`quotas` add up to more than the {} CUs of {}",
                setup.device.cus(),
                setup.device.name
            )));
        }
        let mut from = 0;
        Ok(each
            .into_iter()
            .map(|n| {
                let to = from + n * step;
                let quota = CuMask::first(to).without(&CuMask::first(from));
                from = to;
                quota
            })
            .collect())
    }

    /// The fewest CUs at which the fitted curve is within the slip of its value at all CUs.
    fn size(&self, kernel: &KernelCode, step: u32, cus: u32) -> u32 {
        if !self.knobs.right_size || cus <= step {
            return cus;
        }
        let (one, all) = (kernel.at(step) as f64, kernel.at(cus) as f64);
        let (x1, x2) = (1.0 / f64::from(step), 1.0 / f64::from(cus));
        let m = (one - all) / (x1 - x2);
        let b = all - m * x2;
        let limit = all * self.knobs.slip;
        let fits = |c: &u32| m / f64::from(*c) + b <= limit;
        let fitted = (1..=cus / step).map(|n| n * step).find(fits).unwrap_or(cus);
        // No more CUs than it has blocks, rounded up to as many as are needed for that number to
        // contribute.
        let most = u32::try_from(kernel.blocks).unwrap_or(cus).next_multiple_of(step);
        let least = fitted.min(most).clamp(1, cus);
        (least..=cus).find(|&n| self.choose(&self.all, n).count() >= least).unwrap_or(cus)
    }

    /// At most `n` of these CUs, chosen so that each of them contributes.
    fn choose(&self, from: &CuMask, n: u32) -> CuMask {
        match &self.groups {
            Some(groups) => from.evenly(n, groups),
            None => from.lowest(n),
        }
    }

    /// The CUs for a kernel that asks for `want`: its tenant's own, those without a thief first, then
    /// idle CUs of other tenants. Also returns which of them are its own.
    fn mask(&self, want: u32, quota: &CuMask, busy: &CuMask, idle: &CuMask) -> (CuMask, CuMask) {
        if self.groups.is_none() {
            let own = quota.without(busy).lowest(want);
            let own = own.or(&quota.and(busy).lowest(want - own.count()));
            return (own.or(&idle.lowest(want - own.count())), own);
        }
        // Blocks are split evenly over groups: one more CU in only one group would slow the kernel.
        let from = [quota.without(busy), *quota, quota.or(idle)];
        let masks = from.map(|from| self.choose(&from, want));
        // The first of the largest.
        let mask = masks.into_iter().rev().max_by_key(CuMask::count).unwrap_or(CuMask::EMPTY);
        (mask, mask.and(quota))
    }

    /// Launches the kernel that a worker holds, if there are CUs for it.
    fn place(&mut self, view: &View<'_>, worker: u32, act: &mut Vec<Action>) {
        let w = &view.workers[worker as usize];
        let tenant = w.spec.tenant as usize;
        let kernel = &view.setup.code.kernels[w.kernel as usize];
        let want = self.sizes[w.kernel as usize];
        let (mut busy, mut mine) = (CuMask::EMPTY, CuMask::EMPTY);
        for (other, held) in view.workers.iter().zip(&self.held) {
            busy = busy.or(held);
            if other.spec.tenant == w.spec.tenant {
                mine = mine.or(held);
            }
        }
        let quota = self.quotas[tenant].without(&mine);
        let mut idle = match self.knobs.steal {
            Steal::Nothing => CuMask::EMPTY,
            _ => self.all.without(&busy).without(&self.quotas[tenant]),
        };
        if self.knobs.steal == Steal::IdleTenants && !idle.is_empty() {
            for owner in view.workers {
                let at_work =
                    matches!(owner.status, Status::Host | Status::Held | Status::Launched);
                if at_work && owner.spec.tenant != w.spec.tenant {
                    idle = idle.without(&self.quotas[owner.spec.tenant as usize]);
                }
            }
        }
        let (mask, own) = self.mask(want, &quota, &busy, &idle);
        if mask.is_empty() {
            return;
        }
        let stolen = mask != own;
        let cus = mask.count();
        let bound = if stolen { self.knobs.stolen_atom } else { self.knobs.atom };
        let priority = i8::from(!stolen);
        self.held[worker as usize] = mask;
        self.counts.stolen += u64::from(stolen);
        self.counts.cus += u64::from(cus);
        let (mask, via) = (Some(mask), self.knobs.mask_cost.via());
        let time = kernel.at(cus) as f64 * w.left;
        if time <= bound.0 as f64 || kernel.fair {
            self.counts.kernels += 1;
            self.clock.saw(tenant, w.kernel, w.left);
            act.push(Action::Launch { worker, mask, priority, via });
            return;
        }
        let at_once = u64::from(kernel.blocks_per_cu.max(1)) * u64::from(cus);
        let wave = kernel.at(cus) / kernel.blocks.div_ceil(at_once).max(1);
        let blocks = (bound.0 / wave.max(1)).max(1) * at_once;
        self.counts.atoms += 1;
        let share = blocks as f64 / kernel.blocks.max(1) as f64;
        self.clock.saw(tenant, w.kernel, share.min(w.left));
        act.push(Action::Slice { worker, blocks, mask, priority, via });
    }

    /// CUs have become free: waiting workers try again, latency-critical ones first.
    fn look(&mut self, view: &View<'_>, act: &mut Vec<Action>) {
        for worker in 0..view.workers.len() as u32 {
            let held = view.workers[worker as usize].status == Status::Held;
            if held && self.ranks.urgent(view, worker) {
                self.place(view, worker, act);
            }
        }
        let n = view.workers.len() as u32;
        let start = self.ranks.turn(n);
        for i in 0..n {
            let worker = (start + i) % n;
            let held = view.workers[worker as usize].status == Status::Held;
            if held && !self.ranks.urgent(view, worker) {
                self.place(view, worker, act);
            }
        }
    }

    fn release(&mut self, view: &View<'_>, worker: u32, act: &mut Vec<Action>) {
        self.held[worker as usize] = CuMask::EMPTY;
        // The next kernel of its stream may be ready at this very instant, and goes first.
        if !std::mem::replace(&mut self.looking, true) {
            act.push(Action::Timer { at: view.now, token: 0 });
        }
    }

    fn await_window(&self, view: &View<'_>, act: &mut Vec<Action>) {
        act.push(Action::Timer { at: view.now + self.knobs.clock_window, token: WINDOW });
    }
}

/// The timer at which a clock is chosen.
const WINDOW: u64 = 1;

counters! {
    Lithos |lithos|
    /// launched in one piece
    "whole_kernels", unit("kernels") = lithos.counts.kernels;
    /// of a part of a kernel
    "atoms", unit("launches") = lithos.counts.atoms;
    /// of the launches, those on CUs of another tenant
    "stolen_share", unit("0 to 1") = Amount::mean(lithos.counts.stolen, lithos.counts.launches());
    /// granted to a launch, mean
    "granted_cus_mean", unit("CUs") = Amount::mean(lithos.counts.cus, lithos.counts.launches());
    /// of the board's clock
    "clocks_set", unit("changes") = lithos.clock.changes;
}

impl Policy for Lithos {
    fn depth(&self) -> Depth {
        Depth::Kernel
    }

    fn forms_batches(&self) -> bool {
        false
    }

    fn layout(&mut self, setup: &Setup) -> Result<Layout, LayoutError> {
        let layout = setup.clients(|_| setup.device.cus())?;
        let cus = setup.device.cus();
        if cus > CuMask::CAPACITY {
            return Err(LayoutError(format!("masks name at most {} CUs", CuMask::CAPACITY)));
        }
        self.ranks = Ranks::new(setup);
        self.all = CuMask::first(cus);
        self.groups = match setup.device.dispatch.rule {
            DispatchRule::EvenGroups => Some(setup.device.topology.groups.clone()),
            DispatchRule::LeastLoaded => None,
        };
        self.quotas = self.divide(setup)?;
        let step = setup.device.mask.step_cus.max(1);
        self.sizes = setup.code.kernels.iter().map(|k| self.size(k, step, cus)).collect();
        self.held = vec![CuMask::EMPTY; layout.workers.len()];
        if self.knobs.scaling {
            self.clock = Clock::new(setup, self.knobs.clock_slip, self.knobs.clock_least / 100.0);
        }
        Ok(layout)
    }

    fn event(&mut self, event: Event, view: &View<'_>, act: &mut Vec<Action>) {
        match event {
            Event::Start if self.knobs.scaling => self.await_window(view, act),
            Event::KernelReady { worker } => self.place(view, worker, act),
            Event::SliceDone { worker } => {
                // Waiting workers try before the next atom is launched.
                self.release(view, worker, act);
            }
            Event::KernelDone { worker } | Event::WorkerDown { worker } => {
                self.held.resize(view.workers.len(), CuMask::EMPTY);
                self.release(view, worker, act);
            }
            Event::Timer { token: WINDOW } => {
                act.extend(self.clock.choose().map(|mhz| Action::SetClock { mhz }));
                self.await_window(view, act);
            }
            Event::Timer { .. } => {
                self.looking = false;
                self.look(view, act);
            }
            // Its tenant is idle from now on.
            Event::BatchDone { .. } if self.knobs.steal == Steal::IdleTenants => {
                self.look(view, act);
            }
            _ => {}
        }
    }

    fn counters(&self) -> Vec<Count> {
        self.counted()
    }
}
