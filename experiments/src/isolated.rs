//! The isolated baseline: one worker alone on the whole GPU, the normaliser of results.
//!
//! Always with real costs, under `mps` (which for one client is the GPU as it is). The latency is
//! that of a closed loop of one request at a time; the throughput that of a queue that never runs
//! empty, at the tenant's own batch size.

use std::sync::Arc;

use cotenant_profiles::Nanos;
use cotenant_sim::contention::ContentionModel;
use cotenant_sim::observe::{Happening, Observer};
use cotenant_sim::policy::{self, Options};
use cotenant_sim::scenario::{Setup, Think};
use cotenant_sim::{Load, Report, Scenario};

use crate::jitter::LogNormal;

/// What one worker delivers alone.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Isolated {
    /// p95 latency of one request at a time.
    pub(crate) p95: Nanos,
    /// Saturated throughput, requests/s.
    pub(crate) rps: f64,
}

/// Requests behind the latency, and batches behind the throughput.
const SAMPLES: u64 = 64;
/// Batches that come before the throughput is counted.
const FILL: u64 = 4;
/// Longer than any 64 batches; the run ends with its last request.
const LONG: Nanos = Nanos::from_secs(100_000);

/// Runs the baseline: `single` serves one request per batch, `full` the tenant's own batches. `None`:
/// the tenant does not fit on the GPU even alone, so that its cells will fail and say why.
pub(crate) fn measure(
    single: &Arc<Setup>,
    full: &Arc<Setup>,
    contention: ContentionModel,
    jitter: f64,
) -> Option<Isolated> {
    let run = |setup: &Arc<Setup>, concurrency: u32, limit: u64, done: &mut Done| {
        closed(setup, concurrency, limit, contention, jitter, done)
    };
    let report = run(single, 1, SAMPLES, &mut Done::default())?;
    let p95 = report.tenants[0].counts.latencies.quantile(0.95);
    let batch = full.tenants[0].batch_max;
    let mut done = Done::default();
    run(full, 2 * batch, u64::from(batch) * (SAMPLES + FILL), &mut done)?;
    let rps = done.rate((FILL * u64::from(batch)) as usize);
    Some(Isolated { p95: p95?, rps: rps? })
}

fn closed(
    setup: &Arc<Setup>,
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
        items: 1,
        limit: Some(limit),
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
}
