//! `cotenant accuracy`: our errors against published measurements.
//!
//! Every comparison is computed afresh from public data; no prediction is stored. Data that a constant of the
//! model was calibrated on forms a set of its own; its errors are shown next to those of data that no
//! constant has seen.

mod attention;
pub(crate) mod hardware;
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

/// Folders of the public data, under `profiles/` in the folder that `--data` names.
pub(crate) struct Data<'a>(&'a Path);

impl Data<'_> {
    fn at(&self, path: &str) -> std::path::PathBuf {
        self.0.join("profiles").join(path)
    }
}

/// The page of all comparisons, as Markdown; `gpus` holds the profiles of our own GPUs.
///
/// # Errors
/// Data that cannot be read.
pub(crate) fn page(data: &Path, gpus: &Path) -> Done<String> {
    if !data.join("profiles").is_dir() {
        return Err(Failure::input(format!(
            "{}: no folder `profiles` with public data in it; docs/accuracy.md says where it comes from",
            data.display()
        )));
    }
    let data = Data(data);
    let kernels = || {
        let (layers, (products, attention)) = rayon::join(
            || layers::compare(&data),
            || rayon::join(|| products::compare(&data), || attention::compare(&data)),
        );
        let all = [products?, attention?, layers?, sums::compare(&data)?];
        Ok(all.into_iter().flatten().collect())
    };
    let engines = || rayon::join(|| serving::compare(&data), || pairs::compare(&data));
    let (kernels, (processes, (serving, pairs))): (Done<_>, _) =
        rayon::join(kernels, || rayon::join(|| processes::compare(&data), engines));
    let mut all: Vec<Comparison> = kernels?;
    let (processes, best) = processes?;
    all.extend(processes);
    let (serving, pairs) = (serving?, pairs?);
    Ok(page::markdown(&all, &best, &pairs, &serving) + &hardware::section(gpus)?)
}
