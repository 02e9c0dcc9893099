//! Estimates what a cell would take before it runs: a typo of a few zeros becomes a failed cell with a number
//! in its message, not a machine without memory or a run without end.

use std::sync::OnceLock;

use cotenant_profiles::{Bytes, Nanos};
use cotenant_sim::policy::Kind;
use cotenant_traces::{Process, Scenario};
use rustix::process::{Resource, getrlimit};

use crate::config::{Point, PolicyRow, TenantConfig};
use crate::prepare::Prepared;

/// Memory of a waiting request: its place in a queue, its timer, and the spare room of growing vectors.
const REQUEST: u64 = 200;
/// Events of a request besides its kernels: arrival, batch, copies, answer.
const EVENTS_OF_REQUEST: f64 = 4.0;
/// A policy that is called periodically looks at every tenant and worker: this takes as long as this many
/// events.
const EVENTS_OF_PERIOD: f64 = 20.0;
/// Events/s of one thread, for the time in a message: measured on a server from 2023.
const EVENTS_PER_SECOND: f64 = 1e7;
/// The most events of a cell unless the command line says otherwise: about three hours.
pub(crate) const MAX_EVENTS: f64 = 1e11;
/// A shared GPU answers at most this many times as many requests as one worker alone: many small models.
const SHARING: f64 = 20.0;

/// The resources that a cell may take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Budget {
    /// Memory of all cells that run at the same time.
    pub(crate) memory: Bytes,
    /// Events of one cell.
    pub(crate) events: f64,
    /// Number of cells that run at the same time.
    pub(crate) cells: u64,
}

static BUDGET: OnceLock<Budget> = OnceLock::new();

impl Budget {
    /// The given limits, or those of the machine.
    pub(crate) fn new(memory: Option<Bytes>, events: Option<f64>, cells: usize) -> Self {
        Self {
            memory: memory.unwrap_or_else(|| Bytes(machine() / 5 * 4)),
            events: events.unwrap_or(MAX_EVENTS),
            cells: cells.max(1) as u64,
        }
    }

    /// Makes it the budget of this process. Only the first call counts.
    pub(crate) fn set(self) {
        let _ = BUDGET.set(self);
    }
}

/// Memory that this process may use: the smallest of the machine's free memory, its control group's limit and
/// its own.
fn machine() -> u64 {
    let free = std::fs::read_to_string("/proc/meminfo").ok().and_then(|text| {
        let line = text.lines().find(|line| line.starts_with("MemAvailable:"))?;
        Some(line.split_whitespace().nth(1)?.parse::<u64>().ok()? << 10)
    });
    let group = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"]
        .iter()
        .find_map(|file| std::fs::read_to_string(file).ok()?.trim().parse::<u64>().ok());
    let own = getrlimit(Resource::As).current;
    // If the system tells nothing: a small machine.
    [free, group, own].into_iter().flatten().min().unwrap_or(2 << 30)
}

/// Refuses a cell that would take more than is available. A queue that grows because more requests arrive
/// than are served is no reason to refuse: the run is cut when more requests wait than the number returned
/// here.
///
/// # Errors
/// The estimate, the limit, and the keys to change.
pub(crate) fn check(point: &Point, row: &PolicyRow, ready: &Prepared) -> Result<u64, String> {
    let budget = BUDGET.get().copied().unwrap_or_else(|| {
        let cells = std::thread::available_parallelism().map_or(1, usize::from);
        Budget::new(None, None, cells)
    });
    let span = point.warmup + point.duration;
    let (mut events, mut waiting) = (0.0, 0.0);
    let limit = budget.memory.0 / budget.cells;
    // Bounds and runs on several GPUs are never cut.
    let uncut = row.info.is_bound() || point.fleet.is_some();
    for (t, (config, tenant)) in point.tenants.iter().zip(&ready.setup.tenants).enumerate() {
        let gpus = point.fleet.as_ref().map_or(1, |fleet| fleet.serving(config));
        // The longest that a request may wait.
        let patience = config.drop_after.and_then(|rule| rule.limit.or(tenant.slo));
        let patience = patience.map(|p| p.as_secs_f64());
        let alone = ready.alone_rps[t].map(|rps| rps * gpus as f64);
        let need = need(config, span, alone, patience);
        let launches = tenant.model.programs.iter().map(|p| p.kernels.len()).min().unwrap_or(1);
        let per_request = launches as f64 / f64::from(config.batch_max);
        events += need.requests * EVENTS_OF_REQUEST + need.answered * per_request;
        if need.at_once || uncut {
            waiting += need.waiting;
        }
        let bytes = waiting * REQUEST as f64;
        if bytes > limit as f64 {
            return Err(format!(
                "over-budget: at tenant `{}` {waiting:.1e} requests would wait at once, about {:.0} \
                 GiB where a cell has {:.1}: lower its {}, shorten `duration`, or raise --memory",
                config.name,
                bytes / f64::from(1 << 30),
                limit as f64 / f64::from(1 << 30),
                need.key,
            ));
        }
    }
    for (spec, period) in periods(row) {
        let asked = span.0 as f64 / period.0 as f64 * EVENTS_OF_PERIOD;
        if asked > budget.events {
            return Err(over_events(asked, budget.events, &format!("lengthen `{spec}`")));
        }
        events += asked;
    }
    if events > budget.events {
        return Err(over_events(events, budget.events, "shorten `duration`"));
    }
    Ok(limit / REQUEST)
}

fn over_events(events: f64, limit: f64, advice: &str) -> String {
    format!(
        "over-budget: about {events:.1e} events, {:.0} h, where a cell may have {limit:.1e}: \
         {advice}, or raise --max-events",
        events / EVENTS_PER_SECOND / 3600.0
    )
}

/// The demand of one tenant.
struct Need {
    /// Requests that arrive.
    requests: f64,
    /// Requests that are answered, at least.
    answered: f64,
    /// Requests that wait at the same time, at least.
    waiting: f64,
    /// They wait at once, however many are served: their number does not grow with time.
    at_once: bool,
    /// The key that decides it.
    key: &'static str,
}

fn need(config: &TenantConfig, span: Nanos, alone_rps: Option<f64>, patience: Option<f64>) -> Need {
    let seconds = span.as_secs_f64();
    let alone = alone_rps.map_or(f64::INFINITY, |rps| rps * seconds);
    if let Some(closed) = config.arrivals.closed() {
        let clients = f64::from(closed.concurrency);
        let limit = closed.max_requests.map_or(f64::INFINITY, |n| n as f64);
        let thinking = closed.think.as_secs_f64();
        let rounds = if thinking > 0.0 { clients * (1.0 + seconds / thinking) } else { alone };
        let answered = alone.min(rounds).min(limit).min(1e30);
        // A client whose request is dropped asks again.
        let dropped = patience.map_or(0.0, |patience| clients * seconds / (patience + thinking));
        let requests = (answered + dropped).min(limit).min(1e30);
        let waiting = clients.min(limit);
        let key = "`arrivals.concurrency`";
        return Need { requests, answered, waiting, at_once: true, key };
    }
    if let Process::Mlperf(settings) = &config.arrivals.process
        && settings.scenario == Scenario::Offline
    {
        let requests = f64::from(settings.samples);
        let answered = requests.min(alone);
        let key = "`arrivals.samples`";
        return Need { requests, answered, waiting: requests, at_once: true, key };
    }
    // A trace has as many requests as its file has rows.
    let requests = config.arrivals.expected(span).unwrap_or(0.0);
    let waiting = (requests - SHARING * alone).max(0.0);
    let kept = patience.map_or(f64::INFINITY, |patience| requests / seconds * patience);
    let waiting = waiting.min(kept);
    let answered = requests.min(alone);
    Need { requests, answered, waiting, at_once: false, key: "`arrivals.rate`" }
}

/// Options that set how often the policy is called.
fn periods(row: &PolicyRow) -> impl Iterator<Item = (&'static str, Nanos)> {
    row.info.options.iter().filter_map(|spec| {
        let Kind::Duration(least) = spec.kind else { return None };
        let given = row.options.0.iter().find(|(name, _)| name == spec.name);
        match given.map(|(_, value)| value) {
            Some(cotenant_sim::policy::Value::Duration(period)) if least > Nanos::ZERO => {
                Some((spec.name, *period))
            }
            _ => None,
        }
    })
}
