//! Finds the profile of a tenant's model: first in the experiment's own folders and imports, then among the
//! built-in profiles, then from the analytic model.

mod beyond;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cotenant_profiles::analytic;
use cotenant_profiles::files::Store;
use cotenant_profiles::import::{self, Import, Input, OrionOptions, ReefOptions, TableOptions};
use cotenant_profiles::lower::Precision;
use cotenant_profiles::zoo::{self, ZooError};
use cotenant_profiles::{Device, Executor, Launch, Profile, Source, tune};

use crate::canonical;
use crate::config::{Part, ProfileSource, TenantConfig};
use crate::digest;

/// A model's profile, and its source.
#[derive(Clone)]
pub(crate) struct Found {
    pub(crate) profile: Arc<Profile>,
    /// The model's name in the profile.
    pub(crate) model: String,
    /// A description of the profile.
    pub(crate) words: String,
    /// Identifies its content.
    pub(crate) digest: String,
    /// A warning for readers of the results.
    pub(crate) warning: Option<String>,
}

impl Found {
    /// Adds to the warning for readers of the results.
    fn warn(&mut self, what: &str) {
        self.warning = Some(match self.warning.take() {
            Some(before) => format!("{before}; {what}"),
            None => what.to_owned(),
        });
    }
}

/// Profiles already read or computed.
#[derive(Default)]
pub(crate) struct Library {
    imports: BTreeMap<(ProfileSource, String), Arc<Import>>,
    found: BTreeMap<String, Found>,
}

/// The variant of a model that an analytic profile is computed for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Variant {
    pub(crate) precision: Precision,
    pub(crate) fused: bool,
    /// Kernels are those that a tuner picks on this many CUs.
    pub(crate) tuned_cus: Option<u32>,
    /// What determines the host's time per launch; `None`: the profile, or for an analytic one `fused`.
    pub(crate) executor: Option<Executor>,
}

impl Variant {
    fn options(self) -> analytic::Options {
        analytic::Options {
            precision: self.precision,
            fused: self.fused,
            tuned_cus: self.tuned_cus,
            executor: self.executor,
            ..analytic::Options::default()
        }
    }

    /// The variant as `, fused, eager, tuned on 20 CUs`.
    fn words(self) -> String {
        let fused = if self.fused { ", fused" } else { "" };
        let fused = format!("{fused}, {}", self.options().executor());
        let tuned = self.tuned_cus.map_or_else(String::new, |c| format!(", tuned on {c} CUs"));
        format!("{fused}{tuned}")
    }
}

impl Library {
    /// The profile of a tenant's model; `on` is the device's digest.
    ///
    /// # Errors
    /// No source has the model, or the first one that has it cannot be read.
    pub(crate) fn find(
        &mut self,
        tenant: &TenantConfig,
        device: &Device,
        on: &str,
        sources: &[ProfileSource],
    ) -> Result<Found, String> {
        let variant = Variant {
            precision: tenant.precision,
            fused: tenant.fused,
            tuned_cus: tenant.tuned_at.map(|percent| device.mps_cus(percent)),
            executor: tenant.executor,
        };
        let key = format!(
            "{} {variant:?} {:?} {} {sources:?} {on}",
            tenant.model, tenant.part, tenant.batch_max,
        );
        if let Some(found) = self.found.get(&key) {
            return Ok(found.clone());
        }
        // Measurements hold the kernels that were chosen when they were made; another choice must be
        // computed.
        let computed = tenant.tuned_at.is_some() || tenant.part != Part::Whole;
        let measured = if computed { None } else { self.read(&tenant.model, device, sources)? };
        let found = match (measured, &tenant.part) {
            (Some(found), _) => {
                let found = beyond::extend(found, device, tenant.batch_max, variant)
                    .map_err(|e| format!("{}: {e}", tenant.model_at))?;
                let asked = tenant.precision_given.then_some(variant.precision);
                Ok(with_executor(with_precision_check(found, asked), device, variant.executor))
            }
            (None, Part::Whole) => {
                analytic(&tenant.model, device, &batches(tenant.batch_max), variant)
            }
            (None, part) => part_of(&tenant.model, device, tenant.batch_max, variant, part),
        };
        let found = found.map_err(|e| format!("{}: {e}", tenant.model_at))?;
        self.found.insert(key, found.clone());
        Ok(found)
    }

    /// The profile for `profile show`: the one that is found, or an analytic one of one batch.
    ///
    /// # Errors
    /// As [`Library::find`].
    pub(crate) fn find_for_show(
        &mut self,
        model: &str,
        device: &Device,
        sources: &[ProfileSource],
        batch: u32,
        variant: Variant,
    ) -> Result<Found, String> {
        match self.read(model, device, sources)? {
            Some(found) => Ok(with_precision_check(found, None)),
            None => analytic(model, device, &[batch], variant),
        }
    }

    fn read(
        &mut self,
        model: &str,
        device: &Device,
        sources: &[ProfileSource],
    ) -> Result<Option<Found>, String> {
        for source in sources {
            let found = match source {
                ProfileSource::Folder(dir) => {
                    in_store(&Store::new(vec![dir.clone()]), model, device)?
                }
                ProfileSource::Import { .. } => self.in_import(source, model, device)?,
            };
            if found.is_some() {
                return Ok(found);
            }
        }
        in_store(&Store::with_defaults(vec![]), model, device)
    }

    fn in_import(
        &mut self,
        source: &ProfileSource,
        model: &str,
        device: &Device,
    ) -> Result<Option<Found>, String> {
        let ProfileSource::Import { format, path, at } = source else { return Ok(None) };
        let key = (source.clone(), device.name.clone());
        let import = match self.imports.get(&key) {
            Some(import) => import.clone(),
            None => {
                let files = input_files(path).map_err(|e| format!("{at}{e}"))?;
                let import =
                    Arc::new(import_files(format, &files, device, &ImportOptions::default())?);
                self.imports.insert(key, import.clone());
                import
            }
        };
        let Some(name) = import.profile.models.keys().find(|n| same(n, model)) else {
            return Ok(None);
        };
        let profile = only(&import.profile, name);
        let words = format!("imported from {format} files in {}", path.display());
        Ok(Some(Found {
            digest: canonical::of_profile(&profile).map_err(|e| e.to_string())?,
            profile: Arc::new(profile),
            model: name.clone(),
            words,
            warning: Some(import.warnings.join("; ")).filter(|w| !w.is_empty()),
        }))
    }
}

/// The profile with only one of its models.
fn only(profile: &Profile, model: &str) -> Profile {
    let mut one = profile.clone();
    one.models.retain(|name, _| name == model);
    one
}

/// Options for reading other tools' files.
#[derive(Default)]
pub(crate) struct ImportOptions {
    pub(crate) reef: ReefOptions,
    pub(crate) table: TableOptions,
}

/// The files at a path: the file itself, or the CSV files of a folder, sorted.
pub(crate) fn input_files(path: &Path) -> Result<Vec<PathBuf>, String> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let entries = std::fs::read_dir(path).map_err(|e| format!("{}: {e}", path.display()))?;
    let mut files: Vec<PathBuf> = entries
        .filter_map(|entry| entry.ok().map(|e| e.path()))
        .filter(|p| p.extension().is_some_and(|e| e == "csv"))
        .collect();
    files.sort();
    if files.is_empty() {
        Err(format!("{}: no .csv file in it", path.display()))
    } else {
        Ok(files)
    }
}

/// Reads other tools' files as a profile.
///
/// # Errors
/// Names file, line and field.
pub(crate) fn import_files(
    format: &str,
    files: &[PathBuf],
    device: &Device,
    options: &ImportOptions,
) -> Result<Import, String> {
    let mut texts = vec![];
    for file in files {
        let text = import::read_text(file).map_err(|e| e.to_string())?;
        texts.push((file.display().to_string(), text));
    }
    let inputs: Vec<Input<'_>> = texts.iter().map(|(file, text)| Input { file, text }).collect();
    let single = || match inputs.as_slice() {
        [one] => Ok(one),
        _ => Err(format!("`{format}` reads one file, not {}", inputs.len())),
    };
    let import = match format {
        "orion" => import::orion(&inputs, device, &OrionOptions::default()),
        "reef" => import::reef(single()?, device, &options.reef),
        "neusight" => import::neusight(&inputs, device),
        _ => import::table(single()?, device, &options.table),
    };
    import.map_err(|e| e.to_string())
}

/// Looks a model up under each of its names.
fn in_store(store: &Store, model: &str, device: &Device) -> Result<Option<Found>, String> {
    for name in candidates(model) {
        let Some(dir) = store.folder_of(&name, device) else { continue };
        let Some(profile) = store.find(&name, device).map_err(|e| e.to_string())? else { continue };
        let tool = ["tool", "version", "date", "driver", "cuda", "clocks"].iter();
        let facts: Vec<String> =
            tool.filter_map(|k| profile.provenance.get(*k).map(|v| format!("{k} {v}"))).collect();
        let words = format!("{}; {}", dir.display(), facts.join(", "));
        return Ok(Some(Found {
            digest: canonical::of_profile(&profile).map_err(|e| e.to_string())?,
            profile: Arc::new(profile),
            model: name,
            words,
            warning: None,
        }));
    }
    Ok(None)
}

/// Names that files may use for a model: as written, the zoo's, and with the other separator.
fn candidates(model: &str) -> Vec<String> {
    let zoo = zoo::find(model).ok().map(|spec| spec.name);
    let mut names = vec![model.to_owned()];
    names.extend(zoo);
    names.extend([model.replace('-', "_"), model.replace('_', "-")]);
    names.dedup();
    names
}

fn plain(name: &str) -> String {
    name.chars().filter(|c| !matches!(c, '-' | '_')).flat_map(char::to_lowercase).collect()
}

/// Whether two spellings name the same model.
fn same(a: &str, b: &str) -> bool {
    plain(a) == plain(b)
}

/// Warns if the requested precision is not that of the profile.
fn with_precision_check(mut found: Found, asked: Option<Precision>) -> Found {
    let measured = found.profile.provenance.get("precision");
    if let (Some(measured), Some(asked)) = (measured, asked)
        && !measured.eq_ignore_ascii_case(asked.name())
    {
        let why = format!(
            "the profile of {} is of precision {measured}, not {}",
            found.model,
            asked.name()
        );
        found.warn(&why);
    }
    found
}

/// Replaces the host times of a profile with those of an executor.
fn with_executor(mut found: Found, device: &Device, executor: Option<Executor>) -> Found {
    let Some(executor) = executor else { return found };
    let mut profile = (*found.profile).clone();
    for launches in profile.models.values_mut().flat_map(|m| m.batches.values_mut()) {
        for (position, launch) in launches.iter_mut().enumerate() {
            *launch =
                Launch { host: executor.host(device, position, false), kernel: launch.kernel };
        }
    }
    found.warn(&format!(
        "{}: executor = \"{executor}\" replaces the host times of its profile",
        found.model
    ));
    found.digest = digest::of_text(&format!("{} {executor}", found.digest));
    found.words += &format!(", launches as {executor}");
    found.profile = Arc::new(profile);
    found
}

fn no_model(why: &ZooError) -> String {
    format!(
        "{why}; `cotenant models` lists them by task, and `cotenant profile import` brings in a recording of \
         another one"
    )
}

/// Why only the experiment's own profiles could provide a model; `None` if another source may have it.
pub(crate) fn unknown(model: &str, device: &Device) -> Option<String> {
    let why = zoo::find(model).err().filter(|e| matches!(e, ZooError::Unknown { .. }))?;
    let recorded = in_store(&Store::with_defaults(vec![]), model, device);
    let nowhere = matches!(recorded, Ok(None)) && zoo::decoder::find(model).is_err();
    nowhere.then(|| no_model(&why))
}

/// Computes a profile from layer shapes.
///
/// # Errors
/// No such model, or a batch out of range.
pub(crate) fn analytic(
    model: &str,
    device: &Device,
    batches: &[u32],
    variant: Variant,
) -> Result<Found, String> {
    let spec = zoo::find(model).map_err(|e| no_model(&e))?;
    let options = variant.options();
    let profile = analytic::profile(device, &[&spec], batches, &options);
    let profile = profile.map_err(|e| e.to_string())?;
    let words = format!(
        "computed from layer shapes (roofline and waves of blocks), {}{}",
        variant.precision.name(),
        variant.words()
    );
    let mut meaning = canonical::analytic(&spec.name, device, &options);
    meaning["batches"] = batches.into();
    let digest = digest::of_value(&meaning);
    let warning = format!(
        "{} on {}: no measured profile, so an analytic one was computed ({}{})",
        spec.name,
        device.name,
        variant.precision.name(),
        variant.words()
    );
    Ok(Found {
        profile: Arc::new(profile),
        model: spec.name,
        words,
        digest,
        warning: Some(warning),
    })
}

/// Computes the profile of one operator, or of its tuning.
///
/// # Errors
/// As [`analytic()`], and an operator that the model does not have.
fn part_of(
    model: &str,
    device: &Device,
    batch: u32,
    variant: Variant,
    part: &Part,
) -> Result<Found, String> {
    let spec = zoo::find(model).map_err(|e| e.to_string())?;
    let options = variant.options();
    let (profile, name, what) = match part {
        Part::Tuning { operator, batch, trials } => {
            let profile = tune::workload(device, &spec, *batch, &options, *trials);
            (profile.map_err(|e| e.to_string())?, operator, "the tuning of")
        }
        Part::Operator(operator) => {
            let profile = tune::operator(device, &spec, batch, &options, operator);
            (profile.map_err(|e| e.to_string())?, operator, "one operator of")
        }
        Part::Whole => return analytic(model, device, &[batch], variant),
    };
    let mut meaning = canonical::analytic(&spec.name, device, &options);
    meaning["part"] = canonical::part(part);
    meaning["batch"] = batch.into();
    Ok(Found {
        profile: Arc::new(only(&profile, name)),
        model: name.clone(),
        words: format!("{what} {}, computed from layer shapes{}", spec.name, variant.words()),
        digest: digest::of_value(&meaning),
        warning: None,
    })
}

/// Batch sizes for which an analytic profile is computed: every one up to 16, then four per doubling, and the
/// largest. A batch in between runs as the next larger one.
pub(crate) fn batches(max: u32) -> Vec<u32> {
    let mut sizes: Vec<u32> = (1..=max.min(16)).collect();
    let mut step = 4;
    let mut next = 20;
    while next < max {
        sizes.push(next);
        if next == step * 8 {
            step *= 2;
        }
        next += step;
    }
    if max > 16 {
        sizes.push(max);
    }
    sizes
}

/// The name of a profile's source, as results show it.
pub(crate) fn source_name(source: Source) -> &'static str {
    source.name()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batch_sizes_are_dense_where_they_matter() {
        assert_eq!(batches(3), [1, 2, 3]);
        assert_eq!(batches(16).len(), 16);
        assert_eq!(batches(50)[16..], [20, 24, 28, 32, 40, 48, 50]);
        assert_eq!(batches(128)[16..], [20, 24, 28, 32, 40, 48, 56, 64, 80, 96, 112, 128]);
    }

    #[test]
    fn a_model_answers_to_its_spellings() {
        assert!(candidates("bert-base").contains(&"bert_base".to_owned()));
        assert!(same("ResNet50", "resnet-50"));
        assert!(!same("resnet50", "resnet101"));
    }
}
