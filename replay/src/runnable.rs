//! Maps the kernels of a scenario to runnable work. A profile collected by this program names its
//! kernels after the work that was measured; the steps of a generating model say which layer each of
//! their kernels is.

use std::collections::BTreeMap;

use cotenant_profiles::lower::Precision;
use cotenant_profiles::zoo;
use cotenant_sim::scenario::{Setup, Tenant};

use crate::collect::works_of_steps;
use crate::recipe;
use crate::steps;
use crate::work::{self, Work};

/// Batch sizes that are searched for a kernel of a model.
const BATCHES: [u32; 24] =
    [1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, 24, 28, 32, 40, 48, 56, 64, 80, 96, 112, 128];

/// A kernel that this program cannot launch.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotRunnable {
    /// The kernel does not come from the collector.
    #[error(
        "model `{model}`: its profile's kernel `{kernel}` is none that can be launched here; replay \
         needs a profile of this GPU: `cotenant profile collect`, then name its folder in `profiles`"
    )]
    Unknown {
        /// The model.
        model: String,
        /// The kernel's identifier.
        kernel: String,
    },
    /// A generating model's step has a layer that no kernel here computes.
    #[error("model `{model}`: {why}")]
    Step {
        /// The model.
        model: String,
        /// The reason, with the kernel.
        why: String,
    },
}

/// The work of every kernel of a scenario, by kernel number.
///
/// # Errors
/// A kernel does not come from the collector: it was computed, imported or captured.
pub fn works(setup: &Setup) -> Result<Vec<Work>, NotRunnable> {
    let mut known: BTreeMap<String, Work> = BTreeMap::new();
    let mut works: Vec<Option<Work>> = vec![None; setup.code.kernels.len()];
    for tenant in &setup.tenants {
        if tenant.generates.is_some() {
            of_steps(tenant, &mut works)?;
            continue;
        }
        let model = &tenant.model;
        let needed = || model.programs.iter().flat_map(|p| &p.kernels).copied();
        let missing = |known: &BTreeMap<String, Work>| {
            let id = |k: u32| &setup.code.kernels[k as usize].id;
            needed().find(|&k| !known.contains_key(id(k))).map(|k| id(k).clone())
        };
        if missing(&known).is_some() {
            let spec = zoo::find(&model.name).ok();
            for (batch, precision) in
                Precision::ALL.iter().flat_map(|&p| BATCHES.iter().map(move |&b| (b, p)))
            {
                let launches = match &spec {
                    Some(spec) => work::launches(spec, batch, precision),
                    None => works_of_steps(&model.name, batch, precision),
                };
                known.extend(launches.into_iter().map(|w| (w.id.clone(), w)));
            }
        }
        if let Some(kernel) = missing(&known) {
            return Err(NotRunnable::Unknown { model: model.name.clone(), kernel });
        }
        for k in needed() {
            works[k as usize] = known.get(&setup.code.kernels[k as usize].id).cloned();
        }
    }
    // A kernel that no tenant launches is never asked for, so any work can stand in for it.
    let spare = works.iter().flatten().next().cloned();
    Ok(works.into_iter().filter_map(|w| w.or_else(|| spare.clone())).collect())
}

/// The work of a generating tenant's step launches. Its kernels may be computed ones: they say which
/// layers they are.
fn of_steps(tenant: &Tenant, works: &mut [Option<Work>]) -> Result<(), NotRunnable> {
    let model = &tenant.model.name;
    let refused = |why: String| NotRunnable::Step { model: model.clone(), why };
    let Some(generates) = &tenant.generates else { return Ok(()) };
    let steps = &generates.steps;
    for kernel in steps.kernels() {
        if works[kernel as usize].is_some() {
            continue;
        }
        let layer = steps.layers.get(&kernel);
        let layer = layer.ok_or_else(|| refused(format!("kernel {kernel} is of no layer")))?;
        let work = steps::work(layer, steps.precision);
        recipe::recipe(&work).map_err(|e| refused(e.to_string()))?;
        works[kernel as usize] = Some(work);
    }
    if let Precision::Fp8 | Precision::Int8 | Precision::Int4 = steps.precision {
        let why = format!("no products in {} here: set precision to fp16 or bf16", steps.precision);
        return Err(refused(why));
    }
    Ok(())
}
