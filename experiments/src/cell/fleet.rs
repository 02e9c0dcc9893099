//! A cell on several GPUs, or on one that fails.

use cotenant_profiles::Nanos;
use cotenant_results::Metric;
use cotenant_sim::counter;
use cotenant_sim::fleet::{self, Fleet, FleetReport, GpuRun, Parts};
use cotenant_sim::report::{GpuReport, Report};
use cotenant_sim::scenario::{Jitter, Think};
use cotenant_sim::{Load, Policy};
use cotenant_traces::Rng;

use super::{Outcome, bin, metrics, outcome_of};
use crate::config::{Experiment, FleetConfig, PolicyRow, TenantConfig};
use crate::jitter::LogNormal;
use crate::layouts;
use crate::metrics::number;
use crate::plan::Cell;
use crate::prepare::Prepared;
use crate::watch::{Wants, Watch};

/// What each GPU brings along when it starts.
struct OfCell<'a> {
    e: &'a Experiment,
    fleet: &'a FleetConfig,
    row: &'a PolicyRow,
    seed: u64,
}

impl Parts for OfCell<'_> {
    fn policy(&self, _: u32) -> Box<dyn Policy> {
        (self.row.info.build)(&self.row.options).expect("its options were checked")
    }

    /// Clients are dealt out in turn over the GPUs that serve their tenant.
    fn clients(&self, gpu: u32, tenant: u32) -> Load {
        let t = &self.e.point.tenants[tenant as usize];
        let closed = t.arrivals.closed().expect("asked for closed loops alone");
        let (rank, of) = place(self.fleet, gpu, t);
        let part = |n: u64| n / of + u64::from(rank < n % of);
        let think = if closed.exponential {
            let names = [t.name.as_str(), "think", &rank.to_string()];
            Think::Exponential(closed.think, Rng::for_names(self.seed, &names))
        } else {
            Think::Constant(closed.think)
        };
        Load::Closed {
            concurrency: part(u64::from(closed.concurrency)) as u32,
            think,
            items: closed.items,
            limit: closed.max_requests.map(part),
            tokens: t
                .arrivals
                .tokens
                .map(|law| law.draws(self.seed, &format!("{} on {gpu}", t.name))),
        }
    }

    fn jitter(&self, gpu: u32) -> Option<Box<dyn Jitter>> {
        let point = &self.e.point;
        let here = point.tenants.iter().filter(|t| self.fleet.serves(gpu as usize, t));
        let names: Vec<String> = here.map(|t| format!("{} on {gpu}", t.name)).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        LogNormal::boxed(point.jitter, self.seed, &names)
    }
}

/// The how-manieth of the GPUs that serve a tenant this one is, and how many they are.
fn place(fleet: &FleetConfig, gpu: u32, tenant: &TenantConfig) -> (u64, u64) {
    let before = (0..gpu as usize).filter(|&g| fleet.serves(g, tenant)).count();
    (before as u64, fleet.serving(tenant) as u64)
}

/// Runs the cell.
///
/// # Errors
/// What is wrong, for its status.
pub(super) fn simulate(
    e: &Experiment,
    ready: &Prepared,
    cell: &Cell,
    wants: Wants,
) -> Result<Outcome, String> {
    let point = &e.point;
    let row = &point.policies[cell.policy];
    let fleet = point.fleet.as_ref().expect("there are GPUs");
    if row.info.is_bound() {
        return Err(format!("{}: a bound for one GPU, and there are several", row.info.name));
    }
    if wants.timeline {
        return Err("a timeline shows one GPU; leave `gpus`, `down` or --timeline out".to_owned());
    }
    let open = |t: &TenantConfig| match t.arrivals.closed() {
        Some(_) => Ok(None),
        None => t.arrivals.open(&e.base, cell.seed, &t.name).map(Some),
    };
    let arrivals = point.tenants.iter().map(open).collect::<Result<_, _>>();
    let arrivals = arrivals.map_err(|why| format!("arrivals: {why}"))?;
    let names: Vec<&str> = point.tenants.iter().map(|t| t.name.as_str()).collect();
    let mut watch = Watch::new(wants, &names, point.warmup, point.duration, bin(point));
    let run = Fleet {
        gpus: ready.gpus.clone(),
        arrivals,
        route: fleet.route,
        outages: fleet.outages.clone(),
        warmup: point.warmup,
        duration: point.duration,
    };
    let parts = OfCell { e, fleet, row, seed: cell.seed };
    let observer = if watch.is_idle() { None } else { Some(&mut watch as _) };
    let report = fleet::run(run, &parts, observer).map_err(|refusal| refusal.to_string())?;
    let layout = if cell.repeat == 0 { layouts::rows(point, row, ready) } else { vec![] };
    let gpus = rows(fleet, &report, &names);
    let shares = shares(fleet, &report);
    Ok(Outcome {
        layout,
        gpus,
        ..outcome_of(&whole(fleet, report), &ready.setup, shares, wants, watch)
    })
}

/// What a GPU weighs among the others: by its CUs, by its bandwidth.
#[derive(Clone, Copy, Debug)]
struct Weight {
    cus: f64,
    dram: f64,
}

/// By GPU; they add up to 1.
fn weights(fleet: &FleetConfig) -> Vec<Weight> {
    let sum = |of: fn(&cotenant_profiles::Device) -> f64| {
        fleet.devices.iter().map(|d| of(d)).sum::<f64>()
    };
    let (cus, dram) = (sum(|d| f64::from(d.cus())), sum(|d| d.memory.dram_gbps));
    let weight = |d: &std::sync::Arc<cotenant_profiles::Device>| Weight {
        cus: f64::from(d.cus()) / cus,
        dram: d.memory.dram_gbps / dram,
    };
    fleet.devices.iter().map(weight).collect()
}

/// Adds one GPU's part, by its weight, to that of all.
fn add(sum: &mut GpuReport, part: &GpuReport, weight: Weight) {
    sum.cu_utilization += part.cu_utilization * weight.cus;
    sum.sm_active += part.sm_active * weight.cus;
    sum.gpu_util += part.gpu_util * weight.cus;
    sum.dram_utilization += part.dram_utilization * weight.dram;
    sum.energy_j += part.energy_j;
    sum.power_w += part.power_w;
    sum.clock_mhz += part.clock_mhz * weight.cus;
    sum.context_switches += part.context_switches;
}

/// By tenant: its part of all GPUs together.
fn shares(fleet: &FleetConfig, report: &FleetReport) -> Vec<Option<GpuReport>> {
    let mut shares = vec![None; report.tenants.len()];
    let gpus = report.gpus.iter().zip(&fleet.devices).zip(weights(fleet));
    for ((run, device), weight) in gpus {
        for (of, &t) in run.report.tenants.iter().zip(&run.tenants) {
            if let Some(part) = of.gpu(device, report.window) {
                add(shares[t as usize].get_or_insert(GpuReport::NOTHING), &part, weight);
            }
        }
    }
    shares
}

/// All GPUs as one.
fn whole(fleet: &FleetConfig, report: FleetReport) -> Report {
    let mut all = Report {
        tenants: report.tenants,
        gpu: GpuReport::NOTHING,
        events: 0,
        digest: 0,
        window: report.window,
        counters: vec![],
        cut: None,
    };
    for (run, weight) in report.gpus.into_iter().zip(weights(fleet)) {
        add(&mut all.gpu, &run.report.gpu, weight);
        all.events += run.report.events;
        all.digest = all.digest.rotate_left(1) ^ run.report.digest;
        counter::add(&mut all.counters, run.report.counters);
    }
    all
}

/// The rows of `gpus.csv`.
fn rows(fleet: &FleetConfig, report: &FleetReport, names: &[&str]) -> Vec<Vec<String>> {
    let mut rows = vec![];
    for (g, (run, device)) in report.gpus.iter().zip(&fleet.devices).enumerate() {
        let of = metrics_of(run, device, report.window);
        let who = run.tenants.iter().map(|&t| names[t as usize]).chain(["*"]);
        for (tenant, m) in who.zip(&of) {
            let columns = [
                Metric::Offered,
                Metric::Completed,
                Metric::Dropped,
                Metric::InFlight,
                Metric::Throughput,
                Metric::Goodput,
                Metric::LatencyP50,
                Metric::LatencyP99,
                Metric::CuUtilization,
                Metric::DramUtilization,
                Metric::GpuUtil,
                Metric::SmActive,
                Metric::Energy,
            ];
            let mut fields = vec![g.to_string(), device.name.clone(), tenant.to_owned()];
            fields.extend(columns.map(|metric| number(m.get(metric))));
            rows.push(fields);
        }
    }
    rows
}

fn metrics_of(
    run: &GpuRun,
    device: &cotenant_profiles::Device,
    window: Nanos,
) -> Vec<crate::metrics::Metrics> {
    let parts: Vec<_> = run.report.tenants.iter().map(|t| t.gpu(device, window)).collect();
    metrics(&run.report, &parts)
}
