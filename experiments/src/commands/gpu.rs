//! `cotenant gpu`, `capture` and `profile collect`: what needs, or looks for, a GPU of this machine.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use clap::{Args, Subcommand};
use cotenant_profiles::import::{self, StreamOptions};
use cotenant_profiles::lower::Precision;
use cotenant_profiles::{Device, Nanos, Profile, files};
use cotenant_replay::capture::{self, CaptureError};
use cotenant_replay::collect::{self, CollectError, PlanError, Progress, Request};
use cotenant_replay::costs::{self, CostError};
use cotenant_replay::mps::{self, Daemon};
use cotenant_replay::{DeviceError, survey};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::fail::{Done, Failure};
use crate::folder::write_whole;
use crate::say;
use crate::study::stop::Stop;
use crate::text::{align, count};

/// Say what this machine's GPU and driver can do, and what is missing; or measure it
///
/// Without a command: what collect, capture and replay need, and whether it is there.
#[derive(Args)]
#[command(after_help = "Examples:\n  cotenant gpu\n  \
    cotenant gpu costs --device h100-sxm --out out/costs\n  \
    cotenant gpu tiles --device h100-sxm --models resnet50 --batch 8\n  \
    cotenant gpu fit --device h100-sxm --profiles out/profiles/h100-sxm")]
pub(crate) struct GpuArgs {
    #[command(subcommand)]
    command: Option<GpuCommand>,
}

#[derive(Subcommand)]
enum GpuCommand {
    Costs(CostArgs),
    Tiles(TileArgs),
    Fit(super::fit::FitArgs),
}

/// `cotenant gpu`.
///
/// # Errors
/// What its commands meet.
pub(crate) fn run(args: &GpuArgs) -> Done {
    match &args.command {
        None => gpu(),
        Some(GpuCommand::Costs(args)) => measure_costs(args),
        Some(GpuCommand::Tiles(args)) => super::tune::tiles(args),
        Some(GpuCommand::Fit(args)) => super::fit::run(args),
    }
}

/// Measure what the sharing mechanisms cost, into a device file
///
/// Launches, hops between streams, turns of contexts, starts of processes, MPS, copies, bandwidths.
#[derive(Args)]
#[command(
    after_help = "Example:\n  cotenant gpu costs --device h100-sxm --budget 2min --out out/costs"
)]
pub(crate) struct CostArgs {
    /// GPU that is in this machine: a name or the path of a .toml file, whose other lines are kept
    #[arg(long)]
    device: String,
    /// Stop after about this time [default: 10 s for each of about ten steps]
    #[arg(long)]
    budget: Option<Nanos>,
    /// Folder for the device file and the samples [default: out/profiles/DEVICE/costs]
    #[arg(short, long, value_name = "DIR")]
    out: Option<PathBuf>,
}

/// Tune matrix products at shares of the GPU, and run them at others
///
/// Every tile size at a few CU counts, and how the best at one does at the others; needs NVRTC.
#[derive(Args)]
#[command(after_help = "Example:\n  \
    cotenant gpu tiles --device h100-sxm --models resnet50 --batch 8 --cus 32,66,132 \
    --budget 8min --out out/tuned")]
pub(crate) struct TileArgs {
    #[command(flatten)]
    pub(super) what: MeasureArgs,
}

/// `cotenant gpu` without a command: never fails for what the machine lacks.
fn gpu() -> Done {
    let row = |f: &survey::Finding| {
        let state = if f.works { "yes" } else { "no" };
        vec![f.what.to_owned(), state.to_owned(), f.detail.clone()]
    };
    let findings = survey::survey();
    let rows: Vec<Vec<String>> = findings.iter().map(row).collect();
    let works = |what: &str| findings.iter().any(|f| f.what == what && f.works);
    let gpu = works("GPU");
    let can = |what: &str, ok: bool| format!("{what}: {}\n", if ok { "yes" } else { "no" });
    let mut text = align(&["", "", "what was found, or what is missing"], &rows);
    text += "\n";
    let collects = gpu && works("green contexts") && works("cuBLASLt") && works("cuDNN");
    text += &can("profile collect", collects);
    text += &can("gpu costs, replay", gpu);
    text += &can("capture", gpu && works("CUPTI"));
    say::out(&text)
}

/// Run an unmodified CUDA program and record its kernels
///
/// The program runs as it is, and its exit status is reported; where CUPTI or the GPU is missing,
/// it runs without being recorded.
#[derive(Args)]
#[command(after_help = "Examples:\n  \
    cotenant capture --device h100-sxm --model mynet --batch 8 --out out/capture -- python infer.py\n  \
    cotenant capture --device h100-sxm --shares 25,50,75,100 -- python infer.py\n  \
    cotenant capture -- ./server --once")]
pub(crate) struct CaptureArgs {
    /// GPU that is in this machine, for the profile: a name or the path of a .toml file
    #[arg(long)]
    device: Option<String>,
    /// Name of the model in the profile
    #[arg(long, default_value = "captured")]
    model: String,
    /// Items of one iteration
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    batch: u32,
    /// Kernels of one iteration, by number, in place of the one found
    #[arg(long, value_name = "FIRST..END", value_parser = range)]
    range: Option<[usize; 2]>,
    /// Host time of one launch, such as 8us: in place of what the gaps between kernels
    /// show
    #[arg(long, value_name = "TIME", requires = "device")]
    launch: Option<Nanos>,
    /// Run the program once under each of these MPS shares of the SMs, in percent, and once on all of
    /// them; the durations become the curves of its kernels
    #[arg(long, value_delimiter = ',', value_name = "PERCENT", requires = "device")]
    shares: Vec<f64>,
    /// Folder for the recording
    #[arg(short, long, value_name = "DIR", default_value = "out/capture")]
    out: PathBuf,
    /// Program with its arguments
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

/// Reads `100..250`.
pub(crate) fn range(text: &str) -> Result<[usize; 2], String> {
    let parts = text.split_once("..");
    let parts = parts.and_then(|(a, b)| Some([a.trim().parse().ok()?, b.trim().parse().ok()?]));
    parts.filter(|[a, b]| a < b).ok_or_else(|| "write two numbers, such as 100..250".to_owned())
}

/// `cotenant capture`.
pub(crate) fn capture(args: &CaptureArgs) -> Done {
    let device = args.device.as_deref().map(|d| Device::find(d, Path::new("")));
    let device = device.transpose().map_err(Failure::input)?;
    let raw = args.out.join("raw");
    if raw.exists() {
        let why = format!("{}: holds a recording already; choose another folder", raw.display());
        return Err(Failure::input(why));
    }
    std::fs::create_dir_all(&raw).map_err(|e| Failure::write(&raw, e))?;
    let raw = raw.canonicalize().map_err(|e| Failure::write(&raw, e))?;
    let library = match capture::library() {
        Ok(path) => Some(path),
        Err(why) => {
            say::warn(&format!("nothing is recorded: {why}"));
            None
        }
    };
    let done = recorded(args, device.as_ref(), library.as_deref(), &raw);
    tidy(&args.out);
    done
}

/// Removes the folders in which nothing was recorded, so that the same command can be given again.
fn tidy(out: &Path) {
    let raw = out.join("raw");
    for entry in std::fs::read_dir(&raw).into_iter().flatten().flatten() {
        // What is not empty stays, and so does what is not a folder.
        let _ = std::fs::remove_dir(entry.path());
    }
    for folder in [raw, out.join("timeline"), out.to_path_buf()] {
        let _ = std::fs::remove_dir(folder);
    }
}

fn recorded(
    args: &CaptureArgs,
    device: Option<&Device>,
    library: Option<&Path>,
    raw: &Path,
) -> Done {
    if let Some(device) = device.filter(|_| !args.shares.is_empty()) {
        return capture_shares(args, device, library, raw);
    }
    let status = run_once(args, library, raw, None)?;
    let recordings = read_recordings(args, raw, "")?;
    if recordings.iter().all(|(_, r)| r.records.is_empty()) {
        say::warn("no kernel was recorded: `cotenant gpu` says what is missing");
    } else if let Some(device) = device {
        write_profile(args, &captured(args, device, recordings)?)?;
    } else {
        say::note("no profile: name the GPU with --device");
    }
    ended(args, status)
}

fn run_once(
    args: &CaptureArgs,
    library: Option<&Path>,
    raw: &Path,
    share: Option<(&Daemon, f64)>,
) -> Done<ExitStatus> {
    capture::run(&args.command, library, raw, share).map_err(|e| match e {
        CaptureError::Start { .. } => Failure::input(e),
        e => Failure::failed(e),
    })
}

/// Status 1 where the program failed.
fn ended(args: &CaptureArgs, status: ExitStatus) -> Done {
    if status.success() {
        return Ok(());
    }
    Err(Failure::failed(format!("{}: {status}", args.command[0].to_string_lossy())))
}

/// Reads what was recorded and writes a timeline of each process; `prefix` begins their names.
fn read_recordings(
    args: &CaptureArgs,
    raw: &Path,
    prefix: &str,
) -> Done<Vec<(PathBuf, capture::Recording)>> {
    let recordings = capture::recordings(raw).map_err(Failure::failed)?;
    let mut kernels = 0;
    for (path, recording) in &recordings {
        kernels += recording.records.len();
        if recording.dropped > 0 {
            say::warn(&format!("{} kernels found no room in CUPTI's buffers", recording.dropped));
        }
        let stem = path.file_stem().and_then(|s| s.to_str()).unwrap_or("kernels");
        let file = args.out.join("timeline").join(format!("{prefix}{stem}.json"));
        write_whole(&file, capture::timeline(recording).as_bytes())?;
    }
    let processes = count(recordings.len(), "recorded program");
    say::out(&format!("{} of {processes} in {}\n", count(kernels, "kernel"), args.out.display()))?;
    Ok(recordings)
}

/// Runs the program under every share of a daemon of our own, and puts the durations together.
fn capture_shares(args: &CaptureArgs, device: &Device, library: Option<&Path>, raw: &Path) -> Done {
    const ALL: f64 = 100.0;
    let mut shares = args.shares.clone();
    if let Some(bad) = shares.iter().find(|s| !(**s > 0.0 && **s <= ALL)) {
        return Err(Failure::input(format!("--shares {bad}: a percentage is above 0, up to 100")));
    }
    if !shares.contains(&ALL) {
        shares.push(ALL);
    }
    shares.sort_by(|a, b| b.total_cmp(a));
    if let Some(two) = shares.windows(2).find(|w| device.mps_cus(w[0]) == device.mps_cus(w[1])) {
        let cus = device.mps_cus(two[0]);
        let why = format!("--shares {} and {} are both {cus} CUs: name one", two[1], two[0]);
        return Err(Failure::input(why));
    }
    let daemon = Daemon::start(&mps::Options::default()).map_err(Failure::failed)?;
    let mut profiles = Vec::new();
    for &percent in &shares {
        let folder = raw.join(percent.to_string());
        std::fs::create_dir_all(&folder).map_err(|e| Failure::write(&folder, e))?;
        say::note(&format!("{percent} % of the SMs"));
        let status = run_once(args, library, &folder, Some((&daemon, percent)))?;
        ended(args, status)?;
        let recordings = read_recordings(args, &folder, &format!("{percent}-"))?;
        if recordings.iter().all(|(_, r)| r.records.is_empty()) {
            let why = "no kernel was recorded: `cotenant gpu` says what is missing";
            return Err(Failure::failed(why));
        }
        let profile = captured(args, device, recordings)?;
        profiles.push(capture::Share { percent, cus: device.mps_cus(percent), profile });
    }
    daemon.quit().map_err(Failure::failed)?;
    let whole = profiles.remove(0).profile;
    let (profile, matched) = capture::merge(whole, &profiles);
    if matched.missing > 0 {
        let points = count(matched.missing, "point");
        say::warn(&format!("{points} missing: those shares ran other kernels, or more of them"));
    }
    write_profile(args, &profile)
}

/// The profile of the process that launched the most kernels.
fn captured(
    args: &CaptureArgs,
    device: &Device,
    recordings: Vec<(PathBuf, capture::Recording)>,
) -> Done<Profile> {
    let longest = recordings.into_iter().max_by_key(|(_, r)| r.records.len());
    let (path, recording) = longest.expect("a kernel was recorded by somebody");
    let (model, batch, launch) = (args.model.clone(), args.batch, args.launch);
    let range = args.range.map(import::Range::Kernels);
    let options = StreamOptions { model, batch, range, launch, ..StreamOptions::default() };
    let facts = [
        ("tool", "cotenant capture (CUPTI activity records)".to_owned()),
        ("framework", args.command[0].to_string_lossy().into_owned()),
    ];
    let file = path.display().to_string();
    let read = import::records(&file, recording.records, device, &options, &facts);
    read.map(|r| r.profile).map_err(Failure::input)
}

fn write_profile(args: &CaptureArgs, profile: &Profile) -> Done {
    let folder = args.out.join("profile");
    files::write(&folder, profile).map_err(Failure::failed)?;
    let kernels = count(profile.kernels.len(), "distinct kernel");
    say::note(&format!("{} with {kernels} in {}", args.model, folder.display()));
    Ok(())
}

/// What is measured of which models, and for how long.
#[derive(Args)]
pub(crate) struct MeasureArgs {
    /// GPU that is in this machine: a name or the path of a .toml file
    #[arg(long)]
    device: String,
    /// Models of the zoo, separated by commas
    #[arg(long, value_delimiter = ',', default_value = "resnet50,bert_base")]
    models: Vec<String>,
    /// Batch sizes, separated by commas
    #[arg(long, value_delimiter = ',', default_value = "1,8")]
    batch: Vec<u32>,
    /// CU counts, separated by commas [default: a ladder from 2 to all; for tiles, quarters]
    #[arg(long, value_delimiter = ',')]
    cus: Vec<u32>,
    /// Numbers computed with: fp32, tf32, fp16 or bf16
    #[arg(long, default_value = "fp32")]
    precision: Precision,
    /// Timed launches of one visit
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    samples: u16,
    /// Visits of every point
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=1000))]
    rounds: u16,
    /// Stop after this time, the most informative points first
    #[arg(long)]
    budget: Option<Nanos>,
    /// Seed of the order of visits
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Folder for the results [default: out/profiles/DEVICE, for tiles its folder tune]
    #[arg(short, long, value_name = "DIR")]
    out: Option<PathBuf>,
}

/// Clocks of an idle GPU have risen after this long under load.
const RAMP: Duration = Duration::from_secs(1);

impl MeasureArgs {
    /// The request, and the folder.
    pub(super) fn request(&self, pairs: u16) -> Done<(Request, Option<PathBuf>)> {
        let device = Device::find(&self.device, Path::new("")).map_err(Failure::input)?;
        let request = Request {
            device,
            models: self.models.clone(),
            batches: self.batch.clone(),
            precision: self.precision,
            cus: self.cus.clone(),
            samples: usize::from(self.samples),
            rounds: usize::from(self.rounds),
            corun_kernels: usize::from(pairs),
            budget: self.budget.map(|b| Duration::from_nanos(b.0)),
            ramp: RAMP,
            stop: Stop::listen()?.driver().clone(),
            seed: self.seed,
        };
        Ok((request, self.out.clone()))
    }
}

/// Measure latency curves of the zoo's kernels on this machine's GPU
///
/// An earlier collection into the same folder is resumed where it stopped.
#[derive(Args)]
#[command(after_help = "Example:\n  \
    cotenant profile collect --device h100-sxm --models resnet50,bert-base --batch 1,8 \
    --budget 8min --out profiles/mine")]
pub(crate) struct CollectArgs {
    #[command(flatten)]
    what: MeasureArgs,
    /// How many of the longest kernels are measured in pairs side by side, at several splits
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(0..=64))]
    pairs: u16,
}

/// Where what is measured on a device goes where nothing is said.
pub(super) fn folder_of(device: &Device) -> PathBuf {
    Path::new("out/profiles").join(&device.name)
}

/// The text of the device file that `asked` names.
pub(super) fn device_text(asked: &str, device: &Device) -> Done<String> {
    match Device::builtin_text(&device.name) {
        Some(text) if !asked.ends_with(".toml") => Ok(text.to_owned()),
        _ => std::fs::read_to_string(asked).map_err(|e| Failure::input(format!("{asked}: {e}"))),
    }
}

/// `cotenant profile collect`.
pub(crate) fn collect(args: &CollectArgs) -> Done {
    let (request, folder) = args.what.request(args.pairs)?;
    let folder = folder.unwrap_or_else(|| folder_of(&request.device));
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden());
    if !say::quiet() {
        bar.set_draw_target(ProgressDrawTarget::stderr());
    }
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} visits, {msg}");
    bar.set_style(style.expect("a fixed template"));
    let mut tell = |p: Progress| {
        bar.set_length(p.planned as u64);
        bar.set_position(p.done as u64);
        let left = Nanos::from_secs(p.left.as_secs());
        bar.set_message(format!("{left} left"));
    };
    let collected = collect::collect(&request, &folder, &mut tell);
    bar.finish_and_clear();
    let collected = collected.map_err(|e| match e {
        CollectError::Plan(PlanError::OtherDevice { .. } | PlanError::OtherName { .. }) => {
            Failure::failed(e)
        }
        CollectError::Plan(_) => Failure::input(e),
        CollectError::Device(DeviceError::Unavailable(_)) => {
            Failure::failed(format!("profile collect: {e}"))
        }
        e => Failure::failed(e),
    })?;
    if collected.stand_in {
        say::warn(
            "the driver is a stand-in: these numbers are not measurements, and the files say so",
        );
    }
    for failed in &collected.failed {
        say::warn(&format!("not measured: {failed}"));
    }
    if let Some(why) = &collected.broken {
        let how = "the GPU's context is lost; the same command resumes after what failed";
        say::warn(&format!("measuring ended early: {why}: {how}"));
    }
    if collected.slow > 0 {
        let visits = count(collected.slow, "visit");
        let why = "the GPU was throttled, or another program used it";
        say::warn(&format!(
            "{visits} below {:.0} % of the highest SM clock: {why}",
            100.0 * collect::SLOW
        ));
    }
    let reason = match (&collected.broken, collected.failed.is_empty()) {
        (None, true) => "the budget ended; the same command resumes",
        _ => "kernels of it are not measured",
    };
    for model in &collected.incomplete {
        say::warn(&format!("{model} is incomplete: {reason}"));
    }
    if collected.pairs_left > 0 {
        let left = count(collected.pairs_left, "pair");
        say::warn(&format!("{left} left out: the budget ended; the same command resumes"));
    }
    if request.stop.wanted() {
        let why = format!(
            "stopped; what was measured is in {}; the same command resumes",
            folder.display()
        );
        return Err(Failure::Stopped(why));
    }
    let (kernels, pairs) = (collected.profile.kernels.len(), collected.profile.corun.len());
    say::out(&format!(
        "{} and {} in {}\n",
        count(kernels, "kernel"),
        count(pairs, "pair"),
        folder.display()
    ))
}

/// What one step of the costs may take unless a budget says less.
const COST_STEP: Nanos = Nanos::from_secs(10);

/// `cotenant gpu costs`.
fn measure_costs(args: &CostArgs) -> Done {
    let device = Device::find(&args.device, Path::new("")).map_err(Failure::input)?;
    let folder = args.out.clone().unwrap_or_else(|| folder_of(&device).join("costs"));
    let text = device_text(&args.device, &device)?;
    let program = std::env::current_exe().map_err(Failure::failed)?;
    // About ten steps share a budget.
    let step = args.budget.map_or(COST_STEP, |b| Nanos(b.0 / 10).min(COST_STEP));
    let request = costs::Request {
        device,
        text,
        helper: vec![program.into_os_string(), "cost-helper".into()],
        mps: None,
        step: Duration::from_nanos(step.0),
        stop: Stop::listen()?.driver().clone(),
    };
    let measured = costs::measure(&request, &folder, &mut |step| say::note(&format!("{step} …")));
    let measured = measured.map_err(|e| match e {
        CostError::Device(DeviceError::Unavailable(_)) => {
            Failure::failed(format!("gpu costs: {e}"))
        }
        e => Failure::failed(e),
    })?;
    if measured.stand_in {
        say::warn(
            "the driver is a stand-in: these numbers are not measurements, and the files say so",
        );
    }
    let value = |c: &costs::Cost, percent| {
        c.quantile(percent).map_or_else(|| "-".to_owned(), |v| format!("{v:.1}"))
    };
    let row = |c: &costs::Cost| {
        let q = [5, 50, 95].map(|p| value(c, p));
        let unit = c.unit.to_owned();
        [vec![c.step.clone()], q.to_vec(), vec![unit, c.note.clone()]].concat()
    };
    let rows: Vec<Vec<String>> = measured.costs.iter().map(row).collect();
    say::out(&align(&["step", "p05", "p50", "p95", "unit", ""], &rows))?;
    let lines = count(measured.lines.len(), "line");
    say::out(&format!("{lines} of {} from these\n", measured.file.display()))?;
    if request.stop.wanted() {
        let why = format!("stopped; what was measured is in {}", folder.display());
        return Err(Failure::Stopped(why));
    }
    Ok(())
}

/// The helper process of [`measure_costs`].
pub(crate) fn cost_helper(ask: &str, to: &Path) -> Done {
    let ask = costs::Ask::read(ask)
        .ok_or_else(|| Failure::input(format!("`{ask}`: start or watch:AT is asked for")))?;
    costs::child(ask, to).map_err(|e| Failure::failed(format!("{}: {e}", to.display())))
}
