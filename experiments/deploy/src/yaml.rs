//! YAML: what all its formats share, and the documents of a Kubernetes file one by one.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_yaml_ng::{Deserializer, Value};

use crate::finding::ReadError;
use crate::found::Found;
use crate::{dra, kubernetes};

/// A value as YAML.
pub(crate) fn text<T: Serialize>(value: &T) -> Result<String, String> {
    serde_yaml_ng::to_string(value).map_err(|e| e.to_string())
}

/// A file of one document.
pub(crate) fn typed<T: DeserializeOwned>(path: &str, text: &str) -> Result<T, ReadError> {
    serde_yaml_ng::from_str(text).map_err(|e| error(path, &e))
}

fn error(path: &str, e: &serde_yaml_ng::Error) -> ReadError {
    let line = e.location().map(|l| l.line());
    ReadError::new(path, line, "", e.to_string())
}

pub(crate) fn recognises(path: &str, text: &str) -> bool {
    let named = [".yaml", ".yml", ".json"].iter().any(|end| path.ends_with(end));
    named || text.lines().any(|l| l.starts_with("apiVersion:"))
}

/// Reads every document of a Kubernetes file.
pub(crate) fn read(path: &str, text: &str, found: &mut Found) -> Result<(), ReadError> {
    let mut documents = vec![];
    for document in Deserializer::from_str(text) {
        let value = Value::deserialize(document).map_err(|e| error(path, &e))?;
        documents.push(value);
    }
    let mut known = 0;
    // Claims first: pods refer to them.
    let claims = dra::claims(path, text, &documents, found)?;
    for document in documents.iter().filter(|d| !d.is_null()) {
        known += usize::from(kubernetes::read(path, text, document, &claims, found)?);
    }
    if known == 0 && claims.is_empty() {
        let what = "holds neither a workload with a container nor a claim of NVIDIA's DRA driver, nor \
                    is it of mig-parted or the device plugin";
        return Err(ReadError::new(path, None, "", what));
    }
    Ok(())
}

/// The value at a path of keys.
pub(crate) fn at<'a>(value: &'a Value, keys: &[&str]) -> Option<&'a Value> {
    keys.iter().try_fold(value, |v, key| v.get(*key))
}

/// The text at a path of keys; numbers and truth values as they are written.
pub(crate) fn word(value: &Value, keys: &[&str]) -> Option<String> {
    scalar(at(value, keys)?)
}

/// A scalar as text.
pub(crate) fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(s) => Some(s.clone()),
        Value::Number(n) => Some(n.to_string()),
        Value::Bool(b) => Some(b.to_string()),
        _ => None,
    }
}

/// The list at a path of keys; nothing where there is none.
pub(crate) fn list<'a>(value: &'a Value, keys: &[&str]) -> &'a [Value] {
    at(value, keys).and_then(Value::as_sequence).map_or(&[], Vec::as_slice)
}
