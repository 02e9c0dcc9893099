//! The isolated baseline: one worker alone on the whole GPU, to which results are normalised.
//!
//! It always uses real costs and `mps` (which for one client is the GPU as it is). The latency is that of a
//! closed loop of one request at a time, with the sizes (items) of the tenant's own requests; the throughput
//! is that of a queue that never runs empty, at the tenant's own batch size.

use std::sync::Arc;

use cotenant_profiles::Nanos;
use cotenant_sim::contention::ContentionModel;
use cotenant_sim::metrics::Latencies;
use cotenant_sim::observe::{Happening, Observer};
use cotenant_sim::policy::{self, Options};
use cotenant_sim::scenario::{Setup, Think};
use cotenant_sim::{Load, Report, Scenario};
use cotenant_traces::Request;

use crate::jitter::LogNormal;

/// The performance of one worker alone.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Isolated {
    /// p95 latency of the tenant's requests, one at a time.
    pub(crate) p95: Nanos,
    /// Saturated throughput, requests/s.
    pub(crate) rps: f64,
    /// Simulated events of one request that runs alone; 0 for a one-shot tenant.
    pub(crate) events: f64,
}

/// Number of requests for the latency, and of batches for the throughput.
pub(crate) const SAMPLES: u64 = 64;
/// Batches before the throughput is counted.
const FILL: u64 = 4;
/// Longer than any 64 batches take; the run ends with its last request.
const LONG: Nanos = Nanos::from_secs(100_000);

/// Requests of one size, and the worker that serves each of them as one batch.
pub(crate) struct Size {
    /// Items of a request.
    pub(crate) items: u32,
    /// How many of the samples have this size.
    pub(crate) count: u64,
    /// A setup whose worker starts a batch as soon as it has this many items.
    pub(crate) setup: Arc<Setup>,
}

/// Runs the baseline: the latency over all `sizes`, the throughput with the tenant's own batches (`full`) of
/// requests of the most common size. `None` if the tenant does not fit on the GPU even alone; its cells will
/// then fail and report why.
pub(crate) fn measure(
    sizes: &[Size],
    full: &Arc<Setup>,
    contention: ContentionModel,
    jitter: f64,
) -> Option<Isolated> {
    let run = |setup: &Arc<Setup>, items: u32, concurrency: u32, limit: u64, done: &mut Done| {
        closed(setup, items, concurrency, limit, contention, jitter, done)
    };
    let mut latencies = Latencies::default();
    for size in sizes {
        let report = run(&size.setup, size.items, 1, size.count, &mut Done::default())?;
        latencies.merge(&report.tenants[0].counts.latencies);
    }
    let items = sizes.iter().max_by_key(|s| (s.count, s.items))?.items;
    let per_batch = (full.tenants[0].batch_max / items).max(1);
    let mut done = Done::default();
    run(full, items, 2 * per_batch, u64::from(per_batch) * (SAMPLES + FILL), &mut done)?;
    let rps = done.rate((FILL * u64::from(per_batch)) as usize);
    Some(Isolated { p95: latencies.quantile(0.95)?, rps: rps?, events: 0.0 })
}

fn closed(
    setup: &Arc<Setup>,
    items: u32,
    concurrency: u32,
    limit: u64,
    contention: ContentionModel,
    jitter: f64,
    done: &mut Done,
) -> Option<Report> {
    let mps = policy::find("mps").expect("the registry has mps");
    let mut policy = (mps.build)(&Options::default()).ok()?;
    let load = Load::Closed {
        concurrency,
        think: Think::Constant(Nanos::ZERO),
        items,
        limit: Some(limit),
        tokens: None,
    };
    let scenario = Scenario {
        setup: setup.clone(),
        loads: vec![load],
        warmup: Nanos::ZERO,
        duration: LONG,
        contention,
        jitter: LogNormal::boxed(jitter, 0, &[setup.tenants[0].name.as_str()]),
    };
    cotenant_sim::run(scenario, &mut *policy, Some(done)).ok()
}

/// Number of requests for the baseline of a tenant that generates tokens.
pub(crate) const GENERATING: usize = 48;
/// How many of them run one after another.
const ONE_BY_ONE: usize = 8;

/// The baseline of a tenant that generates tokens: p95 latency of its first few requests one at a time, and
/// the throughput of its first requests all at once.
pub(crate) fn generating(
    setup: &Arc<Setup>,
    requests: &[Request],
    contention: ContentionModel,
    jitter: f64,
) -> Option<Isolated> {
    let run = |requests: Vec<Request>, done: &mut Done| {
        let mps = policy::find("mps").expect("the registry has mps");
        let mut policy = (mps.build)(&Options::default()).ok()?;
        let scenario = Scenario {
            setup: setup.clone(),
            loads: vec![Load::Open(Box::new(requests.into_iter()))],
            warmup: Nanos::ZERO,
            duration: LONG,
            contention,
            jitter: LogNormal::boxed(jitter, 0, &[setup.tenants[0].name.as_str()]),
        };
        cotenant_sim::run(scenario, &mut *policy, Some(done)).ok()
    };
    let (mut latencies, mut events) = (Latencies::default(), 0.0);
    for (i, request) in requests.iter().take(ONE_BY_ONE).enumerate() {
        let at = Nanos(1 + i as u64);
        let report =
            run(vec![Request { arrival: at, session: 0, ..*request }], &mut Done::default())?;
        latencies.merge(&report.tenants[0].counts.latencies);
        events += report.events as f64;
    }
    let at_once = |r: &Request| Request { arrival: Nanos(1), session: 0, ..*r };
    let mut done = Done::default();
    run(requests.iter().map(at_once).collect(), &mut done)?;
    let last = done.0.last().copied()?;
    let rps = done.0.len() as f64 * 1e9 / last.max(1) as f64;
    events /= requests.len().clamp(1, ONE_BY_ONE) as f64;
    Some(Isolated { p95: latencies.quantile(0.95)?, rps, events })
}

/// When requests ended.
#[derive(Default)]
struct Done(Vec<u64>);

impl Done {
    /// Requests/s from the `skip`-th completion on.
    fn rate(&self, skip: usize) -> Option<f64> {
        let (first, last) = (self.0.get(skip)?, self.0.last()?);
        let span = last.checked_sub(*first).filter(|s| *s > 0)?;
        Some((self.0.len() - skip - 1) as f64 * 1e9 / span as f64)
    }
}

impl Observer for Done {
    fn happened(&mut self, now: Nanos, what: Happening) {
        if let Happening::RequestDone { .. } = what {
            self.0.push(now.0);
        }
    }

    fn watches_gpu(&self) -> bool {
        false
    }
}
