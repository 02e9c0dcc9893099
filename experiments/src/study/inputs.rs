//! The inputs of a study: this program, and the files that the experiment reads.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use serde::{Deserialize, Serialize};

use crate::digest;
use crate::fail::{Done, Failure};

/// Identifies this program: the digest of its executable, since a version number does not change
/// with every build.
///
/// # Errors
/// The executable cannot be read.
pub(crate) fn build() -> Result<String, String> {
    static BUILD: OnceLock<Result<String, String>> = OnceLock::new();
    BUILD.get_or_init(digest_of_program).clone()
}

/// Starts to read the executable in the background: it is tens of megabytes.
pub(crate) fn look_at_build() {
    std::thread::spawn(build);
}

fn digest_of_program() -> Result<String, String> {
    let program = if cfg!(target_os = "linux") {
        // The program that is running, even if its file has been replaced.
        Ok(PathBuf::from("/proc/self/exe"))
    } else {
        std::env::current_exe()
    };
    let digest = program.and_then(|p| digest::of_path(&p));
    digest.map(|d| d[..16].to_owned()).map_err(|e| format!("cannot read this program's file: {e}"))
}

/// A file or folder that the experiment reads.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub(crate) struct Input {
    /// Absolute.
    pub(crate) path: PathBuf,
    pub(crate) bytes: u64,
    pub(crate) sha256: String,
}

/// Lists files with their digests.
///
/// # Errors
/// A file no longer exists.
pub(crate) fn list(files: &BTreeMap<PathBuf, String>) -> Done<Vec<Input>> {
    let input = |(path, sha256): (&PathBuf, &String)| {
        let path = std::path::absolute(path).map_err(|e| Failure::io(path, e))?;
        let bytes = std::fs::metadata(&path).map_err(|e| Failure::io(&path, e))?.len();
        Ok(Input { path, bytes, sha256: sha256.clone() })
    };
    files.iter().map(input).collect()
}

/// Checks that no file has changed; returns their digests.
///
/// # Errors
/// A file has changed: bad input.
pub(crate) fn check(inputs: &[Input]) -> Done<BTreeMap<PathBuf, String>> {
    let mut digests = BTreeMap::new();
    for input in inputs {
        let path = input.path.display();
        let same = std::fs::metadata(&input.path)
            .and_then(|m| {
                Ok(m.len() == input.bytes && digest::of_path(&input.path)? == input.sha256)
            })
            .map_err(|e| {
                Failure::input(format!("{path}: {e}; the plan was made with this file"))
            })?;
        if !same {
            return Err(Failure::input(format!(
                "{path}: changed since the plan was made; restore it, or plan in another folder"
            )));
        }
        digests.insert(input.path.clone(), input.sha256.clone());
    }
    Ok(digests)
}

/// Environment variables that a text refers to as `${NAME}`, with their current values.
pub(crate) fn variables(text: &str) -> BTreeMap<String, String> {
    let names = text.split("${").skip(1).filter_map(|rest| Some(rest.split_once('}')?.0));
    names.filter_map(|name| Some((name.to_owned(), std::env::var(name).ok()?))).collect()
}

/// The text with those variables substituted, inside TOML strings.
pub(crate) fn fill(text: &str, variables: &BTreeMap<String, String>) -> String {
    variables.iter().fold(text.to_owned(), |text, (name, value)| {
        let quoted = toml::Value::String(value.clone()).to_string();
        let inner = match quoted.strip_prefix('"').and_then(|q| q.strip_suffix('"')) {
            Some(inner) => inner.to_owned(),
            // A literal string: its content needs escapes only in a basic string.
            None => value.replace('\\', "\\\\").replace('"', "\\\""),
        };
        text.replace(&format!("${{{name}}}"), &inner)
    })
}

/// The path in absolute form, valid from any folder.
///
/// # Errors
/// Nothing exists at that path.
pub(crate) fn absolute(path: &Path) -> Done<PathBuf> {
    path.canonicalize().map_err(|e| Failure::io(path, e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_put_into_strings() {
        let values = BTreeMap::from([("X".to_owned(), "a\"b\\c".to_owned())]);
        let text = fill("file = \"${X}/t.csv\"\n", &values);
        let table: toml::Table = toml::from_str(&text).unwrap();
        assert_eq!(table["file"].as_str(), Some("a\"b\\c/t.csv"));
    }
}
