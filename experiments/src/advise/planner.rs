//! Published planners, for comparison: how many GPUs they ask for, and what their plans deliver.
//!
//! Each planner gets the inputs that its authors give it: a profile of every tenant (throughput and batch
//! time by share, batch and processes), rates and goals. The profile is simulated here, one tenant at a time.
//! The resulting plan is simulated like every other row.

mod fgd;
mod gpu_lets;
mod igniter;
mod parvagpu;
pub(super) mod saturated;

use std::collections::BTreeMap;

use clap::ValueEnum;
use cotenant_deploy::Sharing;
use cotenant_profiles::Nanos;

use super::lab::{Candidate, How, Lab};
use super::screen::{Place, batch_ns};
use super::search::parallel;
use saturated::Saturated;

/// A published planner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Planner {
    /// ParvaGPU (SC 2024): MIG instances, each with several processes of one model under MPS
    #[value(name = "parvagpu")]
    ParvaGpu,
    /// gpu-lets (ATC 2022): MPS percentages of fifths, at most two models on a GPU
    GpuLets,
    /// iGniter (TPDS 2023): MPS percentages, placed where neighbours cost least
    Igniter,
    /// FGD (ATC 2023): shares packed so that least of a GPU is left that nobody can use
    Fgd,
}

impl Planner {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::ParvaGpu => "ParvaGPU's plan",
            Self::GpuLets => "gpu-lets' plan",
            Self::Igniter => "iGniter's plan",
            Self::Fgd => "FGD's packing",
        }
    }

    /// The deployment that it plans, GPU by GPU.
    ///
    /// # Errors
    /// The device lacks the mechanism, or a tenant has no rate, no goal, or a goal that no share meets.
    pub(crate) fn plan(self, lab: &Lab, threads: usize) -> Result<Vec<Candidate>, String> {
        let wanted = wanted(lab)?;
        match self {
            Self::ParvaGpu => parvagpu::plan(lab, &wanted, threads),
            Self::GpuLets => gpu_lets::plan(lab, &wanted, threads),
            Self::Igniter => igniter::plan(lab, &wanted),
            Self::Fgd => fgd::plan(lab, &wanted, threads),
        }
    }
}

/// The service that one tenant asks for.
#[derive(Clone, Copy, Debug)]
struct Wanted {
    tenant: usize,
    /// Requests/s.
    rate: f64,
    goal: Nanos,
}

/// A part of a GPU that serves a part of a tenant's requests.
#[derive(Clone, Debug)]
struct Part {
    tenant: usize,
    batch: u32,
    workers: u32,
    /// Requests/s that it is meant to serve: requests are divided in this proportion.
    rps: f64,
}

fn wanted(lab: &Lab) -> Result<Vec<Wanted>, String> {
    let each = lab.all().into_iter().map(|tenant| {
        let lacks =
            |what: &str| format!("plans for rates and goals; `{}` has no {what}", lab.name(tenant));
        if lab.generates(tenant) {
            let name = lab.name(tenant);
            return Err(format!("plans for models of one answer; `{name}` generates tokens"));
        }
        let goal = lab.slo(tenant).ok_or_else(|| lacks("goal"))?;
        let rate = lab.mix.rate(tenant).ok_or_else(|| lacks("rate"))?;
        Ok(Wanted { tenant, rate, goal })
    });
    each.collect()
}

/// Powers of two up to the tenant's largest batch; only that one if the mix fixes it.
fn batches(lab: &Lab, tenant: usize) -> Vec<u32> {
    let limit = lab.batch_limit[tenant];
    if lab.mix.fixed_batch[tenant] {
        return vec![limit];
    }
    (0..).map(|i| 1 << i).take_while(|&b| b <= limit).collect()
}

/// A tenant's profile at many settings at once; settings at which it does not run are left out.
fn profile<K: Clone + Ord + Sync>(
    lab: &Lab,
    tenant: usize,
    settings: &[(K, Sharing, u32, u32)],
    threads: usize,
) -> BTreeMap<(K, u32, u32), Saturated> {
    let found = parallel(threads, settings, |(_, sharing, batch, workers)| {
        lab.saturated(tenant, sharing.clone(), *batch, *workers)
    });
    let all = settings.iter().zip(found);
    all.filter_map(|((k, _, b, w), found)| Some(((k.clone(), *b, *w), found?))).collect()
}

/// The candidates of all GPUs, each with its parts and how it is shared; a tenant's requests are divided in
/// proportion to what its parts are meant to serve.
fn candidates(lab: &Lab, gpus: impl Iterator<Item = (Vec<Part>, Sharing)>) -> Vec<Candidate> {
    let gpus: Vec<_> = gpus.collect();
    let mut sums: BTreeMap<usize, f64> = BTreeMap::new();
    for p in gpus.iter().flat_map(|(parts, _)| parts) {
        *sums.entry(p.tenant).or_insert(0.0) += p.rps;
    }
    let one = |(parts, sharing): (Vec<Part>, Sharing)| Candidate {
        tenants: parts.iter().map(|p| p.tenant).collect(),
        requests: parts.iter().map(|p| p.rps / sums[&p.tenant]).collect(),
        how: How::Deploy(sharing),
        batch: parts.iter().map(|p| p.batch).collect(),
        tokens: parts.iter().map(|p| super::space::own_tokens(lab, p.tenant)).collect(),
        memory: vec![None; parts.len()],
        timeout: parts.iter().map(|p| super::space::timeout(lab, p.tenant)).collect(),
        workers: parts.iter().map(|p| p.workers).collect(),
    };
    gpus.into_iter().map(one).collect()
}

/// Utilisation of L2 and DRAM by a part that has `percent` percent of the GPU to itself.
fn utilization(lab: &Lab, p: &Part, percent: u32) -> (f64, f64) {
    let setup = &lab.setup;
    let program = setup.tenants[p.tenant].model.program(p.batch);
    let bytes: u64 =
        program.kernels.iter().map(|&k| setup.code.kernels[k as usize].dram_bytes).sum();
    let place = Place::part(setup, setup.device.cus() * percent / 100);
    let (gpu, host) = batch_ns(lab, p.tenant, p.batch, place);
    let per_ns = bytes as f64 / gpu.max(host).max(1.0);
    let memory = &setup.device.memory;
    ((per_ns / memory.l2_gbps).min(1.0), (per_ns / memory.dram_gbps).min(1.0))
}
