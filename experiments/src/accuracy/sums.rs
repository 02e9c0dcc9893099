//! Kernels that others measured, imported: their sum must be the file's.

use cotenant_profiles::import::{Input, OrionOptions, ReefOptions, orion, reef};
use cotenant_profiles::{Profile, import::ImportError};

use super::products::device;
use super::tables::csv;
use super::{Comparison, Data, Set};
use crate::fail::{Done, Failure};

pub(super) fn compare(data: &Data<'_>) -> Done<Vec<Comparison>> {
    let v100 = device("v100-sxm2-16")?;
    let mut sums = Comparison::new(
        "Orion",
        "alone",
        "sum of kernels, imported, v100-sxm2-16".to_owned(),
        Set::Test,
    );
    let folder = data.at("orion_v100");
    let entries = std::fs::read_dir(&folder)
        .map_err(|e| Failure::input(format!("{}: {e}", folder.display())))?;
    let mut files: Vec<_> = entries.filter_map(|e| Some(e.ok()?.path())).collect();
    files.retain(|p| p.extension().is_some_and(|e| e == "csv"));
    files.sort();
    for path in files {
        let text = read(&path)?;
        let file = path.display().to_string();
        let found = orion(&[Input { file: &file, text: &text }], &v100, &OrionOptions::default());
        let profile = found.map_err(unread)?.profile;
        let mut measured = 0.0;
        for row in csv(&path, &["Duration"])?.iter() {
            measured += row.number("Duration")?;
        }
        for name in profile.models.keys() {
            sums.push(measured, sum(&profile, name, v100.cus()), &[]);
        }
    }
    let mi50 = device("mi50")?;
    let path = data.at("reef_mi50/tidy_kernels.csv");
    let text = read(&path)?;
    let file = path.display().to_string();
    let found = reef(&Input { file: &file, text: &text }, &mi50, &ReefOptions::default());
    let profile = found.map_err(unread)?.profile;
    let model = "sum of kernels, imported, mi50".to_owned();
    let mut tvm = Comparison::new("REEF", "alone", model, Set::Test);
    let rows = csv(&path, &["model", "solo_us"])?;
    for name in profile.models.keys() {
        let mut measured = 0.0;
        for row in rows.iter().filter(|r| r.text("model") == name) {
            measured += row.number("solo_us")? * 1e3;
        }
        tvm.push(measured, sum(&profile, name, mi50.cus()), &[]);
    }
    Ok(vec![sums, tvm])
}

fn read(path: &std::path::Path) -> Done<String> {
    std::fs::read_to_string(path).map_err(|e| Failure::input(format!("{}: {e}", path.display())))
}

fn unread(e: ImportError) -> Failure {
    Failure::input(e)
}

/// Sum of a model's kernels on all CUs at its smallest batch, ns.
fn sum(profile: &Profile, model: &str, cus: u32) -> f64 {
    let launches = profile.models[model].batches.values().next();
    launches.into_iter().flatten().map(|l| profile.kernels[l.kernel].at(cus)).sum::<u64>() as f64
}
