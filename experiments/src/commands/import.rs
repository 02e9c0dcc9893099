//! `cotenant profile import`.

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};

use clap::Args;
use cotenant_profiles::import::{self, Import, LaunchFloor, Recording, Tool};
use cotenant_profiles::lower::Precision;
use cotenant_profiles::zoo::decoder;
use cotenant_profiles::{Device, Nanos, files, zoo};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::profile::{device, write};
use crate::config::IMPORTS;
use crate::fail::{Done, Failure, did_you_mean};
use crate::models;
use crate::say;

/// Read other tools' measurements as a profile
///
/// docs/recordings.md shows how to record with each tool. Files may be packed with gzip or zstd.
#[derive(Args)]
#[command(after_help = "Examples:\n  \
    cotenant profile import --from torch --model bert trace.json.gz --out profiles/mine\n  \
    cotenant profile import --from nsys --device a100-sxm-80 --gpu-index 1 --range forward \
    --model gpt --batch 8 report.sqlite --out profiles/mine\n  \
    cotenant profile import --from table --device a100-sxm-80 --launch-floor auto latencies.csv \
    --out profiles/mine\n  \
    cotenant profile import --from llmservingsim --device rtx-4090 --model llama-3.1-8b tp1/ \
    --out profiles/mine\n  \
    cotenant profile import --from orion --device v100-sxm2-16 resnet50_4_fwd.csv --out profiles/v100")]
pub(crate) struct ImportArgs {
    /// Format of the files: torch, nsys, rocprof (recordings), table, perf-analyzer, trtexec, orion, reef,
    /// neusight, aiconfigurator or llmservingsim
    #[arg(long, value_name = "FORMAT")]
    from: String,
    /// GPU that was measured: a name or the path of a .toml file [default: what the recording says]
    #[arg(long)]
    device: Option<String>,
    /// Files, or a folder of them
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// reef: scale the kernels of a model so that they add up to its profiled time
    #[arg(long)]
    rescale: bool,
    /// Recordings: name of the model
    #[arg(long)]
    model: Option<String>,
    /// Recordings: items of one pass
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    batch: u32,
    /// Recordings: the GPU, by its number in the file, where several ran kernels
    #[arg(long, value_name = "N")]
    gpu_index: Option<u32>,
    /// Recordings: the step to take, by the number in its mark, in place of the median one
    #[arg(long, value_name = "N")]
    step: Option<u64>,
    /// Recordings: what one pass is: the name of a mark (annotation, NVTX range), or kernels by number
    #[arg(long, value_name = "NAME|FIRST..END", value_parser = range)]
    range: Option<import::Range>,
    /// Recordings: host time of one launch, such as 8us, in place of what the file shows
    #[arg(long, value_name = "TIME|auto", value_parser = launch)]
    launch: Option<Launch>,
    /// table: the host's part of every latency, such as 4ms; auto: the least latency of a model where
    /// latencies are flat over batches [default: the column host_ms, or none]
    #[arg(long, value_name = "TIME|auto", value_parser = launch)]
    launch_floor: Option<Launch>,
    /// aiconfigurator: numbers computed with [default: bf16]
    #[arg(long)]
    precision: Option<Precision>,
    /// nsys cuda_gpu_kern_sum: how often the model ran
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    passes: Option<u32>,
    /// Import although the file says that it was recorded on another GPU
    #[arg(long)]
    force: bool,
    /// Replace what the folder already holds of the same model and batch
    #[arg(long)]
    replace: bool,
    /// Folder for the profile
    #[arg(short, long, value_name = "DIR")]
    out: PathBuf,
}

#[derive(Clone, Copy)]
enum Launch {
    Auto,
    Given(Nanos),
}

fn launch(text: &str) -> Result<Launch, String> {
    match text {
        "auto" => Ok(Launch::Auto),
        text => text
            .parse()
            .map(Launch::Given)
            .map_err(|e: cotenant_profiles::units::UnitError| e.to_string()),
    }
}

fn range(text: &str) -> Result<import::Range, String> {
    match text.split_once("..") {
        Some((a, b)) if [a, b].iter().all(|n| n.trim().bytes().all(|c| c.is_ascii_digit())) => {
            super::gpu::range(text).map(import::Range::Kernels)
        }
        _ if text.trim().is_empty() => Err("write a mark's name, or two numbers".to_owned()),
        _ => Ok(import::Range::Mark(text.to_owned())),
    }
}

/// Formats that record what ran, of one model at one batch, which they do not name.
const RECORDINGS: [(&str, Tool); 3] =
    [("torch", Tool::Torch), ("nsys", Tool::Nsys), ("rocprof", Tool::Rocprof)];

/// The format that holds operators, which a model of the zoo is put together from.
const OPERATORS: &str = "aiconfigurator";

/// The format that holds layers of a generating model.
const LAYERS: &str = "llmservingsim";

/// Formats that hold whole-model latencies.
const WHOLE: [&str; 2] = ["perf-analyzer", "trtexec"];

/// Runs the command.
pub(crate) fn run(args: &ImportArgs) -> Done {
    let from = args.from.as_str();
    if let Some((_, tool)) = RECORDINGS.iter().find(|(name, _)| *name == from) {
        let (read, device) = recording(args, *tool)?;
        return finish(args, &read, &device);
    }
    let names = RECORDINGS.iter().map(|(name, _)| *name);
    if WHOLE.contains(&from) {
        let device = device(given_device(args)?)?;
        let read = whole(args, &device)?;
        return finish(args, &read, &device);
    }
    if from == OPERATORS {
        let device = device(given_device(args)?)?;
        return operators(args, &device);
    }
    if from == LAYERS {
        return layers(args, &device(given_device(args)?)?);
    }
    if !IMPORTS.contains(&from) {
        let whole = WHOLE.iter().copied();
        let known: Vec<&str> =
            IMPORTS.iter().copied().chain(names).chain(whole).chain([OPERATORS, LAYERS]).collect();
        let near = did_you_mean(from, known.iter().copied());
        let known = known.join(", ");
        return Err(Failure::input(format!(
            "--from {from}: no such format; known are {known}{near}"
        )));
    }
    let recordings: Vec<&str> = names.collect();
    let alone = [
        ("--launch", args.launch.is_some()),
        ("--gpu-index", args.gpu_index.is_some()),
        ("--step", args.step.is_some()),
        ("--range", args.range.is_some()),
        ("--passes", args.passes.is_some()),
    ];
    if let Some((flag, _)) = alone.iter().find(|(_, given)| *given) {
        let known = recordings.join(", ");
        return Err(Failure::input(format!("{flag}: only for {known}, not for {from}")));
    }
    let device = device(given_device(args)?)?;
    let mut files = vec![];
    for path in &args.files {
        files.extend(models::input_files(path).map_err(Failure::input)?);
    }
    if args.launch_floor.is_some() && from != "table" {
        return Err(Failure::input(format!("--launch-floor: only for table, not for {from}")));
    }
    let options = models::ImportOptions {
        reef: import::ReefOptions { rescale: args.rescale },
        table: import::TableOptions {
            launch_floor: match args.launch_floor {
                None => LaunchFloor::None,
                Some(Launch::Auto) => LaunchFloor::Auto,
                Some(Launch::Given(time)) => LaunchFloor::Given(time),
            },
        },
    };
    let read = models::import_files(from, &files, &device, &options).map_err(Failure::input)?;
    finish(args, &read, &device)
}

fn given_device(args: &ImportArgs) -> Done<&str> {
    let none = || format!("--device: `{}` does not name the GPU: give one", args.from);
    args.device.as_deref().ok_or_else(|| Failure::input(none()))
}

fn operators(args: &ImportArgs, device: &Device) -> Done {
    let none =
        || Failure::input(format!("--model: `{OPERATORS}` needs a model of the zoo: give one"));
    let name = args.model.as_deref().ok_or_else(none)?;
    let precision = args.precision.unwrap_or(Precision::Bf16);
    let mut all = import::Operators::default();
    for path in &args.files {
        for file in operator_tables(path)? {
            all.read(&file, precision).map_err(Failure::input)?;
        }
    }
    let file = args.files[0].display().to_string();
    match (zoo::find(name), decoder::find(name)) {
        (Err(_), Ok(model)) => {
            let read = import::aiconfigurator_layers(&file, &all, device, &model, precision);
            let (read, [measured, nearby]) = read.map_err(Failure::input)?;
            let note = format!("{measured} points measured, {nearby} from shapes nearby\n");
            finish_layers(args, &read, device, &note)
        }
        (Err(why), Err(_)) => Err(Failure::input(why)),
        (Ok(spec), _) => {
            let read = import::aiconfigurator(&file, &all, device, &spec, args.batch, precision);
            finish(args, &read.map_err(Failure::input)?, device)
        }
    }
}

/// The tables of products, attention and experts in a folder and those below it; a file is itself.
fn operator_tables(path: &Path) -> Done<Vec<PathBuf>> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let table = |p: &Path| {
        let name = p.file_stem().and_then(|s| s.to_str()).unwrap_or_default();
        p.extension().is_some_and(|e| ["parquet", "csv", "txt"].iter().any(|x| e == *x))
            && (name == "gemm_perf" || name == "moe_perf" || name.ends_with("attention_perf"))
    };
    let failed = |e: std::io::Error| Failure::input(format!("{}: {e}", path.display()));
    let mut tables = vec![];
    let mut folders = vec![path.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).map_err(failed)? {
            let entry = entry.map_err(failed)?.path();
            if entry.is_dir() {
                folders.push(entry);
            } else if table(&entry) {
                tables.push(entry);
            }
        }
    }
    tables.sort();
    if tables.is_empty() {
        let wanted = "no gemm_perf or *_attention_perf table in it";
        return Err(Failure::input(format!("{}: {wanted}", path.display())));
    }
    Ok(tables)
}

/// Layer tables of a generating model: they go to `layers/<model>.csv`, whatever else the folder holds.
fn layers(args: &ImportArgs, device: &Device) -> Done {
    let none = || {
        let all: Vec<&str> = decoder::DECODERS.iter().map(|d| &*d.name).collect();
        let all = all.join(", ");
        Failure::input(format!(
            "--model: `{LAYERS}` needs the generating model that was timed: one of {all}, or the path of \
             its config.json"
        ))
    };
    let model = decoder::find(args.model.as_deref().ok_or_else(none)?).map_err(Failure::input)?;
    let mut files = vec![];
    for path in &args.files {
        files.extend(models::input_files(path).map_err(Failure::input)?);
    }
    let mut texts = vec![];
    for file in &files {
        texts.push((file.display().to_string(), import::read_text(file).map_err(Failure::input)?));
    }
    let inputs: Vec<import::Input<'_>> =
        texts.iter().map(|(file, text)| import::Input { file, text }).collect();
    let precision = args.precision.unwrap_or(Precision::Bf16);
    let facts = [("precision", precision.name().to_owned())];
    let read = import::llmservingsim(&inputs, device, &model.name, &facts);
    let read = read.map_err(Failure::input)?;
    finish_layers(args, &read, device, "")
}

fn finish_layers(
    args: &ImportArgs,
    read: &import::LayerImport,
    device: &Device,
    note: &str,
) -> Done {
    files::write_layers(&args.out, &read.times, args.replace).map_err(Failure::input)?;
    let dropped: usize = read.dropped.values().sum();
    let mut text =
        format!("rows: {} read, {} used, {dropped} dropped\n", read.rows_in, read.rows_used);
    for (why, n) in &read.dropped {
        text += &format!("  {n} {why}\n");
    }
    text += note;
    text += &format!(
        "layer times of {} on {}: layers take their rows on the whole GPU, curves over fewer CUs stay \
         computed\n",
        read.times.model, device.name
    );
    say::out(&text)
}

fn whole(args: &ImportArgs, device: &Device) -> Done<Import> {
    let [path] = args.files.as_slice() else {
        let n = args.files.len();
        return Err(Failure::input(format!("`{}` reads one file, not {n}", args.from)));
    };
    let text = import::read_text(path).map_err(Failure::input)?;
    let input = import::Input { file: &path.display().to_string(), text: &text };
    let options =
        import::WholeOptions { model: args.model.clone(), batch: args.batch, launch: given(args) };
    let read = if args.from == "trtexec" {
        import::trtexec(&input, device, &options)
    } else {
        import::perf_analyzer(&input, device, &options)
    };
    read.map_err(Failure::input)
}

/// The host time of a launch, where it is given.
fn given(args: &ImportArgs) -> Option<Nanos> {
    match args.launch {
        Some(Launch::Given(time)) => Some(time),
        Some(Launch::Auto) | None => None,
    }
}

fn recording(args: &ImportArgs, tool: Tool) -> Done<(Import, Device)> {
    let [path] = args.files.as_slice() else {
        let n = args.files.len();
        return Err(Failure::input(format!("`{}` reads one file, not {n}", args.from)));
    };
    let model = args.model.clone().ok_or_else(|| {
        Failure::input(format!("--model: `{}` does not name the model: give one", args.from))
    })?;
    let bar = bar(path);
    let read = Recording::read(tool, path, &mut |bytes| bar.set_position(bytes));
    bar.finish_and_clear();
    let read = read.map_err(Failure::input)?;
    let gpu = read.gpu(args.gpu_index).map_err(Failure::input)?;
    let device = match (&args.device, gpu) {
        (Some(name), gpu) => {
            let device = device(name)?;
            match gpu.and_then(|g| g.mismatch(&device)) {
                Some(why) if args.force => say::warn(&format!("--force: {why}")),
                Some(why) => {
                    let why = format!("--device {name}: {why}; --force imports it all the same");
                    return Err(Failure::input(why));
                }
                None => {}
            }
            device
        }
        (None, Some(gpu)) => known(gpu)?,
        (None, None) => {
            let why = "the recording does not name its GPU: give one (`cotenant devices`)";
            return Err(Failure::input(format!("--device: {why}")));
        }
    };
    let options = import::StreamOptions {
        model,
        batch: args.batch,
        range: args.range.clone(),
        step: args.step,
        gpu: args.gpu_index,
        launch: given(args),
        passes: args.passes,
    };
    let import = read.model(&device, &options).map_err(Failure::input)?;
    Ok((import, device))
}

/// The device that the recording's GPU is.
fn known(gpu: &import::Gpu) -> Done<Device> {
    let all = Device::builtin_names().filter_map(|n| Device::builtin(n).ok());
    // Without its compute units a name alone is too little to go by.
    let fits: Vec<Device> =
        all.filter(|d| gpu.cus.is_some() && gpu.mismatch(d).is_none()).collect();
    match <[Device; 1]>::try_from(fits) {
        Ok([device]) => {
            say::note(&format!("recorded on {}: device {}", gpu.name, device.name));
            Ok(device)
        }
        Err(fits) => {
            let names: Vec<&str> = if fits.is_empty() {
                Device::builtin_names().collect()
            } else {
                fits.iter().map(|d| d.name.as_str()).collect()
            };
            let count = if fits.is_empty() { "no device here" } else { "several devices" };
            let (name, names) = (&gpu.name, names.join(", "));
            Err(Failure::input(format!(
                "--device: recorded on {name}, which is {count}; give one of {names}, or the path of a \
                 .toml file"
            )))
        }
    }
}

/// How far a large file has been read.
fn bar(path: &Path) -> ProgressBar {
    let size = std::fs::metadata(path).map_or(0, |m| m.len());
    let hidden = size < 32 << 20 || !std::io::stderr().is_terminal() || say::quiet();
    let target = if hidden { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
    let bar = ProgressBar::with_draw_target(Some(size), target);
    let style = ProgressStyle::with_template("{bar:30} {bytes}/{total_bytes}, {eta} left");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar
}

fn finish(args: &ImportArgs, read: &Import, device: &Device) -> Done {
    write(&args.out, &read.profile, device, args.replace)?;
    let dropped: usize = read.dropped.values().sum();
    let mut text =
        format!("rows: {} read, {} used, {dropped} dropped\n", read.rows_in, read.rows_used);
    for (why, n) in &read.dropped {
        text += &format!("  {n} {why}\n");
    }
    for note in &read.notes {
        text += &format!("{note}\n");
    }
    for warning in &read.warnings {
        say::warn(warning);
    }
    say::out(&text)
}
