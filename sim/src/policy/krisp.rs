//! `krisp`: a mask per kernel, as large as the kernel needs and placed on the least used CUs.
//!
//! Models kernel-wise right-sizing: an offline sweep finds, for every kernel, the fewest CUs that
//! leave its latency as it is; at dispatch the packet processor looks the number up, chooses the CUs
//! with the fewest resident kernels, and launches the kernel under that mask. Gives up work
//! conservation: a kernel keeps its mask to its end, also when the rest of the GPU falls idle. A CU
//! belongs to one kernel at a time in the device model, so what overlapping masks gain by sharing a
//! CU's slots is not seen.
//!
//! Read in the sources: the size is looked up by (kernel name, total work-items), a kernel without an
//! entry gets the whole GPU; a counter of resident kernels per CU; the three shapes; the mask of the
//! next kernel releases that of the previous one in the authors' emulation (`next-dispatch`), while
//! the proposed hardware counts down at completion; about 1 µs to compute a mask in firmware, up to
//! 55.4 µs to set one by a system call. KRISP-I is `oversubscription = 0`, KRISP-O all CUs.
//!
//! Chosen here, since the sources are silent: the accepted slow-down (`tolerance`); ties go to the
//! lowest index; kernels that share a table key share the largest of their sizes; all three shapes
//! rank groups and CUs by their counters; at least one CU is granted although the limit is reached
//! (the one with the fewest kernels in the least loaded group, where the kernel then waits for its
//! turn); how a mask shrinks when too few CUs are free (`shrink`); and the sweep ran under masks of
//! the same shape (`sizing`), so that a size whose shape wastes CUs is never in the table.
//!
//! Equal tenants do not get equal service. Who asks while every CU is taken is granted one, and
//! keeps it to the kernel's end; that kernel then runs long, and the others meanwhile find their full
//! masks again. With three tenants of wide kernels the best served gets twice what the others get
//! (the conformance tests print the numbers); which tenant that is depends on the order of the first
//! requests.
//!
//! Source: Chow, Jahanshahi, Wong: KRISP (HPCA 2023), and the authors' ROCm fork
//! (github.com/socal-ucr/ROCclr, branch `cu_masking_dev`); the cost of the system call from ECLIP
//! (arXiv 2506.12598).

use std::collections::BTreeMap;

use super::{Depth, LayoutError, Policy, PolicyInfo, Properties};
use crate::action::{Action, Event, Via};
use crate::counter::{Amount, Count};
use crate::layout::Layout;
use crate::mask::CuMask;
use crate::program::KernelCode;
use crate::scenario::Setup;
use crate::view::View;
use crate::{counters, options, words};

mod placement;

use placement::{Board, Shape, Shrink};

/// The registry entry.
pub(super) const INFO: PolicyInfo = PolicyInfo {
    name: "krisp",
    summary: "a mask per kernel: right-sized, placed by live CU counters",
    source: "KRISP (HPCA 2023)",
    properties: Properties {
        work_conserving: false,
        alone_is_isolated: false,
        starvation_free: false,
    },
    options: Knobs::SPECS,
    counters: Krisp::COUNTERS,
    build: |options| Ok(Box::new(Krisp::new(Knobs::read(options)?))),
};

options! {
    /// Options of `krisp`.
    struct Knobs {
        /// CUs of a mask that may already run other kernels: 0 is KRISP-I, all KRISP-O
        oversubscription: u32 = 0, whole(0, CuMask::CAPACITY as i64), unit("CUs");
        /// slow-down accepted for fewer CUs
        tolerance: f64 = 0.05, within(0.0, 1.0);
        /// fewest groups evenly filled, one group after the other, or all groups evenly
        shape: Shape = Shape::Conserved;
        /// how masks are set: packet processor, system call, launch descriptor, for free
        mask_cost: MaskCost = MaskCost::Firmware;
        /// when a kernel's CUs count as free: at its end, or when its stream's next asks
        release: Release = Release::Completion;
        /// too few CUs free: the best even mask of those there are, or what is left of it
        shrink: Shrink = Shrink::Balance;
        /// the size table: swept under masks of this shape, or read off the curve
        sizing: Sizing = Sizing::Mask;
        /// kernels in the table: every batch size's, the largest batch's, or none
        known: Known = Known::All;
    }
}

/// Which kernels the offline sweep saw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Known {
    All,
    LargestBatch,
    None,
}

words!(Known {
    "all" => Known::All,
    "largest-batch" => Known::LargestBatch,
    "none" => Known::None,
});

words!(Shape {
    "conserved" => Shape::Conserved,
    "packed" => Shape::Packed,
    "distributed" => Shape::Distributed,
});

words!(Shrink { "balance" => Shrink::Balance, "stop" => Shrink::Stop });

/// How masks are set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum MaskCost {
    Firmware,
    Ioctl,
    Tpc,
    Ideal,
}

words!(MaskCost {
    "firmware" => MaskCost::Firmware,
    "ioctl" => MaskCost::Ioctl,
    "tpc" => MaskCost::Tpc,
    "ideal" => MaskCost::Ideal,
});

/// When a kernel's CUs count as free.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Release {
    Completion,
    NextDispatch,
}

words!(Release { "completion" => Release::Completion, "next-dispatch" => Release::NextDispatch });

/// How the size table is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sizing {
    Mask,
    Curve,
}

words!(Sizing { "mask" => Sizing::Mask, "curve" => Sizing::Curve });

impl MaskCost {
    fn via(self) -> Via {
        match self {
            Self::Firmware => Via::MaskFirmware,
            Self::Ioctl => Via::MaskIoctl,
            Self::Tpc => Via::MaskTpc,
            Self::Ideal => Via::Stream,
        }
    }
}

struct Krisp {
    knobs: Knobs,
    board: Option<Board>,
    /// By kernel: the CUs to ask for, and whether the table has an entry for it.
    table: Vec<(u32, bool)>,
    /// By worker: the mask that it holds; empty if none.
    held: Vec<CuMask>,
    counts: Counts,
}

#[derive(Default)]
struct Counts {
    kernels: u64,
    unknown: u64,
    shrunk: u64,
    overlapped: u64,
    asked: u64,
    granted: u64,
    shared_keys: u64,
}

impl Krisp {
    fn new(knobs: Knobs) -> Self {
        Self { knobs, board: None, table: vec![], held: vec![], counts: Counts::default() }
    }

    /// The offline sweep: the size of every kernel, by the key that the runtime sees.
    fn sweep(&mut self, setup: &Setup, board: &mut Board) {
        let all = board.cus();
        let effective: Vec<u32> = (0..=all).map(|n| board.effective(self.knobs.shape, n)).collect();
        let kernels = &setup.code.kernels;
        let mut sizes: BTreeMap<(&str, u64), u32> = BTreeMap::new();
        for (kernel, profiled) in kernels.iter().zip(self.profiled(setup)) {
            if !profiled {
                continue;
            }
            let size = board.legal(self.size(kernel, &effective).max(setup.device.mask.min_cus));
            let known = *sizes.entry(key(kernel)).or_insert(size);
            self.counts.shared_keys += u64::from(known != size);
            sizes.insert(key(kernel), known.max(size));
        }
        self.table = kernels
            .iter()
            .map(|k| sizes.get(&key(k)).map_or((all, false), |&n| (n, true)))
            .collect();
    }

    /// The fewest CUs of a mask at which the kernel is at most `tolerance` slower than on all.
    fn size(&self, kernel: &KernelCode, effective: &[u32]) -> u32 {
        let all = effective.len() as u32 - 1;
        if self.knobs.sizing == Sizing::Curve {
            return kernel.min_cu(self.knobs.tolerance).min(all);
        }
        let limit = kernel.at(effective[all as usize]) as f64 * (1.0 + self.knobs.tolerance);
        let fits = |n: &u32| kernel.at(effective[*n as usize]) as f64 <= limit;
        (1..=all).find(fits).unwrap_or(all)
    }

    /// Which kernels the sweep saw, by kernel.
    fn profiled(&self, setup: &Setup) -> Vec<bool> {
        let mut seen = vec![self.knobs.known == Known::All; setup.code.kernels.len()];
        if self.knobs.known == Known::LargestBatch {
            for tenant in &setup.tenants {
                for &k in &tenant.model.program(tenant.batch_max).kernels {
                    seen[k as usize] = true;
                }
            }
        }
        seen
    }

    fn launch(&mut self, worker: u32, kernel: u32) -> Action {
        let board = self.board.as_mut().expect("layout comes before events");
        let held = &mut self.held[worker as usize];
        board.release(held);
        let (asked, known) = self.table[kernel as usize];
        let knobs = &self.knobs;
        let grant = board.acquire(asked, knobs.shape, knobs.oversubscription, knobs.shrink);
        *held = grant.mask;
        let granted = grant.count;
        self.counts.kernels += 1;
        self.counts.unknown += u64::from(!known);
        self.counts.shrunk += u64::from(granted < asked);
        self.counts.overlapped += u64::from(grant.overlap > 0);
        self.counts.asked += u64::from(asked);
        self.counts.granted += u64::from(granted);
        Action::Launch {
            worker,
            mask: Some(grant.mask),
            priority: 0,
            via: self.knobs.mask_cost.via(),
        }
    }
}

/// What the runtime knows of a kernel at launch: its name and its work-items.
fn key(kernel: &KernelCode) -> (&str, u64) {
    (&kernel.name, kernel.blocks.saturating_mul(u64::from(kernel.threads)))
}

counters! {
    Krisp |krisp|
    /// that the policy was asked about
    "kernels", unit("kernels") = krisp.counts.kernels;
    /// without a curve in the profile
    "unknown_kernels", unit("kernels") = krisp.counts.unknown;
    /// that got fewer CUs than they asked for
    "shrunk_kernels", unit("kernels") = krisp.counts.shrunk;
    /// that got CUs which others had, too
    "overlapped_kernels", unit("kernels") = krisp.counts.overlapped;
    /// that a kernel asked for, mean
    "asked_cus_mean", unit("CUs") = Amount::mean(krisp.counts.asked, krisp.counts.kernels);
    /// granted to a launch, mean
    "granted_cus_mean", unit("CUs") = Amount::mean(krisp.counts.granted, krisp.counts.kernels);
    /// whose table entry another kernel has, too
    "shared_keys", unit("kernels") = krisp.counts.shared_keys;
}

impl Policy for Krisp {
    fn depth(&self) -> Depth {
        Depth::Kernel
    }

    fn forms_batches(&self) -> bool {
        false
    }

    fn layout(&mut self, setup: &Setup) -> Result<Layout, LayoutError> {
        let layout = setup.clients(|_| setup.device.cus())?;
        let Some(mut board) = Board::new(&setup.device, layout.workers.len() as u32) else {
            return Err(LayoutError(format!(
                "{}: masks in steps of {} CUs need groups of at least one step and at most 64 CUs",
                setup.device.name, setup.device.mask.step_cus
            )));
        };
        self.held = vec![CuMask::EMPTY; layout.workers.len()];
        self.sweep(setup, &mut board);
        self.board = Some(board);
        Ok(layout)
    }

    fn event(&mut self, event: Event, view: &View<'_>, act: &mut Vec<Action>) {
        match event {
            Event::KernelReady { worker } => {
                act.push(self.launch(worker, view.workers[worker as usize].kernel));
            }
            Event::KernelDone { worker } if self.knobs.release == Release::Completion => {
                let held = std::mem::take(&mut self.held[worker as usize]);
                self.board.as_mut().expect("layout comes before events").release(&held);
            }
            _ => {}
        }
    }

    fn counters(&self) -> Vec<Count> {
        self.counted()
    }
}
