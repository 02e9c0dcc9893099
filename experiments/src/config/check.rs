//! Checks a table of an experiment file against its JSON Schema: keys, types, ranges, words. All that
//! is wrong is found, not the first thing alone, and each flaw knows its line.

use std::borrow::Cow;

use cotenant_profiles::Nanos;
use cotenant_profiles::text::closest;
use serde_json::{Map, Value};

use super::fields::{duration, no_such};
use super::tree::{Data, Entry, Flaw, Node, join};
use crate::fail::did_you_mean;

/// A schema without references, but for those of definitions that contain themselves.
pub(crate) struct Checker {
    root: Value,
}

/// A schema's keywords.
type Keywords<'a> = Cow<'a, Map<String, Value>>;

impl Checker {
    pub(crate) fn new(schema: schemars::Schema) -> Self {
        let given = Self { root: schema.to_value() };
        let mut root = given.inlined(&given.root, &mut vec![]);
        if let (Value::Object(root), Some(definitions)) = (&mut root, given.root.get("$defs")) {
            root.insert("$defs".to_owned(), definitions.clone());
        }
        Self { root }
    }

    /// The keys that a table may have.
    pub(crate) fn keys(&self) -> Vec<String> {
        let schema = self.resolve(&self.root);
        let properties = schema.get("properties").and_then(Value::as_object);
        properties.into_iter().flatten().map(|(key, _)| key.clone()).collect()
    }

    /// Unit of the plain numbers at a path; none where they have none, or there is no such field.
    pub(crate) fn unit(&self, path: &[&str]) -> Option<String> {
        self.unit_in(&self.resolve(&self.root), path)
    }

    fn unit_in(&self, schema: &Map<String, Value>, path: &[&str]) -> Option<String> {
        let Some((key, rest)) = path.split_first() else {
            return schema.get("unit").and_then(Value::as_str).map(str::to_owned);
        };
        let own = schema.get("properties").and_then(|p| p.get(key));
        let own = own.and_then(|field| self.unit_in(&self.resolve(field), rest));
        own.or_else(|| self.branches(schema).iter().find_map(|b| self.unit_in(b, path)))
    }

    /// Checks a table; keys in `except` are known, and looked at elsewhere.
    pub(crate) fn check(&self, node: &Node, path: &str, except: &[&str], flaws: &mut Vec<Flaw>) {
        let schema = self.resolve(&self.root);
        self.object(node, &schema, path, except, flaws);
    }

    /// A schema with what its parts refer to in their places, but for what is `open`: what contains itself.
    fn inlined(&self, schema: &Value, open: &mut Vec<String>) -> Value {
        let all = match schema {
            Value::Array(list) => return list.iter().map(|v| self.inlined(v, open)).collect(),
            Value::Object(keywords) => keywords,
            other => return other.clone(),
        };
        let to = all.get("$ref").and_then(Value::as_str);
        if to.is_some_and(|to| open.iter().any(|o| o == to)) {
            return schema.clone();
        }
        let keywords = if to.is_some() { self.resolve(schema) } else { Cow::Borrowed(all) };
        let depth = open.len();
        open.extend(to.map(str::to_owned));
        let parts = keywords.iter().filter(|(key, _)| *key != "$defs");
        let whole = parts.map(|(key, part)| (key.clone(), self.inlined(part, open))).collect();
        open.truncate(depth);
        Value::Object(whole)
    }

    /// A schema without references: what it refers to is put beside its own keywords.
    fn resolve<'s>(&'s self, schema: &'s Value) -> Keywords<'s> {
        let Some(all) = schema.as_object() else { return Cow::Owned(Map::new()) };
        let Some(Value::String(to)) = all.get("$ref") else { return Cow::Borrowed(all) };
        let mut own = all.clone();
        own.remove("$ref");
        let target = to.strip_prefix('#').and_then(|pointer| self.root.pointer(pointer));
        let mut merged = target.map_or_else(Map::new, |t| self.resolve(t).into_owned());
        for (key, value) in own {
            match (merged.get_mut(&key), value) {
                (Some(Value::Object(known)), Value::Object(more)) => known.extend(more),
                (Some(Value::Array(known)), Value::Array(more)) => known.extend(more),
                (_, value) => {
                    merged.insert(key, value);
                }
            }
        }
        Cow::Owned(merged)
    }

    /// The alternatives of a schema, `null` left out; none where there is no choice.
    fn branches<'s>(&'s self, schema: &'s Map<String, Value>) -> Vec<Keywords<'s>> {
        let any = schema.get("anyOf").or_else(|| schema.get("oneOf")).and_then(Value::as_array);
        let all = any.into_iter().flatten().map(|branch| self.resolve(branch));
        all.filter(|b| b.get("type").and_then(Value::as_str) != Some("null"))
            .flat_map(|b| {
                let inner: Vec<Keywords<'s>> = match &b {
                    Cow::Borrowed(b) => self.branches(b),
                    Cow::Owned(b) => {
                        let inner = self.branches(b).into_iter();
                        inner.map(|i| Cow::Owned(i.into_owned())).collect()
                    }
                };
                if inner.is_empty() || constants(&inner).is_some() { vec![b] } else { inner }
            })
            .collect()
    }

    fn value(&self, node: &Node, schema: &Map<String, Value>, path: &str, flaws: &mut Vec<Flaw>) {
        let branches = self.branches(schema);
        if let Some(words) = words(schema, &branches) {
            return word(node, &words, path, flaws);
        }
        if branches.is_empty() {
            return self.plain(node, schema, path, flaws);
        }
        if let [only] = branches.as_slice() {
            let mut merged = only.clone().into_owned();
            let outer = schema.iter().filter(|(key, _)| !matches!(key.as_str(), "anyOf" | "oneOf"));
            merged.extend(outer.map(|(key, value)| (key.clone(), value.clone())));
            return self.value(node, &merged, path, flaws);
        }
        if branches.iter().all(|b| constant(b, "kind").is_some()) && node.entries().is_some() {
            return self.tagged(node, schema, &branches, path, flaws);
        }
        let mut closest: Option<Vec<Flaw>> = None;
        let fitting: Vec<_> = branches.iter().filter(|b| fits(node, b)).collect();
        for branch in &fitting {
            let mut found = vec![];
            self.value(node, branch, path, &mut found);
            if found.is_empty() {
                return;
            }
            // The alternative that has the most of the keys is the one that was meant.
            if closest.as_ref().is_none_or(|c| unknown(&found) < unknown(c)) {
                closest = Some(found);
            }
        }
        match closest {
            // A text that is neither one of the words nor the other kind of text.
            Some(_) if fitting.len() > 1 && node.text().is_some() => {
                let kinds: Vec<String> = fitting.iter().map(|b| words_for(b)).collect();
                let why = format!("`{}` is neither {}", node.plain(), kinds.join(" nor "));
                flaws.push(Flaw::new(&node.place, path, why));
            }
            Some(found) => flaws.extend(found),
            None => {
                let write = alternatives(node, &branches);
                let why = format!("`{}` is {}: write {write}", node.plain(), node.kind());
                flaws.push(Flaw::new(&node.place, path, why));
            }
        }
    }

    /// One of several tables, told apart by their `kind`.
    fn tagged(
        &self,
        node: &Node,
        schema: &Map<String, Value>,
        branches: &[Keywords<'_>],
        path: &str,
        flaws: &mut Vec<Flaw>,
    ) {
        let kinds: Vec<&str> = branches.iter().filter_map(|b| constant(b, "kind")).collect();
        let field = join(path, "kind");
        let Some(kind) = node.get("kind") else {
            let near = example(schema).map_or_else(String::new, |e| format!("; such as {e}"));
            let why = format!("is missing; known are {}{near}", kinds.join(", "));
            return flaws.push(Flaw::new(&node.place, field, why));
        };
        let name = kind.node.text().unwrap_or_default();
        match branches.iter().find(|b| constant(b, "kind") == Some(name)) {
            Some(branch) => self.object(node, branch, path, &["kind"], flaws),
            None => {
                let why = no_such(&kind.node.plain(), &kinds);
                flaws.push(Flaw::new(&kind.node.place, field, why));
            }
        }
    }

    fn plain(&self, node: &Node, schema: &Map<String, Value>, path: &str, flaws: &mut Vec<Flaw>) {
        let mut wrong = |expected: &str| {
            let why = format!("`{}` is not {expected}", node.plain());
            flaws.push(Flaw::new(&node.place, path, why));
        };
        match (type_of(schema), &node.data) {
            ("object", _) => {
                if node.entries().is_none() {
                    let write =
                        example(schema).map_or_else(String::new, |e| format!("; write {e}"));
                    let why = format!("`{}` is not a table{write}", node.plain());
                    return flaws.push(Flaw::new(&node.place, path, why));
                }
                self.object(node, schema, path, &[], flaws);
            }
            ("array", Data::List(list)) => {
                let items = schema.get("items").unwrap_or(&Value::Null);
                let items = self.resolve(items);
                for (i, item) in list.iter().enumerate() {
                    self.value(item, &items, &format!("{path}[{i}]"), flaws);
                }
            }
            ("array", _) => wrong("a list"),
            ("string", _) if schema.get("format").and_then(Value::as_str) == Some("duration") => {
                if let Err(why) = time(node, schema) {
                    flaws.push(Flaw::new(&node.place, path, why));
                }
            }
            ("string", Data::Text(_)) => {}
            ("string", _) => wrong("a text"),
            ("boolean", Data::Bool(_)) => {}
            ("boolean", _) => wrong("true or false"),
            ("integer" | "number", Data::Text(text)) if leading(text).is_some() => {
                let x = leading(text).unwrap_or_default();
                wrong(&format!("a number: write {x}, without a unit"));
            }
            ("integer", Data::Integer(i)) if in_range(*i as f64, schema) => {}
            ("integer", _) => wrong(&format!("a whole number{}", range(schema))),
            ("number", _) if node.number().is_some_and(|x| in_range(x, schema)) => {}
            ("number", _) => wrong(&format!("a number{}", range(schema))),
            _ => {}
        }
    }

    fn object(
        &self,
        node: &Node,
        schema: &Map<String, Value>,
        path: &str,
        except: &[&str],
        flaws: &mut Vec<Flaw>,
    ) {
        let Some(entries) = node.entries() else {
            return flaws.push(Flaw::new(
                &node.place,
                path,
                format!("`{}` is not a table", node.toml()),
            ));
        };
        let properties = schema.get("properties").and_then(Value::as_object);
        let known: Vec<&str> = properties.into_iter().flatten().map(|(k, _)| k.as_str()).collect();
        // A key that is meant by a misspelt one is not missing as well.
        let mut meant = vec![];
        for entry in entries {
            let field = join(path, &entry.key);
            match properties.and_then(|p| p.get(&entry.key)) {
                Some(_) if except.contains(&entry.key.as_str()) => {}
                Some(schema) => {
                    let schema = self.resolve(schema);
                    self.value(&entry.node, &schema, &field, flaws);
                }
                None if closed(schema) => {
                    meant.extend(closest(&entry.key, known.iter().copied()));
                    flaws.push(unknown_key(entry, path, &known));
                }
                None => {}
            }
        }
        let required = schema.get("required").and_then(Value::as_array).into_iter().flatten();
        for key in required.filter_map(Value::as_str) {
            if node.get(key).is_none() && !except.contains(&key) && !meant.contains(&key) {
                let property = properties.and_then(|p| p.get(key)).map(|p| self.resolve(p));
                let example = property.as_deref().and_then(example);
                let write = example.map_or_else(String::new, |e| format!("; write {key} = {e}"));
                flaws.push(Flaw::new(&node.place, join(path, key), format!("is missing{write}")));
            }
        }
    }
}

fn unknown(flaws: &[Flaw]) -> usize {
    flaws.iter().filter(|f| f.message.starts_with("unknown key")).count()
}

fn unknown_key(entry: &Entry, path: &str, known: &[&str]) -> Flaw {
    let near = did_you_mean(&entry.key, known.iter().copied());
    let message = format!("unknown key; known are {}{near}", known.join(", "));
    Flaw::new(&entry.place, join(path, &entry.key), message)
}

fn closed(schema: &Map<String, Value>) -> bool {
    let is_false = |key| schema.get(key) == Some(&Value::Bool(false));
    is_false("additionalProperties") || is_false("unevaluatedProperties")
}

/// The type of a value, `null` aside.
fn type_of(schema: &Map<String, Value>) -> &str {
    match schema.get("type") {
        Some(Value::String(one)) => one,
        Some(Value::Array(several)) => {
            several.iter().filter_map(Value::as_str).find(|t| *t != "null").unwrap_or_default()
        }
        _ => "",
    }
}

/// The number that a text begins with.
fn leading(text: &str) -> Option<&str> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let number = &text[..end];
    number.parse::<f64>().is_ok().then_some(number)
}

/// Whether a value is of the JSON type that a schema is about.
fn fits(node: &Node, schema: &Map<String, Value>) -> bool {
    let kind = type_of(schema);
    match node.data {
        Data::Text(_) => kind == "string" || schema.contains_key("enum"),
        Data::Integer(_) => matches!(kind, "integer" | "number"),
        Data::Float(_) => kind == "number",
        Data::Bool(_) => kind == "boolean",
        Data::List(_) => kind == "array",
        Data::Table(_) => kind == "object",
    }
}

/// The one value that a property may have.
fn constant<'a>(schema: &'a Map<String, Value>, key: &str) -> Option<&'a str> {
    schema.get("properties")?.get(key)?.get("const")?.as_str()
}

fn constants(branches: &[Keywords<'_>]) -> Option<Vec<String>> {
    let all = branches.iter().map(|b| Some(b.get("const")?.as_str()?.to_owned()));
    all.collect::<Option<Vec<_>>>().filter(|words| !words.is_empty())
}

/// The words that a text may be.
fn words(schema: &Map<String, Value>, branches: &[Keywords<'_>]) -> Option<Vec<String>> {
    let listed = schema.get("enum").and_then(Value::as_array);
    let texts = |list: &Vec<Value>| {
        list.iter().filter_map(Value::as_str).map(str::to_owned).collect::<Vec<_>>()
    };
    listed.map(texts).or_else(|| constants(branches))
}

fn word(node: &Node, words: &[String], path: &str, flaws: &mut Vec<Flaw>) {
    if !node.text().is_some_and(|text| words.iter().any(|w| w == text)) {
        let known: Vec<&str> = words.iter().map(String::as_str).collect();
        flaws.push(Flaw::new(&node.place, path, no_such(&node.plain(), &known)));
    }
}

fn bound(schema: &Map<String, Value>, key: &str) -> Option<f64> {
    schema.get(key).and_then(Value::as_f64)
}

fn in_range(x: f64, schema: &Map<String, Value>) -> bool {
    bound(schema, "minimum").is_none_or(|low| x >= low)
        && bound(schema, "exclusiveMinimum").is_none_or(|low| x > low)
        && bound(schema, "maximum").is_none_or(|high| x <= high)
}

/// ` from 1 to 10`, and what else a range can be.
fn range(schema: &Map<String, Value>) -> String {
    let low = bound(schema, "minimum");
    // The largest that a type holds is not a limit worth a word.
    let high = bound(schema, "maximum").filter(|h| *h < u32::MAX.into());
    match (low, bound(schema, "exclusiveMinimum"), high) {
        (Some(low), _, Some(high)) => format!(" from {low} to {high}"),
        (Some(low), _, None) => format!(", at least {low}"),
        (None, Some(low), Some(high)) => format!(" above {low}, at most {high}"),
        (None, Some(low), None) => format!(" above {low}"),
        (None, None, Some(high)) => format!(", at most {high}"),
        (None, None, None) => String::new(),
    }
}

/// A duration within its limits.
fn time(node: &Node, schema: &Map<String, Value>) -> Result<Nanos, String> {
    let value = duration(node)?;
    let limit = |key| {
        let text = schema.get(key).and_then(Value::as_str)?;
        text.parse::<Nanos>().ok()
    };
    let (least, most) = (limit("least"), limit("most"));
    if least.is_none_or(|least| value >= least) && most.is_none_or(|most| value <= most) {
        return Ok(value);
    }
    let expected = match (least, most) {
        (Some(Nanos(1)), None) => "a duration above 0".to_owned(),
        (Some(least), None) => format!("a duration of at least {least}"),
        (least, most) => {
            let (least, most) = (least.unwrap_or_default(), most.unwrap_or(Nanos(u64::MAX)));
            format!("a duration from {least} to {most}")
        }
    };
    Err(format!("`{}` is not {expected}", node.plain()))
}

/// Of a message: what the alternatives of a schema accept. Of tables told apart by their `kind` one is
/// shown, which a text such as `poisson:100` may name.
fn alternatives(node: &Node, branches: &[Keywords<'_>]) -> String {
    let kinds: Vec<&str> = branches.iter().filter_map(|b| constant(b, "kind")).collect();
    if kinds.len() < branches.len() {
        return branches.iter().map(|b| words_for(b)).collect::<Vec<_>>().join(", or ");
    }
    let text = node.text().unwrap_or_default();
    // A text with an ending is somebody's trace.
    let file = text.contains('.').then_some("trace");
    let named = kinds.iter().position(|kind| text.starts_with(kind));
    let named = named.or_else(|| kinds.iter().position(|kind| Some(*kind) == file));
    format!("{}; kinds are {}", words_for(&branches[named.unwrap_or(0)]), kinds.join(", "))
}

/// Of a message: what a schema accepts. Of a table, the keys that it needs.
fn words_for(schema: &Map<String, Value>) -> String {
    if schema.get("format").and_then(Value::as_str) == Some("duration") {
        return "a duration in quotes such as \"100ms\"".to_owned();
    }
    if let Some(words) = words(schema, &[]) {
        return format!("`{}`", words.join("`, `"));
    }
    match type_of(schema) {
        "object" => {
            let needed = schema.get("required").and_then(Value::as_array);
            let needed = |key: &str| needed.is_none_or(|list| list.iter().any(|k| k == key));
            let keys = schema.get("properties").and_then(Value::as_object);
            let keys = keys.into_iter().flatten().filter(|(key, _)| needed(key));
            let keys = keys.map(|(key, of)| {
                let example = match constant(schema, key) {
                    Some(word) => Some(format!("{word:?}")),
                    None => of.as_object().and_then(example),
                };
                format!("{key} = {}", example.unwrap_or_else(|| "…".to_owned()))
            });
            format!("a table such as {{ {} }}", keys.collect::<Vec<_>>().join(", "))
        }
        "integer" => format!("a whole number{}", range(schema)),
        "number" => format!("a number{}", range(schema)),
        "array" => "a list".to_owned(),
        "boolean" => "true or false".to_owned(),
        _ => "a text".to_owned(),
    }
}

/// The example of a schema, as TOML.
pub(crate) fn example(schema: &Map<String, Value>) -> Option<String> {
    schema.get("examples").and_then(Value::as_array)?.first().map(toml)
}

/// A value as TOML, on one line.
pub(crate) fn toml(value: &Value) -> String {
    match value {
        Value::Array(list) => format!("[{}]", list.iter().map(toml).collect::<Vec<_>>().join(", ")),
        Value::Object(table) => {
            let pairs = table.iter().map(|(k, v)| format!("{} = {}", super::tree::key(k), toml(v)));
            format!("{{ {} }}", pairs.collect::<Vec<_>>().join(", "))
        }
        other => other.to_string(),
    }
}
