//! `cotenant replay`: an experiment's policies on a device, in real time.

use std::path::PathBuf;

use clap::Args as ClapArgs;

use crate::config::Overrides;
use crate::fail::{Done, Failure};
use crate::on::On;
use crate::session::{Ask, Session};

/// Run an experiment's policies on a device, in real time
///
/// The same cells as `run`, carried out by the same policies: results.csv, run.json, plots/ and
/// report.html as there, and how late the dispatcher itself was in lateness.csv. On `emulated`, the
/// GPU is a profile played in real time, and nothing that is written is a measurement.
#[derive(ClapArgs)]
#[command(after_help = "Examples:\n  \
    cotenant replay experiments/quickstart.toml --on cuda:0\n  \
    cotenant replay experiments/quickstart.toml --on emulated --set duration=200ms --set repeats=1")]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) common: Common,
    /// Write every request to requests/CELL.csv.zst
    #[arg(long)]
    requests: bool,
}

/// What `replay` and `validate` both take.
#[derive(ClapArgs)]
pub(crate) struct Common {
    /// Experiment file
    #[arg(value_name = "EXP.toml")]
    experiment: PathBuf,
    /// Device: emulated, or cuda:0 for the first GPU
    #[arg(long, value_name = "DEVICE")]
    on: On,
    /// Folder for the results [default: out/NAME-replay, out/NAME-validate]
    #[arg(short, long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Replace a field of the experiment, such as duration=500ms; repeatable
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Seed of the first repeat, in place of the file's
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Run an emulated GPU so many times slower than real time [default: as each cell needs]
    #[arg(long, value_name = "K", value_parser = slowdown)]
    slowdown: Option<f64>,
    /// Keep the workers of an emulated GPU in this process [default: a process for each where the
    /// policy's mechanism needs that]
    #[arg(long)]
    streams: bool,
    /// Cells side by side on emulated GPUs [default: 4 per processor]; a real one has one at a time
    #[arg(short, long, alias = "threads", value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    jobs: Option<u16>,
}

impl Common {
    pub(super) fn ask(&self, compare: bool, requests: bool) -> Ask {
        Ask {
            experiment: self.experiment.clone(),
            overrides: Overrides { set: self.set.clone(), seed: self.seed },
            on: self.on,
            out: self.out.clone(),
            slowdown: self.slowdown,
            streams: self.streams,
            jobs: self.jobs,
            compare,
            requests,
        }
    }
}

fn slowdown(text: &str) -> Result<f64, String> {
    let k = text.parse::<f64>().ok().filter(|k| (1.0..=1e6).contains(k));
    k.ok_or_else(|| "write a number from 1 to 1000000".to_owned())
}

/// `cotenant replay`.
///
/// # Errors
/// Bad input, a device that is not there, cells that failed after everything has been written.
pub(crate) fn run(args: &Args) -> Done {
    let shown = Session::play(&args.common.ask(false, args.requests)).and_then(|s| s.show(""));
    shown.map_err(Failure::into_failed)
}
