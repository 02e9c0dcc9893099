//! Turns result files into figures and a report. This crate reads only a result folder: it knows neither the
//! simulator nor its policies beyond the names in the tables.
//!
//! The folder's files and their contents are defined by [`cotenant_results`].

mod axis;
mod bars;
mod cdf;
mod chart;
mod curves;
mod dots;
mod error;
mod export;
mod figure;
mod font;
mod grouped;
mod heatmap;
mod labels;
mod lines;
mod marks;
pub mod pages;
mod pareto;
mod parity;
mod pen;
mod report;
mod select;
mod style;
mod svg;
mod timeline;

use std::path::{Path, PathBuf};

pub use error::PlotError;

use cotenant_results::{PlotKind, PlotSpec, RunInfo, Table};
use figure::Figure;
use rayon::prelude::*;
use select::Context;

/// One plot, with what the report needs.
struct Drawn {
    /// File stem of its files under `plots/`.
    stem: String,
    /// The figure with its pictures, or why it could not be drawn.
    figure: Result<(Figure, Vec<String>), String>,
}

/// Draws every plot of the result folder `dir` and its report: `plots/*.svg`, `*.png`, `*.pdf` and
/// `report.html`. Reads `run.json`, `results.csv` and, where a plot needs them, `cdf.csv`,
/// `series.csv`, `curves.csv` and `validation.csv`. Returns the files written.
///
/// # Errors
/// `run.json` or `results.csv` is missing or malformed, or a file cannot be written. A plot that cannot be
/// drawn does not stop the others: [`PlotError::Some`] lists the files drawn and one line for each missing
/// plot, and the report shows the reason in the plot's place.
pub fn draw(dir: &Path) -> Result<Vec<PathBuf>, PlotError> {
    let run = RunInfo::read(&dir.join("run.json"))?;
    let results = Table::results(&dir.join("results.csv"), &run.sweep_keys)?;
    let specs = specs(&run);
    let looks = style::Looks::of(&run);
    let plots = specs.len();
    // This file exists if there are several GPUs.
    let whole = if dir.join("gpus.csv").exists() { "all GPUs" } else { "whole GPU" };
    let cx = Context { dir: dir.to_owned(), run: &run, results: &results, looks, plots, whole };
    // Tables are read one after another; pictures are drawn in parallel.
    let figures: Vec<_> = specs.iter().map(|spec| figure(&cx, spec)).zip(stems(&specs)).collect();
    let folder = dir.join("plots");
    let make = |(figure, stem): (Result<Figure, String>, String)| match figure {
        Ok(figure) => {
            let files = write_figure(&figure, &folder, &stem)?;
            let pieces = chart::pieces(&figure, &stem);
            Ok((files, Drawn { stem, figure: Ok((figure, pieces)) }))
        }
        Err(reason) => Ok((vec![], Drawn { stem, figure: Err(reason) })),
    };
    let made: Result<Vec<_>, PlotError> = figures.into_par_iter().map(make).collect();
    let (files, drawn): (Vec<_>, Vec<_>) = made?.into_iter().unzip();
    let mut written = files.concat();
    let missing = drawn.iter().filter_map(|d| Some((d.stem.clone(), d.figure.as_ref().err()?)));
    let failures: Vec<String> = missing
        .map(|(plot, reason)| PlotError::Plot { plot, reason: reason.clone() }.to_string())
        .collect();
    let report = dir.join("report.html");
    write(&report, report::html(&cx, &drawn).as_bytes())?;
    written.push(report);
    match failures.is_empty() {
        true => Ok(written),
        false => Err(PlotError::Some { drawn: written, failures }),
    }
}

/// The figures that [`draw`] makes of a run, as paths in its folder.
#[must_use]
pub fn figures(run: &RunInfo) -> Vec<PathBuf> {
    let files = |stem: String| ["svg", "png", "pdf"].map(|kind| format!("plots/{stem}.{kind}"));
    stems(&specs(run)).into_iter().flat_map(files).map(PathBuf::from).collect()
}

fn specs(run: &RunInfo) -> Vec<PlotSpec> {
    match run.plots.is_empty() {
        true => PlotSpec::defaults(&run.sweep_keys),
        false => run.plots.clone(),
    }
}

/// Draws latency curves from only a `curves.csv`, into `out/plots/`: for profiles that were never part of an
/// experiment. `device` names the GPU in the figure.
///
/// # Errors
/// The table is missing, malformed or empty, or a file cannot be written.
pub fn draw_curves(table: &Path, out: &Path, device: &str) -> Result<Vec<PathBuf>, PlotError> {
    let table = Table::curves(table)?;
    let spec = PlotSpec::new(PlotKind::Curves);
    let title = "Latency against compute units".to_owned();
    let figure = curves::draw(&table, &spec, title, device)
        .map_err(|reason| PlotError::Plot { plot: "curves".to_owned(), reason })?;
    write_figure(&figure, &out.join("plots"), "curves")
}

/// Draws the tuned-at × run-at matrix over all shapes from only a tuner's `matrix.csv`, into `out/plots/`.
/// `note` tells what was tuned, and on which device.
///
/// # Errors
/// The table is missing, malformed or lacks the sum over all shapes, or a file cannot be written.
pub fn draw_matrix(table: &Path, out: &Path, note: &str) -> Result<Vec<PathBuf>, PlotError> {
    let table = Table::matrix(table)?;
    let figure = heatmap::matrix(&table, note)
        .map_err(|reason| PlotError::Plot { plot: "matrix".to_owned(), reason })?;
    write_figure(&figure, &out.join("plots"), "matrix")
}

fn figure(cx: &Context<'_>, spec: &PlotSpec) -> Result<Figure, String> {
    let figure = match spec.kind {
        PlotKind::Bars => bars::figure(cx, spec),
        PlotKind::Cdf => cdf::figure(cx, spec),
        PlotKind::Lines => lines::figure(cx, spec),
        PlotKind::Timeline => timeline::figure(cx, spec),
        PlotKind::Heatmap => heatmap::figure(cx, spec),
        PlotKind::Curves => curves::figure(cx, spec),
        PlotKind::Parity => parity::figure(cx, spec),
        PlotKind::Pareto => pareto::figure(cx, spec),
    };
    figure.map(|f| cx.dress(spec, f))
}

/// File stems, numbered if two plots would have the same one.
fn stems(specs: &[PlotSpec]) -> Vec<String> {
    let mut stems: Vec<String> = Vec::new();
    for spec in specs {
        let stem = spec.stem();
        let numbered = (2..).map(|n| format!("{stem}-{n}"));
        let free = std::iter::once(stem.clone()).chain(numbered).find(|s| !stems.contains(s));
        stems.push(free.expect("an endless supply of numbers"));
    }
    stems
}

/// Writes `stem.svg`, `stem.png` and `stem.pdf`, and returns them.
fn write_figure(figure: &Figure, folder: &Path, stem: &str) -> Result<Vec<PathBuf>, PlotError> {
    std::fs::create_dir_all(folder)
        .map_err(|source| PlotError::Write { path: folder.to_owned(), source })?;
    let svg = chart::svg(figure, stem);
    let (png, pdf) = export::png_and_pdf(&svg)
        .map_err(|reason| PlotError::Plot { plot: stem.to_owned(), reason })?;
    let mut files = vec![];
    for (end, bytes) in [("svg", svg.as_bytes()), ("png", &png), ("pdf", &pdf)] {
        let path = folder.join(format!("{stem}.{end}"));
        write(&path, bytes)?;
        files.push(path);
    }
    Ok(files)
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), PlotError> {
    std::fs::write(path, bytes).map_err(|source| PlotError::Write { path: path.to_owned(), source })
}
