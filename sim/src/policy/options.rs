//! What a policy can be told in an experiment file: the options it has, and those it was given.

use std::fmt;

use cotenant_profiles::Nanos;

/// What an option accepts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// `"2ms"`.
    Duration,
    /// A whole number in a range.
    Integer(i64, i64),
    /// A number in a range.
    Float(f64, f64),
    /// `true` or `false`.
    Bool,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// Any text.
    Text,
    /// A list of texts.
    Texts,
    /// One of these words, or a number per tenant: a list in tenant order, or a table by name.
    PerTenant(&'static [&'static str]),
}

/// One option of a policy.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OptionSpec {
    /// Key in the experiment file.
    pub name: &'static str,
    /// What it accepts.
    pub kind: Kind,
    /// Unit of a bare number; empty where it has none.
    pub unit: &'static str,
    /// Default, written as in an experiment file; empty where there is none.
    pub default: &'static str,
    /// One line of help.
    pub help: &'static str,
}

/// A line of a policy's table of options.
pub(super) const fn option(
    name: &'static str,
    kind: Kind,
    unit: &'static str,
    default: &'static str,
    help: &'static str,
) -> OptionSpec {
    OptionSpec { name, kind, unit, default, help }
}

/// An option's value, already of its [`Kind`].
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)] // the variants are the kinds
pub enum Value {
    Duration(Nanos),
    Integer(i64),
    Float(f64),
    Bool(bool),
    Text(String),
    Texts(Vec<String>),
    Numbers(Vec<f64>),
    Table(Vec<(String, f64)>),
}

/// The options given, by name. What is not given has its default.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Options(pub Vec<(String, Value)>);

/// An option that its policy refuses.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("option `{name}`: {why}")]
pub struct OptionError {
    /// The option.
    pub name: String,
    /// What is wrong, and what would be accepted.
    pub why: String,
}

impl OptionError {
    /// `name` is wrong because of `why`.
    #[must_use]
    pub fn new(name: &str, why: impl Into<String>) -> Self {
        Self { name: name.to_owned(), why: why.into() }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Duration => write!(f, "a duration such as \"2ms\""),
            Self::Integer(lo, i64::MAX) => write!(f, "a whole number, at least {lo}"),
            Self::Integer(lo, hi) => write!(f, "a whole number from {lo} to {hi}"),
            Self::Float(lo, f64::INFINITY) => write!(f, "a number, at least {lo}"),
            Self::Float(lo, hi) => write!(f, "a number from {lo} to {hi}"),
            Self::Bool => write!(f, "true or false"),
            Self::Choice(words) => write!(f, "one of \"{}\"", words.join("\", \"")),
            Self::Text => write!(f, "a text"),
            Self::Texts => write!(f, "a list of texts"),
            Self::PerTenant(words) => write!(
                f,
                "\"{}\", or a number per tenant: [60, 40] in tenant order or {{ name = 60 }}",
                words.join("\", \"")
            ),
        }
    }
}

impl Options {
    /// The value given for `name`.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.0.iter().find(|(n, _)| n == name).map(|(_, v)| v)
    }

    /// A duration, or its default.
    #[must_use]
    pub fn duration(&self, name: &str) -> Option<Nanos> {
        match self.get(name)? {
            Value::Duration(d) => Some(*d),
            other => panic!("option `{name}` was checked to be a duration, is {other:?}"),
        }
    }

    /// A whole number.
    #[must_use]
    pub fn integer(&self, name: &str) -> Option<i64> {
        match self.get(name)? {
            Value::Integer(i) => Some(*i),
            other => panic!("option `{name}` was checked to be a whole number, is {other:?}"),
        }
    }

    /// A number.
    #[must_use]
    pub fn float(&self, name: &str) -> Option<f64> {
        match self.get(name)? {
            Value::Float(x) => Some(*x),
            Value::Integer(i) => Some(*i as f64),
            other => panic!("option `{name}` was checked to be a number, is {other:?}"),
        }
    }

    /// A truth value.
    #[must_use]
    pub fn flag(&self, name: &str) -> Option<bool> {
        match self.get(name)? {
            Value::Bool(b) => Some(*b),
            other => panic!("option `{name}` was checked to be true or false, is {other:?}"),
        }
    }

    /// Percentages by tenant; `None` where a word is given, or nothing.
    ///
    /// # Errors
    /// One of them is none.
    pub fn percentages(&self, name: &str) -> Result<Option<&Value>, OptionError> {
        let legal = |p: f64| p > 0.0 && p <= 100.0;
        let fine = match self.get(name) {
            None | Some(Value::Text(_)) => return Ok(None),
            Some(Value::Numbers(list)) => list.iter().all(|&p| legal(p)),
            Some(Value::Table(table)) => table.iter().all(|&(_, p)| legal(p)),
            _ => false,
        };
        if fine {
            return Ok(self.get(name));
        }
        Err(OptionError::new(name, "a percentage lies above 0 and at most at 100"))
    }

    /// A word.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<&str> {
        match self.get(name)? {
            Value::Text(t) => Some(t),
            _ => None,
        }
    }
}
