//! The numbers of one row of `results.csv`, and how numbers are written.

use cotenant_results::Metric;
use cotenant_results::columns::METRICS;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The numeric columns of one row; missing values are empty.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Metrics([Option<f64>; METRICS.len()]);

impl Default for Metrics {
    fn default() -> Self {
        Self([None; METRICS.len()])
    }
}

impl Metrics {
    /// Sets a metric.
    pub(crate) fn set(&mut self, metric: Metric, value: Option<f64>) {
        self.0[metric as usize] = value;
    }

    /// A metric's value.
    pub(crate) fn get(&self, metric: Metric) -> Option<f64> {
        self.0[metric as usize]
    }

    /// All values, in the order of the columns.
    pub(crate) fn values(&self) -> &[Option<f64>] {
        &self.0
    }
}

/// By name, without missing values.
impl Serialize for Metrics {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let named = METRICS.iter().zip(&self.0).filter_map(|(m, v)| Some((m.name, (*v)?)));
        serializer.collect_map(named.filter(|(_, v)| v.is_finite()))
    }
}

impl<'de> Deserialize<'de> for Metrics {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let named = std::collections::BTreeMap::<String, f64>::deserialize(deserializer)?;
        let mut metrics = Self::default();
        for (name, value) in named {
            let at = METRICS.iter().position(|m| m.name == name);
            metrics.0[at.ok_or_else(|| D::Error::custom("no such metric"))?] = Some(value);
        }
        Ok(metrics)
    }
}

/// The shortest decimal that reads back as the same number; empty if there is none.
pub(crate) fn number(value: Option<f64>) -> String {
    match value {
        Some(x) if x.is_finite() => format!("{}", x + 0.0), // + 0.0: no minus before a zero
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short_and_read_back() {
        assert_eq!(number(Some(0.1)), "0.1");
        assert_eq!(number(Some(-0.0)), "0");
        assert_eq!(number(Some(12.0)), "12");
        assert_eq!(number(Some(1e-7)), "0.0000001");
        assert_eq!(number(None), "");
        assert_eq!(number(Some(f64::NAN)), "");
    }
}
