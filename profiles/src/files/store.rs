//! Finds the profile of a model among folders.

use std::path::{Path, PathBuf};

use super::error::FileError;
use super::layers::read_layers;
use super::read::read_model;
use crate::Device;
use crate::kernel::{Kernel, Profile};
use crate::steps::LayerTimes;

/// Folders in which profiles are looked for, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Store {
    folders: Vec<PathBuf>,
}

impl Store {
    /// A store of these folders alone. Each is a profile folder, or holds one folder per device.
    #[must_use]
    pub fn new(folders: Vec<PathBuf>) -> Self {
        Self { folders }
    }

    /// The given folders first; then those of the environment variable `COTENANT_PROFILES`
    /// (separated as in `PATH`); then `profiles/data` of the source tree that this was built from,
    /// where that still exists.
    #[must_use]
    pub fn with_defaults(mut folders: Vec<PathBuf>) -> Self {
        if let Some(paths) = std::env::var_os("COTENANT_PROFILES") {
            folders.extend(std::env::split_paths(&paths).filter(|p| !p.as_os_str().is_empty()));
        }
        let shipped = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/data"));
        if shipped.is_dir() {
            folders.push(shipped.to_path_buf());
        }
        Self { folders }
    }

    /// The folders, in order.
    #[must_use]
    pub fn folders(&self) -> &[PathBuf] {
        &self.folders
    }

    /// The first profile of `model` on `device`, with this model and its kernels alone.
    ///
    /// # Errors
    /// The first folder that claims to have it does not read.
    pub fn find(&self, model: &str, device: &Device) -> Result<Option<Profile>, FileError> {
        match self.folder_of(model, device) {
            Some(dir) => read_model(&dir, device, model).map(|p| Some(only_used(p))),
            None => Ok(None),
        }
    }

    /// The folder that [`Store::find`] reads.
    #[must_use]
    pub fn folder_of(&self, model: &str, device: &Device) -> Option<PathBuf> {
        let file = format!("models/{model}.csv");
        self.folders
            .iter()
            .flat_map(|dir| [dir.clone(), dir.join(&device.name)])
            .find(|dir| dir.join(&file).is_file() && is_of(dir, &device.name))
    }

    /// Measured times of a decoder's layers on `device`, and the file that they stand in: the first
    /// folder with `layers/<model>.csv` of that device.
    ///
    /// # Errors
    /// The first such file does not read.
    pub fn layers_of(
        &self,
        model: &str,
        device: &Device,
    ) -> Result<Option<(PathBuf, LayerTimes)>, FileError> {
        for dir in self.folders.iter().flat_map(|d| [d.clone(), d.join(&device.name)]) {
            let path = dir.join(format!("layers/{model}.csv"));
            if path.is_file() {
                let times = read_layers(&path)?;
                if times.device == device.name {
                    return Ok(Some((path, times)));
                }
            }
        }
        Ok(None)
    }
}

/// Whether the profile in `dir` says that it is of `device`, as far as its head reads; what does
/// not read at all counts, so that reading it says why.
fn is_of(dir: &Path, device: &str) -> bool {
    let Ok(text) = std::fs::read_to_string(dir.join("kernels.csv")) else { return true };
    let head = text.lines().take_while(|l| l.starts_with('#'));
    let mut devices =
        head.filter_map(|l| l[1..].split_once('=')).filter(|p| p.0.trim() == "device");
    devices.next().is_none_or(|(_, name)| name.trim() == device)
}

/// Drops the kernels that no launch of the remaining models uses, and their pairs.
fn only_used(mut profile: Profile) -> Profile {
    let mut used = vec![false; profile.kernels.len()];
    let launches =
        || profile.models.values().flat_map(|m| m.batches.values()).flatten().map(|l| l.kernel);
    launches().for_each(|k| used[k] = true);
    let mut place = vec![usize::MAX; used.len()];
    let mut kept: Vec<Kernel> = Vec::new();
    for (index, kernel) in profile.kernels.into_iter().enumerate() {
        if used[index] {
            place[index] = kept.len();
            kept.push(kernel);
        }
    }
    profile.kernels = kept;
    for launch in profile.models.values_mut().flat_map(|m| m.batches.values_mut()).flatten() {
        launch.kernel = place[launch.kernel];
    }
    profile.corun.retain(|c| used[c.a.0] && used[c.b.0]);
    for pair in &mut profile.corun {
        pair.a.0 = place[pair.a.0];
        pair.b.0 = place[pair.b.0];
    }
    profile
}
