//! The command line.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Args, CommandFactory, Parser, Subcommand};
use cotenant_profiles::Bytes;

use crate::budget::Budget;
use crate::commands::{
    accuracy, advise, capacity, check, compare, gpu, init, lists, profile, reference, replay,
    trace, validate,
};
use crate::config::Overrides;
use crate::fail::{Done, Failure};
use crate::study::compute::threads;
use crate::study::shard::{self, ShardOf};
use crate::study::survey::Extras;
use crate::study::{merge, status, submit};
use crate::{run, say, show};

/// Heading of what every command takes.
const GLOBAL: &str = "Global options";

/// What does each way of sharing a GPU between models deliver?
///
/// Simulates sharing policies from per-kernel latency profiles and request traces, and replays the
/// same policies on a GPU.
#[derive(Parser)]
#[command(
    name = "cotenant",
    version,
    arg_required_else_help = true,
    after_help = "Examples:\n  cotenant run experiments/quickstart.toml\n  cotenant policies"
)]
struct Cli {
    /// Print only errors and warnings to stderr
    #[arg(short, long, global = true, conflicts_with = "verbose", help_heading = GLOBAL)]
    quiet: bool,
    /// Print every cell and file to stderr
    #[arg(short, long, global = true, help_heading = GLOBAL)]
    verbose: bool,
    /// When to colour messages: on terminals unless NO_COLOR is set, always, or never
    #[arg(long, global = true, value_enum, value_name = "WHEN", default_value = "auto",
        help_heading = GLOBAL)]
    color: say::Color,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Run(RunArgs),
    Plan(PlanArgs),
    Status(StatusArgs),
    Merge(MergeArgs),
    Submit(SubmitArgs),
    Plot(PlotArgs),
    Compare(compare::Args),
    Capacity(capacity::Args),
    Init(init::Args),
    Replay(replay::Args),
    Validate(validate::Args),
    Advise(advise::Args),
    Check(check::Args),
    /// List the sharing policies, or show one with its options, units and defaults
    #[command(after_help = "Examples:\n  cotenant policies\n  cotenant policies temporal")]
    Policies {
        /// Policy to show
        name: Option<String>,
    },
    /// List the GPUs, or show one with every constant and its source
    #[command(after_help = "Examples:\n  cotenant devices\n  cotenant devices h100-sxm")]
    Devices {
        /// Device to show: a name or the path of a .toml file
        name: Option<String>,
    },
    Models(lists::ModelArgs),
    /// Compute, import or show latency profiles
    #[command(
        subcommand,
        after_help = "Example:\n  cotenant profile show resnet50 --device v100-sxm2-16"
    )]
    Profile(profile::Command),
    Capture(gpu::CaptureArgs),
    Accuracy(accuracy::AccuracyArgs),
    Gpu(gpu::GpuArgs),
    /// A process that `gpu costs` starts
    #[command(hide = true)]
    CostHelper {
        /// What it is asked for
        ask: String,
        /// File for its answer
        to: PathBuf,
    },
    /// Convert, generate or describe request traces
    #[command(subcommand, after_help = "Example:\n  cotenant trace stats requests.csv")]
    Trace(trace::Command),
    /// Print the JSON Schema of experiment files, with which editors complete and check them
    #[command(after_help = "Examples:\n  \
        cotenant schema > experiment.schema.json\n  \
        cotenant schema --markdown")]
    Schema {
        /// Print the same as a page to read: docs/experiment-file.md
        #[arg(long)]
        markdown: bool,
    },
    /// List the columns of the results, with unit and meaning
    #[command(after_help = "Examples:\n  cotenant metrics\n  cotenant metrics --json")]
    Metrics {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Print completions for a shell
    #[command(after_help = "Example:\n  \
        cotenant completions bash > ~/.local/share/bash-completion/completions/cotenant")]
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Print the manual page
    #[command(after_help = "Example:\n  cotenant man | man -l -")]
    Man,
    /// A worker process of a replay, started by it
    #[command(hide = true)]
    Worker,
}

/// Simulate every cell of an experiment, then write tables, plots and the report
///
/// Cells are policies × sweep × repeats. The answer goes to stdout in a few lines, everything else
/// into DIR: results.csv, run.json, plots/ and report.html. An interrupted run resumes where it
/// stopped, and a finished one is not computed again. With --shard, the argument is the folder of a
/// plan, and one of its shards is computed.
#[derive(Args)]
#[command(after_help = "Examples:\n  \
    cotenant run experiments/quickstart.toml --open\n  \
    cotenant run experiments/quickstart.toml --dry-run\n  \
    cotenant run experiments/quickstart.toml --set duration=5s --set tenant.*.workers=2\n  \
    cotenant run experiments/quickstart.toml --set 'sweep.device=[\"a30\", \"h100-sxm\"]' \
    --out out/devices\n  \
    cotenant run out/study --shard 3/64")]
struct RunArgs {
    /// Experiment file; with --shard, the folder of a plan
    #[arg(value_name = "EXP.toml")]
    experiment: PathBuf,
    /// Compute shard K of N, counted from 0; an interrupted shard resumes where it stopped
    #[arg(long, value_name = "K/N", conflicts_with_all = ["out", "set", "seed", "requests", "timeline"])]
    shard: Option<ShardOf>,
    /// Folder for the results [default: out/NAME]
    #[arg(short, long, value_name = "DIR")]
    out: Option<PathBuf>,
    #[command(flatten)]
    overrides: OverrideArgs,
    /// Threads [default: as many processors as this process may use]; results do not depend on it
    #[arg(short, long, alias = "threads", value_name = "N", allow_negative_numbers = true, value_parser = clap::value_parser!(u16).range(1..=1024))]
    jobs: Option<u16>,
    /// Memory that all cells together may take, such as 8GiB; a cell whose estimate is above its
    /// share fails, the others run [default: four fifths of what is free]
    #[arg(long, value_name = "SIZE")]
    memory: Option<Bytes>,
    /// Most events of one cell, such as 2e12; a cell whose estimate is above it fails
    /// [default: 1e11, some three hours]
    #[arg(long, value_name = "N")]
    max_events: Option<f64>,
    /// Say what would run (cells, layouts, memory, time, problems), and run nothing
    #[arg(long, conflicts_with_all = ["shard", "table", "json", "open"])]
    dry_run: bool,
    /// Compute a finished folder again
    #[arg(long, conflicts_with = "shard")]
    again: bool,
    #[command(flatten)]
    show: ShowArgs,
    #[command(flatten)]
    extras: ExtraArgs,
}

/// What a finished run shows.
#[derive(Args)]
struct ShowArgs {
    /// Print the table of results, too
    #[arg(long, conflicts_with = "shard")]
    table: bool,
    /// Print the answer as JSON
    #[arg(long, conflicts_with_all = ["table", "shard"])]
    json: bool,
    /// Open the report in a browser
    #[arg(long, conflicts_with = "shard")]
    open: bool,
}

impl From<ShowArgs> for show::Show {
    fn from(args: ShowArgs) -> Self {
        Self { table: args.table, json: args.json, open: args.open }
    }
}

#[derive(Args)]
struct OverrideArgs {
    /// Replace a field of the experiment, such as tenant.vision.arrivals.rate=60; repeatable
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Seed of the first repeat, in place of the file's
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
}

impl From<OverrideArgs> for Overrides {
    fn from(args: OverrideArgs) -> Self {
        Self { set: args.set, seed: args.seed }
    }
}

#[derive(Args)]
struct ExtraArgs {
    /// Write every request to requests/CELL.csv.zst, or CELL.parquet
    #[arg(long, value_enum, value_name = "FORMAT", num_args = 0..=1, require_equals = true,
        default_missing_value = "csv")]
    requests: Option<RequestFormat>,
    /// Write every kernel to timeline/CELL.json (opens in Perfetto and chrome://tracing)
    #[arg(long)]
    timeline: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum RequestFormat {
    Csv,
    Parquet,
}

impl From<ExtraArgs> for Extras {
    fn from(args: ExtraArgs) -> Self {
        Self {
            requests: args.requests.is_some(),
            parquet: args.requests.is_some_and(|format| format != RequestFormat::Csv),
            timeline: args.timeline,
        }
    }
}

/// Divide an experiment into shards for many machines
///
/// Writes DIR/plan.json. Then `cotenant run DIR --shard K/N` computes each shard, anywhere and in any
/// order, and `cotenant merge DIR` makes the results of all.
#[derive(Args)]
#[command(after_help = "Example:\n  \
    cotenant plan experiments/compare.toml --out out/study --shards 64")]
struct PlanArgs {
    /// Experiment file
    #[arg(value_name = "EXP.toml")]
    experiment: PathBuf,
    /// Folder for the plan and everything that comes of it
    #[arg(short, long, value_name = "DIR")]
    out: PathBuf,
    /// Number of shards
    #[arg(short = 'n', long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    shards: u32,
    /// Time no cell, give no advice on the number of shards
    #[arg(long)]
    quick: bool,
    #[command(flatten)]
    overrides: OverrideArgs,
    #[command(flatten)]
    extras: ExtraArgs,
}

/// Show the state of every shard of a plan: ok, running, missing or corrupt
///
/// Exits with status 3 while shards are not finished.
#[derive(Args)]
#[command(after_help = "Example:\n  cotenant status out/study")]
struct StatusArgs {
    /// Folder of the plan
    #[arg(value_name = "DIR")]
    folder: PathBuf,
}

/// Submit the shards that are not finished to a scheduler, and the merge after them
///
/// Writes DIR/slurm/array.sbatch and merge.sbatch, which may be edited, prints them and submits them.
/// After failures, the same command submits what is missing.
#[derive(Args)]
#[command(after_help = "Examples:\n  \
    cotenant submit out/study --engine slurm --dry-run\n  \
    cotenant submit out/study --engine slurm -- --partition=cpu --time=02:00:00")]
struct SubmitArgs {
    /// Folder of the plan
    #[arg(value_name = "DIR")]
    folder: PathBuf,
    /// The scheduler
    #[arg(long, value_enum)]
    engine: Engine,
    /// Write and print the scripts, submit nothing
    #[arg(long)]
    dry_run: bool,
    /// Options for sbatch, for the array and the merge
    #[arg(last = true, value_name = "OPTIONS")]
    options: Vec<String>,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Engine {
    Slurm,
}

/// Make tables, plots and report of a plan's shards
///
/// Proves from the files that every cell is there; otherwise names the shards that are not finished
/// and exits with status 3.
#[derive(Args)]
#[command(after_help = "Example:\n  cotenant merge out/study")]
struct MergeArgs {
    /// Folder of the plan
    #[arg(value_name = "DIR")]
    folder: PathBuf,
    /// Make results from the shards that are finished; they say what is missing
    #[arg(long)]
    allow_missing: bool,
    /// Seconds for which to look again while shards are missing: shared file systems show new files
    /// late
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    wait: u16,
}

/// Draw plots and report again from a result folder alone
#[derive(Args)]
#[command(after_help = "Examples:\n  cotenant plot out/quickstart\n  \
    cotenant plot out/quickstart --spec experiments/other-figures.toml")]
struct PlotArgs {
    /// Result folder
    #[arg(value_name = "DIR")]
    folder: PathBuf,
    /// Draw the [[plot]] tables of this file in place of the folder's own; its figures replace the
    /// earlier ones, and later draws keep them
    #[arg(long, value_name = "EXP.toml")]
    spec: Option<PathBuf>,
}

/// Parses, runs, and maps the outcome to an exit status: 0 done, 1 failed, 2 bad input.
pub(crate) fn main() -> ExitCode {
    if let Err(failure) = legal_arguments() {
        say::error(failure.message().unwrap_or_default());
        return failure.code();
    }
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return usage(error),
    };
    say::set_level(cli.quiet, cli.verbose);
    say::set_color(cli.color);
    match dispatch(cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if let Some(text) = failure.message() {
                say::error(text);
            }
            failure.code()
        }
    }
}

/// Names and paths go into scripts, tables and reports: a control character in one of them could
/// become a command there. What follows `--` belongs to another program.
fn legal_arguments() -> Done {
    let ours = std::env::args_os().skip(1).take_while(|arg| arg != "--");
    for arg in ours {
        let text = arg.to_string_lossy();
        if text.contains(char::is_control) {
            return Err(Failure::input(format!("the argument {text:?} has a control character")));
        }
    }
    Ok(())
}

/// Help and version go to stdout and are not failures; a reader that has gone is none either.
fn usage(mut error: clap::Error) -> ExitCode {
    if error.kind() == ErrorKind::UnknownArgument {
        // Nobody means a mistyped flag as a value.
        error.remove(ContextKind::Suggested);
        if let Some(tip) = field(&error) {
            error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![tip.into()]));
        }
    }
    let told = match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => say::out(&error.render().to_string()),
        _ => {
            let text = error.render().to_string();
            say::plain_error(&text);
            return ExitCode::from(2);
        }
    };
    told.map_or_else(|failure| failure.code(), |()| ExitCode::SUCCESS)
}

/// How a field of the experiment is set, where one was given as a flag.
fn field(error: &clap::Error) -> Option<String> {
    let ContextValue::String(flag) = error.get(ContextKind::InvalidArg)? else { return None };
    let cli = Cli::command();
    let command = std::env::args().skip(1).find_map(|arg| cli.find_subcommand(arg).cloned())?;
    command.get_arguments().find(|arg| arg.get_long() == Some("set"))?;
    let schema = crate::config::schema();
    let properties = schema.get("properties")?.as_object()?.iter();
    // Tables and lists of them are not set as a whole.
    let table = |of: &serde_json::Value| {
        let kinds = of["type"].as_array().map_or(std::slice::from_ref(&of["type"]), Vec::as_slice);
        kinds.iter().any(|kind| kind == "array" || kind == "object")
    };
    let known = properties.filter(|(_, of)| !table(of)).map(|(key, _)| key.as_str());
    let key = cotenant_profiles::text::closest(flag.strip_prefix("--")?, known)?;
    Some(format!("`{key}` is a field of the experiment: --set {key}=VALUE"))
}

fn dispatch(command: Command) -> Done {
    match command {
        Command::Run(args) => run_command(args),
        Command::Plan(args) => shard::plan(&shard::PlanOptions {
            file: args.experiment,
            out: args.out,
            overrides: args.overrides.into(),
            shards: args.shards as usize,
            extras: args.extras.into(),
            advise: !args.quick,
        }),
        Command::Status(args) => status::status(&args.folder),
        Command::Submit(SubmitArgs { folder, engine: Engine::Slurm, dry_run, options }) => {
            submit::submit(&submit::Options { dir: &folder, dry_run, options: &options })
        }
        Command::Merge(args) => merge::merge(&merge::Options {
            dir: &args.folder,
            allow_missing: args.allow_missing,
            wait: Duration::from_secs(args.wait.into()),
        }),
        Command::Plot(args) => plot(&args),
        Command::Compare(args) => compare::run(&args),
        Command::Capacity(args) => capacity::run(&args),
        Command::Init(args) => init::run(&args),
        Command::Replay(args) => replay::run(&args),
        Command::Validate(args) => validate::run(&args),
        Command::Advise(args) => advise::run(&args),
        Command::Check(args) => check::run(&args),
        Command::Policies { name } => lists::policies(name.as_deref()),
        Command::Devices { name } => lists::devices(name.as_deref()),
        Command::Models(args) => lists::models(&args),
        Command::Profile(command) => profile::run(command),
        Command::Capture(args) => gpu::capture(&args),
        Command::Accuracy(args) => accuracy::run(&args),
        Command::Gpu(args) => gpu::run(&args),
        Command::CostHelper { ask, to } => gpu::cost_helper(&ask, &to),
        Command::Trace(command) => trace::run(command),
        Command::Schema { markdown } => reference::schema(markdown),
        Command::Metrics { json } => lists::metrics(json),
        Command::Completions { shell } => reference::completions::<Cli>(shell),
        Command::Man => reference::man::<Cli>(),
        Command::Worker => worker(),
    }
}

fn worker() -> Done {
    use cotenant_replay::process::child::{WorkerError, run};
    run().map_err(|e| match e {
        WorkerError::NotAWorker(_) => Failure::input(e),
        // What started it has gone, or has been told: nobody is left to read this.
        WorkerError::Orphan | WorkerError::Device(_) => Failure::failed(""),
    })
}

fn run_command(args: RunArgs) -> Done {
    let jobs = args.jobs.map_or(0, usize::from);
    if args.max_events.is_some_and(|n| n.is_nan() || n < 1.0) {
        return Err(Failure::input("--max-events: give a number from 1, such as 2e12"));
    }
    Budget::new(args.memory, args.max_events, threads(jobs)).set();
    if let Some(of) = args.shard {
        return shard::run(&args.experiment, of, jobs);
    }
    if args.experiment.is_dir() {
        return Err(Failure::input(format!(
            "{0}: is a folder; name an experiment file, or a shard of its plan: `cotenant run {0} \
             --shard K/N`",
            args.experiment.display()
        )));
    }
    run::run(&run::Options {
        file: args.experiment,
        out: args.out,
        overrides: args.overrides.into(),
        jobs,
        extras: args.extras.into(),
        dry_run: args.dry_run,
        again: args.again,
        show: args.show.into(),
    })
}

fn plot(args: &PlotArgs) -> Done {
    if !args.folder.is_dir() {
        return Err(Failure::input(format!("{}: no such folder", args.folder.display())));
    }
    if let Some(spec) = &args.spec {
        run::replace_plots(&args.folder, spec)?;
    }
    let drawn = show::draw(&args.folder)?;
    let files = crate::text::count(drawn.files, "file");
    say::note(&format!("{files} drawn in {}", args.folder.display()));
    if drawn.missing.is_empty() {
        return Ok(());
    }
    Err(Failure::failed(drawn.missing.join("; ")))
}
