//! `cotenant gpu tiles`.

use std::path::Path;

use cotenant_replay::DeviceError;
use cotenant_replay::collect::{PlanError, Request};
use cotenant_replay::tune::{self, Cell, Outcome, TILES, TuneError};

use super::gpu::{TileArgs, folder_of};
use crate::fail::{Done, Failure};
use crate::say;
use crate::text::{align, count};

/// `cotenant gpu tiles`: tunes, draws the matrix and prints the tables.
///
/// # Errors
/// Bad input, no GPU, or one that fails.
pub(crate) fn tiles(args: &TileArgs) -> Done {
    let (request, folder) = args.what.request(0)?;
    let folder = folder.unwrap_or_else(|| folder_of(&request.device).join("tune"));
    tune(&request, &folder)
}

fn tune(request: &Request, folder: &Path) -> Done {
    let mut tell = |done: usize, all: usize| say::note(&format!("{done} of {all} shapes"));
    let outcome = tune::tune(request, folder, &mut tell).map_err(|e| match e {
        TuneError::Plan(PlanError::OtherDevice { .. } | PlanError::OtherName { .. }) => {
            Failure::failed(e)
        }
        TuneError::Plan(_) | TuneError::Precision(_) | TuneError::NoShape => Failure::input(e),
        TuneError::Device(DeviceError::Unavailable(_)) => {
            Failure::failed(format!("gpu tiles: {e}"))
        }
        e => Failure::failed(e),
    })?;
    let mut note = format!(
        "{}, sum over {} · tiles of FP32 products",
        request.device.title,
        count(outcome.shapes.len(), "shape")
    );
    if outcome.stand_in {
        "stand-in driver of the tests: NOT A MEASUREMENT".clone_into(&mut note);
        say::warn(
            "the driver is a stand-in: these numbers are not measurements, and the files say so",
        );
    }
    if outcome.left_out > 0 {
        say::warn(&format!("{} left out: the budget ended", count(outcome.left_out, "shape")));
    }
    let table = folder.join("matrix.csv");
    let drawn = cotenant_plots::draw_matrix(&table, folder, &note).map_err(Failure::failed)?;
    say::out(&matrix(&outcome))?;
    say::note(&format!(
        "tune.csv, matrix.csv and {} in {}",
        count(drawn.len(), "plot"),
        folder.display()
    ));
    Ok(())
}

/// The matrix over all shapes: a row for each share that was tuned at.
fn matrix(outcome: &Outcome) -> String {
    let cus = &outcome.cus;
    let mut head = vec!["tuned at".to_owned()];
    head.extend(cus.iter().map(|c| format!("on {c} CUs")));
    let head: Vec<&str> = head.iter().map(String::as_str).collect();
    let row = |cells: &[Cell]| -> Vec<String> {
        let of = cells.first().map_or(0, |c| cus[c.tuned_at]);
        let values = cells.iter().map(|c| format!("{:.3}", c.slowdown()));
        std::iter::once(format!("{of} CUs")).chain(values).collect()
    };
    let rows: Vec<Vec<String>> = outcome.sum.chunks(cus.len().max(1)).map(row).collect();
    format!(
        "{}\ntime against what was tuned at that share; {} variants, {}, each times its launches\n",
        align(&head, &rows),
        TILES.len(),
        count(outcome.shapes.len(), "shape")
    )
}
