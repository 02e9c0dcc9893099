//! `[sweep]`: which fields vary together, and over which values.
//!
//! Axes multiply. A key names one field, or several that change together, separated by commas; its
//! values are then lists with one value per field:
//! `"tenant.job.model, tenant.job.slo" = [["alexnet", "10ms"], ["vgg19", "50ms"]]`.

use cotenant_profiles::{Bytes, Nanos};

use super::fields;
use super::path;
use super::tree::{self, Data, Entry, Flaw, Node, Place};

/// Most combinations of sweep values: a typo should not fill the memory.
const MAX_POINTS: usize = 100_000;

/// Fields that vary together.
pub(super) struct Axis {
    /// The fields' paths.
    pub(super) fields: Vec<String>,
    /// Their values, one list per step.
    steps: Vec<Vec<Node>>,
    /// The key as written, and where.
    key: String,
    place: Place,
}

/// The fields that a sweep key names.
pub(super) fn fields_of(key: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut quote = None;
    for c in key.chars() {
        match (quote, c) {
            (None, ',') => parts.push(String::new()),
            (_, c) => {
                quote = match (quote, c) {
                    (None, '"' | '\'') => Some(c),
                    (Some(q), c) if c == q => None,
                    (quote, _) => quote,
                };
                parts.last_mut().expect("never empty").push(c);
            }
        }
    }
    parts.iter().map(|p| p.trim().to_owned()).collect()
}

/// The axes of a `[sweep]` table; the fields in `unswept` are the same in all cells.
pub(super) fn axes(table: &Node, unswept: &[&str]) -> Result<Vec<Axis>, Flaw> {
    let mut flat = vec![];
    flatten(table, "", &mut flat)?;
    let mut axes: Vec<Axis> = vec![];
    for entry in &flat {
        let axis = axis(entry)?;
        let flaw = |why: String| Err(Flaw::new(&entry.place, format!("sweep.{}", entry.key), why));
        for (i, field) in axis.fields.iter().enumerate() {
            if unswept.contains(&field.as_str()) {
                let all = unswept.join(", ");
                return flaw(format!("cannot be swept: {all} are the same in all cells"));
            }
            let same = |other: &String| path::segments(other) == path::segments(field);
            let before = axes.iter().flat_map(|a| &a.fields).chain(&axis.fields[..i]);
            if before.into_iter().any(same) {
                return flaw(format!("sweeps {field}, which is swept already"));
            }
        }
        axes.push(axis);
    }
    Ok(axes)
}

fn axis(entry: &Entry) -> Result<Axis, Flaw> {
    let fields = fields_of(&entry.key);
    let Data::List(values) = &entry.node.data else { unreachable!("flattened to lists") };
    let step = |value: &Node| match &value.data {
        _ if fields.len() == 1 => Ok(vec![value.clone()]),
        Data::List(several) if several.len() == fields.len() => Ok(several.clone()),
        _ => {
            let why = format!(
                "`{}` is not a list of {} values, one for each of {}",
                value.toml(),
                fields.len(),
                fields.join(", ")
            );
            Err(Flaw::new(&value.place, format!("sweep.{}", entry.key), why))
        }
    };
    let steps: Vec<Vec<Node>> = values.iter().map(step).collect::<Result<_, _>>()?;
    let mut seen: Vec<Vec<String>> = vec![];
    for (step, value) in steps.iter().zip(values) {
        let meaning: Vec<String> = step.iter().map(meaning).collect();
        if let Some(first) = seen.iter().position(|other| *other == meaning) {
            let why = format!(
                "`{}` is there already, as `{}`: the same cells twice",
                value.toml(),
                values[first].toml()
            );
            return Err(Flaw::new(&value.place, format!("sweep.{}", entry.key), why));
        }
        seen.push(meaning);
    }
    Ok(Axis { steps, key: entry.key.clone(), place: entry.place.clone(), fields })
}

/// What a value says, however it is written: `100` and `100.0`, `"50ms"` and `"50000us"`.
fn meaning(value: &Node) -> String {
    match &value.data {
        Data::Integer(i) => (*i as f64).to_string(),
        Data::Float(x) => x.to_string(),
        Data::Bool(b) => b.to_string(),
        Data::Text(text) => {
            let duration = text.parse::<Nanos>().map(|ns| format!("{} ns", ns.0));
            let size = || text.parse::<Bytes>().map(|b| format!("{} B", b.0));
            duration.or_else(|_| size()).unwrap_or_else(|_| format!("text {text}"))
        }
        Data::List(list) => list.iter().map(|v| meaning(v) + ",").collect(),
        Data::Table(entries) => {
            let mut parts: Vec<String> =
                entries.iter().map(|e| format!("{}={},", e.key, meaning(&e.node))).collect();
            parts.sort();
            parts.concat()
        }
    }
}

/// Keys may be written with quotes or as TOML's own dotted keys.
fn flatten(node: &Node, path: &str, flat: &mut Vec<Entry>) -> Result<(), Flaw> {
    for entry in fields::table(node, "sweep")? {
        let key = tree::join(path, &entry.key);
        let field = format!("sweep.{key}");
        match &entry.node.data {
            Data::Table(_) => flatten(&entry.node, &key, flat)?,
            Data::List(list) if list.is_empty() => {
                return Err(Flaw::new(&entry.node.place, field, "is empty; give values"));
            }
            Data::List(_) => flat.push(Entry { key, ..entry.clone() }),
            _ => {
                let why = format!("`{}` is not a list; write [60, 120]", entry.node.toml());
                return Err(Flaw::new(&entry.node.place, field, why));
            }
        }
    }
    Ok(())
}

/// How many combinations of steps there are.
pub(super) fn count(axes: &[Axis]) -> Result<usize, Flaw> {
    let mut all: usize = 1;
    for axis in axes {
        all = all.saturating_mul(axis.steps.len());
        if all > MAX_POINTS {
            let why = format!("makes more than {MAX_POINTS} combinations");
            return Err(Flaw::new(&axis.place, format!("sweep.{}", axis.key), why));
        }
    }
    Ok(all)
}

/// One combination of steps, the last axis fastest: the values of all fields, in their order.
pub(super) fn combination(axes: &[Axis], index: usize) -> Vec<Node> {
    let mut rest = index;
    let mut steps: Vec<&[Node]> = vec![];
    for axis in axes.iter().rev() {
        steps.push(&axis.steps[rest % axis.steps.len()]);
        rest /= axis.steps.len();
    }
    steps.iter().rev().flat_map(|step| step.iter().cloned()).collect()
}

#[cfg(test)]
mod tests {
    use super::fields_of;

    #[test]
    fn commas_separate_fields_outside_quotes() {
        assert_eq!(fields_of("device"), ["device"]);
        assert_eq!(fields_of("tenant.a.model , tenant.a.slo"), ["tenant.a.model", "tenant.a.slo"]);
        assert_eq!(
            fields_of("policy.\"a, b\".quantum, costs"),
            ["policy.\"a, b\".quantum", "costs"]
        );
    }
}
