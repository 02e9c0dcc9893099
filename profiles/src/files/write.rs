//! Writes a profile folder: whole files, each put in place by a rename.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::error::{FileError, Problem};
use super::read::{CORUN, CURVES, DRAWN, KERNELS, LAUNCHES, ModelFile};
use super::table::{Columns, VERSION};
use crate::curve::Point;
use crate::kernel::{Model, Profile, Source};

/// Evidence that a profile was measured, which only what measures can give: the GPU it ran on and
/// what made the numbers. Its fields go into every file.
#[derive(Clone, Debug)]
pub struct Measurement {
    facts: BTreeMap<String, String>,
}

impl Measurement {
    /// Evidence of a run that has just been made on a GPU: its UUID or serial, the driver's
    /// version, the clocks read while measuring, and the date (ISO 8601).
    ///
    /// # Errors
    /// Any of them empty.
    pub fn of_this_run(
        gpu: &str,
        driver: &str,
        clocks: &str,
        date: &str,
    ) -> Result<Self, FileError> {
        let facts = [("gpu", gpu), ("driver", driver), ("clocks", clocks), ("date", date)];
        if facts.iter().any(|(_, value)| value.trim().is_empty()) {
            return Err(FileError::NotAMeasurement);
        }
        let facts = facts.iter().map(|(k, v)| ((*k).to_owned(), (*v).trim().to_owned())).collect();
        Ok(Self { facts })
    }

    pub(super) fn facts(&self) -> &BTreeMap<String, String> {
        &self.facts
    }
}

/// Writes `profile` into `dir`, which is made if need be. Files of the same profile are replaced;
/// models that the folder holds beyond it are refused, since their kernels would be lost.
///
/// # Errors
/// A `measured` profile (see [`write_measured`]), a profile that could not be read again, a
/// folder with other models, or the system's refusal.
pub fn write(dir: &Path, profile: &Profile) -> Result<(), FileError> {
    if profile.source == Source::Measured {
        return Err(FileError::NotAMeasurement);
    }
    write_files(dir, profile, &profile.provenance)
}

/// As [`write()`], for a profile that has just been measured: the evidence goes into every file.
///
/// # Errors
/// A profile that does not say `measured`, and those of [`write()`].
pub fn write_measured(
    dir: &Path,
    profile: &Profile,
    evidence: &Measurement,
) -> Result<(), FileError> {
    if profile.source != Source::Measured {
        return Err(FileError::NotAMeasurement);
    }
    let mut provenance = profile.provenance.clone();
    provenance.extend(evidence.facts.clone());
    write_files(dir, profile, &provenance)
}

fn write_files(
    dir: &Path,
    profile: &Profile,
    provenance: &BTreeMap<String, String>,
) -> Result<(), FileError> {
    check(profile, provenance)?;
    refuse_strangers(dir, profile)?;
    let head = head(profile, provenance);
    let models = dir.join("models");
    std::fs::create_dir_all(&models)
        .map_err(|source| FileError::Io { path: models.clone(), source })?;
    put(&dir.join("kernels.csv"), &csv(&head, KERNELS, kernel_rows(profile)))?;
    let drawn = profile.kernels.iter().any(|k| !k.curve.drawn().is_empty());
    let further: &[&str] = if drawn { &DRAWN } else { &[] };
    let rows = curve_rows(profile, drawn);
    put(&dir.join("curves.csv"), &csv_with(&head, CURVES, further, rows))?;
    for model in profile.models.values() {
        let rows = launch_rows(profile, model);
        put(&models.join(format!("{}.csv", model.name)), &csv(&head, LAUNCHES, rows))?;
        put(&models.join(format!("{}.toml", model.name)), &model_text(&head, model)?)?;
    }
    let corun = dir.join("corun.csv");
    if !profile.corun.is_empty() {
        put(&corun, &csv(&head, CORUN, corun_rows(profile)))?;
        Ok(())
    } else {
        remove(&corun)
    }
}

/// Removes a file of an earlier profile, if it exists.
pub(super) fn remove(path: &Path) -> Result<(), FileError> {
    match std::fs::remove_file(path) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
            Err(FileError::Io { path: path.to_path_buf(), source })
        }
        _ => Ok(()),
    }
}

/// The text of all files of a profile, one after the other: the same text, the same profile.
///
/// # Errors
/// A model that TOML cannot say.
pub fn text(profile: &Profile) -> Result<String, FileError> {
    let mut text = csv(&head(profile, &profile.provenance), KERNELS, kernel_rows(profile));
    text += &csv_with("", CURVES, &DRAWN, curve_rows(profile, true));
    for model in profile.models.values() {
        text += &model_text(&format!("# model={}\n", model.name), model)?;
        text += &csv("", LAUNCHES, launch_rows(profile, model));
    }
    text += &csv("", CORUN, corun_rows(profile));
    Ok(text)
}

fn head(profile: &Profile, provenance: &BTreeMap<String, String>) -> String {
    let mut head =
        format!("{VERSION}\n# device={}\n# source={}\n", profile.device, profile.source.name());
    for (key, value) in provenance {
        head += &format!("# {key}={}\n", value.trim());
    }
    head
}

pub(super) fn csv(head: &str, columns: Columns, rows: impl Iterator<Item = Vec<String>>) -> String {
    csv_with(head, columns, &[], rows)
}

/// With further columns behind the needed ones.
fn csv_with(
    head: &str,
    columns: Columns,
    further: &[&str],
    rows: impl Iterator<Item = Vec<String>>,
) -> String {
    let mut writer = csv::Writer::from_writer(head.as_bytes().to_vec());
    let write = |writer: &mut csv::Writer<Vec<u8>>, row: &[String]| {
        writer.write_record(row).expect("every row has the header's width, and memory never fails");
    };
    let names = columns.needed.iter().chain(further);
    write(&mut writer, &names.map(|c| (*c).to_owned()).collect::<Vec<_>>());
    for row in rows {
        write(&mut writer, &row);
    }
    let bytes = writer.into_inner().expect("memory never fails");
    String::from_utf8(bytes).expect("made of strings")
}

fn kernel_rows(profile: &Profile) -> impl Iterator<Item = Vec<String>> {
    profile.kernels.iter().map(|k| {
        vec![
            k.id.clone(),
            k.name.clone(),
            k.op.to_string(),
            format!("{}x{}x{}", k.grid[0], k.grid[1], k.grid[2]),
            k.block.to_string(),
            k.regs.to_string(),
            k.smem_bytes.to_string(),
            k.blocks_per_cu.to_string(),
            k.flops.to_string(),
            k.dram_bytes.to_string(),
        ]
    })
}

pub(super) fn curve_row(id: &str, p: &Point) -> Vec<String> {
    vec![
        id.to_owned(),
        p.cus.to_string(),
        p.duration_ns.to_string(),
        p.p05_ns.to_string(),
        p.p95_ns.to_string(),
        p.samples.to_string(),
    ]
}

fn curve_rows(profile: &Profile, with_drawn: bool) -> impl Iterator<Item = Vec<String>> {
    profile.kernels.iter().flat_map(move |k| {
        k.curve.points().iter().map(move |p| {
            let mut row = curve_row(&k.id, p);
            if with_drawn {
                let seen = k.curve.drawn().iter().find(|d| d.cus == p.cus);
                // Whole parts per million and milliwatts, so that what is read is what was written.
                let text = |n: Option<u32>, unit: f64, places: usize| {
                    n.map_or_else(String::new, |n| format!("{:.places$}", f64::from(n) / unit))
                };
                row.push(text(seen.and_then(|d| d.l2_ppm), 1e4, 4));
                row.push(text(seen.and_then(|d| d.dram_ppm), 1e4, 4));
                row.push(text(seen.and_then(|d| d.milliwatts), 1e3, 3));
            }
            row
        })
    })
}

fn launch_rows<'a>(
    profile: &'a Profile,
    model: &'a Model,
) -> impl Iterator<Item = Vec<String>> + 'a {
    model.batches.iter().flat_map(|(batch, launches)| {
        launches.iter().enumerate().map(|(position, launch)| {
            vec![
                batch.to_string(),
                position.to_string(),
                profile.kernels[launch.kernel].id.clone(),
                launch.host.0.to_string(),
            ]
        })
    })
}

fn corun_rows(profile: &Profile) -> impl Iterator<Item = Vec<String>> {
    profile.corun.iter().map(|c| {
        vec![
            profile.kernels[c.a.0].id.clone(),
            c.a.1.to_string(),
            profile.kernels[c.b.0].id.clone(),
            c.b.1.to_string(),
            c.duration_a_ns.to_string(),
            c.duration_b_ns.to_string(),
            c.samples.to_string(),
        ]
    })
}

fn model_text(head: &str, model: &Model) -> Result<String, FileError> {
    let file = ModelFile {
        name: model.name.clone(),
        weights: model.weights,
        activations_per_item: model.activations_per_item,
        input_per_item: model.input_per_item,
        output_per_item: model.output_per_item,
        load: model.load,
        host_per_request: model.host_per_request,
    };
    let text = toml::to_string(&file).map_err(|e| {
        let problem = Problem::Toml(e.to_string());
        FileError::unwritable(&format!("model `{}`", model.name), problem)
    })?;
    Ok(format!("{head}\n{text}"))
}

/// Writes beside the file and renames: a reader sees the old file or the new one.
pub(super) fn put(path: &Path, text: &str) -> Result<(), FileError> {
    let io = |source| FileError::Io { path: path.to_path_buf(), source };
    let mut beside = path.as_os_str().to_owned();
    beside.push(".part");
    std::fs::write(&beside, text).map_err(io)?;
    std::fs::rename(&beside, path).map_err(io)
}

/// Refuses a folder with models that the profile does not have.
fn refuse_strangers(dir: &Path, profile: &Profile) -> Result<(), FileError> {
    let Ok(entries) = std::fs::read_dir(dir.join("models")) else { return Ok(()) };
    let mut strangers: Vec<String> = entries
        .filter_map(|entry| {
            let path = entry.ok()?.path();
            let stem = path.file_stem()?.to_str()?.to_owned();
            let csv = path.extension().is_some_and(|e| e == "csv");
            (csv && !profile.models.contains_key(&stem)).then_some(stem)
        })
        .collect();
    strangers.sort();
    if strangers.is_empty() {
        return Ok(());
    }
    let what = format!("the models {}", strangers.join(", "));
    Err(FileError::Occupied { dir: dir.to_path_buf(), what })
}

/// Refuses a profile that would read back differently.
fn check(profile: &Profile, provenance: &BTreeMap<String, String>) -> Result<(), FileError> {
    let unwritable = |what: &str, text: &str, wanted: &str| {
        let problem = Problem::Value { text: text.to_owned(), wanted: wanted.to_owned() };
        Err(FileError::unwritable(what, problem))
    };
    let one_line = |text: &str| !text.trim().is_empty() && !text.chars().any(char::is_control);
    if !one_line(&profile.device) {
        return unwritable("device", &profile.device, "a name on one line");
    }
    for (key, value) in provenance {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if key.is_empty() || !key.chars().all(plain) || ["device", "source"].contains(&&**key) {
            return unwritable("provenance", key, "a key of letters, digits, `-`, `_` and `.`");
        }
        if value.chars().any(char::is_control) {
            return unwritable(key, value, "a value on one line");
        }
    }
    let mut ids = BTreeSet::new();
    for kernel in &profile.kernels {
        for text in [&kernel.id, &kernel.name] {
            if !one_line(text) || text.trim() != text {
                return unwritable("kernel", text, "a name on one line, without blanks around it");
            }
        }
        if kernel.id.starts_with('#') {
            return unwritable("kernel", &kernel.id, "a name that does not open with `#`");
        }
        if !ids.insert(&kernel.id) {
            let problem = Problem::Duplicate(kernel.id.clone());
            return Err(FileError::unwritable("kernel", problem));
        }
    }
    for (key, model) in &profile.models {
        if !is_model_name(key) || *key != model.name {
            return unwritable("model", key, MODEL_NAME);
        }
        if model.batches.is_empty() || model.batches.values().any(Vec::is_empty) {
            let problem = Problem::NoRows("launch");
            return Err(FileError::unwritable(&format!("model `{key}`"), problem));
        }
    }
    Ok(())
}

/// The requirements of [`is_model_name`], in words.
pub(crate) const MODEL_NAME: &str = "a model name of letters, digits, `-`, `_`, `.` and `@` that begins with a letter, a digit or `_`";

/// Whether a model may have this name: it is a file's name too, and a cell that no spreadsheet takes
/// for a formula.
pub(crate) fn is_model_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 100
        && name.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.@".contains(c))
}
