//! `mig`: hardware instances.
//!
//! Models NVIDIA's multi-instance GPU: each tenant gets an instance with CUs, L2, DRAM bandwidth,
//! memory and copy engines of its own, from the device's table of legal placements. Nothing crosses
//! instances (PCIe and power do on real boards). `instances` names one profile per tenant, in tenant
//! order; without it all legal sets are searched for the assignment whose worst slow-down against the
//! isolated model is least (ties: least product of slow-downs). With `place`, several tenants may share
//! an instance: `instances` is then any legal set, and `place` says which of them each tenant is on.
//! Several workers in one instance are clients of MPS inside it; `shares` caps each tenant's workers at
//! a percentage of the instance's CUs, rounded as MPS rounds. The layout is fixed for the run: a
//! change means destroying and creating instances and reloading every model on them, in seconds.
//!
//! Source: NVIDIA's MIG user guide and instance tables of real boards (see the device files). The
//! search criterion is a choice of this project.

use cotenant_profiles::device::{Mig as Table, MigInstance};

use super::{Depth, LayoutError, PerTenant, Places, Policy, PolicyInfo, Properties};
use crate::layout::{Discipline, Host, Layout, PoolSpec, Role, WorkerSpec};
use crate::scenario::Setup;
use crate::{options, words};

/// The registry entry.
pub(super) const INFO: PolicyInfo = PolicyInfo {
    name: "mig",
    summary: "hardware instances from the legal placements, MPS inside where tenants share one",
    source: "NVIDIA MIG user guide; instance tables of real boards",
    properties: Properties {
        work_conserving: false,
        alone_is_isolated: false,
        starvation_free: true,
    },
    options: Mig::SPECS,
    counters: &[],
    build: |options| Ok(Box::new(Mig::read(options)?)),
};

options! {
    /// Options of `mig`.
    struct Mig {
        /// one instance profile per tenant, in tenant order, such as ["1g", "3g"]; with `place`, the
        /// instances in any number
        instances: Option<Vec<String>> = None, unset("searched");
        /// which of the instances each tenant is on, counted from 0; several may share one
        place: Option<Places> = None, unset("an instance per tenant");
        /// percentage of its instance's CUs that one worker of each tenant may use
        shares: PerTenant<Rule> = PerTenant::Word(Rule::Whole), unit("%");
    }
}

/// How a share is determined.
#[derive(Clone, Copy, Debug)]
enum Rule {
    Whole,
}

words!(Rule { "whole" => Rule::Whole });

impl Policy for Mig {
    fn depth(&self) -> Depth {
        Depth::Layout
    }

    fn layout(&mut self, setup: &Setup) -> Result<Layout, LayoutError> {
        let device = &setup.device;
        let Some(table) = &device.mig else {
            return Err(LayoutError(format!("{} has no hardware instances (MIG)", device.name)));
        };
        let tenants = setup.tenants.len();
        let (chosen, place) = match (&self.instances, &self.place) {
            (Some(names), Some(place)) => {
                let place = places(setup, &place.0, names.len())?;
                (legal(table, names)?, place)
            }
            (Some(names), None) => (given(setup, table, names)?, (0..tenants).collect()),
            (None, Some(_)) => {
                return Err(LayoutError("`place` needs `instances`".to_owned()));
            }
            (None, None) => (search(setup, table)?, (0..tenants).collect()),
        };
        let pools = chosen.iter().map(|&p| {
            let instance = device.mig_instance(&table.profiles[p]);
            PoolSpec {
                cus: instance.cus,
                lanes: vec![instance.cus],
                discipline: Discipline::Concurrent,
                dram_bytes_per_us: dram_bytes_per_us(&instance),
                l2: instance.l2,
                memory: instance.capacity,
                copy_engines: instance.copy_engines,
                host: Host::Own,
            }
        });
        let pools: Vec<_> = pools.collect();
        let percent = match &self.shares {
            PerTenant::Word(Rule::Whole) => vec![100.0; tenants],
            PerTenant::Given(value) => setup.per_tenant("shares", value)?,
        };
        // A worker that is alone in an instance needs no MPS there.
        let mut processes = vec![0; pools.len()];
        for (tenant, &pool) in setup.tenants.iter().zip(&place) {
            processes[pool] += tenant.workers;
        }
        let step = device.mps.map_or(1, |m| m.round_cus.max(1));
        let workers = setup.workers(|tenant, _| {
            let pool = place[tenant as usize];
            let cus = pools[pool].cus;
            let share = (f64::from(cus) * percent[tenant as usize] / 100.0 + 1e-9) as u32;
            let mps = processes[pool] > 1;
            WorkerSpec {
                tenant,
                pool: pool as u32,
                lane: 0,
                // An instance may be smaller than a step.
                cap: if share >= cus { cus } else { (share / step * step).max(step).min(cus) },
                priority: 0,
                overhead: if mps { setup.client_memory() } else { setup.costs.context_memory },
                role: Role::Whole,
            }
        });
        Ok(Layout { pools, workers })
    }
}

/// The instance of each tenant.
fn places(
    setup: &Setup,
    value: &super::Value,
    instances: usize,
) -> Result<Vec<usize>, LayoutError> {
    let places = setup.per_tenant("place", value)?;
    let places: Vec<usize> = places.into_iter().map(|p| p as usize).collect();
    if let Some((tenant, p)) = setup.tenants.iter().zip(&places).find(|(_, p)| **p >= instances) {
        return Err(LayoutError(format!(
            "`place` puts `{}` on instance {p}, but `instances` names {instances}, counted from 0",
            tenant.name
        )));
    }
    Ok(places)
}

fn dram_bytes_per_us(instance: &MigInstance) -> u64 {
    (instance.dram_gbps * 1000.0) as u64
}

fn given(setup: &Setup, table: &Table, names: &[String]) -> Result<Vec<usize>, LayoutError> {
    if names.len() != setup.tenants.len() {
        return Err(LayoutError(format!(
            "`instances` names {} instances for {} tenants",
            names.len(),
            setup.tenants.len()
        )));
    }
    legal(table, names)
}

/// The profiles with these names, if they fit the device together.
fn legal(table: &Table, names: &[String]) -> Result<Vec<usize>, LayoutError> {
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let placed = table.placements(&names).map_err(|e| LayoutError(e.to_string()))?;
    Ok(placed.iter().map(|p| p.profile).collect())
}

/// The assignment of instances to tenants with the smallest worst-case slowdown.
fn search(setup: &Setup, table: &Table) -> Result<Vec<usize>, LayoutError> {
    let n = setup.tenants.len();
    let slow: Vec<Vec<Option<f64>>> = (0..n)
        .map(|t| {
            let instances = table.profiles.iter().map(|p| setup.device.mig_instance(p));
            instances.map(|i| slow_down(setup, t, &i)).collect()
        })
        .collect();
    let mut best: Option<(f64, f64, Vec<usize>)> = None;
    for set in table.combinations(n) {
        assign(&slow, &mut set.clone(), 0, &mut |order| {
            let factors = order.iter().enumerate().map(|(t, &p)| slow[t][p]);
            let Some(factors) = factors.collect::<Option<Vec<f64>>>() else { return };
            let worst = factors.iter().copied().fold(0.0, f64::max);
            let product = factors.iter().product::<f64>();
            if best.as_ref().is_none_or(|(w, p, _)| (worst, product) < (*w, *p)) {
                best = Some((worst, product, order.to_vec()));
            }
        });
    }
    best.map(|(_, _, order)| order).ok_or_else(|| {
        let name = &setup.device.name;
        LayoutError(format!("no legal set of {n} instances of {name} holds these tenants' models"))
    })
}

/// Every order of `set` from `from` on.
fn assign(
    slow: &[Vec<Option<f64>>],
    set: &mut [usize],
    from: usize,
    visit: &mut impl FnMut(&[usize]),
) {
    if from == set.len() {
        return visit(set);
    }
    for i in from..set.len() {
        // The same profile twice gives the same assignment, and a profile that does not fit gives none.
        if set[from..i].contains(&set[i]) || slow[from][set[i]].is_none() {
            continue;
        }
        set.swap(from, i);
        assign(slow, set, from + 1, visit);
        set.swap(from, i);
    }
}

/// GPU time of a tenant's largest batch on `instance` over that on the whole device; `None` if the
/// model does not fit into its memory.
fn slow_down(setup: &Setup, tenant: usize, instance: &MigInstance) -> Option<f64> {
    let t = &setup.tenants[tenant];
    let each = t.model.memory().0 + setup.costs.context_memory.0;
    if each * u64::from(t.workers) > instance.capacity.0 {
        return None;
    }
    let program = t.model.program(t.batch_max);
    let kernels = program.kernels.iter().map(|&k| &setup.code.kernels[k as usize]);
    let rate = dram_bytes_per_us(instance).max(1);
    let whole: u64 = kernels.clone().map(|k| k.at(setup.device.cus())).sum();
    let here: u64 = kernels.map(|k| k.at(instance.cus).max(k.dram_bytes * 1000 / rate)).sum();
    Some(here as f64 / whole as f64)
}
