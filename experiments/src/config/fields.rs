//! The fields of a table, taken one by one; every error says file, line, field and what is accepted.

use std::ops::RangeInclusive;

use cotenant_profiles::Nanos;

use super::tree::{Data, Entry, Flaw, Node, Place, join};
use crate::fail::did_you_mean;

/// A table whose keys are all known.
pub(crate) struct Fields<'a> {
    path: String,
    place: &'a Place,
    entries: &'a [Entry],
}

impl<'a> Fields<'a> {
    /// Takes a table and refuses every key that is not `known`.
    pub(crate) fn new(node: &'a Node, path: &str, known: &[&str]) -> Result<Self, Flaw> {
        let entries = table(node, path)?;
        if let Some(e) = entries.iter().find(|e| !known.contains(&e.key.as_str())) {
            return Err(unknown_key(e, path, known));
        }
        Ok(Self { path: path.to_owned(), place: &node.place, entries })
    }

    pub(crate) fn get(&self, key: &str) -> Option<&'a Node> {
        self.entry(key).map(|e| &e.node)
    }

    pub(crate) fn entry(&self, key: &str) -> Option<&'a Entry> {
        self.entries.iter().find(|e| e.key == key)
    }

    /// The full name of a key.
    pub(crate) fn name(&self, key: &str) -> String {
        join(&self.path, key)
    }

    /// Something is wrong with `key`, whose place is the table's if it is absent.
    pub(crate) fn flaw(&self, key: &str, message: impl Into<String>) -> Flaw {
        let place = self.get(key).map_or(self.place, |n| &n.place);
        Flaw::new(place, self.name(key), message)
    }

    fn wrong(&self, key: &str, node: &Node, expected: &str) -> Flaw {
        self.flaw(key, format!("`{}` is not {expected}", node.plain()))
    }

    pub(crate) fn text(&self, key: &str) -> Result<Option<&'a str>, Flaw> {
        let Some(node) = self.get(key) else { return Ok(None) };
        node.text().map(Some).ok_or_else(|| self.wrong(key, node, "a text"))
    }

    pub(crate) fn required_text(&self, key: &str, example: &str) -> Result<&'a str, Flaw> {
        let text = self.text(key)?;
        text.ok_or_else(|| self.flaw(key, format!("is missing; write {key} = {example}")))
    }

    pub(crate) fn flag(&self, key: &str) -> Result<Option<bool>, Flaw> {
        match self.get(key).map(|n| (&n.data, n)) {
            None => Ok(None),
            Some((Data::Bool(b), _)) => Ok(Some(*b)),
            Some((_, node)) => Err(self.wrong(key, node, "true or false")),
        }
    }

    pub(crate) fn whole(&self, key: &str, range: RangeInclusive<u64>) -> Result<Option<u64>, Flaw> {
        let Some(node) = self.get(key) else { return Ok(None) };
        let value = match node.data {
            Data::Integer(i) => u64::try_from(i).ok(),
            _ => None,
        };
        let expected = match *range.end() {
            u64::MAX => format!("a whole number, at least {}", range.start()),
            end => format!("a whole number from {} to {end}", range.start()),
        };
        match value.filter(|v| range.contains(v)) {
            Some(value) => Ok(Some(value)),
            None => Err(self.wrong(key, node, &expected)),
        }
    }

    pub(crate) fn number(
        &self,
        key: &str,
        range: RangeInclusive<f64>,
    ) -> Result<Option<f64>, Flaw> {
        let Some(node) = self.get(key) else { return Ok(None) };
        let expected = format!("a number from {} to {}", range.start(), range.end());
        match node.number().filter(|v| range.contains(v)) {
            Some(value) => Ok(Some(value)),
            None => Err(self.wrong(key, node, &expected)),
        }
    }

    pub(crate) fn duration(
        &self,
        key: &str,
        range: RangeInclusive<Nanos>,
    ) -> Result<Option<Nanos>, Flaw> {
        let Some(node) = self.get(key) else { return Ok(None) };
        let value = duration(node).map_err(|m| self.flaw(key, m))?;
        if range.contains(&value) {
            return Ok(Some(value));
        }
        let expected = format!("a duration from {} to {}", range.start(), range.end());
        Err(self.wrong(key, node, &expected))
    }

    /// One of `known`.
    pub(crate) fn choice(
        &self,
        key: &str,
        known: &[&'static str],
    ) -> Result<Option<&'static str>, Flaw> {
        let Some(text) = self.text(key)? else { return Ok(None) };
        match known.iter().find(|k| **k == text) {
            Some(name) => Ok(Some(name)),
            None => Err(self.flaw(key, no_such(text, known))),
        }
    }

    /// A list, or an empty one where there is none.
    pub(crate) fn list(&self, key: &str, of: &str) -> Result<&'a [Node], Flaw> {
        match self.get(key).map(|n| (&n.data, n)) {
            None => Ok(&[]),
            Some((Data::List(list), _)) => Ok(list),
            Some((_, node)) => Err(self.wrong(key, node, &format!("a list of {of}"))),
        }
    }
}

/// `` `x` is none of a, b (did you mean `a`?) ``.
pub(crate) fn no_such(text: &str, known: &[&str]) -> String {
    format!("`{text}` is none of {}{}", known.join(", "), did_you_mean(text, known.iter().copied()))
}

/// A duration, or why not.
pub(crate) fn duration(node: &Node) -> Result<Nanos, String> {
    match &node.data {
        Data::Text(text) => text.parse().map_err(|e| format!("{e}")),
        _ => Err(format!(
            "`{}` is {}: write a number and a unit in quotes, such as \"250us\" or \"3ms\"",
            node.toml(),
            node.kind()
        )),
    }
}

/// The entries of a table.
pub(crate) fn table<'a>(node: &'a Node, path: &str) -> Result<&'a [Entry], Flaw> {
    node.entries()
        .ok_or_else(|| Flaw::new(&node.place, path, format!("`{}` is no table", node.toml())))
}

pub(crate) fn unknown_key(entry: &Entry, path: &str, known: &[&str]) -> Flaw {
    let near = did_you_mean(&entry.key, known.iter().copied());
    let message = format!("unknown key; known are {}{near}", known.join(", "));
    Flaw::new(&entry.place, join(path, &entry.key), message)
}
