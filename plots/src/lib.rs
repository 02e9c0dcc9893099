//! Result files to figures and a report. This crate reads a result folder and nothing else: it
//! knows neither the simulator nor its policies beyond the names that stand in the tables.
//!
//! The folder's files, and what stands in them, are those of [`cotenant_results`].

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
mod heatmap;
mod lines;
mod marks;
mod pareto;
mod parity;
mod report;
mod select;
mod style;
mod svg;
mod timeline;

use std::path::{Path, PathBuf};

pub use error::PlotError;

use cotenant_results::{PlotKind, PlotSpec, RunInfo, Table};
use figure::{Data, Figure};
use select::Context;

/// The report's style sheet, for pages beside it.
pub const REPORT_STYLE: &str = include_str!("report.css");

/// One plot as the report needs it.
struct Drawn {
    /// Title, or the plot's name where there is no figure.
    title: String,
    /// Of its files under `plots/`.
    stem: String,
    /// Its numbers.
    data: Data,
    /// The picture, or why there is none.
    svg: Result<String, String>,
}

/// Draws every plot of the result folder `dir` and its report: `plots/*.svg`, `*.png`, `*.pdf` and
/// `report.html`. Reads `run.json`, `results.csv` and, where a plot needs them, `cdf.csv`,
/// `series.csv`, `curves.csv` and `validation.csv`. Returns the files written.
///
/// # Errors
/// `run.json` or `results.csv` is missing or malformed, or a file cannot be written. A plot that
/// cannot be drawn does not stop the others: [`PlotError::Some`] carries what was drawn and one
/// line for each plot that is missing, and the report shows the reason in the plot's place.
pub fn draw(dir: &Path) -> Result<Vec<PathBuf>, PlotError> {
    let run = RunInfo::read(&dir.join("run.json"))?;
    let results = Table::results(&dir.join("results.csv"), &run.sweep_keys)?;
    let specs = specs(&run);
    let looks = style::Looks::of(&run);
    let plots = specs.len();
    let cx = Context { dir: dir.to_owned(), run: &run, results: &results, looks, plots };
    let (mut written, mut failures, mut drawn) = (vec![], vec![], vec![]);
    for (spec, stem) in specs.iter().zip(stems(&specs)) {
        match figure(&cx, spec) {
            Ok(figure) => {
                let (svg, files) = write_figure(&figure, &dir.join("plots"), &stem)?;
                written.extend(files);
                let Figure { title, data, .. } = figure;
                drawn.push(Drawn { title, stem, data, svg: Ok(svg) });
            }
            Err(reason) => {
                failures.push(
                    PlotError::Plot { plot: stem.clone(), reason: reason.clone() }.to_string(),
                );
                drawn.push(Drawn {
                    title: stem.clone(),
                    stem,
                    data: Data::default(),
                    svg: Err(reason),
                });
            }
        }
    }
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

/// Draws latency curves from a `curves.csv` alone, into `out/plots/`: for profiles that were never
/// part of an experiment. `device` names the GPU in the figure.
///
/// # Errors
/// The table is missing, malformed or empty, or a file cannot be written.
pub fn draw_curves(table: &Path, out: &Path, device: &str) -> Result<Vec<PathBuf>, PlotError> {
    let table = Table::curves(table)?;
    let spec = PlotSpec::new(PlotKind::Curves);
    let title = "Latency against compute units".to_owned();
    let figure = curves::draw(&table, &spec, title, device)
        .map_err(|reason| PlotError::Plot { plot: "curves".to_owned(), reason })?;
    Ok(write_figure(&figure, &out.join("plots"), "curves")?.1)
}

/// Draws the tuned-at × run-at matrix over all shapes from a tuner's `matrix.csv` alone, into
/// `out/plots/`. `note` says what was tuned on.
///
/// # Errors
/// The table is missing, malformed or without the sum over all shapes, or a file cannot be written.
pub fn draw_matrix(table: &Path, out: &Path, note: &str) -> Result<Vec<PathBuf>, PlotError> {
    let table = Table::matrix(table)?;
    let figure = heatmap::matrix(&table, note)
        .map_err(|reason| PlotError::Plot { plot: "matrix".to_owned(), reason })?;
    Ok(write_figure(&figure, &out.join("plots"), "matrix")?.1)
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

/// File stems, numbered where two plots would have the same.
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

/// Writes `stem.svg`, `stem.png` and `stem.pdf`; returns the SVG's text and the files.
fn write_figure(
    figure: &Figure,
    folder: &Path,
    stem: &str,
) -> Result<(String, Vec<PathBuf>), PlotError> {
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
    Ok((svg, files))
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), PlotError> {
    std::fs::write(path, bytes).map_err(|source| PlotError::Write { path: path.to_owned(), source })
}
