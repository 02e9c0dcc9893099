//! Computes one cell. The result depends only on the cell.

mod fleet;

use cotenant_profiles::Nanos;
use cotenant_results::Metric;
use cotenant_results::columns::OVERLOADED;
use cotenant_sim::metrics::TokenCounts;
use cotenant_sim::report::{GpuReport, TenantReport};
use cotenant_sim::scenario::{Setup, Think};
use cotenant_sim::{Load, Report, Scenario};
use cotenant_traces::Rng;

use crate::budget;
use crate::config::{Experiment, Point, PolicyRow};
use crate::jitter::LogNormal;
use crate::layouts;
use crate::metrics::Metrics;
use crate::panics::guarded;
use crate::plan::Cell;
use crate::prepare::Prepared;
use crate::watch::{Bin, RequestLog, Wants, Watch};

/// The results of a cell.
#[derive(Default)]
pub(crate) struct Outcome {
    /// `ok`, or why there are no results.
    pub(crate) status: String,
    /// For each tenant, then for the whole GPU; empty unless `ok`.
    pub(crate) metrics: Vec<Metrics>,
    /// For each tenant, then for the whole GPU: the status to show instead of `ok` if a queue grew through
    /// the whole window.
    pub(crate) overloaded: Vec<Option<String>>,
    pub(crate) events: u64,
    pub(crate) digest: u64,
    /// Context switches within the window.
    pub(crate) context_switches: u64,
    /// Processor time, s.
    pub(crate) cpu_s: f64,
    /// The policy's counters, and dropped requests by tenant and reason.
    pub(crate) counters: Vec<Counted>,
    /// Fields of `layouts.csv` for each worker.
    pub(crate) layout: Vec<Vec<String>>,
    /// Fields of `gpus.csv` for each GPU and tenant.
    pub(crate) gpus: Vec<Vec<String>>,
    /// Index among the tenants and `*`, quantile, latency in ms.
    pub(crate) cdf: Vec<(usize, f64, f64)>,
    /// Time bins.
    pub(crate) series: Vec<Bin>,
    /// `requests/<cell>.csv`, not yet compressed.
    pub(crate) requests: Option<RequestLog>,
    /// `timeline/<cell>.json`, and the number of events that it lacks.
    pub(crate) timeline: Option<(String, u64)>,
}

impl Outcome {
    pub(crate) fn is_ok(&self) -> bool {
        self.status == "ok"
    }
}

/// Computes a cell; any failure becomes its status.
pub(crate) fn compute(e: &Experiment, ready: &Prepared, cell: &Cell, wants: Wants) -> Outcome {
    let point = &e.point;
    let row = &point.policies[cell.policy];
    let start = cpu_time();
    let mut outcome = caught(|| {
        let most = budget::check(point, row, ready)?;
        simulate(e, ready, point, row, cell, wants, most)
    });
    outcome.cpu_s = cpu_time() - start;
    outcome
}

/// Runs `compute`; any failure, a panic included, becomes the status of the cell.
pub(crate) fn caught(compute: impl FnOnce() -> Result<Outcome, String>) -> Outcome {
    match guarded(compute).and_then(|outcome| outcome) {
        Ok(outcome) => outcome,
        Err(why) => Outcome { status: why.replace(['\n', '\r'], " "), ..Outcome::default() },
    }
}

/// Processor time of this thread if the system reports it, else elapsed time, s. Only for the event rate: no
/// result depends on it.
fn cpu_time() -> f64 {
    static START: std::sync::OnceLock<std::time::Instant> = std::sync::OnceLock::new();
    let told = std::fs::read_to_string("/proc/thread-self/schedstat").ok();
    let ns = told.and_then(|t| t.split_whitespace().next()?.parse::<u64>().ok());
    match ns {
        Some(ns) => ns as f64 / 1e9,
        None => START.get_or_init(std::time::Instant::now).elapsed().as_secs_f64(),
    }
}

fn simulate(
    e: &Experiment,
    ready: &Prepared,
    point: &Point,
    row: &PolicyRow,
    cell: &Cell,
    wants: Wants,
    most: u64,
) -> Result<Outcome, String> {
    if !ready.gpus.is_empty() {
        return fleet::simulate(e, ready, cell, wants);
    }
    let mut policy = (row.info.build)(&row.options).map_err(|e| e.to_string())?;
    let names: Vec<&str> = point.tenants.iter().map(|t| t.name.as_str()).collect();
    let scenario = scenario(e, ready, cell)?;
    let mut watch = Watch::new(wants, &names, point.warmup, point.duration, bin(point));
    let report = if watch.is_idle() {
        cotenant_sim::run_within(scenario, &mut *policy, None, most)
    } else {
        cotenant_sim::run_within(scenario, &mut *policy, Some(&mut watch), most)
    };
    let report = report.map_err(|refusal| refusal.to_string())?;
    if let Some(at) = report.cut.filter(|&at| at <= point.warmup) {
        return Err(format!(
            "over-budget: {most} requests wait after {at}, before the warm-up is over: lower the load, \
             give tenants `drop_after`, or raise --memory"
        ));
    }
    let timeline = watch.timeline.take().map(|t| {
        let workers = worker_names(ready, row, &names);
        let name =
            |w: u32| workers.get(w as usize).cloned().unwrap_or_else(|| format!("worker {w}"));
        (t.chrome(&name, &ready.setup.code), t.lost())
    });
    let layout = if cell.repeat == 0 { layouts::rows(point, row, ready) } else { vec![] };
    Ok(Outcome { timeline, layout, ..outcome(&report, &ready.setup, wants, watch) })
}

/// The scenario that a cell runs.
pub(crate) fn scenario(e: &Experiment, ready: &Prepared, cell: &Cell) -> Result<Scenario, String> {
    let point = &e.point;
    let names: Vec<&str> = point.tenants.iter().map(|t| t.name.as_str()).collect();
    Ok(Scenario {
        setup: ready.setup.clone(),
        loads: loads(e, point, cell.seed)?,
        warmup: point.warmup,
        duration: point.duration,
        contention: ready.contention,
        jitter: LogNormal::boxed(point.jitter, cell.seed, &names),
    })
}

/// The outcome of a finished run.
pub(crate) fn outcome(report: &Report, setup: &Setup, wants: Wants, watch: Watch) -> Outcome {
    let device = &setup.device;
    let parts = report.tenants.iter().map(|t| t.gpu(device, report.window)).collect();
    outcome_of(report, setup, parts, wants, watch)
}

/// The same, if each tenant's use of the hardware is known already.
fn outcome_of(
    report: &Report,
    setup: &Setup,
    parts: Vec<Option<GpuReport>>,
    wants: Wants,
    watch: Watch,
) -> Outcome {
    let grew = report.tenants.iter().map(|t| t.overload(report.window).is_some());
    let mut grew: Vec<bool> = grew.collect();
    grew.push(grew.contains(&true));
    let mut metrics = metrics(report, &parts);
    for (row, _) in metrics.iter_mut().zip(&grew).filter(|(_, grew)| **grew) {
        MEANINGLESS.iter().for_each(|&metric| row.set(metric, None));
    }
    let mut cdf = if wants.cdf { cdf(report) } else { vec![] };
    cdf.retain(|&(i, ..)| !grew[i]);
    Outcome {
        status: "ok".to_owned(),
        metrics,
        overloaded: overloaded(report, setup),
        events: report.events,
        digest: report.digest,
        context_switches: report.gpu.context_switches,
        cpu_s: 0.0,
        counters: counters(report, setup),
        layout: vec![],
        gpus: vec![],
        cdf,
        series: watch.series.map_or_else(Vec::new, |s| s.finish().0),
        requests: watch.requests,
        timeline: None,
    }
}

/// Metrics that only reflect the length of the run if a queue grows through the whole window.
const MEANINGLESS: [Metric; 7] = [
    Metric::LatencyMean,
    Metric::LatencyP50,
    Metric::LatencyP90,
    Metric::LatencyP95,
    Metric::LatencyP99,
    Metric::LatencyP999,
    Metric::QueueMean,
];

/// For each tenant, then for the whole GPU: the status in words if a queue grew through the whole window.
fn overloaded(report: &Report, setup: &Setup) -> Vec<Option<String>> {
    let cut = report.cut.map(|at| {
        let left: u64 = report.tenants.iter().map(|t| t.in_flight).sum();
        format!("cut at {at}, when {left} requests waited: raise --memory or lower the load")
    });
    let mut names = vec![];
    let mut rows: Vec<Option<String>> = vec![];
    for (tenant, t) in setup.tenants.iter().zip(&report.tenants) {
        let grew = t.overload(report.window).map(|over| {
            names.push(tenant.name.as_str());
            format!(
                "offered {:.1}/s, served {:.1}/s, {} left at the end",
                over.offered_rps, over.served_rps, over.left
            )
        });
        let both: Vec<String> = grew.into_iter().chain(cut.clone()).collect();
        rows.push((!both.is_empty()).then(|| format!("{OVERLOADED}{}", both.join("; "))));
    }
    let who = (!names.is_empty()).then(|| names.join(", "));
    let both: Vec<String> = who.into_iter().chain(cut).collect();
    rows.push((!both.is_empty()).then(|| format!("{OVERLOADED}{}", both.join("; "))));
    rows
}

/// A row of `counters.csv`.
#[derive(Clone, Debug)]
pub(crate) struct Counted {
    pub(crate) name: String,
    pub(crate) unit: &'static str,
    pub(crate) value: f64,
}

fn counters(report: &Report, setup: &Setup) -> Vec<Counted> {
    let counted = report.counters.iter().map(|count| Counted {
        name: count.counter.name.to_owned(),
        unit: count.counter.unit,
        value: count.amount.value(),
    });
    let dropped = setup.tenants.iter().zip(&report.tenants).flat_map(|(tenant, t)| {
        let reason = |&(why, n): &(&str, u64)| Counted {
            name: format!("dropped: {}, {why}", tenant.name),
            unit: "requests",
            value: n as f64,
        };
        t.counts.dropped.iter().map(reason).collect::<Vec<_>>()
    });
    counted.chain(dropped).collect()
}

/// Width of the time series' bins.
pub(crate) fn bin(point: &Point) -> Nanos {
    point.series.unwrap_or(Nanos((point.duration.0 / 100).max(1)))
}

fn loads(e: &Experiment, point: &Point, seed: u64) -> Result<Vec<Load>, String> {
    let load = |t: &crate::config::TenantConfig| -> Result<Load, String> {
        if let Some(closed) = t.arrivals.closed() {
            let think = if closed.exponential {
                Think::Exponential(closed.think, Rng::for_names(seed, &[&t.name, "think"]))
            } else {
                Think::Constant(closed.think)
            };
            return Ok(Load::Closed {
                concurrency: closed.concurrency,
                think,
                items: closed.items,
                limit: closed.max_requests,
                tokens: t.arrivals.tokens.map(|law| law.draws(seed, &t.name)),
            });
        }
        let open = t.arrivals.open(&e.base, seed, &t.name);
        open.map(Load::Open).map_err(|why| format!("arrivals: {why}"))
    };
    point.tenants.iter().map(load).collect()
}

/// Names of the workers that a policy lays out at the start.
fn worker_names(ready: &Prepared, row: &PolicyRow, tenants: &[&str]) -> Vec<String> {
    let Ok(mut policy) = (row.info.build)(&row.options) else { return vec![] };
    let Ok(layout) = policy.layout(&ready.setup) else { return vec![] };
    let name = |(i, w): (usize, &cotenant_sim::layout::WorkerSpec)| {
        format!("{} (worker {i})", tenants[w.tenant as usize])
    };
    layout.workers.iter().enumerate().map(name).collect()
}

fn ms(ns: Nanos) -> f64 {
    ns.as_millis_f64()
}

/// For each tenant, then for the whole GPU.
fn metrics(report: &Report, parts: &[Option<GpuReport>]) -> Vec<Metrics> {
    let window = report.window.as_secs_f64();
    let row = |(t, part): (&TenantReport, &Option<GpuReport>)| {
        let mut m = of_tenant(t, window);
        if let Some(gpu) = part {
            utilisations(&mut m, gpu);
        }
        m
    };
    let mut rows: Vec<Metrics> = report.tenants.iter().zip(parts).map(row).collect();
    rows.push(of_gpu(report, window));
    rows
}

fn of_tenant(t: &TenantReport, window: f64) -> Metrics {
    let c = &t.counts;
    let mut m = Metrics::default();
    m.set(Metric::Offered, Some(c.offered as f64));
    m.set(Metric::Completed, Some(c.completed as f64));
    m.set(Metric::Dropped, Some(c.dropped_total() as f64));
    m.set(Metric::InFlight, Some(t.in_flight as f64));
    m.set(Metric::Throughput, Some(c.completed as f64 / window));
    m.set(Metric::Goodput, Some(c.good as f64 / window));
    m.set(Metric::SloAttainment, t.attainment());
    m.set(Metric::LatencyMean, t.latency_mean().map(ms));
    quantiles(&mut m, &c.latencies);
    m.set(Metric::QueueMean, t.queue_mean().map(ms));
    m.set(Metric::LatencyService, t.service_mean().map(ms));
    m.set(Metric::BatchMean, t.batch_mean());
    m.set(Metric::Reconfigurations, Some(c.reconfigurations as f64));
    m.set(Metric::Downtime, Some(ms(Nanos(c.downtime_ns))));
    if let Some(tokens) = &t.tokens {
        generated(&mut m, tokens, window);
    }
    m
}

/// Metrics of tenants that generate tokens.
fn generated(m: &mut Metrics, t: &TokenCounts, window: f64) {
    m.set(Metric::TtftMean, t.ttft_mean().map(ms));
    m.set(Metric::TtftP50, t.ttft.quantile(0.5).map(ms));
    m.set(Metric::TtftP99, t.ttft.quantile(0.99).map(ms));
    m.set(Metric::TpotMean, t.tpot_mean().map(ms));
    m.set(Metric::TpotP50, t.tpot.quantile(0.5).map(ms));
    m.set(Metric::TpotP99, t.tpot.quantile(0.99).map(ms));
    m.set(Metric::TokensPerS, Some(t.generated as f64 / window));
    m.set(Metric::KvUtilization, t.kv_utilization());
    m.set(Metric::Preemptions, Some(t.preemptions as f64));
    m.set(Metric::ItlP99, t.itl.quantile(0.99).map(ms));
    m.set(Metric::PromptTokensPerS, Some((t.prefilled + t.cached) as f64 / window));
    m.set(Metric::CachedTokens, Some(t.cached as f64));
    m.set(Metric::RecomputedTokens, Some(t.recomputed as f64));
    m.set(
        Metric::KvMemory,
        t.kv_memory(Nanos((window * 1e9) as u64)).map(|b| b / f64::from(1 << 30)),
    );
}

fn utilisations(m: &mut Metrics, gpu: &GpuReport) {
    m.set(Metric::CuUtilization, Some(gpu.cu_utilization));
    m.set(Metric::DramUtilization, Some(gpu.dram_utilization));
    m.set(Metric::GpuUtil, Some(gpu.gpu_util));
    m.set(Metric::SmActive, Some(gpu.sm_active));
}

fn quantiles(m: &mut Metrics, latencies: &cotenant_sim::metrics::Latencies) {
    for (metric, q) in [
        (Metric::LatencyP50, 0.5),
        (Metric::LatencyP90, 0.9),
        (Metric::LatencyP95, 0.95),
        (Metric::LatencyP99, 0.99),
        (Metric::LatencyP999, 0.999),
    ] {
        m.set(metric, latencies.quantile(q).map(ms));
    }
}

fn of_gpu(report: &Report, window: f64) -> Metrics {
    let all = || report.tenants.iter().map(|t| &t.counts);
    let sum = |f: fn(&TenantReport) -> u64| report.tenants.iter().map(f).sum::<u64>() as f64;
    let completed = sum(|t| t.counts.completed);
    let mean_ms =
        |total: u128| (completed > 0.0).then(|| ms(Nanos((total / completed as u128) as u64)));
    let mut m = Metrics::default();
    m.set(Metric::Offered, Some(sum(|t| t.counts.offered)));
    m.set(Metric::Completed, Some(completed));
    m.set(Metric::Dropped, Some(sum(|t| t.counts.dropped_total())));
    m.set(Metric::InFlight, Some(sum(|t| t.in_flight)));
    m.set(Metric::Throughput, Some(completed / window));
    m.set(Metric::Goodput, Some(sum(|t| t.counts.good) / window));
    m.set(Metric::SloAttainment, attainment(report));
    m.set(Metric::LatencyMean, mean_ms(all().map(|c| c.latency_sum).sum()));
    let mut latencies = cotenant_sim::metrics::Latencies::default();
    all().for_each(|c| latencies.merge(&c.latencies));
    quantiles(&mut m, &latencies);
    m.set(Metric::QueueMean, mean_ms(all().map(|c| c.queue_sum).sum()));
    let service = all().map(|c| c.latency_sum - c.queue_sum).sum();
    m.set(Metric::LatencyService, mean_ms(service));
    let (batches, items) = (sum(|t| t.counts.batches), sum(|t| t.counts.batch_items));
    m.set(Metric::BatchMean, (batches > 0.0).then(|| items / batches));
    utilisations(&mut m, &report.gpu);
    m.set(Metric::Energy, Some(report.gpu.energy_j));
    m.set(Metric::Power, Some(report.gpu.power_w));
    m.set(Metric::Clock, Some(report.gpu.clock_mhz));
    m.set(Metric::Reconfigurations, Some(sum(|t| t.counts.reconfigurations)));
    m.set(Metric::Downtime, Some(sum(|t| t.counts.downtime_ns) / 1e6));
    let mut generating = report.tenants.iter().filter_map(|t| t.tokens.as_ref());
    if let Some(first) = generating.next() {
        let mut all = first.clone();
        generating.for_each(|t| all.merge(t));
        generated(&mut m, &all, window);
    }
    m
}

/// Over the tenants that have deadlines, as [`TenantReport::attainment`] counts.
fn attainment(report: &Report) -> Option<f64> {
    let with = || report.tenants.iter().filter(|t| t.attainment().is_some());
    let good: u64 = with().map(|t| t.counts.good).sum();
    let known: u64 =
        with().map(|t| t.counts.completed + t.counts.dropped_total() + t.in_flight_late).sum();
    (known > 0).then(|| good as f64 / known as f64)
}

/// Every percent, every tenth of a percent beyond 99 %, and the extremes.
fn cdf(report: &Report) -> Vec<(usize, f64, f64)> {
    let mut all = cotenant_sim::metrics::Latencies::default();
    report.tenants.iter().for_each(|t| all.merge(&t.counts.latencies));
    let of_tenants = report.tenants.iter().map(|t| &t.counts.latencies);
    let mut rows = vec![];
    for (i, latencies) in of_tenants.chain([&all]).enumerate() {
        let thousandths = (0..990).step_by(10).chain(990..=1000);
        for q in thousandths.map(|q| f64::from(q) / 1000.0) {
            rows.extend(latencies.quantile(q).map(|l| (i, q, ms(l))));
        }
    }
    rows
}
