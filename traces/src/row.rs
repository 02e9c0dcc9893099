//! One row of a trace, and streams of rows with their provenance and their accounting.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard};

use cotenant_profiles::Nanos;

use crate::error::TraceError;
use crate::request::Request;
use crate::rng::Rng;

/// One request of a trace, with everything a trace can say about it.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// From the start of the trace, not from its first row.
    pub arrival: Nanos,
    /// Who is charged: a function, a client, a group.
    pub tenant: Arc<str>,
    /// What runs; many tenants may share a model.
    pub model: Arc<str>,
    /// Samples in the request, at least 1.
    pub items: u32,
    /// Deadline relative to the arrival; `None`: the tenant's default.
    pub slo: Option<Nanos>,
    /// Larger is more urgent.
    pub prio: i8,
    /// Multiplies the profiled service time; finite and above 0.
    pub work: f32,
    /// Prompt tokens of a language-model request.
    pub tokens_in: Option<u32>,
    /// Generated tokens of a language-model request.
    pub tokens_out: Option<u32>,
    /// The conversation that the request belongs to.
    pub session: Option<Arc<str>>,
    /// Values of the stream's `x_*` columns, in their order.
    pub extra: Vec<Arc<str>>,
}

impl Row {
    /// A plain request of one item.
    #[must_use]
    pub fn new(arrival: Nanos, tenant: Arc<str>, model: Arc<str>) -> Self {
        Self {
            arrival,
            tenant,
            model,
            items: 1,
            slo: None,
            prio: 0,
            work: 1.0,
            tokens_in: None,
            tokens_out: None,
            session: None,
            extra: Vec::new(),
        }
    }

    /// What the simulator needs of the row.
    #[must_use]
    pub fn request(&self) -> Request {
        Request {
            arrival: self.arrival,
            items: self.items,
            slo: self.slo,
            prio: self.prio,
            work: self.work,
            tokens_in: self.tokens_in.unwrap_or(0),
            tokens_out: self.tokens_out.unwrap_or(0),
            session: self.session.as_deref().map_or(0, number),
        }
    }
}

/// A conversation as a number above 0: the same name gives the same number.
fn number(session: &str) -> u64 {
    Rng::for_names(0, &[session]).next_u64().max(1)
}

/// Which optional columns a stream fills; the writer leaves the others out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Columns {
    /// `items` is written.
    pub items: bool,
    /// `slo_ns` is written.
    pub slo: bool,
    /// `prio` is written.
    pub prio: bool,
    /// `work` is written.
    pub work: bool,
    /// `tokens_in` and `tokens_out` are written.
    pub tokens: bool,
    /// `session` is written.
    pub session: bool,
    /// Names of the pass-through columns, each starting with `x_`.
    pub extra: Vec<String>,
}

/// The `# key=value` lines of a trace, in order; `transform` and `earlier` may repeat.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Meta(pub Vec<(String, String)>);

impl Meta {
    /// The last value of `key`.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.iter().rev().find(|(k, _)| k == key).map(|(_, v)| v.as_str())
    }

    /// Adds a line. Line ends within the value become spaces.
    pub fn push(&mut self, key: &str, value: impl Into<String>) {
        self.0.push((key.to_owned(), value.into().replace(['\n', '\r'], " ")));
    }

    /// Replaces every line of `key` by one.
    pub fn set(&mut self, key: &str, value: impl Into<String>) {
        self.0.retain(|(k, _)| k != key);
        self.push(key, value);
    }
}

/// Where every row of a conversion went. Shared by the stages of one stream.
#[derive(Debug, Default)]
pub struct Tally(Mutex<Counts>);

/// The numbers of a [`Tally`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Requests that were read, expanded from counts, or added by a transform.
    pub rows_in: u64,
    /// Requests left out, by reason.
    pub dropped: BTreeMap<String, u64>,
    /// Requests that a transform added (they are part of `rows_in`), by transform.
    pub added: BTreeMap<String, u64>,
    /// What a user should know about the data.
    pub warnings: Vec<String>,
}

impl Tally {
    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// One more request came in.
    pub fn read(&self) {
        self.lock().rows_in += 1;
    }

    /// One request was left out.
    pub fn drop_row(&self, reason: &str) {
        self.drop_rows(reason, 1);
    }

    /// `n` requests were left out; a reason with 0 is listed too.
    pub fn drop_rows(&self, reason: &str, n: u64) {
        let mut counts = self.lock();
        match counts.dropped.get_mut(reason) {
            Some(count) => *count += n,
            None => drop(counts.dropped.insert(reason.to_owned(), n)),
        }
    }

    /// A transform made `n` requests that the source does not have.
    pub fn add_rows(&self, transform: &str, n: u64) {
        let mut counts = self.lock();
        counts.rows_in += n;
        *counts.added.entry(transform.to_owned()).or_default() += n;
    }

    /// Something a user should know.
    pub fn warn(&self, text: impl Into<String>) {
        self.lock().warnings.push(text.into());
    }

    /// The numbers so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.lock().clone()
    }
}

/// Rows in time order, pulled one at a time.
pub trait Source: Send {
    /// The next row, not earlier than the one before; `None` at the end.
    ///
    /// # Errors
    /// What is wrong with the input, with file and line. The source is not to be used after it.
    fn next_row(&mut self) -> Result<Option<Row>, TraceError>;

    /// Length of the trace; known at the latest once the source is exhausted.
    fn duration(&self) -> Option<Nanos>;
}

/// A trace being read: its rows, their columns, where they come from, what became of them.
pub struct Stream {
    /// The file, or what generates the rows.
    pub name: String,
    /// `# key=value` lines.
    pub meta: Meta,
    /// Optional columns in use.
    pub columns: Columns,
    /// Accounting, complete once the rows are exhausted.
    pub tally: Arc<Tally>,
    /// The rows.
    pub rows: Box<dyn Source>,
}

impl std::fmt::Debug for Stream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stream").field("name", &self.name).field("meta", &self.meta).finish()
    }
}

impl Iterator for Stream {
    type Item = Result<Row, TraceError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.rows.next_row().transpose()
    }
}

/// One copy of every name: rows share them.
#[derive(Debug, Default)]
pub(crate) struct Names(HashSet<Arc<str>>);

impl Names {
    pub(crate) fn get(&mut self, name: &str) -> Arc<str> {
        if let Some(known) = self.0.get(name) {
            return Arc::clone(known);
        }
        let name: Arc<str> = Arc::from(name);
        self.0.insert(Arc::clone(&name));
        name
    }
}

/// What a tenant or model name may look like.
pub(crate) const NAME_RULE: &str = "a name of 1 to 64 letters, digits or ._:-";

pub(crate) fn is_name(text: &str) -> bool {
    let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b':' | b'-');
    (1..=64).contains(&text.len()) && text.bytes().all(legal)
}

/// A legal name for a foreign one: the name itself where it is legal and short enough, the first
/// 16 digits of a long hexadecimal hash, else a legal prefix and a hash of the whole.
pub(crate) fn legal_name(text: &str, longest: usize) -> String {
    if is_name(text) && text.len() <= longest {
        return text.to_owned();
    }
    if text.len() >= 32 && text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return text[..16].to_owned();
    }
    let hash = text.bytes().fold(0, |h, b| crate::rng::mix(h ^ u64::from(b)).wrapping_add(1));
    let legal = |c: char| if is_name(c.encode_utf8(&mut [0; 4])) { c } else { '_' };
    let prefix: String = text.chars().take(longest - 9).map(legal).collect();
    format!("{prefix}-{:08x}", hash >> 32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_names_become_legal_and_stay_apart() {
        assert_eq!(legal_name("GPT-4", 64), "GPT-4");
        assert_eq!(legal_name(&"ab".repeat(32), 31), "ab".repeat(8));
        for text in ["", "a b", "Straße", &"x".repeat(300)] {
            let name = legal_name(text, 31);
            assert!(is_name(&name) && name.len() <= 31, "{text}: {name}");
        }
        let long = "x".repeat(300);
        assert_ne!(legal_name(&long, 31), legal_name(&format!("{long}y"), 31));
        assert_ne!(legal_name("a b", 31), legal_name("a_b", 31));
    }
}
