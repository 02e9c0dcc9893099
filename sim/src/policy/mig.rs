//! `mig`: hardware instances.
//!
//! Models NVIDIA's multi-instance GPU: each tenant gets an instance with CUs, L2, DRAM bandwidth,
//! memory and copy engines of its own, from the device's table of legal placements. Nothing crosses
//! instances (PCIe and power do on real boards). Several workers of a tenant share its instance as
//! they would under MPS inside it. `instances` names one profile per tenant, in tenant order; without
//! it all legal sets are searched for the assignment whose worst slow-down against the isolated
//! model is least (ties: least product of slow-downs). The layout is fixed for the run: a change
//! means destroying and creating instances and reloading every model on them, in seconds.
//!
//! Source: NVIDIA's MIG user guide and instance tables of real boards (see the device files). The
//! search criterion is a choice of this project.

use cotenant_profiles::device::{Mig as Table, MigInstance};

use super::{Depth, LayoutError, Policy, PolicyInfo, Properties};
use crate::layout::{Discipline, Host, Layout, PoolSpec, WorkerSpec};
use crate::options;
use crate::scenario::Setup;

/// The registry entry.
pub(super) const INFO: PolicyInfo = PolicyInfo {
    name: "mig",
    summary: "a hardware instance per tenant, from the legal placements",
    source: "NVIDIA MIG user guide; instance tables of real boards",
    properties: Properties {
        work_conserving: false,
        alone_is_isolated: false,
        starvation_free: true,
    },
    options: Mig::SPECS,
    build: |options| Ok(Box::new(Mig::read(options)?)),
};

options! {
    /// Options of `mig`.
    struct Mig {
        /// one instance profile per tenant, in tenant order, such as ["1g", "3g"]
        instances: Option<Vec<String>> = None, unset("searched");
    }
}

impl Policy for Mig {
    fn depth(&self) -> Depth {
        Depth::Layout
    }

    fn layout(&mut self, setup: &Setup) -> Result<Layout, LayoutError> {
        let device = &setup.device;
        let Some(table) = &device.mig else {
            return Err(LayoutError(format!("{} has no hardware instances (MIG)", device.name)));
        };
        let chosen = match &self.instances {
            Some(names) => given(setup, table, names)?,
            None => search(setup, table)?,
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
        let workers = setup.workers(|tenant, _| WorkerSpec {
            tenant,
            pool: tenant,
            lane: 0,
            cap: pools[tenant as usize].cus,
            priority: 0,
            overhead: setup.costs.context_memory,
        });
        Ok(Layout { pools, workers })
    }
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
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let placed = table.placements(&names).map_err(|e| LayoutError(e.to_string()))?;
    Ok(placed.iter().map(|p| p.profile).collect())
}

/// The assignment of instances to tenants with the least worst slow-down.
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
        // The same profile twice gives the same assignment, and one that does not fit gives none.
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
