//! `tally`: best-effort kernels cut at block boundaries, out of the way within a bound.
//!
//! Models Tally: best-effort kernels run only while no latency-critical work is there, and each in the
//! form that gets out of the way in time: as it is where it is short enough; as slices, launches of some
//! of its blocks each; or in persistent-thread form, whose blocks look for an order to stop before each
//! piece of work. A profiler chooses the form that costs least and turns around within the bound. Gives
//! up sharing in space, and the overhead of the forms: a launch per slice, or longer blocks.
//!
//! Read in the sources: the two transformations and that the choice is by measured turnaround and
//! throughput; latency-critical first, always; the abstract's numbers (7.2 % on p99, 80 % of TGS's
//! throughput).
//!
//! Chosen here: the bound of 31.6 µs is recalled from the artifact's settings, not read; the
//! persistent-thread form takes a device file's `persistent_percent` of the kernel's time, also where
//! it is not interrupted; a kernel whose single block lasts longer than the bound is interrupted at that
//! block's end; by default best-effort kernels wait for the whole latency-critical batch (`yields =
//! "batch"`), since filling the gaps between its kernels costs each of them up to the bound.
//!
//! Source: Zhao, Jayarajan, Pekhimenko: Tally (ASPLOS 2025, arXiv 2410.07381).

use cotenant_profiles::Nanos;

use super::ranks::Ranks;
use super::{Depth, LayoutError, Policy, PolicyInfo, Properties};
use crate::action::{Action, Event, Preemption, Via};
use crate::counter::Count;
use crate::layout::Layout;
use crate::program::KernelCode;
use crate::scenario::Setup;
use crate::view::{Status, View};
use crate::{counters, options, words};

/// The registry entry.
pub(super) const INFO: PolicyInfo = PolicyInfo {
    name: "tally",
    summary: "best-effort kernels in slices or persistent threads, stopped at block boundaries",
    source: "Tally (ASPLOS 2025, arXiv 2410.07381)",
    properties: Properties {
        work_conserving: false,
        alone_is_isolated: true,
        starvation_free: false,
    },
    options: Knobs::SPECS,
    counters: Tally::COUNTERS,
    build: |options| Ok(Box::new(Tally::new(Knobs::read(options)?))),
};

options! {
    /// Options of `tally`.
    struct Knobs {
        /// longest time until a best-effort kernel is out of the way
        turnaround: Nanos = Nanos(31_600), period();
        /// how kernels that last longer are run: the cheaper form, slices, or persistent threads
        form: Form = Form::Cheaper;
        /// best-effort kernels run between latency-critical batches, or also between their kernels
        yields: Yields = Yields::Batch;
    }
}

/// How kernels beyond the bound are run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Cheaper,
    Slices,
    Persistent,
}

words!(Form {
    "cheaper" => Form::Cheaper,
    "slices" => Form::Slices,
    "persistent" => Form::Persistent,
});

/// What best-effort kernels yield to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Yields {
    Batch,
    Kernel,
}

words!(Yields { "batch" => Yields::Batch, "kernel" => Yields::Kernel });

/// How a kernel is run as a best-effort one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Run {
    Whole,
    Slices(u64),
    Persistent,
}

struct Tally {
    knobs: Knobs,
    ranks: Ranks,
    runs: Vec<Run>,
    looking: bool,
    counts: [u64; 4],
}

impl Tally {
    fn new(knobs: Knobs) -> Self {
        Self { knobs, ranks: Ranks::default(), runs: vec![], looking: false, counts: [0; 4] }
    }

    /// The form that a profiler would choose for a kernel.
    fn run_of(&self, kernel: &KernelCode, setup: &Setup) -> Run {
        let cus = setup.device.cus();
        let whole = kernel.at(cus);
        if whole <= self.knobs.turnaround.0 || kernel.blocks < 2 {
            return Run::Whole;
        }
        let at_once = (u64::from(kernel.blocks_per_cu) * u64::from(cus)).min(kernel.blocks).max(1);
        let waves = kernel.blocks.div_ceil(at_once);
        let wave = whole.div_ceil(waves);
        // As many waves as fit within the bound, at least one.
        let blocks = (self.knobs.turnaround.0 / wave).max(1) * at_once;
        let slices = Run::Slices(blocks);
        if self.knobs.form == Form::Persistent || blocks >= kernel.blocks {
            return Run::Persistent;
        }
        let launches = kernel.blocks.div_ceil(blocks) * setup.costs.kernel_slice.cost.0;
        let longer = whole * u64::from(setup.costs.persistent_percent.saturating_sub(100)) / 100;
        if self.knobs.form == Form::Slices || launches <= longer { slices } else { Run::Persistent }
    }

    fn pressed(&self, view: &View<'_>) -> bool {
        match self.knobs.yields {
            Yields::Batch => self.ranks.pressed(view),
            Yields::Kernel => self.ranks.on_gpu(view),
        }
    }

    fn stop(&mut self, view: &View<'_>, act: &mut Vec<Action>) {
        for worker in self.ranks.effort(view, Status::Launched) {
            let kernel = view.workers[worker as usize].kernel;
            if self.runs[kernel as usize] == Run::Persistent {
                act.push(Action::Preempt { worker, how: Preemption::Blocks });
            }
        }
    }

    fn fill(&mut self, view: &View<'_>, act: &mut Vec<Action>) {
        if self.pressed(view) {
            return;
        }
        for worker in self.ranks.effort(view, Status::Held) {
            let (mask, priority, via) = (None, 0, Via::Intercept);
            act.push(match self.runs[view.workers[worker as usize].kernel as usize] {
                Run::Whole => {
                    self.counts[0] += 1;
                    Action::Launch { worker, mask, priority, via }
                }
                Run::Slices(blocks) => {
                    self.counts[1] += 1;
                    Action::Slice { worker, blocks, mask, priority, via }
                }
                Run::Persistent => {
                    self.counts[2] += 1;
                    Action::Launch { worker, mask, priority, via: Via::Persistent }
                }
            });
        }
    }
}

counters! {
    Tally |tally|
    /// launched in one piece
    "whole_kernels", unit("kernels") = tally.counts[0];
    /// of a part of a kernel
    "slices", unit("launches") = tally.counts[1];
    /// launched as persistent threads
    "persistent_kernels", unit("kernels") = tally.counts[2];
    /// taken off the CUs before their end
    "preempted", unit("kernels") = tally.counts[3];
}

impl Policy for Tally {
    fn depth(&self) -> Depth {
        Depth::Kernel
    }

    fn forms_batches(&self) -> bool {
        false
    }

    fn layout(&mut self, setup: &Setup) -> Result<Layout, LayoutError> {
        self.ranks = Ranks::new(setup);
        self.runs = setup.code.kernels.iter().map(|k| self.run_of(k, setup)).collect();
        setup.clients(|_| setup.device.cus())
    }

    fn event(&mut self, event: Event, view: &View<'_>, act: &mut Vec<Action>) {
        match event {
            Event::RequestArrived { tenant }
                if self.ranks.urgent_tenant(tenant) && self.knobs.yields == Yields::Batch =>
            {
                self.stop(view, act);
            }
            Event::KernelReady { worker } if self.ranks.urgent(view, worker) => {
                self.stop(view, act);
                act.push(Action::Launch { worker, mask: None, priority: 1, via: Via::Intercept });
            }
            // The next kernel of its stream may be ready at this very instant.
            Event::KernelDone { worker }
                if self.knobs.yields == Yields::Kernel
                    && self.ranks.urgent(view, worker)
                    && !std::mem::replace(&mut self.looking, true) =>
            {
                act.push(Action::Timer { at: view.now, token: 0 });
            }
            Event::Timer { .. } => {
                self.looking = false;
                self.fill(view, act);
            }
            Event::KernelPreempted { .. } => {
                self.counts[3] += 1;
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
