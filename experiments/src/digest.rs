//! SHA-256 digests of everything that results depend on.

use std::io::Read as _;
use std::path::Path;

use cotenant_profiles::Device;
use sha2::{Digest, Sha256};

/// Digest of a text, in hex.
pub(crate) fn of_text(text: &str) -> String {
    hex(&Sha256::digest(text.as_bytes()))
}

/// The first 64 bits of a digest in hex.
pub(crate) fn number(hex: &str) -> u64 {
    u64::from_str_radix(&hex[..16], 16).expect("a digest in hex")
}

/// Digest of bytes, in hex.
pub(crate) fn of_bytes(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// A digest computed piece by piece.
#[derive(Default)]
pub(crate) struct Running(Sha256);

impl Running {
    /// Adds bytes.
    pub(crate) fn add(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The digest, in hex.
    pub(crate) fn finish(self) -> String {
        hex(&self.0.finalize())
    }
}

/// The same value with the keys of all tables sorted, so that its text does not depend on the order in which
/// Rust declares fields.
pub(crate) fn sorted(value: &serde_json::Value) -> serde_json::Value {
    match value {
        serde_json::Value::Object(table) => {
            let order: std::collections::BTreeMap<_, _> = table.iter().collect();
            order.into_iter().map(|(key, value)| (key.clone(), sorted(value))).collect()
        }
        serde_json::Value::Array(list) => list.iter().map(sorted).collect(),
        plain => plain.clone(),
    }
}

/// Digest of a device's numbers, wherever they come from.
pub(crate) fn of_device(device: &Device) -> String {
    of_value(&serde_json::to_value(device).expect("a device is plain data"))
}

/// Digest of a value, independent of the order of its keys.
pub(crate) fn of_value(value: &serde_json::Value) -> String {
    of_text(&sorted(value).to_string())
}

/// Digest of a file's bytes; for a folder, of its files' bytes in the order of their names.
///
/// # Errors
/// It cannot be read.
pub(crate) fn of_path(path: &Path) -> std::io::Result<String> {
    let mut hasher = Sha256::new();
    add(path, &mut hasher)?;
    Ok(hex(&hasher.finalize()))
}

fn add(path: &Path, hasher: &mut Sha256) -> std::io::Result<()> {
    if path.is_dir() {
        let mut names: Vec<_> = std::fs::read_dir(path)?
            .collect::<Result<Vec<_>, _>>()?
            .into_iter()
            .map(|e| e.path())
            .collect();
        names.sort();
        return names.iter().try_for_each(|p| add(p, hasher));
    }
    if !std::fs::metadata(path)?.is_file() {
        let problem = "is a device or a pipe; give a regular file";
        return Err(std::io::Error::new(std::io::ErrorKind::InvalidInput, problem));
    }
    let mut file = std::fs::File::open(path)?;
    let mut buffer = vec![0; 1 << 16];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(()),
            n => hasher.update(&buffer[..n]),
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    let halves = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    halves.map(|half| char::from(b"0123456789abcdef"[usize::from(half)])).collect()
}
