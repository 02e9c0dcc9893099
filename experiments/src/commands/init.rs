//! `cotenant init`: an experiment to begin with.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use clap::Args as ClapArgs;
use cotenant_profiles::{Device, zoo};

use crate::fail::{Done, Failure};
use crate::folder::write_whole;
use crate::say;

/// Write a commented experiment to begin with
///
/// Writes NAME.toml, which runs as it is. The rates are guesses: set yours.
#[derive(ClapArgs)]
#[command(after_help = "Examples:\n  \
    cotenant init\n  \
    cotenant init mine --device a100-sxm-80 --model resnet50,bert-base")]
pub(crate) struct Args {
    /// Name of the experiment, and of the file
    #[arg(default_value = "experiment")]
    name: String,
    /// GPU: a name that `cotenant devices` lists, or the path of a .toml file
    #[arg(long, default_value = "h100-sxm")]
    device: String,
    /// Models that share it, separated by commas
    #[arg(long, value_delimiter = ',', default_value = "resnet50,bert-base")]
    model: Vec<String>,
    /// Folder to write into
    #[arg(short, long, value_name = "DIR", default_value = ".")]
    out: PathBuf,
}

/// `cotenant init`.
///
/// # Errors
/// No such device or model; the file exists.
pub(crate) fn run(args: &Args) -> Done {
    let device = Device::find(&args.device, Path::new("")).map_err(Failure::input)?;
    for model in &args.model {
        zoo::find(model).map_err(Failure::input)?;
    }
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if args.name.is_empty() || args.name.starts_with('.') || !args.name.chars().all(legal) {
        let why = "use letters, digits, -, _ and . for a name";
        return Err(Failure::input(format!("`{}`: {why}", args.name)));
    }
    let file = args.out.join(format!("{}.toml", args.name));
    if file.exists() {
        let why = "exists already; choose another name";
        return Err(Failure::input(format!("{}: {why}", file.display())));
    }
    let text = text(&args.name, &args.device, &device, &args.model);
    write_whole(&file, text.as_bytes())?;
    let shown = file.display();
    say::out(&format!(
        "{shown} is written. Next:\n  cotenant run {shown} --dry-run\n  cotenant run {shown}\n"
    ))
}

/// The file.
fn text(name: &str, device_name: &str, device: &Device, models: &[String]) -> String {
    let mut text = format!(
        r#"#:schema ./experiment.schema.json
# `cotenant schema > experiment.schema.json` here, and editors complete and check this file.
# Every key with its type, unit and default: docs/experiment-file.md.

name     = "{name}"
question = "Which ways of sharing keep everybody within their goals?"   # shown on the report
device   = "{device_name}"            # {}; `cotenant devices` lists the others
duration = "10s"                 # simulated time, after the warm-up
warmup   = "1s"
repeats  = 3                     # seeds; results then carry confidence intervals
costs    = "real"                # "ideal": what mechanisms cost (switches, masks, loads) is left out

"#,
        device.title
    );
    for (i, model) in models.iter().enumerate() {
        let tenant = model.replace(|c: char| !c.is_ascii_alphanumeric() && c != '-', "-");
        let copies = models[..i].iter().filter(|m| *m == model).count();
        let tenant = if copies > 0 { format!("{tenant}-{}", copies + 1) } else { tenant };
        let _ = write!(
            text,
            r#"[[tenant]]
name     = "{tenant}"
model    = "{model}"            # `cotenant models` lists the zoo; `cotenant profile import` brings yours
arrivals = {{ kind = "poisson", rate = 100.0 }}   # requests/s; or {{ kind = "trace", file = "mine.csv" }}
slo      = {{ isolated = 3.0 }}    # times the p95 that it has alone; or a time such as "50ms"
batch    = {{ max = 8, timeout = "2ms" }}
# class  = "best-effort"         # for work that nobody waits for
# workers = 2

"#
        );
    }
    text += r#"# The ways of sharing: `cotenant policies` lists them, `cotenant policies NAME` shows the options.
[[policy]]
name = "temporal"                # contexts take turns, as without MPS

[[policy]]
name = "mps"                     # kernels side by side

[[policy]]
name   = "mps-percent"           # a cap on the CUs of each worker
shares = "right-sized"

[[policy]]
name = "ideal"                   # the bound that nobody can beat

# [sweep]                        # fields that vary; every combination is run
# "tenant.*.arrivals.rate" = [50, 100, 200]

# [[plot]]                       # without any, a few that suit the experiment
# kind = "bars"
# y    = "slo_attainment"
"#;
    text
}
