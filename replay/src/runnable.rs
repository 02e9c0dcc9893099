//! Which runnable work the kernels of a scenario are: a profile that was collected here names its
//! kernels after the work that was measured.

use std::collections::BTreeMap;

use cotenant_profiles::lower::Precision;
use cotenant_profiles::zoo;
use cotenant_sim::scenario::Setup;

use crate::work::{self, Work};

/// Batches that are looked through for a kernel of a model.
const BATCHES: [u32; 24] =
    [1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, 24, 28, 32, 40, 48, 56, 64, 80, 96, 112, 128];

/// A kernel that this program cannot launch.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "model `{model}`: its profile's kernel `{kernel}` is none that can be launched here; replay \
     needs a profile of this GPU: `cotenant profile collect`, then name its folder in `profiles`"
)]
pub struct NotRunnable {
    /// The model.
    pub model: String,
    /// The kernel's identifier.
    pub kernel: String,
}

/// The work of every kernel of a scenario, by its number.
///
/// # Errors
/// A kernel that comes from elsewhere than the collector: computed, imported or captured.
pub fn works(setup: &Setup) -> Result<Vec<Work>, NotRunnable> {
    let mut known: BTreeMap<String, Work> = BTreeMap::new();
    let mut works: Vec<Option<Work>> = vec![None; setup.code.kernels.len()];
    for tenant in &setup.tenants {
        let model = &tenant.model;
        let needed = || model.programs.iter().flat_map(|p| &p.kernels).copied();
        let missing = |known: &BTreeMap<String, Work>| {
            let id = |k: u32| &setup.code.kernels[k as usize].id;
            needed().find(|&k| !known.contains_key(id(k))).map(|k| id(k).clone())
        };
        if missing(&known).is_some()
            && let Ok(spec) = zoo::find(&model.name)
        {
            for (batch, precision) in
                Precision::ALL.iter().flat_map(|&p| BATCHES.iter().map(move |&b| (b, p)))
            {
                let launches = work::launches(&spec, batch, precision);
                known.extend(launches.into_iter().map(|w| (w.id.clone(), w)));
            }
        }
        if let Some(kernel) = missing(&known) {
            return Err(NotRunnable { model: model.name.clone(), kernel });
        }
        for k in needed() {
            works[k as usize] = known.get(&setup.code.kernels[k as usize].id).cloned();
        }
    }
    // A kernel that no tenant launches is never asked for; any work may stand for it.
    let spare = works.iter().flatten().next().cloned();
    Ok(works.into_iter().filter_map(|w| w.or_else(|| spare.clone())).collect())
}
