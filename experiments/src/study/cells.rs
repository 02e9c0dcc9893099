//! The cells of a shard's commit record, in a compact form: a merge holds those of all shards in memory.

use std::fmt;
use std::ops::Index;

use serde::de::{Deserializer, SeqAccess, Visitor};
use serde::{Deserialize, Serialize, Serializer};

use super::names::Names;
use super::record::{Extra, Line, TABLES};

/// A cell as the file holds it.
#[derive(Deserialize, Serialize)]
struct Entry {
    cell: Line,
    /// Bytes of its rows in each table.
    bytes: [u64; TABLES.len()],
}

/// The cells of a shard, in the order of the plan.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cells {
    names: Names,
    finished: Vec<Finished>,
}

/// The outcome of a finished cell.
#[derive(Clone, Debug)]
pub(crate) struct Finished {
    pub(crate) events: u64,
    pub(crate) digest: u64,
    pub(crate) cpu_s: f64,
    /// Bytes of its rows in each table.
    pub(crate) bytes: [u64; TABLES.len()],
    /// `None` for a cell that succeeded and has no files of its own.
    more: Option<Box<More>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct More {
    status: String,
    extras: Vec<Extra>,
}

/// The status of a cell that succeeded.
const OK: &str = "ok";

impl Cells {
    /// Adds a cell, whose rows take `bytes` in each table.
    pub(crate) fn push(&mut self, line: Line, bytes: [u64; TABLES.len()]) {
        let Line { cell, status, events, digest, cpu_s, extras } = line;
        self.names.push(&cell);
        let plain = status == OK && extras.is_empty();
        let more = (!plain).then(|| Box::new(More { status, extras }));
        self.finished.push(Finished { events, digest, cpu_s, bytes, more });
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.names.iter()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Finished> {
        self.finished.iter()
    }

    /// Files of single cells.
    pub(crate) fn extras(&self) -> impl Iterator<Item = &Extra> {
        self.finished.iter().filter_map(|f| f.more.as_deref()).flat_map(|m| &m.extras)
    }

    /// Whether both hold the same cells with the same results, apart from the time they took.
    pub(crate) fn agrees(&self, other: &Self) -> bool {
        let timeless = |f: &Finished| (f.events, f.digest, f.bytes, f.more.clone());
        self.names == other.names && self.iter().map(timeless).eq(other.iter().map(timeless))
    }

    fn entry(&self, i: usize) -> Entry {
        let Finished { events, digest, cpu_s, bytes, more } = self.finished[i].clone();
        let (status, extras) = more.map_or((OK.to_owned(), vec![]), |m| (m.status, m.extras));
        let cell = self.names[i].to_owned();
        Entry { cell: Line { cell, status, events, digest, cpu_s, extras }, bytes }
    }
}

impl Index<usize> for Cells {
    type Output = Finished;

    fn index(&self, i: usize) -> &Finished {
        &self.finished[i]
    }
}

impl Serialize for Cells {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq((0..self.finished.len()).map(|i| self.entry(i)))
    }
}

impl<'de> Deserialize<'de> for Cells {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct List;
        impl<'de> Visitor<'de> for List {
            type Value = Cells;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of cells")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Cells, A::Error> {
                let mut cells = Cells::default();
                while let Some(Entry { cell, bytes }) = list.next_element()? {
                    cells.push(cell, bytes);
                }
                Ok(cells)
            }
        }
        deserializer.deserialize_seq(List)
    }
}
