//! Measures latency curves: every distinct kernel of some models at every CU count of a ladder, under
//! green contexts, by device events.
//!
//! Visits come in rounds. A round goes from the whole device to the half to the rest of the ladder,
//! so that a budget that runs out leaves the most informative points; within each step the order is
//! random, so that a drift of clocks spreads over all kernels. Every visit is a line of
//! `visits.jsonl`, flushed at once: a collection that was killed goes on where it stopped.

mod assemble;
mod corun;
mod journal;
mod plan;

use std::path::Path;
use std::time::{Duration, Instant};

use cotenant_profiles::files::FileError;

use crate::cuda::{CudaDevice, Granularity};
use crate::device::{Device, DeviceInfo, Kind, Overhead};
use crate::error::DeviceError;
use crate::nvml::Nvml;

pub use assemble::Collected;
pub(crate) use assemble::today;
pub use journal::{Journal, Visit};
pub(crate) use plan::same_gpu;
pub use plan::{Plan, PlanError, Point, Request, plan};

/// Launches before those that count: clocks rise, caches fill, code is loaded.
const WARM_UP: usize = 3;

/// Why a collection ended.
#[derive(Debug, thiserror::Error)]
pub enum CollectError {
    /// The device.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// What cannot be planned.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The profile cannot be written.
    #[error(transparent)]
    File(#[from] FileError),
    /// The journal.
    #[error("{0}")]
    Journal(String),
    /// The budget ended before any model was complete.
    #[error(
        "the budget is spent before every kernel was measured once; go on with the same command"
    )]
    Nothing,
}

/// How far a collection is.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// Visits made, by earlier runs as well.
    pub done: usize,
    /// Visits planned.
    pub planned: usize,
    /// Time left at the pace so far, or until the budget ends.
    pub left: Duration,
}

/// Collects into `folder`, telling `progress` after every visit.
///
/// # Errors
/// No GPU, a failed launch, or a folder that cannot be written. A kernel that cannot be prepared
/// (a library is missing) fails at once, before anything is measured.
pub fn collect(
    request: &Request,
    folder: &Path,
    progress: &mut dyn FnMut(Progress),
) -> Result<Collected, CollectError> {
    let began = Instant::now();
    let mut fine = Bench::open(Granularity::Fine)?;
    let mut coarse = Bench::open(Granularity::Coarse)?;
    if fine.gpu.info().kind == Kind::Emulated {
        return Err(DeviceError::NotAGpu(fine.gpu.info().name.clone()).into());
    }
    let (found, title) = (fine.gpu.info().name.clone(), request.device.title.clone());
    if fine.gpu.info().kind == Kind::Gpu && !same_gpu(&title, &found) {
        let name = request.device.name.clone();
        return Err(PlanError::OtherName { name, described: title, found }.into());
    }
    let plan = plan(request, fine.gpu.info().cus, fine.gpu.divisible_cus())?;
    let nvml = Nvml::open(&fine.gpu.info().uuid).ok();
    let identity = identity(request, fine.gpu.info());
    let mut journal = Journal::open(folder, &identity)?;
    let overhead = fine.gpu.overhead()?;
    let known = journal.visits().len();
    for visit in plan.visits(request) {
        if journal.has(&visit) {
            continue;
        }
        if request.budget.is_some_and(|b| began.elapsed() >= b) {
            break;
        }
        let bench = if visit.point.coarse { &mut coarse } else { &mut fine };
        let samples = bench.visit(&plan, visit.point, request.samples)?;
        let facts = bench.last_facts.clone();
        journal.add(visit, samples, facts, nvml.as_ref().map(Nvml::read).unwrap_or_default())?;
        let (done, planned) = (journal.visits().len(), plan.visit_count(request));
        progress(Progress {
            done,
            planned,
            left: left(began, done - known, planned - done, request),
        });
    }
    let with = (request, identity.as_str());
    let pairs = corun::corun(&mut fine, &plan, &journal, with, folder, began)?;
    let driver = nvml.as_ref().and_then(Nvml::driver).unwrap_or_default();
    let source = Measured { info: fine.gpu.info().clone(), overhead, driver };
    assemble::assemble(request, &plan, &journal, pairs, &source, folder)
}

/// What was measured on, and what measuring cost.
struct Measured {
    info: DeviceInfo,
    overhead: Overhead,
    driver: String,
}

/// A journal belongs to one GPU and one request.
fn identity(request: &Request, info: &DeviceInfo) -> String {
    format!("{} {} {} seed {}", info.name, info.uuid, request.precision, request.seed)
}

fn left(began: Instant, made: usize, to_do: usize, request: &Request) -> Duration {
    let pace = began.elapsed() / u32::try_from(made.max(1)).unwrap_or(u32::MAX);
    let left = pace.saturating_mul(u32::try_from(to_do).unwrap_or(u32::MAX));
    let budget = request.budget.map(|b| b.saturating_sub(began.elapsed()));
    budget.map_or(left, |b| left.min(b))
}

/// A device with the queues of its partitions.
struct Bench {
    gpu: CudaDevice,
    queues: Vec<((u32, u32), crate::device::Queue)>,
    last_facts: Option<crate::cuda::LaunchFacts>,
}

impl Bench {
    fn open(granularity: Granularity) -> Result<Self, DeviceError> {
        let gpu = CudaDevice::open(0, granularity)?;
        Ok(Self { gpu, queues: Vec::new(), last_facts: None })
    }

    /// A queue on `cus` CUs from `first` on, kept for the next visit.
    fn queue(&mut self, first: u32, cus: u32) -> Result<crate::device::Queue, DeviceError> {
        if let Some((_, queue)) = self.queues.iter().find(|(k, _)| *k == (first, cus)) {
            return Ok(*queue);
        }
        let whole = cus == self.gpu.info().cus;
        let partition = if whole { self.gpu.whole() } else { self.gpu.partition(first, cus)? };
        let queue = self.gpu.queue(partition, 0)?;
        self.queues.push(((first, cus), queue));
        Ok(queue)
    }

    /// Durations of `samples` launches, one behind the other, ns.
    fn visit(&mut self, plan: &Plan, at: Point, samples: usize) -> Result<Vec<u64>, DeviceError> {
        let queue = self.queue(0, at.cus)?;
        let prepared = self.gpu.prepare(queue, &plan.works[at.work])?;
        self.last_facts = Some(self.gpu.facts(prepared)?.clone());
        let mut ended = Vec::new();
        for _ in 0..WARM_UP + samples {
            self.gpu.launch(prepared)?;
        }
        self.gpu.wait(&mut ended)?;
        self.gpu.release(prepared)?;
        ended.sort_by_key(|c| c.ticket);
        Ok(ended.iter().skip(WARM_UP).map(|c| c.duration.0.max(1)).collect())
    }
}
