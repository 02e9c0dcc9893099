//! The cells of an experiment: policies × sweep × repeats, each identified by its meaning.
//!
//! A cell's name, seed and rows depend only on the cell: not on the order of computation, the number of
//! threads, the machine, or the other cells.

use std::collections::BTreeMap;

use cotenant_sim::policy::{Options, Value};
use serde_json::json;

use crate::config::{Experiment, Point};
use crate::digest;

/// One cell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cell {
    /// Its name: the label, for readers, and a digest of its meaning.
    pub(crate) id: String,
    /// Index into the policies of the point.
    pub(crate) policy: usize,
    /// Counts from 0.
    pub(crate) repeat: usize,
    /// Seed of all random draws.
    pub(crate) seed: u64,
    /// Digest of what is computed. Two cells share it if a sweep key does not concern the cells' policy: they
    /// are computed once, and both get their rows.
    pub(crate) work: String,
}

/// The cells of one point, in the order of `results.csv`: by policy, then repeat.
pub(crate) fn cells_of(e: &Experiment, meaning: &str) -> impl Iterator<Item = Cell> {
    let cells = e.point.policies.len() * e.seeds.len();
    (0..cells).map(move |number| cell(e, meaning, number))
}

/// The cell of [`cells_of`] with this number.
pub(crate) fn cell(e: &Experiment, meaning: &str, number: usize) -> Cell {
    let Point { policies, values, .. } = &e.point;
    let swept: Vec<String> = e.keys.iter().zip(values).map(|(k, v)| format!("{k}={v}")).collect();
    let (policy, repeat) = (number / e.seeds.len(), number % e.seeds.len());
    let (row, seed) = (&policies[policy], e.seeds[repeat]);
    let work = digest::of_text(&format!(
        "cotenant {}\n{meaning}policy {} {}\nseed {seed}\n",
        env!("CARGO_PKG_VERSION"),
        row.info.name,
        canonical(&row.options),
    ));
    let whole = digest::of_text(&format!("{work} {} {repeat} {}", row.label, swept.join("\n")));
    let id = format!("{}-{}", slug(&row.label), &whole[..12]);
    Cell { id, policy, repeat, seed, work }
}

/// Options as JSON with sorted keys, durations in ns: the same text for the same options, regardless of their
/// order in the file and of their names in Rust.
fn canonical(options: &Options) -> String {
    let value = |v: &Value| match v {
        Value::Duration(d) => json!({ "ns": d.0 }),
        Value::Integer(i) => json!(i),
        Value::Float(x) => json!(x),
        Value::Bool(b) => json!(b),
        Value::Text(text) => json!(text),
        Value::Texts(texts) => json!(texts),
        Value::Numbers(numbers) => json!(numbers),
        Value::Table(table) => json!(table),
    };
    let sorted: BTreeMap<&str, serde_json::Value> =
        options.0.iter().map(|(name, v)| (name.as_str(), value(v))).collect();
    json!(sorted).to_string()
}

/// Digest of the experiment and everything it refers to.
pub(crate) fn digest<'a>(name: &str, cells: impl Iterator<Item = &'a str>) -> String {
    let mut digest = digest::Running::default();
    digest.add(name.as_bytes());
    for cell in cells {
        digest.add(b"\n");
        digest.add(cell.as_bytes());
    }
    digest.add(b"\n");
    digest.finish()
}

/// A label in a form that fits in a file name.
fn slug(label: &str) -> String {
    let mut slug = String::new();
    for c in label.chars().flat_map(char::to_lowercase).take(32) {
        if c.is_ascii_alphanumeric() {
            slug.push(c);
        } else if !slug.ends_with('-') && !slug.is_empty() {
            slug.push('-');
        }
    }
    let slug = slug.trim_matches('-');
    if slug.is_empty() { "cell".to_owned() } else { slug.to_owned() }
}

#[cfg(test)]
mod tests {
    use cotenant_profiles::Nanos;

    use super::*;

    #[test]
    fn options_have_one_text() {
        let options = Options(vec![
            ("quantum".to_owned(), Value::Duration(Nanos::from_millis(2))),
            ("make_way".to_owned(), Value::Bool(true)),
        ]);
        assert_eq!(canonical(&options), r#"{"make_way":true,"quantum":{"ns":2000000}}"#);
    }

    #[test]
    fn a_slug_is_a_file_name() {
        assert_eq!(slug("KRISP-I (2×)"), "krisp-i-2");
        assert_eq!(slug("../../etc"), "etc");
        assert_eq!(slug("×"), "cell");
    }
}
