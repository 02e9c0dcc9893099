//! What errors about fields have in common.

use cotenant_profiles::Nanos;

use super::tree::{Data, Entry, Flaw, Node, join};
use crate::fail::did_you_mean;

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
        .ok_or_else(|| Flaw::new(&node.place, path, format!("`{}` is not a table", node.toml())))
}

pub(crate) fn unknown_key(entry: &Entry, path: &str, known: &[&str]) -> Flaw {
    let near = did_you_mean(&entry.key, known.iter().copied());
    let message = format!("unknown key; known are {}{near}", known.join(", "));
    Flaw::new(&entry.place, join(path, &entry.key), message)
}
