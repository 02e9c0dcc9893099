//! `[[policy]]` tables in the JSON Schema: one alternative per policy, from the registry.

use cotenant_profiles::Nanos;
use cotenant_sim::policy::{self, Kind, OptionSpec, PolicyInfo, Value};
use serde_json::{Map, json};

use super::policy::ALL;

/// The schema of a `[[policy]]` table.
pub(super) fn table() -> serde_json::Value {
    let one = policy::ALL.iter().map(|info| alternative(info));
    let alternatives: Vec<_> = one.chain([all()]).collect();
    json!({ "oneOf": alternatives })
}

fn alternative(info: &PolicyInfo) -> serde_json::Value {
    let mut properties = Map::new();
    properties.insert("name".to_owned(), json!({ "const": info.name }));
    properties.insert("label".to_owned(), label());
    for option in info.options {
        properties.insert(option.name.to_owned(), of(option));
    }
    json!({
        "type": "object",
        "title": info.name,
        "description": info.summary,
        "properties": properties,
        "required": ["name"],
        "additionalProperties": false,
    })
}

fn label() -> serde_json::Value {
    json!({
        "type": "string",
        "minLength": 1,
        "maxLength": 60,
        "description": "What tables and figures call the row. Default: the name.",
    })
}

fn all() -> serde_json::Value {
    json!({
        "type": "object",
        "title": ALL,
        "description": "one row for each policy that no other row names; an option given here goes to \
                        the policies that have it",
        "properties": { "name": { "const": ALL } },
        "required": ["name"],
    })
}

fn of(option: &OptionSpec) -> serde_json::Value {
    let mut schema = match option.kind {
        Kind::Duration(least) => duration(least),
        Kind::Integer(low, high) => json!({ "type": "integer", "minimum": low, "maximum": high }),
        Kind::Float(low, high) if high.is_finite() => {
            json!({ "type": "number", "minimum": low, "maximum": high })
        }
        Kind::Float(low, _) => json!({ "type": "number", "minimum": low }),
        Kind::Bool => json!({ "type": "boolean" }),
        Kind::Choice(words) => json!({ "type": "string", "enum": words }),
        Kind::Text => json!({ "type": "string" }),
        Kind::Texts => json!({ "type": "array", "items": { "type": "string" } }),
        Kind::Places => json!({ "type": "object" }),
        Kind::PerTenant(words) => {
            let share = json!({ "type": "number", "exclusiveMinimum": 0, "maximum": 100 });
            json!({ "anyOf": [
                { "type": "string", "enum": words },
                { "type": "array", "items": share },
                { "type": "object", "additionalProperties": share },
            ] })
        }
    };
    let table = schema.as_object_mut().expect("every kind is a table");
    let unset = if option.unset.is_empty() {
        String::new()
    } else {
        format!(" Default: {}.", option.unset)
    };
    table.insert("description".to_owned(), json!(format!("{}.{unset}", sentence(option.help))));
    if !option.unit.is_empty() {
        table.insert("unit".to_owned(), json!(option.unit));
    }
    if let Some(default) = (option.default)() {
        table.insert("default".to_owned(), value(&default));
    }
    schema
}

fn duration(least: Nanos) -> serde_json::Value {
    match least {
        Nanos::ZERO => json!({ "type": "string", "format": "duration" }),
        least => {
            json!({ "type": "string", "format": "duration", "least": least.to_string() })
        }
    }
}

/// A line of help as a sentence without its full stop.
fn sentence(help: &str) -> String {
    let mut chars = help.trim_end_matches('.').chars();
    chars.next().map_or_else(String::new, |c| c.to_uppercase().chain(chars).collect())
}

/// An option's value as a file writes it.
pub(crate) fn value(value: &Value) -> serde_json::Value {
    match value {
        Value::Duration(d) => json!(d.to_string()),
        Value::Integer(i) => json!(i),
        Value::Float(x) => json!(x),
        Value::Bool(b) => json!(b),
        Value::Text(text) => json!(text),
        Value::Texts(texts) => json!(texts),
        Value::Numbers(numbers) => json!(numbers),
        Value::Table(table) => {
            table.iter().map(|(name, x)| (name.clone(), json!(x))).collect::<Map<_, _>>().into()
        }
    }
}
