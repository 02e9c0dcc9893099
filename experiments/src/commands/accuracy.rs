//! `cotenant accuracy`.

use std::path::{Path, PathBuf};

use clap::Args;

use crate::accuracy::{self, hardware};
use crate::fail::{Done, Failure};
use crate::folder::write_whole;
use crate::say;

/// Show our errors on other people's measurements
///
/// Predictions are computed from public data: products and attention, layers of PyTorch, imported
/// kernels, processes that share MIG instances. docs/accuracy.md is this command's output, and says
/// where the data comes from.
#[derive(Args)]
#[command(after_help = "Examples:\n  \
    cotenant accuracy --data ~/public\n  \
    cotenant accuracy --data ~/public --check docs/accuracy.md\n  \
    cotenant accuracy --section docs/accuracy.md")]
pub(crate) struct AccuracyArgs {
    /// Folder of the public data, with `profiles/` in it [default: $COTENANT_PUBLIC_DATA]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Write the page to this file, in place of stdout
    #[arg(short, long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Fail if this file is not the page, and say which line differs
    #[arg(long, value_name = "FILE", conflicts_with = "out")]
    check: Option<PathBuf>,
    /// Write the section on GPUs of our own in this file again, and nothing else: needs no public data
    #[arg(long, value_name = "FILE", conflicts_with_all = ["data", "out", "check"])]
    section: Option<PathBuf>,
    /// Folder of the profiles that were measured on these GPUs [default: the source tree's]
    #[arg(long, value_name = "DIR")]
    gpus: Option<PathBuf>,
}

/// Runs the command.
pub(crate) fn run(args: &AccuracyArgs) -> Done {
    let gpus = args.gpus.clone().unwrap_or_else(hardware::shipped);
    if let Some(path) = &args.section {
        let page = read(path)?;
        return write_whole(path, hardware::replaced(&page, &hardware::section(&gpus)?).as_bytes());
    }
    let public = || std::env::var_os("COTENANT_PUBLIC_DATA").map(PathBuf::from);
    let Some(data) = args.data.clone().or_else(public) else {
        return Err(Failure::input("--data: missing, and COTENANT_PUBLIC_DATA is not set"));
    };
    let page = accuracy::page(&data, &gpus)?;
    if let Some(path) = &args.check {
        let known = read(path)?;
        let differs = |(a, b): (&str, &str)| a != b;
        let line = known.lines().zip(page.lines()).position(differs);
        let short = known.lines().count().min(page.lines().count());
        return match line.or((known != page).then_some(short)) {
            None => say::out(&format!("{} is up to date\n", path.display())),
            Some(line) => Err(Failure::failed(format!(
                "{}:{}: `{}` is now `{}`: write it again with --out",
                path.display(),
                line + 1,
                known.lines().nth(line).unwrap_or_default(),
                page.lines().nth(line).unwrap_or_default(),
            ))),
        };
    }
    match &args.out {
        Some(path) => write_whole(path, page.as_bytes()),
        None => say::out(&page),
    }
}

fn read(path: &Path) -> Done<String> {
    std::fs::read_to_string(path).map_err(|e| Failure::input(format!("{}: {e}", path.display())))
}
