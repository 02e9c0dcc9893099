//! YAML: what all its formats share.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_yaml_ng::{Deserializer, Value};

use crate::finding::ReadError;

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

/// The documents of a file.
pub(crate) fn documents(path: &str, text: &str) -> Result<Vec<Value>, ReadError> {
    let one = |document| Value::deserialize(document).map_err(|e| error(path, &e));
    Deserializer::from_str(text).map(one).collect()
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
