//! The tuner: searches the tile sizes of a matrix product under partitions of several sizes, and
//! reports how the variant that is best at one share performs at the others.
//!
//! The shapes are the products of the zoo's models; a convolution counts as the product of its columns.
//! Every variant of [`TILES`] is compiled, checked against the CPU and timed several times at every
//! share, in random order. Shapes are done one after the other, so a budget leaves out whole shapes.

mod choice;
mod files;
mod sample;
mod shape;

use std::path::{Path, PathBuf};
use std::time::Instant;

use cotenant_profiles::files::FileError;
use cotenant_profiles::lower::Precision;

use crate::collect::bench::Bench;
use crate::collect::{self, Coarse, PlanError, Request, WARM_UP};
use crate::cuda::{Granularity, nvrtc};
use crate::device::{Device, DeviceInfo, Kind, Prepared, Queue};
use crate::error::DeviceError;
use crate::nvml::{Nvml, Reading};
use crate::reference;
use crate::work::{Task, Work};

use sample::Sample;

pub use crate::tile::{SOURCE, TILES, Tile};
pub use choice::{Cell, Timing, Timings, best, matrix, sum};
pub use shape::{Shape, shapes};

/// Why nothing was tuned.
#[derive(Debug, thiserror::Error)]
pub enum TuneError {
    /// The device failed.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// The request cannot be planned.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The template does not compute in this number format.
    #[error("precision {0}: the tuner's template computes in fp32; leave --precision away")]
    Precision(Precision),
    /// The models have no products.
    #[error("these models have no product of matrices and no convolution to tune")]
    NoShape,
    /// A variant's result differs from the CPU's.
    #[error(
        "variant {tile} of {shape} is {distance:.1e} off the CPU's result, rounding explains \
         {limit:.1e}: nothing is written"
    )]
    Wrong {
        /// The variant.
        tile: Tile,
        /// The product.
        shape: String,
        /// Its distance, as a share of the norm.
        distance: f64,
        /// The distance that rounding alone explains.
        limit: f64,
    },
    /// The budget ended too soon.
    #[error("the budget is spent before every variant of one shape was timed: give more")]
    Nothing,
    /// A measurement lacks its evidence.
    #[error(transparent)]
    Evidence(#[from] FileError),
    /// A file could not be written.
    #[error("{path}: {source}")]
    Write {
        /// The file.
        path: PathBuf,
        /// The reason that the system gives.
        source: std::io::Error,
    },
}

/// A shape with its timings.
#[derive(Clone, Debug)]
pub struct Tuned {
    /// The product.
    pub shape: Shape,
    /// By index of the variant in [`TILES`], then by index of the share.
    pub timings: Timings,
    /// Durations as measured, by variant and share, ns, including the overhead of two events.
    pub raw: Vec<Vec<Vec<u64>>>,
}

/// The result of tuning.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The CUs of the shares, ascending.
    pub cus: Vec<u32>,
    /// Shapes that were timed completely.
    pub shapes: Vec<Tuned>,
    /// Shapes that the budget left out.
    pub left_out: usize,
    /// The matrix of each shape.
    pub cells: Vec<Vec<Cell>>,
    /// The sum over the shapes, each multiplied by its launches.
    pub sum: Vec<Cell>,
    /// The device is the stand-in used in tests, so nothing here is a measurement.
    pub stand_in: bool,
}

/// The provenance that a file states.
struct Origin {
    info: DeviceInfo,
    driver: String,
    readings: Vec<Reading>,
    /// The number of visits, and of those in which not every launch was queued ahead.
    visits: [usize; 2],
    /// What two events add to a duration, ns.
    events_ns: u64,
}

/// Tunes into `folder`: `tune.csv`, `matrix.csv`, and `samples.csv` with durations as measured. `progress` is told of every shape: those done,
/// and all.
///
/// # Errors
/// There is no GPU or no NVRTC, a launch fails, a variant computes a wrong result, or the folder cannot
/// be written.
pub fn tune(
    request: &Request,
    folder: &Path,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Outcome, TuneError> {
    let began = Instant::now();
    if request.precision != Precision::Fp32 {
        return Err(TuneError::Precision(request.precision));
    }
    let mut bench = Bench::open(Granularity::Fine)?;
    let info = bench.gpu.info().clone();
    if info.kind == Kind::Emulated {
        return Err(DeviceError::NotAGpu(info.name).into());
    }
    bench.gpu.require_partitions()?;
    collect::require_described(request, &info)?;
    let plan = collect::plan(request, info.cus, bench.gpu.divisible_cus(), Coarse::default())?;
    let cus = shares(request, &info, bench.gpu.divisible_cus());
    let shapes = shapes(&plan);
    if shapes.is_empty() {
        return Err(TuneError::NoShape);
    }
    let nvml = Nvml::open(&info.uuid).ok();
    bench.ramp(request.ramp)?;
    let overhead = bench.gpu.overhead()?;
    bench.launch = overhead.launch;
    let code = compile()?;
    let queues: Result<Vec<Queue>, DeviceError> = cus.iter().map(|&c| bench.queue(0, c)).collect();
    let mut tuner = Tuner { bench, code, queues: queues?, state: request.seed };
    tuner.check(&ragged())?;
    let driver = nvml.as_ref().and_then(Nvml::driver).unwrap_or_else(|| info.driver.clone());
    let stand_in = info.kind != Kind::Gpu;
    let events_ns = overhead.events.0;
    let mut origin = Origin { info, driver, readings: vec![], visits: [0, 0], events_ns };
    let (mut tuned, all) = (Vec::new(), shapes.len());
    for shape in shapes {
        let spent = || request.is_over(began.elapsed());
        let visited = |queued: bool| {
            origin.visits[0] += 1;
            origin.visits[1] += usize::from(!queued);
            origin.readings.extend(nvml.as_ref().map(Nvml::read));
        };
        let Some(raw) = tuner.shape(&shape.work, (request, &cus), &spent, visited)? else {
            break;
        };
        let timings = timings(&raw, &cus, events_ns);
        tuned.push(Tuned { shape, timings, raw });
        progress(tuned.len(), all);
    }
    if tuned.is_empty() {
        return Err(TuneError::Nothing);
    }
    let cells: Vec<Vec<Cell>> = tuned.iter().map(|t| matrix(&t.timings, cus.len())).collect();
    let parts: Vec<(u64, Vec<Cell>)> =
        tuned.iter().zip(&cells).map(|(t, c)| (t.shape.launches, c.clone())).collect();
    let (left_out, sum) = (all - tuned.len(), sum(&parts));
    let outcome = Outcome { cus, shapes: tuned, left_out, cells, sum, stand_in };
    files::write(folder, request, &outcome, &origin)?;
    Ok(outcome)
}

/// The shares asked for, by default quarters of what can be partitioned, and all CUs.
fn shares(request: &Request, info: &DeviceInfo, divisible: u32) -> Vec<u32> {
    let grain = info.grain.max(1);
    let quarter = |n: u32| divisible * n / 4 / grain * grain;
    let mut cus = match request.cus.as_slice() {
        [] => vec![quarter(1), quarter(2), quarter(3), info.cus],
        asked => asked.to_vec(),
    };
    cus.retain(|c| *c > 0);
    cus.sort_unstable();
    cus.dedup();
    cus
}

/// The variants' code, in the order of [`TILES`].
fn compile() -> Result<Vec<(Tile, String)>, DeviceError> {
    // As for the shipped kernels, the driver compiles it further for its GPU.
    let code = |t: &Tile| Ok((*t, nvrtc::compile_with(SOURCE, "compute_80", &t.options())?));
    TILES.iter().map(code).collect()
}

/// A product in which every variant has partial tiles on all sides.
fn ragged() -> Work {
    Work::new(Task::Gemm { m: 150, n: 201, k: 77, count: 2 }, Precision::Fp32)
}

struct Tuner {
    bench: Bench,
    code: Vec<(Tile, String)>,
    /// By index of the share.
    queues: Vec<Queue>,
    state: u64,
}

impl Tuner {
    /// Prepares every variant for the queue of the last share, with common operands.
    fn prepare(&mut self, work: &Work) -> Result<Vec<Prepared>, DeviceError> {
        let queue = *self.queues.last().expect("there is a share at least");
        let mut all: Vec<Prepared> = Vec::with_capacity(self.code.len());
        for (tile, ptx) in &self.code {
            let like = all.first().copied();
            all.push(self.bench.gpu.prepare_tile(queue, work, (*tile, ptx.as_str()), like)?);
        }
        Ok(all)
    }

    fn release(&mut self, all: Vec<Prepared>) -> Result<(), DeviceError> {
        all.into_iter().try_for_each(|p| self.bench.gpu.release(p))
    }

    fn check(&mut self, work: &Work) -> Result<(), TuneError> {
        let all = self.prepare(work)?;
        self.compare(work, &all)?;
        Ok(self.release(all)?)
    }

    /// Compares each variant's result with the CPU's, at elements spread over all of it. The stand-in
    /// computes nothing, so its results are fetched but not judged.
    fn compare(&mut self, work: &Work, all: &[Prepared]) -> Result<(), TuneError> {
        let judged = self.bench.gpu.info().kind == Kind::Gpu;
        let sample = judged.then(|| Sample::of(work));
        for ((tile, _), &prepared) in self.code.iter().zip(all) {
            let result = self.bench.gpu.result(prepared)?;
            let Some(sample) = &sample else { continue };
            let (distance, limit) = (sample.distance(&result), reference::tolerance(work));
            if distance > limit {
                let (tile, shape) = (*tile, work.id.clone());
                return Err(TuneError::Wrong { tile, shape, distance, limit });
            }
        }
        Ok(())
    }

    /// Times every variant at every share in several rounds, each in its own order; `None` if the time
    /// ran out before the end.
    fn shape(
        &mut self,
        work: &Work,
        (request, cus): (&Request, &[u32]),
        spent: &dyn Fn() -> bool,
        mut visited: impl FnMut(bool),
    ) -> Result<Option<Vec<Vec<Vec<u64>>>>, TuneError> {
        if spent() {
            return Ok(None);
        }
        let all = self.prepare(work)?;
        self.compare(work, &all)?;
        let mut ns = vec![vec![Vec::new(); cus.len()]; all.len()];
        let points = (0..all.len()).flat_map(|v| (0..cus.len()).map(move |s| (v, s)));
        let mut points: Vec<(usize, usize)> = points.collect();
        for _ in 0..request.rounds {
            collect::shuffle(&mut points, &mut self.state);
            for &(variant, share) in &points {
                if spent() {
                    self.release(all)?;
                    return Ok(None);
                }
                let (queue, prepared) = (self.queues[share], all[variant]);
                let (found, queued) = self.bench.samples(queue, prepared, request.samples)?;
                ns[variant][share].extend(found);
                visited(queued);
            }
        }
        self.release(all)?;
        Ok(Some(ns))
    }
}

/// Durations without the overhead of two events, by variant and share.
fn timings(raw: &[Vec<Vec<u64>>], cus: &[u32], events_ns: u64) -> Timings {
    let timing = |(ns, &cus): (&Vec<u64>, &u32)| {
        let ns: Vec<u64> = ns.iter().map(|ns| ns.saturating_sub(events_ns).max(1)).collect();
        let p = collect::point(cus, &ns);
        let [median_ns, p05_ns, p95_ns] = [p.duration_ns, p.p05_ns, p.p95_ns];
        Timing { median_ns, p05_ns, p95_ns, samples: p.samples }
    };
    raw.iter().map(|of| of.iter().zip(cus).map(timing).collect()).collect()
}
