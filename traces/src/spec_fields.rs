//! The fields of an arrival specification, taken one by one, each error naming its field.

use std::collections::BTreeMap;

use cotenant_profiles::Nanos;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::error::{TraceError, hint};
use crate::tokens::{TokenCount, Tokens};

/// The keys and values of one `arrivals = { … }` table.
#[derive(Debug)]
pub(crate) struct Fields(BTreeMap<String, Value>);

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        BTreeMap::deserialize(deserializer).map(Self)
    }
}

fn wrong(field: &str, value: &Value, expected: &str) -> TraceError {
    TraceError::spec(field, format!("`{value}` is not {expected}"))
}

impl Fields {
    /// Refuses every key that is not `kind` or one of `known`.
    pub(crate) fn only(&self, kind: &str, known: &[&str]) -> Result<(), TraceError> {
        match self.0.keys().find(|k| *k != "kind" && !known.contains(&k.as_str())) {
            None => Ok(()),
            Some(key) => {
                let hint = hint(key, known.iter().copied());
                Err(TraceError::spec(key, format!("`{kind}` has no such field{hint}")))
            }
        }
    }

    pub(crate) fn text(&mut self, field: &str) -> Result<Option<String>, TraceError> {
        match self.0.remove(field) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(wrong(field, &other, "text")),
        }
    }

    /// One of `known`.
    pub(crate) fn choice<'a>(
        &mut self,
        field: &str,
        known: &[&'a str],
    ) -> Result<Option<&'a str>, TraceError> {
        let Some(text) = self.text(field)? else { return Ok(None) };
        match known.iter().find(|k| **k == text) {
            Some(name) => Ok(Some(name)),
            None => {
                let hint = hint(&text, known.iter().copied());
                Err(TraceError::spec(field, format!("`{text}` is unknown{hint}")))
            }
        }
    }

    pub(crate) fn number(&mut self, field: &str) -> Result<Option<f64>, TraceError> {
        match self.0.remove(field) {
            None => Ok(None),
            Some(value) => match value.as_f64().filter(|x| x.is_finite()) {
                Some(number) => Ok(Some(number)),
                None => Err(wrong(field, &value, "a finite number")),
            },
        }
    }

    pub(crate) fn required(&mut self, field: &str) -> Result<f64, TraceError> {
        self.number(field)?.ok_or_else(|| TraceError::spec(field, "is missing: give a number"))
    }

    /// A required rate; its range is checked with the rest.
    pub(crate) fn rate(&mut self, field: &str) -> Result<f64, TraceError> {
        self.number(field)?
            .ok_or_else(|| TraceError::spec(field, "is missing: give requests/s, such as 120.0"))
    }

    pub(crate) fn whole(&mut self, field: &str) -> Result<Option<u64>, TraceError> {
        match self.0.remove(field) {
            None => Ok(None),
            Some(value) => match value.as_u64() {
                Some(number) => Ok(Some(number)),
                None => Err(wrong(field, &value, "a whole number")),
            },
        }
    }

    /// A whole number that fits 32 bits.
    pub(crate) fn count(&mut self, field: &str) -> Result<Option<u32>, TraceError> {
        let Some(number) = self.whole(field)? else { return Ok(None) };
        match u32::try_from(number) {
            Ok(count) => Ok(Some(count)),
            Err(_) => Err(TraceError::spec(field, format!("{number} is over 4294967295"))),
        }
    }

    pub(crate) fn flag(&mut self, field: &str) -> Result<Option<bool>, TraceError> {
        match self.0.remove(field) {
            None => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(flag)),
            Some(other) => Err(wrong(field, &other, "true or false")),
        }
    }

    pub(crate) fn duration(&mut self, field: &str) -> Result<Option<Nanos>, TraceError> {
        match self.0.remove(field) {
            None => Ok(None),
            Some(value) => duration(field, &value).map(Some),
        }
    }

    pub(crate) fn required_duration(&mut self, field: &str) -> Result<Nanos, TraceError> {
        self.duration(field)?
            .ok_or_else(|| TraceError::spec(field, "is missing: give a duration, such as `2s`"))
    }

    /// `tokens_in` and `tokens_out`, which come together.
    pub(crate) fn tokens(&mut self) -> Result<Option<Tokens>, TraceError> {
        let mut take = |field: &str| {
            self.0.remove(field).map(|value| TokenCount::parse(field, &value)).transpose()
        };
        match (take("tokens_in")?, take("tokens_out")?) {
            (None, None) => Ok(None),
            (Some(tokens_in), Some(tokens_out)) => Ok(Some(Tokens { tokens_in, tokens_out })),
            (None, _) => Err(TraceError::spec("tokens_in", "is missing beside `tokens_out`")),
            (_, None) => Err(TraceError::spec("tokens_out", "is missing beside `tokens_in`")),
        }
    }

    fn list(&mut self, field: &str, of: &str) -> Result<Vec<Value>, TraceError> {
        match self.0.remove(field) {
            None => Err(TraceError::spec(field, format!("is missing: give a list of {of}"))),
            Some(Value::Array(values)) => Ok(values),
            Some(other) => Err(wrong(field, &other, &format!("a list of {of}"))),
        }
    }

    pub(crate) fn numbers(&mut self, field: &str) -> Result<Vec<f64>, TraceError> {
        let values = self.list(field, "numbers")?;
        values
            .iter()
            .map(|v| v.as_f64().ok_or_else(|| wrong(field, v, "a finite number")))
            .collect()
    }

    pub(crate) fn durations(&mut self, field: &str) -> Result<Vec<Nanos>, TraceError> {
        let values = self.list(field, "durations")?;
        values.iter().map(|v| duration(field, v)).collect()
    }

    pub(crate) fn texts(&mut self, field: &str) -> Result<Vec<String>, TraceError> {
        if !self.0.contains_key(field) {
            return Ok(Vec::new());
        }
        let text = |v: Value| match v {
            Value::String(text) => Ok(text),
            other => Err(wrong(field, &other, "text")),
        };
        self.list(field, "texts")?.into_iter().map(text).collect()
    }

    /// Pairs of a time and a rate: `[["0s", 10.0], ["60s", 50.0]]`.
    pub(crate) fn points(&mut self, field: &str) -> Result<Vec<(Nanos, f64)>, TraceError> {
        let values = self.list(field, "[time, rate] pairs")?;
        let point = |v: &Value| match v.as_array().map(Vec::as_slice) {
            Some([at, rate]) if rate.as_f64().is_some() => {
                Ok((duration(field, at)?, rate.as_f64().unwrap_or(0.0)))
            }
            _ => Err(wrong(field, v, "a pair such as [\"60s\", 50.0]")),
        };
        values.iter().map(point).collect()
    }
}

fn duration(field: &str, value: &Value) -> Result<Nanos, TraceError> {
    match value {
        Value::String(text) => text.parse().map_err(|e| TraceError::spec(field, format!("{e}"))),
        other => Err(wrong(field, other, "a duration, such as \"250us\", \"3ms\" or \"1.5s\"")),
    }
}
