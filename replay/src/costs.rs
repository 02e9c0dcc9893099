//! Measures the cost of a GPU's sharing mechanisms, and writes it as lines of a device file.
//!
//! Every step is bounded in time. Lines of the device file that cannot be measured on a machine stay as
//! they are, and are listed with the reason. Samples go into `costs.jsonl` as they are taken, their
//! quantiles into `costs.csv`, and the device file with the measured lines is written beside both. All
//! of these are written again after every step.

mod child;
mod device_file;
mod shares;
mod steps;
mod turns;

use std::ffi::OsString;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use cotenant_profiles::Device as GpuDescription;
use serde::Serialize;

use crate::cuda::Bench;
use crate::device::{DeviceInfo, Kind};
use crate::drive::Stop;
use crate::error::DeviceError;
use crate::nvml::{Nvml, Reading};

pub use child::{Ask, child};
pub use device_file::with_line;

/// What to measure, and the helpers to use.
#[derive(Clone, Debug)]
pub struct Request {
    /// The GPU as the device file describes it.
    pub device: GpuDescription,
    /// The text of that file; its other lines stay as they are.
    pub text: String,
    /// The command that runs [`child`] in a process of its own: the program and its first arguments,
    /// after which the question is added.
    pub helper: Vec<OsString>,
    /// The control program of MPS; looked for by default.
    pub mps: Option<PathBuf>,
    /// Longest time of one step.
    pub step: Duration,
    /// A request to end early. What has been measured by then is written.
    pub stop: Stop,
}

/// Why nothing was measured.
#[derive(Debug, thiserror::Error)]
pub enum CostError {
    /// The device failed.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// The description is of another GPU.
    #[error("{name} has {described} CUs, this GPU has {found}: name the device that it is")]
    OtherDevice {
        /// The description's name.
        name: String,
        /// CUs of the description.
        described: u32,
        /// CUs of the GPU.
        found: u32,
    },
    /// The description names another GPU.
    #[error("the GPU is `{found}`, {name} describes `{described}`: name the device that it is")]
    OtherName {
        /// Name of the description.
        name: String,
        /// The description's title.
        described: String,
        /// Name of the GPU.
        found: String,
    },
    /// A file could not be written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system reports.
        source: std::io::Error,
    },
    /// The device file with the measured lines could not be read back.
    #[error("the device file with the measured lines does not read: {0}")]
    DeviceFile(String),
}

/// The measured cost of one mechanism.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Cost {
    /// What was measured.
    pub step: String,
    /// Unit of the samples.
    pub unit: &'static str,
    /// Values in the order in which they were taken.
    pub samples: Vec<f64>,
    /// Why there are no samples, or what is needed to interpret them.
    pub note: String,
}

impl Cost {
    fn of(step: &str, unit: &'static str, samples: Vec<f64>, note: &str) -> Self {
        Self { step: step.to_owned(), unit, samples, note: note.to_owned() }
    }

    fn none(step: &str, unit: &'static str, why: impl std::fmt::Display) -> Self {
        let step = step.to_owned();
        Self { step, unit, samples: Vec::new(), note: format!("not measured: {why}") }
    }

    /// The value that `percent` % of the samples do not exceed.
    #[must_use]
    pub fn quantile(&self, percent: usize) -> Option<f64> {
        let mut sorted = self.samples.clone();
        sorted.sort_by(f64::total_cmp);
        cotenant_profiles::stats::quantile(&sorted, percent)
    }
}

/// The result of the measurement.
#[derive(Clone, Debug)]
pub struct Costs {
    /// Every mechanism in order, including those without samples.
    pub costs: Vec<Cost>,
    /// The device file.
    pub file: PathBuf,
    /// Its measured lines, such as `costs.launch`.
    pub lines: Vec<String>,
    /// The driver is the stand-in used in tests, so nothing here is a measurement.
    pub stand_in: bool,
}

/// Measures into `folder`, and reports every step to `tell` as it begins.
///
/// # Errors
/// There is no GPU, it is not the one described, or the folder cannot be written. A single step that
/// fails is a [`Cost`] without samples.
pub fn measure(
    request: &Request,
    folder: &Path,
    tell: &mut dyn FnMut(&str),
) -> Result<Costs, CostError> {
    let bench = Bench::open(0)?;
    let info = bench.info().clone();
    if info.cus != request.device.cus() {
        let (name, described) = (request.device.name.clone(), request.device.cus());
        return Err(CostError::OtherDevice { name, described, found: info.cus });
    }
    if info.kind == Kind::Gpu && !crate::collect::same_gpu(&request.device.title, &info.name) {
        let (name, described) = (request.device.name.clone(), request.device.title.clone());
        return Err(CostError::OtherName { name, described, found: info.name });
    }
    let mut log = Log::open(folder, &info)?;
    let mut costs = Vec::new();
    // After every step: a run that is ended early leaves everything that it measured by then.
    let mut keep = |of_a_step: Vec<Cost>| {
        of_a_step.iter().try_for_each(|cost| log.add(cost))?;
        costs.extend(of_a_step);
        log.table(folder, &info, &costs)?;
        device_file::write(request, folder, &info, &costs)
    };
    let mut written = keep(vec![])?;
    for (name, step) in steps::IN_PROCESS.iter().take_while(|_| !request.stop.wanted()) {
        tell(name);
        written = keep(step(&bench, request))?;
    }
    // The children must have the GPU for themselves.
    drop(bench);
    for (name, step) in steps::BY_PROCESSES.iter().take_while(|_| !request.stop.wanted()) {
        tell(name);
        written = keep(step(request))?;
    }
    let (file, lines) = written;
    Ok(Costs { costs, file, lines, stand_in: info.kind != Kind::Gpu })
}

/// What every file says about results of a stand-in.
const STAND_IN: &str = "stand-in driver of the tests: computed, NOT A MEASUREMENT";

/// Writes `costs.jsonl`: one line per mechanism, as soon as it has been measured.
struct Log {
    file: std::fs::File,
    path: PathBuf,
    nvml: Option<Nvml>,
}

#[derive(Serialize)]
struct Head<'a> {
    cotenant_costs: u32,
    source: &'a str,
    gpu_name: &'a str,
    gpu: &'a str,
    cuda: &'a str,
    driver: String,
    date: String,
}

#[derive(Serialize)]
struct Line<'a> {
    #[serde(flatten)]
    cost: &'a Cost,
    #[serde(flatten)]
    reading: Reading,
}

impl Log {
    fn open(folder: &Path, info: &DeviceInfo) -> Result<Self, CostError> {
        let path = folder.join("costs.jsonl");
        let io = |source| CostError::Io { path: path.clone(), source };
        std::fs::create_dir_all(folder).map_err(io)?;
        let file = std::fs::File::create(&path).map_err(io)?;
        let nvml = Nvml::open(&info.uuid).ok();
        let driver = nvml.as_ref().and_then(Nvml::driver).unwrap_or_default();
        let source = if info.kind == Kind::Gpu { "measured" } else { STAND_IN };
        let mut log = Self { file, path, nvml };
        log.line(&Head {
            cotenant_costs: 1,
            source,
            gpu_name: &info.name,
            gpu: &info.uuid,
            cuda: &info.driver,
            driver,
            date: crate::collect::today(),
        })?;
        Ok(log)
    }

    fn line(&mut self, what: &impl Serialize) -> Result<(), CostError> {
        let text = serde_json::to_string(what).expect("numbers and strings");
        writeln!(self.file, "{text}")
            .map_err(|source| CostError::Io { path: self.path.clone(), source })
    }

    fn add(&mut self, cost: &Cost) -> Result<(), CostError> {
        let reading = self.nvml.as_ref().map(Nvml::read).unwrap_or_default();
        self.line(&Line { cost, reading })
    }

    /// Writes `costs.csv`, the quantiles.
    fn table(&self, folder: &Path, info: &DeviceInfo, costs: &[Cost]) -> Result<(), CostError> {
        let source = if info.kind == Kind::Gpu { "measured" } else { STAND_IN };
        let mut text = format!(
            "# cotenant-costs v1\n# gpu_name={}\n# gpu={}\n# cuda={}\n# source={source}\n# \
             date={}\nstep,unit,p05,p50,p95,samples,note\n",
            info.name,
            info.uuid,
            info.driver,
            crate::collect::today()
        );
        for c in costs {
            let q = |p| c.quantile(p).map_or_else(String::new, |v| format!("{v:.4}"));
            let note = c.note.replace('"', "'");
            text += &format!(
                "{},{},{},{},{},{},\"{note}\"\n",
                c.step,
                c.unit,
                q(5),
                q(50),
                q(95),
                c.samples.len()
            );
        }
        write_whole(&folder.join("costs.csv"), &text)
    }
}

/// Writes a file completely or not at all.
fn write_whole(path: &Path, text: &str) -> Result<(), CostError> {
    let part = path.with_extension("part");
    let done = std::fs::write(&part, text).and_then(|()| std::fs::rename(&part, path));
    done.map_err(|source| CostError::Io { path: path.to_owned(), source })
}
