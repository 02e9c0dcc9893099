//! `cotenant accuracy`: our errors on other people's measurements.
//!
//! Every comparison is made here and now, from public data: predictions are computed, nothing is
//! stored. What a constant of the model was calibrated on is a set of its own, and its errors stand
//! beside those of data that no constant has seen.

mod attention;
mod hardware;
mod layers;
mod numbers;
mod page;
mod pairs;
mod processes;
mod products;
mod serving;
mod split;
mod sums;
mod tables;

use std::path::Path;

use crate::fail::{Done, Failure};
use numbers::{Comparison, Set};

/// Folders of the public data, under `profiles/` of what `--data` names.
pub(crate) struct Data<'a>(&'a Path);

impl Data<'_> {
    fn at(&self, path: &str) -> std::path::PathBuf {
        self.0.join("profiles").join(path)
    }
}

/// The page of all comparisons, as Markdown.
///
/// # Errors
/// Data that does not read.
pub(crate) fn page(data: &Path) -> Done<String> {
    if !data.join("profiles").is_dir() {
        return Err(Failure::input(format!(
            "{}: no folder `profiles` with public data in it; docs/accuracy.md says where it comes from",
            data.display()
        )));
    }
    let data = Data(data);
    let mut all = products::compare(&data)?;
    all.extend(attention::compare(&data)?);
    all.extend(layers::compare(&data)?);
    all.extend(sums::compare(&data)?);
    let (processes, best) = processes::compare(&data)?;
    all.extend(processes);
    let serving = serving::compare(&data)?;
    let pairs = pairs::compare(&data)?;
    Ok(page::markdown(&all, &best, &pairs, &serving) + &hardware::section()?)
}
