//! Sharing policies: the trait, the options, and the registry.
//!
//! A policy is one file in `policy/`: what it models and what it gives up, its options, its state,
//! its decisions, its tests. It has no clock, no thread and no GPU. To add one, write the file, then
//! add its `mod` line and its line in [`ALL`] below; nothing else names it.

use std::fmt;

use cotenant_profiles::Nanos;

use crate::action::{Action, Event};
use crate::layout::Layout;
use crate::scenario::Setup;
use crate::view::View;

mod autotune;
mod clipper;
mod coalesce;
mod dnnscaler;
mod dstack;
mod eclip;
mod gslice;
mod ideal;
mod krisp;
mod mig;
mod mps;
mod mps_percent;
mod mps_static;
mod streams;
mod temporal;

/// Every policy.
#[rustfmt::skip] // one line each: adding a policy adds a line
pub const ALL: &[&PolicyInfo] = &[
    &temporal::INFO,
    &mps::INFO,
    &mps_percent::INFO,
    &mps_static::INFO,
    &mig::INFO,
    &gslice::INFO,
    &krisp::INFO,
    &eclip::INFO,
    &dstack::INFO,
    &autotune::INFO,
    &dnnscaler::INFO,
    &clipper::INFO,
    &streams::INFO,
    &coalesce::INFO,
    &ideal::INFO,
];

/// How deep a policy looks. The deeper, the more it is asked; below its depth streams run free.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Depth {
    /// It lays tenants out once and is not asked again.
    Layout,
    /// It is told of requests and batches, and may change batching, workers and shares.
    Request,
    /// It also decides when a batch starts, and on which worker.
    Batch,
    /// It also launches every kernel.
    Kernel,
}

/// Decides; the driver acts.
pub trait Policy: Send {
    /// How deep it looks.
    fn depth(&self) -> Depth;

    /// Whether it starts batches itself ([`Action::Dispatch`]); otherwise the driver does, when a
    /// batch is full or has waited long enough.
    fn forms_batches(&self) -> bool {
        self.depth() >= Depth::Batch
    }

    /// Where tenants go before the first request.
    ///
    /// # Errors
    /// The device cannot do it (no instance fits, more clients than it admits).
    fn layout(&mut self, setup: &Setup) -> Result<Layout, LayoutError>;

    /// Something happened; `act` takes what to do about it, in order.
    fn event(&mut self, event: Event, view: &View<'_>, act: &mut Vec<Action>) {
        let _ = (event, view, act);
    }

    /// What it counted, for the results: names and numbers (kernels without a profile, merges…).
    fn counters(&self) -> Vec<(&'static str, f64)> {
        vec![]
    }
}

/// A policy cannot lay these tenants out on this device.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct LayoutError(pub String);

/// A registry entry.
pub struct PolicyInfo {
    /// The name that experiment files use.
    pub name: &'static str,
    /// One line: what it does.
    pub summary: &'static str,
    /// Who described it.
    pub source: &'static str,
    /// What it promises; the conformance tests hold it to that.
    pub properties: Properties,
    /// Its options.
    pub options: &'static [OptionSpec],
    /// Makes one from checked options.
    pub build: fn(&Options) -> Result<Box<dyn Policy>, OptionError>,
}

/// Promises that tests check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Properties {
    /// No CU idles while a launched kernel could use it.
    pub work_conserving: bool,
    /// A tenant alone runs as if it were isolated.
    pub alone_is_isolated: bool,
    /// Every tenant makes progress whatever the others do.
    pub starvation_free: bool,
}

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

    /// A word.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<&str> {
        match self.get(name)? {
            Value::Text(t) => Some(t),
            _ => None,
        }
    }
}

impl PolicyInfo {
    /// The option of that name.
    #[must_use]
    pub fn option(&self, name: &str) -> Option<&'static OptionSpec> {
        self.options.iter().find(|o| o.name == name)
    }
}

/// The policy of that name.
#[must_use]
pub fn find(name: &str) -> Option<&'static PolicyInfo> {
    ALL.iter().find(|p| p.name == name).copied()
}
