//! `cotenant check`: what deployment settings deliver for a mix.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args as ClapArgs;
use cotenant_deploy::{Found, Weight};
use cotenant_profiles::Nanos;
use serde_json::json;

use crate::advise::answer::Ask;
use crate::advise::cells::Cells;
use crate::advise::lab::Lab;
use crate::advise::mix::Mix;
use crate::advise::search::SEEDS;
use crate::advise::{check, table};
use crate::fail::{Done, Failure};
use crate::panics;
use crate::say;
use crate::study::compute::threads;
use crate::study::stop::Stop;

/// Read deployment settings: what they deliver for a mix, what is illegal or silently rounded
///
/// Reads mig-parted, device-plugin, DRA and Kubernetes YAML, CUDA_MPS_* environments and scripts, MPS v3 TOML, Triton's
/// config.pbtxt, commands of vLLM and SGLang, green contexts, and ParvaGPU's deployment maps, alone or together. Exits with status 1
/// if the real thing would refuse a setting or a goal is missed.
#[derive(ClapArgs)]
#[command(after_help = "Examples:\n  \
    cotenant check mig.yaml --mix mix.toml\n  \
    cotenant check deploy/ --mix mix.toml --json")]
pub(crate) struct Args {
    /// Files, or folders of them
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// The mix: an experiment file
    #[arg(long, value_name = "MIX.toml", required_unless_present = "models")]
    mix: Option<PathBuf>,
    /// A tenant of the mix, as `advise` takes it; repeatable
    #[arg(long = "model", value_name = "MODEL", requires = "gpu", conflicts_with = "mix")]
    models: Vec<String>,
    /// The GPU, in place of the mix's
    #[arg(long, value_name = "DEVICE")]
    gpu: Option<String>,
    /// How long to simulate, as `advise` has it: with the same budget and seeds the numbers are the same
    /// [default: what the files name that `advise` wrote, or 10s]
    #[arg(long, value_name = "DURATION")]
    budget: Option<Nanos>,
    /// How often, with other requests each time [default: what the files name that `advise` wrote, or 4]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1000))]
    seeds: Option<u16>,
    /// Print findings and numbers as JSON
    #[arg(long)]
    json: bool,
    /// Threads [default: as many processors as this process may use]
    #[arg(short, long, alias = "threads", value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    jobs: Option<u16>,
}

/// `cotenant check`.
///
/// # Errors
/// A file or mix that does not read; something illegal in the settings, or a goal that is missed.
pub(crate) fn run(args: &Args) -> Done {
    let mix = match &args.mix {
        Some(file) => Mix::read(file, args.gpu.as_deref()),
        None => Mix::of_models(&args.models, args.gpu.as_deref().unwrap_or_default()),
    };
    let mix = mix.map_err(Failure::Input)?;
    let mut found = Found::new((*mix.point.device).clone());
    let mut named = None;
    for file in all_files(&args.files)? {
        let text = std::fs::read_to_string(&file)
            .map_err(|e| Failure::input(format!("{}: {e}", file.display())))?;
        cotenant_deploy::read(&file.display().to_string(), &text, &mut found)
            .map_err(Failure::input)?;
        named = named.or_else(|| written_with(&text));
    }
    let (budget, seeds) = named.unwrap_or((Nanos::from_secs(10), SEEDS as u16));
    let (budget, seeds) = (args.budget.unwrap_or(budget), args.seeds.unwrap_or(seeds));
    let largest = found.tenants.values().filter_map(|t| t.batch_max).max().unwrap_or(1);
    let cells = Arc::new(Cells::new(Stop::listen()?));
    let lab = Lab::up_to(mix, largest, cells.clone()).map_err(Failure::Input)?;
    let threads = threads(args.jobs.map_or(0, usize::from));
    let ask = Ask {
        // The budget that files name is that for one GPU.
        gpus: (1, 1),
        budget_s: budget.as_secs_f64(),
        price: None,
        threads,
        curves: false,
        planners: vec![],
        study: None,
    };
    let row = panics::kept(|| check::row_of(&lab, &mut found, &ask, usize::from(seeds)));
    cells.check()?;
    let mut findings = found.findings;
    findings.sort_by_key(|f| f.weight);
    let illegal = findings.iter().filter(|f| f.weight == Weight::Illegal).count();
    if args.json {
        let list: Vec<_> = findings
            .iter()
            .map(|f| json!({"weight": f.weight.word(), "file": f.file, "line": f.line, "field": f.field, "what": f.what}))
            .collect();
        let delivers = row.as_ref().ok();
        let why = row.as_ref().err();
        let all = json!({"findings": list, "delivers": delivers, "cannot": why});
        let text = serde_json::to_string_pretty(&all).map_err(Failure::failed)?;
        say::out(&(text + "\n"))?;
    } else {
        let lines: String = findings.iter().map(|f| format!("{f}\n")).collect();
        let delivers = match &row {
            Ok(row) => {
                let rows = table::rows(std::slice::from_ref(row), false);
                format!("{}\n{rows}\n{}", lab.mix.words(), table::tenants(row, &lab))
            }
            Err(_) => String::new(),
        };
        let gap = if lines.is_empty() || delivers.is_empty() { "" } else { "\n" };
        say::out(&format!("{lines}{gap}{delivers}"))?;
    }
    let row = row.map_err(Failure::failed)?;
    if illegal > 0 {
        let what = crate::text::count(illegal, "setting");
        return Err(Failure::failed(format!("{what} would be refused")));
    }
    match row.goals - row.goals_met {
        0 => Ok(()),
        n => Err(Failure::failed(format!("{n} of {} goals missed", row.goals))),
    }
}

/// Budget and seeds that a file names which `advise` wrote.
fn written_with(text: &str) -> Option<(Nanos, u16)> {
    let line = text.lines().find(|line| line.contains("numbers: simulated"))?;
    let mut words = line.split([' ', ';']);
    let mut behind = |flag: &str| words.find(|w| *w == flag).and_then(|_| words.next());
    let budget = behind("--budget")?.parse().ok()?;
    Some((budget, behind("--seeds")?.parse().ok().filter(|n| (1..=1000).contains(n))?))
}

/// The files, and those in the folders, sorted; explanations and pages are not settings.
fn all_files(given: &[PathBuf]) -> Result<Vec<PathBuf>, Failure> {
    fn below(dir: &Path, all: &mut Vec<PathBuf>) -> std::io::Result<()> {
        let mut entries: Vec<PathBuf> =
            std::fs::read_dir(dir)?.map(|e| e.map(|e| e.path())).collect::<Result<_, _>>()?;
        entries.sort();
        for path in entries {
            if path.is_dir() {
                below(&path, all)?;
            } else if path.extension().is_none_or(|e| e != "md" && e != "html") {
                all.push(path);
            }
        }
        Ok(())
    }
    let mut all = vec![];
    for path in given {
        if path.is_dir() {
            below(path, &mut all)
                .map_err(|e| Failure::input(format!("{}: {e}", path.display())))?;
        } else {
            all.push(path.clone());
        }
    }
    Ok(all)
}
