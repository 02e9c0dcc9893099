//! What reading tells beside the settings themselves.

use std::fmt;

/// How much a finding matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Weight {
    /// The real thing refuses it.
    Illegal,
    /// The real thing does something else than the file says, without a word.
    Rounded,
    /// The setting has no effect.
    Ignored,
    /// It works as written, and whoever relies on it should know this.
    Note,
}

impl Weight {
    /// As reports word it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Illegal => "illegal",
            Self::Rounded => "rounded",
            Self::Ignored => "ignored",
            Self::Note => "note",
        }
    }
}

/// One thing to know of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// How much it matters.
    pub weight: Weight,
    /// The file.
    pub file: String,
    /// Its line, counted from 1, where one is known.
    pub line: Option<usize>,
    /// The field; empty where it concerns the whole file.
    pub field: String,
    /// What the real thing makes of it.
    pub what: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.weight.word())?;
        place(f, &self.file, self.line, &self.field)?;
        write!(f, "{}", self.what)
    }
}

/// A file that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct ReadError {
    file: String,
    line: Option<usize>,
    field: String,
    what: String,
}

impl ReadError {
    pub(crate) fn new(
        file: &str,
        line: Option<usize>,
        field: impl Into<String>,
        what: impl Into<String>,
    ) -> Self {
        Self { file: file.to_owned(), line, field: field.into(), what: what.into() }
    }
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        place(f, &self.file, self.line, &self.field)?;
        write!(f, "{}", self.what)
    }
}

/// `file:line: field: `.
fn place(f: &mut fmt::Formatter<'_>, file: &str, line: Option<usize>, field: &str) -> fmt::Result {
    write!(f, "{file}")?;
    if let Some(line) = line {
        write!(f, ":{line}")?;
    }
    write!(f, ": ")?;
    if !field.is_empty() {
        write!(f, "{field}: ")?;
    }
    Ok(())
}

/// The line of the last of `keys`, each looked for behind the one before: good enough for block YAML
/// and scripts, where a key stands at the beginning of its line.
pub(crate) fn line_of(text: &str, keys: &[&str]) -> Option<usize> {
    let mut from = 0;
    let mut found = None;
    for key in keys {
        let at = text.lines().enumerate().skip(from).find(|(_, line)| {
            let bare = line.trim_start().trim_start_matches("- ").trim_start_matches(['"', '\'']);
            bare.strip_prefix(key).is_some_and(|rest| {
                !rest.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
            })
        });
        let (index, _) = at?;
        from = index;
        found = Some(index + 1);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_found_behind_its_parents() {
        let text = "version: v1\nflags:\n  replicas: 1\nsharing:\n  - replicas: 4\n";
        assert_eq!(line_of(text, &["sharing", "replicas"]), Some(5));
        assert_eq!(line_of(text, &["replicas"]), Some(3));
        assert_eq!(line_of(text, &["sharing", "absent"]), None);
    }
}
