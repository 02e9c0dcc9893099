//! `cotenant profile analyze|collect|import|show`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use cotenant_profiles::files::{self, FileError, Store};
use cotenant_profiles::lower::Precision;
use cotenant_profiles::{Device, Launch, Profile, analytic, stats, zoo};

use crate::config::ProfileSource;
use crate::curves::{self, CurveTable};
use crate::fail::{Done, Failure};
use crate::folder::write_whole;
use crate::models::{Found, Library, Variant};
use crate::say;
use crate::text::{align, count, rounded};

/// Subcommands of `profile`.
#[derive(Subcommand)]
pub(crate) enum Command {
    Analyze(AnalyzeArgs),
    Collect(super::gpu::CollectArgs),
    Import(super::import::ImportArgs),
    Show(ShowArgs),
}

/// How a model is turned into kernels.
#[derive(Args)]
struct VariantArgs {
    /// Numbers computed with: fp32, tf32, fp16, bf16, fp8, int8 or int4 [default: the device's: fp16 with matrix
    /// units, else fp32]
    #[arg(long)]
    precision: Option<Precision>,
    /// Merge element-wise followers, as compilers do
    #[arg(long)]
    fused: bool,
}

/// Write a profile computed from layer shapes (roofline and waves of blocks)
#[derive(Args)]
#[command(after_help = "Example:\n  \
    cotenant profile analyze --device h100-sxm --model resnet50,bert-base --batch 1,8,32 \
    --out profiles/h100")]
pub(crate) struct AnalyzeArgs {
    /// GPU: a name or the path of a .toml file
    #[arg(long)]
    device: String,
    /// Models, separated by commas; repeatable
    #[arg(long, value_delimiter = ',', required = true)]
    model: Vec<String>,
    /// Batch sizes, separated by commas
    #[arg(long, value_delimiter = ',', default_value = "1")]
    batch: Vec<u32>,
    #[command(flatten)]
    variant: VariantArgs,
    /// Folder for the profile [default: out/profiles/DEVICE]
    #[arg(short, long, value_name = "DIR")]
    out: Option<PathBuf>,
}

/// Show a model's kernels with the fewest CUs that each needs
#[derive(Args)]
#[command(after_help = "Example:\n  \
    cotenant profile show resnet50 --device v100-sxm2-16 --batch 8 --tolerance 0.05 --out out/curves")]
pub(crate) struct ShowArgs {
    /// Model
    model: String,
    /// GPU: a name or the path of a .toml file
    #[arg(long)]
    device: String,
    /// Slow-down accepted for fewer CUs, such as 5% or 0.05; up to 10
    #[arg(long, value_name = "SHARE", default_value_t = curves::TOLERANCE,
        value_parser = crate::text::percent)]
    tolerance: f64,
    /// Items per batch [default: the smallest that the profile holds]
    #[arg(long)]
    batch: Option<u32>,
    /// Folder of profiles to look into first; repeatable
    #[arg(long, value_name = "DIR")]
    profiles: Vec<PathBuf>,
    #[command(flatten)]
    variant: VariantArgs,
    /// Folder for curves.csv and plots
    #[arg(short, long, value_name = "DIR")]
    out: Option<PathBuf>,
}

/// Runs a subcommand.
pub(crate) fn run(command: Command) -> Done {
    match command {
        Command::Analyze(args) => analyze(&args),
        Command::Collect(args) => super::gpu::collect(&args),
        Command::Import(args) => super::import::run(&args),
        Command::Show(args) => show(&args),
    }
}

/// A device by its name or file.
pub(super) fn device(name: &str) -> Done<Device> {
    Device::find(name, Path::new("")).map_err(Failure::input)
}

fn analyze(args: &AnalyzeArgs) -> Done {
    let device = device(&args.device)?;
    let specs: Result<Vec<_>, _> = args.model.iter().map(|m| zoo::find(m)).collect();
    let specs = specs.map_err(Failure::input)?;
    let refs: Vec<&zoo::ModelSpec> = specs.iter().collect();
    let options = analytic::Options {
        precision: args.variant.precision.unwrap_or(device.default_precision()),
        fused: args.variant.fused,
        executor: None,
        ..analytic::Options::default()
    };
    let profile = analytic::profile(&device, &refs, &args.batch, &options);
    let profile = profile.map_err(Failure::input)?;
    let default = || Path::new("out/profiles").join(&device.name);
    write(&args.out.clone().unwrap_or_else(default), &profile, &device, false)
}

/// Writes a profile, together with what the folder already holds of the same device and source.
/// With `replace`, what it already holds of the same models and batches goes.
pub(super) fn write(dir: &Path, profile: &Profile, device: &Device, replace: bool) -> Done {
    let failed = |e: FileError| match e {
        FileError::Io { .. } => Failure::failed(e),
        e => Failure::input(e),
    };
    let whole = if dir.join("kernels.csv").exists() {
        let known = files::read_for(dir, device).map_err(failed)?;
        let known = if replace { files::without(known, profile) } else { known };
        match files::merge(known, profile) {
            Err(e) if !replace => {
                return Err(Failure::input(format!(
                    "{e}: --replace puts the new one in its place"
                )));
            }
            merged => merged.map_err(failed)?,
        }
    } else {
        profile.clone()
    };
    files::write(dir, &whole).map_err(failed)?;
    let rows: Vec<Vec<String>> = profile
        .models
        .values()
        .flat_map(|m| m.batches.iter().map(move |(batch, launches)| (m, batch, launches)))
        .map(|(m, batch, launches)| {
            let cus = device.cus();
            let ns: u64 = launches.iter().map(|l| profile.kernels[l.kernel].at(cus)).sum();
            vec![
                m.name.clone(),
                batch.to_string(),
                launches.len().to_string(),
                format!("{:.3}", ns as f64 / 1e6),
                curves::right_size(profile, launches, cus, curves::TOLERANCE).to_string(),
            ]
        })
        .collect();
    say::out(&align(&["model", "batch", "launches", "GPU ms", "right size CUs"], &rows))?;
    say::note(&format!(
        "{} and {} ({}) in {}",
        count(whole.models.len(), "model"),
        count(whole.kernels.len(), "kernel"),
        whole.source.name(),
        dir.display()
    ));
    Ok(())
}

fn show(args: &ShowArgs) -> Done {
    let device = device(&args.device)?;
    if !(0.0..=10.0).contains(&args.tolerance) {
        return Err(Failure::input(format!("--tolerance {}: is not from 0 to 10", args.tolerance)));
    }
    let variant = Variant {
        precision: args.variant.precision.unwrap_or(device.default_precision()),
        fused: args.variant.fused,
        tuned_cus: None,
        executor: None,
    };
    let sources: Vec<_> = args.profiles.iter().cloned().map(ProfileSource::Folder).collect();
    let found = Library::default().find_for_show(
        &args.model,
        &device,
        &sources,
        args.batch.unwrap_or(1),
        variant,
    );
    let found = found.map_err(Failure::input)?;
    let profile = &found.profile;
    let model = &profile.models[&found.model];
    let sizes = || model.batches.keys().map(u32::to_string).collect::<Vec<_>>().join(", ");
    let batch = match args.batch {
        Some(batch) => batch,
        None => *model.batches.keys().next().unwrap_or(&1),
    };
    let Some(launches) = model.batches.get(&batch) else {
        let why = format!("{} has no batch {batch}; known are {}", found.model, sizes());
        return Err(Failure::input(format!("--batch: {why}")));
    };
    say::out(&kernel_table(&found, launches, batch, &device, args.tolerance))?;
    say::out(&in_groups(&args.profiles, &found, launches, &device)?)?;
    let Some(out) = &args.out else { return Ok(()) };
    let mut table = CurveTable::new();
    table.add(&found, batch, device.cus(), args.tolerance);
    let file = out.join("curves.csv");
    write_whole(&file, &table.into_bytes())?;
    let drawn = cotenant_plots::draw_curves(&file, out, &device.title).map_err(Failure::failed)?;
    say::note(&format!("curves.csv and {} in {}", count(drawn.len(), "plot"), out.display()));
    Ok(())
}

/// What it costs, or gains, to cut the GPU in whole groups of CUs instead of the finest atoms; nothing
/// where only the latter were measured.
fn in_groups(
    folders: &[PathBuf],
    found: &Found,
    launches: &[Launch],
    device: &Device,
) -> Done<String> {
    let folder = Store::with_defaults(folders.to_vec()).folder_of(&found.model, device);
    let Some(folder) = folder else { return Ok(String::new()) };
    let coarse = files::read_coarse(&folder, device).map_err(Failure::input)?;
    let mut ratios: BTreeMap<u32, Vec<f64>> = BTreeMap::new();
    let used: BTreeSet<usize> = launches.iter().map(|l| l.kernel).collect();
    for kernel in used.iter().map(|&k| &found.profile.kernels[k]) {
        for both in files::both(kernel, &coarse) {
            ratios.entry(both.cus).or_default().push(both.ratio);
        }
    }
    if ratios.is_empty() {
        return Ok(String::new());
    }
    let row = |(cus, mut ratios): (u32, Vec<f64>)| {
        ratios.sort_by(f64::total_cmp);
        let at = |percent| rounded(stats::quantile(&ratios, percent).map(|r| 100.0 * (r - 1.0)));
        vec![cus.to_string(), ratios.len().to_string(), at(0), at(50), at(100)]
    };
    let rows: Vec<_> = ratios.into_iter().map(row).collect();
    let head = ["CUs", "kernels", "least %", "median %", "most %"];
    Ok(format!(
        "\nTime in whole groups of CUs, where thread-block clusters run, against the finest atoms:\n{}",
        align(&head, &rows)
    ))
}

/// Every distinct kernel, and the model as a whole.
fn kernel_table(
    found: &Found,
    launches: &[Launch],
    batch: u32,
    device: &Device,
    tolerance: f64,
) -> String {
    let profile = &*found.profile;
    let cus = device.cus();
    let uses = curves::kernels(profile, launches, cus, tolerance);
    let rows: Vec<Vec<String>> = uses
        .iter()
        .map(|u| {
            let kernel = &profile.kernels[u.kernel];
            vec![
                kernel.id.clone(),
                u.launches.to_string(),
                format!("{:.1}", u.share * 100.0),
                u.min_cus.to_string(),
                rounded(Some(kernel.at(cus) as f64 / 1e3)),
            ]
        })
        .collect();
    let total: u64 = uses.iter().map(|u| u.total_ns).sum();
    let size = curves::right_size(profile, launches, cus, tolerance);
    let mut text = align(&["kernel", "launches", "% of time", "min CUs", "us on all CUs"], &rows);
    text += &format!(
        "\n{} at batch {batch} on {} ({cus} CUs): {} launches, {:.3} ms on the GPU; right size {size} \
         CUs at {} % slow-down\nprofile: {}, {}\n",
        found.model,
        device.name,
        launches.len(),
        total as f64 / 1e6,
        rounded(Some(tolerance * 100.0)),
        profile.source.name(),
        found.words
    );
    text
}
