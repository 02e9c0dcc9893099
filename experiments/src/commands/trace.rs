//! `cotenant trace convert|generate|stats`.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use cotenant_profiles::Nanos;
use cotenant_traces::Expand;
use cotenant_traces::stats::Summary;
use cotenant_traces::{ArrivalSpec, ReadOptions, TraceError, Transform};

use crate::config::table_of_assignments;
use crate::fail::{Done, Failure};
use crate::say;
use crate::text::{align, count, rounded};

/// Subcommands of `trace`.
#[derive(Subcommand)]
pub(crate) enum Command {
    Convert(ConvertArgs),
    Generate(GenerateArgs),
    Stats(StatsArgs),
}

/// How a trace is read.
#[derive(Args)]
struct ReadArgs {
    /// Format; told from the file's beginning if left out: canonical, counts, azure-llm, maf1,
    /// maf2, burstgpt, vidur, splitwise, genai, mooncake, bailian, disb, servegen or intervals
    #[arg(long, value_name = "FORMAT")]
    from: Option<String>,
    /// Transform, applied in order, such as window:0..600s or thin:0.5; repeatable
    #[arg(short, long = "transform", value_name = "TRANSFORM")]
    transform: Vec<String>,
    /// Seed of every random choice
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How counts become requests: poisson-n, poisson-rate, even or gamma:CV
    #[arg(long)]
    expand: Option<Expand>,
    /// Sort rows by arrival, in memory
    #[arg(long)]
    sort: bool,
    /// burstgpt: leave out requests without response tokens
    #[arg(long)]
    drop_failures: bool,
    /// servegen: largest coefficient of variation of a window's gaps
    #[arg(long, value_name = "CV")]
    cv_max: Option<f64>,
    /// Keep columns that the format does not have, as x_NAME, instead of refusing them
    #[arg(long)]
    keep_extra: bool,
    /// Tenant of every row, in place of what the format says
    #[arg(long)]
    tenant: Option<String>,
    /// Model of every row, in place of what the format says
    #[arg(long)]
    model: Option<String>,
}

impl ReadArgs {
    fn options(&self) -> ReadOptions {
        let default = ReadOptions::default();
        ReadOptions {
            seed: self.seed,
            expand: self.expand.unwrap_or(default.expand),
            sort: self.sort,
            drop_failures: self.drop_failures,
            keep_extra: self.keep_extra,
            cv_max: self.cv_max.unwrap_or(default.cv_max),
            tenant: self.tenant.clone(),
            model: self.model.clone(),
        }
    }

    fn transforms(&self, more: &[String]) -> Done<Vec<Transform>> {
        let all = self.transform.iter().chain(more);
        all.map(|t| t.parse().map_err(failed)).collect()
    }
}

/// Convert a trace to cotenant-trace v1
#[derive(Args)]
#[command(after_help = "Examples:\n  \
    cotenant trace convert --from azure-llm AzureLLMInferenceTrace_conv.csv -o conv.csv\n  \
    cotenant trace convert --keep-extra BurstGPT_3.csv -o calls.csv spread:1s\n  \
    cotenant trace convert --from maf1 invocations.csv -o day.csv.zst window:0..3600s top:10")]
pub(crate) struct ConvertArgs {
    /// File (folder for servegen)
    file: PathBuf,
    /// Trace to write; .gz and .zst compress
    #[arg(short, long, value_name = "OUT.csv")]
    output: PathBuf,
    /// Transforms, applied in order
    #[arg(value_name = "TRANSFORM")]
    transforms: Vec<String>,
    #[command(flatten)]
    read: ReadArgs,
}

/// Generate the arrivals of one tenant as a trace
#[derive(Args)]
#[command(after_help = "Examples:\n  \
    cotenant trace generate poisson rate=120 --duration 60s -o poisson.csv\n  \
    cotenant trace generate gamma rate=50 cv=4 --duration 10min --seed 7 -o bursty.csv.gz\n  \
    cotenant trace generate poisson rate=2 tokens_in=512 'tokens_out={ lognormal = [128, 0.8] }' \
    --duration 1h -o chat.csv\n\n\
    Kinds and fields are those of `arrivals` in an experiment file.")]
pub(crate) struct GenerateArgs {
    /// Kind of arrivals, such as constant, poisson, gamma, mmpp, onoff or diurnal
    kind: String,
    /// Fields of the kind
    #[arg(value_name = "FIELD=VALUE")]
    fields: Vec<String>,
    /// Length of the trace, such as 60s
    #[arg(long)]
    duration: Nanos,
    /// Trace to write; .gz and .zst compress
    #[arg(short, long, value_name = "OUT.csv")]
    output: PathBuf,
    /// Seed
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Tenant of every row
    #[arg(long, default_value = "tenant")]
    tenant: String,
    /// Model of every row
    #[arg(long, default_value = "model")]
    model: String,
}

/// Describe a trace: rate, burstiness, peaks
#[derive(Args)]
#[command(after_help = "Examples:\n  cotenant trace stats requests.csv\n  \
    cotenant trace stats --from azure-llm AzureLLMInferenceTrace_conv.csv window:0..600s")]
pub(crate) struct StatsArgs {
    /// File (folder for servegen)
    file: PathBuf,
    /// Transforms, applied in order
    #[arg(value_name = "TRANSFORM")]
    transforms: Vec<String>,
    #[command(flatten)]
    read: ReadArgs,
}

/// Runs a subcommand.
pub(crate) fn run(command: Command) -> Done {
    match command {
        Command::Convert(args) => convert(&args),
        Command::Generate(args) => generate(&args),
        Command::Stats(args) => stats(&args),
    }
}

/// What is wrong with a trace is bad input; so is a file that is not there.
fn failed(e: TraceError) -> Failure {
    Failure::input(e)
}

fn convert(args: &ConvertArgs) -> Done {
    let transforms = args.read.transforms(&args.transforms)?;
    let report = cotenant_traces::convert(
        args.read.from.as_deref(),
        &args.file,
        &args.output,
        &transforms,
        &args.read.options(),
    );
    let report = report.map_err(failed)?;
    report.warnings.iter().for_each(|w| say::warn(w));
    let dropped: u64 = report.dropped.values().sum();
    let mut text = format!(
        "{}: rows_in {} = rows_out {} + dropped {dropped}\n",
        report.format, report.rows_in, report.rows_out
    );
    for (why, n) in &report.dropped {
        text += &format!("  dropped {n}: {why}\n");
    }
    for (why, n) in &report.added {
        text += &format!("  added {n}: {why}\n");
    }
    say::out(&text)?;
    say::note(&format!("wrote {}", args.output.display()));
    Ok(())
}

fn generate(args: &GenerateArgs) -> Done {
    let mut pairs = vec![format!("kind={}", args.kind)];
    pairs.extend(args.fields.iter().cloned());
    let table = table_of_assignments(&pairs).map_err(Failure::input)?;
    let spec: ArrivalSpec = serde_json::from_value(table).map_err(Failure::input)?;
    let rows = cotenant_traces::generate(
        &spec,
        Path::new(""),
        &args.tenant,
        &args.model,
        args.duration,
        args.seed,
        &args.output,
    );
    let rows = rows.map_err(failed)?;
    let rate = rows as f64 / args.duration.as_secs_f64();
    say::out(&format!(
        "{} over {}: {rate:.3}/s\n",
        count(rows as usize, "request"),
        args.duration
    ))?;
    say::note(&format!("wrote {}", args.output.display()));
    Ok(())
}

fn stats(args: &StatsArgs) -> Done {
    let transforms = args.read.transforms(&args.transforms)?;
    let from = args.read.from.as_deref();
    let stats = cotenant_traces::stats(from, &args.file, &transforms, &args.read.options());
    let stats = stats.map_err(failed)?;
    stats.counts.warnings.iter().for_each(|w| say::warn(w));
    let mut rows = vec![row("*", &stats.total)];
    if stats.tenants.len() > 1 {
        rows.extend(stats.tenants.iter().map(|(name, s)| row(name, s)));
    }
    let hidden = rows.len().saturating_sub(101);
    rows.truncate(101);
    let header = [
        "tenant",
        "requests",
        "items",
        "seconds",
        "rate/s",
        "CV",
        "IDC 1 s",
        "IDC 60 s",
        "peak/mean",
    ];
    let mut text = align(&header, &rows);
    if hidden > 0 {
        text += &format!("… {hidden} more tenants\n");
    }
    let dropped: u64 = stats.counts.dropped.values().sum();
    if dropped > 0 {
        text += &format!("dropped {dropped} of {} rows\n", stats.counts.rows_in);
        for (why, n) in &stats.counts.dropped {
            text += &format!("  {n} {why}\n");
        }
    }
    say::out(&text)
}

fn row(name: &str, s: &Summary) -> Vec<String> {
    vec![
        name.to_owned(),
        s.requests.to_string(),
        s.items.to_string(),
        format!("{:.3}", s.duration.as_secs_f64()),
        s.rate.map_or_else(|| "-".to_owned(), |r| format!("{r:.3}")),
        rounded(s.cv),
        rounded(s.idc_1s),
        rounded(s.idc_60s),
        rounded(s.peak_to_mean),
    ]
}
