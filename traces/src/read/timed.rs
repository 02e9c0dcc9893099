//! What the one-row-per-request formats share: the origin of time, the order, the accounting.

use std::sync::Arc;

use cotenant_profiles::Nanos;

use crate::error::TraceError;
use crate::row::{Row, Source, Tally};

/// One record of a foreign file.
pub(crate) struct Record {
    /// Its time, ns, on the format's own clock.
    pub(crate) at: u64,
    /// The row, without its arrival.
    pub(crate) row: Row,
    /// Why it is left out.
    pub(crate) drop: Option<&'static str>,
}

/// Parses one record after the other.
pub(crate) trait Parser: Send {
    fn next_record(&mut self) -> Result<Option<Record>, TraceError>;
    fn line(&self) -> u64;
}

/// Where time starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// At the format's own zero.
    Zero,
    /// At the first record.
    First,
}

/// Rows from a parser, in time order, from the start of the trace.
pub(crate) struct Timed<P> {
    parser: P,
    file: String,
    tally: Arc<Tally>,
    origin: Option<u64>,
    /// Resolution of the stamps: the trace ends this long after its last one.
    quantum: u64,
    last: Option<u64>,
    done: bool,
    /// Rows sorted in memory, when sorting was asked for.
    sorted: Option<std::vec::IntoIter<(u64, Row)>>,
    sort: bool,
}

impl<P: Parser> Timed<P> {
    pub(crate) fn new(
        parser: P,
        file: &str,
        origin: Origin,
        quantum: u64,
        sort: bool,
        tally: Arc<Tally>,
    ) -> Self {
        let origin = (origin == Origin::Zero).then_some(0);
        let (last, done, sorted) = (None, false, None);
        Self { parser, file: file.to_owned(), tally, origin, quantum, last, done, sorted, sort }
    }

    /// The next record that is kept.
    fn pull(&mut self) -> Result<Option<Record>, TraceError> {
        while let Some(record) = self.parser.next_record()? {
            self.tally.read();
            if !self.sort && self.origin.is_none() {
                self.origin = Some(record.at);
            }
            match record.drop {
                None => return Ok(Some(record)),
                Some(reason) => self.tally.drop_row(reason),
            }
        }
        Ok(None)
    }

    /// Reads everything and sorts it; equal times keep their order.
    fn read_all(&mut self) -> Result<(), TraceError> {
        let (mut rows, mut latest, mut warned) = (Vec::new(), 0, false);
        while let Some(record) = self.pull()? {
            if !warned && restarts(self.origin.unwrap_or(0), latest, record.at) {
                warned = true;
                self.tally.warn(format!(
                    "{}:{}: the clock restarts here: sorting interleaves two periods",
                    self.file,
                    self.parser.line()
                ));
            }
            latest = latest.max(record.at);
            rows.push((record.at, record.row));
        }
        rows.sort_by_key(|(at, _)| *at);
        self.origin = self.origin.or_else(|| rows.first().map(|(at, _)| *at));
        self.sorted = Some(rows.into_iter());
        Ok(())
    }
}

/// Whether a stamp behind `latest` looks like a second recording in the same file and not like
/// rows that overtook each other: it falls back to the first tenth of what has passed.
fn restarts(origin: u64, latest: u64, at: u64) -> bool {
    let passed = latest.saturating_sub(origin);
    at < latest && at.saturating_sub(origin) < passed / 10
}

/// What to say of a row that is earlier than the one before.
pub(crate) fn disorder(origin: u64, latest: u64, at: u64) -> String {
    let back = latest - at;
    if restarts(origin, latest, at) {
        return format!(
            "the clock restarts: this row is {} earlier than the one before. Sorting would \
             interleave the two periods; split the file here",
            Nanos(back)
        );
    }
    format!("this row is {back} ns earlier than the one before; convert with `sort`")
}

impl<P: Parser> Source for Timed<P> {
    fn next_row(&mut self) -> Result<Option<Row>, TraceError> {
        if self.sort && self.sorted.is_none() {
            self.read_all()?;
        }
        let next = match &mut self.sorted {
            Some(rows) => rows.next(),
            None => self.pull()?.map(|record| (record.at, record.row)),
        };
        let Some((at, mut row)) = next else {
            self.done = true;
            return Ok(None);
        };
        let earliest = self.last.or(self.origin).unwrap_or(at);
        if at < earliest {
            let problem = disorder(self.origin.unwrap_or(0), earliest, at);
            return Err(TraceError::line(&self.file, self.parser.line(), problem));
        }
        self.last = Some(at);
        row.arrival = Nanos(at - self.origin.unwrap_or(0));
        Ok(Some(row))
    }

    fn duration(&self) -> Option<Nanos> {
        let last = self.last.map(|at| at - self.origin.unwrap_or(0));
        self.done.then(|| Nanos(last.map_or(0, |last| last.saturating_add(self.quantum))))
    }
}
