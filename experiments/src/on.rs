//! Cells on a device, in real time: the choice of the device, its speed, and the results.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use cotenant_replay::clock::Clock;
use cotenant_replay::cuda::{self, CudaDevice, Granularity};
use cotenant_replay::drive::{self, Kernels, Lateness, Loss, Replayed, Stop, Streams, Workers};
use cotenant_replay::emulated::{EmulatedDevice, Fault};
use cotenant_replay::process::{
    Ground, Launcher, Patience, Processes, cannot_run_on_a_gpu, needs_processes,
};
use cotenant_replay::{Kind, mps, runnable};
use cotenant_results::{Metric, ReplayInfo};
use cotenant_sim::Policy;
use cotenant_sim::policy::Depth;
use cotenant_sim::scenario::Setup;

use crate::cell::{self, Outcome, bin};
use crate::fail::{Done, Failure};
use crate::plan::Cell;
use crate::prepare::Prepared;
use crate::study::ground::{self, Played};
use crate::study::slice::Slice;
use crate::study::stop;
use crate::watch::{Wants, Watch};

/// Which device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum On {
    /// A profile played in real time.
    Emulated,
    /// The GPU with this number.
    Cuda(u32),
}

impl FromStr for On {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = text.strip_prefix("cuda:").and_then(|n| n.parse().ok());
        match (text, number) {
            ("emulated", _) => Ok(Self::Emulated),
            ("cuda", _) => Ok(Self::Cuda(0)),
            (_, Some(n)) => Ok(Self::Cuda(n)),
            _ => Err("write emulated or cuda:0".to_owned()),
        }
    }
}

impl fmt::Display for On {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Emulated => write!(f, "emulated"),
            Self::Cuda(n) => write!(f, "cuda:{n}"),
        }
    }
}

/// A device and everything that is common to all cells on it.
pub(crate) struct Stage {
    pub(crate) on: On,
    /// Wall time over the experiment's time; `None` to choose it for each cell. Always 1 on a real GPU.
    slowdown: Option<f64>,
    /// Workers stay in this process even if the mechanism would use one process for each.
    streams: bool,
    /// Description of the device for all output.
    pub(crate) info: ReplayInfo,
}

impl Stage {
    /// Opens the device once, to check that it exists and what it is.
    ///
    /// # Errors
    /// What is missing, in one line.
    pub(crate) fn open(
        on: On,
        slowdown: Option<f64>,
        streams: bool,
        slices: &[Arc<Slice>],
    ) -> Done<Self> {
        if slices.iter().any(|slice| slice.e.point.fleet.is_some()) {
            let why = "an experiment is replayed on one GPU that does not fail: leave `gpus` and \
                       `down` out (--set gpus=1)";
            return Err(Failure::input(why));
        }
        let mut info = ReplayInfo { on: on.to_string(), ..ReplayInfo::default() };
        match on {
            On::Emulated => {
                info.kind = "emulated".to_owned();
                info.device = format!("{} (emulated)", slices[0].ready.setup.device.name);
            }
            On::Cuda(ordinal) => {
                cuda::probe().map_err(Failure::failed)?;
                let device = CudaDevice::open(ordinal, Granularity::Fine);
                let device = device.map_err(Failure::failed)?;
                let found = cotenant_replay::Device::info(&device);
                let stand_in = found.kind != Kind::Gpu;
                info.kind = if stand_in { "stand-in" } else { "measured" }.to_owned();
                info.device = format!("{}, driver {}", found.name, found.driver);
                for slice in slices {
                    fits(&slice.ready.setup, found.cus)?;
                }
            }
        }
        Ok(Self { on, slowdown, streams, info })
    }

    /// A sentence that warns the reader if the results are not measurements.
    pub(crate) fn caution(&self) -> Option<String> {
        match self.info.kind.as_str() {
            "measured" => None,
            "emulated" => Some(
                "EMULATED, NOT A MEASUREMENT: policies and dispatcher ran in real time, the GPU is \
                 the simulator's device model"
                    .to_owned(),
            ),
            _ => Some("NOT A MEASUREMENT: a stand-in took the driver's place".to_owned()),
        }
    }

    /// How much slower than the experiment's time a cell must run so that the usual lateness of a thread on a
    /// busy machine shows in the second digit at most.
    pub(crate) fn slowdown(&self, ready: &Prepared, policy: &mut dyn Policy) -> f64 {
        /// Wall time of a cell's shortest batch.
        const BATCH_NS: f64 = 40e6;
        /// Wall time of its mean kernel, if the policy is called for each kernel.
        const KERNEL_NS: f64 = 6e6;
        if self.on != On::Emulated {
            return 1.0;
        }
        let programs = || ready.setup.tenants.iter().map(|t| t.model.program(1));
        let batches = programs().map(|p| p.remaining_ns[0].max(1) as f64);
        let shortest = batches.fold(f64::INFINITY, f64::min);
        let kernels =
            programs().map(|p| p.remaining_ns[0].max(1) as f64 / p.kernels.len().max(1) as f64);
        let mean = kernels.fold(f64::INFINITY, f64::min);
        let depth = policy.depth();
        let deep = depth == Depth::Kernel;
        // Messages from a process arrive later than those from a stream.
        let layout = policy.layout(&ready.setup);
        let apart = !self.streams && layout.is_ok_and(|l| needs_processes(depth, &l));
        let batch_ns = if apart { 8.0 * BATCH_NS } else { BATCH_NS };
        let needed = (batch_ns / shortest).max(if deep { KERNEL_NS / mean } else { 0.0 });
        self.slowdown.unwrap_or_else(|| needed.ceil().clamp(1.0, 2000.0))
    }

    /// As [`ground::Ground::play`]. On an emulated GPU, a cell whose driver was too late to be reliable is
    /// run again at half the speed, at most twice.
    fn tried(&self, slice: &Slice, cell: &Cell, wants: Wants, stop: &Stop) -> Played {
        let mut played = None;
        let outcome = cell::caught(|| {
            let row = slice.row(cell);
            let mut policy = (row.info.build)(&row.options).map_err(|e| e.to_string())?;
            let mut slowdown = self.slowdown(&slice.ready, &mut *policy);
            for again in [true, true, false] {
                let (outcome, lateness) = self.once(slice, cell, wants, stop, slowdown)?;
                let late = late_share(&outcome, &lateness, policy.depth(), &slice.ready.setup);
                played = Some(lateness);
                let fixed = self.slowdown.is_some() || self.on != On::Emulated;
                if fixed || late < LATE || !again {
                    return Ok(outcome);
                }
                slowdown *= 2.0;
            }
            unreachable!("the last try returns")
        });
        let lateness = played.filter(|_| outcome.is_ok());
        Played { outcome, lateness }
    }

    /// Distinguishes its measurements from those of other devices.
    pub(crate) fn identity(&self) -> String {
        let Self { slowdown, streams, info, .. } = self;
        let slowdown = slowdown.map_or_else(|| "as needed".to_owned(), |k| k.to_string());
        format!("{} {} slowdown {slowdown} streams {streams}", info.on, info.device)
    }

    fn once(
        &self,
        slice: &Slice,
        cell: &Cell,
        wants: Wants,
        stop: &Stop,
        slowdown: f64,
    ) -> Result<(Outcome, Lateness), String> {
        let Slice { e, ready } = slice;
        let (point, row) = (&e.point, slice.row(cell));
        let mut policy = (row.info.build)(&row.options).map_err(|e| e.to_string())?;
        drive::check(&*policy).map_err(|e| e.to_string())?;
        let layout = policy.layout(&ready.setup).map_err(|e| format!("layout: {e}"))?;
        let scenario = cell::scenario(e, ready, cell)?;
        let names: Vec<&str> = point.tenants.iter().map(|t| t.name.as_str()).collect();
        let mut watch = Watch::new(wants, &names, point.warmup, point.duration, bin(point));
        let setup = Arc::clone(&ready.setup);
        let count = setup.code.kernels.len();
        let depth = policy.depth();
        let apart = !self.streams && needs_processes(depth, &layout);
        let go = |workers: &mut dyn Workers| {
            let observer = if watch.is_idle() { None } else { Some(&mut watch as _) };
            drive::run(scenario, &mut *policy, &layout, workers, observer, stop)
        };
        let processes = |ground| -> Result<Processes, String> {
            let launcher = Launcher::this_program().map_err(|e| e.to_string())?;
            Ok(Processes::new(Arc::clone(&setup), ground, launcher, Patience::default()))
        };
        let done: Result<Replayed, _> = match self.on {
            On::Emulated => {
                let clock = Clock::start(slowdown);
                let pools = &layout.pools;
                let mut device =
                    EmulatedDevice::for_scenario(&setup, pools, ready.contention, clock);
                device.inject(Fault::from_environment()?);
                let hardware = setup.device.queues.hardware;
                for pool in layout.shared_queues(depth, hardware) {
                    device.limit_hardware_queues(pool, hardware);
                }
                if apart {
                    let ground = Ground::emulated(device).map_err(|e| e.to_string())?;
                    go(&mut processes(ground)?)
                } else {
                    go(&mut Streams::new(&mut device, Kernels::Numbered, count))
                }
            }
            On::Cuda(ordinal) => {
                if let Some(why) = cannot_run_on_a_gpu(depth, &layout) {
                    return Err(format!("{}: {why}", row.info.name));
                }
                let works = runnable::works(&setup).map_err(|e| e.to_string())?;
                let device = CudaDevice::open(ordinal, Granularity::Fine);
                let mut device = device.map_err(|e| e.to_string())?;
                if apart {
                    let info = cotenant_replay::Device::info(&device).clone();
                    // Its context would take turns on the GPU, and memory.
                    drop(device);
                    go(&mut processes(Ground::cuda(ordinal, info, works, mps::Options::default()))?)
                } else {
                    let mut again = (row.info.build)(&row.options).map_err(|e| e.to_string())?;
                    let masks = match again.depth() {
                        Depth::Kernel => {
                            drive::foresee(cell::scenario(e, ready, cell)?, &mut *again, MASKS)
                        }
                        _ => vec![],
                    };
                    let streams = Streams::new(&mut device, Kernels::Works(works), count);
                    go(&mut streams.expecting(masks))
                }
            }
        };
        let Replayed { report, lateness, losses } = done.map_err(|e| e.to_string())?;
        let mut outcome = cell::outcome(&report, &setup, wants, watch);
        if let Some(first) = losses.first() {
            // The row holds what was measured; the status tells what happened meanwhile.
            let (tenant, more) = (names[first.tenant as usize], losses.len() - 1);
            let more = if more > 0 { format!(" (and {more} more)") } else { String::new() };
            let Loss { at, worker, cause, why, .. } = first;
            outcome.status = format!("{cause}: worker {worker} of `{tenant}` at {at}: {why}{more}");
        }
        Ok((outcome, lateness))
    }
}

impl ground::Ground for Stage {
    fn play(&self, slice: &Slice, cell: &Cell, wants: Wants, stop: &stop::Stop) -> Option<Played> {
        let played = self.tried(slice, cell, wants, stop.driver());
        let cut = stop.is_set() && !played.outcome.is_ok();
        (!cut).then_some(played)
    }
}

/// Most masks whose partitions are created before a run on a GPU; further masks that a policy uses are
/// created on first use, and counted.
const MASKS: usize = 64;

/// Share of the median latency above which the driver's own delays are too large to ignore.
const LATE: f64 = 0.05;

/// Delay that the driver may have added to a median request, as a share of its latency.
fn late_share(outcome: &Outcome, lateness: &Lateness, depth: Depth, setup: &Setup) -> f64 {
    let ms = |l: &cotenant_sim::metrics::Latencies| {
        lateness.in_run(l, 0.75).map_or(0.0, |late| late.as_millis_f64())
    };
    let mut most = 0.0_f64;
    for (tenant, metrics) in setup.tenants.iter().zip(&outcome.metrics) {
        let kernels = tenant.model.program(1).kernels.len() as f64;
        let steps = if depth == Depth::Kernel { kernels } else { 1.0 };
        let late = ms(&lateness.arrivals) + steps * ms(&lateness.completions);
        if let Some(median) = metrics.get(Metric::LatencyP50) {
            most = most.max(late / median);
        }
    }
    most
}

/// Whether a GPU with this many CUs can run what was prepared for the experiment's device.
fn fits(setup: &Setup, cus: u32) -> Done {
    let wanted = setup.device.cus();
    if wanted != cus {
        return Err(Failure::input(format!(
            "the experiment is for {} with {wanted} CUs, this GPU has {cus}: set `device`",
            setup.device.name
        )));
    }
    runnable::works(setup).map(|_| ()).map_err(Failure::input)
}
