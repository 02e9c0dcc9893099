//! Measures latency curves: every distinct kernel of the requested models at every CU count of a
//! ladder, under green contexts, with device events.
//!
//! Visits come in rounds. A round measures the whole device, then half of it, then the rest of the
//! ladder, so that a budget that runs out leaves the most informative points. Within each step the
//! order is random, which spreads any drift of the clocks over all kernels. Every visit is a line of
//! `visits.jsonl`, flushed at once: a collection that was killed resumes where it stopped.

mod assemble;
pub(crate) mod bench;
mod corun;
mod journal;
mod plan;

use std::path::Path;
use std::time::{Duration, Instant};

use cotenant_profiles::files::FileError;

use crate::cuda::Granularity;
use crate::device::{Device, DeviceInfo, Kind, Overhead};
use crate::error::DeviceError;
use crate::nvml::Nvml;

use bench::Bench;

pub use assemble::{Collected, SLOW};
pub(crate) use assemble::{point, today};
pub use journal::{Journal, Visit};
pub use plan::{Coarse, Plan, PlanError, Point, Request, Sizes, plan};
pub(crate) use plan::{same_gpu, shuffle, works_of_steps};

/// Launches before the ones that count: clocks rise, caches fill, and code is loaded.
pub(crate) const WARM_UP: usize = 3;

/// Why a collection ended.
#[derive(Debug, thiserror::Error)]
pub enum CollectError {
    /// The device failed.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// The request cannot be planned.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The profile could not be written.
    #[error(transparent)]
    File(#[from] FileError),
    /// The journal could not be read or written.
    #[error("{0}")]
    Journal(String),
    /// No kernel was measured on the whole device.
    #[error("no kernel was measured on all CUs{}; the same command resumes", because(.0))]
    Nothing(Option<String>),
}

fn because(why: &Option<String>) -> String {
    why.as_ref().map_or_else(|| ": the budget is spent".to_owned(), |why| format!(": {why}"))
}

/// How far a collection has come.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// Visits made, including those of earlier runs.
    pub done: usize,
    /// Visits planned.
    pub planned: usize,
    /// Time left at the pace so far, or until the budget ends.
    pub left: Duration,
}

/// Collects into `folder` and reports `progress` after every visit.
///
/// # Errors
/// There is no GPU, the folder cannot be written, or nothing was measured on the whole device. A point
/// that fails is a line of the journal with its reason and is not retried. A fault that destroys the
/// context ends the measuring. Whatever was measured is assembled in any case.
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
    fine.gpu.require_partitions()?;
    coarse.gpu.require_partitions()?;
    require_described(request, fine.gpu.info())?;
    let groups = Coarse { grain: coarse.gpu.info().grain, divisible: coarse.gpu.divisible_cus() };
    let plan = plan(request, fine.gpu.info().cus, fine.gpu.divisible_cus(), groups)?;
    let nvml = Nvml::open(&fine.gpu.info().uuid).ok();
    let identity = identity(request, fine.gpu.info());
    let mut journal = Journal::open(folder, &identity)?;
    fine.ramp(request.ramp)?;
    let overhead = fine.gpu.overhead()?;
    (fine.launch, coarse.launch) = (overhead.launch, overhead.launch);
    let known = journal.visits().len();
    let mut broken = None;
    for visit in plan.visits(request) {
        if journal.has(&visit) {
            continue;
        }
        if request.is_over(began.elapsed()) {
            break;
        }
        let bench = if visit.point.coarse { &mut coarse } else { &mut fine };
        let samples = bench.visit(&plan, visit.point, request.samples);
        let samples = samples.map_err(|e| e.to_string());
        let (failed, events) = (samples.as_ref().err().cloned(), overhead.events.0);
        journal.add(visit, samples, events, nvml.as_ref().map(Nvml::read).unwrap_or_default())?;
        // Both devices share one context.
        broken = failed.filter(|_| !bench.survives());
        if broken.is_some() {
            break;
        }
        let (done, planned) = (journal.visits().len(), plan.visit_count(request));
        progress(Progress {
            done,
            planned,
            left: left(began, done - known, planned - done, request),
        });
    }
    let with = (request, identity.as_str(), overhead.events.0);
    let pairs = match broken {
        None => corun::corun(&mut fine, &plan, &journal, with, folder, began)?,
        Some(_) => corun::Pairs::known(folder, &identity)?,
    };
    let driver = nvml.as_ref().and_then(Nvml::driver).unwrap_or_default();
    let (info, group) = (fine.gpu.info().clone(), groups.grain);
    let source = Measured { info, overhead, driver, group };
    let collected = assemble::assemble(request, &plan, &journal, pairs, &source, folder)?;
    Ok(Collected { broken, ..collected })
}

/// Refuses a GPU other than the one that the profile will name.
pub(crate) fn require_described(request: &Request, info: &DeviceInfo) -> Result<(), PlanError> {
    let (found, described) = (info.name.clone(), request.device.title.clone());
    if info.kind == Kind::Gpu && !same_gpu(&described, &found) {
        let name = request.device.name.clone();
        return Err(PlanError::OtherName { name, described, found });
    }
    Ok(())
}

/// The GPU that was measured, and what measuring cost.
struct Measured {
    info: DeviceInfo,
    overhead: Overhead,
    driver: String,
    /// CUs of a group, if the GPU is partitioned in groups.
    group: u32,
}

/// Identifies the GPU and the list of kernels that a journal belongs to; it refers to kernels by
/// number.
fn identity(request: &Request, info: &DeviceInfo) -> String {
    let (models, batches) = (request.models.join(" "), &request.batches);
    let seed = request.seed;
    format!(
        "{} {} {} seed {seed}, {models}, batches {batches:?}",
        info.name, info.uuid, request.precision
    )
}

fn left(began: Instant, made: usize, to_do: usize, request: &Request) -> Duration {
    let pace = began.elapsed() / u32::try_from(made.max(1)).unwrap_or(u32::MAX);
    let left = pace.saturating_mul(u32::try_from(to_do).unwrap_or(u32::MAX));
    let budget = request.budget.map(|b| b.saturating_sub(began.elapsed()));
    budget.map_or(left, |b| left.min(b))
}

#[cfg(test)]
mod tests {
    use super::*;
    use cotenant_profiles::lower::Precision;
    use cotenant_profiles::{Bytes, Device as GpuDescription};

    #[test]
    fn a_journal_counts_the_kernels_of_one_list_alone() {
        let request = |models: &[&str], batches: &[u32]| Request {
            device: GpuDescription::builtin("h100-sxm").unwrap(),
            models: models.iter().map(|m| (*m).to_owned()).collect(),
            batches: batches.to_vec(),
            precision: Precision::Fp32,
            cus: vec![],
            samples: 1,
            rounds: 1,
            corun_kernels: 0,
            budget: None,
            ramp: Duration::ZERO,
            stop: crate::drive::Stop::new(),
            seed: 1,
        };
        let info = DeviceInfo {
            name: "NVIDIA H100".to_owned(),
            kind: Kind::Gpu,
            uuid: "GPU-1".to_owned(),
            cus: 132,
            grain: 2,
            memory: Bytes(1),
            driver: "13.0".to_owned(),
        };
        let of = |models: &[&str], batches: &[u32]| identity(&request(models, batches), &info);
        assert_eq!(of(&["vgg19"], &[1, 8]), of(&["vgg19"], &[1, 8]));
        // Kernel number 3 is a different one there.
        assert_ne!(of(&["vgg19"], &[1, 8]), of(&["vgg19", "alexnet"], &[1, 8]));
        assert_ne!(of(&["vgg19"], &[1, 8]), of(&["vgg19"], &[1]));
    }
}
