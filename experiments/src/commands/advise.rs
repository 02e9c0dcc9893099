//! `cotenant advise`: from a mix and its goals to settings that deploy.

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use clap::Args as ClapArgs;
use cotenant_profiles::Nanos;

use crate::advise::answer::{self, Answer, Ask};
use crate::advise::cells::Cells;
use crate::advise::mix::Mix;
use crate::advise::planner::Planner;
use crate::advise::table;
use crate::fail::{Done, Failure};
use crate::panics;
use crate::say;
use crate::study::compute::threads;
use crate::study::stop::Stop;
use crate::text::count;

/// With less a search has hardly a request to judge by.
const LEAST_BUDGET: Nanos = Nanos::from_millis(50);

/// Find how a mix of models should share GPUs, and write settings that deploy
///
/// Every way of sharing is searched (shares, instances, batches, workers, who goes where), simulated on
/// the same requests, and shown in a row; the answer comes first. A mix comes from --model, or from an
/// experiment file; its policies do not matter here.
#[derive(ClapArgs)]
#[command(after_help = "Examples:\n  \
    cotenant advise --gpu h100-sxm --model bert_large@60rps,slo=50ms \
    --model resnet50@200rps,slo=20ms,batch=8 --model mobilenet_v2,best-effort\n  \
    cotenant advise mix.toml --gpus 1..4 --emit deploy/ --json\n  \
    cotenant advise mix.toml --gpus 2 --planner parvagpu,gpu-lets,igniter,fgd\n  \
    cotenant advise --gpu h100-sxm --model llama-3.1-8b@2rps,tokens=512/128,ttft=500ms,tpot=40ms \
    --model bge-large@50rps,slo=50ms\n  \
    cotenant advise mix.toml --out out/advise     # stopped, the same command goes on\n  \
    cotenant advise mix.toml --study study/       # search on a cluster")]
pub(crate) struct Args {
    /// A mix: an experiment file; what it fixes (batch, workers) stays fixed
    #[arg(value_name = "MIX.toml", conflicts_with = "models")]
    mix: Option<PathBuf>,
    /// The GPU, in place of the mix's: a name of `cotenant devices` or a device file
    #[arg(long, value_name = "DEVICE")]
    gpu: Option<String>,
    /// GPUs to use: a number, or the least and the most of a range [default: the mix's `gpus`, or 1]
    #[arg(long, value_name = "N|A..B")]
    gpus: Option<Gpus>,
    /// A tenant, such as `resnet50@200rps,slo=20ms,batch=8`; repeatable. Keys after the rate: slo,
    /// batch, workers, precision, executor, name, best-effort; of a model that generates, such as
    /// `llama-3.1-8b@2rps,tokens=512/128,ttft=500ms,tpot=40ms`
    #[arg(long = "model", value_name = "MODEL")]
    models: Vec<String>,
    /// What may be simulated, as seconds of one core of 3.5 million events a second. It bounds the whole
    /// answer; ways that could not be settled within it are named [default: 10s for each GPU]
    #[arg(long, value_name = "DURATION")]
    budget: Option<Nanos>,
    /// Add what published planners would deploy, for comparison
    #[arg(long = "planner", value_name = "NAME", value_delimiter = ',')]
    planners: Vec<Planner>,
    /// Price of one GPU for an hour, for the price of a million requests
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    price: Option<f64>,
    /// Keep finished simulations in DIR: the same command, or one with another budget, reads them instead
    /// of simulating again, also after a stop
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Take the search on one GPU from a study in DIR: its experiments are written there, for `cotenant
    /// run` or a cluster; once they are computed, the same command answers
    #[arg(long, value_name = "DIR")]
    study: Option<PathBuf>,
    /// Write what deploys the choice into DIR
    #[arg(long, value_name = "DIR")]
    emit: Option<PathBuf>,
    /// Write the answer as a page that opens from disk
    #[arg(long, value_name = "FILE.html")]
    page: Option<PathBuf>,
    /// Print the answer as JSON
    #[arg(long)]
    json: bool,
    /// Threads [default: as many processors as this process may use]; the answer does not depend on it
    #[arg(short, long, alias = "threads", value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    jobs: Option<u16>,
}

/// `2`, `1..4`.
#[derive(Clone, Copy, Debug)]
struct Gpus(usize, usize);

impl FromStr for Gpus {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!("`{text}` is neither a number of GPUs from 1 to 16 nor a range such as 1..4")
        };
        let number = |t: &str| t.trim().parse::<usize>().ok().filter(|n| (1..=16).contains(n));
        let (low, high) = text.split_once("..").unwrap_or((text, text));
        let high = high.trim_start_matches('=');
        let (low, high) = number(low).zip(number(high)).ok_or_else(wrong)?;
        if low > high {
            return Err(wrong());
        }
        Ok(Self(low, high))
    }
}

impl Args {
    fn mix(&self) -> Result<Mix, String> {
        match (&self.mix, self.models.as_slice()) {
            (Some(file), _) => Mix::read(file, self.gpu.as_deref()),
            (None, []) => {
                Err("needs a mix: MIX.toml, or --model NAME@RATErps with --gpu".to_owned())
            }
            (None, models) => {
                let gpu =
                    self.gpu.as_deref().ok_or("--model needs --gpu, such as --gpu h100-sxm")?;
                Mix::of_models(models, gpu)
            }
        }
    }
}

/// `cotenant advise`.
///
/// # Errors
/// A mix that does not read or fits nowhere; files that cannot be written.
pub(crate) fn run(args: &Args) -> Done {
    if let Some(price) = args.price
        && !(price.is_finite() && price >= 0.0)
    {
        return Err(Failure::input(format!("--price: `{price}` is not a price")));
    }
    if let Some(budget) = args.budget.filter(|b| *b < LEAST_BUDGET) {
        return Err(Failure::input(format!(
            "--budget: {budget} is too little for any answer; give {LEAST_BUDGET} or more"
        )));
    }
    let mix = args.mix().map_err(Failure::Input)?;
    let gpus = args.gpus.unwrap_or(Gpus(mix.gpus, mix.gpus));
    if args.study.is_some() && gpus.0 > 1 {
        return Err(Failure::input("--study: is for ways of sharing one GPU: give --gpus 1..N"));
    }
    let ask = Ask {
        gpus: (gpus.0, gpus.1),
        budget_s: args.budget.map_or(10.0 * gpus.1 as f64, Nanos::as_secs_f64),
        price: args.price,
        threads: threads(args.jobs.map_or(0, usize::from)),
        curves: args.page.is_some() || args.json,
        planners: args.planners.clone(),
        study: args.study.clone(),
    };
    let stop = Stop::listen()?;
    let cells = match &args.out {
        Some(dir) => Cells::in_folder(dir, stop)?,
        None => Cells::new(stop),
    };
    let cells = Arc::new(cells.with_progress(ask.events()));
    let mut first = |text: &str| cells.note(text);
    let answer = panics::kept(|| answer::answer(mix, &ask, &cells, &mut first));
    cells.finish();
    let answer = answer?;
    let (simulated, read) = cells.counts();
    say::note(&format!(
        "{} simulated{}; {:.1} million events of {:.1} in the budget",
        count(simulated, "cell"),
        if read > 0 { format!(", {read} looked up") } else { String::new() },
        answer.events as f64 / 1e6,
        ask.events() / 1e6,
    ));
    if let Some(dir) = &args.emit {
        emit(&answer, dir)?;
    }
    if let Some(file) = &args.page {
        let page = crate::advise::page::html(&answer, args.price.is_some());
        std::fs::write(file, page).map_err(|e| Failure::write(file, e))?;
        say::note(&format!("page: {}", file.display()));
    }
    if args.json {
        let json = serde_json::to_string_pretty(&answer).map_err(Failure::failed)?;
        return say::out(&(json + "\n"));
    }
    say::out(&table::advise(&answer, args.price.is_some()))
}

/// Writes the files of the choice.
fn emit(answer: &Answer, dir: &Path) -> Done {
    let Some(plan) = answer.plan() else {
        return Err(Failure::failed("nothing deploys for this mix: --emit has nothing to write"));
    };
    let files = cotenant_deploy::emit(&plan).map_err(Failure::failed)?;
    for file in &files {
        let path = dir.join(&file.path);
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).map_err(|e| Failure::write(parent, e))?;
        }
        std::fs::write(&path, &file.text).map_err(|e| Failure::write(&path, e))?;
    }
    say::note(&format!(
        "{} in {}; read README.md there first",
        count(files.len(), "file"),
        dir.display()
    ));
    Ok(())
}
