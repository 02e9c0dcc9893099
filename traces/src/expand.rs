//! Counts and rates per bin become requests. A client's process runs on across bin edges: what is
//! left of a gap at the end of one bin is carried into the next, at the next bin's rate.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;

use cotenant_profiles::Nanos;

use crate::error::{TraceError, hint};
use crate::generate::Gap;
use crate::rng::Rng;
use crate::row::{Row, Source, Tally};

/// How a count is expanded to requests.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Expand {
    /// Exactly the count, each uniform in its bin: a Poisson process conditioned on its totals.
    #[default]
    PoissonN,
    /// A Poisson process whose rate is the count: the totals become random.
    PoissonRate,
    /// Exactly the count, equally spaced, at a random phase per tenant: timers.
    Even,
    /// Gamma gaps of this coefficient of variation at the count's rate: the totals become random.
    Gamma(f64),
}

impl std::str::FromStr for Expand {
    type Err = TraceError;

    fn from_str(text: &str) -> Result<Self, TraceError> {
        match text {
            "poisson-n" => return Ok(Self::PoissonN),
            "poisson-rate" => return Ok(Self::PoissonRate),
            "even" => return Ok(Self::Even),
            _ => {}
        }
        if let Some(cv) = text.strip_prefix("gamma:") {
            return match cv.parse::<f64>() {
                Ok(cv) if (0.0..=1000.0).contains(&cv) => Ok(Self::Gamma(cv)),
                _ => Err(TraceError::spec("expand", format!("`{cv}` is not a cv from 0 to 1000"))),
            };
        }
        let known = ["poisson-n", "poisson-rate", "even", "gamma:CV"];
        let hint = hint(text, known);
        Err(TraceError::spec("expand", format!("`{text}` is unknown{hint}")))
    }
}

impl std::fmt::Display for Expand {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::PoissonN => f.write_str("poisson-n"),
            Self::PoissonRate => f.write_str("poisson-rate"),
            Self::Even => f.write_str("even"),
            Self::Gamma(cv) => write!(f, "gamma:{cv}"),
        }
    }
}

/// The largest count that one client may have in one bin: counts of a bin are expanded in memory.
pub(crate) const LARGEST_COUNT: u64 = 100_000_000;

/// The demand of one client in one bin.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Demand {
    /// This many requests, expanded as the options say.
    Count(u64),
    /// A renewal process with this mean number of requests in the bin.
    Renewal { expected: f64, gap: Gap },
}

/// Bins in time order.
pub(crate) trait Bins: Send {
    /// Fills `out` with (client, demand) of the next bin and returns its start; `None` at the end.
    /// A client index counts from 0 and is new exactly when it equals the number seen so far.
    fn next_bin(&mut self, out: &mut Vec<(usize, Demand)>) -> Result<Option<u64>, TraceError>;

    /// A row of the client with everything but its arrival.
    fn template(&self, client: usize) -> &Row;

    /// Length of a bin, ns, above 0.
    fn bin_ns(&self) -> u64;

    /// The end of the last bin so far.
    fn end(&self) -> u64;
}

struct Client {
    rng: Rng,
    phase: f64,
    /// Gap left at the end of the last bin, in units of the mean gap.
    left: Option<f64>,
    /// Its process in the current bin, while requests of it are to come.
    process: Option<Process>,
}

/// A renewal process within a bin.
#[derive(Clone, Copy)]
struct Process {
    expected: f64,
    gap: Gap,
    /// The next arrival, in units of the mean gap from the start of the bin.
    at: f64,
}

/// A bin on the clock.
#[derive(Clone, Copy, Default)]
struct Span {
    start: u64,
    len: u64,
}

impl Span {
    /// The instant so far into it.
    fn place(self, share: f64) -> u64 {
        self.start.saturating_add(((share * self.len as f64) as u64).min(self.len - 1))
    }
}

/// Expands bins to rows: the counts of one bin in memory at a time, and of processes the next request.
pub(crate) struct Binned<B> {
    bins: B,
    mode: Expand,
    seed: u64,
    clients: Vec<Client>,
    demands: Vec<(usize, Demand)>,
    span: Span,
    /// Counted arrivals of the current bin, latest first.
    ready: Vec<(u64, usize)>,
    /// The next arrival of every process that has one in the current bin.
    running: BinaryHeap<Reverse<(u64, usize)>>,
    tally: Arc<Tally>,
    done: bool,
}

impl<B: Bins> Binned<B> {
    pub(crate) fn new(bins: B, mode: Expand, seed: u64, tally: Arc<Tally>) -> Self {
        Self {
            bins,
            mode,
            seed,
            clients: Vec::new(),
            demands: Vec::new(),
            span: Span::default(),
            ready: Vec::new(),
            running: BinaryHeap::new(),
            tally,
            done: false,
        }
    }

    /// Expands the next bin; false at the end.
    fn refill(&mut self) -> Result<bool, TraceError> {
        self.demands.clear();
        let Some(start) = self.bins.next_bin(&mut self.demands)? else { return Ok(false) };
        let demands = std::mem::take(&mut self.demands);
        self.span = Span { start, len: self.bins.bin_ns() };
        for &(client, demand) in &demands {
            while self.clients.len() <= client {
                let row = self.bins.template(self.clients.len());
                let mut rng = Rng::for_names(self.seed, &[&row.tenant, "expand"]);
                let phase = rng.uniform();
                self.clients.push(Client { rng, phase, left: None, process: None });
            }
            self.expand(client, demand);
        }
        let drawn = demands.iter().map(|(client, _)| *client);
        let mut drawn: Vec<usize> =
            drawn.filter(|&client| self.clients[client].process.is_some()).collect();
        drawn.sort_unstable();
        drawn.dedup();
        drawn.into_iter().for_each(|client| self.run(client));
        self.demands = demands;
        // Ties go by client; equal pairs are the same request, so that any sort gives one order.
        self.ready.sort_unstable_by(|a, b| b.cmp(a));
        Ok(true)
    }

    fn expand(&mut self, index: usize, demand: Demand) {
        let (span, client) = (self.span, &mut self.clients[index]);
        let (expected, gap) = match (demand, self.mode) {
            (Demand::Count(n), Expand::PoissonN) => {
                self.ready.extend((0..n).map(|_| (span.place(client.rng.uniform()), index)));
                return;
            }
            (Demand::Count(n), Expand::Even) => {
                let at = |i| span.place((i as f64 + client.phase) / n as f64);
                self.ready.extend((0..n).map(|i| (at(i), index)));
                return;
            }
            (Demand::Count(n), Expand::PoissonRate) => (n as f64, Gap::Exponential),
            (Demand::Count(n), Expand::Gamma(cv)) => (n as f64, Gap::gamma_cv(cv)),
            (Demand::Renewal { expected, gap }, _) => (expected, gap),
        };
        if expected <= 0.0 {
            return;
        }
        // A second one in the same bin continues where the first ends.
        while let Some(at) = client.next(span) {
            self.ready.push((at, index));
        }
        let at = client.left.unwrap_or_else(|| gap.draw(&mut client.rng));
        client.process = Some(Process { expected, gap, at });
    }

    /// A client's next request of the current bin waits among the others.
    fn run(&mut self, index: usize) {
        if let Some(at) = self.clients[index].next(self.span) {
            self.running.push(Reverse((at, index)));
        }
    }

    /// The next arrival of the current bin; ties go by client.
    fn next(&mut self) -> Option<(u64, usize)> {
        match (self.ready.last(), self.running.peek()) {
            (Some(counted), Some(Reverse(drawn))) if counted <= drawn => self.ready.pop(),
            (_, Some(_)) => {
                let Reverse(drawn) = self.running.pop()?;
                self.run(drawn.1);
                Some(drawn)
            }
            _ => self.ready.pop(),
        }
    }
}

impl Client {
    /// The next arrival of its process; `None` at the end of the bin.
    fn next(&mut self, span: Span) -> Option<u64> {
        let process = self.process.as_mut()?;
        let at = process.at;
        if at < process.expected {
            process.at += process.gap.draw(&mut self.rng);
            return Some(span.place(at / process.expected));
        }
        self.left = Some(at - process.expected);
        self.process = None;
        None
    }
}

impl<B: Bins> Source for Binned<B> {
    fn next_row(&mut self) -> Result<Option<Row>, TraceError> {
        let (at, client) = loop {
            if let Some(next) = self.next() {
                break next;
            }
            if self.done || !self.refill()? {
                self.done = true;
                return Ok(None);
            }
        };
        self.tally.read();
        let mut row = self.bins.template(client).clone();
        row.arrival = Nanos(at);
        Ok(Some(row))
    }

    fn duration(&self) -> Option<Nanos> {
        self.done.then(|| Nanos(self.bins.end()))
    }
}
