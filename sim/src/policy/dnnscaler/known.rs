//! Latency rows of other models, as the option `known` writes them.

use crate::policy::{Kind, OptionType, Value};

/// One model's latencies.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Known {
    pub(super) model: String,
    /// Latencies with 1, 2, … instances, ms.
    pub(super) ms: Vec<f64>,
}

/// Rows of different models.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Rows(pub(super) Vec<Known>);

impl OptionType for Rows {
    const KIND: Kind = Kind::Texts;

    fn read(value: &Value) -> Result<Self, String> {
        match value {
            Value::Texts(texts) => parse(texts).map(Self),
            other => Err(format!("{other} is not a list")),
        }
    }

    fn value(&self) -> Option<Value> {
        let row = |k: &Known| {
            let ms: Vec<String> = k.ms.iter().map(f64::to_string).collect();
            format!("{}: {}", k.model, ms.join(" "))
        };
        (!self.0.is_empty()).then(|| Value::Texts(self.0.iter().map(row).collect()))
    }
}

impl Rows {
    /// Checks that each row has `n` latencies.
    pub(super) fn check(&self, n: u32) -> Result<(), String> {
        match self.0.iter().find(|k| k.ms.len() != n as usize) {
            Some(Known { model, ms }) => {
                Err(format!("`{model}` has {} latencies; max_instances is {n}", ms.len()))
            }
            None => Ok(()),
        }
    }
}

/// Reads rows of latencies: `"inception_v1: 10.0 10.7 14.3"`.
fn parse(texts: &[String]) -> Result<Vec<Known>, String> {
    let mut rows: Vec<Known> = vec![];
    for text in texts {
        let wrong = |why: String| format!("`{text}` {why}");
        let Some((model, numbers)) = text.split_once(':') else {
            return Err(wrong("names no model; write \"inception_v1: 10.0 10.7 …\"".to_owned()));
        };
        let ms: Option<Vec<f64>> = numbers.split_whitespace().map(number).collect();
        let Some(ms) = ms else {
            return Err(wrong("holds something that is not a latency in ms above 0".to_owned()));
        };
        let model = model.trim().to_owned();
        if rows.iter().any(|r| r.model == model) {
            return Err(wrong("names a model that another row names too".to_owned()));
        }
        rows.push(Known { model, ms });
    }
    Ok(rows)
}

fn number(text: &str) -> Option<f64> {
    text.parse().ok().filter(|ms: &f64| ms.is_finite() && *ms > 0.0 && *ms <= 3.6e6)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(texts: &[&str]) -> Result<Vec<Known>, String> {
        let texts: Vec<String> = texts.iter().map(|&t| t.to_owned()).collect();
        let rows = Rows(parse(&texts)?);
        rows.check(3).map(|()| rows.0)
    }

    #[test]
    fn rows_are_a_name_and_latencies() {
        let rows = read(&["a: 1 2.5 4e0", " b :3 3 3"]).unwrap();
        assert_eq!(rows[0], Known { model: "a".to_owned(), ms: vec![1.0, 2.5, 4.0] });
        assert_eq!(rows[1].model, "b");
    }

    #[test]
    fn what_does_not_read_is_said() {
        let message = |texts: &[&str]| read(texts).unwrap_err();
        assert!(message(&["1 2 3"]).contains("names no model"));
        assert!(message(&["a: 1 2"]).contains("has 2 latencies; max_instances is 3"));
        for bad in ["a: 1 2 x", "a: 1 2 -3", "a: 1 2 0", "a: 1 2 NaN", "a: 1 2 inf"] {
            assert!(message(&[bad]).contains("is not a latency in ms above 0"), "{bad}");
        }
        assert!(message(&["a: 1 2 3", "a: 1 2 3"]).contains("another row names too"));
    }
}
