//! Reads device files, and says of a bad one which file, line and field and what would be right.

use std::path::{Path, PathBuf};

use super::Device;
use crate::text;

/// The devices that ship, by name.
const BUILTIN: [(&str, &str); 22] = [
    ("a100-pcie-40", include_str!("../../devices/a100-pcie-40.toml")),
    ("a100-pcie-80", include_str!("../../devices/a100-pcie-80.toml")),
    ("a100-sxm-40", include_str!("../../devices/a100-sxm-40.toml")),
    ("a100-sxm-80", include_str!("../../devices/a100-sxm-80.toml")),
    ("a10g", include_str!("../../devices/a10g.toml")),
    ("a30", include_str!("../../devices/a30.toml")),
    ("b200-sxm", include_str!("../../devices/b200-sxm.toml")),
    ("h100-nvl", include_str!("../../devices/h100-nvl.toml")),
    ("h100-pcie", include_str!("../../devices/h100-pcie.toml")),
    ("h100-sxm", include_str!("../../devices/h100-sxm.toml")),
    ("h200-sxm", include_str!("../../devices/h200-sxm.toml")),
    ("l4", include_str!("../../devices/l4.toml")),
    ("l40s", include_str!("../../devices/l40s.toml")),
    ("mi210", include_str!("../../devices/mi210.toml")),
    ("mi300x", include_str!("../../devices/mi300x.toml")),
    ("mi50", include_str!("../../devices/mi50.toml")),
    ("p40", include_str!("../../devices/p40.toml")),
    ("rtx-3080", include_str!("../../devices/rtx-3080.toml")),
    ("rtx-4090", include_str!("../../devices/rtx-4090.toml")),
    ("rtx-pro-6000", include_str!("../../devices/rtx-pro-6000.toml")),
    ("t4", include_str!("../../devices/t4.toml")),
    ("v100-sxm2-16", include_str!("../../devices/v100-sxm2-16.toml")),
];

/// Why there is no device.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// No built-in device of that name.
    #[error("no device `{name}`{hint} Built-in devices: {known}, or give the path of a .toml file")]
    Unknown {
        /// What was asked for.
        name: String,
        /// `: did you mean …?`, or a full stop.
        hint: String,
        /// The built-in names.
        known: String,
    },
    /// The file cannot be read.
    #[error("{}: {source}", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The file is not a device file.
    #[error("{file}:{line}: {field}: {message}")]
    Parse {
        /// The file, or `builtin:<name>`.
        file: String,
        /// Line, from 1.
        line: usize,
        /// Table and key, such as `topology.groups`.
        field: String,
        /// What is wrong, what is accepted, and the closest known name.
        message: String,
    },
    /// The file reads well and describes no possible device.
    #[error("{file}:{line}: {field}: {message}")]
    Invalid {
        /// The file, or `builtin:<name>`.
        file: String,
        /// Line, from 1.
        line: usize,
        /// Table and key.
        field: String,
        /// What is wrong and what is accepted.
        message: String,
    },
}

impl Device {
    /// Names of the devices that ship, sorted.
    pub fn builtin_names() -> impl Iterator<Item = &'static str> + Clone {
        BUILTIN.iter().map(|(name, _)| *name)
    }

    /// The file of a device that ships, with the sources in its comments.
    #[must_use]
    pub fn builtin_text(name: &str) -> Option<&'static str> {
        BUILTIN.iter().find(|(n, _)| *n == name).map(|(_, text)| *text)
    }

    /// A device that ships.
    ///
    /// # Errors
    /// There is none of that name; the error names the closest.
    pub fn builtin(name: &str) -> Result<Self, DeviceError> {
        match Self::builtin_text(name) {
            Some(text) => Self::parse(text, &format!("builtin:{name}")),
            None => Err(unknown(name)),
        }
    }

    /// A device that ships, by name, or the file at a path relative to `base`: what contains a
    /// `/` or ends in `.toml` is a path.
    ///
    /// # Errors
    /// No such device or file, or a file that is not a valid device.
    pub fn find(name_or_path: &str, base: &Path) -> Result<Self, DeviceError> {
        let is_path = name_or_path.ends_with(".toml")
            || name_or_path.contains('/')
            || name_or_path.contains(std::path::MAIN_SEPARATOR);
        if is_path { Self::read(&base.join(name_or_path)) } else { Self::builtin(name_or_path) }
    }

    /// Reads a device file; its `name` must be the file's.
    ///
    /// # Errors
    /// An unreadable file, or one that is not a valid device.
    pub fn read(path: &Path) -> Result<Self, DeviceError> {
        let bytes = std::fs::read_to_string(path)
            .map_err(|source| DeviceError::Read { file: path.to_path_buf(), source })?;
        let file = path.display().to_string();
        let device = Self::parse(&bytes, &file)?;
        let stem = path.file_stem().and_then(|s| s.to_str()).unwrap_or_default();
        if device.name != stem {
            let message = format!("`{}` in the file of `{stem}`: they must agree", device.name);
            return Err(invalid(&file, &bytes, "name", message));
        }
        Ok(device)
    }

    /// Reads and checks the text of a device file; `file` is what errors call it.
    ///
    /// # Errors
    /// Text that is not a valid device.
    pub fn parse(text: &str, file: &str) -> Result<Self, DeviceError> {
        let device: Self = toml::from_str(text).map_err(|e| {
            let place = text::TomlPlace::of(text, &e);
            DeviceError::Parse {
                file: file.to_owned(),
                line: place.line,
                field: place.field,
                message: place.message,
            }
        })?;
        super::check::check(&device)
            .map_err(|(field, message)| invalid(file, text, &field, message))?;
        Ok(device)
    }
}

fn unknown(name: &str) -> DeviceError {
    let known: Vec<&str> = Device::builtin_names().collect();
    let hint = match alike(name, &known).as_slice() {
        [] => text::did_you_mean(name, known.iter().copied()),
        [one] => format!(": did you mean `{one}`?"),
        [several @ .., last] => {
            format!(": did you mean `{}` or `{last}`?", several.join("`, `"))
        }
    };
    DeviceError::Unknown {
        name: name.to_owned(),
        hint: if hint.is_empty() { ".".to_owned() } else { hint },
        known: known.join(", "),
    }
}

/// The devices that share most words with a name such as `NVIDIA A100 80GB PCIe`, where one of them is
/// a product's.
fn alike<'a>(name: &str, known: &[&'a str]) -> Vec<&'a str> {
    let lower = name.to_lowercase();
    let words = lower.split(|c: char| !c.is_alphanumeric());
    let words: Vec<&str> = words.map(|w| w.strip_suffix("gb").unwrap_or(w)).collect();
    // `rtx` and `pro` name no product.
    let product = |d: &str| {
        d.split('-').find(|w| !matches!(*w, "rtx" | "pro")).is_some_and(|w| words.contains(&w))
    };
    // `SXM4` is the `sxm` of an A100.
    let shares = |part: &str| {
        words.iter().any(|w| w.trim_end_matches(char::is_numeric) == part || *w == part)
    };
    let score = |d: &str| d.split('-').filter(|part| shares(part)).count();
    let alike = || known.iter().copied().filter(|d| product(d));
    let most = alike().map(score).max();
    alike().filter(|d| Some(score(d)) == most).collect()
}

fn invalid(file: &str, text: &str, field: &str, message: String) -> DeviceError {
    let line = text::toml_line(text, field);
    DeviceError::Invalid { file: file.to_owned(), line, field: field.to_owned(), message }
}
