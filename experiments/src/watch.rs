//! Optional records of a run besides its counts: a time series, a timeline, a request log.

use std::io::{self, BufWriter, Seek as _, Write as _};

use cotenant_profiles::Nanos;
use cotenant_sim::observe::{Happening, Observer};
use cotenant_sim::timeline::Timeline;
use serde::{Deserialize, Serialize};
use tempfile::SpooledTempFile;

/// Most events of a timeline: about 150 MB of JSON.
const TIMELINE_LIMIT: usize = 2_000_000;

/// What to watch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub(crate) struct Wants {
    /// Quantiles of latency (`cdf.csv`).
    pub(crate) cdf: bool,
    /// Time bins (`series.csv`).
    pub(crate) series: bool,
    /// Every request (`requests/<cell>.csv.zst`).
    pub(crate) requests: bool,
    /// The same as `requests/<cell>.parquet`.
    pub(crate) parquet: bool,
    /// Every kernel (`timeline/<cell>.json`).
    pub(crate) timeline: bool,
}

/// An observer that passes events on to the requested ones.
pub(crate) struct Watch {
    pub(crate) series: Option<Series>,
    pub(crate) requests: Option<RequestLog>,
    pub(crate) timeline: Option<Timeline>,
}

impl Watch {
    /// Watches the tenants `names` from the end of the warm-up.
    pub(crate) fn new(
        wants: Wants,
        names: &[&str],
        warmup: Nanos,
        duration: Nanos,
        bin: Nanos,
    ) -> Self {
        let end = Nanos(warmup.0.saturating_add(duration.0));
        Self {
            series: wants.series.then(|| Series::new(names.len(), warmup, end, bin)),
            requests: wants.requests.then(|| RequestLog::new(names)),
            timeline: wants.timeline.then(|| Timeline::new(warmup, end, TIMELINE_LIMIT)),
        }
    }

    /// Whether nothing is watched.
    pub(crate) fn is_idle(&self) -> bool {
        self.series.is_none() && self.requests.is_none() && self.timeline.is_none()
    }
}

impl Observer for Watch {
    fn happened(&mut self, now: Nanos, what: Happening) {
        if let Some(series) = &mut self.series {
            series.happened(now, what);
        }
        if let Some(requests) = &mut self.requests {
            requests.happened(now, what);
        }
        if let Some(timeline) = &mut self.timeline {
            timeline.happened(now, what);
        }
    }

    fn watches_gpu(&self) -> bool {
        self.series.is_some() || self.timeline.is_some()
    }
}

/// Completions, p95 latency and busy CUs per time bin.
pub(crate) struct Series {
    from: u64,
    end: u64,
    bin: u64,
    tenants: usize,
    current: usize,
    /// Latencies of the current bin, by tenant, ns.
    latencies: Vec<Vec<u64>>,
    /// CUs in use, by pool.
    busy: Vec<u64>,
    since: u64,
    /// CU × ns of the current bin.
    area: u128,
    bins: Vec<Bin>,
}

/// One bin.
pub(crate) struct Bin {
    /// Completions and p95 latency (ns) of each tenant and, last, of all together.
    pub(crate) served: Vec<(u64, Option<u64>)>,
    /// Mean CUs in use.
    pub(crate) busy: f64,
}

impl Series {
    fn new(tenants: usize, from: Nanos, end: Nanos, bin: Nanos) -> Self {
        Self {
            from: from.0,
            end: end.0,
            bin: bin.0.max(1),
            tenants,
            current: 0,
            latencies: vec![vec![]; tenants],
            busy: vec![],
            since: from.0,
            area: 0,
            bins: vec![],
        }
    }

    fn end_of(&self, bin: usize) -> u64 {
        self.from.saturating_add(self.bin.saturating_mul(bin as u64 + 1)).min(self.end)
    }

    /// Closes every bin that ends at or before `now`.
    fn advance(&mut self, now: u64) {
        while self.since < self.end && now >= self.end_of(self.current) {
            let end = self.end_of(self.current);
            self.integrate(end);
            self.close(end);
        }
        self.integrate(now.min(self.end));
    }

    fn integrate(&mut self, to: u64) {
        if to > self.since {
            let busy: u64 = self.busy.iter().sum();
            self.area += u128::from(busy) * u128::from(to - self.since);
            self.since = to;
        }
    }

    fn close(&mut self, end: u64) {
        let start = self.from + self.bin * self.current as u64;
        let mut all: Vec<u64> = self.latencies.iter().flatten().copied().collect();
        let mut served: Vec<_> = self.latencies.iter_mut().map(|l| p95(l)).collect();
        served.push(p95(&mut all));
        self.latencies.iter_mut().for_each(Vec::clear);
        let span = (end - start).max(1);
        self.bins.push(Bin { served, busy: self.area as f64 / span as f64 });
        self.area = 0;
        self.current += 1;
    }

    fn happened(&mut self, now: Nanos, what: Happening) {
        match what {
            Happening::Busy { pool, cus } => {
                self.advance(now.0);
                let pool = pool as usize;
                if self.busy.len() <= pool {
                    self.busy.resize(pool + 1, 0);
                }
                self.busy[pool] = u64::from(cus);
            }
            Happening::RequestDone { tenant, arrival } => {
                self.advance(now.0);
                if now.0 >= self.from && now.0 < self.end {
                    self.latencies[tenant as usize].push(now.0 - arrival.0);
                }
            }
            _ => {}
        }
    }

    /// The bins up to the end of the run.
    pub(crate) fn finish(mut self) -> (Vec<Bin>, usize) {
        self.advance(self.end);
        (self.bins, self.tenants)
    }
}

/// The number of values, and their nearest-rank 95th percentile.
fn p95(values: &mut [u64]) -> (u64, Option<u64>) {
    values.sort_unstable();
    let n = values.len();
    let rank = (n * 95).div_ceil(100).max(1);
    (n as u64, values.get(rank - 1).copied())
}

/// A request log up to this size, in bytes, stays in memory; a larger one goes to an unnamed file in the
/// system's folder for temporary files.
const SPOOL: usize = 16 << 20;

/// One line of CSV per finished request, warm-up included, after a header.
pub(crate) struct RequestLog {
    names: Vec<String>,
    lines: BufWriter<SpooledTempFile>,
    failed: Option<io::Error>,
}

impl RequestLog {
    fn new(names: &[&str]) -> Self {
        let mut lines = BufWriter::new(SpooledTempFile::new(SPOOL));
        let failed = writeln!(lines, "tenant,arrival_ns,end_ns,latency_ns,outcome").err();
        Self { names: names.iter().map(|n| (*n).to_owned()).collect(), lines, failed }
    }

    /// The first failure is reported at the end: an observer cannot return it.
    fn happened(&mut self, now: Nanos, what: Happening) {
        if self.failed.is_some() {
            return;
        }
        let (lines, name) = (&mut self.lines, |tenant: u32| &self.names[tenant as usize]);
        let written = match what {
            Happening::RequestDone { tenant, arrival } => {
                let (name, took) = (name(tenant), now.0 - arrival.0);
                writeln!(lines, "{name},{},{},{took},completed", arrival.0, now.0)
            }
            Happening::Dropped { tenant } => {
                writeln!(lines, "{},,{},,dropped", name(tenant), now.0)
            }
            _ => return,
        };
        self.failed = written.err();
    }

    /// The text, positioned at its beginning.
    ///
    /// # Errors
    /// The log could not be written.
    pub(crate) fn text(self) -> io::Result<SpooledTempFile> {
        if let Some(e) = self.failed {
            return Err(e);
        }
        let mut text = self.lines.into_inner().map_err(io::IntoInnerError::into_error)?;
        text.rewind()?;
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    #[test]
    fn bins_hold_what_happened_in_them() {
        let mut s = Series::new(1, Nanos(100), Nanos(350), Nanos(100));
        let done = |arrival| Happening::RequestDone { tenant: 0, arrival: Nanos(arrival) };
        s.happened(Nanos(50), Happening::Busy { pool: 0, cus: 10 });
        s.happened(Nanos(60), done(0));
        s.happened(Nanos(150), Happening::Busy { pool: 0, cus: 20 });
        s.happened(Nanos(160), done(100));
        s.happened(Nanos(250), Happening::Busy { pool: 0, cus: 0 });
        s.happened(Nanos(340), done(300));
        let (bins, _) = s.finish();
        let got: Vec<_> = bins.iter().map(|b| (b.served[0], b.busy)).collect();
        let want = [((1, Some(60)), 15.0), ((0, None), 10.0), ((1, Some(40)), 0.0)];
        assert_eq!(got, want);
    }

    #[test]
    fn a_request_log_beyond_memory_reads_back_whole() {
        let mut log = RequestLog::new(&["a"]);
        let n = SPOOL as u64 / 20;
        for at in 0..n {
            log.happened(Nanos(at + 5), Happening::RequestDone { tenant: 0, arrival: Nanos(at) });
        }
        let mut text = String::new();
        log.text().unwrap().read_to_string(&mut text).unwrap();
        assert!(text.len() > SPOOL);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len() as u64, n + 1);
        assert_eq!(lines[1], "a,0,5,5,completed");
        assert_eq!(lines[n as usize], format!("a,{},{},5,completed", n - 1, n + 4));
    }

    #[test]
    fn the_95th_of_few_is_the_largest() {
        assert_eq!(p95(&mut []), (0, None));
        assert_eq!(p95(&mut [3, 1]), (2, Some(3)));
        assert_eq!(p95(&mut (1..=100).collect::<Vec<_>>()), (100, Some(95)));
    }
}
