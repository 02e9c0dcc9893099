//! Options of policies, declared once: a struct per policy, written with [`options!`](crate::options).
//!
//! The struct's fields are what the policy works with, their initial values are the defaults, their
//! doc comments are the help. Everything else (the table that `cotenant policies` prints, the checks
//! of experiment files, the JSON Schema, the random options of the tests) is made from it.

use std::fmt;

use cotenant_profiles::Nanos;
use cotenant_profiles::text::closest;

use super::LayoutError;
use crate::scenario::Setup;
use crate::words;

/// What an option accepts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// `"2ms"`, at least so long.
    Duration(Nanos),
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
    /// One of these words, or a percentage per tenant: a list in tenant order, or a table by name.
    PerTenant(&'static [&'static str]),
    /// A number from 0 per tenant, which several may share: a list in tenant order, or a table by name.
    Places,
}

/// One option of a policy.
#[derive(Clone, Copy, Debug)]
pub struct OptionSpec {
    /// Key in the experiment file.
    pub name: &'static str,
    /// What it accepts.
    pub kind: Kind,
    /// Unit of a bare number; empty where it has none.
    pub unit: &'static str,
    /// Its default; `None` where the policy finds a value itself.
    pub default: fn() -> Option<Value>,
    /// What the policy does without a value, where there is no default.
    pub unset: &'static str,
    /// One line of help.
    pub help: &'static str,
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

/// The options given, by name. Options that are not given have their defaults.
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

/// A type that an option's field can have.
pub trait OptionType: Sized {
    /// How the option is written in files.
    const KIND: Kind;

    /// The value in the policy's own terms.
    ///
    /// # Errors
    /// What is wrong with it, and what would be accepted.
    fn read(value: &Value) -> Result<Self, String>;

    /// The value as files write it; `None` where nothing is given.
    fn value(&self) -> Option<Value>;
}

/// A type whose values are words; see [`words!`](crate::words).
pub trait Words: Sized {
    /// All of them.
    const WORDS: &'static [&'static str];

    /// The value of that word.
    fn of_word(word: &str) -> Option<Self>;

    /// The word of this value.
    fn word(&self) -> &'static str;
}

/// A word, or a percentage of the GPU for each tenant.
#[derive(Clone, Debug, PartialEq)]
pub enum PerTenant<W> {
    /// A rule that finds the percentages.
    Word(W),
    /// [`Value::Numbers`] in tenant order or a [`Value::Table`] by name; every one lies above 0 and
    /// at most at 100.
    Given(Value),
}

/// The place of each tenant, counted from 0: [`Value::Numbers`] in tenant order or a [`Value::Table`]
/// by name, all of them whole numbers.
#[derive(Clone, Debug, PartialEq)]
pub struct Places(pub Value);

/// Which time counts as a request's latency.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Latency {
    /// From the start of its batch to the result.
    Execution,
    /// From its arrival.
    Request,
}

words!(Latency { "execution" => Latency::Execution, "request" => Latency::Request });

/// Declares the options of a policy: a struct, its `Default`, the table `SPECS` and `read`.
///
/// A line is a field with its type and default, then what else is known of it: `whole(LOW, HIGH)`,
/// `within(LOW, HIGH)`, `period()`, `unit("CUs")`, `unset("what happens where it is not given")`.
///
/// ```
/// use cotenant_profiles::Nanos;
/// use cotenant_sim::policy::{Options, Value};
///
/// cotenant_sim::options! {
///     /// Options of `example`.
///     #[derive(Debug)]
///     pub struct Knobs {
///         /// longest turn while others wait
///         quantum: Option<Nanos> = None, period(), unset("the device's");
///         /// kernels in one launch
///         group: u32 = 8, whole(1, 64), unit("kernels");
///     }
/// }
///
/// let given = Options(vec![("group".to_owned(), Value::Integer(4))]);
/// let knobs = Knobs::read(&given).unwrap();
/// assert_eq!((knobs.group, knobs.quantum), (4, None));
/// assert_eq!(Knobs::SPECS[1].default_text(), "8");
/// let wrong = Options(vec![("group".to_owned(), Value::Integer(65))]);
/// assert_eq!(
///     Knobs::read(&wrong).unwrap_err().to_string(),
///     "option `group`: `65` is not a whole number from 1 to 64"
/// );
/// ```
#[macro_export]
macro_rules! options {
    (
        $(#[$meta:meta])*
        $vis:vis struct $name:ident {
            $(
                $(#[doc = $doc:literal])+
                $field_vis:vis $field:ident: $type:ty = $default:expr $(, $fact:ident($($arg:expr),*))*;
            )*
        }
    ) => {
        $(#[$meta])*
        $vis struct $name {
            $($(#[doc = $doc])+ $field_vis $field: $type,)*
        }

        impl ::core::default::Default for $name {
            fn default() -> Self {
                Self { $($field: $default,)* }
            }
        }

        impl $name {
            /// The options as tables and checks see them.
            $vis const SPECS: &'static [$crate::policy::OptionSpec] = &[
                $(
                    $crate::policy::OptionSpec::new(
                        ::core::stringify!($field),
                        <$type as $crate::policy::OptionType>::KIND,
                        ::core::concat!($($doc),+),
                        || <$type as $crate::policy::OptionType>::value(&$default),
                    )
                    $(.$fact($($arg),*))*,
                )*
            ];

            /// The defaults, and what was given in their place.
            ///
            /// # Errors
            /// An option that does not exist, or that has another type or range.
            $vis fn read(
                given: &$crate::policy::Options,
            ) -> ::core::result::Result<Self, $crate::policy::OptionError> {
                #[allow(unused_mut, reason = "a policy may have no options")]
                let mut knobs = Self::default();
                for (name, value) in &given.0 {
                    let spec = $crate::policy::OptionSpec::find(Self::SPECS, name)?;
                    match spec.name {
                        $(
                            ::core::stringify!($field) => knobs.$field = spec.read(value)?,
                        )*
                        _ => unreachable!("SPECS lists the fields"),
                    }
                }
                Ok(knobs)
            }
        }
    };
}

/// Gives the variants of an enum the words that experiment files use for them.
#[macro_export]
macro_rules! words {
    ($type:ty { $($word:literal => $variant:path),+ $(,)? }) => {
        impl $crate::policy::Words for $type {
            const WORDS: &'static [&'static str] = &[$($word),+];

            fn of_word(word: &str) -> ::core::option::Option<Self> {
                match word {
                    $($word => ::core::option::Option::Some($variant),)+
                    _ => ::core::option::Option::None,
                }
            }

            fn word(&self) -> &'static str {
                match self {
                    $($variant => $word,)+
                }
            }
        }
    };
}

impl OptionSpec {
    /// An option of a kind; the rest is added by the methods below.
    #[must_use]
    pub const fn new(
        name: &'static str,
        kind: Kind,
        help: &'static str,
        default: fn() -> Option<Value>,
    ) -> Self {
        Self { name, kind, unit: "", default, unset: "", help: help.trim_ascii() }
    }

    /// The range of a whole number.
    #[must_use]
    pub const fn whole(mut self, low: i64, high: i64) -> Self {
        self.kind = Kind::Integer(low, high);
        self
    }

    /// The range of a number.
    #[must_use]
    pub const fn within(mut self, low: f64, high: f64) -> Self {
        self.kind = Kind::Float(low, high);
        self
    }

    /// A period at which the policy acts: 1 µs or more. Shorter than any kernel, it would ask the
    /// policy more often than anything changes.
    #[must_use]
    pub const fn period(mut self) -> Self {
        self.kind = Kind::Duration(Nanos(1_000));
        self
    }

    /// Unit of a bare number.
    #[must_use]
    pub const fn unit(mut self, unit: &'static str) -> Self {
        self.unit = unit;
        self
    }

    /// What the policy does where nothing is given.
    #[must_use]
    pub const fn unset(mut self, what: &'static str) -> Self {
        self.unset = what;
        self
    }

    /// The default as an experiment file writes it, or what happens without one.
    #[must_use]
    pub fn default_text(&self) -> String {
        (self.default)().map_or_else(|| self.unset.to_owned(), |value| value.to_string())
    }

    /// The option of that name.
    ///
    /// # Errors
    /// There is none.
    pub fn find(specs: &'static [Self], name: &str) -> Result<&'static Self, OptionError> {
        specs.iter().find(|s| s.name == name).ok_or_else(|| {
            let near = hint(name, specs.iter().map(|s| s.name));
            OptionError::new(name, format!("there is no such option{near}"))
        })
    }

    /// Checks a value against kind and range.
    ///
    /// # Errors
    /// What is wrong with it, and what would be accepted.
    pub fn check(&self, value: &Value) -> Result<(), String> {
        let share = |p: &f64| *p > 0.0 && *p <= 100.0;
        let shares = |mut all: Box<dyn Iterator<Item = &f64> + '_>| {
            if all.all(share) { Ok(()) } else { Err(NO_SHARE.to_owned()) }
        };
        let fits = match (self.kind, value) {
            (Kind::Duration(least), Value::Duration(d)) => *d >= least,
            (Kind::Integer(low, high), Value::Integer(i)) => (low..=high).contains(i),
            (Kind::Float(low, high), Value::Float(x)) => (low..=high).contains(x),
            (Kind::Float(low, high), Value::Integer(i)) => (low..=high).contains(&(*i as f64)),
            (Kind::Choice(words), Value::Text(text)) => {
                return if words.contains(&text.as_str()) {
                    Ok(())
                } else {
                    Err(none_of(text, words))
                };
            }
            (Kind::PerTenant(words), Value::Text(text)) => {
                let hint = "or give a number per tenant: [60, 40] in tenant order or { name = 60 }";
                let known = words.contains(&text.as_str());
                return if known {
                    Ok(())
                } else {
                    Err(format!("{}; {hint}", none_of(text, words)))
                };
            }
            (Kind::PerTenant(_), Value::Numbers(list)) => return shares(Box::new(list.iter())),
            (Kind::PerTenant(_), Value::Table(table)) => {
                return shares(Box::new(table.iter().map(|(_, p)| p)));
            }
            (Kind::Places, Value::Numbers(list)) => list.iter().all(|&x| is_place(x)),
            (Kind::Places, Value::Table(table)) => table.iter().all(|&(_, x)| is_place(x)),
            (Kind::Bool, Value::Bool(_))
            | (Kind::Text, Value::Text(_))
            | (Kind::Texts, Value::Texts(_)) => true,
            _ => false,
        };
        if fits { Ok(()) } else { Err(format!("`{}` is not {}", value.plain(), self.kind)) }
    }

    /// The value in the policy's own terms, once it is checked.
    ///
    /// # Errors
    /// As [`OptionSpec::check`], and what a type refuses beyond its kind.
    pub fn read<T: OptionType>(&self, value: &Value) -> Result<T, OptionError> {
        let read = self.check(value).and_then(|()| T::read(value));
        read.map_err(|why| OptionError::new(self.name, why))
    }
}

const NO_SHARE: &str = "a percentage is above 0 and at most 100";

fn hint<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    closest(name, known).map_or_else(String::new, |k| format!(" (did you mean `{k}`?)"))
}

fn none_of(text: &str, words: &[&str]) -> String {
    format!("`{text}` is none of {}{}", words.join(", "), hint(text, words.iter().copied()))
}

impl Value {
    /// A text bare, anything else as files write it.
    fn plain(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Duration(duration) => duration.to_string(),
            other => other.to_string(),
        }
    }
}

/// As an experiment file writes it.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fn list<T>(
            f: &mut fmt::Formatter<'_>,
            items: &[T],
            mut one: impl FnMut(&T, &mut fmt::Formatter<'_>) -> fmt::Result,
        ) -> fmt::Result {
            for (i, item) in items.iter().enumerate() {
                f.write_str(if i == 0 { "" } else { ", " })?;
                one(item, f)?;
            }
            Ok(())
        }
        match self {
            Self::Duration(d) => write!(f, "\"{d}\""),
            Self::Integer(i) => write!(f, "{i}"),
            Self::Float(x) => write!(f, "{x}"),
            Self::Bool(b) => write!(f, "{b}"),
            Self::Text(text) => write!(f, "\"{text}\""),
            Self::Texts(texts) => {
                f.write_str("[")?;
                list(f, texts, |text, f| write!(f, "\"{text}\""))?;
                f.write_str("]")
            }
            Self::Numbers(numbers) => {
                f.write_str("[")?;
                list(f, numbers, |x, f| write!(f, "{x}"))?;
                f.write_str("]")
            }
            Self::Table(table) => {
                f.write_str("{ ")?;
                list(f, table, |(name, x), f| write!(f, "{name} = {x}"))?;
                f.write_str(" }")
            }
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Duration(Nanos(0)) => write!(f, "a duration such as \"2ms\""),
            Self::Duration(least) => write!(f, "a duration of at least \"{least}\""),
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
            Self::Places => write!(
                f,
                "a whole number from 0 per tenant: [0, 0, 1] in tenant order or {{ name = 0 }}"
            ),
        }
    }
}

/// A whole number from 0, below a bound that no device's number of places exceeds.
fn is_place(x: f64) -> bool {
    x.fract() == 0.0 && (0.0..1024.0).contains(&x)
}

/// What [`OptionSpec::check`] lets pass is of the field's kind.
fn other_kind<T>(value: &Value) -> Result<T, String> {
    Err(format!("`{}` has another type", value.plain()))
}

/// A type that is a [`Value`] of one variant.
macro_rules! plain {
    ($type:ty, $kind:expr, $variant:ident, |$read:ident| $from:expr, |$write:ident| $to:expr) => {
        impl OptionType for $type {
            const KIND: Kind = $kind;

            fn read(value: &Value) -> Result<Self, String> {
                match value {
                    Value::$variant($read) => Ok($from),
                    other => other_kind(other),
                }
            }

            fn value(&self) -> Option<Value> {
                let $write = self;
                Some(Value::$variant($to))
            }
        }
    };
}

plain!(Nanos, Kind::Duration(Nanos(0)), Duration, |d| *d, |d| *d);
plain!(bool, Kind::Bool, Bool, |b| *b, |b| *b);
plain!(String, Kind::Text, Text, |t| t.clone(), |t| t.clone());
plain!(Vec<String>, Kind::Texts, Texts, |t| t.clone(), |t| t.clone());

impl OptionType for u32 {
    const KIND: Kind = Kind::Integer(0, u32::MAX as i64);

    fn read(value: &Value) -> Result<Self, String> {
        match value {
            Value::Integer(i) => Self::try_from(*i).map_err(|_| format!("{i} does not fit")),
            other => other_kind(other),
        }
    }

    fn value(&self) -> Option<Value> {
        Some(Value::Integer(i64::from(*self)))
    }
}

impl OptionType for f64 {
    const KIND: Kind = Kind::Float(f64::NEG_INFINITY, f64::INFINITY);

    fn read(value: &Value) -> Result<Self, String> {
        match value {
            Value::Float(x) => Ok(*x),
            Value::Integer(i) => Ok(*i as f64),
            other => other_kind(other),
        }
    }

    fn value(&self) -> Option<Value> {
        Some(Value::Float(*self))
    }
}

impl<T: OptionType> OptionType for Option<T> {
    const KIND: Kind = T::KIND;

    fn read(value: &Value) -> Result<Self, String> {
        T::read(value).map(Some)
    }

    fn value(&self) -> Option<Value> {
        self.as_ref().and_then(T::value)
    }
}

impl<W: Words> OptionType for W {
    const KIND: Kind = Kind::Choice(W::WORDS);

    fn read(value: &Value) -> Result<Self, String> {
        match value {
            Value::Text(text) => W::of_word(text).ok_or_else(|| none_of(text, W::WORDS)),
            other => other_kind(other),
        }
    }

    fn value(&self) -> Option<Value> {
        Some(Value::Text(self.word().to_owned()))
    }
}

impl OptionType for Places {
    const KIND: Kind = Kind::Places;

    fn read(value: &Value) -> Result<Self, String> {
        match value {
            Value::Numbers(_) | Value::Table(_) => Ok(Self(value.clone())),
            other => other_kind(other),
        }
    }

    fn value(&self) -> Option<Value> {
        Some(self.0.clone())
    }
}

impl<W: Words> OptionType for PerTenant<W> {
    const KIND: Kind = Kind::PerTenant(W::WORDS);

    fn read(value: &Value) -> Result<Self, String> {
        match value {
            Value::Text(_) => W::read(value).map(Self::Word),
            Value::Numbers(_) | Value::Table(_) => Ok(Self::Given(value.clone())),
            other => other_kind(other),
        }
    }

    fn value(&self) -> Option<Value> {
        match self {
            Self::Word(word) => word.value(),
            Self::Given(value) => Some(value.clone()),
        }
    }
}

impl Setup {
    /// A per-tenant option as numbers in tenant order.
    ///
    /// # Errors
    /// A number is missing, or names no tenant.
    pub fn per_tenant(&self, option: &str, value: &Value) -> Result<Vec<f64>, LayoutError> {
        let names = || self.tenants.iter().map(|t| t.name.as_str());
        match value {
            Value::Numbers(list) if list.len() == self.tenants.len() => Ok(list.clone()),
            Value::Numbers(list) => Err(LayoutError(format!(
                "`{option}` has {} numbers for {} tenants",
                list.len(),
                self.tenants.len()
            ))),
            Value::Table(table) => {
                if let Some((name, _)) = table.iter().find(|(n, _)| !names().any(|t| t == n)) {
                    return Err(LayoutError(format!(
                        "`{option}` names `{name}`, which is not a tenant"
                    )));
                }
                let find = |name: &str| table.iter().find(|(n, _)| n == name).map(|(_, v)| *v);
                names()
                    .map(|name| {
                        let missing =
                            || LayoutError(format!("`{option}` has no number for `{name}`"));
                        find(name).ok_or_else(missing)
                    })
                    .collect()
            }
            other => Err(LayoutError(format!("`{option}` is not a number per tenant: {other:?}"))),
        }
    }
}
