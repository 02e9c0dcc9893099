//! A TOML file as a tree in which every value knows where it stands.

use std::sync::Arc;

use toml::de::{DeTable, DeValue};

/// Where a value or key stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// A line of a file.
    Line(Arc<str>, usize),
    /// A command-line flag, as it was written.
    Flag(Arc<str>),
}

/// A value with its place.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) place: Place,
    pub(crate) data: Data,
}

/// What TOML can say, dates left out.
#[derive(Clone, Debug)]
pub(crate) enum Data {
    Text(String),
    Integer(i64),
    Float(f64),
    Bool(bool),
    List(Vec<Node>),
    /// In file order.
    Table(Vec<Entry>),
}

/// A key of a table.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) place: Place,
    pub(crate) node: Node,
}

/// What is wrong with an experiment file, where, and what would be accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Flaw {
    pub(crate) place: Place,
    /// Dotted path; empty where the file as a whole is meant.
    pub(crate) field: String,
    pub(crate) message: String,
}

impl Flaw {
    pub(crate) fn new(place: &Place, field: impl Into<String>, message: impl Into<String>) -> Self {
        Self { place: place.clone(), field: field.into(), message: message.into() }
    }
}

impl std::fmt::Display for Flaw {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.place {
            Place::Line(file, line) => write!(f, "{file}:{line}: ")?,
            Place::Flag(flag) => write!(f, "{flag}: ")?,
        }
        if !self.field.is_empty() {
            write!(f, "{}: ", self.field)?;
        }
        f.write_str(&self.message)
    }
}

/// Turns byte offsets into places.
struct Places<'a> {
    text: &'a str,
    file: Arc<str>,
    /// `--set …`: every value stands there, whatever its offset.
    flag: Option<Arc<str>>,
}

impl Places<'_> {
    fn at(&self, offset: usize) -> Place {
        if let Some(flag) = &self.flag {
            return Place::Flag(flag.clone());
        }
        let before = &self.text.as_bytes()[..offset.min(self.text.len())];
        Place::Line(self.file.clone(), before.iter().filter(|&&b| b == b'\n').count() + 1)
    }

    fn node(&self, value: &toml::Spanned<DeValue<'_>>, field: &str) -> Result<Node, Flaw> {
        let place = self.at(value.span().start);
        let data = match value.get_ref() {
            DeValue::String(text) => Data::Text(text.to_string()),
            DeValue::Integer(i) => {
                let parsed = i64::from_str_radix(i.as_str(), i.radix());
                let wide = |_| Flaw::new(&place, field, format!("{i} does not fit 64 bits"));
                Data::Integer(parsed.map_err(wide)?)
            }
            DeValue::Float(x) => match x.as_str().parse::<f64>() {
                Ok(x) if x.is_finite() => Data::Float(x),
                _ => return Err(Flaw::new(&place, field, format!("{x} is not a finite number"))),
            },
            DeValue::Boolean(b) => Data::Bool(*b),
            DeValue::Datetime(_) => {
                return Err(Flaw::new(&place, field, "a date is not accepted anywhere here"));
            }
            DeValue::Array(list) => {
                Data::List(list.iter().map(|v| self.node(v, field)).collect::<Result<_, _>>()?)
            }
            DeValue::Table(table) => Data::Table(self.entries(table, field)?),
        };
        Ok(Node { place, data })
    }

    fn entries(&self, table: &DeTable<'_>, field: &str) -> Result<Vec<Entry>, Flaw> {
        let mut found = vec![];
        for (key, value) in table.iter() {
            let name = key.get_ref().to_string();
            let path = join(field, &name);
            let place = self.at(key.span().start);
            found.push((
                key.span().start,
                Entry { node: self.node(value, &path)?, key: name, place },
            ));
        }
        found.sort_by_key(|(start, _)| *start);
        Ok(found.into_iter().map(|(_, entry)| entry).collect())
    }
}

/// `a.b`, or `b` where there is no `a`.
pub(crate) fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

/// Reads a document; `file` is what errors call it.
pub(crate) fn parse(text: &str, file: &str) -> Result<Node, Flaw> {
    let places = Places { text, file: file.into(), flag: None };
    let table = DeTable::parse(text).map_err(|e| {
        let place = places.at(e.span().map_or(0, |s| s.start));
        Flaw::new(&place, "", format!("no TOML: {}", e.message().replace('\n', " ")))
    })?;
    Ok(Node { place: places.at(0), data: Data::Table(places.entries(table.get_ref(), "")?) })
}

/// Reads the value of a flag: TOML, or else plain text.
pub(crate) fn parse_value(text: &str, flag: &str, field: &str) -> Result<Node, Flaw> {
    let places = Places { text, file: "".into(), flag: Some(flag.into()) };
    match DeValue::parse(text) {
        Ok(value) => places.node(&value, field),
        Err(_) => Ok(Node { place: places.at(0), data: Data::Text(text.to_owned()) }),
    }
}

impl Node {
    /// Of a message: what this is.
    pub(crate) fn kind(&self) -> &'static str {
        match self.data {
            Data::Text(_) => "a text",
            Data::Integer(_) => "a whole number",
            Data::Float(_) => "a number",
            Data::Bool(_) => "true or false",
            Data::List(_) => "a list",
            Data::Table(_) => "a table",
        }
    }

    pub(crate) fn entries(&self) -> Option<&[Entry]> {
        match &self.data {
            Data::Table(entries) => Some(entries),
            _ => None,
        }
    }

    pub(crate) fn get(&self, key: &str) -> Option<&Entry> {
        self.entries()?.iter().find(|e| e.key == key)
    }

    pub(crate) fn text(&self) -> Option<&str> {
        match &self.data {
            Data::Text(text) => Some(text),
            _ => None,
        }
    }

    pub(crate) fn number(&self) -> Option<f64> {
        match self.data {
            Data::Integer(i) => Some(i as f64),
            Data::Float(x) => Some(x),
            _ => None,
        }
    }

    /// The value as a table cell shows it: texts bare, the rest as TOML.
    pub(crate) fn plain(&self) -> String {
        self.text().map_or_else(|| self.toml(), str::to_owned)
    }

    /// The value as TOML, on one line.
    pub(crate) fn toml(&self) -> String {
        match &self.data {
            Data::Text(text) => quoted(text),
            Data::Integer(i) => i.to_string(),
            Data::Float(x) => format!("{x:?}"),
            Data::Bool(b) => b.to_string(),
            Data::List(list) => {
                format!("[{}]", list.iter().map(Self::toml).collect::<Vec<_>>().join(", "))
            }
            Data::Table(entries) if entries.is_empty() => "{}".to_owned(),
            Data::Table(entries) => {
                let pairs = entries.iter().map(|e| format!("{} = {}", key(&e.key), e.node.toml()));
                format!("{{ {} }}", pairs.collect::<Vec<_>>().join(", "))
            }
        }
    }

    /// For readers that are defined by serde.
    pub(crate) fn json(&self) -> serde_json::Value {
        match &self.data {
            Data::Text(text) => text.clone().into(),
            Data::Integer(i) => (*i).into(),
            Data::Float(x) => (*x).into(),
            Data::Bool(b) => (*b).into(),
            Data::List(list) => list.iter().map(Self::json).collect(),
            Data::Table(entries) => serde_json::Value::Object(
                entries.iter().map(|e| (e.key.clone(), e.node.json())).collect(),
            ),
        }
    }
}

/// A TOML key, quoted where it must be.
pub(crate) fn key(name: &str) -> String {
    let bare = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    if !name.is_empty() && name.chars().all(bare) { name.to_owned() } else { quoted(name) }
}

fn quoted(text: &str) -> String {
    // TOML's basic strings escape as JSON's do.
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_keep_their_order_and_know_their_line() {
        let root = parse("b = 1\n\n[[t]]\nx = { z = 2.5, a = [true, \"s\"] }\n", "f.toml").unwrap();
        let keys: Vec<_> = root.entries().unwrap().iter().map(|e| e.key.as_str()).collect();
        assert_eq!(keys, ["b", "t"]);
        let Data::List(tables) = &root.get("t").unwrap().node.data else { panic!() };
        let x = tables[0].get("x").unwrap();
        assert_eq!(x.place, Place::Line("f.toml".into(), 4));
        assert_eq!(x.node.toml(), "{ z = 2.5, a = [true, \"s\"] }");
    }

    #[test]
    fn what_is_no_toml_is_a_message_with_a_line() {
        let flaw = parse("a = 1\nb = = 2\n", "f.toml").unwrap_err();
        assert!(flaw.to_string().starts_with("f.toml:2: no TOML: "), "{flaw}");
        assert!(parse("a = 1e999\n", "f.toml").unwrap_err().to_string().contains("finite"));
        assert!(parse("a = nan\n", "f.toml").is_err());
        assert!(parse("a = 1979-05-27\n", "f.toml").is_err());
        assert!(parse("a = 99999999999999999999\n", "f.toml").is_err());
        assert_eq!(parse("a = 0xff\n", "f").unwrap().get("a").unwrap().node.toml(), "255");
    }

    #[test]
    fn a_flags_value_is_toml_or_text() {
        assert_eq!(parse_value("60", "--set", "").unwrap().toml(), "60");
        assert_eq!(parse_value("2ms", "--set", "").unwrap().toml(), "\"2ms\"");
        assert_eq!(parse_value("[1, 2]", "--set", "").unwrap().toml(), "[1, 2]");
        assert_eq!(parse_value("h100-sxm", "--set", "").unwrap().toml(), "\"h100-sxm\"");
    }
}
