//! What the program says of itself: `cotenant schema`, `completions`, `man`.

use std::fmt::Write as _;

use clap::CommandFactory;
use serde_json::{Map, Value};

use crate::config;
use crate::fail::Done;
use crate::say;

/// `cotenant schema`: JSON Schema of experiment files, or the same as a page to read.
///
/// # Errors
/// Nobody reads the output any more.
pub(crate) fn schema(markdown: bool) -> Done {
    let schema = config::schema();
    if markdown {
        return say::out(&Page { root: &schema }.text());
    }
    say::out(&format!("{schema:#}\n"))
}

/// `cotenant completions SHELL`.
///
/// # Errors
/// As [`schema`].
pub(crate) fn completions<C: CommandFactory>(shell: clap_complete::Shell) -> Done {
    let mut text = vec![];
    clap_complete::generate(shell, &mut C::command(), "cotenant", &mut text);
    say::out(&String::from_utf8_lossy(&text))
}

/// `cotenant man`: one page for the program and all its commands.
///
/// # Errors
/// As [`schema`].
pub(crate) fn man<C: CommandFactory>() -> Done {
    let mut text = vec![];
    let mut command = C::command();
    command.build();
    let written = page(&command, &mut text);
    written.map_err(crate::fail::Failure::failed)?;
    say::out(&String::from_utf8_lossy(&text))
}

fn page(command: &clap::Command, text: &mut Vec<u8>) -> std::io::Result<()> {
    clap_mangen::Man::new(command.clone()).render(text)?;
    for sub in command.get_subcommands().filter(|s| !s.is_hide_set() && s.get_name() != "help") {
        page(sub, text)?;
    }
    Ok(())
}

/// The experiment file as a page of Markdown.
struct Page<'a> {
    root: &'a Value,
}

const INTRO: &str = "\
# Experiment file

Made by `cotenant schema --markdown` from the declarations that the program reads files with; a test
holds this page against them. `cotenant schema` prints the same as JSON Schema: editors with a TOML
language server (Taplo, Even Better TOML) complete and check experiment files with it, from a first
line `#:schema ./experiment.schema.json`. `cotenant init` writes a commented file to begin with.

Unknown keys are refused, with the closest known name. Durations are texts with a unit: `\"250us\"`,
`\"3ms\"`, `\"1.5s\"`, `\"2min\"`. Paths are relative to the experiment file; `${NAME}` in a path is an
environment variable. Any field can be replaced on the command line, `--set tenant.vision.workers=2`,
and varied in `[sweep]`.
";

impl Page<'_> {
    fn text(&self) -> String {
        let mut out = INTRO.to_owned();
        let root = self.object(self.root);
        out += "\n## Top level\n\n";
        self.table(&root, &["tenant", "policy", "plot", "sweep"], &mut out);
        out += "\n## `[[tenant]]`\n\n";
        let tenant = self.defined("Tenant");
        self.table(&tenant, &[], &mut out);
        for key in ["slo", "batch", "tune", "engine"] {
            for (i, alternative) in self.tables(&self.property(&tenant, key)).iter().enumerate() {
                if i == 0 {
                    let _ = writeln!(out, "\n### `{key}` of a tenant");
                }
                let _ = writeln!(out, "\n{}\n", first_line(alternative));
                self.table(alternative, &[], &mut out);
            }
        }
        out += "\n## `arrivals` of a tenant\n";
        self.alternatives(&self.defined("Arrivals"), "kind", &mut out);
        out += "\n## `profiles`\n\nA folder, or a table that reads another tool's measurement:\n\n";
        let profiles = self.object(&self.property(&root, "profiles")["items"]);
        for alternative in self.tables(&Value::Object(profiles)) {
            self.table(&alternative, &[], &mut out);
        }
        out += "\n## `[[policy]]`\n\n`name` says which policy, `label` what tables and figures call \
                the row. The rest depends on the policy.\n";
        self.alternatives(&self.defined("Policy"), "name", &mut out);
        let _ = writeln!(out, "\n## `[sweep]`\n\n{}", description(&self.property(&root, "sweep")));
        out += "\n```toml\n[sweep]\n\"tenant.vision.arrivals.rate\" = [60, 120, 240]\n\
                \"policy.*.tolerance\" = [0.0, 0.05]\n\
                \"tenant.text.model, tenant.text.slo\" = [[\"alexnet\", \"10ms\"], [\"vgg19\", \"50ms\"]]\n\
                ```\n";
        out += "\n## `[[plot]]`\n\n";
        self.table(&self.defined("Plot"), &[], &mut out);
        out
    }

    fn object(&self, schema: &Value) -> Map<String, Value> {
        let mut own = schema.as_object().cloned().unwrap_or_default();
        let Some(Value::String(to)) = own.remove("$ref") else { return own };
        let target =
            to.strip_prefix('#').and_then(|p| self.root.pointer(p)).unwrap_or(&Value::Null);
        let mut merged = self.object(target);
        for (key, value) in own {
            match (merged.get_mut(&key), value) {
                (Some(Value::Object(known)), Value::Object(more)) => known.extend(more),
                (_, value) => drop(merged.insert(key, value)),
            }
        }
        merged
    }

    fn defined(&self, name: &str) -> Map<String, Value> {
        self.object(&self.root["$defs"][name])
    }

    fn property(&self, of: &Map<String, Value>, key: &str) -> Value {
        Value::Object(self.object(&of["properties"][key]))
    }

    /// The alternatives of a schema, one level deep, without `null`.
    fn choices(&self, schema: &Value) -> Vec<Map<String, Value>> {
        let list = schema.get("anyOf").or_else(|| schema.get("oneOf")).and_then(Value::as_array);
        let all = list.into_iter().flatten().map(|c| self.object(c));
        all.filter(|c| c.get("type").and_then(Value::as_str) != Some("null")).collect()
    }

    /// Those of them that are tables; the schema itself where there is no choice.
    fn tables(&self, schema: &Value) -> Vec<Map<String, Value>> {
        let choices = self.choices(schema);
        let one = schema.as_object().filter(|s| s.contains_key("properties")).cloned();
        let nested = choices.into_iter().flat_map(|c| self.tables(&Value::Object(c)));
        one.into_iter().chain(nested).collect()
    }

    fn alternatives(&self, schema: &Map<String, Value>, tag: &str, out: &mut String) {
        for alternative in self.choices(&Value::Object(schema.clone())) {
            let name = alternative["properties"][tag]["const"].as_str().unwrap_or_default();
            let _ = writeln!(out, "\n### `{tag} = \"{name}\"`\n\n{}\n", first_line(&alternative));
            self.table(&alternative, &[tag, "label"], out);
        }
    }

    /// A table of keys; nothing where there are none.
    fn table(&self, schema: &Map<String, Value>, except: &[&str], out: &mut String) {
        let properties = schema.get("properties").and_then(Value::as_object);
        let required = schema.get("required").and_then(Value::as_array);
        let required: Vec<&str> =
            required.into_iter().flatten().filter_map(Value::as_str).collect();
        let keys = properties.into_iter().flatten().filter(|(k, _)| !except.contains(&k.as_str()));
        let rows: Vec<String> = keys
            .map(|(key, of)| {
                let of = Value::Object(self.object(of));
                let default = match &of["default"] {
                    Value::Null if required.contains(&key.as_str()) => "**required**".to_owned(),
                    Value::Null => String::new(),
                    value if value.as_array().is_some_and(Vec::is_empty) => String::new(),
                    value => format!("`{}`", config::toml_text(value)),
                };
                let example = of["examples"].get(0).map(config::toml_text);
                let example = example.map_or_else(String::new, |e| format!("`{key} = {e}`"));
                format!(
                    "| `{key}` | {}{} | {default} | {} | {} |\n",
                    self.kind(&of),
                    of["unit"].as_str().map_or_else(String::new, |u| format!(", {u}")),
                    description(&of),
                    example.replace('|', "\\|"),
                )
            })
            .collect();
        if !rows.is_empty() {
            *out += "| key | type | default | meaning | example |\n|---|---|---|---|---|\n";
            out.extend(rows);
        }
    }

    /// What a value may be, in words.
    fn kind(&self, schema: &Value) -> String {
        let choices = self.choices(schema);
        let constants: Option<Vec<&str>> =
            choices.iter().map(|c| c.get("const").and_then(Value::as_str)).collect();
        let listed = schema["enum"].as_array();
        let listed = listed.map(|l| l.iter().filter_map(Value::as_str).collect::<Vec<_>>());
        if let Some(words) = listed.or(constants.filter(|c| !c.is_empty())) {
            let quoted: Vec<String> = words.iter().map(|w| format!("`{w}`")).collect();
            return quoted.join(", ");
        }
        if !choices.is_empty() {
            let mut kinds: Vec<String> =
                choices.into_iter().map(|c| self.kind(&Value::Object(c))).collect();
            kinds.dedup();
            return kinds.join(" or ");
        }
        if schema["format"] == "duration" {
            return duration(schema);
        }
        let kind = match &schema["type"] {
            Value::Array(types) => types.iter().filter_map(Value::as_str).find(|t| *t != "null"),
            other => other.as_str(),
        };
        match kind.unwrap_or_default() {
            "integer" => format!("whole number{}", range(schema)),
            "number" => format!("number{}", range(schema)),
            "boolean" => "`true` or `false`".to_owned(),
            "array" => format!(
                "list of {}",
                plural(&self.kind(&Value::Object(self.object(&schema["items"]))))
            ),
            "object" => "table".to_owned(),
            "string" => "text".to_owned(),
            _ => "value".to_owned(),
        }
    }
}

fn plural(kind: &str) -> String {
    match kind {
        "text" | "number" | "duration" | "table" | "value" => format!("{kind}s"),
        other => other.replacen("number", "numbers", 1).replacen("text", "texts", 1),
    }
}

fn duration(schema: &Value) -> String {
    match (schema["least"].as_str(), schema["most"].as_str()) {
        (Some("1ns"), None) => "duration above 0".to_owned(),
        (Some(least), None) => format!("duration, at least {least}"),
        (None, Some(most)) => format!("duration, at most {most}"),
        (Some(least), Some(most)) => format!("duration, {least} to {most}"),
        (None, None) => "duration".to_owned(),
    }
}

fn range(schema: &Value) -> String {
    let number = |key: &str| schema[key].as_f64();
    let high = number("maximum").filter(|h| *h < u32::MAX.into());
    match (number("minimum"), number("exclusiveMinimum"), high) {
        (Some(low), _, Some(high)) => format!(", {low} to {high}"),
        (Some(low), _, None) => format!(", at least {low}"),
        (None, Some(low), Some(high)) => format!(", above {low}, at most {high}"),
        (None, Some(low), None) => format!(", above {low}"),
        (None, None, Some(high)) => format!(", at most {high}"),
        (None, None, None) => String::new(),
    }
}

fn description(schema: &Value) -> String {
    let text = schema["description"].as_str().unwrap_or_default();
    text.replace('\n', " ").replace('|', "\\|")
}

/// The description of a table as a sentence of its own.
fn first_line(schema: &Map<String, Value>) -> String {
    let text = description(&Value::Object(schema.clone()));
    let text = text.trim_end_matches('.');
    let mut chars = text.chars();
    let first = chars.next().map(|c| c.to_uppercase().to_string());
    format!("{}{}.", first.unwrap_or_default(), chars.as_str())
}
