//! The output of a finished folder: draws figures and report, and prints the answer.

use std::path::Path;

use cotenant_plots::PlotError;
use cotenant_results::{Answer, RunInfo, Table};

use crate::fail::{Done, Failure};
use crate::say;
use crate::summary::Summary;

/// What to show of a finished run besides its answer.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Show {
    /// The table of results.
    pub(crate) table: bool,
    /// JSON instead of text.
    pub(crate) json: bool,
    /// The report, in a browser.
    pub(crate) open: bool,
}

/// Draws everything, then prints the answer and the path of the report.
///
/// # Errors
/// Cells failed; the drawing failed.
pub(crate) fn tell(out: &Path, run: &RunInfo, show: Show) -> Done {
    run.warnings.iter().for_each(|w| say::warn(w));
    let drawn = draw(out);
    let summary = Summary::read(&out.join("results.csv"), &run.sweep_keys)?;
    let table = Table::results(&out.join("results.csv"), &run.sweep_keys);
    let mut answer = Answer::of(run, &table.map_err(Failure::input)?).sentences();
    answer.extend(deploys_today(run));
    answer.extend(run.headroom_words());
    let report = out.join("report.html");
    if show.json {
        say::out(&summary.json(run, &answer, &report)?)?;
    } else {
        let table = if show.table { summary.text() + "\n" } else { String::new() };
        let lines = answer.join("\n");
        say::out(&format!("{table}{lines}\nReport: {}\n", report.display()))?;
    }
    for missing in drawn?.missing {
        say::warn(&format!("{missing} (the report says so in its place)"));
    }
    if show.open {
        open(&report);
    }
    match summary.failures(run.cells.len()) {
        Some(why) => Err(Failure::failed(why)),
        None => Ok(()),
    }
}

/// If the best policy is a research prototype, what to deploy until it is available. For a sweep, the report
/// tells this.
fn deploys_today(run: &RunInfo) -> Option<String> {
    let [winner] = run.winners.as_slice() else { return None };
    let today = winner.today.as_ref()?;
    let undecided = if today.certain { "" } else { ", though undecided" };
    Some(format!(
        "`{}` is a research prototype. Of those that deploy today `{}` is the best{undecided}.",
        winner.label, today.label
    ))
}

/// Opens a file with the desktop's program for it; without a desktop, its path has been printed already.
fn open(file: &Path) {
    let program = if cfg!(target_os = "macos") { "open" } else { "xdg-open" };
    let started = std::process::Command::new(program)
        .arg(file)
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn();
    if let Err(e) = started {
        say::warn(&format!("--open: cannot start {program}: {e}"));
    }
}

/// The number of files drawn, and why others are missing.
pub(crate) struct Drawn {
    pub(crate) files: usize,
    pub(crate) missing: Vec<String>,
}

/// Draws plots and report from the folder alone. A plot that cannot show the results (no value at all, a
/// sweep that `--set` added) does not make the run fail: the other plots and the report exist.
pub(crate) fn draw(folder: &Path) -> Done<Drawn> {
    let (files, missing) = match cotenant_plots::draw(folder) {
        Ok(files) => (files, vec![]),
        Err(PlotError::Some { drawn, failures }) => (drawn, failures),
        Err(e @ PlotError::Write { .. }) => return Err(Failure::failed(e)),
        Err(e) => return Err(Failure::input(e)),
    };
    files.iter().for_each(|f| say::detail(&format!("wrote {}", f.display())));
    Ok(Drawn { files: files.len(), missing })
}
